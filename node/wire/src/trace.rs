//! What a request did, step by step: the answer to an envelope with `trace`.
//!
//! Each node notes its own steps by its own clock, in microseconds since the request came to it; clocks of two nodes are
//! never compared. What a replica has noted travels back with its answer and stands beside the steps of the coordinator:
//!
//! ```text
//!   n1     0 arrived              n2   0 arrived
//!   n1   120 sent to n2           n2  40 joined
//!   n1  2210 answered by n2       n2 1900 fsynced
//! ```
//!
//! From `sent to n2` to `answered by n2` 2090 µs have passed at n1, of which n2 says where 1900 went; the rest was the way.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Steps that one request may leave on all its nodes together. Two owner sets of 16, with fallbacks and everything tried
/// twice, stay below; what comes after is counted and left out.
pub const STEPS_MAX: usize = 256;

/// What a request did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The steps, those of one node in their order.
    pub steps: Vec<Step>,
    /// Nodes that were tracing as many requests as they may, and have noted nothing of this one.
    pub untraced: Vec<u32>,
    /// Steps that came after [`STEPS_MAX`] of them.
    pub left_out: u16,
}

/// One step on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Whose step.
    pub node: u32,
    /// Microseconds since the request came to that node, by its clock.
    pub micros: u32,
    /// What it did.
    pub deed: Deed,
    /// The other node, if the deed has to do with one.
    pub peer: Option<u32>,
}

impl Trace {
    /// Adds a step, or counts it if there is no room.
    pub fn push(&mut self, step: Step) {
        if self.steps.len() < STEPS_MAX {
            self.steps.push(step);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// Takes in what another node has noted.
    pub fn absorb(&mut self, other: Trace) {
        other.steps.into_iter().for_each(|step| self.push(step));
        let room = STEPS_MAX.saturating_sub(self.untraced.len());
        self.untraced.extend(other.untraced.into_iter().take(room));
        self.left_out = self.left_out.saturating_add(other.left_out);
    }
}

macro_rules! deeds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $words:literal;)*) => {
        /// What a node does for a request. The number is what travels, and never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "u8", from = "u8")]
        pub enum Deed {
            $($(#[$doc])* $name,)*
            /// A step that only later versions know.
            Unknown(u8),
        }

        impl Deed {
            /// All that this version knows.
            pub const ALL: &[Deed] = &[$(Deed::$name,)*];

            /// The number on the wire.
            pub fn number(self) -> u8 {
                match self { $(Deed::$name => $number,)* Deed::Unknown(number) => number }
            }

            /// The words for people and JSON; the other node's name, if there is one, comes behind them.
            pub fn words(self) -> &'static str {
                match self { $(Deed::$name => $words,)* Deed::Unknown(_) => "a step of a later version" }
            }
        }

        impl From<u8> for Deed {
            fn from(number: u8) -> Self {
                match number { $($number => Deed::$name,)* other => Deed::Unknown(other) }
            }
        }
    };
}

deeds! {
    /// The request was taken from the connection.
    Arrived = 1, "arrived";
    /// It has waited until the node knew the bucket, or the view with which it was planned.
    CaughtUp = 2, "caught up with bucket or view";
    /// Owners, fallbacks and quorum are known.
    Planned = 3, "planned";
    /// Another node shall coordinate it.
    HandedOver = 4, "handed over to";
    /// The other node has coordinated it, or has said that it will not.
    HandedBack = 5, "heard back from";
    /// What the change takes away has been read.
    ReadFirst = 6, "read first what it changes";
    /// A counter can be given for the change's event.
    Leased = 7, "counter leased";
    /// The key's turn: the own record is read, and nobody else comes between.
    TurnBegun = 8, "turn begun";
    /// The change has its event and waits for the disk.
    Queued = 9, "queued for the disk";
    /// The own copy was read.
    OwnCopyRead = 10, "own copy read";
    /// Another node was asked: for its copy, or to take the change.
    Sent = 11, "sent to";
    /// A fallback was asked to stand in.
    SentToFallback = 12, "sent to fallback";
    /// One owner more was asked, because others are slower than usual.
    Hedged = 13, "slower than usual; asks one more";
    /// What came is joined into the own copy, or kept as a hint, and waits for the disk.
    Joined = 14, "joined";
    /// Reads see it here.
    Written = 15, "written";
    /// It is on stable storage here.
    Fsynced = 16, "fsynced";
    /// A node has answered, and its answer counts or helps.
    Answered = 17, "answered by";
    /// A node has refused, cannot be reached, or its answer does not count.
    Refused = 18, "no answer that counts from";
    /// A node is silent for so long that somebody else is asked too.
    GivenUp = 19, "waits no longer for";
    /// Won, lost, or time is over.
    Decided = 20, "decided";
    /// The owners have changed meanwhile: it begins again with the new view.
    PlannedAnew = 21, "planned anew";
    /// Enough replicas hold for certain what was found.
    Assured = 22, "enough replicas hold it";
    /// The answer leaves.
    Replied = 23, "replied";
}

impl From<Deed> for u8 {
    fn from(deed: Deed) -> u8 {
        deed.number()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.deed.words())?;
        match self.peer {
            Some(peer) => write!(f, " n{peer}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are distinct, come back as they went, and those of later versions are nothing else.
    #[test]
    fn numbers_of_deeds_never_change_their_meaning() {
        let numbers: Vec<u8> = Deed::ALL.iter().map(|deed| deed.number()).collect();
        assert_eq!(numbers, (1..=23).collect::<Vec<u8>>());
        for deed in Deed::ALL {
            assert_eq!(Deed::from(deed.number()), *deed);
        }
        assert_eq!((Deed::from(200), Deed::Unknown(200).number()), (Deed::Unknown(200), 200));
    }

    /// What does not fit is counted, whoever has noted it.
    #[test]
    fn a_trace_has_a_bound() {
        let step = Step { node: 1, micros: 1, deed: Deed::Sent, peer: Some(2) };
        let mut trace = Trace::default();
        (0..STEPS_MAX - 1).for_each(|_| trace.push(step));
        trace.absorb(Trace { steps: vec![step; 3], untraced: vec![4], left_out: 5 });
        assert_eq!((trace.steps.len(), trace.left_out), (STEPS_MAX, 7));
        assert_eq!(trace.untraced, [4]);
    }
}
