//! Who is there: judged from traffic and pings, never from Raft.
//!
//! A peer is **up** while it answers, **down** once a call has failed or nothing was heard for a while, and **unknown**
//! until the first sign. What this says is a guess about the future and decides only whom to ask first and what to
//! refuse early; whether a quorum was met is counted from answers alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use atoll_ring::{Epoch, NodeId};
use atoll_transport::CallError;
use atoll_wire::{ErrorCode, Health, Lane, PeerStatus, Ping, Reply, Request};
use tokio::{sync::Notify, time::Instant};

use crate::{Node, buckets, rise};

/// Pause between pings to a peer that answers.
const PING_EVERY: Duration = Duration::from_millis(500);

/// Pause between pings to one that does not: shorter, so that its return is noticed at once.
const PING_EVERY_WHILE_DOWN: Duration = Duration::from_millis(100);

/// How long a ping may take. A peer that needs longer counts as down.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// What is known of the peers.
pub(crate) struct Liveness {
    peers: Mutex<BTreeMap<NodeId, Peer>>,
    /// Somebody came up.
    pub(crate) came_up: Notify,
    /// There is news that everybody should hear.
    news: Notify,
}

struct Peer {
    state: State,
    /// It has left a question unanswered for longer than anybody should wait; asked last until it is heard again.
    silent: bool,
    round_trip_micros: u32,
    /// That one was measured while a connection was made, which takes longer: the next takes its place.
    was_connecting: bool,
}

#[derive(PartialEq, Eq)]
enum State {
    Unknown,
    Up,
    Down(String),
}

impl Peer {
    fn unknown() -> Self {
        Peer { state: State::Unknown, silent: false, round_trip_micros: 0, was_connecting: true }
    }
}

impl Liveness {
    pub(crate) fn of(peers: impl IntoIterator<Item = NodeId>) -> Self {
        let peers = peers.into_iter().map(|node| (node, Peer::unknown())).collect();
        Liveness { peers: Mutex::new(peers), came_up: Notify::new(), news: Notify::new() }
    }

    /// These are the others from now on.
    pub(crate) fn follow(&self, others: &[NodeId]) {
        let mut peers = self.peers.lock().expect("no panic holds it");
        peers.retain(|node, _| others.contains(node));
        for other in others {
            peers.entry(*other).or_insert_with(Peer::unknown);
        }
        drop(peers);
        self.came_up.notify_waiters(); // whoever waits for one that is gone looks again
    }

    /// Everybody hears from us at once.
    pub(crate) fn tell_all(&self) {
        self.news.notify_waiters();
    }

    /// Whether it is known to be unreachable.
    pub(crate) fn is_down(&self, node: NodeId) -> bool {
        let peers = self.peers.lock().expect("no panic holds it");
        peers.get(&node).is_some_and(|peer| matches!(peer.state, State::Down(_)))
    }

