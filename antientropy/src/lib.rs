//! How replicas of a key become one. Pure: no clock, no chance, no files, no network.
//!
//! Every replica of a key holds its own copy, and copies drift: messages are late, doubled,
//! reordered or lost, nodes crash and come back with less than they had. This crate says what a
//! copy *is* and how two copies are joined, so that no acknowledged write ever disappears on the
//! way.
//!
//! ```text
//!   dot.rs       Event      one change: who made it, and what is claimed along with it
//!   context.rs   Context    exactly which events are known: per actor disjoint intervals (lo, hi]
//!   store.rs     DotStore   what is alive, under which dot: flag, register, set, map
//!   causal.rs    Causal<S>  (store, context), and the one join for all of them
//!   register.rs  Register   dot -> value, with siblings and deletes: what users have today
//!   merkle.rs    Tree       which keys of two replicas differ
//! ```
//!
//! Read in that order. Three small things guard the promise from below: [`Standing`] (note.rs)
//! knows how much a coordinator may claim, [`Lease`] (lease.rs) never gives a counter twice, and
//! [`ContextToken`] (seal.rs) keeps the context of one key from being used on another. `codec.rs`
//! turns all of it into bytes: equal states, equal bytes.
//!
//! The life of two concurrent writes:
//!
//! ```
//! use atoll_antientropy::{Actor, Context, Event, Register};
//! use bytes::Bytes;
//!
//! let (here, there) = (Actor::new(1, 0), Actor::new(2, 0));
//! let nothing = Context::new();
//!
//! // Two clients that saw nothing write through two nodes. Each node sends the other its delta.
//! let tea = Register::put(&nothing, Event::alone(here, 1), Bytes::from("tea"));
//! let milk = Register::put(&nothing, Event::alone(there, 1), Bytes::from("milk"));
//! let mut record = Register::default();
//! record.join(milk);
//! record.join(tea);
//! assert_eq!(record.siblings(), 2);
//!
//! // A client reads both and writes what it made of them. Only what it saw is replaced.
//! let both = Register::put(record.context(), Event::alone(here, 2), Bytes::from("milk tea"));
//! record.join(both);
//! assert_eq!(record.values().map(|(_, value)| value).collect::<Vec<_>>(), ["milk tea"]);
//! ```

#![deny(missing_docs)]

mod causal;
mod codec;
mod context;
mod dot;
mod lease;
pub mod merkle;
mod note;
mod register;
mod seal;
mod store;

pub use causal::{Causal, Digest};
pub use codec::{DecodeError, Reader, write_bytes, write_varint};
pub use context::{Context, Interval};
pub use dot::{Actor, Dot, Event};
pub use lease::Lease;
pub use note::{Note, Standing};
pub use register::Register;
pub use seal::{ContextToken, INTERVALS_MAX, Secret, TokenError};
pub use store::{DotFun, DotMap, DotSet, DotStore, Item};
