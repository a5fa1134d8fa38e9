//! Damage that nobody reads is found all the same.

use std::time::Duration;

use atoll_node::storage::{Space, Store as _, Write, rows};

use crate::cluster::{Cluster, blind, sloppy_w, w};

const MINUTE: Duration = Duration::from_secs(60);

/// Every record is read within the period; the damaged ones are fetched anew, and nobody has asked for them.
#[tokio::test(start_paused = true)]
async fn a_scrub_finds_and_mends_what_is_damaged() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    let keys: Vec<String> = (0..100).map(|number| format!("k{number}")).collect();
    for key in &keys {
        cluster.put(owners[0], key, "v", &blind(), &w(3)).await.expect("up");
    }
    cluster.crash(owners[1]);
    cluster.scrub_period = 10 * MINUTE;
    for key in keys.iter().step_by(10) {
        assert!(cluster.store(owners[1]).damage(Space::Data, &cluster.row(key)));
    }
    cluster.boot(owners[1]).await;
    cluster.settle().await;
    assert_eq!(cluster.status(owners[1]).await.corrupt_records, 0, "nobody has looked");
    tokio::time::sleep(5 * MINUTE).await;
    let status = cluster.status(owners[1]).await;
    assert!(
        (1..10).contains(&status.corrupt_records),
        "{} in half the time",
        status.corrupt_records
    );
    let (read, of) = status.scrubbed;
    assert!((16..100).contains(&read) && of == 100, "{read} of {of}");
    tokio::time::sleep(7 * MINUTE).await;
    let status = cluster.status(owners[1]).await;
    assert_eq!((status.scrubs, status.corrupt_records, status.keys_in_doubt), (1, 10, 0));
    for key in &keys {
        cluster.assert_whole(key, &["v"]).await;
    }
}

/// Damaged hints are set aside, and the others wait on.
#[tokio::test(start_paused = true)]
async fn a_scrub_reads_hints_too() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash_all(&[owners[2], fallbacks[0]]);
    cluster.scrub_period = 5 * MINUTE;
    cluster.boot(fallbacks[0]).await;
    cluster.settle().await;
    let keys = cluster.neighbours("k", 20);
    for key in &keys {
        cluster.put(owners[0], key, "v", &blind(), &sloppy_w(3)).await.expect("up");
    }
    let row = rows::hint(owners[2], &cluster.row("k"));
    assert!(cluster.store(fallbacks[0]).damage(Space::Hints, &row));
    tokio::time::sleep(7 * MINUTE).await;
    let status = cluster.status(fallbacks[0]).await;
    assert_eq!((status.hints, status.corrupt_records), (19, 1));
    let aside = cluster.store(fallbacks[0]).get(Space::Meta, &rows::damaged(&row));
    assert!(aside.expect("memory").is_some());
}

/// A node that is killed every few minutes gets through as well: it goes on where it was.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_often_restarted_is_scrubbed_too() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    let mut keys: Vec<String> = (0..100).map(|number| format!("k{number}")).collect();
    for key in &keys {
        cluster.put(owners[0], key, "v", &blind(), &w(3)).await.expect("up");
    }
    keys.sort_by_key(|key| cluster.row(key));
    let last = keys.last().expect("100");
    assert!(cluster.store(owners[1]).damage(Space::Data, &cluster.row(last)));
    cluster.scrub_period = 20 * MINUTE; // and a step in three minutes
    for _ in 0..10 {
        cluster.crash(owners[1]);
        cluster.boot(owners[1]).await;
        tokio::time::sleep(Duration::from_secs(250)).await;
    }
    cluster.settle().await;
    cluster.assert_whole(last, &["v"]).await;
}

/// What is said of a record, for comparisons, must fit it; a record of which only that is left is lost, and its key in doubt
/// until it has been fetched.
#[tokio::test(start_paused = true)]
async fn a_scrub_compares_records_with_what_is_said_of_them() {
    let mut cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    let keys: Vec<String> = (0..60).map(|number| format!("k{number}")).collect();
    for key in &keys {
        cluster.put(owners[0], key, "v", &blind(), &w(3)).await.expect("up");
    }
    cluster.crash(owners[1]);
    let said = |cluster: &Cluster, key: &str| {
        cluster.store(owners[1]).get(Space::Digests, &cluster.row(key)).expect("memory")
    };
    let right = said(&cluster, &keys[0]);
    assert!(cluster.store(owners[1]).damage(Space::Digests, &cluster.row(&keys[0])));
    let gone = |space, key: &str| Write { space, row: cluster.row(key), value: None };
    let mut lost: Vec<Write> = keys[20..55].iter().map(|key| gone(Space::Data, key)).collect();
    lost.push(gone(Space::Digests, &keys[1]));
    cluster.store(owners[1]).apply(&lost).expect("memory");
    cluster.scrub_period = 5 * MINUTE;
    cluster.boot(owners[1]).await;
    tokio::time::sleep(8 * MINUTE).await;
    assert_eq!(said(&cluster, &keys[0]), right);
    assert!(said(&cluster, &keys[1]).is_some());
    let status = cluster.status(owners[1]).await;
    assert_eq!((status.corrupt_records, status.keys_in_doubt), (37, 0));
    for key in &keys {
        cluster.assert_whole(key, &["v"]).await;
    }
}
