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
//! A node that does not own the key hands the request to one that does. If none can be reached a fallback coordinates:
//! its own copy is then the hint for the partition's first owner.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use atoll_antientropy::{Event, Register};
use atoll_ring::{NodeId, Outcome as Verdict, Quorum, QuorumRequest, Vote};
use atoll_transport::{Boxed, CallError};
use atoll_wire::{
    Ack, Effect, ErrorCode, Failure, Lane, Outcome, Receipt, Replicate, Reply, Request, Stored,
};
use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::time::Instant;

use super::{
    Place, SILENCE_SHARE, bad_quorum,
    ballot::Ballot,
    hand_over::{HandOver, hand_over},
    stand_ins::StandIns,
    turn::{Seat, Turn, first_ack, lease, own_copy, take_turn},
};
use crate::{
    Node,
    canary::{self, Canary},
    node::Due,
    replica,
    storage::commit::Ticket,
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

/// How long the error of a lost write waits for answers that are on their way.
const LOST_PATIENCE: Duration = Duration::from_millis(100);

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
    let place = Place::of(node, due.bucket, change.key.clone())?;
    if let What::Put(value) = &change.what {
        super::check_value(value)?;
    }
    let quorum = Quorum::new(&change.quorum, place.bucket_n()).map_err(bad_quorum)?;
    let seen = place.open(node, change.context.clone())?;
    if matches!(change.what, What::Delete) && seen.is_empty() {
        let detail = "a delete must carry the context of what it deletes; read the key first";
        return Err(Failure::refused(ErrorCode::ContextNeeded, detail));
    }
    let mut seat = Seat::Owner;
    if !place.owners(quorum.n()).contains(node.id()) {
        match hand_over(node, &place, &quorum, &change, due).await? {
            HandOver::Answered(reply) => return Ok(Answer::Elsewhere(reply)),
            HandOver::Here => seat = Seat::StandsInFor(place.first_owner()),
        }
    }
    if let Err(failure) = node.takes_writes() {
        if failure.code != ErrorCode::ReadOnly {
            return Err(failure);
        }
        // another node may; if none does, this is the reason
        return match hand_over(node, &place, &quorum, &change, due).await {
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
        take_turn(node, &place, &quorum, &seen, &change, seat, too_early)?;
    node.count_write();
    let ways = Ways { seat, stand_ins };
    let write = Spread::start(node, place, quorum, due, ballot, delta, on_disk, ways);
    write.until_decided(event).await.map(Answer::Stored)
}

/// One answer to one question.
struct Step {
    who: Who,
    asked: Ack,
    outcome: Result<(), Refusal>,
}

#[derive(Clone, Copy)]
enum Who {
    Owner(NodeId),
    /// A fallback, and the owner in whose seat it votes.
    StandIn(NodeId, NodeId),
    /// Our own hint for an owner; no vote.
    Hint(NodeId),
}

enum Refusal {
    /// No connection, or it broke, or the node is stopping: a hint will bring it the write.
    Unreachable,
    /// It may keep no more hints.
    HintsFull,
    /// It answered no.
    Refused,
}

/// The seat we vote from, and who else may stand in.
struct Ways {
    seat: Seat,
    stand_ins: StandIns,
}

/// The delta on its way to all owners.
struct Spread {
    node: Arc<Node>,
    place: Place,
    quorum: Quorum,
    due: Due,
    /// A quarter of the time: whoever was asked so long ago and is silent is given up.
    patience: Duration,
    silence_ends: Instant,
    ballot: Ballot,
    delta: Register,
    state: Bytes,
    steps: FuturesUnordered<Boxed<Step>>,
    ways: Ways,
    /// Owners for which a stand-in was looked for.
    missed: BTreeSet<NodeId>,
    /// Owners for which we keep a hint ourselves.
    hinted: BTreeSet<NodeId>,
}

/// What the coordinator hears next.
enum Heard {
    Answer(Step),
    /// Whoever has not answered by now is taken for unreachable.
    SilentForTooLong,
    Deadline,
    /// Everybody has answered.
    Nothing,
}

impl Spread {
    /// Sends the delta to every other owner that is not known to be down, and to stand-ins for those that are; starts
    /// waiting for the own disk.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one write, each made by a step before"
    )]
    fn start(
        node: &Arc<Node>,
        place: Place,
        quorum: Quorum,
        due: Due,
        ballot: Ballot,
        delta: Register,
        on_disk: Ticket,
        ways: Ways,
    ) -> Self {
        let now = node.clock().now();
        let patience = due.deadline.saturating_duration_since(now) / SILENCE_SHARE;
        let mut spread = Spread {
            node: node.clone(),
            place,
            quorum,
            due,
            patience,
            silence_ends: now + patience,
            ballot,
            state: Bytes::from(delta.encode()),
            delta,
            steps: FuturesUnordered::new(),
            ways,
            missed: BTreeSet::new(),
            hinted: BTreeSet::new(),
        };
        let me = node.id();
        let own_seat = spread.ways.seat.of(me);
        let (who, asked) = match spread.ways.seat {
            Seat::Owner => (Who::Owner(me), first_ack(&spread.quorum)),
            Seat::StandsInFor(owner) => {
                spread.ballot.stands_in(me, owner);
                spread.missed.insert(owner);
                (Who::StandIn(me, owner), Ack::Durable)
            }
        };
        spread.steps.push(own_step(who, asked, on_disk));
        for owner in spread.ballot.owners() {
            if owner == me {
                continue;
            }
            if node.liveness().is_down(owner) {
                spread.ballot.note(owner, Outcome::Down, now);
                spread.ballot.tally.add(owner, Vote::Refused);
                if owner != own_seat {
                    spread.missed(owner);
                }
            } else {
                spread.ask(owner, first_ack(&spread.quorum));
            }
        }
        spread
    }

    fn ask(&mut self, owner: NodeId, ack: Ack) {
        let step = if owner == self.node.id() {
            own_step(Who::Owner(owner), ack, self.node.disk().settled())
        } else {
            other_step(&self.node, Who::Owner(owner), self.replicate(ack, None), self.due)
        };
        self.steps.push(step);
    }

    fn replicate(&self, ack: Ack, hint_for: Option<NodeId>) -> Replicate {
        Replicate {
            key: self.place.key.clone(),
            ack,
            hint_for: hint_for.map(|owner| owner.0),
            state: self.state.clone(),
        }
    }

    /// Counts answers until the write is won or lost, or time is over; the rest goes on in the background.
    async fn until_decided(mut self, event: Event) -> Result<Stored, Failure> {
        let mut won_early = false;
        while self.ballot.tally.is_pending() && !won_early {
            match self.hear().await {
                Heard::Answer(step) => self.count(step),
                Heard::SilentForTooLong => self.give_up_the_silent(),
                Heard::Deadline | Heard::Nothing => break,
            }
            won_early =
                canary::is_on(Canary::AckEarly) && self.ballot.tally.acks() + 1 >= self.quorum.w();
        }
        while let Some(Some(step)) = self.steps.next().now_or_never() {
            self.count(step); // came together with the last one: the receipt shall tell
        }
        let verdict = match won_early {
            true => Verdict::Won,
            false => self.ballot.tally.outcome(),
        };
        match verdict {
            Verdict::Won => {}
            Verdict::Lost => self.hear_the_rest().await,
            Verdict::Pending => self.ballot.time_is_over(),
        }
        let receipt = self.ballot.receipt(&self.node, &self.quorum);
        let mut known = self.delta.context().clone();
        if canary::is_on(Canary::ReplyWithRecord)
            && let Ok(Some(record)) = replica::read(&self.node, &self.place.row)
        {
            record.register().iter().for_each(|own| known.join(own.context()));
        }
        let context = self.place.seal(&self.node, &known);
        let answer = match verdict {
            Verdict::Won => {
                let dot = (event.actor.node, event.actor.incarnation, event.counter);
                Ok(Stored { context, dot, receipt })
            }
            Verdict::Lost => Err(self.not_met(ErrorCode::WriteQuorumNotMet, receipt)),
            Verdict::Pending => Err(self.not_met(ErrorCode::DeadlinePassed, receipt)),
        };
        if !self.steps.is_empty() {
            let node = self.node.clone();
            node.spawn(self.finish());
        }
        answer
    }

    async fn hear(&mut self) -> Heard {
        if self.steps.is_empty() {
            return Heard::Nothing;
        }
        tokio::select! { biased;
            Some(step) = self.steps.next() => Heard::Answer(step),
            () = tokio::time::sleep_until(self.due.deadline) => Heard::Deadline,
            () = tokio::time::sleep_until(self.silence_ends) => Heard::SilentForTooLong,
        }
    }

    /// A quarter of the time is over: nobody waits for the silent alone any longer. They may still answer; a hint then
    /// brings them nothing new.
    ///
    /// Once the write is won nobody waits: then a hint of ours at the deadline is enough. A cluster that is slow because it
    /// has too much to do would otherwise write everything twice, and be slower still.
    fn give_up_the_silent(&mut self) {
        self.silence_ends += self.patience;
        if !self.ballot.tally.is_pending() {
            return;
        }
        let me = self.node.id();
        for (node, owner) in self.ballot.give_up(me) {
            self.node.liveness().silent(node);
            if node != owner {
                self.ask_next_stand_in(owner);
            } else if self.quorum.sloppy() {
                self.missed(owner);
            }
        }
    }

    /// A lost write has still been applied somewhere. Waits a moment for the answers on their way, so that the error can
    /// say where.
    async fn hear_the_rest(&mut self) {
        let until = self.due.deadline.min(self.node.clock().now() + LOST_PATIENCE);
        while let Ok(Some(step)) = tokio::time::timeout_at(until, self.steps.next()).await {
            self.count(step);
        }
    }

    /// Waits for the stragglers; whoever is silent at the deadline, and for whom nobody has a hint, gets one.
    async fn finish(mut self) {
        loop {
            match self.hear().await {
                Heard::Answer(step) => self.count(step),
                Heard::SilentForTooLong => self.give_up_the_silent(),
                Heard::Deadline => break,
                Heard::Nothing => return,
            }
        }
        for owner in self.ballot.owners() {
            if !self.ballot.tally.has_acked(owner) {
                self.hint(owner);
            }
        }
    }

    fn count(&mut self, step: Step) {
        let now = self.node.clock().now();
        match (step.who, step.outcome, step.asked) {
            (Who::Owner(owner), Ok(()), Ack::Durable) => {
                self.ballot.note(owner, Outcome::Durable, now);
                self.ballot.tally.add(owner, Vote::Durable);
            }
            (Who::Owner(owner), Ok(()), Ack::Written) => {
                self.ballot.note(owner, Outcome::Written, now);
                self.ballot.tally.add(owner, Vote::Written);
                if self.quorum.dw() > 0 {
                    self.ask(owner, Ack::Durable);
                }
            }
            (Who::Owner(owner), Err(refusal), _) => {
                self.ballot.note(owner, refusal.outcome(), now);
                self.ballot.tally.add(owner, Vote::Refused);
                self.missed(owner);
            }
            (Who::StandIn(node, owner), Ok(()), _) => {
                self.ballot.note(node, Outcome::Durable, now);
                self.ballot.hinted(owner);
                match canary::is_on(Canary::FallbackIsOwner) {
                    true => self.ballot.tally.add(owner, Vote::Durable),
                    false => self.ballot.tally.add_stand_in(owner, Vote::Durable),
                };
            }
            (Who::StandIn(node, owner), Err(refusal), _) => {
                self.ballot.note(node, refusal.outcome(), now);
                self.ask_next_stand_in(owner);
            }
            (Who::Hint(owner), Ok(()), _) => self.ballot.hinted(owner),
            (Who::Hint(_), Err(_), _) => {} // the own disk has failed; the node stops
        }
    }

    /// An owner has missed the write: a fallback takes its seat, once.
    fn missed(&mut self, owner: NodeId) {
        if self.missed.insert(owner) {
            self.ask_next_stand_in(owner);
        }
    }

    /// Asks the next fallback to stand in for this owner; if there is none, the owner gets a hint from us.
    fn ask_next_stand_in(&mut self, owner: NodeId) {
        match self.ways.stand_ins.next(&self.node) {
            Some(fallback) => {
                self.ballot.stands_in(fallback, owner);
                let who = Who::StandIn(fallback, owner);
                let replicate = self.replicate(Ack::Durable, Some(owner));
                self.steps.push(other_step(&self.node, who, replicate, self.due));
            }
            None => {
                if !self.ballot.may_be_stood_in_for(owner) {
                    self.ballot.tally.add_stand_in(owner, Vote::Refused);
                }
                self.hint(owner);
            }
        }
    }

    /// Keeps the delta for an owner that missed it.
    fn hint(&mut self, owner: NodeId) {
        if owner == self.node.id() || !self.hinted.insert(owner) {
            return; // our own disk failed and the node stops; or it is kept already
        }
        if let Err(failure) = self.node.takes_writes() {
            if failure.code == ErrorCode::ReadOnly {
                self.ballot.unhinted(owner); // a hint takes room like any write
            }
            return;
        }
        match self.node.hints().keep(owner, &self.place.row, &self.delta) {
            Ok(Some(kept)) => self.steps.push(own_step(Who::Hint(owner), Ack::Durable, kept)),
            Ok(None) => self.ballot.unhinted(owner),
            Err(_) => {} // the own disk has failed; the node stops
        }
    }

    fn not_met(&self, code: ErrorCode, receipt: Receipt) -> Failure {
        let (got, durable) = (self.ballot.tally.acks(), self.ballot.tally.durable_acks());
        let effect = if durable > 0 { Effect::Applied(durable) } else { Effect::Unknown };
        let when = match code {
            ErrorCode::DeadlinePassed => "in time",
            _ => "and no more can come",
        };
        Failure {
            code,
            effect,
            got,
            needed: self.quorum.w(),
            retry_after_ms: 0,
            detail: format!(
                "{got} of {} acknowledgements {when}, {durable} of {} fsynced",
                self.quorum.w(),
                self.quorum.dw()
            ),
            receipt: Some(Box::new(receipt)),
        }
    }
}

