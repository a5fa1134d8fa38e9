//! What moving costs: all that one node holds moves to another one, over QUIC, between real disks, with nobody asking for
//! anything.
//!
//! As a test it runs tiny. At full size:
//!
//! ```text
//! ATOLL_MOVE_BYTES=1073741824 cargo test --release -p atoll-node --test move_cost -- --nocapture --test-threads 1
//! ```
//!
//! The two nodes have a thread each, as two processes would. The time is printed and not judged.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use atoll_antientropy::{Actor, Context, Event, Secret, State};
use atoll_node::{
    FixedMembers, HintLimits, Node, Parts, Past, SystemClock,
    storage::{
        Space, Store as _, Write, commit::Disk, fjall::FjallStore, meta, record::Record, rows,
        summary::Summary,
    },
};
use atoll_ring::{
    ClusterId, Command, Entry, Epoch, Member, MemberState, NodeId, Owners, Partition, Partitions,
    Token, View, Wish,
};
use atoll_transport::{Answer, Authority, Caller, Handler as _, Identity, Peers, Quic};
use atoll_wire::{BucketId, Envelope, MoveReport, MovesQuery, Reply, Request, Role, Roles};
use bytes::Bytes;

const DAY: Duration = Duration::from_secs(86_400);

/// How many bytes of values move.
fn bytes() -> u64 {
    std::env::var("ATOLL_MOVE_BYTES").ok().map_or(2 << 20, |text| text.parse().expect("a number"))
}

/// Two nodes, and one copy of everything.
fn first_view(addresses: [SocketAddr; 2]) -> View {
    let member = |(id, address)| Member {
        id: NodeId(id),
        incarnation: 0,
        address,
        zone: "z1".into(),
        weight: 1,
        state: MemberState::Active,
    };
    let members = (1..).zip(addresses).map(member).collect();
    let partitions = Partitions::new(256).expect("a power of two");
    View::create(ClusterId([7; 16]), partitions, 1, members).expect("a good view").0
}

/// The view in which all partitions of n1 are on their way to n2, and which they are.
fn moving(view: &View) -> (View, Vec<Partition>) {
    let is_of_n1 = |partition: &Partition| view.owners(*partition) == Owners::One(&[NodeId(1)]);
    let partitions: Vec<Partition> = view.partitions().all().filter(is_of_n1).collect();
    let moves: BTreeMap<_, _> =
        partitions.iter().map(|partition| (*partition, vec![NodeId(2)])).collect();
    let apply = |view: &View, command| {
        let entry = Entry { epoch: Epoch(view.epoch().0 + 1), at_ms: 0, command };
        view.apply(&entry).expect("it fits")
    };
    let wanted = apply(view, Command::Change { base: view.epoch(), wish: Wish::Rebalance, moves });
    (apply(&wanted, Command::Begin { partitions: partitions.clone() }), partitions)
}

/// Fills the store of n1 with keys that it owns. How many.
fn fill(store: &FjallStore, view: &View, value_bytes: usize) -> u64 {
    let bucket = BucketId::default_bucket(1);
    let (mut keys, mut writes, mut queued) = (0, Vec::new(), 0);
    // not to be made shorter: neither the disk nor the network shall profit from equal bytes
    let mut random = blake3::Hasher::new().finalize_xof();
    for number in 0.. {
        if keys * value_bytes as u64 >= bytes() {
            break;
        }
        let key = format!("key-{number:012}");
        let token = Token::of(&bucket.0, key.as_bytes());
        let partition = view.partition(token);
        if view.owners(partition) != Owners::One(&[NodeId(1)]) {
            continue;
        }
        keys += 1;
        let mut value = vec![0; value_bytes];
        random.fill(&mut value);
        let event = Event::alone(Actor::new(1, 0), keys);
        let state = State::put(&Context::new(), event, value.into());
        let row = rows::data(partition, token, bucket, key.as_bytes());
        let record = Record::encode(&row, None, &state.encode());
        queued += record.len();
        writes.push(Summary::of(&state).write(&row));
        writes.push(Write { space: Space::Data, row, value: Some(record) });
        if queued > 8 << 20 {
            store.apply(&std::mem::take(&mut writes)).expect("a disk");
            queued = 0;
        }
    }
    writes.push(meta::write(Bytes::from_static(rows::SUMMARIES), b"1")); // every record has its digest
    store.apply(&writes).and_then(|()| store.sync()).expect("a disk");
    keys
}

/// What a node needs, made before its thread.
struct Place {
    id: u32,
    view: View,
    folder: PathBuf,
    disk: Disk,
}

