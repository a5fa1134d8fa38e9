//! A store in memory with a crash model: what was not synced is lost, wholly or in part.
//!
//! It behaves like a disk whose cache is honest: applied batches are visible at once, `sync` makes them last, and a
//! crash keeps some prefix of the batches that were applied since. A batch is never torn (fjall's journal has checksums
//! for that), only lost.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard},
};

use bytes::Bytes;

use super::{Room, Space, Store, StoreError, Write};

/// Rows in memory, and which of them a crash would spare.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    visible: Rows,
    synced: Rows,
    /// Batches applied since the last sync, oldest first.
    unsynced: Vec<Vec<Write>>,
    room: Option<Room>,
}

type Rows = BTreeMap<(Space, Bytes), Bytes>;

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        MemoryStore::default()
    }

    /// Power loss: of the batches that were not synced only the first `keep` survive.
    pub fn crash(&self, keep: usize) {
        let mut state = self.state();
        let survivors: Vec<_> =
            std::mem::take(&mut state.unsynced).into_iter().take(keep).collect();
        for batch in survivors {
            write_all(&mut state.synced, &batch);
        }
        state.visible = state.synced.clone();
    }

    /// Batches a crash could take.
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// How much fits from now on: each batch takes what its rows and values have in bytes, and gives nothing back.
    /// `None`, and so from the beginning: nobody can tell.
    pub fn set_room(&self, room: Option<Room>) {
        self.state().room = room;
    }

    /// Damages a row: flips a bit in the middle of its value, on disk and in view.
    pub fn damage(&self, space: Space, row: &[u8]) -> bool {
        let mut state = self.state();
        let name = (space, Bytes::copy_from_slice(row));
        let Some(value) = state.visible.get(&name) else { return false };
        let mut bytes = value.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        let bytes = Bytes::from(bytes);
        state.synced.insert(name.clone(), bytes.clone());
        state.visible.insert(name, bytes);
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }
}

impl Store for MemoryStore {
    fn get(&self, space: Space, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().visible.get(&(space, Bytes::copy_from_slice(row))).cloned())
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let from = match after {
            Some(row) => Bound::Excluded((space, Bytes::copy_from_slice(row))),
            None => Bound::Included((space, Bytes::copy_from_slice(prefix))),
        };
        Ok(self
            .state()
            .visible
            .range((from, Bound::Unbounded))
            .take_while(|((at, row), _)| *at == space && row.starts_with(prefix))
            .take(limit)
            .map(|((_, row), value)| (row.clone(), value.clone()))
            .collect())
    }

    fn apply(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut state = self.state();
        write_all(&mut state.visible, writes);
        if let Some(room) = &mut state.room {
            let taken: usize = writes.iter().map(Write::bytes).sum();
            room.free_bytes = room.free_bytes.saturating_sub(taken as u64);
        }
        state.unsynced.push(writes.to_vec());
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        for batch in std::mem::take(&mut state.unsynced) {
            write_all(&mut state.synced, &batch);
        }
        Ok(())
    }

    fn rows(&self, space: Space) -> u64 {
        self.state().visible.keys().filter(|(at, _)| *at == space).count() as u64
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn room(&self) -> Option<Room> {
        self.state().room
    }
}

fn write_all(rows: &mut Rows, writes: &[Write]) {
    for write in writes {
        let name = (write.space, write.row.clone());
        match &write.value {
            Some(value) => rows.insert(name, value.clone()),
            None => rows.remove(&name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crash keeps all that was synced and any prefix of the batches since, each whole: never a later one without the
    /// earlier.
    #[test]
    fn a_crash_keeps_some_prefix_of_whole_batches() {
        let row = |name: &'static str| Write {
            space: Space::Data,
            row: Bytes::from_static(name.as_bytes()),
            value: Some(Bytes::from_static(b"v")),
        };
        let batches = [[row("b1"), row("b2")], [row("c1"), row("c2")], [row("d1"), row("d2")]];
        for keep in 0..=batches.len() {
            let store = MemoryStore::new();
            store.apply(&[row("a")]).expect("memory");
            store.sync().expect("memory");
            for batch in &batches {
                store.apply(batch).expect("memory");
            }
            store.crash(keep);
            let holds =
                |name: &str| store.get(Space::Data, name.as_bytes()).expect("memory").is_some();
            assert!(holds("a"), "synced, keep={keep}");
            for (index, batch) in batches.iter().enumerate() {
                for write in batch {
                    let name = std::str::from_utf8(&write.row).expect("text");
                    assert_eq!(holds(name), index < keep, "{name}, keep={keep}");
                }
            }
        }
    }
}
