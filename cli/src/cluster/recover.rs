//! `atoll cluster recover`: the majority of the voters is lost for good, and the membership log goes on from what one node
//! has.
//!
//! This is the one command that can undo what was agreed on: a change that only lost voters had is gone. So it takes the
//! highest epoch that is left and nothing less, only while the ring is frozen, only after the node's name was typed, and it
//! leaves an entry in the log. It works on the data of a node that is stopped, on that node's host.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use atoll_client::{Client, MovesReport, NodeId};
use atoll_node::{NodeConfig, Recovery, RecoveryError};
use clap::{Args, ValueHint};
use serde::Serialize;

use super::status::in_words;
use crate::{
    change::{ANSWER_LIMIT, ask, statuses, watch::frozen},
    exit::{Exit, Failed},
    output::{self, Format},
    request::profile,
};

/// From whose copy.
#[derive(Args)]
#[command(after_help = "\
Example, on the host of n3:
  atoll cluster status                         which node has the highest epoch?
  (stop n3)
  atoll cluster recover --from n3 --config /etc/atoll/n3/node.toml
  (start n3)

Only when most voters are lost for good: their disks are gone, or will never be started again. If they can come back,
start them instead; nothing but changes of the ring waits for them. A voter that is lost must never run again as it is:
wipe it first.

--from names the node with the highest epoch; it must be stopped. It alone votes from then on, the others follow its
view, and new voters are chosen by themselves. Changes that only the lost voters had are gone. Data is not touched. The
log says for ever that it was recovered, and from whom.")]
pub struct RecoverArgs {
    /// The node whose copy of the log counts: the one with the highest epoch
    #[arg(long, value_name = "NODE")]
    from: NodeId,

    /// Its settings
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: PathBuf,

    /// Do it without asking
    #[arg(short, long)]
    yes: bool,
}

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
    let profile = profile(cluster)?;
    let config = NodeConfig::load(&args.config).map_err(|error| refused(error.to_string()))?;
    if config.node != from {
        let what = format!("{} is of {}, not of {from}", args.config.display(), config.node);
        return Err(refused(what).mend("the settings of the node that --from names"));
    }
    // whoever is left may know better; that nobody answers is no objection
    if let Ok(client) = Client::connect(&profile).await {
        let client = Arc::new(client);
        let objection = object(&client, from).await;
        client.close().await;
        objection?;
    }
    let recovery = Recovery::open(config, profile.cluster).map_err(|error| failed(from, &error))?;
    let epoch = recovery.view().epoch();
    if let Ok(client) = Client::connect(&profile).await {
        let view = Arc::new(client).refresh(ANSWER_LIMIT).await;
        if view.epoch() > epoch {
            let what =
                format!("{from} is only at epoch {epoch}, and others are at {}", view.epoch());
            return Err(
                refused(what).mend("--from the node with the highest epoch: atoll cluster status")
            );
        }
    }
    let others = recovery.view().voters().iter().filter(|voter| **voter != from);
    let others: Vec<String> = others.map(NodeId::to_string).collect();
    anstream::eprintln!(
        "The membership log of cluster {} would go on from {from}, at epoch {epoch}, without {}.\nWhatever \
         only they had agreed on is undone. They must never run again as they are: wipe them first.",
        profile.cluster,
        if others.is_empty() { "anybody else".into() } else { others.join(", ") },
    );
    if !args.yes && ask(&format!("Type {from} to do it: "))?.trim() != from.to_string() {
        return Err(Failed::new(Exit::Other, "nothing was changed"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let epoch = recovery.commit(u64::try_from(now).unwrap_or(u64::MAX)).await;
    let epoch = epoch.map_err(|error| failed(from, &error))?;
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.cluster-recover/v1",
            cluster: profile.cluster.to_string(),
            from: from.to_string(),
            epoch: epoch.0,
        }),
        Format::Plain => anstream::println!("{epoch}"),
        Format::Table => anstream::println!(
            "\x1b[1mrecovered\x1b[0m from {from}, epoch {epoch}. Start it, then declare dead whoever is lost:\n  \
             atoll cluster remove --dead NODE"
        ),
    }
    Ok(())
}

/// What those that are left have against it.
async fn object(client: &Arc<Client>, from: NodeId) -> Result<(), Failed> {
    let view = client.refresh(ANSWER_LIMIT).await;
    let (statuses, reports) = tokio::join!(statuses(client, &view), client.moves(ANSWER_LIMIT));
    if statuses.iter().any(|(node, status)| *node == from && status.is_some()) {
        let what = format!("{from} runs");
        return Err(refused(what).mend(format!("stop {from}, then the same again")));
    }
    let answered: Vec<&MovesReport> =
        reports.iter().filter_map(|(_, report)| report.as_ref().ok()).collect();
    match frozen(&answered) {
        Some(why) => {
            anstream::eprintln!("{}", in_words(&view, why));
            Ok(())
        }
        None if answered.is_empty() => Ok(()),
        None => Err(refused("the ring is not frozen: most voters are there".into())
            .mend("atoll cluster status")),
    }
}

fn refused(what: String) -> Failed {
    Failed::new(Exit::Refused, format!("{what}\n  nothing was changed"))
}

fn failed(from: NodeId, error: &RecoveryError) -> Failed {
    let failed = refused(error.to_string());
    match error {
        RecoveryError::Open(_) => {
            failed.mend(format!("{from} must be stopped, and --config its own"))
        }
        RecoveryError::Cannot(_) | RecoveryError::Nothing(_) => {
            failed.mend("another node: the one with the highest epoch that is whole")
        }
    }
}
