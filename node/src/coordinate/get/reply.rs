//! What the client of a read hears: what was found, or why too few have answered.

use atoll_antientropy::State;
use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode, Failure, Found, Outcome, Receipt, Repair, ReplicaReport};
use bytes::Bytes;

use super::{Read, Who, encoded};
use crate::coordinate::{LEFT_BEHIND, ballot::BOTH_SETS};

impl Read {
    /// Owners whose answer is not this state, and those whose record is damaged. A hint is not improved.
    pub(super) fn behind(&self, state: &Bytes) -> Vec<NodeId> {
        let answered = self.answers.iter().filter(|(_, answer)| answer != state);
        let behind = answered.filter_map(|(who, _)| match who {
            Who::Owner(owner) => Some(*owner),
            Who::StandIn(..) => None,
        });
        let damaged = self.reports.iter().filter(|report| {
            let owner = report.stands_in_for.is_none();
            owner && report.outcome == Outcome::Corrupt && !self.repaired.contains(&report.node)
        });
        let damaged = damaged.map(|report| NodeId(report.node));
        match state.is_empty() {
            true => Vec::new(), // nothing was found that anybody could lack
            false => behind.chain(damaged).collect(),
        }
    }

    /// Joins what came, answers, and mends in the background whoever was behind.
    pub(super) fn found(mut self, joined: State) -> Found {
        let state = encoded(&joined);
        let behind = self.behind(&state);
        let was_behind = self.answers.iter().filter(|(_, answer)| *answer != state);
        let was_behind: Vec<u32> = was_behind.map(|(who, _)| who.node().0).collect();
        for report in &mut self.reports {
            let was_behind =
                was_behind.contains(&report.node) || self.repaired.contains(&report.node);
            if was_behind && report.outcome == Outcome::Current {
                report.outcome = Outcome::Behind;
            }
        }
        let unfinished = !behind.is_empty() || !self.asked.is_empty();
        let room = match self.reader.repair != Repair::None && unfinished {
            true => self.node.room_to_mend(),
            false => None,
        };
        if room.is_some() {
            self.repaired.extend(behind.iter().map(|owner| owner.0));
        }
        let receipt = self.receipt();

        let reading = joined.read(self.node.clock().wall_ms());
        let found = Found {
            context: self.place.seal(&self.node, joined.context()),
            receipt,
            reading: reading.encode().into(),
        };
        if let Some(room) = room {
            let node = self.node.clone();
            node.spawn(async move {
                self.mend(joined, behind).await;
                drop(room);
            });
        }
        found
    }

    /// The join of all answers. Equal bytes are equal states, so they are decoded once.
    pub(super) fn joined(&self) -> Result<State, Failure> {
        let mut joined: Option<State> = None;
        for (index, (who, answer)) in self.answers.iter().enumerate() {
            let seen_before = self.answers[..index].iter().any(|(_, earlier)| earlier == answer);
            if answer.is_empty() || seen_before {
                continue;
            }
            let state = self.node.decoded(self.place.bucket, answer).ok_or_else(|| {
                let detail = format!("{} sent bytes that are no state of the key", who.node());
                Failure::refused(ErrorCode::Internal, detail)
            })?;
            match &mut joined {
                Some(joined) => joined.join(state),
                None => joined = Some(state),
            }
        }
        Ok(joined.unwrap_or_else(|| State::unknown(self.place.kind)))
    }

    pub(super) fn receipt(&self) -> Receipt {
        Receipt {
            epoch: self.place.epoch(),
            coordinator: self.node.id().0,
            n: self.reader.quorum.n(),
            needed: self.reader.quorum.r(),
            owners_needed: self.reader.quorum.pr(),
            durable_needed: 0,
            replicas: self.reports.clone(),
            hinted: Vec::new(),
            unhinted: Vec::new(),
            repaired: self.repaired.clone(),
            trace: None,
        }
    }

