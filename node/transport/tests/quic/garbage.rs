//! Peers that pass TLS and then misbehave. They are shown the door, and the others do not notice.

use atoll_ring::NodeId;
use atoll_transport::{CallError, DialError, Expect, Link, Quic};
use atoll_wire::{
    ALPN, ErrorCode, Failure, Kind, Reply, Role,
    frame::encode_request,
    limits::{LANE_FRAME_BYTES_MAX, OPERATION_TAIL_BYTES_MAX},
};

use crate::{
    house::{
        Papers, Server, ask, envelope, link, loopback, pattern, ping, put, serve, still_served,
        within,
    },
    raw,
};

/// What is no frame, each with its name.
fn nasties() -> Vec<(&'static str, Vec<u8>)> {
    let put = Kind::Write.number();
    let mut cap_and_one = raw::frame(put, 0, &[0; 100], &[]);
    cap_and_one[..4]
        .copy_from_slice(&(14 + (32 << 10) + OPERATION_TAIL_BYTES_MAX as u32 + 1).to_le_bytes());
    let mut endless = cap_and_one.clone();
    endless[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut version = raw::frame(put, 0, &[0; 100], &[]);
    version[4] = 9;
    let mut short = raw::frame(put, 0, &[], &[]);
    short[0] = 13;
    let mut header_past_the_end = raw::frame(put, 0, &[0; 100], &[]);
    header_past_the_end[16] = 101;
    vec![
        ("noise", raw::noise("noise", 4096).to_vec()),
        ("zeros", vec![0; 64]),
        ("a web browser", b"GET / HTTP/1.1\r\nhost: atoll\r\n\r\n".to_vec()),
        ("an unknown version", version),
        ("an unknown kind", raw::frame(99, 0, &[0; 100], &[])),
        ("unknown flags", raw::frame(put, 0x8000, &[0; 100], &[])),
        ("a length below the least", short),
        ("a length one over the cap", cap_and_one),
        ("a length of four gigabytes", endless),
        ("a header past the end", header_past_the_end),
        ("a tail where none belongs", raw::frame(Kind::Ping.number(), 0, &[0; 10], &[0; 1])),
    ]
}

/// On a lane and on a stream of its own: the connection ends, and the neighbour is served before, during and after.
#[tokio::test]
async fn whoever_sends_garbage_is_shown_the_door() {
    let (papers, server, neighbour) = house().await;
    for (what, bytes) in nasties() {
        for own_stream in [false, true] {
            let (connection, _lane) = hostile(&papers, &server).await;
            let mut stream = if own_stream {
                connection.open_uni().await.unwrap()
            } else {
                connection.open_bi().await.unwrap().0
            };
            still_served(&neighbour).await;
            stream.write_all(&bytes).await.unwrap();
            shown_the_door(&connection, what).await;
            still_served(&neighbour).await;
        }
    }
}

/// Garbage may also come after a good beginning.
#[tokio::test]
async fn garbage_after_a_greeting_is_garbage() {
    let (papers, server, neighbour) = house().await;
    let (connection, mut lane) = hostile(&papers, &server).await;
    lane.send.write_all(&encoded(&ping())).await.unwrap();
    assert!(matches!(lane.read().await.reply(), Ok((_, Reply::Pong(_)))));
    lane.send.write_all(&raw::noise("later", 100_000)).await.ok(); // it may end while we write
    shown_the_door(&connection, "noise after a ping").await;
    still_served(&neighbour).await;
}

/// A long frame is good on a stream of its own and no good on a lane, where others would wait behind it.
#[tokio::test]
async fn a_long_frame_has_no_business_on_a_lane() {
    let (papers, server, neighbour) = house().await;
    let (connection, mut lane) = hostile(&papers, &server).await;
    let long = encoded(&put("key", pattern(LANE_FRAME_BYTES_MAX)));
    let mut alone = connection.open_uni().await.unwrap();
    alone.write_all(&long).await.unwrap();
    let mut reply = within(connection.accept_uni()).await.unwrap();
    assert!(!within(reply.read_to_end(1 << 20)).await.unwrap().is_empty());
    lane.send.write_all(&long).await.ok();
    shown_the_door(&connection, "a long frame on a lane").await;
    still_served(&neighbour).await;
}

/// A good frame around a message that is none, or around a reply, is answered: the peer may be of another build, and the
/// frames behind it can still be told apart.
#[tokio::test]
async fn a_message_that_is_none_is_answered() {
    let (papers, server, _neighbour) = house().await;
    let (_connection, mut lane) = hostile(&papers, &server).await;
    for (flags, header) in [(0, &[0xff; 60][..]), (0, &[]), (1, &[0; 10]), (2, &[0; 10]), (3, &[])]
    {
        let bytes = raw::frame(Kind::Get.number(), flags, header, &[]);
        lane.send.write_all(&bytes).await.unwrap();
        let frame = within(lane.read()).await;
        let Ok((_, Reply::Failed(failure))) = frame.reply() else { panic!("not {frame:?}") };
        assert_eq!((failure.code, frame.id), (ErrorCode::Malformed, 77));
    }
    lane.send.write_all(&encoded(&ping())).await.unwrap();
    assert!(matches!(within(lane.read()).await.reply(), Ok((_, Reply::Pong(_)))));
}

/// Half a frame on as many streams as one may open, for as long as one likes: only one's own streams are taken.
#[tokio::test]
async fn half_a_frame_holds_up_nobody_else() {
    let (papers, server, neighbour) = house().await;
    let (connection, _lane) = hostile(&papers, &server).await;
    let mut held = Vec::new();
    for _ in 0..7 {
        let (mut stream, other) = connection.open_bi().await.unwrap();
        stream.write_all(&encoded(&ping())[..20]).await.unwrap();
        held.push((stream, Some(other)));
    }
    for _ in 0..64 {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&raw::frame(Kind::Write.number(), 0, &[0; 100], &[])[..50]).await.unwrap();
        held.push((stream, None));
    }
    still_served(&neighbour).await;
    drop(held); // dropping a stream ends it inside its frame
    still_served(&neighbour).await;
}

