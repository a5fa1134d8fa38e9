//! What is alive of a key, under which dot, and in which place.
//!
//! *One* rule joins dots, in whatever shape they lie: keep a dot that both sides have, or that one
//! has and the other's context does not know. A dot that the other knows and no longer has, it has
//! seen die.
//!
//! ```text
//!   DotSet        { dot, dot }            a flag, an element: there while any dot is alive
//!   DotFun<V>     { dot -> value, ... }   a register: concurrent values stand side by side
//!   DotMap<K, S>  { key -> content, ... } a set (of DotSet), a map (of any content)
//! ```
//!
//! **Places.** One event may put its dot under several keys of a map, and a removal takes away what
//! lies under one of them. So what is known can differ from place to place: whoever hears of a
//! removal before it has heard of the addition must know that the addition is gone *there*, and
//! must not believe that it has heard of the whole event. A [`DotMap`] therefore keeps, for the few
//! keys where it is needed, what is known under the key *beyond* what is known around it:
//!
//! ```text
//!   state        context C                                   whole events
//!     map        C + beyond the state                        what is known of dots everywhere in it
//!       key      C + beyond the state + beyond under the key
//! ```
//!
//! Each place on its own is an ordinary causal CRDT, and their product is one too. Where the events
//! themselves have arrived, nothing is beyond: replicas that have heard everything keep nothing of
//! this.
//!
//! All are sorted lists and not trees: a record mostly has one dot, a list of one is one small
//! allocation, and a join must look at each own dot anyway.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Debug;
use std::ops::DerefMut;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use crate::codec::{DecodeError, Reader, write_bytes, write_varint};
use crate::{Actor, Context, Dot};

/// Something that a state holds in a place. Canonical: equal contents have equal bytes.
///
/// The contexts in the arguments say what is known in that place, all in all.
pub(crate) trait Content: Clone + Debug + Eq {
    /// Makes this what it is when both sides are known. `joined` is what they know together.
    fn join(&mut self, own: &Context, other: Self, others: &Context, joined: &Context);

    /// The same where the other side has nothing: what it knows dies.
    fn forget(&mut self, others: &Context, joined: &Context);

    /// Whether a join with `other` would change nothing, given that our context covers theirs.
    fn absorbs(&self, own: &Context, other: &Self, others: &Context) -> bool;

    /// Whether everything that is alive here stays if the other side has nothing.
    fn outlives(&self, others: &Context) -> bool;

    /// Whether joining this would add nothing to a side that has nothing and knows `context`.
    fn is_known(&self, context: &Context) -> bool;

    /// Whether every dot is known in its place, and nothing is noted twice.
    fn is_sound(&self, context: &Context) -> bool;

    /// Whether nothing is here.
    fn is_empty(&self) -> bool;

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

/// Nothing: what a flag has under its dots. That they are there is all it says.
impl Item for () {
    const BYTES_MIN: usize = 0;

    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &mut Reader) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// Dot -> value: a register, where concurrent writes stand side by side as siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DotFun<V> {
    /// Sorted by dot, each dot once. Mostly there is one, and a large set has as many of these as
    /// elements: the first lies in place.
    entries: SmallVec<[(Dot, V); 1]>,
}

/// Dots alone: a flag or an element, which is there while any of them is alive.
pub(crate) type DotSet = DotFun<()>;

impl<V> DotFun<V> {
    /// A single value.
    pub fn one(dot: Dot, value: V) -> DotFun<V> {
        DotFun { entries: smallvec![(dot, value)] }
    }

    /// The values, in order of their dots.
    pub fn iter(&self) -> impl Iterator<Item = (&Dot, &V)> {
        self.entries.iter().map(|(dot, value)| (dot, value))
    }

    /// How many dots are alive.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Exactly the dots that are alive.
    pub fn dots(&self) -> Context {
        let mut context = Context::new();
        for (dot, _) in &self.entries {
            context.add_interval(dot.actor, dot.counter - 1, dot.counter);
        }
        context
    }
}

impl<V> Default for DotFun<V> {
    fn default() -> DotFun<V> {
        DotFun { entries: SmallVec::new() }
    }
}

impl<V: Item> DotFun<V> {
    /// The fewest bytes that one with something in it takes.
    pub const BYTES_MIN: usize = 1 + DOT_BYTES_MIN + V::BYTES_MIN;

