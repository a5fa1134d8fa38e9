//! Real nodes on this machine: started, watched, paused, killed.
//!
//! A [`Testnet`] is a folder and as many processes as it has nodes, all on 127.0.0.1, with certificates of its own.
//! Nothing here stays behind to watch them: every command finds the processes again by what was written down, and
//! touches none that is not certainly the one it knows.
//!
//! Read [`up`](up()) first; it calls everything else in the order of time. [`asked`] is what a user can choose and is
//! written down for good, [`ports`] where the nodes listen, `papers` what they need in writing, [`start`] and [`stop`]
//! their processes; [`select`] is which nodes a command means. [`grow`] adds and retires nodes of a testnet that runs. [`process`] is why a stale pid is never killed. [`home`] turns names into folders and is what
//! the other commands ask for the profile of a cluster, [`export`] the way out to real hosts. Progress is told as [`Event`]s; whoever calls prints.
//!
//! [`torture`] breaks whatever a seed says, and mends it.
//!
//! [`Settling`] is the odd one out: it asks the nodes of any cluster what they hold when a load is over, for the judges of its
//! history. [`story`] is what a timeline of commands says that will come of them, and whether it did; the program tells it.
//!
//! [`faults`] breaks what nodes let be broken, by telling them. What is absent: nothing here reads or writes data of nodes
//! behind their backs.

use atoll_papers::files;

pub mod asked;
pub mod certificates;
mod claim;
mod down;
mod event;
pub mod export;
pub mod faults;
mod greet;
pub mod grow;
pub mod grown;
mod health;
pub mod home;
pub mod logs;
pub mod node;
mod papers;
mod poll;
pub mod ports;
mod probe;
pub mod process;
pub mod select;
mod settle;
pub mod start;
pub mod status;
pub mod stop;
pub mod story;
mod testnet;
pub mod torture;
mod up;

pub use asked::{Asked, AskedError, NODES_MAX, Wish};
pub use atoll_papers::FileError;
pub use claim::ClaimError;
pub use down::down;
pub use event::{Event, Hear};
pub use faults::{FaultError, LinkWish};
pub use greet::Greeting;
pub use grow::AddError;
pub use grown::{Added, Grown};
pub use health::{Flaw, Hearing, Net};
pub use home::{Home, HomeError};
pub use node::{Condition, Node};
pub use papers::PapersError;
pub use ports::NoPorts;
pub use probe::{Probe, ProbeError};
pub use select::{Chance, SelectError, Selection, Selector, Selectors};
pub use settle::{SettleError, Settled, Settling};
pub use start::{Launcher, StartError};
pub use status::{ANSWER_LIMIT, Look, Lookout, NodeReport, State, look, status};
pub use testnet::{Lock, OpenError, Testnet};
pub use up::{Up, UpError, up};
