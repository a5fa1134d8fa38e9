//! What an operation makes of a state: the delta, to be joined here and everywhere.
//!
//! Every change takes a fresh event that enters the context, even if it leaves nothing alive; else
//! a session could not see its own delete. Beyond that a delta claims to know as little as it can:
//!
//! ```text
//!   register put                   what the client had seen: that is replaced
//!   clear, flag off (whole key)    what the client had seen; if it said nothing, all that is known
//!   set add, flag on               the dots that stood there before: they are replaced
//!   set remove, changes of fields  the dots that stood exactly there and were seen
//!   counter, lww, max              nothing: they join without contexts
//! ```
//!
//! Never all that was seen for a part of a set or map: that would erase the other parts.
//!
//! **One event may lie in several places**: an update adds three elements, or changes two fields. A
//! delta that claims to know an event must then say everything that is left of it, or its other
//! places would die: whoever joins the delta sees them known and gone. So it lists them. The same
//! goes for what lies under no dot: if the event had also changed a counter, whoever believes to
//! know it must have the counter too ([`Mark`]). An addition that would have to list others for
//! this reason rather leaves the old dot where it is, beside the new one.
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

use crate::cell::{Cell, Mark};
use crate::dots::{Content, DotFun, DotMap, DotSet};
use crate::store::{Lww, Store};
use crate::{
    Context, DEPTH_MAX, Dot, ELEMENTS_MAX, Event, FIELDS_MAX, Field, FieldChange, Hybrid, Kind,
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
    /// The reply to the client may cover what the client had seen and the event, but not the
    /// delta's context, which may name changes that the client was not shown.
    ///
    /// Panics if `seen` contains the event: then a counter was given twice, and a replica that
    /// remembers its first use would drop the change without a word.
    pub fn change(
        &self,
        operation: &Operation,
        seen: Option<&Context>,
        stamp: &Stamp,
    ) -> Result<State, Refused> {
        let (kind, dot) = (self.kind(), stamp.event.dot());
        assert!(
            seen.is_none_or(|seen| !seen.contains(&dot)),
            "the counter of {dot} was given twice"
        );
        let change = Change {
            known: self.context(),
            seen,
            stamp,
            mixed: Mark(kind == Kind::Map && operation.touches_undotted(kind)),
        };
        let (store, mut context) = match (operation, kind) {
            (Operation::Put { .. }, Kind::Register) => {
                let parts = change.of(&Store::empty(kind), operation, 1)?;
                (parts.left, seen.cloned().unwrap_or_default())
            }
            (Operation::Clear, Kind::Register | Kind::Set | Kind::Flag)
            | (Operation::Disable, Kind::Flag) => {
                (Store::empty(kind), seen.unwrap_or(self.context()).clone())
            }
            (Operation::Clear, Kind::Map) => change.cleared_map(self)?,
            _ => change.of(self.store(), operation, 1)?.delta(self),
        };
        context.add(&stamp.event);
        Ok(State::of(store, context))
    }
}

/// A change on its way through a state.
struct Change<'a> {
    /// What is known with the state.
    known: &'a Context,
    /// What the client had seen.
    seen: Option<&'a Context>,
    stamp: &'a Stamp,
    mixed: Mark,
}

/// What a change does to a content, place by place.
struct Parts {
    /// What it leaves there.
    left: Store,
    /// The dots that it takes away.
    gone: Store,
    /// The dots that may go because a new one stands in their place.
    replaced: Store,
}

