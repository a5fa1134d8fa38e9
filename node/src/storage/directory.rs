//! The data directory: whose it is, who uses it, and how far it was fsynced.
//!
//! ```text
//! DATA/identity       TOML: format number, cluster, node; written when the first start has succeeded
//! DATA/lock           held by the process that uses the directory
//! DATA/durable-mark   the last commit number that was fsynced, kept outside the engine's journal
//! DATA/faults.toml    what shall go wrong, for a node that was started with --allow-faults; see `faulty`
//! DATA/store/         the engine's
//! ```
//!
//! The mark is why a journal that lost its tail is noticed: the engine opens it without a word, but its last commit
//! number is then lower than the mark. It is written after each sync and not synced itself, so it may lag, never lead.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use atoll_ring::{ClusterId, NodeId};
use atoll_transport::small_file::{self, SETTINGS_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// What this version writes and reads.
pub const FORMAT: u32 = 1;

/// An opened data directory. Dropping it lets go of the lock.
pub struct Directory {
    path: PathBuf,
    ours: OnDisk,
    _lock: File,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    format: u32,
    cluster: ClusterId,
    node: NodeId,
}

/// Why a data directory cannot be used. Each says the path and the mend.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system refused.
    #[error("cannot use the data directory {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "another process uses the data directory {path}; stop it first, or give this node its own directory"
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// There is nothing, and nobody said that this is right.
    #[error(
        "the data directory {path} is empty. If this node has never run, start it once with --first-start; if it has, its \
         data is gone: look for the right path or disk first"
    )]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// Something else is in there.
    #[error("{path} holds files but no Atoll data; choose an empty directory")]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// Written by another version.
    #[error(
        "{path} has data format {found}, this program reads {FORMAT}; start it with the program that wrote it"
    )]
    Format {
        /// The path.
        path: PathBuf,
        /// The number found.
        found: String,
    },
    /// Another node's.
    #[error(
        "{path} belongs to node {node} of cluster {cluster}; correct `data` or `node` in the configuration"
    )]
    OtherNode {
        /// The path.
        path: PathBuf,
        /// Whose it is.
        node: NodeId,
        /// Of which cluster.
        cluster: ClusterId,
    },
}

impl Directory {
    /// Opens a data directory, locks it, and makes sure it is this node's.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open(
        path: &Path,
        cluster: ClusterId,
        node: NodeId,
        first_start: bool,
    ) -> Result<Self, DirectoryError> {
        let io = |source| DirectoryError::Io { path: path.into(), source };
        let empty = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(io(error)),
        };
        let identity = path.join("identity");
        let known = identity.exists();
        if !known {
            if !empty && has_files_of_others(path) {
                return Err(DirectoryError::Foreign { path: path.into() });
            }
            if !first_start {
                return Err(DirectoryError::Empty { path: path.into() });
            }
        }
        fs::create_dir_all(path).map_err(io)?;
        let lock = File::create(path.join("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::InUse { path: path.into() });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let ours = OnDisk { format: FORMAT, cluster, node };
        if known {
            let text = small_file::read_text(&identity, SETTINGS_BYTES_MAX).map_err(io)?;
            check(path, &text, &ours)?;
        } else {
            set_unfinished_aside(path).map_err(io)?;
        }
        Ok(Directory { path: path.into(), ours, _lock: lock })
    }

    /// Makes the directory this node's, for good: from now on it is never taken for empty. To be called when the engine
    /// has its first commit on stable storage and before anybody is served.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn settle(&self) -> Result<(), DirectoryError> {
        let identity = self.path.join("identity");
        if identity.exists() {
            return Ok(());
        }
        let text = toml::to_string(&self.ours).expect("plain data");
        write_durably(&identity, text.as_bytes())
            .map_err(|source| DirectoryError::Io { path: identity, source })
    }

    /// Where the engine keeps its files.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where a node that may be broken on purpose looks for what shall go wrong.
    pub fn faults(&self) -> PathBuf {
        self.path.join("faults.toml")
    }

    /// The mark.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn mark(&self) -> Result<DurableMark, DirectoryError> {
        let path = self.path.join("durable-mark");
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map(|file| DurableMark { file })
            .map_err(|source| DirectoryError::Io { path, source })
    }
}

/// What a first start leaves that was cut short; anything else is somebody's.
const OF_A_FIRST_START: [&str; 6] =
    ["lock", "identity.new", "durable-mark", "store", "store.unfinished", "faults.toml"];

fn has_files_of_others(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| !OF_A_FIRST_START.iter().any(|ours| entry.file_name() == *ours))
}

