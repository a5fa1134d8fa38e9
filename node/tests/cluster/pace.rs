//! What a node counts of the requests it coordinates: each once, where it was coordinated, by how it ended.

use std::time::Duration;

use atoll_ring::NodeId;
use atoll_wire::{ErrorCode, NodeStatus, Repair};

use crate::cluster::{Cluster, DEFAULT, With, blind, r, values, w};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Writes and reads answered, requests missed, reads that met an owner behind.
fn counts(status: &NodeStatus) -> [u64; 4] {
    let NodeStatus { write_times, read_times, unmet, reads_behind, .. } = status;
    [write_times.total(), read_times.total(), *unmet, *reads_behind]
}

/// A put that a node hands over is counted where it was coordinated, and a request that was wrong in itself nowhere.
#[tokio::test(start_paused = true)]
async fn each_request_counts_once() {
    let cluster = Cluster::start(5).await;
    let (owners, other) = (cluster.owners("k"), cluster.not_owner("k"));
    for via in [owners[0], owners[0], other] {
        cluster.put(via, "k", "v", &blind(), &w(3)).await.expect("up");
    }
    cluster.get(other, "k", &r(2)).await.expect("up");
    let failure = cluster.get(other, "k", &r(9)).await.expect_err("three owners");
    assert_eq!(failure.code, ErrorCode::BadQuorum);
    assert_eq!(counts(&cluster.status(other).await), [0, 1, 0, 0]);
    let mut total = [0; 4];
    for node in (1..=5).map(NodeId) {
        let counted = counts(&cluster.status(node).await);
        total = std::array::from_fn(|index| total[index] + counted[index]);
    }
    assert_eq!(total, [3, 1, 0, 0]);
}

/// What too few owners answer counts as missed, reads and writes alike.
#[tokio::test(start_paused = true)]
async fn a_missed_quorum_counts() {
    let mut cluster = Cluster::start(5).await;
    let (owners, other) = (cluster.owners("k"), cluster.not_owner("k"));
    cluster.crash_all(&owners[1..]);
    cluster.settle().await;
    cluster.put(owners[0], "k", "v", &blind(), &w(2)).await.expect_err("one owner");
    cluster.get(other, "k", &r(2)).await.expect_err("one owner");
    cluster.get(other, "k", &r(1)).await.expect("one owner");
    assert_eq!(counts(&cluster.status(owners[0]).await), [0, 0, 1, 0]);
    assert_eq!(counts(&cluster.status(other).await), [0, 1, 1, 0]);
}

/// A read that needed an owner that knew less than another counts as one that met an owner behind; one that asks a single
/// owner cannot know, and one that finds all alike has nothing to tell.
#[tokio::test(start_paused = true)]
async fn owners_that_were_behind_count() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "old", &blind(), &w(3)).await.expect("up");
    let seen = cluster.get(owners[0], "k", &r(3)).await.expect("up");
    cluster.isolate(owners[0]); // unnoticed
    cluster.put(owners[0], "k", "new", &seen.context, &w(1)).await.expect("its own disk");
    cluster.rejoin(owners[0]);
    let before = counts(&cluster.status(owners[0]).await);
    let quietly = |count| With { r: Some(count), repair: Repair::None, ..DEFAULT };
    for (count, behind) in [(1, 0), (2, 1)] {
        let found = cluster.get(owners[0], "k", &quietly(count)).await.expect("up");
        assert_eq!(values(&found), ["new"]);
        assert_eq!(counts(&cluster.status(owners[0]).await)[3] - before[3], behind, "r={count}");
    }
    cluster.settle().await;
    cluster.get(owners[0], "k", &r(3)).await.expect("up");
    assert_eq!(counts(&cluster.status(owners[0]).await)[3] - before[3], 1, "they are alike by now");
}

/// The time of a request is from its arrival to its answer, in a bucket at most a quarter wide.
#[tokio::test(start_paused = true)]
async fn times_are_from_arrival_to_answer() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    for owner in &owners[1..] {
        cluster.network.slow(*owner, owners[0], ms(40));
    }
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    for _ in 0..9 {
        cluster.get(owners[0], "k", &r(2)).await.expect("up");
    }
    let status = cluster.status(owners[0]).await;
    for times in [&status.write_times, &status.read_times] {
        for so_many in [2, 100] {
            let time = times.all_but_one_in(so_many).expect("requests");
            assert!((ms(40)..ms(55)).contains(&time), "{time:?}");
        }
    }
}
