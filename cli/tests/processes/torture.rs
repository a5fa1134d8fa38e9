//! Everything at once, for a short while.

use std::fs;

use atoll_check::{Event, read_history, write_event};
use serde_json::Value;

use crate::testnet::Ran;

/// `atoll` in a home of its own.
fn atoll(home: &tempfile::TempDir, arguments: &[&str]) -> Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.args(arguments).env("ATOLL_HOME", home.path()).env_remove("ATOLL_CLUSTER");
    let output = command.output().expect("the program runs");
    Ran {
        code: output.status.code().expect("not killed"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Twelve seconds of killing, pausing and stopping three nodes under a load of all kinds: nothing is lost, the history can be
/// judged again without the cluster, and of the testnet nothing is left. The same history with an answer forged is not
/// acquitted, and what happened to that key is shown.
#[test]
fn a_short_torture_is_acquitted_and_a_forgery_is_not() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("torture.jsonl");
    let history = file.to_str().expect("plain path");
    let what = ["testnet", "torture", "--for", "12s", "--seed", "11", "-n", "3"];
    let how = ["--faults", "kill,pause,restart", "--base-port", "35000", "--history", history];
    let ran = atoll(&home, &[&what[..], &how, &["-o", "json"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let report = document(&ran);
    let verdict = &report["verdict"];
    assert!(report["clean"] == true && report["lost"] == 0, "{report}");
    let figures = &verdict["figures"];
    let figure = |name: &str| figures[name].as_u64().expect("a number");
    assert!(verdict["is_settled"] == true && figure("acknowledged") > 100, "{report}");
    assert!(figure("changes") > 50 && figure("puts") > 50 && figure("reads") > 100, "{report}");
    let faults = report["faults"].as_object().expect("by kind").values();
    assert!(faults.filter_map(Value::as_u64).sum::<u64>() >= 3, "{report}");
    assert_eq!(verdict["faults"], report["faults"], "{report}");
    let ls = document(&atoll(&home, &["testnet", "ls", "-o", "json"]));
    assert_eq!(ls["testnets"], Value::Array(Vec::new()), "{ls}");

    let again = atoll(&home, &["testnet", "judge", history, "-o", "json"]);
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(document(&again)["figures"], *figures);

    let forged = forge(&file);
    let told = atoll(&home, &["testnet", "judge", history]);
    assert_eq!(told.code, 11, "{told:?}");
    let marked = format!("get {forged}, ");
    let is_marked = |line: &str| line.trim_start().starts_with('>') && line.contains(&marked);
    assert!(told.stdout.contains("the first of them: key "), "{told:?}");
    assert!(told.stdout.lines().any(is_marked), "{marked}: {told:?}");
}

/// Words that mean nothing, a history that is there, a testnet that is not: refused, before anything is started.
#[test]
fn what_cannot_be_tortured() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("there.jsonl");
    fs::write(&file, "evidence").expect("writable");
    let file = file.to_str().expect("plain path");
    for (arguments, words) in [
        (["--faults", "kil"], "kill, pause"),
        (["--faults", "none,kill"], "--faults none"),
        (["--history", file], "evidence"),
        (["--name", "nobody"], "no testnet"),
    ] {
        let ran = atoll(&home, &[&["testnet", "torture"][..], &arguments].concat());
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains(words), "{words}: {ran:?}");
    }
    assert!(!home.path().join("testnets").exists());
}

/// Some read of a register sees what nobody wrote. Gives its number.
fn forge(file: &std::path::Path) -> u64 {
    let lines = fs::read(file).expect("it was written");
    let mut events: Vec<Event> =
        read_history(&lines[..]).collect::<Result<_, _>>().expect("a history");
    let forged = events.iter_mut().find_map(|event| match event {
        Event::End { op, reply: atoll_check::Reply::Found { values, .. }, .. } => {
            values.push((u64::MAX, (1, 0, u64::MAX)));
            Some(*op)
        }
        _ => None,
    });
    let mut bytes = Vec::new();
    events.iter().for_each(|event| write_event(&mut bytes, event).expect("memory"));
    fs::write(file, bytes).expect("writable");
    forged.expect("somebody read something")
}
