//! How cells travel, and which of them differ.
//!
//! ```text
//!   width  1 byte, 4 or 8: of each cell the lowest so many bytes are sent
//!   place  path, as the distance from the path before it; which of the 16 children are not 0
//!          (u16, lowest bit first); those children, `width` bytes each                 repeated
//! ```
//!
//! Four bytes of a cell are enough nearly always: a difference hides behind equal bytes once in four
//! thousand million times, and whoever finds that a place differs and none of its children does asks
//! again with eight. All numbers are little endian.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, write_varint};

/// Most places of one message: bounds the work and the memory that a message costs its receiver.
pub const PLACES_MAX: usize = 1024;

/// How much of each hash is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Four bytes: for everyday use.
    Short,
    /// All eight: where a missed difference would be believed for long.
    Full,
}

impl Width {
    /// Bytes per hash.
    pub fn bytes(self) -> usize {
        match self {
            Width::Short => 4,
            Width::Full => 8,
        }
    }

    /// What is sent of a hash.
    pub fn cut(self, hash: u64) -> u64 {
        match self {
            Width::Short => hash & u64::from(u32::MAX),
            Width::Full => hash,
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Width, DecodeError> {
        match reader.byte()? {
            4 => Ok(Width::Short),
            8 => Ok(Width::Full),
            _ => Err(DecodeError::Number),
        }
    }

    pub(super) fn write_hash(self, out: &mut Vec<u8>, hash: u64) {
        out.extend_from_slice(&hash.to_le_bytes()[..self.bytes()]);
    }

    pub(super) fn read_hash(self, reader: &mut Reader) -> Result<u64, DecodeError> {
        let mut bytes = [0; 8];
        bytes[..self.bytes()].copy_from_slice(&reader.take(self.bytes())?);
        Ok(u64::from_le_bytes(bytes))
    }
}

/// The children of one place as the other side has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Children {
    /// Whose children.
    pub path: u32,
    /// Which of them are not 0.
    present: u16,
    /// What was sent of each.
    hashes: [u64; 16],
}

/// Places of one level and their children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// How much of each hash was sent.
    pub width: Width,
    /// In ascending order of their paths.
    pub places: Vec<Children>,
}

impl Places {
    /// Places, in ascending order, with their children, as they are sent.
    ///
    /// # Panics
    /// If the places are out of order or too many.
    pub fn of(width: Width, places: impl IntoIterator<Item = (u32, [u64; 16])>) -> Places {
        let places: Vec<Children> = places
            .into_iter()
            .map(|(path, hashes)| Children {
                path,
                present: bits(|index| hashes[index] != 0),
                hashes: hashes.map(|hash| width.cut(hash)),
            })
            .collect();
        assert!(places.len() <= PLACES_MAX, "whoever has more sends several messages");
        assert!(places.is_sorted_by(|a, b| a.path < b.path), "distances are above 0");
        Places { width, places }
    }

    /// Appends the bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(self.width.bytes() as u8);
        let mut next = 0;
        for place in &self.places {
            write_varint(out, u64::from(place.path - next));
            next = place.path + 1;
            out.extend_from_slice(&place.present.to_le_bytes());
            for index in each(place.present) {
                self.width.write_hash(out, place.hashes[index]);
            }
        }
    }

    /// Reads the bytes; refuses everything that [`Places::encode_into`] does not write.
    pub fn decode(input: &Bytes) -> Result<Places, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let width = Width::read(&mut reader)?;
        let mut places: Vec<Children> = Vec::new();
        while reader.remaining() > 0 {
            if places.len() == PLACES_MAX {
                return Err(DecodeError::TooMany);
            }
            let path = path_after(places.last().map(|place| place.path), &mut reader)?;
            let present = u16::from_le_bytes([reader.byte()?, reader.byte()?]);
            let mut hashes = [0; 16];
            for index in each(present) {
                hashes[index] = width.read_hash(&mut reader)?;
            }
            places.push(Children { path, present, hashes });
        }
        Ok(Places { width, places })
    }
}

impl Children {
    /// Which of the 16 differ from ours, the lowest bit first.
    pub fn differing(&self, width: Width, ours: &[u64; 16]) -> u16 {
        bits(|index| {
            let present = self.present >> index & 1 == 1;
            present != (ours[index] != 0) || self.hashes[index] != width.cut(ours[index])
        })
    }
}

/// Which children differ, place by place, and perhaps how deep the answerer's trees below are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differing {
    /// Per place asked about the children that differ, the lowest bit first.
    pub children: Vec<u16>,
    /// If the children are roots of trees: the depths of those that differ, in order.
    pub depths: Vec<u8>,
}

impl Differing {
    /// The bytes: two per place, then the depths.
    pub fn encode(&self) -> Bytes {
        let mut out: Vec<u8> = self.children.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        out.extend_from_slice(&self.depths);
        out.into()
    }

    /// Reads the answer to a question about so many places, whose children are roots or not.
    pub fn decode(input: &Bytes, places: usize, roots: bool) -> Result<Differing, DecodeError> {
        let mut reader = Reader::new(input.clone());
        let mut differing = Differing::default();
        for _ in 0..places {
            differing.children.push(u16::from_le_bytes([reader.byte()?, reader.byte()?]));
        }
        if roots {
            let count: u32 = differing.children.iter().map(|bits| bits.count_ones()).sum();
            for _ in 0..count {
                let depth = reader.byte()?;
                if depth > super::DEPTH_MAX {
                    return Err(DecodeError::Number);
                }
                differing.depths.push(depth);
            }
        }
        reader.finish()?;
        Ok(differing)
    }

    /// The indices that a bit mask names.
    pub fn each(children: u16) -> impl Iterator<Item = u32> {
        (0..16).filter(move |index| children >> index & 1 == 1)
    }
}

/// The path behind another one, read as a distance.
pub(super) fn path_after(last: Option<u32>, reader: &mut Reader) -> Result<u32, DecodeError> {
    let distance = reader.varint_u32()?;
    match last {
        None => Ok(distance),
        Some(last) => last
            .checked_add(1)
            .and_then(|next| next.checked_add(distance))
            .ok_or(DecodeError::Number),
    }
}

fn bits(is_set: impl Fn(usize) -> bool) -> u16 {
    (0..16).filter(|index| is_set(*index)).fold(0, |bits, index| bits | 1 << index)
}

fn each(present: u16) -> impl Iterator<Item = usize> {
    (0..16).filter(move |index| present >> index & 1 == 1)
}
