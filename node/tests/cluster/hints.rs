//! What fallbacks keep for owners: bounded, refused rather than dropped, delivered whenever the owner is there, and
//! removed only when an owner has it fsynced.

use std::time::Duration;

use atoll_antientropy::{Actor, Context, Event, State};
use atoll_node::{
    HintLimits,
    storage::{Space, Store as _, Write, record::Record, rows},
};
use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode, Outcome, limits::STATE_TAIL_BYTES_MAX};
use bytes::Bytes;

use crate::cluster::{
    Cluster, SLOPPY, With, blind, lines, r, sloppy_r, sloppy_w, texts, values, w,
};

/// Room for one hint with such a [`value`] and not for two.
const ONE_HINT: HintLimits =
    HintLimits { bytes_per_owner_max: 1500, away_max: Duration::from_secs(24 * 60 * 60) };

fn value() -> String {
    "v".repeat(1000)
}

/// A full fallback does not acknowledge: the next one is asked, and the receipt says so. When all are full the owner's
/// seat stays empty, and when the coordinator has no room either the receipt says that nobody keeps it. What was kept
/// arrives, and then there is room again.
#[tokio::test(start_paused = true)]
async fn a_full_fallback_refuses_and_the_next_is_asked() {
    let mut cluster = Cluster::start_with(5, ONE_HINT).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    let keys = cluster.neighbours("k", 6);
    let (via, away) = (owners[0], owners[2]);
    let kept_by = |node, outcome| (node, Some(away), outcome);
    cluster.crash(away);
    cluster.settle().await;

    let stored = cluster.put(via, &keys[0], &value(), &blind(), &sloppy_w(3)).await.expect("room");
    assert_eq!(lines(&stored.receipt)[3..], [kept_by(fallbacks[0], Outcome::Durable)]);

    let stored = cluster.put(via, &keys[1], &value(), &blind(), &sloppy_w(3)).await.expect("room");
    let expected =
        [kept_by(fallbacks[0], Outcome::HintsFull), kept_by(fallbacks[1], Outcome::Durable)];
    assert_eq!(lines(&stored.receipt)[3..], expected);
    assert_eq!(
        (stored.receipt.hinted.as_slice(), stored.receipt.unhinted.len()),
        (&[away.0][..], 0)
    );

    // a hint at the coordinator is no seat
    let put = cluster.put(via, &keys[2], &value(), &blind(), &sloppy_w(3)).await;
    let failure = put.expect_err("both are full");
    assert_eq!((failure.code, failure.effect), (ErrorCode::WriteQuorumNotMet, Effect::Applied(2)));
    let receipt = failure.receipt.expect("a receipt");
    assert_eq!((receipt.hinted.as_slice(), receipt.unhinted.len()), (&[away.0][..], 0));

    let put = cluster.put(via, &keys[3], &value(), &blind(), &sloppy_w(3)).await;
    let failure = put.expect_err("all are full");
    assert_eq!((failure.got, failure.effect), (2, Effect::Applied(2)));
    let receipt = failure.receipt.expect("a receipt");
    assert_eq!((receipt.hinted.len(), receipt.unhinted.as_slice()), (0, &[away.0][..]));
    let expected =
        [kept_by(fallbacks[0], Outcome::HintsFull), kept_by(fallbacks[1], Outcome::HintsFull)];
    assert_eq!(lines(&receipt)[3..], expected);

    cluster.put(via, &keys[4], &value(), &blind(), &sloppy_w(2)).await.expect("two owners");
    cluster.settle().await;
    for (node, refused) in [(fallbacks[0], 4), (fallbacks[1], 3), (via, 2)] {
        let status = cluster.status(node).await;
        assert_eq!((status.hints, status.hints_refused), (1, refused), "{node}");
        assert!(status.hint_bytes <= ONE_HINT.bytes_per_owner_max, "{node}");
    }

    cluster.boot(away).await;
    cluster.settle().await;
    for key in &keys[..3] {
        assert_eq!(texts(&cluster.state(away, key).expect("hinted")), [value()], "{key}");
    }
    for node in cluster.up() {
        let status = cluster.status(node).await;
        assert_eq!((status.hints, status.hint_bytes), (0, 0), "{node}");
    }
    cluster.crash(away);
    cluster.settle().await;
    let stored = cluster.put(via, &keys[5], &value(), &blind(), &sloppy_w(3)).await.expect("room");
    assert_eq!(lines(&stored.receipt)[3..], [kept_by(fallbacks[0], Outcome::Durable)]);
}

