//! How much a coordinator may claim with a new event.
//!
//! An event that follows directly on its actor's last one for the key may say so, and the context
//! stays one interval long. Saying so wrongly erases writes: "(4, 9] is all mine and I know it"
//! makes event 7 vanish, if there was one. So beside each record that a node coordinates (or hint
//! record, as a fallback) lies a note, never replicated:
//!
//! ```text
//!   actor              4 + 4 bytes    who made the last event here
//!   last               8 bytes        its counter
//!   unclean starts     8 bytes        how many starts after a crash the node had had by then
//!   role changes       8 bytes        how many changes of its role for the partition, by then
//! ```
//!
//! The note is trusted only if nothing happened since that could have hidden an event from it: a
//! crash takes the note back in time, and in another role the node writes other notes elsewhere.
//! Reading `last` out of the record instead of a note is wrong for the same reason: the record may
//! have lost an event that others still hold. `tests/oracle` counts what each of these shortcuts
//! loses.

use crate::codec::DecodeError;
use crate::{Actor, Event};

/// What a node remembers beside a record about its own last event there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Who made that event.
    pub actor: Actor,
    /// Its counter.
    pub last: u64,
    /// [`Standing::unclean_starts`] at that time.
    pub unclean_starts: u64,
    /// [`Standing::role_changes`] at that time.
    pub role_changes: u64,
}

/// The node's present, as far as it decides whether a note still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who the node is now.
    pub actor: Actor,
    /// How many times it has started without having stopped in good order.
    pub unclean_starts: u64,
    /// How many times its role for this partition has changed.
    pub role_changes: u64,
}

impl Standing {
    /// The event with the given counter, and the note to store with the record in the same write.
    ///
    /// With a note that still holds, the event extends from the last one: (last, counter]. Without,
    /// it stands alone. Panics if the counter does not lie above a note that holds: then a counter
    /// was given twice.
    pub fn event(&self, note: Option<&Note>, counter: u64) -> (Event, Note) {
        let Standing { actor, unclean_starts, role_changes } = *self;
        let event = match note.filter(|note| self.trusts(note)) {
            Some(note) => {
                assert!(counter > note.last, "counter {counter} was given before");
                Event { actor, after: note.last, counter }
            }
            None => Event::alone(actor, counter),
        };
        (event, Note { actor, last: counter, unclean_starts, role_changes })
    }

    /// Whether nothing happened since the note was written that could have hidden an event from it.
    fn trusts(&self, note: &Note) -> bool {
        note.actor == self.actor
            && note.unclean_starts == self.unclean_starts
            && note.role_changes == self.role_changes
    }
}

impl Note {
    /// The encoded length.
    pub const BYTES: usize = 32;

    /// The fields in the order of the picture above, big-endian.
    pub fn encode(&self) -> [u8; Note::BYTES] {
        let mut out = [0; Note::BYTES];
        out[0..4].copy_from_slice(&self.actor.node.to_be_bytes());
        out[4..8].copy_from_slice(&self.actor.incarnation.to_be_bytes());
        out[8..16].copy_from_slice(&self.last.to_be_bytes());
        out[16..24].copy_from_slice(&self.unclean_starts.to_be_bytes());
        out[24..32].copy_from_slice(&self.role_changes.to_be_bytes());
        out
    }

    /// Reads exactly [`Note::BYTES`] bytes.
    pub fn decode(input: &[u8]) -> Result<Note, DecodeError> {
        let (fields, rest) =
            input.split_first_chunk::<{ Note::BYTES }>().ok_or(DecodeError::Truncated)?;
        if !rest.is_empty() {
            return Err(DecodeError::Trailing(rest.len()));
        }
        let u32_at = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| fields[at + i]));
        let u64_at = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| fields[at + i]));
        Ok(Note {
            actor: Actor::new(u32_at(0), u32_at(4)),
            last: u64_at(8),
            unclean_starts: u64_at(16),
            role_changes: u64_at(24),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Standing = Standing { actor: Actor::new(1, 2), unclean_starts: 3, role_changes: 4 };
    const NOTE: Note =
        Note { actor: Actor::new(1, 2), last: 7, unclean_starts: 3, role_changes: 4 };

    /// An event extends from the last one only while actor, starts and role are what they were.
    #[test]
    fn a_note_holds_only_in_the_same_life_start_and_role() {
        let check = |note: Option<Note>, after: u64| {
            let (event, next) = NOW.event(note.as_ref(), 12);
            assert_eq!(event, Event { actor: NOW.actor, after, counter: 12 });
            assert_eq!(next, Note { last: 12, ..NOTE });
        };
        check(Some(NOTE), 7);
        check(None, 11);
        check(Some(Note { actor: Actor::new(1, 1), ..NOTE }), 11);
        check(Some(Note { actor: Actor::new(9, 2), ..NOTE }), 11);
        check(Some(Note { unclean_starts: 2, ..NOTE }), 11);
        check(Some(Note { unclean_starts: 4, ..NOTE }), 11);
        check(Some(Note { role_changes: 3, ..NOTE }), 11);
        check(Some(Note { role_changes: 5, ..NOTE }), 11);
    }

    /// A note from another life says nothing about counters; a note from this one forbids giving a
    /// counter twice.
    #[test]
    #[should_panic(expected = "given before")]
    fn a_counter_below_the_note_is_refused() {
        let other_life = Note { actor: Actor::new(1, 1), ..NOTE };
        NOW.event(Some(&other_life), 7); // fine
        NOW.event(Some(&NOTE), 7);
    }

    #[test]
    fn notes_come_back() {
        assert_eq!(Note::decode(&NOTE.encode()), Ok(NOTE));
        assert_eq!(Note::decode(&NOTE.encode()[..31]), Err(DecodeError::Truncated));
        assert_eq!(Note::decode(&[0; 33]), Err(DecodeError::Trailing(1)));
    }
}
