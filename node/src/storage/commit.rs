//! Group commit: writes wait together for one sync, and nothing is acknowledged before it.
//!
//! [`Disk::write`] queues a batch and returns at once; from then on reads through the [`Disk`] see it, so the next turn
//! of a key need not wait for the disk. One writer takes whatever is queued, applies it as one batch under the next
//! commit number, syncs once, and wakes everybody whose writes that covered. While it syncs the next group gathers; a busy
//! writer gives it half a millisecond more.
//!
//! The writer is a thread in a real node ([`Disk::on_thread`]) and a task on virtual time in a simulated one
//! ([`Disk::on_task`]). Applying, syncing and acknowledging are the same code; only the thread lingers. After the first
//! error it never touches the store again: every waiting and later write fails, and the node stops.
//!
//! Commits are chained: each carries its number and a fingerprint of itself and all before it. A copy of the last one is
//! kept outside the store ([`DurableMark`]), so a store that has lost its newest commits, or was exchanged for an older
//! one, is noticed when it is opened ([`Disk::lost`]). The engine notices neither.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use atoll_wire::{Ack, Commit};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    Room, Space, Store, StoreError, Write,
    mark::{self, DurableMark},
    meta, rows,
};
use crate::canary::{self, Canary};

mod queued;

/// Batches that share one sync. Enough that the sync is a small part of the cost; few enough that memory stays small.
const GROUP_MAX: usize = 1024;

/// After a group of so many batches the next one is given [`LINGER`] to gather. A lone writer never waits.
const BUSY_FROM: usize = 3;

/// How long a busy writer lets the next group gather before it applies it.
const LINGER: Duration = Duration::from_micros(500);

/// Bytes that may be queued. Past that the node answers `overloaded`.
pub const QUEUED_BYTES_MAX: usize = 64 << 20;

/// The store of a node with its writer.
pub struct Disk {
    shared: Arc<Shared>,
    queue: Mutex<Option<mpsc::UnboundedSender<Queued>>>,
    found: Commit,
    lost: Option<String>,
}

struct Shared {
    store: Arc<dyn Store>,
    /// Rows that shall go with the next commit, whenever there is one.
    riders: Mutex<BTreeMap<Bytes, Write>>,
    /// What is queued and not yet applied: reads look here first.
    ahead: Mutex<HashMap<(Space, Bytes), Ahead>>,
    queued_bytes: AtomicUsize,
    /// Bytes ever queued.
    taken_bytes: AtomicU64,
    /// Numbers of queued batches: the last one given, and the last one that is durable.
    last_given: AtomicU64,
    last_durable: AtomicU64,
    /// The last commit on stable storage.
    fsynced: Mutex<Commit>,
    mark: Option<DurableMark>,
    failure: OnceLock<StoreError>,
    failed: Notify,
}

/// The number of the newest queued write of a row, and what it shall hold.
type Ahead = (u64, Option<Bytes>);

struct Queued {
    number: u64,
    writes: Vec<Write>,
    written: Option<oneshot::Sender<()>>,
    durable: Option<oneshot::Sender<()>>,
}

/// Waits until a write has come as far as was asked.
pub struct Ticket {
    state: Wait,
    shared: Arc<Shared>,
}

enum Wait {
    Done,
    For(oneshot::Receiver<()>),
}

impl Ticket {
    /// Waits.
    ///
    /// # Errors
    /// The storage failed; whether the write is there nobody knows.
    pub async fn done(self) -> Result<(), StoreError> {
        match self.state {
            Wait::Done => Ok(()),
            Wait::For(receiver) => receiver.await.map_err(|_| self.shared.failure()),
        }
    }
}

