//! Merkle anti-entropy: owners find and mend what they hold differently, without anybody reading it.
//!
//! Every node keeps a tree per partition it owns ([`trees`]). Pings carry the sum of the roots that two nodes share, so
//! equality costs nothing. When the sums differ one of the two begins a comparison ([`exchange`]): it descends to the keys
//! that differ, waits until what was merely on its way has arrived, and mends the rest in both directions ([`mend`]). The
//! other one answers ([`answer`]).
//!
//! A damaged record is another matter: [`quarantine`] asks all owners for that one key.
//!
//! This file is what is known of the comparisons with each other node: when partitions were last found to be equal, who
//! begins, and when.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use atoll_antientropy::Secret;
use atoll_ring::{Epoch, NodeId, Partition, View};
use atoll_wire::{PartitionRepair, RepairReport, RepairStarted, Roots};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::{
    Node,
    buckets::Buckets,
    storage::{StoreError, commit::Disk},
};

pub(crate) mod answer;
pub(crate) mod exchange;
mod mend;
pub(crate) mod quarantine;
pub(crate) mod scrub;
pub(crate) mod trees;

use trees::{TreeName, Trees};

/// Comparisons that one node leads at the same time. Each takes about a second for waiting alone, and every partition is
/// to be compared with every other owner within 12 s, so a node needs several once it has more than eight peers.
const ROUNDS_MAX: usize = 4;

/// The pause after a comparison that left nothing to be mended: at first, and at most. It doubles until both are equal:
/// while clients write a lot, every comparison finds keys that differ only because somebody is writing them.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// When the one who need not begin does so after all, because it has not known for so long that all is equal: writes go on,
/// and what the other one finds only that one knows.
const CONFIRM_AFTER: Duration = Duration::from_secs(9);

/// How long a difference is left alone while there are hints to be delivered: they bring the same, cheaper.
const HINTS_FIRST: Duration = Duration::from_secs(8);

/// How long after a client's request the node counts as busy.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// What a node knows of repair.
pub(crate) struct Repair {
    pub(crate) trees: Trees,
    me: NodeId,
    started: Instant,
    /// Milliseconds after the start at which a client's request last arrived, plus one; 0 = none yet.
    served_ms: AtomicU64,
    state: Mutex<State>,
    /// Something was heard or asked that may be a reason to begin, or the view has changed.
    changed: Notify,
    rounds: Semaphore,
    held: AtomicBool,
}

#[derive(Default)]
struct State {
    peers: BTreeMap<NodeId, Peer>,
    books: BTreeMap<Partition, Book>,
}

/// How things stand with one other owner.
#[derive(Default)]
struct Peer {
    /// The last sums that were compared were not equal, and since when it is so.
    differs_since: Option<Instant>,
    /// It may have forgotten something.
    in_doubt: bool,
    /// Everything was equal then.
    all_agreed: Option<Instant>,
    /// Each tree was equal then.
    agreed: BTreeMap<TreeName, Instant>,
    /// Somebody wants to know now.
    asked: bool,
    not_before: Option<Instant>,
    pause: Duration,
}

impl Peer {
    fn agreed(&self, tree: TreeName) -> Option<Instant> {
        self.agreed.get(&tree).copied().max(self.all_agreed)
    }
}

/// What repair has done for a partition.
#[derive(Clone, Copy, Default)]
struct Book {
    keys_repaired: u64,
    bytes: u64,
    backlog: u32,
}

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// More was found than one comparison mends.
    More,
    /// Everything that was found is mended, or was on its way.
    Done,
    /// The other one did not answer, or would not.
    Broken,
}

/// When to begin.
enum Begin {
    Now,
    At(Instant),
    /// When something changes.
    Whenever,
}

impl Repair {
    /// Makes the trees.
    pub(crate) fn open(
        disk: Arc<Disk>,
        buckets: Arc<Buckets>,
        secret: &Secret,
        view: &View,
        me: NodeId,
        now: Instant,
    ) -> Result<Self, StoreError> {
        let trees = Trees::open(disk, buckets, secret, view, me)?;
        let peers = trees.peers().into_iter().map(|peer| (peer, Peer::default())).collect();
        Ok(Repair {
            trees,
            me,
            started: now,
            served_ms: AtomicU64::new(0),
            state: Mutex::new(State { peers, ..State::default() }),
            changed: Notify::new(),
            rounds: Semaphore::new(ROUNDS_MAX),
            held: AtomicBool::new(false),
        })
    }

