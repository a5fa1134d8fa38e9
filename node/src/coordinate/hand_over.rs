//! A write for a node that does not own the key, or whose record of it is damaged: another node gets the request.
//!
//! An owner, if one can be reached. Otherwise, if the request is sloppy, the first fallback that can be: writes then meet
//! at one node, and reads look there first. That may be this node itself.

use std::sync::Arc;

use atoll_ring::{NodeId, Quorum};
use atoll_wire::{Delete, Effect, ErrorCode, Failure, Lane, Put, Reply, Request};

use super::{
    HOP_LIMIT, Place,
    stand_ins::StandIns,
    write::{Change, What},
};
use crate::{Node, node::Due};

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
    if change.hops >= HOPS_MAX {
        if quorum.sloppy() && !is_owner {
            return Ok(HandOver::Here);
        }
        let detail = "no owner with an undamaged record was found";
        return Err(Failure::refused(ErrorCode::NoOwnerReachable, detail));
    }
    let request = request(change);
    let mut tried = Vec::new();

    let mut owners = place.owners(quorum.n()).all();
    owners.retain(|owner| *owner != node.id());
    owners.sort_by_key(|owner| node.liveness().rank(*owner));
    for owner in owners {
        if node.liveness().is_down(owner) {
            tried.push(format!("{owner}: down"));
        } else if let Some(reply) = ask(node, owner, &request, due, &mut tried).await? {
            return Ok(HandOver::Answered(reply));
        }
    }
    if quorum.sloppy() {
        let mut stand_ins = StandIns::of(place);
        while let Some(fallback) = stand_ins.next(node) {
            if fallback == node.id() {
                if let Err(failure) = node.takes_writes() {
                    tried.push(format!("{fallback}: {}", failure.code));
                } else if !node.hints().has_room(place.first_owner(), change.bytes()) {
                    tried.push(format!("{fallback}: {}", ErrorCode::HintsFull));
                } else {
                    return Ok(HandOver::Here);
                }
                continue;
            }
            if let Some(reply) = ask(node, fallback, &request, due, &mut tried).await? {
                return Ok(HandOver::Answered(reply));
            }
        }
    }
    let who = if quorum.sloppy() { "no owner or fallback" } else { "no owner" };
    Err(Failure::refused(
        ErrorCode::NoOwnerReachable,
        format!("{who} of the key can be reached from {} ({})", node.id(), tried.join(", ")),
    ))
}

fn request(change: &Change) -> Request {
    let hops = change.hops + 1;
    let (key, context) = (change.key.clone(), change.context.clone());
    let quorum = change.quorum;
    match &change.what {
        What::Put(value) => Request::Put(Put { key, context, quorum, hops, value: value.clone() }),
        What::Delete => Request::Delete(Delete { key, context, quorum, hops }),
    }
}

/// The answer of one node, or nothing if it has certainly not begun the request.
async fn ask(
    node: &Arc<Node>,
    to: NodeId,
    request: &Request,
    due: Due,
    tried: &mut Vec<String>,
) -> Result<Option<Reply>, Failure> {
    let envelope = node.envelope_for(due.deadline, due.operation, due.bucket);
    let call = node.transport().call(to, Lane::Request, envelope, request.clone());
    let limit = due.deadline.min(node.clock().now() + HOP_LIMIT);
    match tokio::time::timeout_at(limit, call).await {
        Ok(answer) => {
            node.liveness().learn(to, &answer);
            match answer {
                Ok((_, Reply::Failed(failure))) if takes_none(&failure) => {
                    tried.push(format!("{to}: {}", failure.code));
                    Ok(None)
                }
                Ok((_, reply)) => Ok(Some(reply)),
                Err(error) if error.not_sent() => {
                    tried.push(format!("{to}: {error}"));
                    Ok(None)
                }
                Err(error) => Err(unknown(to, &error.to_string())),
            }
        }
        Err(_) => Err(unknown(to, "no answer in time")),
    }
}

/// Whether a node has refused because it takes no writes now, and has done nothing.
fn takes_none(failure: &Failure) -> bool {
    failure.effect == Effect::NotApplied
        && matches!(failure.code, ErrorCode::HintsFull | ErrorCode::ReadOnly | ErrorCode::Stopping)
}

fn unknown(to: NodeId, why: &str) -> Failure {
    Failure {
        effect: Effect::Unknown,
        ..Failure::refused(ErrorCode::DeadlinePassed, format!("handed to {to}: {why}"))
    }
}
