//! The court: hears a history event by event, and lets every judge speak in the end.

use std::{collections::BTreeSet, io::BufRead};

use crate::{
    books::{Books, Nonsense},
    file::{self, BadLine},
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
    /// Judges everything that Atoll promises to everybody, and to those who work in a session what that promises.
    pub fn new() -> Self {
        Judge::default()
    }

    /// Judges this for everybody, in a session or not: one of [`Promise::OF_SESSIONS`].
    #[must_use]
    pub fn also(mut self, promise: Promise) -> Self {
        self.also.insert(promise);
        self
    }

    /// Takes down the next event. An error means that the *recorder* is wrong, not the store; judging on would be worthless.
    pub fn hear(&mut self, event: &Event) -> Result<(), Nonsense> {
        self.books.hear(event)
    }

    /// Takes down all events of a file. Stops at the first line that is wrong, and names it.
    pub fn hear_file(&mut self, lines: impl BufRead) -> Result<(), BadLine> {
        for event in file::numbered(lines) {
            let (line, event) = event?;
            self.hear(&event).map_err(|why| BadLine::Nonsense { line, why })?;
        }
        Ok(())
    }

    /// The keys of registers it has heard of, each once, in the order in which they came.
    pub fn keys(&self) -> &[String] {
        &self.books.keys
    }

    /// The keys of other kinds it has heard of, each with its bucket before it, in their order.
    pub fn keys_of_kinds(&self) -> impl Iterator<Item = &str> {
        self.books.kinds.keys().into_iter()
    }

    /// Whether it has heard that the cluster settled: nothing but what the nodes hold can follow.
    pub fn is_settled(&self) -> bool {
        self.books.is_settled()
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
        judges::kinds::judge(books, &mut found);
        for promise in Promise::OF_SESSIONS {
            let everybody = self.also.contains(&promise);
            if !everybody && books.in_session.is_empty() {
                continue;
            }
            let promised = |session: u32| everybody || books.in_session.contains(&session);
            match promise {
                Promise::ReadYourWrites => {
                    judges::sessions::own_writes(books, promised, &mut found)
                }
                Promise::MonotonicReads => {
                    judges::sessions::no_step_back(books, promised, &mut found);
                }
                Promise::MonotonicWrites => judges::sessions::in_order(books, promised, &mut found),
                _ => judges::sessions::after_reads(books, promised, &mut found),
            }
        }
        let Findings { violations, broken, promised_reads, steps } = found;
        let figures = Figures { promised_reads, steps, ..books.figures() };
        let faults = books.faults.clone();
        Verdict { is_settled: books.is_settled(), violations, broken, figures, faults }
    }
}
