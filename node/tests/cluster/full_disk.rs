//! A disk that is nearly full: its node takes no writes, does everything else, and recovers by itself.

use std::time::Duration;

use atoll_node::storage::{Room, Space, Store as _, Write};
use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode, Failure, Outcome};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cluster::{Cluster, DEFAULT, With, blind, r, values, w};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A file system of 100 GiB of which so much is free: 2 GiB are needed.
fn large(free_bytes: u64) -> Option<Room> {
    Some(Room { free_bytes, total_bytes: 100 * GIB })
}

/// Long enough for a node to look at its disk.
async fn a_look() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

/// The whole story of one node among three: it refuses as an owner, the others carry on without it, it still reads,
/// tells why, and gets what it missed as soon as there is room again, which is a quarter above what is needed.
#[tokio::test(start_paused = true)]
async fn a_node_on_a_full_disk_is_read_only_and_recovers_by_itself() {
    let cluster = Cluster::start(3).await;
    let full = NodeId(1);
    cluster.put(full, "k", "before", &blind(), &w(3)).await.expect("up");
    assert_eq!(cluster.status(full).await.free_bytes, 0, "memory does not tell");

    cluster.store(full).set_room(large(2 * GIB - 1));
    a_look().await;
    let status = cluster.status(full).await;
    let why = "free space 2.0 GiB is below 2.0 GiB; free some, it recovers by itself";
    assert_eq!((status.read_only.as_str(), status.free_bytes), (why, 2 * GIB - 1));

    let seen = cluster.get(NodeId(2), "k", &r(3)).await.expect("reads go on");
    let stored = cluster.put(NodeId(2), "k", "after", &seen.context, &w(2)).await.expect("two");
    let report = stored.receipt.replicas.iter().find(|report| report.node == full.0);
    let outcome = report.expect("it is an owner").outcome;
    assert!(matches!(outcome, Outcome::Refused | Outcome::Pending), "{outcome:?}");
    let failure = cluster.put(NodeId(2), "l", "v", &blind(), &w(3)).await.expect_err("two of 3");
    assert_eq!((failure.code, failure.effect), (ErrorCode::WriteQuorumNotMet, Effect::Applied(2)));
    let own = cluster.get(full, "k", &r(1)).await.expect("its own copy");
    assert_eq!(values(&own), ["before"]);
    // the read above found out who is behind, and its repair was refused like a write
    cluster.settle().await;
    assert_eq!(values(&cluster.get(full, "k", &r(1)).await.expect("its own copy")), ["before"]);

    cluster.store(full).set_room(large(5 * GIB / 2 - 1));
    a_look().await;
    assert!(cluster.status(full).await.read_only.contains("below 2.5 GiB"), "not at the limit");
    cluster.store(full).set_room(large(3 * GIB));
    a_look().await;
    assert_eq!(cluster.status(full).await.read_only, "");
    cluster.settle().await; // hints
    for (key, value) in [("k", "after"), ("l", "v")] {
        let own = cluster.get(full, key, &r(1)).await.expect("its own copy");
        assert_eq!(values(&own), [value], "{key}");
    }
    cluster.put(full, "k", "again", &own.context, &w(3)).await.expect("takes writes again");
}

/// Nobody has room: nothing is begun anywhere, and the error says what is the matter.
#[tokio::test(start_paused = true)]
async fn without_room_anywhere_a_write_is_refused_as_read_only() {
    let cluster = Cluster::start(3).await;
    let stored = cluster.put(NodeId(1), "k", "before", &blind(), &w(3)).await.expect("up");
    for node in 1..=3 {
        cluster.store(NodeId(node)).set_room(large(GIB));
    }
    a_look().await;
    let sequence = cluster.node(NodeId(1)).disk().commit();
    let put = cluster.put(NodeId(1), "k", "after", &blind(), &DEFAULT).await.expect_err("full");
    let delete = cluster.delete(NodeId(1), "k", &stored.context, &DEFAULT).await;
    for failure in [put, delete.expect_err("full")] {
        assert_eq!((failure.code, failure.effect), (ErrorCode::ReadOnly, Effect::NotApplied));
        assert!(failure.detail.contains("free space 1.0 GiB is below 2.0 GiB"), "{failure}");
    }
    assert_eq!(cluster.node(NodeId(1)).disk().commit(), sequence, "something was written");
    assert_eq!(values(&cluster.get(NodeId(1), "k", &r(3)).await.expect("reads")), ["before"]);
}

