//! Links that are broken on purpose, with real sockets.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use atoll_ring::NodeId;
use atoll_transport::{Expect, Link, LinkFaults, Quic};
use atoll_wire::{
    Lane, Reply, Role,
    faults::{Chance, LinkFault},
};

use crate::house::{Papers, Server, envelope, fetch, loopback, ping, serve, until, within};

const ME: NodeId = NodeId(9);
const HOST: NodeId = NodeId(1);

/// A node whose links may be broken, and what breaks them.
fn faulty(papers: &Papers, me: NodeId) -> (Quic, Arc<LinkFaults>) {
    let faults = Arc::new(LinkFaults::new(me));
    let quic = Quic::bind_with_faults(loopback(), &papers.node(me.0), faults.clone()).unwrap();
    (quic, faults)
}

fn fault(peer: NodeId) -> LinkFault {
    LinkFault::to(peer, "test")
}

fn cut(peer: NodeId) -> LinkFault {
    LinkFault { cut: true, ..fault(peer) }
}

/// A link from a node whose way to the host may be broken.
async fn link_to(server: &Server, quic: &Quic, faults: &LinkFaults) -> Arc<Link> {
    faults.follow(&[(HOST, server.address)]);
    let dialled = within(quic.dial(server.address, Expect::Node(HOST), Role::Node, Some(ME)));
    Arc::new(dialled.await.unwrap())
}

/// While the link is cut not one datagram arrives, for as long as a dial is tried; when it is healed they do.
#[tokio::test]
async fn slow_a_cut_link_lets_nothing_through() {
    let papers = Papers::new();
    let (quic, faults) = faulty(&papers, ME);
    let socket = UdpSocket::bind(loopback()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    faults.follow(&[(HOST, address)]);
    let dial = |address: SocketAddr| {
        let quic = quic.clone();
        async move { quic.dial(address, Expect::Node(HOST), Role::Node, Some(ME)).await }
    };
    let received = || socket.recv(&mut [0; 2000]);
    faults.command(0, &[cut(HOST)]);
    assert!(within(dial(address)).await.is_err(), "nobody answers there");
    assert_eq!(received().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    faults.command(0, &[]);
    let dialling = tokio::spawn(dial(address));
    until("a datagram arrives", || received().is_ok()).await;
    dialling.abort();
}

/// One way only: the host hears every question, and none of its answers arrives. When the link is whole again, they do, over
/// the same connection.
#[tokio::test]
async fn a_link_can_be_cut_in_one_direction() {
    let papers = Papers::new();
    let (host_quic, host_faults) = faulty(&papers, HOST);
    let server = crate::house::serve_on(host_quic, HOST.0);
    let (quic, faults) = faulty(&papers, ME);
    host_faults.follow(&[(ME, quic.address().unwrap())]);
    let link = link_to(&server, &quic, &faults).await;
    host_faults.command(0, &[cut(ME)]);
    let mut asked = Vec::new();
    for number in 1..=3 {
        let link = link.clone();
        asked.push(tokio::spawn(async move {
            link.call(Lane::Control, &envelope(Role::Node), &ping()).await
        }));
        until("the question arrives", || server.host.seen().len() == number).await;
    }
    assert!(asked.iter().all(|asked| !asked.is_finished()), "answers came through");
    host_faults.command(0, &[]);
    for asked in asked {
        let (_, reply) = within(asked).await.unwrap().unwrap();
        assert!(matches!(reply, Reply::Pong(_)));
    }
}

/// A delay is at least what it says, in the direction that has it.
#[tokio::test]
async fn a_delay_takes_its_time() {
    let papers = Papers::new();
    let server = serve(&papers, HOST.0);
    let (quic, faults) = faulty(&papers, ME);
    let link = link_to(&server, &quic, &faults).await;
    for delay_ms in [30, 120] {
        faults.command(0, &[LinkFault { delay_ms: Some(delay_ms), ..fault(HOST) }]);
        let began = Instant::now();
        within(link.call(Lane::Control, &envelope(Role::Node), &ping())).await.unwrap();
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(delay_ms.into()), "{took:?} of {delay_ms} ms");
    }
}

/// Whatever a bad link does to datagrams, QUIC makes up for it: large answers, which travel several datagrams at a time,
/// arrive whole.
#[tokio::test]
async fn values_arrive_whole_over_bad_links() {
    let papers = Papers::new();
    let (host_quic, host_faults) = faulty(&papers, HOST);
    let server = crate::house::serve_on(host_quic, HOST.0);
    let (quic, faults) = faulty(&papers, ME);
    host_faults.follow(&[(ME, quic.address().unwrap())]);
    let link = link_to(&server, &quic, &faults).await;
    let chance = |millionths| Chance::of_million(millionths);
    let bad = |peer| LinkFault {
        drop: chance(20_000),
        delay_ms: Some(3),
        jitter_ms: Some(3),
        duplicate: chance(100_000),
        reorder: chance(50_000),
        ..fault(peer)
    };
    let narrow = |peer| LinkFault { bandwidth_bits: Some(200_000_000), ..fault(peer) };
    host_faults.command(1, &[bad(ME)]);
    faults.command(1, &[bad(HOST)]);
    for (length, kind) in [(100, "bad"), (300_000, "bad"), (1_000_000, "narrow")] {
        if kind == "narrow" {
            host_faults.command(1, &[narrow(ME)]);
        }
        let (envelope, request) = (envelope(Role::Node), fetch(length.to_string()));
        let (_, reply) = within(link.call(Lane::Bulk, &envelope, &request)).await.unwrap();
        let Reply::Fetched(fetched) = reply else { panic!("no state") };
        assert!(fetched.state == crate::house::pattern(length), "{length} bytes, {kind}");
    }
}
