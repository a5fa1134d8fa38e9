//! The ring as a picture: which partitions belong to whom, and how many of their owners are within reach.
//!
//! ```text
//!        ▄▄▄▄▄▄          outermost: how partitions are; inside a band for each copy, the first owner's outside.
//!     ▄▀▀      ▀▀▄       A ring has far more partitions than pixels, so each pixel shows the owners of one partition
//!    █            █      of its arc and the worst state of all of them: one partition in trouble is enough to be seen.
//!     ▀▄▄      ▄▄▀
//!        ▀▀▀▀▀▀
//! ```

use std::f64::consts::TAU;

use atoll_client::NodeId;
use atoll_ring::Owners;
use atoll_testnet::Look;

/// How many owners of a partition are within reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All.
    Whole,
    /// Not all, and more than half: strict reads and writes with the usual quorum go on.
    Short,
    /// Half at most: they go on only where fallbacks may stand in.
    Minority,
    /// None: what it holds cannot be read.
    Lost,
}

impl Health {
    /// All, the best first.
    pub const ALL: [Health; 4] = [Health::Whole, Health::Short, Health::Minority, Health::Lost];

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Health::Whole => "whole",
            Health::Short => "short",
            Health::Minority => "no majority",
            Health::Lost => "lost",
        }
    }

    fn of(reached: usize, owners: usize) -> Health {
        match reached {
            0 => Health::Lost,
            reached if reached == owners => Health::Whole,
            reached if reached * 2 > owners => Health::Short,
            _ => Health::Minority,
        }
    }
}

/// An owner of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub node: NodeId,
    pub within_reach: bool,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its owners, the first first.
    pub owners: Vec<Owner>,
    pub health: Health,
}

/// All partitions, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    pub slices: Vec<Slice>,
    pub copies: u8,
}

/// What one pixel shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixel {
    Health(Health),
    Owner(Owner),
}

impl Ring {
    /// As it was seen; none as long as no node has told of it.
    pub fn of(look: &Look) -> Option<Ring> {
        let view = look.view.as_ref()?;
        let within_reach: Vec<NodeId> = look
            .reports
            .iter()
            .map(|report| report.node.id)
            .filter(|node| look.is_within_reach(*node))
            .collect();
        let slice = |owners: Owners<'_>| {
            let (Owners::One(owners) | Owners::Joint { old: owners, .. }) = owners;
            let owner =
                |node: &NodeId| Owner { node: *node, within_reach: within_reach.contains(node) };
            let owners: Vec<Owner> = owners.iter().map(owner).collect();
            let reached = owners.iter().filter(|owner| owner.within_reach).count();
            Slice { health: Health::of(reached, owners.len()), owners }
        };
        let slices = view.partitions().all().map(|partition| slice(view.owners(partition)));
        Some(Ring { slices: slices.collect(), copies: view.replicas() })
    }

    /// How many partitions are so.
    pub fn count(&self, health: Health) -> usize {
        self.slices.iter().filter(|slice| slice.health == health).count()
    }

    /// What the pixel shows whose middle lies here, in a square of 2 by 2 with the ring in its middle; pixels are `size` wide.
    /// Partition 0 begins at the top, and they go on clockwise.
    pub fn pixel(&self, x: f64, y: f64, size: f64) -> Option<Pixel> {
        let radius = x.hypot(y);
        if !(HOLE..=1.0).contains(&radius) || self.slices.is_empty() {
            return None;
        }
        let turn = x.atan2(-y).rem_euclid(TAU) / TAU;
        let rim = RIM.max(size);
        if radius > 1.0 - rim {
            let half = size / radius / TAU / 2.0;
            return Some(Pixel::Health(self.worst(turn - half, turn + half)));
        }
        let depth = (1.0 - rim - radius) / (1.0 - rim - HOLE);
        let slice = &self.slices[self.index(turn)];
        let copy = (depth * slice.owners.len() as f64) as usize;
        slice.owners.get(copy.min(slice.owners.len().checked_sub(1)?)).copied().map(Pixel::Owner)
    }

    /// The worst state in an arc.
    fn worst(&self, from: f64, to: f64) -> Health {
        let count = self.slices.len();
        let first = self.index(from.rem_euclid(1.0));
        let many = (((to - from) * count as f64).ceil() as usize + 1).min(count); // both ends cut a partition
        let arc = (0..many).map(|step| self.slices[(first + step) % count].health);
        arc.max().expect("an arc has a partition")
    }

    fn index(&self, turn: f64) -> usize {
        ((turn * self.slices.len() as f64) as usize).min(self.slices.len() - 1)
    }
}

