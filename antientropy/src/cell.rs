//! One written value, and what every replica must know about it.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, write_bytes, write_varint};
use crate::dots::Item;

/// A value as it lies under its dot.
///
/// ```text
///   flags        1 byte     1: expires   2: the payload is here
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
}

const EXPIRES: u8 = 1;
const PAYLOAD: u8 = 2;

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
        out.push(flag(self.expires_ms.is_some(), EXPIRES) | flag(self.payload.is_some(), PAYLOAD));
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
        if flags & !(EXPIRES | PAYLOAD) != 0 {
            return Err(DecodeError::Tag(flags));
        }
        let written_ms = reader.varint()?;
        let expires_ms = (flags & EXPIRES != 0).then(|| reader.varint()).transpose()?;
        let operation = reader.u128()?;
        let payload = (flags & PAYLOAD != 0).then(|| reader.bytes()).transpose()?;
        Ok(Cell { payload, written_ms, expires_ms, operation })
    }
}