    /// Reads the canonical bytes and refuses all others. Whether it is sound is checked by the
    /// caller.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.count(DOT_BYTES_MIN + V::BYTES_MIN)?;
        let mut entries: SmallVec<[(Dot, V); 1]> = SmallVec::with_capacity(count.min(RESERVED_MAX));
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
    fn join(&mut self, own: &Context, other: Self, others: &Context, _: &Context) {
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
                None => !others.contains(dot), // else the other side has seen it die
            }
        });
        new.extend(theirs);
        new.retain(|(dot, _)| !own.contains(dot));
        weave(&mut self.entries, new);
    }

    fn forget(&mut self, others: &Context, _: &Context) {
        self.entries.retain(|(dot, _)| !others.contains(dot));
    }

    fn absorbs(&self, _: &Context, other: &Self, others: &Context) -> bool {
        self.entries.iter().all(|(dot, value)| match find(&other.entries, dot) {
            Some(theirs) => theirs <= value,
            None => !others.contains(dot),
        })
    }

    fn outlives(&self, others: &Context) -> bool {
        self.entries.iter().all(|(dot, _)| !others.contains(dot))
    }

    fn is_known(&self, context: &Context) -> bool {
        self.entries.iter().all(|(dot, _)| context.contains(dot))
    }

    fn is_sound(&self, context: &Context) -> bool {
        self.is_known(context)
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
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
    /// What is known under a key beyond what is known around it; nearly always empty. Sorted by
    /// key, each key once, no context empty. A key may have this without content: a removal of
    /// which more was heard than of what it removed.
    beyond: Vec<(K, Context)>,
}

impl<K: Item, S: Content> DotMap<K, S> {
    /// Of entries in strictly ascending order; those without content, or with nothing beyond, are
    /// left out.
    pub fn of_sorted(
        entries: impl IntoIterator<Item = (K, S)>,
        beyond: impl IntoIterator<Item = (K, Context)>,
    ) -> DotMap<K, S> {
        let entries: Vec<_> = entries.into_iter().filter(|(_, own)| !own.is_empty()).collect();
        let beyond: Vec<_> = beyond.into_iter().filter(|(_, own)| !own.is_empty()).collect();
        debug_assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b), "sorted, each key once");
        debug_assert!(beyond.is_sorted_by(|(a, _), (b, _)| a < b), "sorted, each key once");
        DotMap { entries, beyond }
    }

    /// What lies under a key.
    pub fn get(&self, key: &K) -> Option<&S> {
        find(&self.entries, key)
    }

    /// What is known under a key, where `around` is known around it.
    pub fn known<'a>(&self, key: &K, around: &'a Context) -> Cow<'a, Context> {
        known(&self.beyond, key, around)
    }

    /// The keys and what lies under them, in order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &S)> {
        self.entries.iter().map(|(key, own)| (key, own))
    }

    /// What is known under keys beyond what is known around them.
    pub fn notes(&self) -> impl Iterator<Item = (&K, &Context)> {
        self.beyond.iter().map(|(key, more)| (key, more))
    }

    /// How many keys have content.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Reads the canonical bytes and refuses all others; `content` reads what lies under a key, in
    /// no fewer than `content_bytes_min` bytes. Whether it is sound is checked by the caller.
    pub fn decode(
        reader: &mut Reader,
        content_bytes_min: usize,
        mut content: impl FnMut(&mut Reader, &K) -> Result<S, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let entries = sorted(reader, K::BYTES_MIN + content_bytes_min, |reader, key| {
            let own = content(reader, key)?;
            if own.is_empty() { Err(DecodeError::Empty) } else { Ok(own) }
        })?;
        let beyond = sorted(reader, K::BYTES_MIN + CONTEXT_BYTES_MIN, |reader, _| {
            let own = Context::decode_from(reader)?;
            if own.is_empty() { Err(DecodeError::Empty) } else { Ok(own) }
        })?;
        Ok(DotMap { entries, beyond })
    }
}

/// Reads a list that is sorted by keys.
fn sorted<K: Item, T>(
    reader: &mut Reader,
    bytes_min: usize,
    mut value: impl FnMut(&mut Reader, &K) -> Result<T, DecodeError>,
) -> Result<Vec<(K, T)>, DecodeError> {
    let count = reader.count(bytes_min)?;
    let mut entries: Vec<(K, T)> = Vec::with_capacity(count.min(RESERVED_MAX));
    for _ in 0..count {
        let key = K::decode(reader)?;
        if entries.last().is_some_and(|(last, _)| *last >= key) {
            return Err(DecodeError::Order);
        }
        let value = value(reader, &key)?;
        entries.push((key, value));
    }
    Ok(entries)
}

/// What is known under a key.
fn known<'a, K: Ord>(beyond: &[(K, Context)], key: &K, around: &'a Context) -> Cow<'a, Context> {
    find(beyond, key).map_or(Cow::Borrowed(around), |more| Cow::Owned(both(around, more)))
}

fn both(a: &Context, b: &Context) -> Context {
    let mut both = a.clone();
    both.join(b);
    both
}

impl<K, S> Default for DotMap<K, S> {
    fn default() -> DotMap<K, S> {
        DotMap { entries: Vec::new(), beyond: Vec::new() }
    }
}

