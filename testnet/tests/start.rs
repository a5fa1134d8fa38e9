//! What `up` does when nodes do not become ready, shown with programs that are no nodes: nothing may be left running,
//! and the error must say what a person would otherwise have to search for. The good case needs the real program and
//! is part of the smoke run.

use std::{
    fs,
    future::{pending, ready},
    path::{Path, PathBuf},
    time::Duration,
};

use atoll_testnet::{
    Condition, Event, Home, Launcher, OpenError, StartError, Testnet, UpError, Wish, start, stop,
    up,
};

struct Stage {
    folder: tempfile::TempDir,
    home: Home,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("home")).unwrap();
        Stage { folder, home }
    }

    async fn up(&self, program: &str, wish: &Wish) -> UpError {
        let launcher = launcher(program);
        up(&self.home, &launcher, wish, pending(), &mut |_| {}).await.unwrap_err()
    }

    fn testnet(&self) -> Testnet {
        Testnet::open(&self.home, Some("dev")).unwrap()
    }

    fn nothing_runs(&self) {
        for node in self.testnet().nodes() {
            assert_eq!(node.condition().unwrap(), Condition::Stopped, "{}", node.id);
        }
    }
}

fn launcher(program: &str) -> Launcher {
    // those that never answer are given up soon; those that end are waited for, however busy the machine is
    let ready_limit = match program {
        "silent" | "stubborn" => Duration::from_millis(700),
        _ => Duration::from_secs(20),
    };
    Launcher {
        program: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(program),
        node_arguments: Vec::new(),
        ready_limit,
        stop_limit: Duration::from_secs(5),
    }
}

/// Every test has ports of its own, above those that testnets usually have and below those that systems hand out.
fn wish(base_port: u16) -> Wish {
    Wish { nodes: Some(3), base_port: Some(base_port), ..Wish::default() }
}

/// A node ends at once: noticed at once, with its exit status, its last lines and the path of its log.
#[tokio::test]
async fn a_node_that_ends_is_reported_with_its_last_words() {
    let stage = Stage::new();
    let UpError::Start(error) = stage.up("refuses", &wish(21_001)).await else {
        panic!("not a start")
    };
    assert!(error.to_string().ends_with("did not become ready: it ended with exit status 2"));
    let (last_lines, log) = error.log().unwrap();
    assert_eq!(last_lines, ["reading the configuration", "unknown setting colour"]);
    assert!(log.is_file());
    stage.nothing_runs();

    // the log is appended to, and only what this start has said is shown
    let UpError::Start(error) = stage.up("refuses", &wish(21_001)).await else {
        panic!("not a start")
    };
    assert_eq!(error.log().unwrap().0.len(), 2);
}

/// One node fails: the others, which run, are ended with it.
#[tokio::test]
async fn one_failure_ends_them_all() {
    let stage = Stage::new();
    let UpError::Start(error) = stage.up("n2-fails", &wish(21_101)).await else {
        panic!("not a start")
    };
    let StartError::Exited { node, status, .. } = error else { panic!("{error}") };
    assert_eq!((node.0, status.code()), (2, Some(10)));
    stage.nothing_runs();
}

/// A first start that was cut short leaves half a store, and no node would start on it again: it is gone with the
/// attempt. The data of a testnet that was there before stays, whatever happens.
#[tokio::test]
async fn half_a_store_is_not_left_behind() {
    let stage = Stage::new();
    stage.up("half-done", &wish(21_151)).await;
    let node = &stage.testnet().nodes()[0];
    assert!(node.log().is_file());
    assert!(!node.folder().join("data").exists());

    fs::create_dir(node.folder().join("data")).unwrap();
    stage.up("refuses", &wish(21_151)).await;
    assert!(node.folder().join("data").is_dir());
}

/// A node that never answers is given up at the limit, and ended.
#[tokio::test]
async fn silence_has_a_limit() {
    let stage = Stage::new();
    let UpError::Start(error) = stage.up("silent", &wish(21_201)).await else {
        panic!("not a start")
    };
    let StartError::Silent { last_lines, .. } = error else { panic!("{error}") };
    assert_eq!(last_lines, ["up and silent"]);
    stage.nothing_runs();
}

/// Ctrl-C before all are ready: nothing is left running, and an ephemeral testnet leaves nothing at all.
#[tokio::test]
async fn an_interrupt_leaves_nothing_running() {
    let stage = Stage::new();
    let launcher = launcher("silent");
    let interrupt = || tokio::time::sleep(Duration::from_millis(200));
    let outcome = up(&stage.home, &launcher, &wish(21_301), interrupt(), &mut |_| {}).await;
    assert!(matches!(outcome, Err(UpError::Interrupted)));
    stage.nothing_runs();

    let scratch = Wish { name: Some("scratch".into()), ephemeral: true, ..wish(21_321) };
    let outcome = up(&stage.home, &launcher, &scratch, interrupt(), &mut |_| {}).await;
    assert!(matches!(outcome, Err(UpError::Interrupted)));
    assert_eq!(stage.home.names().unwrap(), ["dev"]);
}

/// A node that ignores SIGTERM is killed after the limit.
#[tokio::test]
async fn who_does_not_end_is_killed() {
    let stage = Stage::new();
    let slow = Launcher { stop_limit: Duration::from_millis(300), ..launcher("stubborn") };
    let outcome = up(&stage.home, &slow, &wish(21_401), pending(), &mut |_| {}).await;
    assert!(matches!(outcome, Err(UpError::Start(_))));
    stage.nothing_runs();
}

