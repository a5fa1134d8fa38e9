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
//!
//! In a sloppy request a fallback may stand in for an owner. It fills that owner's seat, and a seat
//! counts once, whoever has answered for it:
//!
//! ```text
//!   owners n1 n2 n3    needed 2:  n1 answered, n2 is down, n5 stands in for n2   won, unless pw = 2
//! ```

use std::collections::BTreeMap;

use crate::{NodeId, Owners, Quorum};

/// The votes of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    sets: Vec<Vec<NodeId>>,
    seats: BTreeMap<NodeId, Seat>,
    needs: Needs,
    sloppy: bool,
}

/// What a request waits for, in every owner set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Needs {
    /// Acks: r or w.
    pub acks: u8,
    /// Of those, owners' own: pr or pw.
    pub owners: u8,
    /// Acks that say the write is fsynced: dw; 0 for reads.
    pub durable: u8,
}

impl Quorum {
    /// What a read waits for.
    #[must_use]
    pub fn of_read(&self) -> Needs {
        Needs { acks: self.r(), owners: self.pr(), durable: 0 }
    }

    /// What a write waits for.
    #[must_use]
    pub fn of_write(&self) -> Needs {
        Needs { acks: self.w(), owners: self.pw(), durable: self.dw() }
    }
}

impl Tally {
    /// Starts with everybody silent. If `sloppy`, each owner's seat may be filled by a fallback.
    #[must_use]
    pub fn new(owners: Owners<'_>, needs: Needs, sloppy: bool) -> Tally {
        let sets = match owners {
            Owners::One(set) => vec![set.to_vec()],
            Owners::Joint { old, new } => vec![old.to_vec(), new.to_vec()],
        };
        Tally { sets, seats: BTreeMap::new(), needs, sloppy }
    }

    /// Counts an owner's vote and tells how the request stands now.
    ///
    /// A node counts once. It may go from written to durable; if it refuses after it has written,
    /// the ack stands and its fsync is given up. Everything else it says later, and all votes of
    /// nodes outside the sets, change nothing: won stays won and lost stays lost.
    pub fn add(&mut self, owner: NodeId, vote: Vote) -> Outcome {
        if let Some(seat) = self.seat_of(owner) {
            seat.owner = seat.owner.after(vote);
        }
        self.outcome()
    }

    /// Counts the vote of whoever stands in for this owner. A refusal means that nobody will any
    /// more.
    ///
    /// Nobody stands in for owners in a strict request, or for nodes outside the sets: then the vote
    /// changes nothing.
    pub fn add_stand_in(&mut self, owner: NodeId, vote: Vote) -> Outcome {
        if let Some(seat) = self.seat_of(owner) {
            seat.stand_in = seat.stand_in.after(vote);
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

    /// How many seats have acked, durably or not.
    #[must_use]
    pub fn acks(&self) -> u8 {
        count(self.seats.values(), |seat| seat.says(Standing::acked))
    }

    /// How many distinct nodes have acked durably, owners and stand-ins.
    #[must_use]
    pub fn durable_acks(&self) -> u8 {
        let durable = |standing: Standing| u8::from(standing == Standing::Durable);
        self.seats.values().map(|seat| durable(seat.owner) + durable(seat.stand_in)).sum()
    }

    /// Whether anybody has acked in this owner's seat.
    #[must_use]
    pub fn has_acked(&self, owner: NodeId) -> bool {
        self.seat(owner).says(Standing::acked)
    }

    /// What each set needs.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.needs
    }

    fn outcome_in(&self, set: &[NodeId]) -> Outcome {
        let seats: Vec<Seat> = set.iter().map(|owner| self.seat(*owner)).collect();
        let Needs { acks, owners, durable } = self.needs;
        let is_durable = |standing| standing == Standing::Durable;
        let has = |needed: u8, is: &dyn Fn(&Seat) -> bool| count(&seats, is) >= needed;
        if has(acks, &|seat| seat.says(Standing::acked))
            && has(owners, &|seat| seat.owner.acked())
            && has(durable, &|seat| seat.says(is_durable))
        {
            Outcome::Won
        } else if has(acks, &|seat| seat.says(Standing::may_ack))
            && has(owners, &|seat| seat.owner.may_ack())
            && has(durable, &|seat| seat.says(Standing::may_be_durable))
        {
            Outcome::Pending
        } else {
            Outcome::Lost
        }
    }

    fn seat(&self, owner: NodeId) -> Seat {
        let stand_in = if self.sloppy { Standing::Silent } else { Standing::Refused };
        let empty = Seat { owner: Standing::Silent, stand_in };
        self.seats.get(&owner).copied().unwrap_or(empty)
    }

    fn seat_of(&mut self, owner: NodeId) -> Option<&mut Seat> {
        let seat = self.seat(owner);
        let counts = self.sets.iter().any(|set| set.contains(&owner));
        counts.then(|| self.seats.entry(owner).or_insert(seat))
    }
}

/// Who has answered for one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat {
    owner: Standing,
    stand_in: Standing,
}

impl Seat {
    fn says(&self, is: impl Fn(Standing) -> bool) -> bool {
        is(self.owner) || is(self.stand_in)
    }
}

/// What a replica says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vote {
    /// The write is applied and not yet fsynced.
    Written,
    /// The write is on stable storage. Also what a read's answer counts as.
    Durable,
    /// Nothing will come of it, or nothing more.
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

/// How far one node has come: `Silent → Written → Durable`, with refusal at either step.
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
    fn after(self, vote: Vote) -> Standing {
        match (self, vote) {
            (Standing::Silent | Standing::Written, Vote::Durable) => Standing::Durable,
            (Standing::Silent | Standing::Written, Vote::Written) => Standing::Written,
            (Standing::Silent, Vote::Refused) => Standing::Refused,
            (Standing::Written, Vote::Refused) => Standing::WrittenOnly,
            (
                last @ (Standing::Durable | Standing::WrittenOnly | Standing::Refused),
                Vote::Written | Vote::Durable | Vote::Refused,
            ) => last,
        }
    }

    fn acked(self) -> bool {
        match self {
            Standing::Written | Standing::Durable | Standing::WrittenOnly => true,
            Standing::Silent | Standing::Refused => false,
        }
    }

    fn may_ack(self) -> bool {
        self != Standing::Refused
    }

    fn may_be_durable(self) -> bool {
        match self {
            Standing::Silent | Standing::Written | Standing::Durable => true,
            Standing::WrittenOnly | Standing::Refused => false,
        }
    }
}

fn count<'a>(seats: impl IntoIterator<Item = &'a Seat>, matches: impl Fn(&Seat) -> bool) -> u8 {
    let count = seats.into_iter().filter(|seat| matches(seat)).count();
    u8::try_from(count).unwrap_or(u8::MAX) // two sets of at most 16 owners stay far below
}
