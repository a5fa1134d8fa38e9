//! Changes of the ring, as whoever asks for them sees it: propose, look, wait for a view, read the history.
//!
//! Any member may be asked: it passes a proposal on to whoever leads the membership log. What has become of one that may have
//! been heard the members' views tell (`fate`). Only a change that was planned for one epoch is repeated meanwhile, because
//! the log takes it once at most; another command could be taken for a second wish.

use std::{sync::Arc, time::Duration};

use atoll_ring::{Command, Entry, Epoch, NodeId, Partition, Update, View};
use atoll_wire::{
    Effect, ErrorCode, Failure, MovesQuery, MovesReport, Propose, Reply, Request, ViewQuery,
};
use bytes::Bytes;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{Client, Options, RequestError, request::nonsense};

/// Why a change of the ring was not made, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The ring is not changed like this. Nothing changed; the text says what to do.
    #[error("{0}")]
    Rejected(String),
    /// No majority of the voters can be reached. Nothing changed; reads and writes go on.
    #[error("{0}")]
    Frozen(String),
    /// Whoever asks was removed from the ring.
    #[error("{0}")]
    Removed(String),
    /// It may have been made, or may still be: the view will tell.
    #[error("whether the ring was changed is unknown: {0}")]
    Unknown(String),
    /// Nobody could be asked, or we may not ask. Nothing changed.
    #[error(transparent)]
    Request(RequestError),
}

