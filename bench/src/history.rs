//! What was acknowledged, and whether a read shows it. Pure: the judge of staleness.
//!
//! A read is **stale** if its context does not cover a write that was acknowledged before the read began. So:
//!
//! ```text
//!   ack of a write   -> History::ack(key, dot, context of the answer, now)  what must be visible from now on
//!   before a read    -> History::snapshot(key, &mut snapshot)               frozen: later acks do not count against it
//!   answer of a read -> snapshot.judge(context)                             fresh, or behind by k acknowledged writes
//! ```
//!
//! No clock takes part in the verdict; the time of the newest ack is kept so that it can be said how long ago that was. "Acknowledged" means that the writer has heard it, a moment after the cluster has said it; a
//! read that begins in between is not judged by that write, so the judge errs on the cluster's side, and by microseconds.
//!
//! **Bounds.** Per key we keep the *current* dots, those that no later acknowledged write had seen (one, or the siblings),
//! and the last few *replaced* ones. A read that covers a current dot covers what that dot replaced, if the store keeps
//! its promises, so forgetting old replaced dots cannot turn a stale read fresh; but such a read may be farther behind
//! than we can still count. Hence "at least".

use std::{collections::VecDeque, time::Duration};

use atoll_antientropy::{Context, Dot};

/// The acknowledged writes of all keys.
#[derive(Debug)]
pub struct History {
    keys: Vec<Acked>,
    window: usize,
    overflowed: u64,
}

/// The acknowledged writes of one key, oldest first.
#[derive(Clone, Debug, Default)]
struct Acked {
    /// No later acknowledged write had seen these.
    current: Vec<Dot>,
    /// Some later acknowledged write had.
    replaced: VecDeque<Dot>,
    /// When the last ack was heard.
    newest_at: Duration,
}

impl History {
    /// Nothing is acknowledged yet.
    pub fn new(keys: u32) -> History {
        let window = (DOTS_MAX / keys.max(1) as usize).clamp(WINDOW_MIN, WINDOW_MAX);
        History { keys: vec![Acked::default(); keys as usize], window, overflowed: 0 }
    }

    /// A write was acknowledged. `context` is what its answer stands for: all that the writer had seen, and the write.
    /// `now` counts from any moment, the same for all calls, by a clock that does not go back.
    pub fn ack(&mut self, key: u32, dot: Dot, context: &Context, now: Duration) {
        let Acked { current, replaced, newest_at } = &mut self.keys[key as usize];
        *newest_at = now;
        replaced.extend(current.extract_if(.., |older| context.contains(older)));
        current.push(dot);
        if current.len() > SIBLINGS_MAX {
            replaced.push_back(current.remove(0));
            self.overflowed += 1;
        }
        replaced.drain(..replaced.len().saturating_sub(self.window));
    }

    /// Freezes what a read that begins now must show. The old content of `snapshot` is gone, its room is used again.
    pub fn snapshot(&self, key: u32, snapshot: &mut Snapshot) {
        let Acked { current, replaced, newest_at } = &self.keys[key as usize];
        snapshot.acked.clear();
        snapshot.acked.extend(replaced.iter().chain(current).cloned());
        snapshot.newest_at = *newest_at;
    }

    /// How many replaced writes of a key are remembered.
    pub fn window(&self) -> usize {
        self.window
    }

    /// How often a key had more than 64 current dots, so that one of them may be forgotten. As long as
    /// this is 0, "fresh" and "stale" are exact.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }
}

/// What was acknowledged on one key when a read of it began, as far as it is remembered.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    acked: Vec<Dot>,
    newest_at: Duration,
}

/// What a read was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing had been acknowledged on this key, so there was nothing to miss.
    Unwritten,
    /// It shows every acknowledged write, or what replaced it.
    Fresh,
    /// It misses this many acknowledged writes, or more if there are older ones than we remember.
    Stale(u32),
}

