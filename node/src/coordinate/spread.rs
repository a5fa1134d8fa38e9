//! The second half of a write: its delta on the way to all owners, and the count of those who have it.
//!
//! Each answer moves the tally. For an owner that is known to be down, or has been silent for a quarter of the time, a
//! fallback is asked, if the request is sloppy. Owners that have missed the write and for which nobody stands in leave a
//! hint behind here.
//!
//! If the partition changes meanwhile the same delta goes to the owners of the new view, and the count begins again
//! ([`Spread::plan_anew`]). What was acknowledged to an earlier plan does not count; whoever has the delta by now says so at
//! once.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use atoll_antientropy::{Context, Event, State};
use atoll_ring::{NodeId, Outcome as Verdict, Quorum, Vote};
use atoll_transport::{Boxed, CallError};
use atoll_wire::{
    Ack, Deed, Effect, ErrorCode, Failure, Lane, Outcome, Receipt, Replicate, Reply, Request,
    Stored,
};
use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::time::Instant;

use super::{
    LEFT_BEHIND, PLANS_MAX, Place, SILENCE_SHARE,
    ballot::Ballot,
    planned_in_vain,
    stand_ins::StandIns,
    turn::{Seat, first_ack},
};
use crate::{
    Node,
    canary::{self, Canary},
    fence,
    measured::Leg,
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
    /// It knows that the partition has changed since this was planned; by now we know too, unless nobody told us in time.
    Stale,
}

/// The seat we vote from, and who else may stand in.
pub(super) struct Ways {
    pub(super) seat: Seat,
    pub(super) stand_ins: StandIns,
}

