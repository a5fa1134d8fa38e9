//! What can be chosen for one request.

use std::time::Duration;

use atoll_ring::{Level, NodeId, QuorumRequest};

/// The choices for one request. `Options::default()` is a majority of the bucket's copies, fsynced, within a second.
#[derive(Clone, Debug)]
pub struct Options {
    /// Owners taking part, 1 to the bucket's N. Default: N.
    pub n: Option<u8>,
    /// Answers a read needs. Default: majority of n.
    pub r: Option<Level>,
    /// Acknowledgements a write needs. Default: majority of n.
    pub w: Option<Level>,
    /// Of those, how many must be on stable storage. Default: w.
    pub dw: Option<Level>,
    /// For the whole request, every hop included. Default: 1 s. At most 60 s.
    pub timeout: Duration,
    /// The node that shall coordinate. Default: one of the key's owners, at random.
    pub via: Option<NodeId>,
}

impl Default for Options {
    fn default() -> Self {
        Options { n: None, r: None, w: None, dw: None, timeout: Duration::from_secs(1), via: None }
    }
}

impl Options {
    pub(crate) fn quorum(&self) -> QuorumRequest {
        QuorumRequest { n: self.n, r: self.r, w: self.w, dw: self.dw }
    }

    /// The timeout as it travels.
    pub(crate) fn timeout_ms(&self) -> u32 {
        let ms = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX);
        ms.clamp(1, atoll_wire::limits::TIMEOUT_MS_MAX)
    }
}
