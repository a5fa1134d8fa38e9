//! The life of a GET, seen from its coordinator.
//!
//! The own copy first, if we are an owner, then the nearest others, `r` in all. Whoever fails is replaced by the next
//! owner at once, whoever is slow after a while. At `r` answers the states are joined and the client has its reply;
//! owners that were behind then get the joined state. An owner whose record is damaged gives no answer, and gets a new
//! record only when every other owner has contributed to it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use atoll_antientropy::Register;
use atoll_ring::{NodeId, Outcome as Verdict, Owners, Quorum, Tally, Vote};
use atoll_transport::{Boxed, CallError};
use atoll_wire::{
    Ack, Effect, ErrorCode, Failure, Fetch, Found, Get, Lane, Outcome, Receipt, ReplicaReport,
    Replicate, Reply, Request, ValueHead,
};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use super::{Place, bad_quorum, micros};
use crate::{
    Node,
    node::Due,
    replica::{self, Own},
};

/// Share of the remaining time after which a silent owner is given up for the next one.
const PATIENCE_SHARE: u32 = 8;

/// Reads a key from `r` of its owners.
pub(crate) async fn get(node: Arc<Node>, get: Get, due: Due) -> Reply {
    match try_get(&node, get, due).await {
        Ok(found) => Reply::Found(found),
        Err(failure) => crate::node::failed(failure),
    }
}

async fn try_get(node: &Arc<Node>, get: Get, due: Due) -> Result<Found, Failure> {
    let place = Place::of(node, due.bucket, get.key)?;
    let quorum = Quorum::new(&get.quorum, place.bucket_n()).map_err(bad_quorum)?;
    let mut read = Read::start(node, place, quorum, due);
    read.until_decided().await;
    let verdict = read.tally.outcome();
    match verdict {
        Verdict::Won => {
            node.count_read();
            read.found()
        }
        Verdict::Lost => Err(read.not_met(ErrorCode::ReadQuorumNotMet)),
        Verdict::Pending => Err(read.not_met(ErrorCode::DeadlinePassed)),
    }
}

/// A read under way.
struct Read {
    node: Arc<Node>,
    place: Place,
    quorum: Quorum,
    due: Due,
    started: Instant,
    tally: Tally,
    reports: Vec<ReplicaReport>,
    /// Owners not asked yet, the best first.
    reserve: VecDeque<NodeId>,
    asked: FuturesUnordered<Boxed<(NodeId, Fetched)>>,
    /// States as they came, canonical bytes; empty = the owner has none.
    answers: Vec<(NodeId, Bytes)>,
}

enum Fetched {
    State(Bytes),
    Corrupt,
    Down,
    Refused,
}

impl Read {
    fn start(node: &Arc<Node>, place: Place, quorum: Quorum, due: Due) -> Self {
        let owners = place.owners(quorum.n());
        let all = owners.all();
        let mut order = all.clone();
        order.sort_by_key(|owner| (*owner != node.id(), node.liveness().rank(*owner)));
        let first = match owners {
            Owners::One(_) => usize::from(quorum.r()),
            Owners::Joint { .. } => order.len(), // a quorum of both sets: nobody to spare
        };
        let report = |owner: NodeId| ReplicaReport {
            node: owner.0,
            stands_in_for: None,
            outcome: Outcome::NotAsked,
            micros: 0,
        };
        let mut read = Read {
            node: node.clone(),
            tally: Tally::new(owners, quorum.r(), 0),
            reports: all.into_iter().map(report).collect(),
            reserve: order.into(),
            asked: FuturesUnordered::new(),
            answers: Vec::new(),
            started: node.clock().now(),
            place,
            quorum,
            due,
        };
        for _ in 0..first {
            read.ask_next();
        }
        read
    }

    async fn until_decided(&mut self) {
        let left = self.due.deadline.saturating_duration_since(self.started);
        let patience: Duration = left / PATIENCE_SHARE;
        let mut give_up = self.started + patience;
        while self.tally.is_pending() {
            if self.asked.is_empty() && !self.ask_next() {
                return;
            }
            tokio::select! { biased;
                Some((owner, fetched)) = self.asked.next() => self.count(owner, fetched),
                () = tokio::time::sleep_until(give_up.min(self.due.deadline)) => {
                    if give_up >= self.due.deadline {
                        return;
                    }
                    self.ask_next();
                    give_up += patience;
                }
            }
        }
    }

