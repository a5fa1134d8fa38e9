//! What the leader of the log does for the ring: it begins moves, finishes those that are copied, lets go of members that
//! own nothing any more, and keeps the voters as they should be.
//!
//! Nothing is kept between two rounds: what is to be done follows from the view and from what the nodes say. A new leader
//! goes on where the old one stopped, and two that believe to lead do the same things twice, of which the log takes one.
//!
//! ```text
//!   wanted ──Begin──▶ joint ──(every joining owner says: all copied)──Finish──▶ new
//! ```
//!
//! A joining owner can only have copied from an owner that has this very move in its view, so its word is the barrier too
//! (see `moves`). A partition whose leaving owner is down is passed over until that one is back or declared dead.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atoll_ring::{
    Command, Epoch, MemberState, MoveLimits, NodeId, Partition, View, next_moves, seats, voters,
};
use atoll_wire::{Lane, MovesQuery, MovesReport, Reply, Request};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::NotProposed;
use crate::{Node, moves};

/// Pause between two rounds while something moves, and while nothing does.
const ROUND: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_millis(500);

/// How long a node may take to say how its moves go.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Partitions in which one node gives or takes a seat at a time. More finish sooner, and every request to them waits for
/// one node more.
const LIMITS: MoveLimits = MoveLimits { per_node: 32 };

/// Partitions that begin or end with one command. A command of so many is far below a kilobyte, so that whoever is one
/// epoch behind catches up with one small message.
const PER_COMMAND: usize = 64;

/// How long a voter is out of reach until another takes its place.
const VOTER_AWAY: Duration = Duration::from_secs(30);

/// Cares for the ring while this node leads. For ever.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut away: BTreeMap<NodeId, Instant> = BTreeMap::new();
    loop {
        let view = node.view();
        let is_busy = !view.moves().is_empty() || !view.wanted().is_empty();
        tokio::time::sleep(if is_busy { ROUND } else { IDLE }).await;
        note_absence(&node, &mut away);
        if !node.log().standing().leads {
            continue;
        }
        for step in [finish, begin, retire] {
            match step(node.clone()).await {
                Ok(()) | Err(NotProposed::Rejected(_)) => {} // somebody was faster; the next round sees it
                Err(why) => tracing::debug!(%why, "the ring could not be changed"),
            }
        }
        let now = node.clock().now();
        let is_fit = |member| away.get(&member).is_none_or(|since| now < *since + VOTER_AWAY);
        let wanted = voters(&node.view(), is_fit);
        if wanted != node.view().voters()
            && let Err(why) = node.log().set_voters(wanted).await
        {
            tracing::debug!(%why, "the voters could not be changed");
        }
    }
}

/// Since when members have been out of reach.
fn note_absence(node: &Node, away: &mut BTreeMap<NodeId, Instant>) {
    let now = node.clock().now();
    let view = node.view();
    away.retain(|member, _| view.member(*member).is_some());
    for member in view.members().iter().map(|member| member.id) {
        match is_up(node, member) {
            true => drop(away.remove(&member)),
            false => drop(away.entry(member).or_insert(now)),
        }
    }
}

fn is_up(node: &Node, member: NodeId) -> bool {
    member == node.id() || node.liveness().is_up(member)
}

async fn propose(node: &Arc<Node>, command: Command) -> Result<(), NotProposed> {
    node.log().propose(command).await?;
    node.liveness().tell_all(); // once; whoever does not hear it now hears it with the next message
    Ok(())
}

type Step = std::pin::Pin<Box<dyn Future<Output = Result<(), NotProposed>> + Send>>;

/// Begins what may begin.
fn begin(node: Arc<Node>) -> Step {
    Box::pin(async move {
        let (partitions, skipped) = next_moves(&node.view(), LIMITS, |member| is_up(&node, member));
        if let Some((partition, missing)) = skipped.first() {
            tracing::debug!(%partition, %missing, count = skipped.len(), "waits for a node");
        }
        for partitions in partitions.chunks(PER_COMMAND) {
            propose(&node, Command::Begin { partitions: partitions.to_vec() }).await?;
        }
        Ok(())
    })
}

