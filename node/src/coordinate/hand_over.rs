//! A write for a node that does not own the key, or whose record of it is damaged: another node gets the request.
//!
//! An owner, if one can be reached. Otherwise, if the request is sloppy, the first fallback that can be: writes then meet
//! at one node, and reads look there first. That may be this node itself.

use std::sync::Arc;

use atoll_ring::{NodeId, Quorum};
use atoll_wire::{Deed, Effect, ErrorCode, Failure, Lane, Reply, Request, Write};

use super::{HOP_LIMIT, Place, sets, stand_ins::StandIns, write::Change};
use crate::{Node, fence, node::Due, replica};

/// How often a request may be handed from node to node. Once is usual; more only while views differ, or when owners
/// cannot be reached.
const HOPS_MAX: u8 = 2;

/// What came of it.
pub(crate) enum HandOver {
    /// Another node has coordinated.
    Answered(Reply),
    /// No owner can be reached, and this node is the fallback whose turn it is.
    Here,
}

/// Gives the request to another node. The next one gets it only if the one before has certainly not seen it.
pub(crate) async fn hand_over(
    node: &Arc<Node>,
    place: &Place,
    quorum: &Quorum,
    change: &Change,
    due: Due,
) -> Result<HandOver, Failure> {
    let is_owner = place.owners(place.bucket_n()).contains(node.id());
    if change.request.hops >= HOPS_MAX {
        if quorum.sloppy() && !is_owner {
            return Ok(HandOver::Here);
        }
        let detail = "no owner with an undamaged record was found";
        return Err(Failure::refused(ErrorCode::NoOwnerReachable, detail));
    }
    let hops = change.request.hops + 1;
    let request = Request::Write(Write { hops, ..change.request.clone() });
    let mut tried = Tried::default();

    let mut owners = place.owners(quorum.n()).all();
    let both = sets(place.owners(quorum.n()));
    owners.retain(|owner| *owner != node.id());
    // while the partition moves first one that stays: it holds the key, and its step counts twice
    let stays = |owner: &NodeId| both.iter().all(|set| set.contains(owner));
    let rank = |owner: &NodeId| node.liveness().rank(*owner);
    owners.sort_by_key(|owner| (rank(owner).0, !stays(owner), rank(owner).1));
    for owner in owners {
        if node.liveness().is_down(owner) {
            tried.unreachable(owner, "down");
        } else if let Some(reply) = ask(node, owner, place, &request, due, &mut tried).await? {
            return Ok(HandOver::Answered(reply));
        }
    }
    if quorum.sloppy() {
        let mut stand_ins = StandIns::of(place);
        while let Some(fallback) = stand_ins.next(node) {
            if fallback == node.id() {
                if let Err(failure) = node.takes_writes() {
                    tried.refused(failure);
                } else if !node.hints().has_room(place.first_owner(), change.bytes()) {
                    tried.refused(replica::hints_full(node, place.first_owner()));
                } else {
                    return Ok(HandOver::Here);
                }
                continue;
            }
            if let Some(reply) = ask(node, fallback, place, &request, due, &mut tried).await? {
                return Ok(HandOver::Answered(reply));
            }
        }
    }
    if let Some(refusal) = tried.refusal {
        return Err(refusal);
    }
    let who = if quorum.sloppy() { "no owner or fallback" } else { "no owner" };
    let tried = tried.unreachable.join(", ");
    let detail = format!("{who} of the key can be reached from {} ({tried})", node.id());
    Err(Failure::refused(ErrorCode::NoOwnerReachable, detail))
}

/// Why nobody has taken the request so far.
#[derive(Default)]
struct Tried {
    unreachable: Vec<String>,
    /// The last refusal of somebody who was reached.
    refusal: Option<Failure>,
}

impl Tried {
    fn unreachable(&mut self, node: NodeId, why: impl std::fmt::Display) {
        self.unreachable.push(format!("{node}: {why}"));
    }

    fn refused(&mut self, failure: Failure) {
        if failure.code != ErrorCode::NoOwnerReachable {
            self.refusal = Some(failure);
        }
    }
}

/// The answer of one node, or nothing if it has certainly not begun the request.
async fn ask(
    node: &Arc<Node>,
    to: NodeId,
    place: &Place,
    request: &Request,
    due: Due,
    tried: &mut Tried,
) -> Result<Option<Reply>, Failure> {
    let envelope = place.envelope(node, due);
    node.note_with(due, Deed::HandedOver, to);
    let call = node.transport().call(to, Lane::Request, envelope, request.clone());
    let limit = due.deadline.min(node.clock().now() + HOP_LIMIT);
    match tokio::time::timeout_at(limit, call).await {
        Ok(answer) => {
            node.liveness().learn(to, &answer);
            node.note_with(due, Deed::HandedBack, to);
            match answer {
                Ok((epoch, Reply::Failed(failure))) if is_stale(&failure) => {
                    fence::catch_up(node, to, epoch, due.deadline).await;
                    if place.is_stale(node) {
                        return Err(*failure); // the rest of this plan is stale too
                    }
                    tried.refused(*failure);
                    Ok(None)
                }
                Ok((_, Reply::Failed(failure))) if takes_none(&failure) => {
                    tried.refused(*failure);
                    Ok(None)
                }
                Ok((_, reply)) => Ok(Some(reply)),
                Err(error) if error.not_sent() => {
                    tried.unreachable(to, error);
                    Ok(None)
                }
                Err(error) => Err(unknown(to, &error.to_string())),
            }
        }
        Err(_) => Err(unknown(to, "no answer in time")),
    }
}

/// Whether a node has not done it because the ring changes faster than it plans.
fn is_stale(failure: &Failure) -> bool {
    failure.code == ErrorCode::StaleView && failure.effect == Effect::NotApplied
}

/// Whether a node has refused for a reason of its own, and has done nothing: another may do it.
fn takes_none(failure: &Failure) -> bool {
    let own_reason = matches!(
        failure.code,
        ErrorCode::HintsFull
            | ErrorCode::ReadOnly
            | ErrorCode::ClockOff
            | ErrorCode::Stopping
            | ErrorCode::Rising
            | ErrorCode::Overloaded
            | ErrorCode::NoOwnerReachable
    );
    own_reason && failure.effect == Effect::NotApplied
}

fn unknown(to: NodeId, why: &str) -> Failure {
    Failure {
        effect: Effect::Unknown,
        ..Failure::refused(ErrorCode::DeadlinePassed, format!("handed to {to}: {why}"))
    }
}
