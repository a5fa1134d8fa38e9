//! The moves of a change in few bytes: what a node one epoch behind pulls when a plan was committed.
//!
//! ```text
//!   1 byte   the number of this format
//!   varint   moves
//!   varint   owners in each target, plus 1; 0 if that differs
//!   varint   the id of a node that most targets have, plus 1; 0 if there is none
//!   for each move:
//!     varint   partitions since the move before
//!     varint   owners in the target, if that differs
//!     varint   the seat of the node that most have, plus 1; 0 if it has none here; left out without
//!              such a node
//!     varint   for each other seat the id of its owner
//! ```
//!
//! A join moves one seat of each of its partitions to one node, which need not be named each time. A
//! thousand nodes with 32,768 partitions move some 100 for one that joins: 0.8 KB, where plain numbers take
//! 1.2. The owners that stay are named all the same. They could be left out for whoever has the view
//! that the plan was made for, but entries are also kept and shown where no view is at hand.
//!
//! Plan files and histories for people are documents and keep their maps.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Visitor};
use serde::{Serialize as _, Serializer};

use crate::encoding::{DecodeError, Reader, Writer};
use crate::placement::REPLICAS_MAX;
use crate::token::PARTITIONS_MAX;
use crate::{NodeId, Partition, bounded};

/// The owners that partitions shall have.
type Targets = BTreeMap<Partition, Vec<NodeId>>;

/// The first byte of what this version writes.
const FORMAT: u8 = 1;

/// As a map where people read, in few bytes elsewhere.
pub(crate) fn serialize<S: Serializer>(
    targets: &Targets,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        targets.serialize(serializer)
    } else {
        serializer.serialize_bytes(&encode(targets))
    }
}

/// Reads what [`serialize`] wrote.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Targets, D::Error> {
    if deserializer.is_human_readable() {
        bounded::wanted(deserializer)
    } else {
        deserializer.deserialize_bytes(Encoded)
    }
}

struct Encoded;

impl Visitor<'_> for Encoded {
    type Value = Targets;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the bytes of moves")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Targets, E> {
        decode(bytes).map_err(E::custom)
    }
}

fn encode(targets: &Targets) -> Vec<u8> {
    let mut out = Writer(vec![FORMAT]);
    out.number(targets.len() as u64);
    let mut lengths = targets.values().map(Vec::len);
    let first = lengths.next();
    let length = first.filter(|first| lengths.all(|length| length == *first));
    out.number(length.map_or(0, |length| length as u64 + 1));
    let common = common(targets);
    out.number(common.map_or(0, |node| u64::from(node.0) + 1));
    let mut last = 0;
    for (partition, target) in targets {
        out.number(u64::from(partition.0 - last));
        last = partition.0;
        if length.is_none() {
            out.number(target.len() as u64);
        }
        let seat = common.and_then(|node| target.iter().position(|owner| *owner == node));
        if common.is_some() {
            out.number(seat.map_or(0, |seat| seat as u64 + 1));
        }
        let others = target.iter().enumerate().filter(|(index, _)| Some(*index) != seat);
        others.for_each(|(_, owner)| out.number(u64::from(owner.0)));
    }
    out.0
}

/// The node that most targets have: more than half of them, or naming its seat costs more than it
/// spares.
fn common(targets: &Targets) -> Option<NodeId> {
    let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
    for owner in targets.values().flatten() {
        *counts.entry(*owner).or_default() += 1;
    }
    let (node, count) = counts.into_iter().max_by_key(|(node, count)| (*count, *node))?;
    (2 * count > targets.len()).then_some(node)
}

