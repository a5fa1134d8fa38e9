//! One node: its parts, and which of them a request goes to.
//!
//! [`Node`] only holds and routes. Whoever builds one brings the parts that touch the world ([`Parts`]): transport, disk,
//! clock. The same node runs over QUIC with a thread for its disk, and in one thread over a network in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use atoll_antientropy::{Actor, Secret, Standing};
use atoll_ring::{ClusterId, Epoch, NodeId, Partition, View};
use atoll_transport::{Answer, Caller, CertificateState, Handler, Transport};
use atoll_wire::{
    Ack, BucketId, Envelope, ErrorCode, Failure, NodeStatus, Pong, Reply, Request, Role, Roots,
    ViewReply, limits::TIMEOUT_MS_MAX,
};
use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::AbortHandle,
    time::Instant,
};

use crate::{
    Clock,
    canary::{self, Canary},
    coordinate::{
        get::get,
        write::{Change, What, write},
    },
    doubt::Doubt,
    dump,
    headroom::{self, Headroom},
    hedge::Hedge,
    hints::{self, HintLimits, Hints},
    leases::Leases,
    liveness::{self, Liveness},
    memory::Memory,
    repair::{
        self, Repair, quarantine,
        scrub::{self, Scrubbed},
    },
    replica, rise,
    storage::{Space, StoreError, Write, commit::Disk, meta, rows},
};

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
    began: Began,
    past: Past,
    /// As whom it serves; nothing before it may.
    life: OnceLock<Life>,
    /// What it waits for until then.
    rising: Mutex<String>,
    view: RwLock<Arc<View>>,
    secret: Secret,
    transport: Arc<dyn Transport>,
    disk: Arc<Disk>,
    clock: Arc<dyn Clock>,
    certificate: Arc<CertificateState>,
    memory: Memory,
    headroom: Headroom,
    doubt: Doubt,
    hints: Hints,
    scrubbed: Scrubbed,
    liveness: Liveness,
    hedge: Hedge,
    repair: Repair,
    mends: Arc<Semaphore>,
    started: Instant,
    counts: Counts,
    tasks: Mutex<Tasks>,
}

/// What a node needs to make events.
struct Life {
    standing: Standing,
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

/// Until when an answer is of use, and what it belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Due {
    pub(crate) deadline: Instant,
    pub(crate) operation: u128,
    pub(crate) bucket: BucketId,
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
        let scrub_period = parts.scrub_period;
        let Parts {
            id, view, secret, transport, disk, clock, hint_limits, certificate, past, ..
        } = parts;
        let member = view.member(id).expect("whoever builds a node has looked it up");
        let past = match (past, disk.lost()) {
            (Past::Lost(why), _) => Past::Lost(why),
            (Past::None | Past::Whole, Some(why)) => Past::Lost(why.into()),
            (past @ (Past::None | Past::Whole), None) => past,
        };
        let (began, past) = begin(&disk, &view, member.incarnation, past).await?;
        let others: Vec<NodeId> =
            view.members().iter().map(|member| member.id).filter(|other| *other != id).collect();
        let repair = Repair::open(disk.clone(), &secret, &view, id, clock.now())?;
        let node = Arc::new(Node {
            id,
            began,
            past,
            life: OnceLock::new(),
            rising: Mutex::new("starts".into()),
            memory: Memory::open(id, &view, disk.clone())?,
            view: RwLock::new(view),
            secret,
            transport,
            headroom: Headroom::of(disk.clone()),
            doubt: Doubt::open(disk.clone(), clock.now())?,
            hints: Hints::open(disk.clone(), hint_limits)?,
            scrubbed: Scrubbed::default(),
            liveness: Liveness::of(others.iter().copied()),
            hedge: Hedge::default(),
            repair,
            mends: Arc::new(Semaphore::new(MENDS_MAX)),
            started: clock.now(),
            disk,
            clock,
            certificate,
            counts: Counts::default(),
            tasks: Mutex::default(),
        });
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
        let unclean_starts = self.began.unclean_starts;
        // roles do not change while the view is fixed
        let standing = Standing { actor, unclean_starts, role_changes: 0 };
        let leases = Leases::open(actor, self.disk.clone())?;
        let first = self.life.set(Life { standing, leases }).is_ok();
        assert!(first, "a node rises once");
        for other in self.others() {
            self.spawn(hints::deliver(self.clone(), other));
            self.spawn(repair::exchange::compare_with(self.clone(), other));
        }
        self.spawn(repair::trees::grow(self.clone()));
        self.spawn(quarantine::watch(self.clone()));
        Ok(())
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
        self.life.get().map(|life| life.standing.actor)
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

