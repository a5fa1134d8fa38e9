//! Raw states of one partition, as they lie on this node's disk: for operators, and for whoever judges a history.
//!
//! Nothing is joined, asked for or repaired here. A page holds what fits into some bytes and may be asked for again with
//! other values in it: rows that are only queued for the disk are not shown. A record that was set aside as damaged, and
//! has no successor yet, is shown as damaged.

use std::collections::BTreeMap;

use atoll_ring::{NodeId, Partition};
use atoll_wire::{Dump, Dumped, DumpedRow, ErrorCode, Failure, Reply, limits::DUMP_ROWS_MAX};
use bytes::Bytes;

use crate::{
    Node,
    node::failed,
    replica,
    storage::{Space, StoreError, record::Record, rows},
};

/// Bytes of a page, unless a single row has more.
const PAGE_BYTES: usize = 256 << 10;

/// Rows read at once. Few, because each may hold as many bytes as a key may have.
const STEP: usize = 16;

/// Answers a dump.
pub(crate) fn dump(node: &Node, dump: &Dump) -> Reply {
    let partitions = node.view().partitions().count();
    if u32::from(dump.partition) >= partitions {
        let detail = format!("partition {}: there are 0 to {}", dump.partition, partitions - 1);
        return failed(Failure::refused(ErrorCode::Malformed, detail));
    }
    let partition = Partition(dump.partition);
    let page = match dump.hints {
        false => records(node, partition, &dump.after),
        true => hints(node, partition, &dump.after),
    };
    match page {
        Ok(page) => Reply::Dumped(Dumped::of(&page.rows, page.full)),
        Err(error) => failed(replica::stopping(&error)),
    }
}

/// What is gathered of a page.
#[derive(Default)]
struct Page {
    rows: Vec<DumpedRow>,
    bytes: usize,
    /// A row has found no room.
    full: bool,
}

impl Page {
    /// Takes a row, if there is room for it.
    fn add(&mut self, node: &Node, data_row: Bytes, row: Bytes, value: Option<&Bytes>) {
        let record = value.and_then(|value| Record::decode(&row, value).ok());
        let state = record.map(|record| record.bytes);
        let bytes = 2 * row.len() + state.as_ref().map_or(0, Bytes::len);
        let none_fits = self.bytes + bytes > PAGE_BYTES || self.rows.len() == DUMP_ROWS_MAX;
        if self.full || (none_fits && !self.rows.is_empty()) {
            self.full = true;
            return;
        }
        self.bytes += bytes;
        self.rows.push(DumpedRow {
            key: rows::bucket_and_key(&data_row).map(|(_, key)| key).unwrap_or_default(),
            hint_for: (row.len() > data_row.len())
                .then(|| rows::target_of_hint(&row))
                .flatten()
                .map(|at| at.0),
            in_doubt: node.doubt().covers(&data_row),
            row,
            state,
        });
    }
}

/// The own records, and those set aside that have no successor.
fn records(node: &Node, partition: Partition, after: &Bytes) -> Result<Page, StoreError> {
    let prefix = partition.0.to_be_bytes();
    let mut page = Page::default();
    let mut after = after.clone();
    while !page.full {
        let found = node.disk().scan(Space::Data, &prefix, behind(&after), STEP)?;
        let last = found.last().map(|(row, _)| row.clone()).filter(|_| found.len() == STEP);
        let mut both: BTreeMap<Bytes, Option<Bytes>> = node
            .doubt()
            .keys_of(partition, &after, DUMP_ROWS_MAX + 1)
            .into_iter()
            .filter(|row| last.as_ref().is_none_or(|last| row <= last))
            .map(|row| (row, None))
            .collect();
        both.extend(found.into_iter().map(|(row, value)| (row, Some(value))));
        for (row, value) in both {
            page.add(node, row.clone(), row, value.as_ref());
        }
        match last {
            Some(last) => after = last,
            None => break,
        }
    }
    Ok(page)
}

/// What is kept for the members, one after the other.
fn hints(node: &Node, partition: Partition, after: &Bytes) -> Result<Page, StoreError> {
    let mut page = Page::default();
    let mut after = after.clone();
    let mut members: Vec<NodeId> = node.view().members().iter().map(|member| member.id).collect();
    members.sort();
    for member in members {
        let prefix = rows::hint(member, &partition.0.to_be_bytes());
        if !after.is_empty() && after[..] > prefix[..] && !after.starts_with(&prefix) {
            continue; // of an earlier page
        }
        if !after.starts_with(&prefix) {
            after = Bytes::new();
        }
        while !page.full {
            let found = node.disk().scan(Space::Hints, &prefix, behind(&after), STEP)?;
            let Some((last, _)) = found.last() else { break };
            after = last.clone();
            for (row, value) in &found {
                page.add(node, rows::data_of_hint(row), row.clone(), Some(value));
            }
        }
    }
    Ok(page)
}

fn behind(after: &Bytes) -> Option<&[u8]> {
    (!after.is_empty()).then_some(&after[..])
}
