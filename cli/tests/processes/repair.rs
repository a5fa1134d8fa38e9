//! `atoll repair`: real nodes compare and mend, and say so.

use serde_json::Value;

use crate::testnet::Testnet;

/// Writes that only one owner took part in are brought to the others by comparing, and by nobody reading them. Status tells
/// how many keys were mended, and when all last agreed; a node that does not answer is named.
#[test]
fn owners_of_real_nodes_agree() {
    let testnet = Testnet::up(3, 24_700);
    let json = |arguments: &[&str]| -> Value {
        let all = [arguments, &["-o", "json"]].concat();
        serde_json::from_str(&testnet.ok(&all)).expect("JSON")
    };
    for number in 0..20 {
        testnet.ok(&["put", &format!("k{number}"), "v", "-n", "1"]);
    }
    let place = json(&["ring", "lookup", "k7"]);
    let partition = place["partition"].to_string();
    let ran = json(&["repair", "run", &partition]);
    assert_eq!(ran["schema"], "atoll.repair-run/v1");
    assert_eq!((&ran["partitions"], &ran["compared"]), (&1.into(), &1.into()), "{ran}");
    let all = testnet.ok(&["repair", "run"]);
    assert!(all.starts_with("compared 1024 of 1024 partitions"), "{all}");
    for owner in place["owners"].as_array().expect("three owners") {
        let owner = owner.as_str().expect("a name");
        let dump = json(&["debug", "dump", &partition, "--node", owner]);
        assert_eq!(dump["rows"][0]["key"], "k7", "{owner}: {dump}");
    }
    let status = json(&["repair", "status"]);
    assert_eq!(status["schema"], "atoll.repair/v1");
    assert_eq!(status["partitions"].as_array().map(Vec::len), Some(1024));
    assert!(status["lag_ms"].as_u64().is_some_and(|lag| lag <= 12_000), "{}", status["lag_ms"]);
    let mended = status["keys_repaired"].as_u64().expect("a number");
    assert!((20..=120).contains(&mended), "{mended}"); // each of 20 keys lacked on two owners
    let table = testnet.ok(&["repair", "status"]);
    assert!(table.contains("every partition compared within"), "{table}");
    assert!(table.contains("partitions are equal on all owners and always were"), "{table}");

    testnet.ok(&["testnet", "kill", "n3"]);
    let degraded = testnet.run(&["repair", "run", &partition, "--timeout", "2s"]);
    assert_eq!(degraded.code, 5, "{degraded:?}");
    assert!(degraded.stderr.contains("n3"), "{degraded:?}");
    assert_eq!(testnet.run(&["repair", "status"]).code, 5);
}
