//! `atoll testnet corrupt` and `atoll testnet truncate-journal`: damage to the disks of nodes.
//!
//! A node that runs is killed first, as by `wipe`. What is done to its files is done by [`atoll_node::storage::damage`]; what
//! the node makes of it shows when it is started.

use std::path::PathBuf;

use atoll_client::NodeId;
use atoll_node::storage::damage::{self, DamageError};
use atoll_testnet::{Home, stop};
use clap::Args;
use serde::Serialize;

use super::{
    launcher,
    say::{failed_file, failed_open, line},
    which::{Chosen, Nodes},
};
use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    reading::shown,
};

/// How many records of whom.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  atoll testnet corrupt n2 --records 3 && atoll testnet start n2

One byte of each record is turned over, below everything that looks like an error to the engine. The node finds out by
the record's checksum, when somebody reads the key or its scrub comes by; it sets the record aside, answers for the key
only together with the others, and gets it back from them. `atoll debug dump PARTITION --node n2` shows both states.")]
pub struct CorruptArgs {
    #[command(flatten)]
    nodes: Nodes,

    /// How many records of each node
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = at_least_one)]
    records: usize,
}

/// How much of whose journal.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  atoll testnet truncate-journal n2 && atoll testnet start n2

As a disk that has acknowledged an fsync and lost it. The engine opens what is left without a word; the mark beside it
tells the node that something is missing. It then takes a new incarnation, for which it needs a majority of the voters,
and its answers do not count until it was compared with the other owners of its keys.")]
pub struct TruncateArgs {
    #[command(flatten)]
    nodes: Nodes,

    /// How many bytes of its end; more than it holds is all of it
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    bytes: u64,
}

#[derive(Serialize)]
struct Corrupted {
    schema: &'static str,
    name: String,
    nodes: Vec<String>,
    seed: u64,
    records: Vec<RecordDocument>,
    next: String,
}

#[derive(Serialize)]
struct RecordDocument {
    node: String,
    partition: u16,
    bucket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    key_base64: String,
    byte: usize,
    bytes: usize,
}

#[derive(Serialize)]
struct Truncated {
    schema: &'static str,
    name: String,
    nodes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    journals: Vec<JournalDocument>,
    next: String,
}

#[derive(Serialize)]
struct JournalDocument {
    node: String,
    journal: PathBuf,
    bytes_before: u64,
    bytes_after: u64,
}

/// `atoll testnet corrupt`.
pub async fn corrupt(home: &Home, args: CorruptArgs, format: Format) -> Result<(), Failed> {
    let (chosen, seed) = args.nodes.choose_with_seed(home).await?;
    let _lock = chosen.testnet.lock(launcher()?.lock_limit()).await.map_err(failed_open)?;
    stop::kill_running(&chosen.nodes, &mut line).await.map_err(failed_file)?;
    let (mut documents, mut rows) = (Vec::new(), Vec::new());
    for node in &chosen.nodes {
        let records = damage::records(&node.data(), args.records, seed).map_err(|error| {
            let done = documents.iter().map(|done: &RecordDocument| done.node.as_str());
            failed(&error, node.id, done.collect())
        })?;
        for record in records {
            rows.push(vec![
                node.id.to_string(),
                record.partition.0.to_string(),
                record.bucket.to_string(),
                format!("{} of {}", record.byte_index, record.bytes),
                shown(&record.key),
            ]);
            documents.push(RecordDocument {
                node: node.id.to_string(),
                partition: record.partition.0,
                bucket: record.bucket.to_string(),
                key: std::str::from_utf8(&record.key).ok().map(str::to_owned),
                key_base64: data_encoding::BASE64.encode(&record.key),
                byte: record.byte_index,
                bytes: record.bytes,
            });
        }
    }
    let next = next(&chosen);
    match format {
        Format::Json => output::json(&Corrupted {
            schema: "atoll.testnet-corrupt/v1",
            name: chosen.testnet.name().to_owned(),
            nodes: chosen.list(),
            seed,
            records: documents,
            next,
        }),
        Format::Table | Format::Plain => {
            output::rows(format, &["NODE", "PARTITION", "BUCKET", "BYTE", "KEY"], &rows);
            anstream::eprintln!("next: {next}");
        }
    }
    Ok(())
}

/// `atoll testnet truncate-journal`.
pub async fn truncate(home: &Home, args: TruncateArgs, format: Format) -> Result<(), Failed> {
    let chosen = args.nodes.choose(home).await?;
    let _lock = chosen.testnet.lock(launcher()?.lock_limit()).await.map_err(failed_open)?;
    stop::kill_running(&chosen.nodes, &mut line).await.map_err(failed_file)?;
    let mut journals: Vec<JournalDocument> = Vec::new();
    for node in &chosen.nodes {
        let cut = damage::cut_journal(&node.data(), args.bytes).map_err(|error| {
            failed(&error, node.id, journals.iter().map(|done| done.node.as_str()).collect())
        })?;
        journals.push(JournalDocument {
            node: node.id.to_string(),
            journal: cut.path,
            bytes_before: cut.bytes_before,
            bytes_after: cut.bytes_after,
        });
    }
    let next = next(&chosen);
    match format {
        Format::Json => output::json(&Truncated {
            schema: "atoll.testnet-truncate-journal/v1",
            name: chosen.testnet.name().to_owned(),
            nodes: chosen.list(),
            seed: chosen.seed,
            journals,
            next,
        }),
        Format::Table | Format::Plain => {
            let rows: Vec<Vec<String>> = journals.iter().map(journal_row).collect();
            output::rows(format, &["NODE", "BYTES", "LEFT", "JOURNAL"], &rows);
            anstream::eprintln!("next: {next}");
        }
    }
    Ok(())
}

fn journal_row(document: &JournalDocument) -> Vec<String> {
    vec![
        document.node.clone(),
        document.bytes_before.to_string(),
        document.bytes_after.to_string(),
        document.journal.display().to_string(),
    ]
}

fn next(chosen: &Chosen) -> String {
    format!("atoll testnet start {} --name {}", chosen.names(), chosen.testnet.name())
}

/// What could not be damaged, and what was before it.
fn failed(error: &DamageError, node: NodeId, mut damaged: Vec<&str>) -> Failed {
    damaged.dedup();
    let mut what = format!("{node}: {error}");
    if !damaged.is_empty() {
        what.push_str(&format!("\n  damaged before that: {}", damaged.join(" ")));
    }
    let exit = match error {
        DamageError::Io { .. } | DamageError::Store(_) => Exit::Other,
        DamageError::NoStore { .. }
        | DamageError::InUse { .. }
        | DamageError::TooFew { .. }
        | DamageError::EmptyJournal { .. } => Exit::Refused,
    };
    let failed = Failed::new(exit, what);
    match error {
        DamageError::TooFew { records: 0, .. } | DamageError::NoStore { .. } => {
            failed.mend("start it and put something first")
        }
        DamageError::TooFew { records, .. } => failed.mend(format!("--records {records} at most")),
        DamageError::EmptyJournal { .. } => {
            failed.mend(format!("start {node} and put something first"))
        }
        DamageError::InUse { .. } => {
            failed.mend("end the process that was started there by hand, then again")
        }
        DamageError::Store(_) => {
            failed.mend(format!("it is damaged already: start {node} and read what it says"))
        }
        DamageError::Io { .. } => failed,
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one".into()),
        Ok(count) => Ok(count),
        Err(_) => Err("not a number".into()),
    }
}
