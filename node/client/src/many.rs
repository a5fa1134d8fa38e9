//! Many keys at once: sent grouped by owner, each with its own outcome and receipt.
//!
//! Keys are put together so that few nodes are asked: each time the connected node that owns most of what is left. What a
//! node could not do, and has certainly not done, is asked for once more alone, as any request would be ([`Client::send`]).
//! Nothing ties the keys together: some may be stored and others not.

use std::collections::BTreeSet;

use atoll_antientropy::{ContextToken, Operation};
use atoll_ring::{NodeId, Token};
use atoll_wire::{Ask, Effect, Get, Many, One, Reply, Request, Write, limits::MANY_MAX};
use bytes::Bytes;
use futures_util::future::join_all;

use crate::{
    Client, Options, ReadReply, RequestError, WriteReply,
    buckets::Bucket,
    request::{nonsense, only_there, read_reply, token_bytes, written},
};

/// One of many changes.
#[derive(Clone, Debug)]
pub struct KeyChange {
    /// The key.
    pub key: Bytes,
    /// What shall be done.
    pub operation: Operation,
    /// What the caller has seen of the key, as for [`Client::change`].
    pub context: Option<ContextToken>,
}

/// Bytes of requests in one frame: enough to be worth the way, and far below the cap.
const FRAME_BYTES: usize = 1 << 20;

