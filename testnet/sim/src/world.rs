//! What sessions and faults of a run share. It is borrowed for a moment, never across an await.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use atoll_antientropy::{Actor, Dot, State};
use atoll_check::{Event, Held, Op, Value, told};
use atoll_node::storage::Space;
use atoll_ring::{NodeId, Owners};
use atoll_wire::DotParts;
use bytes::Bytes;

use crate::{
    atlas::{self, Safety},
    cluster::{Cluster, Lies, read},
    figures::Figures,
    kinds,
    recorder::Recorder,
};

/// Everything there is in a run.
pub struct World {
    /// The nodes.
    pub cluster: Cluster,
    /// What happened.
    pub recorder: Recorder,
    /// What happened, counted.
    pub figures: Figures,
    /// Broken promises that the simulator sees by itself.
    pub broken: Vec<String>,
    /// The keys of registers that clients use.
    pub keys: Vec<String>,
    /// The keys of other kinds, each with its bucket before it.
    pub kind_keys: Vec<String>,
    /// By key of another kind, the tokens that answers brought, the newest last; not all of them.
    pub tokens: BTreeMap<String, Vec<Bytes>>,
    /// By key, the answers that brought a context, in the order in which they were heard.
    pub told: BTreeMap<String, Vec<Told>>,
    /// A node that has lost its memory and serves again: clients like to ask it.
    pub newcomer: Option<NodeId>,
    /// A node that moves something and is in trouble: clients like to write through it.
    pub troubled: Option<NodeId>,
    /// Nodes that have lost memory and are not whole again; whether they serve already.
    pub forgetful: BTreeMap<NodeId, bool>,
    /// Records that were damaged and are not whole again.
    pub damaged: BTreeSet<(NodeId, Bytes)>,
    /// Nodes that their operator will switch off for ever, or is about to start: no other fault shall come in between.
    pub spoken_for: BTreeSet<NodeId>,
    /// Whether clients shall come to an end.
    pub is_over: bool,
    last_op: Op,
    /// Acknowledged writes that waited for no fsync, and that a power loss may still take.
    unsynced: Vec<(Op, String, Dot)>,
}

/// What a client may hand back.
#[derive(Clone)]
pub struct Told {
    /// The operation whose answer it came with.
    pub op: Op,
    /// Who heard it.
    pub session: u32,
    /// The token.
    pub context: Bytes,
}

impl World {
    /// Before anything has happened.
    pub fn new(cluster: Cluster, recorder: Recorder, keys: Vec<String>) -> Self {
        World {
            cluster,
            recorder,
            figures: Figures::default(),
            broken: Vec::new(),
            told: keys.iter().map(|key| (key.clone(), Vec::new())).collect(),
            keys,
            kind_keys: Vec::new(),
            tokens: BTreeMap::new(),
            newcomer: None,
            troubled: None,
            forgetful: BTreeMap::new(),
            damaged: BTreeSet::new(),
            spoken_for: BTreeSet::new(),
            is_over: false,
            last_op: 0,
            unsynced: Vec::new(),
        }
    }

    /// The keys of registers and of all other kinds.
    pub fn all_keys(&self) -> impl Iterator<Item = &String> {
        self.keys.iter().chain(&self.kind_keys)
    }

    /// The number of a new operation.
    pub fn next_op(&mut self) -> Op {
        self.last_op += 1;
        self.last_op
    }

    /// A promise is broken.
    pub fn breaks(&mut self, what: String) {
        self.recorder.say(format_args!("BROKEN: {what}"));
        self.broken.push(what);
    }

    /// A write was acknowledged that waited for no fsync: it may be lost with the power, and may be lost already.
    pub fn rests_on_memory(&mut self, op: Op, key: &str, dot: DotParts) {
        let dot = Dot { actor: Actor { node: dot.0, incarnation: dot.1 }, counter: dot.2 };
        self.unsynced.push((op, key.to_owned(), dot));
        self.excuse_what_is_gone();
    }

    /// After a power loss, or damage to what was not synced yet: writes that waited for no fsync, and that no disk shows any more, are lost without blame.
    pub fn excuse_what_is_gone(&mut self) {
        let (cluster, mut gone) = (&self.cluster, Vec::new());
        self.unsynced.retain(|(op, key, dot)| {
            let safety = atlas::safety(cluster, key, dot);
            if safety == Safety::Gone {
                gone.push(*op);
            }
            safety == Safety::Shown
        });
        for op in gone {
            self.figures.exempt += 1;
            self.recorder.event(Event::Exempt {
                op,
                why: "all that held it lost power, or that record".into(),
            });
        }
    }

    /// Whether the cluster can bear that one more node loses its memory: enough others remember which incarnations there
    /// were, and some other owner of each key knows for sure what it says. If all owners of a key doubt their copies at the
    /// same time, the doubt stays until somebody acts, and rightly: see `quarantine` in the node.
    pub fn may_forget(&self, node: NodeId) -> bool {
        let members = self.cluster.members();
        let without_memory = |member: &&NodeId| {
            self.forgetful.contains_key(member) || self.cluster.is_gone(**member)
        };
        let minority = (members.len() - 1) / 2;
        let already = members.iter().filter(without_memory).count();
        (already < minority || self.forgetful.contains_key(&node))
            && self.leaves_somebody_sure(node)
    }

