//! How a node begins to serve: as the node it was, or under a new incarnation.
//!
//! A node that has lost something (its directory was emptied, copied or restored; its journal lost its tail) may neither
//! give out its counters again, nor let its silence be taken for knowledge. So before its first dot after any start it
//! asks every peer within reach what that one remembers of it. If its own directory and the peers agree, it serves as
//! before. Otherwise:
//!
//! 1. It learns from a majority of the others the highest incarnation k that it ever had, and those of all nodes.
//! 2. It has k+1 written down, fsynced, by a majority of the others; with a higher number if somebody refuses.
//! 3. In one commit it writes down its new incarnation, what it has learnt, and doubt for all it owns.
//! 4. It serves, its answers joined and not counted until each partition was compared with every other owner (`doubt`).
//!
//! Until then it refuses data and tells its peers so. What keeps two lives apart is that a **majority of memories** is
//! asked, then told. A node that has lost its own memory does not vouch until it has learnt from such a majority itself.
//! Let a number be fsynced by q of the n-1 others, q the least majority of them. The others that vouch and have not heard
//! of it are then fewer than q. Nobody joins those: whoever is wiped and learns anew asks q nodes, and one of them knows.
//! (The weak spot: others that are wiped *and* have risen again between the first and the last answer of one round, which
//! takes two seconds at most.)
//!
//! A peer out of reach at the start is asked as soon as it is met ([`ask_late`]). If it then remembers more than this node
//! has, the node stops: the next start knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use atoll_antientropy::Actor;
use atoll_ring::{NodeId, Partition, View};
use atoll_transport::CallError;
use atoll_wire::{Ack, Commit, Enrol, Enrolled, Lane, Recall, Recalled, Reply, Request};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::{
    Node, Past,
    canary::{self, Canary},
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
    let recalled = ask_all(node, &others, Request::Recall(Recall { node: node.id().0 })).await;
    let mut lost = match past {
        Past::Lost(why) => Some(why),
        Past::None | Past::Whole => None,
    };
    for (peer, reply) in &recalled {
        let Reply::Recalled(recalled) = reply else { continue };
        match remembers_more(node.disk().found(), incarnation, recalled) {
            Some(what) => lost = lost.or_else(|| Some(format!("{peer} remembers {what}"))),
            None => node.memory().has_said(*peer),
        }
    }
    let Some(why) = lost else {
        node.serve_as(Actor { node: node.id().0, incarnation })?;
        return Ok(());
    };
    tracing::warn!(why, "something is lost: needs a new incarnation");
    keep_in_mind(node, &why).await?;
    let needed = majority(others.len());
    if needed == 0 {
        return Err(StoreError(format!(
            "{why}, and this cluster has no other node that knows what is missing. Put the directory back as it was. If what \
             it held may be lost, empty it and start the node once with --first-start"
        )));
    }
    let (incarnation, table) = enrolled(node, &others, needed, &why).await;
    let mut writes = node.memory().learn(&table);
    writes.push(meta::write(Bytes::from_static(rows::INCARNATION), &incarnation.to_be_bytes()));
    writes.push(Write { space: Space::Meta, row: Bytes::from_static(rows::LOST), value: None });
    writes.extend(node.doubt().begin(&why, all_owned(node), node.clock().now()));
    node.disk().write(writes, Ack::Durable).done().await?;
    tracing::warn!(incarnation, why, "goes on under a new incarnation, in doubt until compared");
    for other in others {
        node.memory().has_said(other); // of a former life, and that is settled
    }
    node.serve_as(Actor { node: node.id().0, incarnation })
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

/// How many of so many others are a majority of them.
fn majority(others: usize) -> usize {
    if others == 0 { 0 } else { others / 2 + 1 }
}

/// The new incarnation, when a majority of the others has it fsynced, and the incarnations of all nodes. Goes on until it
/// is so.
async fn enrolled(
    node: &Arc<Node>,
    others: &[NodeId],
    needed: usize,
    why: &str,
) -> (u32, BTreeMap<NodeId, u32>) {
    let me = node.id();
    let mut refused_below = 0;
    loop {
        let recall = Request::Recall(Recall { node: me.0 });
        let mut table: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut vouching = Vec::new();
        let mut hear = |of: NodeId, incarnation: u32| {
            let known = table.entry(of).or_default();
            *known = incarnation.max(*known);
        };
        hear(me, node.incarnation().max(node.memory().incarnation(me)).max(refused_below));
        for (peer, reply) in ask_all(node, others, recall).await {
            let Reply::Recalled(Recalled { vouches, incarnation, incarnations, .. }) = reply else {
                continue;
            };
            hear(me, incarnation);
            if vouches {
                vouching.push(peer);
                incarnations.into_iter().for_each(|(of, number)| hear(NodeId(of), number));
            }
        }
        let all = others.len();
        if vouching.len() < needed {
            let some = vouching.len();
            node.note_rising(&format!(
                "{why}; {needed} of {all} others must vouch for a new incarnation, {some} {}",
                if some == 1 { "does" } else { "do" }
            ));
            tokio::time::sleep(NEXT_ROUND).await;
            continue;
        }
        let wanted = table[&me] + 1;
        let enrol = Request::Enrol(Enrol { node: me.0, incarnation: wanted });
        let mut accepted = 0;
        for (_, reply) in ask_all(node, &vouching, enrol).await {
            let Reply::Enrolled(enrolled) = reply else { continue };
            let Enrolled { accepted: yes, highest } = enrolled;
            accepted += usize::from(yes);
            refused_below = refused_below.max(highest);
        }
        if accepted >= needed {
            table.insert(me, wanted);
            return (wanted, table);
        }
        node.note_rising(&format!(
            "{why}; {needed} of {all} others must write down incarnation {wanted}, {accepted} have"
        ));
        tokio::time::sleep(NEXT_ROUND).await;
    }
}

/// Every partition this node owns, with its other owners.
fn all_owned(node: &Node) -> Vec<(Partition, BTreeSet<NodeId>)> {
    let (me, view) = (node.id(), node.view());
    let mut owned = Vec::new();
    for partition in view.partitions().all() {
        let mut owners: BTreeSet<NodeId> = view.owners(partition).all().into_iter().collect();
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
                Ok((_, reply)) => return Some((peer, reply)),
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
        node.memory().has_said(peer);
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
            let recalled =
                Recalled { vouches: true, incarnation, commit, incarnations: Vec::new() };
            let ours = incarnation.min(1);
            let more = remembers_more(found, ours, &recalled);
            assert_eq!(more.is_some(), is_more, "{recalled:?}: {more:?}");
        }
        let earlier = Commit { sequence: 99, chain: 9 };
        let recalled =
            Recalled { vouches: true, incarnation: 0, commit: earlier, incarnations: Vec::new() };
        assert_eq!(remembers_more(found, 1, &recalled), None, "of an earlier life");
    }

    /// The least majority of the others: two such sets of the others of one node always share a node, and so do one of
    /// them without a member and one of the others of that member.
    #[test]
    fn majorities_meet() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(majority), [0, 1, 2, 2, 3, 3, 4]);
        for others in 1..100 {
            let q = majority(others);
            assert!(2 * q > others, "two among {others}");
            assert!((q - 1) + q > others - 1, "a witness is wiped, {others}");
        }
    }
}
