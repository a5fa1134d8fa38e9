//! A cluster to ask questions of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use atoll_antientropy::{Kind, Operation, Reading, Secret, Sibling, State};
use atoll_node::{
    HintLimits, Node, Parts, Past, SCRUB_PERIOD, SimulatedClock,
    membership::seeded::SeededLog,
    storage::{
        Space, Store as _, StoreError, Write,
        commit::Disk,
        faulty::{Faults, FaultyStore},
        mark::DurableMark,
        memory::MemoryStore,
        meta,
        record::Record,
        rows,
    },
};
use atoll_ring::{
    ClusterId, Epoch, Level, Member, MemberState, NodeId, Partitions, QuorumRequest, Token, View,
};
use atoll_transport::memory::Network;
use atoll_wire::{
    BucketId, Dump, DumpedRow, Effect, Envelope, ErrorCode, Explain, Explained, Failure, Found,
    Get, Lane, NodeStatus, Outcome, PartitionRepair, Receipt, Repair, RepairQuery, RepairRun,
    ReplicaReport, Reply, Request, Role, StatusQuery, Stored,
};
use bytes::Bytes;
use tokio::task::JoinHandle;

/// Nodes n1 to nN with three copies of everything.
pub struct Cluster {
    pub network: Arc<Network>,
    /// The first view; nothing here moves.
    pub view: Arc<View>,
    /// The membership log. It has a majority unless a test takes it away.
    pub log: Arc<SeededLog>,
    stores: BTreeMap<NodeId, Arc<MemoryStore>>,
    marks: BTreeMap<NodeId, DurableMark>,
    /// What shall go wrong with the disk of a running node.
    faults: BTreeMap<NodeId, Arc<Faults>>,
    /// Nodes whose sync takes longer than [`SYNC`].
    slow_disks: BTreeMap<NodeId, Duration>,
    /// For nodes that are started from now on.
    pub hint_limits: HintLimits,
    /// Likewise.
    pub scrub_period: Duration,
    /// Nodes do not compare what they hold, see [`Cluster::release_exchange`].
    exchange_held: bool,
    /// Copies of the buckets that a test has made with fewer copies than there are replicas.
    pub made: BTreeMap<BucketId, u8>,
    /// Nodes whose disk was emptied since they last ran.
    emptied: BTreeSet<NodeId>,
    /// What machines take for the time of day; equal, unless a test says otherwise.
    clocks: BTreeMap<NodeId, Arc<SimulatedClock>>,
    running: BTreeMap<NodeId, (Arc<Node>, JoinHandle<()>)>,
    operations: Arc<AtomicU64>,
}

/// Who we are on the network. No node has this number.
pub const CLIENT: NodeId = NodeId(99);

/// How long a sync takes.
pub const SYNC: Duration = Duration::from_millis(2);

/// A client of the cluster. It owns what it needs, so that it can wait for an answer while nodes come and go.
#[derive(Clone)]
pub struct Client {
    network: Arc<Network>,
    bucket: BucketId,
    /// Of the view that it plans with.
    epoch: Epoch,
    /// The cluster's count of operations: each has a number of its own.
    operations: Arc<AtomicU64>,
    /// Whether it wants to see each step.
    trace: bool,
    /// Takes silence for an answer, because messages are lost, or nodes paused.
    gives_up: bool,
}

/// How long a client waits beyond the time it gave its request. Nobody should need it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Settings of one request.
#[derive(Clone, Debug)]
pub struct With {
    pub n: Option<u8>,
    pub r: Option<u8>,
    pub w: Option<u8>,
    pub pr: Option<u8>,
    pub pw: Option<u8>,
    pub dw: Option<u8>,
    pub sloppy: bool,
    pub repair: Repair,
    pub timeout_ms: u32,
}

/// Majorities of owners, a second.
pub const DEFAULT: With = With {
    n: None,
    r: None,
    w: None,
    pr: None,
    pw: None,
    dw: None,
    sloppy: false,
    repair: Repair::Async,
    timeout_ms: 1000,
};

/// As a user finds it: fallbacks may stand in for owners.
pub const SLOPPY: With = With { sloppy: true, ..DEFAULT };

impl With {
    pub fn quorum(&self) -> QuorumRequest {
        let level = |count: Option<u8>| count.map(Level::Count);
        QuorumRequest {
            n: self.n,
            r: level(self.r),
            w: level(self.w),
            pr: level(self.pr),
            pw: level(self.pw),
            dw: level(self.dw),
            sloppy: Some(self.sloppy),
        }
    }
}

