//! Several keys in one request: each has an outcome of its own.

use atoll_antientropy::{Kind, Operation};
use atoll_ring::NodeId;
use atoll_wire::{
    Ask, Effect, ErrorCode, Get, Many, ManyReply, One, Repair, Reply, Request, Write,
    limits::VALUE_BYTES_MAX,
};
use bytes::Bytes;

use crate::{
    bucket::{Bucket, Shown, once, put, shown},
    cluster::{Cluster, DEFAULT, With, r, w},
};

async fn ask(bucket: &Bucket, via: NodeId, requests: &[One]) -> Vec<Reply> {
    let reply = bucket.client().call(via, Request::Many(Many::of(requests)), 1000).await;
    match reply.expect("whoever is asked answers") {
        Reply::Many(many) => {
            let replies = many.read().expect("answers");
            assert_eq!(replies.len(), requests.len());
            replies
        }
        other => panic!("many were answered with {other:?}"),
    }
}

fn write(bucket: &Bucket, key: &str, operation: &Operation, with: &With) -> One {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let write = Write::new(key, with.quorum(), operation);
    One { operation: bucket.client().next_operation(), ask: Ask::Write(write) }
}

fn get(bucket: &Bucket, key: &str, with: &With) -> One {
    let (key, quorum) = (Bytes::copy_from_slice(key.as_bytes()), with.quorum());
    let get = Get { key, session: None, quorum, repair: Repair::Async };
    One { operation: bucket.client().next_operation(), ask: Ask::Get(get) }
}

/// Keys all over the ring, with one node down. Every write and read that two owners suffice for succeeds, those that want
/// all three fail where the node is an owner, and each says so for itself.
#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_outcome_with_an_owner_down() {
    let mut cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let down = NodeId(3);
    cluster.crash(down);
    cluster.settle().await;
    let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    let wanted = |number: usize| w(if number.is_multiple_of(2) { 2 } else { 3 });
    let numbered = || keys.iter().enumerate();
    let writes: Vec<One> = numbered()
        .map(|(number, key)| write(&bucket, key, &put(&number.to_string()), &wanted(number)))
        .collect();
    let (mut stored, mut failed) = (0, 0);
    for ((number, key), reply) in numbered().zip(ask(&bucket, NodeId(1), &writes).await) {
        let misses_one = bucket.owners(key).contains(&down) && number % 2 == 1;
        match reply {
            Reply::Written(written) => {
                assert!(!misses_one, "{key}");
                assert_eq!(written.receipt.untrue_of_write(&strict(number)), None);
                stored += 1;
            }
            Reply::Failed(failure) => {
                assert!(misses_one, "{key}: {failure}");
                assert_eq!(failure.effect, Effect::NotApplied, "it was known beforehand");
                failed += 1;
            }
            other => panic!("a write was answered with {other:?}"),
        }
    }
    assert!(stored >= 50 && failed >= 10, "{stored} and {failed}");

    let reads: Vec<One> = keys.iter().map(|key| get(&bucket, key, &r(2))).collect();
    for ((number, key), reply) in numbered().zip(ask(&bucket, NodeId(5), &reads).await) {
        let Reply::Found(found) = reply else { panic!("{key}: {reply:?}") };
        let was_stored = !(bucket.owners(key).contains(&down) && number % 2 == 1);
        let expected = if was_stored { vec![number.to_string()] } else { Vec::new() };
        assert_eq!(shown(&found), Shown::Values(expected), "{key}");
    }
}

fn strict(number: usize) -> atoll_ring::Quorum {
    let with = w(if number.is_multiple_of(2) { 2 } else { 3 });
    atoll_ring::Quorum::new(&with.quorum(), 3).expect("a good quorum")
}

/// One bad request among good ones fails alone.
#[tokio::test(start_paused = true)]
async fn a_bad_one_does_not_spoil_the_others() {
    let cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Counter).await;
    let requests = [
        write(&bucket, "a", &once(1), &DEFAULT),
        write(&bucket, "", &once(1), &DEFAULT),
        write(&bucket, "b", &put("no counter"), &DEFAULT),
        get(&bucket, "a", &With { r: Some(4), ..DEFAULT }),
        write(&bucket, "c", &once(3), &DEFAULT),
    ];
    let replies = ask(&bucket, NodeId(2), &requests).await;
    let code = |reply: &Reply| match reply {
        Reply::Written(_) => None,
        Reply::Failed(failure) => Some(failure.code),
        other => panic!("it was answered with {other:?}"),
    };
    let codes: Vec<_> = replies.iter().map(code).collect();
    let (length, kind, quorum) = (ErrorCode::KeyLength, ErrorCode::WrongKind, ErrorCode::BadQuorum);
    assert_eq!(codes, [None, Some(length), Some(kind), Some(quorum), None]);
    assert_eq!(bucket.shown(NodeId(1), "c").await, Shown::Number(3));
}

/// The same key twice in one request is written twice, and the same request again once only if its operations are the same.
#[tokio::test(start_paused = true)]
async fn a_request_of_many_that_is_repeated_is_shown_once() {
    let cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let requests = ["a", "b", "c"].map(|key| write(&bucket, key, &put("v"), &w(3)));
    let (one, two) =
        tokio::join!(ask(&bucket, NodeId(1), &requests), ask(&bucket, NodeId(4), &requests));
    assert!(one.iter().chain(&two).all(|reply| matches!(reply, Reply::Written(_))));
    for key in ["a", "b", "c"] {
        assert_eq!(bucket.shown(NodeId(2), key).await, Shown::values(&["v"]), "{key}");
    }
    let twice = ["d", "d"].map(|key| write(&bucket, key, &put("v"), &w(3)));
    ask(&bucket, NodeId(1), &twice).await;
    assert_eq!(bucket.shown(NodeId(2), "d").await, Shown::values(&["v", "v"]));
}

/// More than a frame can carry: those that fit are there, the others say what to do.
#[tokio::test(start_paused = true)]
async fn answers_that_are_too_long_say_so_one_by_one() {
    let cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let keys: Vec<String> = (0..20).map(|number| format!("key {number}")).collect();
    let large = "x".repeat(VALUE_BYTES_MAX);
    for key in &keys {
        bucket.apply(NodeId(1), key, &put(&large)).await;
    }
    let reads: Vec<One> = keys.iter().map(|key| get(&bucket, key, &DEFAULT)).collect();
    let replies = ask(&bucket, NodeId(2), &reads).await;
    let found = replies.iter().filter(|reply| matches!(reply, Reply::Found(_))).count();
    assert!((1..20).contains(&found), "{found} fit");
    for reply in &replies {
        if let Reply::Failed(failure) = reply {
            assert_eq!(failure.code, ErrorCode::Overloaded);
            assert!(failure.detail.contains("read this key alone"), "{}", failure.detail);
        }
    }
}

/// What is no list of requests is refused as a whole.
#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_requests_are_refused() {
    let cluster = Cluster::start(3).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let many = Request::Many(Many { requests: Bytes::from_static(b"\xff\xff\xff") });
    let failure = bucket.client().call(NodeId(1), many, 1000).await.expect_err("malformed");
    assert_eq!((failure.code, failure.effect), (ErrorCode::Malformed, Effect::NotApplied));
    assert_eq!(ManyReply::new().read(), Some(Vec::new()));
}