/// A hint that cannot grow past the bound stays what it was: the fallback refuses the second write and still owes the
/// first.
#[tokio::test(start_paused = true)]
async fn a_refused_write_leaves_the_hint_of_an_earlier_one() {
    let mut cluster = Cluster::start_with(4, ONE_HINT).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash(owners[2]);
    cluster.settle().await;
    let first = cluster.put(owners[0], "k", &value(), &blind(), &sloppy_w(3)).await.expect("room");
    let put = cluster.put(owners[0], "k", &value(), &blind(), &sloppy_w(3)).await;
    assert_eq!(put.expect_err("two siblings are too much").got, 2);
    cluster.crash(fallbacks[0]); // the bytes are counted anew
    cluster.boot(fallbacks[0]).await;
    cluster.settle().await;
    let put = cluster.put(owners[0], "k", &value(), &blind(), &sloppy_w(3)).await;
    assert_eq!(put.expect_err("still too much").got, 2);
    cluster.crash_all(&owners[..2]);
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    let state = cluster.state(owners[2], "k").expect("delivered");
    assert_eq!(texts(&state), [value()]);
    let dot = state.values().next().expect("one value").0;
    assert_eq!(dot.counter, first.dot.2);
}

/// The fallback whose turn it is to coordinate may keep nothing more for the first owner. The next one coordinates: a
/// write fails only if all of them are full.
#[tokio::test(start_paused = true)]
async fn a_full_fallback_leaves_the_coordination_to_the_next() {
    let mut cluster = Cluster::start_with(5, ONE_HINT).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    let keys = cluster.neighbours("k", 4);
    cluster.crash_all(&owners);
    cluster.settle().await;
    let one = sloppy_w(1);
    let first = cluster.put(fallbacks[0], &keys[0], &value(), &blind(), &one).await.expect("room");
    assert_eq!(first.receipt.coordinator, fallbacks[0].0);
    let mut context = blind();
    for via in [fallbacks[0], fallbacks[1]] {
        let put = cluster.put(via, &keys[1], &value(), &context, &one).await;
        let stored = put.unwrap_or_else(|failure| panic!("{via}: {failure}"));
        assert_eq!(stored.receipt.coordinator, fallbacks[1].0);
        context = stored.context; // the second takes the place of the first
    }
    let put = cluster.put(fallbacks[0], &keys[2], &value(), &blind(), &one).await;
    let failure = put.expect_err("both are full");
    assert_eq!((failure.code, failure.effect), (ErrorCode::HintsFull, Effect::NotApplied));
}

/// A hint that was held up arrives after everything has been deleted, and once more because its acknowledgement got lost.
/// Nothing comes back.
#[tokio::test(start_paused = true)]
async fn a_late_hint_brings_nothing_back() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    let (away, keeper) = (owners[2], fallbacks[0]);
    cluster.crash(away);
    cluster.settle().await;
    let stored = cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await.expect("up");
    cluster.network.cut(keeper, away);
    cluster.boot(away).await;
    cluster.settle().await;
    let found = cluster.get(owners[1], "k", &r(3)).await.expect("up");
    assert_eq!(values(&found), ["v"]);
    cluster.delete(owners[1], "k", &stored.context, &w(3)).await.expect("up");
    assert!(cluster.hint(keeper, away, "k").is_some());
    let deleted = cluster.state(away, "k").expect("a tombstone");
    cluster.network.cut(away, keeper); // what it answers
    cluster.network.mend(keeper, away);
    cluster.settle().await;
    assert!(cluster.hint(keeper, away, "k").is_some(), "it has heard of no delivery");
    cluster.network.mend(away, keeper);
    for _ in 0..3 {
        cluster.settle().await;
    }
    assert!(cluster.hint(keeper, away, "k").is_none());
    assert_eq!(cluster.state(away, "k"), Some(deleted));
    cluster.assert_whole("k", &[]).await;
}

