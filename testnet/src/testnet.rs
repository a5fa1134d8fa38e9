//! A testnet: a folder with all there is to a cluster on this machine.
//!
//! ```text
//! dev/
//! ├── testnet.toml                        what was asked, for good
//! ├── grown.toml                          who came and went since
//! ├── view.json, cluster.secret           written once, kept for the cluster's life
//! ├── ca.pem, ca.key, user.pem, user.key  issued anew at each `up`
//! ├── profile.toml                        what a client needs
//! ├── lock                                held while somebody starts or stops nodes
//! └── n1/ n2/ …                           see `node`
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use atoll_ring::NodeId;

use crate::{
    asked::{Asked, AskedError},
    files::{self, FileError},
    grown::{Added, Grown},
    home::{Home, HomeError, PROFILE},
    node::Node,
    poll,
};

/// A testnet that exists.
#[derive(Clone, Debug)]
pub struct Testnet {
    folder: PathBuf,
    asked: Asked,
    grown: Grown,
}

/// Why a testnet cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none of that name.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// What is written down cannot be used.
    #[error(transparent)]
    Asked(#[from] AskedError),
    /// Its folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// No such node.
    #[error("testnet {testnet} has no node {node}: it has {nodes}")]
    NoNode {
        /// The testnet.
        testnet: String,
        /// What was asked for.
        node: NodeId,
        /// Those it has.
        nodes: String,
    },
    /// Somebody else starts or stops nodes of it.
    #[error("another command is starting or stopping nodes of this testnet ({})", folder.display())]
    Busy {
        /// Its folder.
        folder: PathBuf,
    },
}

impl Testnet {
    /// The testnet of that name, or the one started last.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(home: &Home, name: Option<&str>) -> Result<Testnet, OpenError> {
        let name = home.pick(name)?;
        let folder = canonical(&home.entry(&name)?)?;
        let asked = Asked::load(&folder)?.ok_or(HomeError::NoneKnown)?;
        let grown = Grown::load(&folder)?;
        Ok(Testnet { folder, asked, grown })
    }

    /// One that nobody has joined or left.
    pub(crate) fn new(folder: PathBuf, asked: Asked) -> Testnet {
        Testnet { folder, asked, grown: Grown::default() }
    }

    /// Looks again who came and went: another command may have held the lock before us.
    pub(crate) fn reload(&mut self) -> Result<(), OpenError> {
        self.grown = Grown::load(&self.folder)?;
        Ok(())
    }

    /// A node is about to be registered.
    pub(crate) fn begin_adding(&mut self, adding: Added) -> Result<(), OpenError> {
        self.grown.adding = Some(adding);
        Ok(self.grown.save(&self.folder)?)
    }

    /// A node has come, if it had not yet.
    pub(crate) fn grow(&mut self, added: Added) -> Result<(), OpenError> {
        if !self.grown.was_added(added.node) {
            self.grown.added.push(added);
        }
        Ok(self.grown.save(&self.folder)?)
    }

    /// Nobody is being added any more.
    pub(crate) fn end_adding(&mut self) -> Result<(), OpenError> {
        self.grown.adding = None;
        Ok(self.grown.save(&self.folder)?)
    }

    /// A node has gone.
    pub(crate) fn shrink(&mut self, node: NodeId) -> Result<(), OpenError> {
        self.grown.gone.insert(node);
        Ok(self.grown.save(&self.folder)?)
    }

    /// From now on its nodes may be broken on purpose.
    pub(crate) fn allow_faults(&mut self) -> Result<(), FileError> {
        self.asked.allow_faults = true;
        self.asked.save(&self.folder)
    }

    /// Who came and went since it was made.
    #[must_use]
    pub fn grown(&self) -> &Grown {
        &self.grown
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.asked.name
    }

    /// Its folder, without links.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it was made with.
    #[must_use]
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// What a client needs.
    #[must_use]
    pub fn profile(&self) -> PathBuf {
        self.folder.join(PROFILE)
    }

    /// All its nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.everybody();
        nodes.retain(|node| !self.grown.gone.contains(&node.id));
        nodes
    }

    /// Its nodes, and those that are gone.
    pub(crate) fn everybody(&self) -> Vec<Node> {
        let members = self.grown.everybody(&self.asked).into_iter();
        members.map(|member| Node::new(&self.folder, member)).collect()
    }

    /// These nodes, each once, in this order; all if none is named.
    ///
    /// # Errors
    /// [`OpenError::NoNode`].
    pub fn select(&self, ids: &[NodeId]) -> Result<Vec<Node>, OpenError> {
        let all = self.nodes();
        if ids.is_empty() {
            return Ok(all);
        }
        let mut selected: Vec<Node> = Vec::new();
        for id in ids {
            let node = all.iter().find(|node| node.id == *id).ok_or_else(|| OpenError::NoNode {
                testnet: self.name().to_owned(),
                node: *id,
                nodes: names(&all),
            })?;
            if !selected.iter().any(|other| other.id == *id) {
                selected.push(node.clone());
            }
        }
        Ok(selected)
    }

    /// Whether it is still there: somebody may have removed it.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.folder.join(crate::asked::FILE).is_file()
    }

    /// Waits for the right to start and stop its nodes.
    ///
    /// # Errors
    /// [`OpenError::Busy`] if somebody else keeps it for longer than `limit`.
    pub async fn lock(&self, limit: Duration) -> Result<Lock, OpenError> {
        Lock::take(&self.folder, limit).await
    }

    /// Removes it with all its data. Its nodes must have ended and its lock must be held.
    ///
    /// # Errors
    /// [`OpenError::File`].
    pub(crate) fn remove(&self, home: &Home, _held: Lock) -> Result<(), OpenError> {
        let entry = home.entry(self.name())?;
        for node in self.everybody() {
            files::remove(node.folder())?;
        }
        // what says that it exists goes last
        for file in FILES {
            files::remove(&self.folder.join(file))?;
        }
        if entry.is_symlink() {
            files::remove(&entry)?;
            // whatever else lies in a folder that the user has chosen is not ours to remove
            let _ = fs::remove_dir(&self.folder);
        } else {
            files::remove(&entry)?;
        }
        Ok(())
    }
}

