//! One request: checked here, sent to a coordinator, its answer taken apart.
//!
//! What can be refused without the cluster is refused here. Then two owners that are connected are drawn at random, and the
//! one with less to do for us is asked ([`crate::in_flight`]); if it certainly has not seen the request, the next one gets it. What may have been seen is repeated elsewhere only if that is
//! safe, a read or a write that was not applied, and within a budget ([`crate::retries`]).

use std::time::Duration;

use atoll_antientropy::{Actor, ContextToken, Dot, Operation, Reading};
use atoll_ring::{Epoch, NodeId, Quorum, Token};
use atoll_transport::CallError;
use atoll_wire::{
    DotParts, Effect, Envelope, ErrorCode, Explain, Explained, Failure, Found, Get, Lane,
    NodeStatus, Receipt, Reply, Request, Role, StatusQuery, Stored, Write, bucket::Definition,
    limits::KEY_BYTES_MAX,
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{Client, Options, RequestError, buckets::Bucket, retries};

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadReply {
    /// What there is. Nothing and no context: never written; nothing and a context: deleted, or expired.
    pub reading: Reading,
    /// What this reply stands for; hand it back with a change to say what was seen.
    pub context: Option<ContextToken>,
    /// Who answered.
    pub receipt: Receipt,
}

impl ReadReply {
    /// The same for values that are plain bytes.
    ///
    /// # Errors
    /// [`RequestError::OtherKind`] for others.
    pub fn into_values(self) -> Result<GetReply, RequestError> {
        let siblings = match self.reading {
            Reading::Register(siblings) => siblings,
            Reading::Lww(value) => value.into_iter().collect(),
            other => return Err(RequestError::OtherKind(other.kind())),
        };
        let values = siblings.into_iter().map(|sibling| Value {
            dot: sibling.dot,
            written_ms: sibling.written_ms,
            expires_ms: sibling.expires_ms,
            bytes: sibling.value,
        });
        let (context, receipt) = (self.context, self.receipt);
        Ok(GetReply { values: values.collect(), context, receipt })
    }
}

/// What a read found under a key whose values are plain bytes. No values and no context: never written. No values but a
/// context: deleted, or expired.
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
    /// When its coordinator wrote it, in milliseconds since 1970 by that node's clock.
    pub written_ms: u64,
    /// From when on it is not shown any more; none = always shown.
    pub expires_ms: Option<u64>,
    /// The bytes.
    pub bytes: Bytes,
}

/// What a write has done.
#[derive(Clone, Debug)]
pub struct WriteReply {
    /// The request's context and the write's own event, and never more: a sibling that was not seen stays unseen.
    pub context: ContextToken,
    /// All that the session has seen of the key by now, if it is in one.
    pub(crate) session: Option<ContextToken>,
    /// The write's own event.
    pub dot: Dot,
    /// Who acknowledged.
    pub receipt: Receipt,
}

/// What would happen to a request.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Epoch of the view that it follows from.
    pub epoch: Epoch,
    /// What the node that answered knows; what follows is worked out by its methods.
    pub known: Explained,
    /// From the question to the answer, as measured here; the connection was there before.
    pub took: Duration,
}

/// An answer, and how it came.
struct Answered {
    node: NodeId,
    /// Of that node's view.
    epoch: Epoch,
    reply: Reply,
    /// From the question to the answer.
    took: Duration,
}

