//! A view as it comes from outside, and what makes it one.
//!
//! Nothing is a [`View`] that was not looked at here. Every command's result is looked at, too: a
//! rule of the state machine that let something slip would stop the node and not spread.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::change::{INVITATIONS_MAX, VOTERS_MAX};
use crate::placement::{self, MEMBERS_MAX, PlacementError, REPLICAS_MAX};
use crate::token::PARTITIONS_MAX;
use crate::{
    ClusterId, Epoch, Invitation, Member, MemberState, Move, NodeId, Partition, Partitions,
    Preference, Removed, View, bounded,
};

/// A view that cannot be. From [`View::create`] it is for the operator to mend; from a document it
/// means that the document is damaged or its author is wrong, and it must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The members cannot hold so many replicas.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// Epochs count from 1.
    #[error("epoch 0: epochs count from 1")]
    EpochZero,
    /// Fewer owners than copies of a key.
    #[error("{replicas} replicas cannot hold the {bucket_n} copies of a bucket")]
    Copies {
        /// Owners of each partition.
        replicas: u8,
        /// Copies of each key in the default bucket.
        bucket_n: u8,
    },
    /// The members are not in the order of their ids.
    #[error("members are not in the order of their ids at {id}")]
    MembersOutOfOrder {
        /// The first one that is out of order.
        id: NodeId,
    },
    /// A table has not one entry per partition.
    #[error("{what} has {entries} entries for {partitions} partitions")]
    TableLength {
        /// Which table.
        what: &'static str,
        /// What it has.
        entries: usize,
        /// What it should have.
        partitions: u32,
    },
    /// A move of a partition that does not exist.
    #[error("partition {partition} moves and does not exist")]
    NoSuchPartition {
        /// Which one.
        partition: Partition,
    },
    /// A partition with too many or too few owners.
    #[error("partition {partition} has {owners} owners instead of {replicas}")]
    OwnerCount {
        /// Which one.
        partition: Partition,
        /// What it has.
        owners: usize,
        /// What it should have.
        replicas: u8,
    },
    /// An owner that is no member.
    #[error("{owner} owns partition {partition} and is no member")]
    OwnerUnknown {
        /// Which partition.
        partition: Partition,
        /// The stranger.
        owner: NodeId,
    },
    /// A node twice among the owners of one partition.
    #[error("{owner} owns partition {partition} twice")]
    OwnerTwice {
        /// Which partition.
        partition: Partition,
        /// Who.
        owner: NodeId,
    },
    /// A move that leads to where the partition is.
    #[error("partition {partition} moves to the owners it has")]
    MoveToItself {
        /// Which one.
        partition: Partition,
    },
    /// An id that more than one member, former member or invitation has.
    #[error("{id} was given twice")]
    IdTwice {
        /// Which.
        id: NodeId,
    },
    /// Voters that are no members, or not in order.
    #[error("{voter} votes and is no member, or out of order")]
    Voter {
        /// The first such one.
        voter: NodeId,
    },
    /// A change later than the view.
    #[error("partition {partition} last changed in epoch {changed}, after epoch {epoch}")]
    ChangedLater {
        /// Which one.
        partition: Partition,
        /// When it says it changed.
        changed: Epoch,
        /// The view's own epoch.
        epoch: Epoch,
    },
}

/// A view as it is read from outside, before anything has been checked.
#[derive(Serialize, Deserialize)]
#[serde(rename = "View")]
pub(crate) struct Document {
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: Epoch,
    pub(crate) partitions: Partitions,
    pub(crate) replicas: u8,
    pub(crate) bucket_n: u8,
    #[serde(deserialize_with = "bounded::list::<_, _, MEMBERS_MAX>")]
    pub(crate) members: Vec<Member>,
    #[serde(deserialize_with = "bounded::list::<_, _, REMOVED_MAX>")]
    pub(crate) removed: Vec<Removed>,
    #[serde(deserialize_with = "bounded::list::<_, _, INVITATIONS_MAX>")]
    pub(crate) invitations: Vec<Invitation>,
    #[serde(deserialize_with = "bounded::list::<_, _, VOTERS_MAX>")]
    pub(crate) voters: Vec<NodeId>,
    #[serde(deserialize_with = "bounded::table::<_, ENTRIES_MAX>")]
    pub(crate) owners: Vec<Vec<NodeId>>,
    #[serde(deserialize_with = "bounded::list::<_, _, ENTRIES_MAX>")]
    pub(crate) last_changed: Vec<Epoch>,
    #[serde(deserialize_with = "bounded::moves")]
    pub(crate) moves: BTreeMap<Partition, Move>,
    #[serde(deserialize_with = "bounded::wanted")]
    pub(crate) wanted: BTreeMap<Partition, Vec<NodeId>>,
}

/// Members of former times that a view remembers at most.
pub(crate) const REMOVED_MAX: usize = 1 << 16;

/// Entries of a table with one per partition.
const ENTRIES_MAX: usize = PARTITIONS_MAX as usize;

