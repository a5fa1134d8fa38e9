//! One node: its parts, its beginning and its end.
//!
//! [`Node`] only holds; `node/requests` says which part a request goes to, `node/status` what the node says of itself. Whoever builds one brings the parts that touch the world ([`Parts`]): transport, disk,
//! clock. The same node runs over QUIC with a thread for its disk, and in one thread over a network in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use atoll_antientropy::{Actor, Kind, Secret, Standing, State};
use atoll_ring::{NodeId, Partition, View};
use atoll_transport::{CertificateState, Handler, Transport};
use atoll_wire::{Ack, BucketId, Envelope, ErrorCode, Failure, Role, limits::TIMEOUT_MS_MAX};
use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::AbortHandle,
    time::Instant,
};

use crate::{
    Clock,
    buckets::{self, Buckets},
    canary::{self, Canary},
    doubt::Doubt,
    faults::StandingFaults,
    headroom::{self, Headroom},
    hedge::Hedge,
    hints::{self, HintLimits, Hints},
    hybrid::HybridClock,
    leases::Leases,
    liveness::{self, Liveness},
    measured::Measurements,
    membership::{
        MembershipLog,
        catch_up::{self, CatchUp},
        steward,
    },
    memory::Memory,
    moves::{self, Moves},
    pace::Pace,
    repair::{
        self, Repair, quarantine,
        scrub::{self, Scrubbed},
        trees::TreeName,
    },
    rise,
    storage::{StoreError, commit::Disk, faulty::Faults, meta, rows, summary},
    trace::Traces,
};

mod requests;
mod status;
mod views;

pub(crate) use requests::{Due, failed};

/// Read repairs under way at the same time. Each holds the key's state until the slowest owner has answered. Past that a
/// read answers as usual and repairs nothing; the next one may.
pub const MENDS_MAX: usize = 256;

/// What a node is made of.
pub struct Parts {
    /// Which member it is.
    pub id: NodeId,
    /// The view it starts with.
    pub view: Arc<View>,
    /// The cluster's secret.
    pub secret: Secret,
    /// Its way to the others.
    pub transport: Arc<dyn Transport>,
    /// The log of membership changes.
    pub log: Arc<dyn MembershipLog>,
    /// Its store and writer.
    pub disk: Arc<Disk>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What is known of its memory.
    pub past: Past,
    /// How much it keeps for others.
    pub hint_limits: HintLimits,
    /// How long it takes to read everything once in the background.
    pub scrub_period: Duration,
    /// How far its wall clock may be from the others'.
    pub clock_bound: Duration,
    /// What is known of its own certificate; shown in its status.
    pub certificate: Arc<CertificateState>,
}

/// What is known of a node's memory before it has asked anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Past {
    /// It has never run: somebody says so. Believed unless a peer remembers otherwise.
    None,
    /// Nothing seems to be missing. Believed unless a peer remembers more.
    Whole,
    /// Something is missing, and what.
    Lost(String),
}

/// A node at work.
pub struct Node {
    id: NodeId,
    /// Its incarnation when it started, and what was known then.
    began: rise::Began,
    past: Past,
    /// As whom it serves; nothing before it may.
    life: OnceLock<Life>,
    /// What it waits for until then.
    rising: Mutex<String>,
    view: RwLock<Arc<View>>,
    /// One view is adopted after the other.
    adopting: Semaphore,
    catch_up: CatchUp,
    log: Arc<dyn MembershipLog>,
    secret: Secret,
    transport: Arc<dyn Transport>,
    disk: Arc<Disk>,
    clock: Arc<dyn Clock>,
    hybrid: HybridClock,
    certificate: Arc<CertificateState>,
    /// Only if it may be broken on purpose.
    standing_faults: OnceLock<Arc<StandingFaults>>,
    memory: Memory,
    buckets: Arc<Buckets>,
    headroom: Headroom,
    doubt: Doubt,
    hints: Hints,
    scrubbed: Scrubbed,
    liveness: Liveness,
    hedge: Hedge,
    measured: Measurements,
    pace: Pace,
    traces: Traces,
    repair: Repair,
    moves: Moves,
    mends: Arc<Semaphore>,
    started: Instant,
    counts: Counts,
    tasks: Mutex<Tasks>,
}