impl Client {
    /// Puts a command into the membership log, through whichever member can. Gives the epoch that it made.
    ///
    /// While no member can, for want of a leader, they are asked again for as long as `timeout` allows. If an answer is
    /// lost, or a majority was too slow, up to 20 s more are spent on finding out what has become of it.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(
        self: &Arc<Self>,
        command: &Command,
        timeout: Duration,
    ) -> Result<Epoch, ProposeError> {
        let before = self.view().epoch();
        let mut deadline = Instant::now() + timeout;
        let mut heard: Option<String> = None;
        loop {
            let again = Instant::now() + FROZEN_PAUSE;
            if heard.is_none() || may_come_twice(command) {
                match (self.ask_members(command, deadline).await, &heard) {
                    (Ok(epoch), _) => return Ok(epoch),
                    (Err(ProposeError::Unknown(why)), None) => {
                        deadline = deadline.max(Instant::now() + FIND_OUT_LIMIT);
                        heard = Some(why);
                    }
                    (Err(ProposeError::Frozen(_)), None) if again < deadline => {}
                    (Err(error), None) => return Err(error),
                    (Err(_), Some(_)) => {} // that is about the second one
                }
            }
            if let Some(unknown) = &heard {
                match self.fate(command, before).await {
                    Fate::Taken(epoch) => return Ok(epoch),
                    Fate::Refused(why) => return Err(ProposeError::Rejected(why)),
                    Fate::Open if again < deadline => {}
                    Fate::Open => return Err(ProposeError::Unknown(unknown.clone())),
                }
            }
            sleep_until(again).await;
        }
    }

    /// Asks one member after the other, until one has an answer that another would not better.
    async fn ask_members(
        &self,
        command: &Command,
        deadline: Instant,
    ) -> Result<Epoch, ProposeError> {
        let mut last = None;
        let view = self.view();
        for member in view.members() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.propose_to(member.id, command, left).await {
                Err(error @ ProposeError::Frozen(_)) => last = Some(error),
                Err(error @ ProposeError::Request(_)) if may_ask_another(&error) => {
                    // why the ring is frozen says more than who is down
                    last.get_or_insert(error);
                }
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| ProposeError::Frozen("no member was asked in time".into())))
    }

    /// What has become of a command that may have been heard, as far as the members' newest view and what they remember of
    /// the log after `before` tell.
    async fn fate(self: &Arc<Self>, command: &Command, before: Epoch) -> Fate {
        let view = self.refresh(VIEW_ANSWER).await;
        let since = match command {
            Command::Change { base, .. } => *base,
            _ => before,
        };
        if view.epoch() <= since {
            return Fate::Open;
        }
        for member in view.members() {
            let Ok(entries) = self.history(member.id, since, VIEW_ANSWER).await else { continue };
            if !entries.is_empty() {
                return fate_in(&entries, command);
            }
        }
        fate_by_view(&view, command)
    }

    /// The same through a certain member.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_to(
        &self,
        node: NodeId,
        command: &Command,
        timeout: Duration,
    ) -> Result<Epoch, ProposeError> {
        let command = postcard::to_stdvec(command).expect("a command is plain data").into();
        let request = Request::Propose(Propose { hops: 0, command });
        let options = Options { timeout: Some(timeout), via: Some(node), ..Options::default() };
        match self.send(&Bytes::new(), &request, &options).await {
            Ok((_, Reply::Proposed(proposed))) => Ok(Epoch(proposed.epoch)),
            Ok((node, _)) => Err(ProposeError::Unknown(nonsense(node, "no epoch").to_string())),
            Err(error) => Err(not_proposed(error)),
        }
    }

    /// How the moves go, as each member tells it.
    pub async fn moves(
        self: &Arc<Self>,
        timeout: Duration,
    ) -> Vec<(NodeId, Result<MovesReport, RequestError>)> {
        let mut asked = JoinSet::new();
        for member in self.view().members() {
            let (client, node) = (self.clone(), member.id);
            asked.spawn(async move { (node, client.moves_of(node, timeout).await) });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(node, _)| *node);
        answers
    }

    /// How the moves go that a member takes part in, and how it sees the membership log.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn moves_of(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<MovesReport, RequestError> {
        let options = Options { timeout: Some(timeout), via: Some(node), ..Options::default() };
        match self.send(&Bytes::new(), &Request::Moves(MovesQuery {}), &options).await? {
            (_, Reply::Moves(report)) => Ok(report),
            (node, _) => Err(nonsense(node, "no report of moves")),
        }
    }

    /// Takes the newest view that any member has within `timeout`, and gives it.
    pub async fn refresh(self: &Arc<Self>, timeout: Duration) -> Arc<View> {
        let mut asked = JoinSet::new();
        for member in self.view().members() {
            let (client, node) = (self.clone(), member.id);
            // every answer names its sender's epoch, and the client takes the view of whoever is ahead
            asked.spawn(async move { client.status(node, timeout).await.is_ok() });
        }
        asked.join_all().await;
        self.view()
    }

    /// Waits until some member's view is at least of this epoch, for `limit` at most. `None`: none was.
    pub async fn view_of(self: &Arc<Self>, epoch: Epoch, limit: Duration) -> Option<Arc<View>> {
        let deadline = Instant::now() + limit;
        loop {
            let view = self.refresh(VIEW_ANSWER).await;
            if view.epoch() >= epoch {
                return Some(view);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(VIEW_PAUSE).await;
        }
    }

    /// What a member remembers of the log after this epoch, the oldest first. Empty if it has nothing newer, or no longer
    /// knows what came so early.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn history(
        &self,
        node: NodeId,
        after: Epoch,
        timeout: Duration,
    ) -> Result<Vec<Entry>, RequestError> {
        let options = Options { timeout: Some(timeout), via: Some(node), ..Options::default() };
        let query = Request::View(ViewQuery { have: after.0 });
        match self.send(&Bytes::new(), &query, &options).await? {
            (node, Reply::View(reply)) => match postcard::from_bytes(&reply.view) {
                Ok(Update::Entries(entries)) => Ok(entries),
                Ok(Update::View(_)) => Ok(Vec::new()),
                Err(error) => Err(nonsense(node, &format!("no view: {error}"))),
            },
            (node, _) => Err(nonsense(node, "no view")),
        }
    }
}

/// What has become of a command.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// The log has taken it.
    Taken(Epoch),
    /// The log will never take it, and this is why.
    Refused(String),
    /// It may still be taken.
    Open,
}

/// Whether the log takes a command once at most, however often it hears it: it is planned for one epoch, and makes the next.
fn may_come_twice(command: &Command) -> bool {
    matches!(command, Command::Change { .. })
}

