//! The cluster of a run: real nodes, each on a machine whose parts can fail.
//!
//! A [`Machine`] outlives the nodes that run on it: its disk, its clock, and what is known of their past. Whatever happens
//! to it happens here, and only here; what shall happen is decided in [`crate::faults`].

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use atoll_antientropy::{Register, Secret};
use atoll_node::{
    FixedMembers, HintLimits, Node, Parts, Past, SCRUB_PERIOD, SimulatedClock,
    storage::{
        Space, StoreError,
        commit::{Disk, Pace},
        faulty::{Faults, FaultyStore},
        mark::DurableMark,
        memory::MemoryStore,
        record::Record,
        rows,
    },
};
use atoll_ring::{
    ClusterId, Epoch, Member, MemberState, NodeId, Partition, Partitions, Token, View,
};
use atoll_transport::{Answer, Caller, Handler as _, chance::Chance, memory::Network};
use atoll_wire::{BucketId, Envelope, NodeStatus, Reply, Request, Role, Roles, StatusQuery};
use bytes::Bytes;
use tokio::{sync::Notify, task::JoinHandle};

/// Copies of each key.
pub const COPIES: u8 = 3;

/// How long a sync takes on a healthy disk.
pub const SYNC: Duration = Duration::from_millis(2);

/// Partitions of the ring: the fewest that are allowed, so that keys share them.
const PARTITIONS: u32 = 64;

/// What is on the walls when a run begins.
const WALL_MS: u64 = 1_700_000_000_000;

/// Nodes n1 to nN on machines of their own.
pub struct Cluster {
    /// What connects them.
    pub network: Arc<Network>,
    /// The one view of a run.
    pub view: Arc<View>,
    /// For nodes that start from now on.
    hint_limits: HintLimits,
    bucket: BucketId,
    /// Some node has just begun to serve.
    pub risen: Arc<Notify>,
    machines: BTreeMap<NodeId, Machine>,
}

/// What a node runs on.
pub struct Machine {
    /// What its disk holds.
    pub store: Arc<MemoryStore>,
    /// How fast its disk is.
    pub pace: Pace,
    /// What it was told last to have on its disk for certain; lies beside the store.
    mark: DurableMark,
    /// What it takes for the time of day.
    pub clock: Arc<SimulatedClock>,
    /// What went wrong with the disk in this life.
    pub faults: Arc<Faults>,
    /// What is known of the memory of the next life.
    pub past: Past,
    life: Option<Life>,
}

/// From a start to a crash or stop.
struct Life {
    node: Arc<Node>,
    writer: JoinHandle<()>,
    rising: JoinHandle<()>,
}

impl Cluster {
    /// Machines for so many nodes, none of which runs yet.
    pub fn new(nodes: u32, hint_limits: HintLimits, chance: &mut Chance) -> Self {
        let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let member = |id| Member {
            id: NodeId(id),
            incarnation: 0,
            address,
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        };
        let members = (1..=nodes).map(member).collect();
        let partitions = Partitions::new(PARTITIONS).expect("a power of two");
        let (view, _) = View::create(ClusterId([7; 16]), partitions, COPIES, members)
            .expect("enough nodes for the copies");
        let machine = |id| (NodeId(id), Machine::new());
        Cluster {
            network: Network::of_seed(chance.draw()),
            view: Arc::new(view),
            hint_limits,
            bucket: BucketId::default_bucket(COPIES),
            risen: Arc::new(Notify::new()),
            machines: (1..=nodes).map(machine).collect(),
        }
    }

    /// All nodes, whether they run or not.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    /// The nodes that run; paused ones do.
    pub fn up(&self) -> Vec<NodeId> {
        let machines = self.machines.iter();
        machines.filter(|(_, machine)| machine.life.is_some()).map(|(id, _)| *id).collect()
    }

