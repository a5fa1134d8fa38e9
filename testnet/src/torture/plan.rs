//! What goes wrong, drawn. The same seed, length, nodes and kinds give the same plan.
//!
//! Steps may overlap: a node is killed while another one is cut off. Three rules hold in every plan, and a test looks at many:
//! nothing is done to a node that something is being done to already; no more than three steps last at the same time; and a
//! wipe begins when nothing else lasts, long enough after the wipe before it for what it cost to be mended.

use std::{fmt, time::Duration};

use atoll_ring::NodeId;
use atoll_transport::chance::Chance;

use super::harm::{Harm, HarmKind};

/// What goes wrong in the course of a torture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their beginnings.
    pub steps: Vec<Step>,
}

/// One thing that goes wrong for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Since the beginning of the load.
    pub at: Duration,
    /// Until it is undone.
    pub lasts: Duration,
    /// What.
    pub harm: Harm,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.1} s", self.harm, self.lasts.as_secs_f64())
    }
}

impl Plan {
    /// What goes wrong in so long a time with these nodes, in these ways. Nothing, if there are no ways.
    #[must_use]
    pub fn draw(seed: u64, length: Duration, nodes: &[NodeId], kinds: &[HarmKind]) -> Plan {
        let mut drawing = Drawing {
            chance: Chance::of_seed(seed),
            nodes,
            kinds,
            end: ms(length.saturating_sub(LAST_CALM)),
            now: ms(FIRST_CALM),
            next_wipe: ms(FIRST_CALM),
            lasting: Vec::new(),
        };
        let mut steps = Vec::new();
        while let Some(step) = drawing.next() {
            steps.push(step);
        }
        Plan { steps }
    }
}

impl HarmKind {
    /// How often it is drawn, beside the others.
    fn weight(self) -> u64 {
        match self {
            HarmKind::Kill => 5,
            HarmKind::Pause | HarmKind::Partition | HarmKind::Isolate => 3,
            HarmKind::Restart | HarmKind::Wipe | HarmKind::Slow | HarmKind::Flaky => 2,
            HarmKind::Disk | HarmKind::SlowDisk | HarmKind::Clock => 1,
        }
    }

    /// For how long, in milliseconds, from and to.
    fn lasts_ms(self) -> (u64, u64) {
        match self {
            HarmKind::Kill => (200, 12_000),
            HarmKind::Pause => (300, 10_000),
            HarmKind::Restart => (0, 3000),
            HarmKind::Wipe => (200, 8000),
            HarmKind::Partition | HarmKind::Isolate => (500, 15_000),
            HarmKind::Slow | HarmKind::Flaky | HarmKind::SlowDisk => (1000, 12_000),
            HarmKind::Disk | HarmKind::Clock => (1000, 10_000),
        }
    }
}

/// A plan as it is drawn. Times are in milliseconds.
struct Drawing<'a> {
    chance: Chance,
    nodes: &'a [NodeId],
    kinds: &'a [HarmKind],
    end: u64,
    now: u64,
    /// When the next disk may be taken away.
    next_wipe: u64,
    /// Until when what is going on lasts, and to whom it happens.
    lasting: Vec<(u64, Vec<NodeId>)>,
}

