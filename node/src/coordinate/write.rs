//! The life of a PUT or DELETE, seen from its coordinator.
//!
//! It starts when a request arrives at an owner of the key. In the key's turn the change gets its event and is joined
//! into the own record; the delta goes to the other owners while the own fsync runs. Each answer moves the tally. At `w`
//! answers the client hears "stored"; if `w` has become impossible, or time is over, it hears how far we came.
//!
//! For an owner that is known to be down, or has been silent for a quarter of the time, a fallback is asked, if the
//! request is sloppy: it keeps the delta as a hint and so fills the owner's seat. Owners that have missed the write and
//! for which nobody stands in leave a hint behind here.
//!
//! If the partition changes before the change has its event, everything begins again with the new view. Afterwards the same
//! event goes to the owners of the new view ([`super::spread`]): one request makes one event.
//!
//! A node that does not own the key hands the request to one that does. If none can be reached a fallback coordinates:
//! its own copy is then the hint for the partition's first owner.

use std::{sync::Arc, time::Duration};

use atoll_antientropy::{Context, Operation};
use atoll_wire::{Deed, Effect, ErrorCode, Failure, Reply, Stored, Write, limits::TTL_MS_MAX};

use super::{
    PLANS_MAX, Place,
    ballot::Ballot,
    hand_over::{HandOver, hand_over},
    planned_in_vain,
    sight::look,
    spread::{Spread, Told, Ways},
    stand_ins::StandIns,
    turn::{Seat, Turn, lease, own_copy, take_turn},
};
use crate::{
    Node,
    canary::{self, Canary},
    node::Due,
    replica,
};

/// A change somebody wants.
pub(crate) struct Change {
    pub(crate) request: Write,
    pub(crate) operation: Operation,
}

impl Change {
    fn of(request: Write, node: &Node, due: Due) -> Result<Self, Failure> {
        let mut operation = Operation::decode(&request.operation).map_err(|error| {
            let detail = format!("the operation cannot be read: {error}");
            Failure::refused(ErrorCode::BadOperation, detail)
        })?;
        if let Operation::Put { expires_ms, .. } = &mut operation {
            let of_bucket = || node.buckets().known(due.bucket)?.definition.properties.ttl_ms;
            match request.ttl_ms.or_else(of_bucket) {
                None => {} // as the operation says: a value that is put again keeps its end
                Some(Write::FOR_EVER) => *expires_ms = None,
                Some(ttl) if ttl == 0 || ttl > TTL_MS_MAX => {
                    let detail = "a time to live is above 0 and at most a hundred years";
                    return Err(Failure::refused(ErrorCode::BadOperation, detail));
                }
                Some(ttl) => *expires_ms = Some(node.clock().wall_ms().saturating_add(ttl)),
            }
        }
        Ok(Change { request, operation })
    }

    /// About as many bytes as a state of it alone has.
    pub(crate) fn bytes(&self) -> usize {
        let Write { key, context, operation, .. } = &self.request;
        key.len() + context.len() + operation.len()
    }
}

/// Makes the change on `w` of the key's owners. Answers as soon as that is certain or has become impossible.
pub(crate) async fn write(node: Arc<Node>, request: Write, due: Due) -> Reply {
    let began = node.clock().now();
    let outcome = match Change::of(request, &node, due) {
        Ok(change) => try_write(&node, change, due).await,
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(Answer::Stored(stored)) => {
            node.pace().wrote(node.clock().now() - began);
            Reply::Written(stored)
        }
        Ok(Answer::Elsewhere(reply)) => reply,
        Err(failure) => {
            node.pace().missed(&failure);
            crate::node::failed(failure)
        }
    }
}

enum Answer {
    Stored(Stored),
    Elsewhere(Reply),
}

