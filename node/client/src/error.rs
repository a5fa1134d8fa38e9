//! What can go wrong between a caller and a cluster.

use std::fmt;

use atoll_antientropy::Kind;
use atoll_ring::QuorumError;
use atoll_wire::{Effect, Failure, bucket::Unresolved};

use crate::ProfileError;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Our certificate or key cannot be used.
    #[error(transparent)]
    Identity(#[from] atoll_transport::IdentityError),
    /// No socket.
    #[error("cannot open a socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The profile names no seeds.
    #[error("the profile names no seeds")]
    NoSeeds,
    /// No seed answered as it should.
    #[error("cannot reach the cluster; tried {}", List(.tried))]
    Unreachable {
        /// Each address and why it was of no use.
        tried: Vec<(String, String)>,
    },
}

/// Why a request has no answer, or a bad one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The settings contradict each other. Nothing was sent.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The key or value is over its limit. Nothing was sent.
    #[error("{0}")]
    Limit(String),
    /// The bucket's values are of another kind than plain bytes.
    #[error("the bucket holds values of the kind `{0}`; read them as such")]
    OtherKind(Kind),
    /// The session cannot go on. Nothing was sent.
    #[error("{0}")]
    Session(String),
    /// The bucket's name leads to no bucket, or not to one alone. Nothing was sent.
    #[error(transparent)]
    Bucket(#[from] Unresolved),
    /// The node that shall coordinate is no member. Nothing was sent.
    #[error("there is no {node} in this cluster; its nodes are {members}")]
    NoSuchNode {
        /// Who was named.
        node: String,
        /// Who there is.
        members: String,
    },
    /// No node that could coordinate can be reached. Nothing was sent.
    #[error("cannot reach {}", List(.tried))]
    Unreachable {
        /// Each node and why it was of no use.
        tried: Vec<(String, String)>,
    },
    /// The coordinator did not answer in time. A write may have been applied, or may still be.
    #[error("{node} did not answer within {ms} ms")]
    TimedOut {
        /// Who was asked.
        node: String,
        /// How long we waited.
        ms: u32,
    },
    /// The connection broke while we waited. A write may have been applied, or may still be.
    #[error("the connection to {node} was lost: {reason}")]
    Lost {
        /// Who was asked.
        node: String,
        /// Why.
        reason: String,
    },
    /// The cluster answered with a failure.
    #[error("{0}")]
    Failed(Box<Failure>),
    /// The answer makes no sense.
    #[error("{node} answered nonsense: {reason}")]
    Nonsense {
        /// Who was asked.
        node: String,
        /// What was wrong.
        reason: String,
    },
}

impl RequestError {
    /// The kind of the error in one or two words: the cluster's own word if it answered.
    pub fn word(&self) -> &'static str {
        match self {
            RequestError::Quorum(_) => "bad quorum",
            RequestError::Limit(_) => "over a limit",
            RequestError::OtherKind(_) => "another kind",
            RequestError::Bucket(_) => "unknown bucket",
            RequestError::Session(_) => "session cannot go on",
            RequestError::NoSuchNode { .. } => "no such node",
            RequestError::Unreachable { .. } => "unreachable",
            RequestError::TimedOut { .. } => "timed out",
            RequestError::Lost { .. } => "connection lost",
            RequestError::Failed(failure) => failure.code.word(),
            RequestError::Nonsense { .. } => "nonsense answered",
        }
    }

    /// What a write that ended so has left behind.
    pub fn effect(&self) -> Effect {
        match self {
            RequestError::Quorum(_)
            | RequestError::Limit(_)
            | RequestError::OtherKind(_)
            | RequestError::Session(_)
            | RequestError::Bucket(_)
            | RequestError::NoSuchNode { .. }
            | RequestError::Unreachable { .. } => Effect::NotApplied,
            RequestError::TimedOut { .. }
            | RequestError::Lost { .. }
            | RequestError::Nonsense { .. } => Effect::Unknown,
            RequestError::Failed(failure) => failure.effect,
        }
    }
}

/// Who was tried, those with the same reason together.
struct List<'a>(&'a [(String, String)]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
        for (who, why) in self.0 {
            match by_reason.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, together)) => together.push(who),
                None => by_reason.push((why, vec![who])),
            }
        }
        for (index, (reason, who)) in by_reason.iter().enumerate() {
            write!(f, "{}{} ({reason})", if index == 0 { "" } else { ", " }, who.join(", "))?;
        }
        Ok(())
    }
}
