//! The cluster of a run: real nodes, each on a machine whose parts can fail.
//!
//! A [`Machine`] outlives the nodes that run on it: its disk, its clock, and what is known of their past. Whatever happens
//! to it happens here, and only here; what shall happen is decided in [`crate::mischief`] and [`crate::operator`].
//!
//! Machines come and go with the ring. What the ring is nobody knows but the log: nodes have views of their own, each as
//! new as it has heard, and whoever judges takes the [head](Cluster::head) of the log.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use atoll_antientropy::{Context, ContextToken, Kind, Secret, State};
use atoll_node::{
    HintLimits, Node, Parts, Past, SCRUB_PERIOD, SimulatedClock,
    membership::seeded::SeededLog,
    storage::{
        Space, Store as _, StoreError,
        commit::{Disk, Pace},
        faulty::{Faults, FaultyStore},
        mark::DurableMark,
        memory::MemoryStore,
        meta,
        record::Record,
        rows,
    },
};
use atoll_ring::{
    ClusterId, Entry, Member, MemberState, NodeId, Partition, Partitions, Token, View,
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

/// Kinds of which a run has a bucket beside that of registers.
pub const KINDS: [Kind; 6] =
    [Kind::Counter, Kind::Set, Kind::Flag, Kind::Max, Kind::Lww, Kind::Map];

/// What all nodes seal tokens with.
const SECRET: Secret = Secret([3; 32]);

/// What is on the walls when a run begins.
const WALL_MS: u64 = 1_700_000_000_000;

/// Nodes on machines of their own: n1 to nN in the beginning, and those that join.
pub struct Cluster {
    /// What connects them.
    pub network: Arc<Network>,
    /// What decides what the ring is.
    pub log: Arc<SeededLog>,
    /// For nodes that start from now on.
    hint_limits: HintLimits,
    /// Those of the other kinds, whether nodes know them or not: their ids follow from what they are.
    buckets: Vec<(Kind, BucketId)>,
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
    /// The view that its operator gave it. Once it has one of its own on its disk, it goes by that.
    first: Arc<View>,
    /// A node is on its way to a life here.
    is_starting: bool,
    /// Nothing will ever run here again, and nobody looks at its disk.
    is_gone: bool,
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
        let member = |id| Member {
            id: NodeId(id),
            incarnation: 0,
            address: address_of(NodeId(id)),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        };
        let members = (1..=nodes).map(member).collect();
        let (view, _) = View::create(ClusterId([7; 16]), partitions(), COPIES, members)
            .expect("enough nodes for the copies");
        let first = Arc::new(view.clone());
        let machine = |id| (NodeId(id), Machine::new(first.clone()));
        Cluster {
            network: Network::of_seed(chance.draw()),
            log: SeededLog::new(view, chance.draw()),
            hint_limits,
            buckets: KINDS.into_iter().map(|kind| (kind, bucket_of(kind))).collect(),
            risen: Arc::new(Notify::new()),
            machines: (1..=nodes).map(machine).collect(),
        }
    }

    /// The ring as it has been agreed on. Nodes may not know it yet.
    pub fn head(&self) -> Arc<View> {
        self.log.shared_head()
    }

    /// All nodes whose machines are there, whether they run or not.
    pub fn nodes(&self) -> Vec<NodeId> {
        let there = self.machines.iter().filter(|(_, machine)| !machine.is_gone);
        there.map(|(id, _)| *id).collect()
    }

    /// The members of the ring, some of which may be gone for ever.
    pub fn members(&self) -> Vec<NodeId> {
        self.head().members().iter().map(|member| member.id).collect()
    }

    /// Whether it is a member of the ring.
    pub fn is_member(&self, id: NodeId) -> bool {
        self.head().member(id).is_some()
    }

    /// A machine for a new member. Its operator gives it the ring as it is now.
    pub fn add_machine(&mut self, id: NodeId) {
        let before = self.machines.insert(id, Machine::new(self.head()));
        assert!(before.is_none(), "{id} was given to a node before");
    }

    /// The machine is switched off for ever, and its disk with it.
    pub fn remove_machine(&mut self, id: NodeId) {
        self.end(id);
        self.machine_mut(id).is_gone = true;
        self.network.wake(id);
    }

    /// Whether nothing will ever run there again.
    pub fn is_gone(&self, id: NodeId) -> bool {
        self.machines.get(&id).is_none_or(|machine| machine.is_gone)
    }

    /// Whether a node is just being started there.
    pub fn is_starting(&self, id: NodeId) -> bool {
        self.machines[&id].is_starting
    }

    /// This node leads the log from now on. It has all that was agreed on, as whoever is elected has, and takes that over.
    pub fn lead(&self, leader: NodeId) {
        self.log.lead(Some(leader));
        let Some(node) = self.node(leader) else { return };
        let (head, known) = (self.log.head(), node.view().epoch());
        let missed: Vec<Entry> = self.log.entries_since(known);
        if !missed.is_empty() {
            tokio::spawn(async move { node.adopt(head, &missed, Vec::new()).await });
        }
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

    /// What a node needs for a new life on whatever its disk holds; nothing if what lies there says that it is a member no
    /// longer. Making it takes virtual time, in which the cluster must not be held: see [`Start::done`].
    pub fn start(&mut self, id: NodeId) -> Option<Start> {
        let machine = self.machines.get_mut(&id).expect("a node of this cluster");
        assert!(!machine.is_starting && !machine.is_gone, "{id} starts once");
        let view = stored_view(&machine.store).map_or_else(|| machine.first.clone(), Arc::new);
        view.member(id)?;
        machine.is_starting = true;
        machine.faults = Faults::new();
        let store = Arc::new(FaultyStore::new(machine.store.clone(), machine.faults.clone()));
        Some(Start {
            id,
            store,
            pace: machine.pace.clone(),
            mark: machine.mark.clone(),
            clock: machine.clock.clone(),
            past: std::mem::replace(&mut machine.past, Past::Whole),
            hint_limits: self.hint_limits,
            view,
            log: self.log.clone(),
            network: self.network.clone(),
        })
    }

    /// It did not start.
    pub fn failed_to_start(&mut self, id: NodeId) {
        self.machine_mut(id).is_starting = false;
    }

    /// The node runs from now on.
    pub fn started(&mut self, started: Started) {
        let Started { node, writer } = started;
        let machine = self.machines.get_mut(&node.id()).expect("a node of this cluster");
        machine.is_starting = false;
        if machine.is_gone {
            node.halt();
            writer.abort();
            return;
        }
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

    /// The node runs no longer; its disk has what was synced and what was not. It leads no longer either: when it is back,
    /// it may lack what was agreed on last, and has to be elected like anybody.
    pub fn end(&mut self, id: NodeId) {
        self.network.unplug(id);
        if self.log.leader() == Some(id) {
            self.log.lead(None);
        }
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
            epoch: node.view().epoch(),
            left_ms: 1000,
            operation: 0,
            bucket: BucketId::default_bucket(COPIES),
            trace: false,
            role: Role::Operator,
        };
        let caller = Caller { roles: Roles::of(&[Role::Operator]), node: None };
        match node.handle(caller, envelope, Request::Status(StatusQuery {})) {
            Answer::Now(Reply::Status(status)) => Some(*status),
            Answer::Now(_) | Answer::Later(_) => None,
        }
    }

    /// The bucket that a key lies in by its name, and the rest of it: before a slash is the kind of the bucket, a few names are in
    /// [`SECOND`], and all others in the bucket that is always there.
    pub fn locate<'a>(&self, name: &'a str) -> (BucketId, &'a str) {
        let Some((word, key)) = name.split_once('/') else {
            return match in_second(name) {
                true => (BucketId::of(SECOND, Kind::Register.word(), SECOND_COPIES, 0), name),
                false => (BucketId::default_bucket(COPIES), name),
            };
        };
        let mut buckets = self.buckets.iter();
        let found = buckets.find(|(kind, _)| kind.word() == word).expect("a bucket of this run");
        (found.1, key)
    }

    /// The bucket that a key lies in.
    pub fn bucket(&self, name: &str) -> BucketId {
        self.locate(name).0
    }

    /// How many copies of a key there are.
    pub fn copies(&self, name: &str) -> u8 {
        if in_second(name) { SECOND_COPIES } else { COPIES }
    }

    /// The name of the key in a data row, as clients and histories call it.
    pub fn name_of(&self, data_row: &Bytes) -> String {
        let key = key_of(data_row);
        let bucket = rows::bucket_and_key(data_row).map(|(bucket, _)| bucket);
        match self.buckets.iter().find(|(_, id)| Some(*id) == bucket) {
            Some((kind, _)) => format!("{kind}/{key}"),
            None => key,
        }
    }

    /// What a token says; nothing if it says nothing.
    pub fn context_in(&self, name: &str, token: &Bytes) -> Option<Context> {
        if token.is_empty() {
            return None;
        }
        let (bucket, key) = self.locate(name);
        let token = ContextToken::from(token.clone());
        let cluster = self.head().cluster().0;
        Some(token.open(&SECRET, &cluster, &bucket.0, key.as_bytes()).expect("a node sealed it"))
    }

    /// Who owns a key, with all who will while it moves: those whose records count.
    pub fn owners(&self, key: &str) -> Vec<NodeId> {
        self.head().owners(self.partition(key)).first(self.copies(key)).all()
    }

    fn token(&self, key: &str) -> Token {
        let (bucket, key) = self.locate(key);
        Token::of(&bucket.0, key.as_bytes())
    }

    /// Where a key lies.
    pub fn partition(&self, key: &str) -> Partition {
        partitions().of(self.token(key))
    }

    /// The row of a key.
    pub fn row(&self, key: &str) -> Bytes {
        let token = self.token(key);
        let (bucket, key) = self.locate(key);
        rows::data(partitions().of(token), token, bucket, key.as_bytes())
    }
}

