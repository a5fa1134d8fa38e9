//! All testnets, as a table and as a document; what to do after a wipe.

use std::path::PathBuf;

use atoll_testnet::{Condition, Home, Testnet};
use serde::Serialize;

use super::{
    say::{failed_file, failed_home, failed_open},
    which::Chosen,
};
use crate::{
    exit::Failed,
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
