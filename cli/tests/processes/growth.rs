//! Nodes come and go while the cluster serves: with `testnet add` and `decommission`, and with the papers and commands of a
//! cluster on several machines.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::testnet::{Ran, Testnet};

/// Three nodes become four and three again, others than before. Every key is there all the time, and at the end on each of
/// its owners.
#[test]
fn three_to_four_and_back() {
    let testnet = Testnet::up_with_partitions(3, 26_400, 64);
    let keys: Vec<String> = (0..40).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        testnet.ok(&["put", key, &format!("of {key}"), "-w", "all"]);
    }
    let all_are_there = |quorum: &str| {
        for key in &keys {
            let got = testnet.ok(&["get", key, "--raw", "-r", quorum]);
            assert_eq!(got, format!("of {key}"), "with r = {quorum}");
        }
    };

    let added: Value =
        serde_json::from_str(&testnet.ok(&["testnet", "add", "--zone", "z2", "-o", "json"]))
            .expect("JSON");
    assert_eq!((added["node"].as_str(), added["zone"].as_str()), (Some("n4"), Some("z2")));
    all_are_there("all");
    let status = cluster_status(&testnet);
    assert_eq!(nodes(&status), ["n1", "n2", "n3", "n4"]);
    let of_n4 = &status["members"][3];
    assert_eq!(of_n4["state"], "active");
    assert!(of_n4["partitions"].as_u64().expect("a number") >= 32, "{of_n4}");

    testnet.ok(&["testnet", "decommission", "n2"]);
    all_are_there("all");
    assert_eq!(nodes(&cluster_status(&testnet)), ["n1", "n3", "n4"]);
    let refused = testnet.run(&["testnet", "start", "n2"]);
    assert!(refused.code == 2 && refused.stderr.contains("n1, n3, n4"), "{refused:?}");

    // it is a testnet like any other: stopped and started with who is left, and its number is not given again
    testnet.ok(&["testnet", "down"]);
    testnet.ok(&["testnet", "up"]);
    all_are_there("quorum");
    let added = testnet.ok(&["testnet", "add", "-o", "plain"]);
    assert!(added.starts_with("n5\t"), "{added}");
    all_are_there("all");

    // who was removed and comes back is told so, and ends with the number for that
    let config = testnet.node_config(2);
    let config = config.to_str().expect("plain path");
    let back = testnet.run(&["node", "run", "--config", config]);
    assert_eq!(back.code, 12, "{back:?}");
    let last = back.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("n2 was removed from the ring in epoch"), "{last}");
}

/// A node that was registered and could not be started is gone on with by the same command; before, it stayed a member that
/// owns nothing, and the next one got another number.
#[test]
fn an_add_that_was_cut_short_goes_on() {
    let testnet = Testnet::up_with_partitions(3, 26_900, 64);
    let failed = testnet.run(&["testnet", "add", "--allow-faults", "--fail-sync", "1"]);
    assert!(failed.stderr.contains("n4 is registered and owns nothing"), "{failed:?}");
    assert_eq!(cluster_status(&testnet)["members"][3]["state"], "joining");
    let added = testnet.ok(&["testnet", "add", "-o", "plain"]);
    assert!(added.starts_with("n4\t"), "{added}");
    let status = cluster_status(&testnet);
    assert_eq!(nodes(&status), ["n1", "n2", "n3", "n4"]);
    assert_eq!(status["members"][3]["state"], "active");
    let added = testnet.ok(&["testnet", "add", "-o", "plain"]);
    assert!(added.starts_with("n5\t"), "{added}");
}

