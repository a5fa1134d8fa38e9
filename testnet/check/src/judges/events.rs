//! Every event of a certain write is known to the owners in the end. For a put this says that not even its trace may vanish;
//! for a delete, which leaves no value, it is the only trace there is: a delete without an event of its own is found here.

use std::collections::BTreeMap;

use crate::{
    books::Books,
    history::Held,
    spans::Spans,
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    let mut known = BTreeMap::new();
    for (key, held) in &books.held {
        let owners = held.iter().filter(|record| record.owner && record.readable);
        known.insert(*key, known_to(owners, found));
    }
    for write in &books.entries {
        found.step();
        let Some(dot) = write.dot().filter(|_| write.is_certain()) else { continue };
        if !known.get(&write.key).is_some_and(|known| known.contains(dot)) {
            let says = || format!("no owner knows its event {dot:?}");
            found.add(Promise::EventsKnown, books.key_of(write), &[write.op], says);
        }
    }
}

/// What these records know together.
pub(crate) fn known_to<'a>(records: impl Iterator<Item = &'a Held>, found: &mut Findings) -> Spans {
    Spans::of(records.flat_map(|record| &record.context).inspect(|_| found.step()))
}
