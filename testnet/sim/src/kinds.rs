//! The clients of a run that use values of the other kinds: counters, sets, flags, maxima, lww values, and maps of all these.
//!
//! They write with the context of what they saw last, with somebody else's, or with none; count as sessions of counters, and
//! repeat elsewhere, under the same number, what nobody answered. Every second one works in a session: with one answer and
//! one acknowledgement, hopping from node to node, and sending along what it has seen. What they ask and hear goes into the
//! history place by place, with the exact contexts that tokens hold.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use atoll_antientropy::{Field, FieldChange, Increment, Kind, Operation, Reading};
use atoll_check::{
    Effect as Left, Event, Levels, Op,
    history::kinds::{Answered, Asked, Keeps, Told},
    told::{known, shown, touches},
};
use atoll_ring::{Epoch, Level, NodeId, Quorum, QuorumRequest};
use atoll_transport::chance::Chance;
use atoll_wire::{
    Effect, Envelope, ErrorCode, Failure, Get, Lane, Repair, Reply, Request, Role, Write,
};
use bytes::Bytes;

use crate::{
    cluster::{COPIES, Lies},
    session::CLIENTS_FROM,
    world::{World, bytes_of, value_in},
};

/// Clients of other kinds in a run.
pub const CLIENTS: u32 = 4;

/// The keys they use. Nothing but increments above 0 happens to the first counter, so that its readers can be held to
/// more; and of the maps the second has nothing that cannot be cleared.
const KEYS: [&str; 9] =
    ["counter/up", "counter/a", "set/a", "set/b", "flag/a", "max/a", "lww/a", "map/a", "map/b"];

/// How long a client waits beyond the time it gave its request.
const PATIENCE: Duration = Duration::from_millis(500);

/// Tokens of a key that are remembered for others.
const TOKENS_MAX: usize = 20;

/// The clients, the first of them with this number. From now on their keys belong to the run.
pub fn clients(world: &mut World, chance: &mut Chance, first: u32) -> Vec<Client> {
    world.kind_keys = KEYS.map(str::to_owned).to_vec();
    let pause_ms = chance.of(&[150, 500, 1500]);
    let clients = (0..CLIENTS).map(|index| {
        let in_session = index % 2 == 1;
        let number = first + 1 + index;
        if in_session {
            world.recorder.event(Event::InSession { session: number });
        }
        Client::new(number, in_session, chance.split(), pause_ms)
    });
    clients.collect()
}

/// One client.
pub struct Client {
    number: u32,
    in_session: bool,
    chance: Chance,
    pause_ms: u64,
    epoch: Epoch,
    /// The newest token by key.
    seen: BTreeMap<String, Bytes>,
    /// By counter: the last number of a change, and what was counted with it.
    counted: BTreeMap<String, (u64, i64)>,
}

/// What came of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Done,
    NotApplied,
    Unknown,
}

/// What is asked of a key.
struct Ask {
    key: String,
    /// Nothing: it is a read.
    change: Option<Operation>,
    context: Bytes,
    quorum: QuorumRequest,
    repair: Repair,
    timeout_ms: u32,
}

impl Client {
    fn new(number: u32, in_session: bool, chance: Chance, pause_ms: u64) -> Self {
        let (seen, counted) = (BTreeMap::new(), BTreeMap::new());
        Client { number, in_session, chance, pause_ms, epoch: Epoch(0), seen, counted }
    }

    /// Asks until the run is over.
    pub async fn run(mut self, world: &RefCell<World>) {
        loop {
            let pause = if self.chance.below(3) == 0 { 3 } else { self.pause_ms };
            tokio::time::sleep(Duration::from_millis(self.chance.below(pause))).await;
            if world.borrow().is_over {
                return;
            }
            let key = self.chance.of(&KEYS).to_owned();
            if self.chance.happens(400) {
                let ask = self.ask(&world.borrow(), key, None);
                self.send(world, &ask).await;
            } else {
                self.change(world, key).await;
            }
        }
    }

