//! The envelope of bytes around a message.
//!
//! ```text
//!  0        4    5     6       8            16      18            18+h
//!  +--------+----+-----+-------+------------+-------+-------------+------------+
//!  | length | v  | kind| flags | request id |   h   | header      | tail       |
//!  | u32    | u8 | u8  | u16   | u64        |  u16  | postcard    | raw bytes  |
//!  +--------+----+-----+-------+------------+-------+-------------+------------+
//! ```
//!
//! All numbers are little endian. `length` counts what follows it and is checked against the cap of the kind
//! ([`Kind::frame_bytes_max`]) before anything is allocated. The header of a request is (envelope, body), of a reply
//! (epoch, body). The tail is a slice of the received bytes, never a copy.

use atoll_ring::Epoch;
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::{
    COMPARE_TAIL_BYTES_MAX, DUMP_TAIL_BYTES_MAX, HEADER_BYTES_MAX, KEYS_TAIL_BYTES_MAX,
    MANY_TAIL_BYTES_MAX, OPERATION_TAIL_BYTES_MAX, REGISTRY_TAIL_BYTES_MAX, STATE_TAIL_BYTES_MAX,
    VIEW_TAIL_BYTES_MAX,
};
use crate::{Envelope, Failure, Reply, Request};

/// Bytes before the header, the length word included.
pub const FIXED_BYTES: usize = 18;

const VERSION: u8 = 1;
const FLAG_REPLY: u16 = 1;
const FLAG_FAILED: u16 = 2;
const FLAGS_KNOWN: u16 = FLAG_REPLY | FLAG_FAILED;

