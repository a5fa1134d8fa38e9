//! The vote on a write, and what the receipt says of it: one line per owner, then one per fallback.

use atoll_ring::{Epoch, NodeId, Outcome as Verdict, Quorum, Tally, Vote};
use atoll_wire::{Effect, ErrorCode, Failure, Outcome, Receipt, ReplicaReport};
use tokio::time::Instant;

use super::{Place, micros, sets, stand_ins::StandIns};
use crate::{
    Node,
    canary::{self, Canary},
};

/// The votes, and a line per replica for the receipt.
pub(crate) struct Ballot {
    pub(crate) tally: Tally,
    reports: Vec<ReplicaReport>,
    hinted: Vec<u32>,
    unhinted: Vec<u32>,
    started: Instant,
    /// The owner sets in which the vote must be won: one, or two while the partition moves.
    sets: Vec<Vec<NodeId>>,
    /// The view that says so.
    epoch: Epoch,
}

impl Ballot {
    /// Opens the vote, unless it is known that it cannot be won. Then nothing has been applied anywhere.
    ///
    /// `own_seat` is the owner in whose place this node votes: itself, or the one it stands in for.
    pub(crate) fn open(
        node: &Node,
        place: &Place,
        quorum: &Quorum,
        own_seat: NodeId,
        stand_ins: &mut StandIns,
    ) -> Result<Self, Failure> {
        let mut ballot = Ballot::over(node, place, quorum, node.clock().now());
        let down = |owner: &NodeId| *owner != node.id() && node.liveness().is_down(*owner);
        let mut hopeless = ballot.tally.clone();
        let away: Vec<NodeId> = ballot.owners().into_iter().filter(down).collect();
        let spare = if away.is_empty() { 0 } else { stand_ins.reachable(node) };
        for owner in &away {
            hopeless.add(*owner, Vote::Refused);
        }
        for owner in away.into_iter().filter(|owner| *owner != own_seat).skip(spare) {
            hopeless.add_stand_in(owner, Vote::Refused);
        }
        if hopeless.outcome() == Verdict::Lost {
            return Err(ballot.hopeless(node, quorum));
        }
        for report in &mut ballot.reports {
            report.outcome = Outcome::Pending;
        }
        Ok(ballot)
    }

    /// The vote of a change that has its event already, among the owners of a newer view. Nobody has been asked yet.
    pub(crate) fn anew(&self, node: &Node, place: &Place, quorum: &Quorum) -> Self {
        let mut ballot = Ballot::over(node, place, quorum, self.started);
        for report in &mut ballot.reports {
            report.outcome = Outcome::Pending;
        }
        ballot
    }

    fn over(node: &Node, place: &Place, quorum: &Quorum, started: Instant) -> Self {
        let owners = place.owners(quorum.n());
        let down = |owner: &NodeId| *owner != node.id() && node.liveness().is_down(*owner);
        Ballot {
            tally: Tally::new(owners, quorum.of_write(), quorum.sloppy()),
            reports: owners
                .all()
                .into_iter()
                .map(|owner| {
                    let outcome = if down(&owner) { Outcome::Down } else { Outcome::NotAsked };
                    ReplicaReport { node: owner.0, stands_in_for: None, outcome, micros: 0 }
                })
                .collect(),
            hinted: Vec::new(),
            unhinted: Vec::new(),
            started,
            sets: sets(place.owners(quorum.n())),
            epoch: place.epoch(),
        }
    }

    fn hopeless(&self, node: &Node, quorum: &Quorum) -> Failure {
        let owners = self.reports.len();
        let reachable =
            self.reports.iter().filter(|report| report.outcome != Outcome::Down).count();
        let needed = match (quorum.sloppy(), quorum.pw()) {
            (true, 0) => format!("{} acknowledgements are needed", quorum.w()),
            (true, pw) => {
                format!("{} acknowledgements are needed, {pw} of them from owners", quorum.w())
            }
            (false, _) => format!("{} acknowledgements of owners are needed", quorum.w()),
        };
        let rest = if quorum.sloppy() { ", and too few fallbacks" } else { "" };
        let both = self.where_counted();
        Failure {
            code: ErrorCode::WriteQuorumNotMet,
            effect: Effect::NotApplied,
            got: 0,
            needed: quorum.w(),
            retry_after_ms: 0,
            detail: format!(
                "{needed} and {reachable} of {owners} owners can be reached{rest}{both}"
            ),
            receipt: Some(Box::new(self.receipt(node, quorum))),
        }
    }

    /// Counts an owner's vote.
    pub(crate) fn count(&mut self, owner: NodeId, vote: Vote) {
        self.tally.add(owner, vote);
        if canary::is_on(Canary::CountJoining)
            && let [old, new] = &self.sets[..]
            && !old.contains(&owner)
            && let Some(leaving) = old.iter().find(|old| !new.contains(old))
        {
            self.tally.add(*leaving, vote);
        }
    }

