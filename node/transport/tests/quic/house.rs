//! What every test needs: papers, a node that answers, and a way to ask it.

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use atoll_ring::{ClusterId, Epoch, NodeId, Quorum, QuorumRequest};
use atoll_transport::{
    Answer, Authority, CallError, Caller, Expect, Handler, Identity, Link, Quic,
};
use atoll_wire::{
    Ack, BucketChange, BucketChanged, BucketId, Buckets, BucketsQuery, Change, Commit, Compare,
    CompareRoots, Copy, Covered, Covering, Differing, Dump, Dumped, Entries, Envelope, Explain,
    Explained, FaultList, FaultsReport, FaultsRequest, Fetch, Fetched, Found, Get, Hello, Kind,
    Lane, List, Listed, Many, ManyReply, MovesQuery, MovesReport, NodeStatus, Ping, Pong, Propose,
    Proposed, Raft, RaftReply, Recall, Recalled, Receipt, Repair, RepairQuery, RepairReport,
    RepairRun, RepairStarted, Replicate, Replicated, Reply, Request, Role, Roots, Scan, Scanned,
    StatusQuery, Stored, Unmatched, ViewQuery, ViewReply, Write,
    bucket::{Creation, Properties},
};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::Semaphore;

pub const CLUSTER: ClusterId = ClusterId([7; 16]);
pub const DAY: Duration = Duration::from_secs(86_400);

/// An authority and what it has issued, in a folder that goes with it.
pub struct Papers {
    folder: TempDir,
    authority: Authority,
}

impl Papers {
    pub fn new() -> Papers {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create("test").unwrap();
        authority.write_certificate(&folder.path().join("ca.pem")).unwrap();
        Papers { folder, authority }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The identity of a node, the same each time.
    pub fn node(&self, id: u32) -> Identity {
        if !self.path(&format!("n{id}.pem")).exists() {
            self.issue_node(id, DAY);
        }
        self.load(&format!("n{id}"))
    }

    pub fn issue_node(&self, id: u32, valid: Duration) {
        let (certificate, key) = self.pair(&format!("n{id}"));
        self.authority.issue_node(NodeId(id), valid, &certificate, &key).unwrap();
    }

    /// The identity of somebody in these roles.
    pub fn user(&self, roles: &[Role]) -> Identity {
        self.user_for(roles, DAY)
    }

    pub fn user_for(&self, roles: &[Role], valid: Duration) -> Identity {
        let (certificate, key) = self.pair("user");
        self.authority.issue_user(roles, valid, &certificate, &key).unwrap();
        self.load("user")
    }

    pub fn load(&self, name: &str) -> Identity {
        let (certificate, key) = self.pair(name);
        Identity::load(&self.path("ca.pem"), &certificate, &key).unwrap()
    }

    /// Signs the certificate of that name again, and gives its new end.
    pub fn renew(&self, name: &str, valid: Duration, new_key: bool) -> SystemTime {
        let (certificate, key) = self.pair(name);
        self.authority.renew(&certificate, new_key.then_some(&*key), valid).unwrap()
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }
}

/// A node that answers everything, remembers who asked, and can be told to keep people waiting.
pub struct Host {
    id: NodeId,
    seen: Mutex<Vec<(Role, Kind, Caller)>>,
    /// Whoever asks for [`AT_THE_GATE`] waits here for a permit.
    pub gate: Semaphore,
    in_work: AtomicUsize,
    in_work_most: AtomicUsize,
}

/// The key of requests that wait until the test lets them go.
pub const AT_THE_GATE: &str = "gate";

impl Host {
    pub fn new(id: u32) -> Arc<Host> {
        Arc::new(Host {
            id: NodeId(id),
            seen: Mutex::default(),
            gate: Semaphore::new(0),
            in_work: AtomicUsize::new(0),
            in_work_most: AtomicUsize::new(0),
        })
    }

    /// What has come through: role, kind and caller of each request.
    pub fn seen(&self) -> Vec<(Role, Kind, Caller)> {
        self.seen.lock().unwrap().clone()
    }

    /// How many wait at the gate.
    pub fn in_work(&self) -> usize {
        self.in_work.load(Ordering::SeqCst)
    }

