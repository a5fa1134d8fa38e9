//! How the voters are exchanged: the group first, then the view.
//!
//! A new voter is taken in as a learner, brought up to date, and made a voter together with everybody else in two steps (the
//! `joint` configuration of Raft, which needs majorities of both sets). Only then a line of the log tells the ring who
//! votes. So the view never names a voter that the group does not have, and a member that still votes cannot be retired.
//!
//! Whoever leads mends what a leader before it has left half done ([`mend`]): a joint configuration, a voter in a former
//! life, a view that does not know the voters yet.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use atoll_ring::{Command, NodeId, VOTERS_MAX};
use openraft::{ChangeMembers, EmptyNode, ServerState};
use tokio::time::Instant;

use super::{AGREE_LIMIT, Line, Member, Metrics, Running, Shared, append, reach};
use crate::{Node, NotProposed};

/// How long a new voter may take to come up to date.
const FOLLOW_LIMIT: Duration = Duration::from_secs(10);

/// Entries that a new voter may miss when it is made one.
const BEHIND_MAX: u64 = 8;

/// Makes exactly these members the voters.
pub(super) async fn set(
    shared: &Shared,
    node: &Arc<Node>,
    mut voters: Vec<NodeId>,
) -> Result<(), NotProposed> {
    voters.sort_unstable();
    voters.dedup();
    let view = node.view();
    let members: BTreeSet<Member> =
        voters.iter().filter_map(|voter| Member::in_view(&view, *voter)).collect();
    if members.len() != voters.len() || voters.is_empty() || voters.len() > VOTERS_MAX {
        let reason = format!("{} of them, {} are members", voters.len(), members.len());
        return Err(atoll_ring::Rejected::BadVoters { reason }.into());
    }
    let Some(running) = shared.running() else { return Err(super::ask_a_voter(node)) };
    let _turn = shared.exchanging.acquire().await.expect("it is never closed");
    shared.leading(node, &running).await?;
    exchange(node, &running, &members).await?;
    // a leader that has just voted itself out cannot; the next one does
    if members.contains(&running.me) { tell(node, &running).await } else { Ok(()) }
}

/// If this node leads: brings group and view together again.
pub(super) async fn mend(shared: &Shared, node: &Arc<Node>, running: &Running) {
    let metrics = running.raft.metrics().borrow().clone();
    if metrics.state != ServerState::Leader || !running.votes() || !reach(node).is_majority() {
        return;
    }
    let Ok(_turn) = shared.exchanging.try_acquire() else { return };
    let mended = async {
        let view = node.view();
        let (voters, is_joint) = voters_of(&metrics);
        let named = |members: &BTreeSet<Member>| -> Vec<NodeId> {
            let mut nodes: Vec<_> = members.iter().map(|member| member.node()).collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        };
        // in their present lives
        let now: BTreeSet<Member> =
            named(&voters).iter().filter_map(|voter| Member::in_view(&view, *voter)).collect();
        let can_change = now
            .iter()
            .all(|member| voters.contains(member) || node.liveness().is_up(member.node()));
        if is_joint || (now != voters && !now.is_empty() && can_change) {
            shared.leading(node, running).await?;
            exchange(node, running, if is_joint { &voters } else { &now }).await?;
        }
        if named(&voters_of(&running.raft.metrics().borrow().clone()).0) != node.view().voters() {
            shared.leading(node, running).await?;
            tell(node, running).await?;
        }
        Ok::<(), NotProposed>(())
    };
    if let Err(why) = mended.await {
        tracing::info!(%why, "the voters are not as they should be yet");
    }
}

/// The voters of the group, those it is changing to if it is, and whether it is.
fn voters_of(metrics: &Metrics) -> (BTreeSet<Member>, bool) {
    let sets = metrics.membership_config.membership().get_joint_config();
    let last = sets.last().into_iter().flatten().map(|member| Member(*member)).collect();
    (last, sets.len() > 1)
}

/// Tells the ring who votes, if it does not know.
async fn tell(node: &Arc<Node>, running: &Running) -> Result<(), NotProposed> {
    let (members, _) = voters_of(&running.raft.metrics().borrow().clone());
    let mut voters: Vec<NodeId> = members.iter().map(|member| member.node()).collect();
    voters.sort_unstable();
    voters.dedup();
    if node.view().voters() == voters {
        return Ok(());
    }
    let (at_ms, command) = (node.clock().wall_ms(), Command::Voters { voters });
    append(&running.raft, Line::Change { at_ms, command }).await??;
    Ok(())
}

/// From the present voters to these.
async fn exchange(
    node: &Arc<Node>,
    running: &Running,
    members: &BTreeSet<Member>,
) -> Result<(), NotProposed> {
    let raft = &running.raft;
    let present = raft.metrics().borrow().membership_config.membership().clone();
    let voting: BTreeSet<u64> = present.voter_ids().collect();
    let new: BTreeSet<u64> =
        members.iter().map(|member| member.0).filter(|member| !voting.contains(member)).collect();
    for member in new.iter().filter(|member| present.get_node(member).is_none()) {
        let added = raft.add_learner(*member, EmptyNode {}, false);
        agreed(tokio::time::timeout(AGREE_LIMIT, added).await)?;
    }
    let until = node.clock().now() + FOLLOW_LIMIT;
    for member in new.iter().map(|member| Member(*member)) {
        if !follows(running, member, until).await {
            let change = ChangeMembers::RemoveNodes(new);
            let taken_back = raft.change_membership(change, true);
            agreed(tokio::time::timeout(AGREE_LIMIT, taken_back).await)?;
            let who = member.node();
            return Err(NotProposed::Frozen(format!("{who} does not follow the log yet")));
        }
    }
    let voters: BTreeSet<u64> = members.iter().map(|member| member.0).collect();
    agreed(tokio::time::timeout(2 * AGREE_LIMIT, raft.change_membership(voters, false)).await)?;
    Ok(())
}

/// Waits until a member has nearly all of the log.
async fn follows(running: &Running, member: Member, until: Instant) -> bool {
    if member == running.me {
        return true;
    }
    let mut metrics = running.raft.metrics();
    loop {
        let now = metrics.borrow_and_update().clone();
        let matched = now.replication.as_ref().and_then(|all| all.get(&member.0).copied());
        if let (Some(Some(matched)), Some(last)) = (matched, now.last_log_index)
            && matched.index + BEHIND_MAX >= last
        {
            return true;
        }
        if now.state != ServerState::Leader
            || !matches!(tokio::time::timeout_at(until, metrics.changed()).await, Ok(Ok(())))
        {
            return false;
        }
    }
}

fn agreed<T, E: ToString, L>(outcome: Result<Result<T, E>, L>) -> Result<T, NotProposed> {
    match outcome {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(NotProposed::Unknown(error.to_string())),
        Err(_) => Err(NotProposed::Unknown("no majority has agreed in time".into())),
    }
}
