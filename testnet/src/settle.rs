//! How a history ends: the cluster is given its time to settle, and then what each disk holds is written down.
//!
//! Settled means that every node answers, serves, keeps no hint and doubts nothing, and that the owners of each key hold the
//! same bytes. [`Settling::until`] waits for that, for a while. What is not so by then is written down as it is: whether that
//! breaks a promise is for the judges to say. Only a node that does not answer ends it, because nobody knows what it holds.
//!
//! A key is called as in the history: `BUCKET/KEY`, or just its name if it lies in the default bucket. Two keys of the same bytes
//! in two buckets cannot be told apart on a disk, and whoever records has none.
//!
//! Works on any cluster of which the profile is an operator's, not only on a testnet.

use std::{collections::BTreeMap, time::Duration};

use atoll_antientropy::{Kind, State};
use atoll_check::{Event, Held, Judge, Written, history::kinds::Keeps, told};
use atoll_client::{Client, ErrorCode, NodeId, NodeStatus, RequestError};
use atoll_ring::{Partition, Token};
use atoll_wire::BucketId;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

/// What a history speaks of, on the cluster that it is about.
pub struct Settling<'a> {
    client: &'a Client,
    /// By partition, which is how nodes are asked.
    keys: BTreeMap<Partition, BTreeMap<Bytes, Key>>,
    begun: Instant,
}

/// A key of the history.
#[derive(Clone)]
struct Key {
    name: String,
    /// How many copies its bucket keeps.
    copies: u8,
    /// What it is judged as: a register, or whatever the bucket's values are.
    kind: Kind,
    as_register: bool,
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
    /// For the history that this judge has heard.
    ///
    /// # Errors
    /// The buckets of its keys cannot be found out.
    pub async fn of(client: &'a Client, judge: &Judge) -> Result<Self, RequestError> {
        let mut settling = Settling { client, keys: BTreeMap::new(), begun: Instant::now() };
        let mut buckets = BTreeMap::new();
        for name in judge.keys() {
            settling.add(name, true, &mut buckets).await?;
        }
        for name in judge.keys_of_kinds() {
            settling.add(name, false, &mut buckets).await?;
        }
        Ok(settling)
    }

    async fn add(
        &mut self,
        name: &str,
        as_register: bool,
        buckets: &mut BTreeMap<String, (BucketId, Kind, u8)>,
    ) -> Result<(), RequestError> {
        let view = self.client.view();
        let usual = (BucketId::default_bucket(view.bucket_n()), Kind::Register, view.bucket_n());
        let (bucket, bytes) = match name.split_once('/') {
            None => (usual, name),
            Some((bucket, bytes)) => {
                if !buckets.contains_key(bucket) {
                    let (id, definition) = self.client.bucket_named(bucket).await?;
                    buckets.insert(bucket.to_owned(), (id, definition.kind, definition.n));
                }
                (buckets[bucket], bytes)
            }
        };
        let (id, kind, copies) = bucket;
        let bytes = Bytes::copy_from_slice(bytes.as_bytes());
        let partition = view.partition(Token::of(&id.0, &bytes));
        let key = Key { name: name.to_owned(), copies, kind, as_register };
        self.keys.entry(partition).or_default().insert(bytes, key);
        Ok(())
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
            let view = self.client.view();
            let owners = view.owners(*partition);
            // what the first owner holds of each, and who differs from that
            let mut first: BTreeMap<&Bytes, (Option<Option<Bytes>>, bool)> = BTreeMap::new();
            for node in self.members() {
                let rows = self.client.dump_all(node, partition.0, false, PATIENCE).await;
                let rows = rows.map_err(|error| SettleError::NotShown { node, error })?;
                let rows: BTreeMap<Bytes, Option<Bytes>> =
                    rows.into_iter().map(|row| (row.key, row.state)).collect();
                for (bytes, key) in keys {
                    let state = rows.get(bytes);
                    let is_owner = owners.first(key.copies).all().contains(&node);
                    if is_owner || state.is_some() {
                        look.events.push(key.held(node, is_owner, state));
                    }
                    if is_owner {
                        let (held, differs) =
                            first.entry(bytes).or_insert_with(|| (state.cloned(), false));
                        *differs |= held.as_ref() != state;
                    }
                }
            }
            look.differing += first.values().filter(|(_, differs)| *differs).count();
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

impl Key {
    /// What a node holds of it. Without a row it holds and knows nothing, and that can be read.
    fn held(&self, node: NodeId, owner: bool, row: Option<&Option<Bytes>>) -> Event {
        let state = match row {
            None => Some(State::unknown(self.kind)),
            Some(state) => state.as_ref().and_then(|state| State::decode(state).ok()),
        };
        let (node, key, readable) = (node.0, self.name.clone(), state.is_some());
        let context = state.as_ref().map(|state| told::known(state.context())).unwrap_or_default();
        if self.as_register {
            let values = state.iter().flat_map(State::values);
            let values =
                values.map(|(dot, value)| (Written::value(value), told::dot(dot))).collect();
            return Event::Held(Held { node, key, owner, readable, values, context });
        }
        let digest = row.and_then(Option::as_ref).map_or(0, |bytes| digest(bytes));
        let shown = state.map(|state| told::shown(&state.read(0), Written::value));
        let shown = shown.unwrap_or_default();
        Event::Keeps(Keeps { node, key, owner, readable, digest, shown, context })
    }
}

/// Equal bytes, equal numbers; the same in every process.
fn digest(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
}

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// For one answer: a status, or a page of a dump.
const PATIENCE: Duration = Duration::from_secs(5);
