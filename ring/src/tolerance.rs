//! What the settings of a request stand for, and how many nodes may fail: known before anything is sent.
//!
//! [`Consistency`] says whether a read sees every write that was acknowledged before it, and why. [`Tolerance`] says how
//! many nodes may fail for a read, for a write, and without loss of an acknowledged write. All numbers are those of the
//! worst case: *whichever* so many nodes fail. While a partition moves, what holds must hold in both of its owner sets.
//!
//! ```text
//!   N = 3, five nodes            reads         writes              an acknowledged write survives
//!   r = w = 2, strict            1 may fail    1 may fail          1 node lost for good
//!   r = w = 2, sloppy            1 may fail    3 may fail          1 node lost for good
//!   r = 1, w = 3, strict         2 may fail    none may fail       2 nodes lost for good
//! ```
//!
//! A sloppy write finds fallbacks for owners that are away. A sloppy read asks fallbacks too, but those know of a key only
//! what was written while an owner was away; so nothing more is certain of it than of a strict one.

use std::fmt;

use crate::{NodeId, Owners, Quorum};

/// Whether a read sees every write that was acknowledged before it began, or what took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// It does: what answers the one and what acknowledges the other have an owner in common.
    Strict {
        /// Owners that answer a read, at least.
        r: u8,
        /// Owners that acknowledge a write, at least.
        w: u8,
        /// Owners that can take part.
        n: u8,
        /// Whether that also holds if all nodes lose power at once after the acknowledgement.
        without_power: bool,
    },
    /// It may miss one for a while.
    Eventual(Because),
}

/// Why nothing better than *eventual* is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Because {
    /// Even if only owners answered, they need not have one in common.
    TooFew {
        /// Answers that a read waits for.
        r: u8,
        /// Acknowledgements that a write waits for.
        w: u8,
        /// Owners that can take part.
        n: u8,
    },
    /// Enough answer, but fallbacks may be among them.
    FallbacksCount {
        /// Owners among those that answer a read, at least: pr.
        pr: u8,
        /// Owners among those that acknowledge a write, at least: pw.
        pw: u8,
        /// Owners that can take part.
        n: u8,
    },
}

impl Consistency {
    /// Of reads with these settings after writes with those. If they chose a different n the larger one counts.
    #[must_use]
    pub fn of(read: &Quorum, write: &Quorum) -> Consistency {
        let n = read.n().max(write.n());
        let (r, w) = (read.r(), write.w());
        let (pr, pw) = (read.pr(), write.pw());
        // of the acknowledgements of owners, those that are fsynced: the others may all be among those that are not
        let fsynced = (pw + write.dw()).saturating_sub(w);
        if pr + pw > n {
            Consistency::Strict { r: pr, w: pw, n, without_power: pr + fsynced > n }
        } else if r + w > n {
            Consistency::Eventual(Because::FallbacksCount { pr, pw, n })
        } else {
            Consistency::Eventual(Because::TooFew { r, w, n })
        }
    }

    /// The word for people and JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Consistency::Strict { .. } => "strict",
            Consistency::Eventual(_) => "eventual",
        }
    }
}

/// Why, in one sentence without a full stop.
impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Consistency::Strict { r, w, n, without_power } => {
                write!(
                    f,
                    "{r} + {w} > {n}: of {n} owners, any {r} that answer a read and any {w} that acknowledged a write have one \
                     in common"
                )?;
                match without_power {
                    true => Ok(()),
                    false => f.write_str(
                        "; not after a power failure everywhere, which takes what is not fsynced yet (--dw)",
                    ),
                }
            }
            Consistency::Eventual(Because::TooFew { r, w, n }) => write!(
                f,
                "r + w = {r} + {w} is not above n = {n}: a read may ask owners that the write has not reached yet"
            ),
            Consistency::Eventual(Because::FallbacksCount { pr, pw, n }) => write!(
                f,
                "fallbacks may stand in for owners, and pr + pw = {pr} + {pw} is not above n = {n}: if owners are out of reach, \
                 a read may miss a write until its hint is delivered (--strict counts owners only)"
            ),
        }
    }
}

