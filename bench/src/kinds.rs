//! What values that merge cost, beside a plain durable put: each kind of change by the same closed loop, in turns.
//!
//! Machines drift, so nothing is compared with a figure of another minute: the changes take turns in short slices, and what is
//! told of each is the median of its slices and its share of the puts' median. Reads of many keys are compared the same way
//! with as many single reads, one after the other.
//!
//! Registers, counters and sets lie in buckets of this benchmark's own, which are created if they are not there and stay.
//! Each key has one worker. A put replaces what its worker put before, so that no siblings pile up; every counter's increment
//! belongs to a session, as a user's would; every set has a hundred elements from the beginning on.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use atoll_client::{
    Client, ContextToken, Increment, KeyChange, Kind, Operation, Options, Profile, QuorumRequest,
    RequestError,
    bucket::{Creation, Properties},
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde::Serialize;
use tokio::{task::LocalSet, time::Instant};

use crate::RunError;

/// What to compare, and for how long.
#[derive(Clone, Debug)]
pub struct KindsRun {
    /// One slice of one kind of change.
    pub slice: Duration,
    /// How many slices each has.
    pub rounds: u32,
    /// Workers of the closed loop.
    pub concurrency: u32,
    /// Keys of each kind.
    pub keys: u32,
    /// n, w and so on of every request.
    pub quorum: QuorumRequest,
    /// Draws the keys.
    pub seed: u64,
}

/// Bytes of a register's value.
const VALUE_BYTES: usize = 100;
/// Elements of each set.
const ELEMENTS: u32 = 100;
/// Keys of a read of many.
const MANY: u32 = 100;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct KindsReport {
    /// `atoll.bench-kinds/v1`.
    pub schema: &'static str,
    /// Each kind of change, the puts first.
    pub changes: Vec<Line>,
    /// Keys per second read one by one, and in frames of a hundred.
    pub reads: Vec<Line>,
}

/// One row of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What was done.
    pub what: &'static str,
    /// The median of its slices.
    pub per_second: f64,
    /// The slowest and the fastest slice.
    pub range: (f64, f64),
    /// Share of the first row's median.
    pub share: f64,
    /// Microseconds, of the requests of all slices.
    pub p50_micros: u64,
    /// The same.
    pub p99_micros: u64,
    /// Requests that failed.
    pub failed: u64,
}

/// Which change.
#[derive(Clone, Copy)]
enum Change {
    Put,
    Increment,
    Add,
}

impl Change {
    const ALL: [Change; 3] = [Change::Put, Change::Increment, Change::Add];

    fn what(self) -> &'static str {
        match self {
            Change::Put => "put, 100 bytes",
            Change::Increment => "counter incr",
            Change::Add => "set add, to 100 elements",
        }
    }

    fn bucket(self) -> (&'static str, Kind) {
        match self {
            Change::Put => ("bench-register", Kind::Register),
            Change::Increment => ("bench-counter", Kind::Counter),
            Change::Add => ("bench-set", Kind::Set),
        }
    }

    fn operation(self, dice: &mut SmallRng) -> Operation {
        match self {
            Change::Put => {
                let value = Bytes::from(vec![dice.random::<u8>(); VALUE_BYTES]);
                Operation::Put { value, expires_ms: None }
            }
            Change::Increment => Operation::Increment(Increment::Once(1)),
            Change::Add => Operation::Add(vec![element(dice.random_range(0..ELEMENTS))]),
        }
    }
}

/// Compares them on a cluster. `say` is told what is being done.
///
/// # Errors
/// See [`RunError`].
pub async fn kinds(
    run: &KindsRun,
    profile: &Profile,
    mut say: impl FnMut(String),
) -> Result<KindsReport, RunError> {
    let client = Arc::new(Client::connect(profile).await?);
    let local = LocalSet::new();
    let report = local.run_until(compare(run, &client, &mut say)).await;
    client.close().await;
    report
}