    /// Asks the next owner in reserve. The own copy answers at once.
    fn ask_next(&mut self) -> bool {
        let Some(owner) = self.reserve.pop_front() else { return false };
        self.note(owner, Outcome::Pending);
        if owner == self.node.id() {
            let fetched = match replica::read(&self.node, &self.place.row) {
                Ok(Own::Missing) => Fetched::State(Bytes::new()),
                Ok(Own::Known(record)) => Fetched::State(record.state),
                Ok(Own::Corrupt) => Fetched::Corrupt,
                Err(_) => Fetched::Refused,
            };
            self.count(owner, fetched);
        } else if self.node.liveness().is_down(owner) {
            // a killed process leaves a connection that looks alive for a while; a call on it would use up our time
            self.count(owner, Fetched::Down);
        } else {
            self.asked.push(fetch(&self.node, owner, &self.place, self.due));
        }
        true
    }

    fn count(&mut self, owner: NodeId, fetched: Fetched) {
        match fetched {
            Fetched::State(state) => {
                self.note(owner, Outcome::Current); // or behind, which is seen when all are joined
                self.answers.push((owner, state));
                self.tally.add(owner, Vote::Durable);
            }
            Fetched::Corrupt => self.refused(owner, Outcome::Corrupt),
            Fetched::Down => self.refused(owner, Outcome::Down),
            Fetched::Refused => self.refused(owner, Outcome::Refused),
        }
    }

    fn refused(&mut self, owner: NodeId, outcome: Outcome) {
        self.note(owner, outcome);
        self.tally.add(owner, Vote::Refused);
        self.ask_next();
    }

    fn note(&mut self, owner: NodeId, outcome: Outcome) {
        let micros = micros(self.started, self.node.clock().now());
        if let Some(report) = self.reports.iter_mut().find(|report| report.node == owner.0) {
            report.outcome = outcome;
            report.micros = micros;
        }
    }

    /// Joins what came, answers, and mends in the background whoever was behind.
    fn found(mut self) -> Result<Found, Failure> {
        let joined = self.joined()?;
        let state = encoded(&joined);
        let behind: Vec<NodeId> = self
            .answers
            .iter()
            .filter(|(_, answer)| *answer != state)
            .map(|(owner, _)| *owner)
            .collect();
        for owner in &behind {
            if let Some(report) = self.reports.iter_mut().find(|r| r.node == owner.0) {
                report.outcome = Outcome::Behind;
            }
        }
        let corrupt = self.reports.iter().any(|report| report.outcome == Outcome::Corrupt);
        let unfinished = !behind.is_empty() || corrupt || !self.asked.is_empty();
        let room = if unfinished { self.node.room_to_mend() } else { None };
        let mut receipt = self.receipt();
        if room.is_some() {
            receipt.repaired = behind.iter().map(|owner| owner.0).collect();
        }

        let mut bytes = BytesMut::new();
        let mut values = Vec::with_capacity(joined.siblings());
        let single = joined.siblings() == 1;
        let mut only = Bytes::new();
        for (dot, value) in joined.values() {
            values.push(ValueHead {
                dot: (dot.actor.node, dot.actor.incarnation, dot.counter),
                length: u32::try_from(value.len()).expect("values are far below 4 GiB"),
            });
            if single {
                only = value.clone(); // the usual case copies nothing
            } else {
                bytes.extend_from_slice(value);
            }
        }
        let found = Found {
            values,
            context: self.place.seal(&self.node, joined.context()),
            receipt,
            bytes: if single { only } else { bytes.freeze() },
        };
        if let Some(room) = room {
            let node = self.node.clone();
            node.spawn(async move {
                self.mend(joined, behind).await;
                drop(room);
            });
        }
        Ok(found)
    }

    /// The join of all answers. Equal bytes are equal states, so they are decoded once.
    fn joined(&self) -> Result<Register, Failure> {
        let mut joined = Register::default();
        for (index, (owner, answer)) in self.answers.iter().enumerate() {
            let seen_before = self.answers[..index].iter().any(|(_, earlier)| earlier == answer);
            if answer.is_empty() || seen_before {
                continue;
            }
            let state = Register::decode(answer).map_err(|error| {
                let detail = format!("{owner} sent bytes that are no state: {error}");
                Failure::refused(ErrorCode::Internal, detail)
            })?;
            if index == 0 {
                joined = state;
            } else {
                joined.join(state);
            }
        }
        Ok(joined)
    }

