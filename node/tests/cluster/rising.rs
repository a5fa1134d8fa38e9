//! How nodes begin to serve: as who they were, or under a new incarnation when something is lost.

use std::time::Duration;

use atoll_node::{Faults, HintLimits, Node};
use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode};

use crate::cluster::{Cluster, DEFAULT, SLOPPY, With, blind, r, values, w};

const ONE: NodeId = NodeId(1);

async fn incarnation(cluster: &Cluster, node: NodeId) -> u32 {
    cluster.status(node).await.incarnation
}

/// What a node waits for before it serves.
async fn rising(cluster: &Cluster, node: NodeId) -> String {
    cluster.status(node).await.rising
}

/// An emptied node comes back as a new incarnation, one higher each time, says why it is in doubt, and the dots of its
/// lives are different.
#[tokio::test(start_paused = true)]
async fn each_wipe_is_a_new_incarnation() {
    let mut cluster = Cluster::start(3).await;
    for life in 0..4 {
        let status = cluster.status(ONE).await;
        assert_eq!(status.incarnation, life);
        let stored = cluster.put(ONE, "k", "v", &blind(), &w(3)).await.expect("up");
        assert_eq!((stored.dot.0, stored.dot.1), (1, life));
        cluster.wipe(ONE);
        cluster.boot(ONE).await;
        let status = cluster.status(ONE).await;
        assert!(status.doubt.contains("is empty"), "{}", status.doubt);
        assert_eq!((status.partitions_in_doubt, status.rising.as_str()), (64, ""));
        cluster.settle().await;
    }
    let found = cluster.get(NodeId(2), "k", &r(2)).await.expect("up");
    assert_eq!(values(&found), ["v"; 4], "every life has its own dots");
}

/// A power loss alone takes no incarnation and makes no doubt, whatever was on its way to the disks.
#[tokio::test(start_paused = true)]
async fn what_was_not_synced_is_not_lost() {
    let mut cluster = Cluster::start(3).await;
    for keep in 0..4 {
        for number in 0..10 {
            let with = With { w: Some(1), dw: Some(0), ..DEFAULT };
            cluster.put(ONE, &format!("k{number}"), "v", &blind(), &with).await.expect("up");
        }
        for node in 1..=3 {
            cluster.crash_keeping(NodeId(node), keep);
        }
        for node in 1..=3 {
            cluster.boot(NodeId(node)).await;
        }
        cluster.settle().await;
        for node in 1..=3 {
            let status = cluster.status(NodeId(node)).await;
            assert_eq!((status.incarnation, status.doubt.as_str()), (0, ""), "n{node}");
        }
    }
}

/// Without a majority of the voters an emptied node serves nothing, says what it waits for, and is down for its peers;
/// writes go on by hints. When the log goes on it rises and gets them.
#[tokio::test(start_paused = true)]
async fn without_a_majority_it_waits_and_says_so() {
    let mut cluster = Cluster::start(4).await;
    let key = (0..).map(|number| format!("k{number}"));
    let key = key.into_iter().find(|key| cluster.owners(key).contains(&ONE)).expect("some");
    cluster.crash(NodeId(3));
    cluster.crash(NodeId(4));
    cluster.log.set_majority(false);
    cluster.wipe(ONE);
    cluster.begin(ONE).await;
    cluster.settle().await;
    let waits = rising(&cluster, ONE).await;
    assert!(waits.contains("is empty"), "{waits}");
    assert!(waits.contains("needs a new incarnation, and the ring is frozen"), "{waits}");

    let refused = cluster.get(ONE, &key, &r(1)).await.expect_err("it does not serve");
    assert_eq!((refused.code, refused.effect), (ErrorCode::Rising, Effect::NotApplied));
    assert!(refused.detail.contains("the ring is frozen"), "{}", refused.detail);
    let refused =
        cluster.put(ONE, &key, "v", &blind(), &w(1)).await.expect_err("it does not serve");
    assert_eq!((refused.code, refused.effect), (ErrorCode::Rising, Effect::NotApplied));
    let seen = cluster.status(NodeId(2)).await.peers.into_iter().find(|peer| peer.node == 1);
    let seen = seen.expect("a member");
    assert_eq!((seen.up, seen.reason.as_str()), (false, "starting"));

    let with = With { w: Some(1), ..SLOPPY };
    let stored = cluster.put(NodeId(2), &key, "missed", &blind(), &with).await.expect("by hints");
    assert!(stored.receipt.hinted.contains(&1), "{:?}", stored.receipt);
    cluster.settle().await;
    assert!(cluster.state(ONE, &key).is_none(), "it takes nothing either");

    cluster.log.set_majority(true);
    cluster.boot(NodeId(3)).await;
    cluster.settle().await;
    assert_eq!((incarnation(&cluster, ONE).await, rising(&cluster, ONE).await), (1, String::new()));
    assert!(cluster.state(ONE, &key).is_some(), "the hint is there");
}

