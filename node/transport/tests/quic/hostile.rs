//! Peers with good papers who break the rules one by one: before the greeting, beyond their role, beyond a cap, or by
//! never going on. What is theirs ends; a neighbour is served all the while.

use atoll_transport::{Link, admission::Class};
use atoll_wire::{
    ALPN, ErrorCode, Hello, Kind, Lane, Reply, Request, Role,
    frame::{Encoded, encode_request},
    limits::{LANE_FRAME_BYTES_MAX, VALUE_BYTES_MAX},
};
use bytes::Bytes;

use crate::{
    house::{
        Papers, Server, envelope, get, link, of_kind, pattern, ping, put, replicate, serve,
        still_served, within,
    },
    raw,
};

/// A request used to be answered although nobody had said hello: a peer that never named itself, or named itself wrongly
/// and was refused, could go on asking. Now a lane begins with a hello that was welcome.
#[tokio::test]
async fn nothing_is_answered_before_the_hello() {
    let (papers, server, neighbour) = house().await;
    let connection = connect(&papers, &server).await;
    let mut lane = raw::Lane::open(&connection).await;
    let wrong = Hello { lane: Lane::Request, node: Some(1), cluster: None };
    let other = Hello { lane: Lane::Request, node: None, cluster: Some([8; 16]) };
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Hello) {
        assert_eq!(refusal(&mut lane, &of_kind(kind)).await, ErrorCode::NotPermitted, "{kind:?}");
    }
    assert_eq!(refusal(&mut lane, &Request::Hello(wrong)).await, ErrorCode::NotPermitted);
    assert_eq!(refusal(&mut lane, &of_kind(Kind::Get)).await, ErrorCode::NotPermitted);
    assert_eq!(refusal(&mut lane, &Request::Hello(other)).await, ErrorCode::OtherCluster);
    assert_eq!(refusal(&mut lane, &of_kind(Kind::Get)).await, ErrorCode::NotPermitted);
    assert!(server.host.seen().is_empty());

    // welcome on one lane is not welcome on another, whose class we would not know
    let mut greeted = raw::Lane::greet(&connection, Lane::Request).await;
    assert!(matches!(asked(&mut greeted, &of_kind(Kind::Get)).await, Reply::Found(_)));
    assert_eq!(refusal(&mut lane, &of_kind(Kind::Get)).await, ErrorCode::NotPermitted);
    still_served(&neighbour).await;
}

/// Whoever never greets is sent away, with lanes open or without, and whatever lies unread on streams of its own.
#[tokio::test]
async fn slow_whoever_does_not_greet_is_sent_away() {
    let (papers, server, neighbour) = house().await;
    let mut silent = Vec::new();
    for number in 0..30 {
        let connection = connect(&papers, &server).await;
        match number % 3 {
            0 => {}
            1 => {
                let mut lane = raw::Lane::open(&connection).await;
                assert_eq!(refusal(&mut lane, &ping()).await, ErrorCode::NotPermitted);
            }
            _ => {
                let mut alone = connection.open_uni().await.unwrap();
                let long = put("key", pattern(LANE_FRAME_BYTES_MAX));
                alone.write_all(&encoded(&long).concat()).await.unwrap();
            }
        }
        silent.push(connection);
    }
    for connection in silent {
        closed_with(&connection, "no hello").await;
        still_served(&neighbour).await;
    }
    assert!(server.host.seen().iter().all(|(_, kind, _)| *kind == Kind::Ping));
}

/// A lane that does not exist is no message, and opens nothing.
#[tokio::test]
async fn an_unknown_lane_is_not_opened() {
    let (papers, server, neighbour) = house().await;
    let connection = connect(&papers, &server).await;
    let mut lane = raw::Lane::open(&connection).await;
    let hello = Request::Hello(Hello { lane: Lane::Bulk, node: None, cluster: None });
    let [mut frame, _] = encoded(&hello).map(|part| part.to_vec());
    let at = frame.len() - 3; // lane, no node, no cluster
    assert_eq!(frame[at..], [2, 0, 0]);
    for unknown in [3, 9, 0xff] {
        frame[at] = unknown;
        lane.send.write_all(&frame).await.unwrap();
        assert_eq!(refused(within(lane.read()).await), ErrorCode::Malformed);
    }
    assert_eq!(refusal(&mut lane, &of_kind(Kind::Get)).await, ErrorCode::NotPermitted);
    still_served(&neighbour).await;
}

