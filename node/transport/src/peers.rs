//! Connections to the nodes of a cluster, kept up. Nodes and clients use the same.
//!
//! For each node one task dials, publishes the link, waits for its end, and dials again with growing pauses. A call
//! uses the link that stands, or hears at once why there is none; nobody waits for a dial unless he asks to
//! ([`Peers::first_up`]).
//!
//! A link ends when a certificate shown in it expires. The keeper does not wait for that: in the last [`REPLACE_IN_LAST`]
//! it dials beside the link, and if the new one lasts longer (because either side was renewed), it takes the place of the
//! old. Requests on the old one are answered; it ends with the last of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
    time::{Duration, SystemTime},
};

use atoll_ring::{Epoch, NodeId};
use atoll_wire::{Envelope, Lane, Reply, Request, Role};
use tokio::{sync::Notify, task::JoinHandle};

use crate::{Boxed, CallError, DialError, Expect, Link, Quic, Transport};

/// Links to members, all but ourselves.
pub struct Peers {
    quic: Quic,
    role: Role,
    me: Option<NodeId>,
    slots: Mutex<BTreeMap<NodeId, Slot>>,
    changed: Notify,
    itself: Weak<Peers>,
}

struct Slot {
    address: SocketAddr,
    link: Result<Arc<Link>, NoLink>,
    /// Ends the pause before the next dial.
    dial_now: Arc<Notify>,
    keeper: JoinHandle<()>,
}

/// Why there is no link.
#[derive(Clone)]
enum NoLink {
    /// The first dial is under way.
    NotYet,
    /// The last dial or link ended like this.
    Because(String),
}

impl NoLink {
    fn reason(self) -> String {
        match self {
            NoLink::NotYet => "not connected yet".into(),
            NoLink::Because(reason) => reason,
        }
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long before its end a link may be replaced.
pub const REPLACE_IN_LAST: Duration = Duration::from_secs(60);

impl Peers {
    /// No peers yet; see [`Peers::set`].
    pub fn new(quic: Quic, role: Role, me: Option<NodeId>) -> Arc<Self> {
        let slots = Mutex::new(BTreeMap::new());
        Arc::new_cyclic(|itself| Peers {
            quic,
            role,
            me,
            slots,
            changed: Notify::new(),
            itself: itself.clone(),
        })
    }

    /// Keeps up connections to exactly these.
    pub fn set(self: &Arc<Self>, peers: &[(NodeId, SocketAddr)]) {
        self.quic.follow(peers);
        let mut slots = self.slots.lock().expect("no panic holds it");
        slots.retain(|node, slot| {
            let stays = peers.contains(&(*node, slot.address));
            if !stays {
                slot.keeper.abort();
            }
            stays
        });
        self.changed.notify_waiters(); // somebody may wait for one who is no longer a member
        for (node, address) in peers.iter().copied().filter(|(node, _)| Some(*node) != self.me) {
            slots.entry(node).or_insert_with(|| {
                let dial_now = Arc::new(Notify::new());
                let keeper = keep(Arc::downgrade(self), node, address, dial_now.clone());
                let link = Err(NoLink::NotYet);
                Slot { address, link, dial_now, keeper: tokio::spawn(keeper) }
            });
        }
    }

    /// Ends all connections.
    pub fn close(&self) {
        for (_, slot) in std::mem::take(&mut *self.slots.lock().expect("no panic holds it")) {
            slot.keeper.abort();
            if let Ok(link) = slot.link {
                link.close(); // callers may still hold it
            }
        }
        self.changed.notify_waiters();
    }

    /// The link to a node.
    ///
    /// # Errors
    /// [`CallError::Down`] with the reason why there is none.
    pub fn link(&self, node: NodeId) -> Result<Arc<Link>, CallError> {
        match self.slots.lock().expect("no panic holds it").get(&node) {
            Some(slot) => slot.link.clone().map_err(|e| CallError::Down(e.reason())),
            None => Err(CallError::Down("not a member".into())),
        }
    }

    /// Those of `nodes` that are connected, in their order.
    pub fn up(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let slots = self.slots.lock().expect("no panic holds it");
        let is_up = |node: &&NodeId| slots.get(node).is_some_and(|slot| slot.link.is_ok());
        nodes.iter().filter(is_up).copied().collect()
    }

    /// Waits until one of `nodes` is connected and returns those that are; empty as soon as each has failed at least
    /// once. Brings no limit of its own: a first dial ends within [`crate::tls::DIAL_LIMIT`].
    pub async fn first_up(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // from here on no change is missed
            let up = self.up(nodes);
            if !up.is_empty() || !self.any_undecided(nodes) {
                return up;
            }
            changed.await;
        }
    }

    fn any_undecided(&self, nodes: &[NodeId]) -> bool {
        let slots = self.slots.lock().expect("no panic holds it");
        nodes
            .iter()
            .any(|node| matches!(slots.get(node), Some(Slot { link: Err(NoLink::NotYet), .. })))
    }

    /// Says how it stands with a node, and wakes who waits for that.
    fn publish(&self, node: NodeId, link: Result<Arc<Link>, NoLink>) {
        if let Some(slot) = self.slots.lock().expect("no panic holds it").get_mut(&node) {
            slot.link = link;
        }
        self.changed.notify_waiters();
    }
}

impl Drop for Peers {
    /// A keeper holds no claim on us, but it holds its link.
    fn drop(&mut self) {
        self.close();
    }
}

impl Transport for Peers {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        envelope: Envelope,
        request: Request,
    ) -> Boxed<Result<(Epoch, Reply), CallError>> {
        let link = self.link(to);
        Box::pin(async move { link?.call(lane, &envelope, &request).await })
    }

