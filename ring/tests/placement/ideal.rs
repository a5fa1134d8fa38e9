//! What the rules say about a cluster, found without the planner: by trying all ways to spread a
//! partition's owners, by searching for the lowest possible maximum, and by looking for a cheaper
//! set of moves.

use std::collections::BTreeMap;

use atoll_ring::{Member, MemberState, NodeId, Partitions, Placement};

pub type Table = Vec<Vec<NodeId>>;

pub fn member(id: u32, zone: usize, weight: u32) -> Member {
    Member {
        id: NodeId(id),
        incarnation: 1,
        address: ([127, 0, 0, 1], 4000).into(),
        zone: format!("z{zone}"),
        weight,
        state: MemberState::Active,
    }
}

pub fn plan(
    members: &[Member],
    partitions: u32,
    replicas: u8,
    previous: Option<&Table>,
) -> Placement {
    let partitions = Partitions::new(partitions).unwrap();
    Placement::plan(members, partitions, replicas, previous.map(Vec::as_slice)).unwrap()
}

pub fn held(table: &Table, members: &[Member]) -> Vec<usize> {
    let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
    for owner in table.iter().flatten() {
        *counts.entry(*owner).or_default() += 1;
    }
    count(members, |id| counts.get(&id).copied().unwrap_or(0))
}

pub fn count(members: &[Member], of: impl Fn(NodeId) -> usize) -> Vec<usize> {
    members.iter().map(|member| of(member.id)).collect()
}

/// Replicas that are at a node now which was no owner before.
pub fn moved(before: &Table, after: &Table) -> usize {
    let pairs = before.iter().zip(after);
    pairs.map(|(old, new)| new.iter().filter(|node| !old.contains(node)).count()).sum()
}

/// What the rules say about a cluster, found without the planner.
pub struct Ideal {
    pub members: Vec<Member>,
    pub zones: Vec<String>,
    pub sizes: Vec<usize>,
    zone_of: BTreeMap<NodeId, usize>,
    /// The most even ways to spread one partition's owners: how many in each zone.
    spreads: Vec<Vec<usize>>,
}

impl Ideal {
    pub fn new(members: &[Member], replicas: usize) -> Ideal {
        let mut zones: Vec<String> = members.iter().map(|member| member.zone.clone()).collect();
        zones.sort();
        zones.dedup();
        let size = |zone: &String| members.iter().filter(|member| member.zone == *zone).count();
        let sizes: Vec<usize> = zones.iter().map(size).collect();
        // Most even is where the sum of squares is smallest.
        let mut ways = vec![vec![]];
        for size in &sizes {
            let longer =
                |way: Vec<usize>| (0..=*size).map(move |count| [way.clone(), vec![count]].concat());
            let fits = |way: &Vec<usize>| way.iter().sum::<usize>() <= replicas;
            ways = ways.into_iter().flat_map(longer).filter(fits).collect();
        }
        ways.retain(|way| way.iter().sum::<usize>() == replicas);
        let squares = |way: &Vec<usize>| way.iter().map(|count| count * count).sum::<usize>();
        let least = ways.iter().map(squares).min().unwrap();
        ways.retain(|way| squares(way) == least);
        let index = |member: &Member| zones.iter().position(|zone| *zone == member.zone).unwrap();
        let zone_of = members.iter().map(|member| (member.id, index(member))).collect();
        Ideal { members: members.to_vec(), zones, sizes, zone_of, spreads: ways }
    }

    pub fn zone(&self, node: NodeId) -> usize {
        self.zone_of[&node]
    }

    pub fn counts(&self, owners: &[NodeId]) -> Vec<usize> {
        let mut counts = vec![0; self.zones.len()];
        for owner in owners {
            counts[self.zone(*owner)] += 1;
        }
        counts
    }

    pub fn least(&self, zone: usize) -> usize {
        self.spreads.iter().map(|spread| spread[zone]).min().unwrap()
    }

    pub fn most(&self, zone: usize) -> usize {
        self.spreads.iter().map(|spread| spread[zone]).max().unwrap()
    }

    /// What each node should hold if replicas could be cut: in proportion to its weight, as far as
    /// zones and the number of partitions allow. Found by halving, for all zones and then in each.
    pub fn shares(&self, partitions: usize, total: usize) -> Vec<Share> {
        let mut weights = vec![Vec::new(); self.zones.len()];
        for member in &self.members {
            weights[self.zone(member.id)].push(member.weight);
        }
        let node = |weight: u32, level: f64| (level * f64::from(weight)).min(partitions as f64);
        let unlimited = |zone: usize, level: f64| {
            weights[zone].iter().map(|weight| node(*weight, level)).sum::<f64>()
        };
        let in_zone = |zone: usize, level: f64| {
            let (least, most) = (self.least(zone) * partitions, self.most(zone) * partitions);
            unlimited(zone, level).clamp(least as f64, most as f64)
        };
        let zones = 0..self.zones.len();
        let all = level(total as f64, |level| zones.clone().map(|zone| in_zone(zone, level)).sum());
        let levels: Vec<f64> =
            zones.map(|zone| level(in_zone(zone, all), |level| unlimited(zone, level))).collect();
        let share = |member: &Member| {
            let zone = self.zone(member.id);
            let rounding = if self.least(zone) == self.most(zone) {
                Rounding::WithinZone(zone)
            } else if levels[zone] < all * (1.0 - 1e-9) {
                Rounding::FullZone(zone)
            } else {
                Rounding::Free
            };
            Share { replicas: node(member.weight, levels[zone]), rounding }
        };
        self.members.iter().map(share).collect()
    }

