//! Values of all kinds, as this crate keeps them, in the eyes of the oracle: which deeds there are,
//! what operation each is, and what each place shows.

use atoll_antientropy::{
    Context, Dot, Field, FieldChange, Hybrid, Increment, Kind, Operation, Reading, Stamp, State,
};
use bytes::Bytes;

use crate::schemes::{Coordinator, Exact, Knows, Rule, Scheme, Written};
use crate::truth::{Act, Deed, Sort};

/// States of one kind.
pub struct OfKind {
    kind: Kind,
    rules: Exact,
}

impl OfKind {
    pub fn with_all_rules(kind: Kind) -> OfKind {
        OfKind { kind, rules: Exact::with_all_rules() }
    }

    pub fn without(kind: Kind, rule: Rule) -> OfKind {
        OfKind { kind, rules: Exact::without(rule) }
    }

    fn state(&self, state: &Option<State>) -> State {
        state.clone().unwrap_or_else(|| State::unknown(self.kind))
    }
}

/// The places of a map: fields, elements of a field, and the same in a map inside.
const NAME: usize = 0;
const TEA: usize = 1;
const MILK: usize = 2;
const HITS: usize = 3;
const VISITS: usize = 4;
const DEEP_ON: usize = 5;
const DEEP_HITS: usize = 6;

impl Scheme for OfKind {
    type State = Option<State>;
    type Context = Context;
    const DEEDS: u64 = 24;

    /// A put into a register that is a key's value takes nothing away then; elsewhere the
    /// coordinator says what was seen.
    fn may_say_nothing(&self) -> bool {
        self.kind != Kind::Register
    }

    fn places(&self) -> Vec<Sort> {
        use Sort::{Count, Presence, Values};
        match self.kind {
            Kind::Register => vec![Values],
            Kind::Set => vec![Presence, Presence, Presence],
            Kind::Flag => vec![Presence],
            Kind::Counter => vec![Count],
            Kind::Map => vec![Values, Presence, Presence, Count, Count, Presence, Count],
            Kind::Lww | Kind::Max => unreachable!("nothing that a context could lose"),
        }
    }

    fn deed(&self, which: u64) -> Deed {
        use Act::{Add, Once, Put, Session, Take};
        let everywhere =
            |act: fn(Sort) -> Act| self.places().into_iter().map(act).enumerate().collect::<Deed>();
        match (self.kind, which) {
            (Kind::Register, 0..18) => vec![(0, Put)],
            (Kind::Register, _) => vec![(0, Take)],
            (Kind::Set, 0..4) => vec![(0, Add)],
            (Kind::Set, 4..8) => vec![(0, Add), (1, Add)],
            (Kind::Set, 8..11) => everywhere(|_| Add),
            (Kind::Set, 11..17) => vec![(0, Take)],
            (Kind::Set, 17..20) => vec![(1, Take)],
            (Kind::Set, 20..23) => vec![(1, Take), (2, Take)],
            (Kind::Flag, 0..13) => vec![(0, Add)],
            (Kind::Counter, 0..18) => vec![(0, Once)],
            (Kind::Counter, 18..23) => vec![(0, Session(0))],
            (Kind::Map, 0..2) => vec![(NAME, Put)],
            (Kind::Map, 2..4) => vec![(TEA, Add), (HITS, Once)],
            (Kind::Map, 4..6) => vec![(TEA, Add), (MILK, Add), (NAME, Put), (DEEP_ON, Add)],
            (Kind::Map, 6..8) => vec![(TEA, Take), (DEEP_HITS, Once)],
            (Kind::Map, 8..10) => vec![(DEEP_ON, Add), (VISITS, Session(0)), (MILK, Add)],
            (Kind::Map, 10..12) => vec![(HITS, Once)],
            (Kind::Map, 12..14) => vec![(DEEP_HITS, Once), (NAME, Put)],
            (Kind::Map, 14..16) => vec![(HITS, Take), (TEA, Take)],
            (Kind::Map, 16..18) => vec![(NAME, Take), (VISITS, Session(0))],
            (Kind::Map, 18..20) => vec![(TEA, Take), (MILK, Take)], // the whole field
            (Kind::Map, 20..22) => vec![(DEEP_ON, Take), (DEEP_HITS, Take)], // the whole map inside
            _ => everywhere(|_| Take),
        }
    }

    fn write(
        &self,
        by: Coordinator<Option<State>>,
        seen: Option<&Context>,
        deed: &Deed,
        number: usize,
        client: usize,
    ) -> Option<Written<Option<State>, Context>> {
        let own = self.state(by.record);
        let (event, note) = self.rules.event(&by, own.context());
        if seen.is_some_and(|seen| seen.contains(&event.dot())) {
            return None; // a counter given twice, and for once it shows
        }
        let stamp = Stamp { event, at: Hybrid::of(number as u64, 0), wall_ms: 1, operation: 0 };
        let delta = own.change(&self.operation(deed, number, client), seen, &stamp).ok()?;
        let mut reply = seen.cloned().unwrap_or_default();
        reply.add(&event);
        let delta_knows = match self.kind {
            Kind::Register => Knows::Seen,
            _ => Knows::Event,
        };
        Some(Written {
            delta: Some(delta),
            delta_knows,
            note: Some(note),
            reply,
            reply_shows_record: false,
        })
    }

    fn join(&self, state: &mut Option<State>, other: Option<State>) {
        match (&mut *state, other) {
            (Some(state), Some(other)) => state.join(other),
            (None, other) => *state = other,
            (Some(_), None) => {}
        }
    }

