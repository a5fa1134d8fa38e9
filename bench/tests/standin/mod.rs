//! Three nodes that only pretend: real connections and real contexts, one map behind them all, and a fault on request.
//!
//! With one map nothing can be stale, so whatever the benchmark finds is the fault that was asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use atoll_antientropy::{
    Actor, Context, ContextToken, Event, Hybrid, Kind, Operation, Secret, Stamp, State,
};
use atoll_client::Profile;
use atoll_ring::{ClusterId, Epoch, Member, MemberState, NodeId, Partitions, Update, View};
use atoll_transport::{Answer, Authority, Caller, Handler, Identity, Quic};
use atoll_wire::{
    Effect, Envelope, ErrorCode, Failure, Found, Get, NodeStatus, Receipt, Reply, Request, Role,
    Stored, ViewReply, Write,
};
use bytes::Bytes;

/// What the nodes do wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Node 3 never hears of anything but the first write of a key.
    OneIsStuck,
    /// Node 3 shows every key as it was [`LAG`] ago.
    OneLagsBehind,
    /// Every seventh write is stored, and nobody is told.
    WritesVanishFromSight,
    /// Node 2 does not say how it is.
    OneTellsNothing,
    /// Every read forgets to say what it stands for, and shows nothing.
    Amnesia,
}

/// The pretenders, up until this is dropped with its runtime.
pub struct StandIn {
    pub profile: Profile,
    /// The most siblings that any key has had.
    pub siblings_max: Arc<AtomicU64>,
    /// How many reads all nodes have answered.
    pub reads: Arc<AtomicU64>,
    _folder: tempfile::TempDir,
}

impl StandIn {
    pub fn start(fault: Fault) -> StandIn {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let authority = Authority::create("stand-in").unwrap();
        authority.write_certificate(&at("ca.pem")).unwrap();
        authority.issue_user(&[Role::Client], DAY, &at("user.pem"), &at("user.key")).unwrap();
        let nodes: Vec<Quic> = (1..=3).map(|id| bind(&authority, NodeId(id), &at)).collect();
        let members = (1..).zip(&nodes).map(|(id, quic)| Member {
            id: NodeId(id),
            incarnation: 0,
            address: quic.address().unwrap(),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        });
        let partitions = Partitions::new(64).unwrap();
        let view = Arc::new(View::create(CLUSTER, partitions, 3, members.collect()).unwrap().0);
        let siblings_max = Arc::<AtomicU64>::default();
        let reads = Arc::<AtomicU64>::default();
        let records = Arc::<Mutex<BTreeMap<Bytes, Record>>>::default();
        for (id, quic) in (1..).zip(nodes.iter().cloned()) {
            let node = Arc::new(Node {
                id: NodeId(id),
                fault,
                view: view.clone(),
                records: records.clone(),
                events: AtomicU64::new(0),
                reads: AtomicU64::new(0),
                reads_of_all: reads.clone(),
                started: Instant::now(),
                siblings_max: siblings_max.clone(),
            });
            tokio::spawn(async move { quic.serve(node).await });
        }
        let profile = Profile {
            cluster: CLUSTER,
            seeds: nodes.iter().map(|quic| quic.address().unwrap()).collect(),
            ca: at("ca.pem"),
            certificate: at("user.pem"),
            key: at("user.key"),
        };
        StandIn { profile, siblings_max, reads, _folder: folder }
    }
}

fn bind(authority: &Authority, id: NodeId, at: &dyn Fn(&str) -> std::path::PathBuf) -> Quic {
    let (certificate, key) = (at(&format!("{id}.pem")), at(&format!("{id}.key")));
    authority.issue_node(id, DAY, &certificate, &key).unwrap();
    let identity = Identity::load(Path::new(&at("ca.pem")), &certificate, &key).unwrap();
    Quic::bind("127.0.0.1:0".parse().unwrap(), &identity).unwrap()
}

struct Record {
    now: State,
    /// As the first write has left it.
    first: State,
    /// As it was [`LAG`] ago and since then, with the moments from which on it was so.
    versions: VecDeque<(Instant, State)>,
}

impl Default for Record {
    fn default() -> Self {
        let nothing = || State::unknown(Kind::Register);
        Record { now: nothing(), first: nothing(), versions: VecDeque::new() }
    }
}

impl Record {
    /// The record as it was [`LAG`] ago.
    fn late(&mut self) -> Option<&State> {
        let then = Instant::now() - LAG;
        while self.versions.get(1).is_some_and(|(since, _)| *since <= then) {
            self.versions.pop_front();
        }
        self.versions.front().filter(|(since, _)| *since <= then).map(|(_, then)| then)
    }
}

struct Node {
    id: NodeId,
    fault: Fault,
    view: Arc<View>,
    records: Arc<Mutex<BTreeMap<Bytes, Record>>>,
    events: AtomicU64,
    reads: AtomicU64,
    reads_of_all: Arc<AtomicU64>,
    started: Instant,
    siblings_max: Arc<AtomicU64>,
}

