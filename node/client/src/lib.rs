//! The Rust client that others embed.
//!
//! [`Client::connect`] takes a [`Profile`] (addresses of any nodes, and who we are), learns the view from the first node
//! that answers, and keeps connections to all members. Each request goes to an owner of its key; the owner coordinates.
//! Every answer brings the values or the effect, a context to hand back with the next write, and a receipt.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use atoll_client::{Client, Options, Profile};
//!
//! let client = Client::connect(&Profile::load("profile.toml".as_ref())?).await?;
//! let read = client.get(b"cart:7", &Options::default()).await?;
//! client.put(b"cart:7", "two apples", read.context.as_ref(), &Options::default()).await?;
//! client.close().await;
//! # Ok(())
//! # }
//! ```

mod buckets;
mod connect;
mod error;
mod in_flight;
mod keys;
mod many;
mod operator;
mod options;
mod profile;
mod request;
mod retries;
mod ring;
mod session;

pub use atoll_antientropy::{
    Actor, Context, ContextToken, Dot, Field, FieldChange, Increment, Kind, Operation, Reading,
    Sibling,
};
pub use atoll_ring::{Because, Consistency, Level, Loss, NodeId, QuorumRequest, Tolerance, View};
pub use atoll_wire::{
    BucketChanged, BucketId, Deed, Dump, Dumped, DumpedRow, Effect, ErrorCode, Expected, Explained,
    Failure, Health, Measured, MoveReport, MovesReport, NodeStatus, Outcome, PartitionRepair,
    PeerStatus, Promise, Receipt, Repair, Replica, ReplicaReport, Step, Trace,
};

pub use atoll_wire::bucket;
pub use connect::Client;
pub use error::{ConnectError, RequestError};
pub use keys::KeysPage;
pub use many::KeyChange;
pub use options::{Options, TIMEOUT, Ttl};
pub use profile::{Profile, ProfileError};
pub use request::{Explanation, GetReply, ReadReply, Value, WriteReply};
pub use ring::ProposeError;
pub use session::{
    SESSION_KEYS_MAX, Session, SessionState,
    file::{SessionFile, SessionFileError},
};
