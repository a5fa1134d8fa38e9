//! How a testnet is: what the system says of each process, and what each node says of itself.
//!
//! [`look`] looks once, a [`Lookout`] again and again: it keeps its connections. What a [`Look`] amounts to, who hears
//! whom and whether all is well, is told in `health`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atoll_client::NodeStatus;
use atoll_ring::{NodeId, View};
use atoll_transport::Link;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    files::FileError,
    home::HomeError,
    node::{Condition, Node},
    probe::{self, Probe},
    testnet::{OpenError, Testnet},
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

/// What was seen at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Every node, in their order.
    pub reports: Vec<NodeReport>,
    /// The newest ring that a node has told of; none until one has.
    pub view: Option<Arc<View>>,
}

/// Asks all nodes once, in their order. Takes [`ANSWER_LIMIT`] at most.
///
/// # Errors
/// A pid file cannot be read.
pub async fn status(testnet: &Testnet) -> Result<Vec<NodeReport>, FileError> {
    Lookout::of(testnet.clone()).ask_all(ANSWER_LIMIT).await
}

/// Looks at all nodes and the ring once. Takes twice [`ANSWER_LIMIT`] at most.
///
/// # Errors
/// As [`Lookout::look`].
pub async fn look(testnet: &Testnet) -> Result<Look, OpenError> {
    Lookout::of(testnet.clone()).look(ANSWER_LIMIT).await
}

/// Somebody who looks at a testnet, perhaps for long.
pub struct Lookout {
    testnet: Testnet,
    /// None until somebody could be asked: without papers nobody can have started.
    probe: Option<Probe>,
    links: BTreeMap<NodeId, Line>,
    view: Option<Arc<View>>,
}

/// A connection to the process of a node. A new process has a new one: the old would stay silent.
#[derive(Clone)]
struct Line {
    pid: u32,
    link: Arc<Link>,
}

impl Lookout {
    /// One for this testnet.
    #[must_use]
    pub fn of(testnet: Testnet) -> Lookout {
        Lookout { testnet, probe: None, links: BTreeMap::new(), view: None }
    }

    /// The testnet, as it was when it was last looked at.
    #[must_use]
    pub fn testnet(&self) -> &Testnet {
        &self.testnet
    }

    /// Looks at all nodes, whoever they are by now. Who does not answer within `limit` has not answered.
    ///
    /// # Errors
    /// The testnet was removed, or what is written down of it cannot be read.
    pub async fn look(&mut self, limit: Duration) -> Result<Look, OpenError> {
        if !self.testnet.exists() {
            let name = self.testnet.name().to_owned();
            return Err(HomeError::Removed { name }.into());
        }
        self.testnet.reload()?;
        let reports = self.ask_all(limit).await?;
        self.learn_the_ring(&reports, limit).await;
        Ok(Look { reports, view: self.view.clone() })
    }

    async fn ask_all(&mut self, limit: Duration) -> Result<Vec<NodeReport>, FileError> {
        let probe = self.probe.take().or_else(|| Probe::open(&self.testnet).ok());
        let mut looks = JoinSet::new();
        for node in self.testnet.nodes() {
            let line = self.links.remove(&node.id);
            looks.spawn(report(node, probe.clone(), line, limit));
        }
        let mut reports = Vec::new();
        while let Some(seen) = looks.join_next().await {
            let (report, line) = seen.expect("looking does not panic")?;
            self.links.extend(line.map(|line| (report.node.id, line)));
            reports.push(report);
        }
        reports.sort_by_key(|report| report.node.id);
        // if a node that runs did not answer, its papers may be newer than ours
        let all_answer = reports.iter().all(|report| report.state != State::Starting);
        self.probe = probe.filter(|_| all_answer);
        Ok(reports)
    }

    /// Asks whoever knows a newer ring than we.
    async fn learn_the_ring(&mut self, reports: &[NodeReport], limit: Duration) {
        let epoch = |report: &NodeReport| report.status.as_ref().map(|status| status.epoch);
        let newest = reports.iter().max_by_key(|report| epoch(report));
        let Some((newest, their_epoch)) = newest.and_then(|one| Some((one, epoch(one)?))) else {
            return;
        };
        let is_newer = |view: &Arc<View>| their_epoch > view.epoch().0;
        if self.view.as_ref().is_none_or(is_newer)
            && let Some(line) = self.links.get(&newest.node.id)
            && let Ok(Ok(view)) = timeout(limit, probe::view(&line.link)).await
        {
            self.view = Some(Arc::new(view));
        }
    }
}

async fn report(
    node: Node,
    probe: Option<Probe>,
    line: Option<Line>,
    limit: Duration,
) -> Result<(NodeReport, Option<Line>), FileError> {
    let (state, pid) = match node.condition()? {
        Condition::Stopped => (State::Stopped, None),
        Condition::Dead => (State::Dead, None),
        Condition::Paused(process) => (State::Paused, Some(process.pid)),
        Condition::Running(process) => (State::Starting, Some(process.pid)),
    };
    let asked = match (state, pid, probe) {
        (State::Starting, Some(pid), Some(probe)) => {
            timeout(limit, ask(&node, pid, &probe, line)).await.ok().flatten()
        }
        _ => None,
    };
    let (status, line) = asked.unzip();
    let serves = |status: &NodeStatus| status.rising.is_empty();
    let state = if status.as_ref().is_some_and(serves) { State::Ready } else { state };
    Ok((NodeReport { node, state, pid, status }, line))
}

/// Asks over the connection there is; over a new one, if it is of another process or broken.
async fn ask(
    node: &Node,
    pid: u32,
    probe: &Probe,
    line: Option<Line>,
) -> Option<(NodeStatus, Line)> {
    if let Some(line) = line.filter(|line| line.pid == pid && line.link.is_open())
        && let Ok(status) = probe::status(&line.link).await
    {
        return Some((status, line));
    }
    let link = Arc::new(probe.dial(node).await.ok()?);
    let status = probe::status(&link).await.ok()?;
    Some((status, Line { pid, link }))
}

/// A ready node on the same machine answers in some milliseconds; a busy machine needs longer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(2);
