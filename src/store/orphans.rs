//! Orphaned claims: the finalizer of their mapping was removed before the target let them be revoked.
//!
//! To the engine they are claims that end, like all claims of a deleted mapping: the grants are revoked from the
//! coordinates in the ledger as soon as that works, and the claims go with them.

use std::collections::BTreeMap;

use super::sqlite::orphans;
use super::{Store, StoreError};
use crate::model::{DocumentKey, MappingKey};

impl Store {
    /// Marks the claims of `mapping` as abandoned, with one audit row a document. Answers how many were marked now. They
    /// stay in the ledger until they are settled, or until the mapping is stored as active again.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; nothing is marked then.
    pub async fn abandon_claims(&self, mapping: &MappingKey) -> Result<u64, StoreError> {
        let mapping = mapping.clone();
        self.commit_leading(move |tx| orphans::mark(tx, &mapping)).await
    }

    /// On how many grants of each document there are abandoned claims. In time proportional to those.
    pub async fn abandoned(&self) -> Result<BTreeMap<DocumentKey, u64>, StoreError> {
        self.read(orphans::count).await
    }
}