/// The pid file says a process that is another one by now: `up`, `stop` and `kill` let it live.
#[tokio::test]
async fn a_stale_pid_file_harms_nobody() {
    let stage = Stage::new();
    stage.up("refuses", &wish(21_501)).await;
    let testnet = stage.testnet();
    let node = &testnet.nodes()[0];
    let mut stranger = std::process::Command::new("sleep").arg("20").spawn().unwrap();
    let stale = format!("{} 1\n", stranger.id());

    fs::write(node.folder().join("pid"), &stale).unwrap();
    assert_eq!(node.condition().unwrap(), Condition::Dead);
    stop::kill(std::slice::from_ref(node), &mut |_| {}).await.unwrap();
    stop::stop(vec![node.clone()], Duration::from_secs(1), &mut |_| {}).await.unwrap();
    fs::write(node.folder().join("pid"), &stale).unwrap();
    stage.up("refuses", &wish(21_501)).await;

    assert!(stranger.try_wait().unwrap().is_none(), "it must have survived");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// The ports that were found stay, also for the next testnet; a stopped one whose port was taken meanwhile says so.
#[tokio::test]
async fn ports_are_never_moved() {
    let stage = Stage::new();
    stage.up("refuses", &wish(21_601)).await;
    let second = Wish { name: Some("second".into()), ..wish(21_601) };
    stage.up("refuses", &second).await;
    let (first, second) = (
        stage.testnet().asked().first_port,
        Testnet::open(&stage.home, Some("second")).unwrap().asked().first_port,
    );
    assert!(second >= first + 3, "{first} {second}");

    let held = std::net::UdpSocket::bind(("127.0.0.1", first + 1)).unwrap();
    let error = stage.up("refuses", &wish(21_601)).await;
    assert!(matches!(error, UpError::PortTaken { port, .. } if port == first + 1), "{error}");
    drop(held);
    assert_eq!(stage.testnet().asked().first_port, first);
}

/// Somebody takes the ports after we have looked and before the nodes start: the next block is tried, and written down.
#[tokio::test]
async fn a_lost_race_for_ports() {
    let stage = Stage::new();
    let mut held = Vec::new();
    let mut blocks = Vec::new();
    let mut hear = |event| match event {
        Event::Created { first_port, nodes, .. } => {
            if blocks.is_empty() {
                let ports = first_port..first_port + u16::try_from(nodes).unwrap();
                held.extend(ports.map(|port| std::net::UdpSocket::bind(("127.0.0.1", port))));
            }
            blocks.push(first_port);
        }
        Event::PortTaken { port } => assert!((port - blocks[0]) < 3),
        _ => {}
    };
    let outcome = up(&stage.home, &launcher("refuses"), &wish(21_651), pending(), &mut hear).await;
    assert!(matches!(outcome, Err(UpError::Start(_))));
    assert_eq!(blocks.len(), 2);
    assert_eq!(stage.testnet().asked().first_port, blocks[1]);
    let view = fs::read_to_string(stage.testnet().folder().join("view.json")).unwrap();
    assert!(view.contains(&format!("127.0.0.1:{}", blocks[1])));
    stage.nothing_runs();
}

/// A contradiction changes nothing and starts nothing.
#[tokio::test]
async fn a_contradiction_is_refused() {
    let stage = Stage::new();
    stage.up("refuses", &wish(21_701)).await;
    let error = stage.up("refuses", &Wish { nodes: Some(4), ..wish(21_701) }).await;
    let text = "--nodes 4 contradicts what testnet dev was made with: nodes = 3";
    assert_eq!(error.to_string(), text);
    assert_eq!(stage.testnet().nodes().len(), 3);
}

/// What cannot be leaves no trace.
#[tokio::test]
async fn a_refused_wish_leaves_nothing() {
    let stage = Stage::new();
    let error = stage.up("refuses", &Wish { nodes: Some(2), ..wish(21_801) }).await;
    assert!(matches!(error, UpError::Asked(_)), "{error}");
    assert!(!stage.home.entry("dev").unwrap().exists());
}

/// While somebody starts or stops nodes, a second `up` does not even wait.
#[tokio::test]
async fn two_at_once() {
    let stage = Stage::new();
    stage.up("refuses", &wish(21_901)).await;
    let _held = stage.testnet().lock(Duration::ZERO).await.unwrap();
    let error = stage.up("refuses", &wish(21_901)).await;
    assert!(matches!(error, UpError::Open(OpenError::Busy { .. })), "{error}");
}

/// `--dir`: the testnet lives there, and removing it takes what is ours and leaves what is not.
#[tokio::test]
async fn elsewhere() {
    let stage = Stage::new();
    let folder: PathBuf = stage.folder.path().join("elsewhere");
    stage.up("refuses", &Wish { folder: Some(folder.clone()), ..wish(22_001) }).await;
    assert!(folder.join("n1/log").is_file());
    fs::write(folder.join("notes"), "mine").unwrap();
    let launcher = launcher("refuses");
    atoll_testnet::down(&stage.home, &launcher, &stage.testnet(), true, &mut |_| {}).await.unwrap();
    let left: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes"]);
    assert!(stage.home.names().unwrap().is_empty());
}

/// Starting one node by name ends it again if it fails, and not the others.
#[tokio::test]
async fn starting_one_node() {
    let stage = Stage::new();
    stage.up("refuses", &wish(22_101)).await;
    let testnet = stage.testnet();
    let first = vec![testnet.nodes()[0].clone()];
    let outcome = start::start(&testnet, &launcher("silent"), first, pending(), &mut |_| {}).await;
    assert!(matches!(outcome, Err(StartError::Silent { .. })));
    let first = vec![testnet.nodes()[0].clone()];
    let outcome = start::start(&testnet, &launcher("silent"), first, ready(()), &mut |_| {}).await;
    assert!(matches!(outcome, Err(StartError::Interrupted)));
    stage.nothing_runs();
}
