//! What this node may have forgotten, and until when.
//!
//! A node that has lost memory (an empty or restored directory, a journal without its tail) still holds states, and they
//! are still true; but that it holds nothing of a write says nothing any more. So its answers are joined and do not count,
//! partition by partition, until it has been **compared with every other owner**, in doubt or not. A damaged record puts
//! one key in doubt in the same way. Doubt is durable, and it ends no earlier than the commit that holds what the
//! comparison brought. A delta does not end it: it brings one write and not those that were lost.
//!
//! ```text
//!   meta        doubt/why                 text, for people
//!   meta        doubt/<partition>         the owners still to be compared with, 4 bytes each
//!   quarantine  <data row>                the damaged record as it was found; while it is here the key is in doubt
//!   meta        damaged/<row>             what was damaged and puts no key in doubt by itself, as it was found
//! ```
//!
//! How the doubt of a key ends is told in `repair/quarantine`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use atoll_ring::{MemberState, NodeId, Owners, Partition, View};
use atoll_wire::{Ack, limits::TIMEOUT_MS_MAX};
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::{sync::Notify, time::Instant};

use crate::storage::{Space, StoreError, Write, commit::Disk, meta, rows};

/// Keys in doubt by themselves, at most: their names are in memory. Past that a damaged record puts its whole partition in
/// doubt. A disk that damages so many has more to tell us than their names.
pub const QUARANTINE_MAX: usize = 65_536;

/// A write that had counted what this node lost may end so much later, and may reach its other owners only then. A
/// comparison that began before that might find the write nowhere, and its acknowledgement would stand on one owner less
/// than it says. So the data are back at once, and the doubt goes after a minute.
pub(crate) const LAST_WRITE: Duration = Duration::from_millis(TIMEOUT_MS_MAX as u64);

/// Rows read at once when a node starts. Few, because each may hold as many bytes as a key may have.
const PAGE: usize = 64;

/// What a node may have forgotten.
pub(crate) struct Doubt {
    disk: Arc<Disk>,
    state: Mutex<State>,
    keys_max: usize,
    /// A key is newly in doubt.
    pub(crate) added: Notify,
}

#[derive(Default)]
struct State {
    why: String,
    /// Per partition in doubt the owners still to be compared with.
    partitions: BTreeMap<Partition, BTreeSet<NodeId>>,
    /// Comparisons whose end is queued for the disk.
    ending: BTreeSet<(Partition, NodeId)>,
    /// When partitions were last put in doubt, or the node started with some that were.
    since: Option<Instant>,
    /// When the owners of a partition in doubt last changed.
    owners_since: BTreeMap<Partition, Instant>,
    /// Rows of keys in doubt, and which damage it was: a later one is not ended by a comparison that began before it.
    keys: BTreeMap<Bytes, u64>,
    damages: u64,
    /// Partitions of which somebody has decided that what is left of keys in doubt is all there is.
    accepted: BTreeSet<Partition>,
}

impl Doubt {
    /// What was in doubt when the node stopped still is.
    pub(crate) fn open(disk: Arc<Disk>, now: Instant) -> Result<Self, StoreError> {
        let mut state = State { since: Some(now), ..State::default() };
        for (row, value) in disk.scan(Space::Meta, rows::DOUBT, None, usize::MAX)? {
            let value = meta::open(&row, &value)?;
            match rows::partition_of_doubt(&row) {
                Some(partition) => {
                    let owners = value
                        .chunks_exact(4)
                        .map(|id| NodeId(u32::from_be_bytes(id.try_into().expect("four bytes"))));
                    state.partitions.insert(partition, owners.collect());
                }
                None => state.why = String::from_utf8_lossy(&value).into_owned(),
            }
        }
        let mut after: Option<Bytes> = None;
        loop {
            let page = disk.scan(Space::Quarantine, b"", after.as_deref(), PAGE)?;
            state.keys.extend(page.iter().map(|(row, _)| (row.clone(), 0)));
            match page.last() {
                Some((last, _)) => after = Some(last.clone()),
                None => break,
            }
        }
        let (state, added) = (Mutex::new(state), Notify::new());
        Ok(Doubt { disk, state, keys_max: QUARANTINE_MAX, added })
    }

    /// Whether a record of this key was damaged and the key was not compared since. The row is a data row.
    pub(crate) fn covers_key(&self, row: &Bytes) -> bool {
        self.state().keys.contains_key(row)
    }

    /// How many keys are in doubt by themselves.
    pub(crate) fn key_count(&self) -> usize {
        self.state().keys.len()
    }

    /// Whether what this node says of a key may be less than it once knew. The row is a data row.
    pub(crate) fn covers(&self, row: &Bytes) -> bool {
        let state = self.state();
        let in_partition = rows::partition_of_data(row)
            .is_some_and(|partition| state.partitions.contains_key(&partition));
        in_partition || state.keys.contains_key(row)
    }

