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

/// Pause between two rounds while something moves, the same while clients are served, and while nothing moves. A round makes
/// up to two views, and every view is checked, stored, synced and followed by every node: many small ones cost clients more
/// than the copying does.
const ROUND: Duration = Duration::from_millis(100);
const ROUND_BUSY: Duration = Duration::from_secs(1);
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

/// How long an exchange of voters that has failed is left alone, the first time and at most. Each attempt takes up to ten
/// seconds in which nothing else is done.
const EXCHANGE_PAUSE: Duration = Duration::from_secs(5);
const EXCHANGE_PAUSE_MAX: Duration = Duration::from_secs(120);

/// Other voters that are wanted, and how often they could not be had.
#[derive(Default)]
struct Exchange {
    wanted: Vec<NodeId>,
    failed: u32,
    not_before: Option<Instant>,
}

impl Exchange {
    /// Whether these voters may be tried now. Others than before may at once.
    fn may_try(&mut self, wanted: &[NodeId], now: Instant) -> bool {
        if self.wanted != wanted {
            *self = Exchange { wanted: wanted.to_vec(), ..Exchange::default() };
        }
        self.not_before.is_none_or(|at| now >= at)
    }

    /// They could not be had. How long they are left alone.
    fn failed(&mut self, now: Instant) -> Duration {
        let pause = EXCHANGE_PAUSE.saturating_mul(1 << self.failed.min(16)).min(EXCHANGE_PAUSE_MAX);
        self.failed += 1;
        self.not_before = Some(now + pause);
        pause
    }
}

/// Cares for the ring while this node leads. For ever.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut away: BTreeMap<NodeId, Instant> = BTreeMap::new();
    let mut exchange = Exchange::default();
    loop {
        let view = node.view();
        let moves = !view.moves().is_empty() || !view.wanted().is_empty();
        let pause = match (moves, moves::is_busy(&node)) {
            (true, true) => ROUND_BUSY,
            (true, false) => ROUND,
            (false, _) => IDLE,
        };
        tokio::time::sleep(pause).await;
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
        if wanted == node.view().voters() {
            exchange = Exchange::default();
            node.moves().voters_wait(String::new());
        } else if exchange.may_try(&wanted, now)
            && let Err(why) = node.log().set_voters(wanted.clone()).await
        {
            let pause = exchange.failed(node.clock().now());
            tracing::info!(%why, ?pause, "the voters could not be changed; tried again after a pause");
            let names = wanted.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
            node.moves().voters_wait(format!(
                "{names} shall vote and cannot be made to: {why}; tried every {} s",
                pause.as_secs()
            ));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The same voters are tried less and less often, others at once.
    #[tokio::test(start_paused = true)]
    async fn voters_that_cannot_be_had_are_left_alone() {
        let (mut exchange, begun) = (Exchange::default(), Instant::now());
        let (these, those) = ([1, 2, 3].map(NodeId), [1, 2, 4].map(NodeId));
        assert!(exchange.may_try(&these, begun));
        let pauses: Vec<u64> = (0..7).map(|_| exchange.failed(begun).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 120, 120]);
        assert!(!exchange.may_try(&these, begun + Duration::from_secs(119)));
        assert!(exchange.may_try(&these, begun + Duration::from_secs(120)));
        assert!(exchange.may_try(&those, begun));
        assert_eq!(exchange.failed(begun), EXCHANGE_PAUSE);
    }
}
