//! Whom a command means, and what scripts are told: selectors, `env`, and the logs of all nodes as one.

use std::process::Command;

use serde_json::{Value, json};

use crate::testnet::Testnet;

/// Words instead of names lead to the same nodes each time, every command says to whom, and whoever means nobody is refused
/// before anything is done.
#[test]
fn words_for_nodes() {
    let testnet = Testnet::up(3, 32_000);
    let nodes = |arguments: &[&str]| -> (Value, Value) {
        let all = [&["testnet"], arguments, &["-o", "json"]].concat();
        let document: Value = serde_json::from_str(&testnet.ok(&all)).expect("JSON");
        assert_eq!(document["deed"], arguments[0], "{document}");
        (document["nodes"].clone(), document["seed"].clone())
    };
    assert_eq!(nodes(&["pause", "minority"]), (json!(["n3"]), Value::Null));
    assert_eq!(nodes(&["resume", "minority"]).0, json!(["n3"]));
    assert_eq!(nodes(&["pause", "n2,n1"]).0, json!(["n1", "n2"]));
    assert_eq!(nodes(&["resume", "zone:z1"]).0, json!(["n1", "n2", "n3"]));

    // one copy has one owner, and that is who is meant
    testnet.ok(&["bucket", "create", "carts", "--kind", "register", "--n", "1"]);
    let place = testnet.ok(&["ring", "lookup", "cart:7", "--bucket", "carts", "-o", "json"]);
    let place: Value = serde_json::from_str(&place).expect("JSON");
    let stopped = nodes(&["stop", "owners-of:cart:7", "--bucket", "carts"]).0;
    assert_eq!((&stopped, stopped.as_array().map(Vec::len)), (&place["owners"], Some(1)));
    nodes(&["start", "--all"]);

    let (by_chance, seed) = nodes(&["restart", "--random", "2"]);
    assert_eq!(by_chance.as_array().map(Vec::len), Some(2));
    let seed = seed.to_string();
    let killed = testnet.run(&["testnet", "kill", "--random", "2", "--seed", &seed]);
    for node in by_chance.as_array().expect("two") {
        let said = format!("{} ", node.as_str().expect("a name"));
        assert!(killed.stderr.contains(&said) && killed.stderr.contains("killed"), "{killed:?}");
    }
    assert!(killed.stderr.contains(&format!("--seed {seed}")), "{killed:?}");

    for (arguments, words) in [
        (&["kill", "n9"][..], "it has n1 to n3"),
        (&["kill", "zone:z9"], "it has z1"),
        (&["kill", "n1", "rack:1"], "owners-of:KEY"),
        (&["kill", "--random", "4"], "--random 3 at most"),
        (&["kill", "--random", "n1"], "n1 --random"),
        (&["kill", "n1", "--all"], "cannot be used with"),
        (&["kill", "n1", "--seed", "7"], "add --random"),
        (&["kill", "n1", "--bucket", "carts"], "owners-of:KEY --bucket NAME"),
        (&["kill"], "required"),
    ] {
        let refused = testnet.run(&[&["testnet"], arguments].concat());
        assert_eq!(refused.code, 2, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(words), "{arguments:?}: {refused:?}");
    }
    let status = testnet.run(&["testnet", "status", "-o", "json"]).stdout;
    assert_eq!(status.matches("\"dead\"").count(), 2, "nobody else was killed: {status}");

    a_shell_that_was_told(&testnet);
    one_time_line(&testnet);
}

/// `eval "$(atoll testnet env)"` makes a shell speak to this testnet, wherever its home is.
fn a_shell_that_was_told(testnet: &Testnet) {
    let script = r#"eval "$("$PROGRAM" testnet env)"; unset ATOLL_HOME
        echo "$ATOLL_TESTNET|$ATOLL_NODES|$(echo $ATOLL_NODES_RUNNING | wc -w)|$ATOLL_N2_ADDRESS"
        "$PROGRAM" put told yes --blind -w 1 >&2; "$PROGRAM" get told -r 1 -o plain"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).env("PROGRAM", env!("CARGO_BIN_EXE_atoll"));
    shell.env("ATOLL_HOME", testnet.folder().join("../..")).env_remove("ATOLL_CLUSTER");
    let output = shell.env_remove("ATOLL_TESTNET").output().expect("a shell");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed.lines().next(), Some("dev|n1 n2 n3|1|127.0.0.1:32001"), "{output:?}");
    assert!(printed.contains("yes"), "{output:?}");
    let document: Value =
        serde_json::from_str(&testnet.ok(&["testnet", "env", "-o", "json"])).expect("JSON");
    assert_eq!(document["nodes"][2]["address"], "127.0.0.1:32002", "{document}");
}

/// Lines of all nodes, in the order of their times.
fn one_time_line(testnet: &Testnet) {
    let merged = testnet.ok(&["testnet", "logs", "--merged"]);
    assert!(merged.lines().count() > 6, "{merged}");
    for node in ["n1", "n2", "n3"] {
        assert!(merged.contains(&format!(" {node}  | ")), "{merged}");
    }
    let documents = |arguments: &[&str]| -> Vec<Value> {
        let all = [&["testnet", "logs", "-o", "json"], arguments].concat();
        let lines = testnet.ok(&all);
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let all = documents(&["--merged"]);
    let times: Vec<&str> = all.iter().filter_map(|line| line["time"].as_str()).collect();
    assert_eq!((times.is_sorted(), times.len()), (true, merged.lines().count()));
    for document in documents(&["minority"]) {
        assert_eq!(document["schema"], "atoll.testnet-log/v1");
        assert_eq!(document["node"], "n3");
    }
}
