//! A node comes while a load runs, and whoever gives and whoever takes is killed in the midst of it. `.ci/grow` does this at
//! every step, there and back again.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::testnet::{Testnet, until};

/// The new node is held before its first pages, and an owner that it copies from is killed; it is held when it has copied,
/// before it says so, and is killed itself. The change goes on by itself and ends, and of what the load was told nothing is
/// lost, nothing comes back, and strict reads see it all.
#[test]
fn a_source_and_a_target_are_killed_while_a_node_comes() {
    let testnet = Testnet::up_with_partitions(3, 26_800, 64);
    testnet.ok(&["testnet", "restart", "--all", "--allow-faults"]);
    let folder = tempfile::tempdir().expect("a directory");
    let history = folder.path().join("run.jsonl");
    let history = history.to_str().expect("plain path");
    let what = ["bench", "run", "--for", "1h", "--warmup", "0s", "--keys", "500"];
    let how = ["-c", "16", "--pr", "2", "--pw", "2", "--history", history];
    let mut load = Running::start(&testnet, &[&what[..], &how].concat());
    until("the load has begun", || fs::metadata(history).is_ok_and(|file| file.len() > 0));

    let mut added = Running::start(&testnet, &["testnet", "add", "--allow-faults"]);
    until("n4 has its directory", || testnet.folder().join("n4/data").is_dir());
    for (step, victim) in [("page", "n1"), ("done", "n4")] {
        hold(&testnet, step);
        let line = format!("step={step}");
        until("n4 is held", || {
            let ended = added.0.try_wait().expect("our child");
            assert!(ended.is_none(), "it ended before anything was held at {step}: {ended:?}");
            let log = testnet.log(4).to_lowercase();
            log.lines().any(|said| said.contains("held on command") && said.contains(&line))
        });
        testnet.ok(&["testnet", "kill", victim]);
        testnet.ok(&["testnet", "start", victim, "--allow-faults"]);
    }
    fs::remove_file(faults(&testnet)).expect("written before");
    assert_eq!(added.0.wait().expect("our child").code(), Some(0), "it was added");

    let interrupt = ["-INT".to_owned(), load.0.id().to_string()];
    assert!(Command::new("kill").args(interrupt).status().expect("kill").success());
    assert_eq!(load.0.wait().expect("our child").code(), Some(130), "interrupted, as it was told");

    let status: Value =
        serde_json::from_str(&testnet.ok(&["cluster", "status", "-o", "json"])).expect("JSON");
    let of_n4 = &status["members"][3];
    assert_eq!((of_n4["node"].as_str(), of_n4["state"].as_str()), (Some("n4"), Some("active")));
    let verdict: Value =
        serde_json::from_str(&testnet.ok(&["testnet", "judge", history, "-o", "json"]))
            .expect("JSON");
    assert_eq!(verdict["clean"], true, "{verdict}");
    let figure = |name: &str| verdict["figures"][name].as_u64().expect("a number");
    assert!(figure("acknowledged") > 500 && figure("promised_reads") > 0, "{verdict}");
    assert_eq!((figure("keys"), figure("held")), (500, 1500), "{verdict}");
}

/// From now on n4 waits at this step.
fn hold(testnet: &Testnet, step: &str) {
    fs::write(faults(testnet), format!("hold = [\"{step}\"]")).expect("writable");
}

fn faults(testnet: &Testnet) -> PathBuf {
    testnet.folder().join("n4/data/faults.toml")
}

/// A command that runs beside the test, and not longer.
struct Running(Child);

impl Running {
    fn start(testnet: &Testnet, arguments: &[&str]) -> Running {
        let mut command = testnet.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().expect("the program runs"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
