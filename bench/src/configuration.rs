//! What was asked for, as the report repeats it: defaults filled in, so that a figure can be read without the command.

use atoll_ring::Quorum;
use serde::Serialize;

use crate::{Arrivals, Distribution, Pace, Run, Through};

/// A [`Run`] as it was carried out.
#[derive(Clone, Debug, Serialize)]
pub struct Configuration {
    /// The form of the load. "closed": a worker sends its next operation when the last one is answered. "open":
    /// operations are sent at a planned rate.
    pub load: &'static str,
    /// How long was to be measured.
    pub length_s: f64,
    /// How long the load ran before.
    pub warmup_s: f64,
    /// Operations in flight in a closed loop; `None` in an open one.
    pub concurrency: Option<u32>,
    /// Whether nobody chose that number.
    pub concurrency_is_default: bool,
    /// Arrivals per second in an open loop; `None` in a closed one.
    pub rate: Option<u32>,
    /// How those were spread.
    pub arrivals: Option<Arrivals>,
    /// Most operations that could be outstanding in an open loop.
    pub outstanding_max: Option<u32>,
    /// Connections to each node.
    pub connections: u32,
    /// Keys there were.
    pub keys: u32,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Share of operations that were reads.
    pub read_ratio: f64,
    /// How keys were drawn.
    pub distribution: Distribution,
    /// Owners taking part.
    pub n: u8,
    /// Answers a read needed.
    pub r: u8,
    /// Acks a write needed.
    pub w: u8,
    /// Of the r answers, those that had to be owners'.
    pub pr: u8,
    /// Of the w acks, those that had to be owners'.
    pub pw: u8,
    /// Of the w acks, those that had to be fsynced.
    pub dw: u8,
    /// Whether fallbacks could stand in for owners that were out of reach.
    pub sloppy: bool,
    /// For one request.
    pub timeout_ms: f64,
    /// Whether all keys were written beforehand.
    pub preload: bool,
    /// Whether any worker wrote any key.
    pub shared_keys: bool,
    /// Who coordinated the reads.
    pub through: Through,
    /// Where chance began.
    pub seed: u64,
}

impl Configuration {
    pub(crate) fn new(run: &Run, replicas: u8) -> Configuration {
        let quorum = Quorum::new(&run.quorum, replicas).expect("checked before the run");
        let (load, concurrency, open) = match run.pace {
            Pace::Closed(_) => ("closed", Some(run.sessions()), None),
            Pace::Open(open) => ("open", None, Some(open)),
        };
        Configuration {
            load,
            length_s: run.length.as_secs_f64(),
            warmup_s: run.warmup.as_secs_f64(),
            concurrency,
            concurrency_is_default: run.pace == Pace::Closed(None),
            rate: open.map(|open| open.rate),
            arrivals: open.map(|open| open.arrivals),
            outstanding_max: open.map(|open| open.outstanding_max),
            connections: run.connections,
            keys: run.keys,
            value_bytes: run.value_bytes,
            read_ratio: run.read_ratio,
            distribution: run.distribution,
            n: quorum.n(),
            r: quorum.r(),
            w: quorum.w(),
            pr: quorum.pr(),
            pw: quorum.pw(),
            dw: quorum.dw(),
            sloppy: quorum.sloppy(),
            timeout_ms: run.timeout.as_secs_f64() * 1000.0,
            preload: run.preload,
            shared_keys: run.shared_keys,
            through: run.through,
            seed: run.seed,
        }
    }
}