/// The owner loses power with hints applied and not yet fsynced. No fallback has removed one, and after the next start
/// they arrive; so it goes on, also when it happens again.
#[tokio::test(start_paused = true)]
async fn an_owner_that_crashes_during_the_delivery_misses_nothing() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let away = owners[2];
    let keys = cluster.neighbours("k", 200);
    cluster.crash(away);
    cluster.settle().await;
    for key in &keys {
        cluster.put(owners[0], key, "v", &blind(), &sloppy_w(3)).await.expect("up");
    }
    let mut arrived = 0;
    for life in 0..3 {
        cluster.boot_slow(away, Duration::from_millis(700)).await;
        tokio::time::sleep(Duration::from_millis(1000)).await; // one group is fsynced, the next one applied
        cluster.crash(away);
        let durable = keys.iter().filter(|key| cluster.on_disk(away, key).is_some()).count();
        let kept = usize::try_from(cluster.hints().await).expect("a small number");
        assert!(kept + durable >= keys.len(), "life {life}: {durable} arrived, {kept} are kept");
        assert!(durable > arrived && durable < keys.len(), "in the middle: {durable}");
        arrived = durable;
        cluster.settle().await;
    }
    cluster.boot_slow(away, Duration::from_millis(2)).await;
    cluster.settle().await;
    for key in &keys {
        cluster.assert_whole(key, &["v"]).await;
    }
}

/// The owner goes silent in the middle of a delivery. The rest waits for it and arrives when it can be reached again.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_was_cut_short_goes_on() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let away = owners[2];
    let keys = cluster.neighbours("k", 300);
    cluster.crash(away);
    cluster.settle().await;
    for key in &keys {
        cluster.put(owners[0], key, "v", &blind(), &sloppy_w(3)).await.expect("up");
    }
    cluster.boot_slow(away, Duration::from_millis(150)).await;
    while cluster.hints().await == 300 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cluster.isolate(away);
    cluster.settle().await;
    cluster.settle().await;
    let left = cluster.hints().await;
    assert!((1..300).contains(&left), "{left} are left");
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert_eq!(cluster.hints().await, left);
    cluster.rejoin(away);
    cluster.settle().await;
    cluster.settle().await; // so many at a time, and its disk is slow
    for key in &keys {
        cluster.assert_whole(key, &["v"]).await;
    }
}

/// The owner's records of many keys are damaged, more hints than are on their way at once. All arrive, each in a fresh
/// record; and what the records held before comes from the other owners.
#[tokio::test(start_paused = true)]
async fn a_hint_for_a_damaged_record_arrives() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let mut keys = cluster.neighbours("k", 80);
    keys.sort_by_key(|key| cluster.row(key)); // the order in which hints leave
    for key in &keys {
        cluster.put(owners[0], key, "before", &blind(), &w(3)).await.expect("up");
    }
    cluster.crash(owners[2]);
    cluster.settle().await;
    for key in &keys {
        cluster.put(owners[0], key, "v", &blind(), &sloppy_w(3)).await.expect("up");
    }
    let (damaged, sound) = keys.split_at(70);
    for key in damaged {
        assert!(cluster.store(owners[2]).damage(Space::Data, &cluster.row(key)));
    }
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    for key in sound {
        assert_eq!(texts(&cluster.state(owners[2], key).expect("delivered")), ["before", "v"]);
    }
    let status = cluster.status(owners[2]).await;
    assert_eq!((status.corrupt_records, status.keys_in_doubt), (70, 70));
    for key in &keys {
        cluster.assert_whole(key, &["before", "v"]).await;
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(cluster.status(owners[2]).await.keys_in_doubt, 0);
}

