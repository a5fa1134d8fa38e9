//! Requests while a partition changes its owners: whoever knows of the change refuses what was planned before it, whoever
//! planned it plans anew, and while there are two owner sets a quorum is needed in both.
//!
//! The nodes are told views one by one, so that some know what others do not. n4 takes the seat of the last of n1, n2, n3,
//! whichever order they have; here they are called by what they do:
//!
//! ```text
//!   epoch 1   old    first second leaving
//!   epoch 2   the move is wanted
//!   epoch 3   joint  first second leaving  and  first second joining
//!   epoch 4   new    first second joining
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atoll_antientropy::{Actor, Context, Event, State};
use atoll_ring::{Command, Entry, Epoch, NodeId, Token, View, Wish};
use atoll_wire::{
    Ack, Effect, Envelope, ErrorCode, Failure, Fetch, Get, Lane, Outcome, Repair, Replicate, Reply,
    Request, Role,
};
use bytes::Bytes;

use crate::cluster::{
    Cluster, DEFAULT, SYNC, With, blind, lines, r, sloppy_w, texts, unknown, values, w,
};

/// A cluster of four with one key whose partition moves, and the views of it.
pub(crate) struct Moving {
    pub(crate) cluster: Cluster,
    pub(crate) first: NodeId,
    pub(crate) second: NodeId,
    pub(crate) leaving: NodeId,
    pub(crate) joining: NodeId,
    pub(crate) joint: View,
    pub(crate) new: View,
}

const OLD: Epoch = Epoch(1);
const JOINT: Epoch = Epoch(3);
const NEW: Epoch = Epoch(4);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Moving {
    pub(crate) async fn start() -> Moving {
        Moving::of(Cluster::start(4).await)
    }

    fn of(cluster: Cluster) -> Moving {
        let owners = cluster.owners("k");
        let joining = cluster.not_owner("k");
        let old = cluster.view.clone();
        let partition = old.partition(Token::of(&cluster.bucket().0, b"k"));
        let next = |view: &View, command| {
            let entry = Entry { epoch: Epoch(view.epoch().0 + 1), at_ms: 0, command };
            view.apply(&entry).expect("it fits")
        };
        let moves = BTreeMap::from([(partition, vec![owners[0], owners[1], joining])]);
        let base = old.epoch();
        let wanted = next(&old, Command::Change { base, wish: Wish::Rebalance, moves });
        let joint = next(&wanted, Command::Begin { partitions: vec![partition] });
        let new = next(&joint, Command::Finish { partitions: vec![(partition, joint.epoch())] });
        assert_eq!((old.epoch(), joint.epoch(), new.epoch()), (OLD, JOINT, NEW));
        let (first, second, leaving) = (owners[0], owners[1], owners[2]);
        Moving { cluster, first, second, leaving, joining, joint, new }
    }

    /// These nodes have the view when this returns.
    pub(crate) async fn tell(&self, nodes: &[NodeId], view: &View) {
        for node in nodes {
            self.cluster.node(*node).adopt(view.clone(), &[], Vec::new()).await.expect("memory");
        }
    }

    pub(crate) fn everybody(&self) -> [NodeId; 4] {
        [self.first, self.second, self.leaving, self.joining]
    }

    pub(crate) fn values_at(&self, node: NodeId) -> Vec<String> {
        texts(&self.cluster.state(node, "k").unwrap_or_else(unknown))
    }

    /// Events of the key that a node knows.
    pub(crate) fn events_at(&self, node: NodeId) -> u64 {
        let state = self.cluster.state(node, "k").unwrap_or_else(unknown);
        state.context().iter().map(|known| known.hi - known.lo).sum()
    }

    /// Nothing passes between two nodes, one way.
    fn cut(&self, from: NodeId, to: NodeId) {
        self.cluster.network.cut(from, to);
    }

    /// What a node answers to another that has planned with this epoch.
    async fn ask(
        &self,
        from: NodeId,
        to: NodeId,
        planned: Epoch,
        request: Request,
    ) -> Result<Reply, Failure> {
        let (bucket, role) = (self.cluster.bucket(), Role::Node);
        let envelope =
            Envelope { epoch: planned, left_ms: 1000, operation: 1, bucket, trace: false, role };
        let call = self.cluster.network.port(from).call(to, Lane::Request, envelope, request);
        match call.await.expect("it is up") {
            (_, Reply::Failed(failure)) => Err(*failure),
            (_, reply) => Ok(reply),
        }
    }
}

