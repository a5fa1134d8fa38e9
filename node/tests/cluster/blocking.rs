//! What a read repairs. With `repair=blocking` it answers when as many replicas as it needed hold for certain what it
//! found, so no later quorum read sees less.

use std::time::Duration;

use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode, Outcome, Repair};
use tokio::time::Instant;

use crate::cluster::{Cluster, DEFAULT, SLOPPY, With, blind, lines, r, texts, values, w};

fn read(r: u8, repair: Repair) -> With {
    With { r: Some(r), repair, ..DEFAULT }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One owner alone has a value: a write for w=1 while nothing reached the others.
async fn only_on_one(cluster: &Cluster) -> Vec<NodeId> {
    let owners = cluster.owners("k");
    cluster.isolate(owners[0]); // unnoticed
    cluster.put(owners[0], "k", "v", &blind(), &w(1)).await.expect("its own disk");
    cluster.rejoin(owners[0]);
    owners
}

/// A read sees a value that one owner alone has, and that owner loses power for good. After a blocking read the next read
/// of two still sees it. After one that repairs nothing it does not, and after one that repairs afterwards it depends on
/// how far the repair came.
#[tokio::test(start_paused = true)]
async fn a_blocking_read_makes_the_next_one_see_no_less() {
    for (repair, seen_again) in
        [(Repair::Blocking, true), (Repair::Async, false), (Repair::None, false)]
    {
        let mut cluster = Cluster::start(3).await;
        let owners = only_on_one(&cluster).await;
        let found = cluster.get(owners[1], "k", &read(2, repair)).await.expect("up");
        // the own copy, and the nearest other; the first read may have met the two that have nothing
        let found = match values(&found).is_empty() {
            true => cluster.get(owners[0], "k", &read(2, repair)).await.expect("up"),
            false => found,
        };
        assert_eq!(values(&found), ["v"]);
        cluster.crash_all(&owners);
        cluster.boot_all(&owners[1..]).await;
        cluster.settle().await;
        let again = cluster.get(owners[1], "k", &read(2, repair)).await.expect("two are up");
        assert_eq!(!values(&again).is_empty(), seen_again, "{repair:?}");
    }
}

/// Reads of one owner go back no more either: what a blocking read of r = 1 has shown is then with all three. If one of them
/// cannot have it, the read says so.
#[tokio::test(start_paused = true)]
async fn blocking_reads_of_one_owner_never_go_back() {
    let mut cluster = Cluster::start(3).await;
    let owners = only_on_one(&cluster).await;
    let found = cluster.get(owners[0], "k", &read(1, Repair::Blocking)).await.expect("up");
    assert_eq!(values(&found), ["v"]);
    assert_eq!(found.receipt.repaired.len(), 2);
    cluster.crash_all(&owners);
    for owner in &owners {
        assert_eq!(texts(&cluster.state(*owner, "k").expect("made sure of")), ["v"], "{owner}");
    }
    cluster.boot_all(&owners[..2]).await;
    cluster.settle().await;
    for owner in &owners[..2] {
        let failure = cluster.get(*owner, "k", &read(1, Repair::Blocking)).await.expect_err("down");
        assert_eq!((failure.code, failure.got), (ErrorCode::ReadQuorumNotMet, 2));
        assert_eq!(failure.needed, 3);
    }
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    let again = cluster.get(owners[2], "k", &read(1, Repair::Blocking)).await.expect("up");
    assert_eq!((values(&again), again.receipt.repaired.len()), (vec!["v".into()], 0));
}

/// A sloppy blocking read may make sure at a fallback in place of an owner that is down.
#[tokio::test(start_paused = true)]
async fn a_sloppy_blocking_read_of_one_owner_finds_a_fallback() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.crash(owners[2]);
    cluster.settle().await;
    let blocking = With { r: Some(1), repair: Repair::Blocking, ..SLOPPY };
    let found = cluster.get(owners[0], "k", &blocking).await.expect("two owners and a fallback");
    assert_eq!(values(&found), ["v"]);
    let hint = cluster.hint(cluster.fallbacks("k")[0], owners[2], "k");
    assert_eq!(texts(&hint.expect("kept")), ["v"]);
}

