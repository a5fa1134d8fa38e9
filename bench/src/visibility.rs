//! P(fresh | t): how probably a read shows everything that was acknowledged, by the time since the last acknowledgement.
//!
//! For each judged read, t is the time from the **newest** acknowledgement of its key to the moment the read was sent,
//! both by the one monotonic clock of the load generator; nobody's wall clock and no node's clock takes part. The read
//! is **fresh** if it misses nothing acknowledged before it was sent (see [`History`](crate::History)). Reads fall into
//! a logarithmic grid of t, so a millisecond and a minute have their place in the same small table.
//!
//! **Which of several acknowledged writes counts?** Let C be all writes of the key acknowledged before the read. After
//! Bailis et al. (Probabilistically Bounded Staleness, VLDB 2012, section 2.2, t-visibility) one asks after one write;
//! here keys have many. We take t from the newest ack in C, and call the read fresh only if it misses *none* of C. With
//! one writer per key, the default, that is the same as asking after the newest write alone, because its context covers
//! all earlier ones. With shared keys it is stricter: a read that shows the newest write and misses an older concurrent
//! one is stale, at the newest one's t. So each judged read stands in exactly one bucket, the buckets add up to the
//! run's `judged` and `fresh`, and P at a small t is never flattered; it may be too low where many write one key.
//!
//! Reads that overlap a write are not judged by that write: it was not acknowledged when they began.
//!
//! **Cost.** A binary search among 49 bounds per read; 50 buckets whatever the run.

use std::time::Duration;

use serde::Serialize;

/// Judged reads by the time since the newest acknowledgement of their key.
#[derive(Clone, Debug)]
pub(crate) struct Visibility {
    /// In microseconds, ascending. Bucket `i` ends below bound `i`; the last bucket has no end.
    bounds: Vec<u64>,
    buckets: Vec<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    reads: u64,
    fresh: u64,
}

/// One bucket of the grid: reads that were sent `t_from_us <= t < t_to_us` after the newest acknowledgement of their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FreshAfter {
    /// Microseconds.
    pub t_from_us: u64,
    /// Microseconds; `None`: for ever.
    pub t_to_us: Option<u64>,
    /// Judged reads.
    pub reads: u64,
    /// Of those, the ones that missed nothing.
    pub fresh: u64,
}

/// Buckets from one power of ten to the next.
pub const BUCKETS_PER_DECADE: u32 = 8;

/// Where the grid begins; below it is one bucket.
const FIRST_BOUND_US: f64 = 100.0;

/// From 100 µs to 100 s; above it is one bucket.
const DECADES: u32 = 6;

impl Visibility {
    /// No reads yet.
    pub fn new() -> Visibility {
        let steps = 0..=DECADES * BUCKETS_PER_DECADE;
        let bounds: Vec<u64> = steps
            .map(|step| f64::from(step) / f64::from(BUCKETS_PER_DECADE))
            .map(|decade| (FIRST_BOUND_US * 10f64.powf(decade)).round() as u64)
            .collect();
        let buckets = vec![Counts::default(); bounds.len() + 1];
        Visibility { bounds, buckets }
    }

    /// A read was judged.
    pub fn add(&mut self, since_ack: Duration, fresh: bool) {
        let micros = u64::try_from(since_ack.as_micros()).unwrap_or(u64::MAX);
        let bucket = &mut self.buckets[self.bounds.partition_point(|bound| *bound <= micros)];
        bucket.reads += 1;
        bucket.fresh += u64::from(fresh);
    }

    /// The buckets that hold reads, in the order of t.
    pub fn buckets(&self) -> Vec<FreshAfter> {
        let froms = std::iter::once(0).chain(self.bounds.iter().copied());
        let tos = self.bounds.iter().copied().map(Some).chain([None]);
        (froms.zip(tos).zip(&self.buckets))
            .filter(|(_, counts)| counts.reads > 0)
            .map(|((t_from_us, t_to_us), Counts { reads, fresh })| FreshAfter {
                t_from_us,
                t_to_us,
                reads: *reads,
                fresh: *fresh,
            })
            .collect()
    }
}

