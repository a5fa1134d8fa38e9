//! Errors are honest: a write that was called `not applied` exists nowhere, so nobody sees it, before or after.

use crate::{
    books::{Books, Entry, Fate},
    history::Value,
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    for read in &books.entries {
        for (value, _) in read.found() {
            found.step();
            if let Some(put) = never(books, read.key, *value) {
                let says =
                    || format!("it was called `not applied`, and operation {} saw it", read.op);
                found.add(Promise::ErrorsHonest, books.key_of(read), &[put.op, read.op], says);
            }
        }
    }
    for (key, held) in &books.held {
        for record in held {
            for (value, _) in &record.values {
                found.step();
                if let Some(put) = never(books, *key, *value) {
                    let says = || {
                        format!("it was called `not applied`, and node {} holds it", record.node)
                    };
                    found.add(Promise::ErrorsHonest, Some(&record.key), &[put.op], says);
                }
            }
        }
    }
}

fn never(books: &Books, key: usize, value: Value) -> Option<&Entry> {
    let put = &books.entries[books.writer(key, value)?];
    Some(put).filter(|put| put.fate() == Fate::Never)
}
