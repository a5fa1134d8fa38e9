//! Everything that can go wrong with the nodes of a testnet, drawn from a seed and carried out on real processes.
//!
//! [`Plan`] says what happens to whom, when, and for how long: a pure function of the seed. `lists` says what that means for the
//! faults that nodes are told of. [`Hands`] do it, tell each deed, and
//! in the end undo all of it. What was acknowledged meanwhile, and whether it is still there, is for others to say: this knows
//! of no load and of no judge.
//!
//! **What is never done.** The promises bear the loss of one disk at a time, whatever else fails with it. So a disk is taken away
//! only from a cluster that is well: all nodes up, nothing in doubt, no hint waiting, and every partition compared since the last
//! time that something was broken (`well`). If that does not come about in time the step is left out, and that is said.
//! Everything else may happen at any time and to any number of nodes: it costs answers, and no data.

mod hands;
mod harm;
mod lists;
mod plan;
mod well;

pub use hands::{Ended, Hands, Said, TortureError};
pub use harm::{Harm, HarmKind, Means};
pub use plan::{Plan, Step};
