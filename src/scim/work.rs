//! Work limit of one request, counted in steps and not in time, so that the same request costs the same on every
//! machine.

use super::error::ScimError;

/// Largest number of steps of one request. A step is a comparison, or a copy, of at most `STEP_BYTES` bytes. A
/// request of an identity provider takes a few hundred; this many take some tens of milliseconds.
pub(crate) const MAX_WORK: u64 = 500_000;

/// Number of bytes of text that one step covers.
const STEP_BYTES: usize = 64;

/// Largest number of steps of one list that has to read resources.
const MAX_SCAN_WORK: u64 = 20_000_000;

/// The steps that a request has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    spent: u64,
    limit: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self { spent: 0, limit: MAX_WORK }
    }
}

impl Work {
    /// The work of a list that has to read resources.
    #[must_use]
    pub(crate) fn of_a_scan() -> Self {
        Self { spent: 0, limit: MAX_SCAN_WORK }
    }

    /// Uses `steps` more.
    ///
    /// # Errors
    /// `tooMany` beyond [`MAX_WORK`].
    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), ScimError> {
        self.spent = self.spent.saturating_add(steps as u64);
        if self.spent <= self.limit {
            return Ok(());
        }
        Err(ScimError::TooMany(format!(
            "the request takes more than {} comparisons; send fewer or simpler operations in one request",
            self.limit
        )))
    }

    /// The number of used steps.
    #[must_use]
    pub(crate) fn spent(self) -> u64 {
        self.spent
    }
}

/// The number of steps for handling this many bytes.
pub(super) fn steps(bytes: usize) -> usize {
    1 + bytes / STEP_BYTES
}
