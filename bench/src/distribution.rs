//! Zipf's law: the k-th most popular key is wanted in proportion to 1 / k^0.99.
//!
//! Drawn by rejection-inversion (W. Hörmann, G. Derflinger: Rejection-inversion to generate variates from monotone
//! discrete distributions, ACM TOMACS 6(3), 1996), which is exact, needs no tables and accepts nearly every first draw.
//! The formula by Gray et al. that YCSB uses is an approximation with a setup linear in the number of keys.
//!
//! YCSB also scrambles the ranks, so that popular keys are not neighbours. Here a key's place on the ring is a hash of
//! its name, which does that already.

use rand::Rng;

/// Ranks 0 to count - 1, rank 0 the most popular one.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    count: f64,
    /// The integral at the left end of rank 1's bar, moved so that rank 1 is always accepted.
    area_low: f64,
    /// The integral at the right end of the last bar.
    area_high: f64,
    /// Draws at most this far left of their rank are accepted without a further look.
    sure: f64,
}

/// YCSB's constant: web-like skew. With 100,000 keys the first one gets 8 % of the traffic.
pub const EXPONENT: f64 = 0.99;

impl Zipf {
    /// A law over `count` ranks, at least one.
    pub fn new(count: u32) -> Zipf {
        assert!(count > 0, "somebody must be first");
        let count = f64::from(count);
        Zipf {
            count,
            area_low: area(1.5) - 1.0,
            area_high: area(count + 0.5),
            sure: 2.0 - area_inverse(area(2.5) - height(2.0)),
        }
    }

    /// A rank.
    pub fn draw(&self, dice: &mut impl Rng) -> u32 {
        loop {
            let spot = self.area_high + dice.random::<f64>() * (self.area_low - self.area_high);
            let x = area_inverse(spot);
            let rank = (x + 0.5).floor().clamp(1.0, self.count);
            if rank - x <= self.sure || spot >= area(rank + 0.5) - height(rank) {
                return rank as u32 - 1; // between 1 and count
            }
        }
    }
}

/// How tall the bar of a rank (from 1) is: its weight.
fn height(x: f64) -> f64 {
    (-EXPONENT * x.ln()).exp()
}

/// An integral of [`height`]: (x^(1-s) - 1) / (1-s).
fn area(x: f64) -> f64 {
    ((1.0 - EXPONENT) * x.ln()).exp_m1() / (1.0 - EXPONENT)
}

/// The x at which [`area`] has this value.
fn area_inverse(area: f64) -> f64 {
    (((1.0 - EXPONENT) * area).ln_1p() / (1.0 - EXPONENT)).exp()
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::SmallRng};

    use super::*;

    /// Drawn often enough, every rank comes as often as the law says: chi-square within five standard deviations.
    #[test]
    fn ranks_come_as_often_as_the_law_says() {
        for count in [1, 2, 3, 10, 100, 1000] {
            let (zipf, mut dice) = (Zipf::new(count), SmallRng::seed_from_u64(7));
            let mut seen = vec![0u32; count as usize];
            for _ in 0..DRAWS {
                seen[zipf.draw(&mut dice) as usize] += 1;
            }
            let law = law(count);
            let distance: f64 = (seen.iter().zip(&law))
                .map(|(seen, share)| {
                    let expected = share * f64::from(DRAWS);
                    (f64::from(*seen) - expected).powi(2) / expected
                })
                .sum();
            let freedom = f64::from(count - 1);
            let bound = freedom + 5.0 * (2.0 * freedom).sqrt();
            assert!(distance <= bound, "{count} ranks: {distance} above {bound}");
        }
    }

    /// With many keys no single rank can be checked, but the head, the middle and the tail can.
    #[test]
    fn a_hundred_thousand_keys_have_the_right_head_and_tail() {
        let count = 100_000;
        let (zipf, mut dice) = (Zipf::new(count), SmallRng::seed_from_u64(7));
        let bounds = [1, 2, 10, 64, 1000, 10_000, count];
        let mut seen = [0u32; 7];
        for _ in 0..DRAWS {
            let rank = zipf.draw(&mut dice);
            assert!(rank < count);
            for (bound, seen) in bounds.iter().zip(&mut seen) {
                *seen += u32::from(rank < *bound);
            }
        }
        let law = law(count);
        for (bound, seen) in bounds.into_iter().zip(seen) {
            let expected: f64 = law[..bound as usize].iter().sum();
            let share = f64::from(seen) / f64::from(DRAWS);
            let sigma = (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt();
            assert!((share - expected).abs() <= 5.0 * sigma + 1e-9, "first {bound}: {share}");
        }
        assert!((law[0] - 0.08).abs() < 0.005, "as the documentation of EXPONENT says: {}", law[0]);
    }

    #[test]
    fn the_same_seed_draws_the_same_ranks() {
        let draw = |seed| {
            let (zipf, mut dice) = (Zipf::new(1000), SmallRng::seed_from_u64(seed));
            (0..100).map(|_| zipf.draw(&mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    const DRAWS: u32 = 200_000;

    /// The law, written down once more in the plainest way.
    fn law(count: u32) -> Vec<f64> {
        let weights: Vec<f64> =
            (1..=count).map(|rank| 1.0 / f64::from(rank).powf(EXPONENT)).collect();
        let all: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / all).collect()
    }
}
