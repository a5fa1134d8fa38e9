//! One request: checked here, sent to a coordinator, its answer taken apart.
//!
//! What can be refused without the cluster is refused here. Then an owner that is connected is drawn at random; if it
//! certainly has not seen the request, the next one gets it. What may have been seen is repeated elsewhere only if that is
//! safe, a read or a write that was not applied, and within a budget ([`crate::retries`]).

use std::time::Duration;

use atoll_antientropy::{Actor, ContextToken, Dot};
use atoll_ring::{NodeId, Quorum, Token};
use atoll_transport::CallError;
use atoll_wire::{
    Delete, DotParts, Effect, Envelope, ErrorCode, Failure, Get, Lane, NodeStatus, Put, Receipt,
    Reply, Request, Role, StatusQuery, Stored, bucket::Definition, limits::KEY_BYTES_MAX,
};
use bytes::Bytes;
use rand::seq::SliceRandom as _;
use tokio::time::Instant;

use crate::{Client, Options, RequestError, buckets::Bucket};

/// What a read found. No values and no context: never written. No values but a context: deleted.
#[derive(Clone, Debug)]
pub struct GetReply {
    /// The siblings, in the order of their dots. More than one means that they were written concurrently.
    pub values: Vec<Value>,
    /// What this reply stands for; hand it back with a put or delete to replace what was seen.
    pub context: Option<ContextToken>,
    /// Who answered.
    pub receipt: Receipt,
}

/// One sibling.
#[derive(Clone, Debug)]
pub struct Value {
    /// The write that made it.
    pub dot: Dot,
    /// The bytes.
    pub bytes: Bytes,
}

/// What a write has done.
#[derive(Clone, Debug)]
pub struct WriteReply {
    /// The request's context and the write's own event, and never more: a sibling that was not seen stays unseen.
    pub context: ContextToken,
    /// The write's own event.
    pub dot: Dot,
    /// Who acknowledged.
    pub receipt: Receipt,
}

