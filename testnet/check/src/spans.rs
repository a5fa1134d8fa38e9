//! Exact sets of events, as contexts are.

use std::collections::BTreeMap;

use crate::history::Dot;

/// A union of some contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    /// Per actor, in order and disjoint: after, up to.
    of: BTreeMap<(u32, u32), Vec<(u64, u64)>>,
}

impl Spans {
    /// The union of these: node, incarnation, after, up to.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a (u32, u32, u64, u64)>) -> Self {
        let mut of: BTreeMap<(u32, u32), Vec<(u64, u64)>> = BTreeMap::new();
        for (node, incarnation, after, up_to) in all {
            of.entry((*node, *incarnation)).or_default().push((*after, *up_to));
        }
        for spans in of.values_mut() {
            spans.sort_unstable();
            let mut joined: Vec<(u64, u64)> = Vec::with_capacity(spans.len());
            for (after, up_to) in spans.drain(..) {
                match joined.last_mut() {
                    Some(last) if after <= last.1 => last.1 = last.1.max(up_to),
                    Some(_) | None => joined.push((after, up_to)),
                }
            }
            *spans = joined;
        }
        Spans { of }
    }

    pub fn contains(&self, (node, incarnation, counter): Dot) -> bool {
        self.of.get(&(node, incarnation)).is_some_and(|spans| {
            let before = spans.partition_point(|(after, _)| *after < counter);
            before > 0 && counter <= spans[before - 1].1
        })
    }

    /// The parts, for a union with others.
    pub fn parts(&self) -> impl Iterator<Item = (u32, u32, u64, u64)> {
        let spans = self.of.iter();
        spans.flat_map(|(actor, spans)| {
            spans.iter().map(|(after, up_to)| (actor.0, actor.1, *after, *up_to))
        })
    }

    /// Whether all of the other is in here.
    pub fn covers(&self, other: &Spans) -> bool {
        other.parts().all(|(node, incarnation, after, up_to)| {
            self.of.get(&(node, incarnation)).is_some_and(|spans| {
                let before = spans.partition_point(|(own, _)| *own <= after);
                before > 0 && up_to <= spans[before - 1].1
            })
        })
    }
}
