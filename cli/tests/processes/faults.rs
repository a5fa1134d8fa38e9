//! Nodes that are broken on purpose, as processes: how they end, what they say, and that the others carry on.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use atoll_client::{Client, Level, NodeId, Options, QuorumRequest, RequestError};

use crate::testnet::{Ran, Testnet};

/// Longer than anything here takes on a busy machine. Reached only by something that will never happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The disk of n2 fails at its n-th write or fsync, some of the fifty that are tried in one thread. Each time the process
/// ends with exit code 10 and says what failed and what to do; no write through the others fails, before, meanwhile or
/// after; and in the end everything that was acknowledged is there.
#[tokio::test]
async fn the_nth_write_or_fsync_ends_the_node_and_the_others_carry_on() {
    let testnet = Testnet::up(3, 28_100);
    let client = testnet.client().await;
    let mut keys = Vec::new();
    for (option, deed) in [("--fail-write", "write"), ("--fail-sync", "fsync")] {
        for n in [1, 2, 3, 5, 17, 50] {
            testnet.ok(&["testnet", "stop", "n2"]);
            let n = n.to_string();
            let mut node = Started::of(&testnet, 2, &["--allow-faults", option, &n]);
            let began = Instant::now();
            let code = loop {
                if let Some(status) = node.process.try_wait().expect("our child") {
                    break status.code();
                }
                assert!(began.elapsed() < PATIENCE, "{option} {n}: it goes on: {}", node.said());
                put(&client, &mut keys).await;
            };
            assert_eq!(code, Some(10), "{option} {n}: {}", node.said());
            let said = node.said();
            let last = said.lines().last().expect("it says why");
            for words in [&format!("{deed} {n} failed")[..], "then start the node again"] {
                assert!(last.contains(words), "{last:?} does not speak of {words}");
            }
            put(&client, &mut keys).await;
            let newest = keys.last().expect("just written");
            assert_eq!(get(&client, newest).await, [newest.as_str()], "{option} {n}");
        }
    }
    testnet.ok(&["testnet", "start", "n2"]);
    for key in &keys {
        assert_eq!(get(&client, key).await, [key.as_str()]);
    }
    client.close().await;
}

/// Writes through n1, which two of three disks must acknowledge.
async fn put(client: &Client, keys: &mut Vec<String>) {
    let key = format!("key-{}", keys.len());
    let options =
        Options { timeout: Some(PATIENCE / 2), via: Some(NodeId(1)), ..Options::default() };
    client.put(key.as_bytes(), key.clone(), None, &options).await.expect("two whole disks");
    keys.push(key);
}

async fn get(client: &Client, key: &str) -> Vec<String> {
    let quorum = QuorumRequest { r: Some(Level::Count(2)), ..QuorumRequest::default() };
    let options = Options { timeout: Some(PATIENCE / 2), quorum, ..Options::default() };
    let read = client.get(key.as_bytes(), &options).await.expect("two nodes are up");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    read.values.iter().map(|value| text(&value.bytes)).collect()
}

/// Whoever waits while the disk of his coordinator fails is answered, with what the others have done. Before, the connection
/// broke at once, and the client could not say where its write is.
#[tokio::test]
async fn whoever_waits_for_a_disk_that_fails_is_answered() {
    let testnet = Testnet::up(3, 28_200);
    testnet.ok(&["testnet", "restart", "n1", "--allow-faults", "--fail-sync", "8"]);
    let client = testnet.client().await;
    let all = QuorumRequest { w: Some(Level::Count(3)), ..QuorumRequest::default() };
    let (timeout, via) = (Some(PATIENCE / 2), Some(NodeId(1)));
    let options = Options { timeout, via, quorum: all, ..Options::default() };
    let mut failed = Vec::new();
    while failed.is_empty() {
        let keys: Vec<String> = (0..8).map(|number| format!("key-{number}")).collect();
        let puts = keys.iter().map(|key| client.put(key.as_bytes(), "v", None, &options));
        let answers = futures_util::future::join_all(puts).await;
        failed = answers.into_iter().filter_map(Result::err).collect();
    }
    for error in failed {
        assert!(matches!(error, RequestError::Failed(_)), "no answer: {error}");
    }
    client.close().await;
}

