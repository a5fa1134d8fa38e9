//! `atoll debug`: what lies on one node's disk, as it is.
//!
//! Nothing is joined or repaired by looking. Two nodes whose dumps are equal agree; one that shows less has missed
//! something, or is in doubt.

use std::time::Duration;

use atoll_antientropy::State;
use atoll_client::{DumpedRow, ErrorCode, NodeId, RequestError};
use clap::{Args, Subcommand};
use data_encoding::BASE64;
use serde::Serialize;

use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    receipt::{self, Asked},
    request::connect,
};

/// Look at what one node holds.
#[derive(Subcommand)]
pub enum DebugCommand {
    /// Raw states of one partition on one node
    Dump(DumpArgs),
}

/// Which states.
#[derive(Args)]
#[command(after_help = "\
Examples:
  atoll ring lookup cart:7                        tells the partition and its owners
  atoll debug dump 307 --node n2
  atoll debug dump 307 --node n4 --hints          what n4 keeps of it for others
  atoll debug dump 307 --node n2 -o json          with contexts and values

A dump shows one node's disk: not what a read would find. It needs an operator's certificate, which the profile of
a testnet has.")]
pub struct DumpArgs {
    /// The partition, a number from 0
    partition: u32,

    /// Whose disk
    #[arg(long)]
    node: NodeId,

    /// What it keeps for others, instead of its own records
    #[arg(long)]
    hints: bool,

    /// For each page
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    node: String,
    partition: u16,
    hints: bool,
    rows: Vec<RowDocument>,
}

#[derive(Serialize)]
struct RowDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    key_base64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint_for: Option<String>,
    damaged: bool,
    in_doubt: bool,
    deleted: bool,
    values: Vec<ValueDocument>,
    context: Vec<IntervalDocument>,
}

#[derive(Serialize)]
struct ValueDocument {
    dot: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    base64: String,
}

/// All events of an actor after the one and up to the other.
#[derive(Serialize)]
struct IntervalDocument {
    actor: String,
    after: u64,
    last: u64,
}

/// Runs the command.
pub async fn run(
    command: DebugCommand,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let DebugCommand::Dump(args) = command;
    let client = connect(cluster).await?;
    let dumped = dump(&client, &args).await;
    client.close().await;
    let (partition, rows) = dumped?;
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.dump/v1",
            node: args.node.to_string(),
            partition,
            hints: args.hints,
            rows: rows.iter().map(row_document).collect(),
        }),
        Format::Table | Format::Plain => {
            let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
            output::rows(format, &["KEY", "FOR", "STATE", "VALUES", "CONTEXT"], &lines);
            if format == Format::Table {
                let node = args.node;
                anstream::println!("\n{} rows of partition {partition} on {node}", rows.len());
            }
        }
    }
    Ok(())
}

async fn dump(
    client: &atoll_client::Client,
    args: &DumpArgs,
) -> Result<(u16, Vec<DumpedRow>), Failed> {
    let partitions = client.view().partitions().count();
    let partition = match u16::try_from(args.partition) {
        Ok(partition) if args.partition < partitions => partition,
        _ => return Err(no_such_partition(args.partition, partitions)),
    };
    let rows = client.dump_all(args.node, partition, args.hints, args.timeout).await;
    let rows = rows.map_err(|error| match &error {
        RequestError::Failed(failure) if failure.code == ErrorCode::NotPermitted => {
            Failed::new(Exit::Refused, "a dump needs an operator's certificate")
                .mend("atoll cluster client-cert DIR --name NAME --role operator")
        }
        _ => receipt::failure(Asked::Read, &error),
    })?;
    Ok((partition, rows))
}

/// A partition that the ring does not have.
pub fn no_such_partition(partition: u32, partitions: u32) -> Failed {
    let what = format!("there is no partition {partition}: they are 0 to {}", partitions - 1);
    Failed::new(Exit::Refused, what).mend("atoll ring lookup KEY tells a key's partition")
}

/// The state of a row, unless it is damaged.
fn state(row: &DumpedRow) -> Option<State> {
    row.state.as_ref().and_then(|state| State::decode(state).ok())
}

fn row_document(row: &DumpedRow) -> RowDocument {
    let known = state(row);
    let state = known.as_ref();
    RowDocument {
        key: text_of(&row.key),
        key_base64: BASE64.encode(&row.key),
        hint_for: row.hint_for.map(|node| NodeId(node).to_string()),
        damaged: known.is_none(),
        in_doubt: row.in_doubt,
        deleted: state.is_some_and(State::is_tombstone),
        values: state
            .into_iter()
            .flat_map(State::values)
            .map(|(dot, value)| ValueDocument {
                dot: dot.to_string(),
                text: text_of(value),
                base64: BASE64.encode(value),
            })
            .collect(),
        context: state
            .into_iter()
            .flat_map(|state| state.context().iter())
            .map(|interval| IntervalDocument {
                actor: interval.actor.to_string(),
                after: interval.lo,
                last: interval.hi,
            })
            .collect(),
    }
}

fn line(row: &DumpedRow) -> Vec<String> {
    let state = state(row);
    let words = [
        (state.is_none(), "damaged"),
        (state.as_ref().is_some_and(State::is_tombstone), "deleted"),
        (row.in_doubt, "in doubt"),
    ];
    let words: Vec<&str> = words.iter().filter(|(so, _)| *so).map(|(_, word)| *word).collect();
    let values = state.iter().flat_map(State::values);
    let values: Vec<String> =
        values.map(|(dot, value)| format!("{dot}={}", shown(value))).collect();
    vec![
        shown(&row.key),
        row.hint_for.map(|node| NodeId(node).to_string()).unwrap_or_default(),
        words.join(", "),
        values.join("  "),
        state.map(|state| state.context().to_string()).unwrap_or_default(),
    ]
}

/// Text that cannot break a line or colour a screen.
fn text_of(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
        .map(Into::into)
}

/// Text as it is, anything else in base64, and of long ones the beginning.
fn shown(bytes: &[u8]) -> String {
    const BYTES_SHOWN: usize = 64;
    let (head, more) = match bytes.get(..BYTES_SHOWN) {
        Some(head) => (head, "..."),
        None => (bytes, ""),
    };
    let text = text_of(bytes).map(|text| text.chars().take(BYTES_SHOWN).collect::<String>());
    text.unwrap_or_else(|| format!("base64:{}", BASE64.encode(head))) + more
}
