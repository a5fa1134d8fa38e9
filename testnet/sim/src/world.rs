//! What sessions and faults of a run share. It is borrowed for a moment, never across an await.

use std::collections::BTreeMap;

use atoll_antientropy::{Actor, Dot};
use atoll_check::{self as check, Event, Held, Op, Value};
use atoll_node::storage::Space;
use atoll_ring::NodeId;
use atoll_wire::DotParts;
use bytes::Bytes;

use crate::{
    atlas::{self, Safety},
    cluster::{Cluster, Lies, key_of, read},
    figures::Figures,
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
    /// The keys that clients use.
    pub keys: Vec<String>,
    /// By key, the answers that brought a context, in the order in which they were heard.
    pub told: BTreeMap<String, Vec<Told>>,
    /// A node that has lost its memory and serves again: clients like to ask it.
    pub newcomer: Option<NodeId>,
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
            newcomer: None,
            is_over: false,
            last_op: 0,
            unsynced: Vec::new(),
        }
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

    /// After a power loss: writes that waited for no fsync, and that no disk shows any more, are lost without blame.
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
            self.recorder.event(Event::Exempt { op, why: "all that held it lost power".into() });
        }
    }

    /// What all disks hold: the end of the history.
    pub fn dump(&mut self) {
        for node in self.cluster.nodes() {
            for (row, value) in atlas::all_rows(&self.cluster.machine(node).store, Space::Data) {
                let (data_row, lies) = read(Space::Data, &row, &value);
                let key = key_of(&data_row);
                let owner = self.cluster.owners(&key).contains(&node);
                let held = Held {
                    node: node.0,
                    key,
                    owner,
                    readable: false,
                    values: Vec::new(),
                    context: Vec::new(),
                };
                let held = match lies {
                    Lies::Damaged => held,
                    Lies::State(state) => Held {
                        readable: true,
                        values: state
                            .values()
                            .map(|(dot, value)| (value_in(value), parts(&dot)))
                            .collect(),
                        context: state
                            .context()
                            .iter()
                            .map(|known| {
                                let actor = known.actor;
                                (actor.node, actor.incarnation, known.lo, known.hi)
                            })
                            .collect(),
                        ..held
                    },
                };
                self.recorder.event(Event::Held(held));
            }
            if let Some(status) = self.cluster.status(node) {
                self.recorder.event(Event::Hints { node: node.0, count: status.hints });
            }
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

/// As it stands in a history.
pub fn parts(dot: &Dot) -> check::Dot {
    (dot.actor.node, dot.actor.incarnation, dot.counter)
}
