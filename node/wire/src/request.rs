//! What may be asked.
//!
//! Every request travels with an [`Envelope`]: what is true of all of them. Fields marked "tail" are the raw bytes
//! behind the header and are never copied by the codec.

use atoll_antientropy::Operation;
use atoll_ring::{Epoch, QuorumRequest};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    BucketId, Copy, Covered, Explain, FaultsRequest, Kind, List, Many, MovesQuery, Propose, Raft,
    Role, Scan,
    bucket::{Alteration, Creation},
};

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
    /// Whoever works on it notes its steps, see [`crate::Trace`].
    pub trace: bool,
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
    /// Change a key.
    Write(Write),
    /// Read what there is.
    Get(Get),
    /// Several of these, each about a key of its own.
    Many(Many),
    /// Which keys have a value?
    List(List),
    /// What would happen to a request?
    Explain(Explain),
    /// Join this state into yours.
    Replicate(Replicate),
    /// Give me your state of a key.
    Fetch(Fetch),
    /// How does your repair stand?
    RepairStatus(RepairQuery),
    /// Compare now.
    RepairRun(RepairRun),
    /// Give me your raw states.
    Dump(Dump),
    /// What goes wrong on you, on purpose; or what shall?
    Faults(FaultsRequest),
    /// Change the ring.
    Propose(Propose),
    /// How do your moves go?
    Moves(MovesQuery),
    /// Create, alter or drop a bucket, or take over what I know of them.
    BucketChange(BucketChange),
    /// Which buckets do you know?
    Buckets(BucketsQuery),
    /// What do you remember of me?
    Recall(Recall),
    /// Which of our partitions differ?
    CompareRoots(CompareRoots),
    /// Which places below these differ?
    Compare(Compare),
    /// Which keys in these leaves differ?
    Entries(Entries),
    /// A message between voters.
    Raft(Raft),
    /// Give me your rows of a partition that I join.
    Copy(Copy),
    /// Which of these do you hold?
    Covered(Covered),
    /// What do you hold of this bucket?
    Scan(Scan),
}

impl Request {
    /// The kind it travels as.
    pub fn kind(&self) -> Kind {
        match self {
            Request::Hello(_) => Kind::Hello,
            Request::Ping(_) => Kind::Ping,
            Request::View(_) => Kind::View,
            Request::Status(_) => Kind::Status,
            Request::Write(_) => Kind::Write,
            Request::Get(_) => Kind::Get,
            Request::Many(_) => Kind::Many,
            Request::List(_) => Kind::List,
            Request::Explain(_) => Kind::Explain,
            Request::Replicate(_) => Kind::Replicate,
            Request::Fetch(_) => Kind::Fetch,
            Request::RepairStatus(_) => Kind::RepairStatus,
            Request::RepairRun(_) => Kind::RepairRun,
            Request::Dump(_) => Kind::Dump,
            Request::Faults(_) => Kind::Faults,
            Request::Propose(_) => Kind::Propose,
            Request::Moves(_) => Kind::Moves,
            Request::BucketChange(_) => Kind::BucketChange,
            Request::Buckets(_) => Kind::Buckets,
            Request::Raft(_) => Kind::Raft,
            Request::Copy(_) => Kind::Copy,
            Request::Covered(_) => Kind::Covered,
            Request::Scan(_) => Kind::Scan,
            Request::Recall(_) => Kind::Recall,
            Request::CompareRoots(_) => Kind::CompareRoots,
            Request::Compare(_) => Kind::Compare,
            Request::Entries(_) => Kind::Entries,
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
    /// The last commit that the sender has fsynced. The receiver remembers it, see [`Recall`].
    pub commit: Commit,
    /// What the sender holds of the partitions that both own.
    pub roots: Roots,
    /// The digest of the buckets that the sender knows.
    pub buckets: u64,
}

/// A commit: its number, and a fingerprint of it and all before it. Two histories with the same number and different
/// chains are not the same history.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Commit {
    /// From 1; 0 = none.
    pub sequence: u64,
    /// The first 8 bytes of blake3 over the chain before and what this commit wrote.
    pub chain: u64,
}

/// The trees of all partitions that two nodes share, in one number. Equal numbers under the same epoch: equal states, so
/// that equality costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// The combination of the roots.
    pub sum: u64,
    /// Whether the sender may say so: a node in doubt confirms no equality.
    pub vouched: bool,
}

/// Asks for the current view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewQuery {
    /// The epoch of the view that the asker has; 0 = none. Whoever is a little behind gets what has changed since.
    pub have: u64,
}

/// Asks a node about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusQuery {}

