//! One connection, seen from the side that opened it.
//!
//! A link has a lane per class of traffic and one table of requests that wait for their reply. Request ids are of the
//! connection, not of the lane, so a reply that is too long for a lane can come on a stream of its own. When the
//! connection ends, whoever waits hears why, and whoever comes later hears it at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use atoll_ring::{ClusterId, Epoch, NodeId};
use atoll_wire::{
    BucketId, Envelope, Frame, Hello, Lane, Reply, Request, Role,
    frame::{Encoded, encode_request},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    CallError, DialError,
    lane::{self, QUEUE_FRAMES_MAX, ReadError, Reader},
    serve::certificate_of,
    validity::Validity,
};

/// A connection with its lanes open.
pub struct Link {
    standing: Standing,
    lanes: [mpsc::Sender<(Encoded, ())>; 3],
    waiting: Arc<Waiting>,
    next_id: AtomicU64,
    node: NodeId,
    cluster: ClusterId,
    expires: SystemTime,
}

/// The code with which a connection is closed in which an expired certificate was shown.
pub(crate) const EXPIRED: u32 = 4;

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer's process is another one than we were connected to: it answered with a stateless reset.
    #[error("the peer was restarted")]
    Reset,
    /// Nothing was heard for the idle limit.
    #[error("nothing heard for {} s", crate::tls::IDLE_LIMIT.as_secs())]
    Silent,
    /// The peer said goodbye.
    #[error("closed by the peer")]
    ByPeer,
    /// We said goodbye.
    #[error("closed by us")]
    ByUs,
    /// The certificate of one side has expired since the handshake.
    #[error("a certificate of this connection has expired")]
    Expired,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl From<quinn::ConnectionError> for CloseReason {
    fn from(error: quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::Reset => CloseReason::Reset,
            quinn::ConnectionError::TimedOut => CloseReason::Silent,
            quinn::ConnectionError::ApplicationClosed(close)
                if close.error_code == EXPIRED.into() =>
            {
                CloseReason::Expired
            }
            quinn::ConnectionError::ApplicationClosed(_)
            | quinn::ConnectionError::ConnectionClosed(_) => CloseReason::ByPeer,
            quinn::ConnectionError::LocallyClosed => CloseReason::ByUs,
            quinn::ConnectionError::VersionMismatch
            | quinn::ConnectionError::TransportError(_)
            | quinn::ConnectionError::CidsExhausted => CloseReason::Other(error.to_string()),
        }
    }
}

impl Link {
    /// Opens all lanes and waits until each has been greeted. `expires` is when the certificate that we showed does.
    pub(crate) async fn open(
        connection: quinn::Connection,
        role: Role,
        me: Option<NodeId>,
        expires: SystemTime,
    ) -> Result<Self, DialError> {
        let theirs = certificate_of(&connection).and_then(|shown| Validity::of(&shown));
        let expires = theirs.map_or(expires, |theirs| theirs.until.min(expires));
        let waiting = Arc::new(Waiting::default());
        let long = tokio::spawn(long_replies(connection.clone(), waiting.clone()));
        // from here on whoever is refused, or gives up, leaves neither a task nor a connection behind
        let mut standing = Standing { connection, tasks: vec![long] };
        let mut lanes = Vec::with_capacity(Lane::ALL.len());
        let next_id = AtomicU64::new(1);
        let mut greeted = None;
        for lane in Lane::ALL {
            let (send, receive) = standing
                .connection
                .open_bi()
                .await
                .map_err(|error| DialError::Refused(error.to_string()))?;
            let (queue, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
            standing.tasks.push(tokio::spawn(async move {
                // an error here ends the stream, which the reader below reports with its reason
                let _ = lane::write(send, frames).await;
            }));
            standing.tasks.push(tokio::spawn(replies(
                Reader::of_lane(receive),
                standing.connection.clone(),
                waiting.clone(),
            )));
            let hello = Hello { lane, node: me.map(|node| node.0), cluster: None };
            let envelope = Envelope {
                epoch: Epoch(0),
                left_ms: 0,
                operation: 0,
                bucket: BucketId([0; 16]),
                trace: false,
                role,
            };
            let id = next_id.fetch_add(1, Ordering::Relaxed);
            let frame = encode_request(id, &envelope, &Request::Hello(hello))
                .expect("a hello is far below every cap");
            let reply = waiting.enter(id).map_err(|e| DialError::Refused(e.to_string()))?;
            let _ = queue.try_send((frame, ()));
            match reply.answer().await {
                Ok((_, Reply::Welcome(welcome))) => greeted = Some(welcome),
                Ok((_, Reply::Failed(failure))) => {
                    return Err(DialError::Refused(failure.to_string()));
                }
                Ok(_) => return Err(DialError::Refused("the peer does not greet".into())),
                Err(lost) => {
                    // the peer's own words, if it has said why: "the certificate expired" and the like
                    let reason = match standing.connection.close_reason() {
                        None | Some(quinn::ConnectionError::LocallyClosed) => lost.to_string(),
                        Some(reason) => reason.to_string(),
                    };
                    return Err(DialError::Refused(reason));
                }
            }
            lanes.push(queue);
        }
        let greeted = greeted.expect("there is at least one lane");
        // not before: a certificate that has expired already is for the other side to refuse, in its own words
        let end = end_when_over(standing.connection.clone(), expires);
        standing.tasks.push(tokio::spawn(end));
        Ok(Link {
            standing,
            lanes: lanes.try_into().expect("one queue per lane"),
            waiting,
            next_id,
            node: NodeId(greeted.node),
            cluster: ClusterId(greeted.cluster),
            expires,
        })
    }

    /// When the first of the two certificates shown in it expires. Then the connection ends.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The node at the other end, as it said itself; its certificate was checked if we expected a certain one.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Sends a request and waits for its reply. Dropping the future forgets the reply, not the request.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        lane: Lane,
        envelope: &Envelope,
        request: &Request,
    ) -> Result<(Epoch, Reply), CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = encode_request(id, envelope, request)?;
        let reply = self.waiting.enter(id)?;
        if lane::is_long(&frame) {
            send_alone(&self.standing.connection, frame)
                .await
                .map_err(|reason| CallError::Lost(reason.to_string()))?;
        } else {
            self.lanes[lane as usize].try_send((frame, ())).map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => CallError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => CallError::Down("lane closed".into()),
            })?;
        }
        reply.answer().await
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> CloseReason {
        match CloseReason::from(self.standing.connection.closed().await) {
            CloseReason::ByUs if SystemTime::now() > self.expires => CloseReason::Expired,
            reason => reason,
        }
    }

    /// Says goodbye.
    pub fn close(&self) {
        close(&self.standing.connection, 0, b"done");
    }

    /// Whether the connection still stands.
    pub fn is_open(&self) -> bool {
        self.standing.connection.close_reason().is_none()
    }
}

