//! Requests and replies: on every lane, of every size, many at once, and when somebody gives up.

use std::{future::Future, pin::Pin, sync::Arc, task::Poll, time::Duration};

use atoll_ring::NodeId;
use atoll_transport::{
    CallError, CloseReason, Expect, Link, Quic,
    serve::{IN_WORK_MAX, LONG_IN_WORK_MAX},
};
use atoll_wire::{
    FrameError, Kind, Lane, Reply, Role,
    limits::{
        LANE_FRAME_BYTES_MAX, OPERATION_TAIL_BYTES_MAX, STATE_TAIL_BYTES_MAX, VALUE_BYTES_MAX,
    },
};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::house::{
    AT_THE_GATE, CLUSTER, Papers, Server, ask, envelope, fetch, get, link, loopback, of_kind,
    pattern, ping, put, replicate, serve, status, still_served, until, within,
};

/// A link knows whom it leads to, and every kind of request is answered on every lane.
#[tokio::test]
async fn every_lane_carries_every_kind() {
    let (papers, server, link) = pair().await;
    assert_eq!((link.node(), link.cluster()), (NodeId(1), CLUSTER));
    let quic = Quic::bind(loopback(), &papers.user(&[Role::Operator])).unwrap();
    let operator = quic.dial(server.address, Expect::AnyNode, Role::Operator, None).await.unwrap();
    for lane in Lane::ALL {
        for kind in Kind::ALL {
            let (link, role) = match Role::Node.may_ask(&of_kind(kind)) {
                true => (&link, Role::Node),
                false => (&operator, Role::Operator),
            };
            let asked = within(link.call(lane, &envelope(role), &of_kind(kind))).await;
            let (_, reply) = asked.unwrap();
            let fits = match kind {
                Kind::Hello => matches!(reply, Reply::Welcome(_)),
                Kind::Ping => matches!(reply, Reply::Pong(_)),
                Kind::View => matches!(reply, Reply::View(_)),
                Kind::Status => reply == status(),
                Kind::Write => matches!(reply, Reply::Written(_)),
                Kind::Get => matches!(reply, Reply::Found(_)),
                Kind::Many => matches!(reply, Reply::Many(_)),
                Kind::List => matches!(reply, Reply::Listed(_)),
                Kind::Explain => matches!(reply, Reply::Explained(_)),
                Kind::Scan => matches!(reply, Reply::Scanned(_)),
                Kind::Replicate => matches!(reply, Reply::Replicated(_)),
                Kind::Fetch => matches!(reply, Reply::Fetched(_)),
                Kind::RepairStatus => matches!(reply, Reply::RepairStatus(_)),
                Kind::RepairRun => matches!(reply, Reply::RepairRun(_)),
                Kind::Faults => matches!(reply, Reply::Faults(_)),
                Kind::Dump => matches!(reply, Reply::Dumped(_)),
                Kind::Recall => matches!(reply, Reply::Recalled(_)),
                Kind::CompareRoots | Kind::Compare => matches!(reply, Reply::Differing(_)),
                Kind::Entries => matches!(reply, Reply::Unmatched(_)),
                Kind::Propose => matches!(reply, Reply::Proposed(_)),
                Kind::Moves => matches!(reply, Reply::Moves(_)),
                Kind::BucketChange => matches!(reply, Reply::BucketChanged(_)),
                Kind::Buckets => matches!(reply, Reply::Buckets(_)),
                Kind::Raft => matches!(reply, Reply::Raft(_)),
                Kind::Copy => matches!(reply, Reply::Copied(_)),
                Kind::Covered => matches!(reply, Reply::Covering(_)),
            };
            assert!(fits, "{kind:?} on {lane:?} was answered with {reply:?}");
        }
    }
}

/// Values arrive whole on both sides of the border between lane and own stream, and up to the cap. One byte more is not
/// even sent.
#[tokio::test]
async fn values_of_every_size_arrive_whole() {
    let (_papers, _server, link) = pair().await;
    let border = LANE_FRAME_BYTES_MAX - 120..LANE_FRAME_BYTES_MAX + 2;
    for length in [0, 1, 1 << 10].into_iter().chain(border.step_by(3)).chain([VALUE_BYTES_MAX]) {
        put_and_check(&link, Lane::Request, length).await;
        get_and_check(&link, Lane::Request, length).await;
    }
    let request = put("key", pattern(OPERATION_TAIL_BYTES_MAX + 1));
    let refused = ask(&link, Lane::Request, &request).await;
    assert!(
        matches!(refused, Err(CallError::Unsendable(FrameError::TooLong { .. }))),
        "{refused:?}"
    );
    still_served(&link).await;
}

