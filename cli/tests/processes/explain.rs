//! What the program says of a request before it is made, and of its steps afterwards.

use serde_json::Value;

use crate::testnet::Testnet;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Explained first, then done and traced: the same owners, the promise that was announced, and steps of several nodes. With
/// an owner killed the explanation names it.
#[test]
fn a_request_is_explained_and_then_traced() {
    let testnet = Testnet::up(4, 27_300);
    let explained = json(&testnet.ok(&["explain", "k", "--strict", "-o", "json"]));
    assert_eq!(explained["schema"], "atoll.explain/v1");
    assert_eq!(explained["consistency"], "strict");
    assert_eq!(explained["may_fail"]["read"], 1);
    let owners: Vec<&str> = explained["replicas"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|replica| replica["role"].as_str().is_some_and(|role| role.starts_with("owner")))
        .map(|replica| replica["node"].as_str().expect("a name"))
        .collect();
    assert_eq!(owners.len(), 3, "{explained}");

    let put = testnet.run(&["put", "k", "v", "--strict", "-w", "all", "-v"]);
    assert_eq!(put.code, 0, "{}", put.stderr);
    for owner in &owners {
        let line = put.stderr.lines().find(|line| line.contains(&format!("{owner}  ")));
        let line = line.unwrap_or_else(|| panic!("no line of {owner}: {}", put.stderr));
        assert!(
            line.contains("owner") && line.contains("durable") && line.contains(" ms"),
            "{line}"
        );
    }
    assert!(put.stderr.contains("have one in common"), "{}", put.stderr);

    let got = json(&testnet.ok(&["get", "k", "--strict", "--trace", "-o", "json"]));
    assert_eq!(got["receipt"]["promise"], explained["consistency"]);
    let steps = got["receipt"]["trace"]["steps"].as_array().expect("it was traced");
    let by = |step: &str| steps.iter().filter(|it| it["step"] == step).count();
    assert_eq!((by("arrived"), by("replied"), by("decided")), (2, 2, 1), "{steps:?}");
    let told = testnet.run(&["get", "k", "--trace"]);
    assert!(told.stderr.contains("steps in microseconds"), "{}", told.stderr);
    let plain = json(&testnet.ok(&["get", "k", "-v", "-o", "json"]));
    assert!(plain["receipt"].get("trace").is_none(), "only who asks gets one");

    testnet.ok(&["testnet", "kill", owners[2]]);
    let asked = ["explain", "k", "--via", owners[0], "-o", "json"];
    let is_down = |explained: &Value| {
        let replicas = explained["replicas"].as_array().expect("a list");
        replicas.iter().any(|it| it["node"] == owners[2] && it["state"] == "down")
    };
    while !is_down(&json(&testnet.ok(&asked))) {} // until its silence is noticed
    let strict = ["explain", "k", "--strict", "--via", owners[0], "-o", "json"];
    let explained = json(&testnet.ok(&strict));
    assert_eq!(explained["may_fail"]["read"], 0, "{explained}");
    let refused = testnet.run(&["put", "k", "w", "--strict", "-w", "all", "--via", owners[0]]);
    assert_eq!(refused.code, 6, "{}", refused.stderr);
    let named = format!("{} is down", owners[2]);
    assert!(refused.stderr.contains(&named), "{}", refused.stderr);
    assert!(refused.stderr.contains("nothing was stored anywhere"), "{}", refused.stderr);

    let refused = testnet.run(&["explain", "k", "-r", "4"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let refused = testnet.run(&["explain", "k", "--via", "n9"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
}
