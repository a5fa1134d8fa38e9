//! What an operator sees of one node's disk.

use atoll_antientropy::State;
use atoll_node::storage::Space;
use atoll_wire::{Dump, DumpedRow, ErrorCode, Request};
use bytes::Bytes;

use crate::cluster::{Cluster, blind, texts, w};

/// Records and hints, of one partition, with the states as they are: neither more nor joined, and only of this node.
#[tokio::test(start_paused = true)]
async fn a_dump_shows_what_lies_there() {
    let mut cluster = Cluster::start(4).await;
    let owners = cluster.owners("k");
    let partition = u16::from_be_bytes(cluster.row("k")[..2].try_into().expect("two bytes"));
    let keys = cluster.neighbours("k", 3);
    cluster.crash(owners[2]);
    cluster.settle().await;
    for key in &keys {
        cluster.put(owners[0], key, "v", &blind(), &w(2)).await.expect("two are up");
    }
    cluster.put(owners[0], "elsewhere", "v", &blind(), &w(2)).await.expect("two are up");
    let value = |row: &DumpedRow| {
        let state = State::decode(row.state.as_ref().expect("undamaged")).expect("a state");
        texts(&state)
    };
    let (rows, _) = cluster.dump(owners[0], partition, false).await;
    let mut seen: Vec<Bytes> = rows.iter().map(|row| row.key.clone()).collect();
    seen.sort();
    assert_eq!(seen, keys);
    assert!(rows.iter().all(|row| value(row) == ["v"] && row.hint_for.is_none() && !row.in_doubt));
    cluster.settle().await;
    let (hints, _) = cluster.dump(owners[0], partition, true).await;
    assert_eq!(hints.len(), keys.len());
    assert!(hints.iter().all(|row| value(row) == ["v"] && row.hint_for == Some(owners[2].0)));
    let (none, _) = cluster.dump(cluster.not_owner("k"), partition, false).await;
    assert!(none.is_empty());
}

/// A damaged record is shown as that, and its neighbours as they are.
#[tokio::test(start_paused = true)]
async fn a_dump_shows_damage() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    let partition = u16::from_be_bytes(cluster.row("k")[..2].try_into().expect("two bytes"));
    for key in cluster.neighbours("k", 2) {
        cluster.put(owners[0], &key, "v", &blind(), &w(3)).await.expect("up");
    }
    assert!(cluster.store(owners[1]).damage(Space::Data, &cluster.row("k")));
    let (rows, _) = cluster.dump(owners[1], partition, false).await;
    let damaged: Vec<bool> = rows.iter().filter(|row| row.state.is_none()).map(|_| true).collect();
    assert_eq!((rows.len(), damaged.len()), (2, 1));
    assert!(rows.iter().any(|row| row.state.is_none() && row.key == "k"));
}

/// Large states come in several pages and none of them twice; one that is larger than a page has a page to itself.
#[tokio::test(start_paused = true)]
async fn a_dump_has_pages() {
    let cluster = Cluster::start(3).await;
    let owners = cluster.owners("k");
    let partition = u16::from_be_bytes(cluster.row("k")[..2].try_into().expect("two bytes"));
    let keys = cluster.neighbours("k", 12);
    for (number, key) in keys.iter().enumerate() {
        let value = "v".repeat(if number == 5 { 600 << 10 } else { 50 << 10 });
        cluster.put(owners[0], key, &value, &blind(), &w(3)).await.expect("up");
    }
    let (rows, pages) = cluster.dump(owners[0], partition, false).await;
    let mut seen: Vec<Bytes> = rows.iter().map(|row| row.key.clone()).collect();
    seen.sort();
    let mut keys = keys;
    keys.sort();
    assert_eq!(seen, keys);
    assert!((3..=6).contains(&pages), "{pages} pages");
}

/// A partition that is not there is named with those that are; a place that is not in it has nothing behind it.
#[tokio::test(start_paused = true)]
async fn a_dump_of_nothing() {
    let cluster = Cluster::start(3).await;
    let node = cluster.owners("k")[0];
    let ask = |partition, after: &'static [u8], hints| {
        let after = Bytes::from_static(after);
        let dump = Request::Dump(Dump { partition, hints, after });
        let client = cluster.client();
        async move { client.call(node, dump, 1000).await }
    };
    let failure = ask(64, b"", false).await.expect_err("there are 64");
    assert_eq!(failure.code, ErrorCode::Malformed);
    assert!(failure.detail.contains("0 to 63"), "{}", failure.detail);
    for (after, hints) in [(&b"\xff"[..], false), (b"\xff", true), (b"\0", false), (b"\0", true)] {
        assert!(ask(1, after, hints).await.is_ok());
    }
}
