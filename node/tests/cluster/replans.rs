//! A partition that changes again and again under one request. The request is planned four times; then it gives up, and
//! says how far it came.
//!
//! Everybody is told the next view while what was sent in the last plan is on its way, so that all of it is refused:
//!
//! ```text
//!   ms    0        50       100       150       200   ...
//!   plan  1 ────── joint ─▶ 2 ─────── new ────▶ 3     ...
//! ```

use std::{collections::BTreeMap, time::Duration};

use atoll_ring::{Command, Entry, Epoch, NodeId, Token, View, Wish};
use atoll_wire::{Effect, ErrorCode};
use tokio::time::Instant;

use crate::{
    cluster::{With, blind, r, values, w},
    fencing::Moving,
};

/// How long what the coordinator sends is on its way.
const WAY: Duration = Duration::from_millis(100);

/// Enough for more plans than a request may have.
const TIMEOUT_MS: u32 = 4000;

/// How often a request may be planned.
const PLANS: usize = 4;

/// The views in which the partition changes: it moves to the joining owner, back to the leaving one, and so on.
fn changes(moving: &Moving, count: usize) -> Vec<View> {
    let Moving { first, second, leaving, joining, .. } = moving;
    let partition = moving.new.partition(Token::of(&moving.cluster.bucket().0, b"k"));
    let next = |view: &View, command| {
        let entry = Entry { epoch: Epoch(view.epoch().0 + 1), at_ms: 0, command };
        view.apply(&entry).expect("it fits")
    };
    let mut views = vec![moving.joint.clone(), moving.new.clone()];
    for last in [leaving, joining] {
        let view = &views[views.len() - 1];
        let moves = BTreeMap::from([(partition, vec![*first, *second, *last])]);
        let base = view.epoch();
        let wanted = next(view, Command::Change { base, wish: Wish::Rebalance, moves });
        let joint = next(&wanted, Command::Begin { partitions: vec![partition] });
        let finish = Command::Finish { partitions: vec![(partition, joint.epoch())] };
        views.extend([joint.clone(), next(&joint, finish)]);
    }
    views.truncate(count);
    views
}

/// Tells these nodes one view after the other, each while a plan is on its way.
async fn tell_in_turn(moving: &Moving, nodes: &[NodeId], views: &[View]) {
    let start = Instant::now();
    for (number, view) in (0..).zip(views) {
        tokio::time::sleep_until(start + WAY / 2 + number * WAY).await;
        moving.tell(nodes, view).await;
    }
}

/// Nodes that hold the value.
fn holders(moving: &Moving) -> usize {
    moving.everybody().into_iter().filter(|node| moving.values_at(*node) == ["v"]).count()
}

/// Three changes leave a fourth plan, and that one is carried out. After a fourth change the write says "stale view", and
/// on how many owners it is for certain: on the coordinator alone, for all others have refused every plan. Either way
/// there is one event, however often it was planned, and in the end every owner has it: whoever has refused the last plan
/// gets a hint. (It got none when all had refused before the client had its answer, and only a comparison would have
/// brought it the write.)
#[tokio::test(start_paused = true)]
async fn a_write_is_planned_four_times() {
    for count in [PLANS - 1, PLANS] {
        let moving = Moving::start().await;
        let first = moving.first;
        for other in moving.everybody() {
            moving.cluster.network.slow(first, other, WAY);
        }
        let views = changes(&moving, count);
        let client = moving.cluster.client();
        let with = With { timeout_ms: TIMEOUT_MS, ..w(3) };
        let put = tokio::spawn(async move { client.put(first, "k", "v", &blind(), &with).await });
        tell_in_turn(&moving, &moving.everybody(), &views).await;
        let last = views.last().expect("some");
        match put.await.expect("it ends") {
            Ok(stored) => {
                assert_eq!((count, stored.receipt.epoch), (PLANS - 1, last.epoch()));
            }
            Err(failure) => {
                assert_eq!((count, failure.code), (PLANS, ErrorCode::StaleView), "{failure}");
                assert_eq!((failure.effect, holders(&moving)), (Effect::Applied(1), 1));
                assert!(failure.detail.contains("at most 4 times"), "{}", failure.detail);
                assert!(failure.receipt.is_some() && failure.retry_after_ms > 0);
            }
        }
        moving.cluster.heal();
        tokio::time::sleep(Duration::from_secs(10)).await; // whoever missed it gets a hint
        let partition = last.partition(Token::of(&moving.cluster.bucket().0, b"k"));
        for owner in last.owners(partition).all() {
            let held = (moving.values_at(owner), moving.events_at(owner));
            assert_eq!(held, (vec!["v".to_owned()], 1), "{owner} after {count} changes");
        }
    }
}

/// The same where every owner has the write from the first plan on and says so, and only the coordinator hears of the
/// changes, each time just before the answers. What it says of the effect is never more than is true.
#[tokio::test(start_paused = true)]
async fn a_write_in_vain_says_no_more_than_is_true() {
    let mut moving = Moving::start().await;
    let first = moving.first;
    for other in moving.everybody() {
        moving.cluster.network.slow(other, first, WAY);
    }
    let views = changes(&moving, PLANS);
    let client = moving.cluster.client();
    let with = With { timeout_ms: TIMEOUT_MS, ..w(3) };
    let put = tokio::spawn(async move { client.put(first, "k", "v", &blind(), &with).await });
    tell_in_turn(&moving, &[first], &views).await;
    let failure = put.await.expect("it ends").expect_err("it changes under each plan");
    assert_eq!(failure.code, ErrorCode::StaleView, "{failure}");
    let Effect::Applied(said) = failure.effect else { panic!("{:?}", failure.effect) };
    assert!(said > 1, "others have answered to the last plan");
    moving.cluster.crash_all(&moving.everybody());
    assert!(usize::from(said) <= holders(&moving), "{said} of {}", holders(&moving));
    assert!(moving.everybody().into_iter().all(|node| moving.events_at(node) <= 1));
}

/// A read is planned four times, too. In vain it has changed nothing.
#[tokio::test(start_paused = true)]
async fn a_read_is_planned_four_times() {
    for count in [PLANS - 1, PLANS] {
        let moving = Moving::start().await;
        let first = moving.first;
        moving.cluster.put(first, "k", "v", &blind(), &w(3)).await.expect("all are up");
        for other in moving.everybody() {
            moving.cluster.network.slow(first, other, WAY);
        }
        let views = changes(&moving, count);
        let client = moving.cluster.client();
        let with = With { timeout_ms: TIMEOUT_MS, ..r(3) };
        let get = tokio::spawn(async move { client.get(first, "k", &with).await });
        tell_in_turn(&moving, &moving.everybody(), &views).await;
        match get.await.expect("it ends") {
            Ok(found) => {
                let epoch = views.last().expect("some").epoch();
                assert_eq!((count, found.receipt.epoch), (PLANS - 1, epoch));
                assert_eq!(values(&found), ["v"]);
            }
            Err(failure) => {
                assert_eq!((count, failure.code), (PLANS, ErrorCode::StaleView), "{failure}");
                assert_eq!(failure.effect, Effect::NotApplied);
                assert!(failure.detail.contains("at most 4 times"), "{}", failure.detail);
            }
        }
    }
}
