//! `atoll testnet judge`: was anything lost? Reads the history of a load, gives the cluster its time to settle, looks at all
//! disks, and lets the judges of `atoll-check` speak.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use atoll_check::{BadLine, Event, Judge, Verdict, write_event};
use atoll_testnet::{SettleError, Settled, Settling};
use clap::Args;
use serde::Serialize;

use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    request::connect,
};

/// Which history, and how it ends.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  atoll bench run --for 60s --history run.jsonl    and kill nodes meanwhile: atoll testnet kill n2
  atoll testnet start n2                           all of them must be up in the end
  atoll testnet judge run.jsonl                    was anything lost?
  atoll testnet judge run.jsonl --save whole.jsonl keeps what the disks held, too
  atoll testnet judge whole.jsonl --offline        the same verdict, without a cluster
  atoll testnet judge run.jsonl --cluster prod/users/operator/profile.toml

Judged are: no acknowledged write is lost, none comes back, every event is known, nobody sees what nobody
wrote, no event is given twice, `not applied` is never wrong, overlapping quorums see each other, receipts
are true, and in the end all owners hold the same. It needs an operator's certificate, which the profile of
a testnet has.

Exit codes: 0 every promise was kept, 2 refused (also a file that is no history), 4 cannot connect,
5 a node does not answer, 11 a promise was broken.")]
pub struct JudgeArgs {
    /// The history, as `atoll bench run --history` writes it
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Talk to nobody. A history without an end is judged as far as that goes
    #[arg(long, conflicts_with_all = ["wait", "save"])]
    offline: bool,

    /// How long the cluster may take to settle
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,

    /// Write the history with its end to a new file
    #[arg(long, value_name = "OUT")]
    save: Option<PathBuf>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    history: &'a Path,
    clean: bool,
    /// How long the cluster took; absent offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_after_ms: Option<u64>,
    /// What was still to be waited for when time was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_settled: Option<&'a str>,
    #[serde(flatten)]
    verdict: &'a Verdict,
    violations_not_shown: u64,
}

/// Runs the command.
pub async fn run(args: JudgeArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let mut judge = Judge::new();
    let lines = File::open(&args.file).map_err(|error| unreadable(&args.file, &error))?;
    judge.hear_file(BufReader::new(lines)).map_err(|error| no_history(&args.file, &error))?;
    let settled = match (args.offline, judge.is_settled()) {
        (true, _) => None,
        (false, true) => {
            let what = format!("{} has its end already", args.file.display());
            return Err(Failed::new(Exit::Refused, what).mend("judge it with --offline"));
        }
        (false, false) => {
            let settled = settle(&judge, cluster, args.wait).await?;
            for event in &settled.events {
                judge.hear(event).expect("an end follows what has none");
            }
            if let Some(out) = &args.save {
                save(&args.file, &settled.events, out)?;
            }
            Some(settled)
        }
    };
    let verdict = judge.verdict();
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.verdict/v1",
            history: &args.file,
            clean: verdict.is_clean(),
            settled_after_ms: settled.as_ref().map(|settled| settled.after.as_millis() as u64),
            not_settled: settled.as_ref().and_then(|settled| settled.not_yet.as_deref()),
            verdict: &verdict,
            violations_not_shown: verdict.not_shown(),
        }),
        Format::Plain => {
            for violation in &verdict.violations {
                anstream::println!("{violation}");
            }
        }
        Format::Table => table(&verdict, settled.as_ref()),
    }
    if verdict.is_clean() { Ok(()) } else { Err(Failed::silent(Exit::Violated)) }
}