    /// Whether it runs.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.machines[&id].life.is_some()
    }

    /// One machine.
    pub fn machine(&self, id: NodeId) -> &Machine {
        &self.machines[&id]
    }

    /// One machine, to be changed.
    pub fn machine_mut(&mut self, id: NodeId) -> &mut Machine {
        self.machines.get_mut(&id).expect("a node of this cluster")
    }

    /// What a node needs for a new life on whatever its disk holds. Making it takes virtual time, in which the cluster must
    /// not be held: see [`Start::done`].
    pub fn start(&mut self, id: NodeId) -> Start {
        let machine = self.machines.get_mut(&id).expect("a node of this cluster");
        machine.faults = Faults::new();
        let store = Arc::new(FaultyStore::new(machine.store.clone(), machine.faults.clone()));
        Start {
            id,
            store,
            pace: machine.pace.clone(),
            mark: machine.mark.clone(),
            clock: machine.clock.clone(),
            past: std::mem::replace(&mut machine.past, Past::Whole),
            hint_limits: self.hint_limits,
            view: self.view.clone(),
            network: self.network.clone(),
        }
    }

    /// The node runs from now on.
    pub fn started(&mut self, started: Started) {
        let Started { node, writer } = started;
        let machine = self.machines.get_mut(&node.id()).expect("a node of this cluster");
        assert!(machine.life.is_none(), "{} lives once", node.id());
        self.network.plug(node.clone());
        let rising = node.clone();
        // it may have to wait for others; its own storage's failures are seen elsewhere
        let risen = self.risen.clone();
        let rising = tokio::spawn(async move {
            if rising.rise().await.is_ok() {
                risen.notify_one();
            }
        });
        machine.life = Some(Life { node, writer, rising });
    }

    /// Power loss: of what was not synced the first few batches survive.
    pub fn crash(&mut self, id: NodeId, spared: usize) {
        self.end(id);
        self.machines[&id].store.crash(spared);
    }

    /// The node runs no longer; its disk has what was synced and what was not.
    pub fn end(&mut self, id: NodeId) {
        self.network.unplug(id);
        if let Some(life) = self.machine_mut(id).life.take() {
            life.node.halt();
            life.rising.abort();
            life.writer.abort();
        }
    }

    /// The running node.
    pub fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.machines[&id].life.as_ref().map(|life| life.node.clone())
    }

    /// How a running node says it is; nothing if it is about to end.
    pub fn status(&self, id: NodeId) -> Option<NodeStatus> {
        let node = self.node(id)?;
        let envelope = Envelope {
            epoch: self.view.epoch(),
            left_ms: 1000,
            operation: 0,
            bucket: self.bucket(),
            role: Role::Operator,
        };
        let caller = Caller { roles: Roles::of(&[Role::Operator]), node: None };
        match node.handle(caller, envelope, Request::Status(StatusQuery {})) {
            Answer::Now(Reply::Status(status)) => Some(*status),
            Answer::Now(_) | Answer::Later(_) => None,
        }
    }

    /// The only bucket.
    pub fn bucket(&self) -> BucketId {
        self.bucket
    }

    /// Who owns a key.
    pub fn owners(&self, key: &str) -> Vec<NodeId> {
        self.view.owners(self.partition(key)).all()
    }

    /// Where a key lies.
    pub fn partition(&self, key: &str) -> Partition {
        self.view.partition(Token::of(&self.bucket.0, key.as_bytes()))
    }

    /// The row of a key.
    pub fn row(&self, key: &str) -> Bytes {
        let token = Token::of(&self.bucket.0, key.as_bytes());
        rows::data(self.view.partition(token), token, self.bucket, key.as_bytes())
    }

    /// The epoch that clients plan with.
    pub fn epoch(&self) -> Epoch {
        self.view.epoch()
    }
}

impl Machine {
    fn new() -> Self {
        Machine {
            store: Arc::new(MemoryStore::new()),
            pace: Pace::from(SYNC),
            mark: DurableMark::in_memory(),
            clock: Arc::new(SimulatedClock::starting_at(WALL_MS)),
            faults: Faults::new(),
            past: Past::None,
            life: None,
        }
    }
}

/// A node that is about to start.
pub struct Start {
    id: NodeId,
    store: Arc<FaultyStore>,
    pace: Pace,
    mark: DurableMark,
    clock: Arc<SimulatedClock>,
    past: Past,
    hint_limits: HintLimits,
    view: Arc<View>,
    network: Arc<Network>,
}

/// A node that has started, and nobody can reach yet.
pub struct Started {
    node: Arc<Node>,
    writer: JoinHandle<()>,
}

impl Start {
    /// Starts it.
    ///
    /// # Errors
    /// Its storage failed, or what lies there is no data directory.
    pub async fn done(self) -> Result<Started, StoreError> {
        let (disk, writer) = Disk::on_task(self.store, self.pace, Some(self.mark))?;
        let parts = Parts {
            id: self.id,
            view: self.view,
            secret: Secret([3; 32]),
            transport: self.network.port(self.id),
            log: Arc::new(FixedMembers),
            disk: Arc::new(disk),
            clock: self.clock,
            past: self.past,
            hint_limits: self.hint_limits,
            scrub_period: SCRUB_PERIOD,
            certificate: Arc::default(),
        };
        Ok(Started { node: Node::start(parts).await?, writer })
    }
}

/// What lies in a row of a store.
pub enum Lies {
    /// A state, of this key.
    State(Register),
    /// Something that is not what was written.
    Damaged,
}

/// What a data row or the value of a hint's row holds.
pub fn read(space: Space, row: &Bytes, value: &Bytes) -> (Bytes, Lies) {
    let data_row = match space {
        Space::Hints => rows::data_of_hint(row),
        Space::Data | Space::Meta | Space::Digests | Space::Quarantine => row.clone(),
    };
    let state = Record::decode(row, value).and_then(|record| record.register());
    (data_row, state.map_or(Lies::Damaged, Lies::State))
}

/// The key in the name of a data row, as text.
pub fn key_of(data_row: &Bytes) -> String {
    let key = rows::bucket_and_key(data_row).map(|(_, key)| key).unwrap_or_default();
    String::from_utf8_lossy(&key).into_owned()
}
