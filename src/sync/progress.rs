//! The progress of the engine: positions, queued work, and whether anything is left to do now.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::lanes::Schedule;
use super::{Engine, Inner};
use crate::model::{DocumentKey, FreezeReason, Seq};

/// The progress of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Position of the event log up to which the engine has processed it.
    pub(crate) sequence: Seq,
    /// Documents that are being reconciled.
    pub(crate) running: usize,
    /// Documents that are due, or whose change waits for the window of additions.
    pub(crate) due: usize,
    /// Documents whose next reconcile is later: the periodic read, or the end of a backoff.
    pub(crate) waiting: usize,
    /// Targets that are being listed, or are due for it.
    pub(crate) listing: usize,
    /// Statuses that are not folded yet.
    pub(crate) statuses: usize,
    /// Begin of the oldest of the last completed reconciles of all followed documents. None: one of them has had none.
    pub(crate) documents_since: Option<Instant>,
    /// Begin of the oldest of the last completed lists of all targets. None: one of them has had none.
    pub(crate) targets_since: Option<Instant>,
    /// Id of the last decision of a person that was carried out, or that has to wait.
    pub(crate) considered: i64,
    /// True when nothing is left to do now: what remains waits for a later time.
    pub(crate) settled: bool,
}

/// Work that is in neither queue, while this exists.
pub(super) struct AtWork<'a>(&'a Inner);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inner {
    /// Records that work left a queue and is not finished, until the result is dropped.
    pub(super) fn at_work(&self) -> AtWork<'_> {
        self.at_work.fetch_add(1, Ordering::SeqCst);
        self.steps.fetch_add(1, Ordering::SeqCst);
        AtWork(self)
    }

    /// Begin of the last completed reconcile of each document; the earliest. None: one has had none.
    fn reconciled_since(&self, documents: &[DocumentKey]) -> Option<Instant> {
        let state = self.state();
        let begun = |key: &DocumentKey| state.documents.get(key).and_then(|memory| memory.reconciled_from);
        documents.iter().map(begun).try_fold(Instant::now(), |oldest, begun| Some(oldest.min(begun?)))
    }
}

impl Engine {
    /// Records that the stored decisions up to this id were carried out, or have to wait.
    pub(crate) fn decisions_considered(&self, id: i64) {
        self.0.considered.fetch_max(id, Ordering::SeqCst);
    }

    /// The progress of the engine. Consistent: work that moves from one queue to another meanwhile is noticed.
    #[must_use]
    pub(crate) fn progress(&self) -> Progress {
        let inner = &self.0;
        let considered = inner.considered.load(Ordering::SeqCst);
        let steps = inner.steps.load(Ordering::SeqCst);
        let now = Instant::now();
        let (sequence, loaded, changing, statuses, targets_since) = {
            let state = inner.state();
            let changing: BTreeSet<DocumentKey> = state
                .documents
                .iter()
                .filter(|(_, memory)| memory.pending_since.is_some())
                .map(|(key, _)| key.clone())
                .collect();
            let statuses = state.changed_mappings.len() + state.changed_targets.len() + state.changed_providers.len();
            let listed = state.targets.values().map(|target| target.listed_from);
            let targets_since = listed.into_iter().try_fold(now, |oldest, begun| Some(oldest.min(begun?)));
            let loaded = state.frozen != Some(FreezeReason::NotLoaded);
            (state.directory_seq, loaded, changing, statuses, targets_since)
        };
        let Schedule { running, due, waiting, followed } =
            inner.queue().schedule(now, now + inner.config.addition_window, &changing);
        let listing = inner.discovery().busy(now);
        let documents_since = inner.reconciled_since(&followed);
        let idle = running == 0 && due == 0 && listing == 0 && statuses == 0;
        // Changes of resources are applied one at a time.
        let applying = inner.intake.try_lock().is_err();
        let steady = inner.at_work.load(Ordering::SeqCst) == 0 && inner.steps.load(Ordering::SeqCst) == steps;
        let settled = loaded && idle && steady && !applying;
        Progress {
            sequence,
            running,
            due,
            waiting,
            listing,
            statuses,
            documents_since,
            targets_since,
            considered,
            settled,
        }
    }
}
