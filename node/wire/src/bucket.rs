//! Buckets: what a name stands for, and how the nodes agree on it without asking anybody.
//!
//! Data is never stored under a bucket's name but under a hash of its definition ([`BucketId`]), so that two definitions
//! that meet under one name cannot mix their data. [`definition`] is what a bucket is, [`properties`] what requests find
//! there when they do not say it themselves, [`registry`] all the definitions that a node has heard of.
//!
//! Definitions need no quorum and no log: a registry is joined with any other, in any order. Two that know the same are
//! the same, byte for byte.

use std::fmt;

use serde::{Deserialize, Serialize};

pub mod definition;
pub mod properties;
pub mod registry;

/// The kinds of values, as `antientropy` has them.
pub use atoll_antientropy::Kind;
pub use definition::{BadDefinition, Creation, Definition, Name};
pub use properties::{Alteration, Properties, Property};
pub use registry::{Entry, Refused, Registry, RegistryError, Unresolved, Version};

/// 16 bytes of blake3 over (name, kind, N, generation).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId(pub [u8; 16]);

impl BucketId {
    /// The id of a definition. `kind` is the word of the kind, `n` the copies kept, `generation` counts re-creations.
    pub fn of(name: &str, kind: &str, n: u8, generation: u32) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("atoll 2026 bucket id");
        for part in [name.as_bytes(), kind.as_bytes(), &[n], &generation.to_le_bytes()] {
            hash.update(&u32::try_from(part.len()).expect("names are short").to_le_bytes());
            hash.update(part);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        BucketId(id)
    }

    /// The bucket every cluster has: registers, as many copies as the cluster keeps.
    pub fn default_bucket(replicas: u8) -> Self {
        Self::of(DEFAULT_BUCKET, "register", replicas, 0)
    }
}

/// Name of the bucket every cluster has.
pub const DEFAULT_BUCKET: &str = "default";

impl fmt::Debug for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every part of the definition counts, and parts cannot run into each other.
    #[test]
    fn each_part_of_the_definition_changes_the_id() {
        let base = BucketId::of("a", "register", 3, 0);
        assert_ne!(base, BucketId::of("b", "register", 3, 0));
        assert_ne!(base, BucketId::of("a", "counter", 3, 0));
        assert_ne!(base, BucketId::of("a", "register", 2, 0));
        assert_ne!(base, BucketId::of("a", "register", 3, 1));
        assert_ne!(BucketId::of("ab", "c", 3, 0), BucketId::of("a", "bc", 3, 0));
    }
}