impl TryFrom<Document> for View {
    type Error = ViewError;

    fn try_from(document: Document) -> Result<Self, ViewError> {
        let Document {
            cluster,
            epoch,
            partitions,
            replicas,
            bucket_n,
            members,
            removed,
            invitations,
            voters,
            owners,
            last_changed,
            moves,
            wanted,
        } = document;
        let eligible = members.iter().filter(|member| member.state == MemberState::Active);
        let preference = Preference::new(partitions, eligible.map(|member| member.id));
        let view = View {
            cluster,
            epoch,
            partitions,
            replicas,
            bucket_n,
            members,
            removed,
            invitations,
            voters,
            owners,
            last_changed,
            moves,
            wanted,
            preference,
        };
        view.check()?;
        Ok(view)
    }
}

impl View {
    /// Its content, as people read it.
    pub(crate) fn document(&self) -> Document {
        Document {
            cluster: self.cluster,
            epoch: self.epoch,
            partitions: self.partitions,
            replicas: self.replicas,
            bucket_n: self.bucket_n,
            members: self.members.clone(),
            removed: self.removed.clone(),
            invitations: self.invitations.clone(),
            voters: self.voters.clone(),
            owners: self.owners.clone(),
            last_changed: self.last_changed.clone(),
            moves: self.moves.clone(),
            wanted: self.wanted.clone(),
        }
    }

    /// Whether it is as every view is.
    pub(crate) fn check(&self) -> Result<(), ViewError> {
        if self.epoch == Epoch(0) {
            return Err(ViewError::EpochZero);
        }
        let eligible: Vec<Member> = self.eligible().cloned().collect();
        placement::check_members(&eligible, self.replicas)?;
        if !(1..=self.replicas).contains(&self.bucket_n) {
            let (replicas, bucket_n) = (self.replicas, self.bucket_n);
            return Err(ViewError::Copies { replicas, bucket_n });
        }
        if let Some(pair) = self.members.windows(2).find(|pair| pair[0].id >= pair[1].id) {
            return Err(ViewError::MembersOutOfOrder { id: pair[1].id });
        }
        if let Some(member) = self.members.iter().find(|member| member.weight == 0) {
            return Err(PlacementError::WeightZero { id: member.id }.into());
        }
        self.check_ids()?;
        self.check_length("owners", self.owners.len())?;
        self.check_length("last_changed", self.last_changed.len())?;
        for partition in self.partitions.all() {
            self.check_owners(partition, &self.owners[partition.index()])?;
            let changed = self.last_changed[partition.index()];
            if changed > self.epoch {
                return Err(ViewError::ChangedLater { partition, changed, epoch: self.epoch });
            }
        }
        for (&partition, Move { target }) in &self.moves {
            if !self.partitions.contains(partition) {
                return Err(ViewError::NoSuchPartition { partition });
            }
            self.check_owners(partition, target)?;
            if *target == self.owners[partition.index()] {
                return Err(ViewError::MoveToItself { partition });
            }
        }
        for (&partition, target) in &self.wanted {
            if !self.partitions.contains(partition) {
                return Err(ViewError::NoSuchPartition { partition });
            }
            self.check_owners(partition, target)?;
            if target == self.settled(partition) {
                return Err(ViewError::MoveToItself { partition });
            }
        }
        Ok(())
    }

    /// An id belongs to one node, for ever.
    fn check_ids(&self) -> Result<(), ViewError> {
        let members = self.members.iter().map(|member| member.id);
        let removed = self.removed.iter().map(|gone| gone.id);
        let invited = self.invitations.iter().map(|open| open.node);
        let mut ids: Vec<NodeId> = members.chain(removed).chain(invited).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ViewError::IdTwice { id: pair[0] });
        }
        for (index, &voter) in self.voters.iter().enumerate() {
            let is_in_order = index == 0 || self.voters[index - 1] < voter;
            if self.member(voter).is_none() || !is_in_order {
                return Err(ViewError::Voter { voter });
            }
        }
        Ok(())
    }

    fn check_length(&self, what: &'static str, entries: usize) -> Result<(), ViewError> {
        let partitions = self.partitions.count();
        if entries == partitions as usize {
            Ok(())
        } else {
            Err(ViewError::TableLength { what, entries, partitions })
        }
    }

    fn check_owners(&self, partition: Partition, owners: &[NodeId]) -> Result<(), ViewError> {
        let possible = usize::from(self.bucket_n)..=usize::from(REPLICAS_MAX);
        if !possible.contains(&owners.len()) {
            let replicas = self.replicas;
            return Err(ViewError::OwnerCount { partition, owners: owners.len(), replicas });
        }
        for (index, &owner) in owners.iter().enumerate() {
            if self.members.binary_search_by_key(&owner, |member| member.id).is_err() {
                return Err(ViewError::OwnerUnknown { partition, owner });
            }
            if owners[..index].contains(&owner) {
                return Err(ViewError::OwnerTwice { partition, owner });
            }
        }
        Ok(())
    }
}
