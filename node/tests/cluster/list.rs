//! Listing the keys of a bucket: all of them once, and nothing else.

use std::collections::BTreeSet;

use atoll_antientropy::Kind;
use atoll_node::storage::faulty::Step;
use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode, Failure, List, Listed, Reply, Request};
use bytes::Bytes;

use crate::{
    bucket::{Bucket, Said, add, once, put, remove},
    cluster::{Cluster, DEFAULT, With, r, w},
    moves::Ring,
};
use atoll_antientropy::Operation;

async fn page(
    bucket: &Bucket,
    via: NodeId,
    prefix: &str,
    page: &Bytes,
    with: &With,
    limit: u16,
) -> Result<Listed, Failure> {
    let prefix = Bytes::copy_from_slice(prefix.as_bytes());
    let list = List { prefix, page: page.clone(), limit, quorum: with.quorum() };
    match bucket.client().call(via, Request::List(list), 2000).await? {
        Reply::Listed(listed) => Ok(listed),
        other => panic!("a listing was answered with {other:?}"),
    }
}

/// All keys that the pages name, and how many pages there were. No key comes twice.
async fn listed(
    bucket: &Bucket,
    vias: &[NodeId],
    prefix: &str,
    with: &With,
    limit: u16,
) -> (BTreeSet<String>, usize) {
    let (mut keys, mut pages, mut token) = (BTreeSet::new(), 0, Bytes::new());
    loop {
        let via = vias[pages % vias.len()];
        let next = page(bucket, via, prefix, &token, with, limit).await.expect("enough are up");
        let named = next.read().expect("keys");
        assert!(named.len() <= usize::from(limit));
        for key in named {
            let key = String::from_utf8(key.to_vec()).expect("text");
            assert!(keys.insert(key.clone()), "{key} comes twice");
        }
        pages += 1;
        if next.page.is_empty() {
            assert_eq!(next.partitions.0, next.partitions.1, "it has seen the whole ring");
            return (keys, pages);
        }
        token = next.page;
    }
}

fn names(from: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("{from}:{number}")).collect()
}

async fn write_all(bucket: &Bucket, via: NodeId, keys: &BTreeSet<String>) {
    for key in keys {
        bucket.apply(via, key, &put("v")).await;
    }
}

/// Page by page, whichever node is asked for the next one, each key comes once; with a prefix only those that begin so; and
/// never one of another bucket.
#[tokio::test(start_paused = true)]
async fn all_keys_come_once() {
    let cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let other = Bucket::create(&cluster, Kind::Lww).await;
    let (carts, users) = (names("cart", 150), names("user", 60));
    let all: BTreeSet<String> = carts.union(&users).cloned().collect();
    write_all(&bucket, NodeId(1), &all).await;
    write_all(&other, NodeId(2), &names("cart", 300)).await;
    cluster.settle().await;
    for limit in [1, 7, 100, 1000] {
        for with in [r(1), r(2), r(3)] {
            let (keys, pages) = listed(&bucket, &cluster.up(), "", &with, limit).await;
            assert_eq!(keys, all, "limit {limit}");
            assert!(pages >= all.len() / usize::from(limit), "limit {limit}: {pages} pages");
        }
    }
    assert_eq!(listed(&bucket, &cluster.up(), "cart:", &r(2), 40).await.0, carts);
    assert_eq!(listed(&bucket, &cluster.up(), "cart:14", &r(2), 40).await.0.len(), 11);
    assert!(listed(&bucket, &cluster.up(), "nobody", &r(2), 40).await.0.is_empty());
}

/// Keys whose value was deleted, removed, reset or has expired are left out; what is there with nothing in particular, such as a
/// counter at 0, is named.
#[tokio::test(start_paused = true)]
async fn what_has_no_value_is_not_named() {
    let cluster = Cluster::start(5).await;
    let via = NodeId(1);
    let registers = Bucket::create(&cluster, Kind::Register).await;
    for key in ["stays", "deleted", "expires"] {
        registers.apply(via, key, &put("v")).await;
    }
    registers.apply(via, "deleted", &Operation::Clear).await;
    let context = registers.find(via, "expires", None, &r(3)).await.expect("up").context;
    let said = Said { ttl_ms: Some(60_000), ..Said::context(&context) };
    registers.change(via, "expires", &put("short"), &said, &w(3)).await.expect("up");
    let both = BTreeSet::from(["stays".to_owned(), "expires".to_owned()]);
    assert_eq!(listed(&registers, &cluster.up(), "", &r(2), 10).await.0, both);
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    let one = BTreeSet::from(["stays".to_owned()]);
    assert_eq!(listed(&registers, &cluster.up(), "", &r(2), 10).await.0, one);

    let sets = Bucket::create(&cluster, Kind::Set).await;
    sets.apply(via, "stays", &add(&["a", "b"])).await;
    sets.apply(via, "stays", &remove(&["a"])).await;
    sets.apply(via, "emptied", &add(&["a"])).await;
    sets.apply(via, "emptied", &remove(&["a"])).await;
    assert_eq!(listed(&sets, &cluster.up(), "", &r(2), 10).await.0, one);

    let counters = Bucket::create(&cluster, Kind::Counter).await;
    counters.apply(via, "stays", &once(5)).await;
    counters.apply(via, "stays", &once(-5)).await;
    counters.apply(via, "reset", &once(5)).await;
    counters.apply(via, "reset", &Operation::Clear).await;
    assert_eq!(listed(&counters, &cluster.up(), "", &r(2), 10).await.0, one);
}