    /// How many have ever waited at the gate at the same time.
    pub fn in_work_most(&self) -> usize {
        self.in_work_most.load(Ordering::SeqCst)
    }

    fn reply(&self, request: Request) -> Reply {
        match request {
            Request::Hello(_) => panic!("the transport answers a hello"),
            Request::Ping(_) => Reply::Pong(Pong {
                node: self.id.0,
                incarnation: 0,
                commit: Commit::default(),
                roots: Roots::default(),
                wall_ms: 0,
                buckets: 0,
            }),
            Request::View(_) => Reply::View(ViewReply { view: Bytes::from_static(b"a view") }),
            Request::Status(_) => Reply::Status(Box::default()),
            Request::Write(write) => Reply::Written(stored(&write.operation)),
            Request::Get(get) => Reply::Found(Found {
                context: Bytes::new(),
                receipt: receipt(),
                reading: pattern(length_in(&get.key)),
            }),
            Request::Many(_) => Reply::Many(ManyReply::new()),
            Request::List(_) => Reply::Listed(Listed {
                page: Bytes::new(),
                scanned: 0,
                partitions: (0, 0),
                keys: Bytes::new(),
            }),
            Request::Explain(_) => Reply::Explained(Box::new(Explained {
                node: self.id.0,
                token: 0,
                partition: 0,
                changed_in: 1,
                quorum: Quorum::new(&QuorumRequest::default(), 3).unwrap(),
                bucket_n: 3,
                owners: Vec::new(),
                joining: None,
                fallbacks: Vec::new(),
                places: Vec::new(),
            })),
            Request::Scan(_) => Reply::Scanned(Scanned {
                last: Bytes::new(),
                looked_at: 0,
                in_doubt: false,
                rows: Bytes::new(),
            }),
            Request::Replicate(_) => Reply::Replicated(Replicated { durable: true, trace: None }),
            Request::Fetch(fetch) => Reply::Fetched(Fetched {
                known: true,
                in_doubt: false,
                trace: None,
                state: pattern(length_in(&fetch.key)),
            }),
            Request::RepairStatus(_) => Reply::RepairStatus(RepairReport::of(&[])),
            Request::RepairRun(_) => Reply::RepairRun(RepairStarted { partitions: 0 }),
            Request::Faults(_) => {
                Reply::Faults(Box::new(FaultsReport { list: FaultList::default(), wall_ms: 0 }))
            }
            Request::Dump(_) => Reply::Dumped(Dumped::of(&[], false)),
            Request::Recall(_) => Reply::Recalled(Recalled {
                vouches: true,
                incarnation: 0,
                commit: Commit::default(),
            }),
            Request::CompareRoots(compare) => Reply::Differing(Differing { which: compare.roots }),
            Request::Compare(compare) => Reply::Differing(Differing { which: compare.hashes }),
            Request::Entries(entries) => {
                Reply::Unmatched(Unmatched { entries: entries.fingerprints })
            }
            Request::Propose(_) => Reply::Proposed(Proposed { epoch: 6 }),
            Request::Moves(_) => Reply::Moves(MovesReport::default()),
            Request::BucketChange(_) => Reply::BucketChanged(BucketChanged {
                bucket: BucketId([0; 16]),
                changed: true,
                known: vec![1],
                missing: Vec::new(),
            }),
            Request::Buckets(_) => Reply::Buckets(Buckets { digest: 0, registry: Bytes::new() }),
            Request::Raft(raft) => Reply::Raft(RaftReply { message: raft.message }),
            Request::Copy(_) => Reply::Copied(Dumped::of(&[], false)),
            Request::Covered(asked) => Reply::Covering(Covering { which: asked.rows }),
        }
    }
}

impl Handler for Host {
    fn node(&self) -> NodeId {
        self.id
    }

    fn cluster(&self) -> ClusterId {
        CLUSTER
    }

    fn epoch(&self) -> Epoch {
        Epoch(5)
    }