    /// Read repair: gathers the answers still on their way, then sends the joined state to whoever lacks part of it.
    async fn mend(mut self, mut joined: Register, mut behind: Vec<NodeId>) {
        let corrupt: Vec<NodeId> = self
            .reports
            .iter()
            .filter(|report| report.outcome == Outcome::Corrupt)
            .map(|report| NodeId(report.node))
            .collect();
        if !corrupt.is_empty() {
            while self.ask_next() {}
        }
        let known = self.answers.len();
        let deadline = self.due.deadline;
        while let Ok(Some((owner, fetched))) =
            tokio::time::timeout_at(deadline, self.asked.next()).await
        {
            self.count(owner, fetched);
        }
        if self.answers.len() > known {
            let Ok(all) = self.joined() else { return };
            joined = all;
            let state = encoded(&joined);
            behind = self
                .answers
                .iter()
                .filter(|(_, answer)| *answer != state)
                .map(|(owner, _)| *owner)
                .collect();
        }
        let state = encoded(&joined);
        if state.is_empty() {
            return;
        }
        // all copies of the bucket, not only the n of this read: an owner left out may alone hold what was damaged
        let all_took_part = self.quorum.n() == self.place.bucket_n();
        let all_answered = self.answers.len() + corrupt.len() == self.reports.len();
        let replaced = if all_took_part && all_answered { corrupt } else { Vec::new() };
        let repairs = behind.into_iter().map(|owner| (owner, false));
        for (owner, replaces_corrupt) in
            repairs.chain(replaced.into_iter().map(|owner| (owner, true)))
        {
            let done = if owner == self.node.id() {
                let row = &self.place.row;
                match replica::join(&self.node, row, joined.clone(), replaces_corrupt, Ack::Durable)
                {
                    Ok(ticket) => ticket.done().await.is_ok(),
                    Err(_) => false,
                }
            } else {
                let replicate = Replicate {
                    key: self.place.key.clone(),
                    ack: Ack::Durable,
                    replaces_corrupt,
                    hint_for: None,
                    state: state.clone(),
                };
                send(self.node.clone(), owner, replicate, self.due).await
            };
            if done {
                self.node.count_repair();
            }
        }
    }

    fn receipt(&self) -> Receipt {
        Receipt {
            epoch: self.node.view().epoch(),
            coordinator: self.node.id().0,
            n: self.quorum.n(),
            needed: self.quorum.r(),
            owners_needed: self.quorum.pr(),
            durable_needed: 0,
            replicas: self.reports.clone(),
            hinted: Vec::new(),
            unhinted: Vec::new(),
            repaired: Vec::new(),
        }
    }

    fn not_met(mut self, code: ErrorCode) -> Failure {
        if code == ErrorCode::DeadlinePassed {
            for report in &mut self.reports {
                if report.outcome == Outcome::Pending {
                    report.outcome = Outcome::Silent;
                }
            }
        }
        let got = self.tally.acks();
        let when = match code {
            ErrorCode::DeadlinePassed => "in time",
            _ => "and no more can come",
        };
        Failure {
            code,
            effect: Effect::NotApplied,
            got,
            needed: self.quorum.r(),
            retry_after_ms: 0,
            detail: format!("{got} of {} answers {when}", self.quorum.r()),
            receipt: Some(Box::new(self.receipt())),
        }
    }
}

/// Canonical bytes; none for a key nobody has heard of.
fn encoded(state: &Register) -> Bytes {
    if state.is_unknown() { Bytes::new() } else { Bytes::from(state.encode()) }
}

fn fetch(node: &Arc<Node>, owner: NodeId, place: &Place, due: Due) -> Boxed<(NodeId, Fetched)> {
    let node = node.clone();
    let request = Request::Fetch(Fetch { key: place.key.clone(), durable: false, hints: false });
    let envelope = node.envelope_for(due.deadline, due.operation, due.bucket);
    let call = node.transport().call(owner, Lane::Request, envelope, request);
    Box::pin(async move {
        let answer = call.await;
        node.liveness().learn(owner, &answer);
        let fetched = match answer {
            Ok((_, Reply::Fetched(fetched))) => Fetched::State(fetched.state),
            Ok((_, Reply::Failed(failure))) if failure.code == ErrorCode::Corrupt => {
                Fetched::Corrupt
            }
            Ok(_) => Fetched::Refused,
            Err(CallError::Down(_) | CallError::Lost(_)) => Fetched::Down,
            Err(CallError::Overloaded | CallError::Unsendable(_)) => Fetched::Refused,
        };
        (owner, fetched)
    })
}

/// Sends a repaired state. It has time of its own: the request it came from is over.
async fn send(node: Arc<Node>, owner: NodeId, replicate: Replicate, due: Due) -> bool {
    let deadline = node.clock().now() + super::HOP_LIMIT;
    let envelope = node.envelope_for(deadline, due.operation, due.bucket);
    let call = node.transport().call(owner, Lane::Bulk, envelope, Request::Replicate(replicate));
    let answer = tokio::time::timeout_at(deadline, call).await;
    matches!(answer, Ok(Ok((_, Reply::Replicated(_)))))
}