/// Everything in the folder beside the nodes.
const FILES: [&str; 10] = [
    PROFILE,
    "ca.key",
    "user.key",
    "user.pem",
    "ca.pem",
    "cluster.secret",
    "view.json",
    LOCK,
    crate::grown::FILE,
    crate::asked::FILE,
];

/// The right to start and stop nodes of a testnet, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) async fn take(folder: &Path, limit: Duration) -> Result<Lock, OpenError> {
        let path = folder.join(LOCK);
        let attempt = || match Lock::attempt(&path) {
            Ok(None) => None,
            Ok(Some(lock)) => Some(Ok(lock)),
            Err(error) => Some(Err(FileError::of("lock", &path)(error))),
        };
        match poll::until(limit, attempt).await {
            Some(taken) => Ok(taken?),
            None => Err(OpenError::Busy { folder: folder.to_owned() }),
        }
    }

    fn attempt(path: &Path) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // who held it before us may have removed the testnet and the file with it
        let held = file.metadata()?;
        let there =
            fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()));
        Ok(there.then_some(Lock { _file: file }))
    }
}

const LOCK: &str = "lock";

/// `n1 to n5`, or all of them where some are gone.
fn names(nodes: &[Node]) -> String {
    let in_a_row = nodes.iter().zip(1..).all(|(node, number)| node.id.0 == number);
    match (nodes.last(), in_a_row) {
        (Some(last), true) => format!("n1 to {}", last.id),
        _ => nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>().join(", "),
    }
}

pub(crate) fn canonical(folder: &Path) -> Result<PathBuf, FileError> {
    fs::canonicalize(folder).map_err(FileError::of("find", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two commands at once one waits, and gives up at its limit; then the next one gets the lock.
    #[tokio::test]
    async fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path(), Duration::ZERO).await.unwrap();
        let second = Lock::take(folder.path(), Duration::ZERO).await;
        assert!(matches!(second, Err(OpenError::Busy { .. })));
        drop(first);
        Lock::take(folder.path(), Duration::ZERO).await.unwrap();
    }
}
