//! The network inside one process, on a clock that stands still unless everybody waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use atoll_ring::{ClusterId, Epoch, NodeId, QuorumRequest};
use atoll_transport::{
    Answer, CallError, Caller, Handler,
    memory::{Network, Weather},
};
use atoll_wire::{
    BucketId, Commit, Envelope, Fetch, FrameError, Lane, Ping, Pong, Reply, Request, Role, Roots,
    Write, limits::OPERATION_TAIL_BYTES_MAX,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const SECOND: Duration = Duration::from_secs(1);

/// Answers pings at once and everything else a second later.
struct Host {
    id: NodeId,
    epoch: u64,
    begun: AtomicUsize,
    done: AtomicUsize,
}

impl Host {
    fn new(id: NodeId, epoch: u64) -> Arc<Host> {
        Arc::new(Host { id, epoch, begun: AtomicUsize::new(0), done: AtomicUsize::new(0) })
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }
}

impl Handler for Host {
    fn node(&self) -> NodeId {
        self.id
    }

    fn cluster(&self) -> ClusterId {
        ClusterId([7; 16])
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    fn handle(self: Arc<Self>, caller: Caller, _: Envelope, request: Request) -> Answer {
        assert_eq!(caller.node, Some(ONE));
        self.begun.fetch_add(1, Ordering::SeqCst);
        let reply = Reply::Pong(Pong {
            node: self.id.0,
            incarnation: 0,
            commit: Commit::default(),
            roots: Roots::default(),
            wall_ms: 1_700_000_000_001,
            buckets: 0,
        });
        if let Request::Ping(_) = request {
            self.done.fetch_add(1, Ordering::SeqCst);
            return Answer::Now(reply);
        }
        Answer::Later(Box::pin(async move {
            sleep(SECOND).await;
            self.done.fetch_add(1, Ordering::SeqCst);
            let state = bytes::Bytes::from_static(b"state");
            Reply::Fetched(atoll_wire::Fetched { known: true, in_doubt: false, trace: None, state })
        }))
    }
}

fn ping() -> Request {
    Request::Ping(Ping {
        node: 1,
        incarnation: 0,
        commit: Commit::default(),
        roots: Roots::default(),
        buckets: 0,
    })
}

fn slow_work() -> Request {
    Request::Fetch(Fetch { key: "key".into(), durable: false, hints: false })
}

/// What node 1 hears from node 2.
async fn ask(network: &Arc<Network>, request: Request) -> Result<(Epoch, Reply), CallError> {
    let envelope = Envelope {
        epoch: Epoch(1),
        left_ms: 1000,
        operation: 1,
        bucket: BucketId([0; 16]),
        trace: false,
        role: Role::Node,
    };
    network.port(ONE).call(TWO, Lane::Request, envelope, request).await
}

/// What is heard within a minute of the stopped clock; `None` for silence.
async fn hears(
    network: &Arc<Network>,
    request: Request,
) -> Option<Result<(Epoch, Reply), CallError>> {
    timeout(60 * SECOND, ask(network, request)).await.ok()
}

/// Replies come with the epoch of who answers; what takes no time takes none.
#[tokio::test(start_paused = true)]
async fn calls_are_answered() {
    let (network, host) = (Network::new(), Host::new(TWO, 5));
    network.plug(host.clone());
    let start = Instant::now();
    let (epoch, reply) = ask(&network, ping()).await.unwrap();
    assert_eq!(
        (epoch, reply),
        (
            Epoch(5),
            Reply::Pong(Pong {
                node: 2,
                incarnation: 0,
                commit: Commit::default(),
                roots: Roots::default(),
                wall_ms: 1_700_000_000_001,
                buckets: 0,
            })
        )
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(matches!(ask(&network, slow_work()).await, Ok((_, Reply::Fetched(_)))));
    assert_eq!(start.elapsed(), SECOND);
}

/// What cannot be sent over QUIC cannot be sent here.
#[tokio::test(start_paused = true)]
async fn the_caps_hold_here_too() {
    let (network, host) = (Network::new(), Host::new(TWO, 5));
    network.plug(host.clone());
    let write = Write::put("key".into(), QuorumRequest::default(), Bytes::new());
    let operation = vec![0; OPERATION_TAIL_BYTES_MAX + 1].into();
    let put = Request::Write(Write { operation, ..write });
    let refused = ask(&network, put).await;
    assert!(matches!(refused, Err(CallError::Unsendable(FrameError::TooLong { .. }))));
    assert_eq!(host.begun(), 0);
}

/// A cut has a direction. Cut on the way there, the request never arrives; cut on the way back, it is carried out and
/// nobody hears of it. Either way there is silence, and mending does not bring back what was lost.
#[tokio::test(start_paused = true)]
async fn a_cut_link_is_silent() {
    for (from, to, arrives) in [(ONE, TWO, 0), (TWO, ONE, 1)] {
        let (network, host) = (Network::new(), Host::new(TWO, 5));
        network.plug(host.clone());
        network.cut(from, to);
        assert_eq!(hears(&network, ping()).await, None);
        assert_eq!(host.done(), arrives);

        let lost = tokio::spawn({
            let network = network.clone();
            async move { hears(&network, ping()).await }
        });
        sleep(SECOND).await;
        network.mend(from, to);
        assert_eq!(lost.await.unwrap(), None);
        assert!(matches!(hears(&network, ping()).await, Some(Ok(_))));
        assert_eq!(host.done(), 2 * arrives + 1);
    }
}

/// Delays add up on both ways, and a link that is cut while the message travels is cut for it.
#[tokio::test(start_paused = true)]
async fn a_slow_link_takes_its_time() {
    let (network, host) = (Network::new(), Host::new(TWO, 5));
    network.plug(host.clone());
    network.slow(ONE, TWO, Duration::from_millis(30));
    network.slow(TWO, ONE, Duration::from_millis(12));
    let start = Instant::now();
    ask(&network, ping()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(42));

    let call = tokio::spawn({
        let network = network.clone();
        async move { hears(&network, ping()).await }
    });
    sleep(Duration::from_millis(20)).await;
    network.cut(ONE, TWO);
    assert_eq!(call.await.unwrap(), None);
    assert_eq!(host.begun(), 1);
}

/// A node that is not there is down: nothing was sent. One that goes while it works is lost: it may have been carried
/// out. One that comes back is there again.
#[tokio::test(start_paused = true)]
async fn an_unplugged_node_is_down() {
    let (network, host) = (Network::new(), Host::new(TWO, 5));
    let down = ask(&network, ping()).await.unwrap_err();
    assert!(down.not_sent(), "{down}");
    network.plug(host.clone());

    // on the way, or at work: in both cases the caller hears that it is gone, and cannot know how far it came
    for (delay, begun) in [(SECOND, 0), (Duration::ZERO, 1)] {
        network.slow(ONE, TWO, delay);
        let before = host.begun();
        let call = tokio::spawn({
            let network = network.clone();
            async move { ask(&network, slow_work()).await }
        });
        sleep(SECOND / 2).await;
        network.unplug(TWO);
        let lost = call.await.unwrap().unwrap_err();
        assert!(matches!(lost, CallError::Lost(_)) && !lost.not_sent(), "{lost}");
        assert_eq!(host.begun() - before, begun);
        network.plug(host.clone());
    }
    assert!(ask(&network, ping()).await.is_ok());

    // a new life does not speak for the former one
    let call = tokio::spawn({
        let network = network.clone();
        async move { ask(&network, slow_work()).await }
    });
    sleep(SECOND / 2).await;
    network.plug(Host::new(TWO, 6));
    assert!(matches!(call.await.unwrap(), Err(CallError::Lost(_))));
    assert_eq!(ask(&network, ping()).await.unwrap().0, Epoch(6));
}

/// Whoever stops waiting forgets the reply, not the request: a write that its coordinator has given up still happens.
/// (It did not, once: the handler ran inside the caller's future, so a deadline also undid the work, and a simulated
/// cluster was kinder than a real one.)
#[tokio::test(start_paused = true)]
async fn a_call_given_up_is_still_carried_out() {
    let (network, host) = (Network::new(), Host::new(TWO, 5));
    network.plug(host.clone());
    network.slow(ONE, TWO, SECOND);
    let given_up = timeout(SECOND / 2, ask(&network, slow_work())).await;
    assert!(given_up.is_err());
    assert_eq!(host.begun(), 0);
    sleep(SECOND).await;
    assert_eq!((host.begun(), host.done()), (1, 0));
    sleep(SECOND).await;
    assert_eq!((host.begun(), host.done()), (1, 1));
}

/// Lost messages are silence, and so many are lost as was asked for; nothing else is.
#[tokio::test(start_paused = true)]
async fn weather_loses_messages() {
    let (network, host) = (Network::of_seed(1), Host::new(TWO, 5));
    network.plug(host.clone());
    network.set_weather(ONE, TWO, Weather { lost: 300, ..Weather::default() });
    let mut heard = 0;
    for _ in 0..1000 {
        heard += usize::from(hears(&network, ping()).await.is_some());
    }
    assert!((620..=780).contains(&heard), "{heard}");
    assert_eq!(host.done(), heard);
    assert_eq!(network.traffic().lost, 1000 - heard as u64);
}

/// Messages that take differently long overtake each other.
#[tokio::test(start_paused = true)]
async fn weather_reorders_messages() {
    let (network, host) = (Network::of_seed(2), Host::new(TWO, 5));
    network.plug(host.clone());
    let longest = Duration::from_millis(50);
    network.set_weather(
        ONE,
        TWO,
        Weather { delay: (Duration::ZERO, longest), ..Weather::default() },
    );
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let (network, order) = (network.clone(), order.clone());
            tokio::spawn(async move {
                ask(&network, ping()).await.unwrap();
                order.lock().unwrap().push(number);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let order = order.lock().unwrap().clone();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_ne!(order, sorted);
    assert_eq!(sorted, (0..20).collect::<Vec<_>>());
}

/// A request between nodes that may be repeated arrives twice and is answered once.
#[tokio::test(start_paused = true)]
async fn weather_doubles_requests() {
    let (network, host) = (Network::of_seed(3), Host::new(TWO, 5));
    network.plug(host.clone());
    network.set_weather(ONE, TWO, Weather { doubled: 1000, ..Weather::default() });
    ask(&network, ping()).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!((host.done(), network.traffic().doubled), (2, 1));
}

/// A paused node hears nothing, says nothing and goes on with nothing; when it wakes all of that happens.
#[tokio::test(start_paused = true)]
async fn a_paused_node_goes_on_when_it_wakes() {
    let (network, host) = (Network::new(), Host::new(TWO, 5));
    network.plug(host.clone());
    let call = |request| {
        let network = network.clone();
        tokio::spawn(async move { ask(&network, request).await })
    };
    let at_work = call(slow_work());
    sleep(SECOND / 2).await;
    network.pause(TWO);
    let on_the_way = call(ping());
    sleep(10 * SECOND).await;
    assert_eq!((host.begun(), host.done()), (1, 0));
    network.wake(TWO);
    at_work.await.unwrap().unwrap();
    on_the_way.await.unwrap().unwrap();
    assert_eq!((host.begun(), host.done()), (2, 2));

    network.pause(ONE);
    let by_a_paused_one = call(ping());
    sleep(SECOND).await;
    assert_eq!(host.begun(), 2);
    network.wake(ONE);
    by_a_paused_one.await.unwrap().unwrap();
}

/// A node that is unplugged takes no further step, not even in what it had begun.
#[tokio::test(start_paused = true)]
async fn an_unplugged_node_does_not_go_on() {
    let (network, host) = (Network::new(), Host::new(TWO, 5));
    network.plug(host.clone());
    let call = tokio::spawn({
        let network = network.clone();
        async move { ask(&network, slow_work()).await }
    });
    sleep(SECOND / 2).await;
    network.unplug(TWO);
    assert!(matches!(call.await.unwrap(), Err(CallError::Lost(_))));
    sleep(10 * SECOND).await;
    assert_eq!((host.begun(), host.done()), (1, 0));
}
