//! Replicas converge: when all is over, every owner of a key can read it and holds the same values under the same context;
//! nobody else holds it; and no node keeps a hint.
//!
//! An owner that has never heard of a key is written down too: it knows nothing, and so differs from those who do.

use std::collections::BTreeSet;

use crate::{
    books::Books,
    history::{Dot, Held, Value},
    judges::events::known_to,
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    for (node, count) in books.hints.iter().filter(|(_, count)| **count > 0) {
        let says = || format!("node {node} still keeps {count} hints");
        found.add(Promise::Convergence, None, &[], says);
    }
    for (key, held) in &books.held {
        of_one_key(Some(books.keys[*key].as_str()), held, found);
    }
    let mut missing = BTreeSet::new();
    for write in books.entries.iter().filter(|entry| entry.is_certain()) {
        found.step();
        let is_held = books.held.get(&write.key).is_some_and(|held| held.iter().any(|h| h.owner));
        if !is_held && missing.insert(write.key) {
            found.add(Promise::Convergence, books.key_of(write), &[write.op], || {
                "it was written for certain, and no owner of its key holds a record".to_owned()
            });
        }
    }
}

fn of_one_key(name: Option<&str>, held: &[Held], found: &mut Findings) {
    let mut first: Option<(u32, State)> = None;
    for record in held {
        found.step();
        let node = record.node;
        let mut say = |what: String| found.add(Promise::Convergence, name, &[], || what);
        if !record.owner {
            say(format!("node {node} holds a record of it and is no owner"));
            continue;
        }
        if !record.readable {
            say(format!("node {node} cannot read its record"));
            continue;
        }
        let state = State::of(record);
        match &first {
            None => first = Some((node, state)),
            Some((other, first)) if state != *first => {
                let (ours, theirs) = (state.values(), first.values());
                say(if ours == theirs {
                    format!("nodes {other} and {node} know different events")
                } else {
                    format!("node {other} holds {theirs:?} and node {node} holds {ours:?}")
                });
            }
            Some(_) => {}
        }
        let known = known_to(std::iter::once(record), found);
        for (value, _) in record.values.iter().filter(|(_, dot)| !known.contains(*dot)) {
            found.add(Promise::Convergence, name, &[*value], || {
                format!("node {node} holds it and does not know its event")
            });
        }
    }
}

#[derive(PartialEq, Eq)]
struct State {
    values: Vec<(Value, Dot)>,
    context: Vec<(u32, u32, u64, u64)>,
}

impl State {
    fn of(record: &Held) -> Self {
        let (mut values, mut context) = (record.values.clone(), record.context.clone());
        values.sort_unstable();
        context.sort_unstable();
        State { values, context }
    }

    fn values(&self) -> Vec<Value> {
        self.values.iter().map(|(value, _)| *value).collect()
    }
}