/// What a frame is about. Requests and their replies share the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// See [`crate::Hello`].
    Hello,
    /// See [`crate::Ping`].
    Ping,
    /// See [`crate::ViewQuery`].
    View,
    /// See [`crate::StatusQuery`].
    Status,
    /// See [`crate::RepairQuery`].
    RepairStatus,
    /// See [`crate::RepairRun`].
    RepairRun,
    /// See [`crate::Dump`].
    Dump,
    /// See [`crate::FaultsRequest`].
    Faults,
    /// See [`crate::Propose`].
    Propose,
    /// See [`crate::MovesQuery`].
    Moves,
    /// See [`crate::Write`].
    Write,
    /// See [`crate::BucketChange`].
    BucketChange,
    /// See [`crate::BucketsQuery`].
    Buckets,
    /// See [`crate::Get`].
    Get,
    /// See [`crate::Many`].
    Many,
    /// See [`crate::List`].
    List,
    /// See [`crate::Explain`].
    Explain,
    /// See [`crate::Replicate`].
    Replicate,
    /// See [`crate::Fetch`].
    Fetch,
    /// See [`crate::Recall`].
    Recall,
    /// See [`crate::CompareRoots`].
    CompareRoots,
    /// See [`crate::Compare`].
    Compare,
    /// See [`crate::Entries`].
    Entries,
    /// See [`crate::Raft`].
    Raft,
    /// See [`crate::Copy`].
    Copy,
    /// See [`crate::Covered`].
    Covered,
    /// See [`crate::Scan`].
    Scan,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 27] = [
        Kind::Hello,
        Kind::Ping,
        Kind::View,
        Kind::Status,
        Kind::RepairStatus,
        Kind::RepairRun,
        Kind::Dump,
        Kind::Faults,
        Kind::Propose,
        Kind::Moves,
        Kind::Write,
        Kind::BucketChange,
        Kind::Buckets,
        Kind::Get,
        Kind::Many,
        Kind::List,
        Kind::Explain,
        Kind::Replicate,
        Kind::Fetch,
        Kind::Recall,
        Kind::CompareRoots,
        Kind::Compare,
        Kind::Entries,
        Kind::Raft,
        Kind::Copy,
        Kind::Covered,
        Kind::Scan,
    ];

    /// The number on the wire: below 16 about the cluster, from 16 from clients, from 32 between nodes. 18 was
    /// a delete before it became an operation, 35 a node's new incarnation before the membership log knew it; they stay free.
    pub fn number(self) -> u8 {
        match self {
            Kind::Hello => 1,
            Kind::Ping => 2,
            Kind::View => 3,
            Kind::Status => 4,
            Kind::RepairStatus => 5,
            Kind::RepairRun => 6,
            Kind::Dump => 7,
            Kind::Propose => 8,
            Kind::Moves => 9,
            Kind::Write => 16,
            Kind::BucketChange => 10,
            Kind::Buckets => 11,
            Kind::Faults => 12,
            Kind::Get => 17,
            Kind::Many => 19,
            Kind::List => 20,
            Kind::Explain => 21,
            Kind::Replicate => 32,
            Kind::Fetch => 33,
            Kind::Recall => 34,
            Kind::CompareRoots => 36,
            Kind::Compare => 37,
            Kind::Entries => 38,
            Kind::Raft => 39,
            Kind::Copy => 40,
            Kind::Covered => 41,
            Kind::Scan => 42,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Most bytes a tail of this kind may have, for a request and for a reply.
    fn tail_bytes_max(self, reply: bool) -> usize {
        match (self, reply) {
            (Kind::Write, false) => OPERATION_TAIL_BYTES_MAX,
            (Kind::Get | Kind::Fetch, true) | (Kind::Replicate, false) => STATE_TAIL_BYTES_MAX,
            (Kind::Many, _) => MANY_TAIL_BYTES_MAX,
            (Kind::List | Kind::Scan, true) => KEYS_TAIL_BYTES_MAX,
            (Kind::List | Kind::Scan, false) => 0,
            (Kind::View | Kind::RepairStatus, true) => VIEW_TAIL_BYTES_MAX,
            (Kind::Propose, false) | (Kind::Moves, true) | (Kind::Raft, _) => VIEW_TAIL_BYTES_MAX,
            (Kind::Dump | Kind::Copy, true) => DUMP_TAIL_BYTES_MAX,
            (Kind::BucketChange, false) | (Kind::Buckets, true) => REGISTRY_TAIL_BYTES_MAX,
            (Kind::BucketChange, true) | (Kind::Buckets, false) => 0,
            (Kind::CompareRoots | Kind::Compare | Kind::Entries | Kind::Covered, _) => {
                COMPARE_TAIL_BYTES_MAX
            }
            (Kind::Propose, true) | (Kind::Moves | Kind::Copy, false) => 0,
            (Kind::Hello | Kind::Ping | Kind::Status | Kind::Explain | Kind::Faults, _) => 0,
            (Kind::RepairRun | Kind::Recall, _) => 0,
            (Kind::View | Kind::RepairStatus | Kind::Dump, false) => 0,
            (Kind::Write | Kind::Replicate, true) | (Kind::Get | Kind::Fetch, false) => 0,
        }
    }

    /// Most bytes a frame of this kind may have behind its length word.
    pub fn frame_bytes_max(self, reply: bool) -> usize {
        FIXED_BYTES - 4 + HEADER_BYTES_MAX + self.tail_bytes_max(reply)
    }
}

/// Why bytes are no frame, or a frame no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its own parts.
    #[error("frame is cut short")]
    Short,
    /// Of a protocol version we do not speak.
    #[error("unknown frame version {0}")]
    Version(u8),
    /// Of a kind we do not know.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Flags we do not know.
    #[error("unknown frame flags {0:#x}")]
    Flags(u16),
    /// Longer than its kind may be.
    #[error("frame of {length} bytes is over the cap of {cap}")]
    TooLong {
        /// What the length word said.
        length: usize,
        /// What its kind may have.
        cap: usize,
    },
    /// The header does not decode to what the kind says, or has bytes left over.
    #[error("malformed header")]
    Header,
    /// A reply where a request belongs, or the other way round.
    #[error("wrong direction")]
    Direction,
}

/// A frame taken apart, its header still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is about.
    pub kind: Kind,
    /// Whether it answers.
    pub reply: bool,
    failed: bool,
    /// Which request of the connection.
    pub id: u64,
    header: Bytes,
    tail: Bytes,
}

/// The length and kind at the head of a stream of bytes: enough to decide whether to go on reading.
///
/// `None` = more bytes are needed. The length is of the whole frame, its own word included.
pub fn peek_length(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(head) = bytes.get(..8) else { return Ok(None) };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if head[4] != VERSION {
        return Err(FrameError::Version(head[4]));
    }
    let kind = Kind::from_number(head[5]).ok_or(FrameError::Kind(head[5]))?;
    let flags = u16::from_le_bytes([head[6], head[7]]);
    if flags & !FLAGS_KNOWN != 0 {
        return Err(FrameError::Flags(flags));
    }
    let cap = FIXED_BYTES - 4 + HEADER_BYTES_MAX + tail_cap(kind, flags);
    if length > cap {
        return Err(FrameError::TooLong { length, cap });
    }
    if length < FIXED_BYTES - 4 {
        return Err(FrameError::Short);
    }
    Ok(Some(length + 4))
}