/// The other way round: what a hostile server sends ends the link, and whoever waits hears it instead of waiting.
#[tokio::test]
async fn a_server_that_sends_garbage_loses_its_callers() {
    let papers = Papers::new();
    papers.node(1);
    for (what, bytes) in nasties() {
        for own_stream in [false, true] {
            let endpoint = raw::listen(&papers, "n1");
            let (dialled, (connection, mut lanes)) =
                tokio::join!(dial(&papers, &endpoint), raw::greet(&endpoint));
            let (link, request) = (dialled.unwrap(), ping());
            let (answer, ()) =
                tokio::join!(ask(&link, atoll_wire::Lane::Control, &request), async {
                    let asked = lanes[0].read().await.id;
                    let mut alone = connection.open_uni().await.unwrap();
                    let stream = if own_stream { &mut alone } else { &mut lanes[0].send };
                    stream.write_all(&raw::answering(asked, &bytes)).await.unwrap();
                });
            assert!(matches!(answer, Err(CallError::Lost(_))), "{what}: {answer:?}");
            within(link.closed()).await;
            assert!(matches!(
                ask(&link, atoll_wire::Lane::Bulk, &ping()).await,
                Err(CallError::Down(_))
            ));
        }
    }
}

/// A server could send what nobody has asked for, 64 streams of 66 MiB at a time, and the dialler kept it all until it
/// was whole. Now the head is read first, and what nobody waits for is not: the streams are stopped, and the link stays.
#[tokio::test]
async fn long_replies_that_nobody_waits_for_are_not_read() {
    let papers = Papers::new();
    papers.node(1);
    let endpoint = raw::listen(&papers, "n1");
    let (dialled, (connection, mut lanes)) =
        tokio::join!(dial(&papers, &endpoint), raw::greet(&endpoint));
    let link = dialled.unwrap();
    for _ in 0..200 {
        let mut alone = within(connection.open_uni()).await.unwrap();
        let mut endless = raw::frame(Kind::Get.number(), 1, &[0; 100], &[]);
        endless[..4].copy_from_slice(&(60u32 << 20).to_le_bytes());
        alone.write_all(&endless).await.unwrap();
        assert!(within(alone.stopped()).await.unwrap().is_some());
    }
    let (request, pong) = (
        ping(),
        Reply::Pong(atoll_wire::Pong {
            node: 1,
            incarnation: 0,
            commit: atoll_wire::Commit::default(),
            roots: atoll_wire::Roots::default(),
            wall_ms: 1_700_000_000_001,
            buckets: 0,
        }),
    );
    let (answer, ()) = tokio::join!(ask(&link, atoll_wire::Lane::Control, &request), async {
        let asked = lanes[0].read().await.id;
        lanes[0].reply(Kind::Ping, asked, &pong).await;
    });
    assert_eq!(answer, Ok(pong.clone()));
}

