//! What may be answered.
//!
//! A reply carries the epoch of its sender and either the body that belongs to the request's kind or a
//! [`Failure`]. Fields marked "tail" are the raw bytes behind the header.

use atoll_ring::Epoch;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    BucketId, Commit, Covering, Dumped, Explained, Failure, FaultsReport, Listed, ManyReply,
    MovesReport, Proposed, RaftReply, RepairReport, Role, Roots, Scanned, Times, Trace,
};

/// A dot as it travels: the actor's node and incarnation, and the counter.
pub type DotParts = (u32, u32, u64);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a hello.
    Welcome(Welcome),
    /// To a ping.
    Pong(Pong),
    /// To a view query.
    View(ViewReply),
    /// To a status query.
    Status(Box<NodeStatus>),
    /// To a write.
    Written(Stored),
    /// To a get.
    Found(Found),
    /// To many.
    Many(ManyReply),
    /// To a list.
    Listed(Listed),
    /// To a question what would happen.
    Explained(Box<Explained>),
    /// To a replicate.
    Replicated(Replicated),
    /// To a fetch.
    Fetched(Fetched),
    /// To a query for the state of repair.
    RepairStatus(RepairReport),
    /// To a demand to compare.
    RepairRun(RepairStarted),
    /// To a dump.
    Dumped(Dumped),
    /// To a question about faults, or a command.
    Faults(Box<FaultsReport>),
    /// To a proposal.
    Proposed(Proposed),
    /// To a query for moves.
    Moves(MovesReport),
    /// To a change of buckets.
    BucketChanged(BucketChanged),
    /// To a query for buckets.
    Buckets(Buckets),
    /// To a message between voters.
    Raft(RaftReply),
    /// To a copy: a page.
    Copied(Dumped),
    /// To a question about rows.
    Covering(Covering),
    /// To a scan.
    Scanned(Scanned),
    /// To a recall.
    Recalled(Recalled),
    /// To a comparison of roots, or of places in a tree.
    Differing(Differing),
    /// To a comparison of entries.
    Unmatched(Unmatched),
    /// To anything.
    Failed(Box<Failure>),
}

/// The lane is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Who answers.
    pub node: u32,
    /// Its cluster.
    pub cluster: [u8; 16],
    /// The role in which it accepted the speaker.
    pub role: Role,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Who answers.
    pub node: u32,
    /// Its incarnation.
    pub incarnation: u32,
    /// The last commit that it has fsynced.
    pub commit: Commit,
    /// What it holds of the partitions that both own.
    pub roots: Roots,
    /// Milliseconds since 1970 by its wall clock.
    pub wall_ms: u64,
    /// The digest of the buckets that it knows.
    pub buckets: u64,
}

/// A bucket is as was asked, on stable storage where it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketChanged {
    /// Which bucket; zeros when a registry was taken over.
    pub bucket: BucketId,
    /// Whether it was not so before.
    pub changed: bool,
    /// The nodes that know it so by now.
    pub known: Vec<u32>,
    /// The members that do not yet: they will hear of it from any of the others.
    pub missing: Vec<u32>,
}

/// All buckets that a node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    /// The digest of them.
    pub digest: u64,
    /// Tail: the [`crate::bucket::Registry`]; empty if the asker knows the same.
    #[serde(skip)]
    pub registry: Bytes,
}

/// A view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewReply {
    /// Tail: the [`atoll_ring::Update`] in postcard.
    #[serde(skip)]
    pub view: Bytes,
}

