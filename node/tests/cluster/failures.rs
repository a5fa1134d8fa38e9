//! Errors are honest: what is said about the state is what the state is.

use std::time::Duration;

use atoll_node::storage::{Room, commit::QUEUED_BYTES_MAX, faulty::Deed};
use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode, Outcome, limits::VALUE_BYTES_MAX};
use tokio::time::Instant;

use crate::cluster::{Cluster, DEFAULT, SLOPPY, With, blind, r, values, w};

/// Two of three owners known to be down: the write is refused before anything is stored anywhere.
#[tokio::test(start_paused = true)]
async fn not_applied_means_nothing_was_stored() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.crash(owners[1]);
    cluster.crash(owners[2]);
    cluster.settle().await;
    let failure = cluster.put(owners[0], "k", "v", &blind(), &w(2)).await.expect_err("one owner");
    assert_eq!((failure.code, failure.effect), (ErrorCode::WriteQuorumNotMet, Effect::NotApplied));
    assert!(cluster.on_disk(owners[0], "k").is_none());
    assert_eq!(cluster.status(owners[0]).await.hints, 0);
    let receipt = failure.receipt.expect("a receipt");
    let down = receipt.replicas.iter().filter(|replica| replica.outcome == Outcome::Down).count();
    assert_eq!(down, 2);
    cluster.put(owners[0], "k", "v", &blind(), &w(1)).await.expect("one is enough for w=1");
}

/// Two owners fall silent unnoticed: the write is fsynced here, and the answer says on how many, in time.
#[tokio::test(start_paused = true)]
async fn applied_on_k_counts_what_is_on_disk() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.isolate(owners[0]);
    let asked = Instant::now();
    let failure = cluster.put(owners[0], "k", "v", &blind(), &w(2)).await.expect_err("alone");
    assert!(asked.elapsed().as_millis() <= 1001, "answered after {:?}", asked.elapsed());
    assert_eq!((failure.code, failure.effect), (ErrorCode::DeadlinePassed, Effect::Applied(1)));
    assert_eq!((failure.got, failure.needed), (1, 2));
    cluster.crash(owners[0]); // what it counted as fsynced survives
    cluster.boot(owners[0]).await;
    cluster.rejoin(owners[0]);
    cluster.settle().await;
    assert_eq!(values(&cluster.get(owners[0], "k", &r(3)).await.expect("up")), ["v"]);
}

/// The quorum is lost before any fsync is known of: what was begun goes on, so nobody may say that nothing was applied.
#[tokio::test(start_paused = true)]
async fn a_write_that_was_begun_is_never_called_not_applied() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.crash(owners[0]);
    cluster.boot_slow(owners[0], Duration::from_millis(500)).await;
    cluster.settle().await;
    cluster.put(owners[0], "k", "before", &blind(), &w(3)).await.expect("up");
    let full = Room { free_bytes: 0, total_bytes: 1 << 40 };
    cluster.store(owners[1]).set_room(Some(full));
    cluster.settle().await;
    cluster.network.cut(owners[0], owners[2]); // unnoticed
    let failure = cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect_err("one full");
    assert_eq!((failure.code, failure.effect), (ErrorCode::WriteQuorumNotMet, Effect::Unknown));
    cluster.settle().await;
    let found = cluster.get(owners[0], "k", &r(1)).await.expect("its own copy");
    assert_eq!(values(&found), ["before", "v"], "it has become visible");
}

/// An owner that is known to be down is no acknowledgement, whatever is kept for it.
#[tokio::test(start_paused = true)]
async fn a_hint_is_no_acknowledgement() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.crash(owners[2]);
    cluster.settle().await;
    cluster.network.cut(owners[0], owners[1]); // unnoticed
    let failure = cluster.put(owners[0], "k", "v", &blind(), &w(2)).await.expect_err("alone");
    assert_eq!((failure.got, failure.effect), (1, Effect::Applied(1)));
    assert_eq!(failure.receipt.expect("a receipt").hinted, [owners[2].0]);
}

