//! Frames over QUIC: who is at the other end, and how a request gets there and its reply back.
//!
//! The door is [`Transport`]: "say this to that node". It has two real implementations, [`Peers`] over QUIC and
//! [`memory::Network`] inside one process with links that can be cut; what stands above cannot tell them apart. The
//! other side of the door is [`Handler`]: what a node does with a request.
//!
//! Read [`link`] for the life of one connection (lanes, the table of waiting requests), [`serve`] for the accepting
//! side, [`admission`] for how much anybody may hold there, [`peers`] for connections that are kept up, [`tls`] for every
//! setting of QUIC and TLS and why it is set, [`identity`] and [`authority`] for certificates, and [`renewal`] for one that
//! is replaced while its node runs. [`link_faults`] is for links that are broken on purpose. This crate is the only one that knows quinn and rustls.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use atoll_ring::{ClusterId, Epoch, NodeId};
use atoll_wire::{Envelope, FrameError, Lane, Reply, Request, Roles};

pub mod admission;
pub mod authority;
pub mod chance;
mod faulty_socket;
pub mod identity;
mod lane;
pub mod link;
pub mod link_faults;
pub mod memory;
pub mod peers;
pub mod renewal;
pub mod serve;
pub mod small_file;
pub mod tls;
mod validity;

pub use authority::{Authority, AuthorityError};
pub use identity::{Identity, IdentityError, IdentityFiles};
pub use link::{CloseReason, Link};
pub use link_faults::LinkFaults;
pub use peers::Peers;
pub use renewal::{CertificateState, Renewal};
pub use tls::{DialError, Expect, Quic};

/// A boxed future: `async fn` in a trait is not object safe.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Says things to nodes.
pub trait Transport: Send + Sync {
    /// Sends a request to a node and waits for the reply, without a limit of its own: the caller brings the deadline.
    ///
    /// Dropping the future forgets the reply, not the request.
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        envelope: Envelope,
        request: Request,
    ) -> Boxed<Result<(Epoch, Reply), CallError>>;

    /// A node that we have no connection to has just spoken to us: it is there, so this is a good moment to connect.
    fn heard_from(&self, node: NodeId);

    /// These are the members from now on, this node among them, and where to reach them.
    fn follow(&self, members: &[(NodeId, SocketAddr)]);
}

/// What a node does with a request.
pub trait Handler: Send + Sync {
    /// The node that answers.
    fn node(&self) -> NodeId;
    /// Its cluster.
    fn cluster(&self) -> ClusterId;
    /// The epoch of its view, sent with each reply.
    fn epoch(&self) -> Epoch;
    /// Answers. Roles have been checked: the certificate carries the envelope's role, which may send this kind.
    fn handle(self: Arc<Self>, caller: Caller, envelope: Envelope, request: Request) -> Answer;
}

/// An answer that is ready is sent without a task of its own.
pub enum Answer {
    /// Ready.
    Now(Reply),
    /// Has to wait for something.
    Later(Boxed<Reply>),
}

/// Who sent a request, as the certificate says.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The roles in its certificate.
    pub roles: Roles,
    /// The node it is, once its hello has said so and the certificate has confirmed it.
    pub node: Option<NodeId>,
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection. Nothing was sent.
    #[error("not connected: {0}")]
    Down(String),
    /// The queue to the node is full. Nothing was sent.
    #[error("the queue to the node is full")]
    Overloaded,
    /// The message is over a cap. Nothing was sent.
    #[error("cannot be sent: {0}")]
    Unsendable(#[from] FrameError),
    /// The connection broke while we waited. The request may have been carried out.
    #[error("connection lost: {0}")]
    Lost(String),
}

impl CallError {
    /// Whether the other side has certainly not seen the request.
    pub fn not_sent(&self) -> bool {
        match self {
            CallError::Down(_) | CallError::Overloaded | CallError::Unsendable(_) => true,
            CallError::Lost(_) => false,
        }
    }
}
