//! The event log, and the directory as a snapshot of it.

use super::sqlite::events;
use super::{Store, StoreError};
use crate::model::{DirectoryChange, DirectoryEvent, ProviderName, Seq};

/// Receives the changes of a snapshot.
pub(super) type Sink<'a> = &'a mut (dyn FnMut(ProviderName, DirectoryChange) + Send);

impl Store {
    /// Last position of the sequence shared by directory events and history; 0 when both are empty.
    pub(crate) async fn highest_seq(&self) -> Result<Seq, StoreError> {
        self.read(events::highest).await
    }

    /// Directory events of all providers after a position, in order: at most `limit`, and at most some megabytes, but
    /// at least one if there is one. Positions of the history between them are skipped.
    pub(crate) async fn events_after(&self, after: Seq, limit: u32) -> Result<Vec<DirectoryEvent>, StoreError> {
        self.read(move |db| events::after(db, after, limit)).await
    }

    /// Like [`Store::events_after`], for a follower that has processed everything up to a position. Returns the
    /// position that it has reached afterwards; positions of the history are skipped.
    ///
    /// # Errors
    /// [`StoreError::HistoryNotKept`], when events that the follower has not processed were pruned: the removals in
    /// them are no longer in the log. Otherwise those of [`Store::events_after`].
    pub(crate) async fn follow_events(&self, after: Seq, limit: u32) -> Result<(Vec<DirectoryEvent>, Seq), StoreError> {
        self.read(move |db| events::follow(db, after, limit)).await
    }

    /// The whole directory as changes: tombstones that something refers to, users, groups, then members. Read row by
    /// row from one state of the database; returns the position of the event log that this state corresponds to.
    pub(crate) async fn snapshot(&self, sink: Sink<'_>) -> Result<Seq, StoreError> {
        self.0.sqlite.stream(events::snapshot, &mut |(provider, change)| sink(provider, change)).await
    }
}
