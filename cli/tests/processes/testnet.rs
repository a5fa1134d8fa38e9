//! A testnet of a test's own, spoken to by the program and by the client library.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use atoll_client::{Client, Profile};

pub struct Testnet {
    home: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Testnet {
    /// Starts so many nodes. `base_port` differs from test to test, so that they do not race for ports.
    pub fn up(nodes: u32, base_port: u16) -> Testnet {
        Testnet::up_with(nodes, base_port, &[])
    }

    /// Starts nodes whose processes have these variables set.
    pub fn up_with(nodes: u32, base_port: u16, environment: &[(&str, &str)]) -> Testnet {
        Testnet::make(nodes, base_port, 1024, environment, &[])
    }

    /// Starts nodes that may be broken on purpose.
    pub fn up_with_faults(nodes: u32, base_port: u16) -> Testnet {
        Testnet::make(nodes, base_port, 1024, &[], &["--allow-faults"])
    }

    /// Starts nodes of a ring in few parts, which changes sooner.
    pub fn up_with_partitions(nodes: u32, base_port: u16, partitions: u32) -> Testnet {
        Testnet::make(nodes, base_port, partitions, &[], &[])
    }

    fn make(
        nodes: u32,
        base_port: u16,
        partitions: u32,
        environment: &[(&str, &str)],
        options: &[&str],
    ) -> Testnet {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let testnet = Testnet {
            home: tempfile::tempdir().expect("a directory"),
            environment: environment.iter().map(own).collect(),
        };
        let (nodes, replicas) = (nodes.to_string(), nodes.min(3).to_string());
        let (base_port, partitions) = (base_port.to_string(), partitions.to_string());
        let up = [
            "testnet",
            "up",
            "--nodes",
            &nodes,
            "--replicas",
            &replicas,
            "--base-port",
            &base_port,
            "--partitions",
            &partitions,
        ];
        testnet.ok(&[&up[..], options].concat());
        testnet
    }

    /// `atoll` with these arguments, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command
            .args(arguments)
            .env("ATOLL_HOME", self.home.path())
            .env_remove("ATOLL_CLUSTER")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `atoll` with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let Output { status, stdout, stderr } =
            self.command(arguments).output().expect("the program runs");
        Ran {
            code: status.code().expect("not killed"),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Runs `atoll`, which must end well, and gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "atoll {}: {ran:?}", arguments.join(" "));
        ran.stdout
    }

    pub fn folder(&self) -> PathBuf {
        self.home.path().join("testnets/dev")
    }

    pub fn node_config(&self, node: u32) -> PathBuf {
        self.folder().join(format!("n{node}/node.toml"))
    }

    pub fn log(&self, node: u32) -> String {
        std::fs::read_to_string(self.folder().join(format!("n{node}/log"))).unwrap_or_default()
    }

    pub async fn client(&self) -> Client {
        let profile = Profile::load(&self.folder().join("profile.toml")).expect("a profile");
        Client::connect(&profile).await.expect("a node answers")
    }
}

impl Drop for Testnet {
    fn drop(&mut self) {
        let _ = self.run(&["testnet", "down"]);
    }
}

/// Waits until something is so. It gives up after longer than anything takes on a busy machine.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(120), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Puts other text in place of some in a file.
pub fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("a text file");
    assert!(text.contains(from), "{} has no {from}", path.display());
    std::fs::write(path, text.replace(from, to)).expect("writable");
}
