//! `up`: from a wish to a cluster that has stored and returned a value. Or to nothing: what was started is ended again.

use std::{ops::Range, time::Duration};

use atoll_client::NodeStatus;
use atoll_ring::ClusterId;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    asked::{Asked, AskedError, FILE, Wish},
    claim::{ClaimError, claim},
    event::{Event, Hear},
    files::{self, FileError},
    greet::{Greeting, greet},
    grown::{self, Grown},
    home::{Home, HomeError},
    node::{Condition, Node},
    papers::{self, PapersError},
    poll,
    ports::{self, NoPorts},
    probe::{Probe, ProbeError},
    start::{Launcher, StartError, start_all},
    stop,
    testnet::{Lock, OpenError, Testnet},
};

/// A testnet all of whose nodes are ready.
#[derive(Debug)]
pub struct Up {
    /// The testnet.
    pub testnet: Testnet,
    /// The first put and get. `None`: all nodes ran already.
    pub greeting: Option<Greeting>,
}

/// Why there is no testnet. Nothing that was started for it still runs.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The name, or the home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The place.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The wish.
    #[error(transparent)]
    Asked(#[from] AskedError),
    /// Another command works on it, or it cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No ports.
    #[error(transparent)]
    NoPorts(#[from] NoPorts),
    /// A port that is written down belongs to somebody else now.
    #[error(
        "UDP port {port} of {node} is taken by another program, and the ports of a testnet never move"
    )]
    PortTaken {
        /// Whose port.
        node: atoll_ring::NodeId,
        /// Which one.
        port: u16,
    },
    /// Its nodes run, and were told that they may not be broken.
    #[error("testnet {name} runs, and its nodes were started without --allow-faults")]
    RunsWithoutFaults {
        /// The testnet.
        name: String,
    },
    /// Certificates, configurations.
    #[error(transparent)]
    Papers(#[from] PapersError),
    /// A node.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The nodes are ready, and still nothing can be stored.
    #[error("all nodes are ready, but the first put and get failed: {reason}")]
    Greeting {
        /// Why.
        reason: String,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The user has changed his mind.
    #[error("interrupted")]
    Interrupted,
}

/// Brings a testnet up: makes it if there is none of that name, starts those of its nodes that do not run, waits until
/// all are ready and greets them. If that fails, or `interrupted` comes first, ends what it has started.
///
/// # Errors
/// See [`UpError`].
pub async fn up(
    home: &Home,
    launcher: &Launcher,
    wish: &Wish,
    interrupted: impl Future<Output = ()>,
    hear: Hear<'_>,
) -> Result<Up, UpError> {
    let (mut testnet, lock, is_new) = find_or_make(home, wish, hear).await?;
    let runs = !is_new && any_runs(&testnet)?;
    if wish.allow_faults && !testnet.asked().allow_faults {
        if runs {
            // those that run have been told otherwise, and would bear nothing
            return Err(UpError::RunsWithoutFaults { name: testnet.name().to_owned() });
        }
        testnet.allow_faults()?;
    }
    if !is_new && !runs {
        check_ports(&testnet)?;
        papers::issue(&testnet)?;
    }
    let mut started = Vec::new();
    let bring_up = bring_up(home, &mut testnet, launcher, is_new, &mut started, hear);
    let outcome = tokio::select! { biased;
        () = interrupted => Err(UpError::Interrupted),
        outcome = bring_up => outcome,
    };
    if outcome.is_err() {
        stop::undo(started, launcher.stop_limit, hear).await?;
        if is_new {
            // nobody has heard of it yet, so nobody has data in it; the logs stay
            testnet.nodes().iter().try_for_each(Node::begin_anew)?;
        }
        if matches!(outcome, Err(UpError::Interrupted)) && testnet.asked().ephemeral {
            testnet.remove(home, lock)?;
        }
    }
    let greeting = outcome?;
    home.set_current(testnet.name())?;
    Ok(Up { testnet, greeting })
}

/// The testnet of that name, if the wish does not contradict it; else a new one, with everything but processes.
async fn find_or_make(
    home: &Home,
    wish: &Wish,
    hear: Hear<'_>,
) -> Result<(Testnet, Lock, bool), UpError> {
    let name = wish.name();
    let cluster = ClusterId(rand::random());
    if !home.entry(name)?.join(FILE).exists() {
        // what cannot be shall not leave an empty folder behind
        wish.settle(cluster)?;
    }
    let folder = claim(home, name, wish.folder.as_deref())?;
    let lock = Lock::take(&folder, Duration::ZERO).await?;
    if let Some(asked) = Asked::load(&folder)? {
        let mut testnet = Testnet::new(folder.clone(), asked);
        testnet.reload()?;
        if !testnet.asked().ephemeral || any_runs(&testnet)? {
            testnet.asked().check(wish)?;
            papers::found(&testnet)?;
            return Ok((testnet, lock, false));
        }
        // its keeper was killed: what was to be removed then is removed now
        for node in testnet.everybody() {
            files::remove(node.folder())?;
        }
        remove_founding(&testnet)?;
    }
    let (mut asked, warnings) = wish.settle(cluster)?;
    for warning in warnings {
        hear(Event::Warning(warning));
    }
    let taken = taken_by_others(home, name)?;
    asked.first_port = ports::first_free(asked.base_port, asked.nodes, &taken, ports::is_free)?;
    let testnet = make(Testnet::new(folder, asked), hear)?;
    Ok((testnet, lock, true))
}

fn make(testnet: Testnet, hear: Hear<'_>) -> Result<Testnet, UpError> {
    testnet.asked().save(testnet.folder())?;
    papers::found(&testnet)?;
    papers::issue(&testnet)?;
    hear(Event::Created {
        folder: testnet.folder().to_owned(),
        first_port: testnet.asked().first_port,
        nodes: testnet.asked().nodes,
    });
    Ok(testnet)
}

/// Starts what does not run until all are ready. A new testnet whose port was snatched away goes on with other ports:
/// nobody has seen the first ones yet.
async fn bring_up(
    home: &Home,
    testnet: &mut Testnet,
    launcher: &Launcher,
    is_new: bool,
    started: &mut Vec<Node>,
    hear: Hear<'_>,
) -> Result<Option<Greeting>, UpError> {
    let mut moves_left = if is_new { PORT_MOVES_MAX } else { 0 };
    loop {
        let failed = match start_all(testnet, launcher, testnet.nodes(), started, hear).await {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) => error,
        };
        let node = failed.node().and_then(|id| testnet.nodes().into_iter().find(|n| n.id == id));
        let Some(node) = node.filter(|_| moves_left > 0) else { return Err(failed.into()) };
        moves_left -= 1;
        stop::undo(started.clone(), launcher.stop_limit, &mut |_| {}).await?;
        if ports::is_free(node.address.port()) {
            return Err(failed.into());
        }
        started.clear();
        hear(Event::PortTaken { port: node.address.port() });
        *testnet = with_next_ports(home, testnet, hear)?;
    }
    mutually_seen(testnet).await.map_err(StartError::from)?;
    let greeting = greet(testnet).await.map_err(|reason| UpError::Greeting { reason })?;
    Ok(Some(greeting))
}

