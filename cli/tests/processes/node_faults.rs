//! What goes wrong within real nodes, from the command line: disks, clocks, certificates.

use serde_json::Value;

use crate::testnet::{Testnet, until};

/// Each fault is noticed by whoever uses the node, listed, and gone when it is healed.
#[test]
fn disks_and_clocks_go_wrong_and_are_healed() {
    let testnet = Testnet::up_with_faults(3, 32_300);
    let put_all = |bucket: &str| {
        let put = ["put", "k", "v", "--blind", "--bucket", bucket, "-w", "all", "--strict"];
        testnet.run(&[&put[..], &["--timeout", "2s", "--via", "n1"]].concat()).code
    };
    let broken = |arguments: &[&str], listed: &str| {
        testnet.ok(&[&["testnet", "fault"], arguments].concat());
        let list = testnet.ok(&["testnet", "fault", "ls", "-o", "plain"]);
        assert!(list.contains(listed) && list.lines().count() == 1, "{arguments:?}: {list}");
    };
    let heal = || testnet.ok(&["testnet", "heal", "--all"]);
    assert_eq!(put_all("default"), 0);

    broken(&["disk", "full", "n2"], "n2\t-\tdisk\t0 bytes free\tnow");
    until("n2 takes no writes", || testnet.run(&["status"]).stdout.contains("read-only"));
    assert_ne!(put_all("default"), 0);
    heal();
    until("n2 takes writes again", || put_all("default") == 0);

    broken(&["disk", "slow", "minority", "10s"], "n3\t-\tdisk\tslower by 10000 ms\tnow");
    assert!([6, 7].contains(&put_all("default")), "n3 has fsynced at once");
    let two = ["put", "k", "v", "--blind", "-w", "2", "--via", "n1"];
    testnet.ok(&two);
    assert!(testnet.ok(&["get", "k", "-r", "1", "--via", "n3"]).contains('v'), "reads go on");
    heal();
    until("n3 is fast again", || put_all("default") == 0);

    let is_off = || {
        let said = testnet.run(&["status"]).stdout;
        said.contains("takes no writes that go by time: its clock is 36") && said.contains("behind")
    };
    assert!(!is_off());
    broken(&["clock", "n1", "-1h"], "n1\t-\tclock\tahead by -3600000 ms\tnow");
    until("n1 takes no writes that its clock would order", is_off);
    assert_eq!(put_all("default"), 0, "nothing else goes by the clock");
    testnet.ok(&["testnet", "restart", "n1"]);
    until("a restart does not set it right", is_off);
    heal();
    until("n1 goes by the right time", || !is_off());

    for (arguments, words) in [
        (&["disk", "slow", "n1", "1h"][..], "1 to 10000"),
        (&["disk", "full", "n9"], "it has n1 to n3"),
        (&["clock", "n1", "1h"], "such as +1h or -5m"),
        (&["clock", "n1", "+1h", "--seed", "7"], "leave it out"),
    ] {
        let refused = testnet.run(&[&["testnet", "fault"], arguments].concat());
        assert_eq!(refused.code, 2, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(words), "{arguments:?}: {refused:?}");
    }
    assert_eq!(testnet.ok(&["testnet", "fault", "ls", "-o", "plain"]), "");
}

/// A certificate really expires: whoever wants to speak to the node is refused, be it a peer that starts anew. What began
/// before goes on. Healed, the node is spoken to without a restart of its own.
#[test]
fn a_certificate_expires_and_is_renewed() {
    let testnet = Testnet::up_with_faults(3, 32_400);
    testnet.ok(&["put", "k", "v", "-w", "all"]);
    let paused = testnet.run(&["testnet", "pause", "n2"]);
    assert_eq!(paused.code, 0, "{paused:?}");
    let refused = testnet.run(&["testnet", "fault", "certs", "expire", "n2"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("atoll testnet resume n2"), "{refused:?}");
    testnet.ok(&["testnet", "resume", "n2"]);

    testnet.ok(&["testnet", "fault", "certs", "expire", "n2"]);
    let list = testnet.ok(&["testnet", "fault", "ls", "-o", "plain"]);
    assert!(list.contains("n2\t-\tcertificate\texpired\tnow"), "{list}");
    assert_ne!(testnet.run(&["get", "k", "--via", "n2", "--timeout", "2s"]).code, 0);
    testnet.ok(&["put", "k", "w", "-w", "all", "--via", "n1"]);
    testnet.ok(&["testnet", "restart", "n3"]);
    let hears_n2 = || {
        let status = testnet.run(&["status", "-o", "json"]);
        let document: Value = serde_json::from_str(&status.stdout).expect("JSON");
        let peers = document["nodes"][2]["status"]["peers"].as_array().cloned().unwrap_or_default();
        peers.iter().any(|peer| peer["node"] == "n2" && peer["up"] == true)
    };
    assert!(!hears_n2(), "n3 has begun anew, and takes what has expired");
    testnet.ok(&["put", "k", "x", "-w", "2", "--via", "n3"]);

    testnet.ok(&["testnet", "heal", "--all"]);
    assert_eq!(testnet.ok(&["testnet", "fault", "ls", "-o", "plain"]), "");
    until("n3 hears n2 again", hears_n2);
    let log = testnet.log(2);
    assert_eq!(log.matches("certificate renewed").count(), 2, "it was never restarted: {log}");
}
