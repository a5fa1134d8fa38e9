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
            Store::Set(elements) => elements.len() > 0,
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
    fn join(&mut self, own: &Context, other: Store, others: &Context, joined: &Context) {
        match (self, other) {
            (Store::Register(ours), Store::Register(theirs)) => {
                ours.join(own, theirs, others, joined);
            }
            (Store::Set(ours), Store::Set(theirs)) => ours.join(own, theirs, others, joined),
            (Store::Flag(ours), Store::Flag(theirs)) => ours.join(own, theirs, others, joined),
            (Store::Map(ours), Store::Map(theirs)) => ours.join(own, theirs, others, joined),
            (Store::Counter(ours), Store::Counter(theirs)) => ours.join(theirs),
            (Store::Lww(ours), Store::Lww(theirs)) => {
                if theirs > *ours {
                    *ours = theirs;
                }
            }
            (Store::Max(ours), Store::Max(theirs)) => *ours = (*ours).max(theirs),
            (ours, theirs) => unlike(ours, &theirs),
        }
    }

    fn forget(&mut self, others: &Context, joined: &Context) {
        match self {
            Store::Register(values) => values.forget(others, joined),
            Store::Set(elements) => elements.forget(others, joined),
            Store::Flag(dots) => dots.forget(others, joined),
            Store::Map(fields) => fields.forget(others, joined),
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => {}
        }
    }

    fn absorbs(&self, own: &Context, other: &Store, others: &Context) -> bool {
        match (self, other) {
            (Store::Register(ours), Store::Register(theirs)) => ours.absorbs(own, theirs, others),
            (Store::Set(ours), Store::Set(theirs)) => ours.absorbs(own, theirs, others),
            (Store::Flag(ours), Store::Flag(theirs)) => ours.absorbs(own, theirs, others),
            (Store::Map(ours), Store::Map(theirs)) => ours.absorbs(own, theirs, others),
            (Store::Counter(ours), Store::Counter(theirs)) => ours.absorbs(theirs),
            (Store::Lww(ours), Store::Lww(theirs)) => theirs <= ours,
            (Store::Max(ours), Store::Max(theirs)) => theirs <= ours,
            (ours, theirs) => unlike(ours, theirs),
        }
    }

    fn outlives(&self, others: &Context) -> bool {
        match self {
            Store::Register(values) => values.outlives(others),
            Store::Set(elements) => elements.outlives(others),
            Store::Flag(dots) => dots.outlives(others),
            Store::Map(fields) => fields.outlives(others),
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => true,
        }
    }

    /// What lies under no dot is known to nobody who does not have it.
    fn is_known(&self, context: &Context) -> bool {
        match self {
            Store::Register(values) => values.is_known(context),
            Store::Set(elements) => elements.is_known(context),
            Store::Flag(dots) => dots.is_known(context),
            Store::Map(fields) => fields.is_known(context),
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => self.is_empty(),
        }
    }

    fn is_sound(&self, context: &Context) -> bool {
        match self {
            Store::Register(values) => values.is_sound(context),
            Store::Set(elements) => elements.is_sound(context),
            Store::Flag(dots) => dots.is_sound(context),
            Store::Map(fields) => fields.is_sound(context),
            Store::Lww(_) | Store::Counter(_) | Store::Max(_) => true,
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
