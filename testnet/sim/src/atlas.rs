//! The atlas: what the disks of a cluster hold for certain, so that nothing is destroyed that nobody else has.
//!
//! The first promise speaks of writes that some disk which held them survived. So before a disk loses anything that it had
//! synced, the atlas looks: all that all disks would hold after it, joined, must be what it was. Then every loss that a
//! judge finds is the node's fault and not the fault's, and no judge has to look away.
//!
//! Hints count: they are copies. What lies in the page cache does not.

use std::collections::BTreeMap;

use atoll_antientropy::{Dot, Register};
use atoll_node::storage::{Space, memory::MemoryStore};
use atoll_ring::NodeId;
use bytes::Bytes;

use crate::cluster::{Cluster, Lies, key_of, read};

/// By data row: the join of all copies.
type Whole = BTreeMap<Bytes, Register>;

/// Whether a fault may happen: the cluster as it would be, with these disks in the place of those it has, still holds
/// everything.
pub fn allows(cluster: &Cluster, instead: &[(NodeId, MemoryStore)]) -> bool {
    let before = whole(cluster, &[]);
    let after = whole(cluster, instead);
    before.iter().all(|(row, state)| after.get(row).is_some_and(|left| left == state))
}

fn whole(cluster: &Cluster, instead: &[(NodeId, MemoryStore)]) -> Whole {
    let mut whole = Whole::new();
    for node in cluster.nodes() {
        let replaced = instead.iter().find(|(at, _)| *at == node).map(|(_, store)| store);
        let store = replaced.unwrap_or(&cluster.machine(node).store);
        for space in [Space::Data, Space::Hints] {
            for (row, value) in store.synced(space) {
                if let (data_row, Lies::State(state)) = read(space, &row, &value) {
                    whole.entry(data_row).or_default().join(state);
                }
            }
        }
    }
    whole
}

/// Whether any disk shows this event of a key, synced or not: what a write that waited for no fsync may rest on.
pub fn is_anywhere(cluster: &Cluster, key: &str, dot: &Dot) -> bool {
    let mut stores = cluster.nodes().into_iter().map(|node| &cluster.machine(node).store);
    stores.any(|store| {
        [Space::Data, Space::Hints].into_iter().any(|space| {
            rows(store, space).into_iter().any(|(row, value)| match read(space, &row, &value) {
                (data_row, Lies::State(state)) => {
                    key_of(&data_row) == key && state.context().contains(dot)
                }
                (_, Lies::Damaged) => false,
            })
        })
    })
}

/// All rows of a store, synced or not.
pub fn rows(store: &MemoryStore, space: Space) -> Vec<(Bytes, Bytes)> {
    use atoll_node::storage::Store as _;
    store.scan(space, &[], None, usize::MAX).expect("memory does not fail")
}

#[cfg(test)]
mod tests {
    use atoll_antientropy::{Actor, Context, Event};
    use atoll_node::{
        HintLimits,
        storage::{Store as _, Write, record::Record, rows as names},
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
        let first = Register::put(&Context::new(), Event::alone(actor, 1), "1".into());
        let second = Register::put(first.context(), Event::alone(actor, 2), "2".into());
        let keep = |node: u32, space: Space, row: &Bytes, state: &Register| {
            let value = Record::encode(row, None, &state.encode());
            let write = Write { space, row: row.clone(), value: Some(value) };
            let store = &cluster.machine(NodeId(node)).store;
            store.apply(&[write]).and_then(|()| store.sync()).expect("memory");
        };
        let may_be_wiped = |node| allows(&cluster, &[(NodeId(node), MemoryStore::new())]);
        assert!(may_be_wiped(1));
        keep(1, Space::Data, &row, &first);
        assert!(!may_be_wiped(1) && may_be_wiped(2));
        keep(2, Space::Hints, &names::hint(NodeId(3), &row), &first);
        assert!(may_be_wiped(1) && may_be_wiped(2));
        assert!(!allows(
            &cluster,
            &[(NodeId(1), MemoryStore::new()), (NodeId(2), MemoryStore::new())]
        ));
        keep(3, Space::Data, &row, &second);
        assert!(may_be_wiped(1) && may_be_wiped(2) && !may_be_wiped(3));
    }
}
