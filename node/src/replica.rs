//! A replica's part: giving its state of a key, and joining a state into its own. A fallback's copy is its hints.
//!
//! A join is harmless in any order and any number of times, so nothing here asks where a state comes from. A damaged
//! record is neither missing nor deleted: it gives no answer, and takes nothing but a state that every other owner has
//! contributed to. A node whose disk is nearly full joins nothing; it still confirms what it has.

use std::sync::Arc;

use atoll_antientropy::{Note, Register};
use atoll_ring::{NodeId, Token};
use atoll_transport::Answer;
use atoll_wire::{
    Ack, BucketId, Envelope, ErrorCode, Failure, Fetch, Fetched, Replicate, Replicated, Reply,
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    Node,
    canary::{self, Canary},
    node::failed,
    storage::{Space, StoreError, Write, commit::Ticket, record::Record, rows},
};

/// What a node's own copy of a key is.
pub(crate) enum Own {
    /// Never heard of it.
    Missing,
    /// A state, perhaps a tombstone.
    Known(Record),
    /// There is something, but not what was written.
    Corrupt,
}

/// The own copy.
pub(crate) fn read(node: &Node, row: &Bytes) -> Result<Own, StoreError> {
    let own = Own::of(row, node.disk().get(Space::Data, row)?);
    if matches!(own, Own::Corrupt) {
        node.count_corrupt();
    }
    Ok(own)
}

impl Own {
    /// What lies in a row.
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

/// Answers a fetch.
pub(crate) fn fetch(node: &Arc<Node>, envelope: &Envelope, fetch: &Fetch) -> Answer {
    let row = row_of(node, envelope.bucket, &fetch.key);
    let known = match fetch.hints {
        false => read(node, &row).map(Known::from),
        true => hints_of(node, envelope.bucket, &fetch.key),
    };
    let reply = match known {
        Ok(Known::Nothing) => {
            Reply::Fetched(Fetched { known: false, in_doubt: false, state: Bytes::new() })
        }
        Ok(Known::State(state)) => Reply::Fetched(Fetched { known: true, in_doubt: false, state }),
        Ok(Known::Corrupt) => failed(corrupt(node)),
        Err(error) => failed(stopping(&error)),
    };
    if !fetch.durable {
        return Answer::Now(reply);
    }
    let settled = node.disk().settled(); // what was read may lie in the queue only
    Answer::Later(Box::pin(async move {
        match settled.done().await {
            Ok(()) => reply,
            Err(error) => failed(stopping(&error)),
        }
    }))
}

/// What a replica can say of a key.
pub(crate) enum Known {
    Nothing,
    /// Canonical bytes.
    State(Bytes),
    Corrupt,
}

impl From<Own> for Known {
    fn from(own: Own) -> Known {
        match own {
            Own::Missing => Known::Nothing,
            Own::Known(record) => Known::State(record.state),
            Own::Corrupt => Known::Corrupt,
        }
    }
}

/// What this node knows of a key as a fallback: its hints for all owners, joined.
pub(crate) fn hints_of(node: &Node, bucket: BucketId, key: &[u8]) -> Result<Known, StoreError> {
    let row = row_of(node, bucket, key);
    let view = node.view();
    let mut joined = Register::default();
    for owner in view.owners(view.partition(Token::of(&bucket.0, key))).all() {
        match node.hints().read(owner, &row)? {
            Own::Missing => {}
            Own::Known(record) => match record.register() {
                Ok(state) => joined.join(state),
                Err(_) => return Ok(Known::Corrupt),
            },
            Own::Corrupt => return Ok(Known::Corrupt),
        }
    }
    Ok(match joined.is_unknown() {
        true => Known::Nothing,
        false => Known::State(joined.encode().into()),
    })
}

/// Answers a replicate, when the state is as safe as was asked.
pub(crate) async fn replicate(
    node: Arc<Node>,
    envelope: Envelope,
    replicate: Replicate,
    deadline: Instant,
) -> Reply {
    if node.disk().is_full() {
        return failed(overloaded());
    }
    let Ok(incoming) = Register::decode(&replicate.state) else {
        return failed(Failure::refused(ErrorCode::Malformed, "these bytes are no state"));
    };
    let row = row_of(&node, envelope.bucket, &replicate.key);
    let kept = match replicate.hint_for {
        None => join(&node, &row, incoming, replicate.replaces_corrupt, replicate.ack),
        Some(owner) => stand_in(&node, envelope.bucket, &replicate.key, &incoming, NodeId(owner)),
    };
    let ticket = match kept {
        Ok(ticket) => ticket,
        Err(failure) => return failed(failure),
    };
    match tokio::time::timeout_at(deadline, ticket.done()).await {
        Ok(Ok(())) => Reply::Replicated(Replicated { durable: replicate.ack == Ack::Durable }),
        Ok(Err(error)) => failed(stopping(&error)),
        Err(_) => failed(late()),
    }
}

/// A fallback's part: keeps the state as a hint for an owner. It counts in an acknowledgement, so past the bound it is
/// refused rather than dropped.
fn stand_in(
    node: &Node,
    bucket: BucketId,
    key: &[u8],
    incoming: &Register,
    owner: NodeId,
) -> Result<Ticket, Failure> {
    let view = node.view();
    if !view.owners(view.partition(Token::of(&bucket.0, key))).contains(owner) {
        let detail = format!("{owner} is no owner of this key");
        return Err(Failure::refused(ErrorCode::Malformed, detail));
    }
    node.takes_writes()?; // a hint takes room like any write
    let kept = node.hints().keep(owner, &row_of(node, bucket, key), incoming);
    kept.map_err(|error| stopping(&error))?.ok_or_else(|| hints_full(node, owner))
}

/// Joins a state into the own copy. The ticket is good when the result, or the equal copy that was there, is as safe as
/// asked.
pub(crate) fn join(
    node: &Node,
    row: &Bytes,
    incoming: Register,
    replaces_corrupt: bool,
    ack: Ack,
) -> Result<Ticket, Failure> {
    let (note, state) = match read(node, row).map_err(|error| stopping(&error))? {
        Own::Missing => (None, incoming),
        Own::Known(record) => {
            let mut own = record.register().map_err(|_| corrupt(node))?;
            if own.covers(&incoming) {
                return Ok(match ack {
                    Ack::Durable => node.disk().settled(),
                    Ack::Written => node.disk().write(Vec::new(), Ack::Written),
                });
            }
            let newest = |state: &Register| state.context().iter().map(|known| known.hi).max();
            match canary::is_on(Canary::NewerClockWins) {
                true if newest(&incoming) > newest(&own) => own = incoming,
                true => {}
                false => own.join(incoming),
            }
            (record.note, own)
        }
        Own::Corrupt if replaces_corrupt => (None, incoming),
        Own::Corrupt => return Err(corrupt(node)),
    };
    node.takes_writes()?;
    Ok(store(node, row, note.as_ref(), &state, ack))
}

/// Queues a record.
pub(crate) fn store(
    node: &Node,
    row: &Bytes,
    note: Option<&Note>,
    state: &Register,
    ack: Ack,
) -> Ticket {
    let value = Record::encode(row, note, &state.encode());
    node.disk().write(vec![Write { space: Space::Data, row: row.clone(), value: Some(value) }], ack)
}

pub(crate) fn corrupt(node: &Node) -> Failure {
    Failure::refused(
        ErrorCode::Corrupt,
        format!("{}'s record of this key is damaged; it waits for the other owners", node.id()),
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
