//! What a client wants done to a key, before anyone knows what comes of it.
//!
//! Clients send operations, not states: only a coordinator may give events. It turns the operation
//! into a delta ([`State::change`](crate::State::change)) in the key's turn.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, write_bytes, write_signed, write_varint};
use crate::dots::{Item, RESERVED_MAX};
use crate::{DEPTH_MAX, Kind};

/// What a client wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Register, lww: writes a value. In a register that is a key's value it replaces what the
    /// client had seen; in a register inside a map also what the coordinator knows, if the client
    /// said nothing.
    Put {
        /// Any bytes.
        value: Bytes,
        /// Wall milliseconds since 1970 from which on no reader is shown it.
        expires_ms: Option<u64>,
    },
    /// Counter: adds, or takes away.
    Increment(Increment),
    /// Set: these elements are in it. It wins over removals that have not seen it.
    Add(Vec<Bytes>),
    /// Set: these elements, as far as they were seen, are not in it.
    Remove(Vec<Bytes>),
    /// Flag: on. It wins over a disabling that has not seen it.
    Enable,
    /// Flag: off, as far as it was seen on.
    Disable,
    /// Max: at least this.
    Raise(i64),
    /// Map: changes of fields, each once, all in one event.
    Update(Vec<(Field, FieldChange)>),
    /// A delete, for any kind but max. Register, set, flag, map: what was seen is gone. Counter:
    /// back to 0, as far as it was seen. Lww: the latest value is that there is none.
    Clear,
}

/// How a counter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Increment {
    /// By a session of a client. Counts once, however often and wherever it is repeated.
    Session {
        /// The session's number, chosen at random by the client.
        session: u128,
        /// Greater with each change of this counter by this session, from 1.
        sequence: u64,
        /// All that this session has added to this counter so far, this change included. Goes on
        /// over resets.
        total: i64,
    },
    /// Without a session: if it is repeated, it counts again.
    Once(i64),
}

/// A field of a map. The same name with two kinds is two fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    /// Any bytes, at most [`NAME_BYTES_MAX`](crate::NAME_BYTES_MAX).
    pub name: Bytes,
    /// What the field holds.
    pub kind: Kind,
}

/// What happens to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldChange {
    /// It is changed; it comes into being if it is not there.
    Change(Operation),
    /// It is removed, as far as it was seen; the same as changing it by [`Operation::Clear`].
    Remove,
}

/// The most elements and fields that one operation may list in all, 10,000. Reason: a field takes
/// three bytes and becomes a hundred; and no set or level of a map may have more than a thousand.
const ITEMS_MAX: usize = 10_000;

impl Operation {
    /// Whether it makes sense for that kind, with all fields that it changes.
    pub fn suits(&self, kind: Kind) -> bool {
        let fields_suit = match self {
            Operation::Update(fields) => fields.iter().all(|(field, change)| match change {
                FieldChange::Change(operation) => operation.suits(field.kind),
                FieldChange::Remove => field.kind != Kind::Max,
            }),
            _ => true,
        };
        fields_suit && self.fits(kind)
    }

    /// Whether doing it again changes nothing, anywhere and at any time: increments of a session, and
    /// maxima. Repeating an addition to a set would bring back what was removed in between.
    pub fn repeats_safely(&self) -> bool {
        match self {
            Operation::Increment(Increment::Session { .. }) | Operation::Raise(_) => true,
            Operation::Update(fields) => fields.iter().all(|(_, change)| match change {
                FieldChange::Change(operation) => operation.repeats_safely(),
                FieldChange::Remove => false,
            }),
            Operation::Increment(Increment::Once(_))
            | Operation::Put { .. }
            | Operation::Add(_)
            | Operation::Remove(_)
            | Operation::Enable
            | Operation::Disable
            | Operation::Clear => false,
        }
    }

    /// Whether it writes a last-write-wins value somewhere, so that its coordinator's clock matters.
    pub fn goes_by_time(&self, kind: Kind) -> bool {
        match self {
            Operation::Put { .. } | Operation::Clear => matches!(kind, Kind::Lww | Kind::Map),
            Operation::Update(fields) => fields.iter().any(|(field, change)| match change {
                FieldChange::Remove => Operation::Clear.goes_by_time(field.kind),
                FieldChange::Change(operation) => operation.goes_by_time(field.kind),
            }),
            Operation::Increment(_)
            | Operation::Add(_)
            | Operation::Remove(_)
            | Operation::Enable
            | Operation::Disable
            | Operation::Raise(_) => false,
        }
    }

    /// Whether it makes sense for that kind, leaving aside the fields that it changes.
    pub(crate) fn fits(&self, kind: Kind) -> bool {
        match self {
            Operation::Put { .. } => matches!(kind, Kind::Register | Kind::Lww),
            Operation::Increment(_) => kind == Kind::Counter,
            Operation::Add(_) | Operation::Remove(_) => kind == Kind::Set,
            Operation::Enable | Operation::Disable => kind == Kind::Flag,
            Operation::Raise(_) => kind == Kind::Max,
            Operation::Update(_) => kind == Kind::Map,
            Operation::Clear => kind != Kind::Max,
        }
    }

