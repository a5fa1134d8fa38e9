//! A network inside one process, with links that can be cut: the second real [`Transport`].
//!
//! Messages pass through the same frames as over QUIC, so what cannot be encoded cannot be said here either. A message
//! on a cut link vanishes silently, as packets do: the caller's deadline decides. Nothing here reads a clock or draws
//! chance of its own; on tokio's paused clock a run is repeatable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use atoll_ring::{Epoch, NodeId};
use atoll_wire::{
    Envelope, Frame, Lane, Reply, Request, Roles,
    frame::{Encoded, encode_reply, encode_request},
};
use bytes::{Bytes, BytesMut};

use crate::{Answer, Boxed, CallError, Caller, Handler, Transport};

/// The network: who is on it and which links are cut.
#[derive(Default)]
pub struct Network {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, Arc<dyn Handler>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    delay: BTreeMap<(NodeId, NodeId), Duration>,
}

impl Network {
    /// An empty network.
    pub fn new() -> Arc<Self> {
        Arc::new(Network::default())
    }

    /// A node appears, or takes the place of its former life.
    pub fn plug(&self, handler: Arc<dyn Handler>) {
        self.state().nodes.insert(handler.node(), handler);
    }

    /// A node disappears: calls to it fail at once, as to a port nobody listens on, and what it was about to answer is
    /// never heard. Work it has begun goes on unless its owner ends it.
    pub fn unplug(&self, node: NodeId) {
        self.state().nodes.remove(&node);
    }

    /// Messages from `from` to `to` vanish, until [`Network::mend`].
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.state().cut.insert((from, to));
    }

    /// Messages from `from` to `to` arrive again.
    pub fn mend(&self, from: NodeId, to: NodeId) {
        self.state().cut.remove(&(from, to));
    }

    /// Messages from `from` to `to` take this long.
    pub fn slow(&self, from: NodeId, to: NodeId, delay: Duration) {
        self.state().delay.insert((from, to), delay);
    }

    /// The door of one node.
    pub fn port(self: &Arc<Self>, me: NodeId) -> Arc<dyn Transport> {
        Arc::new(Port { network: self.clone(), me })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    /// One way; `None` if the message vanishes. Whether a link is cut is judged when the message arrives.
    async fn travel(&self, from: NodeId, to: NodeId, frame: Encoded) -> Option<Bytes> {
        let delay = self.state().delay.get(&(from, to)).copied();
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        if self.state().cut.contains(&(from, to)) {
            return None;
        }
        let mut whole = BytesMut::with_capacity(frame[0].len() + frame[1].len());
        whole.extend_from_slice(&frame[0]);
        whole.extend_from_slice(&frame[1]);
        Some(whole.freeze())
    }

    /// The whole way of a request and its reply; `None` if either vanishes.
    async fn round_trip(
        &self,
        me: NodeId,
        to: NodeId,
        frame: Encoded,
    ) -> Result<Option<(Epoch, Reply)>, CallError> {
        let gone = || CallError::Lost("the node went away".into());
        let Some(bytes) = self.travel(me, to, frame).await else { return Ok(None) };
        let handler = self.handler(to).ok_or_else(gone)?;
        let frame = Frame::parse(&bytes)?;
        let (envelope, request) = frame.request()?;
        let caller = Caller { roles: Roles::of(&[envelope.role]), node: Some(me) };
        let reply = match handler.clone().handle(caller, envelope, request) {
            Answer::Now(reply) => reply,
            Answer::Later(reply) => reply.await,
        };
        if !self.handler(to).is_some_and(|now| Arc::ptr_eq(&now, &handler)) {
            return Err(gone());
        }
        let frame = encode_reply(frame.kind, 1, handler.epoch(), &reply)?;
        drop(handler);
        let Some(bytes) = self.travel(to, me, frame).await else { return Ok(None) };
        Ok(Some(Frame::parse(&bytes)?.reply()?))
    }

    fn handler(&self, node: NodeId) -> Option<Arc<dyn Handler>> {
        self.state().nodes.get(&node).cloned()
    }
}

struct Port {
    network: Arc<Network>,
    me: NodeId,
}

impl Transport for Port {
    fn call(
        &self,
        to: NodeId,
        _lane: Lane,
        envelope: Envelope,
        request: Request,
    ) -> Boxed<Result<(Epoch, Reply), CallError>> {
        let (network, me) = (self.network.clone(), self.me);
        Box::pin(async move {
            let frame = encode_request(1, &envelope, &request)?;
            if network.handler(to).is_none() {
                return Err(CallError::Down("nobody listens".into()));
            }
            // a task of its own: whoever drops the call forgets the reply, not the request
            let way = tokio::spawn(async move { network.round_trip(me, to, frame).await });
            match way.await {
                Ok(Ok(Some(answer))) => Ok(answer),
                Ok(Ok(None)) => std::future::pending().await, // silence: the deadline decides
                Ok(Err(error)) => Err(error),
                Err(end) => match end.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await, // the runtime is going down, and we with it
                },
            }
        })
    }

    fn heard_from(&self, _: NodeId) {} // there are no connections here
}