/// What the first entries after an epoch say of a command. Two equal ones are the same wish.
fn fate_in(entries: &[Entry], command: &Command) -> Fate {
    if let Some(entry) = entries.iter().find(|entry| entry.command == *command) {
        return Fate::Taken(entry.epoch);
    }
    match command {
        Command::Change { base, .. } if entries[0].epoch.0 == base.0 + 1 => Fate::Refused(format!(
            "this was made for epoch {base}, and another change was faster: make it again"
        )),
        _ => Fate::Open,
    }
}

/// What a view alone says of a command, where the entries are too large to be told.
fn fate_by_view(view: &View, command: &Command) -> Fate {
    let is_there = match command {
        Command::Change { base, moves, .. } => {
            let goes_there = |(partition, owners): (&Partition, &Vec<NodeId>)| {
                let wanted = view.wanted().get(partition).map(Vec::as_slice);
                wanted.unwrap_or_else(|| view.settled(*partition)) == owners
            };
            return match !moves.is_empty() && moves.iter().all(goes_there) {
                true => Fate::Taken(Epoch(base.0 + 1)),
                false => Fate::Open, // or taken, and cancelled since
            };
        }
        Command::Invite { invitation, .. } => {
            view.invitations().iter().any(|open| open.id == *invitation)
        }
        Command::Register { node, address, .. } => {
            view.member(*node).is_some_and(|member| member.address == *address)
        }
        Command::Incarnation { node, incarnation } => {
            view.member(*node).is_some_and(|member| member.incarnation >= *incarnation)
        }
        Command::Retire { node } => view.removed_since(*node).is_some(),
        Command::Begin { .. }
        | Command::Finish { .. }
        | Command::Cancel
        | Command::Voters { .. }
        | Command::Recovered { .. } => false,
    };
    if is_there { Fate::Taken(view.epoch()) } else { Fate::Open }
}

/// How long it may take to find out what has become of a command.
const FIND_OUT_LIMIT: Duration = Duration::from_secs(20);

/// Between two rounds of asking everybody, when nobody leads.
const FROZEN_PAUSE: Duration = Duration::from_secs(1);

/// How long one member may take to say which epoch it has.
const VIEW_ANSWER: Duration = Duration::from_secs(1);

/// Between two looks for a view.
const VIEW_PAUSE: Duration = Duration::from_millis(100);

fn not_proposed(error: RequestError) -> ProposeError {
    match error {
        RequestError::Failed(failure) => {
            let Failure { code, effect, detail, .. } = *failure;
            match (code, effect) {
                (ErrorCode::RingRejected, _) => ProposeError::Rejected(detail),
                (ErrorCode::RingFrozen, _) => ProposeError::Frozen(detail),
                (ErrorCode::Removed, _) => ProposeError::Removed(detail),
                (_, Effect::NotApplied) => {
                    let failure = Failure::refused(code, detail);
                    ProposeError::Request(RequestError::Failed(Box::new(failure)))
                }
                (_, Effect::Applied(_) | Effect::Unknown) => ProposeError::Unknown(detail),
            }
        }
        error if error.effect() == Effect::NotApplied => ProposeError::Request(error),
        error => ProposeError::Unknown(error.to_string()),
    }
}

