//! The trees of the partitions this node owns, in memory.
//!
//! They say what the rows of [`Space::Digests`] say, queued rows included: whoever queues a record tells the trees in the
//! same breath ([`Trees::update`]). At a start they are made from the rows, page by page; values are not read. A tree that
//! has become crowded is made anew, deeper, in the background ([`Trees::grow`]); the old one serves until then.
//!
//! Should a tree ever say something else than its rows (which would be a bug of ours, or a damaged row), whoever lists the
//! keys of a place notices, and the tree is made anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, RwLock},
};

use atoll_antientropy::{
    Secret,
    merkle::{DEPTH_MAX, FingerprintKey, Place, Tree, labelled},
};
use atoll_ring::{NodeId, Partition, Partitions, View};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::{
    Node,
    storage::{Space, StoreError, commit::Disk, rows, summary::Summary},
};

/// Rows read at once while a tree is made. Between two pages of a tree made in the background others may run.
const PAGE: usize = 512;

/// Rows read at once when a node starts.
const PAGE_AT_START: usize = 4096;

/// The trees of a node.
pub(crate) struct Trees {
    disk: Arc<Disk>,
    key: FingerprintKey,
    partitions: Partitions,
    bits: u32,
    /// Per other node the partitions that both own, in order.
    shared: RwLock<BTreeMap<NodeId, Arc<[Partition]>>>,
    state: Mutex<State>,
    /// Some tree wants to be made anew.
    pub(crate) wanted: Notify,
}

#[derive(Default)]
struct State {
    /// By the number of the partition; none where this node is no owner.
    trees: Vec<Option<Counted>>,
    /// Trees that want to be made anew.
    wanted: BTreeSet<Partition>,
    /// The tree that is being made, and the last row that is in it; none = no row yet.
    making: Option<(Partition, Counted, Option<Bytes>)>,
}

impl State {
    fn of(&self, partition: Partition) -> Option<&Counted> {
        self.trees.get(partition.index())?.as_ref()
    }
}

/// A tree, and how many of its keys are tombstones.
struct Counted {
    tree: Tree,
    tombstones: u64,
}

/// A key of a place.
pub(crate) struct Entry {
    pub(crate) row: Bytes,
    pub(crate) fingerprint: u64,
}

impl Trees {
    /// Makes the trees of all partitions that a node owns.
    pub(crate) fn open(
        disk: Arc<Disk>,
        secret: &Secret,
        view: &View,
        me: NodeId,
    ) -> Result<Self, StoreError> {
        let partitions = view.partitions();
        let mut trees = Vec::new();
        let trees_of = Trees {
            disk,
            key: FingerprintKey::derive(secret),
            partitions,
            bits: partitions.count().ilog2(),
            shared: RwLock::new(shared(view, me)),
            state: Mutex::default(),
            wanted: Notify::new(),
        };
        for partition in partitions.all() {
            let is_mine = view.keepers(partition).contains(me);
            trees.push(is_mine.then(|| trees_of.empty(0)));
        }
        trees_of.make_all(&mut trees)?;
        let state = Mutex::new(State { trees, ..State::default() });
        Ok(Trees { state, ..trees_of })
    }

    /// Partitions have other owners from now on: trees of what is newly owned are made from whatever rows there are, those
    /// of what is owned no longer are gone.
    pub(crate) fn follow(&self, view: &View, me: NodeId) -> Result<(), StoreError> {
        for partition in self.partitions.all() {
            let is_mine = view.keepers(partition).contains(me);
            let index = partition.index();
            let has_tree = self.state().trees[index].is_some();
            match (is_mine, has_tree) {
                (true, true) | (false, false) => {}
                (false, true) => self.state().trees[index] = None,
                (true, false) => {
                    let made = self.made_at_once(partition)?;
                    self.state().trees[index] = Some(made);
                }
            }
        }
        *self.shared.write().expect("no panic holds it") = shared(view, me);
        Ok(())
    }

