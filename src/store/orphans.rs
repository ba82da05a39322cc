//! Orphaned claims: claims of a mapping whose finalizer was removed before the target permitted their revocation.
//!
//! To the engine they are ending claims, like all claims of a deleted mapping. The grants are revoked from the
//! coordinates in the ledger as soon as possible, and the claims are removed with them.

use std::collections::BTreeMap;

use super::sqlite::orphans;
use super::{Store, StoreError};
use crate::model::{DocumentKey, MappingKey};

impl Store {
    /// Marks the claims of `mapping` as orphaned, with one audit row per document. Returns the number of newly marked
    /// claims. They stay in the ledger until they are settled, or until the mapping is stored as active again.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; then nothing is marked.
    pub(crate) async fn orphan_claims(&self, mapping: &MappingKey) -> Result<u64, StoreError> {
        let mapping = mapping.clone();
        self.commit_leading(move |tx| orphans::mark(tx, &mapping)).await
    }

    /// Number of grants with orphaned claims, by document. The cost is proportional to those.
    pub(crate) async fn orphaned(&self) -> Result<BTreeMap<DocumentKey, u64>, StoreError> {
        self.read(orphans::count).await
    }
}
