//! The accepting side: from a stranger's first packet to answered requests.
//!
//! A connection has passed mutual TLS before we see it. It gets a seat ([`admission`](crate::admission)), must greet us
//! soon, and is closed when its certificate ends. Each lane begins with a hello; each request names the role it is sent
//! in, which must be in the certificate and allowed to send that kind. A lane may have so many requests in work, and a
//! certificate so many bytes; past that we stop reading, and QUIC's flow control holds the sender back. The other lanes
//! go on: a peer whose requests pile up still gets its pings answered.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use atoll_ring::NodeId;
use atoll_wire::{
    Effect, ErrorCode, Failure, Frame, FrameError, Kind, Lane, Reply, Request, Roles, Welcome,
    frame::{Encoded, Head, encode_reply},
    limits::TIMEOUT_MS_MAX,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    Answer, Caller, Handler,
    admission::{
        CONNECTIONS_MAX, Guests, HANDSHAKES_MAX, Handshakes, ReplyRoom, RequestRoom, Seat,
    },
    identity,
    lane::{self, QUEUE_FRAMES_MAX, ReadError, Reader},
    link::{EXPIRED, send_alone},
    tls::DIAL_LIMIT,
    validity::Validity,
};

/// Requests in work at the same time that came on lanes of the same class on one connection.
pub const IN_WORK_MAX: usize = 1024;

/// Requests of one connection that came on a stream of their own and are being read or in work. Few, because each may
/// hold as many bytes as its kind may have.
pub const LONG_IN_WORK_MAX: usize = 64;

/// How long a stranger may take for the handshake, and then a guest for its first hello. Whoever dials gives up then.
pub const GREETING_LIMIT: Duration = DIAL_LIMIT;

/// How long a request on a stream of its own may take to arrive. No request may ask for more time, so nobody waits for
/// its answer any longer.
pub const ARRIVAL_LIMIT: Duration = Duration::from_millis(TIMEOUT_MS_MAX as u64);

/// Accepts until the endpoint is closed.
pub(crate) async fn accept(endpoint: quinn::Endpoint, handler: Arc<dyn Handler>) {
    let door = Arc::new(Door { handler, guests: Guests::new(), handshakes: Mutex::default() });
    while let Some(incoming) = endpoint.accept().await {
        if endpoint.open_connections() >= OPEN_CONNECTIONS_MAX {
            incoming.ignore();
        } else if door.handshakes().want_proof() && !incoming.remote_address_validated() {
            let _ = incoming.retry(); // errs only where the address is proven
        } else {
            door.open(incoming);
        }
    }
}

/// Connections that QUIC may know: those with a seat, the handshakes, and as many that have ended and wait for the last
/// packets. A stranger's packet beyond that is not answered; who is honest sends it again.
const OPEN_CONNECTIONS_MAX: usize = CONNECTIONS_MAX + 2 * HANDSHAKES_MAX;

/// Where strangers become guests.
struct Door {
    handler: Arc<dyn Handler>,
    guests: Arc<Guests>,
    handshakes: Mutex<Handshakes>,
}

impl Door {
    fn open(self: &Arc<Self>, incoming: quinn::Incoming) {
        let mut handshakes = self.handshakes(); // held until the task is entered
        let number = handshakes.number(incoming.remote_address().ip());
        let door = self.clone();
        let task = tokio::spawn(async move {
            let handshake = tokio::time::timeout(GREETING_LIMIT, incoming.into_future()).await;
            door.handshakes().leave(number);
            match handshake {
                Ok(Ok(connection)) => door.greet(connection).await,
                Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                Err(_) => tracing::debug!("a handshake was not finished"),
            }
        });
        handshakes.enter(number, task.abort_handle());
    }