    /// A tree of what lies on the disk.
    fn made_at_once(&self, partition: Partition) -> Result<Counted, StoreError> {
        let mut rows = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.page(partition, after.as_deref())?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            rows.extend(page);
        }
        let mut counted = self.empty(rows.len() as u64);
        self.feed(&mut counted, &rows);
        Ok(counted)
    }

    /// A record is queued: what was said of it before, and what is said now. None = there is no record.
    pub(crate) fn update(&self, row: &Bytes, before: Option<Summary>, after: Option<Summary>) {
        let (Some(partition), Some(token)) =
            (rows::partition_of_data(row), rows::token_of_data(row))
        else {
            return;
        };
        let fingerprint = |said: Option<Summary>| said.map(|said| self.key.of(row, &said.digest));
        let (old, new) = (fingerprint(before), fingerprint(after));
        let mut state = self.state();
        let State { trees, wanted, making } = &mut *state;
        let Some(Some(counted)) = trees.get_mut(partition.index()) else { return }; // not an owner
        let is_tombstone =
            |said: Option<Summary>| u64::from(said.is_some_and(|said| said.tombstone));
        let apply = |counted: &mut Counted| {
            counted.tree.update(token.0, old, new);
            counted.tombstones += is_tombstone(after);
            counted.tombstones = counted.tombstones.saturating_sub(is_tombstone(before));
        };
        apply(counted);
        let crowded = counted.tree.is_crowded();
        if let Some((of, being_made, Some(last))) = making
            && *of == partition
            && row <= last
        {
            apply(being_made);
        }
        if crowded && wanted.insert(partition) {
            self.wanted.notify_one();
        }
    }

    /// The partitions that both this node and another own, in order.
    pub(crate) fn shared(&self, peer: NodeId) -> Arc<[Partition]> {
        let shared = self.shared.read().expect("no panic holds it");
        shared.get(&peer).cloned().unwrap_or_default()
    }

    /// The others that own something together with this node.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.shared.read().expect("no panic holds it").keys().copied().collect()
    }

    /// All that this node holds of what it shares with another, in one number.
    pub(crate) fn sum(&self, peer: NodeId) -> u64 {
        self.roots(peer).into_iter().fold(0, u64::wrapping_add)
    }

    /// The roots of what this node shares with another, labelled, in order.
    pub(crate) fn roots(&self, peer: NodeId) -> Vec<u64> {
        let state = self.state();
        let root = |partition: &Partition| {
            let root = state.of(*partition).map_or(0, |counted| counted.tree.root());
            labelled(partition.0, root)
        };
        self.shared(peer).iter().map(root).collect()
    }

    /// The root of a partition; none if this node does not own it.
    pub(crate) fn root(&self, partition: Partition) -> Option<u64> {
        self.state().of(partition).map(|counted| counted.tree.root())
    }

    /// How deep a partition's tree is.
    pub(crate) fn depth(&self, partition: Partition) -> u8 {
        self.state().of(partition).map_or(0, |counted| counted.tree.depth())
    }

    /// Keys of a partition, tombstones included.
    pub(crate) fn keys(&self, partition: Partition) -> u64 {
        self.state().of(partition).map_or(0, |counted| counted.tree.keys())
    }

    /// Tombstones in all partitions.
    pub(crate) fn tombstones(&self) -> u64 {
        self.state().trees.iter().flatten().map(|counted| counted.tombstones).sum()
    }

    /// The sums of what lies directly below a place.
    pub(crate) fn children(
        &self,
        partition: Partition,
        place: Place,
    ) -> Result<[u64; 16], StoreError> {
        {
            let state = self.state();
            let Some(counted) = state.of(partition) else { return Ok([0; 16]) };
            if let Some(children) = counted.tree.children(place) {
                return Ok(children);
            }
            // the leaf above or at this place; where it is empty so is all below
            let leaf = counted.tree.depth();
            let above = Place { level: leaf, path: place.path >> (4 * (place.level - leaf)) };
            if counted.tree.cell(above).is_none_or(|cell| cell == 0) {
                return Ok([0; 16]);
            }
        }
        let mut children = [0u64; 16];
        for entry in self.entries(partition, place)? {
            let token = rows::token_of_data(&entry.row).expect("it lies in a range of tokens");
            let nibble = Place::of(token.0, self.bits, place.level + 1).path % 16;
            let child = &mut children[nibble as usize];
            *child = child.wrapping_add(entry.fingerprint);
        }
        Ok(children)
    }

    /// The keys of a place, in the order of their rows. What is queued for the disk counts.
    pub(crate) fn entries(
        &self,
        partition: Partition,
        place: Place,
    ) -> Result<Vec<Entry>, StoreError> {
        let start = self.partitions.start(partition);
        let tokens = place.tokens(self.bits, start.0);
        let mut after = rows::data_begin(partition, *tokens.start());
        let mut entries = Vec::new();
        let mut sum = 0u64;
        'pages: loop {
            let page = self.disk.scan_queued(
                Space::Digests,
                &partition.0.to_be_bytes(),
                Some(&after),
                LEAF_PAGE,
            )?;
            let full = page.len() == LEAF_PAGE;
            for (row, value) in page {
                if !rows::token_of_data(&row).is_some_and(|token| tokens.contains(&token.0)) {
                    break 'pages;
                }
                let fingerprint = self.key.of(&row, &Summary::read(&value).digest);
                sum = sum.wrapping_add(fingerprint);
                after = row.clone();
                entries.push(Entry { row, fingerprint });
            }
            if !full {
                break;
            }
        }
        let mut state = self.state();
        let cell = state.of(partition).and_then(|counted| counted.tree.cell(place));
        if cell.is_some_and(|cell| cell != sum) && state.wanted.insert(partition) {
            tracing::error!(%partition, "a tree does not say what its rows say; it is made anew");
            self.wanted.notify_one();
        }
        Ok(entries)
    }

    /// Where a row lies on a level of its partition's tree.
    pub(crate) fn place_of(&self, row: &Bytes, level: u8) -> Option<Place> {
        rows::token_of_data(row).map(|token| Place::of(token.0, self.bits, level))
    }

    /// What is said of a record.
    pub(crate) fn summary(&self, row: &Bytes) -> Result<Option<Summary>, StoreError> {
        Ok(self.disk.get(Space::Digests, row)?.map(|value| Summary::read(&value)))
    }

    async fn grow(&self) -> Result<(), StoreError> {
        loop {
            let wanted = self.wanted.notified();
            let next = self.state().wanted.first().copied();
            match next {
                Some(partition) => self.make(partition).await?,
                None => wanted.await,
            }
        }
    }

    /// Makes a tree anew, a page at a time.
    async fn make(&self, partition: Partition) -> Result<(), StoreError> {
        {
            let mut state = self.state();
            let keys = state.of(partition).map_or(0, |counted| counted.tree.keys());
            state.making = Some((partition, self.empty(keys), None));
        }
        while self.make_some(partition)? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Puts one more page into the tree that is being made; after the last one the tree takes its place. Whether there was
    /// one.
    fn make_some(&self, partition: Partition) -> Result<bool, StoreError> {
        let after = self.state().making.as_ref().and_then(|(_, _, last)| last.clone());
        let page = self.page(partition, after.as_deref())?;
        let mut state = self.state();
        let State { trees, wanted, making } = &mut *state;
        let (_, mut counted, _) = making.take().expect("one is made at a time");
        self.feed(&mut counted, &page);
        if let Some((row, _)) = page.into_iter().last() {
            *making = Some((partition, counted, Some(row)));
            return Ok(true);
        }
        if !counted.tree.is_crowded() {
            wanted.remove(&partition); // else it has grown meanwhile
        }
        if let Some(tree) = &mut trees[partition.index()] {
            *tree = counted; // else it is owned no longer
        }
        Ok(false)
    }

    /// Makes all trees at once, in one pass over the rows.
    fn make_all(&self, trees: &mut [Option<Counted>]) -> Result<(), StoreError> {
        let mut after: Option<Bytes> = None;
        let mut of_one: Vec<(Bytes, Bytes)> = Vec::new();
        loop {
            let page =
                self.disk.scan_queued(Space::Digests, b"", after.as_deref(), PAGE_AT_START)?;
            let ends = page.len() < PAGE_AT_START;
            after = page.last().map(|(row, _)| row.clone());
            for (row, value) in page {
                if of_one.last().is_some_and(|(last, _)| last.get(..2) != row.get(..2)) {
                    self.make_of(&mut of_one, trees);
                }
                of_one.push((row, value));
            }
            if ends {
                self.make_of(&mut of_one, trees);
                return Ok(());
            }
        }
    }

    /// Makes the tree of one partition from all its rows, and takes them.
    fn make_of(&self, rows: &mut Vec<(Bytes, Bytes)>, trees: &mut [Option<Counted>]) {
        let partition = rows.first().and_then(|(row, _)| rows::partition_of_data(row));
        let tree = partition.and_then(|partition| trees.get_mut(partition.index()));
        if let Some(Some(counted)) = tree {
            *counted = self.empty(rows.len() as u64);
            self.feed(counted, rows);
        }
        rows.clear();
    }

    fn page(
        &self,
        partition: Partition,
        after: Option<&[u8]>,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.disk.scan_queued(Space::Digests, &partition.0.to_be_bytes(), after, PAGE)
    }

    fn feed(&self, counted: &mut Counted, page: &[(Bytes, Bytes)]) {
        for (row, value) in page {
            let said = Summary::read(value);
            let Some(token) = rows::token_of_data(row) else { continue };
            counted.tree.update(token.0, None, Some(self.key.of(row, &said.digest)));
            counted.tombstones += u64::from(said.tombstone);
        }
    }

    fn empty(&self, keys: u64) -> Counted {
        Counted { tree: Tree::with_room(self.bits, keys), tombstones: 0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }
}

/// Per other node the partitions that both own, in order.
fn shared(view: &View, me: NodeId) -> BTreeMap<NodeId, Arc<[Partition]>> {
    let mut shared: BTreeMap<NodeId, Vec<Partition>> = BTreeMap::new();
    for partition in view.partitions().all() {
        let owners = view.keepers(partition).all();
        if owners.contains(&me) {
            for owner in owners.into_iter().filter(|owner| *owner != me) {
                shared.entry(owner).or_default().push(partition);
            }
        }
    }
    shared.into_iter().map(|(peer, partitions)| (peer, partitions.into())).collect()
}

/// Makes trees anew that have become crowded. For ever.
pub(crate) async fn grow(node: Arc<Node>) {
    drop(node.repair().trees.grow().await); // the storage has failed, the node stops
}

/// Rows read at once in a leaf: a little more than one usually has.
const LEAF_PAGE: usize = 40;

/// Below this no place has children.
pub(crate) const LEVEL_MAX: u8 = DEPTH_MAX;