impl Place {
    async fn start(self) -> (Arc<Node>, tokio::task::JoinHandle<()>) {
        let name = format!("n{}", self.id);
        let [certificate, key] =
            ["pem", "key"].map(|end| self.folder.join(format!("{name}.{end}")));
        let identity =
            Identity::load(&self.folder.join("ca.pem"), &certificate, &key).expect("issued");
        let id = NodeId(self.id);
        let address = self.view.member(id).expect("a member").address;
        let quic = Quic::bind(address, &identity).expect("a free port");
        let peers = Peers::new(quic.clone(), Role::Node, Some(id));
        let members: Vec<_> =
            self.view.members().iter().map(|member| (member.id, member.address)).collect();
        peers.set(&members);
        let node = Node::start(Parts {
            scrub_period: atoll_node::SCRUB_PERIOD,
            clock_bound: atoll_node::CLOCK_BOUND,
            id,
            view: Arc::new(self.view),
            secret: Secret([3; 32]),
            transport: peers,
            log: Arc::new(FixedMembers),
            disk: Arc::new(self.disk),
            clock: Arc::new(SystemClock),
            past: Past::None,
            hint_limits: HintLimits::default(),
            certificate: Arc::default(),
        });
        let node = node.await.expect("a disk");
        let serving = node.clone();
        let serving = tokio::spawn(async move { quic.serve(serving).await });
        node.rise().await.expect("a disk");
        (node, serving)
    }
}

/// Runs a node in a thread of its own: until it hears something, it serves; then it ends.
fn in_a_thread<T: Send + 'static>(
    place: Place,
    work: impl AsyncFnOnce(Arc<Node>) -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().expect("a runtime").block_on(async {
            let (node, serving) = place.start().await;
            let outcome = work(node.clone()).await;
            serving.abort();
            node.stop().await.expect("a disk");
            outcome
        })
    })
}

/// What a node says of its moves.
fn says(node: &Arc<Node>) -> Vec<MoveReport> {
    let envelope = Envelope {
        epoch: Epoch(1),
        left_ms: 1000,
        operation: 0,
        bucket: BucketId::default_bucket(1),
        trace: false,
        role: Role::Operator,
    };
    let caller = Caller { roles: Roles::of(&[Role::Operator]), node: None };
    match node.clone().handle(caller, envelope, Request::Moves(MovesQuery {})) {
        Answer::Now(Reply::Moves(report)) => report.read().expect("a report"),
        _ => panic!("moves are reported at once"),
    }
}

fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("bound")
}

fn issue(folder: &Path) {
    let authority = Authority::create("test").expect("made");
    authority.write_certificate(&folder.join("ca.pem")).expect("a disk");
    for id in 1..=2 {
        let [certificate, key] = ["pem", "key"].map(|end| folder.join(format!("n{id}.{end}")));
        authority.issue_node(NodeId(id), DAY, &certificate, &key).expect("a disk");
    }
}

#[test]
fn time_until_everything_has_moved() {
    for value_bytes in [1 << 10, 64 << 10] {
        let temporary = tempfile::tempdir().expect("a directory");
        let folder = temporary.path();
        issue(folder);
        let view = first_view([free_address(), free_address()]);
        let (joint, partitions) = moving(&view);
        let mut keys = 0;
        let mut places = (1..=2).map(|id| {
            let store = FjallStore::open(&folder.join(format!("store{id}"))).expect("new");
            match id {
                1 => keys = fill(&store, &view, value_bytes),
                _ => store
                    .apply(&[meta::write(Bytes::from_static(rows::SUMMARIES), b"1")])
                    .and_then(|()| store.sync())
                    .expect("a disk"),
            }
            let (disk, _writer) = Disk::on_thread(Arc::new(store), None).expect("new");
            Place { id, view: view.clone(), folder: folder.into(), disk }
        });
        let (source, target) = (places.next().expect("two"), places.next().expect("two"));
        drop(places);
        let (end, ended) = mpsc::channel::<()>();
        let source = in_a_thread(source, async move |_| {
            while ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let count = partitions.len();
        let target = in_a_thread(target, async move |node: Arc<Node>| {
            let began = Instant::now();
            node.adopt(joint, &[], Vec::new()).await.expect("a disk");
            loop {
                let moves = says(&node);
                if moves.len() == count && moves.iter().all(|one| one.done) {
                    return (began.elapsed(), moves.iter().map(|one| one.keys.0).sum::<u64>());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let (took, copied) = target.join().expect("it copies");
        end.send(()).expect("the source waits");
        source.join().expect("it serves");
        assert_eq!(copied, keys, "each key once");
        let megabytes = (keys * value_bytes as u64) as f64 / 1e6;
        println!(
            "{value_bytes} B values: {keys} keys, {megabytes:.0} MB in {count} partitions, fsynced after {took:.2?}: \
             {:.0} MB/s, {:.0} moves/s",
            megabytes / took.as_secs_f64(),
            count as f64 / took.as_secs_f64()
        );
    }
}
