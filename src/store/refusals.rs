//! Refusals of the target, stored so that they survive restarts.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::sqlite::refusals;
use super::{Store, StoreError};
use crate::model::{DocumentKey, Refusal, RefusalKey, Role, WriteBudget};

/// A grant that was found missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The document.
    pub(crate) document: DocumentKey,
    /// The role.
    pub(crate) role: Role,
    /// The id of the first subject that it was claimed for.
    pub(crate) subject: String,
    /// The time at which it was found.
    pub(crate) at: Timestamp,
}

impl Store {
    /// All refusals.
    pub(crate) async fn refusals(&self) -> Result<Vec<Refusal>, StoreError> {
        self.read(refusals::all).await
    }

    /// Stores refusals and removes others, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; then nothing is changed.
    pub(crate) async fn change_refusals(&self, put: Vec<Refusal>, remove: Vec<RefusalKey>) -> Result<(), StoreError> {
        if put.is_empty() && remove.is_empty() {
            return Ok(());
        }
        self.commit_leading(move |tx| refusals::change(tx, &put, &remove)).await
    }

    /// The grants that were found missing since this time, oldest first, by document, role and id of the subject.
    pub(crate) async fn losses_since(&self, since: Timestamp) -> Result<Vec<Loss>, StoreError> {
        self.read(move |db| refusals::losses_since(db, since)).await
    }

    /// The budgets that have been used in part.
    pub(crate) async fn write_budgets(&self) -> Result<BTreeMap<DocumentKey, WriteBudget>, StoreError> {
        self.read(refusals::budgets).await
    }

    /// Stores the budget used on a document. Budgets of other documents from before their last hour are removed.
    pub(crate) async fn put_write_budget(&self, document: &DocumentKey, budget: WriteBudget) -> Result<(), StoreError> {
        let document = document.clone();
        self.commit_leading(move |tx| refusals::put_budget(tx, &document, budget)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::model::{ConditionHash, ManualClock, MemberKey, Reach, ResourceKind, Role};

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
            RefusalKey { reach: Reach::Everywhere, member: member(), role: None, condition: None },
            RefusalKey {
                reach: Reach::Kind("p".to_owned(), ResourceKind::Job),
                member: None,
                role: role(),
                condition: None,
            },
            RefusalKey { reach: Reach::Project("p".to_owned()), member: member(), role: None, condition: None },
            RefusalKey { reach: Reach::Document(document.clone()), member: member(), role: role(), condition: None },
            RefusalKey {
                reach: Reach::Document(document.clone()),
                member: member(),
                role: role(),
                condition: Some(ConditionHash::from_text("0123456789abcdef")),
            },
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
