//! The life of a GET, seen from its coordinator.
//!
//! The own copy first, if we are an owner, then the nearest others, `r` in all. Whoever fails is replaced by the next
//! owner at once; whoever is slower than usual gets company ([`crate::hedge`]); whoever is silent for a quarter of the
//! time is given up. When no owner is left to ask and the request is sloppy, fallbacks are asked for their hints; one that
//! has none has not answered. At `r` answers the states are joined and the client has its reply.
//!
//! While the partition moves `r` answers are needed among its old owners and among its new ones ([`choice`]). If it changes
//! under the read, the read begins again: what was answered belongs to a plan that is over.
//!
//! An owner in doubt ([`crate::doubt`]) may have lost something of the key. What it holds is joined, and its answer does
//! not count: somebody else is asked in its place.
//!
//! In a session the answer must know all that the session has seen ([`Reader::to_know`]): as long as it does not, further
//! owners are asked, then fallbacks, then all of them again until time is over.
//!
//! Owners that were behind get the joined state: afterwards, or before the client hears anything (`repair = blocking`), or
//! not at all. An owner in doubt that has nothing but a damaged record gives no answer. It gets the joined state like
//! everybody.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use atoll_antientropy::{Context, State};
use atoll_ring::{NodeId, Outcome as Verdict, Quorum, Tally, Vote};
use atoll_transport::{Boxed, CallError};
use atoll_wire::{
    Deed, Effect, ErrorCode, Failure, Fetch, Found, Get, Lane, Outcome as Did, Repair,
    ReplicaReport, Reply, Request,
};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use super::{
    PLANS_MAX, Place, SILENCE_SHARE, ballot::is_open, micros, planned_in_vain, sets,
    stand_ins::StandIns,
};
use crate::{
    Node,
    canary::{self, Canary},
    fence,
    measured::Leg,
    node::Due,
    replica::{self, Known},
};

mod choice;
mod repair;
mod reply;

/// Reads a key from `r` of its owners.
pub(crate) async fn get(node: Arc<Node>, get: Get, due: Due) -> Reply {
    let began = node.clock().now();
    match try_get(&node, get, due).await {
        Ok(found) => {
            node.pace().read(node.clock().now() - began, &found);
            Reply::Found(found)
        }
        Err(failure) => {
            node.pace().missed(&failure);
            crate::node::failed(failure)
        }
    }
}

async fn try_get(node: &Arc<Node>, get: Get, due: Due) -> Result<Found, Failure> {
    let place = Place::of(node, due.bucket, get.key.clone())?;
    let quorum = super::quorum(&get.quorum, &place)?;
    let session = get.session.filter(|_| !canary::is_on(Canary::ForgetSession));
    let in_session = session.is_some();
    let to_know = place.open(node, session.unwrap_or_default())?;
    let reader = Reader { quorum, repair: get.repair, in_session, to_know };
    let (read, joined) = read(node, place, reader, due).await?;
    node.count_read();
    Ok(read.found(joined))
}

/// The joined state of so many owners, for whoever coordinates a change.
pub(super) async fn read_state(
    node: &Arc<Node>,
    place: &Place,
    reader: Reader,
    due: Due,
) -> Result<State, Failure> {
    let (read, joined) = read(node, place.clone(), reader, due).await?;
    let heard = joined.clone();
    drop(read.found(joined)); // whoever was behind is mended as after any read
    Ok(heard)
}

