//! Listing the keys of a bucket, a page at a time: a full scan, and its cost is bounded page by page.
//!
//! Keys have no order of their own in a ring, so a listing goes through all partitions, one after the other. Of each so many
//! owners are asked as a read would ask ([`scan`] is their part), and what they hold is laid side by side: where all agree,
//! that is it; where they differ the key is read as any other. So a page knows every key that a read of the same r would
//! find, at the moment when its partition was looked at. It is no snapshot: a key that is written behind the page is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use atoll_ring::{NodeId, Partition, Quorum};
use atoll_wire::{
    BucketId, Envelope, ErrorCode, Failure, Lane, List, Listed, PageToken, Repair, Reply, Request,
    Scan, Scanned, ScannedRow,
    limits::{LIST_KEYS_MAX, SCAN_ROWS_MAX},
};
use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    Place,
    get::{Reader, read_state},
    sets,
};
use crate::{
    Node, fence,
    node::{Due, failed},
    replica,
    storage::{Space, record::Record, rows},
};

/// Rows that owners may look at for one page. A bucket of a few keys in a large store takes many pages.
const PAGE_ROWS_MAX: u32 = 20_000;

/// Bytes of records that an owner reads for one answer. Whether a key has a value can be told from its record alone.
const SCAN_BYTES_MAX: usize = 4 << 20;

/// Rows that an owner reads at once. Few, because each may hold as many bytes as a key may have.
const STEP: usize = 16;

/// Answers with a page.
pub(crate) async fn list(node: Arc<Node>, list: List, due: Due) -> Reply {
    match try_list(&node, &list, due).await {
        Ok(listed) => Reply::Listed(listed),
        Err(failure) => failed(failure),
    }
}

async fn try_list(node: &Arc<Node>, list: &List, due: Due) -> Result<Listed, Failure> {
    let page = PageToken::decode(&list.page, due.bucket, &list.prefix)
        .map_err(|error| Failure::refused(ErrorCode::BadPage, error.to_string()))?;
    let count = node.view().partitions().count();
    let limit = usize::from(list.limit).clamp(1, LIST_KEYS_MAX);
    let started = node.clock().now();
    let half = started + due.deadline.saturating_duration_since(started) / 2;
    let (mut keys, mut scanned, mut at) = (Vec::new(), 0, page);
    while u32::from(at.partition) < count {
        let partition = Partition(at.partition);
        let side = side_by_side(node, list, partition, &at.after, due).await?;
        scanned += side.looked_at;
        let mut cut = None;
        for (row, alive) in side.rows {
            let (_, key) = rows::bucket_and_key(&row).expect("it was looked at");
            if alive && key.starts_with(&list.prefix) {
                keys.push(key);
            }
            if keys.len() == limit {
                cut = Some(row);
                break;
            }
        }
        at = match (cut, side.complete_to) {
            (Some(last), _) | (None, Some(last)) => PageToken { after: last, ..at },
            (None, None) if u32::from(at.partition) + 1 == count => {
                let (page, partitions) = (Bytes::new(), (count, count));
                return Ok(Listed { page, scanned, partitions, keys: Listed::tail(&keys) });
            }
            (None, None) => PageToken { partition: at.partition + 1, after: Bytes::new() },
        };
        if keys.len() == limit || scanned >= PAGE_ROWS_MAX || node.clock().now() >= half {
            break;
        }
    }
    Ok(Listed {
        page: at.encode(due.bucket, &list.prefix),
        scanned,
        partitions: (u32::from(at.partition), count),
        keys: Listed::tail(&keys),
    })
}

/// What owners of a partition hold, as one list.
struct Side {
    /// Keys in the order of their rows, and whether they have a value.
    rows: Vec<(Bytes, bool)>,
    /// How far the list is complete, if there may be more.
    complete_to: Option<Bytes>,
    looked_at: u32,
}

async fn side_by_side(
    node: &Arc<Node>,
    list: &List,
    partition: Partition,
    after: &Bytes,
    due: Due,
) -> Result<Side, Failure> {
    // any key of the partition stands for its owners
    let place = Place::of_partition(node, due.bucket, partition)?;
    let quorum = super::quorum(&list.quorum, &place)?;
    let answers = ask_enough(node, &place, &quorum, after, due).await?;
    let looked_at = answers.values().map(|answer| answer.looked_at).sum();
    let ends = answers.values().filter(|answer| !answer.last.is_empty());
    let complete_to: Option<Bytes> = ends.map(|answer| answer.last.clone()).min();
    let mut said: BTreeMap<Bytes, Vec<(bool, ScannedRow)>> = BTreeMap::new();
    let counted = answers.values().filter(|answer| !answer.in_doubt).count();
    for answer in answers.into_values() {
        let counts = !answer.in_doubt;
        let rows = answer.read().ok_or_else(|| {
            Failure::refused(ErrorCode::Internal, "an owner told of rows that are none")
        })?;
        for row in rows {
            let fits = rows::bucket_and_key(&row.row).is_some_and(|(own, _)| own == due.bucket);
            if fits && complete_to.as_ref().is_none_or(|end| row.row <= *end) {
                said.entry(row.row.clone()).or_default().push((counts, row));
            }
        }
    }
    let mut all = Vec::with_capacity(said.len());
    for (row, said) in said {
        let first = &said[0].1;
        let all_say_so = said.iter().filter(|(counts, _)| *counts).count() == counted;
        let agree = all_say_so && said.iter().all(|(_, one)| one.digest == first.digest);
        let alive = match agree {
            true => first.alive,
            false => has_value(node, &place, quorum, &row, due).await?,
        };
        all.push((row, alive));
    }
    Ok(Side { rows: all, complete_to, looked_at })
}

