//! The node: everything that waits.
//!
//! Follow one PUT: [`node`] takes the request from the transport and routes it, `coordinate/write` tells its story
//! (turn, delta, other owners, tally, receipt), `replica` is the other owners' part, [`storage`] makes it last, `hints`
//! keeps it for whoever was silent. A GET is told in `coordinate/get`; `repair` compares owners when nobody asks. What decides (quorums, joins, placement) is pure
//! and lives in `ring` and `antientropy`; here it is only asked.
//!
//! One runtime thread runs all of this. Nothing holds a lock across an await, and a **key's turn** is a stretch of code
//! without an await: read the own record, join, take a dot, queue the write. That is why no two puts of a key can read
//! the same record, without any lock on keys.

mod buckets;
pub mod canary;
pub mod clock;
pub mod config;
mod coordinate;
mod doubt;
mod dump;
mod explain;
pub mod faults;
mod fence;
mod headroom;
mod hedge;
mod hints;
mod hybrid;
mod leases;
mod liveness;
mod measured;
pub mod membership;
mod memory;
mod moves;
pub mod node;
mod pace;
pub mod recovery;
mod repair;
mod replica;
mod rise;
pub mod run;
pub mod storage;
mod trace;

pub use clock::{Clock, SimulatedClock, SkewedClock, SystemClock};
pub use config::{ConfigError, NodeConfig};
pub use faults::StandingFaults;
pub use hints::HintLimits;
pub use hybrid::CLOCK_BOUND;
pub use membership::{FixedMembers, LogStanding, MembershipLog, NotProposed};
pub use node::{Node, Parts, Past};
pub use recovery::{Recovery, RecoveryError};
pub use repair::scrub::SCRUB_PERIOD;
pub use run::{RunError, run};
pub use storage::faulty::Faults;
pub use trace::TRACES_MAX;
