//! A counter: what every session has added in all, and how much of it a reset has seen.
//!
//! A session counts its own changes and sends its running *total*, not the difference: (sequence
//! number, total). The greater sequence number wins, so a repeated, late or reordered increment
//! changes nothing, at any time and at any coordinator, and an increment whose fate is unknown
//! becomes certain with the session's next one. A reset remembers the totals that the resetter saw;
//! what is counted beyond them, or was counted where the resetter could not see it, stays.
//!
//! ```text
//!   value = sum over all sessions of (total now - total at the last reset)
//! ```
//!
//! Sessions are never folded into a sum: a late retry of a folded session would count twice.
//!
//! **Increments without a session** get one from their coordinator: a *chain*, named by its first
//! dot, whose sequence numbers are the counters of its events. An event may continue the actor's
//! chain from its last link only if no later event of the actor has continued it already; else two
//! links would carry the same sequence of sums apart, and the greater would swallow the other. The
//! coordinator can tell: the event claims that of its actor's events on this key there is none in
//! (after, counter], and the context says which of those up to `after` the state at hand has heard.
//! If it has heard *all* from the last link on, and none of them is a later link, there is none.
//! After a crash, in another role or without memory one of the two does not hold: the event then
//! stands alone, or the state has not heard of what came before it; and a new chain begins, beside
//! which the old one stays what it is.

use crate::codec::{DecodeError, Reader, write_signed, write_varint};
use crate::dots::{DOT_BYTES_MIN, RESERVED_MAX, decode_dot, encode_dot, find, weave};
use crate::{Context, Dot, Event, Increment, Refused, SESSIONS_MAX};

/// Session -> what it has added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counter {
    /// Sorted by session, each once.
    sessions: Vec<(Session, Tally)>,
}

/// Who adds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Session {
    /// A coordinator, for clients without a session. The dot is that of the first event.
    Chain(Dot),
    /// A client; the number is its own.
    Client(u128),
}

/// What a session has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    now: Total,
    /// What the last reset had seen of it; never more than `now`.
    reset: Option<Total>,
}

/// The greater sequence number wins. (Of two totals under one number, which only a broken client
/// makes, the greater: replicas must become equal all the same.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Total {
    sequence: u64,
    total: i64,
}

impl Tally {
    fn of(sequence: u64, total: i64) -> Tally {
        Tally { now: Total { sequence, total }, reset: None }
    }

    fn join(&mut self, other: Tally) {
        self.now = self.now.max(other.now);
        self.reset = self.reset.max(other.reset);
    }

    /// How much it adds to the counter's value.
    fn value(&self) -> i128 {
        i128::from(self.now.total) - self.reset.map_or(0, |reset| i128::from(reset.total))
    }

    fn is_beyond_reset(&self) -> bool {
        self.reset != Some(self.now)
    }
}

impl Counter {
    /// The sum. Increments are refused beyond 64 bits, but two sides may each come close.
    pub fn value(&self) -> i128 {
        self.sessions.iter().map(|(_, tally)| tally.value()).sum()
    }

