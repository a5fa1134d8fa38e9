//! `atoll repair`: how far the owners of each partition agree, and comparing them now.
//!
//! Owners compare what they hold by themselves, all the time. `status` shows how that stands, `run` puts a comparison first
//! in line and waits for it. A partition has agreed when one of its owners has found itself equal to all others, or has
//! mended what was not.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use atoll_client::{Client, ErrorCode, NodeId, PartitionRepair, RequestError, View};
use atoll_ring::Partition;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    debug::no_such_partition,
    exit::{Exit, Failed},
    output::{self, Format},
    receipt::{self, Asked},
    request::connect,
};

/// How far the owners of each partition agree; compare them now.
#[derive(Subcommand)]
pub enum RepairCommand {
    /// When each partition was last equal on all its owners, and what had to be mended
    Status(StatusArgs),
    /// Compare now, before anything else, and wait until it is done
    Run(RunArgs),
}

/// What to show.
#[derive(Args)]
#[command(after_help = "\
Examples:
  atoll repair status
  atoll repair status --all           also partitions in which nothing was ever mended
  atoll repair status -o json

Counts are since each node's start. Exits 5 if a node does not answer. It needs an operator's certificate, which
the profile of a testnet has.")]
pub struct StatusArgs {
    /// All partitions, also those that are equal and always were
    #[arg(long)]
    all: bool,
}

/// What to compare.
#[derive(Args)]
#[command(after_help = "\
Examples:
  atoll repair run                    all partitions, on all nodes
  atoll repair run 307                one; `atoll ring lookup KEY` tells a key's partition
  atoll repair run 307 --accept-loss  ends the error `every copy of this key is damaged`

Nobody has to run this: every partition is compared about every ten seconds anyway. Exits 5 if some could not be
compared with all their owners. It needs an operator's certificate, which the profile of a testnet has.")]
pub struct RunArgs {
    /// Which partition, a number from 0 [default: all]
    partition: Option<u32>,

