//! What a reader is shown of a state, at a given time.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::cell::Cell;
use crate::codec::{DecodeError, Reader, write_bytes, write_signed, write_varint};
use crate::dots::{DOT_BYTES_MIN, Item, RESERVED_MAX, decode_dot, encode_dot};
use crate::store::Store;
use crate::{DEPTH_MAX, Dot, Field, Kind, State};

/// What a reader is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The values that stand side by side, in order of their dots.
    Register(Vec<Sibling>),
    /// The latest value.
    Lww(Option<Sibling>),
    /// The sum. Increments are refused beyond 64 bits, but two sides may each come close.
    Counter(i128),
    /// The elements, in ascending order.
    Set(Vec<Bytes>),
    /// Whether it is on.
    Flag(bool),
    /// The greatest number that was put.
    Max(Option<i64>),
    /// The fields that are there, in ascending order of name and kind.
    Map(Vec<(Field, Reading)>),
}

/// A value as a reader is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The name of the change that wrote it.
    pub dot: Dot,
    /// When, in wall milliseconds by the clock of its coordinator.
    pub written_ms: u64,
    /// From when on it is not shown any more, in wall milliseconds.
    pub expires_ms: Option<u64>,
    /// What the client wrote.
    pub value: Bytes,
}

impl State {
    /// What a reader is shown at `now_ms`. Values that have expired by then are left out, and so
    /// are repetitions: of values that one operation wrote, only that under the smallest dot.
    pub fn read(&self, now_ms: u64) -> Reading {
        self.store().read(now_ms)
    }

    /// Whether there is anything at `now_ms`: the key was written, and is neither deleted nor over.
    /// A counter that was counted to 0 has a value, one that was reset has none; nor has a flag that
    /// is off.
    pub fn has_value(&self, now_ms: u64) -> bool {
        self.store().is_alive() && !self.read(now_ms).is_nothing()
    }
}

impl Store {
    fn read(&self, now_ms: u64) -> Reading {
        match self {
            Store::Register(values) => {
                let mut operations = BTreeSet::new();
                let visible = |(dot, cell): (&Dot, &Cell)| Sibling::of(dot, cell, now_ms);
                let first = |(_, cell): &(&Dot, &Cell)| {
                    cell.operation == 0
                        || !cell.is_visible(now_ms)
                        || operations.insert(cell.operation)
                };
                Reading::Register(values.iter().filter(first).filter_map(visible).collect())
            }
            Store::Lww(latest) => Reading::Lww(
                latest
                    .as_ref()
                    .and_then(|latest| Sibling::of(&latest.dot, latest.value.as_ref()?, now_ms)),
            ),
            Store::Counter(counter) => Reading::Counter(counter.value()),
            Store::Set(elements) => {
                Reading::Set(elements.iter().map(|(element, _)| element.clone()).collect())
            }
            Store::Flag(_) => Reading::Flag(self.is_alive()),
            Store::Max(greatest) => Reading::Max(*greatest),
            Store::Map(fields) => {
                let shown = |(field, store): (&Field, &Store)| {
                    let reading = store.is_alive().then(|| store.read(now_ms))?;
                    (!reading.is_nothing()).then(|| (field.clone(), reading))
                };
                Reading::Map(fields.iter().filter_map(shown).collect())
            }
        }
    }
}

impl Sibling {
    fn of(dot: &Dot, cell: &Cell, now_ms: u64) -> Option<Sibling> {
        let value = cell.payload.clone().filter(|_| cell.is_visible(now_ms))?;
        let Cell { written_ms, expires_ms, .. } = *cell;
        Some(Sibling { dot: dot.clone(), written_ms, expires_ms, value })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_dot(&self.dot, out);
        write_varint(out, self.written_ms);
        out.push(self.expires_ms.is_some().into());
        if let Some(expires_ms) = self.expires_ms {
            write_varint(out, expires_ms);
        }
        write_bytes(out, &self.value);
    }

    fn decode(reader: &mut Reader) -> Result<Sibling, DecodeError> {
        let dot = decode_dot(reader)?;
        let written_ms = reader.varint()?;
        let expires_ms = yes_or_no(reader)?.then(|| reader.varint()).transpose()?;
        Ok(Sibling { dot, written_ms, expires_ms, value: reader.bytes()? })
    }
}

/// A dot, two numbers and a length.
const SIBLING_BYTES_MIN: usize = DOT_BYTES_MIN + 3;