/// Finishes what every joining owner says it has copied.
fn finish(node: Arc<Node>) -> Step {
    Box::pin(async move {
        let view = node.view();
        if view.moves().is_empty() {
            return Ok(());
        }
        let mut waiting: BTreeMap<(NodeId, Partition), Epoch> = BTreeMap::new();
        for partition in view.moves().keys() {
            for joins in joining(&view, *partition) {
                waiting.insert((joins, *partition), view.last_changed(*partition));
            }
        }
        let mut asked: Vec<NodeId> = waiting.keys().map(|(joins, _)| *joins).collect();
        asked.dedup();
        let reports = join_all(asked.iter().map(|joins| ask(&node, *joins))).await;
        for (joins, report) in asked.into_iter().zip(reports) {
            for one in report.as_ref().and_then(MovesReport::read).unwrap_or_default() {
                let place = (joins, Partition(one.partition));
                if one.done && one.joins && waiting.get(&place) == Some(&Epoch(one.session)) {
                    waiting.remove(&place);
                }
            }
        }
        let is_done = |partition: &Partition| !waiting.keys().any(|(_, open)| open == partition);
        let done: Vec<(Partition, Epoch)> = view
            .moves()
            .keys()
            .filter(|partition| is_done(partition))
            .map(|partition| (*partition, view.last_changed(*partition)))
            .collect();
        for done in done.chunks(PER_COMMAND) {
            propose(&node, Command::Finish { partitions: done.to_vec() }).await?;
        }
        Ok(())
    })
}

/// Who must have copied before a partition's move is over: whoever takes a seat that another held.
fn joining(view: &View, partition: Partition) -> Vec<NodeId> {
    match view.owners(partition) {
        atoll_ring::Owners::One(_) => Vec::new(),
        atoll_ring::Owners::Joint { old, new } => seats(old, new)
            .into_iter()
            .filter(|(held, _)| held.is_some())
            .map(|(_, joins)| joins)
            .collect(),
    }
}

/// Lets go of members that own nothing any more. One that leaves in order first hands over everything it keeps for others.
fn retire(node: Arc<Node>) -> Step {
    Box::pin(async move {
        let view = node.view();
        for member in view.members() {
            let is_dead = match member.state {
                MemberState::Active | MemberState::Joining => continue,
                MemberState::Leaving => false,
                MemberState::Dead => true,
            };
            let owns = |partition: &Partition| view.owners(*partition).contains(member.id);
            let is_owner = view.partitions().all().any(|partition| owns(&partition));
            if is_owner || !view.wanted().is_empty() || view.voters().contains(&member.id) {
                continue; // who votes is exchanged first, by the choice of the voters
            }
            let is_empty = is_dead
                || ask(&node, member.id)
                    .await
                    .is_some_and(|report| report.strays == 0 && report.hints == 0);
            if is_empty {
                propose(&node, Command::Retire { node: member.id }).await?;
            }
        }
        Ok(())
    })
}

/// How a member's moves go, as it sees them: in a view at least as new as ours was when it was asked. Who answers with an
/// older one does not know yet that it leaves, and may take what it is let go for not having.
async fn ask(node: &Arc<Node>, member: NodeId) -> Option<MovesReport> {
    if member == node.id() {
        return Some(moves::report(node));
    }
    let newest = node.view().epoch();
    let envelope = node.envelope(node.clock().now() + ANSWER_LIMIT, 0);
    let call =
        node.transport().call(member, Lane::Control, envelope, Request::Moves(MovesQuery {}));
    match tokio::time::timeout(ANSWER_LIMIT, call).await {
        Ok(Ok((epoch, Reply::Moves(report)))) => {
            node.heard_epoch(member, epoch);
            (epoch >= newest).then_some(report)
        }
        Ok(Ok(_) | Err(_)) | Err(_) => None,
    }
}