    async fn greet(&self, connection: quinn::Connection) {
        let Some(certificate) = certificate_of(&connection) else {
            connection.close(2u32.into(), b"no certificate");
            return;
        };
        let Some(validity) = Validity::of(&certificate) else {
            connection.close(2u32.into(), b"no certificate");
            return;
        };
        let roles = identity::roles_of(&certificate).unwrap_or_default();
        let seat = match self.guests.seat(*blake3::hash(&certificate).as_bytes(), roles) {
            Ok(seat) => seat,
            Err(full) => {
                tracing::debug!(%full, peer = %connection.remote_address(), "turned away");
                connection.close(5u32.into(), full.to_string().as_bytes());
                return;
            }
        };
        connection.set_receive_window(seat.class().receive_window_bytes().into());
        connection.set_send_window(seat.class().send_window_bytes());
        let guest = Arc::new(Guest {
            connection,
            handler: self.handler.clone(),
            certificate,
            roles,
            seat,
            node: OnceLock::new(),
            greeted: Semaphore::new(0),
            in_work: Lane::ALL.map(|_| Arc::new(Semaphore::new(IN_WORK_MAX))),
        });
        guest.stay(validity).await;
    }

    fn handshakes(&self) -> MutexGuard<'_, Handshakes> {
        self.handshakes.lock().expect("no panic holds it")
    }
}

/// A connection somebody opened to us.
struct Guest {
    connection: quinn::Connection,
    handler: Arc<dyn Handler>,
    certificate: CertificateDer<'static>,
    roles: Roles,
    seat: Seat,
    node: OnceLock<NodeId>,
    /// Closed with the first good hello.
    greeted: Semaphore,
    in_work: [Arc<Semaphore>; 3],
}

/// What a frame of a reply holds until QUIC has taken it.
struct Held {
    _permit: Option<OwnedSemaphorePermit>,
    _room: ReplyRoom,
}

impl Guest {
    /// Serves the connection to its end, or to that of its certificate.
    async fn stay(self: Arc<Self>, validity: Validity) {
        let mut beside = JoinSet::new();
        beside.spawn(self.clone().long_requests());
        let expiring = self.connection.clone();
        beside.spawn(async move {
            Validity::over(validity.until).await;
            expiring.close(EXPIRED.into(), b"certificate expired");
        });
        let silent = self.clone();
        beside.spawn(async move {
            if tokio::time::timeout(GREETING_LIMIT, silent.has_greeted()).await.is_err() {
                silent.connection.close(6u32.into(), b"no hello");
            }
        });
        while let Ok((send, receive)) = self.connection.accept_bi().await {
            tokio::spawn(self.clone().lane(send, Reader::of_lane(receive)));
        }
    }

    async fn has_greeted(&self) {
        let _ = self.greeted.acquire().await; // errs when it is closed
    }