/// A disk that does not keep up has a bounded queue. Past it writes are refused at once, and nothing of them is kept;
/// when it has caught up they are welcome again.
#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_recovers() {
    let mut cluster = Cluster::start(3).await;
    let owner = cluster.owners("k")[0];
    let alone = With { n: Some(1), ..DEFAULT };
    cluster.crash(owner);
    cluster.boot_slow(owner, Duration::from_millis(900)).await;
    cluster.settle().await;
    cluster
        .put(owner, "k", "before", &blind(), &With { timeout_ms: 5000, ..alone.clone() })
        .await
        .expect("up");
    let large = "v".repeat(VALUE_BYTES_MAX);
    let room = QUEUED_BYTES_MAX / VALUE_BYTES_MAX;
    let keys: Vec<String> = (0..10_000)
        .map(|number| format!("k{number}"))
        .filter(|key| cluster.row(key)[..2] == cluster.row("k")[..2]) // one lease
        .take(room + 3)
        .collect();
    let no_context = blind();
    let puts = keys.iter().map(|key| cluster.put(owner, key, &large, &no_context, &alone));
    let outcomes = futures_util::future::join_all(puts).await;
    let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    let overloaded = refused.iter().filter(|failure| failure.code == ErrorCode::Overloaded);
    let count = overloaded.clone().count();
    assert!(
        (2..=3).contains(&count),
        "{room} are queued, one may be with the disk; {count} refused"
    );
    for failure in overloaded {
        assert_eq!(failure.effect, Effect::NotApplied);
        assert!(failure.retry_after_ms > 0);
    }
    cluster.settle().await;
    cluster.put(owner, "k", "after", &blind(), &alone).await.expect("there is room again");
}

/// A read without enough owners says who was missing.
#[tokio::test(start_paused = true)]
async fn a_read_that_cannot_be_met_names_the_missing() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(NodeId(1), "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.crash(NodeId(2));
    cluster.crash(NodeId(3));
    cluster.settle().await;
    let failure = cluster.get(NodeId(1), "k", &r(2)).await.expect_err("one owner");
    assert_eq!(failure.code, ErrorCode::ReadQuorumNotMet);
    assert_eq!((failure.got, failure.needed), (1, 2));
    assert_eq!(values(&cluster.get(NodeId(1), "k", &r(1)).await.expect("one")), ["v"]);
}

