//! The joining owner's part: it copies each partition in which it takes a seat, from whoever held the seat.
//!
//! A copy asks for what the source knows to be damaged, then for the parts in which the trees differ, page by page. When
//! all of it is here, fsynced, the session is done. A source that is away, behind or in doubt is asked again later; the
//! copy goes on where it was. A copy whose session is over, or that shall come from others by now, is dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use atoll_ring::{NodeId, Partition};
use atoll_transport::Boxed;
use atoll_wire::{Copy, DumpedRow, Lane, Reply, Request};
use bytes::Bytes;
use futures_util::{
    future::{AbortHandle, abortable},
    stream::{self, FuturesUnordered, StreamExt as _},
};

use super::{
    differ::{Tokens, differing},
    job::Job,
    join::{Refused, join},
};
use crate::{
    Node,
    buckets::{gossip, of_row},
    storage::{faulty::Step, rows},
};

/// Parts of one partition that are copied at the same time.
const PARTS_AT_ONCE: usize = 4;

/// Bytes that are joined in one go, unless a single row has more: nobody else runs meanwhile.
const SLICE_BYTES: usize = 128 << 10;

/// How long a source may take to answer.
const CALL_LIMIT: Duration = Duration::from_secs(8);

/// How long to wait until a source is asked again, the first time and at most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long to wait for the own disk when its queue is full.
const DISK_PAUSE: Duration = Duration::from_millis(10);

/// What stands in the way of a copy.
pub(super) enum Stop {
    /// It is not wanted any more.
    Over,
    /// It waits for this node: the source, or ourselves.
    Later(NodeId),
}

/// What is still to be copied from one source.
#[derive(Default)]
struct Open {
    /// None: nobody has looked yet.
    parts: Option<Vec<Part>>,
    /// The tokens of rows that were damaged at the source.
    damaged: BTreeSet<u64>,
}

/// Some tokens, and how far they are copied.
struct Part {
    tokens: Tokens,
    after: Bytes,
    ended: bool,
    damaged: Vec<u64>,
}

impl Part {
    fn of(tokens: Tokens) -> Part {
        Part { tokens, after: Bytes::new(), ended: false, damaged: Vec::new() }
    }

    /// Tokens that are not copied yet.
    fn left(&self) -> u128 {
        match rows::token_of_data(&self.after) {
            _ if self.ended => 0,
            Some(token) => u128::from(self.tokens.1.saturating_sub(token.0)),
            None => u128::from(self.tokens.1 - self.tokens.0) + 1,
        }
    }
}

/// Copies whatever the node has to copy, as the views come. For ever.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut copies: BTreeMap<Partition, (Job, AbortHandle)> = BTreeMap::new();
    let mut running: FuturesUnordered<Boxed<()>> = FuturesUnordered::new();
    loop {
        let changed = node.catch_up().changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable(); // before looking, or a change in between would be missed
        let view = node.view();
        node.moves().follow(&view, node.id());
        let jobs = view
            .moves()
            .keys()
            .filter_map(|partition| Some((*partition, Job::of(&view, node.id(), *partition)?)));
        let mut wanted: BTreeMap<Partition, Job> = jobs.collect();
        copies.retain(|partition, (job, handle)| {
            let goes_on = wanted.get(partition) == Some(job);
            match goes_on {
                true => drop(wanted.remove(partition)),
                false => handle.abort(),
            }
            goes_on
        });
        for (partition, job) in wanted {
            let (work, handle) = abortable(copy(node.clone(), job.clone()));
            running.push(Box::pin(async move {
                let _ = work.await;
            }));
            copies.insert(partition, (job, handle));
        }
        tokio::select! { biased;
            () = changed => {}
            Some(()) = running.next() => {}
        }
    }
}

