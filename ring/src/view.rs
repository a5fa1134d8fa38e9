//! What the whole cluster agrees on at one epoch: members, partitions, owners, moves.
//!
//! A view never changes. A membership change makes the next one, one epoch up, and whoever holds an
//! older one fetches it. The table of owners is part of the view and travels with it: a newer
//! version of this crate may plan differently, and must not see other owners than the node beside
//! it. What comes from outside is checked before it is a [`View`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::document::ViewError;
use crate::placement::{self, Placement, PlacementWarning};
use crate::voters;
use crate::{
    ClusterId, Epoch, Member, MemberState, NodeId, Partition, Partitions, Preference, Token,
};

/// The cluster at one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: Epoch,
    pub(crate) partitions: Partitions,
    pub(crate) replicas: u8,
    pub(crate) bucket_n: u8,
    /// By id, ascending.
    pub(crate) members: Vec<Member>,
    pub(crate) removed: Vec<Removed>,
    pub(crate) invitations: Vec<Invitation>,
    pub(crate) voters: Vec<NodeId>,
    /// One entry per partition, each with its owners in their order.
    pub(crate) owners: Vec<Vec<NodeId>>,
    /// One entry per partition.
    pub(crate) last_changed: Vec<Epoch>,
    pub(crate) moves: BTreeMap<Partition, Move>,
    pub(crate) wanted: BTreeMap<Partition, Vec<NodeId>>,
    /// Follows from the members; not part of the document.
    pub(crate) preference: Preference,
}

impl View {
    /// The first view of a new cluster, epoch 1, with what its operator should know about the
    /// placement.
    pub fn create(
        cluster: ClusterId,
        partitions: Partitions,
        replicas: u8,
        mut members: Vec<Member>,
    ) -> Result<(View, Vec<PlacementWarning>), ViewError> {
        members.sort_by_key(|member| member.id);
        let placement = Placement::plan(&members, partitions, replicas, None)?;
        let epoch = Epoch(1);
        let view = View {
            cluster,
            epoch,
            partitions,
            replicas,
            bucket_n: replicas,
            voters: first_voters(&members),
            members,
            removed: Vec::new(),
            invitations: Vec::new(),
            last_changed: vec![epoch; placement.table.len()],
            owners: placement.table,
            moves: BTreeMap::new(),
            wanted: BTreeMap::new(),
            preference: placement.preference,
        };
        Ok((view, placement.warnings))
    }

    /// What the operator should know about the placement of these members, as the planner would
    /// say it. About as costly as a plan without moves: 0.1 s for 1000 nodes.
    #[must_use]
    pub fn warnings(&self) -> Vec<PlacementWarning> {
        let members: Vec<Member> = self.eligible().cloned().collect();
        placement::warnings(&members, self.partitions, self.replicas, &self.owners)
            .expect("members and tables of a view were checked")
    }

    /// Which cluster this is a view of.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Which view this is. Of two views the one with the higher epoch is newer.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Into how many parts the ring is cut.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// How many owners each partition has, or will have when all moves are done.
    #[must_use]
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// How many copies the default bucket keeps: the replicas the cluster was created with. Keys lie
    /// under a name that contains it, so it never changes.
    #[must_use]
    pub fn bucket_n(&self) -> u8 {
        self.bucket_n
    }

    /// Members of former times. Their ids are never given again.
    #[must_use]
    pub fn removed(&self) -> &[Removed] {
        &self.removed
    }

    /// Since when a node is gone for ever, if it is.
    #[must_use]
    pub fn removed_since(&self, id: NodeId) -> Option<Epoch> {
        self.removed.iter().find(|gone| gone.id == id).map(|gone| gone.epoch)
    }

    /// Who may still register.
    #[must_use]
    pub fn invitations(&self) -> &[Invitation] {
        &self.invitations
    }

    /// Who votes on the membership log, ascending.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Moves that have been decided and not begun: the owners that partitions shall have.
    #[must_use]
    pub fn wanted(&self) -> &BTreeMap<Partition, Vec<NodeId>> {
        &self.wanted
    }

