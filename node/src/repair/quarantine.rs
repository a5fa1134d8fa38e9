//! How the doubt of a key ends.
//!
//! A damaged record was set aside ([`crate::replica::set_aside`]). What was in it lies with the other owners, if anywhere:
//! this task asks all of them, joins what they have into the fresh record, and when that is on stable storage the key has
//! been compared. Until then answers of this node do not count for the key.
//!
//! Doubt may end only when
//! - **every** other owner has answered: the one left out may alone have what was lost here;
//! - **one of them at least is not in doubt** itself: when all are, nobody knows what the key was, and saying "not found"
//!   would be a guess. Then the doubt stays, reads fail with the reason, and somebody has to decide ([`crate::doubt::Doubt::accept`]);
//! - the question was put **later than the last write could end** that had counted this owner's lost copy: its other copies
//!   may have been on their way until then. So the data are back at once, and the doubt goes after a minute.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atoll_antientropy::State;
use atoll_ring::{NodeId, Owners};
use atoll_transport::Boxed;
use atoll_wire::{Ack, BucketId, ErrorCode, Fetch, Lane, Reply, Request};
use bytes::Bytes;
use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::time::Instant;

use crate::{
    Node,
    doubt::LAST_WRITE,
    replica,
    storage::{StoreError, rows},
};

/// Keys compared at the same time.
const AT_ONCE: usize = 4;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long to wait after the first attempt that did not end the doubt; twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest wait.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A key in doubt.
struct Pending {
    /// Which damage it was.
    damage: u64,
    /// When we heard of it.
    since: Instant,
    again_at: Instant,
    pause: Duration,
}

/// What came of asking the other owners.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// With all of them, and what they have is here on stable storage.
    WithAll,
    /// With all of them, and none is sure of what it says.
    AllInDoubt,
    /// Not with all of them.
    Incomplete,
}

/// Compares keys in doubt with their other owners until none is left. For ever.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut pending: BTreeMap<Bytes, Pending> = BTreeMap::new();
    loop {
        let added = node.doubt().added.notified();
        let came_up = node.liveness().came_up.notified();
        tokio::pin!(added, came_up);
        added.as_mut().enable();
        came_up.as_mut().enable(); // before looking, or a change in between would be missed
        let now = node.clock().now();
        for (row, key) in &mut pending {
            if node.doubt().is_accepted(row) {
                key.again_at = key.again_at.min(now + key.pause.min(PAUSE));
            }
        }
        learn(&mut pending, node.doubt().keys(), now);
        let due: Vec<Bytes> = pending
            .iter()
            .filter(|(_, key)| key.again_at <= now)
            .map(|(row, _)| row.clone())
            .collect();
        if due.is_empty() {
            let next = pending.values().map(|key| key.again_at).min();
            tokio::select! { biased;
                () = added => {}
                () = came_up => pending.values_mut().for_each(|key| {
                    key.again_at = key.again_at.min(now + PAUSE);
                    key.pause = PAUSE;
                }),
                () = sleep_until(next) => {}
            }
            continue;
        }
        if compare_all(&node, due, &mut pending).await.is_err() {
            return; // the storage has failed, the node stops
        }
    }
}

/// New ones are due at once, and so are those damaged again.
fn learn(pending: &mut BTreeMap<Bytes, Pending>, in_doubt: Vec<(Bytes, u64)>, now: Instant) {
    let in_doubt: BTreeMap<Bytes, u64> = in_doubt.into_iter().collect();
    pending.retain(|row, key| in_doubt.get(row) == Some(&key.damage));
    for (row, damage) in in_doubt {
        pending.entry(row).or_insert(Pending { damage, since: now, again_at: now, pause: PAUSE });
    }
}