/// One hint has been refused for long, so the pauses between the tries have become long. A hint that is new does not
/// wait for them: its owner is up.
#[tokio::test(start_paused = true)]
async fn a_new_hint_does_not_wait_for_one_that_is_refused() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let keys = cluster.neighbours("k", 2);
    cluster.crash(owners[0]);
    cluster.store(owners[0]).apply(&[unsendable(owners[2], &cluster.row("k"))]).expect("memory");
    cluster.boot(owners[0]).await;
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert_eq!(cluster.hints().await, 1);

    cluster.network.cut(owners[0], owners[2]); // unnoticed, and only for a moment
    let short = With { timeout_ms: 200, ..sloppy_w(3) };
    cluster.put(owners[0], &keys[1], "v", &blind(), &short).await.expect("stood in");
    cluster.network.mend(owners[0], owners[2]);
    cluster.settle().await;
    let arrived = cluster.state(owners[2], &keys[1]).expect("delivered");
    assert_eq!(texts(&arrived), ["v"]);
}

/// A hint that is too large to be sent, which nobody would keep today.
fn unsendable(target: NodeId, data_row: &Bytes) -> Write {
    let event = Event::alone(Actor::new(9, 0), 1);
    let state = State::put(&Context::new(), event, vec![0; STATE_TAIL_BYTES_MAX].into());
    let row = rows::hint(target, data_row);
    let value = Some(Record::encode(&row, None, &state.encode()));
    Write { space: Space::Hints, row, value }
}

/// A damaged hint is not delivered and not deleted: it is counted and set aside. The others arrive, and a write that would
/// join it is kept.
#[tokio::test(start_paused = true)]
async fn a_damaged_hint_is_set_aside_and_holds_up_nobody() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    let keys = cluster.neighbours("k", 3);
    cluster.crash(owners[2]);
    cluster.settle().await;
    for key in &keys {
        cluster.put(owners[0], key, "v", &blind(), &sloppy_w(3)).await.expect("up");
    }
    for key in &keys[..2] {
        let row = rows::hint(owners[2], &cluster.row(key));
        assert!(cluster.store(fallbacks[0]).damage(Space::Hints, &row));
    }
    let found = cluster.get(owners[0], "k", &sloppy_r(3)).await;
    let failure = found.expect_err("a damaged hint is no answer");
    let line = (fallbacks[0], Some(owners[2]), Outcome::Corrupt);
    assert!(lines(&failure.receipt.expect("a receipt")).contains(&line));
    cluster.put(owners[0], "k", "w", &blind(), &sloppy_w(3)).await.expect("a hint of its own");
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    assert_eq!(texts(&cluster.state(owners[2], "k").expect("the second write")), ["w"]);
    assert!(cluster.state(owners[2], &keys[1]).is_none());
    assert_eq!(texts(&cluster.state(owners[2], &keys[2]).expect("delivered")), ["v"]);
    let status = cluster.status(fallbacks[0]).await;
    assert_eq!(status.hints, 0);
    assert!(status.corrupt_records > 0);
    for key in &keys[..2] {
        let aside = rows::damaged(&rows::hint(owners[2], &cluster.row(key)));
        let kept = cluster.store(fallbacks[0]).get(Space::Meta, &aside).expect("memory");
        assert!(kept.is_some(), "{key}");
    }
}

/// The own hint of a fallback that has to coordinate holds bytes that are no state, though their checksum is right. The
/// write goes on.
#[tokio::test(start_paused = true)]
async fn a_hint_that_is_no_state_does_not_stop_its_keeper() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash_all(&owners);
    cluster.crash(fallbacks[0]);
    let row = rows::hint(owners[0], &cluster.row("k"));
    let value = Some(Record::encode(&row, None, b"no state"));
    let write = Write { space: Space::Hints, row, value };
    cluster.store(fallbacks[0]).apply(&[write]).expect("memory");
    cluster.boot(fallbacks[0]).await;
    cluster.settle().await;
    cluster.put(fallbacks[0], "k", "v", &blind(), &SLOPPY).await.expect("fallbacks");
    cluster.boot_all(&owners).await;
    cluster.settle().await;
    assert_eq!(texts(&cluster.state(owners[0], "k").expect("delivered")), ["v"]);
}

