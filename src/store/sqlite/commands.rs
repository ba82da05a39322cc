//! Decisions of people that have not been carried out yet.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::Transaction;
use super::query::Query as _;
use crate::store::audit::{AuditDraft, COMMAND};
use crate::store::encoding::nanos;
use crate::store::{Decision, PendingDecision, StoreError, UninstallMode};

const RELEASE_MAPPING: &str = "release-mapping";
const RELEASE_MANIFESTS: &str = "release-manifests";
/// The hash is stored in the column of the mapping.
const RELEASE_PLAN: &str = "release-plan";
const ACCEPT_STORE: &str = "accept-store";
const UNINSTALL_REVOKE: &str = "uninstall-revoke";
const UNINSTALL_ORPHAN: &str = "uninstall-orphan";
const UNINSTALLED: &str = "uninstalled";

/// The columns of a decision: the action, and its object.
fn columns_of(decision: &Decision) -> (&'static str, String) {
    match decision {
        Decision::ReleaseMapping(mapping) => (RELEASE_MAPPING, mapping.to_string()),
        Decision::ReleaseManifests => (RELEASE_MANIFESTS, String::new()),
        Decision::ReleasePlan(hash) => (RELEASE_PLAN, hash.clone()),
        Decision::AcceptStore => (ACCEPT_STORE, String::new()),
        Decision::Uninstall(UninstallMode::Revoke) => (UNINSTALL_REVOKE, String::new()),
        Decision::Uninstall(UninstallMode::Orphan) => (UNINSTALL_ORPHAN, String::new()),
        Decision::Uninstalled => (UNINSTALLED, String::new()),
    }
}

/// Decisions that have not been carried out yet, in the order in which they were made.
pub(crate) fn pending(db: &Connection) -> Result<Vec<PendingDecision>, StoreError> {
    db.all("decisions", "SELECT id, at, action, mapping FROM decisions ORDER BY id", [], |columns| {
        let (id, at) = (columns.integer()?, columns.time()?);
        let decision = match columns.text()?.as_str() {
            RELEASE_MAPPING => Decision::ReleaseMapping(columns.parse()?),
            RELEASE_MANIFESTS => Decision::ReleaseManifests,
            RELEASE_PLAN => Decision::ReleasePlan(columns.text()?),
            ACCEPT_STORE => Decision::AcceptStore,
            UNINSTALL_REVOKE => Decision::Uninstall(UninstallMode::Revoke),
            UNINSTALL_ORPHAN => Decision::Uninstall(UninstallMode::Orphan),
            UNINSTALLED => Decision::Uninstalled,
            other => {
                let problem = format!("`{other}` is not an action");
                return Err(StoreError::Damaged { what: "decisions", problem });
            }
        };
        Ok(PendingDecision { id, decision, at })
    })
}

/// Stores a decision; one that is pending already keeps its time.
pub(crate) fn put(tx: &mut Transaction<'_>, decision: &Decision, at: Timestamp) -> Result<(), StoreError> {
    let (action, mapping) = columns_of(decision);
    // The end of an uninstall is recorded only for the command that waits for it.
    let stored = tx.db.run(
        "INSERT INTO decisions (action, mapping, at) SELECT ?1, ?2, ?3 WHERE ?1 <> 'uninstalled' OR EXISTS \
         (SELECT 1 FROM decisions WHERE action IN ('uninstall-revoke', 'uninstall-orphan')) \
         ON CONFLICT DO NOTHING",
        params![action, mapping, nanos(at)],
    )?;
    // Accepting the store and the end of an uninstall are recorded in the audit where they take effect.
    if stored > 0 && !matches!(action, ACCEPT_STORE | UNINSTALLED) {
        let subject = if mapping.is_empty() { "all" } else { &mapping };
        tx.audit(AuditDraft::configuration(tx.now, COMMAND, action, subject, None));
    }
    Ok(())
}

/// Cancels an uninstall.
pub(crate) fn cancel_uninstall(tx: &mut Transaction<'_>) -> Result<(), StoreError> {
    let sql = "DELETE FROM decisions WHERE action IN (?, ?, ?)";
    let cancelled = tx.db.run(sql, [UNINSTALL_REVOKE, UNINSTALL_ORPHAN, UNINSTALLED])?;
    if cancelled > 0 {
        tx.audit(AuditDraft::configuration(tx.now, COMMAND, "uninstall.cancel", "all", None));
    }
    Ok(())
}

/// Removes a decision.
pub(crate) fn remove(tx: &mut Transaction<'_>, id: i64) -> Result<(), StoreError> {
    tx.db.run("DELETE FROM decisions WHERE id = ?", [id]).map(drop)
}
