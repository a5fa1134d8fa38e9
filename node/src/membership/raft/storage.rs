//! What a voter keeps of the membership log: its vote, its entries, and the view that they have led to.
//!
//! Everything lies in the node's own store, in rows of the node's own affairs:
//!
//! ```text
//!   meta   raft/id            u64       whose rows these are: node and incarnation
//!          raft/vote          postcard  the vote it gave
//!          raft/log/<index>   postcard  one entry; the index big endian, so that they lie in order
//!          raft/purged        postcard  the last entry that was dropped, because the view has it
//!          raft/applied       postcard  the last entry applied, the voters, and the view
//! ```
//!
//! A vote and an entry are on stable storage before anybody hears of them. The view that an entry makes, the entry itself
//! for `ring history`, and `raft/applied` are one commit of the store. So `raft/applied` is a snapshot at any time, and none
//! is ever written apart.
//!
//! The rows belong to one incarnation of the node. A node that lost memory has another one, and drops what it finds: it may
//! have promised something that is gone.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, OnceLock, Weak},
};

use atoll_ring::{Entry as Passed, Epoch, Rejected, View};
use atoll_wire::Ack;
use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::{
    EmptyNode, EntryPayload, ErrorSubject, ErrorVerb, LogState, OptionalSend, RaftLogReader,
    RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError,
    storage::{LogFlushed, RaftLogStorage, RaftStateMachine},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Group, Line, LogId, Member, RaftEntry, StoredMembership, Vote};
use crate::{
    Node,
    storage::{Space, StoreError, Write, commit::Disk, meta},
};

const RAFT: &[u8] = b"raft/";
const ID: &[u8] = b"raft/id";
const VOTE: &[u8] = b"raft/vote";
const LOG: &[u8] = b"raft/log/";
const PURGED: &[u8] = b"raft/purged";
const APPLIED: &[u8] = b"raft/applied";

/// What lies on the disk, in memory too: the log is short, since it is cut whenever the view has outrun it.
pub(super) struct Kept {
    disk: Arc<Disk>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, RaftEntry>,
}

/// How far the log is applied, and what has come of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) last: Option<LogId>,
    pub(super) voters: StoredMembership,
    /// None before the log's first line.
    #[serde(with = "packed")]
    pub(super) view: Option<Arc<View>>,
}

/// A view in few bytes; none are no view.
mod packed {
    use std::sync::Arc;

    use atoll_ring::View;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    pub(super) fn pack(view: Option<&Arc<View>>) -> Vec<u8> {
        view.map_or_else(Vec::new, |view| view.encode())
    }