/// A state of the key as some other node made it.
fn state(value: &str) -> State {
    let actor = Actor { node: 77, incarnation: 0 };
    State::put(&Context::new(), Event { actor, after: 0, counter: 1 }, value.to_owned().into())
}

fn replicate(hint_for: Option<NodeId>) -> Request {
    let (key, ack) = (Bytes::from_static(b"k"), Ack::Durable);
    let hint_for = hint_for.map(|owner| owner.0);
    Request::Replicate(Replicate { key, ack, hint_for, state: state("theirs").encode().into() })
}

fn fetch(durable: bool, hints: bool) -> Request {
    Request::Fetch(Fetch { key: Bytes::from_static(b"k"), durable, hints })
}

fn code(answer: Result<Reply, Failure>) -> Option<ErrorCode> {
    answer.err().map(|failure| failure.code)
}

/// A replica that knows of the change refuses everything that was planned before it, and whoever has no plan at all.
#[tokio::test(start_paused = true)]
async fn what_was_planned_before_the_change_is_refused() {
    let Moving { first, second, leaving, joining, .. } = Moving::start().await;
    let requests = [
        (leaving, replicate(None)),
        (joining, replicate(None)),
        (second, fetch(false, false)),
        (second, fetch(true, false)),
        (leaving, replicate(Some(second))),
        (second, fetch(false, true)),
    ];
    for (to, request) in requests {
        let moving = Moving::start().await;
        moving.tell(&moving.everybody(), &moving.joint).await;
        for planned in [Epoch(0), OLD, Epoch(2)] {
            let answer = moving.ask(first, to, planned, request.clone()).await;
            let failure = answer.expect_err("it is stale");
            assert_eq!(failure.code, ErrorCode::StaleView, "{request:?} of {planned}");
            assert_eq!(failure.effect, Effect::NotApplied, "{request:?} of {planned}");
        }
        assert_eq!(moving.cluster.on_disk(to, "k"), None, "{request:?}");
        assert_eq!(code(moving.ask(first, to, JOINT, request).await), None);
    }
}

/// A node that does not own the partition, not yet or no more, begins no row of it and gives no not-found; it may still
/// stand in for an owner.
#[tokio::test(start_paused = true)]
async fn who_is_no_owner_keeps_no_row() {
    let moving = Moving::start().await;
    let Moving { first, leaving, joining, .. } = moving;
    let check = async |node: NodeId, planned| {
        for request in [replicate(None), fetch(false, false), fetch(true, false)] {
            let answer = moving.ask(first, node, planned, request).await;
            assert_eq!(code(answer), Some(ErrorCode::StaleView), "{node} at {planned}");
        }
        assert_eq!(moving.cluster.on_disk(node, "k"), None, "{node} at {planned}");
        let stands_in = moving.ask(first, node, planned, replicate(Some(first))).await;
        assert_eq!(code(stands_in), None, "{node} at {planned}");
    };
    check(joining, OLD).await;
    moving.tell(&moving.everybody(), &moving.new).await;
    check(leaving, NEW).await;
    let other = moving.ask(first, leaving, NEW, replicate(Some(leaving))).await;
    assert_eq!(code(other), Some(ErrorCode::Malformed), "nobody stands in for who is no owner");
}

