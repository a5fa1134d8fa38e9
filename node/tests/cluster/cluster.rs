//! A cluster to ask questions of.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use atoll_antientropy::Secret;
use atoll_node::{
    HintLimits, Node, Parts, SimulatedClock,
    storage::{
        Space, Store as _, StoreError, Write,
        commit::Disk,
        faulty::{Faults, FaultyStore},
        memory::MemoryStore,
        rows,
    },
};
use atoll_ring::{
    ClusterId, Epoch, Level, Member, MemberState, NodeId, Partitions, QuorumRequest, Token, View,
};
use atoll_transport::memory::Network;
use atoll_wire::{
    BucketId, Delete, Envelope, Failure, Found, Get, Lane, NodeStatus, Put, Repair, Reply, Request,
    Role, StatusQuery, Stored,
};
use bytes::Bytes;
use tokio::task::JoinHandle;

/// Nodes n1 to nN with three copies of everything.
pub struct Cluster {
    pub network: Arc<Network>,
    pub view: Arc<View>,
    stores: BTreeMap<NodeId, Arc<MemoryStore>>,
    /// What shall go wrong with the disk of a running node.
    faults: BTreeMap<NodeId, Arc<Faults>>,
    /// Nodes whose sync takes longer than [`SYNC`].
    slow_disks: BTreeMap<NodeId, Duration>,
    /// For nodes that are started from now on.
    pub hint_limits: HintLimits,
    running: BTreeMap<NodeId, (Arc<Node>, JoinHandle<()>)>,
}

/// Who we are on the network. No node has this number.
pub const CLIENT: NodeId = NodeId(99);

/// How long a sync takes.
pub const SYNC: Duration = Duration::from_millis(2);

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

