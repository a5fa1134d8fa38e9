//! How a node comes to a new view: to stable storage first, then everywhere at once.
//!
//! A view that is spoken of (every reply carries its epoch) is one that no crash takes back: whoever has said that it knows
//! of a change refuses for ever what was planned before it. Between the fsync and the moment in which all parts follow
//! nobody else runs.

use std::sync::Arc;

use atoll_ring::{Entry, Epoch, NodeId, Partition, View};
use atoll_wire::Ack;
use bytes::Bytes;

use super::Node;
use crate::{
    canary::{self, Canary},
    liveness,
    membership::catch_up::CatchUp,
    storage::{Space, StoreError, Write, meta, rows},
};

/// Entries that are kept, for whoever is that far behind and for people. A view of all before them is sent instead.
const PASSED_MAX: u64 = 512;

impl Node {
    /// Takes over a newer view, and what led to it as far as it is known; writes of the log's own go along in the same
    /// commit. Does nothing but those writes if the view is not newer than ours.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn adopt(
        self: &Arc<Self>,
        next: View,
        passed: &[Entry],
        mut riders: Vec<Write>,
    ) -> Result<(), StoreError> {
        let _turn = self.adopting.acquire().await.expect("it is never closed");
        let newer = next.epoch() > self.view().epoch();
        if newer && canary::is_on(Canary::SpeakOfViewEarly) {
            self.publish(Arc::new(next.clone()))?;
        }
        if newer {
            riders.extend(self.doubt.follow(&self.view(), &next, self.id, self.clock.now()));
            let bytes = postcard::to_stdvec(&next).expect("a view is plain data");
            riders.push(meta::write(Bytes::from_static(rows::VIEW), &bytes));
            for gone in (self.view().epoch().0..next.epoch().0).rev() {
                let Some(gone) = (gone + 1).checked_sub(PASSED_MAX) else { break };
                riders.push(Write {
                    space: Space::Meta,
                    row: rows::passed(Epoch(gone)),
                    value: None,
                });
            }
            for entry in passed {
                let bytes = postcard::to_stdvec(entry).expect("an entry is plain data");
                riders.push(meta::write(rows::passed(entry.epoch), &bytes));
            }
        }
        if !riders.is_empty() {
            self.disk.write(riders, Ack::Durable).done().await?;
        }
        if newer { self.publish(Arc::new(next)) } else { Ok(()) }
    }

    /// All parts follow the view, in one step.
    fn publish(self: &Arc<Self>, next: Arc<View>) -> Result<(), StoreError> {
        let before =
            std::mem::replace(&mut *self.view.write().expect("no panic holds it"), next.clone());
        tracing::info!(from = %before.epoch(), to = %next.epoch(), "new view");
        if next.member(self.id).is_none() {
            let removed = StoreError(match next.removed_since(self.id) {
                Some(since) => format!("{} was removed from the ring in epoch {since}", self.id),
                None => format!("{} is no member of the ring", self.id),
            });
            self.disk.give_up(removed); // nothing is acknowledged under this id any more
            return Ok(());
        }
        if canary::is_on(Canary::ForgetLease)
            && let Some(life) = self.life.get()
        {
            let keeps = |view: &View, at| view.owners(at).contains(self.id);
            let lost = |at: &Partition| keeps(&before, *at) && !keeps(&next, *at);
            next.partitions().all().filter(lost).for_each(|at| life.leases.forget(at));
        }
        let members: Vec<_> =
            next.members().iter().map(|member| (member.id, member.address)).collect();
        self.transport.follow(&members);
        self.measured.follow(|node| next.member(node).is_some());
        let others: Vec<NodeId> =
            members.iter().map(|(id, _)| *id).filter(|id| *id != self.id).collect();
        self.liveness.follow(&others);
        self.memory.follow(&next);
        self.hybrid.follow(&others);
        self.repair.follow(&next)?;
        for other in others.into_iter().filter(|other| before.member(*other).is_none()) {
            self.spawn(liveness::watch(self.clone(), other));
            if self.life.get().is_some() {
                self.care_for(other);
            }
        }
        self.catch_up.changed.notify_waiters();
        Ok(())
    }

    /// A peer has spoken, and said which view it has.
    pub(crate) fn heard_epoch(&self, peer: NodeId, epoch: Epoch) {
        if epoch > self.view().epoch() {
            self.catch_up.behind(peer, epoch);
        }
    }

    pub(crate) fn catch_up(&self) -> &CatchUp {
        &self.catch_up
    }
}