    /// Whether anything was counted since the last reset.
    pub fn is_alive(&self) -> bool {
        self.sessions.iter().any(|(_, tally)| tally.is_beyond_reset())
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What an increment adds, given that `context` is all that is known with this counter.
    pub fn increment(
        &self,
        context: &Context,
        event: &Event,
        increment: &Increment,
    ) -> Result<Counter, Refused> {
        let (session, tally) = match *increment {
            Increment::Session { session, sequence, total } => {
                (Session::Client(session), Tally::of(sequence, total))
            }
            Increment::Once(number) => match self.chain(context, event) {
                Some((first, total)) => {
                    let total = total.checked_add(number).ok_or(Refused::CounterOverflow)?;
                    (Session::Chain(first), Tally::of(event.counter, total))
                }
                None => (Session::Chain(event.dot()), Tally::of(event.counter, number)),
            },
        };
        let before = find(&self.sessions, &session);
        if before.is_none() && self.sessions.len() >= SESSIONS_MAX {
            return Err(Refused::TooManySessions { sessions_max: SESSIONS_MAX });
        }
        let mut after = tally;
        before.into_iter().for_each(|before| after.join(*before));
        let value_before = self.value();
        let value = value_before - before.map_or(0, Tally::value) + after.value();
        let range = i128::from(i64::MIN)..=i128::from(i64::MAX);
        let leaves = |value: i128| (value - value.clamp(*range.start(), *range.end())).abs();
        if leaves(value) > leaves(value_before) {
            return Err(Refused::CounterOverflow);
        }
        Ok(Counter { sessions: vec![(session, tally)] })
    }

    /// The chain of the event's actor that the event may continue, and the total at its last link.
    fn chain(&self, context: &Context, event: &Event) -> Option<(Dot, i64)> {
        let own = self.sessions.iter().filter_map(|(session, tally)| match session {
            Session::Chain(first) if first.actor == event.actor => Some((first, tally.now)),
            Session::Chain(_) | Session::Client(_) => None,
        });
        let (first, last) = own.max_by_key(|(_, now)| now.sequence)?;
        // Everything of this actor from the last link up to where the event's own claim begins.
        let heard_all = last.sequence == event.after
            || (last.sequence < event.after && {
                let mut wanted = Context::new();
                wanted.add_interval(event.actor, last.sequence, event.after);
                context.covers(&wanted)
            });
        heard_all.then(|| (first.clone(), last.total))
    }

    /// What a reset by someone who sees this counter adds: all totals, each as counted and as
    /// reset. With the totals, because whoever hears of the reset first must not come out negative.
    pub fn reset(&self) -> Counter {
        let seen = |(session, tally): &(Session, Tally)| {
            (session.clone(), Tally { now: tally.now, reset: Some(tally.now) })
        };
        Counter { sessions: self.sessions.iter().map(seen).collect() }
    }

    pub fn join(&mut self, other: Counter) {
        let mut new = Vec::new();
        for (session, theirs) in other.sessions {
            match self.sessions.binary_search_by(|(own, _)| own.cmp(&session)) {
                Ok(index) => self.sessions[index].1.join(theirs),
                Err(_) => new.push((session, theirs)),
            }
        }
        weave(&mut self.sessions, new);
    }

    /// Whether a join with `other` would change nothing.
    pub fn absorbs(&self, other: &Counter) -> bool {
        other.sessions.iter().all(|(session, theirs)| {
            find(&self.sessions, session)
                .is_some_and(|own| theirs.now <= own.now && theirs.reset <= own.reset)
        })
    }

    /// Appends the canonical bytes.
    ///
    /// ```text
    ///   number of sessions
    ///   per session:  0 | first dot, or 1 | 16 bytes
    ///                 sequence number | total (with sign)
    ///                 0: never reset   1: all of it reset   2: sequence number | total at the reset
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.sessions.len() as u64);
        for (session, tally) in &self.sessions {
            match session {
                Session::Chain(first) => {
                    out.push(0);
                    encode_dot(first, out);
                }
                Session::Client(session) => {
                    out.push(1);
                    out.extend_from_slice(&session.to_be_bytes());
                }
            }
            tally.now.encode(out);
            match tally.reset {
                None => out.push(0),
                Some(reset) if reset == tally.now => out.push(1),
                Some(reset) => {
                    out.push(2);
                    reset.encode(out);
                }
            }
        }
    }

    /// Reads the canonical bytes and refuses all others.
    pub fn decode(reader: &mut Reader) -> Result<Counter, DecodeError> {
        let count = reader.count(SESSION_BYTES_MIN)?;
        let mut sessions: Vec<(Session, Tally)> = Vec::with_capacity(count.min(RESERVED_MAX));
        for _ in 0..count {
            let session = match reader.byte()? {
                0 => Session::Chain(decode_dot(reader)?),
                1 => Session::Client(reader.u128()?),
                other => return Err(DecodeError::Tag(other)),
            };
            if sessions.last().is_some_and(|(last, _)| *last >= session) {
                return Err(DecodeError::Order);
            }
            let now = Total::decode(reader)?;
            let reset = match reader.byte()? {
                0 => None,
                1 => Some(now),
                2 => match Total::decode(reader)? {
                    reset if reset < now => Some(reset),
                    _ => return Err(DecodeError::Reset),
                },
                other => return Err(DecodeError::Tag(other)),
            };
            sessions.push((session, Tally { now, reset }));
        }
        Ok(Counter { sessions })
    }
}

impl Total {
    fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.sequence);
        write_signed(out, self.total);
    }

    fn decode(reader: &mut Reader) -> Result<Total, DecodeError> {
        Ok(Total { sequence: reader.varint()?, total: reader.signed()? })
    }
}

/// A tag, the first dot, sequence number, total, a byte for the reset.
const SESSION_BYTES_MIN: usize = 1 + DOT_BYTES_MIN + 3;