/// Reads until the answer is good, or time is over: with every view that comes meanwhile, and again if what the session
/// has seen is still on its way.
async fn read(
    node: &Arc<Node>,
    mut place: Place,
    reader: Reader,
    due: Due,
) -> Result<(Read, State), Failure> {
    let mut plans = 1;
    loop {
        match Read::start(node, place.clone(), reader.clone(), due).outcome().await {
            Outcome::Read(read, joined) => return Ok((*read, joined)),
            Outcome::Failed(failure) => return Err(failure),
            Outcome::KnowsTooLittle(failure) => {
                if node.clock().now() + KNOW_MORE_SOON >= due.deadline {
                    return Err(failure);
                }
                tokio::time::sleep(KNOW_MORE_SOON).await;
            }
            Outcome::PlanIsOver => {
                if plans == PLANS_MAX || node.clock().now() >= due.deadline {
                    return Err(planned_in_vain(Effect::NotApplied));
                }
                plans += 1;
                node.note(due, Deed::PlannedAnew);
                tracing::debug!("a read is planned anew");
            }
        }
        place = place.anew(node);
    }
}

/// How a read is asked.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) quorum: Quorum,
    pub(super) repair: Repair,
    /// Replicas answer after the commit that holds what they answer: what a session has seen once stays.
    pub(super) in_session: bool,
    /// What the answer must know.
    pub(super) to_know: Context,
}

impl Reader {
    /// Whether what replicas answer must be on their disks.
    fn durable(&self) -> bool {
        self.in_session || self.repair == Repair::Blocking
    }
}

/// What came of one plan of a read.
enum Outcome {
    /// Enough have answered, and this is what they know.
    Read(Box<Read>, State),
    Failed(Failure),
    /// Everybody who could be asked knows less than the session has seen.
    KnowsTooLittle(Failure),
    /// The partition has changed its owners meanwhile.
    PlanIsOver,
}

/// How long until everybody is asked again for what a session has seen: a write or a hint is on its way.
const KNOW_MORE_SOON: Duration = Duration::from_millis(20);

/// A read under way.
struct Read {
    node: Arc<Node>,
    place: Place,
    reader: Reader,
    due: Due,
    started: Instant,
    tally: Tally,
    /// The owner sets in which it counts: one, or two while the partition moves.
    sets: Vec<Vec<NodeId>>,
    reports: Vec<ReplicaReport>,
    /// Owners not asked yet, the best first.
    reserve: VecDeque<NodeId>,
    /// Fallbacks not asked yet.
    stand_ins: StandIns,
    /// Owners that gave no answer and for whom nobody was asked yet.
    vacant: VecDeque<NodeId>,
    asked: FuturesUnordered<Boxed<(Who, Fetched)>>,
    /// States as they came, canonical bytes; empty = the owner has none.
    answers: Vec<(Who, Bytes)>,
    /// What the client shall know to be repaired.
    repaired: Vec<u32>,
    /// Somebody has refused because of a view that we have not seen.
    left_behind: bool,
    /// What the answers know that came so far; kept only if something must be known.
    known: Context,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Owner(NodeId),
    /// A fallback, and the owner in whose seat it votes.
    StandIn(NodeId, NodeId),
}

impl Who {
    fn node(self) -> NodeId {
        match self {
            Who::Owner(node) | Who::StandIn(node, _) => node,
        }
    }
}

enum Fetched {
    State(Bytes),
    /// Perhaps less than the owner once knew.
    InDoubt(Bytes),
    /// A fallback without a hint for the key.
    Nothing,
    Corrupt,
    Down,
    Refused,
    /// It knows that the partition has changed since this was planned; by now we know too, unless nobody told us in time.
    Stale,
}

