//! Values that are no registers: each place of each key is judged by its kind, and each key as a whole by what its owners
//! hold in the end and by what sessions were told.
//!
//! All judges go by exact contexts, where there are some, and otherwise by which answer came before which question. Where
//! they cannot tell they are silent: what may have been removed need not be there, and what may not have been may be.

mod counter;
mod elements;
mod latest;
mod values;

use std::collections::BTreeMap;

use crate::{
    books::Books,
    history::{
        Dot,
        kinds::{Deed, Told},
    },
    kinds::{Act, Ask, Key},
    spans::Spans,
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    for (name, key) in books.kinds.laid_out(&books.in_session) {
        for (place, acts) in &key.places {
            let of = Place { name, place, acts, key: &key, is_settled: books.is_settled() };
            match kind(acts) {
                Some(Deed::Add(_) | Deed::Remove(_) | Deed::Enable | Deed::Disable) => {
                    elements::judge(&of, found);
                }
                Some(Deed::Count { .. } | Deed::Once(_)) => counter::judge(&of, found),
                Some(Deed::Raise(_)) => latest::greatest(&of, books, found),
                Some(Deed::Stamp) => latest::latest(&of, found),
                Some(Deed::Put) => values::judge(&of, found),
                Some(Deed::Clear) | None => {} // nothing was ever there
            }
        }
        told_to_sessions(books, name, &key, found);
        if books.is_settled() {
            kept(name, &key, found);
        }
    }
}

/// What the place is, as its first deed beside clearing says.
fn kind<'a>(acts: &[Act<'a>]) -> Option<&'a Deed> {
    acts.iter().map(|(_, deed)| *deed).find(|deed| **deed != Deed::Clear)
}

/// One place of one key.
struct Place<'a> {
    name: &'a str,
    place: &'a str,
    acts: &'a [Act<'a>],
    key: &'a Key<'a>,
    is_settled: bool,
}

impl Place<'_> {
    /// Key and place, for people.
    fn name(&self) -> String {
        match self.place {
            "" => self.name.to_owned(),
            place => format!("{} at {place}", self.name),
        }
    }
}

/// All owners hold the same and can read it, nobody else holds it, and they know the event of every certain change.
fn kept(name: &str, key: &Key<'_>, found: &mut Findings) {
    for keeps in key.kept {
        found.step();
        let node = keeps.node;
        let mut say = |what: String| found.add(Promise::Convergence, Some(name), &[], || what);
        if !keeps.owner {
            say(format!("node {node} holds a record of it and is no owner"));
        } else if !keeps.readable {
            say(format!("node {node} cannot read its record"));
        }
    }
    let mut owners = key.kept.iter().filter(|keeps| keeps.owner && keeps.readable);
    let first = owners.next();
    if let Some(first) = first {
        let same = |other: &&_| {
            let other: &crate::history::kinds::Keeps = other;
            (other.digest, &other.shown, &other.context)
                != (first.digest, &first.shown, &first.context)
        };
        if let Some(other) = owners.find(same) {
            let (one, two) = (first.node, other.node);
            found.add(Promise::Convergence, Some(name), &[], || {
                let (shows, showed) = (&first.shown, &other.shown);
                format!("node {one} holds {shows:?} and node {two} holds {showed:?}, or knows other events")
            });
        }
    }
    let owners = key.kept.iter().filter(|keeps| keeps.owner && keeps.readable);
    let known = Spans::of(owners.flat_map(|keeps| &keeps.context));
    for ask in key.asks.iter().filter(|ask| ask.is_certain()) {
        found.step();
        if ask.dot().is_some_and(|dot| !known.contains(dot)) {
            let says = || "no owner knows its event".to_owned();
            found.add(Promise::EventsKnown, Some(name), &[ask.op], says);
        }
    }
}

