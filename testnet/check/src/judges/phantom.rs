//! Nobody sees what nobody wrote: every value in an answer, or on a disk in the end, belongs to a put of that key that had
//! begun by then.

use crate::{
    books::Books,
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    for read in &books.entries {
        for (value, _) in read.found() {
            found.step();
            let key = books.key_of(read);
            match books.writer(read.key, *value) {
                None => found.add(Promise::NoPhantom, key, &[read.op], || {
                    format!("it saw value {value}, and no put of this key wrote that")
                }),
                Some(put) if books.entries[put].begun > read.ended => {
                    found.add(Promise::NoPhantom, key, &[read.op], || {
                        format!("it saw value {value} before that put had begun")
                    });
                }
                Some(_) => {}
            }
        }
    }
    for (key, held) in &books.held {
        for record in held {
            for (value, _) in &record.values {
                found.step();
                if books.writer(*key, *value).is_none() {
                    found.add(Promise::NoPhantom, Some(&record.key), &[], || {
                        let node = record.node;
                        format!(
                            "node {node} holds value {value}, and no put of this key wrote that"
                        )
                    });
                }
            }
        }
    }
}
