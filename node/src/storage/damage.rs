//! Damage that is done on purpose to the disk of a node that does not run.
//!
//! Two kinds, each as a disk may bring it. [`records`] turns bytes over inside of records: the engine finds everything in
//! order, and only the checksum of the record tells ([`super::record`]). [`cut_journal`] takes away the end of the engine's
//! journal: the engine opens what is left without a word, and only the durable mark tells ([`super::mark`]).
//!
//! Nothing is done while somebody uses the directory, and what is done is reported: a fault that could not be brought about
//! is an error.

use std::{
    collections::BinaryHeap,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use atoll_ring::Partition;
use atoll_wire::BucketId;
use bytes::Bytes;

use super::{Space, Store as _, StoreError, Write, fjall::FjallStore, record::Record, rows};

/// A record that is damaged now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRecord {
    /// Where its key lies.
    pub partition: Partition,
    /// The key's bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// Which byte was turned over.
    pub byte_index: usize,
    /// How many there are.
    pub bytes: usize,
}

/// A journal that has lost its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutJournal {
    /// The file.
    pub path: PathBuf,
    /// Bytes it held.
    pub bytes_before: u64,
    /// Bytes it holds now.
    pub bytes_after: u64,
}

/// Why nothing was damaged.
#[derive(Debug, thiserror::Error)]
pub enum DamageError {
    /// There is nothing to damage.
    #[error("{} holds no data yet", data.display())]
    NoStore {
        /// The data directory.
        data: PathBuf,
    },
    /// The node runs, or something else has it.
    #[error("another process uses the data directory {}", data.display())]
    InUse {
        /// The data directory.
        data: PathBuf,
    },
    /// Fewer records than asked for.
    #[error("{wanted} records to damage, and {} holds {records} whole ones", data.display())]
    TooFew {
        /// The data directory.
        data: PathBuf,
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        records: usize,
    },
    /// Everything the journal held has moved on to tables.
    #[error("the journal in {} is empty", data.display())]
    EmptyJournal {
        /// The data directory.
        data: PathBuf,
    },
    /// The system refused.
    #[error("cannot damage {}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Turns over one byte in each of so many records. The seed decides which; the same seed on the same records chooses the same.
/// Records that are damaged already are left alone: the same byte turned over twice would be whole again.
///
/// # Errors
/// See [`DamageError`].
pub fn records(data: &Path, count: usize, seed: u64) -> Result<Vec<DamagedRecord>, DamageError> {
    let _lock = lock(data)?;
    let store = FjallStore::open(&data.join(STORE))?;
    let chosen = choose(&store, count, seed)?;
    if chosen.len() < count {
        let records = chosen.len();
        return Err(DamageError::TooFew { data: data.to_owned(), wanted: count, records });
    }
    let mut writes = Vec::new();
    let mut damaged = Vec::new();
    for Candidate { rank, row } in chosen {
        let value = store.get(Space::Data, &row)?.expect("nobody else uses it");
        let byte_index = rank as usize % value.len();
        let mut bytes = value.to_vec();
        bytes[byte_index] ^= 0x55;
        let value = Some(Bytes::from(bytes));
        let partition = rows::partition_of_data(&row).expect("the name of a record");
        let (bucket, key) = rows::bucket_and_key(&row).expect("the name of a record");
        let bytes = value.as_ref().map_or(0, Bytes::len);
        damaged.push(DamagedRecord { partition, bucket, key, byte_index, bytes });
        writes.push(Write { space: Space::Data, row, value });
    }
    // past the writer of `commit`: to the node this is no commit of its own
    store.apply(&writes)?;
    store.sync()?;
    Ok(damaged)
}

/// Cuts so many bytes off the end of the engine's journal; more than it holds is all it holds.
///
/// # Errors
/// See [`DamageError`].
pub fn cut_journal(data: &Path, bytes: u64) -> Result<CutJournal, DamageError> {
    let _lock = lock(data)?;
    let path = newest_journal(&data.join(STORE))?
        .ok_or_else(|| DamageError::EmptyJournal { data: data.to_owned() })?;
    let io = |source| DamageError::Io { path: path.clone(), source };
    let file = File::options().read(true).write(true).open(&path).map_err(io)?;
    let bytes_before = used(&file).map_err(io)?;
    if bytes_before == 0 {
        return Err(DamageError::EmptyJournal { data: data.to_owned() });
    }
    let bytes_after = bytes_before.saturating_sub(bytes);
    file.set_len(bytes_after).and_then(|()| file.sync_all()).map_err(io)?;
    Ok(CutJournal { path, bytes_before, bytes_after })
}

/// The row of a record that may be chosen. Those of lowest rank are.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u64,
    row: Bytes,
}

