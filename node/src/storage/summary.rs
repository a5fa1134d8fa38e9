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

use atoll_antientropy::{Digest, Register};
use bytes::Bytes;

use super::{Space, Write};

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
    pub fn of(state: &Register) -> Summary {
        Summary { digest: state.digest(), tombstone: state.is_tombstone() }
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
