//! The data directory: whose it is, where it lies, who uses it, and how far it was fsynced.
//!
//! ```text
//! DATA/identity       TOML: format number, cluster, node, and the place where the directory lies
//! DATA/unsettled      from the moment an empty directory is taken until it has an identity
//! DATA/lock           held by the process that uses the directory
//! DATA/durable-mark   the last commit that was fsynced, kept outside the engine's journal; see `mark`
//! DATA/faults.toml    what shall go wrong, for a node that was started with --allow-faults; see `faults`
//! DATA/store/         the engine's
//! ```
//!
//! A directory that is empty, or lies elsewhere than it did, is no reason to refuse: [`Directory::lost`] says what is
//! wrong, and the node takes a new incarnation before it serves anybody. From then on the store remembers that it must.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use atoll_ring::{ClusterId, NodeId};
use atoll_transport::small_file::{self, SETTINGS_BYTES_MAX};
use serde::{Deserialize, Serialize};

use super::mark::DurableMark;

/// What this version writes and reads.
pub const FORMAT: u32 = 1;

/// An opened data directory. Dropping it lets go of the lock.
pub struct Directory {
    path: PathBuf,
    ours: OnDisk,
    before: Before,
    _lock: File,
}

/// What a directory was before it was opened.
enum Before {
    /// Nothing, and somebody says that this is right.
    New,
    /// Nothing.
    Empty,
    /// This node's, and the engine's files are gone.
    NoStore,
    /// This node's, at that place.
    Elsewhere(Place),
    /// As it should be.
    Whole,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    format: u32,
    cluster: ClusterId,
    node: NodeId,
    place: Place,
}

/// Where a directory lies. A copy lies elsewhere, and so does what was restored from one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// For people; a directory may be moved.
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Empty where the system has none.
    machine: String,
}

impl Place {
    fn of(path: &Path) -> io::Result<Place> {
        let about = fs::metadata(path)?;
        let machine = small_file::read_text(Path::new(MACHINE_ID), SETTINGS_BYTES_MAX);
        Ok(Place {
            path: fs::canonicalize(path)?,
            device: about.dev(),
            inode: about.ino(),
            machine: machine.map(|id| id.trim().to_owned()).unwrap_or_default(),
        })
    }

    fn is(&self, other: &Place) -> bool {
        (self.device, self.inode, &self.machine) == (other.device, other.inode, &other.machine)
    }
}

/// Where Linux keeps the name of the machine.
const MACHINE_ID: &str = "/etc/machine-id";

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
        if !known && !empty && has_files_of_others(path) {
            return Err(DirectoryError::Foreign { path: path.into() });
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
        let ours = OnDisk { format: FORMAT, cluster, node, place: Place::of(path).map_err(io)? };
        let before = if known {
            let text = small_file::read_text(&identity, SETTINGS_BYTES_MAX).map_err(io)?;
            let found = check(path, &text, &ours)?;
            match is_empty(&path.join("store")) {
                _ if !found.place.is(&ours.place) => Before::Elsewhere(found.place),
                true => Before::NoStore,
                false => Before::Whole,
            }
        } else {
            begin_anew(path).map_err(io)?;
            if first_start { Before::New } else { Before::Empty }
        };
        Ok(Directory { path: path.into(), ours, before, _lock: lock })
    }

    /// Whether the directory was empty, and was said to be.
    pub fn is_new(&self) -> bool {
        matches!(self.before, Before::New)
    }

    /// What has been lost, as far as one sees from here.
    pub fn lost(&self) -> Option<String> {
        let path = self.path.display();
        match &self.before {
            Before::New | Before::Whole => None,
            Before::Empty => Some(format!("the data directory {path} is empty")),
            Before::NoStore => Some(format!("{path} has no data in `store`")),
            Before::Elsewhere(place) => {
                Some(format!("{path} was copied or restored from {}", place.path.display()))
            }
        }
    }

    /// Where the directory lay when it was last in use, if that is another place.
    pub fn copied_from(&self) -> Option<&Path> {
        match &self.before {
            Before::Elsewhere(place) => Some(&place.path),
            Before::New | Before::Empty | Before::NoStore | Before::Whole => None,
        }
    }

    /// Makes the directory this node's, at this place, for good. To be called when the store itself knows what was lost, on
    /// stable storage, and before anybody is served.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn settle(&self) -> Result<(), DirectoryError> {
        let identity = self.path.join("identity");
        let io = |source| DirectoryError::Io { path: identity.clone(), source };
        if !matches!(self.before, Before::Whole) {
            let text = toml::to_string(&self.ours).expect("plain data");
            write_durably(&identity, text.as_bytes()).map_err(io)?;
        }
        match fs::remove_file(self.path.join(UNSETTLED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(error)),
            Ok(()) | Err(_) => Ok(()),
        }
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
            .map(DurableMark::in_file)
            .map_err(|source| DirectoryError::Io { path, source })
    }
}

/// Says that nobody was served from this directory yet.
const UNSETTLED: &str = "unsettled";

/// What may lie in a directory without an identity; anything else is somebody's. See [`set_aside`] for the last.
const OURS: [&str; 7] =
    ["lock", "identity.new", "durable-mark", "store", UNSETTLED, "faults.toml", "faults.toml.new"];
const ASIDE: &str = "store.aside-";

