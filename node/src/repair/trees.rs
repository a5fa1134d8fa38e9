//! The trees of the partitions this node owns, in memory.
//!
//! A partition has one tree per N of its buckets, because two owners hold the same only of buckets that are kept by both:
//! the third owner holds nothing of a bucket with N = 2. Which trees two nodes share follows from the view alone
//! ([`Trees::shared`]), so both compare the same ones whatever buckets they have heard of. A bucket whose N is more than a
//! partition has owners is in the tree of all owners. A tree without a row takes no memory.
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
use atoll_ring::{NodeId, Owners, Partition, Partitions, View};
use atoll_wire::BucketId;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::{
    Node,
    buckets::{Buckets, of_row},
    storage::{Space, StoreError, commit::Disk, rows, summary::Summary},
};

/// Rows read at once while a tree is made. Between two pages of a tree made in the background others may run.
const PAGE: usize = 512;

/// Rows read at once when a node starts.
const PAGE_AT_START: usize = 4096;

/// Which tree: that of the rows of a partition whose buckets are kept by its first `n` owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TreeName {
    pub(crate) partition: Partition,
    pub(crate) n: u8,
}

/// The trees of a node.
pub(crate) struct Trees {
    disk: Arc<Disk>,
    buckets: Arc<Buckets>,
    key: FingerprintKey,
    partitions: Partitions,
    bits: u32,
    /// Per other node the trees that both keep, in order.
    shared: RwLock<BTreeMap<NodeId, Arc<[TreeName]>>>,
    state: Mutex<State>,
    /// Some tree wants to be made anew.
    pub(crate) wanted: Notify,
}

#[derive(Default)]
struct State {
    /// By the number of the partition; none where this node is no owner.
    owned: Vec<Option<Owned>>,
    /// Trees that want to be made anew.
    wanted: BTreeSet<TreeName>,
    /// The tree that is being made, and the last row that is in it; none = no row yet.
    making: Option<(TreeName, Counted, Option<Bytes>)>,
}

impl State {
    fn of(&self, name: TreeName) -> Option<&Counted> {
        self.owned.get(name.partition.index())?.as_ref()?.trees.get(&name.n)
    }

    fn all(&self) -> impl Iterator<Item = &Counted> {
        self.owned.iter().flatten().flat_map(|owned| owned.trees.values())
    }
}

/// The trees of a partition that this node owns.
struct Owned {
    /// The least N that is kept here, and the greatest that has a tree of its own.
    n: (u8, u8),
    /// By N. None = nothing is in it.
    trees: BTreeMap<u8, Counted>,
}

impl Owned {
    /// None where a node is no owner.
    fn of(owners: Owners<'_>, me: NodeId) -> Option<Owned> {
        Some(Owned { n: (owners.from_n(me)?, owners.most()), trees: BTreeMap::new() })
    }

    /// The tree in which rows of a bucket with so many copies are; none if they are not kept here.
    fn tree(&self, copies: u8) -> Option<u8> {
        let n = copies.min(self.n.1);
        (n >= self.n.0).then_some(n)
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
        buckets: Arc<Buckets>,
        secret: &Secret,
        view: &View,
        me: NodeId,
    ) -> Result<Self, StoreError> {
        let partitions = view.partitions();
        let trees_of = Trees {
            disk,
            buckets,
            key: FingerprintKey::derive(secret),
            partitions,
            bits: partitions.count().ilog2(),
            shared: RwLock::new(shared(view, me)),
            state: Mutex::default(),
            wanted: Notify::new(),
        };
        let owned = |partition| Owned::of(view.owners(partition), me);
        let mut owned: Vec<Option<Owned>> = partitions.all().map(owned).collect();
        trees_of.make_all(&mut owned)?;
        let state = Mutex::new(State { owned, ..State::default() });
        Ok(Trees { state, ..trees_of })
    }

    /// Partitions have other owners from now on: trees of what is newly owned are made from whatever rows there are, those
    /// of what is owned no longer are gone.
    pub(crate) fn follow(&self, view: &View, me: NodeId) -> Result<(), StoreError> {
        for partition in self.partitions.all() {
            let next = Owned::of(view.owners(partition), me);
            let index = partition.index();
            let n = |owned: &Option<Owned>| owned.as_ref().map(|owned| owned.n);
            let before = n(&self.state().owned[index]);
            if n(&next) == before {
                continue;
            }
            let made = match (next, before) {
                (None, _) => None,
                // of what is kept from now on there may be rows, if there is any such bucket
                (Some(mut next), Some((from, most)))
                    if next.n.1 == most && !self.buckets.any_with_copies(next.n.0..from) =>
                {
                    let kept = self.state().owned[index].take().expect("it was there");
                    next.trees = kept.trees;
                    next.trees.retain(|n, _| *n >= next.n.0);
                    Some(next)
                }
                (Some(next), _) => Some(self.made_at_once(partition, next)?),
            };
            let mut state = self.state();
            state.owned[index] = made;
            if state.making.as_ref().is_some_and(|(name, ..)| name.partition == partition) {
                state.making = None; // it is begun again
            }
        }
        *self.shared.write().expect("no panic holds it") = shared(view, me);
        Ok(())
    }

