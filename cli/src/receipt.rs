//! Who answered, and what a failure has left behind: the same words after every request.

use atoll_client::{Effect, ErrorCode, Failure, NodeId, Outcome, Promise, Receipt, RequestError};
use serde::Serialize;

use crate::exit::{Exit, Failed};

/// A receipt in JSON.
#[derive(Serialize)]
pub struct Document {
    epoch: u64,
    coordinator: String,
    n: u8,
    needed: u8,
    owners_needed: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    durable_needed: Option<u8>,
    promise: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meets: Option<u8>,
    replicas: Vec<Replica>,
    hinted: Vec<String>,
    unhinted: Vec<String>,
    repaired: Vec<String>,
}

#[derive(Serialize)]
struct Replica {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_in_for: Option<String>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<f64>,
}

/// The JSON of a write's receipt.
pub fn of_write(receipt: &Receipt) -> Document {
    Document { durable_needed: Some(receipt.durable_needed), ..of_read(receipt) }
}

/// The JSON of a read's receipt.
pub fn of_read(receipt: &Receipt) -> Document {
    let name = |node: &u32| NodeId(*node).to_string();
    Document {
        epoch: receipt.epoch.0,
        coordinator: name(&receipt.coordinator),
        n: receipt.n,
        needed: receipt.needed,
        owners_needed: receipt.owners_needed,
        durable_needed: None,
        promise: receipt.promise().word(),
        meets: match receipt.promise() {
            Promise::Strict { meets } => Some(meets),
            Promise::Eventual => None,
        },
        replicas: receipt
            .replicas
            .iter()
            .map(|replica| Replica {
                node: name(&replica.node),
                stands_in_for: replica.stands_in_for.as_ref().map(name),
                outcome: replica.outcome.word(),
                ms: answered(replica.outcome).then(|| f64::from(replica.micros) / 1000.0),
            })
            .collect(),
        hinted: receipt.hinted.iter().map(name).collect(),
        unhinted: receipt.unhinted.iter().map(name).collect(),
        repaired: receipt.repaired.iter().map(name).collect(),
    }
}

/// A receipt below what was printed: who did what, and what the answer stands for.
pub fn print(asked: Asked, receipt: &Receipt) {
    anstream::eprintln!("\x1b[2m{}\x1b[0m", line(receipt));
    anstream::eprintln!("\x1b[2m{}\x1b[0m", promise(asked, receipt));
}

/// What an answer stands for, for people.
pub fn promise(asked: Asked, receipt: &Receipt) -> String {
    match (receipt.promise(), asked) {
        (Promise::Strict { meets }, Asked::Read) => {
            format!("strict: sees every write that {} acknowledged", owners(meets))
        }
        (Promise::Strict { meets }, Asked::Write) => {
            format!("strict: every read that {} answer sees it", owners(meets))
        }
        (Promise::Eventual, _) => {
            "eventual: fallbacks may stand in for owners (--strict counts owners only)".into()
        }
    }
}

fn owners(count: u8) -> String {
    if count == 1 { "an owner".into() } else { format!("{count} owners") }
}

/// A receipt for people, one line: `n2 coordinated: n2 durable 0.4 ms, n4 for n3 durable 0.9 ms, n5 pending`.
pub fn line(receipt: &Receipt) -> String {
    let replicas: Vec<String> = receipt
        .replicas
        .iter()
        .map(|replica| {
            let node = match replica.stands_in_for {
                Some(owner) => format!("{} for {}", NodeId(replica.node), NodeId(owner)),
                None => NodeId(replica.node).to_string(),
            };
            if answered(replica.outcome) {
                let ms = f64::from(replica.micros) / 1000.0;
                format!("{node} {} {ms:.1} ms", replica.outcome.word())
            } else {
                format!("{node} {}", replica.outcome.word())
            }
        })
        .collect();
    let mut line = format!("{} coordinated: {}", NodeId(receipt.coordinator), replicas.join(", "));
    if !receipt.hinted.is_empty() {
        line.push_str(&format!("; hints kept for {}", names(&receipt.hinted)));
    }
    if !receipt.unhinted.is_empty() {
        line.push_str(&format!("; no room for hints for {}", names(&receipt.unhinted)));
    }
    if !receipt.repaired.is_empty() {
        line.push_str(&format!("; repairing {}", names(&receipt.repaired)));
    }
    line
}

fn names(nodes: &[u32]) -> String {
    nodes.iter().map(|node| NodeId(*node).to_string()).collect::<Vec<_>>().join(", ")
}

/// Whether the time in a report is that of an answer.
fn answered(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Durable
        | Outcome::Written
        | Outcome::Current
        | Outcome::Behind
        | Outcome::Corrupt
        | Outcome::Refused
        | Outcome::KnowsNothing
        | Outcome::HintsFull
        | Outcome::InDoubt => true,
        Outcome::NotAsked | Outcome::Pending | Outcome::Down | Outcome::Silent => false,
    }
}

/// What was asked for, for the words of an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A get.
    Read,
    /// A put or delete.
    Write,
}

