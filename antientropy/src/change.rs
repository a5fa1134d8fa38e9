//! What an operation makes of a state: the delta, to be joined here and everywhere.
//!
//! Every change takes a fresh event that enters the context, even if it leaves nothing alive; else
//! a session could not see its own delete. What a change takes away is known to be gone *in its
//! place* (`dots.rs` says how), and nowhere else:
//!
//! ```text
//!   put into a register       there: all that the client had seen. (Into a register that is a key's
//!                             value by a client that said nothing: nothing.)
//!   remove, disable, clear    there: all that the client had seen
//!   add, enable               there: the dots that the coordinator knows of, the new one stands for
//!                             them
//!   counter, lww, max         nothing: they join without contexts
//! ```
//!
//! A client that said nothing has seen what the coordinator knows, which read strictly for it.
//!
//! The context itself, of whole events, takes the new event alone. Only in a register that is a
//! key's value it takes what the client had seen as well: there is one place, and what was seen was
//! whole.
//!
//! **Maps** are reset-remove maps. Removing a field, or clearing a map, takes away what was seen
//! there and nothing else; what is changed at the same time elsewhere survives:
//!
//! ```text
//!   register, set, flag   the seen dots are gone, others stay
//!   counter               what the coordinator knew of is subtracted, what was counted
//!                         elsewhere stays
//!   lww                   a stamped empty value, if the latest value was seen: later puts win
//!   max                   cannot be taken back: the removal is refused
//!   map                   each of its fields is removed
//! ```
//!
//! A field that is left with nothing is not there. One that must remember something (a counter its
//! reset, an lww its stamp) stays stored, and is not shown.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::cell::Cell;
use crate::dots::{Content, DotFun, DotMap, DotSet, Item};
use crate::store::{Lww, Store};
use crate::{
    Context, DEPTH_MAX, ELEMENTS_MAX, Event, FIELDS_MAX, Field, FieldChange, Hybrid, Kind,
    NAME_BYTES_MAX, Operation, Refused, State,
};

/// What a coordinator adds to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The change's name, and what the coordinator vouches for with it.
    pub event: Event,
    /// When, as far as last-write-wins values are concerned.
    pub at: Hybrid,
    /// When, for people.
    pub wall_ms: u64,
    /// The id of the client's operation, the same for all its repetitions; 0 if it has none.
    pub operation: u128,
}

impl State {
    /// What `operation` makes of this: the delta, to be joined here and everywhere.
    ///
    /// `self` is all that the coordinator knows: its own record, joined with what it read first if
    /// the operation [takes something away](Operation::takes_away). `seen` is what the client had
    /// seen; `None`: it said nothing. Then a put into a register stands beside everything else, and
    /// what is taken away is what `self` knows.
    ///
    /// The reply to the client may cover what the client had seen and the event.
    ///
    /// Panics if `seen` contains the event: then a counter was given twice, and a replica that
    /// remembers its first use would drop the change without a word.
    pub fn change(
        &self,
        operation: &Operation,
        seen: Option<&Context>,
        stamp: &Stamp,
    ) -> Result<State, Refused> {
        let dot = stamp.event.dot();
        assert!(
            seen.is_none_or(|seen| !seen.contains(&dot)),
            "the counter of {dot} was given twice"
        );
        let change = Change { whole: self.context(), seen, stamp };
        let Part { left, taken } = change.of(self.store(), &self.known(), operation, 1)?;
        let nothing = Context::new();
        let (context, beyond) = match (self.kind(), operation) {
            (Kind::Register, Operation::Put { .. }) => (seen.cloned().unwrap_or_default(), nothing),
            (Kind::Register, _) => (taken, nothing),
            _ => (nothing, taken),
        };
        Ok(State::delta(&stamp.event, left, context, beyond))
    }
}

/// A change on its way through a state.
struct Change<'a> {
    /// The events of which everything is in the state.
    whole: &'a Context,
    /// What the client had seen.
    seen: Option<&'a Context>,
    stamp: &'a Stamp,
}

/// What a change does in one place.
struct Part {
    /// What it leaves there.
    left: Store,
    /// What is known there after it, and no longer there.
    taken: Context,
}

impl Part {
    fn leaving(left: Store) -> Part {
        Part { left, taken: Context::new() }
    }
}

