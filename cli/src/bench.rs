//! `atoll bench`: puts load on a cluster and prints how fast, how often wrong and how stale it was.
//!
//! The measuring is done by `atoll-bench`; here its settings are read and its report is printed.

use std::{collections::BTreeMap, future::pending, time::Duration};

use atoll_bench::{Distribution, Latency, Operations, Report, Run, RunError, Staleness, Through};
use atoll_client::ConnectError;
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    receipt::{self, Asked},
    request::QuorumFlags,
};

/// Measure throughput, latency and stale reads.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Read and write as fast as so many workers can, for a while
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
}

const RUN_HELP: &str = "\
Examples:
  atoll bench run                                        half reads, half writes, 10 s
  atoll bench run --read-ratio 0 -w 2 --keys 100k        durable puts
  atoll bench run --read-ratio 1 -r 2 --keys 100k        quorum reads
  atoll bench run -r 1 -w 1 --dist zipf --keys 1k        how stale is R=1, W=1?
  atoll bench run --for 60s -o json > run.json           for programs

The load is a closed loop: each of the --concurrency workers sends its next operation when the
last one is answered. Reads go through a coordinator drawn at random. A read is stale if its context
does not cover a write that had been acknowledged before the read began. The keys are
`bench:0000000000` and so on in the default bucket; they stay there.

Exit codes: 0 measured, 1 nothing succeeded, 2 refused, 4 cannot connect, 130 interrupted (what was
measured until then is printed).";

/// What to run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How long to measure
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    length: Duration,
    /// How long to run before anything counts
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Operations in flight [default: 64]
    #[arg(long, short = 'c', value_name = "N")]
    concurrency: Option<u32>,
    /// How many keys; 100k and 1M are understood
    #[arg(long, value_name = "K", default_value = "10k", value_parser = count)]
    keys: u32,
    /// Size of a value; 64KiB is understood
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = bytes)]
    value_bytes: usize,
    /// Share of reads: 0 only writes, 1 only reads
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    read_ratio: f64,
    /// Which keys are wanted more often
    #[arg(long, value_enum, default_value_t)]
    dist: Dist,
    #[command(flatten)]
    quorum: QuorumFlags,
    /// For one request
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Do not write all keys before; reads may find nothing, and first puts read first
    #[arg(long)]
    no_preload: bool,
    /// Write all keys once before the load begins (this is the default)
    #[arg(long, conflicts_with = "no_preload")]
    preload: bool,
    /// Let every worker write every key, reading first; without it each key has one writer
    #[arg(long)]
    shared_keys: bool,
    /// Draw the same keys and operations as another run with this seed
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// QUIC connections to each node
    #[arg(long, value_name = "C", default_value_t = 1)]
    connections: u32,
    /// Who coordinates the reads
    #[arg(long, value_enum, default_value_t)]
    through: ThroughWhom,
}

/// How keys are drawn.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Dist {
    /// All alike
    #[default]
    Uniform,
    /// The k-th most popular in proportion to 1/k^0.99, as in YCSB
    Zipf,
}

/// Who coordinates the reads.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ThroughWhom {
    /// One of the key's owners, at random
    #[default]
    Owners,
    /// Any node, at random; one that does not own the key costs a hop
    Any,
}

/// Runs a benchmark and prints its report.
pub async fn run(
    command: BenchCommand,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let BenchCommand::Run(args) = command;
    let run = Run::from(args);
    run.check().map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
    let profile = crate::request::profile(cluster)?;
    let report = atoll_bench::run(&run, &profile, interrupt()).await.map_err(failed)?;
    match format {
        Format::Json => output::json(&report),
        Format::Table => table(&report),
        Format::Plain => plain(&report),
    }
    if report.interrupted {
        return Err(Failed::silent(Exit::Interrupted));
    }
    if report.reads.count + report.writes.count == 0 {
        return Err(Failed::new(Exit::Other, "no operation succeeded"));
    }
    Ok(())
}

impl From<RunArgs> for Run {
    fn from(args: RunArgs) -> Run {
        Run {
            length: args.length,
            warmup: args.warmup,
            concurrency: args.concurrency,
            keys: args.keys,
            value_bytes: args.value_bytes,
            read_ratio: args.read_ratio,
            distribution: match args.dist {
                Dist::Uniform => Distribution::Uniform,
                Dist::Zipf => Distribution::Zipf,
            },
            quorum: args.quorum.request(),
            timeout: args.timeout,
            preload: !args.no_preload,
            shared_keys: args.shared_keys,
            seed: args.seed,
            connections: args.connections,
            through: match args.through {
                ThroughWhom::Owners => Through::Owners,
                ThroughWhom::Any => Through::Any,
            },
        }
    }
}

