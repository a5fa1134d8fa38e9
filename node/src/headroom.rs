//! Free space on the disk, and what a node does when there is too little: it turns read-only before the disk stops it.
//!
//! A read-only node takes no changes: no puts and deletes, no states from other nodes, no repairs of its own copy, no
//! hints. It still reads, answers fetches and pings, hands writes to other owners and delivers the hints it holds. What it
//! writes for itself goes on: leases, the notes of starts and stops, the removal of delivered hints. That is little, and
//! without it the node could not stop in order. It takes writes again by itself as soon as there is room.
//!
//! ```text
//!                 free < needed
//!      takes ───────────────────────▶ read-only            needed = the smaller of 5 % and 2 GiB
//!     writes ◀───────────────────────
//!              free ≥ needed × 1.25
//! ```
//!
//! The node looks every [`LOOK_EVERY`], and a burst between two looks makes it look sooner: see [`LOOK_AFTER_PART`].

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use atoll_wire::{ErrorCode, Failure};

use crate::{
    Node,
    storage::{Room, commit::Disk},
};

/// How often a node looks at its disk. Space that others take or free is noticed so late.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A node needs this part of the file system free: a twentieth, 5 %.
const NEEDED_PART: u64 = 20;

/// More than this need not be free, however large the file system is. It is several times what fjall may hold twice: a
/// journal of 256 MiB whose contents are being written out as tables, and the tables of one merge.
///
/// A file system of less than 40 GiB has a smaller reserve, and below some 10 GiB a merge may use it up while the node is
/// read-only. Then the node stops with exit code 10. Nothing that was acknowledged is lost by that.
const NEEDED_BYTES_MAX: u64 = 2 << 30;

/// A read-only node takes writes again when this part more is free than is needed, a quarter. Without it a node at the
/// limit would change its mind with every table that fjall merges.
const RECOVERY_PART: u64 = 4;

/// What a queued byte may come to take: once in the journal, once in a table, until the journal is dropped.
const COPIES: u64 = 2;

/// After so large a part of what is needed was queued, an eighth, the node looks again without waiting for its time to
/// come. So at most a quarter of the reserve ([`COPIES`]) is used up by what is taken between two looks, and the rest
/// stays for fjall. What was queued before a look and is not on the disk yet is counted as taken by that look.
const LOOK_AFTER_PART: u64 = 8;

/// How full the disk of a node is, as of the last look.
pub(crate) struct Headroom {
    disk: Arc<Disk>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    room: Option<Room>,
    /// Why no writes are taken.
    read_only: Option<String>,
    /// Bytes that had been queued since the start, at the last look.
    taken_bytes: u64,
}

impl Headroom {
    /// Looks for the first time: a node on a full disk starts read-only.
    pub(crate) fn of(disk: Arc<Disk>) -> Self {
        let headroom = Headroom { disk, seen: Mutex::default() };
        headroom.look();
        headroom
    }

    /// Looks how much is free, and turns read-only or back.
    pub(crate) fn look(&self) {
        self.look_into(&mut self.seen());
    }

    /// Whether there is room for a change.
    ///
    /// # Errors
    /// The refusal: the node is read-only.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let mut seen = self.seen();
        let look_after = match seen.room {
            Some(room) => needed_bytes(room.total_bytes) / LOOK_AFTER_PART,
            None => u64::MAX,
        };
        if self.disk.taken_bytes() - seen.taken_bytes >= look_after {
            self.look_into(&mut seen);
        }
        match &seen.read_only {
            None => Ok(()),
            Some(why) => Err(Failure::refused(ErrorCode::ReadOnly, why)),
        }
    }

    /// Bytes free, as of the last look; 0 where nobody can tell.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.seen().room.map_or(0, |room| room.free_bytes)
    }

    /// Why no writes are taken; empty if they are.
    pub(crate) fn read_only(&self) -> String {
        self.seen().read_only.clone().unwrap_or_default()
    }

    /// Asks the file system on the runtime's own thread. That takes microseconds, as long as the disk answers at all; if
    /// it does not, the next read waits on it as well.
    fn look_into(&self, seen: &mut Seen) {
        // in this order: what is applied in between counts twice, rather than not at all
        let queued_bytes = self.disk.queued_bytes();
        seen.taken_bytes = self.disk.taken_bytes();
        seen.room = self.disk.room();
        let left = seen.room.map(|room| Room {
            free_bytes: room.free_bytes.saturating_sub(queued_bytes * COPIES),
            ..room
        });
        let read_only = left.and_then(|left| judge(seen.read_only.is_some(), left));
        match (&seen.read_only, &read_only) {
            (None, Some(why)) => tracing::warn!(why, "read-only"),
            (Some(_), None) => tracing::info!("takes writes again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        seen.read_only = read_only;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic holds it")
    }
}