impl Disk {
    /// A disk whose writer is a thread of its own.
    ///
    /// # Errors
    /// The commit number cannot be read, or there is no thread to be had.
    pub fn on_thread(
        store: Arc<dyn Store>,
        mark: Option<DurableMark>,
    ) -> Result<(Self, std::thread::JoinHandle<()>), StoreError> {
        let (disk, mut queue) = Self::new(store, mark)?;
        let shared = disk.shared.clone();
        let writer = std::thread::Builder::new()
            .name("atoll-commit".into())
            .spawn(move || {
                let mut busy = false;
                while let Some(first) = queue.blocking_recv() {
                    if busy {
                        std::thread::sleep(LINGER);
                    }
                    let group = gather(first, &mut queue);
                    busy = group.len() >= BUSY_FROM;
                    if shared.apply(group).and_then(|applied| shared.settle(applied)).is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| StoreError(error.to_string()))?;
        Ok((disk, writer))
    }

    /// A disk whose writer is a task, and whose sync takes this long by the runtime's clock.
    ///
    /// # Errors
    /// The commit number cannot be read.
    pub fn on_task(
        store: Arc<dyn Store>,
        sync_takes: impl Into<Pace>,
        mark: Option<DurableMark>,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), StoreError> {
        let (disk, mut queue) = Self::new(store, mark)?;
        let pace = sync_takes.into();
        let shared = disk.shared.clone();
        let writer = tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                let group = gather(first, &mut queue);
                let Ok(applied) = shared.apply(group) else { return };
                tokio::time::sleep(pace.sync_takes()).await;
                if shared.settle(applied).is_err() {
                    return;
                }
            }
        });
        Ok((disk, writer))
    }

    fn new(
        store: Arc<dyn Store>,
        mark: Option<DurableMark>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Queued>), StoreError> {
        let found = match store.get(Space::Meta, rows::SEQUENCE)? {
            Some(value) => meta::open_commit(rows::SEQUENCE, &value)?,
            None => Commit::default(),
        };
        let lost = mark.as_ref().and_then(|mark| mark::behind(found, mark.read()));
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            store,
            riders: Mutex::default(),
            ahead: Mutex::default(),
            queued_bytes: AtomicUsize::new(0),
            taken_bytes: AtomicU64::new(0),
            last_given: AtomicU64::new(0),
            last_durable: AtomicU64::new(0),
            fsynced: Mutex::new(found),
            mark,
            failure: OnceLock::new(),
            failed: Notify::new(),
        });
        Ok((Disk { shared, queue: Mutex::new(Some(sender)), found, lost }, receiver))
    }

    /// The value of a row, queued writes included.
    ///
    /// # Errors
    /// The engine failed; the node stops.
    pub fn get(&self, space: Space, row: &Bytes) -> Result<Option<Bytes>, StoreError> {
        let ahead = self.shared.ahead.lock().expect("no panic holds it");
        if let Some((_, value)) = ahead.get(&(space, row.clone())) {
            return Ok(value.clone());
        }
        drop(ahead);
        self.shared.store.get(space, row).inspect_err(|error| self.shared.fail(error.clone()))
    }

    /// Applied rows whose name begins with `prefix`, after `after`; what is only queued is not among them.
    ///
    /// # Errors
    /// The engine failed; the node stops.
    pub fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let rows = self.shared.store.scan(space, prefix, after, limit);
        rows.inspect_err(|error| self.shared.fail(error.clone()))
    }

    /// Queues writes that belong together; the ticket is good when they are as far as `ack` says.
    pub fn write(&self, writes: Vec<Write>, ack: Ack) -> Ticket {
        let shared = &self.shared;
        let (sender, receiver) = oneshot::channel();
        let number = shared.last_given.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes: usize = writes.iter().map(Write::bytes).sum();
        shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        shared.taken_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        {
            let mut ahead = shared.ahead.lock().expect("no panic holds it");
            for write in &writes {
                let name = (write.space, write.row.clone());
                ahead.insert(name, (number, write.value.clone()));
            }
        }
        let (written, durable) = match ack {
            Ack::Written => (Some(sender), None),
            Ack::Durable => (None, Some(sender)),
        };
        let queued = Queued { number, writes, written, durable };
        if shared.failure.get().is_none()
            && let Some(queue) = &*self.queue.lock().expect("no panic holds it")
        {
            let _ = queue.send(queued); // the writer has ended: the ticket finds out
        }
        Ticket { state: Wait::For(receiver), shared: shared.clone() }
    }

    /// Lets a row of the node's own go with the next commit, whenever there is one: nobody waits for it, and it is no
    /// reason for a sync. A newer one takes its place. [`Disk::get`] does not see it before.
    pub fn along(&self, write: Write) {
        self.shared.riders.lock().expect("no panic holds it").insert(write.row.clone(), write);
    }

    /// Whether what is written now will be kept, as far as one can know beforehand.
    ///
    /// # Errors
    /// The storage has failed, or no more writes are taken.
    pub fn takes_writes(&self) -> Result<(), StoreError> {
        let open = self.queue.lock().expect("no panic holds it").is_some();
        if open && self.shared.failure.get().is_none() {
            Ok(())
        } else {
            Err(self.shared.failure())
        }
    }

    /// A ticket for everything queued so far to be durable.
    pub fn settled(&self) -> Ticket {
        let last_given = self.shared.last_given.load(Ordering::Relaxed);
        if self.shared.last_durable.load(Ordering::Acquire) >= last_given {
            return Ticket { state: Wait::Done, shared: self.shared.clone() };
        }
        self.write(Vec::new(), Ack::Durable)
    }

    /// Whether the queue has no room for more.
    pub fn is_full(&self) -> bool {
        self.shared.queued_bytes.load(Ordering::Relaxed) > QUEUED_BYTES_MAX
    }

    /// The last commit on stable storage.
    pub fn commit(&self) -> Commit {
        *self.shared.fsynced.lock().expect("no panic holds it")
    }

    /// The last commit that was found when the store was opened.
    pub fn found(&self) -> Commit {
        self.found
    }

    /// What the mark beside the store says that it has lost, for people.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// About how many rows.
    pub fn rows(&self, space: Space) -> u64 {
        self.shared.store.rows(space)
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.store.disk_bytes()
    }

    /// How much still fits on the file system, as of now; `None` where nobody can tell. What is queued counts as free.
    pub fn room(&self) -> Option<Room> {
        self.shared.store.room()
    }

    /// Bytes that are queued and not yet applied.
    pub fn queued_bytes(&self) -> u64 {
        self.shared.queued_bytes.load(Ordering::Relaxed) as u64
    }

    /// Bytes queued since the start, those that are applied by now included.
    pub fn taken_bytes(&self) -> u64 {
        self.shared.taken_bytes.load(Ordering::Relaxed)
    }

    /// Something was found that makes this store unfit to be served: fails it for good.
    pub fn give_up(&self, error: StoreError) {
        self.shared.fail(error);
    }

    /// Resolves when the storage has failed. Then the node must stop.
    pub async fn failed(&self) -> StoreError {
        loop {
            let failed = self.shared.failed.notified();
            tokio::pin!(failed);
            failed.as_mut().enable();
            if let Some(error) = self.shared.failure.get() {
                return error.clone();
            }
            failed.await;
        }
    }

    /// No more writes; the writer ends when it has settled what is queued.
    pub fn close(&self) {
        self.queue.lock().expect("no panic holds it").take();
    }
}

