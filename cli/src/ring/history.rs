//! `atoll ring history`: what the ring has gone through, epoch by epoch.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use atoll_client::{Client, NodeId};
use atoll_ring::{Command, Entry, Epoch};
use clap::Args;
use serde::Serialize;

use crate::{
    change::{self, ANSWER_LIMIT, plan::words},
    exit::Failed,
    output::{self, Format},
};

/// How far back.
#[derive(Args)]
#[command(after_help = "\
Examples:
  atoll ring history                  the last 50 changes that the nodes remember
  atoll ring history --after 100 --lines 1000

Times are those of the node that wrote each entry, by its own clock. Nodes tell of the last 64 entries at most, and of
none before one that is long, such as a change that moves many partitions. What is left out is said.")]
pub struct HistoryArgs {
    /// Only what came after this epoch
    #[arg(long, value_name = "EPOCH")]
    after: Option<u64>,

    /// Only so many of the last ones
    #[arg(long, value_name = "N", default_value_t = 50)]
    lines: usize,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    cluster: String,
    epoch: u64,
    /// What was asked for up to this epoch no node tells any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    untold_up_to: Option<u64>,
    entries: Vec<EntryDocument>,
}

#[derive(Serialize)]
struct EntryDocument {
    epoch: u64,
    at: String,
    at_ms: u64,
    change: String,
}

/// Runs the command.
pub async fn run(args: &HistoryArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let client = change::connect(cluster).await?;
    let view = client.view();
    let now = view.epoch().0;
    let members: Vec<NodeId> = view.members().iter().map(|member| member.id).collect();
    let mut entries = Vec::new();
    match args.after {
        Some(after) => entries = longest(&client, &members, Epoch(after)).await?,
        None => {
            // whoever can tell of so many entries can tell of fewer: look for the most
            let (mut told, mut too_far) = (0, (args.lines as u64).min(now) + 1);
            while told + 1 < too_far {
                let back = told.midpoint(too_far);
                let found = longest(&client, &members, Epoch(now - back)).await?;
                if found.is_empty() {
                    too_far = back;
                } else {
                    (told, entries) = (back, found);
                }
            }
        }
    }
    client.close().await;
    entries.drain(..entries.len().saturating_sub(args.lines));
    let documents: Vec<EntryDocument> = entries.iter().map(document).collect();
    let untold = untold(now, args.after, args.lines, documents.first().map(|one| one.epoch));
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.ring-history/v1",
            cluster: view.cluster().to_string(),
            epoch: now,
            untold_up_to: untold,
            entries: documents,
        }),
        Format::Table | Format::Plain => {
            let row = |one: &EntryDocument| {
                vec![one.epoch.to_string(), one.at.clone(), one.change.clone()]
            };
            let rows: Vec<Vec<String>> = documents.iter().map(row).collect();
            if format == Format::Plain || !rows.is_empty() {
                output::rows(format, &["EPOCH", "WHEN", "WHAT"], &rows);
            }
            match (format, untold, rows.is_empty()) {
                (Format::Plain, _, _) | (_, None, false) => {}
                (_, None, true) => anstream::println!("the ring is at epoch {now}"),
                (_, Some(epoch), _) => anstream::println!(
                    "\nThe ring is at epoch {now}. No node tells how it came to epoch {epoch}: nodes tell the last 64 \
                     changes at most, and none before one that moves many partitions."
                ),
            }
        }
    }
    Ok(())
}

/// Up to which epoch nothing is told of what was asked for; `None` = all of it is.
fn untold(now: u64, after: Option<u64>, lines: usize, first: Option<u64>) -> Option<u64> {
    let wanted_after = now.saturating_sub(lines as u64).max(after.unwrap_or(0)).max(1);
    let told_after = first.unwrap_or(now + 1) - 1;
    (told_after > wanted_after).then_some(told_after)
}

/// The most that any member remembers after an epoch. An error only if none answers.
async fn longest(
    client: &Arc<Client>,
    members: &[NodeId],
    after: Epoch,
) -> Result<Vec<Entry>, Failed> {
    let (mut longest, mut error): (Option<Vec<Entry>>, _) = (None, None);
    for node in members {
        match client.history(*node, after, ANSWER_LIMIT).await {
            Ok(entries) => {
                if longest.as_ref().is_none_or(|so_far| so_far.len() < entries.len()) {
                    longest = Some(entries);
                }
            }
            Err(failed) => error = Some(failed),
        }
    }
    match (longest, error) {
        (Some(entries), _) => Ok(entries),
        (None, Some(error)) => Err(change::not_asked(&error)),
        (None, None) => Ok(Vec::new()),
    }
}

fn document(entry: &Entry) -> EntryDocument {
    let at = UNIX_EPOCH + Duration::from_millis(entry.at_ms);
    EntryDocument {
        epoch: entry.epoch.0,
        at: humantime::format_rfc3339_seconds(at).to_string(),
        at_ms: entry.at_ms,
        change: change_in_words(&entry.command),
    }
}

fn change_in_words(command: &Command) -> String {
    let count = |count: usize, one: &str, more: &str| match count {
        1 => format!("1 partition {one}"),
        _ => format!("{count} partitions {more}"),
    };
    match command {
        Command::Invite { node, .. } => format!("{node} is invited"),
        Command::Register { node, address, zone, weight, .. } => {
            format!("{node} registers at {address}, zone {zone}, weight {weight}")
        }
        Command::Change { wish, moves, .. } => {
            format!("{}: {}", words(wish), count(moves.len(), "shall move", "shall move"))
        }
        Command::Begin { partitions } => count(partitions.len(), "begins to move", "begin to move"),
        Command::Finish { partitions } => count(partitions.len(), "has moved", "have moved"),
        Command::Cancel => "what moves is stopped".into(),
        Command::Retire { node } => format!("{node} is gone"),
        Command::Incarnation { node, incarnation } => {
            format!("{node} begins its life {incarnation}")
        }
        Command::Voters { voters } => {
            let voters: Vec<String> = voters.iter().map(NodeId::to_string).collect();
            format!("the voters are {}", voters.join(", "))
        }
        Command::Recovered { by } => format!("recovered by hand from {by}"),
    }
}

#[cfg(test)]
mod tests {
    use atoll_ring::Wish;

    use super::*;

    /// The first view is nobody's change; what is left out because fewer lines were asked for is not missing.
    #[test]
    fn what_is_left_out_is_said() {
        let untold = |now, after, first| untold(now, after, 50, first);
        assert_eq!(untold(1, None, None), None);
        assert_eq!(untold(9, None, Some(2)), None);
        assert_eq!(untold(9, None, Some(6)), Some(5));
        assert_eq!(untold(9, None, None), Some(9));
        assert_eq!(untold(9, Some(5), Some(6)), None);
        assert_eq!(untold(200, None, Some(151)), None);
        assert_eq!(untold(200, Some(10), Some(180)), Some(179));
    }

    #[test]
    fn a_line_of_history() {
        let wish = Wish::Leave { node: NodeId(2) };
        let command = Command::Change { base: Epoch(6), wish, moves: [].into() };
        let line = document(&Entry { epoch: Epoch(7), at_ms: 1000, command });
        assert_eq!(
            (line.epoch, &*line.at, &*line.change),
            (7, "1970-01-01T00:00:01Z", "n2 leaves: 0 partitions shall move")
        );
        let finish = Command::Finish { partitions: vec![(atoll_ring::Partition(1), Epoch(3))] };
        assert_eq!(change_in_words(&finish), "1 partition has moved");
    }
}
