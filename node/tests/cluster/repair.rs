//! Owners that missed something get it: by a hint, by a read, or after their record was damaged.

use std::time::Duration;

use atoll_node::{
    node::MENDS_MAX,
    storage::{Space, Store as _, Write, record::Record, rows},
};
use atoll_ring::NodeId;
use atoll_wire::{ErrorCode, Outcome};

use crate::cluster::{Cluster, DEFAULT, With, blind, r, texts, values, w};

/// A write missed while down arrives by a hint, without anybody reading.
#[tokio::test(start_paused = true)]
async fn a_hint_brings_a_missed_write() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.crash(owners[2]);
    cluster.settle().await;
    let stored = cluster.put(owners[0], "k", "v", &blind(), &w(2)).await.expect("two are up");
    assert_eq!(stored.receipt.hinted, [owners[2].0]);
    assert_eq!(cluster.status(owners[0]).await.hints, 1);

    cluster.boot(owners[2]).await;
    cluster.settle().await;
    assert_eq!(cluster.status(owners[0]).await.hints, 0, "delivered and removed");
    let found = cluster.get(owners[2], "k", &r(1)).await.expect("its own copy");
    assert_eq!(values(&found), ["v"]);
}

/// Hints of a key are one state: many missed writes need one row, and a crash of the keeper does not lose them.
#[tokio::test(start_paused = true)]
async fn hints_survive_their_keeper() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.crash(owners[2]);
    cluster.settle().await;
    let mut context = blind();
    for number in 0..10 {
        let stored = cluster.put(owners[0], "k", &number.to_string(), &context, &w(2)).await;
        context = stored.expect("two are up").context;
    }
    cluster.settle().await;
    assert_eq!(cluster.status(owners[0]).await.hints, 1);
    cluster.crash(owners[0]);
    cluster.boot(owners[0]).await;
    assert_eq!(cluster.status(owners[0]).await.hints, 1);
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    let found = cluster.get(owners[2], "k", &r(1)).await.expect("its own copy");
    assert_eq!(values(&found), ["9"]);
}

/// A second missed write joins the hint of the first and does not take its place.
#[tokio::test(start_paused = true)]
async fn a_hint_keeps_concurrent_writes() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.crash(owners[2]);
    cluster.settle().await;
    for value in ["a", "b", "c"] {
        cluster.put(owners[0], "k", value, &blind(), &w(2)).await.expect("two are up");
    }
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    let found = cluster.get(owners[2], "k", &r(1)).await.expect("its own copy");
    assert_eq!(values(&found), ["a", "b", "c"]);
}

/// While a hint is on its way another write is missed. The confirmation is for the first only: the hint stays.
#[tokio::test(start_paused = true)]
async fn a_hint_that_grew_while_it_was_delivered_is_kept() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.crash(owners[2]);
    cluster.settle().await;
    let first = cluster.put(owners[0], "k", "a", &blind(), &w(2)).await.expect("two are up");
    cluster.network.slow(owners[2], owners[0], Duration::from_millis(300)); // its confirmations
    cluster.boot(owners[2]).await;
    while cluster.on_disk(owners[2], "k").is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cluster.network.cut(owners[0], owners[2]); // unnoticed
    let short = With { timeout_ms: 100, ..w(2) };
    cluster.put(owners[0], "k", "b", &first.context, &short).await.expect("two are up");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.status(owners[0]).await.hints, 1);
    cluster.network.mend(owners[0], owners[2]);
    cluster.settle().await;
    cluster.settle().await; // what was sent into the cut is given up after 4 s
    assert_eq!(cluster.status(owners[0]).await.hints, 0);
    let found = cluster.get(owners[2], "k", &r(1)).await.expect("its own copy");
    assert_eq!(values(&found), ["b"]);
}

