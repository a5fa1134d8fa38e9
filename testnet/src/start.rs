//! Starting nodes: the processes, and the wait until each answers or has failed.
//!
//! A node that ends instead of becoming ready is noticed at that moment, because here it is still our child. What we
//! know of its end (exit status, last lines of its log) goes into the error: nobody should have to look for it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use atoll_ring::NodeId;
use rustix::process::Signal;
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::Instant,
};

use crate::{
    event::{Event, Hear},
    files::FileError,
    node::{Condition, Node},
    poll,
    probe::{Probe, ProbeError},
    process::Process,
    stop::undo,
    testnet::Testnet,
};

/// What nodes are started with, and how long they may take.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program, called as `PROGRAM node run --config FILE [--first-start] [ARGUMENTS]`.
    pub program: PathBuf,
    /// What is added to the command line of each node. Only for this start: another `up` or `start` knows nothing of it.
    /// Of a testnet that allows faults each node is told so without this.
    pub node_arguments: Vec<String>,
    /// How long a node may take to answer. Default 20 s: a big data directory is read at start.
    pub ready_limit: Duration,
    /// How long a node may take to end before it is killed. Default 10 s.
    pub stop_limit: Duration,
}

/// Why a node did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its process could not be started.
    #[error("{node} could not be started: {source}")]
    Spawn {
        /// Which node.
        node: NodeId,
        /// Why.
        source: io::Error,
    },
    /// Its process ended.
    #[error("{node} did not become ready: it {}", ended(*status))]
    Exited {
        /// Which node.
        node: NodeId,
        /// How.
        status: ExitStatus,
        /// The last lines it has written since this start.
        last_lines: Vec<String>,
        /// The log.
        log: PathBuf,
    },
    /// It runs and does not answer.
    #[error("{node} did not become ready within {} s: {reason}", limit.as_secs())]
    Silent {
        /// Which node.
        node: NodeId,
        /// What asking it led to.
        reason: String,
        /// How long it was asked.
        limit: Duration,
        /// The last lines it has written since this start.
        last_lines: Vec<String>,
        /// The log.
        log: PathBuf,
    },
    /// Nobody can be asked.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The user has changed his mind.
    #[error("interrupted")]
    Interrupted,
}

impl StartError {
    /// The node that failed.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self {
            StartError::Spawn { node, .. }
            | StartError::Exited { node, .. }
            | StartError::Silent { node, .. } => Some(*node),
            StartError::Probe(_) | StartError::File(_) | StartError::Interrupted => None,
        }
    }

    /// What it had to say, and where it said it.
    #[must_use]
    pub fn log(&self) -> Option<(&[String], &Path)> {
        match self {
            StartError::Exited { last_lines, log, .. }
            | StartError::Silent { last_lines, log, .. } => Some((last_lines, log)),
            StartError::Spawn { .. }
            | StartError::Probe(_)
            | StartError::File(_)
            | StartError::Interrupted => None,
        }
    }
}

/// Starts these nodes as far as they do not run, and waits until all are ready. If one fails, or `interrupted` comes
/// first, ends those it has started. The testnet's lock must be held.
///
/// # Errors
/// See [`StartError`].
pub async fn start(
    testnet: &Testnet,
    launcher: &Launcher,
    nodes: Vec<Node>,
    interrupted: impl Future<Output = ()>,
    hear: Hear<'_>,
) -> Result<(), StartError> {
    let mut started = Vec::new();
    let outcome = tokio::select! { biased;
        () = interrupted => Err(StartError::Interrupted),
        outcome = start_all(testnet, launcher, nodes, &mut started, hear) => outcome.map(|_| ()),
    };
    if outcome.is_err() {
        undo(started, launcher.stop_limit, hear).await?;
    }
    outcome
}

impl Launcher {
    /// Starts nodes with the program that runs now.
    ///
    /// # Errors
    /// The system does not tell which program that is.
    pub fn current() -> io::Result<Launcher> {
        Ok(Launcher {
            program: std::env::current_exe()?,
            node_arguments: Vec::new(),
            ready_limit: Duration::from_secs(20),
            stop_limit: Duration::from_secs(10),
        })
    }

    /// How long another command that starts or stops nodes is waited for: as long as that may take.
    #[must_use]
    pub fn lock_limit(&self) -> Duration {
        self.ready_limit.max(self.stop_limit) + Duration::from_secs(5)
    }

    fn allows_faults(&self) -> bool {
        self.node_arguments.iter().any(|argument| argument == ALLOW_FAULTS)
    }

    /// Starts the process of a node. It outlives us: in a process group of its own no Ctrl-C reaches it.
    pub(crate) fn spawn(&self, testnet: &Testnet, node: &Node) -> Result<Starting, StartError> {
        let path = node.log();
        let log = OpenOptions::new().append(true).create(true).open(&path);
        let log = log.map_err(FileError::of("open", &path))?;
        let log_from = log.metadata().map_err(FileError::of("read", &path))?.len();
        let second = log.try_clone().map_err(FileError::of("open", &path))?;
        let mut command = Command::new(&self.program);
        command.args(["node", "run", "--config"]).arg(node.config());
        if node.is_first_start() {
            command.arg("--first-start");
        }
        if testnet.asked().allow_faults && !self.allows_faults() {
            command.arg(ALLOW_FAULTS);
        }
        command.args(&self.node_arguments);
        command
            .current_dir(node.folder())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(second)
            .process_group(0);
        let spawn = |source| StartError::Spawn { node: node.id, source };
        let since = Instant::now();
        let child = command.spawn().map_err(spawn)?;
        // also if it has ended already: its id is not free as long as nobody has waited for it
        let process = child.id().and_then(|pid| Process::note(pid, node.config()));
        match process {
            Some(process) => node.remember(&process)?,
            None => node.forget()?,
        }
        Ok(Starting { node: node.clone(), child, log_from, since })
    }
}

