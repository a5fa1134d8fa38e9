//! `atoll testnet torture`: a load of everything, on nodes to which everything happens, and the judges of what came of it.
//!
//! The load is `bench`'s, the faults are `testnet`'s, the judges are `check`'s; here they meet. In order of time: a testnet, the
//! load beside the plan of faults, everything healed, the cluster's time to settle, the verdict, the end of the testnet. Ctrl-C
//! ends the second of these early; a second Ctrl-C ends all at once.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use atoll_bench::{Note, Torture, TortureLoad, TortureReport};
use atoll_client::{Client, NodeId, Profile};
use atoll_testnet::{
    Home, Launcher, Testnet, Wish,
    torture::{Ended, Hands, HarmKind, Plan, Said, TortureError},
};
use clap::Args;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    fault::failed_fault,
    judge, launcher,
    say::{failed_file, failed_home, failed_open, failed_start, failed_up, line},
    up::Interrupt,
};
use crate::{
    bench,
    exit::{Exit, Failed},
    output::Format,
};

mod report;

use report::Report;

/// How long, with what, and what goes wrong.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  atoll testnet torture                              a minute, with a seed that nobody has used
  atoll testnet torture --for 10m --seed 7           the plan of seed 7
  atoll testnet torture --faults kill,pause          nothing else goes wrong
  atoll testnet torture --faults none                the load alone
  atoll testnet judge HISTORY                        the verdict again, from what was written down

A testnet of its own is started, and removed if every promise was kept; otherwise it stays, for whoever wants to
look. The load writes, reads, counts and deletes values of all kinds, with levels and contexts drawn at random, half
of it in sessions. What goes wrong, with whom and when, follows from the seed, the length, the number of nodes and
the kinds of faults; what the processes make of it differs from run to run.

A disk is wiped only when all others can spare it: everything else may happen at any time. A wipe waits until the
cluster is well again, and the steps after it are put off with it.

Ctrl-C heals everything and judges what there is; a second Ctrl-C ends all at once.

Exit codes: 0 every promise was kept, 1 a node ended by itself, 2 refused, 5 the cluster did not come back,
11 a promise was broken, 130 interrupted (what there was until then kept every promise).")]
pub struct TortureArgs {
    /// How long things go wrong
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    length: Duration,

    /// What the plan and the load are drawn from [default: one that nobody has used]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// What may go wrong: kill, pause, restart, wipe, partition, isolate, slow, flaky, disk (full), slow-disk, clock; or none
    /// [default: all of it]
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', default_value = "all")]
    faults: Vec<Wanted>,

    /// How many nodes
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=64))]
    nodes: u32,

    /// Clients that ask at the same time
    #[arg(long, short = 'c', value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,

    /// About so many operations per second, all clients together
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// A new file for the history [default: histories/NAME.jsonl under $ATOLL_HOME]
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,

    /// How long the cluster may take to settle in the end
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = humantime::parse_duration)]
    wait: Duration,

    /// A testnet that is there, which is kept [default: one of its own]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["nodes", "base_port"])]
    name: Option<String>,

    /// Where the first free block of UDP ports is searched from [default: 7401]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
}

/// Kinds of faults as they are typed.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    All,
    None,
    Kind(HarmKind),
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "all" => Ok(Wanted::All),
            "none" => Ok(Wanted::None),
            word => word.parse().map(Wanted::Kind),
        }
    }
}

/// Where the torture takes place.
struct Ground {
    testnet: Testnet,
    launcher: Launcher,
    is_own: bool,
    /// The testnet started last before ours.
    current: Option<String>,
    history: PathBuf,
    seed: u64,
}

/// What came of the load and the faults.
struct Ran {
    load: TortureReport,
    faults: BTreeMap<HarmKind, u64>,
    ended: Vec<Ended>,
    length: Duration,
    interrupted: bool,
}

