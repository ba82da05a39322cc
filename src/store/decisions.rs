//! What a person decided beside a running process: written by the command line, carried out and removed by the process.

use jiff::Timestamp;
use sqlx::query;

use super::audit::{AuditDraft, COMMAND};
use super::sql::{Columns, nanos};
use super::{Store, StoreError};
use crate::model::{ClaimDisposal, MappingKey};

/// A decision that only a person can make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// A mapping that is gone without a deletion that anybody saw is to be taken as deleted.
    ReleaseMapping(MappingKey),
    /// The folder of manifests is right as it is: every mapping that it lacks is to be taken as deleted.
    ReleaseManifests,
    /// The removals that the guard holds under this hash are meant.
    ReleasePlan(String),
    /// The store is right as it is, although it is not what the cluster remembers.
    AcceptStore,
    /// Everything that was granted is to be settled, and nothing is to be granted any more.
    Uninstall(Farewell),
    /// That is done: said by the process to whoever waits for it.
    Uninstalled,
}

/// What becomes of what was granted when rolecall goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Farewell {
    /// It is revoked.
    Revoke,
    /// It stays and is forgotten.
    Orphan,
}

impl From<Farewell> for ClaimDisposal {
    fn from(mode: Farewell) -> Self {
        match mode {
            Farewell::Revoke => Self::Revoke,
            Farewell::Orphan => Self::Orphan,
        }
    }
}

/// A decision that was not carried out yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDecision {
    /// Names it towards [`Store::remove_decision`].
    pub id: i64,
    /// What was decided.
    pub decision: Decision,
    /// When it was decided first.
    pub at: Timestamp,
}

const RELEASE_MAPPING: &str = "release-mapping";
const RELEASE_MANIFESTS: &str = "release-manifests";
/// The hash stands in the column of the mapping.
const RELEASE_PLAN: &str = "release-plan";
const ACCEPT_STORE: &str = "accept-store";
const UNINSTALL_REVOKE: &str = "uninstall-revoke";
const UNINSTALL_ORPHAN: &str = "uninstall-orphan";
const UNINSTALLED: &str = "uninstalled";