/// How many nodes may fail, whichever they are. None = it cannot be met even now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tolerance {
    /// Nodes that may be out of reach, and a read of any key is answered all the same.
    pub read: Option<u8>,
    /// Nodes that may be out of reach, and a write is acknowledged all the same.
    pub write: Option<u8>,
    /// What an acknowledged write survives.
    pub loss: Loss,
}

/// How many nodes may be lost for good, disks and all, without the loss of a write that was just acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Loss {
    /// If the others go on running.
    pub running: u8,
    /// If all nodes lose power at the same moment. None = that alone loses the write: nobody has said that it is fsynced.
    pub without_power: Option<u8>,
}

impl Tolerance {
    /// Of a key with these owners, of whom (and of whose fallbacks) some are out of reach already. `fallbacks` counts those
    /// that can be reached.
    #[must_use]
    pub fn of(
        owners: Owners<'_>,
        quorum: &Quorum,
        fallbacks: usize,
        is_down: impl Fn(NodeId) -> bool,
    ) -> Tolerance {
        let owners = owners.first(quorum.n());
        let all = owners.all();
        let fallbacks = if quorum.sloppy() { fallbacks } else { 0 };
        let mut read = Some(u8::MAX);
        let mut write = Some(u8::MAX);
        for set in sets(owners) {
            let here = set.iter().filter(|owner| !is_down(**owner)).count();
            // those that are away from the other set only may get the fallbacks first
            let elsewhere = all.iter().filter(|owner| is_down(**owner) && !set.contains(owner));
            let left = fallbacks.saturating_sub(elsewhere.count());
            let seats = (here + left).min(set.len());
            read = read.min(beyond(here, quorum.r()));
            let acks = match seats >= usize::from(quorum.w()) {
                true => beyond(here + left, quorum.w()),
                false => None,
            };
            write = write.min(acks);
            if quorum.pw() > 0 {
                write = write.min(beyond(here, quorum.pw()));
            }
        }
        Tolerance { read, write, loss: Loss::of(owners, quorum) }
    }
}

impl Loss {
    fn of(owners: Owners<'_>, quorum: &Quorum) -> Loss {
        let others = |needed: u8| holders(owners, needed).saturating_sub(1);
        Loss {
            running: others(quorum.w()),
            without_power: (quorum.dw() > 0).then(|| others(quorum.dw())),
        }
    }
}

/// The fewest nodes that fill so many seats in each set.
fn holders(owners: Owners<'_>, needed: u8) -> u8 {
    match owners {
        Owners::One(_) => needed,
        Owners::Joint { old, new } => {
            let stay = old.iter().filter(|owner| new.contains(owner)).count();
            let stay = u8::try_from(stay).unwrap_or(u8::MAX);
            needed + needed.saturating_sub(stay)
        }
    }
}

/// How many of these can be missed; none if they are too few already.
fn beyond(there: usize, needed: u8) -> Option<u8> {
    let more = there.checked_sub(usize::from(needed))?;
    Some(u8::try_from(more).unwrap_or(u8::MAX))
}

/// When so many owners of each set have answered, if each answers after the time given for it: the `needed`-th smallest of a
/// set, and the later one of two sets. None if it is known of too few.
#[must_use]
pub fn when_enough<T: Ord + Copy>(
    owners: Owners<'_>,
    needed: u8,
    time_of: impl Fn(NodeId) -> Option<T>,
) -> Option<T> {
    let nth = |set: &[NodeId]| {
        let mut times: Vec<T> = set.iter().filter_map(|owner| time_of(*owner)).collect();
        times.sort_unstable();
        times.get(usize::from(needed).checked_sub(1)?).copied()
    };
    match owners {
        Owners::One(set) => nth(set),
        Owners::Joint { old, new } => Some(nth(old)?.max(nth(new)?)),
    }
}

fn sets(owners: Owners<'_>) -> Vec<&[NodeId]> {
    match owners {
        Owners::One(set) => vec![set],
        Owners::Joint { old, new } => vec![old, new],
    }
}