/// An owner that does not answer at all gets its hint when the request's time is over.
#[tokio::test(start_paused = true)]
async fn silence_leaves_a_hint_too() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.isolate(owners[2]); // not noticed yet
    cluster.put(owners[0], "k", "v", &blind(), &w(2)).await.expect("two are enough");
    cluster.settle().await;
    assert_eq!(cluster.status(owners[0]).await.hints, 1);
    cluster.rejoin(owners[2]);
    cluster.settle().await;
    assert_eq!(cluster.status(owners[0]).await.hints, 0);
    assert!(cluster.on_disk(owners[2], "k").is_some());
}

/// A read that meets an owner with less brings it up to date.
#[tokio::test(start_paused = true)]
async fn a_read_repairs_whoever_was_behind() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.crash(owners[2]);
    cluster.settle().await;
    cluster.put(owners[0], "k", "v", &blind(), &w(2)).await.expect("two are up");
    cluster.crash(owners[0]); // and its hint stays with it
    cluster.boot(owners[2]).await;
    cluster.settle().await;

    let found = cluster.get(owners[1], "k", &r(2)).await.expect("two are up");
    assert_eq!(values(&found), ["v"]);
    assert_eq!(found.receipt.repaired, [owners[2].0]);
    cluster.settle().await;
    let alone = cluster.get(owners[2], "k", &r(1)).await.expect("its own copy");
    assert_eq!(values(&alone), ["v"]);
}

/// Each owner has something the others lack. After one read all have all, well before any hint.
#[tokio::test(start_paused = true)]
async fn a_read_brings_everybody_the_join() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    owners.iter().for_each(|owner| cluster.isolate(*owner)); // unnoticed
    for (owner, value) in owners.iter().zip(["a", "b", "c"]) {
        cluster.put(*owner, "k", value, &blind(), &w(1)).await.expect("its own disk");
    }
    owners.iter().for_each(|owner| cluster.rejoin(*owner));
    let found = cluster.get(owners[1], "k", &r(3)).await.expect("up");
    assert_eq!(values(&found), ["a", "b", "c"]);
    assert_eq!(found.receipt.repaired.len(), 3);
    tokio::time::sleep(Duration::from_millis(50)).await;
    for owner in owners {
        let alone = cluster.get(owner, "k", &r(1)).await.expect("its own copy");
        assert_eq!(values(&alone), ["a", "b", "c"], "{owner}");
    }
}

/// An answer that comes after the reader has his reply is too late for him and not for the repair.
#[tokio::test(start_paused = true)]
async fn a_late_answer_repairs_too() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.isolate(owners[1]); // unnoticed
    cluster.put(owners[1], "k", "v", &blind(), &w(1)).await.expect("its own disk");
    cluster.rejoin(owners[1]);
    cluster.network.slow(owners[1], owners[0], Duration::from_millis(400));
    let found = cluster.get(owners[0], "k", &r(2)).await.expect("the third is asked instead");
    assert!(values(&found).is_empty());
    tokio::time::sleep(Duration::from_millis(500)).await;
    for owner in owners {
        assert!(cluster.on_disk(owner, "k").is_some(), "{owner}");
    }
}

/// Repairs have a bound: past it a read repairs nothing and says so, and when there is room again the next one does.
#[tokio::test(start_paused = true)]
async fn repairs_are_bounded() {
    let mut cluster = Cluster::start(3).await;
    let slow = NodeId(3);
    cluster.crash(slow);
    cluster.boot_slow(slow, Duration::from_secs(3)).await;
    cluster.settle().await;
    cluster.isolate(slow); // unnoticed
    let key = |number: usize| format!("k{number}");
    for number in 0..=MENDS_MAX {
        cluster.put(NodeId(2), &key(number), "v", &blind(), &w(2)).await.expect("two are up");
    }
    cluster.crash(NodeId(2)); // and its hints stay with it
    cluster.rejoin(slow);
    for number in 0..MENDS_MAX {
        let found = cluster.get(NodeId(1), &key(number), &r(2)).await.expect("two are up");
        assert_eq!(found.receipt.repaired, [slow.0], "{number}");
    }
    let last = key(MENDS_MAX);
    let found = cluster.get(NodeId(1), &last, &r(2)).await.expect("two are up");
    assert_eq!(values(&found), ["v"]);
    assert!(found.receipt.repaired.is_empty());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(cluster.on_disk(slow, &last).is_none());
    let found = cluster.get(NodeId(1), &last, &r(2)).await.expect("two are up");
    assert_eq!(found.receipt.repaired, [slow.0]);
    cluster.settle().await;
    assert!(cluster.on_disk(slow, &last).is_some());
}

