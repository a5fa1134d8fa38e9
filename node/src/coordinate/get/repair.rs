//! What a read does for replicas that hold less than it found: before its answer, or afterwards.
//!
//! [`Read::make_sure`] is `repair = blocking`: the client waits. [`Read::mend`] goes on when the client has its answer.

use std::sync::Arc;

use atoll_antientropy::State;
use atoll_ring::{Needs, NodeId, Outcome as Verdict, Tally, Vote};
use atoll_transport::Boxed;
use atoll_wire::{Ack, Effect, ErrorCode, Failure, Lane, Outcome, Replicate, Reply, Request};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::{Fetched, Read, Who, encoded, fetch};
use crate::{
    Node,
    coordinate::{HOP_LIMIT, Place, SILENCE_SHARE, ballot::is_open, stand_ins::StandIns},
    node::Due,
    replica,
    trace::Traced,
};

/// What is certain of a replica.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Assured {
    /// It held what was found.
    Held,
    /// It holds it now.
    Repaired,
    /// Nothing.
    No,
}

impl Assured {
    fn by(repaired: bool) -> Assured {
        if repaired { Assured::Repaired } else { Assured::No }
    }
}

/// Replicas of which something will be certain soon.
#[derive(Default)]
struct Sending {
    steps: FuturesUnordered<Boxed<(Who, Assured)>>,
    /// The seats for which they count.
    seats: Vec<NodeId>,
}

impl Sending {
    fn push(&mut self, who: Who, step: Boxed<(Who, Assured)>) {
        let (Who::Owner(owner) | Who::StandIn(_, owner)) = who;
        self.seats.push(owner);
        self.steps.push(step);
    }

    async fn next(&mut self) -> Option<(Who, Assured)> {
        let (who, assured) = self.steps.next().await?;
        let (Who::Owner(owner) | Who::StandIn(_, owner)) = who;
        if let Some(index) = self.seats.iter().position(|seat| *seat == owner) {
            self.seats.remove(index);
        }
        Some((who, assured))
    }

    /// Seats in this set that are sure, or may soon be.
    fn may_be_sure(&self, sure: &Tally, set: &[NodeId]) -> usize {
        let may_be = |owner: &&NodeId| sure.has_acked(**owner) || self.seats.contains(*owner);
        set.iter().filter(may_be).count()
    }
}

