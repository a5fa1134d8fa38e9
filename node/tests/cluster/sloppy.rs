//! Fallbacks take the seats of owners that are out of reach, in writes and in reads.

use std::time::Duration;

use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode, Outcome};
use tokio::time::Instant;

use crate::cluster::{
    Cluster, SLOPPY, With, blind, lines, r, sloppy_r, sloppy_w, texts, values, w,
};

/// Two of three owners are known to be down. A write goes on as users find it, and its receipt says who stands in; asked
/// for two owners it is refused before anything is stored anywhere. Back again, the owners have everything.
#[tokio::test(start_paused = true)]
async fn a_write_goes_on_with_two_owners_down() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash_all(&owners[1..]);
    cluster.settle().await;

    for strict in [w(2), With { pw: Some(2), ..sloppy_w(2) }, With { pw: Some(2), ..sloppy_w(3) }] {
        let failure = cluster.put(owners[0], "k", "no", &blind(), &strict).await.expect_err("one");
        let expected = (ErrorCode::WriteQuorumNotMet, Effect::NotApplied);
        assert_eq!((failure.code, failure.effect), expected, "{strict:?}");
        assert!(cluster.on_disk(owners[0], "k").is_none());
        assert_eq!(cluster.hints().await, 0);
    }

    let stored = cluster.put(owners[0], "k", "v", &blind(), &SLOPPY).await.expect("fallbacks");
    let expected = [
        (owners[0], None, Outcome::Durable),
        (owners[1], None, Outcome::Down),
        (owners[2], None, Outcome::Down),
        (fallbacks[0], Some(owners[1]), Outcome::Durable),
        (fallbacks[1], Some(owners[2]), Outcome::Durable),
    ];
    assert_eq!(lines(&stored.receipt), expected);
    assert_eq!(stored.receipt.hinted, [owners[1].0, owners[2].0]);
    assert!(stored.receipt.unhinted.is_empty());

    cluster.boot_all(&owners[1..]).await;
    cluster.settle().await;
    cluster.assert_whole("k", &["v"]).await;
}

/// What a fallback acknowledges is on its disk. Owner and fallbacks lose power with the acknowledgement; the owner
/// that had the write stays away, and the others get it from the fallbacks alone.
#[tokio::test(start_paused = true)]
async fn an_acknowledged_hint_survives_a_power_loss() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash_all(&owners[1..]);
    cluster.crash_all(&fallbacks);
    for fallback in &fallbacks {
        cluster.boot_slow(*fallback, Duration::from_millis(50)).await; // an early answer would be seen
    }
    cluster.settle().await;
    let first = cluster.put(owners[0], "k", "a", &blind(), &sloppy_w(3)).await.expect("up");
    cluster.put(owners[0], "k", "b", &first.context, &sloppy_w(3)).await.expect("up");
    cluster.crash(owners[0]);
    cluster.crash_all(&fallbacks);
    cluster.boot_all(&fallbacks).await;
    assert_eq!(cluster.hints().await, 2);
    cluster.boot_all(&owners[1..]).await;
    cluster.settle().await;
    for owner in &owners[1..] {
        assert_eq!(texts(&cluster.state(*owner, "k").expect("delivered")), ["b"], "{owner}");
    }
    cluster.boot(owners[0]).await;
    cluster.settle().await;
    cluster.assert_whole("k", &["b"]).await;
}

/// One fallback takes one seat. With one fallback for two owners w=3 is known to be impossible and refused, w=2 is met,
/// and the coordinator keeps the hint for the owner that nobody stands in for.
#[tokio::test(start_paused = true)]
async fn a_fallback_takes_one_seat() {
    let mut cluster = Cluster::start(4).await;
    let owners = cluster.owners("k");
    cluster.crash_all(&owners[1..]);
    cluster.settle().await;
    let failure = cluster.put(owners[0], "k", "no", &blind(), &sloppy_w(3)).await.expect_err("2");
    assert_eq!((failure.code, failure.effect), (ErrorCode::WriteQuorumNotMet, Effect::NotApplied));
    cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(2)).await.expect("two seats");
    cluster.settle().await;
    assert_eq!(cluster.status(owners[0]).await.hints, 1);
    assert_eq!(cluster.hints().await, 2);
    cluster.boot_all(&owners[1..]).await;
    cluster.settle().await;
    cluster.assert_whole("k", &["v"]).await;
}