    /// Whether a partition as a whole is in doubt.
    pub(crate) fn covers_partition(&self, partition: Partition) -> bool {
        self.state().partitions.contains_key(&partition)
    }

    /// Whether any partition is: such a node confirms no equality.
    pub(crate) fn covers_any_partition(&self) -> bool {
        !self.state().partitions.is_empty()
    }

    /// The partitions that must still be compared with this owner.
    pub(crate) fn to_compare_with(&self, owner: NodeId) -> BTreeSet<Partition> {
        let state = self.state();
        let partitions = state.partitions.iter().filter(|(_, owners)| owners.contains(&owner));
        partitions.map(|(partition, _)| *partition).collect()
    }

    /// The partitions in doubt.
    pub(crate) fn partitions(&self) -> Vec<Partition> {
        self.state().partitions.keys().copied().collect()
    }

    /// The rows of the keys in doubt, and which damage put them there.
    pub(crate) fn keys(&self) -> Vec<(Bytes, u64)> {
        self.state().keys.iter().map(|(row, damage)| (row.clone(), *damage)).collect()
    }

    /// The first rows of a partition's keys in doubt, in order, after this one.
    pub(crate) fn keys_of(&self, partition: Partition, after: &Bytes, limit: usize) -> Vec<Bytes> {
        let prefix = partition.0.to_be_bytes();
        let from = match after.starts_with(&prefix) {
            true => Bound::Excluded(after.clone()),
            false => Bound::Included(Bytes::copy_from_slice(&prefix)),
        };
        let state = self.state();
        let rows = state.keys.range((from, Bound::Unbounded)).map(|(row, _)| row);
        rows.take_while(|row| row.starts_with(&prefix)).take(limit).cloned().collect()
    }

    /// Why, for people; empty if nothing is.
    pub(crate) fn why(&self) -> String {
        let state = self.state();
        if state.partitions.is_empty() { String::new() } else { state.why.clone() }
    }

    /// Puts these partitions in doubt, each until it was compared with these owners. The writes belong into the commit
    /// before which nothing is answered. A partition without other owners cannot be compared and is not doubted.
    pub(crate) fn begin(
        &self,
        why: &str,
        partitions: impl IntoIterator<Item = (Partition, BTreeSet<NodeId>)>,
        now: Instant,
    ) -> Vec<Write> {
        let mut state = self.state();
        state.since = Some(now);
        why.clone_into(&mut state.why);
        let mut writes = vec![meta::write(Bytes::from_static(rows::DOUBT_WHY), why.as_bytes())];
        for (partition, owners) in partitions {
            if !owners.is_empty() {
                writes.push(write_of(partition, &owners));
                state.ending.retain(|(ending, _)| *ending != partition);
                state.partitions.insert(partition, owners);
            }
        }
        writes
    }

    /// Partitions have other owners from now on. Doubt about what this node owns no longer is over. An owner that is gone
    /// cannot be compared with: those who took its place have all it held, and are compared with (again, if that has been
    /// done: they may not have had it all by then). The dead are left out, unless nobody would be left. The writes belong
    /// into the commit of the view.
    pub(crate) fn follow(
        &self,
        before: &View,
        next: &View,
        me: NodeId,
        now: Instant,
    ) -> Vec<Write> {
        let mut state = self.state();
        let mut writes = Vec::new();
        for partition in state.partitions.keys().copied().collect::<Vec<_>>() {
            let owners_then = before.owners(partition).all();
            let owners_now = next.owners(partition).all();
            if !owners_now.contains(&me) {
                state.partitions.remove(&partition);
                writes.push(write_of(partition, &BTreeSet::new()));
                continue;
            }
            let alive = |owner: &NodeId| {
                let state = next.member(*owner).map(|member| member.state);
                *owner != me && state.is_some_and(|state| state != MemberState::Dead)
            };
            let left = state.partitions[&partition].clone();
            let mut then = left.clone();
            then.retain(|owner| owners_now.contains(owner) && alive(owner));
            let came = |owner: &&NodeId| !owners_then.contains(owner);
            then.extend(owners_now.iter().filter(came).filter(|owner| alive(owner)));
            if left.iter().any(|owner| !owners_now.contains(owner)) {
                let took_over = match before.owners(partition) {
                    Owners::Joint { old, new } => {
                        new.iter().copied().filter(|owner| !old.contains(owner)).collect()
                    }
                    Owners::One(_) => Vec::new(),
                };
                let still = |owner: &NodeId| owners_now.contains(owner) && alive(owner);
                then.extend(took_over.into_iter().filter(still));
            }
            if then.is_empty() {
                then.extend(owners_now.iter().copied().filter(alive));
            }
            if then != left {
                state.ending.retain(|(ending, _)| *ending != partition);
                state.owners_since.insert(partition, now);
                writes.push(write_of(partition, &then));
                match then.is_empty() {
                    true => drop(state.partitions.remove(&partition)), // there is nobody to ask
                    false => drop(state.partitions.insert(partition, then)),
                }
            }
        }
        writes
    }

