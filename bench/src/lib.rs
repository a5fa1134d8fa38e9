//! Load and staleness, measured.
//!
//! [`run`] puts load on a cluster, as much as a number of workers can or as much as a plan says, and tells what came of
//! it: how many operations per second, how long they took and what they cost, which failed, and how many reads missed a
//! write that had been acknowledged before they began. The last is judged by causality and not by clocks: every write's answer names its dot, every read's answer
//! carries a context, and a context either covers a dot or does not.
//!
//! ```text
//!   Run         settings.rs       what is asked for, and what is refused
//!   Keys        keys.rs           names, and who may write which key
//!   Zipf        distribution.rs   a few keys get most of the traffic
//!   History     history.rs        what was acknowledged, and the judge. Pure
//!   Visibility  visibility.rs     P(fresh | time since the newest ack). Pure
//!   Session     session.rs        read your writes, monotonic reads. Pure
//!   run         load.rs           from the first connection to the report
//!   Operation   operation.rs      what is to be done next, drawn
//!   Worker      worker.rs         one operation, or one after the other: the closed loop
//!   Known       known.rs          what a writer must pass with its next put
//!   Open        open.rs           the open loop; arrivals.rs plans it, pacer.rs wakes it on time
//!   Measure     measure.rs        what is counted on the way
//!   Record      record.rs         what was asked and heard, written to a file for the judges
//!   Nodes       nodes.rs          what it cost the nodes, by their own counters
//!   Report      report.rs         the document that comes out; in it schedule.rs, configuration.rs
//!   kinds       kinds.rs          what values that merge cost, beside a plain put
//!   TortureLoad torture.rs        no benchmark: a load of everything, recorded, while everything breaks
//!   machine.rs, progress.rs       what we run on; what is shown meanwhile
//! ```
//!
//! A **closed** loop has a number of workers: each sends its next operation when the last one is answered. When the
//! cluster stalls, so does the load, and a stall of a second costs each worker one slow operation and not a thousand. An
//! **open** loop sends at a planned rate, whatever has become of the earlier operations, and its latencies count from
//! the moment that was planned.

#![deny(missing_docs)]

mod arrivals;
mod configuration;
mod distribution;
mod history;
mod keys;
mod kinds;
mod known;
mod load;
mod machine;
mod measure;
mod nodes;
mod open;
mod operation;
mod pacer;
mod progress;
mod record;
mod report;
mod schedule;
mod session;
mod settings;
mod torture;
mod visibility;
mod worker;

pub use arrivals::Arrivals;
pub use configuration::Configuration;
pub use distribution::Zipf;
pub use history::{History, Snapshot, Verdict};
pub use keys::{KeyName, Keys};
pub use kinds::{KindsReport, KindsRun, Line, kinds};
pub use load::{RunError, run};
pub use machine::Machine;
pub use nodes::{NodeUse, Nodes};
pub use report::{
    Cluster, Latency, LoadGenerator, Operations, Preload, Report, SCHEMA, Sessions, Siblings,
    Staleness,
};
pub use schedule::{SLIP_P99_MS_MAX, Schedule};
pub use session::Violations;
pub use settings::{
    CONCURRENCY_DEFAULT, CONCURRENCY_MAX, CONNECTIONS_MAX, Distribution, KEYS_MAX, OPEN_SESSIONS,
    OUTSTANDING_MAX, OUTSTANDING_MAX_DEFAULT, OpenLoop, Pace, RATE_MAX, Run, SettingsError,
    Through,
};
pub use torture::{Note, Torture, TortureLoad, TortureReport};
pub use visibility::{BUCKETS_PER_DECADE, FreshAfter};
