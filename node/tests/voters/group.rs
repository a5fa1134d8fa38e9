//! Nodes n1 to nN whose ring is decided by the real membership log, over a network in memory and on virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use atoll_antientropy::{Reading, Secret};
use atoll_node::{
    HintLimits, LogStanding, MembershipLog as _, Node, NotProposed, Parts, Past, SCRUB_PERIOD,
    SimulatedClock,
    membership::raft::{CannotRecover, RaftLog, recover},
    storage::{commit::Disk, mark::DurableMark, memory::MemoryStore},
};
use atoll_ring::{
    ClusterId, Command, Epoch, Member, MemberState, NodeId, Partitions, QuorumRequest, View,
};
use atoll_transport::memory::Network;
use atoll_wire::{
    BucketId, Envelope, Failure, Get, Lane, NodeStatus, Propose, Proposed, Repair, Reply, Request,
    Role, StatusQuery, Write,
};
use bytes::Bytes;
use tokio::task::JoinHandle;

pub const CLUSTER: ClusterId = ClusterId([7; 16]);

/// Who we are on the network. No node has this number.
const CLIENT: NodeId = NodeId(99);

/// How long a disk takes for a sync, unless a test wants it slower.
const SYNC: Duration = Duration::from_millis(2);

pub struct Group {
    pub network: Arc<Network>,
    sync: Duration,
    first: Arc<View>,
    stores: BTreeMap<NodeId, Arc<MemoryStore>>,
    marks: BTreeMap<NodeId, DurableMark>,
    /// Nodes that have run, and have not been emptied since.
    used: BTreeSet<NodeId>,
    emptied: BTreeSet<NodeId>,
    running: BTreeMap<NodeId, Running>,
}

struct Running {
    node: Arc<Node>,
    log: Arc<RaftLog>,
    writer: JoinHandle<()>,
}

impl Group {
    /// So many nodes, all started.
    pub async fn start(nodes: u32) -> Group {
        Group::start_on(nodes, SYNC).await
    }

    /// The same on disks that take this long for a sync.
    pub async fn start_on(nodes: u32, sync: Duration) -> Group {
        let address = |id: u32| SocketAddr::from(([127, 0, 0, 1], u16::try_from(id).expect("few")));
        let members = (1..=nodes).map(|id| Member {
            id: NodeId(id),
            incarnation: 0,
            address: address(id),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        });
        let partitions = Partitions::new(64).expect("a power of two");
        let copies = u8::try_from(nodes.min(3)).expect("few");
        let (view, _) =
            View::create(CLUSTER, partitions, copies, members.collect()).expect("a good view");
        let mut group = Group {
            network: Network::new(),
            sync,
            first: Arc::new(view),
            stores: BTreeMap::new(),
            marks: BTreeMap::new(),
            used: BTreeSet::new(),
            emptied: BTreeSet::new(),
            running: BTreeMap::new(),
        };
        for id in (1..=nodes).map(NodeId) {
            group.stores.insert(id, Arc::new(MemoryStore::new()));
            group.marks.insert(id, DurableMark::in_memory());
            group.boot(id).await;
        }
        group
    }

    /// Starts a node on whatever its disk holds, and waits until it serves.
    pub async fn boot(&mut self, id: NodeId) {
        let node = self.begin(id).await;
        node.rise().await.expect("memory does not fail");
    }

    /// Starts a node. Returns at once.
    pub async fn begin(&mut self, id: NodeId) -> Arc<Node> {
        let (disk, writer) =
            Disk::on_task(self.stores[&id].clone(), self.sync, Some(self.marks[&id].clone()))
                .expect("memory does not fail");
        let disk = Arc::new(disk);
        let log = Arc::new(RaftLog::new(disk.clone()));
        let past = match (self.emptied.remove(&id), self.used.insert(id)) {
            (true, _) => Past::Lost("the data directory is empty".into()),
            (false, true) => Past::None,
            (false, false) => Past::Whole,
        };
        let parts = Parts {
            id,
            view: self.stored_view(id).map_or_else(|| self.first.clone(), Arc::new),
            secret: Secret([3; 32]),
            transport: self.network.port(id),
            log: log.clone(),
            disk,
            clock: Arc::new(SimulatedClock::starting_at(1_000_000)),
            past,
            hint_limits: HintLimits::default(),
            scrub_period: SCRUB_PERIOD,
            clock_bound: atoll_node::CLOCK_BOUND,
            certificate: Arc::default(),
        };
        let node = Node::start(parts).await.expect("memory does not fail");
        self.network.plug(node.clone());
        self.running.insert(id, Running { node: node.clone(), log, writer });
        node
    }

    fn stored_view(&self, id: NodeId) -> Option<View> {
        use atoll_node::storage::{Space, Store as _, meta, rows};
        let sealed = self.stores[&id].get(Space::Meta, rows::VIEW).expect("memory")?;
        let bytes = meta::open(rows::VIEW, &sealed).expect("not damaged");
        Some(postcard::from_bytes(&bytes).expect("a view"))
    }

    /// Power loss.
    pub async fn crash(&mut self, id: NodeId) {
        self.network.unplug(id);
        if let Some(Running { node, log, writer }) = self.running.remove(&id) {
            node.halt();
            writer.abort();
            log.close().await; // its tasks are not the node's; the disk is gone, so it writes nothing more
        }
        self.stores[&id].crash(0);
    }