/// What the fixed bytes at the beginning of a frame say: enough to refuse it, or to make room for it, before the rest is
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is about.
    pub kind: Kind,
    /// Whether it answers.
    pub reply: bool,
    /// Which request of the connection.
    pub id: u64,
    /// Bytes of the whole frame, its length word included; within the cap of its kind.
    pub length: usize,
}

impl Head {
    /// Reads the head; `None` = more bytes are needed, [`FIXED_BYTES`] in all.
    ///
    /// # Errors
    /// As [`peek_length`], which needs fewer bytes.
    pub fn peek(bytes: &[u8]) -> Result<Option<Head>, FrameError> {
        let Some(length) = peek_length(bytes)? else { return Ok(None) };
        let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
        Ok(Some(Head {
            kind: Kind::from_number(fixed[5]).ok_or(FrameError::Kind(fixed[5]))?,
            reply: u16::from_le_bytes([fixed[6], fixed[7]]) & FLAG_REPLY != 0,
            id: u64::from_le_bytes(fixed[8..16].try_into().expect("eight bytes")),
            length,
        }))
    }
}

/// Most bytes the tail of a frame with these flags may have. A failure has none, whatever was asked.
fn tail_cap(kind: Kind, flags: u16) -> usize {
    if flags & FLAG_FAILED != 0 { 0 } else { kind.tail_bytes_max(flags & FLAG_REPLY != 0) }
}

impl Frame {
    /// Takes one whole frame apart. `bytes` is exactly the frame, its length word included.
    pub fn parse(bytes: &Bytes) -> Result<Frame, FrameError> {
        let length = peek_length(bytes)?.ok_or(FrameError::Short)?;
        if bytes.len() != length {
            return Err(FrameError::Short);
        }
        let kind = Kind::from_number(bytes[5]).ok_or(FrameError::Kind(bytes[5]))?;
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        let id = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
        let header_length = usize::from(u16::from_le_bytes([bytes[16], bytes[17]]));
        let reply = flags & FLAG_REPLY != 0;
        if header_length > HEADER_BYTES_MAX {
            return Err(FrameError::TooLong { length: header_length, cap: HEADER_BYTES_MAX });
        }
        let tail_at = FIXED_BYTES + header_length;
        if tail_at > bytes.len() {
            return Err(FrameError::Short);
        }
        let (tail, cap) = (bytes.slice(tail_at..), tail_cap(kind, flags));
        if tail.len() > cap {
            return Err(FrameError::TooLong { length: tail.len(), cap });
        }
        let header = bytes.slice(FIXED_BYTES..tail_at);
        Ok(Frame { kind, reply, failed: flags & FLAG_FAILED != 0, id, header, tail })
    }

    /// Bytes of the whole frame, its length word included.
    pub fn length(&self) -> usize {
        FIXED_BYTES + self.header.len() + self.tail.len()
    }

    /// The request in this frame.
    pub fn request(&self) -> Result<(Envelope, Request), FrameError> {
        if self.reply || self.failed {
            return Err(FrameError::Direction);
        }
        let tail = self.tail.clone();
        Ok(match self.kind {
            Kind::Hello => self.body(Request::Hello)?,
            Kind::Ping => self.body(Request::Ping)?,
            Kind::View => self.body(Request::View)?,
            Kind::Status => self.body(Request::Status)?,
            Kind::Get => self.body(Request::Get)?,
            Kind::Fetch => self.body(Request::Fetch)?,
            Kind::RepairStatus => self.body(Request::RepairStatus)?,
            Kind::RepairRun => self.body(Request::RepairRun)?,
            Kind::Dump => self.body(Request::Dump)?,
            Kind::Faults => self.body(Request::Faults)?,
            Kind::Moves => self.body(Request::Moves)?,
            Kind::BucketChange => self.body(|asked| {
                Request::BucketChange(crate::BucketChange { registry: tail, ..asked })
            })?,
            Kind::Buckets => self.body(Request::Buckets)?,
            Kind::Propose => {
                self.body(|asked| Request::Propose(crate::Propose { command: tail, ..asked }))?
            }
            Kind::Raft => {
                self.body(|_: crate::Raft| Request::Raft(crate::Raft { message: tail }))?
            }
            Kind::Copy => self.body(Request::Copy)?,
            Kind::List => self.body(Request::List)?,
            Kind::Explain => self.body(Request::Explain)?,
            Kind::Scan => self.body(Request::Scan)?,
            Kind::Covered => {
                self.body(|asked| Request::Covered(crate::Covered { rows: tail, ..asked }))?
            }
            Kind::Recall => self.body(Request::Recall)?,
            Kind::CompareRoots => self.body(|_: crate::CompareRoots| {
                Request::CompareRoots(crate::CompareRoots { roots: tail })
            })?,
            Kind::Compare => {
                self.body(|compare| Request::Compare(crate::Compare { hashes: tail, ..compare }))?
            }
            Kind::Entries => self.body(|entries| {
                Request::Entries(crate::Entries { fingerprints: tail, ..entries })
            })?,
            Kind::Write => {
                self.body(|write| Request::Write(crate::Write { operation: tail, ..write }))?
            }
            Kind::Many => {
                self.body(|_: crate::Many| Request::Many(crate::Many { requests: tail }))?
            }
            Kind::Replicate => self.body(|replicate| {
                Request::Replicate(crate::Replicate { state: tail, ..replicate })
            })?,
        })
    }

