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

use atoll_ring::QuorumRequest;
use atoll_wire::{Effect, ErrorCode, Failure, Reply, Stored};
use bytes::Bytes;

use super::{
    PLANS_MAX, Place,
    ballot::Ballot,
    hand_over::{HandOver, hand_over},
    planned_in_vain,
    spread::{Spread, Ways},
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
    pub(crate) key: Bytes,
    pub(crate) context: Bytes,
    pub(crate) quorum: QuorumRequest,
    pub(crate) hops: u8,
    pub(crate) what: What,
}

impl Change {
    /// About as many bytes as a state of it alone has.
    pub(crate) fn bytes(&self) -> usize {
        let value = match &self.what {
            What::Put(value) => value.len(),
            What::Delete => 0,
        };
        self.key.len() + self.context.len() + value
    }
}

/// What shall take the place of what the client had seen.
pub(crate) enum What {
    Put(Bytes),
    Delete,
}

/// Makes the change on `w` of the key's owners. Answers as soon as that is certain or has become impossible.
pub(crate) async fn write(node: Arc<Node>, change: Change, due: Due) -> Reply {
    let deleted = matches!(change.what, What::Delete);
    match try_write(&node, change, due).await {
        Ok(Answer::Stored(stored)) if deleted => Reply::Deleted(stored),
        Ok(Answer::Stored(stored)) => Reply::Put(stored),
        Ok(Answer::Elsewhere(reply)) => reply,
        Err(failure) => crate::node::failed(failure),
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
    let place = Place::of(node, due.bucket, change.key.clone())?;
    if let What::Put(value) = &change.what {
        super::check_value(value, &place)?;
    }
    let quorum = super::quorum(&change.quorum, &place)?;
    let seen = place.open(node, change.context.clone())?;
    if matches!(change.what, What::Delete) && seen.is_empty() {
        let detail = "a delete must carry the context of what it deletes; read the key first";
        return Err(Failure::refused(ErrorCode::ContextNeeded, detail));
    }
    let mut seat = Seat::Owner;
    if !place.owners(quorum.n()).contains(node.id()) {
        match hand_over(node, &place, &quorum, change, due).await? {
            HandOver::Answered(reply) => return Ok(Answer::Elsewhere(reply)),
            HandOver::Here => seat = Seat::StandsInFor(place.first_owner()),
        }
    }
    if let Err(failure) = node.takes_writes() {
        if failure.code != ErrorCode::ReadOnly {
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
    if node.disk().is_full() {
        return Err(replica::overloaded());
    }
    lease(node, place.partition, due.deadline).await?;
    let too_early = match canary::is_on(Canary::DotOutsideTurn) {
        true => {
            let own = own_copy(node, &place, seat).map_err(|error| replica::stopping(&error))?;
            tokio::time::sleep(Duration::from_millis(2)).await;
            Some(own)
        }
        false => None,
    };
    let Turn { event, delta, on_disk } =
        take_turn(node, &place, &quorum, &seen, change, seat, too_early)?;
    node.count_write();
    let ways = Ways { seat, stand_ins };
    let write = Spread::start(node, place, quorum, due, ballot, delta, on_disk, ways);
    write.until_decided(event).await.map(Answer::Stored)
}
