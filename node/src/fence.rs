//! The fence: what was planned before a partition last changed is not done.
//!
//! A move rests on what its leaving owner has promised: from the view on in which the partition is joint it takes no part in
//! anything that was planned before. So each replica asks here before it reads or writes, and so does the coordinator in its
//! own step. The question and the deed stand between the same two awaits, because a view may be adopted at any other time.
//! Whoever has waited asks again before it answers.
//!
//! Changes of other partitions refuse nothing: a plan is as old as the last change of its own partition allows.

use std::{sync::Arc, time::Duration};

use atoll_ring::{Epoch, MemberState, NodeId, Partition};
use atoll_wire::{BucketId, ErrorCode, Failure};
use tokio::time::Instant;

use crate::{
    Node,
    canary::{self, Canary},
    membership::catch_up,
};

/// The longest that a request waits for this node to learn a view that others have. Longer than a view takes to come, and
/// half of the time that a request has by default.
const CATCH_UP_LIMIT: Duration = Duration::from_millis(500);

/// Refuses what another node has planned before the partition last changed. Only a client may leave the epoch out: whoever
/// asks a replica has planned.
pub(crate) fn of_others(node: &Node, partition: Partition, planned: Epoch) -> Result<(), Failure> {
    match canary::is_on(Canary::SkipFence) {
        true => Ok(()),
        false => check(node, partition, planned),
    }
}

/// Refuses what this node itself has planned before the partition last changed.
pub(crate) fn of_own(node: &Node, partition: Partition, planned: Epoch) -> Result<(), Failure> {
    match canary::is_on(Canary::SkipFence) || canary::is_on(Canary::FenceOthersOnly) {
        true => Ok(()),
        false => check(node, partition, planned),
    }
}

fn check(node: &Node, partition: Partition, planned: Epoch) -> Result<(), Failure> {
    let changed = node.view().last_changed(partition);
    if planned >= changed {
        return Ok(());
    }
    Err(stale(format!(
        "planned at epoch {planned}, and partition {partition} changed at {changed}"
    )))
}

/// Whether this node keeps a bucket's keys of the partition, as it knows now: in the old owner set, or in the new one.
pub(crate) fn keeps(node: &Node, partition: Partition, bucket: BucketId) -> bool {
    keeps_as(node, node.id(), partition, bucket)
}

/// Whether another node does: it is among the first owners, so many of them as the bucket has copies.
pub(crate) fn keeps_as(node: &Node, owner: NodeId, partition: Partition, bucket: BucketId) -> bool {
    let copies = node.buckets().copies(bucket);
    node.view().owners(partition).first(copies).contains(owner)
}

/// Refuses what only an owner may do. Whoever has sent it knows another view; which of the two is the newer one, the epochs
/// beside request and reply tell.
pub(crate) fn owners_only(
    node: &Node,
    partition: Partition,
    bucket: BucketId,
) -> Result<(), Failure> {
    match keeps(node, partition, bucket) || canary::is_on(Canary::SkipFence) {
        true => Ok(()),
        false => {
            let (me, epoch) = (node.id(), node.view().epoch());
            let copies = node.buckets().copies(bucket);
            Err(stale(format!(
                "{me} is none of the first {copies} owners of partition {partition} at epoch {epoch}"
            )))
        }
    }
}

/// Refuses to stand in for a node that is no owner. If whoever asks knows a newer view than we do it may be right.
pub(crate) fn owned_by(
    node: &Node,
    owner: NodeId,
    partition: Partition,
    bucket: BucketId,
    planned: Epoch,
) -> Result<(), Failure> {
    let epoch = node.view().epoch();
    let detail =
        format!("{owner} does not own the key, of partition {partition}, at epoch {epoch}");
    match keeps_as(node, owner, partition, bucket) {
        true => Ok(()),
        false if planned > epoch => Err(stale(detail)),
        false => Err(Failure::refused(ErrorCode::Malformed, detail)),
    }
}

/// Refuses to keep anything for others on a node that leaves: it has said, or is about to say, that it keeps nothing, and is
/// let go for that.
pub(crate) fn stays(node: &Node) -> Result<(), Failure> {
    let view = node.view();
    match view.member(node.id()).map(|member| member.state) {
        Some(MemberState::Active | MemberState::Joining) => Ok(()),
        Some(MemberState::Leaving | MemberState::Dead) | None => {
            Err(stale(format!("{} leaves the ring at epoch {}", node.id(), view.epoch())))
        }
    }
}

/// A peer speaks of a view that is newer than ours: waits until we have it, but never for long and not past the deadline.
pub(crate) async fn catch_up(node: &Arc<Node>, peer: NodeId, epoch: Epoch, deadline: Instant) {
    node.heard_epoch(peer, epoch);
    wait_for(node, epoch, deadline).await;
}

/// The same, if somebody else has to say who knows that view.
pub(crate) async fn wait_for(node: &Arc<Node>, epoch: Epoch, deadline: Instant) {
    let limit = deadline.min(node.clock().now() + CATCH_UP_LIMIT);
    catch_up::reached(node, epoch, limit).await;
}

fn stale(detail: String) -> Failure {
    Failure { retry_after_ms: 100, ..Failure::refused(ErrorCode::StaleView, detail) }
}
