//! The document that a run leaves behind.
//!
//! It is plain data and everything in it is named with its unit. Programs read it as JSON under the schema [`SCHEMA`];
//! fields may be added under that name, and none is removed or changes its meaning.

use std::{collections::BTreeMap, time::Duration};

use atoll_client::{NodeId, View};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    Configuration, FreshAfter, Machine, Nodes, Pace, Run, Schedule, Violations,
    measure::{Measure, Timed},
    nodes::Answers,
    session,
};

/// Name and version of the document's form.
pub const SCHEMA: &str = "atoll.bench/v1";

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The version of the load generator.
    pub version: &'static str,
    /// Whether it was stopped before its time.
    pub interrupted: bool,
    /// What was asked for, defaults filled in.
    pub configuration: Configuration,
    /// Who was asked.
    pub cluster: Cluster,
    /// What the load generator ran on.
    pub machine: Machine,
    /// The writing of all keys before the run, if there was one.
    pub preload: Option<Preload>,
    /// How long was measured.
    pub seconds: f64,
    /// Successful reads and writes per second.
    pub ops_per_s: f64,
    /// How well an open loop kept its plan; `None` in a closed loop, which has none.
    pub schedule: Option<Schedule>,
    /// All reads, but those that a writer makes to learn a context.
    pub reads: Operations,
    /// All writes. The time to read a context first is not in the latency of a closed loop, and never in `service_ms`.
    pub writes: Operations,
    /// Reads that found no value.
    pub reads_missing: u64,
    /// Reads by the node that coordinated them.
    pub reads_by_coordinator: BTreeMap<String, u64>,
    /// Reads that writers made to learn a context.
    pub context_reads: u64,
    /// Failed writes by what they have left behind: "not applied", "applied on some", "unknown".
    pub failed_writes_left: BTreeMap<String, u64>,
    /// Reads judged by what had been acknowledged before they began.
    pub staleness: Staleness,
    /// What clients would have met that counted on their own past.
    pub sessions: Sessions,
    /// Values that were written concurrently.
    pub siblings: Siblings,
    /// What the load cost the nodes.
    pub nodes: Nodes,
    /// What the measuring itself cost.
    pub load_generator: LoadGenerator,
}

/// The cluster as the load generator saw it at the start.
#[derive(Clone, Debug, Serialize)]
pub struct Cluster {
    /// Its id.
    pub id: String,
    /// Epoch of its view.
    pub epoch: u64,
    /// Members.
    pub nodes: usize,
    /// Copies of each key.
    pub replicas: u8,
}

/// The writing of all keys before the run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Preload {
    /// How many.
    pub keys: u32,
    /// How long it took, a read and a write per key.
    pub seconds: f64,
}

/// Reads or writes.
#[derive(Clone, Debug, Serialize)]
pub struct Operations {
    /// That succeeded.
    pub count: u64,
    /// Of those, per second.
    pub per_s: f64,
    /// That failed.
    pub failed: u64,
    /// Failed ones by the kind of error.
    pub errors: BTreeMap<String, u64>,
    /// How long the users of the successful ones waited; `None` if there were none. In a closed loop from the sending, in
    /// an open loop from the moment that was planned.
    pub latency_ms: Option<Latency>,
    /// Open loop: how long the requests themselves took, from their sending. `None` in a closed loop, where
    /// `latency_ms` is that.
    pub service_ms: Option<Latency>,
}

/// Milliseconds, from an HDR histogram of three digits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// 90 % are.
    pub p90: f64,
    /// 99 % are.
    pub p99: f64,
    /// 99.9 % are.
    pub p99_9: f64,
    /// The slowest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
}

/// How many reads missed what had been acknowledged before they began.
#[derive(Clone, Debug, Serialize)]
pub struct Staleness {
    /// Reads of keys with an acknowledged write, whose answer could be judged.
    pub judged: u64,
    /// Of those, reads whose context did not cover every acknowledged write.
    pub stale: u64,
    /// `stale / judged`; `None` if nothing was judged.
    pub share: Option<f64>,
    /// Acknowledged writes that a stale read missed, on average.
    pub behind_mean: Option<f64>,
    /// The most.
    pub behind_max: u32,
    /// Stale reads by how many acknowledged writes they missed.
    pub behind: BTreeMap<u32, u64>,
    /// Replaced writes that were remembered per key.
    pub remembered: usize,
    /// Whether some read missed so many that there may be more: then the figures of `behind` mean "at least".
    pub behind_at_least: bool,
    /// Whether every current write was remembered, so that `stale` is exact.
    pub exact: bool,
    /// The judged reads by the time from the newest acknowledgement of their key to their sending, on a grid of
    /// [`BUCKETS_PER_DECADE`](crate::BUCKETS_PER_DECADE) buckets per decade; empty buckets are left out.
    pub by_time_since_ack: Vec<FreshAfter>,
    /// Reads of keys on which nothing had been acknowledged in this run.
    pub unwritten: u64,
    /// Reads that came back without a context, because the key has too long a history.
    pub unjudged: u64,
}

