//! The judge of one link: what becomes of its datagrams, one after the other. Pure.
//!
//! A datagram meets the faults in the order of its way: cut, lost, a turn on the line (bandwidth), the way itself (delay,
//! jitter), let overtake, doubled. Each datagram draws the same number of chances whatever the faults are, so with one
//! seed the fate of the thousandth does not depend on what happened to others.

use atoll_wire::faults::{self, LinkFault};

use crate::chance::Chance;

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It never arrives.
    Lost,
    /// It arrives.
    Arrives {
        /// When, in microseconds.
        at_micros: u64,
        /// And once more.
        twice: bool,
    },
}

/// One link, in one direction.
#[derive(Debug)]
pub(crate) struct Line {
    rules: Vec<LinkFault>,
    chance: Chance,
    /// When the last datagram has left the line, where bandwidth is short.
    free_at: u64,
    /// When the last one arrives of those that keep their order.
    last_arrival: u64,
}

/// What several rules come to at one moment.
#[derive(Debug, Default)]
struct Sum {
    any: bool,
    cut: bool,
    drop: Odds,
    delay_ms: u64,
    jitter_ms: u64,
    duplicate: Odds,
    reorder: Odds,
    bandwidth_bits: Option<u64>,
}

/// How many of a million.
#[derive(Clone, Copy, Debug, Default)]
struct Odds(u64);

impl Odds {
    /// The odds that one of two things happens that know nothing of each other.
    fn or(&mut self, chance: Option<faults::Chance>) {
        let more = chance.map_or(0, |chance| u64::from(chance.millionths()));
        self.0 = MILLION - (MILLION - self.0) * (MILLION - more) / MILLION;
    }

    fn meet(self, drawn: u64) -> bool {
        drawn % MILLION < self.0
    }
}

impl Line {
    /// A link with these rules; links of other numbers have other fates under the same seed.
    pub(crate) fn new(seed: u32, link: u64, rules: Vec<LinkFault>) -> Line {
        // a link's draws begin where a draw says: neighbours share no stretch
        let begin = Chance::of_seed(link).draw() ^ Chance::of_seed(u64::from(seed)).draw();
        let mut chance = Chance::of_seed(begin);
        Line { rules, chance: chance.split(), free_at: 0, last_arrival: 0 }
    }

    pub(crate) fn has_rules_at(&self, wall_ms: u64) -> bool {
        self.sum(wall_ms).any
    }

    pub(crate) fn is_cut_at(&self, wall_ms: u64) -> bool {
        self.sum(wall_ms).cut
    }

    /// What becomes of the next datagram, of so many bytes, that is sent now.
    pub(crate) fn fate(&mut self, bytes: usize, now: u64, wall_ms: u64) -> Fate {
        let drawn = [(); DRAWS].map(|()| self.chance.draw());
        let [lost, jittered, overtaken, doubled] = drawn;
        let sum = self.sum(wall_ms);
        if sum.cut || sum.drop.meet(lost) {
            return Fate::Lost;
        }
        let Some(leaves_at) = self.leaves_at(bytes, now, sum.bandwidth_bits) else {
            return Fate::Lost;
        };
        let shortest = (sum.delay_ms - sum.jitter_ms.min(sum.delay_ms)) * 1000;
        let spread = 2 * sum.jitter_ms.min(sum.delay_ms) * 1000 + 1;
        let arrives_at = leaves_at + shortest + jittered % spread;
        let at_micros = if sum.reorder.meet(overtaken) {
            arrives_at + OVERTAKEN_FOR
        } else {
            self.last_arrival = self.last_arrival.max(arrives_at);
            self.last_arrival
        };
        Fate::Arrives { at_micros, twice: sum.duplicate.meet(doubled) }
    }

    /// When a datagram has left a line of this bandwidth; none if it would wait too long for its turn.
    fn leaves_at(&mut self, bytes: usize, now: u64, bandwidth_bits: Option<u64>) -> Option<u64> {
        let Some(bits_each_second) = bandwidth_bits else { return Some(now) };
        let begins = self.free_at.max(now);
        if begins - now > WAITS_MAX {
            return None;
        }
        let bits = bytes as u64 * 8;
        self.free_at = begins + (bits * MILLION).div_ceil(bits_each_second);
        Some(self.free_at)
    }

