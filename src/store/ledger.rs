//! The ledger: the grants of rolecall, the reasons for them, and the calls in progress.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::audit::AuditDraft;
use super::lanes::cost;
use super::sqlite::{guard, ledger};
use super::{Store, StoreError};
use crate::model::{
    AcknowledgedWrite, AuditEntry, DocumentKey, LedgerChange, LedgerRow, MappingKey, Removal, RemovalLimits, Revision,
};

/// The ledger of one document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DocumentLedger {
    /// Its grants, sorted by key.
    pub(crate) rows: Vec<LedgerRow>,
    /// The last acknowledged write; none before the first one, and for writes of a version that did not record it.
    pub(crate) revision: Option<Revision>,
}

impl Store {
    /// The rows of one document, sorted by key.
    #[cfg(test)]
    pub(crate) async fn ledger(&self, d: &DocumentKey) -> Result<Vec<LedgerRow>, StoreError> {
        Ok(self.document_ledger(d).await?.rows)
    }

    /// The ledger of one document: its grants, and the current version of its policy.
    pub(crate) async fn document_ledger(&self, d: &DocumentKey) -> Result<DocumentLedger, StoreError> {
        let d = d.clone();
        self.read(move |db| ledger::load(db, &d)).await
    }

    /// True when the etag is that of a version of the document that a write of ours superseded within the last hour.
    pub(crate) async fn is_superseded(&self, d: &DocumentKey, etag: &str, now: Timestamp) -> Result<bool, StoreError> {
        let (d, etag) = (d.clone(), etag.to_owned());
        self.read(move |db| ledger::is_superseded(db, &d, &etag, now)).await
    }

    /// All documents in the ledger, each with the mappings that hold claims there.
    pub(crate) async fn ledger_documents(&self) -> Result<Vec<(DocumentKey, BTreeSet<MappingKey>)>, StoreError> {
        self.read(ledger::documents).await
    }

    /// The documents on which a mapping holds claims.
    pub(crate) async fn claimed_documents(&self, mapping: &MappingKey) -> Result<Vec<DocumentKey>, StoreError> {
        let mapping = mapping.clone();
        self.read(move |db| ledger::claimed_documents(db, &mapping)).await
    }

    /// Changes the ledger of one document and appends audit rows, all or nothing. Of several changes of one grant the
    /// last one counts.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; then nothing is recorded.
    pub(crate) async fn record(
        &self,
        d: &DocumentKey,
        changes: Vec<LedgerChange>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError> {
        self.record_write(d, changes, audit, None).await
    }

    /// Like [`Store::record`], for the intents of a call. `asks`: removals that the guard has to decide about first. If it
    /// holds any, nothing but its decision is recorded, and these removals are returned.
    ///
    /// # Errors
    /// Those of [`Store::record`].
    pub(crate) async fn record_intents(
        &self,
        d: &DocumentKey,
        changes: Vec<LedgerChange>,
        audit: Vec<AuditEntry>,
        asks: Option<(Vec<Removal>, RemovalLimits)>,
    ) -> Result<BTreeSet<Removal>, StoreError> {
        let Some((asks, limits)) = asks else {
            return self.record(d, changes, audit).await.map(|()| BTreeSet::new());
        };
        let d = d.clone();
        self.commit_leading_at(record_cost(&changes, &audit), move |tx| {
            let held = guard::decide(tx, &d.to_string(), asks, limits)?;
            if held.is_empty() {
                ledger::record(tx, &d, &changes)?;
                for entry in audit {
                    tx.audit(AuditDraft::of(entry));
                }
            }
            Ok(held)
        })
        .await
    }

    /// Like [`Store::record`], with the acknowledged write that caused the changes.
    ///
    /// # Errors
    /// Those of [`Store::record`].
    pub(crate) async fn record_write(
        &self,
        d: &DocumentKey,
        changes: Vec<LedgerChange>,
        audit: Vec<AuditEntry>,
        write: Option<AcknowledgedWrite>,
    ) -> Result<(), StoreError> {
        if changes.is_empty() && audit.is_empty() && write.is_none() {
            return Ok(());
        }
        let d = d.clone();
        self.commit_leading_at(record_cost(&changes, &audit), move |tx| {
            ledger::record(tx, &d, &changes)?;
            if let Some(write) = &write {
                ledger::remember(tx, &d, write)?;
            }
            for entry in audit {
                tx.audit(AuditDraft::of(entry));
            }
            Ok(())
        })
        .await
    }
}

/// A ledger row with its claims, and an audit row, are several rows each.
fn record_cost(changes: &[LedgerChange], audit: &[AuditEntry]) -> u64 {
    cost((changes.len() + audit.len()) * 4, 0)
}
