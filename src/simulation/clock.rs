//! The wall clock of a simulation: tokio's paused time from a fixed origin.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::model::Clock;

#[derive(Debug, Clone, Copy)]
pub(super) struct SimulatedClock {
    start: Instant,
    origin: Timestamp,
}

impl SimulatedClock {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), origin: "2027-01-31T12:00:00Z".parse().expect("a time") }
    }

    pub(super) fn at(&self, instant: Instant) -> Timestamp {
        self.origin.saturating_add(instant.duration_since(self.start)).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self, instant: Instant) -> f64 {
        instant.duration_since(self.start).as_secs_f64()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }
}