/// What a node needs to make events.
struct Life {
    actor: Actor,
    leases: Leases,
}

#[derive(Default)]
struct Counts {
    writes: AtomicU64,
    reads: AtomicU64,
    repaired: AtomicU64,
    corrupt: AtomicU64,
}

/// What the node has started in the background. Ended with the node.
#[derive(Default)]
struct Tasks {
    next: u64,
    running: BTreeMap<u64, AbortHandle>,
    stopped: bool,
}

impl Node {
    /// Starts a node: counts this start as unclean until it is stopped in order, and begins to watch its peers. It serves
    /// nobody before [`Node::rise`]. If it is known to have lost something, its store remembers that from here on.
    ///
    /// # Errors
    /// The storage failed.
    ///
    /// # Panics
    /// If the view does not know the node.
    pub async fn start(parts: Parts) -> Result<Arc<Node>, StoreError> {
        let (scrub_period, clock_bound) = (parts.scrub_period, parts.clock_bound);
        let Parts {
            id,
            view,
            secret,
            transport,
            log,
            disk,
            clock,
            hint_limits,
            certificate,
            past,
            ..
        } = parts;
        let member = view.member(id).expect("whoever builds a node has looked it up");
        let past = match (past, disk.lost()) {
            (Past::Lost(why), _) => Past::Lost(why),
            (Past::None | Past::Whole, Some(why)) => Past::Lost(why.into()),
            (past @ (Past::None | Past::Whole), None) => past,
        };
        let (began, past) = rise::begin(&disk, &view, member.incarnation, past).await?;
        let others: Vec<NodeId> =
            view.members().iter().map(|member| member.id).filter(|other| *other != id).collect();
        summary::complete(&disk).await?;
        let buckets = Arc::new(Buckets::open(disk.clone(), view.bucket_n())?);
        let repair = Repair::open(disk.clone(), buckets.clone(), &secret, &view, id, clock.now())?;
        let node = Arc::new(Node {
            id,
            began,
            past,
            life: OnceLock::new(),
            rising: Mutex::new("starts".into()),
            memory: Memory::open(id, &view, disk.clone())?,
            view: RwLock::new(view),
            adopting: Semaphore::new(1),
            catch_up: CatchUp::default(),
            log: log.clone(),
            secret,
            transport,
            buckets,
            headroom: Headroom::of(disk.clone()),
            doubt: Doubt::open(disk.clone(), clock.now())?,
            hints: Hints::open(disk.clone(), hint_limits)?,
            scrubbed: Scrubbed::default(),
            liveness: Liveness::of(others.iter().copied()),
            hedge: Hedge::default(),
            measured: Measurements::default(),
            pace: Pace::default(),
            traces: Traces::default(),
            repair,
            moves: Moves::default(),
            mends: Arc::new(Semaphore::new(MENDS_MAX)),
            started: clock.now(),
            disk,
            clock,
            hybrid: HybridClock::new(clock_bound),
            certificate,
            standing_faults: OnceLock::new(),
            counts: Counts::default(),
            tasks: Mutex::default(),
        });
        log.attach(&node);
        node.spawn(catch_up::follow(node.clone()));
        node.spawn(headroom::watch(node.clone()));
        node.spawn(scrub::watch(node.clone(), scrub_period));
        for other in others {
            node.spawn(liveness::watch(node.clone(), other));
        }
        Ok(node)
    }

    /// Finds out whether it may speak as the node it was, and begins to serve. Whoever starts a node lets its peers reach
    /// it first. Waits for ever, if a new incarnation is needed and too few others vouch for one; what for is in its status.
    ///
    /// # Errors
    /// The storage failed, or something is lost and there is nobody who could vouch.
    pub async fn rise(self: &Arc<Self>) -> Result<(), StoreError> {
        let (risen, outcome) = oneshot::channel();
        let (node, past) = (self.clone(), self.past.clone());
        // a task of the node's: whoever ends the node ends this, wherever it waits
        self.spawn(async move {
            let _ = risen.send(rise::rise(&node, past).await);
        });
        outcome.await.unwrap_or_else(|_| Err(StoreError("the node is stopping".into())))
    }

