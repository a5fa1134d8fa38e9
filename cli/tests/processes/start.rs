//! What a node refuses to start on: each with the path and the mend, and exit 2, or 10 if its disk is not to be trusted.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::testnet::{Testnet, edit};

fn refuses(testnet: &Testnet, node: u32, code: i32, words: &[&str]) {
    let config = testnet.node_config(node);
    let ran = testnet.run(&["node", "run", "--config", config.to_str().expect("plain path")]);
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{:?} does not speak of {word}", ran.stderr);
    }
}

#[test]
fn unsafe_or_wrong_settings_are_refused() {
    let testnet = Testnet::up(3, 24_000);
    // the directory is in use: this very node is running
    refuses(&testnet, 1, 2, &["another process", "n1/data"]);
    testnet.ok(&["testnet", "stop", "n1"]);

    let key = testnet.folder().join("n1/node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
    refuses(&testnet, 1, 2, &["node.key", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");

    let config = testnet.node_config(1);
    edit(&config, "listen", "lisen");
    refuses(&testnet, 1, 2, &["lisen"]);
    edit(&config, "lisen", "listen");

    edit(&config, "node = \"n1\"", "node = \"n2\"");
    refuses(&testnet, 1, 2, &["not the certificate of n2"]);
    edit(&config, "node = \"n2\"", "node = \"n1\"");

    let identity = testnet.folder().join("n1/data/identity");
    edit(&identity, "format = 1", "format = 99");
    refuses(&testnet, 1, 2, &["data format 99"]);
    edit(&identity, "format = 99", "format = 1");

    testnet.ok(&["testnet", "start", "n1"]);
}

/// A disk that was emptied is not mistaken for a new node's: its silence would be taken for knowledge.
#[test]
fn an_emptied_data_directory_is_not_a_first_start() {
    let testnet = Testnet::up(3, 24_200);
    testnet.ok(&["put", "k", "v", "-w", "3"]);
    testnet.ok(&["testnet", "kill", "n2"]);
    fs::remove_dir_all(testnet.folder().join("n2/data")).expect("ours");
    refuses(&testnet, 2, 2, &["is empty", "--first-start"]);
    let ran = testnet.run(&["testnet", "start", "n2"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(testnet.ok(&["get", "k"]).contains('v'), "the others carry on");
}

/// A journal without its tail opens without a word; our mark outside it tells.
#[test]
fn a_journal_that_lost_its_tail_is_noticed() {
    let testnet = Testnet::up(1, 24_400);
    for number in 0..20 {
        testnet.ok(&["put", &format!("k{number}"), "v"]);
    }
    testnet.ok(&["testnet", "kill", "n1"]);
    let store = testnet.folder().join("n1/data/store");
    let mut cut = 0;
    for entry in walk(&store) {
        if entry.extension().is_some_and(|extension| extension == "jnl") {
            let bytes = fs::read(&entry).expect("ours");
            // what was written ends where only zeros follow; take away its last third
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                fs::write(&entry, &bytes[..used - used / 3]).expect("ours");
                cut += 1;
            }
        }
    }
    assert!(cut > 0, "no journal found in {}", store.display());
    refuses(&testnet, 1, 10, &["lost its newest commits"]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("ours").flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(walk(&path)),
            path => files.push(path),
        }
    }
    files
}
