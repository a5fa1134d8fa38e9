//! A request that has failed, as people hear of it: what happened, who answered, what is stored where, what to do next.
//!
//! The text of a failure comes from the node that refused, with its numbers. Where that text itself says what to do (a rule
//! and how to keep it) nothing is added; otherwise [`mend_of`] knows. The table at the end goes over every code.

use atoll_client::{Effect, ErrorCode, Failure, NodeId, Outcome, Receipt, RequestError};

use crate::{
    exit::{Exit, Failed},
    receipt::{Asked, line, names},
    steps,
};

/// A failed request as an error for people.
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
    let mut lines = vec![error.to_string()];
    if let RequestError::Failed(failure) = error {
        lines.extend(failure.receipt.as_deref().map(line));
        if asked.writes() {
            lines.push(state(failure));
        }
        let trace = failure.receipt.as_ref().and_then(|receipt| receipt.trace.as_deref());
        lines.extend(trace.map(steps::lines).unwrap_or_default());
    } else if asked.writes() {
        lines.push(match error.effect() {
            Effect::NotApplied => "nothing was stored anywhere".into(),
            Effect::Applied(_) | Effect::Unknown => {
                "whether it was stored is unknown: it may be, or may still be, and then it becomes visible".into()
            }
        });
    }
    let failed = Failed::new(exit, lines.join("\n  "));
    match mend(asked, error) {
        Some(mend) => failed.mend(mend),
        None => failed,
    }
}

/// What a failed write has left behind.
fn state(failure: &Failure) -> String {
    let receipt = failure.receipt.as_deref();
    let fsynced = holders(receipt, Outcome::Durable);
    let written = holders(receipt, Outcome::Written);
    let mut state = match failure.effect {
        Effect::NotApplied => return "nothing was stored anywhere".into(),
        Effect::Applied(_) if fsynced.is_empty() => {
            "it IS stored, fsynced: it may become visible and will spread; it is not taken back"
                .into()
        }
        Effect::Applied(_) => format!(
            "it IS stored, fsynced, on {fsynced}: it may become visible and will spread; it is not taken back"
        ),
        Effect::Unknown => "whether it was stored is unknown: it may become visible".to_owned(),
    };
    if !written.is_empty() {
        state.push_str(&format!("; written and not known to be fsynced: {written}"));
    }
    let hinted = receipt.map(|receipt| receipt.hinted.as_slice()).unwrap_or_default();
    if !hinted.is_empty() {
        state.push_str(&format!("; hints will bring it to {}", names(hinted)));
    }
    state
}

