//! A small world of replicas of one key, driven step by step. Its events claim only what is true,
//! as those of a real coordinator do.

use atoll_antientropy::{
    Actor, Event, Field, FieldChange, Hybrid, Increment, Kind, Operation, Stamp, State,
};
use bytes::Bytes;

#[derive(Clone, Debug)]
pub enum Step {
    /// A client who had seen what the given replica holds, or said nothing, changes `at`. The event
    /// extends from the actor's last one, or stands alone.
    Change { at: usize, seen: Option<usize>, extends: bool, operation: Operation },
    /// `to` joins all that `from` holds.
    Repair { from: usize, to: usize },
    /// `to` joins an earlier delta.
    Deliver { delta: usize, to: usize },
    /// A replica loses everything. Its counters go on.
    Forget { at: usize },
}

#[derive(Clone)]
pub struct World {
    pub records: Vec<State>,
    pub deltas: Vec<State>,
    /// The counters that each replica has given for this key, and for any key.
    last: Vec<u64>,
    given: Vec<u64>,
    clock: u64,
}

impl World {
    pub fn new(kind: Kind, replicas: usize) -> World {
        World {
            records: vec![State::unknown(kind); replicas],
            deltas: Vec::new(),
            last: vec![0; replicas],
            given: vec![0; replicas],
            clock: 1,
        }
    }

    /// Takes a step and returns the states that are new.
    pub fn take(&mut self, step: &Step) -> Vec<State> {
        match *step {
            Step::Change { at, seen, extends, ref operation } => {
                self.clock += 1;
                self.given[at] += 1 + self.clock % 3; // other keys take counters too
                let mut event = Event::alone(Actor::new(at as u32, 0), self.given[at]);
                if extends {
                    event.after = self.last[at];
                }
                let seen = seen.map(|seen| self.records[seen].context().clone());
                let stamp = Stamp {
                    event,
                    at: Hybrid::of(self.clock / 2, 0), // two at once
                    wall_ms: self.clock,
                    operation: 0,
                };
                match self.records[at].change(operation, seen.as_ref(), &stamp) {
                    Ok(delta) => {
                        self.last[at] = self.given[at];
                        self.records[at].join(delta.clone());
                        assert!(self.records[at].covers(&delta));
                        self.deltas.push(delta.clone());
                        vec![delta, self.records[at].clone()]
                    }
                    Err(_) => Vec::new(), // a max that cannot be removed
                }
            }
            Step::Repair { from, to } => {
                let state = self.records[from].clone();
                self.records[to].join(state);
                vec![self.records[to].clone()]
            }
            Step::Deliver { delta, to } if !self.deltas.is_empty() => {
                let delta = self.deltas[delta % self.deltas.len()].clone();
                self.records[to].join(delta);
                vec![self.records[to].clone()]
            }
            Step::Deliver { .. } => Vec::new(),
            Step::Forget { at } => {
                self.records[at] = State::unknown(self.records[at].kind());
                Vec::new()
            }
        }
    }

    pub fn states(&self) -> impl Iterator<Item = &State> {
        self.records.iter().chain(&self.deltas)
    }
}

pub fn joined(a: &State, b: &State) -> State {
    let mut both = a.clone();
    both.join(b.clone());
    both
}

/// All laws that two or three states of one history can keep or break.
pub fn check_pair(a: &State, b: &State) {
    let ab = joined(a, b);
    let ba = joined(b, a);
    assert_eq!(ab, ba, "commutative: {a:?} {b:?}");
    assert_eq!(ab.encode(), ba.encode(), "canonical: {a:?} {b:?}");
    assert_eq!(joined(&ab, b), ab, "idempotent: {a:?} {b:?}");
    assert!(ab.covers(a) && ab.covers(b), "monotone: {a:?} {b:?}");
    assert!(ab.context().covers(a.context()), "monotone in what is known");
    assert_eq!(a.covers(b), ab == *a, "covers is join-changes-nothing: {a:?} {b:?}");
    assert_eq!(b.covers(a), ab == *b, "covers is join-changes-nothing: {b:?} {a:?}");
    assert_eq!(a == b, a.encode() == b.encode(), "canonical: {a:?} {b:?}");
    assert_eq!(a == b, a.digest() == b.digest(), "digests tell apart: {a:?} {b:?}");
    for state in [a, &ab] {
        assert_eq!(&State::decode(&state.encode().into()).unwrap(), state);
        assert_eq!(state.digest_of(&state.encode()), state.digest(), "one digest: {state:?}");
        assert!(joined(&State::unknown(state.kind()), state) == *state);
        assert!(!state.is_unknown() || *state == State::unknown(state.kind()));
    }
}

pub fn check_three(a: &State, b: &State, c: &State) {
    assert_eq!(
        joined(&joined(a, b), c),
        joined(a, &joined(b, c)),
        "associative: {a:?} {b:?} {c:?}"
    );
}

fn field(name: &'static str, kind: Kind) -> Field {
    Field { name: Bytes::from_static(name.as_bytes()), kind }
}

fn put(value: &'static str) -> Operation {
    Operation::Put { value: Bytes::from_static(value.as_bytes()), expires_ms: None }
}

/// Some operations for each kind; those of maps touch several fields at once, and maps in maps.
pub fn operations(kind: Kind) -> Vec<Operation> {
    let elements = |names: &[&'static str]| {
        names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect::<Vec<_>>()
    };
    let session =
        |sequence, total| Operation::Increment(Increment::Session { session: 7, sequence, total });
    match kind {
        Kind::Register => vec![put("tea"), Operation::Clear],
        Kind::Lww => vec![put("tea"), Operation::Clear],
        Kind::Counter => vec![
            Operation::Increment(Increment::Once(5)),
            Operation::Clear,
            session(1, 10),
            session(2, -3),
        ],
        Kind::Set => vec![
            Operation::Add(elements(&["tea", "milk"])),
            Operation::Remove(elements(&["tea"])),
            Operation::Add(elements(&["tea"])),
            Operation::Clear,
        ],
        Kind::Flag => vec![Operation::Enable, Operation::Disable],
        Kind::Max => vec![Operation::Raise(3), Operation::Raise(-3), Operation::Raise(8)],
        Kind::Map => {
            let change =
                |name, kind, operation| (field(name, kind), FieldChange::Change(operation));
            let remove = |name, kind| (field(name, kind), FieldChange::Remove);
            let once = Operation::Increment(Increment::Once(5));
            let all = vec![
                change("f", Kind::Set, Operation::Add(elements(&["tea", "milk"]))),
                change("f", Kind::Register, put("Ann")),
                change("f", Kind::Counter, once.clone()),
                change(
                    "deep",
                    Kind::Map,
                    Operation::Update(vec![
                        change("f", Kind::Flag, Operation::Enable),
                        change("g", Kind::Lww, put("old")),
                    ]),
                ),
            ];
            vec![
                Operation::Update(all),
                Operation::Update(vec![
                    change("f", Kind::Set, Operation::Remove(elements(&["tea"]))),
                    remove("f", Kind::Register),
                ]),
                Operation::Update(vec![
                    remove("f", Kind::Counter),
                    change("f", Kind::Register, put("Bob")),
                    change(
                        "deep",
                        Kind::Map,
                        Operation::Update(vec![
                            remove("f", Kind::Flag),
                            change("h", Kind::Counter, once),
                        ]),
                    ),
                ]),
                Operation::Update(vec![remove("deep", Kind::Map)]),
                Operation::Clear,
            ]
        }
    }
}