impl Client {
    /// Reads several keys. The outcomes are in the order of the keys.
    pub async fn read_many(
        &self,
        keys: &[Bytes],
        options: &Options,
    ) -> Vec<Result<ReadReply, RequestError>> {
        let repair = match self.bucket(options).await {
            Ok(bucket) => options.repair(&bucket.definition().properties),
            Err(error) => return keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let ask = |key: &Bytes| {
            let (key, quorum) = (key.clone(), options.quorum);
            Ask::Get(Get { key, session: None, quorum, repair })
        };
        let asks: Vec<(Bytes, Ask)> = keys.iter().map(|key| (key.clone(), ask(key))).collect();
        let outcomes = self.ask_many(&asks, options).await;
        outcomes
            .into_iter()
            .map(|outcome| match outcome? {
                (node, Reply::Found(found)) => read_reply(node, found),
                (node, _) => Err(nonsense(node, "no read")),
            })
            .collect()
    }

    /// Changes several keys, each on `w` of its owners. The outcomes are in the order of the changes.
    pub async fn change_many(
        &self,
        changes: &[KeyChange],
        options: &Options,
    ) -> Vec<Result<WriteReply, RequestError>> {
        let ask = |change: &KeyChange| {
            let write = Write::new(change.key.clone(), options.quorum, &change.operation);
            let context = token_bytes(change.context.as_ref());
            Ask::Write(Write { context, ttl_ms: options.ttl_ms(), ..write })
        };
        let asks: Vec<(Bytes, Ask)> =
            changes.iter().map(|change| (change.key.clone(), ask(change))).collect();
        let outcomes = self.ask_many(&asks, options).await;
        outcomes
            .into_iter()
            .map(|outcome| match outcome? {
                (_, Reply::Written(stored)) => Ok(written(stored)),
                (node, _) => Err(nonsense(node, "no write")),
            })
            .collect()
    }

    async fn ask_many(
        &self,
        asks: &[(Bytes, Ask)],
        options: &Options,
    ) -> Vec<Result<(NodeId, Reply), RequestError>> {
        let mut outcomes: Vec<Option<Result<(NodeId, Reply), RequestError>>> = Vec::new();
        outcomes.resize_with(asks.len(), || None);
        let bucket = match self.bucket(options).await {
            Ok(bucket) => bucket,
            Err(error) => return asks.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut left = Vec::new();
        for (index, (key, _)) in asks.iter().enumerate() {
            match self.check(key, 0, options, bucket.definition()) {
                Ok(()) => left.push(index),
                Err(error) => outcomes[index] = Some(Err(error)),
            }
        }
        let groups = self.grouped(&bucket, asks, left, options);
        let sent = groups
            .into_iter()
            .map(|(node, group)| self.ask_group(&bucket, node, group, asks, options));
        for (index, outcome) in join_all(sent).await.into_iter().flatten() {
            outcomes[index] = Some(outcome);
        }
        let answered = |outcome: Option<_>| outcome.expect("each was refused or sent");
        outcomes.into_iter().map(answered).collect()
    }

    /// Who is asked for which of them.
    fn grouped(
        &self,
        bucket: &Bucket,
        asks: &[(Bytes, Ask)],
        mut left: Vec<usize>,
        options: &Options,
    ) -> Vec<(Option<NodeId>, Vec<usize>)> {
        if options.via.is_some() {
            return chunks(asks, left).into_iter().map(|chunk| (options.via, chunk)).collect();
        }
        let view = self.view();
        let members: Vec<NodeId> = view.members().iter().map(|member| member.id).collect();
        let mut up: BTreeSet<NodeId> = self.peers.up(&members).into_iter().collect();
        up.retain(|node| !self.is_suspect(*node));
        let owners_of = |index: &usize| {
            let token = Token::of(&bucket.id.0, &asks[*index].0);
            view.owners(view.partition(token)).first(bucket.definition().n).all()
        };
        let mut groups = Vec::new();
        while !left.is_empty() {
            let owned =
                |node: &NodeId| left.iter().filter(|one| owners_of(one).contains(node)).count();
            let best = up.iter().copied().max_by_key(owned).filter(|node| owned(node) > 0);
            let Some(node) = best else {
                // no owner that we are connected to: whoever is asked hands it on
                groups.extend(chunks(asks, left).into_iter().map(|chunk| (None, chunk)));
                break;
            };
            let (its, others) = left.into_iter().partition(|one| owners_of(one).contains(&node));
            groups.extend(chunks(asks, its).into_iter().map(|chunk| (Some(node), chunk)));
            left = others;
            up.remove(&node);
        }
        groups
    }

    /// Asks one node for all of these, and for what it could not do somebody else, one by one.
    async fn ask_group(
        &self,
        bucket: &Bucket,
        node: Option<NodeId>,
        group: Vec<usize>,
        asks: &[(Bytes, Ask)],
        options: &Options,
    ) -> Vec<(usize, Result<(NodeId, Reply), RequestError>)> {
        let mut operations: Vec<u128> = group.iter().map(|_| rand::random()).collect();
        if let (Some(operation), [_]) = (options.operation, operations.as_slice()) {
            operations = vec![operation];
        }
        let ones: Vec<One> = group
            .iter()
            .zip(&operations)
            .map(|(index, operation)| One { operation: *operation, ask: asks[*index].1.clone() })
            .collect();
        let first = &asks[group[0]].0;
        let told = Options { via: node.or(options.via), ..options.clone() };
        let sent = self.send_about(bucket, first, &Request::Many(Many::of(&ones)), &told).await;
        let replies = match &sent {
            Ok((node, Reply::Many(replies))) => replies
                .read()
                .filter(|replies| replies.len() == group.len())
                .map(|all| (*node, all)),
            Ok(_) | Err(_) => None,
        };
        let mut outcomes = Vec::with_capacity(group.len());
        match (replies, sent) {
            (Some((node, replies)), _) => {
                for ((index, operation), reply) in group.into_iter().zip(operations).zip(replies) {
                    let outcome = match reply {
                        Reply::Failed(failure)
                            if failure.effect == Effect::NotApplied && only_there(failure.code) =>
                        {
                            self.alone(bucket, &asks[index], operation, options).await
                        }
                        Reply::Failed(failure) => Err(RequestError::Failed(failure)),
                        reply => Ok((node, reply)),
                    };
                    outcomes.push((index, outcome));
                }
            }
            (None, Ok((node, _))) => {
                let nonsense = || nonsense(node, "not as many answers as requests");
                outcomes.extend(group.into_iter().map(|index| (index, Err(nonsense()))));
            }
            (None, Err(error)) => {
                let reads_only = group.iter().all(|index| matches!(asks[*index].1, Ask::Get(_)));
                let again = reads_only || error.effect() == Effect::NotApplied;
                for (index, operation) in group.into_iter().zip(operations) {
                    let outcome = match again {
                        true => self.alone(bucket, &asks[index], operation, options).await,
                        false => Err(error.clone()),
                    };
                    outcomes.push((index, outcome));
                }
            }
        }
        outcomes
    }

    /// The same as a request of its own.
    async fn alone(
        &self,
        bucket: &Bucket,
        (key, ask): &(Bytes, Ask),
        operation: u128,
        options: &Options,
    ) -> Result<(NodeId, Reply), RequestError> {
        let request = match ask {
            Ask::Write(write) => Request::Write(write.clone()),
            Ask::Get(get) => Request::Get(get.clone()),
        };
        let options = Options { operation: Some(operation), ..options.clone() };
        self.send_about(bucket, key, &request, &options).await
    }
}

/// Cut so that each part fits into a frame.
fn chunks(asks: &[(Bytes, Ask)], all: Vec<usize>) -> Vec<Vec<usize>> {
    let mut chunks: Vec<Vec<usize>> = Vec::new();
    let mut bytes = usize::MAX;
    for index in all {
        let (key, ask) = &asks[index];
        let own = key.len() + operation_bytes(ask);
        let fits = bytes.saturating_add(own) <= FRAME_BYTES;
        match chunks.last_mut().filter(|chunk| fits && chunk.len() < MANY_MAX) {
            Some(chunk) => {
                chunk.push(index);
                bytes += own;
            }
            None => {
                chunks.push(vec![index]);
                bytes = own;
            }
        }
    }
    chunks
}

fn operation_bytes(ask: &Ask) -> usize {
    match ask {
        Ask::Write(write) => write.operation.len(),
        Ask::Get(_) => 0,
    }
}
