//! What the operator should know about a placement.

use super::{Spread, Task, quota};
use crate::NodeId;

/// Something the operator should know about a placement. It holds all the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum PlacementWarning {
    /// Keeping a partition's owners in distinct zones gives one node more than its share. Another
    /// node in its zone mends it.
    #[error(
        "zone {zone:?} is small: {node} holds {replicas} partition replicas instead of {fair}, \
         because the owners of a partition are spread over zones"
    )]
    ZonesForceImbalance {
        /// The fullest node, measured against its share.
        node: NodeId,
        /// Its zone.
        zone: String,
        /// What it holds.
        replicas: u32,
        /// What it would hold if zones did not matter.
        fair: u32,
    },
    /// Fewer zones than replicas: losing one zone can take several owners of a partition at once.
    #[error("{zones} zones for {replicas} replicas: some owners of a partition share a zone")]
    FewZones {
        /// Zones there are.
        zones: u32,
        /// Owners of each partition.
        replicas: u8,
    },
    /// A weight asks for more than one replica of every partition.
    #[error(
        "the weight of {node} asks for {fair} partition replicas, \
         and a node can hold each of the {partitions} partitions once"
    )]
    WeightOutOfReach {
        /// Whose weight.
        node: NodeId,
        /// What its weight asks for.
        fair: u32,
        /// How many partitions there are.
        partitions: u32,
    },
    /// Few partition replicas per node: one more or less is a noticeable part of a node's load.
    #[error(
        "{per_node} partition replicas per node are few (below {PER_NODE_MIN}): \
         load spreads unevenly; the number of partitions is fixed when a cluster is created"
    )]
    FewPartitions {
        /// How many a node holds on average, rounded down.
        per_node: u32,
    },
}

impl Task {
    pub(super) fn warnings(&self, quotas: &[usize]) -> Vec<PlacementWarning> {
        let mut warnings = Vec::new();
        let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let one_zone = Spread::new(&vec![""; self.members.len()], self.replicas);
        let fair = quota::quotas(self, &one_zone);
        // Equal shares differ by one through rounding alone.
        let excess = |node: usize| quotas[node].saturating_sub(fair[node] + 1) as u64;
        let fullest = self.nodes().max_by(|&a, &b| {
            (excess(a) * self.weight(b)).cmp(&(excess(b) * self.weight(a))).then(b.cmp(&a))
        });
        if let Some(node) = fullest.filter(|node| excess(*node) > 0) {
            warnings.push(PlacementWarning::ZonesForceImbalance {
                node: self.members[node].id,
                zone: self.members[node].zone.clone(),
                replicas: narrow(quotas[node]),
                fair: narrow(fair[node]),
            });
        }
        let zones = self.spread.zones();
        if 1 < zones && zones < self.replicas {
            let replicas = u8::try_from(self.replicas).expect("at most REPLICAS_MAX");
            warnings.push(PlacementWarning::FewZones { zones: narrow(zones), replicas });
        }
        let total = (self.count() * self.replicas) as u64;
        for node in self.nodes() {
            let fair = total * self.weight(node) / self.weights;
            if fair > self.count() as u64 {
                warnings.push(PlacementWarning::WeightOutOfReach {
                    node: self.members[node].id,
                    fair: u32::try_from(fair).expect("at most 65,536 partitions of 16 replicas"),
                    partitions: self.partitions.count(),
                });
            }
        }
        let per_node = self.count() * self.replicas / self.members.len();
        if per_node < PER_NODE_MIN {
            warnings.push(PlacementWarning::FewPartitions { per_node: narrow(per_node) });
        }
        warnings
    }
}

/// Below this many partition replicas per node we warn: one replica more is then over 1.5 % of a
/// node's load, and the differences between partitions no longer even out.
const PER_NODE_MIN: usize = 64;