async fn compare(
    run: &KindsRun,
    client: &Arc<Client>,
    say: &mut impl FnMut(String),
) -> Result<KindsReport, RunError> {
    for change in Change::ALL {
        let (name, kind) = change.bucket();
        let properties = Properties::default();
        let creation = Creation { name: name.into(), kind, n: None, properties };
        let created = client.create_bucket(creation, &Options::default()).await;
        created.map_err(|error| RunError::Bucket { name, error })?;
    }
    say(format!("writes {} keys of each kind", run.keys));
    let seen = Rc::new(RefCell::new(fill(run, client).await?));
    let mut rows: Vec<Row> = Change::ALL.iter().map(|change| Row::of(change.what())).collect();
    let mut reads = vec![Row::of("get, one by one"), Row::of("mget of 100")];
    for round in 0..run.rounds {
        for (change, row) in Change::ALL.into_iter().zip(&mut rows) {
            say(format!("round {} of {}: {}", round + 1, run.rounds, change.what()));
            row.add(closed_loop(run, client, &seen, change, round).await);
        }
        say(format!("round {} of {}: reads", round + 1, run.rounds));
        reads[0].add(singles(run, client, round).await);
        reads[1].add(many(run, client, round).await);
    }
    let changes = lines(rows);
    let reads = lines(reads);
    Ok(KindsReport { schema: "atoll.bench-kinds/v1", changes, reads })
}

/// One slice.
struct Slice {
    per_second: f64,
    latency: Histogram<u64>,
    failed: u64,
}

struct Row {
    what: &'static str,
    per_second: Vec<f64>,
    latency: Histogram<u64>,
    failed: u64,
}

impl Row {
    fn of(what: &'static str) -> Self {
        Row { what, per_second: Vec::new(), latency: histogram(), failed: 0 }
    }

    fn add(&mut self, slice: Slice) {
        self.per_second.push(slice.per_second);
        self.latency.add(&slice.latency).expect("equal bounds");
        self.failed += slice.failed;
    }
}

fn lines(mut rows: Vec<Row>) -> Vec<Line> {
    for row in &mut rows {
        row.per_second.sort_by(f64::total_cmp);
    }
    let median = |row: &Row| row.per_second[row.per_second.len() / 2];
    let first = median(&rows[0]);
    let line = |row: &Row| Line {
        what: row.what,
        per_second: median(row),
        range: (row.per_second[0], row.per_second[row.per_second.len() - 1]),
        share: median(row) / first,
        p50_micros: row.latency.value_at_quantile(0.5),
        p99_micros: row.latency.value_at_quantile(0.99),
        failed: row.failed,
    };
    rows.iter().map(line).collect()
}

/// What was last seen of each register.
type Seen = Vec<Option<ContextToken>>;

/// Writes every key once, in place of what an earlier run has left: a set gets all its elements.
async fn fill(run: &KindsRun, client: &Client) -> Result<Seen, RunError> {
    let mut dice = SmallRng::seed_from_u64(run.seed);
    let mut seen = Seen::new();
    let names: Vec<u32> = (0..run.keys).collect();
    let failed = |number: u32, error| {
        let key = String::from_utf8_lossy(&key(number)).into_owned();
        RunError::Preload { key, error }
    };
    for change in Change::ALL {
        let operation = match change {
            Change::Add => Operation::Add((0..ELEMENTS).map(element).collect()),
            Change::Put | Change::Increment => change.operation(&mut dice),
        };
        let options = options(run, change);
        for some in names.chunks(50) {
            let mut changes = Vec::with_capacity(some.len());
            let keys: Vec<Bytes> = some.iter().map(|number| key(*number)).collect();
            let before = match change {
                Change::Put => client.read_many(&keys, &options).await,
                Change::Increment | Change::Add => Vec::new(),
            };
            let mut before = before.into_iter();
            for (key, number) in keys.into_iter().zip(some) {
                let read = before.next().transpose().map_err(|error| failed(*number, error))?;
                let context = read.and_then(|read| read.context);
                changes.push(KeyChange { key, operation: operation.clone(), context });
            }
            let outcomes = client.change_many(&changes, &options).await;
            for (number, outcome) in some.iter().zip(outcomes) {
                let stored = outcome.map_err(|error| failed(*number, error))?;
                if let Change::Put = change {
                    seen.push(Some(stored.context));
                }
            }
        }
    }
    Ok(seen)
}

