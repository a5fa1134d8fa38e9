//! What a node has to copy, as a view says it. Pure.

use atoll_ring::{Epoch, MemberState, NodeId, Owners, Partition, View, seats};

use crate::Node;

/// A copy that a node has to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) partition: Partition,
    /// The epoch in which the partition became joint.
    pub(super) session: Epoch,
    /// From whom: the owner whose seat is taken. If that one is dead, every other old owner that is not, because each may
    /// alone have what the dead one had acknowledged with it.
    pub(super) sources: Vec<NodeId>,
}

impl Job {
    /// What a node has to copy of a partition; none if it takes no seat that another held.
    pub(super) fn of(view: &View, node: NodeId, partition: Partition) -> Option<Job> {
        let Owners::Joint { old, new } = view.owners(partition) else { return None };
        let (held, _) = seats(old, new).into_iter().find(|(_, joins)| *joins == node)?;
        let held = held?;
        let is_dead = |owner: NodeId| {
            view.member(owner).is_none_or(|member| member.state == MemberState::Dead)
        };
        let sources = match is_dead(held) {
            false => vec![held],
            true => {
                let others = old.iter().copied();
                others.filter(|owner| *owner != node && !is_dead(*owner)).collect()
            }
        };
        Some(Job { partition, session: view.last_changed(partition), sources })
    }

    /// Whether the node's present view wants this very copy.
    pub(super) fn is_wanted(&self, node: &Node) -> bool {
        let view = node.view();
        view.last_changed(self.partition) == self.session
            && Job::of(&view, node.id(), self.partition).as_ref() == Some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use atoll_ring::{ClusterId, Command, Entry, Member, Partitions, Wish};

    use super::*;

    const P: Partition = Partition(0);

    fn apply(view: &View, command: Command) -> View {
        let epoch = Epoch(view.epoch().0 + 1);
        view.apply(&Entry { epoch, at_ms: 0, command }).expect("it fits")
    }

    /// A partition on its way from the first owners to these, given as places: 0 to 2 are the old owners, 3 and 4 others.
    fn joint(target: [usize; 3]) -> (View, Vec<NodeId>) {
        let member = |id: u32| Member {
            id: NodeId(id),
            incarnation: 0,
            address: ([127, 0, 0, 1], u16::try_from(id).expect("small")).into(),
            zone: "z".into(),
            weight: 1,
            state: MemberState::Active,
        };
        let partitions = Partitions::new(1).expect("a power of two");
        let members = (1..=5).map(member).collect();
        let (view, _) = View::create(ClusterId([7; 16]), partitions, 3, members).expect("good");
        let mut places = view.owners(P).all();
        let others = view.members().iter().map(|member| member.id);
        places.extend(others.filter(|id| !view.owners(P).contains(*id)).collect::<Vec<_>>());
        let moves = BTreeMap::from([(P, target.map(|place| places[place]).to_vec())]);
        let view =
            apply(&view, Command::Change { base: view.epoch(), wish: Wish::Rebalance, moves });
        (apply(&view, Command::Begin { partitions: vec![P] }), places)
    }

    fn sources(view: &View, node: NodeId) -> Option<Vec<NodeId>> {
        Job::of(view, node, P).map(|job| job.sources)
    }

    /// Who takes a seat copies from the one who held it, also when the two only change places; nobody else copies.
    #[test]
    fn each_seat_is_copied_from_its_holder() {
        let (view, at) = joint([3, 1, 2]);
        assert_eq!(sources(&view, at[3]), Some(vec![at[0]]));
        assert!([0, 1, 2, 4].iter().all(|place| sources(&view, at[*place]).is_none()));
        let (view, at) = joint([1, 0, 2]);
        assert_eq!(sources(&view, at[0]), Some(vec![at[1]]));
        assert_eq!(sources(&view, at[1]), Some(vec![at[0]]));
        assert_eq!(sources(&view, at[2]), None);
    }

    /// In the place of a dead leaver stand all old owners that live.
    #[test]
    fn the_dead_are_replaced_by_all_others() {
        let (view, at) = joint([3, 1, 2]);
        let moves = view.wanted().clone();
        let dead = Command::Change {
            base: view.epoch(),
            wish: Wish::RemoveDead { node: at[0] },
            moves: moves.clone(),
        };
        let view = apply(&view, dead);
        assert_eq!(sources(&view, at[3]), Some(vec![at[1], at[2]]));
    }
}
