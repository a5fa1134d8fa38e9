//! The scrub: everything on the disk is read once in a while, because damage that nobody reads is found when it is too late.
//!
//! Records and hints are read a few at a time, with pauses so long that all of them take the period. A record that is not
//! what was written is set aside and fetched anew ([`super::quarantine`]), a hint is set aside. The share of time is bounded:
//! if the period is too short for the disk, the scrub takes longer. Small stores are done earlier, for a pause is an hour
//! at most.
//!
//! The position is noted once a minute, so that a node that is restarted often gets through as well:
//!
//! ```text
//!   meta   scrub      space u8 | rows read u64 | rows in all u64 | the last row read
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use atoll_wire::Ack;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::{
    Node,
    replica::{self, Own},
    storage::{Space, StoreError, meta, record::Record, rows, summary::Summary},
};

/// How long a scrub takes unless the settings say otherwise. Disks find about one damaged sector per disk and year; two
/// weeks keep two copies from being damaged at the same time, and cost a disk with 100 GB less than 0.1 MB/s.
pub const SCRUB_PERIOD: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Rows read at once. Few, because each may hold as many bytes as a key may have, and the node does nothing else meanwhile.
const STEP: usize = 16;

/// The share of time that reading may take: one part in so many.
const SHARE: u32 = 20;

/// The longest pause between two steps, and the one after a start.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// How often the position is noted.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// How far it has come; shown in the status.
#[derive(Default)]
pub(crate) struct Scrubbed {
    rows: AtomicU64,
    of: AtomicU64,
    /// Full ones since the start.
    scrubs: AtomicU64,
}

impl Scrubbed {
    /// Rows read by the running scrub, and how many there were when it began.
    pub(crate) fn rows(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }

    /// Full scrubs since the start.
    pub(crate) fn scrubs(&self) -> u64 {
        self.scrubs.load(Ordering::Relaxed)
    }
}

/// Where a scrub is.
struct Position {
    space: Space,
    /// The last row read; empty = none of this space.
    after: Bytes,
    rows: u64,
    of: u64,
}

impl Position {
    fn beginning(node: &Node) -> Position {
        Position { space: Space::Data, after: Bytes::new(), rows: 0, of: rows_of(node) }
    }

    /// Where the last run was. A damaged note costs a scrub from the beginning and nothing else.
    fn noted(node: &Node) -> Result<Position, StoreError> {
        let row = Bytes::from_static(rows::SCRUB);
        let sealed = node.disk().get(Space::Meta, &row)?;
        let note = sealed.and_then(|sealed| meta::open(&row, &sealed).ok());
        Ok(note.and_then(Position::read).unwrap_or_else(|| Position::beginning(node)))
    }

    fn read(mut note: Bytes) -> Option<Position> {
        let space = match note.try_get_u8().ok()? {
            0 => Space::Data,
            1 => Space::Hints,
            _ => return None,
        };
        let (rows, of) = (note.try_get_u64().ok()?, note.try_get_u64().ok()?);
        Some(Position { space, after: note, rows, of })
    }

    fn note(&self, node: &Node) {
        let mut note = BytesMut::with_capacity(17 + self.after.len());
        note.put_u8(u8::from(self.space == Space::Hints));
        note.put_u64(self.rows);
        note.put_u64(self.of);
        note.put_slice(&self.after);
        let write = meta::write(Bytes::from_static(rows::SCRUB), &note);
        drop(node.disk().write(vec![write], Ack::Written));
    }
}

