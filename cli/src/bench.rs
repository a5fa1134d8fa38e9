//! `atoll bench`: puts load on a cluster and prints how fast, how often wrong and how stale it was.
//!
//! The measuring is done by `atoll-bench`; here its settings are read, and [`mod@print`] says what came of it.

use std::{future::pending, io::ErrorKind, path::PathBuf, time::Duration};

use atoll_bench::{
    Arrivals, Distribution, KindsRun, OUTSTANDING_MAX_DEFAULT, OpenLoop, Pace, Run, RunError,
    Through,
};
use atoll_client::ConnectError;
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    receipt::{self, Asked},
    request::QuorumFlags,
};

mod print;

/// Measure throughput, latency and stale reads.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Read and write as fast as so many workers can, for a while
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// What counters and sets cost beside a plain durable put, and many keys beside single ones
    #[command(after_help = KINDS_HELP)]
    Kinds(KindsArgs),
}

const KINDS_HELP: &str = "\
Examples:
  atoll bench kinds                          three rounds of 3 s each
  atoll bench kinds --for 10s --rounds 5
  atoll bench kinds -c 16 -o json

The kinds of change take turns, so a machine that drifts does not favour one. The buckets bench-register, bench-counter
and bench-set are created if they are not there; they stay.";

/// What to compare.
#[derive(Debug, Args)]
pub struct KindsArgs {
    /// How long each kind of change has in a round
    #[arg(long = "for", value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    slice: Duration,
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Changes in flight
    #[arg(long, short = 'c', value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// How many keys of each kind; 100k is understood
    #[arg(long, value_name = "K", default_value = "1000", value_parser = count)]
    keys: u32,
    #[command(flatten)]
    quorum: QuorumFlags,
    /// Draw the same keys as another run with this seed
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

const RUN_HELP: &str = "\
Examples:
  atoll bench run                                        half reads, half writes, 10 s
  atoll bench run --read-ratio 0 -w 2 --keys 100k        durable puts
  atoll bench run --read-ratio 1 -r 2 --keys 100k        quorum reads
  atoll bench run -r 1 -w 1 --dist zipf --keys 1k        how stale is R=1, W=1?
  atoll bench run -r 1 -w 1 --strict --for 30s           and if only owners may answer?
  atoll bench run --rate 5k                              open loop: what users would wait
  atoll bench run --rate 5k --arrivals uniform           the same at equal distances
  atoll bench run --for 60s -o json > run.json           for programs
  atoll bench run --for 60s --history run.jsonl          and was anything lost? atoll testnet judge

Without --rate the load is a closed loop: each of the --concurrency workers sends its next operation
when the last one is answered. If the cluster stalls, so does the load, and the latencies hide the
stall from all who would have come meanwhile. With --rate it is an open loop: operations are sent as
planned, whatever has become of the earlier ones, and latency counts from the planned moment.

Reads go through a coordinator drawn at random. A read is stale if its context does not cover a write
that had been acknowledged before the read began. The keys are `bench:0000000000` and so on in the
default bucket; they stay there. With --history the keys are new ones (`bench-3f9a01cc:0000000000`),
because a history must begin where its keys begin.

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
    /// Closed loop: operations in flight [default: 64, unless --rate is given]
    #[arg(long, short = 'c', value_name = "N")]
    concurrency: Option<u32>,
    /// Open loop: operations per second; 5k is understood
    #[arg(long, value_name = "N", value_parser = count)]
    rate: Option<u32>,
    /// How the operations of an open loop are spread over time
    #[arg(long, value_enum, requires = "rate", default_value_t)]
    arrivals: Spread,
    /// Open loop: most operations sent and not answered; beyond it arrivals are skipped and counted
    #[arg(long, value_name = "N", requires = "rate", value_parser = count, default_value_t = OUTSTANDING_MAX_DEFAULT)]
    outstanding_max: u32,
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
    /// Write down what was asked and heard, in a new file; `atoll testnet judge FILE` judges it
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
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

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Spread {
    /// Independent of each other, as users are: some come close together
    #[default]
    Poisson,
    /// At equal distances
    Uniform,
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
    let args = match command {
        BenchCommand::Run(args) => args,
        BenchCommand::Kinds(args) => return kinds(args, cluster, format).await,
    };
    let run = args.run()?;
    run.check().map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
    let profile = crate::request::profile(cluster)?;
    let report = atoll_bench::run(&run, &profile, interrupt()).await.map_err(failed)?;
    match format {
        Format::Json => output::json(&report),
        Format::Table => print::table(&report),
        Format::Plain => print::plain(&report),
    }
    if let Some(file) = &run.history {
        let file = file.display();
        anstream::eprintln!("history written to {file}; judge it: atoll testnet judge {file}");
    }
    if report.interrupted {
        return Err(Failed::silent(Exit::Interrupted));
    }
    if report.reads.count + report.writes.count == 0 {
        return Err(Failed::new(Exit::Other, "no operation succeeded"));
    }
    Ok(())
}

async fn kinds(args: KindsArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let KindsArgs { slice, rounds, concurrency, keys, quorum, seed } = args;
    if slice.is_zero() || keys == 0 {
        return Err(Failed::new(Exit::Refused, "--for and --keys must be above 0"));
    }
    let run = KindsRun { slice, rounds, concurrency, keys, quorum: quorum.request(), seed };
    let profile = crate::request::profile(cluster)?;
    let say = |what| anstream::eprintln!("\x1b[2m{what}\x1b[0m");
    let report = tokio::select! { biased;
        () = interrupt() => return Err(Failed::silent(Exit::Interrupted)),
        report = atoll_bench::kinds(&run, &profile, say) => report.map_err(failed)?,
    };
    match format {
        Format::Json => output::json(&report),
        Format::Table | Format::Plain => print::kinds(&report, format),
    }
    Ok(())
}

impl RunArgs {
    fn run(self) -> Result<Run, Failed> {
        Ok(Run {
            length: self.length,
            warmup: self.warmup,
            pace: self.pace()?,
            keys: self.keys,
            value_bytes: self.value_bytes,
            read_ratio: self.read_ratio,
            distribution: match self.dist {
                Dist::Uniform => Distribution::Uniform,
                Dist::Zipf => Distribution::Zipf,
            },
            quorum: self.quorum.request(),
            timeout: self.timeout,
            preload: !self.no_preload,
            shared_keys: self.shared_keys,
            seed: self.seed,
            connections: self.connections,
            through: match self.through {
                ThroughWhom::Owners => Through::Owners,
                ThroughWhom::Any => Through::Any,
            },
            history: self.history,
        })
    }