/// Nobody has to remember an incarnation but the log: a node that is emptied again, when all who saw its last life have been
/// emptied too, gets the next number and not the same one again.
#[tokio::test(start_paused = true)]
async fn an_incarnation_outlives_all_its_witnesses() {
    let mut cluster = Cluster::start(3).await;
    cluster.wipe(ONE);
    cluster.boot(ONE).await;
    assert_eq!(incarnation(&cluster, ONE).await, 1);
    cluster.crash(ONE); // nobody shall hear it from itself
    for witness in [NodeId(2), NodeId(3)] {
        cluster.wipe(witness);
        cluster.boot(witness).await;
        assert_eq!(incarnation(&cluster, witness).await, 1);
    }
    cluster.wipe(ONE);
    cluster.boot(ONE).await;
    assert_eq!(incarnation(&cluster, ONE).await, 2);
    let lives: Vec<u32> =
        cluster.log.head().members().iter().map(|member| member.incarnation).collect();
    assert_eq!(lives, [2, 1, 1]);
}

/// Of two proposals the answers are lost. The node counts on neither: it goes on until it hears that a number is its own.
#[tokio::test(start_paused = true)]
async fn a_number_that_nobody_confirmed_is_not_used() {
    let mut cluster = Cluster::start(3).await;
    cluster.log.lose_answers(1000);
    cluster.wipe(ONE);
    cluster.begin(ONE).await;
    while cluster.log.entries().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_ne!(rising(&cluster, ONE).await, "");
    cluster.log.lose_answers(0);
    cluster.settle().await;
    assert!(incarnation(&cluster, ONE).await > 2);
    let last = cluster.log.head().member(ONE).map(|member| member.incarnation);
    assert_eq!(last, Some(incarnation(&cluster, ONE).await));
}

/// A directory restored from an older copy, with all that lies beside the store, looks whole. Its peers remember more.
/// What it wrote after the copy was made is on the other owners, and its next write does not erase it.
#[tokio::test(start_paused = true)]
async fn a_restored_copy_is_noticed_by_the_peers() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(ONE, "k", "before", &blind(), &w(3)).await.expect("up");
    let copy = cluster.backup(ONE);
    cluster.put(ONE, "k", "after", &blind(), &w(3)).await.expect("up");
    cluster.settle().await;
    cluster.crash(ONE);
    cluster.restore(ONE, &copy);
    cluster.boot(ONE).await;
    let status = cluster.status(ONE).await;
    assert_eq!(status.incarnation, 1);
    assert!(status.doubt.contains("remembers its commit"), "{}", status.doubt);
    let stored = cluster.put(ONE, "k", "again", &blind(), &w(3)).await.expect("up");
    assert_eq!((stored.dot.0, stored.dot.1), (1, 1));
    let found = cluster.get(NodeId(2), "k", &r(2)).await.expect("up");
    assert_eq!(values(&found), ["after", "again", "before"]);
}

/// What peers remember outlives them: they have it from pings, and it went to their disks with their own commits.
#[tokio::test(start_paused = true)]
async fn the_memory_of_peers_is_durable() {
    let mut cluster = Cluster::start(3).await;
    let copy = cluster.backup(ONE);
    cluster.put(ONE, "k", "after", &blind(), &w(3)).await.expect("up");
    cluster.settle().await;
    cluster.put(ONE, "k2", "their next commits", &blind(), &w(3)).await.expect("up");
    cluster.crash_all(&[ONE, NodeId(2), NodeId(3)]);
    cluster.restore(ONE, &copy);
    cluster.boot_all(&[NodeId(2), NodeId(3), ONE]).await;
    assert_eq!(incarnation(&cluster, ONE).await, 1);
    assert_eq!(incarnation(&cluster, NodeId(2)).await, 0);
}

