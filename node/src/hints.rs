//! States kept for owners that missed a write.
//!
//! A hint is a state, not a message: a second missed write of a key is joined into the first hint, and a hint that
//! arrives twice, late or after newer writes changes nothing. It lies in this node's own store, survives a restart, is
//! sent as soon as the owner answers again, and is removed when the owner has it fsynced.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use atoll_antientropy::Register;
use atoll_ring::NodeId;
use atoll_transport::CallError;
use atoll_wire::{Ack, ErrorCode, Lane, Replicate, Reply, Request};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Notify;

use crate::{
    Node,
    storage::{Space, StoreError, Write, commit::Disk, record::Record, rows},
};

/// Bytes of states kept for one owner. Past that a hint is refused and counted; the owner catches up by read repair.
const BYTES_PER_TARGET_MAX: u64 = 256 << 20;

/// Hints on their way to one owner at the same time.
const IN_FLIGHT_MAX: usize = 16;

/// Hints read from the disk at once, at most so many. Few, because each may hold as many bytes as a key may have.
const PAGE: usize = 4 * IN_FLIGHT_MAX;

/// How long one may take.
const DELIVERY_LIMIT: Duration = Duration::from_secs(4);

/// How long to wait before an owner that refused is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The hints of a node.
pub(crate) struct Hints {
    disk: Arc<Disk>,
    held: Mutex<BTreeMap<NodeId, Held>>,
    refused: AtomicU64,
    added: Notify,
}

#[derive(Clone, Copy, Default)]
struct Held {
    count: u64,
    bytes: u64,
}

impl Hints {
    /// Counts what is there.
    pub(crate) fn open(disk: Arc<Disk>) -> Result<Self, StoreError> {
        let mut held: BTreeMap<NodeId, Held> = BTreeMap::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = disk.scan(Space::Hints, &[], after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (row, value) in &page {
                let target: [u8; 4] = row
                    .get(..4)
                    .and_then(|bytes| bytes.try_into().ok())
                    .ok_or_else(|| StoreError("a hint has no target".into()))?;
                let held = held.entry(NodeId(u32::from_be_bytes(target))).or_default();
                held.count += 1;
                held.bytes += value.len() as u64;
            }
        }
        Ok(Hints { disk, held: Mutex::new(held), refused: AtomicU64::new(0), added: Notify::new() })
    }

    /// Keeps a state for an owner. Returns whether there was room.
    pub(crate) fn keep(
        &self,
        target: NodeId,
        data_row: &Bytes,
        state: &Register,
    ) -> Result<bool, StoreError> {
        let row = rows::hint(target, data_row);
        let before = self.disk.get(Space::Hints, &row)?;
        let before_bytes = before.as_ref().map_or(0, |value| value.len() as u64);
        let mut joined = state.clone();
        if let Some(value) = &before
            && let Ok(earlier) = Record::decode(&row, value).and_then(|record| record.register())
        {
            joined.join(earlier);
        }
        let value = Record::encode(&row, None, &joined.encode());
        {
            let mut all = self.held.lock().expect("no panic holds it");
            let held = all.entry(target).or_default();
            let bytes = held.bytes - before_bytes + value.len() as u64;
            if bytes > BYTES_PER_TARGET_MAX {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Ok(false);
            }
            held.bytes = bytes;
            held.count += u64::from(before.is_none());
        }
        self.disk.write(vec![Write { space: Space::Hints, row, value: Some(value) }], Ack::Durable);
        self.added.notify_waiters();
        Ok(true)
    }

    /// Removes a hint if it is still the one that was delivered.
    fn delivered(&self, target: NodeId, row: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        if self.disk.get(Space::Hints, row)?.as_ref() != Some(value) {
            return Ok(()); // a write was missed meanwhile and joined; the new hint goes its own way
        }
        let mut all = self.held.lock().expect("no panic holds it");
        let held = all.entry(target).or_default();
        held.count = held.count.saturating_sub(1);
        held.bytes = held.bytes.saturating_sub(value.len() as u64);
        drop(all);
        let write = Write { space: Space::Hints, row: row.clone(), value: None };
        self.disk.write(vec![write], Ack::Written);
        Ok(())
    }

    /// Hints kept for an owner.
    pub(crate) fn count(&self, target: NodeId) -> u64 {
        let held = self.held.lock().expect("no panic holds it");
        held.get(&target).map_or(0, |held| held.count)
    }

