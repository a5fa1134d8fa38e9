//! How large one value of a key may become by changes.
//!
//! A change that makes a thing larger than its cap is refused. What has grown over a cap because
//! two sides were merged stays readable, and a change that makes it smaller or leaves its size is
//! welcome. Decoders do not enforce these caps: what was stored stays readable if a cap is lowered.

/// The most elements of a set, 1,000. Reason: a set is read, compared and repaired as a whole;
/// Riak's sets became slow beyond 500 KB.
pub const ELEMENTS_MAX: usize = 1000;

/// The most fields on one level of a map, 1,000, for the same reason. Fields that were removed but
/// must be remembered (counters and last-write-wins values) count.
pub const FIELDS_MAX: usize = 1000;

/// How deep maps may lie in each other, 8: a map that is a key's value is at depth 1. Reason:
/// decoders descend by recursion, and nobody may exhaust the stack.
pub const DEPTH_MAX: usize = 8;

/// The most sessions of a counter, 10,000, reset ones too. Reason: each takes about 30 bytes for
/// ever, because folding an old session into a sum would count a late retry twice.
pub const SESSIONS_MAX: usize = 10_000;

/// The longest element of a set or name of a field, 1 KiB, as for a key.
pub const NAME_BYTES_MAX: usize = 1024;
