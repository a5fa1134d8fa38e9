//! `atoll`: the one program. Nodes, clients, the local testnet and the benchmark are its commands.
//!
//! Each command has a file of its own that reads like its help: what it takes, what it does, what it prints. What they
//! share is in [`request`] (which cluster, with which choices), [`receipt`] (who answered), [`failure`] (what one has left
//! behind, and what to do), [`steps`] (what a traced request did), [`ending`] (certificates whose time is nearly over), [`output`] (table, JSON, plain) and [`exit`] (what the numbers mean).

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, parser::ValueSource};

mod bench;
mod bucket;
mod caller;
mod change;
mod cluster;
mod debug;
mod del;
mod ending;
mod exit;
mod explain;
mod failure;
mod faults;
mod get;
mod keys;
mod kinds;
mod many;
mod node;
mod output;
mod put;
mod reading;
mod receipt;
mod repair;
mod request;
mod ring;
mod shell;
mod siblings;
mod status;
mod steps;
mod testnet;

use exit::Failed;
use output::Format;

/// A node's one thread takes a fifth of its time for memory with the C library's allocator, much less with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An eventually consistent key-value store that says what each answer stands for.
#[derive(Parser)]
#[command(name = "atoll", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Start here:
  atoll testnet up             five nodes on this machine, with real disks and certificates
  atoll put greeting hello     stored when 2 of 3 owners have it fsynced
  atoll get greeting -o json   the values, their context, and who answered
  atoll testnet kill n2        then try again

Exit codes: 0 ok, 1 other, 2 refused and nothing changed, 3 not found, 4 cannot connect, 5 degraded,
6 quorum not met or ring frozen, 7 timeout, 8 refused because of what is stored, 9 regression,
10 node stopped by a storage error, 11 a promise was broken, 12 node was removed from the ring,
130 interrupted.")]
struct Cli {
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    /// Which cluster: a testnet's name or a profile file [default: the testnet started last]
    #[arg(long, global = true, env = "ATOLL_CLUSTER", value_name = "NAME|FILE")]
    cluster: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Store a value
    Put(put::Args),
    /// Read all current values of a key
    Get(get::Args),
    /// Delete what is stored under a key
    Del(del::Args),
    /// Read several keys at once, each with its own outcome
    Mget(many::MgetArgs),
    /// Store several values at once, each with its own outcome
    Mput(many::MputArgs),
    /// List the keys of a bucket: a full scan, a page at a time
    Keys(keys::Args),
    /// What would happen to a request about a key, and why; nothing is sent to the data
    Explain(explain::Args),
    /// Show values that were written without knowledge of each other
    Siblings(siblings::SiblingsArgs),
    /// Put one value in the place of all siblings
    Resolve(siblings::ResolveArgs),
    /// Counters: each increment counts once
    #[command(subcommand)]
    Counter(kinds::CounterCommand),
    /// Sets: an add wins over a remove that had not seen it
    #[command(subcommand)]
    Set(kinds::SetCommand),
    /// Flags: on wins over an off that had not seen it
    #[command(subcommand)]
    Flag(kinds::FlagCommand),
    /// Maxima: the greatest number stays
    #[command(subcommand)]
    Max(kinds::MaxCommand),
    /// Maps: fields of every kind, changed together
    #[command(subcommand)]
    Map(kinds::map::MapCommand),
    /// Buckets: places for data of one kind, with choices of their own
    #[command(subcommand)]
    Bucket(bucket::BucketCommand),
    /// How the nodes of the cluster are, each asked itself; exits 5 if something is wrong
    #[command(after_help = "\
`atoll status` shows how each node is, `atoll cluster status` who is a member and what moves,
`atoll testnet status` the processes on this machine.

Exits 5 if a node does not answer or does not hear another. A certificate that expires within 30 days is
remarked on, the node's and the caller's own, and changes no exit code: nothing is wrong yet. Renew it with
`atoll cluster renew`; a testnet gets new ones with `atoll testnet down` and `up`.")]
    Status,
    /// Who owns what, what moves, and plans for changing it
    #[command(subcommand)]
    Ring(ring::RingCommand),
    /// Look at what one node holds
    #[command(subcommand)]
    Debug(debug::DebugCommand),
    /// How far the owners of each partition agree; compare them now
    #[command(subcommand)]
    Repair(repair::RepairCommand),
    /// Run a node
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// A cluster on several machines: its papers, its members, and changes of both
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Clusters on this machine: start, stop, kill, watch
    #[command(subcommand)]
    Testnet(testnet::TestnetCommand),
    /// Measure throughput and staleness
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// What a shell needs to complete commands and options
    Completions(shell::CompletionsArgs),
    /// The manual, as man pages
    Man(shell::ManArgs),
}

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cluster_was_named = matches.value_source("cluster") == Some(ValueSource::CommandLine);
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let talks = match &cli.command {
        Command::Testnet(command) => matches!(command, testnet::TestnetCommand::Judge(_)),
        Command::Cluster(command) => command.talks(),
        _ => false,
    };
    if cluster_was_named
        && !talks
        && matches!(
            cli.command,
            Command::Testnet(_)
                | Command::Node(_)
                | Command::Cluster(_)
                | Command::Completions(_)
                | Command::Man(_)
        )
    {
        return Failed::new(
            exit::Exit::Refused,
            "--cluster says whom to talk to; this command does not talk",
        )
        .mend("testnets are named with --name, other clusters by their folder")
        .report();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failed::new(exit::Exit::Other, format!("no runtime: {error}")).report();
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.report(),
    }
}

async fn run(cli: Cli) -> Result<(), Failed> {
    let Cli { output, cluster, command } = cli;
    let cluster = cluster.as_deref();
    match command {
        Command::Put(args) => put::run(args, cluster, output).await,
        Command::Get(args) => get::run(args, cluster, output).await,
        Command::Del(args) => del::run(args, cluster, output).await,
        Command::Mget(args) => many::mget(args, cluster, output).await,
        Command::Mput(args) => many::mput(args, cluster, output).await,
        Command::Keys(args) => keys::run(args, cluster, output).await,
        Command::Explain(args) => explain::run(args, cluster, output).await,
        Command::Siblings(args) => siblings::siblings(args, cluster, output).await,
        Command::Resolve(args) => siblings::resolve(args, cluster, output).await,
        Command::Counter(command) => kinds::counter(command, cluster, output).await,
        Command::Set(command) => kinds::set(command, cluster, output).await,
        Command::Flag(command) => kinds::flag(command, cluster, output).await,
        Command::Max(command) => kinds::max(command, cluster, output).await,
        Command::Map(command) => kinds::map::run(command, cluster, output).await,
        Command::Bucket(command) => bucket::run(command, cluster, output).await,
        Command::Status => status::run(cluster, output).await,
        Command::Ring(command) => ring::run(command, cluster, output).await,
        Command::Debug(command) => debug::run(command, cluster, output).await,
        Command::Repair(command) => repair::run(command, cluster, output).await,
        Command::Node(command) => node::run(command).await,
        Command::Cluster(command) => cluster::run(command, cluster, output).await,
        Command::Testnet(command) => testnet::run(command, cluster, output).await,
        Command::Bench(command) => bench::run(command, cluster, output).await,
        Command::Completions(args) => shell::completions(args, Cli::command()),
        Command::Man(args) => shell::man(args, Cli::command()),
    }
}
