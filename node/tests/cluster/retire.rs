//! A member that leaves is let go when it has said that it keeps nothing, and never on the word of an older view.

use std::{collections::BTreeSet, time::Duration};

use atoll_antientropy::{Actor, Context, Event, State};
use atoll_node::storage::faulty::Step;
use atoll_ring::{Command, NodeId, Partition, Plan, Wish};
use atoll_wire::{Ack, Envelope, Lane, MovesQuery, Replicate, Reply, Request, Role};
use bytes::Bytes;

use crate::cluster::{Cluster, blind, w};

const KEY: &str = "k";

/// What came of a proposal is seen in the log: who leads makes changes of its own in between.
async fn propose(cluster: &Cluster, leader: NodeId, command: Command) {
    let _ = cluster.log.port(leader).propose(command).await;
}

/// Rows that a node holds and does not own, as it says itself.
async fn strays(cluster: &Cluster, of: NodeId) -> u64 {
    match cluster.client().call(of, Request::Moves(MovesQuery {}), 1000).await {
        Ok(Reply::Moves(report)) => report.strays,
        other => panic!("a query for moves was answered with {other:?}"),
    }
}

/// The simulator lost writes (ring, seeds 1, 31 and 38): a leaving member heard of no view in which its moves were over. It
/// took itself for an owner still, had neither strays nor hints to name, and the leader let it go with the only copy of a
/// write. Now its word counts from a view at least as new as the leader's only: it is asked again until it has heard, hands
/// over what it alone holds, and goes.
#[tokio::test(start_paused = true)]
async fn who_is_behind_is_not_let_go() {
    let mut cluster = Cluster::start(5).await;
    let leaver = cluster.owners(KEY)[0];
    let others: Vec<NodeId> = cluster.up().into_iter().filter(|node| *node != leaver).collect();
    let leader = others[0];
    cluster.put(leaver, KEY, "v", &blind(), &w(3)).await.expect("all are up");
    others.iter().for_each(|node| cluster.faults(*node).hold([Step::Done]));
    cluster.log.lead(Some(leader));
    cluster.settle().await;

    // all that it owns is joint, copied, and not finished
    let plan = Plan::of(&cluster.log.head(), &Wish::Leave { node: leaver }).expect("it fits");
    propose(&cluster, leader, plan.command()).await;
    assert!(!cluster.log.head().wanted().is_empty() || !cluster.log.head().moves().is_empty());
    while !cluster.log.head().wanted().is_empty() {
        let partitions: Vec<Partition> = cluster.log.head().wanted().keys().copied().collect();
        propose(&cluster, leader, Command::Begin { partitions }).await;
    }
    cluster.settle().await;
    let joint = cluster.node(leaver).view();
    assert_eq!(joint.epoch(), cluster.log.head().epoch(), "it has heard so far");

    // from here on it hears of nothing, and keeps a write that nobody else has
    cluster.network.keep_behind(BTreeSet::from([leaver]));
    let event = Event::alone(Actor { node: 77, incarnation: 0 }, 1);
    let alone = State::put(&Context::new(), event, Bytes::from_static(b"alone"));
    let (bucket, role) = (cluster.bucket(), Role::Node);
    let envelope =
        Envelope { epoch: joint.epoch(), left_ms: 1000, operation: 1, bucket, trace: false, role };
    let (key, state) = (Bytes::from_static(KEY.as_bytes()), alone.encode().into());
    let replicate = Replicate { key, ack: Ack::Durable, hint_for: None, state };
    let port = cluster.network.port(leader);
    let call = port.call(leaver, Lane::Request, envelope, Request::Replicate(replicate));
    assert!(matches!(call.await, Ok((_, Reply::Replicated(done))) if done.durable));
    others.iter().for_each(|node| cluster.faults(*node).hold([]));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let head = cluster.log.head();
    assert!(head.moves().is_empty() && head.wanted().is_empty(), "its moves are over");
    assert_eq!(cluster.node(leaver).view().epoch(), joint.epoch(), "and it has not heard");
    assert_eq!(strays(&cluster, leaver).await, 0, "so it takes what it holds for its own");
    assert!(head.member(leaver).is_some(), "it was let go on the word of an old view");

    cluster.network.keep_behind(BTreeSet::new());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let head = cluster.log.head();
    assert_eq!(head.member(leaver), None, "it keeps nothing, and goes");
    let partition = head.partition(atoll_ring::Token::of(&bucket.0, KEY.as_bytes()));
    let owners = head.owners(partition).all();
    cluster.crash_all(&owners);
    let has = |owner: &NodeId| cluster.state(*owner, KEY).is_some_and(|held| held.covers(&alone));
    assert!(owners.iter().any(has), "what it alone held is with an owner");
}
