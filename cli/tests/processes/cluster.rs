//! A cluster on several machines, as far as one machine can play them: each node runs from the folder that was made for
//! it, moved to another place.

use std::{
    fs::{self, File},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::testnet::{Ran, until};

/// From its papers to a renewed certificate, with three nodes that are never restarted.
#[test]
fn a_cluster_of_ones_own() {
    let site = Site::new(26_000, 3);
    let made = site.init("prod");
    for word in ["scp -rp", "--first-start", "users/operator/profile.toml", "ca.key"] {
        assert!(made.contains(word), "{made}");
    }
    let hosts: Vec<Host> = (1..=3).map(|node| site.start("prod", node)).collect();
    let (operator, client) = (site.profile("prod", "operator"), site.profile("prod", "client"));
    until("all nodes are up", || site.run(&["status", "--cluster", &operator]).code == 0);

    site.ok(&["put", "greeting", "hello", "-w", "all", "--cluster", &client]);
    let got = site.ok(&["get", "greeting", "-r", "all", "--cluster", &client]);
    assert!(got.contains("hello"), "{got}");

    // the certificates are fresh: nobody is reminded
    let status = site.run(&["status", "--cluster", &client]);
    assert!(!status.stdout.contains("expires") && status.stderr.is_empty(), "{status:?}");

    // renewed, copied to its host, and taken without a restart
    let before = site.node_status(&client, 2)["certificate_expires_ms"].as_u64().expect("a number");
    let renewed = site.ok(&["cluster", "renew", &site.at("prod"), "n2", "--days", "500"]);
    assert!(renewed.contains("n2") && !renewed.contains("n1"), "{renewed}");
    site.copy_certificate("prod", 2);
    until("n2 shows its new certificate", || {
        site.node_status(&client, 2)["certificate_expires_ms"].as_u64() > Some(before)
    });
    // and with a new key as well: the key first, then the certificate
    site.ok(&["cluster", "renew", &site.at("prod"), "n2", "--new-keys", "--days", "20"]);
    fs::copy(site.folder("prod/n2/node.key"), site.folder("host2/node.key")).expect("ours");
    site.copy_certificate("prod", 2);
    until("a certificate with few days left is spoken of", || {
        let status = site.run(&["status", "--cluster", &client]);
        status.code == 0
            && status.stdout.contains("certificate expires in 19 days: atoll cluster renew DIR n2")
    });
    let status = site.node_status(&client, 2);
    assert!(status["certificate_expires"].as_str().expect("a date").ends_with('Z'), "{status}");

    // what is of no use is said, and the node goes on with what it has
    fs::write(site.folder("host1/node.pem"), "garbage").expect("ours");
    until("n1 complains", || {
        let status = site.run(&["status", "--cluster", &client]);
        status.code == 0 && status.stdout.contains("certificate not renewed")
    });
    site.ok(&["put", "greeting", "again", "-w", "all", "--cluster", &client]);

    for mut host in hosts {
        let ended = host.process.try_wait().expect("ours");
        assert!(
            ended.is_none(),
            "{}: {ended:?}",
            fs::read_to_string(&host.log).unwrap_or_default()
        );
    }
}

/// A new user gets in with his profile alone; one of another cluster does not, not even if he trusts us; one whose
/// certificate ends soon is told so.
#[test]
fn who_gets_in() {
    let site = Site::new(26_100, 1);
    site.init("prod");
    site.init("other"); // at the same addresses
    let _host = site.start("prod", 1);
    let client = site.profile("prod", "client");
    until("the node is up", || site.run(&["status", "--cluster", &client]).code == 0);

    let made = site.ok(&["cluster", "client-cert", &site.at("prod"), "--name", "alice"]);
    assert!(made.contains("users/alice/profile.toml"), "{made}");
    let bob = site.at("elsewhere/bob");
    let prod = site.at("prod");
    let days = ["--role", "operator", "--days", "9"];
    let arguments = ["cluster", "client-cert", &prod, "--name", "bob", "--out", &bob];
    site.ok(&[&arguments[..], &days].concat());
    site.ok(&["put", "k", "of alice", "--cluster", &site.profile("prod", "alice")]);
    let bob = format!("{bob}/profile.toml");
    assert!(site.ok(&["get", "k", "--cluster", &bob]).contains("of alice"));
    let status = site.run(&["status", "--cluster", &bob]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(status.stderr.contains("your certificate") && status.stderr.contains("8 days"));
    let document: Value =
        serde_json::from_str(&site.ok(&["status", "--cluster", &bob, "-o", "json"])).expect("JSON");
    assert!(document["warning"].as_str().is_some_and(|text| text.contains("8 days")), "{document}");

    let stranger = site.profile("other", "client");
    let ran = site.run(&["get", "k", "--cluster", &stranger]);
    assert_eq!(ran.code, 4, "{ran:?}");
    fs::copy(site.folder("prod/ca.pem"), site.folder("other/users/client/ca.pem")).expect("ours");
    let ran = site.run(&["get", "k", "--cluster", &stranger]);
    assert_eq!(ran.code, 4, "{ran:?}");
}

/// What cannot be done is refused with exit 2 and the words a person would look for, and changes nothing.
#[test]
fn what_is_refused() {
    let site = Site::new(26_200, 0);
    let (prod, nothing) = (site.at("prod"), site.at("nothing"));
    let (n1, n2) = ("127.0.0.1:26201", "127.0.0.1:26202");
    let init = ["cluster", "init", &prod, "--node", n1, "--replicas", "1"];
    site.ok(&init);
    let key = fs::read(site.folder("prod/ca.key")).expect("made");

    let cases: &[(&[&str], &str)] = &[
        (&init, "not empty"),
        (&["cluster", "init", &nothing], "--node"),
        (&["cluster", "init", &nothing, "--node", n1], "3 replicas"),
        (&["cluster", "init", &nothing, "--node", "127.0.0.1"], "IP:PORT"),
        (&["cluster", "init", &nothing, "--node", n1, "--node", n1, "--replicas", "2"], n1),
        (
            &["cluster", "init", &nothing, "--node", n1, "--node", &format!("n1={n2}")],
            "n1 is named twice",
        ),
        (&["cluster", "init", &nothing, "--node", n1, "--replicas", "1", "--days", "0"], "0 days"),
        (&["cluster", "init", &nothing, "--node", n1, "--partitions", "7"], "7"),
        (&["cluster", "renew", &nothing, "--all"], "holds no cluster"),
        (&["cluster", "renew", &prod], "--all"),
        (&["cluster", "renew", &prod, "n9"], "has no n9: it has n1, client, operator"),
        (&["cluster", "renew", &prod, "n1", "--days", "99999"], "1 to 1825"),
        (&["cluster", "client-cert", &prod, "--name", "client"], "there already"),
        (&["cluster", "client-cert", &prod, "--name", "n4"], "n4"),
        (&["cluster", "client-cert", &prod, "--name", "a/b"], "a/b"),
        (&["cluster", "renew", &prod, "--all", "--cluster", "x"], "does not talk"),
    ];
    for (arguments, word) in cases {
        let ran = site.run(arguments);
        assert_eq!(ran.code, 2, "atoll {}: {ran:?}", arguments.join(" "));
        assert!(ran.stderr.contains(word), "{:?} does not speak of {word}", ran.stderr);
        assert!(ran.stdout.is_empty(), "an error belongs on stderr: {ran:?}");
    }
    assert!(!Path::new(&nothing).exists());
    assert_eq!(fs::read(site.folder("prod/ca.key")).expect("still there"), key);

    fs::remove_file(site.folder("prod/ca.key")).expect("ours");
    let ran = site.run(&["cluster", "renew", &prod, "--all"]);
    assert!(ran.code == 2 && ran.stderr.contains("bring the key back"), "{ran:?}");
}

/// Completions and manual speak of every command, down to the last.
#[test]
fn completions_and_manual() {
    let site = Site::new(26_300, 0);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = site.ok(&["completions", shell]);
        for word in ["client-cert", "testnet", "lookup", "completions", "first-start"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    assert_eq!(site.run(&["completions", "tcsh"]).code, 2);
    let bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn();
    if let Ok(mut bash) = bash {
        let script = site.ok(&["completions", "bash"]);
        let mut stdin = bash.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, script.as_bytes()).expect("bash reads");
        drop(stdin);
        assert!(bash.wait().expect("ours").success(), "bash cannot read it");
    }

    let first = site.ok(&["man"]);
    assert!(first.contains(".TH atoll 1") && first.contains("testnet"), "{first}");
    site.ok(&["man", &site.at("man")]);
    for page in ["atoll", "atoll-put", "atoll-cluster-renew", "atoll-testnet-up", "atoll-bench-run"]
    {
        let text = fs::read_to_string(site.folder(&format!("man/{page}.1"))).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
    let renew = fs::read_to_string(site.folder("man/atoll-cluster-renew.1")).expect("there");
    assert!(renew.contains("new\\-keys"), "{renew}");
}

/// A folder that plays the operator's machine and the hosts.
struct Site {
    folder: tempfile::TempDir,
    ports: Vec<u16>,
}

struct Host {
    process: Child,
    log: PathBuf,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Site {
    /// With free ports for so many nodes, searched from `base_port` on, which differs from test to test.
    fn new(base_port: u16, nodes: usize) -> Site {
        let free = |port: &u16| UdpSocket::bind(("127.0.0.1", *port)).is_ok();
        let ports = (base_port..base_port + 100).filter(free).take(nodes).collect();
        Site { folder: tempfile::tempdir().expect("a directory"), ports }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.folder(name).to_str().expect("plain path").to_owned()
    }

    fn profile(&self, cluster: &str, user: &str) -> String {
        self.at(&format!("{cluster}/users/{user}/profile.toml"))
    }

    fn init(&self, cluster: &str) -> String {
        let nodes = self.ports.iter().map(|port| format!("--node=127.0.0.1:{port}"));
        let replicas = format!("--replicas={}", self.ports.len());
        let folder = self.at(cluster);
        let arguments = ["cluster".to_owned(), "init".to_owned(), folder, replicas];
        let arguments: Vec<String> = arguments.into_iter().chain(nodes).collect();
        self.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Moves a node's folder to its host and starts it there for the first time.
    fn start(&self, cluster: &str, node: usize) -> Host {
        let (from, to) = (format!("{cluster}/n{node}"), format!("host{node}"));
        let copied =
            Command::new("cp").args(["-rp", &self.at(&from), &self.at(&to)]).status().expect("cp");
        assert!(copied.success());
        let log = self.folder(&format!("{to}.log"));
        let process = Command::new(env!("CARGO_BIN_EXE_atoll"))
            .args([
                "node",
                "run",
                "--first-start",
                "--config",
                &self.at(&format!("{to}/node.toml")),
            ])
            .stdin(Stdio::null())
            .stderr(File::create(&log).expect("writable"))
            .spawn()
            .expect("the program runs");
        Host { process, log }
    }

    /// What an operator does with `scp`: whole, then moved into its place.
    fn copy_certificate(&self, cluster: &str, node: usize) {
        let from = self.folder(&format!("{cluster}/n{node}/node.pem"));
        let (new, to) = (format!("host{node}/node.pem.new"), format!("host{node}/node.pem"));
        fs::copy(from, self.folder(&new)).expect("ours");
        fs::rename(self.folder(&new), self.folder(&to)).expect("ours");
    }

    /// What a node says of itself.
    fn node_status(&self, profile: &str, node: usize) -> Value {
        let text = self.run(&["status", "--cluster", profile, "-o", "json"]).stdout;
        let document: Value = serde_json::from_str(&text).expect("JSON");
        document["nodes"][node - 1]["status"].clone()
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let ran = Command::new(env!("CARGO_BIN_EXE_atoll"))
            .args(arguments)
            .env("ATOLL_HOME", self.folder("home"))
            .env_remove("ATOLL_CLUSTER")
            .output()
            .expect("the program runs");
        Ran {
            code: ran.status.code().expect("not killed"),
            stdout: String::from_utf8_lossy(&ran.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ran.stderr).into_owned(),
        }
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "atoll {}: {ran:?}", arguments.join(" "));
        ran.stdout
    }
}
