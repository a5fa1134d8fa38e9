//! What can be chosen for one request.

use std::time::Duration;

use atoll_ring::{NodeId, QuorumRequest};
use atoll_wire::{Repair, Write, bucket::Properties};

/// The choices for one request. What is left out is as the bucket has it; if it says nothing either, a majority of its
/// copies, fsynced, within a second.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bucket: its name, or `name@id` for one of several with that name. None = `default`.
    pub bucket: Option<String>,
    /// How many must answer, and who may. In the end: majorities of the bucket's N, sloppy, every ack fsynced.
    pub quorum: QuorumRequest,
    /// What a read does for owners that are behind. In the end: they are repaired after the answer.
    pub repair: Option<Repair>,
    /// For the whole request, every hop included. In the end: 1 s. At most 60 s.
    pub timeout: Option<Duration>,
    /// How long a value that is put shall be shown, from now on. In the end: without an end.
    pub ttl: Ttl,
    /// The node that shall coordinate. Otherwise one of the key's owners, at random.
    pub via: Option<NodeId>,
    /// The number of the operation. Give the same to a repetition, and a value that was stored twice is shown once.
    /// Default: drawn at random.
    pub operation: Option<u128>,
    /// Whoever works on it notes each step; they come back in the receipt. Default: no.
    pub trace: bool,
}

/// How long a request may take of which nobody says it.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// How long a value is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// As long as the bucket's definition says; without an end, if it says nothing.
    #[default]
    AsTheBucketSays,
    /// Without an end.
    ForEver,
    /// For so long, from its coordinator's receipt on, by that node's clock.
    For(Duration),
}

impl Options {
    /// The time to live as it travels.
    pub(crate) fn ttl_ms(&self) -> Option<u64> {
        match self.ttl {
            Ttl::AsTheBucketSays => None,
            Ttl::ForEver => Some(Write::FOR_EVER),
            Ttl::For(time) => Some(u64::try_from(time.as_millis()).unwrap_or(Write::FOR_EVER)),
        }
    }

    /// The timeout as it travels.
    pub(crate) fn timeout_ms(&self, properties: &Properties) -> u32 {
        let ms = match (self.timeout, properties.timeout_ms) {
            (Some(timeout), _) => u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            (None, Some(ms)) => ms,
            (None, None) => u32::try_from(TIMEOUT.as_millis()).expect("a second"),
        };
        ms.clamp(1, atoll_wire::limits::TIMEOUT_MS_MAX)
    }

    /// What a read does for owners that are behind.
    pub(crate) fn repair(&self, properties: &Properties) -> Repair {
        self.repair.or(properties.repair).unwrap_or_default()
    }
}