/// Looks for ever.
pub(crate) async fn watch(node: Arc<Node>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        node.headroom().look();
    }
}

/// Bytes that must be free on a file system of this size.
fn needed_bytes(total_bytes: u64) -> u64 {
    (total_bytes / NEEDED_PART).min(NEEDED_BYTES_MAX)
}

/// Why a node with so much room is read-only; `None` if it takes writes.
fn judge(was_read_only: bool, room: Room) -> Option<String> {
    let needed = needed_bytes(room.total_bytes);
    let wanted = match was_read_only {
        true if room.free_bytes >= needed => needed + needed / RECOVERY_PART,
        true | false => needed,
    };
    (room.free_bytes < wanted).then(|| {
        let (free, wanted) = (size(room.free_bytes), size(wanted));
        format!("free space {free} is below {wanted}; free some, it recovers by itself")
    })
}

/// A number of bytes as people compare it: 1.2 GiB.
fn size(bytes: u64) -> String {
    let mut number = bytes as f64 / 1024.0;
    let mut units = ["KiB", "MiB", "GiB"].into_iter();
    let mut unit = units.next().expect("three");
    for next in units {
        // what would be shown as 1000.0 or more is shown in the next unit
        if number < 999.95 {
            break;
        }
        (number, unit) = (number / 1024.0, next);
    }
    format!("{number:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// The smaller of 5 % and 2 GiB.
    #[test]
    fn what_must_be_free() {
        for (total, needed) in [
            (0, 0),
            (GIB, GIB / 20),
            (39 * GIB, 39 * GIB / 20),
            (40 * GIB, 2 * GIB),
            (41 * GIB, 2 * GIB),
            (u64::MAX, 2 * GIB),
        ] {
            assert_eq!(needed_bytes(total), needed, "{total}");
        }
    }

    /// Below what is needed the node turns read-only, and takes writes again only when a quarter more is free.
    #[test]
    fn a_node_does_not_change_its_mind_at_the_limit() {
        let mut read_only = false;
        let mut sees = |free_bytes| {
            let why = judge(read_only, Room { free_bytes, total_bytes: 100 * GIB });
            read_only = why.is_some();
            why
        };
        assert_eq!(sees(2 * GIB), None);
        let why = "free space 1.5 GiB is below 2.0 GiB; free some, it recovers by itself";
        assert_eq!(sees(3 * GIB / 2).as_deref(), Some(why));
        assert_eq!(sees(3 * GIB / 2).as_deref(), Some(why));
        let why = "free space 2.2 GiB is below 2.5 GiB; free some, it recovers by itself";
        assert_eq!(sees(9 * GIB / 4).as_deref(), Some(why));
        assert!(sees(5 * GIB / 2 - 1).is_some());
        assert_eq!(sees(5 * GIB / 2), None);
        assert_eq!(sees(2 * GIB), None);
        assert!(sees(2 * GIB - 1).is_some());
    }

    #[test]
    fn sizes_are_said_in_fitting_units() {
        for (bytes, said) in [
            (0, "0.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (52 << 20, "52.0 MiB"),
            (GIB - 1, "1.0 GiB"),
            (12 * GIB + GIB / 5, "12.2 GiB"),
            (5000 * GIB, "5000.0 GiB"),
        ] {
            assert_eq!(size(bytes), said);
        }
    }
}