/// The receipt of a blocking read names whom it had to bring up to date, and they have it on disk with the answer.
#[tokio::test(start_paused = true)]
async fn the_receipt_names_whom_a_blocking_read_repaired() {
    let mut cluster = Cluster::start(3).await;
    let owners = only_on_one(&cluster).await;
    let found = cluster.get(owners[0], "k", &read(3, Repair::Blocking)).await.expect("up");
    assert_eq!(found.receipt.repaired, [owners[1].0, owners[2].0]);
    let behind = lines(&found.receipt).iter().filter(|line| line.2 == Outcome::Behind).count();
    assert_eq!(behind, 2);
    cluster.crash_all(&owners);
    for owner in owners {
        assert_eq!(texts(&cluster.state(owner, "k").expect("repaired")), ["v"], "{owner}");
    }
}

/// An owner has applied the value and not yet fsynced it. A blocking read waits for the commit that holds what it
/// returns, at its own node and at others; a usual one does not, and its value may be gone the next moment.
#[tokio::test(start_paused = true)]
async fn a_blocking_read_waits_for_the_commit() {
    for repair in [Repair::Blocking, Repair::Async] {
        for via in 0..2 {
            let mut cluster = Cluster::start(3).await;
            let owners = cluster.owners("k");
            cluster.put(owners[0], "k", "base", &blind(), &w(3)).await.expect("up"); // and a lease
            cluster.crash(owners[0]);
            cluster.boot_slow(owners[0], ms(200)).await;
            cluster.settle().await;
            cluster.put(owners[0], "k", "leased", &blind(), &w(3)).await.expect("up");
            let seen = cluster.get(owners[0], "k", &r(3)).await.expect("up");
            cluster.isolate(owners[0]); // unnoticed
            let fast = With { dw: Some(0), ..w(1) };
            cluster.put(owners[0], "k", "v", &seen.context, &fast).await.expect("written");
            cluster.rejoin(owners[0]);
            cluster.isolate(owners[2]);
            let start = Instant::now();
            let found = cluster.get(owners[via], "k", &read(2, repair)).await.expect("two");
            assert_eq!(values(&found), ["v"], "{repair:?} via {via}");
            let waited = start.elapsed() >= ms(150);
            assert_eq!(waited, repair == Repair::Blocking, "{:?} {repair:?}", start.elapsed());
            cluster.crash(owners[0]);
            let kept = texts(&cluster.state(owners[0], "k").expect("base"));
            assert_eq!(kept == ["v"], repair == Repair::Blocking, "{repair:?} via {via}: {kept:?}");
        }
    }
}

/// What was found cannot be made sure of: the disk of the owner that was behind is too slow, and there is no other. The read fails in time and says so; without `blocking` the same is read.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_sure_is_not_answered() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.crash_all(&owners[1..]);
    cluster.boot_slow(owners[1], Duration::from_secs(5)).await;
    cluster.settle().await;
    let owners = only_on_one(&cluster).await;
    let start = Instant::now();
    let failure = cluster.get(owners[0], "k", &read(2, Repair::Blocking)).await.expect_err("slow");
    assert!(start.elapsed() <= ms(1001), "took {:?}", start.elapsed());
    assert_eq!((failure.code, failure.effect), (ErrorCode::DeadlinePassed, Effect::NotApplied));
    assert_eq!(failure.needed, 2);
    let found = cluster.get(owners[0], "k", &read(2, Repair::Async)).await.expect("two answers");
    assert_eq!(values(&found), ["v"]);
}

