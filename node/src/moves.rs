//! What a node does while partitions move.
//!
//! A joining owner copies from the one whose seat it takes; a node that owns a partition no longer hands over what it still
//! holds, key by key, and forgets it.

use std::sync::Arc;

use atoll_transport::{Answer, Caller};
use atoll_wire::{Copy, Covered, ErrorCode, Failure, MovesReport};

use crate::{Node, node::failed};

/// How the moves go that this node takes part in.
pub(crate) fn report(node: &Node) -> MovesReport {
    let log = node.log().standing();
    MovesReport {
        leader: log.leader.map(|leader| leader.0),
        voters_reachable: log.voters_reachable,
        frozen: log.frozen,
        ..MovesReport::default()
    }
}

/// Answers a joining owner that asks for a page of rows.
pub(crate) fn send_page(_: &Arc<Node>, _: Caller, _: &Copy) -> Answer {
    Answer::Now(failed(Failure::refused(ErrorCode::StaleView, "nothing moves here")))
}

/// Answers a former owner that asks which of its rows are held here.
pub(crate) fn covers(_: &Arc<Node>, _: Caller, _: &Covered) -> Answer {
    Answer::Now(failed(Failure::refused(ErrorCode::StaleView, "nothing moves here")))
}
