//! `atoll testnet`: clusters on this machine.
//!
//! This file is what can be typed and where it leads. [`up`] is the longest story and has its own file, [`which`] says whom
//! a command means, [`damage`] is what is done to disks, [`mod@env`] and [`export`] are the ways out, [`story`] tells what all this does, [`show`] holds the tables, [`say`] turns events into lines and errors into words. What is done is done by `atoll_testnet`.

use std::path::PathBuf;

use atoll_testnet::{Condition, Home, Launcher, Testnet, start, stop};
use clap::{Args, Subcommand};

use crate::{
    exit::{Exit, Failed},
    faults::FaultArgs,
    output::Format,
};

mod damage;
mod env;
mod export;
mod fault;
mod grow;
mod judge;
mod logs;
mod say;
mod show;
mod status;
mod story;
mod torture;
mod up;
mod watch;
mod which;

use say::{failed_file, failed_home, failed_open, failed_start, line};
use up::Interrupt;
use which::Nodes;

/// Clusters on this machine.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  atoll testnet up                           five nodes, three copies of each key
  atoll testnet up --name two --zones 3      a second one beside it
  atoll testnet up --name scratch --ephemeral
                                             in the foreground; Ctrl-C ends and removes it
  atoll testnet kill n2                      as a power cut would
  atoll testnet start n2                     and back again, with its data
  atoll testnet restart n2 --allow-faults --fail-sync 7
                                             its disk will fail, and it will stop with exit code 10
  atoll testnet wipe n2                      its disk is lost; restart it, and the others repair it
  atoll testnet fault partition n1,n2 n3,n4,n5
                                             two sides; needs up --allow-faults; healed by: testnet heal
  atoll testnet pause n3 n4                  they keep their sockets and say nothing
  atoll testnet kill minority                as many as can be missing; also zone:z1, owners-of:cart:7
  atoll testnet restart --random 2 --seed 7  two, and the same two with the same seed
  atoll testnet add                          one node more, while it serves
  atoll testnet decommission n2              one node less; it gives away what it owns first
  atoll testnet corrupt n2 --records 3       a disk that forgets; start it, and the others repair it
  atoll testnet logs -f --merged             all nodes on one time line
  eval \"$(atoll testnet env)\"                where everything is, for scripts
  atoll testnet export compose DIR           the same cluster in containers; systemd: on real hosts
  atoll testnet status --watch               how they are and hear each other, every second
  atoll testnet watch                        the ring, the links and the load, with keys to break and mend
  atoll testnet judge run.jsonl              was anything lost of what `bench run --history` wrote?
  atoll testnet tour                         what it does when nodes die, told and shown
  atoll testnet torture --for 10m            everything at once, on a testnet of its own: is anything ever lost?
  atoll testnet down                         ends all nodes; data is kept

They live under $ATOLL_HOME, default $XDG_STATE_HOME/atoll, else ~/.local/state/atoll.")]
pub enum TestnetCommand {
    /// Start a testnet: a new one, or one that exists with its data
    Up(UpArgs),
    /// End all nodes of a testnet; its data is kept
    Down(DownArgs),
    /// Add a node while the testnet serves, and wait until it has its share
    Add(grow::AddArgs),
    /// Let a node give away all it owns, then end it
    Decommission(grow::DecommissionArgs),
    /// All testnets
    Ls,
    /// How the nodes are and hear each other, in a line each; exits 5 if something is wrong
    Status(status::StatusArgs),
    /// The same and more, full-screen and as it changes: the ring, the links, the load; with keys to break and mend
    Watch(watch::WatchArgs),
    /// What the nodes have said
    Logs(logs::LogsArgs),
    /// End nodes with SIGKILL, as a power cut would
    Kill(Nodes),
    /// End nodes with SIGTERM and wait for it
    Stop(Nodes),
    /// Take the disks of nodes away: kill them and remove all they have stored
    #[command(after_help = "\
Example:
  atoll testnet wipe n2 && atoll testnet restart n2

A node that comes back with an empty disk takes a new incarnation. Its answers do not count until it was compared with the other owners of its keys.
Certificates and settings are kept. `atoll status` shows how far it is.")]
    Wipe(Nodes),
    /// Damage records on the disks of nodes: kill them and turn over one byte in each of K records
    Corrupt(damage::CorruptArgs),
    /// Cut the end off the journals of nodes: kill them and take away what they have fsynced last
    TruncateJournal(damage::TruncateArgs),
    /// Start nodes with their data and wait until they are ready
    Start(StartArgs),
    /// Stop, then start
    Restart(StartArgs),
    /// Freeze nodes with SIGSTOP: they keep their sockets and say nothing
    Pause(Nodes),
    /// Let paused nodes go on
    Resume(Nodes),
    /// Shell variables that say where everything is: eval "$(atoll testnet env)"
    Env(env::EnvArgs),
    /// Write what the same cluster needs on real hosts
    #[command(subcommand)]
    Export(export::ExportCommand),
    #[command(subcommand)]
    Fault(fault::FaultCommand),
    /// Take the faults of all links away; with --all everything that is broken on purpose
    Heal(fault::HealArgs),
    /// Judge the history of a load: was anything lost?
    Judge(judge::JudgeArgs),
    /// What Atoll does when something breaks, told on real nodes: `story ls` shows what there is
    Story(story::StoryArgs),
    /// Four stories for a newcomer, in under three minutes
    Tour(story::tour::TourArgs),
    /// Break a testnet at random while a load runs, and judge what came of it
    Torture(torture::TortureArgs),
}

