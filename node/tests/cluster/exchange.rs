//! Owners that hold different states become equal without anybody reading anything.
//!
//! Differences are made by isolating an owner that nobody keeps hints for, or by taking its disk away.

use std::{collections::BTreeMap, time::Duration};

use atoll_antientropy::{
    Secret,
    merkle::{FingerprintKey, Tree},
};
use atoll_node::{
    HintLimits,
    storage::{Space, Store as _, record::Record, rows, summary::Summary},
};
use atoll_ring::{NodeId, Partition};

use crate::cluster::{Cluster, DEFAULT, blind, r, texts, values, w};

const NO_HINTS: HintLimits =
    HintLimits { bytes_per_owner_max: 0, away_max: Duration::from_secs(100_000) };

/// Longer than the pause between two comparisons, and the comparison itself.
const SOON: Duration = Duration::from_secs(12);

/// A cluster in which nothing but comparison mends anything, and nobody compares yet.
async fn start(nodes: u32) -> Cluster {
    Cluster::start_with(nodes, NO_HINTS).await
}

async fn put(cluster: &Cluster, via: NodeId, key: &str, value: &str, acks: u8) {
    cluster.put(via, key, value, &blind(), &w(acks)).await.expect("enough owners are up");
}

/// All owners of these keys hold the same states, and how many values they have.
fn agreed(cluster: &Cluster, keys: impl IntoIterator<Item = String>) -> usize {
    let mut count = 0;
    for key in keys {
        let states: Vec<_> =
            cluster.owners(&key).into_iter().map(|owner| cluster.state(owner, &key)).collect();
        assert!(states.iter().all(|state| *state == states[0]), "{key}: {states:?}");
        count += states[0].as_ref().map_or(0, |state| texts(state).len());
    }
    count
}

/// What a node's trees must say: made from the records themselves, and the digests beside them must say the same.
fn recomputed(cluster: &Cluster, id: NodeId) -> BTreeMap<(Partition, u8), u64> {
    let key = FingerprintKey::derive(&Secret([3; 32]));
    let bits = cluster.view.partitions().count().ilog2();
    let mut trees: BTreeMap<(Partition, u8), Tree> = BTreeMap::new();
    for partition in cluster.view.partitions().all() {
        let owners = cluster.view.owners(partition);
        let kept = (1..=owners.most()).filter(|n| owners.first(*n).contains(id));
        trees.extend(kept.map(|n| ((partition, n), Tree::new(bits))));
    }
    let rows = |space| cluster.store(id).scan(space, b"", None, usize::MAX).expect("memory");
    let mut said = Vec::new();
    for (row, value) in rows(Space::Data) {
        let record = Record::decode(&row, &value).expect("undamaged");
        let summary = Summary::of(&record.state);
        said.push((row.clone(), summary.write(&row).value.expect("a value")));
        let partition = rows::partition_of_data(&row).expect("a data row");
        let token = rows::token_of_data(&row).expect("a data row");
        let (bucket, _) = rows::bucket_and_key(&row).expect("a data row");
        let tree = trees.get_mut(&(partition, cluster.copies(bucket)));
        let tree = tree.expect("only owners store records");
        tree.update(token.0, None, Some(key.of(&row, &summary.digest)));
    }
    assert_eq!(rows(Space::Digests), said, "{id}: digests and records are not of one piece");
    trees.into_iter().map(|(name, tree)| (name, tree.root())).collect()
}

pub fn assert_trees(cluster: &Cluster) {
    for id in cluster.up() {
        for ((partition, n), root) in recomputed(cluster, id) {
            assert_eq!(cluster.node(id).root(partition, n), Some(root), "{id} {partition} N={n}");
        }
    }
}

/// One owner missed d of many writes. Nobody reads; soon all owners are equal, and exactly those keys were mended.
#[tokio::test(start_paused = true)]
async fn owners_that_differ_become_equal() {
    for missed in [1, 7, 150] {
        let mut cluster = start(4).await;
        for number in 0..300 {
            put(&cluster, NodeId(number % 4 + 1), &format!("k{number}"), "v", 3).await;
        }
        cluster.isolate(NodeId(2));
        cluster.settle().await;
        let mut behind = 0;
        for number in 0..missed {
            let key = format!("k{number}");
            put(&cluster, NodeId(1), &key, "more", 2).await;
            behind += u64::from(cluster.owners(&key).contains(&NodeId(2)));
        }
        cluster.rejoin(NodeId(2));
        cluster.release_exchange();
        tokio::time::sleep(SOON).await;
        let keys = (0..300).map(|number| format!("k{number}"));
        assert_eq!(agreed(&cluster, keys), 300 + missed);
        assert_trees(&cluster);
        let mut mended = 0;
        for node in cluster.up() {
            let status = cluster.status(node).await;
            assert!(status.compared_ms_ago < 12_000, "{node}: {} ms", status.compared_ms_ago);
            mended += status.exchanged;
        }
        // two owners may mend the third at the same time
        assert!(mended >= behind && mended <= 2 * behind, "{mended} of {behind}");
    }
}

