//! Every decoder of bytes from outside, over every kind of bytes: frames, states, contexts, tokens, notes, views.
//!
//! Whatever the bytes are, a decoder does not panic; it refuses, or gives a value that can be written again and read as
//! the same value (states as the very same bytes). And it takes no more memory than [`decoders::memory_max`] says: a
//! counting allocator measures the peak of each call. The counter counts the whole process, so the tests take turns.
//!
//! `tests/corpus` keeps the interesting inputs, one file each, named after what it is. Most are written by
//! [`corpus`]; a case that a property test has found is added by hand and stays:
//!
//! ```text
//! ATOLL_BLESS=1 cargo test -p atoll-wire --test hostile
//! ```

mod corpus;
mod decoders;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use atoll_ring::MEMBERS_MAX;
use atoll_wire::limits::VIEW_TAIL_BYTES_MAX;
use bytes::Bytes;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::TestRunner,
};

use decoders::feed;

/// Every decoder over every file; and every file that is written by hand is what is written.
#[test]
fn every_file_of_the_corpus_is_harmless() {
    let _turn = turn();
    let files = files();
    for (name, bytes) in &files {
        feed(name, bytes);
    }
    for (name, bytes) in corpus::entries() {
        assert!(files.get(&name) == Some(&bytes), "{name}: write it with ATOLL_BLESS=1");
    }
    let whole: usize = files.values().map(Bytes::len).sum();
    assert!(whole < 200 << 10, "the corpus has {whole} bytes");
}

/// What is refused today is refused tomorrow, and the other way round: the verdict on each file, to the letter.
#[test]
fn verdicts_do_not_change_by_accident() {
    let _turn = turn();
    let table: String =
        files().iter().map(|(name, bytes)| format!("{name}: {}\n", feed(name, bytes))).collect();
    let path = folder().with_file_name("verdicts.txt");
    if std::env::var_os("ATOLL_BLESS").is_some() {
        fs::write(&path, &table).expect("writable");
    }
    let kept = fs::read_to_string(&path).expect("there");
    let changed: Vec<_> = kept.lines().zip(table.lines()).filter(|(old, new)| old != new).collect();
    assert!(kept == table, "was, and is now: {changed:?}");
}

/// Good frames, states and views, cut at every length, with every single bit turned over, and with every byte made the
/// first of a huge number.
#[test]
fn good_bytes_with_one_thing_wrong_are_harmless() {
    let _turn = turn();
    for (name, good) in corpus::good() {
        assert_ne!(feed(&name, &good), "-", "{name}");
        for length in 0..good.len() {
            feed(&name, &good.slice(..length));
        }
        for bit in 0..good.len() * 8 {
            let mut turned = good.to_vec();
            turned[bit / 8] ^= 1 << (bit % 8);
            feed(&name, &turned.into());
        }
        for at in 0..good.len() {
            for number in corpus::HUGE {
                let (before, after) = good.split_at(at);
                feed(&name, &[before, number, &after[1..]].concat().into());
                feed(&name, &mended(&[before, number, &after[1..]].concat()));
            }
        }
    }
}

#[test]
fn noise_is_harmless() {
    for_any(vec(any::<u8>(), 0..2000), |bytes| {
        feed("noise", &bytes.into());
    });
}

/// Small numbers and a plausible first byte get further than noise.
#[test]
fn plausible_noise_is_harmless() {
    let first = select(vec![
        0x01u8, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x09, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27,
        b'{', b'[', 0x80,
    ]);
    let byte = prop_oneof![4 => 0..4u8, 1 => any::<u8>(), 1 => Just(0xff)];
    for_any((first, vec(byte, 0..400)), |(first, rest)| {
        feed("plausible", &[&[first][..], &rest].concat().into());
    });
}

/// Pieces of the corpus put together: cut, repeated, joined, and with the length word made right again.
#[test]
fn mixtures_of_the_corpus_are_harmless() {
    let all: Vec<Bytes> = {
        let _turn = turn(); // reading them takes memory, too
        files().into_values().filter(|file| file.len() < 5000).collect()
    };
    let pieces = vec(any::<(Index, Index, Index)>(), 1..5);
    let changes = vec(any::<(Index, u8)>(), 0..6);
    for_any((pieces, changes), |(pieces, changes)| {
        let mut mixture = Vec::new();
        for (which, from, to) in pieces {
            let file = which.get(&all);
            let (from, to) = (from.index(file.len() + 1), to.index(file.len() + 1));
            mixture.extend_from_slice(&file[from.min(to)..from.max(to)]);
        }
        for (at, byte) in changes {
            if !mixture.is_empty() {
                let at = at.index(mixture.len());
                mixture[at] = byte;
            }
        }
        feed("mixture", &mended(&mixture));
        feed("mixture", &mixture.into());
    });
}

/// A view as large as its frame may be, of what costs most in memory: empty lists, which take 24 bytes for each byte and
/// were counted only when all were read, and members, each of which is 64 points on the ring. Four megabytes took 200 MB
/// and more, and time to match. Now reading stops at the largest view that there could be.
#[test]
fn the_largest_documents_are_bounded() {
    let _turn = turn();
    for (name, bytes) in corpus::largest() {
        assert_eq!(feed(name, &bytes), "-", "{name}");
    }
    let whole = Bytes::from(corpus::largest_view());
    assert!(whole.len() <= VIEW_TAIL_BYTES_MAX);
    assert_eq!(feed("the largest view", &whole), "view");
    assert_eq!(feed("most members", &corpus::view_of_members(MEMBERS_MAX).into()), "view");
    assert_eq!(feed("a member too many", &corpus::view_of_members(MEMBERS_MAX + 1).into()), "-");
}

/// The longest page there could be, of rows of nothing, took 1.5 GB; now reading stops at the rows of a full page. A report
/// stops by itself, because partitions only rise.
#[test]
fn the_longest_lists_are_bounded() {
    let _turn = turn();
    for (name, bytes, taker) in corpus::longest_lists() {
        assert_eq!(feed(name, &bytes), taker, "{name}");
    }
}

/// Checks a property of anything a strategy makes. In the turn of the caller from beginning to end: what other tests
/// allocate meanwhile would be counted.
fn for_any<S: Strategy>(strategy: S, check: impl Fn(S::Value)) {
    let _turn = turn();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) };
    let checked = TestRunner::new(config).run(&strategy, |value| {
        check(value);
        Ok(())
    });
    if let Err(found) = checked {
        panic!("{found}\nadd it to the corpus under a name");
    }
}

/// The same bytes as a frame that says its true length, if there are enough of them.
fn mended(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(length) = bytes.len().checked_sub(4).and_then(|length| u32::try_from(length).ok()) {
        bytes[..4].copy_from_slice(&length.to_le_bytes());
    }
    bytes.into()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The files of the corpus by name; those that we write are written first, if that is asked for.
fn files() -> BTreeMap<String, Bytes> {
    static WRITTEN: std::sync::Once = std::sync::Once::new();
    WRITTEN.call_once(|| {
        if std::env::var_os("ATOLL_BLESS").is_some() {
            fs::create_dir_all(folder()).expect("writable");
            let mut names = BTreeSet::new();
            for (name, bytes) in corpus::entries() {
                assert!(names.insert(name.clone()), "{name} comes twice");
                fs::write(folder().join(name), bytes).expect("writable");
            }
        }
    });
    let mut files = BTreeMap::new();
    for file in fs::read_dir(folder()).expect("the folder is there") {
        let file = file.expect("readable");
        let name = file.file_name().into_string().expect("plain names");
        files.insert(name, fs::read(file.path()).expect("readable").into());
    }
    files
}

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