/// A frame inside a frame is a value like any other: it is stored and not obeyed. In a header it is no message.
#[tokio::test]
async fn a_frame_in_a_frame_is_not_obeyed() {
    let (papers, server, neighbour) = house().await;
    let (connection, mut lane) = guest(&papers, &server).await;
    let mut nested = Bytes::from(encoded(&replicate(Bytes::from_static(b"inner"))).concat());
    for _ in 0..10 {
        nested = Bytes::from(encoded(&put("key", nested)).concat());
    }
    lane.send.write_all(&nested).await.unwrap();
    assert!(matches!(within(lane.read()).await.reply(), Ok((_, Reply::Written(_)))));
    lane.send.write_all(&raw::frame(Kind::Get.number(), 0, &nested, &[])).await.unwrap();
    assert_eq!(refused(within(lane.read()).await), ErrorCode::Malformed);
    let obeyed: Vec<Kind> = server.host.seen().iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(obeyed, [Kind::Write]);
    assert!(connection.close_reason().is_none());
    still_served(&neighbour).await;
}

/// For each kind, on a stream of its own: one byte over its cap, or a reply where a request belongs, ends the connection
/// as soon as the head is there.
#[tokio::test]
async fn the_head_of_a_long_frame_is_enough() {
    let (papers, server, neighbour) = house().await;
    for kind in Kind::ALL {
        for reply in [false, true] {
            let (connection, _lane) = guest(&papers, &server).await;
            let mut frame = raw::frame(kind.number(), u16::from(reply), &[], &[]);
            let over = kind.frame_bytes_max(reply) + usize::from(!reply);
            frame[..4].copy_from_slice(&u32::try_from(over).unwrap().to_le_bytes());
            let mut alone = connection.open_uni().await.unwrap();
            alone.write_all(&frame).await.unwrap();
            closed_with(&connection, "malformed frame").await;
        }
    }
    still_served(&neighbour).await;
}