/// How long a sync takes on a disk whose writer is a task. All clones are the same one, and it may change at any time.
#[derive(Clone, Debug)]
pub struct Pace {
    micros: Arc<AtomicU64>,
}

impl From<Duration> for Pace {
    fn from(sync_takes: Duration) -> Self {
        let pace = Pace { micros: Arc::default() };
        pace.set(sync_takes);
        pace
    }
}

impl Pace {
    /// The next sync takes this long.
    pub fn set(&self, sync_takes: Duration) {
        let micros = u64::try_from(sync_takes.as_micros()).unwrap_or(u64::MAX);
        self.micros.store(micros, Ordering::Relaxed);
    }

    fn sync_takes(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

impl Shared {
    /// Applies a group as one batch under the next commit number.
    fn apply(&self, mut group: Vec<Queued>) -> Result<Applied, StoreError> {
        let before = *self.fsynced.lock().expect("no panic holds it");
        let riders = std::mem::take(&mut *self.riders.lock().expect("no panic holds it"));
        let mut writes: Vec<Write> = riders.into_values().collect(); // first: what is queued may know better
        let ours = writes.len();
        writes.extend(group.iter_mut().flat_map(|queued| std::mem::take(&mut queued.writes)));
        let bytes: usize = writes[ours..].iter().map(Write::bytes).sum();
        let commit = mark::next(before, &writes);
        writes.push(meta::write_commit(Bytes::from_static(rows::SEQUENCE), commit));
        self.store.apply(&writes).inspect_err(|error| self.fail(error.clone()))?;
        let last = group.last().map_or(0, |queued| queued.number);
        {
            let mut ahead = self.ahead.lock().expect("no panic holds it");
            for write in writes {
                let name = (write.space, write.row);
                if ahead.get(&name).is_some_and(|(number, _)| *number <= last) {
                    ahead.remove(&name);
                }
            }
        }
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        for queued in &mut group {
            if let Some(written) = queued.written.take() {
                let _ = written.send(());
            }
        }
        Ok(Applied { commit, group })
    }

    /// Syncs, then acknowledges: in this order, which is the first promise of the store.
    fn settle(&self, Applied { commit, group }: Applied) -> Result<(), StoreError> {
        if !canary::is_on(Canary::SkipFsync) {
            self.store.sync().inspect_err(|error| self.fail(error.clone()))?;
        }
        *self.fsynced.lock().expect("no panic holds it") = commit;
        if let Some(mark) = &self.mark {
            mark.set(commit);
        }
        let last = group.last().map_or(0, |queued| queued.number);
        self.last_durable.store(last, Ordering::Release);
        for queued in group {
            if let Some(durable) = queued.durable {
                let _ = durable.send(());
            }
        }
        Ok(())
    }

    fn fail(&self, error: StoreError) {
        tracing::error!(why = error.0, "stopping"); // also said of a node that was removed, whose storage is well
        let _ = self.failure.set(error);
        self.failed.notify_waiters();
    }

    fn failure(&self) -> StoreError {
        let stopped = || StoreError("the node is stopping".into());
        self.failure.get().cloned().unwrap_or_else(stopped)
    }
}

/// A group that is applied and not yet synced.
struct Applied {
    commit: Commit,
    group: Vec<Queued>,
}

fn gather(first: Queued, queue: &mut mpsc::UnboundedReceiver<Queued>) -> Vec<Queued> {
    let mut group = vec![first];
    while group.len() < GROUP_MAX
        && let Ok(next) = queue.try_recv()
    {
        group.push(next);
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{
        faulty::{Deed, Faults, FaultyStore},
        memory::MemoryStore,
    };

    fn row(name: &'static str, value: &'static str) -> Vec<Write> {
        vec![Write {
            space: Space::Data,
            row: Bytes::from_static(name.as_bytes()),
            value: Some(Bytes::from_static(value.as_bytes())),
        }]
    }

    fn read(disk: &Disk, name: &'static str) -> Option<Bytes> {
        disk.get(Space::Data, &Bytes::from_static(name.as_bytes())).expect("memory")
    }

    /// Removing the sync from `settle` makes this fail: whatever was acknowledged as durable survives the worst crash.
    #[tokio::test(start_paused = true)]
    async fn an_acknowledged_write_survives_a_crash() {
        let store = Arc::new(MemoryStore::new());
        let (disk, _writer) =
            Disk::on_task(store.clone(), Duration::from_millis(2), None).expect("new");
        disk.write(row("a", "1"), Ack::Durable).done().await.expect("memory");
        store.crash(0);
        assert_eq!(read(&disk, "a").as_deref(), Some(&b"1"[..]));
    }

    /// `Written` is less: visible, and gone with the power.
    #[tokio::test(start_paused = true)]
    async fn a_written_write_is_visible_and_may_be_lost() {
        let store = Arc::new(MemoryStore::new());
        let (disk, _writer) =
            Disk::on_task(store.clone(), Duration::from_millis(2), None).expect("new");
        disk.write(row("a", "1"), Ack::Written).done().await.expect("memory");
        assert_eq!(read(&disk, "a").as_deref(), Some(&b"1"[..]));
        store.crash(0);
        assert_eq!(read(&disk, "a"), None);
    }

    /// Reads see a queued write before the writer has touched it, and the newest of several.
    #[tokio::test(start_paused = true)]
    async fn reads_see_what_is_queued() {
        let (disk, _writer) =
            Disk::on_task(Arc::new(MemoryStore::new()), Duration::from_millis(2), None)
                .expect("new");
        let first = disk.write(row("a", "1"), Ack::Durable);
        let second = disk.write(row("a", "2"), Ack::Durable);
        assert_eq!(read(&disk, "a").as_deref(), Some(&b"2"[..]));
        first.done().await.expect("memory");
        second.done().await.expect("memory");
        assert_eq!(read(&disk, "a").as_deref(), Some(&b"2"[..]));
        assert!(disk.shared.ahead.lock().expect("no panic").is_empty(), "nothing is left behind");
    }

    /// A group does not take away what was queued behind it: reads never go back to an older value.
    #[tokio::test(start_paused = true)]
    async fn reads_do_not_go_back_while_a_group_is_applied() {
        let (disk, _writer) =
            Disk::on_task(Arc::new(MemoryStore::new()), Duration::from_millis(2), None)
                .expect("new");
        for _ in 1..GROUP_MAX {
            drop(disk.write(row("a", "1"), Ack::Durable));
        }
        let last_of_group = disk.write(row("a", "1"), Ack::Written);
        let next = disk.write(row("a", "2"), Ack::Durable);
        last_of_group.done().await.expect("memory");
        assert_eq!(read(&disk, "a").as_deref(), Some(&b"2"[..]));
        next.done().await.expect("memory");
        assert_eq!(disk.commit().sequence, 2);
        assert_eq!(read(&disk, "a").as_deref(), Some(&b"2"[..]));
    }

    /// Many writes share one sync.
    #[tokio::test(start_paused = true)]
    async fn writes_gather_while_the_disk_is_busy() {
        let (disk, _writer) =
            Disk::on_task(Arc::new(MemoryStore::new()), Duration::from_millis(2), None)
                .expect("new");
        let tickets: Vec<_> = (0..100).map(|_| disk.write(row("a", "1"), Ack::Durable)).collect();
        for ticket in tickets {
            ticket.done().await.expect("memory");
        }
        assert!(disk.commit().sequence <= 2, "{:?} for 100 writes", disk.commit());
    }

    /// `settled` waits for what was queued before it, and for nothing if there is nothing.
    #[tokio::test(start_paused = true)]
    async fn settled_covers_earlier_writes() {
        let store = Arc::new(MemoryStore::new());
        let (disk, _writer) =
            Disk::on_task(store.clone(), Duration::from_millis(2), None).expect("new");
        disk.settled().done().await.expect("nothing to do");
        assert_eq!(disk.commit().sequence, 0);
        disk.write(row("a", "1"), Ack::Written).done().await.expect("memory");
        disk.settled().done().await.expect("memory");
        store.crash(0);
        assert_eq!(read(&disk, "a").as_deref(), Some(&b"1"[..]));
    }

    /// After the first failure nothing is acknowledged any more, and whoever watches hears it.
    #[tokio::test(start_paused = true)]
    async fn a_failed_sync_is_the_end() {
        let faults = Faults::new();
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), faults.clone()));
        let (disk, _writer) = Disk::on_task(store, Duration::from_millis(2), None).expect("new");
        faults.fail_next(Deed::Sync);
        assert!(disk.write(row("a", "1"), Ack::Durable).done().await.is_err());
        assert_eq!(Some(disk.failed().await), faults.broken());
        assert!(disk.write(row("b", "1"), Ack::Durable).done().await.is_err());
        assert_eq!(faults.count(Deed::Sync), 1, "the store was touched again");
    }
}
