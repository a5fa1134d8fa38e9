//! Repair that nobody asked for: what a node does by itself so that all owners of a key hold the same.

pub(crate) mod quarantine;
pub(crate) mod scrub;
