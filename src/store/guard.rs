//! The guard's count of people over documents, reconciles and restarts, and the removals that it holds.

use std::collections::BTreeSet;

use super::audit::AuditDraft;
use super::sqlite::guard;
use super::{Store, StoreError};
use crate::model::{AuditEntry, DocumentKey, Removal, RemovalLimits, Subject};

impl Store {
    /// Decides which of these removals on a document are held, and records that. Removals that are no longer proposed
    /// are no longer held.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; then nothing is decided.
    pub(crate) async fn guard(
        &self,
        document: &DocumentKey,
        asks: Vec<Removal>,
        limits: RemovalLimits,
    ) -> Result<BTreeSet<Removal>, StoreError> {
        let document = document.to_string();
        self.commit_leading(move |tx| guard::decide(tx, &document, asks, limits)).await
    }

    /// The documents on which there are claims of a person or group.
    pub(crate) async fn documents_of(&self, subject: Subject) -> Result<Vec<DocumentKey>, StoreError> {
        self.read(move |db| guard::documents_of(db, subject)).await
    }

    /// Releases exactly these held removals, and appends the audit rows.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; then nothing is released.
    pub(crate) async fn release_removals(
        &self,
        removals: Vec<(DocumentKey, Vec<Removal>)>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError> {
        self.commit_leading(move |tx| {
            for (document, removals) in &removals {
                guard::release(tx, document, removals)?;
            }
            for entry in audit {
                tx.audit(AuditDraft::of(entry));
            }
            Ok(())
        })
        .await
    }
}
