//! For each promise the smallest history that keeps it, and the same with one line changed.

use atoll_check::{BadLine, Effect, Event, Judge, Levels, Nonsense, Promise, Reply, What};

use crate::{
    broken,
    pencil::{ONE, Pencil, QUORUM, SLOPPY, dot, held},
    verdict,
};

#[track_caller]
fn check(history: &Pencil, promises: &[Promise]) {
    let verdict = verdict(&history.events);
    assert_eq!(broken(&verdict), promises, "{:#?}", verdict.violations);
}

/// A put that nobody replaced is alive in the end. One whose reader has put something else may be gone. If that something
/// never took effect, the put must still be there: also when the other may exist.
#[test]
fn nothing_lost() {
    let mut kept = Pencil::default();
    kept.put(1, None, 1);
    check(kept.all_hold(&[(1, dot(1))], 1), &[]);

    let mut lost = Pencil::default();
    lost.put(1, None, 1);
    check(lost.all_hold(&[], 1), &[Promise::NothingLost]);

    let mut replaced = Pencil::default();
    replaced.put(1, None, 1);
    replaced.get(1, &[(1, dot(1))]);
    let second = replaced.put(1, Some(2), 2);
    replaced.put(1, Some(second), 3);
    check(replaced.all_hold(&[(4, dot(3))], 3), &[]);

    // of a chain that is lost the last is named: the others it had replaced
    let mut chain = Pencil::default();
    let first = chain.put(1, None, 1);
    chain.put(1, Some(first), 2);
    let verdict = verdict(&chain.all_hold(&[], 2).events);
    assert_eq!(verdict.violations.len(), 1);
    assert_eq!(verdict.violations[0].operations, [2]);

    for (is_there, promises) in [(true, &[][..]), (false, &[Promise::NothingLost])] {
        let mut uncertain = Pencil::default();
        let first = uncertain.put(1, None, 1);
        uncertain.put_fails(1, Some(first), Effect::Unknown);
        let values = if is_there { vec![(2, dot(2))] } else { vec![] };
        check(uncertain.all_hold(&values, 2), promises);
    }

    let mut by_a_delete = Pencil::default();
    let first = by_a_delete.put(1, None, 1);
    by_a_delete.begin(1, What::Delete, Some(first)); // never answered
    check(by_a_delete.all_hold(&[], 2), &[]);

    let mut by_nothing = Pencil::default();
    let first = by_nothing.put(1, None, 1);
    by_nothing.put_fails(1, Some(first), Effect::NotApplied);
    check(by_nothing.all_hold(&[], 1), &[Promise::NothingLost]);

    let mut fsynced_somewhere = Pencil::default();
    fsynced_somewhere.put_fails(1, None, Effect::Applied(1));
    check(fsynced_somewhere.all_hold(&[], 0), &[Promise::NothingLost]);
}

/// A write without fsync whose holders all lost power is excused, and replaces nothing for certain.
#[test]
fn nothing_lost_but_what_was_not_synced() {
    let mut excused = Pencil::default();
    excused.put(1, None, 1);
    excused.events.push(Event::Exempt { op: 1, why: "all three lost power".into() });
    check(excused.all_hold(&[], 0), &[]);

    let mut on_one_disk = Pencil::default();
    on_one_disk.put_fails(1, None, Effect::Applied(1));
    on_one_disk.events.push(Event::Exempt { op: 1, why: "that disk is gone".into() });
    check(on_one_disk.all_hold(&[], 0), &[]);

    let mut replaced = Pencil::default();
    let first = replaced.put(1, None, 1);
    replaced.put(1, Some(first), 2);
    replaced.events.push(Event::Exempt { op: 2, why: "all three lost power".into() });
    check(replaced.all_hold(&[(1, dot(1))], 1), &[]);
}

/// A delete that removed nothing is still known by its event.
#[test]
fn events_known() {
    let history = |up_to| {
        let mut history = Pencil::default();
        let read = history.get(1, &[]);
        history.delete(1, Some(read), 1);
        history.all_hold(&[], up_to);
        history
    };
    check(&history(1), &[]);
    check(&history(0), &[Promise::EventsKnown]);
}