/// Guarantees to single clients, of which the cluster promises none by default.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sessions {
    /// Clients with a past of their own.
    pub count: u32,
    /// Keys that each of them remembers, for writes and for reads each.
    pub keys_remembered: usize,
    /// Reads of keys that the same session had written: does the context cover its last acknowledged write?
    pub read_your_writes: Violations,
    /// Reads of keys that the same session had read: does the context cover the values that it was shown?
    pub monotonic_reads: Violations,
}

/// Values that were written concurrently and not yet replaced.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Siblings {
    /// Reads that returned more than one value.
    pub reads: u64,
    /// Values of a read that found any, on average.
    pub values_mean: Option<f64>,
    /// The most.
    pub values_max: u64,
}

/// What the measuring itself cost.
#[derive(Clone, Debug, Serialize)]
pub struct LoadGenerator {
    /// Cores in use, on average; `None` where the system does not tell.
    pub cpu_cores: Option<f64>,
    /// Its own CPU time for one successful operation, in microseconds; `None` where the system does not tell.
    pub cpu_us_per_op: Option<f64>,
    /// Whether it had no time to spare: then the cluster may be faster than the figures.
    pub saturated: Option<bool>,
    /// That in one sentence, if it had not.
    pub judgement: Option<String>,
}

/// What [`run`](crate::run) has in its hands at the end.
pub(crate) struct Measured {
    pub interrupted: bool,
    pub preload: Option<Duration>,
    pub elapsed: Duration,
    pub cpu: Option<f64>,
    /// The nodes' counters when the measured time began and when it ended.
    pub nodes: [Answers; 2],
    pub window: usize,
    pub overflowed: u64,
    pub measure: Measure,
}

/// Of the one core that the load generator can use. Above it the answers wait for us and not we for them.
const SATURATED_ABOVE: f64 = 0.9;

impl Report {
    pub(crate) fn new(run: &Run, cluster: Cluster, machine: Machine, ended: Measured) -> Report {
        let seconds = ended.elapsed.as_secs_f64();
        let measure = &ended.measure;
        let open = matches!(run.pace, Pace::Open(_));
        let reads = Operations::new(&measure.reads, seconds, open);
        let writes = Operations::new(&measure.writes, seconds, open);
        let ops_per_s = rate(reads.count + writes.count, seconds);
        let [nodes_before, nodes_after] = &ended.nodes;
        Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            interrupted: ended.interrupted,
            configuration: Configuration::new(run, cluster.replicas),
            cluster,
            machine,
            preload: ended
                .preload
                .map(|took| Preload { keys: run.keys, seconds: round(took.as_secs_f64(), 3) }),
            seconds: round(seconds, 3),
            ops_per_s,
            schedule: match run.pace {
                Pace::Closed(_) => None,
                Pace::Open(settings) => Some(Schedule::new(settings, measure)),
            },
            reads,
            writes,
            reads_missing: measure.missing,
            reads_by_coordinator: (measure.coordinators.iter())
                .map(|(node, reads)| (NodeId(*node).to_string(), *reads))
                .collect(),
            context_reads: measure.context_reads,
            failed_writes_left: named(&measure.effects),
            staleness: Staleness::new(measure, ended.window, ended.overflowed),
            sessions: Sessions {
                count: run.sessions(),
                keys_remembered: session::keys_max(run.sessions()),
                read_your_writes: measure.read_your_writes,
                monotonic_reads: measure.monotonic_reads,
            },
            siblings: Siblings {
                reads: measure.with_siblings,
                values_mean: mean(measure.values, measure.reads.latency.len() - measure.missing),
                values_max: measure.values_max,
            },
            nodes: Nodes::between(nodes_before, nodes_after, ops_per_s),
            load_generator: LoadGenerator::new(ended.cpu, ops_per_s),
        }
    }
}

impl Cluster {
    pub(crate) fn of(view: &View) -> Cluster {
        Cluster {
            id: view.cluster().to_string(),
            epoch: view.epoch().0,
            nodes: view.members().len(),
            replicas: view.replicas(),
        }
    }
}