/// A node whose process was just started.
pub(crate) struct Starting {
    node: Node,
    child: Child,
    log_from: u64,
    since: Instant,
}

impl Starting {
    /// Waits until the node answers; an end of its process is noticed at once.
    async fn ready(mut self, probe: Probe, limit: Duration) -> Result<Waited, StartError> {
        let outcome = tokio::select! { biased;
            status = self.child.wait() => {
                Err(status.map_err(|source| StartError::Spawn { node: self.node.id, source })?)
            }
            answer = probe.until_ready(&self.node, limit) => Ok(answer),
        };
        let log = self.node.log();
        let node = self.node.id;
        let last_lines = || last_lines(&log, self.log_from);
        match outcome {
            Ok(Ok(_)) => {
                self.node.note_was_ready()?;
                Ok(Waited::Ready(self.node, Some(self.since.elapsed())))
            }
            Ok(Err(reason)) => {
                Err(StartError::Silent { node, reason, limit, last_lines: last_lines(), log })
            }
            Err(status) => {
                self.node.forget()?;
                Err(StartError::Exited { node, status, last_lines: last_lines(), log })
            }
        }
    }
}

/// Starts those of these nodes that do not run, lets paused ones go on, and waits until all are ready; the first failure
/// ends the wait. Puts those it has started into `started` at once, and tells how many did not run before.
pub(crate) async fn start_all(
    testnet: &Testnet,
    launcher: &Launcher,
    nodes: Vec<Node>,
    started: &mut Vec<Node>,
    hear: Hear<'_>,
) -> Result<usize, StartError> {
    let probe = Probe::open(testnet)?;
    let limit = launcher.ready_limit;
    let mut waits = JoinSet::new();
    let mut changed = 0;
    for node in nodes {
        match node.condition()? {
            Condition::Running(_) => {
                waits.spawn(answering(node, probe.clone(), limit));
            }
            Condition::Paused(_) => {
                node.signal(Signal::CONT)?;
                hear(Event::Resumed { node: node.id });
                changed += 1;
                waits.spawn(answering(node, probe.clone(), limit));
            }
            Condition::Stopped | Condition::Dead => {
                let starting = launcher.spawn(testnet, &node)?;
                started.push(node);
                changed += 1;
                waits.spawn(starting.ready(probe.clone(), limit));
            }
        }
    }
    while let Some(wait) = waits.join_next().await {
        match wait.expect("waiting does not panic")? {
            Waited::Ready(node, after) => hear(Event::Ready { node: node.id, after }),
            Waited::Ended(node) => {
                let starting = launcher.spawn(testnet, &node)?;
                started.push(node);
                changed += 1;
                waits.spawn(starting.ready(probe.clone(), limit));
            }
        }
    }
    if changed > 0 {
        let mut running = Vec::new();
        for node in testnet.nodes() {
            if matches!(node.condition()?, Condition::Running(_)) {
                running.push(node);
            }
        }
        probe.until_they_hear_each_other(&running, HEARD_LIMIT).await;
    }
    Ok(changed)
}

/// What came of waiting for a node.
enum Waited {
    /// It answers; after so long, if we have started it.
    Ready(Node, Option<Duration>),
    /// Its process, which was there before us, was about to end and has ended.
    Ended(Node),
}

/// A node that somebody else started: all we can do is ask, and see whether it is still there.
async fn answering(node: Node, probe: Probe, limit: Duration) -> Result<Waited, StartError> {
    let gone = async {
        while matches!(node.condition(), Ok(Condition::Running(_) | Condition::Paused(_))) {
            poll::pause().await;
        }
    };
    let answer = tokio::select! { biased;
        answer = probe.until_ready(&node, limit) => answer,
        () = gone => return Ok(Waited::Ended(node)),
    };
    match answer {
        Ok(_) => {
            node.note_was_ready()?;
            Ok(Waited::Ready(node, None))
        }
        Err(reason) => {
            let log = node.log();
            let last_lines = last_lines(&log, 0);
            Err(StartError::Silent { node: node.id, reason, limit, last_lines, log })
        }
    }
}

/// The last lines of a log from this offset on. A log that cannot be read has none.
pub(crate) fn last_lines(log: &Path, from: u64) -> Vec<String> {
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(LAST_BYTES_MAX))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LAST_LINES_MAX);
    lines[first..].iter().map(|line| (*line).to_owned()).collect()
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}

/// Without it a node cannot be broken on purpose.
const ALLOW_FAULTS: &str = "--allow-faults";

/// How long nodes that answer may take to find each other. Only a courtesy to the next command: past it we go on.
const HEARD_LIMIT: Duration = Duration::from_secs(3);

/// Enough to see what went wrong, little enough to be read.
const LAST_LINES_MAX: usize = 10;

const LAST_BYTES_MAX: u64 = 16 << 10;
