//! Who owns which partition: the planner.
//!
//! A plan is made in four steps, each with a file of its own:
//!
//! 1. `spread`: how many owners of one partition each zone may hold. With at least as many zones as
//!    replicas that is one at most; with fewer it is as even as the zones' sizes allow.
//! 2. `quota`: how many partition replicas each node shall hold: in proportion to the weights,
//!    within what the zones allow, to the last one.
//! 3. `assign`: which partitions those are. What can stay stays; the rest is handed out so that
//!    every quota is met exactly. The quotas respect the zones' limits, so an exact assignment
//!    always exists.
//! 4. `order`: in which order a partition's owners stand. A fresh placement follows the hash ring
//!    and evens out who comes first; later on a successor takes its predecessor's place.
//!
//! Integers only, and every tie is decided by the ring or by the node's id: two nodes that plan the
//! same change get the same table.

mod assign;
mod order;
mod quota;
mod spread;

use crate::{Member, NodeId, Partition, Partitions, Preference};
use assign::Assignment;
use spread::Spread;

/// Who owns which partition, and what the operator should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The owners of each partition, in their order.
    pub table: Vec<Vec<NodeId>>,
    /// Who stands in for whom.
    pub preference: Preference,
    /// What the operator should know before this becomes the placement.
    pub warnings: Vec<PlacementWarning>,
}

impl Placement {
    /// Plans the owners of all partitions, moving as little as it can from the `previous` table.
    ///
    /// The order of `members` does not matter. The previous table may name nodes that are members
    /// no longer; their replicas are handed to others.
    pub fn plan(
        members: &[Member],
        partitions: Partitions,
        replicas: u8,
        previous: Option<&[Vec<NodeId>]>,
    ) -> Result<Placement, PlacementError> {
        let task = Task::new(members, partitions, replicas, previous)?;
        let quotas = quota::quotas(&task, &task.spread);
        let owners = Assignment::new(&task, &quotas).complete();
        let table = order::places(&task, owners);
        Ok(Placement {
            table: table.iter().map(|owners| task.named(owners)).collect(),
            warnings: task.warnings(&quotas),
            preference: task.preference,
        })
    }
}

/// The most replicas a cluster may keep of each partition. More would cost every write an ack per
/// replica and gain nothing: at 16 the disks are no longer what fails.
pub const REPLICAS_MAX: u8 = 16;

/// Most members of a cluster. Everybody connects to everybody, and every member is 64 points on the
/// ring that each reader of a view works out.
pub const MEMBERS_MAX: usize = 4096;

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

/// No placement exists. The operator changes the members or the number of replicas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Replicas out of range.
    #[error("{replicas} replicas: the number must be from 1 to {REPLICAS_MAX}")]
    ReplicasOutOfRange {
        /// What was asked for.
        replicas: u8,
    },
    /// The owners of a partition are distinct nodes, and there are too few.
    #[error("{replicas} replicas need as many members, and there are {members}")]
    MoreReplicasThanMembers {
        /// What was asked for.
        replicas: u8,
        /// Members there are.
        members: usize,
    },
    /// Too many members.
    #[error("{members} members: a cluster has at most {MEMBERS_MAX}")]
    TooManyMembers {
        /// Members there are.
        members: usize,
    },
    /// Two members with one id.
    #[error("{id} is a member twice")]
    MemberTwice {
        /// Which one.
        id: NodeId,
    },
    /// A member that could own nothing.
    #[error("{id} has weight 0: a member that shall own nothing leaves")]
    WeightZero {
        /// Which one.
        id: NodeId,
    },
    /// The previous table belongs to a cluster with another number of partitions.
    #[error("the previous table has {entries} entries for {partitions} partitions")]
    PreviousTable {
        /// Entries it has.
        entries: usize,
        /// Partitions there are.
        partitions: u32,
    },
}

