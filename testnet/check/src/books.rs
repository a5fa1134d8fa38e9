//! The books: everything heard, in order, and what it says about the fate of each operation.
//!
//! The books know no promise. They refuse what cannot be a history: numbers that do not rise, answers without a question, a
//! context from an answer that brought none. Such lines are mistakes of a recorder, and judging them would find mistakes of
//! the store that are none.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    history::{Dot, Effect, Event, FORMATS, Held, Levels, Op, Reply, Value, What},
    kinds::KindBooks,
    verdict::Figures,
};

/// The place of an operation in the books.
pub(crate) type Place = usize;

/// The moment of an event: how many events came before it. Never is [`NEVER`].
pub(crate) type Moment = u64;

/// A moment that does not come.
pub(crate) const NEVER: Moment = Moment::MAX;

/// An event that cannot follow what was heard before: whoever recorded it is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Operations are numbered in the order of their beginnings.
    #[error("operation {op} begins after operation {last}: numbers must rise")]
    NotRising {
        /// The one that begins.
        op: Op,
        /// The last that began.
        last: Op,
    },
    /// Nothing with this number has begun.
    #[error("operation {0} is spoken of before it began")]
    NotBegun(Op),
    /// An operation has one answer.
    #[error("operation {0} is answered twice")]
    AnsweredTwice(Op),
    /// A write is not found, and a read not stored.
    #[error("the answer to operation {0} does not fit its question")]
    WrongAnswer(Op),
    /// The context sent along must come from an answer of the same key that brought one.
    #[error("operation {op} takes its context from operation {seen}, whose answer {why}")]
    NoContext {
        /// Whose context is in question.
        op: Op,
        /// Where it is said to come from.
        seen: Op,
        /// What is wrong with that.
        why: &'static str,
    },
    /// Only writes need an excuse.
    #[error("operation {0} is excused and is no write")]
    NothingToExcuse(Op),
    /// Written by a newer program.
    #[error("format {0} is not known here")]
    UnknownFormat(u32),
    /// The end of a history comes after all the rest of it.
    #[error("{0} comes after the cluster had settled")]
    TooLate(&'static str),
    /// What is held is asked for in the end.
    #[error("{0} comes before the cluster had settled")]
    TooEarly(&'static str),
}

/// One operation.
pub(crate) struct Entry {
    pub op: Op,
    pub key: usize,
    pub session: u32,
    pub what: What,
    /// The operation whose answer brought its context.
    pub seen: Option<Place>,
    pub with: Levels,
    pub begun: Moment,
    /// [`NEVER`] if no answer was heard.
    pub ended: Moment,
    pub reply: Reply,
    pub is_exempt: bool,
}

/// What is known about whether a write exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was acknowledged, or is fsynced somewhere.
    Certain,
    /// It may exist.
    Unknown,
    /// It was called `not applied`.
    Never,
}

impl Entry {
    pub fn is_write(&self) -> bool {
        match self.what {
            What::Put | What::Delete => true,
            What::Get => false,
        }
    }

    pub fn fate(&self) -> Fate {
        match &self.reply {
            Reply::Failed { effect: Effect::NotApplied, .. } => Fate::Never,
            _ if self.is_exempt => Fate::Unknown,
            Reply::Stored { .. } => Fate::Certain,
            Reply::Failed { effect: Effect::Applied(0) | Effect::Unknown, .. } => Fate::Unknown,
            Reply::Failed { effect: Effect::Applied(_), .. } => Fate::Certain,
            Reply::Silence | Reply::Found { .. } => Fate::Unknown,
        }
    }

    /// Whether it is a write that exists for certain.
    pub fn is_certain(&self) -> bool {
        self.is_write() && self.fate() == Fate::Certain
    }

    /// Its event, if it was acknowledged.
    pub fn dot(&self) -> Option<Dot> {
        match self.reply {
            Reply::Stored { dot, .. } => Some(dot),
            Reply::Found { .. } | Reply::Failed { .. } | Reply::Silence => None,
        }
    }

    /// What its answer showed; nothing unless it is an answered read.
    pub fn found(&self) -> &[(Value, Dot)] {
        match &self.reply {
            Reply::Found { values, .. } => values,
            Reply::Stored { .. } | Reply::Failed { .. } | Reply::Silence => &[],
        }
    }

    pub fn is_answered_read(&self) -> bool {
        matches!(self.reply, Reply::Found { .. })
    }
}

/// Everything heard.
#[derive(Default)]
pub(crate) struct Books {
    pub entries: Vec<Entry>,
    pub keys: Vec<String>,
    key_numbers: BTreeMap<String, usize>,
    /// Beginnings and ends of operations, in order: the place, and whether it is the end.
    pub moments: Vec<(Place, bool)>,
    settled: bool,
    /// What disks hold in the end, by key.
    pub held: BTreeMap<usize, Vec<Held>>,
    /// Hints in the end, by node; the last word counts.
    pub hints: BTreeMap<u32, u64>,
    /// Values that are no registers.
    pub kinds: KindBooks,
    /// Who works in a session.
    pub in_session: BTreeSet<u32>,
    /// What was broken on purpose, by kind.
    pub faults: BTreeMap<String, u64>,
}

