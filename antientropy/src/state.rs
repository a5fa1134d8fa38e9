//! The state of a key, and the one join that makes two copies into one.
//!
//! A state is a content and a context: what is alive, and all that is known. A full record, a
//! repair between replicas and the delta of a single change are all states, so all of them are
//! joined the same way, in any order, any number of times. This is the causal delta-state CRDT of
//! Almeida, Shoker and Baquero ("Delta state replicated data types", 2018, on causal CRDTs):
//!
//! > (s, c) ⊔ (s', c') = ((s ∩ s') ∪ (s \ c') ∪ (s' \ c), c ∪ c')
//!
//! ```text
//!   content      context
//!   nothing      nothing        unknown: never heard of this key; joins without a trace
//!   nothing      something      tombstone: everything it knows of is gone, and it remembers what
//!   something    covers it      alive
//! ```
//!
//! Counters, last-write-wins values and maxima lie under no dot. They join by "the greater wins",
//! and their context is there for sessions: it says which changes have gone in.

use std::convert::Infallible;

use bytes::Bytes;

use crate::cell::Cell;
use crate::codec::{DecodeError, Reader};
use crate::dots::Content;
use crate::store::Store;
use crate::{Context, Digest, Dot, Event, Hybrid, Kind, Operation, Stamp};

/// The state of one key, of any kind: what nodes keep, send and join.
///
/// What it becomes by a change is in [`change`](State::change), what a reader is shown of it in
/// [`read`](State::read).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    store: Store,
    context: Context,
}

impl State {
    /// Nothing was ever heard.
    pub fn unknown(kind: Kind) -> State {
        State { store: Store::empty(kind), context: Context::new() }
    }

    /// A content and what is known with it. Every dot that is alive must be known.
    pub(crate) fn of(store: Store, context: Context) -> State {
        State { store, context }
    }

    /// What the value is.
    pub fn kind(&self) -> Kind {
        self.store.kind()
    }

    /// What is known.
    pub fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes this copy know and hold what both did. Commutative, associative, idempotent.
    ///
    /// Panics if the kinds differ: whoever decodes a state checks its kind first.
    pub fn join(&mut self, other: State) {
        self.store.join(&self.context, other.store, &other.context);
        self.context.join(&other.context);
    }

    /// Whether joining `other` would change nothing here. Cheaper than joining and comparing:
    /// nothing is built. Panics if the kinds differ.
    pub fn covers(&self, other: &State) -> bool {
        // Where the contexts cover, every dot of the other is known here: nothing can be added
        // under dots, only taken away.
        self.context.covers(&other.context) && self.store.absorbs(&other.store, &other.context)
    }

    /// Whether nothing was ever heard of this key.
    pub fn is_unknown(&self) -> bool {
        self.store.is_empty() && self.context.is_empty()
    }

    /// Whether something was heard, and nothing of it is left to be shown: deleted, removed, off,
    /// or reset. What has merely expired is not.
    pub fn is_tombstone(&self) -> bool {
        !self.is_unknown() && !self.store.is_alive()
    }

    /// How many values stand side by side in a register, expired and repeated ones too. For the
    /// other kinds 1 if there is something, else 0.
    pub fn siblings(&self) -> usize {
        match &self.store {
            Store::Register(values) => values.len(),
            other => other.is_alive().into(),
        }
    }

    /// How many elements a set has, or fields a map on its first level, those that only remember
    /// something included. 0 for the other kinds.
    pub fn elements(&self) -> usize {
        match &self.store {
            Store::Set(elements) => elements.len(),
            Store::Map(fields) => fields.len(),
            _ => 0,
        }
    }

    /// The values that stand side by side in a register, in order of their dots, with nothing left
    /// out. None for the other kinds.
    pub fn values(&self) -> impl Iterator<Item = (&Dot, &Bytes)> {
        let values = match &self.store {
            Store::Register(values) => Some(values),
            _ => None,
        };
        let all = values.into_iter().flat_map(|values| values.iter());
        all.filter_map(|(dot, cell)| payload_of(dot, cell))
    }

    /// The delta of a plain put into a register in place of all that `seen` covers. For whoever
    /// has no client that asks: tests and models.
    pub fn put(seen: &Context, event: Event, value: Bytes) -> State {
        let put = Operation::Put { value, expires_ms: None };
        let stamp = Stamp { event, at: Hybrid::default(), wall_ms: 0, operation: 0 };
        let nothing = State::unknown(Kind::Register);
        nothing.change(&put, Some(seen), &stamp).expect("a register takes every put")
    }

    /// The delta of a plain delete of all that `seen` covers; as [`put`](State::put).
    pub fn delete(seen: &Context, event: Event) -> State {
        let stamp = Stamp { event, at: Hybrid::default(), wall_ms: 0, operation: 0 };
        let nothing = State::unknown(Kind::Register);
        nothing.change(&Operation::Clear, Some(seen), &stamp).expect("a register may be cleared")
    }

    /// The canonical bytes: `0x20 + kind's number (1 byte) | context | content`. Equal states,
    /// equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT | self.kind().number()];
        self.context.encode_into(&mut out);
        self.store.encode(&mut out);
        out
    }

    /// Reads the canonical bytes and refuses all others. Values and elements are slices of `input`,
    /// not copies, and keep it alive.
    pub fn decode(input: &Bytes) -> Result<State, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let first = reader.byte()?;
        let number = (first & 0xf0 == FORMAT).then_some(first & 0x0f);
        let kind = number.and_then(Kind::of_number).ok_or(DecodeError::Tag(first))?;
        let context = Context::decode_from(&mut reader)?;
        let store = Store::decode(&mut reader, kind, 1)?;
        reader.finish()?;
        let mut covered = true;
        store.dots(&mut |dot, _| covered &= context.contains(dot));
        if !covered {
            return Err(DecodeError::Uncovered);
        }
        Ok(State { store, context })
    }

    /// A fingerprint for finding differences between replicas: over kind, context, dots, expiry and
    /// what lies under no dot, never over the payload of registers. Equal dots under equal contexts
    /// are equal states, because a dot names one change for ever; and a payload may be freed on one
    /// replica before the other without the two being different.
    pub fn digest(&self) -> Digest {
        let mut metadata = vec![FORMAT | self.kind().number()];
        self.context.encode_into(&mut metadata);
        self.store.encode_digest(&mut metadata);
        Digest::of(&metadata)
    }
}

fn payload_of<'a>(dot: &'a Dot, cell: &'a Cell) -> Option<(&'a Dot, &'a Bytes)> {
    cell.payload.as_ref().map(|payload| (dot, payload))
}

/// The upper half of the first byte. The first format had only registers, and the byte 0x01.
const FORMAT: u8 = 0x20;

impl crdts::CvRDT for State {
    type Validation = Infallible;

    fn validate_merge(&self, _: &Self) -> Result<(), Infallible> {
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.join(other);
    }
}