async fn settle(judge: &Judge, cluster: Option<&str>, limit: Duration) -> Result<Settled, Failed> {
    let client = connect(cluster).await?;
    let settling = Settling::new(&client, judge.keys());
    let mut last = String::new();
    let wait = |reason: &str| {
        if last != reason {
            anstream::eprintln!("waiting: {reason}");
            reason.clone_into(&mut last);
        }
    };
    let settled = settling.until(limit, wait).await;
    client.close().await;
    settled.map_err(|error| {
        let failed = Failed::new(Exit::Degraded, error.to_string());
        match error {
            _ if error.is_refusal() => {
                Failed::new(Exit::Refused, "looking at disks needs an operator's certificate")
                    .mend("atoll cluster client-cert DIR --name NAME --role operator")
            }
            SettleError::Silent { node, .. } => {
                failed.mend(format!("atoll testnet start {node}; in the end all must be up"))
            }
            SettleError::NotShown { .. } => failed.mend("atoll status"),
        }
    })
}

fn save(history: &Path, end: &[Event], out: &Path) -> Result<(), Failed> {
    let copied = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create_new(out)?);
        io::copy(&mut File::open(history)?, &mut out)?;
        end.iter().try_for_each(|event| write_event(&mut out, event))?;
        out.flush()
    };
    copied().map_err(|error| {
        let what = format!("cannot write {}: {error}", out.display());
        let failed = Failed::new(Exit::Refused, what);
        match error.kind() {
            ErrorKind::AlreadyExists => failed.mend("another name; nothing is overwritten"),
            _ => failed,
        }
    })
}

fn table(verdict: &Verdict, settled: Option<&Settled>) {
    let figures = &verdict.figures;
    let row = |name: &str, text: String| anstream::println!("{name:<11}{text}");
    let mut counts = format!(
        "{} operations on {} keys: {} writes acknowledged, {} reads answered",
        figures.operations, figures.keys, figures.acknowledged, figures.reads
    );
    for (count, words) in [
        (figures.not_applied, "not applied"),
        (figures.applied, "applied on some"),
        (figures.unknown, "unknown"),
        (figures.silent, "never answered"),
        (figures.exempt, "excused"),
    ] {
        if count > 0 {
            counts += &format!(", {count} {words}");
        }
    }
    row("history", counts);
    row("promised", format!("{} reads had to see something", figures.promised_reads));
    match settled {
        Some(Settled { not_yet: Some(reason), .. }) => row("end", format!("not settled: {reason}")),
        Some(settled) => {
            let after = settled.after.as_secs_f64();
            row("end", format!("settled after {after:.1} s, {} records compared", figures.held));
        }
        None if verdict.is_settled => row("end", format!("{} records compared", figures.held)),
        None => row("end", "none: what was lost, and whether all agree, cannot be said".into()),
    }
    if verdict.is_clean() {
        row("verdict", "every promise was kept".into());
        return;
    }
    let total: u64 = verdict.broken.values().sum();
    row("verdict", format!("\x1b[1;31m{total} violations\x1b[0m"));
    for (promise, times) in &verdict.broken {
        anstream::println!("\n{promise}: broken {times} times");
        let of_it = verdict.violations.iter().filter(|violation| violation.promise == *promise);
        for violation in of_it.take(SHOWN_MAX) {
            let text = violation.to_string();
            let text = text.strip_prefix(&format!("{promise}: ")).unwrap_or(&text);
            anstream::println!("  {text}");
        }
        if *times > SHOWN_MAX as u64 {
            anstream::println!(
                "  and {} more; -o json shows up to {}",
                times - SHOWN_MAX as u64,
                Verdict::SHOWN_MAX
            );
        }
    }
}

/// Of each promise, in a table.
const SHOWN_MAX: usize = 10;

fn unreadable(file: &Path, error: &io::Error) -> Failed {
    let failed = Failed::new(Exit::Refused, format!("cannot read {}: {error}", file.display()));
    match error.kind() {
        ErrorKind::NotFound => failed.mend("atoll bench run --history FILE writes one"),
        _ => failed,
    }
}

fn no_history(file: &Path, error: &BadLine) -> Failed {
    let failed = Failed::new(Exit::Refused, format!("{}: {error}", file.display()));
    match error {
        BadLine::NoEvent { .. } => failed.mend(
            "if it is the last line, its recorder was cut off: remove that line and judge the rest",
        ),
        BadLine::Nonsense { .. } => failed.mend("histories of several runs cannot be put together"),
        BadLine::Unreadable { .. } => failed,
    }
}
