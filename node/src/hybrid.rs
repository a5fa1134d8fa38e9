//! The clock that stamps `lww` values, and whether this node may use it.
//!
//! A stamp is wall time and a count (Kulkarni and others, "Logical physical clocks", 2014, section 3): it never goes back on
//! a node, however its wall clock jumps, and `antientropy` puts it behind the stamp of the value that it replaces. It decides
//! between concurrent writes in buckets whose owner asked for that, and nowhere else.
//!
//! A node whose clock is far ahead would win against everybody for as long as it is ahead. So each node compares its wall
//! clock with the others' (a pong brings theirs) and with its own clock that never jumps. If it is further off than a bound
//! from the middle of all, its own counted, it takes no `lww` writes and says so in its status. Of two nodes nobody can say
//! which is off; both go on.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use atoll_antientropy::Hybrid;
use atoll_ring::NodeId;
use atoll_wire::{ErrorCode, Failure};
use tokio::time::Instant;

use crate::Clock;

/// How far a node's clock may be from the others': 500 ms unless its settings say otherwise. It bounds how far a late
/// write of a clock that is behind can lose against an earlier one. Less asks for well-kept clocks; a round trip that is
/// slower in one direction looks like a clock that is off by half of the difference.
pub const CLOCK_BOUND: Duration = Duration::from_millis(500);

/// The hybrid clock of a node.
pub(crate) struct HybridClock {
    bound: Duration,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The last stamp that was given.
    last: Hybrid,
    /// By how many milliseconds our wall clock was ahead of each other node's, and when we compared.
    compared: BTreeMap<NodeId, Compared>,
}

#[derive(Clone, Copy)]
struct Compared {
    ahead_ms: i64,
    at: Instant,
    wall_ms: u64,
}

impl HybridClock {
    pub(crate) fn new(bound: Duration) -> Self {
        HybridClock { bound, seen: Mutex::default() }
    }

    /// The next stamp, behind every one that was given here.
    pub(crate) fn stamp(&self, wall_ms: u64) -> Hybrid {
        let mut seen = self.seen.lock().expect("no panic holds it");
        seen.last = Hybrid::next_after(seen.last, wall_ms);
        seen.last
    }

    /// Another node's wall clock showed this, half a round trip ago.
    pub(crate) fn compare(
        &self,
        peer: NodeId,
        their_wall_ms: u64,
        round_trip: Duration,
        clock: &dyn Clock,
    ) {
        let (at, wall_ms) = (clock.now(), clock.wall_ms());
        let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let ahead_ms = difference(wall_ms, their_wall_ms).saturating_sub(half);
        let mut seen = self.seen.lock().expect("no panic holds it");
        seen.compared.insert(peer, Compared { ahead_ms, at, wall_ms });
    }

    /// These are the others from now on.
    pub(crate) fn follow(&self, others: &[NodeId]) {
        let mut seen = self.seen.lock().expect("no panic holds it");
        seen.compared.retain(|peer, _| others.contains(peer));
    }

    /// By how many milliseconds our wall clock is ahead of the middle of all clocks, ours counted. What it has jumped by since
    /// we compared is seen at once, because the other clock does not jump.
    pub(crate) fn ahead_ms(&self, clock: &dyn Clock) -> i64 {
        let (now, wall_ms) = (clock.now(), clock.wall_ms());
        let seen = self.seen.lock().expect("no panic holds it");
        let mut ahead = vec![0];
        for compared in seen.compared.values() {
            let passed = now.saturating_duration_since(compared.at).as_millis();
            let passed = i64::try_from(passed).unwrap_or(i64::MAX);
            let jumped = difference(wall_ms, compared.wall_ms).saturating_sub(passed);
            ahead.push(compared.ahead_ms.saturating_add(jumped));
        }
        ahead.sort_unstable();
        let middle = ahead.len() / 2;
        match ahead.len() % 2 {
            1 => ahead[middle],
            // of the two in the middle the one that accuses nobody
            _ => std::cmp::min_by_key(ahead[middle - 1], ahead[middle], |ms| ms.unsigned_abs()),
        }
    }

    /// Why this node may stamp nothing; empty = it may.
    pub(crate) fn why_not(&self, clock: &dyn Clock) -> String {
        let ahead = self.ahead_ms(clock);
        if u128::from(ahead.unsigned_abs()) <= self.bound.as_millis() {
            return String::new();
        }
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        format!(
            "its clock is {} ms {way} the others', at most {} ms are allowed (clock_bound_ms)",
            ahead.unsigned_abs(),
            self.bound.as_millis()
        )
    }

    /// Whether this node may stamp a value.
    pub(crate) fn check(&self, me: NodeId, clock: &dyn Clock) -> Result<(), Failure> {
        let why_not = self.why_not(clock);
        if why_not.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "{me} takes no writes that go by time: {why_not}; set its clock, or ask another node"
        );
        Err(Failure::refused(ErrorCode::ClockOff, detail))
    }
}

fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(if a > b { i64::MAX } else { i64::MIN })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimulatedClock;

    const BOUND: Duration = Duration::from_millis(500);

    /// Whose clock is off is told by the middle of all: one that is off does not make the others refuse, and of two nobody
    /// can say.
    #[tokio::test(start_paused = true)]
    async fn the_middle_tells_whose_clock_is_off() {
        let check = |others_ahead_of_us: &[i64], refuses: bool| {
            let clock = SimulatedClock::starting_at(1_000_000);
            let hybrid = HybridClock::new(BOUND);
            for (index, ms) in others_ahead_of_us.iter().enumerate() {
                let theirs = 1_000_000_u64.saturating_add_signed(*ms);
                hybrid.compare(NodeId(index as u32 + 2), theirs, Duration::ZERO, &clock);
            }
            let refused = hybrid.check(NodeId(1), &clock).is_err();
            assert_eq!(refused, refuses, "{others_ahead_of_us:?}");
        };
        check(&[], false);
        check(&[3_600_000], false); // one of us is off, and nobody knows who
        check(&[3_600_000, 3_600_001], true);
        check(&[3_600_000, 1], false);
        check(&[-501, -700], true);
        check(&[-500, -700], false); // at the bound
        check(&[600, 600, 0, 0], false);
        check(&[600, 600, 600, 0], true);
    }

    /// A jump is seen before anybody is asked again, and when the clock is set right it is over.
    #[tokio::test(start_paused = true)]
    async fn a_jump_is_seen_at_once() {
        let clock = SimulatedClock::starting_at(1_000_000);
        let hybrid = HybridClock::new(BOUND);
        for peer in [2, 3] {
            hybrid.compare(NodeId(peer), 1_000_000, Duration::ZERO, &clock);
        }
        assert!(hybrid.check(NodeId(1), &clock).is_ok());
        clock.jump(3_600_000);
        let failure = hybrid.check(NodeId(1), &clock).expect_err("an hour ahead");
        assert_eq!(failure.code, ErrorCode::ClockOff);
        assert!(failure.detail.contains("3600000 ms ahead"), "{}", failure.detail);
        clock.jump(-3_600_000);
        assert!(hybrid.check(NodeId(1), &clock).is_ok());
    }

    /// Stamps rise, however the wall clock jumps.
    #[test]
    fn stamps_never_go_back() {
        let hybrid = HybridClock::new(BOUND);
        let stamps = [1000, 1000, 999, 5, 1001, 1001].map(|wall_ms| hybrid.stamp(wall_ms));
        assert!(stamps.windows(2).all(|two| two[0] < two[1]), "{stamps:?}");
        assert_eq!(stamps[0].ms(), 1000);
        assert_eq!(stamps[4].ms(), 1001);
    }
}