    /// Weights are respected: nobody is a whole replica away from its share.
    pub fn check_shares(&self, table: &Table) {
        let total = table.iter().map(Vec::len).sum();
        let shares = self.shares(table.len(), total);
        for ((member, share), held) in
            self.members.iter().zip(shares).zip(held(table, &self.members))
        {
            let difference = (held as f64 - share.replicas).abs();
            assert!(difference < 1.0, "{} holds {held}, its share is {share:?}", member.id);
        }
    }

    /// The lowest number of replicas that the fullest of equal nodes can have.
    pub fn lowest_maximum(&self, partitions: usize, total: usize) -> usize {
        let zones = || 0..self.zones.len();
        let possible = |cap: usize| {
            let room =
                zones().map(|zone| (cap * self.sizes[zone]).min(partitions * self.most(zone)));
            room.sum::<usize>() >= total
                && zones().all(|zone| cap * self.sizes[zone] >= partitions * self.least(zone))
        };
        (0..).find(|cap| possible(*cap)).unwrap()
    }

    /// The highest number that the emptiest can have.
    pub fn highest_minimum(&self, partitions: usize, total: usize) -> usize {
        let zones = || 0..self.zones.len();
        let possible = |floor: &usize| {
            let need =
                zones().map(|zone| (floor * self.sizes[zone]).max(partitions * self.least(zone)));
            need.sum::<usize>() <= total
                && zones().all(|zone| floor * self.sizes[zone] <= partitions * self.most(zone))
        };
        (0..=partitions).take_while(possible).last().unwrap()
    }

    /// Whether some other table gives every node as many replicas, obeys the zones and moves less.
    ///
    /// It does if there is a cycle of negative cost in the flow network partition → (partition,
    /// zone) → node, where a replica at a node that did not have it before costs 1. Bellman and
    /// Ford find one if there is one.
    pub fn less_could_move(&self, before: &Table, after: &Table) -> bool {
        let (zones, nodes) = (self.zones.len(), self.members.len());
        let hub = |partition: usize| nodes + partition * (zones + 1);
        let mut edges: Vec<(usize, usize, i64)> = Vec::new();
        for (partition, owners) in after.iter().enumerate() {
            for (zone, count) in self.counts(owners).into_iter().enumerate() {
                let at_zone = hub(partition) + 1 + zone;
                if count < self.most(zone) {
                    edges.push((hub(partition), at_zone, 0));
                }
                if count > self.least(zone) {
                    edges.push((at_zone, hub(partition), 0));
                }
            }
            for (index, member) in self.members.iter().enumerate() {
                let at_zone = hub(partition) + 1 + self.zone(member.id);
                let cost = i64::from(!before[partition].contains(&member.id));
                if owners.contains(&member.id) {
                    edges.push((index, at_zone, -cost));
                } else {
                    edges.push((at_zone, index, cost));
                }
            }
        }
        let vertices = hub(after.len());
        let mut distance = vec![0; vertices];
        for _ in 0..vertices {
            let mut changed = false;
            for &(from, to, cost) in &edges {
                if distance[from] + cost < distance[to] {
                    distance[to] = distance[from] + cost;
                    changed = true;
                }
            }
            if !changed {
                return false;
            }
        }
        true
    }
}

/// What a node should hold.
#[derive(Debug)]
pub struct Share {
    pub replicas: f64,
    pub rounding: Rounding,
}

/// How many nodes may be rounded up together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rounding {
    /// So many that all replicas are placed.
    Free,
    /// The zone holds what it must: as many as that takes.
    WithinZone(usize),
    /// The zone is full: no more than that.
    FullZone(usize),
}

/// The level at which a growing amount reaches its goal.
fn level(goal: f64, amount: impl Fn(f64) -> f64) -> f64 {
    let (mut below, mut above) = (0.0, goal.max(1.0));
    for _ in 0..100 {
        let middle = (below + above) / 2.0;
        if amount(middle) < goal {
            below = middle;
        } else {
            above = middle;
        }
    }
    above
}

/// Right number of owners, distinct, spread as evenly over the zones as can be. Returns the rules
/// for more questions.
pub fn check_valid(members: &[Member], partitions: usize, replicas: usize, table: &Table) -> Ideal {
    let ideal = Ideal::new(members, replicas);
    assert_eq!(table.len(), partitions);
    for owners in table {
        let mut distinct = owners.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!((owners.len(), distinct.len()), (replicas, replicas), "{owners:?}");
        assert!(ideal.spreads.contains(&ideal.counts(owners)), "{owners:?} could be more even");
    }
    ideal
}

/// A change of members moves the least that is possible, and who stays keeps the place.
pub fn check_change(ideal: &Ideal, before: &Table, after: &Table) {
    assert!(!ideal.less_could_move(before, after));
    check_places(before, after);
}

/// Who stays an owner keeps the place, so that a successor stands where its predecessor stood.
pub fn check_places(before: &Table, after: &Table) {
    for (old, new) in before.iter().zip(after) {
        for (place, owner) in old.iter().enumerate() {
            let now = new.iter().position(|node| node == owner);
            assert!(now.is_none_or(|now| now == place), "{old:?} became {new:?}");
        }
    }
}
