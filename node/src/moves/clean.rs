//! The former owner's part: it hands over what it still holds of partitions that it owns no longer, and forgets it. So does
//! an owner that has moved back among the owners of a partition with the rows of buckets that only those before it keep.
//!
//! Key by key, and never on trust: a row goes when an owner has said that it holds the same on stable storage, or has
//! acknowledged, fsynced, what was sent to it; and only if the row is still what was asked about, and still not ours. Leases stay for ever: a counter is never given twice, whoever owns the partition.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atoll_ring::{Epoch, NodeId, Partition};
use atoll_wire::{Ack, Covered, Lane, Replicate, Reply, Request};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use crate::{
    Node,
    buckets::of_row,
    canary::{self, Canary},
    fence,
    replica::Own,
    storage::{Space, StoreError, Write, faulty::Step, meta, rows, summary::Summary},
};

/// Rows asked about at once, and the most bytes of their names.
const PAGE: usize = 1024;
const PAGE_BYTES: usize = 256 << 10;

/// Rows sent at the same time that the owner does not hold.
const SENT_AT_ONCE: usize = 4;

/// How long an owner may take.
const CALL_LIMIT: Duration = Duration::from_secs(8);

/// How long to wait when no owner took everything.
const PAUSE: Duration = Duration::from_millis(500);

/// How often to look at every partition again, whatever is believed of it.
const SURVEY_EVERY: Duration = Duration::from_secs(600);

/// Partitions looked at in one go.
const LOOK: usize = 64;

/// Partitions of which this node holds nothing, with the epoch in which each last changed.
type Clean = BTreeMap<Partition, Epoch>;

/// Hands over whatever there is, as the views come. For ever.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut clean = Clean::new();
    loop {
        let changed = node.catch_up().changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable(); // before looking, or a change in between would be missed
        let pause = match hand_over_all(&node, &mut clean).await {
            Ok(true) => SURVEY_EVERY,
            Ok(false) => PAUSE,
            Err(_) => return, // the storage has failed, the node stops
        };
        tokio::select! { biased;
            () = changed => {}
            () = tokio::time::sleep(pause) => if pause == SURVEY_EVERY { clean.clear() },
        }
    }
}

/// Goes once through all partitions in which there may be rows that this node does not keep. Whether nothing is left.
async fn hand_over_all(node: &Arc<Node>, clean: &mut Clean) -> Result<bool, StoreError> {
    survey(node, clean).await?;
    let strays: Vec<Partition> = node.moves().state().strays.keys().copied().collect();
    let mut complete = true;
    for partition in strays {
        let changed = node.view().last_changed(partition);
        if hand_over(node, partition).await? {
            node.moves().state().strays.remove(&partition);
            clean.insert(partition, changed);
        } else {
            complete = false;
        }
    }
    Ok(complete)
}

/// Counts the rows that are not ours.
async fn survey(node: &Arc<Node>, clean: &mut Clean) -> Result<(), StoreError> {
    let view = node.view();
    for (number, partition) in view.partitions().all().enumerate() {
        if number % LOOK == LOOK - 1 {
            tokio::task::yield_now().await;
        }
        if !may_have_strays(node, partition) {
            clean.remove(&partition);
            node.moves().state().strays.remove(&partition);
            continue;
        }
        let changed = view.last_changed(partition);
        if clean.get(&partition) == Some(&changed) {
            continue;
        }
        match count(node, partition).await? {
            0 => {
                clean.insert(partition, changed);
                node.moves().state().strays.remove(&partition);
            }
            strays => {
                clean.remove(&partition);
                node.moves().state().strays.insert(partition, strays);
            }
        }
    }
    node.moves().state().surveyed = Some(view.epoch());
    Ok(())
}

/// Whether a partition may hold rows that are not ours: if we do not own it, or stand too far back for some bucket.
fn may_have_strays(node: &Node, partition: Partition) -> bool {
    match node.view().owners(partition).from_n(node.id()) {
        None => true,
        Some(from) => node.buckets().any_with_copies(1..from),
    }
}

/// Whether a row is not ours to keep. What is left of a dropped bucket is nobody's, and goes by itself.
fn is_stray(node: &Node, partition: Partition, row: &Bytes) -> bool {
    let bucket = of_row(row);
    !node.buckets().is_dropped(bucket) && !fence::keeps(node, partition, bucket)
}

