//! How a history ends: the cluster is given its time to settle, and then what each disk holds is written down.
//!
//! Settled means that every node answers, serves, keeps no hint and doubts nothing, and that the owners of each key hold the
//! same bytes. [`Settling::until`] waits for that, for a while. What is not so by then is written down as it is: whether that
//! breaks a promise is for the judges to say. Only a node that does not answer ends it, because nobody knows what it holds.
//!
//! Works on any cluster of which the profile is an operator's, not only on a testnet.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use atoll_antientropy::{Kind, State};
use atoll_check::{Event, Held, Written};
use atoll_client::{Client, ErrorCode, NodeId, NodeStatus, RequestError};
use atoll_ring::{Partition, Token};
use atoll_wire::BucketId;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

/// What a history speaks of, on the cluster that it is about.
pub struct Settling<'a> {
    client: &'a Client,
    /// By partition, which is how nodes are asked.
    keys: BTreeMap<Partition, BTreeSet<Bytes>>,
    begun: Instant,
}

/// How the end of a history came about.
#[derive(Debug)]
pub struct Settled {
    /// The end: settled, what is held, the hints.
    pub events: Vec<Event>,
    /// How long that took.
    pub after: Duration,
    /// Why it was not waited for any longer, if the cluster had not settled by then.
    pub not_yet: Option<String>,
}

/// Why a history has no end.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// Nobody knows what this node holds.
    #[error("{node} does not answer: {error}")]
    Silent {
        /// Which node.
        node: NodeId,
        /// What was said instead.
        error: RequestError,
    },
    /// A node does not show its disk.
    #[error("{node} does not show what it holds: {error}")]
    NotShown {
        /// Which node.
        node: NodeId,
        /// What was said instead.
        error: RequestError,
    },
}

impl SettleError {
    /// Whether we may not look, now or later: that takes an operator's certificate.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            SettleError::Silent { error, .. } | SettleError::NotShown { error, .. } => {
                matches!(error, RequestError::Failed(failure) if failure.code == ErrorCode::NotPermitted)
            }
        }
    }
}

/// What one look at all disks has shown.
struct Look {
    events: Vec<Event>,
    /// Keys whose owners differ.
    differing: usize,
}

