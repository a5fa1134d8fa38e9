//! Who stands in for owners that are out of reach: the fallbacks of one request, each given out once.
//!
//! Fallbacks come in the ring's order of preference (Dynamo, section 4.6), so that a read asks those nodes first to which
//! writes went. A node that is known to be down is passed over. Owners are no fallbacks, not even those that a smaller n
//! leaves out: a node is one or the other for a partition, and what it may claim with an event depends on which.

use std::{collections::VecDeque, sync::Arc};

use atoll_ring::{NodeId, Partition, View};

use super::Place;
use crate::Node;

/// Most fallbacks that one request asks. They are there for as many owners as may be away at once; past that the request
/// would wander through the whole cluster.
const STAND_INS_MAX: usize = 8;

/// The fallbacks of a request that were not asked yet, the next one first. Nothing is looked up until one is needed, which
/// is seldom.
pub(crate) struct StandIns {
    place: Option<(Arc<View>, Partition, u8)>,
    excluded: Option<NodeId>,
    left: Option<VecDeque<NodeId>>,
}

impl StandIns {
    /// For a request that asks nobody but owners.
    pub(crate) fn none() -> Self {
        StandIns { place: None, excluded: None, left: None }
    }

    /// All that could stand in, this node included if it is no owner.
    pub(crate) fn of(place: &Place) -> Self {
        let at = (place.view.clone(), place.partition, place.bucket_n());
        StandIns { place: Some(at), excluded: None, left: None }
    }

    /// Without this one.
    pub(crate) fn without(mut self, excluded: NodeId) -> Self {
        self.excluded = Some(excluded);
        self
    }

    /// The next one that is not known to be down.
    pub(crate) fn next(&mut self, node: &Node) -> Option<NodeId> {
        loop {
            let next = self.left().pop_front()?;
            if next == node.id() || !node.liveness().is_down(next) {
                return Some(next);
            }
        }
    }

    /// How many there are that are not known to be down.
    pub(crate) fn reachable(&mut self, node: &Node) -> usize {
        self.left().iter().filter(|next| !node.liveness().is_down(**next)).count()
    }

    /// All of them, whoever is down.
    pub(crate) fn all(&mut self) -> Vec<NodeId> {
        self.left().iter().copied().collect()
    }

    fn left(&mut self) -> &mut VecDeque<NodeId> {
        self.left.get_or_insert_with(|| {
            let Some((view, partition, bucket_n)) = &self.place else { return VecDeque::new() };
            let owners = view.owners(*partition).first(*bucket_n);
            let others = view.preference(*partition).filter(|node| !owners.contains(*node));
            others.filter(|node| Some(*node) != self.excluded).take(STAND_INS_MAX).collect()
        })
    }
}
