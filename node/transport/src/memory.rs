//! A network inside one process, with links that can be cut and weather on them: the second real [`Transport`].
//!
//! Messages pass through the same frames as over QUIC, so what cannot be encoded cannot be said here either. A message
//! on a cut link vanishes silently, as packets do: the caller's deadline decides. Nothing here reads a clock; chance comes
//! from the seed that the network was given, so on tokio's paused clock a run is repeatable.
//!
//! What can go wrong on a link is its [`Weather`]. Messages that take differently long overtake each other. A node can be
//! **paused**, as SIGSTOP does: what is sent to it or by it waits, and what it has begun for others goes on when it wakes.
//! Its own background work goes on too, but nobody hears of it. A node that is unplugged does nothing more for anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use atoll_ring::{Epoch, NodeId};
use atoll_wire::{
    Envelope, Frame, Lane, Reply, Request, Role, Roles,
    frame::{Encoded, encode_reply, encode_request},
};
use bytes::{Bytes, BytesMut};

use crate::{Answer, Boxed, CallError, Caller, Handler, Transport, chance::Chance};

/// The network: who is on it, and what its links are like.
pub struct Network {
    state: Mutex<State>,
}

struct State {
    nodes: BTreeMap<NodeId, Arc<dyn Handler>>,
    /// Who waits for a paused node to wake.
    paused: BTreeMap<NodeId, Vec<Waker>>,
    cut: BTreeSet<Link>,
    /// Nodes whose questions for newer views vanish.
    kept_behind: BTreeSet<NodeId>,
    weather: BTreeMap<Link, Weather>,
    chance: Chance,
    traffic: Traffic,
}

/// From, to.
type Link = (NodeId, NodeId);

/// What a link does to messages. By default they arrive at once, and once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// The shortest and the longest way of a message, drawn for each. Timers count whole milliseconds.
    pub delay: (Duration, Duration),
    /// Of 1000 messages so many vanish.
    pub lost: u16,
    /// Of 1000 requests between nodes that may be repeated so many arrive twice. The second reply is not heard.
    pub doubled: u16,
}

/// What has been on the way since the beginning. A request and its reply are two messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that were sent.
    pub sent: u64,
    /// Of those, lost to the weather.
    pub lost: u64,
    /// Of those, lost on links that are cut.
    pub cut: u64,
    /// Requests that were sent a second time.
    pub doubled: u64,
}

impl Network {
    /// An empty network.
    pub fn new() -> Arc<Self> {
        Network::of_seed(0)
    }

    /// An empty network whose weather is drawn from this seed.
    pub fn of_seed(seed: u64) -> Arc<Self> {
        let state = State {
            nodes: BTreeMap::new(),
            paused: BTreeMap::new(),
            cut: BTreeSet::new(),
            kept_behind: BTreeSet::new(),
            weather: BTreeMap::new(),
            chance: Chance::of_seed(seed),
            traffic: Traffic::default(),
        };
        Arc::new(Network { state: Mutex::new(state) })
    }

    /// A node appears, or takes the place of its former life.
    pub fn plug(&self, handler: Arc<dyn Handler>) {
        self.state().nodes.insert(handler.node(), handler);
    }

    /// A node disappears: calls to it fail at once, as to a port nobody listens on, and what it was about to answer is
    /// never heard. What it was doing for a caller ends at its next step.
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

    /// No link is cut.
    pub fn mend_all(&self) {
        self.state().cut.clear();
    }

    /// Messages from `from` to `to` take this long.
    pub fn slow(&self, from: NodeId, to: NodeId, delay: Duration) {
        self.state().weather.entry((from, to)).or_default().delay = (delay, delay);
    }

    /// What these nodes ask others for newer views vanishes, and nothing else does: they stay behind while everybody hears
    /// them.
    pub fn keep_behind(&self, nodes: BTreeSet<NodeId>) {
        self.state().kept_behind = nodes;
    }

    /// What the link does to messages from now on.
    pub fn set_weather(&self, from: NodeId, to: NodeId, weather: Weather) {
        self.state().weather.insert((from, to), weather);
    }

    /// Stops a node in the middle of whatever it does, until [`Network::wake`].
    pub fn pause(&self, node: NodeId) {
        self.state().paused.entry(node).or_default();
    }