/// A cluster with its own papers: a token, a host that joins with it, and everything about tokens, plans and members that
/// is refused, with exit 2, the reason, and what to type next, and without a new epoch.
#[test]
fn tokens_and_refusals() {
    let testnet = Testnet::up_with_partitions(3, 26_500, 64);
    let folder = testnet.folder();
    let at = |name: &str| folder.parent().expect("a home").join(name).display().to_string();
    let (dir, file, host) = (folder.display().to_string(), at("n4.join"), at("n4"));
    let token: Value = serde_json::from_str(
        &testnet.ok(&["cluster", "token", &dir, "--out", &file, "-o", "json"]),
    )
    .expect("JSON");
    assert_eq!(token["node"], "n4");
    let address = free_address(26_550);
    let status = cluster_status(&testnet);
    let of_n1 = status["members"][0]["address"].as_str().expect("an address");

    let epoch = || cluster_status(&testnet)["epoch"].as_u64().expect("a number");
    let refused = |arguments: &[&str], words: &[&str]| {
        let before = epoch();
        let ran = testnet.run(arguments);
        assert_eq!(ran.code, 2, "atoll {}: {ran:?}", arguments.join(" "));
        for word in words {
            assert!(ran.stderr.contains(word), "no {word:?} in {:?}", ran.stderr);
        }
        assert_eq!(epoch(), before, "atoll {}", arguments.join(" "));
    };
    let join = |file: &str, listen: &str, dir: &str| -> Vec<String> {
        ["cluster", "join", file, "--listen", listen, "--dir", dir, "--later"]
            .map(str::to_owned)
            .into()
    };
    let refused_join = |file: &str, listen: &str, words: &[&str]| {
        let arguments = join(file, listen, &at("nowhere"));
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), words);
        assert!(!std::path::Path::new(&at("nowhere")).exists());
    };
    let next = "atoll cluster token";

    // an address that somebody has, a weight of 0, an id that was seen
    refused_join(&file, of_n1, &["address of n1", "another"]);
    let mut without_weight = join(&file, &address, &at("nowhere"));
    without_weight.extend(["--weight".into(), "0".into()]);
    refused(
        &without_weight.iter().map(String::as_str).collect::<Vec<_>>(),
        &["weight 0", "--weight 1"],
    );
    refused(
        &["cluster", "token", &dir, "--node", "n1", "--out", &at("no")],
        &["never given twice"],
    );
    refused(
        &["cluster", "token", &dir, "--node", "n4", "--out", &at("no")],
        &["never given twice"],
    );
    refused(&["cluster", "token", &dir, "--out", &file], &["is there already", "--out"]);

    // the host registers, once
    let registered = join(&file, &address, &host);
    testnet.ok(&registered.iter().map(String::as_str).collect::<Vec<_>>());
    refused_join(&file, &free_address(26_560), &["was used", next]);
    // a token that is over
    let late = at("late.join");
    testnet.ok(&["cluster", "token", &dir, "--out", &late, "--valid", "1s"]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1100) {
        std::thread::sleep(Duration::from_millis(100));
    }
    refused_join(&late, &free_address(26_560), &["expired", next]);
    // nothing moves to a node that was not started
    refused(&["cluster", "join", "n4", "--yes"], &["n4 does not answer", "atoll node run"]);

    // members
    refused(&["cluster", "reweight", "n1", "0"], &["weight 0", "atoll cluster leave n1"]);
    refused(&["cluster", "leave", "n1", "--yes"], &["2 nodes would be left", next]);
    refused(&["cluster", "remove", "n1", "--yes"], &["atoll cluster leave n1"]);
    refused(
        &["cluster", "remove", "--dead", "n1", "--yes"],
        &["n1 answers", "atoll cluster leave n1"],
    );
    refused(&["cluster", "leave", "n9", "--yes"], &["no member", "atoll cluster status"]);
    let config = testnet.node_config(1).display().to_string();
    let recover = ["cluster", "recover", "--from", "n1", "--yes", "--config", &config];
    refused(&recover, &["n1 runs", "stop n1"]);
    refused(&["ring", "cancel", "--yes"], &["nothing moves"]);
    refused(&["cluster", "zone", "n1", "z9"], &["nobody to ask", "--yes"]);

    // a plan is good for one epoch
    let plan = at("zone.plan");
    std::fs::write(&plan, testnet.ok(&["ring", "plan", "zone", "n1", "z9"])).expect("writable");
    testnet.ok(&["ring", "commit", &plan, "--yes"]);
    refused(&["ring", "commit", &plan, "--yes"], &["made for epoch", "atoll ring plan"]);

    // and a file of another cluster
    let other = Testnet::up_with_partitions(1, 26_600, 64);
    let foreign = at("foreign.join");
    let other_dir = other.folder().display().to_string();
    other.ok(&["cluster", "token", &other_dir, "--out", &foreign]);
    let text = std::fs::read_to_string(&foreign).expect("a file");
    let seeds = text.lines().find(|line| line.starts_with("seeds")).expect("seeds");
    crate::testnet::edit(foreign.as_ref(), seeds, &format!("seeds = [\"{of_n1}\"]"));
    refused_join(&foreign, &free_address(26_560), &["another cluster", next]);
}

/// Two of three voters are lost: the ring is frozen, says so, and changes nothing, while reads and writes go on. When they
/// are back, it changes again.
#[test]
fn frozen_and_thawed() {
    let testnet = Testnet::up_with_partitions(3, 26_700, 64);
    testnet.ok(&["put", "k", "before", "-w", "all"]);
    testnet.ok(&["testnet", "kill", "n2", "n3"]);
    let until = |what: &str, so: &mut dyn FnMut() -> bool| {
        let begun = Instant::now();
        while !so() {
            assert!(begun.elapsed() < Duration::from_secs(60), "never happened: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let status = |testnet: &Testnet| -> (Ran, Value) {
        let ran = testnet.run(&["cluster", "status", "-o", "json"]);
        let document = serde_json::from_str(&ran.stdout).expect("JSON");
        (ran, document)
    };
    until("the ring is frozen", &mut || {
        let (ran, document) = status(&testnet);
        ran.code == 5 && document["frozen"].as_str().is_some_and(|why| why.contains("1 of 3"))
    });
    assert!(testnet.ok(&["get", "k", "-r", "1"]).contains("before"));
    testnet.ok(&["put", "k", "meanwhile", "-w", "1"]);
    let refused = testnet.run(&["cluster", "zone", "n1", "z9", "--yes"]);
    assert_eq!(refused.code, 6, "{refused:?}");
    assert!(refused.stderr.contains("frozen") && refused.stderr.contains("1 of 3"), "{refused:?}");

    // they could still come back: nobody decides by mistake that they cannot
    let config = testnet.node_config(2).display().to_string();
    let recover = ["cluster", "recover", "--from", "n2", "--config", &config];
    let refused = testnet.run(&recover);
    assert!(refused.code == 2 && refused.stderr.contains("nobody to ask"), "{refused:?}");

    testnet.ok(&["testnet", "start", "n2", "n3"]);
    until("the ring thaws", &mut || status(&testnet).1["frozen"].is_null());
    testnet.ok(&["cluster", "zone", "n1", "z9", "--yes"]);
    assert_eq!(status(&testnet).1["members"][0]["zone"], "z9");
}

fn cluster_status(testnet: &Testnet) -> Value {
    let ran = testnet.run(&["cluster", "status", "-o", "json"]);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
}

fn nodes(status: &Value) -> Vec<&str> {
    let members = status["members"].as_array().expect("a list").iter();
    members.map(|member| member["node"].as_str().expect("a name")).collect()
}

/// Searched from `base_port` on, which differs from test to test.
fn free_address(base_port: u16) -> String {
    let free = |port: &u16| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    let port = (base_port..base_port + 50).find(free).expect("a free port");
    format!("127.0.0.1:{port}")
}