/// Runs the command.
pub async fn run(home: &Home, args: TortureArgs, format: Format) -> Result<(), Failed> {
    let kinds = args.kinds()?;
    let (during_start, mut interrupt) = (Interrupt::expect()?, Interrupt::expect()?);
    let ground = Ground::prepare(home, &args, during_start).await?;
    ground.check(&kinds)?;
    let (told, interrupts) = watch::channel(0_u32);
    let listening = tokio::spawn(async move {
        loop {
            interrupt.next().await;
            told.send_modify(|count| *count += 1);
        }
    });
    let judged = tokio::select! { biased;
        () = interrupted(interrupts.clone(), 2) => None,
        judged = ground.torture_and_judge(&args, &kinds, interrupts.clone(), format) => Some(judged),
    };
    listening.abort();
    let is_clean = judged.as_ref().is_some_and(Result::is_ok);
    ground.end(home, is_clean).await?;
    let Some(judged) = judged else {
        let what =
            format!("interrupted twice; what was recorded is in {}", ground.history.display());
        return Err(Failed::new(Exit::Interrupted, what));
    };
    match judged? {
        true => Err(Failed::silent(Exit::Interrupted)),
        false => Ok(()),
    }
}

/// Done when there were so many Ctrl-C.
async fn interrupted(mut interrupts: watch::Receiver<u32>, count: u32) {
    if interrupts.wait_for(|seen| *seen >= count).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl TortureArgs {
    fn kinds(&self) -> Result<Vec<HarmKind>, Failed> {
        let mut kinds = Vec::new();
        for wanted in &self.faults {
            match wanted {
                Wanted::All => kinds.extend(HarmKind::ALL),
                Wanted::None if self.faults.len() > 1 => {
                    return Err(Failed::new(Exit::Refused, "`none` and something cannot both be")
                        .mend("--faults none, or without it"));
                }
                Wanted::None => {}
                Wanted::Kind(kind) => kinds.push(*kind),
            }
        }
        kinds.sort_unstable();
        kinds.dedup();
        Ok(kinds)
    }
}

impl Ground {
    /// A testnet all of whose nodes are ready, and a place for the history.
    async fn prepare(
        home: &Home,
        args: &TortureArgs,
        interrupt: Interrupt,
    ) -> Result<Self, Failed> {
        // short enough to be typed again
        let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let name = match &args.name {
            Some(name) => home.pick(Some(name)).map_err(failed_home)?,
            None => unused(home, seed)?,
        };
        let history = match &args.history {
            Some(file) => file.clone(),
            None => default_history(home, &name)?,
        };
        if history.exists() {
            let what = format!("{} is there already", history.display());
            return Err(Failed::new(Exit::Refused, what)
                .mend("another name; a history is evidence and is not overwritten"));
        }
        let launcher = Launcher { ready_limit: READY_LIMIT, ..launcher()? };
        let current = home.current().map_err(failed_home)?;
        let is_own = args.name.is_none();
        let wish = Wish {
            name: Some(name),
            nodes: is_own.then_some(args.nodes),
            replicas: (is_own && args.nodes < 3)
                .then(|| u8::try_from(args.nodes).expect("less than 3")),
            partitions: is_own.then_some(PARTITIONS),
            base_port: args.base_port,
            allow_faults: is_own,
            ..Wish::default()
        };
        let up = atoll_testnet::up(home, &launcher, &wish, interrupt.comes(), &mut line).await;
        let testnet = match up {
            Ok(up) => up.testnet,
            Err(error) => {
                // nobody has used it yet
                if let (true, Ok(testnet)) = (is_own, Testnet::open(home, wish.name.as_deref())) {
                    atoll_testnet::down(home, &launcher, &testnet, true, &mut line)
                        .await
                        .map_err(failed_open)?;
                }
                return Err(failed_up(error));
            }
        };
        Ok(Ground { testnet, launcher, is_own, current, history, seed })
    }

    /// Whether the nodes let themselves be broken as is wanted. Our own do.
    fn check(&self, kinds: &[HarmKind]) -> Result<(), Failed> {
        let asks_nodes = kinds.iter().find(|kind| !kind.is_of_processes());
        match asks_nodes.filter(|_| !self.testnet.asked().allow_faults) {
            None => Ok(()),
            Some(kind) => {
                let (name, kind) = (self.testnet.name(), kind.word());
                let what = format!("the nodes of {name} take no faults such as {kind}");
                Err(Failed::new(Exit::Refused, what).mend(
                    "--faults kill,pause,restart,wipe; or a testnet of `testnet up --allow-faults`",
                ))
            }
        }
    }

    /// Everything between the start and the end. `true`: it was interrupted, and what there was is clean.
    async fn torture_and_judge(
        &self,
        args: &TortureArgs,
        kinds: &[HarmKind],
        interrupts: watch::Receiver<u32>,
        format: Format,
    ) -> Result<bool, Failed> {
        let before = self.incarnations().await?;
        let ran = self.torture(args, kinds, interrupts).await?;
        let profile = Profile::load(&self.testnet.profile());
        let profile = profile.map_err(|error| Failed::new(Exit::Other, error.to_string()))?;
        let client = Client::connect(&profile).await.map_err(|error| {
            Failed::new(Exit::Degraded, format!("nobody answers in the end: {error}"))
        })?;
        let mut judge = judge::hear(&self.history)?;
        let settled = judge::settle(&judge, &client, args.wait).await;
        client.close().await;
        let settled = settled?;
        judge::append(&self.history, &settled.events).map_err(|error| {
            Failed::new(Exit::Other, format!("cannot write {}: {error}", self.history.display()))
        })?;
        judge::hear_the_end(&mut judge, &settled.events);
        let verdict = judge.verdict();
        let window = judge::window(&verdict, &self.history, &[])?;
        let report = Report {
            ground: self,
            ran: &ran,
            settled: &settled,
            verdict: &verdict,
            window: window.as_ref(),
            unfounded: &self.unfounded(kinds, &before).await?,
        };
        report.print(format);
        match report.exit() {
            None => Ok(ran.interrupted),
            Some(exit) => Err(Failed::silent(exit)),
        }
    }

    /// The load beside the faults, and everything healed.
    async fn torture(
        &self,
        args: &TortureArgs,
        kinds: &[HarmKind],
        interrupts: watch::Receiver<u32>,
    ) -> Result<Ran, Failed> {
        let profile = Profile::load(&self.testnet.profile());
        let profile = profile.map_err(|error| Failed::new(Exit::Other, error.to_string()))?;
        let load = Torture {
            history: self.history.clone(),
            clients: args.clients,
            rate: args.rate,
            seed: self.seed,
            durable_min: match kinds.iter().any(|kind| kind.takes_data()) {
                true => self.testnet.asked().replicas.min(2),
                false => 1,
            },
        };
        let load = TortureLoad::prepare(&load, &profile).await.map_err(bench::failed)?;
        let ids: Vec<NodeId> = self.testnet.nodes().iter().map(|node| node.id).collect();
        let plan = Plan::draw(self.seed, args.length, &ids, kinds);
        let length = humantime::format_duration(args.length);
        anstream::eprintln!(
            "\ntorture of {} for {length}, seed {}: {} steps are planned",
            self.testnet.name(),
            self.seed,
            plan.steps.len()
        );
        let (notes, noted) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let load = async {
            let until = async { drop(stopped.await) };
            load.run(noted, until).await.map_err(bench::failed)
        };
        let faults = self.break_and_heal(&plan, args.length, interrupts, notes, stop);
        let (load, ran) = tokio::try_join!(load, faults)?;
        Ok(Ran { load, ..ran })
    }

    /// Carries out the plan until it is over or interrupted, ends the load, and heals everything.
    async fn break_and_heal(
        &self,
        plan: &Plan,
        length: Duration,
        interrupts: watch::Receiver<u32>,
        notes: mpsc::UnboundedSender<Note>,
        stop: oneshot::Sender<()>,
    ) -> Result<Ran, Failed> {
        let began = tokio::time::Instant::now();
        let mut faults = BTreeMap::new();
        let mut say = |said: Said| {
            anstream::eprintln!("{:>7.1} s  {}", began.elapsed().as_secs_f64(), said.text);
            if let Some(kind) = said.kind {
                *faults.entry(kind).or_default() += 1;
            }
            let kind = said.kind.map(|kind| kind.word().to_owned());
            let _ = notes.send(Note { kind, says: said.text });
        };
        let mut hands = Hands::new(&self.testnet, &self.launcher);
        let interrupted = tokio::select! { biased;
            () = interrupted(interrupts, 1) => true,
            done = hands.carry_out(plan, length, &mut say) => {
                done.map_err(failed_torture)?;
                false
            }
        };
        let lasted = began.elapsed();
        let healed = hands.undo(&mut say).await;
        let _ = stop.send(()); // a load that has failed says so itself
        healed.map_err(failed_torture)?;
        let ended = hands.ended().to_vec();
        Ok(Ran { load: TortureReport::default(), faults, ended, length: lasted, interrupted })
    }

    /// Who has taken a new incarnation though nobody has taken its disk: a killed process loses nothing.
    async fn unfounded(
        &self,
        kinds: &[HarmKind],
        before: &BTreeMap<NodeId, u32>,
    ) -> Result<Vec<NodeId>, Failed> {
        if kinds.iter().any(|kind| kind.takes_data()) {
            return Ok(Vec::new());
        }
        let after = self.incarnations().await?;
        let is_new = |(node, incarnation): &(NodeId, u32)| before.get(node) != Some(incarnation);
        Ok(after.into_iter().filter(is_new).map(|(node, _)| node).collect())
    }

    async fn incarnations(&self) -> Result<BTreeMap<NodeId, u32>, Failed> {
        let reports = atoll_testnet::status(&self.testnet).await.map_err(failed_file)?;
        let told =
            reports.iter().filter_map(|report| Some((report.node.id, report.status.as_ref()?)));
        Ok(told.map(|(node, status)| (node, status.incarnation)).collect())
    }

    /// Ends a testnet of our own, and removes it unless somebody should look at it.
    async fn end(&self, home: &Home, remove: bool) -> Result<(), Failed> {
        if !self.is_own {
            return Ok(());
        }
        let mut quietly = |_| {};
        atoll_testnet::down(home, &self.launcher, &self.testnet, remove, &mut quietly)
            .await
            .map_err(failed_open)?;
        if let Some(current) = &self.current {
            home.set_current(current).map_err(failed_home)?;
        }
        if !remove {
            let (name, folder) = (self.testnet.name(), self.testnet.folder().display());
            anstream::eprintln!("\nthe nodes have ended; their data and logs are kept in {folder}");
            anstream::eprintln!("remove them: atoll testnet down {name} --remove");
        }
        Ok(())
    }
}

/// A name for a testnet of our own: evidence of a former run is not touched.
fn unused(home: &Home, seed: u64) -> Result<String, Failed> {
    let names = (1_u32..).map(|number| match number {
        1 => format!("torture-{seed}"),
        number => format!("torture-{seed}-{number}"),
    });
    for name in names {
        let is_free = !home.entry(&name).map_err(failed_home)?.exists();
        if is_free && !history_of(home, &name).exists() {
            return Ok(name);
        }
    }
    unreachable!("numbers do not end")
}

fn history_of(home: &Home, name: &str) -> PathBuf {
    home.folder().join("histories").join(format!("{name}.jsonl"))
}

fn default_history(home: &Home, name: &str) -> Result<PathBuf, Failed> {
    let file = history_of(home, name);
    let folder: &Path = file.parent().expect("it lies in a folder");
    fs::create_dir_all(folder).map_err(|error| {
        Failed::new(Exit::Other, format!("cannot make {}: {error}", folder.display()))
    })?;
    Ok(file)
}

fn failed_torture(error: TortureError) -> Failed {
    match error {
        TortureError::Start(error) => {
            let failed = failed_start(&error);
            Failed { exit: Exit::Degraded, ..failed }
        }
        TortureError::Open(error) => failed_open(error),
        TortureError::File(error) => failed_file(error),
        TortureError::Fault(error) => failed_fault(error),
        TortureError::Well(_) => Failed::new(Exit::Other, error.to_string()),
    }
}

/// A node may have much to read, on a machine where everything else starts, too.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Few, so that all of a ring is compared often.
const PARTITIONS: u32 = 128;
