//! The shapes of partitions: which links each of them cuts.

use atoll_ring::NodeId;

use super::{Link, Mischief};
use crate::{faults::Kind, session::CLIENTS_FROM, world::World};

impl Mischief {
    /// The links that a partition of this shape cuts.
    pub(super) fn shape(&mut self, world: &World, kind: Kind) -> (Vec<Link>, String) {
        let mut nodes = world.cluster.nodes();
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, self.chance.below(at as u64 + 1) as usize);
        }
        let count = nodes.len();
        let half = &nodes[..count / 2];
        let (mut apart, said): (Vec<Link>, String) = match kind {
            Kind::Isolated => (pairs(&nodes[..1], &nodes[1..]), format!("{} is alone", nodes[0])),
            Kind::OneWay => {
                (vec![(nodes[0], nodes[1])], format!("{} does not hear {}", nodes[1], nodes[0]))
            }
            Kind::Bridge => (
                pairs(half, &nodes[count / 2 + 1..]),
                format!("{half:?} are apart, {} hears all", nodes[count / 2]),
            ),
            Kind::Majorities => (ring_of_majorities(&nodes), format!("a ring of {nodes:?}")),
            _ => (pairs(half, &nodes[count / 2..]), format!("{half:?} are apart")),
        };
        if kind == Kind::Halves && self.chance.happens(300) {
            // clients are on one side too
            for client in (0..self.clients).map(|number| NodeId(CLIENTS_FROM + number)) {
                let far = if client.0 % 2 == 0 { half } else { &nodes[count / 2..] };
                apart.extend(pairs(&[client], far));
            }
        }
        (apart, said)
    }
}

/// Every link between two sides, both ways.
pub(super) fn pairs(near: &[NodeId], far: &[NodeId]) -> Vec<Link> {
    let across = near.iter().flat_map(|near| far.iter().map(move |far| (*near, *far)));
    across.flat_map(|(near, far)| [(near, far), (far, near)]).collect()
}

/// In a ring each node hears itself and its nearest neighbours, as many as make a majority.
fn ring_of_majorities(nodes: &[NodeId]) -> Vec<Link> {
    let count = nodes.len();
    let reach = count.div_ceil(4);
    let mut apart = Vec::new();
    for (here, from) in nodes.iter().enumerate() {
        for (there, to) in nodes.iter().enumerate() {
            let away = here.abs_diff(there);
            if away.min(count - away) > reach {
                apart.push((*from, *to));
            }
        }
    }
    apart
}
