//! A replica's part: giving its state of a key, and joining a state into its own. A fallback's copy is its hints.
//!
//! A join is harmless in any order and any number of times, so nothing here asks where a state comes from. A damaged
//! record is neither missing nor deleted. Whoever meets one sets it aside, and from then on the key is in doubt: states
//! are joined into a fresh record, what is acknowledged is kept, and no answer counts until the key was compared with
//! every other owner ([`crate::repair::quarantine`]). A node whose disk is nearly full joins nothing; it still confirms
//! what it has.
//!
//! What was planned before the partition last changed is refused ([`crate::fence`]), and so is what only an owner may do: a
//! node never begins a row of a partition that is not its own.

use std::sync::Arc;

use atoll_antientropy::{Note, State};
use atoll_ring::{Epoch, NodeId, Partition, Token};
use atoll_transport::Answer;
use atoll_wire::{
    Ack, BucketId, Deed, Envelope, ErrorCode, Failure, Fetch, Fetched, Replicate, Replicated, Reply,
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    Node, buckets,
    canary::{self, Canary},
    fence,
    node::{Due, failed},
    storage::{Space, StoreError, Write, commit::Ticket, record::Record, rows, summary::Summary},
};

/// What a node's own copy of a key is.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a few lines, and a box would be an allocation for every read"
)]
pub(crate) enum Own {
    /// Never heard of it.
    Missing,
    /// A state, perhaps a tombstone.
    Known(Record),
    /// There is something, but not what was written.
    Corrupt,
}

/// The own copy, if there is one. A damaged record is set aside, and is a missing one from then on; that it may once have
/// been more is said by [`crate::doubt::Doubt::covers`].
pub(crate) fn read(node: &Node, row: &Bytes) -> Result<Option<Record>, StoreError> {
    let value = node.disk().get(Space::Data, row)?;
    match Own::of(row, value.clone()) {
        Own::Missing if node.disk().get(Space::Digests, row)?.is_none() => Ok(None),
        Own::Known(record) => Ok(Some(record)),
        // a record of which something is said and that is not there was lost, and that is damage too
        Own::Missing | Own::Corrupt => {
            set_aside(node, row, value.unwrap_or_default())?;
            Ok(None)
        }
    }
}

/// A record is damaged: it is kept for whoever wants to look at it, its key is in doubt, and the tree forgets it.
pub(crate) fn set_aside(node: &Node, row: &Bytes, damaged: Bytes) -> Result<(), StoreError> {
    node.count_corrupt();
    let view = node.view();
    let owners = match rows::partition_of_data(row) {
        Some(partition) => view.living(view.owners(partition)),
        None => Vec::new(),
    };
    let others = owners.into_iter().filter(|owner| *owner != node.id()).collect();
    tracing::warn!(row = %row.escape_ascii(), "a record is damaged; it is set aside and fetched anew");
    let before = node.repair().trees.summary(row)?;
    node.repair().trees.update(row, before, None);
    node.doubt().quarantine(row, damaged, others, node.clock().now());
    Ok(())
}

/// What this node can say of a key, and whether that may be less than it once knew.
pub(crate) fn known(node: &Node, row: &Bytes) -> Result<(Known, bool), StoreError> {
    let known = match read(node, row)? {
        Some(record) => Known::State(record.bytes),
        None if node.doubt().covers_key(row) => Known::Corrupt,
        None if canary::is_on(Canary::EmptyIsTruth) => return Ok((Known::Nothing, false)),
        None => Known::Nothing,
    };
    Ok((known, node.doubt().covers(row)))
}

impl Own {
    /// What is known. Nothing in a damaged hint can be brought to anybody.
    pub(crate) fn record(self) -> Option<Record> {
        match self {
            Own::Known(record) => Some(record),
            Own::Missing | Own::Corrupt => None,
        }
    }

    /// What lies in a row. Bytes that are no state are damaged too, whatever their checksum says.
    pub(crate) fn of(row: &[u8], value: Option<Bytes>) -> Own {
        match value.map(|value| Record::decode(row, &value)) {
            None => Own::Missing,
            Some(Ok(record)) => Own::Known(record),
            Some(Err(_)) => Own::Corrupt,
        }
    }
}

/// The row of a key on this node.
pub(crate) fn row_of(node: &Node, bucket: BucketId, key: &[u8]) -> Bytes {
    let token = Token::of(&bucket.0, key);
    rows::data(node.view().partition(token), token, bucket, key)
}

fn partition_of(node: &Node, bucket: BucketId, key: &[u8]) -> Partition {
    node.view().partition(Token::of(&bucket.0, key))
}

