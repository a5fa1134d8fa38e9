//! Buckets from the command line: made, filled, altered, dropped, and what each refusal says.

use serde_json::Value;

use crate::testnet::Testnet;

fn json(testnet: &Testnet, arguments: &[&str]) -> Value {
    let text = testnet.ok(&[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A bucket has its own keys, its own choices and an end; every node knows it when the command comes back.
#[test]
fn the_life_of_a_bucket() {
    let testnet = Testnet::up(5, 29_100);
    let made = json(&testnet, &["bucket", "create", "carts", "--kind", "register", "--n", "2"]);
    assert_eq!(made["changed"], true);
    assert_eq!(made["known_on"].as_array().map(Vec::len), Some(5), "{made}");
    let again = json(&testnet, &["bucket", "create", "carts", "--kind", "register", "--n", "2"]);
    assert_eq!((&again["changed"], &again["id"]), (&false.into(), &made["id"]));

    testnet.ok(&["put", "k", "in carts", "--bucket", "carts"]);
    testnet.ok(&["put", "k", "in default"]);
    assert!(testnet.ok(&["get", "k", "--bucket", "carts", "--raw"]) == "in carts");
    assert!(testnet.ok(&["get", "k", "--raw"]) == "in default");
    let found = json(&testnet, &["ring", "lookup", "k", "--bucket", "carts"]);
    assert_eq!(found["owners"].as_array().map(Vec::len), Some(2), "{found}");
    let read = json(&testnet, &["get", "k", "--bucket", "carts"]);
    assert_eq!((&read["receipt"]["n"], &read["receipt"]["needed"]), (&2.into(), &2.into()));

    testnet.ok(&["bucket", "alter", "carts", "-r", "one", "--timeout", "2s", "--strict"]);
    let read = json(&testnet, &["get", "k", "--bucket", "carts"]);
    assert_eq!(
        (&read["receipt"]["needed"], &read["receipt"]["owners_needed"]),
        (&1.into(), &1.into())
    );
    let shown = json(&testnet, &["bucket", "show", "carts"]);
    assert_eq!(shown["properties"]["timeout"], "2s", "{shown}");
    let knowing = shown["nodes"].as_object().expect("by node").values();
    assert_eq!(knowing.filter(|says| *says == "knows").count(), 5, "{shown}");
    testnet.ok(&["bucket", "alter", "carts", "--unset", "r", "--unset", "sloppy"]);
    let read = json(&testnet, &["get", "k", "--bucket", "carts"]);
    assert_eq!(read["receipt"]["needed"], 2);

    testnet.ok(&["del", "k", "--bucket", "carts"]);
    assert_eq!(testnet.run(&["get", "k", "--bucket", "carts"]).code, 3);
    testnet.ok(&["put", "k", "again", "--bucket", "carts"]);
    let asks = testnet.run(&["bucket", "drop", "carts"]);
    assert!(asks.code == 2 && asks.stderr.contains("--yes"), "{asks:?}");
    testnet.ok(&["bucket", "drop", "carts", "--yes"]);
    let gone = testnet.run(&["get", "k", "--bucket", "carts"]);
    assert!(gone.code == 2 && gone.stderr.contains("was dropped"), "{gone:?}");
    let listed = json(&testnet, &["bucket", "list"]);
    assert_eq!(listed["buckets"].as_array().map(Vec::len), Some(1), "{listed}");
    let listed = json(&testnet, &["bucket", "list", "--all"]);
    assert_eq!(listed["buckets"].as_array().map(Vec::len), Some(2), "{listed}");

    testnet.ok(&["bucket", "create", "carts", "--kind", "register"]);
    assert_eq!(testnet.run(&["get", "k", "--bucket", "carts"]).code, 3, "a new one is empty");
}

/// Each rule by its words, and nothing changed.
#[test]
fn what_cannot_be_says_why() {
    let testnet = Testnet::up(3, 29_200);
    testnet.ok(&["bucket", "create", "a", "--kind", "counter", "--n", "2"]);
    let before = testnet.ok(&["bucket", "list", "--all", "-o", "json"]);
    let long = "x".repeat(129);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["create", "", "--kind", "set"], 2, "needs a name"),
        (&["create", &long, "--kind", "set"], 2, "at most 128 bytes, this one 129"),
        (&["create", "a\tb", "--kind", "set"], 2, "no control characters"),
        (&["create", "a@b", "--kind", "set"], 2, "no `@`"),
        (&["create", "default", "--kind", "set"], 2, "choose another name"),
        (&["create", "b", "--kind", "list"], 2, "register"),
        (&["create", "b", "--kind", "set", "--n", "4"], 2, "more than the 3 owners"),
        (&["create", "b", "--kind", "set", "--n", "0"], 2, "N=0"),
        (&["create", "b", "--kind", "lww", "--ttl", "0s"], 2, "time to live of 0"),
        (&["create", "b", "--kind", "lww", "--ttl", "101years"], 2, "at most 100 years"),
        (&["create", "b", "--kind", "set", "--ttl", "1h"], 2, "does not expire"),
        (&["create", "b", "--kind", "set", "-r", "4"], 2, "r=4"),
        (&["create", "b", "--kind", "set", "--timeout", "61s"], 2, "60000 ms"),
        (&["create", "b", "--kind", "register", "--value-bytes-max", "1048577"], 2, "1048576"),
        (&["create", "b", "--kind", "set", "--elements-max", "1001"], 2, "1 to 1000"),
        (&["create", "a", "--kind", "set", "--n", "2"], 8, "exists already, as counter"),
        (&["alter", "a", "--kind", "set"], 2, "kind of a bucket is fixed"),
        (&["alter", "a", "--n", "3"], 2, "N of a bucket is fixed"),
        (&["alter", "a"], 2, "nothing to alter"),
        (&["alter", "b", "-r", "1"], 2, "no bucket `b`"),
        (&["alter", "a", "-w", "3"], 2, "w=3"),
        (&["drop", "default", "--yes"], 2, "cannot be dropped"),
        (&["drop", "b", "--yes"], 2, "no bucket `b`"),
        (&["show", "a@12"], 2, "8 to 32 hexadecimal digits"),
    ];
    for (arguments, code, words) in cases {
        let ran = testnet.run(&[&["bucket"], *arguments].concat());
        assert_eq!(ran.code, *code, "atoll bucket {}: {ran:?}", arguments.join(" "));
        assert!(ran.stderr.contains(words), "{:?} does not say {words}", ran.stderr);
        assert!(ran.stdout.is_empty(), "an error belongs on stderr: {ran:?}");
    }
    assert_eq!(testnet.ok(&["bucket", "list", "--all", "-o", "json"]), before);
    let read = testnet.run(&["get", "k", "--bucket", "b"]);
    assert!(read.code == 2 && read.stderr.contains("no bucket `b`"), "{read:?}");
}
