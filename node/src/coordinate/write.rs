//! The life of a PUT or DELETE, seen from its coordinator.
//!
//! It starts when a request arrives at an owner of the key. In the key's turn the change gets its event and is joined
//! into the own record; the delta goes to the other owners while the own fsync runs. Each answer moves the tally. At `w`
//! answers the client hears "stored"; if `w` has become impossible, or time is over, it hears how far we came. Owners
//! that stay silent until the deadline leave a hint behind.
//!
//! A node that does not own the key hands the request to one that does.

use std::{sync::Arc, time::Duration};

use atoll_antientropy::{Context, Event, Register};
use atoll_ring::{NodeId, Outcome as Verdict, Partition, Quorum, QuorumRequest, Vote};
use atoll_transport::{Boxed, CallError};
use atoll_wire::{
    Ack, Effect, ErrorCode, Failure, Lane, Outcome, Receipt, Replicate, Reply, Request, Stored,
    limits::SIBLINGS_MAX,
};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use super::{Place, bad_quorum, ballot::Ballot, hand_over::hand_over};
use crate::{
    Node,
    node::Due,
    replica::{self, Own},
    storage::{StoreError, commit::Ticket},
};

/// A change somebody wants.
pub(crate) struct Change {
    pub(crate) key: Bytes,
    pub(crate) context: Bytes,
    pub(crate) quorum: QuorumRequest,
    pub(crate) hops: u8,
    pub(crate) what: What,
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
    if !place.owners(quorum.n()).contains(node.id()) {
        return hand_over(node, &place, &quorum, change, due).await.map(Answer::Elsewhere);
    }
    node.takes_writes()?;
    let ballot = Ballot::open(node, &place, &quorum)?;
    if node.disk().is_full() {
        return Err(replica::overloaded());
    }
    lease(node, place.partition, due.deadline).await?;
    match take_turn(node, &place, &quorum, &seen, &change)? {
        Turn::Taken { event, delta, on_disk } => {
            node.count_write();
            let write = Spread::start(node, place, quorum, due, ballot, delta, on_disk);
            write.until_decided(event).await.map(Answer::Stored)
        }
        Turn::Corrupt => hand_over(node, &place, &quorum, change, due).await.map(Answer::Elsewhere),
    }
}

