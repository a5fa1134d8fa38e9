//! The durable mark: the last commit that was fsynced, kept outside the engine's journal.
//!
//! The engine opens a journal that has lost its tail without a word; its last commit is then not the one that is written
//! here. The mark is written after each sync and not synced itself, so it may lag, never lead: a power loss may take the
//! newest marks along, but what is read here was on stable storage.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};

use atoll_wire::Commit;

/// The last commit that was fsynced. Clones are the same mark.
#[derive(Clone, Debug)]
pub struct DurableMark(Place);

#[derive(Clone, Debug)]
enum Place {
    File(Arc<File>),
    Memory(Arc<Mutex<Commit>>),
}

/// In a file: the number, the chain, and 8 bytes of a checksum over both.
const BYTES: usize = 24;
const CHECK_AT: usize = 16;

impl DurableMark {
    /// A mark in a file.
    pub fn in_file(file: File) -> Self {
        DurableMark(Place::File(Arc::new(file)))
    }

    /// A mark that outlives a simulated node as its disk does.
    pub fn in_memory() -> Self {
        DurableMark(Place::Memory(Arc::default()))
    }

    /// The commit; none if none was ever written whole.
    pub fn read(&self) -> Commit {
        let file = match &self.0 {
            Place::Memory(commit) => return *commit.lock().expect("no panic holds it"),
            Place::File(file) => file,
        };
        let mut bytes = [0; BYTES];
        if file.read_exact_at(&mut bytes, 0).is_err() {
            return Commit::default();
        }
        let (commit, check) = bytes.split_at(CHECK_AT);
        if check != checksum(commit) {
            return Commit::default();
        }
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        Commit { sequence: number(&commit[..8]), chain: number(&commit[8..]) }
    }

    /// Remembers a commit. Failing to do so is no loss: the mark then lags, as it may.
    pub fn set(&self, commit: Commit) {
        let file = match &self.0 {
            Place::Memory(marked) => {
                *marked.lock().expect("no panic holds it") = commit;
                return;
            }
            Place::File(file) => file,
        };
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&commit.sequence.to_be_bytes());
        bytes[8..CHECK_AT].copy_from_slice(&commit.chain.to_be_bytes());
        let check = checksum(&bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check);
        let _ = file.write_all_at(&bytes, 0);
    }
}

fn checksum(commit: &[u8]) -> [u8; BYTES - CHECK_AT] {
    *blake3::hash(commit).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mark that was written in part counts as none: the node then trusts its store and its peers.
    #[test]
    fn a_torn_mark_counts_as_none() {
        let file = tempfile::tempfile().expect("a file");
        let mark = DurableMark::in_file(file.try_clone().expect("a file"));
        assert_eq!(mark.read(), Commit::default());
        let commit = Commit { sequence: 77, chain: u64::MAX - 3 };
        mark.set(commit);
        assert_eq!(mark.clone().read(), commit);
        file.write_all_at(&[9], 3).expect("write");
        assert_eq!(mark.read(), Commit::default());
    }
}
