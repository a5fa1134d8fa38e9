//! What a node says would happen to a request, and that it is so.

use std::time::Duration;

use atoll_antientropy::Operation;
use atoll_ring::{Consistency, Level, NodeId, Token};
use atoll_wire::{ErrorCode, Expected, Explained, Health};

use crate::{
    cluster::{Cluster, DEFAULT, SLOPPY, SYNC, With, blind, r, w},
    fencing::Moving,
};

fn ids(nodes: &[NodeId]) -> Vec<u32> {
    nodes.iter().map(|node| node.0).collect()
}

fn health(explained: &Explained, node: NodeId) -> Health {
    explained.replica(node.0).expect("it has to do with the key").health.clone()
}

/// Any node knows the place of a key, its owners in their order, the fallbacks in theirs, and fills in what was left out.
/// Nothing is read or written for it.
#[tokio::test(start_paused = true)]
async fn every_node_tells_the_same_place() {
    let cluster = Cluster::start(6).await;
    cluster.put(NodeId(1), "k", "v", &blind(), &DEFAULT).await.expect("all are up");
    cluster.settle().await;
    let sent = || cluster.network.traffic().sent;
    let before = sent();
    for via in 1..=6 {
        cluster.status(NodeId(via)).await;
    }
    let questions_alone = sent() - before;
    let before = sent();
    let token = Token::of(&cluster.bucket().0, b"k");
    for via in 1..=6 {
        let via = NodeId(via);
        let told = cluster.client().explain(via, "k", &SLOPPY).await.expect("up");
        assert_eq!(told.node, via.0);
        assert_eq!((told.token, told.partition), (token.0, cluster.view.partition(token).0));
        assert_eq!((told.owners.clone(), told.joining.clone()), (ids(&cluster.owners("k")), None));
        assert_eq!(told.fallbacks, ids(&cluster.fallbacks("k")));
        assert_eq!((told.quorum.n(), told.quorum.r(), told.quorum.w()), (3, 2, 2));
        assert!(told.places.iter().all(|replica| replica.health == Health::Up), "{told:?}");
        assert!(told.places.iter().all(|replica| replica.zone == "z1"), "{told:?}");
        assert_eq!(told.consistency().word(), "eventual");
    }
    assert_eq!(sent() - before, questions_alone, "nothing passes between nodes");
}

/// Whoever is down or silent is called so, the tolerances follow, and what they promise is what happens.
#[tokio::test(start_paused = true)]
async fn tolerances_follow_the_nodes_and_hold() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let via = owners[0];
    let check = async |cluster: &Cluster, with: With, read: Option<u8>, write: Option<u8>| {
        let told = cluster.client().explain(via, "k", &with).await.expect("up");
        let tolerance = told.tolerance();
        assert_eq!((tolerance.read, tolerance.write), (read, write), "{with:?} {told:?}");
        let written = cluster.put(via, "k", "v", &blind(), &with).await;
        assert_eq!(written.is_ok(), write.is_some(), "{with:?} {written:?}");
        let found = cluster.get(via, "k", &with).await;
        assert!(found.is_ok() || read.is_none(), "{with:?} {found:?}");
    };
    check(&cluster, DEFAULT, Some(1), Some(1)).await;
    check(&cluster, SLOPPY, Some(1), Some(3)).await;
    cluster.crash(owners[1]);
    cluster.settle().await;
    let told = cluster.client().explain(via, "k", &DEFAULT).await.expect("up");
    assert!(matches!(health(&told, owners[1]), Health::Down(_)), "{told:?}");
    check(&cluster, DEFAULT, Some(0), Some(0)).await;
    check(&cluster, SLOPPY, Some(0), Some(2)).await;
    cluster.crash(owners[2]);
    cluster.settle().await;
    check(&cluster, DEFAULT, None, None).await;
    check(&cluster, SLOPPY, None, Some(1)).await;
}

/// A node that has lost its disk takes writes, and its answers do not count: so it is said, by itself and by others.
#[tokio::test(start_paused = true)]
async fn doubt_is_told() {
    let mut cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("all are up");
    cluster.crash(owners[2]);
    cluster.wipe(owners[2]);
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    for via in [owners[0], owners[2]] {
        let told = cluster.client().explain(via, "k", &DEFAULT).await.expect("up");
        assert_eq!(health(&told, owners[2]), Health::InDoubt, "through {via}");
        let tolerance = told.tolerance();
        assert_eq!((tolerance.read, tolerance.write), (Some(0), Some(1)), "through {via}");
    }
}

