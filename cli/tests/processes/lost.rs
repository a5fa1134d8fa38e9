//! Real nodes that have lost something: they come back under a new incarnation, and the others have what they lost.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::testnet::Testnet;

/// What ends each batch in a journal; the eight bytes before it are the batch's checksum, and the byte behind it begins the
/// next one.
const BATCH_ENDS: &[u8] = b"FJL\x03";

/// The journal of a node.
pub fn journal(testnet: &Testnet, node: u32) -> PathBuf {
    let store = testnet.folder().join(format!("n{node}/data/store"));
    let journals = walk(&store).into_iter();
    let mut journals =
        journals.filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    journals.next().expect("a journal")
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("ours").flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(walk(&path)),
            path => files.push(path),
        }
    }
    files
}

/// What a node says of itself in `atoll status`.
fn status(testnet: &Testnet, node: usize) -> serde_json::Value {
    let ran = testnet.run(&["status", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    document["nodes"][node - 1]["status"].clone()
}

fn incarnation(testnet: &Testnet, node: usize) -> u64 {
    status(testnet, node)["incarnation"].as_u64().expect("it answers")
}

/// Puts twenty keys on all nodes.
fn fill(testnet: &Testnet) {
    for number in 0..20 {
        testnet.ok(&["put", &format!("k{number}"), "v", "-w", "all"]);
    }
}

/// All twenty are found by reads that begin at the node that lost them: it does not take its silence for knowledge.
fn all_are_found_through(testnet: &Testnet, node: &str) {
    for number in 0..20 {
        let key = format!("k{number}");
        assert!(testnet.ok(&["get", &key, "--via", node, "--strict"]).contains('v'), "{key}");
    }
}

/// A disk is exchanged for an empty one, twice. The node comes back as another each time, and nothing is missing.
#[test]
fn a_wiped_node_comes_back_as_a_new_incarnation() {
    let testnet = Testnet::up(3, 24_200);
    fill(&testnet);
    for life in 1..=2 {
        let wiped = testnet.run(&["testnet", "wipe", "n2"]);
        assert_eq!(wiped.code, 0, "{wiped:?}");
        assert!(wiped.stderr.contains("atoll testnet restart n2"), "{wiped:?}");
        assert!(testnet.folder().join("n2/node.key").exists(), "its papers stay");
        assert_eq!(fs::read_dir(testnet.folder().join("n2/data")).expect("there").count(), 0);
        testnet.ok(&["testnet", "restart", "n2"]);
        assert_eq!(incarnation(&testnet, 2), life);
        assert!(testnet.log(2).contains("is empty"), "{}", testnet.log(2));
        all_are_found_through(&testnet, "n2");
    }
    let document = testnet.ok(&["testnet", "wipe", "n3", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!(document["nodes"], serde_json::json!(["n3"]));
    assert!(document["next"].as_str().expect("a command").contains("restart n3"));
}

/// A directory that somebody emptied by hand, or a disk that did not come up: the same.
#[test]
fn an_emptied_data_directory_is_not_a_first_start() {
    let testnet = Testnet::up(3, 24_300);
    fill(&testnet);
    testnet.ok(&["testnet", "kill", "n2"]);
    fs::remove_dir_all(testnet.folder().join("n2/data")).expect("ours");
    testnet.ok(&["testnet", "start", "n2"]);
    assert_eq!(incarnation(&testnet, 2), 1);
    all_are_found_through(&testnet, "n2");
}

/// Without a majority of the voters it does not serve, and `start` says what it waits for; with enough of them it does.
#[test]
fn a_wiped_node_waits_for_a_majority() {
    let testnet = Testnet::up(3, 24_500);
    fill(&testnet);
    testnet.ok(&["testnet", "wipe", "n2"]);
    testnet.ok(&["testnet", "kill", "n3"]);
    let refused = testnet.run(&["testnet", "start", "n2"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    let words = "the ring is frozen: 1 of 3 voters reachable: n1";
    assert!(refused.stderr.contains(words), "{refused:?}");
    testnet.ok(&["testnet", "start", "--all"]);
    assert_eq!(incarnation(&testnet, 2), 1);
    all_are_found_through(&testnet, "n2");
}

/// One bit in the beginning of a batch: the engine takes it for the end of its journal, opens, and half the data is gone
/// without a word. The mark beside the journal tells.
#[test]
fn a_journal_cut_short_by_one_bit_is_noticed() {
    let testnet = Testnet::up(3, 24_700);
    fill(&testnet);
    testnet.ok(&["testnet", "kill", "n2"]);
    let path = journal(&testnet, 2);
    let mut bytes = fs::read(&path).expect("ours");
    let ends = ends(&bytes);
    let begin = ends[ends.len() / 2] + BATCH_ENDS.len();
    assert_eq!(bytes[begin], 1, "the tag of a beginning");
    bytes[begin] ^= 0x10;
    fs::write(&path, bytes).expect("ours");
    testnet.ok(&["testnet", "start", "n2"]);
    assert_eq!(incarnation(&testnet, 2), 1);
    assert!(testnet.log(2).contains("has lost its newest commits"), "{}", testnet.log(2));
    all_are_found_through(&testnet, "n2");
}

/// One bit in a checksum: the engine does not open at all. The node ends with exit code 10 and says what to do, and doing
/// it helps.
#[test]
fn a_journal_that_does_not_open_is_moved_away() {
    let testnet = Testnet::up(3, 24_800);
    fill(&testnet);
    testnet.ok(&["testnet", "kill", "n2"]);
    let path = journal(&testnet, 2);
    let mut bytes = fs::read(&path).expect("ours");
    let ends = ends(&bytes);
    bytes[ends[ends.len() / 2] - 1] ^= 0x10;
    fs::write(&path, bytes).expect("ours");
    let refused = testnet.run(&["testnet", "start", "n2"]);
    assert_eq!(refused.code, 10, "{refused:?}");
    for word in ["n2/data/store away", "start the node again", "new incarnation"] {
        assert!(refused.stderr.contains(word), "{refused:?} does not speak of {word}");
    }
    let data = testnet.folder().join("n2/data");
    fs::rename(data.join("store"), testnet.folder().join("to-be-looked-into")).expect("ours");
    testnet.ok(&["testnet", "start", "n2"]);
    assert_eq!(incarnation(&testnet, 2), 1);
    all_are_found_through(&testnet, "n2");
}

fn ends(bytes: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(BATCH_ENDS.len()).enumerate();
    let ends: Vec<usize> =
        windows.filter(|(_, window)| *window == BATCH_ENDS).map(|(at, _)| at).collect();
    assert!(ends.len() > 10, "this is no journal of the version that we know");
    ends
}

/// A restored backup: the directory lies elsewhere than it did, or the peers remember more. Here it is moved over the
/// original while that is stopped.
#[test]
fn a_restored_directory_is_a_new_incarnation() {
    let testnet = Testnet::up(3, 24_900);
    testnet.ok(&["testnet", "stop", "n2"]);
    let data = testnet.folder().join("n2/data");
    let backup = testnet.folder().join("backup");
    crate::start::copy_folder(&data, &backup);
    testnet.ok(&["testnet", "start", "n2"]);
    fill(&testnet);
    testnet.ok(&["testnet", "stop", "n2"]);
    fs::remove_dir_all(&data).expect("ours");
    fs::rename(&backup, &data).expect("ours");
    testnet.ok(&["testnet", "start", "n2"]);
    assert_eq!(incarnation(&testnet, 2), 1);
    assert!(testnet.log(2).contains("copied or restored"), "{}", testnet.log(2));
    all_are_found_through(&testnet, "n2");
}