    /// Changes a key, and repeats what nobody knows of: the same increment elsewhere.
    async fn change(&mut self, world: &RefCell<World>, key: String) {
        let before = self.counted.get(&key).copied().unwrap_or_default();
        let op = world.borrow_mut().next_op();
        let change = self.draw(&key, op);
        let counts = matches!(&change, Operation::Increment(Increment::Session { .. }));
        let ask = self.ask(&world.borrow(), key.clone(), Some(change));
        let mut came = self.send_as(world, &ask, op).await;
        for _ in 0..2 {
            if counts && came == Came::Unknown && self.chance.happens(600) {
                came = match self.send(world, &ask).await {
                    Came::Done => Came::Done,
                    Came::NotApplied | Came::Unknown => Came::Unknown, // the first one may be there
                };
            }
        }
        if counts && came == Came::NotApplied {
            self.counted.entry(key).or_default().1 = before.1; // its number stays used
        }
    }

    fn ask(&mut self, world: &World, key: String, change: Option<Operation>) -> Ask {
        let chance = &mut self.chance;
        let told = world.tokens.get(&key).filter(|told| !told.is_empty());
        let context = match (chance.below(10), told) {
            (0..=5, _) => self.seen.get(&key).cloned(),
            (6, Some(told)) => Some(chance.of(told)),
            _ => None,
        };
        let need = match self.in_session {
            true => chance.of(&[1, 1, 1, 1, 1, 2]),
            false => chance.of(&[1, 2, 2, 2, 3]),
        };
        let sloppy = chance.below(2) > 0;
        let level = |count: u8| Some(Level::Count(count));
        let quorum = match &change {
            None => QuorumRequest { r: level(need), sloppy: Some(sloppy), ..Default::default() },
            Some(_) => QuorumRequest {
                w: level(need),
                dw: level(chance.of(&[need, need, 1])),
                sloppy: Some(sloppy),
                ..Default::default()
            },
        };
        Ask {
            key,
            context: change.as_ref().and(context).unwrap_or_default(),
            change,
            quorum,
            repair: chance.of(&[Repair::Async, Repair::Async, Repair::None]),
            timeout_ms: chance.of(&[150, 400, 1000, 2000]),
        }
    }

    /// A change that suits the key. Values are the number of the operation.
    fn draw(&mut self, key: &str, op: Op) -> Operation {
        let kind = kind_of(key);
        match key {
            "counter/up" => self.count(key, 1),
            "map/a" | "map/b" if self.chance.happens(30) => Operation::Clear,
            "map/a" | "map/b" => self.update(key, op, 1),
            _ => self.of_kind(key, kind, op),
        }
    }

    /// An increment of this session, or one that counts whenever it is carried out.
    fn count(&mut self, key: &str, by: i64) -> Operation {
        Operation::Increment(if self.chance.happens(600) {
            let counted = self.counted.entry(key.to_owned()).or_default();
            *counted = (counted.0 + 1, counted.1 + by);
            let (sequence, total) = *counted;
            Increment::Session { session: self.number.into(), sequence, total }
        } else {
            Increment::Once(by)
        })
    }

    fn of_kind(&mut self, key: &str, kind: Kind, op: Op) -> Operation {
        let put = || Operation::Put { value: bytes_of(op, 0), expires_ms: None };
        let chance = &mut self.chance;
        match kind {
            Kind::Counter if chance.happens(60) => Operation::Clear,
            Kind::Counter => {
                let by = chance.of(&[1, 1, 2, 5, -1, -3]);
                match key.starts_with("counter/") {
                    true => self.count(key, by),
                    false => Operation::Increment(Increment::Once(by)),
                }
            }
            Kind::Set => match chance.below(100) {
                0..=2 => Operation::Clear,
                3..=54 => Operation::Add(self.elements(op)),
                _ => Operation::Remove(self.elements(op)),
            },
            Kind::Flag => chance.of(&[
                Operation::Enable,
                Operation::Enable,
                Operation::Disable,
                Operation::Clear,
            ]),
            Kind::Max => {
                let op = i64::try_from(op).expect("small");
                Operation::Raise(op - chance.below(200) as i64)
            }
            Kind::Lww if chance.happens(100) => Operation::Clear,
            Kind::Lww | Kind::Register => put(),
            Kind::Map => self.update(key, op, 2),
        }
    }

