//! Delay before a call is retried.

use std::time::Duration;

/// Exponential backoff with full jitter: the ceiling doubles with every attempt, and the delay is drawn evenly between
/// the floor and the ceiling. Full jitter is used because the usual reason to wait is that others write the same policy
/// at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// Shortest delay.
    pub(crate) floor: Duration,
    /// Ceiling of the first delay.
    pub(crate) base: Duration,
    /// Longest delay.
    pub(crate) cap: Duration,
}

impl Backoff {
    /// Between two attempts at one policy after a conflict. Another writer needs tens of milliseconds for its own
    /// read-modify-write, and Google permits tens of writes per minute.
    pub(crate) const CONFLICT: Self =
        Self { floor: Duration::from_millis(20), base: Duration::from_millis(200), cap: Duration::from_secs(10) };

    /// After a failure that may last: Google is unavailable, the quota is exceeded, or the outcome is unknown. The cap
    /// is one minute, because Google's quotas are counted per minute.
    pub(crate) const FAILURE: Self =
        Self { floor: Duration::from_millis(500), base: Duration::from_secs(2), cap: Duration::from_mins(1) };

    /// The delay before attempt number `attempt + 1`, where `attempt` counts the failures so far from 0. `random` is a
    /// number from 0 up to 1; other values are clamped into that range.
    #[must_use]
    pub(crate) fn delay(&self, attempt: u32, random: f64) -> Duration {
        let random = if random.is_nan() { 1.0 } else { random.clamp(0.0, 1.0) };
        // 31 doublings of a millisecond are 24 days: any reasonable cap is reached before.
        let factor = 1_u32 << attempt.min(31);
        let ceiling = self.base.saturating_mul(factor).min(self.cap).max(self.floor);
        self.floor + ceiling.saturating_sub(self.floor).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delay_doubles_its_ceiling_until_the_cap() {
        let ceilings: Vec<u64> = (0..8).map(|attempt| Backoff::FAILURE.delay(attempt, 1.0).as_secs()).collect();
        assert_eq!(ceilings, [2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn delay_is_the_floor_when_the_draw_is_zero() {
        assert_eq!(Backoff::CONFLICT.delay(7, 0.0), Backoff::CONFLICT.floor);
    }

    proptest! {
        #[test]
        fn delay_stays_between_floor_and_cap_for_any_attempt_and_any_draw(attempt: u32, random: f64) {
            for backoff in [Backoff::CONFLICT, Backoff::FAILURE] {
                let delay = backoff.delay(attempt, random);
                prop_assert!(delay >= backoff.floor && delay <= backoff.cap, "{delay:?}");
            }
        }
    }
}
