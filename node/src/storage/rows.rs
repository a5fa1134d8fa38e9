//! How rows are named.
//!
//! ```text
//! data    partition u16 | token u64 | bucket 16 bytes | key            big endian: a partition is a range
//! hints   target u32 | the data row it is for                           a target is a range
//! meta    words
//! ```

use atoll_antientropy::Actor;
use atoll_ring::{Epoch, NodeId, Partition, Token};
use atoll_wire::BucketId;
use bytes::{BufMut as _, Bytes, BytesMut};

/// Bytes of a data row's name before the key.
const KEY_AT: usize = 2 + 8 + 16;

/// The row of a key.
pub fn data(partition: Partition, token: Token, bucket: BucketId, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(KEY_AT + key.len());
    row.put_u16(partition.0);
    row.put_u64(token.0);
    row.put_slice(&bucket.0);
    row.put_slice(key);
    row.freeze()
}

/// The key in the name of a data row, and its bucket.
pub fn bucket_and_key(row: &Bytes) -> Option<(BucketId, Bytes)> {
    let bucket = row.get(10..KEY_AT)?.try_into().ok()?;
    Some((BucketId(bucket), row.slice(KEY_AT..)))
}

/// The row of a hint.
pub fn hint(target: NodeId, data_row: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(4 + data_row.len());
    row.put_u32(target.0);
    row.put_slice(data_row);
    row.freeze()
}

/// What all hints for a target begin with.
pub fn hints_for(target: NodeId) -> [u8; 4] {
    target.0.to_be_bytes()
}

/// The owner a hint is for.
pub fn target_of_hint(row: &[u8]) -> Option<NodeId> {
    Some(NodeId(u32::from_be_bytes(*row.first_chunk()?)))
}

/// The data row a hint is for.
pub fn data_of_hint(row: &Bytes) -> Bytes {
    row.slice(4..)
}

/// Where the end of a lease is kept.
pub fn lease(actor: Actor, partition: Partition) -> Bytes {
    let mut row = BytesMut::from(&b"lease/"[..]);
    row.put_u32(actor.node);
    row.put_u32(actor.incarnation);
    row.put_u16(partition.0);
    row.freeze()
}

/// What the names of all leases of an actor begin with.
pub fn leases_of(actor: Actor) -> Bytes {
    lease(actor, Partition(0)).slice(..14)
}

/// The partition in the name of a lease.
pub fn partition_of_lease(row: &[u8]) -> Option<Partition> {
    Some(Partition(u16::from_be_bytes(row.get(14..16)?.try_into().ok()?)))
}

/// Where it is kept with which owners a partition must still be compared.
pub fn doubt(partition: Partition) -> Bytes {
    let mut row = BytesMut::from(DOUBT);
    row.put_u16(partition.0);
    row.freeze()
}

/// The partition in the name of such a row; none for [`DOUBT_WHY`].
pub fn partition_of_doubt(row: &[u8]) -> Option<Partition> {
    let number = row.strip_prefix(DOUBT)?.try_into().ok()?;
    Some(Partition(u16::from_be_bytes(number)))
}

/// The partition in the name of a data row.
pub fn partition_of_data(row: &[u8]) -> Option<Partition> {
    Some(Partition(u16::from_be_bytes(*row.first_chunk()?)))
}

/// Where what lay in a damaged row is kept.
pub fn damaged(row: &[u8]) -> Bytes {
    let mut name = BytesMut::from(&b"damaged/"[..]);
    name.put_slice(row);
    name.freeze()
}

/// The token in the name of a data row.
pub fn token_of_data(row: &[u8]) -> Option<Token> {
    Some(Token(u64::from_be_bytes(row.get(2..10)?.try_into().ok()?)))
}

/// A name before those of all data rows with this token or a higher one, and behind all others of the partition.
pub fn data_begin(partition: Partition, token: u64) -> Bytes {
    let mut row = BytesMut::with_capacity(10);
    row.put_u16(partition.0);
    row.put_u64(token);
    row.freeze()
}

/// Where it is kept what this node remembers of another.
pub fn peer(node: NodeId) -> Bytes {
    let mut row = BytesMut::from(PEER);
    row.put_u32(node.0);
    row.freeze()
}

/// The node in the name of such a row.
pub fn node_of_peer(row: &[u8]) -> Option<NodeId> {
    Some(NodeId(u32::from_be_bytes(row.strip_prefix(PEER)?.try_into().ok()?)))
}

/// Where the entry that led to an epoch is kept.
pub fn passed(epoch: Epoch) -> Bytes {
    let mut row = BytesMut::from(PASSED);
    row.put_u64(epoch.0);
    row.freeze()
}

/// Where the definition of a bucket is kept.
pub fn bucket(id: BucketId) -> Bytes {
    let mut row = BytesMut::from(BUCKET);
    row.put_slice(&id.0);
    row.freeze()
}

/// What the names of all rows with definitions begin with.
pub const BUCKET: &[u8] = b"bucket/";
/// What the names of all rows with entries begin with.
pub const PASSED: &[u8] = b"passed/";
/// What the names of all rows about other nodes begin with.
pub const PEER: &[u8] = b"peer/";
/// What the names of all rows about doubt begin with.
pub const DOUBT: &[u8] = b"doubt/";
/// Why there is doubt, for people. Longer than the name of any partition's row.
pub const DOUBT_WHY: &[u8] = b"doubt/why";
/// The number of the last commit, and its chain.
pub const SEQUENCE: &[u8] = b"sequence";
/// The node's own incarnation; none = that of the view.
pub const INCARNATION: &[u8] = b"incarnation";
/// Why the node must take a new incarnation before it serves; gone when it has.
pub const LOST: &[u8] = b"lost";
/// How far the scrub has come.
pub const SCRUB: &[u8] = b"scrub";
/// How often the node started without having been stopped.
pub const UNCLEAN_STARTS: &[u8] = b"unclean-starts";
/// Present if the last stop was in order.
pub const CLEAN: &[u8] = b"clean";
/// Present if every record has its digest beside it.
pub const SUMMARIES: &[u8] = b"summaries";
/// The view, postcard.
pub const VIEW: &[u8] = b"view";

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition's rows lie together and in token order, whatever the keys are.
    #[test]
    fn rows_sort_by_partition_then_token() {
        let bucket = BucketId([7; 16]);
        let a = data(Partition(1), Token(u64::MAX), bucket, b"zzz");
        let b = data(Partition(2), Token(0), bucket, b"a");
        let c = data(Partition(2), Token(256), bucket, b"");
        assert!(a < b && b < c);
        assert_eq!(bucket_and_key(&b), Some((bucket, Bytes::from_static(b"a"))));
    }

    #[test]
    fn a_lease_row_names_its_partition() {
        let actor = Actor { node: 3, incarnation: 9 };
        let row = lease(actor, Partition(515));
        assert!(row.starts_with(&leases_of(actor)));
        assert_eq!(partition_of_lease(&row), Some(Partition(515)));
    }
}
