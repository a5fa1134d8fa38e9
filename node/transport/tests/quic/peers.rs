//! Connections that are kept up.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use atoll_ring::NodeId;
use atoll_transport::{CallError, CloseReason, Peers, Quic, Transport as _};
use atoll_wire::{Lane, Reply, Role};

use crate::{
    house::{Papers, envelope, loopback, ping, serve, serve_as, until, within},
    restart::{Process, own_address},
};

const ME: NodeId = NodeId(9);

/// Those that are there are up; of those that are not, the reason is known.
#[tokio::test]
async fn peers_are_up_or_say_why_not() {
    let papers = Papers::new();
    let (one, two) = (serve(&papers, 1), serve(&papers, 2));
    let stranger = serve_as(&Papers::new().node(3), 3);
    let peers = peers(&papers);
    let all = [
        (NodeId(1), one.address),
        (NodeId(2), two.address),
        (NodeId(3), stranger.address), // right name, wrong authority
        (NodeId(4), two.address),      // right authority, wrong name
        (ME, one.address),
    ];
    peers.set(&all);
    let nodes = all.map(|(node, _)| node);
    until("both are up", || peers.up(&nodes) == [NodeId(1), NodeId(2)]).await;
    for node in [NodeId(3), NodeId(4)] {
        assert!(within(peers.first_up(&[node])).await.is_empty());
        let reason = down(&peers, node).await;
        assert!(reason.contains("certificate"), "{node}: {reason}");
    }
    assert_eq!(down(&peers, ME).await, "not a member", "nobody dials himself");
    assert_eq!(down(&peers, NodeId(77)).await, "not a member");
    for node in [1, 2] {
        assert!(answers(&peers, NodeId(node)).await);
    }
}

/// `first_up` gives those that are up as soon as one is, and does not wait for the others.
#[tokio::test]
async fn first_up_waits_for_one() {
    let papers = Papers::new();
    let one = serve(&papers, 1);
    let (_socket, silent) = nobody();
    let peers = peers(&papers);
    peers.set(&[(NodeId(1), one.address), (NodeId(2), silent)]);
    assert_eq!(down(&peers, NodeId(2)).await, "not connected yet");
    assert_eq!(within(peers.first_up(&[NodeId(2), NodeId(1)])).await, [NodeId(1)]);
    assert_eq!(within(peers.first_up(&[])).await, []);
}

/// Where nobody is up, it returns when each has failed once.
#[tokio::test]
async fn first_up_gives_up_when_each_has_failed() {
    let papers = Papers::new();
    let other = serve(&papers, 7);
    let peers = peers(&papers);
    let nodes = [NodeId(1), NodeId(2), NodeId(3)];
    peers.set(&nodes.map(|node| (node, other.address)));
    assert_eq!(within(peers.first_up(&nodes)).await, []);
    for node in nodes {
        assert_ne!(down(&peers, node).await, "not connected yet");
    }
}

/// The same at a port where nobody answers: that takes the limit of a dial, no longer.
#[tokio::test]
async fn slow_first_up_gives_up_on_a_silent_port() {
    let papers = Papers::new();
    let (_socket, silent) = nobody();
    let peers = peers(&papers);
    peers.set(&[(NodeId(1), silent)]);
    assert_eq!(within(peers.first_up(&[NodeId(1)])).await, []);
    assert_eq!(down(&peers, NodeId(1)).await, "no answer");
}

/// A peer that is killed and comes back is connected again, without being asked.
#[tokio::test]
async fn a_restarted_peer_is_connected_again() {
    let papers = Papers::new();
    let mut process = Process::start(papers.node(1), own_address(4));
    let address = process.address;
    let peers = peers(&papers);
    peers.set(&[(NodeId(1), address)]);
    for _ in 0..3 {
        until("it is connected", || peers.up(&[NodeId(1)]) == [NodeId(1)]).await;
        assert!(answers(&peers, NodeId(1)).await);
        let link = peers.link(NodeId(1)).unwrap();
        process.kill();
        process = Process::start(papers.node(1), address);
        assert_eq!(within(link.closed()).await, CloseReason::Reset);
        until("the dead link is gone", || match peers.link(NodeId(1)) {
            Ok(now) => !Arc::ptr_eq(&now, &link),
            Err(_) => true,
        })
        .await;
    }
    until("it is connected", || peers.up(&[NodeId(1)]) == [NodeId(1)]).await;
    assert!(answers(&peers, NodeId(1)).await);
    process.kill();
}

