//! How the bytes of a value say who wrote it, where a history is recorded from real processes.
//!
//! The first 8 bytes are the number of the operation, little end first; what follows is noise. So a recorder knows a value
//! that it reads, and so does whoever finds it on a disk later.

use crate::history::{Op, Value};

/// Who wrote a value, as its bytes say it.
pub struct Written;

impl Written {
    /// Bytes that the number takes.
    pub const BYTES: usize = 8;

    /// The value of this operation: its number, in place of the beginning of `noise`.
    ///
    /// # Panics
    /// If `noise` is shorter than [`Written::BYTES`].
    #[must_use]
    pub fn by(op: Op, noise: &[u8]) -> Vec<u8> {
        let mut value = noise.to_vec();
        value[..Written::BYTES].copy_from_slice(&op.to_le_bytes());
        value
    }

    /// The operation that wrote these bytes; 0, which no operation has, if they are too short to say.
    #[must_use]
    pub fn value(bytes: &[u8]) -> Value {
        let number = bytes.first_chunk::<{ Written::BYTES }>();
        number.map_or(0, |bytes| Value::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value says who wrote it, whatever noise follows.
    #[test]
    fn values_name_their_writer() {
        for (op, bytes) in [(1, 8), (u64::MAX, 8), (77, 1024)] {
            let value = Written::by(op, &vec![0xa5; bytes]);
            assert_eq!((Written::value(&value), value.len()), (op, bytes));
        }
        assert_eq!(Written::value(b"hello"), 0);
    }
}
