//! Damaged records: set aside, fetched anew from the other owners, and no answer until that is done.

use std::time::Duration;

use atoll_node::storage::{Space, Store as _, Write, record::Record};
use atoll_ring::NodeId;
use atoll_wire::ErrorCode;

use crate::cluster::{Cluster, DEFAULT, With, blind, r, texts, values, w};

/// So long after the damage a key can still be in doubt, with everybody up.
const A_MINUTE: Duration = Duration::from_secs(62);

/// Damages a record and lets its owner notice.
async fn damage(cluster: &Cluster, owner: NodeId, key: &str) {
    assert!(cluster.store(owner).damage(Space::Data, &cluster.row(key)), "{key} at {owner}");
    let _ = cluster.get(owner, key, &r(1)).await;
}

async fn keys_in_doubt(cluster: &Cluster, node: NodeId) -> u64 {
    cluster.status(node).await.keys_in_doubt
}

/// The data are back at once, the damaged bytes are kept until the key has been compared, and then the owner counts again.
#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_fetched_anew() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    damage(&cluster, owners[1], "k").await;
    let damaged = || cluster.store(owners[1]).get(Space::Quarantine, &cluster.row("k"));
    cluster.settle().await;
    cluster.assert_whole("k", &["v"]).await;
    assert!(damaged().expect("memory").is_some(), "kept while the key is in doubt");
    assert_eq!(keys_in_doubt(&cluster, owners[1]).await, 1);
    tokio::time::sleep(A_MINUTE).await;
    assert_eq!(keys_in_doubt(&cluster, owners[1]).await, 0);
    assert!(damaged().expect("memory").is_none());
    let all = cluster.get(owners[0], "k", &r(3)).await.expect("all count");
    assert_eq!(values(&all), ["v"]);
}

/// Bytes with a right checksum that are no state are damaged too.
#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_state_are_damage() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.crash(owners[1]);
    let row = cluster.row("k");
    let value = Some(Record::encode(&row, None, b"no state"));
    cluster.store(owners[1]).apply(&[Write { space: Space::Data, row, value }]).expect("memory");
    cluster.boot(owners[1]).await;
    cluster.settle().await;
    let found = cluster.get(owners[1], "k", &r(2)).await.expect("two undamaged owners");
    assert_eq!(values(&found), ["v"]);
    cluster.settle().await;
    cluster.assert_whole("k", &["v"]).await;
}

/// A record that is gone though its digest is there was lost: no "not found" counts, and it is fetched anew.
#[tokio::test(start_paused = true)]
async fn a_record_that_is_gone_is_damage() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.crash(owners[1]);
    let gone = Write { space: Space::Data, row: cluster.row("k"), value: None };
    cluster.store(owners[1]).apply(&[gone]).expect("memory");
    cluster.boot(owners[1]).await;
    cluster.settle().await;
    let found = cluster.get(owners[1], "k", &r(1)).await.expect("another owner");
    assert_eq!(values(&found), ["v"]);
    cluster.settle().await;
    cluster.assert_whole("k", &["v"]).await;
    assert_eq!(keys_in_doubt(&cluster, owners[1]).await, 1);
}

/// Doubt outlives the process.
#[tokio::test(start_paused = true)]
async fn doubt_of_a_key_survives_power_loss() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    cluster.crash(owners[2]);
    cluster.settle().await;
    damage(&cluster, owners[1], "k").await;
    cluster.settle().await;
    cluster.crash(owners[1]);
    cluster.boot(owners[1]).await;
    cluster.settle().await;
    assert_eq!(keys_in_doubt(&cluster, owners[1]).await, 1);
    cluster.get(owners[1], "k", &r(2)).await.expect_err("one is down, one in doubt");
    cluster.boot(owners[2]).await;
    tokio::time::sleep(2 * A_MINUTE).await;
    assert_eq!(keys_in_doubt(&cluster, owners[1]).await, 0);
    cluster.get(owners[1], "k", &r(3)).await.expect("all count");
}

/// A key that nobody has damaged but one: two damaged records are mended by the third.
#[tokio::test(start_paused = true)]
async fn one_undamaged_copy_is_enough() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    damage(&cluster, owners[0], "k").await;
    damage(&cluster, owners[1], "k").await;
    tokio::time::sleep(A_MINUTE).await;
    for owner in &owners {
        assert_eq!(keys_in_doubt(&cluster, *owner).await, 0, "{owner}");
        let alone = cluster.get(*owner, "k", &r(1)).await.expect("its own copy");
        assert_eq!(values(&alone), ["v"]);
    }
}

