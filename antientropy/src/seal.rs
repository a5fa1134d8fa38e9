//! Contexts in the hands of clients, bound to their key.
//!
//! A client carries the context of what it read to its next write. If it came with another key, the
//! write would erase events there that it never saw: counters of one key mean nothing on another.
//! So a context leaves the cluster sealed:
//!
//! ```text
//!   0        1                    5                      13                     len - 16
//!   +--------+--------------------+----------------------+----------------------+-----------+
//!   | format | cluster fingerprint| key fingerprint      | context, canonical   | tag       |
//!   | 1 byte | 4 bytes            | 8 bytes              | any                  | 16 bytes  |
//!   +--------+--------------------+----------------------+----------------------+-----------+
//! ```
//!
//! The tag is keyed blake3 over (format, cluster id, bucket id, key with its length, context) under
//! the cluster's secret, and it alone decides. The fingerprints are plain hashes that anyone can
//! make; they are there so that an honest mistake gets its name ("this token belongs to another
//! key") instead of "forged".

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Context;

/// The most intervals a client's token may have. Reason: a context costs the replicas memory for
/// ever, and an honest one has about as many intervals as the key has had coordinators. Records may
/// exceed it: such a read gives no token.
pub const INTERVALS_MAX: usize = 1024;

/// The key under which a cluster seals contexts. Never shown.
#[derive(Clone)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A context, sealed for one key of one bucket in one cluster.
///
/// ```
/// use atoll_antientropy::{Actor, ContextToken, Event, Secret, TokenError};
///
/// let (secret, cluster, bucket) = (Secret([7; 32]), [1; 16], [2; 16]);
/// let context = Event::alone(Actor::new(1, 0), 4).context();
/// let token = ContextToken::seal(&secret, &cluster, &bucket, b"tea", &context);
/// assert_eq!(token.open(&secret, &cluster, &bucket, b"tea"), Ok(context));
/// assert_eq!(token.open(&secret, &cluster, &bucket, b"milk"), Err(TokenError::OtherKey));
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextToken(Bytes);

/// Why a token was refused. The caller must read the key again to get a good one; nothing was
/// changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// These bytes are no token that this version knows.
    #[error("not a context token")]
    Malformed,
    /// Another cluster made this token.
    #[error("the context token belongs to another cluster")]
    OtherCluster,
    /// The token was given out for another key or bucket.
    #[error("the context token belongs to another key or bucket")]
    OtherKey,
    /// The token names this key, but this cluster did not seal it.
    #[error("the context token is not genuine")]
    Forged,
    /// The context has more than [`INTERVALS_MAX`] intervals.
    #[error("the context token has more than {INTERVALS_MAX} intervals")]
    TooLong,
}

impl ContextToken {
    /// Seals a context for one key. One with more than [`INTERVALS_MAX`] intervals can be sealed
    /// but never opened: give the client no token then.
    pub fn seal(
        secret: &Secret,
        cluster: &[u8; 16],
        bucket: &[u8; 16],
        key: &[u8],
        context: &Context,
    ) -> ContextToken {
        let mut token = vec![FORMAT];
        token.extend_from_slice(&cluster_fingerprint(cluster));
        token.extend_from_slice(&key_fingerprint(bucket, key));
        context.encode_into(&mut token);
        let tag = tag(secret, cluster, bucket, key, &token[HEADER_BYTES..]);
        token.extend_from_slice(&tag);
        ContextToken(token.into())
    }

    /// The context, if this cluster sealed it for this key.
    pub fn open(
        &self,
        secret: &Secret,
        cluster: &[u8; 16],
        bucket: &[u8; 16],
        key: &[u8],
    ) -> Result<Context, TokenError> {
        let context = self.context_bytes()?;
        if self.0[1..5] != cluster_fingerprint(cluster) {
            return Err(TokenError::OtherCluster);
        }
        if self.0[5..HEADER_BYTES] != key_fingerprint(bucket, key) {
            return Err(TokenError::OtherKey);
        }
        let claimed = &self.0[HEADER_BYTES + context.len()..];
        if !same_in_constant_time(&tag(secret, cluster, bucket, key, &context), claimed) {
            return Err(TokenError::Forged);
        }
        bounded(&context)
    }

    /// The context as the token claims it, **not verified**: for clients and measurements, which
    /// have no secret.
    pub fn peek(&self) -> Result<Context, TokenError> {
        bounded(&self.context_bytes()?)
    }

    /// The token as it travels.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// What lies between header and tag, if there is room for both and the format is ours.
    fn context_bytes(&self) -> Result<Bytes, TokenError> {
        if self.0.first() != Some(&FORMAT) || self.0.len() < HEADER_BYTES + TAG_BYTES {
            return Err(TokenError::Malformed);
        }
        let context = self.0.slice(HEADER_BYTES..self.0.len() - TAG_BYTES);
        if context.len() > CONTEXT_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        Ok(context)
    }
}

/// Takes any bytes as they came from outside; [`open`](ContextToken::open) judges them.
impl From<Bytes> for ContextToken {
    fn from(bytes: Bytes) -> ContextToken {
        ContextToken(bytes)
    }
}

/// As hexadecimal digits.
impl fmt::Debug for ContextToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContextToken(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

fn bounded(context: &Bytes) -> Result<Context, TokenError> {
    let context = Context::decode(context).map_err(|_| TokenError::Malformed)?;
    if context.intervals() > INTERVALS_MAX {
        return Err(TokenError::TooLong);
    }
    Ok(context)
}

fn tag(
    secret: &Secret,
    cluster: &[u8; 16],
    bucket: &[u8; 16],
    key: &[u8],
    context: &[u8],
) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&secret.0);
    hasher.update(&[FORMAT]).update(cluster).update(bucket);
    // With its length, so that no byte can move from the key into the context.
    hasher.update(&(key.len() as u64).to_be_bytes()).update(key);
    hasher.update(context);
    first_bytes(&hasher.finalize())
}

fn cluster_fingerprint(cluster: &[u8; 16]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new_derive_key("atoll context token, cluster fingerprint");
    first_bytes(&hasher.update(cluster).finalize())
}

fn key_fingerprint(bucket: &[u8; 16], key: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_derive_key("atoll context token, key fingerprint");
    first_bytes(&hasher.update(bucket).update(key).finalize())
}

fn first_bytes<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    std::array::from_fn(|index| hash.as_bytes()[index])
}

/// Compares tags without telling by its duration how many bytes were right: `blake3::Hash` compares
/// in constant time, so both are widened into one.
fn same_in_constant_time(tag: &[u8; TAG_BYTES], claimed: &[u8]) -> bool {
    let widened = |bytes: &[u8]| {
        let mut wide = [0; blake3::OUT_LEN];
        wide[..TAG_BYTES].copy_from_slice(bytes);
        blake3::Hash::from_bytes(wide)
    };
    widened(tag) == widened(claimed)
}

/// The layout above. Another layout gets another number.
const FORMAT: u8 = 1;
/// Format, cluster fingerprint, key fingerprint.
const HEADER_BYTES: usize = 1 + 4 + 8;
/// 128 bits: as hard to guess as a key of that size.
const TAG_BYTES: usize = 16;
/// More than [`INTERVALS_MAX`] intervals of distinct actors with the longest numbers take (31 bytes
/// each). Beyond that a token is refused before it is hashed.
const CONTEXT_BYTES_MAX: usize = 32 * (INTERVALS_MAX + 1);
