//! What is alive of a key, and under which dot.
//!
//! *One* rule joins dots, in whatever shape they lie: keep a dot that both sides have, or that one
//! has and the other's context does not know. A dot that the other knows and no longer has, it has
//! seen die.
//!
//! ```text
//!   DotSet        { dot, dot }                   a flag, an element: there while any dot is alive
//!   DotFun<V>     { dot -> value, ... }          a register: concurrent values stand side by side
//!   DotMap<K, S>  { key -> content, ... }        a set (of DotSet), a map (of any content)
//! ```
//!
//! All are sorted lists and not trees: a record mostly has one dot, a list of one is one small
//! allocation, and a join must look at each own dot anyway.

use std::cmp::Ordering;
use std::fmt::Debug;

use bytes::Bytes;

use crate::cell::Mark;
use crate::codec::{DecodeError, Reader, write_bytes, write_varint};
use crate::{Actor, Context, Dot};

/// Something that a state holds under its context. Canonical: equal contents have equal bytes.
pub(crate) trait Content: Clone + Debug + Eq {
    /// Makes this what it is when both sides are known.
    fn join(&mut self, own_context: &Context, other: Self, other_context: &Context);

    /// Makes this what it is when a side is known that has nothing here: what `seen` knows dies.
    fn forget(&mut self, seen: &Context);

    /// Whether a join with `other` would change nothing, given that our context covers theirs,
    /// which is `other_context`.
    fn absorbs(&self, other: &Self, other_context: &Context) -> bool;

    /// Whether [`forget`](Content::forget) would change nothing.
    fn outlives(&self, seen: &Context) -> bool;

    /// Whether something is here that lies under no dot, and that no context can take away.
    fn remembers(&self) -> bool;

    /// Whether nothing is here.
    fn is_empty(&self) -> bool;

    /// Shows each dot where it lies, in order, and whether its change was [mixed](Mark).
    fn dots(&self, visit: &mut dyn FnMut(&Dot, bool));

    /// What of this lies under the dots of `wanted`, and also what lies under no dot, if
    /// `undotted`.
    fn restricted(&self, wanted: &Context, undotted: bool) -> Self;

    /// Takes away each dot of `gone` where it lies there.
    fn subtract(&mut self, gone: &Self);

    /// Appends the canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Appends what a digest is made of: all but the payload.
    fn encode_digest(&self, out: &mut Vec<u8>);
}

/// The value under a dot, or the key of a map.
///
/// The order decides which of two values survives should one dot ever carry both; with payloads
/// that are freed it does, and the greater one wins.
pub(crate) trait Item: Clone + Debug + Ord {
    /// The fewest bytes that one takes.
    const BYTES_MIN: usize;

    /// Appends the canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Appends what a digest covers beside the dot.
    fn encode_digest(&self, _: &mut Vec<u8>) {}

    /// Reads the canonical bytes and refuses all others.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError>;

    /// Whether the change behind the dot was [mixed](Mark).
    fn is_mixed(&self) -> bool {
        false
    }
}

/// Values and keys of users: any bytes. Decoded as slices of the input, not as copies.
impl Item for Bytes {
    const BYTES_MIN: usize = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, self);
    }

    fn decode(reader: &mut Reader) -> Result<Bytes, DecodeError> {
        reader.bytes()
    }
}

/// Dot -> value: a register, where concurrent writes stand side by side as siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DotFun<V> {
    /// Sorted by dot, each dot once.
    entries: Vec<(Dot, V)>,
}

/// Dots alone: a flag or an element, which is there while any of them is alive.
pub(crate) type DotSet = DotFun<Mark>;

impl<V> DotFun<V> {
    /// A single value.
    pub fn one(dot: Dot, value: V) -> DotFun<V> {
        DotFun { entries: vec![(dot, value)] }
    }

    /// The values, in order of their dots.
    pub fn iter(&self) -> impl Iterator<Item = (&Dot, &V)> {
        self.entries.iter().map(|(dot, value)| (dot, value))
    }

    /// How many dots are alive.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

impl<V> Default for DotFun<V> {
    fn default() -> DotFun<V> {
        DotFun { entries: Vec::new() }
    }
}

impl<V: Item> DotFun<V> {
    /// The fewest bytes that one with something in it takes.
    pub const BYTES_MIN: usize = 1 + DOT_BYTES_MIN + V::BYTES_MIN;