    /// Gets are answered later, the others at once.
    fn handle(self: Arc<Self>, caller: Caller, envelope: Envelope, request: Request) -> Answer {
        self.seen.lock().unwrap().push((envelope.role, request.kind(), caller));
        let waits = match &request {
            Request::Write(write) => write.key == AT_THE_GATE,
            Request::Fetch(fetch) => fetch.key == AT_THE_GATE,
            Request::Get(_) => return Answer::Later(Box::pin(async move { self.reply(request) })),
            _ => false,
        };
        if !waits {
            return Answer::Now(self.reply(request));
        }
        let in_work = self.in_work.fetch_add(1, Ordering::SeqCst) + 1;
        self.in_work_most.fetch_max(in_work, Ordering::SeqCst);
        Answer::Later(Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            self.in_work.fetch_sub(1, Ordering::SeqCst);
            self.reply(request)
        }))
    }
}

/// So many bytes that a piece out of place would show.
pub fn pattern(length: usize) -> Bytes {
    let block: Vec<u8> = (0..251).collect();
    Bytes::from(block.repeat(length / 251 + 1)).slice(..length)
}

fn length_in(key: &[u8]) -> usize {
    std::str::from_utf8(key).ok().and_then(|key| key.parse().ok()).unwrap_or(0)
}

/// A put is answered with what arrived, hashed.
fn stored(value: &[u8]) -> Stored {
    let context = Bytes::copy_from_slice(blake3::hash(value).as_bytes());
    Stored { context, session: Bytes::new(), dot: (1, 0, 1), receipt: receipt() }
}

fn receipt() -> Receipt {
    Receipt {
        epoch: Epoch(5),
        coordinator: 1,
        n: 1,
        needed: 1,
        owners_needed: 0,
        durable_needed: 1,
        replicas: Vec::new(),
        hinted: Vec::new(),
        unhinted: Vec::new(),
        repaired: Vec::new(),
        trace: None,
    }
}

/// A host that listens.
pub struct Server {
    pub host: Arc<Host>,
    pub quic: Quic,
    pub address: SocketAddr,
}

/// Starts a host under its papers, in the runtime of the test.
pub fn serve(papers: &Papers, id: u32) -> Server {
    serve_as(&papers.node(id), id)
}

/// Starts a host that shows this certificate, whatever it says.
pub fn serve_as(identity: &Identity, id: u32) -> Server {
    serve_on(Quic::bind(loopback(), identity).unwrap(), id)
}

/// Starts a host behind a socket.
pub fn serve_on(quic: Quic, id: u32) -> Server {
    let (host, address) = (Host::new(id), quic.address().unwrap());
    let (accepting, handler) = (quic.clone(), host.clone());
    tokio::spawn(async move { accepting.serve(handler).await });
    Server { host, quic, address }
}

/// A free port.
pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A link of node 9 to a host.
pub async fn link(papers: &Papers, server: &Server) -> Link {
    let quic = Quic::bind(loopback(), &papers.node(9)).unwrap();
    quic.dial(server.address, Expect::AnyNode, Role::Node, Some(NodeId(9))).await.unwrap()
}

pub fn envelope(role: Role) -> Envelope {
    let bucket = BucketId::default_bucket(3);
    Envelope { epoch: Epoch(4), left_ms: 60_000, operation: 1, bucket, trace: false, role }
}

pub fn ping() -> Request {
    Request::Ping(Ping {
        node: 9,
        incarnation: 0,
        commit: Commit::default(),
        roots: Roots::default(),
        buckets: 0,
    })
}

/// A write with these bytes for an operation.
pub fn put(key: &'static str, operation: Bytes) -> Request {
    let write = Write::put(key.into(), QuorumRequest::default(), Bytes::new());
    Request::Write(Write { operation, ..write })
}

/// Asks for so many bytes.
pub fn get(length: usize) -> Request {
    let quorum = QuorumRequest::default();
    Request::Get(Get {
        key: length.to_string().into(),
        session: None,
        quorum,
        repair: Repair::Async,
    })
}

pub fn fetch(key: impl Into<Bytes>) -> Request {
    Request::Fetch(Fetch { key: key.into(), durable: false, hints: false })
}

