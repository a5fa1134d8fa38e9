//! Faults that take what was synced: an empty disk, a lost tail, an older copy, a damaged record.
//!
//! They are begun only if the cluster can bear them: some other disk holds everything that goes ([`atlas`]), enough others
//! remember which incarnations there were, and some other owner of each key is sure of what it says.

use atoll_node::{
    Past,
    storage::{Space, Store as _, memory::MemoryStore},
};
use atoll_ring::NodeId;
use bytes::Bytes;

use super::Mischief;
use crate::{
    atlas,
    cluster::{Lies, read},
    faults::Kind,
    world::World,
};

impl Mischief {
    /// Begins such a fault, unless the cluster could not bear it. What happened, for the trace.
    pub(super) fn destroy(
        &mut self,
        world: &mut World,
        kind: Kind,
        node: NodeId,
    ) -> Option<String> {
        if !world.leaves_somebody_sure(node) {
            return None;
        }
        if kind != Kind::Damage && !world.may_forget(node) {
            return None;
        }
        let would_be = world.cluster.machine(node).store.twin();
        let said = match kind {
            Kind::Wipe => {
                would_be.wipe();
                format!("the disk of {node} is empty")
            }
            Kind::LostTail => {
                let batches = self.chance.of(&[1, 2, 5, 30]);
                let lost = would_be.lose_tail(batches);
                format!("the disk of {node} loses {lost} batches")
            }
            Kind::OldCopy => {
                would_be.restore(self.copies.get(&node)?);
                format!("the disk of {node} is an old copy")
            }
            _ => {
                let rows = would_be.synced(Space::Data);
                let (row, _) = rows.get(self.chance.below(rows.len().max(1) as u64) as usize)?;
                would_be.damage(Space::Data, row);
                format!("a record of {node} is damaged")
            }
        };
        if !atlas::allows(&world.cluster, &[(node, would_be.copy())]) {
            world.figures.forbidden += 1;
            return None;
        }
        if kind == Kind::Damage {
            let rows = would_be.synced(Space::Data);
            let is = |row: &Bytes, value| {
                let now = world.cluster.machine(node).store.synced(Space::Data);
                now.iter().any(|(at, before)| at == row && before != value)
            };
            let (row, _) = rows.iter().find(|(row, value)| is(row, value))?;
            world.cluster.machine(node).store.damage(Space::Data, row);
            world.damaged.insert((node, row.clone()));
            world.excuse_what_is_gone(); // what lay there without being synced is damaged with it
            return Some(said);
        }
        // nothing that was not synced is spared: it would count as synced, and be destroyed a moment later
        world.cluster.crash(node, 0);
        let machine = world.cluster.machine_mut(node);
        machine.store.restore(&would_be);
        machine.past = Past::Lost(said.clone());
        world.excuse_what_is_gone();
        world.forgetful.insert(node, false);
        self.comes_back(node, 4000);
        Some(said)
    }

    /// Keys of which some record is damaged, and no node has noticed.
    pub fn keys_with_hidden_damage(world: &World) -> Vec<String> {
        let is_hidden =
            |(node, row): &(NodeId, Bytes)| is_unread(&world.cluster.machine(*node).store, row);
        let hidden = world.damaged.iter().filter(|damaged| is_hidden(damaged));
        let rows: Vec<&Bytes> = hidden.map(|(_, row)| row).collect();
        world.all_keys().filter(|key| rows.contains(&&world.cluster.row(key))).cloned().collect()
    }
}

/// Whether a damaged record still lies where it lay.
pub(super) fn is_unread(store: &MemoryStore, row: &Bytes) -> bool {
    let value = store.get(Space::Data, row).expect("memory does not fail");
    value.is_some_and(|value| matches!(read(Space::Data, row, &value).1, Lies::Damaged))
}