/// While a partition moves both sets are told, and the numbers hold in both.
#[tokio::test(start_paused = true)]
async fn a_move_is_told() {
    let moving = Moving::start().await;
    moving.tell(&moving.everybody(), &moving.joint).await;
    let told = moving.cluster.client().explain(moving.first, "k", &DEFAULT).await.expect("up");
    assert!(told.owners.contains(&moving.leaving.0) && !told.owners.contains(&moving.joining.0));
    let joining = told.joining.clone().expect("it moves");
    assert!(joining.contains(&moving.joining.0) && !joining.contains(&moving.leaving.0));
    assert_eq!(told.changed_in, moving.joint.epoch().0);
    assert_eq!(told.places.len(), 4);
    let tolerance = told.tolerance();
    assert_eq!((tolerance.read, tolerance.write, tolerance.loss.running), (Some(1), Some(1), 1));
}

/// What a request should take is what it takes: the second fastest of three owners, with a link of 4 ms and one of 30 ms.
#[tokio::test(start_paused = true)]
async fn expected_times_are_those_that_were_measured() {
    let cluster = Cluster::start(5).await;
    let owners = cluster.owners("k");
    let fresh = cluster.client().explain(owners[0], "k", &DEFAULT).await.expect("up");
    assert_eq!(
        (fresh.expected_read(), fresh.expected_write()),
        (None, None),
        "nothing was measured"
    );
    let ms = Duration::from_millis;
    for (owner, way) in [(owners[1], ms(4)), (owners[2], ms(30))] {
        cluster.network.slow(owners[0], owner, way / 2);
        cluster.network.slow(owner, owners[0], way / 2);
    }
    for _ in 0..20 {
        cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("all are up");
        cluster.get(owners[0], "k", &r(3)).await.expect("all are up");
    }
    let told = cluster.client().explain(owners[0], "k", &DEFAULT).await.expect("up");
    let close = |expected: Option<Expected>, exact: Duration| {
        let expected = expected.expect("measured");
        let found = Duration::from_micros(expected.p50_micros.into());
        assert!(exact <= found && found <= exact * 5 / 4 + ms(1), "{exact:?} {found:?}");
        assert!(expected.samples >= 40, "{expected:?}");
    };
    close(told.expected_read(), ms(4));
    close(told.expected_write(), ms(4) + SYNC);
    let all = With { r: Some(3), w: Some(3), ..DEFAULT };
    let told = cluster.client().explain(owners[0], "k", &all).await.expect("up");
    close(told.expected_read(), ms(30));
    close(told.expected_write(), ms(30) + SYNC);
}

/// Settings that contradict each other, and keys that cannot be, are refused as by a request itself.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_cannot_be_explained() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let with = With { r: Some(4), ..DEFAULT };
    let refused = client.explain(NodeId(1), "k", &with).await.expect_err("r is above n");
    assert_eq!(refused.code, ErrorCode::BadQuorum);
    let refused = client.explain(NodeId(1), "", &DEFAULT).await.expect_err("no key");
    assert_eq!(refused.code, ErrorCode::KeyLength);
    let told = client.explain(NodeId(1), "k", &DEFAULT).await.expect("up");
    let strict = Consistency::Strict { r: 2, w: 2, n: 3, without_power: true };
    assert_eq!(told.consistency(), strict);
}

/// What a bucket says is filled in before anything is explained.
#[tokio::test(start_paused = true)]
async fn settings_of_the_bucket_are_filled_in() {
    use atoll_wire::{
        BucketChange, Change, Reply, Request,
        bucket::{Creation, Properties},
    };
    let cluster = Cluster::start(5).await;
    let properties =
        Properties { r: Some(Level::Count(1)), sloppy: Some(false), ..Properties::default() };
    let creation = Creation {
        name: "two".into(),
        kind: atoll_antientropy::Kind::Register,
        n: Some(2),
        properties,
    };
    let change = Change::Create(creation);
    let asked = Request::BucketChange(BucketChange { change, registry: bytes::Bytes::new() });
    let created = cluster.client().call(NodeId(1), asked, 1000).await.expect("up");
    let Reply::BucketChanged(created) = created else { panic!("{created:?}") };
    let client = cluster.client().in_bucket(created.bucket);
    let quorum = atoll_ring::QuorumRequest::default();
    let put = Operation::Put { value: "v".into(), expires_ms: None };
    let write = atoll_wire::Write::new("k".into(), quorum, &put);
    client.call(NodeId(2), Request::Write(write), 1000).await.expect("up");
    let asked = Request::Explain(atoll_wire::Explain { key: "k".into(), quorum });
    let told = client.call(NodeId(3), asked, 1000).await.expect("up");
    let Reply::Explained(told) = told else { panic!("{told:?}") };
    assert_eq!((told.bucket_n, told.owners.len(), told.quorum.r(), told.quorum.w()), (2, 2, 1, 2));
    assert!(!told.quorum.sloppy());
}
