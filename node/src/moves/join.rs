//! A page is joined into the own copy: all its rows in one batch.

use atoll_ring::Token;
use atoll_wire::{Ack, DumpedRow, limits::KEY_BYTES_MAX};

use super::job::Job;
use crate::{
    Node,
    buckets::of_row,
    fence, replica,
    storage::{Space, Write, commit::Ticket, record::Record, rows, summary::Summary},
};

/// Why rows were not joined.
pub(super) enum Refused {
    /// The copy is not wanted any more.
    Over,
    /// There is no room, or the storage failed.
    NoRoom,
    /// These are no rows of this partition, or no states.
    Nonsense,
}

/// Joins some rows of a page. From the look at the view to the queued batch nobody else runs: what arrives late, of a
/// session that is over, changes nothing. The ticket is good when reads of the store see them.
pub(super) fn join(node: &Node, job: &Job, page: &[DumpedRow]) -> Result<Ticket, Refused> {
    if !job.is_wanted(node) {
        return Err(Refused::Over);
    }
    node.takes_writes().map_err(|_| Refused::NoRoom)?;
    let states = page.iter().filter_map(|one| Some((&one.row, one.state.as_ref()?)));
    let mut incoming = Vec::with_capacity(page.len());
    for (row, state) in states {
        let bucket = of_row(row);
        if node.buckets().is_dropped(bucket) {
            continue; // the source has not heard
        }
        if !is_of(node, job, row) || incoming.last().is_some_and(|(last, _)| *last >= row) {
            return Err(Refused::Nonsense);
        }
        if !fence::keeps(node, job.partition, bucket) {
            return Err(Refused::Nonsense);
        }
        incoming.push((row, node.decoded(bucket, state).ok_or(Refused::Nonsense)?));
    }
    let mut writes = Vec::with_capacity(2 * incoming.len());
    for (row, incoming) in incoming {
        let own = replica::read(node, row).map_err(|_| Refused::NoRoom)?;
        let (note, before, state) = match own {
            None => (None, None, incoming),
            Some(Record { note, state: mut own, bytes }) => {
                if own.covers(&incoming) {
                    continue;
                }
                let before = Summary::of_encoded(&own, &bytes);
                own.join(incoming);
                (note, Some(before), own)
            }
        };
        let bytes = state.encode();
        let after = Summary::of_encoded(&state, &bytes);
        node.repair().trees.update(row, before, Some(after));
        let value = Record::encode(row, note.as_ref(), &bytes);
        writes.push(Write { space: Space::Data, row: row.clone(), value: Some(value) });
        writes.push(after.write(row));
    }
    Ok(node.disk().write(writes, Ack::Written))
}

/// Whether this is the name of a row of the job's partition.
fn is_of(node: &Node, job: &Job, row: &bytes::Bytes) -> bool {
    let Some((bucket, key)) = rows::bucket_and_key(row) else { return false };
    let token = Token::of(&bucket.0, &key);
    !key.is_empty()
        && key.len() <= KEY_BYTES_MAX
        && node.view().partition(token) == job.partition
        && rows::data(job.partition, token, bucket, &key) == *row
}
