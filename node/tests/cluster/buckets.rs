//! Buckets: known everywhere without a vote, kept by as many owners as they say, and gone for good when they are dropped.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use atoll_node::storage::{Space, Store as _, rows};
use atoll_ring::{Command, Entry, Epoch, Level, NodeId, Partition, Token, Wish};
use atoll_wire::{
    BucketChange, BucketChanged, BucketId, Buckets, BucketsQuery, Change, ErrorCode, Failure,
    Reply, Request,
    bucket::{Alteration, Creation, Kind, Properties, Registry},
};
use bytes::Bytes;

use crate::{
    cluster::{Client, Cluster, DEFAULT, SLOPPY, SYNC, With, blind, sloppy_w, texts, values},
    exchange::assert_trees,
};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N5: NodeId = NodeId(5);

/// As many answers as there are copies, or what the bucket says.
const AS_BUCKET: With = With { sloppy: true, ..DEFAULT };

async fn change(cluster: &Cluster, via: NodeId, change: Change) -> Result<BucketChanged, Failure> {
    let request = Request::BucketChange(BucketChange { change, registry: Bytes::new() });
    match cluster.client().call(via, request, 1000).await? {
        Reply::BucketChanged(changed) => Ok(changed),
        other => panic!("a change of buckets was answered with {other:?}"),
    }
}

fn creation(name: &str, kind: Kind, n: u8) -> Change {
    Change::Create(Creation {
        name: name.into(),
        kind,
        n: Some(n),
        properties: Properties::default(),
    })
}

/// Makes a bucket of registers, through n1.
async fn make(cluster: &mut Cluster, name: &str, n: u8) -> BucketId {
    let made = change(cluster, N1, creation(name, Kind::Register, n)).await.expect("it can be");
    cluster.made.insert(made.bucket, n);
    made.bucket
}

/// A client that speaks about this bucket.
fn client(cluster: &Cluster, bucket: BucketId) -> Client {
    cluster.client_of(bucket)
}

/// All that a node knows of buckets.
async fn known(cluster: &Cluster, node: NodeId) -> Registry {
    let request = Request::Buckets(BucketsQuery { have: 0 });
    match cluster.client().call(node, request, 1000).await {
        Ok(Reply::Buckets(Buckets { registry, .. })) => {
            Registry::decode(&registry, cluster.view.bucket_n()).expect("a registry")
        }
        other => panic!("a query for buckets was answered with {other:?}"),
    }
}

/// Everybody knows the same.
async fn agreed(cluster: &Cluster) -> Registry {
    let mut all = Vec::new();
    for node in cluster.up() {
        all.push(known(cluster, node).await);
    }
    assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
    all.remove(0)
}

fn partition(cluster: &Cluster, bucket: BucketId, key: &str) -> Partition {
    cluster.view.partition(Token::of(&bucket.0, key.as_bytes()))
}

/// The owners of a key's partition, all of them.
fn owners(cluster: &Cluster, bucket: BucketId, key: &str) -> Vec<NodeId> {
    cluster.view.owners(partition(cluster, bucket, key)).all()
}

/// What a node's disk holds of a key, as text; none = no record.
fn held(cluster: &Cluster, node: NodeId, bucket: BucketId, key: &str) -> Option<Vec<String>> {
    let token = Token::of(&bucket.0, key.as_bytes());
    let row = rows::data(cluster.view.partition(token), token, bucket, key.as_bytes());
    let value = cluster.store(node).get(Space::Data, &row).expect("memory")?;
    let record = atoll_node::storage::record::Record::decode(&row, &value).expect("undamaged");
    Some(texts(&record.state))
}

/// Who holds a record of a key.
fn holders(cluster: &Cluster, bucket: BucketId, key: &str) -> BTreeSet<NodeId> {
    let all = (1..=5).map(NodeId);
    all.filter(|node| held(cluster, *node, bucket, key).is_some()).collect()
}

