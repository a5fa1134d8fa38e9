//! The source's part: pages of its rows, as they will be when all that is queued is applied.
//!
//! An answer is a promise too: this node's view, fsynced, has the session that is asked about, so it refuses whatever was
//! planned before. A row that is damaged here is sent as such, and the asker waits until it is mended.

use std::{collections::BTreeMap, sync::Arc};

use atoll_ring::{NodeId, Partition};
use atoll_transport::{Answer, Caller};
use atoll_wire::{
    Copy, Dumped, DumpedRow, ErrorCode, Failure, Reply,
    limits::{DUMP_ROWS_MAX, KEY_BYTES_MAX},
};
use bytes::Bytes;

use super::job::Job;
use crate::{
    Node,
    buckets::of_row,
    canary::{self, Canary},
    fence,
    node::failed,
    replica::{self, Own},
    storage::{Space, StoreError, rows},
};

/// Bytes of a page, unless a single row has more; while clients are served, fewer, because a page is made in one go.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_BYTES_BUSY: usize = 32 << 10;

/// Rows read at once: the fewest, and the most when rows are small.
const STEP: usize = 16;
const STEP_MAX: usize = 128;

/// Answers a joining owner that asks for a page of rows.
pub(crate) fn send_page(node: &Arc<Node>, caller: Caller, asked: &Copy) -> Answer {
    let Some(peer) = caller.node else {
        let detail = "only a node copies, and it says who it is";
        return Answer::Now(failed(Failure::refused(ErrorCode::NotPermitted, detail)));
    };
    if let Err(failure) = may_send(node, peer, asked) {
        return Answer::Now(failed(failure));
    }
    let (node, asked) = (node.clone(), asked.clone());
    Answer::Later(Box::pin(async move {
        let _turn = node.moves().sends(&node).await;
        if let Err(failure) = may_send(&node, peer, &asked) {
            return failed(failure); // while we waited
        }
        let began = node.clock().now();
        let page = match gather(&node, peer, &asked) {
            Ok(page) => page,
            Err(error) => return failed(replica::stopping(&error)),
        };
        if let Err(failure) = may_send(&node, peer, &asked) {
            return failed(failure); // so much was damaged that the whole partition is in doubt
        }
        let session = atoll_ring::Epoch(asked.session);
        node.moves().book(Partition(asked.partition), session, |book| {
            if !book.joins {
                book.keys += page.rows.len() as u64;
                book.bytes += page.bytes as u64;
            }
        });
        super::rest(&node, node.clock().now() - began).await;
        Reply::Copied(Dumped::of(&page.rows, page.full))
    }))
}

/// Whether this node is a source of this copy, now.
fn may_send(node: &Node, peer: NodeId, asked: &Copy) -> Result<(), Failure> {
    let (view, partition) = (node.view(), Partition(asked.partition));
    let malformed = |detail: String| Failure::refused(ErrorCode::Malformed, detail);
    if !view.partitions().contains(partition) || asked.after.len() > 2 * KEY_BYTES_MAX {
        return Err(malformed("there is no such partition, or row".into()));
    }
    if canary::is_on(Canary::SkipBarrier) {
        return Ok(());
    }
    let session = view.last_changed(partition);
    if !view.moves().contains_key(&partition) || session.0 != asked.session {
        let detail = format!(
            "partition {partition} last changed at {session} here, which is not the move of epoch {}",
            asked.session
        );
        return Err(Failure::refused(ErrorCode::StaleView, detail));
    }
    if !Job::of(&view, peer, partition).is_some_and(|job| job.sources.contains(&node.id())) {
        return Err(malformed(format!("{peer} does not copy from {}", node.id())));
    }
    if node.doubt().covers_partition(partition) {
        let detail = format!("{} may have lost some of partition {partition} itself", node.id());
        let failure = Failure::refused(ErrorCode::Corrupt, detail);
        return Err(Failure { retry_after_ms: 1000, ..failure });
    }
    Ok(())
}

/// What is gathered of a page.
struct Page {
    rows: Vec<DumpedRow>,
    bytes: usize,
    bytes_max: usize,
    /// The largest row so far.
    largest: usize,
    /// There may be more rows than found room.
    full: bool,
}