impl Snapshot {
    /// How long before `now` the newest of the writes was acknowledged; `None` if nothing was.
    pub fn since_newest_ack(&self, now: Duration) -> Option<Duration> {
        (!self.acked.is_empty()).then(|| now.saturating_sub(self.newest_at))
    }

    /// Judges a read by the context that came back; an empty one for a key that the cluster does not know.
    pub fn judge(&self, seen: &Context) -> Verdict {
        let missed = self.acked.iter().filter(|dot| !seen.contains(dot)).count();
        match (self.acked.len(), missed) {
            (0, _) => Verdict::Unwritten,
            (_, 0) => Verdict::Fresh,
            (_, missed) => Verdict::Stale(u32::try_from(missed).expect("windows are small")),
        }
    }
}

/// Most replaced writes that are remembered per key: how far behind a read can be found to be.
const WINDOW_MAX: usize = 64;

/// Fewest, however many keys there are.
const WINDOW_MIN: usize = 4;

/// Replaced writes remembered for all keys together, if that allows at least [`WINDOW_MIN`] of them. 64 MiB.
const DOTS_MAX: usize = 4 << 20;

/// Most current dots of a key. Concurrent acknowledged writes that nobody has seen; more than so many at a time means
/// that nobody reads before he writes.
const SIBLINGS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use atoll_antientropy::{Actor, Event};
    use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

    use super::*;

    /// One key's life, in the words of a script, judged at each `read`:
    ///
    /// ```text
    ///   put a1 over -       a write with dot a1 is acknowledged, whose writer had seen nothing
    ///   begin / end a1      a read takes its snapshot / comes back with a context that knows exactly a1
    ///   read a1             both at once
    /// ```
    fn check(script: &str, expected: &[Verdict]) {
        let (mut history, mut snapshot) = (History::new(1), Snapshot::default());
        let mut verdicts = Vec::new();
        for line in script.split(';').map(str::trim) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["put", new, "over", ref seen @ ..] => {
                    let mut context = context(seen);
                    context.add(&event(new));
                    history.ack(0, event(new).dot(), &context, Duration::ZERO);
                }
                ["begin"] => history.snapshot(0, &mut snapshot),
                ["end", ref seen @ ..] => verdicts.push(snapshot.judge(&context(seen))),
                ["read", ref seen @ ..] => {
                    history.snapshot(0, &mut snapshot);
                    verdicts.push(snapshot.judge(&context(seen)));
                }
                _ => panic!("no such step: {line}"),
            }
        }
        assert_eq!(verdicts, expected, "{script}");
    }

    fn event(name: &str) -> Event {
        let node = u32::from(name.as_bytes()[0] - b'a' + 1);
        Event::alone(Actor::new(node, 0), name[1..].parse().expect("a number"))
    }

    fn context(names: &[&str]) -> Context {
        let mut context = Context::new();
        names.iter().filter(|name| **name != "-").for_each(|name| context.add(&event(name)));
        context
    }

    use Verdict::{Fresh, Stale, Unwritten};

    /// Nothing acknowledged, nothing to miss, whatever comes back.
    #[test]
    fn a_key_without_acks_cannot_be_stale() {
        check("read -; read a1", &[Unwritten, Unwritten]);
    }

    /// A read must know the write; the context may know more, and the write's value may be long replaced.
    #[test]
    fn a_read_that_knows_the_write_is_fresh() {
        check("put a1 over -; read a1; read a1 b7 c2", &[Fresh, Fresh]);
    }

    /// A key that the cluster claims not to know, after a write was acknowledged.
    #[test]
    fn missing_what_was_acknowledged_is_stale() {
        check("put a1 over -; read -; read b1", &[Stale(1), Stale(1)]);
    }

    /// One writer, three versions: every version that is not known counts.
    #[test]
    fn versions_behind_are_counted() {
        check(
            "put a1 over -; put b1 over a1; put a2 over a1 b1; \
             read a1 b1 a2; read a1 b1; read a1; read -",
            &[Fresh, Stale(1), Stale(2), Stale(3)],
        );
    }

    /// A write that is acknowledged while the read is under way may be missing, and does not excuse an older one.
    #[test]
    fn only_acks_before_the_beginning_count() {
        check("put a1 over -; begin; put a2 over a1; end a1; read a1", &[Fresh, Stale(1)]);
        check("put a1 over -; begin; put a2 over a1; end a2", &[Stale(1)]);
        check("begin; put a1 over -; end -", &[Unwritten]);
    }

    /// Two writers that had not seen each other: a read must know both.
    #[test]
    fn of_siblings_each_counts() {
        check(
            "put a1 over -; put b1 over -; read a1 b1; read a1; read b1; \
             put c1 over a1 b1; read a1 b1 c1; read a1 b1",
            &[Fresh, Stale(1), Stale(1), Fresh, Stale(1)],
        );
    }

    /// A write that ended as unknown is no ack: it may be seen or not, and the next put of its writer stands beside it.
    #[test]
    fn unknown_writes_are_nobodys_fault() {
        check("put a1 over -; read a1; read a1 a2; put a3 over a1; read a1 a3", &[Fresh; 3]);
    }

    /// The age that a read is filed under is that of the newest ack before it, whichever write that was.
    #[test]
    fn the_newest_ack_before_the_read_gives_the_age() {
        let ms = Duration::from_millis;
        let (mut history, mut snapshot) = (History::new(2), Snapshot::default());
        history.snapshot(0, &mut snapshot);
        assert_eq!(snapshot.since_newest_ack(ms(5)), None);
        history.ack(0, event("a1").dot(), &context(&["a1"]), ms(10));
        history.ack(0, event("b1").dot(), &context(&["b1"]), ms(30)); // concurrent with the first
        history.ack(1, event("a2").dot(), &context(&["a2"]), ms(40)); // of another key
        history.snapshot(0, &mut snapshot);
        history.ack(0, event("a3").dot(), &context(&["a3"]), ms(50)); // too late to count
        assert_eq!(snapshot.since_newest_ack(ms(45)), Some(ms(15)));
    }

    /// Older versions than the window are no longer counted, but the read stays stale.
    #[test]
    fn the_window_bounds_the_count_and_not_the_verdict() {
        let (mut history, mut snapshot) = (History::new(1), Snapshot::default());
        let mut context = Context::new();
        for counter in 1..=1000 {
            let event = Event::alone(Actor::new(1, 0), counter);
            context.add(&event);
            history.ack(0, event.dot(), &context, Duration::ZERO);
        }
        history.snapshot(0, &mut snapshot);
        assert_eq!(snapshot.judge(&context), Fresh);
        assert_eq!(snapshot.judge(&Context::new()), Stale(WINDOW_MAX as u32 + 1));
        assert_eq!(history.overflowed(), 0);
    }

    /// A sibling that nobody replaced is remembered beyond the window: a read that misses only that one is stale.
    #[test]
    fn an_old_sibling_is_not_forgotten() {
        let (mut history, mut snapshot) = (History::new(1), Snapshot::default());
        history.ack(0, event("b1").dot(), &context(&["b1"]), Duration::ZERO);
        let mut context = Context::new();
        for counter in 1..=1000 {
            let event = Event::alone(Actor::new(1, 0), counter);
            context.add(&event);
            history.ack(0, event.dot(), &context, Duration::ZERO);
        }
        history.snapshot(0, &mut snapshot);
        assert_eq!(snapshot.judge(&context), Stale(1));
        context.add(&event("b1"));
        assert_eq!(snapshot.judge(&context), Fresh);
    }

    /// Writers that never read pile up current dots; past the bound the oldest may be forgotten, and that is counted.
    #[test]
    fn too_many_siblings_are_counted() {
        let mut history = History::new(1);
        for counter in 1..=200 {
            let event = Event::alone(Actor::new(1, 0), counter);
            history.ack(0, event.dot(), &event.context(), Duration::ZERO);
        }
        assert_eq!(history.overflowed(), 200 - SIBLINGS_MAX as u64);
        let mut snapshot = Snapshot::default();
        history.snapshot(0, &mut snapshot);
        assert_eq!(snapshot.acked.len(), SIBLINGS_MAX + WINDOW_MAX);
    }

    /// However many keys there are, the memory stays within its bound.
    #[test]
    fn many_keys_share_the_room() {
        for (keys, window) in [(1, 64), (65_536, 64), (100_000, 41), (10_000_000, 4)] {
            assert_eq!(History::new(keys).window(), window, "{keys} keys");
        }
    }

    /// Random histories of a store that keeps its promises: every read that has joined all that was acknowledged is
    /// fresh. Then the same reads are tampered with: one acknowledged event is taken out of the answer, and the judge
    /// must call each of them stale, by exactly the one that is missing.
    #[test]
    fn a_tampered_history_is_found_out() {
        let mut dice = SmallRng::seed_from_u64(11);
        let mut tampered = 0;
        for _ in 0..500 {
            let (mut history, mut snapshot) = (History::new(1), Snapshot::default());
            let mut store: Vec<Event> = Vec::new();
            for counter in 1..=40 {
                // A writer that has seen any beginning of the history; so there are siblings.
                let mut seen = knowing(&store[..dice.random_range(0..=store.len())]);
                let event = Event::alone(Actor::new(dice.random_range(1..=3), 0), counter);
                seen.add(&event);
                store.push(event);
                history.ack(0, event.dot(), &seen, Duration::ZERO);
                history.snapshot(0, &mut snapshot);
                assert_eq!(snapshot.judge(&knowing(&store)), Fresh);

                let mut forged = store.clone();
                forged.remove(dice.random_range(0..store.len()));
                assert_eq!(snapshot.judge(&knowing(&forged)), Stale(1));
                tampered += 1;
            }
        }
        assert_eq!(tampered, 20_000);
    }

    /// Long histories with stale readers against a naive judge that forgets nothing: the verdicts agree, and the count
    /// is never above the true one.
    #[test]
    fn the_bounded_judge_agrees_with_one_that_forgets_nothing() {
        let mut dice = SmallRng::seed_from_u64(5);
        let mut stale = 0;
        for _ in 0..20 {
            let (mut history, mut snapshot) = (History::new(1), Snapshot::default());
            let mut acked: Vec<Event> = Vec::new();
            let mut before: Vec<Context> = vec![Context::new()]; // what the store knew after each ack
            for counter in 1..=400 {
                // Readers and writers see the store as it was a little while ago.
                let lag = dice.random_range(0..10).min(before.len() - 1);
                let mut seen = before[before.len() - 1 - lag].clone();
                history.snapshot(0, &mut snapshot);
                let missed = acked.iter().filter(|event| !seen.contains(&event.dot())).count();
                match snapshot.judge(&seen) {
                    Unwritten => assert!(acked.is_empty()),
                    Fresh => assert_eq!(missed, 0),
                    Stale(behind) => {
                        assert!((1..=missed).contains(&(behind as usize)));
                        stale += 1;
                    }
                }
                let event = Event::alone(Actor::new(dice.random_range(1..=3), 0), counter);
                let mut known = before[before.len() - 1].clone();
                known.add(&event);
                before.push(known);
                seen.add(&event);
                acked.push(event);
                history.ack(0, event.dot(), &seen, Duration::ZERO);
            }
            assert_eq!(history.overflowed(), 0);
        }
        assert!(stale > 1000, "the histories were too tame: {stale}");
    }

    fn knowing(events: &[Event]) -> Context {
        let mut context = Context::new();
        events.iter().for_each(|event| context.add(event));
        context
    }
}