    /// Power loss, and an empty disk in the place of the old one.
    pub async fn wipe(&mut self, id: NodeId) {
        self.crash(id).await;
        self.stores.insert(id, Arc::new(MemoryStore::new()));
        self.marks.insert(id, DurableMark::in_memory());
        self.emptied.insert(id);
    }

    /// As `atoll cluster recover` does, on a node that does not run.
    pub async fn recover(&self, id: NodeId, cluster: ClusterId) -> Result<Epoch, CannotRecover> {
        let (disk, writer) =
            Disk::on_task(self.stores[&id].clone(), SYNC, Some(self.marks[&id].clone()))
                .expect("memory does not fail");
        let recovered = recover(&disk, cluster, id, 5).await;
        disk.close();
        writer.await.expect("it ends");
        recovered
    }

    /// Nothing passes between this node and the others; clients still reach it.
    pub fn isolate(&self, id: NodeId) {
        for other in self.stores.keys() {
            self.network.cut(id, *other);
            self.network.cut(*other, id);
        }
    }

    pub fn node(&self, id: NodeId) -> &Arc<Node> {
        &self.running[&id].node
    }

    pub fn log(&self, id: NodeId) -> &RaftLog {
        &self.running[&id].log
    }

    pub fn store(&self, id: NodeId) -> &MemoryStore {
        &self.stores[&id]
    }

    pub fn standing(&self, id: NodeId) -> LogStanding {
        self.log(id).standing()
    }

    pub fn epoch(&self, id: NodeId) -> u64 {
        self.node(id).view().epoch().0
    }

    pub fn up(&self) -> Vec<NodeId> {
        self.running.keys().copied().collect()
    }

    /// The node that leads, when one does and has a majority.
    pub async fn leader(&self) -> NodeId {
        self.until("somebody leads", |group| {
            group.up().into_iter().find(|id| group.standing(*id).leads)
        })
        .await
    }

    /// Waits until there is such a thing.
    pub async fn until<T>(&self, what: &str, mut there: impl FnMut(&Group) -> Option<T>) -> T {
        for _ in 0..1200 {
            if let Some(found) = there(self) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("in a minute it did not happen that {what}");
    }

    /// Waits until all that run have this epoch.
    pub async fn until_epoch(&self, epoch: Epoch) {
        self.until(&format!("all have epoch {epoch}"), |group| {
            group.up().iter().all(|id| group.epoch(*id) >= epoch.0).then_some(())
        })
        .await;
    }

    /// Proposes at one node, and nowhere else.
    pub async fn propose_at(&self, id: NodeId, command: Command) -> Result<Epoch, NotProposed> {
        self.log(id).propose(command).await
    }

    /// Proposes as an operator does: whoever is asked passes it on.
    pub async fn ask(&self, id: NodeId, command: &Command) -> Result<Epoch, Failure> {
        let command = postcard::to_stdvec(command).expect("plain data").into();
        let asked = Request::Propose(Propose { hops: 0, command });
        match self.call(id, Role::Operator, asked).await {
            Reply::Proposed(Proposed { epoch }) => Ok(Epoch(epoch)),
            Reply::Failed(failure) => Err(*failure),
            other => panic!("no answer to a proposal: {other:?}"),
        }
    }

    pub async fn status(&self, id: NodeId) -> NodeStatus {
        match self.call(id, Role::Operator, Request::Status(StatusQuery {})).await {
            Reply::Status(status) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Stores a value on one owner, and reads it from one.
    pub async fn put_and_get(&self, id: NodeId, key: &'static str) -> Result<(), Failure> {
        let one = Some(atoll_ring::Level::Count(1));
        let quorum =
            QuorumRequest { w: one, r: one, sloppy: Some(true), ..QuorumRequest::default() };
        let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(b"value"));
        let put = Request::Write(Write::put(key.clone(), quorum, value));
        if let Reply::Failed(failure) = self.call(id, Role::Client, put).await {
            return Err(*failure);
        }
        let get = Request::Get(Get { key, session: None, quorum, repair: Repair::None });
        match self.call(id, Role::Client, get).await {
            Reply::Found(found) => {
                let reading = Reading::decode(&found.reading).expect("a reading");
                assert!(!reading.is_nothing());
                Ok(())
            }
            Reply::Failed(failure) => Err(*failure),
            other => panic!("no answer to a get: {other:?}"),
        }
    }

    async fn call(&self, id: NodeId, role: Role, request: Request) -> Reply {
        let envelope = Envelope {
            epoch: Epoch(0),
            left_ms: 20_000,
            operation: u128::from(role != Role::Node),
            bucket: BucketId::default_bucket(self.first.bucket_n()),
            trace: false,
            role,
        };
        let call = self.network.port(CLIENT).call(id, Lane::Control, envelope, request);
        let answered = tokio::time::timeout(Duration::from_secs(30), call).await;
        answered.expect("an answer in time").expect("the node is there").1
    }
}

/// An invitation: a change of the ring that moves nothing.
pub fn invite(number: u8) -> Command {
    let node = NodeId(100 + u32::from(number));
    Command::Invite { invitation: [number; 16], node, expires_ms: u64::MAX }
}

impl Group {
    /// Proposes until it is taken; nobody else proposes it.
    pub async fn until_taken(&self, id: NodeId, command: &Command) -> Epoch {
        for _ in 0..100 {
            match self.ask(id, command).await {
                Ok(epoch) => return epoch,
                Err(failure) => {
                    assert_eq!(failure.effect, atoll_wire::Effect::NotApplied, "{failure:?}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        panic!("never taken");
    }
}
