//! The membership log of a real cluster: a Raft group of up to five voters, by openraft.
//!
//! The voters are members of the ring that the view names. Nobody else runs any of this: others pass proposals on to a
//! voter and get views from whoever has them. Data never waits for it. A node serves from the view on its disk, and the
//! group begins behind its back.
//!
//! ```text
//!   propose ─▶ leader: entry ─▶ majority: entry fsynced ─▶ applied on each voter's own view ─▶ Node::adopt ─▶ the others pull
//! ```
//!
//! **Who votes under which name.** A member of the group is a node *in one incarnation* (`Member`). A vote that is
//! forgotten can be given twice, so a node that has lost memory must never speak as who it was. It gets a new incarnation,
//! through this very log, and whoever leads takes the new member in and drops the old one (`voters`). For the same reason
//! the group of a node begins only when so many other voters have said what they remember of it that they make a majority
//! with it: one of them would know.
//!
//! **How a group begins.** The voters of the first view, each with an empty log in its first life, all write down the same
//! group. Whoever leads first puts the view into the log (`Line::First`), so that a log is whole in itself.
//!
//! `storage` is what a voter keeps, `network` what voters say to each other, `voters` how they are exchanged,
//! [`recover`] the way out when most of them are lost.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::Duration,
};

use atoll_antientropy::Actor;
use atoll_ring::{Command, Epoch, NodeId, Rejected, View};
use atoll_transport::Boxed;
use bytes::Bytes;
use openraft::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, time::Instant};

use super::{LogStanding, MembershipLog, NotProposed};
use crate::{Node, storage::commit::Disk};

mod network;
mod recover;
mod storage;
mod voters;

pub use recover::{CannotRecover, recover};

use network::{Question, Ways};
use storage::{Kept, LogStore, Machine};

/// Pause between two heartbeats of whoever leads, and how long a voter may take to answer one. A voter that syncs a vote or
/// an entry answers nothing meanwhile, and on a machine whose processors are all taken that takes its time: with a quarter
/// of a second, and elections after 1.5 to 3 s, nobody was ever elected once a sync took 1.2 s. Now that needs 2 s.
const HEARTBEAT_MS: u64 = 600;

/// After so long without one, and no longer than the second, a voter stands for election. Well above the time in which QUIC
/// finds out about a lost packet or a changed path, so that the network's hiccups do not cost a leader.
const ELECTION_MS: (u64, u64) = (2000, 4000);

/// How long a snapshot of the largest view may take.
const SNAPSHOT_MS: u64 = 5000;

/// Entries after which the log is cut. A view holds all that they say.
const CUT_AFTER: u64 = 128;

/// Entries kept beyond that, for voters that are a little behind.
const KEEP: u64 = 32;

/// Entries in one message. The largest command fills a quarter of a frame.
const ENTRIES_MAX: u64 = 4;

/// How long a proposal waits for somebody to lead. An election that goes wrong once fits in.
const LEADER_LIMIT: Duration = Duration::from_secs(8);

/// How long whoever leads waits for a majority before it refuses, with nothing done.
const MAJORITY_LIMIT: Duration = Duration::from_secs(3);

/// Between two attempts to hear from a majority within that time.
const MAJORITY_PAUSE: Duration = Duration::from_millis(100);

/// How long it waits for one to take an entry. Past that nobody knows what will become of it.
const AGREE_LIMIT: Duration = Duration::from_secs(5);

/// How often a node looks whether it should vote, and whoever leads whether the voters are as they should be.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A group that the view does not count this node into is left after so long without a word from it.
const LEFT_AFTER: Duration = Duration::from_secs(10);

openraft::declare_raft_types!(
    /// What this group speaks of.
    pub(super) Group:
        D = Line,
        R = Taken,
        NodeId = u64,
        Node = EmptyNode,
        Entry = openraft::Entry<Group>,
        SnapshotData = Vec<u8>,
        AsyncRuntime = openraft::TokioRuntime,
);

