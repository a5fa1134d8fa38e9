//! What is known about a key: exactly which events, no more and no fewer.
//!
//! A version vector says "everything of this actor up to 7". After a node has lost and regained
//! part of its memory that is a lie, and the lie erases writes: whoever holds event 5 believes it
//! was seen and replaced. A [`Context`] keeps the gaps: `n1.0:(0,4] n1.0:(6,7]` knows events 1 to 4
//! and 7 of that actor and says nothing about 5 and 6. Nearly always there is one interval per
//! actor, and then it costs what a version vector costs.
//!
//! In memory it is one flat list, sorted by (actor, lo), so every operation is a walk or a binary
//! search:
//!
//! ```text
//!   [ n1.0 (0,4] | n1.0 (6,7] | n2.0 (3,9] ]      disjoint and never touching:
//!                                                 (0,4] and (4,7] become (0,7]
//! ```

use std::fmt;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, write_varint};
use crate::{Actor, Dot, Event};

/// Exactly which events of one key are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Sorted by (actor, lo); within one actor disjoint and not touching.
    intervals: Vec<Interval>,
}

/// "Every event of `actor` on this key with a counter in (lo, hi]."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Whose events.
    pub actor: Actor,
    /// Open lower end.
    pub lo: u64,
    /// Closed upper end, greater than `lo`.
    pub hi: u64,
}

impl Context {
    /// Knows nothing.
    pub const fn new() -> Context {
        Context { intervals: Vec::new() }
    }

    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// Whether this one event is known.
    pub fn contains(&self, dot: &Dot) -> bool {
        let before = self.intervals.partition_point(|i| (i.actor, i.lo) < (dot.actor, dot.counter));
        before > 0 && {
            let nearest = self.intervals[before - 1];
            nearest.actor == dot.actor && dot.counter <= nearest.hi
        }
    }

    /// Whether everything that `other` knows is known here too.
    pub fn covers(&self, other: &Context) -> bool {
        other.intervals.iter().all(|wanted| {
            let upto =
                self.intervals.partition_point(|i| (i.actor, i.lo) <= (wanted.actor, wanted.lo));
            upto > 0 && {
                let nearest = self.intervals[upto - 1];
                nearest.actor == wanted.actor && wanted.hi <= nearest.hi
            }
        })
    }

    /// Learns an event and what its coordinator claims with it.
    pub fn add(&mut self, event: &Event) {
        self.add_interval(event.actor, event.after, event.counter);
    }

    /// Learns the events (lo, hi] of `actor`. Panics unless `lo < hi`.
    pub fn add_interval(&mut self, actor: Actor, lo: u64, hi: u64) {
        assert!(lo < hi, "an interval holds at least one event");
        // What it touches: neighbours that end at or after `lo` and begin at or before `hi`.
        let start = self.intervals.partition_point(|i| (i.actor, i.hi) < (actor, lo));
        let end = self.intervals.partition_point(|i| (i.actor, i.lo) <= (actor, hi));
        let touched = &self.intervals[start..end];
        let lo = touched.first().map_or(lo, |first| lo.min(first.lo));
        let hi = touched.last().map_or(hi, |last| hi.max(last.hi));
        self.intervals.splice(start..end, [Interval { actor, lo, hi }]);
    }

    /// Learns everything that `other` knows. Linear in both.
    pub fn join(&mut self, other: &Context) {
        if self.covers(other) {
            return; // the usual case: the record has seen what the request's context had seen
        }
        let ours = std::mem::take(&mut self.intervals);
        self.intervals.reserve(ours.len() + other.intervals.len());
        let (mut ours, mut theirs) = (ours.iter().peekable(), other.intervals.iter().peekable());
        while let Some(next) = match (ours.peek(), theirs.peek()) {
            (Some(a), Some(b)) if (b.actor, b.lo) < (a.actor, a.lo) => theirs.next(),
            (Some(_), _) => ours.next(),
            (None, _) => theirs.next(),
        } {
            self.append(*next);
        }
    }

    /// What is known here and not to `other`. Linear in both.
    pub fn without(&self, other: &Context) -> Context {
        let mut rest = Vec::new();
        let mut theirs = other.intervals.as_slice();
        for own in &self.intervals {
            let passed = theirs.partition_point(|i| (i.actor, i.hi) <= (own.actor, own.lo));
            theirs = &theirs[passed..];
            let mut lo = own.lo;
            for cut in theirs.iter().take_while(|cut| cut.actor == own.actor && cut.lo < own.hi) {
                if lo < cut.lo {
                    rest.push(Interval { actor: own.actor, lo, hi: cut.lo });
                }
                lo = lo.max(cut.hi);
            }
            if lo < own.hi {
                rest.push(Interval { lo, ..*own });
            }
        }
        Context { intervals: rest }
    }

