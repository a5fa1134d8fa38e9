//! What a coordinator does for a client: one file per story, the same parts in the same order.
//!
//! [`write`] is the story of a put and of a delete, its second half in [`spread`]; [`get`] is that of a read. Both begin with
//! a [`Place`]: where the key lives, as one view sees it. [`ballot`] counts the votes on a write, [`hand_over`] gives one to
//! another node, [`stand_ins`] says who takes the seat of an owner that is out of reach, and [`turn`] is the local step of a
//! write.

use std::{sync::Arc, time::Duration};

use atoll_antientropy::{Context, ContextToken, INTERVALS_MAX, Kind, TokenError};
use atoll_ring::{Epoch, NodeId, Owners, Partition, Quorum, QuorumRequest, Token, View};
use atoll_wire::{
    BucketId, Effect, Envelope, ErrorCode, Failure,
    bucket::{Definition, Entry},
    limits::KEY_BYTES_MAX,
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    Node,
    canary::{self, Canary},
    node::Due,
    storage::rows,
    trace::Traced,
};

mod ballot;
pub(crate) mod get;
mod hand_over;
pub(crate) mod list;
pub(crate) mod many;
mod sight;
mod spread;
pub(crate) mod stand_ins;
mod turn;
pub(crate) mod write;

/// Where a key lives.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) view: Arc<View>,
    pub(crate) partition: Partition,
    pub(crate) bucket: BucketId,
    /// What the bucket's values are.
    pub(crate) kind: Kind,
    pub(crate) key: Bytes,
    pub(crate) row: Bytes,
    entry: Arc<Entry>,
}

impl Place {
    /// Where this key lives, or why it can live nowhere.
    pub(crate) fn of(node: &Node, bucket: BucketId, key: Bytes) -> Result<Self, Failure> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let detail = format!("a key has 1 to {KEY_BYTES_MAX} bytes, this one {}", key.len());
            return Err(Failure::refused(ErrorCode::KeyLength, detail));
        }
        let view = node.view();
        let entry = node.buckets().living(bucket)?;
        let kind = entry.definition.kind;
        let token = Token::of(&bucket.0, &key);
        let partition = view.partition(token);
        let row = rows::data(partition, token, bucket, &key);
        Ok(Place { view, partition, bucket, kind, key, row, entry })
    }

    /// Where the keys of a bucket in this partition live.
    pub(crate) fn of_partition(
        node: &Node,
        bucket: BucketId,
        partition: Partition,
    ) -> Result<Self, Failure> {
        let place = Place::of(node, bucket, Bytes::from_static(b"any"))?;
        Ok(Place { partition, key: Bytes::new(), row: Bytes::new(), ..place })
    }

    /// The same key as the node's present view sees it.
    pub(crate) fn anew(&self, node: &Node) -> Self {
        Place { view: node.view(), ..self.clone() }
    }

    /// With which view this was planned.
    pub(crate) fn epoch(&self) -> Epoch {
        self.view.epoch()
    }

    /// Whether the partition has changed since, as far as this node knows by now.
    pub(crate) fn is_stale(&self, node: &Node) -> bool {
        self.epoch() < node.view().last_changed(self.partition)
    }

    /// The envelope of a message that belongs to this plan.
    pub(crate) fn envelope(&self, node: &Node, due: Due) -> Envelope {
        let envelope = node.envelope_for(due.deadline, due.operation, self.bucket);
        Envelope { epoch: self.epoch(), trace: matches!(due.traced, Traced::As(_)), ..envelope }
    }

    /// Where the key lies on the ring.
    pub(crate) fn token(&self) -> Token {
        Token::of(&self.bucket.0, &self.key)
    }

    /// Copies the bucket keeps.
    pub(crate) fn bucket_n(&self) -> u8 {
        self.definition().n
    }

    /// What the bucket is: its kind, and the properties it had when the request began.
    pub(crate) fn definition(&self) -> &Definition {
        &self.entry.definition
    }

    /// The first `n` owners.
    pub(crate) fn owners(&self, n: u8) -> Owners<'_> {
        self.view.owners(self.partition).first(n)
    }

    /// Those of them that a read asks: all.
    pub(crate) fn owners_to_read(&self, n: u8) -> Owners<'_> {
        match self.owners(n) {
            Owners::Joint { old, .. } if canary::is_on(Canary::ReadOldOnly) => Owners::One(old),
            owners => owners,
        }
    }

    /// The owner that stands first, wherever the partition may be moving to: the first of the old ones.
    pub(crate) fn first_owner(&self) -> NodeId {
        self.owners(1).all()[0]
    }

    /// The context in a token, if it is this key's.
    pub(crate) fn open(&self, node: &Node, token: Bytes) -> Result<Context, Failure> {
        if token.is_empty() {
            return Ok(Context::new());
        }
        let cluster = self.view.cluster().0;
        ContextToken::from(token).open(node.secret(), &cluster, &self.bucket.0, &self.key).map_err(
            |error| {
                let code = match error {
                    TokenError::OtherCluster => ErrorCode::ContextOtherCluster,
                    TokenError::OtherKey => ErrorCode::ContextOtherKey,
                    TokenError::Malformed | TokenError::Forged | TokenError::TooLong => {
                        ErrorCode::ContextMalformed
                    }
                };
                Failure::refused(code, format!("{error}; read the key again to get one"))
            },
        )
    }

    /// The token of a context; empty if there is nothing in it, or more than a client may hand back.
    pub(crate) fn seal(&self, node: &Node, context: &Context) -> Bytes {
        if context.is_empty() || context.intervals() > INTERVALS_MAX {
            return Bytes::new();
        }
        let cluster = self.view.cluster().0;
        ContextToken::seal(node.secret(), &cluster, &self.bucket.0, &self.key, context)
            .as_bytes()
            .clone()
    }
}

