//! The answer of `/progress` on the admin port: the progress of the process.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::model::{Clock, Seq};
use crate::store::{Decision, Store, StoreError};
use crate::sync::Engine;

/// The last scan of the folder of manifests that is in force.
#[derive(Debug, Clone, Default)]
pub(super) struct FolderProgress(Arc<Mutex<Option<Instant>>>);

impl FolderProgress {
    /// Records that everything is in force that a scan begun at this time could see.
    pub(super) fn in_force(&self, begun: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// True when nothing is left to do now. What remains waits for a later time: the next periodic read, or the end of
    /// a backoff.
    settled: bool,
    store: StoreAnswer,
    engine: EngineAnswer,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifests: Option<FolderAnswer>,
}

#[derive(Serialize)]
struct StoreAnswer {
    /// Highest position of the sequence of events and history.
    sequence: Seq,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EngineAnswer {
    sequence: Seq,
    running: usize,
    due: usize,
    waiting: usize,
    listing: usize,
    statuses: usize,
    documents_read_since: Option<Timestamp>,
    targets_listed_since: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FolderAnswer {
    in_force_since: Option<Timestamp>,
}

/// Parts whose progress is reported.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) store: Store,
    pub(super) engine: Engine,
    pub(super) clock: Arc<dyn Clock>,
    /// None in a cluster.
    pub(super) folder: Option<FolderProgress>,
}

impl Progress {
    /// The answer; null when the store cannot be read.
    pub(super) async fn answer(self) -> Value {
        match self.read().await {
            Ok(answer) => serde_json::to_value(answer).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "cannot read how far the store has come");
                Value::Null
            }
        }
    }

    /// Reads in the order in which a change passes through the parts, so that none is missed between two of them.
    async fn read(&self) -> Result<Answer, StoreError> {
        let folder = self.folder.as_ref().map(FolderProgress::since);
        let decisions = self.store.decisions().await?;
        let engine = self.engine.progress();
        let unread = self.store.events_after(engine.sequence, 1).await?;
        let sequence = self.store.highest_seq().await?;
        let (now, instant) = (self.clock.now(), Instant::now());
        let time = |at: Instant| now.saturating_sub(instant.saturating_duration_since(at)).unwrap_or(now);
        let read = folder.is_none_or(|since| since.is_some());
        // The acceptance of a store is not carried out by the controller, and is removed once it is.
        let decided = decisions
            .iter()
            .all(|pending| pending.id <= engine.considered && pending.decision != Decision::AcceptStore);
        Ok(Answer {
            settled: engine.settled && unread.is_empty() && read && decided,
            store: StoreAnswer { sequence },
            engine: EngineAnswer {
                sequence: engine.sequence,
                running: engine.running,
                due: engine.due,
                waiting: engine.waiting,
                listing: engine.listing,
                statuses: engine.statuses,
                documents_read_since: engine.documents_since.map(time),
                targets_listed_since: engine.targets_since.map(time),
            },
            manifests: folder.map(|since| FolderAnswer { in_force_since: since.map(time) }),
        })
    }
}