/// One copy, from the first question to the fsync of the last row.
async fn copy(node: Arc<Node>, job: Job) {
    let Job { partition, session, .. } = job;
    if node.moves().has_copied(partition, session) {
        return;
    }
    node.moves().hold(partition, Step::Copy).await;
    let damaged_before = damaged_here(&node, partition);
    let mut all: Vec<(NodeId, Open)> =
        job.sources.iter().map(|source| (*source, Open::default())).collect();
    let mut known = damaged_before;
    loop {
        for (source, open) in &mut all {
            if !copy_all_of(&node, &job, *source, open).await {
                return;
            }
        }
        // what was copied and then found damaged here has to come again
        let new: BTreeSet<(Bytes, u64)> =
            damaged_here(&node, partition).difference(&known).cloned().collect();
        if new.is_empty() {
            break;
        }
        let tokens = new.iter().filter_map(|(row, _)| Some(rows::token_of_data(row)?.0));
        let tokens: BTreeSet<u64> = tokens.collect();
        for (_, open) in &mut all {
            open.parts = Some(tokens.iter().map(|token| Part::of((*token, *token))).collect());
        }
        known.extend(new);
    }
    if node.disk().settled().done().await.is_err() {
        return; // the storage has failed, the node stops
    }
    node.moves().hold(partition, Step::Done).await;
    if job.is_wanted(&node) {
        tracing::info!(%partition, %session, "copied");
        node.moves().copied(partition, session);
    }
}

/// The damaged records of a partition on this node, and which damage it was.
fn damaged_here(node: &Node, partition: Partition) -> BTreeSet<(Bytes, u64)> {
    if node.doubt().key_count() == 0 {
        return BTreeSet::new();
    }
    let is_of = |row: &Bytes| rows::partition_of_data(row) == Some(partition);
    node.doubt().keys().into_iter().filter(|(row, _)| is_of(row)).collect()
}

