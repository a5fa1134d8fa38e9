//! The vote on a write, and what the receipt says of it: one line per owner.

use atoll_ring::{NodeId, Outcome as Verdict, Quorum, Tally, Vote};
use atoll_wire::{Effect, ErrorCode, Failure, Outcome, Receipt, ReplicaReport};
use tokio::time::Instant;

use super::{Place, micros};
use crate::Node;

/// The votes, and a line per owner for the receipt.
pub(crate) struct Ballot {
    pub(crate) tally: Tally,
    reports: Vec<ReplicaReport>,
    pub(crate) hinted: Vec<u32>,
    started: Instant,
}

impl Ballot {
    /// Opens the vote, unless it is known that it cannot be won. Then nothing has been applied anywhere.
    pub(crate) fn open(node: &Node, place: &Place, quorum: &Quorum) -> Result<Self, Failure> {
        let owners = place.owners(quorum.n());
        let down = |owner: &NodeId| *owner != node.id() && node.liveness().is_down(*owner);
        let mut ballot = Ballot {
            tally: Tally::new(owners, quorum.w(), quorum.dw()),
            reports: owners
                .all()
                .into_iter()
                .map(|owner| {
                    let outcome = if down(&owner) { Outcome::Down } else { Outcome::NotAsked };
                    ReplicaReport { node: owner.0, stands_in_for: None, outcome, micros: 0 }
                })
                .collect(),
            hinted: Vec::new(),
            started: node.clock().now(),
        };
        let mut hopeless = ballot.tally.clone();
        for owner in owners.all().into_iter().filter(down) {
            hopeless.add(owner, Vote::Refused);
        }
        if hopeless.outcome() == Verdict::Lost {
            let reachable =
                ballot.reports.iter().filter(|report| report.outcome != Outcome::Down).count();
            return Err(Failure {
                code: ErrorCode::WriteQuorumNotMet,
                effect: Effect::NotApplied,
                got: 0,
                needed: quorum.w(),
                retry_after_ms: 0,
                detail: format!(
                    "{} acknowledgements are needed and {reachable} of {} owners can be reached",
                    quorum.w(),
                    ballot.reports.len()
                ),
                receipt: Some(Box::new(ballot.receipt(node, quorum))),
            });
        }
        for report in &mut ballot.reports {
            report.outcome = Outcome::Pending;
        }
        Ok(ballot)
    }

    pub(crate) fn others(&self, me: NodeId) -> Vec<NodeId> {
        self.reports.iter().map(|report| NodeId(report.node)).filter(|node| *node != me).collect()
    }

    /// Whoever has not answered yet has not answered in time.
    pub(crate) fn time_is_over(&mut self) {
        for report in &mut self.reports {
            if report.outcome == Outcome::Pending {
                report.outcome = Outcome::Silent;
            }
        }
    }

    /// Owners without any answer.
    pub(crate) fn silent(&self, me: NodeId) -> Vec<NodeId> {
        let open = |outcome| matches!(outcome, Outcome::Pending | Outcome::Silent);
        let silent = self.reports.iter().filter(|report| open(report.outcome));
        silent.map(|report| NodeId(report.node)).filter(|node| *node != me).collect()
    }

    pub(crate) fn note(&mut self, owner: NodeId, outcome: Outcome, now: Instant) {
        let now = micros(self.started, now);
        if let Some(report) = self.reports.iter_mut().find(|report| report.node == owner.0) {
            report.outcome = outcome;
            report.micros = now;
        }
    }

    pub(crate) fn receipt(&self, node: &Node, quorum: &Quorum) -> Receipt {
        Receipt {
            epoch: node.view().epoch(),
            coordinator: node.id().0,
            n: quorum.n(),
            needed: quorum.w(),
            owners_needed: quorum.pw(),
            durable_needed: quorum.dw(),
            replicas: self.reports.clone(),
            hinted: self.hinted.clone(),
            unhinted: Vec::new(),
            repaired: Vec::new(),
        }
    }
}
