//! What a run shall do: every choice, its default, and what is refused.

use std::{path::PathBuf, time::Duration};

use atoll_check::Written;
use atoll_client::{Level, QuorumRequest};
use atoll_ring::{Quorum, QuorumError};
use atoll_wire::limits::{TIMEOUT_MS_MAX, VALUE_BYTES_MAX};
use serde::Serialize;

use crate::Arrivals;

/// One benchmark run. `Run::default()` is half reads, half writes on 10,000 keys of 1 KiB for ten seconds.
#[derive(Clone, Debug)]
pub struct Run {
    /// How long is measured. Default 10 s.
    pub length: Duration,
    /// How long the load runs before anything counts: connections open, caches fill. Default 1 s.
    pub warmup: Duration,
    /// When operations are sent. Default a closed loop of [`CONCURRENCY_DEFAULT`].
    pub pace: Pace,
    /// How many keys there are. Default 10,000.
    pub keys: u32,
    /// Bytes of a value, incompressible. Default 1024.
    pub value_bytes: usize,
    /// Share of operations that are reads, 0 to 1. Default 0.5.
    pub read_ratio: f64,
    /// Which keys are wanted more often than others. Default all alike.
    pub distribution: Distribution,
    /// n, r, w and dw of all requests. What is left out has the cluster's default.
    pub quorum: QuorumRequest,
    /// For one request. Default 1 s.
    pub timeout: Duration,
    /// Whether all keys are written once before the load begins. Default yes. Without it, reads of keys that were never
    /// written count as missing, and a writer reads a key before it first writes it.
    pub preload: bool,
    /// Whether any worker writes any key. Default no: each key has one writer, which passes the context of its last
    /// put. With it a write reads first, and writes of the same key at the same time leave siblings.
    pub shared_keys: bool,
    /// Where chance begins. The same seed draws the same keys and operations per worker. Default 1.
    pub seed: u64,
    /// QUIC connections to each node. Default 1, as an application would have.
    pub connections: u32,
    /// Who coordinates the reads. Default an owner of the key.
    pub through: Through,
    /// A new file for the history of the run, to be judged by `atoll-check`. Default none. With it the run has keys of its
    /// own, and its values begin with the number of the operation that wrote them.
    pub history: Option<PathBuf>,
}

/// When operations are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A closed loop: so many workers, each of which sends its next operation when the last one is answered; `None` is
    /// [`CONCURRENCY_DEFAULT`], and the report says that nobody chose it. More workers raise throughput until something
    /// is full, and from there on only the latency. When the cluster stalls, so does the load.
    Closed(Option<u32>),
    /// An open loop: operations arrive as planned, whatever has become of the earlier ones.
    Open(OpenLoop),
}

/// An open loop. Its operations are dealt in turn to [`OPEN_SESSIONS`] sessions; those of one session may overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLoop {
    /// Operations per second, 1 to [`RATE_MAX`].
    pub rate: u32,
    /// How they are spread.
    pub arrivals: Arrivals,
    /// Most operations sent and not answered. An arrival beyond it is skipped and counted. Default
    /// [`OUTSTANDING_MAX_DEFAULT`]. Less protects the memory of the load generator; as much as rate times timeout is
    /// never reached.
    pub outstanding_max: u32,
}

/// Which keys are drawn how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// All alike.
    #[default]
    Uniform,
    /// The k-th most popular key in proportion to 1 / k^0.99, as in YCSB.
    Zipf,
}

/// Who coordinates a read. Always drawn at random, so that a read does not simply meet its writer's coordinator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    /// A connected owner of the key, drawn by the client: the way of every ordinary request.
    #[default]
    Owners,
    /// Any member. Those that do not own the key ask the ones that do, which costs a hop. If the drawn one is down, the
    /// same operation goes to an owner.
    Any,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            length: Duration::from_secs(10),
            warmup: Duration::from_secs(1),
            pace: Pace::Closed(None),
            keys: 10_000,
            value_bytes: 1024,
            read_ratio: 0.5,
            distribution: Distribution::default(),
            quorum: QuorumRequest::default(),
            timeout: Duration::from_secs(1),
            preload: true,
            shared_keys: false,
            seed: 1,
            connections: 1,
            through: Through::default(),
            history: None,
        }
    }
}

impl Run {
    /// Clients with a past of their own: the workers of a closed loop, chosen or by default, or those among whom an open
    /// loop deals its operations. Each writes its own keys, unless keys are shared.
    pub fn sessions(&self) -> u32 {
        match self.pace {
            Pace::Closed(concurrency) => concurrency.unwrap_or(CONCURRENCY_DEFAULT),
            Pace::Open(_) => OPEN_SESSIONS,
        }
    }

