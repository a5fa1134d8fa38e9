//! A store in memory with a crash model: what was not synced is lost, wholly or in part.
//!
//! It behaves like a disk whose cache is honest: applied batches are visible at once, `sync` makes them last, and a
//! crash keeps some prefix of the batches that were applied since. A batch is never torn (fjall's journal has checksums
//! for that), only lost.
//!
//! A disk may also lie: lose batches that it had synced, from the end ([`MemoryStore::lose_tail`]), all it ever had
//! ([`MemoryStore::wipe`]), or come back as an older copy of itself ([`MemoryStore::restore`]).

use std::{
    collections::{BTreeMap, VecDeque},
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

#[derive(Clone, Default)]
struct State {
    visible: Rows,
    synced: Rows,
    /// Batches applied since the last sync, oldest first.
    unsynced: Vec<Vec<Write>>,
    /// How to take back the newest synced batches, oldest first; at most [`TAIL_MAX`].
    tail: VecDeque<Undo>,
    room: Option<Room>,
}

type Name = (Space, Bytes);
type Rows = BTreeMap<Name, Bytes>;

/// What rows held before a batch, in the order in which it wrote them.
type Undo = Vec<(Name, Option<Bytes>)>;

/// Synced batches that can be lost from the end.
pub const TAIL_MAX: usize = 64;

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
            state.make_last(&batch);
        }
        state.visible = state.synced.clone();
    }

    /// Power loss on a disk that had lied: of the batches that were synced the last few are lost too, and all that was
    /// not. Returns how many could be lost.
    pub fn lose_tail(&self, batches: usize) -> usize {
        let mut state = self.state();
        state.unsynced.clear();
        let kept = state.tail.len().saturating_sub(batches);
        let lost = state.tail.split_off(kept);
        for (name, before) in lost.iter().rev().flat_map(|undo| undo.iter().rev()) {
            match before {
                Some(value) => state.synced.insert(name.clone(), value.clone()),
                None => state.synced.remove(name),
            };
        }
        state.visible = state.synced.clone();
        lost.len()
    }

    /// An empty disk in the place of this one.
    pub fn wipe(&self) {
        let mut state = self.state();
        *state = State { room: state.room, ..State::default() };
    }

    /// A disk that holds what this one had synced: what a backup takes, and a way to see what a fault would do.
    pub fn copy(&self) -> MemoryStore {
        let synced = self.state().synced.clone();
        let state = State { visible: synced.clone(), synced, ..State::default() };
        MemoryStore { state: Mutex::new(state) }
    }

    /// The same disk once more, what is not synced and what can be lost included.
    pub fn twin(&self) -> MemoryStore {
        MemoryStore { state: Mutex::new(self.state().clone()) }
    }

    /// An older copy in the place of this disk.
    pub fn restore(&self, copy: &MemoryStore) {
        let synced = copy.state().synced.clone();
        let mut state = self.state();
        *state = State { visible: synced.clone(), synced, room: state.room, ..State::default() };
    }

    /// What a power loss would leave in a row.
    pub fn synced_row(&self, space: Space, row: &Bytes) -> Option<Bytes> {
        self.state().synced.get(&(space, row.clone())).cloned()
    }

    /// The rows that a power loss would spare.
    pub fn synced(&self, space: Space) -> Vec<(Bytes, Bytes)> {
        let state = self.state();
        let from = (space, Bytes::new());
        let rows = state.synced.range(from..).take_while(|((at, _), _)| *at == space);
        rows.map(|((_, row), value)| (row.clone(), value.clone())).collect()
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
        for write in writes {
            write_one(&mut state.visible, write);
        }
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
            state.make_last(&batch);
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

impl State {
    fn make_last(&mut self, batch: &[Write]) {
        let undo = batch.iter().map(|write| {
            let before = write_one(&mut self.synced, write);
            ((write.space, write.row.clone()), before)
        });
        let undo = undo.collect();
        self.tail.push_back(undo);
        if self.tail.len() > TAIL_MAX {
            self.tail.pop_front();
        }
    }
}

/// Returns what the row held before.
fn write_one(rows: &mut Rows, write: &Write) -> Option<Bytes> {
    let name = (write.space, write.row.clone());
    match &write.value {
        Some(value) => rows.insert(name, value.clone()),
        None => rows.remove(&name),
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

    /// A lost tail takes back whole batches from the end, synced as they were, and rows hold again what they held before.
    #[test]
    fn a_lost_tail_takes_back_the_newest_batches() {
        let write = |row: &'static str, value: Option<&'static str>| Write {
            space: Space::Data,
            row: Bytes::from_static(row.as_bytes()),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
        };
        let batches = [
            vec![write("a", Some("1")), write("b", Some("1"))],
            vec![write("a", Some("2")), write("a", Some("3"))],
            vec![write("b", None), write("c", Some("1"))],
        ];
        let told = |store: &MemoryStore| -> Vec<String> {
            let rows = store.synced(Space::Data);
            let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
            rows.into_iter().map(|(row, value)| text(row) + &text(value)).collect()
        };
        for lost in 0..=4 {
            let store = MemoryStore::new();
            for batch in &batches {
                store.apply(batch).and_then(|()| store.sync()).expect("memory");
            }
            store.apply(&[write("d", Some("1"))]).expect("memory");
            let copy = store.copy();
            assert_eq!(store.lose_tail(lost), lost.min(3));
            let left: &[&str] = match lost {
                0 => &["a3", "c1"],
                1 => &["a3", "b1"],
                2 => &["a1", "b1"],
                _ => &[],
            };
            assert_eq!(told(&store), left, "{lost} lost");
            assert_eq!(store.unsynced(), 0);
            store.restore(&copy);
            assert_eq!(told(&store), ["a3", "c1"], "restored");
            store.wipe();
            assert!(told(&store).is_empty());
        }
    }
}