impl Operations {
    fn new(timed: &Timed, seconds: f64, open: bool) -> Operations {
        let count = timed.latency.len();
        Operations {
            count,
            per_s: rate(count, seconds),
            failed: timed.failures(),
            errors: named(&timed.errors),
            latency_ms: Latency::of(&timed.latency),
            service_ms: Latency::of(&timed.service).filter(|_| open),
        }
    }
}

impl Latency {
    /// `None` of nothing.
    pub(crate) fn of(micros: &Histogram<u64>) -> Option<Latency> {
        let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1000.0;
        (!micros.is_empty()).then(|| Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: micros.max() as f64 / 1000.0,
            mean: round(micros.mean() / 1000.0, 3),
        })
    }
}

impl Staleness {
    fn new(measure: &Measure, remembered: usize, overflowed: u64) -> Staleness {
        let missed = measure.behind.iter().map(|(behind, reads)| u64::from(*behind) * reads).sum();
        let behind_max = measure.behind.keys().last().copied().unwrap_or(0);
        Staleness {
            judged: measure.judged(),
            stale: measure.stale(),
            share: (measure.judged() > 0)
                .then(|| round(measure.stale() as f64 / measure.judged() as f64, 6)),
            behind_mean: mean(missed, measure.stale()),
            behind_max,
            behind: measure.behind.clone(),
            remembered,
            behind_at_least: behind_max as usize >= remembered,
            exact: overflowed == 0,
            by_time_since_ack: measure.visibility.buckets(),
            unwritten: measure.unwritten,
            unjudged: measure.unjudged,
        }
    }
}

impl LoadGenerator {
    fn new(cpu_cores: Option<f64>, ops_per_s: f64) -> LoadGenerator {
        let saturated = cpu_cores.map(|cores| cores > SATURATED_ABOVE);
        let judgement = (saturated == Some(true)).then(|| {
            format!(
                "the load generator used {:.0} % of the one core it can use: the cluster may be faster than these figures",
                cpu_cores.unwrap_or_default() * 100.0
            )
        });
        LoadGenerator {
            cpu_cores: cpu_cores.map(|cores| round(cores, 2)),
            cpu_us_per_op: (cpu_cores.filter(|_| ops_per_s > 0.0))
                .map(|cores| round(cores * 1e6 / ops_per_s, 1)),
            saturated,
            judgement,
        }
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { round(count as f64 / seconds, 1) } else { 0.0 }
}

fn mean(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| round(sum as f64 / count as f64, 3))
}

