//! What was acknowledged is kept; counters are never given twice.

use std::{collections::BTreeSet, time::Duration};

use atoll_node::storage::{Space, faulty::Faults};
use atoll_ring::NodeId;
use atoll_wire::ErrorCode;

use crate::cluster::{Cluster, DEFAULT, With, blind, r, values, w};

/// All nodes lose power the moment the client has its acknowledgement. Acknowledging before the fsync makes this fail.
#[tokio::test(start_paused = true)]
async fn acknowledged_writes_survive_a_power_loss_of_all_nodes() {
    let mut cluster = Cluster::start(5).await;
    for number in 0..20 {
        let key = format!("k{number}");
        let via = NodeId(number % 5 + 1);
        cluster.put(via, &key, "v", &blind(), &DEFAULT).await.expect("up");
        for node in 1..=5 {
            cluster.crash(NodeId(node));
        }
        for node in 1..=5 {
            cluster.boot(NodeId(node)).await;
        }
        cluster.settle().await;
    }
    for number in 0..20 {
        let found = cluster.get(NodeId(1), &format!("k{number}"), &r(2)).await.expect("up");
        assert_eq!(values(&found), ["v"], "k{number}");
    }
}

/// The issue's own trial: 200 acknowledged writes while any one owner at a time crashes and comes back.
#[tokio::test(start_paused = true)]
async fn two_hundred_writes_while_owners_come_and_go() {
    let mut cluster = Cluster::start(5).await;
    let mut down: Option<NodeId> = None;
    for number in 0..200u32 {
        if number % 7 == 0 {
            if let Some(node) = down.take() {
                cluster.boot(node).await;
                cluster.settle().await; // one at a time
            }
            let node = NodeId(number / 7 % 5 + 1);
            cluster.crash(node);
            down = Some(node);
        }
        let via = (1..=5).map(NodeId).find(|node| Some(*node) != down).expect("four are up");
        let key = format!("k{}", number % 40);
        let seen = cluster.get(via, &key, &r(2)).await.expect("two of three owners are up");
        let value = number.to_string();
        cluster.put(via, &key, &value, &seen.context, &w(2)).await.expect("two owners are up");
    }
    cluster.boot(down.expect("one is down")).await;
    cluster.settle().await;
    for key in 0..40 {
        let newest = (0..200u32).filter(|number| number % 40 == key).max().expect("some");
        let found = cluster.get(NodeId(1), &format!("k{key}"), &r(3)).await.expect("up");
        assert_eq!(values(&found), [newest.to_string()], "k{key}");
    }
}

/// dw=0 is an acknowledgement without a disk, and says so; the same write with the default survives.
#[tokio::test(start_paused = true)]
async fn dw_says_how_many_are_on_disk() {
    for (dw, survives) in [(0, false), (1, true), (2, true)] {
        let mut cluster = Cluster::start(3).await;
        let with = With { w: Some(2), dw: Some(dw), ..DEFAULT };
        // the first write of a partition waits for its lease, which would hide the difference
        cluster.put(NodeId(1), "k", "first", &blind(), &w(3)).await.expect("up");
        let seen = cluster.get(NodeId(1), "k", &r(3)).await.expect("up");
        let stored = cluster.put(NodeId(1), "k", "second", &seen.context, &with).await.expect("up");
        assert_eq!(stored.receipt.durable_needed, dw);
        for node in 1..=3 {
            cluster.crash(NodeId(node));
        }
        for node in 1..=3 {
            cluster.boot(NodeId(node)).await;
        }
        cluster.settle().await;
        let found = cluster.get(NodeId(1), "k", &r(3)).await.expect("up");
        let expected = if survives { "second" } else { "first" };
        assert_eq!(values(&found), [expected], "dw={dw}");
    }
}

