//! What is alive of a key, and under which dot.
//!
//! A [`DotStore`] holds dots in some shape. Together with a context it is a state
//! ([`Causal`](crate::Causal)), and *one* rule joins states of every shape: keep a dot that both
//! have, or that one has and the other's context does not know. A dot that the other knows and no
//! longer has, it has seen die.
//!
//! ```text
//!   DotSet        { dot, dot }                   a flag: on while any dot is alive
//!   DotFun<V>     { dot -> value, ... }          a register: concurrent values stand side by side
//!   DotMap<K, S>  { key -> store, ... }          a set (of DotSet), a map (of DotFun), or deeper
//! ```
//!
//! All three are sorted lists and not trees: a record mostly has one dot, a list of one is one
//! small allocation, and a join must look at each own dot anyway. A further kind of value is a
//! further store here, not a further mechanism.

use std::cmp::Ordering;
use std::fmt::Debug;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, write_bytes, write_varint};
use crate::{Actor, Context, Dot};

/// A shape in which dots are kept alive. Implementations are canonical: equal stores have equal
/// bytes.
pub trait DotStore: Clone + Debug + Default + Eq {
    /// The first byte of an encoded state. Low half: what the leaves are ([`Item::KIND`]); high
    /// half: how many maps deep they lie. So 0x01 is a register, 0x02 a flag, 0x12 a set, 0x11 a
    /// map of registers.
    const KIND: u8;
    /// The fewest bytes that a store with something in it takes.
    const BYTES_MIN: usize;

    /// Keeps each dot that both have, or that one has and the other's context does not know.
    fn join(&mut self, own_context: &Context, other: Self, other_context: &Context);

    /// Whether every dot here survives a join with `other`, unchanged. (Not whether the join would
    /// add something.)
    fn survives(&self, other: &Self, other_context: &Context) -> bool;

    /// Whether nothing is alive.
    fn is_empty(&self) -> bool;

    /// Shows each dot, in the order of the store.
    fn dots(&self, visit: &mut dyn FnMut(&Dot));

    /// Appends the canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Appends what a digest is made of: the dots and where they lie, without the payload.
    fn encode_dots(&self, out: &mut Vec<u8>);

    /// Reads the canonical bytes and refuses all others. Whether the dots are covered is checked by
    /// the caller.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError>;
}

/// What a store may hold: the value under a dot, or the key of a map.
///
/// The order decides which of two values survives should one dot ever carry both; that happens only
/// if something below us broke, and then replicas must still become equal. The greater one wins, so
/// a payload wins over none.
pub trait Item: Clone + Debug + Ord {
    /// What a store with such values is, see [`DotStore::KIND`]. Less than 16.
    const KIND: u8;
    /// The fewest bytes that one takes.
    const BYTES_MIN: usize;

    /// Appends the canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the canonical bytes and refuses all others.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError>;
}

/// Values and keys of users: any bytes. Decoded as slices of the input, not as copies.
impl Item for Bytes {
    const KIND: u8 = 1;
    const BYTES_MIN: usize = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, self);
    }

    fn decode(reader: &mut Reader) -> Result<Bytes, DecodeError> {
        reader.bytes()
    }
}

/// Nothing: what a flag stores under its dots. That they are there is all it says.
impl Item for () {
    const KIND: u8 = 2;
    const BYTES_MIN: usize = 0;

    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &mut Reader) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// Dot -> value: a register, where concurrent writes stand side by side as siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DotFun<V> {
    /// Sorted by dot, each dot once.
    entries: Vec<(Dot, V)>,
}

/// Dots alone: a flag, which is on while any of them is alive.
pub type DotSet = DotFun<()>;

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

    /// Whether no dot is alive.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<V> Default for DotFun<V> {
    fn default() -> DotFun<V> {
        DotFun { entries: Vec::new() }
    }
}

impl<V: Item> DotStore for DotFun<V> {
    const KIND: u8 = V::KIND;
    const BYTES_MIN: usize = 1 + DOT_BYTES_MIN + V::BYTES_MIN;

    fn join(&mut self, own_context: &Context, other: Self, other_context: &Context) {
        let ours = std::mem::take(&mut self.entries);
        self.entries.reserve_exact(ours.len().max(other.entries.len()));
        for pair in pairs(ours, other.entries) {
            match pair {
                Pair::Both(dot, ours, theirs) => self.entries.push((dot, ours.max(theirs))),
                Pair::Ours(dot, value) if !other_context.contains(&dot) => {
                    self.entries.push((dot, value));
                }
                Pair::Theirs(dot, value) if !own_context.contains(&dot) => {
                    self.entries.push((dot, value));
                }
                Pair::Ours(..) | Pair::Theirs(..) => {} // the other side has seen it die
            }
        }
    }