/// A first start that was cut short has served nobody, but may have left a store the engine cannot open. It is set aside
/// rather than deleted, in case somebody has lost an identity file and asks for a first start by mistake.
fn set_unfinished_aside(path: &Path) -> io::Result<()> {
    let (store, aside) = (path.join("store"), path.join("store.unfinished"));
    if store.exists() {
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        fs::rename(&store, &aside)?;
    }
    match fs::remove_file(path.join("durable-mark")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn check(path: &Path, text: &str, ours: &OnDisk) -> Result<(), DirectoryError> {
    let malformed = |found: String| DirectoryError::Format { path: path.into(), found };
    let table: toml::Table = text.parse().map_err(|_| malformed("unreadable".into()))?;
    match table.get("format").and_then(toml::Value::as_integer) {
        Some(found) if found == i64::from(FORMAT) => {}
        Some(found) => return Err(malformed(found.to_string())),
        None => return Err(malformed("unreadable".into())),
    }
    let found: OnDisk = table.try_into().map_err(|_| malformed("unreadable".into()))?;
    if found != *ours {
        return Err(DirectoryError::OtherNode {
            path: path.into(),
            node: found.node,
            cluster: found.cluster,
        });
    }
    Ok(())
}

/// The file appears whole or not at all, and is still there after a power loss.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("new");
    let mut file = File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The last commit number that was fsynced, kept outside the engine's journal.
pub struct DurableMark {
    file: File,
}

impl DurableMark {
    /// The number, or 0 if none was ever written whole.
    pub fn read(&self) -> u64 {
        let mut bytes = [0; 16];
        if self.file.read_exact_at(&mut bytes, 0).is_err() {
            return 0;
        }
        let (number, check) = bytes.split_at(8);
        if check != &blake3::hash(number).as_bytes()[..8] {
            return 0;
        }
        u64::from_be_bytes(number.try_into().expect("eight bytes"))
    }

    /// Remembers a number. Failing to do so is no loss: the mark then lags, as it may.
    pub fn set(&self, sequence: u64) {
        let number = sequence.to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&blake3::hash(&number).as_bytes()[..8]);
        let _ = self.file.write_all_at(&bytes, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, node: u32, first: bool) -> Result<Directory, DirectoryError> {
        let directory = Directory::open(path, ClusterId([1; 16]), NodeId(node), first)?;
        directory.settle()?;
        Ok(directory)
    }

    /// A first start that ended anywhere before it was settled can be repeated, and what it left is set aside.
    #[test]
    fn a_first_start_that_was_cut_short_can_be_repeated() {
        let temporary = tempfile::tempdir().expect("a directory");
        let path = temporary.path();
        let cut_short = Directory::open(path, ClusterId([1; 16]), NodeId(1), true).expect("first");
        fs::create_dir(cut_short.store()).expect("ours");
        fs::write(cut_short.store().join("half"), "made").expect("ours");
        fs::write(path.join("identity.new"), "for").expect("ours");
        cut_short.mark().expect("ours").set(5);
        drop(cut_short);
        assert!(matches!(open(path, 1, false), Err(DirectoryError::Empty { .. })));
        let again = open(path, 1, true).expect("again");
        assert!(!again.store().exists() && path.join("store.unfinished/half").exists());
        assert_eq!(again.mark().expect("ours").read(), 0);
        drop(again);
        drop(open(path, 1, false).expect("settled"));
    }

    /// An empty directory needs the word that it may be empty; from then on it never does.
    #[test]
    fn an_empty_directory_is_accepted_once() {
        let temporary = tempfile::tempdir().expect("a directory");
        let path = temporary.path().join("data");
        assert!(matches!(open(&path, 1, false), Err(DirectoryError::Empty { .. })));
        drop(open(&path, 1, true).expect("first"));
        drop(open(&path, 1, false).expect("later"));
        drop(open(&path, 1, true).expect("a first start that was repeated"));
    }

    #[test]
    fn two_processes_cannot_share_a_directory() {
        let temporary = tempfile::tempdir().expect("a directory");
        let held = open(temporary.path(), 1, true).expect("first");
        assert!(matches!(open(temporary.path(), 1, false), Err(DirectoryError::InUse { .. })));
        drop(held);
        open(temporary.path(), 1, false).expect("free again");
    }

    #[test]
    fn another_format_node_or_content_is_refused() {
        let temporary = tempfile::tempdir().expect("a directory");
        let path = temporary.path();
        drop(open(path, 1, true).expect("first"));
        assert!(matches!(open(path, 2, false), Err(DirectoryError::OtherNode { .. })));
        let text = fs::read_to_string(path.join("identity")).expect("there");
        fs::write(path.join("identity"), text.replace("format = 1", "format = 2")).expect("write");
        let Err(error) = open(path, 1, false) else { panic!("format 2 was accepted") };
        assert!(error.to_string().contains("data format 2"), "{error}");

        let foreign = tempfile::tempdir().expect("a directory");
        fs::write(foreign.path().join("thesis.txt"), "mine").expect("write");
        assert!(matches!(open(foreign.path(), 1, true), Err(DirectoryError::Foreign { .. })));
        assert!(matches!(open(foreign.path(), 1, false), Err(DirectoryError::Foreign { .. })));
    }

    #[test]
    fn a_torn_mark_counts_as_none() {
        let temporary = tempfile::tempdir().expect("a directory");
        let directory = open(temporary.path(), 1, true).expect("first");
        let mark = directory.mark().expect("a mark");
        assert_eq!(mark.read(), 0);
        mark.set(77);
        assert_eq!(directory.mark().expect("again").read(), 77);
        mark.file.write_all_at(&[9], 3).expect("write");
        assert_eq!(mark.read(), 0);
    }
}
