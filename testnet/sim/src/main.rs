//! `atoll-sim`: runs seeds, shows what they broke, and how to see it again.
//!
//! For whoever works on Atoll; it is not installed. What a run is stands in the library, here only arguments and output.

use std::{
    cell::Cell,
    fs, io,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use atoll_node::canary::Canary;
use atoll_sim::{
    canaries::{self, CAUGHT},
    faults::Kind,
    figures::Figures,
    kv679,
    many::{Wish, run_many, seeds_of_commit},
    run::{Settings, Verdict},
};
use clap::{Parser, ValueEnum};

/// Runs whole clusters in one thread each, on virtual time, with faults that a seed decides
///
/// Clients write, read and delete while machines, disks, links and clocks fail; then everything heals and must become
/// equal by itself. Judges read what every client asked and heard. Exits 0 only if no promise was broken.
#[derive(Parser)]
#[command(name = "atoll-sim", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  atoll-sim                               the 100 fixed seeds and the model of one key
  atoll-sim --seeds 1..500                five hundred, the last one included
  atoll-sim --seeds 1..50 --faults crash,pause,loss
  atoll-sim --from-commit $(git rev-parse HEAD) --count 100
  atoll-sim --seeds 17 --trace 17.trace   one run, told step by step
  atoll-sim --canaries                    are deliberate bugs noticed?
  atoll-sim --scenario kv679              the model of one key alone

Exit codes: 0 nothing was broken, 1 a promise was, 2 the arguments make no sense.")]
struct Cli {
    /// Seeds: one, or FROM..TO with both ends
    #[arg(long, value_name = "SEEDS", value_parser = range, conflicts_with = "from_commit")]
    seeds: Option<Seeds>,

    /// Draw the seeds from this text, such as the id of a commit
    #[arg(long, value_name = "TEXT")]
    from_commit: Option<String>,

    /// How many seeds to draw
    #[arg(long, value_name = "N", default_value_t = 100, requires = "from_commit")]
    count: u64,

    /// Only these faults, with commas between them; `none` for none
    #[arg(long, value_name = "LIST", value_parser = kinds)]
    faults: Option<Kinds>,

    /// Use registers only, and no sessions: as runs were before there were other kinds
    #[arg(long)]
    registers_only: bool,

    /// Runs at the same time [default: one per core]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Where to write the trace of the run, if it is one. Traces of broken runs are written in any case
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Switch on one deliberate bug after the other; succeeds if each is caught by the fixed seeds
    #[arg(long, conflicts_with_all = ["seeds", "from_commit", "faults", "canary", "scenario"])]
    canaries: bool,

    /// Switch on this deliberate bug
    #[arg(long, value_name = "NAME", value_parser = canaries::of_word)]
    canary: Option<Canary>,

    /// Run this alone
    #[arg(long, value_enum, conflicts_with_all = ["seeds", "from_commit", "faults"])]
    scenario: Option<Scenario>,

    /// Stop at the first broken promise
    #[arg(long)]
    until_broken: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// Riak's model of one key: three owners and three fallbacks, put, forget, replicate, hand off
    Kv679,
}

/// One or many.
#[derive(Clone)]
struct Seeds(Vec<u64>);

/// `none` is a list, too.
#[derive(Clone)]
struct Kinds(Vec<Kind>);

fn range(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once("..") {
        None => Ok(Seeds(vec![number(text)?])),
        Some((from, to)) => {
            let (from, to) = (number(from)?, number(to)?);
            if from > to {
                return Err(format!("{from} is above {to}"));
            }
            Ok(Seeds((from..=to).collect()))
        }
    }
}

fn kinds(text: &str) -> Result<Kinds, String> {
    match text {
        "none" => Ok(Kinds(Vec::new())),
        "all" => Ok(Kinds(Kind::ALL.to_vec())),
        list => list.split(',').map(str::parse).collect::<Result<_, _>>().map(Kinds),
    }
}

thread_local! {
    /// Which run this thread is at, for the last words of a panic.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = cli.jobs.unwrap_or(cores);
    if cli.canaries {
        return look_for_canaries(jobs);
    }
    let faults = cli.faults.as_ref().map(|Kinds(kinds)| kinds.clone());
    let settings = Settings {
        kinds: faults.clone().unwrap_or_else(|| Kind::ALL.to_vec()),
        all_kinds: !cli.registers_only,
        canary: cli.canary,
        aloud: false,
    };
    let replay = Replay { faults, canary: cli.canary, registers_only: cli.registers_only };
    let seeds = match (&cli.seeds, &cli.from_commit) {
        (Some(Seeds(seeds)), _) => seeds.clone(),
        (None, Some(text)) => seeds_of_commit(text, cli.count),
        (None, None) => canaries::SEEDS.collect(),
    };
    let mut whole = true;
    if cli.scenario.is_some() || (cli.seeds.is_none() && cli.canary.is_none()) {
        whole &= model(cli.canary);
    }
    if cli.scenario.is_none() {
        say_where_it_panics(replay.clone());
        whole &= run_seeds(&seeds, &settings, jobs, &cli, &replay);
    }
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn model(canary: Option<Canary>) -> bool {
    let began = Instant::now();
    let found = kv679::run_all(kv679::SEQUENCES, canary);
    println!(
        "kv679: {} sequences of {} steps in {:.1} s: {}",
        found.sequences,
        found.steps,
        began.elapsed().as_secs_f64(),
        if found.broken.is_empty() { "nothing lost" } else { "BROKEN" }
    );
    for (seed, why) in found.broken.iter().take(5) {
        println!("  sequence {seed}: {why}");
    }
    if let Some((seed, why)) = found.broken.first() {
        println!("{CAUGHT}sequence {seed}: {why}");
    }
    found.broken.is_empty()
}

/// How to see a run again.
#[derive(Clone)]
struct Replay {
    faults: Option<Vec<Kind>>,
    canary: Option<Canary>,
    registers_only: bool,
}

impl Replay {
    fn command(&self, seed: u64) -> String {
        let mut command = format!("atoll-sim --seeds {seed}");
        if let Some(kinds) = &self.faults {
            let words: Vec<&str> = kinds.iter().map(|kind| kind.word()).collect();
            let list = if words.is_empty() { "none".to_owned() } else { words.join(",") };
            command += &format!(" --faults {list}");
        }
        if let Some(canary) = self.canary {
            command += &format!(" --canary {}", canaries::word(canary));
        }
        if self.registers_only {
            command += " --registers-only";
        }
        command + &format!(" --trace {seed}.trace")
    }
}

fn run_seeds(seeds: &[u64], settings: &Settings, jobs: usize, cli: &Cli, replay: &Replay) -> bool {
    let began = Instant::now();
    let mut all = Figures::default();
    let mut failed = Vec::new();
    let mut progress = Progress::new(seeds.len());
    run_many(seeds, settings, jobs, |verdict| {
        all.add(&verdict.figures);
        progress.one_more(failed.len());
        if let (Some(file), 1) = (&cli.trace, seeds.len()) {
            write_trace(file, &verdict);
            println!("trace {} written to {}", &verdict.record.hash[..16], file.display());
        }
        if verdict.broken.is_empty() {
            return Wish::More;
        }
        failed.push(verdict.seed);
        show(&verdict, replay);
        if cli.until_broken { Wish::Enough } else { Wish::More }
    });
    progress.end();
    let took = began.elapsed().as_secs_f64().max(0.001);
    print!("{all}");
    println!(
        "  {} seeds in {took:.1} s: {:.0} seeds per minute, {:.0} messages per second on {jobs} threads",
        all.seeds,
        all.seeds as f64 / took * 60.0,
        all.messages as f64 / took
    );
    match failed.as_slice() {
        [] => println!("  nothing was broken"),
        some => println!("  BROKEN in {} of {} seeds: {some:?}", some.len(), all.seeds),
    }
    failed.is_empty()
}

fn show(verdict: &Verdict, replay: &Replay) {
    let seed = verdict.seed;
    println!("{CAUGHT}seed {seed}: {}", verdict.broken[0]);
    for broken in verdict.broken.iter().skip(1).take(4) {
        println!("  {broken}");
    }
    if verdict.broken.len() > 5 {
        println!("  and {} more", verdict.broken.len() - 5);
    }
    println!("  replay: {}", replay.command(seed));
    if replay.canary.is_none() {
        let folder = std::env::temp_dir().join("atoll-sim");
        let file = folder.join(format!("{seed}.trace"));
        let _ = fs::create_dir_all(&folder);
        write_trace(&file, verdict);
        println!("  trace:  {}", file.display());
    }
}

/// The trace for people, and beside it the history for `atoll testnet judge`.
fn write_trace(file: &Path, verdict: &Verdict) {
    let write = || -> io::Result<()> {
        let mut trace = io::BufWriter::new(fs::File::create(file)?);
        for line in &verdict.record.lines {
            writeln!(trace, "{line}")?;
        }
        for broken in &verdict.broken {
            writeln!(trace, "BROKEN {broken}")?;
        }
        writeln!(trace, "hash {}", verdict.record.hash)?;
        trace.flush()?;
        let mut history = io::BufWriter::new(fs::File::create(file.with_extension("history"))?);
        for event in &verdict.record.events {
            atoll_check::write_event(&mut history, event)?;
        }
        history.flush()
    };
    if let Err(error) = write() {
        eprintln!("{}: {error}", file.display());
    }
}

/// In a release build a panic ends the process. It shall not end without saying where.
fn say_where_it_panics(replay: Replay) {
    atoll_sim::run::on_begin(|seed| SEED.set(Some(seed)));
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if let Some(seed) = SEED.get() {
            let why = panic.to_string().replace('\n', " ");
            println!("{CAUGHT}seed {seed}: a node stops at an assertion: {why}");
            println!("  replay: {}", replay.command(seed));
            let _ = io::stdout().flush();
            std::process::exit(1);
        }
    }));
}

