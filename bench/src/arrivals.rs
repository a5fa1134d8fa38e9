//! When the operations of an open loop arrive: a plan that depends on the seed alone, never on the answers.

use std::time::Duration;

use rand::{Rng as _, rngs::SmallRng};
use serde::Serialize;

/// How arrivals are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Independent of each other, as from many users who do not know each other: the gaps are exponential, so some come
    /// close together.
    #[default]
    Poisson,
    /// At equal distances. Kinder to a queue than users are.
    Uniform,
}

/// The moments of arrival, from zero on and without end.
#[derive(Debug)]
pub(crate) struct Plan {
    arrivals: Arrivals,
    rate: f64,
    /// How many there were.
    number: u64,
    /// The last Poisson arrival, in seconds.
    last: f64,
    dice: SmallRng,
}

impl Plan {
    /// So many arrivals per second; more than none.
    pub fn new(rate: u32, arrivals: Arrivals, dice: SmallRng) -> Plan {
        assert!(rate > 0, "checked with the settings");
        Plan { arrivals, rate: rate.into(), number: 0, last: 0.0, dice }
    }
}

impl Iterator for Plan {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match self.arrivals {
            Arrivals::Uniform => self.number as f64 / self.rate,
            Arrivals::Poisson => {
                let chance: f64 = self.dice.random(); // 0 to below 1
                self.last -= (1.0 - chance).ln() / self.rate;
                self.last
            }
        };
        self.number += 1;
        Some(Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn plan(rate: u32, arrivals: Arrivals, seed: u64) -> Plan {
        Plan::new(rate, arrivals, SmallRng::seed_from_u64(seed))
    }

    #[test]
    fn uniform_arrivals_are_equally_far_apart() {
        let moments: Vec<Duration> = plan(1000, Arrivals::Uniform, 1).take(4).collect();
        assert_eq!(moments, [0, 1, 2, 3].map(Duration::from_millis));
        let third = plan(3, Arrivals::Uniform, 1).nth(3_000_000).unwrap();
        assert_eq!(third, Duration::from_secs(1_000_000), "no error adds up");
    }

    /// In each of 1000 spans of 10 ms at 1000/s there are 10 on average and with a variance of 10: both within five
    /// standard deviations of what they are estimated from.
    #[test]
    fn poisson_arrivals_come_as_poisson_says() {
        let mut spans = [0u32; 1000];
        for at in plan(1000, Arrivals::Poisson, 1).take_while(|at| *at < Duration::from_secs(10)) {
            spans[(at.as_secs_f64() * 100.0) as usize] += 1;
        }
        let mean = spans.iter().sum::<u32>() as f64 / 1000.0;
        let variance = spans.iter().map(|n| (f64::from(*n) - mean).powi(2)).sum::<f64>() / 999.0;
        assert!((mean - 10.0).abs() < 5.0 * (10.0f64 / 1000.0).sqrt(), "{mean}");
        assert!((variance - 10.0).abs() < 5.0 * (210.0f64 / 1000.0).sqrt(), "{variance}");
    }

    #[test]
    fn the_same_seed_makes_the_same_plan() {
        let moments = |seed| plan(50, Arrivals::Poisson, seed).take(100).collect::<Vec<_>>();
        assert_eq!(moments(1), moments(1));
        assert_ne!(moments(1), moments(2));
        assert!(moments(1).is_sorted());
    }
}
