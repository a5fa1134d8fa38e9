//! A tiny cluster that keeps its promises, and what its clients record.
//!
//! Three owners per key, each with exact sets of events; clients with fresh, stale and no contexts; every answer and every
//! failure that the store knows. Nothing is efficient here, and nothing is shared with the judges.

use std::collections::{BTreeMap, BTreeSet};

use atoll_check::{Dot, Effect, Event, Held, Levels, Op, Reply, What};

/// What one owner knows of one key.
#[derive(Clone, Default)]
struct State {
    values: BTreeMap<Dot, Op>,
    known: BTreeSet<Dot>,
}

impl State {
    fn join(&mut self, other: &State) {
        self.values.retain(|dot, _| other.values.contains_key(dot) || !other.known.contains(dot));
        for (dot, value) in &other.values {
            if !self.known.contains(dot) {
                self.values.insert(*dot, *value);
            }
        }
        self.known.extend(&other.known);
    }
}

/// A client's context, and the answer it came with.
#[derive(Clone)]
struct Token {
    known: BTreeSet<Dot>,
    from: Op,
}

struct Asked {
    op: Op,
    client: u32,
    key: usize,
    what: What,
    with: Levels,
    token: Option<Token>,
}

/// How wild the clients are.
#[derive(Clone, Copy)]
pub struct Play {
    pub seed: u64,
    pub operations: u64,
    pub keys: usize,
    pub clients: u32,
    /// Every request asks all owners and none is in flight beside another: then sessions get their promises, too.
    pub is_orderly: bool,
}

struct Model {
    chance: Chance,
    play: Play,
    events: Vec<Event>,
    owners: Vec<[State; 3]>,
    /// What is on its way to an owner: it may arrive at any time.
    late: Vec<(usize, usize, State)>,
    tokens: BTreeMap<(u32, usize), Token>,
    counters: [u64; 3],
    in_flight: Vec<Asked>,
    last: Op,
}

/// Plays and returns the history, settled.
pub fn history(play: Play) -> Vec<Event> {
    let mut model = Model {
        chance: Chance(play.seed),
        play,
        events: Vec::new(),
        owners: vec![Default::default(); play.keys],
        late: Vec::new(),
        tokens: BTreeMap::new(),
        counters: [0; 3],
        in_flight: Vec::new(),
        last: 0,
    };
    while model.last < play.operations {
        let at_once = if play.is_orderly { 1 } else { play.clients as usize };
        match model.chance.below(3) {
            0 if !model.late.is_empty() => model.deliver(),
            1 | 0 if !model.in_flight.is_empty() => model.finish(),
            _ if model.in_flight.len() < at_once => model.begin(),
            _ => model.finish(),
        }
    }
    model.end();
    model.events
}

impl Model {
    fn begin(&mut self) {
        let busy: BTreeSet<u32> = self.in_flight.iter().map(|asked| asked.client).collect();
        let free: Vec<u32> =
            (1..=self.play.clients).filter(|client| !busy.contains(client)).collect();
        let client = self.chance.of(&free);
        let key = self.chance.below(self.play.keys as u64) as usize;
        let token = self.tokens.get(&(client, key)).cloned();
        let token = token.filter(|_| self.chance.below(4) > 0);
        let what = match self.chance.below(8) {
            0..=2 => What::Put,
            3 if token.is_some() => What::Delete,
            _ => What::Get,
        };
        let n = if self.play.is_orderly { 3 } else { self.chance.of(&[3, 3, 2, 1]) };
        let need = if self.play.is_orderly { 3 } else { self.chance.of(&[1, 2, 2, 3]).min(n) };
        let is_strict = self.play.is_orderly || self.chance.below(3) > 0;
        let with = Levels {
            n,
            need,
            owners: if is_strict { need } else { 0 },
            durable: need,
            blocking: what == What::Get && self.chance.below(3) == 0,
        };
        self.last += 1;
        let (op, token) = (self.last, token.filter(|_| what != What::Get));
        self.record(|at_us| Event::Begin {
            op,
            at_us,
            session: client,
            key: name(key),
            what,
            seen: token.as_ref().map(|token| token.from),
            with,
        });
        self.in_flight.push(Asked { op, client, key, what, with, token });
    }

    fn finish(&mut self) {
        let which = self.chance.below(self.in_flight.len() as u64) as usize;
        let asked = self.in_flight.swap_remove(which);
        let reply = match asked.what {
            What::Get => self.read(&asked),
            What::Put | What::Delete => self.write(&asked),
        };
        if reply != Reply::Silence || self.chance.below(2) == 0 {
            self.record(|at_us| Event::End { op: asked.op, at_us, reply });
        }
    }

