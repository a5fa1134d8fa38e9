//! What the answers of a node count for that has lost something.
//!
//! In most of these tests nodes do not compare what they hold, so that doubt lasts.

use std::time::Duration;

use atoll_ring::NodeId;
use atoll_wire::{ErrorCode, Outcome, Repair};

use crate::cluster::{Cluster, DEFAULT, SLOPPY, With, blind, lines, r, sloppy_r, values, w};

const LOST: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const DOWN: NodeId = NodeId(3);

/// Three nodes: the first was emptied and has risen, the third is down.
async fn in_doubt() -> Cluster {
    let mut cluster = Cluster::start(3).await;
    cluster.put(OTHER, "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.wipe(LOST);
    cluster.boot(LOST).await;
    cluster.crash(DOWN);
    cluster.settle().await;
    cluster
}

/// An emptied owner answers "never heard of it", and so much is not counted: with r = 2 and one other the read fails, and
/// the error says why and what to do. Counting it would make "not found" of an acknowledged write.
#[tokio::test(start_paused = true)]
async fn an_owner_in_doubt_does_not_count_towards_r() {
    let cluster = in_doubt().await;
    for via in [LOST, OTHER] {
        let failure = cluster.get(via, "k", &r(2)).await.expect_err("one answer counts");
        assert_eq!(failure.code, ErrorCode::ReadQuorumNotMet);
        assert!(failure.got < 2, "{failure:?}");
        for word in ["n1 has lost data", "compared", "wait", "atoll repair status"] {
            assert!(failure.detail.contains(word), "{} lacks {word}", failure.detail);
        }
        let receipt = failure.receipt.expect("who answered what");
        let line = lines(&receipt).into_iter().find(|line| line.0 == LOST).expect("an owner");
        assert_eq!(line.2, Outcome::InDoubt);
        let found = cluster.get(via, "k", &r(1)).await.expect("the other owner counts");
        assert_eq!(values(&found), ["v"], "via {via}");
    }
}

/// With a third owner that knows, the read is as good as ever; the one in doubt is mended like any other that is behind.
#[tokio::test(start_paused = true)]
async fn another_owner_takes_its_place() {
    let mut cluster = in_doubt().await;
    cluster.boot(DOWN).await;
    cluster.settle().await;
    let found = cluster.get(LOST, "k", &r(2)).await.expect("two others");
    assert_eq!(values(&found), ["v"]);
    cluster.settle().await;
    assert_eq!(cluster.state(LOST, "k"), cluster.state(OTHER, "k"));
}

/// What it holds is true, and is joined: a write that only it has is found through it.
#[tokio::test(start_paused = true)]
async fn its_values_are_joined() {
    let cluster = in_doubt().await;
    cluster.network.cut(LOST, OTHER);
    let with = With { w: Some(1), timeout_ms: 200, ..DEFAULT };
    cluster.put(LOST, "k", "only here", &blind(), &with).await.expect("its own disk");
    cluster.network.mend(LOST, OTHER);
    let with = With { repair: Repair::None, ..r(1) };
    let found = cluster.get(LOST, "k", &with).await.expect("the other owner counts");
    assert_eq!(values(&found), ["only here", "v"]);
}

/// What it acknowledges it has on its disk, as anybody: that counts towards w and dw.
#[tokio::test(start_paused = true)]
async fn its_acks_count() {
    let cluster = in_doubt().await;
    for via in [LOST, OTHER] {
        let stored = cluster.put(via, "new", "v", &blind(), &w(2)).await.expect("two disks");
        let durable =
            lines(&stored.receipt).iter().filter(|line| line.2 == Outcome::Durable).count();
        assert_eq!(durable, 2, "{:?}", stored.receipt);
    }
}

/// A sloppy read asks a fallback in its seat; one that holds a hint counts, one that holds none does not.
#[tokio::test(start_paused = true)]
async fn a_fallback_is_asked_in_its_place() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.put(owners[1], "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.wipe(owners[0]);
    cluster.boot(owners[0]).await;
    cluster.crash(owners[2]);
    cluster.settle().await;
    let failure = cluster.get(owners[1], "k", &sloppy_r(2)).await.expect_err("nobody else knows");
    assert!(failure.detail.contains("has lost data"), "{}", failure.detail);
    let with = With { w: Some(3), ..SLOPPY };
    cluster.put(owners[1], "k", "new", &blind(), &with).await.expect("a fallback stands in");
    let found = cluster.get(owners[1], "k", &sloppy_r(2)).await.expect("it answers");
    assert_eq!(values(&found), ["new", "v"]);
}

/// A blocking read does not rest on it either.
#[tokio::test(start_paused = true)]
async fn a_blocking_read_does_not_count_it() {
    let mut cluster = in_doubt().await;
    let with = With { repair: Repair::Blocking, ..r(2) };
    let failure = cluster.get(OTHER, "k", &with).await.expect_err("one answer counts");
    assert_eq!(failure.code, ErrorCode::ReadQuorumNotMet);
    cluster.boot(DOWN).await;
    cluster.settle().await;
    let found = cluster.get(OTHER, "k", &with).await.expect("two others");
    assert_eq!(values(&found), ["v"]);
}

/// Doubt is on the disk: a restart does not end it.
#[tokio::test(start_paused = true)]
async fn doubt_outlives_a_restart() {
    let mut cluster = in_doubt().await;
    let before = cluster.status(LOST).await;
    assert_eq!(before.partitions_in_doubt, 64);
    cluster.crash(LOST);
    cluster.boot(LOST).await;
    let after = cluster.status(LOST).await;
    assert_eq!(after.incarnation, before.incarnation);
    assert_eq!((after.partitions_in_doubt, after.doubt), (64, before.doubt));
    cluster.get(OTHER, "k", &r(2)).await.expect_err("one answer counts");
}

/// The whole story: a node loses its disk, comes back, does not count until it was compared with every other owner, and
/// then counts again; its old peers may lose theirs, one after the other, and all that was acknowledged is there.
#[tokio::test(start_paused = true)]
async fn compared_with_every_other_owner_it_counts_again() {
    let mut cluster = Cluster::start(3).await;
    for number in 0..30 {
        cluster.put(OTHER, &format!("k{number}"), "v", &blind(), &w(3)).await.expect("up");
    }
    cluster.release_exchange();
    for lost in [LOST, OTHER, DOWN] {
        cluster.wipe(lost);
        cluster.boot(lost).await;
        assert_eq!(cluster.status(lost).await.partitions_in_doubt, 64);
        tokio::time::sleep(Duration::from_secs(180)).await;
        let status = cluster.status(lost).await;
        assert_eq!((status.partitions_in_doubt, status.doubt.as_str()), (0, ""), "{lost}");
        assert_eq!(status.incarnation, 1);
    }
    for number in 0..30 {
        let key = format!("k{number}");
        assert_eq!(values(&cluster.get(LOST, &key, &r(3)).await.expect("all count")), ["v"]);
    }
}

/// With one of the other owners away doubt cannot end: that one alone may have what was lost. When it is back it ends.
#[tokio::test(start_paused = true)]
async fn doubt_waits_for_the_last_of_the_other_owners() {
    let mut cluster = in_doubt().await;
    cluster.release_exchange();
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(cluster.status(LOST).await.partitions_in_doubt, 64);
    cluster.get(OTHER, "k", &r(2)).await.expect_err("one answer counts");
    cluster.boot(DOWN).await;
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(cluster.status(LOST).await.partitions_in_doubt, 0);
    cluster.crash(DOWN);
    cluster.settle().await;
    assert_eq!(values(&cluster.get(LOST, "k", &r(2)).await.expect("both count")), ["v"]);
}
