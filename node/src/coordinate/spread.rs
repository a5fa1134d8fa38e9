//! The second half of a write: its delta on the way to all owners, and the count of those who have it.
//!
//! Each answer moves the tally. For an owner that is known to be down, or has been silent for a quarter of the time, a
//! fallback is asked, if the request is sloppy. Owners that have missed the write and for which nobody stands in leave a
//! hint behind here.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use atoll_antientropy::{Event, Register};
use atoll_ring::{NodeId, Outcome as Verdict, Quorum, Vote};
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
    Place, SILENCE_SHARE,
    ballot::Ballot,
    stand_ins::StandIns,
    turn::{Seat, first_ack},
};
use crate::{
    Node,
    canary::{self, Canary},
    node::Due,
    replica,
    storage::commit::Ticket,
};

/// How long the error of a lost write waits for answers that are on their way.
const LOST_PATIENCE: Duration = Duration::from_millis(100);

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
pub(super) struct Ways {
    pub(super) seat: Seat,
    pub(super) stand_ins: StandIns,
}

/// The delta on its way to all owners.
pub(super) struct Spread {
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
    pub(super) fn start(
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
    pub(super) async fn until_decided(mut self, event: Event) -> Result<Stored, Failure> {
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