/// Where the innermost band ends, as part of the radius: room for a few words.
const HOLE: f64 = 0.42;

/// How thick the band is that shows how partitions are; a pixel at least.
const RIM: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring of so many partitions with three owners, those named out of reach.
    fn ring(partitions: u32, away: &[u32]) -> Ring {
        let slice = |partition: u32| {
            let owner = |copy: u32| {
                let node = (partition + copy) % 5 + 1;
                Owner { node: NodeId(node), within_reach: !away.contains(&node) }
            };
            let owners: Vec<Owner> = (0..3).map(owner).collect();
            let reached = owners.iter().filter(|owner| owner.within_reach).count();
            Slice { health: Health::of(reached, 3), owners }
        };
        Ring { slices: (0..partitions).map(slice).collect(), copies: 3 }
    }

    /// How many owners within reach make which state.
    #[test]
    fn health_is_a_count_of_owners() {
        use Health::{Lost, Minority, Short, Whole};
        for (owners, expected) in [
            (1, vec![Lost, Whole]),
            (2, vec![Lost, Minority, Whole]),
            (3, vec![Lost, Minority, Short, Whole]),
            (4, vec![Lost, Minority, Minority, Short, Whole]),
        ] {
            let found: Vec<Health> =
                (0..=owners).map(|reached| Health::of(reached, owners)).collect();
            assert_eq!(found, expected, "of {owners}");
        }
    }

    /// The first partition is right of the top, a quarter of them further on the right, and the owners go inwards.
    #[test]
    fn partitions_go_clockwise_from_the_top() {
        let ring = ring(8, &[]);
        for (x, y, partition) in
            [(0.01, -1.0, 0), (1.0, 0.01, 2), (-0.01, 1.0, 4), (-0.01, -1.0, 7)]
        {
            let at = |radius: f64| ring.pixel(x * radius, y * radius, 0.01);
            assert_eq!(at(0.99), Some(Pixel::Health(Health::Whole)));
            let owners = &ring.slices[partition].owners;
            for (radius, copy) in [(0.85, 0), (0.66, 1), (0.47, 2)] {
                assert_eq!(at(radius), Some(Pixel::Owner(owners[copy])), "{partition} {radius}");
            }
        }
        assert_eq!(ring.pixel(0.0, 0.2, 0.01), None, "a hole");
        assert_eq!(ring.pixel(0.9, 0.9, 0.01), None, "a corner");
    }

    /// However many partitions share a pixel, one that is lost is seen.
    #[test]
    fn one_lost_partition_is_seen() {
        for lost in [0, 1, 500, 1023] {
            let mut ring = ring(1024, &[]);
            ring.slices[lost].health = Health::Lost;
            let size = 2.0 / 22.0;
            let pixels = (0..22 * 22).map(|index| {
                let middle = |number: u32| (f64::from(number) + 0.5) * size - 1.0;
                ring.pixel(middle(index % 22), middle(index / 22), size)
            });
            let seen = pixels.filter(|pixel| *pixel == Some(Pixel::Health(Health::Lost))).count();
            assert!((1..=6).contains(&seen), "partition {lost}: {seen} pixels");
            assert_eq!(ring.count(Health::Lost), 1);
        }
    }

    /// A ring of one partition, and one of none, are drawn without a panic.
    #[test]
    fn small_rings() {
        let one = ring(1, &[1]);
        assert_eq!(one.pixel(0.0, -0.99, 0.5), Some(Pixel::Health(Health::Short)));
        let none = Ring { slices: Vec::new(), copies: 3 };
        assert_eq!(none.pixel(0.0, -0.99, 0.5), None);
    }
}