/// Rows of a bucket on a node's disk, hints included.
fn rows_of(cluster: &Cluster, node: NodeId, bucket: BucketId) -> usize {
    let count = |space, of: fn(&Bytes) -> Bytes| {
        let rows = cluster.store(node).scan(space, b"", None, usize::MAX).expect("memory");
        let is_of =
            |row: &Bytes| rows::bucket_and_key(&of(row)).is_some_and(|(id, _)| id == bucket);
        rows.iter().filter(|(row, _)| is_of(row)).count()
    };
    count(Space::Data, Bytes::clone)
        + count(Space::Digests, Bytes::clone)
        + count(Space::Quarantine, Bytes::clone)
        + count(Space::Hints, rows::data_of_hint)
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key{number}")).collect()
}

/// The first n owners hold each key, with the same values, and nobody else does.
fn assert_placed(cluster: &Cluster, bucket: BucketId, n: usize, keys: &[String]) {
    for key in keys {
        let owners = owners(cluster, bucket, key);
        let expected: BTreeSet<NodeId> = owners[..n].iter().copied().collect();
        assert_eq!(holders(cluster, bucket, key), expected, "{key} of {owners:?}");
        let all: BTreeSet<_> =
            expected.iter().map(|node| held(cluster, *node, bucket, key)).collect();
        assert_eq!(all.len(), 1, "{key}: {all:?}");
    }
}

/// Everybody within reach knows a new bucket when its creator hears so; who was away knows it soon after.
#[tokio::test(start_paused = true)]
async fn a_bucket_is_known_at_once_and_everywhere_soon() {
    let cluster = Cluster::start(5).await;
    cluster.isolate(N5);
    cluster.settle().await;
    let made = change(&cluster, N1, creation("a", Kind::Counter, 2)).await.expect("it can be");
    assert!(made.changed);
    assert_eq!((made.known, made.missing), (vec![1, 2, 3, 4], vec![5]));
    assert!(known(&cluster, N5).await.entry(made.bucket).is_none());
    cluster.rejoin(N5);
    cluster.settle().await;
    let registry = agreed(&cluster).await;
    assert_eq!(registry.resolve("a").map(|(id, _)| id), Ok(made.bucket));

    let again = change(&cluster, N2, creation("a", Kind::Counter, 2)).await.expect("the same");
    assert!(!again.changed && again.bucket == made.bucket && again.missing.is_empty());
}

/// What cannot be is refused by its rule, and changes nothing.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused() {
    let mut cluster = Cluster::start(5).await;
    let bucket = make(&mut cluster, "a", 2).await;
    let before = agreed(&cluster).await;
    let default = cluster.bucket();
    let set = Properties { r: Some(Level::Count(3)), ..Properties::default() };
    let alter = |bucket| Change::Alter(bucket, Alteration { set, unset: Vec::new() });
    let cases = [
        (creation("a", Kind::Set, 2), ErrorCode::BucketExists),
        (creation("a", Kind::Register, 3), ErrorCode::BucketExists),
        (creation("b", Kind::Register, 4), ErrorCode::BadBucket),
        (creation("b", Kind::Register, 0), ErrorCode::BadBucket),
        (creation("", Kind::Register, 3), ErrorCode::BadBucket),
        (creation("b\n", Kind::Register, 3), ErrorCode::BadBucket),
        (creation("default", Kind::Register, 3), ErrorCode::BadBucket),
        (Change::Drop(default), ErrorCode::BadBucket),
        (Change::Drop(BucketId([1; 16])), ErrorCode::UnknownBucket),
        (alter(bucket), ErrorCode::BadBucket),
    ];
    for (asked, code) in cases {
        let refused = change(&cluster, N1, asked.clone()).await.expect_err("it cannot be");
        assert_eq!(refused.code, code, "{asked:?}: {refused}");
    }
    assert_eq!(agreed(&cluster).await, before);
    change(&cluster, N1, alter(default)).await.expect("three are three");
}