impl Read {
    fn start(node: &Arc<Node>, place: Place, reader: Reader, due: Due) -> Self {
        let quorum = reader.quorum;
        let owners = place.owners_to_read(quorum.n());
        let (all, sets) = (owners.all(), sets(owners));
        let mut order = all.clone();
        // while the partition moves, of equals first those who stay: their answers count in both sets
        let stays = |owner: &NodeId| sets.iter().all(|set| set.contains(owner));
        order.sort_by_key(|owner| {
            let (state, distance) = node.liveness().rank(*owner);
            (*owner != node.id(), state, !stays(owner), distance)
        });
        let (reserve, at_once) = choice::enough(&order, &sets, quorum.r());
        let report = |owner: NodeId| ReplicaReport {
            node: owner.0,
            stands_in_for: None,
            outcome: Did::NotAsked,
            micros: 0,
        };
        let mut read = Read {
            node: node.clone(),
            tally: Tally::new(owners, quorum.of_read(), quorum.sloppy()),
            reports: all.into_iter().map(report).collect(),
            sets,
            reserve,
            stand_ins: match quorum.sloppy() {
                true => StandIns::of(&place),
                false => StandIns::none(),
            },
            vacant: VecDeque::new(),
            asked: FuturesUnordered::new(),
            answers: Vec::new(),
            repaired: Vec::new(),
            left_behind: false,
            known: Context::new(),
            started: node.clock().now(),
            place,
            reader,
            due,
        };
        for _ in 0..at_once {
            if let Some(owner) = read.reserve.pop_front() {
                read.ask(Who::Owner(owner));
            }
        }
        read
    }

    /// Whether the partition has changed since this was planned.
    fn is_stale(&self) -> bool {
        fence::of_own(&self.node, self.place.partition, self.place.epoch()).is_err()
    }

    async fn outcome(mut self) -> Outcome {
        self.until_decided().await;
        self.node.note(self.due, Deed::Decided);
        let verdict = self.tally.outcome();
        if self.is_stale() {
            return Outcome::PlanIsOver;
        }
        let failure = match verdict {
            Verdict::Won if !self.knows_enough() => {
                return Outcome::KnowsTooLittle(self.knows_too_little());
            }
            Verdict::Won => {
                let joined = match self.joined() {
                    Ok(joined) => joined,
                    Err(failure) => return Outcome::Failed(failure),
                };
                if self.reader.repair == Repair::Blocking {
                    let sure = self.make_sure(&joined).await;
                    self.node.note(self.due, Deed::Assured);
                    if self.is_stale() {
                        return Outcome::PlanIsOver;
                    }
                    if let Err(failure) = sure {
                        return Outcome::Failed(failure);
                    }
                }
                return Outcome::Read(Box::new(self), joined);
            }
            Verdict::Lost => {
                if self.reports.iter().any(|report| report.outcome == Did::Corrupt) {
                    self.hear_the_others().await; // whether every copy is damaged makes a difference to whoever reads
                }
                let code = match self.left_behind {
                    true => ErrorCode::StaleView,
                    false => ErrorCode::ReadQuorumNotMet,
                };
                self.not_met(code)
            }
            Verdict::Pending => self.not_met(ErrorCode::DeadlinePassed),
        };
        Outcome::Failed(failure)
    }

    /// Whether what was answered is all that must be known.
    fn knows_enough(&self) -> bool {
        self.known.covers(&self.reader.to_know)
    }

    /// Whether it goes on: it is not decided, or it is won and something is missing that the session has seen.
    fn is_open(&self) -> bool {
        match self.tally.outcome() {
            Verdict::Pending => true,
            Verdict::Won => !self.knows_enough(),
            Verdict::Lost => false,
        }
    }

    async fn until_decided(&mut self) {
        let left = self.due.deadline.saturating_duration_since(self.started);
        let patience: Duration = left / SILENCE_SHARE;
        let mut silence_ends = self.started + patience;
        let mut hedge_at = match self.asked.is_empty() {
            true => None,
            false => self.node.hedge().begin().map(|patience| self.started + patience),
        };
        while self.is_open() && !self.is_stale() {
            if self.asked.is_empty() && !self.ask_another(None) && !self.ask_for_more() {
                return;
            }
            let next = hedge_at.unwrap_or(silence_ends).min(silence_ends);
            tokio::select! { biased;
                Some((who, fetched)) = self.asked.next() => self.count(who, fetched),
                () = tokio::time::sleep_until(self.due.deadline) => return,
                () = tokio::time::sleep_until(next) => {
                    if hedge_at.take_if(|at| *at <= next).is_some() {
                        if !self.reserve.is_empty() && self.node.hedge().take() {
                            self.node.note(self.due, Deed::Hedged);
                            self.ask_next_owners(None);
                        }
                    } else {
                        self.give_up_the_silent();
                        silence_ends += patience;
                    }
                }
            }
        }
    }