    /// The trees of what lies on the disk.
    fn made_at_once(&self, partition: Partition, mut owned: Owned) -> Result<Owned, StoreError> {
        let mut rows = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.page(partition, after.as_deref())?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            rows.extend(page);
        }
        self.fill(&mut owned, rows);
        Ok(owned)
    }

    /// Makes the trees of one partition from all its rows.
    fn fill(&self, owned: &mut Owned, rows: Vec<(Bytes, Bytes)>) {
        let mut by_tree: BTreeMap<u8, Vec<(Bytes, Bytes)>> = BTreeMap::new();
        for (row, value) in rows {
            if let Some(n) = owned.tree(self.buckets.copies(of_row(&row))) {
                by_tree.entry(n).or_default().push((row, value));
            }
        }
        for (n, rows) in by_tree {
            let mut counted = self.empty(rows.len() as u64);
            self.feed(&mut counted, &rows);
            owned.trees.insert(n, counted);
        }
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
        let State { owned, wanted, making } = &mut *state;
        let Some(Some(owned)) = owned.get_mut(partition.index()) else { return }; // not an owner
        let Some(n) = owned.tree(self.buckets.copies(of_row(row))) else { return }; // not of this bucket
        let name = TreeName { partition, n };
        let counted = owned.trees.entry(n).or_insert_with(|| self.empty(0));
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
            && *of == name
            && row <= last
        {
            apply(being_made);
        }
        if crowded && wanted.insert(name) {
            self.wanted.notify_one();
        }
    }

    /// The trees that both this node and another keep, in order: those of each partition that both own, from the greater of
    /// their places on.
    pub(crate) fn shared(&self, peer: NodeId) -> Arc<[TreeName]> {
        let shared = self.shared.read().expect("no panic holds it");
        shared.get(&peer).cloned().unwrap_or_default()
    }

    /// Those of one partition.
    pub(crate) fn shared_of(&self, peer: NodeId, partition: Partition) -> Vec<TreeName> {
        let shared = self.shared(peer);
        let first = shared.partition_point(|tree| tree.partition < partition);
        let of_one = shared[first..].iter().copied();
        of_one.take_while(|tree| tree.partition == partition).collect()
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
        let root = |name: &TreeName| {
            let root = state.of(*name).map_or(0, |counted| counted.tree.root());
            labelled(u16::from(name.n), labelled(name.partition.0, root))
        };
        self.shared(peer).iter().map(root).collect()
    }

    /// The root of a tree; none if this node does not keep it.
    pub(crate) fn root(&self, name: TreeName) -> Option<u64> {
        let state = self.state();
        let owned = state.owned.get(name.partition.index())?.as_ref()?;
        owned.tree(name.n).filter(|n| *n == name.n)?;
        Some(owned.trees.get(&name.n).map_or(0, |counted| counted.tree.root()))
    }

    /// The tree in which a bucket's rows of a partition are; none if they are not kept here.
    pub(crate) fn of_bucket(&self, partition: Partition, bucket: BucketId) -> Option<TreeName> {
        let state = self.state();
        let owned = state.owned.get(partition.index())?.as_ref()?;
        let n = owned.tree(self.buckets.copies(bucket))?;
        Some(TreeName { partition, n })
    }

    /// How deep a tree is.
    pub(crate) fn depth(&self, name: TreeName) -> u8 {
        self.state().of(name).map_or(0, |counted| counted.tree.depth())
    }

    /// Keys of a partition, tombstones included.
    pub(crate) fn keys(&self, partition: Partition) -> u64 {
        let state = self.state();
        let owned = state.owned.get(partition.index()).and_then(Option::as_ref);
        owned.map_or(0, |owned| owned.trees.values().map(|counted| counted.tree.keys()).sum())
    }

    /// Tombstones in all partitions.
    pub(crate) fn tombstones(&self) -> u64 {
        self.state().all().map(|counted| counted.tombstones).sum()
    }

    /// The sums of what lies directly below a place.
    pub(crate) fn children(&self, name: TreeName, place: Place) -> Result<[u64; 16], StoreError> {
        {
            let state = self.state();
            let Some(counted) = state.of(name) else { return Ok([0; 16]) };
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
        for entry in self.entries(name, place)? {
            let token = rows::token_of_data(&entry.row).expect("it lies in a range of tokens");
            let nibble = Place::of(token.0, self.bits, place.level + 1).path % 16;
            let child = &mut children[nibble as usize];
            *child = child.wrapping_add(entry.fingerprint);
        }
        Ok(children)
    }

    /// The keys of a place, in the order of their rows. What is queued for the disk counts.
    pub(crate) fn entries(&self, name: TreeName, place: Place) -> Result<Vec<Entry>, StoreError> {
        let partition = name.partition;
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
                after = row.clone();
                if self.of_bucket(partition, of_row(&row)) != Some(name) {
                    continue;
                }
                let fingerprint = self.key.of(&row, &Summary::read(&value).digest);
                sum = sum.wrapping_add(fingerprint);
                entries.push(Entry { row, fingerprint });
            }
            if !full {
                break;
            }
        }
        let mut state = self.state();
        let cell = state.of(name).and_then(|counted| counted.tree.cell(place));
        if cell.is_some_and(|cell| cell != sum) && state.wanted.insert(name) {
            tracing::error!(%partition, n = name.n, "a tree does not say what its rows say; it is made anew");
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
                Some(name) => self.make(name).await?,
                None => wanted.await,
            }
        }
    }

    /// Makes a tree anew, a page at a time.
    async fn make(&self, name: TreeName) -> Result<(), StoreError> {
        {
            let mut state = self.state();
            let keys = state.of(name).map_or(0, |counted| counted.tree.keys());
            state.making = Some((name, self.empty(keys), None));
        }
        while self.make_some(name)? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Puts one more page into the tree that is being made; after the last one the tree takes its place. Whether there was
    /// one.
    fn make_some(&self, name: TreeName) -> Result<bool, StoreError> {
        let after = match &self.state().making {
            Some((_, _, last)) => last.clone(),
            None => return Ok(false), // the partition has other owners since
        };
        let mut page = self.page(name.partition, after.as_deref())?;
        let last = page.last().map(|(row, _)| row.clone());
        page.retain(|(row, _)| self.of_bucket(name.partition, of_row(row)) == Some(name));
        let mut state = self.state();
        let State { owned, wanted, making } = &mut *state;
        let Some((_, mut counted, _)) = making.take() else { return Ok(false) };
        self.feed(&mut counted, &page);
        if let Some(row) = last {
            *making = Some((name, counted, Some(row)));
            return Ok(true);
        }
        if !counted.tree.is_crowded() {
            wanted.remove(&name); // else it has grown meanwhile
        }
        if let Some(owned) = &mut owned[name.partition.index()]
            && owned.tree(name.n) == Some(name.n)
        {
            owned.trees.insert(name.n, counted); // else it is kept no longer
        }
        Ok(false)
    }

    /// Makes all trees at once, in one pass over the rows.
    fn make_all(&self, owned: &mut [Option<Owned>]) -> Result<(), StoreError> {
        let mut after: Option<Bytes> = None;
        let mut of_one: Vec<(Bytes, Bytes)> = Vec::new();
        loop {
            let page =
                self.disk.scan_queued(Space::Digests, b"", after.as_deref(), PAGE_AT_START)?;
            let ends = page.len() < PAGE_AT_START;
            after = page.last().map(|(row, _)| row.clone());
            for (row, value) in page {
                if of_one.last().is_some_and(|(last, _)| last.get(..2) != row.get(..2)) {
                    self.make_of(&mut of_one, owned);
                }
                of_one.push((row, value));
            }
            if ends {
                self.make_of(&mut of_one, owned);
                return Ok(());
            }
        }
    }

    /// Makes the trees of one partition from all its rows, and takes them.
    fn make_of(&self, rows: &mut Vec<(Bytes, Bytes)>, owned: &mut [Option<Owned>]) {
        let partition = rows.first().and_then(|(row, _)| rows::partition_of_data(row));
        let owned = partition.and_then(|partition| owned.get_mut(partition.index()));
        match owned {
            Some(Some(owned)) => self.fill(owned, std::mem::take(rows)),
            Some(None) | None => rows.clear(),
        }
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

/// Per other node the trees that both keep, in order.
fn shared(view: &View, me: NodeId) -> BTreeMap<NodeId, Arc<[TreeName]>> {
    let mut shared: BTreeMap<NodeId, Vec<TreeName>> = BTreeMap::new();
    for partition in view.partitions().all() {
        let owners = view.owners(partition);
        let Some(ours) = owners.from_n(me) else { continue };
        for owner in owners.all().into_iter().filter(|owner| *owner != me) {
            let theirs = owners.from_n(owner).expect("it is one of them");
            let both = ours.max(theirs)..=owners.most();
            shared.entry(owner).or_default().extend(both.map(|n| TreeName { partition, n }));
        }
    }
    shared.into_iter().map(|(peer, trees)| (peer, trees.into())).collect()
}

/// Makes trees anew that have become crowded. For ever.
pub(crate) async fn grow(node: Arc<Node>) {
    drop(node.repair().trees.grow().await); // the storage has failed, the node stops
}

/// Rows read at once in a leaf: a little more than one usually has.
const LEAF_PAGE: usize = 40;

/// Below this no place has children.
pub(crate) const LEVEL_MAX: u8 = DEPTH_MAX;