    fn read(&mut self, asked: &Asked) -> Reply {
        if !self.play.is_orderly && self.chance.below(10) == 0 {
            return Reply::Failed { effect: Effect::NotApplied, code: "unreachable".into() };
        }
        let answers = self.some_owners(asked.with.n, asked.with.need);
        let mut joined = State::default();
        for owner in &answers {
            joined.join(&self.owners[asked.key][*owner]);
        }
        if asked.with.blocking {
            for owner in answers {
                self.owners[asked.key][owner].join(&joined);
            }
        }
        let token = Token { known: joined.known, from: asked.op };
        self.tokens.insert((asked.client, asked.key), token);
        let values = joined.values.into_iter().map(|(dot, value)| (value, dot)).collect();
        Reply::Found { values, context: true }
    }

    fn write(&mut self, asked: &Asked) -> Reply {
        let failed = |effect| Reply::Failed { effect, code: "quorum lost".into() };
        let fate = if self.play.is_orderly { 10 } else { self.chance.below(12) };
        match fate {
            0 => failed(Effect::NotApplied),
            1 => Reply::Silence,
            2 => {
                self.carry_out(asked, 1); // and then every trace is lost, which nobody promised against
                Reply::Silence
            }
            3 => {
                self.carry_out(asked, 1);
                self.carry_out(asked, 1); // somebody on the way sent it twice
                failed(Effect::Unknown)
            }
            4 => {
                self.carry_out(asked, 1);
                failed(Effect::Applied(1))
            }
            _ => {
                let dot = self.carry_out(asked, asked.with.need);
                let mut known = asked.token.clone().map(|token| token.known).unwrap_or_default();
                known.insert(dot);
                self.tokens.insert((asked.client, asked.key), Token { known, from: asked.op });
                Reply::Stored { dot, context: true, untrue: None }
            }
        }
    }

    /// Writes at so many owners now, and at the others later.
    fn carry_out(&mut self, asked: &Asked, acks: u8) -> Dot {
        let now = self.some_owners(asked.with.n, acks);
        let coordinator = now[0];
        self.counters[coordinator] += 1;
        let dot = (coordinator as u32 + 1, 1, self.counters[coordinator]);
        let mut delta = State::default();
        if let Some(token) = &asked.token {
            delta.known.clone_from(&token.known);
        }
        delta.known.insert(dot);
        if asked.what == What::Put {
            delta.values.insert(dot, asked.op);
        }
        for owner in 0..3 {
            if now.contains(&owner) {
                self.owners[asked.key][owner].join(&delta);
            } else {
                self.late.push((asked.key, owner, delta.clone()));
            }
        }
        dot
    }

    fn some_owners(&mut self, n: u8, count: u8) -> Vec<usize> {
        let mut among: Vec<usize> = (0..usize::from(n)).collect();
        (0..count)
            .map(|_| among.swap_remove(self.chance.below(among.len() as u64) as usize))
            .collect()
    }

    fn deliver(&mut self) {
        let which = self.chance.below(self.late.len() as u64) as usize;
        let (key, owner, delta) = self.late.swap_remove(which);
        self.owners[key][owner].join(&delta);
    }

    fn end(&mut self) {
        while !self.in_flight.is_empty() {
            self.finish();
        }
        while !self.late.is_empty() {
            self.deliver();
        }
        self.record(|at_us| Event::Settled { at_us });
        for key in 0..self.play.keys {
            for owner in 0..3 {
                let state = &self.owners[key][owner];
                let values = state.values.iter().map(|(dot, value)| (*value, *dot)).collect();
                let context =
                    state.known.iter().map(|(node, inc, n)| (*node, *inc, n - 1, *n)).collect();
                self.events.push(Event::Held(Held {
                    node: owner as u32 + 1,
                    key: name(key),
                    owner: true,
                    readable: true,
                    values,
                    context,
                }));
            }
        }
        for node in 1..=3 {
            self.events.push(Event::Hints { node, count: 0 });
        }
    }

    fn record(&mut self, event: impl FnOnce(u64) -> Event) {
        self.events.push(event(self.events.len() as u64));
    }
}

fn name(key: usize) -> String {
    format!("key{key}")
}

/// Seeded chance: splitmix64 (Steele, Lea and Flood, 2014).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}
