//! The issue of keeping promises: SIGKILL, one owner at a time, and every acknowledged write read back.

use atoll_client::{Level, Options, QuorumRequest};

use crate::testnet::Testnet;

#[tokio::test]
async fn two_hundred_acknowledged_writes_survive_kills() {
    let testnet = Testnet::up(5, 23_000);
    let client = testnet.client().await;
    let options =
        Options { timeout: Some(std::time::Duration::from_secs(5)), ..Options::default() };
    let mut acknowledged = Vec::new();
    for number in 0..200u32 {
        if number % 40 == 20 {
            testnet.ok(&["testnet", "kill", &format!("n{}", number / 40 + 1)]);
        }
        if number % 40 == 39 {
            testnet.ok(&["testnet", "start", &format!("n{}", number / 40 + 1)]);
        }
        let key = format!("key-{number}");
        // a put may meet the moment of the kill; what counts is what was acknowledged
        if client.put(key.as_bytes(), number.to_string(), None, &options).await.is_ok() {
            acknowledged.push(number);
        }
    }
    assert!(acknowledged.len() >= 190, "only {} of 200 were acknowledged", acknowledged.len());
    let two = QuorumRequest { r: Some(Level::Count(2)), ..QuorumRequest::default() };
    let two = Options { quorum: two, ..options };
    for number in acknowledged {
        let key = format!("key-{number}");
        let read = client.get(key.as_bytes(), &two).await.expect("all nodes are up");
        let values: Vec<_> = read.values.iter().map(|value| value.bytes.clone()).collect();
        assert_eq!(values, [number.to_string()], "{key}");
    }
    client.close().await;
}
