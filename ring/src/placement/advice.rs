//! What the operator should know: how many partitions to choose, and where a placement cannot be as
//! even as the members' weights ask for.
//!
//! A warning names the numbers and what mends them. It stops nothing: the placement holds all the
//! same.

use serde::{Deserialize, Serialize};

use super::{Spread, Task, quota};
use crate::{NodeId, Partitions};

impl Partitions {
    /// How many partitions to create a cluster with that shall grow to `nodes_max` nodes: the
    /// fewest that give every node 64 partition replicas, and no fewer than the default.
    ///
    /// `None` where even the most there can be, 65,536, are too few: with three replicas, above 3072
    /// nodes.
    ///
    /// This is Dynamo's third strategy (DeCandia and others, "Dynamo: Amazon's Highly Available
    /// Key-value Store", 2007, section 6.2): equal partitions, many more of them than nodes. The
    /// 64 is our choice. Nodes end one partition replica apart, which is 1.6 % of 64, and joining
    /// nodes take many small pieces from many others. More of them even out little more, and each
    /// costs every owner a Merkle tree and the view `4 · replicas + 8` bytes.
    ///
    /// ```
    /// use atoll_ring::Partitions;
    /// assert_eq!(Partitions::recommended(48, 3), Some(Partitions::DEFAULT));
    /// assert_eq!(Partitions::recommended(100, 3), Some(Partitions::new(4096)?));
    /// assert_eq!(Partitions::recommended(1000, 3), Some(Partitions::new(32_768)?));
    /// assert_eq!(Partitions::recommended(4000, 3), None);
    /// # Ok::<(), atoll_ring::PartitionsError>(())
    /// ```
    #[must_use]
    pub fn recommended(nodes_max: u32, replicas: u8) -> Option<Partitions> {
        let choices = (Partitions::DEFAULT.count().ilog2()..=u16::BITS).map(|bits| 1 << bits);
        choices
            .map(|count| Partitions::new(count).expect("a power of two up to 65,536"))
            .find(|partitions| partitions.nodes_max(replicas) >= nodes_max)
    }

    /// The largest cluster that so many partitions serve well, with 64 partition replicas per node.
    ///
    /// ```
    /// use atoll_ring::Partitions;
    /// assert_eq!(Partitions::DEFAULT.nodes_max(3), 48);
    /// ```
    #[must_use]
    pub fn nodes_max(self, replicas: u8) -> u32 {
        self.count() * u32::from(replicas) / PER_NODE_MIN
    }
}

/// Something the operator should know about a placement. It holds all the same.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error, Serialize, Deserialize,
)]
pub enum PlacementWarning {
    /// Spreading a partition's owners over zones gives one node noticeably more than its share,
    /// as with five nodes in three zones.
    #[error(
        "zone {zone:?} is small: {node} holds {replicas} partition replicas, {}% above its share \
         of {fair}, because the owners of a partition are spread over zones; \
         more nodes in zone {zone:?} even it out",
        (replicas - fair) * 100 / fair
    )]
    ZonesForceImbalance {
        /// The fullest node, measured against its share.
        node: NodeId,
        /// Its zone.
        zone: String,
        /// What it holds.
        replicas: u32,
        /// What it would hold if zones did not matter. At least 1.
        fair: u32,
    },
    /// Fewer zones than replicas: losing one zone can take several owners of a partition at once.
    /// Not said of a single zone, for then the zones are not in use.
    #[error(
        "{zones} zones for {replicas} replicas: some zones hold {together} of the {replicas} \
         owners of a partition, which can fail together; nodes in {} more zones mend it",
        u32::from(*replicas) - zones
    )]
    FewZones {
        /// Zones there are.
        zones: u32,
        /// Owners of each partition.
        replicas: u8,
        /// The most owners of one partition in one zone.
        together: u32,
    },
    /// A weight asks for more than one replica of every partition: it is more than the total of
    /// all weights, divided by the replicas.
    #[error(
        "weight {weight} of {node} asks for {fair} partition replicas, and a node can hold each of \
         the {partitions} partitions once: the others hold the rest; \
         beside their weights {weight_max} is the most it can use"
    )]
    WeightOutOfReach {
        /// Whose weight.
        node: NodeId,
        /// Its weight.
        weight: u32,
        /// The highest weight that could be met, as long as the others keep theirs.
        weight_max: u64,
        /// What its weight asks for.
        fair: u32,
        /// How many partitions there are, which is what it holds.
        partitions: u32,
    },
    /// Few partition replicas per node: one more or less is a noticeable part of a node's load.
    #[error(
        "{partitions} partitions with {replicas} replicas are {per_node} for each of {nodes} \
         nodes, fewer than {PER_NODE_MIN}: load spreads unevenly; {}",
        more_partitions(Partitions::recommended(*nodes, *replicas), *nodes)
    )]
    FewPartitions {
        /// How many partition replicas a node holds on average, rounded down.
        per_node: u32,
        /// How many partitions there are.
        partitions: u32,
        /// Owners of each partition.
        replicas: u8,
        /// How many nodes there are.
        nodes: u32,
    },
}

