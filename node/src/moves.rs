//! What a node does while partitions move.
//!
//! ```text
//!   joint   who takes a seat copies from the one who held it        copy.rs, pages from send.rs, tree by differ.rs
//!   done    all of it is on stable storage here; the leader finishes the move
//!   new     who owns no longer hands over what it still holds       clean.rs, asked of cover.rs
//! ```
//!
//! A **session** is one move of one partition, named by the epoch in which it became joint. A source answers only if its
//! own view, fsynced, has this very session: so from its first answer on it refuses everything planned before, and what it
//! holds by then is all there is to copy. A page is joined only while this node's view has the session. What is copied in
//! one session says nothing in another.
//!
//! Nothing about a copy is kept on the disk but the rows themselves: after a crash the trees tell what is there already.
//!
//! This file is what is known of the moves, and how much may be done at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use atoll_ring::{Epoch, NodeId, Owners, Partition, View, leaving, seats};
use atoll_wire::{MoveReport, MovesReport};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    Node,
    canary::{self, Canary},
    storage::faulty::{Faults, Step},
};

pub(crate) mod clean;
pub(crate) mod copy;
mod cover;
mod differ;
mod job;
mod join;
mod send;

pub(crate) use cover::covers;
pub(crate) use send::send_page;

/// Partitions copied at the same time. The others wait their turn, those that wait for a source do not count.
const PARTITIONS_AT_ONCE: usize = 4;

/// Pages asked for and not yet applied, at the same time. Each holds about a megabyte, or a single larger state. While
/// clients are served it is one.
const PAGES_AT_ONCE: u32 = 6;

/// Pages made for others at the same time. While clients are served it is one.
const SENT_AT_ONCE: u32 = 4;

/// While clients are served, how many times as long as it works a copy rests: it takes a fifth of a node's time at most.
const REST_PER_WORK: u32 = 4;

/// How many times as long it rests in addition as others had to wait for their turn: where the processor is short, those
/// who wait are clients.
const REST_PER_WAIT: u32 = 16;

/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(250);

/// How often a step that is held on command looks whether it still is.
const HELD_FOR: Duration = Duration::from_millis(50);

/// What a node knows of moves.
pub(crate) struct Moves {
    state: Mutex<State>,
    places: Semaphore,
    pages: Semaphore,
    sent: Semaphore,
    faults: OnceLock<Arc<Faults>>,
}

#[derive(Default)]
struct State {
    /// The moves that this node takes part in.
    books: BTreeMap<Partition, Book>,
    /// Per partition the last session that was copied wholly.
    copied: BTreeMap<Partition, Epoch>,
    /// Who took the seat that this node had.
    successors: BTreeMap<Partition, NodeId>,
    /// About how many rows there are of partitions that this node does not own.
    strays: BTreeMap<Partition, u64>,
    /// The epoch for which they were last looked for.
    surveyed: Option<Epoch>,
    /// Why voters that are wanted could not be had, from whoever keeps them (`membership/steward`).
    voters_wait: String,
}

/// How one session goes.
struct Book {
    session: Epoch,
    joins: bool,
    keys: u64,
    bytes: u64,
    /// Tokens that are to be copied, and those that are.
    tokens: (u128, u128),
    waits_for: Option<NodeId>,
}

impl Default for Moves {
    fn default() -> Self {
        Moves {
            state: Mutex::default(),
            places: Semaphore::new(PARTITIONS_AT_ONCE),
            pages: Semaphore::new(PAGES_AT_ONCE as usize),
            sent: Semaphore::new(SENT_AT_ONCE as usize),
            faults: OnceLock::new(),
        }
    }
}

/// How the moves go that this node takes part in.
pub(crate) fn report(node: &Node) -> MovesReport {
    let log = node.log().standing();
    let view = node.view();
    let moves = node.moves();
    moves.follow(&view, node.id());
    let state = moves.state();
    let of = |(partition, book): (&Partition, &Book)| {
        let total = match book.joins {
            true => book.total(),
            false => node.repair().trees.keys(*partition),
        };
        MoveReport {
            partition: partition.0,
            session: book.session.0,
            joins: book.joins,
            keys: (book.keys, total.max(book.keys)),
            bytes: book.bytes,
            done: book.joins && state.has_copied(*partition, book.session),
            waits_for: book.waits_for.map(|node| node.0),
        }
    };
    let rows: Vec<MoveReport> = state.books.iter().map(of).collect();
    // as long as nobody has looked there may be one
    let unknown = u64::from(state.surveyed != Some(view.epoch()));
    MovesReport {
        leader: log.leader.map(|leader| leader.0),
        voters_reachable: log.voters_reachable,
        frozen: log.frozen,
        voters_wait: if log.leads { state.voters_wait.clone() } else { String::new() },
        strays: state.strays.values().sum::<u64>() + unknown,
        hints: node.hints().total(),
        ..MovesReport::default()
    }
    .with(&rows)
}

