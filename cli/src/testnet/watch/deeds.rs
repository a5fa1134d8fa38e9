//! What a key does to the selected node: what `testnet kill`, `pause`, `resume`, `start`,
//! `fault isolate` and `heal` do, told in one line.

use atoll_client::NodeId;
use atoll_testnet::{
    Condition, Event, FaultError, LinkWish, Node, Testnet,
    faults::{self, Standing, links},
    start, stop,
};
use atoll_wire::FaultList;
use tokio::task::JoinSet;

use super::keys::Deed;
use crate::{
    exit::Failed,
    testnet::{
        fault::failed_fault,
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
        (Deed::Pause | Deed::Heal, Condition::Paused(_)) => {
            stop::resume(&nodes, &mut hear).map_err(failed_file)?;
        }
        (Deed::Pause, _) => stop::pause(&nodes, &mut hear).map_err(failed_file)?,
        (Deed::Cut, _) => return cut(testnet, node).await,
        (Deed::Heal, Condition::Stopped | Condition::Dead) => {
            start_again(testnet, node, &mut hear).await?;
        }
        (Deed::Heal, Condition::Running(_)) => {}
    }
    if deed == Deed::Heal && mend_links(testnet, node.id).await? {
        told.push(format!("the links of {} are whole again", node.id));
    }
    Ok(match told.is_empty() {
        true => format!("{} runs, and its links are whole: there is nothing to heal", node.id),
        false => told.join("; "),
    })
}

/// Cuts a node off as `fault isolate` does, but leaves earlier cuts: who cuts one node after the other wants both.
async fn cut(testnet: &Testnet, node: &Node) -> Result<String, Failed> {
    let known = testnet.nodes().into_iter().map(|node| (node.id, node.zone));
    let plan = LinkWish::Isolate(node.id, None)
        .plan(&known.collect::<Vec<links::Named>>(), None)
        .map_err(|error| failed_fault(error.into()))?;
    let _lock = testnet.lock(launcher()?.lock_limit()).await.map_err(failed_open)?;
    let put = |at: NodeId, list: &mut FaultList| {
        for rule in plan.rules.get(&at).into_iter().flatten() {
            list.links.retain(|old| (old.peer, &old.name) != (rule.peer, &rule.name));
            list.links.push(rule.clone());
        }
    };
    change(testnet, put).await.map_err(failed_fault)?;
    Ok(format!("{} is cut off from all other nodes; clients reach it as before", node.id))
}

/// Takes away every fault of the links of a node, on both sides; whether there was one.
async fn mend_links(testnet: &Testnet, node: NodeId) -> Result<bool, Failed> {
    let _lock = testnet.lock(launcher()?.lock_limit()).await.map_err(failed_open)?;
    let clear = |at: NodeId, list: &mut FaultList| {
        list.links.retain(|rule| at != node && rule.peer != node);
    };
    match change(testnet, clear).await {
        Ok(changed) => Ok(!changed.is_empty()),
        Err(FaultError::NotAllowed { .. }) => Ok(false), // then there is none
        Err(error) => Err(failed_fault(error)),
    }
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

/// Changes the lists of all nodes; those that are other than before.
async fn change(
    testnet: &Testnet,
    edit: impl Fn(NodeId, &mut FaultList),
) -> Result<Vec<Standing>, FaultError> {
    faults::change(testnet, &testnet.nodes(), edit).await
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
