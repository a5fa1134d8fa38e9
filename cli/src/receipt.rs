//! Who answered, and what the answer stands for: the same words after every request.
//!
//! One line below what was printed, or with `-v` one line per replica; what a failure has left behind is in
//! [`crate::failure`], the steps of a traced request are in [`crate::steps`].

use std::collections::BTreeMap;

use atoll_client::{NodeId, Operation, Outcome, Promise, Receipt, View};
use serde::Serialize;

use crate::{output::Format, steps};

pub use crate::failure::failure;

/// How an answer is told.
#[derive(Clone, Default)]
pub struct Telling {
    /// What goes to stdout.
    pub format: Format,
    /// Whether each replica gets a line of its own.
    pub verbose: bool,
    /// The zone of each member, for those lines.
    pub zones: BTreeMap<u32, String>,
}

impl Telling {
    /// In the zones of this view.
    pub fn new(format: Format, verbose: bool, view: &View) -> Self {
        let members = view.members().iter();
        let zones = members.map(|member| (member.id.0, member.zone.clone())).collect();
        Telling { format, verbose, zones }
    }
}

/// A receipt in JSON.
#[derive(Serialize)]
pub struct Document {
    epoch: u64,
    coordinator: String,
    n: u8,
    needed: u8,
    owners_needed: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    durable_needed: Option<u8>,
    promise: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meets: Option<u8>,
    replicas: Vec<Replica>,
    hinted: Vec<String>,
    unhinted: Vec<String>,
    repaired: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<steps::Document>,
}

#[derive(Serialize)]
struct Replica {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_in_for: Option<String>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<f64>,
}

/// The JSON of a write's receipt.
pub fn of_write(receipt: &Receipt) -> Document {
    Document { durable_needed: Some(receipt.durable_needed), ..of_read(receipt) }
}

/// The JSON of a read's receipt.
pub fn of_read(receipt: &Receipt) -> Document {
    let name = |node: &u32| NodeId(*node).to_string();
    Document {
        epoch: receipt.epoch.0,
        coordinator: name(&receipt.coordinator),
        n: receipt.n,
        needed: receipt.needed,
        owners_needed: receipt.owners_needed,
        durable_needed: None,
        promise: receipt.promise().word(),
        meets: match receipt.promise() {
            Promise::Strict { meets } => Some(meets),
            Promise::Eventual => None,
        },
        replicas: receipt
            .replicas
            .iter()
            .map(|replica| Replica {
                node: name(&replica.node),
                stands_in_for: replica.stands_in_for.as_ref().map(name),
                outcome: replica.outcome.word(),
                ms: answered(replica.outcome).then(|| f64::from(replica.micros) / 1000.0),
            })
            .collect(),
        hinted: receipt.hinted.iter().map(name).collect(),
        unhinted: receipt.unhinted.iter().map(name).collect(),
        repaired: receipt.repaired.iter().map(name).collect(),
        trace: receipt.trace.as_deref().map(steps::document),
    }
}

/// A receipt below what was printed: who did what, what the answer stands for, and the steps if they were asked for. All of
/// it goes to stderr; a program reads JSON, which says the same.
pub fn print(asked: Asked, receipt: &Receipt, telling: &Telling) {
    let mut lines = Vec::new();
    match (telling.verbose, telling.format) {
        (true, Format::Table | Format::Plain) => {
            lines.extend(replica_lines(receipt, &telling.zones));
            lines.push(format!("{}: {}", promise(asked, receipt), why(asked, receipt)));
        }
        (false, Format::Table) => lines.extend([line(receipt), promise(asked, receipt)]),
        (false, Format::Plain) | (_, Format::Json) => {}
    }
    if telling.format != Format::Json
        && let Some(trace) = &receipt.trace
    {
        lines.extend(steps::lines(trace));
    }
    for line in lines {
        anstream::eprintln!("\x1b[2m{line}\x1b[0m");
    }
}

