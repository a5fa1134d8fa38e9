//! `atoll testnet logs`: what the nodes have said.
//!
//! Several nodes are always shown in the order of time. With `--merged` that is kept while following, too, and the time stands
//! first, so that the eye can go down it.

use atoll_testnet::{
    Home, Selectors,
    logs::{Line, Logs, TimeLine},
};
use clap::Args;
use serde::Serialize;

use super::{Named, say::failed_file, which};
use crate::{
    exit::Failed,
    output::{self, Format},
};

/// Whose log.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  atoll testnet logs n2 --lines 50
  atoll testnet logs -f --merged             all nodes on one time line, as it goes on
  atoll testnet logs minority -o json        a document for each line

While following with --merged a line is held back for 300 ms, so that an earlier one of another node comes before it.")]
pub struct LogsArgs {
    /// Nodes: n3 or 3, all, minority, majority, zone:ZONE, owners-of:KEY [default: all]
    #[arg(value_name = "NODE")]
    nodes: Vec<Selectors>,

    /// Go on until Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// One time line over all of them: strictly in order, the time first
    #[arg(long)]
    merged: bool,

    /// Only so many of the last lines [default: all; with -f 20]
    #[arg(long, value_name = "N")]
    lines: Option<usize>,

    #[command(flatten)]
    testnet: Named,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    node: String,
    /// Its own, or that of the line before it; absent if there is none.
    #[serde(skip_serializing_if = "str::is_empty")]
    time: &'a str,
    text: &'a str,
}

/// Runs the command.
pub async fn run(home: &Home, args: LogsArgs, format: Format) -> Result<(), Failed> {
    let testnet = args.testnet.open(home)?;
    let nodes = which::choose_words(&testnet, args.nodes).await?;
    let several = nodes.len() > 1;
    let mut logs = Logs::of(&nodes);
    let mut lines = logs.read().map_err(failed_file)?;
    let wanted = args.lines.unwrap_or(if args.follow { 20 } else { usize::MAX });
    lines.drain(..lines.len().saturating_sub(wanted));
    let print = |line: &Line| match format {
        Format::Json => output::json_line(&document(line)),
        Format::Table | Format::Plain if args.merged => {
            anstream::println!("{:<15} {:<3} | {}", of_day(&line.time), line.node, line.words());
        }
        Format::Table | Format::Plain if several => {
            anstream::println!("{:<3} | {}", line.node, line.text);
        }
        Format::Table | Format::Plain => anstream::println!("{}", line.text),
    };
    lines.iter().for_each(print);
    if !args.follow {
        return Ok(());
    }
    if args.merged {
        let mut time_line = TimeLine::of(logs);
        loop {
            time_line.next().await.map_err(failed_file)?.iter().for_each(print);
        }
    }
    loop {
        logs.next().await.map_err(failed_file)?.iter().for_each(print);
    }
}

fn document(line: &Line) -> Document<'_> {
    Document {
        schema: "atoll.testnet-log/v1",
        node: line.node.to_string(),
        time: &line.time,
        text: line.words(),
    }
}

/// `02:01:00.123456` of `2026-11-21T02:01:00.123456Z`.
fn of_day(time: &str) -> &str {
    time.split_once('T').map_or(time, |(_, time)| time.trim_end_matches('Z'))
}