impl Read {
    /// Waits until so many replicas hold what was found, fsynced, that any later read of as many as this one meets one of
    /// them: n - r + 1, as if the read were a write. And not fewer than the read itself needed.
    pub(super) async fn make_sure(&mut self, joined: &State) -> Result<(), Failure> {
        let state = encoded(joined);
        if state.is_empty() {
            return Ok(()); // there is nothing that a later read could miss
        }
        let needs = self.needed_to_be_sure();
        let mut sure = {
            let owners = self.place.owners_to_read(self.reader.quorum.n());
            Tally::new(owners, needs, self.reader.quorum.sloppy())
        };
        let mut sending = Sending::default();
        for (who, answer) in &self.answers {
            match who {
                _ if *answer != state => sending.push(*who, self.repair(*who, joined, &state)),
                // an owner in doubt too: what it says does not count, what it holds does
                Who::Owner(owner) => {
                    sure.add(*owner, Vote::Durable);
                }
                Who::StandIn(_, owner) => {
                    sure.add_stand_in(*owner, Vote::Durable);
                }
            }
        }
        // who has been asked and has not answered, or has nothing but damage, may be brought it all the same
        let unheard = self.reports.iter().filter(|report| {
            let owner = report.stands_in_for.is_none();
            owner && (is_open(report.outcome) || report.outcome == Outcome::Corrupt)
        });
        let unheard: Vec<NodeId> = unheard.map(|report| NodeId(report.node)).collect();
        self.reserve.extend(unheard.into_iter().filter(|owner| *owner != self.node.id()));
        let now = self.node.clock().now();
        let patience = self.due.deadline.saturating_duration_since(now) / SILENCE_SHARE;
        let mut silence_ends = now + patience;
        let sets = self.sets.clone();
        while sure.is_pending() {
            for set in &sets {
                while sending.may_be_sure(&sure, set) < usize::from(needs.acks)
                    && self.assure_another(set, &mut sending, joined, &state)
                {}
            }
            if sending.steps.is_empty() {
                let mut another = false;
                for set in &sets {
                    another |= self.assure_another(set, &mut sending, joined, &state);
                }
                if !another {
                    break;
                }
            }
            let next = silence_ends.min(self.due.deadline);
            let Ok(Some((who, assured))) = tokio::time::timeout_at(next, sending.next()).await
            else {
                if next == self.due.deadline {
                    break;
                }
                silence_ends += patience;
                for set in &sets {
                    self.assure_another(set, &mut sending, joined, &state);
                }
                continue;
            };
            let vote = if assured == Assured::No { Vote::Refused } else { Vote::Durable };
            match who {
                Who::Owner(owner) => sure.add(owner, vote),
                Who::StandIn(_, owner) => sure.add_stand_in(owner, vote),
            };
            match assured {
                Assured::No => {
                    let (Who::Owner(owner) | Who::StandIn(_, owner)) = who;
                    self.vacant.push_back(owner);
                }
                Assured::Held => {}
                Assured::Repaired => {
                    self.node.count_repair();
                    self.repaired.push(who.node().0);
                    if let Some((_, answer)) = self.answers.iter_mut().find(|(at, _)| *at == who) {
                        *answer = state.clone();
                    }
                }
            }
        }
        match sure.outcome() {
            Verdict::Won => Ok(()),
            Verdict::Lost | Verdict::Pending => {
                let late = self.due.deadline <= self.node.clock().now();
                let code = match late {
                    true => ErrorCode::DeadlinePassed,
                    false => ErrorCode::ReadQuorumNotMet,
                };
                Err(Failure {
                    code,
                    effect: Effect::NotApplied,
                    got: sure.acks(),
                    needed: needs.acks,
                    retry_after_ms: 0,
                    detail: format!(
                        "{} of {} replicas hold for certain what was found; without repair=blocking it can be read",
                        sure.acks(),
                        needs.acks
                    ),
                    receipt: Some(Box::new(self.receipt())),
                })
            }
        }
    }

    fn needed_to_be_sure(&self) -> Needs {
        let (n, Needs { acks, owners, durable }) =
            (self.reader.quorum.n(), self.reader.quorum.of_read());
        let owners = match owners {
            0 => 0,
            owners => owners.max(n + 1 - owners),
        };
        Needs { acks: acks.max(n + 1 - acks).max(owners), owners, durable }
    }

    /// Makes sure of the next owner in this set that was not asked yet; when there is none, of a fallback in the seat of an
    /// owner that is out of reach.
    fn assure_another(
        &mut self,
        set: &[NodeId],
        sending: &mut Sending,
        joined: &State,
        state: &Bytes,
    ) -> bool {
        while let Some(index) = self.reserve.iter().position(|owner| set.contains(owner)) {
            let owner = self.reserve.remove(index).expect("it was found there");
            if !self.node.liveness().is_down(owner) {
                sending.push(Who::Owner(owner), self.assure(owner, joined, state));
                return true;
            }
            self.vacant.push_back(owner);
        }
        let Some(index) = self.vacant.iter().position(|owner| set.contains(owner)) else {
            return false;
        };
        let owner = self.vacant.remove(index).expect("it was found there");
        let Some(fallback) = self.stand_ins.next(&self.node) else {
            self.vacant.push_front(owner);
            return false;
        };
        let who = Who::StandIn(fallback, owner);
        sending.push(who, self.repair(who, joined, state));
        true
    }

