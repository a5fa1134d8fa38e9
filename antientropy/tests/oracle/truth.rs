//! The oracle: causality as plain sets of writes, without dots, counters, contexts or intervals.
//!
//! A key is a row of *places*, each of one sort: a register has one place for values, a set one for
//! each element, a map one for each field or element. A write acts on some of them, and that is all
//! the oracle needs to know about kinds of values.

use atoll_antientropy::Dot;

/// A set of writes of one history, by their numbers, as bits. A history has fewer than 63.
///
/// A write that counts adds 2 to the power of its number: so the value of a counter tells which
/// writes were counted, and one that was counted twice shows as another.
pub type Writes = u64;

/// What a place shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// All values that no known write has taken away: the writes that put them.
    Values,
    /// 1 while there is such a write, else 0.
    Presence,
    /// What was counted and not reset: the writes that are in it.
    Count,
}

/// What a write does to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Puts a value, and takes away those that its client had seen.
    Put,
    /// Makes it present; what its coordinator knew of there is replaced.
    Add,
    /// Takes away what its client had seen; resets what its coordinator knew of.
    Take,
    /// Counts, without a session.
    Once,
    /// Counts in a session, whose total is now this.
    Session(Writes),
}

/// What a client wants done: acts on some places.
pub type Deed = Vec<(usize, Act)>;

/// What a record or a message holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The writes that truly went into it.
    pub truth: Writes,
    /// The writes that may be in its counters: a total holds all that came before it.
    pub counted: Writes,
}

impl Held {
    pub fn join(&mut self, other: Held) {
        self.truth |= other.truth;
        self.counted |= other.counted;
    }
}

/// All writes of a history so far.
pub struct Truth {
    sorts: Vec<Sort>,
    writes: Vec<Write>,
}

struct Write {
    /// The name that the scheme under test gave it.
    dot: Dot,
    marks: Vec<Mark>,
}

/// What a write has done to one place.
struct Mark {
    place: usize,
    act: Act,
    /// The writes that it takes away there, for certain.
    takes: Writes,
    /// The writes that it may have taken away there: of totals nobody can say.
    may_take: Writes,
    /// The writes that it counts there, for certain.
    counts: Writes,
}

impl Truth {
    pub fn new(sorts: Vec<Sort>) -> Truth {
        Truth { sorts, writes: Vec::new() }
    }

    /// The number that the next write will have.
    pub fn next(&self) -> usize {
        self.writes.len()
    }

    /// Adds a write by a client who had seen `seen`, or said nothing, through a coordinator with
    /// the given record. Returns what the write holds by itself.
    pub fn add(&mut self, dot: Dot, deed: &Deed, seen: Option<Writes>, record: Held) -> Held {
        let own = 1 << self.next();
        let mut held = Held { truth: own, counted: 0 };
        let mut marks = Vec::new();
        for &(place, act) in deed {
            let mut mark = Mark { place, act, takes: 0, may_take: 0, counts: 0 };
            match (act, self.sorts[place]) {
                (Act::Take, Sort::Count) => {
                    mark.takes = self.counts(place, record.truth);
                    mark.may_take = record.counted;
                    held.counted |= record.counted; // counted and reset
                }
                (Act::Put | Act::Take, _) => {
                    let known = || record.truth | self.taken(place, record.truth);
                    mark.takes = seen.unwrap_or_else(known);
                }
                (Act::Add, _) => mark.takes = self.alive(place, record.truth),
                (Act::Once, _) => {
                    mark.counts = own;
                    held.counted |= own | record.counted;
                }
                (Act::Session(total), _) => {
                    mark.counts = total;
                    held.counted |= total;
                }
            }
            marks.push(mark);
        }
        self.writes.push(Write { dot, marks });
        held
    }

    /// What each place must show where exactly this is held: at least, and at most.
    pub fn shown(&self, held: Held) -> Vec<(u64, u64)> {
        let place = |(place, sort): (usize, &Sort)| match sort {
            Sort::Values => (self.alive(place, held.truth), self.alive(place, held.truth)),
            Sort::Presence => {
                let is_present = u64::from(self.alive(place, held.truth) != 0);
                (is_present, is_present)
            }
            Sort::Count => {
                let at_least =
                    self.counts(place, held.truth) & !self.may_be_taken(place, held.truth);
                let counted = self.counts(place, !0) & held.counted;
                (at_least, counted & !self.taken(place, held.truth))
            }
        };
        self.sorts.iter().enumerate().map(place).collect()
    }

    /// The promise in its own words: of the writes that survived anywhere, each is there, or a
    /// surviving write has taken it away. Returns whether neither holds for one.
    pub fn has_vanished(&self, survived: Writes, shown: &[u64]) -> bool {
        self.marks(survived).any(|(number, mark)| {
            let is_there = match (self.sorts[mark.place], mark.act) {
                (_, Act::Take) => return false,
                (Sort::Presence, _) => shown[mark.place] != 0,
                (Sort::Values | Sort::Count, _) => shown[mark.place] & (1 << number) != 0,
            };
            let is_own = !matches!(mark.act, Act::Session(_)) || mark.counts >> number & 1 != 0;
            let taken = self.may_be_taken(mark.place, survived) & (1 << number) != 0;
            is_own && !is_there && !taken
        })
    }

    /// The writes of which `knows` says that they are known.
    pub fn claimed(&self, knows: impl Fn(&Dot) -> bool) -> Writes {
        let claim = |(number, write): (usize, &Write)| u64::from(knows(&write.dot)) << number;
        self.writes.iter().enumerate().map(claim).fold(0, |all, one| all | one)
    }

    /// Puts and adds that no known write has taken away.
    fn alive(&self, place: usize, known: Writes) -> Writes {
        let there = self
            .at(place, known)
            .filter(|(_, mark)| matches!(mark.act, Act::Put | Act::Add))
            .fold(0, |all, (number, _)| all | 1 << number);
        there & !self.taken(place, known)
    }

    fn counts(&self, place: usize, known: Writes) -> Writes {
        self.at(place, known).fold(0, |all, (_, mark)| all | mark.counts)
    }

    fn taken(&self, place: usize, known: Writes) -> Writes {
        self.at(place, known).fold(0, |all, (_, mark)| all | mark.takes)
    }

    fn may_be_taken(&self, place: usize, known: Writes) -> Writes {
        self.at(place, known).fold(0, |all, (_, mark)| all | mark.takes | mark.may_take)
    }

    fn at(&self, place: usize, known: Writes) -> impl Iterator<Item = (usize, &Mark)> {
        self.marks(known).filter(move |(_, mark)| mark.place == place)
    }

    fn marks(&self, known: Writes) -> impl Iterator<Item = (usize, &Mark)> {
        let writes = self.writes.iter().enumerate();
        let known = writes.filter(move |(number, _)| known & (1 << number) != 0);
        known.flat_map(|(number, write)| write.marks.iter().map(move |mark| (number, mark)))
    }
}