    /// Whether some other owner of each key that this node owns knows for sure what it says.
    pub fn leaves_somebody_sure(&self, node: NodeId) -> bool {
        let cluster = &self.cluster;
        let head = cluster.head();
        let sets =
            |key: &String| match head.owners(cluster.partition(key)).first(cluster.copies(key)) {
                Owners::One(set) => vec![set.to_vec()],
                Owners::Joint { old, new } => vec![old.to_vec(), new.to_vec()],
            };
        // a joining owner knows nothing for sure, so the old ones must do
        let held = self.all_keys().flat_map(|key| sets(key).into_iter().map(move |set| (key, set)));
        held.filter(|(_, set)| set.contains(&node)).all(|(key, set)| {
            set.into_iter().any(|other| {
                other != node
                    && !cluster.is_gone(other)
                    && !self.forgetful.contains_key(&other)
                    && !self.damaged.contains(&(other, cluster.row(key)))
            })
        })
    }

    /// Keys whose owners change, or have just changed.
    pub fn keys_on_the_move(&self) -> Vec<String> {
        let head = self.cluster.head();
        let lately = head.epoch().0.saturating_sub(3).max(1);
        let moves = |key: &&String| {
            let at = self.cluster.partition(key);
            head.moves().contains_key(&at) || head.last_changed(at).0 > lately
        };
        self.keys.iter().filter(moves).cloned().collect()
    }

    /// Nodes that run with an older ring than the newest.
    pub fn behind(&self) -> Vec<NodeId> {
        let head = self.cluster.head().epoch();
        let nodes = self.cluster.up().into_iter();
        let epoch = |node| self.cluster.node(node).map(|node| node.view().epoch());
        nodes.filter(|node| epoch(*node).is_some_and(|epoch| epoch < head)).collect()
    }

    /// What all disks hold: the end of the history.
    pub fn dump(&mut self) {
        self.recorder.say(format_args!("the ring is at epoch {}", self.cluster.head().epoch()));
        for node in self.cluster.nodes() {
            let rows = atlas::all_rows(&self.cluster.machine(node).store, Space::Data);
            let records = rows.into_iter().map(|(row, value)| {
                let (data_row, lies) = read(Space::Data, &row, &value);
                (self.cluster.name_of(&data_row), lies)
            });
            let records: Vec<(String, Lies)> = records.collect();
            // an owner without a record knows nothing
            let missing = self.all_keys().filter(|key| {
                self.cluster.owners(key).contains(&node)
                    && !records.iter().any(|(name, _)| name == *key)
            });
            let nothing = |key: &String| Lies::State(State::unknown(kinds::kind_of(key)));
            let missing: Vec<_> = missing.map(|key| (key.clone(), nothing(key))).collect();
            for (key, lies) in records.into_iter().chain(missing) {
                let owner = self.cluster.owners(&key).contains(&node);
                let event = match self.kind_keys.contains(&key) {
                    true => Event::Keeps(kinds::keeps(node, key, owner, &lies)),
                    false => Event::Held(held(node, key, owner, &lies)),
                };
                self.recorder.event(event);
            }
            if let Some(status) = self.cluster.status(node) {
                self.recorder.event(Event::Hints { node: node.0, count: status.hints });
            }
        }
    }
}

/// What a disk holds of a register.
fn held(node: NodeId, key: String, owner: bool, lies: &Lies) -> Held {
    let (readable, values, context) = match lies {
        Lies::Damaged => (false, Vec::new(), Vec::new()),
        Lies::State(state) => {
            let values = state.values().map(|(dot, value)| (value_in(value), told::dot(dot)));
            (true, values.collect(), told::known(state.context()))
        }
    };
    Held { node: node.0, key, owner, readable, values, context }
}

/// Starts the node of a machine, on what its disk holds. It stays down if that says that it is a member no longer.
pub async fn boot(world: &RefCell<World>, node: NodeId) {
    let start = {
        let world = &mut world.borrow_mut();
        if world.cluster.is_gone(node)
            || world.cluster.is_up(node)
            || world.cluster.is_starting(node)
        {
            return;
        }
        let start = world.cluster.start(node);
        let says =
            if start.is_some() { "starts" } else { "knows that it was removed, and stays down" };
        world.recorder.say(format_args!("{node} {says}"));
        start
    };
    let Some(start) = start else { return };
    match start.done().await {
        Ok(started) => world.borrow_mut().cluster.started(started),
        Err(error) => {
            let world = &mut world.borrow_mut();
            world.cluster.failed_to_start(node);
            world.breaks(format!("{node} cannot start: {error}"));
        }
    }
}

/// The number of the put that wrote these bytes: its digits stand first. What nobody wrote has a number nobody has.
pub fn value_in(bytes: &[u8]) -> Value {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = std::str::from_utf8(&bytes[..digits]).unwrap_or_default();
    text.parse().unwrap_or(Value::MAX)
}

/// The bytes that a put with this number writes.
pub fn bytes_of(value: Value, padding: usize) -> Bytes {
    let mut bytes = value.to_string().into_bytes();
    bytes.resize(bytes.len() + padding, b'.');
    bytes.into()
}