    pub(super) fn unpack(bytes: &[u8]) -> Result<Option<Arc<View>>, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        View::decode(bytes).map(|view| Some(Arc::new(view))).map_err(|error| error.to_string())
    }

    pub(super) fn serialize<S: Serializer>(
        view: &Option<Arc<View>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        pack(view.as_ref()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<View>>, D::Error> {
        unpack(&Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Kept {
    /// What this member has kept; nothing, if the rows are those of another incarnation.
    pub(super) async fn open(
        disk: Arc<Disk>,
        me: Member,
    ) -> Result<(Arc<Self>, Applied), StoreError> {
        disk.settled().done().await?; // a scan does not see what is queued
        let rows = disk.scan(Space::Meta, RAFT, None, usize::MAX)?;
        let id = Bytes::from_static(ID);
        let whose = match rows.iter().find(|(row, _)| row == ID) {
            Some((row, sealed)) => Some(meta::open_number(row, sealed)?),
            None => None,
        };
        let mut state = State::default();
        let mut applied = Applied::default();
        if whose == Some(me.0) {
            for (row, sealed) in rows {
                let value = meta::open(&row, &sealed)?;
                match &row[..] {
                    ID => {}
                    VOTE => state.vote = Some(read(&row, &value)?),
                    PURGED => state.purged = Some(read(&row, &value)?),
                    APPLIED => applied = read(&row, &value)?,
                    _ => {
                        let entry: RaftEntry = read(&row, &value)?;
                        state.entries.insert(entry.log_id.index, entry);
                    }
                }
            }
        } else {
            let gone = rows.into_iter().map(|(row, _)| removed(row));
            let mut writes: Vec<Write> = gone.collect();
            writes.push(meta::write_number(id, me.0));
            disk.write(writes, Ack::Durable).done().await?;
        }
        Ok((Arc::new(Kept { disk, state: Mutex::new(state) }), applied))
    }

    /// It has never voted, and knows no entry.
    pub(super) fn is_blank(&self) -> bool {
        let state = self.state();
        state.vote.is_none() && state.purged.is_none() && state.entries.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.disk.write(writes, Ack::Durable).done().await
    }
}

/// The rows of a log that goes on from this state with this member as its only voter: what `cluster recover` writes.
pub(super) fn begin_alone(
    disk: &Disk,
    me: Member,
    applied: &Applied,
) -> Result<Vec<Write>, StoreError> {
    let old = disk.scan(Space::Meta, RAFT, None, usize::MAX)?;
    let mut writes: Vec<Write> = old.into_iter().map(|(row, _)| removed(row)).collect();
    writes.push(meta::write_number(Bytes::from_static(ID), me.0));
    let last = applied.last.expect("whoever goes on knows from where");
    writes.push(kept(VOTE, &Vote::new(last.leader_id.term, me.0)));
    writes.push(kept(PURGED, &last));
    writes.push(kept(APPLIED, applied));
    Ok(writes)
}

/// The highest term and index that a node's rows speak of, whoever they belong to.
pub(super) fn highest(disk: &Disk) -> Result<(u64, u64), StoreError> {
    let (mut term, mut index) = (0, 0);
    for (row, sealed) in disk.scan(Space::Meta, RAFT, None, usize::MAX)? {
        let value = meta::open(&row, &sealed)?;
        let at = match &row[..] {
            ID => None,
            VOTE => {
                term = term.max(read::<Vote>(&row, &value)?.leader_id().term);
                None
            }
            PURGED => Some(read::<LogId>(&row, &value)?),
            APPLIED => read::<Applied>(&row, &value)?.last,
            _ => Some(read::<RaftEntry>(&row, &value)?.log_id),
        };
        if let Some(at) = at {
            term = term.max(at.leader_id.term);
            index = index.max(at.index);
        }
    }
    Ok((term, index))
}

fn kept<T: Serialize>(row: &'static [u8], value: &T) -> Write {
    let bytes = postcard::to_stdvec(value).expect("plain data");
    meta::write(Bytes::from_static(row), &bytes)
}

fn row_of(index: u64) -> Bytes {
    let mut row = BytesMut::from(LOG);
    row.put_u64(index);
    row.freeze()
}

fn removed(row: Bytes) -> Write {
    Write { space: Space::Meta, row, value: None }
}

fn read<T: DeserializeOwned>(row: &[u8], value: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(value).map_err(|error| {
        StoreError(format!("the row {} cannot be read: {error}", row.escape_ascii()))
    })
}

fn failed(subject: ErrorSubject<u64>, verb: ErrorVerb, error: &StoreError) -> StorageError<u64> {
    StorageIOError::new(subject, verb, openraft::AnyError::new(error)).into()
}

/// The log and the vote, as openraft sees them.
#[derive(Clone)]
pub(super) struct LogStore(pub(super) Arc<Kept>);

impl RaftLogReader<Group> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<RaftEntry>, StorageError<u64>> {
        Ok(self.0.state().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Group> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Group>, StorageError<u64>> {
        let state = self.0.state();
        let last = state.entries.values().next_back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: last.or(state.purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError<u64>> {
        let written = self.0.write(vec![kept(VOTE, vote)]).await;
        written.map_err(|error| failed(ErrorSubject::Vote, ErrorVerb::Write, &error))?;
        self.0.state().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError<u64>> {
        Ok(self.0.state().vote)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: LogFlushed<Group>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut writes = Vec::new();
        {
            let mut state = self.0.state();
            for entry in entries {
                let index = entry.log_id.index;
                let bytes = postcard::to_stdvec(&entry).expect("plain data");
                writes.push(meta::write(row_of(index), &bytes));
                state.entries.insert(index, entry);
            }
        }
        match self.0.write(writes).await {
            Ok(()) => {
                flushed.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                flushed.log_io_completed(Err(std::io::Error::other(error.clone())));
                Err(failed(ErrorSubject::Logs, ErrorVerb::Write, &error))
            }
        }
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError<u64>> {
        let gone = self.0.state().entries.split_off(&from.index);
        let writes = gone.into_keys().map(|index| removed(row_of(index))).collect();
        let written = self.0.write(writes).await;
        written.map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Delete, &error))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError<u64>> {
        let mut writes = vec![kept(PURGED, &upto)];
        {
            let mut state = self.0.state();
            let rest = state.entries.split_off(&(upto.index + 1));
            let gone = std::mem::replace(&mut state.entries, rest);
            state.purged = Some(upto);
            writes.extend(gone.into_keys().map(|index| removed(row_of(index))));
        }
        let written = self.0.write(writes).await;
        written.map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Delete, &error))
    }
}

/// The view as the log has made it. The node's published one may be ahead of it: views are also pulled from peers.
pub(super) struct Machine {
    disk: Arc<Disk>,
    /// Whom to tell; nobody in tests of the storage alone.
    node: Weak<Node>,
    applied: Applied,
    begun: Arc<OnceLock<()>>,
}

impl Machine {
    pub(super) fn new(disk: Arc<Disk>, node: Weak<Node>, applied: Applied) -> Self {
        let machine = Machine { disk, node, applied, begun: Arc::default() };
        machine.note_begun();
        machine
    }

    /// Set as soon as the log's first line is applied.
    pub(super) fn begun(&self) -> Arc<OnceLock<()>> {
        self.begun.clone()
    }

    fn note_begun(&self) {
        if self.applied.view.is_some() {
            self.begun.get_or_init(|| ());
        }
    }

    /// One line of the log. What is rejected changes nothing and uses up no epoch.
    fn take(&mut self, line: Line, passed: &mut Vec<Passed>) -> Result<Epoch, Rejected> {
        let (at_ms, command) = match (line, &self.applied.view) {
            (Line::First(bytes), None) => {
                self.applied.view = packed::unpack(&bytes).unwrap_or(None);
                return self.applied.view.as_ref().map(|view| view.epoch()).ok_or(NOWHERE);
            }
            (Line::First(_), Some(view)) => return Ok(view.epoch()),
            (Line::Change { at_ms, command }, _) => (at_ms, command),
        };
        let view = self.applied.view.as_ref().ok_or(NOWHERE)?; // whoever leads writes the first line first
        let entry = Passed { epoch: Epoch(view.epoch().0 + 1), at_ms, command };
        let next = view.apply(&entry)?;
        self.applied.view = Some(Arc::new(next));
        passed.push(entry);
        Ok(self.applied.view.as_ref().map_or(Epoch(0), |view| view.epoch()))
    }

    /// Makes last what was applied, and lets the node follow.
    async fn settle(&self, passed: &[Passed]) -> Result<(), StorageError<u64>> {
        let writes = vec![kept(APPLIED, &self.applied)];
        let settled = match (self.node.upgrade(), &self.applied.view) {
            (Some(node), Some(view)) => node.adopt(View::clone(view), passed, writes).await,
            (None, _) | (_, None) => self.disk.write(writes, Ack::Durable).done().await,
        };
        self.note_begun();
        settled.map_err(|error| failed(ErrorSubject::StateMachine, ErrorVerb::Write, &error))
    }
}

/// What a change is told before the log's first line. Whoever leads writes that one first.
const NOWHERE: Rejected = Rejected::OtherEpoch { made_for: Epoch(0), now: Epoch(0) };

impl RaftStateMachine<Group> for Machine {
    type SnapshotBuilder = Applied;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembership), StorageError<u64>> {
        Ok((self.applied.last, self.applied.voters.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<super::Taken>, StorageError<u64>>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut taken, mut passed) = (Vec::new(), Vec::new());
        for entry in entries {
            self.applied.last = Some(entry.log_id);
            let epoch = self.applied.view.as_ref().map_or(Epoch(0), |view| view.epoch());
            taken.push(match entry.payload {
                EntryPayload::Blank => Ok(epoch),
                EntryPayload::Normal(line) => self.take(line, &mut passed),
                EntryPayload::Membership(voters) => {
                    self.applied.voters = StoredMembership::new(Some(entry.log_id), voters);
                    Ok(epoch)
                }
            });
        }
        self.settle(&passed).await?;
        Ok(taken)
    }

    async fn get_snapshot_builder(&mut self) -> Applied {
        self.applied.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, EmptyNode>,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError<u64>> {
        let view = packed::unpack(&snapshot).map_err(|error| {
            let error = StoreError(error);
            StorageIOError::read_snapshot(Some(meta.signature()), &error)
        })?;
        self.applied =
            Applied { last: meta.last_log_id, voters: meta.last_membership.clone(), view };
        self.settle(&[]).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Group>>, StorageError<u64>> {
        Ok(self.applied.last.is_some().then(|| self.applied.snapshot()))
    }
}

impl Applied {
    fn snapshot(&self) -> Snapshot<Group> {
        let meta = SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.voters.clone(),
            snapshot_id: self.last.map_or_else(|| "-".into(), |last| last.to_string()),
        };
        Snapshot { meta, snapshot: Box::new(packed::pack(self.view.as_ref())) }
    }
}

/// What was applied is its own snapshot, and on the disk already.
impl RaftSnapshotBuilder<Group> for Applied {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Group>, StorageError<u64>> {
        Ok(self.snapshot())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openraft::testing::{StoreBuilder, Suite};

    use super::*;
    use crate::storage::memory::MemoryStore;

    struct InMemory;

    type Writer = tokio::task::JoinHandle<()>;

    impl StoreBuilder<Group, LogStore, Machine, Writer> for InMemory {
        async fn build(&self) -> Result<(Writer, LogStore, Machine), StorageError<u64>> {
            let store = Arc::new(MemoryStore::new());
            let (disk, writer) = Disk::on_task(store, Duration::ZERO, None).expect("empty");
            let disk = Arc::new(disk);
            let (kept, applied) = Kept::open(disk.clone(), Member(1)).await.expect("empty");
            Ok((writer, LogStore(kept), Machine::new(disk, Weak::new(), applied)))
        }
    }

    /// openraft's own tests of a storage.
    #[test]
    fn the_suite_of_openraft() {
        Suite::test_all(InMemory).expect("no storage fails");
    }
}
