//! Every event of a certain write is known to the owners in the end. For a put this says that not even its trace may vanish;
//! for a delete, which leaves no value, it is the only trace there is: a delete without an event of its own is found here.

use std::collections::BTreeMap;

use crate::{
    books::Books,
    history::{Dot, Held},
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    let mut known = BTreeMap::new();
    for (key, held) in &books.held {
        let owners = held.iter().filter(|record| record.owner && record.readable);
        known.insert(*key, Known::of(owners, found));
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

/// The union of some contexts.
pub(crate) struct Known {
    /// Per actor, in order and disjoint: after, up to.
    spans: BTreeMap<(u32, u32), Vec<(u64, u64)>>,
}

impl Known {
    pub fn of<'a>(records: impl Iterator<Item = &'a Held>, found: &mut Findings) -> Self {
        let mut spans: BTreeMap<(u32, u32), Vec<(u64, u64)>> = BTreeMap::new();
        for (node, incarnation, after, up_to) in records.flat_map(|record| &record.context) {
            found.step();
            spans.entry((*node, *incarnation)).or_default().push((*after, *up_to));
        }
        for spans in spans.values_mut() {
            spans.sort_unstable();
            let mut joined: Vec<(u64, u64)> = Vec::with_capacity(spans.len());
            for (after, up_to) in spans.drain(..) {
                match joined.last_mut() {
                    Some(last) if after <= last.1 => last.1 = last.1.max(up_to),
                    Some(_) | None => joined.push((after, up_to)),
                }
            }
            *spans = joined;
        }
        Known { spans }
    }

    pub fn contains(&self, (node, incarnation, counter): Dot) -> bool {
        self.spans.get(&(node, incarnation)).is_some_and(|spans| {
            let before = spans.partition_point(|(after, _)| *after < counter);
            before > 0 && counter <= spans[before - 1].1
        })
    }
}
