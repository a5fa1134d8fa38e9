//! Histories as files: one JSON object per line. Errors name the line.

use std::io::{self, BufRead, Write};

use crate::{Nonsense, history::Event};

/// A line of a history that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// The file itself cannot be read on.
    #[error("line {line} cannot be read: {why}")]
    Unreadable {
        /// Which line, from 1.
        line: u64,
        /// What the system said.
        why: io::Error,
    },
    /// It is no event of a history.
    #[error("line {line} is no event of a history: {why}")]
    NoEvent {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        why: serde_json::Error,
    },
    /// It cannot follow the lines before it.
    #[error("line {line}: {why}")]
    Nonsense {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        why: Nonsense,
    },
}

/// The events of a history, one per line. Empty lines are skipped; nothing follows the first error.
pub fn read_history(lines: impl BufRead) -> impl Iterator<Item = Result<Event, BadLine>> {
    numbered(lines).map(|event| event.map(|(_, event)| event))
}

/// The same, each with the number of its line.
pub(crate) fn numbered(lines: impl BufRead) -> impl Iterator<Item = Result<(u64, Event), BadLine>> {
    let mut is_over = false;
    lines.lines().zip(1..).filter_map(move |(text, line)| {
        if is_over {
            return None;
        }
        let event = match text {
            Ok(text) if text.trim().is_empty() => return None,
            Ok(text) => match serde_json::from_str(&text) {
                Ok(event) => Ok((line, event)),
                Err(why) => Err(BadLine::NoEvent { line, why }),
            },
            Err(why) => Err(BadLine::Unreadable { line, why }),
        };
        is_over = event.is_err();
        Some(event)
    })
}

/// Writes one event as one line.
pub fn write_event(to: &mut impl Write, event: &Event) -> io::Result<()> {
    serde_json::to_writer(&mut *to, event)?;
    to.write_all(b"\n")
}
