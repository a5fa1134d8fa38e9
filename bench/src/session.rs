//! What one client is promised by its own past: it reads its own writes, and it never sees time run backwards. Pure.
//!
//! A **session** is one client that hands its requests to the cluster, whoever answers them. Two guarantees are watched
//! (D. Terry et al., Session Guarantees for Weakly Consistent Replicated Data, PDIS 1994, section 3):
//!
//! ```text
//!   read your writes   a read covers the session's last acknowledged write of that key
//!   monotonic reads    a read covers every value that an earlier read of that key has returned to the session
//! ```
//!
//! Judged by causality like everything here: a context covers a dot or it does not. The cluster promises neither by
//! default; the figures say what an application that counted on them would have met.
//!
//! Only what *had ended* when a read began is held against it: the session is asked at the beginning of a read, and
//! told at the end. So operations of a session that overlap, as they do in an open loop, are not compared. A value that
//! was missed stays expected until a read shows it or what replaced it, so each read counts that lags behind the past
//! of its session, and not only the first one.
//!
//! **Bounds.** A session remembers the keys it wrote first and forgets the oldest, and the same for reads; the number is
//! in the report. A forgotten key is not at stake. Forgetting never makes a violation.

use std::collections::{BTreeMap, VecDeque};

use atoll_antientropy::{Context, Dot};
use serde::Serialize;

/// One client's past, as far as it is remembered.
#[derive(Debug)]
pub(crate) struct Session {
    /// The last acknowledged own write, by key.
    written: Remembered<Dot>,
    /// The newest values that reads have returned, by key: the siblings of the last read, and what it should have
    /// shown.
    returned: Remembered<VecDeque<Dot>>,
}

/// What a read that begins now must show to its session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    written: Option<Dot>,
    returned: Vec<Dot>,
}

/// What a read did to the two guarantees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub read_your_writes: Guarantee,
    pub monotonic_reads: Guarantee,
}

/// One guarantee in the light of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guarantee {
    /// The session has no past with this key, or has forgotten it.
    NotAtStake,
    Kept,
    Violated,
}

/// How often a guarantee could have been violated, and was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// Reads that could have violated it.
    pub at_stake: u64,
    /// Of those, the ones that did.
    pub violated: u64,
}

impl Session {
    /// A client without a past, that will remember so many keys it wrote and as many it read.
    pub fn new(keys_max: usize) -> Session {
        Session { written: Remembered::new(keys_max), returned: Remembered::new(keys_max) }
    }

    /// The session's write was acknowledged.
    pub fn acked(&mut self, key: u32, dot: Dot) {
        *self.written.entry(key) = Some(dot);
    }

    /// Freezes what a read that begins now must show. The old content of `expected` is gone, its room is used again.
    pub fn expect(&self, key: u32, expected: &mut Expected) {
        expected.written = self.written.of(key).cloned();
        expected.returned.clear();
        expected.returned.extend(self.returned.of(key).into_iter().flatten().cloned());
    }

    /// A read has ended: it returned the values of these dots, and `seen` is what it stands for.
    pub fn read(&mut self, key: u32, seen: &Context, values: impl Iterator<Item = Dot>) {
        let returned = self.returned.entry(key).get_or_insert_default();
        returned.retain(|dot| !seen.contains(dot));
        returned.extend(values);
        returned.drain(..returned.len().saturating_sub(VALUES_PER_KEY_MAX));
    }
}

impl Expected {
    /// Judges a read by the context that came back; an empty one for a key that the cluster does not know.
    pub fn judge(&self, seen: &Context) -> Kept {
        let guarantee = |dots: &[Dot]| match dots {
            [] => Guarantee::NotAtStake,
            dots if dots.iter().all(|dot| seen.contains(dot)) => Guarantee::Kept,
            _ => Guarantee::Violated,
        };
        Kept {
            read_your_writes: guarantee(self.written.as_slice()),
            monotonic_reads: guarantee(&self.returned),
        }
    }
}