    fn sum(&self, wall_ms: u64) -> Sum {
        let mut sum = Sum::default();
        let in_force = |rule: &&LinkFault| rule.when.is_none_or(|when| when.is_at(wall_ms));
        for rule in self.rules.iter().filter(in_force) {
            sum.any = true;
            sum.cut |= rule.cut;
            sum.drop.or(rule.drop);
            sum.delay_ms += u64::from(rule.delay_ms.unwrap_or(0));
            sum.jitter_ms += u64::from(rule.jitter_ms.unwrap_or(0));
            sum.duplicate.or(rule.duplicate);
            sum.reorder.or(rule.reorder);
            let narrower = sum.bandwidth_bits.into_iter().chain(rule.bandwidth_bits).min();
            sum.bandwidth_bits = narrower;
        }
        sum
    }
}

const MILLION: u64 = 1_000_000;

/// Chances that each datagram draws.
const DRAWS: usize = 4;

/// How long a datagram is held that others shall overtake, in microseconds: some dozen others on a busy link, none on an
/// idle one.
const OVERTAKEN_FOR: u64 = 10_000;

/// How long a datagram waits for its turn on a narrow line before it is lost, in microseconds: the buffer of a router.
const WAITS_MAX: u64 = 200_000;

#[cfg(test)]
mod tests {
    use atoll_ring::NodeId;
    use atoll_wire::faults::When;

    use super::*;

    fn none() -> LinkFault {
        LinkFault::to(NodeId(2), "test")
    }

    fn chance(millionths: u32) -> Option<faults::Chance> {
        faults::Chance::of_million(millionths)
    }

    fn line(rules: &[LinkFault]) -> Line {
        Line::new(7, 1, rules.to_vec())
    }

    /// The fates of so many datagrams of 1250 bytes, one each millisecond.
    fn fates(line: &mut Line, count: u64) -> Vec<Fate> {
        (0..count).map(|number| line.fate(1250, number * 1000, 0)).collect()
    }

    /// How long each took that arrived, in microseconds.
    fn took(fates: &[Fate]) -> Vec<u64> {
        let sent = (0..).step_by(1000);
        let arrived = sent.zip(fates).filter_map(|(sent, fate)| match fate {
            Fate::Lost => None,
            Fate::Arrives { at_micros, .. } => Some(at_micros - sent),
        });
        arrived.collect()
    }

    /// Chances come true as often as they say, within five standard deviations; those of two rules as two coins.
    #[test]
    fn chances_come_true_as_often_as_they_say() {
        const COUNT: u64 = 40_000;
        let check = |rules: &[LinkFault], of_million: f64, happened: fn(&Fate) -> bool| {
            let seen = fates(&mut line(rules), COUNT).iter().filter(|fate| happened(fate)).count();
            let p = of_million / 1e6;
            let expected = p * COUNT as f64;
            let deviation = (expected * (1.0 - p)).sqrt();
            let off = (seen as f64 - expected).abs();
            assert!(off <= 5.0 * deviation, "{rules:?}: {seen} of {COUNT}");
        };
        let is_lost = |fate: &Fate| *fate == Fate::Lost;
        let is_double = |fate: &Fate| matches!(fate, Fate::Arrives { twice: true, .. });
        for of_million in [1_000, 50_000, 500_000, 1_000_000] {
            let dropping = LinkFault { drop: chance(of_million), ..none() };
            check(&[dropping], f64::from(of_million), is_lost);
            let doubling = LinkFault { duplicate: chance(of_million), ..none() };
            check(&[doubling], f64::from(of_million), is_double);
        }
        let half = LinkFault { drop: chance(500_000), ..none() };
        check(&[half.clone(), half], 750_000.0, is_lost);
        let slow_and_overtaken = LinkFault { reorder: chance(100_000), ..none() };
        let overtaken = fates(&mut line(&[slow_and_overtaken]), COUNT);
        let late = took(&overtaken).iter().filter(|took| **took >= OVERTAKEN_FOR).count();
        assert!((3_600..4_400).contains(&late), "{late}");
    }

    /// The same seed, the same fates, whatever other faults there are; another seed or another link has others.
    #[test]
    fn a_seed_is_a_fate() {
        let flaky = LinkFault { drop: chance(300_000), ..none() };
        let lost = |mut line: Line| -> Vec<bool> {
            fates(&mut line, 500).iter().map(|fate| *fate == Fate::Lost).collect()
        };
        let first = lost(line(std::slice::from_ref(&flaky)));
        assert_eq!(lost(line(std::slice::from_ref(&flaky))), first);
        let slow = LinkFault { delay_ms: Some(40), jitter_ms: Some(10), ..none() };
        assert_eq!(lost(line(&[slow, flaky.clone()])), first);
        assert_ne!(lost(Line::new(8, 1, vec![flaky.clone()])), first);
        assert_ne!(lost(Line::new(7, 2, vec![flaky])), first);
    }