    /// How many intervals there are in all: the measure of a context's size.
    pub fn intervals(&self) -> usize {
        self.intervals.len()
    }

    /// Whose events are known, in ascending order, each once.
    pub fn actors(&self) -> impl Iterator<Item = Actor> {
        self.intervals.chunk_by(|a, b| a.actor == b.actor).map(|own| own[0].actor)
    }

    /// All intervals in ascending order of (actor, lo).
    pub fn iter(&self) -> impl Iterator<Item = Interval> {
        self.intervals.iter().copied()
    }

    /// Adds an interval that sorts behind all others, melting it into the last one if they touch.
    fn append(&mut self, next: Interval) {
        match self.intervals.last_mut() {
            Some(last) if last.actor == next.actor && next.lo <= last.hi => {
                last.hi = last.hi.max(next.hi);
            }
            _ => self.intervals.push(next),
        }
    }

    /// Appends the canonical bytes.
    ///
    /// ```text
    ///   number of actors
    ///   per actor:     node | incarnation | number of intervals
    ///   per interval:  lo - (hi of the one before, or 0) | hi - lo
    /// ```
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        write_varint(out, self.actors().count() as u64);
        for own in self.intervals.chunk_by(|a, b| a.actor == b.actor) {
            write_varint(out, own[0].actor.node.into());
            write_varint(out, own[0].actor.incarnation.into());
            write_varint(out, own.len() as u64);
            let mut end = 0;
            for interval in own {
                write_varint(out, interval.lo - end);
                write_varint(out, interval.hi - interval.lo);
                end = interval.hi;
            }
        }
    }

    /// The canonical bytes: equal contexts, equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + 8 * self.intervals.len());
        self.encode_into(&mut out);
        out
    }

    /// Reads one context off the front.
    pub fn decode_from(reader: &mut Reader) -> Result<Context, DecodeError> {
        let mut context = Context::new();
        for _ in 0..reader.count(ACTOR_BYTES_MIN)? {
            let actor = Actor::new(reader.varint_u32()?, reader.varint_u32()?);
            if context.intervals.last().is_some_and(|last| last.actor >= actor) {
                return Err(DecodeError::Order);
            }
            let count = reader.count(INTERVAL_BYTES_MIN)?;
            if count == 0 {
                return Err(DecodeError::Empty);
            }
            context.intervals.reserve(count);
            let mut end = 0u64;
            for index in 0..count {
                let (gap, len) = (reader.varint()?, reader.varint()?);
                if len == 0 || (gap == 0 && index > 0) {
                    return Err(DecodeError::Interval);
                }
                let lo = end.checked_add(gap).ok_or(DecodeError::Number)?;
                end = lo.checked_add(len).ok_or(DecodeError::Number)?;
                context.intervals.push(Interval { actor, lo, hi: end });
            }
        }
        Ok(context)
    }

    /// Reads the canonical bytes of one context and refuses everything else.
    pub fn decode(input: &Bytes) -> Result<Context, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let context = Context::decode_from(&mut reader)?;
        reader.finish()?;
        Ok(context)
    }
}

/// For people: `n1.0:(0,4] n2.0:(3,9]`, or `nothing`.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (index, Interval { actor, lo, hi }) in self.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{actor}:({lo},{hi}]")?;
        }
        Ok(())
    }
}