/// The whole records of lowest rank, in the order of their ranks: one pass, and memory for as many as are wanted.
fn choose(store: &FjallStore, count: usize, seed: u64) -> Result<Vec<Candidate>, StoreError> {
    const PAGE_ROWS: usize = 1024;
    let mut chosen: BinaryHeap<Candidate> = BinaryHeap::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = store.scan(Space::Data, &[], after.as_deref(), PAGE_ROWS)?;
        let Some((last, _)) = page.last() else { return Ok(chosen.into_sorted_vec()) };
        after = Some(last.clone());
        for (row, value) in page {
            if Record::decode(&row, &value).is_err() {
                continue;
            }
            chosen.push(Candidate { rank: rank(seed, &row), row });
            if chosen.len() > count {
                chosen.pop();
            }
        }
    }
}

fn rank(seed: u64, row: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes()).update(row);
    u64::from_be_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// The right to use a data directory, and that there is something in it.
fn lock(data: &Path) -> Result<File, DamageError> {
    if fs::read_dir(data.join(STORE)).map_or(true, |mut entries| entries.next().is_none()) {
        return Err(DamageError::NoStore { data: data.to_owned() });
    }
    let path = data.join("lock");
    let io = |source| DamageError::Io { path: path.clone(), source };
    let lock = File::create(&path).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DamageError::InUse { data: data.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// The journal that is written to: the engine numbers them.
fn newest_journal(store: &Path) -> Result<Option<PathBuf>, DamageError> {
    let io = |source| DamageError::Io { path: store.to_owned(), source };
    let mut newest = None;
    for entry in fs::read_dir(store).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| is_journal) {
            newest = newest.max(Some((number, path)));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Bytes up to the last one that is not zero: a journal is laid out ahead.
fn used(file: &File) -> io::Result<u64> {
    const PIECE_BYTES: u64 = 64 << 10;
    let mut end = file.metadata()?.len();
    while end > 0 {
        let begin = end.saturating_sub(PIECE_BYTES);
        let mut piece = vec![0; (end - begin) as usize];
        file.read_exact_at(&mut piece, begin)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            return Ok(begin + last as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

const STORE: &str = "store";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use atoll_antientropy::{Actor, Context, Event, State};
    use atoll_ring::Token;
    use atoll_wire::Ack;

    use super::*;
    use crate::storage::{commit::Disk, mark::DurableMark};

    /// A data directory with this many records, each in a commit of its own, as a kill leaves it.
    fn directory(records: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a directory");
        let store = Arc::new(FjallStore::open(&folder.path().join(STORE)).expect("new"));
        let (disk, writer) =
            Disk::on_thread(store.clone(), Some(mark(folder.path()))).expect("new");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for number in 0..records {
            let key = format!("key{number}");
            let row = rows::data(Partition(3), Token(number), BucketId([1; 16]), key.as_bytes());
            let value = Bytes::from(vec![7; 900 * (number as usize % 3)]);
            let event = Event::alone(Actor::new(1, 0), number + 1);
            let state = State::put(&Context::new(), event, value);
            let value = Some(Record::encode(&row, None, &state.encode()));
            let write = vec![Write { space: Space::Data, row, value }];
            runtime.block_on(disk.write(write, Ack::Durable).done()).expect("a good disk");
        }
        disk.close();
        writer.join().expect("no panic");
        folder
    }

    fn mark(folder: &Path) -> DurableMark {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        DurableMark::in_file(options.open(folder.join("mark")).expect("a file"))
    }

    /// How many records do not decode.
    fn damaged(folder: &Path) -> usize {
        let store = FjallStore::open(&folder.join(STORE)).expect("whole to the engine");
        let rows = store.scan(Space::Data, &[], None, usize::MAX).expect("it works");
        rows.iter().filter(|(row, value)| Record::decode(row, value).is_err()).count()
    }

    /// So many records as asked for are damaged, the engine notices nothing, nothing counts as lost, and damage is never
    /// undone by more of it.
    #[test]
    fn as_many_records_as_asked_for() {
        let folder = directory(40);
        let seven = records(folder.path(), 7, 1).expect("enough");
        assert_eq!((seven.len(), damaged(folder.path())), (7, 7));
        assert!(seven.iter().all(|one| one.key.starts_with(b"key") && one.byte_index < one.bytes));
        let others = records(folder.path(), 7, 1).expect("enough");
        assert!(others.iter().all(|one| !seven.contains(one)), "{others:?}");
        assert_eq!(damaged(folder.path()), 14);
        let error = records(folder.path(), 27, 1).expect_err("26 are left");
        assert!(matches!(error, DamageError::TooFew { wanted: 27, records: 26, .. }), "{error}");
        assert_eq!(damaged(folder.path()), 14);

        let store = Arc::new(FjallStore::open(&folder.path().join(STORE)).expect("again"));
        let (disk, writer) = Disk::on_thread(store, Some(mark(folder.path()))).expect("whole");
        assert_eq!(disk.lost(), None);
        disk.close();
        writer.join().expect("no panic");
    }

    /// The seed decides which, whatever else is there.
    #[test]
    fn a_seed_chooses_the_same() {
        let (one, other) = (directory(30), directory(30));
        let choose =
            |folder: &tempfile::TempDir, seed| records(folder.path(), 3, seed).expect("30");
        let first = choose(&one, 5);
        assert_eq!(first, choose(&other, 5));
        assert_ne!(first, choose(&one, 6));
    }

    /// Whatever is cut off the journal: the mark tells that something is lost.
    #[test]
    fn a_cut_journal_is_behind_the_mark() {
        for bytes in [1, 4096, u64::MAX] {
            let folder = directory(60);
            let cut = cut_journal(folder.path(), bytes).expect("it holds something");
            assert_eq!(cut.bytes_after, cut.bytes_before.saturating_sub(bytes));
            let store =
                Arc::new(FjallStore::open(&folder.path().join(STORE)).expect("a shorter one"));
            let (disk, writer) =
                Disk::on_thread(store, Some(mark(folder.path()))).expect("it opens");
            let lost = disk.lost().expect("noticed");
            assert!(lost.contains("lost its newest commits"), "{lost}");
            disk.close();
            writer.join().expect("no panic");
        }
    }

    /// A directory in use is left alone, and so is one without data.
    #[test]
    fn nothing_is_done_behind_a_node() {
        let folder = directory(3);
        let held = File::create(folder.path().join("lock")).expect("ours");
        held.try_lock().expect("free");
        let (one, other) = (records(folder.path(), 1, 1), cut_journal(folder.path(), 1));
        assert!(matches!(one, Err(DamageError::InUse { .. })), "{one:?}");
        assert!(matches!(other, Err(DamageError::InUse { .. })), "{other:?}");
        drop(held);
        assert_eq!(damaged(folder.path()), 0);
        let empty = tempfile::tempdir().expect("a directory");
        assert!(matches!(records(empty.path(), 1, 1), Err(DamageError::NoStore { .. })));
        assert!(matches!(cut_journal(empty.path(), 1), Err(DamageError::NoStore { .. })));
    }
}
