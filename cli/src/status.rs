//! `atoll status`: how the nodes are, each asked itself.

use std::{sync::Arc, time::Duration};

use atoll_client::{NodeId, NodeStatus};
use atoll_wire::Times;
use serde::Serialize;

use crate::{
    change::watch,
    cluster,
    ending::Ending,
    exit::{Exit, Failed},
    output::{self, Format},
    request::{connect_as, profile},
};

const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    cluster: String,
    epoch: u64,
    healthy: bool,
    nodes: Vec<NodeDocument>,
    /// Why the ring cannot be changed now; absent if it can, or if only an operator may know.
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

#[derive(Serialize)]
struct NodeDocument {
    node: String,
    address: String,
    zone: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What will be wrong if nobody acts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Status {
    version: String,
    incarnation: u32,
    epoch: u64,
    uptime_ms: u64,
    wall_ms: u64,
    resident_bytes: u64,
    cpu_micros: u64,
    keys: u64,
    disk_bytes: u64,
    free_bytes: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    read_only: String,
    /// By how much its wall clock is ahead of the middle of all.
    clock_ahead_ms: i64,
    /// Why it takes no writes that go by time.
    #[serde(skip_serializing_if = "String::is_empty")]
    clock_problem: String,
    certificate_expires_ms: u64,
    /// The same as RFC 3339 has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_expires: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    certificate_problem: String,
    durable_sequence: u64,
    /// What it waits for before it serves anybody.
    #[serde(skip_serializing_if = "String::is_empty")]
    rising: String,
    /// Why it doubts what it holds.
    #[serde(skip_serializing_if = "String::is_empty")]
    doubt: String,
    partitions_in_doubt: u32,
    keys_in_doubt: u64,
    hints: u64,
    hint_bytes: u64,
    hints_refused: u64,
    corrupt_records: u64,
    repaired: u64,
    /// Keys mended by comparing with other owners.
    exchanged: u64,
    /// Since every partition was known to be equal with all its owners; none = some were not since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared_ms_ago: Option<u64>,
    tombstones: u64,
    writes: u64,
    reads: u64,
    hedges: u64,
    /// How long the writes took that it coordinated; none = there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    write_ms: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_ms: Option<Quantiles>,
    /// Requests that too few owners answered, or not in time.
    unmet: u64,
    /// Reads in which an owner answered with less than was found.
    reads_behind: u64,
    peers: Vec<Peer>,
}

/// Of all requests since the start, a quarter too long at most.
#[derive(Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

impl Quantiles {
    fn of(times: &Times) -> Option<Self> {
        let ms = |so_many| Some(times.all_but_one_in(so_many)?.as_secs_f64() * 1000.0);
        Some(Quantiles { p50: ms(2)?, p99: ms(100)? })
    }
}

#[derive(Serialize)]
struct Peer {
    node: String,
    up: bool,
    round_trip_ms: f64,
    hints: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// Runs the command. Exits 5 if a node does not answer or serve, does not see another, takes no writes, or is in doubt.
pub async fn run(cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let profile = profile(cluster)?;
    let client = Arc::new(connect_as(&profile).await?);
    let view = client.view();
    let mut nodes = Vec::new();
    for member in view.members() {
        let (state, reason, status) = match client.status(member.id, TIMEOUT).await {
            Ok(status) => ("up", remark(&status), Some(status)),
            Err(error) => ("silent", Some(error.to_string()), None),
        };
        nodes.push(NodeDocument {
            node: member.id.to_string(),
            address: member.address.to_string(),
            zone: member.zone.clone(),
            state,
            reason,
            warnings: status.as_ref().map(warnings).unwrap_or_default(),
            status: status.map(Status::from),
        });
    }
    let reports = client.moves(TIMEOUT).await;
    let reports: Vec<_> = reports.iter().filter_map(|(_, report)| report.as_ref().ok()).collect();
    let frozen = watch::frozen(&reports).map(|why| cluster::status::in_words(&view, why));
    client.close().await;
    let warning = Ending::of_profile(&profile)
        .filter(Ending::is_near)
        .map(|ending| ending.for_caller(&profile));
    let healthy = nodes.iter().all(|node| node.state == "up" && node.reason.is_none());
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.status/v1",
            cluster: view.cluster().to_string(),
            epoch: view.epoch().0,
            healthy,
            nodes,
            frozen,
            warning,
        }),
        Format::Table | Format::Plain => {
            let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
            let headings = [
                "NODE", "STATE", "ADDRESS", "ZONE", "KEYS", "DISK", "HINTS", "CORRUPT", "RSS",
                "UPTIME", "REMARK",
            ];
            output::rows(format, &headings, &rows);
            if let Some(frozen) = frozen {
                anstream::eprintln!(
                    "\x1b[33mwarning\x1b[0m: {frozen}; reads and writes go on: atoll cluster status"
                );
            }
            if let Some(warning) = warning {
                anstream::eprintln!("\x1b[33mwarning\x1b[0m: {warning}");
            }
        }
    }
    if healthy { Ok(()) } else { Err(Failed::silent(Exit::Degraded)) }
}

