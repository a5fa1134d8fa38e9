//! Why a change was refused: which rule, and how to mend it. Nothing was changed.

use crate::Kind;

/// The caller should act: the operation cannot be done to this value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The operation is for another kind of value.
    #[error(
        "{operation} is no operation for a {kind}; use one that is, or a key or field of another kind"
    )]
    WrongKind {
        /// What was asked for.
        operation: &'static str,
        /// What the value, or the field, is.
        kind: Kind,
    },
    /// A set would become larger than it may.
    #[error(
        "the set would have {elements} elements and may have {elements_max}; remove some, or spread them over \
         several keys"
    )]
    TooManyElements {
        /// How many it would have.
        elements: usize,
        /// How many it may have.
        elements_max: usize,
    },
    /// A map would become larger than it may.
    #[error(
        "the map would have {fields} fields on one level and may have {fields_max}, removed counters and lww \
         fields included; remove some, or spread them over several keys"
    )]
    TooManyFields {
        /// How many it would have.
        fields: usize,
        /// How many it may have.
        fields_max: usize,
    },
    /// Maps would lie in each other deeper than they may.
    #[error(
        "maps may lie in each other {depth_max} deep; put what lies deeper under a key of its own"
    )]
    TooDeep {
        /// How deep they may lie.
        depth_max: usize,
    },
    /// A counter would get more sessions than it may have.
    #[error(
        "the counter has had {sessions_max} sessions, as many as it may; go on with an existing session, or count \
         on under another key"
    )]
    TooManySessions {
        /// How many it may have.
        sessions_max: usize,
    },
    /// A counter, or a session's share of it, would leave the range of 64 bits.
    #[error("the counter would leave the range of 64 bits with sign; reset it or add less")]
    CounterOverflow,
    /// A maximum cannot be taken back, neither alone nor with the map that it lies in.
    #[error(
        "a max keeps its greatest value and cannot be removed; remove the other fields one by one, or leave it"
    )]
    MaxKeepsItsValue,
    /// An element or the name of a field is too long.
    #[error("an element or field name has {bytes} bytes and may have {bytes_max}; shorten it")]
    NameTooLong {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        bytes_max: usize,
    },
    /// A list of elements or fields is empty.
    #[error("the operation lists nothing to do; name at least one element or field")]
    Nothing,
    /// One update changes one field twice.
    #[error("the update changes one field twice; make it one change, or two updates")]
    FieldTwice,
}
