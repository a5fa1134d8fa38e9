//! What is shown around a violation.

use atoll_check::{
    Event, Reply, What, Window,
    history::kinds::{Answered, Asked, Deed, Keeps, Shown, Told, Touch},
};

use crate::{
    pencil::{Pencil, QUORUM, dot},
    verdict,
};

fn window(events: &[Event]) -> Window {
    let verdict = verdict(events);
    Window::around(verdict.first().expect("something is wrong"), events)
}

/// Fifty writes of which one is gone: that one is marked, with a few before and after it, the rest is counted; other keys are
/// left out, faults between the operations are not, and what the owners hold comes last.
#[test]
fn the_lost_write_and_its_neighbours() {
    let mut history = Pencil::default();
    let mut lost = 0;
    for counter in 1..=50 {
        let put = history.put(1, None, counter);
        if counter == 30 {
            lost = put;
            let (kind, says) = (Some("kill".into()), "kill n2 for 3.0 s".into());
            history.events.push(Event::Fault { at_us: 7_000_000, kind, says });
        }
    }
    let held: Vec<_> = (1..=50).filter(|op| *op != lost).map(|op| (op, dot(op))).collect();
    history.all_hold(&held, 50);
    let mut other = Pencil { last: 1000, ..Pencil::default() };
    other.put(9, None, 1000);
    let mut events = history.events.clone();
    for mut event in other.events {
        if let Event::Begin { key, .. } = &mut event {
            *key = "another".into();
        }
        let settled = events.iter().position(|event| matches!(event, Event::Settled { .. }));
        events.insert(settled.expect("it is over"), event);
    }

    let Window { about, lines } = window(&events);
    assert!(about.starts_with("key a: no acknowledged write is lost: the value is"), "{about}");
    let marked: Vec<&String> = lines.iter().filter(|line| line.starts_with('>')).collect();
    assert_eq!(marked.len(), 1, "{lines:#?}");
    assert!(marked[0].contains("put 30 over nothing, n=3 w=2 pw=2 dw=2:"), "{}", marked[0]);
    assert!(marked[0].contains("stored as n1:1:30, after"), "{}", marked[0]);
    let at = |words: &str| {
        let found = lines.iter().position(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("no {words} in {lines:#?}"))
    };
    let order = ["... 23 more", "put 24 ", "put 30 ", "fault: kill n2", "put 36 ", "... 14 more"];
    assert!(order.map(at).is_sorted(), "{lines:#?}");
    assert_eq!(at("in the end: n1 holds 1 (n1:1:1)"), lines.len() - 3);
    assert!(!lines.iter().any(|line| line.contains("1001")), "{lines:#?}");
}

/// An operation that was never answered says so, and a context is told by where it came from.
#[test]
fn questions_and_answers_in_words() {
    let mut history = Pencil::default();
    let put = history.put(1, None, 1);
    history.get(2, &[(put, dot(1))]);
    let silent = history.begin(3, What::Put, Some(put));
    history.end(silent, Reply::Silence);
    history.begin(4, What::Get, None);
    history.get(5, &[(77, dot(9))]); // nobody wrote that
    let lines = window(&history.events).lines;
    for (line, words) in lines.iter().zip([
        ["session 1   put 1 over nothing", "stored as n1:1:1"],
        ["session 2   get 2, n=3 r=2 pr=2:", "found 1 (n1:1:1)"],
        ["session 3   put 3 over what 1 saw", "no answer"],
        ["session 4   get 4,", "never answered"],
        ["session 5   get 5,", "found 77 (n1:1:9)"],
    ]) {
        assert!(words.iter().all(|words| line.contains(words)), "{words:?} in {lines:#?}");
    }
}

/// Of a value that is no register the place in it leads to the key, and deeds are told in words.
#[test]
fn other_kinds_in_words() {
    let key = "torture-map/m";
    let deed = Deed::Add(vec!["x".into(), "y".into()]);
    let touches = vec![Touch { place: "tags".into(), deed }];
    let (session, at_us, with) = (1, 1_000_000, QUORUM);
    let asked = Asked { op: 1, at_us, session, key: key.into(), touches, context: None, with };
    let stored = Told::Stored { dot: dot(1) };
    let keeps = |node| {
        let (owner, readable, digest) = (true, true, 1);
        let shown = vec![("tags".into(), Shown::Elements(vec!["x".into()]))];
        let context = vec![(1, 1, 0, 1)];
        Event::Keeps(Keeps { node, key: key.into(), owner, readable, digest, shown, context })
    };
    let events = [
        Event::Format(3),
        Event::Asked(asked),
        Event::Answered(Answered { op: 1, at_us: 1_004_200, reply: stored }),
        Event::Settled { at_us: 2_000_000 },
        keeps(1),
        keeps(2),
    ];
    let Window { about, lines } = window(&events);
    assert!(
        about.starts_with("key torture-map/m at tags: no acknowledged write is lost"),
        "{about}"
    );
    assert_eq!(
        lines,
        [
            ">    1.000000 s  session 1   change 1: tags add x y, n=3 w=2 pw=2 dw=2:  stored as n1:1:1, after 4.2 ms",
            "    in the end: n1 holds tags {x}, knows n1:1:1-1",
            "    in the end: n2 holds tags {x}, knows n1:1:1-1",
        ]
    );
}

/// What was broken is counted by kind and judged by nobody; what was healed is not counted.
#[test]
fn faults_are_counted() {
    let mut history = Pencil::default();
    let fault = |kind: Option<&str>| {
        let kind = kind.map(str::to_owned);
        Event::Fault { at_us: 1, kind, says: "n2".into() }
    };
    history.events.extend([Some("kill"), None, Some("kill"), Some("wipe")].map(fault));
    let verdict = verdict(&history.events);
    assert!(verdict.is_clean());
    let counts: Vec<_> = verdict.faults.into_iter().collect();
    assert_eq!(counts, [("kill".to_owned(), 2), ("wipe".to_owned(), 1)]);
}