    /// Seats that have acknowledged; while the partition moves, those in the set that has fewer.
    pub(crate) fn acks(&self) -> u8 {
        let acked = |set: &Vec<NodeId>| {
            let acks = set.iter().filter(|owner| self.tally.has_acked(**owner)).count();
            u8::try_from(acks).expect("a partition has at most 16 owners")
        };
        self.sets.iter().map(acked).min().unwrap_or(0)
    }

    /// Owners that have acknowledged themselves; while the partition moves, those in the set that has fewer.
    pub(crate) fn owner_acks(&self) -> usize {
        let acked = |owner: &&NodeId| {
            let mut reports = self.reports.iter();
            reports.any(|report| {
                let own = report.node == owner.0 && report.stands_in_for.is_none();
                own && matches!(report.outcome, Outcome::Durable | Outcome::Written)
            })
        };
        self.sets.iter().map(|set| set.iter().filter(acked).count()).min().unwrap_or(0)
    }

    /// What to add to an error about numbers that must be reached twice.
    pub(crate) fn where_counted(&self) -> &'static str {
        if self.sets.len() > 1 { BOTH_SETS } else { "" }
    }

    /// Every owner once, in the order of the view.
    pub(crate) fn owners(&self) -> Vec<NodeId> {
        let owners = self.reports.iter().filter(|report| report.stands_in_for.is_none());
        owners.map(|report| NodeId(report.node)).collect()
    }

    /// Notes that whoever has not answered yet, but for this node, was silent for too long: who it is, and the owner in
    /// whose seat it was asked.
    pub(crate) fn give_up(&mut self, me: NodeId) -> Vec<(NodeId, NodeId)> {
        let pending = self.reports.iter_mut().filter(|report| report.outcome == Outcome::Pending);
        pending
            .filter(|report| report.node != me.0)
            .map(|report| {
                report.outcome = Outcome::Silent;
                (NodeId(report.node), NodeId(report.stands_in_for.unwrap_or(report.node)))
            })
            .collect()
    }

    /// Whether somebody who was asked to stand in for this owner may still answer.
    pub(crate) fn may_be_stood_in_for(&self, owner: NodeId) -> bool {
        let mut reports = self.reports.iter();
        reports.any(|report| report.stands_in_for == Some(owner.0) && is_open(report.outcome))
    }

    /// Whoever has not answered yet has not answered in time.
    pub(crate) fn time_is_over(&mut self) {
        for report in &mut self.reports {
            if report.outcome == Outcome::Pending {
                report.outcome = Outcome::Silent;
            }
        }
    }

    /// A fallback is asked to stand in for an owner.
    pub(crate) fn stands_in(&mut self, node: NodeId, owner: NodeId) {
        let (stands_in_for, outcome) = (Some(owner.0), Outcome::Pending);
        self.reports.push(ReplicaReport { node: node.0, stands_in_for, outcome, micros: 0 });
    }

    pub(crate) fn note(&mut self, node: NodeId, outcome: Outcome, now: Instant) {
        let now = micros(self.started, now);
        let is_ack = |outcome| matches!(outcome, Outcome::Durable | Outcome::Written);
        if let Some(report) = self.reports.iter_mut().find(|report| report.node == node.0)
            && (is_ack(outcome) || !is_ack(report.outcome))
        // what was counted stays on the receipt
        {
            report.outcome = outcome;
            report.micros = now;
        }
        if is_ack(outcome) {
            self.unhinted.retain(|owner| *owner != node.0); // late, and it has not missed the write
        }
    }

    /// A hint for this owner is on stable storage, here or at a fallback.
    pub(crate) fn hinted(&mut self, owner: NodeId) {
        if !self.hinted.contains(&owner.0) {
            self.hinted.push(owner.0);
        }
        self.unhinted.retain(|unhinted| *unhinted != owner.0); // a fallback was late, not full
    }

    /// No hint could be kept for this owner.
    pub(crate) fn unhinted(&mut self, owner: NodeId) {
        if !self.hinted.contains(&owner.0) {
            self.unhinted.push(owner.0);
        }
    }

    pub(crate) fn receipt(&self, node: &Node, quorum: &Quorum) -> Receipt {
        Receipt {
            epoch: self.epoch,
            coordinator: node.id().0,
            n: quorum.n(),
            needed: quorum.w(),
            owners_needed: quorum.pw(),
            durable_needed: quorum.dw(),
            replicas: self.reports.clone(),
            hinted: self.hinted.clone(),
            unhinted: self.unhinted.clone(),
            repaired: Vec::new(),
            trace: None,
        }
    }
}

/// The rule while a partition moves.
pub(crate) const BOTH_SETS: &str = "; the partition is moving, and the number is needed among its old owners and among its new ones";

/// Whether a replica with this outcome may still answer.
pub(crate) fn is_open(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Pending | Outcome::Silent)
}
