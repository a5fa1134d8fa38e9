//! What was asked and heard, in the order in which it was: one JSON object per line.
//!
//! ```text
//! {"begin":{"op":7,"at_us":1200,"session":2,"key":"a","what":"put","seen":3,"with":{...}}}   before it is sent
//! {"end":{"op":7,"at_us":3400,"reply":{"stored":{...}}}}                                     when the answer is heard
//! {"exempt":{"op":9,"why":"..."}}                            every holder of a write with dw = 0 lost power
//! {"settled":{"at_us":...}}                                  faults are over, and repair was given its time
//! {"held":{"node":1,"key":"a","role":"owner",...}}           what one disk holds in the end
//! {"hints":{"node":1,"count":0}}                             hints a node still keeps in the end
//! {"format":3}                                               first, if lines of the next three kinds follow
//! {"in_session":{"session":2}}                               whoever this is sends along what it has seen
//! {"asked":{...}}   {"answered":{...}}   {"keeps":{...}}     values of other kinds: see [`kinds`]; since format 2
//! {"fault":{"at_us":900,"kind":"kill","says":"n2 is killed"}}  what was broken or healed meanwhile; since format 3
//! ```
//!
//! A history without a format is of the first one, which knew registers only, and is read as ever.
//!
//! **A value is the number of the operation that wrote it.** Whoever records knows which bytes those were. So a value that
//! nobody wrote, or that was written twice, cannot be said by accident.
//!
//! **What a client had seen** is not taken from the context in its token, which may claim too much; it is the answer that the
//! token came with (`seen`): the values of a read, or what a writer had seen and its own write.

use serde::{Deserialize, Serialize};

use self::kinds::{Answered, Asked, Keeps};

pub mod kinds;

/// The newest format, and the oldest.
pub const FORMATS: std::ops::RangeInclusive<u32> = 1..=3;

/// The number of an operation, from 1, in the order of their beginnings; also the value that a put writes.
pub type Op = u64;

/// The number of the put that wrote it.
pub type Value = u64;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Somebody asks.
    Begin {
        /// Its number.
        op: Op,
        /// Microseconds since any moment, the same for all lines; only their order is used.
        at_us: u64,
        /// Who asks: the operations of a session follow each other.
        session: u32,
        /// The key.
        key: String,
        /// What is asked.
        what: What,
        /// The operation whose answer brought the context that is sent along; none = no context.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<Op>,
        /// The levels asked for.
        with: Levels,
    },
    /// The answer is heard.
    End {
        /// Which operation.
        op: Op,
        /// When, as above.
        at_us: u64,
        /// What it said.
        reply: Reply,
    },
    /// A write may be lost without blame, whatever was said of it: it asked for no fsync, and all that held it lost power.
    Exempt {
        /// Which write.
        op: Op,
        /// What happened.
        why: String,
    },
    /// Faults are over, and repair was given its time. What follows is the end of the history.
    Settled {
        /// When, as above.
        at_us: u64,
    },
    /// What one disk holds of a key in the end.
    Held(Held),
    /// How many hints a node still keeps in the end.
    Hints {
        /// The node.
        node: u32,
        /// How many.
        count: u64,
    },
    /// In which format the history is written.
    Format(u32),
    /// This one works in a session: it sends along what it has seen, and is promised more for it.
    InSession {
        /// Who.
        session: u32,
    },
    /// Somebody asks about a value that is no register.
    Asked(Asked),
    /// The answer is heard.
    Answered(Answered),
    /// What one disk holds of such a value in the end.
    Keeps(Keeps),
    /// Something was broken on purpose, or healed. The judges do not hear it; it is there for people.
    Fault {
        /// When, as above.
        at_us: u64,
        /// The kind of fault: `kill`, `partition`, ...; none: something was healed, or put off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
        /// What happened, to whom, in a few words.
        says: String,
    },
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its value is the operation's number.
    Put,
    /// Of what was seen.
    Delete,
    /// All siblings.
    Get,
}

/// The levels of a request, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// Owners that take part.
    pub n: u8,
    /// Answers that a read waits for, or acknowledgements that a write waits for.
    pub need: u8,
    /// Of those, from owners; equal to `need` in strict requests.
    pub owners: u8,
    /// Of a write's, fsynced.
    pub durable: u8,
    /// A read that answers when as many replicas as it needed hold what it says.
    #[serde(default)]
    pub blocking: bool,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A write is acknowledged.
    Stored {
        /// Its event.
        dot: Dot,
        /// Whether a context came with it.
        context: bool,
        /// What is wrong with its receipt, if anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        untrue: Option<String>,
    },
    /// A read has its answer.
    Found {
        /// The siblings: value and event.
        values: Vec<(Value, Dot)>,
        /// Whether a context came with it.
        context: bool,
    },
    /// It did not succeed.
    Failed {
        /// What that left behind.
        effect: Effect,
        /// The error's word.
        code: String,
    },
    /// No answer ever came: the client gave up, or was killed.
    Silence,
}

/// An event as it travels: node, incarnation, counter.
pub type Dot = (u32, u32, u64);

/// What a failed request has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing: the write exists nowhere, and never will.
    NotApplied,
    /// So many replicas have it fsynced.
    Applied(u8),
    /// Nobody knows.
    Unknown,
}

/// What one disk holds of a key in the end. An owner without a record is written down, too: it holds and knows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Whose disk.
    pub node: u32,
    /// The key.
    pub key: String,
    /// Whether the node owns the key. Records at others are strays.
    pub owner: bool,
    /// Whether it can be read.
    pub readable: bool,
    /// What is alive: value and event.
    pub values: Vec<(Value, Dot)>,
    /// Which events are known: node, incarnation, after, up to. In order, disjoint.
    pub context: Vec<(u32, u32, u64, u64)>,
}
