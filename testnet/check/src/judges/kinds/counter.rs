//! A counter is the sum of what was counted, each of it once: all acknowledged changes, and any of those whose fate nobody
//! knows. A session's change is told as its total, so with the last one that is certain all before it are.
//!
//! A reset takes away what its coordinator knew: at least what it certainly had seen, at most what was begun before it ended.
//! Where something was reset the value is held between bounds. While nothing but increments above 0 happens, a reader is
//! never shown more than was begun by then, and a session never less than before.

use std::collections::BTreeMap;

use super::{Place, Removals};
use crate::{
    history::kinds::{Deed, Shown},
    kinds::Ask,
    verdict::{Findings, Promise},
};

/// What came of one change of a session: of all its repetitions.
#[derive(Clone, Copy)]
struct Step {
    total: i64,
    begun: u64,
    is_certain: bool,
    may_be: bool,
    /// A reset has certainly seen it.
    is_reset: bool,
}

pub(super) fn judge(of: &Place<'_>, found: &mut Findings) {
    let name = of.name();
    let resets = of.acts.iter().filter(|(_, deed)| **deed == Deed::Clear).map(|(ask, _)| *ask);
    let resets = Removals::of(resets);
    let reset_until = resets.all.last().map_or(0, |(_, until)| *until);
    let mut sessions: BTreeMap<u64, BTreeMap<u64, Step>> = BTreeMap::new();
    let mut once: Vec<(&Ask, i64)> = Vec::new();
    for (ask, deed) in of.acts {
        found.step();
        match deed {
            Deed::Count { by, sequence, total } => {
                let step = Step {
                    total: *total,
                    begun: ask.begun,
                    is_certain: ask.is_certain(),
                    may_be: ask.may_be(),
                    is_reset: resets.have_seen(ask),
                };
                let steps = sessions.entry(*by).or_default();
                let joined = steps.entry(*sequence).or_insert(step);
                joined.is_certain |= step.is_certain;
                joined.may_be |= step.may_be;
                joined.is_reset |= step.is_reset;
            }
            Deed::Once(by) => once.push((ask, *by)),
            _ => {}
        }
    }
    let (mut least, mut most) = (0_i128, 0_i128);
    for steps in sessions.values() {
        let (low, high) = of_session(steps, reset_until);
        (least, most) = (least + low, most + high);
    }
    for (ask, by) in &once {
        let by = i128::from(*by);
        let may_be_reset = ask.begun < reset_until;
        let (low, high) = match (ask.is_certain(), ask.may_be()) {
            (_, false) => (0, 0),
            (true, _) if resets.have_seen(ask) => (0, 0),
            (true, _) if !may_be_reset => (by, by),
            (true | false, true) => (by.min(0), by.max(0)),
        };
        (least, most) = (least + low, most + high);
    }
    let number = |shown: Option<&Shown>| match shown {
        Some(Shown::Number(number)) => i128::from(*number),
        _ => 0,
    };
    for (node, shown) in of.key.finals(of.place).filter(|_| of.is_settled) {
        found.step();
        let value = number(shown);
        if value < least || value > most {
            found.add(Promise::CountedOnce, Some(&name), &[], || {
                format!("node {node} holds {value}, and what was counted is from {least} to {most}")
            });
        }
    }
    let only_up = sessions.values().all(|steps| {
        let mut before = 0;
        steps.values().all(|step| std::mem::replace(&mut before, step.total) <= step.total)
    });
    if resets.all.is_empty() && only_up && once.iter().all(|(_, by)| *by >= 0) {
        reads(of, &name, found);
    }
}

/// The least and the most that a session may have added.
fn of_session(steps: &BTreeMap<u64, Step>, reset_until: u64) -> (i128, i128) {
    let certain = steps.iter().rev().find(|(_, step)| step.is_certain);
    let from = certain.map_or(0, |(sequence, _)| *sequence);
    let nothing = certain.is_none().then_some(0);
    let now = steps.range(from..).filter(|(_, step)| step.may_be).map(|(_, step)| step.total);
    let now: Vec<i64> = now.chain(nothing).collect();
    // of what was reset, at least what was certainly seen: or nothing
    let seen = steps.iter().rev().find(|(_, step)| step.is_reset);
    let reset_from = seen.map_or(0, |(sequence, _)| *sequence);
    let nothing = seen.is_none().then_some(0);
    let reset = steps.range(reset_from..).map(|(_, step)| step);
    let reset = reset.filter(|step| step.may_be && step.begun < reset_until);
    let reset: Vec<i64> = reset.map(|step| step.total).chain(nothing).collect();
    let ends = |all: &[i64]| {
        let least = all.iter().min().copied().unwrap_or(0);
        (i128::from(least), i128::from(all.iter().max().copied().unwrap_or(0)))
    };
    let ((now_least, now_most), (reset_least, reset_most)) = (ends(&now), ends(&reset));
    (now_least - reset_most, now_most - reset_least)
}

/// Readers of a counter that only rises.
fn reads(of: &Place<'_>, name: &str, found: &mut Findings) {
    // what had been begun by each moment
    let (mut sum, mut totals) = (0_i128, BTreeMap::new());
    let mut begun: Vec<(u64, i128)> = vec![(0, 0)];
    for (ask, deed) in of.acts.iter().filter(|(ask, _)| ask.may_be()) {
        sum += match deed {
            Deed::Count { by, total, .. } => {
                let before: &mut i64 = totals.entry(*by).or_default();
                let more = (*total - *before).max(0);
                *before += more;
                i128::from(more)
            }
            Deed::Once(by) => i128::from(*by),
            _ => 0,
        };
        begun.push((ask.begun, sum));
    }
    let mut seen: BTreeMap<u32, i128> = BTreeMap::new();
    for (read, shown) in of.key.reads(of.place) {
        found.step();
        let value = match shown {
            Some(Shown::Number(number)) => i128::from(*number),
            _ => 0,
        };
        let most = begun[begun.partition_point(|(at, _)| *at < read.ended) - 1].1;
        if value > most {
            found.add(Promise::CountedOnce, Some(name), &[read.op], || {
                format!("it saw {value}, and no more than {most} was begun by then")
            });
        }
        if of.key.is_in_session(read) {
            let seen = seen.entry(read.session).or_default();
            if value < *seen {
                found.add(Promise::MonotonicReads, Some(name), &[read.op], || {
                    format!("session {} saw {seen} before, and {value} now", read.session)
                });
            }
            *seen = value.max(*seen);
        }
    }
}