impl Moves {
    /// Some steps wait on command from now on.
    pub(crate) fn obey(&self, faults: Arc<Faults>) {
        let _ = self.faults.set(faults); // whoever commands does so for the node's life
    }

    /// Waits as long as this step is held on command. Whoever commands it reads in the log that it has come so far.
    async fn hold(&self, partition: Partition, step: Step) {
        let is_held = || self.faults.get().is_some_and(|faults| faults.holds(step));
        if is_held() {
            tracing::info!(%partition, ?step, "held on command");
        }
        while is_held() {
            tokio::time::sleep(HELD_FOR).await;
        }
    }

    /// The books follow the view: they are of its sessions.
    fn follow(&self, view: &View, me: NodeId) {
        let mut state = self.state();
        state.books.retain(|partition, book| {
            view.moves().contains_key(partition) && view.last_changed(*partition) == book.session
        });
        for partition in view.moves().keys() {
            let Owners::Joint { old, new } = view.owners(*partition) else { continue };
            let joins = seats(old, new).iter().any(|(held, joins)| *joins == me && held.is_some());
            if joins || leaving(old, new).contains(&me) {
                let session = view.last_changed(*partition);
                state.books.entry(*partition).or_insert_with(|| Book::of(session, joins));
            }
            if let Some(seat) = old.iter().position(|owner| *owner == me)
                && let Some(successor) = new.get(seat)
            {
                state.successors.insert(*partition, *successor);
            }
        }
    }

    /// Enters something into the book of a session, if it still is one.
    fn book(&self, partition: Partition, session: Epoch, enter: impl FnOnce(&mut Book)) {
        let mut state = self.state();
        if let Some(book) = state.books.get_mut(&partition)
            && book.session == session
        {
            enter(book);
        }
    }

    /// Everything of this session is here, on stable storage.
    fn copied(&self, partition: Partition, session: Epoch) {
        self.state().copied.insert(partition, session);
    }

    fn has_copied(&self, partition: Partition, session: Epoch) -> bool {
        self.state().has_copied(partition, session)
    }

    /// A turn to ask for a page and to join it.
    async fn page(&self, node: &Node) -> SemaphorePermit<'_> {
        turn(node, &self.pages, PAGES_AT_ONCE).await
    }

    /// A turn to make a page for somebody.
    async fn sends(&self, node: &Node) -> SemaphorePermit<'_> {
        turn(node, &self.sent, SENT_AT_ONCE).await
    }

    /// Voters that are wanted could not be had, and why; empty = no others are wanted.
    pub(crate) fn voters_wait(&self, why: String) {
        self.state().voters_wait = why;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }
}

impl State {
    fn has_copied(&self, partition: Partition, session: Epoch) -> bool {
        match self.copied.get(&partition) {
            Some(_) if canary::is_on(Canary::AcceptDeadSession) => true,
            copied => copied == Some(&session),
        }
    }
}

impl Book {
    fn of(session: Epoch, joins: bool) -> Book {
        Book { session, joins, keys: 0, bytes: 0, tokens: (0, 0), waits_for: None }
    }

    /// About how many keys there are to be copied. Tokens are hashes: keys lie evenly among them.
    fn total(&self) -> u64 {
        let (all, copied) = self.tokens;
        let total = (u128::from(self.keys) * (all >> 16)).checked_div(copied >> 16);
        total.map_or(self.keys, |total| u64::try_from(total).unwrap_or(u64::MAX))
    }
}

/// One of some turns; while clients are served, all of them.
async fn turn<'a>(node: &Node, turns: &'a Semaphore, all: u32) -> SemaphorePermit<'a> {
    let wanted = if is_busy(node) { all } else { 1 };
    turns.acquire_many(wanted).await.expect("it is never closed")
}

/// Whether clients have been served lately.
pub(crate) fn is_busy(node: &Node) -> bool {
    node.repair().is_busy(node.clock().now())
}

/// Lets others run; while clients are served, for several times as long as the work took, and longer the longer whoever is
/// ready to run has to wait for it.
async fn rest(node: &Node, worked: Duration) {
    let ready = node.clock().now();
    tokio::task::yield_now().await; // behind all who are ready
    if is_busy(node) {
        let waited = node.clock().now() - ready;
        let rest = worked * REST_PER_WORK + waited * REST_PER_WAIT;
        tokio::time::sleep(rest.min(REST_MAX)).await;
    }
}
