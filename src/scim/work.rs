//! What one request may cost, counted in steps and never in time: the same request costs the same on every machine.

use super::error::ScimError;

/// The most steps of one request. A step is a comparison, or a copy, of at most [`STEP_BYTES`] bytes. A request of an identity
/// provider takes a few hundred; this many take some tens of milliseconds.
pub const MAX_WORK: u64 = 500_000;

/// How much text one step covers.
const STEP_BYTES: usize = 64;

/// The steps that a request has taken so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    spent: u64,
}

impl Work {
    /// Takes `steps` more.
    ///
    /// # Errors
    /// `tooMany` beyond [`MAX_WORK`].
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), ScimError> {
        self.spent = self.spent.saturating_add(steps as u64);
        if self.spent <= MAX_WORK {
            return Ok(());
        }
        Err(ScimError::TooMany(format!(
            "the request takes more than {MAX_WORK} comparisons; send fewer or simpler operations in one request"
        )))
    }

    /// How many steps were taken.
    #[must_use]
    pub fn spent(self) -> u64 {
        self.spent
    }
}

/// The steps that handling this many bytes takes.
pub(super) fn steps(bytes: usize) -> usize {
    1 + bytes / STEP_BYTES
}
