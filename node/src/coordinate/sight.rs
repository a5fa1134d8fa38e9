//! What a coordinator must know of a key before it may change it.
//!
//! Mostly nothing: a put says with its context what it replaces, an addition replaces nothing that it has to know. But who
//! takes something away must know what it is. Without a context the owners are read first, strictly and enough of them that
//! every write acknowledged at the same `w` is seen, and what was found goes; if so many cannot be reached nothing happens.
//! With a context, and in a session, the own copy must know all that the client has seen: if it does not, others are asked
//! until it does.

use std::sync::Arc;

use atoll_antientropy::{Context, Kind, Operation, State};
use atoll_ring::{Level, Quorum, QuorumRequest};
use atoll_wire::{ErrorCode, Failure, Repair};

use super::{
    Place,
    get::{Reader, read_state},
    spread::Told,
    turn::{Seat, own_copy},
    write::Change,
};
use crate::{Node, node::Due, replica};

/// What is known beside the own copy when the key's turn comes.
#[derive(Default)]
pub(super) struct Sight {
    /// What others hold, if they were asked.
    pub(super) others: Option<State>,
    /// What the change may take away; none = all that is known by then.
    pub(super) seen: Option<Context>,
    /// What the writer's session has seen: whoever takes in the change shall know that too.
    pub(super) after: Context,
}

/// Looks as far as the change asks for.
pub(super) async fn look(
    node: &Arc<Node>,
    place: &Place,
    told: &Told,
    change: &Change,
    quorum: &Quorum,
    seat: Seat,
    due: Due,
) -> Result<Sight, Failure> {
    let takes_away = change.operation.takes_away(place.kind);
    let mut to_know = told.session.clone().unwrap_or_default();
    let after = to_know.clone();
    if told.context.is_empty() {
        if takes_away {
            let sight = look_at_enough(node, place, to_know, change, quorum, due).await?;
            return Ok(Sight { after, ..sight });
        }
        let others = look_beyond(node, place, to_know, quorum, seat, due).await?;
        return Ok(Sight { others, seen: None, after });
    }
    // and of two values that go by time the later one must be the one that had seen the other
    let by_time = change.operation.goes_by_time(place.kind);
    if by_time || (takes_away && !by_context_alone(&change.operation, place.kind)) {
        to_know.join(&told.context);
    }
    let others = look_beyond(node, place, to_know, quorum, seat, due).await?;
    Ok(Sight { others, seen: Some(told.context.clone()), after })
}

/// Whether the context says all there is to say: what lies under dots and goes as a whole.
fn by_context_alone(operation: &Operation, kind: Kind) -> bool {
    let whole = matches!(operation, Operation::Clear | Operation::Disable);
    whole && matches!(kind, Kind::Register | Kind::Set | Kind::Flag)
}

/// Reads so many owners that every write acknowledged by `w` of them is seen.
async fn look_at_enough(
    node: &Arc<Node>,
    place: &Place,
    to_know: Context,
    change: &Change,
    quorum: &Quorum,
    due: Due,
) -> Result<Sight, Failure> {
    let r = quorum.r().max(quorum.n() - quorum.w() + 1);
    let asked = QuorumRequest {
        n: Some(quorum.n()),
        r: Some(Level::Count(r)),
        sloppy: Some(false),
        ..QuorumRequest::default()
    };
    let quorum = super::quorum(&asked, place)?;
    let reader = Reader { quorum, repair: Repair::Async, in_session: false, to_know };
    let found = read_state(node, place, reader, due).await.map_err(before_the_removal)?;
    if matches!(change.operation, Operation::Clear) && !found.has_value(node.clock().wall_ms()) {
        let detail = "the key has no value, so there is nothing to delete";
        return Err(Failure::refused(ErrorCode::NothingThere, detail));
    }
    let seen = Some(found.context().clone());
    Ok(Sight { seen, others: Some(found), ..Sight::default() })
}

/// Asks others if the own copy does not know all of this.
async fn look_beyond(
    node: &Arc<Node>,
    place: &Place,
    to_know: Context,
    quorum: &Quorum,
    seat: Seat,
    due: Due,
) -> Result<Option<State>, Failure> {
    if to_know.is_empty() {
        return Ok(None);
    }
    let own = own_copy(node, place, seat).map_err(|error| replica::stopping(&error))?;
    if own.is_some_and(|own| own.state.context().covers(&to_know)) {
        return Ok(None);
    }
    let asked = QuorumRequest {
        n: Some(quorum.n()),
        r: Some(Level::Count(1)),
        sloppy: Some(quorum.sloppy()),
        ..QuorumRequest::default()
    };
    let one = super::quorum(&asked, place)?;
    let reader = Reader { quorum: one, repair: Repair::None, in_session: false, to_know };
    let read = read_state(node, place, reader, due).await.map(Some);
    read.map_err(|failure| Failure {
        detail: format!("nothing was changed: {}", failure.detail),
        ..failure
    })
}

/// The words of a strict read that failed before anything was taken away.
fn before_the_removal(failure: Failure) -> Failure {
    let detail = format!(
        "nothing was changed: the read before the change failed: {}. With a context (`atoll get KEY -o json` shows it) it \
         is not needed",
        failure.detail
    );
    Failure { detail, ..failure }
}
