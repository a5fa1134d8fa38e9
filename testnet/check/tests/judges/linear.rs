//! The judges' work grows with the history and no faster: counted, not timed.

use atoll_check::{Effect, Event, Op};

use crate::{
    model::{Play, history},
    pencil::{Pencil, QUORUM, dot},
    verdict_with_sessions,
};

/// Four times the history takes at most five times the steps.
#[track_caller]
fn check(history: impl Fn(u64) -> Vec<Event>) {
    let steps = |n| {
        let verdict = verdict_with_sessions(&history(n));
        assert!(verdict.is_clean(), "{:#?}", verdict.violations);
        verdict.figures.steps
    };
    let (short, long) = (steps(500), steps(2000));
    assert!(long <= 5 * short, "{short} steps became {long}");
}

/// Random histories, of few keys: a key's writes are many.
#[test]
fn random_histories() {
    check(|operations| {
        history(Play { seed: 7, operations, keys: 2, clients: 3, is_orderly: true })
    });
}

/// One long chain: each put has seen the one before, and each is read by somebody.
#[test]
fn a_chain() {
    check(|n| {
        let mut history = Pencil::default();
        let mut last: Option<Op> = None;
        for counter in 1..=n {
            let put = history.put(1, last, counter);
            history.get(2, &[(put, dot(counter))]);
            last = Some(put);
        }
        let end = [(last.expect("some"), dot(n))];
        history.all_hold(&end, n);
        history.events
    });
}

/// One answer, and all writers take their context from it.
#[test]
fn a_fan() {
    check(|n| {
        let mut history = Pencil::default();
        let put = history.put(1, None, 1);
        let read = history.get(1, &[(put, dot(1))]);
        for _ in 0..n {
            history.put_fails(2, Some(read), Effect::Unknown);
            history.with(QUORUM).get(3, &[]);
        }
        history.put(1, Some(read), 2);
        let last = history.put(1, None, 3);
        let first = last - 1;
        history.all_hold(&[(first, dot(2)), (last, dot(3))], 3);
        history.events
    });
}

/// Blind puts that are each replaced by a session's later delete, and read in between by a session that learns of all.
#[test]
fn many_sessions() {
    check(|n| {
        let mut history = Pencil::default();
        for counter in 1..=n {
            let session = counter as u32 % 50;
            let put = history.put(session, None, 2 * counter - 1);
            let read = history.get(60, &[(put, dot(2 * counter - 1))]);
            history.delete(session, Some(read), 2 * counter);
            history.get(60, &[]);
        }
        history.all_hold(&[], 2 * n);
        history.events
    });
}
