//! What a look at a testnet amounts to: who hears whom, who is cut off, and whether all is well.
//!
//! Nodes ping each other, and each says of every other whether it has an answer and how long that took. A ping goes there
//! and back: if one direction is cut, neither hears the other. A node that is dead or paused is not cut off: nobody hears
//! it, and its state says why. So a link is judged only between nodes that are ready.

use atoll_ring::{NodeId, Owners};

use crate::status::{Look, NodeReport, State};

/// How one node hears another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// It answers.
    Well {
        /// The smoothed round trip of its pings; 0 = not measured yet.
        micros: u32,
    },
    /// It answers, later than it could on one machine.
    Slowly {
        /// The same.
        micros: u32,
    },
    /// Not at all.
    Not {
        /// Why, in the words of the node.
        why: String,
    },
    /// Nobody says.
    Unsaid,
}

/// How a ready node is connected with the other ready nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Net {
    /// Those it does not hear, or that do not hear it.
    pub cut: Vec<NodeId>,
    /// Those it hears slowly, or that hear it slowly, and the longer round trip in microseconds.
    pub slow: Vec<(NodeId, u32)>,
    /// With how many it is not cut.
    pub connected: usize,
}

/// Something that is not as it should be with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It does not serve.
    NotReady,
    /// It is cut off from others that serve.
    Cut,
    /// It has lost something, and part of its answers does not count.
    InDoubt,
    /// It takes no writes.
    ReadOnly,
}

impl Look {
    /// What is known of a node.
    #[must_use]
    pub fn report(&self, node: NodeId) -> Option<&NodeReport> {
        self.reports.iter().find(|report| report.node.id == node)
    }

    /// How one node hears another, as it says itself.
    #[must_use]
    pub fn hearing(&self, hearer: NodeId, other: NodeId) -> Hearing {
        let status = self.report(hearer).and_then(|report| report.status.as_ref());
        let peers = status.map_or(&[][..], |status| &status.peers);
        match peers.iter().find(|peer| peer.node == other.0) {
            None => Hearing::Unsaid,
            Some(peer) if !peer.up => Hearing::Not { why: peer.reason.clone() },
            Some(peer) if peer.round_trip_micros < SLOW_MICROS => {
                Hearing::Well { micros: peer.round_trip_micros }
            }
            Some(peer) => Hearing::Slowly { micros: peer.round_trip_micros },
        }
    }

    /// How a node is connected; none if it is not ready itself.
    #[must_use]
    pub fn net(&self, node: NodeId) -> Option<Net> {
        if self.report(node)?.state != State::Ready {
            return None;
        }
        let mut net = Net::default();
        for other in self.reports.iter().filter(|other| other.state == State::Ready) {
            let other = other.node.id;
            if other == node {
                continue;
            }
            let both = [self.hearing(node, other), self.hearing(other, node)];
            let is_cut = both.iter().any(|hearing| matches!(hearing, Hearing::Not { .. }));
            let slowest = both.iter().filter_map(|hearing| match hearing {
                Hearing::Slowly { micros } => Some(*micros),
                Hearing::Well { .. } | Hearing::Not { .. } | Hearing::Unsaid => None,
            });
            match slowest.max() {
                _ if is_cut => net.cut.push(other),
                Some(micros) => net.slow.push((other, micros)),
                None => {}
            }
            net.connected += usize::from(!is_cut);
        }
        Some(net)
    }

    /// Whether a node can be reached by others: it is ready, and not cut off from all that are.
    #[must_use]
    pub fn is_within_reach(&self, node: NodeId) -> bool {
        self.net(node).is_some_and(|net| net.cut.is_empty() || net.connected > 0)
    }

    /// The part of all copies that a node owns, 0 to 1; none as long as the ring is not known.
    #[must_use]
    pub fn share(&self, node: NodeId) -> Option<f64> {
        let view = self.view.as_ref()?;
        let (mut own, mut all) = (0u32, 0u32);
        for partition in view.partitions().all() {
            let (Owners::One(owners) | Owners::Joint { old: owners, .. }) = view.owners(partition);
            own += u32::from(owners.contains(&node));
            all += u32::try_from(owners.len()).unwrap_or(u32::MAX);
        }
        (all > 0).then(|| f64::from(own) / f64::from(all))
    }

    /// What is wrong with a node, the worst first.
    #[must_use]
    pub fn flaws(&self, report: &NodeReport) -> Vec<Flaw> {
        let Some(status) = report.status.as_ref().filter(|_| report.state == State::Ready) else {
            return vec![Flaw::NotReady];
        };
        let is_cut = self.net(report.node.id).is_some_and(|net| !net.cut.is_empty());
        let is_in_doubt = status.partitions_in_doubt > 0 || status.keys_in_doubt > 0;
        let flaws = [
            (is_cut, Flaw::Cut),
            (is_in_doubt, Flaw::InDoubt),
            (!status.read_only.is_empty(), Flaw::ReadOnly),
        ];
        flaws.into_iter().filter_map(|(is_so, flaw)| is_so.then_some(flaw)).collect()
    }

