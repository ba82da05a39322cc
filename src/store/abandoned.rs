//! Claims that nobody waits for any more: their mapping was let go before Google let them be ended.
//!
//! To the engine they are claims that end, like all claims of a deleted mapping: the grants are revoked from the
//! coordinates in the ledger as soon as that works, and the claims go with them.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::query;

use super::audit::AuditDraft;
use super::committer::Transaction;
use super::sql::Columns;
use super::{SpecState, Store, StoreError, StoredSpec};
use crate::model::{AuditEntry, AuditOutcome, DocumentKey, MappingKey};

/// What the audit calls it.
const ACTION: &str = "abandon";
/// The kind whose specs hold claims.
const MAPPING: &str = "RoleMapping";
/// Where a mapping stands that names no namespace.
const DEFAULT_NAMESPACE: &str = "default";
/// Why: something that should be gone is still there.
const REASON: &str = "RevocationPending";

/// The claims of a mapping that is in force again are its own again.
pub(super) async fn reclaim(tx: &mut Transaction, spec: &StoredSpec) -> Result<(), StoreError> {
    if spec.kind != MAPPING || spec.state != SpecState::Active {
        return Ok(());
    }
    query(
        "UPDATE claims INDEXED BY claims_abandoned SET abandoned_at = NULL \
         WHERE mapping = ? AND abandoned_at IS NOT NULL",
    )
    .bind(format!("{}/{}", spec.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), spec.name))
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

impl Store {
    /// Marks the claims of `mapping` as abandoned, with one audit row a document. Answers how many were marked now. They
    /// stay in the ledger until they are settled, or until the mapping is stored as active again.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; nothing is marked then.
    pub async fn abandon_claims(&self, mapping: &MappingKey) -> Result<u64, StoreError> {
        let mapping = mapping.to_string();
        self.commit_leading(move |tx| {
            Box::pin(async move {
                let rows = query(
                    "SELECT document, count(*) FROM claims WHERE mapping = ? AND abandoned_at IS NULL \
                     GROUP BY document ORDER BY document",
                )
                .bind(&mapping)
                .fetch_all(&mut tx.connection)
                .await?;
                let mut marked = 0;
                for row in &rows {
                    let mut columns = Columns::of(row, "claims");
                    let (document, claims) = (columns.parse()?, columns.count()?);
                    marked += claims;
                    let entry = AuditEntry {
                        claims: vec![],
                        at: tx.now,
                        actor: format!("mapping:{mapping}"),
                        request_id: None,
                        cause_seqs: Vec::new(),
                        document: Some(document),
                        resource_uid: None,
                        action: ACTION.to_owned(),
                        grant: None,
                        subject: None,
                        plan_hash: None,
                        revision_before: None,
                        revision_after: None,
                        outcome: AuditOutcome::Failed,
                        reason: Some(REASON.to_owned()),
                    };
                    tx.audit(AuditDraft::of(entry).with_detail(json!({"claims": claims}).to_string()));
                }
                if marked > 0 {
                    query("UPDATE claims SET abandoned_at = ? WHERE mapping = ? AND abandoned_at IS NULL")
                        .bind(tx.now_nanos())
                        .bind(&mapping)
                        .execute(&mut tx.connection)
                        .await?;
                }
                Ok(marked)
            })
        })
        .await
    }

    /// On how many grants of each document there are abandoned claims. In time proportional to those.
    pub async fn abandoned(&self) -> Result<BTreeMap<DocumentKey, u64>, StoreError> {
        let rows = query(
            "SELECT document, count(*) FROM (SELECT DISTINCT document, role, condition_hash, member_key \
             FROM claims INDEXED BY claims_abandoned WHERE abandoned_at IS NOT NULL) GROUP BY document",
        )
        .fetch_all(self.readers())
        .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row, "claims");
                Ok((columns.parse()?, columns.count()?))
            })
            .collect()
    }
}