    /// Asks an owner what it holds, and brings it the state if that is less.
    fn assure(&self, owner: NodeId, joined: &State, state: &Bytes) -> Boxed<(Who, Assured)> {
        let who = Who::Owner(owner);
        let asked = fetch(&self.node, who, &self.place, self.due, self.reader.durable());
        let repaired = self.repair(who, joined, state);
        let joined = joined.clone();
        Box::pin(async move {
            match asked.await.1 {
                Fetched::State(held) | Fetched::InDoubt(held)
                    if State::decode(&held).is_ok_and(|held| held.covers(&joined)) =>
                {
                    (who, Assured::Held)
                }
                Fetched::State(_) | Fetched::InDoubt(_) | Fetched::Nothing | Fetched::Corrupt => {
                    repaired.await
                }
                Fetched::Down | Fetched::Refused | Fetched::Stale => (who, Assured::No),
            }
        })
    }

    /// Brings a state to a replica, fsynced.
    fn repair(&self, who: Who, joined: &State, state: &Bytes) -> Boxed<(Who, Assured)> {
        if who.node() == self.node.id() {
            let row = &self.place.row;
            let kept = match who {
                _ if self.is_stale() => None,
                Who::Owner(_) => replica::join(&self.node, row, joined.clone(), Ack::Durable).ok(),
                Who::StandIn(_, owner) => self.node.hints().keep(owner, row, joined).ok().flatten(),
            };
            return Box::pin(async move {
                match kept {
                    Some(ticket) => (who, Assured::by(ticket.done().await.is_ok())),
                    None => (who, Assured::No),
                }
            });
        }
        let replicate = Replicate {
            key: self.place.key.clone(),
            ack: Ack::Durable,
            hint_for: match who {
                Who::Owner(_) => None,
                Who::StandIn(_, owner) => Some(owner.0),
            },
            state: state.clone(),
        };
        let sent = send(self.node.clone(), self.place.clone(), who.node(), replicate, self.due);
        Box::pin(async move { (who, Assured::by(sent.await)) })
    }

    /// Read repair: gathers the answers still on their way, then sends the joined state to whoever lacks part of it.
    pub(super) async fn mend(mut self, mut joined: State, mut behind: Vec<NodeId>) {
        let known = self.answers.len();
        let deadline = self.due.deadline;
        self.stand_ins = StandIns::none();
        while let Ok(Some((who, fetched))) =
            tokio::time::timeout_at(deadline, self.asked.next()).await
        {
            self.count(who, fetched);
        }
        if self.answers.len() > known {
            let Ok(all) = self.joined() else { return };
            joined = all;
            behind = self.behind(&encoded(&joined));
        }
        let state = encoded(&joined);
        if state.is_empty() {
            return;
        }
        for owner in behind {
            let done = if owner == self.node.id() {
                match self.repair(Who::Owner(owner), &joined, &state).await {
                    (_, Assured::Repaired) => true,
                    (_, Assured::Held | Assured::No) => false,
                }
            } else {
                let replicate = Replicate {
                    key: self.place.key.clone(),
                    ack: Ack::Durable,
                    hint_for: None,
                    state: state.clone(),
                };
                send(self.node.clone(), self.place.clone(), owner, replicate, self.due).await
            };
            if done {
                self.node.count_repair();
            }
        }
    }
}

/// Sends a repaired state. It has time of its own: the request it came from is over.
async fn send(
    node: Arc<Node>,
    place: Place,
    owner: NodeId,
    replicate: Replicate,
    due: Due,
) -> bool {
    let deadline = node.clock().now() + HOP_LIMIT;
    let envelope = place.envelope(&node, Due { deadline, traced: Traced::No, ..due });
    let call = node.transport().call(owner, Lane::Bulk, envelope, Request::Replicate(replicate));
    let answer = tokio::time::timeout_at(deadline, call).await;
    matches!(answer, Ok(Ok((_, Reply::Replicated(_)))))
}