/// An owner falls silent unnoticed. After a quarter of the time a fallback takes its seat, and both a write and a read of
/// all three succeed; strict ones wait in vain and say how far they came.
#[tokio::test(start_paused = true)]
async fn a_silent_owner_is_stood_in_for_after_a_quarter_of_the_time() {
    let cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.isolate(owners[2]);
    let asked = Instant::now();
    let stored = cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await.expect("stood in");
    let elapsed = asked.elapsed().as_millis();
    assert!((250..300).contains(&elapsed), "took {elapsed} ms");
    assert_eq!(stored.receipt.hinted, [owners[2].0]);
    assert!(lines(&stored.receipt).contains(&(fallbacks[0], Some(owners[2]), Outcome::Durable)));

    let cluster = Cluster::start(5).await;
    cluster.isolate(owners[2]);
    let failure = cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect_err("strict");
    assert_eq!((failure.code, failure.effect), (ErrorCode::DeadlinePassed, Effect::Applied(2)));
    assert!(lines(&failure.receipt.expect("a receipt")).contains(&(
        owners[2],
        None,
        Outcome::Silent
    )));

    let cluster = Cluster::start(5).await;
    cluster.isolate(owners[2]);
    cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await.expect("stood in");
    let asked = Instant::now();
    let found = cluster.get(owners[0], "k", &sloppy_r(3)).await.expect("the hint counts");
    let elapsed = asked.elapsed().as_millis();
    assert!((250..300).contains(&elapsed), "took {elapsed} ms");
    assert_eq!(values(&found), ["v"]);
    let failure = cluster.get(owners[0], "k", &r(3)).await.expect_err("strict");
    assert_eq!((failure.got, failure.needed), (2, 3));
    cluster.rejoin(owners[2]);
    cluster.settle().await;
    cluster.settle().await; // the first delivery vanished on the cut link, and waits until it is given up
    cluster.assert_whole("k", &["v"]).await;
}

/// A fallback can be silent too: the link that took the owner may have taken it as well. Then the next one is asked, as
/// long as there is time. (A read does so; a write waited for the first fallback until its time was over.)
#[tokio::test(start_paused = true)]
async fn a_silent_fallback_is_given_up_for_the_next_one() {
    for known_down in [false, true] {
        let mut cluster = Cluster::start(5).await;
        let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
        if known_down {
            cluster.crash(owners[2]);
            cluster.settle().await;
        }
        cluster.split(&[owners[2], fallbacks[0]]); // unnoticed
        let put = cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await;
        let stored = put.unwrap_or_else(|failure| panic!("{failure}, down: {known_down}"));
        assert!(lines(&stored.receipt).contains(&(
            fallbacks[1],
            Some(owners[2]),
            Outcome::Durable
        )));
        let found = cluster.get(owners[0], "k", &sloppy_r(3)).await.expect("the second fallback");
        assert_eq!(values(&found), ["v"]);
    }
}

/// A fallback that has no hint does not know whether the key exists. It is no answer and no not-found; one that holds a
/// hint is an answer, also if what it holds is a delete.
#[tokio::test(start_paused = true)]
async fn only_a_fallback_with_a_hint_is_an_answer() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash_all(&owners[1..]);
    cluster.settle().await;
    for via in [owners[0], fallbacks[0], fallbacks[1]] {
        let failure = cluster.get(via, "k", &sloppy_r(2)).await.expect_err("one owner");
        assert_eq!(failure.code, ErrorCode::ReadQuorumNotMet, "{via}");
        assert_eq!((failure.got, failure.needed), (1, 2), "{via}");
        let lines = lines(&failure.receipt.expect("a receipt"));
        for fallback in &fallbacks {
            let line = lines.iter().find(|(node, ..)| node == fallback).expect("asked");
            assert_eq!(line.2, Outcome::KnowsNothing, "{via}");
        }
        let absent = cluster.get(via, "k", &sloppy_r(1)).await.expect("an owner says: not found");
        assert!(values(&absent).is_empty() && absent.context.is_empty());
    }

    let stored = cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await.expect("up");
    for via in [owners[0], fallbacks[0], fallbacks[1]] {
        for r in [2, 3] {
            let found = cluster.get(via, "k", &sloppy_r(r)).await.expect("hints count");
            assert_eq!(values(&found), ["v"], "{via}");
        }
        let owners_only = With { pr: Some(2), ..sloppy_r(3) };
        let failure = cluster.get(via, "k", &owners_only).await.expect_err("one owner");
        assert_eq!(failure.code, ErrorCode::ReadQuorumNotMet, "{via}");
    }

    cluster.delete(owners[0], "k", &stored.context, &sloppy_w(3)).await.expect("up");
    cluster.crash(owners[0]);
    cluster.settle().await;
    for via in &fallbacks {
        let found = cluster.get(*via, "k", &sloppy_r(2)).await.expect("two hints");
        assert!(
            values(&found).is_empty() && !found.context.is_empty(),
            "deleted, not: never written"
        );
        let failure = cluster.get(*via, "k", &sloppy_r(3)).await.expect_err("two hints");
        assert_eq!(failure.got, 2);
        let failure = cluster.get(*via, "never", &sloppy_r(1)).await;
        let owners_of_it = cluster.owners("never");
        if owners_of_it.iter().all(|owner| owners.contains(owner)) {
            assert_eq!(failure.expect_err("nobody knows").got, 0);
        }
    }
}