/// The same testnet, never started, behind the ports it had.
fn with_next_ports(home: &Home, testnet: &Testnet, hear: Hear<'_>) -> Result<Testnet, UpError> {
    for node in testnet.nodes() {
        files::remove(node.folder())?;
    }
    remove_founding(testnet)?;
    let mut asked = testnet.asked().clone();
    let taken = taken_by_others(home, testnet.name())?;
    let stride = u16::try_from(ports::stride(asked.nodes)).expect("a small constant");
    let base_port = asked.first_port.saturating_add(stride);
    asked.first_port = ports::first_free(base_port, asked.nodes, &taken, ports::is_free)?;
    make(Testnet::new(testnet.folder().to_owned(), asked), hear)
}

/// The view holds the ports, the secret belongs to the data: of a testnet that begins anew neither is worth anything.
fn remove_founding(testnet: &Testnet) -> Result<(), FileError> {
    files::remove(&testnet.folder().join("view.json"))?;
    files::remove(&testnet.folder().join(grown::FILE))?;
    files::remove(&testnet.folder().join("cluster.secret"))
}

/// Waits a moment until every node has met every other, so that the first receipt shows a whole cluster. Not longer:
/// the greeting finds out by itself whether it can be met.
async fn mutually_seen(testnet: &Testnet) -> Result<(), ProbeError> {
    let probe = Probe::open(testnet)?;
    let deadline = Instant::now() + MEET_LIMIT;
    let mut waits = JoinSet::new();
    for node in testnet.nodes() {
        let probe = probe.clone();
        waits.spawn(async move {
            let sees_all =
                |status: NodeStatus| status.peers.iter().all(|peer| peer.up).then_some(());
            while Instant::now() < deadline
                && probe.ask(&node, MEET_LIMIT).await.ok().and_then(sees_all).is_none()
            {
                poll::pause().await;
            }
        });
    }
    waits.join_all().await;
    Ok(())
}

fn any_runs(testnet: &Testnet) -> Result<bool, FileError> {
    for node in testnet.nodes() {
        match node.condition()? {
            Condition::Running(_) | Condition::Paused(_) => return Ok(true),
            Condition::Stopped | Condition::Dead => {}
        }
    }
    Ok(false)
}

/// Said before anything is started: a node would say it less clearly.
fn check_ports(testnet: &Testnet) -> Result<(), UpError> {
    match testnet.nodes().into_iter().find(|node| !ports::is_free(node.address.port())) {
        Some(node) => Err(UpError::PortTaken { node: node.id, port: node.address.port() }),
        None => Ok(()),
    }
}

pub(crate) fn taken_by_others(home: &Home, name: &str) -> Result<Vec<Range<u32>>, UpError> {
    let mut taken = Vec::new();
    for other in home.names()?.into_iter().filter(|other| other != name) {
        // whatever cannot be read has no ports that we could know
        if let Ok(Some(asked)) = Asked::load(&home.entry(&other)?) {
            taken.push(ports::block(asked.first_port, asked.nodes));
            let grown = Grown::load(&home.entry(&other)?).unwrap_or_default();
            taken.extend(grown.added.iter().map(|added| ports::block(added.port, 1)));
        }
    }
    Ok(taken)
}

/// Losing the race for a port is rare; losing it more often than this is no race.
const PORT_MOVES_MAX: u32 = 5;

const MEET_LIMIT: Duration = Duration::from_secs(3);
