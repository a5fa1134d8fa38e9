//! Each kind's judge, on the smallest honest history and on the same with one lie in it.

use atoll_check::{
    Dot, Effect, Event, Op, Promise, Verdict,
    history::kinds::{Answered, Asked, Deed, Keeps, Known, Shown, Told, Touch},
};

use crate::{broken, pencil::QUORUM, verdict};

/// Writes a history down, about key `k`.
#[derive(Default)]
struct Pencil {
    events: Vec<Event>,
    last: Op,
    kept: Vec<Event>,
}

fn dot(counter: u64) -> Dot {
    (1, 1, counter)
}

/// These events of node 1.
fn seen(counters: &[u64]) -> Known {
    counters.iter().map(|counter| (1, 1, counter - 1, *counter)).collect()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn add(names: &[&str]) -> Deed {
    Deed::Add(strings(names))
}

fn remove(names: &[&str]) -> Deed {
    Deed::Remove(strings(names))
}

fn elements(names: &[&str]) -> Shown {
    Shown::Elements(strings(names))
}

fn count(sequence: u64, total: i64) -> Deed {
    Deed::Count { by: 7, sequence, total }
}

impl Pencil {
    fn ask(&mut self, session: u32, touches: Vec<Touch>, context: Option<Known>) -> Op {
        self.last += 1;
        let (op, at_us) = (self.last, self.events.len() as u64);
        let (key, with) = ("k".to_owned(), QUORUM);
        self.events.push(Event::Asked(Asked { op, at_us, session, key, touches, context, with }));
        op
    }

    fn answer(&mut self, op: Op, reply: Told) {
        let at_us = self.events.len() as u64;
        self.events.push(Event::Answered(Answered { op, at_us, reply }));
    }

    fn at(place: &str, deed: Deed) -> Vec<Touch> {
        vec![Touch { place: place.to_owned(), deed }]
    }

    /// An acknowledged change with event `counter` of node 1.
    fn change(&mut self, deed: Deed, context: Option<Known>, counter: u64) -> Op {
        self.change_at("", 1, deed, context, counter)
    }

    fn change_at(
        &mut self,
        place: &str,
        session: u32,
        deed: Deed,
        context: Option<Known>,
        counter: u64,
    ) -> Op {
        let op = self.ask(session, Self::at(place, deed), context);
        self.answer(op, Told::Stored { dot: dot(counter) });
        op
    }

    /// A change that did not succeed.
    fn fails(&mut self, deed: Deed, context: Option<Known>, effect: Effect) -> Op {
        let op = self.ask(1, Self::at("", deed), context);
        self.answer(op, Told::Failed { effect, code: "quorum lost".into() });
        op
    }

    fn read(&mut self, session: u32, shown: Option<Shown>, knows: &[u64]) -> Op {
        let op = self.ask(session, Vec::new(), None);
        let shown = shown.into_iter().map(|shown| (String::new(), shown)).collect();
        self.answer(op, Told::Found { shown, context: seen(knows) });
        op
    }

    /// An owner holds this in the end.
    fn keeps(&mut self, node: u32, place: &str, shown: Option<Shown>, knows: &[u64]) {
        let shown: Vec<_> = shown.into_iter().map(|shown| (place.to_owned(), shown)).collect();
        let (key, context) = ("k".to_owned(), seen(knows));
        let keeps = Keeps { node, key, owner: true, readable: true, digest: 1, shown, context };
        self.kept.push(Event::Keeps(keeps));
    }

    fn verdict(&self) -> Verdict {
        let settled = Event::Settled { at_us: self.events.len() as u64 };
        let mut events = vec![Event::Format(2), Event::InSession { session: 9 }];
        events.extend(self.events.iter().cloned());
        events.push(settled);
        events.extend(self.kept.iter().cloned());
        verdict(&events)
    }
}

/// The history as `tell` writes it, with what three owners hold in the end; the promises that were broken.
fn judged(tell: impl FnOnce(&mut Pencil), end: Option<Shown>, knows: &[u64]) -> Vec<Promise> {
    judged_at("", tell, end, knows)
}

fn judged_at(
    place: &str,
    tell: impl FnOnce(&mut Pencil),
    end: Option<Shown>,
    knows: &[u64],
) -> Vec<Promise> {
    let mut pencil = Pencil::default();
    tell(&mut pencil);
    (1..=3).for_each(|node| pencil.keeps(node, place, end.clone(), knows));
    broken(&pencil.verdict())
}

#[test]
fn a_counter_counts_what_was_counted_once() {
    let tell = |pencil: &mut Pencil| {
        pencil.change(count(1, 5), None, 1);
        pencil.change(Deed::Once(2), None, 2);
        pencil.fails(count(2, 8), None, Effect::Unknown);
        pencil.fails(Deed::Once(10), None, Effect::Unknown);
        pencil.fails(Deed::Once(100), None, Effect::NotApplied);
    };
    // what is unknown may be there or not
    for value in [7, 10, 17, 20] {
        assert_eq!(judged(tell, Some(Shown::Number(value)), &[1, 2]), []);
    }
    for lie in [6, 0, 21, 107] {
        let broken = judged(tell, Some(Shown::Number(lie)), &[1, 2]);
        assert_eq!(broken, [Promise::CountedOnce], "{lie}");
    }
    // the session's next change makes the unknown one certain
    let tell = |pencil: &mut Pencil| {
        pencil.fails(count(1, 5), None, Effect::Unknown);
        pencil.change(count(2, 6), None, 2);
        pencil.change(count(2, 6), None, 3); // repeated elsewhere
    };
    assert_eq!(judged(tell, Some(Shown::Number(6)), &[2, 3]), []);
    for lie in [1, 7, 12] {
        assert_eq!(judged(tell, Some(Shown::Number(lie)), &[2, 3]), [Promise::CountedOnce]);
    }
}

#[test]
fn a_reset_takes_what_it_knew() {
    let tell = |pencil: &mut Pencil| {
        pencil.change(count(1, 5), None, 1);
        pencil.change(Deed::Clear, Some(seen(&[1])), 2);
        pencil.change(count(2, 7), None, 3);
    };
    assert_eq!(judged(tell, Some(Shown::Number(2)), &[1, 2, 3]), []);
    for lie in [7, 3] {
        assert_eq!(judged(tell, Some(Shown::Number(lie)), &[1, 2, 3]), [Promise::CountedOnce]);
    }
}

#[test]
fn readers_of_a_counter_are_held_between_bounds() {
    let check = |session: u32, first: i64, second: i64, expected: &[Promise]| {
        let tell = |pencil: &mut Pencil| {
            pencil.change(count(1, 5), None, 1);
            pencil.read(session, Some(Shown::Number(first)), &[1]);
            pencil.read(session, Some(Shown::Number(second)), &[1]);
        };
        assert_eq!(judged(tell, Some(Shown::Number(5)), &[1]), expected, "{first}, {second}");
    };
    check(9, 5, 5, &[]);
    check(1, 5, 0, &[]); // promised to sessions alone
    check(9, 5, 0, &[Promise::MonotonicReads]);
    check(1, 6, 5, &[Promise::CountedOnce]);
}

#[test]
fn additions_win_over_removals_that_have_not_seen_them() {
    let tell = |pencil: &mut Pencil| {
        pencil.change(add(&["x", "y"]), None, 1);
        pencil.change(add(&["x"]), None, 2);
        pencil.change(remove(&["x", "y"]), Some(seen(&[1])), 3);
    };
    // the second addition may have stood in the place of the first and is not seen by the removal
    assert_eq!(judged(tell, Some(elements(&["x"])), &[1, 2, 3]), []);
    assert_eq!(judged(tell, Some(elements(&[])), &[1, 2, 3]), [Promise::NothingLost]);
    let back = judged(tell, Some(elements(&["x", "y"])), &[1, 2, 3]);
    assert_eq!(back, [Promise::NoResurrection]);
    let known = judged(tell, Some(elements(&["x"])), &[1, 2]);
    assert_eq!(known, [Promise::EventsKnown]);
}

/// A removal that says nothing reads first: what was acknowledged before it began is gone, what began after it ended is not,
/// and of the rest nobody can say.
#[test]
fn a_removal_without_context_takes_what_it_may_have_read() {
    let tell = |pencil: &mut Pencil| {
        pencil.change(add(&["old"]), None, 1);
        let beside = pencil.ask(2, Pencil::at("", add(&["beside"])), None);
        pencil.change(remove(&["old", "beside", "new"]), None, 2);
        pencil.answer(beside, Told::Stored { dot: dot(3) });
        pencil.change(add(&["new"]), None, 4);
    };
    for end in [&["beside", "new"][..], &["new"]] {
        assert_eq!(judged(tell, Some(elements(end)), &[1, 2, 3, 4]), []);
    }
    let lost = judged(tell, Some(elements(&["beside"])), &[1, 2, 3, 4]);
    assert_eq!(lost, [Promise::NothingLost]);
    let back = judged(tell, Some(elements(&["new", "old"])), &[1, 2, 3, 4]);
    assert_eq!(back, [Promise::NoResurrection]);
}

#[test]
fn what_nobody_has_added_is_nowhere() {
    let tell = |pencil: &mut Pencil| {
        pencil.change(add(&["x"]), None, 1);
        pencil.fails(add(&["never"]), None, Effect::NotApplied);
        pencil.read(1, Some(elements(&["ghost", "x"])), &[1]);
    };
    assert_eq!(judged(tell, Some(elements(&["x"])), &[1]), [Promise::NoPhantom]);
    let tell = |pencil: &mut Pencil| {
        pencil.change(add(&["x"]), None, 1);
        pencil.fails(add(&["never"]), None, Effect::NotApplied);
    };
    let never = judged(tell, Some(elements(&["never", "x"])), &[1]);
    assert_eq!(never, [Promise::ErrorsHonest]);
}

#[test]
fn a_flag_is_a_set_of_one() {
    let tell = |pencil: &mut Pencil| {
        pencil.change(Deed::Enable, None, 1);
        pencil.change(Deed::Disable, Some(seen(&[1])), 2);
    };
    assert_eq!(judged(tell, Some(Shown::IsOn(false)), &[1, 2]), []);
    assert_eq!(judged(tell, Some(Shown::IsOn(true)), &[1, 2]), [Promise::NoResurrection]);
    let tell = |pencil: &mut Pencil| {
        pencil.change(Deed::Enable, None, 1);
        pencil.change(Deed::Disable, Some(seen(&[])), 2);
    };
    assert_eq!(judged(tell, Some(Shown::IsOn(true)), &[1, 2]), []);
    assert_eq!(judged(tell, Some(Shown::IsOn(false)), &[1, 2]), [Promise::NothingLost]);
}

#[test]
fn the_greatest_is_kept_and_was_put() {
    let tell = |pencil: &mut Pencil| {
        pencil.change(Deed::Raise(5), None, 1);
        pencil.fails(Deed::Raise(8), None, Effect::Unknown);
        pencil.change(Deed::Raise(-2), None, 2);
    };
    for value in [5, 8] {
        assert_eq!(judged(tell, Some(Shown::Greatest(value)), &[1, 2]), []);
    }
    assert_eq!(judged(tell, Some(Shown::Greatest(-2)), &[1, 2]), [Promise::NothingLost]);
    assert_eq!(judged(tell, None, &[1, 2]), [Promise::NothingLost]);
    assert_eq!(judged(tell, Some(Shown::Greatest(6)), &[1, 2]), [Promise::NoPhantom]);
    let tell = |pencil: &mut Pencil| {
        pencil.change_at("", 9, Deed::Raise(5), None, 1);
        pencil.read(9, Some(Shown::Greatest(5)), &[1]);
        pencil.change_at("", 1, Deed::Raise(3), None, 2);
        pencil.read(9, Some(Shown::Greatest(3)), &[1, 2]);
    };
    assert_eq!(judged(tell, Some(Shown::Greatest(5)), &[1, 2]), [Promise::MonotonicReads]);
}

#[test]
fn the_latest_was_written_and_not_replaced_by_who_had_seen_it() {
    let tell = |pencil: &mut Pencil| {
        pencil.change(Deed::Stamp, None, 1);
        pencil.change(Deed::Stamp, None, 2); // concurrent with the first, as far as anybody says
        pencil.change(Deed::Stamp, Some(seen(&[1])), 3);
        pencil.fails(Deed::Stamp, None, Effect::NotApplied);
    };
    for value in [2, 3] {
        assert_eq!(judged(tell, Some(Shown::Latest(value)), &[1, 2, 3]), []);
    }
    let check = |shown, promise| assert_eq!(judged(tell, shown, &[1, 2, 3]), [promise]);
    check(Some(Shown::Latest(1)), Promise::NoResurrection);
    check(Some(Shown::Latest(4)), Promise::ErrorsHonest);
    check(Some(Shown::Latest(77)), Promise::NoPhantom);
    check(None, Promise::NothingLost);
}

/// A field of a map is judged as a value of its kind, and what clears the map clears each field in it.
#[test]
fn fields_of_maps_are_judged_by_their_kinds() {
    let tell = |pencil: &mut Pencil| {
        pencil.change_at("in/tags", 1, add(&["x"]), None, 1);
        pencil.change_at("in/tags", 1, add(&["y"]), None, 2);
        pencil.change_at("in", 1, Deed::Clear, Some(seen(&[1])), 3);
    };
    let end = |names: &[&str]| judged_at("in/tags", tell, Some(elements(names)), &[1, 2, 3]);
    assert_eq!(end(&["y"]), []);
    assert_eq!(end(&["x", "y"]), [Promise::NoResurrection]);
    assert_eq!(judged_at("in/tags", tell, None, &[1, 2, 3]), [Promise::NothingLost]);

    let tell = |pencil: &mut Pencil| {
        pencil.change_at("name", 1, Deed::Put, Some(seen(&[])), 1);
        pencil.change_at("name", 1, Deed::Put, Some(seen(&[])), 2);
        pencil.change_at("name", 1, Deed::Put, Some(seen(&[1])), 3);
    };
    let end =
        |values: &[Op]| judged_at("name", tell, Some(Shown::Values(values.into())), &[1, 2, 3]);
    assert_eq!(end(&[2, 3]), []);
    assert_eq!(end(&[3]), [Promise::NothingLost]);
    assert_eq!(end(&[1, 2, 3]), [Promise::NoResurrection]);
    assert_eq!(end(&[2, 3, 8]), [Promise::NoPhantom]);
}

/// A session is told of all it was told of before, and of its own changes; nobody else is promised that.
#[test]
fn sessions_are_never_told_of_less() {
    let check = |session: u32, knows: [&[u64]; 2], expected: &[Promise]| {
        let tell = |pencil: &mut Pencil| {
            pencil.change_at("", 1, add(&["x"]), None, 1);
            pencil.read(session, Some(elements(&["x"])), knows[0]);
            pencil.change_at("", session, add(&["y"]), None, 2);
            pencil.read(session, Some(elements(&["x", "y"])), knows[1]);
        };
        assert_eq!(judged(tell, Some(elements(&["x", "y"])), &[1, 2]), expected);
    };
    check(9, [&[1], &[1, 2]], &[]);
    check(1, [&[1], &[]], &[]);
    check(9, [&[1], &[2]], &[Promise::MonotonicReads]);
    check(9, [&[1], &[1]], &[Promise::ReadYourWrites]);
    let tell = |pencil: &mut Pencil| {
        pencil.change_at("", 9, add(&["x"]), None, 1);
        pencil.read(9, Some(elements(&[])), &[1]);
    };
    assert_eq!(judged(tell, Some(elements(&["x"])), &[1]), [Promise::ReadYourWrites]);
}

#[test]
fn owners_hold_the_same_in_the_end() {
    let mut pencil = Pencil::default();
    pencil.change(add(&["x"]), None, 1);
    pencil.keeps(1, "", Some(elements(&["x"])), &[1]);
    pencil.keeps(2, "", Some(elements(&["x"])), &[1]);
    assert_eq!(broken(&pencil.verdict()), []);
    let Some(Event::Keeps(keeps)) = pencil.kept.pop() else { panic!("it was put there") };
    let lies: [fn(&mut Keeps); 4] = [
        |keeps| keeps.context.clear(),
        |keeps| keeps.digest = 2,
        |keeps| keeps.owner = false,
        |keeps| keeps.readable = false,
    ];
    for lie in lies {
        let mut told = keeps.clone();
        lie(&mut told);
        pencil.kept.push(Event::Keeps(told));
        assert_eq!(broken(&pencil.verdict()), [Promise::Convergence]);
        pencil.kept.pop();
    }
}

/// A history without a format is read as ever, one of a newer format is not read.
#[test]
fn histories_say_their_format() {
    let mut judge = atoll_check::Judge::new();
    for format in [1, 2, 3] {
        judge.hear(&Event::Format(format)).expect("this one");
    }
    assert!(judge.hear(&Event::Format(4)).is_err());
    let line = r#"{"begin":{"op":1,"at_us":0,"session":1,"key":"a","what":"put","with":{"n":3,"need":2,"owners":2,"durable":2}}}"#;
    judge.hear_file(line.as_bytes()).expect("as ever");
}

/// Twice the history, twice the work.
#[test]
fn judging_is_linear() {
    let steps = |rounds: u64| {
        let mut pencil = Pencil::default();
        for round in 0..rounds {
            let (first, name) = (3 * round + 1, format!("{}", round / 4));
            pencil.change(add(&[&name]), None, first);
            pencil.change(remove(&[&name]), Some(seen(&[first])), first + 1);
            pencil.change(add(&[&name]), None, first + 2);
            pencil.read(9, Some(elements(&[&name])), &[first + 2]);
        }
        let verdict = pencil.verdict();
        assert!(verdict.figures.steps > rounds && !broken(&verdict).contains(&Promise::NoPhantom));
        verdict.figures.steps
    };
    let (once, twice) = (steps(400), steps(800));
    assert!(twice < once * 5 / 2, "{once} and {twice}");
}
