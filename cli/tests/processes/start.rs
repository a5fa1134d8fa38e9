//! What a node refuses to start on: each with the path and the mend, and exit 2, or 10 if its disk is not to be trusted.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    lost::journal,
    testnet::{Testnet, edit},
};

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

/// A journal without its tail opens without a word; our mark outside it tells. A single node has nobody to ask what is
/// missing, and says what can be done.
#[test]
fn a_single_node_that_lost_something_does_not_serve() {
    let testnet = Testnet::up(1, 24_400);
    for number in 0..20 {
        testnet.ok(&["put", &format!("k{number}"), "v"]);
    }
    testnet.ok(&["testnet", "kill", "n1"]);
    let journal = journal(&testnet, 1);
    let bytes = fs::read(&journal).expect("ours");
    // what was written ends where only zeros follow; take away its last third
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    fs::write(&journal, &bytes[..used - used / 3]).expect("ours");
    refuses(&testnet, 1, 10, &["lost its newest commits", "--first-start"]);
    refuses(&testnet, 1, 10, &["lost its newest commits"]); // it does not forget
    fs::remove_dir_all(testnet.folder().join("n1/data")).expect("ours");
    refuses(&testnet, 1, 10, &["is empty", "--first-start"]);
}

/// The directory of a node that runs was copied, and somebody starts the copy: it cannot have the address, and says whose
/// it is and where the original lies. With another address it is told which one the others know.
#[test]
fn a_copy_of_a_running_node_is_refused() {
    let testnet = Testnet::up(3, 24_600);
    let (original, copy) = (testnet.folder().join("n1"), testnet.folder().join("copy"));
    copy_folder(&original, &copy);
    let config = copy.join("node.toml");
    let text = fs::read_to_string(&config).expect("ours");
    let inside = |folder: &Path| folder.to_str().expect("plain path").to_owned();
    fs::write(&config, text.replace(&inside(&original), &inside(&copy))).expect("ours");
    let start = |config: &Path| {
        let ran = testnet.run(&["node", "run", "--config", &inside(config)]);
        assert_eq!(ran.code, 2, "{ran:?}");
        ran.stderr
    };
    let refused = start(&config);
    for word in ["copy/data is a copy of", "n1/data", "127.0.0.1:24600"] {
        assert!(refused.contains(word), "{refused:?} does not speak of {word}");
    }
    edit(&config, "127.0.0.1:24600", "127.0.0.1:24650");
    let refused = start(&config);
    for word in ["127.0.0.1:24600", "127.0.0.1:24650", "copy"] {
        assert!(refused.contains(word), "{refused:?} does not speak of {word}");
    }
    assert!(testnet.ok(&["status"]).contains("n1"), "nobody was disturbed");
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("ours");
    for entry in fs::read_dir(from).expect("ours").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(&from, &to).expect("ours");
        }
    }
}
