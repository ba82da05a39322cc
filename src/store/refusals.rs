//! What Google refused, over restarts.

use std::collections::BTreeMap;

use sqlx::query;

use super::sql::{Columns, nanos};
use super::{Store, StoreError};
use crate::model::{DocumentKey, MemberKey, Refusal, RefusalKey, Role, WriteBudget};

/// Most refusals that are remembered. What is beyond is found out anew after a restart.
const MOST: i64 = 10_000;

impl Store {
    /// All refusals.
    pub async fn refusals(&self) -> Result<Vec<Refusal>, StoreError> {
        let rows = query(
            "SELECT reach, member_key, role, reason, since, probe_at, probes FROM refusals \
             ORDER BY reach, member_key, role LIMIT ?",
        )
        .bind(MOST)
        .fetch_all(self.readers())
        .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row, "refusals");
                let reach = columns.parse()?;
                let member = Some(columns.text()?).filter(|key| !key.is_empty()).map(|key| MemberKey::of(&key));
                let role = Some(columns.text()?).filter(|role| !role.is_empty()).map(|role| Role::new(&role));
                let role = role
                    .transpose()
                    .map_err(|error| StoreError::Damaged { what: "refusals", problem: error.to_string() })?;
                Ok(Refusal {
                    key: RefusalKey { reach, member, role },
                    reason: columns.text()?,
                    since: columns.time()?,
                    probe_at: columns.time()?,
                    probes: u32::try_from(columns.count()?).unwrap_or(u32::MAX),
                })
            })
            .collect()
    }

    /// Remembers refusals and forgets others, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; nothing is changed then.
    pub async fn change_refusals(&self, put: Vec<Refusal>, remove: Vec<RefusalKey>) -> Result<(), StoreError> {
        if put.is_empty() && remove.is_empty() {
            return Ok(());
        }
        self.commit_leading(move |tx| {
            Box::pin(async move {
                for key in remove {
                    let (reach, member, role) = columns(&key);
                    query("DELETE FROM refusals WHERE reach = ? AND member_key = ? AND role = ?")
                        .bind(reach)
                        .bind(member)
                        .bind(role)
                        .execute(&mut tx.connection)
                        .await?;
                }
                for refusal in put {
                    let (reach, member, role) = columns(&refusal.key);
                    query(
                        "INSERT INTO refusals (reach, member_key, role, reason, since, probe_at, probes) \
                         SELECT ?, ?, ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM refusals) < ? \
                         ON CONFLICT DO UPDATE SET reason = excluded.reason, probe_at = excluded.probe_at, \
                         probes = excluded.probes",
                    )
                    .bind(reach)
                    .bind(member)
                    .bind(role)
                    .bind(refusal.reason)
                    .bind(nanos(refusal.since))
                    .bind(nanos(refusal.probe_at))
                    .bind(i64::from(refusal.probes))
                    .bind(MOST)
                    .execute(&mut tx.connection)
                    .await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// The budgets of which something was spent.
    pub async fn write_budgets(&self) -> Result<BTreeMap<DocumentKey, WriteBudget>, StoreError> {
        let rows = query("SELECT document, since, writes FROM write_budgets").fetch_all(self.readers()).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row, "write_budgets");
                let document = columns.parse()?;
                let (since, writes) = (columns.time()?, u32::try_from(columns.count()?).unwrap_or(u32::MAX));
                Ok((document, WriteBudget { since, writes }))
            })
            .collect()
    }

    /// Remembers what was spent on a document. What was spent on others before their last hour is forgotten.
    pub async fn put_write_budget(&self, document: &DocumentKey, budget: WriteBudget) -> Result<(), StoreError> {
        let document = document.to_string();
        self.commit_leading(move |tx| {
            Box::pin(async move {
                query("DELETE FROM write_budgets WHERE since < ?")
                    .bind(nanos(budget.since.saturating_sub(WriteBudget::WINDOW).unwrap_or(budget.since)))
                    .execute(&mut tx.connection)
                    .await?;
                query(
                    "INSERT INTO write_budgets (document, since, writes) VALUES (?, ?, ?) \
                     ON CONFLICT DO UPDATE SET since = excluded.since, writes = excluded.writes",
                )
                .bind(document)
                .bind(nanos(budget.since))
                .bind(i64::from(budget.writes))
                .execute(&mut tx.connection)
                .await?;
                Ok(())
            })
        })
        .await
    }
}

/// The key columns: reach, member, role.
fn columns(key: &RefusalKey) -> (String, String, String) {
    let member = key.member.as_ref().map(|member| member.as_str().to_owned());
    let role = key.role.as_ref().map(|role| role.as_str().to_owned());
    (key.reach.to_string(), member.unwrap_or_default(), role.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::model::{ManualClock, Reach, ResourceKind};

    #[tokio::test]
    async fn refusals_and_budgets_are_there_after_a_restart_until_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("a.db").display());
        let at: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
        let clock = || Arc::new(ManualClock::new(at));
        let document: DocumentKey = "run:projects/p/locations/l/services/s".parse().unwrap();
        let member = || Some(MemberKey::of("user:a@x.example"));
        let role = || Role::new("roles/run.viewer").ok();
        let keys = [
            RefusalKey { reach: Reach::Everywhere, member: member(), role: None },
            RefusalKey { reach: Reach::Kind("p".to_owned(), ResourceKind::Job), member: None, role: role() },
            RefusalKey { reach: Reach::Project("p".to_owned()), member: member(), role: None },
            RefusalKey { reach: Reach::Document(document.clone()), member: member(), role: role() },
        ];
        let mut refusals: Vec<Refusal> = keys.into_iter().map(|key| Refusal::new(key, "MemberRefused", at)).collect();
        let store = Store::open(&url, clock()).await.unwrap();
        store.begin_epoch("one").await.unwrap();
        store.change_refusals(refusals.clone(), vec![]).await.unwrap();
        refusals[1].postpone(at);
        store.change_refusals(vec![refusals[1].clone()], vec![]).await.unwrap();
        let spent = WriteBudget { since: at, writes: 3 };
        store.put_write_budget(&document, spent).await.unwrap();
        drop(store);

        let store = Store::open(&url, clock()).await.unwrap();
        store.begin_epoch("two").await.unwrap();
        assert_eq!(store.refusals().await.unwrap(), refusals);
        assert_eq!(store.write_budgets().await.unwrap(), BTreeMap::from([(document, spent)]));
        let other: DocumentKey = "run:projects/p/locations/l/services/t".parse().unwrap();
        let later = WriteBudget { since: at + SignedDuration::from_hours(2), writes: 1 };
        store.put_write_budget(&other, later).await.unwrap();
        assert_eq!(store.write_budgets().await.unwrap(), BTreeMap::from([(other, later)]), "the first hour is over");
        let all = refusals.into_iter().map(|refusal| refusal.key).collect();
        store.change_refusals(vec![], all).await.unwrap();
        assert_eq!(store.refusals().await.unwrap(), []);
    }
}