/// Rows of a partition that are not ours, by what is said of them, and such keys in doubt.
async fn count(node: &Arc<Node>, partition: Partition) -> Result<u64, StoreError> {
    let doubted = node.doubt().keys_of(partition, &Bytes::new(), usize::MAX);
    let mut count = doubted.iter().filter(|row| is_stray(node, partition, row)).count() as u64;
    let mut after = Bytes::new();
    loop {
        let page = names(node, partition, &after)?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        after = last.clone();
        count += page.iter().filter(|(row, _)| is_stray(node, partition, row)).count() as u64;
        tokio::task::yield_now().await;
    }
}

/// The next rows of a partition, and the digests of what lies in them.
fn names(
    node: &Node,
    partition: Partition,
    after: &Bytes,
) -> Result<Vec<(Bytes, [u8; 16])>, StoreError> {
    let after = (!after.is_empty()).then_some(&after[..]);
    let prefix = partition.0.to_be_bytes();
    let page = node.disk().scan_queued(Space::Digests, &prefix, after, PAGE)?;
    let mut bytes = 0;
    let fits = |(row, _): &(Bytes, Bytes)| {
        bytes += row.len();
        bytes <= PAGE_BYTES
    };
    let digest = |(row, said): (Bytes, Bytes)| (row, Summary::read(&said).digest.0);
    Ok(page.into_iter().take_while(fits).map(digest).collect())
}

/// Hands over one partition. Whether nothing is left of it here, or it has become ours.
async fn hand_over(node: &Arc<Node>, partition: Partition) -> Result<bool, StoreError> {
    if !may_have_strays(node, partition) {
        return Ok(true);
    }
    forget_doubt(node, partition).await?;
    let mut complete = true;
    let mut after = Bytes::new();
    loop {
        node.moves().hold(partition, Step::Clean).await;
        if !may_have_strays(node, partition) {
            return Ok(true);
        }
        let began = node.clock().now();
        let page = names(node, partition, &after)?;
        let Some((last, _)) = page.last() else { break };
        after = last.clone();
        let mut by_copies: BTreeMap<u8, Vec<(Bytes, [u8; 16])>> = BTreeMap::new();
        for (row, digest) in page {
            if is_stray(node, partition, &row) {
                let copies = node.buckets().copies(of_row(&row));
                by_copies.entry(copies).or_default().push((row, digest));
            }
        }
        for (copies, page) in by_copies {
            complete &= hand_over_page(node, partition, copies, page).await?;
        }
        super::rest(node, node.clock().now() - began).await;
    }
    node.disk().settled().done().await?;
    Ok(complete)
}

/// Keys of which a former owner is in doubt are the owners' business.
async fn forget_doubt(node: &Arc<Node>, partition: Partition) -> Result<(), StoreError> {
    if node.doubt().keys_of(partition, &Bytes::new(), 1).is_empty() {
        return Ok(());
    }
    for (row, damage) in node.doubt().keys() {
        if rows::partition_of_data(&row) == Some(partition) && is_stray(node, partition, &row) {
            node.doubt().key_compared(&row, damage).await?;
        }
    }
    Ok(())
}

/// Hands over some rows, of buckets with so many copies. Whether an owner has them all.
async fn hand_over_page(
    node: &Arc<Node>,
    partition: Partition,
    copies: u8,
    page: Vec<(Bytes, [u8; 16])>,
) -> Result<bool, StoreError> {
    if canary::is_on(Canary::DeleteEarly) {
        for (row, digest) in &page {
            forget(node, partition, row, digest)?;
        }
        return Ok(true);
    }
    let Some(owner) = whom(node, partition, copies) else { return Ok(false) };
    let rows = page.iter().map(|(row, digest)| (&row[..], *digest));
    let asked = Request::Covered(Covered::of(partition.0, rows));
    let envelope = node.envelope(node.clock().now() + CALL_LIMIT, 0);
    let Some(Reply::Covering(held)) = ask(node, owner, envelope, asked).await else {
        return Ok(false);
    };
    if held.which.len() != page.len() {
        return Ok(false);
    }
    let mut missing = Vec::new();
    for ((row, digest), held) in page.into_iter().zip(held.which) {
        match held {
            1 => forget(node, partition, &row, &digest)?,
            _ => missing.push((row, digest)),
        }
    }
    let sent: Vec<Result<bool, StoreError>> = stream::iter(missing)
        .map(|(row, digest)| send(node, partition, owner, row, digest))
        .buffered(SENT_AT_ONCE)
        .collect()
        .await;
    sent.into_iter().try_fold(true, |all, one| Ok(all & one?))
}