    /// A few elements of a time: each is fought over for a while and then left as it is.
    fn elements(&mut self, op: Op) -> Vec<Bytes> {
        let chance = &mut self.chance;
        let time = op / 60 + chance.below(2);
        let mut all: Vec<Bytes> = (0..=chance.below(2))
            .map(|_| format!("{time}{}", chance.of(&["x", "y"])).into())
            .collect();
        all.dedup();
        all
    }

    fn update(&mut self, key: &str, op: Op, depth: u32) -> Operation {
        let mut fields = vec![
            ("count", Kind::Counter),
            ("tags", Kind::Set),
            ("on", Kind::Flag),
            ("name", Kind::Register),
            ("last", Kind::Lww),
        ];
        if depth == 1 {
            fields.push(("in", Kind::Map));
        }
        if key == "map/a" {
            fields.push(("top", Kind::Max));
        }
        let mut changes: Vec<(Field, FieldChange)> = Vec::new();
        for _ in 0..=self.chance.below(2) {
            let (name, kind) = self.chance.of(&fields);
            let field = Field { name: Bytes::from_static(name.as_bytes()), kind };
            if changes.iter().any(|(other, _)| *other == field) {
                continue;
            }
            let may_go = !(kind == Kind::Max || kind == Kind::Map && key == "map/a");
            let change = match may_go && self.chance.happens(80) {
                true => FieldChange::Remove,
                false => match kind {
                    Kind::Map => FieldChange::Change(self.update(key, op, depth + 1)),
                    _ => FieldChange::Change(self.of_kind(key, kind, op)),
                },
            };
            changes.push((field, change));
        }
        Operation::Update(changes)
    }

    async fn send(&mut self, world: &RefCell<World>, ask: &Ask) -> Came {
        let op = world.borrow_mut().next_op();
        self.send_as(world, ask, op).await
    }

    /// Asks any node, and enters both question and answer.
    async fn send_as(&mut self, world: &RefCell<World>, ask: &Ask, op: Op) -> Came {
        let quorum = Quorum::new(&ask.quorum, COPIES).expect("drawn within the rules");
        let session = self.in_session.then(|| self.seen.get(&ask.key).cloned().unwrap_or_default());
        let call = {
            let world = &mut world.borrow_mut();
            let nodes = world.cluster.nodes();
            let via = self.chance.of(&nodes);
            let (bucket, key) = world.cluster.locate(&ask.key);
            let key = Bytes::copy_from_slice(key.as_bytes());
            let kind = kind_of(&ask.key);
            let touches = ask.change.as_ref().map(|change| touches(change, kind));
            let context = world.cluster.context_in(&ask.key, &ask.context);
            let asked = Asked {
                op,
                at_us: world.recorder.now_us(),
                session: self.number,
                key: ask.key.clone(),
                touches: touches.unwrap_or_default(),
                context: context.as_ref().map(known),
                with: levels(&quorum, ask),
            };
            world.recorder.event(Event::Asked(asked));
            let (epoch, left_ms, operation) = (self.epoch, ask.timeout_ms, op.into());
            let envelope =
                Envelope { epoch, left_ms, operation, bucket, trace: false, role: Role::Client };
            let request = match &ask.change {
                None => Request::Get(Get { key, session, quorum: ask.quorum, repair: ask.repair }),
                Some(change) => {
                    let context = ask.context.clone();
                    Request::Write(Write {
                        context,
                        session,
                        ..Write::new(key, ask.quorum, change)
                    })
                }
            };
            let port = world.cluster.network.port(NodeId(CLIENTS_FROM + self.number));
            port.call(via, Lane::Request, envelope, request)
        };
        let patience = Duration::from_millis(ask.timeout_ms.into()) + PATIENCE;
        let answer = tokio::time::timeout(patience, call).await;
        let world = &mut world.borrow_mut();
        let (reply, came) = match answer {
            Ok(Ok((epoch, reply))) => {
                self.epoch = self.epoch.max(epoch);
                self.hear(world, ask, reply)
            }
            Ok(Err(error)) if error.not_sent() => {
                let code = error.to_string();
                (Told::Failed { effect: Left::NotApplied, code }, Came::NotApplied)
            }
            Ok(Err(_)) | Err(_) => (Told::Silence, Came::Unknown),
        };
        let at_us = world.recorder.now_us();
        world.recorder.event(Event::Answered(Answered { op, at_us, reply }));
        came
    }

