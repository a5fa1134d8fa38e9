//! What comparing costs: bytes on the wire until it is known which keys differ, and the time until none does.
//!
//! As a test it runs tiny. At full size, beside the 16-ary trie of the literature:
//!
//! ```text
//! ATOLL_EXCHANGE_KEYS=1000000 cargo test --release -p atoll-node --test exchange_cost -- --nocapture --test-threads 1
//! ```
//!
//! Bytes are those of whole frames in both directions, without what QUIC adds.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use atoll_antientropy::{Actor, Context, Event, Secret, State};
use atoll_node::{
    FixedMembers, HintLimits, Node, Parts, Past, SimulatedClock, SystemClock,
    storage::{
        Space, Store, Write, commit::Disk, fjall::FjallStore, memory::MemoryStore, meta,
        record::Record, rows, summary::Summary,
    },
};
use atoll_ring::{ClusterId, Epoch, Member, MemberState, NodeId, Partitions, Token, View};
use atoll_transport::{Boxed, CallError, Transport, memory::Network};
use atoll_wire::{
    BucketId, Envelope, Kind, Lane, Reply, Request,
    frame::{encode_reply, encode_request},
};
use bytes::Bytes;

/// Bytes of the 16-ary trie with a million keys, by the number of keys that differ: the simulation that the design rests on.
const TRIE: [(u64, u64); 5] =
    [(1, 764), (10, 6_000), (100, 50_000), (1_000, 391_000), (10_000, 2_800_000)];

/// How many keys each node holds.
fn keys() -> u64 {
    std::env::var("ATOLL_EXCHANGE_KEYS").ok().map_or(2_000, |text| text.parse().expect("a number"))
}

/// Two nodes that both own everything.
fn view(partitions: u32) -> Arc<View> {
    let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let member = |id| Member {
        id: NodeId(id),
        incarnation: 0,
        address,
        zone: "z1".into(),
        weight: 1,
        state: MemberState::Active,
    };
    let partitions = Partitions::new(partitions).expect("a power of two");
    let members = vec![member(1), member(2)];
    Arc::new(View::create(ClusterId([7; 16]), partitions, 2, members).expect("a good view").0)
}

fn row(view: &View, number: u64) -> Bytes {
    let bucket = BucketId::default_bucket(2);
    let key = format!("key-{number:012}");
    let token = Token::of(&bucket.0, key.as_bytes());
    rows::data(view.partition(token), token, bucket, key.as_bytes())
}

/// Counts the frames of comparisons until the first key is fetched: by then it is known which keys differ.
struct Counting {
    inner: Arc<dyn Transport>,
    counted: Arc<Counted>,
}

#[derive(Default)]
struct Counted {
    bytes: AtomicU64,
    frames: AtomicU64,
    fetched: AtomicU64,
}

impl Transport for Counting {
    fn follow(&self, members: &[(NodeId, std::net::SocketAddr)]) {
        self.inner.follow(members);
    }

    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        envelope: Envelope,
        request: Request,
    ) -> Boxed<Result<(Epoch, Reply), CallError>> {
        let kind = request.kind();
        let counted = self.counted.clone();
        if kind == Kind::Fetch {
            counted.fetched.fetch_add(1, Ordering::Relaxed);
        }
        let counts = matches!(kind, Kind::CompareRoots | Kind::Compare | Kind::Entries)
            && counted.fetched.load(Ordering::Relaxed) == 0;
        let count = move |frame: [Bytes; 2]| {
            let bytes: usize = frame.iter().map(Bytes::len).sum();
            counted.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            counted.frames.fetch_add(1, Ordering::Relaxed);
        };
        if counts {
            count(encode_request(1, &envelope, &request).expect("it is sent"));
        }
        let call = self.inner.call(to, lane, envelope, request);
        Box::pin(async move {
            let answer = call.await;
            if let (true, Ok((epoch, reply))) = (counts, &answer) {
                count(encode_reply(kind, 1, *epoch, reply).expect("it was sent"));
            }
            answer
        })
    }

    fn heard_from(&self, node: NodeId) {
        self.inner.heard_from(node);
    }
}

async fn start(
    id: u32,
    view: &Arc<View>,
    network: &Arc<Network>,
    disk: Disk,
    counted: &Arc<Counted>,
    virtual_time: bool,
) -> Arc<Node> {
    let inner = network.port(NodeId(id));
    let node = Node::start(Parts {
        scrub_period: atoll_node::SCRUB_PERIOD,
        clock_bound: atoll_node::CLOCK_BOUND,
        id: NodeId(id),
        view: view.clone(),
        secret: Secret([3; 32]),
        transport: Arc::new(Counting { inner, counted: counted.clone() }),
        log: Arc::new(FixedMembers),
        disk: Arc::new(disk),
        clock: match virtual_time {
            true => Arc::new(SimulatedClock::starting_at(1_000_000)),
            false => Arc::new(SystemClock),
        },
        past: Past::None,
        hint_limits: HintLimits::default(),
        certificate: Arc::default(),
    });
    let node = node.await.expect("the disk works");
    network.plug(node.clone());
    node
}