    /// Hints kept.
    pub(crate) fn total(&self) -> u64 {
        self.held.lock().expect("no panic holds it").values().map(|held| held.count).sum()
    }

    /// Bytes of the hints kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.held.lock().expect("no panic holds it").values().map(|held| held.bytes).sum()
    }

    /// Hints there was no room for.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Delivers the hints for one owner whenever it is up and there are any; for ever.
pub(crate) async fn deliver(node: Arc<Node>, target: NodeId) {
    loop {
        let added = node.hints().added.notified();
        let came_up = node.liveness().came_up.notified();
        tokio::pin!(added, came_up);
        added.as_mut().enable();
        came_up.as_mut().enable(); // from here on nothing is missed
        if !node.liveness().is_up(target) || node.hints().count(target) == 0 {
            tokio::select! { biased;
                () = came_up => {}
                () = added => {}
            }
            continue;
        }
        match deliver_all(&node, target).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(%target, count, "hints delivered"),
            Err(_) => return, // the storage has failed, the node stops
        }
        if node.hints().count(target) > 0 {
            tokio::time::sleep(PAUSE).await; // refused, or not yet applied: not at full speed again
        }
    }
}

/// Goes once through the hints of an owner, a few in flight at a time, until one fails.
async fn deliver_all(node: &Arc<Node>, target: NodeId) -> Result<u64, StoreError> {
    let prefix = rows::hints_for(target);
    let mut after: Option<Bytes> = None;
    let mut delivered = 0;
    loop {
        let page = node.disk().scan(Space::Hints, &prefix, after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(delivered) };
        after = Some(last.clone());
        let mut waiting = page.into_iter();
        let mut flying = FuturesUnordered::new();
        let mut failed = false;
        loop {
            while flying.len() < IN_FLIGHT_MAX
                && !failed
                && let Some((row, value)) = waiting.next()
            {
                flying.push(async {
                    let arrived = send(node, target, &row, &value).await;
                    (row, value, arrived)
                });
            }
            let Some((row, value, outcome)) = flying.next().await else { break };
            match outcome {
                Delivery::Done => {
                    node.hints().delivered(target, &row, &value)?;
                    delivered += 1;
                }
                Delivery::NotNow => {}
                Delivery::Unreachable => failed = true,
            }
        }
        if failed {
            return Ok(delivered);
        }
    }
}

/// How the delivery of one hint went.
enum Delivery {
    /// The owner has it fsynced.
    Done,
    /// The owner does not take this one, for instance because its record is damaged; the others may go on.
    NotNow,
    /// The owner did not answer, or has no room for any.
    Unreachable,
}

/// Sends one hint and waits until it is fsynced at its owner.
async fn send(node: &Arc<Node>, target: NodeId, row: &Bytes, value: &Bytes) -> Delivery {
    let Ok(record) = Record::decode(row, value) else {
        tracing::warn!(%target, "a hint is damaged and cannot be delivered");
        node.count_corrupt();
        return Delivery::Done; // nothing in it can be trusted; the owner catches up by read repair
    };
    let data_row = rows::data_of_hint(row);
    let (bucket, key) = rows::bucket_and_key(&data_row).expect("we named this row ourselves");
    let (ack, state) = (Ack::Durable, record.state);
    let replicate = Replicate { key, ack, replaces_corrupt: false, hint_for: None, state };
    let envelope = node.envelope_for(node.clock().now() + DELIVERY_LIMIT, 0, bucket);
    let call = node.transport().call(target, Lane::Bulk, envelope, Request::Replicate(replicate));
    match tokio::time::timeout(DELIVERY_LIMIT, call).await {
        Ok(result) => {
            node.liveness().learn(target, &result);
            match result {
                Ok((_, Reply::Replicated(done))) if done.durable => Delivery::Done,
                Ok((_, Reply::Failed(failure))) => match failure.code {
                    ErrorCode::Overloaded | ErrorCode::Stopping | ErrorCode::DeadlinePassed => {
                        Delivery::Unreachable
                    }
                    _ => Delivery::NotNow,
                },
                Err(CallError::Unsendable(_)) => Delivery::NotNow,
                Ok(_) | Err(CallError::Down(_) | CallError::Overloaded | CallError::Lost(_)) => {
                    Delivery::Unreachable
                }
            }
        }
        Err(_) => Delivery::Unreachable,
    }
}