/// Changes what is known of buckets. Whoever is asked does it alone, tells all it can reach, and says who has heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketChange {
    /// What shall change.
    pub change: Change,
    /// Tail: the sender's registry, if it is to be taken over.
    #[serde(skip)]
    pub registry: Bytes,
}

/// What shall change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// There shall be such a bucket.
    Create(Creation),
    /// Its properties shall be others.
    Alter(BucketId, Alteration),
    /// It shall be gone, with all its data.
    Drop(BucketId),
    /// Whatever the sender knows, which is a node.
    Join,
}

/// Asks for all buckets that the receiver knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketsQuery {
    /// The digest of what the asker knows; 0 = nothing. Whoever knows the same answers with nothing.
    pub have: u64,
}

/// Changes a key: a put, a delete, or whatever its kind of value allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The key, 1 to [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// The context token of what the writer has seen; empty = it says nothing, so a value becomes a sibling of whatever is
    /// there, and what takes something away is preceded by a strict read.
    pub context: Bytes,
    /// The context token of what the writer's session has seen of the key, empty = nothing yet: the change comes after all of
    /// that. None = no session.
    pub session: Option<Bytes>,
    /// n, w, pw, dw, sloppy; r for the read that precedes what takes something away.
    pub quorum: QuorumRequest,
    /// How long the value shall be shown, in milliseconds from its coordinator's receipt; none = as the bucket says,
    /// [`Write::FOR_EVER`] = without an end whatever the bucket says.
    pub ttl_ms: Option<u64>,
    /// How often the request was handed from node to node.
    pub hops: u8,
    /// Tail: the canonical bytes of an operation; `antientropy` says how.
    #[serde(skip)]
    pub operation: Bytes,
}

impl Write {
    /// A value that is shown without an end.
    pub const FOR_EVER: u64 = u64::MAX;

    /// A change by somebody who says nothing of what was seen.
    pub fn new(key: Bytes, quorum: QuorumRequest, operation: &Operation) -> Self {
        Write {
            key,
            context: Bytes::new(),
            session: None,
            quorum,
            ttl_ms: None,
            hops: 0,
            operation: operation.encode().into(),
        }
    }

    /// A put by somebody who says nothing of what was seen.
    pub fn put(key: Bytes, quorum: QuorumRequest, value: Bytes) -> Self {
        Self::new(key, quorum, &Operation::Put { value, expires_ms: None })
    }
}

/// Reads a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The key.
    pub key: Bytes,
    /// The context token of what the reader's session has seen of the key, empty = nothing yet: the answer knows all of that,
    /// and no crash takes it back. None = no session.
    pub session: Option<Bytes>,
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
    /// The client has its answer when so many replicas hold, fsynced, what it found, that any later read of as many meets
    /// one of them: n - r + 1, and not fewer than r. Such reads never go back.
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

/// Asks for the state of repair, partition by partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairQuery {}

/// Asks the receiver to compare with every other owner, at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRun {
    /// One partition; none = all that the receiver owns.
    pub partition: Option<u16>,
    /// Somebody has decided that keys which are damaged or in doubt on every owner are what is left of them.
    pub accept_loss: bool,
}

/// Asks for raw states of one partition as they lie on the receiver's disk, a page at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// The partition.
    pub partition: u16,
    /// What is kept for others instead of the own records.
    pub hints: bool,
    /// The row after which to go on; empty = from the beginning.
    pub after: Bytes,
}

/// Asks what the receiver remembers of the sender, before the sender gives out its first dot after a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// The sender.
    pub node: u32,
}

/// The roots of the partitions that both own, as the leaves of a tree in the order of the partitions: the hashes of the
/// children of some of its places, so that many equal partitions cost little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareRoots {
    /// Tail: how deep the places lie (one byte), then per place its path and the hashes of its children; `antientropy` says
    /// how.
    #[serde(skip)]
    pub roots: Bytes,
}

/// The hashes of the children of some places of a partition's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The partition.
    pub partition: u16,
    /// Which tree of the partition: that of buckets with so many copies.
    pub n: u8,
    /// How deep the places lie; 0 = the root.
    pub level: u8,
    /// Tail: per place its path and the hashes of its children; `antientropy` says how.
    #[serde(skip)]
    pub hashes: Bytes,
}

/// The fingerprints of all keys in some places of a partition's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The partition.
    pub partition: u16,
    /// Which tree of the partition.
    pub n: u8,
    /// How deep the places lie.
    pub level: u8,
    /// Tail: per place its path and the fingerprints; `antientropy` says how.
    #[serde(skip)]
    pub fingerprints: Bytes,
}
