//! How replicas of a key become one. Pure: no clock, no chance, no files, no network.
//!
//! Every replica of a key holds its own copy, and copies drift: messages are late, doubled,
//! reordered or lost, nodes crash and come back with less than they had. This crate says what a
//! copy *is* and how two copies are joined, so that no acknowledged write ever disappears on the
//! way.
//!
//! ```text
//!   dot.rs         Event      one change: who made it, and what is claimed along with it
//!   context.rs     Context    exactly which events are known: per actor disjoint intervals (lo, hi]
//!   kind.rs        Kind       register, lww, counter, set, flag, max, map
//!   operation.rs   Operation  what a client wants done
//!   state.rs       State      (content, context) of any kind, and the one join for all of them
//!   change.rs                 what an operation makes of a state: a delta, which is a state
//!   reading.rs     Reading    what a reader is shown
//!   store.rs                  the content: one of the kinds; dots.rs, cell.rs, counter.rs: its parts
//!   merkle.rs      Tree       which keys of two replicas differ
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
//! use atoll_antientropy::{Actor, Event, Hybrid, Kind, Operation, Reading, Stamp, State};
//! use bytes::Bytes;
//!
//! let (here, there) = (Actor::new(1, 0), Actor::new(2, 0));
//! let put = |value| Operation::Put { value: Bytes::from_static(value), expires_ms: None };
//! let stamp = |actor, counter| Stamp {
//!     event: Event::alone(actor, counter),
//!     at: Hybrid::of(5_000, 0),
//!     wall_ms: 5_000,
//!     operation: 0,
//! };
//! let nothing = State::unknown(Kind::Register);
//!
//! // Two clients that saw nothing write through two nodes. Each node sends the other its delta.
//! let tea = nothing.change(&put(b"tea"), None, &stamp(here, 1))?;
//! let milk = nothing.change(&put(b"milk"), None, &stamp(there, 1))?;
//! let mut record = State::unknown(Kind::Register);
//! record.join(milk);
//! record.join(tea);
//! assert_eq!(record.siblings(), 2);
//!
//! // A client reads both and writes what it made of them. Only what it saw is replaced.
//! let seen = record.context().clone();
//! record.join(record.change(&put(b"milk tea"), Some(&seen), &stamp(here, 2))?);
//! let Reading::Register(siblings) = record.read(5_000) else { unreachable!() };
//! assert_eq!(siblings.iter().map(|own| &own.value[..]).collect::<Vec<_>>(), [b"milk tea"]);
//! # Ok::<(), atoll_antientropy::Refused>(())
//! ```

#![deny(missing_docs)]

mod cell;
mod change;
mod codec;
mod context;
mod counter;
mod digest;
mod dot;
mod dots;
mod hybrid;
mod kind;
mod lease;
mod limits;
pub mod merkle;
mod note;
mod operation;
mod reading;
mod refused;
mod seal;
mod state;
mod store;

pub use change::Stamp;
pub use codec::{DecodeError, Reader, write_bytes, write_varint};
pub use context::{Context, Interval};
pub use digest::Digest;
pub use dot::{Actor, Dot, Event};
pub use hybrid::Hybrid;
pub use kind::{Kind, UnknownKind};
pub use lease::Lease;
pub use limits::{DEPTH_MAX, ELEMENTS_MAX, FIELDS_MAX, NAME_BYTES_MAX, SESSIONS_MAX};
pub use note::{Note, Standing};
pub use operation::{Field, FieldChange, Increment, Operation};
pub use reading::{Reading, Sibling};
pub use refused::Refused;
pub use seal::{ContextToken, INTERVALS_MAX, Secret, TokenError};
pub use state::State;
