//! The judges, tried on histories that are honest and on the same histories tampered with.
//!
//! `model` plays a tiny cluster that keeps its promises; `tampering` breaks one of them in what it recorded; `promises` has
//! the smallest such history for each; `sessions` has those of sessions; `linear` counts steps; `window` is what is shown around what they find.

mod kinds;
mod linear;
mod model;
mod pencil;
mod promises;
mod sessions;
mod tampering;
mod window;

use atoll_check::{Event, Judge, Promise, Verdict};

/// The verdict over these events.
fn verdict(events: &[Event]) -> Verdict {
    judge(Judge::new(), events)
}

/// The verdict with all judges of sessions.
fn verdict_with_sessions(events: &[Event]) -> Verdict {
    judge(Promise::OF_SESSIONS.into_iter().fold(Judge::new(), Judge::also), events)
}

fn judge(mut judge: Judge, events: &[Event]) -> Verdict {
    for event in events {
        judge.hear(event).unwrap_or_else(|why| panic!("{event:?}: {why}"));
    }
    judge.verdict()
}

/// The promises that were broken.
fn broken(verdict: &Verdict) -> Vec<Promise> {
    verdict.broken.keys().copied().collect()
}
