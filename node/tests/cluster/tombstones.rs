//! What is deleted stays deleted: after an hour of absence, from old copies, by late hints.

use std::time::Duration;

use atoll_node::{HintLimits, storage::Space};
use atoll_ring::NodeId;

use crate::cluster::{Cluster, blind, r, sloppy_w, values, w};

const HOUR: Duration = Duration::from_secs(60 * 60);
const A_MINUTE: Duration = Duration::from_secs(62);

/// Every owner remembers the deletion, whoever is asked and however many.
async fn assert_deleted(cluster: &Cluster, key: &str) {
    let owners = cluster.owners(key);
    for owner in &owners {
        for level in 1..=3 {
            let found = cluster.get(*owner, key, &r(level)).await.expect("all are up");
            assert!(values(&found).is_empty(), "{owner} r={level}: {:?}", values(&found));
            assert!(!found.context.is_empty(), "deleted is not the same as never written");
        }
    }
    cluster.assert_whole(key, &[]).await;
    for owner in owners {
        assert_eq!(cluster.status(owner).await.tombstones, 1, "{owner} counts it");
    }
}

/// Puts a value on all owners and gives the context of it.
async fn put(cluster: &Cluster) -> (Vec<NodeId>, bytes::Bytes) {
    let owners = cluster.owners("k");
    let stored = cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    (owners, stored.context)
}

/// An owner was away while the value was deleted: for less than its hints are kept, and for so long that they have gone to
/// the others. What it still has brings nothing back.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_for_an_hour_brings_nothing_back() {
    for away in [HOUR / 20, HOUR] {
        let limits = HintLimits { away_max: HOUR / 4, ..HintLimits::default() };
        let mut cluster = Cluster::start_with(3, limits).await;
        cluster.release_exchange();
        let (owners, context) = put(&cluster).await;
        cluster.crash(owners[2]);
        cluster.settle().await;
        cluster.delete(owners[0], "k", &context, &w(2)).await.expect("two are up");
        tokio::time::sleep(away).await;
        cluster.boot(owners[2]).await;
        let found = cluster.get(owners[2], "k", &r(2)).await.expect("two of three");
        assert!(values(&found).is_empty(), "{:?}", values(&found));
        tokio::time::sleep(A_MINUTE).await;
        assert_deleted(&cluster, "k").await;
    }
}

/// The disk of an owner is replaced by a copy from before the deletion. The others know better, and tell it.
#[tokio::test(start_paused = true)]
async fn a_restored_copy_brings_nothing_back() {
    let mut cluster = Cluster::start(3).await;
    cluster.release_exchange();
    let (owners, context) = put(&cluster).await;
    let backup = cluster.backup(owners[2]);
    cluster.delete(owners[0], "k", &context, &w(3)).await.expect("up");
    cluster.settle().await;
    cluster.crash(owners[2]);
    cluster.restore(owners[2], &backup);
    cluster.boot(owners[2]).await;
    for owner in &owners {
        let found = cluster.get(*owner, "k", &r(2)).await.expect("two of three");
        assert!(values(&found).is_empty(), "{owner}: {:?}", values(&found));
    }
    tokio::time::sleep(A_MINUTE).await;
    assert_deleted(&cluster, "k").await;
}

/// A fallback has kept the value for an owner and was cut off, and meanwhile the value was deleted everywhere. Its hint
/// arrives at last.
#[tokio::test(start_paused = true)]
async fn a_hint_that_is_late_for_long_brings_nothing_back() {
    let mut cluster = Cluster::start(4).await;
    cluster.release_exchange();
    let (owners, fallback) = (cluster.owners("k"), cluster.fallbacks("k")[0]);
    cluster.crash(owners[2]);
    cluster.settle().await;
    let stored = cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await.expect("up");
    assert!(cluster.hint(fallback, owners[2], "k").is_some());
    cluster.isolate(fallback);
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    cluster.delete(owners[0], "k", &stored.context, &w(3)).await.expect("all owners are up");
    tokio::time::sleep(HOUR / 6).await;
    assert_eq!(cluster.status(fallback).await.hints, 1, "it has heard of nothing");
    cluster.rejoin(fallback);
    tokio::time::sleep(A_MINUTE).await;
    assert_deleted(&cluster, "k").await;
}

/// The record that remembers the deletion is damaged, and a late hint with the value arrives before the deletion has been
/// fetched anew. For a moment the owner holds the value alone; it does not count, and nobody sees it.
#[tokio::test(start_paused = true)]
async fn a_damaged_tombstone_and_a_late_hint_bring_nothing_back() {
    let mut cluster = Cluster::start(4).await;
    let (owners, fallback) = (cluster.owners("k"), cluster.fallbacks("k")[0]);
    cluster.crash(owners[2]);
    cluster.settle().await;
    let stored = cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await.expect("up");
    cluster.isolate(fallback);
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    cluster.delete(owners[0], "k", &stored.context, &w(3)).await.expect("all owners are up");
    cluster.split(&[owners[2], fallback]);
    cluster.network.mend(owners[2], fallback);
    cluster.network.mend(fallback, owners[2]);
    assert!(cluster.store(owners[2]).damage(Space::Data, &cluster.row("k")));
    tokio::time::sleep(A_MINUTE).await;
    assert!(cluster.hint(fallback, owners[2], "k").is_none(), "the hint has arrived");
    cluster.get(owners[2], "k", &r(1)).await.expect_err("it knows that it does not know");
    cluster.heal();
    cluster.release_exchange();
    tokio::time::sleep(4 * A_MINUTE).await;
    assert_deleted(&cluster, "k").await;
}

/// Somebody who saw the value before it was deleted, and writes with that context, makes a new value and nothing else; a
/// deletion of the new one ends it for good.
#[tokio::test(start_paused = true)]
async fn a_new_value_is_not_the_old_one() {
    let mut cluster = Cluster::start(3).await;
    cluster.release_exchange();
    let (owners, context) = put(&cluster).await;
    cluster.delete(owners[0], "k", &context, &w(3)).await.expect("up");
    cluster.put(owners[1], "k", "new", &context, &w(3)).await.expect("up");
    cluster.settle().await;
    cluster.assert_whole("k", &["new"]).await;
    let found = cluster.get(owners[2], "k", &r(2)).await.expect("up");
    cluster.delete(owners[2], "k", &found.context, &w(3)).await.expect("up");
    cluster.settle().await;
    assert_deleted(&cluster, "k").await;
}
