//! Changes of the ring, as whoever asks for them sees it: propose, look, wait for a view, read the history.
//!
//! Any member may be asked: it passes a proposal on to whoever leads the membership log. A proposal that may have been heard
//! is never repeated, because a second one could be taken for another wish; the view tells what has become of it.

use std::{sync::Arc, time::Duration};

use atoll_ring::{Command, Entry, Epoch, NodeId, Update, View};
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
    /// While no member can, for want of a leader, they are asked again for as long as `timeout` allows.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(
        &self,
        command: &Command,
        timeout: Duration,
    ) -> Result<Epoch, ProposeError> {
        let deadline = Instant::now() + timeout;
        loop {
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
            let again = Instant::now() + FROZEN_PAUSE;
            match last {
                Some(ProposeError::Frozen(_)) if again < deadline => sleep_until(again).await,
                Some(error) => return Err(error),
                None => return Err(ProposeError::Frozen("no member was asked in time".into())),
            }
        }
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
}