    fn survives(&self, other: &Self, other_context: &Context) -> bool {
        self.entries.iter().all(|(dot, value)| match find(&other.entries, dot) {
            Some(theirs) => theirs <= value,
            None => !other_context.contains(dot),
        })
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn dots(&self, visit: &mut dyn FnMut(&Dot)) {
        self.entries.iter().for_each(|(dot, _)| visit(dot));
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (dot, value) in &self.entries {
            encode_dot(dot, out);
            value.encode(out);
        }
    }

    fn encode_dots(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        self.entries.iter().for_each(|(dot, _)| encode_dot(dot, out));
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.count(DOT_BYTES_MIN + V::BYTES_MIN)?;
        let mut entries: Vec<(Dot, V)> = Vec::with_capacity(count);
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

/// Key -> store: a set of elements, a map of fields, or a map of those. A key whose store is empty
/// is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DotMap<K, S> {
    /// Sorted by key, each key once, no store empty.
    entries: Vec<(K, S)>,
}

impl<K: Item, S: DotStore> DotMap<K, S> {
    /// A single key; nothing if its store is empty.
    pub fn one(key: K, store: S) -> DotMap<K, S> {
        let entries = if store.is_empty() { Vec::new() } else { vec![(key, store)] };
        DotMap { entries }
    }

    /// What lies under a key.
    pub fn get(&self, key: &K) -> Option<&S> {
        find(&self.entries, key)
    }

    /// The keys and what lies under them, in order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &S)> {
        self.entries.iter().map(|(key, store)| (key, store))
    }
}

impl<K, S> Default for DotMap<K, S> {
    fn default() -> DotMap<K, S> {
        DotMap { entries: Vec::new() }
    }
}

impl<K: Item, S: DotStore> DotStore for DotMap<K, S> {
    const KIND: u8 = S::KIND + 0x10;
    const BYTES_MIN: usize = 1 + K::BYTES_MIN + S::BYTES_MIN;

    fn join(&mut self, own_context: &Context, other: Self, other_context: &Context) {
        let ours = std::mem::take(&mut self.entries);
        self.entries.reserve_exact(ours.len().max(other.entries.len()));
        for pair in pairs(ours, other.entries) {
            let (key, mut store, theirs) = match pair {
                Pair::Both(key, ours, theirs) => (key, ours, theirs),
                Pair::Ours(key, ours) => (key, ours, S::default()),
                Pair::Theirs(key, theirs) => (key, S::default(), theirs),
            };
            store.join(own_context, theirs, other_context);
            if !store.is_empty() {
                self.entries.push((key, store));
            }
        }
    }

    fn survives(&self, other: &Self, other_context: &Context) -> bool {
        self.entries.iter().all(|(key, store)| match find(&other.entries, key) {
            Some(theirs) => store.survives(theirs, other_context),
            None => store.survives(&S::default(), other_context),
        })
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn dots(&self, visit: &mut dyn FnMut(&Dot)) {
        self.entries.iter().for_each(|(_, store)| store.dots(visit));
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (key, store) in &self.entries {
            key.encode(out);
            store.encode(out);
        }
    }

    /// With the keys: they say where a dot lies, and one event may have put its dot under several.
    fn encode_dots(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (key, store) in &self.entries {
            key.encode(out);
            store.encode_dots(out);
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.count(K::BYTES_MIN + S::BYTES_MIN)?;
        let mut entries: Vec<(K, S)> = Vec::with_capacity(count);
        for _ in 0..count {
            let key = K::decode(reader)?;
            if entries.last().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::Order);
            }
            let store = S::decode(reader)?;
            if store.is_empty() {
                return Err(DecodeError::Empty);
            }
            entries.push((key, store));
        }
        Ok(DotMap { entries })
    }
}

/// One key of two sorted lists, and what each of them has under it.
enum Pair<K, T> {
    Ours(K, T),
    Both(K, T, T),
    Theirs(K, T),
}

/// Walks two sorted lists as one.
fn pairs<K: Ord, T>(ours: Vec<(K, T)>, theirs: Vec<(K, T)>) -> impl Iterator<Item = Pair<K, T>> {
    let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
    std::iter::from_fn(move || {
        let order = match (ours.peek(), theirs.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => ours.next().map(|(key, own)| Pair::Ours(key, own)),
            Ordering::Greater => theirs.next().map(|(key, other)| Pair::Theirs(key, other)),
            Ordering::Equal => {
                ours.next().zip(theirs.next()).map(|((key, a), (_, b))| Pair::Both(key, a, b))
            }
        }
    })
}

fn find<'a, K: Ord, T>(entries: &'a [(K, T)], key: &K) -> Option<&'a T> {
    entries.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|index| &entries[index].1)
}

fn encode_dot(dot: &Dot, out: &mut Vec<u8>) {
    write_varint(out, dot.actor.node.into());
    write_varint(out, dot.actor.incarnation.into());
    write_varint(out, dot.counter);
}

fn decode_dot(reader: &mut Reader) -> Result<Dot, DecodeError> {
    let actor = Actor::new(reader.varint_u32()?, reader.varint_u32()?);
    Ok(Dot { actor, counter: reader.varint()? })
}

/// Node, incarnation, counter, a byte each.
const DOT_BYTES_MIN: usize = 3;
