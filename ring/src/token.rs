//! From a key to its partition.
//!
//! ```text
//! bucket, key ──blake3──▶ Token (u64)
//!                         ├─ top bits ─┤──── the rest ────┤
//!                           Partition     order within it
//! ```
//!
//! The number of partitions is fixed when the cluster is created, so a key never changes its
//! partition; only the owners of partitions change.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a key lies on the ring: a hash over its bucket and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

impl Token {
    /// The token of a key: the first 8 bytes, big endian, of blake3 over the length of `bucket`
    /// (u32, little endian), `bucket`, the length of `key` (likewise), `key`.
    ///
    /// The lengths keep ("ab", "c") and ("a", "bc") apart.
    ///
    /// # Panics
    /// If either is 4 GiB or longer. The limits on the wire are far below.
    #[must_use]
    pub fn of(bucket: &[u8], key: &[u8]) -> Token {
        let mut hasher = blake3::Hasher::new();
        for part in [bucket, key] {
            let length = u32::try_from(part.len()).expect("the wire's limits keep names short");
            hasher.update(&length.to_le_bytes());
            hasher.update(part);
        }
        let hash = hasher.finalize();
        let first = hash.as_bytes().first_chunk::<8>().expect("a blake3 hash has 32 bytes");
        Token(u64::from_be_bytes(*first))
    }
}

/// One of the equal parts of the ring, counted from 0: the unit of placement, moves and repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl Partition {
    /// The place of this partition in a table with one entry per partition.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Into how many partitions the ring is cut: a power of two from 1 to 65,536, default 1024.
///
/// Fixed when the cluster is created. Choose at least 64 partition replicas per node of the largest
/// cluster you plan: more partitions spread load more evenly and move in smaller pieces; fewer cost
/// less memory and fewer trees to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Partitions {
    bits: u8,
}

impl Partitions {
    /// What a cluster gets that does not ask: 1024.
    pub const DEFAULT: Partitions = Partitions { bits: 10 };

    /// Checks that `count` is a power of two from 1 to 65,536.
    pub fn new(count: u32) -> Result<Partitions, PartitionsError> {
        if !count.is_power_of_two() || count > PARTITIONS_MAX {
            return Err(PartitionsError { count });
        }
        let bits = u8::try_from(count.ilog2()).expect("at most 16");
        Ok(Partitions { bits })
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u32 {
        1 << self.bits
    }

    /// The partition a token lies in: its top bits.
    #[must_use]
    pub fn of(self, token: Token) -> Partition {
        // In two steps, because one partition needs no bits and a shift by 64 does not exist.
        let top = (token.0 >> 1) >> (63 - u32::from(self.bits));
        Partition(u16::try_from(top).expect("at most 16 bits are left"))
    }

    /// Every partition, in ring order.
    pub fn all(self) -> impl Iterator<Item = Partition> {
        (0..=u16::MAX).map(Partition).take(self.count() as usize)
    }

    /// The highest partition.
    pub(crate) fn last(self) -> Partition {
        Partition(u16::try_from(self.count() - 1).expect("at most 65,536 partitions"))
    }

    /// Whether this partition exists. Ask before using a partition that came from outside.
    #[must_use]
    pub fn contains(self, partition: Partition) -> bool {
        u32::from(partition.0) < self.count()
    }

    /// The lowest token of a partition: where its walk around the ring begins.
    #[must_use]
    pub fn start(self, partition: Partition) -> Token {
        Token((u64::from(partition.0) << (63 - u32::from(self.bits))) << 1)
    }
}

impl Default for Partitions {
    fn default() -> Self {
        Partitions::DEFAULT
    }
}

impl TryFrom<u32> for Partitions {
    type Error = PartitionsError;

    fn try_from(count: u32) -> Result<Self, PartitionsError> {
        Partitions::new(count)
    }
}

impl From<Partitions> for u32 {
    fn from(partitions: Partitions) -> u32 {
        partitions.count()
    }
}

/// The number of partitions is refused. The caller chooses another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} partitions: the number must be a power of two from 1 to {PARTITIONS_MAX}")]
pub struct PartitionsError {
    /// What was asked for.
    pub count: u32,
}

/// A partition is a u16 everywhere, also in stored keys.
pub(crate) const PARTITIONS_MAX: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// A power of two up to 65,536 is accepted and every token falls into the partition whose range
    /// holds it.
    #[test]
    fn partitions_cut_the_ring_into_equal_parts() {
        for bits in 0..=16 {
            let partitions = Partitions::new(1 << bits).unwrap();
            assert_eq!(partitions.all().count(), partitions.count() as usize);
            for partition in partitions.all() {
                let start = partitions.start(partition);
                assert_eq!(partitions.of(start), partition);
                let before = Token(start.0.wrapping_sub(1));
                let last = partitions.count() - 1;
                let expected = if start.0 == 0 { last } else { u32::from(partition.0) - 1 };
                assert_eq!(u32::from(partitions.of(before).0), expected);
            }
        }
    }

    /// Anything else is refused, naming the rule, also when it comes out of a document.
    #[test]
    fn other_counts_are_refused() {
        for count in [0, 3, 1000, 65_537, 1 << 17, u32::MAX] {
            let error = Partitions::new(count).unwrap_err();
            assert!(error.to_string().contains("power of two"), "{error}");
            assert!(serde_json::from_str::<Partitions>(&count.to_string()).is_err());
        }
        assert_eq!(serde_json::from_str::<Partitions>("1024").unwrap(), Partitions::DEFAULT);
        assert_eq!(serde_json::to_string(&Partitions::DEFAULT).unwrap(), "1024");
    }
}
