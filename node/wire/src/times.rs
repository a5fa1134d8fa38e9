//! How many requests took how long: counts, four to each doubling of time.
//!
//! Whoever has two of them of one node, an earlier and a later one, knows how the requests between did; whoever has
//! those of several nodes adds them. A quantile alone allows neither.
//!
//! ```text
//!   bucket   0   1   2   3 │ 4    5    6    7   │ 8   …
//!   up to    1¼  1½  1¾  2 │ 2½   3    3½   4   │ 5 µs …   the last: beyond a minute
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many buckets there are: four to each doubling, from 1 µs to beyond a minute.
pub const TIMES_BUCKETS: usize = 4 * 27;

/// Counts of requests by how long they took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Buckets that are not empty, in order, and how many are in each.
    counts: Vec<(u8, u64)>,
}

impl Times {
    /// From the counts of all buckets.
    pub fn of(counts: [u64; TIMES_BUCKETS]) -> Times {
        let all = (0u8..).zip(counts);
        Times { counts: all.filter(|(_, count)| *count > 0).collect() }
    }

    /// How many requests.
    pub fn total(&self) -> u64 {
        self.all().iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// Those since an earlier look at the same node. If it has counted less since, it has begun anew: then all of them.
    #[must_use]
    pub fn since(&self, earlier: &Times) -> Times {
        let (now, before) = (self.all(), earlier.all());
        if now.iter().zip(&before).any(|(now, before)| now < before) {
            return self.clone();
        }
        Times::of(std::array::from_fn(|index| now[index] - before[index]))
    }

    /// These and those of another node.
    #[must_use]
    pub fn and(&self, other: &Times) -> Times {
        let (one, another) = (self.all(), other.all());
        Times::of(std::array::from_fn(|index| one[index].saturating_add(another[index])))
    }

    /// A time that all but one in so many of them did not exceed, a quarter too long at most; none if there are none.
    pub fn all_but_one_in(&self, so_many: u64) -> Option<Duration> {
        let counts = self.all();
        let may_exceed = self.total() / so_many;
        let mut slower: u64 = 0;
        for index in (0..TIMES_BUCKETS).rev() {
            slower = slower.saturating_add(counts[index]);
            if slower > may_exceed {
                return Some(upper_edge(index));
            }
        }
        None
    }

    /// All buckets. What travelled here may name one twice, or one that does not exist.
    fn all(&self) -> [u64; TIMES_BUCKETS] {
        let mut all = [0u64; TIMES_BUCKETS];
        for (index, count) in &self.counts {
            if let Some(sum) = all.get_mut(usize::from(*index)) {
                *sum = sum.saturating_add(*count);
            }
        }
        all
    }
}

/// The bucket of a time.
pub fn bucket(time: Duration) -> usize {
    let micros = time.as_micros().max(1);
    let octave = micros.ilog2() as usize;
    let quarter = (micros * 4) >> octave & 3; // the two bits below the leading one
    (octave * 4 + quarter as usize).min(TIMES_BUCKETS - 1)
}

/// The time that nothing in the bucket exceeds, but in the last.
pub fn upper_edge(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket / 4, bucket as u64 % 4);
    Duration::from_nanos((1000 << octave) + (1000 << octave) / 4 * (quarter + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: impl IntoIterator<Item = u64>) -> Times {
        let mut counts = [0; TIMES_BUCKETS];
        micros.into_iter().for_each(|micros| counts[bucket(Duration::from_micros(micros))] += 1);
        Times::of(counts)
    }

    /// Edges and buckets fit each other over the whole range.
    #[test]
    fn every_time_lies_below_the_edge_of_its_bucket() {
        for micros in (0..20_000).chain((0..60).map(|second| second * 1_000_000)) {
            let time = Duration::from_micros(micros);
            assert!(time <= upper_edge(bucket(time)), "{micros}");
            assert!(bucket(time) == 0 || upper_edge(bucket(time) - 1) <= time, "{micros}");
        }
    }

    /// Those of a while are what came between two looks; a node that begins anew has no past; several nodes are a sum.
    #[test]
    fn whiles_and_sums() {
        let (before, after) = (times([100; 90]), times([100; 90].into_iter().chain([5_000; 10])));
        let between = after.since(&before);
        assert_eq!(between, times([5_000; 10]));
        assert_eq!(before.since(&after), before, "fewer than before: it was restarted");
        assert_eq!(before.and(&between), after);
        assert_eq!((after.total(), after.since(&after)), (100, Times::default()));
    }

    /// Half of 100 took 100 µs at most and 99 of them 5 ms; of none nothing can be said.
    #[test]
    fn quantiles() {
        let times = times([100; 98].into_iter().chain([5_000, 70_000]));
        let close = |found: Option<Duration>, micros: u64| {
            let (found, exact) = (found.expect("100 samples"), Duration::from_micros(micros));
            assert!(exact <= found && found <= exact * 5 / 4, "{found:?} {exact:?}");
        };
        close(times.all_but_one_in(2), 100);
        close(times.all_but_one_in(100), 5_000);
        close(times.all_but_one_in(1000), 70_000);
        assert_eq!(Times::default().all_but_one_in(2), None);
    }

    /// Whatever arrives over the wire is read without a panic: buckets twice, out of order, beyond the end, counts without end.
    #[test]
    fn nonsense_is_borne() {
        let odd = Times { counts: vec![(200, 1), (7, u64::MAX), (7, 5), (3, u64::MAX)] };
        assert_eq!(odd.total(), u64::MAX);
        assert!(odd.all_but_one_in(2).is_some());
        assert_eq!(odd.and(&odd).total(), u64::MAX);
        assert_eq!(odd.since(&odd), Times::default());
    }
}