/// The bucket that clients make when a run begins: two copies, so that the third owner of a partition holds nothing of it.
pub const SECOND: &str = "second";

/// Copies of each key in it.
pub const SECOND_COPIES: u8 = 2;

/// Its keys. All others are in the bucket that every cluster has.
pub const SECOND_KEYS: [&str; 3] = ["p", "q", "r"];

/// Whether a key lies in it.
pub fn in_second(key: &str) -> bool {
    SECOND_KEYS.contains(&key)
}

/// The bucket of a kind. It is called after it.
fn bucket_of(kind: Kind) -> BucketId {
    BucketId::of(kind.word(), kind.word(), COPIES, 0)
}

fn partitions() -> Partitions {
    Partitions::new(PARTITIONS).expect("a power of two")
}

/// Where the others reach a node: no two have the same address.
pub fn address_of(id: NodeId) -> SocketAddr {
    let port = u16::try_from(id.0).expect("few nodes");
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The view that a node has written down.
pub fn stored_view(store: &MemoryStore) -> Option<View> {
    let sealed = store.get(Space::Meta, rows::VIEW).expect("memory does not fail")?;
    let bytes = meta::open(rows::VIEW, &sealed).expect("nobody damages this row");
    Some(postcard::from_bytes(&bytes).expect("a node writes whole views"))
}

impl Machine {
    fn new(first: Arc<View>) -> Self {
        Machine {
            store: Arc::new(MemoryStore::new()),
            pace: Pace::from(SYNC),
            mark: DurableMark::in_memory(),
            clock: Arc::new(SimulatedClock::starting_at(WALL_MS)),
            faults: Faults::new(),
            past: Past::None,
            first,
            is_starting: false,
            is_gone: false,
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
    log: Arc<SeededLog>,
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
            secret: SECRET,
            transport: self.network.port(self.id),
            log: self.log.port(self.id),
            disk: Arc::new(disk),
            clock: self.clock,
            past: self.past,
            hint_limits: self.hint_limits,
            scrub_period: SCRUB_PERIOD,
            clock_bound: atoll_node::CLOCK_BOUND,
            certificate: Arc::default(),
        };
        Ok(Started { node: Node::start(parts).await?, writer })
    }
}

/// What lies in a row of a store.
pub enum Lies {
    /// A state, of this key.
    State(State),
    /// Something that is not what was written.
    Damaged,
}

/// What a data row or the value of a hint's row holds.
pub fn read(space: Space, row: &Bytes, value: &Bytes) -> (Bytes, Lies) {
    let data_row = match space {
        Space::Hints => rows::data_of_hint(row),
        Space::Data | Space::Meta | Space::Digests | Space::Quarantine => row.clone(),
    };
    let lies = Record::decode(row, value).map(|record| Lies::State(record.state));
    (data_row, lies.unwrap_or(Lies::Damaged))
}

/// The key in the name of a data row, as text.
pub fn key_of(data_row: &Bytes) -> String {
    let key = rows::bucket_and_key(data_row).map(|(_, key)| key).unwrap_or_default();
    String::from_utf8_lossy(&key).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seed 669: the leader's disk broke while it took over what had just been agreed on. It was back before anybody else
    /// could be elected, led on with its old view, and nobody ever learned of the change: the ring never came to rest. Real
    /// logs know no such leader.
    #[test]
    fn whoever_ends_leads_no_longer() {
        let mut cluster = Cluster::new(3, HintLimits::default(), &mut Chance::of_seed(1));
        let (leader, other) = (NodeId(1), NodeId(2));
        cluster.lead(leader);
        cluster.end(other);
        assert_eq!(cluster.log.leader(), Some(leader));
        cluster.crash(leader, 0);
        assert_eq!(cluster.log.leader(), None);
    }
}