/// Only the first two owners hold a bucket with N = 2, whatever happens: down, wiped, compared, mended.
#[tokio::test(start_paused = true)]
async fn two_copies_and_no_third() {
    let mut cluster = Cluster::start(5).await;
    let bucket = make(&mut cluster, "a", 2).await;
    let keys = keys(60);
    let client = client(&cluster, bucket);
    for key in &keys {
        client.put(N1, key, "v", &blind(), &AS_BUCKET).await.expect("all are up");
        cluster.put(N1, key, "d", &blind(), &SLOPPY).await.expect("all are up");
    }
    cluster.settle().await;
    assert_placed(&cluster, bucket, 2, &keys);
    assert_trees(&cluster);

    // one is away, and others stand in, the third owner among them; it is back, and what it missed is brought
    cluster.crash(N2);
    cluster.settle().await;
    for key in keys.iter().step_by(2) {
        client.put(N1, key, "w", &blind(), &sloppy_w(2)).await.expect("others stand in");
    }
    cluster.boot(N2).await;
    cluster.release_exchange();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_placed(&cluster, bucket, 2, &keys);
    assert_eq!(cluster.hints().await, 0);
    assert_trees(&cluster);

    // its disk is empty: it gets all of it back, and the buckets before
    cluster.wipe(N2);
    cluster.boot(N2).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_placed(&cluster, bucket, 2, &keys);
    assert_placed(&cluster, cluster.bucket(), 3, &keys);
    assert_trees(&cluster);
    assert_eq!(cluster.status(N2).await.partitions_in_doubt, 0);
    for (number, key) in keys.iter().enumerate() {
        let found = client.get(N2, key, &AS_BUCKET).await.expect("all are up");
        let expected: &[&str] = if number % 2 == 0 { &["v", "w"] } else { &["v"] };
        assert_eq!(values(&found), expected, "{key}");
    }
}

