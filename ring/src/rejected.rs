//! Why a command changes nothing: every rule of the ring that one can break, with what to do next.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::change::{INVITATIONS_MAX, ZONE_BYTES_MAX};
use crate::document::REMOVED_MAX;
use crate::placement::{MEMBERS_MAX, REPLICAS_MAX};
use crate::{Epoch, MemberState, NodeId, Partition};

/// Why a command changes nothing. The view stays as it was; the text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejected {
    /// Somebody was faster.
    #[error(
        "made for epoch {made_for}, and the ring is at {now}: somebody changed it meanwhile; make \
         the plan again (`atoll ring plan`)"
    )]
    OtherEpoch {
        /// What it was made for.
        made_for: Epoch,
        /// What is.
        now: Epoch,
    },
    /// Moves are under way.
    #[error(
        "{moves} partitions are on their way: wait for them (`atoll ring moves --watch`), or stop \
         them (`atoll ring cancel`)"
    )]
    Busy {
        /// Partitions that move or shall.
        moves: usize,
    },
    /// No such member.
    #[error("{node} is no member; see `atoll cluster status`")]
    NoMember {
        /// Who.
        node: NodeId,
    },
    /// An id that somebody has or had.
    #[error(
        "{node} was given to a node before, and an id is never given twice: ask for another with `atoll cluster token`"
    )]
    IdTaken {
        /// Which.
        node: NodeId,
    },
    /// A member that was removed.
    #[error(
        "{node} was removed in epoch {epoch} and can never come back under this id: join as a new node (`atoll cluster token`)"
    )]
    WasRemoved {
        /// Who.
        node: NodeId,
        /// When.
        epoch: Epoch,
    },
    /// No such invitation.
    #[error(
        "this join file was used, or expired long ago, or is not of this cluster: make another one \
         with `atoll cluster token`"
    )]
    NoInvitation,
    /// An invitation that is over.
    #[error("this join file expired {ago_s} s ago: make another one with `atoll cluster token`")]
    InvitationExpired {
        /// Seconds since then.
        ago_s: u64,
    },
    /// Too many members, now or over all time.
    #[error(
        "no room for another member: a cluster has at most {MEMBERS_MAX} at a time, and {REMOVED_MAX} ids over all time"
    )]
    TooManyMembers,
    /// Too many invitations.
    #[error("{INVITATIONS_MAX} join files are open: use some, or wait until they expire")]
    TooManyInvitations,
    /// An address that a member has.
    #[error("{address} is the address of {node}: start the new node on another one")]
    AddressTaken {
        /// Which.
        address: SocketAddr,
        /// Whose.
        node: NodeId,
    },
    /// Weight 0.
    #[error(
        "{node} with weight 0: give it at least 1, or let it leave (`atoll cluster leave {node}`)"
    )]
    WeightZero {
        /// Who.
        node: NodeId,
    },
    /// Fewer nodes than replicas.
    #[error(
        "{left} nodes would be left for {replicas} replicas: add a node first (`atoll cluster \
         token`), or replace this one (`atoll cluster replace`)"
    )]
    TooFewLeft {
        /// Nodes that would be left.
        left: usize,
        /// Owners each partition has.
        replicas: u8,
    },
    /// A zone without a name, or with a very long one.
    #[error("a zone has a name of 1 to {ZONE_BYTES_MAX} bytes, and this one has {bytes}")]
    BadZone {
        /// What it has.
        bytes: usize,
    },
    /// Not in the right state.
    #[error("{node} is {state}; {needed}")]
    WrongState {
        /// Who.
        node: NodeId,
        /// What it is.
        state: MemberState,
        /// What to do.
        needed: String,
    },
    /// Not the number after the last.
    #[error("{node} is at incarnation {now}, so the next one is not {wanted}")]
    WrongIncarnation {
        /// Who.
        node: NodeId,
        /// What it has.
        now: u32,
        /// What it asked for.
        wanted: u32,
    },
    /// Too many or too few replicas.
    #[error(
        "{replicas} replicas: from {least} (what buckets need) to {most} are possible, and more \
         with more nodes (`atoll cluster token`), up to {REPLICAS_MAX}"
    )]
    Replicas {
        /// What was asked for.
        replicas: u8,
        /// The fewest.
        least: u8,
        /// The most.
        most: u8,
    },
    /// A move that cannot be.
    #[error("partition {partition}: {reason}")]
    BadMove {
        /// Which.
        partition: Partition,
        /// Why.
        reason: String,
    },
    /// A member that still owns something.
    #[error("{node} still owns {partitions} partitions: wait until they have moved")]
    StillOwns {
        /// Who.
        node: NodeId,
        /// How many.
        partitions: usize,
    },
    /// Too many, too few, or unfit voters.
    #[error("no such voters: {reason}")]
    BadVoters {
        /// Why.
        reason: String,
    },
    /// Nothing to cancel.
    #[error("nothing moves, so there is nothing to cancel")]
    NothingMoves,
}