    /// A partition was compared with an owner, and all that was found there is queued here. Doubt goes back by this owner
    /// when that is on stable storage; not at all if the comparison began too early ([`LAST_WRITE`]).
    ///
    /// # Errors
    /// The storage failed.
    pub(crate) async fn compared(
        &self,
        partition: Partition,
        with: NodeId,
        began: Instant,
    ) -> Result<(), StoreError> {
        let too_early = |state: &State| {
            let changed = state.owners_since.get(&partition);
            state.since.is_some_and(|since| began < since + LAST_WRITE)
                || changed.is_some_and(|changed| began < *changed)
        };
        let ticket = {
            let mut state = self.state();
            if too_early(&state) {
                return Ok(());
            }
            let Some(mut left) = state.partitions.get(&partition).cloned() else { return Ok(()) };
            state.ending.insert((partition, with));
            // two comparisons may end at the same time, and the later row must say both
            left.retain(|owner| !state.ending.contains(&(partition, *owner)));
            self.disk.write(vec![write_of(partition, &left)], Ack::Durable)
        };
        ticket.done().await?;
        let mut state = self.state();
        if too_early(&state) {
            return Ok(()); // it is in doubt anew
        }
        state.ending.remove(&(partition, with));
        if let Some(owners) = state.partitions.get_mut(&partition) {
            owners.remove(&with);
            if owners.is_empty() {
                state.partitions.remove(&partition);
            }
        }
        Ok(())
    }

    /// Sets a damaged record aside. From now on the key is in doubt, and its record may be begun anew by any state. When
    /// too many keys are, its partition is, until it was compared with these owners. Whatever is queued after this is on
    /// stable storage no earlier than this is.
    pub(crate) fn quarantine(
        &self,
        row: &Bytes,
        damaged: Bytes,
        owners: BTreeSet<NodeId>,
        now: Instant,
    ) {
        let gone = |space| Write { space, row: row.clone(), value: None };
        let mut writes = vec![gone(Space::Data), gone(Space::Digests)];
        let full = {
            let state = self.state();
            state.keys.len() >= self.keys_max && !state.keys.contains_key(row)
        };
        match rows::partition_of_data(row) {
            Some(partition) if full && !owners.is_empty() => {
                writes.extend(self.begin("many records are damaged", [(partition, owners)], now));
                writes.push(meta::write(rows::damaged(row), &damaged));
            }
            Some(_) | None => {
                let mut state = self.state();
                state.damages += 1;
                let damage = state.damages;
                state.keys.insert(row.clone(), damage);
                let (space, row) = (Space::Quarantine, row.clone());
                writes.push(Write { space, row, value: Some(damaged) });
            }
        }
        drop(self.disk.write(writes, Ack::Written));
        self.added.notify_waiters();
    }

    /// Puts a key in doubt whose record here is whole: another owner's is damaged, and what that one knew nobody can say
    /// yet. False if there is no room for more of them.
    pub(crate) fn doubt_key(&self, row: &Bytes) -> bool {
        {
            let mut state = self.state();
            if state.keys.contains_key(row) {
                return true;
            }
            if state.keys.len() >= self.keys_max {
                return false;
            }
            state.damages += 1;
            let damage = state.damages;
            state.keys.insert(row.clone(), damage);
        }
        let doubt = Write { space: Space::Quarantine, row: row.clone(), value: Some(Bytes::new()) };
        drop(self.disk.write(vec![doubt], Ack::Written));
        self.added.notify_waiters();
        true
    }

    /// Somebody has decided that what is left of this partition's keys in doubt is all there is. Holds for the keys that are
    /// in doubt now, until the node ends.
    pub(crate) fn accept(&self, partition: Partition) {
        if self.has_keys_of(partition) {
            self.state().accepted.insert(partition);
            self.added.notify_waiters();
        }
    }

    fn has_keys_of(&self, partition: Partition) -> bool {
        !self.keys_of(partition, &Bytes::new(), 1).is_empty()
    }

    /// Whether somebody has decided so about a key.
    pub(crate) fn is_accepted(&self, row: &Bytes) -> bool {
        let partition = rows::partition_of_data(row);
        partition.is_some_and(|partition| self.state().accepted.contains(&partition))
    }

