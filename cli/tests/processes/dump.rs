//! `atoll debug dump`: an operator looks at the disk of one node.

use serde_json::Value;

use crate::testnet::Testnet;

/// What was put is there on each owner and nowhere else, in every format.
#[test]
fn a_dump_of_a_real_node() {
    let testnet = Testnet::up(4, 24_600);
    testnet.ok(&["put", "tea", "green", "-w", "all"]);
    let json = |arguments: &[&str]| -> Value {
        let all = [arguments, &["-o", "json"]].concat();
        serde_json::from_str(&testnet.ok(&all)).expect("JSON")
    };
    let place = json(&["ring", "lookup", "tea"]);
    let partition = place["partition"].to_string();
    let owner = place["owners"][0].as_str().expect("a name");
    let document = json(&["debug", "dump", &partition, "--node", owner]);
    assert_eq!(document["schema"], "atoll.dump/v1");
    let row = &document["rows"][0];
    assert_eq!((&row["key"], &row["values"][0]["text"]), (&"tea".into(), &"green".into()), "{row}");
    assert_eq!((&row["damaged"], &row["in_doubt"]), (&false.into(), &false.into()), "{row}");
    assert_eq!(row["context"].as_array().map(Vec::len), Some(1), "{row}");
    let table = testnet.ok(&["debug", "dump", &partition, "--node", owner]);
    assert!(table.contains("=green") && table.contains("1 rows"), "{table}");
    let fallback = place["fallbacks"][0].as_str().expect("four nodes");
    let document = json(&["debug", "dump", &partition, "--node", fallback, "--hints"]);
    assert_eq!(document["rows"].as_array().map(Vec::len), Some(0), "{document}");
}