    /// Whether no owner has an undamaged record: then "not found" would be a lie, and asking again is of no use.
    fn all_damaged(&self) -> Option<Failure> {
        let owners = || self.reports.iter().filter(|report| report.stands_in_for.is_none());
        let damaged = |report: &ReplicaReport| report.outcome == Outcome::Corrupt;
        let none_counts =
            owners().all(|report| damaged(report) || report.outcome == Outcome::InDoubt);
        // where something could be joined since, all owners hold it and doubt the key
        let any_damage = owners().any(damaged) || self.node.doubt().covers_key(&self.place.row);
        if self.reader.quorum.n() < self.place.bucket_n() || !none_counts || !any_damage {
            return None;
        }
        let partition = self.place.partition.0;
        let detail = format!(
            "every copy of this key is damaged. `atoll debug dump {partition} --node NODE` shows what is left of it, and \
             `atoll repair run {partition} --accept-loss` takes that for the truth"
        );
        Some(Failure {
            needed: self.reader.quorum.r(),
            receipt: Some(Box::new(self.receipt())),
            ..Failure::refused(ErrorCode::Corrupt, detail)
        })
    }

    /// Nobody who could be asked knows all that the session has seen.
    pub(super) fn knows_too_little(&self) -> Failure {
        let missing = self.reader.to_know.without(&self.known);
        let heard: Vec<String> =
            self.answers.iter().map(|(who, _)| who.node().to_string()).collect();
        let detail = format!(
            "the session has seen {missing} of this key, and nobody who could be asked knows it by now ({}). What is missing is \
             on nodes that are out of reach, or was acknowledged with --dw below -w and lost in a crash: wait, `atoll status` \
             shows who is away; or begin a new session, which may then read backwards",
            heard.join(", ")
        );
        Failure {
            got: self.tally.acks(),
            needed: self.reader.quorum.r(),
            receipt: Some(Box::new(self.receipt())),
            ..Failure::refused(ErrorCode::SessionNotSatisfied, detail)
        }
    }

    /// Which answers did not count because of doubt, and what to do about it; for the words of an error.
    fn doubters(&self) -> String {
        let in_doubt = self.reports.iter().filter(|report| report.outcome == Outcome::InDoubt);
        let names: Vec<String> = in_doubt.map(|report| NodeId(report.node).to_string()).collect();
        match names.len() {
            0 => String::new(),
            1 => format!(
                "; {} has lost data, and its answer does not count until it was compared with the other owners: wait, `atoll \
                 repair status` shows how far it is",
                names[0]
            ),
            _ => format!(
                "; {} have lost data, and their answers do not count until they were compared with the other owners: wait, \
                 `atoll repair status` shows how far they are",
                names.join(" and ")
            ),
        }
    }

    pub(super) fn not_met(mut self, code: ErrorCode) -> Failure {
        if code == ErrorCode::DeadlinePassed {
            for report in &mut self.reports {
                if report.outcome == Outcome::Pending {
                    report.outcome = Outcome::Silent;
                }
            }
        }
        if let Some(failure) = self.all_damaged() {
            return failure;
        }
        let acked = |set: &Vec<NodeId>| {
            let acks = set.iter().filter(|owner| self.tally.has_acked(**owner)).count();
            u8::try_from(acks).expect("a partition has at most 16 owners")
        };
        let got = self.sets.iter().map(acked).min().unwrap_or(0);
        let both = if self.sets.len() > 1 { BOTH_SETS } else { "" };
        let answered = |owner: &&NodeId| {
            self.reports.iter().any(|report| {
                let own = report.node == owner.0 && report.stands_in_for.is_none();
                own && report.outcome == Outcome::Current
            })
        };
        let owners = self.sets.iter().map(|set| set.iter().filter(answered).count());
        let of_owners = match (self.reader.quorum.sloppy(), self.reader.quorum.pr()) {
            (true, pr @ 1..) => {
                format!(", {} of {pr} from owners (--pr)", owners.min().unwrap_or(0))
            }
            (true, 0) | (false, _) => String::new(),
        };
        let when = match code {
            ErrorCode::DeadlinePassed => "in time",
            ErrorCode::StaleView => LEFT_BEHIND,
            _ => "and no more can come",
        };
        Failure {
            code,
            effect: Effect::NotApplied,
            got,
            needed: self.reader.quorum.r(),
            retry_after_ms: 0,
            detail: format!(
                "{got} of {} answers {when}{of_owners}{both}{}",
                self.reader.quorum.r(),
                self.doubters()
            ),
            receipt: Some(Box::new(self.receipt())),
        }
    }
}
