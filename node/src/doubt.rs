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
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use atoll_ring::{NodeId, Partition};
use atoll_wire::Ack;
use bytes::{BufMut as _, Bytes, BytesMut};

use crate::storage::{
    Space, StoreError, Write,
    commit::{Disk, Ticket},
    meta, rows,
};

/// What a node may have forgotten.
pub(crate) struct Doubt {
    disk: Arc<Disk>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    why: String,
    /// Per partition in doubt the owners still to be compared with.
    partitions: BTreeMap<Partition, BTreeSet<NodeId>>,
    /// Comparisons whose end is queued for the disk.
    ending: BTreeSet<(Partition, NodeId)>,
    /// Rows of keys in doubt.
    keys: BTreeSet<Bytes>,
}

impl Doubt {
    /// What was in doubt when the node stopped still is.
    pub(crate) fn open(disk: Arc<Disk>) -> Result<Self, StoreError> {
        let mut state = State::default();
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
        let quarantined = disk.scan(Space::Quarantine, b"", None, usize::MAX)?;
        state.keys = quarantined.into_iter().map(|(row, _)| row).collect();
        Ok(Doubt { disk, state: Mutex::new(state) })
    }

    /// Whether what this node says of a key may be less than it once knew. The row is a data row.
    pub(crate) fn covers(&self, row: &Bytes) -> bool {
        let state = self.state();
        let in_partition = rows::partition_of_data(row)
            .is_some_and(|partition| state.partitions.contains_key(&partition));
        in_partition || state.keys.contains(row)
    }

    /// Whether a partition as a whole is in doubt.
    pub(crate) fn covers_partition(&self, partition: Partition) -> bool {
        self.state().partitions.contains_key(&partition)
    }

    /// Whether any partition is: such a node confirms no equality.
    pub(crate) fn covers_any_partition(&self) -> bool {
        !self.state().partitions.is_empty()
    }

    /// The owners with which a partition must still be compared.
    pub(crate) fn to_compare(&self, partition: Partition) -> BTreeSet<NodeId> {
        self.state().partitions.get(&partition).cloned().unwrap_or_default()
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

    /// The rows of the keys in doubt.
    pub(crate) fn keys(&self) -> Vec<Bytes> {
        self.state().keys.iter().cloned().collect()
    }

    /// The first rows of a partition's keys in doubt, in order, after this one.
    pub(crate) fn keys_of(&self, partition: Partition, after: &Bytes, limit: usize) -> Vec<Bytes> {
        let prefix = partition.0.to_be_bytes();
        let from = match after.starts_with(&prefix) {
            true => Bound::Excluded(after.clone()),
            false => Bound::Included(Bytes::copy_from_slice(&prefix)),
        };
        let state = self.state();
        let rows = state.keys.range((from, Bound::Unbounded));
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
    ) -> Vec<Write> {
        let mut state = self.state();
        why.clone_into(&mut state.why);
        let mut writes = vec![meta::write(Bytes::from_static(rows::DOUBT_WHY), why.as_bytes())];
        for (partition, owners) in partitions {
            if !owners.is_empty() {
                writes.push(write_of(partition, &owners));
                state.partitions.insert(partition, owners);
            }
        }
        writes
    }

    /// A partition was compared with an owner, and all that was found there is queued here. Doubt goes back by this owner
    /// when that is on stable storage.
    ///
    /// # Errors
    /// The storage failed.
    pub(crate) async fn compared(
        &self,
        partition: Partition,
        with: NodeId,
    ) -> Result<(), StoreError> {
        let ticket = {
            let mut state = self.state();
            let Some(mut left) = state.partitions.get(&partition).cloned() else { return Ok(()) };
            state.ending.insert((partition, with));
            // two comparisons may end at the same time, and the later row must say both
            left.retain(|owner| !state.ending.contains(&(partition, *owner)));
            self.disk.write(vec![write_of(partition, &left)], Ack::Durable)
        };
        ticket.done().await?;
        let mut state = self.state();
        state.ending.remove(&(partition, with));
        if let Some(owners) = state.partitions.get_mut(&partition) {
            owners.remove(&with);
            if owners.is_empty() {
                state.partitions.remove(&partition);
            }
        }
        Ok(())
    }

    /// Sets a damaged record aside. From now on the key is in doubt, and its record may be begun anew by any state. The
    /// ticket is good when that is on stable storage.
    pub(crate) fn quarantine(&self, row: &Bytes, damaged: Bytes) -> Ticket {
        self.state().keys.insert(row.clone());
        let aside = Write { space: Space::Quarantine, row: row.clone(), value: Some(damaged) };
        let gone = |space| Write { space, row: row.clone(), value: None };
        self.disk.write(vec![aside, gone(Space::Data), gone(Space::Digests)], Ack::Durable)
    }

    /// Puts a key in doubt whose record here is whole: another owner's is damaged, and what that one knew nobody can say
    /// yet. The ticket is good when that is on stable storage.
    pub(crate) fn doubt_key(&self, row: &Bytes) -> Ticket {
        if !self.state().keys.insert(row.clone()) {
            return self.disk.settled();
        }
        let doubt = Write { space: Space::Quarantine, row: row.clone(), value: Some(Bytes::new()) };
        self.disk.write(vec![doubt], Ack::Durable)
    }

    /// A key was compared with every other owner, and the result is queued here. Doubt ends when that is on stable
    /// storage.
    ///
    /// # Errors
    /// The storage failed.
    pub(crate) async fn key_compared(&self, row: &Bytes) -> Result<(), StoreError> {
        let gone = Write { space: Space::Quarantine, row: row.clone(), value: None };
        self.disk.write(vec![gone], Ack::Durable).done().await?;
        self.state().keys.remove(row);
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
