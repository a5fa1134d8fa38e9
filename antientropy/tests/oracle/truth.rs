//! The oracle: causality as plain sets of writes, without dots, counters, contexts or intervals.

use atoll_antientropy::Dot;

/// A set of writes of one history, by their numbers, as bits. A history has fewer than 64.
pub type Writes = u64;

/// All writes of a history so far.
#[derive(Default)]
pub struct Truth {
    writes: Vec<Write>,
}

struct Write {
    /// The name that the scheme under test gave it.
    dot: Dot,
    /// Put or delete.
    is_put: bool,
    /// The writes that the writer's context stood for.
    seen: Writes,
}

impl Truth {
    /// The number that the next write will have.
    pub fn next(&self) -> usize {
        self.writes.len()
    }

    pub fn add(&mut self, dot: Dot, is_put: bool, seen: Writes) {
        self.writes.push(Write { dot, is_put, seen });
    }

    /// The values that must be alive where exactly `known` is known: puts that no known write had
    /// seen.
    pub fn alive(&self, known: Writes) -> Writes {
        let mut alive = 0;
        let mut seen = 0;
        for (number, write) in self.writes.iter().enumerate() {
            if known & (1 << number) != 0 {
                alive |= u64::from(write.is_put) << number;
                seen |= write.seen;
            }
        }
        alive & !seen
    }

    /// The promise in its own words: of the writes that survived anywhere, each is a value, or a
    /// surviving write had seen it. Returns those of which neither holds.
    pub fn vanished(&self, survived: Writes, values: Writes) -> Writes {
        let mut vanished = 0;
        for (number, write) in self.writes.iter().enumerate() {
            let survives = |number: usize| survived & (1 << number) != 0;
            let is_value = values & (1 << number) != 0;
            let superseded = (0..self.writes.len())
                .any(|later| survives(later) && self.writes[later].seen & (1 << number) != 0);
            if write.is_put && survives(number) && !is_value && !superseded {
                vanished |= 1 << number;
            }
        }
        vanished
    }

    /// The writes of which `knows` says that they are known.
    pub fn claimed(&self, knows: impl Fn(&Dot) -> bool) -> Writes {
        let claim = |(number, write): (usize, &Write)| u64::from(knows(&write.dot)) << number;
        self.writes.iter().enumerate().map(claim).fold(0, |all, one| all | one)
    }
}