    /// Asks the owners that were not needed, and waits for them a little.
    async fn hear_the_others(&mut self) {
        self.stand_ins = StandIns::none();
        while let Some(owner) = self.reserve.pop_front() {
            self.ask(Who::Owner(owner));
        }
        let now = self.node.clock().now();
        let patience = self.due.deadline.saturating_duration_since(now) / SILENCE_SHARE;
        while let Ok(Some((who, fetched))) =
            tokio::time::timeout_at(now + patience, self.asked.next()).await
        {
            self.count(who, fetched);
        }
    }

    /// Puts the question to somebody. The own copy answers at once.
    fn ask(&mut self, who: Who) {
        self.note(who, Did::Pending);
        let node = who.node();
        if node == self.node.id() {
            self.ask_ourselves(who);
        } else if self.node.liveness().is_down(node) {
            // a killed process leaves a connection that looks alive for a while; a call on it would use up our time
            self.count(who, Fetched::Down);
        } else {
            let deed = match who {
                Who::Owner(_) => Deed::Sent,
                Who::StandIn(..) => Deed::SentToFallback,
            };
            self.node.note_with(self.due, deed, node);
            self.asked.push(fetch(&self.node, who, &self.place, self.due, self.reader.durable()));
        }
    }

    fn ask_ourselves(&mut self, who: Who) {
        if self.is_stale() {
            return self.count(who, Fetched::Stale);
        }
        let asked = self.node.clock().now();
        let known = match who {
            Who::Owner(_) => replica::known(&self.node, &self.place.row),
            Who::StandIn(..) => {
                let hints = replica::hints_of(&self.node, self.place.bucket, &self.place.key);
                hints.map(|known| (known, false))
            }
        };
        self.node.note(self.due, Deed::OwnCopyRead);
        let after = self.node.clock().now() - asked;
        self.node.measured().add(self.node.id(), Leg::Fetch, after);
        let fetched = match (known, who) {
            (Ok((Known::State(state), false)), _) => Fetched::State(state),
            (Ok((Known::State(state), true)), _) => Fetched::InDoubt(state),
            (Ok((Known::Nothing, false)), Who::Owner(_)) => Fetched::State(Bytes::new()),
            (Ok((Known::Nothing, true)), Who::Owner(_)) => Fetched::InDoubt(Bytes::new()),
            (Ok((Known::Nothing, _)), Who::StandIn(..)) => Fetched::Nothing,
            (Ok((Known::Corrupt, _)), _) => Fetched::Corrupt,
            (Err(_), _) => Fetched::Refused,
        };
        if self.reader.durable() {
            let settled = self.node.disk().settled(); // what was read may lie in the queue only
            self.asked.push(Box::pin(async move {
                (who, if settled.done().await.is_ok() { fetched } else { Fetched::Refused })
            }));
        } else {
            self.count(who, fetched);
        }
    }

    /// Asks another owner instead of this one (instead of nobody: one more), or one in each of its sets if the partition moves;
    /// where there is none left, a fallback in the seat of an owner that gave no answer.
    fn ask_another(&mut self, silent: Option<NodeId>) -> bool {
        let (asked, everywhere) = self.ask_next_owners(silent);
        match everywhere {
            true => asked,
            false => self.ask_fallback() || asked,
        }
    }

    /// Whether anybody was asked, and whether that is somebody for every set.
    fn ask_next_owners(&mut self, silent: Option<NodeId>) -> (bool, bool) {
        let (next, everywhere) = choice::instead_of(&mut self.reserve, &self.sets, silent);
        let asked = !next.is_empty();
        for owner in next {
            self.ask(Who::Owner(owner));
        }
        (asked, everywhere)
    }