    /// The reply in this frame and the epoch of its sender.
    pub fn reply(&self) -> Result<(Epoch, Reply), FrameError> {
        if !self.reply {
            return Err(FrameError::Direction);
        }
        if self.failed {
            return self.body(|failure: Failure| Reply::Failed(Box::new(failure)));
        }
        let tail = self.tail.clone();
        Ok(match self.kind {
            Kind::Hello => self.body(Reply::Welcome)?,
            Kind::Ping => self.body(Reply::Pong)?,
            Kind::View => {
                self.body(|_: crate::ViewReply| Reply::View(crate::ViewReply { view: tail }))?
            }
            Kind::Status => self.body(|status| Reply::Status(Box::new(status)))?,
            Kind::Explain => self.body(|explained| Reply::Explained(Box::new(explained)))?,
            Kind::Write => self.body(Reply::Written)?,
            Kind::Many => {
                self.body(|_: crate::ManyReply| Reply::Many(crate::ManyReply { replies: tail }))?
            }
            Kind::List => {
                self.body(|listed| Reply::Listed(crate::Listed { keys: tail, ..listed }))?
            }
            Kind::Scan => {
                self.body(|scanned| Reply::Scanned(crate::Scanned { rows: tail, ..scanned }))?
            }
            Kind::Replicate => self.body(Reply::Replicated)?,
            Kind::Get => {
                self.body(|found| Reply::Found(crate::Found { reading: tail, ..found }))?
            }
            Kind::Fetch => {
                self.body(|fetched| Reply::Fetched(crate::Fetched { state: tail, ..fetched }))?
            }
            Kind::RepairStatus => self.body(|_: crate::RepairReport| {
                Reply::RepairStatus(crate::RepairReport { partitions: tail })
            })?,
            Kind::RepairRun => self.body(Reply::RepairRun)?,
            Kind::Faults => self.body(|report| Reply::Faults(Box::new(report)))?,
            Kind::Dump => {
                self.body(|dumped| Reply::Dumped(crate::Dumped { rows: tail, ..dumped }))?
            }
            Kind::Moves => {
                self.body(|report| Reply::Moves(crate::MovesReport { moves: tail, ..report }))?
            }
            Kind::Propose => self.body(Reply::Proposed)?,
            Kind::BucketChange => self.body(Reply::BucketChanged)?,
            Kind::Buckets => {
                self.body(|known| Reply::Buckets(crate::Buckets { registry: tail, ..known }))?
            }
            Kind::Raft => {
                self.body(|_: crate::RaftReply| Reply::Raft(crate::RaftReply { message: tail }))?
            }
            Kind::Copy => {
                self.body(|dumped| Reply::Copied(crate::Dumped { rows: tail, ..dumped }))?
            }
            Kind::Covered => {
                self.body(|_: crate::Covering| Reply::Covering(crate::Covering { which: tail }))?
            }
            Kind::Recall => self.body(Reply::Recalled)?,
            Kind::CompareRoots | Kind::Compare => {
                self.body(|_: crate::Differing| Reply::Differing(crate::Differing { which: tail }))?
            }
            Kind::Entries => self
                .body(|_: crate::Unmatched| Reply::Unmatched(crate::Unmatched { entries: tail }))?,
        })
    }

