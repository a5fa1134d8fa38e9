//! How many partition replicas each node shall hold.
//!
//! A node's **share** is in proportion to its weight, as far as the limits allow: a node holds each
//! partition once, and a zone between its `least` and its `most` owners of each partition. Where no
//! limit is reached all nodes have the same share per weight; a zone at its limit has its own; a
//! node at its limit holds one replica of every partition.
//!
//! A **quota** is the share in whole numbers: rounded down, or up for as many nodes as it takes to
//! place every replica. So a node is never a whole partition away from its share. (The method of
//! Webster and Sainte-Laguë alone, which we used before, lets rounding add up: among 900 nodes of
//! weight 1 and 100 of weight 3 the heavy ones came out 1.4 below.) Rounding up first takes those
//! who hold so much already, which moves the least, then the nodes for whom one more is the least
//! for their weight.

use super::{Spread, Task};

/// The quota of each node that holds so many before. They add up to `replicas` for each partition,
/// and an assignment that meets them exactly and respects the zones exists: giving every node
/// `quota / partitions` of each partition would be one, and a flow with whole bounds that can be met
/// in fractions can be met in whole numbers. For the same reason such quotas exist at all: the
/// shares themselves obey all limits.
pub(super) fn quotas(task: &Task, spread: &Spread, held: Vec<usize>) -> Vec<usize> {
    let shares = shares(task, spread);
    let mut quotas: Vec<usize> = shares.iter().map(Share::rounded_down).collect();
    let mut in_zone = vec![0; spread.zones()];
    for node in task.nodes() {
        in_zone[spread.zone(node)] += quotas[node];
    }
    let mut uneven: Vec<usize> = task.nodes().filter(|node| !shares[*node].is_whole()).collect();
    uneven.sort_by(|&a, &b| {
        let would_move = |node: usize| held[node] <= quotas[node];
        let load = |node: usize| 2 * quotas[node] as u64 + 1;
        // No overflow: a load is at most 2^17 + 1 and a weight below 2^32.
        let for_weight = (load(a) * task.weight(b)).cmp(&(load(b) * task.weight(a)));
        would_move(a).cmp(&would_move(b)).then(for_weight).then(a.cmp(&b))
    });
    // Zones below their least come first. Both passes take the first in the row that fits, which is
    // the best choice because the limits nest (nodes within zones): Federgruen and Groenevelt, "The
    // greedy procedure for resource allocation problems", 1986.
    let mut left = task.count() * task.replicas - quotas.iter().sum::<usize>();
    for limit in [Spread::least, Spread::most] {
        uneven.retain(|&node| {
            let zone = spread.zone(node);
            let fits = left > 0 && in_zone[zone] < limit(spread, zone) * task.count();
            if fits {
                quotas[node] += 1;
                in_zone[zone] += 1;
                left -= 1;
            }
            !fits
        });
    }
    assert_eq!(left, 0, "the shares add up and obey the limits, so rounding can");
    quotas
}

/// What a node shall hold before rounding: `amount / parts`.
#[derive(Clone, Copy)]
struct Share {
    amount: u128,
    parts: u128,
}

impl Share {
    fn rounded_down(&self) -> usize {
        usize::try_from(self.amount / self.parts).expect("no more than there are partitions")
    }

    fn is_whole(&self) -> bool {
        self.amount.is_multiple_of(self.parts)
    }
}

/// The shares: first as if zones had no limits. As long as that gives some zones too much and some
/// too little, the ones on the side that is farther off are set to their limit and the others share
/// the rest (Bitran and Hax, "Disaggregation and resource allocation using convex knapsack problems
/// with bounded variables", 1981).
fn shares(task: &Task, spread: &Spread) -> Vec<Share> {
    let mut shares = vec![Share { amount: 0, parts: 1 }; task.nodes().len()];
    let mut open: Vec<usize> = (0..spread.zones()).collect();
    let mut left = task.count() * task.replicas;
    loop {
        let level = Level::new(task, open.iter().flat_map(|zone| spread.nodes(*zone)), left);
        // In units of a replica over the level's weights.
        let limit = |limit: usize| (limit * task.count()) as u128 * level.weights;
        let total = |zone: usize| -> u128 {
            spread.nodes(zone).iter().map(|node| level.part(task, *node)).sum()
        };
        let above = |zone: usize| total(zone).saturating_sub(limit(spread.most(zone)));
        let below = |zone: usize| limit(spread.least(zone)).saturating_sub(total(zone));
        let too_much: u128 = open.iter().map(|zone| above(*zone)).sum();
        let too_little: u128 = open.iter().map(|zone| below(*zone)).sum();
        if too_much == 0 && too_little == 0 {
            for node in open.iter().flat_map(|zone| spread.nodes(*zone)) {
                shares[*node] = level.share(task, *node);
            }
            return shares;
        }
        let (closed, still_open): (Vec<usize>, Vec<usize>) = open.iter().partition(|zone| {
            if too_much >= too_little { above(**zone) > 0 } else { below(**zone) > 0 }
        });
        for zone in closed {
            let of_each =
                if too_much >= too_little { spread.most(zone) } else { spread.least(zone) };
            let amount = of_each * task.count();
            let level = Level::new(task, spread.nodes(zone).iter(), amount);
            for node in spread.nodes(zone) {
                shares[*node] = level.share(task, *node);
            }
            left -= amount;
        }
        open = still_open;
    }
}

/// So much per weight: `amount / weights`, and no node more than there are partitions.
struct Level {
    amount: u128,
    weights: u128,
}

impl Level {
    /// The level at which these nodes hold `amount` together.
    fn new<'a>(task: &Task, nodes: impl Iterator<Item = &'a usize>, amount: usize) -> Level {
        let mut weights: Vec<u128> = nodes.map(|node| u128::from(task.weight(*node))).collect();
        weights.sort_unstable();
        let mut level =
            Level { amount: amount as u128, weights: weights.iter().sum::<u128>().max(1) };
        // The heaviest reach their limit first; what they cannot hold raises the level of the rest.
        while let Some(heaviest) = weights.pop()
            && level.amount * heaviest > task.count() as u128 * level.weights
        {
            level.amount -= task.count() as u128;
            level.weights -= heaviest;
        }
        level
    }

    /// What a node holds at this level, times `weights`.
    fn part(&self, task: &Task, node: usize) -> u128 {
        let proportional = self.amount * u128::from(task.weight(node));
        proportional.min(task.count() as u128 * self.weights)
    }

    fn share(&self, task: &Task, node: usize) -> Share {
        Share { amount: self.part(task, node), parts: self.weights }
    }
}
