//! A testnet leaves for real hosts, as far as one machine can play them.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::testnet::{Testnet, until};

/// A node that was started by the script of its folder. It is killed at the end.
struct Host(Child);

impl Host {
    fn start(folder: &Path) -> Host {
        let log = fs::File::options().create(true).append(true).open(folder.join("log"));
        let log = log.expect("ours");
        let mut command = Command::new("/bin/sh");
        command.arg(folder.join("start")).env("ATOLL", env!("CARGO_BIN_EXE_atoll"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Host(command.spawn().expect("a shell"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill(); // the shell has become the node
        let _ = self.0.wait();
    }
}

/// Exported without addresses; they are put in as the README says; every folder starts its node by its own script, the
/// first time as a first start and then no more; nodes, zones and copies are those of the testnet; and nothing is ever
/// written over.
#[test]
fn the_same_cluster_elsewhere() {
    let testnet = Testnet::up(3, 32_200);
    testnet.ok(&["testnet", "down"]);
    let out = testnet.folder().join("../../out");
    let out_text = out.to_str().expect("plain path").to_owned();
    let exported = testnet.ok(&["testnet", "export", "systemd", &out_text, "-o", "json"]);
    let exported: Value = serde_json::from_str(&exported).expect("JSON");
    assert_eq!(exported["schema"], "atoll.testnet-export/v1");
    assert_eq!(
        (&exported["placeholders"], &exported["nodes"][1]["address"]),
        (&true.into(), &"192.0.2.2:7400".into())
    );
    put_in_addresses(&out);
    let again = testnet.run(&["testnet", "export", "compose", &out_text]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("empty"), "{again:?}");

    let folder = |node: usize| out.join(format!("n{node}"));
    let mut hosts: Vec<Host> = (1..=3).map(|node| Host::start(&folder(node))).collect();
    let operator = out.join("users/operator/profile.toml");
    let operator = operator.to_str().expect("plain path");
    let is_up = || testnet.run(&["status", "--cluster", operator]).code == 0;
    until("the cluster is up", is_up);
    until("nobody starts for the first time again", || {
        (1..=3).all(|node| !folder(node).join("first-start").exists())
    });
    testnet.ok(&["put", "greeting", "hello", "-w", "all", "--cluster", operator]);

    hosts.clear();
    hosts.extend((1..=3).map(|node| Host::start(&folder(node))));
    until("the cluster is up again", is_up);
    let got = testnet.ok(&["get", "greeting", "-r", "all", "--cluster", operator]);
    assert!(got.contains("hello"), "{got}");
    let ring = testnet.ok(&["ring", "show", "--cluster", operator, "-o", "json"]);
    let ring: Value = serde_json::from_str(&ring).expect("JSON");
    assert_eq!((&ring["replicas"], &ring["partitions"]), (&3.into(), &1024.into()), "{ring}");
    for member in ring["members"].as_array().expect("three") {
        assert_eq!(member["incarnation"], 0, "nothing was lost between two starts: {member}");
    }
}

/// Runs the commands of the README, with addresses of this machine.
fn put_in_addresses(out: &Path) {
    let readme = fs::read_to_string(out.join("README.md")).expect("written");
    let (_, commands) = readme.split_once("```sh\n").expect("commands");
    let (commands, _) = commands.split_once("```").expect("an end");
    let commands = (1..=3).fold(commands.to_owned(), |commands, node| {
        commands.replace(&format!("10.0.0.{node}:7400"), &format!("127.0.0.1:{}", 32_210 + node))
    });
    let mut shell = Command::new("sh");
    let ran = shell.args(["-ec", &commands]).current_dir(out).output().expect("a shell");
    assert!(ran.status.success(), "{ran:?}");
    let settings = fs::read_to_string(out.join("n2/node.toml")).expect("there");
    assert!(settings.contains("listen = \"127.0.0.1:32212\""), "{settings}");
}
