//! How many partition replicas each node shall hold.
//!
//! Replicas are dealt out one by one, always to the node that has the least for its weight: the
//! divisor method of Webster and Sainte-Laguë, the one for parliaments, by the key (2 · held + 1) /
//! weight. Equal weights end within one of each other. What bounds it: a node holds each partition
//! once, and a zone holds between its `least` and its `most` owners of each partition. These bounds
//! nest (nodes within zones), and for nested bounds dealing greedily gives the fairest result there
//! is (Federgruen and Groenevelt 1986).

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::{Spread, Task};

/// The quota of each node that holds so many before. They add up to `replicas` for each partition, and an assignment that
/// meets them exactly and respects the zones exists: giving every node `quota / partitions` of each
/// partition would be one, and a flow with whole bounds that can be met in fractions can be met in
/// whole numbers.
pub(super) fn quotas(task: &Task, spread: &Spread, held: Vec<usize>) -> Vec<usize> {
    let mut deal = Deal { task, spread, held, quotas: vec![0; task.nodes().len()] };
    let partitions = task.count();
    let mut zone_left: Vec<usize> =
        (0..spread.zones()).map(|zone| spread.least(zone) * partitions).collect();
    let least: usize = zone_left.iter().sum();
    deal.deal(least, &mut zone_left);
    for (zone, left) in zone_left.iter_mut().enumerate() {
        *left += (spread.most(zone) - spread.least(zone)) * partitions;
    }
    deal.deal(partitions * task.replicas - least, &mut zone_left);
    deal.quotas
}

struct Deal<'a> {
    task: &'a Task,
    spread: &'a Spread,
    held: Vec<usize>,
    quotas: Vec<usize>,
}

impl Deal<'_> {
    /// Deals `amount` replicas, at most `zone_left` of them to each zone.
    fn deal(&mut self, amount: usize, zone_left: &mut [usize]) {
        let mut seats: BinaryHeap<Reverse<Seat>> =
            self.task.nodes().map(|node| Reverse(self.next_seat(node))).collect();
        for _ in 0..amount {
            let node = loop {
                let Reverse(Seat { node, .. }) =
                    seats.pop().expect("the zones' limits leave room for every replica");
                // A node or a zone that is full stays full; it does not come back.
                if self.quotas[node] < self.task.count() && zone_left[self.spread.zone(node)] > 0 {
                    break node;
                }
            };
            self.quotas[node] += 1;
            zone_left[self.spread.zone(node)] -= 1;
            seats.push(Reverse(self.next_seat(node)));
        }
    }

    fn next_seat(&self, node: usize) -> Seat {
        Seat {
            load: 2 * self.quotas[node] as u64 + 1,
            weight: self.task.weight(node),
            would_move: self.quotas[node] >= self.held[node],
            node,
        }
    }
}

/// What one more replica would mean for a node. The smallest goes first: the least for its weight;
/// of equals the node that holds another one already, so that it need not move; of equals again the
/// one with the lower id.
#[derive(PartialEq, Eq)]
struct Seat {
    load: u64,
    weight: u64,
    would_move: bool,
    node: usize,
}

impl Ord for Seat {
    fn cmp(&self, other: &Self) -> Ordering {
        // No overflow: a load is at most 2^17 + 1 and a weight below 2^32.
        (self.load * other.weight)
            .cmp(&(other.load * self.weight))
            .then(self.would_move.cmp(&other.would_move))
            .then(self.node.cmp(&other.node))
    }
}

impl PartialOrd for Seat {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