fn more_partitions(recommended: Option<Partitions>, nodes: u32) -> String {
    let count = match recommended {
        Some(partitions) => format!("{nodes} nodes want {}", partitions.count()),
        None => format!("{nodes} nodes want more than there can be"),
    };
    format!("{count}, and the number is fixed when a cluster is created")
}

impl Task {
    /// What to say about nodes that shall hold these quotas.
    pub(super) fn warnings(&self, quotas: &[usize]) -> Vec<PlacementWarning> {
        let mut warnings = Vec::new();
        warnings.extend(self.imbalance(quotas));
        warnings.extend(self.few_zones());
        warnings.extend(self.nodes().filter_map(|node| self.out_of_reach(node)));
        warnings.extend(self.few_partitions());
        warnings
    }

    /// The node that zones burden most, if that is worth a word.
    fn imbalance(&self, quotas: &[usize]) -> Option<PlacementWarning> {
        let one_zone = Spread::new(&vec![""; self.members.len()], self.replicas);
        let fair = quota::quotas(self, &one_zone, vec![0; self.members.len()]);
        // Equal shares differ by one through rounding alone.
        let excess = |node: usize| quotas[node].saturating_sub(fair[node] + 1) as u64;
        let fullest = self.nodes().max_by(|&a, &b| {
            (excess(a) * self.weight(b)).cmp(&(excess(b) * self.weight(a))).then(b.cmp(&a))
        })?;
        let noticeable = fair[fullest] as u64 * IMBALANCE_PERCENT / 100;
        (excess(fullest) > noticeable).then(|| PlacementWarning::ZonesForceImbalance {
            node: self.members[fullest].id,
            zone: self.members[fullest].zone.clone(),
            replicas: narrow(quotas[fullest]),
            fair: narrow(fair[fullest].max(1)),
        })
    }

    fn few_zones(&self) -> Option<PlacementWarning> {
        let zones = self.spread.zones();
        let together = (0..zones).map(|zone| self.spread.most(zone)).max().unwrap_or(0);
        (1 < zones && zones < self.replicas).then(|| PlacementWarning::FewZones {
            zones: narrow(zones),
            replicas: self.replicas(),
            together: narrow(together),
        })
    }

    fn out_of_reach(&self, node: usize) -> Option<PlacementWarning> {
        let total = self.partition_replicas() as u64;
        let fair = total * self.weight(node) / self.weights;
        let others = self.weights - self.weight(node);
        (fair > self.count() as u64).then(|| PlacementWarning::WeightOutOfReach {
            node: self.members[node].id,
            weight: self.members[node].weight,
            // One replica alone is never out of reach, so there is another one to divide by.
            weight_max: others / (self.replicas as u64 - 1),
            fair: u32::try_from(fair).expect("at most 65,536 partitions of 16 replicas"),
            partitions: self.partitions.count(),
        })
    }

    fn few_partitions(&self) -> Option<PlacementWarning> {
        let nodes = narrow(self.members.len());
        let per_node = narrow(self.partition_replicas() / self.members.len());
        (per_node < PER_NODE_MIN).then(|| PlacementWarning::FewPartitions {
            per_node,
            partitions: self.partitions.count(),
            replicas: self.replicas(),
            nodes,
        })
    }

    fn partition_replicas(&self) -> usize {
        self.count() * self.replicas
    }

    fn replicas(&self) -> u8 {
        u8::try_from(self.replicas).expect("at most REPLICAS_MAX")
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Below this many partition replicas per node we warn: one replica more is then over 1.5 % of a
/// node's load, and the differences between partitions no longer even out.
const PER_NODE_MIN: u32 = 64;

/// How far above its share zones may bring a node before we say so. Below it lies what no operator
/// can change: 100 nodes in three zones cannot be three equal zones, and one of 33 holds 1 % more.
const IMBALANCE_PERCENT: u64 = 2;
