//! What is done with keys that were found to be different: both sides get the join of both.
//!
//! A join takes nothing away that is not known to be gone, so whoever mends the wrong key, or the same key twice, or while
//! it is being written, does no harm.

use std::{collections::BTreeMap, time::Duration};

use atoll_antientropy::{Kind, State};
use atoll_ring::Partition;
use atoll_wire::{Ack, ErrorCode, Fetch, Replicate, Reply, Request, limits::VALUE_BYTES_MAX};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use super::{
    exchange::{Broken, Exchange, Found},
    trees::TreeName,
};
use crate::{
    replica,
    storage::{rows, summary::Summary},
};

/// Keys on their way at the same time. Enough to share the syncs of both, and few enough that clients hardly notice.
const IN_FLIGHT_MAX: usize = 16;

/// Bytes on their way at the same time, as far as the keys before are a sign of those that come.
const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;

/// How long to wait for the own disk when its queue is full.
const DISK_PAUSE: Duration = Duration::from_millis(100);

/// What came of one key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Both hold the same by now: it was on its way.
    WasInFlight,
    /// Both hold the join of what they held.
    Mended,
    /// What the peer held is here, but it did not take what was here.
    MendedHere,
    /// One of the records is damaged, or there is no room; the next comparison finds it again.
    Later,
}

