//! The register: what users store under a key today.
//!
//! Values that were written without having seen each other stand side by side as siblings; a write
//! replaces exactly what its writer had seen. A coordinator does not need the record to make a
//! change: the change is a *delta*, made from the writer's context and a fresh event, and joining
//! it into a record does the rest.

use bytes::Bytes;

use crate::{Causal, Context, Dot, DotFun, Event};

/// Dot -> value, with the context of all that is known of the key.
pub type Register = Causal<DotFun<Bytes>>;

impl Register {
    /// The delta of a write by someone who had seen `seen`. Its context is what the writer knows
    /// afterwards, and so what the reply may say: what it knew before, and its own event.
    ///
    /// Panics if `seen` contains the event, see [`Causal::delta`].
    pub fn put(seen: &Context, event: Event, value: Bytes) -> Register {
        Causal::delta(seen, event, DotFun::one(event.dot(), value))
    }

    /// The delta of a delete by someone who had seen `seen`: all of that is gone, and nothing else.
    /// Panics as [`put`](Register::put) does.
    pub fn delete(seen: &Context, event: Event) -> Register {
        Causal::delta(seen, event, DotFun::default())
    }

    /// The values that stand side by side, in order of their dots.
    pub fn values(&self) -> impl Iterator<Item = (Dot, &Bytes)> {
        self.store().iter().map(|(dot, value)| (dot.clone(), value))
    }

    /// How many values stand side by side. None for a tombstone.
    pub fn siblings(&self) -> usize {
        self.store().len()
    }
}
