//! Claims marked as orphaned.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde_json::json;

use super::Transaction;
use super::query::Query as _;
use crate::model::{AuditEntry, AuditOutcome, DocumentKey, Kind, MappingKey, MappingPhase, Reason};
use crate::store::audit::AuditDraft;
use crate::store::{StoreError, StoredSpec};

/// Name of the action in the audit.
const ACTION: &str = "abandon";
/// Namespace of a mapping without one.
const DEFAULT_NAMESPACE: &str = "default";
/// Reason in the audit: a grant that should be gone is still there.
const REASON: &str = Reason::RevocationPending.word();

/// Unmarks the claims of a mapping that is in force again.
pub(super) fn reclaim(tx: &mut Transaction<'_>, spec: &StoredSpec) -> Result<(), StoreError> {
    if spec.kind != Kind::RoleMapping || spec.phase != MappingPhase::Live {
        return Ok(());
    }
    let mapping = format!("{}/{}", spec.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), spec.name);
    let sql = "UPDATE claims INDEXED BY claims_abandoned SET abandoned_at = NULL \
        WHERE mapping = ? AND abandoned_at IS NOT NULL";
    tx.db.run(sql, [mapping]).map(drop)
}

/// Marks the claims of a mapping; returns the number of newly marked claims.
pub(crate) fn mark(tx: &mut Transaction<'_>, mapping: &MappingKey) -> Result<u64, StoreError> {
    let mapping = mapping.to_string();
    let sql = "SELECT document, count(*) FROM claims JOIN grants USING (document, role, condition_hash, member_key) \
        WHERE mapping = ? AND abandoned_at IS NULL AND left_at IS NULL GROUP BY document ORDER BY document";
    let documents: Vec<(DocumentKey, u64)> =
        tx.db.all("claims", sql, [&mapping], |columns| Ok((columns.parse()?, columns.count()?)))?;
    let mut marked = 0;
    for (document, claims) in documents {
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
        let sql = "UPDATE claims SET abandoned_at = ? WHERE mapping = ? AND abandoned_at IS NULL AND NOT EXISTS \
            (SELECT 1 FROM grants WHERE grants.document = claims.document AND grants.role = claims.role \
                AND grants.condition_hash = claims.condition_hash AND grants.member_key = claims.member_key \
                AND left_at IS NOT NULL)";
        tx.db.run(sql, params![tx.now_nanos(), mapping])?;
    }
    Ok(marked)
}

/// Number of grants with orphaned claims, by document.
pub(crate) fn count(db: &Connection) -> Result<BTreeMap<DocumentKey, u64>, StoreError> {
    let sql = "SELECT document, count(*) FROM (SELECT DISTINCT document, role, condition_hash, member_key \
        FROM claims INDEXED BY claims_abandoned WHERE abandoned_at IS NOT NULL) GROUP BY document";
    let counts = db.all("claims", sql, [], |columns| Ok((columns.parse()?, columns.count()?)))?;
    Ok(counts.into_iter().collect())
}