fn decode(bytes: &[u8]) -> Result<Targets, DecodeError> {
    let mut rest = Reader(bytes);
    let format = rest.byte()?;
    if format != FORMAT {
        return Err(DecodeError::Format { format });
    }
    let moves: u32 = rest.small()?;
    if moves > PARTITIONS_MAX {
        return Err(DecodeError::Damaged);
    }
    let length = rest.number()?.checked_sub(1);
    let common = match rest.number()?.checked_sub(1) {
        Some(id) => Some(NodeId(u32::try_from(id).map_err(|_| DecodeError::Damaged)?)),
        None => None,
    };
    let mut last = None;
    let targets = rest.repeat(moves, |rest| {
        let step: u16 = rest.small()?;
        let is_again = last.is_some() && step == 0;
        let at = last.unwrap_or(0_u16).checked_add(step).filter(|_| !is_again);
        let partition = Partition(at.ok_or(DecodeError::Damaged)?);
        last = at;
        let length = match length {
            Some(length) => length,
            None => rest.number()?,
        };
        let seat = match common {
            Some(_) => rest.number()?.checked_sub(1),
            None => None,
        };
        if length > u64::from(REPLICAS_MAX) || seat.is_some_and(|seat| seat >= length) {
            return Err(DecodeError::Damaged);
        }
        let owner = |index: u64| match common {
            Some(node) if Some(index) == seat => Ok(node),
            Some(_) | None => Ok(NodeId(rest.small()?)),
        };
        Ok((partition, (0..length).map(owner).collect::<Result<Vec<NodeId>, DecodeError>>()?))
    })?;
    if !rest.0.is_empty() {
        return Err(DecodeError::Damaged);
    }
    Ok(targets.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn targets(rows: &[(u16, &[u32])]) -> Targets {
        let row = |(at, ids): &(u16, &[u32])| {
            (Partition(*at), ids.iter().map(|id| NodeId(*id)).collect())
        };
        rows.iter().map(row).collect()
    }

    /// The bytes of some moves, for ever: change one and stored entries are lost. A new form gets a
    /// new first byte.
    #[test]
    fn golden_bytes() {
        let check = |rows: &[(u16, &[u32])], bytes: &[u8]| {
            assert_eq!(encode(&targets(rows)), bytes, "{rows:?}");
            assert_eq!(decode(bytes), Ok(targets(rows)));
        };
        check(&[], &[1, 0, 0, 0]);
        // n9 joins: in the second seat, in the first one, and once not at all
        let join: &[(u16, &[u32])] = &[(3, &[1, 9, 2]), (4, &[9, 3, 4]), (300, &[5, 6, 7])];
        check(join, &[1, 3, 4, 10, 3, 2, 1, 2, 1, 1, 3, 4, 0xa8, 2, 0, 5, 6, 7]);
        // nobody is in most of them, and the rows differ in length
        check(&[(0, &[1, 2]), (1, &[3])], &[1, 2, 0, 0, 0, 2, 1, 2, 1, 1, 3]);
    }

    /// What is no moves is refused: cut short, too long, twice the same partition, seats beyond the
    /// row, more than there can be.
    #[test]
    fn damaged_bytes() {
        let good = encode(&targets(&[(3, &[1, 9, 2]), (4, &[9, 1, 3])]));
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length]), Err(DecodeError::Damaged), "{length}");
        }
        assert_eq!(decode(&[&good[..], &[0]].concat()), Err(DecodeError::Damaged));
        assert_eq!(decode(&[&[2], &good[1..]].concat()), Err(DecodeError::Format { format: 2 }));
        for bad in [
            &[1, 2, 2, 0, 3, 1, 0, 1][..],                     // partition 3 twice
            &[1, 1, 2, 2, 3, 2, 1],                            // the second seat of one
            &[1, 1, 18, 0, 3],                                 // 17 owners
            &[1, 0xff, 0xff, 0x7f, 2, 0, 1],                   // 2 million moves
            &[1, 1, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 1], // an id of 40 bits
            &[1, 2, 2, 0, 0xff, 0xff, 3, 1, 1, 1],             // partition 65,536
        ] {
            assert_eq!(decode(bad), Err(DecodeError::Damaged), "{bad:?}");
        }
        for index in 0..good.len() {
            for bit in 0..8 {
                let mut damaged = good.clone();
                damaged[index] ^= 1 << bit;
                let _ = decode(&damaged); // something or nothing, and no panic
            }
        }
    }

    proptest! {
        /// Whatever a command may name reads back, also what no view would take.
        #[test]
        fn any_targets_read_back(
            rows in prop::collection::btree_map(
                any::<u16>(),
                prop::collection::vec(prop_oneof![0..4_u32, any::<u32>()], 0..=16),
                0..40,
            ),
        ) {
            let targets: Targets = rows
                .into_iter()
                .map(|(at, ids)| (Partition(at), ids.into_iter().map(NodeId).collect()))
                .collect();
            prop_assert_eq!(decode(&encode(&targets)), Ok(targets));
        }
    }
}