/// A silent owner is given up for the next one, well before the deadline.
#[tokio::test(start_paused = true)]
async fn a_read_does_not_wait_for_a_silent_owner() {
    let cluster = Cluster::start(3).await;
    cluster.put(NodeId(1), "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.network.cut(NodeId(1), NodeId(2)); // unnoticed
    let asked = Instant::now();
    let found = cluster.get(NodeId(1), "k", &r(2)).await.expect("n3 answers");
    assert_eq!(values(&found), ["v"]);
    assert!(asked.elapsed().as_millis() < 500, "took {:?}", asked.elapsed());
}

/// A node that owns nothing of the key hands it over; with no owner to be reached it says so, and nothing was stored.
#[tokio::test(start_paused = true)]
async fn without_an_owner_nothing_is_applied() {
    let cluster = Cluster::start(5).await;
    let stranger = cluster.not_owner("k");
    cluster.put(stranger, "k", "v", &blind(), &DEFAULT).await.expect("handed over");
    cluster.isolate(stranger);
    cluster.settle().await; // noticed
    let failure = cluster.put(stranger, "k", "w", &blind(), &DEFAULT).await.expect_err("alone");
    assert_eq!(failure.code, ErrorCode::NoOwnerReachable);
    assert_eq!(failure.effect, Effect::NotApplied, "nobody was asked who is known to be down");
    cluster.rejoin(stranger);
    cluster.settle().await;
    assert_eq!(values(&cluster.get(stranger, "k", &r(3)).await.expect("up")), ["v"]);
}

/// Work whose time is over is dropped before it is done.
#[tokio::test(start_paused = true)]
async fn expired_work_is_not_done() {
    let cluster = Cluster::start(3).await;
    let late = With { timeout_ms: 0, ..DEFAULT };
    for expected in [None, Some("v")] {
        let failure = cluster.put(NodeId(1), "k", "x", &blind(), &late).await.expect_err("late");
        assert_eq!((failure.code, failure.effect), (ErrorCode::DeadlinePassed, Effect::NotApplied));
        cluster.settle().await;
        let found = cluster.get(NodeId(1), "k", &r(3)).await.expect("up");
        assert_eq!(values(&found), expected.into_iter().collect::<Vec<_>>());
        if expected.is_none() {
            cluster.put(NodeId(1), "k", "v", &blind(), &DEFAULT).await.expect("in time"); // and leased from now on
        }
    }
}

/// The first write of a partition waits for the fsync of its lease. If that takes longer than the request has, nothing
/// is done, and the answer comes in time and says so.
#[tokio::test(start_paused = true)]
async fn work_that_expires_while_it_waits_for_a_lease_is_not_done() {
    let mut cluster = Cluster::start(3).await;
    cluster.crash(NodeId(1));
    cluster.boot_slow(NodeId(1), Duration::from_millis(1500)).await;
    cluster.settle().await;
    let asked = Instant::now();
    let failure = cluster.put(NodeId(1), "k", "v", &blind(), &w(1)).await.expect_err("slow disk");
    assert!(asked.elapsed().as_millis() <= 1001, "answered after {:?}", asked.elapsed());
    assert_eq!((failure.code, failure.effect), (ErrorCode::DeadlinePassed, Effect::NotApplied));
    cluster.settle().await;
    assert!(values(&cluster.get(NodeId(2), "k", &r(3)).await.expect("up")).is_empty());
    cluster.put(NodeId(1), "k", "v", &blind(), &w(1)).await.expect("leased meanwhile");
}

#[tokio::test(start_paused = true)]
async fn limits_are_named() {
    let cluster = Cluster::start(3).await;
    let long = "k".repeat(1025);
    let failure = cluster.put(NodeId(1), &long, "v", &blind(), &DEFAULT).await.expect_err("long");
    assert_eq!(failure.code, ErrorCode::KeyLength);
    let failure = cluster.get(NodeId(1), "", &DEFAULT).await.expect_err("empty");
    assert_eq!(failure.code, ErrorCode::KeyLength);
    let most = "v".repeat(VALUE_BYTES_MAX);
    cluster.put(NodeId(1), "k", &most, &blind(), &DEFAULT).await.expect("exactly the limit");
}

/// A node whose storage fails acknowledges nothing more, and the others carry on.
#[tokio::test(start_paused = true)]
async fn a_failed_disk_stops_acknowledging() {
    let cluster = Cluster::start(3).await;
    cluster.faults(NodeId(1)).fail_next(Deed::Write);
    let failure = cluster.put(NodeId(1), "k", "v", &blind(), &w(3)).await.expect_err("no disk");
    assert_ne!(failure.effect, Effect::NotApplied);
    cluster.put(NodeId(2), "k", "v", &blind(), &w(2)).await.expect("two disks");
    let failure = cluster.put(NodeId(1), "k", "v", &blind(), &w(1)).await.expect_err("no disk");
    assert_eq!(failure.code, ErrorCode::Stopping);
}

/// Two owners are silent, and fallbacks have taken the write: what is missing is owners, and the error says so.
#[tokio::test(start_paused = true)]
async fn an_error_says_how_many_owners_are_missing() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.network.pause(owners[1]);
    cluster.network.pause(owners[2]);
    let with = With { w: Some(3), pw: Some(2), r: Some(2), pr: Some(2), ..SLOPPY };
    let lost = cluster.put(owners[0], "k", "v", &blind(), &with).await.expect_err("one owner");
    assert!(lost.detail.contains("3 of 3 fsynced, 1 of 2 from owners (--pw)"), "{}", lost.detail);
    let lost = cluster.get(owners[0], "k", &with).await.expect_err("one owner");
    assert!(lost.detail.contains(", 1 of 2 from owners (--pr)"), "{}", lost.detail);
}
