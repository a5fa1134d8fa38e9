//! What a key or a field holds: one of seven kinds of content, and one join for all of them.
//!
//! ```text
//!   register   dot -> cell          ┐
//!   set        element -> dots      │ dot stores: the contexts say what is gone
//!   flag       dots                 ┘
//!   lww        the latest cell      ┐
//!   counter    session -> totals    │ lattices: the greater wins, and nothing is ever gone
//!   max        the greatest number  ┘
//!   map        (name, kind) -> any of these: a dot store whose fields may be lattices
//! ```

use bytes::Bytes;

use crate::cell::Cell;
use crate::codec::{DecodeError, Reader, write_signed, write_varint};
use crate::counter::Counter;
use crate::dots::{Content, DotFun, DotMap, DotSet, Item, decode_dot, encode_dot};
use crate::{Context, DEPTH_MAX, Dot, Field, Hybrid, Kind};

/// The content of a key, or of a field of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Register(DotFun<Cell>),
    Lww(Option<Box<Lww>>),
    Counter(Counter),
    Set(DotMap<Bytes, DotSet>),
    Flag(DotSet),
    Max(Option<i64>),
    Map(DotMap<Field, Store>),
}

/// The latest value, or its latest deletion. Later is greater.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lww {
    pub at: Hybrid,
    pub dot: Dot,
    /// Nothing: it was deleted at that time.
    pub value: Option<Cell>,
}

impl Store {
    /// Nothing of the given kind.
    pub fn empty(kind: Kind) -> Store {
        match kind {
            Kind::Register => Store::Register(DotFun::default()),
            Kind::Lww => Store::Lww(None),
            Kind::Counter => Store::Counter(Counter::default()),
            Kind::Set => Store::Set(DotMap::default()),
            Kind::Flag => Store::Flag(DotSet::default()),
            Kind::Max => Store::Max(None),
            Kind::Map => Store::Map(DotMap::default()),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Store::Register(_) => Kind::Register,
            Store::Lww(_) => Kind::Lww,
            Store::Counter(_) => Kind::Counter,
            Store::Set(_) => Kind::Set,
            Store::Flag(_) => Kind::Flag,
            Store::Max(_) => Kind::Max,
            Store::Map(_) => Kind::Map,
        }
    }

    /// Whether there is something that a reader may be shown, expired or not.
    pub fn is_alive(&self) -> bool {
        match self {
            Store::Register(values) => !values.is_empty(),
            Store::Lww(latest) => latest.as_ref().is_some_and(|latest| latest.value.is_some()),
            Store::Counter(counter) => counter.is_alive(),
            Store::Set(elements) => !elements.is_empty(),
            Store::Flag(dots) => !dots.is_empty(),
            Store::Max(greatest) => greatest.is_some(),
            Store::Map(fields) => fields.iter().any(|(_, store)| store.is_alive()),
        }
    }

    /// Reads the canonical bytes of one kind and refuses all others. A map that is a key's value is
    /// at depth 1, the maps in it at depth 2.
    pub fn decode(reader: &mut Reader, kind: Kind, depth: usize) -> Result<Store, DecodeError> {
        Ok(match kind {
            Kind::Register => Store::Register(DotFun::decode(reader)?),
            Kind::Lww => Store::Lww(Lww::decode(reader)?),
            Kind::Counter => Store::Counter(Counter::decode(reader)?),
            Kind::Set => {
                let dots = |reader: &mut Reader, _: &Bytes| DotSet::decode(reader);
                Store::Set(DotMap::decode(reader, DotSet::BYTES_MIN, dots)?)
            }
            Kind::Flag => Store::Flag(DotSet::decode(reader)?),
            Kind::Max => Store::Max(match reader.byte()? {
                0 => None,
                1 => Some(reader.signed()?),
                other => return Err(DecodeError::Tag(other)),
            }),
            Kind::Map if depth > DEPTH_MAX => return Err(DecodeError::TooDeep),
            Kind::Map => {
                let field = |reader: &mut Reader, field: &Field| {
                    Store::decode(reader, field.kind, depth + 1)
                };
                Store::Map(DotMap::decode(reader, MAX_BYTES_MIN, field)?)
            }
        })
    }
}

/// A tag and a number: the smallest content there is.
const MAX_BYTES_MIN: usize = 2;

impl Content for Store {
    /// Panics if the kinds differ.
    fn join(&mut self, own_context: &Context, other: Store, other_context: &Context) {
        match (self, other) {
            (Store::Register(own), Store::Register(other)) => {
                own.join(own_context, other, other_context);
            }
            (Store::Set(own), Store::Set(other)) => own.join(own_context, other, other_context),
            (Store::Flag(own), Store::Flag(other)) => own.join(own_context, other, other_context),
            (Store::Map(own), Store::Map(other)) => own.join(own_context, other, other_context),
            (Store::Counter(own), Store::Counter(other)) => own.join(other),
            (Store::Lww(own), Store::Lww(other)) => {
                if other > *own {
                    *own = other;
                }
            }
            (Store::Max(own), Store::Max(other)) => *own = (*own).max(other),
            (own, other) => unlike(own, &other),
        }
    }

    fn forget(&mut self, seen: &Context) {
        match self {
            Store::Register(values) => values.forget(seen),
            Store::Set(elements) => elements.forget(seen),
            Store::Flag(dots) => dots.forget(seen),
            Store::Map(fields) => fields.forget(seen),
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => {}
        }
    }