impl Client {
    /// Reads all current values of a key.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn get(&self, key: &[u8], options: &Options) -> Result<GetReply, RequestError> {
        let key = Bytes::copy_from_slice(key);
        let get = |bucket: &Definition| {
            let repair = options.repair(&bucket.properties);
            Request::Get(Get { key: key.clone(), quorum: options.quorum, repair })
        };
        let (node, reply) = self.ask(&key, 0, get, options).await?;
        let Reply::Found(found) = reply else { return Err(nonsense(node, "no read")) };
        let siblings = found.siblings().ok_or_else(|| nonsense(node, "lengths do not add up"))?;
        Ok(GetReply {
            values: siblings.into_iter().map(|(at, bytes)| Value { dot: dot(at), bytes }).collect(),
            context: (!found.context.is_empty()).then(|| ContextToken::from(found.context)),
            receipt: found.receipt,
        })
    }

    /// Stores a value in place of everything that `context` covers. Without a context it becomes a sibling of whatever
    /// is there.
    ///
    /// # Errors
    /// See [`RequestError`]; [`RequestError::effect`] says what a failed write has left behind.
    pub async fn put(
        &self,
        key: &[u8],
        value: impl Into<Bytes>,
        context: Option<&ContextToken>,
        options: &Options,
    ) -> Result<WriteReply, RequestError> {
        let value = value.into();
        let (key, value_bytes) = (Bytes::copy_from_slice(key), value.len());
        let context = token_bytes(context);
        let put = Put { key: key.clone(), context, quorum: options.quorum, hops: 0, value };
        match self.ask(&key, value_bytes, |_| Request::Put(put.clone()), options).await? {
            (_, Reply::Put(stored)) => Ok(written(stored)),
            (node, _) => Err(nonsense(node, "no write")),
        }
    }

    /// Deletes everything that `context` covers, and nothing else.
    ///
    /// # Errors
    /// See [`RequestError`]; [`RequestError::effect`] says what a failed delete has left behind.
    pub async fn delete(
        &self,
        key: &[u8],
        context: &ContextToken,
        options: &Options,
    ) -> Result<WriteReply, RequestError> {
        let key = Bytes::copy_from_slice(key);
        let context = token_bytes(Some(context));
        let delete = Delete { key: key.clone(), context, quorum: options.quorum, hops: 0 };
        match self.ask(&key, 0, |_| Request::Delete(delete.clone()), options).await? {
            (_, Reply::Deleted(stored)) => Ok(written(stored)),
            (node, _) => Err(nonsense(node, "no delete")),
        }
    }

    /// Asks a node how it is.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn status(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<NodeStatus, RequestError> {
        let options = Options { timeout: Some(timeout), via: Some(node), ..Options::default() };
        match self.send(&Bytes::new(), &Request::Status(StatusQuery {}), &options).await? {
            (_, Reply::Status(status)) => Ok(*status),
            (node, _) => Err(nonsense(node, "no status")),
        }
    }

    /// What can be refused without asking the cluster.
    fn check(
        &self,
        key: &[u8],
        value_bytes: usize,
        options: &Options,
        bucket: &Definition,
    ) -> Result<(), RequestError> {
        let Definition { name, n, properties, .. } = bucket;
        Quorum::new(&properties.fill(&options.quorum, *n), *n)?;
        if key.is_empty() {
            return Err(RequestError::Limit("the key is empty".into()));
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(RequestError::Limit(format!(
                "the key has {} bytes; at most {KEY_BYTES_MAX} are allowed",
                key.len()
            )));
        }
        let bytes_max = properties.value_bytes_max();
        if value_bytes > bytes_max {
            return Err(RequestError::Limit(format!(
                "the value has {value_bytes} bytes; at most {bytes_max} are allowed in the bucket `{name}`"
            )));
        }
        Ok(())
    }

    /// Asks about a key in the bucket of these options. If the bucket was dropped since we heard of it, or whoever is asked
    /// knows none, the name is looked up anew, and if it leads to another bucket that one is asked about.
    async fn ask(
        &self,
        key: &Bytes,
        value_bytes: usize,
        request: impl Fn(&Definition) -> Request,
        options: &Options,
    ) -> Result<(NodeId, Reply), RequestError> {
        let mut bucket = self.bucket(options).await?;
        loop {
            self.check(key, value_bytes, options, bucket.definition())?;
            let request = request(bucket.definition());
            let refused = match self.send_about(&bucket, key, &request, options).await {
                Err(RequestError::Failed(failure)) if is_of_bucket(&failure) => failure,
                outcome => return outcome,
            };
            let anew = self.bucket_anew(options).await?;
            if anew.id == bucket.id {
                return Err(RequestError::Failed(refused));
            }
            bucket = anew;
        }
    }

    /// Asks about the cluster.
    pub(crate) async fn send(
        &self,
        key: &Bytes,
        request: &Request,
        options: &Options,
    ) -> Result<(NodeId, Reply), RequestError> {
        let about = Bucket::default_bucket(self.view().bucket_n());
        self.send_about(&about, key, request, options).await
    }

    async fn send_about(
        &self,
        bucket: &Bucket,
        key: &Bytes,
        request: &Request,
        options: &Options,
    ) -> Result<(NodeId, Reply), RequestError> {
        let timeout_ms = options.timeout_ms(&bucket.definition().properties);
        let deadline = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
        let (lane, repeatable) = match request {
            Request::Get(_) => (Lane::Request, true),
            Request::Put(_) | Request::Delete(_) => (Lane::Request, false),
            Request::Hello(_)
            | Request::Ping(_)
            | Request::View(_)
            | Request::Status(_)
            | Request::RepairStatus(_)
            | Request::RepairRun(_)
            | Request::Dump(_)
            | Request::Replicate(_)
            | Request::Fetch(_)
            | Request::Recall(_)
            | Request::CompareRoots(_)
            | Request::Compare(_)
            | Request::Entries(_)
            | Request::Moves(_)
            | Request::BucketChange(_)
            | Request::Buckets(_)
            | Request::Copy(_)
            | Request::Covered(_) => (Lane::Control, true),
            Request::Propose(_) | Request::Raft(_) => (Lane::Control, false),
        };
        let role = match (self.speaks_for, Role::Client.may_ask(request)) {
            (Some(_), _) => Role::Node,
            (None, true) => Role::Client,
            (None, false) => Role::Operator, // if our certificate does not say so, the answer will
        };
        let operation = rand::random();
        let view = self.view();
        if let Some(node) = options.via
            && view.member(node).is_none()
        {
            let members = view.members().iter().map(|member| member.id.to_string());
            let members = members.collect::<Vec<_>>().join(", ");
            return Err(RequestError::NoSuchNode { node: node.to_string(), members });
        }
        self.retries.begin();
        let mut tried = Vec::new();
        let mut refused = None;
        let candidates = self.candidates(bucket, key, options, deadline, &mut tried).await;
        for (index, node) in candidates.iter().copied().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let envelope = Envelope {
                epoch: view.epoch(),
                left_ms: u32::try_from(left.as_millis()).unwrap_or(timeout_ms).max(1),
                operation,
                bucket: bucket.id,
                role,
            };
            let link = match self.peers.link(node) {
                Ok(link) => link,
                Err(error) => {
                    tried.push((node.to_string(), error.to_string()));
                    continue;
                }
            };
            let call = link.call(lane, &envelope, request);
            let last = index + 1 == candidates.len();
            // a silent coordinator of a read may not use up the time of the next one
            let may_repeat = repeatable && !last && self.retries.any();
            let patience = if may_repeat { left / 2 } else { left + GRACE };
            match tokio::time::timeout(patience, call).await {
                Err(_) if may_repeat && self.retries.take() => {
                    self.suspect(node);
                    tried.push((node.to_string(), "no answer".into()));
                }
                Err(_) => {
                    self.suspect(node);
                    return Err(RequestError::TimedOut { node: node.to_string(), ms: timeout_ms });
                }
                Ok(Ok((epoch, reply))) => {
                    self.catch_up(&link, epoch).await;
                    let failure = match reply {
                        Reply::Failed(failure) => failure,
                        reply => return Ok((node, reply)),
                    };
                    let safe = repeatable || failure.effect == Effect::NotApplied;
                    if last || !safe || !only_there(failure.code) || !self.retries.take() {
                        return Err(RequestError::Failed(failure));
                    }
                    let wait = Duration::from_millis(u64::from(failure.retry_after_ms));
                    tokio::time::sleep_until(deadline.min(Instant::now() + wait)).await;
                    refused = Some(RequestError::Failed(failure));
                }
                Ok(Err(error)) if error.not_sent() || (repeatable && self.retries.take()) => {
                    tried.push((node.to_string(), error.to_string()));
                }
                Ok(Err(error)) => {
                    let reason = match error {
                        CallError::Lost(reason) => reason,
                        other => other.to_string(),
                    };
                    return Err(RequestError::Lost { node: node.to_string(), reason });
                }
            }
        }
        Err(refused.unwrap_or(RequestError::Unreachable { tried }))
    }

    /// Who may coordinate: the one that was named; else the key's owners in random order, then everybody else.
    async fn candidates(
        &self,
        bucket: &Bucket,
        key: &Bytes,
        options: &Options,
        deadline: Instant,
        tried: &mut Vec<(String, String)>,
    ) -> Vec<NodeId> {
        let view = self.view();
        let (mut first, mut rest) = match options.via {
            Some(node) => (vec![node], Vec::new()),
            None => {
                let owners = view.owners(view.partition(Token::of(&bucket.id.0, key)));
                let owners = owners.first(bucket.definition().n).all();
                let others = view.members().iter().map(|member| member.id);
                let others = others.filter(|node| !owners.contains(node)).collect();
                (owners, others)
            }
        };
        let all: Vec<NodeId> = first.iter().chain(&rest).copied().collect();
        if self.peers.up(&first).is_empty() {
            let now = Instant::now();
            let wait = deadline.max(now + CONNECT_PATIENCE);
            // others can hand it on; they must not be left without time for that
            let first_alone = if rest.is_empty() { wait } else { now + (deadline - now) / 4 };
            let _ = tokio::time::timeout_at(first_alone, self.peers.first_up(&first)).await;
            if self.peers.up(&first).is_empty() {
                let _ = tokio::time::timeout_at(wait, self.peers.first_up(&all)).await;
            }
        }
        first = self.peers.up(&first);
        rest = self.peers.up(&rest);
        for node in all.iter().filter(|node| !first.contains(node) && !rest.contains(node)) {
            if let Err(error) = self.peers.link(*node) {
                tried.push((node.to_string(), error.to_string()));
            }
        }
        first.shuffle(&mut rand::rng());
        rest.shuffle(&mut rand::rng());
        first.append(&mut rest);
        first.sort_by_key(|node| self.is_suspect(*node)); // stable; a suspect comes last even if it is an owner
        first
    }
}