/// Whether another member may do better than one that has certainly done nothing.
fn may_ask_another(error: &ProposeError) -> bool {
    match error {
        ProposeError::Request(RequestError::Failed(failure)) => {
            let is_of_the_asker =
                [ErrorCode::NotPermitted, ErrorCode::Malformed, ErrorCode::OtherCluster];
            !is_of_the_asker.contains(&failure.code)
        }
        ProposeError::Request(RequestError::Unreachable { .. }) => true,
        ProposeError::Request(_)
        | ProposeError::Rejected(_)
        | ProposeError::Frozen(_)
        | ProposeError::Removed(_)
        | ProposeError::Unknown(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use atoll_ring::{ClusterId, Member, MemberState, Partitions, Plan, Wish};

    use super::*;

    fn failed(code: ErrorCode, effect: Effect) -> RequestError {
        RequestError::Failed(Box::new(Failure { effect, ..Failure::refused(code, "why") }))
    }

    /// What each failure says of the ring. Only what has certainly changed nothing may be asked of another member.
    #[test]
    fn what_a_failure_says_of_the_ring() {
        let of = |error| not_proposed(error);
        let certain = Effect::NotApplied;
        assert!(matches!(
            of(failed(ErrorCode::RingRejected, certain)),
            ProposeError::Rejected(why) if why == "why"
        ));
        assert!(matches!(of(failed(ErrorCode::RingFrozen, certain)), ProposeError::Frozen(_)));
        assert!(matches!(of(failed(ErrorCode::Removed, certain)), ProposeError::Removed(_)));
        for unknown in [
            failed(ErrorCode::DeadlinePassed, Effect::Unknown),
            failed(ErrorCode::Overloaded, Effect::Unknown),
            RequestError::TimedOut { node: "n1".into(), ms: 1 },
            RequestError::Lost { node: "n1".into(), reason: String::new() },
        ] {
            let error = of(unknown);
            assert!(matches!(error, ProposeError::Unknown(_)), "{error:?}");
            assert!(!may_ask_another(&error));
        }
        for (error, another) in [
            (failed(ErrorCode::Stopping, certain), true),
            (failed(ErrorCode::Overloaded, certain), true),
            (RequestError::Unreachable { tried: Vec::new() }, true),
            (failed(ErrorCode::NotPermitted, certain), false),
        ] {
            assert_eq!(may_ask_another(&of(error)), another);
        }
    }
    fn change(base: u64, moves: &[(u16, [u32; 3])]) -> Command {
        let moves = moves.iter().map(|(at, owners)| (Partition(*at), owners.map(NodeId).to_vec()));
        let wish = Wish::Rebalance;
        Command::Change { base: Epoch(base), wish, moves: moves.collect() }
    }

    /// The first entries after the epoch that a change was made for decide it; other commands are decided by their own
    /// entry only.
    #[test]
    fn what_entries_say_of_a_command() {
        let entry = |epoch, command| Entry { epoch: Epoch(epoch), at_ms: 0, command };
        let ours = change(5, &[(1, [1, 2, 3])]);
        let others = entry(6, Command::Cancel);
        assert_eq!(
            fate_in(&[entry(6, ours.clone()), entry(7, Command::Cancel)], &ours),
            Fate::Taken(Epoch(6))
        );
        assert!(matches!(fate_in(std::slice::from_ref(&others), &ours), Fate::Refused(_)));
        let invite =
            |number| Command::Invite { invitation: [number; 16], node: NodeId(4), expires_ms: 1 };
        assert_eq!(
            fate_in(&[others.clone(), entry(7, invite(1))], &invite(1)),
            Fate::Taken(Epoch(7))
        );
        assert_eq!(fate_in(&[others, entry(7, invite(2))], &invite(1)), Fate::Open);
    }

    /// Where the entry is not told, the view shows whether all of a change is wanted, on its way, or done.
    #[test]
    fn what_a_view_says_of_a_change() {
        let member = |id: u16| Member {
            id: NodeId(id.into()),
            incarnation: 0,
            address: ([127, 0, 0, 1], 7400 + id).into(),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        };
        let (partitions, members) = (Partitions::new(64).unwrap(), (1..=4).map(member).collect());
        let (first, _) = View::create(ClusterId([7; 16]), partitions, 3, members).unwrap();
        let plan = Plan::of(&first, &Wish::Leave { node: NodeId(2) }).unwrap();
        let (ours, begun) = (plan.command(), plan.order[..1].to_vec());
        assert_eq!(fate_by_view(&first, &ours), Fate::Open);
        let next = |view: &View, command| {
            let epoch = Epoch(view.epoch().0 + 1);
            view.apply(&Entry { epoch, at_ms: 0, command }).unwrap()
        };
        let taken = next(&first, ours.clone());
        let joint = next(&taken, Command::Begin { partitions: begun.clone() });
        let done = Command::Finish { partitions: vec![(begun[0], joint.epoch())] };
        let done = next(&joint, done);
        for view in [&taken, &joint, &done] {
            assert_eq!(fate_by_view(view, &ours), Fate::Taken(taken.epoch()), "{}", view.epoch());
        }
        assert_eq!(fate_by_view(&next(&done, Command::Cancel), &ours), Fate::Open);
        let other = Plan::of(&first, &Wish::Leave { node: NodeId(3) }).unwrap();
        assert_eq!(fate_by_view(&taken, &other.command()), Fate::Open);
    }
}
