//! The chain of commits, and the durable mark: the last one that was fsynced, kept outside the engine's journal.
//!
//! Each commit carries its number and a fingerprint of itself and all before it, so that two histories of the same length
//! are not taken for the same. The engine opens a journal that has lost its tail without a word; its last commit is then not the one that is written
//! here. The mark is written after each sync and not synced itself, so it may lag, never lead: a power loss may take the
//! newest marks along, but what is read here was on stable storage.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};

use atoll_wire::Commit;

use super::Write;

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

/// The commit that makes these writes, after this one.
pub(super) fn next(before: Commit, writes: &[Write]) -> Commit {
    let sequence = before.sequence + 1;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.chain.to_be_bytes()).update(&sequence.to_be_bytes());
    for write in writes {
        hasher.update(&[write.space as u8, u8::from(write.value.is_some())]);
        hasher.update(&(write.row.len() as u64).to_be_bytes()).update(&write.row);
        if let Some(value) = &write.value {
            // records and rows of our own begin or end with a checksum, and the long ones are records
            let head = &value[..value.len().min(CHAINED_BYTES_MAX)];
            hasher.update(&(value.len() as u64).to_be_bytes()).update(head);
        }
    }
    let chain = *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes");
    Commit { sequence, chain: u64::from_be_bytes(chain) }
}

/// Of each value so many bytes enter the chain. A record has its checksum there.
const CHAINED_BYTES_MAX: usize = 64;

/// Why a store whose last commit is this one has lost something, if this one was fsynced.
pub(super) fn behind(found: Commit, marked: Commit) -> Option<String> {
    if found.sequence < marked.sequence {
        return Some(format!(
            "the store has lost its newest commits: it ends with number {}, and {} was fsynced",
            found.sequence, marked.sequence
        ));
    }
    (found.sequence == marked.sequence && found.chain != marked.chain)
        .then(|| format!("commit {} of the store is not the one that was fsynced", found.sequence))
}

fn checksum(commit: &[u8]) -> [u8; BYTES - CHECK_AT] {
    *blake3::hash(commit).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::storage::Space;

    /// Whatever is different in a commit or before it makes another chain: space, name, value, its length, its absence.
    #[test]
    fn a_chain_is_of_one_history_only() {
        let write = |space, row: &'static str, value: Option<Vec<u8>>| Write {
            space,
            row: row.into(),
            value: value.map(Bytes::from),
        };
        let long = |bytes: usize| Some(vec![7; bytes]);
        let histories = [
            vec![],
            vec![write(Space::Data, "a", None)],
            vec![write(Space::Data, "a", Some(vec![]))],
            vec![write(Space::Data, "a", Some(vec![1]))],
            vec![write(Space::Hints, "a", Some(vec![1]))],
            vec![write(Space::Data, "b", Some(vec![1]))],
            vec![write(Space::Data, "a", long(1000))],
            vec![write(Space::Data, "a", long(1001))],
            vec![write(Space::Data, "a", None), write(Space::Data, "b", None)],
        ];
        let mut seen = std::collections::BTreeSet::new();
        let begun = next(Commit::default(), &[]);
        for before in [Commit::default(), begun, Commit { chain: begun.chain + 1, ..begun }] {
            for writes in &histories {
                let commit = next(before, writes);
                assert_eq!(commit.sequence, before.sequence + 1);
                assert!(seen.insert(commit.chain), "{before:?} {writes:?}");
                assert_eq!(commit, next(before, writes));
            }
        }
    }

    /// Fewer commits than were fsynced, or others, are a loss; more are not: the mark may lag.
    #[test]
    fn what_is_behind_the_mark_is_lost() {
        let marked = Commit { sequence: 5, chain: 50 };
        for (sequence, chain, is_lost) in
            [(0, 0, true), (4, 50, true), (5, 51, true), (5, 50, false), (6, 1, false)]
        {
            let lost = behind(Commit { sequence, chain }, marked);
            assert_eq!(lost.is_some(), is_lost, "{sequence} {chain}: {lost:?}");
        }
        assert_eq!(behind(Commit::default(), Commit::default()), None);
    }

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