/// What is found costs no more than the trie did, and it is exactly what differs.
#[tokio::test(start_paused = true)]
async fn bytes_until_it_is_known_what_differs() {
    let keys = keys();
    println!("{keys} keys on each of two nodes; bytes until it is known which d of them differ");
    println!(
        "{:>7} {:>11} {:>9} {:>7} {:>9} {:>6}",
        "d", "partitions", "bytes", "frames", "per key", "trie"
    );
    for partitions in [1, 64, 1024] {
        let view = view(partitions);
        let names: Vec<Bytes> = (0..keys).map(|number| row(&view, number)).collect();
        // the record of a key and what is said of it; each version has replaced the first
        let written = |number: u64, version: u64| {
            let row = &names[number as usize];
            let event = |version| Event::alone(Actor::new(1, 0), version * keys + number + 1);
            let mut state = State::put(&Context::new(), event(0), Bytes::new());
            if version > 0 {
                let seen = state.context().clone();
                state.join(State::put(&seen, event(version), Bytes::new()));
            }
            let value = Some(Record::encode(row, None, &state.encode()));
            let record = Write { space: Space::Data, row: row.clone(), value };
            [record, Summary::of(&state).write(row)]
        };
        let stores = [Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())];
        for store in &stores {
            let mut writes: Vec<Write> = (0..keys).flat_map(|number| written(number, 0)).collect();
            writes.push(meta::write(Bytes::from_static(rows::SUMMARIES), b"1")); // every record has its digest
            store.apply(&writes).and_then(|()| store.sync()).expect("memory");
        }
        for ((d, trie), version) in TRIE.into_iter().filter(|(d, _)| *d * 20 <= keys).zip(1..) {
            let changed = (0..d).map(|index| index * (keys / d));
            let writes = changed.flat_map(|number| written(number, version));
            stores[1].apply(&writes.collect::<Vec<_>>()).expect("memory");
            let (network, counted) = (Network::new(), Arc::new(Counted::default()));
            let mut nodes = Vec::new();
            for (id, store) in (1..).zip(&stores) {
                let sync = Duration::from_millis(2);
                let (disk, writer) = Disk::on_task(store.clone(), sync, None).expect("new");
                nodes.push((start(id, &view, &network, disk, &counted, true).await, writer));
            }
            for (node, _) in &nodes {
                node.rise().await.expect("memory");
            }
            while counted.fetched.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let bytes = counted.bytes.load(Ordering::Relaxed);
            let frames = counted.frames.load(Ordering::Relaxed);
            println!("{d:>7} {partitions:>11} {bytes:>9} {frames:>7} {:>9} {trie:>6}", bytes / d);
            assert!(bytes <= trie || keys != 1_000_000, "more than the trie");
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(counted.fetched.load(Ordering::Relaxed), d, "exactly the keys that differ");
            for (node, writer) in nodes {
                node.halt();
                writer.abort();
            }
        }
    }
}

/// A thousandth of the keys differ between two nodes with real disks: half of them are missing here, half were overwritten
/// there. On the real clock; the time is printed and not judged.
#[tokio::test]
async fn time_until_nothing_differs() {
    let keys = keys();
    let view = view(1024);
    let event = |counter: u64| Event::alone(Actor::new(1, 0), counter);
    let value = Bytes::from(vec![7; 100]);
    let temporary = tempfile::tempdir().expect("a directory");
    let (network, counted) = (Network::new(), Arc::new(Counted::default()));
    let mut nodes = Vec::new();
    for id in 1..=2u32 {
        let store = FjallStore::open(&temporary.path().join(id.to_string())).expect("new");
        let mut writes = Vec::new();
        for number in 0..keys {
            if id == 1 && number % 2000 == 0 {
                continue;
            }
            let mut state = State::put(&Context::new(), event(number + 1), value.clone());
            if id == 2 && number % 2000 == 1000 {
                let seen = state.context().clone();
                state.join(State::put(&seen, event(keys + number), value.clone()));
            }
            let row = row(&view, number);
            let record = Record::encode(&row, None, &state.encode());
            writes.push(Summary::of(&state).write(&row));
            writes.push(Write { space: Space::Data, row, value: Some(record) });
            if writes.len() > 10_000 {
                store.apply(&std::mem::take(&mut writes)).expect("a disk");
            }
        }
        writes.push(meta::write(Bytes::from_static(rows::SUMMARIES), b"1")); // every record has its digest
        store.apply(&writes).and_then(|()| store.sync()).expect("a disk");
        let (disk, _writer) = Disk::on_thread(Arc::new(store), None).expect("new");
        let began = Instant::now();
        nodes.push(start(id, &view, &network, disk, &counted, false).await);
        println!("n{id}: trees of {keys} keys made in {:?}", began.elapsed());
    }
    let began = Instant::now();
    for node in &nodes {
        node.rise().await.expect("a disk");
    }
    let roots = |node: &Arc<Node>| -> BTreeMap<_, _> {
        view.partitions().all().map(|partition| (partition, node.root(partition, 2))).collect()
    };
    assert_ne!(roots(&nodes[0]), roots(&nodes[1]));
    while roots(&nodes[0]) != roots(&nodes[1]) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let fetched = counted.fetched.load(Ordering::Relaxed);
    println!("{keys} keys, {fetched} fetched: equal after {:?}", began.elapsed());
    for node in nodes {
        node.stop().await.expect("a disk");
    }
}
