//! What a node says of itself.

use std::sync::atomic::Ordering;

use atoll_transport::Handler as _;
use atoll_wire::NodeStatus;

use super::Node;
use crate::storage::Space;

impl Node {
    pub(super) fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.id.0,
            incarnation: self.incarnation(),
            epoch: self.epoch().0,
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: u64::try_from((self.clock.now() - self.started).as_millis()).unwrap_or(0),
            wall_ms: self.clock.wall_ms(),
            clock_ahead_ms: self.hybrid.ahead_ms(&*self.clock),
            clock_problem: self.hybrid.why_not(&*self.clock),
            resident_bytes: resident_bytes(),
            cpu_micros: cpu_micros(),
            keys: self.disk.rows(Space::Data),
            disk_bytes: self.disk.disk_bytes(),
            free_bytes: self.headroom.free_bytes(),
            read_only: self.headroom.read_only(),
            certificate_expires_ms: self.certificate.expires_ms(),
            certificate_problem: self.certificate.problem(),
            durable_sequence: self.disk.commit().sequence,
            rising: self.rising(),
            doubt: self.doubt.why(),
            partitions_in_doubt: u32::try_from(self.doubt.partitions().len()).unwrap_or(u32::MAX),
            keys_in_doubt: self.doubt.key_count() as u64,
            tombstones: self.repair.trees.tombstones(),
            scrubbed: self.scrubbed.rows(),
            scrubs: self.scrubbed.scrubs(),
            hints: self.hints.total(),
            hint_bytes: self.hints.bytes(),
            hints_refused: self.hints.refused(),
            corrupt_records: self.counts.corrupt.load(Ordering::Relaxed),
            repaired: self.counts.repaired.load(Ordering::Relaxed),
            exchanged: self.repair.exchanged(),
            compared_ms_ago: self.repair.compared_ms_ago(self),
            writes: self.counts.writes.load(Ordering::Relaxed),
            reads: self.counts.reads.load(Ordering::Relaxed),
            hedges: self.hedge.sent(),
            write_times: self.pace.write_times(),
            read_times: self.pace.read_times(),
            unmet: self.pace.unmet(),
            reads_behind: self.pace.reads_behind(),
            peers: self.liveness.status(|peer| self.hints.count(peer)),
        }
    }
}

/// Resident memory of this process, where the system tells.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

/// Processor time of this process, where the system tells: user and system time, in the hundredths of a second that Linux
/// counts in for all its users.
fn cpu_micros() -> u64 {
    const TICK_MICROS: u64 = 10_000;
    let Ok(text) = std::fs::read_to_string("/proc/self/stat") else { return 0 };
    // the program's name, in brackets, may hold blanks; user and system time are the 12th and 13th word behind it
    let Some((_, words)) = text.rsplit_once(')') else { return 0 };
    let times = words.split_whitespace().skip(11).take(2);
    times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * TICK_MICROS
}
