//! What hostile guests make us hold, measured: the peak of allocated bytes while they push.
//!
//! A program of its own, because the counter counts the whole process. Client and server share it here, so each figure
//! holds the sender's buffers too.

use std::{collections::BTreeSet, sync::Mutex};

use atoll_transport::admission::Class;
use atoll_wire::{
    ALPN, Kind, Lane, Role,
    frame::encode_request,
    limits::{STATE_TAIL_BYTES_MAX, VALUE_BYTES_MAX},
};
use bytes::Bytes;
use peak_alloc::PeakAlloc;
use tokio::task::JoinSet;

use house::{
    AT_THE_GATE, Papers, envelope, link, pattern, put, serve, still_served, until, within,
};

#[path = "quic/house.rs"]
#[allow(dead_code, reason = "shared with the tests in `quic`, which use the rest")]
mod house;
#[path = "quic/raw.rs"]
#[allow(dead_code, reason = "shared with the tests in `quic`, which use the rest")]
mod raw;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One test at a time: the counter is one.
static TURN: Mutex<()> = Mutex::new(());

/// A client could send what only a node may, 66 MiB on each of 64 streams, and its role was looked at when all of it had
/// arrived. Now the head says no: 192 MiB pushed leave next to nothing.
#[test]
fn what_a_role_may_not_send_is_not_kept() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    block_on(async {
        const STREAMS: usize = 64;
        const PUSHED_BYTES: usize = 3 << 20;
        let papers = Papers::new();
        let server = serve(&papers, 1);
        let neighbour = link(&papers, &server).await;
        let connection = client(&papers, server.address).await;
        let _lane = raw::Lane::greet_as(&connection, Role::Client, Lane::Request).await;
        let mut head = raw::frame(Kind::Replicate.number(), 0, &[0; 100], &[]);
        let announced = u32::try_from(STATE_TAIL_BYTES_MAX).unwrap();
        head[..4].copy_from_slice(&announced.to_le_bytes());
        let body = Bytes::from(vec![0; PUSHED_BYTES]);

        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let mut pushing = JoinSet::new();
        for _ in 0..STREAMS {
            let mut alone = connection.open_uni().await.unwrap();
            let (head, body) = (head.clone(), body.clone());
            pushing.spawn(async move {
                alone.write_all(&head).await.unwrap();
                alone.write_chunk(body).await.unwrap();
                alone
            });
        }
        let held = within(pushing.join_all()).await;
        still_served(&neighbour).await;
        let peak = MEMORY.peak_usage() - before;
        println!("{} MiB pushed, {} MiB at most held", STREAMS * 3, peak >> 20);
        assert!(peak < 32 << 20, "{peak} bytes were held");
        drop(held);
        assert!(server.host.seen().iter().all(|(_, kind, _)| *kind == Kind::Ping));
    });
}

/// What a client may send is counted, too: all of its connections together have so many bytes of requests in work, and
/// the rest waits in QUIC's windows.
#[test]
fn the_bytes_of_requests_are_counted_per_certificate() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    block_on(async {
        const CONNECTIONS: usize = 4;
        const EACH: usize = 20;
        let papers = Papers::new();
        let server = serve(&papers, 1);
        let neighbour = link(&papers, &server).await;
        let value = pattern(VALUE_BYTES_MAX);
        let request = put(AT_THE_GATE, value);
        let frame = encode_request(7, &envelope(Role::Client), &request).unwrap();
        let length = frame[0].len() + frame[1].len();
        let frame = Bytes::from(frame.concat());

        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let (mut connections, mut pushing) = (Vec::new(), JoinSet::new());
        for _ in 0..CONNECTIONS {
            let connection = client(&papers, server.address).await;
            let lane = raw::Lane::greet_as(&connection, Role::Client, Lane::Request).await;
            for _ in 0..EACH {
                let mut alone = connection.open_uni().await.unwrap();
                let frame = frame.clone();
                pushing.spawn(async move { alone.write_chunk(frame).await });
            }
            connections.push((connection, lane));
        }
        let most = Class::Client.request_bytes_max() / length;
        until("the share is full", || server.host.in_work() == most).await;
        for _ in 0..20 {
            still_served(&neighbour).await;
        }
        assert_eq!(server.host.in_work(), most);
        let peak = MEMORY.peak_usage() - before;
        let windows = CONNECTIONS * (Class::Client.receive_window_bytes() as usize);
        println!("{} MiB offered, {} MiB at most held", CONNECTIONS * EACH, peak >> 20);
        // the share, the windows, and the sender's own 10 MB of each connection
        assert!(peak < Class::Client.request_bytes_max() + windows + CONNECTIONS * (12 << 20));

        // room comes free and all of them are answered
        server.host.gate.add_permits(CONNECTIONS * EACH);
        for (connection, _) in &connections {
            let mut answered = BTreeSet::new();
            while answered.len() < EACH {
                let mut reply = within(connection.accept_uni()).await.unwrap();
                within(reply.read_to_end(1 << 20)).await.unwrap();
                assert!(answered.insert(reply.id()));
            }
        }
        assert_eq!(server.host.in_work_most(), most);
    });
}

fn block_on(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(test);
}

async fn client(papers: &Papers, address: std::net::SocketAddr) -> quinn::Connection {
    if !papers.path("user.pem").exists() {
        papers.user(&[Role::Client]);
    }
    within(raw::dial(papers, Some("user"), ALPN, address)).await.unwrap()
}