/// A delete that an owner missed reaches it, and its value does not come back to the others. Tombstones are counted.
#[tokio::test(start_paused = true)]
async fn deletions_win_over_what_they_have_deleted() {
    let mut cluster = start(3).await;
    put(&cluster, NodeId(1), "k", "gone", 3).await;
    put(&cluster, NodeId(1), "stays", "v", 3).await;
    let seen = cluster.get(NodeId(1), "k", &r(3)).await.expect("up");
    cluster.isolate(NodeId(3));
    cluster.settle().await;
    cluster.delete(NodeId(1), "k", &seen.context, &w(2)).await.expect("two are up");
    assert_eq!(cluster.status(NodeId(3)).await.tombstones, 0);
    cluster.rejoin(NodeId(3));
    cluster.release_exchange();
    tokio::time::sleep(SOON).await;
    for node in cluster.up() {
        assert!(cluster.state(node, "k").expect("a tombstone").is_tombstone(), "{node}");
        assert_eq!(cluster.status(node).await.tombstones, 1, "{node}");
    }
    assert_trees(&cluster);
}

/// A node whose disk is empty gets everything back, and its tombstones with it. Nobody has lost anything by asking it.
#[tokio::test(start_paused = true)]
async fn an_empty_disk_is_filled_again() {
    let mut cluster = start(3).await;
    let keys = (0..500).map(|number| format!("k{number}"));
    for key in keys.clone() {
        put(&cluster, NodeId(1), &key, "v", 3).await;
    }
    let seen = cluster.get(NodeId(1), "k7", &r(3)).await.expect("up");
    cluster.delete(NodeId(1), "k7", &seen.context, &w(3)).await.expect("up");
    cluster.crash(NodeId(2));
    cluster.restore(NodeId(2), &[]);
    cluster.boot(NodeId(2)).await;
    cluster.release_exchange();
    tokio::time::sleep(SOON).await;
    assert_eq!(agreed(&cluster, keys), 499);
    assert_eq!(cluster.status(NodeId(2)).await.tombstones, 1);
    assert_trees(&cluster);
}