impl Page {
    /// Takes a row, if there is room for it.
    fn add(&mut self, node: &Node, row: Bytes, value: Option<Bytes>) -> Result<(), StoreError> {
        let state = match Own::of(&row, value.clone()) {
            Own::Known(record) => Some(record.bytes),
            Own::Missing => None,
            Own::Corrupt => {
                replica::set_aside(node, &row, value.unwrap_or_default())?;
                None
            }
        };
        let bytes = row.len() + state.as_ref().map_or(0, Bytes::len);
        let fits = self.bytes + bytes <= self.bytes_max && self.rows.len() < DUMP_ROWS_MAX;
        if self.full || (!fits && !self.rows.is_empty()) {
            self.full = true;
            return Ok(());
        }
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
        let in_doubt = node.doubt().covers_key(&row);
        self.rows.push(DumpedRow { row, key: Bytes::new(), hint_for: None, in_doubt, state });
        Ok(())
    }

    /// Rows to be read next.
    fn step(&self) -> usize {
        match self.largest {
            0 => STEP,
            largest => ((self.bytes_max - self.bytes) / largest + 1).clamp(STEP, STEP_MAX),
        }
    }
}

/// The next rows of what is asked for, damaged ones included. Nobody else runs meanwhile.
fn gather(node: &Node, peer: NodeId, asked: &Copy) -> Result<Page, StoreError> {
    let partition = Partition(asked.partition);
    let (first, last) = asked.tokens;
    let bytes_max = if super::is_busy(node) { PAGE_BYTES_BUSY } else { PAGE_BYTES };
    let mut page = Page { rows: Vec::new(), bytes: 0, bytes_max, largest: 0, full: false };
    // of a bucket that is dropped, or kept by fewer owners than stand before the asker, nothing is copied
    let is_wanted = |row: &Bytes| {
        let bucket = of_row(row);
        !node.buckets().is_dropped(bucket) && fence::keeps_as(node, peer, partition, bucket)
    };
    let mut after = match asked.after.is_empty() {
        true => rows::data_begin(partition, first.min(last)),
        false => asked.after.clone(),
    };
    if first > last {
        let in_doubt = node.doubt().keys_of(partition, &asked.after, DUMP_ROWS_MAX + 1);
        for row in in_doubt.into_iter().filter(is_wanted) {
            let value = node.disk().get(Space::Data, &row)?;
            page.add(node, row, value)?;
        }
        return Ok(page);
    }
    let prefix = partition.0.to_be_bytes();
    while !page.full {
        let step = page.step();
        let found = node.disk().scan_queued(Space::Data, &prefix, Some(&after), step)?;
        let said = node.disk().scan_queued(Space::Digests, &prefix, Some(&after), step)?;
        let last_of = |rows: &[(Bytes, Bytes)]| rows.last().map(|(row, _)| row.clone());
        // behind the last row of a page that is full there may be others
        let ends = [&found, &said].into_iter().filter(|rows| rows.len() == step);
        let reach = ends.filter_map(|rows| last_of(rows)).min();
        let in_reach = |row: &Bytes| reach.as_ref().is_none_or(|reach| row <= reach);
        // of what something is said and that is not there was lost
        for (row, _) in said.iter().filter(|(row, _)| in_reach(row)) {
            if found.binary_search_by(|(record, _)| record.cmp(row)).is_err() {
                replica::set_aside(node, row, Bytes::new())?;
            }
        }
        let in_doubt = node.doubt().keys_of(partition, &after, DUMP_ROWS_MAX + 1);
        let mut all: BTreeMap<Bytes, Option<Bytes>> =
            in_doubt.into_iter().filter(in_reach).map(|row| (row, None)).collect();
        let found = found.into_iter().filter(|(row, _)| in_reach(row));
        all.extend(found.map(|(row, value)| (row, Some(value))));
        for (row, value) in all {
            if rows::token_of_data(&row).is_none_or(|token| token.0 > last) {
                return Ok(page);
            }
            if is_wanted(&row) {
                page.add(node, row, value)?;
            }
        }
        match reach {
            Some(reach) => after = reach,
            None => break,
        }
    }
    Ok(page)
}
