//! What would happen to a request, without doing it: the facts of one node, and what follows from them.
//!
//! Whoever is asked answers at once from its view, its liveness and its measurements, and sends nothing to the data. What
//! follows (whether the settings are strict, how many nodes may fail, how long it should take) is worked out by
//! [`atoll_ring::Tolerance`] and [`atoll_ring::Consistency`] on either side of the wire.

use std::fmt;

use atoll_ring::{Consistency, NodeId, Owners, Quorum, QuorumRequest, Tolerance, when_enough};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};

/// What would happen to a request about this key?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The key.
    pub key: Bytes,
    /// The settings, as for a get or a write.
    pub quorum: QuorumRequest,
}

/// What one node knows of a key's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Who says so; liveness and times are as seen from there.
    pub node: u32,
    /// The key's place on the ring.
    pub token: u64,
    /// Its partition.
    pub partition: u16,
    /// The epoch in which the partition last changed.
    pub changed_in: u64,
    /// The settings, with what the request left out filled in from the bucket.
    pub quorum: Quorum,
    /// Copies that the bucket keeps.
    pub bucket_n: u8,
    /// The owners that take part, in their order.
    pub owners: Vec<u32>,
    /// While the partition moves, the owners that will take part when it has.
    pub joining: Option<Vec<u32>>,
    /// Who could stand in for owners, the first one first.
    pub fallbacks: Vec<u32>,
    /// All of these, each once; at most [`PLACES_MAX`].
    #[serde(deserialize_with = "few")]
    pub places: Vec<Replica>,
}

/// Nodes that may have to do with a key: two owner sets of 16, and the fallbacks that a request asks at most. A line of seven
/// bytes takes sixteen times as much in memory, so more are not read.
pub const PLACES_MAX: usize = 64;

/// A node that has to do with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The node.
    pub node: u32,
    /// Its zone.
    pub zone: String,
    /// How it is.
    pub health: Health,
    /// Smoothed round trip of pings in microseconds; 0 = never measured, or it is the node that answers.
    pub round_trip_micros: u32,
    /// From the question for a copy to the answer.
    pub fetch: Option<Measured>,
    /// From the sending of a change to its acknowledgement as soon as reads see it.
    pub written: Option<Measured>,
    /// From the sending of a change to its acknowledgement when it is fsynced. The answering node's own: its commits.
    pub durable: Option<Measured>,
}

/// How a node is, as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// It has answered lately.
    Up,
    /// It has not been heard yet.
    Unknown,
    /// It owes an answer for longer than anybody should wait; asked last.
    Silent,
    /// It has lost data and was not compared with all others yet: it takes writes, and its answers to reads do not count.
    InDoubt,
    /// It cannot be reached, and why.
    Down(String),
}

impl Health {
    /// The word for people and JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Health::Up => "up",
            Health::Unknown => "not heard yet",
            Health::Silent => "silent",
            Health::InDoubt => "in doubt",
            Health::Down(_) => "down",
        }
    }
}

/// How long something took lately: upper edges, a quarter too long at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Half of the answers came within so many microseconds.
    pub p50_micros: u32,
    /// 99 of 100 did.
    pub p99_micros: u32,
    /// How many answers that is taken from.
    pub samples: u32,
}

/// How long a request should take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// If each replica takes as long as half of the time.
    pub p50_micros: u32,
    /// If each takes as long as in one of a hundred cases.
    pub p99_micros: u32,
    /// Answers of all owners that were measured.
    pub samples: u32,
}

impl Explained {
    /// Whether a read with these settings sees every write acknowledged with the same.
    pub fn consistency(&self) -> Consistency {
        Consistency::of(&self.quorum, &self.quorum)
    }