/// While clients write without a pause, comparisons end, every partition is known to have been equal within 12 s, and a key
/// that nobody writes to is mended like any other.
#[tokio::test(start_paused = true)]
async fn comparisons_end_while_clients_write() {
    let mut cluster = start(3).await;
    cluster.isolate(NodeId(3));
    cluster.settle().await;
    put(&cluster, NodeId(1), "quiet", "v", 2).await;
    cluster.rejoin(NodeId(3));
    cluster.settle().await;
    cluster.release_exchange();
    let ends = tokio::time::Instant::now() + Duration::from_secs(40);
    let mut number = 0u32;
    while tokio::time::Instant::now() < ends {
        number += 1;
        let key = format!("k{}", number % 50);
        put(&cluster, NodeId(number % 3 + 1), &key, "v", 1).await;
        if number.is_multiple_of(50) {
            for key in 0..50 {
                let key = format!("k{key}");
                let seen = cluster.get(NodeId(1), &key, &r(3)).await.expect("up");
                let put = cluster.put(NodeId(1), &key, "all", &seen.context, &w(2)).await;
                put.expect("up");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(
        cluster.state(NodeId(3), "quiet").map(|state| texts(&state)),
        Some(vec!["v".into()])
    );
    for node in cluster.up() {
        let status = cluster.status(node).await;
        assert!(status.compared_ms_ago < 12_000, "{node}: {} ms", status.compared_ms_ago);
    }
    tokio::time::sleep(SOON).await;
    agreed(&cluster, (0..50).map(|number| format!("k{number}")));
    assert_trees(&cluster);
}

/// All pairs of owners differ, and all are told to compare at once: they mend the same keys from all sides and agree.
#[tokio::test(start_paused = true)]
async fn many_exchanges_at_once() {
    let mut cluster = start(3).await;
    for alone in cluster.up() {
        cluster.isolate(alone);
        cluster.settle().await;
        for number in 0..60 {
            put(&cluster, alone, &format!("k{number}"), &format!("{alone}"), 1).await;
        }
        cluster.rejoin(alone);
        cluster.settle().await;
    }
    cluster.release_exchange();
    for node in cluster.up() {
        assert_eq!(cluster.repair_run(node, None).await, 64, "all its partitions");
    }
    tokio::time::sleep(SOON).await;
    assert_eq!(agreed(&cluster, (0..60).map(|number| format!("k{number}"))), 3 * 60);
    assert_trees(&cluster);
}

/// The link is cut at any moment of a comparison, again and again. What was mended stays, the rest follows when the link
/// is back.
#[tokio::test(start_paused = true)]
async fn a_comparison_that_is_cut_off_goes_on_later() {
    for cut_after_ms in [1, 300, 700, 1200, 1700, 2300] {
        let mut cluster = start(3).await;
        cluster.isolate(NodeId(3));
        cluster.settle().await;
        for number in 0..200 {
            put(&cluster, NodeId(1), &format!("k{number}"), "v", 2).await;
        }
        cluster.rejoin(NodeId(3));
        let slow = Duration::from_millis(4);
        for (from, to) in [(1, 3), (3, 1), (2, 3), (3, 2)] {
            cluster.network.slow(NodeId(from), NodeId(to), slow);
        }
        cluster.release_exchange();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(cut_after_ms)).await;
            cluster.isolate(NodeId(3));
            tokio::time::sleep(Duration::from_secs(3)).await;
            cluster.rejoin(NodeId(3));
        }
        tokio::time::sleep(SOON * 2).await;
        assert_eq!(agreed(&cluster, (0..200).map(|number| format!("k{number}"))), 200);
        assert_trees(&cluster);
    }
}

/// What is written and crashes at any point comes back with a tree that says what the records say: record, digest and tree
/// never part.
#[tokio::test(start_paused = true)]
async fn trees_are_right_after_a_crash_at_any_point() {
    for keep in 0..6 {
        let mut cluster = start(3).await;
        for number in 0..200 {
            put(&cluster, NodeId(1), &format!("k{number}"), "v", 3).await;
        }
        let client = cluster.client();
        let writing = tokio::spawn(async move {
            for number in 0.. {
                let key = format!("k{}", number % 300);
                drop(client.put(NodeId(1), &key, "again", &blind(), &w(1)).await);
            }
        });
        for step in 0..8u64 {
            tokio::time::sleep(Duration::from_micros(5_000 + step * 777)).await;
            cluster.crash_keeping(NodeId(2), keep);
            recomputed(&cluster, NodeId(2)); // asserts that digests and records are of one piece
            cluster.boot(NodeId(2)).await;
        }
        writing.abort();
        cluster.settle().await;
        assert_trees(&cluster);
        cluster.release_exchange();
        tokio::time::sleep(SOON).await;
        agreed(&cluster, (0..300).map(|number| format!("k{number}")));
        assert_trees(&cluster);
    }
}

/// Where all are equal nobody says anything but pings, for an hour; and all know that they are equal.
#[tokio::test(start_paused = true)]
async fn equality_costs_nothing() {
    let mut cluster = start(3).await;
    for number in 0..100 {
        put(&cluster, NodeId(1), &format!("k{number}"), "v", 3).await;
    }
    cluster.settle().await;
    cluster.release_exchange();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    for node in cluster.up() {
        let status = cluster.status(node).await;
        assert_eq!(status.exchanged, 0);
        assert!(status.compared_ms_ago < 1_000, "{} ms", status.compared_ms_ago);
        for partition in cluster.repair_status(node).await {
            assert_eq!((partition.bytes, partition.backlog), (0, 0), "{partition:?}");
            assert!(partition.agreed_ms_ago < 1_000, "{partition:?}");
        }
    }
}

/// A digest that was damaged on the disk makes equal keys look different. Whoever looks at them finds out and writes it
/// anew; the record is untouched, and the trees agree again.
#[tokio::test(start_paused = true)]
async fn a_damaged_digest_is_written_anew() {
    let mut cluster = start(3).await;
    put(&cluster, NodeId(1), "k", "v", 3).await;
    cluster.crash(NodeId(2));
    assert!(cluster.store(NodeId(2)).damage(Space::Digests, &cluster.row("k")));
    cluster.boot(NodeId(2)).await;
    cluster.release_exchange();
    tokio::time::sleep(SOON).await;
    assert_trees(&cluster);
    assert_eq!(values(&cluster.get(NodeId(1), "k", &DEFAULT).await.expect("up")), ["v"]);
    let status = cluster.status(NodeId(1)).await;
    assert!(status.compared_ms_ago < 1_000, "{} ms", status.compared_ms_ago);
}

/// A tree grows level by level while keys are written to its partition, and says the right thing all the time.
#[tokio::test(start_paused = true)]
async fn a_tree_grows_under_writes() {
    let cluster = start(3).await;
    let keys = cluster.neighbours("k", 700);
    let clients: Vec<_> = (0..7)
        .map(|offset| {
            let (client, keys) = (cluster.client(), keys.clone());
            tokio::spawn(async move {
                for key in keys.iter().skip(offset).step_by(7) {
                    client.put(NodeId(1), key, "v", &blind(), &w(3)).await.expect("up");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("no panic");
    }
    cluster.settle().await;
    assert_trees(&cluster);
}

/// The comparisons that end doubt: a node was emptied, and everything it had owned is brought back at once. Its doubt goes
/// later, by itself, when the last write that had counted its lost copy is over; then its answers count again, and the
/// other two may fail.
#[tokio::test(start_paused = true)]
async fn doubt_ends_by_comparing_with_every_other_owner() {
    let mut cluster = start(3).await;
    let keys = (0..200).map(|number| format!("k{number}"));
    for key in keys.clone() {
        put(&cluster, NodeId(2), &key, "v", 3).await;
    }
    cluster.wipe(NodeId(1));
    cluster.boot(NodeId(1)).await;
    cluster.release_exchange();
    cluster.settle().await;
    assert_eq!(cluster.status(NodeId(1)).await.partitions_in_doubt, 64);
    tokio::time::sleep(SOON).await;
    assert_eq!(agreed(&cluster, keys.clone()), 200);
    let status = cluster.status(NodeId(1)).await;
    assert_eq!(status.partitions_in_doubt, 64, "it is too early");
    for node in cluster.up() {
        // neither it nor anybody else takes its silence for agreement: the last was before it was emptied
        let compared_ms_ago = cluster.status(node).await.compared_ms_ago;
        assert!(compared_ms_ago > 14_000, "{node}: {compared_ms_ago} ms");
    }
    tokio::time::sleep(Duration::from_secs(80)).await;
    let status = cluster.status(NodeId(1)).await;
    assert_eq!((status.partitions_in_doubt, status.doubt.as_str()), (0, ""));
    for node in cluster.up() {
        assert!(cluster.status(node).await.compared_ms_ago < 12_000, "{node}");
    }
    cluster.crash(NodeId(2));
    cluster.settle().await;
    for key in keys {
        assert_eq!(values(&cluster.get(NodeId(1), &key, &r(2)).await.expect("two are up")), ["v"]);
    }
    assert_trees(&cluster);
}

/// As long as one owner was not compared with, doubt stays: what was lost may lie there alone. When that one comes back
/// the doubt ends.
#[tokio::test(start_paused = true)]
async fn doubt_stays_while_an_owner_is_away() {
    let mut cluster = start(5).await;
    let owners = cluster.owners("k");
    let (wiped, behind, away) = (owners[0], owners[1], owners[2]);
    cluster.network.cut(wiped, behind);
    put(&cluster, wiped, "k", "v", 2).await;
    cluster.heal();
    cluster.crash(away);
    cluster.wipe(wiped);
    cluster.boot(wiped).await;
    cluster.release_exchange();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(cluster.status(wiped).await.partitions_in_doubt > 0);
    assert!(cluster.state(wiped, "k").is_none(), "nobody within reach has it");
    cluster.boot(away).await;
    tokio::time::sleep(SOON * 2).await;
    assert_eq!(cluster.status(wiped).await.partitions_in_doubt, 0);
    assert_eq!(cluster.state(wiped, "k").map(|state| texts(&state)), Some(vec!["v".into()]));
    assert_eq!(agreed(&cluster, ["k".into()]), 1);
}

/// All owners are in doubt at the same time: each compares with every other one, and all doubt ends.
#[tokio::test(start_paused = true)]
async fn doubt_ends_even_if_all_are_in_doubt() {
    let mut cluster = start(5).await;
    let keys = (0..100).map(|number| format!("k{number}"));
    for key in keys.clone() {
        put(&cluster, NodeId(2), &key, "v", 3).await;
    }
    for wiped in [1, 2] {
        cluster.wipe(NodeId(wiped));
        cluster.boot(NodeId(wiped)).await;
        cluster.settle().await;
    }
    cluster.release_exchange();
    tokio::time::sleep(Duration::from_secs(120)).await;
    for node in cluster.up() {
        let status = cluster.status(node).await;
        assert_eq!(status.partitions_in_doubt, 0, "{node}");
        assert!(status.compared_ms_ago < 12_000, "{node}: {} ms", status.compared_ms_ago);
    }
    agreed(&cluster, keys);
    assert_trees(&cluster);
}
