//! How the requests fare that this node coordinates: how many, how long they take, how many miss what was asked.
//!
//! Counted where they end ([`crate::coordinate`]), whether they came alone or among many; one that was handed over is
//! counted where it was coordinated. Always on and without a lock: an end costs one addition and a look at the clock.
//! All counts are since the start of the node. Whoever wants rates looks twice.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use atoll_wire::{
    ErrorCode, Failure, Found, Outcome, Times,
    times::{TIMES_BUCKETS, bucket},
};

/// All that is counted.
#[derive(Default)]
pub(crate) struct Pace {
    writes: Lap,
    reads: Lap,
    unmet: AtomicU64,
    reads_behind: AtomicU64,
}

impl Pace {
    /// A write was answered as asked, after this time.
    pub(crate) fn wrote(&self, after: Duration) {
        self.writes.add(after);
    }

    /// A read was answered as asked, after this time.
    pub(crate) fn read(&self, after: Duration, found: &Found) {
        self.reads.add(after);
        if found.receipt.replicas.iter().any(|replica| replica.outcome == Outcome::Behind) {
            self.reads_behind.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request was not answered as asked. What is wrong with the request itself does not count.
    pub(crate) fn missed(&self, failure: &Failure) {
        let unmet = matches!(
            failure.code,
            ErrorCode::WriteQuorumNotMet
                | ErrorCode::ReadQuorumNotMet
                | ErrorCode::NoOwnerReachable
                | ErrorCode::DeadlinePassed
                | ErrorCode::StaleView
                | ErrorCode::SessionNotSatisfied
        );
        if unmet {
            self.unmet.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long writes took.
    pub(crate) fn write_times(&self) -> Times {
        self.writes.times()
    }

    /// How long reads took.
    pub(crate) fn read_times(&self) -> Times {
        self.reads.times()
    }

    /// Requests that missed what was asked.
    pub(crate) fn unmet(&self) -> u64 {
        self.unmet.load(Ordering::Relaxed)
    }

    /// Reads in which an owner knew less than was found.
    pub(crate) fn reads_behind(&self) -> u64 {
        self.reads_behind.load(Ordering::Relaxed)
    }
}

/// Requests of one sort, by how long they took.
struct Lap([AtomicU64; TIMES_BUCKETS]);

impl Default for Lap {
    fn default() -> Self {
        Lap([const { AtomicU64::new(0) }; TIMES_BUCKETS])
    }
}

impl Lap {
    fn add(&self, time: Duration) {
        self.0[bucket(time)].fetch_add(1, Ordering::Relaxed);
    }

    fn times(&self) -> Times {
        Times::of(std::array::from_fn(|index| self.0[index].load(Ordering::Relaxed)))
    }
}
