//! How changes, answers and contexts of real clients are told in a history.
//!
//! Whoever records has operations, readings and contexts in hand; the judges know places, deeds and what is shown. The
//! recorder says by `value` which bytes were written by whom.

use atoll_antientropy::{Context, Dot, Field, FieldChange, Increment, Kind, Operation, Reading};
use bytes::Bytes;

use crate::history::{
    self, Op,
    kinds::{Deed, Known, Shown, Touch},
};

/// Where an operation on a value of this kind changes what.
///
/// # Panics
/// If a session of counters has a number beyond 64 bits: recorders give them smaller ones.
#[must_use]
pub fn touches(operation: &Operation, kind: Kind) -> Vec<Touch> {
    let mut touches = Vec::new();
    touch(operation, "", kind, &mut touches);
    touches
}

/// What a reading shows, place by place.
#[must_use]
pub fn shown(reading: &Reading, value: impl Fn(&[u8]) -> Op) -> Vec<(String, Shown)> {
    let mut all = Vec::new();
    show(reading, "", &value, &mut all);
    all
}

/// A context.
#[must_use]
pub fn known(context: &Context) -> Known {
    let spans = context.iter();
    spans.map(|known| (known.actor.node, known.actor.incarnation, known.lo, known.hi)).collect()
}

/// An event.
#[must_use]
pub fn dot(dot: &Dot) -> history::Dot {
    (dot.actor.node, dot.actor.incarnation, dot.counter)
}

fn touch(operation: &Operation, place: &str, kind: Kind, touches: &mut Vec<Touch>) {
    let names = |all: &[Bytes]| all.iter().map(text).collect::<Vec<_>>();
    let deed = match operation {
        Operation::Put { .. } if kind == Kind::Lww => Deed::Stamp,
        Operation::Put { .. } => Deed::Put,
        Operation::Increment(Increment::Once(by)) => Deed::Once(*by),
        Operation::Increment(Increment::Session { session, sequence, total }) => {
            let by = u64::try_from(*session).expect("recorders give small numbers");
            Deed::Count { by, sequence: *sequence, total: *total }
        }
        Operation::Add(elements) => Deed::Add(names(elements)),
        Operation::Remove(elements) => Deed::Remove(names(elements)),
        Operation::Enable => Deed::Enable,
        Operation::Disable => Deed::Disable,
        Operation::Raise(number) => Deed::Raise(*number),
        Operation::Clear => Deed::Clear,
        Operation::Update(changes) => {
            for (field, change) in changes {
                let place = below(place, field);
                match change {
                    FieldChange::Remove => touches.push(Touch { place, deed: Deed::Clear }),
                    FieldChange::Change(change) => touch(change, &place, field.kind, touches),
                }
            }
            return;
        }
    };
    touches.push(Touch { place: place.to_owned(), deed });
}

fn show(
    reading: &Reading,
    place: &str,
    value: &impl Fn(&[u8]) -> Op,
    all: &mut Vec<(String, Shown)>,
) {
    let shown = match reading {
        Reading::Register(siblings) => {
            let mut values: Vec<Op> = siblings.iter().map(|one| value(&one.value)).collect();
            values.sort_unstable();
            Shown::Values(values)
        }
        Reading::Lww(Some(latest)) => Shown::Latest(value(&latest.value)),
        Reading::Counter(number) => {
            // what clients count in small steps stays far from the ends
            let end = if *number < 0 { i64::MIN } else { i64::MAX };
            Shown::Number(i64::try_from(*number).unwrap_or(end))
        }
        Reading::Set(elements) => Shown::Elements(elements.iter().map(text).collect()),
        Reading::Flag(is_on) => Shown::IsOn(*is_on),
        Reading::Max(Some(number)) => Shown::Greatest(*number),
        Reading::Lww(None) | Reading::Max(None) => return,
        Reading::Map(fields) => {
            for (field, reading) in fields {
                show(reading, &below(place, field), value, all);
            }
            return;
        }
    };
    all.push((place.to_owned(), shown));
}

fn below(place: &str, field: &Field) -> String {
    let name = text(&field.name);
    if place.is_empty() { name } else { format!("{place}/{name}") }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