/// A reply on its own stream that breaks off is as good as garbage: somebody waits for it.
#[tokio::test]
async fn a_long_reply_that_breaks_off_is_not_waited_for() {
    let papers = Papers::new();
    papers.node(1);
    let endpoint = raw::listen(&papers, "n1");
    let (dialled, (connection, mut lanes)) =
        tokio::join!(dial(&papers, &endpoint), raw::greet(&endpoint));
    let (link, request) = (dialled.unwrap(), ping());
    let (answer, ()) = tokio::join!(ask(&link, atoll_wire::Lane::Control, &request), async {
        let asked = lanes[0].read().await.id;
        let mut alone = connection.open_uni().await.unwrap();
        let reply = raw::answering(asked, &raw::frame(Kind::Get.number(), 1, &[0; 100], &[]));
        alone.write_all(&reply[..50]).await.unwrap();
        alone.finish().unwrap();
    });
    assert_eq!(answer, Err(CallError::Lost("the stream ended inside a frame".into())));
}

/// Whoever is not greeted gets no link, and leaves no connection behind: a connection kept alive by its own pings would
/// stay for ever, one more with each attempt.
#[tokio::test]
async fn a_refused_dial_leaves_nothing_behind() {
    let papers = Papers::new();
    papers.node(1);
    let endpoint = raw::listen(&papers, "n1");
    let refusal = Failure::refused(ErrorCode::NotPermitted, "not today");
    let answers = [
        Some(Reply::Failed(Box::new(refusal))),
        Some(Reply::Pong(atoll_wire::Pong {
            node: 1,
            incarnation: 0,
            commit: atoll_wire::Commit::default(),
            roots: atoll_wire::Roots::default(),
            wall_ms: 1_700_000_000_001,
            buckets: 0,
        })),
        None,
    ];
    for answer in answers {
        let refuse = async {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let mut lane = raw::Lane::accept(&connection).await;
            let hello = lane.read().await;
            match answer {
                Some(reply @ Reply::Failed(_)) => lane.reply(Kind::Hello, hello.id, &reply).await,
                Some(reply) => lane.reply(Kind::Ping, hello.id, &reply).await,
                None => lane.send.write_all(&[0; 64]).await.unwrap(),
            }
            (connection, lane)
        };
        let (dialled, (connection, _lane)) = tokio::join!(dial(&papers, &endpoint), refuse);
        assert!(matches!(dialled, Err(DialError::Refused(_))));
        let end = within(connection.closed()).await;
        assert!(matches!(end, quinn::ConnectionError::ApplicationClosed(_)), "{end}");
    }
}

/// A server that never greets is given up after the limit of a dial, and is not held on to either.
#[tokio::test]
async fn slow_a_server_that_never_greets_is_given_up() {
    let papers = Papers::new();
    papers.node(1);
    let endpoint = raw::listen(&papers, "n1");
    let accept = async { endpoint.accept().await.unwrap().await.unwrap() };
    let (dialled, connection) = tokio::join!(dial(&papers, &endpoint), accept);
    assert!(matches!(dialled, Err(DialError::Handshake(_))));
    let end = within(connection.closed()).await;
    assert!(matches!(end, quinn::ConnectionError::ApplicationClosed(_)), "{end}");
}

/// A server, and a link to it that shall never notice anything.
async fn house() -> (Papers, Server, Link) {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let neighbour = link(&papers, &server).await;
    papers.node(2);
    (papers, server, neighbour)
}

/// A connection with the papers of node 2, with one lane that is greeted.
async fn hostile(papers: &Papers, server: &Server) -> (quinn::Connection, raw::Lane) {
    let connection = within(raw::dial(papers, Some("n2"), ALPN, server.address)).await.unwrap();
    let lane = within(raw::Lane::greet(&connection, atoll_wire::Lane::Request)).await;
    (connection, lane)
}

async fn dial(papers: &Papers, endpoint: &quinn::Endpoint) -> Result<Link, DialError> {
    let quic = Quic::bind(loopback(), &papers.node(9)).unwrap();
    let address = endpoint.local_addr().unwrap();
    within(quic.dial(address, Expect::Node(NodeId(1)), Role::Node, Some(NodeId(9)))).await
}

async fn shown_the_door(connection: &quinn::Connection, what: &str) {
    match within(connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.reason, "malformed frame", "{what}");
        }
        other => panic!("{what}: {other}"),
    }
}

fn encoded(request: &atoll_wire::Request) -> Vec<u8> {
    encode_request(5, &envelope(Role::Node), request).unwrap().concat()
}
