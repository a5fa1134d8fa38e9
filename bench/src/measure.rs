//! What is counted while the load runs. All workers share one, in one thread.

use std::{collections::BTreeMap, time::Duration};

use atoll_client::{Effect, GetReply, RequestError};
use hdrhistogram::Histogram;

use crate::{
    Verdict,
    session::{Kept, Violations},
    visibility::Visibility,
};

/// The figures of the operations that began within the measured time.
pub(crate) struct Measure {
    pub reads: Timed,
    pub writes: Timed,
    /// Open loop: arrivals within the measured time, sent or not.
    pub arrivals: u64,
    /// Those of them that were not sent, because too many were outstanding.
    pub skipped: u64,
    /// The most operations that were outstanding when another was sent, that one included.
    pub outstanding_max: usize,
    /// How much later than intended operations were sent, in microseconds.
    pub slip: Histogram<u64>,
    /// Reads that writers made to learn a context, answered or not. Neither among the reads nor in any latency.
    pub context_reads: u64,
    /// What failed writes have left behind.
    pub effects: BTreeMap<&'static str, u64>,
    /// Reads without a value.
    pub missing: u64,
    /// Reads with more than one value.
    pub with_siblings: u64,
    /// Values returned by all reads.
    pub values: u64,
    /// The most values that one read returned.
    pub values_max: u64,
    /// Reads of keys on which nothing had been acknowledged.
    pub unwritten: u64,
    /// Reads whose answer had values but no context to judge them by.
    pub unjudged: u64,
    /// Reads that showed everything acknowledged.
    pub fresh: u64,
    /// Stale reads by the number of acknowledged writes they missed.
    pub behind: BTreeMap<u32, u64>,
    /// Judged reads by the time since the newest acknowledgement.
    pub visibility: Visibility,
    /// What the sessions met.
    pub read_your_writes: Violations,
    pub monotonic_reads: Violations,
    /// Reads by the node that coordinated them.
    pub coordinators: BTreeMap<u32, u64>,
}

/// What a read was worth, by the context that came back.
pub(crate) struct Judged {
    /// To everybody.
    pub verdict: Verdict,
    /// How old the newest acknowledgement was when the read began; `None` if there was none.
    pub since_newest_ack: Option<Duration>,
    /// To its session.
    pub kept: Kept,
}

/// Latencies of what succeeded, and the kinds of what did not.
pub(crate) struct Timed {
    /// How long its user waited, in microseconds: in an open loop from the intended start.
    pub latency: Histogram<u64>,
    /// How long the request itself took, in microseconds.
    pub service: Histogram<u64>,
    pub errors: BTreeMap<&'static str, u64>,
}

impl Measure {
    pub fn new() -> Measure {
        Measure {
            reads: Timed::new(),
            writes: Timed::new(),
            arrivals: 0,
            skipped: 0,
            outstanding_max: 0,
            slip: micros(),
            context_reads: 0,
            effects: BTreeMap::new(),
            missing: 0,
            with_siblings: 0,
            values: 0,
            values_max: 0,
            unwritten: 0,
            unjudged: 0,
            fresh: 0,
            behind: BTreeMap::new(),
            visibility: Visibility::new(),
            read_your_writes: Violations::default(),
            monotonic_reads: Violations::default(),
            coordinators: BTreeMap::new(),
        }
    }

    /// Open loop: an operation has arrived while so many were outstanding, and is sent or skipped.
    pub fn arrived(&mut self, outstanding: usize, sent: bool) {
        self.arrivals += 1;
        self.skipped += u64::from(!sent);
        self.outstanding_max = self.outstanding_max.max(outstanding + usize::from(sent));
    }

    /// Open loop: an operation was sent so much later than intended.
    pub fn sent(&mut self, slip: Duration) {
        record(&mut self.slip, slip);
    }

    /// What a read has brought; `judged` is `None` if it had values but no context to judge them by.
    pub fn read(&mut self, reply: &GetReply, judged: Option<Judged>) {
        *self.coordinators.entry(reply.receipt.coordinator).or_default() += 1;
        let values = reply.values.len() as u64;
        self.missing += u64::from(values == 0);
        self.with_siblings += u64::from(values > 1);
        self.values += values;
        self.values_max = self.values_max.max(values);
        match judged {
            None => self.unjudged += 1,
            Some(judged) => self.judge(&judged),
        }
    }

    fn judge(&mut self, judged: &Judged) {
        match judged.verdict {
            Verdict::Unwritten => self.unwritten += 1,
            Verdict::Fresh => self.fresh += 1,
            Verdict::Stale(behind) => *self.behind.entry(behind).or_default() += 1,
        }
        if let Some(age) = judged.since_newest_ack {
            self.visibility.add(age, judged.verdict == Verdict::Fresh);
        }
        self.read_your_writes.add(judged.kept.read_your_writes);
        self.monotonic_reads.add(judged.kept.monotonic_reads);
    }

    /// A write failed, and this is what it has left behind.
    pub fn write_failed(&mut self, error: &RequestError, effect: &Effect) {
        self.writes.failed(error);
        let effect = match effect {
            Effect::NotApplied => "not applied",
            Effect::Applied(_) => "applied on some",
            Effect::Unknown => "unknown",
        };
        *self.effects.entry(effect).or_default() += 1;
    }

    /// Stale reads.
    pub fn stale(&self) -> u64 {
        self.behind.values().sum()
    }

    /// Reads that could have been stale and could be judged.
    pub fn judged(&self) -> u64 {
        self.fresh + self.stale()
    }
}

impl Timed {
    fn new() -> Timed {
        Timed { latency: micros(), service: micros(), errors: BTreeMap::new() }
    }

    /// An operation was answered.
    pub fn succeeded(&mut self, latency: Duration, service: Duration) {
        record(&mut self.latency, latency);
        record(&mut self.service, service);
    }

    /// An operation failed.
    pub fn failed(&mut self, error: &RequestError) {
        *self.errors.entry(kind(error)).or_default() += 1;
    }

    /// Operations that failed.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Room for durations in microseconds.
fn micros() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).expect("constant bounds")
}

fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
}

/// Above the longest timeout of a request and the client's patience beyond it.
const LATENCY_MICROS_MAX: u64 = 120_000_000;

/// The kind of an error, in one or two words: the cluster's own word if it answered.
fn kind(error: &RequestError) -> &'static str {
    match error {
        RequestError::Quorum(_) => "bad quorum",
        RequestError::Limit(_) => "over a limit",
        RequestError::Bucket(_) => "unknown bucket",
        RequestError::NoSuchNode { .. } => "no such node",
        RequestError::Unreachable { .. } => "unreachable",
        RequestError::TimedOut { .. } => "timed out",
        RequestError::Lost { .. } => "connection lost",
        RequestError::Failed(failure) => failure.code.word(),
        RequestError::Nonsense { .. } => "nonsense answered",
    }
}