/// How a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: u32,
    /// Its incarnation.
    pub incarnation: u32,
    /// Epoch of its view.
    pub epoch: u64,
    /// The version of the program.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Milliseconds since 1970 by its wall clock; shown so that a clock that is off can be seen.
    pub wall_ms: u64,
    /// By how many milliseconds it is ahead of the middle of all clocks that the node has compared.
    pub clock_ahead_ms: i64,
    /// Why the node takes no writes that go by time; empty = it does.
    pub clock_problem: String,
    /// Resident memory in bytes; 0 where the system does not tell.
    pub resident_bytes: u64,
    /// Microseconds of processor time this process has used; 0 where the system does not tell.
    pub cpu_micros: u64,
    /// Rows in the data keyspace, tombstones included; an estimate of the storage engine.
    pub keys: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes free for it on the disk; 0 where the system does not tell.
    pub free_bytes: u64,
    /// Why the node takes no writes; empty = it does.
    pub read_only: String,
    /// When its certificate expires, milliseconds since 1970; 0 = not known.
    pub certificate_expires_ms: u64,
    /// Why the certificate that lies on its disk cannot take the place of the one it shows; empty = it need not, or has.
    pub certificate_problem: String,
    /// Number of the last commit that is on stable storage.
    pub durable_sequence: u64,
    /// What the node waits for before it serves anybody; empty = it serves.
    pub rising: String,
    /// Why the node doubted what it holds when it started; empty = it did not.
    pub doubt: String,
    /// Partitions of which its answers do not count, because it has not been compared with every other owner.
    pub partitions_in_doubt: u32,
    /// Keys of which its answers do not count, because its record was damaged.
    pub keys_in_doubt: u64,
    /// Keys that are deleted and remembered as such.
    pub tombstones: u64,
    /// Records that the running scrub has read, and how many there were when it began.
    pub scrubbed: (u64, u64),
    /// Full scrubs since the start.
    pub scrubs: u64,
    /// Hints kept for others.
    pub hints: u64,
    /// Bytes of them.
    pub hint_bytes: u64,
    /// Hints that could not be kept because of a bound.
    pub hints_refused: u64,
    /// Damaged records met since the start.
    pub corrupt_records: u64,
    /// Keys that a read repair has mended since the start.
    pub repaired: u64,
    /// Keys that were found different by a comparison of trees, and mended, since the start.
    pub exchanged: u64,
    /// Milliseconds since the partition that was compared least lately was last found equal, or made equal, with another
    /// owner; `u64::MAX` = never since the start.
    pub compared_ms_ago: u64,
    /// Requests coordinated since the start: puts and deletes, gets.
    pub writes: u64,
    /// Gets coordinated since the start.
    pub reads: u64,
    /// Questions put to one owner more because another was slower than usual, since the start.
    pub hedges: u64,
    /// How long puts and deletes took that it has coordinated and answered as asked, from their arrival to the answer, since
    /// the start.
    pub write_times: Times,
    /// How long gets took, likewise.
    pub read_times: Times,
    /// Requests that it has coordinated and could not answer as asked, because too few owners answered or time was over,
    /// since the start.
    pub unmet: u64,
    /// Gets in which an owner answered with less than was found, since the start. Owners that were not needed for the answer
    /// do not count, so a get with r = 1 never does.
    pub reads_behind: u64,
    /// What it knows of the other nodes.
    pub peers: Vec<PeerStatus>,
}

/// What a node knows of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The other.
    pub node: u32,
    /// Whether it has answered lately.
    pub up: bool,
    /// Smoothed round trip in microseconds, 0 = never measured.
    pub round_trip_micros: u32,
    /// Hints kept for it.
    pub hints: u64,
    /// Why it counts as down, for people.
    pub reason: String,
}

/// A write is stored as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Token of the request's context plus the write's own event, never more.
    pub context: Bytes,
    /// The same and what the session had seen before; empty without a session.
    pub session: Bytes,
    /// The write's own event.
    pub dot: DotParts,
    /// Who answered.
    pub receipt: Receipt,
}

/// What a read found. Nothing to be shown and an empty context: never written; nothing and a context: deleted, or over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Token of the joined context: covers everything shown here and all that it replaced.
    pub context: Bytes,
    /// Who answered.
    pub receipt: Receipt,
    /// Tail: the canonical bytes of a reading; `antientropy` says how.
    #[serde(skip)]
    pub reading: Bytes,
}

/// A state is joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicated {
    /// It is fsynced.
    pub durable: bool,
    /// What was done for it, if that was asked.
    pub trace: Option<Box<Trace>>,
}

/// The state of a key at one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Whether the replica has a record, be it a tombstone; a fallback, whether it holds a hint.
    pub known: bool,
    /// The replica may have lost something of this key: the state can be joined, and the answer does not count.
    pub in_doubt: bool,
    /// What was done for it, if that was asked.
    pub trace: Option<Box<Trace>>,
    /// Tail: the canonical bytes of the state; empty if not known.
    #[serde(skip)]
    pub state: Bytes,
}