async fn compare_all(
    node: &Arc<Node>,
    due: Vec<Bytes>,
    pending: &mut BTreeMap<Bytes, Pending>,
) -> Result<(), StoreError> {
    let mut due = due.into_iter();
    let mut asking = FuturesUnordered::new();
    loop {
        while asking.len() < AT_ONCE
            && let Some(row) = due.next()
        {
            let asked_at = node.clock().now();
            asking.push(async move { (compare(node, &row).await, row, asked_at) });
        }
        let Some((compared, row, asked_at)) = asking.next().await else { return Ok(()) };
        let Some(key) = pending.get_mut(&row) else { continue };
        let late_enough = key.since + LAST_WRITE;
        let compared = compared?;
        match compared {
            Compared::WithAll if asked_at >= late_enough => {
                node.doubt().key_compared(&row, key.damage).await?;
                tracing::info!(row = %row.escape_ascii(), "a damaged record is whole again");
            }
            Compared::AllInDoubt if node.doubt().is_accepted(&row) => {
                node.doubt().key_compared(&row, key.damage).await?;
                tracing::warn!(row = %row.escape_ascii(), "what is left of a key is accepted");
            }
            Compared::WithAll => key.again_at = late_enough,
            Compared::AllInDoubt | Compared::Incomplete => {
                if compared == Compared::AllInDoubt && key.pause == PAUSE {
                    let row = row.escape_ascii();
                    tracing::error!(%row, "every copy of a key is damaged or in doubt");
                }
                key.again_at = node.clock().now() + key.pause;
                key.pause = (key.pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// What another owner says.
enum Answer {
    /// A state, or none, and whether it may be less than the owner once knew.
    Says(Option<State>, bool),
    /// Its record is damaged too.
    Damaged,
    Silent,
}

/// Asks all other owners for a key and joins what they have.
async fn compare(node: &Arc<Node>, row: &Bytes) -> Result<Compared, StoreError> {
    let (Some((bucket, key)), Some(partition)) =
        (rows::bucket_and_key(row), rows::partition_of_data(row))
    else {
        return Ok(Compared::Incomplete); // the name itself is damaged: nobody can be asked
    };
    let view = node.view();
    let keepers = view.owners(partition).first(node.buckets().copies(bucket));
    let owners = view.living(keepers);
    let (Owners::One(settled) | Owners::Joint { old: settled, .. }) = keepers;
    if !owners.contains(&node.id()) {
        return Ok(Compared::Incomplete); // what is left of it here is handed over (`moves::clean`)
    }
    let others: Vec<NodeId> = owners.into_iter().filter(|owner| *owner != node.id()).collect();
    let asked = others.iter().map(|owner| ask(node, *owner, bucket, key.clone()));
    let answers = join_all(asked).await;

    let mut joined: Option<State> = None;
    let (mut all_answered, mut any_sure) = (true, false);
    for (owner, answer) in others.iter().zip(answers) {
        match answer {
            Answer::Says(state, in_doubt) => {
                // that one who only joins holds nothing says nothing
                any_sure |= !in_doubt && (state.is_some() || settled.contains(owner));
                match (&mut joined, state) {
                    (_, None) => {}
                    (Some(joined), Some(state)) => joined.join(state),
                    (None, state) => joined = state,
                }
            }
            Answer::Damaged => {}
            Answer::Silent => all_answered = false,
        }
    }
    // What only owners in doubt have stays with them for now. With it here, our trees would be equal to those of an owner
    // that has lost its memory and compares with us: it would end its doubt without ever hearing of this key.
    let may_keep = any_sure || node.doubt().is_accepted(row);
    if let Some(joined) = joined
        && !joined.is_unknown()
        && may_keep
    {
        match replica::join(node, row, joined, Ack::Durable) {
            Ok(kept) => kept.done().await?,
            Err(_) => return Ok(Compared::Incomplete), // no room on the disk; later perhaps
        }
    }
    Ok(match (all_answered, any_sure) {
        (false, _) => Compared::Incomplete,
        (true, false) => Compared::AllInDoubt,
        (true, true) => Compared::WithAll,
    })
}

fn ask(node: &Arc<Node>, owner: NodeId, bucket: BucketId, key: Bytes) -> Boxed<Answer> {
    if node.liveness().is_down(owner) {
        return Box::pin(async { Answer::Silent });
    }
    let fetch = Request::Fetch(Fetch { key, durable: true, hints: false });
    let envelope = node.envelope_for(node.clock().now() + PATIENCE, 0, bucket);
    let call = node.transport().call(owner, Lane::Bulk, envelope, fetch);
    let node = node.clone();
    Box::pin(async move {
        let Ok(answer) = tokio::time::timeout(PATIENCE, call).await else {
            return Answer::Silent;
        };
        node.liveness().learn(owner, &answer);
        match answer {
            Ok((_, Reply::Fetched(fetched))) if !fetched.known => {
                Answer::Says(None, fetched.in_doubt)
            }
            Ok((_, Reply::Fetched(fetched))) => match node.decoded(bucket, &fetched.state) {
                Some(state) => Answer::Says(Some(state), fetched.in_doubt),
                None => Answer::Silent,
            },
            Ok((_, Reply::Failed(failure))) if failure.code == ErrorCode::Corrupt => {
                Answer::Damaged
            }
            Ok(_) | Err(_) => Answer::Silent,
        }
    })
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
