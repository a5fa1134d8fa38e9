//! The accepting side: from a stranger's first packet to answered requests.
//!
//! A connection has passed mutual TLS before we see it. Each lane begins with a hello; each request names the role it is
//! sent in, which must be in the certificate and allowed to send that kind. A lane may have so many requests in work;
//! past that we stop reading it, and QUIC's flow control holds the sender back. The other lanes go on: a peer whose
//! requests pile up still gets its pings answered.

use std::sync::{Arc, OnceLock};

use atoll_ring::NodeId;
use atoll_wire::{
    Effect, ErrorCode, Failure, Frame, FrameError, Kind, Reply, Request, Roles, Welcome,
    frame::{Encoded, encode_reply},
};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    Answer, Caller, Handler, identity,
    lane::{self, QUEUE_FRAMES_MAX, ReadError, Reader},
    link::{EXPIRED, send_alone},
    validity::Validity,
};

/// Requests of one lane in work at the same time.
pub const IN_WORK_MAX: usize = 1024;

/// Requests of one connection that came on a stream of their own and are being read or in work. Few, because each may
/// hold as many bytes as its kind may have.
pub const LONG_IN_WORK_MAX: usize = 64;

/// Connections at the same time; past that strangers are turned away. Each may hold windows and buffers of megabytes.
pub const CONNECTIONS_MAX: usize = 4096;

/// Connections from which on a stranger must first show that it receives packets at the address it sends from.
const UNPROVEN_CONNECTIONS_MAX: usize = 256;

/// Accepts until the endpoint is closed.
pub(crate) async fn accept(endpoint: quinn::Endpoint, handler: Arc<dyn Handler>) {
    while let Some(incoming) = endpoint.accept().await {
        let open = endpoint.open_connections();
        if open >= CONNECTIONS_MAX {
            incoming.refuse();
            continue;
        }
        if open >= UNPROVEN_CONNECTIONS_MAX && !incoming.remote_address_validated() {
            let _ = incoming.retry(); // errs only where the address is proven
            continue;
        }
        let handler = handler.clone();
        tokio::spawn(async move {
            match incoming.await {
                Ok(connection) => Guest::greet(connection, handler).await,
                Err(error) => tracing::debug!(%error, "a handshake failed"),
            }
        });
    }
}

/// A connection somebody opened to us.
struct Guest {
    connection: quinn::Connection,
    handler: Arc<dyn Handler>,
    certificate: CertificateDer<'static>,
    roles: Roles,
    node: OnceLock<NodeId>,
}

impl Guest {
    async fn greet(connection: quinn::Connection, handler: Arc<dyn Handler>) {
        let Some(certificate) = certificate_of(&connection) else {
            connection.close(2u32.into(), b"no certificate");
            return;
        };
        let Some(validity) = Validity::of(&certificate) else {
            connection.close(2u32.into(), b"no certificate");
            return;
        };
        let roles = identity::roles_of(&certificate).unwrap_or_default();
        let guest = Arc::new(Guest {
            connection: connection.clone(),
            handler,
            certificate,
            roles,
            node: OnceLock::new(),
        });
        let long = tokio::spawn(guest.clone().long_requests());
        let lanes = async {
            while let Ok((send, receive)) = connection.accept_bi().await {
                tokio::spawn(guest.clone().lane(send, Reader::of_lane(receive)));
            }
        };
        tokio::select! { biased;
            () = lanes => {}
            () = Validity::over(validity.until) => {
                connection.close(EXPIRED.into(), b"certificate expired");
            }
        }
        long.abort();
    }

    /// Serves one lane to its end.
    async fn lane(self: Arc<Self>, send: quinn::SendStream, mut reader: Reader) {
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
        let in_work = Arc::new(Semaphore::new(IN_WORK_MAX));
        tokio::spawn(async move {
            let _ = lane::write(send, frames).await;
        });
        loop {
            let frame = match reader.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(ReadError::Frame(error)) => return self.expel(error),
                Err(ReadError::Stream(_) | ReadError::CutShort) => return,
            };
            let permit = in_work.clone().acquire_owned().await.expect("never closed");
            let (kind, id) = (frame.kind, frame.id);
            match self.answer(&frame) {
                Answer::Now(reply) => {
                    let reply = self.encode(kind, id, reply);
                    if lane::is_long(&reply) {
                        // not here: who comes next on this lane must not wait for so many bytes
                        let guest = self.clone();
                        tokio::spawn(async move {
                            let _ = send_alone(&guest.connection, reply).await;
                            drop(permit);
                        });
                    } else {
                        let _ = queue.send(reply).await; // the lane may have ended; then nobody waits
                    }
                }
                Answer::Later(reply) => {
                    let (guest, queue) = (self.clone(), queue.clone());
                    tokio::spawn(async move {
                        let reply = guest.encode(kind, id, reply.await);
                        if lane::is_long(&reply) {
                            let _ = send_alone(&guest.connection, reply).await;
                        } else {
                            let _ = queue.send(reply).await;
                        }
                        drop(permit);
                    });
                }
            }
        }
    }

    /// Requests too long for a lane. Their replies are short, but there is no lane to send them on.
    ///
    /// The permit is taken before the stream is read: a stream that has been read makes room for the next, so requests
    /// that wait for their turn with their bytes in memory would have no bound.
    async fn long_requests(self: Arc<Self>) {
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
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Err(ReadError::Frame(error)) => return self.expel(error),
            // a caller that has given up leaves its stream unfinished
            Ok(None) | Err(ReadError::Stream(_) | ReadError::CutShort) => return,
        };
        let reply = match self.answer(&frame) {
            Answer::Now(reply) => reply,
            Answer::Later(reply) => reply.await,
        };
        let reply = self.encode(frame.kind, frame.id, reply);
        let _ = send_alone(&self.connection, reply).await;
    }

    /// Ends a connection on which nothing can be believed any more.
    fn expel(&self, error: FrameError) {
        tracing::warn!(%error, peer = %self.connection.remote_address(), "hostile or broken peer");
        self.connection.close(3u32.into(), b"malformed frame");
    }

    fn answer(&self, frame: &Frame) -> Answer {
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
        if let Request::Hello(hello) = request {
            return self.hello(&hello, role);
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

    fn encode(&self, kind: Kind, id: u64, reply: Reply) -> Encoded {
        let epoch = self.handler.epoch();
        encode_reply(kind, id, epoch, &reply).unwrap_or_else(|error| {
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
        })
    }
}

fn refuse(code: ErrorCode, detail: String) -> Answer {
    Answer::Now(Reply::Failed(Box::new(Failure::refused(code, detail))))
}

pub(crate) fn certificate_of(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.first().cloned()
}
