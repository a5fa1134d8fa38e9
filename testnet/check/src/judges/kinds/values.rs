//! Registers inside maps: values that stand side by side, each written by one operation.
//!
//! No acknowledged value is lost unless whoever wrote or removed after it may have seen it; and none is back that was
//! certainly seen by whoever replaced it.

use super::{Place, Removals};
use crate::{
    history::{
        Op,
        kinds::{Deed, Shown},
    },
    kinds::Ask,
    verdict::{Findings, Promise},
};

pub(super) fn judge(of: &Place<'_>, found: &mut Findings) {
    let name = of.name();
    let puts: Vec<&Ask> =
        of.acts.iter().filter(|(_, deed)| **deed == Deed::Put).map(|(ask, _)| *ask).collect();
    let writer = |op: Op| puts.binary_search_by_key(&op, |put| put.op).ok().map(|at| puts[at]);
    let values = |shown: Option<&Shown>| match shown {
        Some(Shown::Values(values)) => values.clone(),
        _ => Vec::new(),
    };
    for (read, shown) in of.key.reads(of.place) {
        for value in values(shown) {
            found.step();
            if writer(value).is_none_or(|put| put.begun > read.ended) {
                found.add(Promise::NoPhantom, Some(&name), &[read.op], || {
                    format!("it saw value {value}, which nobody had written here")
                });
            }
        }
    }
    if !of.is_settled {
        return;
    }
    // a put replaces what was there, and so takes away as a removal does
    let removals = Removals::of(of.acts.iter().map(|(ask, _)| *ask));
    for (node, shown) in of.key.finals(of.place) {
        let held = values(shown);
        for value in &held {
            found.step();
            match writer(*value) {
                None => found.add(Promise::NoPhantom, Some(&name), &[], || {
                    format!("node {node} holds value {value}, which nobody has written here")
                }),
                Some(put) if !put.may_be() => {
                    found.add(Promise::ErrorsHonest, Some(&name), &[put.op], || {
                        format!(
                            "node {node} holds it, and its writer was told that it was not applied"
                        )
                    });
                }
                Some(put) if removals.say_they_have_seen(put) => {
                    found.add(Promise::NoResurrection, Some(&name), &[put.op], || {
                        format!("node {node} holds it, and whoever replaced it had seen it")
                    });
                }
                Some(_) => {}
            }
        }
        for put in puts.iter().filter(|put| put.is_certain() && !held.contains(&put.op)) {
            found.step();
            if !removals.may_have_seen(put) {
                found.add(Promise::NothingLost, Some(&name), &[put.op], || {
                    format!("node {node} does not hold it, and nobody may have replaced it")
                });
            }
        }
    }
}