impl Drawing<'_> {
    fn next(&mut self) -> Option<Step> {
        loop {
            let pause = match self.chance.below(4) {
                0 => self.chance.below(300),
                _ => self.chance.between(500, 7000),
            };
            self.now += pause;
            let kind = self.kind()?;
            if kind == HarmKind::Wipe {
                // everything else is over by then, and its traces are mended
                let rest = self.lasting.iter().map(|(until, _)| *until).max().unwrap_or(0);
                self.now = self.now.max(rest);
            }
            self.lasting.retain(|(until, _)| *until > self.now);
            if self.lasting.len() >= AT_ONCE_MAX {
                let first = self.lasting.iter().map(|(until, _)| *until).min();
                self.now = first.expect("some last");
                continue;
            }
            let (least, most) = kind.lasts_ms();
            let lasts = self.chance.between(least, most).min(self.end.checked_sub(self.now)?);
            let Some(harm) = self.harm(kind) else { continue };
            let until = self.now + lasts;
            if kind == HarmKind::Wipe {
                self.next_wipe = until + ms(BETWEEN_WIPES);
            }
            self.lasting.push((until, harm.nodes().to_vec()));
            let (at, lasts) = (Duration::from_millis(self.now), Duration::from_millis(lasts));
            return Some(Step { at, lasts, harm });
        }
    }

    fn kind(&mut self) -> Option<HarmKind> {
        let may = |kind: &&HarmKind| **kind != HarmKind::Wipe || self.now >= self.next_wipe;
        let kinds: Vec<HarmKind> = self.kinds.iter().filter(may).copied().collect();
        if kinds.is_empty() {
            self.now = self.next_wipe; // nothing but wipes are wanted
            return (!self.kinds.is_empty()).then_some(HarmKind::Wipe);
        }
        let mut drawn = self.chance.below(kinds.iter().map(|kind| kind.weight()).sum());
        kinds.into_iter().find(|kind| match drawn.checked_sub(kind.weight()) {
            Some(rest) => {
                drawn = rest;
                false
            }
            None => true,
        })
    }

    /// Whom it befalls: mostly one, now and then several, a majority, or all who are left.
    fn harm(&mut self, kind: HarmKind) -> Option<Harm> {
        let wanted = match (kind, self.chance.below(20)) {
            (HarmKind::Wipe | HarmKind::Isolate | HarmKind::Disk | HarmKind::Clock, _) => 1,
            (HarmKind::Partition, _) => self.chance.between(2, 3) as usize,
            (_, 0..=12) => 1,
            (_, 13..=16) => 2,
            (_, 17 | 18) => self.nodes.len() / 2 + 1,
            _ => self.nodes.len(),
        };
        let nodes = self.some_of_the_free(wanted);
        let node = *nodes.first()?;
        let chance = &mut self.chance;
        Some(match kind {
            HarmKind::Kill => Harm::Kill(nodes),
            HarmKind::Pause => Harm::Pause(nodes),
            HarmKind::Restart => Harm::Stop(nodes),
            HarmKind::Wipe => Harm::Wipe(node),
            HarmKind::Partition if nodes.len() < 2 => return None, // that would be an isolation
            HarmKind::Partition | HarmKind::Isolate => {
                let others = self.nodes.iter().filter(|node| !nodes.contains(node));
                let to: Vec<NodeId> = others.copied().collect();
                let oneway = chance.happens(300);
                return (!to.is_empty()).then_some(Harm::Partition { from: nodes, to, oneway });
            }
            HarmKind::Slow => {
                let delay_ms = chance.of(&[5, 40, 40, 150, 400]);
                let jitter_ms = delay_ms / chance.of(&[1, 2, 4]);
                Harm::Slow { nodes, delay_ms, jitter_ms }
            }
            HarmKind::Flaky => {
                let millionths = chance.of(&[10_000, 50_000, 50_000, 200_000]);
                Harm::Flaky { nodes, millionths }
            }
            HarmKind::Disk => Harm::Full(node),
            HarmKind::SlowDisk => Harm::SlowDisk { nodes, slow_ms: chance.of(&[20, 100, 400]) },
            HarmKind::Clock => {
                let ahead_ms = chance.of(&[-HOUR_MS, -300, 300, HOUR_MS]);
                Harm::Clock { node, ahead_ms }
            }
        })
    }

    /// So many nodes to which nothing is being done, or as many as there are.
    fn some_of_the_free(&mut self, wanted: usize) -> Vec<NodeId> {
        let busy = |node: &NodeId| self.lasting.iter().any(|(_, nodes)| nodes.contains(node));
        let mut free: Vec<NodeId> = self.nodes.iter().filter(|n| !busy(n)).copied().collect();
        let mut nodes = Vec::new();
        while nodes.len() < wanted && !free.is_empty() {
            let index = self.chance.below(free.len() as u64) as usize;
            nodes.push(free.remove(index));
        }
        nodes.sort_unstable();
        nodes
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How far a clock is off: so much that nodes refuse to write by it, or less than they notice.
const HOUR_MS: i64 = 3_600_000;

/// Steps that last at the same time.
const AT_ONCE_MAX: usize = 3;

/// From the end of one wipe to the beginning of the next: a node doubts itself for a minute at least.
const BETWEEN_WIPES: Duration = Duration::from_secs(75);

/// A load must have begun before it can be disturbed, and shall see the end of what disturbed it.
const FIRST_CALM: Duration = Duration::from_secs(2);
const LAST_CALM: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn nodes(count: u32) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    /// The same seed draws the same plan, another one another.
    #[test]
    fn a_plan_follows_from_its_seed() {
        let draw = |seed| Plan::draw(seed, Duration::from_secs(600), &nodes(5), &HarmKind::ALL);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).steps.len() > 50, "{}", draw(7).steps.len());
    }

    /// The three rules, and that all ends in time, for many seeds, lengths and sizes.
    #[test]
    fn the_rules_hold_in_every_plan() {
        let mut seen = BTreeSet::new();
        for seed in 0..400 {
            let count = [1, 3, 5, 9][seed as usize % 4];
            let length = Duration::from_secs([5, 20, 120, 900][seed as usize / 4 % 4]);
            let plan = Plan::draw(seed, length, &nodes(count), &HarmKind::ALL);
            let until = |step: &Step| step.at + step.lasts;
            for (index, step) in plan.steps.iter().enumerate() {
                seen.insert(step.harm.kind());
                assert!(until(step) <= length, "seed {seed}: {step}");
                let before = &plan.steps[..index];
                assert!(before.iter().all(|other| other.at <= step.at), "seed {seed}: {step}");
                let lasting: Vec<&Step> =
                    before.iter().filter(|other| until(other) > step.at).collect();
                assert!(lasting.len() < AT_ONCE_MAX, "seed {seed}: {step}");
                let meets = |other: &&Step| {
                    other.harm.nodes().iter().any(|node| step.harm.nodes().contains(node))
                };
                assert!(!lasting.iter().any(meets), "seed {seed}: {step}");
                if let Harm::Wipe(_) = step.harm {
                    assert!(lasting.is_empty(), "seed {seed}: {step}");
                    let mut wipes =
                        before.iter().filter(|other| matches!(other.harm, Harm::Wipe(_)));
                    let apart = |wipe: &Step| until(wipe) + BETWEEN_WIPES <= step.at;
                    assert!(wipes.all(apart), "seed {seed}: {step}");
                }
            }
        }
        assert_eq!(seen, BTreeSet::from(HarmKind::ALL));
    }

    /// Only what was asked for happens; if that is nothing, nothing does.
    #[test]
    fn only_what_is_wanted_happens() {
        for kind in HarmKind::ALL {
            let plan = Plan::draw(3, Duration::from_secs(400), &nodes(5), &[kind]);
            assert!(!plan.steps.is_empty(), "{}", kind.word());
            assert!(plan.steps.iter().all(|step| step.harm.kind() == kind));
            assert_eq!(kind.word().parse(), Ok(kind));
        }
        assert!(Plan::draw(3, Duration::from_secs(400), &nodes(3), &[]).steps.is_empty());
        assert!("kil".parse::<HarmKind>().unwrap_err().contains("kill, pause"));
    }
}
