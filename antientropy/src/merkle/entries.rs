//! How the keys of some places travel, and which of them have no equal on the other side.
//!
//! ```text
//!   the question   width; per place: path as a distance, number of keys, their fingerprints
//!   the answer     1 if it had to be cut short, else 0
//!                  which of the asker's fingerprints are not here: number, indices as distances
//!                  other buckets than the question's: number, 16 bytes each
//!                  keys here that the asker's fingerprints do not name: number, and per key its
//!                  bucket (0 = the question's, else the place in the list above, from 1) and name
//! ```
//!
//! Lists and numbers are those of `codec.rs`, fingerprints are cut as in `places.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::places::{PLACES_MAX, Width, path_after};
use crate::codec::{DecodeError, Reader, write_bytes, write_varint};

/// Most keys that one answer names: bounds what it costs its receiver.
const KEYS_MAX: u64 = 1 << 15;

/// The fingerprints of all keys in some places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    /// How much of each fingerprint is sent.
    pub width: Width,
    /// Paths in ascending order, with how many of the fingerprints belong to each.
    pub places: Vec<(u32, usize)>,
    /// Place by place.
    pub fingerprints: Vec<u64>,
}

impl Entries {
    /// Nothing yet.
    pub fn new(width: Width) -> Entries {
        Entries { width, places: Vec::new(), fingerprints: Vec::new() }
    }

    /// Adds a place behind those that are there.
    ///
    /// # Panics
    /// If the places are out of order or too many.
    pub fn add(&mut self, path: u32, fingerprints: impl IntoIterator<Item = u64>) {
        assert!(self.places.last().is_none_or(|(last, _)| *last < path), "distances are above 0");
        assert!(self.places.len() < PLACES_MAX, "whoever has more sends several messages");
        let before = self.fingerprints.len();
        let width = self.width;
        self.fingerprints.extend(fingerprints.into_iter().map(|whole| width.cut(whole)));
        self.places.push((path, self.fingerprints.len() - before));
    }

    /// The bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![self.width.bytes() as u8];
        let mut fingerprints = self.fingerprints.iter();
        let mut next = 0;
        for (path, count) in &self.places {
            write_varint(&mut out, u64::from(path - next));
            next = path + 1;
            write_varint(&mut out, *count as u64);
            for fingerprint in fingerprints.by_ref().take(*count) {
                self.width.write_hash(&mut out, *fingerprint);
            }
        }
        out.into()
    }

    /// Reads the bytes; refuses everything that [`Entries::encode`] does not write.
    pub fn decode(input: &Bytes) -> Result<Entries, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let mut entries = Entries::new(Width::read(&mut reader)?);
        while reader.remaining() > 0 {
            if entries.places.len() == PLACES_MAX {
                return Err(DecodeError::TooMany);
            }
            let path = path_after(entries.places.last().map(|(path, _)| *path), &mut reader)?;
            let count = reader.count(entries.width.bytes())?;
            for _ in 0..count {
                let fingerprint = entries.width.read_hash(&mut reader)?;
                entries.fingerprints.push(fingerprint);
            }
            entries.places.push((path, count));
        }
        Ok(entries)
    }
}

/// Which of two lists of fingerprints have no equal in the other one, by their indices. Of several
/// equal ones as many are matched as the other list has.
pub fn unmatched(width: Width, theirs: &[u64], ours: &[u64]) -> (Vec<usize>, Vec<usize>) {
    let mut waiting: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, fingerprint) in ours.iter().enumerate() {
        waiting.entry(width.cut(*fingerprint)).or_default().push(index);
    }
    let mut missing = Vec::new();
    for (index, fingerprint) in theirs.iter().enumerate() {
        let equal = waiting.get_mut(&width.cut(*fingerprint)).and_then(Vec::pop);
        if equal.is_none() {
            missing.push(index);
        }
    }
    let mut left: Vec<usize> = waiting.into_values().flatten().collect();
    left.sort_unstable();
    (missing, left)
}

/// What has no equal on the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmatched {
    /// There was more than one message can say; ask again when this is mended.
    pub cut_short: bool,
    /// Which of the asker's fingerprints, in ascending order.
    pub missing: Vec<u32>,
    /// Keys the asker does not have like this: bucket and name.
    pub keys: Vec<([u8; 16], Bytes)>,
}

impl Unmatched {
    /// The bytes, in answer to a question about this bucket, at most so many (and at least one key
    /// if there is one).
    pub fn encode(&self, bucket: &[u8; 16], bytes_max: usize) -> Bytes {
        let mut out = vec![u8::from(self.cut_short)];
        write_varint(&mut out, self.missing.len() as u64);
        let mut next = 0;
        for index in &self.missing {
            write_varint(&mut out, u64::from(index - next));
            next = index + 1;
        }
        let mut room = bytes_max.saturating_sub(out.len() + 2 * 10);
        let mut buckets: Vec<&[u8; 16]> = Vec::new();
        let mut keys = Vec::new();
        let mut count = 0u64;
        for (of, name) in &self.keys {
            let before = keys.len();
            let number = match buckets.iter().position(|known| *known == of) {
                _ if of == bucket => 0,
                Some(index) => index + 1,
                None => {
                    buckets.push(of);
                    room = room.saturating_sub(16);
                    buckets.len()
                }
            };
            write_varint(&mut keys, number as u64);
            write_bytes(&mut keys, name);
            if (keys.len() > room && count > 0) || count == KEYS_MAX {
                keys.truncate(before);
                out[0] = 1;
                break;
            }
            count += 1;
        }
        write_varint(&mut out, buckets.len() as u64);
        buckets.iter().for_each(|bucket| out.extend_from_slice(*bucket));
        write_varint(&mut out, count);
        out.extend_from_slice(&keys);
        out.into()
    }

    /// Reads the answer to a question about this bucket with so many fingerprints.
    pub fn decode(
        input: &Bytes,
        bucket: &[u8; 16],
        fingerprints: usize,
    ) -> Result<Unmatched, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let cut_short = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Number),
        };
        let mut answer = Unmatched { cut_short, ..Unmatched::default() };
        for _ in 0..reader.count(1)? {
            let index = path_after(answer.missing.last().copied(), &mut reader)?;
            if index as usize >= fingerprints {
                return Err(DecodeError::Number);
            }
            answer.missing.push(index);
        }
        let mut buckets = vec![*bucket];
        for _ in 0..reader.count(16)? {
            buckets.push(reader.take(16)?[..].try_into().expect("16 bytes were taken"));
        }
        let count = reader.count(2)?;
        if count as u64 > KEYS_MAX {
            return Err(DecodeError::TooMany);
        }
        for _ in 0..count {
            let number = reader.varint_u32()? as usize;
            let bucket = *buckets.get(number).ok_or(DecodeError::Number)?;
            answer.keys.push((bucket, reader.bytes()?));
        }
        reader.finish()?;
        Ok(answer)
    }
}
