//! What bad input gets: the exit code, and the rule by name.

use crate::testnet::Testnet;

#[test]
fn bad_input_is_refused_by_name() {
    let testnet = Testnet::up(4, 23_400);
    let long_key = "k".repeat(1025);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["put", "k", "v", "-n", "0"], 2, "n"),
        (&["put", "k", "v", "-w", "0"], 2, "w"),
        (&["get", "k", "-r", "0"], 2, "r"),
        (&["get", "k", "-n", "2", "-r", "3"], 2, "r=3"),
        (&["put", "k", "v", "-n", "2", "-w", "3"], 2, "w=3"),
        (&["put", "k", "v", "-w", "1", "--dw", "2"], 2, "dw=2"),
        (&["get", "k", "-r", "1", "--pr", "2"], 2, "pr=2 is more than r=1"),
        (&["put", "k", "v", "-w", "1", "--pw", "two"], 2, "pw=2 is more than w=1"),
        (&["get", "k", "--repair", "later"], 2, "blocking"),
        (&["get", "k", "-n", "4"], 2, "n=4"),
        (&["get", "k", "-n", "quorum"], 2, "-n"),
        (&["get", "k", "-r", "most"], 2, "quorum"),
        (&["get", "k", "--bucket", "carts"], 2, "carts"),
        (&["get", "k", "--timeout", "soon"], 2, "timeout"),
        (&["get", "k", "--via", "here"], 2, "here"),
        (&["put", "k", "v", "--context", "abc"], 2, "context"),
        (&["get", &long_key], 2, "1025"),
        (&["get", ""], 2, "empty"),
        (&["get", "nobody-wrote-this"], 3, "never written"),
        (&["get", "k", "--via", "n9"], 2, "its nodes are n1"),
        (&["get", "k", "--cluster", "elsewhere"], 2, "elsewhere"),
        (&["debug", "dump", "99999", "--node", "n1"], 2, "0 to 1023"),
        (&["debug", "dump", "1024", "--node", "n1"], 2, "0 to 1023"),
        (&["debug", "dump", "0", "--node", "n9"], 2, "its nodes are n1"),
        (&["repair", "run", "99999"], 2, "0 to 1023"),
        (&["repair", "run", "1024"], 2, "0 to 1023"),
        (&["repair", "run", "all"], 2, "all"),
    ];
    for (arguments, code, word) in cases {
        let ran = testnet.run(arguments);
        assert_eq!(ran.code, *code, "atoll {}: {ran:?}", arguments.join(" "));
        assert!(ran.stderr.contains(word), "{:?} does not speak of {word}", ran.stderr);
        assert!(ran.stdout.is_empty(), "an error belongs on stderr: {ran:?}");
    }
}

/// A context of another key, or of another cluster, is named as that.
#[test]
fn a_context_belongs_to_its_key_and_cluster() {
    let (here, there) = (Testnet::up(1, 23_500), Testnet::up(1, 23_600));
    let context = |testnet: &Testnet, key: &str| {
        let line = testnet.ok(&["put", key, "v", "-o", "plain"]);
        line.trim().split('\t').nth(1).expect("dot, tab, context").to_owned()
    };
    let (a, foreign) = (context(&here, "a"), context(&there, "a"));
    let other_key = here.run(&["put", "b", "v", "--context", &a]);
    assert_eq!(other_key.code, 2);
    assert!(other_key.stderr.contains("another key"), "{other_key:?}");
    let other_cluster = here.run(&["del", "a", "--context", &foreign]);
    assert_eq!(other_cluster.code, 2);
    assert!(other_cluster.stderr.contains("another cluster"), "{other_cluster:?}");
    assert!(here.ok(&["get", "a"]).contains('v'));
}

/// A cluster that is down is exit 4 with the addresses that were tried.
#[test]
fn a_cluster_that_is_down_is_exit_4() {
    let testnet = Testnet::up(2, 23_700);
    testnet.ok(&["testnet", "kill", "--all"]);
    for arguments in [&["get", "k"][..], &["bench", "run", "--for", "1s"][..]] {
        let ran = testnet.run(arguments);
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(ran.stderr.contains("127.0.0.1:"), "{ran:?}");
    }
}

/// Values of the greatest length pass, a byte more does not.
#[test]
fn the_value_limit_is_exact() {
    let testnet = Testnet::up(3, 23_800);
    let put = |bytes: usize| {
        let file = testnet.folder().join("value");
        std::fs::write(&file, vec![b'v'; bytes]).expect("writable");
        let status = std::process::Command::new(env!("CARGO_BIN_EXE_atoll"))
            .args(["put", "big", "-", "-w", "all", "--timeout", "20s"])
            .env("ATOLL_HOME", testnet.folder().parent().and_then(|p| p.parent()).expect("home"))
            .stdin(std::fs::File::open(&file).expect("there"))
            .output()
            .expect("runs");
        (status.status.code(), String::from_utf8_lossy(&status.stderr).into_owned())
    };
    assert_eq!(put(1 << 20).0, Some(0));
    assert_eq!(
        testnet.ok(&["get", "big", "--raw", "-r", "all", "--timeout", "20s"]).len(),
        1 << 20
    );
    let (code, error) = put((1 << 20) + 1);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("1048576"), "{error}");
}
