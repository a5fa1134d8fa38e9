//! How a node begins to serve: as the node it was, or under a new incarnation.
//!
//! A node that has lost something (its directory was emptied, copied or restored; its journal lost its tail) may neither
//! give out its counters again, nor let its silence be taken for knowledge. So before its first dot after any start it
//! asks every peer within reach what that one remembers of it. If its own directory and the peers agree, it serves as
//! before. Otherwise:
//!
//! 1. It proposes its next incarnation to the membership log, through any peer that passes it on. The log takes each number
//!    once. Only an answer to its very own proposal counts: what ends unknown may be taken, for a life that nobody leads.
//! 2. In one commit it writes down its new incarnation, and doubt for all it owns.
//! 3. It serves, its answers joined and not counted until each partition was compared with every other owner (`doubt`).
//!
//! Until then it refuses data and tells its peers so. So a node that lost memory needs a majority of the voters to serve as
//! an owner; one that lost nothing needs nobody. A voter that lost memory does not count towards that majority: it comes
//! back as another member of the group (see `membership/raft`).
//!
//! A peer out of reach at the start is asked as soon as it is met ([`ask_late`]). If it then remembers more than this node
//! has, the node stops: the next start knows.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use atoll_antientropy::Actor;
use atoll_ring::{Command, Epoch, NodeId, Partition, View};
use atoll_transport::{CallError, Caller};
use atoll_wire::{
    Ack, BucketsQuery, Commit, ErrorCode, Lane, Propose, Recall, Recalled, Reply, Request, Role,
    Roles,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::{
    Node, Past,
    buckets::gossip,
    canary::{self, Canary},
    membership::{self, catch_up},
    storage::{Space, StoreError, Write, commit::Disk, meta, rows},
};

/// How long a peer may take to say what it remembers, or to write something down.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How long a peer to which there is no connection is given to appear. Peers that run are connected sooner, and those that
/// do not must not hold up a start; they are asked when they are met.
const REACH_LIMIT: Duration = Duration::from_millis(500);

/// Pause before a peer that cannot be reached is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Pause between two rounds of a node that waits for others.
const NEXT_ROUND: Duration = Duration::from_millis(500);

/// What a node knew of itself when it started.
pub(crate) struct Began {
    pub(crate) incarnation: u32,
    pub(crate) unclean_starts: u64,
}

/// Counts a start that follows no orderly stop, and makes this start count likewise until it is stopped. The view is
/// kept, so that the file it came from is needed only once. So is a loss, until there is a new incarnation: the commits
/// of this start would hide it from the next one.
pub(crate) async fn begin(
    disk: &Disk,
    view: &View,
    incarnation_of_view: u32,
    past: Past,
) -> Result<(Began, Past), StoreError> {
    let names = [rows::CLEAN, rows::UNCLEAN_STARTS, rows::VIEW, rows::INCARNATION, rows::LOST];
    let [clean, starts, kept_view, own, lost] = names.map(Bytes::from_static);
    let read = |row: &Bytes| match disk.get(Space::Meta, row)? {
        Some(value) => meta::open(row, &value).map(Some),
        None => Ok(None),
    };
    let clean_before = read(&clean)?.is_some();
    let before = match disk.get(Space::Meta, &starts)? {
        Some(value) => meta::open_number(&starts, &value)?,
        None => 0,
    };
    let incarnation = match read(&own)? {
        Some(bytes) => u32::from_be_bytes(bytes.as_ref().try_into().map_err(|_| {
            StoreError(format!("the row of the incarnation holds {} bytes, not 4", bytes.len()))
        })?),
        None => incarnation_of_view,
    };
    let past = match read(&lost)? {
        Some(why) => Past::Lost(String::from_utf8_lossy(&why).into_owned()),
        None => past,
    };
    let clean_before = clean_before || canary::is_on(Canary::TrustOldNotes);
    let unclean_starts = if clean_before { before } else { before + 1 };
    let view = postcard::to_stdvec(view).expect("a view is plain data");
    let mut writes = vec![
        Write { space: Space::Meta, row: clean, value: None },
        meta::write_number(starts, unclean_starts),
        meta::write(kept_view, &view),
    ];
    if let Past::Lost(why) = &past {
        writes.push(meta::write(lost, why.as_bytes()));
    }
    disk.write(writes, Ack::Durable).done().await?;
    Ok((Began { incarnation: incarnation.max(incarnation_of_view), unclean_starts }, past))
}

/// The whole way, from the start to the first request served. Comes back when the node serves.
pub(crate) async fn rise(node: &Arc<Node>, past: Past) -> Result<(), StoreError> {
    let others = node.others();
    let incarnation = node.incarnation();
    node.note_rising("asks the other nodes what they remember of it");
    let recall = ask_all(node, &others, Request::Recall(Recall { node: node.id().0 }));
    let (recalled, ()) = tokio::join!(recall, learn_buckets(node, &others));
    let mut lost = match past {
        Past::Lost(why) => Some(why),
        Past::None | Past::Whole => None,
    };
    for (peer, reply) in &recalled {
        let Reply::Recalled(recalled) = reply else { continue };
        match remembers_more(node.disk().found(), incarnation, recalled) {
            Some(what) => lost = lost.or_else(|| Some(format!("{peer} remembers {what}"))),
            None if recalled.vouches => node.memory().has_said(*peer),
            None => {} // it may have forgotten; asked again when it serves
        }
    }
    let Some(why) = lost else {
        node.serve_as(Actor { node: node.id().0, incarnation })?;
        return Ok(());
    };
    tracing::warn!(why, "something is lost: needs a new incarnation");
    keep_in_mind(node, &why).await?;
    if others.is_empty() {
        return Err(StoreError(format!(
            "{why}, and this cluster has no other node that knows what is missing. Put the directory back as it was. If what \
             it held may be lost, empty it and start the node once with --first-start"
        )));
    }
    let incarnation = if canary::is_on(Canary::ReuseActor) {
        node.incarnation()
    } else {
        renewed(node, &others, &why).await
    };
    learn_buckets(node, &others).await; // of those who were not there at first
    let mut writes =
        vec![meta::write(Bytes::from_static(rows::INCARNATION), &incarnation.to_be_bytes())];
    writes.push(Write { space: Space::Meta, row: Bytes::from_static(rows::LOST), value: None });
    writes.extend(node.doubt().begin(&why, all_owned(node), node.clock().now()));
    node.disk().write(writes, Ack::Durable).done().await?;
    tracing::warn!(incarnation, why, "goes on under a new incarnation, in doubt until compared");
    for other in others {
        node.memory().has_said(other); // of a former life, and that is settled
    }
    node.serve_as(Actor { node: node.id().0, incarnation })
}

/// Takes over which buckets the others know, so that a node that was empty does not serve without. Who is out of reach is
/// heard later, and a bucket that nobody has spoken of by then is asked about when it is needed.
async fn learn_buckets(node: &Arc<Node>, others: &[NodeId]) {
    let have = node.buckets().digest();
    for (peer, reply) in ask_all(node, others, Request::Buckets(BucketsQuery { have })).await {
        if let Reply::Buckets(known) = reply {
            gossip::take_over(node, peer, &known).await;
        }
    }
}

/// What a peer remembers that a node with this incarnation and last commit does not.
fn remembers_more(found: Commit, incarnation: u32, recalled: &Recalled) -> Option<String> {
    let remembered = recalled.commit;
    if recalled.incarnation > incarnation {
        return Some(format!("incarnation {} of it, not {incarnation}", recalled.incarnation));
    }
    if recalled.incarnation < incarnation {
        return None;
    }
    if remembered.sequence > found.sequence {
        let (more, less) = (remembered.sequence, found.sequence);
        return Some(format!("its commit {more}, and its store ends with number {less}"));
    }
    (remembered.sequence == found.sequence && remembered.chain != found.chain)
        .then(|| format!("another commit {} of it", found.sequence))
}

/// A number for this life that no other life has: the membership log has taken it, and from us. Goes on until it has.
///
/// The log takes the number after the last one it knows. If a peer remembers a higher one, because a log was recovered
/// without its newest entries, numbers are used up until they are above that.
async fn renewed(node: &Arc<Node>, others: &[NodeId], why: &str) -> u32 {
    let me = node.id();
    let mut highest = node.incarnation();
    loop {
        let recall = Request::Recall(Recall { node: me.0 });
        for (_, reply) in ask_all(node, others, recall).await {
            if let Reply::Recalled(recalled) = reply {
                highest = highest.max(recalled.incarnation);
            }
        }
        let Some(last) = node.view().member(me).map(|member| member.incarnation) else {
            return std::future::pending().await; // removed: the storage has given up, and the node ends
        };
        let incarnation = last + 1;
        let refused = match propose(node, Command::Incarnation { node: me, incarnation }).await {
            Ok(epoch) => {
                let until = node.clock().now() + ANSWER_LIMIT;
                catch_up::reached(node, epoch, until).await;
                if incarnation > highest {
                    return incarnation;
                }
                continue;
            }
            Err(refused) => refused,
        };
        node.note_rising(&format!("{why}; needs a new incarnation, and {refused}"));
        tokio::time::sleep(NEXT_ROUND).await;
    }
}

/// Proposes something about this node, to whoever leads.
async fn propose(node: &Arc<Node>, command: Command) -> Result<Epoch, String> {
    let caller = Caller { roles: Roles::of(&[Role::Node]), node: Some(node.id()) };
    let command = postcard::to_stdvec(&command).expect("plain data").into();
    match membership::propose(node.clone(), caller, Propose { hops: 0, command }).await {
        Reply::Proposed(proposed) => Ok(Epoch(proposed.epoch)),
        Reply::Failed(failure) => Err(match failure.code {
            ErrorCode::RingFrozen => format!("the ring is frozen: {}", failure.detail),
            _ => failure.detail,
        }),
        other => Err(format!("an answer that is none: {other:?}")),
    }
}

/// Every partition this node owns, with its other owners.
fn all_owned(node: &Node) -> Vec<(Partition, BTreeSet<NodeId>)> {
    let (me, view) = (node.id(), node.view());
    let mut owned = Vec::new();
    for partition in view.partitions().all() {
        let owners = view.living(view.owners(partition));
        let mut owners: BTreeSet<NodeId> = owners.into_iter().collect();
        if owners.remove(&me) {
            owned.push((partition, owners));
        }
    }
    owned
}

/// Puts a question to some peers at once, and gives the answers of those who answer in time. Who cannot be reached holds
/// up nobody for long.
async fn ask_all(node: &Arc<Node>, peers: &[NodeId], request: Request) -> Vec<(NodeId, Reply)> {
    let mut asked: FuturesUnordered<_> =
        peers.iter().map(|peer| ask(node, *peer, request.clone())).collect();
    let mut answers = Vec::new();
    while let Some(answer) = asked.next().await {
        answers.extend(answer);
    }
    answers.sort_by_key(|(peer, _)| *peer);
    answers
}

async fn ask(node: &Arc<Node>, peer: NodeId, request: Request) -> Option<(NodeId, Reply)> {
    let began = node.clock().now();
    let asking = async {
        loop {
            let envelope = node.envelope(node.clock().now() + ANSWER_LIMIT, 0);
            let call = node.transport().call(peer, Lane::Control, envelope, request.clone());
            match call.await {
                Ok((_, Reply::Failed(_))) => return None,
                Ok((epoch, reply)) => {
                    node.heard_epoch(peer, epoch);
                    return Some((peer, reply));
                }
                Err(CallError::Unsendable(_)) => return None,
                Err(CallError::Down(_) | CallError::Lost(_) | CallError::Overloaded) => {
                    if node.clock().now() - began >= REACH_LIMIT {
                        return None;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    };
    tokio::time::timeout(ANSWER_LIMIT, asking).await.ok().flatten()
}

/// Asks a peer that was out of reach when this node began to serve, as soon as it is met. If it remembers more than we
/// have, this node has given out dots that it must not: it stops at once.
pub(crate) async fn ask_late(node: &Arc<Node>, peer: NodeId) {
    if node.actor().is_none() || !node.memory().must_ask(peer) {
        return;
    }
    let recall = Request::Recall(Recall { node: node.id().0 });
    let Some((_, Reply::Recalled(recalled))) = ask(node, peer, recall).await else { return };
    let Some(what) = remembers_more(node.disk().found(), node.incarnation(), &recalled) else {
        if recalled.vouches {
            node.memory().has_said(peer);
        }
        return;
    };
    if keep_in_mind(node, &format!("{peer} remembers {what}")).await.is_ok() {
        node.disk().give_up(StoreError(format!(
            "{peer} was out of reach when this node started, and remembers {what}. Start the node again: it then takes a \
             new incarnation"
        )));
    }
}

/// Lets the next start know that something is lost: who has said so may be out of reach then, and what was lost may have
/// been overtaken.
async fn keep_in_mind(node: &Node, why: &str) -> Result<(), StoreError> {
    let noted = meta::write(Bytes::from_static(rows::LOST), why.as_bytes());
    node.disk().write(vec![noted], Ack::Durable).done().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What peers remember against what the node finds: more of the same life, another history of the same length, and a
    /// later life are losses; less, and an earlier life, are not.
    #[test]
    fn a_loss_is_seen_by_what_others_remember() {
        let found = Commit { sequence: 10, chain: 7 };
        let cases = [
            (0, 0, 0, false),
            (0, 9, 1, false),
            (0, 10, 7, false),
            (0, 10, 8, true),
            (0, 11, 7, true),
            (1, 0, 0, false),
            (1, 9, 1, false),
            (1, 10, 7, false),
            (1, 10, 8, true),
            (1, 11, 8, true),
            (2, 0, 0, true),
        ];
        for (incarnation, sequence, chain, is_more) in cases {
            let commit = Commit { sequence, chain };
            let recalled = Recalled { vouches: true, incarnation, commit };
            let ours = incarnation.min(1);
            let more = remembers_more(found, ours, &recalled);
            assert_eq!(more.is_some(), is_more, "{recalled:?}: {more:?}");
        }
        let earlier = Commit { sequence: 99, chain: 9 };
        let recalled = Recalled { vouches: true, incarnation: 0, commit: earlier };
        assert_eq!(remembers_more(found, 1, &recalled), None, "of an earlier life");
    }
}
