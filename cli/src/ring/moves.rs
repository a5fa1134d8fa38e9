//! `atoll ring moves` and `atoll ring cancel`: what is on its way, and how to stop it.

use std::{collections::BTreeMap, sync::Arc};

use atoll_client::{Client, MoveReport, MovesReport, NodeId, View};
use atoll_ring::{Command, Owners, Partition, Rejected, Wish};
use clap::Args;
use serde::Serialize;

use crate::{
    change::{
        self, ANSWER_LIMIT, confirm, plan as shown, propose, rejected, view_of,
        watch::{self, left},
    },
    exit::Failed,
    output::{self, Format},
};

/// How to look.
#[derive(Args)]
#[command(after_help = "\
Examples:
  atoll ring moves
  atoll ring moves --watch            stays until nothing moves any more; Ctrl-C ends only the looking

A partition that waits for a node moves on when that node is back, or was declared dead. Nothing else waits for it.")]
pub struct MovesArgs {
    /// Stay, with one line that says how far it is, until nothing moves
    #[arg(long)]
    watch: bool,
}

/// Whether to ask.
#[derive(Args)]
#[command(after_help = "\
Example:
  atoll ring cancel

Partitions that are under way stay with their old owners, those that wait are not moved, and nodes that were leaving
stay. What has arrived stays where it is: atoll cluster rebalance evens that out, or wish the change again.")]
pub struct CancelArgs {
    /// Do it without asking
    #[arg(short, long)]
    yes: bool,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    cluster: String,
    epoch: u64,
    moving: Vec<MoveDocument>,
    /// Partitions that wait for their turn.
    waiting: Vec<u16>,
    /// Rows that nodes hold of partitions they no longer own.
    strays: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen: Option<String>,
    silent: Vec<String>,
}

#[derive(Serialize)]
struct MoveDocument {
    partition: u16,
    from: Vec<String>,
    to: Vec<String>,
    keys: u64,
    keys_estimated: u64,
    bytes: u64,
    copied: bool,
    waits_for: Vec<String>,
}

#[derive(Serialize)]
struct CancelDocument {
    schema: &'static str,
    cluster: String,
    epoch: u64,
    moving: usize,
    waiting: usize,
}

/// Shows what moves.
pub async fn run(args: &MovesArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let client = change::connect(cluster).await?;
    let done = match args.watch {
        true => watch::until_still(&client, &Wish::Rebalance).await,
        false => show(&client, format).await,
    };
    client.close().await;
    done
}

async fn show(client: &Arc<Client>, format: Format) -> Result<(), Failed> {
    let view = client.view();
    let answers = client.moves(ANSWER_LIMIT).await;
    let mut reports: BTreeMap<NodeId, MovesReport> = BTreeMap::new();
    let (mut silent, mut last_error) = (Vec::new(), None);
    for (node, answer) in answers {
        match answer {
            Ok(report) => drop(reports.insert(node, report)),
            Err(error) => {
                silent.push(node.to_string());
                last_error = Some(error);
            }
        }
    }
    if let (true, Some(error)) = (reports.is_empty(), last_error) {
        return Err(change::not_asked(&error));
    }
    let document = document(&view, &reports, silent);
    match format {
        Format::Json => output::json(&document),
        Format::Plain => output::rows(format, HEADINGS, &rows(&document)),
        Format::Table => {
            let rows = rows(&document);
            if !rows.is_empty() {
                output::rows(format, HEADINGS, &rows);
                anstream::println!();
            }
            anstream::println!("{}", in_one_line(&document));
        }
    }
    Ok(())
}

fn document(view: &View, reports: &BTreeMap<NodeId, MovesReport>, silent: Vec<String>) -> Document {
    let mut told: BTreeMap<u16, Vec<MoveReport>> = BTreeMap::new();
    for report in reports.values() {
        for one in report.read().unwrap_or_default() {
            told.entry(one.partition).or_default().push(one);
        }
    }
    let moving = view.moves().keys().map(|partition| {
        let told = told.get(&partition.0).map_or(&[][..], Vec::as_slice);
        let session = view.last_changed(*partition).0;
        of_partition(view, *partition, told.iter().filter(|one| one.session == session))
    });
    let all: Vec<&MovesReport> = reports.values().collect();
    Document {
        schema: "atoll.ring-moves/v1",
        cluster: view.cluster().to_string(),
        epoch: view.epoch().0,
        moving: moving.collect(),
        waiting: view
            .wanted()
            .keys()
            .filter(|partition| !view.moves().contains_key(partition))
            .map(|partition| partition.0)
            .collect(),
        strays: all.iter().map(|report| report.strays).sum(),
        frozen: watch::frozen(&all).map(str::to_owned),
        silent,
    }
}

fn of_partition<'a>(
    view: &View,
    partition: Partition,
    told: impl Iterator<Item = &'a MoveReport>,
) -> MoveDocument {
    let (old, new) = match view.owners(partition) {
        Owners::One(owners) => (owners, owners),
        Owners::Joint { old, new } => (old, new),
    };
    let without = |these: &[NodeId], those: &[NodeId]| -> Vec<String> {
        these.iter().filter(|node| !those.contains(node)).map(NodeId::to_string).collect()
    };
    let (mut keys, mut keys_estimated, mut bytes, mut waits_for) = (0, 0, 0, Vec::new());
    let (mut copies, mut copied) = (0, true);
    for one in told {
        waits_for.extend(one.waits_for.map(|node| NodeId(node).to_string()));
        if one.joins {
            copies += 1;
            copied &= one.done;
            keys += one.keys.0;
            keys_estimated += one.keys.1;
            bytes += one.bytes;
        }
    }
    waits_for.sort();
    waits_for.dedup();
    MoveDocument {
        partition: partition.0,
        from: without(old, new),
        to: without(new, old),
        keys,
        keys_estimated,
        bytes,
        copied: copied && copies > 0,
        waits_for,
    }
}

