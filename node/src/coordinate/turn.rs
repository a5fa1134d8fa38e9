//! The key's turn: the local step of a write, between two awaits.
//!
//! The own copy is read, the change gets its event and is joined in, and the result is queued for the disk. Nobody else can
//! read the copy in between. The own copy is the record of an owner, or the hint of a fallback that coordinates.

use std::sync::Arc;

use atoll_antientropy::{Context, Event, Increment, Kind, Operation, Refused, Stamp, State};
use atoll_ring::{NodeId, Partition, Quorum};
use atoll_wire::{Ack, ErrorCode, Failure, limits::SIBLINGS_MAX};
use bytes::Bytes;
use tokio::time::Instant;

use super::{Place, sight::Sight, write::Change};
use crate::{
    Node,
    canary::{self, Canary},
    fence,
    node::Due,
    replica,
    storage::{StoreError, commit::Ticket, record::Record, summary::Summary},
};

/// In which capacity the coordinator keeps its own copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// In its own record of the key.
    Owner,
    /// In its hint for this owner. Always the first one's: the note of the own last event lies beside one row then.
    StandsInFor(NodeId),
}

impl Seat {
    /// The owner for whom the vote counts.
    pub(super) fn of(self, me: NodeId) -> NodeId {
        match self {
            Seat::Owner => me,
            Seat::StandsInFor(owner) => owner,
        }
    }
}

/// Waits for counters, but not longer than the request has time: past that nothing may be begun.
pub(super) async fn lease(
    node: &Arc<Node>,
    partition: Partition,
    deadline: Instant,
) -> Result<(), Failure> {
    let waiting = node.clone();
    let mut ready = Box::pin(async move { waiting.leases().ready(partition).await });
    match tokio::time::timeout_at(deadline, &mut ready).await {
        Ok(leased) => leased.map_err(|error| replica::stopping(&error)),
        Err(_) => {
            node.spawn(async move { drop(ready.await) }); // whoever comes next finds it leased
            let detail = "the disk was slower than the request's time, nothing was begun";
            Err(Failure::refused(ErrorCode::DeadlinePassed, detail))
        }
    }
}

/// What came of the key's turn.
pub(super) struct Turn {
    pub(super) event: Event,
    /// What goes to the other owners: the change, or all that is known here.
    pub(super) delta: State,
    pub(super) on_disk: Ticket,
}

/// The coordinator's own copy.
pub(super) fn own_copy(
    node: &Node,
    place: &Place,
    seat: Seat,
) -> Result<Option<Record>, StoreError> {
    match seat {
        Seat::Owner => replica::read(node, &place.row),
        Seat::StandsInFor(owner) => Ok(node.hints().read(owner, &place.row)?.record()),
    }
}

