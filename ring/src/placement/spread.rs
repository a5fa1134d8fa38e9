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
    /// Nodes of each zone.
    nodes: Vec<Vec<usize>>,
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
        let mut nodes = vec![Vec::new(); names.len()];
        for (node, zone) in zone_of.iter().enumerate() {
            nodes[*zone].push(node);
        }
        let below = |level: usize| nodes.iter().map(move |nodes| nodes.len().min(level));
        let level = (1..=replicas)
            .find(|level| below(*level).sum::<usize>() >= replicas)
            .expect("at least as many nodes as replicas");
        let least: Vec<usize> = below(level - 1).collect();
        let optional = replicas - least.iter().sum::<usize>();
        let most = below(level).collect();
        Spread { zone_of, nodes, least, most, optional }
    }

    /// How many zones there are.
    pub fn zones(&self) -> usize {
        self.least.len()
    }

    /// The zone of a node.
    pub fn zone(&self, node: usize) -> usize {
        self.zone_of[node]
    }

    /// The nodes of a zone.
    pub fn nodes(&self, zone: usize) -> &[usize] {
        &self.nodes[zone]
    }

    /// Owners a partition has in this zone at the least.
    pub fn least(&self, zone: usize) -> usize {
        self.least[zone]
    }

    /// Owners a partition has in this zone at the most.
    pub fn most(&self, zone: usize) -> usize {
        self.most[zone]
    }

    /// Tells of each zone whether a partition with these owners may take one more from it, with a
    /// place left for every zone that is still below its least.
    pub fn room(&self, owners: impl Iterator<Item = usize> + Clone) -> impl Fn(usize) -> bool {
        move |zone| {
            let count = self.count(owners.clone(), zone);
            let optional_left = || self.optional_used(owners.clone()) < self.optional;
            count < self.least[zone] || (count < self.most[zone] && optional_left())
        }
    }

    /// Tells of each zone whether these owners are too many in it.
    pub fn crowded(&self, owners: impl Iterator<Item = usize> + Clone) -> impl Fn(usize) -> bool {
        let optional_overused = self.optional_used(owners.clone()) > self.optional;
        move |zone| {
            let count = self.count(owners.clone(), zone);
            count > self.most[zone] || (count > self.least[zone] && optional_overused)
        }
    }

    fn count(&self, owners: impl Iterator<Item = usize>, zone: usize) -> usize {
        owners.filter(|owner| self.zone_of[*owner] == zone).count()
    }

    /// Counts who stands beyond the least of its zone. Owners are few: comparing each with those
    /// before it costs less than a table of zones.
    fn optional_used(&self, owners: impl Iterator<Item = usize> + Clone) -> usize {
        if self.least.iter().all(|least| *least == 0) {
            return owners.count(); // the usual case: zones enough
        }
        let beyond = |(index, owner): &(usize, usize)| {
            let zone = self.zone_of[*owner];
            self.count(owners.clone().take(*index), zone) >= self.least[zone]
        };
        owners.clone().enumerate().filter(beyond).count()
    }
}