/// Faults are never on by accident, and never silently not on.
#[test]
fn faults_need_a_word_and_a_start() {
    let testnet = Testnet::up(1, 28_300);
    let refused = |ran: Ran, code: i32, words: &[&str]| {
        assert_eq!(ran.code, code, "{ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{:?} does not speak of {word}", ran.stderr);
        }
    };
    let config = testnet.node_config(1);
    let config = config.to_str().expect("plain path");
    let faulty = &["--allow-faults", "--fail-sync", "1"];
    refused(
        testnet.run(&["node", "run", "--config", config, "--fail-write", "7"]),
        2,
        &["--fail-write", "--allow-faults"],
    );
    refused(
        testnet.run(&["testnet", "restart", "n1", "--fail-sync", "7"]),
        2,
        &["--fail-sync", "--allow-faults"],
    );
    refused(
        testnet.run(&[&["testnet", "start", "n1"][..], faulty].concat()),
        2,
        &["n1", "restart"],
    );
    testnet.ok(&["put", "k", "none of these has stopped it"]);
    refused(
        testnet.run(&[&["testnet", "restart", "n1"][..], faulty].concat()),
        10,
        &["fsync 1 failed", "start the node again"],
    );
    fs::write(data(&testnet, 1).join("faults.toml"), "free_bites = 1").expect("ours");
    refused(
        testnet.run(&["testnet", "start", "n1", "--allow-faults"]),
        2,
        &["faults.toml", "free_bites"],
    );
    // without the word the file says nothing, and neither does the last start
    testnet.ok(&["testnet", "start", "n1"]);
    testnet.ok(&["put", "k", "v"]);
}

/// Too little free space: n2 takes no writes and says so, everything else goes on, and it recovers by itself. If no node
/// has room, a write is refused as what it is.
#[test]
fn a_node_on_a_full_disk_is_read_only_and_recovers_by_itself() {
    let testnet = Testnet::up(3, 28_400);
    testnet.ok(&["testnet", "restart", "--all", "--allow-faults"]);
    testnet.ok(&["put", "k", "before", "-w", "3"]);
    let full = |node: u32| {
        fs::write(data(&testnet, node).join("faults.toml"), "free_bytes = 1_000_000")
            .expect("ours");
    };
    let free = |node: u32| {
        fs::remove_file(data(&testnet, node).join("faults.toml")).expect("written before");
    };

    full(2);
    let ran = testnet.until_status(|ran| ran.stdout.contains("read-only: free space 976.6 KiB is"));
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(testnet.ok(&["get", "k", "--via", "n2", "-r", "3"]).contains("before"));
    testnet.ok(&["put", "k", "after", "--via", "n1"]);
    let ran = testnet.run(&["put", "l", "v", "-w", "3", "--via", "n1"]);
    assert_eq!(ran.code, 6, "two of three can store it: {ran:?}");
    assert!(ran.stderr.contains("n2 refused"), "{ran:?}");

    full(1);
    full(3);
    testnet.until_status(|ran| ran.stdout.matches("read-only").count() == 3);
    let ran = testnet.run(&["put", "m", "v"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("read-only: free space"), "{ran:?}");

    (1..=3).for_each(free);
    testnet.until_status(|ran| ran.code == 0);
    testnet.ok(&["put", "m", "v", "-w", "3"]);
    assert!(testnet.ok(&["get", "k", "-r", "3"]).contains("after"));
}

fn data(testnet: &Testnet, node: u32) -> PathBuf {
    testnet.folder().join(format!("n{node}/data"))
}

impl Testnet {
    /// Asks how the nodes are until the answer is what was to come.
    fn until_status(&self, is_right: impl Fn(&Ran) -> bool) -> Ran {
        let began = Instant::now();
        loop {
            let ran = self.run(&["status"]);
            if is_right(&ran) {
                return ran;
            }
            assert!(began.elapsed() < PATIENCE, "it does not come to that: {ran:?}");
        }
    }
}

/// A node that is our own child, so that we hear how it ends.
struct Started {
    process: Child,
    log: PathBuf,
}

impl Started {
    fn of(testnet: &Testnet, node: u32, arguments: &[&str]) -> Started {
        let log = testnet.folder().join(format!("n{node}/log-of-test"));
        let process = Command::new(env!("CARGO_BIN_EXE_atoll"))
            .args(["node", "run", "--config"])
            .arg(testnet.node_config(node))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("writable"))
            .spawn()
            .expect("the program runs");
        Started { process, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