type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type RaftEntry = openraft::Entry<Group>;
type StoredMembership = openraft::StoredMembership<u64, EmptyNode>;
type Metrics = openraft::RaftMetrics<u64, EmptyNode>;

/// What became of a line: the epoch it made, or why it changes nothing.
type Taken = Result<Epoch, Rejected>;

/// One line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Line {
    /// The view that all others build on, in few bytes. Only the first one counts.
    First(Vec<u8>),
    /// A change of the ring.
    Change {
        /// When it was proposed, for people and for the end of invitations.
        at_ms: u64,
        /// What changes.
        command: Command,
    },
}

/// A member of the group: a node in one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member(u64);

impl Member {
    fn of(actor: Actor) -> Self {
        Member(u64::from(actor.incarnation) << 32 | u64::from(actor.node))
    }

    fn node(self) -> NodeId {
        NodeId(u32::try_from(self.0 & u64::from(u32::MAX)).expect("the lower half"))
    }

    /// The member that a node is in this view.
    fn in_view(view: &View, node: NodeId) -> Option<Self> {
        let incarnation = view.member(node)?.incarnation;
        Some(Member::of(Actor { node: node.0, incarnation }))
    }
}

/// The membership log of one node.
pub struct RaftLog(Arc<Shared>);

struct Shared {
    disk: Arc<Disk>,
    node: OnceLock<Weak<Node>>,
    state: Mutex<State>,
    /// One beginning or end at a time.
    turning: Semaphore,
    /// One change of voters at a time.
    exchanging: Semaphore,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// When another voter last said something.
    heard: Option<Instant>,
    closed: bool,
}

/// This node's part in the group.
#[derive(Clone)]
struct Running {
    me: Member,
    raft: Raft<Group>,
    /// Set when the log's first line is applied here.
    begun: Arc<OnceLock<()>>,
}

impl Running {
    /// Whether this member is one of the group's voters. A leader that has voted itself out still leads for up to a
    /// heartbeat, and whatever it would put into the log then breaks what the library relies on.
    fn votes(&self) -> bool {
        self.raft.metrics().borrow().membership_config.voter_ids().any(|voter| voter == self.me.0)
    }
}

impl RaftLog {
    /// The log of the node with this store. Nothing begins before the node serves.
    pub fn new(disk: Arc<Disk>) -> Self {
        RaftLog(Arc::new(Shared {
            disk,
            node: OnceLock::new(),
            state: Mutex::default(),
            turning: Semaphore::new(1),
            exchanging: Semaphore::new(1),
        }))
    }
}

impl MembershipLog for RaftLog {
    fn attach(&self, node: &Arc<Node>) {
        let first = self.0.node.set(Arc::downgrade(node)).is_ok();
        assert!(first, "a log serves one node");
        node.spawn(look_after(node.clone(), self.0.clone()));
    }

    fn propose(&self, command: Command) -> Boxed<Result<Epoch, NotProposed>> {
        let shared = self.0.clone();
        Box::pin(async move {
            let Some(node) = shared.node() else { return Err(stopping()) };
            shared.propose(&node, command).await
        })
    }

    fn hear(&self, from: NodeId, message: Bytes) -> Boxed<Result<Bytes, String>> {
        let shared = self.0.clone();
        Box::pin(async move { shared.hear(from, &message).await })
    }

    fn standing(&self) -> LogStanding {
        self.0.node().map(|node| self.0.standing(&node)).unwrap_or_default()
    }

    fn set_voters(&self, voters: Vec<NodeId>) -> Boxed<Result<(), NotProposed>> {
        let shared = self.0.clone();
        Box::pin(async move {
            let Some(node) = shared.node() else { return Err(stopping()) };
            voters::set(&shared, &node, voters).await
        })
    }

