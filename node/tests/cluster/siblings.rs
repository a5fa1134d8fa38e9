//! Concurrent writes are kept, and a put replaces exactly what its writer had seen.

use atoll_wire::{Effect, ErrorCode, limits::SIBLINGS_MAX};
use bytes::Bytes;

use crate::cluster::{Cluster, DEFAULT, blind, r, values, w};

#[tokio::test(start_paused = true)]
async fn blind_puts_make_siblings_and_a_context_removes_what_it_saw() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "a", &blind(), &DEFAULT).await.expect("up");
    cluster.put(owners[1], "k", "b", &blind(), &DEFAULT).await.expect("up");
    let two = cluster.get(owners[2], "k", &r(3)).await.expect("up");
    assert_eq!(values(&two), ["a", "b"]);
    // somebody else writes after our read: not covered by our context
    cluster.put(owners[2], "k", "c", &blind(), &DEFAULT).await.expect("up");
    cluster.put(owners[0], "k", "merged", &two.context, &DEFAULT).await.expect("up");
    let found = cluster.get(owners[1], "k", &r(3)).await.expect("up");
    assert_eq!(values(&found), ["c", "merged"]);
}

/// A put's own context covers the put and what its request covered, not the sibling that nobody has shown us.
#[tokio::test(start_paused = true)]
async fn a_puts_context_covers_no_more_than_it_should() {
    let cluster = Cluster::start(5).await;
    let via = cluster.owners("k")[0];
    cluster.put(via, "k", "theirs", &blind(), &w(3)).await.expect("up");
    let ours = cluster.put(via, "k", "ours", &blind(), &w(3)).await.expect("up");
    cluster.put(via, "k", "ours again", &ours.context, &w(3)).await.expect("up");
    let found = cluster.get(via, "k", &r(3)).await.expect("up");
    assert_eq!(values(&found), ["ours again", "theirs"]);
}

/// A delete takes what it saw; a value written meanwhile stays; and a session sees its own delete.
#[tokio::test(start_paused = true)]
async fn a_delete_takes_exactly_what_it_saw() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let first = cluster.put(owners[0], "k", "a", &blind(), &DEFAULT).await.expect("up");
    cluster.put(owners[1], "k", "b", &blind(), &DEFAULT).await.expect("up");
    let gone = cluster.delete(owners[2], "k", &first.context, &DEFAULT).await.expect("up");
    assert_eq!(values(&cluster.get(owners[0], "k", &r(3)).await.expect("up")), ["b"]);

    let seen = cluster.get(owners[0], "k", &r(3)).await.expect("up");
    cluster.delete(owners[0], "k", &seen.context, &DEFAULT).await.expect("up");
    let empty = cluster.get(owners[1], "k", &r(2)).await.expect("up");
    assert!(values(&empty).is_empty());
    assert!(!empty.context.is_empty(), "deleted is not the same as never written");
    assert_ne!(gone.context, seen.context);
}

#[tokio::test(start_paused = true)]
async fn bad_contexts_are_named() {
    let cluster = Cluster::start(5).await;
    let via = cluster.owners("k")[0];
    let other = cluster.put(via, "other", "v", &blind(), &DEFAULT).await.expect("up").context;
    let good = cluster.put(via, "k", "v", &blind(), &DEFAULT).await.expect("up").context;
    let mut forged = good.to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let forged = Bytes::from(forged);
    let noise = Bytes::from_static(b"noise");
    for (context, code) in [
        (&other, ErrorCode::ContextOtherKey),
        (&forged, ErrorCode::ContextMalformed),
        (&noise, ErrorCode::ContextMalformed),
    ] {
        let failure = cluster.put(via, "k", "x", context, &DEFAULT).await.expect_err("bad context");
        assert_eq!(failure.code, code);
    }
    assert_eq!(values(&cluster.get(via, "k", &r(3)).await.expect("up")), ["v"]);
}

/// A delete without a context is preceded by a read of so many owners that it sees every write acknowledged at the same w, and
/// what that found is gone. If so many cannot be reached nothing happens, and neither if there is nothing.
#[tokio::test(start_paused = true)]
async fn a_delete_without_a_context_reads_first() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let failure = cluster.delete(owners[0], "k", &blind(), &DEFAULT).await;
    let failure = failure.expect_err("there is nothing");
    assert_eq!((failure.code, failure.effect), (ErrorCode::NothingThere, Effect::NotApplied));

    for value in ["tea", "milk"] {
        cluster.put(owners[0], "k", value, &blind(), &DEFAULT).await.expect("all are up");
    }
    cluster.delete(owners[1], "k", &blind(), &DEFAULT).await.expect("all are up");
    assert!(values(&cluster.get(owners[2], "k", &r(3)).await.expect("up")).is_empty());

    cluster.put(owners[0], "k", "again", &blind(), &w(3)).await.expect("all are up");
    cluster.crash(owners[2]);
    cluster.settle().await;
    let failure = cluster.delete(owners[1], "k", &blind(), &w(1)).await;
    let failure =
        failure.expect_err("what one owner has acknowledged, all three must be asked for");
    assert_eq!(failure.effect, Effect::NotApplied);
    assert_eq!(values(&cluster.get(owners[1], "k", &r(2)).await.expect("two")), ["again"]);
    cluster
        .delete(owners[1], "k", &blind(), &w(2))
        .await
        .expect("two have acknowledged, two are there");
    assert!(values(&cluster.get(owners[0], "k", &r(2)).await.expect("two")).is_empty());
}

/// Past the limit a put that could only add a sibling is refused; one that replaces them is welcome.
#[tokio::test(start_paused = true)]
async fn siblings_have_a_limit() {
    let cluster = Cluster::start(3).await;
    let via = cluster.owners("k")[0];
    for number in 0..SIBLINGS_MAX {
        cluster.put(via, "k", &number.to_string(), &blind(), &w(3)).await.expect("below the limit");
    }
    let failure = cluster.put(via, "k", "more", &blind(), &w(3)).await.expect_err("one too many");
    assert_eq!(failure.code, ErrorCode::TooManySiblings);
    let all = cluster.get(via, "k", &r(3)).await.expect("up");
    assert_eq!(values(&all).len(), SIBLINGS_MAX);
    let one = cluster.put(via, "k", "one", &all.context, &w(3)).await.expect("replaces them");
    assert_eq!(values(&cluster.get(via, "k", &r(3)).await.expect("up")), ["one"]);

    // a context that replaces too little is no better than none: it too could only add one more
    for number in 1..SIBLINGS_MAX {
        cluster.put(via, "k", &number.to_string(), &all.context, &w(3)).await.expect("below");
    }
    let late = cluster.put(via, "k", "late", &all.context, &w(3)).await.expect_err("one too many");
    assert_eq!(late.code, ErrorCode::TooManySiblings);
    cluster.put(via, "k", "two", &one.context, &w(3)).await.expect("takes the place of one");
    let all = cluster.get(via, "k", &r(3)).await.expect("up");
    assert_eq!(values(&all).len(), SIBLINGS_MAX);
    cluster.put(via, "k", "one", &all.context, &w(3)).await.expect("replaces them");
    assert_eq!(values(&cluster.get(via, "k", &r(3)).await.expect("up")), ["one"]);
}
