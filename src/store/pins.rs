//! Pins: the groups that selectors of mappings were bound to.

use super::sqlite::pins;
use super::{Store, StoreError};
use crate::model::{MappingKey, Pin};

impl Store {
    /// All pins.
    pub(crate) async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.read(pins::all).await
    }

    /// Stores pins, all or nothing; a pin of the same mapping, provider and selector is replaced.
    pub(crate) async fn put_pins(&self, pins: Vec<Pin>) -> Result<(), StoreError> {
        self.commit_leading(move |tx| pins::put(tx, &pins)).await
    }

    /// Removes all pins of a mapping.
    pub(crate) async fn remove_pins(&self, mapping: &MappingKey) -> Result<(), StoreError> {
        let mapping = mapping.to_string();
        self.commit_leading(move |tx| pins::remove(tx, &mapping)).await
    }
}
