//! Random draws of a simulation.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::model::Randomness;

/// A seeded generator with the draws that steps need.
#[derive(Debug, Clone)]
pub(super) struct Chance(Arc<Randomness>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Randomness::new(Some(seed))))
    }

    /// A separate generator, so that its draws do not affect others.
    pub(super) fn fork(&self) -> Arc<Randomness> {
        Arc::new(Randomness::new(Some(self.0.draw())))
    }

    pub(super) fn seed(&self) -> u64 {
        self.0.draw()
    }

    /// A number below `most`.
    pub(super) fn below(&self, most: usize) -> usize {
        usize::try_from(self.0.draw() % (most.max(1) as u64)).unwrap_or(0)
    }

    pub(super) fn one_in(&self, most: usize) -> bool {
        self.below(most) == 0
    }

    pub(super) fn pick<T: Clone>(&self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).cloned()
    }

    pub(super) fn id(&self) -> Uuid {
        uuid::Builder::from_random_bytes((u128::from(self.0.draw()) << 64 | u128::from(self.0.draw())).to_be_bytes())
            .into_uuid()
    }

    pub(super) fn millis(&self, most: usize) -> Duration {
        Duration::from_millis(self.below(most) as u64)
    }
}
