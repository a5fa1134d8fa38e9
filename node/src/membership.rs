//! The ring as it changes: the log that decides, and the views that follow from it.
//!
//! Only [`MembershipLog`] knows how a change is agreed on. Everybody else sees views: immutable, one epoch after the other,
//! on stable storage before they are spoken of (`node/views`), pulled from whoever is ahead (`catch_up`). No request for
//! data ever waits for the log.

use std::{sync::Arc, time::Duration};

use atoll_ring::{Command, Epoch, MemberState, NodeId, Rejected, Wish};
use atoll_transport::{Boxed, Caller};
use atoll_wire::{Effect, ErrorCode, Failure, Lane, Propose, Proposed, Reply, Request, Role};
use bytes::Bytes;

use crate::{Node, node::failed};

pub(crate) mod catch_up;
pub mod raft;
pub mod seeded;
pub(crate) mod steward;

/// The log of membership changes, seen from one node. The third seam beside transport and store: a Raft group in a real
/// cluster, a seeded stand-in that loses leaders and majorities in the simulator.
pub trait MembershipLog: Send + Sync {
    /// The node that this log serves has started. Entries are given to it by [`Node::adopt`] from now on.
    fn attach(&self, node: &Arc<Node>);

    /// Puts a command at the end of the log. Resolves when it is agreed on and this node's view has it.
    fn propose(&self, command: Command) -> Boxed<Result<Epoch, NotProposed>>;

    /// Answers a message of another voter.
    fn hear(&self, from: NodeId, message: Bytes) -> Boxed<Result<Bytes, String>>;

    /// How the log stands, as far as this node knows.
    fn standing(&self) -> LogStanding;

    /// Makes exactly these members the voters. Only who leads can.
    fn set_voters(&self, voters: Vec<NodeId>) -> Boxed<Result<(), NotProposed>>;

    /// Ends what runs for it. The node stops.
    fn close(&self) -> Boxed<()>;
}

/// How a log stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStanding {
    /// Who leads, if anybody is known to.
    pub leader: Option<NodeId>,
    /// This node leads, and has heard so from a majority lately.
    pub leads: bool,
    /// Voters within reach, this node included if it votes.
    pub voters_reachable: u8,
    /// Why nothing can be changed now; empty = it can.
    pub frozen: String,
}

/// Why a command is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotProposed {
    /// It does not fit the ring as it is. Nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Another node leads; it was not asked.
    #[error("{0} leads the membership log")]
    LedBy(NodeId),
    /// No majority of the voters is within reach. Nothing changed.
    #[error("ring frozen: {0}")]
    Frozen(String),
    /// It may or may not have been agreed on.
    #[error("unknown: {0}")]
    Unknown(String),
}

/// Answers a proposal: puts it in the log, or passes it on to whoever leads. A node may only speak of itself.
pub(crate) async fn propose(node: Arc<Node>, caller: Caller, asked: Propose) -> Reply {
    let Ok(command) = postcard::from_bytes::<Command>(&asked.command) else {
        return failed(Failure::refused(ErrorCode::Malformed, "these bytes are no command"));
    };
    // members pass on what an operator has asked of them; who has merely registered speaks for itself
    let passed_on = asked.hops > 0 && is_member(&node, &caller);
    if !caller.roles.contains(Role::Operator) && !passed_on && !is_of(&caller, &command) {
        let detail =
            "only an operator changes the ring; a node may register, join and renew itself";
        return failed(Failure::refused(ErrorCode::NotPermitted, detail));
    }
    match node.log().propose(command).await {
        Ok(epoch) => {
            node.liveness().tell_all(); // once; whoever does not hear it now hears it with the next message
            Reply::Proposed(Proposed { epoch: epoch.0 })
        }
        Err(NotProposed::LedBy(leader)) if asked.hops < HOPS_MAX && leader != node.id() => {
            let asked = Propose { hops: asked.hops + 1, ..asked };
            let envelope = node.envelope(node.clock().now() + PASSED_ON_LIMIT, 0);
            let call =
                node.transport().call(leader, Lane::Control, envelope, Request::Propose(asked));
            match tokio::time::timeout(PASSED_ON_LIMIT, call).await {
                Ok(Ok((epoch, reply))) => {
                    node.heard_epoch(leader, epoch);
                    reply
                }
                Ok(Err(error)) => frozen(format!("{leader} leads and cannot be asked: {error}")),
                Err(_) => unknown(format!("{leader} leads and did not answer")),
            }
        }
        Err(NotProposed::LedBy(leader)) => frozen(format!("{leader} does not lead any more")),
        Err(NotProposed::Rejected(why)) => {
            failed(Failure::refused(ErrorCode::RingRejected, why.to_string()))
        }
        Err(NotProposed::Frozen(why)) => frozen(why),
        Err(NotProposed::Unknown(why)) => unknown(why),
    }
}

/// How often a proposal is passed on. Twice is enough for somebody who knows an old leader.
const HOPS_MAX: u8 = 2;

/// How long whoever leads may take: to find a majority and to have it take the entry.
const PASSED_ON_LIMIT: Duration = Duration::from_secs(10);

/// Whether a request comes from a member that takes part in full.
fn is_member(node: &Node, caller: &Caller) -> bool {
    let view = node.view();
    let member = caller.node.and_then(|peer| view.member(peer));
    member.is_some_and(|member| matches!(member.state, MemberState::Active | MemberState::Leaving))
}

/// Whether a command is about the node that sends it, and one that a node may send.
fn is_of(caller: &Caller, command: &Command) -> bool {
    let about = match command {
        Command::Register { node, .. }
        | Command::Incarnation { node, .. }
        | Command::Change { wish: Wish::Join { node }, .. } => *node,
        _ => return false,
    };
    caller.node == Some(about)
}

fn frozen(why: String) -> Reply {
    failed(Failure { retry_after_ms: 1000, ..Failure::refused(ErrorCode::RingFrozen, why) })
}

fn unknown(why: String) -> Reply {
    failed(Failure { effect: Effect::Unknown, ..Failure::refused(ErrorCode::DeadlinePassed, why) })
}

/// The log of a cluster whose members never change.
pub struct FixedMembers;

impl MembershipLog for FixedMembers {
    fn attach(&self, _: &Arc<Node>) {}

    fn propose(&self, _: Command) -> Boxed<Result<Epoch, NotProposed>> {
        Box::pin(async { Err(NotProposed::Frozen("the members of this cluster are fixed".into())) })
    }

    fn hear(&self, _: NodeId, _: Bytes) -> Boxed<Result<Bytes, String>> {
        Box::pin(async { Err("there is no log".into()) })
    }

    fn standing(&self) -> LogStanding {
        let frozen = "the members of this cluster are fixed".into();
        LogStanding { frozen, ..LogStanding::default() }
    }

    fn set_voters(&self, _: Vec<NodeId>) -> Boxed<Result<(), NotProposed>> {
        Box::pin(async { Err(NotProposed::Frozen("the members of this cluster are fixed".into())) })
    }

    fn close(&self) -> Boxed<()> {
        Box::pin(async {})
    }
}
