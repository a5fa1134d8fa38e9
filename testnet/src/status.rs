//! How a testnet is: what the system says of each process, and what each node says of itself.

use std::time::Duration;

use atoll_client::NodeStatus;
use tokio::task::JoinSet;

use crate::{
    files::FileError,
    node::{Condition, Node},
    probe::Probe,
    testnet::Testnet,
};

/// How a node is.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// Which node.
    pub node: Node,
    /// In one word.
    pub state: State,
    /// Its process, if it has one.
    pub pid: Option<u32>,
    /// What it says of itself, if it answers.
    pub status: Option<NodeStatus>,
}

/// The state of a node in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It serves.
    Ready,
    /// It runs and does not answer yet, or does not serve yet.
    Starting,
    /// Its process was paused.
    Paused,
    /// It was never started, or ended as it was told to.
    Stopped,
    /// It was killed, or ended by itself.
    Dead,
}

impl State {
    /// The word for people and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Starting => "starting",
            State::Paused => "paused",
            State::Stopped => "stopped",
            State::Dead => "dead",
        }
    }
}

/// Looks at all nodes, in their order. Takes [`ANSWER_LIMIT`] at most.
///
/// # Errors
/// A pid file cannot be read.
pub async fn status(testnet: &Testnet) -> Result<Vec<NodeReport>, FileError> {
    // without papers nobody can have started
    let probe = Probe::open(testnet).ok();
    let mut looks = JoinSet::new();
    for node in testnet.nodes() {
        looks.spawn(look(node, probe.clone()));
    }
    let mut reports = Vec::new();
    while let Some(report) = looks.join_next().await {
        reports.push(report.expect("looking does not panic")?);
    }
    reports.sort_by_key(|report| report.node.id);
    Ok(reports)
}

async fn look(node: Node, probe: Option<Probe>) -> Result<NodeReport, FileError> {
    let (state, pid) = match node.condition()? {
        Condition::Stopped => (State::Stopped, None),
        Condition::Dead => (State::Dead, None),
        Condition::Paused(process) => (State::Paused, Some(process.pid)),
        Condition::Running(process) => (State::Starting, Some(process.pid)),
    };
    let answer = match (state, probe) {
        (State::Starting, Some(probe)) => probe.ask(&node, ANSWER_LIMIT).await.ok(),
        _ => None,
    };
    let serves = |status: &NodeStatus| status.rising.is_empty();
    let state = if answer.as_ref().is_some_and(serves) { State::Ready } else { state };
    Ok(NodeReport { node, state, pid, status: answer })
}

/// A ready node on the same machine answers in some milliseconds; a busy machine needs longer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(2);