    /// Take what is left of keys whose every copy was damaged for the whole truth: reads of them succeed again, and what
    /// the damaged copies alone held is lost for good
    #[arg(long, requires = "partition")]
    accept_loss: bool,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// How long one node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Serialize)]
struct StatusDocument {
    schema: &'static str,
    cluster: String,
    /// Every partition was equal on all its owners within this time; none = some were not since their nodes' start.
    lag_ms: Option<u64>,
    keys_repaired: u64,
    bytes: u64,
    backlog: u64,
    silent: Vec<String>,
    partitions: Vec<PartitionDocument>,
}

#[derive(Serialize)]
struct PartitionDocument {
    partition: u16,
    owners: Vec<String>,
    /// Milliseconds since it was equal on all owners; none = not since the start.
    agreed_ms_ago: Option<u64>,
    keys_repaired: u64,
    bytes: u64,
    backlog: u64,
    /// Owners whose answers do not count here.
    in_doubt: Vec<String>,
}

#[derive(Serialize)]
struct RunDocument {
    schema: &'static str,
    partitions: usize,
    compared: usize,
    keys_repaired: u64,
    elapsed_ms: u64,
    silent: Vec<String>,
}

/// Runs the command.
pub async fn run(
    command: RepairCommand,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let client = connect(cluster).await?;
    let done = match command {
        RepairCommand::Status(args) => status(&client, &args, format).await,
        RepairCommand::Run(args) => run_now(&client, &args, format).await,
    };
    client.close().await;
    done
}

async fn status(client: &Client, args: &StatusArgs, format: Format) -> Result<(), Failed> {
    let view = client.view();
    let nodes: Vec<NodeId> = view.members().iter().map(|member| member.id).collect();
    let report = Report::ask(client, &nodes).await?;
    let all: Vec<Partition> = view.partitions().all().collect();
    let lag = report.lag_ms(&all);
    let documents: Vec<PartitionDocument> =
        all.iter().map(|partition| report.document(&view, *partition)).collect();
    let sum = |of: fn(&PartitionDocument) -> u64| documents.iter().map(of).sum::<u64>();
    let (keys, bytes, backlog) =
        (sum(|one| one.keys_repaired), sum(|one| one.bytes), sum(|one| one.backlog));
    let silent = report.silent_names();
    let is_silent = !silent.is_empty();
    match format {
        Format::Json => output::json(&StatusDocument {
            schema: "atoll.repair/v1",
            cluster: view.cluster().to_string(),
            lag_ms: lag,
            keys_repaired: keys,
            bytes,
            backlog,
            silent,
            partitions: documents,
        }),
        Format::Table | Format::Plain => {
            let shown = |one: &&PartitionDocument| {
                args.all || format == Format::Plain || !one.is_unremarkable()
            };
            let rows: Vec<Vec<String>> = documents.iter().filter(shown).map(row).collect();
            let headings =
                ["PARTITION", "OWNERS", "AGREED", "REPAIRED", "BYTES", "BACKLOG", "IN DOUBT"];
            if format == Format::Plain || !rows.is_empty() {
                output::rows(format, &headings, &rows);
            }
            if format == Format::Table {
                let doubted = documents.iter().filter(|one| !shown(one) && one.is_doubted());
                let doubted = doubted.count();
                let others = documents.len() - rows.len() - doubted;
                if others > 0 {
                    anstream::println!(
                        "{others} partitions are equal on all owners and always were"
                    );
                }
                if doubted > 0 {
                    let doubters: BTreeSet<&str> = documents
                        .iter()
                        .flat_map(|one| one.in_doubt.iter().map(String::as_str))
                        .collect();
                    let doubters = doubters.into_iter().collect::<Vec<_>>().join(" and ");
                    anstream::println!(
                        "{doubted} partitions more are in doubt on {doubters} (atoll status says why, --all lists them)"
                    );
                }
                anstream::println!("{}", in_one_line(lag, keys, backlog));
                for silent in silent {
                    anstream::eprintln!("\x1b[33mwarning\x1b[0m: {silent}");
                }
            }
        }
    }
    if is_silent { Err(Failed::silent(Exit::Degraded)) } else { Ok(()) }
}

async fn run_now(client: &Client, args: &RunArgs, format: Format) -> Result<(), Failed> {
    let view = client.view();
    let count = view.partitions().count();
    let only = match args.partition.map(u16::try_from) {
        None => None,
        Some(Ok(number)) if u32::from(number) < count => Some(Partition(number)),
        Some(_) => return Err(no_such_partition(args.partition.unwrap_or_default(), count)),
    };
    let wanted: Vec<Partition> = match only {
        Some(partition) => vec![partition],
        None => view.partitions().all().collect(),
    };
    let nodes = match only {
        Some(partition) => view.owners(partition).all(),
        None => view.members().iter().map(|member| member.id).collect(),
    };
    let before = Report::ask(client, &nodes).await?;
    let began = Instant::now();
    for node in before.of_nodes.keys() {
        let started =
            client.repair_run(*node, only.map(|one| one.0), args.accept_loss, ANSWER_LIMIT).await;
        started.map_err(|error| refused(&error))?;
    }
    let is_owned_by_silent = |partition: &Partition| {
        let owners = view.owners(*partition).all();
        owners.iter().any(|owner| before.silent.contains_key(owner))
    };
    let possible: Vec<Partition> =
        wanted.iter().copied().filter(|partition| !is_owned_by_silent(partition)).collect();
    let mut progress = Progress { shown: false };
    let (compared, repaired) = loop {
        let asked_at = began.elapsed();
        let report = Report::ask(client, &nodes).await?;
        let since = u64::try_from(asked_at.as_millis()).unwrap_or(u64::MAX);
        let done = |partition: &&Partition| {
            report.agreed_ms_ago(**partition).is_some_and(|ms| ms <= since)
        };
        let compared = possible.iter().filter(done).count();
        let repaired = report.keys_repaired(&wanted).saturating_sub(before.keys_repaired(&wanted));
        progress.show(compared, possible.len(), repaired);
        if compared == possible.len() || began.elapsed() >= args.timeout {
            break (compared, repaired);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    progress.end();
    let elapsed = began.elapsed();
    if format == Format::Json {
        output::json(&RunDocument {
            schema: "atoll.repair-run/v1",
            partitions: wanted.len(),
            compared,
            keys_repaired: repaired,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            silent: before.silent_names(),
        });
    } else {
        let seconds = elapsed.as_secs_f64();
        anstream::println!(
            "compared {compared} of {} partitions in {seconds:.1} s; {repaired} keys mended",
            wanted.len()
        );
    }
    if compared == wanted.len() {
        return Ok(());
    }
    let left = wanted.len() - compared;
    let why = match before.silent.is_empty() {
        true => format!("within {}", humantime::format_duration(args.timeout)),
        false => format!("with all their owners: {}", before.silent_names().join("; ")),
    };
    let what = format!("{left} partitions could not be compared {why}");
    Err(Failed::new(Exit::Degraded, what)
        .mend("atoll status tells who is down or in doubt; then run it again"))
}

/// What the nodes say of repair.
struct Report {
    of_nodes: BTreeMap<NodeId, BTreeMap<u16, PartitionRepair>>,
    /// Who did not answer, and why.
    silent: BTreeMap<NodeId, String>,
}

impl Report {
    async fn ask(client: &Client, nodes: &[NodeId]) -> Result<Report, Failed> {
        let mut report = Report { of_nodes: BTreeMap::new(), silent: BTreeMap::new() };
        for node in nodes {
            match client.repair_status(*node, ANSWER_LIMIT).await {
                Ok(lines) => {
                    let lines = lines.into_iter().map(|line| (line.partition, line));
                    report.of_nodes.insert(*node, lines.collect());
                }
                Err(RequestError::Failed(failure)) if failure.code == ErrorCode::NotPermitted => {
                    return Err(refused(&RequestError::Failed(failure)));
                }
                Err(error) => drop(report.silent.insert(*node, error.to_string())),
            }
        }
        if report.of_nodes.is_empty() {
            let what = format!("no node answered: {}", report.silent_names().join("; "));
            return Err(Failed::new(Exit::CannotConnect, what).mend("atoll status"));
        }
        Ok(report)
    }

    fn lines(&self, partition: Partition) -> impl Iterator<Item = (NodeId, &PartitionRepair)> {
        self.of_nodes
            .iter()
            .filter_map(move |(node, lines)| lines.get(&partition.0).map(|line| (*node, line)))
    }

    /// Since when one owner has known all others to be equal to it.
    fn agreed_ms_ago(&self, partition: Partition) -> Option<u64> {
        let least = self.lines(partition).map(|(_, line)| line.agreed_ms_ago).min();
        least.filter(|ms| *ms != u64::MAX)
    }

    /// The same for the partition for which it is longest ago.
    fn lag_ms(&self, partitions: &[Partition]) -> Option<u64> {
        let each = partitions.iter().map(|partition| self.agreed_ms_ago(*partition));
        each.collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    fn keys_repaired(&self, partitions: &[Partition]) -> u64 {
        let of = |partition: &Partition| {
            self.lines(*partition).map(|(_, line)| line.keys_repaired).sum::<u64>()
        };
        partitions.iter().map(of).sum()
    }

    fn silent_names(&self) -> Vec<String> {
        self.silent.iter().map(|(node, why)| format!("{node} does not answer ({why})")).collect()
    }

    fn document(&self, view: &View, partition: Partition) -> PartitionDocument {
        let lines: Vec<(NodeId, &PartitionRepair)> = self.lines(partition).collect();
        let sum = |of: fn(&PartitionRepair) -> u64| lines.iter().map(|(_, line)| of(line)).sum();
        let doubting = lines.iter().filter(|(_, line)| line.in_doubt);
        PartitionDocument {
            partition: partition.0,
            owners: view.owners(partition).all().iter().map(NodeId::to_string).collect(),
            agreed_ms_ago: self.agreed_ms_ago(partition),
            keys_repaired: sum(|line| line.keys_repaired),
            bytes: sum(|line| line.bytes),
            backlog: sum(|line| u64::from(line.backlog)),
            in_doubt: doubting.map(|(node, _)| node.to_string()).collect(),
        }
    }
}

impl PartitionDocument {
    /// Nothing was ever mended here, and the owners have agreed lately, or cannot while one of them is in doubt.
    fn is_unremarkable(&self) -> bool {
        const LATELY_MS: u64 = 12_000;
        let agreed_lately = self.agreed_ms_ago.is_some_and(|ms| ms <= LATELY_MS);
        self.keys_repaired == 0 && self.backlog == 0 && (agreed_lately || self.is_doubted())
    }

    /// An owner's answers do not count here.
    fn is_doubted(&self) -> bool {
        !self.in_doubt.is_empty()
    }
}

fn row(one: &PartitionDocument) -> Vec<String> {
    vec![
        one.partition.to_string(),
        one.owners.join(","),
        one.agreed_ms_ago.map_or("not yet".into(), |ms| format!("{} ago", seconds(ms))),
        one.keys_repaired.to_string(),
        one.bytes.to_string(),
        one.backlog.to_string(),
        one.in_doubt.join(","),
    ]
}

fn in_one_line(lag_ms: Option<u64>, keys_repaired: u64, backlog: u64) -> String {
    let lag = match lag_ms {
        Some(ms) => format!("every partition compared within {}", seconds(ms)),
        None => "not every partition was compared with all its owners yet".into(),
    };
    let waiting = if backlog > 0 { format!(", {backlog} waiting") } else { String::new() };
    format!("{lag}; {keys_repaired} keys mended since the nodes started{waiting}")
}

/// Full seconds, rounded up: what is promised holds.
fn seconds(ms: u64) -> String {
    format!("{} s", ms.div_ceil(1000))
}

/// A refusal of a node, in words that say what is needed.
fn refused(error: &RequestError) -> Failed {
    match error {
        RequestError::Failed(failure) if failure.code == ErrorCode::NotPermitted => Failed::new(
            Exit::Refused,
            "repair is an operator's business, and this certificate is none of an operator",
        )
        .mend("atoll cluster client-cert DIR --name NAME --role operator"),
        _ => receipt::failure(Asked::Read, error),
    }
}

/// A line that is drawn over itself, if somebody looks.
struct Progress {
    shown: bool,
}

impl Progress {
    fn show(&mut self, compared: usize, of: usize, repaired: u64) {
        if std::io::stderr().is_terminal() {
            self.shown = true;
            anstream::eprint!("\rcompared {compared} of {of} partitions, {repaired} keys mended ");
            let _ = std::io::stderr().flush(); // nobody is hurt if it is not seen
        }
    }

    fn end(&self) {
        if self.shown {
            anstream::eprint!("\r\x1b[2K");
        }
    }
}