fn look_for_canaries(jobs: usize) -> ExitCode {
    let mut missed = Vec::new();
    for canary in Canary::ALL {
        let began = Instant::now();
        let word = canaries::word(canary);
        let found = canaries::look_for(canary, jobs);
        let took = began.elapsed().as_secs_f64();
        match &found {
            Ok(Some(by)) => println!("{word:<22} caught in {took:5.1} s by {by}"),
            Ok(None) => println!("{word:<22} NOT CAUGHT"),
            Err(error) => println!("{word:<22} NOT CAUGHT: {error}"),
        }
        let _ = io::stdout().flush();
        if !matches!(found, Ok(Some(_))) {
            missed.push(word);
        }
    }
    match missed.as_slice() {
        [] => {
            println!("all {} deliberate bugs were caught", Canary::ALL.len());
            ExitCode::SUCCESS
        }
        some => {
            println!("not caught: {}", some.join(", "));
            ExitCode::FAILURE
        }
    }
}

/// A line on the terminal that says how far it is.
struct Progress {
    of: usize,
    done: usize,
    began: Instant,
    said: Instant,
    shown: bool,
}

impl Progress {
    fn new(of: usize) -> Self {
        let now = Instant::now();
        Progress { of, done: 0, began: now, said: now, shown: io::stderr().is_terminal() }
    }

    fn one_more(&mut self, failed: usize) {
        self.done += 1;
        let every = if self.shown { Duration::from_millis(200) } else { Duration::from_secs(20) };
        if self.said.elapsed() < every {
            return;
        }
        self.said = Instant::now();
        let (done, of) = (self.done, self.of);
        let seconds = self.began.elapsed().as_secs();
        let line = format!("{done} of {of} seeds in {seconds} s, {failed} broken");
        if self.shown {
            eprint!("\r{line}  ");
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r{:60}\r", "");
        }
    }
}
