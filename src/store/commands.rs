//! Decisions of people, written by the command line and carried out and removed by the running process.

use jiff::Timestamp;

use super::lanes::{REQUEST, Ticket};
use super::sqlite::commands;
use super::{Store, StoreError};
use crate::model::{ClaimDisposal, MappingKey};

/// A decision that only a person can make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Decision {
    /// A mapping that is missing without an observed deletion is to be treated as deleted.
    ReleaseMapping(MappingKey),
    /// The folder of manifests is correct: every mapping that is missing from it is to be treated as deleted.
    ReleaseManifests,
    /// The removals that the guard holds under this hash are approved.
    ReleasePlan(String),
    /// The store is correct, although it differs from the checkpoint.
    AcceptStore,
    /// All grants are to be settled, and nothing new is to be granted.
    Uninstall(UninstallMode),
    /// The uninstall is settled; recorded by the process for the command that waits for it.
    Uninstalled,
}

/// What happens to the grants when rolecall is uninstalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum UninstallMode {
    /// They are revoked.
    Revoke,
    /// They stay and are forgotten.
    Orphan,
}

impl From<UninstallMode> for ClaimDisposal {
    fn from(mode: UninstallMode) -> Self {
        match mode {
            UninstallMode::Revoke => Self::Revoke,
            UninstallMode::Orphan => Self::Orphan,
        }
    }
}

/// A decision that has not been carried out yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingDecision {
    /// The id for [`Store::remove_decision`].
    pub(crate) id: i64,
    /// The decision.
    pub(crate) decision: Decision,
    /// Time of the first decision.
    pub(crate) at: Timestamp,
}

impl Store {
    /// Decisions that have not been carried out yet, in the order in which they were made.
    pub(crate) async fn decisions(&self) -> Result<Vec<PendingDecision>, StoreError> {
        self.read(commands::pending).await
    }

    /// Stores a decision; one that is already pending keeps its time.
    pub(crate) async fn put_decision(&self, decision: Decision, at: Timestamp) -> Result<(), StoreError> {
        self.commit(Ticket::engine(REQUEST), move |tx| commands::put(tx, &decision, at)).await
    }

    /// The mode of the pending uninstall, if any.
    pub(crate) async fn uninstall_mode(&self) -> Result<Option<UninstallMode>, StoreError> {
        let pending = self.decisions().await?;
        Ok(pending.iter().rev().find_map(|pending| match pending.decision {
            Decision::Uninstall(mode) => Some(mode),
            _ => None,
        }))
    }

    /// Cancels the uninstall. Grants settled meanwhile stay settled.
    pub(crate) async fn cancel_uninstall(&self) -> Result<(), StoreError> {
        self.commit(Ticket::engine(REQUEST), commands::cancel_uninstall).await
    }

    /// Removes a decision that was carried out, or that has nothing to apply to.
    pub(crate) async fn remove_decision(&self, id: i64) -> Result<(), StoreError> {
        self.commit_leading(move |tx| commands::remove(tx, id)).await
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
    async fn every_decision_comes_back_as_it_was_stored_and_an_uninstall_can_be_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("a.db").display());
        let at: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
        let store = Store::open(&url, Arc::new(ManualClock::new(at))).await.unwrap();
        let decisions = [
            Decision::ReleaseMapping(MappingKey::new("checkout", "team").unwrap()),
            Decision::ReleaseManifests,
            Decision::ReleasePlan("2f1c9a7be0d45c11".to_owned()),
            Decision::AcceptStore,
            Decision::Uninstall(UninstallMode::Revoke),
            Decision::Uninstalled,
        ];
        assert_eq!(store.uninstall_mode().await.unwrap(), None);
        for decision in &decisions {
            store.put_decision(decision.clone(), at).await.unwrap();
        }
        let pending: Vec<_> = store.decisions().await.unwrap().into_iter().map(|pending| pending.decision).collect();
        assert_eq!(pending, decisions);
        assert_eq!(store.uninstall_mode().await.unwrap(), Some(UninstallMode::Revoke));
        store.cancel_uninstall().await.unwrap();
        assert_eq!(store.uninstall_mode().await.unwrap(), None);
        assert_eq!(store.decisions().await.unwrap().len(), 4, "the others stay");
        store.put_decision(Decision::Uninstall(UninstallMode::Orphan), at).await.unwrap();
        assert_eq!(store.uninstall_mode().await.unwrap(), Some(UninstallMode::Orphan));
    }
}