/// Whoever is asked in a plan of a newer view, and does not own the key in its own, learns the view before it answers.
#[tokio::test(start_paused = true)]
async fn who_is_behind_learns_the_view_first() {
    let moving = Moving::start().await;
    let Moving { first, leaving, joining, .. } = moving;
    moving.cut(joining, leaving); // or the one who joins would ask it for what it holds
    moving.cut(first, leaving); // or a ping would tell it
    moving.tell(&[first], &moving.joint).await;
    assert_eq!(moving.cluster.node(joining).view().epoch(), OLD);
    assert_eq!(code(moving.ask(first, joining, JOINT, replicate(None)).await), None);
    assert_eq!(moving.values_at(joining), ["theirs"]);
    assert_eq!(moving.cluster.node(leaving).view().epoch(), OLD, "nobody has told it");
    moving.cluster.network.mend(first, leaving);
    let hint = moving.ask(first, leaving, JOINT, replicate(Some(joining))).await;
    assert_eq!(code(hint), None, "its view has no such owner");

    // and if it cannot learn it, it refuses in time: n1 is asked in vain
    let moving = Moving::start().await;
    moving.cut(moving.joining, moving.first);
    let start = tokio::time::Instant::now();
    let answer = moving.ask(moving.second, moving.joining, JOINT, replicate(None)).await;
    assert_eq!(code(answer), Some(ErrorCode::StaleView));
    assert!(start.elapsed() < ms(600), "{:?}", start.elapsed());
    assert_eq!(moving.cluster.on_disk(moving.joining, "k"), None);
}

/// A replica adopts a view while its disk still writes what was planned before. It says so instead of "stored".
#[tokio::test(start_paused = true)]
async fn a_view_that_comes_during_the_fsync_counts() {
    for request in [replicate(None), fetch(true, false)] {
        let mut moving = Moving::start().await;
        let second = moving.second;
        moving.cluster.crash(second);
        moving.cluster.boot_slow(second, ms(100)).await;
        moving.cluster.settle().await;
        let (node, joint) = (moving.cluster.node(second).clone(), moving.joint.clone());
        let adopted = tokio::spawn(async move { node.adopt(joint, &[], Vec::new()).await });
        tokio::time::sleep(ms(10)).await; // the disk writes the view, and whatever comes now is next
        if let Request::Fetch(_) = request {
            let behind = moving.ask(moving.first, second, OLD, replicate(None));
            tokio::time::timeout(ms(1), behind).await.expect_err("it is in the queue");
        }
        let failure = moving.ask(moving.first, second, OLD, request).await.expect_err("stale");
        adopted.await.expect("it ends").expect("memory");
        assert_eq!(failure.code, ErrorCode::StaleView);
        assert_eq!(failure.effect, Effect::Unknown, "it may well be there");
        assert_eq!(moving.values_at(second), ["theirs"]);
    }
}

/// A replica sleeps over its answer. Awake again it finds the time of the request over, and says that instead of "stored".
#[tokio::test(start_paused = true)]
async fn who_wakes_too_late_does_not_say_stored() {
    for request in [replicate(None), fetch(true, false)] {
        let mut moving = Moving::start().await;
        let second = moving.second;
        moving.cluster.crash(second);
        moving.cluster.boot_slow(second, ms(100)).await;
        moving.cluster.settle().await;
        if let Request::Fetch(_) = request {
            let before = moving.ask(moving.first, second, OLD, replicate(None));
            tokio::time::timeout(ms(1), before).await.expect_err("it is in the queue");
        }
        let network = moving.cluster.network.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ms(50)).await;
            network.pause(second);
            tokio::time::sleep(ms(2000)).await;
            network.wake(second);
        });
        let failure = moving.ask(moving.first, second, OLD, request).await.expect_err("late");
        assert_eq!(failure.code, ErrorCode::DeadlinePassed);
        assert_eq!(failure.effect, Effect::Unknown);
    }
}