    fn close(&self) -> Boxed<()> {
        let shared = self.0.clone();
        Box::pin(async move {
            shared.state().closed = true;
            shared.end().await;
        })
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.node.get().and_then(Weak::upgrade)
    }

    fn running(&self) -> Option<Running> {
        self.state().running.clone()
    }

    /// The story of a proposal.
    async fn propose(&self, node: &Arc<Node>, command: Command) -> Result<Epoch, NotProposed> {
        let Some(running) = self.running() else { return Err(ask_a_voter(node)) };
        self.leading(node, &running).await?;
        let at_ms = node.clock().wall_ms();
        let taken = append(&running.raft, Line::Change { at_ms, command }).await?;
        Ok(taken?)
    }

    /// Makes sure that this node leads, that a majority says so just now, and that the log has begun. If not, nothing is
    /// changed.
    async fn leading(&self, node: &Arc<Node>, running: &Running) -> Result<(), NotProposed> {
        let leader = self.leader(node, running).await?;
        if leader != running.me {
            return Err(NotProposed::LedBy(leader.node()));
        }
        if !running.votes() {
            return Err(NotProposed::Frozen(
                "who led has voted itself out; another is elected".into(),
            ));
        }
        let until = node.clock().now() + MAJORITY_LIMIT;
        loop {
            match tokio::time::timeout_at(until, running.raft.ensure_linearizable()).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => {
                    let leader = error.forward_to_leader::<EmptyNode>().and_then(|to| to.leader_id);
                    if let Some(leader) = leader.map(|leader| Member(leader).node())
                        && leader != node.id()
                    {
                        return Err(NotProposed::LedBy(leader));
                    }
                    // those who are there may merely have been slow
                    if !reach(node).is_majority() || node.clock().now() >= until {
                        return Err(NotProposed::Frozen(reach(node).said()));
                    }
                    tokio::time::sleep(MAJORITY_PAUSE).await;
                }
                Err(_) => {
                    let said = reach(node).said();
                    return Err(NotProposed::Frozen(format!(
                        "no majority answers in time; {said}"
                    )));
                }
            }
        }
        if running.begun.get().is_none() {
            append(&running.raft, Line::First(node.view().encode())).await?.ok();
        }
        Ok(())
    }

    /// Who leads; waits for an election if that can help.
    async fn leader(&self, node: &Arc<Node>, running: &Running) -> Result<Member, NotProposed> {
        let mut metrics = running.raft.metrics();
        let until = node.clock().now() + LEADER_LIMIT;
        loop {
            let known = metrics.borrow_and_update().current_leader.map(Member);
            if let Some(leader) = known
                && (leader == running.me || !node.liveness().is_down(leader.node()))
            {
                return Ok(leader);
            }
            if !reach(node).is_majority() {
                return Err(NotProposed::Frozen(reach(node).said()));
            }
            match tokio::time::timeout_at(until, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(stopping()),
                Err(_) => {
                    let said = reach(node).said();
                    return Err(NotProposed::Frozen(format!("nobody leads; {said}")));
                }
            }
        }
    }

    /// The story of a message.
    async fn hear(&self, from: NodeId, message: &[u8]) -> Result<Bytes, String> {
        let node = self.node().ok_or("the node has ended")?;
        let (to, rest) = network::addressed(message)?;
        let me = node.actor().map(Member::of).ok_or("it does not serve yet")?;
        if to != me {
            return Err(format!("{from} means a former life of {}", node.id()));
        }
        let question = network::question(rest)?;
        self.state().heard = Some(node.clock().now());
        let running = self.begin(&node).await?;
        let answer = match question {
            Question::Append(rpc) => {
                let answer = running.raft.append_entries(rpc).await.map_err(|e| e.to_string())?;
                postcard::to_stdvec(&answer)
            }
            Question::Vote(rpc) => {
                let answer = running.raft.vote(rpc).await.map_err(|e| e.to_string())?;
                postcard::to_stdvec(&answer)
            }
            Question::Snapshot(vote, meta, bytes) => {
                let snapshot = openraft::Snapshot { meta, snapshot: Box::new(bytes) };
                let answer = running.raft.install_full_snapshot(vote, snapshot).await;
                postcard::to_stdvec(&answer.map_err(|e| e.to_string())?.vote)
            }
        };
        Ok(answer.expect("plain data").into())
    }

    fn standing(&self, node: &Arc<Node>) -> LogStanding {
        let reach = reach(node);
        let metrics = self.running().map(|running| running.raft.metrics().borrow().clone());
        let leader = metrics.as_ref().and_then(|metrics| metrics.current_leader).map(Member);
        let leads = metrics.as_ref().is_some_and(|metrics| {
            let alone = metrics.membership_config.voter_ids().count() == 1;
            let heard = metrics.millis_since_quorum_ack.is_some_and(|ago| ago <= ELECTION_MS.1);
            let votes = self.running().is_some_and(|running| running.votes());
            metrics.state == ServerState::Leader && votes && (alone || heard) && reach.is_majority()
        });
        let leader = leader.map(Member::node).filter(|_| reach.is_majority());
        let frozen = match (reach.is_majority(), &metrics) {
            (false, _) => format!("ring frozen at epoch {}: {}", node.view().epoch(), reach.said()),
            (true, Some(_)) if leader.is_none() => {
                let epoch = node.view().epoch();
                format!("ring frozen at epoch {epoch}: nobody leads yet; {}", reach.said())
            }
            (true, _) => String::new(),
        };
        let voters_reachable = u8::try_from(reach.voters.len()).unwrap_or(u8::MAX);
        LogStanding { leader, leads, voters_reachable, frozen }
    }

    /// This node's part in the group; begins it if it has not begun.
    async fn begin(&self, node: &Arc<Node>) -> Result<Running, String> {
        let _turn = self.turning.acquire().await.expect("it is never closed");
        if self.state().closed {
            return Err("the node is stopping".into());
        }
        if let Some(running) = self.running() {
            return Ok(running);
        }
        let me = node.actor().map(Member::of).ok_or("it does not serve yet")?;
        let view = node.view();
        let others = view.voters().iter().filter(|voter| **voter != node.id());
        let said = others.filter(|voter| !node.memory().must_ask(**voter)).count();
        if said < view.voters().len() / 2 {
            return Err("too few voters have said what they remember of this node".into());
        }
        let (kept, applied) =
            Kept::open(self.disk.clone(), me).await.map_err(|error| error.to_string())?;
        if let Some(view) = &applied.view
            && view.epoch() > node.view().epoch()
        {
            let adopted = node.adopt(View::clone(view), &[], Vec::new()).await;
            adopted.map_err(|error| error.to_string())?;
        }
        let blank = kept.is_blank();
        let machine = Machine::new(self.disk.clone(), Arc::downgrade(node), applied);
        let begun = machine.begun();
        let ways = Ways(Arc::downgrade(node));
        let raft = Raft::new(me.0, Arc::new(config()), ways, LogStore(kept), machine);
        let raft = raft.await.map_err(|error| error.to_string())?;
        let running = Running { me, raft, begun };
        if blank && is_founder(node, me) {
            let founders: BTreeSet<u64> = view
                .voters()
                .iter()
                .filter_map(|voter| Member::in_view(&view, *voter))
                .map(|member| member.0)
                .collect();
            if let Err(error) = running.raft.initialize(founders).await {
                tracing::warn!(%error, "the group has begun without this node");
            }
        }
        tracing::info!(node = %me.node(), incarnation = me.0 >> 32, "votes on the membership log");
        self.state().running = Some(running.clone());
        Ok(running)
    }

    /// Leaves the group, or stops.
    async fn end(&self) {
        let _turn = self.turning.acquire().await.expect("it is never closed");
        let running = self.state().running.take();
        if let Some(running) = running
            && let Err(error) = running.raft.shutdown().await
        {
            tracing::warn!(%error, "the membership log did not end in order");
        }
    }
}

