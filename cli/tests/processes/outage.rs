//! Two of five nodes are gone: writes go on, and nothing is lost when they come back.

use std::{collections::BTreeMap, time::Duration};

use atoll_client::{Client, Level, NodeId, Options, QuorumRequest, RequestError};

use crate::testnet::Testnet;

/// With two of five nodes killed, keys of which two owners are dead among them, every put is acknowledged. After the two
/// are back and the hints are gone each owner holds each value by itself, without a read having repaired anything.
#[tokio::test]
async fn writes_go_on_with_two_of_five_nodes_dead_and_nothing_is_lost() {
    let testnet = Testnet::up(5, 23_300);
    let client = testnet.client().await;
    let patient = Options { timeout: Some(Duration::from_secs(10)), ..Options::default() };
    let one = QuorumRequest { r: Some(Level::Count(1)), ..QuorumRequest::default() };
    let one = Options { quorum: one, ..patient.clone() };
    let mut stored: BTreeMap<String, String> = BTreeMap::new();
    for number in 0..100 {
        let (key, value) = (format!("before-{number}"), format!("{number}"));
        client.put(key.as_bytes(), value.clone(), None, &patient).await.expect("all are up");
        stored.insert(key, value);
    }
    testnet.ok(&["testnet", "kill", "n1", "n2"]);
    // until its silence is noticed a killed node is still asked, and what was asked of it is unknown
    for killed in [NodeId(1), NodeId(2)] {
        let asked = || client.status(killed, Duration::from_secs(1));
        while !matches!(asked().await, Err(RequestError::Unreachable { .. })) {}
    }

    let mut stood_in = 0;
    for number in 0..200 {
        // half of them replace what was there
        let (key, value) = match number % 2 {
            0 => (format!("before-{}", number / 2), format!("{number} again")),
            _ => (format!("during-{number}"), format!("{number}")),
        };
        let context = match stored.contains_key(&key) {
            true => {
                // fallbacks know nothing of what was written before the outage, so two answers may not be had
                let read = client.get(key.as_bytes(), &one).await.expect("one owner is left");
                assert_eq!(read.values.len(), 1, "{key}");
                read.context
            }
            false => None,
        };
        let put = client.put(key.as_bytes(), value.clone(), context.as_ref(), &patient).await;
        let receipt = put.unwrap_or_else(|error| panic!("{key}: {error}")).receipt;
        stood_in += receipt.replicas.iter().filter(|line| line.stands_in_for.is_some()).count();
        stored.insert(key, value);
    }
    assert!(stood_in > 0, "no fallback was asked, so nothing was shown");

    testnet.ok(&["testnet", "start", "n1", "n2"]);
    until_no_hints(&client).await;
    let view = client.view();
    let bucket = atoll_wire::BucketId::default_bucket(view.bucket_n());
    for (key, value) in &stored {
        let token = atoll_ring::Token::of(&bucket.0, key.as_bytes());
        for owner in view.owners(view.partition(token)).all() {
            let alone = QuorumRequest {
                r: Some(Level::Count(1)),
                sloppy: Some(false),
                ..QuorumRequest::default()
            };
            let alone = Options { quorum: alone, via: Some(owner), ..patient.clone() };
            let read = client.get(key.as_bytes(), &alone).await.expect("it is up");
            let values: Vec<_> = read.values.iter().map(|value| value.bytes.clone()).collect();
            assert_eq!(values, [value.as_bytes()], "{key} at {owner}");
        }
    }
    client.close().await;
}

/// Waits until all nodes answer and none keeps a hint; at most as long as anybody would.
async fn until_no_hints(client: &Client) {
    for _ in 0..300 {
        let mut left = 0;
        for node in (1..=5).map(NodeId) {
            let status = client.status(node, Duration::from_secs(2)).await;
            left += status.map_or(1, |status| status.hints);
        }
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("hints are left after half a minute");
}