/// One line per replica: node, zone, role, what it did, when.
pub fn replica_lines(receipt: &Receipt, zones: &BTreeMap<u32, String>) -> Vec<String> {
    let rows: Vec<[String; 5]> = receipt
        .replicas
        .iter()
        .map(|replica| {
            let role = match replica.stands_in_for {
                Some(owner) => format!("fallback for {}", NodeId(owner)),
                None => "owner".into(),
            };
            let time = match answered(replica.outcome) {
                true => format!("{:.1} ms", f64::from(replica.micros) / 1000.0),
                false => "-".into(),
            };
            let zone = zones.get(&replica.node).cloned().unwrap_or_else(|| "?".into());
            let outcome = replica.outcome.word().into();
            [NodeId(replica.node).to_string(), zone, role, outcome, time]
        })
        .collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut lines =
        vec![format!("{} coordinated at epoch {}", NodeId(receipt.coordinator), receipt.epoch)];
    for [node, zone, role, outcome, time] in &rows {
        let [a, b, c, d, e] = widths;
        lines.push(format!("  {node:a$}  {zone:b$}  {role:c$}  {outcome:d$}  {time:>e$}"));
    }
    if let Some(rest) = rest(receipt) {
        lines.push(format!("  {rest}"));
    }
    lines
}

/// Why an answer stands for what it does.
fn why(asked: Asked, receipt: &Receipt) -> String {
    let Receipt { n, needed, owners_needed, durable_needed, .. } = *receipt;
    let (done, others) = match asked.writes() {
        true => ("acknowledged this", "answer the read"),
        false => ("answered this", "acknowledged the write"),
    };
    let mut why = match receipt.promise() {
        Promise::Strict { meets } => format!(
            "{owners_needed} + {meets} > {n}, so of {n} owners any {owners_needed} that {done} and any {meets} that {others} \
             have one in common"
        ),
        Promise::Eventual => {
            format!("{needed} of {n} had to answer, and none of them had to be an owner")
        }
    };
    if asked.writes() && durable_needed < needed {
        why.push_str(&format!(
            "; only {durable_needed} of the {needed} acknowledgements had to be fsynced (--dw), so a power failure everywhere \
             may take it"
        ));
    }
    why
}

/// What an answer stands for, for people.
pub fn promise(asked: Asked, receipt: &Receipt) -> String {
    match (receipt.promise(), asked) {
        (Promise::Strict { meets }, Asked::Read) => {
            format!("strict: sees every write that {} acknowledged", owners(meets))
        }
        (Promise::Strict { meets }, Asked::Write | Asked::Count | Asked::Merge) => {
            format!("strict: every read that {} answer sees it", owners(meets))
        }
        (Promise::Eventual, _) => {
            "eventual: fallbacks may stand in for owners (--strict counts owners only)".into()
        }
    }
}

fn owners(count: u8) -> String {
    if count == 1 { "an owner".into() } else { format!("{count} owners") }
}

/// A receipt for people, one line: `n2 coordinated: n2 durable 0.4 ms, n4 for n3 durable 0.9 ms, n5 pending`.
pub fn line(receipt: &Receipt) -> String {
    let replicas: Vec<String> = receipt
        .replicas
        .iter()
        .map(|replica| {
            let node = match replica.stands_in_for {
                Some(owner) => format!("{} for {}", NodeId(replica.node), NodeId(owner)),
                None => NodeId(replica.node).to_string(),
            };
            if answered(replica.outcome) {
                let ms = f64::from(replica.micros) / 1000.0;
                format!("{node} {} {ms:.1} ms", replica.outcome.word())
            } else {
                format!("{node} {}", replica.outcome.word())
            }
        })
        .collect();
    let mut line = format!("{} coordinated: {}", NodeId(receipt.coordinator), replicas.join(", "));
    if let Some(rest) = rest(receipt) {
        line.push_str(&format!("; {rest}"));
    }
    line
}

