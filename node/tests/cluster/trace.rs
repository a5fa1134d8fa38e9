//! What a traced request shows: each step on each node, in the order of what happened.

use std::time::Duration;

use atoll_antientropy::Operation;
use atoll_node::TRACES_MAX;
use atoll_ring::{NodeId, QuorumRequest};
use atoll_transport::{Answer, Caller, Handler as _};
use atoll_wire::{
    Ask, Deed, Envelope, Failure, Get, Many, One, Outcome, Receipt, Repair, Reply, Request, Role,
    Roles, Trace, Write,
};
use futures_util::FutureExt as _;

use crate::cluster::{Cluster, DEFAULT, SLOPPY, SYNC, With, blind, r, w};

/// What one node has noted.
fn steps(trace: &Trace, node: NodeId) -> Vec<(Deed, Option<u32>)> {
    let its = trace.steps.iter().filter(|step| step.node == node.0);
    its.map(|step| (step.deed, step.peer)).collect()
}

fn deeds(trace: &Trace, node: NodeId) -> Vec<Deed> {
    steps(trace, node).into_iter().map(|(deed, _)| deed).collect()
}

fn trace_of(receipt: &Receipt) -> &Trace {
    receipt.trace.as_ref().expect("it was asked for")
}

fn micros(trace: &Trace, node: NodeId, deed: Deed) -> Duration {
    let step = trace.steps.iter().find(|step| (step.node, step.deed) == (node.0, deed));
    Duration::from_micros(step.expect("it was noted").micros.into())
}

/// A write with all three owners: the coordinator's steps and those of the others, each by its own clock.
#[tokio::test(start_paused = true)]
async fn a_write_shows_its_steps_on_every_node() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let client = cluster.client().traced();
    let way = Duration::from_millis(7);
    cluster.network.slow(owners[0], owners[2], way);
    client.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("leases are taken");
    let stored = client.put(owners[0], "k", "w", &blind(), &w(3)).await.expect("all are up");
    let trace = trace_of(&stored.receipt);
    let (own, peers) = (steps(trace, owners[0]), [Some(owners[1].0), Some(owners[2].0)]);
    assert_eq!(
        own,
        [
            (Deed::Arrived, None),
            (Deed::Planned, None),
            (Deed::Leased, None),
            (Deed::TurnBegun, None),
            (Deed::Queued, None),
            (Deed::Sent, peers[0]),
            (Deed::Sent, peers[1]),
            (Deed::Fsynced, None),
            (Deed::Answered, peers[0]),
            (Deed::Answered, peers[1]),
            (Deed::Decided, None),
            (Deed::Replied, None),
        ]
    );
    for replica in &owners[1..] {
        let theirs = [Deed::Arrived, Deed::Joined, Deed::Fsynced, Deed::Replied];
        assert_eq!(deeds(trace, *replica), theirs);
        let fsynced = micros(trace, *replica, Deed::Fsynced);
        assert_eq!(fsynced, SYNC, "since it came to {replica}, the way not included");
    }
    assert_eq!(micros(trace, owners[0], Deed::Decided), way + SYNC);
    assert_eq!((trace.left_out, trace.untraced.len()), (0, 0));
}

/// A read shows whom it asked, and blocking repair what it made sure of.
#[tokio::test(start_paused = true)]
async fn a_read_shows_whom_it_asked() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("all are up");
    let client = cluster.client().traced();
    let found = client.get(owners[0], "k", &r(2)).await.expect("all are up");
    let trace = trace_of(&found.receipt);
    let asked = found
        .receipt
        .replicas
        .iter()
        .find(|line| line.node != owners[0].0 && line.outcome == Outcome::Current);
    let other = NodeId(asked.expect("a second").node);
    let own = [
        Deed::Arrived,
        Deed::OwnCopyRead,
        Deed::Sent,
        Deed::Answered,
        Deed::Decided,
        Deed::Replied,
    ];
    assert_eq!(deeds(trace, owners[0]), own);
    assert_eq!(deeds(trace, other), [Deed::Arrived, Deed::OwnCopyRead, Deed::Replied]);
    let sure = With { repair: Repair::Blocking, ..r(2) };
    let found = client.get(owners[0], "k", &sure).await.expect("all are up");
    let own = deeds(trace_of(&found.receipt), owners[0]);
    assert!(own.contains(&Deed::Assured), "{own:?}");
}

/// Through a node that owns nothing of it: that one shows that it has handed the request over, and the rest comes with it.
#[tokio::test(start_paused = true)]
async fn a_hand_over_shows_both_nodes() {
    let cluster = Cluster::start(5).await;
    let via = cluster.not_owner("k");
    let client = cluster.client().traced();
    let stored = client.put(via, "k", "v", &blind(), &DEFAULT).await.expect("all are up");
    let trace = trace_of(&stored.receipt);
    let coordinator = stored.receipt.coordinator;
    assert_ne!(coordinator, via.0);
    let own = [
        (Deed::Arrived, None),
        (Deed::Planned, None),
        (Deed::HandedOver, Some(coordinator)),
        (Deed::HandedBack, Some(coordinator)),
        (Deed::Replied, None),
    ];
    assert_eq!(steps(trace, via), own);
    assert!(deeds(trace, NodeId(coordinator)).contains(&Deed::Queued));
}

