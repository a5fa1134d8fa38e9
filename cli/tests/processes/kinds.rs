//! Values that merge, and sessions, on real processes: nodes that are paused in turn, requests that time out and are repeated
//! elsewhere.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use atoll_client::{
    Client, Kind, Level, NodeId, Operation, Options, QuorumRequest, Reading, RequestError, Session,
};
use futures_util::future::join_all;

use crate::testnet::Testnet;

fn in_bucket(name: &str) -> Options {
    let timeout = Duration::from_secs(10);
    Options { bucket: Some(name.into()), timeout: Some(timeout), ..Options::default() }
}

/// A thousand increments by eight clients count a thousand. A tenth of the requests are given a time that nothing can be done
/// in, so nobody knows what became of them, and one node after the other is paused. Whatever ended unsure is made certain by
/// the same session's next increment, and the last ones by one of zero.
#[tokio::test]
async fn a_thousand_increments_count_a_thousand() {
    let testnet = Testnet::up(3, 25_100);
    testnet.ok(&["bucket", "create", "visits", "--kind", "counter"]);
    let (clients, each) = (8, 125);
    let done = AtomicBool::new(false);
    let counting = join_all((0..clients).map(|_| async {
        let client = testnet.client().await;
        let mut session = client.session();
        let mut unsure = 0u32;
        for number in 0..each {
            let time = if number % 10 == 9 { 1 } else { 10_000 };
            let options =
                Options { timeout: Some(Duration::from_millis(time)), ..in_bucket("visits") };
            match session.increment(b"home", 1, &options).await {
                Ok(_) => {}
                // what was certainly not applied was not counted
                Err(error) if error.effect() == atoll_client::Effect::NotApplied => {
                    count(&mut session, 1).await;
                }
                Err(_) => unsure += 1,
            }
        }
        count(&mut session, 0).await;
        client.close().await;
        unsure
    }));
    let pausing = async {
        for node in ["n1", "n2", "n3"].into_iter().cycle() {
            if done.load(Ordering::Relaxed) {
                break;
            }
            testnet.ok(&["testnet", "pause", node]);
            tokio::time::sleep(Duration::from_millis(200)).await; // as long as a node is away, and no longer
            testnet.ok(&["testnet", "resume", node]);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let counted = async {
        let unsure = counting.await;
        done.store(true, Ordering::Relaxed);
        unsure
    };
    let (unsure, ()) = tokio::join!(counted, pausing);
    assert!(unsure.iter().sum::<u32>() > 0, "no request ended unsure, so nothing was shown");

    let client = testnet.client().await;
    let all = QuorumRequest { r: Some(Level::All), ..QuorumRequest::default() };
    let read = client.read(b"home", &Options { quorum: all, ..in_bucket("visits") }).await;
    assert_eq!(read.expect("all are up").reading, Reading::Counter(1000));
    client.close().await;
}

/// Counts until that is certain.
async fn count(session: &mut Session<'_>, by: i64) {
    while let Err(error) = session.increment(b"home", by, &in_bucket("visits")).await {
        assert!(!matches!(error, RequestError::Session(_)), "{error}");
        assert!(by == 0 || error.effect() == atoll_client::Effect::NotApplied, "{error}");
    }
}

/// At R = 1 and W = 1, with one owner paused after the other, a session never reads backwards: not before what it wrote, and
/// not before what it has read.
#[tokio::test]
async fn a_session_never_reads_backwards() {
    let testnet = Testnet::up(3, 25_200);
    testnet.ok(&["bucket", "create", "tags", "--kind", "set"]);
    let client = testnet.client().await;
    let one = Some(Level::Count(1));
    let one = QuorumRequest { r: one, w: one, ..QuorumRequest::default() };
    let options = Options { quorum: one, ..in_bucket("tags") };
    let mut session = client.session();
    let mut seen = 0;
    for round in 0..12u32 {
        let node = ["n1", "n2", "n3"][round as usize % 3];
        testnet.ok(&["testnet", "pause", node]);
        let element = format!("{round:02}");
        let add = Operation::Add(vec![element.clone().into()]);
        let via = Some(NodeId((round + 1) % 3 + 1)); // one that is not paused
        let through = Options { via, ..options.clone() };
        session.change(b"photo", &add, None, &through).await.expect("two nodes are up");
        testnet.ok(&["testnet", "resume", node]);
        for _ in 0..5 {
            let read = session.read(b"photo", &options).await.expect("all are up");
            let Reading::Set(elements) = read.reading else { panic!("a set") };
            assert!(elements.contains(&element.clone().into()), "its own write, round {round}");
            assert!(elements.len() >= seen, "{} after {seen}", elements.len());
            seen = elements.len();
        }
    }
    assert_eq!(seen, 12);
    client.close().await;
}

/// The wrong kind is named, by the node and by the program, and nothing changes.
#[tokio::test]
async fn the_wrong_kind_is_named() {
    let testnet = Testnet::up(1, 25_300);
    testnet.ok(&["bucket", "create", "tags", "--kind", "set", "--n", "1"]);
    let refused = testnet.run(&["counter", "incr", "k", "--bucket", "tags"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("`set`"), "{refused:?}");
    testnet.ok(&["set", "add", "k", "x", "--bucket", "tags"]);
    let refused = testnet.run(&["flag", "get", "k", "--bucket", "tags"]);
    assert_eq!(refused.code, 2, "a set is no flag: {refused:?}");
    assert_eq!(testnet.run(&["set", "has", "k", "y", "--bucket", "tags"]).code, 3);
    let client: Client = testnet.client().await;
    let read = client.read(b"k", &in_bucket("tags")).await.expect("it is up");
    assert_eq!((read.reading.kind(), read.reading), (Kind::Set, Reading::Set(vec!["x".into()])));
    client.close().await;
}
