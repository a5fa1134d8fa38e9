//! Nothing comes back: what had been shown to a certain write is gone in the end, and is never shown beside the very write
//! that replaced it, to anybody. That a read which had to see the replacement does not show it is judged with those reads.

use std::collections::BTreeSet;

use crate::{
    books::{Books, Place},
    history::{Dot, Value},
    provenance::{Covered, UNKNOWN, directly_shown},
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    let covered = Covered::new(books, found, |place| {
        if books.entries[place].is_certain() { (0, place) } else { UNKNOWN }
    });
    for held in books.held.values() {
        let mut said = BTreeSet::new();
        for record in held.iter().filter(|record| record.owner) {
            for pair in &record.values {
                found.step();
                let Some((_, by)) = covered.shown(*pair).filter(|_| said.insert(*pair)) else {
                    continue;
                };
                let by = books.entries[by].op;
                found.add(Promise::NoResurrection, Some(&record.key), &[pair.0, by], || {
                    format!("node {} holds it, although {by} had seen it", record.node)
                });
            }
        }
    }
}

/// The part that needs no end: a state that has a write in it has dropped what that write had seen.
pub(crate) fn side_by_side(books: &Books, found: &mut Findings) {
    for read in &books.entries {
        for (value, by) in beside(books, found, read.key, read.found()) {
            let says = || format!("operation {} saw it beside {by}, which had seen it", read.op);
            let operations = [value, by, read.op];
            found.add(Promise::NoResurrection, books.key_of(read), &operations, says);
        }
    }
    for (key, held) in &books.held {
        for record in held {
            for (value, by) in beside(books, found, *key, &record.values) {
                found.add(Promise::NoResurrection, Some(&record.key), &[value, by], || {
                    format!("node {} holds it beside {by}, which had seen it", record.node)
                });
            }
        }
    }
}

/// Values of one state, each with a value of the same state whose writer had been shown it. Bounded by the siblings of two
/// answers for each answer that one of the writers had seen.
fn beside(
    books: &Books,
    found: &mut Findings,
    key: usize,
    state: &[(Value, Dot)],
) -> Vec<(Value, Value)> {
    let mut back = Vec::new();
    if state.len() < 2 {
        return back;
    }
    let held: BTreeSet<(Value, Dot)> = state.iter().copied().collect();
    let mut sources: BTreeSet<Place> = BTreeSet::new();
    for (by, _) in state {
        let writer = books.writer(key, *by).and_then(|put| books.entries[put].seen);
        let Some(source) = writer.filter(|source| sources.insert(*source)) else { continue };
        for pair in directly_shown(books, source) {
            found.step();
            if held.contains(&pair) {
                back.push((pair.0, *by));
            }
        }
    }
    back
}