/// What can be asked for once. A later `up` may repeat it and not contradict it.
#[derive(Args, Debug)]
#[command(after_help = "\
The first free block of UDP ports at or above the base port is taken: n3 is at 7403, in the second
testnet at 7413. All of this is written down and never changes; `testnet add` and `decommission` change
who is a node of it.")]
pub struct UpArgs {
    /// How many nodes, 1 to 64 [default: 5]
    #[arg(short = 'n', long, value_name = "N")]
    nodes: Option<u32>,

    /// How many zones; the copies of a key are spread over them [default: 1]
    #[arg(long, value_name = "N")]
    zones: Option<u32>,

    /// Copies of each key [default: 3]
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,

    /// Partitions of the ring, a power of two [default: 1024]
    #[arg(long, value_name = "Q")]
    partitions: Option<u32>,

    /// Name of the testnet [default: $ATOLL_TESTNET, else dev]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Where it lives [default: under $ATOLL_HOME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Where the first free block of UDP ports is searched from [default: 7401]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,

    /// Stay in the foreground; on Ctrl-C end all nodes and remove the testnet
    #[arg(long)]
    ephemeral: bool,

    /// Let the nodes be broken on purpose; kept by each later start, restart and add
    #[arg(long)]
    allow_faults: bool,
}

/// Which testnets to end.
#[derive(Args, Debug)]
pub struct DownArgs {
    /// Names [default: the testnet started last]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Every testnet
    #[arg(long, conflicts_with = "names")]
    all: bool,

    /// Remove it too, with all its data
    #[arg(long)]
    remove: bool,
}

/// Which testnet.
#[derive(Args, Debug)]
pub struct Named {
    /// Name of the testnet [default: $ATOLL_TESTNET, else the one started last]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Nodes to start, and what they shall bear.
#[derive(Args, Debug)]
pub struct StartArgs {
    #[command(flatten)]
    nodes: Nodes,