/// Done when the user presses Ctrl-C; never, if that cannot be noticed.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        pending::<()>().await;
    }
}

/// A number of things: `5000`, `100k`, `1M`.
fn count(text: &str) -> Result<u32, String> {
    scaled(text, &[("k", 1000), ("M", 1_000_000)])
}

/// A number of bytes: `1024`, `64KiB`, `1MiB`.
fn bytes(text: &str) -> Result<usize, String> {
    scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20)])
}

fn scaled<T: TryFrom<u64>>(text: &str, units: &[(&str, u64)]) -> Result<T, String> {
    let unit = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)));
    let (digits, scale) = unit.unwrap_or((text, 1));
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        let units: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
        format!("a whole number, if you like with {}", units.join(" or "))
    })
}

fn failed(error: RunError) -> Failed {
    let what = error.to_string();
    match error {
        RunError::Settings(_) | RunError::Quorum(_) => Failed::new(Exit::Refused, what),
        RunError::Connect(ConnectError::Unreachable { .. }) => {
            Failed::new(Exit::CannotConnect, what).mend("is it running? atoll testnet ls")
        }
        RunError::Connect(
            ConnectError::Profile(_)
            | ConnectError::Identity(_)
            | ConnectError::NoSeeds
            | ConnectError::Socket(_),
        ) => Failed::new(Exit::Refused, what),
        RunError::Preload { error, .. } => {
            Failed::new(receipt::failure(Asked::Write, &error).exit, what)
                .mend("atoll status; or --no-preload to run all the same")
        }
        RunError::Interrupted => Failed::new(Exit::Interrupted, what),
    }
}

/// The report for people: what was run, the table, then one sentence per finding.
fn table(report: &Report) {
    let (run, cluster) = (&report.configuration, &report.cluster);
    anstream::println!(
        "\x1b[1m{} nodes\x1b[0m   n={} r={} w={} dw={}   {:.0} % reads   {} keys of {} bytes, {}",
        cluster.nodes,
        run.n,
        run.r,
        run.w,
        run.dw,
        run.read_ratio * 100.0,
        grouped(run.keys.into()),
        grouped(run.value_bytes as u64),
        match run.distribution {
            Distribution::Uniform => "all equally popular",
            Distribution::Zipf => "popular by Zipf's law",
        },
    );
    anstream::println!(
        "closed loop, {} in flight{}, {} connection{} per node, measured for {:.1} s{}",
        run.concurrency,
        if run.concurrency_is_default { " (the default; -c changes it)" } else { "" },
        run.connections,
        if run.connections == 1 { "" } else { "s" },
        report.seconds,
        if report.interrupted { ", then interrupted" } else { "" },
    );
    anstream::println!("{}\n", machine(report));
    let headings = ["", "ops/s", "count", "failed", "p50 ms", "p90", "p99", "p99.9", "max"];
    let mut rows = Vec::new();
    if run.read_ratio > 0.0 {
        rows.push(row("reads", &report.reads));
    }
    if run.read_ratio < 1.0 {
        rows.push(row("writes", &report.writes));
    }
    output::rows(Format::Table, &headings, &rows);
    anstream::println!("\n{} operations per second", grouped_rate(report.ops_per_s));
    for finding in findings(report) {
        anstream::println!("{finding}");
    }
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let known = [
        machine.cores.map(|cores| format!("{cores} cores")),
        machine.processor.clone(),
        machine.memory_bytes.map(|bytes| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30))),
        Some(format!("{} {}", machine.os, machine.arch)),
    ];
    known.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn row(name: &str, operations: &Operations) -> Vec<String> {
    let mut row = vec![
        name.to_owned(),
        grouped_rate(operations.per_s),
        grouped(operations.count),
        grouped(operations.failed),
    ];
    match operations.latency_ms {
        None => row.extend(std::iter::repeat_n("-".to_owned(), 5)),
        Some(Latency { p50, p90, p99, p99_9, max, mean: _ }) => {
            row.extend([p50, p90, p99, p99_9, max].map(milliseconds));
        }
    }
    row
}

