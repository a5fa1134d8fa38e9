//! Deliberate bugs, to see that the simulator finds them. None of this exists in a real build.
//!
//! With the feature `canaries`, which only the simulator asks for, one bug at a time can be switched on for the current
//! thread. Without it [`is_on`] is a constant `false`, and the wrong code is not compiled in.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Canary {
    /// A write is acknowledged as fsynced and is not.
    SkipFsync,
    /// After a start counters are given again from the beginning of their lease.
    ReuseDot,
    /// The own record is read before the key's turn, and another write may come in between.
    DotOutsideTurn,
    /// An event extends from the newest of ours in the record, not from the note.
    ExtendFromRecord,
    /// Notes from before an unclean start are trusted.
    TrustOldNotes,
    /// A hint is dropped when it is sent, not when its owner has it fsynced.
    DropHintEarly,
    /// The reply to a put covers the whole record.
    ReplyWithRecord,
    /// An answer of an owner in doubt counts towards r.
    CountDoubt,
    /// Notes from another role are trusted.
    TrustOtherRole,
    /// A delete has no event of its own.
    DeleteWithoutEvent,
    /// Leases go with the partition.
    ForgetLease,
    /// A fallback's answer counts as an owner's.
    FallbackIsOwner,
    /// A node that has lost its data answers "not found" as if it knew.
    EmptyIsTruth,
    /// The client hears "stored" one acknowledgement too early.
    AckEarly,
    /// A join keeps the state with the newer events, whole.
    NewerClockWins,
    /// What was planned before a partition changed is not refused.
    SkipFence,
    /// It is refused from others, and not in the coordinator's own step.
    FenceOthersOnly,
    /// A view is spoken of before it is on stable storage.
    SpeakOfViewEarly,
    /// A joining owner's acknowledgement counts as one of the old owners'.
    CountJoining,
    /// While a partition is joint only its old owners are read.
    ReadOldOnly,
    /// A move is finished, and copied, without the leaving owner having seen that it began.
    SkipBarrier,
    /// A former owner deletes what it holds before a new one has it fsynced.
    DeleteEarly,
    /// A copy that was made in another move counts.
    AcceptDeadSession,
    /// A node that has lost memory goes on under the incarnation that it had.
    ReuseActor,
    /// What a session has seen is ignored.
    ForgetSession,
    /// A session's increment that is repeated counts again.
    CountTwice,
    /// A removal takes what its writer had not seen.
    RemoveUnseen,
    /// An addition to a set claims all that its coordinator knows.
    OwnSetContext,
}

impl Canary {
    /// All of them.
    pub const ALL: [Canary; 28] = [
        Canary::SkipFsync,
        Canary::ReuseDot,
        Canary::DotOutsideTurn,
        Canary::ExtendFromRecord,
        Canary::TrustOldNotes,
        Canary::DropHintEarly,
        Canary::ReplyWithRecord,
        Canary::CountDoubt,
        Canary::TrustOtherRole,
        Canary::DeleteWithoutEvent,
        Canary::ForgetLease,
        Canary::FallbackIsOwner,
        Canary::EmptyIsTruth,
        Canary::AckEarly,
        Canary::NewerClockWins,
        Canary::SkipFence,
        Canary::FenceOthersOnly,
        Canary::SpeakOfViewEarly,
        Canary::CountJoining,
        Canary::ReadOldOnly,
        Canary::SkipBarrier,
        Canary::DeleteEarly,
        Canary::AcceptDeadSession,
        Canary::ReuseActor,
        Canary::ForgetSession,
        Canary::CountTwice,
        Canary::RemoveUnseen,
        Canary::OwnSetContext,
    ];
}

#[cfg(feature = "canaries")]
mod switch {
    use std::cell::Cell;

    use super::Canary;

    thread_local! {
        static ON: Cell<Option<Canary>> = const { Cell::new(None) };
    }

    /// Switches one bug on for this thread, or all off.
    pub fn set(canary: Option<Canary>) {
        ON.set(canary);
    }

    /// Whether this bug is on.
    pub fn is_on(canary: Canary) -> bool {
        ON.get() == Some(canary)
    }
}

#[cfg(feature = "canaries")]
pub use switch::{is_on, set};

/// Whether this bug is on: never.
#[cfg(not(feature = "canaries"))]
pub(crate) const fn is_on(_: Canary) -> bool {
    false
}