/// A coordinator that has not heard of the move, and a leaving owner that has promised to take part in nothing older. Its
/// acknowledgement would be one of two. The coordinator hears "stale view", learns the view and wins among both sets; the
/// change keeps the one event that it has.
#[tokio::test(start_paused = true)]
async fn a_stale_coordinator_meets_the_fence_of_the_leaving_owner() {
    let mut moving = Moving::start().await;
    let Moving { first, second, leaving, joining, .. } = moving;
    moving.cluster.crash(second);
    moving.cluster.settle().await;
    moving.tell(&[leaving], &moving.joint).await;
    assert_eq!(moving.cluster.node(first).view().epoch(), OLD);
    let stored = moving.cluster.put(first, "k", "v", &blind(), &w(2)).await.expect("it learns");
    assert_eq!(stored.receipt.epoch, JOINT);
    let acked = |node| (node, None, Outcome::Durable);
    let lines = lines(&stored.receipt);
    for node in [first, leaving, joining] {
        assert!(lines.contains(&acked(node)), "{lines:?}");
        assert_eq!((moving.values_at(node), moving.events_at(node)), (vec!["v".into()], 1));
    }
    assert_eq!(lines.len(), 4, "every owner once");
    let found = moving.cluster.get(first, "k", &r(2)).await.expect("both sets");
    assert_eq!((values(&found), found.receipt.epoch), (vec!["v".into()], JOINT));
}

/// The same for a read: what the leaving owner would answer to an old plan does not count.
#[tokio::test(start_paused = true)]
async fn a_stale_reader_begins_again() {
    let mut moving = Moving::start().await;
    let Moving { first, second, leaving, .. } = moving;
    moving.cluster.put(first, "k", "v", &blind(), &w(3)).await.expect("up");
    moving.cluster.crash(second);
    moving.cluster.settle().await;
    moving.tell(&[leaving], &moving.joint).await;
    let found = moving.cluster.get(first, "k", &r(2)).await.expect("it learns");
    assert_eq!((values(&found), found.receipt.epoch), (vec!["v".into()], JOINT));
    assert_eq!(lines(&found.receipt).len(), 4);
}

/// The leaving owner admits a put while it owns the key, and waits for counters. Meanwhile the move is over. Its own step is
/// fenced like anybody's: it makes no event and no row, and an owner coordinates.
#[tokio::test(start_paused = true)]
async fn the_own_step_is_fenced() {
    let mut moving = Moving::start().await;
    let Moving { first, second, leaving, joining, .. } = moving;
    moving.cluster.crash(leaving);
    moving.cluster.boot_slow(leaving, ms(100)).await;
    moving.cluster.settle().await;
    moving.tell(&[first, second, joining], &moving.new).await;
    let (node, new) = (moving.cluster.node(leaving).clone(), moving.new.clone());
    let adopted = tokio::spawn(async move { node.adopt(new, &[], Vec::new()).await });
    tokio::time::sleep(ms(10)).await; // the disk writes the view; the counters come after it
    assert_eq!(moving.cluster.node(leaving).view().epoch(), OLD, "it admits the put as an owner");
    let stored = moving.cluster.put(leaving, "k", "v", &blind(), &w(2)).await.expect("by others");
    adopted.await.expect("it ends").expect("memory");
    assert_eq!(stored.receipt.epoch, NEW);
    assert_ne!(stored.receipt.coordinator, leaving.0);
    assert_eq!(moving.cluster.on_disk(leaving, "k"), None);
    assert_eq!(lines(&stored.receipt).iter().map(|line| line.0).max(), Some(NodeId(4)));
}

