//! One row of the node's own affairs: a value, and a checksum over it and the row's name.
//!
//! ```text
//!  0          length - 16
//!  +----------+-------------+
//!  | value    | checksum    |
//!  |          | 16 of blake3|
//!  +----------+-------------+
//! ```
//!
//! A lease that reads too low gives counters a second time, and the second write under a dot is dropped without a word. So
//! these rows are verified as records are, and a damaged one ends the start: nobody else has a copy, and a node that
//! cannot read them has to come back as a new incarnation.

use atoll_wire::Commit;
use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Space, StoreError, Write, record::checksum};

const CHECKSUM_BYTES: usize = 16;

/// The write of a row.
pub fn write(row: Bytes, value: &[u8]) -> Write {
    let mut sealed = BytesMut::with_capacity(value.len() + CHECKSUM_BYTES);
    sealed.put_slice(value);
    sealed.put_slice(&checksum(&row, value));
    Write { space: Space::Meta, row, value: Some(sealed.freeze()) }
}

/// Takes the checksum off, if it is right.
///
/// # Errors
/// It is not: the node cannot go on with this directory.
pub fn open(row: &[u8], sealed: &Bytes) -> Result<Bytes, StoreError> {
    let damaged = || {
        StoreError(format!(
            "the row {} is damaged and no other node has it: move `store` in the data directory away and start the node \
             again; it then comes back as a new incarnation and gets its data from the other owners",
            row.escape_ascii()
        ))
    };
    let value_bytes = sealed.len().checked_sub(CHECKSUM_BYTES).ok_or_else(damaged)?;
    let value = sealed.slice(..value_bytes);
    if sealed[value_bytes..] == checksum(row, &value) { Ok(value) } else { Err(damaged()) }
}

/// The write of a row that holds a number.
pub fn write_number(row: Bytes, number: u64) -> Write {
    write(row, &number.to_be_bytes())
}

/// The number in a row.
///
/// # Errors
/// As [`open`].
pub fn open_number(row: &[u8], sealed: &Bytes) -> Result<u64, StoreError> {
    let value = open(row, sealed)?;
    let bytes = value.as_ref().try_into().map_err(|_| {
        StoreError(format!("the row {} holds {} bytes, not 8", row.escape_ascii(), value.len()))
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// The write of a row that holds a commit.
pub fn write_commit(row: Bytes, commit: Commit) -> Write {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&commit.sequence.to_be_bytes());
    bytes[8..].copy_from_slice(&commit.chain.to_be_bytes());
    write(row, &bytes)
}

/// The commit in a row.
///
/// # Errors
/// As [`open`].
pub fn open_commit(row: &[u8], sealed: &Bytes) -> Result<Commit, StoreError> {
    let value = open(row, sealed)?;
    let bytes: [u8; 16] = value.as_ref().try_into().map_err(|_| {
        StoreError(format!("the row {} holds {} bytes, not 16", row.escape_ascii(), value.len()))
    })?;
    let bytes = u128::from_be_bytes(bytes);
    Ok(Commit { sequence: (bytes >> 64) as u64, chain: bytes as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every flipped bit is noticed, and so is every cut and another row's name.
    #[test]
    fn no_damage_goes_unnoticed() {
        let row = Bytes::from_static(b"lease/1");
        let sealed = write_number(row.clone(), 65_536).value.expect("a value");
        assert_eq!(open_number(&row, &sealed), Ok(65_536));
        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&row, &bytes.into()).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(open(&row, &sealed.slice(..length)).is_err(), "{length} bytes");
        }
        assert!(open(b"lease/2", &sealed).is_err());
    }
}
