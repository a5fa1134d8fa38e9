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
//! The context knows whole events. That only a part of an event is known, because a removal was heard
//! of before what it removed, is noted beside it and gone as soon as the event arrives (`dots.rs`).
//!
//! Counters, last-write-wins values and maxima lie under no dot. They join by "the greater wins",
//! and their context is there for sessions: it says which changes have gone in.

use std::borrow::Cow;
use std::convert::Infallible;

use bytes::Bytes;

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
    /// Of which events everything is here.
    context: Context,
    /// Which dots beyond those are known to be gone, wherever they lay: what a removal took away
    /// that has not been heard of yet. Nearly always empty.
    beyond: Context,
}

impl State {
    /// Nothing was ever heard.
    pub fn unknown(kind: Kind) -> State {
        State { store: Store::empty(kind), context: Context::new(), beyond: Context::new() }
    }

    /// A change: its event, what it leaves, and what is known after it, all in all and beyond.
    pub(crate) fn delta(event: &Event, store: Store, context: Context, beyond: Context) -> State {
        let mut delta = State { store, context, beyond };
        delta.context.add(event);
        delta.keep_beyond();
        let joined = delta.known().into_owned();
        delta.store.forget(&Context::new(), &joined); // nothing, but notes nothing twice
        delta
    }

    /// What the value is.
    pub fn kind(&self) -> Kind {
        self.store.kind()
    }

    /// What is known.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What is known of dots wherever they lie.
    pub(crate) fn known(&self) -> Cow<'_, Context> {
        if self.beyond.is_empty() {
            return Cow::Borrowed(&self.context);
        }
        let mut known = self.context.clone();
        known.join(&self.beyond);
        Cow::Owned(known)
    }

    fn keep_beyond(&mut self) {
        if !self.beyond.is_empty() {
            self.beyond = self.beyond.without(&self.context);
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes this copy know and hold what both did. Commutative, associative, idempotent.
    ///
    /// Panics if the kinds differ: whoever decodes a state checks its kind first.
    pub fn join(&mut self, other: State) {
        let (own, others) = (self.known().into_owned(), other.known().into_owned());
        self.context.join(&other.context);
        self.beyond.join(&other.beyond);
        self.keep_beyond();
        let joined = match &self.beyond {
            nothing if nothing.is_empty() => Cow::Borrowed(&self.context),
            beyond => {
                let mut joined = self.context.clone();
                joined.join(beyond);
                Cow::Owned(joined)
            }
        };
        self.store.join(&own, other.store, &others, &joined);
    }

    /// Whether joining `other` would change nothing here. Cheaper than joining and comparing:
    /// nothing is built. Panics if the kinds differ.
    pub fn covers(&self, other: &State) -> bool {
        let (own, others) = (self.known(), other.known());
        self.context.covers(&other.context)
            && own.covers(&others)
            && self.store.absorbs(&own, &other.store, &others)
    }

    /// Whether nothing was ever heard of this key.
    pub fn is_unknown(&self) -> bool {
        self.store.is_empty() && self.context.is_empty() && self.beyond.is_empty()
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
        all.filter_map(|(dot, cell)| Some((dot, cell.payload.as_ref()?)))
    }

    /// The delta of a plain put into a register in place of all that `seen` covers. For whoever
    /// has no client that asks: tests and models.
    pub fn put(seen: &Context, event: Event, value: Bytes) -> State {
        let put = Operation::Put { value, expires_ms: None };
        State::by_hand(seen, event, &put)
    }

    /// The delta of a plain delete of all that `seen` covers; as [`put`](State::put).
    pub fn delete(seen: &Context, event: Event) -> State {
        State::by_hand(seen, event, &Operation::Clear)
    }

    fn by_hand(seen: &Context, event: Event, operation: &Operation) -> State {
        let stamp = Stamp { event, at: Hybrid::default(), wall_ms: 0, operation: 0 };
        let nothing = State::unknown(Kind::Register);
        nothing.change(operation, Some(seen), &stamp).expect("a register takes puts and clears")
    }

    /// The canonical bytes. Equal states, equal bytes.
    ///
    /// ```text
    ///   0x20 + kind's number (1 byte) | context | beyond (set, flag and map only) | content
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.encode_contexts();
        self.store.encode(&mut out);
        out
    }

    fn encode_contexts(&self) -> Vec<u8> {
        let mut out = vec![FORMAT | self.kind().number()];
        self.context.encode_into(&mut out);
        if has_places(self.kind()) {
            self.beyond.encode_into(&mut out);
        }
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
        let beyond = match has_places(kind) {
            true => Context::decode_from(&mut reader)?,
            false => Context::new(),
        };
        let store = Store::decode(&mut reader, kind, 1)?;
        reader.finish()?;
        let state = State { store, context, beyond };
        let is_noted_once = state.beyond.without(&state.context) == state.beyond;
        if !is_noted_once || !state.store.is_sound(&state.known()) {
            return Err(DecodeError::Uncovered);
        }
        Ok(state)
    }

    /// A fingerprint for finding differences between replicas: over kind, context, dots, expiry and
    /// what lies under no dot, never over the payload of registers. Equal dots under equal contexts
    /// are equal states, because a dot names one change for ever; and a payload may be freed on one
    /// replica before the other without the two being different.
    pub fn digest(&self) -> Digest {
        let mut metadata = self.encode_contexts();
        self.store.encode_digest(&mut metadata);
        Digest::of(&metadata)
    }

    /// The same for whoever has the canonical bytes at hand: the states of most kinds are nothing
    /// but metadata.
    pub fn digest_of(&self, bytes: &[u8]) -> Digest {
        match self.kind() {
            Kind::Set | Kind::Flag | Kind::Counter | Kind::Max => Digest::of(bytes),
            Kind::Register | Kind::Lww | Kind::Map => self.digest(),
        }
    }
}

/// The upper half of the first byte. The first format had only registers, and the byte 0x01.
const FORMAT: u8 = 0x20;

/// Whether events can be known in part. A register that is a key's value has one place, and its
/// changes replace whole events; what lies under no dot needs no contexts to be joined.
fn has_places(kind: Kind) -> bool {
    match kind {
        Kind::Set | Kind::Flag | Kind::Map => true,
        Kind::Register | Kind::Lww | Kind::Counter | Kind::Max => false,
    }
}

impl crdts::CvRDT for State {
    type Validation = Infallible;

    fn validate_merge(&self, _: &Self) -> Result<(), Infallible> {
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.join(other);
    }
}