    /// How many more nodes may fail, beside those that are down.
    pub fn tolerance(&self) -> Tolerance {
        let is_down = |node: NodeId| !self.takes(node.0);
        let fallbacks = self.fallbacks.iter().filter(|node| self.takes(**node)).count();
        let (quorum, cannot_tell) = (&self.quorum, |node: NodeId| !self.tells(node.0));
        self.among_owners(|owners| Tolerance {
            read: Tolerance::of(owners, quorum, fallbacks, cannot_tell).read,
            ..Tolerance::of(owners, quorum, fallbacks, is_down)
        })
    }

    /// How long a read should take that this node coordinates; none if too few owners were measured.
    pub fn expected_read(&self) -> Option<Expected> {
        let r = self.quorum.r();
        let fetch = |replica: &Replica| replica.fetch.filter(|_| self.tells(replica.node));
        self.expected(fetch, |time| self.when(r, time))
    }

    /// How long a write should take that this node coordinates; none if too few owners were measured.
    pub fn expected_write(&self) -> Option<Expected> {
        let (w, dw) = (self.quorum.w(), self.quorum.dw());
        if dw == w {
            return self.expected(|replica| replica.durable, |time| self.when(w, time));
        }
        let fast = self.expected(|replica| replica.written, |time| self.when(w, time))?;
        if dw == 0 {
            return Some(fast);
        }
        // the fast acknowledgement first, and the fsynced one is asked for behind it
        let first = self.expected(|replica| replica.written, |time| self.when(dw, time))?;
        let then = self.expected(|replica| replica.durable, |time| self.when(dw, time))?;
        Some(Expected {
            p50_micros: fast.p50_micros.max(first.p50_micros.saturating_add(then.p50_micros)),
            p99_micros: fast.p99_micros.max(first.p99_micros.saturating_add(then.p99_micros)),
            samples: fast.samples.min(then.samples),
        })
    }

    /// The replica of that name.
    pub fn replica(&self, node: u32) -> Option<&Replica> {
        self.places.iter().find(|replica| replica.node == node)
    }

    /// Whether it may acknowledge a write.
    fn takes(&self, node: u32) -> bool {
        self.replica(node).is_some_and(|replica| match replica.health {
            Health::Up | Health::Unknown | Health::Silent | Health::InDoubt => true,
            Health::Down(_) => false,
        })
    }

    /// Whether its answer to a read would count.
    fn tells(&self, node: u32) -> bool {
        let doubts = |replica: &Replica| replica.health == Health::InDoubt;
        self.takes(node) && !self.replica(node).is_some_and(doubts)
    }

    fn among_owners<T>(&self, of: impl FnOnce(Owners<'_>) -> T) -> T {
        let ids = |nodes: &[u32]| nodes.iter().copied().map(NodeId).collect::<Vec<NodeId>>();
        let old = ids(&self.owners);
        match self.joining.as_deref().map(ids) {
            None => of(Owners::One(&old)),
            Some(new) => of(Owners::Joint { old: &old, new: &new }),
        }
    }

    fn when(&self, needed: u8, time: &dyn Fn(NodeId) -> Option<u32>) -> Option<u32> {
        self.among_owners(|owners| when_enough(owners, needed, time))
    }

    /// From the legs of the owners that can be reached.
    fn expected(
        &self,
        leg: impl Fn(&Replica) -> Option<Measured>,
        when: impl Fn(&dyn Fn(NodeId) -> Option<u32>) -> Option<u32>,
    ) -> Option<Expected> {
        let measured =
            |node: NodeId| self.replica(node.0).filter(|_| self.takes(node.0)).and_then(&leg);
        let all = self.among_owners(|owners| owners.all());
        Some(Expected {
            p50_micros: when(&|node| measured(node).map(|it| it.p50_micros))?,
            p99_micros: when(&|node| measured(node).map(|it| it.p99_micros))?,
            samples: all
                .into_iter()
                .filter_map(measured)
                .fold(0, |sum, measured| sum.saturating_add(measured.samples)),
        })
    }
}

/// Reads a list that must not be long.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Replica>, D::Error> {
    struct Few;
    impl<'de> Visitor<'de> for Few {
        type Value = Vec<Replica>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {PLACES_MAX} replicas")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<Replica>, A::Error> {
            let mut all = Vec::new();
            while let Some(entry) = entries.next_element()? {
                if all.len() == PLACES_MAX {
                    return Err(A::Error::invalid_length(all.len() + 1, &self));
                }
                all.push(entry);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_seq(Few)
}

#[cfg(test)]
mod tests {
    use atoll_ring::Level;