impl FreshAfter {
    /// The same reads in buckets twice as wide, four per decade: enough for people.
    pub fn in_pairs(buckets: &[FreshAfter]) -> Vec<FreshAfter> {
        let edges: Vec<u64> = Visibility::new().bounds.into_iter().step_by(2).collect();
        let mut wide: Vec<FreshAfter> = Vec::new();
        for FreshAfter { t_from_us, t_to_us: _, reads, fresh } in buckets.iter().copied() {
            let after = edges.partition_point(|edge| *edge <= t_from_us);
            let from = after.checked_sub(1).map_or(0, |before| edges[before]);
            match wide.last_mut().filter(|last| last.t_from_us == from) {
                Some(last) => {
                    last.reads += reads;
                    last.fresh += fresh;
                }
                None => wide.push(FreshAfter {
                    t_from_us: from,
                    t_to_us: edges.get(after).copied(),
                    reads,
                    fresh,
                }),
            }
        }
        wide
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two neighbours become one, with the outer bounds of both also if one of them is empty; what lies below and above
    /// the grid stays alone.
    #[test]
    fn neighbours_are_paired() {
        let mut seen = Visibility::new();
        for (micros, fresh) in
            [(0, true), (100, false), (140, true), (1500, false), (200_000_000, true)]
        {
            seen.add(Duration::from_micros(micros), fresh);
        }
        let wide: Vec<_> = FreshAfter::in_pairs(&seen.buckets())
            .into_iter()
            .map(|bucket| (bucket.t_from_us, bucket.t_to_us, bucket.reads, bucket.fresh))
            .collect();
        let expected = [
            (0, Some(100), 1, 1),
            (100, Some(178), 2, 1),
            (1000, Some(1778), 1, 0),
            (100_000_000, None, 1, 1),
        ];
        assert_eq!(wide, expected);
    }

    /// Where a read falls, by its t in microseconds: a bound belongs to the bucket that it begins.
    #[test]
    fn a_read_falls_into_its_bucket() {
        let check = |micros: u64, from: u64, to: Option<u64>| {
            let mut seen = Visibility::new();
            seen.add(Duration::from_micros(micros), true);
            let expected = FreshAfter { t_from_us: from, t_to_us: to, reads: 1, fresh: 1 };
            assert_eq!(seen.buckets(), [expected], "{micros} µs");
        };
        check(0, 0, Some(100));
        check(99, 0, Some(100));
        check(100, 100, Some(133));
        check(132, 100, Some(133));
        check(133, 133, Some(178));
        check(999, 750, Some(1000));
        check(1000, 1000, Some(1334));
        check(99_999_999, 74_989_421, Some(100_000_000));
        check(100_000_000, 100_000_000, None);
        check(u64::MAX, 100_000_000, None);
    }

    /// Fresh and stale reads of one bucket are told apart, buckets come in order, empty ones are left out.
    #[test]
    fn reads_are_counted_by_bucket() {
        let mut seen = Visibility::new();
        assert_eq!(seen.buckets(), []);
        for (millis, fresh) in [(20, true), (1, false), (1, true), (1, true), (20, true)] {
            seen.add(Duration::from_millis(millis), fresh);
        }
        let counts: Vec<(u64, u64)> = seen.buckets().iter().map(|b| (b.reads, b.fresh)).collect();
        assert_eq!(counts, [(3, 2), (2, 2)]);
    }

    /// The buckets leave no gap, and ten times as far is eight buckets on.
    #[test]
    fn the_grid_has_no_gaps() {
        let mut seen = Visibility::new();
        let bounds = seen.bounds.clone();
        std::iter::once(0).chain(bounds.clone()).for_each(|micros| {
            seen.add(Duration::from_micros(micros), true);
        });
        let buckets = seen.buckets();
        assert_eq!(buckets.len(), 50);
        for pair in buckets.windows(2) {
            assert_eq!(pair[0].t_to_us, Some(pair[1].t_from_us));
        }
        for (low, high) in bounds.iter().zip(&bounds[BUCKETS_PER_DECADE as usize..]) {
            assert!(high.abs_diff(low * 10) <= 10, "{low} {high}");
        }
    }
}