fn has_files_of_others(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    let names = entries.flatten().map(|entry| entry.file_name());
    let ours = |name: &str| OURS.contains(&name) || name.starts_with(ASIDE);
    names.into_iter().any(|name| !name.to_str().is_some_and(ours))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

/// Clears a directory without an identity. A start that was cut short has served nobody: what it left goes. A store that
/// was in use and has lost its identity is set aside, for somebody may want to look into it.
fn begin_anew(path: &Path) -> io::Result<()> {
    let (store, unsettled) = (path.join("store"), path.join(UNSETTLED));
    if store.exists() {
        if unsettled.exists() {
            fs::remove_dir_all(&store)?;
        } else {
            set_aside(path, &store)?;
        }
    }
    match fs::remove_file(path.join("durable-mark")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::create(&unsettled).map(drop) // a power loss may take it; the store is then set aside
}

/// Gives a store the first name that is free.
fn set_aside(path: &Path, store: &Path) -> io::Result<()> {
    let mut names = (1..).map(|number| path.join(format!("{ASIDE}{number}")));
    let free = names.find(|aside| !aside.exists()).expect("numbers do not end");
    fs::rename(store, free)
}

fn check(path: &Path, text: &str, ours: &OnDisk) -> Result<OnDisk, DirectoryError> {
    let malformed = |found: String| DirectoryError::Format { path: path.into(), found };
    let table: toml::Table = text.parse().map_err(|_| malformed("unreadable".into()))?;
    match table.get("format").and_then(toml::Value::as_integer) {
        Some(found) if found == i64::from(FORMAT) => {}
        Some(found) => return Err(malformed(found.to_string())),
        None => return Err(malformed("unreadable".into())),
    }
    let found: OnDisk = table.try_into().map_err(|_| malformed("unreadable".into()))?;
    if (found.cluster, found.node) != (ours.cluster, ours.node) {
        return Err(DirectoryError::OtherNode {
            path: path.into(),
            node: found.node,
            cluster: found.cluster,
        });
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use atoll_wire::Commit;

    use super::*;

    fn open(path: &Path, node: u32, first: bool) -> Result<Directory, DirectoryError> {
        let directory = Directory::open(path, ClusterId([1; 16]), NodeId(node), first)?;
        directory.settle()?;
        Ok(directory)
    }

    /// Whatever was cut short before it was settled can be repeated, with the word that the directory is new or without.
    #[test]
    fn a_start_that_was_cut_short_can_be_repeated() {
        for first in [true, false] {
            let temporary = tempfile::tempdir().expect("a directory");
            let path = temporary.path();
            let cluster = ClusterId([1; 16]);
            let cut_short = Directory::open(path, cluster, NodeId(1), first).expect("empty");
            fs::create_dir(cut_short.store()).expect("ours");
            fs::write(cut_short.store().join("half"), "made").expect("ours");
            fs::write(path.join("identity.new"), "for").expect("ours");
            cut_short.mark().expect("ours").set(Commit { sequence: 5, chain: 1 });
            drop(cut_short);
            let again = open(path, 1, first).expect("again");
            assert_eq!(again.is_new(), first);
            assert_eq!(again.lost().is_some(), !first);
            assert!(!again.store().exists());
            assert_eq!(again.mark().expect("ours").read(), Commit::default());
            fs::create_dir(again.store()).expect("ours");
            fs::write(again.store().join("whole"), "store").expect("ours");
            drop(again);
            assert_eq!(open(path, 1, false).expect("settled").lost(), None);
        }
    }

    /// An empty directory is new only if somebody says so; otherwise what was in it is lost. That can be said once.
    #[test]
    fn an_empty_directory_is_new_or_lost() {
        let temporary = tempfile::tempdir().expect("a directory");
        let path = temporary.path().join("data");
        let directory =
            Directory::open(&path, ClusterId([1; 16]), NodeId(1), false).expect("empty");
        assert!(directory.lost().is_some_and(|lost| lost.contains("is empty")));
        drop(directory);
        let directory = open(&path, 1, true).expect("first");
        assert!(directory.is_new() && directory.lost().is_none());
        drop(directory);
        let directory = open(&path, 1, true).expect("a first start that was repeated");
        assert!(!directory.is_new());
        assert!(directory.lost().is_some_and(|lost| lost.contains("no data")));
    }

    /// A store without an identity was somebody's: it is set aside, as often as that happens, and never removed.
    #[test]
    fn a_store_without_an_identity_is_set_aside() {
        let temporary = tempfile::tempdir().expect("a directory");
        let path = temporary.path();
        for number in 1..=3 {
            drop(open(path, 1, true).expect("ours"));
            fs::create_dir_all(path.join("store")).expect("ours");
            fs::write(path.join("store/full"), number.to_string()).expect("ours");
            fs::remove_file(path.join("identity")).expect("there");
            drop(open(path, 1, false).expect("lost"));
            let aside = path.join(format!("store.aside-{number}/full"));
            assert_eq!(fs::read_to_string(aside).expect("set aside"), number.to_string());
        }
    }

    /// A copy says so until it is settled at its new place, and so does the original when it comes back to its own.
    #[test]
    fn a_copy_knows_that_it_is_one() {
        let temporary = tempfile::tempdir().expect("a directory");
        let (original, copy) = (temporary.path().join("original"), temporary.path().join("copy"));
        drop(open(&original, 1, true).expect("first"));
        for folder in [&original, &copy] {
            fs::create_dir_all(folder.join("store")).expect("ours");
            fs::write(folder.join("store/full"), "data").expect("ours");
        }
        fs::copy(original.join("identity"), copy.join("identity")).expect("ours");
        let opened = Directory::open(&copy, ClusterId([1; 16]), NodeId(1), false).expect("a copy");
        assert!(opened.lost().is_some_and(|lost| lost.contains("copied or restored")));
        assert!(opened.copied_from().is_some_and(|from| from.ends_with("original")));
        drop(opened);
        assert!(open(&copy, 1, false).expect("still a copy").lost().is_some());
        assert_eq!(open(&copy, 1, false).expect("settled").lost(), None);
        assert_eq!(open(&original, 1, false).expect("untouched").lost(), None);
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
}
