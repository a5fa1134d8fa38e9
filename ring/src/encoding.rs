//! A view in few bytes: what goes over the wire, into a node's store and into a snapshot of the log.
//!
//! ```text
//!   1 byte   the number of this format
//!   16       cluster
//!   varint   epoch, partitions, replicas, bucket N
//!   members, removed, invitations, voters       each: varint count, then the entries
//!   owners   for each partition: varint count, then per owner the varint index of the member
//!   age      for each partition: varint, epochs since it last changed
//!   moves, wanted                               each: varint count, then the entries:
//!              varint   partitions since the entry before
//!              varint   owners in the target
//!              varint   a bit for each of those that differs from who sits there before
//!              varint   for each bit the index of the member
//! ```
//!
//! Owners are indices among the members and not ids, because ids grow for ever. A thousand nodes
//! with 32,768 partitions of three owners are about 280 KB; as plain numbers they would be 400 KB
//! and more.
//!
//! Numbers are LEB128 varints: seven bits a byte, the lowest first. Strings and addresses have a
//! length in front. Nothing is allocated by a number that was read: lists grow with the bytes there
//! are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::{Serialize, Serializer};

use crate::change::{INVITATIONS_MAX, VOTERS_MAX};
use crate::document::{Document, REMOVED_MAX, ViewError};
use crate::placement::{MEMBERS_MAX, REPLICAS_MAX};
use crate::token::PARTITIONS_MAX;
use crate::{
    ClusterId, Epoch, Invitation, Member, MemberState, Move, NodeId, Partition, Partitions,
    Removed, View,
};

/// The first byte of what this version writes.
const FORMAT: u8 = 1;

