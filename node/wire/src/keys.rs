//! Listing the keys of a bucket, a page at a time.
//!
//! A client asks any node for a page ([`List`]). That node goes through the partitions in order, asks owners of each what they
//! hold ([`Scan`]), and stops when the page is full or has cost enough. A page ends with a [`PageToken`] that says where the
//! next one begins; it holds nothing secret and stays good as long as the bucket.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use atoll_antientropy::Digest;
use atoll_ring::QuorumRequest;

use crate::{
    BucketId,
    limits::{KEY_BYTES_MAX, LIST_KEYS_MAX, SCAN_ROWS_MAX},
    tails::{cut, head},
};

/// Asks for keys of the envelope's bucket that have a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only keys that begin so.
    pub prefix: Bytes,
    /// Where to go on; empty = from the beginning.
    pub page: Bytes,
    /// Most keys wanted, at most [`LIST_KEYS_MAX`].
    pub limit: u16,
    /// n and r: how many owners of each partition are asked.
    pub quorum: QuorumRequest,
}

/// A page of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Where the next page begins; empty = this was the last.
    pub page: Bytes,
    /// Rows that owners have looked at for it.
    pub scanned: u32,
    /// Partitions that are done, of how many.
    pub partitions: (u32, u32),
    /// Tail: the keys; see [`Listed::read`].
    #[serde(skip)]
    pub keys: Bytes,
}

impl Listed {
    /// Keys as they travel.
    pub fn tail(keys: &[Bytes]) -> Bytes {
        let mut out = Vec::new();
        for key in keys {
            let length = u32::try_from(key.len()).expect("a key is short");
            out = postcard::to_extend(&length, out).expect("plain data");
            out.extend_from_slice(key);
        }
        out.into()
    }

    /// The keys; `None` if the bytes are none, or too many.
    pub fn read(&self) -> Option<Vec<Bytes>> {
        let mut left = self.keys.clone();
        let mut keys = Vec::new();
        while !left.is_empty() {
            let length: u32 = head(&mut left)?;
            if keys.len() == LIST_KEYS_MAX || length as usize > KEY_BYTES_MAX {
                return None;
            }
            keys.push(cut(&mut left, length)?);
        }
        Some(keys)
    }
}

/// Asks an owner what it holds of the envelope's bucket in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The partition.
    pub partition: u16,
    /// The row after which to go on; empty = from the beginning.
    pub after: Bytes,
    /// Most rows wanted, at most [`SCAN_ROWS_MAX`].
    pub limit: u16,
}

/// What an owner holds, in the order of its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// The last row that was looked at, if there may be more behind it; empty = nothing more.
    pub last: Bytes,
    /// Rows that were looked at, of other buckets too.
    pub looked_at: u32,
    /// Its answers do not count for this partition.
    pub in_doubt: bool,
    /// Tail: [`ScannedRow`]s; see [`Scanned::read`].
    #[serde(skip)]
    pub rows: Bytes,
}

/// One key as an owner has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedRow {
    /// The row's name.
    pub row: Bytes,
    /// Whether a reader would be shown something now.
    pub alive: bool,
    /// Equal for equal states.
    pub digest: Digest,
}

impl Scanned {
    /// Rows as they travel.
    pub fn tail(rows: &[ScannedRow]) -> Bytes {
        assert!(rows.len() <= SCAN_ROWS_MAX, "at most {SCAN_ROWS_MAX} rows");
        let mut out = Vec::new();
        for ScannedRow { row, alive, digest } in rows {
            let length = u32::try_from(row.len()).expect("a row's name is short");
            out = postcard::to_extend(&(length, alive, digest), out).expect("plain data");
            out.extend_from_slice(row);
        }
        out.into()
    }

    /// The rows; `None` if the bytes are none, out of order, or too many.
    pub fn read(&self) -> Option<Vec<ScannedRow>> {
        let mut left = self.rows.clone();
        let mut rows: Vec<ScannedRow> = Vec::new();
        while !left.is_empty() {
            let (length, alive, digest): (u32, bool, Digest) = head(&mut left)?;
            if rows.len() == SCAN_ROWS_MAX {
                return None;
            }
            let row = cut(&mut left, length)?;
            if rows.last().is_some_and(|last| last.row >= row) {
                return None;
            }
            rows.push(ScannedRow { row, alive, digest });
        }
        Some(rows)
    }
}

/// Where a listing goes on.
///
/// ```text
///   format (1) | bucket id (16) | fingerprint of the prefix (4) | partition u16, big endian | row
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// The partition.
    pub partition: u16,
    /// The last row of it that was listed; empty = none yet.
    pub after: Bytes,
}

/// Why a page cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// It is no token.
    #[error("this is no page of a listing; leave it out to begin anew")]
    Malformed,
    /// It belongs to another bucket.
    #[error("this page belongs to the listing of another bucket; leave it out to begin anew")]
    OtherBucket,
    /// It belongs to another prefix.
    #[error("this page belongs to a listing with another prefix; leave it out to begin anew")]
    OtherPrefix,
}

const FORMAT: u8 = 1;
const BUCKET_AT: std::ops::Range<usize> = 1..17;
const PREFIX_AT: std::ops::Range<usize> = 17..21;
const PARTITION_AT: std::ops::Range<usize> = 21..23;

impl PageToken {
    /// The beginning.
    pub fn first() -> Self {
        PageToken { partition: 0, after: Bytes::new() }
    }

    /// As it travels.
    pub fn encode(&self, bucket: BucketId, prefix: &[u8]) -> Bytes {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&bucket.0);
        out.extend_from_slice(&fingerprint(prefix));
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&self.after);
        out.into()
    }

    /// Reads one, if it belongs to this listing; the beginning if there are no bytes.
    ///
    /// # Errors
    /// See [`PageError`].
    pub fn decode(token: &Bytes, bucket: BucketId, prefix: &[u8]) -> Result<Self, PageError> {
        if token.is_empty() {
            return Ok(Self::first());
        }
        if token.len() < PARTITION_AT.end || token[0] != FORMAT {
            return Err(PageError::Malformed);
        }
        if token[BUCKET_AT] != bucket.0 {
            return Err(PageError::OtherBucket);
        }
        if token[PREFIX_AT] != fingerprint(prefix) {
            return Err(PageError::OtherPrefix);
        }
        let partition = [token[PARTITION_AT.start], token[PARTITION_AT.start + 1]];
        let after = token.slice(PARTITION_AT.end..);
        Ok(PageToken { partition: u16::from_be_bytes(partition), after })
    }
}

fn fingerprint(prefix: &[u8]) -> [u8; 4] {
    *blake3::hash(prefix).as_bytes().first_chunk().expect("32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page comes back in its own listing, and is refused by name in another.
    #[test]
    fn a_page_belongs_to_its_listing() {
        let (here, there) = (BucketId([1; 16]), BucketId([2; 16]));
        let page = PageToken { partition: 515, after: Bytes::from_static(b"row") };
        let token = page.encode(here, b"cart:");
        assert_eq!(PageToken::decode(&token, here, b"cart:"), Ok(page));
        assert_eq!(PageToken::decode(&Bytes::new(), here, b""), Ok(PageToken::first()));
        assert_eq!(PageToken::decode(&token, there, b"cart:"), Err(PageError::OtherBucket));
        assert_eq!(PageToken::decode(&token, here, b"cars:"), Err(PageError::OtherPrefix));
        for length in 1..PARTITION_AT.end {
            let cut = token.slice(..length);
            assert_eq!(PageToken::decode(&cut, here, b"cart:"), Err(PageError::Malformed));
        }
    }
}
