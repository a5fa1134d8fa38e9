//! What one change of a large value costs: bytes on the wire to each replica, and the coordinator's processor time.
//!
//! As a test it runs tiny. For the figure of the coordinator, decoding and encoding the whole record included:
//!
//! ```text
//! ATOLL_CHANGES=20000 cargo test --release -p atoll-node --test change_cost -- --nocapture --test-threads 1
//! ```
//!
//! Bytes are those of whole frames, without what QUIC adds.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use atoll_antientropy::{ELEMENTS_MAX, Increment, Kind, Operation, Secret};
use atoll_node::{
    FixedMembers, HintLimits, Node, Parts, Past, SimulatedClock,
    storage::{commit::Disk, memory::MemoryStore},
};
use atoll_ring::{ClusterId, Epoch, Member, MemberState, NodeId, Partitions, QuorumRequest, View};
use atoll_transport::{Boxed, CallError, Transport, memory::Network};
use atoll_wire::{
    BucketChange, BucketId, Change, Envelope, Lane, Reply, Request, Role, Write,
    bucket::{Creation, Properties},
    frame::encode_request,
};
use bytes::Bytes;

/// Who we are on the network.
const CLIENT: NodeId = NodeId(99);

/// The most that a change of one element may take on its way to one replica.
const FRAME_BYTES_MAX: usize = 1024;

/// Remembers how long the frames were that carry changes to replicas.
struct Measuring {
    inner: Arc<dyn Transport>,
    frames: Arc<Mutex<Vec<usize>>>,
}

impl Transport for Measuring {
    fn follow(&self, members: &[(NodeId, SocketAddr)]) {
        self.inner.follow(members);
    }

    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        envelope: Envelope,
        request: Request,
    ) -> Boxed<Result<(Epoch, Reply), CallError>> {
        if matches!(request, Request::Replicate(_)) {
            let frame = encode_request(1, &envelope, &request).expect("it is sent");
            let bytes = frame.iter().map(Bytes::len).sum();
            self.frames.lock().expect("no panic holds it").push(bytes);
        }
        self.inner.call(to, lane, envelope, request)
    }

    fn heard_from(&self, node: NodeId) {
        self.inner.heard_from(node);
    }
}

/// Some nodes that all own everything.
struct Cluster {
    network: Arc<Network>,
    nodes: Vec<Arc<Node>>,
    frames: Arc<Mutex<Vec<usize>>>,
    operations: AtomicU64,
}