/// Whether this node, new and with an empty log, may write down with the others who the group is. Only the voters of the
/// very first view may, in their first life.
fn is_founder(node: &Node, me: Member) -> bool {
    let view = node.view();
    let first_life = Member::of(Actor { node: node.id().0, incarnation: 0 });
    view.epoch() == Epoch(1) && me == first_life && view.voters().contains(&node.id())
}

/// Puts a line into the log. Only whoever leads can.
async fn append(raft: &Raft<Group>, line: Line) -> Result<Taken, NotProposed> {
    match tokio::time::timeout(AGREE_LIMIT, raft.client_write(line)).await {
        Ok(Ok(written)) => Ok(written.data),
        // also said of an entry that another leader has overwritten here, and that may live on elsewhere
        Ok(Err(error)) => Err(NotProposed::Unknown(error.to_string())),
        Err(_) => Err(NotProposed::Unknown("no majority has taken it in time".into())),
    }
}

/// Voters within reach.
struct Reach {
    voters: Vec<NodeId>,
    all: usize,
}

fn reach(node: &Node) -> Reach {
    let view = node.view();
    let is_there = |voter: &NodeId| match *voter == node.id() {
        true => node.actor().is_some(),
        false => node.liveness().is_up(*voter),
    };
    let voters = view.voters().iter().copied().filter(is_there).collect();
    Reach { voters, all: view.voters().len() }
}

