//! The court: hears a history event by event, and lets every judge speak in the end.

use std::collections::BTreeSet;

use crate::{
    books::{Books, Nonsense},
    history::Event,
    judges,
    verdict::{Figures, Findings, Promise, Verdict},
};

/// Hears a history and judges it.
///
/// Needs memory for all of it: about 200 bytes per operation, and 20 per value in an answer.
#[derive(Default)]
pub struct Judge {
    books: Books,
    also: BTreeSet<Promise>,
}

impl Judge {
    /// Judges everything that Atoll promises today. Sessions are not promised yet.
    pub fn new() -> Self {
        Judge::default()
    }

    /// Judges this too: one of [`Promise::OF_SESSIONS`]. The others are always judged.
    #[must_use]
    pub fn also(mut self, promise: Promise) -> Self {
        self.also.insert(promise);
        self
    }

    /// Takes down the next event. An error means that the *recorder* is wrong, not the store; judging on would be worthless.
    pub fn hear(&mut self, event: &Event) -> Result<(), Nonsense> {
        self.books.hear(event)
    }

    /// What all this amounts to. More may be heard afterwards; a verdict counts everything from the beginning again.
    pub fn verdict(&self) -> Verdict {
        let (books, mut found) = (&self.books, Findings::default());
        judges::phantom::judge(books, &mut found);
        judges::errors::judge(books, &mut found);
        judges::dots::judge(books, &mut found);
        judges::receipts::judge(books, &mut found);
        judges::reads::judge(books, &mut found);
        judges::resurrection::side_by_side(books, &mut found);
        if books.is_settled() {
            judges::lost::judge(books, &mut found);
            judges::events::judge(books, &mut found);
            judges::resurrection::judge(books, &mut found);
            judges::convergence::judge(books, &mut found);
        }
        for promise in &self.also {
            match promise {
                Promise::ReadYourWrites => judges::sessions::own_writes(books, &mut found),
                Promise::MonotonicReads => judges::sessions::no_step_back(books, &mut found),
                Promise::MonotonicWrites => judges::sessions::in_order(books, &mut found),
                Promise::WritesFollowReads => judges::sessions::after_reads(books, &mut found),
                Promise::NothingLost
                | Promise::EventsKnown
                | Promise::NoPhantom
                | Promise::NoResurrection
                | Promise::DotsUnique
                | Promise::ErrorsHonest
                | Promise::ReadsSeeWrites
                | Promise::ReceiptsTrue
                | Promise::Convergence => {}
            }
        }
        let Findings { violations, broken, promised_reads, steps } = found;
        let figures = Figures { promised_reads, steps, ..books.figures() };
        Verdict { is_settled: books.is_settled(), violations, broken, figures }
    }
}
