//! Random draws of a test, from a seed that its failure names.

use crate::model::Randomness;

/// A seeded generator.
pub(super) struct Draws(Randomness);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(Randomness::new(Some(seed)))
    }

    /// A number below `most`.
    pub(super) fn below(&self, most: usize) -> usize {
        usize::try_from(self.0.draw() % most as u64).unwrap()
    }

    pub(super) fn one_in(&self, most: usize) -> bool {
        self.below(most) == 0
    }

    pub(super) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