impl Books {
    pub fn hear(&mut self, event: &Event) -> Result<(), Nonsense> {
        match event {
            Event::Begin { op, at_us: _, session, key, what, seen, with } => {
                self.is_not_over("the beginning of an operation")?;
                if let Some(last) = self.entries.last().filter(|last| last.op >= *op) {
                    return Err(Nonsense::NotRising { op: *op, last: last.op });
                }
                let key = self.number_of(key);
                let seen = seen.map(|seen| self.source(*op, key, seen)).transpose()?;
                self.entries.push(Entry {
                    op: *op,
                    key,
                    session: *session,
                    what: *what,
                    seen,
                    with: *with,
                    begun: self.now(),
                    ended: NEVER,
                    reply: Reply::Silence,
                    is_exempt: false,
                });
                self.moments.push((self.entries.len() - 1, false));
            }
            Event::End { op, at_us: _, reply } => {
                self.is_not_over("the end of an operation")?;
                let (place, now) = (self.place(*op)?, self.now());
                let entry = &mut self.entries[place];
                if entry.ended != NEVER {
                    return Err(Nonsense::AnsweredTwice(*op));
                }
                match reply {
                    Reply::Stored { .. } if !entry.is_write() => Err(Nonsense::WrongAnswer(*op)),
                    Reply::Found { .. } if entry.is_write() => Err(Nonsense::WrongAnswer(*op)),
                    Reply::Stored { .. }
                    | Reply::Found { .. }
                    | Reply::Failed { .. }
                    | Reply::Silence => Ok(()),
                }?;
                (entry.ended, entry.reply) = (now, reply.clone());
                self.moments.push((place, true));
            }
            Event::Exempt { op, why: _ } => {
                let place = self.place(*op)?;
                let entry = &mut self.entries[place];
                if !entry.is_write() {
                    return Err(Nonsense::NothingToExcuse(*op));
                }
                entry.is_exempt = true;
            }
            Event::Settled { at_us: _ } => {
                self.is_not_over("settling")?;
                self.settled = true;
            }
            Event::Held(held) => {
                self.is_over("what a disk holds")?;
                let key = self.number_of(&held.key);
                self.held.entry(key).or_default().push(held.clone());
            }
            Event::Hints { node, count } => {
                self.is_over("a count of hints")?;
                self.hints.insert(*node, *count);
            }
            Event::Format(format) if FORMATS.contains(format) => {}
            Event::Format(format) => return Err(Nonsense::UnknownFormat(*format)),
            Event::InSession { session } => {
                self.in_session.insert(*session);
            }
            Event::Asked(asked) => {
                self.is_not_over("the beginning of an operation")?;
                self.kinds.ask(asked)?;
            }
            Event::Answered(answered) => {
                self.is_not_over("the end of an operation")?;
                self.kinds.answer(answered)?;
            }
            Event::Keeps(keeps) => {
                self.is_over("what a disk holds")?;
                self.kinds.keep(keeps);
            }
            Event::Fault { at_us: _, kind, says: _ } => {
                if let Some(kind) = kind {
                    *self.faults.entry(kind.clone()).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Where this operation stands in the books.
    pub fn find(&self, op: Op) -> Option<Place> {
        self.entries.binary_search_by_key(&op, |entry| entry.op).ok()
    }

    /// The put that wrote this value of this key, if there is one.
    pub fn writer(&self, key: usize, value: Value) -> Option<Place> {
        self.find(value).filter(|place| {
            let entry = &self.entries[*place];
            entry.key == key && entry.what == What::Put
        })
    }

    pub fn key_of(&self, entry: &Entry) -> Option<&str> {
        Some(&self.keys[entry.key])
    }

    /// What was heard, counted. What the judges count is left at zero.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures {
            operations: self.entries.len() as u64,
            keys: self.keys.len() as u64,
            held: self.held.values().map(|held| held.len() as u64).sum(),
            ..Figures::default()
        };
        for entry in &self.entries {
            *match entry.what {
                What::Put => &mut figures.puts,
                What::Delete => &mut figures.deletes,
                What::Get => &mut figures.gets,
            } += 1;
            *match &entry.reply {
                Reply::Stored { .. } => &mut figures.acknowledged,
                Reply::Found { .. } => &mut figures.reads,
                Reply::Failed { effect: Effect::NotApplied, .. } => &mut figures.not_applied,
                Reply::Failed { effect: Effect::Applied(0) | Effect::Unknown, .. } => {
                    &mut figures.unknown
                }
                Reply::Failed { effect: Effect::Applied(_), .. } => &mut figures.applied,
                Reply::Silence => &mut figures.silent,
            } += 1;
            figures.exempt += u64::from(entry.is_exempt);
        }
        self.kinds.count(&mut figures);
        figures
    }

    fn now(&self) -> Moment {
        self.moments.len() as Moment
    }

    fn place(&self, op: Op) -> Result<Place, Nonsense> {
        self.find(op).ok_or(Nonsense::NotBegun(op))
    }

    fn number_of(&mut self, key: &str) -> usize {
        if let Some(number) = self.key_numbers.get(key) {
            return *number;
        }
        self.keys.push(key.to_owned());
        self.key_numbers.insert(key.to_owned(), self.keys.len() - 1);
        self.keys.len() - 1
    }

    /// The answer that a context came with.
    fn source(&self, op: Op, key: usize, seen: Op) -> Result<Place, Nonsense> {
        let place = self.place(seen)?;
        let source = &self.entries[place];
        let wrong = match &source.reply {
            _ if source.key != key => "speaks of another key",
            Reply::Stored { context: true, .. } | Reply::Found { context: true, .. } => {
                return Ok(place);
            }
            Reply::Stored { .. } | Reply::Found { .. } => "brought no context",
            Reply::Failed { .. } => "was a failure",
            Reply::Silence => "has not come yet",
        };
        Err(Nonsense::NoContext { op, seen, why: wrong })
    }

    fn is_over(&self, what: &'static str) -> Result<(), Nonsense> {
        if self.settled { Ok(()) } else { Err(Nonsense::TooEarly(what)) }
    }

    fn is_not_over(&self, what: &'static str) -> Result<(), Nonsense> {
        if self.settled { Err(Nonsense::TooLate(what)) } else { Ok(()) }
    }
}