/// Reads a key of which owners say different things.
async fn has_value(
    node: &Arc<Node>,
    place: &Place,
    quorum: Quorum,
    row: &Bytes,
    due: Due,
) -> Result<bool, Failure> {
    let (_, key) = rows::bucket_and_key(row).expect("it was looked at");
    let place = Place { key, row: row.clone(), ..place.clone() };
    let to_know = atoll_antientropy::Context::new();
    let reader = Reader { quorum, repair: Repair::Async, in_session: false, to_know };
    let state = read_state(node, &place, reader, due).await?;
    Ok(state.has_value(node.clock().wall_ms()))
}

/// The answers of r owners, in each owner set if the partition moves; those of owners in doubt beside them.
async fn ask_enough(
    node: &Arc<Node>,
    place: &Place,
    quorum: &Quorum,
    after: &Bytes,
    due: Due,
) -> Result<BTreeMap<NodeId, Scanned>, Failure> {
    let owners = place.owners_to_read(quorum.n());
    let (mut order, sets) = (owners.all(), sets(owners));
    order.sort_by_key(|owner| {
        let (state, distance) = node.liveness().rank(*owner);
        (*owner != node.id(), state, distance)
    });
    let mut answers: BTreeMap<NodeId, Scanned> = BTreeMap::new();
    let mut tried: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let mut wanted = BTreeSet::new();
        for set in &sets {
            let has = |owner: &&NodeId| answers.get(owner).is_some_and(|answer| !answer.in_doubt);
            let missing = usize::from(quorum.r()).saturating_sub(set.iter().filter(has).count());
            let next = order.iter().filter(|owner| set.contains(owner) && !tried.contains(*owner));
            wanted.extend(next.take(missing).copied());
            if missing > 0
                && order.iter().all(|owner| !set.contains(owner) || tried.contains(owner))
            {
                let detail = format!(
                    "{} of {} owners of partition {} have told what they hold; try again, or ask for fewer with -r (`atoll \
                     status` shows who is away)",
                    set.iter().filter(has).count(),
                    quorum.r(),
                    place.partition
                );
                return Err(Failure::refused(ErrorCode::ReadQuorumNotMet, detail));
            }
        }
        if wanted.is_empty() {
            return Ok(answers);
        }
        tried.extend(&wanted);
        let asked = wanted.into_iter().map(|owner| ask(node, place, owner, after, due));
        answers.extend(join_all(asked).await.into_iter().flatten());
    }
}

/// The answer of one owner; none if it gives none.
async fn ask(
    node: &Arc<Node>,
    place: &Place,
    owner: NodeId,
    after: &Bytes,
    due: Due,
) -> Option<(NodeId, Scanned)> {
    let limit = u16::try_from(SCAN_ROWS_MAX).expect("it fits");
    let asked = Scan { partition: place.partition.0, after: after.clone(), limit };
    let envelope = place.envelope(node, due);
    let reply = match owner == node.id() {
        true => scan(node, &envelope, &asked),
        false if node.liveness().is_down(owner) => return None,
        false => {
            let call = node.transport().call(owner, Lane::Bulk, envelope, Request::Scan(asked));
            let answer = tokio::time::timeout_at(due.deadline, call).await.ok()?;
            node.liveness().learn(owner, &answer);
            answer.ok()?.1
        }
    };
    match reply {
        Reply::Scanned(scanned) => Some((owner, scanned)),
        _ => None,
    }
}

/// An owner's part: what it holds of a bucket in a partition, from a row on.
pub(crate) fn scan(node: &Node, envelope: &Envelope, scan: &Scan) -> Reply {
    match try_scan(node, envelope.bucket, envelope, scan) {
        Ok(scanned) => Reply::Scanned(scanned),
        Err(failure) => failed(failure),
    }
}

fn try_scan(
    node: &Node,
    bucket: BucketId,
    envelope: &Envelope,
    scan: &Scan,
) -> Result<Scanned, Failure> {
    let partition = Partition(scan.partition);
    if !node.view().partitions().contains(partition) {
        let detail = format!("there is no partition {partition}");
        return Err(Failure::refused(ErrorCode::Malformed, detail));
    }
    fence::of_others(node, partition, envelope.epoch)?;
    fence::owners_only(node, partition, bucket)?;
    let limit = usize::from(scan.limit).clamp(1, SCAN_ROWS_MAX);
    let now_ms = node.clock().wall_ms();
    let prefix = partition.0.to_be_bytes();
    let (mut found, mut looked_at, mut bytes) = (Vec::new(), 0, 0);
    let mut after = scan.after.clone();
    let last = loop {
        let behind = (!after.is_empty()).then_some(&after[..]);
        let page = node.disk().scan(Space::Data, &prefix, behind, STEP);
        let page = page.map_err(|error| replica::stopping(&error))?;
        let is_last = page.len() < STEP;
        for (row, value) in page {
            after = row.clone();
            looked_at += 1;
            bytes += value.len();
            let own = rows::bucket_and_key(&row).is_some_and(|(own, _)| own == bucket);
            if !own {
                continue;
            }
            // a damaged one is found and mended by whoever reads the key: say something else than everybody
            if let Ok(Record { state, .. }) = Record::decode(&row, &value) {
                let alive = state.has_value(now_ms);
                found.push(ScannedRow { row, alive, digest: state.digest() });
            }
        }
        if is_last {
            break Bytes::new();
        }
        if found.len() + STEP > limit || bytes >= SCAN_BYTES_MAX || looked_at >= PAGE_ROWS_MAX {
            break after;
        }
    };
    let doubted = !node.doubt().keys_of(partition, &scan.after, 1).is_empty();
    Ok(Scanned {
        last,
        looked_at,
        in_doubt: node.doubt().covers_partition(partition) || doubted,
        rows: Scanned::tail(&found),
    })
}