fn findings(report: &Report) -> Vec<String> {
    let mut said = Vec::new();
    if report.reads.count > 0 {
        said.push(staleness(&report.staleness));
    }
    if report.reads_missing > 0 {
        said.push(format!("missing: {} reads found no value", grouped(report.reads_missing)));
    }
    if report.siblings.reads > 0 {
        said.push(format!(
            "siblings: {} reads found several values, {:.2} on average over all that found any, at most {}",
            grouped(report.siblings.reads),
            report.siblings.values_mean.unwrap_or_default(),
            report.siblings.values_max,
        ));
    }
    if report.context_reads > 0 {
        said.push(format!(
            "besides: {} reads by writers that needed a context, counted nowhere above",
            grouped(report.context_reads)
        ));
    }
    for (what, operations) in [("reads", &report.reads), ("writes", &report.writes)] {
        if operations.failed > 0 {
            said.push(format!("failed {what}: {}", list(&operations.errors)));
        }
    }
    if report.writes.failed > 0 {
        said.push(format!("failed writes left behind: {}", list(&report.failed_writes_left)));
    }
    let generator = &report.load_generator;
    said.push(match generator.cpu_cores {
        Some(cores) => format!("load generator: {cores:.2} cores"),
        None => "load generator: n/a cores".to_owned(),
    });
    said.extend(generator.judgement.as_ref().map(|it| format!("\x1b[1;33mnote\x1b[0m: {it}")));
    said
}

fn staleness(found: &Staleness) -> String {
    let Some(share) = found.share else {
        return "staleness: no read could be judged".to_owned();
    };
    let mut said = format!(
        "staleness: {} of {} reads missed an acknowledged write ({} %)",
        grouped(found.stale),
        grouped(found.judged),
        percent(share),
    );
    if let Some(mean) = found.behind_mean {
        said += &format!(", {mean:.2} behind on average, {} at most", found.behind_max);
    }
    if found.behind_at_least {
        said += &format!(" (or more: {} per key are remembered)", found.remembered);
    }
    if !found.exact {
        said += "; there may be more, too many writes were concurrent to remember all";
    }
    if found.unjudged > 0 {
        said += &format!("; {} could not be judged", grouped(found.unjudged));
    }
    said
}

/// The report as `name<TAB>value` lines; what was not measured is `n/a`.
fn plain(report: &Report) {
    let number = |value: Option<f64>| value.map_or("n/a".to_owned(), |value| value.to_string());
    let mut rows = vec![
        ("seconds".to_owned(), report.seconds.to_string()),
        ("ops_per_s".to_owned(), report.ops_per_s.to_string()),
    ];
    for (name, operations) in [("reads", &report.reads), ("writes", &report.writes)] {
        let latency = operations.latency_ms;
        rows.extend([
            (format!("{name}.count"), operations.count.to_string()),
            (format!("{name}.per_s"), operations.per_s.to_string()),
            (format!("{name}.failed"), operations.failed.to_string()),
            (format!("{name}.p50_ms"), number(latency.map(|latency| latency.p50))),
            (format!("{name}.p90_ms"), number(latency.map(|latency| latency.p90))),
            (format!("{name}.p99_ms"), number(latency.map(|latency| latency.p99))),
            (format!("{name}.p99_9_ms"), number(latency.map(|latency| latency.p99_9))),
            (format!("{name}.max_ms"), number(latency.map(|latency| latency.max))),
        ]);
    }
    rows.extend([
        ("reads.missing".to_owned(), report.reads_missing.to_string()),
        ("reads.siblings".to_owned(), report.siblings.reads.to_string()),
        ("stale.judged".to_owned(), report.staleness.judged.to_string()),
        ("stale.reads".to_owned(), report.staleness.stale.to_string()),
        ("stale.share".to_owned(), number(report.staleness.share)),
        ("stale.behind_mean".to_owned(), number(report.staleness.behind_mean)),
        ("stale.behind_max".to_owned(), report.staleness.behind_max.to_string()),
        ("load_generator.cpu_cores".to_owned(), number(report.load_generator.cpu_cores)),
    ]);
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name, value]).collect();
    output::rows(Format::Plain, &[], &rows);
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    let said: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
    said.join(", ")
}

/// As many digits as one reads.
fn milliseconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// A share in percent, with the digits that keep a rare thing from looking like nothing.
fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0".to_owned(),
        percent if percent < 0.1 => format!("{percent:.4}"),
        percent => format!("{percent:.2}"),
    }
}

fn grouped_rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}") } else { grouped(per_second.round() as u64) }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_have_units() {
        assert_eq!(count("5000"), Ok(5000));
        assert_eq!(count("100k"), Ok(100_000));
        assert_eq!(count("1M"), Ok(1_000_000));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("0"), Ok(0));
        for wrong in ["", "k", "-1", "1.5k", "5000M", "99999999999999999999k", "1KiB"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn figures_are_readable() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), expected);
        }
        assert_eq!([0.05, 9.876, 12.34, 123.4].map(milliseconds), ["0.05", "9.88", "12.3", "123"]);
        assert_eq!([0.0, 0.000_012, 0.0123].map(percent), ["0", "0.0012", "1.23"]);
        assert_eq!([12.34, 8123.4].map(grouped_rate), ["12.3", "8,123"]);
    }
}
