//! What a read does for replicas that hold less than it found: before its answer, or afterwards.
//!
//! [`Read::make_sure`] is `repair = blocking`: the client waits. [`Read::mend`] goes on when the client has its answer.

use std::sync::Arc;

use atoll_antientropy::Register;
use atoll_ring::{NodeId, Outcome as Verdict, Tally, Vote};
use atoll_transport::Boxed;
use atoll_wire::{Ack, Effect, ErrorCode, Failure, Lane, Replicate, Reply, Request};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::{Read, Who, encoded};
use crate::{
    Node,
    coordinate::{HOP_LIMIT, SILENCE_SHARE, stand_ins::StandIns},
    node::Due,
    replica,
};

impl Read {
    /// Waits until as many replicas as the read needed hold what was found, fsynced: a later read that meets one of them
    /// sees no less.
    pub(super) async fn make_sure(&mut self, joined: &Register) -> Result<(), Failure> {
        let state = encoded(joined);
        let mut sure = {
            let owners = self.place.owners(self.quorum.n());
            Tally::new(owners, self.quorum.of_read(), self.quorum.sloppy())
        };
        let mut sending: FuturesUnordered<Boxed<(Who, bool)>> = FuturesUnordered::new();
        for (who, answer) in &self.answers {
            match who {
                _ if *answer != state => sending.push(self.repair(*who, joined, &state)),
                Who::Owner(owner) => {
                    sure.add(*owner, Vote::Durable);
                }
                Who::StandIn(_, owner) => {
                    sure.add_stand_in(*owner, Vote::Durable);
                }
            }
        }
        let now = self.node.clock().now();
        let patience = self.due.deadline.saturating_duration_since(now) / SILENCE_SHARE;
        let mut silence_ends = now + patience;
        while sure.is_pending() {
            if sending.is_empty() && !self.repair_another(&mut sending, joined, &state) {
                break;
            }
            let next = silence_ends.min(self.due.deadline);
            let Ok(Some((who, done))) = tokio::time::timeout_at(next, sending.next()).await else {
                if next == self.due.deadline {
                    break;
                }
                silence_ends += patience;
                self.repair_another(&mut sending, joined, &state);
                continue;
            };
            let vote = if done { Vote::Durable } else { Vote::Refused };
            match who {
                Who::Owner(owner) => sure.add(owner, vote),
                Who::StandIn(_, owner) => sure.add_stand_in(owner, vote),
            };
            if done {
                self.node.count_repair();
                self.repaired.push(who.node().0);
                if let Some((_, answer)) = self.answers.iter_mut().find(|(at, _)| *at == who) {
                    *answer = state.clone();
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
                    needed: self.quorum.r(),
                    retry_after_ms: 0,
                    detail: format!(
                        "{} of {} replicas hold for certain what was found; without repair=blocking it can be read",
                        sure.acks(),
                        self.quorum.r()
                    ),
                    receipt: Some(Box::new(self.receipt())),
                })
            }
        }
    }

    /// Brings a state to the next owner in reserve, if there is one.
    fn repair_another(
        &mut self,
        sending: &mut FuturesUnordered<Boxed<(Who, bool)>>,
        joined: &Register,
        state: &Bytes,
    ) -> bool {
        while let Some(owner) = self.reserve.pop_front() {
            if !self.node.liveness().is_down(owner) {
                sending.push(self.repair(Who::Owner(owner), joined, state));
                return true;
            }
        }
        false
    }

    /// Brings a state to a replica, fsynced.
    fn repair(&self, who: Who, joined: &Register, state: &Bytes) -> Boxed<(Who, bool)> {
        if who.node() == self.node.id() {
            let row = &self.place.row;
            let kept = match who {
                Who::Owner(_) => replica::join(&self.node, row, joined.clone(), Ack::Durable).ok(),
                Who::StandIn(_, owner) => self.node.hints().keep(owner, row, joined).ok().flatten(),
            };
            return Box::pin(async move {
                match kept {
                    Some(ticket) => (who, ticket.done().await.is_ok()),
                    None => (who, false),
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
        let sent = send(self.node.clone(), who.node(), replicate, self.due);
        Box::pin(async move { (who, sent.await) })
    }

    /// Read repair: gathers the answers still on their way, then sends the joined state to whoever lacks part of it.
    pub(super) async fn mend(mut self, mut joined: Register, mut behind: Vec<NodeId>) {
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
                let row = &self.place.row;
                match replica::join(&self.node, row, joined.clone(), Ack::Durable) {
                    Ok(ticket) => ticket.done().await.is_ok(),
                    Err(_) => false,
                }
            } else {
                let replicate = Replicate {
                    key: self.place.key.clone(),
                    ack: Ack::Durable,
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
}

/// Sends a repaired state. It has time of its own: the request it came from is over.
async fn send(node: Arc<Node>, owner: NodeId, replicate: Replicate, due: Due) -> bool {
    let deadline = node.clock().now() + HOP_LIMIT;
    let envelope = node.envelope_for(deadline, due.operation, due.bucket);
    let call = node.transport().call(owner, Lane::Bulk, envelope, Request::Replicate(replicate));
    let answer = tokio::time::timeout_at(deadline, call).await;
    matches!(answer, Ok(Ok((_, Reply::Replicated(_)))))
}