impl Reach {
    fn is_majority(&self) -> bool {
        self.voters.len() > self.all / 2
    }

    fn said(&self) -> String {
        let names: Vec<String> = self.voters.iter().map(NodeId::to_string).collect();
        let some = self.voters.len();
        let names = if names.is_empty() { "none".into() } else { names.join(", ") };
        format!("{some} of {} voters reachable: {names}", self.all)
    }
}

/// What a node answers that does not vote: ask the nearest voter.
fn ask_a_voter(node: &Node) -> NotProposed {
    let reach = reach(node);
    let nearest = reach.voters.iter().filter(|voter| **voter != node.id());
    match nearest.min_by_key(|voter| node.liveness().rank(**voter)) {
        Some(voter) if reach.is_majority() => NotProposed::LedBy(*voter),
        Some(_) | None => NotProposed::Frozen(reach.said()),
    }
}

fn stopping() -> NotProposed {
    NotProposed::Frozen("the node is stopping".into())
}

fn config() -> Config {
    let config = Config {
        cluster_name: "atoll".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        install_snapshot_timeout: SNAPSHOT_MS,
        max_payload_entries: ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(CUT_AFTER),
        max_in_snapshot_log_to_keep: KEEP,
        replication_lag_threshold: 2 * CUT_AFTER,
        ..Config::default()
    };
    config.validate().expect("these fit together")
}

/// Votes when the view says so, leaves when it does not, and if this node leads keeps the voters as they should be.
async fn look_after(node: Arc<Node>, shared: Arc<Shared>) {
    let mut held_up = String::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let wanted = node.view().voters().contains(&node.id());
        match shared.running() {
            None if wanted && node.actor().is_some() => {
                if let Err(why) = shared.begin(&node).await
                    && why != held_up
                {
                    tracing::info!(why, "does not vote yet");
                    held_up = why;
                }
            }
            None => {}
            Some(running) => {
                let heard = shared.state().heard;
                let now = node.clock().now();
                let silent = heard.is_none_or(|heard| now - heard > LEFT_AFTER);
                let leads = running.raft.metrics().borrow().state == ServerState::Leader;
                if !wanted && silent && !leads {
                    tracing::info!("votes on the membership log no longer");
                    shared.end().await;
                } else {
                    voters::mend(&shared, &node, &running).await;
                }
            }
        }
    }
}
