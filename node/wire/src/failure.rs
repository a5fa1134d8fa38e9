//! Everything that can go wrong, as numbers that never change their meaning.
//!
//! A [`Failure`] says three things: what happened ([`ErrorCode`]), what the state is now ([`Effect`]), and who should
//! act (the text of the code). Numbers are grouped: below 100 the caller should act, from 100 the cluster could not,
//! from 200 one node is in trouble.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Receipt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal;)*) => {
        /// What happened. The number is what travels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "u16", from = "u16")]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// All codes this version knows.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The number on the wire.
            pub fn number(self) -> u16 { match self { $(ErrorCode::$name => $number,)* } }

            /// The word for people and JSON.
            pub fn word(self) -> &'static str { match self { $(ErrorCode::$name => $word,)* } }
        }

        impl From<u16> for ErrorCode {
            fn from(number: u16) -> Self {
                match number { $($number => ErrorCode::$name,)* _ => ErrorCode::Internal }
            }
        }
    };
}

codes! {
    /// The quorum settings contradict each other. Nothing was sent on.
    BadQuorum = 1, "bad quorum";
    /// The key is empty or over its limit.
    KeyLength = 2, "key length";
    /// The value is over its limit.
    ValueTooLarge = 3, "value too large";
    /// The context is no context: damaged, or forged.
    ContextMalformed = 4, "context malformed";
    /// The context belongs to another key. Using it would erase events it never saw.
    ContextOtherKey = 5, "context of another key";
    /// The context was given out by another cluster.
    ContextOtherCluster = 6, "context of another cluster";
    /// What is taken away must be named by a context. (Not given out any more: the coordinator reads first.)
    ContextNeeded = 7, "context needed";
    /// No such bucket.
    UnknownBucket = 8, "unknown bucket";
    /// The certificate's role may not send this.
    NotPermitted = 9, "not permitted";
    /// The frame is damaged, of an unknown kind or over its cap.
    Malformed = 10, "malformed";
    /// The peer belongs to another cluster.
    OtherCluster = 11, "other cluster";
    /// The key has as many siblings as it may; put with a context to replace them.
    TooManySiblings = 12, "too many siblings";
    /// The ring is not changed like this; the text says what to do instead.
    RingRejected = 13, "ring change refused";
    /// The caller was removed from the ring and cannot come back under its id.
    Removed = 14, "removed from the ring";
    /// The bucket holds another kind of value than the operation is for.
    WrongKind = 15, "wrong kind";
    /// The operation says nothing, lies too deep, or names something too long.
    BadOperation = 18, "bad operation";
    /// A set or map has as many elements as it may.
    TooManyElements = 19, "too many elements";
    /// A counter knows as many sessions as it may.
    TooManySessions = 20, "too many sessions";
    /// The counter would leave the numbers there are.
    CounterOverflow = 21, "counter overflow";
    /// A maximum is never taken back.
    KeepsItsValue = 22, "a maximum is never taken back";
    /// There is nothing that a delete without a context could delete.
    NothingThere = 23, "nothing there";
    /// This is no page of that listing.
    BadPage = 24, "bad page";
    /// The node may not be broken on purpose: it was started without `--allow-faults`.
    FaultsNotAllowed = 25, "faults not allowed";
    /// Such faults cannot be borne; the text says which, and why.
    BadFaults = 26, "bad faults";
    /// Such a bucket cannot be; the text says which rule it breaks.
    BadBucket = 30, "bad bucket";
    /// The bucket's name stands for something else already.
    BucketExists = 31, "bucket exists";
    /// The bucket was dropped, and its data with it.
    BucketDropped = 32, "bucket dropped";
    /// There are as many buckets as there may be.
    TooManyBuckets = 33, "too many buckets";
    /// Fewer owners than needed stored the write in time.
    WriteQuorumNotMet = 100, "write quorum not met";
    /// Fewer owners than needed answered the read in time.
    ReadQuorumNotMet = 101, "read quorum not met";
    /// No owner of the key can be reached from the asked node.
    NoOwnerReachable = 102, "no owner reachable";
    /// The time the request was given was over before it was done.
    DeadlinePassed = 103, "deadline passed";
    /// Queues are full. Try again after the time given.
    Overloaded = 104, "overloaded";
    /// The request was planned with an older view than the partition's last change.
    StaleView = 105, "stale view";
    /// The node may keep no more hints for the owner it should stand in for.
    HintsFull = 106, "hint store full";
    /// The node has just started and does not know yet what it may say.
    Rising = 107, "starting";
    /// No majority of the voters can be reached: the ring cannot be changed. Data is read and written as ever.
    RingFrozen = 108, "ring frozen";
    /// Nobody who can be reached knows all that the session has seen of this key.
    SessionNotSatisfied = 109, "session not satisfied";
    /// The node's own copy of this key is damaged.
    Corrupt = 200, "corrupt";
    /// The node accepts no writes.
    ReadOnly = 201, "read-only";
    /// The node is stopping.
    Stopping = 202, "stopping";
    /// The node's clock is too far from the others' for writes that go by time.
    ClockOff = 204, "clock off";
    /// Our own mistake.
    Internal = 203, "internal error";
}

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> u16 {
        code.number()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a failed write has left behind. `NotApplied` is never wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// No replica has taken a step.
    NotApplied,
    /// So many replicas have it fsynced; it **may become visible** and spread.
    Applied(u8),
    /// It may have been applied, or may still be.
    Unknown,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::NotApplied => write!(f, "not applied"),
            Effect::Applied(k) => write!(f, "applied on {k}"),
            Effect::Unknown => write!(f, "unknown"),
        }
    }
}