impl With {
    fn quorum(&self) -> QuorumRequest {
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

impl Cluster {
    pub async fn start(nodes: u32) -> Cluster {
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
            View::create(ClusterId([7; 16]), partitions, 3, members).expect("a good view");
        let mut cluster = Cluster {
            network: Network::new(),
            view: Arc::new(view),
            stores: BTreeMap::new(),
            faults: BTreeMap::new(),
            slow_disks: BTreeMap::new(),
            running: BTreeMap::new(),
            hint_limits: HintLimits::default(),
        };
        for id in 1..=nodes {
            cluster.stores.insert(NodeId(id), Arc::new(MemoryStore::new()));
            cluster.boot(NodeId(id)).await;
        }
        cluster.settle().await;
        cluster
    }

    /// Starts a node on whatever its disk holds.
    pub async fn boot(&mut self, id: NodeId) {
        self.boot_with(id, Faults::new()).await.expect("memory does not fail");
    }

    /// Starts a node with a disk that has these faults.
    pub async fn boot_with(&mut self, id: NodeId, faults: Arc<Faults>) -> Result<(), StoreError> {
        let store = Arc::new(FaultyStore::new(self.stores[&id].clone(), faults.clone()));
        let sync = self.slow_disks.get(&id).copied().unwrap_or(SYNC);
        let (disk, writer) = Disk::on_task(store, sync)?;
        let parts = Parts {
            hint_limits: self.hint_limits,
            id,
            view: self.view.clone(),
            secret: Secret([3; 32]),
            transport: self.network.port(id),
            disk: Arc::new(disk),
            clock: Arc::new(SimulatedClock::starting_at(1_000_000)),
            certificate: Arc::default(),
        };
        let node = Node::start(parts).await?;
        self.network.plug(node.clone());
        self.running.insert(id, (node, writer));
        self.faults.insert(id, faults);
        Ok(())
    }

    /// Power loss: the node is gone, and so is all its disk had not synced.
    pub fn crash(&mut self, id: NodeId) {
        self.network.unplug(id);
        if let Some((node, writer)) = self.running.remove(&id) {
            node.halt();
            writer.abort();
        }
        self.stores[&id].crash(0);
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

    /// Puts an older copy in the place of a node's disk.
    pub fn restore(&mut self, id: NodeId, backup: &[Write]) {
        let store = MemoryStore::new();
        store.apply(backup).and_then(|()| store.sync()).expect("memory");
        self.stores.insert(id, Arc::new(store));
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

    fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.stores.keys().copied().filter(|other| *other != id).collect()
    }

    /// The node at work.
    pub fn node(&self, id: NodeId) -> &Arc<Node> {
        &self.running[&id].0
    }

    /// The faults of a running node's disk.
    pub fn faults(&self, id: NodeId) -> &Faults {
        &self.faults[&id]
    }

    pub fn store(&self, id: NodeId) -> &MemoryStore {
        &self.stores[&id]
    }

    pub fn bucket(&self) -> BucketId {
        BucketId::default_bucket(3)
    }

    pub fn owners(&self, key: &str) -> Vec<NodeId> {
        let token = Token::of(&self.bucket().0, key.as_bytes());
        self.view.owners(self.view.partition(token)).all()
    }

    pub fn not_owner(&self, key: &str) -> NodeId {
        let owners = self.owners(key);
        *self.stores.keys().find(|node| !owners.contains(node)).expect("more nodes than copies")
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

    async fn call(&self, via: NodeId, request: Request, timeout_ms: u32) -> Reply {
        let envelope = Envelope {
            epoch: Epoch(1),
            left_ms: timeout_ms,
            operation: 1,
            bucket: self.bucket(),
            role: Role::Client,
        };
        let call = self.network.port(CLIENT).call(via, Lane::Request, envelope, request);
        call.await.expect("the client reaches the node").1
    }

    pub async fn put(
        &self,
        via: NodeId,
        key: &str,
        value: &str,
        context: &Bytes,
        with: &With,
    ) -> Result<Stored, Failure> {
        let put = Put {
            key: Bytes::copy_from_slice(key.as_bytes()),
            context: context.clone(),
            quorum: with.quorum(),
            hops: 0,
            value: Bytes::copy_from_slice(value.as_bytes()),
        };
        match self.call(via, Request::Put(put), with.timeout_ms).await {
            Reply::Put(stored) => Ok(stored),
            Reply::Failed(failure) => Err(*failure),
            other => panic!("a put was answered with {other:?}"),
        }
    }

    pub async fn delete(
        &self,
        via: NodeId,
        key: &str,
        context: &Bytes,
        with: &With,
    ) -> Result<Stored, Failure> {
        let delete = Delete {
            key: Bytes::copy_from_slice(key.as_bytes()),
            context: context.clone(),
            quorum: with.quorum(),
            hops: 0,
        };
        match self.call(via, Request::Delete(delete), with.timeout_ms).await {
            Reply::Deleted(stored) => Ok(stored),
            Reply::Failed(failure) => Err(*failure),
            other => panic!("a delete was answered with {other:?}"),
        }
    }

    pub async fn get(&self, via: NodeId, key: &str, with: &With) -> Result<Found, Failure> {
        let get = Get {
            key: Bytes::copy_from_slice(key.as_bytes()),
            quorum: with.quorum(),
            repair: with.repair,
        };
        match self.call(via, Request::Get(get), with.timeout_ms).await {
            Reply::Found(found) => Ok(found),
            Reply::Failed(failure) => Err(*failure),
            other => panic!("a get was answered with {other:?}"),
        }
    }

    pub async fn status(&self, via: NodeId) -> NodeStatus {
        self.says_of_itself(via).await.expect("it is not about to end")
    }

    /// As [`Cluster::status`], for a node that may be about to end.
    pub async fn says_of_itself(&self, via: NodeId) -> Result<NodeStatus, Failure> {
        match self.call(via, Request::Status(StatusQuery {}), 1000).await {
            Reply::Status(status) => Ok(*status),
            Reply::Failed(failure) => Err(*failure),
            other => panic!("a status query was answered with {other:?}"),
        }
    }
}

/// No context: concurrent with everything.
pub fn blind() -> Bytes {
    Bytes::new()
}

/// The values of a read, as text, sorted.
pub fn values(found: &Found) -> Vec<String> {
    let siblings = found.siblings().expect("lengths add up");
    let mut values: Vec<String> =
        siblings.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
    values.sort();
    values
}
