//! What the judges found.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::history::Op;

/// What is promised, one judge each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// Each certain put is alive in the end, or a write that had seen it took effect.
    NothingLost,
    /// The event of each certain write, also of a delete, is known in the end.
    EventsKnown,
    /// Only what was written is seen.
    NoPhantom,
    /// What a certain write has replaced does not come back.
    NoResurrection,
    /// No event is given to two writes, and a write is carried out once.
    DotsUnique,
    /// What was called `not applied` is never seen.
    ErrorsHonest,
    /// A read whose answers overlap a write's acknowledgements sees it.
    ReadsSeeWrites,
    /// Receipts show what was asked for.
    ReceiptsTrue,
    /// In the end all owners of a key hold the same, and nobody holds anything for them.
    Convergence,
    /// A session sees its own writes.
    ReadYourWrites,
    /// A session never sees less than it has seen.
    MonotonicReads,
    /// Who sees a write sees the earlier writes of its session.
    MonotonicWrites,
    /// Who sees a write sees what its session had read before.
    WritesFollowReads,
    /// A counter counts what was counted, and each of it once.
    CountedOnce,
}

impl Promise {
    /// What sessions promise.
    pub const OF_SESSIONS: [Promise; 4] = [
        Promise::ReadYourWrites,
        Promise::MonotonicReads,
        Promise::MonotonicWrites,
        Promise::WritesFollowReads,
    ];
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Promise::NothingLost => "no acknowledged write is lost",
            Promise::EventsKnown => "every event of a write is known",
            Promise::NoPhantom => "nobody sees what nobody wrote",
            Promise::NoResurrection => "nothing comes back",
            Promise::DotsUnique => "an event is given once",
            Promise::ErrorsHonest => "errors are honest",
            Promise::ReadsSeeWrites => "overlapping quorums see each other",
            Promise::ReceiptsTrue => "receipts are true",
            Promise::Convergence => "replicas converge",
            Promise::ReadYourWrites => "a session reads its own writes",
            Promise::MonotonicReads => "a session's reads never go back",
            Promise::MonotonicWrites => "a session's writes are seen in order",
            Promise::WritesFollowReads => "a session's writes follow its reads",
            Promise::CountedOnce => "a counter counts each change once",
        })
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// Of which key, unless it speaks of a node.
    pub key: Option<String>,
    /// The operations it is about; the first is the one that was wronged.
    pub operations: Vec<Op>,
    /// What was seen, in one sentence without its subject.
    pub says: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.promise)?;
        if let Some(key) = &self.key {
            write!(f, "key {key}, ")?;
        }
        match self.operations.as_slice() {
            [] => {}
            [one] => write!(f, "operation {one}: ")?,
            several => {
                let numbers: Vec<String> = several.iter().map(Op::to_string).collect();
                write!(f, "operations {}: ", numbers.join(", "))?;
            }
        }
        f.write_str(&self.says)
    }
}

/// What was judged: a history that says little proves little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Operations begun.
    pub operations: u64,
    /// Of those, puts.
    pub puts: u64,
    /// Of those, deletes.
    pub deletes: u64,
    /// Of those, changes of values that are no registers.
    pub changes: u64,
    /// Of those, reads.
    pub gets: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Reads answered.
    pub reads: u64,
    /// Of those, reads that had to see something.
    pub promised_reads: u64,
    /// Failed operations that were called `not applied`.
    pub not_applied: u64,
    /// Failed writes known to be fsynced somewhere.
    pub applied: u64,
    /// Failed operations of which nobody knows.
    pub unknown: u64,
    /// Operations never answered.
    pub silent: u64,
    /// Writes that were excused.
    pub exempt: u64,
    /// Keys.
    pub keys: u64,
    /// Records compared in the end.
    pub held: u64,
    /// How much the judges looked at: grows with the history and not faster.
    pub steps: u64,
}

/// The judges' verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether the history goes on until the cluster had settled. If not, nothing is said about the end: neither about what
    /// was lost nor about convergence.
    pub is_settled: bool,
    /// Broken promises, at most [`Verdict::SHOWN_MAX`] of each.
    pub violations: Vec<Violation>,
    /// How often each promise was broken. Promises that were kept are not listed.
    pub broken: BTreeMap<Promise, u64>,
    /// What was judged.
    pub figures: Figures,
    /// What was broken on purpose meanwhile, by kind; empty if the history does not say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, u64>,
}

impl Verdict {
    /// So many violations of each promise are kept; all are counted. Who reads a hundred does not want the rest.
    pub const SHOWN_MAX: u64 = 100;

    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    /// The violation that came first: the one whose wronged operation began first. Those that name no operation were only
    /// seen in the end, and come last.
    pub fn first(&self) -> Option<&Violation> {
        let when = |violation: &&Violation| violation.operations.first().copied();
        self.violations.iter().min_by_key(|violation| when(violation).unwrap_or(Op::MAX))
    }

    /// Violations that were counted and not kept.
    pub fn not_shown(&self) -> u64 {
        self.broken.values().sum::<u64>() - self.violations.len() as u64
    }
}

/// Where judges write down what they find.
#[derive(Default)]
pub(crate) struct Findings {
    pub violations: Vec<Violation>,
    pub broken: BTreeMap<Promise, u64>,
    pub promised_reads: u64,
    pub steps: u64,
}

impl Findings {
    /// Called wherever a judge looks at something, so that a test can see how that grows.
    pub fn step(&mut self) {
        self.steps += 1;
    }

    pub fn add(
        &mut self,
        promise: Promise,
        key: Option<&str>,
        operations: &[Op],
        says: impl FnOnce() -> String,
    ) {
        let times = self.broken.entry(promise).or_default();
        *times += 1;
        if *times <= Verdict::SHOWN_MAX {
            let (key, operations) = (key.map(str::to_owned), operations.to_vec());
            self.violations.push(Violation { promise, key, operations, says: says() });
        }
    }
}