/// A request that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub code: ErrorCode,
    /// What the state is now. Reads are `NotApplied`.
    pub effect: Effect,
    /// How many answers came in time.
    pub got: u8,
    /// How many were needed.
    pub needed: u8,
    /// Try again after so many milliseconds; 0 = the same request will fail the same way.
    pub retry_after_ms: u32,
    /// One sentence for people: the numbers, and what to do.
    pub detail: String,
    /// Who answered what, as far as it came.
    pub receipt: Option<Box<Receipt>>,
}

impl Failure {
    /// A refusal before anything was done.
    pub fn refused(code: ErrorCode, detail: impl Into<String>) -> Self {
        Failure {
            code,
            effect: Effect::NotApplied,
            got: 0,
            needed: 0,
            retry_after_ms: 0,
            detail: detail.into(),
            receipt: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are distinct, survive the way there and back, and never move; a new one is a new line.
    #[test]
    fn numbers_never_change_their_meaning() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.number()), "{code:?} shares its number");
            assert_eq!(ErrorCode::from(code.number()), *code);
        }
        let all: Vec<(u16, &str)> =
            ErrorCode::ALL.iter().map(|code| (code.number(), code.word())).collect();
        let frozen = [
            (1, "bad quorum"),
            (2, "key length"),
            (3, "value too large"),
            (4, "context malformed"),
            (5, "context of another key"),
            (6, "context of another cluster"),
            (7, "context needed"),
            (8, "unknown bucket"),
            (9, "not permitted"),
            (10, "malformed"),
            (11, "other cluster"),
            (12, "too many siblings"),
            (13, "ring change refused"),
            (14, "removed from the ring"),
            (15, "wrong kind"),
            (18, "bad operation"),
            (19, "too many elements"),
            (20, "too many sessions"),
            (21, "counter overflow"),
            (22, "a maximum is never taken back"),
            (23, "nothing there"),
            (24, "bad page"),
            (25, "faults not allowed"),
            (26, "bad faults"),
            (30, "bad bucket"),
            (31, "bucket exists"),
            (32, "bucket dropped"),
            (33, "too many buckets"),
            (100, "write quorum not met"),
            (101, "read quorum not met"),
            (102, "no owner reachable"),
            (103, "deadline passed"),
            (104, "overloaded"),
            (105, "stale view"),
            (106, "hint store full"),
            (107, "starting"),
            (108, "ring frozen"),
            (109, "session not satisfied"),
            (200, "corrupt"),
            (201, "read-only"),
            (202, "stopping"),
            (204, "clock off"),
            (203, "internal error"),
        ];
        assert_eq!(all, frozen);
    }

    /// A number of a later version is an error we cannot name, never another error.
    #[test]
    fn an_unknown_number_is_internal() {
        assert_eq!(ErrorCode::from(9999), ErrorCode::Internal);
    }
}