/// A connection and the tasks that serve it; they end together.
struct Standing {
    connection: quinn::Connection,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Standing {
    fn drop(&mut self) {
        close(&self.connection, 0, b"done");
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// An expired certificate does not serve for ever: what nobody would be let in with today ends today.
async fn end_when_over(connection: quinn::Connection, expires: SystemTime) {
    Validity::over(expires).await;
    close(&connection, EXPIRED, b"certificate expired");
}

/// Closes a connection that still stands. One that has ended keeps its reason: quinn's `close` would put "closed by us"
/// in its place.
fn close(connection: &quinn::Connection, code: u32, reason: &[u8]) {
    if connection.close_reason().is_none() {
        connection.close(code.into(), reason);
    }
}

/// Sends one frame on a stream of its own.
pub(crate) async fn send_alone(
    connection: &quinn::Connection,
    frame: Encoded,
) -> Result<(), CloseReason> {
    let mut stream = connection.open_uni().await.map_err(CloseReason::from)?;
    let [head, tail] = frame;
    let mut chunks: Vec<_> = [head, tail].into_iter().filter(|c| !c.is_empty()).collect();
    stream.write_all_chunks(&mut chunks).await.map_err(|error| {
        match connection.close_reason() {
            Some(reason) => reason.into(), // the stream's own error says only "connection lost"
            None => CloseReason::Other(error.to_string()),
        }
    })?;
    let _ = stream.finish();
    Ok(())
}

/// Hands the replies of one lane to whoever waits for them; at the end tells everybody why.
async fn replies(mut reader: Reader, connection: quinn::Connection, waiting: Arc<Waiting>) {
    let error = loop {
        match reader.next().await {
            Ok(Some(frame)) => waiting.answer(&frame),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    give_up(&connection, &waiting, error);
}

/// Replies too long for a lane, each on a stream of its own.
async fn long_replies(connection: quinn::Connection, waiting: Arc<Waiting>) {
    while let Ok(stream) = connection.accept_uni().await {
        let waiting = waiting.clone();
        let connection = connection.clone();
        tokio::spawn(async move {
            let mut reader = Reader::of_one(stream);
            match reader.head().await {
                // who has stopped waiting needs no bytes, and a server cannot make us hold what we never asked for
                Ok(Some(head)) if !waiting.expects(head.id) => return,
                Ok(_) => {}
                Err(error) => return give_up(&connection, &waiting, Some(error)),
            }
            match reader.next().await {
                Ok(Some(frame)) => waiting.answer(&frame),
                // somebody waits for what will never be whole
                Ok(None) => give_up(&connection, &waiting, None),
                Err(error) => give_up(&connection, &waiting, Some(error)),
            }
        });
    }
}

/// Replies can no longer be trusted to come: tells everybody, and ends the connection if it has not ended by itself.
fn give_up(connection: &quinn::Connection, waiting: &Waiting, error: Option<ReadError>) {
    let reason = match (connection.close_reason(), error) {
        (Some(reason), _) => CloseReason::from(reason).to_string(),
        (None, Some(error)) => error.to_string(),
        (None, None) => "the peer ended the lane".to_owned(),
    };
    waiting.end(&reason);
    close(connection, 1, b"lane ended");
}

type Answered = Result<(Epoch, Reply), CallError>;

/// The requests that wait, or why there can be none any more. Both live under one lock: a request that comes after the
/// end must not wait for ever.
#[derive(Default)]
struct Waiting(Mutex<Table>);

#[derive(Default)]
struct Table {
    open: HashMap<u64, oneshot::Sender<Answered>>,
    ended: Option<String>,
}

impl Waiting {
    fn enter(self: &Arc<Self>, id: u64) -> Result<Wait, CallError> {
        let mut table = self.0.lock().expect("no panic holds it");
        if let Some(reason) = &table.ended {
            return Err(CallError::Down(reason.clone()));
        }
        let (sender, receiver) = oneshot::channel();
        table.open.insert(id, sender);
        Ok(Wait { receiver, table: self.clone(), id })
    }

    /// Whether somebody waits for this reply.
    fn expects(&self, id: u64) -> bool {
        self.0.lock().expect("no panic holds it").open.contains_key(&id)
    }

    fn answer(&self, frame: &Frame) {
        let sender = self.0.lock().expect("no panic holds it").open.remove(&frame.id);
        if let Some(sender) = sender {
            let answer = frame.reply().map_err(|e| CallError::Lost(e.to_string()));
            let _ = sender.send(answer); // whoever asked may have left
        }
    }

    fn end(&self, reason: &str) {
        let open = {
            let mut table = self.0.lock().expect("no panic holds it");
            if table.ended.is_some() {
                return; // the first reason is the right one
            }
            table.ended = Some(reason.to_owned());
            std::mem::take(&mut table.open)
        };
        for sender in open.into_values() {
            let _ = sender.send(Err(CallError::Lost(reason.to_owned())));
        }
    }
}

/// A place in the table; leaving it early takes the entry out.
struct Wait {
    receiver: oneshot::Receiver<Answered>,
    table: Arc<Waiting>,
    id: u64,
}

impl Wait {
    async fn answer(mut self) -> Answered {
        (&mut self.receiver)
            .await
            .unwrap_or_else(|_| Err(CallError::Lost("the connection was dropped".into())))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.table.0.lock().expect("no panic holds it").open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use atoll_wire::{Kind, Pong, frame::encode_reply};

    use super::*;

    fn pong(id: u64) -> Frame {
        let reply = Reply::Pong(Pong {
            node: 1,
            incarnation: 0,
            commit: atoll_wire::Commit::default(),
            roots: atoll_wire::Roots::default(),
            wall_ms: 1_700_000_000_001,
            buckets: 0,
        });
        let bytes = encode_reply(Kind::Ping, id, Epoch(3), &reply).unwrap().concat();
        Frame::parse(&bytes.into()).unwrap()
    }

    fn open(waiting: &Waiting) -> usize {
        waiting.0.lock().unwrap().open.len()
    }

    /// Each reply finds its caller, in any order, and takes the entry with it.
    #[tokio::test]
    async fn each_reply_finds_its_caller() {
        let waiting = Arc::new(Waiting::default());
        let (one, two) = (waiting.enter(1).unwrap(), waiting.enter(2).unwrap());
        waiting.answer(&pong(2));
        assert_eq!(open(&waiting), 1);
        waiting.answer(&pong(1));
        assert_eq!(open(&waiting), 0);
        assert!(one.answer().await.is_ok() && two.answer().await.is_ok());
    }

    /// Whoever leaves early takes the entry out, also when he had begun to wait. A reply that comes later, or twice, or
    /// to nobody at all finds nothing and does nothing.
    #[tokio::test]
    async fn whoever_leaves_leaves_nothing_behind() {
        let waiting = Arc::new(Waiting::default());
        drop(waiting.enter(1).unwrap());
        assert_eq!(open(&waiting), 0);
        let gone = waiting.enter(2).unwrap().answer();
        tokio::select! { biased;
            _ = gone => panic!("nobody has answered"),
            () = std::future::ready(()) => (),
        }
        assert_eq!(open(&waiting), 0);
        for id in [1, 2, 2, 99] {
            waiting.answer(&pong(id));
        }
        assert_eq!(open(&waiting), 0);
    }

    /// The end reaches those who wait and those who come later, and its first reason stays.
    #[tokio::test]
    async fn the_end_reaches_everybody() {
        let waiting = Arc::new(Waiting::default());
        let early = waiting.enter(1).unwrap();
        waiting.end("first");
        waiting.end("second");
        assert_eq!(early.answer().await, Err(CallError::Lost("first".into())));
        assert_eq!(waiting.enter(2).err(), Some(CallError::Down("first".into())));
        assert_eq!(open(&waiting), 0);
    }
}