pub fn r(r: u8) -> With {
    With { r: Some(r), ..DEFAULT }
}

pub fn w(w: u8) -> With {
    With { w: Some(w), ..DEFAULT }
}

pub fn sloppy_r(r: u8) -> With {
    With { r: Some(r), ..SLOPPY }
}

pub fn sloppy_w(w: u8) -> With {
    With { w: Some(w), ..SLOPPY }
}

impl Cluster {
    pub async fn start(nodes: u32) -> Cluster {
        Cluster::start_with(nodes, HintLimits::default()).await
    }

    /// A cluster whose nodes keep no more than this for others.
    pub async fn start_with(nodes: u32, hint_limits: HintLimits) -> Cluster {
        Cluster::start_of(nodes, 3, hint_limits).await
    }

    /// A cluster with this many copies of everything.
    pub async fn start_of(nodes: u32, copies: u8, hint_limits: HintLimits) -> Cluster {
        let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let members = (1..=nodes)
            .map(|id| Member {
                id: NodeId(id),
                incarnation: 0,
                address,
                zone: "z1".into(),
                weight: 1,
                state: MemberState::Active,
            })
            .collect();
        let partitions = Partitions::new(64).expect("a power of two");
        let (view, _) =
            View::create(ClusterId([7; 16]), partitions, copies, members).expect("a good view");
        let mut cluster = Cluster {
            network: Network::new(),
            log: SeededLog::new(view.clone(), 1),
            view: Arc::new(view),
            stores: BTreeMap::new(),
            marks: BTreeMap::new(),
            faults: BTreeMap::new(),
            slow_disks: BTreeMap::new(),
            exchange_held: true,
            made: BTreeMap::new(),
            emptied: BTreeSet::new(),
            clocks: (1..=nodes)
                .map(|id| (NodeId(id), Arc::new(SimulatedClock::starting_at(1_000_000))))
                .collect(),
            running: BTreeMap::new(),
            operations: Arc::default(),
            hint_limits,
            scrub_period: SCRUB_PERIOD,
        };
        for id in 1..=nodes {
            cluster.stores.insert(NodeId(id), Arc::new(MemoryStore::new()));
            cluster.marks.insert(NodeId(id), DurableMark::in_memory());
            cluster.boot(NodeId(id)).await;
        }
        cluster.settle().await;
        cluster
    }

    /// From now on nodes compare what they hold. Before that reads and hints can be seen alone.
    pub fn release_exchange(&mut self) {
        self.exchange_held = false;
        self.running.values().for_each(|(node, _)| node.hold_exchange(false));
    }

    /// Starts a node on whatever its disk holds.
    pub async fn boot(&mut self, id: NodeId) {
        self.boot_with(id, Faults::new()).await.expect("memory does not fail");
    }

    /// Starts a node with a disk that has these faults.
    pub async fn boot_with(&mut self, id: NodeId, faults: Arc<Faults>) -> Result<(), StoreError> {
        self.start_only(id, faults).await?;
        self.node(id).clone().rise().await
    }

    async fn start_only(&mut self, id: NodeId, faults: Arc<Faults>) -> Result<(), StoreError> {
        let store = Arc::new(FaultyStore::new(self.stores[&id].clone(), faults.clone()));
        let sync = self.slow_disks.get(&id).copied().unwrap_or(SYNC);
        let (disk, writer) = Disk::on_task(store, sync, Some(self.marks[&id].clone()))?;
        let past = if self.emptied.remove(&id) {
            Past::Lost("the data directory is empty".into())
        } else if self.faults.contains_key(&id) {
            Past::Whole
        } else {
            Past::None
        };
        let parts = Parts {
            past,
            hint_limits: self.hint_limits,
            scrub_period: self.scrub_period,
            clock_bound: atoll_node::CLOCK_BOUND,
            id,
            view: self.stored_view(id).unwrap_or_else(|| self.view.clone()),
            secret: Secret([3; 32]),
            transport: self.network.port(id),
            log: self.log.port(id),
            disk: Arc::new(disk),
            clock: self.clocks[&id].clone(),
            certificate: Arc::default(),
        };
        let node = Node::start(parts).await?;
        node.hold_exchange(self.exchange_held);
        node.obey(faults.clone());
        self.network.plug(node.clone());
        self.running.insert(id, (node, writer));
        self.faults.insert(id, faults);
        Ok(())
    }