/// Answers a fetch.
pub(crate) fn fetch(node: &Arc<Node>, envelope: &Envelope, fetch: &Fetch, due: Due) -> Answer {
    if let Err(failure) = node.buckets().living(envelope.bucket) {
        return Answer::Now(failed(failure));
    }
    let partition = partition_of(node, envelope.bucket, &fetch.key);
    let planned = envelope.epoch;
    let refused = fence::of_others(node, partition, planned).and_then(|()| match fetch.hints {
        true => Ok(()),
        false => fence::owners_only(node, partition, envelope.bucket),
    });
    if let Err(failure) = refused {
        return Answer::Now(failed(failure));
    }
    let row = row_of(node, envelope.bucket, &fetch.key);
    let known = match fetch.hints {
        false => known(node, &row),
        true => hints_of(node, envelope.bucket, &fetch.key).map(|known| (known, false)),
    };
    node.note(due, Deed::OwnCopyRead);
    let found =
        |known, in_doubt, state| Reply::Fetched(Fetched { known, in_doubt, trace: None, state });
    let reply = match known {
        Ok((Known::Nothing, in_doubt)) => found(false, in_doubt, Bytes::new()),
        Ok((Known::State(state), in_doubt)) => found(true, in_doubt, state),
        Ok((Known::Corrupt, _)) => failed(corrupt(node)),
        Err(error) => failed(stopping(&error)),
    };
    if !fetch.durable {
        return Answer::Now(reply);
    }
    let settled = node.disk().settled(); // what was read may lie in the queue only
    let node = node.clone();
    Answer::Later(Box::pin(async move {
        let outcome = settled.done().await.map_err(|error| stopping(&error));
        node.note(due, Deed::Fsynced);
        match outcome.and_then(|()| still_asked(&node, partition, planned, due.deadline)) {
            Ok(()) => reply,
            Err(failure) => failed(failure),
        }
    }))
}

/// What a replica can say of a key.
pub(crate) enum Known {
    Nothing,
    /// Canonical bytes.
    State(Bytes),
    /// The record was damaged and nothing has come since, or the hint is.
    Corrupt,
}

/// What this node knows of a key as a fallback: its hints for all owners, joined.
pub(crate) fn hints_of(node: &Node, bucket: BucketId, key: &[u8]) -> Result<Known, StoreError> {
    let row = row_of(node, bucket, key);
    let view = node.view();
    let mut joined: Option<State> = None;
    let owners = view.owners(view.partition(Token::of(&bucket.0, key)));
    for owner in owners.first(node.buckets().copies(bucket)).all() {
        match node.hints().read(owner, &row)? {
            Own::Missing => {}
            Own::Known(Record { state: hint, .. }) => match &mut joined {
                Some(joined) => joined.join(hint),
                None => joined = Some(hint),
            },
            Own::Corrupt => return Ok(Known::Corrupt),
        }
    }
    Ok(match joined {
        Some(joined) if !joined.is_unknown() => Known::State(joined.encode().into()),
        Some(_) | None => Known::Nothing,
    })
}

/// Whether an answer is of use still. The node may have slept, through the request's time or through a change of the ring.
fn still_asked(
    node: &Node,
    partition: Partition,
    planned: Epoch,
    deadline: Instant,
) -> Result<(), Failure> {
    if node.clock().now() > deadline {
        return Err(late());
    }
    // no matter what was done: it counts only in the plan that it was asked in
    let unknown = |stale| Failure { effect: atoll_wire::Effect::Unknown, ..stale };
    fence::of_others(node, partition, planned).map_err(unknown)
}

/// Answers a replicate, when the state is as safe as was asked.
pub(crate) async fn replicate(
    node: Arc<Node>,
    envelope: Envelope,
    replicate: Replicate,
    due: Due,
) -> Reply {
    if node.disk().is_full() {
        return failed(overloaded());
    }
    let Some(incoming) = node.decoded(envelope.bucket, &replicate.state) else {
        let detail = "these bytes are no state of a key of this bucket";
        return failed(Failure::refused(ErrorCode::Malformed, detail));
    };
    let partition = partition_of(&node, envelope.bucket, &replicate.key);
    let row = row_of(&node, envelope.bucket, &replicate.key);
    let kept = fence::of_others(&node, partition, envelope.epoch);
    let kept = kept.and_then(|()| match replicate.hint_for {
        None => join(&node, &row, incoming, replicate.ack),
        Some(owner) => {
            fence::owned_by(&node, NodeId(owner), partition, envelope.bucket, envelope.epoch)?;
            fence::stays(&node)?;
            stand_in(&node, &row, &incoming, NodeId(owner))
        }
    });
    let ticket = match kept {
        Ok(ticket) => ticket,
        Err(failure) => return failed(failure),
    };
    node.note(due, Deed::Joined);
    let outcome = match tokio::time::timeout_at(due.deadline, ticket.done()).await {
        Ok(Ok(())) => {
            node.note(due, reached(replicate.ack));
            still_asked(&node, partition, envelope.epoch, due.deadline)
        }
        Ok(Err(error)) => Err(stopping(&error)),
        Err(_) => Err(late()),
    };
    match outcome {
        Ok(()) => {
            let durable = replicate.ack == Ack::Durable;
            Reply::Replicated(Replicated { durable, trace: None })
        }
        Err(failure) => failed(failure),
    }
}

