//! The order in which nodes stand in for each other: one hash ring per epoch.
//!
//! Every node has [`POINTS_PER_NODE`] points on the ring. From a partition's first token we walk
//! upwards and note each node when we first meet one of its points:
//!
//! ```text
//!   token 0 ──n3───n1──┊──n3──n2──n3──────n1──▶ wraps around
//!                      └ the partition starts here: n3, n2, n1
//! ```
//!
//! That order decides ties in the placement, the order of a fresh partition's owners, and who is
//! asked next when owners are out of reach. It does not decide who owns what: a ring alone leaves
//! some nodes with a third more than others.
//!
//! The ring itself is `hashring` with a hasher of ours. Its own hasher takes bytes from
//! `derive(Hash)`, which differ between machines, and its `get_with_replicas` copies the whole ring
//! and repeats nodes; so we go round once with `get` when the epoch begins and keep the points. A
//! walk then costs some hundred nanoseconds for ten nodes and needs no memory of its own (a table
//! of all walks would need 64 MB for 1000 nodes and 16,384 partitions).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;

use crate::{NodeId, Partition, Partitions, Token};

/// The nodes in the order of the ring, from any partition on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    partitions: Partitions,
    /// Ascending.
    nodes: Vec<NodeId>,
    /// Position and index of the node in `nodes`, ascending.
    points: Vec<(u64, usize)>,
}

impl Preference {
    /// Puts the nodes on the ring. Their order does not matter.
    #[must_use]
    pub fn new(partitions: Partitions, nodes: impl IntoIterator<Item = NodeId>) -> Preference {
        let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let points = (0..nodes.len())
            .flat_map(|index| (0..POINTS_PER_NODE).map(move |number| (index, number)))
            .map(|(index, number)| Point { node: nodes[index], index, number })
            .collect();
        let mut ring = HashRing::with_hasher(RingHash);
        ring.batch_add(points);
        Preference { partitions, points: once_around(&ring), nodes }
    }

    /// All nodes, each once, as the ring has them from the partition's first token on.
    pub fn order(&self, partition: Partition) -> impl Iterator<Item = NodeId> + '_ {
        self.walk(partition).map(|index| self.nodes[index])
    }

    /// The same order, each node as its index among all by id.
    pub(crate) fn walk(&self, partition: Partition) -> impl Iterator<Item = usize> + '_ {
        let start = self.partitions.start(partition);
        let first = self.points.partition_point(|(position, _)| *position < start.0);
        let mut met = vec![false; self.nodes.len()];
        self.points[first..]
            .iter()
            .chain(&self.points[..first])
            .filter(move |(_, index)| !std::mem::replace(&mut met[*index], true))
            .map(|(_, index)| *index)
            .take(self.nodes.len()) // stops the walk at the last node, not after the last point
    }

    /// The same ring, seen from the nodes.
    pub(crate) fn distances(&self) -> Distances {
        let mut points = vec![Vec::new(); self.nodes.len()];
        for (position, index) in &self.points {
            points[*index].push(*position);
        }
        Distances { partitions: self.partitions, points }
    }
}

/// How far certain nodes are from a partition, and partitions from a node.
///
/// One distance costs a search among the 64 points of a node, while a walk that has to meet each of
/// 1000 nodes goes over some 7000 points. So the planner walks where the first nodes will do, and
/// asks here otherwise.
pub(crate) struct Distances {
    partitions: Partitions,
    /// Of each node, ascending.
    points: Vec<Vec<u64>>,
}

impl Distances {
    /// From the partition's first token up to the next point of the node. The nodes in
    /// [`Preference::order`] are the nodes by distance.
    pub fn between(&self, partition: Partition, node: usize) -> u64 {
        let start = self.partitions.start(partition).0;
        let points = &self.points[node];
        let next = points.partition_point(|position| *position < start);
        let point = points.get(next).or(points.first());
        point.map_or(u64::MAX, |position| position.wrapping_sub(start))
    }

    /// All partitions by their distance to the node.
    pub fn nearest(&self, node: usize) -> impl Iterator<Item = Partition> + '_ {
        // Every point ends an arc of the ring. In an arc the highest partition is the nearest, so
        // the nearest one overall is always the highest one left of some arc.
        let mut arcs: BinaryHeap<Reverse<Arc>> = self.arcs(node).map(Reverse).collect();
        std::iter::from_fn(move || {
            let Reverse(arc) = arcs.pop()?;
            if arc.left > 1 {
                let below = arc.highest.0.checked_sub(1).unwrap_or(self.partitions.last().0);
                arcs.push(Reverse(self.arc(arc.end, Partition(below), arc.left - 1)));
            }
            Some(arc.highest)
        })
    }

    fn arcs(&self, node: usize) -> impl Iterator<Item = Arc> + '_ {
        let points = &self.points[node];
        let at = |index: usize| self.partitions.of(Token(points[index]));
        (0..points.len())
            .map(move |index| {
                let highest = at(index);
                let left = match index.checked_sub(1) {
                    Some(before) => u32::from(highest.0 - at(before).0),
                    // The first arc begins after the last point and wraps around.
                    None => self.partitions.count() - u32::from(at(points.len() - 1).0 - highest.0),
                };
                (highest, left, points[index])
            })
            .filter(|(_, left, _)| *left > 0)
            .map(|(highest, left, end)| self.arc(end, highest, left))
    }

    fn arc(&self, end: u64, highest: Partition, left: u32) -> Arc {
        let distance = end.wrapping_sub(self.partitions.start(highest).0);
        Arc { distance, highest, left, end }
    }
}

