//! What a node keeps, and when it may say so.
//!
//! From the disk upwards: a [`Store`] is an ordered map with atomic batches and one `sync`; it has two implementations,
//! [`fjall::FjallStore`] on a real disk and [`memory::MemoryStore`], which can lose what was not synced. [`commit::Disk`]
//! gathers writes, applies and syncs them together and only then lets them be acknowledged. [`record`] is one key's row
//! with its checksum, [`rows`] how rows are named, [`directory`] what else lies in the data directory.

use bytes::Bytes;

pub mod commit;
pub mod directory;
pub mod fjall;
pub mod memory;
pub mod record;
pub mod rows;

/// Which of the ordered maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Records of keys.
    Data,
    /// States kept for others.
    Hints,
    /// The node's own: leases, starts, the view, the commit number.
    Meta,
}

impl Space {
    /// All of them.
    pub const ALL: [Space; 3] = [Space::Data, Space::Hints, Space::Meta];
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
}
