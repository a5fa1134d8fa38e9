//! What a node that is behind fetches: the entries it missed, or the whole view.
//!
//! Views are totally ordered and never change, so any peer that is ahead may serve them. A node one
//! epoch behind needs a few hundred bytes; one that was away for long gets the view itself.

use serde::{Deserialize, Serialize};

use crate::{Command, Entry, Epoch, Rejected, View, bounded};

/// The way from an older view to a newer one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// Far behind: all of it.
    View(Box<View>),
    /// A little behind: what was missed, oldest first. Empty for one that is not behind.
    Entries(#[serde(deserialize_with = "bounded::list::<_, _, ENTRIES_MAX>")] Vec<Entry>),
}

/// Most entries in one update. More would seldom be smaller than a view, and a node applies them
/// one after the other.
const ENTRIES_MAX: usize = 64;

/// How much smaller than the view the entries must be. They cost the receiver more to follow.
const TIMES_SMALLER: usize = 4;

impl Update {
    /// What brings a node that has the view of epoch `have` up to this one. `log` knows recent
    /// entries by the epoch they make; where it has forgotten one, or many are missing, or they are
    /// large, the answer is the view.
    pub fn since(view: &View, log: impl Fn(Epoch) -> Option<Entry>, have: Epoch) -> Update {
        let missing = view.epoch().0.saturating_sub(have.0);
        let whole = || Update::View(Box::new(view.clone()));
        if missing > ENTRIES_MAX as u64 || have == Epoch(0) {
            return whole();
        }
        let entries: Option<Vec<Entry>> =
            (1..=missing).map(|step| log(Epoch(have.0 + step))).collect();
        let most = view.partitions().count() as usize / TIMES_SMALLER;
        match entries {
            Some(entries) if entries.iter().map(Entry::places).sum::<usize>() <= most.max(64) => {
                Update::Entries(entries)
            }
            Some(_) | None => whole(),
        }
    }
}

impl View {
    /// The view that the update leads to. What it says of this epoch and earlier ones is skipped, so
    /// the same update may come twice, and late.
    ///
    /// # Errors
    /// It does not fit: ask again, and say which epoch this view has.
    pub fn follow(&self, update: &Update) -> Result<View, FollowError> {
        match update {
            Update::View(view) if view.cluster() != self.cluster() => {
                Err(FollowError::OtherCluster)
            }
            Update::View(view) if view.epoch() > self.epoch() => Ok((**view).clone()),
            Update::View(_) => Ok(self.clone()),
            Update::Entries(entries) => {
                let mut view = self.clone();
                for entry in entries.iter().filter(|entry| entry.epoch > self.epoch()) {
                    if entry.epoch.0 != view.epoch().0 + 1 {
                        let (have, next) = (view.epoch(), entry.epoch);
                        return Err(FollowError::Gap { have, next });
                    }
                    let epoch = entry.epoch;
                    view.advance(entry)
                        .map_err(|rejected| FollowError::Diverged { epoch, rejected })?;
                }
                view.check().expect("commands leave a view as it must be");
                Ok(view)
            }
        }
    }
}

impl Entry {
    /// Partitions it names: what its size depends on.
    fn places(&self) -> usize {
        match &self.command {
            Command::Change { moves, .. } => moves.len(),
            Command::Begin { partitions } => partitions.len(),
            Command::Finish { partitions } => partitions.len(),
            Command::Invite { .. }
            | Command::Register { .. }
            | Command::Cancel
            | Command::Retire { .. }
            | Command::Incarnation { .. }
            | Command::Voters { .. }
            | Command::Recovered { .. } => 1,
        }
    }
}

/// An update that does not fit. The view stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// From somewhere else.
    #[error("an update of another cluster")]
    OtherCluster,
    /// Entries are missing: ask for those since `have`.
    #[error("at epoch {have}, and the next entry makes epoch {next}")]
    Gap {
        /// How far we came.
        have: Epoch,
        /// What comes next.
        next: Epoch,
    },
    /// The sender's log is not ours, or one of the two applied it wrong. Nothing mends this but the
    /// whole view.
    #[error("the entry for epoch {epoch} does not fit this view: {rejected}")]
    Diverged {
        /// What it makes.
        epoch: Epoch,
        /// Why not.
        rejected: Rejected,
    },
}