/// A delete without a context reads first; an owner that is away, a fallback in its seat and one that is given up show too.
#[tokio::test(start_paused = true)]
async fn detours_are_shown() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("all are up");
    let client = cluster.client().traced();
    let deleted = client.delete(owners[0], "k", &blind(), &DEFAULT).await.expect("all are up");
    let own = deeds(trace_of(&deleted.receipt), owners[0]);
    assert!(own.contains(&Deed::ReadFirst), "{own:?}");

    cluster.crash(owners[2]);
    cluster.settle().await;
    let full = With { w: Some(3), ..SLOPPY };
    let stored = client.put(owners[0], "k", "w", &blind(), &full).await.expect("a fallback");
    let fallback = cluster.fallbacks("k")[0];
    let trace = trace_of(&stored.receipt);
    assert!(steps(trace, owners[0]).contains(&(Deed::SentToFallback, Some(fallback.0))));
    assert!(deeds(trace, fallback).contains(&Deed::Fsynced));

    cluster.network.pause(owners[1]);
    let failure = client.put(owners[0], "k", "x", &blind(), &w(2)).await.expect_err("one owner");
    let trace = failure.receipt.as_ref().map(|receipt| trace_of(receipt)).expect("a receipt");
    assert!(steps(trace, owners[0]).contains(&(Deed::GivenUp, Some(owners[1].0))), "{trace:?}");
}

/// Whoever does not ask gets no trace, and no node notes anything.
#[tokio::test(start_paused = true)]
async fn nothing_is_traced_unasked() {
    let cluster = Cluster::start(5).await;
    let via = cluster.owners("k")[0];
    let stored = cluster.put(via, "k", "v", &blind(), &DEFAULT).await.expect("all are up");
    let found = cluster.get(via, "k", &DEFAULT).await.expect("all are up");
    assert_eq!((stored.receipt.trace, found.receipt.trace), (None, None));
}

/// Of several keys in one request each has a trace of its own; past the bound a node says that it has noted nothing. When
/// the answers have left there is room again.
#[tokio::test(start_paused = true)]
async fn a_node_traces_so_many_at_a_time_and_says_so() {
    let cluster = Cluster::start(3).await;
    let via = NodeId(1);
    let quorum = QuorumRequest::default();
    let ask = |number: usize| {
        let key = format!("key-{number}").into();
        let put = Operation::Put { value: "v".into(), expires_ms: None };
        Ask::Write(Write::new(key, quorum, &put))
    };
    let ones = (0..TRACES_MAX + 10)
        .map(|number| One { operation: number as u128 + 1, ask: ask(number) })
        .collect::<Vec<_>>();
    let client = cluster.client().traced();
    let reply = client.call(via, Request::Many(Many::of(&ones)), 1000).await.expect("up");
    let Reply::Many(replies) = reply else { panic!("{reply:?}") };
    let untraced = replies
        .read()
        .expect("answers")
        .into_iter()
        .filter(|reply| match reply {
            Reply::Written(stored) => {
                let trace = trace_of(&stored.receipt);
                assert_eq!(trace.steps.is_empty(), trace.untraced.contains(&via.0));
                trace.steps.is_empty()
            }
            other => panic!("{other:?}"),
        })
        .count();
    assert_eq!(untraced, 10);

    let get = Get { key: "key-1".into(), session: None, quorum, repair: Repair::Async };
    let reply = client.call(via, Request::Get(get), 1000).await.expect("up");
    let Reply::Found(found) = reply else { panic!("{reply:?}") };
    assert!(!trace_of(&found.receipt).steps.is_empty(), "there is room again");
}

/// Requests that fail, more of them than may be traced at a time, leave nothing behind.
#[tokio::test(start_paused = true)]
async fn requests_that_have_failed_hold_no_room() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    let client = cluster.client().traced();
    cluster.network.pause(owners[1]);
    cluster.network.pause(owners[2]);
    for _ in 0..2 * TRACES_MAX {
        let failure: Failure =
            client.put(owners[0], "k", "v", &blind(), &w(2)).await.expect_err("one owner");
        assert!(!failure.detail.is_empty());
    }
    cluster.network.wake(owners[1]);
    cluster.network.wake(owners[2]);
    cluster.settle().await;
    let stored = client.put(owners[0], "k", "v", &blind(), &w(2)).await.expect("up again");
    assert!(trace_of(&stored.receipt).untraced.is_empty());
}

/// Requests that are given up in the middle, because their connection has ended, leave nothing behind either.
#[tokio::test(start_paused = true)]
async fn requests_that_are_given_up_hold_no_room() {
    let cluster = Cluster::start(3).await;
    let via = cluster.owners("k")[0];
    for number in 1..=2 * TRACES_MAX {
        let put = Operation::Put { value: "v".into(), expires_ms: None };
        let write = Write::new("k".into(), QuorumRequest::default(), &put);
        let envelope = Envelope {
            epoch: cluster.view.epoch(),
            left_ms: 1000,
            operation: number as u128,
            bucket: cluster.bucket(),
            trace: true,
            role: Role::Client,
        };
        let caller = Caller { roles: Roles::of(&[Role::Client]), node: None };
        let node = cluster.node(via).clone();
        match node.handle(caller, envelope, Request::Write(write)) {
            Answer::Later(work) => assert!(work.now_or_never().is_none(), "it waits for the disk"),
            Answer::Now(reply) => panic!("{reply:?}"),
        }
    }
    cluster.settle().await;
    let found = cluster.client().traced().get(via, "k", &DEFAULT).await.expect("up");
    assert!(trace_of(&found.receipt).untraced.is_empty());
}