/// A small request of this kind.
pub fn of_kind(kind: Kind) -> Request {
    match kind {
        Kind::Hello => Request::Hello(Hello { lane: Lane::Request, node: None, cluster: None }),
        Kind::Ping => ping(),
        Kind::View => Request::View(ViewQuery { have: 0 }),
        Kind::Status => Request::Status(StatusQuery {}),
        Kind::Write => put("key", Bytes::from_static(b"value")),
        Kind::Get => get(3),
        Kind::Many => Request::Many(Many::of(&[])),
        Kind::Explain => {
            let (key, quorum) = (Bytes::from_static(b"key"), QuorumRequest::default());
            Request::Explain(Explain { key, quorum })
        }
        Kind::List => {
            let (prefix, page, quorum) = (Bytes::new(), Bytes::new(), QuorumRequest::default());
            Request::List(List { prefix, page, limit: 1, quorum })
        }
        Kind::Scan => Request::Scan(Scan { partition: 0, after: Bytes::new(), limit: 1 }),
        Kind::Replicate => replicate(Bytes::from_static(b"state")),
        Kind::Fetch => fetch("3"),
        Kind::RepairStatus => Request::RepairStatus(RepairQuery {}),
        Kind::RepairRun => Request::RepairRun(RepairRun { partition: None, accept_loss: false }),
        Kind::Faults => Request::Faults(FaultsRequest { list: None }),
        Kind::Dump => Request::Dump(Dump { partition: 0, hints: false, after: Bytes::new() }),
        Kind::Recall => Request::Recall(Recall { node: 9 }),
        Kind::CompareRoots => {
            Request::CompareRoots(CompareRoots { roots: Bytes::from_static(b"roots") })
        }
        Kind::Compare => {
            let hashes = Bytes::from_static(b"hashes");
            Request::Compare(Compare { partition: 0, n: 3, level: 0, hashes })
        }
        Kind::Entries => {
            let fingerprints = Bytes::from_static(b"fingerprints");
            Request::Entries(Entries { partition: 0, n: 3, level: 0, fingerprints })
        }
        Kind::Propose => {
            Request::Propose(Propose { hops: 0, command: Bytes::from_static(b"command") })
        }
        Kind::Moves => Request::Moves(MovesQuery {}),
        Kind::BucketChange => {
            let creation = Creation {
                name: "b".into(),
                kind: atoll_wire::bucket::Kind::Register,
                n: None,
                properties: Properties::default(),
            };
            let change = Change::Create(creation);
            Request::BucketChange(BucketChange { change, registry: Bytes::new() })
        }
        Kind::Buckets => Request::Buckets(BucketsQuery { have: 0 }),
        Kind::Raft => Request::Raft(Raft { message: Bytes::from_static(b"message") }),
        Kind::Copy => {
            let tokens = (0, u64::MAX);
            Request::Copy(Copy { partition: 0, session: 5, tokens, after: Bytes::new() })
        }
        Kind::Covered => Request::Covered(Covered::of(0, [(&b"row"[..], [7; 16])])),
    }
}

pub fn replicate(state: Bytes) -> Request {
    let key = Bytes::from_static(b"key");
    let (ack, hint_for) = (Ack::Durable, None);
    Request::Replicate(Replicate { key, ack, hint_for, state })
}

/// Asks as a node, and gives the reply without the epoch.
pub async fn ask(link: &Link, lane: Lane, request: &Request) -> Result<Reply, CallError> {
    within(link.call(lane, &envelope(Role::Node), request)).await.map(|(epoch, reply)| {
        assert_eq!(epoch, Epoch(5), "the epoch of who answers");
        reply
    })
}

/// Asserts that the link is answered.
pub async fn still_served(link: &Link) {
    let reply = ask(link, Lane::Control, &ping()).await;
    assert!(matches!(reply, Ok(Reply::Pong(_))), "{reply:?}");
}

/// The reply that a host gives to a status query.
pub fn status() -> Reply {
    Reply::Status(Box::<NodeStatus>::default())
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let watch = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WATCHDOG, watch).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// The watchdog of everything that is awaited.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WATCHDOG, future).await.expect("it hangs")
}

const WATCHDOG: Duration = Duration::from_secs(60);
