//! The judges of sessions: not switched on for real histories yet, and tried here.

use atoll_check::{Effect, Levels, Promise};
use proptest::prelude::*;

use crate::{
    broken,
    model::{Play, history},
    pencil::{ONE, Pencil, QUORUM, dot},
    verdict, verdict_with_sessions,
};

#[track_caller]
fn check(history: &Pencil, promises: &[Promise]) {
    let with = verdict_with_sessions(&history.events);
    assert_eq!(broken(&with), promises, "{:#?}", with.violations);
    assert_eq!(broken(&verdict(&history.events)), [], "nothing of that is promised");
}

fn loose() -> Pencil {
    Pencil { with: Some(ONE), ..Pencil::default() }
}

/// A session's read shows what it has written, and not what that replaced.
#[test]
fn read_your_writes() {
    let history = |session, values: &[_]| {
        let mut history = loose();
        let first = history.put(1, None, 1);
        history.put(1, Some(first), 2);
        history.get(session, values);
        history
    };
    check(&history(1, &[(2, dot(2))]), &[]);
    check(&history(2, &[]), &[]);
    check(&history(1, &[]), &[Promise::ReadYourWrites]);
    check(&history(1, &[(1, dot(1))]), &[Promise::ReadYourWrites]);

    let mut replaced = loose();
    let put = replaced.put(1, None, 1);
    replaced.put_fails(2, Some(put), Effect::Unknown);
    replaced.get(1, &[]);
    check(&replaced, &[]);
}

/// A session's read shows what it has seen before, and not what that replaced.
#[test]
fn monotonic_reads() {
    let history = |session, values: &[_]| {
        let mut history = loose();
        let first = history.put(1, None, 1);
        history.put(1, Some(first), 2);
        history.get(2, &[(2, dot(2))]);
        history.get(session, values);
        history
    };
    check(&history(2, &[(2, dot(2))]), &[]);
    check(&history(3, &[]), &[]);
    check(&history(2, &[]), &[Promise::MonotonicReads]);
    check(&history(2, &[(1, dot(1))]), &[Promise::MonotonicReads]);
}

/// Who sees the second write of a session sees the first.
#[test]
fn monotonic_writes() {
    let history = |values: &[_]| {
        let mut history = loose();
        history.put(1, None, 1);
        history.put(1, None, 2);
        history.put(1, None, 3);
        history.get(2, values);
        history
    };
    check(&history(&[(1, dot(1)), (2, dot(2)), (3, dot(3))]), &[]);
    check(&history(&[(1, dot(1))]), &[]);
    check(&history(&[(1, dot(1)), (3, dot(3))]), &[Promise::MonotonicWrites]);

    let after_a_delete = |values: &[_]| {
        let mut history = loose();
        let first = history.put(1, None, 1);
        history.delete(2, Some(first), 2);
        history.put(2, None, 3);
        history.get(3, values);
        history
    };
    check(&after_a_delete(&[(3, dot(3))]), &[]);
    check(&after_a_delete(&[(1, dot(1)), (3, dot(3))]), &[Promise::MonotonicWrites]);
}

/// Who sees a write sees what its session had read before it.
#[test]
fn writes_follow_reads() {
    let history = |values: &[_]| {
        let mut history = loose();
        history.put(1, None, 1);
        history.get(2, &[(1, dot(1))]);
        history.put(2, None, 2);
        history.get(3, values);
        history
    };
    check(&history(&[(1, dot(1)), (3, dot(2))]), &[]);
    check(&history(&[(1, dot(1))]), &[]);
    check(&history(&[(3, dot(2))]), &[Promise::WritesFollowReads]);
}

proptest! {
    /// Where every request asks all owners, one after the other, sessions have all their promises.
    #[test]
    fn orderly_histories_keep_sessions(seed: u64) {
        let play = Play { seed, operations: 60, keys: 2, clients: 3, is_orderly: true };
        let verdict = verdict_with_sessions(&history(play));
        prop_assert!(verdict.is_clean(), "{:#?}", verdict.violations);
    }
}

/// The levels of the hand-written histories above promise nothing by themselves.
#[test]
fn the_levels_used_here_promise_nothing() {
    let overlaps = |with: Levels| with.owners + with.owners > with.n;
    assert!(!overlaps(ONE) && overlaps(QUORUM));
}
