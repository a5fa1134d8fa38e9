//! What happened around a violation: the operations of its key, in order, as a person reads them.
//!
//! ```text
//!       3.104212 s  session 4  put 812, after 790, w=2 dw=2      stored as n1:0:77, after 3.4 ms
//!       3.110007 s  fault: n2 is killed
//!   >   3.111930 s  session 9  get 815, r=2                      found 790 (n1:0:71), after 1.2 ms
//! ```
//!
//! Those that the violation names are marked, and shown with a few before and after them. Faults stand between the operations,
//! whatever key they met.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    history::{
        Dot, Effect, Event, Held, Levels, Op, Reply, What,
        kinds::{Asked, Deed, Keeps, Shown, Told, Touch},
    },
    verdict::Violation,
};

/// The operations around a violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// What it is about, in words; the key first.
    pub about: String,
    /// In order.
    pub lines: Vec<String>,
}

/// Operations of the key that are shown before and after each that is marked.
const AROUND: usize = 6;

/// Of a violation that names no operation, the last ones are shown.
const LAST: usize = 20;

/// What is known of one moment of a history.
struct Moment {
    at_us: u64,
    op: Option<Op>,
    says: String,
    answer: Option<String>,
}

impl Window {
    /// The window of this violation in its history; `events` are all of that. One of a node and no key has an empty one.
    #[must_use]
    pub fn around<E: Borrow<Event>>(
        violation: &Violation,
        events: impl IntoIterator<Item = E>,
    ) -> Window {
        let mut gathered = Gathered::new(violation);
        for event in events {
            gathered.hear(event.borrow());
        }
        gathered.window()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.about)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// What belongs to one key, while a history is read.
struct Gathered<'v> {
    violation: &'v Violation,
    moments: Vec<Moment>,
    /// Where an operation stands in there.
    places: BTreeMap<Op, usize>,
    end: Vec<String>,
}

impl<'v> Gathered<'v> {
    fn new(violation: &'v Violation) -> Self {
        let (moments, places, end) = (Vec::new(), BTreeMap::new(), Vec::new());
        Gathered { violation, moments, places, end }
    }

    /// A violation in a place of a map names the key and the place.
    fn is_about(&self, key: &str) -> bool {
        let about = self.violation.key.as_deref().and_then(|about| about.strip_prefix(key));
        about.is_some_and(|place| place.is_empty() || place.starts_with(" at "))
    }

    fn hear(&mut self, event: &Event) {
        match event {
            Event::Begin { op, at_us, session, key, what, seen, with } if self.is_about(key) => {
                self.begins(*op, *at_us, question(*op, *session, *what, *seen, with));
            }
            Event::End { op, at_us, reply } => self.ends(*op, *at_us, || answer(reply)),
            Event::Asked(asked) if self.is_about(&asked.key) => {
                self.begins(asked.op, asked.at_us, asks(asked));
            }
            Event::Answered(answered) => {
                self.ends(answered.op, answered.at_us, || tells(&answered.reply));
            }
            Event::Exempt { op, why } if self.places.contains_key(op) => {
                let place = self.places[op];
                self.moments[place].says += &format!(" (excused: {why})");
            }
            Event::Fault { at_us, says, .. } => {
                let says = format!("fault: {says}");
                self.moments.push(Moment { at_us: *at_us, op: None, says, answer: None });
            }
            Event::Held(held) if self.is_about(&held.key) => self.end.push(holds(held)),
            Event::Keeps(keeps) if self.is_about(&keeps.key) => self.end.push(keeps_what(keeps)),
            Event::Begin { .. }
            | Event::Asked(_)
            | Event::Exempt { .. }
            | Event::Held(_)
            | Event::Keeps(_)
            | Event::Settled { .. }
            | Event::Hints { .. }
            | Event::Format(_)
            | Event::InSession { .. } => {}
        }
    }

    fn begins(&mut self, op: Op, at_us: u64, says: String) {
        self.places.insert(op, self.moments.len());
        self.moments.push(Moment { at_us, op: Some(op), says, answer: None });
    }