/// Reads and disks show what was put, to that key, before.
#[test]
fn no_phantom() {
    let mut honest = Pencil::default();
    let put = honest.begin(1, What::Put, None);
    honest.get(2, &[(put, dot(1))]); // seen before it is acknowledged
    check(&honest, &[]);

    let mut nobody = Pencil::default();
    nobody.get(1, &[(7, dot(1))]);
    check(&nobody, &[Promise::NoPhantom]);

    let mut too_early = Pencil::default();
    too_early.get(1, &[(2, dot(1))]);
    too_early.put(1, None, 1);
    check(&too_early, &[Promise::NoPhantom]);

    let mut on_disk = Pencil::default();
    check(on_disk.all_hold(&[(7, dot(1))], 1), &[Promise::NoPhantom]);
}

/// What a certain write had seen is gone in the end, however long the way from one to the other.
#[test]
fn no_resurrection() {
    let history = |alive: &[_]| {
        let mut history = Pencil::default();
        let first = history.put(1, None, 1);
        let second = history.put(1, Some(first), 2);
        history.get(2, &[(second, dot(2))]);
        let third = history.put_fails(2, Some(3), Effect::Unknown);
        history.get(2, &[(third, dot(3))]);
        history.delete(3, Some(5), 4);
        history.all_hold(alive, 4);
        history
    };
    check(&history(&[]), &[]);
    check(&history(&[(1, dot(1))]), &[Promise::NoResurrection]);
    check(&history(&[(4, dot(3))]), &[Promise::NoResurrection]);
}

/// What was replaced is not seen by a read that had to see the replacement, nor by anybody beside it.
#[test]
fn no_resurrection_in_reads() {
    let history = |with: Levels, values: &[_]| {
        let mut history = Pencil::default();
        let first = history.put(1, None, 1);
        history.put(1, Some(first), 2);
        history.with(with).get(2, values);
        history
    };
    check(&history(QUORUM, &[(2, dot(2))]), &[]);
    check(&history(ONE, &[(1, dot(1))]), &[]); // it may be late
    let both = [Promise::NoResurrection, Promise::ReadsSeeWrites];
    check(&history(QUORUM, &[(1, dot(1))]), &both);
    check(&history(ONE, &[(1, dot(1)), (2, dot(2))]), &[Promise::NoResurrection]);
}

/// No two writes of a key have one event, and no answered write has two. One that was never answered may have been carried
/// out twice.
#[test]
fn dots_unique() {
    let mut honest = Pencil::default();
    honest.put(1, None, 1);
    honest.put_fails(1, None, Effect::Unknown);
    honest.get(1, &[(1, dot(1)), (2, dot(2)), (2, dot(3))]);
    check(&honest, &[]);

    let mut twice = Pencil::default();
    twice.put(1, None, 1);
    twice.put(1, None, 1);
    check(&twice, &[Promise::DotsUnique]);

    let mut two_events = Pencil::default();
    two_events.put(1, None, 1);
    two_events.get(1, &[(1, dot(2))]);
    check(&two_events, &[Promise::DotsUnique]);

    let mut of_a_delete = Pencil::default();
    let read = of_a_delete.get(1, &[]);
    of_a_delete.delete(1, Some(read), 1);
    of_a_delete.put_fails(1, None, Effect::Unknown);
    of_a_delete.get(1, &[(3, dot(1))]);
    check(&of_a_delete, &[Promise::DotsUnique]);
}

/// `not applied` is never wrong, whether the value is seen before or after that was said.
#[test]
fn errors_honest() {
    let history = |effect| {
        let mut history = Pencil::default();
        history.put_fails(1, None, effect);
        history.with(ONE).get(1, &[(1, dot(1))]);
        history
    };
    check(&history(Effect::Unknown), &[]);
    check(&history(Effect::NotApplied), &[Promise::ErrorsHonest]);

    let mut before = Pencil::default();
    let put = before.begin(1, What::Put, None);
    before.with(ONE).get(2, &[(put, dot(1))]);
    before.end(put, Reply::Failed { effect: Effect::NotApplied, code: "refused".into() });
    check(&before, &[Promise::ErrorsHonest]);

    let mut on_disk = Pencil::default();
    on_disk.put_fails(1, None, Effect::NotApplied);
    check(on_disk.all_hold(&[(1, dot(1))], 1), &[Promise::ErrorsHonest]);
}

