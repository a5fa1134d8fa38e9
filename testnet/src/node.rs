//! One node of a testnet: its folder and its process.
//!
//! ```text
//! n1/
//! ├── node.toml, node.pem, node.key   written at each `up`
//! ├── data/                           the node's own
//! ├── log                             what it says, appended
//! ├── pid                             while it runs, and after it was killed
//! └── was-ready                       from the first time it was ready: if its data is missing, it was lost
//! ```

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use atoll_ring::{Member, NodeId};
use rustix::process::Signal;

use crate::{
    files::{self, FileError},
    process::{Life, Process},
};

/// One node of a testnet.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its zone.
    pub zone: String,
    folder: PathBuf,
}

/// What the system says of a node, without asking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It was never started, or ended as it was told to.
    Stopped,
    /// It was started and is gone: killed, or ended by itself.
    Dead,
    /// It runs.
    Running(Process),
    /// It was paused and can go on.
    Paused(Process),
}

impl Node {
    /// The node of a testnet in this folder that this member stands for. It need not exist.
    #[must_use]
    pub fn new(testnet: &Path, member: Member) -> Node {
        let folder = testnet.join(member.id.to_string());
        Node { id: member.id, address: member.address, zone: member.zone, folder }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it writes what it has to say.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its configuration, which is also the mark of its process.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("node.toml")
    }

    /// What has become of it.
    ///
    /// # Errors
    /// The pid file cannot be read.
    pub fn condition(&self) -> Result<Condition, FileError> {
        let Some(text) = files::read(&self.pid_file())? else { return Ok(Condition::Stopped) };
        // an unreadable record is of nobody we could signal
        let Some(process) = Process::parse(&text, self.config()) else {
            return Ok(Condition::Dead);
        };
        Ok(match process.life() {
            Life::Running => Condition::Running(process),
            Life::Paused => Condition::Paused(process),
            Life::Gone => Condition::Dead,
        })
    }

    /// Sends a signal. `false`: there is no process of ours.
    pub(crate) fn signal(&self, signal: Signal) -> Result<bool, FileError> {
        match self.condition()? {
            Condition::Running(process) | Condition::Paused(process) => process
                .signal(signal)
                .map_err(FileError::of("signal the process of", &self.pid_file())),
            Condition::Stopped | Condition::Dead => Ok(false),
        }
    }

    /// Writes down the process that was just started.
    pub(crate) fn remember(&self, process: &Process) -> Result<(), FileError> {
        files::write(&self.pid_file(), &process.record(), files::PUBLIC)
    }

    /// It has ended as it was told to.
    pub(crate) fn forget(&self) -> Result<(), FileError> {
        files::remove(&self.pid_file())
    }

    /// Whether it may find its data directory empty: only until it was ready once. Later that means that data was lost,
    /// and the node must take a new incarnation.
    pub(crate) fn is_first_start(&self) -> bool {
        // in doubt no: a new incarnation too many loses nothing
        !fs::exists(self.was_ready()).unwrap_or(true)
    }

    /// From now on its data must be there.
    pub(crate) fn note_was_ready(&self) -> Result<(), FileError> {
        if self.is_first_start() {
            files::write(&self.was_ready(), "", files::PUBLIC)?;
        }
        Ok(())
    }

    /// Removes the data of a node that nobody has used yet: a first start that was cut short can leave half a store.
    pub(crate) fn begin_anew(&self) -> Result<(), FileError> {
        files::remove(&self.data())?;
        files::remove(&self.was_ready())
    }

    /// What shall go wrong on it, if it allows faults.
    pub(crate) fn faults(&self) -> PathBuf {
        self.folder.join("data").join(FAULTS)
    }

    /// Removes all that the node has stored, as if its disk had been exchanged. Its papers stay, and what it shall bear.
    pub(crate) fn wipe(&self) -> Result<(), FileError> {
        let data = self.data();
        let entries = match fs::read_dir(&data) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(FileError::of("read", &data))?,
        };
        for entry in entries {
            let path = entry.map_err(FileError::of("read", &data))?.path();
            if path != self.faults() {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn was_ready(&self) -> PathBuf {
        self.folder.join("was-ready")
    }
}

/// In the data directory, and no data.
const FAULTS: &str = "faults.toml";
