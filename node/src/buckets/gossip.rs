//! How the nodes come to know the same buckets.
//!
//! Whoever changes something tells everybody within reach, once ([`tell_all`]). Every ping and its answer carry the digest
//! of what their sender knows; who sees another digest than its own fetches the other's registry and joins it
//! ([`heard`]), in both directions. A node that is asked about a bucket it has never heard of asks all others before it
//! refuses ([`learn`]), and one that starts asks them before it serves ([`pull_all`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use atoll_ring::NodeId;
use atoll_wire::{
    BucketChange, BucketId, Buckets, BucketsQuery, Change, Lane, Reply, Request, bucket::Registry,
};
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{sync::Semaphore, time::Instant};

use crate::Node;

/// How long a peer may take to take over or to send a registry.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long a request for an unknown bucket waits for the others, at most. Half of the time it has by default.
const LEARN_LIMIT: Duration = Duration::from_millis(500);

/// How long it is believed that nobody knows a bucket. Whoever creates it meanwhile tells us.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The pause between two rounds of questions: each brings all that the others know, so one serves many requests.
const NEXT_ROUND: Duration = Duration::from_millis(50);

/// Unknown buckets that are remembered as such. Past that the oldest are forgotten and may be asked about again.
const ASKED_MAX: usize = 1024;

/// Requests for unknown buckets that wait at the same time. The next ones are refused at once.
const WAITING_MAX: usize = 256;

/// What goes on.
pub(super) struct Gossip {
    /// Peers whose registry is being fetched.
    pulling: Mutex<BTreeSet<NodeId>>,
    /// Buckets that nobody knew, and when that was.
    asked: Mutex<BTreeMap<BucketId, Instant>>,
    /// One round of questions at a time.
    round: Semaphore,
    waiting: Semaphore,
}

impl Default for Gossip {
    fn default() -> Self {
        Gossip {
            pulling: Mutex::default(),
            asked: Mutex::default(),
            round: Semaphore::new(1),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }
}

impl Gossip {
    fn was_asked(&self, bucket: BucketId, now: Instant) -> bool {
        let asked = self.asked.lock().expect("no panic holds it");
        asked.get(&bucket).is_some_and(|at| now < *at + ASK_AGAIN)
    }