    /// Reads the canonical bytes and refuses all others. Whether the dots are covered is checked by
    /// the caller.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.count(DOT_BYTES_MIN + V::BYTES_MIN)?;
        let mut entries: Vec<(Dot, V)> = Vec::with_capacity(count.min(RESERVED_MAX));
        for _ in 0..count {
            let dot = decode_dot(reader)?;
            if entries.last().is_some_and(|(last, _)| *last >= dot) {
                return Err(DecodeError::Order);
            }
            entries.push((dot, V::decode(reader)?));
        }
        Ok(DotFun { entries })
    }
}

impl<V: Item> Content for DotFun<V> {
    fn join(&mut self, own_context: &Context, other: Self, other_context: &Context) {
        let mut theirs = other.entries.into_iter().peekable();
        let mut new = Vec::new();
        self.entries.retain_mut(|(dot, value)| {
            while let Some(entry) = theirs.next_if(|(other, _)| *other < *dot) {
                new.push(entry);
            }
            match theirs.next_if(|(other, _)| *other == *dot) {
                Some((_, other)) if other > *value => {
                    *value = other;
                    true
                }
                Some(_) => true,
                None => !other_context.contains(dot), // else the other side has seen it die
            }
        });
        new.extend(theirs);
        new.retain(|(dot, _)| !own_context.contains(dot));
        weave(&mut self.entries, new);
    }

    fn forget(&mut self, seen: &Context) {
        self.entries.retain(|(dot, _)| !seen.contains(dot));
    }

    fn absorbs(&self, other: &Self, other_context: &Context) -> bool {
        self.entries.iter().all(|(dot, value)| match find(&other.entries, dot) {
            Some(theirs) => theirs <= value,
            None => !other_context.contains(dot),
        })
    }

    fn outlives(&self, seen: &Context) -> bool {
        self.entries.iter().all(|(dot, _)| !seen.contains(dot))
    }

    fn remembers(&self) -> bool {
        false
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn dots(&self, visit: &mut dyn FnMut(&Dot, bool)) {
        self.entries.iter().for_each(|(dot, value)| visit(dot, value.is_mixed()));
    }

    fn restricted(&self, wanted: &Context, _: bool) -> Self {
        let own = self.entries.iter().filter(|(dot, _)| wanted.contains(dot));
        DotFun { entries: own.cloned().collect() }
    }

    fn subtract(&mut self, gone: &Self) {
        self.entries.retain(|(dot, _)| find(&gone.entries, dot).is_none());
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (dot, value) in &self.entries {
            encode_dot(dot, out);
            value.encode(out);
        }
    }

    fn encode_digest(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (dot, value) in &self.entries {
            encode_dot(dot, out);
            value.encode_digest(out);
        }
    }
}

/// Key -> content: a set of elements or a map of fields. A key without content is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DotMap<K, S> {
    /// Sorted by key, each key once, no content empty.
    entries: Vec<(K, S)>,
}

impl<K: Item, S: Content> DotMap<K, S> {
    /// Of entries in strictly ascending order. Those without content are left out.
    pub fn of_sorted(entries: impl IntoIterator<Item = (K, S)>) -> DotMap<K, S> {
        let entries: Vec<_> = entries.into_iter().filter(|(_, own)| !own.is_empty()).collect();
        debug_assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b), "sorted, each key once");
        DotMap { entries }
    }

    /// What lies under a key.
    pub fn get(&self, key: &K) -> Option<&S> {
        find(&self.entries, key)
    }

    /// The keys and what lies under them, in order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &S)> {
        self.entries.iter().map(|(key, own)| (key, own))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Reads the canonical bytes and refuses all others; `content` reads what lies under a key, in
    /// no fewer than `content_bytes_min` bytes.
    pub fn decode(
        reader: &mut Reader,
        content_bytes_min: usize,
        mut content: impl FnMut(&mut Reader, &K) -> Result<S, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let count = reader.count(K::BYTES_MIN + content_bytes_min)?;
        let mut entries: Vec<(K, S)> = Vec::with_capacity(count.min(RESERVED_MAX));
        for _ in 0..count {
            let key = K::decode(reader)?;
            if entries.last().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::Order);
            }
            let own = content(reader, &key)?;
            if own.is_empty() {
                return Err(DecodeError::Empty);
            }
            entries.push((key, own));
        }
        Ok(DotMap { entries })
    }
}

impl<K, S> Default for DotMap<K, S> {
    fn default() -> DotMap<K, S> {
        DotMap { entries: Vec::new() }
    }
}

