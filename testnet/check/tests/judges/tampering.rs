//! Honest random histories pass; the same with one lie in it do not.

#![expect(
    clippy::ptr_arg,
    reason = "all lies have one signature, also those that neither add nor remove an event"
)]

use std::collections::BTreeSet;

use atoll_check::{Effect, Event, Held, Op, Promise, Reply, What};
use proptest::prelude::*;

use crate::{
    broken,
    model::{Chance, Play, history},
    verdict,
};

fn play(seed: u64) -> Play {
    Play { seed, operations: 80, keys: 2, clients: 4, is_orderly: false }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The judges find nothing where nothing is wrong.
    #[test]
    fn honest_histories_pass(seed: u64) {
        let verdict = verdict(&history(play(seed)));
        prop_assert!(verdict.is_settled && verdict.is_clean(), "{:#?}", verdict.violations);
    }

    /// Each lie is found, under its name, wherever it can be told at all.
    #[test]
    fn lies_are_found(seed: u64) {
        let honest = history(play(seed));
        for lie in LIES {
            let mut told = honest.clone();
            if (lie.tell)(&mut told, &mut Chance(seed)).is_some() {
                let verdict = verdict(&told);
                prop_assert!(
                    broken(&verdict).contains(&lie.breaks),
                    "{}: {:#?}", lie.name, verdict.violations
                );
            }
        }
    }
}

/// Every lie can be told in many of these histories: none of the above passes for want of a chance.
#[test]
fn every_lie_is_told() {
    for lie in LIES {
        let tellable = (0..200)
            .filter(|seed| (lie.tell)(&mut history(play(*seed)), &mut Chance(*seed)).is_some())
            .count();
        assert!(tellable >= 20, "{}: in {tellable} of 200", lie.name);
    }
}

/// A way to tamper with a history. `tell` says nothing where there is nothing to tamper with.
struct Lie {
    name: &'static str,
    breaks: Promise,
    tell: fn(&mut Vec<Event>, &mut Chance) -> Option<()>,
}

const LIES: &[Lie] = &[
    Lie {
        name: "an acknowledged value is dropped",
        breaks: Promise::NothingLost,
        tell: drop_value,
    },
    Lie { name: "a replaced value is revived", breaks: Promise::NoResurrection, tell: revive },
    Lie { name: "a delete has no event", breaks: Promise::EventsKnown, tell: forget_event },
    Lie { name: "an event is given twice", breaks: Promise::DotsUnique, tell: same_dot },
    Lie {
        name: "a value is shown under another event",
        breaks: Promise::DotsUnique,
        tell: swap_dot,
    },
    Lie {
        name: "a write that is seen is called not applied",
        breaks: Promise::ErrorsHonest,
        tell: deny,
    },
    Lie { name: "a value nobody wrote is read", breaks: Promise::NoPhantom, tell: invent },
    Lie {
        name: "a read of a quorum sees nothing",
        breaks: Promise::ReadsSeeWrites,
        tell: see_nothing,
    },
    Lie { name: "a receipt is untrue", breaks: Promise::ReceiptsTrue, tell: untrue },
    Lie { name: "one owner misses a value", breaks: Promise::Convergence, tell: one_misses },
    Lie {
        name: "one owner knows an event more",
        breaks: Promise::Convergence,
        tell: one_knows_more,
    },
    Lie { name: "one owner has nothing", breaks: Promise::Convergence, tell: one_has_nothing },
    Lie { name: "one record is damaged", breaks: Promise::Convergence, tell: one_is_damaged },
    Lie { name: "somebody else has a copy", breaks: Promise::Convergence, tell: stray },
    Lie { name: "a hint is left", breaks: Promise::Convergence, tell: left_hint },
];

fn drop_value(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let (acked, shown) = (acknowledged(events), shown_to_writers(events));
    let alive = alive(events).into_iter();
    let dropped = pick(alive.filter(|op| acked.contains(op) && !shown.contains(op)), chance)?;
    for record in held(events) {
        record.values.retain(|(value, _)| *value != dropped);
    }
    Some(())
}