impl Change<'_> {
    /// What an operation does to one key or field, where `known` is known of dots. A map that is a
    /// key's value is at depth 1.
    fn of(
        &self,
        own: &Store,
        known: &Context,
        operation: &Operation,
        depth: usize,
    ) -> Result<Part, Refused> {
        let dot = self.stamp.event.dot();
        Ok(match (own, operation) {
            (Store::Register(_), Operation::Put { value, expires_ms }) => Part {
                left: Store::Register(DotFun::one(dot, self.cell(value, *expires_ms))),
                taken: self.seen(known),
            },
            (Store::Lww(own), Operation::Put { value, expires_ms }) => {
                Part::leaving(self.lww(own, Some(self.cell(value, *expires_ms))))
            }
            (Store::Lww(own), Operation::Clear) => Part::leaving(self.lww(own, None)),
            (Store::Counter(counter), Operation::Increment(increment)) => {
                let added = counter.increment(self.whole, &self.stamp.event, increment)?;
                Part::leaving(Store::Counter(added))
            }
            (Store::Set(own), Operation::Add(elements)) => self.addition(own, elements)?,
            (Store::Set(own), Operation::Remove(elements)) => {
                let gone =
                    |element: &Bytes| (element.clone(), self.seen(&own.known(element, known)));
                let gone = names(elements)?.into_iter().map(gone);
                Part::leaving(Store::Set(DotMap::of_sorted([], gone)))
            }
            (Store::Flag(own), Operation::Enable) => {
                Part { left: Store::Flag(DotSet::one(dot, ())), taken: own.dots() }
            }
            (Store::Max(_), Operation::Raise(number)) => Part::leaving(Store::Max(Some(*number))),
            (Store::Map(own), Operation::Update(fields)) => {
                self.update(own, known, fields, depth)?
            }
            (Store::Max(_), Operation::Clear) => return Err(Refused::MaxKeepsItsValue),
            (Store::Flag(_), Operation::Disable) | (_, Operation::Clear) => {
                self.removal(own, known)?
            }
            (other, operation) => {
                let (operation, kind) = (operation.word(), other.kind());
                return Err(Refused::WrongKind { operation, kind });
            }
        })
    }

    /// Elements come in, each under the new dot alone.
    fn addition(&self, own: &DotMap<Bytes, DotSet>, elements: &[Bytes]) -> Result<Part, Refused> {
        let elements = names(elements)?;
        let new = elements.iter().filter(|element| own.get(element).is_none()).count();
        if new > 0 && own.len() + new > ELEMENTS_MAX {
            let elements = own.len() + new;
            return Err(Refused::TooManyElements { elements, elements_max: ELEMENTS_MAX });
        }
        let dot = self.stamp.event.dot();
        let before = |element: &&Bytes| Some(((*element).clone(), own.get(element)?.dots()));
        let replaced: Vec<_> = elements.iter().filter_map(before).collect();
        let added = elements.into_iter();
        let added = added.map(|element| (element.clone(), DotSet::one(dot.clone(), ())));
        Ok(Part::leaving(Store::Set(DotMap::of_sorted(added, replaced))))
    }

    /// Fields change, each on its own.
    fn update(
        &self,
        own: &DotMap<Field, Store>,
        known: &Context,
        fields: &[(Field, FieldChange)],
        depth: usize,
    ) -> Result<Part, Refused> {
        if depth > DEPTH_MAX {
            return Err(Refused::TooDeep { depth_max: DEPTH_MAX });
        }
        if fields.is_empty() {
            return Err(Refused::Nothing);
        }
        let sorted: BTreeMap<&Field, &FieldChange> =
            fields.iter().map(|(field, change)| (field, change)).collect();
        if sorted.len() < fields.len() {
            return Err(Refused::FieldTwice);
        }
        let (mut left, mut taken) = (Vec::new(), Vec::new());
        let (mut come, mut go) = (0, 0);
        for (field, change) in sorted {
            check_name(&field.name)?;
            let before = own.get(field);
            let nothing = Store::empty(field.kind);
            let store = before.unwrap_or(&nothing);
            let known = own.known(field, known);
            let part = match change {
                FieldChange::Remove | FieldChange::Change(Operation::Clear) => {
                    if field.kind == Kind::Max {
                        return Err(Refused::MaxKeepsItsValue);
                    }
                    self.removal(store, &known)?
                }
                FieldChange::Change(operation) => self.of(store, &known, operation, depth + 1)?,
            };
            match before {
                None => come += usize::from(!part.left.is_empty()),
                Some(before) if part.left.is_empty() => {
                    go += usize::from(ends(before, &part.taken))
                }
                Some(_) => {}
            }
            left.push((field.clone(), part.left));
            taken.push((field.clone(), part.taken));
        }
        let after = own.len() + come - go;
        if after > FIELDS_MAX.max(own.len()) {
            return Err(Refused::TooManyFields { fields: after, fields_max: FIELDS_MAX });
        }
        Ok(Part::leaving(Store::Map(DotMap::of_sorted(left, taken))))
    }

    /// All that was seen in a place goes.
    fn removal(&self, own: &Store, known: &Context) -> Result<Part, Refused> {
        let taken = match own {
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => Context::new(),
            Store::Register(_) | Store::Set(_) | Store::Flag(_) | Store::Map(_) => self.seen(known),
        };
        Ok(Part { left: self.removal_in_parts(own)?, taken })
    }

    /// What a removal says beside that what was seen is gone: what lies under no dot, and what was
    /// known of single places, if all that the coordinator knew counts as seen.
    fn removal_in_parts(&self, own: &Store) -> Result<Store, Refused> {
        Ok(match own {
            Store::Lww(own) if own.as_ref().is_some_and(|latest| self.has_seen(latest)) => {
                self.lww(own, None)
            }
            // Also where it is gone already: not everybody has heard of that.
            Store::Lww(Some(latest)) if latest.value.is_none() => own.clone(),
            Store::Counter(counter) => Store::Counter(counter.reset()),
            Store::Max(Some(_)) => return Err(Refused::MaxKeepsItsValue),
            Store::Set(elements) => Store::Set(DotMap::of_sorted([], self.seen_notes(elements))),
            Store::Map(fields) => {
                let parts = fields
                    .iter()
                    .map(|(field, own)| Ok((field.clone(), self.removal_in_parts(own)?)));
                let parts = parts.collect::<Result<Vec<_>, Refused>>()?;
                Store::Map(DotMap::of_sorted(parts, self.seen_notes(fields)))
            }
            other => Store::empty(other.kind()),
        })
    }

    fn seen_notes<K: Item, S: Content>(&self, own: &DotMap<K, S>) -> Vec<(K, Context)> {
        match self.seen {
            Some(_) => Vec::new(),
            None => own.notes().map(|(key, more)| (key.clone(), more.clone())).collect(),
        }
    }

    /// What counts as seen by the client in a place where `known` is known.
    fn seen(&self, known: &Context) -> Context {
        self.seen.unwrap_or(known).clone()
    }

    /// Whether there is a value, and it was seen.
    fn has_seen(&self, latest: &Lww) -> bool {
        latest.value.is_some() && self.seen.is_none_or(|seen| seen.contains(&latest.dot))
    }

    fn cell(&self, value: &Bytes, expires_ms: Option<u64>) -> Cell {
        let Stamp { wall_ms, operation, .. } = *self.stamp;
        Cell { payload: Some(value.clone()), written_ms: wall_ms, expires_ms, operation }
    }

    /// A value later than the one that the coordinator knows: who has seen that one replaces it,
    /// whatever the clocks say.
    fn lww(&self, own: &Option<Box<Lww>>, value: Option<Cell>) -> Store {
        let known = own.as_ref().map(|own| own.at).unwrap_or_default();
        let (at, dot) = (self.stamp.at.max(known.next_after(0)), self.stamp.event.dot());
        Store::Lww(Some(Box::new(Lww { at, dot, value })))
    }
}

/// Whether nothing is left of a field once `taken` is gone.
fn ends(before: &Store, taken: &Context) -> bool {
    let mut rest = before.clone();
    rest.forget(taken, taken);
    rest.is_empty()
}

/// A client's list of elements, in order and each once.
fn names(elements: &[Bytes]) -> Result<BTreeSet<&Bytes>, Refused> {
    if elements.is_empty() {
        return Err(Refused::Nothing);
    }
    elements.iter().try_for_each(check_name)?;
    Ok(elements.iter().collect())
}

fn check_name(name: &Bytes) -> Result<(), Refused> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Refused::NameTooLong { bytes: name.len(), bytes_max: NAME_BYTES_MAX });
    }
    Ok(())
}