impl<'a> Settling<'a> {
    /// For a history about these keys.
    pub fn new<'k>(client: &'a Client, keys: impl IntoIterator<Item = &'k String>) -> Self {
        let view = client.view();
        let bucket = BucketId::default_bucket(view.bucket_n());
        let mut of: BTreeMap<Partition, BTreeSet<Bytes>> = BTreeMap::new();
        for key in keys {
            let key = Bytes::copy_from_slice(key.as_bytes());
            of.entry(view.partition(Token::of(&bucket.0, &key))).or_default().insert(key);
        }
        Settling { client, keys: of, begun: Instant::now() }
    }

    /// Waits until the cluster has settled, or for `limit`, and writes down what there is. `wait` is told what is waited for,
    /// about once a second.
    ///
    /// # Errors
    /// A node does not answer, or does not show what it holds, at the end of that time.
    pub async fn until(
        &self,
        limit: Duration,
        mut wait: impl FnMut(&str),
    ) -> Result<Settled, SettleError> {
        let deadline = self.begun + limit;
        loop {
            let is_last = Instant::now() >= deadline;
            let (hints, not_yet) = match self.statuses().await {
                Ok(statuses) => {
                    let not_yet = statuses.iter().find_map(not_settled);
                    (statuses.iter().map(hints).collect(), not_yet)
                }
                Err(error) if is_last => return Err(error),
                Err(error) => (Vec::new(), Some(error.to_string())),
            };
            let not_yet = match not_yet {
                Some(reason) if !is_last => reason,
                waiting => match self.look().await {
                    Err(error) if is_last || error.is_refusal() => return Err(error),
                    Err(error) => error.to_string(),
                    Ok(Look { mut events, differing }) => {
                        let differ = || format!("{differing} keys differ between their owners");
                        match waiting.or_else(|| (differing > 0).then(differ)) {
                            Some(reason) if !is_last => reason,
                            not_yet => {
                                events.extend(hints);
                                let after = self.begun.elapsed();
                                return Ok(Settled { events, after, not_yet });
                            }
                        }
                    }
                },
            };
            wait(&not_yet);
            sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
    }

    async fn statuses(&self) -> Result<Vec<NodeStatus>, SettleError> {
        let mut statuses = Vec::new();
        for node in self.members() {
            let status = self.client.status(node, PATIENCE).await;
            statuses.push(status.map_err(|error| SettleError::Silent { node, error })?);
        }
        Ok(statuses)
    }

    /// What every node holds of every key.
    async fn look(&self) -> Result<Look, SettleError> {
        let at_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut look = Look { events: vec![Event::Settled { at_us }], differing: 0 };
        for (partition, keys) in &self.keys {
            let owners = self.client.view().owners(*partition).all();
            let mut first: Option<BTreeMap<Bytes, Option<Bytes>>> = None;
            let mut differing: BTreeSet<&Bytes> = BTreeSet::new();
            for node in self.members() {
                let rows = self.client.dump_all(node, partition.0, false, PATIENCE).await;
                let rows = rows.map_err(|error| SettleError::NotShown { node, error })?;
                let rows = rows.into_iter().map(|row| (row.key, row.state));
                let rows: BTreeMap<Bytes, Option<Bytes>> =
                    rows.filter(|(key, _)| keys.contains(key)).collect();
                let is_owner = owners.contains(&node);
                for key in keys {
                    let state = rows.get(key);
                    if is_owner || state.is_some() {
                        look.events.push(Event::Held(held(node, is_owner, key, state)));
                    }
                }
                if is_owner {
                    let first = first.get_or_insert_with(|| rows.clone());
                    differing.extend(keys.iter().filter(|key| rows.get(*key) != first.get(*key)));
                }
            }
            look.differing += differing.len();
        }
        Ok(look)
    }

    fn members(&self) -> Vec<NodeId> {
        self.client.view().members().iter().map(|member| member.id).collect()
    }
}

fn hints(status: &NodeStatus) -> Event {
    Event::Hints { node: status.node, count: status.hints }
}

/// What this node still has to do before anything can be settled.
fn not_settled(status: &NodeStatus) -> Option<String> {
    let NodeStatus { rising, partitions_in_doubt, keys_in_doubt, hints, .. } = status;
    let node = NodeId(status.node);
    if !rising.is_empty() {
        Some(format!("{node} does not serve yet: {rising}"))
    } else if *hints > 0 {
        Some(format!("{node} keeps {hints} hints"))
    } else if *partitions_in_doubt > 0 || *keys_in_doubt > 0 {
        Some(format!("{node} doubts {partitions_in_doubt} partitions and {keys_in_doubt} keys"))
    } else {
        None
    }
}

/// What a node holds of a key. Without a row it holds and knows nothing, and that can be read.
fn held(node: NodeId, owner: bool, key: &Bytes, row: Option<&Option<Bytes>>) -> Held {
    let state = match row {
        None => Some(State::unknown(Kind::Register)),
        Some(state) => state.as_ref().and_then(|state| State::decode(state).ok()),
    };
    let key = String::from_utf8_lossy(key).into_owned();
    let (values, context) = match &state {
        None => (Vec::new(), Vec::new()),
        Some(state) => (
            state
                .values()
                .map(|(dot, value)| {
                    let at = dot.actor;
                    (Written::value(value), (at.node, at.incarnation, dot.counter))
                })
                .collect(),
            state
                .context()
                .iter()
                .map(|span| (span.actor.node, span.actor.incarnation, span.lo, span.hi))
                .collect(),
        ),
    };
    Held { node: node.0, key, owner, readable: state.is_some(), values, context }
}

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// For one answer: a status, or a page of a dump.
const PATIENCE: Duration = Duration::from_secs(5);