    /// A key was compared with every other owner, and the result is queued here. Its doubt ends when that is on stable
    /// storage, unless its record was damaged again since the comparison began.
    ///
    /// # Errors
    /// The storage failed.
    pub(crate) async fn key_compared(&self, row: &Bytes, damage: u64) -> Result<(), StoreError> {
        if self.state().keys.get(row) != Some(&damage) {
            return Ok(());
        }
        let gone = Write { space: Space::Quarantine, row: row.clone(), value: None };
        self.disk.write(vec![gone], Ack::Durable).done().await?;
        let mut state = self.state();
        if state.keys.get(row) == Some(&damage) {
            state.keys.remove(row);
        }
        drop(state);
        if let Some(partition) = rows::partition_of_data(row)
            && !self.has_keys_of(partition)
        {
            self.state().accepted.remove(&partition);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }
}

fn write_of(partition: Partition, left: &BTreeSet<NodeId>) -> Write {
    let row = rows::doubt(partition);
    if left.is_empty() {
        return Write { space: Space::Meta, row, value: None };
    }
    let mut ids = BytesMut::with_capacity(4 * left.len());
    left.iter().for_each(|owner| ids.put_u32(owner.0));
    meta::write(row, &ids)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use atoll_ring::Token;
    use atoll_wire::BucketId;

    use super::*;
    use crate::storage::{Store as _, memory::MemoryStore};

    fn row(number: u8) -> Bytes {
        rows::data(Partition(u16::from(number % 2)), Token(0), BucketId([0; 16]), &[number])
    }

    fn damaged() -> Bytes {
        Bytes::from_static(b"damaged bytes")
    }

    /// The keys in doubt are bounded. Past that the whole partition is in doubt, the damaged bytes are kept elsewhere, and
    /// all of it outlives the process. Where nobody else has a copy, the key is doubted beyond the bound.
    #[tokio::test(start_paused = true)]
    async fn many_damaged_records_put_their_partition_in_doubt() {
        let store = Arc::new(MemoryStore::new());
        let (disk, _writer) =
            Disk::on_task(store.clone(), Duration::from_millis(2), None).expect("new");
        let disk = Arc::new(disk);
        let mut doubt = Doubt::open(disk.clone(), Instant::now()).expect("memory");
        doubt.keys_max = 2;
        let others = BTreeSet::from([NodeId(2), NodeId(3)]);
        for number in [0, 2, 4] {
            doubt.quarantine(&row(number), damaged(), others.clone(), Instant::now());
        }
        doubt.quarantine(&row(1), damaged(), BTreeSet::new(), Instant::now());
        disk.settled().done().await.expect("memory");
        for doubt in [doubt, Doubt::open(disk, Instant::now()).expect("memory")] {
            assert_eq!(doubt.key_count(), 3);
            assert!(doubt.covers_key(&row(0)) && !doubt.covers_key(&row(4)));
            assert!(doubt.covers(&row(4)) && doubt.covers_partition(Partition(0)));
            assert!(doubt.covers(&row(1)) && !doubt.covers_partition(Partition(1)));
            assert!(
                others.iter().all(|owner| doubt.to_compare_with(*owner).contains(&Partition(0)))
            );
        }
        let kept = store.get(Space::Meta, &rows::damaged(&row(4))).expect("memory");
        assert!(kept.is_some_and(|kept| kept.starts_with(&damaged())));
    }

    /// A comparison ends the doubt of the damage it knew of, and not that of a later one.
    #[tokio::test(start_paused = true)]
    async fn a_comparison_ends_the_doubt_it_began_with() {
        let store = Arc::new(MemoryStore::new());
        let (disk, _writer) = Disk::on_task(store, Duration::from_millis(2), None).expect("new");
        let doubt = Doubt::open(Arc::new(disk), Instant::now()).expect("memory");
        doubt.quarantine(&row(0), damaged(), BTreeSet::new(), Instant::now());
        let (_, first) = doubt.keys()[0].clone();
        doubt.quarantine(&row(0), damaged(), BTreeSet::new(), Instant::now());
        doubt.key_compared(&row(0), first).await.expect("memory");
        assert!(doubt.covers_key(&row(0)), "damaged again before");

        let (_, second) = doubt.keys()[0].clone();
        let (key, again) = (row(0), async {
            doubt.quarantine(&row(0), damaged(), BTreeSet::new(), Instant::now())
        });
        let (ended, ()) = tokio::join!(doubt.key_compared(&key, second), again);
        ended.expect("memory");
        assert!(doubt.covers_key(&row(0)), "damaged again meanwhile");

        let (_, third) = doubt.keys()[0].clone();
        doubt.key_compared(&row(0), third).await.expect("memory");
        assert!(!doubt.covers_key(&row(0)));
    }
}
