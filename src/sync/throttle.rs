//! The backoff shared by all calls of one region and kind after a refusal because of the quota.

use std::time::Duration;

use tokio::time::Instant;

use super::lanes::{Lane, Throttled};
use crate::target::Backoff;

/// A removal is retried soon: somebody has access meanwhile, and quota is refilled every second.
const REMOVAL: Backoff =
    Backoff { floor: Duration::from_millis(500), base: Duration::from_secs(1), cap: Duration::from_secs(5) };

/// Longest accepted delay of a removal, whatever Google asks for.
const REMOVAL_MAX: Duration = Duration::from_mins(1);

/// A quota that was last exceeded this long ago is full again, because it is counted by the minute.
const QUIET: Duration = Duration::from_mins(1);

/// The state of one quota.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: u32,
    /// Time of the last refusal that counted.
    last: Option<Instant>,
    opens: [Option<Instant>; 2],
    /// Number of concurrent calls; none: no limit of its own.
    width: Option<usize>,
}

impl Throttle {
    /// Records a refused call. Calls that were already in progress when another one was refused give no new
    /// information.
    pub(crate) fn throttled(&mut self, answer: &Throttled) {
        if self.last.is_some_and(|last| answer.begun <= last) {
            return;
        }
        let asked = answer.retry_after.unwrap_or_default();
        let removal = REMOVAL.delay(self.failures, answer.random).max(asked.min(REMOVAL_MAX));
        let addition = Backoff::FAILURE.delay(self.failures, answer.random).max(asked).max(removal);
        self.failures = self.failures.saturating_add(1);
        self.last = Some(answer.now);
        self.opens = [Some(answer.now + removal), Some(answer.now + addition)];
        self.width = Some(1);
    }

    /// Records an answered call. From here on, twice as many may run concurrently.
    pub(crate) fn answered(&mut self, begun: Instant) {
        if self.last.is_some_and(|last| begun <= last) {
            return;
        }
        self.failures = 0;
        self.width = self.width.and_then(|width| width.checked_mul(2)).filter(|width| *width < 64);
    }

    /// Time at which calls of this lane may be sent again.
    pub(crate) fn opens(&self, lane: Lane) -> Option<Instant> {
        self.opens[lane as usize]
    }

    /// Number of calls that may run concurrently.
    pub(crate) fn width(&self, now: Instant) -> usize {
        let over = self.opens(Lane::Addition).is_none_or(|opens| now > opens + QUIET);
        self.width.filter(|_| !over).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(begun: Instant, now: Instant, retry_after: Option<u64>) -> Throttled {
        Throttled { begun, now, retry_after: retry_after.map(Duration::from_secs), random: 1.0 }
    }

    #[test]
    fn removals_wait_seconds_where_additions_wait_up_to_a_minute() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        for _ in 0..10 {
            now += Duration::from_secs(100);
            throttle.throttled(&refusal(now, now, None));
        }
        assert_eq!(throttle.opens(Lane::Removal), Some(now + Duration::from_secs(5)));
        assert_eq!(throttle.opens(Lane::Addition), Some(now + Duration::from_mins(1)));
        throttle.answered(now + Duration::from_secs(5));
        throttle.throttled(&refusal(now + Duration::from_secs(6), now + Duration::from_secs(6), None));
        assert_eq!(throttle.opens(Lane::Addition), Some(now + Duration::from_secs(8)), "it begins anew");
    }

    #[test]
    fn refusals_of_calls_that_were_under_way_together_count_once() {
        let (mut throttle, begun) = (Throttle::default(), Instant::now());
        let now = begun + Duration::from_secs(1);
        for late in 0..8 {
            throttle.throttled(&refusal(begun, now + Duration::from_millis(late), None));
        }
        assert_eq!(throttle.opens(Lane::Addition), Some(now + Duration::from_secs(2)));
        assert_eq!(throttle.width(now), 1);
        assert_eq!(throttle.width(now + Duration::from_secs(63)), usize::MAX);
    }

    #[test]
    fn what_google_asks_for_is_kept_and_bounded_for_removals() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.throttled(&refusal(now, now, Some(30)));
        assert_eq!(throttle.opens(Lane::Removal), Some(now + Duration::from_secs(30)));
        let later = now + Duration::from_secs(100);
        throttle.throttled(&refusal(later, later, Some(600)));
        assert_eq!(throttle.opens(Lane::Removal), Some(later + Duration::from_mins(1)));
        assert_eq!(throttle.opens(Lane::Addition), Some(later + Duration::from_mins(10)));
    }
}