async fn try_write(node: &Arc<Node>, change: Change, due: Due) -> Result<Answer, Failure> {
    for _ in 0..PLANS_MAX {
        match try_planned(node, &change, due).await {
            Err(failure)
                if failure.code == ErrorCode::StaleView
                    && failure.effect == Effect::NotApplied
                    && node.clock().now() < due.deadline => {}
            outcome => return outcome,
        }
    }
    Err(planned_in_vain(Effect::NotApplied))
}

/// Makes the change as the present view says. Stale and not applied, if the view has changed before there was an event.
async fn try_planned(node: &Arc<Node>, change: &Change, due: Due) -> Result<Answer, Failure> {
    let place = Place::of(node, due.bucket, change.request.key.clone())?;
    check(&place, &change.operation)?;
    let quorum = super::quorum(&change.request.quorum, &place)?;
    let told = Told {
        context: place.open(node, change.request.context.clone())?,
        session: match change.request.session.clone() {
            Some(_) if canary::is_on(Canary::ForgetSession) => Some(Context::new()),
            Some(token) => Some(place.open(node, token)?),
            None => None,
        },
    };
    node.note(due, Deed::Planned);
    let mut seat = Seat::Owner;
    if !place.owners(quorum.n()).contains(node.id()) {
        match hand_over(node, &place, &quorum, change, due).await? {
            HandOver::Answered(reply) => return Ok(Answer::Elsewhere(reply)),
            HandOver::Here => seat = Seat::StandsInFor(place.first_owner()),
        }
    }
    let stamps = match change.operation.goes_by_time(place.kind) {
        true => node.hybrid().check(node.id(), &**node.clock()),
        false => Ok(()),
    };
    if let Err(failure) = node.takes_writes().and(stamps) {
        if !matches!(failure.code, ErrorCode::ReadOnly | ErrorCode::ClockOff) {
            return Err(failure);
        }
        // another node may; if none does, this is the reason
        return match hand_over(node, &place, &quorum, change, due).await {
            Ok(HandOver::Answered(reply)) => Ok(Answer::Elsewhere(reply)),
            Err(other) if other.effect != Effect::NotApplied => Err(other),
            Ok(HandOver::Here) | Err(_) => Err(failure),
        };
    }
    let mut stand_ins = match quorum.sloppy() {
        true => StandIns::of(&place).without(node.id()),
        false => StandIns::none(),
    };
    let ballot = Ballot::open(node, &place, &quorum, seat.of(node.id()), &mut stand_ins)?;
    let sight = look(node, &place, &told, change, &quorum, seat, due).await?;
    if sight.others.is_some() {
        node.note(due, Deed::ReadFirst);
    }
    if node.disk().is_full() {
        return Err(replica::overloaded());
    }
    lease(node, place.partition, due.deadline).await?;
    node.note(due, Deed::Leased);
    let too_early = match canary::is_on(Canary::DotOutsideTurn) {
        true => {
            let own = own_copy(node, &place, seat).map_err(|error| replica::stopping(&error))?;
            tokio::time::sleep(Duration::from_millis(2)).await;
            Some(own)
        }
        false => None,
    };
    node.note(due, Deed::TurnBegun);
    let Turn { event, delta, on_disk } =
        take_turn(node, &place, &quorum, sight, change, due, seat, too_early)?;
    node.note(due, Deed::Queued);
    node.count_write();
    let ways = Ways { seat, stand_ins };
    let write = Spread::start(node, place, quorum, due, ballot, delta, on_disk, ways);
    write.until_decided(told, event).await.map(Answer::Stored)
}

/// Whether an operation is one for this bucket, and not too large.
fn check(place: &Place, operation: &Operation) -> Result<(), Failure> {
    if !operation.suits(place.kind) {
        let detail = format!(
            "the bucket holds values of the kind `{}`, and this is no operation on one; the values of a bucket are of one kind",
            place.kind
        );
        return Err(Failure::refused(ErrorCode::WrongKind, detail));
    }
    match operation {
        Operation::Put { value, .. } => super::check_value(value, place),
        _ => Ok(()), // the frame's cap bounds the rest, and the operation its parts
    }
}