    /// The view that a node has on its disk.
    fn stored_view(&self, id: NodeId) -> Option<Arc<View>> {
        let sealed = self.stores[&id].get(Space::Meta, rows::VIEW).expect("memory")?;
        let bytes = meta::open(rows::VIEW, &sealed).ok()?; // the node says so itself
        Some(Arc::new(postcard::from_bytes(&bytes).expect("a view")))
    }

    /// Starts a node that may have to wait for others before it serves. Returns at once.
    pub async fn begin(&mut self, id: NodeId) {
        self.start_only(id, Faults::new()).await.expect("memory does not fail");
        let node = self.node(id).clone();
        tokio::spawn(async move { node.rise().await });
    }

    /// Power loss: the node is gone, and so is all its disk had not synced.
    pub fn crash(&mut self, id: NodeId) {
        self.crash_keeping(id, 0);
    }

    /// Power loss that spares the first few batches of what was not synced.
    pub fn crash_keeping(&mut self, id: NodeId, batches: usize) {
        self.network.unplug(id);
        if self.log.leader() == Some(id) {
            self.log.lead(None); // whoever proposes next leads
        }
        if let Some((node, writer)) = self.running.remove(&id) {
            node.halt();
            writer.abort();
        }
        self.stores[&id].crash(batches);
    }

    /// Power loss of several nodes.
    pub fn crash_all(&mut self, nodes: &[NodeId]) {
        nodes.iter().for_each(|node| self.crash(*node));
    }