    /// A paused node goes on.
    pub fn wake(&self, node: NodeId) {
        let waiting = self.state().paused.remove(&node).unwrap_or_default();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// What has been on the way so far.
    pub fn traffic(&self) -> Traffic {
        self.state().traffic
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
        self.awake(from).await;
        let delay = self.state().send(from, to)?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.awake(to).await;
        if !self.state().arrives(from, to) {
            return None;
        }
        let mut whole = BytesMut::with_capacity(frame[0].len() + frame[1].len());
        whole.extend_from_slice(&frame[0]);
        whole.extend_from_slice(&frame[1]);
        Some(whole.freeze())
    }

    /// Waits while the node is paused.
    async fn awake(&self, node: NodeId) {
        std::future::poll_fn(|context| match self.state().holds_up(node, context) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    /// The whole way of a request and its reply; `None` if either vanishes.
    async fn round_trip(
        self: Arc<Self>,
        me: NodeId,
        to: NodeId,
        frame: Encoded,
    ) -> Result<Option<(Epoch, Reply)>, CallError> {
        let gone = || CallError::Lost("the node went away".into());
        let Some(bytes) = self.travel(me, to, frame).await else { return Ok(None) };
        let handler = self.handler(to).ok_or_else(gone)?;
        let frame = Frame::parse(&bytes)?;
        let (envelope, request) = frame.request()?;
        let is_node = envelope.role == Role::Node; // a client's certificate names no member
        let caller = Caller { roles: Roles::of(&[envelope.role]), node: is_node.then_some(me) };
        let reply = match handler.clone().handle(caller, envelope, request) {
            Answer::Now(reply) => reply,
            Answer::Later(reply) => {
                let at = Gate { network: self.clone(), node: to, handler: handler.clone(), reply };
                at.await.ok_or_else(gone)?
            }
        };
        if !self.is_plugged(to, &handler) {
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

    fn is_plugged(&self, node: NodeId, handler: &Arc<dyn Handler>) -> bool {
        self.state().nodes.get(&node).is_some_and(|now| Arc::ptr_eq(now, handler))
    }
}

impl State {
    /// A message leaves: how long it takes, or nothing if it vanishes on the way.
    fn send(&mut self, from: NodeId, to: NodeId) -> Option<Duration> {
        self.traffic.sent += 1;
        let Some(Weather { delay: (shortest, longest), lost, .. }) =
            self.weather.get(&(from, to)).copied()
        else {
            return Some(Duration::ZERO);
        };
        if lost > 0 && self.chance.happens(lost.into()) {
            self.traffic.lost += 1;
            return None;
        }
        if longest <= shortest {
            return Some(shortest);
        }
        let micros = |delay: Duration| u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        let drawn = self.chance.between(micros(shortest), micros(longest));
        Some(Duration::from_micros(drawn))
    }

    fn arrives(&mut self, from: NodeId, to: NodeId) -> bool {
        let cut = self.cut.contains(&(from, to));
        self.traffic.cut += u64::from(cut);
        !cut
    }

    fn doubles(&mut self, from: NodeId, to: NodeId) -> bool {
        let doubled = self.weather.get(&(from, to)).map_or(0, |weather| weather.doubled);
        let doubles = doubled > 0 && self.chance.happens(doubled.into());
        self.traffic.doubled += u64::from(doubles);
        doubles
    }

    /// Whether the node is paused; then whoever asks is woken with it.
    fn holds_up(&mut self, node: NodeId, context: &Context<'_>) -> bool {
        match self.paused.get_mut(&node) {
            Some(waiting) => {
                waiting.push(context.waker().clone());
                true
            }
            None => false,
        }
    }
}

/// What a node does for a caller: not while it is paused, and no more once it is unplugged.
struct Gate {
    network: Arc<Network>,
    node: NodeId,
    handler: Arc<dyn Handler>,
    reply: Boxed<Reply>,
}

impl Future for Gate {
    /// None: the node went away.
    type Output = Option<Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Reply>> {
        if !self.network.is_plugged(self.node, &self.handler) {
            return Poll::Ready(None);
        }
        if self.network.state().holds_up(self.node, context) {
            return Poll::Pending;
        }
        self.reply.as_mut().poll(context).map(Some)
    }
}

/// Whether a request may arrive twice without doing anything twice.
fn may_repeat(envelope: &Envelope, request: &Request) -> bool {
    let between_nodes = envelope.role == Role::Node;
    between_nodes
        && match request {
            Request::Ping(_)
            | Request::Replicate(_)
            | Request::Fetch(_)
            | Request::Recall(_)
            | Request::CompareRoots(_)
            | Request::Compare(_)
            | Request::Entries(_)
            | Request::Moves(_)
            | Request::BucketChange(_)
            | Request::Buckets(_)
            | Request::Copy(_)
            | Request::Covered(_)
            | Request::Scan(_) => true,
            Request::Hello(_)
            | Request::View(_)
            | Request::Status(_)
            | Request::Write(_)
            | Request::Get(_)
            | Request::Many(_)
            | Request::List(_)
            | Request::Explain(_)
            | Request::RepairStatus(_)
            | Request::RepairRun(_)
            | Request::Dump(_)
            | Request::Faults(_)
            | Request::Propose(_)
            | Request::Raft(_) => false,
        }
}

struct Port {
    network: Arc<Network>,
    me: NodeId,
}

impl Transport for Port {
    fn follow(&self, _: &[(NodeId, SocketAddr)]) {} // everybody is on this network

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
            network.awake(me).await;
            if network.handler(to).is_none() {
                return Err(CallError::Down("nobody listens".into()));
            }
            if matches!(request, Request::View(_)) && network.state().kept_behind.contains(&me) {
                return std::future::pending().await; // silence, as if the question were lost
            }
            if may_repeat(&envelope, &request) && network.state().doubles(me, to) {
                tokio::spawn(network.clone().round_trip(me, to, frame.clone()));
            }
            // a task of its own: whoever drops the call forgets the reply, not the request
            let way = tokio::spawn(network.round_trip(me, to, frame));
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