fn named(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// More digits than a figure has only look exact.
fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use atoll_client::NodeStatus;
    use tokio::time::Instant;

    use super::*;
    use crate::{Arrivals, OpenLoop};

    /// The document's form is an interface: this is all of it, and a change here is a change for whoever reads it.
    #[test]
    fn the_document_has_this_form() {
        let mut measure = Measure::new();
        for ms in 1..=100 {
            measure.reads.succeeded(Duration::from_millis(ms), Duration::from_millis(ms / 2));
        }
        measure.reads.errors.insert("timed out", 3);
        measure.writes.succeeded(Duration::from_micros(1500), Duration::from_micros(1500));
        measure.writes.errors.insert("write quorum not met", 2);
        measure.effects.insert("applied on some", 2);
        measure.behind.extend([(1, 3), (2, 1)]);
        measure.coordinators.extend([(1, 60), (3, 40)]);
        (measure.fresh, measure.unwritten, measure.unjudged) = (86, 9, 1);
        (0..90).for_each(|n| measure.visibility.add(Duration::from_millis(n * 2), n >= 4));
        measure.read_your_writes = Violations { at_stake: 20, violated: 1 };
        measure.monotonic_reads = Violations { at_stake: 30, violated: 2 };
        (measure.missing, measure.values, measure.values_max) = (10, 99, 4);
        (measure.with_siblings, measure.context_reads) = (5, 7);
        let mut report = report(&Run::default(), Some(0.954), measure);
        report.version = "1.2.3";
        let document = serde_json::to_string_pretty(&report).expect("plain data") + "\n";
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/report.json");
        if std::env::var_os("ATOLL_BLESS").is_some_and(|bless| bless == "1") {
            std::fs::write(golden, &document).expect("the repository can be written");
        }
        assert_eq!(document, std::fs::read_to_string(golden).expect("a golden document"));
    }

    /// Nothing happened: no figure is made up, and nothing divides by zero.
    #[test]
    fn an_empty_run_has_no_figures() {
        let report = report(&Run::default(), None, Measure::new());
        assert_eq!(report.ops_per_s, 0.0);
        assert_eq!(report.reads.latency_ms, None);
        assert_eq!(report.staleness.share, None);
        assert_eq!(report.staleness.behind_mean, None);
        assert_eq!(report.siblings.values_mean, None);
        assert_eq!(report.nodes.cpu_us_per_op, None);
        assert_eq!(report.load_generator.cpu_us_per_op, None);
        assert_eq!(report.load_generator.saturated, None);
        assert_eq!(report.load_generator.judgement, None);
    }

    /// What an open loop adds: both latencies, and a mark for each way in which the plan was not kept.
    #[test]
    fn an_open_loop_is_marked_if_it_did_not_keep_its_plan() {
        let check = |slip_us: u64, skipped: u64, expected: [&str; 2]| {
            let mut measure = Measure::new();
            for _ in 0..100 {
                measure.arrived(0, true);
                measure.sent(Duration::from_micros(slip_us));
                measure.reads.succeeded(Duration::from_millis(20), Duration::from_millis(5));
            }
            (0..skipped).for_each(|_| measure.arrived(50, false));
            let pace = OpenLoop { rate: 10, arrivals: Arrivals::Poisson, outstanding_max: 50 };
            let run = Run { pace: Pace::Open(pace), ..Run::default() };
            let report = report(&run, None, measure);
            assert_eq!((report.configuration.load, report.configuration.rate), ("open", Some(10)));
            assert_eq!(report.configuration.concurrency, None);
            let p50 = |latency: Option<Latency>| latency.map(|it| it.p50.round());
            assert_eq!(p50(report.reads.latency_ms), Some(20.0));
            assert_eq!(p50(report.reads.service_ms), Some(5.0));
            let schedule = report.schedule.expect("an open loop has one");
            assert_eq!((schedule.arrivals, schedule.skipped), (100 + skipped, skipped));
            assert_eq!(schedule.slipped, slip_us > 1000);
            let said = schedule.judgements.join("\n");
            let expected: Vec<&str> = expected.into_iter().filter(|it| !it.is_empty()).collect();
            assert_eq!(schedule.judgements.len(), expected.len(), "{said}");
            assert!(expected.iter().all(|it| said.contains(it)), "{said}");
        };
        check(300, 0, ["", ""]);
        check(1000, 0, ["", ""]);
        check(1500, 0, ["late, by 1.5 ms at p99", ""]);
        check(300, 7, ["7 of 107 arrivals were skipped because 50 operations", ""]);
        check(1500, 7, ["late, by 1.5 ms", "7 of 107"]);
    }

    /// A read that missed as much as is remembered may have missed more.
    #[test]
    fn at_the_edge_of_memory_it_says_at_least() {
        for (behind, at_least) in [(63, false), (64, true), (65, true)] {
            let mut measure = Measure::new();
            measure.behind.insert(behind, 1);
            let report = report(&Run::default(), None, measure);
            assert_eq!(report.staleness.behind_at_least, at_least, "{behind}");
        }
    }

    /// One node that told its counters twice, and one that did not.
    fn nodes(length: Duration) -> [Answers; 2] {
        let zero = Instant::now();
        let before = NodeStatus { uptime_ms: 1, cpu_micros: 10_000, ..NodeStatus::default() };
        let after = NodeStatus {
            uptime_ms: 10_001,
            cpu_micros: 15_000,
            reads: 110,
            writes: 3,
            hedges: 4,
            hints: 2,
            ..before.clone()
        };
        let answers = |at, status| {
            let silent = Err("timed out".to_owned());
            Answers::from([(NodeId(1), Ok((at, status))), (NodeId(2), silent)])
        };
        [answers(zero, before), answers(zero + length, after)]
    }

    fn report(run: &Run, cpu: Option<f64>, measure: Measure) -> Report {
        let cluster = Cluster { id: "0f".repeat(16), epoch: 1, nodes: 5, replicas: 3 };
        let machine = Machine {
            cores: Some(2),
            processor: None,
            memory_bytes: Some(24 << 30),
            os: "linux 6.18".into(),
            arch: "x86_64".into(),
        };
        let ended = Measured {
            interrupted: false,
            preload: Some(Duration::from_millis(1250)),
            elapsed: run.length,
            cpu,
            nodes: nodes(run.length),
            window: 64,
            overflowed: 0,
            measure,
        };
        Report::new(run, cluster, machine, ended)
    }
}
