//! Reads meet writes, exactly where the arithmetic says so.

use atoll_wire::{Effect, ErrorCode};

use crate::cluster::{Cluster, DEFAULT, With, blind, r, values, w};

/// Every (R, W) with R + W > N sees the write just acknowledged, through every node, owner or not.
#[tokio::test(start_paused = true)]
async fn overlapping_quorums_read_what_was_written() {
    let cluster = Cluster::start(5).await;
    for (reads, writes) in [(1, 3), (2, 2), (3, 1), (2, 3), (3, 3), (3, 2)] {
        for via in 1..=5 {
            let via = atoll_ring::NodeId(via);
            let key = format!("key-{reads}-{writes}-{}", via.0);
            cluster.put(via, &key, "v", &blind(), &w(writes)).await.expect("all are up");
            for reader in 1..=5 {
                let reader = atoll_ring::NodeId(reader);
                let found = cluster.get(reader, &key, &r(reads)).await.expect("all are up");
                assert_eq!(values(&found), ["v"], "R={reads} W={writes} read through {reader}");
            }
        }
    }
}

/// One owner misses a write. Asked alone it is stale; two owners together never are.
#[tokio::test(start_paused = true)]
async fn a_stale_read_at_r_1_and_never_at_r_2() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let first = cluster.put(owners[0], "k", "old", &blind(), &w(3)).await.expect("all are up");
    cluster.isolate(owners[2]);
    cluster.put(owners[0], "k", "new", &first.context, &w(2)).await.expect("two are enough");
    cluster.rejoin(owners[2]);

    let alone = cluster.get(owners[2], "k", &r(1)).await.expect("its own copy");
    assert_eq!(values(&alone), ["old"], "the stale read that R=1 allows");
    let two = cluster.get(owners[2], "k", &r(2)).await.expect("two owners");
    assert_eq!(values(&two), ["new"]);
}

/// The receipt names who answered, and with what.
#[tokio::test(start_paused = true)]
async fn receipts_say_who_answered() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let stored = cluster.put(owners[1], "k", "v", &blind(), &w(3)).await.expect("all are up");
    assert_eq!(stored.receipt.coordinator, owners[1].0);
    let named: Vec<u32> = stored.receipt.replicas.iter().map(|replica| replica.node).collect();
    assert_eq!(named, owners.iter().map(|owner| owner.0).collect::<Vec<_>>());
    assert!(
        stored
            .receipt
            .replicas
            .iter()
            .all(|replica| replica.outcome == atoll_wire::Outcome::Durable)
    );
    assert_eq!((stored.receipt.n, stored.receipt.needed, stored.receipt.durable_needed), (3, 3, 3));
}

/// Settings that contradict each other are refused by the rule they break, and nothing is stored.
#[tokio::test(start_paused = true)]
async fn contradictions_are_refused() {
    let cluster = Cluster::start(5).await;
    let via = cluster.owners("k")[0];
    for (with, rule) in [
        (With { n: Some(0), ..DEFAULT }, "n"),
        (With { w: Some(0), ..DEFAULT }, "w"),
        (With { w: Some(4), ..DEFAULT }, "w=4"),
        (With { n: Some(2), w: Some(3), ..DEFAULT }, "w=3"),
        (With { w: Some(1), dw: Some(2), ..DEFAULT }, "dw=2"),
        (With { n: Some(4), ..DEFAULT }, "n=4"),
    ] {
        let failure = cluster.put(via, "k", "v", &blind(), &with).await.expect_err("contradiction");
        assert_eq!(failure.code, ErrorCode::BadQuorum, "{with:?}");
        assert_eq!(failure.effect, Effect::NotApplied);
        assert!(failure.detail.contains(rule), "{} does not name {rule}", failure.detail);
    }
    assert!(values(&cluster.get(via, "k", &DEFAULT).await.expect("up")).is_empty());
}

/// With n=1 only the first owner takes part, and the others never hear of the key.
#[tokio::test(start_paused = true)]
async fn n_says_who_takes_part() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let one = With { n: Some(1), ..DEFAULT };
    cluster.put(owners[2], "k", "v", &blind(), &one).await.expect("handed to the first owner");
    cluster.settle().await;
    assert!(cluster.on_disk(owners[0], "k").is_some());
    assert!(cluster.on_disk(owners[1], "k").is_none());
    assert!(cluster.on_disk(owners[2], "k").is_none());
}