    fn ends(&mut self, op: Op, at_us: u64, answer: impl FnOnce() -> String) {
        if let Some(place) = self.places.get(&op) {
            let moment = &mut self.moments[*place];
            let took = at_us.saturating_sub(moment.at_us);
            let (ms, us) = (took / 1000, took % 1000 / 100);
            moment.answer = Some(format!("{}, after {ms}.{us} ms", answer()));
        }
    }

    fn window(self) -> Window {
        let Violation { promise, key, operations, says } = self.violation;
        let about = match key {
            Some(key) => format!("key {key}: {promise}: {says}"),
            None => format!("{promise}: {says}"),
        };
        if key.is_none() {
            return Window { about, lines: Vec::new() };
        }
        let marked: BTreeSet<Op> = operations.iter().copied().collect();
        let shown = self.shown(&marked);
        let mut lines = Vec::new();
        let mut left_out = 0;
        for (place, moment) in self.moments.iter().enumerate() {
            if !shown.contains(&place) {
                left_out += u64::from(moment.op.is_some());
                continue;
            }
            if left_out > 0 {
                lines.push(format!("    ... {left_out} more operations of this key ..."));
                left_out = 0;
            }
            lines.push(moment.line(moment.op.is_some_and(|op| marked.contains(&op))));
        }
        if left_out > 0 {
            lines.push(format!("    ... {left_out} more operations of this key ..."));
        }
        lines.extend(self.end.iter().map(|line| format!("    in the end: {line}")));
        Window { about, lines }
    }

    /// Which moments: those around the marked ones, and what was broken between the first and the last of them.
    fn shown(&self, marked: &BTreeSet<Op>) -> BTreeSet<usize> {
        let of_key: Vec<usize> = self.places.values().copied().collect();
        let mut shown = BTreeSet::new();
        let is_marked =
            |place: &usize| self.moments[*place].op.is_some_and(|op| marked.contains(&op));
        let marked = of_key.iter().enumerate().filter(|(_, place)| is_marked(place));
        let mut ranges: Vec<(usize, usize)> =
            marked.map(|(index, _)| (index.saturating_sub(AROUND), index + AROUND)).collect();
        if ranges.is_empty() {
            ranges.push((of_key.len().saturating_sub(LAST), of_key.len()));
        }
        for (from, to) in ranges {
            let some = &of_key[from.min(of_key.len())..(to + 1).min(of_key.len())];
            let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
            shown.extend(some);
            shown.extend((*first..*last).filter(|place| self.moments[*place].op.is_none()));
        }
        shown
    }
}

impl Moment {
    fn line(&self, is_marked: bool) -> String {
        let mark = if is_marked { '>' } else { ' ' };
        let (seconds, rest) = (self.at_us / 1_000_000, self.at_us % 1_000_000);
        let answer = match (&self.answer, self.op) {
            (Some(answer), _) => format!("  {answer}"),
            (None, Some(_)) => "  never answered".to_owned(),
            (None, None) => String::new(),
        };
        format!("{mark} {seconds:>4}.{rest:06} s  {}{answer}", self.says)
    }
}

fn question(op: Op, session: u32, what: What, seen: Option<Op>, with: &Levels) -> String {
    let what = match what {
        What::Put => "put",
        What::Delete => "delete",
        What::Get => "get",
    };
    let seen = match (what, seen) {
        ("get", _) => String::new(),
        (_, Some(seen)) => format!(" over what {seen} saw"),
        (_, None) => " over nothing".to_owned(),
    };
    format!("session {session:<3} {what} {op}{seen}, {}", levels(with, what == "get"))
}

fn levels(with: &Levels, reads: bool) -> String {
    let Levels { n, need, owners, durable, blocking } = with;
    match (reads, blocking) {
        (true, false) => format!("n={n} r={need} pr={owners}:"),
        (true, true) => format!("n={n} r={need} pr={owners} blocking:"),
        (false, _) => format!("n={n} w={need} pw={owners} dw={durable}:"),
    }
}

fn answer(reply: &Reply) -> String {
    match reply {
        Reply::Stored { dot, untrue, .. } => {
            let untrue = untrue.as_ref().map(|what| format!(", but {what}"));
            format!("stored as {}{}", event(*dot), untrue.unwrap_or_default())
        }
        Reply::Found { values, .. } if values.is_empty() => "found nothing".into(),
        Reply::Found { values, .. } => format!("found {}", pairs(values)),
        Reply::Failed { effect, code } => failed(*effect, code),
        Reply::Silence => "no answer".into(),
    }
}

