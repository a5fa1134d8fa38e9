//! The register as it was before there were kinds: dot -> bytes under a context.
//!
//! On its way out: nodes still keep and send it until they keep [`State`](crate::State). The rule
//! of its join and its laws are those of a state of kind register.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader};
use crate::dots::{Content, DotFun};
use crate::{Context, Digest, Dot, Event};

/// Dot -> value, with the context of all that is known of the key. Every living dot is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    store: DotFun<Bytes>,
    context: Context,
}

/// The first byte.
const FORMAT: u8 = 1;

impl Register {
    /// The delta of a write by someone who had seen `seen`. Its context is what the writer knows
    /// afterwards, and so what the reply may say: what it knew before, and its own event.
    ///
    /// Panics if `seen` contains the event: then a counter was given twice, and a replica that
    /// remembers its first use would drop the new value without a word.
    pub fn put(seen: &Context, event: Event, value: Bytes) -> Register {
        Register::delta(seen, event, DotFun::one(event.dot(), value))
    }

    /// The delta of a delete by someone who had seen `seen`: all of that is gone, and nothing else.
    /// Panics as [`put`](Register::put) does.
    pub fn delete(seen: &Context, event: Event) -> Register {
        Register::delta(seen, event, DotFun::default())
    }

    fn delta(seen: &Context, event: Event, store: DotFun<Bytes>) -> Register {
        let dot = event.dot();
        assert!(!seen.contains(&dot), "the counter of {dot} was given twice");
        let mut context = seen.clone();
        context.add(&event);
        Register { store, context }
    }

    /// Makes this copy know and hold what both did. Commutative, associative, idempotent.
    pub fn join(&mut self, other: Register) {
        // no places, so nobody asks what is known together
        self.store.join(&self.context, other.store, &other.context, &Context::new());
        self.context.join(&other.context);
    }

    /// Whether joining `other` would change nothing here.
    pub fn covers(&self, other: &Register) -> bool {
        self.context.covers(&other.context)
            && self.store.absorbs(&self.context, &other.store, &other.context)
    }

    /// The values that stand side by side, in order of their dots.
    pub fn values(&self) -> impl Iterator<Item = (Dot, &Bytes)> {
        self.store.iter().map(|(dot, value)| (dot.clone(), value))
    }

    /// How many values stand side by side. None for a tombstone.
    pub fn siblings(&self) -> usize {
        self.store.len()
    }

    /// What is known.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether nothing was ever heard of this key.
    pub fn is_unknown(&self) -> bool {
        self.store.is_empty() && self.context.is_empty()
    }

    /// Whether everything that was ever heard of is gone.
    pub fn is_tombstone(&self) -> bool {
        self.store.is_empty() && !self.context.is_empty()
    }

    /// The canonical bytes: `1 | context | store`. Equal registers, equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        self.context.encode_into(&mut out);
        self.store.encode(&mut out);
        out
    }

    /// Reads the canonical bytes and refuses all others. Values are slices of `input`.
    pub fn decode(input: &Bytes) -> Result<Register, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let found = reader.byte()?;
        if found != FORMAT {
            return Err(DecodeError::Kind { expected: FORMAT, found });
        }
        let context = Context::decode_from(&mut reader)?;
        let store = DotFun::<Bytes>::decode(&mut reader)?;
        reader.finish()?;
        if !store.is_sound(&context) {
            return Err(DecodeError::Uncovered);
        }
        Ok(Register { store, context })
    }

    /// A fingerprint over context and dots, never over values.
    pub fn digest(&self) -> Digest {
        let mut metadata = vec![FORMAT];
        self.context.encode_into(&mut metadata);
        self.store.encode_digest(&mut metadata);
        Digest::of(&metadata)
    }
}