    /// Refuses what cannot be run, before anything is sent.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), SettingsError> {
        Quorum::check(&self.quorum)?;
        let within = |what, value: u64, max: u64| match value {
            value if (1..=max).contains(&value) => Ok(()),
            value => Err(SettingsError::OutOfRange { what, value, max }),
        };
        match self.pace {
            Pace::Closed(_) => {
                within("concurrency", self.sessions().into(), CONCURRENCY_MAX.into())?;
            }
            Pace::Open(OpenLoop { rate, arrivals: _, outstanding_max }) => {
                within("rate", rate.into(), RATE_MAX.into())?;
                within("outstanding-max", outstanding_max.into(), OUTSTANDING_MAX.into())?;
            }
        }
        within("connections", self.connections.into(), CONNECTIONS_MAX.into())?;
        within("keys", self.keys.into(), KEYS_MAX.into())?;
        if self.value_bytes > VALUE_BYTES_MAX {
            let bytes = self.value_bytes;
            return Err(SettingsError::ValueTooLarge { bytes, max: VALUE_BYTES_MAX });
        }
        if self.history.is_some() && self.value_bytes < Written::BYTES {
            return Err(SettingsError::ValueTooSmall { bytes: self.value_bytes });
        }
        if !(0.0..=1.0).contains(&self.read_ratio) {
            return Err(SettingsError::ReadRatio(self.read_ratio));
        }
        if self.length.is_zero() {
            return Err(SettingsError::NoTime);
        }
        if self.timeout.is_zero() || self.timeout.as_millis() > u128::from(TIMEOUT_MS_MAX) {
            return Err(SettingsError::Timeout { max_ms: TIMEOUT_MS_MAX });
        }
        if !self.shared_keys && self.read_ratio < 1.0 && self.keys < self.sessions() {
            return Err(SettingsError::FewerKeysThanWriters {
                keys: self.keys,
                writers: self.sessions(),
            });
        }
        Ok(())
    }

    /// What a writer asks for when it must read before it writes: what the run's reads ask for, and at least a
    /// majority. Strict if the run is strict and with its `pr`, so that no fallback answers for an owner here either.
    pub(crate) fn first_read(&self, replicas: u8) -> Result<QuorumRequest, QuorumError> {
        let quorum = Quorum::new(&self.quorum, replicas)?;
        let majority = quorum.n() / 2 + 1;
        Ok(QuorumRequest {
            n: Some(quorum.n()),
            r: Some(Level::Count(quorum.r().max(majority))),
            pr: Some(Level::Count(quorum.pr())),
            sloppy: Some(quorum.sloppy()),
            ..QuorumRequest::default()
        })
    }
}

/// A run that cannot be. Nothing was sent; the caller changes it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// The quorum settings contradict each other.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// A number is zero or too large.
    #[error("{what}={value}: must be 1 to {max}")]
    OutOfRange {
        /// Which.
        what: &'static str,
        /// What it is.
        value: u64,
        /// The most it may be.
        max: u64,
    },
    /// No node would take such a value.
    #[error("values of {bytes} bytes: at most {max} are allowed")]
    ValueTooLarge {
        /// Asked for.
        bytes: usize,
        /// Allowed.
        max: usize,
    },
    /// Values of a recorded run must say who wrote them.
    #[error(
        "values of {bytes} bytes: a recorded run needs at least {}, which say who wrote them",
        Written::BYTES
    )]
    ValueTooSmall {
        /// Asked for.
        bytes: usize,
    },
    /// A share is between nothing and all.
    #[error("read-ratio={0}: must be 0 (only writes) to 1 (only reads)")]
    ReadRatio(f64),
    /// Nothing would be measured.
    #[error("the run must last longer than nothing")]
    NoTime,
    /// A request needs some time, and not for ever.
    #[error("timeout must be more than nothing and at most {max_ms} ms")]
    Timeout {
        /// The most a request may ask for.
        max_ms: u32,
    },
    /// Each key has one writer, and some would have none.
    #[error(
        "{keys} keys cannot be divided among {writers} writers: use more keys, a lower concurrency, or shared keys"
    )]
    FewerKeysThanWriters {
        /// Keys there are.
        keys: u32,
        /// Sessions, each of which writes.
        writers: u32,
    },
}

/// Operations in flight if nothing is said. Enough that group commits and coalesced frames come into play, and little
/// enough that latency is not mere queueing.
pub const CONCURRENCY_DEFAULT: u32 = 64;

/// Most operations in flight. Beyond it one measures the queue in front of the cluster.
pub const CONCURRENCY_MAX: u32 = 10_000;

/// Most arrivals per second. Beyond it one measures the load generator.
pub const RATE_MAX: u32 = 1_000_000;