/// An owner that was asked takes the repair nowhere, because its link breaks between answer and repair. The third owner
/// has not been asked: it is brought what was found instead, and the read succeeds in time.
#[tokio::test(start_paused = true)]
async fn another_owner_takes_the_place_of_one_that_cannot_be_repaired() {
    let cluster = Cluster::start(3).await;
    let owners = only_on_one(&cluster).await;
    let usual = cluster.get(owners[0], "k", &read(2, Repair::None)).await.expect("up");
    let asked = lines(&usual.receipt).into_iter().find(|line| line.2 == Outcome::Behind);
    let asked = asked.expect("the other one has nothing").0;
    cluster.network.slow(asked, owners[0], ms(20)); // its answer
    let client = cluster.client();
    let via = owners[0];
    let reading =
        tokio::spawn(async move { client.get(via, "k", &read(2, Repair::Blocking)).await });
    tokio::time::sleep(ms(10)).await;
    cluster.network.cut(owners[0], asked); // it has been asked, and will hear of no repair
    let found = reading.await.expect("no panic");
    let found = found.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(values(&found), ["v"]);
    let third = owners[1..].iter().find(|owner| **owner != asked).expect("a third");
    assert_eq!(texts(&cluster.state(*third, "k").expect("repaired")), ["v"]);
}

/// Fallbacks may take seats in a sloppy blocking read. What was found is then made sure of at them too.
#[tokio::test(start_paused = true)]
async fn a_sloppy_blocking_read_makes_sure_at_fallbacks() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash_all(&owners[1..]);
    cluster.settle().await;
    let w3 = With { w: Some(3), ..SLOPPY };
    let first = cluster.put(owners[0], "k", "a", &blind(), &w3).await.expect("fallbacks");
    cluster.isolate(owners[0]); // unnoticed
    cluster.put(owners[0], "k", "b", &first.context, &w(1)).await.expect("its own disk");
    cluster.rejoin(owners[0]);
    let blocking = With { r: Some(3), repair: Repair::Blocking, ..SLOPPY };
    let found = cluster.get(fallbacks[1], "k", &blocking).await.expect("an owner and two hints");
    assert_eq!(values(&found), ["b"]);
    cluster.crash(owners[0]);
    cluster.crash_all(&fallbacks);
    for (fallback, owner) in fallbacks.iter().zip(&owners[1..]) {
        let hints = owners.iter().filter_map(|owner| cluster.hint(*fallback, *owner, "k"));
        let held: Vec<_> = hints.map(|hint| texts(&hint)).collect();
        assert!(held.contains(&vec!["b".to_owned()]), "{fallback} for {owner}: {held:?}");
    }
}

/// A key nobody has ever written, and one whose owners agree, cost a blocking read nothing: nobody is repaired.
#[tokio::test(start_paused = true)]
async fn a_blocking_read_repairs_nobody_who_is_current() {
    let cluster = Cluster::start(3).await;
    for (n, repaired) in [(1, 0), (2, 0)] {
        let found = cluster.get(NodeId(n), "k", &read(3, Repair::Blocking)).await.expect("up");
        assert_eq!(found.receipt.repaired.len(), repaired);
    }
    cluster.put(NodeId(1), "k", "v", &blind(), &w(3)).await.expect("up");
    let found = cluster.get(NodeId(2), "k", &read(3, Repair::Blocking)).await.expect("up");
    assert_eq!((values(&found), found.receipt.repaired.len()), (vec!["v".into()], 0));
}

/// `repair=none` looks and touches nothing; the usual read mends whoever was behind as soon as it has answered.
#[tokio::test(start_paused = true)]
async fn a_read_that_shall_not_repair_leaves_everything_as_it_is() {
    for (repair, repaired) in [(Repair::None, 0), (Repair::Async, 2)] {
        let cluster = Cluster::start(3).await;
        let owners = only_on_one(&cluster).await;
        let found = cluster.get(owners[1], "k", &read(3, repair)).await.expect("up");
        assert_eq!(values(&found), ["v"]);
        assert_eq!(found.receipt.repaired.len(), repaired);
        tokio::time::sleep(ms(100)).await; // a repair would be done, and no hint is written yet
        let hold = owners.iter().filter(|owner| cluster.state(**owner, "k").is_some()).count();
        assert_eq!(hold, 1 + repaired, "{repair:?}");
    }
}
