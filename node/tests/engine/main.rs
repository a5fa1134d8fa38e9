//! Damage to a real disk, under the real engine: what comes of it.
//!
//! [`image`] makes a store as a power loss leaves it, damages copies of it and opens them; [`journal`] damages the engine's
//! journal at every field of its frames and cuts it everywhere; [`tables`] flips bits in what has left the journal. The rule
//! is the same each time: either nothing acknowledged is missing, or somebody notices: the engine, which does not open; our
//! commit number, which is behind the mark; or the checksum of a record. Each test prints what led to what.
//!
//! ```text
//! cargo test -p atoll-node --test engine -- --nocapture
//! ```

mod image;
mod journal;
mod tables;
