//! Whole runs, tiny ones, against nodes that pretend: does the report say what the nodes did?

mod standin;

use std::{
    future::pending,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use atoll_bench::{
    Arrivals, Distribution, FreshAfter, OpenLoop, Pace, Report, Run, RunError, Sessions, Through,
    run,
};
use atoll_client::ConnectError;
use standin::{Fault, LAG, StandIn};

fn tiny() -> Run {
    Run {
        length: Duration::from_millis(300),
        warmup: Duration::from_millis(50),
        pace: Pace::Closed(Some(8)),
        keys: 40,
        value_bytes: 100,
        ..Run::default()
    }
}

fn with_nodes<T>(fault: Fault, story: impl AsyncFnOnce(StandIn) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { story(StandIn::start(fault)).await })
}

fn report(fault: Fault, settings: &Run) -> Report {
    with_nodes(fault, async |nodes| run(settings, &nodes.profile, pending()).await.unwrap())
}

/// What is found out until the nodes have answered so many reads, however long a busy machine takes for that.
fn found_out(fault: Fault, settings: Run, reads: u64) -> Report {
    let settings = Run { length: Duration::from_secs(3600), ..settings };
    with_nodes(fault, async |nodes| {
        let enough = answered(&nodes, reads);
        run(&settings, &nodes.profile, enough).await.unwrap()
    })
}

