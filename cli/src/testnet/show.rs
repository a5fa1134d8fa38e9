//! Testnets and their nodes as tables and documents.

use std::{path::PathBuf, time::Duration};

use atoll_testnet::{Condition, Home, NodeReport, State, Testnet};
use serde::Serialize;

use super::{
    say::{failed_file, failed_home, failed_open},
    which::Chosen,
};
use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
};

#[derive(Serialize)]
struct List {
    schema: &'static str,
    testnets: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    started_last: bool,
    running: usize,
    nodes: usize,
    first_port: u16,
    last_port: u16,
    directory: PathBuf,
}

/// `atoll testnet ls`.
pub fn ls(home: &Home, format: Format) -> Result<(), Failed> {
    let current = home.current().map_err(failed_home)?;
    let mut testnets = Vec::new();
    for name in home.names().map_err(failed_home)? {
        let testnet = match Testnet::open(home, Some(&name)).map_err(failed_open) {
            Ok(testnet) => testnet,
            // one that cannot be read shall not hide the others
            Err(failed) => {
                anstream::eprintln!("testnet {name}: {}", failed.what);
                continue;
            }
        };
        let nodes = testnet.nodes();
        let ports = nodes.iter().map(|node| node.address.port());
        testnets.push(Entry {
            started_last: current.as_deref() == Some(name.as_str()),
            name,
            running: running(&testnet)?,
            nodes: nodes.len(),
            first_port: ports.clone().min().unwrap_or(0),
            last_port: ports.max().unwrap_or(0),
            directory: testnet.folder().to_owned(),
        });
    }
    match format {
        Format::Json => output::json(&List { schema: "atoll.testnet-list/v1", testnets }),
        Format::Table if testnets.is_empty() => {
            anstream::eprintln!("no testnet is known; start one: atoll testnet up");
        }
        Format::Table | Format::Plain => {
            let rows: Vec<Vec<String>> = testnets.iter().map(entry_row).collect();
            output::rows(format, &["NAME", "LAST", "RUNNING", "PORTS", "DIRECTORY"], &rows);
        }
    }
    Ok(())
}

fn entry_row(entry: &Entry) -> Vec<String> {
    vec![
        entry.name.clone(),
        if entry.started_last { "*" } else { "" }.to_owned(),
        format!("{}/{}", entry.running, entry.nodes),
        format!("{}-{}", entry.first_port, entry.last_port),
        entry.directory.display().to_string(),
    ]
}

fn running(testnet: &Testnet) -> Result<usize, Failed> {
    let mut running = 0;
    for node in testnet.nodes() {
        match node.condition().map_err(failed_file)? {
            Condition::Running(_) | Condition::Paused(_) => running += 1,
            Condition::Stopped | Condition::Dead => {}
        }
    }
    Ok(running)
}

#[derive(Serialize)]
struct StatusDocument {
    schema: &'static str,
    name: String,
    directory: PathBuf,
    profile: PathBuf,
    ready: bool,
    nodes: Vec<NodeDocument>,
}

/// A node in JSON. What only the node itself can tell is absent unless it is ready.
#[derive(Serialize)]
pub struct NodeDocument {
    node: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    address: String,
    zone: String,
    log: PathBuf,
    #[serde(flatten)]
    told: Option<Told>,
}

#[derive(Serialize)]
struct Told {
    epoch: u64,
    keys: u64,
    hints: u64,
    incarnation: u32,
    /// What it waits for before it serves.
    #[serde(skip_serializing_if = "String::is_empty")]
    rising: String,
    partitions_in_doubt: u32,
    uptime_ms: u64,
    resident_bytes: u64,
}

/// `atoll testnet status`.
pub async fn status(testnet: &Testnet, format: Format) -> Result<(), Failed> {
    let reports = atoll_testnet::status(testnet).await.map_err(failed_file)?;
    let ready = reports.iter().all(|report| report.state == State::Ready);
    match format {
        Format::Json => output::json(&StatusDocument {
            schema: "atoll.testnet-status/v1",
            name: testnet.name().to_owned(),
            directory: testnet.folder().to_owned(),
            profile: testnet.profile(),
            ready,
            nodes: documents(&reports),
        }),
        Format::Table | Format::Plain => nodes(&reports, format),
    }
    if ready { Ok(()) } else { Err(Failed::silent(Exit::Degraded)) }
}

#[derive(Serialize)]
struct Wiped {
    schema: &'static str,
    name: String,
    nodes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    next: String,
}

/// What to do after `atoll testnet wipe`.
pub fn wiped(chosen: &Chosen, format: Format) {
    let name = chosen.testnet.name().to_owned();
    let next = format!("atoll testnet restart {} --name {name}", chosen.names());
    match format {
        Format::Json => output::json(&Wiped {
            schema: "atoll.testnet-wipe/v1",
            name,
            nodes: chosen.list(),
            seed: chosen.seed,
            next,
        }),
        Format::Table | Format::Plain => anstream::eprintln!("next: {next}"),
    }
}

/// The table of nodes.
pub fn nodes(reports: &[NodeReport], format: Format) {
    let rows: Vec<Vec<String>> = reports.iter().map(node_row).collect();
    let headings =
        ["NODE", "STATE", "PID", "ADDRESS", "ZONE", "EPOCH", "KEYS", "HINTS", "UPTIME", "RSS"];
    output::rows(format, &headings, &rows);
}

/// The nodes in JSON.
pub fn documents(reports: &[NodeReport]) -> Vec<NodeDocument> {
    let document = |report: &NodeReport| NodeDocument {
        node: report.node.id.to_string(),
        state: report.state.word(),
        pid: report.pid,
        address: report.node.address.to_string(),
        zone: report.node.zone.clone(),
        log: report.node.log(),
        told: report.status.as_ref().map(|status| Told {
            epoch: status.epoch,
            keys: status.keys,
            hints: status.hints,
            incarnation: status.incarnation,
            rising: status.rising.clone(),
            partitions_in_doubt: status.partitions_in_doubt,
            uptime_ms: status.uptime_ms,
            resident_bytes: status.resident_bytes,
        }),
    };
    reports.iter().map(document).collect()
}

fn node_row(report: &NodeReport) -> Vec<String> {
    let mut row = vec![
        report.node.id.to_string(),
        report.state.word().to_owned(),
        report.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        report.node.address.to_string(),
        report.node.zone.clone(),
    ];
    match &report.status {
        Some(status) => row.extend([
            status.epoch.to_string(),
            status.keys.to_string(),
            status.hints.to_string(),
            humantime::format_duration(Duration::from_secs(status.uptime_ms / 1000)).to_string(),
            format!("{} MiB", status.resident_bytes.div_ceil(1 << 20)),
        ]),
        None => row.extend(std::iter::repeat_n("-".to_owned(), 5)),
    }
    row
}