/// What has happened when an acknowledgement was earned.
pub(crate) fn reached(asked: Ack) -> Deed {
    match asked {
        Ack::Written => Deed::Written,
        Ack::Durable => Deed::Fsynced,
    }
}

/// A fallback's part: keeps the state as a hint for an owner. It counts in an acknowledgement, so past the bound it is
/// refused rather than dropped.
fn stand_in(node: &Node, row: &Bytes, incoming: &State, owner: NodeId) -> Result<Ticket, Failure> {
    node.buckets().living(buckets::of_row(row))?;
    node.takes_writes()?; // a hint takes room like any write
    let kept = node.hints().keep(owner, row, incoming);
    kept.map_err(|error| stopping(&error))?.ok_or_else(|| hints_full(node, owner))
}

/// Joins a state into the own copy, on a node that owns the partition. The ticket is good when the result, or the equal copy
/// that was there, is as safe as asked.
pub(crate) fn join(node: &Node, row: &Bytes, incoming: State, ack: Ack) -> Result<Ticket, Failure> {
    let partition = rows::partition_of_data(row).expect("whoever names a row names its partition");
    let bucket = buckets::of_row(row);
    node.buckets().living(bucket)?; // what was dropped is never brought back by who has not heard
    fence::owners_only(node, partition, bucket)?;
    let (note, before, state) = match read(node, row).map_err(|error| stopping(&error))? {
        None => (None, None, incoming),
        Some(Record { note, state: mut own, bytes }) => {
            if own.covers(&incoming) {
                return Ok(match ack {
                    Ack::Durable => node.disk().settled(),
                    Ack::Written => node.disk().write(Vec::new(), Ack::Written),
                });
            }
            let before = Summary::of_encoded(&own, &bytes);
            let newest = |state: &State| state.context().iter().map(|known| known.hi).max();
            match canary::is_on(Canary::NewerClockWins) {
                true if newest(&incoming) > newest(&own) => own = incoming,
                true => {}
                false => own.join(incoming),
            }
            (note, Some(before), own)
        }
    };
    node.takes_writes()?;
    Ok(store(node, row, note.as_ref(), before, &state, ack))
}

/// Queues a record in place of one of which this was said, and what is said of the new one; the tree hears it now, when
/// reads see it.
pub(crate) fn store(
    node: &Node,
    row: &Bytes,
    note: Option<&Note>,
    before: Option<Summary>,
    state: &State,
    ack: Ack,
) -> Ticket {
    let bytes = state.encode();
    let value = Record::encode(row, note, &bytes);
    let record = Write { space: Space::Data, row: row.clone(), value: Some(value) };
    let after = Summary::of_encoded(state, &bytes);
    node.repair().trees.update(row, before, Some(after));
    node.disk().write(vec![record, after.write(row)], ack)
}

pub(crate) fn corrupt(node: &Node) -> Failure {
    Failure::refused(
        ErrorCode::Corrupt,
        format!(
            "{}'s record of this key is damaged; it fetches the key from its other owners",
            node.id()
        ),
    )
}

pub(crate) fn overloaded() -> Failure {
    let detail = "the node's write queue is full; try again in a moment";
    Failure { retry_after_ms: 100, ..Failure::refused(ErrorCode::Overloaded, detail) }
}

pub(crate) fn hints_full(node: &Node, owner: NodeId) -> Failure {
    let detail = format!("{} may keep no more hints for {owner} until it is back", node.id());
    Failure::refused(ErrorCode::HintsFull, detail)
}

pub(crate) fn stopping(error: &StoreError) -> Failure {
    Failure {
        effect: atoll_wire::Effect::Unknown,
        ..Failure::refused(ErrorCode::Stopping, error.to_string())
    }
}

fn late() -> Failure {
    Failure {
        effect: atoll_wire::Effect::Unknown,
        ..Failure::refused(ErrorCode::DeadlinePassed, "the disk was slower than the request's time")
    }
}
