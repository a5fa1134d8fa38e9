//! What a key does to the selected node: what `testnet kill`, `pause`, `resume` and `start` do, told in one line.

use atoll_client::NodeId;
use atoll_testnet::{Condition, Event, Node, Testnet, start, stop};
use tokio::task::JoinSet;

use super::keys::Deed;
use crate::{
    exit::{Exit, Failed},
    testnet::{
        launcher,
        say::{self, failed_file, failed_open, failed_start},
        status::Tone,
    },
};

/// What is under way. It ends with whoever holds this.
#[derive(Default)]
pub struct Deeds {
    running: JoinSet<(String, Tone)>,
}

impl Deeds {
    /// Begins one, and says what will be told until it is done.
    pub fn begin(&mut self, deed: Deed, testnet: &Testnet, node: NodeId) -> (String, Tone) {
        let testnet = testnet.clone();
        self.running.spawn(async move {
            match perform(deed, &testnet, node).await {
                Ok(told) => (told, Tone::Good),
                Err(failed) => (in_one_line(&failed), Tone::Bad),
            }
        });
        let doing = match deed {
            Deed::Kill => "killing",
            Deed::Pause => "pausing",
            Deed::Cut => "cutting off",
            Deed::Heal => "healing",
        };
        (format!("{doing} {node} …"), Tone::Quiet)
    }

    /// What came of the next one that ends. Never, if none is under way.
    pub async fn next(&mut self) -> (String, Tone) {
        match self.running.join_next().await {
            Some(told) => told.expect("no deed panics, and nobody ends one"),
            None => std::future::pending().await,
        }
    }
}

async fn perform(deed: Deed, testnet: &Testnet, node: NodeId) -> Result<String, Failed> {
    let nodes = testnet.select(&[node]).map_err(failed_open)?;
    let [node] = nodes.as_slice() else { unreachable!("one node was selected") };
    let condition = node.condition().map_err(failed_file)?;
    let mut told = Vec::new();
    let mut hear = |event: Event| told.push(plain(&say::words(&event)));
    match (deed, condition) {
        (Deed::Kill, _) => stop::kill(&nodes, &mut hear).await.map_err(failed_file)?,
        (Deed::Pause, Condition::Paused(_)) | (Deed::Heal, Condition::Paused(_)) => {
            stop::resume(&nodes, &mut hear).map_err(failed_file)?;
        }
        (Deed::Pause, _) => stop::pause(&nodes, &mut hear).map_err(failed_file)?,
        (Deed::Cut, _) => return Err(cannot_cut()),
        (Deed::Heal, Condition::Stopped | Condition::Dead) => {
            start_again(testnet, node, &mut hear).await?;
        }
        (Deed::Heal, Condition::Running(_)) => {
            return Ok(format!("{} runs: there is nothing to heal", node.id));
        }
    }
    Ok(told.join("; "))
}

async fn start_again(
    testnet: &Testnet,
    node: &Node,
    hear: &mut (dyn FnMut(Event) + Send),
) -> Result<(), Failed> {
    let launcher = launcher()?;
    let _lock = testnet.lock(launcher.lock_limit()).await.map_err(failed_open)?;
    // whoever leaves meanwhile leaves a node that starts
    let never = std::future::pending();
    start::start(testnet, &launcher, vec![node.clone()], never, hear)
        .await
        .map_err(|error| failed_start(&error))
}

fn cannot_cut() -> Failed {
    Failed::new(Exit::Refused, "this testnet was started without faults")
        .mend("atoll testnet up --allow-faults")
}

/// An error where there is room for one line only.
fn in_one_line(failed: &Failed) -> String {
    let what = failed.what.lines().next().unwrap_or_default();
    match &failed.mend {
        Some(mend) => format!("{what}; try: {mend}"),
        None => what.to_owned(),
    }
}

/// A line without colours and indentation.
fn plain(line: &str) -> String {
    anstream::adapter::strip_str(line).to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
