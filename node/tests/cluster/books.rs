//! The books of a history: what is known of every write of one key, and so what must and must not be seen.
//!
//! The books know which values each writer had been shown when its context was made. That alone decides:
//! - a value may be missing in the end only if a write that was begun had been shown it;
//! - it must be missing if a write that is certain to exist had been shown it;
//! - a write that was called `not applied` is never seen by anybody.
//!
//! Certain are writes that were acknowledged, and those that failed with `applied on k`, k > 0: disks here forget only
//! what was not synced. Reads that promise it (owners' answers alone, w + r > n; or after a blocking read) are held to
//! seeing what was there before them.

use std::collections::BTreeSet;

use atoll_wire::{Outcome, Receipt};
use bytes::Bytes;

use crate::cluster::With;

/// A context, and the writes whose values its client has been shown.
#[derive(Clone, Default)]
pub struct Told {
    pub context: Bytes,
    pub shown: BTreeSet<u32>,
}

/// What is known of one key.
#[derive(Default)]
pub struct Books {
    pub writes: Vec<Entry>,
    pub dots: BTreeSet<(u32, u32, u64)>,
    /// Shown by any read.
    pub seen: BTreeSet<u32>,
    /// Shown by blocking reads of two of three owners.
    pub sure: BTreeSet<u32>,
}

/// One write; its number is its place in the books.
pub struct Entry {
    pub shown: BTreeSet<u32>,
    pub is_delete: bool,
    pub fate: Fate,
    /// How many owners were certain to have it fsynced when it was acknowledged, and of how many.
    pub owners: u8,
    pub n: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Certain,
    /// It may exist.
    Unknown,
    /// It was called `not applied`.
    Never,
}

impl Books {
    /// Enters a write before it is sent, and gives it a number, which is its value too.
    pub fn begin(&mut self, told: &Told, is_delete: bool) -> u32 {
        let shown = told.shown.clone();
        self.writes.push(Entry { shown, is_delete, fate: Fate::Unknown, owners: 0, n: 0 });
        self.writes.len() as u32 - 1
    }

    /// What a read which begins now has to see.
    pub fn demanded(&self, with: &With) -> Demand {
        let n = with.n.expect("always said");
        let r = if with.sloppy { with.pr.unwrap_or(0) } else { with.r.unwrap_or(0) };
        let mut demand = Demand::default();
        for (write, number) in self.writes.iter().zip(0..) {
            if write.owners > 0 && write.owners + r > n.max(write.n) {
                demand.gone.extend(&write.shown);
                demand.there.extend(Some(number).filter(|_| !write.is_delete));
            }
        }
        if n == 3 && r >= 2 {
            demand.there.extend(&self.sure);
        }
        demand
    }

    /// Whether a write that may exist has been shown this one.
    pub fn may_be_replaced(&self, number: u32) -> bool {
        self.writes.iter().any(|write| write.fate != Fate::Never && write.shown.contains(&number))
    }

    /// Whether a write that is certain to exist has been shown this one.
    fn is_replaced(&self, number: u32) -> bool {
        self.writes.iter().any(|write| write.fate == Fate::Certain && write.shown.contains(&number))
    }

    /// Whether these are the values that may be left when everything has healed.
    pub fn in_the_end(&self, found: &BTreeSet<u32>) -> Result<(), String> {
        for (write, number) in self.writes.iter().zip(0..) {
            let is_there = found.contains(&number);
            if is_there && self.is_replaced(number) {
                return Err(format!("{number} has come back"));
            }
            let must_be = write.fate == Fate::Certain && !write.is_delete;
            if !is_there && must_be && !self.may_be_replaced(number) {
                return Err(format!("{number} is lost"));
            }
        }
        Ok(())
    }
}

/// What a read has to see, by what had been acknowledged when it began.
#[derive(Default)]
pub struct Demand {
    /// These values, unless they have been replaced.
    pub there: BTreeSet<u32>,
    /// That these are gone.
    pub gone: BTreeSet<u32>,
}

/// What is wrong with the receipt of an acknowledged write whose acknowledgements all had to be fsynced.
pub fn untrue(receipt: &Receipt) -> Option<&'static str> {
    let durable = receipt.replicas.iter().filter(|line| line.outcome == Outcome::Durable);
    let seats: BTreeSet<u32> =
        durable.clone().map(|line| line.stands_in_for.unwrap_or(line.node)).collect();
    let owners = durable.filter(|line| line.stands_in_for.is_none()).count();
    let nodes: BTreeSet<u32> = receipt.replicas.iter().map(|line| line.node).collect();
    if seats.len() < usize::from(receipt.needed) {
        Some("shows too few seats")
    } else if owners < usize::from(receipt.owners_needed) {
        Some("shows too few owners")
    } else if nodes.len() < receipt.replicas.len() {
        Some("names a node twice")
    } else if receipt.hinted.iter().any(|owner| receipt.unhinted.contains(owner)) {
        Some("calls an owner hinted and unhinted")
    } else {
        None
    }
}
