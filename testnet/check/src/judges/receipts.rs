//! Receipts show what was asked for. Whoever records a history has the receipt and says what is wrong with it; here that is
//! only put beside the other findings.

use crate::{
    books::Books,
    history::Reply,
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    for entry in &books.entries {
        found.step();
        if let Reply::Stored { untrue: Some(why), .. } = &entry.reply {
            let says = || format!("its receipt is untrue: {why}");
            found.add(Promise::ReceiptsTrue, books.key_of(entry), &[entry.op], says);
        }
    }
}
