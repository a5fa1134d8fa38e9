//! A comparison with one peer, from its beginning to its end.
//!
//! ```text
//!   roots      which of the trees that both keep differ                   CompareRoots
//!   places     which of their cells, level by level                       Compare
//!   entries    which keys in the last cells                               Entries
//!   wait       what was merely on its way arrives
//!   mend       fetch, join here, send the join back                       Fetch, Replicate (mend.rs)
//! ```
//!
//! Everybody goes on writing meanwhile. A key that differs at the beginning and is equal after the wait was on its way; a
//! key that one side has lost differs all the time, so whatever is equal anywhere on the way down holds none of those.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use atoll_antientropy::merkle::{
    Differing, Entries as Fingerprints, Place, Places, Tree, Unmatched as Keys, Width,
};
use atoll_ring::{NodeId, Owners, Partition, Token, seats};
use atoll_wire::{
    BucketId, Compare, CompareRoots, Entries, Lane, Reply, Request,
    limits::{COMPARE_TAIL_BYTES_MAX, KEY_BYTES_MAX},
};
use bytes::Bytes;
use futures_util::{
    future::join_all,
    stream::{self, StreamExt as _},
};
use tokio::time::Instant;

use super::{
    Round,
    trees::{LEVEL_MAX, TreeName},
};
use crate::{
    Node,
    buckets::{gossip, of_row},
    storage::rows,
};

/// How long a peer may take to answer one question.
const CALL_LIMIT: Duration = Duration::from_secs(4);

/// How long what differs is left alone before it is looked at again: a write needs so long at most to reach all its
/// owners, unless one of them is in trouble.
const IN_FLIGHT_FOR: Duration = Duration::from_secs(1);

/// Trees that are descended into at the same time: enough to make use of a long way, few enough to leave the lane
/// to others now and then.
const DESCENTS_MAX: usize = 16;

/// Places in one question; their answer keeps the other node from its clients for that long.
const PLACES_PER_CALL: usize = 256;

/// Places whose keys are asked for in one question, and how many keys these may have together.
const LEAVES_PER_CALL: usize = 64;
const KEYS_PER_CALL: usize = 8192;

/// Keys that are mended in one comparison. The rest waits for the next one, which begins at once. They are held in memory,
/// each about a hundred bytes and its name.
const CANDIDATES_MAX: usize = 1 << 15;

/// While clients are served, how many times as long as it works a comparison rests: it takes a fifth of the time at most.
const REST_PER_WORK: u32 = 4;

/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(1);

/// Compares with one peer whenever there is a reason to, as long as it is a member.
pub(crate) async fn compare_with(node: Arc<Node>, peer: NodeId) {
    while node.view().member(peer).is_some() {
        node.repair().time_to_begin(&node, peer).await;
        let Ok(_place) = node.repair().rounds.acquire().await else { return };
        node.repair().began(peer);
        let how = match Exchange::of(&node, peer).run().await {
            Ok(how) => how,
            Err(Broken(why)) => {
                tracing::debug!(%peer, why, "a comparison broke off");
                Round::Broken
            }
        };
        node.repair().ended(peer, how, node.clock().now());
    }
}

/// The peer did not answer, or not as it should. What was mended stays mended.
pub(super) struct Broken(pub(super) String);

/// One comparison.
pub(super) struct Exchange<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) peer: NodeId,
    /// Partitions of which we may have forgotten something, and which were not yet compared with this peer.
    pub(super) doubted: BTreeSet<Partition>,
    width: Width,
    /// Trees that were found to be equal, or are by now.
    equal: BTreeSet<TreeName>,
    /// Since when we have worked without a rest.
    working_since: Instant,
}

/// What was found in one tree.
#[derive(Default)]
pub(super) struct Found {
    /// Rows of the keys that differ.
    pub(super) rows: Vec<Bytes>,
    /// These are all.
    pub(super) complete: bool,
}

impl<'a> Exchange<'a> {
    fn of(node: &'a Arc<Node>, peer: NodeId) -> Self {
        let doubted = node.doubt().to_compare_with(peer);
        // where a key that is overlooked would be taken for known, nothing is left to luck
        let width = if doubted.is_empty() { Width::Short } else { Width::Full };
        let (equal, working_since) = (BTreeSet::new(), node.clock().now());
        Exchange { node, peer, doubted, width, equal, working_since }
    }

