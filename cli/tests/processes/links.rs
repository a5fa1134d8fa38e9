//! Links between real nodes are cut and healed from the command line.

use serde_json::Value;

use crate::testnet::{Ran, Testnet, until};

/// A partition takes effect when the command returns: the side without a majority refuses strict writes, the other takes
/// them, `fault ls` shows both; a restarted node is still cut off. Healed, both sides write again.
#[test]
fn a_partition_is_seen_and_heals() {
    let testnet = Testnet::up_with_faults(3, 31_000);
    let put = |via: &str| {
        let strict = ["put", "k", "v", "--blind", "--strict", "--timeout", "2s", "--via", via];
        testnet.run(&strict).code
    };
    assert_eq!((put("n1"), put("n2")), (0, 0));
    testnet.ok(&["testnet", "fault", "partition", "n1"]);
    assert!([6, 7].contains(&put("n1")), "n1 wrote without a majority");
    assert_eq!(put("n2"), 0);
    let cut = ["n1 n2 cut now", "n1 n3 cut now", "n2 n1 cut now", "n3 n1 cut now"];
    assert_eq!(listed(&testnet), cut);
    testnet.ok(&["testnet", "restart", "n3"]);
    assert_eq!(listed(&testnet), cut);

    // another cut takes its place, what is slow stays
    testnet.ok(&["testnet", "fault", "slow", "n2", "n3", "20ms±5"]);
    testnet.ok(&["testnet", "fault", "isolate", "n1", "--oneway", "in"]);
    let one_way =
        ["n2 n1 cut now", "n2 n3 20 ms ± 5 ms now", "n3 n1 cut now", "n3 n2 20 ms ± 5 ms now"];
    assert_eq!(listed(&testnet), one_way);

    testnet.ok(&["testnet", "heal"]);
    assert_eq!(listed(&testnet), [""; 0]);
    until("n1 writes again", || put("n1") == 0);
    assert_eq!(put("n2"), 0);
}

/// A fault with an end heals though nobody does anything; one of a node that does not run waits for it, and is not lost
/// with its data.
#[test]
fn nodes_keep_times_and_faults_by_themselves() {
    let testnet = Testnet::up_with_faults(3, 31_100);
    testnet.ok(&["testnet", "fault", "isolate", "n1", "--for", "1s"]);
    until("it is over", || listed(&testnet).is_empty());
    until("n1 writes again", || {
        let put = ["put", "k", "v", "--blind", "--strict", "--timeout", "2s", "--via", "n1"];
        testnet.run(&put).code == 0
    });

    testnet.ok(&["testnet", "stop", "n3"]);
    let told = testnet.ok(&["testnet", "fault", "isolate", "n3", "-o", "json"]);
    let told: Value = serde_json::from_str(&told).expect("a document");
    let effects: Vec<&str> = told["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| text(&node["takes_effect"]))
        .collect();
    assert_eq!(effects, ["now", "now", "when started"]);
    testnet.ok(&["testnet", "wipe", "n3"]);
    let waits =
        ["n1 n3 cut now", "n2 n3 cut now", "n3 n1 cut when started", "n3 n2 cut when started"];
    assert_eq!(listed(&testnet), waits);
    testnet.ok(&["testnet", "heal", "--all"]);
    assert_eq!(listed(&testnet), [""; 0]);
}

/// What cannot be is refused with what could be, and changes nothing.
#[test]
fn faults_that_cannot_be_are_refused() {
    let refused = |testnet: &Testnet, arguments: &[&str], words: &[&str]| {
        let ran: Ran = testnet.run(&[&["testnet"][..], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{:?} does not speak of {word:?}", ran.stderr);
        }
    };
    let whole = Testnet::up(2, 31_200);
    refused(&whole, &["fault", "partition", "n1"], &["n1 of testnet dev", "--allow-faults"]);
    refused(&whole, &["fault", "ls"], &["--allow-faults"]);
    refused(&whole, &["up", "--allow-faults"], &["dev runs", "testnet down dev"]);
    whole.ok(&["testnet", "down"]);
    whole.ok(&["testnet", "up", "--allow-faults"]);
    whole.ok(&["testnet", "restart", "n1"]);
    whole.ok(&["testnet", "fault", "ls"]);

    let testnet = Testnet::up_with_faults(3, 31_300);
    testnet.ok(&["testnet", "fault", "isolate", "n1"]);
    let before = listed(&testnet);
    for (arguments, words) in [
        (&["partition", "n1", "n9"][..], &["no node n9", "n1 to n3"][..]),
        (&["partition", "n1", ""], &["a group has no nodes", "n1,n2 n3"]),
        (&["partition", "n1,n2", "n2,n3"], &["n2 is in two groups"]),
        (&["partition", "n1,n2,n3"], &["cuts nothing"]),
        (&["isolate", "n7"], &["no node n7"]),
        (&["ring"], &["ring needs at least 4 nodes", "testnet add"]),
        (&["slow", "n1", "n1", "40ms"], &["n1 is named twice"]),
        (&["slow", "n1", "n2"], &["no delay", "40ms±10ms"]),
        (&["flaky", "5"], &["no chance"]),
        (&["drop", "5%", "--every", "20s"], &["--for"]),
        (&["drop", "5%", "--for", "30s", "--every", "20s"], &["a longer --every"]),
        (&["rate", "fast"], &["no rate"]),
    ] {
        refused(&testnet, &[&["fault"], arguments].concat(), words);
    }
    testnet.ok(&["testnet", "stop", "n3"]);
    refused(&testnet, &["fault", "wan3"], &["n3 is stopped"]);
    testnet.ok(&["testnet", "start", "n3"]);
    assert_eq!(listed(&testnet), before);
}

/// What `fault ls` lists: from, to, what, and whether it is so now.
fn listed(testnet: &Testnet) -> Vec<String> {
    let listed = testnet.ok(&["testnet", "fault", "ls", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).expect("a document");
    assert_eq!(listed["schema"], "atoll.testnet-faults/v1");
    let line = |fault: &Value| {
        let words = ["from", "to", "what", "state"].map(|word| text(&fault[word]).to_owned());
        words.join(" ")
    };
    listed["faults"].as_array().expect("a list").iter().map(line).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}