/// The key's turn: no await in here, so nobody else reads the record between our read and our write.
/// (`too_early` is a deliberate bug's: see [`Canary::DotOutsideTurn`].)
#[expect(clippy::too_many_arguments, reason = "the parts of one write, each made by a step before")]
pub(super) fn take_turn(
    node: &Node,
    place: &Place,
    quorum: &Quorum,
    sight: Sight,
    change: &Change,
    due: Due,
    seat: Seat,
    too_early: Option<Option<Record>>,
) -> Result<Turn, Failure> {
    let stop = |error: StoreError| replica::stopping(&error);
    // the view may have changed while we waited for counters: what is not ours any more must not get an event here
    fence::of_own(node, place.partition, place.epoch())?;
    node.buckets().living(place.bucket)?; // and what was dropped gets none at all
    // an event that only the others keep could be claimed, and so erased, by our next one after an orderly stop
    node.takes_writes()?; // again: many may have waited for the same lease
    let own = match too_early {
        Some(own) => own,
        None => own_copy(node, place, seat).map_err(stop)?,
    };
    let (note, mut state, bytes) = match own {
        None => (None, State::unknown(place.kind), Bytes::new()),
        Some(Record { note, state, bytes }) => (note, state, bytes),
    };
    let (siblings_before, elements_before) = (state.siblings(), state.elements());
    let before =
        (seat == Seat::Owner && !state.is_unknown()).then(|| Summary::of_encoded(&state, &bytes));
    if let Some(others) = sight.others {
        state.join(others);
    }
    let (seen, after) = (sight.seen, sight.after);
    let Some(counter) = node.leases().take(place.partition) else {
        return Err(replica::overloaded()); // 65,536 others were faster since we looked
    };
    let (mut event, note) = node.standing(place.partition).event(note.as_ref(), counter);
    if canary::is_on(Canary::ExtendFromRecord) {
        let own = state.context().iter().filter(|known| known.actor == event.actor);
        event.after = own.last().map_or(0, |known| known.hi);
    }
    let known = |context: &Context| context.contains(&event.dot());
    if seen.as_ref().is_some_and(known) || known(state.context()) {
        // somebody knows an event we are only now giving out: this directory is older than its incarnation. Whoever
        // remembers the first use of a dot drops the second without a word
        let error = StoreError(format!(
            "{} was given out before; was the data directory restored from a copy?",
            event.dot()
        ));
        node.disk().give_up(error.clone());
        return Err(stop(error));
    }
    let wall_ms = node.clock().wall_ms();
    let at = node.hybrid().stamp(wall_ms);
    let stamp = Stamp { event, at, wall_ms, operation: due.operation };
    let delta = match (&change.operation, &seen) {
        (Operation::Clear, Some(seen)) if canary::is_on(Canary::DeleteWithoutEvent) => {
            nothing_left(place.kind, seen)
        }
        (Operation::Increment(Increment::Session { .. }), seen)
            if canary::is_on(Canary::CountTwice) =>
        {
            let again = Operation::Increment(Increment::Once(1));
            state.change(&again, seen.as_ref(), &stamp).map_err(refused)?
        }
        (Operation::Remove(_), _) if canary::is_on(Canary::RemoveUnseen) => {
            state.change(&change.operation, None, &stamp).map_err(refused)?
        }
        (Operation::Add(_), seen) if canary::is_on(Canary::OwnSetContext) => {
            let mut claims =
                state.change(&change.operation, seen.as_ref(), &stamp).map_err(refused)?;
            claims.join(nothing_left(place.kind, state.context()));
            claims
        }
        (operation, seen) => {
            state.change(operation, seen.as_ref(), &stamp).map_err(refused)? // the counter is skipped: nothing carries it
        }
    };
    state.join(delta.clone());
    if state.siblings() > SIBLINGS_MAX.max(siblings_before) {
        // the counter is skipped: nothing carries it
        let detail = format!(
            "the key has {siblings_before} siblings, at most {SIBLINGS_MAX} are kept, and the context does not replace \
             enough of them; read the key and put with that context"
        );
        return Err(Failure::refused(ErrorCode::TooManySiblings, detail));
    }
    let elements_max = place.definition().properties.elements_max();
    if state.elements() > elements_max.max(elements_before) {
        let detail = format!(
            "it would have {} elements, and in the bucket `{}` there may be {elements_max}; remove some, or spread them over \
             several keys",
            state.elements(),
            place.definition().name
        );
        return Err(Failure::refused(ErrorCode::TooManyElements, detail));
    }
    let on_disk = match seat {
        Seat::Owner => {
            replica::store(node, &place.row, Some(&note), before, &state, first_ack(quorum))
        }
        Seat::StandsInFor(owner) => node
            .hints()
            .put(owner, &place.row, Some(&note), &state)
            .map_err(stop)?
            .ok_or_else(|| replica::hints_full(node, owner))?,
    };
    // a reader that is shown the change at an owner is to be shown there, too, what its writer's session had seen before
    let delta = if delta.context().covers(&after) { delta } else { state };
    Ok(Turn { event, delta, on_disk })
}

/// For deliberate bugs: all of this is gone, and nothing else is said.
fn nothing_left(kind: Kind, seen: &Context) -> State {
    let mut bytes = vec![State::unknown(kind).encode()[0]];
    seen.encode_into(&mut bytes);
    bytes.push(0);
    State::decode(&bytes.into()).expect("a context and nothing else are a state")
}

/// A change that the value itself does not allow.
fn refused(refused: Refused) -> Failure {
    let code = match refused {
        Refused::WrongKind { .. } => ErrorCode::WrongKind,
        Refused::TooManyElements { .. } | Refused::TooManyFields { .. } => {
            ErrorCode::TooManyElements
        }
        Refused::TooManySessions { .. } => ErrorCode::TooManySessions,
        Refused::CounterOverflow => ErrorCode::CounterOverflow,
        Refused::MaxKeepsItsValue => ErrorCode::KeepsItsValue,
        Refused::TooDeep { .. }
        | Refused::NameTooLong { .. }
        | Refused::FieldTwice
        | Refused::Nothing => ErrorCode::BadOperation,
    };
    Failure::refused(code, refused.to_string())
}

/// What an owner is asked for first. If fewer fsynced acks than acks are needed, the fast one comes first and the
/// fsynced one is asked for afterwards.
pub(super) fn first_ack(quorum: &Quorum) -> Ack {
    if quorum.dw() < quorum.w() { Ack::Written } else { Ack::Durable }
}
