//! Crowds: handshakes that are never finished, connections that are never used, connections that come and go.
//!
//! The crowd stands at 127.0.0.2 and good clients mostly at 127.0.0.1. Each test lets good ones in while the crowd is at
//! its worst, and looks at how many connections QUIC holds then.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use atoll_transport::{
    Expect, Link, Quic,
    admission::{
        CONNECTIONS_PER_CERTIFICATE_MAX, HANDSHAKES_PER_ADDRESS_MAX, UNPROVEN_HANDSHAKES_MAX,
    },
};
use atoll_wire::{Lane, Role};
use tokio::net::UdpSocket;

use crate::{
    house::{Papers, Server, envelope, link, of_kind, serve, still_served, until, within},
    raw,
};

/// First packets from an address that never answers, two thousand of them, each of another connection. From the
/// thirty-third on a stranger is asked to prove its address, and nothing is kept for it until it does.
#[tokio::test]
async fn first_packets_of_nobody_are_not_kept() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let neighbour = link(&papers, &server).await;
    let before = server.quic.open_connections();
    let packets = first_packets(&papers, 2000).await;
    let nobody = UdpSocket::bind((CROWD, 0)).await.unwrap();
    for (number, packet) in packets.iter().enumerate() {
        nobody.send_to(packet, server.address).await.unwrap();
        if number % 50 == 0 {
            still_served(&neighbour).await;
        }
        if number % 400 == 0 {
            good_visit(&papers, &server, Ipv4Addr::LOCALHOST).await;
        }
        // those that wait, those that were given up and leave, and the good visitor
        let most = before + 2 * UNPROVEN_HANDSHAKES_MAX + 2;
        assert!(server.quic.open_connections() <= most, "{}", server.quic.open_connections());
    }
    good_visit(&papers, &server, CROWD).await;
    still_served(&neighbour).await;
}

/// The same from somebody who proves the address and goes no further. An address has so many unfinished handshakes; the
/// next one takes the place of the oldest, so also an honest client at the very same address gets in.
#[tokio::test]
async fn handshakes_that_are_never_finished_make_room() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let neighbour = link(&papers, &server).await;
    let (crowd, proven) = half_way(server.address).await;
    papers.user(&[Role::Client]);
    let endpoint = raw::client(&papers, Some("user"), atoll_wire::ALPN);
    let mut begun = Vec::new();
    for number in 0..5 * HANDSHAKES_PER_ADDRESS_MAX {
        begun.push(endpoint.connect(crowd, "node.atoll").unwrap());
        if number % 20 == 0 {
            still_served(&neighbour).await;
        }
        if number % 80 == 0 {
            good_visit(&papers, &server, Ipv4Addr::LOCALHOST).await;
        }
    }
    until("the crowd has proven its address", || {
        proven.load(Ordering::SeqCst) > 2 * HANDSHAKES_PER_ADDRESS_MAX
    })
    .await;
    good_visit(&papers, &server, CROWD).await;
    good_visit(&papers, &server, Ipv4Addr::LOCALHOST).await;
    still_served(&neighbour).await;
    // whoever was pushed out leaves QUIC's own table some round trips later
    until("no more than the share of an address is left", || {
        server.quic.open_connections() <= HANDSHAKES_PER_ADDRESS_MAX + 4
    })
    .await;
}

/// One certificate could take all connections, and hold them for ever by doing nothing. Now it has a share; the next one
/// is told so, other certificates are served, and who leaves makes room.
#[tokio::test]
async fn slow_idle_connections_of_one_certificate_have_a_share() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let neighbour = link(&papers, &server).await;
    let shared = papers.user(&[Role::Client]);
    let quic = Quic::bind((CROWD, 0).into(), &shared).unwrap();
    let dial = || within(quic.dial(server.address, Expect::AnyNode, Role::Client, None));
    let mut idle = Vec::new();
    for number in 0..CONNECTIONS_PER_CERTIFICATE_MAX {
        idle.push(dial().await.unwrap());
        if number % 100 == 0 {
            still_served(&neighbour).await;
        }
    }
    for _ in 0..3 {
        let refused = dial().await.err().expect("over its share").to_string();
        assert!(refused.contains("too many connections of this certificate"), "{refused}");
        good_visit(&papers, &server, CROWD).await;
        still_served(&neighbour).await;
    }
    assert!(idle.iter().all(Link::is_open), "who is in stays in");
    idle.pop();
    let late = loop {
        // the goodbye is on its way
        match dial().await {
            Ok(link) => break link,
            Err(error) => assert!(error.to_string().contains("too many"), "{error}"),
        }
    };
    assert!(late.is_open());
}