    fn note_asked(&self, bucket: BucketId, now: Instant) {
        let mut asked = self.asked.lock().expect("no panic holds it");
        asked.insert(bucket, now);
        if asked.len() > ASKED_MAX {
            asked.retain(|_, at| now < *at + ASK_AGAIN);
        }
        while asked.len() > ASKED_MAX {
            let oldest = asked.iter().min_by_key(|(_, at)| **at).map(|(bucket, _)| *bucket);
            asked.remove(&oldest.expect("it is not empty"));
        }
    }
}

/// Tells every other member what is known here. Gives those who know it too now, on stable storage, and those who may not.
pub(super) async fn tell_all(node: &Arc<Node>, deadline: Instant) -> (Vec<u32>, Vec<u32>) {
    let registry: Bytes = node.buckets().registry().encode().into();
    let until = deadline.min(node.clock().now() + ANSWER_LIMIT);
    let told = node.others().into_iter().map(|peer| tell(node, peer, registry.clone(), until));
    let (known, missing): (Vec<_>, Vec<_>) =
        join_all(told).await.into_iter().partition(|(_, knows)| *knows);
    let ids = |peers: Vec<(NodeId, bool)>| peers.into_iter().map(|(peer, _)| peer.0).collect();
    (ids(known), ids(missing))
}

async fn tell(node: &Arc<Node>, peer: NodeId, registry: Bytes, until: Instant) -> (NodeId, bool) {
    if node.liveness().is_down(peer) {
        return (peer, false);
    }
    let request = Request::BucketChange(BucketChange { change: Change::Join, registry });
    let reply = ask(node, peer, request, until).await;
    (peer, matches!(reply, Some(Reply::BucketChanged(_))))
}

/// A peer has said in one number what it knows.
pub(crate) fn heard(node: &Arc<Node>, peer: NodeId, digest: u64) {
    if digest == node.buckets().digest() {
        return;
    }
    let gossip = &node.buckets().gossip;
    if !gossip.pulling.lock().expect("no panic holds it").insert(peer) {
        return;
    }
    let pulls = node.clone();
    node.spawn(async move {
        pull(&pulls, peer, pulls.clock().now() + ANSWER_LIMIT).await;
        let gossip = &pulls.buckets().gossip;
        gossip.pulling.lock().expect("no panic holds it").remove(&peer);
    });
}

/// Takes over what a peer knows. Whether it has answered; what it said is on stable storage then.
pub(crate) async fn pull(node: &Arc<Node>, peer: NodeId, until: Instant) -> bool {
    let have = node.buckets().digest();
    let asked = Request::Buckets(BucketsQuery { have });
    let Some(Reply::Buckets(known)) = ask(node, peer, asked, until).await else { return false };
    take_over(node, peer, &known).await
}

/// Joins what a peer has said. Whether that was possible; it is on stable storage then.
pub(crate) async fn take_over(node: &Arc<Node>, peer: NodeId, known: &Buckets) -> bool {
    if known.registry.is_empty() {
        return true;
    }
    match Registry::decode(&known.registry, node.view().bucket_n()) {
        Ok(registry) => node.buckets().join(&registry).done().await.is_ok(),
        Err(error) => {
            tracing::warn!(%peer, %error, "sent buckets that cannot be taken over");
            false
        }
    }
}

/// Takes over what every other member within reach knows.
pub(crate) async fn pull_all(node: &Arc<Node>, until: Instant) {
    let others = node.others().into_iter().filter(|peer| !node.liveness().is_down(*peer));
    join_all(others.map(|peer| pull(node, peer, until))).await;
}

/// Somebody speaks of a bucket that this node may never have heard of: asks the others, unless that was done a moment ago.
/// Never for long and not past the deadline.
pub(crate) async fn learn(node: &Arc<Node>, bucket: BucketId, deadline: Instant) {
    let gossip = &node.buckets().gossip;
    let needless =
        || node.buckets().known(bucket).is_some() || gossip.was_asked(bucket, node.clock().now());
    let Ok(_place) = gossip.waiting.try_acquire() else { return };
    let until = deadline.min(node.clock().now() + LEARN_LIMIT);
    let asking = async {
        if needless() {
            return;
        }
        let _round = gossip.round.acquire().await.expect("it is never closed");
        if needless() {
            return; // whoever was first has asked for us too
        }
        pull_all(node, until).await;
        if node.buckets().known(bucket).is_none() {
            gossip.note_asked(bucket, node.clock().now());
        }
        tokio::time::sleep(NEXT_ROUND).await;
    };
    let _ = tokio::time::timeout_at(until, asking).await;
}

async fn ask(node: &Arc<Node>, peer: NodeId, request: Request, until: Instant) -> Option<Reply> {
    let envelope = node.envelope(until, 0);
    let call = node.transport().call(peer, Lane::Control, envelope, request);
    let result = tokio::time::timeout_at(until, call).await.ok()?;
    node.liveness().learn(peer, &result);
    let (epoch, reply) = result.ok()?;
    node.heard_epoch(peer, epoch);
    if let Reply::Failed(failure) = &reply {
        tracing::debug!(%peer, %failure, "said nothing of buckets");
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(number: usize) -> BucketId {
        BucketId((number as u128).to_be_bytes())
    }

    /// What nobody knew is not asked about for a while, and then again; however many are asked for, few are remembered, and
    /// those the newest.
    #[tokio::test(start_paused = true)]
    async fn unknown_buckets_are_remembered_for_a_while() {
        let gossip = Gossip::default();
        let begun = Instant::now();
        gossip.note_asked(bucket(0), begun);
        assert!(gossip.was_asked(bucket(0), begun + ASK_AGAIN / 2));
        assert!(!gossip.was_asked(bucket(0), begun + ASK_AGAIN));
        assert!(!gossip.was_asked(bucket(1), begun));
        for number in 0..2 * ASKED_MAX {
            gossip.note_asked(bucket(number), begun + Duration::from_micros(number as u64));
        }
        let asked = gossip.asked.lock().expect("no panic holds it");
        assert_eq!(asked.len(), ASKED_MAX);
        assert!(asked.keys().all(|asked| *asked >= bucket(ASKED_MAX)));
    }
}