impl View {
    /// The view in few bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(self.owners.len() * 9 + self.members.len() * 40));
        out.0.push(FORMAT);
        out.0.extend(self.cluster.0);
        out.number(self.epoch.0);
        out.number(u64::from(self.partitions.count()));
        out.number(u64::from(self.replicas));
        out.number(u64::from(self.bucket_n));
        out.list(&self.members, Writer::member);
        out.list(&self.removed, |out, gone| {
            out.number(u64::from(gone.id.0));
            out.number(u64::from(gone.incarnation));
            out.number(gone.epoch.0);
        });
        out.list(&self.invitations, |out, open| {
            out.0.extend(open.id);
            out.number(u64::from(open.node.0));
            out.number(open.expires_ms);
        });
        out.list(&self.voters, |out, voter| out.number(u64::from(voter.0)));
        for owners in &self.owners {
            out.list(owners, |out, owner| out.number(self.index(*owner)));
        }
        for changed in &self.last_changed {
            out.number(self.epoch.0 - changed.0);
        }
        let moves = self.moves.iter().map(|(at, going)| (*at, going.target.as_slice()));
        self.write_targets(&mut out, moves, |at| &self.owners[at.index()]);
        let wanted = self.wanted.iter().map(|(at, target)| (*at, target.as_slice()));
        self.write_targets(&mut out, wanted, |at| self.settled(at));
        out.0
    }

    /// Reads what [`View::encode`] wrote, and checks it like any view from outside.
    ///
    /// # Errors
    /// These bytes are no view, or one of a later format.
    pub fn decode(bytes: &[u8]) -> Result<View, DecodeError> {
        let mut rest = Reader(bytes);
        let format = rest.byte()?;
        if format != FORMAT {
            return Err(DecodeError::Format { format });
        }
        let cluster = ClusterId(rest.array()?);
        let epoch = Epoch(rest.number()?);
        let count = rest.small()?;
        let partitions = Partitions::new(count).map_err(|_| DecodeError::Damaged)?;
        let (replicas, bucket_n) = (rest.small()?, rest.small()?);
        let members = rest.list(MEMBERS_MAX, Reader::member)?;
        let removed = rest.list(REMOVED_MAX, |rest| {
            let (id, incarnation) = (NodeId(rest.small()?), rest.small()?);
            Ok(Removed { id, incarnation, epoch: Epoch(rest.number()?) })
        })?;
        let invitations = rest.list(INVITATIONS_MAX, |rest| {
            let (id, node) = (rest.array()?, NodeId(rest.small()?));
            Ok(Invitation { id, node, expires_ms: rest.number()? })
        })?;
        let voters = rest.list(VOTERS_MAX, |rest| Ok(NodeId(rest.small()?)))?;
        let owners: Vec<Vec<NodeId>> =
            rest.repeat(count, |rest| rest.list(REPLICAS_MAX.into(), |rest| rest.owner(&members)))?;
        let last_changed = rest.repeat(count, |rest| {
            let age = rest.number()?;
            epoch.0.checked_sub(age).map(Epoch).ok_or(DecodeError::Damaged)
        })?;
        let moves = rest.targets(&members, |at| owners.get(at.index()))?;
        let settled = |at: Partition| moves.get(&at).or_else(|| owners.get(at.index()));
        let wanted = rest.targets(&members, settled)?;
        if !rest.0.is_empty() {
            return Err(DecodeError::Damaged);
        }
        let moves = moves.into_iter().map(|(at, target)| (at, Move { target })).collect();
        let document = Document {
            cluster,
            epoch,
            partitions,
            replicas,
            bucket_n,
            members,
            removed,
            invitations,
            voters,
            owners,
            last_changed,
            moves,
            wanted,
        };
        Ok(View::try_from(document)?)
    }

    fn index(&self, owner: NodeId) -> u64 {
        let index = self.members.binary_search_by_key(&owner, |member| member.id);
        index.expect("an owner is a member") as u64
    }

    fn write_targets<'a>(
        &'a self,
        out: &mut Writer,
        targets: impl ExactSizeIterator<Item = (Partition, &'a [NodeId])>,
        before: impl Fn(Partition) -> &'a [NodeId],
    ) {
        out.number(targets.len() as u64);
        let mut last = 0;
        for (partition, target) in targets {
            out.number(u64::from(partition.0 - last));
            last = partition.0;
            out.number(target.len() as u64);
            let before = before(partition);
            let differs = |seat: &usize| before.get(*seat) != Some(&target[*seat]);
            let changed: Vec<usize> = (0..target.len()).filter(differs).collect();
            out.number(changed.iter().fold(0, |bits, seat| bits | 1 << seat));
            for seat in changed {
                out.number(self.index(target[seat]));
            }
        }
    }
}

/// Bytes that are no view, or no moves. Whoever sent or stored them is wrong; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A format that this version does not know.
    #[error("bytes in format {format}, and this version reads format {FORMAT}: upgrade this node")]
    Format {
        /// Its number.
        format: u8,
    },
    /// Cut short, too long, or numbers out of range.
    #[error("the bytes are damaged")]
    Damaged,
    /// Well formed, and no view.
    #[error(transparent)]
    View(#[from] ViewError),
}

pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn list<T>(&mut self, entries: &[T], write: impl Fn(&mut Writer, &T)) {
        self.number(entries.len() as u64);
        for entry in entries {
            write(self, entry);
        }
    }

    fn member(&mut self, member: &Member) {
        let Member { id, incarnation, address, zone, weight, state } = member;
        self.number(u64::from(id.0));
        self.number(u64::from(*incarnation));
        match address {
            SocketAddr::V4(v4) => self.bytes(&v4.ip().octets()),
            SocketAddr::V6(v6) => {
                self.bytes(&v6.ip().octets());
                self.number(u64::from(v6.flowinfo()));
                self.number(u64::from(v6.scope_id()));
            }
        }
        self.number(u64::from(address.port()));
        self.bytes(zone.as_bytes());
        self.number(u64::from(*weight));
        self.0.push(match state {
            MemberState::Joining => 0,
            MemberState::Active => 1,
            MemberState::Leaving => 2,
            MemberState::Dead => 3,
        });
    }
}

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.0.split_first().ok_or(DecodeError::Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(DecodeError::Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    /// Each number has one form: none begins with seven zero bits that say nothing.
    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(DecodeError::Damaged);
            }
            number |= bits << shift;
            if byte < 0x80 {
                let is_padded = byte == 0 && shift > 0;
                return if is_padded { Err(DecodeError::Damaged) } else { Ok(number) };
            }
        }
        Err(DecodeError::Damaged)
    }

    /// A number of a smaller type.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.number()?).map_err(|_| DecodeError::Damaged)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.small()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Damaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn list<T>(
        &mut self,
        most: usize,
        read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count: u32 = self.small()?;
        if count as usize > most { Err(DecodeError::Damaged) } else { self.repeat(count, read) }
    }

    /// Every entry has a byte at least, so there are never more than there are bytes.
    pub(crate) fn repeat<T>(
        &mut self,
        count: u32,
        mut read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        if count as usize > self.0.len() {
            return Err(DecodeError::Damaged);
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn owner(&mut self, members: &[Member]) -> Result<NodeId, DecodeError> {
        let index: usize = self.small()?;
        members.get(index).map(|member| member.id).ok_or(DecodeError::Damaged)
    }

    fn member(&mut self) -> Result<Member, DecodeError> {
        let (id, incarnation) = (NodeId(self.small()?), self.small()?);
        let ip = self.bytes()?;
        let address = if let Ok(v4) = <[u8; 4]>::try_from(ip) {
            SocketAddr::new(IpAddr::from(v4), self.small()?)
        } else {
            let v6 = <[u8; 16]>::try_from(ip).map_err(|_| DecodeError::Damaged)?;
            let (flow, scope) = (self.small()?, self.small()?);
            std::net::SocketAddrV6::new(v6.into(), self.small()?, flow, scope).into()
        };
        let zone = std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Damaged)?.to_owned();
        let weight = self.small()?;
        let state = match self.byte()? {
            0 => MemberState::Joining,
            1 => MemberState::Active,
            2 => MemberState::Leaving,
            3 => MemberState::Dead,
            _ => return Err(DecodeError::Damaged),
        };
        Ok(Member { id, incarnation, address, zone, weight, state })
    }

    fn targets<'b>(
        &mut self,
        members: &[Member],
        before: impl Fn(Partition) -> Option<&'b Vec<NodeId>>,
    ) -> Result<BTreeMap<Partition, Vec<NodeId>>, DecodeError> {
        let mut last = None;
        let targets = self.list(PARTITIONS_MAX as usize, |rest| {
            let step: u16 = rest.small()?;
            let is_again = last.is_some() && step == 0;
            let at = last.unwrap_or(0_u16).checked_add(step).filter(|_| !is_again);
            let partition = Partition(at.ok_or(DecodeError::Damaged)?);
            last = at;
            let before = before(partition).ok_or(DecodeError::Damaged)?;
            let (seats, changed): (u8, u64) = (rest.small()?, rest.number()?);
            if seats > REPLICAS_MAX || changed >> seats != 0 {
                return Err(DecodeError::Damaged);
            }
            let seat = |seat: u8| {
                let stays = changed >> seat & 1 == 0;
                match before.get(usize::from(seat)) {
                    Some(owner) if stays => Ok(*owner),
                    None if stays => Err(DecodeError::Damaged),
                    Some(_) | None => rest.owner(members),
                }
            };
            Ok((partition, (0..seats).map(seat).collect::<Result<Vec<_>, _>>()?))
        })?;
        Ok(targets.into_iter().collect())
    }
}

/// As a document where people read, in few bytes elsewhere.
impl Serialize for View {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.document().serialize(serializer)
        } else {
            serializer.serialize_bytes(&self.encode())
        }
    }
}

impl<'de> Deserialize<'de> for View {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            View::try_from(Document::deserialize(deserializer)?).map_err(D::Error::custom)
        } else {
            deserializer.deserialize_bytes(Encoded)
        }
    }
}

struct Encoded;

impl Visitor<'_> for Encoded {
    type Value = View;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the bytes of a view")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<View, E> {
        View::decode(bytes).map_err(E::custom)
    }
}