impl Violations {
    /// Another read.
    pub(crate) fn add(&mut self, guarantee: Guarantee) {
        self.at_stake += u64::from(guarantee != Guarantee::NotAtStake);
        self.violated += u64::from(guarantee == Guarantee::Violated);
    }
}

/// How many keys each of so many sessions remembers, for writes and for reads each.
pub(crate) fn keys_max(sessions: u32) -> usize {
    (KEYS_MAX / sessions.max(1) as usize).clamp(KEYS_PER_SESSION_MIN, KEYS_PER_SESSION_MAX)
}

/// Keys that all sessions together remember, if each may have [`KEYS_PER_SESSION_MIN`]. Some 20 MiB.
const KEYS_MAX: usize = 64 << 10;
/// More would rarely be met again.
const KEYS_PER_SESSION_MAX: usize = 1024;
const KEYS_PER_SESSION_MIN: usize = 16;

/// Values of one key that a session remembers. More are siblings of siblings; the oldest are forgotten.
const VALUES_PER_KEY_MAX: usize = 8;

/// By key, at most so many; the key that came first goes first.
#[derive(Debug)]
struct Remembered<T> {
    by_key: BTreeMap<u32, Option<T>>,
    arrival: VecDeque<u32>,
    keys_max: usize,
}

impl<T> Remembered<T> {
    fn new(keys_max: usize) -> Remembered<T> {
        Remembered { by_key: BTreeMap::new(), arrival: VecDeque::new(), keys_max }
    }

    fn of(&self, key: u32) -> Option<&T> {
        self.by_key.get(&key).and_then(Option::as_ref)
    }