/// The owners of a partition change places: rows follow the places, whatever N their bucket has.
#[tokio::test(start_paused = true)]
async fn rows_follow_the_places_of_owners() {
    for target in [[3, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1], [4, 3, 0], [1, 2, 3]] {
        let mut cluster = Cluster::start(5).await;
        let one = make(&mut cluster, "one", 1).await;
        let two = make(&mut cluster, "two", 2).await;
        let three = cluster.bucket();
        let at_of = |bucket| partition(&cluster, bucket, "k");
        let moved = at_of(two);
        let keys: Vec<String> = (0..4000).map(|number| format!("k{number}")).collect();
        let of_partition = |bucket: BucketId| -> Vec<String> {
            let is_in = |key: &&String| partition(&cluster, bucket, key) == moved;
            keys.iter().filter(is_in).cloned().collect()
        };
        let all = [
            (one, 1, of_partition(one)),
            (two, 2, of_partition(two)),
            (three, 3, of_partition(three)),
        ];
        for (bucket, _, keys) in &all {
            assert!(keys.len() > 20);
            for key in keys {
                let client = client(&cluster, *bucket);
                client.put(N1, key, "v", &blind(), &AS_BUCKET).await.expect("all are up");
            }
        }
        cluster.settle().await;
        let mut at = cluster.view.owners(moved).all();
        at.extend((1..=5).map(NodeId).filter(|node| !cluster.view.owners(moved).contains(*node)));
        let target: Vec<NodeId> = target.iter().map(|place| at[*place]).collect();
        let moves = std::collections::BTreeMap::from([(moved, target)]);
        let base = cluster.view.epoch();
        adopt(&mut cluster, Command::Change { base, wish: Wish::Rebalance, moves }).await;
        adopt(&mut cluster, Command::Begin { partitions: vec![moved] }).await;
        // written while it moves, on the old places and on the new
        for (bucket, _, keys) in &all {
            for key in keys.iter().step_by(3) {
                let client = client(&cluster, *bucket);
                client.put(N2, key, "w", &blind(), &AS_BUCKET).await.expect("all are up");
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let session = cluster.view.last_changed(moved);
        adopt(&mut cluster, Command::Finish { partitions: vec![(moved, session)] }).await;
        cluster.release_exchange();
        tokio::time::sleep(Duration::from_secs(30)).await;
        for (bucket, n, keys) in &all {
            assert_placed(&cluster, *bucket, *n, keys);
            for (number, key) in keys.iter().enumerate() {
                let client = client(&cluster, *bucket);
                let found = client.get(N5, key, &AS_BUCKET).await.expect("all are up");
                let expected: &[&str] = if number % 3 == 0 { &["v", "w"] } else { &["v"] };
                assert_eq!(values(&found), expected, "{key} N={n}");
            }
        }
        assert_trees(&cluster);
    }
}

/// The next view, for everybody.
async fn adopt(cluster: &mut Cluster, command: Command) {
    let entry = Entry { epoch: Epoch(cluster.view.epoch().0 + 1), at_ms: 0, command };
    let next = cluster.view.apply(&entry).expect("it fits");
    cluster.view = Arc::new(next.clone());
    cluster.node(N1).adopt(next, &[], Vec::new()).await.expect("memory");
    cluster.settle().await;
}

/// Two sides that cannot see each other give one name to two kinds. Afterwards everybody says the same: the smaller id has
/// the name, the other is read by its id, and no data is mixed.
#[tokio::test(start_paused = true)]
async fn two_creations_of_one_name() {
    let mut cluster = Cluster::start(5).await;
    let far = [NodeId(4), N5];
    cluster.split(&far);
    cluster.settle().await;
    let near = change(&cluster, N1, creation("a", Kind::Register, 3)).await.expect("it can be");
    assert_eq!(near.known, [1, 2, 3]);
    let other = change(&cluster, N5, creation("a", Kind::Register, 2)).await.expect("it can be");
    assert_eq!(other.known, [4, 5]);
    for (made, n, via) in [(&near, 3, N1), (&other, 2, N5)] {
        cluster.made.insert(made.bucket, n);
        let client = client(&cluster, made.bucket);
        client.put(via, "k", &format!("N={n}"), &blind(), &sloppy_w(1)).await.expect("one is up");
    }
    cluster.heal();
    cluster.release_exchange();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let registry = agreed(&cluster).await;
    let first = near.bucket.min(other.bucket);
    assert_eq!(registry.resolve("a").map(|(id, _)| id), Ok(first));
    for (made, n) in [(&near, 3), (&other, 2)] {
        let text = format!("a@{}", &made.bucket.to_string()[..8]);
        assert_eq!(registry.resolve(&text).map(|(id, _)| id), Ok(made.bucket));
        assert_placed(&cluster, made.bucket, n, &["k".into()]);
        for via in cluster.up() {
            let client = client(&cluster, made.bucket);
            let found = client.get(via, "k", &AS_BUCKET).await.expect("all are up");
            assert_eq!(values(&found), [format!("N={n}")]);
        }
    }
    assert_trees(&cluster);
}

/// A node that has never heard of a bucket asks before it refuses; one that nobody knows is refused, and asked about once.
#[tokio::test(start_paused = true)]
async fn an_unknown_bucket_is_asked_about() {
    let mut cluster = Cluster::start(5).await;
    // n5 hears nothing of n1, which creates, and nothing of n1's registry by the digests of others either
    for other in (1..=4).map(NodeId) {
        cluster.network.cut(N5, other);
        cluster.network.cut(other, N5);
    }
    cluster.settle().await;
    let bucket = make(&mut cluster, "a", 3).await;
    let client = client(&cluster, bucket);
    let refused = client.get(N5, "k", &DEFAULT).await.expect_err("it knows nothing of it");
    assert_eq!(refused.code, ErrorCode::UnknownBucket, "{refused}");
    cluster.heal();
    client.put(N1, "k", "v", &blind(), &AS_BUCKET).await.expect("four are up");
    // what it was told a moment ago is not asked again; the digests bring it
    cluster.settle().await;
    let found = client.get(N5, "k", &AS_BUCKET).await.expect("it has heard by now");
    assert_eq!(values(&found), ["v"]);

    let nobody = cluster.client_of(BucketId([9; 16]));
    let refused = nobody.get(N2, "k", &DEFAULT).await.expect_err("there is none");
    assert_eq!(refused.code, ErrorCode::UnknownBucket);
    let refused = nobody.put(N2, "k", "v", &blind(), &DEFAULT).await.expect_err("there is none");
    assert_eq!(refused.code, ErrorCode::UnknownBucket);
}

/// It was out of reach for the one moment in which everybody was told, and is asked before the next ping.
#[tokio::test(start_paused = true)]
async fn the_first_request_brings_the_definition() {
    let mut cluster = Cluster::start(5).await;
    cluster.network.cut(N1, N5);
    let asked = BucketChange { change: creation("a", Kind::Register, 3), registry: Bytes::new() };
    let (client, asked) = (cluster.client(), Request::BucketChange(asked));
    let telling = tokio::spawn(async move { client.call(N1, asked, 1000).await });
    tokio::time::sleep(20 * SYNC).await; // n1 still waits for n5, the others have heard
    let registry = known(&cluster, N2).await;
    let (bucket, _) = registry.resolve("a").expect("it was told");
    cluster.made.insert(bucket, 3);
    assert!(known(&cluster, N5).await.entry(bucket).is_none());
    let client = cluster.client_of(bucket);
    client.put(N5, "k", "v", &blind(), &AS_BUCKET).await.expect("it asks the others");
    let Reply::BucketChanged(made) = telling.await.expect("it ends").expect("it can be") else {
        panic!("a change of buckets was answered with something else")
    };
    assert_eq!((made.known, made.missing), (vec![1, 2, 3, 4], vec![5]));
    assert!(known(&cluster, N5).await.entry(bucket).is_some());
}

/// Dropped and created again it is empty, on every node and for ever, also for one that was away while it happened and
/// comes back with all the data; of that nothing is left on any disk.
#[tokio::test(start_paused = true)]
async fn what_was_dropped_does_not_come_back() {
    let mut cluster = Cluster::start(5).await;
    let old = make(&mut cluster, "a", 3).await;
    let keys = keys(40);
    for key in &keys {
        client(&cluster, old).put(N1, key, "old", &blind(), &AS_BUCKET).await.expect("up");
    }
    cluster.crash(N5);
    cluster.settle().await;
    for key in &keys {
        // hints for n5 are left behind
        client(&cluster, old).put(N1, key, "older", &blind(), &AS_BUCKET).await.expect("up");
    }
    assert!(cluster.hints().await > 0);
    let dropped = change(&cluster, N1, Change::Drop(old)).await.expect("it is there");
    assert!(dropped.changed && dropped.missing == [5]);
    let refused = client(&cluster, old).get(N2, "key1", &DEFAULT).await.expect_err("it is gone");
    assert_eq!(refused.code, ErrorCode::BucketDropped);
    let new = make(&mut cluster, "a", 3).await;
    assert_ne!(old, new);
    cluster.settle().await;
    for node in cluster.up() {
        assert_eq!(rows_of(&cluster, node, old), 0, "{node}");
    }

    cluster.release_exchange();
    cluster.boot(N5).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let registry = agreed(&cluster).await;
    assert_eq!(registry.resolve("a").map(|(id, _)| id), Ok(new));
    for node in cluster.up() {
        assert_eq!(rows_of(&cluster, node, old), 0, "{node}");
        for key in keys.iter().step_by(7) {
            let found = client(&cluster, new).get(node, key, &AS_BUCKET).await.expect("up");
            assert!(values(&found).is_empty(), "{key}");
        }
    }
    assert_eq!(cluster.hints().await, 0);
    assert_trees(&cluster);
}

/// Somebody who has not heard of the drop cannot bring a row back, nor can what is queued when the power fails.
#[tokio::test(start_paused = true)]
async fn a_drop_outlives_a_power_loss() {
    let mut cluster = Cluster::start(5).await;
    let bucket = make(&mut cluster, "a", 2).await;
    let keys = keys(30);
    for key in &keys {
        client(&cluster, bucket).put(N1, key, "v", &blind(), &AS_BUCKET).await.expect("up");
    }
    change(&cluster, N1, Change::Drop(bucket)).await.expect("it is there");
    cluster.crash_all(&cluster.up());
    cluster.boot_all(&(1..=5).map(NodeId).collect::<Vec<_>>()).await;
    cluster.settle().await;
    for node in cluster.up() {
        assert_eq!(rows_of(&cluster, node, bucket), 0, "{node}");
    }
    assert!(agreed(&cluster).await.entry(bucket).is_some_and(|entry| entry.dropped));
    assert_trees(&cluster);
}

/// What a request leaves out is as the bucket has it, from the next request on after it was altered.
#[tokio::test(start_paused = true)]
async fn a_request_finds_the_buckets_defaults() {
    let mut cluster = Cluster::start(5).await;
    let bucket = make(&mut cluster, "a", 3).await;
    let client = client(&cluster, bucket);
    let stored = client.put(N1, "k", "v", &blind(), &AS_BUCKET).await.expect("up");
    assert_eq!(stored.receipt.needed, 2);
    let set = Properties {
        w: Some(Level::All),
        r: Some(Level::Count(1)),
        value_bytes_max: Some(3),
        ..Properties::default()
    };
    let alteration = Alteration { set, unset: Vec::new() };
    change(&cluster, N2, Change::Alter(bucket, alteration)).await.expect("it can be");
    let stored = client.put(N1, "k", "w", &blind(), &AS_BUCKET).await.expect("up");
    assert_eq!((stored.receipt.needed, stored.receipt.durable_needed), (3, 3));
    let found = client.get(N1, "k", &AS_BUCKET).await.expect("up");
    assert_eq!(found.receipt.needed, 1);
    let stored = client.put(N1, "k", "x", &blind(), &sloppy_w(1)).await.expect("up");
    assert_eq!(stored.receipt.needed, 1, "what the request says comes first");
    let refused = client.put(N1, "k", "four", &blind(), &AS_BUCKET).await.expect_err("too long");
    assert_eq!(refused.code, ErrorCode::ValueTooLarge);
    cluster.put(N1, "k", "four", &blind(), &SLOPPY).await.expect("another bucket has its own");
}

/// A single copy: written, read, found again after a power loss; while its owner is away nobody else has it.
#[tokio::test(start_paused = true)]
async fn a_single_copy() {
    let mut cluster = Cluster::start(5).await;
    let bucket = make(&mut cluster, "a", 1).await;
    let client = client(&cluster, bucket);
    let owner = owners(&cluster, bucket, "k")[0];
    let via = *cluster.up().iter().find(|node| **node != owner).expect("there are others");
    let stored = client.put(via, "k", "v", &blind(), &AS_BUCKET).await.expect("up");
    assert_eq!((stored.receipt.n, stored.receipt.needed), (1, 1));
    assert_eq!(holders(&cluster, bucket, "k"), BTreeSet::from([owner]));
    cluster.crash(owner);
    cluster.settle().await;
    client.get(via, "k", &DEFAULT).await.expect_err("its only owner is away");
    client.put(via, "k", "w", &blind(), &AS_BUCKET).await.expect("somebody stands in");
    cluster.boot(owner).await;
    cluster.settle().await;
    assert_eq!(holders(&cluster, bucket, "k"), BTreeSet::from([owner]));
    let found = client.get(via, "k", &AS_BUCKET).await.expect("it is back");
    assert_eq!(values(&found), ["v", "w"]);
}