/// A write is on its way when the partition becomes joint, and again when the move is over. It is acknowledged when the
/// owners of the present view have it, whoever had it before.
#[tokio::test(start_paused = true)]
async fn a_write_in_flight_needs_the_present_owners() {
    for (via_leaving, before, during, epoch) in [
        (false, None, JOINT, JOINT),
        (false, Some(JOINT), NEW, NEW),
        (false, None, NEW, NEW),
        (true, None, JOINT, JOINT),
        (true, Some(JOINT), NEW, NEW),
        (true, None, NEW, NEW),
    ] {
        let moving = Moving::start().await;
        let Moving { first, second, leaving, joining, .. } = moving;
        let via = if via_leaving { leaving } else { first };
        let view = |epoch| if epoch == JOINT { &moving.joint } else { &moving.new };
        if let Some(before) = before {
            moving.tell(&moving.everybody(), view(before)).await;
        }
        for other in moving.everybody() {
            moving.cluster.network.slow(via, other, ms(20));
        }
        let client = moving.cluster.client();
        let put = tokio::spawn(async move { client.put(via, "k", "v", &blind(), &w(3)).await });
        tokio::time::sleep(ms(10)).await;
        moving.tell(&moving.everybody(), view(during)).await;
        let stored = put.await.expect("it ends").expect("all are up");
        assert_eq!(stored.receipt.epoch, epoch);
        for node in [first, second, joining] {
            assert_eq!((moving.values_at(node), moving.events_at(node)), (vec!["v".into()], 1));
            assert!(lines(&stored.receipt).contains(&(node, None, Outcome::Durable)));
        }
        let mut asked: Vec<NodeId> = lines(&stored.receipt).iter().map(|line| line.0).collect();
        asked.sort();
        let mut owners = vec![first, second, joining];
        owners.extend((epoch == JOINT).then_some(leaving));
        owners.sort();
        assert_eq!(asked, owners, "every owner once, and nobody else");
    }
}

/// All who were asked have acknowledged, and the view changes before the client has heard it: that is too late for the old
/// plan. Nobody but the coordinator knows of the change, so only its own look at the clock can tell.
#[tokio::test(start_paused = true)]
async fn acknowledgements_are_counted_against_the_view_at_reply_time() {
    let moving = Moving::start().await;
    let Moving { first, second, leaving, joining, .. } = moving;
    for other in [second, leaving] {
        moving.cluster.network.slow(other, first, ms(20)); // they have it, and their answers are on the way
    }
    let client = moving.cluster.client();
    let put = tokio::spawn(async move { client.put(first, "k", "v", &blind(), &w(2)).await });
    tokio::time::sleep(ms(10)).await;
    moving.tell(&[first], &moving.joint).await;
    moving.cut(first, joining);
    moving.cut(first, second);
    let failure = put.await.expect("it ends").expect_err("one of the new owners is not enough");
    assert_eq!((failure.code, failure.got), (ErrorCode::DeadlinePassed, 1));
    assert_eq!(failure.receipt.expect("a receipt").epoch, JOINT);
    assert!(failure.effect != Effect::NotApplied);
    assert!(failure.detail.contains("among its new ones"), "{}", failure.detail);
}

/// A coordinator makes its event, is paused, and wakes two epochs later as no owner. What it has sent before is refused; it
/// sends the same event to the owners of today, and its own copy is none of the three.
#[tokio::test(start_paused = true)]
async fn a_coordinator_wakes_after_two_epochs() {
    let moving = Moving::start().await;
    let Moving { first, second, leaving, joining, .. } = moving;
    for other in [first, second] {
        moving.cluster.network.slow(leaving, other, ms(20));
    }
    let client = moving.cluster.client();
    let with = With { timeout_ms: 4000, ..w(3) };
    let put = tokio::spawn(async move { client.put(leaving, "k", "v", &blind(), &with).await });
    tokio::time::sleep(ms(10)).await;
    moving.cluster.network.pause(leaving);
    moving.tell(&[first, second, joining], &moving.joint).await;
    moving.tell(&[first, second, joining], &moving.new).await;
    tokio::time::sleep(ms(500)).await;
    assert_eq!(moving.values_at(first), [""; 0], "it came after the change");
    moving.cluster.network.wake(leaving);
    let stored = put.await.expect("it ends").expect("it plans anew");
    assert_eq!(stored.receipt.epoch, NEW);
    for node in [first, second, joining] {
        assert_eq!((moving.values_at(node), moving.events_at(node)), (vec!["v".into()], 1));
    }
    assert!(lines(&stored.receipt).iter().all(|line| line.0 != leaving));
}

