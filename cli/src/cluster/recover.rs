//! `atoll cluster recover`: the majority of the voters is lost for good, and the membership log goes on from what one node
//! has.
//!
//! This is the one command that can undo what was agreed on: a change that only lost voters had is gone. So it takes the
//! highest epoch that is left and nothing less, only while the ring is frozen, only after the node's name was typed, and it
//! leaves an entry in the log.

use std::time::Duration;

use atoll_client::{ErrorCode, MovesReport, NodeId, ProposeError, RequestError};
use atoll_ring::Command;
use clap::Args;
use serde::Serialize;

use super::status::in_words;
use crate::{
    change::{self, ANSWER_LIMIT, ask, not_proposed, statuses, watch::frozen},
    exit::{Exit, Failed},
    output::{self, Format},
};

/// From whose copy.
#[derive(Args)]
#[command(after_help = "\
Example:
  atoll cluster recover --from n3

Only when most voters are lost for good: their disks are gone, or will never be started again. If they can come back,
start them instead; nothing but changes of the ring waits for them. Stop whatever is left of the lost voters first: a
voter that comes back later must not find a majority of its own.

--from names the node with the highest epoch (`atoll cluster status`). It alone votes from then on, the others follow
its view, and new voters are chosen by themselves. Changes that only the lost voters had are gone. Data is not touched.")]
pub struct RecoverArgs {
    /// The node whose copy of the log counts: the one with the highest epoch
    #[arg(long, value_name = "NODE")]
    from: NodeId,

    /// Do it without asking
    #[arg(short, long)]
    yes: bool,
}

/// The node makes a new group of voters and waits for its first entry.
const RECOVER_LIMIT: Duration = Duration::from_secs(20);

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    cluster: String,
    from: String,
    epoch: u64,
}

/// Runs the command.
pub async fn run(args: &RecoverArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let from = args.from;
    let client = change::connect(cluster).await?;
    let view = client.view();
    let (statuses, reports) = tokio::join!(statuses(&client, &view), client.moves(ANSWER_LIMIT));
    let answered: Vec<&MovesReport> =
        reports.iter().filter_map(|(_, report)| report.as_ref().ok()).collect();
    let refused =
        |what: String| Failed::new(Exit::Refused, format!("{what}\n  nothing was changed"));
    if let Some((_, Err(error))) = reports.iter().find(|(_, report)| {
        matches!(report, Err(RequestError::Failed(why)) if why.code == ErrorCode::NotPermitted)
    }) {
        return Err(change::not_asked(error));
    }
    let Some(why) = frozen(&answered) else {
        return Err(refused("the ring is not frozen: most voters are there".into())
            .mend("atoll cluster status"));
    };
    let epochs: Vec<(NodeId, u64)> = statuses
        .iter()
        .filter_map(|(node, status)| Some((*node, status.as_ref()?.epoch)))
        .collect();
    let Some((_, epoch)) = epochs.iter().find(|(node, _)| *node == from) else {
        return Err(
            refused(format!("{from} does not answer")).mend("start it, or name another node")
        );
    };
    if let Some((best, higher)) =
        epochs.iter().filter(|(_, other)| other > epoch).max_by_key(|(_, other)| *other)
    {
        let what = format!("{best} is at epoch {higher}, and {from} only at {epoch}");
        return Err(refused(what).mend(format!("atoll cluster recover --from {best}")));
    }
    let silent: Vec<String> = view
        .voters()
        .iter()
        .filter(|voter| !epochs.iter().any(|(node, _)| node == *voter))
        .map(NodeId::to_string)
        .collect();
    anstream::eprintln!(
        "{}\nThe membership log would go on from {from}, at epoch {epoch}, without {}.\nWhatever only \
         they had agreed on is undone. They must never run again as they are.",
        in_words(&view, why),
        if silent.is_empty() { "the other voters".into() } else { silent.join(", ") },
    );
    if !args.yes && ask(&format!("Type {from} to do it: "))?.trim() != from.to_string() {
        return Err(Failed::new(Exit::Other, "nothing was changed"));
    }
    let command = Command::Recovered { by: from };
    let epoch = client.propose_to(from, &command, RECOVER_LIMIT).await;
    client.close().await;
    let epoch = epoch.map_err(|error| match &error {
        ProposeError::Frozen(why) => refused(format!("{from} could not go on alone: {why}"))
            .mend("its log says more; then the same again"),
        _ => not_proposed(&error),
    })?;
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.cluster-recover/v1",
            cluster: view.cluster().to_string(),
            from: from.to_string(),
            epoch: epoch.0,
        }),
        Format::Plain => anstream::println!("{epoch}"),
        Format::Table => anstream::println!(
            "\x1b[1mrecovered\x1b[0m from {from}, epoch {epoch}. Declare dead whoever is lost:\n  \
             atoll cluster remove --dead NODE"
        ),
    }
    Ok(())
}
