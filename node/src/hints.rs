//! States kept for owners that missed a write.
//!
//! A hint is a state, not a message: a second missed write of a key is joined into the first hint, and a hint that
//! arrives twice, late or after newer writes changes nothing. It lies in this node's own store, survives a restart, is
//! sent as soon as the owner answers again, and is removed when the owner has it fsynced. It names the owner by its
//! number, so it is right for any incarnation.
//!
//! A hint that a fallback has acknowledged may be one of the `w` copies of a write. It is never dropped: at the byte bound
//! the fallback refuses instead, and a hint for an owner that stays away for long goes to the key's other owners and is
//! removed when one of them has it fsynced.
//!
//! Read [`Hints`] for what is kept and [`deliver`] for how it leaves.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use atoll_antientropy::{Note, State};
use atoll_ring::{NodeId, Token};
use atoll_transport::CallError;
use atoll_wire::{Ack, ErrorCode, Lane, Replicate, Reply, Request, limits::STATE_TAIL_BYTES_MAX};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::{sync::Notify, time::Instant};

use crate::{
    Node,
    buckets::of_row,
    canary::{self, Canary},
    fence,
    replica::{self, Own},
    storage::{
        Space, StoreError, Write,
        commit::{Disk, Ticket},
        meta,
        record::Record,
        rows,
    },
};

/// How much a node keeps for others, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct HintLimits {
    /// Bytes of hints kept for one owner. Past that a hint is refused and counted, and a fallback gives no acknowledgement.
    /// 256 MiB by default: some minutes of writes at full speed. More lets an owner stay away longer, and takes that much
    /// disk on every node that stands in for it.
    pub bytes_per_owner_max: u64,
    /// How long an owner may be away until its hints go to the key's other owners. A day by default. The owner then gets
    /// what it missed from them.
    pub away_max: Duration,
}

impl Default for HintLimits {
    fn default() -> Self {
        HintLimits { bytes_per_owner_max: 256 << 20, away_max: Duration::from_secs(24 * 60 * 60) }
    }
}

/// Hints on their way to one owner at the same time. The next one leaves when one is acknowledged, so the owner sets the
/// pace. Enough to share its syncs, and few enough that its clients hardly notice.
const IN_FLIGHT_MAX: usize = 16;

/// Bytes of hints on their way to one owner at the same time, unless a single one is larger.
const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;

/// Hints read from the disk at once, at most so many. Few, because each may hold as many bytes as a key may have.
const PAGE: usize = 64;

/// How long one may take.
const DELIVERY_LIMIT: Duration = Duration::from_secs(4);

/// How long hints wait that were refused, the first time, and how long to wait for an owner that did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// How long to wait for a hint that is queued for the disk and not yet among its rows.
const APPLIED_SOON: Duration = Duration::from_millis(20);

/// Refused hints that are remembered and passed over until they have waited; past that all of them wait.
const REFUSED_MAX: usize = 1024;

/// The longest wait of refused hints. It doubles each time they are refused again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The hints of a node.
pub(crate) struct Hints {
    disk: Arc<Disk>,
    limits: HintLimits,
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
    pub(crate) fn open(disk: Arc<Disk>, limits: HintLimits) -> Result<Self, StoreError> {
        let mut held: BTreeMap<NodeId, Held> = BTreeMap::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = disk.scan(Space::Hints, &[], after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (row, value) in &page {
                let target = rows::target_of_hint(row)
                    .ok_or_else(|| StoreError("a hint has no target".into()))?;
                let held = held.entry(target).or_default();
                held.count += 1;
                held.bytes += value.len() as u64;
            }
        }
        let (held, refused, added) = (Mutex::new(held), AtomicU64::new(0), Notify::new());
        Ok(Hints { disk, limits, held, refused, added })
    }

    /// What is kept of a key for one owner.
    pub(crate) fn read(&self, target: NodeId, data_row: &Bytes) -> Result<Own, StoreError> {
        let row = rows::hint(target, data_row);
        let value = self.disk.get(Space::Hints, &row)?;
        Ok(Own::of(&row, value))
    }

    /// Joins a state into what is kept for an owner. The ticket is good when it is on stable storage; none if there is no
    /// room.
    pub(crate) fn keep(
        &self,
        target: NodeId,
        data_row: &Bytes,
        state: &State,
    ) -> Result<Option<Ticket>, StoreError> {
        let (note, joined) = match self.read(target, data_row)?.record() {
            Some(Record { note, state: mut earlier, .. }) => {
                if earlier.covers(state) {
                    return Ok(Some(self.disk.settled()));
                }
                earlier.join(state.clone());
                (note, earlier)
            }
            None => (None, state.clone()),
        };
        self.put(target, data_row, note.as_ref(), &joined)
    }

