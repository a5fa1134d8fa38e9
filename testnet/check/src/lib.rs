//! Histories of what clients asked and heard, and the judges that read them.
//!
//! A history ([`history`]) is recorded by whoever drives a cluster: the simulator, or the load generator against real
//! processes. The judges see nothing else. They take no clock's word: what a client had seen is known from which answer it
//! took its context from.

#![deny(missing_docs)]

pub mod history;

pub use history::{Dot, Effect, Event, Held, Levels, Op, Reply, Value, What};