impl Refusal {
    fn outcome(&self) -> Outcome {
        match self {
            Refusal::Unreachable => Outcome::Down,
            Refusal::HintsFull => Outcome::HintsFull,
            Refusal::Refused => Outcome::Refused,
        }
    }
}

fn own_step(who: Who, asked: Ack, ticket: Ticket) -> Boxed<Step> {
    Box::pin(async move {
        let outcome = ticket.done().await.map_err(|_| Refusal::Unreachable);
        Step { who, asked, outcome }
    })
}

fn other_step(node: &Arc<Node>, who: Who, replicate: Replicate, due: Due) -> Boxed<Step> {
    let asked = replicate.ack;
    let (Who::Owner(to) | Who::StandIn(to, _) | Who::Hint(to)) = who;
    let node = node.clone();
    let envelope = node.envelope_for(due.deadline, due.operation, due.bucket);
    let call = node.transport().call(to, Lane::Request, envelope, Request::Replicate(replicate));
    Box::pin(async move {
        let answer = call.await;
        node.liveness().learn(to, &answer);
        let outcome = match answer {
            Ok((_, Reply::Replicated(done))) if done.durable || asked == Ack::Written => Ok(()),
            Ok((_, Reply::Failed(failure))) => Err(match failure.code {
                ErrorCode::HintsFull => Refusal::HintsFull,
                ErrorCode::Stopping | ErrorCode::Rising => Refusal::Unreachable,
                _ => Refusal::Refused,
            }),
            Ok(_) => Err(Refusal::Refused),
            Err(
                CallError::Down(_)
                | CallError::Lost(_)
                | CallError::Overloaded
                | CallError::Unsendable(_),
            ) => Err(Refusal::Unreachable),
        };
        Step { who, asked, outcome }
    })
}
