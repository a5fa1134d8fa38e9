//! The store on a real disk: fjall, an LSM tree with a checksummed journal.
//!
//! Settings are fixed when a keyspace is created. Values above half a kibibyte live apart from the tree: half the bytes
//! written under load, a third less CPU. There is one keyspace per space, never one per partition: idle keyspaces keep
//! sealed journals alive.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use super::{Room, Space, Store, StoreError, Write};

/// The store of a node.
pub struct FjallStore {
    database: Database,
    spaces: [Keyspace; 5],
    path: PathBuf,
}

const CACHE_BYTES: u64 = 16 << 20; // the page cache behind it is as good and can be taken back
const MEMTABLE_BYTES: u64 = 16 << 20; // fewer, larger tables: less compaction beside the load
const SMALL_ROWS_MEMTABLE_BYTES: u64 = 1 << 20; // rows of a hundred bytes: in a large one every insertion misses the caches
const JOURNAL_BYTES_MAX: u64 = 256 << 20; // fjall panics below 64 MiB
const SEPARATE_FROM_BYTES: u32 = 512;

impl FjallStore {
    /// Opens or creates the database in a directory.
    ///
    /// # Errors
    /// It is damaged in a way fjall notices, or in use. What fjall does **not** notice (a journal without its tail) is
    /// found by comparing our own commit number with the durable mark.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let data = || {
            KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES).with_kv_separation(
                Some(KvSeparationOptions::default().separation_threshold(SEPARATE_FROM_BYTES)),
            )
        };
        let small_rows =
            || KeyspaceCreateOptions::default().max_memtable_size(SMALL_ROWS_MEMTABLE_BYTES);
        let spaces = [
            database.keyspace("data", data).map_err(failed)?,
            database.keyspace("hints", data).map_err(failed)?,
            database.keyspace("meta", KeyspaceCreateOptions::default).map_err(failed)?,
            database.keyspace("digests", small_rows).map_err(failed)?,
            database.keyspace("quarantine", KeyspaceCreateOptions::default).map_err(failed)?,
        ];
        Ok(FjallStore { database, spaces, path: path.into() })
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }
}

impl Store for FjallStore {
    fn get(&self, space: Space, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.space(space).get(row).map_err(failed)?.map(Bytes::from))
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let mut rows = Vec::new();
        for guard in self.space(space).range::<&[u8], _>((from, Bound::Unbounded)).take(limit) {
            let (row, value) = guard.into_inner().map_err(failed)?;
            if !row.starts_with(prefix) {
                break;
            }
            rows.push((Bytes::from(row), Bytes::from(value)));
        }
        Ok(rows)
    }

    fn apply(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        for write in writes {
            let space = self.space(write.space);
            match &write.value {
                Some(value) => batch.insert(space, write.row.clone(), value.clone()),
                None => batch.remove(space, write.row.clone()),
            }
        }
        batch.commit().map_err(failed)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncData).map_err(failed)
    }

    fn rows(&self, space: Space) -> u64 {
        self.space(space).approximate_len() as u64
    }

    fn disk_bytes(&self) -> u64 {
        blocks_under(&self.path)
    }

    fn room(&self) -> Option<Room> {
        let seen = rustix::fs::statvfs(&self.path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
        // not f_bfree: what only root may take is of no use to us
        Some(Room { free_bytes: bytes(seen.f_bavail), total_bytes: bytes(seen.f_blocks) })
    }
}

/// Bytes really taken by the files in a folder: the journal is laid out ahead, so its length says nothing. A file that
/// vanishes meanwhile counts as none.
fn blocks_under(folder: &Path) -> u64 {
    const BLOCK_BYTES: u64 = 512; // the unit of st_blocks, whatever the file system uses
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => blocks_under(&entry.path()),
            Ok(metadata) => metadata.blocks() * BLOCK_BYTES,
            Err(_) => 0,
        })
        .sum()
}

fn failed(error: fjall::Error) -> StoreError {
    StoreError(error.to_string())
}
