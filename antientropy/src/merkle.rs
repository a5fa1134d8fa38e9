//! Trees over the keys of a partition, so that two replicas find what differs by talking about the
//! difference only.
//!
//! ```text
//!   token   | partition | nibble | nibble | nibble | ...
//!                  root ─▶ 16 ─▶ 256 ─▶ 4096 cells
//! ```
//!
//! Each key has a [fingerprint](FingerprintKey) over its name and the digest of its state. A cell is
//! the **sum** (modulo 2^64) of the fingerprints of all keys below it. So
//! - a change is one subtraction and one addition per level, nothing is ever computed anew;
//! - what a cell says does not depend on how deep its tree is: replicas whose trees have different
//!   depths understand each other;
//! - whoever has no cells for a place adds up the keys there.
//!
//! Sums of plain hashes can be made equal on purpose by whoever chooses keys and contexts. Without
//! the cluster's secret nobody can compute a fingerprint.
//!
//! `places.rs` is how cells travel and what follows from them, `entries.rs` the same for keys.

use std::ops::RangeInclusive;

use crate::{Digest, Secret};

mod entries;
mod places;

pub use entries::{Entries, Unmatched, unmatched};
pub use places::{Children, Differing, PLACES_MAX, Places, Width};

/// Below how many nibbles of the token no tree goes: 16 million cells, for 500 million keys of one
/// partition. Nobody should have them in one partition.
pub const DEPTH_MAX: u8 = 6;

/// With more keys per leaf than this, on average, the tree wants to be one level deeper; it then
/// has at least 2 per leaf. A leaf costs 8 bytes, so a tree has at most 4.3 bytes per key.
const KEYS_PER_LEAF_MAX: u64 = 32;

/// The key under which a cluster makes fingerprints.
#[derive(Clone)]
pub struct FingerprintKey([u8; 32]);

impl FingerprintKey {
    /// The one of a cluster.
    pub fn derive(secret: &Secret) -> Self {
        FingerprintKey(blake3::derive_key(
            "atoll v1 fingerprint of a key in a Merkle tree",
            &secret.0,
        ))
    }

    /// What a key adds to the cells above it: the first 8 bytes of keyed blake3 over its name and
    /// its digest. Never 0, which is what no key at all adds.
    pub fn of(&self, name: &[u8], digest: &Digest) -> u64 {
        let mut hash = blake3::Hasher::new_keyed(&self.0);
        hash.update(name);
        hash.update(&digest.0); // always 16 bytes, so where the name ends is certain
        let first = *hash.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes");
        u64::from_le_bytes(first).max(1)
    }
}

/// A cell's place: so many nibbles of the token behind the partition's bits, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// How deep; 0 is the root.
    pub level: u8,
    /// The nibbles, the last one lowest.
    pub path: u32,
}

impl Place {
    /// The place of everything.
    pub const ROOT: Place = Place { level: 0, path: 0 };

    /// The place of a token, for a partition that takes so many bits of it.
    pub fn of(token: u64, partition_bits: u32, level: u8) -> Place {
        // in two steps, because a shift by 64 does not exist
        let path = ((token << partition_bits) >> 1) >> (63 - 4 * u32::from(level));
        Place { level, path: u32::try_from(path).expect("at most six nibbles are left") }
    }

    /// The tokens below this place of the partition that begins with this token.
    pub fn tokens(self, partition_bits: u32, partition_start: u64) -> RangeInclusive<u64> {
        let below = 64 - partition_bits - 4 * u32::from(self.level);
        let first = partition_start | ((u64::from(self.path) << (below - 1)) << 1);
        first..=first | (u64::MAX >> (64 - below))
    }

    /// One of the 16 places directly below.
    pub fn child(self, nibble: u32) -> Place {
        Place { level: self.level + 1, path: self.path << 4 | nibble }
    }
}

/// The cells of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    partition_bits: u32,
    depth: u8,
    keys: u64,
    /// Level by level from the root: 1, 16, 256, ...
    cells: Vec<u64>,
}

impl Tree {
    /// An empty tree for a partition that takes so many bits of the token (at most 16).
    pub fn new(partition_bits: u32) -> Tree {
        Tree::of_depth(partition_bits, 0)
    }

    /// An empty tree that will not want to grow before it has more keys than this.
    pub fn with_room(partition_bits: u32, keys: u64) -> Tree {
        Tree::of_depth(partition_bits, depth_for(keys))
    }

    fn of_depth(partition_bits: u32, depth: u8) -> Tree {
        assert!(partition_bits <= 16, "a partition is a u16");
        Tree { partition_bits, depth, keys: 0, cells: vec![0; first_of(depth + 1)] }
    }

    /// A tree whose leaves are these numbers, in their order: for comparing many roots at once. It has a
    /// level below its root even if there is only one.
    pub fn over(leaves: impl ExactSizeIterator<Item = u64>) -> Tree {
        let depth = (1..).find(|depth| leaves.len() <= 1 << (4 * depth)).expect("it grows");
        let mut tree = Tree::of_depth(0, depth);
        for (index, leaf) in leaves.enumerate() {
            let token = ((index as u64) << (63 - 4 * u32::from(depth))) << 1;
            tree.update(token, None, Some(leaf));
        }
        tree
    }