/// Who took part in an answer, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Epoch of the view it was planned and counted with.
    pub epoch: Epoch,
    /// The node that coordinated.
    pub coordinator: u32,
    /// Owners asked to take part.
    pub n: u8,
    /// Answers needed.
    pub needed: u8,
    /// Of those, from owners: pr or pw.
    pub owners_needed: u8,
    /// Of those, fsynced; 0 for reads.
    pub durable_needed: u8,
    /// One line per owner, in the order of the view, then one per fallback that was asked.
    pub replicas: Vec<ReplicaReport>,
    /// Owners for which a hint is kept, at the coordinator or at a fallback.
    pub hinted: Vec<u32>,
    /// Owners that missed the write and for which no hint could be kept, because of the bound on hints.
    pub unhinted: Vec<u32>,
    /// Owners to which the joined state is being sent, because theirs was behind.
    pub repaired: Vec<u32>,
    /// What was done for it on each node, if that was asked.
    pub trace: Option<Box<Trace>>,
}

impl Receipt {
    /// What the answer stands for, as far as the request's settings decide it.
    pub fn promise(&self) -> Promise {
        match self.owners_needed {
            0 => Promise::Eventual,
            // r + w > n, and no answer that is no owner's: design, section 1
            counted => Promise::Strict { meets: self.n.saturating_sub(counted) + 1 },
        }
    }
}

/// What an answer stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Answers of this request and of one on the other side have an owner in common, if that one waits for at least so
    /// many owners: a read with r + w > n sees the write.
    Strict {
        /// Owners that the other request must have waited for.
        meets: u8,
    },
    /// A fallback may have counted. What was written will be seen some time.
    Eventual,
}

impl Promise {
    /// The word for people and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Promise::Strict { .. } => "strict",
            Promise::Eventual => "eventual",
        }
    }
}

/// What one replica did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// The replica.
    pub node: u32,
    /// The owner it stands in for, if it is a fallback.
    pub stands_in_for: Option<u32>,
    /// What it did.
    pub outcome: Outcome,
    /// Microseconds from the start of the request at its coordinator to the answer.
    pub micros: u32,
}

/// What a replica did until the client was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Has it on stable storage.
    Durable,
    /// Has it, not yet fsynced.
    Written,
    /// Answered a read with all that was found.
    Current,
    /// Answered a read with less than was found.
    Behind,
    /// Was not needed, and not asked.
    NotAsked,
    /// Has not answered yet.
    Pending,
    /// Was known to be unreachable.
    Down,
    /// Did not answer in time.
    Silent,
    /// Has a damaged record.
    Corrupt,
    /// Refused.
    Refused,
    /// Is a fallback and holds nothing of the key: no answer, and no not-found.
    KnowsNothing,
    /// Is a fallback and may keep no more hints for this owner.
    HintsFull,
    /// Answered a read, but may have lost something of this key; what it holds was joined, and did not count.
    InDoubt,
}

impl Outcome {
    /// The word for people and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Durable => "durable",
            Outcome::Written => "written",
            Outcome::Current => "current",
            Outcome::Behind => "behind",
            Outcome::NotAsked => "not asked",
            Outcome::Pending => "pending",
            Outcome::Down => "down",
            Outcome::Silent => "silent",
            Outcome::Corrupt => "corrupt",
            Outcome::Refused => "refused",
            Outcome::KnowsNothing => "knows nothing",
            Outcome::HintsFull => "hint store full",
            Outcome::InDoubt => "in doubt",
        }
    }
}

/// Comparisons have been put first in line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStarted {
    /// How many partitions.
    pub partitions: u32,
}

/// What a node remembers of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalled {
    /// Whether its word counts: a node that has not found out yet whether it lost memory itself may have forgotten.
    pub vouches: bool,
    /// The highest incarnation it has heard of.
    pub incarnation: u32,
    /// The last commit it was told of, under that incarnation.
    pub commit: Commit,
}

/// Which of the things compared are different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differing {
    /// Tail: 16 bits per place asked about, one for each child, the lowest first; behind those for roots the depths of the
    /// trees that differ.
    #[serde(skip)]
    pub which: Bytes,
}

/// Which entries have no equal on the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmatched {
    /// Tail: places of the asker's fingerprints that are not here, and the keys of those here that the asker has not;
    /// `antientropy` says how.
    #[serde(skip)]
    pub entries: Bytes,
}
