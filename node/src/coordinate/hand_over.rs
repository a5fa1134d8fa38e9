//! A write for a node that does not own the key, or whose record of it is damaged: an owner gets the request.

use std::sync::Arc;

use atoll_ring::NodeId;
use atoll_ring::Quorum;
use atoll_wire::{Delete, Effect, ErrorCode, Failure, Lane, Put, Reply, Request};

use super::{
    HOP_LIMIT, Place,
    write::{Change, What},
};
use crate::{Node, node::Due};

/// How often a request may be handed from node to node. Once is usual; more only while views differ.
const HOPS_MAX: u8 = 2;

/// Gives the request to an owner. The next one gets it only if the one before has certainly not seen it.
pub(crate) async fn hand_over(
    node: &Arc<Node>,
    place: &Place,
    quorum: &Quorum,
    change: Change,
    due: Due,
) -> Result<Reply, Failure> {
    if change.hops >= HOPS_MAX {
        let detail = "no owner with an undamaged record was found";
        return Err(Failure::refused(ErrorCode::NoOwnerReachable, detail));
    }
    let mut owners = place.owners(quorum.n()).all();
    owners.retain(|owner| *owner != node.id());
    owners.sort_by_key(|owner| node.liveness().rank(*owner));
    let hops = change.hops + 1;
    let (key, context, quorum) = (change.key, change.context, change.quorum);
    let request = match change.what {
        What::Put(value) => Request::Put(Put { key, context, quorum, hops, value }),
        What::Delete => Request::Delete(Delete { key, context, quorum, hops }),
    };
    let mut tried = Vec::new();
    for owner in owners {
        let envelope = node.envelope_for(due.deadline, due.operation, due.bucket);
        let call = node.transport().call(owner, Lane::Request, envelope, request.clone());
        let limit = due.deadline.min(node.clock().now() + HOP_LIMIT);
        match tokio::time::timeout_at(limit, call).await {
            Ok(answer) => {
                node.liveness().learn(owner, &answer);
                match answer {
                    Ok((_, reply)) => return Ok(reply),
                    Err(error) if error.not_sent() => tried.push(format!("{owner}: {error}")),
                    Err(error) => return Err(unknown(owner, &error.to_string())),
                }
            }
            Err(_) => return Err(unknown(owner, "no answer in time")),
        }
    }
    Err(Failure::refused(
        ErrorCode::NoOwnerReachable,
        format!("no owner of the key can be reached from {} ({})", node.id(), tried.join(", ")),
    ))
}

fn unknown(owner: NodeId, why: &str) -> Failure {
    Failure {
        effect: Effect::Unknown,
        ..Failure::refused(ErrorCode::DeadlinePassed, format!("handed to {owner}: {why}"))
    }
}