/// What is not as it should be with a node that answers.
fn remark(status: &NodeStatus) -> Option<String> {
    let mut remarks = Vec::new();
    if !status.rising.is_empty() {
        remarks.push(format!("starting: {}", status.rising));
    }
    if status.partitions_in_doubt > 0 {
        let (partitions, why) = (status.partitions_in_doubt, &status.doubt);
        remarks.push(format!("in doubt: {partitions} partitions to be compared, because {why}"));
    }
    if status.keys_in_doubt > 0 {
        let keys = status.keys_in_doubt;
        remarks.push(format!("in doubt: {keys} keys whose records were damaged"));
    }
    if !status.read_only.is_empty() {
        remarks.push(format!("read-only: {}", status.read_only));
    }
    if !status.clock_problem.is_empty() {
        remarks.push(format!("takes no writes that go by time: {}", status.clock_problem));
    }
    let missed: Vec<String> = status
        .peers
        .iter()
        .filter(|peer| !peer.up)
        .map(|peer| NodeId(peer.node).to_string())
        .collect();
    if !missed.is_empty() {
        remarks.push(format!("does not hear {}", missed.join(", ")));
    }
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

fn row(node: &NodeDocument) -> Vec<String> {
    let mut row =
        vec![node.node.clone(), node.state.into(), node.address.clone(), node.zone.clone()];
    match &node.status {
        Some(status) => row.extend([
            status.keys.to_string(),
            mebibytes(status.disk_bytes),
            status.hints.to_string(),
            status.corrupt_records.to_string(),
            mebibytes(status.resident_bytes),
            humantime::format_duration(Duration::from_secs(status.uptime_ms / 1000)).to_string(),
        ]),
        None => row.extend(std::iter::repeat_n("-".to_owned(), 6)),
    }
    let remarks: Vec<&str> = node.reason.iter().chain(&node.warnings).map(String::as_str).collect();
    row.push(remarks.join("; "));
    row
}

/// What a node that answers will run into.
fn warnings(status: &NodeStatus) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(ending) = Ending::of_node(status.certificate_expires_ms)
        && ending.is_near()
    {
        let node = NodeId(status.node);
        warnings.push(format!("certificate {ending}: atoll cluster renew DIR {node}"));
    }
    if !status.certificate_problem.is_empty() {
        warnings.push(format!("certificate not renewed: {}", status.certificate_problem));
    }
    warnings
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

impl From<NodeStatus> for Status {
    fn from(status: NodeStatus) -> Self {
        Status {
            version: status.version,
            incarnation: status.incarnation,
            epoch: status.epoch,
            uptime_ms: status.uptime_ms,
            wall_ms: status.wall_ms,
            resident_bytes: status.resident_bytes,
            cpu_micros: status.cpu_micros,
            keys: status.keys,
            disk_bytes: status.disk_bytes,
            free_bytes: status.free_bytes,
            read_only: status.read_only,
            clock_ahead_ms: status.clock_ahead_ms,
            clock_problem: status.clock_problem,
            certificate_expires_ms: status.certificate_expires_ms,
            certificate_expires: Ending::of_node(status.certificate_expires_ms)
                .map(|ending| ending.date()),
            certificate_problem: status.certificate_problem,
            durable_sequence: status.durable_sequence,
            rising: status.rising,
            doubt: status.doubt,
            partitions_in_doubt: status.partitions_in_doubt,
            keys_in_doubt: status.keys_in_doubt,
            hints: status.hints,
            hint_bytes: status.hint_bytes,
            hints_refused: status.hints_refused,
            corrupt_records: status.corrupt_records,
            repaired: status.repaired,
            exchanged: status.exchanged,
            compared_ms_ago: Some(status.compared_ms_ago).filter(|ms| *ms != u64::MAX),
            tombstones: status.tombstones,
            writes: status.writes,
            reads: status.reads,
            hedges: status.hedges,
            write_ms: Quantiles::of(&status.write_times),
            read_ms: Quantiles::of(&status.read_times),
            unmet: status.unmet,
            reads_behind: status.reads_behind,
            peers: status
                .peers
                .into_iter()
                .map(|peer| Peer {
                    node: NodeId(peer.node).to_string(),
                    up: peer.up,
                    round_trip_ms: f64::from(peer.round_trip_micros) / 1000.0,
                    hints: peer.hints,
                    reason: peer.reason,
                })
                .collect(),
        }
    }
}
