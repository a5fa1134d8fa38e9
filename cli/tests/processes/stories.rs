//! Stories: they end with the verdict that their steps deserve, and leave nothing behind, however they end.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use atoll_check::{Event, Levels, Reply, What, write_event};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::testnet::{Ran, Testnet, until};

const SMALL: &str = "title = 'a test'\n[testnet]\nnodes = 2\nreplicas = 2\npartitions = 16\n";

/// A story with all that a step can be ends as it says: values are taken, a load runs beside, an expectation has time to come
/// true. Its testnet is gone afterwards, and the one started last is the one that it was. Lent another one, it uses that.
#[test]
fn a_story_ends_as_it_says_and_leaves_nothing() {
    let testnet = Testnet::up(2, 34_500);
    let told = Told::new(&testnet);
    let steps = r#"
        [[step]]
        say = "Who owns it?"
        run = "atoll ring lookup cart -o json"
        take = { first = "owners.0" }
        [[step]]
        load = "atoll bench run --for 10m --no-preload -c 2 --keys 10 --history run.jsonl"
        as = "clients"
        [[step]]
        say = "It is put through $first."
        run = "atoll put cart 'two apples' --via $first"
        shows = "it is stored"
        [[step]]
        run = "atoll testnet status -o json"
        within = "60s"
        expect = { json = { "nodes.*.keys" = { at_least = 11 } } }
        shows = "the clients have come so far"
        [[step]]
        end = "clients"
        [[step]]
        run = "atoll get cart -r all"
        expect = { is = "two apples", says = "$first current", never = "pears" }
        shows = "it is there"
        [[step]]
        run = "atoll testnet judge run.jsonl"
    "#;
    let ran = told.tell(steps, &["--base-port", "34520"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for words in ["$ atoll put cart 'two apples' --via n", "✓ it is there", "t ended as it says"]
    {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    told.nothing_is_left();

    let ran = told.tell(steps, &["--on", "dev", "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let document: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(document["schema"], "atoll.story/v1");
    assert_eq!((&document["testnet"], &document["ended"]), (&"dev".into(), &"as told".into()));
    let taken = &document["steps"][0]["taken"]["first"];
    assert!(taken == "n1" || taken == "n2", "{document}");
    told.nothing_is_left();
    assert_eq!(testnet.ok(&["get", "cart"]).trim(), "two apples");
}

/// What does not come as expected is exit code 1, and a broken promise is 11; what was expected and what came is said, and the
/// evidence stays until the story is told again.
#[test]
fn a_story_that_ends_otherwise() {
    let testnet = Testnet::up(2, 34_600);
    let told = Told::new(&testnet);
    let get = "[[step]]\nrun = 'atoll get cart'\nexpect = { is = 'pears' }\nshows = 'pears'\n";
    let put = "[[step]]\nrun = 'atoll put cart apples'\n";
    let ran = told.tell(&format!("{put}{get}"), &["--base-port", "34620"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in ["✗ not so: pears", "it printed `apples`, not `pears`", "--name story-t"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    assert!(testnet.ok(&["testnet", "logs", "--name", "story-t"]).contains("n1"));
    told.nothing_runs();

    let history = told.folder().join("lie.jsonl");
    let levels = Levels { n: 2, need: 1, owners: 1, durable: 0, blocking: false };
    let mut lines = Vec::new();
    for event in [
        Event::Begin {
            op: 1,
            at_us: 0,
            session: 1,
            key: "a".into(),
            what: What::Get,
            seen: None,
            with: levels,
        },
        Event::End {
            op: 1,
            at_us: 1,
            reply: Reply::Found { values: vec![(7, (1, 0, 1))], context: true },
        },
    ] {
        write_event(&mut lines, &event).expect("memory");
    }
    fs::write(&history, lines).expect("writable");
    let judge =
        format!("[[step]]\nrun = \"atoll testnet judge {} --offline\"\n", history.display());
    let ran = told.tell(&judge, &["--on", "dev"]);
    assert_eq!(ran.code, 11, "{ran:?}");
    assert!(ran.stdout.contains("a promise was broken"), "{ran:?}");

    let early = "[[step]]\nload = 'atoll get nothing'\nas = 'a'\n[[step]]\nrun = 'atoll testnet status'\n\
                 within = '60s'\nexpect = { exit = 5 }\n";
    let ran = told.tell(early, &["--on", "dev"]);
    assert!(ran.code == 1 && ran.stdout.contains("a ended by itself"), "{ran:?}");
}

/// Ctrl-C in the middle: of a testnet of its own nothing is left, no load either; a lent one has all its nodes again.
#[test]
fn an_interrupted_story_mends_what_it_broke() {
    let testnet = Testnet::up(2, 34_700);
    let told = Told::new(&testnet);
    let breaks = r#"
        [[step]]
        load = "atoll bench run --for 10m --no-preload -c 2 --keys 10"
        as = "clients"
        [[step]]
        run = "atoll testnet status -o json"
        within = "60s"
        expect = { json = { "nodes.*.keys" = { at_least = 5 } } }
        [[step]]
        run = "atoll testnet kill n1"
        [[step]]
        run = "atoll testnet pause n2"
        [[step]]
        say = "This never comes."
        run = "atoll testnet status"
        within = "30m"
    "#;
    for place in [["--base-port", "34720"], ["--on", "dev"]] {
        told.write(breaks);
        let story = told.file.to_str().expect("plain path");
        let mut child = testnet
            .command(&[&["testnet", "story", story], &place[..]].concat())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.any(|line| line.expect("text").contains("$ atoll testnet status")));
        let own: Vec<u64> = match place[0] {
            "--on" => Vec::new(),
            _ => pids(&testnet.run(&["testnet", "status", "--name", "story-t", "-o", "json"])),
        };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::INT).expect("it runs");
        let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
        assert_eq!(child.wait().expect("it ended").code(), Some(130), "{rest:?}");
        assert!(own.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{own:?}");
        told.nothing_is_left();
        until("all nodes are well", || testnet.run(&["testnet", "status"]).code == 0);
    }
}

/// What is no story is refused with its line and column; what is not known says what is; a stage that does not fit says why.
#[test]
fn stories_that_cannot_be_told() {
    let testnet = Testnet::up(1, 34_800);
    let told = Told::new(&testnet);
    let refused = |ran: Ran, words: &[&str]| {
        assert!(ran.code == 2 && ran.stdout.is_empty(), "{ran:?}");
        assert!(words.iter().all(|word| ran.stderr.contains(word)), "{ran:?}");
    };
    let run = |arguments: &[&str]| testnet.run(&[&["testnet", "story"], arguments].concat());
    refused(run(&["slopy-quorum"]), &["no story is called \"slopy-quorum\"", "sloppy-quorum,"]);
    refused(run(&["show", "x"]), &["stale-read"]);
    refused(run(&["missing.toml"]), &["cannot read missing.toml"]);
    for (step, words) in [
        ("[[step]]\nrnu = 'atoll get x'", ["line 7, column 1", "`run`"]),
        ("[[step]]\nrun = 'atoll gett x'", ["line 7, column 14", "it has: put, get"]),
        ("[[step]]\nrun = 'atoll get x --via $y'", ["line 7, column 26", "called $y"]),
    ] {
        refused(told.tell(step, &[]), &words);
    }
    let good = "[[step]]\nrun = 'atoll get x'";
    refused(told.tell(good, &["--step"]), &["no terminal"]);
    let narrow = told.tell(good, &["--on", "dev"]);
    assert!(narrow.code == 2 && narrow.stderr.contains("needs 2 nodes"), "{narrow:?}");
    let grows = run(&["grow-under-load", "--on", "dev"]);
    assert!(grows.code == 2 && grows.stderr.contains("leave out --on"), "{grows:?}");

    let list: Value = serde_json::from_str(&testnet.ok(&["testnet", "story", "ls", "-o", "json"]))
        .expect("a document");
    assert_eq!(list["schema"], "atoll.story-list/v1");
    for story in list["stories"].as_array().expect("a list") {
        let name = story["name"].as_str().expect("a name");
        assert!(testnet.ok(&["testnet", "story", "show", name]).contains("[[step]]"));
    }
}

/// A story of the name `t`, beside a testnet that was there before.
struct Told<'a> {
    testnet: &'a Testnet,
    _folder: tempfile::TempDir,
    file: std::path::PathBuf,
}

impl<'a> Told<'a> {
    fn new(testnet: &'a Testnet) -> Told<'a> {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("t.toml");
        Told { testnet, _folder: folder, file }
    }

    fn folder(&self) -> &Path {
        self.file.parent().expect("it lies in a folder")
    }

    fn write(&self, steps: &str) {
        fs::write(&self.file, format!("{SMALL}{steps}")).expect("writable");
    }

    fn tell(&self, steps: &str, options: &[&str]) -> Ran {
        self.write(steps);
        let file = self.file.to_str().expect("plain path");
        self.testnet.run(&[&["testnet", "story", file], options].concat())
    }

    fn nothing_is_left(&self) {
        let list: Value = serde_json::from_str(&self.testnet.ok(&["testnet", "ls", "-o", "json"]))
            .expect("a document");
        let testnets = list["testnets"].as_array().expect("a list");
        let [dev] = testnets.as_slice() else { panic!("{list}") };
        assert!(dev["name"] == "dev" && dev["started_last"] == true, "{list}");
        let stories = self.testnet.folder().join("../../stories");
        let left = fs::read_dir(stories).into_iter().flatten().count();
        assert_eq!(left, 0);
    }

    fn nothing_runs(&self) {
        let ran = self.testnet.run(&["testnet", "status", "--name", "story-t", "-o", "json"]);
        assert_eq!(pids(&ran), [0; 0], "{ran:?}");
    }
}

/// The processes of a testnet.
fn pids(status: &Ran) -> Vec<u64> {
    let status: Value = serde_json::from_str(&status.stdout).expect("a document");
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    nodes.filter_map(|node| node["pid"].as_u64()).collect()
}