/// What a node writes for itself goes on: a hint that it holds is delivered, and taken off its disk.
#[tokio::test(start_paused = true)]
async fn a_full_disk_delivers_its_hints() {
    let cluster = Cluster::start(3).await;
    let (full, missed) = (NodeId(1), NodeId(3));
    cluster.isolate(missed);
    cluster.settle().await;
    cluster.put(full, "k", "v", &blind(), &w(2)).await.expect("two");
    cluster.store(full).set_room(large(GIB));
    a_look().await;
    let status = cluster.status(full).await;
    assert!(status.hints == 1 && !status.read_only.is_empty(), "{status:?}");
    cluster.rejoin(missed);
    cluster.settle().await;
    assert_eq!(values(&cluster.get(missed, "k", &r(1)).await.expect("its own copy")), ["v"]);
    assert_eq!(cluster.status(full).await.hints, 0);
    let hints = cluster.store(full).scan(Space::Hints, b"", None, 9).expect("memory");
    assert!(hints.is_empty(), "{hints:?}");
}

/// An owner that has a state already says so, however full its disk is: that takes no room. So a hint for it, which it
/// has got in another way meanwhile, does not wait until somebody frees space.
#[tokio::test(start_paused = true)]
async fn what_a_full_disk_holds_it_still_confirms() {
    let cluster = Cluster::start(3).await;
    let (full, other) = (NodeId(1), NodeId(2));
    cluster.isolate(full);
    cluster.settle().await;
    cluster.put(other, "k", "v", &blind(), &w(2)).await.expect("two");
    assert_eq!(cluster.status(other).await.hints, 1);
    let row = cluster.row("k");
    let value = cluster.on_disk(other, "k");
    let write = Write { space: Space::Data, row, value };
    cluster.store(full).apply(&[write]).expect("memory"); // from a backup of the other's
    cluster.store(full).set_room(large(GIB));
    a_look().await;
    cluster.rejoin(full);
    cluster.settle().await;
    assert!(!cluster.status(full).await.read_only.is_empty());
    assert_eq!(cluster.status(other).await.hints, 0, "it holds it");
}

/// A node that starts on a full disk is read-only before its first request, and can be stopped in order.
#[tokio::test(start_paused = true)]
async fn a_node_can_start_and_stop_on_a_full_disk() {
    let mut cluster = Cluster::start(3).await;
    let full = NodeId(1);
    cluster.store(full).set_room(large(0));
    cluster.crash(full);
    cluster.boot(full).await;
    assert_ne!(cluster.status(full).await.read_only, "");
    let starts = |cluster: &Cluster| {
        cluster.store(full).get(Space::Meta, b"unclean-starts").expect("memory").expect("counted")
    };
    let before = starts(&cluster);
    cluster.stop(full).await;
    cluster.crash(full);
    cluster.boot(full).await;
    assert_eq!(starts(&cluster), before, "the stop was not in order");
}

/// A burst between two looks. All requests come at one moment, each small against the room there is; the nodes notice
/// that they run out without waiting for their next look, and half of what must be free stays free.
/// (Without the check in between, all are taken and the disks are full.)
#[tokio::test(start_paused = true)]
async fn a_burst_between_two_looks_does_not_fill_the_disk() {
    let cluster = Cluster::start(3).await;
    let needed = GIB / 20;
    let room = Room { free_bytes: needed + 40 * MIB, total_bytes: GIB };
    for node in 1..=3 {
        cluster.store(NodeId(node)).set_room(Some(room));
    }
    a_look().await;
    let (value, nothing) = ("v".repeat(MIB as usize), blind());
    let keys: Vec<String> = (0..150).map(|number| format!("k{number}")).collect();
    let with = With { timeout_ms: 500, ..w(1) };
    let puts = keys.iter().enumerate().map(|(index, key)| {
        let via = NodeId(1 + u32::try_from(index).expect("few") % 3);
        cluster.put(via, key, &value, &nothing, &with)
    });
    let began = Instant::now();
    let answers = join_all(puts).await;
    assert!(began.elapsed() < Duration::from_millis(600), "not a burst");
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    let read_only = |failure: &Failure| failure.code == ErrorCode::ReadOnly;
    let refused = answers.iter().filter(|answer| answer.as_ref().is_err_and(read_only)).count();
    assert!(taken > 20, "there was room for some, {taken} were taken");
    assert!(refused > 50, "there was no room for most, {refused} were refused");
    for node in 1..=3 {
        let free = cluster.store(NodeId(node)).room().expect("set").free_bytes;
        assert!(free > needed / 2, "{} of {} MiB are left on n{node}", free / MIB, needed / MIB);
    }
}