/// The state of a key with many siblings is larger than the windows of the connection (16 MiB).
#[tokio::test]
async fn a_state_larger_than_the_windows_arrives_both_ways() {
    let (_papers, _server, link) = pair().await;
    let state = pattern(20 << 20);
    let stored = ask(&link, Lane::Bulk, &replicate(state.clone())).await.unwrap();
    assert!(matches!(stored, Reply::Replicated(_)));
    let key = state.len().to_string();
    let Reply::Fetched(fetched) = ask(&link, Lane::Bulk, &fetch(key)).await.unwrap() else {
        panic!("a fetch is answered with a state");
    };
    assert!(fetched.state == state);
}

/// A reply over its cap is our own mistake: the caller hears of it instead of waiting for ever.
#[tokio::test]
async fn a_reply_over_its_cap_becomes_a_failure() {
    let (_papers, _server, link) = pair().await;
    let key = (STATE_TAIL_BYTES_MAX + 1).to_string();
    let Reply::Failed(failure) = ask(&link, Lane::Bulk, &fetch(key)).await.unwrap() else {
        panic!("it cannot be encoded");
    };
    assert_eq!(failure.code, atoll_wire::ErrorCode::Internal);
}

/// A thousand at once, short and long mixed, over all lanes: each gets its own reply.
#[tokio::test]
async fn a_thousand_calls_at_once() {
    let (_papers, _server, link) = pair().await;
    let link = Arc::new(link);
    let mut calls = JoinSet::new();
    for number in 0..1000usize {
        let (link, lane) = (link.clone(), Lane::ALL[number % 3]);
        let length = if number % 10 == 0 { LANE_FRAME_BYTES_MAX + number } else { number };
        calls.spawn(async move {
            if number % 20 < 10 {
                put_and_check(&link, lane, length).await;
            } else {
                get_and_check(&link, lane, length).await;
            }
        });
    }
    assert_eq!(calls.join_all().await.len(), 1000);
}

/// The replies to callers that gave up arrive, are dropped, and disturb nobody. (That nothing is left behind in the
/// table is tested beside the table.)
#[tokio::test]
async fn a_reply_after_its_caller_left_does_no_harm() {
    let (_papers, server, link) = pair().await;
    let link = Arc::new(link);
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let link = link.clone();
        calls.spawn(async move { ask(&link, Lane::Request, &fetch(AT_THE_GATE)).await });
    }
    until("all requests are in work", || server.host.in_work() == 100).await;
    calls.shutdown().await;
    server.host.gate.add_permits(100);
    until("all replies are made", || server.host.in_work() == 0).await;
    for length in 0..100 {
        get_and_check(&link, Lane::Request, length).await;
    }
    assert!(link.is_open());
}

/// A caller that gives up in the middle of a long request leaves a stream without an end. Nobody is blamed for it.
#[tokio::test]
async fn a_long_request_may_be_given_up_halfway() {
    let (_papers, _server, link) = pair().await;
    let request = replicate(pattern(STATE_TAIL_BYTES_MAX)); // larger than all windows: cannot be sent in one go
    let envelope = envelope(atoll_wire::Role::Node);
    for _ in 0..3 {
        let call = link.call(Lane::Bulk, &envelope, &request);
        tokio::select! { biased;
            reply = call => panic!("no reply can be here yet: {reply:?}"),
            () = still_served(&link) => (),
        }
    }
    still_served(&link).await;
    assert!(link.is_open());
}

/// The bound on requests in work is of a lane: when one lane is full, pings on another are still answered, and in the
/// end everybody is.
#[tokio::test]
async fn a_full_lane_does_not_hold_up_the_others() {
    let (_papers, server, link) = pair().await;
    let link = Arc::new(link);
    let mut calls = JoinSet::new();
    for _ in 0..IN_WORK_MAX + 200 {
        let link = link.clone();
        calls.spawn(async move { ask(&link, Lane::Request, &fetch(AT_THE_GATE)).await });
    }
    until("the lane is full", || server.host.in_work() == IN_WORK_MAX).await;
    still_served(&link).await;
    get_and_check(&link, Lane::Bulk, 100_000).await;
    server.host.gate.add_permits(IN_WORK_MAX + 200);
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(server.host.in_work_most(), IN_WORK_MAX);
}

