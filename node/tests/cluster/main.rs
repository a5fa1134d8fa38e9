//! Whole clusters in one thread: real nodes over a network and disks in memory, on virtual time.
//!
//! `cluster` builds them and speaks to them as a client does; the other modules ask, one subject each, what a user could
//! notice (random histories are the business of `testnet/sim`). Disks lose what was not synced when their node crashes, so "acknowledged"
//! means what it says.

mod blocking;
mod bucket;
mod buckets;
mod cluster;
mod coordinators;
mod doubt;
mod dump;
mod durability;
mod exchange;
mod expiry;
mod explain;
mod failing_disk;
mod failures;
mod fencing;
mod full_disk;
mod hedge;
mod hints;
mod kinds;
mod list;
mod many;
mod moves;
mod pace;
mod quarantine;
mod quorums;
mod repair;
mod replans;
mod retire;
mod rising;
mod scrub;
mod sessions;
mod siblings;
mod sloppy;
mod tombstones;
mod trace;
