//! What nodes and clients say to each other.
//!
//! Read in this order: [`frame`] is the envelope of bytes, [`request`] what may be asked, [`reply`] what may be
//! answered, [`failure`] the numbers of everything that can go wrong, [`role`] who may ask what, [`limits`] how large
//! anything may be, [`bucket`] what names stand for, [`membership`] changes of the ring, [`explain`] what would
//! happen to a request, [`trace`] what did, [`tails`] the long lists, [`times`] how long things took, [`faults`] what shall go
//! wrong on purpose. Nothing here waits or touches a socket.
//!
//! Message structs are frozen per protocol version, from the first release on: postcard does not survive an added field.
//! A new field is a new kind or a new version of [`ALPN`].

pub mod bucket;
pub mod explain;
pub mod failure;
pub mod faults;
pub mod frame;
pub mod keys;
pub mod limits;
pub mod many;
pub mod membership;
mod receipt;
pub mod reply;
pub mod request;
pub mod role;
pub mod tails;
pub mod times;
pub mod trace;

pub use bucket::BucketId;
pub use explain::{Expected, Explain, Explained, Health, Measured, Replica};
pub use failure::{Effect, ErrorCode, Failure};
pub use faults::{FaultList, FaultListError, FaultsReport, FaultsRequest};
pub use frame::{Frame, FrameError, Kind};
pub use keys::{List, Listed, PageError, PageToken, Scan, Scanned, ScannedRow};
pub use many::{Ask, Many, ManyReply, One};
pub use membership::{
    Copy, Covered, Covering, MoveReport, MovesQuery, MovesReport, Propose, Proposed, Raft,
    RaftReply,
};
pub use reply::{
    BucketChanged, Buckets, Differing, DotParts, Fetched, Found, NodeStatus, Outcome, PeerStatus,
    Pong, Promise, Recalled, Receipt, RepairStarted, ReplicaReport, Replicated, Reply, Stored,
    Unmatched, ViewReply, Welcome,
};
pub use request::{
    Ack, BucketChange, BucketsQuery, Change, Commit, Compare, CompareRoots, Dump, Entries,
    Envelope, Fetch, Get, Hello, Lane, Ping, Recall, Repair, RepairQuery, RepairRun, Replicate,
    Request, Roots, StatusQuery, ViewQuery, Write,
};
pub use role::{Role, Roles};
pub use tails::{Dumped, DumpedRow, PartitionRepair, RepairReport};
pub use times::Times;
pub use trace::{Deed, Step, Trace};

/// The protocol version in the TLS handshake. A peer that offers no common version is refused there.
pub const ALPN: &[u8] = b"atoll/1";