/// Damaged on every owner is said, with what to do, and is never "not found", however long one waits and whoever starts
/// anew. A copy from a backup does not end it, because there may have been more; a person does.
#[tokio::test(start_paused = true)]
async fn damaged_on_every_owner_is_an_error_of_its_own() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    let backup = cluster.backup(owners[2]);
    for owner in &owners {
        assert!(cluster.store(*owner).damage(Space::Data, &cluster.row("k")));
    }
    for _ in 0..3 {
        for (owner, r) in owners.iter().flat_map(|owner| [1, 2, 3].map(|r| (*owner, r))) {
            let with = With { r: Some(r), ..DEFAULT };
            let failure = cluster.get(owner, "k", &with).await.expect_err("every copy is damaged");
            assert_eq!((failure.code, failure.got), (ErrorCode::Corrupt, 0), "{owner} r={r}");
            assert!(failure.detail.contains("every copy"), "{}", failure.detail);
            assert!(failure.detail.contains("--accept-loss"), "{}", failure.detail);
        }
        tokio::time::sleep(Duration::from_secs(1000)).await;
        cluster.crash(owners[0]);
        cluster.boot(owners[0]).await;
        cluster.settle().await;
    }
    for owner in &owners {
        assert_eq!(keys_in_doubt(&cluster, *owner).await, 1, "{owner}");
    }
    cluster.crash(owners[2]);
    cluster.restore(owners[2], &backup);
    cluster.boot(owners[2]).await;
    cluster.release_exchange(); // what was restored is in doubt as a whole
    tokio::time::sleep(3 * A_MINUTE).await;
    let failure = cluster.get(owners[0], "k", &r(1)).await.expect_err("the copy may be old");
    assert_eq!(failure.code, ErrorCode::Corrupt);
    for owner in &owners {
        cluster.accept_loss(*owner, "k").await;
    }
    tokio::time::sleep(3 * A_MINUTE).await;
    let found = cluster.get(owners[0], "k", &r(3)).await.expect("somebody has decided");
    assert_eq!(values(&found), ["v"]);
}

/// After damage on every owner a write is kept, and reads still do not pretend that it is all there ever was.
#[tokio::test(start_paused = true)]
async fn a_write_does_not_end_the_doubt_of_all() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    for owner in &owners {
        assert!(cluster.store(*owner).damage(Space::Data, &cluster.row("k")));
    }
    cluster.put(owners[0], "k", "new", &blind(), &w(3)).await.expect("all keep it");
    tokio::time::sleep(10 * A_MINUTE).await;
    for owner in &owners {
        assert_eq!(texts(&cluster.state(*owner, "k").expect("kept")), ["new"]);
    }
    cluster.get(owners[0], "k", &r(1)).await.expect_err("nobody is sure");
}

/// Two owners have set a damaged record aside, and the third has lost its disk: the trees of all three are equal without
/// the key. The third one is compared with both and counts again, and must not call the key "not found" then: the other two
/// would believe it. It doubts the key as they do, and a person decides.
#[tokio::test(start_paused = true)]
async fn equal_trees_hide_no_key_in_doubt() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    let lost = owners[2];
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    for near in cluster.neighbours("k", 40).iter().skip(1) {
        cluster.put(owners[0], near, "near", &blind(), &w(3)).await.expect("up");
    }
    cluster.wipe(lost);
    cluster.boot(lost).await;
    for owner in &owners[..2] {
        assert!(cluster.store(*owner).damage(Space::Data, &cluster.row("k"))); // both, before one is mended by the other
    }
    for owner in &owners[..2] {
        cluster.get(*owner, "k", &r(1)).await.expect_err("nobody knows");
        assert_eq!(keys_in_doubt(&cluster, *owner).await, 1, "{owner}");
    }
    assert_eq!(cluster.state(lost, "k"), None, "nobody brings it to the third");
    cluster.release_exchange();
    tokio::time::sleep(10 * A_MINUTE).await;
    assert_eq!(cluster.status(lost).await.partitions_in_doubt, 0, "it was compared with both");
    for owner in &owners {
        assert_eq!(keys_in_doubt(&cluster, *owner).await, 1, "{owner}");
        let failure = cluster.get(*owner, "k", &r(1)).await.expect_err("nobody knows");
        assert_eq!(failure.code, ErrorCode::Corrupt, "{owner}: {failure}");
    }
    for owner in &owners {
        cluster.accept_loss(*owner, "k").await;
    }
    tokio::time::sleep(3 * A_MINUTE).await;
    let found = cluster.get(owners[0], "k", &r(3)).await.expect("somebody has decided");
    assert_eq!(values(&found), [""; 0]);
}

/// The record is damaged again while it is being fetched, and again when that is done: each time the doubt begins anew.
#[tokio::test(start_paused = true)]
async fn a_record_may_be_damaged_again() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    for _ in 0..3 {
        damage(&cluster, owners[1], "k").await;
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(keys_in_doubt(&cluster, owners[1]).await, 1);
    }
    tokio::time::sleep(A_MINUTE).await;
    assert_eq!(keys_in_doubt(&cluster, owners[1]).await, 0);
    cluster.assert_whole("k", &["v"]).await;
}

/// The other copies of a write may be on their way when the first one, which has counted, is damaged. Whoever compares at
/// once finds nothing; if that ended the doubt, a read that meets this owner would miss the write when it is acknowledged.
#[tokio::test(start_paused = true)]
async fn doubt_outlasts_the_writes_that_were_under_way() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    let (first, slow, other) = (owners[0], owners[1], owners[2]);
    cluster.network.slow(first, slow, Duration::from_secs(20));
    cluster.network.cut(first, other); // unnoticed
    let client = cluster.client();
    let with = With { timeout_ms: 40_000, ..w(2) };
    let put = tokio::spawn(async move { client.put(first, "k", "v", &blind(), &with).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.network.slow(first, slow, Duration::ZERO);
    cluster.network.mend(first, other);
    damage(&cluster, first, "k").await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(keys_in_doubt(&cluster, first).await, 1, "compared, and too early");
    put.await.expect("no panic").expect("the first owner and the slow one");
    cluster.network.cut(other, slow); // unnoticed
    cluster.network.cut(slow, other);
    let read = cluster.get(other, "k", &r(2)).await;
    assert!(read.is_err() || read.is_ok_and(|found| values(&found) == ["v"]));
    cluster.heal();
    tokio::time::sleep(2 * A_MINUTE).await;
    cluster.assert_whole("k", &["v"]).await;
    assert_eq!(keys_in_doubt(&cluster, first).await, 0);
}