    /// The place of a key, made if there is none.
    fn entry(&mut self, key: u32) -> &mut Option<T> {
        if !self.by_key.contains_key(&key) {
            if self.arrival.len() == self.keys_max
                && let Some(oldest) = self.arrival.pop_front()
            {
                self.by_key.remove(&oldest);
            }
            self.arrival.push_back(key);
        }
        self.by_key.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use atoll_antientropy::{Actor, Event};

    use super::*;
    use Guarantee::{Kept as Held, NotAtStake, Violated};

    /// One session's life with one key, in the words of a script. Values and contexts are names of dots; a read returns
    /// its first word's values (joined by `+`) and stands for all words:
    ///
    /// ```text
    ///   acked a1           an own write is acknowledged
    ///   read a1 b1         a read returns the value a1, and its context knows a1 and b1; `-` is none
    ///   begin / end a1     the same in two steps
    /// ```
    ///
    /// Expected: (read your writes, monotonic reads) of each read.
    fn check(script: &str, expected: &[(Guarantee, Guarantee)]) {
        let (mut session, mut asked) = (Session::new(4), Expected::default());
        let mut found = Vec::new();
        for line in script.split(';').map(str::trim) {
            let words: Vec<&str> = line.split(' ').collect();
            if matches!(words[0], "read" | "begin") {
                session.expect(0, &mut asked);
            }
            match words[..] {
                ["acked", own] => session.acked(0, event(own).dot()),
                ["begin"] => {}
                ["read" | "end", values, ref more @ ..] => {
                    let values: Vec<Event> =
                        values.split('+').filter(|name| *name != "-").map(event).collect();
                    let mut seen = Context::new();
                    values.iter().for_each(|event| seen.add(event));
                    more.iter().for_each(|name| seen.add(&event(name)));
                    let kept = asked.judge(&seen);
                    found.push((kept.read_your_writes, kept.monotonic_reads));
                    session.read(0, &seen, values.iter().map(Event::dot));
                }
                _ => panic!("no such step: {line}"),
            }
        }
        assert_eq!(found, expected, "{script}");
    }

    fn event(name: &str) -> Event {
        let node = u32::from(name.as_bytes()[0] - b'a' + 1);
        Event::alone(Actor::new(node, 0), name[1..].parse().expect("a number"))
    }

    /// Who has done nothing cannot be disappointed; nor by what another session has written.
    #[test]
    fn without_a_past_nothing_is_at_stake() {
        check("read -", &[(NotAtStake, NotAtStake)]);
        check("read a1", &[(NotAtStake, NotAtStake)]);
        check("read -; read a1", &[(NotAtStake, NotAtStake); 2]);
    }

    /// The own write may be shown or replaced, but not be missing.
    #[test]
    fn own_writes_must_be_covered() {
        check("acked a1; read a1", &[(Held, NotAtStake)]);
        check("acked a1; read b1 a1", &[(Held, NotAtStake)]);
        check("acked a1; read -", &[(Violated, NotAtStake)]);
        check("acked a1; read b1", &[(Violated, NotAtStake)]);
        check("acked a1; acked a2; read a1", &[(Violated, NotAtStake)]);
    }

    /// What one read has returned, the next one covers; also if it was a sibling of what comes next.
    #[test]
    fn reads_must_not_go_back() {
        check("read a1; read a1", &[(NotAtStake, NotAtStake), (NotAtStake, Held)]);
        check("read a1; read b1 a1", &[(NotAtStake, NotAtStake), (NotAtStake, Held)]);
        check("read a2 a1; read a1", &[(NotAtStake, NotAtStake), (NotAtStake, Violated)]);
        check("read a1+b1; read a1", &[(NotAtStake, NotAtStake), (NotAtStake, Violated)]);
        check("read a1; read -", &[(NotAtStake, NotAtStake), (NotAtStake, Violated)]);
    }

    /// A value that was missed stays expected until it is covered.
    #[test]
    fn a_second_step_back_counts_too() {
        check(
            "read a2 a1; read a1; read a1; read a2 a1; read a2 a1",
            &[
                (NotAtStake, NotAtStake),
                (NotAtStake, Violated),
                (NotAtStake, Violated),
                (NotAtStake, Held),
                (NotAtStake, Held),
            ],
        );
    }

    /// What ends while a read is under way is not held against it, and is against the next one.
    #[test]
    fn overlapping_operations_are_not_compared() {
        check(
            "begin; acked a1; end -; read -",
            &[(NotAtStake, NotAtStake), (Violated, NotAtStake)],
        );
    }

    /// Two reads at the same time, the later value first: neither is judged by the other, and the next read must cover
    /// both.
    #[test]
    fn overlapping_reads_may_end_in_any_order() {
        let mut session = Session::new(4);
        let (mut first, mut second) = (Expected::default(), Expected::default());
        session.expect(0, &mut first);
        session.expect(0, &mut second);
        let (mut old, mut new) = (Context::new(), Context::new());
        old.add(&event("a1"));
        new.add(&event("a1"));
        new.add(&event("a2"));
        for (expected, seen, value) in [(second, &new, "a2"), (first, &old, "a1")] {
            assert_eq!(expected.judge(seen).monotonic_reads, NotAtStake);
            session.read(0, seen, [event(value).dot()].into_iter());
        }
        let mut third = Expected::default();
        session.expect(0, &mut third);
        assert_eq!(third.judge(&old).monotonic_reads, Violated);
        assert_eq!(third.judge(&new).monotonic_reads, Held);
    }

    /// Past the bound the key that came first is forgotten: no longer at stake, and no violation.
    #[test]
    fn memory_is_bounded() {
        let mut session = Session::new(4);
        for key in 0..1000 {
            session.acked(key, event("a1").dot());
            session.read(key, &Context::new(), (1..100).map(|n| event(&format!("b{n}")).dot()));
        }
        assert_eq!((session.written.by_key.len(), session.returned.by_key.len()), (4, 4));
        let mut expected = Expected::default();
        for (key, guarantee) in [(0, NotAtStake), (995, NotAtStake), (996, Violated)] {
            session.expect(key, &mut expected);
            let kept = expected.judge(&Context::new());
            assert_eq!((kept.read_your_writes, kept.monotonic_reads), (guarantee, guarantee));
        }
        assert_eq!(expected.returned.len(), VALUES_PER_KEY_MAX);
        for (sessions, keys) in [(1, 1024), (64, 1024), (1000, 65), (10_000, 16)] {
            assert_eq!(keys_max(sessions), keys, "{sessions} sessions");
        }
    }
}