    /// All owners have answered, and the session has seen more: what is missing may be a hint that a fallback holds.
    fn ask_for_more(&mut self) -> bool {
        if self.tally.is_pending() || !self.vacant.is_empty() {
            return false;
        }
        let Some(fallback) = self.stand_ins.next(&self.node) else { return false };
        let owner = self.place.first_owner();
        self.report_fallback(fallback, owner);
        self.ask(Who::StandIn(fallback, owner));
        true
    }

    fn report_fallback(&mut self, fallback: NodeId, owner: NodeId) {
        self.reports.push(ReplicaReport {
            node: fallback.0,
            stands_in_for: Some(owner.0),
            outcome: Did::NotAsked,
            micros: 0,
        });
    }

    fn ask_fallback(&mut self) -> bool {
        let Some(owner) = self.vacant.pop_front() else { return false };
        let Some(fallback) = self.stand_ins.next(&self.node) else {
            self.vacant.push_front(owner);
            for owner in std::mem::take(&mut self.vacant) {
                let mut reports = self.reports.iter();
                let asked = |report: &ReplicaReport| report.stands_in_for == Some(owner.0);
                if !reports.any(|report| asked(report) && is_open(report.outcome)) {
                    self.tally.add_stand_in(owner, Vote::Refused);
                }
            }
            return false;
        };
        self.report_fallback(fallback, owner);
        self.ask(Who::StandIn(fallback, owner));
        true
    }

    /// Nobody waits any longer for those alone who have been asked and are silent. Their answers still count.
    fn give_up_the_silent(&mut self) {
        let pending = self.reports.iter_mut().filter(|report| report.outcome == Did::Pending);
        let mut silent = Vec::new();
        for report in pending {
            report.outcome = Did::Silent;
            self.node.note_with(self.due, Deed::GivenUp, NodeId(report.node));
            self.node.liveness().silent(NodeId(report.node));
            silent.push(NodeId(report.stands_in_for.unwrap_or(report.node)));
        }
        self.vacant.extend(&silent);
        for owner in silent {
            self.ask_another(Some(owner));
        }
    }

    fn count(&mut self, who: Who, fetched: Fetched) {
        if who.node() != self.node.id() {
            let deed = match fetched {
                Fetched::State(_) => Deed::Answered,
                Fetched::InDoubt(_)
                | Fetched::Nothing
                | Fetched::Corrupt
                | Fetched::Down
                | Fetched::Refused
                | Fetched::Stale => Deed::Refused,
            };
            self.node.note_with(self.due, deed, who.node());
        }
        match fetched {
            Fetched::State(state) => {
                self.note(who, Did::Current); // or behind, which is seen when all are joined
                self.learn(&state);
                self.answers.push((who, state));
                match who {
                    Who::Owner(owner) => self.tally.add(owner, Vote::Durable),
                    Who::StandIn(_, owner) => self.tally.add_stand_in(owner, Vote::Durable),
                };
            }
            Fetched::InDoubt(state) if canary::is_on(Canary::CountDoubt) => {
                self.count(who, Fetched::State(state));
            }
            Fetched::InDoubt(state) => {
                self.learn(&state);
                self.answers.push((who, state));
                self.refused(who, Did::InDoubt);
            }
            Fetched::Nothing => self.refused(who, Did::KnowsNothing),
            Fetched::Corrupt => self.refused(who, Did::Corrupt),
            Fetched::Down => self.refused(who, Did::Down),
            Fetched::Refused => self.refused(who, Did::Refused),
            Fetched::Stale if self.is_stale() => self.note(who, Did::Refused), // the plan is over
            Fetched::Stale => {
                self.left_behind = true;
                self.refused(who, Did::Refused);
            }
        }
    }

