//! What keeps writes while a partition moves: each bug of it, switched on, loses an acknowledged write for reads that had
//! to see it.
//!
//! A partition moves from its leaving owner to a joining one. In the stories of the fence the leaving owner acknowledges a
//! write after the joining one has copied everything, so the new owners never have it; then the move is over, and a read
//! that overlaps the write's quorum asks the new owners. With the node as it is the write is not acknowledged, or the read
//! sees it. The last story is about what a coordinator claims to know when the partition has come back to it.
//!
//! `atoll-sim --canaries` finds the bugs of the fence by what else they break, mostly by records that lie where they do not
//! belong.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use atoll_node::{
    canary::{self, Canary},
    storage::faulty::Step,
};
use atoll_ring::{Command, Entry, Epoch, NodeId, Partition, View, Wish};
use atoll_wire::{MovesQuery, Reply, Request};

#[path = "../../../node/tests/cluster/cluster.rs"]
#[expect(dead_code, reason = "shared with the tests of the node, which need more of it")]
mod cluster;

use cluster::{Cluster, With, blind, r, sloppy_w, values, w};

const KEY: &str = "k";

/// How long a sync of a slow disk takes.
const SLOW: Duration = Duration::from_millis(300);

/// Four nodes, a key whose partition moves from the leaving owner to the joining one, and the views of that.
struct Moving {
    cluster: Cluster,
    first: NodeId,
    second: NodeId,
    leaving: NodeId,
    joining: NodeId,
    partition: Partition,
    joint: View,
    new: View,
}

/// The views in which a partition is on its way to these owners, and there.
fn moved(from: &View, partition: Partition, target: [NodeId; 3]) -> (View, View) {
    let next = |view: &View, command| {
        let entry = Entry { epoch: Epoch(view.epoch().0 + 1), at_ms: 0, command };
        view.apply(&entry).expect("it fits")
    };
    let moves = BTreeMap::from([(partition, target.to_vec())]);
    let change = Command::Change { base: from.epoch(), wish: Wish::Rebalance, moves };
    let joint = next(&next(from, change), Command::Begin { partitions: vec![partition] });
    let finish = Command::Finish { partitions: vec![(partition, joint.epoch())] };
    (joint.clone(), next(&joint, finish))
}

impl Moving {
    async fn start() -> Moving {
        Moving::of(Cluster::start(4).await)
    }

    fn of(cluster: Cluster) -> Moving {
        let (owners, joining) = (cluster.owners(KEY), cluster.not_owner(KEY));
        let (first, second, leaving) = (owners[0], owners[1], owners[2]);
        let row = cluster.row(KEY);
        let partition = Partition(u16::from_be_bytes([row[0], row[1]]));
        let (joint, new) = moved(&cluster.view, partition, [first, second, joining]);
        Moving { cluster, first, second, leaving, joining, partition, joint, new }
    }

    async fn tell(&self, nodes: &[NodeId], view: &View) {
        for node in nodes {
            self.cluster.node(*node).adopt(view.clone(), &[], Vec::new()).await.expect("memory");
        }
    }

    /// Whether the joining owner says that it has copied everything.
    async fn is_copied(&self) -> bool {
        let asked =
            self.cluster.client().call(self.joining, Request::Moves(MovesQuery {}), 1000).await;
        let Ok(Reply::Moves(report)) = asked else { panic!("{asked:?}") };
        let moves = report.read().expect("a report");
        moves.iter().any(|one| one.partition == self.partition.0 && one.joins && one.done)
    }

    /// The move is over, for all but those who are cut off; whether a read through the joining owner finds the write.
    async fn is_found(&self, cut_off: &[NodeId], with: &With) -> bool {
        cut_off.iter().for_each(|node| self.cluster.isolate(*node));
        let told = [self.first, self.second, self.joining];
        let told = told.into_iter().filter(|node| !cut_off.contains(node));
        self.tell(&told.collect::<Vec<_>>(), &self.new).await;
        let found = self.cluster.get(self.joining, KEY, with).await.expect("enough new owners");
        values(&found) == ["v"]
    }
}

/// What came of a story.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// The write was not acknowledged.
    Refused,
    Seen,
    /// It was acknowledged, and a read that had to see it did not.
    Lost,
}

/// A coordinator that hears of no new view writes with two of the old owners, of which one is leaving: that one has the
/// joint view, and has been copied from. If it shall `forget`, it loses power before the view is on its disk.
async fn a_coordinator_that_is_behind(forget: bool) -> Ending {
    let mut moving = Moving::start().await;
    let Moving { first, second, leaving, joining, .. } = moving;
    if forget {
        moving.cluster.crash(leaving);
        moving.cluster.boot_slow(leaving, SLOW).await;
        moving.cluster.settle().await;
    }
    moving.cluster.network.keep_behind(BTreeSet::from([first, second, leaving]));
    moving.tell(&[joining], &moving.joint).await;
    let (node, joint) = (moving.cluster.node(leaving).clone(), moving.joint.clone());
    let adopted = tokio::spawn(async move { node.adopt(joint, &[], Vec::new()).await });
    if forget {
        tokio::time::sleep(SLOW / 2).await;
        let copied = moving.is_copied().await;
        moving.cluster.crash(leaving);
        adopted.abort();
        moving.cluster.boot(leaving).await;
        if !copied {
            return Ending::Refused; // the move cannot end before the leaving owner has its view for certain
        }
    } else {
        adopted.await.expect("it ends").expect("memory");
        moving.cluster.settle().await;
        assert!(moving.is_copied().await);
    }
    for (a, b) in [(first, second), (first, joining)] {
        moving.cluster.network.cut(a, b);
        moving.cluster.network.cut(b, a);
    }
    match moving.cluster.put(first, KEY, "v", &blind(), &w(2)).await {
        Err(_) => Ending::Refused,
        Ok(_) if moving.is_found(&[first, leaving], &r(2)).await => Ending::Seen,
        Ok(_) => Ending::Lost,
    }
}

