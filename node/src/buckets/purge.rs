//! How the data of a dropped bucket goes: row by row, in the background, here and not on anybody's word.
//!
//! From the moment in which a drop is known nothing of the bucket is taken any more, from clients or from nodes that have
//! not heard yet, so one pass over everything that is said of records finds all there is. A crash begins it anew.

use std::{sync::Arc, time::Duration};

use atoll_wire::{Ack, BucketId};
use bytes::Bytes;

use super::of_row;
use crate::{
    Node,
    storage::{Space, StoreError, Write, rows},
};

/// Rows looked at in one go.
const PAGE: usize = 256;

/// How long to rest after each, while clients are served.
const REST: Duration = Duration::from_millis(20);

/// Removes whatever is left of dropped buckets, as drops become known. For ever.
pub(crate) async fn watch(node: Arc<Node>) {
    loop {
        let dropped = node.buckets().dropped.notified();
        tokio::pin!(dropped);
        dropped.as_mut().enable(); // before looking, or one in between would be missed
        let any = node.buckets().registry().entries().any(|(_, entry)| entry.dropped);
        if any && purge(&node).await.is_err() {
            return; // the storage has failed, the node stops
        }
        dropped.await;
    }
}

async fn purge(node: &Arc<Node>) -> Result<(), StoreError> {
    let mut gone = 0u64;
    let mut after: Option<Bytes> = None;
    loop {
        let page = node.disk().scan_queued(Space::Digests, b"", after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (row, _) in page {
            if is_of_dropped(node, of_row(&row)) {
                forget(node, &row)?;
                gone += 1;
            }
        }
        rest(node).await;
    }
    for (row, damage) in node.doubt().keys() {
        if is_of_dropped(node, of_row(&row)) {
            node.doubt().key_compared(&row, damage).await?;
        }
    }
    let mut after: Option<Bytes> = None;
    loop {
        let page = node.disk().scan(Space::Hints, b"", after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (row, value) in page {
            if is_of_dropped(node, of_row(&rows::data_of_hint(&row))) {
                node.hints().forget(&row, &value)?;
                gone += 1;
            }
        }
        rest(node).await;
    }
    node.disk().settled().done().await?;
    tracing::info!(rows = gone, "what was left of dropped buckets is gone");
    Ok(())
}

fn is_of_dropped(node: &Node, bucket: BucketId) -> bool {
    node.buckets().is_dropped(bucket)
}

/// Takes a row from the disk and out of the trees. Nobody else runs meanwhile.
fn forget(node: &Node, row: &Bytes) -> Result<(), StoreError> {
    let before = node.repair().trees.summary(row)?;
    node.repair().trees.update(row, before, None);
    let gone = |space| Write { space, row: row.clone(), value: None };
    let writes = vec![gone(Space::Data), gone(Space::Digests), gone(Space::Quarantine)];
    drop(node.disk().write(writes, Ack::Written));
    Ok(())
}

async fn rest(node: &Node) {
    if node.repair().is_busy(node.clock().now()) || node.disk().is_full() {
        tokio::time::sleep(REST).await;
    }
    tokio::task::yield_now().await;
}
