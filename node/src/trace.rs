//! Requests of which somebody wants to see each step.
//!
//! Tracing is asked for in the envelope, request by request. Whoever works on one says [`Node::note`] where something has
//! happened; for all other requests that is a comparison of two bytes. What other nodes have noted comes with their answers
//! ([`Node::note_of_others`]). When the answer leaves, the trace goes along in its receipt.
//!
//! A node traces at most [`TRACES_MAX`] requests at a time; of any beyond that it notes nothing, and says so.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use atoll_ring::NodeId;
use atoll_wire::{Deed, Reply, Step, Trace};
use tokio::time::Instant;

use crate::{Node, coordinate::micros, node::Due};

/// Requests that a node traces at the same time. A trace takes up to 5 KiB while its request is under way; tracing is for
/// looking closely at a few, not for watching all.
pub const TRACES_MAX: usize = 64;

/// Whether the steps of a request are noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traced {
    /// Nobody wants to see them.
    No,
    /// Somebody does, and there was no room.
    NoRoom,
    /// Under this number.
    As(u64),
}

/// The traces of requests under way.
#[derive(Default)]
pub(crate) struct Traces {
    next: AtomicU64,
    live: Mutex<BTreeMap<u64, (Instant, Trace)>>,
}

impl Traces {
    fn begin(&self, now: Instant) -> Traced {
        let mut live = self.live.lock().expect("no panic holds it");
        if live.len() >= TRACES_MAX {
            return Traced::NoRoom;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        live.insert(number, (now, Trace::default()));
        Traced::As(number)
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Trace, Instant)) {
        let mut live = self.live.lock().expect("no panic holds it");
        if let Some((began, trace)) = live.get_mut(&number) {
            change(trace, *began); // otherwise the answer has left, and this went on in the background
        }
    }

    fn end(&self, number: u64) -> Option<Trace> {
        let mut live = self.live.lock().expect("no panic holds it");
        live.remove(&number).map(|(_, trace)| trace)
    }
}

/// A request that is traced, until its answer leaves or nobody waits for it any more.
pub(crate) struct Tracing {
    node: Arc<Node>,
    traced: Traced,
}

impl Tracing {
    /// Begins with a request that came at this time.
    pub(crate) fn begin(node: &Arc<Node>, arrived: Instant) -> Self {
        let tracing = Tracing { node: node.clone(), traced: node.traces().begin(arrived) };
        if let Traced::As(number) = tracing.traced {
            let step = Step { node: node.id().0, micros: 0, deed: Deed::Arrived, peer: None };
            node.traces().change(number, |trace, _| trace.push(step));
        }
        tracing
    }

    /// Under which number.
    pub(crate) fn traced(&self) -> Traced {
        self.traced
    }

    /// The answer, with what was noted.
    pub(crate) fn end(self, mut reply: Reply) -> Reply {
        self.node.note_as(self.traced, Deed::Replied, None);
        let own = match self.traced {
            Traced::As(number) => self.node.traces().end(number).unwrap_or_default(),
            Traced::No | Traced::NoRoom => {
                Trace { untraced: vec![self.node.id().0], ..Trace::default() }
            }
        };
        if let Some(place) = place_in(&mut reply) {
            let of_others = place.take();
            let trace = place.insert(Box::new(own));
            trace.absorb(of_others.map(|trace| *trace).unwrap_or_default());
        }
        reply
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Traced::As(number) = self.traced {
            drop(self.node.traces().end(number));
        }
    }
}

/// Where a trace travels. A failure without a receipt has none: it came before anything was planned.
fn place_in(reply: &mut Reply) -> Option<&mut Option<Box<Trace>>> {
    match reply {
        Reply::Written(stored) => Some(&mut stored.receipt.trace),
        Reply::Found(found) => Some(&mut found.receipt.trace),
        Reply::Replicated(replicated) => Some(&mut replicated.trace),
        Reply::Fetched(fetched) => Some(&mut fetched.trace),
        Reply::Failed(failure) => failure.receipt.as_mut().map(|receipt| &mut receipt.trace),
        Reply::Welcome(_)
        | Reply::Pong(_)
        | Reply::View(_)
        | Reply::Status(_)
        | Reply::Many(_)
        | Reply::Listed(_)
        | Reply::Explained(_)
        | Reply::RepairStatus(_)
        | Reply::RepairRun(_)
        | Reply::Dumped(_)
        | Reply::Faults(_)
        | Reply::Proposed(_)
        | Reply::Moves(_)
        | Reply::BucketChanged(_)
        | Reply::Buckets(_)
        | Reply::Raft(_)
        | Reply::Copied(_)
        | Reply::Covering(_)
        | Reply::Scanned(_)
        | Reply::Recalled(_)
        | Reply::Differing(_)
        | Reply::Unmatched(_) => None,
    }
}

impl Node {
    /// Something has happened to a request.
    pub(crate) fn note(&self, due: Due, deed: Deed) {
        self.note_as(due.traced, deed, None);
    }

    /// Something has happened between us and another node.
    pub(crate) fn note_with(&self, due: Due, deed: Deed, peer: NodeId) {
        self.note_as(due.traced, deed, Some(peer));
    }

    fn note_as(&self, traced: Traced, deed: Deed, peer: Option<NodeId>) {
        let Traced::As(number) = traced else { return };
        let now = self.clock().now();
        let (node, peer) = (self.id().0, peer.map(|peer| peer.0));
        self.traces().change(number, |trace, began| {
            trace.push(Step { node, micros: micros(began, now), deed, peer });
        });
    }

    /// What another node has noted of a request.
    pub(crate) fn note_of_others(&self, due: Due, theirs: Option<Box<Trace>>) {
        if let (Traced::As(number), Some(theirs)) = (due.traced, theirs) {
            self.traces().change(number, |trace, _| trace.absorb(*theirs));
        }
    }
}
