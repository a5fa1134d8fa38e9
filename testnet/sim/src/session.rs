//! The clients of a run. A session asks one thing after the other, of any node, with any settings.
//!
//! It writes with the newest context it has, with an old one, with one that another client was given, or with none; asks
//! again after an answer that says nothing; deletes, and writes again what was deleted. Now and then all sessions hurry at
//! the same key. Whatever it asks and hears goes into the history.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use atoll_antientropy::{Dot, Operation, Reading};
use atoll_check::{Effect as Left, Event, Levels, Op, Reply as Heard, What};
use atoll_ring::{Epoch, Level, NodeId, Quorum, QuorumRequest};
use atoll_transport::{CallError, chance::Chance};
use atoll_wire::{
    Effect, Envelope, ErrorCode, Failure, Found, Get, Lane, Repair, Reply, Request, Role, Stored,
    Write,
};
use bytes::Bytes;

use crate::{
    cluster::SECOND_KEYS,
    run::SELDOM,
    world::{Told, World, bytes_of, value_in},
};

/// Numbers of clients on the network; no node has one.
pub const CLIENTS_FROM: u32 = 1000;

/// How long a client waits beyond the time it gave its request. Then it takes the silence for an answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// One client.
pub struct Session {
    number: u32,
    chance: Chance,
    /// The longest pause between two requests, in milliseconds.
    pause_ms: u64,
    /// So many of four requests are about the same key; it changes now and then.
    haste: u64,
    /// The newest epoch it has heard of.
    epoch: Epoch,
    /// By key what it has seen, as a token, if it works in a session: with one answer and one acknowledgement.
    seen: Option<BTreeMap<String, Bytes>>,
}

/// A request that is about to be sent.
#[derive(Clone)]
struct Ask {
    key: String,
    what: What,
    /// Whom to ask, if it matters.
    via: Option<NodeId>,
    seen: Option<(Op, Bytes)>,
    quorum: QuorumRequest,
    repair: Repair,
    timeout_ms: u32,
}

/// What a session makes of an answer.
enum Next {
    Done,
    /// Nobody knows whether it happened: it may be asked again.
    Again,
}

impl Session {
    /// A client of this number.
    pub fn new(number: u32, chance: Chance, pause_ms: u64) -> Self {
        Session { number, chance, pause_ms, haste: 0, epoch: Epoch(0), seen: None }
    }

    /// From now on it sends along what it has seen, and is promised more for it.
    pub fn work_in_session(&mut self, world: &RefCell<World>) {
        self.seen = Some(BTreeMap::new());
        let session = self.number;
        world.borrow_mut().recorder.event(Event::InSession { session });
    }