/// Connections that come and go leave nothing.
#[tokio::test]
async fn coming_and_going_leaves_nothing() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let neighbour = link(&papers, &server).await;
    papers.node(2);
    let endpoint = raw::client(&papers, Some("n2"), atoll_wire::ALPN);
    let before = server.quic.open_connections();
    for number in 0..300u32 {
        let connection =
            within(endpoint.connect(server.address, "node.atoll").unwrap()).await.unwrap();
        match number % 4 {
            0 => connection.close(0u32.into(), b"bye"),
            1 => drop(within(raw::Lane::greet(&connection, Lane::Request)).await),
            2 => drop(connection.open_uni().await.unwrap().write_all(&[1; 100]).await),
            _ => {}
        }
        if number % 20 == 0 {
            still_served(&neighbour).await;
        }
    }
    until("all have left", || server.quic.open_connections() <= before).await;
    still_served(&neighbour).await;
}

const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A client that comes from this address, is greeted, asks, is answered, and goes. It dials again if it must, as `Peers`
/// does: in a crowd at its own address its handshake may be the oldest when the next one comes.
async fn good_visit(papers: &Papers, server: &Server, from: Ipv4Addr) {
    let quic = Quic::bind((from, 0).into(), &papers.user(&[Role::Operator])).unwrap();
    let dialled = async {
        loop {
            match quic.dial(server.address, Expect::AnyNode, Role::Operator, None).await {
                Ok(link) => break link,
                Err(error) => println!("dialling again: {error}"),
            }
        }
    };
    let link = within(dialled).await;
    let request = of_kind(atoll_wire::Kind::Get);
    within(link.call(Lane::Request, &envelope(Role::Operator), &request)).await.unwrap();
    drop(link);
    quic.close(std::time::Duration::from_millis(5)).await;
}

/// The first packet of so many connections, made by a client that dials somebody who only listens.
async fn first_packets(papers: &Papers, count: usize) -> Vec<Vec<u8>> {
    papers.user(&[Role::Client]);
    let endpoint = raw::client(papers, Some("user"), atoll_wire::ALPN);
    let listener = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut packets = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    let mut buffer = vec![0; 2000];
    while packets.len() < count {
        let begun = endpoint.connect(address, "node.atoll").unwrap();
        loop {
            let length = within(listener.recv(&mut buffer)).await.unwrap();
            // a long header of an initial packet, and a connection not seen before
            if buffer[0] & 0xf0 == 0xc0 && ids.insert(buffer[6..14].to_vec()) {
                packets.push(buffer[..length].to_vec());
                break;
            }
        }
        drop(begun);
    }
    packets
}

/// Something that lets a client's packets through to a server and nothing back but the demand to prove the address.
/// Gives where to dial, and counts the proofs that went through.
async fn half_way(server: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let outside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let inside = UdpSocket::bind((CROWD, 0)).await.unwrap();
    let address = outside.local_addr().unwrap();
    let proven = Arc::new(AtomicUsize::new(0));
    let count = proven.clone();
    tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 2000], vec![0; 2000]);
        let mut client = None;
        loop {
            tokio::select! { biased;
                Ok((length, from)) = outside.recv_from(&mut up) => {
                    client = Some(from);
                    let token_at = 6 + usize::from(up[5]);
                    let token_at = token_at + 1 + usize::from(up[token_at]);
                    if up[0] & 0xf0 == 0xc0 && up[token_at] != 0 {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    let _ = inside.send_to(&up[..length], server).await;
                }
                Ok(length) = inside.recv(&mut down) => {
                    if let (0xf0, Some(client)) = (down[0] & 0xf0, client) {
                        let _ = outside.send_to(&down[..length], client).await;
                    }
                }
            }
        }
    });
    (address, proven)
}