impl<K: Item, S: Content> Content for DotMap<K, S> {
    fn join(&mut self, own_context: &Context, other: Self, other_context: &Context) {
        let mut theirs = other.entries.into_iter().peekable();
        let mut new = Vec::new();
        self.entries.retain_mut(|(key, own)| {
            while let Some(entry) = theirs.next_if(|(other, _)| *other < *key) {
                new.push(entry);
            }
            match theirs.next_if(|(other, _)| *other == *key) {
                Some((_, other)) => own.join(own_context, other, other_context),
                None => own.forget(other_context),
            }
            !own.is_empty()
        });
        new.extend(theirs);
        new.retain_mut(|(_, other)| {
            other.forget(own_context);
            !other.is_empty()
        });
        weave(&mut self.entries, new);
    }

    fn forget(&mut self, seen: &Context) {
        self.entries.retain_mut(|(_, own)| {
            own.forget(seen);
            !own.is_empty()
        });
    }

    fn absorbs(&self, other: &Self, other_context: &Context) -> bool {
        let ours_stay = self.entries.iter().all(|(key, own)| match find(&other.entries, key) {
            Some(theirs) => own.absorbs(theirs, other_context),
            None => own.outlives(other_context),
        });
        // Where we have nothing, their dots are dead, but what lies under no dot would come to us.
        ours_stay
            && other
                .entries
                .iter()
                .all(|(key, theirs)| !theirs.remembers() || find(&self.entries, key).is_some())
    }

    fn outlives(&self, seen: &Context) -> bool {
        self.entries.iter().all(|(_, own)| own.outlives(seen))
    }

    fn remembers(&self) -> bool {
        self.entries.iter().any(|(_, own)| own.remembers())
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn dots(&self, visit: &mut dyn FnMut(&Dot, bool)) {
        self.entries.iter().for_each(|(_, own)| own.dots(visit));
    }

    fn restricted(&self, wanted: &Context, undotted: bool) -> Self {
        let own = |(key, own): &(K, S)| {
            let restricted = own.restricted(wanted, undotted);
            (!restricted.is_empty()).then(|| (key.clone(), restricted))
        };
        DotMap { entries: self.entries.iter().filter_map(own).collect() }
    }

    fn subtract(&mut self, gone: &Self) {
        self.entries.retain_mut(|(key, own)| {
            if let Some(gone) = find(&gone.entries, key) {
                own.subtract(gone);
            }
            !own.is_empty()
        });
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (key, own) in &self.entries {
            key.encode(out);
            own.encode(out);
        }
    }

    /// With the keys: they say where a dot lies, and one event may have put its dot under several.
    fn encode_digest(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (key, own) in &self.entries {
            key.encode(out);
            own.encode_digest(out);
        }
    }
}

/// Puts entries with new keys between the old ones. Both are sorted, and the standard sort merges
/// two sorted runs in linear time.
pub(crate) fn weave<K: Ord, T>(entries: &mut Vec<(K, T)>, new: Vec<(K, T)>) {
    if new.is_empty() {
        return;
    }
    let is_behind = entries.last().is_none_or(|(last, _)| *last < new[0].0);
    entries.extend(new);
    if !is_behind {
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
}

/// What lies under a key of a sorted list.
pub(crate) fn find<'a, K: Ord, T>(entries: &'a [(K, T)], key: &K) -> Option<&'a T> {
    // A record mostly has one dot, and a delta one element.
    match entries {
        [] => None,
        [(only, value)] => (only.cmp(key) == Ordering::Equal).then_some(value),
        _ => entries.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|index| &entries[index].1),
    }
}

pub(crate) fn encode_dot(dot: &Dot, out: &mut Vec<u8>) {
    write_varint(out, dot.actor.node.into());
    write_varint(out, dot.actor.incarnation.into());
    write_varint(out, dot.counter);
}

pub(crate) fn decode_dot(reader: &mut Reader) -> Result<Dot, DecodeError> {
    let actor = Actor::new(reader.varint_u32()?, reader.varint_u32()?);
    Ok(Dot { actor, counter: reader.varint()? })
}

/// Node, incarnation, counter, a byte each.
pub(crate) const DOT_BYTES_MIN: usize = 3;

/// For how many items memory is taken at once, whatever a list announces; more comes with the items
/// themselves. So nested lists cannot each reserve what only one of them can fill.
pub(crate) const RESERVED_MAX: usize = 1024;
