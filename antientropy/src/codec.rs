//! Bytes for states: small, canonical, and safe to read from anyone.
//!
//! *Canonical* means that a state has exactly one encoding. Writers cannot help but produce it
//! (everything is sorted in memory), and readers refuse everything else: a number longer than it
//! needs to be, a list out of order, a byte too many. So `decode(x) = Ok(v)` implies `encode(v) =
//! x`, and replicas compare states by comparing bytes.
//!
//! ```text
//!   number   LEB128: 7 bits per byte, lowest first, top bit = "more follows"; shortest form only
//!            (1 to 10 bytes)
//!   bytes    number of bytes, then the bytes
//!   list     number of items, then the items in ascending order
//! ```
//!
//! Only maps recurse by data, at most [`DEPTH_MAX`](crate::DEPTH_MAX) deep, and a list's length is
//! checked against the bytes that are left *before* memory is taken for it.

use bytes::{Buf as _, Bytes};

/// Why bytes were refused. The bytes are wrong, whoever sent or stored them; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of something, or announce more items than they can hold.
    #[error("the bytes end too early")]
    Truncated,
    /// Bytes follow where the end should be.
    #[error("{0} bytes too many at the end")]
    Trailing(usize),
    /// A number is longer than it needs to be, or than its field can hold.
    #[error("a number is not in its shortest form or too large")]
    Number,
    /// A list is not in strictly ascending order.
    #[error("a list is out of order or repeats an item")]
    Order,
    /// Intervals of a context are empty or touch each other.
    #[error("an interval is empty or touches its neighbour")]
    Interval,
    /// There are more items than one message may have.
    #[error("too many items")]
    TooMany,
    /// A store lies inside another one although it is empty.
    #[error("an empty store is listed")]
    Empty,
    /// A dot is alive which the context does not know, or something is known twice.
    #[error("a dot is not covered by the context, or something is noted twice")]
    Uncovered,
    /// A tag or flag that this version does not know.
    #[error("tag {0:#04x} is not known")]
    Tag(u8),
    /// Maps lie in each other more than 8 deep.
    #[error("maps are nested too deep")]
    TooDeep,
    /// A counter remembers a reset of more than was ever counted.
    #[error("a counter was reset beyond what it had")]
    Reset,
    /// The state is of another kind than the reader expects.
    #[error("kind {found:#04x} where {expected:#04x} was expected")]
    Kind {
        /// What the reader wanted.
        expected: u8,
        /// What the bytes say.
        found: u8,
    },
}

/// Appends a number, in its shortest form.
pub fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a number with a sign: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.
pub(crate) fn write_signed(out: &mut Vec<u8>, number: i64) {
    write_varint(out, (number << 1 ^ number >> 63) as u64);
}

/// Appends a byte string with its length in front.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the writers above wrote, and trusts nothing. Byte strings come out as slices of the
/// input, not as copies.
#[derive(Debug)]
pub struct Reader {
    /// What is left to read.
    rest: Bytes,
}

impl Reader {
    /// Reads from the start of `input`.
    pub fn new(input: Bytes) -> Reader {
        Reader { rest: input }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The end of the input: refuses bytes that nobody asked for.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// A byte string, sharing memory with the input.
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.varint()?;
        self.take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?)
    }

    /// A number in its shortest form.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0u64;
        for (index, &byte) in self.rest.iter().enumerate() {
            if index == 9 && byte > 1 {
                return Err(DecodeError::Number); // the tenth byte has room for bit 63 only
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return Err(DecodeError::Number); // there was a shorter form
                }
                self.rest.advance(index + 1);
                return Ok(number);
            }
        }
        Err(DecodeError::Truncated)
    }

    /// A number that must fit 32 bits.
    pub fn varint_u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| DecodeError::Number)
    }

    /// A number with a sign, see `write_signed`.
    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// 16 bytes, big-endian.
    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// 8 bytes, big-endian.
    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// So many bytes, as they stand there.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let array = *self.rest.first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest.advance(N); // and no slice of them: that would share memory, which costs more than to read them
        Ok(array)
    }

    /// The length of a list whose items take at least `item_bytes_min` bytes each: never more than
    /// what is left can hold.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        if count > self.remaining() / item_bytes_min.max(1) {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    /// So many bytes, sharing memory with the input.
    pub(crate) fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &'static [u8]) -> Result<u64, DecodeError> {
        let mut reader = Reader::new(Bytes::from_static(bytes));
        let number = reader.varint()?;
        reader.finish()?;
        Ok(number)
    }

    /// Numbers around every change of length survive the way out and back, in the expected length.
    #[test]
    fn numbers_come_back() {
        for bits in 0..64 {
            for number in [(1u64 << bits) - 1, 1 << bits, (1 << bits) + 1, u64::MAX >> bits] {
                let mut out = Vec::new();
                write_varint(&mut out, number);
                assert_eq!(out.len(), (64 - number.leading_zeros()).max(1).div_ceil(7) as usize);
                let mut reader = Reader::new(Bytes::from(out));
                assert_eq!(reader.varint(), Ok(number));
                assert_eq!(reader.finish(), Ok(()));
            }
        }
    }

    /// Every number has one form: longer ones, too large ones and cut ones are refused.
    #[test]
    fn other_forms_of_numbers_are_refused() {
        assert_eq!(varint(&[0x00]), Ok(0));
        assert_eq!(varint(&[0x80, 0x00]), Err(DecodeError::Number));
        assert_eq!(varint(&[0xff, 0x80, 0x00]), Err(DecodeError::Number));
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(varint(most.to_vec().leak()), Ok(u64::MAX));
        let beyond = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(varint(beyond.to_vec().leak()), Err(DecodeError::Number));
        assert_eq!(varint(&[0xff; 11]), Err(DecodeError::Number));
        assert_eq!(varint(&[0x80]), Err(DecodeError::Truncated));
        assert_eq!(varint(&[]), Err(DecodeError::Truncated));
        assert_eq!(varint(&[0x05, 0x05]), Err(DecodeError::Trailing(1)));
    }

    /// Numbers with a sign come back, small ones in one byte.
    #[test]
    fn signed_numbers_come_back() {
        for number in [0, -1, 1, 63, -64, 64, i64::MAX, i64::MIN, 1 << 40, -(1 << 40)] {
            let mut out = Vec::new();
            write_signed(&mut out, number);
            assert_eq!(out.len() == 1, (-64..64).contains(&number));
            assert_eq!(Reader::new(Bytes::from(out)).signed(), Ok(number));
        }
    }

    /// A length is checked before memory is taken: four bytes cannot announce a list of a thousand
    /// million items.
    #[test]
    fn lengths_are_checked_first() {
        let huge = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3]);
        assert_eq!(Reader::new(huge.clone()).count(1), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(huge).bytes(), Err(DecodeError::Truncated));
        assert_eq!(
            Reader::new(Bytes::from_static(&[2, 0, 0, 0])).count(2),
            Err(DecodeError::Truncated)
        );
        assert_eq!(Reader::new(Bytes::from_static(&[2, 0, 0, 0, 0])).count(2), Ok(2));
    }
}