    fn pace(&self) -> Result<Pace, Failed> {
        match (self.rate, self.concurrency) {
            (None, concurrency) => Ok(Pace::Closed(concurrency)),
            (Some(rate), None) => Ok(Pace::Open(OpenLoop {
                rate,
                arrivals: match self.arrivals {
                    Spread::Poisson => Arrivals::Poisson,
                    Spread::Uniform => Arrivals::Uniform,
                },
                outstanding_max: self.outstanding_max,
            })),
            (Some(rate), Some(concurrency)) => Err(Failed::new(
                Exit::Refused,
                "--rate sends whatever is in flight, --concurrency only when something is answered: \
                 there is no load that does both",
            )
            .mend(format!(
                "--rate {rate} --outstanding-max {concurrency} skips what would be too many; or leave out one of the two"
            ))),
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

/// Why a load did not run, or not to its end.
pub fn failed(error: RunError) -> Failed {
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
        RunError::History { ref error, .. } => match error.kind() {
            ErrorKind::AlreadyExists => Failed::new(Exit::Refused, what)
                .mend("another name; a history is evidence and is not overwritten"),
            ErrorKind::StorageFull => Failed::new(Exit::Other, what)
                .mend("a disk with more room: about 300 bytes are written per operation"),
            _ => Failed::new(Exit::Refused, what),
        },
        RunError::Bucket { ref error, .. } => {
            Failed::new(receipt::failure(Asked::Write, error).exit, what)
        }
        RunError::NoThread(_) => Failed::new(Exit::Other, what),
        RunError::Interrupted => Failed::new(Exit::Interrupted, what),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    /// Which load a command line means: by default a closed loop that nobody chose; both kinds at once are refused with
    /// what to do instead.
    #[test]
    fn the_load_is_open_or_closed() {
        let pace = |line: &str| {
            let words = ["run"].into_iter().chain(line.split_whitespace());
            Line::try_parse_from(words).map(|line| line.run.pace())
        };
        let open = |rate, arrivals, outstanding_max| {
            Pace::Open(OpenLoop { rate, arrivals, outstanding_max })
        };
        for (line, expected) in [
            ("", Pace::Closed(None)),
            ("-c 8", Pace::Closed(Some(8))),
            ("--rate 5k", open(5000, Arrivals::Poisson, 10_000)),
            ("--rate 1 --arrivals uniform --outstanding-max 7", open(1, Arrivals::Uniform, 7)),
        ] {
            assert_eq!(pace(line).unwrap().unwrap(), expected, "{line}");
        }
        let both = pace("--rate 5k -c 8").unwrap().unwrap_err();
        assert!(both.exit == Exit::Refused && both.mend.is_some(), "{both:?}");
        for alone in ["--arrivals uniform", "--outstanding-max 7"] {
            assert!(pace(alone).unwrap_err().to_string().contains("--rate"), "{alone}");
        }
        let zero = Line::try_parse_from(["run", "--rate", "0"]).unwrap().run.run().unwrap();
        assert!(zero.check().unwrap_err().to_string().starts_with("rate=0: must be 1"));
    }

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
}
