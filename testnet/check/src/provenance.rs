//! Which writes had been shown which values: the one fact that decides what may, and what must, be replaced.
//!
//! A write's context came from an answer. A read's answer shows its values. A write's answer shows what the writer had seen,
//! and the write itself. So contexts form chains:
//!
//! ```text
//! get 4 shows {1, 2} ◄── put 5 ◄── put 6          put 6 covers 5, and all that 5 covered: 1 and 2
//!                    ◄── delete 7                 and so does whoever has read 6
//! ```
//!
//! Writing down for each write all it covers would be quadratic: a chain of a thousand puts covers half a million. We go the
//! other way, **from the last moment to the first**, and each answer asks only who followed *directly*: when a beginning is
//! reached, everything that could have covered it has already been looked at, and has handed down what it knows.

use std::collections::BTreeMap;

use crate::{
    books::{Books, Entry, Fate, Moment, NEVER, Place},
    history::{Dot, Value, What},
    verdict::Findings,
};

/// Since when something is known, and through which write.
pub(crate) type Since = (Moment, Place);

/// Not known, ever.
pub(crate) const UNKNOWN: Since = (NEVER, Place::MAX);

/// Since when each value is covered by something known.
pub(crate) struct Covered {
    /// By place of the put.
    values: Vec<Since>,
    /// By value and event, as it was shown. A put that was carried out twice has two, and a write may have seen one of them.
    shown: BTreeMap<(Value, Dot), Since>,
}

impl Covered {
    /// `known` says of a write since when it is known, by itself. What covers it makes it known too.
    pub fn new(books: &Books, found: &mut Findings, known: impl Fn(Place) -> Since) -> Self {
        let mut values = vec![UNKNOWN; books.entries.len()];
        let mut followed = vec![UNKNOWN; books.entries.len()];
        let mut shown = BTreeMap::new();
        for (place, is_end) in books.moments.iter().rev().copied() {
            found.step();
            let entry = &books.entries[place];
            match (entry.what, is_end) {
                (What::Get, true) if followed[place] != UNKNOWN => {
                    for pair in entry.found() {
                        found.step();
                        let since = shown.entry(*pair).or_insert(UNKNOWN);
                        *since = (*since).min(followed[place]);
                        if let Some(writer) = books.writer(entry.key, pair.0) {
                            values[writer] = values[writer].min(followed[place]);
                        }
                    }
                }
                (What::Get, true | false) => {}
                (What::Put | What::Delete, true) => {
                    values[place] = values[place].min(followed[place]);
                    if let Some(dot) = entry.dot().filter(|_| followed[place] != UNKNOWN) {
                        let since = shown.entry((entry.op, dot)).or_insert(UNKNOWN);
                        *since = (*since).min(followed[place]);
                    }
                }
                (What::Put | What::Delete, false) => {
                    if let Some(source) = entry.seen {
                        let since = known(place).min(values[place]);
                        followed[source] = followed[source].min(since);
                    }
                }
            }
        }
        Covered { values, shown }
    }

    /// Since when this put's value is covered, whatever event it has.
    pub fn value(&self, put: Place) -> Option<Since> {
        Some(self.values[put]).filter(|since| *since != UNKNOWN)
    }

    /// Since when this value under this event is covered.
    pub fn shown(&self, pair: (Value, Dot)) -> Option<Since> {
        self.shown.get(&pair).copied()
    }
}

/// When each value may first have been replaced: when a write began that had been shown it. Writes that were called `not
/// applied` replace nothing.
pub(crate) struct MayGo {
    values: Vec<Moment>,
    followed: Vec<Moment>,
}

impl MayGo {
    pub fn new(books: &Books, found: &mut Findings) -> Self {
        let mut followed = vec![NEVER; books.entries.len()];
        for entry in books.entries.iter().filter(|entry| entry.is_write()) {
            found.step();
            if let Some(source) = entry.seen.filter(|_| entry.fate() != Fate::Never) {
                followed[source] = followed[source].min(entry.begun);
            }
        }
        let mut values = followed.clone();
        for (entry, followed) in books.entries.iter().zip(&followed) {
            if *followed != NEVER {
                for (value, _) in entry.found() {
                    found.step();
                    if let Some(writer) = books.writer(entry.key, *value) {
                        values[writer] = values[writer].min(*followed);
                    }
                }
            }
        }
        MayGo { values, followed }
    }

    /// [`NEVER`] if nobody who began a write had been shown it.
    pub fn since(&self, put: Place) -> Moment {
        self.values[put]
    }

    /// The values that may go because of this write and of none before it.
    pub fn first_replaced_by(&self, books: &Books, entry: &Entry) -> Vec<Place> {
        let Some(source) = entry.seen.filter(|source| self.followed[*source] == entry.begun) else {
            return Vec::new();
        };
        directly_shown(books, source)
            .into_iter()
            .filter_map(|(value, _)| books.writer(entry.key, value))
            .filter(|put| self.values[*put] == entry.begun)
            .collect()
    }
}

/// What an answer shows by itself: a read its values, a put its own.
pub(crate) fn directly_shown(books: &Books, source: Place) -> Vec<(Value, Dot)> {
    let entry = &books.entries[source];
    match (entry.what, entry.dot()) {
        (What::Get, _) => entry.found().to_vec(),
        (What::Put, Some(dot)) => vec![(entry.op, dot)],
        (What::Put | What::Delete, _) => Vec::new(),
    }
}
