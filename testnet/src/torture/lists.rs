//! What each node must be told of faults while certain things are going on. Pure.
//!
//! Links are broken where datagrams leave: who is cut off both ways is told so on both sides.

use atoll_ring::NodeId;
use atoll_wire::{
    FaultList,
    faults::{Chance, ClockFault, DiskFault, LinkFault},
};

use super::harm::Harm;

/// Puts what is going on into the list of a node, in place of what was before. Links that others have broken stay
/// so; a node has one disk and one clock, and they are the torture's.
pub(super) fn put(list: &mut FaultList, me: NodeId, all: &[NodeId], lasting: &[Harm]) {
    list.links.retain(|link| link.name != NAME);
    (list.free_bytes, list.disk, list.clock) = (None, None, None);
    lasting.iter().for_each(|harm| add(list, harm, me, all));
}

/// Whose faults these are.
const NAME: &str = "torture";

/// Adds to the list of a node what one harm means for it.
fn add(list: &mut FaultList, harm: &Harm, me: NodeId, all: &[NodeId]) {
    let fault = |peer: &NodeId| LinkFault::to(*peer, NAME);
    let others = || all.iter().filter(|other| **other != me);
    match harm {
        Harm::Partition { from, to, oneway } => {
            let beyond = match (from.contains(&me), to.contains(&me)) {
                (true, _) => to.as_slice(),
                (false, true) if !oneway => from,
                (false, true | false) => &[],
            };
            list.links.extend(beyond.iter().map(|peer| LinkFault { cut: true, ..fault(peer) }));
        }
        Harm::Slow { nodes, delay_ms, jitter_ms } if nodes.contains(&me) => {
            let (delay_ms, jitter_ms) = (Some(*delay_ms), Some(*jitter_ms));
            let slow = |peer| LinkFault { delay_ms, jitter_ms, ..fault(peer) };
            list.links.extend(others().map(slow));
        }
        Harm::Flaky { nodes, millionths } if nodes.contains(&me) => {
            let chance = Chance::of_million(*millionths);
            let (drop, duplicate, reorder) = (chance, chance, chance);
            let flaky = |peer| LinkFault { drop, duplicate, reorder, ..fault(peer) };
            list.links.extend(others().map(flaky));
        }
        Harm::Full(node) if *node == me => list.free_bytes = Some(0),
        Harm::SlowDisk { nodes, slow_ms } if nodes.contains(&me) => {
            list.disk = Some(DiskFault { slow_ms: *slow_ms, when: None });
        }
        Harm::Clock { node, ahead_ms } if *node == me => {
            list.clock = Some(ClockFault { ahead_ms: *ahead_ms, when: None });
        }
        Harm::Slow { .. }
        | Harm::Flaky { .. }
        | Harm::Full(_)
        | Harm::SlowDisk { .. }
        | Harm::Clock { .. }
        | Harm::Kill(_)
        | Harm::Pause(_)
        | Harm::Stop(_)
        | Harm::Wipe(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::torture::{HarmKind, Plan};

    fn nodes(ids: impl IntoIterator<Item = u32>) -> Vec<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    /// Who cannot reach whom.
    fn cuts(lasting: &[Harm]) -> Vec<(u32, u32)> {
        let cut = |node: u32| {
            let mut list = FaultList::default();
            put(&mut list, NodeId(node), &nodes(1..=3), lasting);
            let links = list.links.into_iter().filter(|link| link.cut);
            links.map(move |link| (node, link.peer.0)).collect::<Vec<_>>()
        };
        (1..=3).flat_map(cut).collect()
    }

    /// A partition is told to both sides, a one-way one to the side that is not heard; two at a time stand side by side.
    #[test]
    fn links_are_cut_where_datagrams_leave() {
        let isolated = |node: u32, oneway| Harm::Partition {
            from: nodes([node]),
            to: nodes((1..=3).filter(|other| *other != node)),
            oneway,
        };
        assert_eq!(cuts(&[isolated(1, false)]), [(1, 2), (1, 3), (2, 1), (3, 1)]);
        assert_eq!(cuts(&[isolated(2, true)]), [(2, 1), (2, 3)]);
        let both = [isolated(1, true), isolated(2, true)];
        assert_eq!(cuts(&both), [(1, 2), (1, 3), (2, 1), (2, 3)]);
        assert_eq!(cuts(&[Harm::Kill(nodes([1]))]), []);
    }

    /// Nodes accept whatever a plan may lead to; when it is over, what was there before is there again, and nothing else.
    #[test]
    fn every_list_is_one() {
        let nodes = nodes(1..=5);
        let own = LinkFault { cut: true, ..LinkFault::to(NodeId(2), "mine") };
        let before = FaultList { links: vec![own], ..FaultList::default() };
        for seed in 0..50 {
            let plan = Plan::draw(seed, Duration::from_secs(300), &nodes, &HarmKind::ALL);
            for step in &plan.steps {
                let mut is_told = false;
                for node in &nodes {
                    let mut list = before.clone();
                    put(&mut list, *node, &nodes, std::slice::from_ref(&step.harm));
                    list.check().unwrap_or_else(|error| panic!("{step}: {error}"));
                    is_told |= list != before;
                    put(&mut list, *node, &nodes, &[]);
                    assert_eq!(list, before, "{step}");
                }
                // what is not done to processes does something, and what is does nothing else
                assert_eq!(is_told, !step.harm.kind().is_of_processes(), "{step}");
            }
        }
    }
}
