//! What sessions promise, key by key (Terry et al. 1994, "Session Guarantees for Weakly Consistent Replicated Data").
//!
//! `promised` says who works in a session; the others are heard, and nothing is promised to them. The judges go by what
//! reads show. What had been shown to a write counts as replaced by it; chains of writes are followed one step.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    books::{Books, Entry, Moment, Place},
    history::{Dot, Value, What},
    provenance::{MayGo, directly_shown},
    verdict::{Findings, Promise},
};

/// A session's reads show its own acknowledged writes, or what replaced them.
pub(crate) fn own_writes(books: &Books, promised: impl Fn(u32) -> bool, found: &mut Findings) {
    let mut memory = Memory::new(books, Promise::ReadYourWrites, found);
    for (now, (place, is_end)) in moments(books) {
        let entry = &books.entries[place];
        match (entry.what, is_end) {
            (What::Put | What::Delete, false) => memory.replace(entry, found),
            _ if !promised(entry.session) => {}
            (What::Put | What::Delete, true) if entry.dot().is_some() && !entry.is_exempt => {
                memory.learn(entry, place, now, found);
            }
            (What::Get, true) => memory.judge(entry, found),
            (What::Get, false) | (What::Put | What::Delete, true) => {}
        }
    }
}

/// What a session has seen it sees again, or what replaced it.
pub(crate) fn no_step_back(books: &Books, promised: impl Fn(u32) -> bool, found: &mut Findings) {
    let mut memory = Memory::new(books, Promise::MonotonicReads, found);
    for (now, (place, is_end)) in moments(books) {
        let entry = &books.entries[place];
        match (entry.what, is_end) {
            (What::Put | What::Delete, false) => memory.replace(entry, found),
            (What::Get, true) if promised(entry.session) => {
                memory.judge(entry, found);
                for put in puts_seen(books, entry) {
                    memory.learn(entry, put, now, found);
                }
            }
            (What::Get, true | false) | (What::Put | What::Delete, true) => {}
        }
    }
}

fn moments(books: &Books) -> impl Iterator<Item = (Moment, (Place, bool))> {
    (0..).zip(books.moments.iter().copied())
}

fn puts_seen(books: &Books, read: &Entry) -> BTreeSet<Place> {
    read.found().iter().filter_map(|(value, _)| books.writer(read.key, *value)).collect()
}

/// What each session has to see of each key from now on.
struct Memory<'a> {
    books: &'a Books,
    promise: Promise,
    may_go: MayGo,
    of: BTreeMap<(u32, usize), Duty>,
    /// Who has to see a put.
    whose: BTreeMap<Place, Vec<(u32, Moment)>>,
}

#[derive(Default)]
struct Duty {
    learned: BTreeSet<Place>,
    there: BTreeSet<(Moment, Place)>,
    gone: BTreeMap<(Value, Dot), (Moment, Place)>,
}

impl<'a> Memory<'a> {
    fn new(books: &'a Books, promise: Promise, found: &mut Findings) -> Self {
        let may_go = MayGo::new(books, found);
        Memory { books, promise, may_go, of: BTreeMap::new(), whose: BTreeMap::new() }
    }

    /// The session of `entry` knows this write from now on.
    fn learn(&mut self, entry: &Entry, write: Place, now: Moment, found: &mut Findings) {
        let duty = self.of.entry((entry.session, entry.key)).or_default();
        if !duty.learned.insert(write) {
            return;
        }
        let known = &self.books.entries[write];
        if known.what == What::Put && self.may_go.since(write) > now {
            duty.there.insert((now, write));
            self.whose.entry(write).or_default().push((entry.session, now));
        }
        for pair in known.seen.map(|source| directly_shown(self.books, source)).unwrap_or_default()
        {
            found.step();
            duty.gone.entry(pair).or_insert((now, write));
        }
    }

    fn replace(&mut self, write: &Entry, found: &mut Findings) {
        for put in self.may_go.first_replaced_by(self.books, write) {
            for (session, since) in self.whose.remove(&put).unwrap_or_default() {
                found.step();
                if let Some(duty) = self.of.get_mut(&(session, write.key)) {
                    duty.there.remove(&(since, put));
                }
            }
        }
    }

    fn judge(&self, read: &Entry, found: &mut Findings) {
        found.step();
        let duty = self.of.get(&(read.session, read.key));
        let Some(duty) = duty.filter(|_| read.is_answered_read()) else { return };
        let (books, key) = (self.books, self.books.key_of(read));
        let saw = puts_seen(books, read);
        for (_, put) in duty.there.range(..(read.begun, 0)) {
            found.step();
            if !saw.contains(put) {
                let op = books.entries[*put].op;
                found.add(self.promise, key, &[read.op, op], || {
                    format!("session {} knew {op} and does not see it", read.session)
                });
                break;
            }
        }
        for pair in read.found() {
            found.step();
            if let Some((_, by)) = duty.gone.get(pair).filter(|(since, _)| *since < read.begun) {
                let by = books.entries[*by].op;
                found.add(self.promise, key, &[read.op, pair.0, by], || {
                    format!(
                        "session {} knew {by}, which replaced {}, and sees that again",
                        read.session, pair.0
                    )
                });
            }
        }
    }
}

