//! What can be chosen for one request.

use std::time::Duration;

use atoll_ring::{NodeId, QuorumRequest};
use atoll_wire::Repair;

/// The choices for one request. `Options::default()` is a majority of the bucket's copies, fsynced, within a second.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many must answer, and who may. Default: majorities of the bucket's N, sloppy, every ack fsynced.
    pub quorum: QuorumRequest,
    /// What a read does for owners that are behind. Default: they are repaired after the answer.
    pub repair: Repair,
    /// For the whole request, every hop included. Default: 1 s. At most 60 s.
    pub timeout: Duration,
    /// The node that shall coordinate. Default: one of the key's owners, at random.
    pub via: Option<NodeId>,
}

impl Default for Options {
    fn default() -> Self {
        let (quorum, repair) = (QuorumRequest::default(), Repair::default());
        Options { quorum, repair, timeout: Duration::from_secs(1), via: None }
    }
}

impl Options {
    /// The timeout as it travels.
    pub(crate) fn timeout_ms(&self) -> u32 {
        let ms = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX);
        ms.clamp(1, atoll_wire::limits::TIMEOUT_MS_MAX)
    }
}
