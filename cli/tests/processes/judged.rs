//! A load on real processes, some of which are killed meanwhile, and the judges of its history.

use std::{fs, path::Path, thread};

use atoll_check::{Event, Reply, read_history, write_event};
use serde_json::Value;

use crate::testnet::Testnet;

/// Two nodes of five are killed and come back while the load goes on: nothing is lost, nothing comes back, strict quorums
/// see each other, and in the end all agree. The same history with its end is judged the same without the cluster; and if a
/// value is taken out of that end, it is missed by its name.
#[test]
fn a_load_under_kills_is_acquitted_and_a_lie_is_not() {
    let testnet = Testnet::up(5, 23_500);
    let folder = tempfile::tempdir().expect("a directory");
    let at = |name: &str| folder.path().join(name).to_str().expect("plain path").to_owned();
    let (history, whole, lied) = (at("run.jsonl"), at("whole.jsonl"), at("lied.jsonl"));
    let what = ["bench", "run", "--for", "3s", "--warmup", "100ms", "--keys", "200"];
    let how = ["-c", "16", "--timeout", "500ms", "--strict", "--history", &history];
    let load = [&what[..], &how].concat();
    thread::scope(|scope| {
        let load = scope.spawn(|| testnet.ok(&load));
        for node in ["n2", "n4"] {
            testnet.ok(&["testnet", "kill", node]);
            testnet.ok(&["testnet", "start", node]);
        }
        load.join().expect("it was measured");
    });

    let verdict = judge(&testnet, &[&history, "--save", &whole], 0);
    assert_eq!(verdict["clean"], true, "{verdict}");
    let figure = |name: &str| verdict["figures"][name].as_u64().expect("a number");
    assert!(figure("acknowledged") > 200 && figure("promised_reads") > 0, "{verdict}");
    assert_eq!((figure("keys"), figure("held")), (200, 600), "{verdict}");

    let again = testnet.run(&["testnet", "judge", &whole, "--save", &lied]);
    assert!(again.code == 2 && again.stderr.contains("has its end already"), "{again:?}");
    assert_eq!(judge(&testnet, &[&whole], 0)["violations"], Value::Array(vec![]));
    assert_eq!(judge(&testnet, &[&whole, "--offline"], 0)["violations"], Value::Array(vec![]));

    let dropped = lie(&whole, &lied);
    let verdict = judge(&testnet, &[&lied, "--offline"], 11);
    assert_eq!(verdict["broken"]["nothing_lost"], 1, "{verdict}");
    let lost = verdict["violations"].as_array().expect("violations").iter();
    let lost: Vec<_> = lost.filter(|violation| violation["promise"] == "nothing_lost").collect();
    assert_eq!(lost[0]["operations"][0], dropped, "{verdict}");
    let told = testnet.run(&["testnet", "judge", &lied, "--offline"]);
    assert!(
        told.stdout.contains(&format!("operation {dropped}: the value is nowhere")),
        "{told:?}"
    );
}

/// What is no history is refused, with the line; one without its end says so; a node that is down is named.
#[test]
fn what_cannot_be_judged() {
    let testnet = Testnet::up(2, 23_600);
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("run.jsonl");
    let name = file.to_str().expect("plain path");
    let refused = |words: &[&str]| {
        let ran = testnet.run(&["testnet", "judge", name]);
        assert!(ran.code == 2 && ran.stdout.is_empty(), "{ran:?}");
        assert!(words.iter().all(|word| ran.stderr.contains(word)), "{ran:?}");
    };
    refused(&["cannot read", "bench run --history"]);
    let begin = r#"{"begin":{"op":1,"at_us":0,"session":1,"key":"a","what":"put","with":{"n":1,"need":1,"owners":1,"durable":1}}}"#;
    fs::write(&file, format!("{begin}\n{{\"end\":{{\"op\":1,")).expect("writable");
    refused(&["line 2", "cut off"]);
    fs::write(&file, format!("{begin}\n{begin}\n")).expect("writable");
    refused(&["line 2", "numbers must rise"]);

    fs::write(&file, begin).expect("writable");
    let unfinished = testnet.ok(&["testnet", "judge", name, "--offline"]);
    assert!(unfinished.contains("cannot be said"), "{unfinished}");
    testnet.ok(&["testnet", "judge", name]);
    let ran = testnet.run(&["bench", "run", "--for", "100ms", "--history", name]);
    assert!(ran.code == 2 && ran.stderr.contains("evidence"), "{ran:?}");

    let other = testnet.folder().join("profile.toml");
    testnet.ok(&["testnet", "judge", name, "--cluster", other.to_str().expect("plain path")]);
    testnet.ok(&["testnet", "kill", "n2"]);
    let ran = testnet.run(&["testnet", "judge", name, "--wait", "1s"]);
    assert!(ran.code == 5 && ran.stderr.contains("atoll testnet start n2"), "{ran:?}");
}

fn judge(testnet: &Testnet, arguments: &[&str], code: i32) -> Value {
    let ran = testnet.run(&[&["testnet", "judge", "-o", "json"], arguments].concat());
    assert_eq!(ran.code, code, "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("a document")
}

/// Takes out of a history's end some value that was acknowledged and that nobody who wrote had seen. Gives its number.
fn lie(from: &str, to: &str) -> u64 {
    let lines = fs::read(Path::new(from)).expect("saved");
    let mut events: Vec<Event> =
        read_history(&lines[..]).collect::<Result<_, _>>().expect("a history");
    let used: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Begin { seen, .. } => *seen,
            _ => None,
        })
        .collect();
    let shown = |value: u64| {
        events.iter().any(|event| match event {
            Event::End { op, reply: Reply::Found { values, .. }, .. } => {
                used.contains(op) && values.iter().any(|(shown, _)| *shown == value)
            }
            _ => false,
        })
    };
    let last = events.iter().rev().find_map(|event| match event {
        Event::End { op, reply: Reply::Stored { .. }, .. } if !used.contains(op) && !shown(*op) => {
            Some(*op)
        }
        _ => None,
    });
    let last = last.expect("somebody wrote last");
    for event in &mut events {
        if let Event::Held(held) = event {
            held.values.retain(|(value, _)| *value != last);
        }
    }
    let mut file = Vec::new();
    for event in &events {
        write_event(&mut file, event).expect("memory");
    }
    fs::write(to, file).expect("writable");
    last
}