    pub(crate) fn standing(&self) -> &Standing {
        &self.life().standing
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

    pub(crate) fn leases(&self) -> &Leases {
        &self.life().leases
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
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

    pub(crate) fn repair(&self) -> &Repair {
        &self.repair
    }

    /// Begins no comparisons with other owners until told otherwise. For tests that look at hints or reads alone.
    pub fn hold_exchange(&self, held: bool) {
        self.repair.hold(held);
    }

    /// The root of a partition's tree; none if this node does not own the partition. For tests: it must be what the
    /// digests on the disk say.
    pub fn root(&self, partition: Partition) -> Option<u64> {
        self.repair.trees.root(partition)
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

    /// The envelope of a message of ours about the default bucket.
    pub(crate) fn envelope(&self, deadline: Instant, operation: u128) -> Envelope {
        let bucket = BucketId::default_bucket(self.view().replicas());
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

    fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.id.0,
            incarnation: self.incarnation(),
            epoch: self.epoch().0,
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: u64::try_from((self.clock.now() - self.started).as_millis()).unwrap_or(0),
            wall_ms: self.clock.wall_ms(),
            resident_bytes: resident_bytes(),
            cpu_micros: cpu_micros(),
            keys: self.disk.rows(Space::Data),
            disk_bytes: self.disk.disk_bytes(),
            free_bytes: self.headroom.free_bytes(),
            read_only: self.headroom.read_only(),
            certificate_expires_ms: self.certificate.expires_ms(),
            certificate_problem: self.certificate.problem(),
            durable_sequence: self.disk.commit().sequence,
            rising: self.rising(),
            doubt: self.doubt.why(),
            partitions_in_doubt: u32::try_from(self.doubt.partitions().len()).unwrap_or(u32::MAX),
            keys_in_doubt: self.doubt.key_count() as u64,
            tombstones: self.repair.trees.tombstones(),
            scrubbed: self.scrubbed.rows(),
            scrubs: self.scrubbed.scrubs(),
            hints: self.hints.total(),
            hint_bytes: self.hints.bytes(),
            hints_refused: self.hints.refused(),
            corrupt_records: self.counts.corrupt.load(Ordering::Relaxed),
            repaired: self.counts.repaired.load(Ordering::Relaxed),
            exchanged: self.repair.exchanged(),
            compared_ms_ago: self.repair.compared_ms_ago(self),
            writes: self.counts.writes.load(Ordering::Relaxed),
            reads: self.counts.reads.load(Ordering::Relaxed),
            hedges: self.hedge.sent(),
            peers: self.liveness.status(|peer| self.hints.count(peer)),
        }
    }

    /// Answers a question of a comparison that a peer leads.
    fn compare(&self, caller: Caller, envelope: &Envelope, request: &Request) -> Reply {
        let Some(peer) = caller.node else {
            let detail = "only a node compares, and it says who it is";
            return failed(Failure::refused(ErrorCode::NotPermitted, detail));
        };
        match request {
            Request::CompareRoots(asked) => repair::answer::roots(self, peer, envelope, asked),
            Request::Compare(asked) => repair::answer::places(self, peer, envelope, asked),
            Request::Entries(asked) => repair::answer::entries(self, peer, envelope, asked),
            _ => unreachable!("these three are given to us"),
        }
    }

    /// The refusal of a node that does not serve yet.
    fn not_yet(&self) -> Failure {
        let detail = format!("{} is starting: {}", self.id, self.rising());
        Failure { retry_after_ms: 1000, ..Failure::refused(ErrorCode::Rising, detail) }
    }

    /// Whether a member speaks of itself.
    fn is_about(&self, caller: &Caller, node: u32) -> bool {
        let node = NodeId(node);
        caller.node == Some(node) && node != self.id && self.view().member(node).is_some()
    }

    /// Refuses requests of other times: planned before the partition last changed, or already over.
    fn admit(&self, envelope: &Envelope, key: &[u8]) -> Result<(), Failure> {
        if envelope.left_ms == 0 {
            let detail = "the time of the request was over when it arrived";
            return Err(Failure::refused(ErrorCode::DeadlinePassed, detail));
        }
        let view = self.view();
        let token = atoll_ring::Token::of(&envelope.bucket.0, key);
        let changed = view.last_changed(view.partition(token));
        // 0 = the sender has no view yet and leaves the planning to us
        if envelope.epoch < changed && envelope.epoch != Epoch(0) {
            let detail = format!("planned at epoch {}, changed at {changed}", envelope.epoch.0);
            return Err(Failure::refused(ErrorCode::StaleView, detail));
        }
        Ok(())
    }
}

impl Handler for Node {
    fn node(&self) -> NodeId {
        self.id
    }

    fn cluster(&self) -> ClusterId {
        self.view().cluster()
    }

    fn epoch(&self) -> Epoch {
        self.view().epoch()
    }

    fn handle(self: Arc<Self>, caller: Caller, envelope: Envelope, request: Request) -> Answer {
        if let Some(peer) = caller.node
            && !self.liveness.is_up(peer)
        {
            self.transport.heard_from(peer);
        }
        let left = Duration::from_millis(u64::from(envelope.left_ms.min(TIMEOUT_MS_MAX)));
        let now = self.clock.now();
        let due =
            Due { deadline: now + left, operation: envelope.operation, bucket: envelope.bucket };
        // what a node answers before it knows what it may say; the rest waits
        let at_any_time = matches!(
            request,
            Request::Hello(_)
                | Request::Ping(_)
                | Request::View(_)
                | Request::Status(_)
                | Request::Recall(_)
        );
        if !at_any_time && self.life.get().is_none() {
            return Answer::Now(failed(self.not_yet()));
        }
        if envelope.operation != 0 {
            self.repair.served(now); // what nodes ask for themselves has no number
        }
        let key = match &request {
            Request::Put(put) => &put.key,
            Request::Get(get) => &get.key,
            Request::Delete(delete) => &delete.key,
            Request::Replicate(replicate) => &replicate.key,
            Request::Fetch(fetch) => &fetch.key,
            Request::Ping(ping) => {
                if caller.node == Some(NodeId(ping.node)) {
                    self.memory.heard(NodeId(ping.node), ping.incarnation, ping.commit);
                }
                let Some(actor) = self.actor() else {
                    return Answer::Now(failed(self.not_yet())); // so that nobody counts on us
                };
                let mut roots = Roots::default();
                if let Some(peer) = caller.node {
                    self.repair.heard(&self, peer, ping.roots);
                    roots = self.repair.roots(&self, peer);
                }
                return Answer::Now(Reply::Pong(Pong {
                    node: self.id.0,
                    incarnation: actor.incarnation,
                    commit: self.memory.to_tell(NodeId(ping.node)),
                    roots,
                }));
            }
            Request::Recall(recall) if self.is_about(&caller, recall.node) => {
                let recalled = self.memory.recall(NodeId(recall.node), self.actor().is_some());
                return Answer::Now(Reply::Recalled(recalled));
            }
            Request::Enrol(enrol) if self.is_about(&caller, enrol.node) => {
                let (node, incarnation) = (NodeId(enrol.node), enrol.incarnation);
                return Answer::Later(Box::pin(async move {
                    match self.memory.enrol(node, incarnation).await {
                        Ok(enrolled) => Reply::Enrolled(enrolled),
                        Err(error) => failed(replica::stopping(&error)),
                    }
                }));
            }
            Request::Recall(_) | Request::Enrol(_) => {
                let detail = "members ask for themselves only";
                return Answer::Now(failed(Failure::refused(ErrorCode::NotPermitted, detail)));
            }
            Request::View(_) => {
                let view = postcard::to_stdvec(&*self.view()).expect("a view is plain data");
                return Answer::Now(Reply::View(ViewReply { view: view.into() }));
            }
            Request::Status(_) => {
                // nobody shall take a node for ready whose process is about to end
                return Answer::Now(match self.disk.takes_writes() {
                    Ok(()) => Reply::Status(Box::new(self.status())),
                    Err(error) => failed(replica::stopping(&error)),
                });
            }
            Request::Dump(request) => return Answer::Now(dump::dump(&self, request)),
            Request::RepairStatus(_) => {
                return Answer::Now(Reply::RepairStatus(self.repair.report(&self)));
            }
            Request::RepairRun(run) => {
                return Answer::Now(Reply::RepairRun(
                    self.repair.run(run.partition.map(Partition)),
                ));
            }
            Request::CompareRoots(_) | Request::Compare(_) | Request::Entries(_) => {
                return Answer::Now(self.compare(caller, &envelope, &request));
            }
            Request::Hello(_) => {
                let detail = "a hello begins a lane, nothing else";
                return Answer::Now(failed(Failure::refused(ErrorCode::Malformed, detail)));
            }
        };
        if let Err(failure) = self.admit(&envelope, key) {
            return Answer::Now(failed(failure));
        }
        match request {
            Request::Put(put) => {
                let change = Change {
                    key: put.key,
                    context: put.context,
                    quorum: put.quorum,
                    hops: put.hops,
                    what: What::Put(put.value),
                };
                Answer::Later(Box::pin(write(self, change, due)))
            }
            Request::Delete(delete) => {
                let change = Change {
                    key: delete.key,
                    context: delete.context,
                    quorum: delete.quorum,
                    hops: delete.hops,
                    what: What::Delete,
                };
                Answer::Later(Box::pin(write(self, change, due)))
            }
            Request::Get(request) => Answer::Later(Box::pin(get(self, request, due))),
            Request::Fetch(fetch) => replica::fetch(&self, &envelope, &fetch),
            Request::Replicate(request) => {
                Answer::Later(Box::pin(replica::replicate(self, envelope, request, due.deadline)))
            }
            Request::Hello(_)
            | Request::Ping(_)
            | Request::View(_)
            | Request::Status(_)
            | Request::RepairStatus(_)
            | Request::RepairRun(_)
            | Request::Dump(_)
            | Request::Recall(_)
            | Request::Enrol(_)
            | Request::CompareRoots(_)
            | Request::Compare(_)
            | Request::Entries(_) => unreachable!("answered above"),
        }
    }
}

/// A failure as a reply.
pub(crate) fn failed(failure: Failure) -> Reply {
    Reply::Failed(Box::new(failure))
}

/// What a node knew of itself when it started.
struct Began {
    incarnation: u32,
    unclean_starts: u64,
}

/// Counts a start that follows no orderly stop, and makes this start count likewise until it is stopped. The view is
/// kept, so that the file it came from is needed only once. So is a loss, until there is a new incarnation: the commits
/// of this start would hide it from the next one.
async fn begin(
    disk: &Disk,
    view: &View,
    incarnation_of_view: u32,
    past: Past,
) -> Result<(Began, Past), StoreError> {
    let names = [rows::CLEAN, rows::UNCLEAN_STARTS, rows::VIEW, rows::INCARNATION, rows::LOST];
    let [clean, starts, kept_view, own, lost] = names.map(Bytes::from_static);
    let read = |row: &Bytes| match disk.get(Space::Meta, row)? {
        Some(value) => meta::open(row, &value).map(Some),
        None => Ok(None),
    };
    let clean_before = read(&clean)?.is_some();
    let before = match disk.get(Space::Meta, &starts)? {
        Some(value) => meta::open_number(&starts, &value)?,
        None => 0,
    };
    let clean_before = clean_before || canary::is_on(Canary::TrustOldNotes);
    let incarnation = match read(&own)? {
        Some(bytes) => u32::from_be_bytes(bytes.as_ref().try_into().map_err(|_| {
            StoreError(format!("the row of the incarnation holds {} bytes, not 4", bytes.len()))
        })?),
        None => incarnation_of_view,
    };
    let past = match read(&lost)? {
        Some(why) => Past::Lost(String::from_utf8_lossy(&why).into_owned()),
        None => past,
    };
    let unclean_starts = if clean_before { before } else { before + 1 };
    let view = postcard::to_stdvec(view).expect("a view is plain data");
    let mut writes = vec![
        Write { space: Space::Meta, row: clean, value: None },
        meta::write_number(starts, unclean_starts),
        meta::write(kept_view, &view),
    ];
    if let Past::Lost(why) = &past {
        writes.push(meta::write(lost, why.as_bytes()));
    }
    disk.write(writes, Ack::Durable).done().await?;
    Ok((Began { incarnation: incarnation.max(incarnation_of_view), unclean_starts }, past))
}

/// Resident memory of this process, where the system tells.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

/// Processor time of this process, where the system tells: user and system time, in the hundredths of a second that Linux
/// counts in for all its users.
fn cpu_micros() -> u64 {
    const TICK_MICROS: u64 = 10_000;
    let Ok(text) = std::fs::read_to_string("/proc/self/stat") else { return 0 };
    // the program's name, in brackets, may hold blanks; user and system time are the 12th and 13th word behind it
    let Some((_, words)) = text.rsplit_once(')') else { return 0 };
    let times = words.split_whitespace().skip(11).take(2);
    times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * TICK_MICROS
}