/// Refuses members that cannot hold this many replicas.
pub(crate) fn check_members(members: &[Member], replicas: u8) -> Result<(), PlacementError> {
    if replicas == 0 || replicas > REPLICAS_MAX {
        return Err(PlacementError::ReplicasOutOfRange { replicas });
    }
    if members.len() < usize::from(replicas) {
        return Err(PlacementError::MoreReplicasThanMembers { replicas, members: members.len() });
    }
    if members.len() > MEMBERS_MAX {
        return Err(PlacementError::TooManyMembers { members: members.len() });
    }
    if let Some(member) = members.iter().find(|member| member.weight == 0) {
        return Err(PlacementError::WeightZero { id: member.id });
    }
    let mut ids: Vec<NodeId> = members.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(PlacementError::MemberTwice { id: pair[0] }),
        None => Ok(()),
    }
}

/// What is to be planned.
///
/// From here on a node is its index among the members by id, a partition its index in the table, a
/// zone its index among the zones by name.
struct Task {
    /// By id, ascending.
    members: Vec<Member>,
    partitions: Partitions,
    replicas: usize,
    spread: Spread,
    preference: Preference,
    /// Per partition and place, who stood there before and is still a member. All `None` where
    /// nothing was before.
    before: Vec<Vec<Option<usize>>>,
}

impl Task {
    fn new(
        members: &[Member],
        partitions: Partitions,
        replicas: u8,
        previous: Option<&[Vec<NodeId>]>,
    ) -> Result<Task, PlacementError> {
        check_members(members, replicas)?;
        let count = partitions.count() as usize;
        let replicas = usize::from(replicas);
        let mut members = members.to_vec();
        members.sort_by_key(|member| member.id);
        let before = match previous {
            None => vec![vec![None; replicas]; count],
            Some(table) if table.len() == count => {
                table.iter().map(|owners| still_members(&members, owners)).collect()
            }
            Some(table) => {
                let partitions = partitions.count();
                return Err(PlacementError::PreviousTable { entries: table.len(), partitions });
            }
        };
        let zones: Vec<&str> = members.iter().map(|member| member.zone.as_str()).collect();
        Ok(Task {
            spread: Spread::new(&zones, replicas),
            preference: Preference::new(partitions, members.iter().map(|member| member.id)),
            members,
            partitions,
            replicas,
            before,
        })
    }

    fn nodes(&self) -> std::ops::Range<usize> {
        0..self.members.len()
    }

    /// How many partitions there are.
    fn count(&self) -> usize {
        self.before.len()
    }

    fn weight(&self, node: usize) -> u64 {
        u64::from(self.members[node].weight)
    }

    /// How many replicas each node holds before.
    fn held_before(&self) -> Vec<usize> {
        let mut held = vec![0; self.members.len()];
        for node in self.before.iter().flatten().flatten() {
            held[*node] += 1;
        }
        held
    }

    /// All nodes in ring order from this partition on.
    fn ring_order(&self, partition: usize) -> impl Iterator<Item = usize> + '_ {
        let partition = Partition(u16::try_from(partition).expect("an index into the table"));
        self.preference.order(partition).map(|id| {
            let index = self.members.binary_search_by_key(&id, |member| member.id);
            index.expect("the ring was made of the members")
        })
    }

    fn named(&self, owners: &[usize]) -> Vec<NodeId> {
        owners.iter().map(|owner| self.members[*owner].id).collect()
    }

    fn warnings(&self, quotas: &[usize]) -> Vec<PlacementWarning> {
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
        let weights: u64 = self.nodes().map(|node| self.weight(node)).sum();
        for node in self.nodes() {
            let fair = total * self.weight(node) / weights;
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

/// The owners that are members still, each in its place and no one twice.
fn still_members(members: &[Member], owners: &[NodeId]) -> Vec<Option<usize>> {
    let mut places: Vec<Option<usize>> = Vec::with_capacity(owners.len());
    for owner in owners {
        let node = members.binary_search_by_key(owner, |member| member.id).ok();
        places.push(node.filter(|_| !places.contains(&node)));
    }
    places
}

/// Below this many partition replicas per node we warn: one replica more is then over 1.5 % of a
/// node's load, and the differences between partitions no longer even out.
const PER_NODE_MIN: usize = 64;
