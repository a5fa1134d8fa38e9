//! Recorded runs against nodes that pretend: do the judges find in the history what the nodes did?

#[expect(dead_code, reason = "the other test file asks more of the nodes")]
mod standin;

use std::{collections::BTreeSet, fs::File, future::pending, io::BufReader, time::Duration};

use atoll_bench::{Arrivals, OpenLoop, Pace, Report, Run, RunError, run};
use atoll_check::{Event, Judge, Promise, Verdict, What, read_history};
use atoll_client::QuorumRequest;
use standin::{Fault, StandIn};

fn tiny() -> Run {
    let strict = QuorumRequest { sloppy: Some(false), ..QuorumRequest::default() };
    Run {
        length: Duration::from_millis(300),
        warmup: Duration::from_millis(50),
        pace: Pace::Closed(Some(8)),
        keys: 40,
        value_bytes: 100,
        quorum: strict,
        ..Run::default()
    }
}

/// Records a run and judges it, whatever the receipts of pretenders show.
fn recorded(fault: Fault, settings: Run) -> (Report, Vec<Event>, Verdict) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.jsonl");
    let settings = Run { history: Some(file.clone()), ..settings };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let nodes = StandIn::start(fault);
        run(&settings, &nodes.profile, pending()).await.unwrap()
    });
    let mut judge = Judge::new();
    let lines = BufReader::new(File::open(&file).unwrap());
    let events: Vec<Event> = read_history(lines).map(|event| event.unwrap()).collect();
    events.iter().for_each(|event| judge.hear(event).unwrap());
    let mut verdict = judge.verdict();
    verdict.broken.remove(&Promise::ReceiptsTrue);
    (report, events, verdict)
}

/// Whatever the load, an honest cluster is found to be so, nothing that counted is missing from the history, and each
/// write says what it had seen.
#[test]
fn an_honest_cluster_is_acquitted() {
    let check = |settings: Run| {
        let (report, events, verdict) = recorded(Fault::None, settings);
        assert!(verdict.is_clean(), "{:#?}", verdict.violations);
        let figures = verdict.figures;
        assert!(figures.reads >= report.reads.count, "{figures:?}");
        assert!(figures.acknowledged >= report.writes.count, "{figures:?}");
        assert!(figures.promised_reads > figures.reads / 10, "{figures:?}");
        assert_eq!(figures.silent, 0);
        let blind = events
            .iter()
            .filter(|event| matches!(event, Event::Begin { what: What::Put, seen: None, .. }));
        assert!(blind.count() <= 2 * 40, "each key has one first put, or two that overlap");
    };
    let rate = OpenLoop { rate: 2000, arrivals: Arrivals::Poisson, outstanding_max: 1000 };
    check(tiny());
    check(Run { preload: false, ..tiny() });
    check(Run { pace: Pace::Open(rate), keys: 64, ..tiny() });
}

/// A node that is stuck shows values that had been replaced; one without memory shows nothing. Both break what strict
/// quorums promise, and only that.
#[test]
fn what_nodes_do_wrong_is_found() {
    let broken = |fault| {
        let (_, _, verdict) = recorded(fault, Run { read_ratio: 0.8, ..tiny() });
        verdict.broken.into_keys().collect::<BTreeSet<Promise>>()
    };
    assert_eq!(broken(Fault::Amnesia), [Promise::ReadsSeeWrites].into());
    let stuck = [Promise::ReadsSeeWrites, Promise::NoResurrection];
    assert_eq!(broken(Fault::OneIsStuck), stuck.into());
}

/// Writes that happened and were never answered for are nobody's fault: they may be seen, or not.
#[test]
fn writes_with_an_unknown_end_are_acquitted() {
    let (_, _, verdict) = recorded(Fault::WritesVanishFromSight, tiny());
    assert!(verdict.is_clean(), "{:#?}", verdict.violations);
    assert!(verdict.figures.unknown + verdict.figures.silent > 0, "{:?}", verdict.figures);
}

/// A history that cannot be begun is refused before anything is written to the cluster.
#[test]
fn a_file_that_exists_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Run { history: Some(folder.path().to_owned()), ..tiny() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(async {
        let nodes = StandIn::start(Fault::None);
        run(&settings, &nodes.profile, pending()).await.unwrap_err()
    });
    assert!(matches!(refused, RunError::History { .. }), "{refused}");
}
