//! Time as a value that is passed in, so that callers and tests decide what "now" is.

use jiff::Timestamp;

/// Source of the current time.
pub(crate) trait Clock: Send + Sync + 'static {
    /// The current time, in UTC.
    fn now(&self) -> Timestamp;
}

/// The system's wall clock, and the only code that reads it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock the others are told to use")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