    async fn run(mut self) -> Result<Round, Broken> {
        let compared_at = self.node.clock().now();
        let mut differing = self.differing_trees().await?;
        let shared = self.node.repair().trees.shared(self.peer).to_vec();
        let equal = shared.into_iter().filter(|tree| !differing.contains_key(tree));
        self.confirm(equal.collect(), compared_at).await?;
        // what a move copies anyway is not fetched key by key as well
        differing.retain(|TreeName { partition, .. }, _| {
            self.doubted.contains(partition) || !is_copied(self.node, self.peer, *partition)
        });
        let found = self.differing_keys(differing).await?;
        let nothing = |found: &Found| found.complete && found.rows.is_empty();
        let (equal, found): (BTreeMap<_, _>, BTreeMap<_, _>) =
            found.into_iter().partition(|(_, found)| nothing(found));
        self.confirm(equal.into_keys().collect(), compared_at).await?;
        if found.is_empty() {
            return Ok(Round::Done);
        }
        tokio::time::sleep(IN_FLIGHT_FOR).await;
        self.working_since = self.node.clock().now();
        let whole = found.values().all(|found| found.complete);
        let complete = self.mend_all(found).await?;
        self.confirm(complete, compared_at).await?;
        Ok(if whole { Round::Done } else { Round::More })
    }

    /// These trees are equal, or were at that time but for what has been mended since. A partition is when all are that both
    /// keep of it.
    async fn confirm(&mut self, trees: Vec<TreeName>, at: Instant) -> Result<(), Broken> {
        let mut partitions: Vec<Partition> = trees.iter().map(|tree| tree.partition).collect();
        partitions.dedup();
        self.equal.extend(&trees);
        let is_equal = |partition: &Partition| {
            let shared = self.node.repair().trees.shared_of(self.peer, *partition);
            shared.iter().all(|tree| self.equal.contains(tree))
        };
        let doubted = partitions.iter().filter(|partition| self.doubted.contains(partition));
        let ends = doubted
            .filter(|partition| is_equal(partition))
            .map(|partition| self.node.doubt().compared(*partition, self.peer, at));
        for ended in join_all(ends).await {
            ended.map_err(|error| Broken(error.to_string()))?;
        }
        self.node.repair().agree(self.node, self.peer, trees, at);
        Ok(())
    }

    /// The shared trees that differ, with the depths of the peer's.
    async fn differing_trees(&mut self) -> Result<BTreeMap<TreeName, u8>, Broken> {
        let trees = &self.node.repair().trees;
        let shared = trees.shared(self.peer);
        if let [only] = &shared[..]
            && trees.depth(*only) > 0
        {
            return Ok(BTreeMap::from([(*only, trees.depth(*only))])); // the pings have compared its root
        }
        let ours = Tree::over(trees.roots(self.peer).into_iter());
        let mut paths = vec![0u32];
        let mut depths = Vec::new();
        for level in 0..ours.depth() {
            let roots = level + 1 == ours.depth();
            let mut next = Vec::new();
            for chunk in paths.chunks(PLACES_PER_CALL) {
                let children = |path: &u32| {
                    let children = ours.children(Place { level, path: *path });
                    (*path, children.expect("above its leaves"))
                };
                let mut tail = vec![level];
                Places::of(self.width, chunk.iter().map(children)).encode_into(&mut tail);
                let asked = Request::CompareRoots(CompareRoots { roots: tail.into() });
                let Reply::Differing(answer) = self.call(asked).await? else {
                    return Err(nonsense());
                };
                let answer = Differing::decode(&answer.which, chunk.len(), roots);
                let answer = answer.map_err(|_| nonsense())?;
                for (path, children) in chunk.iter().zip(&answer.children) {
                    next.extend(Differing::each(*children).map(|nibble| path << 4 | nibble));
                }
                depths.extend(answer.depths);
            }
            paths = next;
        }
        let tree = |path: u32| shared.get(path as usize).copied().ok_or_else(nonsense);
        paths.into_iter().zip(depths).map(|(path, depth)| Ok((tree(path)?, depth))).collect()
    }

    /// Descends into these trees.
    async fn differing_keys(
        &mut self,
        trees: BTreeMap<TreeName, u8>,
    ) -> Result<BTreeMap<TreeName, Found>, Broken> {
        let mut all = BTreeMap::new();
        let mut keys = 0;
        let trees: Vec<(TreeName, u8)> = trees.into_iter().collect();
        for chunk in trees.chunks(DESCENTS_MAX) {
            if keys >= CANDIDATES_MAX {
                all.extend(chunk.iter().map(|(tree, _)| (*tree, Found::default())));
                continue;
            }
            let room = CANDIDATES_MAX - keys;
            let descents = stream::iter(chunk.to_vec())
                .map(|(tree, depth)| self.descend(tree, depth, room))
                .buffered(DESCENTS_MAX);
            for (found, (tree, _)) in descents.collect::<Vec<_>>().await.into_iter().zip(chunk) {
                let found = found?;
                keys += found.rows.len();
                all.insert(*tree, found);
            }
            self.rest().await;
        }
        Ok(all)
    }