    /// All members, by id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member of that name, if it is one.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        let index = self.members.binary_search_by_key(&id, |member| member.id).ok()?;
        Some(&self.members[index])
    }

    /// The partition a token lies in.
    #[must_use]
    pub fn partition(&self, token: Token) -> Partition {
        self.partitions.of(token)
    }

    /// Who owns a partition now: one set, or two while it moves. An array index.
    ///
    /// # Panics
    /// If the partition does not exist; see [`Partitions::contains`].
    #[must_use]
    pub fn owners(&self, partition: Partition) -> Owners<'_> {
        let owners = &self.owners[partition.index()];
        match self.moves.get(&partition) {
            None => Owners::One(owners),
            Some(Move { target }) => Owners::Joint { old: owners, new: target },
        }
    }

    /// Those of some owners, in either set, that were not declared dead: whoever else can be asked about a key.
    #[must_use]
    pub fn living(&self, owners: Owners<'_>) -> Vec<NodeId> {
        let is_dead = |node: &NodeId| {
            self.member(*node).is_some_and(|member| member.state == MemberState::Dead)
        };
        let mut living = owners.all();
        living.retain(|node| !is_dead(node));
        living
    }

    /// All nodes in the order of the ring from this partition on: who stands in when owners are out
    /// of reach.
    ///
    /// Owners are among them; skip those that were asked already. The walk goes on as far as it is
    /// asked for, some points of the ring for each node.
    pub fn preference(&self, partition: Partition) -> impl Iterator<Item = NodeId> + '_ {
        self.preference.order(partition)
    }

    /// The epoch in which the partition's owners, or its move, last changed. Requests planned
    /// before it are stale.
    ///
    /// # Panics
    /// If the partition does not exist; see [`Partitions::contains`].
    #[must_use]
    pub fn last_changed(&self, partition: Partition) -> Epoch {
        self.last_changed[partition.index()]
    }

    /// Partitions that no change under way brings to as many owners as there should be, all of them members that stay: what a
    /// change leaves that was cancelled. They are read and written as ever; a [`Wish::Rebalance`](crate::Wish) ends it.
    #[must_use]
    pub fn left_over(&self) -> usize {
        let is_left_over = |partition: &Partition| {
            let last =
                self.wanted.get(partition).map_or_else(|| self.settled(*partition), Vec::as_slice);
            last.len() != usize::from(self.replicas)
                || last.iter().any(|owner| {
                    self.member(*owner).is_none_or(|member| member.state != MemberState::Active)
                })
        };
        self.partitions.all().filter(is_left_over).count()
    }

    /// The partitions that are on their way to other owners.
    #[must_use]
    pub fn moves(&self) -> &BTreeMap<Partition, Move> {
        &self.moves
    }
}

/// A member of former times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Removed {
    /// Who it was.
    pub id: NodeId,
    /// Its last incarnation.
    pub incarnation: u32,
    /// Since when it is gone.
    pub epoch: Epoch,
}

/// Leave for one node to register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Invitation {
    /// What the node shows.
    pub id: [u8; 16],
    /// The id kept for it.
    pub node: NodeId,
    /// Milliseconds since 1970 after which it is void.
    pub expires_ms: u64,
}

/// A partition between two owner sets, the `joint` stage of `old → joint → new`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Move {
    /// Its owners once the move is done, in their order.
    #[serde(deserialize_with = "bounded::owners")]
    pub target: Vec<NodeId>,
}

/// The owners of a partition, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owners<'a> {
    /// The usual case.
    One(&'a [NodeId]),
    /// While the partition moves: reads and writes must win their quorum in both.
    Joint {
        /// The owners before the move.
        old: &'a [NodeId],
        /// The owners after it.
        new: &'a [NodeId],
    },
}

impl<'a> Owners<'a> {
    /// The first `n` of each set: those who hold the keys of a bucket with that N.
    #[must_use]
    pub fn first(self, n: u8) -> Owners<'a> {
        let cut = |set: &'a [NodeId]| &set[..set.len().min(usize::from(n))];
        match self {
            Owners::One(set) => Owners::One(cut(set)),
            Owners::Joint { old, new } => Owners::Joint { old: cut(old), new: cut(new) },
        }
    }

    /// The least N of which a bucket's keys are held by this node, if it is an owner: its place among the owners, in the
    /// set in which it stands further ahead.
    #[must_use]
    pub fn from_n(self, node: NodeId) -> Option<u8> {
        let place = |set: &[NodeId]| set.iter().position(|owner| *owner == node);
        let place = match self {
            Owners::One(set) => place(set),
            Owners::Joint { old, new } => match (place(old), place(new)) {
                (Some(before), Some(after)) => Some(before.min(after)),
                (before, after) => before.or(after),
            },
        };
        place.map(|place| u8::try_from(place + 1).expect("a partition has at most 16 owners"))
    }

    /// How many owners there are in the larger set. Buckets with a greater N are held by all of them.
    #[must_use]
    pub fn most(self) -> u8 {
        let most = match self {
            Owners::One(set) => set.len(),
            Owners::Joint { old, new } => old.len().max(new.len()),
        };
        u8::try_from(most).expect("a partition has at most 16 owners")
    }

    /// Whether the node is an owner, in either set.
    #[must_use]
    pub fn contains(self, node: NodeId) -> bool {
        match self {
            Owners::One(set) => set.contains(&node),
            Owners::Joint { old, new } => old.contains(&node) || new.contains(&node),
        }
    }

    /// Every owner once, the old ones first.
    #[must_use]
    pub fn all(self) -> Vec<NodeId> {
        match self {
            Owners::One(set) => set.to_vec(),
            Owners::Joint { old, new } => {
                let joining = new.iter().filter(|node| !old.contains(node));
                old.iter().chain(joining).copied().collect()
            }
        }
    }
}

/// Who votes in a new cluster: up to five, an odd number, spread over the zones.
fn first_voters(members: &[Member]) -> Vec<NodeId> {
    let most = voters::seats(members.len());
    let mut per_zone: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for member in members {
        per_zone.entry(&member.zone).or_default().push(member.id);
    }
    let mut voters = Vec::new();
    for turn in 0.. {
        let of_turn = per_zone.values().filter_map(|zone| zone.get(turn));
        voters.extend(of_turn.take(most - voters.len()));
        if voters.len() == most {
            break;
        }
    }
    voters.sort_unstable();
    voters
}