/// Owner and fallback answer for the same seat: that is one answer. Of three seats the second is filled twice and the
/// third never, so neither a write nor a read of three is met, however many of them had to be fsynced.
#[tokio::test(start_paused = true)]
async fn a_seat_counts_once() {
    for dw in [3, 1] {
        let cluster = Cluster::start(4).await; // one fallback
        let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
        cluster.network.cut(fallbacks[0], owners[1]); // so that its hint stays
        cluster.isolate(owners[2]);
        cluster.network.slow(owners[1], owners[0], Duration::from_millis(600)); // after its stand-in
        let with = With { dw: Some(dw), ..sloppy_w(3) };
        let failure = cluster.put(owners[0], "k", "v", &blind(), &with).await.expect_err("two");
        assert_eq!((failure.got, failure.needed), (2, 3));
        assert!(matches!(failure.effect, Effect::Applied(2..=3)), "three disks have it");
        let lines = lines(&failure.receipt.expect("a receipt"));
        assert!(lines.contains(&(fallbacks[0], Some(owners[1]), Outcome::Durable)), "{lines:?}");
        assert!(lines.iter().any(|line| line.0 == owners[1] && line.2 != Outcome::Silent));

        assert!(cluster.hint(fallbacks[0], owners[1], "k").is_some());
        let failure = cluster.get(owners[0], "k", &sloppy_r(3)).await.expect_err("two");
        assert_eq!((failure.got, failure.needed), (2, 3));
    }
}

/// An owner that takes part in no read or write of a smaller n is no fallback either, and the writes of two sizes meet.
#[tokio::test(start_paused = true)]
async fn an_owner_outside_n_stands_in_for_nobody() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash(owners[0]);
    cluster.settle().await;
    let narrow = With { n: Some(1), ..SLOPPY };
    let stored = cluster.put(owners[1], "k", "narrow", &blind(), &narrow).await.expect("fallback");
    assert_eq!(stored.receipt.coordinator, fallbacks[0].0);
    let expected =
        [(owners[0], None, Outcome::Down), (fallbacks[0], Some(owners[0]), Outcome::Durable)];
    assert_eq!(lines(&stored.receipt), expected);
    let found = cluster.get(owners[1], "k", &narrow).await.expect("the hint");
    assert_eq!(values(&found), ["narrow"]);
    cluster.put(owners[1], "k", "wide", &blind(), &sloppy_w(3)).await.expect("up");
    cluster.boot(owners[0]).await;
    cluster.settle().await;
    assert_eq!(texts(&cluster.state(owners[0], "k").expect("hinted")), ["narrow", "wide"]);
    let found = cluster.get(NodeId(1), "k", &r(3)).await.expect("up");
    assert_eq!(values(&found), ["narrow", "wide"]);
}

/// A fallback keeps different things of one key for different owners. Asked for the key it answers with all of them, and
/// each owner gets its own.
#[tokio::test(start_paused = true)]
async fn a_fallback_answers_with_what_it_keeps_for_all_owners() {
    let mut cluster = Cluster::start(4).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    for (away, value) in owners[1..].iter().zip(["a", "b"]) {
        cluster.crash(*away);
        cluster.settle().await;
        cluster.put(owners[0], "k", value, &blind(), &sloppy_w(3)).await.expect("stood in");
        cluster.network.cut(fallbacks[0], *away);
        cluster.boot(*away).await;
        cluster.settle().await;
    }
    for (owner, expected) in owners[1..].iter().zip(["a", "b"]) {
        let hint = cluster.hint(fallbacks[0], *owner, "k").expect("kept");
        assert_eq!(texts(&hint), [expected], "{owner}");
    }
    cluster.crash_all(&owners);
    cluster.settle().await;
    let found = cluster.get(fallbacks[0], "k", &sloppy_r(1)).await.expect("the fallback");
    assert_eq!(values(&found), ["a", "b"]);
    cluster.heal();
    cluster.boot_all(&owners).await;
    cluster.settle().await;
    cluster.assert_whole("k", &["a", "b"]).await;
}

/// No fallback is left to ask, but one that was given up as silent is only slow. Its answer is in time and counts; until
/// then nobody may say that no more can come.
#[tokio::test(start_paused = true)]
async fn a_slow_fallback_may_still_answer_when_no_other_is_left() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash(owners[2]);
    cluster.settle().await;
    cluster.put(owners[0], "k", "v", &blind(), &sloppy_w(3)).await.expect("the first fallback");
    cluster.crash(owners[1]);
    cluster.settle().await;
    cluster.network.slow(fallbacks[0], owners[0], Duration::from_millis(400));
    let found = cluster.get(owners[0], "k", &sloppy_r(2)).await;
    let found = found.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(values(&found), ["v"]);
}