    #[command(flatten)]
    faults: FaultArgs,
}

/// Runs the command.
pub async fn run(
    command: TestnetCommand,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let home = Home::find().map_err(failed_home)?;
    match command {
        TestnetCommand::Up(args) => up::run(&home, args, format).await,
        TestnetCommand::Down(args) => down(&home, args).await,
        TestnetCommand::Add(args) => grow::add(&home, args, format).await,
        TestnetCommand::Decommission(args) => grow::decommission(&home, args, format).await,
        TestnetCommand::Ls => show::ls(&home, format),
        TestnetCommand::Status(args) => status::run(args, &home, format).await,
        TestnetCommand::Watch(args) => watch::run(args, &home, format).await,
        TestnetCommand::Logs(args) => logs::run(&home, args, format).await,
        TestnetCommand::Kill(args) => {
            let chosen = args.choose(&home).await?;
            stop::kill(&chosen.nodes, &mut line).await.map_err(failed_file)?;
            chosen.done("kill", format);
            Ok(())
        }
        TestnetCommand::Stop(args) => {
            let chosen = args.choose(&home).await?;
            let launcher = launcher()?;
            let _lock = chosen.testnet.lock(launcher.lock_limit()).await.map_err(failed_open)?;
            let nodes = chosen.nodes.clone();
            stop::stop(nodes, launcher.stop_limit, &mut line).await.map_err(failed_file)?;
            chosen.done("stop", format);
            Ok(())
        }
        TestnetCommand::Wipe(args) => wipe(&home, args, format).await,
        TestnetCommand::Corrupt(args) => damage::corrupt(&home, args, format).await,
        TestnetCommand::TruncateJournal(args) => damage::truncate(&home, args, format).await,
        TestnetCommand::Start(args) => start(&home, args, false, format).await,
        TestnetCommand::Restart(args) => start(&home, args, true, format).await,
        TestnetCommand::Pause(args) => {
            let chosen = args.choose(&home).await?;
            stop::pause(&chosen.nodes, &mut line).map_err(failed_file)?;
            chosen.done("pause", format);
            Ok(())
        }
        TestnetCommand::Resume(args) => {
            let chosen = args.choose(&home).await?;
            stop::resume(&chosen.nodes, &mut line).map_err(failed_file)?;
            chosen.done("resume", format);
            Ok(())
        }
        TestnetCommand::Env(args) => env::run(&home, &args, format),
        TestnetCommand::Export(command) => export::run(&home, command, format),
        TestnetCommand::Fault(command) => fault::run(&home, command, format).await,
        TestnetCommand::Heal(args) => fault::heal(&home, &args, format).await,
        TestnetCommand::Judge(args) => judge::run(args, cluster, format).await,
        TestnetCommand::Story(args) => story::run(&home, args, format).await,
        TestnetCommand::Tour(args) => story::tour::run(&home, args, format).await,
        TestnetCommand::Torture(args) => torture::run(&home, args, format).await,
    }
}

async fn down(home: &Home, args: DownArgs) -> Result<(), Failed> {
    let names = match (args.all, args.names.is_empty()) {
        (true, _) => home.names().map_err(failed_home)?,
        (false, true) => vec![home.pick(None).map_err(failed_home)?],
        (false, false) => args.names,
    };
    let launcher = launcher()?;
    for name in names {
        let testnet = Testnet::open(home, Some(&name)).map_err(failed_open)?;
        anstream::eprintln!("testnet {name}");
        atoll_testnet::down(home, &launcher, &testnet, args.remove, &mut line)
            .await
            .map_err(failed_open)?;
        if testnet.exists() {
            anstream::eprintln!("  its data is kept in {}", testnet.folder().display());
        }
    }
    Ok(())
}

async fn start(
    home: &Home,
    args: StartArgs,
    stop_first: bool,
    format: Format,
) -> Result<(), Failed> {
    args.faults.faults()?; // refused here rather than by each node
    let interrupt = Interrupt::expect()?;
    let chosen = args.nodes.choose(home).await?;
    let (testnet, nodes) = (&chosen.testnet, chosen.nodes.clone());
    let launcher = Launcher { node_arguments: args.faults.to_arguments(), ..launcher()? };
    let _lock = testnet.lock(launcher.lock_limit()).await.map_err(failed_open)?;
    if stop_first {
        stop::stop(nodes.clone(), launcher.stop_limit, &mut line).await.map_err(failed_file)?;
    } else if !launcher.node_arguments.is_empty() {
        // a node hears of its faults when it starts: one that runs would not be broken, without a word
        for node in &nodes {
            if let Condition::Running(_) | Condition::Paused(_) =
                node.condition().map_err(failed_file)?
            {
                let what = format!("{} runs already and cannot be told of faults", node.id);
                return Err(Failed::new(Exit::Refused, what).mend("restart instead of start"));
            }
        }
    }
    start::start(testnet, &launcher, nodes, interrupt.comes(), &mut line)
        .await
        .map_err(|error| failed_start(&error))?;
    chosen.done(if stop_first { "restart" } else { "start" }, format);
    Ok(())
}

async fn wipe(home: &Home, args: Nodes, format: Format) -> Result<(), Failed> {
    let chosen = args.choose(home).await?;
    let _lock = chosen.testnet.lock(launcher()?.lock_limit()).await.map_err(failed_open)?;
    stop::wipe(&chosen.nodes, &mut line).await.map_err(failed_file)?;
    show::wiped(&chosen, format);
    Ok(())
}

impl Named {
    fn open(&self, home: &Home) -> Result<Testnet, Failed> {
        Testnet::open(home, self.name.as_deref()).map_err(failed_open)
    }
}

fn launcher() -> Result<Launcher, Failed> {
    Launcher::current().map_err(|error| {
        Failed::new(Exit::Other, format!("cannot find out which program this is: {error}"))
    })
}
