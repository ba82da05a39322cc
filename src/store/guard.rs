//! The guard's count of people, over documents, passes and restarts, and what it holds.

use std::collections::BTreeSet;

use super::audit::AuditDraft;
use super::sqlite::guard;
use super::{Store, StoreError};
use crate::model::{AuditEntry, DocumentKey, Removal, RemovalLimits, Subject};

impl Store {
    /// Decides which of these removals on a document are held, and remembers that. What is not asked about any more is
    /// not held any more either.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; nothing is decided then.
    pub async fn guard(
        &self,
        document: &DocumentKey,
        asks: Vec<Removal>,
        limits: RemovalLimits,
    ) -> Result<BTreeSet<Removal>, StoreError> {
        let document = document.to_string();
        self.commit_leading(move |tx| guard::decide(tx, &document, asks, limits)).await
    }

    /// The documents on which there are claims of a person or group.
    pub async fn documents_of(&self, subject: Subject) -> Result<Vec<DocumentKey>, StoreError> {
        self.read(move |db| guard::documents_of(db, subject)).await
    }

    /// Lets held removals go, exactly these, with the audit rows of that.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; nothing is released then.
    pub async fn release_removals(
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
