//! A whole cluster in one thread: the real node over a simulated network and disks with a crash model, on virtual time, with
//! everything that can go wrong drawn from one seed.
//!
//! Begin with [`run`], the story of one seed. [`cluster`] holds the nodes and their machines, [`session`] the clients of registers
//! and [`kinds`] those of all other values, in the [`buckets`] they make. [`faults`] has the names of what can go wrong and
//! [`mischief`] does it; [`operator`] changes the ring meanwhile. [`atlas`] forbids what would destroy the last copy of
//! anything, so that every loss is a node's fault. [`many`] runs seeds side by side. [`recorder`] writes down what happened,
//! and the judges of `atoll-check` read it ([`judge`]). [`canaries`] shows that they would notice, and [`kv679`] is a model of
//! one key that needs no network.
//!
//! The same seed gives the same run, to the last message: one thread, a clock that stands still unless everybody waits, and
//! one source of chance, split where two sides must not disturb each other.

#![deny(missing_docs)]

pub mod atlas;
pub mod buckets;
pub mod canaries;
pub mod cluster;
pub mod faults;
pub mod figures;
pub mod judge;
pub mod kinds;
pub mod kv679;
pub mod many;
pub mod mischief;
pub mod operator;
pub mod recorder;
pub mod run;
pub mod session;
pub mod world;