    /// Decodes (first, body), refusing bytes left over, which postcard alone would ignore.
    fn body<F: DeserializeOwned, B: DeserializeOwned, T>(
        &self,
        make: impl FnOnce(B) -> T,
    ) -> Result<(F, T), FrameError> {
        let (both, rest) =
            postcard::take_from_bytes::<(F, B)>(&self.header).map_err(|_| FrameError::Header)?;
        if !rest.is_empty() {
            return Err(FrameError::Header);
        }
        Ok((both.0, make(both.1)))
    }
}

/// A message ready to be sent: the part we wrote, and the tail as it was given.
pub type Encoded = [Bytes; 2];

/// Encodes a request.
///
/// # Errors
/// [`FrameError::TooLong`] if a part is over its cap. Checked here too, so that a peer never has to cut us off.
pub fn encode_request(
    id: u64,
    envelope: &Envelope,
    request: &Request,
) -> Result<Encoded, FrameError> {
    let none = Bytes::new();
    match request {
        Request::Hello(body) => encode(Kind::Hello, 0, id, &(envelope, body), &none),
        Request::Ping(body) => encode(Kind::Ping, 0, id, &(envelope, body), &none),
        Request::View(body) => encode(Kind::View, 0, id, &(envelope, body), &none),
        Request::Status(body) => encode(Kind::Status, 0, id, &(envelope, body), &none),
        Request::Write(body) => encode(Kind::Write, 0, id, &(envelope, body), &body.operation),
        Request::List(body) => encode(Kind::List, 0, id, &(envelope, body), &none),
        Request::Explain(body) => encode(Kind::Explain, 0, id, &(envelope, body), &none),
        Request::Scan(body) => encode(Kind::Scan, 0, id, &(envelope, body), &none),
        Request::Many(body) => encode(Kind::Many, 0, id, &(envelope, body), &body.requests),
        Request::Get(body) => encode(Kind::Get, 0, id, &(envelope, body), &none),
        Request::Replicate(body) => encode(Kind::Replicate, 0, id, &(envelope, body), &body.state),
        Request::Fetch(body) => encode(Kind::Fetch, 0, id, &(envelope, body), &none),
        Request::RepairStatus(body) => encode(Kind::RepairStatus, 0, id, &(envelope, body), &none),
        Request::RepairRun(body) => encode(Kind::RepairRun, 0, id, &(envelope, body), &none),
        Request::Dump(body) => encode(Kind::Dump, 0, id, &(envelope, body), &none),
        Request::Faults(body) => encode(Kind::Faults, 0, id, &(envelope, body), &none),
        Request::Moves(body) => encode(Kind::Moves, 0, id, &(envelope, body), &none),
        Request::BucketChange(body) => {
            encode(Kind::BucketChange, 0, id, &(envelope, body), &body.registry)
        }
        Request::Buckets(body) => encode(Kind::Buckets, 0, id, &(envelope, body), &none),
        Request::Propose(body) => encode(Kind::Propose, 0, id, &(envelope, body), &body.command),
        Request::Raft(body) => encode(Kind::Raft, 0, id, &(envelope, body), &body.message),
        Request::Copy(body) => encode(Kind::Copy, 0, id, &(envelope, body), &none),
        Request::Covered(body) => encode(Kind::Covered, 0, id, &(envelope, body), &body.rows),
        Request::Recall(body) => encode(Kind::Recall, 0, id, &(envelope, body), &none),
        Request::CompareRoots(body) => {
            encode(Kind::CompareRoots, 0, id, &(envelope, body), &body.roots)
        }
        Request::Compare(body) => encode(Kind::Compare, 0, id, &(envelope, body), &body.hashes),
        Request::Entries(body) => {
            encode(Kind::Entries, 0, id, &(envelope, body), &body.fingerprints)
        }
    }
}

