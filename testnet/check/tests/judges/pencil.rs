//! Histories written by hand, a line per deed.

use atoll_check::{Dot, Effect, Event, Held, Levels, Op, Reply, Value, What};

/// Two of three owners, nobody else, all on stable storage.
pub const QUORUM: Levels = Levels { n: 3, need: 2, owners: 2, durable: 2, blocking: false };
/// One of three owners.
pub const ONE: Levels = Levels { n: 3, need: 1, owners: 1, durable: 1, blocking: false };
/// Two of three, of which none need be an owner.
pub const SLOPPY: Levels = Levels { n: 3, need: 2, owners: 0, durable: 2, blocking: false };

/// Event `counter` of node 1.
pub fn dot(counter: u64) -> Dot {
    (1, 1, counter)
}

/// Writes a history down. All of it is about key `a`.
#[derive(Default)]
pub struct Pencil {
    pub events: Vec<Event>,
    pub last: Op,
    pub with: Option<Levels>,
}

impl Pencil {
    /// The operations that follow use these levels; quorums until then.
    pub fn with(&mut self, with: Levels) -> &mut Self {
        self.with = Some(with);
        self
    }

    pub fn begin(&mut self, session: u32, what: What, seen: Option<Op>) -> Op {
        self.last += 1;
        self.events.push(Event::Begin {
            op: self.last,
            at_us: self.events.len() as u64,
            session,
            key: "a".into(),
            what,
            seen,
            with: self.with.unwrap_or(QUORUM),
        });
        self.last
    }

    pub fn end(&mut self, op: Op, reply: Reply) {
        self.events.push(Event::End { op, at_us: self.events.len() as u64, reply });
    }

    /// A put that is acknowledged with event `counter` of node 1.
    pub fn put(&mut self, session: u32, seen: Option<Op>, counter: u64) -> Op {
        let op = self.begin(session, What::Put, seen);
        self.end(op, Reply::Stored { dot: dot(counter), context: true, untrue: None });
        op
    }

    /// A put that fails.
    pub fn put_fails(&mut self, session: u32, seen: Option<Op>, effect: Effect) -> Op {
        let op = self.begin(session, What::Put, seen);
        self.end(op, Reply::Failed { effect, code: "quorum lost".into() });
        op
    }

    pub fn delete(&mut self, session: u32, seen: Option<Op>, counter: u64) -> Op {
        let op = self.begin(session, What::Delete, seen);
        self.end(op, Reply::Stored { dot: dot(counter), context: true, untrue: None });
        op
    }

    pub fn get(&mut self, session: u32, values: &[(Value, Dot)]) -> Op {
        let op = self.begin(session, What::Get, None);
        self.end(op, Reply::Found { values: values.to_vec(), context: true });
        op
    }

    /// All is over, and owners 1 to 3 hold these values and know events 1 to `up_to` of node 1.
    pub fn all_hold(&mut self, values: &[(Value, Dot)], up_to: u64) -> &mut Self {
        self.settled();
        for node in 1..=3 {
            self.holds(node, values, up_to);
        }
        self
    }

    pub fn settled(&mut self) {
        self.events.push(Event::Settled { at_us: self.events.len() as u64 });
    }

    pub fn holds(&mut self, node: u32, values: &[(Value, Dot)], up_to: u64) {
        self.events.push(Event::Held(held(node, values, up_to)));
    }
}

/// What an owner holds that knows events 1 to `up_to` of node 1.
pub fn held(node: u32, values: &[(Value, Dot)], up_to: u64) -> Held {
    let context = if up_to == 0 { Vec::new() } else { vec![(1, 1, 0, up_to)] };
    let values = values.to_vec();
    Held { node, key: "a".into(), owner: true, readable: true, values, context }
}