/// Whether a request was refused because of its bucket, and has done nothing.
fn is_of_bucket(failure: &Failure) -> bool {
    let of_bucket = matches!(failure.code, ErrorCode::UnknownBucket | ErrorCode::BucketDropped);
    of_bucket && failure.effect == Effect::NotApplied
}

/// Whether a failure is one of the node that was asked, so that another may do better.
fn only_there(code: ErrorCode) -> bool {
    match code {
        ErrorCode::NoOwnerReachable
        | ErrorCode::Overloaded
        | ErrorCode::StaleView
        | ErrorCode::Rising
        | ErrorCode::Removed
        | ErrorCode::Corrupt
        | ErrorCode::ReadOnly
        | ErrorCode::Stopping => true,
        ErrorCode::BadQuorum
        | ErrorCode::KeyLength
        | ErrorCode::ValueTooLarge
        | ErrorCode::ContextMalformed
        | ErrorCode::ContextOtherKey
        | ErrorCode::ContextOtherCluster
        | ErrorCode::ContextNeeded
        | ErrorCode::UnknownBucket
        | ErrorCode::NotPermitted
        | ErrorCode::Malformed
        | ErrorCode::OtherCluster
        | ErrorCode::TooManySiblings
        | ErrorCode::BadBucket
        | ErrorCode::BucketExists
        | ErrorCode::BucketDropped
        | ErrorCode::TooManyBuckets
        | ErrorCode::WriteQuorumNotMet
        | ErrorCode::ReadQuorumNotMet
        | ErrorCode::DeadlinePassed
        | ErrorCode::HintsFull
        | ErrorCode::RingRejected
        | ErrorCode::RingFrozen
        | ErrorCode::Internal => false,
    }
}

/// How much longer than the request's own time we wait for its coordinator to say how far it came.
const GRACE: Duration = Duration::from_millis(250);

/// How long a first connection may take even if the request wants to be faster.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

fn token_bytes(context: Option<&ContextToken>) -> Bytes {
    context.map_or_else(Bytes::new, |token| Bytes::copy_from_slice(token.as_bytes()))
}

fn written(stored: Stored) -> WriteReply {
    WriteReply {
        context: ContextToken::from(stored.context),
        dot: dot(stored.dot),
        receipt: stored.receipt,
    }
}

fn dot((node, incarnation, counter): DotParts) -> Dot {
    Dot { actor: Actor { node, incarnation }, counter }
}

pub(crate) fn nonsense(node: NodeId, reason: &str) -> RequestError {
    RequestError::Nonsense { node: node.to_string(), reason: reason.into() }
}