/// A request that its head announces and that never comes whole is nobody's request: ended early, reset, or dribbled
/// byte by byte, alone or on a lane. The rest of the connection goes on.
#[tokio::test]
async fn what_does_not_come_whole_is_not_obeyed() {
    let (papers, server, neighbour) = house().await;
    let (connection, mut lane) = guest(&papers, &server).await;
    let long = encoded(&put("key", pattern(LANE_FRAME_BYTES_MAX))).concat();
    for length in [0, 1, 7, 8, 17, 18, 19, 100, long.len() - 1] {
        let mut early = connection.open_uni().await.unwrap();
        early.write_all(&long[..length]).await.unwrap();
        early.finish().unwrap();
        let mut reset = connection.open_uni().await.unwrap();
        reset.write_all(&long[..length]).await.unwrap();
        reset.reset(7u32.into()).unwrap();
        let mut on_a_lane = raw::Lane::greet(&connection, Lane::Bulk).await;
        let short = encoded(&put("key", pattern(100))).concat();
        on_a_lane.send.write_all(&short[..length.min(short.len() - 1)]).await.unwrap();
        on_a_lane.send.finish().unwrap();
    }
    let mut slow = connection.open_uni().await.unwrap();
    for byte in &long[..200] {
        slow.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(matches!(asked(&mut lane, &ping()).await, Reply::Pong(_)));
    assert!(server.host.seen().iter().all(|(_, kind, _)| *kind == Kind::Ping));
    // and what comes late but whole is answered, whatever follows on its stream
    slow.write_all(&long[200..]).await.unwrap();
    slow.write_all(&raw::noise("behind", 100)).await.ok();
    let mut reply = within(connection.accept_uni()).await.unwrap();
    let reply = within(reply.read_to_end(1 << 20)).await.unwrap();
    let reply = atoll_wire::Frame::parse(&reply.into()).unwrap();
    assert!(matches!(reply.reply(), Ok((_, Reply::Written(_)))));
    still_served(&neighbour).await;
}

/// Streams by the thousand, opened for nothing, are streams that are gone.
#[tokio::test]
async fn streams_for_nothing_cost_nothing() {
    let (papers, server, neighbour) = house().await;
    let (connection, mut lane) = guest(&papers, &server).await;
    for number in 0..1000u32 {
        let (mut send, mut receive) = within(connection.open_bi()).await.unwrap();
        let mut alone = within(connection.open_uni()).await.unwrap();
        alone.write_all(&[0]).await.unwrap();
        send.write_all(&[0]).await.unwrap();
        send.reset(number.into()).unwrap();
        receive.stop(number.into()).unwrap();
        alone.reset(number.into()).unwrap();
    }
    assert!(matches!(asked(&mut lane, &ping()).await, Reply::Pong(_)));
    still_served(&neighbour).await;
}

/// A peer could ask without ever taking an answer, and every answer was kept: a gigabyte for a thousand gets of a
/// megabyte, per lane. Now its lane is not read while its replies wait, and what finds no room is answered "overloaded".
/// Pings are answered all the while, and once the peer listens it hears the answer to each of its questions.
#[tokio::test]
async fn whoever_does_not_listen_is_not_read() {
    const QUESTIONS: u64 = 150; // more megabytes than the replies to a client may take
    let (papers, server, neighbour) = house().await;
    papers.user(&[Role::Client]);
    let dialled = raw::dial(&papers, Some("user"), ALPN, server.address);
    let connection = within(dialled).await.unwrap();
    connection.set_max_concurrent_uni_streams(0u32.into());
    let mut lane = raw::Lane::greet_as(&connection, Role::Client, Lane::Request).await;
    let mut control = raw::Lane::greet_as(&connection, Role::Client, Lane::Control).await;
    for id in 0..QUESTIONS {
        let question = encode_request(id, &envelope(Role::Client), &get(VALUE_BYTES_MAX)).unwrap();
        lane.send.write_all(&question.concat()).await.unwrap();
    }
    let status = encode_request(5, &envelope(Role::Client), &of_kind(Kind::Status)).unwrap();
    for _ in 0..20 {
        control.send.write_all(&status.concat()).await.unwrap();
        assert!(matches!(within(control.read()).await.reply(), Ok((_, Reply::Status(_)))));
        still_served(&neighbour).await;
    }
    let gets = || server.host.seen().iter().filter(|(_, kind, _)| *kind == Kind::Get).count();
    let half = Class::Client.reply_bytes_max() / VALUE_BYTES_MAX / 2;
    assert!((half..QUESTIONS as usize).contains(&gets()), "{} gets were worked on", gets());

    // now it listens, on both ways that an answer may take
    connection.set_max_concurrent_uni_streams(64u32.into());
    let mut answered = std::collections::BTreeSet::new();
    while (answered.len() as u64) < QUESTIONS {
        let frame = tokio::select! {
            frame = within(lane.read()) => frame,
            stream = within(connection.accept_uni()) => {
                let reply = within(stream.unwrap().read_to_end(2 << 20)).await.unwrap();
                atoll_wire::Frame::parse(&reply.into()).unwrap()
            }
        };
        match frame.reply().unwrap().1 {
            Reply::Found(found) => assert_eq!(found.reading.len(), VALUE_BYTES_MAX),
            Reply::Failed(failure) => assert_eq!(failure.code, ErrorCode::Overloaded),
            other => panic!("{other:?}"),
        }
        assert!(answered.insert(frame.id), "an answer came twice");
    }
}

/// A server, and a link to it that shall never notice anything.
async fn house() -> (Papers, Server, Link) {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let neighbour = link(&papers, &server).await;
    papers.node(2);
    (papers, server, neighbour)
}

/// A connection of node 2 that has not greeted.
async fn connect(papers: &Papers, server: &Server) -> quinn::Connection {
    within(raw::dial(papers, Some("n2"), ALPN, server.address)).await.unwrap()
}

/// A connection of node 2, with one lane greeted.
async fn guest(papers: &Papers, server: &Server) -> (quinn::Connection, raw::Lane) {
    let connection = connect(papers, server).await;
    let lane = within(raw::Lane::greet(&connection, Lane::Request)).await;
    (connection, lane)
}

async fn asked(lane: &mut raw::Lane, request: &Request) -> Reply {
    lane.send.write_all(&encoded(request).concat()).await.unwrap();
    within(lane.read()).await.reply().unwrap().1
}

async fn refusal(lane: &mut raw::Lane, request: &Request) -> ErrorCode {
    lane.send.write_all(&encoded(request).concat()).await.unwrap();
    refused(within(lane.read()).await)
}

fn refused(frame: atoll_wire::Frame) -> ErrorCode {
    match frame.reply() {
        Ok((_, Reply::Failed(failure))) => failure.code,
        other => panic!("{other:?}"),
    }
}

async fn closed_with(connection: &quinn::Connection, words: &str) {
    match within(connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => assert_eq!(close.reason, words),
        other => panic!("{other}"),
    }
}

fn encoded(request: &Request) -> Encoded {
    encode_request(5, &envelope(Role::Node), request).unwrap()
}