/// A damaged record gives no answer; the others do, and then mend it. A minute later it counts again.
#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_not_an_answer_and_is_mended() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    assert!(cluster.store(owners[1]).damage(Space::Data, &cluster.row("k")));

    let found = cluster.get(owners[1], "k", &r(2)).await.expect("the other two");
    assert_eq!(values(&found), ["v"]);
    let damaged = found.receipt.replicas.iter().find(|replica| replica.node == owners[1].0);
    assert_eq!(damaged.map(|replica| replica.outcome), Some(Outcome::Corrupt));
    assert!(cluster.status(owners[1]).await.corrupt_records > 0, "it is counted");
    tokio::time::sleep(Duration::from_secs(62)).await;
    let alone = cluster.get(owners[1], "k", &r(1)).await.expect("mended");
    assert_eq!(values(&alone), ["v"]);
    let mended = alone.receipt.replicas.iter().find(|replica| replica.node == owners[1].0);
    assert_eq!(mended.map(|replica| replica.outcome), Some(Outcome::Current));
}

/// A read of fewer than all owners may miss what only the one left out and the damaged one had: it mends nothing, and
/// R + W > N goes on to hold.
#[tokio::test(start_paused = true)]
async fn a_narrow_read_does_not_mend_damage() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let first = cluster.put(owners[0], "k", "old", &blind(), &w(3)).await.expect("up");
    cluster.network.cut(owners[0], owners[1]);
    cluster.put(owners[0], "k", "new", &first.context, &w(2)).await.expect("n0 and n2");
    cluster.network.mend(owners[0], owners[1]); // the second owner has missed it, and no hint is written yet
    assert!(cluster.store(owners[0]).damage(Space::Data, &cluster.row("k")));

    let narrow = With { n: Some(2), r: Some(1), ..DEFAULT };
    let found = cluster.get(owners[0], "k", &narrow).await.expect("one answer");
    assert_eq!(values(&found), ["old"], "r=1 promises no more");
    tokio::time::sleep(Duration::from_millis(50)).await; // a mend would be done by now
    let found = cluster.get(owners[0], "k", &r(2)).await.expect("two undamaged owners");
    assert_eq!(values(&found), ["new"]);
}

/// To another coordinator, too, a damaged record is no answer, and least of all "not found".
#[tokio::test(start_paused = true)]
async fn damage_is_never_taken_for_absence() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.isolate(owners[2]); // unnoticed
    cluster.put(owners[0], "k", "v", &blind(), &w(2)).await.expect("two are up");
    assert!(cluster.store(owners[1]).damage(Space::Data, &cluster.row("k")));
    cluster.network.mend(owners[1], owners[2]);
    cluster.network.mend(owners[2], owners[1]);
    let failure = cluster.get(owners[2], "k", &r(2)).await.expect_err("one undamaged answer");
    assert_eq!(failure.got, 1);
    let receipt = failure.receipt.expect("a receipt");
    let damaged = receipt.replicas.iter().find(|replica| replica.node == owners[1].0);
    assert_eq!(damaged.map(|replica| replica.outcome), Some(Outcome::Corrupt));
}