impl Handler for Node {
    fn node(&self) -> NodeId {
        self.id
    }

    fn cluster(&self) -> ClusterId {
        CLUSTER
    }

    fn epoch(&self) -> Epoch {
        self.view.epoch()
    }

    fn handle(self: Arc<Self>, _: Caller, _: Envelope, request: Request) -> Answer {
        Answer::Now(match request {
            Request::View(_) => {
                let update = Update::View(Box::new((*self.view).clone()));
                Reply::View(ViewReply { view: postcard::to_stdvec(&update).unwrap().into() })
            }
            Request::Write(write) => self.write(write),
            Request::Get(get) => Reply::Found(self.get(&get)),
            Request::Status(_) if self.fault != Fault::OneTellsNothing || self.id != NodeId(2) => {
                Reply::Status(Box::new(self.status()))
            }
            _ => Reply::Failed(Box::new(Failure::refused(ErrorCode::Internal, "not pretended"))),
        })
    }
}

impl Node {
    fn write(&self, write: Write) -> Reply {
        let mut seen = match write.context.is_empty() {
            true => Context::new(),
            false => open(&write.key, write.context),
        };
        let number = self.events.fetch_add(1, Ordering::Relaxed) + 1;
        let event = Event::alone(Actor::new(self.id.0, 0), number);
        let mut records = self.records.lock().unwrap();
        let record = records.entry(write.key.clone()).or_default();
        let first = record.now.is_unknown();
        let operation = Operation::decode(&write.operation).unwrap();
        let stamp = Stamp { event, at: Hybrid(0), wall_ms: 0, operation: number.into() };
        let delta = record.now.change(&operation, Some(&seen), &stamp).unwrap();
        record.now.join(delta);
        if self.fault == Fault::OneLagsBehind {
            record.late();
            record.versions.push_back((Instant::now(), record.now.clone()));
        }
        self.siblings_max.fetch_max(record.now.siblings() as u64, Ordering::Relaxed);
        if first {
            record.first = record.now.clone();
        }
        if self.fault == Fault::WritesVanishFromSight && number.is_multiple_of(7) {
            let mut failure = Failure::refused(ErrorCode::WriteQuorumNotMet, "as asked for");
            failure.effect = Effect::Unknown;
            return Reply::Failed(Box::new(failure));
        }
        seen.add(&event);
        let dot = (event.actor.node, event.actor.incarnation, event.counter);
        let (context, session) = (seal(&write.key, &seen), Bytes::new());
        Reply::Written(Stored { context, session, dot, receipt: self.receipt() })
    }

    fn get(&self, get: &Get) -> Found {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.reads_of_all.fetch_add(1, Ordering::Relaxed);
        let mut records = self.records.lock().unwrap();
        let nothing = State::unknown(Kind::Register);
        let shown = match (records.get_mut(&get.key), self.fault) {
            (None, _) | (_, Fault::Amnesia) => &nothing,
            (Some(record), Fault::OneIsStuck) if self.id == NodeId(3) => &record.first,
            (Some(record), Fault::OneLagsBehind) if self.id == NodeId(3) => {
                record.late().unwrap_or(&nothing)
            }
            (Some(record), _) => &record.now,
        };
        let context = match shown.is_unknown() {
            true => Bytes::new(),
            false => seal(&get.key, shown.context()),
        };
        Found { context, receipt: self.receipt(), reading: shown.read(0).encode().into() }
    }

    /// Every request has cost 50 µs, and every read has been hedged.
    fn status(&self) -> NodeStatus {
        let reads = self.reads.load(Ordering::Relaxed);
        let writes = self.events.load(Ordering::Relaxed);
        NodeStatus {
            node: self.id.0,
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap(),
            cpu_micros: 50 * (reads + writes) + 1,
            reads,
            writes,
            hedges: reads,
            ..NodeStatus::default()
        }
    }

    fn receipt(&self) -> Receipt {
        Receipt {
            epoch: self.view.epoch(),
            coordinator: self.id.0,
            n: 3,
            needed: 1,
            owners_needed: 0,
            durable_needed: 0,
            replicas: Vec::new(),
            hinted: Vec::new(),
            unhinted: Vec::new(),
            repaired: Vec::new(),
            trace: None,
        }
    }
}

fn seal(key: &[u8], context: &Context) -> Bytes {
    ContextToken::seal(&secret(), &CLUSTER.0, &[0; 16], key, context).as_bytes().clone()
}

fn open(key: &[u8], token: Bytes) -> Context {
    ContextToken::from(token).open(&secret(), &CLUSTER.0, &[0; 16], key).unwrap()
}

fn secret() -> Secret {
    Secret([7; 32])
}

const CLUSTER: ClusterId = ClusterId([5; 16]);
const DAY: Duration = Duration::from_secs(86_400);

/// How far a node that lags is behind.
pub const LAG: Duration = Duration::from_millis(60);
