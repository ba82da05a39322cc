//! Randomness as a value that is passed in, so that a simulation can repeat the same numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// The step between two states of the seeded generator (splitmix64).
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Source of random numbers. They spread work over time; nothing depends on their being unpredictable.
#[derive(Debug, Default)]
pub(crate) struct Randomness {
    /// State of the seeded generator; none: the process's own generator is used.
    seeded: Option<AtomicU64>,
}

impl Randomness {
    /// Uses the process's own generator without a seed, otherwise one that draws the same numbers for the same seed.
    #[must_use]
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self { seeded: seed.map(AtomicU64::new) }
    }

    /// Draws the next number.
    #[must_use]
    pub(crate) fn draw(&self) -> u64 {
        let Some(state) = &self.seeded else { return rand::random() };
        let mut mixed = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Draws a number from 0 up to, but not including, 1.
    #[must_use]
    pub(crate) fn fraction(&self) -> f64 {
        let high = u32::try_from(self.draw() >> 32).unwrap_or(u32::MAX);
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }

    /// Draws a factor between 0.9 and 1.1, which keeps timers with the same interval from firing at the same moment.
    #[must_use]
    pub(crate) fn jitter(&self) -> f64 {
        0.9 + 0.2 * self.fraction()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn same_seed_draws_the_same_numbers_and_another_seed_draws_others() {
        let draws = |seed: u64| {
            let random = Randomness::new(Some(seed));
            [(); 8].map(|()| random.draw())
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        assert_ne!(Randomness::new(None).draw(), Randomness::new(None).draw());
    }

    proptest! {
        #[test]
        fn fraction_and_jitter_stay_within_their_bounds(seed: u64) {
            let random = Randomness::new(Some(seed));
            for _ in 0..32 {
                prop_assert!((0.0..1.0).contains(&random.fraction()));
                prop_assert!((0.9..=1.1).contains(&random.jitter()));
            }
        }
    }
}