/// A read of a quorum sees what a quorum has acknowledged before it began, if no fallback and nothing unsynced was counted.
#[test]
fn reads_see_writes() {
    let history = |write: Levels, read: Levels| {
        let mut history = Pencil::default();
        history.with(write).put(1, None, 1);
        history.with(read).get(2, &[]);
        history
    };
    check(&history(QUORUM, QUORUM), &[Promise::ReadsSeeWrites]);
    check(&history(ONE, QUORUM), &[]);
    check(&history(QUORUM, SLOPPY), &[]);
    check(&history(SLOPPY, QUORUM), &[]);
    check(&history(Levels { durable: 1, ..QUORUM }, QUORUM), &[]);
    let of_one = Levels { n: 1, ..ONE };
    check(&history(of_one, of_one), &[Promise::ReadsSeeWrites]);
    check(&history(of_one, QUORUM), &[]); // the read's two owners may be others

    let mut begun_before = Pencil::default();
    let read = begun_before.begin(2, What::Get, None);
    begun_before.put(1, None, 1);
    begun_before.end(read, Reply::Found { values: vec![], context: true });
    check(&begun_before, &[]);
}

/// A write under way may have replaced what must be seen, unless it turns out that it was not applied.
#[test]
fn reads_see_writes_unless_replaced() {
    for (effect, promises) in [
        (Effect::Unknown, &[][..]),
        (Effect::Applied(1), &[]),
        (Effect::NotApplied, &[Promise::ReadsSeeWrites]),
    ] {
        let mut history = Pencil::default();
        let first = history.put(1, None, 1);
        let read = history.begin(2, What::Get, None);
        let second = history.begin(1, What::Put, Some(first));
        history.end(read, Reply::Found { values: vec![], context: true });
        history.end(second, Reply::Failed { effect, code: "quorum lost".into() });
        check(&history, promises);
    }
}

/// After a blocking read of a quorum nobody who reads a quorum sees less.
#[test]
fn reads_see_what_blocking_reads_saw() {
    for (blocking, promises) in [(false, &[][..]), (true, &[Promise::ReadsSeeWrites])] {
        let mut history = Pencil::default();
        history.put_fails(1, None, Effect::Unknown);
        history.with(Levels { blocking, ..QUORUM }).get(2, &[(1, dot(1))]);
        history.with(QUORUM).get(3, &[]);
        check(&history, promises);
    }
}

/// What the recorder says of a receipt is a finding.
#[test]
fn receipts_true() {
    let history = |untrue: Option<&str>| {
        let mut history = Pencil::default();
        let put = history.begin(1, What::Put, None);
        let untrue = untrue.map(str::to_owned);
        history.end(put, Reply::Stored { dot: dot(1), context: true, untrue });
        history
    };
    check(&history(None), &[]);
    check(&history(Some("shows too few seats")), &[Promise::ReceiptsTrue]);
}

/// In the end every owner holds the same and can read it, nobody else holds anything, and no hint is left.
#[test]
fn convergence() {
    let history = |change: &dyn Fn(&mut Vec<Event>)| {
        let mut history = Pencil::default();
        let first = history.put(1, None, 1);
        history.put(1, Some(first), 2);
        history.put(1, None, 3);
        history.all_hold(&[(2, dot(2)), (3, dot(3))], 3);
        history.events.push(Event::Hints { node: 1, count: 0 });
        change(&mut history.events);
        history
    };
    let only = [Promise::Convergence];
    let both = [(2, dot(2)), (3, dot(3))];
    let last_held = |events: &mut Vec<Event>, held| *events.iter_mut().nth_back(1).unwrap() = held;
    check(&history(&|_| {}), &[]);
    check(&history(&|events| events.push(Event::Hints { node: 2, count: 1 })), &only);
    // one owner is a write behind, or knows an event less
    check(&history(&|events| last_held(events, Event::Held(held(3, &both[..1], 3)))), &only);
    check(&history(&|events| last_held(events, Event::Held(held(3, &both, 4)))), &only);
    // it cannot be read, or the owner holds nothing, or it is held by somebody else too
    let mut damaged = held(3, &[], 0);
    damaged.readable = false;
    check(&history(&|events| last_held(events, Event::Held(damaged.clone()))), &only);
    let mut stray = held(4, &both, 3);
    stray.owner = false;
    check(&history(&|events| events.push(Event::Held(stray.clone()))), &only);
    // an owner has never heard of it
    check(&history(&|events| last_held(events, Event::Held(held(3, &[], 0)))), &only);
    // everybody holds a value whose event nobody knows
    let unknown = |events: &mut Vec<Event>| {
        for event in events.iter_mut() {
            if let Event::Held(held) = event {
                held.values.push((2, (9, 1, 1)));
            }
        }
    };
    assert!(broken(&verdict(&history(&unknown).events)).contains(&Promise::Convergence));
}