/// A peer that says goodbye counts as down at once, and is not reached again.
#[tokio::test]
async fn a_peer_that_stops_is_down() {
    let papers = Papers::new();
    let one = serve(&papers, 1);
    let peers = peers(&papers);
    peers.set(&[(NodeId(1), one.address)]);
    assert_eq!(within(peers.first_up(&[NodeId(1)])).await, [NodeId(1)]);
    let link = peers.link(NodeId(1)).unwrap();
    one.quic.close(Duration::from_secs(1)).await;
    assert_eq!(within(link.closed()).await, CloseReason::ByPeer);
    until("it is down", || peers.up(&[NodeId(1)]).is_empty()).await;
}

/// Who is no longer in the set is let go, who moves is dialled anew, and who stays is left alone.
#[tokio::test]
async fn the_set_can_change() {
    let papers = Papers::new();
    let (one, two, moved) = (serve(&papers, 1), serve(&papers, 2), serve(&papers, 2));
    let peers = peers(&papers);
    let nodes = [NodeId(1), NodeId(2)];
    peers.set(&[(NodeId(1), one.address), (NodeId(2), two.address)]);
    until("both are up", || peers.up(&nodes) == nodes).await;
    let links = nodes.map(|node| peers.link(node).unwrap());

    peers.set(&[(NodeId(1), one.address), (NodeId(2), moved.address)]);
    until("both are up", || peers.up(&nodes) == nodes).await;
    assert!(Arc::ptr_eq(&links[0], &peers.link(NodeId(1)).unwrap()));
    assert!(answers(&peers, NodeId(2)).await);
    assert_eq!((two.host.seen().len(), moved.host.seen().len()), (0, 1));

    peers.set(&[(NodeId(2), moved.address)]);
    assert_eq!(down(&peers, NodeId(1)).await, "not a member");
    assert!(answers(&peers, NodeId(2)).await);
}

/// Somebody may wait for a node that is then taken out of the set, or for one whose peers are closed. He is told.
#[tokio::test]
async fn nobody_waits_for_who_is_no_longer_dialled() {
    let papers = Papers::new();
    let (_socket, silent) = nobody();
    let ends: [fn(&Arc<Peers>); 2] = [|peers| peers.set(&[]), |peers| peers.close()];
    for end in ends {
        let peers = peers(&papers);
        peers.set(&[(NodeId(1), silent)]);
        let (found, ()) = tokio::join!(within(peers.first_up(&[NodeId(1)])), async { end(&peers) });
        assert_eq!(found, []);
        assert_eq!(down(&peers, NodeId(1)).await, "not a member");
    }
}

/// Closing ends the links, and so does dropping: a keeper must not keep a connection nobody can use.
#[tokio::test]
async fn links_end_with_their_peers() {
    let papers = Papers::new();
    let one = serve(&papers, 1);
    let ends: [fn(Arc<Peers>); 2] = [|peers| peers.close(), drop];
    for end in ends {
        let peers = peers(&papers);
        peers.set(&[(NodeId(1), one.address)]);
        assert_eq!(within(peers.first_up(&[NodeId(1)])).await, [NodeId(1)]);
        let link = peers.link(NodeId(1)).unwrap();
        end(peers);
        assert_eq!(within(link.closed()).await, CloseReason::ByUs);
    }
}

async fn answers(peers: &Peers, node: NodeId) -> bool {
    let call = peers.call(node, Lane::Control, envelope(Role::Node), ping());
    matches!(within(call).await, Ok((_, Reply::Pong(pong))) if pong.node == node.0)
}

/// Why a node is down.
async fn down(peers: &Peers, node: NodeId) -> String {
    match within(peers.call(node, Lane::Control, envelope(Role::Node), ping())).await {
        Err(CallError::Down(reason)) => reason,
        other => panic!("{node} is not down: {other:?}"),
    }
}

fn peers(papers: &Papers) -> Arc<Peers> {
    Peers::new(Quic::bind(loopback(), &papers.node(ME.0)).unwrap(), Role::Node, Some(ME))
}

/// A port that is taken, by somebody who never answers.
fn nobody() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(loopback()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}
