//! A lane: one long-lived stream, frames one behind the other in both directions.
//!
//! The writer drains its queue into one write; the reader cuts frames out of whatever arrives. Against a stream per
//! request this costs 1.7 times less.

use atoll_wire::{
    Frame, FrameError,
    frame::{Encoded, FIXED_BYTES, Head, peek_length},
    limits::LANE_FRAME_BYTES_MAX,
};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Frames that may wait for the writer.
pub(crate) const QUEUE_FRAMES_MAX: usize = 4096;

/// Bytes gathered before they are handed to the stream.
const GATHER_BYTES: usize = 64 << 10;

/// Writes what comes out of the queue until it is closed and drained, then ends the stream. What a frame holds with it
/// (the room it takes) is let go when QUIC has taken the frame.
pub(crate) async fn write<Held>(
    mut stream: quinn::SendStream,
    mut queue: mpsc::Receiver<(Encoded, Held)>,
) -> Result<(), quinn::WriteError> {
    let mut batch = Vec::with_capacity(64);
    while queue.recv_many(&mut batch, 64).await > 0 {
        let whole = batch.iter().map(|(frame, _)| size(frame)).sum::<usize>();
        let mut out = BytesMut::with_capacity(whole.min(GATHER_BYTES));
        let mut gathered = Vec::with_capacity(batch.len());
        for (frame, held) in batch.drain(..) {
            if !out.is_empty() && out.len() + size(&frame) > GATHER_BYTES {
                stream.write_chunk(out.split().freeze()).await?;
                gathered.clear();
            }
            let [head, tail] = frame;
            out.extend_from_slice(&head);
            out.extend_from_slice(&tail);
            gathered.push(held);
        }
        stream.write_chunk(out.freeze()).await?; // not cancel safe: this task is never raced
    }
    let _ = stream.finish();
    Ok(())
}

/// Bytes of a frame.
pub(crate) fn size(frame: &Encoded) -> usize {
    frame[0].len() + frame[1].len()
}

/// Whether a frame is too long for a lane and needs a stream of its own.
pub(crate) fn is_long(frame: &Encoded) -> bool {
    size(frame) > LANE_FRAME_BYTES_MAX
}

/// Cuts frames out of a stream.
///
/// Each frame has memory of its own. Cut from a shared piece, one small request that is long in work would keep the whole
/// piece, sixty times its size, and no count of bytes would know.
pub(crate) struct Reader {
    stream: quinn::RecvStream,
    /// What has arrived and belongs to no frame yet.
    chunk: Bytes,
    /// The beginning of the next frame.
    begun: Vec<u8>,
    frame_bytes_max: usize,
}

/// Why a lane has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Stream(#[from] quinn::ReadError),
    #[error("the peer sent bytes that are no frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the stream ended inside a frame")]
    CutShort,
}

impl Reader {
    /// Reads a lane, where a long frame has no business: it would hold up whatever comes behind it.
    pub(crate) fn of_lane(stream: quinn::RecvStream) -> Self {
        Self::new(stream, LANE_FRAME_BYTES_MAX)
    }

    /// Reads a stream that carries one frame, as long as its kind may be.
    pub(crate) fn of_one(stream: quinn::RecvStream) -> Self {
        Self::new(stream, usize::MAX)
    }

    fn new(stream: quinn::RecvStream, frame_bytes_max: usize) -> Self {
        Reader { stream, chunk: Bytes::new(), begun: Vec::new(), frame_bytes_max }
    }

    /// The head of the next frame, without reading any further; `None` at the end of the stream.
    pub(crate) async fn head(&mut self) -> Result<Option<Head>, ReadError> {
        loop {
            if let Some(head) = Head::peek(&self.begun)? {
                return Ok(Some(head));
            }
            let missing = FIXED_BYTES - self.begun.len();
            if self.chunk.is_empty() && !self.read(missing).await? {
                return self.ended();
            }
            let taken = missing.min(self.chunk.len());
            self.begun.extend_from_slice(&self.chunk.split_to(taken));
        }
    }

    /// The next frame; `None` at the end of the stream. A length is believed only up to the cap of its kind and of this
    /// stream, and memory is taken as bytes arrive, not as they are announced: never more than twice what has come, nor
    /// more than the frame will have.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            let seen = if self.begun.is_empty() { &self.chunk[..] } else { &self.begun };
            let length = peek_length(seen)?;
            if let Some(length) = length.filter(|length| *length > self.frame_bytes_max) {
                return Err(FrameError::TooLong { length, cap: self.frame_bytes_max }.into());
            }
            let whole = length.unwrap_or(LENGTH_KNOWN_AT);
            if length.is_some() && self.begun.len() == whole {
                return Ok(Some(Frame::parse(&std::mem::take(&mut self.begun).into())?));
            }
            if self.chunk.is_empty() && !self.read(GATHER_BYTES).await? {
                return self.ended();
            }
            if self.begun.is_empty() && length.is_none() && self.chunk.len() >= LENGTH_KNOWN_AT {
                continue; // a frame that begins in this chunk
            }
            let missing = whole - self.begun.len();
            let taken = missing.min(self.chunk.len());
            if self.begun.capacity() - self.begun.len() < taken {
                let grown = taken.max(self.begun.len()).max(GATHER_BYTES);
                self.begun.reserve_exact(missing.min(grown));
            }
            self.begun.extend_from_slice(&self.chunk.split_to(taken));
        }
    }

    /// Reads to the end and keeps nothing. Stopping the stream instead would end the sender's write with an error before
    /// it could read why.
    pub(crate) async fn discard(&mut self) {
        self.begun = Vec::new();
        while let Ok(true) = self.read(GATHER_BYTES).await {}
    }

    /// Reads what comes next, at most so many bytes; false at the end of the stream.
    async fn read(&mut self, bytes_max: usize) -> Result<bool, ReadError> {
        let chunk = self.stream.read_chunk(bytes_max, true).await?;
        self.chunk = chunk.map(|chunk| chunk.bytes).unwrap_or_default();
        Ok(!self.chunk.is_empty())
    }

    fn ended<T>(&self) -> Result<Option<T>, ReadError> {
        if self.begun.is_empty() { Ok(None) } else { Err(ReadError::CutShort) }
    }
}

/// Bytes of a frame that tell its length.
const LENGTH_KNOWN_AT: usize = 8;