    fn heard_from(&self, node: NodeId) {
        if let Some(slot) = self.slots.lock().expect("no panic holds it").get(&node)
            && slot.link.is_err()
        {
            slot.dial_now.notify_one();
        }
    }

    fn follow(&self, members: &[(NodeId, SocketAddr)]) {
        if let Some(peers) = self.itself.upgrade() {
            peers.set(members);
        }
    }
}

/// Dials a peer for ever.
async fn keep(peers: Weak<Peers>, node: NodeId, address: SocketAddr, dial_now: Arc<Notify>) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(held) = peers.upgrade() else { return };
        let (quic, role, me) = (held.quic.clone(), held.role, held.me);
        drop(held);
        let dial = || quic.dial(address, Expect::Node(node), role, me);
        let reason = match dial_again_when_told(dial, &dial_now).await {
            Ok(link) => {
                pause = PAUSE_MIN;
                let mut link = Arc::new(link);
                tracing::debug!(%node, %address, "connected");
                let end = loop {
                    let Some(held) = peers.upgrade() else { return };
                    held.publish(node, Ok(link.clone()));
                    drop(held);
                    tokio::select! { biased;
                        end = link.closed() => break end,
                        successor = succeed(&link, &dial) => link = successor,
                    }
                };
                end.to_string()
            }
            Err(error) => error.to_string(),
        };
        tracing::debug!(%node, %address, %reason, "not connected");
        let Some(held) = peers.upgrade() else { return };
        held.publish(node, Err(NoLink::Because(reason)));
        drop(held);
        // also whoever is told to hurry leaves a moment: a peer that refuses us may speak to us all the time
        tokio::time::sleep(PAUSE_MIN).await;
        tokio::select! { biased;
            () = dial_now.notified() => {}
            () = tokio::time::sleep(pause - PAUSE_MIN) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Waits until the end of a link is near, then dials until there is a link that lasts longer.
async fn succeed<D: Future<Output = Result<Link, DialError>>>(
    link: &Link,
    dial: impl Fn() -> D,
) -> Arc<Link> {
    loop {
        // the clock may be set and the machine may sleep, so no pause is longer than this one
        let left = link.expires().duration_since(SystemTime::now()).unwrap_or_default();
        if left > REPLACE_IN_LAST {
            tokio::time::sleep((left - REPLACE_IN_LAST).min(REPLACE_IN_LAST / 2)).await;
            continue;
        }
        if let Ok(successor) = dial().await
            && successor.expires() > link.expires()
        {
            return Arc::new(successor);
        }
        // neither side is renewed yet: a handful of attempts, closer to each other as the end comes nearer
        tokio::time::sleep((left / 2).max(PAUSE_MAX)).await;
    }
}

/// Dials. If the peer shows up meanwhile, dials a second time beside the first: an unanswered dial repeats its packets
/// at growing intervals and may notice only a second later.
async fn dial_again_when_told<D: Future<Output = Result<Link, DialError>>>(
    dial: impl Fn() -> D,
    dial_now: &Notify,
) -> Result<Link, DialError> {
    let first = dial();
    tokio::pin!(first);
    tokio::select! { biased;
        result = &mut first => return result,
        () = dial_now.notified() => {}
    }
    tokio::select! { biased;
        Ok(link) = &mut first => Ok(link),
        result = dial() => result,
    }
}