/// The leaving owner coordinates. It has admitted the write with its old view and waits for counters, which its slow disk
/// has to give it; meanwhile it takes the joint view, is copied from, and is cut off. Then comes its own step.
async fn a_coordinator_that_leaves() -> Ending {
    let mut moving = Moving::start().await;
    let Moving { first, second, leaving, joining, .. } = moving;
    moving.cluster.crash(leaving);
    moving.cluster.boot_slow(leaving, SLOW).await;
    moving.cluster.settle().await;
    moving.tell(&[first, second, joining], &moving.joint).await;
    moving.cluster.network.keep_behind(BTreeSet::from([leaving]));
    let (node, joint) = (moving.cluster.node(leaving).clone(), moving.joint.clone());
    let adopted = tokio::spawn(async move { node.adopt(joint, &[], Vec::new()).await });
    tokio::time::sleep(Duration::from_millis(10)).await; // the disk writes the view; the counters come after it
    let client = moving.cluster.client();
    let with = With { timeout_ms: 4000, ..w(1) };
    let put = tokio::spawn(async move { client.put(leaving, KEY, "v", &blind(), &with).await });
    adopted.await.expect("it ends").expect("memory");
    tokio::time::sleep(SLOW / 2).await;
    assert!(moving.is_copied().await, "while the counters are on their way to the disk");
    moving.cluster.isolate(leaving); // nobody else hears of the write, be it by a hint
    match put.await.expect("it ends") {
        Err(_) => Ending::Refused,
        Ok(_) if moving.is_found(&[leaving], &r(3)).await => Ending::Seen,
        Ok(_) => Ending::Lost,
    }
}

/// A node that refuses nothing that is stale.
#[tokio::test(start_paused = true)]
async fn without_the_fence_a_write_is_lost() {
    assert_eq!(a_coordinator_that_is_behind(false).await, Ending::Refused);
    canary::set(Some(Canary::SkipFence));
    assert_eq!(a_coordinator_that_is_behind(false).await, Ending::Lost);
    canary::set(None);
}

/// One that speaks of a view, and is copied from, before the view is on its disk.
#[tokio::test(start_paused = true)]
async fn with_a_view_that_may_be_forgotten_a_write_is_lost() {
    assert_eq!(a_coordinator_that_is_behind(true).await, Ending::Refused);
    canary::set(Some(Canary::SpeakOfViewEarly));
    assert_eq!(a_coordinator_that_is_behind(true).await, Ending::Lost);
    canary::set(None);
}

/// One that refuses others what is stale, and not itself.
#[tokio::test(start_paused = true)]
async fn without_the_fence_of_the_own_step_a_write_is_lost() {
    assert_eq!(a_coordinator_that_leaves().await, Ending::Refused);
    canary::set(Some(Canary::FenceOthersOnly));
    assert_eq!(a_coordinator_that_leaves().await, Ending::Lost);
    canary::set(None);
}

/// An owner writes, its partition moves away, it writes again as a fallback for owners that are all down, and the partition
/// comes back to it while its old record still lies there. Then it writes a third time. Nobody has seen anybody's write, so
/// the values are siblings.
async fn siblings_of_one_that_comes_back() -> Vec<String> {
    let mut moving = Moving::of(Cluster::start(5).await);
    let Moving { first, second, leaving, joining, partition, .. } = moving;
    let all: Vec<NodeId> = moving.cluster.up();
    let others: Vec<NodeId> = all.iter().copied().filter(|node| *node != leaving).collect();
    moving.cluster.put(leaving, KEY, "1", &blind(), &w(3)).await.expect("all are up");
    moving.cluster.faults(leaving).hold([Step::Clean]);
    moving.tell(&all, &moving.joint).await;
    moving.cluster.settle().await;
    moving.tell(&all, &moving.new).await;
    moving.cluster.settle().await;
    moving.cluster.crash_all(&others);
    moving.cluster.settle().await;
    moving.cluster.put(leaving, KEY, "2", &blind(), &sloppy_w(1)).await.expect("a hint");
    moving.cluster.boot_all(&others).await;
    moving.cluster.settle().await;
    let (joint, new) = moved(&moving.new, partition, [first, second, leaving]);
    moving.tell(&all, &joint).await;
    moving.cluster.settle().await;
    moving.tell(&all, &new).await;
    moving.cluster.put(leaving, KEY, "3", &blind(), &w(3)).await.expect("all are up");
    values(&moving.cluster.get(joining, KEY, &r(3)).await.expect("all are up"))
}

/// One that takes a note from another role for the newest: its third write claims to know the second, and does not.
#[tokio::test(start_paused = true)]
async fn with_a_note_from_another_role_a_write_is_lost() {
    assert_eq!(siblings_of_one_that_comes_back().await, ["1", "2", "3"]);
    canary::set(Some(Canary::TrustOtherRole));
    assert_eq!(siblings_of_one_that_comes_back().await, ["1", "3"]);
    canary::set(None);
}
