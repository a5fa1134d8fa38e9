//! An event is given once: to one write of its key, and a write is given one. Counters run per actor and *partition*, so keys
//! of different partitions may well have equal events.
//!
//! A client sends a put once. Only one that heard nothing certain may have been sent, or carried out, again by somebody on
//! the way; then two events of one value are what happened, and honest.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    books::{Books, Place},
    history::{Dot, Effect, Reply},
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    let mut seen = Seen::default();
    // first what was acknowledged: whatever is shown later is compared with that
    for (place, write) in books.entries.iter().enumerate() {
        found.step();
        if let Some(dot) = write.dot() {
            seen.note(books, found, write.key, place, dot);
        }
    }
    for read in &books.entries {
        for (value, dot) in read.found() {
            found.step();
            if let Some(put) = books.writer(read.key, *value) {
                seen.note(books, found, read.key, put, *dot);
            }
        }
    }
    for (key, held) in &books.held {
        for (value, dot) in held.iter().flat_map(|record| &record.values) {
            found.step();
            if let Some(put) = books.writer(*key, *value) {
                seen.note(books, found, *key, put, *dot);
            }
        }
    }
}

#[derive(Default)]
struct Seen {
    owners: BTreeMap<(usize, Dot), Place>,
    first: BTreeMap<Place, Dot>,
    said: BTreeSet<(Place, Dot)>,
}

impl Seen {
    fn note(&mut self, books: &Books, found: &mut Findings, key: usize, write: Place, dot: Dot) {
        let entry = &books.entries[write];
        let (node, incarnation, counter) = dot;
        let first = *self.first.entry(write).or_insert(dot);
        if first != dot && !may_be_repeated(&entry.reply) && self.said.insert((write, dot)) {
            found.add(Promise::DotsUnique, books.key_of(entry), &[entry.op], || {
                format!("it has two events, {first:?} and {dot:?}, although it was answered")
            });
        }
        let owner = *self.owners.entry((key, dot)).or_insert(write);
        if owner != write && self.said.insert((write, dot)) {
            let other = books.entries[owner].op;
            found.add(Promise::DotsUnique, books.key_of(entry), &[entry.op, other], || {
                format!("both have event {counter} of node {node}, incarnation {incarnation}")
            });
        }
    }
}

fn may_be_repeated(reply: &Reply) -> bool {
    match reply {
        Reply::Silence | Reply::Failed { effect: Effect::Unknown | Effect::Applied(0), .. } => true,
        Reply::Failed { effect: Effect::NotApplied | Effect::Applied(_), .. }
        | Reply::Stored { .. }
        | Reply::Found { .. } => false,
    }
}
