//! How well an open loop kept its plan. The load generator accuses itself here, before anybody believes its latencies.

use serde::Serialize;

use crate::{Latency, OpenLoop, measure::Measure};

/// How well an open loop kept its plan.
#[derive(Clone, Debug, Serialize)]
pub struct Schedule {
    /// Operations that should have been sent in the measured time.
    pub arrivals: u64,
    /// Those that were not sent, because too many were outstanding. They are in no other figure.
    pub skipped: u64,
    /// The most that were outstanding.
    pub outstanding_max: usize,
    /// How much later than planned operations were sent.
    pub slip_ms: Option<Latency>,
    /// Whether that was more than [`SLIP_P99_MS_MAX`] at p99: then part of the latency is the load generator's own.
    pub slipped: bool,
    /// What must be known to read the figures, one sentence each.
    pub judgements: Vec<String>,
}

/// A load generator that sends later than this at p99 has not kept its plan.
pub const SLIP_P99_MS_MAX: f64 = 1.0;

impl Schedule {
    pub(crate) fn new(settings: OpenLoop, measure: &Measure) -> Schedule {
        let Measure { arrivals, skipped, outstanding_max, .. } = *measure;
        let slip_ms = Latency::of(&measure.slip);
        let slipped = slip_ms.is_some_and(|slip| slip.p99 > SLIP_P99_MS_MAX);
        let mut judgements = Vec::new();
        if skipped > 0 {
            judgements.push(format!(
                "{skipped} of {arrivals} arrivals were skipped because {} operations were outstanding: the cluster did not keep up, and the latencies are only of those that were sent",
                settings.outstanding_max,
            ));
        }
        if let Some(slip) = slip_ms.filter(|_| slipped) {
            judgements.push(format!(
                "the load generator itself was late, by {} ms at p99: that much of the latency is not the cluster's",
                slip.p99,
            ));
        }
        Schedule { arrivals, skipped, outstanding_max, slip_ms, slipped, judgements }
    }
}
