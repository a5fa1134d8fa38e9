//! Who stands in for owners that are out of reach: the fallbacks of one request, each given out once.
//!
//! Fallbacks come in the ring's order of preference (Dynamo, section 4.6), so that a read asks those nodes first to which
//! writes went. A node that is known to be down is passed over. Owners are no fallbacks, not even those that a smaller n
//! leaves out: a node is one or the other for a partition, and what it may claim with an event depends on which.

use std::collections::VecDeque;

use atoll_ring::NodeId;

use super::Place;
use crate::Node;

/// Most fallbacks that one request asks. They are there for as many owners as may be away at once; past that the request
/// would wander through the whole cluster.
const STAND_INS_MAX: usize = 8;

/// The fallbacks of a request that were not asked yet, the next one first.
pub(crate) struct StandIns {
    left: VecDeque<NodeId>,
}

impl StandIns {
    /// For a request that asks nobody but owners.
    pub(crate) fn none() -> Self {
        StandIns { left: VecDeque::new() }
    }

    /// All that could stand in, this node included if it is no owner.
    pub(crate) fn of(place: &Place) -> Self {
        let owners = place.owners(place.bucket_n());
        let order = place.view.preference(place.partition).into_iter();
        StandIns {
            left: order.filter(|node| !owners.contains(*node)).take(STAND_INS_MAX).collect(),
        }
    }

    /// Without this one.
    pub(crate) fn without(mut self, excluded: NodeId) -> Self {
        self.left.retain(|node| *node != excluded);
        self
    }

    /// The next one that is not known to be down.
    pub(crate) fn next(&mut self, node: &Node) -> Option<NodeId> {
        loop {
            let next = self.left.pop_front()?;
            if next == node.id() || !node.liveness().is_down(next) {
                return Some(next);
            }
        }
    }

    /// How many there are that are not known to be down.
    pub(crate) fn reachable(&self, node: &Node) -> usize {
        self.left.iter().filter(|next| !node.liveness().is_down(**next)).count()
    }
}