/// What happens beside the answers: hints and repairs.
fn rest(receipt: &Receipt) -> Option<String> {
    let parts = [
        ("hints kept for", &receipt.hinted),
        ("no room for hints for", &receipt.unhinted),
        ("repairing", &receipt.repaired),
    ];
    let parts = parts.iter().filter(|(_, nodes)| !nodes.is_empty());
    let parts: Vec<String> =
        parts.map(|(what, nodes)| format!("{what} {}", names(nodes))).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Nodes by name.
pub fn names(nodes: &[u32]) -> String {
    nodes.iter().map(|node| NodeId(*node).to_string()).collect::<Vec<_>>().join(", ")
}

/// Whether the time in a report is that of an answer.
fn answered(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Durable
        | Outcome::Written
        | Outcome::Current
        | Outcome::Behind
        | Outcome::Corrupt
        | Outcome::Refused
        | Outcome::KnowsNothing
        | Outcome::HintsFull
        | Outcome::InDoubt => true,
        Outcome::NotAsked | Outcome::Pending | Outcome::Down | Outcome::Silent => false,
    }
}

/// What was asked for, for the words of an error: what a repetition would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A read.
    Read,
    /// A put or a delete: done twice it may leave siblings.
    Write,
    /// Something is counted: done twice it may count twice.
    Count,
    /// Done twice it is the same as done once.
    Merge,
}

impl Asked {
    /// Of a change.
    pub fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Put { .. } | Operation::Clear => Asked::Write,
            Operation::Increment(_) => Asked::Count,
            Operation::Update(_) if crate::caller::counts(operation) => Asked::Count,
            Operation::Add(_)
            | Operation::Remove(_)
            | Operation::Enable
            | Operation::Disable
            | Operation::Raise(_)
            | Operation::Update(_) => Asked::Merge,
        }
    }

    /// Whether it changes something.
    pub fn writes(self) -> bool {
        self != Asked::Read
    }
}

#[cfg(test)]
mod tests {
    use atoll_client::ReplicaReport;
    use atoll_ring::Epoch;

    use super::*;

    fn receipt(owners_needed: u8) -> Receipt {
        let line = |node, stands_in_for, outcome, micros| ReplicaReport {
            node,
            stands_in_for,
            outcome,
            micros,
        };
        Receipt {
            epoch: Epoch(7),
            coordinator: 2,
            n: 3,
            needed: 2,
            owners_needed,
            durable_needed: 1,
            replicas: vec![
                line(2, None, Outcome::Durable, 1900),
                line(31, None, Outcome::Down, 0),
                line(4, Some(31), Outcome::Durable, 12_340),
            ],
            hinted: vec![31],
            unhinted: vec![],
            repaired: vec![],
            trace: None,
        }
    }

    /// With -v each replica has a line with its zone and its role, in columns.
    #[test]
    fn one_line_per_replica() {
        let zones = BTreeMap::from([(2, "east".into()), (4, "west".into())]);
        let lines = replica_lines(&receipt(0), &zones);
        assert_eq!(
            lines,
            [
                "n2 coordinated at epoch 7",
                "  n2   east  owner             durable   1.9 ms",
                "  n31  ?     owner             down           -",
                "  n4   west  fallback for n31  durable  12.3 ms",
                "  hints kept for n31",
            ]
        );
    }

    /// The promise says why: who overlaps with whom, or that nobody had to.
    #[test]
    fn the_promise_and_its_why() {
        let strict = why(Asked::Read, &receipt(2));
        assert!(strict.starts_with("2 + 2 > 3"), "{strict}");
        let eventual = why(Asked::Merge, &receipt(0));
        assert!(eventual.contains("none of them had to be an owner"), "{eventual}");
        assert!(eventual.contains("only 1 of the 2 acknowledgements had to be fsynced"));
    }
}