/// One owner takes part, so that there are hints for nobody else.
const FIRST_OWNER: With = With { n: Some(1), ..SLOPPY };

/// Owners stay away for longer than hints wait for them. What was kept for them goes to the owner that is there, is on
/// its disk before it is removed, and comes to the others by repair when they return after all.
#[tokio::test(start_paused = true)]
async fn hints_for_an_owner_away_for_long_go_to_the_others() {
    let limits = HintLimits { away_max: Duration::from_secs(60), ..HintLimits::default() };
    let mut cluster = Cluster::start_with(5, limits).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    let keys = cluster.neighbours("k", 20);
    cluster.crash_all(&owners);
    cluster.settle().await;
    for key in &keys {
        let stored = cluster.put(fallbacks[0], key, "v", &blind(), &FIRST_OWNER).await;
        assert_eq!(stored.expect("fallbacks").receipt.hinted, [owners[0].0]);
    }
    let all = keys.len() as u64;
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(cluster.hints().await, all, "nobody is there to take them");
    cluster.crash_all(&fallbacks); // how long somebody was away is not kept
    cluster.boot_all(&fallbacks).await;
    cluster.boot_slow(owners[2], Duration::from_millis(500)).await;
    cluster.settle().await;
    assert_eq!(cluster.hints().await, all, "not yet for long");
    while cluster.hints().await == all {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(1200)).await; // in the middle of it
    cluster.crash(owners[2]);
    let durable = keys.iter().filter(|key| cluster.on_disk(owners[2], key).is_some()).count();
    let first = |key: &&String| cluster.hint(fallbacks[0], owners[0], key).is_some();
    assert!(keys.iter().filter(first).count() + durable >= keys.len());
    cluster.boot_slow(owners[2], Duration::from_millis(2)).await;
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(cluster.hints().await, 0);
    cluster.crash(owners[2]);
    cluster.boot_all(&owners).await;
    cluster.settle().await;
    for key in &keys {
        assert_eq!(texts(&cluster.state(owners[2], key).expect("taken in")), ["v"], "{key}");
        let found = cluster.get(owners[0], key, &r(3)).await.expect("up");
        assert_eq!(values(&found), ["v"], "{key}");
    }
    cluster.settle().await;
    for key in &keys {
        cluster.assert_whole(key, &["v"]).await;
    }
}

/// An owner that is back before its time is over gets its hints itself, and nobody else does; the next time it is away
/// counts from its own beginning.
#[tokio::test(start_paused = true)]
async fn an_owner_away_for_less_gets_its_hints_itself() {
    let limits = HintLimits { away_max: Duration::from_secs(60), ..HintLimits::default() };
    let mut cluster = Cluster::start_with(5, limits).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    for expected in [&["0"][..], &["0", "1"], &["0", "1", "2"]] {
        cluster.crash(owners[0]);
        cluster.settle().await;
        let value = expected[expected.len() - 1];
        cluster.put(fallbacks[0], "k", value, &blind(), &FIRST_OWNER).await.expect("fallbacks");
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(cluster.hints().await, 1);
        cluster.boot(owners[0]).await;
        cluster.settle().await;
        assert_eq!(texts(&cluster.state(owners[0], "k").expect("delivered")), expected);
        assert_eq!(cluster.hints().await, 0);
        assert!(cluster.state(owners[2], "k").is_none());
    }
}