    /// Starts several nodes.
    pub async fn boot_all(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            self.boot(*node).await;
        }
    }

    /// The nodes that run.
    pub fn up(&self) -> Vec<NodeId> {
        self.running.keys().copied().collect()
    }

    /// Starts a node whose sync takes this long.
    pub async fn boot_slow(&mut self, id: NodeId, sync: Duration) {
        self.slow_disks.insert(id, sync);
        self.boot(id).await;
    }

    /// Stops a node in order. It still hears requests: whoever calls had not noticed yet.
    pub async fn stop(&self, id: NodeId) {
        self.running[&id].0.stop().await.expect("memory does not fail");
    }

    /// Everything a node's disk holds, as a backup would take it.
    pub fn backup(&self, id: NodeId) -> Vec<Write> {
        let rows = |space| self.stores[&id].scan(space, b"", None, usize::MAX).expect("memory");
        let write = |space| {
            rows(space).into_iter().map(move |(row, value)| Write {
                space,
                row,
                value: Some(value),
            })
        };
        Space::ALL.into_iter().flat_map(write).collect()
    }

    /// Puts an older copy in the place of a node's disk, with all that lies beside the store.
    pub fn restore(&mut self, id: NodeId, backup: &[Write]) {
        self.marks.insert(id, DurableMark::in_memory());
        self.lose_tail(id, backup);
    }

    /// As if the journal had lost whatever came after this copy. The mark beside the store stays.
    pub fn lose_tail(&mut self, id: NodeId, copy: &[Write]) {
        let store = MemoryStore::new();
        store.apply(copy).and_then(|()| store.sync()).expect("memory");
        self.stores.insert(id, Arc::new(store));
    }

    /// Kills a node and empties its disk.
    pub fn wipe(&mut self, id: NodeId) {
        self.crash(id);
        self.restore(id, &[]);
        self.emptied.insert(id);
    }

    /// Says of an emptied disk that it has never been used.
    pub fn call_new(&mut self, id: NodeId) {
        self.emptied.remove(&id);
        self.faults.remove(&id);
    }

    /// Lets pings, hints and repairs run.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }

    /// Nothing passes between this node and the other nodes; clients still reach it.
    pub fn isolate(&self, id: NodeId) {
        for other in self.others(id) {
            self.network.cut(id, other);
            self.network.cut(other, id);
        }
    }

    pub fn rejoin(&self, id: NodeId) {
        for other in self.others(id) {
            self.network.mend(id, other);
            self.network.mend(other, id);
        }
    }

    /// Nothing passes between these nodes and the others; clients still reach all.
    pub fn split(&self, side: &[NodeId]) {
        for (near, far) in self.links(side) {
            self.network.cut(near, far);
            self.network.cut(far, near);
        }
    }

    /// Every link carries again, at once.
    pub fn heal(&self) {
        for near in self.stores.keys() {
            for far in self.stores.keys() {
                self.network.mend(*near, *far);
                self.network.slow(*near, *far, Duration::ZERO);
            }
        }
    }

    fn links(&self, side: &[NodeId]) -> Vec<(NodeId, NodeId)> {
        let far = self.stores.keys().filter(|node| !side.contains(node));
        far.flat_map(|far| side.iter().map(|near| (*near, *far))).collect()
    }

    fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.stores.keys().copied().filter(|other| *other != id).collect()
    }

    /// The node at work.
    pub fn node(&self, id: NodeId) -> &Arc<Node> {
        &self.running[&id].0
    }

    /// A machine's clock, which goes on while no node runs there.
    pub fn clock(&self, id: NodeId) -> &SimulatedClock {
        &self.clocks[&id]
    }

    /// The faults of a running node's disk.
    pub fn faults(&self, id: NodeId) -> &Faults {
        &self.faults[&id]
    }

    pub fn store(&self, id: NodeId) -> &MemoryStore {
        &self.stores[&id]
    }

    pub fn bucket(&self) -> BucketId {
        BucketId::default_bucket(self.view.bucket_n())
    }

    /// How many copies a bucket keeps: as many as there are replicas, unless it was made with fewer.
    pub fn copies(&self, bucket: BucketId) -> u8 {
        self.made.get(&bucket).copied().unwrap_or(self.view.bucket_n())
    }

    pub fn owners(&self, key: &str) -> Vec<NodeId> {
        let token = Token::of(&self.bucket().0, key.as_bytes());
        self.view.owners(self.view.partition(token)).all()
    }

    pub fn not_owner(&self, key: &str) -> NodeId {
        let owners = self.owners(key);
        *self.stores.keys().find(|node| !owners.contains(node)).expect("more nodes than copies")
    }

    /// Who stands in for the owners of a key, the first one first.
    pub fn fallbacks(&self, key: &str) -> Vec<NodeId> {
        let token = Token::of(&self.bucket().0, key.as_bytes());
        let order = self.view.preference(self.view.partition(token));
        let owners = self.owners(key);
        order.filter(|node| !owners.contains(node)).collect()
    }

    /// Keys with the owners and fallbacks of this one, itself the first.
    pub fn neighbours(&self, key: &str, count: usize) -> Vec<String> {
        let others = (0..).map(|number| format!("{key}{number}"));
        let near = others.filter(|other| self.row(other)[..2] == self.row(key)[..2]);
        std::iter::once(key.to_owned()).chain(near).take(count).collect()
    }

    /// The row of a key.
    pub fn row(&self, key: &str) -> Bytes {
        let token = Token::of(&self.bucket().0, key.as_bytes());
        rows::data(self.view.partition(token), token, self.bucket(), key.as_bytes())
    }

    /// What a node's disk holds of a key, as bytes.
    pub fn on_disk(&self, id: NodeId, key: &str) -> Option<Bytes> {
        self.stores[&id].get(Space::Data, &self.row(key)).expect("memory")
    }

    /// What a node's disk holds of a key, without the note beside it.
    pub fn state(&self, id: NodeId, key: &str) -> Option<State> {
        let record = Record::decode(&self.row(key), &self.on_disk(id, key)?);
        Some(record.expect("undamaged").state)
    }

    /// What a node's disk holds of a key for an owner.
    pub fn hint(&self, id: NodeId, target: NodeId, key: &str) -> Option<State> {
        let row = rows::hint(target, &self.row(key));
        let value = self.stores[&id].get(Space::Hints, &row).expect("memory")?;
        let record = Record::decode(&row, &value);
        Some(record.expect("undamaged").state)
    }

    /// The owners of a key hold the same state, with these values, and nobody holds a hint.
    pub async fn assert_whole(&self, key: &str, expected: &[&str]) {
        for owner in self.owners(key) {
            let state = self.state(owner, key).unwrap_or_else(unknown);
            assert_eq!(texts(&state), expected, "{key} at {owner}");
            let first = self.state(self.owners(key)[0], key).unwrap_or_else(unknown);
            assert_eq!(state, first, "{key} at {owner}");
        }
        assert_eq!(self.hints().await, 0, "hints");
    }

    /// Hints kept by the nodes that run.
    pub async fn hints(&self) -> u64 {
        let mut hints = 0;
        for node in self.up() {
            hints += self.status(node).await.hints;
        }
        hints
    }

    /// An operator decides that what is left of a key's partition on this node is all there is.
    pub async fn accept_loss(&self, via: NodeId, key: &str) {
        let token = Token::of(&self.bucket().0, key.as_bytes());
        let partition = Some(self.view.partition(token).0);
        let run = Request::RepairRun(RepairRun { partition, accept_loss: true });
        self.client().call(via, run, 1000).await.expect("it is up");
    }

    pub fn client(&self) -> Client {
        self.client_of(self.bucket())
    }

    /// A client that speaks about another bucket.
    pub fn client_of(&self, bucket: BucketId) -> Client {
        let (epoch, operations) = (self.view.epoch(), self.operations.clone());
        Client {
            network: self.network.clone(),
            bucket,
            epoch,
            operations,
            trace: false,
            gives_up: false,
        }
    }

    pub async fn put(
        &self,
        via: NodeId,
        key: &str,
        value: &str,
        context: &Bytes,
        with: &With,
    ) -> Result<Stored, Failure> {
        self.client().put(via, key, value, context, with).await
    }

    pub async fn delete(
        &self,
        via: NodeId,
        key: &str,
        context: &Bytes,
        with: &With,
    ) -> Result<Stored, Failure> {
        self.client().delete(via, key, context, with).await
    }

    pub async fn get(&self, via: NodeId, key: &str, with: &With) -> Result<Found, Failure> {
        self.client().get(via, key, with).await
    }

    /// All raw states that a node shows of a partition, page by page, and how many pages they were.
    pub async fn dump(&self, of: NodeId, partition: u16, hints: bool) -> (Vec<DumpedRow>, usize) {
        let (mut all, mut pages): (Vec<DumpedRow>, _) = (Vec::new(), 0);
        loop {
            let after = all.last().map(|last| last.row.clone()).unwrap_or_default();
            let dump = Request::Dump(Dump { partition, hints, after });
            let reply = self.client().call(of, dump, 1000).await.expect("it is up");
            let Reply::Dumped(page) = reply else { panic!("a dump was answered with {reply:?}") };
            all.extend(page.read().expect("a page"));
            pages += 1;
            if !page.more {
                return (all, pages);
            }
        }
    }

    pub async fn status(&self, via: NodeId) -> NodeStatus {
        self.says_of_itself(via).await.expect("it is not about to end")
    }

    /// How repair stands on a node, partition by partition.
    pub async fn repair_status(&self, via: NodeId) -> Vec<PartitionRepair> {
        match self.client().call(via, Request::RepairStatus(RepairQuery {}), 1000).await {
            Ok(Reply::RepairStatus(report)) => report.read().expect("a report"),
            other => panic!("a query for the state of repair was answered with {other:?}"),
        }
    }

    /// Makes a node compare now; the number of partitions it will compare.
    pub async fn repair_run(&self, via: NodeId, partition: Option<u16>) -> u32 {
        match self
            .client()
            .call(via, Request::RepairRun(RepairRun { partition, accept_loss: false }), 1000)
            .await
        {
            Ok(Reply::RepairRun(started)) => started.partitions,
            other => panic!("a demand to compare was answered with {other:?}"),
        }
    }

    /// As [`Cluster::status`], for a node that may be about to end.
    pub async fn says_of_itself(&self, via: NodeId) -> Result<NodeStatus, Failure> {
        match self.client().call(via, Request::Status(StatusQuery {}), 1000).await? {
            Reply::Status(status) => Ok(*status),
            other => panic!("a status query was answered with {other:?}"),
        }
    }
}

