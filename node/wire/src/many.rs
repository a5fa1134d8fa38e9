//! Several requests about single keys in one frame, each with its own outcome.
//!
//! ```text
//!  per request                                     per answer
//!  +----------------------+----------------+      +----------------------+----------------+
//!  | head, postcard       | operation      |      | head, postcard       | reading        |
//!  | number, what, length | raw bytes      |      | what, length         | raw bytes      |
//!  +----------------------+----------------+      +----------------------+----------------+
//! ```
//!
//! The keys of one frame belong to one bucket, that of the envelope. Nothing ties them together: one may be stored and the
//! next one fail.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Failure, Found, Get, Reply, Stored, Write,
    limits::MANY_MAX,
    tails::{cut, head},
};

/// Several requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Many {
    /// Tail: [`One`]s; see [`Many::read`].
    #[serde(skip)]
    pub requests: Bytes,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct One {
    /// As [`crate::Envelope::operation`]: each has its own.
    pub operation: u128,
    /// What is asked.
    pub ask: Ask,
}

/// What may be asked of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// A change.
    Write(Write),
    /// A read.
    Get(Get),
}

/// The answers, in the order of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManyReply {
    /// Tail: one [`Reply`] per request; see [`ManyReply::read`].
    #[serde(skip)]
    pub replies: Bytes,
}

#[derive(Serialize, Deserialize)]
enum Head {
    Written(Stored),
    Found(Found),
    Failed(Box<Failure>),
}

impl Many {
    /// These, at most [`MANY_MAX`].
    pub fn of(requests: &[One]) -> Self {
        assert!(requests.len() <= MANY_MAX, "at most {MANY_MAX} requests in one frame");
        let mut out = Vec::new();
        for One { operation, ask } in requests {
            let tail = match ask {
                Ask::Write(write) => &write.operation[..],
                Ask::Get(_) => &[],
            };
            out = postcard::to_extend(&(operation, ask, length(tail)), out).expect("plain data");
            out.extend_from_slice(tail);
        }
        Many { requests: out.into() }
    }

    /// The requests; `None` if the bytes are none, or too many.
    pub fn read(&self) -> Option<Vec<One>> {
        let mut left = self.requests.clone();
        let mut requests = Vec::new();
        while !left.is_empty() {
            if requests.len() == MANY_MAX {
                return None;
            }
            let (operation, mut ask, bytes): (u128, Ask, u32) = head(&mut left)?;
            let tail = cut(&mut left, bytes)?;
            match &mut ask {
                Ask::Write(write) => write.operation = tail,
                Ask::Get(_) if tail.is_empty() => {}
                Ask::Get(_) => return None,
            }
            requests.push(One { operation, ask });
        }
        Some(requests)
    }
}

impl ManyReply {
    /// No answer yet.
    pub fn new() -> Self {
        ManyReply { replies: Bytes::new() }
    }

    /// These answers, in order. An answer of another kind than writes and reads have is an error of ours.
    pub fn of(replies: &[Reply]) -> Self {
        assert!(replies.len() <= MANY_MAX, "at most {MANY_MAX} answers in one frame");
        let mut out = Vec::new();
        for reply in replies {
            let (head, tail) = match reply {
                Reply::Written(stored) => (Head::Written(stored.clone()), Bytes::new()),
                Reply::Found(found) => (Head::Found(found.clone()), found.reading.clone()),
                Reply::Failed(failure) => (Head::Failed(failure.clone()), Bytes::new()),
                other => panic!("{other:?} answers no write and no read"),
            };
            out = postcard::to_extend(&(head, length(&tail)), out).expect("plain data");
            out.extend_from_slice(&tail);
        }
        ManyReply { replies: out.into() }
    }

    /// The answers; `None` if the bytes are none, or too many.
    pub fn read(&self) -> Option<Vec<Reply>> {
        let mut left = self.replies.clone();
        let mut replies = Vec::new();
        while !left.is_empty() {
            if replies.len() == MANY_MAX {
                return None;
            }
            let (head, bytes): (Head, u32) = head(&mut left)?;
            let tail = cut(&mut left, bytes)?;
            replies.push(match head {
                Head::Found(found) => Reply::Found(Found { reading: tail, ..found }),
                _ if !tail.is_empty() => return None,
                Head::Written(stored) => Reply::Written(stored),
                Head::Failed(failure) => Reply::Failed(failure),
            });
        }
        Some(replies)
    }
}

impl Default for ManyReply {
    fn default() -> Self {
        Self::new()
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a frame is below 4 GiB")
}