/// A key that was written for certain and of which nobody has a record is missed.
#[test]
fn convergence_of_a_key_that_nobody_has() {
    let mut history = Pencil::default();
    let first = history.put(1, None, 1);
    history.delete(1, Some(first), 2);
    history.settled();
    check(&history, &[Promise::EventsKnown, Promise::Convergence]);
}

/// Of a history without its end nothing is said that only the end can show.
#[test]
fn without_its_end_nothing_is_lost() {
    let mut history = Pencil::default();
    history.put(1, None, 1);
    let verdict = verdict(&history.events);
    assert!(verdict.is_clean() && !verdict.is_settled);
    assert_eq!((verdict.figures.puts, verdict.figures.acknowledged), (1, 1));
}

/// All violations are counted, a hundred of a kind are kept.
#[test]
fn violations_are_counted_beyond_those_that_are_kept() {
    let mut history = Pencil::default();
    for counter in 1..=250 {
        history.put(1, None, counter);
    }
    let verdict = verdict(&history.all_hold(&[], 250).events);
    assert_eq!((verdict.violations.len(), verdict.not_shown()), (100, 150));
}

/// What no recorder can have heard is refused, and says why.
#[test]
fn nonsense_is_refused() {
    let refused = |write: &dyn Fn(&mut Pencil)| {
        let mut history = Pencil::default();
        history.put(1, None, 1);
        write(&mut history);
        let mut judge = Judge::new();
        history.events.iter().find_map(|event| judge.hear(event).err()).expect("nonsense")
    };
    let stored = Reply::Stored { dot: dot(1), context: true, untrue: None };
    assert_eq!(refused(&|h| h.end(1, stored.clone())), Nonsense::AnsweredTwice(1));
    assert_eq!(refused(&|h| h.end(2, stored.clone())), Nonsense::NotBegun(2));
    let read_is_stored = |history: &mut Pencil| {
        let read = history.begin(1, What::Get, None);
        history.end(read, stored.clone());
    };
    assert_eq!(refused(&read_is_stored), Nonsense::WrongAnswer(2));
    let of_a_failure = |history: &mut Pencil| {
        let failed = history.put_fails(1, None, Effect::Unknown);
        history.put(1, Some(failed), 2);
    };
    let why = "was a failure";
    assert_eq!(refused(&of_a_failure), Nonsense::NoContext { op: 3, seen: 2, why });
    assert_eq!(refused(&|h| h.holds(1, &[], 0)), Nonsense::TooEarly("what a disk holds"));
    let after_the_end = |history: &mut Pencil| {
        history.settled();
        history.begin(1, What::Get, None);
    };
    assert_eq!(refused(&after_the_end), Nonsense::TooLate("the beginning of an operation"));
}

/// What cannot follow is refused with its line, too.
#[test]
fn nonsense_in_a_file_names_the_line() {
    let mut file = Vec::new();
    let mut history = Pencil::default();
    history.put(1, None, 1);
    history.end(7, Reply::Silence);
    for event in &history.events {
        atoll_check::write_event(&mut file, event).expect("memory");
    }
    let mut judge = Judge::new();
    let error = judge.hear_file(&file[..]).unwrap_err();
    assert_eq!(error.to_string(), "line 3: operation 7 is spoken of before it began");
    assert!(judge.keys() == ["a"] && !judge.is_settled());
}

/// A file is read back as it was written, and an error names its line.
#[test]
fn files_name_the_line() {
    let mut history = Pencil::default();
    history.put(1, None, 1);
    history.all_hold(&[(1, dot(1))], 1);
    let mut file = Vec::new();
    for event in &history.events {
        atoll_check::write_event(&mut file, event).expect("memory");
    }
    let read: Result<Vec<Event>, BadLine> = atoll_check::read_history(&file[..]).collect();
    assert_eq!(read.expect("our own lines"), history.events);

    file.extend(b"\n{\"begin\":7}\n");
    let error = atoll_check::read_history(&file[..]).find_map(Result::err).expect("a bad line");
    assert!(error.to_string().starts_with("line 8 is no event"), "{error}");
}
