//! What a node answers about buckets: which there are, and that one is created, altered, dropped.
//!
//! A change is made here alone, kept, and told to everybody within reach before the answer leaves; the answer says who has
//! it. Whoever was out of reach hears of it later ([`super::gossip`]). Nobody votes: what two sides decide differently is
//! joined when they meet.

use std::sync::Arc;

use atoll_wire::{
    BucketChange, BucketChanged, BucketId, Buckets as BucketsReply, BucketsQuery, Change,
    ErrorCode, Failure, Reply,
    bucket::{Refused, Registry},
};
use bytes::Bytes;
use tokio::time::Instant;

use super::gossip;
use crate::{Node, node::failed, replica::stopping};

/// Answers a query.
pub(crate) fn all(node: &Node, query: &BucketsQuery) -> Reply {
    let digest = node.buckets().digest();
    let registry = match query.have == digest {
        true => Bytes::new(),
        false => node.buckets().registry().encode().into(),
    };
    Reply::Buckets(BucketsReply { digest, registry })
}

/// Makes a change, or takes over what another node knows.
pub(crate) async fn change(node: Arc<Node>, asked: BucketChange, deadline: Instant) -> Reply {
    let made = match &asked.change {
        Change::Join => take_over(&node, &asked.registry).await,
        Change::Create(_) | Change::Alter(..) | Change::Drop(_) => {
            make(&node, &asked.change, deadline).await
        }
    };
    made.map_or_else(failed, Reply::BucketChanged)
}

async fn take_over(node: &Arc<Node>, registry: &Bytes) -> Result<BucketChanged, Failure> {
    let registry = Registry::decode(registry, node.view().bucket_n())
        .map_err(|error| Failure::refused(ErrorCode::Malformed, error.to_string()))?;
    let before = node.buckets().digest();
    let kept = node.buckets().join(&registry);
    kept.done().await.map_err(|error| stopping(&error))?;
    Ok(BucketChanged {
        bucket: BucketId([0; 16]),
        changed: before != node.buckets().digest(),
        known: vec![node.id().0],
        missing: Vec::new(),
    })
}

async fn make(
    node: &Arc<Node>,
    change: &Change,
    deadline: Instant,
) -> Result<BucketChanged, Failure> {
    node.takes_writes()?;
    let (me, replicas) = (node.id().0, node.view().replicas());
    let made = node.buckets().change(|registry| {
        let (bucket, changed) = match change {
            Change::Create(wanted) => registry.create(wanted, replicas, me)?,
            Change::Alter(bucket, alteration) => {
                (*bucket, registry.alter(*bucket, alteration, me)?)
            }
            Change::Drop(bucket) => (*bucket, registry.drop_bucket(*bucket)?),
            Change::Join => unreachable!("it is taken over, not made"),
        };
        Ok(((bucket, changed), changed.then_some(bucket)))
    });
    let ((bucket, changed), kept) = made.map_err(|refused| failure(&refused))?;
    kept.done().await.map_err(|error| stopping(&error))?;
    let (mut known, missing) = gossip::tell_all(node, deadline).await;
    known.push(me);
    known.sort_unstable();
    Ok(BucketChanged { bucket, changed, known, missing })
}

fn failure(refused: &Refused) -> Failure {
    let code = match refused {
        Refused::Bad(_) | Refused::DefaultStays => ErrorCode::BadBucket,
        Refused::Exists { .. } => ErrorCode::BucketExists,
        Refused::Unknown { .. } => ErrorCode::UnknownBucket,
        Refused::Dropped { .. } => ErrorCode::BucketDropped,
        Refused::TooMany => ErrorCode::TooManyBuckets,
    };
    Failure::refused(code, refused.to_string())
}