    /// A delay is what it says, give or take the jitter, which is used up in both directions; the order is kept, though
    /// datagrams follow each other more closely than they jitter.
    #[test]
    fn delays_keep_the_order() {
        let slow = LinkFault { delay_ms: Some(40), ..none() };
        assert!(took(&fates(&mut line(&[slow]), 100)).iter().all(|took| *took == 40_000));
        let jittering = LinkFault { delay_ms: Some(40), jitter_ms: Some(10), ..none() };
        let fates = fates(&mut line(&[jittering]), 2000);
        let took = took(&fates);
        let (least, most) = (took.iter().min().expect("some"), took.iter().max().expect("some"));
        assert!(*least >= 30_000 && *most <= 50_000, "{least} to {most}");
        assert!(*least < 40_000 && *most > 49_000, "{least} to {most}");
        let arrivals = fates.iter().map(|fate| match fate {
            Fate::Arrives { at_micros, .. } => *at_micros,
            Fate::Lost => unreachable!("nothing is dropped"),
        });
        assert!(arrivals.is_sorted());
    }

    /// Who is told to let others overtake arrives behind some of them.
    #[test]
    fn reordered_datagrams_are_overtaken() {
        let reordering = LinkFault { delay_ms: Some(5), reorder: chance(200_000), ..none() };
        let took = took(&fates(&mut line(&[reordering]), 500));
        assert!(took.iter().all(|took| [5_000, 5_000 + OVERTAKEN_FOR].contains(took)));
        let late = took.iter().filter(|took| **took > 5_000).count();
        assert!((50..150).contains(&late), "{late}");
    }

    /// One megabit each second is a datagram of 1250 bytes each ten milliseconds: at one each millisecond they queue up
    /// until the wait is as long as it may be, then nine of ten are lost; what gets through leaves at the line's pace.
    #[test]
    fn bandwidth_spaces_datagrams() {
        let narrow = LinkFault { bandwidth_bits: Some(1_000_000), ..none() };
        let fates = fates(&mut line(std::slice::from_ref(&narrow)), 2000);
        let arrivals: Vec<u64> = fates
            .iter()
            .filter_map(|fate| match fate {
                Fate::Arrives { at_micros, .. } => Some(*at_micros),
                Fate::Lost => None,
            })
            .collect();
        assert_eq!(arrivals[0], 10_000);
        assert!(arrivals.windows(2).all(|two| two[1] - two[0] == 10_000));
        assert!((200..=222).contains(&arrivals.len()), "{}", arrivals.len());
        let waits = took(&fates).into_iter().max().expect("some");
        assert!(waits <= WAITS_MAX + 10_000, "{waits}");
        // of two lines the narrower decides
        let wide = LinkFault { bandwidth_bits: Some(100_000_000), ..none() };
        let both = self::fates(&mut line(&[wide, narrow]), 2000);
        assert_eq!(both, fates);
    }

    /// Rules without a time and with one: what is so depends on the clock, and delays add up.
    #[test]
    fn rules_have_their_times() {
        let when = Some(When { from_ms: 10, until_ms: Some(20), every_ms: None });
        let slow = LinkFault { delay_ms: Some(3), ..none() };
        let cut = LinkFault { cut: true, when, ..none() };
        let slower = LinkFault { delay_ms: Some(4), when, ..none() };
        let mut link = line(&[slow.clone(), cut]);
        assert_eq!(link.fate(9, 0, 9), Fate::Arrives { at_micros: 3000, twice: false });
        assert_eq!(link.fate(9, 0, 10), Fate::Lost);
        assert!(link.is_cut_at(19) && !link.is_cut_at(20));
        assert_eq!(link.fate(9, 9, 20), Fate::Arrives { at_micros: 3009, twice: false });
        let mut link = line(&[slow, slower.clone()]);
        assert_eq!(link.fate(9, 0, 15), Fate::Arrives { at_micros: 7000, twice: false });
        assert!(!line(&[slower]).has_rules_at(25));
    }
}