/// The owner sets in each of which a quorum is needed: one, or two while the partition moves.
pub(crate) fn sets(owners: Owners<'_>) -> Vec<Vec<NodeId>> {
    match owners {
        Owners::One(set) => vec![set.to_vec()],
        Owners::Joint { old, new } => vec![old.to_vec(), new.to_vec()],
    }
}

/// What a request needs, what it leaves out being as the bucket has it.
pub(crate) fn quorum(request: &QuorumRequest, place: &Place) -> Result<Quorum, Failure> {
    let Definition { n, properties, .. } = place.definition();
    Quorum::new(&properties.fill(request, *n), *n)
        .map_err(|error| Failure::refused(ErrorCode::BadQuorum, error.to_string()))
}

pub(crate) fn check_value(value: &Bytes, place: &Place) -> Result<(), Failure> {
    let bytes_max = place.definition().properties.value_bytes_max();
    if value.len() > bytes_max {
        let (name, bytes) = (&place.definition().name, value.len());
        let detail = format!(
            "a value in the bucket `{name}` has at most {bytes_max} bytes, this one {bytes}"
        );
        return Err(Failure::refused(ErrorCode::ValueTooLarge, detail));
    }
    Ok(())
}

/// The partition has changed again and again, and the request has been planned as often as it may.
pub(crate) fn planned_in_vain(effect: Effect) -> Failure {
    let detail = format!(
        "the key's partition has changed its owners under the request, which is planned at most {PLANS_MAX} times; try \
         again (`atoll ring moves` shows what moves)"
    );
    let retry_after_ms = 100;
    Failure { effect, retry_after_ms, ..Failure::refused(ErrorCode::StaleView, detail) }
}

/// Why too few have answered, if others know what we do not.
pub(crate) const LEFT_BEHIND: &str = "because others know a newer view of the ring, which has not come here; try again, or through another node";

/// How often a request is planned, the first time included. A move changes its partition twice, so this is enough for one
/// that begins and ends under a request, and the beginning of the next.
pub(crate) const PLANS_MAX: usize = 4;

/// Microseconds since the start of a request, as they stand in a receipt.
pub(crate) fn micros(started: Instant, now: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(started).as_micros()).unwrap_or(u32::MAX)
}

/// Share of a request's time after which an owner that has not answered is treated as out of reach: a quarter. A fallback
/// then still has most of the time.
pub(crate) const SILENCE_SHARE: u32 = 4;

/// The longest a single hop may wait: an idle connection is given up a second later.
pub(crate) const HOP_LIMIT: Duration = Duration::from_secs(4);