/// Outstanding operations of an open loop if nothing is said: a stall of a second at 10,000/s fits.
pub const OUTSTANDING_MAX_DEFAULT: u32 = 10_000;

/// Most that can be chosen. Each holds a few KiB and a value.
pub const OUTSTANDING_MAX: u32 = 1_000_000;

/// Sessions of an open loop: as many clients as a closed loop has by default, so that their figures compare.
pub const OPEN_SESSIONS: u32 = CONCURRENCY_DEFAULT;

/// Most connections per node. Each has its own socket, buffers and keep-alives.
pub const CONNECTIONS_MAX: u32 = 256;

/// Most keys. A key that is written costs the load generator some 200 bytes: its last context and its latest dots.
pub const KEYS_MAX: u32 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused, and with which words; everything else in the run is fine.
    #[test]
    fn impossible_runs_are_refused() {
        let check = |change: fn(&mut Run), expected: &str| {
            let mut run = Run::default();
            change(&mut run);
            let said = run.check().map_or_else(|error| error.to_string(), |()| "fine".into());
            assert!(said.starts_with(expected), "{said:?} instead of {expected:?}");
        };
        check(|_| (), "fine");
        check(|run| run.quorum.r = Some(Level::Count(0)), "r=0: ");
        check(|run| run.quorum.n = Some(0), "n=0: ");
        check(|run| run.pace = Pace::Closed(Some(0)), "concurrency=0: must be 1 to 10000");
        check(|run| run.pace = open(0, 1), "rate=0: must be 1 to 1000000");
        check(|run| run.pace = open(1_000_001, 1), "rate=1000001: ");
        check(|run| run.pace = open(1, 0), "outstanding-max=0: ");
        check(|run| run.pace = open(1, 1), "fine");
        check(|run| (run.keys, run.pace) = (63, open(1, 1)), "63 keys cannot be divided");
        check(|run| run.connections = 257, "connections=257: must be 1 to 256");
        check(|run| run.keys = 0, "keys=0: ");
        check(|run| run.value_bytes = 0, "fine");
        check(|run| run.value_bytes = VALUE_BYTES_MAX + 1, "values of 1048577 bytes");
        check(|run| run.value_bytes = 7, "fine");
        check(|run| record(run, 7), "values of 7 bytes: a recorded run needs at least 8");
        check(|run| record(run, 8), "fine");
        check(|run| run.read_ratio = 1.1, "read-ratio=1.1: ");
        check(|run| run.read_ratio = f64::NAN, "read-ratio=NaN: ");
        check(|run| run.length = Duration::ZERO, "the run must last");
        check(|run| run.timeout = Duration::ZERO, "timeout must be");
        check(|run| run.timeout = Duration::from_secs(61), "timeout must be");
        check(|run| run.keys = 63, "63 keys cannot be divided among 64 writers");
        check(|run| (run.keys, run.shared_keys) = (63, true), "fine");
        check(|run| (run.keys, run.read_ratio) = (63, 1.0), "fine");
        check(|run| (run.keys, run.pace) = (63, Pace::Closed(Some(63))), "fine");
    }

    fn record(run: &mut Run, bytes: usize) {
        (run.value_bytes, run.history) = (bytes, Some("history.jsonl".into()));
    }

    fn open(rate: u32, outstanding_max: u32) -> Pace {
        Pace::Open(OpenLoop { rate, arrivals: Arrivals::Poisson, outstanding_max })
    }

    /// A writer's first read is as strict as the run and never narrower than a majority: r, pr and whether fallbacks
    /// may answer, of three owners.
    #[test]
    fn a_first_read_asks_as_the_run_does() {
        let check = |asked: &str, quorum: QuorumRequest, expected: (u8, u8, bool)| {
            let run = Run { quorum, ..Run::default() };
            let first = Quorum::new(&run.first_read(3).unwrap(), 3).unwrap();
            assert_eq!((first.r(), first.pr(), first.sloppy()), expected, "{asked}");
        };
        let default = QuorumRequest::default();
        let (one, all) = (Some(Level::Count(1)), Some(Level::All));
        check("nothing", default, (2, 0, true));
        check("r=1", QuorumRequest { r: one, ..default }, (2, 0, true));
        check(
            "r=1 strict",
            QuorumRequest { r: one, sloppy: Some(false), ..default },
            (2, 2, false),
        );
        check("r=1 pr=1", QuorumRequest { r: one, pr: one, ..default }, (2, 1, true));
        check("r=all pr=all", QuorumRequest { r: all, pr: all, ..default }, (3, 3, true));
        check("n=1", QuorumRequest { n: Some(1), ..default }, (1, 0, true));
    }
}