/// A value that somebody read and whose token then went into an acknowledged write.
fn revive(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let acked = acknowledged(events);
    let used: BTreeSet<Op> = events
        .iter()
        .filter_map(|event| match event {
            Event::Begin { op, seen, .. } if acked.contains(op) => *seen,
            _ => None,
        })
        .collect();
    let shown = events.iter().filter_map(|event| match event {
        Event::End { op, reply: Reply::Found { values, .. }, .. } if used.contains(op) => {
            values.first().map(|pair| (*op, *pair))
        }
        _ => None,
    });
    let (read, pair) = pick(shown, chance)?;
    let key = key_of(events, read);
    held(events).filter(|record| record.key == key).for_each(|record| record.values.push(pair));
    Some(())
}

fn forget_event(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let deletes: BTreeSet<Op> = events
        .iter()
        .filter_map(|event| match event {
            Event::Begin { op, what: What::Delete, .. } => Some(*op),
            _ => None,
        })
        .collect();
    let acked = events.iter().filter_map(|event| match event {
        Event::End { op, reply: Reply::Stored { dot, .. }, .. } if deletes.contains(op) => {
            Some((*op, *dot))
        }
        _ => None,
    });
    let (op, (node, incarnation, counter)) = pick(acked, chance)?;
    let key = key_of(events, op);
    for record in held(events).filter(|record| record.key == key) {
        record.context.retain(|span| *span != (node, incarnation, counter - 1, counter));
    }
    Some(())
}

fn same_dot(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let acked: Vec<Op> = acknowledged(events).into_iter().collect();
    let one = pick(acked.iter().copied(), chance)?;
    let key = key_of(events, one);
    let others: Vec<Op> =
        acked.into_iter().filter(|op| *op != one && key_of(events, *op) == key).collect();
    let other = pick(others.into_iter(), chance)?;
    let given = events.iter().find_map(|event| match event {
        Event::End { op, reply: Reply::Stored { dot, .. }, .. } if *op == one => Some(*dot),
        _ => None,
    })?;
    for event in events.iter_mut() {
        if let Event::End { op, reply: Reply::Stored { dot, .. }, .. } = event
            && *op == other
        {
            *dot = given;
        }
    }
    Some(())
}

fn swap_dot(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let acked = acknowledged(events);
    let reads = events.iter_mut().filter_map(|event| match event {
        Event::End { reply: Reply::Found { values, .. }, .. } => {
            values.iter_mut().find(|(value, _)| acked.contains(value))
        }
        _ => None,
    });
    pick(reads, chance)?.1 = (9, 9, 9);
    Some(())
}

fn deny(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let seen: BTreeSet<Op> = alive(events);
    let ends = events.iter_mut().filter_map(|event| match event {
        Event::End { op, reply: reply @ Reply::Failed { .. }, .. } if seen.contains(op) => {
            Some(reply)
        }
        _ => None,
    });
    *pick(ends, chance)? = Reply::Failed { effect: Effect::NotApplied, code: "refused".into() };
    Some(())
}

fn invent(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let reads = events.iter_mut().filter_map(|event| match event {
        Event::End { reply: Reply::Found { values, .. }, .. } => Some(values),
        _ => None,
    });
    pick(reads, chance)?.push((1_000_000, (9, 9, 9)));
    Some(())
}