impl Change<'_> {
    /// What an operation does to one key or field. A map that is a key's value is at depth 1.
    fn of(&self, own: &Store, operation: &Operation, depth: usize) -> Result<Parts, Refused> {
        let dot = self.stamp.event.dot();
        Ok(match (own, operation) {
            (Store::Register(_), Operation::Put { value, expires_ms }) => Parts {
                left: Store::Register(DotFun::one(dot, self.cell(value, *expires_ms, self.mixed))),
                ..self.removal(own)?
            },
            (Store::Lww(own), Operation::Put { value, expires_ms }) => {
                Parts::leaving(self.lww(own, Some(self.cell(value, *expires_ms, Mark(false)))))
            }
            (Store::Lww(own), Operation::Clear) => Parts::leaving(self.lww(own, None)),
            (Store::Counter(counter), Operation::Increment(increment)) => {
                let added = counter.increment(self.known, &self.stamp.event, increment)?;
                Parts::leaving(Store::Counter(added))
            }
            (Store::Set(own), Operation::Add(elements)) => self.addition(own, elements)?,
            (Store::Set(own), Operation::Remove(elements)) => {
                let elements = names(elements)?.into_iter();
                let seen =
                    |element: &Bytes| Some((element.clone(), self.seen_of(own.get(element)?)));
                let gone = DotMap::of_sorted(elements.filter_map(seen));
                Parts { gone: Store::Set(gone), ..Parts::nothing(Kind::Set) }
            }
            (Store::Flag(own), Operation::Enable) => Parts {
                left: Store::Flag(DotSet::one(dot, self.mixed)),
                replaced: Store::Flag(own.clone()),
                ..Parts::nothing(Kind::Flag)
            },
            (Store::Max(_), Operation::Raise(number)) => Parts::leaving(Store::Max(Some(*number))),
            (Store::Map(own), Operation::Update(fields)) => self.update(own, fields, depth)?,
            (Store::Max(_), Operation::Clear) => return Err(Refused::MaxKeepsItsValue),
            (Store::Flag(_), Operation::Disable) | (_, Operation::Clear) => self.removal(own)?,
            (other, operation) => {
                let (operation, kind) = (operation.word(), other.kind());
                return Err(Refused::WrongKind { operation, kind });
            }
        })
    }

    /// Elements come in, each under the new dot alone.
    fn addition(&self, own: &DotMap<Bytes, DotSet>, elements: &[Bytes]) -> Result<Parts, Refused> {
        let elements = names(elements)?;
        let new = elements.iter().filter(|element| own.get(element).is_none()).count();
        if new > 0 && own.len() + new > ELEMENTS_MAX {
            let elements = own.len() + new;
            return Err(Refused::TooManyElements { elements, elements_max: ELEMENTS_MAX });
        }
        let dot = self.stamp.event.dot();
        let before = |element: &&Bytes| Some(((*element).clone(), own.get(element)?.clone()));
        let replaced = DotMap::of_sorted(elements.iter().filter_map(before));
        let added = elements.into_iter();
        let added = added.map(|element| (element.clone(), DotSet::one(dot.clone(), self.mixed)));
        Ok(Parts {
            left: Store::Set(DotMap::of_sorted(added)),
            replaced: Store::Set(replaced),
            ..Parts::nothing(Kind::Set)
        })
    }

    /// Fields change, each on its own.
    fn update(
        &self,
        own: &DotMap<Field, Store>,
        fields: &[(Field, FieldChange)],
        depth: usize,
    ) -> Result<Parts, Refused> {
        if depth > DEPTH_MAX {
            return Err(Refused::TooDeep { depth_max: DEPTH_MAX });
        }
        let sorted: BTreeMap<&Field, &FieldChange> =
            fields.iter().map(|(field, change)| (field, change)).collect();
        if fields.is_empty() {
            return Err(Refused::Nothing);
        }
        if sorted.len() < fields.len() {
            return Err(Refused::FieldTwice);
        }
        let mut parts = Vec::with_capacity(sorted.len());
        let mut new = 0;
        for (field, change) in sorted {
            check_name(&field.name)?;
            let before = own.get(field);
            let nothing = Store::empty(field.kind);
            let store = before.unwrap_or(&nothing);
            let part = match change {
                FieldChange::Remove | FieldChange::Change(Operation::Clear) => {
                    if field.kind == Kind::Max {
                        return Err(Refused::MaxKeepsItsValue);
                    }
                    self.removal(store)?
                }
                FieldChange::Change(operation) => self.of(store, operation, depth + 1)?,
            };
            new += usize::from(before.is_none() && !part.left.is_empty());
            parts.push((field.clone(), part));
        }
        if new > 0 && own.len() + new > FIELDS_MAX {
            let ends = |(field, part): &&(Field, Parts)| part.ends(own.get(field));
            let fields = own.len() + new - parts.iter().filter(ends).count();
            if fields > FIELDS_MAX.max(own.len()) {
                return Err(Refused::TooManyFields { fields, fields_max: FIELDS_MAX });
            }
        }
        Ok(Parts::of_fields(parts))
    }

    /// All that was seen of a content goes.
    fn removal(&self, own: &Store) -> Result<Parts, Refused> {
        Ok(match own {
            Store::Register(_) | Store::Set(_) | Store::Flag(_) => {
                Parts { gone: self.seen_of(own), ..Parts::nothing(own.kind()) }
            }
            Store::Lww(own) if own.as_ref().is_some_and(|latest| self.sees_value(latest)) => {
                Parts::leaving(self.lww(own, None))
            }
            Store::Counter(counter) if counter.is_alive() => {
                Parts::leaving(Store::Counter(counter.reset()))
            }
            Store::Lww(_) | Store::Counter(_) | Store::Max(None) => Parts::nothing(own.kind()),
            Store::Max(Some(_)) => return Err(Refused::MaxKeepsItsValue),
            Store::Map(fields) => {
                let removals =
                    fields.iter().map(|(field, store)| Ok((field.clone(), self.removal(store)?)));
                Parts::of_fields(removals.collect::<Result<_, Refused>>()?)
            }
        })
    }

    /// A key that is a map, emptied. Everything that lies under no dot comes along, so that whoever
    /// joins this knows all of what it claims to know.
    fn cleared_map(&self, state: &State) -> Result<(Store, Context), Refused> {
        let parts = self.removal(state.store())?;
        let claimed = match self.seen {
            None => self.known.clone(),
            Some(seen) if self.known.covers(seen) => seen.clone(),
            // Of what the client alone has seen we cannot say what lay under no dot.
            Some(_) => dots_of(&parts.gone),
        };
        let mut left = state.store().restricted(&Context::new(), true);
        unite(&mut left, parts.left);
        Ok((left, claimed))
    }

    /// The dots of a content that the change may take away.
    fn seen_of<S: Content>(&self, own: &S) -> S {
        self.seen.map_or_else(|| own.clone(), |seen| own.restricted(seen, false))
    }

    fn sees_value(&self, latest: &Lww) -> bool {
        latest.value.is_some() && self.seen.is_none_or(|seen| seen.contains(&latest.dot))
    }

    fn cell(&self, value: &Bytes, expires_ms: Option<u64>, mixed: Mark) -> Cell {
        let Stamp { wall_ms, operation, .. } = *self.stamp;
        Cell { payload: Some(value.clone()), written_ms: wall_ms, expires_ms, operation, mixed }
    }

    /// A value later than the one that the coordinator knows: who has seen that one replaces it,
    /// whatever the clocks say.
    fn lww(&self, own: &Option<Box<Lww>>, value: Option<Cell>) -> Store {
        let known = own.as_ref().map(|own| own.at).unwrap_or_default();
        let (at, dot) = (self.stamp.at.max(known.next_after(0)), self.stamp.event.dot());
        Store::Lww(Some(Box::new(Lww { at, dot, value })))
    }
}