/// Long requests wait in their streams, not in our memory, for their turn.
#[tokio::test]
async fn long_requests_in_work_are_bounded() {
    let (_papers, server, link) = pair().await;
    let link = Arc::new(link);
    let mut calls = JoinSet::new();
    for _ in 0..3 * LONG_IN_WORK_MAX {
        let (link, value) = (link.clone(), pattern(LANE_FRAME_BYTES_MAX));
        calls.spawn(async move { ask(&link, Lane::Request, &put(AT_THE_GATE, value)).await });
    }
    until("as many as may are in work", || server.host.in_work() == LONG_IN_WORK_MAX).await;
    still_served(&link).await;
    server.host.gate.add_permits(3 * LONG_IN_WORK_MAX);
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(server.host.in_work_most(), LONG_IN_WORK_MAX);
}

/// A caller that is faster than its queue hears so at once, having sent nothing; those in the queue are answered.
#[tokio::test]
async fn a_full_queue_is_said_at_once() {
    const CALLS: usize = 5000;
    const QUEUE: usize = 4096;
    let (_papers, server, link) = pair().await;
    let (request, envelope) = (ping(), envelope(atoll_wire::Role::Node));
    let mut waiting: Vec<Pin<Box<_>>> = Vec::new();
    let mut refused = Vec::new();
    // the writer cannot run between these: the runtime has one thread, and this is one poll
    std::future::poll_fn(|context| {
        for _ in 0..CALLS {
            let mut call = Box::pin(link.call(Lane::Request, &envelope, &request));
            match call.as_mut().poll(context) {
                Poll::Ready(answer) => refused.push(answer),
                Poll::Pending => waiting.push(call),
            }
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!((waiting.len(), refused.len()), (QUEUE, CALLS - QUEUE));
    assert!(refused.iter().all(|answer| *answer == Err(CallError::Overloaded)));
    for call in waiting {
        assert!(within(call).await.is_ok());
    }
    assert_eq!(server.host.seen().len(), QUEUE);
}

/// We say goodbye: who waits hears it, who comes later hears it at once.
#[tokio::test]
async fn closing_a_link_answers_everybody() {
    let (_papers, server, link) = pair().await;
    let link = Arc::new(link);
    let waiting = one_at_the_gate(&link, &server).await;
    link.close();
    let lost = within(waiting).await.unwrap();
    assert_eq!(lost, Err(CallError::Lost("closed by us".into())));
    assert_eq!(within(link.closed()).await, CloseReason::ByUs);
    assert!(!link.is_open());
    let late = ask(&link, Lane::Request, &ping()).await;
    assert_eq!(late, Err(CallError::Down("closed by us".into())));
    let late = ask(&link, Lane::Request, &put("key", pattern(VALUE_BYTES_MAX))).await;
    assert_eq!(late, Err(CallError::Down("closed by us".into())));
}

/// The peer says goodbye.
#[tokio::test]
async fn a_peer_that_stops_says_so() {
    let (_papers, server, link) = pair().await;
    let link = Arc::new(link);
    let waiting = one_at_the_gate(&link, &server).await;
    server.quic.close(Duration::from_secs(1)).await;
    assert_eq!(within(waiting).await.unwrap(), Err(CallError::Lost("closed by the peer".into())));
    assert_eq!(within(link.closed()).await, CloseReason::ByPeer);
    link.close(); // too late: the reason stays the first one
    assert_eq!(within(link.closed()).await, CloseReason::ByPeer);
}

async fn pair() -> (Papers, Server, Link) {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let link = link(&papers, &server).await;
    (papers, server, link)
}

/// A call that waits at the gate.
async fn one_at_the_gate(
    link: &Arc<Link>,
    server: &Server,
) -> tokio::task::JoinHandle<Result<Reply, CallError>> {
    let held = link.clone();
    let call = tokio::spawn(async move { ask(&held, Lane::Request, &fetch(AT_THE_GATE)).await });
    until("the request is in work", || server.host.in_work() == 1).await;
    call
}

async fn put_and_check(link: &Link, lane: Lane, length: usize) {
    let value = pattern(length);
    let hash = Bytes::copy_from_slice(blake3::hash(&value).as_bytes());
    match ask(link, lane, &put("key", value)).await {
        Ok(Reply::Written(stored)) => assert_eq!(stored.context, hash, "{length} bytes"),
        other => panic!("a put of {length} bytes was answered with {other:?}"),
    }
}

async fn get_and_check(link: &Link, lane: Lane, length: usize) {
    match ask(link, lane, &get(length)).await {
        Ok(Reply::Found(found)) => assert!(found.reading == pattern(length), "{length} bytes"),
        other => panic!("a get of {length} bytes was answered with {other:?}"),
    }
}
