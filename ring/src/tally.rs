//! Counting answers: won, lost, or still open.
//!
//! A request is won when enough owners have answered, and lost as soon as those who are still
//! silent can no longer make up the number. While a partition moves there are two owner sets, old
//! and new, and a request must win its quorum in **both**; it is lost as soon as either has become
//! impossible.
//!
//! ```text
//!   old  n1 n2 n3        needed 2:  n1, n3 answered   pending: one of two in new
//!   new  n1 n2 n4                   n4 too            won
//! ```
//!
//! Counting a joining node as an ordinary ack instead loses acknowledged writes.

use std::collections::BTreeMap;

use crate::{NodeId, Owners};

/// The votes of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    sets: Vec<Vec<NodeId>>,
    standing: BTreeMap<NodeId, Standing>,
    needed: u8,
    durable: u8,
}

impl Tally {
    /// Starts with everybody silent. `needed` acks win, if `durable` of them are fsynced.
    #[must_use]
    pub fn new(owners: Owners<'_>, needed: u8, durable: u8) -> Tally {
        let sets = match owners {
            Owners::One(set) => vec![set.to_vec()],
            Owners::Joint { old, new } => vec![old.to_vec(), new.to_vec()],
        };
        Tally { sets, standing: BTreeMap::new(), needed, durable }
    }

    /// Counts a vote and tells how the request stands now.
    ///
    /// A node counts once. It may go from written to durable; if it refuses after it has written,
    /// the ack stands and its fsync is given up. Everything else it says later, and all votes of
    /// nodes outside the sets, change nothing: won stays won and lost stays lost.
    pub fn add(&mut self, node: NodeId, vote: Vote) -> Outcome {
        if self.sets.iter().any(|set| set.contains(&node)) {
            let standing = match (self.standing(node), vote) {
                (Standing::Silent | Standing::Written, Vote::Durable) => Standing::Durable,
                (Standing::Silent | Standing::Written, Vote::Written) => Standing::Written,
                (Standing::Silent, Vote::Refused) => Standing::Refused,
                (Standing::Written, Vote::Refused) => Standing::WrittenOnly,
                (
                    last @ (Standing::Durable | Standing::WrittenOnly | Standing::Refused),
                    Vote::Written | Vote::Durable | Vote::Refused,
                ) => last,
            };
            self.standing.insert(node, standing);
        }
        self.outcome()
    }

    /// How the request stands: won in every set, lost in any, or open.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let mut all_won = true;
        for set in &self.sets {
            match self.outcome_in(set) {
                Outcome::Lost => return Outcome::Lost,
                Outcome::Pending => all_won = false,
                Outcome::Won => {}
            }
        }
        if all_won { Outcome::Won } else { Outcome::Pending }
    }

    /// Whether another vote can still decide.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.outcome() == Outcome::Pending
    }

    /// How many distinct nodes have acked, durably or not.
    #[must_use]
    pub fn acks(&self) -> u8 {
        count(self.standing.values(), |standing| standing.acked())
    }

    /// How many distinct nodes have acked durably.
    #[must_use]
    pub fn durable_acks(&self) -> u8 {
        count(self.standing.values(), |standing| standing == Standing::Durable)
    }

    /// How many acks each set needs.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.needed
    }

    fn outcome_in(&self, set: &[NodeId]) -> Outcome {
        let standings: Vec<Standing> = set.iter().map(|node| self.standing(*node)).collect();
        let acks = count(&standings, Standing::acked);
        let durable = count(&standings, |standing| standing == Standing::Durable);
        let acks_possible = count(&standings, |standing| standing != Standing::Refused);
        let durable_possible = count(&standings, Standing::may_be_durable);
        if acks >= self.needed && durable >= self.durable {
            Outcome::Won
        } else if acks_possible < self.needed || durable_possible < self.durable {
            Outcome::Lost
        } else {
            Outcome::Pending
        }
    }

    fn standing(&self, node: NodeId) -> Standing {
        self.standing.get(&node).copied().unwrap_or(Standing::Silent)
    }
}

/// What an owner says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vote {
    /// The write is applied and not yet fsynced.
    Written,
    /// The write is on stable storage. Also what a read's answer counts as.
    Durable,
    /// Nothing will come of this owner, or nothing more.
    Refused,
}

/// How a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Enough acks.
    Won,
    /// Enough has become impossible.
    Lost,
    /// It depends on who is still silent.
    Pending,
}

/// How far one owner has come: `Silent → Written → Durable`, with refusal at either step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Silent,
    Written,
    Durable,
    /// Written, and its fsync has failed or will not be told.
    WrittenOnly,
    Refused,
}

impl Standing {
    fn acked(self) -> bool {
        match self {
            Standing::Written | Standing::Durable | Standing::WrittenOnly => true,
            Standing::Silent | Standing::Refused => false,
        }
    }

    fn may_be_durable(self) -> bool {
        match self {
            Standing::Silent | Standing::Written | Standing::Durable => true,
            Standing::WrittenOnly | Standing::Refused => false,
        }
    }
}

fn count<'a>(
    standings: impl IntoIterator<Item = &'a Standing>,
    matches: impl Fn(Standing) -> bool,
) -> u8 {
    let count = standings.into_iter().filter(|standing| matches(**standing)).count();
    u8::try_from(count).unwrap_or(u8::MAX) // two sets of at most 16 owners stay far below
}