impl Parts {
    fn nothing(kind: Kind) -> Parts {
        Parts::leaving(Store::empty(kind))
    }

    fn leaving(left: Store) -> Parts {
        let kind = left.kind();
        Parts { left, gone: Store::empty(kind), replaced: Store::empty(kind) }
    }

    /// Those of a map, from those of its fields in ascending order.
    fn of_fields(fields: Vec<(Field, Parts)>) -> Parts {
        let (mut left, mut gone, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
        for (field, parts) in fields {
            left.push((field.clone(), parts.left));
            gone.push((field.clone(), parts.gone));
            replaced.push((field, parts.replaced));
        }
        let map = |entries| Store::Map(DotMap::of_sorted(entries));
        Parts { left: map(left), gone: map(gone), replaced: map(replaced) }
    }

    /// Whether nothing is left of a field that was there.
    fn ends(&self, before: Option<&Store>) -> bool {
        before.is_some_and(|before| {
            let mut rest = before.clone();
            rest.subtract(&self.gone);
            rest.is_empty() && self.left.is_empty()
        })
    }

    /// The content of the delta, and what it claims beside its own event.
    fn delta(self, state: &State) -> (Store, Context) {
        let mut claimed = dots_of(&self.gone);
        for dot in self.replaced_wholly(state.store()) {
            claimed.add(&Event::alone(dot.actor, dot.counter));
        }
        if claimed.is_empty() {
            return (self.left, claimed);
        }
        let mut is_mixed = false;
        for store in [&self.gone, &self.replaced] {
            store.dots(&mut |dot, mixed| is_mixed |= mixed && claimed.contains(dot));
        }
        // What else lies under the dots that we claim to know.
        let mut store = state.store().restricted(&claimed, is_mixed);
        store.subtract(&self.gone);
        store.subtract(&self.replaced);
        unite(&mut store, self.left);
        (store, claimed)
    }

    /// The replaced dots that lie nowhere else.
    fn replaced_wholly(&self, all: &Store) -> BTreeSet<Dot> {
        let mut places: BTreeMap<Dot, usize> = BTreeMap::new();
        self.replaced.dots(&mut |dot, _| *places.entry(dot.clone()).or_default() += 1);
        if !places.is_empty() {
            all.dots(&mut |dot, _| {
                if let Some(places) = places.get_mut(dot) {
                    *places = places.wrapping_sub(1); // below zero: more places than replaced
                }
            });
        }
        places.into_iter().filter(|(_, places)| *places == 0).map(|(dot, _)| dot).collect()
    }
}

/// Exactly the changes whose dots these are.
fn dots_of(store: &Store) -> Context {
    let mut context = Context::new();
    store.dots(&mut |dot, _| context.add(&Event::alone(dot.actor, dot.counter)));
    context
}

/// Puts two contents into one, with all dots of both.
fn unite(store: &mut Store, other: Store) {
    store.join(&Context::new(), other, &Context::new());
}

/// A client's list of elements, in order and each once.
fn names(elements: &[Bytes]) -> Result<BTreeSet<&Bytes>, Refused> {
    if elements.is_empty() {
        return Err(Refused::Nothing);
    }
    elements.iter().try_for_each(|element| check_name(element))?;
    Ok(elements.iter().collect())
}

fn check_name(name: &Bytes) -> Result<(), Refused> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Refused::NameTooLong { bytes: name.len(), bytes_max: NAME_BYTES_MAX });
    }
    Ok(())
}