/// Encodes a reply to a request of this kind.
///
/// # Errors
/// [`FrameError::TooLong`] if a part is over its cap, [`FrameError::Direction`] if the reply does not belong to the kind.
pub fn encode_reply(
    kind: Kind,
    id: u64,
    epoch: Epoch,
    reply: &Reply,
) -> Result<Encoded, FrameError> {
    let none = Bytes::new();
    match (kind, reply) {
        (_, Reply::Failed(body)) => {
            encode(kind, FLAG_REPLY | FLAG_FAILED, id, &(epoch, body), &none)
        }
        (Kind::Hello, Reply::Welcome(body)) => encode(kind, FLAG_REPLY, id, &(epoch, body), &none),
        (Kind::Ping, Reply::Pong(body)) => encode(kind, FLAG_REPLY, id, &(epoch, body), &none),
        (Kind::View, Reply::View(body)) => encode(kind, FLAG_REPLY, id, &(epoch, body), &body.view),
        (Kind::Status, Reply::Status(body)) => encode(kind, FLAG_REPLY, id, &(epoch, body), &none),
        (Kind::Explain, Reply::Explained(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &none)
        }
        (Kind::Write, Reply::Written(body)) => encode(kind, FLAG_REPLY, id, &(epoch, body), &none),
        (Kind::Get, Reply::Found(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.reading)
        }
        (Kind::Many, Reply::Many(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.replies)
        }
        (Kind::List, Reply::Listed(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.keys)
        }
        (Kind::Scan, Reply::Scanned(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.rows)
        }
        (Kind::Replicate, Reply::Replicated(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &none)
        }
        (Kind::Fetch, Reply::Fetched(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.state)
        }
        (Kind::RepairStatus, Reply::RepairStatus(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.partitions)
        }
        (Kind::RepairRun, Reply::RepairRun(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &none)
        }
        (Kind::Dump, Reply::Dumped(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.rows)
        }
        (Kind::Faults, Reply::Faults(body)) => encode(kind, FLAG_REPLY, id, &(epoch, body), &none),
        (Kind::Moves, Reply::Moves(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.moves)
        }
        (Kind::BucketChange, Reply::BucketChanged(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &none)
        }
        (Kind::Buckets, Reply::Buckets(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.registry)
        }
        (Kind::Propose, Reply::Proposed(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &none)
        }
        (Kind::Raft, Reply::Raft(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.message)
        }
        (Kind::Copy, Reply::Copied(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.rows)
        }
        (Kind::Covered, Reply::Covering(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.which)
        }
        (Kind::Recall, Reply::Recalled(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &none)
        }
        (Kind::CompareRoots | Kind::Compare, Reply::Differing(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.which)
        }
        (Kind::Entries, Reply::Unmatched(body)) => {
            encode(kind, FLAG_REPLY, id, &(epoch, body), &body.entries)
        }
        (
            Kind::Hello
            | Kind::Ping
            | Kind::View
            | Kind::Status
            | Kind::Write
            | Kind::Get
            | Kind::Many
            | Kind::List
            | Kind::Explain
            | Kind::Replicate
            | Kind::Fetch
            | Kind::RepairStatus
            | Kind::RepairRun
            | Kind::Dump
            | Kind::Recall
            | Kind::CompareRoots
            | Kind::Compare
            | Kind::Entries
            | Kind::Faults
            | Kind::Propose
            | Kind::Moves
            | Kind::BucketChange
            | Kind::Buckets
            | Kind::Raft
            | Kind::Copy
            | Kind::Covered
            | Kind::Scan,
            _,
        ) => Err(FrameError::Direction),
    }
}

fn encode(
    kind: Kind,
    flags: u16,
    id: u64,
    header: &impl Serialize,
    tail: &Bytes,
) -> Result<Encoded, FrameError> {
    let mut out = BytesMut::with_capacity(192);
    out.put_bytes(0, FIXED_BYTES);
    let mut out = postcard::to_extend(header, out).map_err(|_| FrameError::Header)?;
    let header_length = out.len() - FIXED_BYTES;
    if header_length > HEADER_BYTES_MAX {
        return Err(FrameError::TooLong { length: header_length, cap: HEADER_BYTES_MAX });
    }
    let cap = tail_cap(kind, flags);
    if tail.len() > cap {
        return Err(FrameError::TooLong { length: tail.len(), cap });
    }
    let length = u32::try_from(out.len() - 4 + tail.len()).expect("caps are far below 4 GiB");
    out[0..4].copy_from_slice(&length.to_le_bytes());
    out[4] = VERSION;
    out[5] = kind.number();
    out[6..8].copy_from_slice(&flags.to_le_bytes());
    out[8..16].copy_from_slice(&id.to_le_bytes());
    let header_length = u16::try_from(header_length).expect("HEADER_BYTES_MAX fits");
    out[16..18].copy_from_slice(&header_length.to_le_bytes());
    Ok([out.freeze(), tail.clone()])
}