/// Sends a row that the owner does not hold like this, and forgets it when the owner has it fsynced. Whether it has.
async fn send(
    node: &Arc<Node>,
    partition: Partition,
    owner: NodeId,
    row: Bytes,
    digest: [u8; 16],
) -> Result<bool, StoreError> {
    let value = node.disk().get(Space::Data, &row)?;
    let record = match Own::of(&row, value.clone()) {
        Own::Known(record) => record,
        // nothing in it can be brought to anybody
        Own::Missing | Own::Corrupt => {
            if let Some(damaged) = value.filter(|_| is_stray(node, partition, &row)) {
                let kept = meta::write(rows::damaged(&row), &damaged);
                drop(node.disk().write(vec![kept], Ack::Written));
            }
            forget(node, partition, &row, &digest)?;
            return Ok(true);
        }
    };
    let Some((bucket, key)) = rows::bucket_and_key(&row) else { return Ok(false) };
    let replicate = Replicate { key, ack: Ack::Durable, hint_for: None, state: record.bytes };
    let deadline = node.clock().now() + CALL_LIMIT;
    let envelope = node.envelope_for(deadline, 0, bucket);
    let answer = ask(node, owner, envelope, Request::Replicate(replicate)).await;
    let is_kept = matches!(answer, Some(Reply::Replicated(done)) if done.durable);
    // an acknowledgement of somebody who is no owner by now is worth nothing
    if is_kept && fence::keeps_as(node, owner, partition, bucket) {
        forget(node, partition, &row, &digest)?;
        return Ok(true);
    }
    Ok(false)
}

/// Forgets a row that is with an owner, if it is still what was handed over, and not ours to keep.
fn forget(
    node: &Node,
    partition: Partition,
    row: &Bytes,
    digest: &[u8; 16],
) -> Result<(), StoreError> {
    let said = node.repair().trees.summary(row)?;
    if !is_stray(node, partition, row) || said.is_none_or(|said| said.digest.0 != *digest) {
        return Ok(()); // whatever it is by now goes its own way
    }
    let gone = |space| Write { space, row: row.clone(), value: None };
    let writes = vec![gone(Space::Data), gone(Space::Digests), gone(Space::Quarantine)];
    drop(node.disk().write(writes, Ack::Written));
    if let Some(strays) = node.moves().state().strays.get_mut(&partition) {
        *strays = strays.saturating_sub(1).max(1); // 0 when all has been gone through
    }
    Ok(())
}

/// The owner that is asked: who took our seat if that is known, else the next best.
fn whom(node: &Node, partition: Partition, copies: u8) -> Option<NodeId> {
    let view = node.view();
    let successor = node.moves().state().successors.get(&partition).copied();
    let owners = view.owners(partition).first(copies).all();
    let mut up: Vec<NodeId> =
        owners.into_iter().filter(|owner| !node.liveness().is_down(*owner)).collect();
    up.sort_by_key(|owner| (Some(*owner) != successor, node.liveness().rank(*owner)));
    up.first().copied()
}

async fn ask(
    node: &Arc<Node>,
    owner: NodeId,
    envelope: atoll_wire::Envelope,
    request: Request,
) -> Option<Reply> {
    let call = node.transport().call(owner, Lane::Bulk, envelope, request);
    let result = tokio::time::timeout(CALL_LIMIT, call).await.ok()?;
    node.liveness().learn(owner, &result);
    let (epoch, reply) = result.ok()?;
    node.heard_epoch(owner, epoch);
    if let Reply::Failed(failure) = &reply {
        tracing::debug!(%owner, %failure, "a row could not be handed over");
    }
    Some(reply)
}