/// A journal without its tail is noticed by the mark beside it, with nobody to ask; and the node does not forget that
/// over restarts, though its own commits have passed the mark by then.
#[tokio::test(start_paused = true)]
async fn a_lost_tail_is_noticed_by_the_mark_alone() {
    let mut cluster = Cluster::start(3).await;
    let copy = cluster.backup(ONE);
    cluster.put(ONE, "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.crash_all(&[ONE, NodeId(2), NodeId(3)]);
    cluster.lose_tail(ONE, &copy);
    cluster.log.set_majority(false);
    for _ in 0..5 {
        cluster.begin(ONE).await;
        cluster.settle().await;
        let waits = rising(&cluster, ONE).await;
        assert!(waits.contains("has lost its newest commits"), "{waits}");
        assert!(waits.contains("needs a new incarnation, and the ring is frozen"), "{waits}");
        cluster.crash(ONE);
    }
    cluster.log.set_majority(true);
    cluster.begin(ONE).await;
    cluster.boot_all(&[NodeId(2), NodeId(3)]).await;
    cluster.settle().await;
    assert_eq!(incarnation(&cluster, ONE).await, 1);
    assert!(cluster.status(ONE).await.doubt.contains("newest commits"));
    cluster.crash(ONE);
    cluster.boot(ONE).await;
    assert_eq!(incarnation(&cluster, ONE).await, 1, "it has been seen to");
}

/// A restored copy that finds nobody to ask when it starts goes on as if it were whole. It tells nobody of a commit that
/// could take the place of what they remember, asks them as soon as it meets them, and stops. The next start knows.
#[tokio::test(start_paused = true)]
async fn a_copy_that_began_alone_is_stopped_when_it_meets_the_others() {
    let mut cluster = Cluster::start(3).await;
    let copy = cluster.backup(ONE);
    cluster.put(ONE, "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.settle().await;
    cluster.crash(ONE);
    cluster.restore(ONE, &copy);
    cluster.isolate(ONE);
    cluster.boot(ONE).await;
    assert_eq!((incarnation(&cluster, ONE).await, rising(&cluster, ONE).await), (0, String::new()));
    for number in 0..30 {
        // now it has more commits than the others remember
        let with = With { w: Some(1), timeout_ms: 100, ..DEFAULT };
        let _ = cluster.put(ONE, &format!("other{number}"), "v", &blind(), &with).await;
    }
    cluster.rejoin(ONE);
    cluster.settle().await;
    let ended = cluster.says_of_itself(ONE).await.expect_err("it has stopped");
    assert_eq!(ended.code, ErrorCode::Stopping);
    assert!(ended.detail.contains("out of reach when this node started"), "{}", ended.detail);
    cluster.crash(ONE);
    cluster.boot(ONE).await;
    assert_eq!(incarnation(&cluster, ONE).await, 1);
}

/// Somebody says of an emptied disk that it has never been used. The peers know better.
#[tokio::test(start_paused = true)]
async fn a_first_start_is_believed_only_if_nobody_remembers() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(ONE, "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.settle().await;
    cluster.wipe(ONE);
    cluster.call_new(ONE);
    cluster.boot(ONE).await;
    let status = cluster.status(ONE).await;
    assert_eq!(status.incarnation, 1);
    assert!(status.doubt.contains("remembers"), "{}", status.doubt);
}

/// A number that was given to a life which never began is skipped.
#[tokio::test(start_paused = true)]
async fn a_number_is_never_given_to_two_lives() {
    let mut cluster = Cluster::start(5).await;
    let mut highest = 0;
    for pause_ms in (5..=100).step_by(5).chain([1000]) {
        cluster.wipe(ONE);
        cluster.begin(ONE).await;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let status = cluster.status(ONE).await;
        let now = status.incarnation;
        let fits = if status.rising.is_empty() { now > highest } else { now == 0 };
        assert!(fits, "{now} after {highest}, {pause_ms} ms");
        highest = highest.max(now);
    }
    let (taken, highest) = (cluster.log.entries().len(), usize::try_from(highest).expect("few"));
    assert!(taken == highest && highest >= 2, "{taken} taken, the last life is {highest}");
}

/// A cluster of one has nobody who knows what is missing. It says what can be done.
#[tokio::test(start_paused = true)]
async fn a_single_node_cannot_rise_alone() {
    let mut cluster = Cluster::start_of(1, 1, HintLimits::default()).await;
    cluster.put(ONE, "k", "v", &blind(), &w(1)).await.expect("up");
    let backup = cluster.backup(ONE);
    cluster.wipe(ONE);
    let error = cluster.boot_with(ONE, Faults::new()).await.expect_err("nobody knows");
    assert!(error.0.contains("--first-start"), "{error}");
    cluster.crash(ONE);
    cluster.restore(ONE, &backup);
    cluster.boot(ONE).await;
    let found = cluster.get(ONE, "k", &r(1)).await.expect("its data is back");
    assert_eq!(values(&found), ["v"]);
}

/// A node that serves nobody is a [`Node`] all the same: it can be stopped in order, and its next start goes on.
#[tokio::test(start_paused = true)]
async fn a_rising_node_can_be_stopped() {
    let mut cluster = Cluster::start(3).await;
    cluster.crash(NodeId(3));
    cluster.wipe(ONE);
    cluster.begin(ONE).await;
    cluster.settle().await;
    Node::stop(cluster.node(ONE)).await.expect("memory does not fail");
    cluster.crash(ONE);
    cluster.begin(ONE).await;
    cluster.boot(NodeId(3)).await;
    cluster.settle().await;
    assert_eq!(incarnation(&cluster, ONE).await, 1);
}
