//! No acknowledged write is lost: each certain put is alive at an owner in the end, or a write that had been shown it is
//! certain, too, or **took effect**.
//!
//! A certain write that is lost itself is found under its own number; those that it replaced are not lost a second time. Of
//! a write that may exist it is not enough that it was begun: a replica drops a value only together with taking in what
//! replaced it, so that is alive in the end, or was replaced in turn by somebody who is. A delete leaves no value behind; one
//! that may exist is believed to.

use std::collections::BTreeSet;

use crate::{
    books::{Books, Fate, Place},
    history::What,
    provenance::{Covered, UNKNOWN},
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    let alive = alive(books, found);
    let covered = Covered::new(books, found, |place| {
        let entry = &books.entries[place];
        let has_effect = match entry.what {
            What::Put => entry.is_certain() || alive.contains(&place),
            What::Delete => true,
            What::Get => false,
        };
        if has_effect && entry.fate() != Fate::Never { (0, place) } else { UNKNOWN }
    });
    for (place, entry) in books.entries.iter().enumerate() {
        found.step();
        let must_be = entry.what == What::Put && entry.is_certain();
        if must_be && !alive.contains(&place) && covered.value(place).is_none() {
            found.add(Promise::NothingLost, books.key_of(entry), &[entry.op], || {
                "the value is nowhere, and nothing that had seen it took effect".to_owned()
            });
        }
    }
}

/// What owners hold.
fn alive(books: &Books, found: &mut Findings) -> BTreeSet<Place> {
    let mut alive = BTreeSet::new();
    for (key, held) in &books.held {
        for record in held.iter().filter(|record| record.owner && record.readable) {
            for (value, _) in &record.values {
                found.step();
                alive.extend(books.writer(*key, *value));
            }
        }
    }
    alive
}