impl Client {
    /// Reads what there is under a key, of whatever kind it is.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn read(&self, key: &[u8], options: &Options) -> Result<ReadReply, RequestError> {
        self.read_after(key, None, options).await
    }

    /// Reads all current values of a key whose values are plain bytes: of a `register`, and of an `lww`, which has one.
    ///
    /// # Errors
    /// See [`RequestError`]; a bucket of another kind is read with [`Client::read`].
    pub async fn get(&self, key: &[u8], options: &Options) -> Result<GetReply, RequestError> {
        self.read(key, options).await?.into_values()
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
        let put = Operation::Put { value: value.into(), expires_ms: None };
        self.change(key, &put, context, options).await
    }

    /// Deletes everything that `context` covers, and nothing else. Without a context the coordinator first reads so many
    /// owners that every write acknowledged at the same `w` is seen, strictly, and what it found goes.
    ///
    /// # Errors
    /// See [`RequestError`]; [`RequestError::effect`] says what a failed delete has left behind.
    pub async fn delete(
        &self,
        key: &[u8],
        context: Option<&ContextToken>,
        options: &Options,
    ) -> Result<WriteReply, RequestError> {
        self.change(key, &Operation::Clear, context, options).await
    }

    /// Does what an operation says, on `w` of the key's owners. The context is what the caller has seen; without one, an
    /// operation that takes something away is preceded by a strict read.
    ///
    /// # Errors
    /// See [`RequestError`]; [`RequestError::effect`] says what a failed change has left behind. What may be repeated at any time
    /// (an increment of a session, a maximum) is asked once more, of another node, if it ends unsure.
    pub async fn change(
        &self,
        key: &[u8],
        operation: &Operation,
        context: Option<&ContextToken>,
        options: &Options,
    ) -> Result<WriteReply, RequestError> {
        self.change_after(key, operation, context, None, options).await
    }

    /// A read whose answer knows all of this, if it is in a session.
    pub(crate) async fn read_after(
        &self,
        key: &[u8],
        session: Option<Bytes>,
        options: &Options,
    ) -> Result<ReadReply, RequestError> {
        let key = Bytes::copy_from_slice(key);
        let get = |bucket: &Definition| {
            let (quorum, repair) = (options.quorum, options.repair(&bucket.properties));
            Request::Get(Get { key: key.clone(), session: session.clone(), quorum, repair })
        };
        let (node, reply) = self.ask(&key, 0, get, options).await?;
        let Reply::Found(found) = reply else { return Err(nonsense(node, "no read")) };
        read_reply(node, found)
    }

    /// A change that comes after all of this, if it is in a session.
    pub(crate) async fn change_after(
        &self,
        key: &[u8],
        operation: &Operation,
        context: Option<&ContextToken>,
        session: Option<Bytes>,
        options: &Options,
    ) -> Result<WriteReply, RequestError> {
        let value_bytes = match operation {
            Operation::Put { value, .. } => value.len(),
            _ => 0,
        };
        let key = Bytes::copy_from_slice(key);
        let write = Write {
            context: token_bytes(context),
            session,
            ttl_ms: options.ttl_ms(),
            ..Write::new(key.clone(), options.quorum, operation)
        };
        // all attempts are one operation
        let operation_id = options.operation.unwrap_or_else(rand::random);
        let options = &Options { operation: Some(operation_id), ..options.clone() };
        let request = |_: &Definition| Request::Write(write.clone());
        let mut answer = self.ask(&key, value_bytes, request, options).await;
        let unsure = |error: &RequestError| error.effect() != Effect::NotApplied;
        if operation.repeats_safely() && answer.as_ref().is_err_and(unsure) {
            let again = self.ask(&key, value_bytes, request, options).await; // whoever was silent is asked last
            answer = retries::of_both(answer, again);
        }
        match answer? {
            (_, Reply::Written(stored)) => Ok(written(stored)),
            (node, _) => Err(nonsense(node, "no write")),
        }
    }

    /// What would happen to a read or a write of this key with these options: who owns it and how they are, what the settings
    /// stand for, how many nodes may fail, how long it should take. Nothing is sent to the data.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn explain(
        &self,
        key: &[u8],
        options: &Options,
    ) -> Result<Explanation, RequestError> {
        let bucket = self.bucket(options).await?;
        self.check(key, 0, options, bucket.definition())?;
        let key = Bytes::copy_from_slice(key);
        let explain = Request::Explain(Explain { key: key.clone(), quorum: options.quorum });
        let answered = self.send_and_see(&bucket, &key, &explain, options).await?;
        let Answered { node, epoch, reply, took } = answered;
        match reply {
            Reply::Explained(known) => Ok(Explanation { epoch, known: *known, took }),
            _ => Err(nonsense(node, "no explanation")),
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
    pub(crate) fn check(
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

    pub(crate) async fn send_about(
        &self,
        bucket: &Bucket,
        key: &Bytes,
        request: &Request,
        options: &Options,
    ) -> Result<(NodeId, Reply), RequestError> {
        let answered = self.send_and_see(bucket, key, request, options).await?;
        Ok((answered.node, answered.reply))
    }

    /// The same, and more about the answer.
    async fn send_and_see(
        &self,
        bucket: &Bucket,
        key: &Bytes,
        request: &Request,
        options: &Options,
    ) -> Result<Answered, RequestError> {
        let timeout_ms = options.timeout_ms(&bucket.definition().properties);
        let deadline = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
        let (lane, repeatable) = match request {
            Request::Get(_) | Request::List(_) | Request::Explain(_) => (Lane::Request, true),
            Request::Write(_) | Request::Many(_) => (Lane::Request, false),
            Request::Hello(_)
            | Request::Ping(_)
            | Request::View(_)
            | Request::Status(_)
            | Request::RepairStatus(_)
            | Request::RepairRun(_)
            | Request::Dump(_)
            | Request::Faults(_)
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
            | Request::Covered(_)
            | Request::Scan(_) => (Lane::Control, true),
            Request::Propose(_) | Request::Raft(_) => (Lane::Control, false),
        };
        let role = match (self.speaks_for, Role::Client.may_ask(request)) {
            (Some(_), _) => Role::Node,
            (None, true) => Role::Client,
            (None, false) => Role::Operator, // if our certificate does not say so, the answer will
        };
        let operation = options.operation.unwrap_or_else(rand::random);
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
                trace: options.trace,
                role,
            };
            let link = match self.peers.link(node) {
                Ok(link) => link,
                Err(error) => {
                    tried.push((node.to_string(), error.to_string()));
                    continue;
                }
            };
            let _sent = self.in_flight.send(node);
            let asked = Instant::now();
            let call = link.call(lane, &envelope, request);
            tokio::pin!(call);
            let last = index + 1 == candidates.len();
            // a silent coordinator of a read may not use up the time of the next one
            let may_repeat = repeatable && !last && self.retries.any();
            let patience = if may_repeat { left / 2 } else { left + GRACE };
            let mut answer = tokio::time::timeout(patience, &mut call).await;
            if answer.is_err() && may_repeat {
                self.suspect(node);
                if self.retries.take() {
                    tried.push((node.to_string(), "no answer".into()));
                    continue;
                }
                // others were silent too, and what was saved up is spent: it may still answer
                answer = tokio::time::timeout(left - patience + GRACE, &mut call).await;
            }
            match answer {
                Err(_) => {
                    self.suspect(node);
                    return Err(RequestError::TimedOut { node: node.to_string(), ms: timeout_ms });
                }
                Ok(Ok((epoch, reply))) => {
                    let took = asked.elapsed();
                    self.catch_up(&link, epoch).await;
                    let failure = match reply {
                        Reply::Failed(failure) => failure,
                        reply => return Ok(Answered { node, epoch, reply, took }),
                    };
                    if matches!(failure.code, ErrorCode::Rising | ErrorCode::Stopping) {
                        self.suspect(node); // it refuses at once, so it would always have the least to do
                    }
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

    /// Who may coordinate: the one that was named; else the key's owners as they are drawn, then everybody else.
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
        self.in_flight.draw(&mut first, &mut rand::rng());
        self.in_flight.draw(&mut rest, &mut rand::rng());
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
pub(crate) fn only_there(code: ErrorCode) -> bool {
    match code {
        ErrorCode::NoOwnerReachable
        | ErrorCode::Overloaded
        | ErrorCode::StaleView
        | ErrorCode::Rising
        | ErrorCode::Removed
        | ErrorCode::Corrupt
        | ErrorCode::ReadOnly
        | ErrorCode::ClockOff
        | ErrorCode::SessionNotSatisfied
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
        | ErrorCode::WrongKind
        | ErrorCode::BadOperation
        | ErrorCode::TooManyElements
        | ErrorCode::TooManySessions
        | ErrorCode::CounterOverflow
        | ErrorCode::KeepsItsValue
        | ErrorCode::NothingThere
        | ErrorCode::BadPage
        | ErrorCode::FaultsNotAllowed
        | ErrorCode::BadFaults
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

pub(crate) fn token_bytes(context: Option<&ContextToken>) -> Bytes {
    context.map_or_else(Bytes::new, |token| Bytes::copy_from_slice(token.as_bytes()))
}

pub(crate) fn read_reply(node: NodeId, found: Found) -> Result<ReadReply, RequestError> {
    Ok(ReadReply {
        reading: Reading::decode(&found.reading)
            .map_err(|error| nonsense(node, &format!("no reading: {error}")))?,
        context: (!found.context.is_empty()).then(|| ContextToken::from(found.context)),
        receipt: found.receipt,
    })
}

pub(crate) fn written(stored: Stored) -> WriteReply {
    WriteReply {
        context: ContextToken::from(stored.context),
        session: (!stored.session.is_empty()).then(|| ContextToken::from(stored.session)),
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