/// As long as one owner is silent a damaged record stays in doubt: the silent one may alone have what was in it. What the
/// others have is there at once.
#[tokio::test(start_paused = true)]
async fn damage_is_not_mended_while_an_owner_is_silent() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    assert!(cluster.store(owners[0]).damage(Space::Data, &cluster.row("k")));
    cluster.isolate(owners[2]); // unnoticed
    cluster.get(owners[0], "k", &r(1)).await.expect("the second owner");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(texts(&cluster.state(owners[0], "k").expect("fetched")), ["v"]);
    assert_eq!(cluster.status(owners[0]).await.keys_in_doubt, 1);
    cluster.get(owners[0], "k", &r(2)).await.expect_err("one owner is silent, one in doubt");
    cluster.rejoin(owners[2]);
    cluster.settle().await;
    cluster.get(owners[0], "k", &r(2)).await.expect("two undamaged owners");
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(cluster.status(owners[0]).await.keys_in_doubt, 0, "when all have answered");
    cluster.get(owners[0], "k", &r(3)).await.expect("it counts again");
}

/// A delta does not turn a damaged record into a good one: it knows only its own event. The owner takes part in the write,
/// also as its coordinator, and keeps what it acknowledges; to a read it is no answer until it has been compared.
#[tokio::test(start_paused = true)]
async fn a_write_does_not_hide_damage() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "before", &blind(), &w(3)).await.expect("up");
    assert!(cluster.store(owners[0]).damage(Space::Data, &cluster.row("k")));

    let stored = cluster.put(owners[0], "k", "after", &blind(), &w(3)).await.expect("up");
    assert_eq!(stored.receipt.coordinator, owners[0].0);
    cluster.put(owners[1], "k", "third", &blind(), &w(3)).await.expect("up");
    let found = cluster.get(owners[0], "k", &r(2)).await.expect("two others");
    assert_eq!(values(&found), ["after", "before", "third"]);
    let failure = cluster.get(owners[0], "k", &r(3)).await.expect_err("one is in doubt");
    assert_eq!(failure.code, ErrorCode::ReadQuorumNotMet);
    tokio::time::sleep(Duration::from_secs(62)).await;
    let alone = cluster.get(owners[0], "k", &r(1)).await.expect("mended");
    assert_eq!(values(&alone), ["after", "before", "third"]);
}

/// Hints that nobody could take, because they are no states, are set aside and do not hold up the others.
#[tokio::test(start_paused = true)]
async fn hints_that_are_no_states_hold_up_nobody() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.crash(owners[2]);
    cluster.settle().await;
    cluster.put(owners[0], "k", "v", &blind(), &w(2)).await.expect("two are up");
    cluster.settle().await;
    cluster.crash(owners[0]);
    let poison: Vec<Write> = (0..40u8)
        .map(|number| {
            let partition_zero = [&[0; 25][..], &[number], b"key"].concat();
            let row = rows::hint(owners[2], &partition_zero);
            let value = Record::encode(&row, None, b"no state");
            Write { space: Space::Hints, row, value: Some(value) }
        })
        .collect();
    cluster.store(owners[0]).apply(&poison).expect("memory");
    cluster.boot(owners[0]).await;
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    assert!(cluster.on_disk(owners[2], "k").is_some(), "delivered past the others");
    let status = cluster.status(owners[0]).await;
    assert_eq!((status.hints, status.corrupt_records), (0, 40));
}

/// With everybody up and quiet nothing is repaired and nothing is hinted: the background does no work of its own.
#[tokio::test(start_paused = true)]
async fn a_quiet_cluster_repairs_nothing() {
    let cluster = Cluster::start(5).await;
    for number in 0..20 {
        let key = format!("k{number}");
        let via = cluster.not_owner(&key);
        cluster.put(via, &key, "v", &blind(), &w(3)).await.expect("up");
        let found = cluster.get(via, &key, &DEFAULT).await.expect("up");
        assert!(found.receipt.repaired.is_empty());
    }
    cluster.settle().await;
    for node in 1..=5 {
        let status = cluster.status(atoll_ring::NodeId(node)).await;
        assert_eq!((status.repaired, status.hints, status.hints_refused), (0, 0, 0));
    }
}