/// Reads everything, again and again, each time over this period. For ever.
pub(crate) async fn watch(node: Arc<Node>, period: Duration) {
    let Ok(mut position) = Position::noted(&node) else { return };
    let mut noted_at = node.clock().now();
    let mut pause = FIRST_PAUSE;
    loop {
        node.scrubbed().rows.store(position.rows, Ordering::Relaxed);
        node.scrubbed().of.store(position.of, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
        let began = node.clock().now();
        let Ok(complete) = step(&node, &mut position) else {
            return; // the storage has failed, the node stops
        };
        let ended = node.clock().now();
        if complete {
            node.scrubbed().scrubs.fetch_add(1, Ordering::Relaxed);
            position = Position::beginning(&node);
        }
        if complete || ended - noted_at >= NOTE_EVERY {
            position.note(&node);
            noted_at = ended;
        }
        pause = pause_after(ended - began, period, rows_of(&node));
    }
}

/// About how many rows are to be read.
fn rows_of(node: &Node) -> u64 {
    node.disk().rows(Space::Data) + node.disk().rows(Space::Hints)
}

/// How long to wait after a step that took so long, in a scrub of so many rows.
fn pause_after(step: Duration, period: Duration, rows: u64) -> Duration {
    let steps = u32::try_from(rows / STEP as u64 + 1).unwrap_or(u32::MAX);
    (period / steps).max(step * (SHARE - 1)).min(PAUSE_MAX)
}

/// Reads some rows. Whether they were the last.
fn step(node: &Node, position: &mut Position) -> Result<bool, StoreError> {
    let read = match position.space {
        Space::Hints => read_hints(node, &position.after)?,
        Space::Data | Space::Meta | Space::Digests | Space::Quarantine => {
            read_records(node, &position.after)?
        }
    };
    position.rows += read.rows;
    match (read.last, position.space) {
        (Some(last), _) => {
            position.after = last;
            Ok(false)
        }
        (None, Space::Hints) => Ok(true),
        (None, _) => {
            (position.space, position.after) = (Space::Hints, Bytes::new());
            Ok(false)
        }
    }
}

/// What was read in a step.
struct Step {
    rows: u64,
    /// The last row; none = there is no more.
    last: Option<Bytes>,
}

/// Some records with what is said of them: each record must be what was written, what is said of it must fit, and of what
/// something is said there must be a record.
fn read_records(node: &Node, after: &Bytes) -> Result<Step, StoreError> {
    let after = (!after.is_empty()).then_some(&after[..]);
    let records = node.disk().scan(Space::Data, b"", after, STEP)?;
    let said = node.disk().scan(Space::Digests, b"", after, STEP)?;
    let full = [&records, &said].into_iter().filter(|page| page.len() == STEP);
    let last = full.filter_map(|page| page.last()).map(|(row, _)| row.clone()).min();
    let in_reach = |row: &Bytes| last.as_ref().is_none_or(|last| row <= last);
    let mut rows = 0;
    for (row, value) in records.iter().filter(|(row, _)| in_reach(row)) {
        rows += 1;
        match Own::of(row, Some(value.clone())).record() {
            // looks again: a write that is only queued may have taken its place
            None => drop(replica::read(node, row)?),
            Some(record) => check_said(node, row, value, &record)?,
        }
    }
    for (row, _) in said.iter().filter(|(row, _)| in_reach(row)) {
        let missing = records.binary_search_by(|(record, _)| record.cmp(row)).is_err();
        if missing
            && node.disk().get(Space::Data, row)?.is_none()
            && node.disk().get(Space::Digests, row)?.is_some()
        {
            replica::set_aside(node, row, Bytes::new())?; // it was written, and it is gone
        }
    }
    Ok(Step { rows, last })
}

/// What is said of a record is said anew if it does not fit: comparisons would find a difference where there is none, or
/// none where there is one.
fn check_said(node: &Node, row: &Bytes, value: &Bytes, record: &Record) -> Result<(), StoreError> {
    let trees = &node.repair().trees;
    let said = trees.summary(row)?;
    let right = Summary::of(&record.state);
    let is_current = || node.disk().get(Space::Data, row).map(|now| now.as_ref() == Some(value));
    if said != Some(right) && is_current()? {
        node.count_corrupt();
        tracing::warn!(row = %row.escape_ascii(), "what was said of a record was wrong; it is said anew");
        trees.update(row, said, Some(right));
        drop(node.disk().write(vec![right.write(row)], Ack::Written));
    }
    Ok(())
}

/// Some hints. A damaged one is set aside.
fn read_hints(node: &Node, after: &Bytes) -> Result<Step, StoreError> {
    let after = (!after.is_empty()).then_some(&after[..]);
    let hints = node.disk().scan(Space::Hints, b"", after, STEP)?;
    for (row, value) in &hints {
        if let Own::Corrupt = Own::of(row, Some(value.clone())) {
            node.count_corrupt();
            node.hints().set_aside(row, value)?;
        }
    }
    let last = hints.last().filter(|_| hints.len() == STEP).map(|(row, _)| row.clone());
    Ok(Step { rows: hints.len() as u64, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses fill the period, but for small stores, which wait an hour, and for slow disks, which are read for a
    /// twentieth of the time however long it takes.
    #[test]
    fn pauses_fill_the_period_within_the_share() {
        let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
        let quick = Duration::from_millis(1);
        assert_eq!(pause_after(quick, hours(14 * 24), 0), hours(1));
        assert_eq!(pause_after(quick, hours(14 * 24), 16 * 336 - 1), hours(1));
        let many = pause_after(quick, hours(14 * 24), 100_000_000);
        assert!((193..194).contains(&many.as_millis()), "{many:?}");
        let slow = Duration::from_millis(100);
        assert_eq!(pause_after(slow, hours(24), 100_000_000), 19 * slow);
        assert_eq!(pause_after(quick, hours(24), u64::MAX), 19 * quick);
    }
}