    /// Asks until the run is over.
    pub async fn run(mut self, world: &RefCell<World>) {
        loop {
            let something_moves = !world.borrow().keys_on_the_move().is_empty();
            let pause = match self.chance.below(4) {
                0 => 0,
                1 => self.chance.below(4),
                _ if something_moves => self.chance.below(40),
                _ => self.chance.below(self.pause_ms),
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if world.borrow().is_over {
                return;
            }
            let ask = self.ask(&world.borrow());
            if let Some(ask) = ask {
                let mut next = self.send(world, &ask).await;
                for _ in 0..2 {
                    if matches!(next, Next::Again) && self.chance.happens(400) {
                        next = self.send(world, &ask).await; // with the same context: it has seen nothing new
                    }
                }
            }
        }
    }

    /// Reads a key from all its owners, until somebody answers or a few have not.
    pub async fn read_all(&mut self, world: &RefCell<World>, key: &str) {
        let level = |count| Some(Level::Count(count));
        let copies = world.borrow().cluster.copies(key);
        let quorum = QuorumRequest { r: level(copies), sloppy: Some(false), ..Default::default() };
        let ask = Ask {
            key: key.to_owned(),
            what: What::Get,
            via: None,
            seen: None,
            quorum,
            repair: Repair::Async,
            timeout_ms: 2000,
        };
        for _ in 0..3 {
            if matches!(self.send(world, &ask).await, Next::Done) {
                return;
            }
        }
    }

    fn ask(&mut self, world: &World) -> Option<Ask> {
        let chance = &mut self.chance;
        if let Some(newcomer) = world.newcomer
            && chance.happens(400)
        {
            let level = |count| Some(Level::Count(count));
            let (r, sloppy) = (level(chance.of(&[1, 1, 2])), Some(false));
            return Some(Ask {
                key: chance.of(&world.keys),
                what: What::Get,
                via: Some(newcomer),
                seen: None,
                quorum: QuorumRequest { r, sloppy, ..Default::default() },
                repair: Repair::Async,
                timeout_ms: 400,
            });
        }
        self.haste = if chance.happens(100) { chance.below(4) } else { self.haste };
        let moving = world.keys_on_the_move();
        let of_moving = !moving.is_empty() && chance.happens(700);
        let key = match chance.below(4) < self.haste {
            _ if of_moving => chance.of(&moving),
            true => world.keys[0].clone(),
            false if chance.happens(850) => {
                let often = world.keys.len() - SELDOM.len() - SECOND_KEYS.len();
                chance.of(&world.keys[..often])
            }
            false => chance.of(&SELDOM).to_owned(),
        };
        // every fifth or so is about the bucket with fewer copies
        let key = match !of_moving && chance.happens(200) {
            true => chance.of(&SECOND_KEYS).to_owned(),
            false => key,
        };
        let copies = world.cluster.copies(&key);
        let told = &world.told[&key];
        let own = || told.iter().filter(|told| told.session == self.number);
        let seen = match chance.below(20) {
            0..=10 => own().next_back(),
            11..=13 if own().next().is_some() => {
                let count = own().count() as u64;
                own().nth(chance.below(count) as usize)
            }
            14 | 15 if !told.is_empty() => Some(&told[chance.below(told.len() as u64) as usize]),
            _ => None,
        };
        let seen = seen.map(|told| (told.op, told.context.clone()));
        let what = match chance.below(20) {
            0..=9 => What::Put,
            10..=12 if seen.is_some() => What::Delete,
            _ => What::Get,
        };
        // what moves is asked for so that reads must see writes: whoever counts the wrong ones is seen through
        let strict = of_moving && chance.happens(700);
        let sloppy = chance.below(2) > 0 && !strict;
        // with few copies each one matters
        let n = if strict { 3 } else { chance.of(&[3, 3, 3, 3, 2, 1]) }.min(copies);
        let need = match (strict, what) {
            (true, What::Get) => chance.of(&[2, 2, 2, 3, 3, 1]),
            (true, _) => chance.of(&[2, 2, 2, 1, 1, 3]),
            (false, _) => chance.of(&[1, 1, 2, 2, 3, 3]),
        };
        let need = if self.seen.is_some() { 1 } else { need.min(n) };
        // who is behind takes writes, and who is not is asked what became of them
        let behind = if strict { world.behind() } else { Vec::new() };
        let via = match what {
            What::Put | What::Delete if !behind.is_empty() && chance.happens(600) => {
                Some(chance.of(&behind))
            }
            What::Put | What::Delete if strict && chance.happens(250) => {
                world.troubled.filter(|node| !world.cluster.is_gone(*node))
            }
            _ => None,
        };
        let owners = chance.of(&[0, 0, 1, 2]).min(need);
        let durable = chance.of(&[need, need, need, need, 1.min(need), 0]);
        let level = |count: u8| Some(Level::Count(count));
        let quorum = match what {
            What::Get => QuorumRequest {
                n: Some(n),
                r: level(need),
                pr: level(owners).filter(|_| sloppy),
                sloppy: Some(sloppy),
                ..Default::default()
            },
            What::Put | What::Delete => QuorumRequest {
                n: Some(n),
                w: level(need),
                pw: level(owners).filter(|_| sloppy),
                dw: level(durable),
                sloppy: Some(sloppy),
                ..Default::default()
            },
        };
        Some(Ask {
            key,
            what,
            via,
            seen: seen.filter(|_| what != What::Get),
            quorum,
            repair: chance.of(&[Repair::Async, Repair::Async, Repair::Blocking, Repair::None]),
            timeout_ms: chance.of(&[150, 400, 400, 1000, 1000, 3000]),
        })
    }

    /// Asks any node, and enters both question and answer.
    async fn send(&mut self, world: &RefCell<World>, ask: &Ask) -> Next {
        let copies = world.borrow().cluster.copies(&ask.key);
        let quorum = Quorum::new(&ask.quorum, copies).expect("drawn within the rules");
        let (op, call) = {
            let mut world = world.borrow_mut();
            let nodes = world.cluster.nodes();
            let via = ask.via.unwrap_or_else(|| self.chance.of(&nodes));
            let op = world.next_op();
            let at_us = world.recorder.now_us();
            let levels = levels(&quorum, ask);
            let seen = ask.seen.as_ref().map(|(op, _)| *op);
            world.recorder.event(Event::Begin {
                op,
                at_us,
                session: self.number,
                key: ask.key.clone(),
                what: ask.what,
                seen,
                with: levels,
            });
            let epoch = if self.chance.happens(100) { Epoch(0) } else { self.epoch };
            let padding = if self.chance.happens(30) { 2000 } else { 0 };
            let session = self.seen.as_ref();
            let session = session.map(|all| all.get(&ask.key).cloned().unwrap_or_default());
            let request = ask.request(op, padding, session);
            let envelope = Envelope {
                epoch,
                left_ms: ask.timeout_ms,
                operation: op.into(),
                bucket: world.cluster.bucket(&ask.key),
                trace: false,
                role: Role::Client,
            };
            let port = world.cluster.network.port(NodeId(CLIENTS_FROM + self.number));
            (op, port.call(via, Lane::Request, envelope, request))
        };
        let patience = Duration::from_millis(ask.timeout_ms.into()) + PATIENCE;
        let answer = tokio::time::timeout(patience, call).await;
        if let Ok(Ok((epoch, _))) = &answer {
            self.epoch = self.epoch.max(*epoch);
        }
        let world = &mut world.borrow_mut();
        let (reply, next) = match answer {
            Ok(Ok((_, Reply::Written(stored)))) => {
                (self.stored(world, op, ask, &quorum, stored), Next::Done)
            }
            Ok(Ok((_, Reply::Found(found)))) => (self.found(world, op, ask, found), Next::Done),
            Ok(Ok((_, Reply::Failed(failure)))) => failed(world, ask, &failure),
            Ok(Ok((_, other))) => panic!("{ask:?} was answered with {other:?}", ask = ask.what),
            Ok(Err(error)) if error.not_sent() => not_sent(world, ask, &error),
            Ok(Err(_)) | Err(_) => {
                world.figures.silence += 1;
                (Heard::Silence, Next::Again)
            }
        };
        let at_us = world.recorder.now_us();
        let in_memory = match &reply {
            Heard::Stored { dot, .. } if quorum.dw() == 0 => Some(*dot),
            _ => None,
        };
        world.recorder.event(Event::End { op, at_us, reply });
        if let Some(dot) = in_memory {
            world.rests_on_memory(op, &ask.key, dot);
        }
        next
    }

    fn stored(
        &mut self,
        world: &mut World,
        op: Op,
        ask: &Ask,
        quorum: &Quorum,
        stored: Stored,
    ) -> Heard {
        let receipt = &stored.receipt;
        world.figures.acknowledged += 1;
        let by_fallback = receipt.replicas.iter().any(|line| line.stands_in_for.is_some());
        world.figures.by_fallbacks += u64::from(by_fallback);
        let owners = world.cluster.owners(&ask.key);
        let elsewhere = !owners.contains(&NodeId(receipt.coordinator));
        world.figures.coordinated_by_fallbacks += u64::from(elsewhere);
        let untrue = receipt.untrue_of_write(quorum).map(str::to_owned);
        if untrue.is_some() {
            world.recorder.say(format_args!("untrue: {receipt:?}"));
        }
        let context = !stored.context.is_empty();
        if let Some(seen) = self.seen.as_mut().filter(|_| !stored.session.is_empty()) {
            seen.insert(ask.key.clone(), stored.session);
        }
        self.remember(world, op, &ask.key, stored.context);
        Heard::Stored { dot: stored.dot, context, untrue }
    }

    fn found(&mut self, world: &mut World, op: Op, ask: &Ask, found: Found) -> Heard {
        world.figures.reads += 1;
        let Ok(Reading::Register(siblings)) = Reading::decode(&found.reading) else {
            panic!("a get was answered with no siblings");
        };
        let dot = |dot: &Dot| (dot.actor.node, dot.actor.incarnation, dot.counter);
        let values = siblings.iter().map(|one| (value_in(&one.value), dot(&one.dot))).collect();
        let context = !found.context.is_empty();
        if let Some(seen) = self.seen.as_mut().filter(|_| !found.context.is_empty()) {
            seen.insert(ask.key.clone(), found.context.clone());
        }
        self.remember(world, op, &ask.key, found.context);
        Heard::Found { values, context }
    }

    fn remember(&self, world: &mut World, op: Op, key: &str, context: Bytes) {
        if !context.is_empty() {
            let told = world.told.get_mut(key).expect("a key of this run");
            told.push(Told { op, session: self.number, context });
        }
    }
}

impl Ask {
    fn request(&self, op: Op, padding: usize, session: Option<Bytes>) -> Request {
        let key = Bytes::copy_from_slice(self.key.as_bytes());
        let context = self.seen.as_ref().map(|(_, context)| context.clone()).unwrap_or_default();
        let quorum = self.quorum;
        let operation = match self.what {
            What::Put => Operation::Put { value: bytes_of(op, padding), expires_ms: None },
            What::Delete => Operation::Clear,
            What::Get => {
                return Request::Get(Get { key, session, quorum, repair: self.repair });
            }
        };
        Request::Write(Write { context, session, ..Write::new(key, quorum, &operation) })
    }
}

fn levels(quorum: &Quorum, ask: &Ask) -> Levels {
    let (need, owners, durable) = match ask.what {
        What::Get => (quorum.r(), quorum.pr(), 0),
        What::Put | What::Delete => (quorum.w(), quorum.pw(), quorum.dw()),
    };
    let owners = if quorum.sloppy() { owners } else { need };
    let blocking = ask.what == What::Get && ask.repair == Repair::Blocking;
    Levels { n: quorum.n(), need, owners, durable, blocking }
}

fn failed(world: &mut World, ask: &Ask, failure: &Failure) -> (Heard, Next) {
    let effect = match failure.effect {
        Effect::NotApplied => Left::NotApplied,
        Effect::Applied(count) => Left::Applied(count),
        Effect::Unknown => Left::Unknown,
    };
    if ask.what != What::Get {
        world.figures.failed += 1;
    }
    world.figures.not_satisfied += u64::from(failure.code == ErrorCode::SessionNotSatisfied);
    (Heard::Failed { effect, code: failure.code.word().into() }, Next::Again)
}

fn not_sent(world: &mut World, ask: &Ask, error: &CallError) -> (Heard, Next) {
    if ask.what != What::Get {
        world.figures.failed += 1;
    }
    (Heard::Failed { effect: Left::NotApplied, code: error.to_string() }, Next::Again)
}
