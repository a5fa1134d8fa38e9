//! The owner's part when a former one hands over: which of its rows are held here as they are there.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use atoll_ring::Partition;
use atoll_transport::{Answer, Caller};
use atoll_wire::{BucketId, Covered, Covering, ErrorCode, Failure, Reply};
use bytes::Bytes;

use crate::{
    Node,
    buckets::of_row,
    fence,
    node::failed,
    replica,
    storage::{StoreError, rows},
};

/// Bytes of records that are read in one go.
const SLICE_BYTES: usize = 256 << 10;

/// Answers a former owner that asks which of its rows are held here. The records themselves are read, because after the
/// answer one copy less exists; and the answer leaves after the commit that holds them.
pub(crate) fn covers(node: &Arc<Node>, caller: Caller, asked: &Covered) -> Answer {
    if caller.node.is_none() {
        let detail = "only a node hands over, and it says who it is";
        return Answer::Now(failed(Failure::refused(ErrorCode::NotPermitted, detail)));
    }
    let partition = Partition(asked.partition);
    let Some(rows) = asked.read().filter(|_| node.view().partitions().contains(partition)) else {
        let detail = "there is no such partition, or these are no rows";
        return Answer::Now(failed(Failure::refused(ErrorCode::Malformed, detail)));
    };
    let node = node.clone();
    Answer::Later(Box::pin(async move {
        let (which, buckets) = match compare(&node, partition, rows).await {
            Ok(which) => which,
            Err(error) => return failed(replica::stopping(&error)),
        };
        if let Err(error) = node.disk().settled().done().await {
            return failed(replica::stopping(&error));
        }
        // last: nothing that is said is older than this look
        if let Some(bucket) =
            buckets.iter().find(|bucket| !fence::keeps(&node, partition, **bucket))
        {
            let detail =
                format!("{} keeps nothing of bucket {bucket} in partition {partition}", node.id());
            return failed(Failure::refused(ErrorCode::StaleView, detail));
        }
        Reply::Covering(Covering { which: which.into() })
    }))
}

/// 1 for each row that is the same here, and the buckets of those.
async fn compare(
    node: &Arc<Node>,
    partition: Partition,
    rows: Vec<(Bytes, [u8; 16])>,
) -> Result<(Vec<u8>, BTreeSet<BucketId>), StoreError> {
    let mut which = Vec::with_capacity(rows.len());
    let mut buckets = BTreeSet::new();
    let (mut bytes, mut began) = (0, node.clock().now());
    for (row, digest) in rows {
        let bucket = of_row(&row);
        let is_ours = rows::partition_of_data(&row) == Some(partition)
            && fence::keeps(node, partition, bucket);
        let own = match is_ours {
            true => replica::read(node, &row)?,
            false => None,
        };
        let said = node.repair().trees.summary(&row)?;
        let is_held = own.is_some() && said.is_some_and(|said| said.digest.0 == digest);
        which.push(u8::from(is_held));
        if is_held {
            buckets.insert(bucket);
        }
        bytes += row.len() + own.map_or(0, |own| own.bytes.len());
        if bytes >= SLICE_BYTES {
            let worked: Duration = node.clock().now() - began;
            super::rest(node, worked).await;
            (bytes, began) = (0, node.clock().now());
        }
    }
    Ok((which, buckets))
}
