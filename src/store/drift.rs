//! Differences between policies and what is wanted, stored so that the time of their first observation survives restarts.

use std::collections::BTreeMap;

use super::sqlite::drift;
use super::{Store, StoreError};
use crate::model::{Difference, DocumentKey, DriftChanges, DriftKey};

impl Store {
    /// All stored differences.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub(crate) async fn drift(&self) -> Result<BTreeMap<DocumentKey, BTreeMap<DriftKey, Difference>>, StoreError> {
        self.read(drift::all).await
    }

    /// Stores changes of differences, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; then nothing is changed.
    pub(crate) async fn change_drift(&self, changes: BTreeMap<DocumentKey, DriftChanges>) -> Result<(), StoreError> {
        self.commit_leading(move |tx| drift::change(tx, &changes)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::model::{Concerns, ConditionHash, DriftKind, ManualClock, MappingKey, MemberKey, Subject, UserId};

    #[tokio::test]
    async fn differences_are_there_after_a_restart_until_they_are_over() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("a.db").display());
        let at: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
        let clock = || Arc::new(ManualClock::new(at));
        let document: DocumentKey = "run:projects/p/locations/l/services/s".parse().unwrap();
        let key = DriftKey {
            kind: DriftKind::GrantRemains,
            role: "roles/run.viewer".to_owned(),
            condition: ConditionHash::from_text("00ff"),
            member: Some(MemberKey::of("user:eve@x.example")),
        };
        let concerns = Concerns {
            mappings: [MappingKey::new("team", "m").unwrap()].into(),
            subject: Some(Subject::User(UserId(uuid::Uuid::from_u128(5)))),
        };
        let whole = DriftKey::of_resource(DriftKind::TargetRecreated);
        let put = BTreeMap::from([
            (key.clone(), Difference { first_seen: at, concerns }),
            (whole.clone(), Difference { first_seen: at, concerns: Concerns::default() }),
        ]);
        let store = Store::open(&url, clock()).await.unwrap();
        store.begin_epoch("one").await.unwrap();
        let changes = DriftChanges { put: put.clone(), ..DriftChanges::default() };
        store.change_drift(BTreeMap::from([(document.clone(), changes)])).await.unwrap();
        let names = store.names().await.unwrap();
        assert!(names.by_digest.values().any(|name| name == "eve@x.example"), "for those who may see names");
        drop(store);
        let store = Store::open(&url, clock()).await.unwrap();
        store.begin_epoch("two").await.unwrap();
        assert_eq!(store.drift().await.unwrap(), BTreeMap::from([(document.clone(), put)]));
        let over = DriftChanges { remove: [key, whole].into(), ..DriftChanges::default() };
        store.change_drift(BTreeMap::from([(document, over)])).await.unwrap();
        assert_eq!(store.drift().await.unwrap(), BTreeMap::new());
    }
}