impl Reading {
    /// What kind of value was read.
    pub fn kind(&self) -> Kind {
        match self {
            Reading::Register(_) => Kind::Register,
            Reading::Lww(_) => Kind::Lww,
            Reading::Counter(_) => Kind::Counter,
            Reading::Set(_) => Kind::Set,
            Reading::Flag(_) => Kind::Flag,
            Reading::Max(_) => Kind::Max,
            Reading::Map(_) => Kind::Map,
        }
    }

    /// Whether there is nothing to show. A counter and a flag always show something: one that was
    /// never touched is at 0, or off.
    pub fn is_nothing(&self) -> bool {
        match self {
            Reading::Register(siblings) => siblings.is_empty(),
            Reading::Lww(latest) => latest.is_none(),
            Reading::Set(elements) => elements.is_empty(),
            Reading::Max(greatest) => greatest.is_none(),
            Reading::Map(fields) => fields.is_empty(),
            Reading::Counter(_) | Reading::Flag(_) => false,
        }
    }

    /// The canonical bytes: the kind's number, then
    ///
    /// ```text
    ///   register   list of siblings: dot | written | 0, or 1 | expires | value
    ///   lww        0, or 1 | sibling
    ///   counter    16 bytes, big-endian with sign
    ///   set        list of elements, ascending
    ///   flag       0 or 1
    ///   max        0, or 1 | number (with sign)
    ///   map        list of fields, ascending: name | kind | what follows the kind's number here
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind().number()];
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Reading::Register(siblings) => {
                write_varint(out, siblings.len() as u64);
                siblings.iter().for_each(|sibling| sibling.encode(out));
            }
            Reading::Lww(latest) => {
                out.push(latest.is_some().into());
                latest.iter().for_each(|latest| latest.encode(out));
            }
            Reading::Counter(value) => out.extend_from_slice(&value.to_be_bytes()),
            Reading::Set(elements) => {
                write_varint(out, elements.len() as u64);
                elements.iter().for_each(|element| write_bytes(out, element));
            }
            Reading::Flag(is_on) => out.push((*is_on).into()),
            Reading::Max(greatest) => {
                out.push(greatest.is_some().into());
                greatest.iter().for_each(|greatest| write_signed(out, *greatest));
            }
            Reading::Map(fields) => {
                write_varint(out, fields.len() as u64);
                for (field, reading) in fields {
                    field.encode(out);
                    reading.encode_into(out);
                }
            }
        }
    }

    /// Reads the canonical bytes and refuses all others. Values and elements are slices of `input`,
    /// not copies.
    pub fn decode(input: &Bytes) -> Result<Reading, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let number = reader.byte()?;
        let kind = Kind::of_number(number).ok_or(DecodeError::Tag(number))?;
        let reading = Reading::decode_from(&mut reader, kind, 1)?;
        reader.finish()?;
        Ok(reading)
    }

    fn decode_from(reader: &mut Reader, kind: Kind, depth: usize) -> Result<Reading, DecodeError> {
        Ok(match kind {
            Kind::Register => {
                let siblings = list(reader, SIBLING_BYTES_MIN, Sibling::decode)?;
                if !siblings.is_sorted_by(|a, b| a.dot < b.dot) {
                    return Err(DecodeError::Order);
                }
                Reading::Register(siblings)
            }
            Kind::Lww => {
                let latest = yes_or_no(reader)?.then(|| Sibling::decode(reader)).transpose()?;
                Reading::Lww(latest)
            }
            Kind::Counter => Reading::Counter(reader.u128()? as i128),
            Kind::Set => {
                let elements = list(reader, 1, Reader::bytes)?;
                if !elements.is_sorted_by(|a, b| a < b) {
                    return Err(DecodeError::Order);
                }
                Reading::Set(elements)
            }
            Kind::Flag => Reading::Flag(yes_or_no(reader)?),
            Kind::Max => Reading::Max(yes_or_no(reader)?.then(|| reader.signed()).transpose()?),
            Kind::Map if depth > DEPTH_MAX => return Err(DecodeError::TooDeep),
            Kind::Map => {
                let fields = list(reader, Field::BYTES_MIN + 1, |reader| {
                    let field = Field::decode(reader)?;
                    let reading = Reading::decode_from(reader, field.kind, depth + 1)?;
                    Ok((field, reading))
                })?;
                if !fields.is_sorted_by(|(a, _), (b, _)| a < b) {
                    return Err(DecodeError::Order);
                }
                Reading::Map(fields)
            }
        })
    }
}

fn yes_or_no(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError::Tag(other)),
    }
}

fn list<T>(
    reader: &mut Reader,
    item_bytes_min: usize,
    mut item: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count(item_bytes_min)?;
    let mut items = Vec::with_capacity(count.min(RESERVED_MAX));
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}