const HEADINGS: &[&str] = &["PARTITION", "FROM", "TO", "KEYS", "BYTES", "STATE"];

fn rows(document: &Document) -> Vec<Vec<String>> {
    let row = |one: &MoveDocument| {
        let names = |names: &[String]| if names.is_empty() { "-".into() } else { names.join(",") };
        let state = match (one.waits_for.is_empty(), one.copied) {
            (false, _) => format!("waits for {}", one.waits_for.join(", ")),
            (true, true) => "copied".into(),
            (true, false) => "copying".into(),
        };
        vec![
            one.partition.to_string(),
            names(&one.from),
            names(&one.to),
            format!("{}/{}", one.keys, one.keys_estimated.max(one.keys)),
            shown::bytes(one.bytes),
            state,
        ]
    };
    document.moving.iter().map(row).collect()
}

fn in_one_line(document: &Document) -> String {
    let Document { moving, waiting, strays, silent, epoch, .. } = document;
    let mut line = match moving.len() + waiting.len() {
        0 => format!("nothing moves, epoch {epoch}"),
        _ => format!(
            "{} partitions moving, {} waiting for their turn, epoch {epoch}",
            moving.len(),
            waiting.len()
        ),
    };
    if *strays > 0 {
        line.push_str(&format!("; {strays} rows are still to be handed over by former owners"));
    }
    if !silent.is_empty() {
        line.push_str(&format!("; {} did not answer", silent.join(", ")));
    }
    if let Some(why) = &document.frozen {
        line.push_str(&format!("; frozen: {why}"));
    }
    line
}

/// Stops what moves.
pub async fn cancel(args: CancelArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let client = change::connect(cluster).await?;
    let done = cancel_now(&client, args.yes, format).await;
    client.close().await;
    done
}

async fn cancel_now(client: &Arc<Client>, yes: bool, format: Format) -> Result<(), Failed> {
    let view = client.view();
    let moving = view.moves().len();
    let waiting = left(&view) - moving;
    if moving + waiting == 0 {
        return Err(rejected(&Rejected::NothingMoves));
    }
    if !yes {
        anstream::eprintln!(
            "{moving} partitions that are under way would stay with their old owners, {waiting} would not be \
             moved, and nodes that are leaving would stay."
        );
        confirm("Stop them?")?;
    }
    let epoch = propose(client, &Command::Cancel).await?;
    let now = view_of(client, epoch).await?;
    match format {
        Format::Json => output::json(&CancelDocument {
            schema: "atoll.ring-cancel/v1",
            cluster: now.cluster().to_string(),
            epoch: epoch.0,
            moving,
            waiting,
        }),
        Format::Plain => anstream::println!("{epoch}"),
        Format::Table => anstream::println!(
            "\x1b[1mstopped\x1b[0m as epoch {epoch}. What has arrived stays where it is; to go on later:\n  \
             atoll cluster rebalance"
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use atoll_ring::{ClusterId, Entry, Epoch, Member, MemberState, Partitions, Plan};

    use super::*;

    /// A view in which `n2` leaves and the first partition of that is under way.
    fn leaving() -> (View, Partition) {
        let members = (1..=4).map(|id: u16| Member {
            id: NodeId(id.into()),
            incarnation: 0,
            address: ([127, 0, 0, 1], 7400 + id).into(),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        });
        let partitions = Partitions::new(64).unwrap();
        let members = members.collect();
        let (view, _) = View::create(ClusterId([7; 16]), partitions, 3, members).unwrap();
        let plan = Plan::of(&view, &Wish::Leave { node: NodeId(2) }).unwrap();
        let first = plan.order[0];
        let at = |epoch, command| Entry { epoch: Epoch(epoch), at_ms: 0, command };
        let view = view.apply(&at(2, plan.command())).unwrap();
        (view.apply(&at(3, Command::Begin { partitions: vec![first] })).unwrap(), first)
    }

    /// What joins counts as copied; what the leaving side says, and what belongs to another move, does not. Who holds it up
    /// is named once.
    #[test]
    fn how_far_a_partition_is() {
        let (view, partition) = leaving();
        let one = |joins, session, waits_for| MoveReport {
            partition: partition.0,
            session,
            joins,
            keys: (10, 40),
            bytes: 1000,
            done: false,
            waits_for,
        };
        let with =
            |moves: &[MoveReport]| MovesReport { strays: 2, ..Default::default() }.with(moves);
        let reports = BTreeMap::from([
            (NodeId(1), with(&[one(true, 3, Some(2))])),
            (NodeId(2), with(&[one(false, 3, Some(2))])),
            (NodeId(3), with(&[one(true, 2, Some(9))])),
        ]);
        let document = document(&view, &reports, vec!["n4".into()]);
        let [moving] = &document.moving[..] else { panic!("one is under way") };
        assert_eq!((moving.keys, moving.keys_estimated, moving.bytes), (10, 40, 1000));
        assert_eq!((&moving.waits_for, moving.copied), (&vec!["n2".to_owned()], false));
        assert_eq!(moving.from, ["n2"]);
        assert_eq!(document.waiting.len(), view.wanted().len());
        assert_eq!(rows(&document)[0][5], "waits for n2");
        let line = in_one_line(&document);
        for word in ["1 partitions moving", "6 rows", "n4 did not answer", "epoch 3"] {
            assert!(line.contains(word), "{line}");
        }
    }
}