/// Owners that hold different things: what any of those asked knows counts, as in a read of as many.
#[tokio::test(start_paused = true)]
async fn owners_that_differ_are_joined() {
    let limits = atoll_node::HintLimits {
        bytes_per_owner_max: 0,
        away_max: std::time::Duration::from_secs(100_000),
    };
    let cluster = Cluster::start_with(3, limits).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let (before, behind) = (names("before", 40), NodeId(3));
    for key in &before {
        bucket.change(NodeId(1), key, &put("v"), &Said::nothing(), &w(3)).await.expect("up");
    }
    cluster.isolate(behind);
    cluster.settle().await;
    let mut expected = before.clone();
    for key in before.iter().step_by(3) {
        bucket.apply(NodeId(1), key, &Operation::Clear).await;
        expected.remove(key);
    }
    for key in names("after", 40) {
        bucket.change(NodeId(1), &key, &put("v"), &Said::nothing(), &w(2)).await.expect("two");
        expected.insert(key);
    }
    cluster.rejoin(behind);
    cluster.settle().await;
    for via in cluster.up() {
        for with in [r(2), r(3)] {
            assert_eq!(listed(&bucket, &[via], "", &with, 25).await.0, expected, "via {via}");
        }
    }
}

/// With a node down two owners of each partition are enough, and three are too many: then the page is refused and the
/// same page works when the node is back.
#[tokio::test(start_paused = true)]
async fn a_listing_goes_on_without_one_owner() {
    let mut cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let all = names("k", 120);
    write_all(&bucket, NodeId(1), &all).await;
    let first = page(&bucket, NodeId(1), "", &Bytes::new(), &r(3), 10).await.expect("all are up");
    cluster.crash(NodeId(4));
    cluster.settle().await;
    let up = cluster.up();
    assert_eq!(listed(&bucket, &up, "", &r(2), 17).await.0, all);
    let mut token = first.page.clone();
    let failure = loop {
        match page(&bucket, NodeId(1), "", &token, &r(3), 100).await {
            Ok(next) => token = next.page,
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.code, ErrorCode::ReadQuorumNotMet);
    assert_eq!(failure.effect, Effect::NotApplied);
    assert!(failure.detail.contains("owners of partition"), "{}", failure.detail);
    cluster.boot(NodeId(4)).await;
    cluster.settle().await;
    page(&bucket, NodeId(1), "", &token, &r(3), 100).await.expect("it goes on there");
}

/// A damaged record does not hide a key.
#[tokio::test(start_paused = true)]
async fn a_damaged_record_hides_no_key() {
    let cluster = Cluster::start(3).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let all = names("k", 30);
    for key in &all {
        bucket.change(NodeId(1), key, &put("v"), &Said::nothing(), &w(3)).await.expect("up");
    }
    for key in all.iter().step_by(4) {
        let row = bucket.row(key);
        assert!(cluster.store(NodeId(2)).damage(atoll_node::storage::Space::Data, &row));
    }
    for via in cluster.up() {
        assert_eq!(listed(&bucket, &[via], "", &r(2), 9).await.0, all, "through {via}");
    }
}

/// While a partition moves, and after its former owner has forgotten it, nothing is missing and nothing comes twice.
#[tokio::test(start_paused = true)]
async fn a_listing_is_whole_while_the_ring_moves() {
    let mut ring = Ring::start().await;
    let bucket = Bucket::create(&ring.cluster, Kind::Register).await;
    let mut all = names("k", 80);
    all.extend(bucket.keys_beside(&ring.cluster.row("k"), 60));
    write_all(&bucket, NodeId(1), &all).await;
    let nodes = ring.cluster.up();
    let first = page(&bucket, NodeId(1), "", &Bytes::new(), &r(2), 20).await.expect("up");
    ring.hold(3, &[Step::Page]);
    ring.want(&[3, 1, 2]).await;
    ring.begin().await;
    assert_eq!(listed(&bucket, &nodes, "", &r(2), 20).await.0, all, "it has begun");
    for via in &nodes {
        assert_eq!(listed(&bucket, &[*via], "", &DEFAULT, 30).await.0, all, "through {via}");
    }
    ring.hold(3, &[]);
    ring.until_done(3).await;
    assert_eq!(listed(&bucket, &nodes, "", &r(2), 20).await.0, all, "all is copied");
    ring.finish().await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    for via in &nodes {
        assert_eq!(listed(&bucket, &[*via], "", &r(3), 30).await.0, all, "through {via}");
    }
    // a listing that began before the move goes on after it
    let mut keys = first.read().expect("keys");
    let mut token = first.page;
    while !token.is_empty() {
        let next = page(&bucket, NodeId(2), "", &token, &r(2), 20).await.expect("up");
        keys.extend(next.read().expect("keys"));
        token = next.page;
    }
    let named: BTreeSet<String> =
        keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
    assert_eq!((named.len(), named), (keys.len(), all));
}

/// A page belongs to its bucket and its prefix.
#[tokio::test(start_paused = true)]
async fn a_page_of_another_listing_is_refused() {
    let cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let other = Bucket::create(&cluster, Kind::Lww).await;
    write_all(&bucket, NodeId(1), &names("k", 20)).await;
    write_all(&other, NodeId(1), &names("k", 20)).await;
    let token = page(&bucket, NodeId(1), "k", &Bytes::new(), &r(2), 5).await.expect("up").page;
    assert!(!token.is_empty());
    let cases = [
        (&other, "k", token.clone(), "another bucket"),
        (&bucket, "k:", token.clone(), "another prefix"),
        (&bucket, "k", Bytes::from_static(b"page 2"), "no page"),
    ];
    for (asked, prefix, token, says) in cases {
        let refused = page(asked, NodeId(2), prefix, &token, &r(2), 5).await;
        let failure = refused.expect_err("it belongs elsewhere");
        assert_eq!((failure.code, failure.effect), (ErrorCode::BadPage, Effect::NotApplied));
        assert!(failure.detail.contains(says), "{}", failure.detail);
    }
}
