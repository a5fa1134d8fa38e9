//! The keys of a run: their names, how often each is drawn, and who writes which.
//!
//! A key's index is its popularity: under Zipf's law key 0 is the most wanted one. Unless keys are shared, worker `i` of
//! `W` writes the keys with `index % W == i` and nobody else does, so that its last put's context covers everything that
//! was acknowledged there.
//!
//! A worker draws its own key by drawing any key and moving within the group of `W` neighbours to the one that is its
//! own. So each group is written as often as the law says; within a group, writes are spread evenly. Reads follow the
//! law key by key.

use rand::Rng;

use crate::{Distribution, Zipf};

/// How many keys, how popular, and how they are divided among the writers.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    count: u32,
    writers: u32,
    zipf: Option<Zipf>,
}

impl Keys {
    /// `count` keys divided among `writers`; at least one of each.
    pub fn new(count: u32, writers: u32, distribution: Distribution) -> Keys {
        assert!(count > 0 && writers > 0, "checked with the settings");
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf => Some(Zipf::new(count)),
        };
        Keys { count, writers, zipf }
    }

    /// Any key, drawn by its popularity.
    pub fn any(&self, dice: &mut impl Rng) -> u32 {
        match &self.zipf {
            None => dice.random_range(0..self.count),
            Some(zipf) => zipf.draw(dice),
        }
    }

    /// A key of this writer, drawn by its popularity. There must be at least as many keys as writers.
    pub fn own(&self, writer: u32, dice: &mut impl Rng) -> u32 {
        assert!(self.count >= self.writers, "checked with the settings: every writer has a key");
        let drawn = self.any(dice);
        let own = drawn - drawn % self.writers + writer;
        if own < self.count { own } else { own - self.writers } // the last group may be short
    }

    /// All keys of this writer.
    pub fn all_of(&self, writer: u32) -> impl Iterator<Item = u32> + use<> {
        (writer..self.count).step_by(self.writers as usize)
    }
}

/// Room for one key's name, filled anew for each operation: `bench:0000000042`.
///
/// All runs use the same names, so that a second run replaces what the first one left instead of adding to it. Only runs
/// whose history is recorded have names of their own.
#[derive(Clone, Debug)]
pub struct KeyName(Vec<u8>);

/// What all names begin with.
const PREFIX: &str = "bench";
/// Enough for every `u32`; all names are of equal length.
const DIGITS: usize = 10;

impl KeyName {
    /// The name of key 0.
    pub fn new() -> KeyName {
        KeyName(format!("{PREFIX}:{:0DIGITS$}", 0).into())
    }

    /// The name of key 0 in a run that has a number of its own.
    pub fn of_run(number: u32) -> KeyName {
        KeyName(format!("{PREFIX}-{number:08x}:{:0DIGITS$}", 0).into())
    }

    /// The name of a key, good until the next one is asked for.
    pub fn of(&mut self, mut index: u32) -> &[u8] {
        for digit in self.0.iter_mut().rev().take(DIGITS) {
            *digit = b'0' + (index % 10) as u8;
            index /= 10;
        }
        &self.0
    }
}

impl Default for KeyName {
    fn default() -> Self {
        KeyName::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng as _, rngs::SmallRng};

    use super::*;

    #[test]
    fn names_are_padded() {
        let mut name = KeyName::new();
        for (index, expected) in
            [(0, "bench:0000000000"), (42, "bench:0000000042"), (u32::MAX, "bench:4294967295")]
        {
            assert_eq!(name.of(index), expected.as_bytes());
        }
        assert_eq!(KeyName::of_run(0x3f9).of(42), b"bench-000003f9:0000000042");
    }

    /// Every key has exactly one writer, and a writer draws all of its keys and no others; also when they do not divide
    /// evenly.
    #[test]
    fn each_key_has_one_writer() {
        for (count, writers) in [(1, 1), (7, 7), (7, 3), (64, 64), (100, 64), (127, 64)] {
            for distribution in [Distribution::Uniform, Distribution::Zipf] {
                let (keys, mut dice) =
                    (Keys::new(count, writers, distribution), SmallRng::seed_from_u64(1));
                let mut written = BTreeSet::new();
                for writer in 0..writers {
                    let own: BTreeSet<u32> = keys.all_of(writer).collect();
                    let drawn: BTreeSet<u32> =
                        (0..1000).map(|_| keys.own(writer, &mut dice)).collect();
                    assert_eq!(drawn, own, "{count} keys, writer {writer} of {writers}");
                    assert!(own.iter().all(|key| key % writers == writer && written.insert(*key)));
                }
                assert_eq!(written.len(), count as usize);
            }
        }
    }

    /// With all workers writing equally often, groups of neighbours are written as often as they are read.
    #[test]
    fn groups_are_written_as_the_law_says() {
        let (count, writers, draws) = (6400, 64, 400_000);
        let (keys, mut dice) =
            (Keys::new(count, writers, Distribution::Zipf), SmallRng::seed_from_u64(1));
        let mut shares = [[0u32; 3]; 2];
        for draw in 0..draws {
            let both = [keys.any(&mut dice), keys.own(draw % writers, &mut dice)];
            for (key, seen) in both.into_iter().zip(&mut shares) {
                seen[usize::from(key >= writers) + usize::from(key >= 10 * writers)] += 1;
            }
        }
        for (read, written) in shares[0].into_iter().zip(shares[1]) {
            let difference = f64::from(read.abs_diff(written)) / f64::from(draws);
            assert!(difference < 0.005, "{shares:?}");
        }
    }
}
