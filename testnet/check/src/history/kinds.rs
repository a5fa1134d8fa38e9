//! The lines about values that are no registers, or are registers inside maps.
//!
//! ```text
//! {"asked":{"op":7,"at_us":1200,"session":2,"key":"set/a","touches":[{"place":"","deed":{"add":["x"]}}],"context":null,...}}
//! {"answered":{"op":7,"at_us":3400,"reply":{"stored":{"dot":[1,1,9]}}}}
//! {"keeps":{"node":1,"key":"set/a","owner":true,"readable":true,"shown":[["",{"elements":["x"]}]],"context":[[1,1,0,9]]}}
//! ```
//!
//! A value is told as **places**: one, `""`, for a value that is no map; one per field for a map, named by the way to it. So
//! each judge sees one kind in one place, wherever that lies.
//!
//! **What was seen** stands here as an exact context, which whoever records takes out of the token: with a change what its
//! writer says, with an answer what it claims to know.

use serde::{Deserialize, Serialize};

use super::{Dot, Effect, Levels, Op};

/// Exactly which events: node, incarnation, after, up to. In order, disjoint.
pub type Known = Vec<(u32, u32, u64, u64)>;

/// Somebody asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its number, in one row with those of all other operations.
    pub op: Op,
    /// As in [`super::Event::Begin`].
    pub at_us: u64,
    /// Who asks.
    pub session: u32,
    /// The key, with its bucket before it.
    pub key: String,
    /// What is changed; nothing: it is a read.
    pub touches: Vec<Touch>,
    /// What the writer says that it has seen; none = it says nothing.
    pub context: Option<Known>,
    /// The levels asked for.
    pub with: Levels,
}

/// What happens to one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// Where.
    pub place: String,
    /// What.
    pub deed: Deed,
}

/// What a change does to one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Counter: this session has added so much in all, with its change of this number.
    Count {
        /// The session's number in counters.
        by: u64,
        /// Which change.
        sequence: u64,
        /// All of it.
        total: i64,
    },
    /// Counter: so much more, whenever it is carried out.
    Once(i64),
    /// Set.
    Add(Vec<String>),
    /// Set.
    Remove(Vec<String>),
    /// Flag.
    Enable,
    /// Flag.
    Disable,
    /// Max.
    Raise(i64),
    /// Lww: the value is the operation's number.
    Stamp,
    /// A register in a map: likewise.
    Put,
    /// What was seen of this place, and of all below it, goes.
    Clear,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A change is acknowledged.
    Stored {
        /// Its event.
        dot: Dot,
    },
    /// A read has its answer.
    Found {
        /// What is there, place by place; places with nothing are left out.
        shown: Vec<(String, Shown)>,
        /// What the answer claims to know.
        context: Known,
    },
    /// It did not succeed.
    Failed {
        /// What that left behind.
        effect: Effect,
        /// The error's word.
        code: String,
    },
    /// No answer ever came.
    Silence,
}

/// The answer is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Which operation.
    pub op: Op,
    /// When.
    pub at_us: u64,
    /// What it said.
    pub reply: Told,
}

/// What one place shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// Counter.
    Number(i64),
    /// Set, ascending.
    Elements(Vec<String>),
    /// Flag.
    IsOn(bool),
    /// Max.
    Greatest(i64),
    /// Lww: who wrote it.
    Latest(Op),
    /// A register in a map: who wrote them, ascending.
    Values(Vec<Op>),
}

/// What one disk holds of such a key in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeps {
    /// Whose disk.
    pub node: u32,
    /// The key, with its bucket before it.
    pub key: String,
    /// Whether the node owns the key.
    pub owner: bool,
    /// Whether it can be read.
    pub readable: bool,
    /// A fingerprint of all that it holds: equal states, equal fingerprints.
    pub digest: u64,
    /// What it shows.
    pub shown: Vec<(String, Shown)>,
    /// What it knows.
    pub context: Known,
}