/// Who sees a write sees the write that its session made before it, or what replaced that. The one before the one before is
/// then seen to by the same rule.
pub(crate) fn in_order(books: &Books, promised: impl Fn(u32) -> bool, found: &mut Findings) {
    let may_go = MayGo::new(books, found);
    let mut last: BTreeMap<(u32, usize), Place> = BTreeMap::new();
    // the write before, and the last put before that has not been replaced: a path that grows shorter with each walk
    let mut before: Vec<Option<Place>> = vec![None; books.entries.len()];
    let mut standing: Vec<Option<Place>> = vec![None; books.entries.len()];
    for (now, (place, is_end)) in moments(books) {
        found.step();
        let entry = &books.entries[place];
        let who = (entry.session, entry.key);
        match (entry.what, is_end) {
            (What::Put | What::Delete, false) => {
                before[place] = last.get(&who).copied();
                standing[place] = before[place];
            }
            (What::Put | What::Delete, true)
                if entry.dot().is_some() && !entry.is_exempt && promised(entry.session) =>
            {
                last.insert(who, place);
            }
            (What::Get, true) => {
                let saw = puts_seen(books, entry);
                let pairs: BTreeSet<(Value, Dot)> = entry.found().iter().copied().collect();
                for put in &saw {
                    let still_there = walk(books, &may_go, &mut standing, *put, now, found);
                    if let Some(first) = still_there.filter(|first| !saw.contains(first)) {
                        let (one, two) = (books.entries[first].op, books.entries[*put].op);
                        let operations = [entry.op, one, two];
                        found.add(
                            Promise::MonotonicWrites,
                            books.key_of(entry),
                            &operations,
                            || {
                                format!(
                                    "it saw {two} and not {one}, which its session wrote before"
                                )
                            },
                        );
                    }
                    let source = before[*put].and_then(|first| books.entries[first].seen);
                    for pair in source.map(|s| directly_shown(books, s)).unwrap_or_default() {
                        found.step();
                        if pairs.contains(&pair) {
                            let two = books.entries[*put].op;
                            let operations = [entry.op, pair.0, two];
                            found.add(
                                Promise::MonotonicWrites,
                                books.key_of(entry),
                                &operations,
                                || {
                                    format!(
                                        "it saw {two}, whose session had replaced {} before",
                                        pair.0
                                    )
                                },
                            );
                        }
                    }
                }
            }
            (What::Get, false) | (What::Put | What::Delete, true) => {}
        }
    }
}

/// The last put before this one that nobody can have replaced by now. What was passed over need not be passed again.
fn walk(
    books: &Books,
    may_go: &MayGo,
    standing: &mut [Option<Place>],
    from: Place,
    now: Moment,
    found: &mut Findings,
) -> Option<Place> {
    let mut passed = vec![from];
    let mut next = standing[from];
    while let Some(place) = next {
        found.step();
        if books.entries[place].what == What::Put && may_go.since(place) > now {
            break;
        }
        passed.push(place);
        next = standing[place];
    }
    for place in passed {
        standing[place] = next;
    }
    next
}

/// Who sees a write sees what its session had read last before it, or what replaced that.
pub(crate) fn after_reads(books: &Books, promised: impl Fn(u32) -> bool, found: &mut Findings) {
    let may_go = MayGo::new(books, found);
    let mut last: BTreeMap<(u32, usize), Place> = BTreeMap::new();
    let mut before: Vec<Option<Place>> = vec![None; books.entries.len()];
    for (now, (place, is_end)) in moments(books) {
        found.step();
        let entry = &books.entries[place];
        let who = (entry.session, entry.key);
        match (entry.what, is_end) {
            (What::Put | What::Delete, false) => before[place] = last.get(&who).copied(),
            (What::Get, true) => {
                let saw = puts_seen(books, entry);
                for put in &saw {
                    let Some(read) = before[*put].map(|read| &books.entries[read]) else {
                        continue;
                    };
                    for (value, _) in read.found() {
                        found.step();
                        let earlier = books.writer(entry.key, *value);
                        let is_missing =
                            |put: &Place| !saw.contains(put) && may_go.since(*put) > now;
                        if earlier.as_ref().is_some_and(is_missing) {
                            let two = books.entries[*put].op;
                            let operations = [entry.op, *value, two];
                            found.add(
                                Promise::WritesFollowReads,
                                books.key_of(entry),
                                &operations,
                                || {
                                    format!("it saw {two} and not {value}, which its session had read before")
                                },
                            );
                        }
                    }
                }
                if entry.is_answered_read() && promised(entry.session) {
                    last.insert(who, place);
                }
            }
            (What::Get, false) | (What::Put | What::Delete, true) => {}
        }
    }
}
