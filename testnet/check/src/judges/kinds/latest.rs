//! The greatest number, and the latest value: one stands for all.

use std::collections::BTreeMap;

use super::{Place, Removals};
use crate::{
    books::Books,
    history::{
        Op,
        kinds::{Deed, Shown},
    },
    kinds::Ask,
    verdict::{Findings, Promise},
};

/// In the end at least every acknowledged number, and one that was put; in between one whose put had begun; and in a
/// session never less than before.
pub(super) fn greatest(of: &Place<'_>, books: &Books, found: &mut Findings) {
    let name = of.name();
    let number = |shown: Option<&Shown>| match shown {
        Some(Shown::Greatest(number)) => Some(*number),
        _ => None,
    };
    let mut begun: BTreeMap<i64, u64> = BTreeMap::new();
    let mut least: Option<(i64, Op)> = None;
    let mut own: BTreeMap<u32, Vec<(Op, i64)>> = BTreeMap::new();
    for (ask, deed) in of.acts {
        let Deed::Raise(number) = deed else { continue };
        if ask.may_be() {
            begun.entry(*number).or_insert(ask.begun);
        }
        if ask.is_certain() {
            least = least.max(Some((*number, ask.op)));
        }
        if ask.dot().is_some() {
            own.entry(ask.session).or_default().push((ask.op, *number));
        }
    }
    let mut seen: BTreeMap<u32, i64> = BTreeMap::new();
    for (read, shown) in of.key.reads(of.place) {
        found.step();
        let shown = number(shown);
        if let Some(number) = shown
            && begun.get(&number).is_none_or(|begun| *begun > read.ended)
        {
            found.add(Promise::NoPhantom, Some(&name), &[read.op], || {
                format!("it saw {number}, which nobody had put by then")
            });
        }
        if books.in_session.contains(&read.session) {
            let seen = seen.entry(read.session).or_insert(i64::MIN);
            let own = own.entry(read.session).or_default();
            for (_, number) in own.extract_if(.., |(op, _)| *op < read.op) {
                *seen = (*seen).max(number);
            }
            if shown.unwrap_or(i64::MIN) < *seen {
                found.add(Promise::MonotonicReads, Some(&name), &[read.op], || {
                    format!("session {} knew {seen} and saw {shown:?}", read.session)
                });
            }
            *seen = shown.unwrap_or(i64::MIN).max(*seen);
        }
    }
    for (node, shown) in of.key.finals(of.place).filter(|_| of.is_settled) {
        found.step();
        let shown = number(shown);
        if let Some((least, op)) = least.filter(|(least, _)| shown.is_none_or(|it| it < *least)) {
            found.add(Promise::NothingLost, Some(&name), &[op], || {
                format!("node {node} holds {shown:?}, and {least} was put for certain")
            });
        }
        if let Some(number) = shown.filter(|number| !begun.contains_key(number)) {
            found.add(Promise::NoPhantom, Some(&name), &[], || {
                format!("node {node} holds {number}, which nobody has put")
            });
        }
    }
}

/// In the end a value that was written, and not one that a certain write had seen; nothing only if it may have been deleted.
pub(super) fn latest(of: &Place<'_>, found: &mut Findings) {
    let name = of.name();
    let stamps: Vec<&Ask> =
        of.acts.iter().filter(|(_, deed)| **deed == Deed::Stamp).map(|(ask, _)| *ask).collect();
    let writer = |op: Op| stamps.binary_search_by_key(&op, |ask| ask.op).ok().map(|at| stamps[at]);
    let value = |shown: Option<&Shown>| match shown {
        Some(Shown::Latest(op)) => Some(*op),
        _ => None,
    };
    for (read, shown) in of.key.reads(of.place) {
        found.step();
        if let Some(value) = value(shown)
            && writer(value).is_none_or(|ask| ask.begun > read.ended)
        {
            found.add(Promise::NoPhantom, Some(&name), &[read.op], || {
                format!("it saw value {value}, which nobody had written here")
            });
        }
    }
    if !of.is_settled {
        return;
    }
    let after = Removals::of(of.acts.iter().map(|(ask, _)| *ask));
    let deleted = of.acts.iter().any(|(ask, deed)| **deed == Deed::Clear && ask.may_be());
    let certain = stamps.iter().find(|ask| ask.is_certain());
    for (node, shown) in of.key.finals(of.place) {
        found.step();
        match (value(shown), certain) {
            (None, Some(certain)) if !deleted => {
                found.add(Promise::NothingLost, Some(&name), &[certain.op], || {
                    format!("node {node} holds no value, and nobody has deleted it")
                });
            }
            (None, _) => {}
            (Some(value), _) => {
                match writer(value) {
                    None => found.add(Promise::NoPhantom, Some(&name), &[], || {
                        format!("node {node} holds value {value}, which nobody has written here")
                    }),
                    Some(ask) if !ask.may_be() => {
                        found.add(Promise::ErrorsHonest, Some(&name), &[ask.op], || {
                        format!("node {node} holds it, and its writer was told that it was not applied")
                    });
                    }
                    Some(ask) if after.say_they_have_seen(ask) => {
                        found.add(Promise::NoResurrection, Some(&name), &[ask.op], || {
                            format!("node {node} holds it, and a later write had seen it")
                        });
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