/// A hint names a place, not a life: it was kept for an owner that has crashed and started many times since.
#[tokio::test(start_paused = true)]
async fn a_hint_is_right_for_a_later_life_of_its_owner() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    let away = owners[2];
    cluster.crash(away);
    cluster.settle().await;
    cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await.expect("up");
    let cut_off: Vec<NodeId> = [owners[2], fallbacks[1]].into();
    cluster.split(&cut_off);
    for life in 0..5 {
        cluster.boot(away).await;
        cluster.settle().await;
        let put = cluster.put(away, "k", &life.to_string(), &blind(), &sloppy_w(1)).await;
        put.expect("its own disk");
        cluster.crash(away);
    }
    cluster.boot(away).await;
    cluster.heal();
    cluster.settle().await;
    cluster.settle().await;
    cluster.assert_whole("k", &["0", "1", "2", "3", "4", "v"]).await;
}

/// A receipt calls an owner hinted when its hint is on a disk. The coordinator's disk is slow and others are enough: the
/// client hears before the hint is safe, and does not hear of it.
#[tokio::test(start_paused = true)]
async fn a_receipt_names_no_hint_that_a_power_loss_could_take() {
    let mut cluster = Cluster::start(3).await; // no fallback
    let owners = cluster.owners("k");
    cluster.crash_all(&[owners[0], owners[2]]);
    cluster.boot_slow(owners[0], Duration::from_millis(100)).await;
    cluster.settle().await;
    cluster.put(owners[0], "k", "leased", &blind(), &w(2)).await.expect("two are up");
    cluster.settle().await;
    let before = cluster.hint(owners[0], owners[2], "k").expect("kept");
    for (w, is_kept) in [(1, false), (2, true)] {
        let stored = cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(w)).await.expect("up");
        assert_eq!(stored.receipt.hinted.contains(&owners[2].0), is_kept, "w={w}");
        if !is_kept {
            cluster.crash(owners[0]);
            assert_eq!(cluster.hint(owners[0], owners[2], "k").as_ref(), Some(&before));
            cluster.boot(owners[0]).await;
            cluster.settle().await;
        }
    }
}

/// An owner is slow, so a place for its hint is looked for, in vain. Then it answers after all, before the client does
/// hear: it has not missed the write, and the receipt must not say so.
#[tokio::test(start_paused = true)]
async fn an_owner_that_answers_late_is_not_called_unhinted() {
    let none = HintLimits { bytes_per_owner_max: 0, ..HintLimits::default() };
    let cluster = Cluster::start_with(5, none).await;
    let owners = cluster.owners("k");
    cluster.network.slow(owners[2], owners[0], Duration::from_millis(400));
    let stored = cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await.expect("slow");
    assert!(lines(&stored.receipt).contains(&(owners[2], None, Outcome::Durable)));
    assert!(stored.receipt.unhinted.is_empty());
}

/// The receipt called an owner hinted and unhinted at once. Its fallback was slow and was given up, the coordinator had no
/// room for a hint of its own and wrote the owner down as unhinted; then the fallback acknowledged after all. An owner for
/// which anybody keeps a hint is hinted. Found by the simulator (seed 342).
#[tokio::test(start_paused = true)]
async fn a_fallback_that_answers_late_has_hinted_its_owner() {
    let mut cluster = Cluster::start_with(4, ONE_HINT).await;
    let (owners, fallback) = (cluster.owners("k"), cluster.fallbacks("k")[0]);
    let keys = cluster.neighbours("k", 2);
    let (via, away) = (owners[0], owners[2]);
    cluster.crash_all(&[away, fallback]);
    cluster.settle().await;
    let stored = cluster.put(via, &keys[0], &value(), &blind(), &sloppy_w(2)).await.expect("two");
    assert_eq!(stored.receipt.hinted, [away.0], "by the coordinator, which is full now");
    cluster.boot(fallback).await;
    cluster.settle().await;

    cluster.network.slow(fallback, via, Duration::from_millis(300)); // a quarter of a second is patience
    let stored = cluster.put(via, &keys[1], &value(), &blind(), &sloppy_w(3)).await.expect("late");
    assert_eq!(
        lines(&stored.receipt)[3..],
        [(fallback, Some(away), Outcome::Durable)],
        "{:?}",
        stored.receipt
    );
    assert_eq!((stored.receipt.hinted, stored.receipt.unhinted), (vec![away.0], vec![]));
}
