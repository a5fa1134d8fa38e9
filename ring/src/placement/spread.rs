//! How the owners of one partition are spread over zones.
//!
//! The rule is: as evenly as the zones' sizes allow. With at least as many zones as replicas every
//! zone holds one owner at most. With fewer, imagine water poured into the zones until `replicas`
//! owners are in: zones smaller than the water level hold all their nodes, the others hold `level`
//! or one less.
//!
//! ```text
//!   replicas 3, zones of 4 and 3 nodes: level 2     1 or 2 owners in each
//!   replicas 3, zones of 4 and 1 node:  level 2     2 owners and 1
//!   replicas 3, zones of 2, 2 and 1:    level 1     1 owner in each
//! ```
//!
//! So every zone has a `least` and a `most`, one apart or equal, and a partition has as many
//! `optional` owners beyond the least ones as `replicas` leaves.

/// How many owners of one partition each zone may hold.
pub(super) struct Spread {
    /// Zone of each node.
    zone_of: Vec<usize>,
    /// Owners a partition has in each zone at the least.
    least: Vec<usize>,
    /// And at the most.
    most: Vec<usize>,
    /// Owners a partition has beyond the least ones.
    optional: usize,
}

impl Spread {
    /// Spreads `replicas` owners over the zones that the nodes name. There are at least as many
    /// nodes as replicas.
    pub fn new(zone_names: &[&str], replicas: usize) -> Spread {
        let mut names = zone_names.to_vec();
        names.sort_unstable();
        names.dedup();
        let zone_of: Vec<usize> =
            zone_names.iter().map(|name| names.partition_point(|other| other < name)).collect();
        let mut sizes = vec![0; names.len()];
        for zone in &zone_of {
            sizes[*zone] += 1;
        }
        let below = |level: usize| sizes.iter().map(move |size: &usize| (*size).min(level));
        let level = (1..=replicas)
            .find(|level| below(*level).sum::<usize>() >= replicas)
            .expect("at least as many nodes as replicas");
        let least: Vec<usize> = below(level - 1).collect();
        let optional = replicas - least.iter().sum::<usize>();
        let most = below(level).collect();
        Spread { zone_of, least, most, optional }
    }

    /// How many zones there are.
    pub fn zones(&self) -> usize {
        self.least.len()
    }

    /// The zone of a node.
    pub fn zone(&self, node: usize) -> usize {
        self.zone_of[node]
    }

    /// Owners a partition has in this zone at the least.
    pub fn least(&self, zone: usize) -> usize {
        self.least[zone]
    }

    /// Owners a partition has in this zone at the most.
    pub fn most(&self, zone: usize) -> usize {
        self.most[zone]
    }

    /// Per zone, whether a partition with these owners may take one more from it, with a place left
    /// for every zone that is still below its least.
    pub fn room(&self, owners: impl Iterator<Item = usize>) -> Vec<bool> {
        let counts = self.counts(owners);
        let optional_left = self.optional_used(&counts) < self.optional;
        let room = |zone: usize| {
            counts[zone] < self.least[zone] || (counts[zone] < self.most[zone] && optional_left)
        };
        (0..self.zones()).map(room).collect()
    }

    /// Per zone, whether these owners are too many in it.
    pub fn crowded(&self, owners: impl Iterator<Item = usize>) -> Vec<bool> {
        let counts = self.counts(owners);
        let optional_overused = self.optional_used(&counts) > self.optional;
        let crowded = |zone: usize| {
            counts[zone] > self.most[zone] || (counts[zone] > self.least[zone] && optional_overused)
        };
        (0..self.zones()).map(crowded).collect()
    }

    fn counts(&self, owners: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut counts = vec![0; self.zones()];
        for owner in owners {
            counts[self.zone_of[owner]] += 1;
        }
        counts
    }

    fn optional_used(&self, counts: &[usize]) -> usize {
        counts.iter().zip(&self.least).map(|(count, least)| count.saturating_sub(*least)).sum()
    }
}