impl<K: Item, S: Content> Content for DotMap<K, S> {
    fn join(&mut self, own: &Context, other: Self, others: &Context, joined: &Context) {
        let (our_beyond, their_beyond) = (std::mem::take(&mut self.beyond), other.beyond);
        // What we, they, and all together know under a key.
        let knowledge = |key: &K| {
            let ours = known(&our_beyond, key, own);
            let theirs = known(&their_beyond, key, others);
            let all = match (&ours, &theirs) {
                (Cow::Borrowed(_), Cow::Borrowed(_)) => Cow::Borrowed(joined),
                _ => Cow::Owned(both(&ours, &theirs)),
            };
            (ours, theirs, all)
        };
        let mut theirs = other.entries.into_iter().peekable();
        let mut new = Vec::new();
        self.entries.retain_mut(|(key, content)| {
            while let Some(entry) = theirs.next_if(|(other, _)| *other < *key) {
                new.push(entry);
            }
            let (own, others, joined) = knowledge(key);
            match theirs.next_if(|(other, _)| *other == *key) {
                Some((_, other)) => content.join(&own, other, &others, &joined),
                None => content.forget(&others, &joined),
            }
            !content.is_empty()
        });
        new.extend(theirs);
        new.retain_mut(|(key, content)| {
            let (own, _, joined) = knowledge(key);
            content.forget(&own, &joined);
            !content.is_empty()
        });
        weave(&mut self.entries, new);

        let mut new = Vec::new();
        self.beyond = our_beyond;
        for (key, more) in their_beyond {
            match self.beyond.binary_search_by(|(own, _)| own.cmp(&key)) {
                Ok(index) => self.beyond[index].1.join(&more),
                Err(_) => new.push((key, more)),
            }
        }
        weave(&mut self.beyond, new);
        self.keep_beyond(joined);
    }

    fn forget(&mut self, others: &Context, joined: &Context) {
        self.entries.retain_mut(|(key, content)| {
            content.forget(others, &known(&self.beyond, key, joined));
            !content.is_empty()
        });
        self.keep_beyond(joined);
    }

    fn absorbs(&self, own: &Context, other: &Self, others: &Context) -> bool {
        let under = |key: &K| known(&self.beyond, key, own);
        let is_there = |key: &K| find(&self.entries, key).is_some();
        other.beyond.iter().all(|(key, more)| under(key).covers(more))
            && self.entries.iter().all(|(key, content)| {
                let others = known(&other.beyond, key, others);
                match find(&other.entries, key) {
                    Some(theirs) => content.absorbs(&under(key), theirs, &others),
                    None => content.outlives(&others),
                }
            })
            && other
                .entries
                .iter()
                .all(|(key, theirs)| is_there(key) || theirs.is_known(&under(key)))
    }

    fn outlives(&self, others: &Context) -> bool {
        self.entries.iter().all(|(_, content)| content.outlives(others))
    }

    fn is_known(&self, context: &Context) -> bool {
        self.beyond.iter().all(|(_, more)| context.covers(more))
            && self.entries.iter().all(|(_, content)| content.is_known(context))
    }

    fn is_sound(&self, context: &Context) -> bool {
        self.beyond.iter().all(|(_, more)| more.without(context) == *more)
            && self
                .entries
                .iter()
                .all(|(key, content)| content.is_sound(&known(&self.beyond, key, context)))
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.beyond.is_empty()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (key, content) in &self.entries {
            key.encode(out);
            content.encode(out);
        }
        self.encode_beyond(out);
    }

    /// With the keys: they say where a dot lies, and one event may have put its dot under several.
    fn encode_digest(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (key, content) in &self.entries {
            key.encode(out);
            content.encode_digest(out);
        }
        self.encode_beyond(out);
    }
}

impl<K: Item, S> DotMap<K, S> {
    /// Keeps of what is known under keys only that which is not known around them.
    fn keep_beyond(&mut self, around: &Context) {
        self.beyond.retain_mut(|(_, more)| {
            *more = more.without(around);
            !more.is_empty()
        });
    }

    fn encode_beyond(&self, out: &mut Vec<u8>) {
        write_varint(out, self.beyond.len() as u64);
        for (key, more) in &self.beyond {
            key.encode(out);
            more.encode_into(out);
        }
    }
}

/// Puts entries with new keys between the old ones. Both are sorted, and the standard sort merges
/// two sorted runs in linear time.
pub(crate) fn weave<K: Ord, T>(
    entries: &mut (impl Extend<(K, T)> + DerefMut<Target = [(K, T)]>),
    new: Vec<(K, T)>,
) {
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

/// An actor with one interval.
const CONTEXT_BYTES_MIN: usize = 6;

/// For how many items memory is taken at once, whatever a list announces; more comes with the items
/// themselves. So nested lists cannot each reserve what only one of them can fill.
pub(crate) const RESERVED_MAX: usize = 16;
