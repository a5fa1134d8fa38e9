//! Deliberate bugs, switched on one by one: a net that catches nothing has holes.
//!
//! Each bug must be caught by one of the fixed seeds. A process of its own looks for it, because a bug may well make a node
//! stop at one of its assertions, and in a release build that ends the process; it counts as caught, too. Bugs of a ring
//! that changes are looked for with the fault `ring` alone, two of them with the model of [`crate::kv679`].

use std::{
    env, io,
    process::{Command, Stdio},
};

use atoll_node::canary::Canary;

use crate::faults::Kind;

/// The fixed seeds.
pub const SEEDS: std::ops::RangeInclusive<u64> = 1..=100;

/// More fixed seeds, for bugs that take a rare coincidence.
const MORE_SEEDS: std::ops::RangeInclusive<u64> = 301..=400;

/// And for the rarest one. `tests/moving.rs` tells what it breaks.
const RAREST_SEEDS: std::ops::RangeInclusive<u64> = 531..=560;

/// The word for people.
pub fn word(canary: Canary) -> &'static str {
    match canary {
        Canary::SkipFsync => "skip-fsync",
        Canary::ReuseDot => "reuse-dot",
        Canary::DotOutsideTurn => "dot-outside-turn",
        Canary::ExtendFromRecord => "extend-from-record",
        Canary::TrustOldNotes => "trust-old-notes",
        Canary::DropHintEarly => "drop-hint-early",
        Canary::ReplyWithRecord => "reply-with-record",
        Canary::CountDoubt => "count-doubt",
        Canary::TrustOtherRole => "trust-other-role",
        Canary::DeleteWithoutEvent => "delete-without-event",
        Canary::ForgetLease => "forget-lease",
        Canary::FallbackIsOwner => "fallback-is-owner",
        Canary::EmptyIsTruth => "empty-is-truth",
        Canary::AckEarly => "ack-early",
        Canary::NewerClockWins => "newer-clock-wins",
        Canary::SkipFence => "skip-fence",
        Canary::FenceOthersOnly => "fence-others-only",
        Canary::SpeakOfViewEarly => "speak-of-view-early",
        Canary::CountJoining => "count-joining",
        Canary::ReadOldOnly => "read-old-only",
        Canary::SkipBarrier => "skip-barrier",
        Canary::DeleteEarly => "delete-early",
        Canary::AcceptDeadSession => "accept-dead-session",
        Canary::ReuseActor => "reuse-actor",
        Canary::ForgetSession => "forget-session",
        Canary::CountTwice => "count-twice",
        Canary::RemoveUnseen => "remove-unseen",
        Canary::OwnSetContext => "own-set-context",
    }
}

/// The bug of this word.
///
/// # Errors
/// There is none; the words there are.
pub fn of_word(text: &str) -> Result<Canary, String> {
    let found = Canary::ALL.into_iter().find(|canary| word(*canary) == text);
    found.ok_or_else(|| {
        let words: Vec<&str> = Canary::ALL.into_iter().map(word).collect();
        format!("no deliberate bug is called {text:?}; there are {}", words.join(", "))
    })
}

/// Where a bug is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In the fixed seeds with all faults, with registers alone.
    Everywhere,
    /// In the same, with values of all kinds and with sessions.
    Kinds,
    /// In the fixed seeds with changes of the ring, and no other faults.
    Ring,
    /// In the model of one key.
    Model,
}

/// Where this one is looked for.
pub fn place(canary: Canary) -> Where {
    match canary {
        Canary::TrustOtherRole => Where::Model,
        Canary::ForgetLease
        | Canary::SkipFence
        | Canary::FenceOthersOnly
        | Canary::SpeakOfViewEarly
        | Canary::CountJoining
        | Canary::ReadOldOnly
        | Canary::SkipBarrier
        | Canary::DeleteEarly
        | Canary::AcceptDeadSession => Where::Ring,
        Canary::ForgetSession
        | Canary::CountTwice
        | Canary::RemoveUnseen
        | Canary::OwnSetContext => Where::Kinds,
        Canary::ReuseActor
        | Canary::SkipFsync
        | Canary::ReuseDot
        | Canary::DotOutsideTurn
        | Canary::ExtendFromRecord
        | Canary::TrustOldNotes
        | Canary::DropHintEarly
        | Canary::ReplyWithRecord
        | Canary::CountDoubt
        | Canary::DeleteWithoutEvent
        | Canary::FallbackIsOwner
        | Canary::EmptyIsTruth
        | Canary::AckEarly
        | Canary::NewerClockWins => Where::Everywhere,
    }
}

/// Looks for one bug with a process of its own. What caught it, or nothing.
///
/// # Errors
/// The process could not be run, or ended otherwise than it should.
pub fn look_for(canary: Canary, jobs: usize) -> io::Result<Option<String>> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--canary", word(canary), "--jobs", &jobs.to_string(), "--until-broken"]);
    let seeds = match canary {
        Canary::CountJoining | Canary::TrustOldNotes => MORE_SEEDS,
        Canary::FenceOthersOnly => RAREST_SEEDS,
        _ => SEEDS,
    };
    let seeds = format!("{}..{}", seeds.start(), seeds.end());
    match place(canary) {
        Where::Model => command.args(["--scenario", "kv679"]),
        Where::Everywhere => command.args(["--registers-only", "--seeds", &seeds]),
        Where::Kinds => command.args(["--seeds", &seeds]),
        Where::Ring => {
            let ring = Kind::Ring.word();
            command.args(["--registers-only", "--seeds", &seeds, "--faults", ring])
        }
    };
    let output = command.stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let caught = text.lines().find_map(|line| line.strip_prefix(CAUGHT)).map(str::to_owned);
    match (output.status.code(), caught) {
        (Some(0), None) => Ok(None),
        (Some(1), Some(by)) => Ok(Some(by)),
        (code, _) => Err(io::Error::other(format!("the search ended with {code:?}: {text}"))),
    }
}

/// What the line begins with in which a process says what it has caught.
pub const CAUGHT: &str = "caught: ";