    fn context(state: &Option<State>) -> Context {
        state.as_ref().map_or_else(Context::new, |state| state.context().clone())
    }

    fn learn(context: &mut Context, other: &Context) {
        context.join(other);
    }

    fn shown(&self, state: &Option<State>) -> Vec<u64> {
        let reading = self.state(state).read(0);
        let mut shown = vec![0; self.places().len()];
        show(&reading, "", &mut shown);
        shown
    }

    fn knows(state: &Option<State>, dot: &Dot) -> bool {
        state.as_ref().is_some_and(|state| state.context().contains(dot))
    }

    fn lease_after_crash(&self, end: u64, end_at_last_sync: u64) -> u64 {
        self.rules.lease(end, end_at_last_sync)
    }
}

/// Elements and fields that stand for places.
const ELEMENTS: [&str; 3] = ["tea", "milk", "rice"];

fn show(reading: &Reading, path: &str, shown: &mut [u64]) {
    let in_map = !path.is_empty();
    match reading {
        Reading::Register(siblings) => {
            shown[NAME] = siblings.iter().fold(0, |all, own| all | 1 << own.value[0]);
        }
        Reading::Set(elements) => {
            for element in elements {
                let index = ELEMENTS.iter().position(|name| name.as_bytes() == element);
                let index = index.expect("one of ours");
                shown[if in_map { TEA + index } else { index }] = 1;
            }
        }
        Reading::Flag(is_on) => shown[if in_map { DEEP_ON } else { 0 }] = (*is_on).into(),
        Reading::Counter(value) => {
            let place = match path {
                "" => 0,
                "hits" => HITS,
                "visits" => VISITS,
                "deep hits" => DEEP_HITS,
                other => panic!("{other} is none of ours"),
            };
            // below zero or beyond: no set of writes, and whoever compares will say so
            shown[place] = u64::try_from(*value).unwrap_or(u64::MAX);
        }
        Reading::Map(fields) => {
            for (field, reading) in fields {
                let name = std::str::from_utf8(&field.name).expect("one of ours");
                let path = if in_map { format!("{path} {name}") } else { name.to_owned() };
                show(reading, &path, shown);
            }
        }
        Reading::Lww(_) | Reading::Max(_) => unreachable!("not here"),
    }
}

impl OfKind {
    /// What a client sends for a deed.
    fn operation(&self, deed: &Deed, number: usize, client: usize) -> Operation {
        let takes_all =
            deed.len() == self.places().len() && deed.iter().all(|(_, act)| *act == Act::Take);
        match self.kind {
            _ if takes_all => Operation::Clear,
            Kind::Set => elements(deed.iter().map(|(place, act)| (ELEMENTS[*place], *act))),
            Kind::Map => Operation::Update(fields(deed, number, client)),
            _ => single(deed[0].1, number, client),
        }
    }
}

/// Additions, or removals.
fn elements(all: impl Iterator<Item = (&'static str, Act)>) -> Operation {
    let (names, acts): (Vec<Bytes>, Vec<Act>) =
        all.map(|(name, act)| (Bytes::from_static(name.as_bytes()), act)).unzip();
    if acts[0] == Act::Take { Operation::Remove(names) } else { Operation::Add(names) }
}

fn single(act: Act, number: usize, client: usize) -> Operation {
    match act {
        Act::Put => Operation::Put { value: vec![number as u8].into(), expires_ms: None },
        Act::Add => Operation::Enable,
        Act::Take => Operation::Clear,
        Act::Once => Operation::Increment(Increment::Once(1 << number)),
        // a total grows with each change, so it can number the changes too
        Act::Session(total) => Operation::Increment(Increment::Session {
            session: client as u128,
            sequence: total,
            total: total as i64,
        }),
    }
}

fn fields(deed: &Deed, number: usize, client: usize) -> Vec<(Field, FieldChange)> {
    let field =
        |name: &'static str, kind| Field { name: Bytes::from_static(name.as_bytes()), kind };
    let act_at = |place| deed.iter().find(|(at, _)| *at == place).map(|(_, act)| *act);
    let change = |place, field| {
        act_at(place).map(|act| match act {
            Act::Take => (field, FieldChange::Remove),
            act => (field, FieldChange::Change(single(act, number, client))),
        })
    };
    let mut all: Vec<_> = [
        change(NAME, field("name", Kind::Register)),
        change(HITS, field("hits", Kind::Counter)),
        change(VISITS, field("visits", Kind::Counter)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let tags =
        [TEA, MILK].into_iter().filter_map(|place| Some((ELEMENTS[place - TEA], act_at(place)?)));
    match tags.clone().collect::<Vec<_>>()[..] {
        [] => {}
        [(_, Act::Take), (_, Act::Take)] => {
            all.push((field("tags", Kind::Set), FieldChange::Remove))
        }
        _ => all.push((field("tags", Kind::Set), FieldChange::Change(elements(tags)))),
    }
    let deep: Vec<_> =
        [change(DEEP_ON, field("on", Kind::Flag)), change(DEEP_HITS, field("hits", Kind::Counter))]
            .into_iter()
            .flatten()
            .collect();
    match deep[..] {
        [] => {}
        [(_, FieldChange::Remove), (_, FieldChange::Remove)] => {
            all.push((field("deep", Kind::Map), FieldChange::Remove));
        }
        _ => all.push((field("deep", Kind::Map), FieldChange::Change(Operation::Update(deep)))),
    }
    all
}
