//! Sets and flags. A flag is a set with one element.
//!
//! - No acknowledged addition is lost: it is there, or a removal that may have seen it was begun. An addition may also stand
//!   in the place of an earlier one that its coordinator knew; whoever removes that one removes both.
//! - No removed element is back: what is there was added by somebody whom no removal had certainly seen.
//! - Who works in a session sees its own additions.

use std::collections::BTreeMap;

use super::{Place, Removals};
use crate::{
    history::kinds::{Deed, Shown},
    kinds::Ask,
    verdict::{Findings, Promise},
};

const FLAG: &str = "on";

/// What happened to one element.
#[derive(Default)]
struct Element<'a> {
    adds: Vec<&'a Ask>,
    removals: Vec<&'a Ask>,
}

pub(super) fn judge(of: &Place<'_>, found: &mut Findings) {
    let mut elements: BTreeMap<&str, Element<'_>> = BTreeMap::new();
    let mut cleared: Vec<&Ask> = Vec::new();
    for (ask, deed) in of.acts {
        match deed {
            Deed::Add(names) => {
                for name in names {
                    elements.entry(name).or_default().adds.push(ask);
                }
            }
            Deed::Enable => elements.entry(FLAG).or_default().adds.push(ask),
            Deed::Remove(names) => {
                for name in names {
                    elements.entry(name).or_default().removals.push(ask);
                }
            }
            Deed::Disable => elements.entry(FLAG).or_default().removals.push(ask),
            Deed::Clear => cleared.push(ask),
            Deed::Count { .. } | Deed::Once(_) | Deed::Raise(_) | Deed::Stamp | Deed::Put => {}
        }
    }
    let shows = |shown: Option<&Shown>, name: &str| match shown {
        Some(Shown::Elements(all)) => all.iter().any(|one| one == name),
        Some(Shown::IsOn(is_on)) => *is_on && name == FLAG,
        _ => false,
    };
    let known = |shown: Option<&Shown>| match shown {
        Some(Shown::Elements(all)) => {
            all.iter().find(|one| !elements.contains_key(one.as_str())).cloned()
        }
        _ => None,
    };
    let name = of.name();
    for (read, shown) in of.key.reads(of.place) {
        if let Some(element) = known(shown) {
            found.add(Promise::NoPhantom, Some(&name), &[read.op], || {
                format!("it saw {element}, which nobody has added")
            });
        }
    }
    for (element, Element { adds, mut removals }) in elements {
        removals.extend(&cleared);
        removals.sort_by_key(|ask| ask.op);
        let removals = Removals::of(removals.into_iter());
        in_the_end(of, element, &adds, &removals, shows, found);
        let first = adds.iter().filter(|ask| ask.may_be()).map(|ask| ask.begun).min();
        for (read, shown) in of.key.reads(of.place) {
            found.step();
            if shows(shown, element) && first.is_none_or(|first| first > read.ended) {
                found.add(Promise::NoPhantom, Some(&name), &[read.op], || {
                    format!("it saw {element} before anybody had added that")
                });
            }
            let own = |add: &&&Ask| {
                add.session == read.session && add.dot().is_some() && add.op < read.op
            };
            let last = adds[..adds.partition_point(|add| add.op < read.op)].iter().rev().find(own);
            if let Some(add) = last.filter(|_| of.key.is_in_session(read))
                && !shows(shown, element)
                && !removals.came_between(add.begun, read.ended)
            {
                found.add(Promise::ReadYourWrites, Some(&name), &[read.op, add.op], || {
                    format!("session {} has added {element} and does not see it", read.session)
                });
            }
        }
    }
}

fn in_the_end(
    of: &Place<'_>,
    element: &str,
    adds: &[&Ask],
    removals: &Removals<'_>,
    shows: impl Fn(Option<&Shown>, &str) -> bool,
    found: &mut Findings,
) {
    if !of.is_settled {
        return;
    }
    let name = of.name();
    // what may have stood in the place of an earlier one, and may have been removed
    let removable = adds.iter().filter(|add| add.may_be() && removals.may_have_seen(add));
    let removable_until = removable.map(|add| add.ended).max().unwrap_or(0);
    for (node, shown) in of.key.finals(of.place) {
        found.step();
        if shows(shown, element) {
            let mut maybe = adds.iter().filter(|add| add.may_be()).peekable();
            if maybe.peek().is_none() {
                found.add(Promise::ErrorsHonest, Some(&name), &[], || {
                    format!("node {node} holds {element}, and whoever added that was told that it was not applied")
                });
            } else if maybe.all(|add| removals.have_seen(add)) {
                found.add(Promise::NoResurrection, Some(&name), &[], || {
                    format!("node {node} holds {element}, and whatever added that was removed by somebody who had seen it")
                });
            }
            continue;
        }
        let lost = adds.iter().find(|add| add.is_certain() && removable_until < add.begun);
        if let Some(add) = lost {
            found.add(Promise::NothingLost, Some(&name), &[add.op], || {
                format!("node {node} does not hold {element}, and no removal may have seen it")
            });
        }
    }
}
