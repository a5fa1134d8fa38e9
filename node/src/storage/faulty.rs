//! A store that is broken on purpose.
//!
//! A [`FaultyStore`] stands in front of a real store and passes everything on until [`Faults`] say otherwise. Whoever
//! commands holds the `Faults`: a node that was started with `--allow-faults`, or a test. They may change at any time and
//! from any thread.
//!
//! **What counts.** Writes ([`Store::apply`]) and syncs are counted from 1, beginning with this start. A commit is one
//! write and then one sync, however many requests it carries, so the N-th of either belongs to the N-th commit. The first
//! commit of a node is its start's own (`begin` in `node.rs`): a node whose first write or sync fails never serves anybody.
//!
//! **What happens.** A write that fails on command leaves nothing behind; what was applied before a sync that fails stays
//! visible and may or may not outlive the process. From then on the disk stays broken: every write and sync fails. Reads
//! go on.
//!
//! **What is not simulated.** fjall has threads of its own that flush and merge tables. Their errors arise inside the
//! engine, below this seam; it reports them with a later write or sync, which is where we would see them.

use std::{
    collections::BTreeSet,
    fmt,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

pub use atoll_wire::faults::Step;
use bytes::Bytes;

use super::{Room, Space, Store, StoreError, Write};

/// A store with [`Faults`].
pub struct FaultyStore {
    store: Arc<dyn Store>,
    faults: Arc<Faults>,
}

/// What shall go wrong, and how often it could have.
#[derive(Debug, Default)]
pub struct Faults {
    writes: Counted,
    syncs: Counted,
    /// The error that broke the disk.
    broken: OnceLock<StoreError>,
    free_bytes: Mutex<Option<u64>>,
    held: Mutex<BTreeSet<Step>>,
}

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// [`Store::apply`].
    Write,
    /// [`Store::sync`].
    Sync,
}

impl Faults {
    /// None.
    pub fn new() -> Arc<Faults> {
        Arc::default()
    }

    /// The deed of this number, counted from 1, fails, and so does everything after it.
    pub fn fail(&self, deed: Deed, number: NonZeroU64) {
        self.counted(deed).fails_at.store(number.get(), Ordering::Relaxed);
    }

    /// The next one fails.
    pub fn fail_next(&self, deed: Deed) {
        let next = self.count(deed).saturating_add(1);
        self.fail(deed, NonZeroU64::new(next).expect("one more than something"));
    }

    /// How often it was tried.
    pub fn count(&self, deed: Deed) -> u64 {
        self.counted(deed).tried.load(Ordering::Relaxed)
    }

    /// The error that broke the disk, if one has.
    pub fn broken(&self) -> Option<StoreError> {
        self.broken.get().cloned()
    }

    /// So many bytes are free, whatever the file system says; `None`: what it says.
    pub fn pretend_free(&self, bytes: Option<u64>) {
        *self.free_bytes.lock().expect("no panic holds it") = bytes;
    }

    /// These steps wait until told otherwise.
    pub fn hold(&self, steps: impl IntoIterator<Item = Step>) {
        *self.held.lock().expect("no panic holds it") = steps.into_iter().collect();
    }

    /// Whether a step waits.
    pub fn holds(&self, step: Step) -> bool {
        self.held.lock().expect("no panic holds it").contains(&step)
    }

    /// Counts one more try of a deed, and fails it if that was commanded or the disk is broken.
    fn meet(&self, deed: Deed) -> Result<(), StoreError> {
        let counted = self.counted(deed);
        let number = counted.tried.fetch_add(1, Ordering::Relaxed) + 1;
        if number == counted.fails_at.load(Ordering::Relaxed) {
            let _ = self.broken.set(StoreError(format!("{deed} {number} failed, on command")));
        }
        self.broken.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn counted(&self, deed: Deed) -> &Counted {
        match deed {
            Deed::Write => &self.writes,
            Deed::Sync => &self.syncs,
        }
    }
}

#[derive(Debug, Default)]
struct Counted {
    tried: AtomicU64,
    /// 0: never.
    fails_at: AtomicU64,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deed::Write => "write",
            Deed::Sync => "fsync",
        })
    }
}

impl FaultyStore {
    /// A store that obeys these faults.
    pub fn new(store: Arc<dyn Store>, faults: Arc<Faults>) -> Self {
        FaultyStore { store, faults }
    }
}

impl Store for FaultyStore {
    fn get(&self, space: Space, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(space, row)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.scan(space, prefix, after, limit)
    }

    fn apply(&self, writes: &[Write]) -> Result<(), StoreError> {
        self.faults.meet(Deed::Write)?;
        self.store.apply(writes)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.faults.meet(Deed::Sync)?;
        self.store.sync()
    }

    fn rows(&self, space: Space) -> u64 {
        self.store.rows(space)
    }

    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }

    fn room(&self) -> Option<Room> {
        let room = self.store.room()?;
        let pretended = *self.faults.free_bytes.lock().expect("no panic holds it");
        Some(Room { free_bytes: pretended.unwrap_or(room.free_bytes), ..room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStore;

    fn row(name: &'static str) -> [Write; 1] {
        [Write {
            space: Space::Data,
            row: Bytes::from_static(name.as_bytes()),
            value: Some(Bytes::from_static(b"v")),
        }]
    }

    fn number(number: u64) -> NonZeroU64 {
        NonZeroU64::new(number).expect("from 1")
    }

    /// For each n: all before the n-th work, the n-th and all after it fail, with the same words; a write that failed has
    /// left nothing, and reads go on.
    #[test]
    fn the_nth_fails_and_the_disk_stays_broken() {
        for n in 1..=5 {
            for deed in [Deed::Write, Deed::Sync] {
                let faults = Faults::new();
                let store = FaultyStore::new(Arc::new(MemoryStore::new()), faults.clone());
                faults.fail(deed, number(n));
                for _ in 1..n {
                    store.apply(&row("before")).and_then(|()| store.sync()).expect("not yet");
                }
                assert_eq!(faults.broken(), None);
                let tried = store.apply(&row("n-th")).and_then(|()| store.sync());
                let error = tried.expect_err("commanded");
                assert_eq!(error, StoreError(format!("{deed} {n} failed, on command")));
                assert_eq!(store.apply(&row("later")), Err(error.clone()));
                assert_eq!(store.sync(), Err(error));
                let holds = |name: &str| {
                    store.get(Space::Data, name.as_bytes()).expect("reads go on").is_some()
                };
                assert_eq!((holds("before"), holds("later")), (n > 1, false));
                assert_eq!(holds("n-th"), deed == Deed::Sync, "{deed} {n}");
            }
        }
    }

    /// Faults may be commanded while the store is in use.
    #[test]
    fn the_next_one_fails() {
        let faults = Faults::new();
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), faults.clone());
        store.apply(&row("a")).and_then(|()| store.sync()).expect("whole");
        faults.fail_next(Deed::Sync);
        store.apply(&row("b")).expect("whole");
        assert_eq!(store.sync(), Err(StoreError("fsync 2 failed, on command".into())));
    }
}