/// Waits for counters, but not longer than the request has time: past that nothing may be begun.
async fn lease(node: &Arc<Node>, partition: Partition, deadline: Instant) -> Result<(), Failure> {
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
enum Turn {
    Taken {
        event: Event,
        delta: Register,
        on_disk: Ticket,
    },
    /// The own record is damaged: another owner has to coordinate.
    Corrupt,
}

/// The key's turn: no await in here, so nobody else reads the record between our read and our write.
fn take_turn(
    node: &Node,
    place: &Place,
    quorum: &Quorum,
    seen: &Context,
    change: &Change,
) -> Result<Turn, Failure> {
    let stop = |error: StoreError| replica::stopping(&error);
    // an event that only the others keep could be claimed, and so erased, by our next one after an orderly stop
    node.takes_writes()?; // again: many may have waited for the same lease
    let (note, mut state) = match replica::read(node, &place.row).map_err(stop)? {
        Own::Missing => (None, Register::default()),
        Own::Known(record) => match record.register() {
            Ok(state) => (record.note, state),
            Err(_) => return Ok(Turn::Corrupt),
        },
        Own::Corrupt => return Ok(Turn::Corrupt),
    };
    let siblings_before = state.siblings();
    let Some(counter) = node.leases().take(place.partition) else {
        return Err(replica::overloaded()); // 65,536 others were faster since we looked
    };
    let (event, note) = node.standing().event(note.as_ref(), counter);
    if seen.contains(&event.dot()) || state.context().contains(&event.dot()) {
        // somebody knows an event we are only now giving out: this directory is older than its incarnation. Whoever
        // remembers the first use of a dot drops the second without a word
        let error = StoreError(format!(
            "{} was given out before; was the data directory restored from a copy?",
            event.dot()
        ));
        node.disk().give_up(error.clone());
        return Err(stop(error));
    }
    let delta = match &change.what {
        What::Put(value) => Register::put(seen, event, value.clone()),
        What::Delete => Register::delete(seen, event),
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
    let on_disk = replica::store(node, &place.row, Some(&note), &state, first_ack(quorum));
    Ok(Turn::Taken { event, delta, on_disk })
}

/// What an owner is asked for first. If fewer fsynced acks than acks are needed, the fast one comes first and the
/// fsynced one is asked for afterwards.
fn first_ack(quorum: &Quorum) -> Ack {
    if quorum.dw() < quorum.w() { Ack::Written } else { Ack::Durable }
}

/// One owner's answer to one question.
struct Step {
    owner: NodeId,
    asked: Ack,
    outcome: Result<(), Refusal>,
}

enum Refusal {
    /// No connection, or it broke, or the node is stopping: a hint will bring it the write.
    Unreachable,
    /// Its record is damaged.
    Corrupt,
    /// It answered no.
    Refused,
}

/// The delta on its way to all owners.
struct Spread {
    node: Arc<Node>,
    place: Place,
    quorum: Quorum,
    due: Due,
    ballot: Ballot,
    delta: Register,
    state: Bytes,
    steps: FuturesUnordered<Boxed<Step>>,
}

impl Spread {
    /// Sends the delta to every other owner that is not known to be down, and starts waiting for the own disk.
    fn start(
        node: &Arc<Node>,
        place: Place,
        quorum: Quorum,
        due: Due,
        ballot: Ballot,
        delta: Register,
        on_disk: Ticket,
    ) -> Self {
        let state = Bytes::from(delta.encode());
        let steps: FuturesUnordered<Boxed<Step>> = FuturesUnordered::new();
        steps.push(own_step(node.id(), first_ack(&quorum), on_disk));
        let mut spread =
            Spread { node: node.clone(), place, quorum, due, ballot, delta, state, steps };
        let now = node.clock().now();
        for owner in spread.ballot.others(node.id()) {
            if node.liveness().is_down(owner) {
                spread.ballot.note(owner, Outcome::Down, now);
                spread.ballot.tally.add(owner, Vote::Refused);
                spread.hint(owner);
            } else {
                spread.ask(owner, first_ack(&spread.quorum));
            }
        }
        spread
    }

    fn ask(&mut self, owner: NodeId, ack: Ack) {
        let step = if owner == self.node.id() {
            own_step(owner, ack, self.node.disk().settled())
        } else {
            let replicate = Replicate {
                key: self.place.key.clone(),
                ack,
                replaces_corrupt: false,
                hint_for: None,
                state: self.state.clone(),
            };
            other_step(&self.node, owner, replicate, self.due)
        };
        self.steps.push(step);
    }

    /// Counts answers until the write is won or lost, or time is over; the rest goes on in the background.
    async fn until_decided(mut self, event: Event) -> Result<Stored, Failure> {
        while self.ballot.tally.is_pending() {
            tokio::select! { biased;
                step = self.steps.next() => match step {
                    Some(step) => self.count(step),
                    None => break,
                },
                () = tokio::time::sleep_until(self.due.deadline) => break,
            }
        }
        let verdict = self.ballot.tally.outcome();
        match verdict {
            Verdict::Won => {}
            Verdict::Lost => self.hear_the_rest().await,
            Verdict::Pending => self.ballot.time_is_over(),
        }
        let receipt = self.ballot.receipt(&self.node, &self.quorum);
        let context = self.place.seal(&self.node, self.delta.context());
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

    /// A lost write has still been applied somewhere. Waits a moment for the answers on their way, so that the error can
    /// say where.
    async fn hear_the_rest(&mut self) {
        let until = self.due.deadline.min(self.node.clock().now() + LOST_PATIENCE);
        while let Ok(Some(step)) = tokio::time::timeout_at(until, self.steps.next()).await {
            self.count(step);
        }
    }

    /// Waits for the stragglers; whoever is silent at the deadline, and could not be told, gets a hint.
    async fn finish(mut self) {
        loop {
            tokio::select! { biased;
                step = self.steps.next() => match step {
                    Some(step) => self.count(step),
                    None => return,
                },
                () = tokio::time::sleep_until(self.due.deadline) => break,
            }
        }
        for owner in self.ballot.silent(self.node.id()) {
            self.hint(owner);
        }
    }

    fn count(&mut self, step: Step) {
        let Step { owner, asked, outcome } = step;
        let now = self.node.clock().now();
        match (outcome, asked) {
            (Ok(()), Ack::Durable) => {
                self.ballot.note(owner, Outcome::Durable, now);
                self.ballot.tally.add(owner, Vote::Durable);
            }
            (Ok(()), Ack::Written) => {
                self.ballot.note(owner, Outcome::Written, now);
                self.ballot.tally.add(owner, Vote::Written);
                if self.quorum.dw() > 0 {
                    self.ask(owner, Ack::Durable);
                }
            }
            (Err(refusal), _) => {
                self.ballot.tally.add(owner, Vote::Refused);
                match refusal {
                    Refusal::Unreachable => {
                        self.ballot.note(owner, Outcome::Down, now);
                        self.hint(owner);
                    }
                    Refusal::Corrupt => self.ballot.note(owner, Outcome::Corrupt, now),
                    Refusal::Refused => {
                        self.ballot.note(owner, Outcome::Refused, now);
                        self.hint(owner);
                    }
                }
            }
        }
    }

    /// Keeps the delta for an owner that missed it.
    fn hint(&mut self, owner: NodeId) {
        if owner == self.node.id() {
            return; // our own disk failed; the node stops
        }
        if self.node.takes_writes().is_err() {
            return; // a hint takes room like any write
        }
        if let Ok(true) = self.node.hints().keep(owner, &self.place.row, &self.delta) {
            self.ballot.hinted.push(owner.0);
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

fn own_step(owner: NodeId, asked: Ack, ticket: Ticket) -> Boxed<Step> {
    Box::pin(async move {
        let outcome = ticket.done().await.map_err(|_| Refusal::Unreachable);
        Step { owner, asked, outcome }
    })
}

fn other_step(node: &Arc<Node>, owner: NodeId, replicate: Replicate, due: Due) -> Boxed<Step> {
    let asked = replicate.ack;
    let node = node.clone();
    let envelope = node.envelope_for(due.deadline, due.operation, due.bucket);
    let call = node.transport().call(owner, Lane::Request, envelope, Request::Replicate(replicate));
    Box::pin(async move {
        let answer = call.await;
        node.liveness().learn(owner, &answer);
        let outcome = match answer {
            Ok((_, Reply::Replicated(done))) if done.durable || asked == Ack::Written => Ok(()),
            Ok((_, Reply::Failed(failure))) => Err(match failure.code {
                ErrorCode::Corrupt => Refusal::Corrupt,
                ErrorCode::Stopping => Refusal::Unreachable,
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
        Step { owner, asked, outcome }
    })
}
