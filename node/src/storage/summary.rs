//! What the row of digests says of a record: enough to compare replicas without reading values.
//!
//! ```text
//!  0                       16
//!  +-----------------------+-----------+
//!  | digest of the state   | tombstone |
//!  | 16 bytes              | 0 or 1    |
//!  +-----------------------+-----------+
//! ```
//!
//! It lies in [`Space::Digests`] under the name of the record and is written in the same batch, so no crash comes between
//! them. It has no checksum of its own: a damaged one makes a key look different that is not, and whoever looks at the key
//! then writes it anew.

use atoll_antientropy::{Digest, State};
use atoll_wire::Ack;
use bytes::Bytes;

use super::{Space, StoreError, Write, commit::Disk, meta, record::Record, rows};

/// What is said of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Equal for equal states.
    pub digest: Digest,
    /// Nothing in it is alive.
    pub tombstone: bool,
}

impl Summary {
    /// Of a state.
    pub fn of(state: &State) -> Summary {
        Summary { digest: state.digest(), tombstone: state.is_tombstone() }
    }

    /// The same for whoever has its canonical bytes at hand.
    pub fn of_encoded(state: &State, bytes: &[u8]) -> Summary {
        Summary { digest: state.digest_of(bytes), tombstone: state.is_tombstone() }
    }

    /// As it stands in a row. A row of another length is damaged and reads as if its digest were nothing: different from
    /// every state.
    pub fn read(value: &[u8]) -> Summary {
        match <&[u8; 17]>::try_from(value) {
            Ok(value) => Summary {
                digest: Digest(*value.first_chunk().expect("17 bytes")),
                tombstone: value[16] == 1,
            },
            Err(_) => Summary { digest: Digest([0; 16]), tombstone: false },
        }
    }

    /// The write that belongs into the batch of the record.
    pub fn write(&self, row: &Bytes) -> Write {
        let mut value = Vec::with_capacity(17);
        value.extend_from_slice(&self.digest.0);
        value.push(u8::from(self.tombstone));
        Write { space: Space::Digests, row: row.clone(), value: Some(value.into()) }
    }
}

/// Records looked at between two writes.
const PAGE: usize = 64;

/// Says of every record what has not been said yet: a store of before there were digests has none. Reads all values, once.
///
/// # Errors
/// The storage failed.
pub async fn complete(disk: &Disk) -> Result<(), StoreError> {
    let done = Bytes::from_static(rows::SUMMARIES);
    if disk.get(Space::Meta, &done)?.is_some() {
        return Ok(());
    }
    let mut after: Option<Bytes> = None;
    loop {
        let page = disk.scan(Space::Data, b"", after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        let mut said = Vec::new();
        for (row, value) in &page {
            // whoever reads a damaged one sets it aside
            if let Ok(Record { state, .. }) = Record::decode(row, value)
                && disk.get(Space::Digests, row)?.is_none()
            {
                said.push(Summary::of(&state).write(row));
            }
        }
        disk.write(said, Ack::Written).done().await?;
    }
    disk.write(vec![meta::write(done, b"1")], Ack::Durable).done().await
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use atoll_antientropy::{Actor, Context, Event};

    use super::*;
    use crate::storage::{Store as _, memory::MemoryStore};

    /// A store of before there were digests gets one for every record that is whole, and none is written twice.
    #[tokio::test(start_paused = true)]
    async fn an_older_store_is_completed_once() {
        let store = Arc::new(MemoryStore::new());
        let event = Event::alone(Actor::new(1, 0), 1);
        let state = State::put(&Context::new(), event, Bytes::from_static(b"v"));
        let write = |number: u8| {
            let row = Bytes::from(vec![0, number]);
            let record = Record::encode(&row, None, &state.encode());
            Write { space: Space::Data, row, value: Some(record) }
        };
        store.apply(&(0..200).map(write).collect::<Vec<_>>()).expect("memory");
        assert!(store.damage(Space::Data, &[0, 7]));
        let (disk, _writer) =
            Disk::on_task(store.clone(), Duration::from_millis(2), None).expect("new");
        complete(&disk).await.expect("memory");
        assert_eq!(store.rows(Space::Digests), 199);
        let said = store.get(Space::Digests, &[0, 8]).expect("memory").expect("it is there");
        assert_eq!(Summary::read(&said), Summary::of(&state));
        let commits = disk.commit();
        complete(&disk).await.expect("memory");
        assert_eq!(disk.commit(), commits);
    }
}
