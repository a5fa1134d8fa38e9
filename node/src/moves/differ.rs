//! Which parts of a partition have to be copied: those in which a tree that this node and the source both keep differs.
//!
//! After a crash, a cancel and a new beginning, or on an owner that only takes another seat, most is here already. Where
//! this node holds nothing all of it has to come, so the descent goes no deeper than its own tree.

use atoll_antientropy::merkle::{Differing, Place, Places, Width};
use atoll_ring::NodeId;
use atoll_wire::{Compare, Reply, Request};

use super::{
    copy::{Stop, ask},
    job::Job,
};
use crate::{
    Node,
    canary::{self, Canary},
    repair::trees::TreeName,
    storage::StoreError,
};

/// Places in one question.
const PLACES_PER_CALL: usize = 256;

/// Places that are looked into at the same time. Where more differ they are copied whole: most of them would be anyway.
const PLACES_MAX: usize = 4096;

/// Into how many parts a partition is cut that is copied whole.
const PARTS: u32 = 4;

/// Tokens from the first to the last.
pub(super) type Tokens = (u64, u64);

/// The parts that differ, in order.
pub(super) async fn differing(node: &Node, job: &Job, source: NodeId) -> Result<Vec<Tokens>, Stop> {
    let partition = job.partition;
    let bits = node.view().partitions().count().ilog2();
    let start = node.view().partitions().start(partition).0;
    let tokens = |place: Place| {
        let tokens = place.tokens(bits, start);
        (*tokens.start(), *tokens.end())
    };
    let trees = &node.repair().trees;
    if trees.keys(partition) == 0 || canary::is_on(Canary::SkipBarrier) {
        let quarter = |part: u32| {
            let child = |index: u32| tokens(Place::ROOT.child(index));
            let width = 16 / PARTS;
            (child(part * width).0, child(part * width + width - 1).1)
        };
        return Ok((0..PARTS).map(quarter).collect());
    }
    let mut parts: Vec<Tokens> = Vec::new();
    for name in trees.shared_of(source, partition) {
        parts.extend(differing_in(node, name, source).await?.into_iter().map(tokens));
    }
    Ok(together(parts))
}

/// The places of one tree that differ, each as far down as it has to be known.
async fn differing_in(node: &Node, name: TreeName, source: NodeId) -> Result<Vec<Place>, Stop> {
    let trees = &node.repair().trees;
    let failed = |_: StoreError| Stop::Later(node.id());
    let depth = trees.depth(name).max(1);
    let mut found: Vec<Place> = Vec::new();
    let mut paths = vec![0u32];
    for level in 0..depth {
        let mut next = Vec::new();
        for chunk in paths.chunks(PLACES_PER_CALL) {
            let children = |path: &u32| {
                let place = Place { level, path: *path };
                Ok((*path, trees.children(name, place)?))
            };
            let ours = chunk.iter().map(children).collect::<Result<Vec<_>, _>>().map_err(failed)?;
            let mut hashes = Vec::new();
            // a difference that is overlooked would be lost
            Places::of(Width::Full, ours.iter().copied()).encode_into(&mut hashes);
            let TreeName { partition, n } = name;
            let asked = Compare { partition: partition.0, n, level, hashes: hashes.into() };
            let Reply::Differing(answer) = ask(node, source, Request::Compare(asked)).await? else {
                return Err(Stop::Later(source));
            };
            let answer = Differing::decode(&answer.which, chunk.len(), false);
            let answer = answer.map_err(|_| Stop::Later(source))?;
            for ((path, ours), differing) in ours.iter().zip(&answer.children) {
                for nibble in Differing::each(*differing) {
                    let child = Place { level, path: *path }.child(nibble);
                    match ours[nibble as usize] {
                        0 => found.push(child),
                        _ => next.push(child),
                    }
                }
            }
        }
        if level + 1 == depth || next.len() > PLACES_MAX {
            found.extend(next);
            break;
        }
        paths = next.into_iter().map(|place| place.path).collect();
    }
    Ok(found)
}

/// The same tokens in as few parts as possible, in order.
fn together(mut parts: Vec<Tokens>) -> Vec<Tokens> {
    parts.sort_unstable();
    let mut joined: Vec<Tokens> = Vec::new();
    for (first, last) in parts {
        match joined.last_mut() {
            Some(before) if before.1.checked_add(1) == Some(first) => before.1 = last,
            _ => joined.push((first, last)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbours become one part, and a gap stays one.
    #[test]
    fn neighbours_are_one_part() {
        let parts = vec![(20, 29), (0, 9), (10, 19), (40, u64::MAX)];
        assert_eq!(together(parts), [(0, 29), (40, u64::MAX)]);
        assert_eq!(together(Vec::new()), []);
    }
}
