//! What voters say to each other, and how it travels: on the control lane, as one request with one answer.
//!
//! ```text
//!   version u8 = 1 | to u64 | postcard(question)          the answer: postcard
//! ```
//!
//! A message names the member it is for with its incarnation. A node that has lost memory is another member of the group
//! than it was, and refuses what is meant for its former self.

use std::{sync::Weak, time::Duration};

use atoll_transport::CallError;
use atoll_wire::{Lane, Raft as Message, Reply, Request};
use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::{
    EmptyNode, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot, SnapshotMeta,
    error::{
        Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
    },
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Group, Member, Vote};
use crate::Node;

const VERSION: u8 = 1;

/// What a voter asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// Take these entries; none = I still lead.
    Append(AppendEntriesRequest<Group>),
    /// Vote for me.
    Vote(VoteRequest<u64>),
    /// Take this view, and forget the entries that led to it.
    Snapshot(Vote, SnapshotMeta<u64, EmptyNode>, Vec<u8>),
}

/// For whom a message is, and the rest of it.
pub(super) fn addressed(message: &[u8]) -> Result<(Member, &[u8]), String> {
    let (version, rest) = message.split_first().ok_or("an empty message")?;
    if *version != VERSION {
        return Err(format!("a message of version {version}; this node speaks {VERSION}"));
    }
    let (to, rest) = rest.split_first_chunk().ok_or("a message cut short")?;
    Ok((Member(u64::from_be_bytes(*to)), rest))
}

/// What it asks.
pub(super) fn question(rest: &[u8]) -> Result<Question, String> {
    postcard::from_bytes(rest).map_err(|error| format!("no message: {error}"))
}

fn seal(to: Member, question: &Question) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(VERSION);
    message.put_u64(to.0);
    message.put_slice(&postcard::to_stdvec(question).expect("plain data"));
    message.freeze()
}

/// The way to the other members of the group.
pub(super) struct Ways(pub(super) Weak<Node>);

impl RaftNetworkFactory<Group> for Ways {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Way {
        Way { node: self.0.clone(), to: Member(target) }
    }
}

/// The way to one of them.
pub(super) struct Way {
    node: Weak<Node>,
    to: Member,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// Nobody is there: try again after a pause.
    #[error("{0}")]
    Away(String),
    /// Somebody is there and has no time.
    #[error("{0}")]
    Busy(String),
}

impl Way {
    async fn ask<T: DeserializeOwned>(
        &self,
        question: Question,
        limit: Duration,
    ) -> Result<T, NoAnswer> {
        let away = |why: String| Err(NoAnswer::Away(why));
        let Some(node) = self.node.upgrade() else { return away("the node has ended".into()) };
        let peer = self.to.node();
        let message = seal(self.to, &question);
        let envelope = node.envelope(node.clock().now() + limit, 0);
        let call = node.transport().call(
            peer,
            Lane::Control,
            envelope,
            Request::Raft(Message { message }),
        );
        match tokio::time::timeout(limit, call).await {
            Ok(Ok((epoch, Reply::Raft(answer)))) => {
                node.heard_epoch(peer, epoch);
                postcard::from_bytes(&answer.message)
                    .or_else(|error| away(format!("no answer: {error}")))
            }
            Ok(Ok((_, Reply::Failed(failure)))) => away(failure.detail),
            Ok(Ok((_, _))) => away("another answer than to what was asked".into()),
            Ok(Err(error @ CallError::Overloaded)) => Err(NoAnswer::Busy(error.to_string())),
            Ok(Err(error)) => away(error.to_string()),
            Err(_) => Err(NoAnswer::Busy(format!("{peer} does not answer in time"))),
        }
    }
}

type Rpc<T> = Result<T, RPCError<u64, EmptyNode, RaftError<u64>>>;

impl From<NoAnswer> for RPCError<u64, EmptyNode, RaftError<u64>> {
    fn from(error: NoAnswer) -> Self {
        match &error {
            NoAnswer::Away(_) => RPCError::Unreachable(Unreachable::new(&error)),
            NoAnswer::Busy(_) => RPCError::Network(NetworkError::new(&error)),
        }
    }
}

impl RaftNetwork<Group> for Way {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Group>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<u64>> {
        Ok(self.ask(Question::Append(rpc), option.hard_ttl()).await?)
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Rpc<VoteResponse<u64>> {
        Ok(self.ask(Question::Vote(rpc), option.hard_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Group>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Group, Fatal<u64>>> {
        let question = Question::Snapshot(vote, snapshot.meta, *snapshot.snapshot);
        tokio::select! { biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = self.ask::<Vote>(question, option.hard_ttl()) => match answer {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }
}