/// Copies what is open from one source, however long that takes. False if it is not wanted any more.
async fn copy_all_of(node: &Arc<Node>, job: &Job, source: NodeId, open: &mut Open) -> bool {
    let mut pause = PAUSE;
    loop {
        let came_up = node.liveness().came_up.notified();
        let outcome = {
            let _place = node.moves().places.acquire().await.expect("it is never closed");
            copy_from(node, job, source, open).await
        };
        let waits_for = match outcome {
            Ok(()) => None,
            Err(Stop::Over) => return false,
            Err(Stop::Later(whom)) => Some(whom),
        };
        node.moves().book(job.partition, job.session, |book| book.waits_for = waits_for);
        if waits_for.is_none() {
            return true;
        }
        tokio::select! { biased;
            () = came_up => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Copies what is open from one source, as far as that is possible now.
async fn copy_from(
    node: &Arc<Node>,
    job: &Job,
    source: NodeId,
    open: &mut Open,
) -> Result<(), Stop> {
    if node.liveness().is_down(source) {
        return Err(Stop::Later(source));
    }
    if open.parts.is_none() {
        open.damaged = damaged_there(node, job, source).await?;
        let parts: Vec<Part> =
            differing(node, job, source).await?.into_iter().map(Part::of).collect();
        let tokens: u128 = parts.iter().map(Part::left).sum();
        node.moves().book(job.partition, job.session, |book| book.tokens.0 += tokens);
        open.parts = Some(parts);
    }
    let parts = open.parts.take().expect("they were looked for");
    let copied: Vec<(Part, Result<(), Stop>)> = stream::iter(parts)
        .map(|part| copy_part(node, job, source, part))
        .buffer_unordered(PARTS_AT_ONCE)
        .collect()
        .await;
    let (mut parts, outcomes): (Vec<Part>, Vec<Result<(), Stop>>) = copied.into_iter().unzip();
    open.damaged.extend(parts.iter_mut().flat_map(|part| std::mem::take(&mut part.damaged)));
    parts.retain(|part| !part.ended);
    open.parts = Some(parts);
    outcomes.into_iter().collect::<Result<(), Stop>>()?;
    if open.damaged.is_empty() {
        return Ok(());
    }
    // once more, later: by then they may be mended
    let damaged = std::mem::take(&mut open.damaged);
    open.parts = Some(damaged.into_iter().map(|token| Part::of((token, token))).collect());
    Err(Stop::Later(source))
}

/// The tokens of the rows of which the source knows that they were damaged. They may not be in its tree. That it answers
/// at all says that its view has this move.
async fn damaged_there(node: &Arc<Node>, job: &Job, source: NodeId) -> Result<BTreeSet<u64>, Stop> {
    let mut damaged = BTreeSet::new();
    let mut after = Bytes::new();
    loop {
        let (rows, more) = page(node, job, source, (u64::MAX, 0), &after).await?;
        damaged.extend(rows.iter().filter_map(|one| Some(rows::token_of_data(&one.row)?.0)));
        match rows.last() {
            Some(last) if more => after = last.row.clone(),
            _ => return Ok(damaged),
        }
    }
}

/// Copies one part, from where it was left.
async fn copy_part(
    node: &Arc<Node>,
    job: &Job,
    source: NodeId,
    mut part: Part,
) -> (Part, Result<(), Stop>) {
    while !part.ended {
        if let Err(stop) = copy_page(node, job, source, &mut part).await {
            return (part, Err(stop));
        }
    }
    (part, Ok(()))
}

/// Copies the next page of a part.
async fn copy_page(
    node: &Arc<Node>,
    job: &Job,
    source: NodeId,
    part: &mut Part,
) -> Result<(), Stop> {
    let _turn = node.moves().page(node).await;
    node.moves().hold(job.partition, Step::Page).await;
    let (page, more) = page(node, job, source, part.tokens, &part.after).await?;
    join_page(node, job, source, &page).await?;
    let hurt = page.iter().filter(|one| one.in_doubt || one.state.is_none());
    part.damaged.extend(hurt.filter_map(|one| Some(rows::token_of_data(&one.row)?.0)));
    let left = part.left();
    match page.last() {
        Some(last) if more => part.after = last.row.clone(),
        _ => part.ended = true,
    }
    let copied = left.saturating_sub(part.left());
    let bytes: usize = page.iter().map(bytes_of).sum();
    node.moves().book(job.partition, job.session, |book| {
        book.keys += page.len() as u64;
        book.bytes += bytes as u64;
        book.tokens.1 += copied;
    });
    Ok(())
}

fn bytes_of(row: &DumpedRow) -> usize {
    row.row.len() + row.state.as_ref().map_or(0, Bytes::len)
}

/// Joins a page, slice by slice, and waits until the store has it: so the disk sets the pace.
async fn join_page(
    node: &Arc<Node>,
    job: &Job,
    source: NodeId,
    page: &[DumpedRow],
) -> Result<(), Stop> {
    if page.iter().any(|one| node.buckets().known(of_row(&one.row)).is_none()) {
        gossip::pull(node, source, node.clock().now() + CALL_LIMIT).await;
    }
    let mut ticket = None;
    let mut rest = page;
    while !rest.is_empty() {
        while node.disk().is_full() {
            tokio::time::sleep(DISK_PAUSE).await;
        }
        let mut bytes = 0;
        let fits = |one: &&DumpedRow| {
            bytes += bytes_of(one);
            bytes <= SLICE_BYTES
        };
        let (slice, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = later;
        let began = node.clock().now();
        ticket = Some(join(node, job, slice).map_err(|refused| match refused {
            Refused::Over => Stop::Over,
            Refused::NoRoom => Stop::Later(node.id()),
            Refused::Nonsense => {
                tracing::warn!(%source, partition = %job.partition, "sent rows that make no sense");
                Stop::Later(source)
            }
        })?);
        super::rest(node, node.clock().now() - began).await;
    }
    match ticket {
        Some(ticket) => ticket.done().await.map_err(|_| Stop::Later(node.id())),
        None => Ok(()),
    }
}

/// A page of rows, and whether there may be more.
async fn page(
    node: &Arc<Node>,
    job: &Job,
    source: NodeId,
    tokens: Tokens,
    after: &Bytes,
) -> Result<(Vec<DumpedRow>, bool), Stop> {
    if !job.is_wanted(node) {
        return Err(Stop::Over);
    }
    let (partition, session) = (job.partition.0, job.session.0);
    let asked = Copy { partition, session, tokens, after: after.clone() };
    let Reply::Copied(page) = ask(node, source, Request::Copy(asked)).await? else {
        return Err(Stop::Later(source));
    };
    let rows = page.read().ok_or(Stop::Later(source))?;
    let goes_on = rows.last().is_some_and(|last| last.row > *after);
    match goes_on || !page.more {
        true => Ok((rows, page.more)),
        false => Err(Stop::Later(source)),
    }
}

/// Asks a source something.
pub(super) async fn ask(node: &Node, source: NodeId, request: Request) -> Result<Reply, Stop> {
    let envelope = node.envelope(node.clock().now() + CALL_LIMIT, 0);
    let call = node.transport().call(source, Lane::Bulk, envelope, request);
    let Ok(result) = tokio::time::timeout(CALL_LIMIT, call).await else {
        return Err(Stop::Later(source));
    };
    node.liveness().learn(source, &result);
    match result {
        Ok((epoch, reply)) => {
            node.heard_epoch(source, epoch);
            if let Reply::Failed(failure) = &reply {
                tracing::debug!(%source, %failure, "a copy has to wait");
            }
            Ok(reply)
        }
        Err(_) => Err(Stop::Later(source)),
    }
}