    fn hear(&mut self, world: &mut World, ask: &Ask, reply: Reply) -> (Told, Came) {
        match reply {
            Reply::Written(stored) => {
                world.figures.kind_writes += 1;
                let token = match self.in_session {
                    true => stored.session,
                    false => stored.context,
                };
                self.remember(world, &ask.key, token);
                (Told::Stored { dot: stored.dot }, Came::Done)
            }
            Reply::Found(found) => {
                world.figures.kind_reads += 1;
                let reading = Reading::decode(&found.reading).expect("a node sends readings");
                let context = world.cluster.context_in(&ask.key, &found.context);
                let context = context.unwrap_or_default();
                self.remember(world, &ask.key, found.context);
                let shown = shown(&reading, value_in);
                (Told::Found { shown, context: known(&context) }, Came::Done)
            }
            Reply::Failed(failure) => self.failed(world, &failure),
            other => panic!("{} was answered with {other:?}", ask.key),
        }
    }

    fn failed(&self, world: &mut World, failure: &Failure) -> (Told, Came) {
        let (effect, came) = match failure.effect {
            Effect::NotApplied => (Left::NotApplied, Came::NotApplied),
            Effect::Applied(count) => (Left::Applied(count), Came::Unknown),
            Effect::Unknown => (Left::Unknown, Came::Unknown),
        };
        world.figures.not_satisfied += u64::from(failure.code == ErrorCode::SessionNotSatisfied);
        (Told::Failed { effect, code: failure.code.word().into() }, came)
    }

    fn remember(&mut self, world: &mut World, key: &str, token: Bytes) {
        if token.is_empty() {
            return;
        }
        let told = world.tokens.entry(key.to_owned()).or_default();
        if told.len() == TOKENS_MAX {
            told.remove(0);
        }
        told.push(token.clone());
        self.seen.insert(key.to_owned(), token);
    }
}

/// Reads a key from all its owners, until somebody answers or a few have not.
pub async fn read(world: &RefCell<World>, key: &str, number: u32) {
    let level = |count| Some(Level::Count(count));
    let mut client = Client::new(number, false, Chance::of_seed(number.into()), 1);
    let quorum = QuorumRequest { r: level(COPIES), sloppy: Some(false), ..Default::default() };
    let (key, repair) = (key.to_owned(), Repair::Async);
    let ask = Ask { key, change: None, context: Bytes::new(), quorum, repair, timeout_ms: 2000 };
    for _ in 0..3 {
        if client.send(world, &ask).await == Came::Done {
            return;
        }
    }
}

/// Reads every key of these kinds.
pub async fn read_all(world: &RefCell<World>, number: u32) {
    let keys = world.borrow().kind_keys.clone();
    for key in keys {
        read(world, &key, number).await;
    }
}

/// What a disk holds of a key.
pub fn keeps(node: NodeId, key: String, owner: bool, lies: &Lies) -> Keeps {
    let (readable, digest, shown, context) = match lies {
        Lies::Damaged => (false, 0, Vec::new(), Vec::new()),
        Lies::State(state) => {
            let hash = blake3::hash(&state.encode());
            let digest = *hash.as_bytes().first_chunk().expect("32 bytes");
            let context = known(state.context());
            (true, u64::from_le_bytes(digest), shown(&state.read(0), value_in), context)
        }
    };
    Keeps { node: node.0, key, owner, readable, digest, shown, context }
}

/// The kind that a key's name begins with; without one it is a register.
pub fn kind_of(key: &str) -> Kind {
    let Some((word, _)) = key.split_once('/') else { return Kind::Register };
    word.parse().expect("a kind")
}

fn levels(quorum: &Quorum, ask: &Ask) -> Levels {
    let (need, durable) = match ask.change {
        None => (quorum.r(), 0),
        Some(_) => (quorum.w(), quorum.dw()),
    };
    let owners = if quorum.sloppy() { 0 } else { need };
    Levels { n: quorum.n(), need, owners, durable, blocking: false }
}
