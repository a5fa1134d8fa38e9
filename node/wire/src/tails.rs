//! Lists that are too long for a header: they travel in a tail, row behind row.
//!
//! A tail may be a thousand times as long as a header, so what it can make of itself in memory is bounded here: by the
//! number of rows, which is known before the first is kept, and by bytes that are slices of the frame and never copied.
//!
//! ```text
//!  a page of a dump, per row
//!  +-----------------------+------------+------------+-------------+
//!  | head, postcard:       | row        | key        | state       |
//!  | three lengths, flags  | raw bytes  | raw bytes  | raw bytes   |
//!  +-----------------------+------------+------------+-------------+
//! ```

use bytes::{Buf as _, Bytes};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::limits::DUMP_ROWS_MAX;

/// How the repair of a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairReport {
    /// Tail: one [`PartitionRepair`] per partition that the node owns; see [`RepairReport::read`].
    #[serde(skip)]
    pub partitions: Bytes,
}

/// How the repair of one partition stands on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRepair {
    /// The partition.
    pub partition: u16,
    /// Milliseconds since it was last known to be equal with the other owner that was compared least lately;
    /// `u64::MAX` = not since the start.
    pub agreed_ms_ago: u64,
    /// The node's answers do not count here.
    pub in_doubt: bool,
    /// Keys repaired since the start, here or there.
    pub keys_repaired: u64,
    /// Bytes sent and received to find and mend them.
    pub bytes: u64,
    /// Keys found different and not mended yet.
    pub backlog: u32,
}

impl RepairReport {
    /// A report of these, in the order of their partitions.
    pub fn of(partitions: &[PartitionRepair]) -> Self {
        let in_order = |two: &[PartitionRepair]| two[0].partition < two[1].partition;
        assert!(partitions.windows(2).all(in_order), "one row per partition, in order");
        let mut out = Vec::new();
        for partition in partitions {
            out = postcard::to_extend(partition, out).expect("plain data");
        }
        RepairReport { partitions: out.into() }
    }

    /// What it says; `None` if the bytes are no report. As partitions only rise, there are at most 65,536 of them.
    pub fn read(&self) -> Option<Vec<PartitionRepair>> {
        let mut left = self.partitions.clone();
        let mut partitions: Vec<PartitionRepair> = Vec::new();
        while !left.is_empty() {
            let next: PartitionRepair = head(&mut left)?;
            if partitions.last().is_some_and(|last| last.partition >= next.partition) {
                return None;
            }
            partitions.push(next);
        }
        Some(partitions)
    }
}

/// A page of raw states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dumped {
    /// There may be more after the last row.
    pub more: bool,
    /// Tail: [`DumpedRow`]s; see [`Dumped::read`].
    #[serde(skip)]
    pub rows: Bytes,
}

/// One row as it lies on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedRow {
    /// The row, after which a next page may begin.
    pub row: Bytes,
    /// The key.
    pub key: Bytes,
    /// For whom it is kept, if it is a hint.
    pub hint_for: Option<u32>,
    /// What the node says of this key does not count.
    pub in_doubt: bool,
    /// Canonical bytes of the state; none = the record is damaged.
    pub state: Option<Bytes>,
}

/// A row without its bytes.
#[derive(Serialize, Deserialize)]
struct RowHead {
    row_bytes: u32,
    key_bytes: u32,
    state_bytes: Option<u32>,
    hint_for: Option<u32>,
    in_doubt: bool,
}

impl Dumped {
    /// A page of these, at most [`DUMP_ROWS_MAX`].
    pub fn of(rows: &[DumpedRow], more: bool) -> Self {
        assert!(rows.len() <= DUMP_ROWS_MAX, "a page of at most {DUMP_ROWS_MAX} rows");
        let length = |bytes: &Bytes| u32::try_from(bytes.len()).expect("a frame is below 4 GiB");
        let mut out = Vec::new();
        for row in rows {
            let head = RowHead {
                row_bytes: length(&row.row),
                key_bytes: length(&row.key),
                state_bytes: row.state.as_ref().map(length),
                hint_for: row.hint_for,
                in_doubt: row.in_doubt,
            };
            out = postcard::to_extend(&head, out).expect("plain data");
            for part in [Some(&row.row), Some(&row.key), row.state.as_ref()].into_iter().flatten() {
                out.extend_from_slice(part);
            }
        }
        Dumped { more, rows: out.into() }
    }

    /// The rows; `None` if the bytes are no page, or have more rows than a page may have. All bytes are slices of the
    /// frame.
    pub fn read(&self) -> Option<Vec<DumpedRow>> {
        let mut left = self.rows.clone();
        let mut rows = Vec::new();
        while !left.is_empty() {
            if rows.len() == DUMP_ROWS_MAX {
                return None;
            }
            let RowHead { row_bytes, key_bytes, state_bytes, hint_for, in_doubt } =
                head(&mut left)?;
            rows.push(DumpedRow {
                row: cut(&mut left, row_bytes)?,
                key: cut(&mut left, key_bytes)?,
                hint_for,
                in_doubt,
                state: match state_bytes {
                    Some(bytes) => Some(cut(&mut left, bytes)?),
                    None => None,
                },
            });
        }
        Some(rows)
    }
}

/// Reads something small from the beginning, and takes it off.
pub(crate) fn head<T: DeserializeOwned>(left: &mut Bytes) -> Option<T> {
    let (read, rest) = postcard::take_from_bytes::<T>(left).ok()?;
    let taken = left.len() - rest.len();
    left.advance(taken);
    Some(read)
}

/// Takes so many bytes off; they are no copy.
pub(crate) fn cut(left: &mut Bytes, bytes: u32) -> Option<Bytes> {
    let bytes = bytes as usize;
    (bytes <= left.len()).then(|| left.split_to(bytes))
}