    /// The keys of one tree that differ. At most as many as there is room for, or a few more.
    async fn descend(&self, tree: TreeName, their_depth: u8, room: usize) -> Result<Found, Broken> {
        let depth = self.node.repair().trees.depth(tree).max(their_depth).min(LEVEL_MAX);
        let mut width = self.width;
        let mut paths = vec![0u32];
        let mut level = 0;
        while level < depth {
            let next = self.differing_places(tree, level, &paths, width).await?;
            if !next.is_empty() {
                (paths, level) = (next, level + 1);
            } else if width == Width::Short {
                width = Width::Full; // a difference hides behind equal halves, or it has gone
            } else {
                return Ok(Found { rows: Vec::new(), complete: true });
            }
        }
        let mut found = self.differing_entries(tree, level, &paths, width, room).await?;
        if found.rows.is_empty() && found.complete && width == Width::Short {
            found = self.differing_entries(tree, level, &paths, Width::Full, room).await?;
        }
        found.rows.sort_unstable();
        found.rows.dedup();
        Ok(found)
    }

    /// The places below these that differ.
    async fn differing_places(
        &self,
        tree: TreeName,
        level: u8,
        paths: &[u32],
        width: Width,
    ) -> Result<Vec<u32>, Broken> {
        let mut next = Vec::new();
        for chunk in paths.chunks(PLACES_PER_CALL) {
            let children = |path: &u32| {
                let place = Place { level, path: *path };
                Ok((*path, self.node.repair().trees.children(tree, place)?))
            };
            let children = chunk.iter().map(children).collect::<Result<Vec<_>, _>>();
            let mut hashes = Vec::new();
            Places::of(width, children.map_err(failed)?).encode_into(&mut hashes);
            let (partition, n) = (tree.partition.0, tree.n);
            let asked = Compare { partition, n, level, hashes: hashes.into() };
            let sent = asked.hashes.len();
            let Reply::Differing(answer) = self.call(Request::Compare(asked)).await? else {
                return Err(nonsense());
            };
            self.count_bytes(Partition(partition), sent + answer.which.len());
            let answer = Differing::decode(&answer.which, chunk.len(), false);
            for (path, children) in chunk.iter().zip(answer.map_err(|_| nonsense())?.children) {
                next.extend(Differing::each(children).map(|nibble| path << 4 | nibble));
            }
        }
        Ok(next)
    }

    /// The keys in these places that differ.
    async fn differing_entries(
        &self,
        tree: TreeName,
        level: u8,
        paths: &[u32],
        width: Width,
        room: usize,
    ) -> Result<Found, Broken> {
        let mut found = Found { rows: Vec::new(), complete: true };
        let mut paths = paths.iter().peekable();
        while paths.peek().is_some() {
            if found.rows.len() >= room {
                found.complete = false;
                break;
            }
            let mut asked = Fingerprints::new(width);
            let mut sent: Vec<Bytes> = Vec::new();
            while let Some(path) = paths.peek()
                && asked.places.len() < LEAVES_PER_CALL
                && sent.len() < KEYS_PER_CALL
            {
                let place = Place { level, path: **path };
                let entries = self.node.repair().trees.entries(tree, place).map_err(failed)?;
                if (sent.len() + entries.len()) * width.bytes() > COMPARE_TAIL_BYTES_MAX / 2 {
                    if sent.is_empty() {
                        found.complete = false; // this tree is about to grow; then its places have fewer keys
                        paths.next();
                        continue;
                    }
                    break;
                }
                asked.add(**path, entries.iter().map(|entry| entry.fingerprint));
                sent.extend(entries.into_iter().map(|entry| entry.row));
                paths.next();
            }
            let heard = self.ask_entries(tree, level, &asked).await?;
            found.complete &= !heard.cut_short;
            found.rows.extend(heard.missing.iter().map(|index| sent[*index as usize].clone()));
            for (bucket, key) in heard.keys {
                found.rows.push(self.row(tree.partition, BucketId(bucket), &key)?);
            }
            found.complete &= self.learn_buckets(&found.rows).await;
            found.rows.retain(|row| self.is_mended(tree, row));
        }
        Ok(found)
    }