    /// Partitions have other owners from now on. What is newly shared was never compared.
    pub(crate) fn follow(&self, view: &View) -> Result<(), StoreError> {
        let mut state = self.state();
        for (peer, known) in &mut state.peers {
            if let Some(at) = known.all_agreed.take() {
                for tree in self.trees.shared(*peer).iter() {
                    let agreed = known.agreed.entry(*tree).or_insert(at);
                    *agreed = at.max(*agreed);
                }
            }
            known.differs_since = None;
        }
        self.trees.follow(view, self.me)?;
        let peers = self.trees.peers();
        state.peers.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            let known = state.peers.entry(peer).or_default();
            let shared = self.trees.shared(peer);
            known.agreed.retain(|tree, _| shared.binary_search(tree).is_ok());
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// What a ping to this peer, or the answer to one, says. A node that does not serve yet may be in doubt before long.
    pub(crate) fn roots(&self, node: &Node, peer: NodeId) -> Roots {
        let vouched = node.actor().is_some() && !node.doubt().covers_any_partition();
        Roots { sum: self.trees.sum(peer), vouched }
    }

    /// Whether a peer has said that it may have lost something.
    pub(crate) fn is_in_doubt(&self, peer: NodeId) -> bool {
        self.state().peers.get(&peer).is_some_and(|known| known.in_doubt)
    }

    /// A peer has said what it holds.
    pub(crate) fn heard(&self, node: &Node, peer: NodeId, theirs: Roots, epoch: Epoch) {
        let ours = self.roots(node, peer);
        let now = node.clock().now();
        let mut state = self.state();
        let Some(known) = state.peers.get_mut(&peer) else { return };
        known.in_doubt = !theirs.vouched; // whichever view it has: a node that lost memory makes a new one
        if epoch != node.view().epoch() {
            return; // not of the same partitions
        }
        if ours.sum != theirs.sum {
            known.differs_since.get_or_insert(now);
        } else {
            known.differs_since = None;
            known.pause = Duration::ZERO;
            if ours.vouched && theirs.vouched {
                known.all_agreed = Some(now);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// These trees were equal to a peer's at this time. Says nothing if either may have forgotten something.
    fn agree(
        &self,
        node: &Node,
        peer: NodeId,
        trees: impl IntoIterator<Item = TreeName>,
        at: Instant,
    ) {
        if node.doubt().covers_any_partition() {
            return;
        }
        let mut state = self.state();
        let Some(known) = state.peers.get_mut(&peer) else { return };
        if !known.in_doubt {
            known.agreed.extend(trees.into_iter().map(|tree| (tree, at)));
        }
    }

    /// Waits until it is our turn to compare with a peer.
    async fn time_to_begin(&self, node: &Node, peer: NodeId) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // before looking, or a change in between would be missed
            if node.view().member(peer).is_none() {
                return;
            }
            match self.begin(node, peer) {
                Begin::Now => return,
                Begin::At(at) => {
                    tokio::select! { biased;
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                Begin::Whenever => changed.await,
            }
        }
    }

    fn begin(&self, node: &Node, peer: NodeId) -> Begin {
        if self.held.load(Ordering::Relaxed) || !node.liveness().is_up(peer) {
            return Begin::Whenever; // it will be heard again when it is up
        }
        let (we_doubt, owed) = match node.doubt().covers_any_partition() {
            true => (true, !node.doubt().to_compare_with(peer).is_empty()),
            false => (false, false),
        };
        let now = node.clock().now();
        let state = self.state();
        let Some(known) = state.peers.get(&peer) else { return Begin::Whenever };
        if known.asked {
            return Begin::Now;
        }
        let due = if owed {
            now
        } else if let Some(since) = known.differs_since {
            let ours = match (we_doubt, known.in_doubt) {
                (true, false) => true,
                (false, true) => false,
                (true, true) | (false, false) => self.me < peer,
            };
            let hints = node.hints().count(peer) > 0;
            let agreed = known.all_agreed.unwrap_or(self.started);
            let oldest = self.oldest(known, peer).unwrap_or(agreed);
            match (ours, hints) {
                (true, false) => now,
                (true, true) => since + HINTS_FIRST,
                (false, _) => oldest + CONFIRM_AFTER,
            }
        } else {
            return Begin::Whenever;
        };
        match known.not_before.map_or(due, |not_before| due.max(not_before)) {
            at if at <= now => Begin::Now,
            at => Begin::At(at),
        }
    }

    /// Since when a peer and we have not known everything shared to be equal; none = never.
    fn oldest(&self, known: &Peer, peer: NodeId) -> Option<Instant> {
        let shared = self.trees.shared(peer);
        shared.iter().map(|tree| known.agreed(*tree)).min().flatten()
    }

    /// A comparison has begun.
    fn began(&self, peer: NodeId) {
        if let Some(known) = self.state().peers.get_mut(&peer) {
            known.asked = false;
        }
    }

    /// A comparison is over.
    fn ended(&self, peer: NodeId, how: Round, now: Instant) {
        let mut state = self.state();
        let Some(known) = state.peers.get_mut(&peer) else { return };
        known.pause = match how {
            Round::More => Duration::ZERO,
            Round::Done | Round::Broken => (known.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX),
        };
        known.not_before = Some(now + known.pause);
    }

    /// Puts comparisons first in line: of one partition or of all.
    pub(crate) fn run(&self, partition: Option<Partition>) -> RepairStarted {
        let mut partitions = std::collections::BTreeSet::new();
        let mut state = self.state();
        for (peer, known) in &mut state.peers {
            let shared = self.trees.shared(*peer);
            let wanted: Vec<Partition> = shared
                .iter()
                .map(|tree| tree.partition)
                .filter(|shared| partition.is_none_or(|only| only == *shared))
                .collect();
            known.asked |= !wanted.is_empty();
            partitions.extend(wanted);
        }
        drop(state);
        self.changed.notify_waiters();
        RepairStarted { partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX) }
    }

    /// How repair stands, partition by partition.
    pub(crate) fn report(&self, node: &Node) -> RepairReport {
        let now = node.clock().now();
        let view = node.view();
        let state = self.state();
        let of = |partition: Partition| {
            let book = state.books.get(&partition).copied().unwrap_or_default();
            PartitionRepair {
                partition: partition.0,
                agreed_ms_ago: self.agreed_ms_ago(&state, partition, now),
                in_doubt: node.doubt().covers_partition(partition),
                keys_repaired: book.keys_repaired,
                bytes: book.bytes,
                backlog: book.backlog,
            }
        };
        let is_mine = |partition: &Partition| view.owners(*partition).contains(self.me);
        let mine = view.partitions().all().filter(is_mine);
        RepairReport::of(&mine.map(of).collect::<Vec<_>>())
    }

    /// Milliseconds since a partition was equal with the owner for which that was longest ago. One with which nothing of it
    /// is shared is always equal.
    fn agreed_ms_ago(&self, state: &State, partition: Partition, now: Instant) -> u64 {
        let of = |(peer, known): (&NodeId, &Peer)| {
            let shared = self.trees.shared_of(*peer, partition);
            shared.iter().map(|tree| ms_ago(known.agreed(*tree), now)).max().unwrap_or(0)
        };
        state.peers.iter().map(of).max().unwrap_or(0)
    }

    /// Keys mended since the start.
    pub(crate) fn exchanged(&self) -> u64 {
        self.state().books.values().map(|book| book.keys_repaired).sum()
    }

    /// Milliseconds since the partition that was compared least lately was equal with all its owners; `u64::MAX` = there is
    /// one that was not since the start.
    pub(crate) fn compared_ms_ago(&self, node: &Node) -> u64 {
        let (now, state) = (node.clock().now(), self.state());
        let of = |(peer, known): (&NodeId, &Peer)| ms_ago(self.oldest(known, *peer), now);
        state.peers.iter().map(of).max().unwrap_or(0)
    }

    /// A client's request has arrived, here or at another coordinator.
    pub(crate) fn served(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.started).as_millis();
        self.served_ms.store(u64::try_from(ms).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    /// Whether clients have been served lately.
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        match self.served_ms.load(Ordering::Relaxed) {
            0 => false,
            ms => now < self.started + Duration::from_millis(ms - 1) + BUSY_FOR,
        }
    }

    /// Begins no more comparisons, until told otherwise. For tests that look at hints or reads alone.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    fn book(&self, partition: Partition, enter: impl FnOnce(&mut Book)) {
        enter(self.state().books.entry(partition).or_default());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }
}

fn ms_ago(at: Option<Instant>, now: Instant) -> u64 {
    at.map_or(u64::MAX, |at| {
        u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX)
    })
}
