//! What can be chosen for one request.

use std::time::Duration;

use atoll_ring::{NodeId, QuorumRequest};
use atoll_wire::{Repair, Write, bucket::DEFAULT_BUCKET};

/// The choices for one request. `Options::default()` is a majority of the bucket's copies, fsynced, within a second.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bucket, by its name. Default: `default`.
    pub bucket: String,
    /// How many must answer, and who may. Default: majorities of the bucket's N, sloppy, every ack fsynced.
    pub quorum: QuorumRequest,
    /// What a read does for owners that are behind. Default: they are repaired after the answer.
    pub repair: Repair,
    /// For the whole request, every hop included. Default: 1 s. At most 60 s.
    pub timeout: Duration,
    /// How long a value that is put shall be shown, from now on. Default: as the bucket says.
    pub ttl: Ttl,
    /// The node that shall coordinate. Default: one of the key's owners, at random.
    pub via: Option<NodeId>,
    /// The number of the operation. Give the same to a repetition, and a value that was stored twice is shown once.
    /// Default: drawn at random.
    pub operation: Option<u128>,
    /// Whoever works on it notes each step; they come back in the receipt. Default: no.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        let (quorum, repair) = (QuorumRequest::default(), Repair::default());
        let ttl = Ttl::AsTheBucketSays;
        let (bucket, timeout) = (DEFAULT_BUCKET.to_owned(), Duration::from_secs(1));
        Options { bucket, quorum, repair, timeout, ttl, via: None, operation: None, trace: false }
    }
}

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
    pub(crate) fn timeout_ms(&self) -> u32 {
        let ms = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX);
        ms.clamp(1, atoll_wire::limits::TIMEOUT_MS_MAX)
    }
}