/// A quorum of owners has acknowledged a put that nobody replaced, and a read of a quorum is empty.
fn see_nothing(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let strict: BTreeSet<Op> = events
        .iter()
        .filter_map(|event| match event {
            Event::Begin { op, with, .. } if with.n == 3 && with.owners >= 2 => Some(*op),
            _ => None,
        })
        .collect();
    let (alive, shown) = (alive(events), shown_to_writers(events));
    let mut sure: BTreeSet<String> = BTreeSet::new();
    let mut candidates = BTreeSet::new();
    for event in events.iter() {
        match event {
            Event::End { op, reply: Reply::Stored { .. }, .. }
                if strict.contains(op) && alive.contains(op) && !shown.contains(op) =>
            {
                sure.insert(key_of(events, *op));
            }
            Event::Begin { op, key, what: What::Get, .. }
                if strict.contains(op) && sure.contains(key) =>
            {
                candidates.insert(*op);
            }
            _ => {}
        }
    }
    let reads = events.iter_mut().filter_map(|event| match event {
        Event::End { op, reply: Reply::Found { values, .. }, .. } if candidates.contains(op) => {
            Some(values)
        }
        _ => None,
    });
    pick(reads, chance)?.clear();
    Some(())
}

fn untrue(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let receipts = events.iter_mut().filter_map(|event| match event {
        Event::End { reply: Reply::Stored { untrue, .. }, .. } => Some(untrue),
        _ => None,
    });
    *pick(receipts, chance)? = Some("shows too few owners".into());
    Some(())
}

fn one_misses(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    pick(held(events).filter(|record| !record.values.is_empty()), chance)?.values.pop();
    Some(())
}

fn one_knows_more(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    pick(held(events), chance)?.context.push((9, 1, 0, 1));
    Some(())
}

fn one_has_nothing(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let record = pick(held(events).filter(|record| !record.context.is_empty()), chance)?;
    (record.values, record.context) = (Vec::new(), Vec::new());
    Some(())
}

fn one_is_damaged(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    pick(held(events), chance)?.readable = false;
    Some(())
}

fn stray(events: &mut Vec<Event>, chance: &mut Chance) -> Option<()> {
    let mut copy = pick(held(events), chance)?.clone();
    (copy.node, copy.owner) = (4, false);
    events.push(Event::Held(copy));
    Some(())
}

fn left_hint(events: &mut Vec<Event>, _chance: &mut Chance) -> Option<()> {
    events.push(Event::Hints { node: 2, count: 1 });
    Some(())
}

fn pick<T>(among: impl Iterator<Item = T>, chance: &mut Chance) -> Option<T> {
    let mut among: Vec<T> = among.collect();
    (!among.is_empty()).then(|| among.swap_remove(chance.below(among.len() as u64) as usize))
}

fn acknowledged(events: &[Event]) -> BTreeSet<Op> {
    let acked = events.iter().filter_map(|event| match event {
        Event::End { op, reply: Reply::Stored { .. }, .. } => Some(*op),
        _ => None,
    });
    acked.collect()
}

/// Values that writers had seen: one that never answered may have replaced them.
fn shown_to_writers(events: &[Event]) -> BTreeSet<Op> {
    let begun = events.iter().filter_map(|event| match event {
        Event::Begin { seen, .. } => *seen,
        _ => None,
    });
    let used: BTreeSet<Op> = begun.collect();
    let mut shown = BTreeSet::new();
    for event in events {
        match event {
            Event::End { op, reply: Reply::Stored { .. }, .. } if used.contains(op) => {
                shown.insert(*op);
            }
            Event::End { op, reply: Reply::Found { values, .. }, .. } if used.contains(op) => {
                shown.extend(values.iter().map(|(value, _)| *value));
            }
            _ => {}
        }
    }
    shown
}

fn alive(events: &[Event]) -> BTreeSet<Op> {
    let records = events.iter().filter_map(|event| match event {
        Event::Held(record) => Some(&record.values),
        _ => None,
    });
    records.flatten().map(|(value, _)| *value).collect()
}

fn held(events: &mut [Event]) -> impl Iterator<Item = &mut Held> {
    events.iter_mut().filter_map(|event| match event {
        Event::Held(record) => Some(record),
        _ => None,
    })
}

fn key_of(events: &[Event], wanted: Op) -> String {
    let keys = events.iter().find_map(|event| match event {
        Event::Begin { op, key, .. } if *op == wanted => Some(key.clone()),
        _ => None,
    });
    keys.expect("it has begun")
}
