//! Damage to the disk of a real node, brought about by the program: what the node makes of it.

use serde_json::Value;

use crate::testnet::{Testnet, until};

/// Three records are damaged, all of them found by whoever reads them, and none is missing: the node has them back from the
/// others. Then its journal loses its end: it comes back as another, and again nothing is missing.
#[test]
fn a_damaged_disk_is_repaired_by_the_others() {
    let testnet = Testnet::up(3, 32_100);
    let json = |arguments: &[&str]| -> Value {
        let all = [arguments, &["-o", "json"]].concat();
        serde_json::from_str(&testnet.ok(&all)).expect("JSON")
    };
    let read_all = || {
        for number in 0..20 {
            let key = format!("k{number}");
            assert!(testnet.ok(&["get", &key, "--via", "n2", "--strict"]).contains('v'), "{key}");
        }
    };
    for number in 0..20 {
        testnet.ok(&["put", &format!("k{number}"), "v", "-w", "all"]);
    }

    let corrupt = json(&["testnet", "corrupt", "n2", "--records", "3"]);
    assert_eq!(corrupt["schema"], "atoll.testnet-corrupt/v1");
    let records = corrupt["records"].as_array().expect("three");
    assert_eq!(records.len(), 3, "{corrupt}");
    testnet.ok(&["testnet", "start", "n2"]);
    let row = |record: &Value| -> Value {
        let partition = record["partition"].to_string();
        let rows = json(&["debug", "dump", &partition, "--node", "n2"])["rows"].clone();
        let mut rows = rows.as_array().expect("rows").iter();
        rows.find(|row| row["key"] == record["key"]).expect("it is there").clone()
    };
    for record in records {
        assert_eq!(row(record)["damaged"], true, "nobody has read it yet: {record}");
    }
    read_all();
    for record in records {
        until("the record is whole again", || {
            row(record)["damaged"] == false && row(record)["values"][0]["text"] == "v"
        });
    }
    assert!(testnet.log(2).contains("damaged"), "{}", testnet.log(2));
    assert_eq!(testnet.run(&["repair", "status"]).code, 0);

    let cut = json(&["testnet", "truncate-journal", "n2", "--bytes", "2000"]);
    let journal = &cut["journals"][0];
    let bytes = |name: &str| journal[name].as_u64().expect("a number");
    assert_eq!(bytes("bytes_before") - bytes("bytes_after"), 2000, "{cut}");
    testnet.ok(&["testnet", "start", "n2"]);
    assert!(testnet.log(2).contains("has lost its newest commits"), "{}", testnet.log(2));
    let status = testnet.run(&["status", "-o", "json"]); // it is in doubt, so the exit code is that of a degraded cluster
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["nodes"][1]["status"]["incarnation"], 1, "{status}");
    read_all();

    let refused = testnet.run(&["testnet", "corrupt", "n3", "--records", "1000000"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("at most"), "{refused:?}");
    testnet.ok(&["testnet", "wipe", "n3"]);
    for command in ["corrupt", "truncate-journal"] {
        let refused = testnet.run(&["testnet", command, "n3"]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("holds no data"), "{refused:?}");
    }
}