    /// Begins to serve, under this name.
    pub(crate) fn serve_as(self: &Arc<Self>, actor: Actor) -> Result<(), StoreError> {
        let leases = Leases::open(actor, self.disk.clone())?;
        let first = self.life.set(Life { actor, leases }).is_ok();
        assert!(first, "a node rises once");
        for other in self.others() {
            self.care_for(other);
        }
        for gone in self.hints.targets().into_iter().filter(|to| self.view().member(*to).is_none())
        {
            self.spawn(hints::deliver(self.clone(), gone));
        }
        self.spawn(steward::watch(self.clone()));
        self.spawn(repair::trees::grow(self.clone()));
        self.spawn(quarantine::watch(self.clone()));
        self.spawn(moves::copy::watch(self.clone()));
        self.spawn(moves::clean::watch(self.clone()));
        self.spawn(buckets::purge::watch(self.clone()));
        Ok(())
    }

    /// Begins to bring a member what it misses. Ends by itself when it is a member no longer.
    fn care_for(self: &Arc<Self>, other: NodeId) {
        self.spawn(hints::deliver(self.clone(), other));
        self.spawn(repair::exchange::compare_with(self.clone(), other));
    }

    /// Stops in order: ends what runs in the background, notes that nothing is missing, and makes no event after that.
    ///
    /// # Errors
    /// The storage failed; then the next start counts as unclean.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.halt();
        let write = meta::write(Bytes::from_static(rows::CLEAN), b"1");
        let settled = self.disk.write(vec![write], Ack::Durable);
        self.disk.close(); // before the await: an event made after the note would not be covered by it
        settled.done().await
    }

    /// Ends what runs in the background, and no more: what a crash does.
    pub fn halt(&self) {
        let mut tasks = self.tasks.lock().expect("no panic holds it");
        tasks.stopped = true;
        for task in std::mem::take(&mut tasks.running).into_values() {
            task.abort();
        }
    }

    /// Which member this is.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The present view.
    pub fn view(&self) -> Arc<View> {
        self.view.read().expect("no panic holds it").clone()
    }

    /// The store.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Every other member.
    pub(crate) fn others(&self) -> Vec<NodeId> {
        let members = self.view().members().to_vec();
        members.into_iter().map(|member| member.id).filter(|other| *other != self.id).collect()
    }

    /// Under which name it makes events; none before it may.
    pub(crate) fn actor(&self) -> Option<Actor> {
        self.life.get().map(|life| life.actor)
    }

    /// Its present incarnation: before it serves, that of its last life.
    pub(crate) fn incarnation(&self) -> u32 {
        self.actor().map_or(self.began.incarnation, |actor| actor.incarnation)
    }

    /// Says what it waits for before it serves.
    pub(crate) fn note_rising(&self, what: &str) {
        let mut rising = self.rising.lock().expect("no panic holds it");
        if *rising != what {
            tracing::info!(what, "starting");
            what.clone_into(&mut rising);
        }
    }

    /// What it waits for before it serves; empty = it serves.
    fn rising(&self) -> String {
        match self.life.get() {
            Some(_) => String::new(),
            None => self.rising.lock().expect("no panic holds it").clone(),
        }
    }

    fn life(&self) -> &Life {
        self.life.get().expect("nothing is asked of a node that does not serve")
    }

    /// What it may claim of a partition's keys. Its role there changes at most when the partition does; that an epoch
    /// stands for the number of changes only means that some notes are not trusted that could be.
    pub(crate) fn standing(&self, partition: Partition) -> Standing {
        let role_changes = match canary::is_on(Canary::TrustOtherRole) {
            true => 0,
            false => self.view().last_changed(partition).0,
        };
        let unclean_starts = self.began.unclean_starts;
        Standing { actor: self.life().actor, unclean_starts, role_changes }
    }

    pub(crate) fn log(&self) -> &Arc<dyn MembershipLog> {
        &self.log
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn hybrid(&self) -> &HybridClock {
        &self.hybrid
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.life().leases
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    pub(crate) fn doubt(&self) -> &Doubt {
        &self.doubt
    }

    pub(crate) fn hints(&self) -> &Hints {
        &self.hints
    }

    pub(crate) fn scrubbed(&self) -> &Scrubbed {
        &self.scrubbed
    }

    pub(crate) fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    pub(crate) fn hedge(&self) -> &Hedge {
        &self.hedge
    }

    pub(crate) fn measured(&self) -> &Measurements {
        &self.measured
    }

    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }

    pub(crate) fn traces(&self) -> &Traces {
        &self.traces
    }

    pub(crate) fn repair(&self) -> &Repair {
        &self.repair
    }

    pub(crate) fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Waits at some steps of moves when it is commanded to.
    pub fn obey(&self, faults: Arc<Faults>) {
        self.moves.obey(faults);
    }

    /// It may be broken on purpose, by whoever may command that. For the node's life.
    pub fn allow_faults(&self, standing: Arc<StandingFaults>) {
        let _ = self.standing_faults.set(standing);
    }

    /// What it was told to bear; none if it may not be broken.
    pub(crate) fn standing_faults(&self) -> Option<&Arc<StandingFaults>> {
        self.standing_faults.get()
    }

    /// Begins no comparisons with other owners until told otherwise. For tests that look at hints or reads alone.
    pub fn hold_exchange(&self, held: bool) {
        self.repair.hold(held);
    }

    /// The root of the tree of a partition's buckets with so many copies; none if this node does not keep it. For tests: it
    /// must be what the digests on the disk say.
    pub fn root(&self, partition: Partition, n: u8) -> Option<u64> {
        self.repair.trees.root(TreeName { partition, n })
    }

    pub(crate) fn headroom(&self) -> &Headroom {
        &self.headroom
    }

    /// Whether a change may be made here: the storage works, and there is room.
    ///
    /// # Errors
    /// The refusal; nothing was done.
    pub(crate) fn takes_writes(&self) -> Result<(), Failure> {
        self.disk
            .takes_writes()
            .map_err(|error| Failure::refused(ErrorCode::Stopping, error.to_string()))?;
        self.headroom.check()
    }

    /// A place among the read repairs under way, if there is one left.
    pub(crate) fn room_to_mend(&self) -> Option<OwnedSemaphorePermit> {
        self.mends.clone().try_acquire_owned().ok()
    }

    pub(crate) fn count_write(&self) {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_read(&self) {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_repair(&self) {
        self.counts.repaired.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_corrupt(&self) {
        self.counts.corrupt.fetch_add(1, Ordering::Relaxed);
    }

    /// What the values of a bucket are; none for a bucket that this node has not heard of.
    pub(crate) fn kind_of(&self, bucket: BucketId) -> Option<Kind> {
        self.buckets.known(bucket).map(|entry| entry.definition.kind)
    }

    /// A state of a key of this bucket, as another node has sent it; none if the bytes are anything else.
    pub(crate) fn decoded(&self, bucket: BucketId, state: &Bytes) -> Option<State> {
        let decoded = State::decode(state).ok()?;
        (Some(decoded.kind()) == self.kind_of(bucket)).then_some(decoded)
    }

    /// The envelope of a message of ours about the default bucket.
    pub(crate) fn envelope(&self, deadline: Instant, operation: u128) -> Envelope {
        let bucket = BucketId::default_bucket(self.view().bucket_n());
        self.envelope_for(deadline, operation, bucket)
    }

    /// The envelope of a message of ours, with the time that is left now.
    pub(crate) fn envelope_for(
        &self,
        deadline: Instant,
        operation: u128,
        bucket: BucketId,
    ) -> Envelope {
        let left = deadline.saturating_duration_since(self.clock.now());
        Envelope {
            epoch: self.epoch(),
            left_ms: u32::try_from(left.as_millis()).unwrap_or(TIMEOUT_MS_MAX),
            operation,
            bucket,
            trace: false,
            role: Role::Node,
        }
    }

    /// Runs something in the background, until it ends or the node does.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().expect("no panic holds it");
        if tasks.stopped {
            return;
        }
        let number = tasks.next;
        tasks.next += 1;
        let node = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            work.await;
            if let Some(node) = node.upgrade() {
                node.tasks.lock().expect("no panic holds it").running.remove(&number);
            }
        });
        tasks.running.insert(number, task.abort_handle());
    }
}
