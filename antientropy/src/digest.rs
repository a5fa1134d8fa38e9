//! The fingerprint by which replicas find out that they differ.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The first 16 bytes of the blake3 hash of a state's metadata. Replicas with equal digests hold
/// the same dots under the same context.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    pub(crate) fn of(metadata: &[u8]) -> Digest {
        let hash = blake3::hash(metadata);
        Digest(*hash.as_bytes().first_chunk().expect("32 bytes"))
    }
}

/// As 32 hexadecimal digits.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
