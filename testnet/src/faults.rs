//! What is broken on purpose in a testnet: read from its nodes, changed, and put back.
//!
//! Each node keeps a list of its own ([`FaultList`]). A node that runs is asked and told over the wire, and its answer means
//! that it is so; of one that does not run, or is paused, the file in its data directory is read and written, and takes
//! effect when it runs. There is no third way: whoever can be reached by neither is an error.
//!
//! [`change`] is all or nothing as far as the nodes allow it: everything is read and checked before anything is written, and
//! if some cannot be told the others get back what they had. [`links`] says what a wish means for the links of each node.

use std::time::Duration;

use atoll_ring::NodeId;
use atoll_wire::{ErrorCode, FaultList, FaultListError, FaultsRequest, Reply, Request};
use tokio::task::JoinSet;

use crate::{
    files::{self, FileError},
    node::{Condition, Node},
    probe::{Probe, ProbeError},
    testnet::Testnet,
};

pub mod links;

pub use links::{LinkWish, Shape, Way, WishError};

/// The list of one node, and how we know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose it is.
    pub node: NodeId,
    /// What it says.
    pub list: FaultList,
    /// Where it was found, or put.
    pub place: Place,
}

/// Where a node's list was found, or put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The node has said so: it is in force.
    InForce,
    /// The node does not run: it takes effect when it is started.
    FileOfStopped,
    /// The node is paused: it takes effect when it goes on.
    FileOfPaused,
}

/// Why nothing is broken, or not all that should be.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The testnet's nodes may not be broken. Nothing was changed.
    #[error(
        "{node} of testnet {testnet} was started without --allow-faults: it cannot be broken on purpose"
    )]
    NotAllowed {
        /// The testnet.
        testnet: String,
        /// The first node that said so.
        node: NodeId,
    },
    /// What is wished cannot be. Nothing was changed.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// A node would get a list that cannot be. Nothing was changed.
    #[error("{node}: {reason}")]
    List {
        /// Which node.
        node: NodeId,
        /// Why it cannot be.
        reason: FaultListError,
    },
    /// A node's own file is no list. Nothing was changed.
    #[error("{} is no list of faults: {reason}", path.display())]
    Malformed {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: FaultListError,
    },
    /// A node that runs cannot be asked. Nothing was changed.
    #[error("{node} runs and cannot be asked what is broken: {reason}; nothing was changed")]
    Unheard {
        /// Which node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// Some nodes could not be told; the others got back what they had, as far as that went.
    #[error("{}", untold(failed, left))]
    Untold {
        /// Who could not be told, and why.
        failed: Vec<(NodeId, String)>,
        /// Who could not be told that it is as before, either: it keeps the new faults.
        left: Vec<NodeId>,
    },
    /// Nobody can be asked.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

fn untold(failed: &[(NodeId, String)], left: &[NodeId]) -> String {
    let reasons: Vec<String> =
        failed.iter().map(|(node, reason)| format!("{node} could not be told: {reason}")).collect();
    let others = match left {
        [] => "all others are as before".to_owned(),
        left => {
            let names: Vec<String> = left.iter().map(NodeId::to_string).collect();
            format!("{} could not be told otherwise and keeps the new faults", names.join(", "))
        }
    };
    format!("{}; {others}", reasons.join("; "))
}

/// The lists of these nodes, in their order.
///
/// # Errors
/// See [`FaultError`]: one node that cannot be asked is enough.
pub async fn read(testnet: &Testnet, nodes: &[Node]) -> Result<Vec<Standing>, FaultError> {
    let probe = Probe::open(testnet)?;
    let mut asking = JoinSet::new();
    for (index, node) in nodes.iter().cloned().enumerate() {
        let (probe, testnet) = (probe.clone(), testnet.clone());
        asking.spawn(async move { (index, read_one(&testnet, &node, &probe).await) });
    }
    let mut all = asking.join_all().await;
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, standing)| standing).collect()
}