impl Store {
    /// Decisions that were not carried out yet, in the order in which they were made.
    pub async fn decisions(&self) -> Result<Vec<PendingDecision>, StoreError> {
        let rows = query("SELECT id, at, action, mapping FROM decisions ORDER BY id").fetch_all(self.readers()).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row, "decisions");
                let (id, at) = (columns.integer()?, columns.time()?);
                let decision = match columns.text()?.as_str() {
                    RELEASE_MAPPING => Decision::ReleaseMapping(columns.parse()?),
                    RELEASE_MANIFESTS => Decision::ReleaseManifests,
                    RELEASE_PLAN => Decision::ReleasePlan(columns.text()?),
                    ACCEPT_STORE => Decision::AcceptStore,
                    UNINSTALL_REVOKE => Decision::Uninstall(Farewell::Revoke),
                    UNINSTALL_ORPHAN => Decision::Uninstall(Farewell::Orphan),
                    UNINSTALLED => Decision::Uninstalled,
                    other => {
                        let problem = format!("`{other}` is not an action");
                        return Err(StoreError::Damaged { what: "decisions", problem });
                    }
                };
                Ok(PendingDecision { id, decision, at })
            })
            .collect()
    }

    /// Stores a decision; one that is pending already keeps its time.
    pub async fn put_decision(&self, decision: Decision, at: Timestamp) -> Result<(), StoreError> {
        let (action, mapping) = match decision {
            Decision::ReleaseMapping(mapping) => (RELEASE_MAPPING, mapping.to_string()),
            Decision::ReleaseManifests => (RELEASE_MANIFESTS, String::new()),
            Decision::ReleasePlan(hash) => (RELEASE_PLAN, hash),
            Decision::AcceptStore => (ACCEPT_STORE, String::new()),
            Decision::Uninstall(Farewell::Revoke) => (UNINSTALL_REVOKE, String::new()),
            Decision::Uninstall(Farewell::Orphan) => (UNINSTALL_ORPHAN, String::new()),
            Decision::Uninstalled => (UNINSTALLED, String::new()),
        };
        self.committer()
            .commit(move |tx| {
                Box::pin(async move {
                    // That all is settled is only said to who asked for it.
                    let stored = query(
                        "INSERT INTO decisions (action, mapping, at) SELECT ?1, ?2, ?3 WHERE ?1 <> 'uninstalled' OR EXISTS \
                         (SELECT 1 FROM decisions WHERE action IN ('uninstall-revoke', 'uninstall-orphan')) \
                         ON CONFLICT DO NOTHING",
                    )
                        .bind(action)
                        .bind(&mapping)
                        .bind(nanos(at))
                        .execute(&mut tx.connection)
                        .await?;
                    // Accepting the store and the end of an uninstall are recorded where they take effect.
                    if stored.rows_affected() > 0 && !matches!(action, ACCEPT_STORE | UNINSTALLED) {
                        let subject = if mapping.is_empty() { "all" } else { &mapping };
                        tx.audit(AuditDraft::configuration(tx.now, COMMAND, action, subject, None));
                    }
                    Ok(())
                })
            })
            .await
    }

    /// The farewell that was decided, if any.
    pub async fn farewell(&self) -> Result<Option<Farewell>, StoreError> {
        let pending = self.decisions().await?;
        Ok(pending.iter().rev().find_map(|pending| match pending.decision {
            Decision::Uninstall(farewell) => Some(farewell),
            _ => None,
        }))
    }

    /// Takes back that rolecall is to go. What was settled meanwhile stays so.
    pub async fn stay(&self) -> Result<(), StoreError> {
        self.committer()
            .commit(|tx| {
                Box::pin(async move {
                    let cancelled = query("DELETE FROM decisions WHERE action IN (?, ?, ?)")
                        .bind(UNINSTALL_REVOKE)
                        .bind(UNINSTALL_ORPHAN)
                        .bind(UNINSTALLED)
                        .execute(&mut tx.connection)
                        .await?;
                    if cancelled.rows_affected() > 0 {
                        tx.audit(AuditDraft::configuration(tx.now, COMMAND, "uninstall.cancel", "all", None));
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Forgets a decision that was carried out, or that there is nothing to do for.
    pub async fn remove_decision(&self, id: i64) -> Result<(), StoreError> {
        self.commit_leading(move |tx| {
            Box::pin(async move {
                query("DELETE FROM decisions WHERE id = ?").bind(id).execute(&mut tx.connection).await?;
                Ok(())
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::ManualClock;

    #[tokio::test]
    async fn decision_is_there_once_until_it_is_removed_also_for_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("a.db").display());
        let at: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
        let clock = || Arc::new(ManualClock::new(at));
        let running = Store::open(&url, clock()).await.unwrap();
        running.begin_epoch("running").await.unwrap();
        assert_eq!(running.decisions().await.unwrap(), []);

        let verb = Store::open(&url, clock()).await.unwrap();
        let mapping = Decision::ReleaseMapping(MappingKey::new("checkout", "team").unwrap());
        for moment in [at, at + jiff::SignedDuration::from_secs(1)] {
            verb.put_decision(mapping.clone(), moment).await.unwrap();
            verb.put_decision(Decision::ReleaseManifests, moment).await.unwrap();
        }
        let pending = running.decisions().await.unwrap();
        let decided: Vec<_> = pending.iter().map(|pending| (pending.decision.clone(), pending.at)).collect();
        assert_eq!(decided, [(mapping.clone(), at), (Decision::ReleaseManifests, at)]);

        running.remove_decision(pending[0].id).await.unwrap();
        assert_eq!(verb.decisions().await.unwrap(), pending[1..]);
        verb.put_decision(mapping, at).await.unwrap();
        let again = running.decisions().await.unwrap();
        assert!(again[1].id > pending[0].id, "an id is never used again");
    }

    #[tokio::test]
    async fn every_decision_comes_back_as_it_was_stored_and_a_farewell_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("a.db").display());
        let at: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
        let store = Store::open(&url, Arc::new(ManualClock::new(at))).await.unwrap();
        let decisions = [
            Decision::ReleaseMapping(MappingKey::new("checkout", "team").unwrap()),
            Decision::ReleaseManifests,
            Decision::ReleasePlan("2f1c9a7be0d45c11".to_owned()),
            Decision::AcceptStore,
            Decision::Uninstall(Farewell::Revoke),
            Decision::Uninstalled,
        ];
        assert_eq!(store.farewell().await.unwrap(), None);
        for decision in &decisions {
            store.put_decision(decision.clone(), at).await.unwrap();
        }
        let pending: Vec<_> = store.decisions().await.unwrap().into_iter().map(|pending| pending.decision).collect();
        assert_eq!(pending, decisions);
        assert_eq!(store.farewell().await.unwrap(), Some(Farewell::Revoke));
        store.stay().await.unwrap();
        assert_eq!(store.farewell().await.unwrap(), None);
        assert_eq!(store.decisions().await.unwrap().len(), 4, "the others stay");
        store.put_decision(Decision::Uninstall(Farewell::Orphan), at).await.unwrap();
        assert_eq!(store.farewell().await.unwrap(), Some(Farewell::Orphan));
    }
}