    /// What an answer knows, if that matters.
    fn learn(&mut self, state: &Bytes) {
        if !self.reader.to_know.is_empty()
            && let Some(state) = self.node.decoded(self.place.bucket, state)
        {
            self.known.join(state.context());
        }
    }

    fn refused(&mut self, who: Who, outcome: Did) {
        let given_up = self.outcome_of(who) == Some(Did::Silent);
        self.note(who, outcome);
        match who {
            Who::Owner(owner) => {
                self.tally.add(owner, Vote::Refused);
                if !given_up {
                    self.vacant.push_back(owner);
                }
            }
            // the next one before the seats that wait: its owner has waited longest
            Who::StandIn(_, owner) => self.vacant.push_front(owner),
        }
        if !given_up || matches!(who, Who::StandIn(..)) {
            let (Who::Owner(owner) | Who::StandIn(_, owner)) = who;
            self.ask_another(Some(owner)); // for an owner that was given up somebody was asked already
        }
    }

    fn outcome_of(&self, who: Who) -> Option<Did> {
        let report = self.reports.iter().find(|report| report.node == who.node().0);
        report.map(|report| report.outcome)
    }

    fn note(&mut self, who: Who, outcome: Did) {
        let micros = micros(self.started, self.node.clock().now());
        if let Some(report) = self.reports.iter_mut().find(|report| report.node == who.node().0) {
            report.outcome = outcome;
            report.micros = micros;
        }
    }
}

/// Canonical bytes; none for a key nobody has heard of.
fn encoded(state: &State) -> Bytes {
    if state.is_unknown() { Bytes::new() } else { Bytes::from(state.encode()) }
}

fn fetch(
    node: &Arc<Node>,
    who: Who,
    place: &Place,
    due: Due,
    durable: bool,
) -> Boxed<(Who, Fetched)> {
    let node = node.clone();
    let request = Request::Fetch(Fetch {
        key: place.key.clone(),
        durable,
        hints: matches!(who, Who::StandIn(..)),
    });
    let (envelope, planned) = (place.envelope(&node, due), place.epoch());
    let asked = node.clock().now();
    let call = node.transport().call(who.node(), Lane::Request, envelope, request);
    Box::pin(async move {
        let mut answer = call.await;
        node.liveness().learn(who.node(), &answer);
        if answer.is_ok() && !durable {
            node.hedge().answered(node.clock().now() - asked);
        }
        if let Ok((_, Reply::Fetched(found))) = &mut answer {
            if !durable {
                node.measured().add(who.node(), Leg::Fetch, node.clock().now() - asked);
            }
            node.note_of_others(due, found.trace.take());
        }
        let fetched = match (answer, who) {
            (Ok((_, Reply::Fetched(found))), Who::StandIn(..)) if !found.known => Fetched::Nothing,
            (Ok((_, Reply::Fetched(found))), _) if found.in_doubt => Fetched::InDoubt(found.state),
            (Ok((_, Reply::Fetched(found))), _) => Fetched::State(found.state),
            (Ok((_, Reply::Failed(failure))), _) if failure.code == ErrorCode::Corrupt => {
                Fetched::Corrupt
            }
            (Ok((_, Reply::Failed(failure))), _) if failure.code == ErrorCode::Rising => {
                Fetched::Down
            }
            // somebody who knows less than we do is of no more use than one who is down
            (Ok((epoch, Reply::Failed(failure))), who)
                if failure.code == ErrorCode::StaleView && epoch > planned =>
            {
                fence::catch_up(&node, who.node(), epoch, due.deadline).await;
                Fetched::Stale
            }
            (Ok(_), _) => Fetched::Refused,
            (Err(CallError::Down(_) | CallError::Lost(_)), _) => Fetched::Down,
            (Err(CallError::Overloaded | CallError::Unsendable(_)), _) => Fetched::Refused,
        };
        (who, fetched)
    })
}