/// Who has got so far: `n2, n4 (in place of n3)`.
fn holders(receipt: Option<&Receipt>, outcome: Outcome) -> String {
    let replicas = receipt.map(|receipt| receipt.replicas.as_slice()).unwrap_or_default();
    let held = replicas.iter().filter(|replica| replica.outcome == outcome);
    let name = |node: u32| NodeId(node).to_string();
    let named = held.map(|replica| match replica.stands_in_for {
        Some(owner) => format!("{} (in place of {})", name(replica.node), name(owner)),
        None => name(replica.node),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// Who gave no answer that counts, and why: `n2 is down, n3 is silent`.
fn missing(failure: &Failure) -> String {
    let receipt = failure.receipt.as_deref();
    let replicas = receipt.map(|receipt| receipt.replicas.as_slice()).unwrap_or_default();
    let missing = replicas.iter().filter_map(|replica| {
        let is = match replica.outcome {
            Outcome::Down => "is down",
            Outcome::Silent => "is silent",
            Outcome::Corrupt => "has a damaged record",
            Outcome::InDoubt => "has lost data",
            Outcome::HintsFull => "can keep no more hints",
            Outcome::Refused => "refused",
            Outcome::Durable
            | Outcome::Written
            | Outcome::Current
            | Outcome::Behind
            | Outcome::NotAsked
            | Outcome::Pending
            | Outcome::KnowsNothing => return None,
        };
        Some(format!("{} {is}", NodeId(replica.node)))
    });
    missing.collect::<Vec<_>>().join(", ")
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
        | ErrorCode::FaultsNotAllowed
        | ErrorCode::BadFaults
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

/// What to do next.
fn mend(asked: Asked, error: &RequestError) -> Option<String> {
    let unsure = asked.writes() && error.effect() != Effect::NotApplied;
    let again = unsure.then(|| again(asked));
    let mend = match error {
        RequestError::Unreachable { .. } => Some("is it running? atoll status".into()),
        RequestError::TimedOut { .. } => {
            Some("a longer --timeout; atoll status shows who is slow".into())
        }
        RequestError::Lost { .. } => Some("atoll status shows whether the node is back".into()),
        RequestError::Nonsense { .. } => Some(SAME_VERSION.into()),
        RequestError::OtherKind(_) => Some("atoll get KEY reads every kind".into()),
        RequestError::Failed(failure) => mend_of(failure, asked),
        // these texts say it themselves
        RequestError::Quorum(_)
        | RequestError::Limit(_)
        | RequestError::Session(_)
        | RequestError::Bucket(_)
        | RequestError::NoSuchNode { .. } => None,
    };
    let both: Vec<String> = mend.into_iter().chain(again.map(str::to_owned)).collect();
    (!both.is_empty()).then(|| both.join("; "))
}

/// Whether what may have been done may be done once more.
fn again(asked: Asked) -> &'static str {
    match asked {
        Asked::Read => "it can be repeated as it is",
        Asked::Write => {
            "repeating it with the same --context is safe: it replaces what you saw, and if both took effect the copies show \
             as siblings"
        }
        Asked::Count => {
            "do not repeat it: if it has not counted, your next increment of this counter makes up for it"
        }
        Asked::Merge => "repeating it is safe: twice is the same as once",
    }
}

const SAME_VERSION: &str =
    "the same version on both sides: atoll --version; atoll status shows those of the nodes";

/// What to do about a failure; none where its text says that itself, or where there is nothing to be done.
fn mend_of(failure: &Failure, asked: Asked) -> Option<String> {
    let away = match missing(failure) {
        missing if missing.is_empty() => "atoll status shows who is away".into(),
        missing => format!("bring the owners back ({missing}; atoll status shows more)"),
    };
    let fewer = match asked.writes() {
        true => "accept fewer acknowledgements with -w",
        false => "accept fewer answers with -r",
    };
    let mend = match failure.code {
        ErrorCode::ContextMalformed => "copy the whole context from atoll get KEY -o json".into(),
        ErrorCode::ContextOtherKey => "the context that atoll get KEY -o json shows of this key".into(),
        ErrorCode::ContextOtherCluster => {
            "atoll get KEY -o json in this cluster; does --cluster name the one you mean?".into()
        }
        ErrorCode::ContextNeeded => "--context with what atoll get KEY -o json shows".into(),
        ErrorCode::NotPermitted => {
            "a profile whose certificate has that role: --cluster FILE, made by atoll cluster client-cert".into()
        }
        ErrorCode::Malformed => SAME_VERSION.into(),
        ErrorCode::OtherCluster => "--cluster names another one; atoll testnet ls shows those here".into(),
        ErrorCode::TooManySiblings => {
            "put without --blind: it replaces all siblings with your value; or atoll resolve KEY".into()
        }
        ErrorCode::Removed => "another node: atoll cluster status shows the members".into(),
        ErrorCode::WrongKind => {
            "atoll get KEY reads every kind; --bucket names another bucket, atoll bucket list shows their kinds".into()
        }
        ErrorCode::BadPage => "the listing once more without --page".into(),
        ErrorCode::FaultsNotAllowed => "start the node with --allow-faults".into(),
        ErrorCode::BucketExists => "another name; atoll bucket list shows those that are taken".into(),
        ErrorCode::BucketDropped => "atoll bucket list shows those there are".into(),
        ErrorCode::TooManyBuckets => {
            "one bucket for several purposes, told apart by a prefix of the keys (dropped ones count too)".into()
        }
        // the read before a change: how much it needs follows from -w, and less of that needs more here
        ErrorCode::ReadQuorumNotMet if asked.writes() => away,
        ErrorCode::WriteQuorumNotMet
        | ErrorCode::ReadQuorumNotMet
        | ErrorCode::NoOwnerReachable => format!("{away}, or {fewer}"),
        ErrorCode::DeadlinePassed => format!("a longer --timeout, or {fewer}; {away}"),
        ErrorCode::Overloaded => match failure.retry_after_ms {
            0 => "the same again in a moment; atoll status if it goes on".into(),
            ms => format!("the same again after {ms} ms; atoll status if it goes on"),
        },
        ErrorCode::StaleView => "the same again; atoll ring moves shows what changes".into(),
        ErrorCode::HintsFull => format!("{away}, or raise hint_bytes_per_owner_max"),
        ErrorCode::Rising => "another node, or wait: atoll status".into(),
        ErrorCode::RingFrozen => {
            "bring voters back: atoll cluster status names them; until then data is read and written as ever".into()
        }
        ErrorCode::Corrupt => "another node with --via; atoll repair status shows how far the mending is".into(),
        ErrorCode::ReadOnly => {
            "make room on that node's disk: atoll status says how much it has; or another node with --via".into()
        }
        ErrorCode::Stopping => "the same again through another node; atoll status".into(),
        ErrorCode::ClockOff => "set that node's clock: atoll status shows by how much; or --via another node".into(),
        ErrorCode::Internal => "report it, with this text and the log of the node".into(),
        // the text says how to keep the rule, or what to wait for
        ErrorCode::BadQuorum
        | ErrorCode::KeyLength
        | ErrorCode::ValueTooLarge
        | ErrorCode::UnknownBucket
        | ErrorCode::RingRejected
        | ErrorCode::BadOperation
        | ErrorCode::TooManyElements
        | ErrorCode::TooManySessions
        | ErrorCode::CounterOverflow
        | ErrorCode::KeepsItsValue
        | ErrorCode::BadBucket
        | ErrorCode::BadFaults
        | ErrorCode::SessionNotSatisfied => return None,
        ErrorCode::NothingThere => return None, // and nothing need be done
    };
    Some(mend)
}

#[cfg(test)]
mod tests {
    use atoll_client::ReplicaReport;
    use atoll_ring::Epoch;

    use super::*;

    fn refused(code: ErrorCode) -> Failure {
        Failure {
            code,
            effect: Effect::NotApplied,
            got: 0,
            needed: 0,
            retry_after_ms: 0,
            detail: "as the node says".into(),
            receipt: None,
        }
    }

    /// Every code ends the program with a number that scripts rely on, and says what to do next, or its own text does.
    #[test]
    fn every_error_has_a_number_and_a_mend() {
        use ErrorCode as E;
        let (told, done) = (true, false);
        let expected = [
            (E::BadQuorum, 2, done),
            (E::KeyLength, 2, done),
            (E::ValueTooLarge, 2, done),
            (E::ContextMalformed, 2, told),
            (E::ContextOtherKey, 2, told),
            (E::ContextOtherCluster, 2, told),
            (E::ContextNeeded, 2, told),
            (E::UnknownBucket, 2, done),
            (E::NotPermitted, 1, told),
            (E::Malformed, 1, told),
            (E::OtherCluster, 1, told),
            (E::TooManySiblings, 8, told),
            (E::RingRejected, 2, done),
            (E::Removed, 1, told),
            (E::WrongKind, 2, told),
            (E::BadOperation, 2, done),
            (E::TooManyElements, 8, done),
            (E::TooManySessions, 8, done),
            (E::CounterOverflow, 8, done),
            (E::KeepsItsValue, 2, done),
            (E::NothingThere, 3, done),
            (E::BadPage, 2, told),
            (E::FaultsNotAllowed, 2, told),
            (E::BadFaults, 2, done),
            (E::BadBucket, 2, done),
            (E::BucketExists, 8, told),
            (E::BucketDropped, 8, told),
            (E::TooManyBuckets, 8, told),
            (E::WriteQuorumNotMet, 6, told),
            (E::ReadQuorumNotMet, 6, told),
            (E::NoOwnerReachable, 6, told),
            (E::DeadlinePassed, 7, told),
            (E::Overloaded, 1, told),
            (E::StaleView, 1, told),
            (E::HintsFull, 1, told),
            (E::Rising, 1, told),
            (E::RingFrozen, 6, told),
            (E::SessionNotSatisfied, 6, done),
            (E::Corrupt, 1, told),
            (E::ReadOnly, 1, told),
            (E::Stopping, 1, told),
            (E::ClockOff, 1, told),
            (E::Internal, 1, told),
        ];
        let codes: Vec<E> = expected.iter().map(|(code, ..)| *code).collect();
        assert_eq!(codes, E::ALL, "a code without a line here");
        for (code, exit, mend) in expected {
            for asked in [Asked::Read, Asked::Write, Asked::Count, Asked::Merge] {
                let failed = failure(asked, &RequestError::Failed(Box::new(refused(code))));
                assert_eq!(failed.exit as u8, exit, "{code:?}");
                assert_eq!(failed.mend.is_some(), mend, "{code:?} {asked:?}");
                assert!(failed.what.contains("as the node says"), "{}", failed.what);
                let nothing = failed.what.contains("nothing was stored anywhere");
                assert_eq!(nothing, asked.writes(), "{}", failed.what);
                let mend = failed.mend.unwrap_or_default();
                assert!(!mend.ends_with('.') && !mend.contains("  "), "{mend:?}");
            }
        }
    }

    fn half_stored(effect: Effect) -> RequestError {
        let line = |node, stands_in_for, outcome| ReplicaReport {
            node,
            stands_in_for,
            outcome,
            micros: 900,
        };
        let receipt = Receipt {
            epoch: Epoch(1),
            coordinator: 1,
            n: 3,
            needed: 3,
            owners_needed: 0,
            durable_needed: 3,
            replicas: vec![
                line(1, None, Outcome::Durable),
                line(2, None, Outcome::Down),
                line(3, None, Outcome::Silent),
                line(4, Some(2), Outcome::Durable),
            ],
            hinted: vec![2],
            unhinted: vec![],
            repaired: vec![],
            trace: None,
        };
        let code = ErrorCode::WriteQuorumNotMet;
        let receipt = Some(Box::new(receipt));
        RequestError::Failed(Box::new(Failure { effect, receipt, ..refused(code) }))
    }

    /// A quorum error says who answered, what is stored where, whether it may become visible, and what to do next; whether to
    /// repeat it depends on what it was.
    #[test]
    fn a_lost_write_says_where_it_is_and_what_to_do() {
        let says = |asked, effect, parts: &[&str]| {
            let failed = failure(asked, &half_stored(effect));
            let all = format!("{} try {}", failed.what, failed.mend.unwrap_or_default());
            parts.iter().for_each(|part| assert!(all.contains(part), "no `{part}` in: {all}"));
        };
        let everywhere = [
            "n1 coordinated: n1 durable 0.9 ms, n2 down, n3 silent, n4 for n2 durable 0.9 ms",
            "it IS stored, fsynced, on n1, n4 (in place of n2): it may become visible and will spread",
            "hints will bring it to n2",
            "bring the owners back (n2 is down, n3 is silent; atoll status shows more)",
            "accept fewer acknowledgements with -w",
        ];
        says(Asked::Write, Effect::Applied(2), &everywhere);
        says(Asked::Write, Effect::Applied(2), &["repeating it with the same --context is safe"]);
        says(Asked::Count, Effect::Applied(2), &["do not repeat it"]);
        says(
            Asked::Merge,
            Effect::Unknown,
            &["repeating it is safe", "is unknown: it may become visible"],
        );
        let failed = failure(Asked::Read, &half_stored(Effect::NotApplied));
        assert!(!failed.what.contains("stored"), "{}", failed.what);
        assert!(failed.mend.is_some_and(|mend| mend.contains("fewer answers with -r")));
    }

    /// What came to no answer at all says whether it may have been done.
    #[test]
    fn without_an_answer_a_write_is_unsure_and_a_read_is_not() {
        let silent = RequestError::TimedOut { node: "n1".into(), ms: 1000 };
        let failed = failure(Asked::Count, &silent);
        assert_eq!(failed.exit, Exit::Timeout);
        assert!(failed.what.contains("is unknown"), "{}", failed.what);
        assert!(failed.mend.is_some_and(|mend| mend.contains("do not repeat it")));
        let failed = failure(Asked::Read, &silent);
        assert!(!failed.what.contains("unknown"), "{}", failed.what);
        assert!(failed.mend.is_some_and(|mend| mend.contains("--timeout")));
        let gone = RequestError::Unreachable { tried: vec![("n1".into(), "refused".into())] };
        assert!(failure(Asked::Write, &gone).what.contains("nothing was stored anywhere"));
    }
}
