//! Faults of a store on an in-memory database: refused calls, and a process that ends after one of its commits.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::Randomness;
use crate::store::StoreError;

/// The faults of one store. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreFaults(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Plan>,
    /// Notified when the process ends.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Plan {
    /// Number of commits until the process ends; none: it does not end.
    commits: Option<u64>,
    has_ended: bool,
    /// Number of refused calls per thousand, with the generator that selects them.
    refused: Option<(u64, Arc<Randomness>)>,
}

impl StoreFaults {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the process of this store right after this many further commits: neither the last of these commits nor
    /// any later call returns. None: it does not end.
    pub(crate) fn end_after(&self, commits: Option<u64>) {
        self.plan().commits = commits;
    }

    /// Refuses this many of a thousand calls, before they have any effect; none: no call.
    pub(crate) fn refuse(&self, refused: Option<(u64, Arc<Randomness>)>) {
        self.plan().refused = refused;
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&self) {
        while !self.plan().has_ended {
            self.0.ended.notified().await;
        }
    }

    /// Returns only while the process runs.
    pub(super) async fn while_running(&self) {
        if self.plan().has_ended {
            pending::<()>().await;
        }
    }

    /// Fails when this call is refused.
    pub(super) fn admit(&self) -> Result<(), StoreError> {
        let refused = match &self.plan().refused {
            Some((of_thousand, random)) => random.draw() % 1000 < *of_thousand,
            None => false,
        };
        if refused { Err(StoreError::Unavailable { problem: "refused by the test".to_owned() }) } else { Ok(()) }
    }

    /// Counts a commit.
    pub(super) fn committed(&self) {
        let mut plan = self.plan();
        plan.commits = plan.commits.map(|left| left.saturating_sub(1));
        if plan.commits == Some(0) {
            plan.has_ended = true;
            self.0.ended.notify_one();
        }
    }
}