    async fn ask_entries(
        &self,
        tree: TreeName,
        level: u8,
        asked: &Fingerprints,
    ) -> Result<Keys, Broken> {
        let TreeName { partition, n } = tree;
        let fingerprints = asked.encode();
        let sent = fingerprints.len();
        let bucket = BucketId::default_bucket(self.node.view().bucket_n());
        let entries = Entries { partition: partition.0, n, level, fingerprints };
        let Reply::Unmatched(answer) = self.call(Request::Entries(entries)).await? else {
            return Err(nonsense());
        };
        self.count_bytes(partition, sent + answer.entries.len());
        let heard = Keys::decode(&answer.entries, &bucket.0, asked.fingerprints.len());
        heard.map_err(|_| nonsense())
    }

    /// Rows of buckets that were never heard of here: the peer knows what they are. Whether it does.
    async fn learn_buckets(&self, rows: &[Bytes]) -> bool {
        let is_known = |row: &Bytes| self.node.buckets().known(of_row(row)).is_some();
        if rows.iter().all(is_known) {
            return true;
        }
        gossip::pull(self.node, self.peer, self.node.clock().now() + CALL_LIMIT).await;
        rows.iter().all(is_known)
    }

    /// Whether a row is of this tree, as far as this node knows by now, and not of a bucket that was dropped: what is left
    /// of that goes on either side by itself.
    fn is_mended(&self, tree: TreeName, row: &Bytes) -> bool {
        let bucket = of_row(row);
        let is_of_tree = self.node.repair().trees.of_bucket(tree.partition, bucket) == Some(tree);
        is_of_tree && !self.node.buckets().is_dropped(bucket)
    }

    /// The row of a key that the peer has named.
    fn row(&self, partition: Partition, bucket: BucketId, key: &Bytes) -> Result<Bytes, Broken> {
        let token = Token::of(&bucket.0, key);
        let fits = !key.is_empty() && key.len() <= KEY_BYTES_MAX;
        if !fits || self.node.view().partition(token) != partition {
            return Err(nonsense());
        }
        Ok(rows::data(partition, token, bucket, key))
    }

    pub(super) async fn call(&self, request: Request) -> Result<Reply, Broken> {
        let bucket = BucketId::default_bucket(self.node.view().bucket_n());
        match self.call_about(bucket, request).await? {
            Reply::Failed(failure) => Err(Broken(failure.to_string())),
            reply => Ok(reply),
        }
    }

    /// Asks about a key of this bucket. A failure is an answer.
    pub(super) async fn call_about(
        &self,
        bucket: BucketId,
        request: Request,
    ) -> Result<Reply, Broken> {
        let envelope = self.node.envelope_for(self.node.clock().now() + CALL_LIMIT, 0, bucket);
        let call = self.node.transport().call(self.peer, Lane::Bulk, envelope, request);
        let Ok(result) = tokio::time::timeout(CALL_LIMIT, call).await else {
            return Err(Broken("no answer".into()));
        };
        self.node.liveness().learn(self.peer, &result);
        result.map(|(_, reply)| reply).map_err(|error| Broken(error.to_string()))
    }

    pub(super) fn count_bytes(&self, partition: Partition, bytes: usize) {
        self.node.repair().book(partition, |book| book.bytes += bytes as u64);
    }

    /// Lets others run; while clients are served, for several times as long as we have worked.
    pub(super) async fn rest(&mut self) {
        let now = self.node.clock().now();
        if self.node.repair().is_busy(now) {
            let worked = now.saturating_duration_since(self.working_since);
            tokio::time::sleep((worked * REST_PER_WORK).min(REST_MAX)).await;
        }
        tokio::task::yield_now().await;
        self.working_since = self.node.clock().now();
    }
}

/// Whether one of the two takes a seat of this partition and copies it from whoever held the seat.
fn is_copied(node: &Node, peer: NodeId, partition: Partition) -> bool {
    match node.view().owners(partition) {
        Owners::One(_) => false,
        Owners::Joint { old, new } => {
            seats(old, new).iter().any(|(_, joins)| *joins == node.id() || *joins == peer)
        }
    }
}

fn nonsense() -> Broken {
    Broken("the answer makes no sense".into())
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn failed(error: crate::storage::StoreError) -> Broken {
    Broken(error.to_string())
}