fn asks(asked: &Asked) -> String {
    let Asked { op, session, touches, context, with, .. } = asked;
    if touches.is_empty() {
        return format!("session {session:<3} get {op}, {}", levels(with, true));
    }
    let deeds: Vec<String> = touches.iter().map(deed).collect();
    let context = match context {
        Some(context) => format!(" over {}", spans(context)),
        None => String::new(),
    };
    format!(
        "session {session:<3} change {op}: {}{context}, {}",
        deeds.join("; "),
        levels(with, false)
    )
}

fn deed(touch: &Touch) -> String {
    let deed = match &touch.deed {
        Deed::Count { by, sequence, total } => format!("count to {total} (#{sequence} of {by})"),
        Deed::Once(by) => format!("count {by:+}"),
        Deed::Add(elements) => format!("add {}", elements.join(" ")),
        Deed::Remove(elements) => format!("remove {}", elements.join(" ")),
        Deed::Enable => "enable".into(),
        Deed::Disable => "disable".into(),
        Deed::Raise(number) => format!("raise to {number}"),
        Deed::Stamp | Deed::Put => "put".into(),
        Deed::Clear => "clear".into(),
    };
    if touch.place.is_empty() { deed } else { format!("{} {deed}", touch.place) }
}

fn tells(told: &Told) -> String {
    match told {
        Told::Stored { dot } => format!("stored as {}", event(*dot)),
        Told::Found { shown, context } => {
            format!("found {}, knows {}", places(shown), spans(context))
        }
        Told::Failed { effect, code } => failed(*effect, code),
        Told::Silence => "no answer".into(),
    }
}

fn failed(effect: Effect, code: &str) -> String {
    match effect {
        Effect::NotApplied => format!("failed, not applied: {code}"),
        Effect::Applied(count) => format!("failed, applied on {count}: {code}"),
        Effect::Unknown => format!("failed, unknown: {code}"),
    }
}

fn holds(held: &Held) -> String {
    let who = who(held.node, held.owner);
    match (held.readable, held.values.is_empty()) {
        (false, _) => format!("{who} cannot read its record"),
        (true, true) => format!("{who} holds nothing, knows {}", spans(&held.context)),
        (true, false) => {
            format!("{who} holds {}, knows {}", pairs(&held.values), spans(&held.context))
        }
    }
}

fn keeps_what(keeps: &Keeps) -> String {
    let who = who(keeps.node, keeps.owner);
    match keeps.readable {
        false => format!("{who} cannot read its record"),
        true => format!("{who} holds {}, knows {}", places(&keeps.shown), spans(&keeps.context)),
    }
}

fn who(node: u32, is_owner: bool) -> String {
    if is_owner { format!("n{node}") } else { format!("n{node}, no owner,") }
}

fn pairs(values: &[(u64, Dot)]) -> String {
    let one = |(value, dot): &(u64, Dot)| format!("{value} ({})", event(*dot));
    values.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn places(shown: &[(String, Shown)]) -> String {
    let one = |(place, shown): &(String, Shown)| {
        let shown = match shown {
            Shown::Number(number) | Shown::Greatest(number) => number.to_string(),
            Shown::Elements(elements) => format!("{{{}}}", elements.join(" ")),
            Shown::IsOn(is_on) => if *is_on { "on" } else { "off" }.to_owned(),
            Shown::Latest(op) => format!("value {op}"),
            Shown::Values(ops) => format!("values {ops:?}"),
        };
        if place.is_empty() { shown } else { format!("{place} {shown}") }
    };
    match shown {
        [] => "nothing".into(),
        shown => shown.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

fn event((node, incarnation, counter): Dot) -> String {
    format!("n{node}:{incarnation}:{counter}")
}

fn spans(known: &[(u32, u32, u64, u64)]) -> String {
    let one = |(node, incarnation, after, up_to): &(u32, u32, u64, u64)| {
        format!("n{node}:{incarnation}:{}-{up_to}", after + 1)
    };
    match known {
        [] => "nothing".into(),
        known => known.iter().map(one).collect::<Vec<_>>().join(" "),
    }
}
