//! What may be asked.
//!
//! Every request travels with an [`Envelope`]: what is true of all of them. Fields marked "tail" are the raw bytes
//! behind the header and are never copied by the codec.

use atoll_ring::{Epoch, QuorumRequest};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BucketId, Kind, Role};

/// What every request carries, whatever it asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The view the sender planned with.
    pub epoch: Epoch,
    /// Milliseconds left of the whole request when it was sent. The receiver drops the work when they are over.
    pub left_ms: u32,
    /// The same for every hop and repetition of one operation; drawn at random by the client.
    pub operation: u128,
    /// The bucket spoken about.
    pub bucket: BucketId,
    /// The role the sender speaks in; must be in its certificate.
    pub role: Role,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// First on every lane: who I am. Until it is answered a peer does not count as up.
    Hello(Hello),
    /// Are you there, and which view have you?
    Ping(Ping),
    /// Give me your view.
    View(ViewQuery),
    /// How are you?
    Status(StatusQuery),
    /// Store a value.
    Put(Put),
    /// Read all current values.
    Get(Get),
    /// Delete what I have seen.
    Delete(Delete),
    /// Join this state into yours.
    Replicate(Replicate),
    /// Give me your state of a key.
    Fetch(Fetch),
}

impl Request {
    /// The kind it travels as.
    pub fn kind(&self) -> Kind {
        match self {
            Request::Hello(_) => Kind::Hello,
            Request::Ping(_) => Kind::Ping,
            Request::View(_) => Kind::View,
            Request::Status(_) => Kind::Status,
            Request::Put(_) => Kind::Put,
            Request::Get(_) => Kind::Get,
            Request::Delete(_) => Kind::Delete,
            Request::Replicate(_) => Kind::Replicate,
            Request::Fetch(_) => Kind::Fetch,
        }
    }
}

/// Which of the streams to a peer: traffic of one class does not hold up another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Pings, views, status: small and never late.
    Control,
    /// What a client is waiting for.
    Request,
    /// Hints and repair: may wait.
    Bulk,
}

impl Lane {
    /// All lanes, in the order of their index.
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Request, Lane::Bulk];
}

/// Who opens this lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Which lane the stream shall be.
    pub lane: Lane,
    /// The node that speaks, if it is one. Its certificate must name it.
    pub node: Option<u32>,
    /// The cluster the speaker belongs to, if it knows.
    pub cluster: Option<[u8; 16]>,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The sender.
    pub node: u32,
    /// The sender's incarnation.
    pub incarnation: u32,
}

/// Asks for the current view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewQuery {}

/// Asks a node about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusQuery {}

/// Stores a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key, 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// The context token of what the writer has seen; empty = nothing, so the value becomes a sibling of whatever is there.
    pub context: Bytes,
    /// n, w, pw, dw, sloppy.
    pub quorum: QuorumRequest,
    /// How often the request was handed from node to node.
    pub hops: u8,
    /// Tail: the value.
    #[serde(skip)]
    pub value: Bytes,
}

/// Reads a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The key.
    pub key: Bytes,
    /// n, r, pr, sloppy.
    pub quorum: QuorumRequest,
    /// What happens to owners that turn out to be behind.
    pub repair: Repair,
}

/// What a read does for owners that hold less than it found.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Repair {
    /// They get the joined state after the client has its answer.
    #[default]
    Async,
    /// The client has its answer when as many replicas as the read needed hold, fsynced, what it found. A later read that
    /// meets one of them sees no less.
    Blocking,
    /// Nothing.
    None,
}

impl Repair {
    /// All of them.
    pub const ALL: [Repair; 3] = [Repair::Async, Repair::Blocking, Repair::None];

    /// The word for settings.
    pub fn word(self) -> &'static str {
        match self {
            Repair::Async => "async",
            Repair::Blocking => "blocking",
            Repair::None => "none",
        }
    }
}

/// Deletes what the writer has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// The key.
    pub key: Bytes,
    /// The context token of what shall go. Never empty: a delete without a context is an error.
    pub context: Bytes,
    /// n, w, pw, dw, sloppy.
    pub quorum: QuorumRequest,
    /// How often the request was handed from node to node.
    pub hops: u8,
}

/// When a replica shall acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ack {
    /// As soon as reads would see it.
    Written,
    /// When it is fsynced.
    Durable,
}

/// Joins a state into the receiver's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicate {
    /// The key.
    pub key: Bytes,
    /// When to answer.
    pub ack: Ack,
    /// The state is the join of every other owner's, so it may take the place of a damaged record.
    pub replaces_corrupt: bool,
    /// The receiver is no owner: it shall keep the state as a hint for this one.
    pub hint_for: Option<u32>,
    /// Tail: the canonical bytes of a state or delta.
    #[serde(skip)]
    pub state: Bytes,
}

/// Asks for the receiver's own state of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The key.
    pub key: Bytes,
    /// Answer after the commit that holds what is answered: no crash takes it back.
    pub durable: bool,
    /// The receiver is no owner: it shall answer with the hints it holds for the key.
    pub hints: bool,
}