/// A fallback coordinates for owners that are away, and becomes an owner before its own step is on stable storage. Then its
/// acknowledgement is that of an owner, so it holds the key as one.
#[tokio::test(start_paused = true)]
async fn a_fallback_that_becomes_an_owner_holds_the_key() {
    let mut moving = Moving::start().await;
    let Moving { first, second, leaving, joining, .. } = moving;
    moving.cluster.crash_all(&[first, second, leaving, joining]);
    moving.cluster.boot_slow(joining, ms(100)).await;
    moving.cluster.settle().await;
    let with = sloppy_w(1);
    let first_put = moving.cluster.put(joining, "k", "1", &blind(), &with).await.expect("a hint");
    assert_eq!(moving.values_at(joining), [""; 0]);
    moving.cluster.settle().await;
    let (node, new) = (moving.cluster.node(joining).clone(), moving.new.clone());
    let adopted = tokio::spawn(async move { node.adopt(new, &[], Vec::new()).await });
    tokio::time::sleep(ms(10)).await; // the disk writes the view; the second put comes after it
    let context = first_put.context;
    let stored = moving.cluster.put(joining, "k", "2", &context, &with).await.expect("one owner");
    adopted.await.expect("it ends").expect("memory");
    assert_eq!(stored.receipt.epoch, NEW);
    assert!(lines(&stored.receipt).contains(&(joining, None, Outcome::Durable)));
    assert_eq!(moving.values_at(joining), ["2"]);
}

/// A joining owner that holds nothing says "not found", and that counts among the new owners only.
#[tokio::test(start_paused = true)]
async fn a_reader_in_joint_hears_both_sets() {
    let mut moving = Moving::start().await;
    let Moving { first, second, leaving, joining, .. } = moving;
    moving.cluster.put(first, "k", "v", &blind(), &w(3)).await.expect("up");
    moving.tell(&moving.everybody(), &moving.joint).await;
    for via in moving.everybody() {
        for n in [1, 2, 3] {
            let found = moving.cluster.get(via, "k", &r(n)).await.expect("all are up");
            assert_eq!((values(&found), found.receipt.epoch), (vec!["v".into()], JOINT));
        }
    }
    let found = moving.cluster.get(first, "k", &r(2)).await.expect("up");
    let asked = |line: &&(NodeId, Option<NodeId>, Outcome)| line.2 != Outcome::NotAsked;
    let asked: Vec<NodeId> =
        lines(&found.receipt).iter().filter(asked).map(|line| line.0).collect();
    assert_eq!(asked, [first, second], "who is in both sets counts in both");

    moving.cluster.crash(first);
    moving.cluster.settle().await;
    let found = moving.cluster.get(joining, "k", &r(2)).await.expect("two in each");
    assert_eq!(values(&found), ["v"]);
    moving.cluster.crash(second);
    moving.cluster.settle().await;
    let failure = moving.cluster.get(joining, "k", &r(2)).await.expect_err("one in each");
    assert_eq!(failure.code, ErrorCode::ReadQuorumNotMet);
    moving.cluster.crash(leaving);
    moving.cluster.settle().await;
    let failure = moving.cluster.get(joining, "k", &r(1)).await.expect_err("no old owner");
    assert_eq!((failure.code, failure.got), (ErrorCode::ReadQuorumNotMet, 0));
}

/// An owner that has become slow is replaced in both sets: by an old owner in one, by a new one in the other.
#[tokio::test(start_paused = true)]
async fn a_silent_owner_is_replaced_in_both_sets() {
    let moving = Moving::start().await;
    let Moving { first, second, .. } = moving;
    moving.cluster.put(first, "k", "v", &blind(), &w(3)).await.expect("up");
    moving.tell(&moving.everybody(), &moving.joint).await;
    moving.cluster.get(first, "k", &With { repair: Repair::Blocking, ..r(3) }).await.expect("up");
    moving.cut(first, second);
    let start = tokio::time::Instant::now();
    let found = moving.cluster.get(first, "k", &r(2)).await.expect("two in each");
    assert_eq!(values(&found), ["v"]);
    assert!(start.elapsed() < ms(300), "one patience, not two: {:?}", start.elapsed());
}

