//! The hybrid clock that orders last-write-wins values: wall time where clocks agree, a count
//! where they do not (Kulkarni and others, "Logical physical clocks", 2014).

use serde::{Deserialize, Serialize};

/// Wall milliseconds and a logical count in one number; greater is later.
///
/// ```text
///   63              16 15        0
///   +-----------------+-----------+
///   | milliseconds    | count     |     48 bits last until the year 10889
///   +-----------------+-----------+
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Hybrid(
    /// The bits of the picture above.
    pub u64,
);

impl Hybrid {
    /// A moment. Milliseconds beyond 48 bits count as the last moment there is.
    pub fn of(ms: u64, logical: u16) -> Hybrid {
        const MS_MAX: u64 = (1 << 48) - 1;
        Hybrid(ms.min(MS_MAX) << 16 | u64::from(logical))
    }

    /// Its wall time in milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// Its count within the millisecond.
    pub fn logical(self) -> u16 {
        self.0 as u16
    }

    /// The moment of a change made at `now_ms` by someone who knows of the moment `seen`: now, and
    /// in any case later than `seen`. A full count runs over into the next millisecond.
    pub fn next_after(self, now_ms: u64) -> Hybrid {
        Hybrid::of(now_ms, 0).max(Hybrid(self.0.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_moment_is_now_and_later() {
        let check = |seen: Hybrid, now_ms: u64, expected: Hybrid| {
            assert_eq!(seen.next_after(now_ms), expected);
        };
        check(Hybrid::of(5, 9), 7, Hybrid::of(7, 0));
        check(Hybrid::of(5, 9), 5, Hybrid::of(5, 10));
        check(Hybrid::of(5, 9), 3, Hybrid::of(5, 10)); // our clock is behind what we have seen
        check(Hybrid::of(5, u16::MAX), 5, Hybrid::of(6, 0));
        check(Hybrid(u64::MAX), 5, Hybrid(u64::MAX));
        assert_eq!((Hybrid::of(5, 9).ms(), Hybrid::of(5, 9).logical()), (5, 9));
        assert_eq!(Hybrid::of(u64::MAX, 0).ms(), (1 << 48) - 1);
    }
}
