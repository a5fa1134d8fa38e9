//! Where dots come from: counters per (actor, partition), leased in fsynced blocks, never given twice.
//!
//! The end of a lease is on disk before the first counter below it is used. After a start every lease resumes at its
//! end, so the rest of a block is skipped rather than repeated. Ends are kept for ever.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use atoll_antientropy::{Actor, Lease};
use atoll_ring::Partition;
use atoll_wire::Ack;

use crate::{
    canary::{self, Canary},
    storage::{Space, StoreError, Write, commit::Disk, meta, rows},
};

/// Counters taken per fsync. A crash skips what is left of a block, which costs nothing: counters have 64 bits.
const BLOCK: u64 = 1 << 16;

/// The leases of one actor.
pub(crate) struct Leases {
    actor: Actor,
    disk: Arc<Disk>,
    held: Mutex<HashMap<Partition, Lease>>,
}

impl Leases {
    /// Resumes every lease at its end.
    pub(crate) fn open(actor: Actor, disk: Arc<Disk>) -> Result<Self, StoreError> {
        let prefix = rows::leases_of(actor);
        let mut held = HashMap::new();
        for (row, value) in disk.scan(Space::Meta, &prefix, None, usize::MAX)? {
            let partition = rows::partition_of_lease(&row)
                .ok_or_else(|| StoreError("a lease row has no partition".into()))?;
            let mut end = meta::open_number(&row, &value)?;
            if canary::is_on(Canary::ReuseDot) {
                end = end.saturating_sub(BLOCK);
            }
            held.insert(partition, Lease::resume(end));
        }
        Ok(Leases { actor, disk, held: Mutex::new(held) })
    }

    /// Waits until the partition has counters left.
    pub(crate) async fn ready(&self, partition: Partition) -> Result<(), StoreError> {
        loop {
            let end = {
                let mut held = self.held.lock().expect("no panic holds it");
                let lease = held.entry(partition).or_insert_with(|| Lease::resume(0));
                if lease.remaining() > 0 {
                    return Ok(());
                }
                lease.next_end(BLOCK)
            };
            // Several may come here at once and write the same end. Queued in the order in which they looked, so a
            // later, greater end is never followed by a smaller one on disk; in memory the greater one stays.
            let write = meta::write_number(rows::lease(self.actor, partition), end);
            self.disk.write(vec![write], Ack::Durable).done().await?;
            let mut held = self.held.lock().expect("no panic holds it");
            let lease = held.entry(partition).or_insert_with(|| Lease::resume(0));
            if end > lease.next_end(0) {
                lease.extend_to(end);
            }
        }
    }

    /// A deliberate bug: counters go with the partition.
    pub(crate) fn forget(&self, partition: Partition) {
        self.held.lock().expect("no panic holds it").remove(&partition);
        let row = rows::lease(self.actor, partition);
        drop(self.disk.write(vec![Write { space: Space::Meta, row, value: None }], Ack::Written));
    }

    /// The next counter; `None` if the block is used up ([`Leases::ready`] gets a new one).
    pub(crate) fn take(&self, partition: Partition) -> Option<u64> {
        self.held.lock().expect("no panic holds it").get_mut(&partition)?.take()
    }
}
