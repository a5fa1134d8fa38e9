//! Real processes, real sockets, real disks: the program as a user has it.
//!
//! Each test has a testnet of its own in a temporary home. They are few and slow (seconds); what can be asked on virtual
//! time is asked in `node/tests/cluster`.

mod buckets;
mod cluster;
mod damage;
mod dump;
mod explain;
mod export;
mod failing_disk;
mod faults;
mod files;
mod growth;
mod growth_under_kills;
mod judged;
mod kills;
mod kinds;
mod links;
mod lost;
mod node_faults;
mod outage;
mod refusals;
mod repair;
mod selectors;
mod start;
mod stories;
mod testnet;
mod torture;
mod watch;
