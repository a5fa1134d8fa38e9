//! What is said about changes of the ring: proposals, the voters' own messages, and the copies that a move makes.
//!
//! A view and the entries of the membership log travel as their own bytes ([`atoll_ring`] says how). What the voters say
//! to each other is the business of their library and opaque here.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Asks for a change of the ring. Whoever does not lead the log passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propose {
    /// How often it was passed on.
    pub hops: u8,
    /// Tail: the [`atoll_ring::Command`] in postcard.
    #[serde(skip)]
    pub command: Bytes,
}

/// The change is in the log, and this node's view has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// The epoch that it made.
    pub epoch: u64,
}

/// Asks how the moves go that this node takes part in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovesQuery {}

/// How the moves go that a node takes part in, and how its copy of the log stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovesReport {
    /// Who leads the membership log, as far as the node knows.
    pub leader: Option<u32>,
    /// Voters that the node can reach, itself included; a leader counts those that follow it.
    pub voters_reachable: u8,
    /// Why no change can be made now; empty = it can.
    pub frozen: String,
    /// If it leads: why other voters, which it wants, could not be had, and when it tries again; empty = it wants no others.
    pub voters_wait: String,
    /// Rows of partitions that the node does not own and has not yet handed over.
    pub strays: u64,
    /// Hints it still holds for others.
    pub hints: u64,
    /// Tail: [`MoveReport`]s; see [`MovesReport::read`].
    #[serde(skip)]
    pub moves: Bytes,
}

/// How one partition moves, seen from a node that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReport {
    /// The partition.
    pub partition: u16,
    /// The epoch in which it became joint.
    pub session: u64,
    /// The node is a joining owner, and copies; else it is the one copied from.
    pub joins: bool,
    /// Keys copied so far, and about how many there are.
    pub keys: (u64, u64),
    /// Bytes copied so far.
    pub bytes: u64,
    /// Everything is on stable storage here.
    pub done: bool,
    /// The node that holds the move up, if one does.
    pub waits_for: Option<u32>,
}

/// A message between voters of the membership log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raft {
    /// Tail: the message.
    #[serde(skip)]
    pub message: Bytes,
}

/// The answer to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftReply {
    /// Tail: the message.
    #[serde(skip)]
    pub message: Bytes,
}

/// A joining owner asks a leaving one for a page of its rows. Refused unless the receiver's own view has this very move,
/// so an answer says that the receiver has fenced the time before it. The answer is a [`crate::Dumped`] page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// The partition.
    pub partition: u16,
    /// The epoch in which it became joint.
    pub session: u64,
    /// The first and the last token that are asked for. The first above the last: only rows in doubt, of all tokens.
    pub tokens: (u64, u64),
    /// The row after which to go on; empty = from the first token.
    pub after: Bytes,
}

/// A node that owns a partition no longer asks an owner which of these rows it holds, fsynced, as they are here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// The partition.
    pub partition: u16,
    /// Tail: per row its length (two bytes, big endian), the row, and the 16 bytes of its digest.
    #[serde(skip)]
    pub rows: Bytes,
}

/// Which of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covering {
    /// Tail: a byte per row asked about; 1 = the receiver holds the same, on stable storage.
    #[serde(skip)]
    pub which: Bytes,
}

impl MovesReport {
    /// The moves, as they are said.
    pub fn with(self, moves: &[MoveReport]) -> Self {
        let mut out = Vec::new();
        for one in moves {
            out = postcard::to_extend(one, out).expect("plain data");
        }
        MovesReport { moves: out.into(), ..self }
    }

    /// The moves; `None` if the bytes are no such list. Each names another partition, in their order.
    pub fn read(&self) -> Option<Vec<MoveReport>> {
        let mut left: &[u8] = &self.moves;
        let mut moves: Vec<MoveReport> = Vec::new();
        while !left.is_empty() {
            let (next, rest) = postcard::take_from_bytes::<MoveReport>(left).ok()?;
            if moves.last().is_some_and(|last| last.partition >= next.partition) {
                return None;
            }
            left = rest;
            moves.push(next);
        }
        Some(moves)
    }
}

impl Covered {
    /// Asks about these rows and the digests of what lies in them. A row's name has fewer than 65,536 bytes.
    pub fn of<'a>(partition: u16, rows: impl IntoIterator<Item = (&'a [u8], [u8; 16])>) -> Self {
        let mut out = Vec::new();
        for (row, digest) in rows {
            let length = u16::try_from(row.len()).expect("a row has a short name");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(row);
            out.extend_from_slice(&digest);
        }
        Covered { partition, rows: out.into() }
    }

    /// The rows and digests; `None` if the bytes are no such list. All bytes are slices of the frame.
    pub fn read(&self) -> Option<Vec<(Bytes, [u8; 16])>> {
        let mut left = self.rows.clone();
        let mut rows = Vec::new();
        while !left.is_empty() {
            let length = usize::from(u16::from_be_bytes(*left.first_chunk()?));
            if left.len() < 2 + length + 16 {
                return None;
            }
            drop(left.split_to(2));
            let row = left.split_to(length);
            let digest = left.split_to(16);
            rows.push((row, *digest.first_chunk().expect("sixteen bytes")));
        }
        Some(rows)
    }
}