/// Changes the lists of these nodes: each as `edit` says. The testnet's lock must be held. Returns those that are other
/// than before.
///
/// # Errors
/// See [`FaultError`].
pub async fn change(
    testnet: &Testnet,
    nodes: &[Node],
    edit: impl Fn(NodeId, &mut FaultList),
) -> Result<Vec<Standing>, FaultError> {
    let before = read(testnet, nodes).await?;
    let mut after = Vec::new();
    for (node, before) in nodes.iter().zip(&before) {
        let mut list = before.list.clone();
        edit(node.id, &mut list);
        if list != before.list {
            list.check().map_err(|reason| FaultError::List { node: node.id, reason })?;
            after.push((node.clone(), list));
        }
    }
    let told = tell(testnet, after).await?;
    let failed: Vec<(NodeId, String)> = told
        .iter()
        .filter_map(|(node, outcome)| Some((node.id, outcome.as_ref().err()?.clone())))
        .collect();
    if failed.is_empty() {
        return Ok(told.into_iter().filter_map(|(_, outcome)| outcome.ok()).collect());
    }
    // whoever gave no answer may have obeyed all the same, so it is told again, too
    let old = told.into_iter().map(|(node, _)| {
        let was = before.iter().find(|standing| standing.node == node.id).expect("read before");
        (node, was.list.clone())
    });
    let undone = tell(testnet, old.collect()).await?;
    let is_failed = |node: NodeId| failed.iter().any(|(other, _)| *other == node);
    let left = undone
        .iter()
        .filter(|(node, outcome)| outcome.is_err() && !is_failed(node.id))
        .map(|(node, _)| node.id)
        .collect();
    Err(FaultError::Untold { failed, left })
}

type Told = Vec<(Node, Result<Standing, String>)>;

/// Tells each of these nodes its list, all at once.
async fn tell(testnet: &Testnet, lists: Vec<(Node, FaultList)>) -> Result<Told, FaultError> {
    let probe = Probe::open(testnet)?;
    let mut telling = JoinSet::new();
    for (node, list) in lists {
        let probe = probe.clone();
        telling.spawn(async move {
            let outcome = tell_one(&node, list, &probe).await;
            (node, outcome)
        });
    }
    let mut told = telling.join_all().await;
    told.sort_by_key(|(node, _)| node.id);
    Ok(told)
}

async fn tell_one(node: &Node, list: FaultList, probe: &Probe) -> Result<Standing, String> {
    let place = place(node).map_err(|error| error.to_string())?;
    if place != Place::InForce {
        write_file(node, &list).map_err(|error| error.to_string())?;
        return Ok(Standing { node: node.id, list, place });
    }
    let list = Some(Box::new(list));
    match probe.request(node, Request::Faults(FaultsRequest { list }), ANSWER_LIMIT).await? {
        Reply::Faults(report) => Ok(Standing { node: node.id, list: report.list, place }),
        Reply::Failed(failure) => Err(failure.to_string()),
        _ => Err("answered nonsense".into()),
    }
}

async fn read_one(testnet: &Testnet, node: &Node, probe: &Probe) -> Result<Standing, FaultError> {
    let not_allowed =
        || FaultError::NotAllowed { testnet: testnet.name().to_owned(), node: node.id };
    let place = place(node)?;
    if place != Place::InForce {
        // nobody would obey the file
        if !testnet.asked().allow_faults {
            return Err(not_allowed());
        }
        let list = read_file(node)?;
        return Ok(Standing { node: node.id, list, place });
    }
    let request = Request::Faults(FaultsRequest { list: None });
    let unheard = |reason| FaultError::Unheard { node: node.id, reason };
    match probe.request(node, request, ANSWER_LIMIT).await.map_err(unheard)? {
        Reply::Faults(report) => Ok(Standing { node: node.id, list: report.list, place }),
        Reply::Failed(failure) if failure.code == ErrorCode::FaultsNotAllowed => Err(not_allowed()),
        Reply::Failed(failure) => Err(unheard(failure.to_string())),
        _ => Err(unheard("it answered nonsense".into())),
    }
}

fn place(node: &Node) -> Result<Place, FileError> {
    Ok(match node.condition()? {
        Condition::Running(_) => Place::InForce,
        Condition::Paused(_) => Place::FileOfPaused,
        Condition::Stopped | Condition::Dead => Place::FileOfStopped,
    })
}

fn read_file(node: &Node) -> Result<FaultList, FaultError> {
    let path = node.faults();
    let text = files::read(&path)?.unwrap_or_default();
    FaultList::parse(&text).map_err(|reason| FaultError::Malformed { path, reason })
}

/// A list that commands nothing leaves no file, as with a node itself.
fn write_file(node: &Node, list: &FaultList) -> Result<(), FileError> {
    let path = node.faults();
    if *list == FaultList::default() {
        return files::remove(&path);
    }
    files::write(&path, &list.text(), files::PUBLIC)
}

/// How long a node may take to answer. It writes a small file.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
