//! How much happened: so that nobody takes a tame run for a proof.

use std::{collections::BTreeMap, fmt};

use crate::faults::Kind;

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Runs.
    pub seeds: u64,
    /// Messages sent.
    pub messages: u64,
    /// Messages lost to the weather or on cut links.
    pub lost: u64,
    /// Requests that arrived twice.
    pub doubled: u64,
    /// Seconds of virtual time.
    pub seconds: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Faults that the atlas forbade, because they would have destroyed the last copy of something.
    pub forbidden: u64,
    /// Puts and deletes that were acknowledged.
    pub acknowledged: u64,
    /// Of those, with the help of a fallback.
    pub by_fallbacks: u64,
    /// Of those, coordinated by a node that does not own the key.
    pub coordinated_by_fallbacks: u64,
    /// Puts and deletes that failed, and say how far they came.
    pub failed: u64,
    /// Requests without an answer.
    pub silence: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Of those, reads that had to see some write, because w + r > n.
    pub promised_reads: u64,
    /// Changes of values of other kinds that were acknowledged.
    pub kind_writes: u64,
    /// Reads of such values that were answered.
    pub kind_reads: u64,
    /// Requests of a session that nobody could satisfy.
    pub not_satisfied: u64,
    /// Changes of the ring that an operator made.
    pub ring_changes: u64,
    /// Changes that were refused.
    pub ring_refused: u64,
    /// Moves of partitions that were finished.
    pub moved: u64,
    /// Epochs that the rings went through.
    pub epochs: u64,
    /// Writes that waited for no fsync and lost all copies.
    pub exempt: u64,
    /// Virtual milliseconds from the end of faults until everything was equal, of the slowest run.
    pub settled_ms_max: u64,
}

impl Figures {
    /// Adds what happened elsewhere.
    pub fn add(&mut self, other: &Figures) {
        self.seeds += other.seeds;
        self.messages += other.messages;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.seconds += other.seconds;
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        self.forbidden += other.forbidden;
        self.acknowledged += other.acknowledged;
        self.by_fallbacks += other.by_fallbacks;
        self.coordinated_by_fallbacks += other.coordinated_by_fallbacks;
        self.failed += other.failed;
        self.silence += other.silence;
        self.reads += other.reads;
        self.promised_reads += other.promised_reads;
        self.kind_writes += other.kind_writes;
        self.kind_reads += other.kind_reads;
        self.not_satisfied += other.not_satisfied;
        self.ring_changes += other.ring_changes;
        self.ring_refused += other.ring_refused;
        self.moved += other.moved;
        self.epochs += other.epochs;
        self.exempt += other.exempt;
        self.settled_ms_max = self.settled_ms_max.max(other.settled_ms_max);
    }

    /// Requests that were asked, whatever came of them.
    pub fn operations(&self) -> u64 {
        self.acknowledged + self.failed + self.silence + self.reads
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let injected: u64 = self.faults.values().sum();
        writeln!(f, "  faults injected       {injected}")?;
        for (kind, count) in &self.faults {
            writeln!(f, "    {:<20}{count}", kind.word())?;
        }
        writeln!(f, "  forbidden by the atlas {}", self.forbidden)?;
        writeln!(
            f,
            "  changes of the ring   {} ({} refused): {} partitions moved in {} epochs",
            self.ring_changes, self.ring_refused, self.moved, self.epochs
        )?;
        writeln!(f, "  operations checked    {}", self.operations())?;
        writeln!(
            f,
            "    writes acknowledged {} ({} with a fallback's help, {} coordinated by one)",
            self.acknowledged, self.by_fallbacks, self.coordinated_by_fallbacks
        )?;
        writeln!(f, "    writes failed       {}", self.failed)?;
        writeln!(
            f,
            "    reads               {} ({} that had to see a write)",
            self.reads, self.promised_reads
        )?;
        writeln!(f, "    without an answer   {}", self.silence)?;
        writeln!(f, "    excused             {}", self.exempt)?;
        writeln!(
            f,
            "  values of other kinds {} changes, {} reads; sessions not satisfied {}",
            self.kind_writes, self.kind_reads, self.not_satisfied
        )?;
        writeln!(
            f,
            "  messages              {} ({} lost, {} doubled)",
            self.messages, self.lost, self.doubled
        )?;
        writeln!(
            f,
            "  virtual time          {} s; after the faults at most {} ms until all was equal",
            self.seconds, self.settled_ms_max
        )
    }
}