/// So many workers, each sending its next change when the last one is answered.
async fn closed_loop(
    run: &KindsRun,
    client: &Arc<Client>,
    seen: &Rc<RefCell<Seen>>,
    change: Change,
    round: u32,
) -> Slice {
    let began = Instant::now();
    let end = began + run.slice;
    let run = Rc::new(run.clone());
    let workers: Vec<_> = (0..run.concurrency)
        .map(|number| {
            let seed = run.seed ^ (u64::from(round) << 32) ^ u64::from(number + 1);
            let worker = Worker {
                run: run.clone(),
                client: client.clone(),
                seen: seen.clone(),
                number,
                dice: SmallRng::seed_from_u64(seed),
            };
            tokio::task::spawn_local(worker.work(change, end))
        })
        .collect();
    let (mut latency, mut done, mut failed) = (histogram(), 0u64, 0);
    for worker in workers {
        let (own, own_failed) = worker.await.expect("workers do not panic");
        done += own.len();
        failed += own_failed;
        latency.add(own).expect("equal bounds");
    }
    Slice { per_second: done as f64 / began.elapsed().as_secs_f64(), latency, failed }
}

/// One who writes keys that nobody else writes, unless there are fewer keys than workers.
struct Worker {
    run: Rc<KindsRun>,
    client: Arc<Client>,
    seen: Rc<RefCell<Seen>>,
    number: u32,
    dice: SmallRng,
}

impl Worker {
    async fn work(mut self, change: Change, end: Instant) -> (Histogram<u64>, u64) {
        let (mut latency, mut failed) = (histogram(), 0);
        let options = options(&self.run, change);
        let client = self.client.clone();
        let mut session = client.session().for_counting();
        while Instant::now() < end {
            let number = self.number_of_key();
            let operation = change.operation(&mut self.dice);
            let context = match change {
                Change::Put => self.seen.borrow()[number as usize].clone(),
                Change::Increment | Change::Add => None,
            };
            let began = Instant::now();
            let outcome: Result<_, RequestError> =
                session.change(&key(number), &operation, context.as_ref(), &options).await;
            match outcome {
                Ok(stored) => {
                    latency.saturating_record(micros(began));
                    if let Change::Put = change {
                        self.seen.borrow_mut()[number as usize] = Some(stored.context);
                    }
                }
                Err(_) => failed += 1,
            }
        }
        (latency, failed)
    }

    fn number_of_key(&mut self) -> u32 {
        let (keys, workers) = (self.run.keys, self.run.concurrency);
        let mine = (keys.saturating_sub(self.number)).div_ceil(workers).max(1);
        (self.dice.random_range(0..mine) * workers + self.number) % keys
    }
}

/// A hundred keys at a time, one after the other.
async fn singles(run: &KindsRun, client: &Client, round: u32) -> Slice {
    let options = options(run, Change::Put);
    let mut slice = Slice { per_second: 0.0, latency: histogram(), failed: 0 };
    let (began, mut keys) = (Instant::now(), 0u32);
    while began.elapsed() < run.slice {
        for key in hundred(run, round, keys) {
            let asked = Instant::now();
            match client.read(&key, &options).await {
                Ok(_) => slice.latency.saturating_record(micros(asked)),
                Err(_) => slice.failed += 1,
            }
        }
        keys += MANY;
    }
    slice.per_second = f64::from(keys) / began.elapsed().as_secs_f64();
    slice
}

/// A hundred keys at a time, at once. The latency is that of a hundred.
async fn many(run: &KindsRun, client: &Client, round: u32) -> Slice {
    let options = options(run, Change::Put);
    let mut slice = Slice { per_second: 0.0, latency: histogram(), failed: 0 };
    let (began, mut keys) = (Instant::now(), 0u32);
    while began.elapsed() < run.slice {
        let asked = Instant::now();
        let outcomes = client.read_many(&hundred(run, round, keys), &options).await;
        slice.latency.saturating_record(micros(asked));
        slice.failed += outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64;
        keys += MANY;
    }
    slice.per_second = f64::from(keys) / began.elapsed().as_secs_f64();
    slice
}

/// Which keys are read: the same for both ways.
fn hundred(run: &KindsRun, round: u32, from: u32) -> Vec<Bytes> {
    let mut dice = SmallRng::seed_from_u64(run.seed ^ u64::from(round) << 32 ^ u64::from(from));
    (0..MANY).map(|_| key(dice.random_range(0..run.keys))).collect()
}

fn options(run: &KindsRun, change: Change) -> Options {
    let bucket = change.bucket().0.to_owned();
    Options { bucket: Some(bucket), quorum: run.quorum, ..Options::default() }
}

fn key(number: u32) -> Bytes {
    format!("bench:{number:010}").into()
}

fn element(number: u32) -> Bytes {
    format!("element {number:012}").into()
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("constant bounds")
}