async fn answered(nodes: &StandIn, reads: u64) {
    while nodes.reads.load(Ordering::Relaxed) < reads {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A store that keeps its promises: whatever the settings, nothing is stale, missing or wrong, no sibling appears where
/// each key has one writer, and reads come through every node.
#[test]
fn an_honest_cluster_gets_a_clean_report() {
    let check = |settings: &Run| {
        let report = report(Fault::None, settings);
        assert_eq!((report.reads.failed, report.writes.failed), (0, 0));
        assert_eq!(report.staleness.stale, 0);
        assert_eq!(report.staleness.unjudged, 0);
        assert_eq!(report.staleness.judged + report.staleness.unwritten, report.reads.count);
        assert_eq!(report.reads.count > 0, settings.read_ratio > 0.0);
        assert_eq!(report.writes.count > 0, settings.read_ratio < 1.0);
        assert_eq!(report.reads.latency_ms.is_some(), report.reads.count > 0);
        if settings.preload {
            assert_eq!(report.reads_missing + report.staleness.unwritten, 0);
        }
        if !settings.shared_keys {
            assert_eq!(report.siblings.reads, 0);
        }
        if settings.read_ratio == 1.0 {
            let coordinators: Vec<&str> =
                report.reads_by_coordinator.keys().map(String::as_str).collect();
            assert_eq!(coordinators, ["n1", "n2", "n3"]);
        }
        let by_age = &report.staleness.by_time_since_ack;
        assert_eq!(by_age.iter().map(|bucket| bucket.reads).sum::<u64>(), report.staleness.judged);
        assert!(by_age.iter().all(|bucket| bucket.fresh == bucket.reads), "{by_age:?}");
        let sessions = &report.sessions;
        assert_eq!(sessions.read_your_writes.violated + sessions.monotonic_reads.violated, 0);
        if settings.preload {
            assert_eq!(sessions.read_your_writes.at_stake > 0, settings.read_ratio > 0.0);
            assert_eq!(sessions.monotonic_reads.at_stake > 0, settings.read_ratio > 0.0);
        }
        assert_eq!(report.context_reads > 0, settings.shared_keys || !settings.preload);
    };
    check(&tiny());
    check(&Run { distribution: Distribution::Zipf, connections: 2, ..tiny() });
    check(&Run { read_ratio: 0.0, ..tiny() });
    check(&Run { read_ratio: 1.0, ..tiny() });
    check(&Run { read_ratio: 1.0, through: Through::Any, ..tiny() });
    check(&Run { preload: false, keys: 10_000, ..tiny() });
    check(&Run { shared_keys: true, ..tiny() });
}

/// One node of three shows what was there long ago. Coordinators are drawn at random, so about a third of the reads of
/// keys that were written since the preload must be found stale, and by how much.
#[test]
fn a_node_that_is_stuck_is_found_out() {
    let report = found_out(Fault::OneIsStuck, Run { read_ratio: 0.8, ..tiny() }, 1000);
    let share = report.staleness.share.unwrap();
    assert!((0.1..0.5).contains(&share), "{:?}", report.staleness);
    assert!(report.staleness.behind_max > 1, "{:?}", report.staleness);
    assert_eq!(report.reads_missing, 0);
}

/// The same node in the eyes of single clients: some do not find what they wrote, and some see time run backwards; but
/// not all of them, because two nodes of three are in order.
#[test]
fn clients_notice_a_node_that_is_stuck() {
    let report = found_out(Fault::OneIsStuck, Run { read_ratio: 0.8, ..tiny() }, 1000);
    let Sessions { count, keys_remembered, read_your_writes, monotonic_reads } = report.sessions;
    assert_eq!((count, keys_remembered), (8, 1024));
    for found in [read_your_writes, monotonic_reads] {
        assert!(0 < found.violated && found.violated < found.at_stake, "{found:?}");
    }
    assert!(
        read_your_writes.at_stake < monotonic_reads.at_stake,
        "five keys of forty are own ones"
    );
}

/// One node of three shows what was there a while ago. Whoever reads so long after the last write finds everything; so
/// all stale reads stand in the buckets below that time, and as the lag is long, there are some.
#[test]
fn a_node_that_lags_is_fresh_after_its_lag() {
    let report = found_out(Fault::OneLagsBehind, Run { read_ratio: 0.8, ..tiny() }, 1000);
    let by_age = &report.staleness.by_time_since_ack;
    let stale = |bucket: &&FreshAfter| bucket.fresh < bucket.reads;
    assert!(by_age.iter().any(|bucket| stale(&bucket)), "{by_age:?}");
    let lag_us = u64::try_from(LAG.as_micros()).unwrap();
    for bucket in by_age.iter().filter(stale) {
        assert!(bucket.t_from_us < lag_us, "stale {LAG:?} after the ack: {bucket:?}");
    }
    let (reads, fresh) = by_age
        .iter()
        .fold((0, 0), |(reads, fresh), bucket| (reads + bucket.reads, fresh + bucket.fresh));
    assert_eq!((reads, reads - fresh), (report.staleness.judged, report.staleness.stale));
}

/// Nodes that show nothing at all: every read is missing and every one is stale.
#[test]
fn amnesia_is_no_excuse() {
    let report = report(Fault::Amnesia, &tiny());
    assert_eq!(report.reads_missing, report.reads.count);
    assert_eq!(report.staleness.share, Some(1.0));
    assert!(report.staleness.by_time_since_ack.iter().all(|bucket| bucket.fresh == 0));
    let own = report.sessions.read_your_writes;
    assert_eq!((own.at_stake > 0, own.violated), (true, own.at_stake));
    assert_eq!(report.sessions.monotonic_reads.at_stake, 0, "nothing was ever shown");
}

/// An open loop does what its plan says: so many arrivals, each of them in one figure, and the same ones again with the
/// same seed.
#[test]
fn an_open_loop_sends_what_is_planned() {
    let open = |arrivals, keys| Run {
        pace: Pace::Open(OpenLoop { rate: 1000, arrivals, outstanding_max: 10_000 }),
        keys,
        ..tiny()
    };
    let sums = |report: &Report| {
        let schedule = report.schedule.as_ref().unwrap();
        let (reads, writes) = (&report.reads, &report.writes);
        assert_eq!((schedule.skipped, reads.failed, writes.failed), (0, 0, 0));
        assert_eq!(reads.count + writes.count, schedule.arrivals);
        assert!(reads.service_ms.is_some() && writes.service_ms.is_some());
        assert_eq!(report.sessions.count, 64);
        schedule.arrivals
    };
    let uniform = report(Fault::None, &open(Arrivals::Uniform, 640));
    assert_eq!(sums(&uniform), 300, "of 0.3 s");
    let poisson = report(Fault::None, &open(Arrivals::Poisson, 640));
    assert_eq!(sums(&poisson), sums(&report(Fault::None, &open(Arrivals::Poisson, 640))), "seeded");

    // One key for each of 64 writers, so that their writes meet: an honest cluster still gets a clean report.
    let crowded = Run { read_ratio: 0.2, ..open(Arrivals::Poisson, 64) };
    let crowded = report(Fault::None, &crowded);
    sums(&crowded);
    assert!(crowded.staleness.judged > 0);
    let Sessions { read_your_writes, monotonic_reads, .. } = crowded.sessions;
    assert_eq!(crowded.staleness.stale, 0);
    assert_eq!(read_your_writes.violated + monotonic_reads.violated, 0);
}

/// What a closed loop finds out, an open one finds out too.
#[test]
fn an_open_loop_judges_too() {
    let pace = OpenLoop { rate: 2000, arrivals: Arrivals::Poisson, outstanding_max: 10_000 };
    let settings = Run { pace: Pace::Open(pace), keys: 64, read_ratio: 0.8, ..tiny() };
    let report = found_out(Fault::OneIsStuck, settings, 6000); // enough that each kind is at stake often
    assert!(report.staleness.stale > 0);
    let Sessions { read_your_writes, monotonic_reads, .. } = report.sessions;
    for found in [read_your_writes, monotonic_reads] {
        assert!(0 < found.violated && found.violated < found.at_stake, "{found:?}");
    }
}

/// What the nodes used stands beside what they did; who does not tell is named and not counted.
#[test]
fn the_nodes_are_asked_what_it_cost_them() {
    let longer = Run { length: Duration::from_secs(1), ..tiny() };
    let all = report(Fault::None, &longer).nodes;
    assert_eq!(all.silent.len(), 0);
    assert_eq!(all.each.len(), 3);
    for node in &all.each {
        assert!(node.cpu_us_per_op > Some(0.0) && node.reads > 0 && node.writes > 0, "{node:?}");
        assert_eq!(node.hedges, node.reads, "the stand-ins hedge every read");
    }
    assert!(all.cpu_us_per_op > all.each[0].cpu_us_per_op);

    let two = report(Fault::OneTellsNothing, &longer).nodes;
    let told: Vec<&str> = two.each.iter().map(|node| node.node.as_str()).collect();
    assert_eq!(told, ["n1", "n3"]);
    assert!(two.silent["n2"].contains("not pretended"), "{:?}", two.silent);
    assert!(two.cpu_us_per_op > Some(0.0));
}

/// Writes that are stored although their writer never hears of it: they count as failed and not as acknowledged, a read
/// may show them, and because the writer reads before its next put of the key, they do not pile up as siblings.
#[test]
fn writes_with_an_unknown_end_are_told_apart() {
    with_nodes(Fault::WritesVanishFromSight, async |nodes| {
        let long = Run { length: Duration::from_secs(3600), ..tiny() };
        let report = run(&long, &nodes.profile, answered(&nodes, 1000)).await.unwrap();
        assert_eq!(report.writes.errors.keys().collect::<Vec<_>>(), ["write quorum not met"]);
        assert_eq!(report.failed_writes_left.keys().collect::<Vec<_>>(), ["unknown"]);
        assert_eq!(report.staleness.stale, 0);
        assert!(report.context_reads > 0);
        assert_eq!(nodes.siblings_max.load(Ordering::Relaxed), 1);
    });
}

/// A second run finds what the first one left and replaces it.
#[test]
fn runs_do_not_add_up_to_siblings() {
    with_nodes(Fault::None, async |nodes| {
        for _ in 0..2 {
            let report = run(&tiny(), &nodes.profile, pending()).await.unwrap();
            assert_eq!(report.siblings.reads, 0);
        }
        assert_eq!(nodes.siblings_max.load(Ordering::Relaxed), 1);
    });
}

/// Stopped early, it tells what there was until then; stopped before there was anything, it says that.
#[test]
fn an_interrupted_run_reports_what_it_has() {
    with_nodes(Fault::None, async |nodes| {
        let long = Run {
            length: Duration::from_secs(3600),
            warmup: Duration::ZERO,
            preload: false,
            ..tiny()
        };
        let began = Instant::now();
        let report = run(&long, &nodes.profile, answered(&nodes, 200)).await.unwrap();
        assert!(report.interrupted && report.reads.count > 0);
        assert!(report.seconds > 0.0 && report.seconds < began.elapsed().as_secs_f64());

        let at_once = run(&long, &nodes.profile, async {}).await;
        assert!(matches!(at_once, Err(RunError::Interrupted)));
    });
}

/// What cannot be: refused before anything is written.
#[test]
fn what_cannot_be_is_refused() {
    with_nodes(Fault::None, async |nodes| {
        let mut settings = tiny();
        settings.quorum.n = Some(4);
        let refused = run(&settings, &nodes.profile, pending()).await.unwrap_err();
        assert!(matches!(refused, RunError::Quorum(_)), "{refused}");
        settings.quorum.n = Some(0);
        let refused = run(&settings, &nodes.profile, pending()).await.unwrap_err();
        assert!(matches!(refused, RunError::Settings(_)), "{refused}");
        assert_eq!(nodes.siblings_max.load(Ordering::Relaxed), 0, "nothing was written");
    });
}

/// Nobody there: the addresses that were tried.
#[test]
fn a_cluster_that_is_down_is_named() {
    with_nodes(Fault::None, async |nodes| {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut profile = nodes.profile.clone();
        profile.seeds = vec![closed.local_addr().unwrap()];
        let failed = run(&tiny(), &profile, pending()).await.unwrap_err();
        assert!(failed.to_string().contains(&profile.seeds[0].to_string()), "{failed}");
        assert!(matches!(failed, RunError::Connect(ConnectError::Unreachable { .. })));
    });
}
