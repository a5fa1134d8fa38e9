//! A store as a power loss leaves it, damaged copies of it, and what is noticed when they are opened.

use std::{
    collections::BTreeMap,
    fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use atoll_antientropy::{Actor, Context, Event, State};
use atoll_node::storage::{
    Space, Store as _, Write, commit::Disk, fjall::FjallStore, mark::DurableMark, record::Record,
    rows,
};
use atoll_ring::{Partition, Token};
use atoll_wire::{Ack, BucketId};
use bytes::Bytes;
use tempfile::TempDir;

/// A folder with a store that holds acknowledged writes, and what they were.
pub struct Image {
    folder: TempDir,
    /// The newest value of each row.
    expected: BTreeMap<Bytes, Bytes>,
}

/// What came of opening a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Led {
    /// All that was acknowledged is there.
    Whole,
    /// The engine does not open it, or gives an error when it reads.
    EngineRefuses,
    /// Our commit number is not the one that was fsynced.
    LossNoticed,
    /// The checksum of a record or of the commit's row is wrong, or a digest is there without its record.
    RecordNoticed,
    /// Something acknowledged is gone or old, and nobody has noticed.
    Silent,
}

impl fmt::Display for Led {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Led::Whole => "nothing is missing",
            Led::EngineRefuses => "the engine refuses",
            Led::LossNoticed => "the commit number tells",
            Led::RecordNoticed => "a checksum tells",
            Led::Silent => "SILENT LOSS",
        })
    }
}

/// A folder in memory where there is such a place: what is synced there is not the point here, and thousands of syncs are.
fn scratch() -> TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// The row of a key.
pub fn row(key: usize) -> Bytes {
    rows::data(Partition(7), Token(key as u64), BucketId([1; 16]), format!("key{key}").as_bytes())
}

impl Image {
    /// One commit per write: this many, of these keys in turn, each with a value of so many bytes; each acknowledged as
    /// fsynced before the next. Left as it lies at that moment, or after the engine was closed in order.
    pub fn of(writes: usize, keys: usize, value_bytes: usize, closed: bool) -> Image {
        let folder = scratch();
        let live = scratch();
        let store = Arc::new(FjallStore::open(&live.path().join("store")).expect("new"));
        let mark = mark(live.path());
        let (disk, writer) = Disk::on_thread(store.clone(), Some(mark)).expect("new");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut expected = BTreeMap::new();
        for number in 0..writes {
            let row = row(number % keys);
            let mut value = number.to_be_bytes().to_vec();
            value.resize(value.len() + value_bytes, number as u8);
            let digest = Bytes::copy_from_slice(&value[..8]);
            let event = Event::alone(Actor::new(1, 0), number as u64 + 1);
            let state = State::put(&Context::new(), event, value.into());
            let value = Record::encode(&row, None, &state.encode());
            let write = |space, value| Write { space, row: row.clone(), value: Some(value) };
            let both = vec![write(Space::Data, value.clone()), write(Space::Digests, digest)];
            runtime.block_on(disk.write(both, Ack::Durable).done()).expect("a good disk");
            expected.insert(row, value);
        }
        if closed {
            disk.close();
            writer.join().expect("no panic");
            drop(disk);
            drop(store);
            copy(live.path(), folder.path());
        } else {
            copy(live.path(), folder.path());
        }
        Image { folder, expected }
    }

    /// The files below the store whose path contains this word, in order, with their lengths.
    pub fn files(&self, word: &str) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        collect(&self.folder.path().join("store"), &mut files);
        files.sort();
        let relative =
            |path: &Path| path.strip_prefix(self.folder.path()).expect("below").to_owned();
        let files = files.into_iter().map(|path| (relative(&path), length(&path)));
        files
            .filter(|(path, length)| path.to_string_lossy().contains(word) && *length > 0)
            .collect()
    }

    /// The bytes of a file.
    pub fn bytes(&self, file: &Path) -> Vec<u8> {
        fs::read(self.folder.path().join(file)).expect("ours")
    }

    /// Writes a file anew, for all copies to come.
    pub fn set(&self, file: &Path, bytes: &[u8]) {
        fs::write(self.folder.path().join(file), bytes).expect("ours");
    }

    /// What comes of a store that has these bytes in the place of this file.
    pub fn with(&self, file: &Path, bytes: &[u8]) -> Led {
        let copied = scratch();
        copy(self.folder.path(), copied.path());
        fs::write(copied.path().join(file), bytes).expect("ours");
        // a debug build of the engine panics where a release build goes on; either way the node would not serve
        catch_unwind(AssertUnwindSafe(|| self.open(copied.path()))).unwrap_or(Led::EngineRefuses)
    }

    fn open(&self, folder: &Path) -> Led {
        let Ok(store) = FjallStore::open(&folder.join("store")) else { return Led::EngineRefuses };
        let store = Arc::new(store);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _entered = runtime.enter();
        let Ok((disk, _writer)) =
            Disk::on_task(store.clone(), std::time::Duration::ZERO, Some(mark(folder)))
        else {
            return Led::RecordNoticed; // the row with the commit's number, as every row, has a checksum
        };
        if disk.lost().is_some() {
            return Led::LossNoticed;
        }
        let mut led = Led::Whole;
        for (row, value) in &self.expected {
            let Ok(found) = store.get(Space::Data, row) else { return Led::EngineRefuses };
            let Ok(digest) = store.get(Space::Digests, row) else { return Led::EngineRefuses };
            led = led.max(match found {
                Some(found) if found == *value => Led::Whole,
                Some(found) if Record::decode(row, &found).is_err() => Led::RecordNoticed,
                None if digest.is_some() => Led::RecordNoticed,
                // an old version is noticed if its digest is not as old
                Some(found) => {
                    let state = Record::decode(row, &found).expect("decoded").state;
                    let (_, value) = state.values().next().expect("a value was put");
                    let fits = digest.is_some_and(|digest| value.starts_with(&digest));
                    if fits { Led::Silent } else { Led::RecordNoticed }
                }
                None => Led::Silent,
            });
        }
        led
    }
}

fn mark(folder: &Path) -> DurableMark {
    let mut options = fs::OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).open(folder.join("mark"));
    DurableMark::in_file(file.expect("a file"))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("there").len()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&to).expect("ours");
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("ours");
        }
    }
}

/// Prints how often each kind of damage led to what.
pub fn table(title: &str, led: &BTreeMap<(String, Led), usize>) {
    println!("\n{title}");
    for ((damage, led), count) in led {
        println!("  {damage:<40} {count:>5} x  {led}");
    }
}
