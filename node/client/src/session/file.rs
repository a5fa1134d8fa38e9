//! A session on disk, between two runs of a program.
//!
//! ```text
//!   atoll session 1\n                 so that people see what it is
//!   32 bytes of blake3                over what follows
//!   the state, postcard
//! ```
//!
//! It is written anew each time and put in place of the old one, synced, so a crash leaves one or the other. A lock file
//! beside it keeps two programs from using one session at the same time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::SessionState;

/// Where a session is kept. Nobody else uses it while this exists.
pub struct SessionFile {
    path: PathBuf,
    _lock: File,
}

/// Why a session cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionFileError {
    /// It cannot be read or written.
    #[error("the session {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another program uses it.
    #[error(
        "the session {path} is in use by another program; wait, or give --session another file"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is no session, or a damaged one.
    #[error("{path} is no session, or damaged; give --session another file")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Its contexts mean nothing here.
    #[error("the session {path} belongs to another cluster; give --session another file")]
    OtherCluster {
        /// The file.
        path: PathBuf,
    },
}

const HEAD: &[u8] = b"atoll session 1\n";
const CHECKSUM_BYTES: usize = 32;
/// Far more than the largest session has.
const BYTES_MAX: u64 = 256 << 20;

impl SessionFile {
    /// Takes the file for itself and reads what is in it; if there is none, a new session.
    pub(crate) fn open(
        path: &Path,
        cluster: [u8; 16],
    ) -> Result<(Self, SessionState), SessionFileError> {
        let failed = |source| SessionFileError::File { path: path.into(), source };
        let lock = beside(path, "lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(lock);
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SessionFileError::InUse { path: path.into() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let file = SessionFile { path: path.into(), _lock: lock };
        let state = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => SessionState::new(cluster),
            Err(error) => return Err(failed(error)),
            Ok(found) if found.len() > BYTES_MAX || !found.is_file() => {
                return Err(SessionFileError::Damaged { path: path.into() });
            }
            Ok(_) => {
                let bytes = fs::read(path).map_err(failed)?;
                let damaged = || SessionFileError::Damaged { path: path.into() };
                read(&bytes).ok_or_else(damaged)?
            }
        };
        if state.cluster != cluster {
            return Err(SessionFileError::OtherCluster { path: path.into() });
        }
        Ok((file, state))
    }

    /// Puts the session in place of what was there.
    pub(crate) fn save(&self, state: &SessionState) -> Result<(), SessionFileError> {
        let failed = |source| SessionFileError::File { path: self.path.clone(), source };
        self.try_save(state).map_err(failed)
    }

    fn try_save(&self, state: &SessionState) -> io::Result<()> {
        let next = beside(&self.path, "next");
        let mut file = OpenOptions::new();
        file.write(true).create(true).truncate(true).mode(0o600);
        let mut file = file.open(&next)?;
        file.write_all(&written(state))?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn written(state: &SessionState) -> Vec<u8> {
    let state = postcard::to_stdvec(state).expect("plain data");
    [HEAD, blake3::hash(&state).as_bytes(), &state].concat()
}

fn read(bytes: &[u8]) -> Option<SessionState> {
    let (checksum, state) = bytes.strip_prefix(HEAD)?.split_at_checked(CHECKSUM_BYTES)?;
    if blake3::hash(state).as_bytes() != checksum {
        return None;
    }
    postcard::from_bytes(state).ok()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: [u8; 16] = [1; 16];

    /// What was saved comes back; the file of another cluster, a damaged one and one in use are refused by name.
    #[test]
    fn a_session_survives_its_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine");
        let (file, state) = SessionFile::open(&path, HERE).unwrap();
        file.save(&state).unwrap();
        let in_use = SessionFile::open(&path, HERE);
        assert!(matches!(in_use, Err(SessionFileError::InUse { .. })));
        drop(file);
        let (file, again) = SessionFile::open(&path, HERE).unwrap();
        assert_eq!(again.number, state.number);
        drop(file);
        let elsewhere = SessionFile::open(&path, [2; 16]);
        assert!(matches!(elsewhere, Err(SessionFileError::OtherCluster { .. })));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            let damaged = SessionFile::open(&path, HERE);
            assert!(matches!(damaged, Err(SessionFileError::Damaged { .. })), "byte {at}");
        }
    }
}