impl Cluster {
    async fn start(nodes: u32) -> Cluster {
        let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let member = |id| Member {
            id: NodeId(id),
            incarnation: 0,
            address,
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        };
        let partitions = Partitions::new(64).expect("a power of two");
        let copies = u8::try_from(nodes).expect("few");
        let members = (1..=nodes).map(member).collect();
        let view = View::create(ClusterId([7; 16]), partitions, copies, members);
        let view = Arc::new(view.expect("a good view").0);
        let (network, frames) = (Network::new(), Arc::default());
        let mut cluster =
            Cluster { network, nodes: Vec::new(), frames, operations: AtomicU64::default() };
        for id in 1..=nodes {
            let (disk, _writer) =
                Disk::on_task(Arc::new(MemoryStore::new()), Duration::ZERO, None).expect("new");
            let transport = Measuring {
                inner: cluster.network.port(NodeId(id)),
                frames: cluster.frames.clone(),
            };
            let node = Node::start(Parts {
                id: NodeId(id),
                view: view.clone(),
                secret: Secret([3; 32]),
                transport: Arc::new(transport),
                log: Arc::new(FixedMembers),
                disk: Arc::new(disk),
                clock: Arc::new(SimulatedClock::starting_at(1_000_000)),
                past: Past::None,
                hint_limits: HintLimits::default(),
                scrub_period: atoll_node::SCRUB_PERIOD,
                clock_bound: atoll_node::CLOCK_BOUND,
                certificate: Arc::default(),
            });
            let node = node.await.expect("memory");
            cluster.network.plug(node.clone());
            cluster.nodes.push(node);
        }
        for node in &cluster.nodes {
            node.rise().await.expect("memory");
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster
    }

    async fn call(&self, bucket: BucketId, request: Request) -> Reply {
        let operation = u128::from(self.operations.fetch_add(1, Ordering::Relaxed)) + 1;
        let epoch = self.nodes[0].view().epoch();
        let envelope =
            Envelope { epoch, left_ms: 5000, operation, bucket, trace: false, role: Role::Client };
        let call = self.network.port(CLIENT).call(NodeId(1), Lane::Request, envelope, request);
        call.await.expect("it is up").1
    }

    async fn bucket(&self, kind: Kind) -> BucketId {
        let (name, properties) = (format!("of {kind}"), Properties::default());
        let change = Change::Create(Creation { name, kind, n: None, properties });
        let request = Request::BucketChange(BucketChange { change, registry: Bytes::new() });
        match self.call(BucketId([0; 16]), request).await {
            Reply::BucketChanged(made) => made.bucket,
            other => panic!("a creation was answered with {other:?}"),
        }
    }

    async fn change(&self, bucket: BucketId, operation: &Operation) {
        let write = Write::new(Bytes::from_static(b"k"), QuorumRequest::default(), operation);
        match self.call(bucket, Request::Write(write)).await {
            Reply::Written(_) => {}
            other => panic!("a write was answered with {other:?}"),
        }
    }

    /// Lengths of the frames since the last question.
    fn frames(&self) -> Vec<usize> {
        std::mem::take(&mut self.frames.lock().expect("no panic holds it"))
    }
}

fn element(number: usize) -> Bytes {
    format!("element {number:05}").into()
}

/// Adding one element to a set of nearly a thousand, or writing one that is there again, sends what changed and no more.
/// So does an increment of a counter that many sessions have counted on.
#[tokio::test(start_paused = true)]
async fn one_more_element_takes_less_than_a_kibibyte_per_replica() {
    let cluster = Cluster::start(3).await;
    let set = cluster.bucket(Kind::Set).await;
    let batches: Vec<usize> = (0..ELEMENTS_MAX - 1).collect();
    for some in batches.chunks(37) {
        let elements = some.iter().map(|number| element(*number)).collect();
        cluster.change(set, &Operation::Add(elements)).await;
    }
    let counter = cluster.bucket(Kind::Counter).await;
    let increment = |session| Increment::Session { session, sequence: 1, total: 1 };
    for session in 1..=1000 {
        cluster.change(counter, &Operation::Increment(increment(session))).await;
    }
    cluster.frames();
    let changes = [
        (set, Operation::Add(vec![element(ELEMENTS_MAX)])),
        (set, Operation::Add(vec![element(500)])),
        (set, Operation::Remove(vec![element(500)])),
        (counter, Operation::Increment(increment(2000))),
    ];
    for (bucket, change) in changes {
        cluster.change(bucket, &change).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let frames = cluster.frames();
        println!("{change:?}: frames of {frames:?} bytes");
        assert_eq!(frames.len(), 2, "one to each other owner, and nothing afterwards");
        assert!(frames.iter().all(|bytes| *bytes < FRAME_BYTES_MAX), "{change:?}: {frames:?}");
    }
}

/// What the coordinator of a change does before anything leaves for others: a cluster of one node.
#[tokio::test(start_paused = true)]
async fn what_a_coordinator_spends_on_a_change() {
    let changes = std::env::var("ATOLL_CHANGES").map_or(10, |text| text.parse().expect("a number"));
    let cluster = Cluster::start(1).await;
    let set = cluster.bucket(Kind::Set).await;
    println!("{:>9} {:>14}", "elements", "us per change");
    for elements in [1, 100, ELEMENTS_MAX] {
        let held = (0..elements).map(element).collect::<Vec<_>>();
        for some in held.chunks(37) {
            cluster.change(set, &Operation::Add(some.to_vec())).await;
        }
        let began = Instant::now(); // the machine's time: what passes here is work
        for number in 0..changes {
            cluster.change(set, &Operation::Add(vec![element(number % elements)])).await;
        }
        let each_us = began.elapsed().as_secs_f64() * 1e6 / changes as f64;
        println!("{elements:>9} {each_us:>14.1}");
    }
}