    /// Whether it takes something away, so that its coordinator must know what: a removal, a
    /// disabling, a clearing, or a put that replaces a register inside a map.
    ///
    /// Then, without a context, the coordinator first reads strictly; with one, it first makes sure
    /// that what it knows covers it. (Clearing an lww takes nothing away: it is a stamped write.)
    pub fn takes_away(&self, kind: Kind) -> bool {
        match self {
            Operation::Remove(_) | Operation::Disable => true,
            Operation::Clear => kind != Kind::Lww,
            Operation::Update(fields) => fields.iter().any(|(field, change)| match change {
                FieldChange::Remove => true,
                FieldChange::Change(Operation::Put { .. }) => field.kind == Kind::Register,
                FieldChange::Change(operation) => operation.takes_away(field.kind),
            }),
            Operation::Put { .. }
            | Operation::Increment(_)
            | Operation::Add(_)
            | Operation::Enable
            | Operation::Raise(_) => false,
        }
    }

    /// What people call it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Operation::Put { .. } => "put",
            Operation::Increment(_) => "increment",
            Operation::Add(_) => "add",
            Operation::Remove(_) => "remove",
            Operation::Enable => "enable",
            Operation::Disable => "disable",
            Operation::Raise(_) => "raise",
            Operation::Update(_) => "update",
            Operation::Clear => "clear",
        }
    }

    /// The bytes: a tag, then what belongs to it. Lists stay in the client's order.
    ///
    /// ```text
    ///   1 put                  0 | value, or 1 | expires | value
    ///   2 session increment    session, 16 bytes | sequence number | total (with sign)
    ///   3 increment once       number (with sign)
    ///   4 add     5 remove     list of elements
    ///   6 enable  7 disable
    ///   8 raise                number (with sign)
    ///   9 update               list of: name | kind | 0 (remove), or 1 | operation
    ///  10 clear
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        let list = |out: &mut Vec<u8>, elements: &[Bytes]| {
            write_varint(out, elements.len() as u64);
            elements.iter().for_each(|element| write_bytes(out, element));
        };
        match self {
            Operation::Put { value, expires_ms } => {
                out.push(1);
                out.push(expires_ms.is_some().into());
                if let Some(expires_ms) = expires_ms {
                    write_varint(out, *expires_ms);
                }
                write_bytes(out, value);
            }
            Operation::Increment(Increment::Session { session, sequence, total }) => {
                out.push(2);
                out.extend_from_slice(&session.to_be_bytes());
                write_varint(out, *sequence);
                write_signed(out, *total);
            }
            Operation::Increment(Increment::Once(number)) => {
                out.push(3);
                write_signed(out, *number);
            }
            Operation::Add(elements) => {
                out.push(4);
                list(out, elements);
            }
            Operation::Remove(elements) => {
                out.push(5);
                list(out, elements);
            }
            Operation::Enable => out.push(6),
            Operation::Disable => out.push(7),
            Operation::Raise(number) => {
                out.push(8);
                write_signed(out, *number);
            }
            Operation::Update(fields) => {
                out.push(9);
                write_varint(out, fields.len() as u64);
                for (field, change) in fields {
                    field.encode(out);
                    match change {
                        FieldChange::Remove => out.push(0),
                        FieldChange::Change(operation) => {
                            out.push(1);
                            operation.encode_into(out);
                        }
                    }
                }
            }
            Operation::Clear => out.push(10),
        }
    }

    /// Reads those bytes and refuses all others. Values and elements are slices of `input`, not
    /// copies. An operation that decodes may still be refused for what it asks.
    pub fn decode(input: &Bytes) -> Result<Operation, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let mut items_left = ITEMS_MAX;
        let operation = Operation::decode_from(&mut reader, 1, &mut items_left)?;
        reader.finish()?;
        Ok(operation)
    }

    /// `items_left` is how many elements and fields may still come.
    fn decode_from(
        reader: &mut Reader,
        depth: usize,
        items_left: &mut usize,
    ) -> Result<Operation, DecodeError> {
        let mut list = |reader: &mut Reader| {
            let count = reader.count(1)?;
            *items_left = items_left.checked_sub(count).ok_or(DecodeError::TooMany)?;
            let mut elements = Vec::with_capacity(count.min(RESERVED_MAX));
            for _ in 0..count {
                elements.push(reader.bytes()?);
            }
            Ok(elements)
        };
        Ok(match reader.byte()? {
            1 => {
                let expires_ms = match reader.byte()? {
                    0 => None,
                    1 => Some(reader.varint()?),
                    other => return Err(DecodeError::Tag(other)),
                };
                Operation::Put { value: reader.bytes()?, expires_ms }
            }
            2 => Operation::Increment(Increment::Session {
                session: reader.u128()?,
                sequence: reader.varint()?,
                total: reader.signed()?,
            }),
            3 => Operation::Increment(Increment::Once(reader.signed()?)),
            4 => Operation::Add(list(reader)?),
            5 => Operation::Remove(list(reader)?),
            6 => Operation::Enable,
            7 => Operation::Disable,
            8 => Operation::Raise(reader.signed()?),
            9 if depth > DEPTH_MAX => return Err(DecodeError::TooDeep),
            9 => {
                let count = reader.count(Field::BYTES_MIN + 1)?;
                *items_left = items_left.checked_sub(count).ok_or(DecodeError::TooMany)?;
                let mut fields = Vec::with_capacity(count.min(RESERVED_MAX));
                for _ in 0..count {
                    let field = Field::decode(reader)?;
                    let change = match reader.byte()? {
                        0 => FieldChange::Remove,
                        1 => FieldChange::Change(Operation::decode_from(
                            reader,
                            depth + 1,
                            items_left,
                        )?),
                        other => return Err(DecodeError::Tag(other)),
                    };
                    fields.push((field, change));
                }
                Operation::Update(fields)
            }
            10 => Operation::Clear,
            other => return Err(DecodeError::Tag(other)),
        })
    }
}