/// Gap and length, a byte each.
const INTERVAL_BYTES_MIN: usize = 2;
/// Node, incarnation, number of intervals and one interval.
const ACTOR_BYTES_MIN: usize = 3 + INTERVAL_BYTES_MIN;

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [(u32, u64); 7] = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 2), (2, 3), (3, 9)];

    fn dot((node, counter): (u32, u64)) -> Dot {
        Dot { actor: Actor::new(node, 0), counter }
    }

    /// The naive context: a set of events, as the bits of `mask`.
    fn context(mask: u32) -> Context {
        let mut context = Context::new();
        // Every second event first, so that neighbours melt both ways.
        for index in [0, 2, 4, 6, 1, 3, 5] {
            if mask & (1 << index) != 0 {
                let (node, counter) = EVENTS[index];
                context.add(&Event::alone(Actor::new(node, 0), counter));
            }
        }
        context
    }

    /// All sets of seven events, each with each: contains, join, without and covers mean what they
    /// mean for plain sets, and equal sets are equal contexts.
    #[test]
    fn a_context_is_a_set_of_events() {
        let all: Vec<Context> = (0..128).map(context).collect();
        for (mask, own) in (0u32..).zip(&all) {
            for (index, event) in EVENTS.into_iter().enumerate() {
                assert_eq!(
                    own.contains(&dot(event)),
                    mask & (1 << index) != 0,
                    "{event:?} in {own}"
                );
            }
            for unheard in [(1, 0), (1, 5), (2, 1), (2, 4), (3, 8), (3, 10), (0, 1), (4, 1)] {
                assert!(!own.contains(&dot(unheard)), "{unheard:?} in {own}");
            }
            for (other_mask, other) in (0u32..).zip(&all) {
                let mut joined = own.clone();
                joined.join(other);
                assert_eq!(joined, all[(mask | other_mask) as usize], "{own} with {other}");
                let rest = own.without(other);
                assert_eq!(rest, all[(mask & !other_mask) as usize], "{own} without {other}");
                assert_eq!(
                    own.covers(other),
                    mask & other_mask == other_mask,
                    "{own} over {other}"
                );
            }
            assert_eq!(Context::decode(&own.encode().into()).as_ref(), Ok(own));
        }
    }

    /// Intervals that overlap, touch or lie apart, within one actor and beside another.
    #[test]
    fn intervals_melt_when_they_touch() {
        let check = |intervals: &[(u32, u64, u64)], expected: &str| {
            let mut context = Context::new();
            for &(node, lo, hi) in intervals {
                context.add_interval(Actor::new(node, 0), lo, hi);
            }
            assert_eq!(context.to_string(), expected);
            assert_eq!(context.intervals(), context.iter().count());
        };
        check(&[], "nothing");
        check(&[(1, 0, 4), (2, 3, 9)], "n1.0:(0,4] n2.0:(3,9]");
        check(&[(1, 4, 7), (1, 0, 4)], "n1.0:(0,7]");
        check(&[(1, 5, 7), (1, 0, 4)], "n1.0:(0,4] n1.0:(5,7]");
        check(&[(1, 5, 7), (1, 0, 4), (1, 2, 6)], "n1.0:(0,7]");
        check(&[(1, 0, 9), (1, 2, 3)], "n1.0:(0,9]");
        check(&[(2, 0, 1), (1, 0, 1), (1, 8, 9), (1, 3, 4), (1, 0, 9)], "n1.0:(0,9] n2.0:(0,1]");
    }

    #[test]
    fn actors_come_once_each() {
        let context = context(0b101_0101);
        let actors: Vec<String> = context.actors().map(|actor| actor.to_string()).collect();
        assert_eq!(actors, ["n1.0", "n2.0", "n3.0"]);
    }

    /// Bytes that say the same in another way are refused, each with its reason.
    #[test]
    fn other_forms_are_refused() {
        let check = |bytes: &'static [u8], expected: Result<&str, DecodeError>| {
            let decoded = Context::decode(&Bytes::from_static(bytes));
            assert_eq!(decoded.map(|context| context.to_string()), expected.map(str::to_string));
        };
        check(&[0], Ok("nothing"));
        check(&[1, 1, 0, 1, 0, 4], Ok("n1.0:(0,4]"));
        check(&[1, 1, 0, 2, 0, 4, 1, 1], Ok("n1.0:(0,4] n1.0:(5,6]"));
        check(&[1, 1, 0, 2, 0, 4, 0, 1], Err(DecodeError::Interval)); // touching
        check(&[1, 1, 0, 1, 4, 0], Err(DecodeError::Interval)); // empty
        check(&[2, 1, 0, 1, 0, 4, 0, 9, 1, 0, 4], Err(DecodeError::Order)); // n0.9 after n1.0
        check(&[2, 1, 0, 1, 0, 4, 1, 0, 1, 5, 4], Err(DecodeError::Order)); // n1.0 twice
        check(&[1, 1, 0, 0, 0, 0], Err(DecodeError::Empty)); // an actor without intervals
        check(&[0, 0], Err(DecodeError::Trailing(1)));
        check(&[1, 1, 0, 9, 0, 4], Err(DecodeError::Truncated)); // nine intervals in two bytes
        check(&[], Err(DecodeError::Truncated));
        check(
            &[1, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1],
            Err(DecodeError::Number), // beyond the last counter
        );
        check(&[1, 0xff, 0xff, 0xff, 0xff, 0x1f, 0, 1, 0, 4], Err(DecodeError::Number)); // node
    }
}