/// Acknowledgements of a joining owner do not make up for those of old owners, nor the other way round.
#[tokio::test(start_paused = true)]
async fn a_write_in_joint_needs_both_sets() {
    let check = async |away: fn(&Moving) -> Vec<NodeId>, enough: bool| {
        let moving = Moving::start().await;
        moving.tell(&moving.everybody(), &moving.joint).await;
        for node in away(&moving) {
            moving.cut(moving.first, node);
        }
        let stored = moving.cluster.put(moving.first, "k", "v", &blind(), &w(2)).await;
        match stored {
            Ok(stored) => assert!(enough, "{:?}", lines(&stored.receipt)),
            Err(failure) => {
                assert!(!enough, "{failure}");
                assert_eq!((failure.code, failure.got), (ErrorCode::DeadlinePassed, 1));
                assert_eq!(failure.effect, Effect::Applied(2));
            }
        }
    };
    check(|of| vec![of.second, of.leaving], false).await;
    check(|of| vec![of.second, of.joining], false).await;
    check(|of| vec![of.leaving, of.joining], true).await;
    check(|of| vec![of.second], true).await;
}

/// A fallback fills the seat of an owner in each set that the owner is in.
#[tokio::test(start_paused = true)]
async fn a_fallback_stands_in_for_an_owner_of_both_sets() {
    let mut moving = Moving::of(Cluster::start(5).await);
    let Moving { first, second, leaving, joining, .. } = moving;
    moving.tell(&[first, second, leaving, joining, NodeId(5)], &moving.joint).await;
    let fallback = (1..=5).map(NodeId).find(|node| !moving.everybody().contains(node));
    moving.cluster.crash_all(&[second]);
    moving.cluster.settle().await;
    let stored =
        moving.cluster.put(first, "k", "v", &blind(), &sloppy_w(3)).await.expect("3 and 3");
    let line = (fallback.expect("one of five"), Some(second), Outcome::Durable);
    assert!(lines(&stored.receipt).contains(&line), "{:?}", lines(&stored.receipt));
    assert_eq!(stored.receipt.hinted, [second.0]);
}

/// With `repair=blocking` a read answers when any later read of as many meets what it found: in the old set and in the new.
#[tokio::test(start_paused = true)]
async fn a_blocking_read_makes_sure_in_both_sets() {
    for n in [1, 2, 3] {
        let moving = Moving::start().await;
        let Moving { first, second, leaving, joining, .. } = moving;
        for other in [second, leaving] {
            moving.cut(first, other);
        }
        moving.cluster.put(first, "k", "v", &blind(), &w(1)).await.expect("one");
        moving.cluster.network.mend_all();
        moving.tell(&moving.everybody(), &moving.joint).await;
        let with = With { repair: Repair::Blocking, ..r(n) };
        let found = moving.cluster.get(first, "k", &with).await.expect("all are up");
        assert_eq!(values(&found), ["v"]);
        let holders = |set: [NodeId; 3]| {
            set.into_iter().filter(|node| moving.values_at(*node) == ["v"]).count()
        };
        let sure = usize::from(n.max(4 - n));
        assert!(holders([first, second, leaving]) >= sure, "r = {n}, old");
        assert!(holders([first, second, joining]) >= sure, "r = {n}, new");
    }
}

/// A reader that believes the partition joint, when the move is over: one owner it asks knows better, and what was written
/// among the new owners only is found.
#[tokio::test(start_paused = true)]
async fn a_reader_in_joint_meets_the_fence_of_the_new_owners() {
    let moving = Moving::start().await;
    let Moving { first, second, leaving, joining, .. } = moving;
    moving.tell(&moving.everybody(), &moving.joint).await;
    moving.tell(&[second, joining], &moving.new).await;
    for node in [second, joining] {
        moving.cut(node, first);
        moving.cut(node, leaving);
    }
    moving.cluster.put(joining, "k", "v", &blind(), &w(2)).await.expect("two of the new");
    moving.cluster.network.mend_all();
    assert_eq!(moving.cluster.node(first).view().epoch(), JOINT);
    let found = moving.cluster.get(first, "k", &r(2)).await.expect("it learns");
    assert_eq!((values(&found), found.receipt.epoch), (vec!["v".into()], NEW));
}

