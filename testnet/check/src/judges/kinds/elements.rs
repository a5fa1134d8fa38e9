//! Sets and flags. A flag is a set with one element.
//!
//! - No acknowledged addition is lost: it is there, or a removal that may have seen it was begun. An addition may also stand
//!   in the place of an earlier one that its coordinator knew; whoever removes that one removes both.
//! - No removed element is back: what is there was added by somebody whom no removal had certainly seen.
//! - Who works in a session sees its own additions.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, Removals};
use crate::{
    history::kinds::{Deed, Shown},
    kinds::Ask,
    verdict::{Findings, Promise},
};

const FLAG: &str = "on";

/// What happened to one element.
struct Element<'a> {
    adds: Vec<&'a Ask>,
    removals: Removals<'a>,
    /// When somebody first began to add it.
    begun: Option<u64>,
    /// The latest end of an addition that may have stood in the place of earlier ones, and may have been removed.
    removable_until: u64,
}

pub(super) fn judge(of: &Place<'_>, found: &mut Findings) {
    let elements = elements(of);
    reads(of, &elements, found);
    if of.is_settled {
        in_the_end(of, &elements, found);
    }
}

fn elements<'a>(of: &Place<'a>) -> BTreeMap<&'a str, Element<'a>> {
    let mut deeds: BTreeMap<&str, (Vec<&Ask>, Vec<&Ask>)> = BTreeMap::new();
    let mut cleared: Vec<&Ask> = Vec::new();
    for (ask, deed) in of.acts {
        match deed {
            Deed::Add(names) => {
                names.iter().for_each(|name| deeds.entry(name).or_default().0.push(ask));
            }
            Deed::Enable => deeds.entry(FLAG).or_default().0.push(ask),
            Deed::Remove(names) => {
                names.iter().for_each(|name| deeds.entry(name).or_default().1.push(ask));
            }
            Deed::Disable => deeds.entry(FLAG).or_default().1.push(ask),
            Deed::Clear => cleared.push(ask),
            Deed::Count { .. } | Deed::Once(_) | Deed::Raise(_) | Deed::Stamp | Deed::Put => {}
        }
    }
    let element = |(adds, mut removals): (Vec<&'a Ask>, Vec<&'a Ask>)| {
        removals.extend(&cleared);
        removals.sort_by_key(|ask| ask.op);
        let removals = Removals::of(removals.into_iter());
        let maybe = || adds.iter().filter(|add| add.may_be());
        let removable = maybe().filter(|add| removals.may_have_seen(add)).map(|add| add.ended);
        let removable_until = removable.max().unwrap_or(0);
        let begun = maybe().map(|add| add.begun).min();
        Element { adds, removals, begun, removable_until }
    };
    deeds.into_iter().map(|(name, deeds)| (name, element(deeds))).collect()
}

fn shown_in(shown: Option<&Shown>) -> BTreeSet<&str> {
    match shown {
        Some(Shown::Elements(all)) => all.iter().map(String::as_str).collect(),
        Some(Shown::IsOn(true)) => BTreeSet::from([FLAG]),
        _ => BTreeSet::new(),
    }
}

/// What is seen was added, and whoever works in a session sees its own additions until somebody may have removed them.
fn reads(of: &Place<'_>, elements: &BTreeMap<&str, Element<'_>>, found: &mut Findings) {
    let name = of.name();
    let mut own: BTreeMap<u32, BTreeMap<&str, &Ask>> = BTreeMap::new();
    let mut acts = of.acts.iter().peekable();
    for (read, shown) in of.key.reads(of.place) {
        while let Some((ask, deed)) = acts.next_if(|(ask, _)| ask.op < read.op) {
            if ask.dot().is_some() && of.key.is_in_session(ask) {
                let own = own.entry(ask.session).or_default();
                match deed {
                    Deed::Add(names) => own.extend(names.iter().map(|one| (one.as_str(), *ask))),
                    Deed::Enable => drop(own.insert(FLAG, ask)),
                    _ => {}
                }
            }
        }
        let shown = shown_in(shown);
        for element in &shown {
            found.step();
            let begun = elements.get(element).and_then(|element| element.begun);
            if begun.is_none_or(|begun| begun > read.ended) {
                found.add(Promise::NoPhantom, Some(&name), &[read.op], || {
                    format!("it saw {element}, which nobody had added by then")
                });
            }
        }
        let Some(own) = own.get_mut(&read.session) else { continue };
        own.retain(|element, add| {
            found.step();
            if shown.contains(element) {
                return true;
            }
            // once it may have been removed nothing is promised until it is added again
            if !elements[element].removals.came_between(add.begun, read.ended) {
                found.add(Promise::ReadYourWrites, Some(&name), &[read.op, add.op], || {
                    format!("session {} has added {element} and does not see it", read.session)
                });
            }
            false
        });
    }
}

fn in_the_end(of: &Place<'_>, elements: &BTreeMap<&str, Element<'_>>, found: &mut Findings) {
    let name = of.name();
    for (node, shown) in of.key.finals(of.place) {
        let shown = shown_in(shown);
        if let Some(ghost) = shown.iter().find(|element| !elements.contains_key(*element)) {
            found.add(Promise::NoPhantom, Some(&name), &[], || {
                format!("node {node} holds {ghost}, which nobody has added")
            });
        }
        for (element, what) in elements {
            found.step();
            if !shown.contains(element) {
                let kept = |add: &&&Ask| add.is_certain() && what.removable_until < add.begun;
                if let Some(add) = what.adds.iter().find(kept) {
                    found.add(Promise::NothingLost, Some(&name), &[add.op], || {
                        format!(
                            "node {node} does not hold {element}, and no removal may have seen it"
                        )
                    });
                }
            } else if what.begun.is_none() {
                found.add(Promise::ErrorsHonest, Some(&name), &[], || {
                    format!("node {node} holds {element}, and whoever added that was told that it was not applied")
                });
            } else if !what.adds.iter().any(|add| add.may_be() && !what.removals.have_seen(add)) {
                found.add(Promise::NoResurrection, Some(&name), &[], || {
                    format!("node {node} holds {element}, and whatever added that was removed by somebody who had seen it")
                });
            }
        }
    }
}
