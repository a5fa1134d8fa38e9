//! The state of a key, and the one join that makes two copies into one.
//!
//! A state is a store of what is alive and a context of all that is known. A full record, a repair
//! between replicas and the delta of a single write are all states, so all of them are joined the
//! same way, in any order, any number of times. This is the causal delta-state CRDT of Almeida,
//! Shoker and Baquero ("Delta state replicated data types", 2018, on causal CRDTs):
//!
//! > (s, c) ⊔ (s', c') = ((s ∩ s') ∪ (s \ c') ∪ (s' \ c), c ∪ c')
//!
//! ```text
//!   store        context
//!   nothing      nothing        unknown: never heard of this key; joins without a trace
//!   nothing      something      tombstone: everything it knows of is gone, and it remembers what
//!   something    covers it      alive
//! ```

use std::convert::Infallible;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Reader};
use crate::{Context, DotStore, Event};

/// What one copy of a key holds: (what is alive, what is known). Every living dot is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causal<S> {
    store: S,
    context: Context,
}

impl<S: DotStore> Causal<S> {
    /// One change, as it is sent to replicas: `event` happened, it left `store` behind, and
    /// everything in `replaced` is gone. The change itself enters the context even if it left
    /// nothing alive; else a session could not see its own delete.
    ///
    /// Panics if `replaced` knows the event already: then a counter was given twice, and a replica
    /// that remembers its first use would drop the new value without a word. Or if the store holds
    /// another dot than the event's.
    pub fn delta(replaced: &Context, event: Event, store: S) -> Causal<S> {
        let dot = event.dot();
        assert!(!replaced.contains(&dot), "the counter of {dot} was given twice");
        store.dots(&mut |own| assert_eq!(*own, dot, "a change leaves its own dot and no other"));
        let mut context = replaced.clone();
        context.add(&event);
        Causal { store, context }
    }

    /// Makes this copy know and hold what both did: keeps each dot that both have, or that one has
    /// and the other's context does not know; unites the contexts. Commutative, associative,
    /// idempotent.
    pub fn join(&mut self, other: Causal<S>) {
        self.store.join(&self.context, other.store, &other.context);
        self.context.join(&other.context);
    }

    /// Whether joining `other` would change nothing here. Cheaper than joining and comparing:
    /// nothing is built.
    pub fn covers(&self, other: &Causal<S>) -> bool {
        // Where the contexts cover, every dot of the other is known here: nothing can be added,
        // only taken away.
        self.context.covers(&other.context) && self.store.survives(&other.store, &other.context)
    }

    /// What is alive.
    pub fn store(&self) -> &S {
        &self.store
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

    /// The canonical bytes: `kind (1 byte) | context | store`. Equal states, equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![S::KIND];
        self.context.encode_into(&mut out);
        self.store.encode(&mut out);
        out
    }

    /// Reads the canonical bytes and refuses all others. Values are slices of `input`, not copies,
    /// and keep it alive.
    pub fn decode(input: &Bytes) -> Result<Causal<S>, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let found = reader.byte()?;
        if found != S::KIND {
            return Err(DecodeError::Kind { expected: S::KIND, found });
        }
        let context = Context::decode_from(&mut reader)?;
        let store = S::decode(&mut reader)?;
        reader.finish()?;
        let mut covered = true;
        store.dots(&mut |dot| covered &= context.contains(dot));
        if !covered {
            return Err(DecodeError::Uncovered);
        }
        Ok(Causal { store, context })
    }

    /// A fingerprint for finding differences between replicas: over kind, context and dots, never
    /// over payload. Equal dots under equal contexts are equal states, because a dot names one
    /// change for ever; and a payload may be freed on one replica before the other without the two
    /// being different.
    pub fn digest(&self) -> Digest {
        let mut metadata = vec![S::KIND];
        self.context.encode_into(&mut metadata);
        self.store.encode_dots(&mut metadata);
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(&metadata).as_bytes()[..16]);
        Digest(digest)
    }
}

impl<S: DotStore> crdts::CvRDT for Causal<S> {
    type Validation = Infallible;

    fn validate_merge(&self, _: &Self) -> Result<(), Infallible> {
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.join(other);
    }
}

/// The first 16 bytes of the blake3 hash of a state's causal metadata. Replicas with equal digests
/// hold the same dots under the same context.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 16]);

/// As 32 hexadecimal digits.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
