//! What a node keeps, and when it may say so.
//!
//! From the disk upwards: a [`Store`] is an ordered map with atomic batches and one `sync`; it has two implementations,
//! [`fjall::FjallStore`] on a real disk and [`memory::MemoryStore`], which can lose what was not synced, and
//! [`faulty::FaultyStore`] breaks either on command. [`commit::Disk`] gathers writes, applies and syncs them together and
//! only then lets them be acknowledged. [`record`] is one key's row with its checksum, [`meta`] one of the node's own,
//! [`summary`] what is said of a record beside it, [`rows`] how rows are named, [`mark`] remembers the last commit outside
//! the store, [`directory`] is what else lies in the data directory, and
//! [`damage`] what may be done to it on purpose.

use bytes::Bytes;

pub mod commit;
pub mod damage;
pub mod directory;
pub mod faulty;
pub mod fjall;
pub mod mark;
pub mod memory;
pub mod meta;
pub mod record;
pub mod rows;
pub mod summary;

/// Which of the ordered maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Records of keys.
    Data,
    /// States kept for others.
    Hints,
    /// The node's own: leases, starts, the view, the commit number.
    Meta,
    /// Per record a fingerprint of its state, under the record's name: the trees are rebuilt from these.
    Digests,
    /// Damaged records, under their names; while one is here its key is in doubt.
    Quarantine,
}

impl Space {
    /// All of them.
    pub const ALL: [Space; 5] =
        [Space::Data, Space::Hints, Space::Meta, Space::Digests, Space::Quarantine];
}

/// One row to be written or removed.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where.
    pub space: Space,
    /// The row's name: 1 to 65,535 bytes (more makes fjall panic).
    pub row: Bytes,
    /// What it shall hold; `None` removes it.
    pub value: Option<Bytes>,
}

impl Write {
    /// Bytes of the name and the value.
    pub fn bytes(&self) -> usize {
        self.row.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// How much fits on the file system that holds a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes this process may still take.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// The storage engine failed. There is no second try: after a failed fsync nobody knows what is on the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage failed: {0}")]
pub struct StoreError(pub String);

/// An ordered map with atomic batches. All calls block.
pub trait Store: Send + Sync {
    /// The value of a row.
    ///
    /// # Errors
    /// The engine failed.
    fn get(&self, space: Space, row: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` rows whose name begins with `prefix`, in order, after the row `after`.
    ///
    /// # Errors
    /// The engine failed.
    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Applies all writes or none. Reads see them at once; a crash may still lose them.
    ///
    /// # Errors
    /// The engine failed.
    fn apply(&self, writes: &[Write]) -> Result<(), StoreError>;

    /// Whatever was applied before this call is on stable storage when it returns.
    ///
    /// # Errors
    /// The engine failed; what was applied since the last sync may or may not be there.
    fn sync(&self) -> Result<(), StoreError>;

    /// About how many rows.
    fn rows(&self, space: Space) -> u64;

    /// Bytes taken on disk.
    fn disk_bytes(&self) -> u64;

    /// How much still fits; `None` where nobody can tell.
    fn room(&self) -> Option<Room>;
}

#[cfg(test)]
mod tests {
    use super::{fjall::FjallStore, memory::MemoryStore, *};

    fn write(row: &'static str, value: Option<&'static str>) -> Write {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        Write { space: Space::Data, row: bytes(row), value: value.map(bytes) }
    }

    fn rows(store: &dyn Store, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        let after = after.map(str::as_bytes);
        let rows = store.scan(Space::Data, prefix.as_bytes(), after, limit).expect("it works");
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        rows.into_iter().map(|(row, value)| text(row) + "=" + &text(value)).collect()
    }

    /// What the writer relies on, for each store: a batch may name a row several times and the last word counts, because
    /// a group of writes becomes one batch; rows come in order, page by page, and spaces do not run into each other.
    fn fill(store: &dyn Store) {
        let first = [write("a", Some("1")), write("b", Some("1")), write("b/1", Some("2"))];
        store.apply(&first).expect("it works");
        let again = [
            write("a", Some("2")),
            write("a", Some("3")),
            write("b", None),
            write("b", Some("4")),
            write("c", Some("5")),
            write("c", None),
            Write { space: Space::Hints, ..write("d", Some("elsewhere")) },
        ];
        store.apply(&again).expect("it works");
        store.sync().expect("it works");
    }

    fn check(store: &dyn Store) {
        assert_eq!(rows(store, "", None, 9), ["a=3", "b=4", "b/1=2"]);
        assert_eq!(rows(store, "b", None, 9), ["b=4", "b/1=2"]);
        assert_eq!(rows(store, "b", Some("b"), 9), ["b/1=2"]);
        assert_eq!(rows(store, "", None, 2), ["a=3", "b=4"]);
        assert_eq!(store.get(Space::Data, b"a").expect("it works").as_deref(), Some(&b"3"[..]));
        assert_eq!(store.get(Space::Data, b"c").expect("it works"), None);
        assert_eq!(store.get(Space::Data, b"d").expect("it works"), None);
    }

    #[test]
    fn both_stores_behave_alike() {
        let memory = MemoryStore::new();
        fill(&memory);
        check(&memory);
        memory.crash(0);
        check(&memory);

        let temporary = tempfile::tempdir().expect("a directory");
        let disk = FjallStore::open(temporary.path()).expect("new");
        fill(&disk);
        check(&disk);
        drop(disk);
        check(&FjallStore::open(temporary.path()).expect("again"));
    }

    /// A real disk tells how much is free, as `df` would: not more than there is, and not nothing.
    #[test]
    fn a_real_disk_tells_its_room() {
        let temporary = tempfile::tempdir().expect("a directory");
        let disk = FjallStore::open(temporary.path()).expect("new");
        let room = disk.room().expect("the system tells");
        assert!(room.free_bytes > 0 && room.free_bytes <= room.total_bytes, "{room:?}");
    }
}