    /// Whether it has answered lately.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        let peers = self.peers.lock().expect("no panic holds it");
        peers.get(&node).is_some_and(|peer| peer.state == State::Up)
    }

    /// It owes an answer for longer than anybody should wait.
    pub(crate) fn silent(&self, node: NodeId) {
        let mut peers = self.peers.lock().expect("no panic holds it");
        if let Some(peer) = peers.get_mut(&node) {
            peer.silent = true;
        }
    }

    /// The order in which to ask: up before unknown or silent before down, then the nearest first.
    pub(crate) fn rank(&self, node: NodeId) -> (u8, u32) {
        let peers = self.peers.lock().expect("no panic holds it");
        peers.get(&node).map_or((0, 0), |peer| {
            let state = match peer.state {
                State::Up if !peer.silent => 0,
                State::Up | State::Unknown => 1,
                State::Down(_) => 2,
            };
            (state, peer.round_trip_micros)
        })
    }

    /// How it is, and how long a ping takes.
    pub(crate) fn health(&self, node: NodeId) -> (Health, u32) {
        let peers = self.peers.lock().expect("no panic holds it");
        let Some(peer) = peers.get(&node) else { return (Health::Unknown, 0) };
        let health = match &peer.state {
            State::Down(why) => Health::Down(why.clone()),
            State::Up | State::Unknown if peer.silent => Health::Silent,
            State::Up => Health::Up,
            State::Unknown => Health::Unknown,
        };
        (health, peer.round_trip_micros)
    }

    /// It answered.
    pub(crate) fn heard(&self, node: NodeId, round_trip: Option<Duration>) {
        let mut peers = self.peers.lock().expect("no panic holds it");
        let Some(peer) = peers.get_mut(&node) else { return };
        peer.silent = false;
        if let Some(round_trip) = round_trip {
            let micros = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
            peer.round_trip_micros = match peer.round_trip_micros {
                _ if peer.was_connecting => micros,
                smoothed => smoothed - smoothed / 8 + micros / 8,
            };
            peer.was_connecting = peer.state != State::Up;
        }
        if peer.state != State::Up {
            peer.state = State::Up;
            drop(peers);
            tracing::info!(peer = %node, "up");
            self.came_up.notify_waiters();
        }
    }

    /// It did not answer.
    pub(crate) fn failed(&self, node: NodeId, why: &str) {
        let mut peers = self.peers.lock().expect("no panic holds it");
        let Some(peer) = peers.get_mut(&node) else { return };
        if !matches!(peer.state, State::Down(_)) {
            tracing::info!(peer = %node, why, "down");
        }
        peer.state = State::Down(why.into());
    }

    /// A call ended: with an answer, or without a connection. Who is starting answers and serves nobody: it is down.
    pub(crate) fn learn(&self, node: NodeId, result: &Result<(Epoch, Reply), CallError>) {
        match result {
            Ok((_, reply)) if is_rising(reply) => self.failed(node, STARTING),
            Ok(_) => self.heard(node, None),
            Err(CallError::Down(why) | CallError::Lost(why)) => self.failed(node, why),
            Err(CallError::Overloaded | CallError::Unsendable(_)) => {}
        }
    }

    pub(crate) fn status(&self, hints: impl Fn(NodeId) -> u64) -> Vec<PeerStatus> {
        let peers = self.peers.lock().expect("no panic holds it");
        peers
            .iter()
            .map(|(node, peer)| PeerStatus {
                node: node.0,
                up: peer.state == State::Up,
                round_trip_micros: peer.round_trip_micros,
                hints: hints(*node),
                reason: match &peer.state {
                    State::Up => String::new(),
                    State::Unknown => "not heard yet".into(),
                    State::Down(why) => why.clone(),
                },
            })
            .collect()
    }
}

/// Whether a node says that it does not serve yet.
pub(crate) fn is_rising(reply: &Reply) -> bool {
    matches!(reply, Reply::Failed(failure) if failure.code == ErrorCode::Rising)
}

/// Why such a node counts as down.
const STARTING: &str = "starting";

/// Pings one peer as long as it is a member.
pub(crate) async fn watch(node: Arc<Node>, peer: NodeId) {
    while node.view().member(peer).is_some() {
        let ping = Ping {
            node: node.id().0,
            incarnation: node.incarnation(),
            commit: node.memory().to_tell(peer),
            roots: node.repair().roots(&node, peer),
            buckets: node.buckets().digest(),
        };
        let asked: Instant = node.clock().now();
        let envelope = node.envelope(asked + PING_LIMIT, 0);
        let call = node.transport().call(peer, Lane::Control, envelope, Request::Ping(ping));
        match tokio::time::timeout(PING_LIMIT, call).await {
            Ok(Ok((epoch, reply))) if is_rising(&reply) => {
                node.heard_epoch(peer, epoch);
                node.liveness().failed(peer, STARTING);
            }
            Ok(Ok((epoch, reply))) => {
                node.heard_epoch(peer, epoch);
                let round_trip = node.clock().now() - asked;
                node.liveness().heard(peer, Some(round_trip));
                if let Reply::Pong(pong) = reply {
                    node.hybrid().compare(peer, pong.wall_ms, round_trip, &**node.clock());
                    node.memory().heard(peer, pong.incarnation, pong.commit);
                    node.repair().heard(&node, peer, pong.roots, epoch);
                    buckets::gossip::heard(&node, peer, pong.buckets);
                }
                rise::ask_late(&node, peer).await;
            }
            Ok(Err(error)) => node.liveness().failed(peer, &error.to_string()),
            Err(_) => node.liveness().failed(peer, "no answer to a ping"),
        }
        let pause = if node.liveness().is_up(peer) { PING_EVERY } else { PING_EVERY_WHILE_DOWN };
        tokio::select! { biased;
            () = node.liveness().news.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