/// Whoever works in a session is never told of less than it knew: what it was told before, and its own changes.
fn told_to_sessions(books: &Books, name: &str, key: &Key<'_>, found: &mut Findings) {
    let mut told: BTreeMap<u32, (Spans, Vec<(u64, Dot)>)> = BTreeMap::new();
    for ask in key.asks.iter().filter(|ask| books.in_session.contains(&ask.session)) {
        found.step();
        let (knew, own) = told.entry(ask.session).or_default();
        if let Told::Found { context, .. } = &ask.reply {
            let context = Spans::of(context);
            if !context.covers(knew) {
                found.add(Promise::MonotonicReads, Some(name), &[ask.op], || {
                    format!("session {} was told of more before", ask.session)
                });
            }
            if let Some((op, _)) = own.iter().find(|(_, dot)| !context.contains(*dot)) {
                found.add(Promise::ReadYourWrites, Some(name), &[ask.op, *op], || {
                    format!("session {} made {op}, and is not told of it", ask.session)
                });
            }
            (*knew, *own) = (context, Vec::new());
        }
        own.extend(ask.dot().map(|dot| (ask.op, dot)));
    }
}

/// Those who take away, as one set: what they may have seen, and what they certainly have. Each question is answered in the
/// time of a search.
struct Removals<'a> {
    /// In order of their beginnings, with the latest end of all up to there.
    all: Vec<(&'a Ask, u64)>,
    /// What those say that they have seen who may have happened, and those who certainly have.
    seen: Spans,
    certain: Spans,
    /// Of those who said nothing: the two that ended last, and of the certain ones the last of each level.
    silent_last: Vec<(u64, u64)>,
    silent_certain: BTreeMap<(u8, u8), &'a Ask>,
}

impl<'a> Removals<'a> {
    fn of(asks: impl Iterator<Item = &'a Ask>) -> Self {
        let maybe: Vec<&Ask> = asks.filter(|ask| ask.may_be()).collect();
        let union = |which: &dyn Fn(&Ask) -> bool| {
            let asks = maybe.iter().filter(|ask| which(ask));
            let parts: Vec<_> =
                asks.filter_map(|ask| ask.context.as_ref()).flat_map(Spans::parts).collect();
            Spans::of(&parts)
        };
        let (seen, certain) = (union(&|_| true), union(&Ask::is_certain));
        let silent = || maybe.iter().copied().filter(|ask| ask.context.is_none());
        let mut silent_last: Vec<(u64, u64)> = silent().map(|ask| (ask.ended, ask.op)).collect();
        silent_last.sort_unstable();
        silent_last.drain(..silent_last.len().saturating_sub(2));
        let silent_certain = silent().filter(|ask| ask.is_certain());
        let silent_certain = silent_certain.map(|ask| ((ask.with.n, ask.with.need), ask)).collect();
        let mut latest = 0;
        let all = maybe.iter().map(|ask| {
            latest = latest.max(ask.ended);
            (*ask, latest)
        });
        Removals { all: all.collect(), seen, certain, silent_last, silent_certain }
    }

    /// Whether one of them may have seen this change; not itself, if it is among them.
    fn may_have_seen(&self, change: &Ask) -> bool {
        let silent = |(ended, op): &(u64, u64)| *op != change.op && *ended > change.begun;
        self.silent_last.iter().any(silent)
            || match change.dot() {
                Some(dot) => self.seen.contains(dot),
                None => self.all.last().is_some_and(|(_, ended)| *ended > change.begun),
            }
    }

    /// Whether one that certainly was certainly has.
    fn have_seen(&self, change: &Ask) -> bool {
        self.say_they_have_seen(change)
            || self.silent_certain.values().any(|removal| removal.has_seen(change))
    }

    /// Whether one that certainly was says that it has: by its context, and not by what it read itself.
    fn say_they_have_seen(&self, change: &Ask) -> bool {
        change.dot().is_some_and(|dot| self.certain.contains(dot))
    }

    /// Whether one that had begun before `until` may have come after what began at `since`.
    fn came_between(&self, since: u64, until: u64) -> bool {
        let begun = self.all.partition_point(|(removal, _)| removal.begun < until);
        begun > 0 && self.all[begun - 1].1 > since
    }
}