/// A failed request as an error for people: what happened, who answered, what the state is now, what to do.
pub fn failure(asked: Asked, error: &RequestError) -> Failed {
    let exit = match error {
        RequestError::Quorum(_)
        | RequestError::Limit(_)
        | RequestError::OtherKind(_)
        | RequestError::Session(_)
        | RequestError::Bucket(_)
        | RequestError::NoSuchNode { .. } => Exit::Refused,
        RequestError::Unreachable { .. } => Exit::CannotConnect,
        RequestError::TimedOut { .. } => Exit::Timeout,
        RequestError::Lost { .. } | RequestError::Nonsense { .. } => Exit::Other,
        RequestError::Failed(failure) => exit_of(failure.code),
    };
    let mut what = error.to_string();
    if let RequestError::Failed(failure) = error {
        if let Some(receipt) = &failure.receipt {
            what.push_str(&format!("\n  {}", line(receipt)));
        }
        if asked == Asked::Write {
            what.push_str(&format!("\n  {}", state(failure)));
        }
    } else if asked == Asked::Write && error.effect() == Effect::Unknown {
        what.push_str("\n  the write may have been applied, or may still be");
    }
    let failed = Failed::new(exit, what);
    match mend(asked, error) {
        Some(mend) => failed.mend(mend),
        None => failed,
    }
}

/// What a failed write has left behind.
fn state(failure: &Failure) -> String {
    let holders = |wanted: &[Outcome]| {
        let receipt = failure.receipt.as_ref();
        let replicas = receipt.map(|receipt| receipt.replicas.as_slice()).unwrap_or_default();
        let held = replicas.iter().filter(|replica| wanted.contains(&replica.outcome));
        held.map(|replica| NodeId(replica.node).to_string()).collect::<Vec<_>>().join(", ")
    };
    match failure.effect {
        Effect::NotApplied => "nothing was stored anywhere".into(),
        Effect::Applied(_) => format!(
            "it IS stored, fsynced, on {}: it may become visible and will spread; it is not taken back",
            holders(&[Outcome::Durable])
        ),
        Effect::Unknown => "whether it was stored is unknown: it may become visible".into(),
    }
}

fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::BadQuorum
        | ErrorCode::KeyLength
        | ErrorCode::ValueTooLarge
        | ErrorCode::ContextMalformed
        | ErrorCode::ContextOtherKey
        | ErrorCode::ContextOtherCluster
        | ErrorCode::ContextNeeded
        | ErrorCode::UnknownBucket
        | ErrorCode::WrongKind
        | ErrorCode::BadOperation
        | ErrorCode::KeepsItsValue
        | ErrorCode::BadPage
        | ErrorCode::BadBucket
        | ErrorCode::RingRejected => Exit::Refused,
        ErrorCode::TooManySiblings
        | ErrorCode::BucketExists
        | ErrorCode::BucketDropped
        | ErrorCode::TooManyBuckets
        | ErrorCode::TooManyElements
        | ErrorCode::TooManySessions
        | ErrorCode::CounterOverflow => Exit::Conflict,
        ErrorCode::NothingThere => Exit::NotFound,
        ErrorCode::WriteQuorumNotMet
        | ErrorCode::ReadQuorumNotMet
        | ErrorCode::NoOwnerReachable
        | ErrorCode::SessionNotSatisfied
        | ErrorCode::RingFrozen => Exit::QuorumNotMet,
        ErrorCode::DeadlinePassed => Exit::Timeout,
        ErrorCode::NotPermitted
        | ErrorCode::Malformed
        | ErrorCode::OtherCluster
        | ErrorCode::Overloaded
        | ErrorCode::StaleView
        | ErrorCode::Rising
        | ErrorCode::Removed
        | ErrorCode::HintsFull
        | ErrorCode::Corrupt
        | ErrorCode::ReadOnly
        | ErrorCode::Stopping
        | ErrorCode::ClockOff
        | ErrorCode::Internal => Exit::Other,
    }
}

fn mend(asked: Asked, error: &RequestError) -> Option<String> {
    let unsure = "repeating it with the same --context is safe: it replaces what you saw, and if both \
                  took effect the copies show as siblings";
    let again = match error.effect() {
        Effect::NotApplied => String::new(),
        Effect::Applied(_) | Effect::Unknown => format!("{unsure}; "),
    };
    match error {
        RequestError::Unreachable { .. } => Some("atoll status".into()),
        RequestError::TimedOut { .. } | RequestError::Lost { .. } if asked == Asked::Write => {
            Some(unsure.into())
        }
        RequestError::TimedOut { .. } => Some("a longer --timeout, or atoll status".into()),
        RequestError::Failed(failure) => match (failure.code, asked) {
            (
                ErrorCode::WriteQuorumNotMet
                | ErrorCode::DeadlinePassed
                | ErrorCode::NoOwnerReachable,
                Asked::Write,
            ) => Some(format!("atoll status; {again}or accept fewer acknowledgements with -w")),
            (
                ErrorCode::ReadQuorumNotMet
                | ErrorCode::DeadlinePassed
                | ErrorCode::NoOwnerReachable,
                Asked::Read,
            ) => Some("atoll status; or accept fewer answers with -r".into()),
            (ErrorCode::HintsFull, _) => Some(
                "bring the owners back: atoll status; or raise hint_bytes_per_owner_max".into(),
            ),
            (ErrorCode::Rising, _) => Some("another node, or wait: atoll status".into()),
            (ErrorCode::TooManySiblings, _) => {
                Some("put without --blind: it replaces all siblings with your value".into())
            }
            _ => None,
        },
        RequestError::OtherKind(_) => Some("atoll get KEY reads every kind".into()),
        RequestError::Quorum(_)
        | RequestError::Limit(_)
        | RequestError::Session(_)
        | RequestError::Bucket(_)
        | RequestError::NoSuchNode { .. }
        | RequestError::Lost { .. }
        | RequestError::Nonsense { .. } => None,
    }
}