    fn absorbs(&self, other: &Store, other_context: &Context) -> bool {
        match (self, other) {
            (Store::Register(own), Store::Register(other)) => own.absorbs(other, other_context),
            (Store::Set(own), Store::Set(other)) => own.absorbs(other, other_context),
            (Store::Flag(own), Store::Flag(other)) => own.absorbs(other, other_context),
            (Store::Map(own), Store::Map(other)) => own.absorbs(other, other_context),
            (Store::Counter(own), Store::Counter(other)) => own.absorbs(other),
            (Store::Lww(own), Store::Lww(other)) => other <= own,
            (Store::Max(own), Store::Max(other)) => other <= own,
            (own, other) => unlike(own, other),
        }
    }

    fn outlives(&self, seen: &Context) -> bool {
        match self {
            Store::Register(values) => values.outlives(seen),
            Store::Set(elements) => elements.outlives(seen),
            Store::Flag(dots) => dots.outlives(seen),
            Store::Map(fields) => fields.outlives(seen),
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => true,
        }
    }

    fn remembers(&self) -> bool {
        match self {
            Store::Register(_) | Store::Set(_) | Store::Flag(_) => false,
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => !self.is_empty(),
            Store::Map(fields) => fields.remembers(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Store::Register(values) => values.is_empty(),
            Store::Lww(latest) => latest.is_none(),
            Store::Counter(counter) => counter.is_empty(),
            Store::Set(elements) => elements.is_empty(),
            Store::Flag(dots) => dots.is_empty(),
            Store::Max(greatest) => greatest.is_none(),
            Store::Map(fields) => fields.is_empty(),
        }
    }

    /// Dots of dot stores only: that of a last-write-wins value is a part of its time.
    fn dots(&self, visit: &mut dyn FnMut(&Dot, bool)) {
        match self {
            Store::Register(values) => values.dots(visit),
            Store::Set(elements) => elements.dots(visit),
            Store::Flag(dots) => dots.dots(visit),
            Store::Map(fields) => fields.dots(visit),
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => {}
        }
    }

    fn restricted(&self, wanted: &Context, undotted: bool) -> Store {
        match self {
            Store::Register(values) => Store::Register(values.restricted(wanted, undotted)),
            Store::Set(elements) => Store::Set(elements.restricted(wanted, undotted)),
            Store::Flag(dots) => Store::Flag(dots.restricted(wanted, undotted)),
            Store::Map(fields) => Store::Map(fields.restricted(wanted, undotted)),
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) if undotted => self.clone(),
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => Store::empty(self.kind()),
        }
    }

    fn subtract(&mut self, gone: &Store) {
        match (self, gone) {
            (Store::Register(own), Store::Register(gone)) => own.subtract(gone),
            (Store::Set(own), Store::Set(gone)) => own.subtract(gone),
            (Store::Flag(own), Store::Flag(gone)) => own.subtract(gone),
            (Store::Map(own), Store::Map(gone)) => own.subtract(gone),
            (Store::Lww(_), Store::Lww(_))
            | (Store::Counter(_), Store::Counter(_))
            | (Store::Max(_), Store::Max(_)) => {}
            (own, gone) => unlike(own, gone),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Store::Register(values) => values.encode(out),
            Store::Lww(latest) => Lww::encode(latest.as_deref(), out, Cell::encode),
            Store::Counter(counter) => counter.encode(out),
            Store::Set(elements) => elements.encode(out),
            Store::Flag(dots) => dots.encode(out),
            Store::Max(None) => out.push(0),
            Store::Max(Some(greatest)) => {
                out.push(1);
                write_signed(out, *greatest);
            }
            Store::Map(fields) => fields.encode(out),
        }
    }

    fn encode_digest(&self, out: &mut Vec<u8>) {
        match self {
            Store::Register(values) => values.encode_digest(out),
            Store::Lww(latest) => Lww::encode(latest.as_deref(), out, Cell::encode_digest),
            Store::Set(elements) => elements.encode_digest(out),
            Store::Flag(dots) => dots.encode_digest(out),
            Store::Map(fields) => fields.encode_digest(out),
            Store::Counter(_) | Store::Max(_) => self.encode(out),
        }
    }
}

/// Two kinds meet under one key or field: our own promise is broken, whoever decodes checks kinds.
fn unlike(own: &Store, other: &Store) -> ! {
    panic!("a {} was joined into a {}", other.kind(), own.kind())
}

impl Lww {
    /// Appends the canonical bytes, with the value as `cell` writes it.
    ///
    /// ```text
    ///   0: nothing yet    1: deleted    2: a value
    ///   time, 8 bytes | dot | cell
    /// ```
    fn encode(latest: Option<&Lww>, out: &mut Vec<u8>, cell: impl Fn(&Cell, &mut Vec<u8>)) {
        let Some(Lww { at, dot, value }) = latest else {
            return out.push(0);
        };
        out.push(if value.is_some() { 2 } else { 1 });
        out.extend_from_slice(&at.0.to_be_bytes());
        encode_dot(dot, out);
        if let Some(value) = value {
            cell(value, out);
        }
    }

    fn decode(reader: &mut Reader) -> Result<Option<Box<Lww>>, DecodeError> {
        let has_value = match reader.byte()? {
            0 => return Ok(None),
            1 => false,
            2 => true,
            other => return Err(DecodeError::Tag(other)),
        };
        let at = Hybrid(reader.u64()?);
        let dot = decode_dot(reader)?;
        let value = has_value.then(|| Cell::decode(reader)).transpose()?;
        Ok(Some(Box::new(Lww { at, dot, value })))
    }
}

/// A field's name, and the number of its kind.
impl Item for Field {
    const BYTES_MIN: usize = 2;

    fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.name.len() as u64);
        out.extend_from_slice(&self.name);
        out.push(self.kind.number());
    }

    fn decode(reader: &mut Reader) -> Result<Field, DecodeError> {
        let name = reader.bytes()?;
        let number = reader.byte()?;
        let kind = Kind::of_number(number).ok_or(DecodeError::Tag(number))?;
        Ok(Field { name, kind })
    }
}
