//! Who owns a key: tokens, partitions, views, placement, quorums. Pure.
//!
//! A key hashes to a [`Token`], the token's top bits name a [`Partition`], and the [`View`] of the
//! current [`Epoch`] lists the nodes that own it. Read in this order: [`token`](Token) and
//! [`member`](Member) are the words, `view` is what the cluster agrees on, `placement` computes it
//! (with `preference`, the hash ring), `quorum` says how many answers a request needs, `tally`
//! counts them, and `tolerance` says what that stands for and how many nodes may fail. How a view becomes the next one is `change`, with all refusals in `rejected`; `plan`
//! says what a change would move, `voters` who should vote on it, and `update` how others learn of
//! it. `document` and `encoding` are a view's two outward forms, `targets` the short one of moves.
//!
//! Nothing here reads a clock, draws a random number or waits: the same arguments give the same
//! answer on every machine, which is what lets every node apply a membership change by itself and
//! arrive at the same table.

mod bounded;
mod change;
mod document;
mod encoding;
mod member;
mod placement;
mod plan;
mod preference;
mod quorum;
mod rejected;
mod tally;
mod targets;
mod token;
mod tolerance;
mod update;
mod view;
mod voters;

pub use change::{Command, Entry, INVITATIONS_MAX, VOTERS_MAX, Wish, ZONE_BYTES_MAX};
pub use document::ViewError;
pub use encoding::DecodeError;
pub use member::{ClusterId, Epoch, IdError, Member, MemberState, NodeId};
pub use placement::{MEMBERS_MAX, Placement, PlacementError, PlacementWarning, REPLICAS_MAX};
pub use plan::{Balance, MoveLimits, NodeShare, Plan, leaving, next_moves, seats};
pub use preference::Preference;
pub use quorum::{Level, LevelError, Quorum, QuorumError, QuorumRequest};
pub use rejected::Rejected;
pub use tally::{Needs, Outcome, Tally, Vote};
pub use token::{Partition, Partitions, PartitionsError, Token};
pub use tolerance::{Because, Consistency, Loss, Tolerance, when_enough};
pub use update::{FollowError, Update};
pub use view::{Invitation, Move, Owners, Removed, View};
pub use voters::voters;