/// What the writer says that it has seen.
pub(super) struct Told {
    pub(super) context: Context,
    /// What its session has seen of the key, if it is in one.
    pub(super) session: Option<Context>,
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
    /// When our own copy was queued, until the disk has it.
    queued: Option<Instant>,
    ballot: Ballot,
    delta: State,
    state: Bytes,
    steps: FuturesUnordered<Boxed<Step>>,
    ways: Ways,
    /// Owners for which a stand-in was looked for.
    missed: BTreeSet<NodeId>,
    /// Owners for which we keep a hint ourselves.
    hinted: BTreeSet<NodeId>,
    /// Somebody has refused because of a view that we have not seen.
    left_behind: bool,
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
        delta: State,
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
            queued: Some(now),
            ballot,
            state: Bytes::from(delta.encode()),
            delta,
            steps: FuturesUnordered::new(),
            ways,
            missed: BTreeSet::new(),
            hinted: BTreeSet::new(),
            left_behind: false,
        };
        let seat = spread.ways.seat;
        let asked = match seat {
            Seat::Owner => first_ack(&spread.quorum),
            Seat::StandsInFor(_) => Ack::Durable,
        };
        spread.begin(Some((seat, asked, Some(on_disk))));
        spread
    }

    /// Waits for our own copy, if we keep one that counts (without a ticket it could not be kept), and asks everybody else.
    fn begin(&mut self, own: Option<(Seat, Ack, Option<Ticket>)>) {
        let me = self.node.id();
        let own_seat = own.as_ref().map(|(seat, ..)| seat.of(me));
        if let Some((seat, asked, on_disk)) = own {
            let who = match seat {
                Seat::Owner => Who::Owner(me),
                Seat::StandsInFor(owner) => {
                    self.ballot.stands_in(me, owner);
                    self.missed.insert(owner);
                    Who::StandIn(me, owner)
                }
            };
            self.steps.push(match on_disk {
                Some(on_disk) => own_step(who, asked, on_disk),
                None => {
                    Box::pin(async move { Step { who, asked, outcome: Err(Refusal::Refused) } })
                }
            });
        }
        let now = self.node.clock().now();
        for owner in self.ballot.owners() {
            if owner == me {
                continue;
            }
            if self.node.liveness().is_down(owner) {
                self.ballot.note(owner, Outcome::Down, now);
                self.ballot.count(owner, Vote::Refused);
                if Some(owner) != own_seat {
                    self.missed(owner);
                }
            } else {
                self.ask(owner, first_ack(&self.quorum));
            }
        }
    }

    /// Whether the partition has changed since this was planned.
    fn is_stale(&self) -> bool {
        fence::of_own(&self.node, self.place.partition, self.place.epoch()).is_err()
    }

    /// Begins again among the owners of the present view, with the event that we made. Hints of ours stay: they are states.
    fn plan_anew(&mut self) {
        let (node, from) = (self.node.clone(), self.place.epoch());
        self.place = self.place.anew(&node);
        self.queued = None;
        node.note(self.due, Deed::PlannedAnew);
        tracing::debug!(%from, to = %self.place.epoch(), "a write is planned anew");
        self.ballot = self.ballot.anew(&node, &self.place, &self.quorum);
        self.steps.clear();
        self.missed.clear();
        self.left_behind = false;
        self.ways.stand_ins = match self.quorum.sloppy() {
            true => StandIns::of(&self.place).without(node.id()),
            false => StandIns::none(),
        };
        let owners = self.ballot.owners();
        self.hinted.retain(|owner| owners.contains(owner));
        for owner in &self.hinted {
            self.steps.push(own_step(Who::Hint(*owner), Ack::Durable, node.disk().settled()));
        }
        let own = self.own_part();
        self.begin(own);
    }

    /// Our own copy in a new plan: that of an owner if we are one now, or once more the hint of a fallback. What a former
    /// owner holds has no vote; it hands it over with everything else of the partition.
    fn own_part(&mut self) -> Option<(Seat, Ack, Option<Ticket>)> {
        let (node, row) = (&self.node, &self.place.row);
        let (seat, kept) = if self.ballot.owners().contains(&node.id()) {
            let joined = replica::join(node, row, self.delta.clone(), Ack::Durable);
            (Seat::Owner, joined.ok())
        } else {
            let Seat::StandsInFor(_) = self.ways.seat else { return None };
            let owner = self.place.first_owner();
            let kept = node.hints().keep(owner, row, &self.delta);
            (Seat::StandsInFor(owner), kept.ok().flatten())
        };
        self.ways.seat = seat;
        Some((seat, Ack::Durable, kept))
    }

    fn ask(&mut self, owner: NodeId, ack: Ack) {
        let step = if owner == self.node.id() {
            own_step(Who::Owner(owner), ack, self.node.disk().settled())
        } else {
            self.node.note_with(self.due, Deed::Sent, owner);
            other_step(
                &self.node,
                Who::Owner(owner),
                &self.place,
                self.replicate(ack, None),
                self.due,
            )
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
    pub(super) async fn until_decided(
        mut self,
        told: Told,
        event: Event,
    ) -> Result<Stored, Failure> {
        let mut won_early = false;
        for plan in 1..=PLANS_MAX {
            while self.ballot.tally.is_pending() && !won_early && !self.is_stale() {
                match self.hear().await {
                    Heard::Answer(step) => self.count(step),
                    Heard::SilentForTooLong => self.give_up_the_silent(),
                    Heard::Deadline | Heard::Nothing => break,
                }
                won_early = canary::is_on(Canary::AckEarly)
                    && self.ballot.tally.acks() + 1 >= self.quorum.w();
            }
            while let Some(Some(step)) = self.steps.next().now_or_never() {
                self.count(step); // came together with the last one: the receipt shall tell
            }
            let in_time = self.node.clock().now() < self.due.deadline;
            if !self.is_stale() || !in_time || plan == PLANS_MAX {
                break;
            }
            self.plan_anew();
        }
        self.node.note(self.due, Deed::Decided);
        if self.is_stale() {
            return Err(self.in_vain());
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
        // never more than the client has been shown, and its own event
        let Told { context: mut known, session } = told;
        known.add(&event);
        let session = session.map(|mut session| {
            session.join(&known);
            self.place.seal(&self.node, &session)
        });
        if canary::is_on(Canary::ReplyWithRecord)
            && let Ok(Some(record)) = replica::read(&self.node, &self.place.row)
        {
            known.join(record.state.context());
        }
        let context = self.place.seal(&self.node, &known);
        let answer = match verdict {
            Verdict::Won => {
                let dot = (event.actor.node, event.actor.incarnation, event.counter);
                Ok(Stored { context, session: session.unwrap_or_default(), dot, receipt })
            }
            Verdict::Lost if self.left_behind => Err(self.not_met(ErrorCode::StaleView, receipt)),
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
            self.node.note_with(self.due, Deed::GivenUp, node);
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

    /// Waits for the stragglers; whoever is silent at the deadline, and for whom nobody has a hint, gets one. So does
    /// whoever has refused a plan that is over: nobody was asked in its place, and no other plan follows.
    async fn finish(mut self) {
        loop {
            match self.hear().await {
                Heard::Answer(step) => self.count(step),
                Heard::SilentForTooLong => self.give_up_the_silent(),
                Heard::Deadline => break,
                Heard::Nothing if self.is_stale() => break,
                Heard::Nothing => return,
            }
        }
        for owner in self.ballot.owners() {
            // whoever owns the key no longer needs nothing, and whoever owns it since is brought it by the move
            let (partition, n) = (self.place.partition, self.place.bucket_n());
            let still = self.node.view().owners(partition).first(n).contains(owner);
            if still && !self.ballot.tally.has_acked(owner) {
                self.hint(owner);
            }
        }
    }

    /// For whoever wants to see each step, and for the measurements of our own disk.
    fn note(&mut self, step: &Step, now: Instant) {
        let (me, who) = (self.node.id(), step.who);
        let (Who::Owner(from) | Who::StandIn(from, _)) = who else { return };
        match &step.outcome {
            Ok(()) if from == me => {
                self.node.note(self.due, replica::reached(step.asked));
                if let Some(queued) = self.queued.take() {
                    self.node.measured().add(me, Leg::from(step.asked), now - queued);
                }
            }
            Ok(()) => self.node.note_with(self.due, Deed::Answered, from),
            Err(_) => self.node.note_with(self.due, Deed::Refused, from),
        }
    }

    fn count(&mut self, step: Step) {
        let now = self.node.clock().now();
        self.note(&step, now);
        match (step.who, step.outcome, step.asked) {
            (Who::Owner(owner), Ok(()), Ack::Durable) => {
                self.ballot.note(owner, Outcome::Durable, now);
                self.ballot.count(owner, Vote::Durable);
            }
            (Who::Owner(owner), Ok(()), Ack::Written) => {
                self.ballot.note(owner, Outcome::Written, now);
                self.ballot.count(owner, Vote::Written);
                if self.quorum.dw() > 0 {
                    self.ask(owner, Ack::Durable);
                }
            }
            (Who::Owner(owner), Err(refusal), _) => {
                self.ballot.note(owner, refusal.outcome(), now);
                self.ballot.count(owner, Vote::Refused);
                if self.goes_on_after(&refusal) {
                    self.missed(owner);
                }
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
                if self.goes_on_after(&refusal) {
                    self.ask_next_stand_in(owner);
                }
            }
            (Who::Hint(owner), Ok(()), _) => self.ballot.hinted(owner),
            (Who::Hint(_), Err(_), _) => {} // the own disk has failed; the node stops
        }
    }

    /// Whether somebody else should be asked instead of whoever has refused so. Not if the plan is over.
    fn goes_on_after(&mut self, refusal: &Refusal) -> bool {
        match refusal {
            Refusal::Stale if self.is_stale() => false,
            Refusal::Stale => {
                self.left_behind = true;
                true
            }
            Refusal::Unreachable | Refusal::HintsFull | Refusal::Refused => true,
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
                self.node.note_with(self.due, Deed::SentToFallback, fallback);
                self.steps.push(other_step(&self.node, who, &self.place, replicate, self.due));
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

    /// What has happened to a change that has its event, and for which too few spoke up.
    fn effect(&self) -> Effect {
        match self.ballot.tally.durable_acks() {
            0 => Effect::Unknown,
            durable => Effect::Applied(durable),
        }
    }

    /// The partition has changed once more, and there is no time, or patience, for another plan.
    fn in_vain(mut self) -> Failure {
        self.ballot.time_is_over();
        let receipt = Some(Box::new(self.ballot.receipt(&self.node, &self.quorum)));
        let (got, needed) = (self.ballot.acks(), self.quorum.w());
        let failure = Failure { got, needed, receipt, ..planned_in_vain(self.effect()) };
        self.node.clone().spawn(self.finish());
        failure
    }

    fn not_met(&self, code: ErrorCode, receipt: Receipt) -> Failure {
        let (got, durable) = (self.ballot.acks(), self.ballot.tally.durable_acks());
        let when = match code {
            ErrorCode::DeadlinePassed => "in time",
            ErrorCode::StaleView => LEFT_BEHIND,
            _ => "and no more can come",
        };
        Failure {
            code,
            effect: self.effect(),
            got,
            needed: self.quorum.w(),
            retry_after_ms: 0,
            detail: format!(
                "{got} of {} acknowledgements {when}, {durable} of {} fsynced{}{}",
                self.quorum.w(),
                self.quorum.dw(),
                match (self.quorum.sloppy(), self.quorum.pw()) {
                    (true, 1..) => format!(
                        ", {} of {} from owners (--pw)",
                        self.ballot.owner_acks(),
                        self.quorum.pw()
                    ),
                    (true, 0) | (false, _) => String::new(),
                },
                self.ballot.where_counted()
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
            Refusal::Refused | Refusal::Stale => Outcome::Refused,
        }
    }
}

fn own_step(who: Who, asked: Ack, ticket: Ticket) -> Boxed<Step> {
    Box::pin(async move {
        let outcome = ticket.done().await.map_err(|_| Refusal::Unreachable);
        Step { who, asked, outcome }
    })
}

fn other_step(
    node: &Arc<Node>,
    who: Who,
    place: &Place,
    replicate: Replicate,
    due: Due,
) -> Boxed<Step> {
    let asked = replicate.ack;
    let (Who::Owner(to) | Who::StandIn(to, _) | Who::Hint(to)) = who;
    let node = node.clone();
    let envelope = place.envelope(&node, due);
    let (planned, sent) = (place.epoch(), node.clock().now());
    let call = node.transport().call(to, Lane::Request, envelope, Request::Replicate(replicate));
    Box::pin(async move {
        let answer = call.await;
        node.liveness().learn(to, &answer);
        let outcome = match answer {
            Ok((_, Reply::Replicated(done))) if done.durable || asked == Ack::Written => {
                node.measured().add(to, Leg::from(asked), node.clock().now() - sent);
                node.note_of_others(due, done.trace);
                Ok(())
            }
            // somebody who knows less than we do is of no more use than one who is down
            Ok((epoch, Reply::Failed(failure)))
                if failure.code == ErrorCode::StaleView && epoch > planned =>
            {
                fence::catch_up(&node, to, epoch, due.deadline).await;
                Err(Refusal::Stale)
            }
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