/// A node that does not own the key gives a write to an owner that stays, also when one that leaves is nearer.
#[tokio::test(start_paused = true)]
async fn a_write_is_handed_to_an_owner_that_stays() {
    let moving = Moving::of(Cluster::start(5).await);
    let via = moving.cluster.fallbacks("k").into_iter().find(|node| *node != moving.joining);
    let via = via.expect("five nodes");
    for stays in [moving.first, moving.second] {
        moving.cluster.network.slow(stays, via, ms(3));
    }
    moving.cluster.settle().await;
    for epoch in [OLD, JOINT] {
        if epoch == JOINT {
            moving.tell(&moving.everybody(), &moving.joint).await;
            moving.tell(&[via], &moving.joint).await;
        }
        let stored = moving.cluster.put(via, "k", "v", &blind(), &w(2)).await.expect("up");
        let leaves = stored.receipt.coordinator == moving.leaving.0;
        assert_eq!(leaves, epoch == OLD, "the nearest, unless it leaves");
    }
}

/// Clients leave the planning to the nodes: whatever view they have, or none, they are served.
#[tokio::test(start_paused = true)]
async fn clients_with_an_old_view_are_served() {
    let moving = Moving::start().await;
    for view in [&moving.joint, &moving.new] {
        moving.tell(&moving.everybody(), view).await;
        for via in moving.everybody() {
            let stored = moving.cluster.put(via, "k", "v", &blind(), &DEFAULT).await;
            assert_eq!(stored.expect("planned here").receipt.epoch, view.epoch());
            for epoch in [Epoch(0), OLD, Epoch(99)] {
                let (bucket, role) = (moving.cluster.bucket(), Role::Client);
                let envelope =
                    Envelope { epoch, left_ms: 1000, operation: 1, bucket, trace: false, role };
                let (key, quorum) = (Bytes::from_static(b"k"), Default::default());
                let get = Request::Get(Get { key, session: None, quorum, repair: Repair::Async });
                let port = moving.cluster.network.port(NodeId(98));
                let (_, reply) = port.call(via, Lane::Request, envelope, get).await.expect("up");
                let Reply::Found(found) = reply else { panic!("{reply:?}") };
                assert_eq!(found.receipt.epoch, view.epoch());
            }
        }
    }
}

/// Changes of other partitions disturb nobody: an old plan is good as long as its own partition has not changed.
#[tokio::test(start_paused = true)]
async fn changes_of_other_partitions_refuse_nothing() {
    let moving = Moving::start().await;
    let cluster = &moving.cluster;
    let elsewhere = (0..).map(|number| format!("other{number}"));
    let row = |key: &str| cluster.row(key)[..2].to_vec();
    let mut elsewhere = elsewhere.filter(|key| row(key) != row("k"));
    let key = elsewhere.find(|key| cluster.owners(key).contains(&moving.leaving)).expect("one");
    moving.tell(&[moving.leaving], &moving.new).await;
    let fetch = Fetch { key: key.clone().into(), durable: false, hints: false };
    let answer = moving.ask(moving.first, moving.leaving, OLD, Request::Fetch(fetch)).await;
    assert_eq!(code(answer), None);
    tokio::time::sleep(SYNC).await;
    let stored = cluster.put(moving.leaving, &key, "v", &blind(), &w(3)).await.expect("up");
    assert_eq!(stored.receipt.epoch, NEW);
}

/// The view is what all share; these tests only make sense if it is as drawn above.
#[tokio::test(start_paused = true)]
async fn the_views_are_as_drawn() {
    let moving = Moving::start().await;
    let partition = moving.new.partition(Token::of(&moving.cluster.bucket().0, b"k"));
    let Moving { first, second, leaving, joining, .. } = moving;
    let view: &Arc<View> = &moving.cluster.view;
    assert_eq!(view.owners(partition).all(), [first, second, leaving]);
    assert_eq!(moving.joint.owners(partition).all(), [first, second, leaving, joining]);
    assert_eq!(moving.new.owners(partition).all(), [first, second, joining]);
}