    /// Whether nothing is wrong with any node. A slow link is no flaw: a busy machine has them.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.reports.iter().all(|report| self.flaws(report).is_empty())
    }
}

/// A round trip on one machine takes a fifth of a millisecond, a few milliseconds if the node has much to do. What takes this
/// long was slowed on purpose, or the machine is overloaded.
pub const SLOW_MICROS: u32 = 20_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use atoll_client::NodeStatus;
    use atoll_ring::{Member, MemberState};
    use atoll_wire::PeerStatus;

    use super::*;
    use crate::node::Node;

    fn member(id: NodeId) -> Member {
        Member {
            id,
            incarnation: 0,
            address: "127.0.0.1:1".parse().unwrap(),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        }
    }

    /// Nodes 1 to `states.len()`, each of which hears all ready others in 200 µs.
    fn look(states: &[State]) -> Look {
        let ids = || (1..).map(NodeId).zip(states);
        let report = |(id, state): (NodeId, &State)| NodeReport {
            node: Node::new(Path::new("/"), member(id)),
            state: *state,
            pid: None,
            status: (*state == State::Ready).then(|| NodeStatus {
                node: id.0,
                peers: ids()
                    .filter(|(other, _)| *other != id)
                    .map(|(other, state)| PeerStatus {
                        node: other.0,
                        up: *state == State::Ready,
                        round_trip_micros: 200,
                        hints: 0,
                        reason: String::new(),
                    })
                    .collect(),
                ..NodeStatus::default()
            }),
        };
        Look { reports: ids().map(report).collect(), view: None }
    }

    fn status(look: &mut Look, node: u32) -> &mut NodeStatus {
        look.reports[node as usize - 1].status.as_mut().unwrap()
    }

    fn peer(look: &mut Look, hearer: u32, other: u32) -> &mut PeerStatus {
        let peers = &mut status(look, hearer).peers;
        peers.iter_mut().find(|peer| peer.node == other).unwrap()
    }

    use State::{Dead, Paused, Ready, Starting, Stopped};

    /// One that does not hear is enough for a cut, both sides show it, and others do not.
    #[test]
    fn a_cut_link_shows_on_both_sides() {
        let mut look = look(&[Ready, Ready, Ready]);
        assert!(look.is_healthy());
        peer(&mut look, 1, 2).up = false;
        assert_eq!(look.net(NodeId(1)).unwrap().cut, [NodeId(2)]);
        assert_eq!(look.net(NodeId(2)).unwrap().cut, [NodeId(1)]);
        assert_eq!(look.net(NodeId(3)).unwrap(), Net { connected: 2, ..Net::default() });
        assert!(!look.is_healthy());
        assert!(look.is_within_reach(NodeId(1)), "n3 still hears it");
        peer(&mut look, 3, 1).up = false;
        assert!(!look.is_within_reach(NodeId(1)), "nobody hears it");
    }

    /// Who is dead, paused or starting is not cut off, and neither are those that do not hear it.
    #[test]
    fn the_dead_are_not_cut_off() {
        for state in [Dead, Paused, Stopped, Starting] {
            let look = look(&[Ready, state, Ready]);
            assert_eq!(look.net(NodeId(1)).unwrap(), Net { connected: 1, ..Net::default() });
            assert_eq!(look.net(NodeId(2)), None);
            assert_eq!(look.flaws(&look.reports[1]), [Flaw::NotReady]);
            assert!(look.flaws(&look.reports[0]).is_empty());
            assert!(!look.is_healthy() && !look.is_within_reach(NodeId(2)));
        }
        assert!(look(&[Ready]).is_within_reach(NodeId(1)), "a single node is cut off from nobody");
    }

    /// The slower of two directions counts. Slow is not broken.
    #[test]
    fn slow_links() {
        let mut look = look(&[Ready, Ready]);
        peer(&mut look, 1, 2).round_trip_micros = SLOW_MICROS - 1;
        peer(&mut look, 2, 1).round_trip_micros = 41_000;
        assert_eq!(look.hearing(NodeId(1), NodeId(2)), Hearing::Well { micros: SLOW_MICROS - 1 });
        assert_eq!(look.hearing(NodeId(2), NodeId(1)), Hearing::Slowly { micros: 41_000 });
        for (node, other) in [(1, 2), (2, 1)] {
            assert_eq!(look.net(NodeId(node)).unwrap().slow, [(NodeId(other), 41_000)]);
        }
        assert!(look.is_healthy());
        assert_eq!(look.hearing(NodeId(1), NodeId(9)), Hearing::Unsaid);
    }

    /// A node that serves may still be no good for part of what is asked of it.
    #[test]
    fn doubt_and_full_disks_are_flaws() {
        let mut look = look(&[Ready, Ready]);
        status(&mut look, 2).keys_in_doubt = 1;
        status(&mut look, 2).read_only = "1 MiB free".into();
        assert_eq!(look.flaws(&look.reports[1]), [Flaw::InDoubt, Flaw::ReadOnly]);
        assert!(!look.is_healthy());
    }
}