impl Exchange<'_> {
    /// Mends all that was found. Gives the trees of which nothing is left to be mended with this peer, on stable
    /// storage here.
    pub(super) async fn mend_all(
        &mut self,
        found: BTreeMap<TreeName, Found>,
    ) -> Result<Vec<TreeName>, Broken> {
        for (TreeName { partition, .. }, found) in &found {
            let backlog = u32::try_from(found.rows.len()).unwrap_or(u32::MAX);
            self.node
                .repair()
                .book(*partition, |book| book.backlog = book.backlog.saturating_add(backlog));
        }
        let all = found.keys().copied().collect::<Vec<_>>();
        let mended = self.mend_each(found).await;
        for tree in all {
            self.node.repair().book(tree.partition, |book| book.backlog = 0); // what is left is found again
        }
        mended
    }

    async fn mend_each(
        &mut self,
        found: BTreeMap<TreeName, Found>,
    ) -> Result<Vec<TreeName>, Broken> {
        let mut incomplete = std::collections::BTreeSet::new();
        let mut rows = Vec::new();
        let trees: Vec<TreeName> = found.keys().copied().collect();
        for (tree, found) in found {
            if !found.complete {
                incomplete.insert(tree);
            }
            rows.extend(found.rows.into_iter().map(|row| (tree, row)));
        }
        let mut largest = VALUE_BYTES_MAX; // until something is known
        let mut rest = &rows[..];
        while !rest.is_empty() {
            let at_once = (IN_FLIGHT_BYTES_MAX / largest.max(1)).clamp(1, IN_FLIGHT_MAX);
            let (chunk, later) = rest.split_at(rest.len().min(at_once * 4));
            rest = later;
            while self.node.disk().is_full() {
                tokio::time::sleep(DISK_PAUSE).await;
            }
            let outcomes = stream::iter(chunk.to_vec())
                .map(|(tree, row)| self.mend(tree.partition, row))
                .buffered(at_once)
                .collect::<Vec<_>>()
                .await;
            largest /= 2;
            for ((tree, _), outcome) in chunk.iter().zip(outcomes) {
                let (outcome, bytes) = outcome?;
                largest = largest.max(bytes);
                let repaired = matches!(outcome, Outcome::Mended | Outcome::MendedHere);
                self.node.repair().book(tree.partition, |book| {
                    book.backlog = book.backlog.saturating_sub(1);
                    book.keys_repaired += u64::from(repaired);
                    book.bytes += bytes as u64;
                });
                match outcome {
                    Outcome::WasInFlight | Outcome::Mended => {}
                    // doubt is about what we hold, so that the peer did not take ours is no reason to keep it
                    Outcome::MendedHere if self.doubted.contains(&tree.partition) => {}
                    Outcome::MendedHere | Outcome::Later => drop(incomplete.insert(*tree)),
                }
            }
            self.rest().await;
        }
        let settled = self.node.disk().settled().done().await;
        settled.map_err(|error| Broken(error.to_string()))?;
        Ok(trees.into_iter().filter(|one| !incomplete.contains(one)).collect())
    }

    /// Mends one key: takes what the peer holds into our copy, and sends the result back if the peer lacks some of it.
    /// Gives the bytes of the states that travelled, too.
    async fn mend(&self, partition: Partition, row: Bytes) -> Result<(Outcome, usize), Broken> {
        let (bucket, key) = rows::bucket_and_key(&row).expect("only rows of keys are found");
        let Some(kind) = self.node.kind_of(bucket) else { return Ok((Outcome::Later, 0)) };
        let fetch = Fetch { key: key.clone(), durable: true, hints: false };
        let (theirs, fetched) = match self.call_about(bucket, Request::Fetch(fetch)).await? {
            Reply::Fetched(fetched) if fetched.known => {
                match self.node.decoded(bucket, &fetched.state) {
                    Some(state) => (state, fetched.state.len()),
                    None => return Err(Broken("what was fetched is no state".into())),
                }
            }
            Reply::Fetched(_) => (State::unknown(kind), 0),
            Reply::Failed(failure) if failure.code == ErrorCode::Corrupt => {
                return Ok((self.doubt_if_doubted(partition, &row), 0));
            }
            Reply::Failed(_) => return Ok((Outcome::Later, 0)),
            _ => return Err(Broken("a fetch was answered with something else".into())),
        };
        // from here to the queued join nobody else runs
        let ours = self.own(&row, kind)?;
        if ours == theirs {
            self.check_summary(&row, &ours)?;
            return Ok((Outcome::WasInFlight, fetched));
        }
        let mut joined = ours.clone();
        joined.join(theirs.clone());
        if joined != ours && replica::join(self.node, &row, theirs.clone(), Ack::Durable).is_err() {
            return Ok((Outcome::Later, fetched));
        }
        if joined == theirs {
            return Ok((Outcome::Mended, fetched));
        }
        let state = Bytes::from(joined.encode());
        let bytes = fetched + state.len();
        let replicate = Replicate { key, ack: Ack::Durable, hint_for: None, state };
        match self.call_about(bucket, Request::Replicate(replicate)).await? {
            Reply::Replicated(done) if done.durable => Ok((Outcome::Mended, bytes)),
            _ => Ok((Outcome::MendedHere, bytes)),
        }
    }

    /// Our own copy. One that turns out to be damaged is set aside and counts as missing.
    fn own(&self, row: &Bytes, kind: Kind) -> Result<State, Broken> {
        let own = replica::read(self.node, row).map_err(|error| Broken(error.to_string()))?;
        Ok(own.map_or_else(|| State::unknown(kind), |record| record.state))
    }

    /// The peer's record is damaged. Usually it is mended there, and the key found again later. While we doubt the
    /// partition, the key stays in doubt when the partition no longer is: what was damaged may be what we have lost.
    fn doubt_if_doubted(&self, partition: Partition, row: &Bytes) -> Outcome {
        if !self.doubted.contains(&partition) {
            return Outcome::Later;
        }
        match self.node.doubt().doubt_key(row) {
            true => Outcome::WasInFlight, // on stable storage with all the others
            false => Outcome::Later,
        }
    }

    /// The states are equal and were said not to be. If what is said of ours is wrong (nothing guards those rows), it is
    /// said anew.
    fn check_summary(&self, row: &Bytes, ours: &State) -> Result<(), Broken> {
        let trees = &self.node.repair().trees;
        let said = trees.summary(row).map_err(|error| Broken(error.to_string()))?;
        let right = (!ours.is_unknown()).then(|| Summary::of(ours));
        if said != right
            && let Some(right) = right
        {
            tracing::warn!("what was said of a record was wrong; it is said anew");
            trees.update(row, said, Some(right));
            drop(self.node.disk().write(vec![right.write(row)], Ack::Durable));
        }
        Ok(())
    }
}