impl Client {
    /// The same, and it wants to see each step.
    pub fn traced(self) -> Client {
        Client { trace: true, ..self }
    }

    /// What a node says would happen.
    pub async fn explain(&self, via: NodeId, key: &str, with: &With) -> Result<Explained, Failure> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let asked = Request::Explain(Explain { key, quorum: with.quorum() });
        match self.call(via, asked, with.timeout_ms).await? {
            Reply::Explained(explained) => Ok(*explained),
            other => panic!("a question what would happen was answered with {other:?}"),
        }
    }

    /// The same client, who speaks of another bucket.
    pub fn in_bucket(&self, bucket: BucketId) -> Client {
        Client { bucket, ..self.clone() }
    }

    /// The same client, who knows that some answers will never come.
    pub fn who_gives_up(&self) -> Client {
        Client { gives_up: true, ..self.clone() }
    }

    /// A number that no other operation has.
    pub fn next_operation(&self) -> u128 {
        u128::from(self.operations.fetch_add(1, Ordering::Relaxed)) + 1
    }

    pub async fn call(
        &self,
        via: NodeId,
        request: Request,
        left_ms: u32,
    ) -> Result<Reply, Failure> {
        self.call_as(self.next_operation(), via, request, left_ms).await
    }

    /// Calls under the number of an operation: whoever repeats one gives the number that it had.
    pub async fn call_as(
        &self,
        operation: u128,
        via: NodeId,
        request: Request,
        left_ms: u32,
    ) -> Result<Reply, Failure> {
        let envelope = Envelope {
            epoch: self.epoch,
            left_ms,
            operation,
            bucket: self.bucket,
            trace: self.trace,
            role: Role::Client,
        };
        let call = self.network.port(CLIENT).call(via, Lane::Request, envelope, request);
        let left = Duration::from_millis(left_ms.into());
        let patience = if self.gives_up { left } else { left + PATIENCE };
        let answer = match tokio::time::timeout(patience, call).await {
            Ok(answer) => answer,
            Err(_) if self.gives_up => {
                let failure = Failure::refused(ErrorCode::DeadlinePassed, "nobody has answered");
                return Err(Failure { effect: Effect::Unknown, ..failure });
            }
            Err(_) => panic!("no answer came in time"),
        };
        match answer {
            Ok((_, Reply::Failed(failure))) => Err(*failure),
            Ok((_, reply)) => Ok(reply),
            Err(error) => {
                let effect = if error.not_sent() { Effect::NotApplied } else { Effect::Unknown };
                let failure = Failure::refused(ErrorCode::NoOwnerReachable, error.to_string());
                Err(Failure { effect, ..failure })
            }
        }
    }

    pub async fn put(
        &self,
        via: NodeId,
        key: &str,
        value: &str,
        context: &Bytes,
        with: &With,
    ) -> Result<Stored, Failure> {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let put = Operation::Put { value, expires_ms: None };
        self.change(via, key, &put, context, with).await
    }

    pub async fn delete(
        &self,
        via: NodeId,
        key: &str,
        context: &Bytes,
        with: &With,
    ) -> Result<Stored, Failure> {
        self.change(via, key, &Operation::Clear, context, with).await
    }

    pub async fn change(
        &self,
        via: NodeId,
        key: &str,
        operation: &Operation,
        context: &Bytes,
        with: &With,
    ) -> Result<Stored, Failure> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let write = atoll_wire::Write::new(key, with.quorum(), operation);
        let write = atoll_wire::Write { context: context.clone(), ..write };
        match self.call(via, Request::Write(write), with.timeout_ms).await? {
            Reply::Written(stored) => Ok(stored),
            other => panic!("a write was answered with {other:?}"),
        }
    }

    pub async fn get(&self, via: NodeId, key: &str, with: &With) -> Result<Found, Failure> {
        let get = Get {
            key: Bytes::copy_from_slice(key.as_bytes()),
            session: None,
            quorum: with.quorum(),
            repair: with.repair,
        };
        match self.call(via, Request::Get(get), with.timeout_ms).await? {
            Reply::Found(found) => Ok(found),
            other => panic!("a get was answered with {other:?}"),
        }
    }
}

/// A key that nobody has heard of.
pub fn unknown() -> State {
    State::unknown(Kind::Register)
}

/// No context: concurrent with everything.
pub fn blind() -> Bytes {
    Bytes::new()
}

/// The values of a read, as text, sorted.
pub fn values(found: &Found) -> Vec<String> {
    texts_of(Reading::decode(&found.reading).expect("a reading"))
}

/// The values in a state, as text, sorted.
pub fn texts(state: &State) -> Vec<String> {
    texts_of(state.read(0))
}

fn texts_of(reading: Reading) -> Vec<String> {
    let Reading::Register(siblings) = reading else { panic!("no register: {reading:?}") };
    let text = |one: &Sibling| String::from_utf8_lossy(&one.value).into_owned();
    let mut texts: Vec<String> = siblings.iter().map(text).collect();
    texts.sort();
    texts
}

/// What the receipt says of each node that took part: node, for whom it stands in, outcome.
pub fn lines(receipt: &Receipt) -> Vec<(NodeId, Option<NodeId>, Outcome)> {
    let line = |report: &ReplicaReport| {
        (NodeId(report.node), report.stands_in_for.map(NodeId), report.outcome)
    };
    receipt.replicas.iter().map(line).collect()
}