/// The partitions that begin between two points of a node.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Arc {
    /// From the highest partition to the point.
    distance: u64,
    highest: Partition,
    /// How many partitions, counted downwards from the highest.
    left: u32,
    /// The point.
    end: u64,
}

/// All points in ring order. Of two points at one position (about one chance in 10^10 for 1000
/// nodes) one is dropped, the same on every machine; its node has others.
fn once_around(ring: &HashRing<Point, RingHash>) -> Vec<(u64, usize)> {
    let mut points: Vec<(u64, usize)> = Vec::with_capacity(ring.len());
    let mut at = Token(0);
    while let Some(point) = ring.get(&at) {
        let position = RingHash.hash_one(point);
        if points.last().is_some_and(|(last, _)| *last >= position) {
            break; // wrapped around
        }
        points.push((position, point.index));
        let Some(next) = position.checked_add(1) else { break };
        at = Token(next);
    }
    points
}

/// More points mix the nodes more evenly and make the ring slower to build. With 64 and ten nodes
/// the node that is preferred most often is preferred a third more often than the average.
const POINTS_PER_NODE: u32 = 64;

/// One virtual node.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Point {
    node: NodeId,
    index: usize,
    number: u32,
}

/// By hand, because `derive` would hash in the machine's byte order, and the index, which says
/// nothing.
impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"atoll.ring/1");
        state.write(&self.node.0.to_le_bytes());
        state.write(&self.number.to_le_bytes());
    }
}

/// Bytes are hashed by blake3; a lone [`Token`] is a position already and stays what it is.
#[derive(Clone, Copy)]
struct RingHash;

struct RingHasher {
    bytes: blake3::Hasher,
    position: Option<u64>,
}

impl BuildHasher for RingHash {
    type Hasher = RingHasher;

    fn build_hasher(&self) -> RingHasher {
        RingHasher { bytes: blake3::Hasher::new(), position: None }
    }
}

impl Hasher for RingHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes.update(bytes);
    }

    /// What `derive(Hash)` of [`Token`] calls.
    fn write_u64(&mut self, position: u64) {
        self.position = Some(position);
    }

    fn finish(&self) -> u64 {
        let hash = self.bytes.finalize();
        let first = hash.as_bytes().first_chunk::<8>().expect("a blake3 hash has 32 bytes");
        self.position.unwrap_or(u64::from_le_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The walk as the module's head tells it, over an own list of points: same order, for every
    /// partition.
    #[test]
    fn agrees_with_a_plain_list_of_points() {
        let partitions = Partitions::new(256).unwrap();
        for count in 1..=10 {
            let mut list: Vec<(u64, NodeId)> = (1..=count)
                .flat_map(|node| (0..POINTS_PER_NODE).map(move |number| (NodeId(node), number)))
                .map(|(node, number)| {
                    let mut bytes = b"atoll.ring/1".to_vec();
                    bytes.extend(node.0.to_le_bytes());
                    bytes.extend(number.to_le_bytes());
                    let hash = blake3::hash(&bytes);
                    (u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()), node)
                })
                .collect();
            list.sort_unstable();
            let preference = Preference::new(partitions, (1..=count).rev().map(NodeId));
            for partition in partitions.all() {
                let start = u64::from(partition.0) << 56;
                let (below, above): (Vec<_>, Vec<_>) =
                    list.iter().partition(|(position, _)| *position < start);
                let mut expected: Vec<NodeId> = Vec::new();
                for (_, node) in above.into_iter().chain(below) {
                    if !expected.contains(&node) {
                        expected.push(node);
                    }
                }
                assert_eq!(preference.order(partition).collect::<Vec<_>>(), expected);
            }
        }
    }

    /// Distances say the same as walks, from both ends.
    #[test]
    fn distances_agree_with_the_walk() {
        for (partitions, count) in [(1, 3), (2, 1), (16, 40), (256, 10), (4096, 2)] {
            let partitions = Partitions::new(partitions).unwrap();
            let preference = Preference::new(partitions, (1..=count).map(NodeId));
            let distances = preference.distances();
            for partition in partitions.all() {
                let mut nodes: Vec<usize> = (0..count as usize).collect();
                nodes.sort_by_key(|node| distances.between(partition, *node));
                assert_eq!(preference.walk(partition).collect::<Vec<_>>(), nodes);
            }
            for node in 0..count as usize {
                let mut sorted: Vec<Partition> = partitions.all().collect();
                sorted.sort_by_key(|partition| (distances.between(*partition, node), *partition));
                assert_eq!(distances.nearest(node).collect::<Vec<_>>(), sorted);
            }
        }
    }

    /// A cluster without nodes has an empty order rather than a panic.
    #[test]
    fn an_empty_ring_has_no_order() {
        let preference = Preference::new(Partitions::DEFAULT, []);
        assert_eq!(preference.order(Partition(3)).count(), 0);
    }
}