    use super::*;

    /// What is down takes nothing and tells nothing; what is in doubt takes, and tells nothing.
    #[test]
    fn doubt_counts_against_reads_alone() {
        let check = |health: Health, read, write| {
            let mut found = explained(&QuorumRequest::default(), &[None; 3], &[]);
            found.quorum =
                Quorum::new(&QuorumRequest { sloppy: Some(false), ..QuorumRequest::default() }, 3)
                    .expect("a quorum");
            found.places[1].health = health.clone();
            let tolerance = found.tolerance();
            assert_eq!((tolerance.read, tolerance.write), (read, write), "{health:?}");
        };
        check(Health::Up, Some(1), Some(1));
        check(Health::Silent, Some(1), Some(1));
        check(Health::InDoubt, Some(0), Some(1));
        check(Health::Down("gone".into()), Some(0), Some(0));
    }

    fn explained(request: &QuorumRequest, times: &[Option<u32>], down: &[u32]) -> Explained {
        let places = (1..).zip(times).map(|(node, time)| {
            let leg = |scale: u32| {
                let measured = |time| Measured {
                    p50_micros: time * scale,
                    p99_micros: time * scale * 10,
                    samples: 100,
                };
                time.map(measured)
            };
            let health = match down.contains(&node) {
                true => Health::Down("gone".into()),
                false => Health::Up,
            };
            Replica {
                node,
                zone: "z".into(),
                health,
                round_trip_micros: 0,
                fetch: leg(1),
                written: leg(2),
                durable: leg(20),
            }
        });
        Explained {
            node: 1,
            token: 0,
            partition: 0,
            changed_in: 1,
            quorum: Quorum::new(request, 3).expect("a quorum"),
            bucket_n: 3,
            owners: vec![1, 2, 3],
            joining: None,
            fallbacks: Vec::new(),
            places: places.collect(),
        }
    }

    /// The r-th (w-th) fastest owner that can be reached decides; of owners that were never measured nothing is said.
    #[test]
    fn the_slowest_answer_that_is_needed_decides() {
        let check = |with: QuorumRequest, times: &[Option<u32>], down: &[u32], read, write| {
            let found = explained(&with, times, down);
            assert_eq!(found.expected_read().map(|it| (it.p50_micros, it.p99_micros)), read);
            assert_eq!(found.expected_write().map(|it| (it.p50_micros, it.p99_micros)), write);
        };
        let plain = QuorumRequest::default();
        let times = [Some(1), Some(30), Some(7)];
        check(plain, &times, &[], Some((7, 70)), Some((140, 1400)));
        check(plain, &times, &[3], Some((30, 300)), Some((600, 6000)));
        check(plain, &times, &[2, 3], None, None);
        check(plain, &[Some(1), None, None], &[], None, None);
        check(plain, &[Some(1), None, Some(7)], &[], Some((7, 70)), Some((140, 1400)));
        let fast = QuorumRequest { dw: Some(Level::Count(0)), ..plain };
        check(fast, &times, &[], Some((7, 70)), Some((14, 140)));
        let one = QuorumRequest { dw: Some(Level::Count(1)), ..plain };
        check(one, &times, &[], Some((7, 70)), Some((22, 220)));
        let all = QuorumRequest { r: Some(Level::All), w: Some(Level::All), ..plain };
        check(all, &times, &[], Some((30, 300)), Some((600, 6000)));
    }
}