    /// Keeps this state for an owner in place of what was kept. With a note, if this node has coordinated it.
    pub(crate) fn put(
        &self,
        target: NodeId,
        data_row: &Bytes,
        note: Option<&Note>,
        state: &State,
    ) -> Result<Option<Ticket>, StoreError> {
        let row = rows::hint(target, data_row);
        let earlier = self.disk.get(Space::Hints, &row)?;
        let before = earlier.as_ref().map(|value| value.len() as u64);
        let state = state.encode();
        let value = Record::encode(&row, note, &state);
        {
            let mut all = self.held.lock().expect("no panic holds it");
            let held = all.entry(target).or_default();
            let bytes = held.bytes.saturating_sub(before.unwrap_or(0)) + value.len() as u64;
            // what could never be sent is not kept either
            if bytes > self.limits.bytes_per_owner_max || state.len() > STATE_TAIL_BYTES_MAX {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
            held.bytes = bytes;
            held.count += u64::from(before.is_none());
        }
        let mut writes = Vec::new();
        if let (Own::Corrupt, Some(damaged)) = (Own::of(&row, earlier.clone()), earlier) {
            writes.push(meta::write(rows::damaged(&row), &damaged));
        }
        writes.push(Write { space: Space::Hints, row, value: Some(value) });
        let kept = self.disk.write(writes, Ack::Durable);
        self.added.notify_waiters();
        Ok(Some(kept))
    }

    /// Whether so many bytes more could be kept for an owner.
    pub(crate) fn has_room(&self, target: NodeId, bytes: usize) -> bool {
        let held = self.held.lock().expect("no panic holds it");
        let kept = held.get(&target).map_or(0, |held| held.bytes);
        kept + bytes as u64 <= self.limits.bytes_per_owner_max
    }

    /// Removes a hint if it is still the one that was delivered. Returns whether it was.
    fn delivered(&self, target: NodeId, row: &Bytes, value: &Bytes) -> Result<bool, StoreError> {
        if self.disk.get(Space::Hints, row)?.as_ref() != Some(value) {
            return Ok(false); // a write was missed meanwhile and joined, and the new hint goes its own way; or it is gone
        }
        self.removed(target, value);
        let write = Write { space: Space::Hints, row: row.clone(), value: None };
        self.disk.write(vec![write], Ack::Written);
        Ok(true)
    }

    /// Forgets a hint of a bucket that was dropped, whoever it is for.
    pub(crate) fn forget(&self, row: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        match rows::target_of_hint(row) {
            Some(target) => self.delivered(target, row, value).map(drop),
            None => Ok(()),
        }
    }

    /// Nothing in a damaged hint can be brought to anybody. It goes out of the way, and is kept for whoever wants to look at
    /// it. The write it stood for is with those who have acknowledged it too.
    pub(crate) fn set_aside(&self, row: &Bytes, damaged: &Bytes) -> Result<(), StoreError> {
        if self.disk.get(Space::Hints, row)?.as_ref() != Some(damaged) {
            return Ok(()); // a new one has taken its place
        }
        if let Some(target) = rows::target_of_hint(row) {
            self.removed(target, damaged);
        }
        let gone = Write { space: Space::Hints, row: row.clone(), value: None };
        self.disk.write(vec![meta::write(rows::damaged(row), damaged), gone], Ack::Written);
        Ok(())
    }

    fn removed(&self, target: NodeId, value: &Bytes) {
        let mut all = self.held.lock().expect("no panic holds it");
        let held = all.entry(target).or_default();
        held.count = held.count.saturating_sub(1);
        held.bytes = held.bytes.saturating_sub(value.len() as u64);
    }

    /// Hints kept for an owner.
    pub(crate) fn count(&self, target: NodeId) -> u64 {
        let held = self.held.lock().expect("no panic holds it");
        held.get(&target).map_or(0, |held| held.count)
    }

    /// For whom any are kept.
    pub(crate) fn targets(&self) -> Vec<NodeId> {
        let held = self.held.lock().expect("no panic holds it");
        held.iter().filter(|(_, held)| held.count > 0).map(|(target, _)| *target).collect()
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

/// Delivers the hints for one owner whenever it is up and there are any; to others if it stays away for too long. For
/// ever.
pub(crate) async fn deliver(node: Arc<Node>, target: NodeId) {
    let mut away_since: Option<Instant> = None;
    let mut refused = Refused::default();
    loop {
        let added = node.hints().added.notified();
        let came_up = node.liveness().came_up.notified();
        tokio::pin!(added, came_up);
        added.as_mut().enable();
        came_up.as_mut().enable(); // before looking, or a change in between would be missed
        let now = node.clock().now();
        refused.forget_when_due(now);
        let up = node.liveness().is_up(target);
        let away_until = match up {
            true => {
                away_since = None;
                None
            }
            false => Some(*away_since.get_or_insert(now) + node.hints().limits.away_max),
        };
        let to = match away_until {
            _ if node.view().member(target).is_none() => To::AnyOtherOwner,
            None => To::Target,
            Some(until) if now >= until => To::AnyOtherOwner,
            Some(_) => To::Nobody,
        };
        let something_new = node.hints().count(target) > refused.rows.len() as u64;
        if to == To::Nobody || !something_new {
            let look_again = if to == To::Nobody { away_until } else { refused.again_at };
            tokio::select! { biased;
                () = came_up => refused = Refused::default(),
                () = added => {}
                () = sleep_until(look_again) => {}
            }
            continue;
        }
        let refused_before = refused.rows.len();
        let Ok(pass) = deliver_all(&node, target, to, &mut refused.rows).await else {
            return; // the storage has failed, the node stops
        };
        let count = pass.delivered;
        match to {
            To::AnyOtherOwner if count > 0 => {
                tracing::info!(%target, count, "away for long: hints given to other owners");
            }
            To::Target if count > 0 => tracing::info!(%target, count, "hints delivered"),
            To::Target | To::AnyOtherOwner | To::Nobody => {}
        }
        refused.wait_from(node.clock().now());
        let nothing = pass.delivered == 0 && refused.rows.len() == refused_before;
        let rest = match pass.complete {
            false => PAUSE,
            true if nothing => APPLIED_SOON,
            true => continue,
        };
        tokio::select! { biased;
            () = came_up => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Hints that their owner did not take, for instance because it plans with another view. They wait, the others do not.
#[derive(Default)]
struct Refused {
    rows: BTreeSet<Bytes>,
    again_at: Option<Instant>,
    /// How long the last wait was.
    pause: Duration,
}

impl Refused {
    /// Begins to wait, twice as long as the last time, if anything was refused.
    fn wait_from(&mut self, now: Instant) {
        if self.rows.is_empty() {
            *self = Refused::default();
        } else if self.again_at.is_none() {
            self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
            self.again_at = Some(now + self.pause);
        }
    }

    /// All may be tried again when they have waited long enough.
    fn forget_when_due(&mut self, now: Instant) {
        if self.again_at.is_some_and(|at| now >= at) {
            self.rows.clear();
            self.again_at = None;
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Who gets the hints for an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// The owner itself.
    Target,
    /// Whoever else owns the key and has it fsynced first.
    AnyOtherOwner,
    /// Nobody yet.
    Nobody,
}

/// What came of going through the hints for an owner once.
struct Pass {
    delivered: u64,
    /// All were tried; otherwise somebody did not answer.
    complete: bool,
}

/// Goes once through the hints for an owner, but for those it has refused, until a delivery finds nobody there.
async fn deliver_all(
    node: &Arc<Node>,
    target: NodeId,
    to: To,
    refused: &mut BTreeSet<Bytes>,
) -> Result<Pass, StoreError> {
    let prefix = rows::hints_for(target);
    let mut after: Option<Bytes> = None;
    let mut waiting: VecDeque<(Bytes, Bytes)> = VecDeque::new();
    let mut flying = FuturesUnordered::new();
    let mut flying_bytes = 0;
    let mut pass = Pass { delivered: 0, complete: true };
    loop {
        while pass.complete && flying.len() < IN_FLIGHT_MAX {
            if waiting.is_empty() {
                let page = node.disk().scan(Space::Hints, &prefix, after.as_deref(), PAGE)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                waiting = page.into_iter().filter(|(row, _)| !refused.contains(row)).collect();
                continue;
            }
            let bytes = waiting.front().map_or(0, |(_, value)| value.len());
            if !flying.is_empty() && flying_bytes + bytes > IN_FLIGHT_BYTES_MAX {
                break;
            }
            let Some((row, value)) = waiting.pop_front() else { break };
            flying_bytes += bytes;
            if canary::is_on(Canary::DropHintEarly) {
                node.hints().delivered(target, &row, &value)?;
            }
            flying.push(async move {
                let outcome = match to {
                    // for ever: nobody has a use for it
                    _ if node.buckets().is_dropped(of_row(&rows::data_of_hint(&row))) => {
                        Delivery::Done
                    }
                    To::Target if owns_no_longer(node, target, &row) => {
                        send_to_others(node, target, &row, &value).await
                    }
                    To::Target => send(node, target, &row, &value).await,
                    To::AnyOtherOwner => send_to_others(node, target, &row, &value).await,
                    To::Nobody => Delivery::Unreachable,
                };
                (row, value, outcome)
            });
        }
        let Some((row, value, outcome)) = flying.next().await else { return Ok(pass) };
        flying_bytes -= value.len();
        match outcome {
            Delivery::Done => {
                // a row whose removal is only queued is found again: that is no progress, and must not be tried at once
                pass.delivered += u64::from(node.hints().delivered(target, &row, &value)?);
            }
            Delivery::Damaged => {
                tracing::warn!(%target, "a hint is damaged and cannot be delivered; it is set aside");
                node.count_corrupt();
                node.hints().set_aside(&row, &value)?;
            }
            Delivery::NotNow if refused.len() < REFUSED_MAX => {
                refused.insert(row);
            }
            Delivery::NotNow | Delivery::Unreachable => pass.complete = false,
        }
    }
}

/// Whether the key of a hint has gone to others since, so that nobody would take it in this owner's name.
fn owns_no_longer(node: &Node, target: NodeId, row: &Bytes) -> bool {
    let Some((bucket, key)) = rows::bucket_and_key(&rows::data_of_hint(row)) else { return false };
    !fence::keeps_as(node, target, node.view().partition(Token::of(&bucket.0, &key)), bucket)
}

/// How the delivery of one hint went.
enum Delivery {
    /// An owner has it fsynced.
    Done,
    /// The owner does not take this one, for instance because it plans with another view; the others may go on.
    NotNow,
    /// It is not what was written.
    Damaged,
    /// The owner did not answer, or has no room for any.
    Unreachable,
}

/// Gives a hint to the first other owner of its key that takes it.
async fn send_to_others(node: &Arc<Node>, target: NodeId, row: &Bytes, value: &Bytes) -> Delivery {
    let data_row = rows::data_of_hint(row);
    let Some((bucket, key)) = rows::bucket_and_key(&data_row) else { return Delivery::NotNow };
    let Some(record) = Own::of(row, Some(value.clone())).record() else {
        return Delivery::Damaged;
    };
    let view = node.view();
    let owners = view.owners(view.partition(Token::of(&bucket.0, &key)));
    let owners = owners.first(node.buckets().copies(bucket)).all();
    for owner in owners.into_iter().filter(|owner| *owner != target) {
        if owner == node.id() {
            let state = record.state.clone();
            if let Ok(joined) = replica::join(node, &data_row, state, Ack::Durable)
                && joined.done().await.is_ok()
            {
                return Delivery::Done;
            }
        } else if node.liveness().is_up(owner)
            && let Delivery::Done = send(node, owner, row, value).await
        {
            return Delivery::Done;
        }
    }
    Delivery::NotNow
}

/// Sends one hint to an owner and waits until it is fsynced there.
async fn send(node: &Arc<Node>, to: NodeId, row: &Bytes, value: &Bytes) -> Delivery {
    let Some(record) = Own::of(row, Some(value.clone())).record() else {
        return Delivery::Damaged;
    };
    let data_row = rows::data_of_hint(row);
    let (bucket, key) = rows::bucket_and_key(&data_row).expect("we named this row ourselves");
    let (ack, state) = (Ack::Durable, record.bytes);
    let replicate = Replicate { key, ack, hint_for: None, state };
    let envelope = node.envelope_for(node.clock().now() + DELIVERY_LIMIT, 0, bucket);
    let call = node.transport().call(to, Lane::Bulk, envelope, Request::Replicate(replicate));
    match tokio::time::timeout(DELIVERY_LIMIT, call).await {
        Ok(result) => {
            node.liveness().learn(to, &result);
            match result {
                Ok((_, Reply::Replicated(done))) if done.durable => Delivery::Done,
                Ok((_, Reply::Failed(failure))) => match failure.code {
                    ErrorCode::BucketDropped => Delivery::Done,
                    ErrorCode::Overloaded
                    | ErrorCode::Stopping
                    | ErrorCode::Rising
                    | ErrorCode::ReadOnly
                    | ErrorCode::DeadlinePassed => Delivery::Unreachable,
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
