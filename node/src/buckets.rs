//! The buckets this node has heard of.
//!
//! What may be said of buckets, and what comes of two nodes saying different things, is pure and lies in
//! [`atoll_wire::bucket`]. Here the registry is kept, one row per definition, and every part of the node asks it: how many
//! owners hold a row ([`Buckets::copies`]), and whether a bucket may be written to ([`Buckets::living`]).
//!
//! A definition is kept before its first row: both go through the same queue, so no crash leaves a row of a bucket that
//! nobody knows. Who may change what is in [`answer`], how others hear of it in [`gossip`], and how the data of a dropped
//! bucket goes in [`purge`].
//!
//! ```text
//!   meta   bucket/<id>    the entry, postcard
//! ```

use std::{
    ops::Range,
    sync::{Arc, RwLock},
};

use atoll_wire::{
    Ack, BucketId, ErrorCode, Failure,
    bucket::{Entry, Registry},
};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::storage::{
    Space, StoreError,
    commit::{Disk, Ticket},
    meta, rows,
};

pub(crate) mod answer;
pub(crate) mod gossip;
pub(crate) mod purge;

/// What a node knows of buckets.
pub(crate) struct Buckets {
    disk: Arc<Disk>,
    state: RwLock<State>,
    /// Something was dropped.
    dropped: Notify,
    gossip: gossip::Gossip,
}

struct State {
    registry: Registry,
    digest: u64,
}

impl Buckets {
    /// What was known when the node stopped, in a cluster that was created with so many replicas.
    pub(crate) fn open(disk: Arc<Disk>, replicas: u8) -> Result<Self, StoreError> {
        let mut registry = Registry::new(replicas);
        for (row, value) in disk.scan(Space::Meta, rows::BUCKET, None, usize::MAX)? {
            let value = meta::open(&row, &value)?;
            let entry: Entry = postcard::from_bytes(&value)
                .map_err(|error| StoreError(format!("a kept bucket cannot be read: {error}")))?;
            registry.restore(entry).map_err(|error| StoreError(error.to_string()))?;
        }
        let digest = registry.digest();
        let (dropped, gossip) = (Notify::new(), gossip::Gossip::default());
        Ok(Buckets { disk, state: RwLock::new(State { registry, digest }), dropped, gossip })
    }

    /// What is known of a bucket.
    pub(crate) fn known(&self, bucket: BucketId) -> Option<Arc<Entry>> {
        self.read(|state| state.registry.entry(bucket).cloned())
    }

    /// The bucket, if it can be read and written.
    ///
    /// # Errors
    /// It was dropped, or never heard of here.
    pub(crate) fn living(&self, bucket: BucketId) -> Result<Arc<Entry>, Failure> {
        match self.known(bucket) {
            Some(entry) if entry.dropped => {
                let detail = format!("the bucket `{}` was dropped", entry.definition.name);
                Err(Failure::refused(ErrorCode::BucketDropped, detail))
            }
            Some(entry) => Ok(entry),
            None => {
                let detail = format!(
                    "no node within reach knows a bucket {bucket}; see `atoll bucket list`"
                );
                Err(Failure::refused(ErrorCode::UnknownBucket, detail))
            }
        }
    }

    /// How many owners of a partition hold a bucket's keys, the first ones; 0 = it is unheard of. A dropped one keeps its
    /// number: what is left of it must be found.
    pub(crate) fn copies(&self, bucket: BucketId) -> u8 {
        self.read(|state| state.registry.entry(bucket).map_or(0, |entry| entry.definition.n))
    }

    /// Whether there is a bucket with so many copies, dropped ones included.
    pub(crate) fn any_with_copies(&self, copies: Range<u8>) -> bool {
        self.read(|state| {
            state.registry.entries().any(|(_, entry)| copies.contains(&entry.definition.n))
        })
    }

    /// Whether a bucket was dropped.
    pub(crate) fn is_dropped(&self, bucket: BucketId) -> bool {
        self.read(|state| state.registry.entry(bucket).is_some_and(|entry| entry.dropped))
    }

    /// In one number what is known.
    pub(crate) fn digest(&self) -> u64 {
        self.read(|state| state.digest)
    }

    /// All that is known.
    pub(crate) fn registry(&self) -> Registry {
        self.read(|state| state.registry.clone())
    }

    /// Takes over what another node knows. The ticket is good when it is on stable storage here.
    pub(crate) fn join(&self, other: &Registry) -> Ticket {
        let mut state = self.state.write().expect("no panic holds it");
        let changed = state.registry.join(other);
        self.keep(&mut state, &changed)
    }

    /// Makes a change, which gives what has changed. The ticket is good when that is on stable storage.
    fn change<T, E>(
        &self,
        make: impl FnOnce(&mut Registry) -> Result<(T, Option<BucketId>), E>,
    ) -> Result<(T, Ticket), E> {
        let mut state = self.state.write().expect("no panic holds it");
        let (made, changed) = make(&mut state.registry)?;
        Ok((made, self.keep(&mut state, changed.as_slice())))
    }

    /// Keeps what has changed. Whatever is queued after this is on stable storage no earlier.
    fn keep(&self, state: &mut State, changed: &[BucketId]) -> Ticket {
        if changed.is_empty() {
            return self.disk.settled();
        }
        let mut writes = Vec::with_capacity(changed.len());
        for id in changed {
            let entry = state.registry.entry(*id).expect("it has just changed");
            tracing::info!(bucket = %id, name = %entry.definition.name, dropped = entry.dropped, "bucket");
            let bytes = postcard::to_stdvec(&**entry).expect("plain data");
            writes.push(meta::write(rows::bucket(*id), &bytes));
            if entry.dropped {
                self.dropped.notify_waiters();
            }
        }
        state.digest = state.registry.digest();
        self.disk.write(writes, Ack::Durable)
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().expect("no panic holds it"))
    }
}

/// The bucket of a data row; zeros, which is no bucket's id, if the row names none.
pub(crate) fn of_row(row: &Bytes) -> BucketId {
    rows::bucket_and_key(row).map_or(BucketId([0; 16]), |(bucket, _)| bucket)
}
