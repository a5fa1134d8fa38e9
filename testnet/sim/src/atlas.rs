//! The atlas: what the disks of a cluster hold for certain, so that nothing is destroyed that nobody else has.
//!
//! The first promise speaks of writes that some disk which held them survived. So before a disk loses anything that it had
//! synced, the atlas looks: all that all disks would hold after it, joined, must be what it was. Then every loss that a
//! judge finds is the node's fault and not the fault's, and no judge has to look away.
//!
//! Hints count: they are copies. What lies in the page cache does not.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use atoll_antientropy::{Dot, State};
use atoll_node::storage::{Space, Store as _, memory::MemoryStore, rows};
use atoll_ring::{NodeId, Owners};
use bytes::Bytes;

use crate::cluster::{Cluster, Lies, read};

/// By data row: the join of all copies.
type Whole = BTreeMap<Bytes, State>;

/// Whether a fault may happen: the cluster as it would be, with these disks in the place of those it has, still holds
/// everything.
pub fn allows(cluster: &Cluster, instead: &[(NodeId, MemoryStore)]) -> bool {
    let before = whole(cluster, &[]);
    let after = whole(cluster, instead);
    before.iter().all(|(row, state)| after.get(row).is_some_and(|left| left == state))
}

/// Whether the other owners hold everything that this one holds as an owner. One that is declared dead is not waited for,
/// so reads would miss until it is handed over what only a former owner still has; that w was too small for such a loss is
/// the writer's choice.
pub fn others_hold(cluster: &Cluster, node: NodeId) -> bool {
    let head = cluster.head();
    cluster.machine(node).store.synced(Space::Data).iter().all(|(row, value)| {
        let (data_row, Lies::State(state)) = read(Space::Data, row, value) else { return true };
        let Some(partition) = rows::partition_of_data(&data_row) else { return true };
        let owners = head.owners(partition).first(cluster.copies(&cluster.name_of(&data_row)));
        let (Owners::One(owners) | Owners::Joint { old: owners, .. }) = owners;
        if !owners.contains(&node) {
            return true;
        }
        let mut others = State::unknown(state.kind());
        for owner in owners.iter().filter(|owner| **owner != node && !cluster.is_gone(**owner)) {
            if let Some(value) = cluster.machine(*owner).store.synced_row(Space::Data, row)
                && let (_, Lies::State(state)) = read(Space::Data, row, &value)
            {
                others.join(state);
            }
        }
        others.covers(&state)
    })
}

fn whole(cluster: &Cluster, instead: &[(NodeId, MemoryStore)]) -> Whole {
    let mut whole = Whole::new();
    for node in cluster.nodes() {
        let replaced = instead.iter().find(|(at, _)| *at == node).map(|(_, store)| store);
        let store = replaced.unwrap_or(&cluster.machine(node).store);
        for space in [Space::Data, Space::Hints] {
            for (row, value) in store.synced(space) {
                if let (data_row, Lies::State(state)) = read(space, &row, &value) {
                    match whole.entry(data_row) {
                        Entry::Vacant(vacant) => drop(vacant.insert(state)),
                        Entry::Occupied(mut known) => known.get_mut().join(state),
                    }
                }
            }
        }
    }
    whole
}

/// How safe an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    /// No disk shows it.
    Gone,
    /// Some disk shows it, and a power loss may take it.
    Shown,
    /// Some disk has it synced, and so it will stay: see [`allows`].
    Synced,
}

/// How safe this event of a key is: what a write that waited for no fsync may rest on.
pub fn safety(cluster: &Cluster, key: &str, dot: &Dot) -> Safety {
    let row = cluster.row(key);
    // whoever a hint is for may be an owner no longer; it is a copy all the same
    let hints = cluster.nodes().into_iter().chain(cluster.members());
    let hints = hints.map(|target| (Space::Hints, rows::hint(target, &row)));
    let places: BTreeSet<(Space, Bytes)> = hints.chain([(Space::Data, row.clone())]).collect();
    let mut safety = Safety::Gone;
    for node in cluster.nodes() {
        let store = &cluster.machine(node).store;
        for (space, row) in &places {
            let has = |value: Option<Bytes>| match value.map(|value| read(*space, row, &value)) {
                Some((_, Lies::State(state))) => state.context().contains(dot),
                Some((_, Lies::Damaged)) | None => false,
            };
            if has(store.synced_row(*space, row)) {
                return Safety::Synced;
            }
            if has(store.get(*space, row).expect("memory does not fail")) {
                safety = Safety::Shown;
            }
        }
    }
    safety
}

/// All rows of a store, synced or not.
pub fn all_rows(store: &MemoryStore, space: Space) -> Vec<(Bytes, Bytes)> {
    store.scan(space, &[], None, usize::MAX).expect("memory does not fail")
}

#[cfg(test)]
mod tests {
    use atoll_antientropy::{Actor, Context, Event};
    use atoll_node::{
        HintLimits,
        storage::{Write, record::Record},
    };
    use atoll_transport::chance::Chance;

    use super::*;

    /// The last disk that holds an event may not lose it, be it a hint; one of two may. An event that another one has
    /// replaced need not be kept beside it.
    #[test]
    fn the_last_holder_is_spared() {
        let cluster = Cluster::new(3, HintLimits::default(), &mut Chance::of_seed(1));
        let row = cluster.row("a");
        let actor = Actor { node: 1, incarnation: 0 };
        let first = State::put(&Context::new(), Event::alone(actor, 1), "1".into());
        let second = State::put(first.context(), Event::alone(actor, 2), "2".into());
        let keep = |node: u32, space: Space, row: &Bytes, state: &State| {
            let value = Record::encode(row, None, &state.encode());
            let write = Write { space, row: row.clone(), value: Some(value) };
            let store = &cluster.machine(NodeId(node)).store;
            store.apply(&[write]).and_then(|()| store.sync()).expect("memory");
        };
        let may_be_wiped = |node| allows(&cluster, &[(NodeId(node), MemoryStore::new())]);
        assert!(may_be_wiped(1));
        keep(1, Space::Data, &row, &first);
        assert!(!may_be_wiped(1) && may_be_wiped(2));
        keep(2, Space::Hints, &rows::hint(NodeId(3), &row), &first);
        assert!(may_be_wiped(1) && may_be_wiped(2));
        assert!(!allows(
            &cluster,
            &[(NodeId(1), MemoryStore::new()), (NodeId(2), MemoryStore::new())]
        ));
        keep(3, Space::Data, &row, &second);
        assert!(may_be_wiped(1) && may_be_wiped(2) && !may_be_wiped(3));
    }
}