    /// Serves one lane to its end.
    async fn lane(self: Arc<Self>, send: quinn::SendStream, mut reader: Reader) {
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
        tokio::spawn(async move {
            let _ = lane::write(send, frames).await;
        });
        let mut greeted = None;
        loop {
            if greeted != Some(Lane::Control) {
                self.seat.replies_taken().await;
            }
            let frame = match reader.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(ReadError::Frame(error)) => return self.expel(error),
                Err(ReadError::Stream(_) | ReadError::CutShort) => return,
            };
            let permit = match greeted {
                Some(lane) => {
                    let permit = self.in_work[lane as usize].clone().acquire_owned();
                    Some(permit.await.expect("never closed"))
                }
                None => None, // refused, or a hello: nothing that takes time
            };
            let room = self.seat.request_room(frame.length()).await;
            let (kind, id) = (frame.kind, frame.id);
            match self.answer(&frame, &mut greeted) {
                Answer::Now(reply) => {
                    let (reply, reply_room) = self.encode(kind, id, reply);
                    let held = Held { _permit: permit, _room: reply_room };
                    drop((frame, room));
                    if lane::is_long(&reply) {
                        // not here: who comes next on this lane must not wait for so many bytes
                        tokio::spawn(self.clone().reply_alone(reply, held));
                    } else {
                        let _ = queue.send((reply, held)).await; // the lane may have ended; then nobody waits
                    }
                }
                Answer::Later(reply) => {
                    let (guest, queue) = (self.clone(), queue.clone());
                    tokio::spawn(async move {
                        let reply = reply.await;
                        let (reply, reply_room) = guest.encode(kind, id, reply);
                        let held = Held { _permit: permit, _room: reply_room };
                        drop((frame, room));
                        if lane::is_long(&reply) {
                            guest.reply_alone(reply, held).await;
                        } else {
                            let _ = queue.send((reply, held)).await;
                        }
                    });
                }
            }
        }
    }

    async fn reply_alone(self: Arc<Self>, reply: Encoded, held: Held) {
        let _ = send_alone(&self.connection, reply).await;
        drop(held);
    }

    /// Requests too long for a lane. Their replies are short, but there is no lane to send them on.
    ///
    /// The permit is taken before the stream is read: a stream that has been read makes room for the next, so requests
    /// that wait for their turn with their bytes in memory would have no bound.
    async fn long_requests(self: Arc<Self>) {
        self.has_greeted().await;
        let in_work = Arc::new(Semaphore::new(LONG_IN_WORK_MAX));
        loop {
            let permit = in_work.clone().acquire_owned().await.expect("never closed");
            let Ok(stream) = self.connection.accept_uni().await else { return };
            let guest = self.clone();
            tokio::spawn(async move {
                guest.long_request(Reader::of_one(stream)).await;
                drop(permit);
            });
        }
    }

    async fn long_request(&self, mut reader: Reader) {
        let (head, arrived) =
            match tokio::time::timeout(ARRIVAL_LIMIT, self.arrival(&mut reader)).await {
                Ok(Ok(Some(arrived))) => arrived,
                Ok(Err(ReadError::Frame(error))) => return self.expel(error),
                // a caller that has given up leaves its stream unfinished
                Ok(Ok(None) | Err(ReadError::Stream(_) | ReadError::CutShort)) => return,
                Err(_) => return tracing::debug!("a request did not arrive"),
            };
        let reply = match &arrived {
            Arrived::Refused(refusal) => Reply::Failed(refusal.clone()),
            Arrived::Frame { frame, .. } => match self.answer(frame, &mut Some(Lane::Bulk)) {
                Answer::Now(reply) => reply,
                Answer::Later(reply) => reply.await,
            },
        };
        let (reply, room) = self.encode(head.kind, head.id, reply);
        let _ = send_alone(&self.connection, reply).await;
        drop((arrived, room));
    }

    /// Reads a long request, unless its head says already that nobody with this certificate may send it: then not a byte
    /// of it is kept, however many it announces.
    async fn arrival(&self, reader: &mut Reader) -> Result<Option<(Head, Arrived)>, ReadError> {
        let Some(head) = reader.head().await? else { return Ok(None) };
        if head.reply {
            return Err(FrameError::Direction.into());
        }
        if !self.roles.may_send(head.kind) {
            reader.discard().await;
            let detail = format!("the certificate may not send {:?}", head.kind);
            let refusal = Failure::refused(ErrorCode::NotPermitted, detail);
            return Ok(Some((head, Arrived::Refused(Box::new(refusal)))));
        }
        let room = self.seat.request_room(head.length).await;
        let frame = reader.next().await?;
        Ok(frame.map(|frame| (head, Arrived::Frame { frame, _room: room })))
    }

    /// Ends a connection on which nothing can be believed any more.
    fn expel(&self, error: FrameError) {
        tracing::warn!(%error, peer = %self.connection.remote_address(), "hostile or broken peer");
        self.connection.close(3u32.into(), b"malformed frame");
    }

    /// `greeted`: which lane this is, once it has been greeted.
    fn answer(&self, frame: &Frame, greeted: &mut Option<Lane>) -> Answer {
        let (envelope, request) = match frame.request() {
            Ok(both) => both,
            Err(error) => return refuse(ErrorCode::Malformed, error.to_string()),
        };
        let role = envelope.role;
        if !self.roles.contains(role) {
            return refuse(ErrorCode::NotPermitted, format!("the certificate is not for {role}"));
        }
        if !role.may_send(frame.kind) {
            return refuse(
                ErrorCode::NotPermitted,
                format!("a {role} may not send {:?}", frame.kind),
            );
        }
        if !role.may_ask(&request) {
            let detail = format!("a {role} may not ask for this: see `atoll bucket --help`");
            return refuse(ErrorCode::NotPermitted, detail);
        }
        if let Request::Hello(hello) = request {
            let answer = self.hello(&hello, role);
            if matches!(answer, Answer::Now(Reply::Welcome(_))) {
                self.greeted.close();
                greeted.get_or_insert(hello.lane);
            }
            return answer;
        }
        if greeted.is_none() {
            return refuse(ErrorCode::NotPermitted, "a lane begins with a hello".into());
        }
        let caller = Caller { roles: self.roles, node: self.node.get().copied() };
        self.handler.clone().handle(caller, envelope, request)
    }

    fn hello(&self, hello: &atoll_wire::Hello, role: atoll_wire::Role) -> Answer {
        let ours = self.handler.cluster();
        if hello.cluster.is_some_and(|theirs| theirs != ours.0) {
            return refuse(ErrorCode::OtherCluster, format!("this is cluster {ours}"));
        }
        if let Some(node) = hello.node.map(NodeId) {
            if !identity::names(&self.certificate, node) {
                return refuse(ErrorCode::NotPermitted, format!("the certificate is not {node}'s"));
            }
            let _ = self.node.set(node); // the other lanes say the same
        }
        Answer::Now(Reply::Welcome(Welcome { node: self.handler.node().0, cluster: ours.0, role }))
    }

    /// The bytes of a reply, and the room they take. Where there is none left, those who asked have not listened: what
    /// they asked for is not kept for them.
    fn encode(&self, kind: Kind, id: u64, reply: Reply) -> (Encoded, ReplyRoom) {
        let epoch = self.handler.epoch();
        let reply = encode_reply(kind, id, epoch, &reply).unwrap_or_else(|error| {
            // what was asked may have been done; only its answer cannot be said
            let failure = Failure {
                effect: Effect::Unknown,
                ..Failure::refused(
                    ErrorCode::Internal,
                    format!("the reply cannot be sent: {error}"),
                )
            };
            encode_reply(kind, id, epoch, &Reply::Failed(Box::new(failure)))
                .expect("a failure is far below every cap")
        });
        if let Some(room) = self.seat.reply_room(lane::size(&reply)) {
            return (reply, room);
        }
        let effect = match kind {
            Kind::Hello
            | Kind::Ping
            | Kind::View
            | Kind::Status
            | Kind::RepairStatus
            | Kind::RepairRun
            | Kind::Dump
            | Kind::Get
            | Kind::Fetch
            | Kind::Recall
            | Kind::CompareRoots
            | Kind::Compare
            | Kind::Entries
            | Kind::Moves
            | Kind::Buckets
            | Kind::Copy
            | Kind::Covered
            | Kind::List
            | Kind::Explain
            | Kind::Scan => Effect::NotApplied,
            Kind::Write
            | Kind::Many
            | Kind::Replicate
            | Kind::BucketChange
            | Kind::Faults
            | Kind::Propose
            | Kind::Raft => Effect::Unknown,
        };
        let detail = "too many replies wait to be taken; read them, or ask for less at a time";
        let failure = Failure {
            effect,
            retry_after_ms: RETRY_AFTER_MS,
            ..Failure::refused(ErrorCode::Overloaded, detail)
        };
        let reply = encode_reply(kind, id, epoch, &Reply::Failed(Box::new(failure)))
            .expect("a failure is far below every cap");
        (reply, ReplyRoom::none())
    }
}

/// What has come of a request on a stream of its own.
enum Arrived {
    /// All of it, and the room it takes.
    Frame { frame: Frame, _room: Option<RequestRoom> },
    /// Its head was enough.
    Refused(Box<Failure>),
}

/// Enough for a reader that reads to take what waits for it.
const RETRY_AFTER_MS: u32 = 100;

fn refuse(code: ErrorCode, detail: String) -> Answer {
    Answer::Now(Reply::Failed(Box::new(Failure::refused(code, detail))))
}

pub(crate) fn certificate_of(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.first().cloned()
}
