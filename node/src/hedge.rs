//! When a read asks one owner more than it needs, and how often it may.
//!
//! A read asks as many owners as it needs answers from. If one of them is slower than 19 of 20 answers were lately, the
//! next owner is asked too, and the first answers count (Dean and Barroso, "The Tail at Scale", 2013, "hedged requests").
//! That cuts the tail, and it must not feed an overload: hedges are paid from a purse into which each read puts a
//! twentieth, so they are never more than 5 % of the reads.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::measured::Histogram;

/// Reads that pay for one hedge: 5 %.
const READS_PER_HEDGE: u32 = 20;

/// Most hedges saved up, so that a burst of slow answers after a long calm does not double the load.
const SAVED_MAX: u32 = 10;

/// Answers that must have been seen before anything is called slow.
const SAMPLES_MIN: u16 = 64;

/// How long answers of owners take, and what is in the purse.
#[derive(Default)]
pub(crate) struct Hedge {
    state: Mutex<State>,
    sent: AtomicU64,
}

#[derive(Default)]
struct State {
    answers: Histogram,
    /// In reads.
    purse: u32,
}

impl Hedge {
    /// A read asks other owners: pays its twentieth, and hears how long to wait for them. None until enough is known.
    pub(crate) fn begin(&self) -> Option<Duration> {
        let mut state = self.state.lock().expect("no panic holds it");
        state.purse = (state.purse + 1).min(SAVED_MAX * READS_PER_HEDGE);
        state.p95()
    }

    /// An owner has answered after this time.
    pub(crate) fn answered(&self, after: Duration) {
        let mut state = self.state.lock().expect("no panic holds it");
        state.answers.add(after);
    }

    /// Takes a hedge out of the purse, if there is one.
    pub(crate) fn take(&self) -> bool {
        let mut state = self.state.lock().expect("no panic holds it");
        let Some(left) = state.purse.checked_sub(READS_PER_HEDGE) else { return false };
        state.purse = left;
        self.sent.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Hedges sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl State {
    /// A time that 19 of 20 of the latest answers did not exceed, a quarter too long at most.
    fn p95(&self) -> Option<Duration> {
        if self.answers.total() < SAMPLES_MIN {
            return None;
        }
        self.answers.all_but_one_in(20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Whatever the times are, the patience lies at or above the exact p95 and at most a quarter above it.
    #[test]
    fn patience_is_the_observed_p95() {
        for scale in [3, 40, 1_000, 70_000] {
            let hedge = Hedge::default();
            let mut times: Vec<u64> = (0..500).map(|i| scale + i * i % 997 * scale / 100).collect();
            for time in &times {
                hedge.answered(Duration::from_micros(*time));
            }
            times.sort_unstable();
            let exact = Duration::from_micros(times[500 - 500 / 20 - 1]);
            let p95 = hedge.begin().expect("500 samples");
            assert!(exact <= p95 && p95 <= exact * 5 / 4, "{exact:?} {p95:?} at {scale}");
        }
    }

    /// Nothing is slow until there is something to compare with; what is long past counts less and less.
    #[test]
    fn patience_follows_the_present() {
        let hedge = Hedge::default();
        for _ in 1..SAMPLES_MIN {
            hedge.answered(ms(1));
        }
        assert_eq!(hedge.begin(), None);
        hedge.answered(ms(1));
        assert!(hedge.begin().expect("enough") < ms(2));
        for _ in 0..20_000 {
            hedge.answered(ms(100));
        }
        assert!(hedge.begin().expect("enough") >= ms(100));
        for _ in 0..20_000 {
            hedge.answered(ms(1));
        }
        assert!(hedge.begin().expect("enough") < ms(2));
    }

    /// At most one hedge for twenty reads, however many want one and whenever; a long calm saves up ten.
    #[test]
    fn hedges_are_at_most_a_twentieth() {
        let hedge = Hedge::default();
        for reads in 1..=10_000_u64 {
            hedge.begin();
            hedge.take();
            assert!(hedge.sent() * 20 <= reads, "{} hedges for {reads} reads", hedge.sent());
        }
        assert_eq!(hedge.sent(), 500);
        for _ in 0..10_000 {
            hedge.begin();
        }
        let saved = (0..100).filter(|_| hedge.take()).count();
        assert_eq!(saved, 10);
    }
}
