//! One key's row: its state, the coordinator's note, and a checksum over both and the row's name.
//!
//! ```text
//!  0         1             17        18                    18 or 50
//!  +---------+-------------+---------+---------------------+-------------------+
//!  | format  | checksum    | note?   | note, if there is   | state             |
//!  | 1       | 16 of blake3| 0 or 1  | 32 bytes            | canonical bytes   |
//!  +---------+-------------+---------+---------------------+-------------------+
//! ```
//!
//! The engine's own checksums do not cover everything (a flipped bit in a journal header goes unnoticed), so each read
//! verifies ours. The row's name is part of it: a record under another key's name is damaged too.

use atoll_antientropy::{Note, State};
use bytes::{BufMut as _, Bytes, BytesMut};

const FORMAT: u8 = 1;
const CHECKSUM_AT: std::ops::Range<usize> = 1..17;
const NOTE_FLAG_AT: usize = 17;
const NOTE_AT: usize = 18;

/// A row that holds what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What this node may claim with its next event on the key; never replicated.
    pub note: Option<Note>,
    /// The state.
    pub state: State,
    /// Its canonical bytes.
    pub bytes: Bytes,
}

/// A row that is not what was written: missing, deleted and damaged are three different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record is damaged")]
pub struct Damaged;

impl Record {
    /// The row's value.
    pub fn encode(row: &[u8], note: Option<&Note>, state: &[u8]) -> Bytes {
        let note_bytes = if note.is_some() { Note::BYTES } else { 0 };
        let mut out = BytesMut::with_capacity(NOTE_AT + note_bytes + state.len());
        out.put_u8(FORMAT);
        out.put_bytes(0, CHECKSUM_AT.len());
        out.put_u8(u8::from(note.is_some()));
        if let Some(note) = note {
            out.put_slice(&note.encode());
        }
        out.put_slice(state);
        let checksum = checksum(row, &out[NOTE_FLAG_AT..]);
        out[CHECKSUM_AT].copy_from_slice(&checksum);
        out.freeze()
    }

    /// Verifies and takes apart.
    ///
    /// # Errors
    /// [`Damaged`], whatever is wrong: nobody should guess further.
    pub fn decode(row: &[u8], value: &Bytes) -> Result<Record, Damaged> {
        if value.len() < NOTE_AT || value[0] != FORMAT {
            return Err(Damaged);
        }
        if value[CHECKSUM_AT] != checksum(row, &value[NOTE_FLAG_AT..]) {
            return Err(Damaged);
        }
        let (note, state_at) = match value[NOTE_FLAG_AT] {
            0 => (None, NOTE_AT),
            1 => {
                let bytes = value.get(NOTE_AT..NOTE_AT + Note::BYTES).ok_or(Damaged)?;
                (Some(Note::decode(bytes).map_err(|_| Damaged)?), NOTE_AT + Note::BYTES)
            }
            _ => return Err(Damaged),
        };
        let bytes = value.slice(state_at..);
        // where the checksum was right and this is no state we have a bug, and nobody should guess further either
        let state = State::decode(&bytes).map_err(|_| Damaged)?;
        Ok(Record { note, state, bytes })
    }
}

pub(super) fn checksum(row: &[u8], content: &[u8]) -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    hash.update(&(row.len() as u64).to_le_bytes());
    hash.update(row);
    hash.update(content);
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use atoll_antientropy::{Actor, Context, Event};

    use super::*;

    fn sample() -> (Note, State) {
        let actor = Actor { node: 1, incarnation: 0 };
        let event = Event::alone(actor, 5);
        let note = Note { actor, last: 5, unclean_starts: 1, role_changes: 0 };
        (note, State::put(&Context::new(), event, Bytes::from_static(b"value")))
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (note, state) = sample();
        for note in [None, Some(note)] {
            let value = Record::encode(b"row", note.as_ref(), &state.encode());
            let record = Record::decode(b"row", &value).expect("untouched");
            assert_eq!(record.note, note);
            assert_eq!(record.bytes, state.encode());
            assert_eq!(record.state, state);
        }
    }

    /// Every single flipped bit is noticed, and so is every cut and another row's name.
    #[test]
    fn no_damage_goes_unnoticed() {
        let (note, state) = sample();
        let value = Record::encode(b"row", Some(&note), &state.encode());
        for bit in 0..value.len() * 8 {
            let mut bytes = value.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(b"row", &bytes.into()), Err(Damaged), "bit {bit}");
        }
        for length in 0..value.len() {
            assert_eq!(Record::decode(b"row", &value.slice(..length)), Err(Damaged));
        }
        assert_eq!(Record::decode(b"other", &value), Err(Damaged));
        let nonsense = Record::encode(b"row", None, b"no state");
        assert_eq!(Record::decode(b"row", &nonsense), Err(Damaged));
    }
}