    /// A key's fingerprint changes; none = the key is not there.
    pub fn update(&mut self, token: u64, before: Option<u64>, after: Option<u64>) {
        let change = after.unwrap_or(0).wrapping_sub(before.unwrap_or(0));
        for level in 0..=self.depth {
            let place = Place::of(token, self.partition_bits, level);
            let cell = &mut self.cells[first_of(level) + place.path as usize];
            *cell = cell.wrapping_add(change);
        }
        match (before, after) {
            (None, Some(_)) => self.keys += 1,
            (Some(_), None) => self.keys = self.keys.saturating_sub(1),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// The sum of all fingerprints.
    pub fn root(&self) -> u64 {
        self.cells[0]
    }

    /// What a place holds; none below the leaves, and where there is no such place.
    pub fn cell(&self, place: Place) -> Option<u64> {
        if place.level > self.depth || u64::from(place.path) >= 1 << (4 * place.level) {
            return None;
        }
        Some(self.cells[first_of(place.level) + place.path as usize])
    }

    /// What lies directly below a place; none if the leaves are not deeper than it.
    pub fn children(&self, place: Place) -> Option<[u64; 16]> {
        self.cell(place)?;
        self.cell(place.child(0))?;
        let first = first_of(place.level + 1) + (place.path as usize) * 16;
        Some(*self.cells[first..].first_chunk().expect("16 children each"))
    }

    /// Levels below the root.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// Keys.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Whether it should be made anew with room for its keys.
    pub fn is_crowded(&self) -> bool {
        self.depth < depth_for(self.keys)
    }

    /// Memory of the cells.
    pub fn bytes(&self) -> usize {
        self.cells.len() * size_of::<u64>()
    }
}

/// A partition's root with the partition's number stirred in: the sum of these over many partitions
/// tells which root belongs where. Different roots stay different.
pub fn labelled(partition: u16, root: u64) -> u64 {
    // the finaliser of splitmix64: every step can be undone, so nothing is lost
    let mut x =
        root.wrapping_add(u64::from(partition).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn depth_for(keys: u64) -> u8 {
    (0..DEPTH_MAX).find(|depth| keys <= KEYS_PER_LEAF_MAX << (4 * depth)).unwrap_or(DEPTH_MAX)
}

/// The index of the first cell of a level.
fn first_of(level: u8) -> usize {
    ((1 << (4 * usize::from(level))) - 1) / 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of a partition fall into 16 equal parts per level, in order and without gaps, whatever the partition.
    #[test]
    fn places_cut_a_partition_into_equal_parts() {
        for (bits, start) in [(0, 0), (1, 1 << 63), (10, 0x3ff << 54), (16, 0xabcd << 48)] {
            for level in 0..=3 {
                let mut next = Some(start);
                for path in 0..1 << (4 * level) {
                    let place = Place { level, path };
                    let tokens = place.tokens(bits, start);
                    assert_eq!(Some(*tokens.start()), next, "{place:?}");
                    assert_eq!(Place::of(*tokens.start(), bits, level), place);
                    assert_eq!(Place::of(*tokens.end(), bits, level), place);
                    next = tokens.end().checked_add(1);
                }
                let end = Place::ROOT.tokens(bits, start).end().checked_add(1);
                assert_eq!(next, end, "level {level}");
            }
        }
    }

    /// The index of a number among many is its place in the tree over them.
    #[test]
    fn a_tree_over_numbers_has_them_as_leaves() {
        for count in [1usize, 2, 16, 17, 64, 1000] {
            let tree = Tree::over((1..=count as u64).collect::<Vec<_>>().into_iter());
            assert_eq!(tree.root(), (1..=count as u64).sum());
            for index in 0..count {
                let place = Place { level: tree.depth(), path: index as u32 };
                assert_eq!(tree.cell(place), Some(index as u64 + 1), "{count} {index}");
            }
        }
    }

    /// The same root in another partition counts differently, and no two roots of one partition count alike.
    #[test]
    fn a_label_tells_partitions_apart() {
        let mut seen = std::collections::BTreeSet::new();
        for partition in [0, 1, 2, 1023, u16::MAX] {
            for root in [0, 1, 2, u64::MAX, 1 << 63] {
                assert!(seen.insert(labelled(partition, root)), "{partition} {root}");
            }
        }
    }

    /// The secret decides, and so do the name and the digest.
    #[test]
    fn fingerprints_depend_on_secret_name_and_digest() {
        let [ours, theirs] = [1, 2].map(|byte| FingerprintKey::derive(&Secret([byte; 32])));
        let [old, new] = [1, 2].map(|byte| Digest([byte; 16]));
        let all =
            [ours.of(b"a", &old), ours.of(b"a", &new), ours.of(b"b", &old), theirs.of(b"a", &old)];
        for (index, fingerprint) in all.iter().enumerate() {
            assert!(!all[..index].contains(fingerprint), "{index}");
        }
        assert_eq!(ours.of(b"a", &old), all[0]);
    }
}
