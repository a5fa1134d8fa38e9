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
//! And `advice` says what the operator should know: how many partitions to choose, and what zones
//! and weights make impossible.
//!
//! Integers only, and every tie is decided by the ring or by the node's id: two nodes that plan the
//! same change get the same table.

mod advice;
mod assign;
mod order;
mod quota;
mod spread;

use crate::preference::Distances;
use crate::{Member, NodeId, Partition, Partitions, Preference};
pub use advice::PlacementWarning;
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
        let quotas = quota::quotas(&task, &task.spread, task.held_before());
        let owners = Assignment::new(&task, &quotas).complete();
        let table = order::places(&task, owners);
        Ok(Placement {
            table: table.iter().map(|owners| task.named(owners)).collect(),
            warnings: task.warnings(&quotas),
            preference: task.preference,
        })
    }
}

/// What [`Placement::plan`] would warn of, without the plan.
pub(crate) fn warnings(
    members: &[Member],
    partitions: Partitions,
    replicas: u8,
    table: &[Vec<NodeId>],
) -> Result<Vec<PlacementWarning>, PlacementError> {
    let task = Task::new(members, partitions, replicas, Some(table))?;
    Ok(task.warnings(&quota::quotas(&task, &task.spread, task.held_before())))
}

/// The most replicas a cluster may keep of each partition. More would cost every write an ack per
/// replica and gain nothing: at 16 the disks are no longer what fails.
pub const REPLICAS_MAX: u8 = 16;

/// Most members of a cluster. Everybody connects to everybody, and every member is 64 points on the
/// ring that each reader of a view works out.
pub const MEMBERS_MAX: usize = 4096;

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
    distances: Distances,
    /// The weights of all members together.
    weights: u64,
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
        let preference = Preference::new(partitions, members.iter().map(|member| member.id));
        Ok(Task {
            spread: Spread::new(&zones, replicas),
            distances: preference.distances(),
            preference,
            weights: members.iter().map(|member| u64::from(member.weight)).sum(),
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
        self.preference.walk(at(partition))
    }

    /// How far up the ring from this partition the node stands.
    fn distance(&self, partition: usize, node: usize) -> u64 {
        self.distances.between(at(partition), node)
    }

    /// All partitions, the nearest to the node first.
    fn nearest(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.distances.nearest(node).map(Partition::index)
    }

    fn named(&self, owners: &[usize]) -> Vec<NodeId> {
        owners.iter().map(|owner| self.members[*owner].id).collect()
    }
}

fn at(index: usize) -> Partition {
    Partition(u16::try_from(index).expect("an index into the table"))
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
