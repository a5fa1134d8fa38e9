//! How long replicas take, as this node sees them when it coordinates: per node and leg of a request.
//!
//! ```text
//!   coordinator        replica
//!        ├── fetch ──────▶│   the answer comes back                     Leg::Fetch     R + S
//!        ├── change ─────▶│   acknowledged as soon as reads see it      Leg::Written   W + A
//!        ├── change ─────▶│   acknowledged when it is fsynced           Leg::Durable   W + A
//! ```
//!
//! The letters are those of the WARS model (Bailis and others, "Probabilistically bounded staleness", 2012, section 4.1),
//! two of them at a time: one clock sees the way there and back only. The node itself has legs too; its `Written` and
//! `Durable` are its own commits, which wait for the disk and for no network.
//!
//! Always on. A sample costs a lookup and an addition, a node 650 bytes. Only answers are counted, so a node that is silent
//! looks as it did when it last spoke; whether it does is the business of [`crate::liveness`].

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use atoll_ring::NodeId;
use atoll_wire::{
    Ack, Measured,
    times::{TIMES_BUCKETS, bucket, upper_edge},
};

/// Answers after which older ones count half.
const SAMPLES_MAX: u16 = 1024;

/// A part of a request that one replica answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leg {
    /// A copy was asked for.
    Fetch,
    /// A change was to be seen by reads.
    Written,
    /// A change was to be fsynced.
    Durable,
}

impl From<Ack> for Leg {
    fn from(asked: Ack) -> Leg {
        match asked {
            Ack::Written => Leg::Written,
            Ack::Durable => Leg::Durable,
        }
    }
}

/// All that was measured.
#[derive(Default)]
pub(crate) struct Measurements {
    nodes: Mutex<BTreeMap<NodeId, [Histogram; 3]>>,
}

impl Measurements {
    /// A replica has answered after this time.
    pub(crate) fn add(&self, node: NodeId, leg: Leg, after: Duration) {
        let mut nodes = self.nodes.lock().expect("no panic holds it");
        nodes.entry(node).or_default()[leg as usize].add(after);
    }

    /// What is known of a replica; none until it has answered.
    pub(crate) fn of(&self, node: NodeId, leg: Leg) -> Option<Measured> {
        let nodes = self.nodes.lock().expect("no panic holds it");
        let histogram = &nodes.get(&node)?[leg as usize];
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Some(Measured {
            p50_micros: micros(histogram.all_but_one_in(2)?),
            p99_micros: micros(histogram.all_but_one_in(100)?),
            samples: u32::from(histogram.total()),
        })
    }

    /// These are the members from now on.
    pub(crate) fn follow(&self, members: impl Fn(NodeId) -> bool) {
        self.nodes.lock().expect("no panic holds it").retain(|node, _| members(*node));
    }
}

/// The latest times, in the buckets of [`atoll_wire::times`]. Older ones fade: each time there are [`SAMPLES_MAX`] all count half.
pub(crate) struct Histogram {
    /// How many took so long; see [`atoll_wire::times`].
    counts: [u16; TIMES_BUCKETS],
    total: u16,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; TIMES_BUCKETS], total: 0 }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, time: Duration) {
        self.counts[bucket(time)] += 1;
        self.total += 1;
        if self.total >= SAMPLES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// How many there are, the faded ones as what is left of them.
    pub(crate) fn total(&self) -> u16 {
        self.total
    }

    /// A time that all but one in so many of them did not exceed, a quarter too long at most.
    pub(crate) fn all_but_one_in(&self, so_many: u16) -> Option<Duration> {
        let may_exceed = self.total / so_many;
        let mut slower = 0;
        for index in (0..TIMES_BUCKETS).rev() {
            slower += self.counts[index];
            if slower > may_exceed {
                return Some(upper_edge(index));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the times are, each quantile lies at or above the exact one and at most a quarter above it.
    #[test]
    fn quantiles_are_a_quarter_too_long_at_most() {
        for scale in [3, 40, 1_000, 70_000] {
            let mut times: Vec<u64> = (0..500).map(|i| scale + i * i % 997 * scale / 100).collect();
            let mut histogram = Histogram::default();
            times.iter().for_each(|time| histogram.add(Duration::from_micros(*time)));
            times.sort_unstable();
            for so_many in [2, 20, 100] {
                let exact = times[500 - 500 / usize::from(so_many) - 1];
                let exact = Duration::from_micros(exact);
                let found = histogram.all_but_one_in(so_many).expect("500 samples");
                assert!(exact <= found && found <= exact * 5 / 4, "{exact:?} {found:?} {so_many}");
            }
        }
    }

    /// Legs and nodes are kept apart, nothing is said of what was never seen, and what is long past fades.
    #[test]
    fn each_leg_of_each_node_is_measured_alone() {
        let measured = Measurements::default();
        let (ms, near, far) = (Duration::from_millis, NodeId(1), NodeId(2));
        assert_eq!(measured.of(near, Leg::Fetch), None);
        for _ in 0..10 {
            measured.add(near, Leg::Fetch, ms(1));
            measured.add(far, Leg::Durable, ms(50));
        }
        let close = |found: Option<Measured>, expected: Duration| {
            let found = Duration::from_micros(found.expect("measured").p50_micros.into());
            expected <= found && found <= expected * 5 / 4
        };
        assert!(close(measured.of(near, Leg::Fetch), ms(1)));
        assert!(close(measured.of(far, Leg::Durable), ms(50)));
        assert_eq!(measured.of(far, Leg::Fetch), None);
        assert_eq!(measured.of(far, Leg::Durable).map(|it| it.samples), Some(10));
        for _ in 0..20 * SAMPLES_MAX {
            measured.add(near, Leg::Fetch, ms(9));
        }
        assert!(close(measured.of(near, Leg::Fetch), ms(9)));
        measured.follow(|node| node == far);
        assert_eq!(measured.of(near, Leg::Fetch), None);
    }
}