/// A dot names one change for ever, however often its node loses power: also when that happens right after the first
/// acknowledgement, which came before any disk had anything but the lease.
#[tokio::test(start_paused = true)]
async fn no_dot_is_given_twice() {
    let mut cluster = Cluster::start(3).await;
    let mut dots = BTreeSet::new();
    for life in 0..6 {
        for number in 0..1 + life * 2 {
            let with = With { w: Some(1), dw: Some(0), ..DEFAULT };
            let key = format!("k{}", number % 3);
            let stored = cluster.put(NodeId(1), &key, "v", &blind(), &with).await.expect("up");
            let partition = cluster.row(&key).slice(..2);
            assert!(dots.insert((partition, stored.dot)), "{:?} again, life {life}", stored.dot);
        }
        cluster.crash(NodeId(1));
        cluster.boot(NodeId(1)).await;
        cluster.settle().await;
    }
}

/// A write is acknowledged by the two other owners and lost by its coordinator, whose note is thereby too old. After the
/// crash the coordinator claims only its own new event: what the others hold of its former life is kept beside it.
/// (Trusting the note, or extending from what the record contains, loses "lost here".)
#[tokio::test(start_paused = true)]
async fn an_unclean_start_claims_nothing_it_may_have_forgotten() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.stop(owners[0]).await; // in order, which says nothing about the stops after it
    cluster.crash(owners[0]);
    cluster.boot_slow(owners[0], Duration::from_millis(100)).await;
    cluster.settle().await;
    cluster.put(owners[0], "k", "base", &blind(), &w(3)).await.expect("up");
    cluster.put(owners[0], "k", "lost here", &blind(), &w(2)).await.expect("the others are faster");
    cluster.crash(owners[0]);
    cluster.boot(owners[0]).await;
    cluster.settle().await;
    let forgot = cluster.get(owners[0], "k", &r(1)).await.expect("its own copy");
    assert_eq!(values(&forgot), ["base"]);
    cluster.put(owners[0], "k", "after", &blind(), &w(3)).await.expect("up");
    let found = cluster.get(owners[1], "k", &r(3)).await.expect("up");
    assert_eq!(values(&found), ["after", "base", "lost here"]);
}

/// Whoever stops in order notes that nothing is missing, and its next life extends from its notes. So from then on it
/// must not make events that only others keep: its next event of the key would claim, and so erase, them.
#[tokio::test(start_paused = true)]
async fn after_an_orderly_stop_no_event_is_made() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "base", &blind(), &w(3)).await.expect("up");
    cluster.stop(owners[0]).await;
    let late = cluster.put(owners[0], "k", "late", &blind(), &w(2)).await;
    cluster.crash(owners[0]);
    cluster.boot(owners[0]).await;
    cluster.settle().await;
    cluster.put(owners[0], "k", "next", &blind(), &w(3)).await.expect("up");
    let found = values(&cluster.get(owners[1], "k", &r(3)).await.expect("up"));
    assert!(late.is_err() || found.contains(&"late".into()), "acknowledged and lost: {found:?}");
    assert_eq!(late.expect_err("the node is stopping").code, ErrorCode::Stopping);
}

/// A node that cannot read its own notes does not start: a lease that reads too low gives counters again, a start that is
/// forgotten trusts notes it must not.
#[tokio::test(start_paused = true)]
async fn a_node_does_not_start_with_damaged_notes_of_its_own() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(NodeId(1), "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.stop(NodeId(1)).await;
    cluster.crash(NodeId(1));
    let whole = cluster.backup(NodeId(1));
    let mut rows = Vec::new();
    for write in whole.iter().filter(|write| write.space == Space::Meta) {
        let name = write.row.escape_ascii().to_string();
        cluster.restore(NodeId(1), &whole);
        assert!(cluster.store(NodeId(1)).damage(Space::Meta, &write.row));
        let started = cluster.boot_with(NodeId(1), Faults::new()).await;
        // a real node reads its view before all others, here it is given; the other two only save it work
        if ["view", "summaries", "scrub"].contains(&&*name) {
            started.expect("not needed here");
            cluster.crash(NodeId(1));
        } else {
            let error = started.expect_err(&name);
            assert!(error.0.contains(&format!("the row {name} is damaged")), "{error}");
        }
        rows.push(name);
    }
    assert!(rows.iter().any(|row| row.starts_with("lease/")), "{rows:?}");
    for row in ["sequence", "clean", "unclean-starts"] {
        assert!(rows.iter().any(|name| name == row), "{rows:?} has no {row}");
    }
    cluster.restore(NodeId(1), &whole);
    cluster.boot(NodeId(1)).await;
}
