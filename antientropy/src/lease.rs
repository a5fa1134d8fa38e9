//! Counters that are never given twice.
//!
//! A counter that names two changes erases one of them, so giving one out must survive any crash.
//! An fsync per write would be too dear; so a node leases a block, writes the block's end to stable
//! storage *first*, and then gives out what lies below it. After a crash it goes on above the end,
//! and the counters in between are never used.
//!
//! ```text
//!   1 ......... given ......... next ......... end | ......... next block
//!                                                  ^ on stable storage; after a crash: resume here
//! ```
//!
//! There is one lease per (actor, partition). Its end is kept for ever, also after the partition
//! has moved away and for partitions that were served only as a fallback: the node may come back,
//! and so may its old events.

/// The counters that one actor may still give out in one partition. Counters start at 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The last counter given, or skipped.
    given: u64,
    /// The last counter that may be given; on stable storage.
    end: u64,
}

impl Lease {
    /// Goes on after a start: `end` is what stable storage says (0 if it never said anything).
    /// Nothing up to it is ever given again.
    pub fn resume(end: u64) -> Lease {
        Lease { given: end, end }
    }

    /// The next counter, or `None` when the lease must be extended first.
    pub fn take(&mut self) -> Option<u64> {
        if self.given == self.end {
            return None;
        }
        self.given += 1;
        Some(self.given)
    }

    /// How many counters may be given before the lease must be extended.
    pub fn remaining(&self) -> u64 {
        self.end - self.given
    }

    /// The end to write to stable storage for `block` further counters.
    pub fn next_end(&self, block: u64) -> u64 {
        self.end.saturating_add(block)
    }

    /// Allows counters up to `end`. Call it only after the fsync that made `end` durable; panics if
    /// `end` goes back.
    pub fn extend_to(&mut self, end: u64) {
        assert!(end >= self.end, "the end of a lease never goes back");
        self.end = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two blocks, a crash in the second, a third block: no counter comes twice, and none before
    /// its end was durable.
    #[test]
    fn counters_are_given_once() {
        let mut lease = Lease::resume(0);
        assert_eq!((lease.take(), lease.remaining(), lease.next_end(3)), (None, 0, 3));
        lease.extend_to(3);
        assert_eq!(
            [lease.take(), lease.take(), lease.take(), lease.take()],
            [Some(1), Some(2), Some(3), None]
        );
        lease.extend_to(lease.next_end(3));
        assert_eq!((lease.take(), lease.remaining()), (Some(4), 2));

        let mut after_crash = Lease::resume(6);
        assert_eq!(after_crash.take(), None);
        after_crash.extend_to(after_crash.next_end(1));
        assert_eq!((after_crash.take(), after_crash.take()), (Some(7), None));
    }

    /// Extending early keeps what is left of the block.
    #[test]
    fn extending_early_wastes_nothing() {
        let mut lease = Lease::resume(10);
        lease.extend_to(12);
        lease.take();
        lease.extend_to(lease.next_end(2));
        assert_eq!(lease.remaining(), 3);
        assert_eq!(lease.take(), Some(12));
    }

    /// At the end of all numbers nothing is given rather than something twice.
    #[test]
    fn the_last_number_is_the_last() {
        let mut lease = Lease::resume(u64::MAX - 1);
        lease.extend_to(lease.next_end(64));
        assert_eq!(
            (lease.take(), lease.take(), lease.next_end(64)),
            (Some(u64::MAX), None, u64::MAX)
        );
    }

    #[test]
    #[should_panic(expected = "never goes back")]
    fn an_end_never_goes_back() {
        Lease::resume(5).extend_to(4);
    }
}
