//! `atoll testnet judge`: was anything lost? Reads the history of a load, gives the cluster its time to settle, looks at all
//! disks, and lets the judges of `atoll-check` speak. [`verdict`] prints what they say; `testnet torture` uses both.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use atoll_check::{BadLine, Event, Judge, Verdict, Window, read_history, write_event};
use atoll_client::Client;
use atoll_testnet::{SettleError, Settled, Settling};
use clap::Args;

use crate::{
    exit::{Exit, Failed},
    output::Format,
    request::connect,
};

pub mod verdict;

use verdict::Judged;

/// Which history, and how it ends.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  atoll bench run --for 60s --history run.jsonl    and kill nodes meanwhile: atoll testnet kill n2
  atoll testnet start n2                           all of them must be up in the end
  atoll testnet judge run.jsonl                    was anything lost?
  atoll testnet judge run.jsonl --save whole.jsonl keeps what the disks held, too
  atoll testnet judge whole.jsonl                  the same verdict, without a cluster
  atoll testnet judge run.jsonl --cluster prod/users/operator/profile.toml

Judged are: no acknowledged write is lost, none comes back, every event is known, nobody sees what nobody
wrote, no event is given twice, `not applied` is never wrong, overlapping quorums see each other, receipts
are true, and in the end all owners hold the same. If a promise was broken, the operations around the first
violation are shown. A history that has its end, as `atoll testnet torture` writes it, is judged as it stands;
otherwise it takes an operator's certificate, which the profile of a testnet has.

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

/// Runs the command.
pub async fn run(args: JudgeArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let mut judge = hear(&args.file)?;
    let settled = match (args.offline, judge.is_settled()) {
        (true, _) => None,
        (false, true) if args.save.is_some() => {
            let what = format!("{} has its end already", args.file.display());
            return Err(Failed::new(Exit::Refused, what).mend("judge it without --save"));
        }
        (false, true) => None,
        (false, false) => {
            let client = connect(cluster).await?;
            let settled = settle(&judge, &client, args.wait).await;
            client.close().await;
            let settled = settled?;
            hear_the_end(&mut judge, &settled.events);
            if let Some(out) = &args.save {
                save(&args.file, &settled.events, out)?;
            }
            Some(settled)
        }
    };
    let verdict = judge.verdict();
    let end = settled.as_ref().map_or(&[][..], |settled| &settled.events);
    let window = window(&verdict, &args.file, end)?;
    Judged {
        history: &args.file,
        settled: settled.as_ref(),
        verdict: &verdict,
        window: window.as_ref(),
    }
    .print(format);
    if verdict.is_clean() { Ok(()) } else { Err(Failed::silent(Exit::Violated)) }
}

/// A judge who has heard this history.
pub fn hear(file: &Path) -> Result<Judge, Failed> {
    let mut judge = Judge::new();
    let lines = File::open(file).map_err(|error| unreadable(file, &error))?;
    judge.hear_file(BufReader::new(lines)).map_err(|error| no_history(file, &error))?;
    Ok(judge)
}

/// Tells a judge how a history ended that had no end yet.
pub fn hear_the_end(judge: &mut Judge, end: &[Event]) {
    for event in end {
        judge.hear(event).expect("an end follows what has none");
    }
}

/// What happened around the first violation; `end` is what the file has not.
pub fn window(verdict: &Verdict, file: &Path, end: &[Event]) -> Result<Option<Window>, Failed> {
    let Some(first) = verdict.first() else { return Ok(None) };
    let lines = File::open(file).map_err(|error| unreadable(file, &error))?;
    // it was read before, so each line is an event
    let events = read_history(BufReader::new(lines)).map_while(Result::ok);
    Ok(Some(Window::around(first, events.chain(end.iter().cloned()))))
}

/// Gives the cluster its time, and looks at all disks.
pub async fn settle(judge: &Judge, client: &Client, limit: Duration) -> Result<Settled, Failed> {
    let settling = Settling::of(client, judge).await.map_err(|error| {
        let what = format!("the buckets of the history cannot be found: {error}");
        Failed::new(Exit::Degraded, what).mend("atoll bucket ls")
    })?;
    let mut last = String::new();
    let wait = |reason: &str| {
        if last != reason {
            anstream::eprintln!("waiting: {reason}");
            reason.clone_into(&mut last);
        }
    };
    let settled = settling.until(limit, wait).await;
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

/// Writes the end of a history behind it.
pub fn append(history: &Path, end: &[Event]) -> io::Result<()> {
    let mut file = BufWriter::new(OpenOptions::new().append(true).open(history)?);
    end.iter().try_for_each(|event| write_event(&mut file, event))?;
    file.flush()
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
