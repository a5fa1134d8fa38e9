//! One written value, and what every replica must know about it.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, write_bytes, write_varint};
use crate::dots::Item;

/// A value as it lies under its dot.
///
/// ```text
///   flags        1 byte     1: expires   2: the payload is here   4: mixed
///   written      number     wall milliseconds of the coordinator, for people
///   expires      number     wall milliseconds, if it does
///   operation    16 bytes   the client's operation, or 0
///   payload      bytes      unless it was freed
/// ```
///
/// The payload of an expired value may be freed on one replica before another. Where both meet, the
/// copy that still has it wins: that is what the order of fields here says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    /// What the client wrote, unless it was freed.
    pub payload: Option<Bytes>,
    /// When, by the coordinator's clock. Nothing is decided by it.
    pub written_ms: u64,
    /// From when on no reader is shown it.
    pub expires_ms: Option<u64>,
    /// Which operation of a client wrote it. A repeated operation writes its value twice, under two
    /// dots, and readers are shown one of them. 0: the client did not say.
    pub operation: u128,
    /// See [`Mark`].
    pub mixed: Mark,
}

/// Whether the change that left this dot has also changed something that lies under no dot (a
/// counter, a last-write-wins value, a maximum): possible in a map only.
///
/// Whoever claims to know that change must have both halves of it. So a delta that takes away the
/// dot of a mixed change carries the map's undotted contents too, see `change.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(pub bool);

const EXPIRES: u8 = 1;
const PAYLOAD: u8 = 2;
const MIXED: u8 = 4;

impl Cell {
    /// Whether a reader at that time is shown it.
    pub fn is_visible(&self, now_ms: u64) -> bool {
        self.payload.is_some() && self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }
}

impl Item for Cell {
    const BYTES_MIN: usize = 18;

    fn encode(&self, out: &mut Vec<u8>) {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out.push(
            flag(self.expires_ms.is_some(), EXPIRES)
                | flag(self.payload.is_some(), PAYLOAD)
                | flag(self.mixed.0, MIXED),
        );
        write_varint(out, self.written_ms);
        if let Some(expires_ms) = self.expires_ms {
            write_varint(out, expires_ms);
        }
        out.extend_from_slice(&self.operation.to_be_bytes());
        if let Some(payload) = &self.payload {
            write_bytes(out, payload);
        }
    }

    /// Only the expiry: everything else is settled by the dot, or may be freed.
    fn encode_digest(&self, out: &mut Vec<u8>) {
        match self.expires_ms {
            None => out.push(0),
            Some(expires_ms) => {
                out.push(1);
                write_varint(out, expires_ms);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Cell, DecodeError> {
        let flags = reader.byte()?;
        if flags & !(EXPIRES | PAYLOAD | MIXED) != 0 {
            return Err(DecodeError::Tag(flags));
        }
        let written_ms = reader.varint()?;
        let expires_ms = (flags & EXPIRES != 0).then(|| reader.varint()).transpose()?;
        let operation = reader.u128()?;
        let payload = (flags & PAYLOAD != 0).then(|| reader.bytes()).transpose()?;
        let mixed = Mark(flags & MIXED != 0);
        Ok(Cell { payload, written_ms, expires_ms, operation, mixed })
    }

    fn is_mixed(&self) -> bool {
        self.mixed.0
    }
}

impl Item for Mark {
    const BYTES_MIN: usize = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.0.into());
    }

    fn decode(reader: &mut Reader) -> Result<Mark, DecodeError> {
        match reader.byte()? {
            0 => Ok(Mark(false)),
            1 => Ok(Mark(true)),
            other => Err(DecodeError::Tag(other)),
        }
    }

    fn is_mixed(&self) -> bool {
        self.0
    }
}
