//! The event log, and the directory as a snapshot of it.

use super::sqlite::events;
use super::{Store, StoreError};
use crate::model::{DirectoryChange, DirectoryEvent, ProviderName, Seq};

/// Takes what a snapshot consists of.
pub(super) type Sink<'a> = &'a mut (dyn FnMut(ProviderName, DirectoryChange) + Send);

impl Store {
    /// The last position of the sequence that directory events and history share; 0 when both are empty.
    pub async fn highest_seq(&self) -> Result<Seq, StoreError> {
        self.read(events::highest).await
    }

    /// Directory events after a position, in order, of all providers: at most `limit`, and no more than fit into some
    /// megabytes, but one if there is one. Positions of the history between them are left out.
    pub async fn events_after(&self, after: Seq, limit: u32) -> Result<Vec<DirectoryEvent>, StoreError> {
        self.read(move |db| events::after(db, after, limit)).await
    }

    /// As [`Store::events_after`], for a follower that has taken over everything up to a position. Answers the position up to
    /// which it then has; positions of the history are passed over.
    ///
    /// # Errors
    /// [`StoreError::HistoryNotKept`], when events that the follower has not seen were pruned: what they took away is not
    /// in the log any more. Others as for [`Store::events_after`].
    pub async fn follow_events(&self, after: Seq, limit: u32) -> Result<(Vec<DirectoryEvent>, Seq), StoreError> {
        self.read(move |db| events::follow(db, after, limit)).await
    }

    /// The whole directory as changes: tombstones that something refers to, users, groups, then members. Read on one state of
    /// the database, row by row; answers the position of the event log that it stands for.
    pub async fn snapshot(&self, sink: Sink<'_>) -> Result<Seq, StoreError> {
        self.0.sqlite.stream(events::snapshot, &mut |(provider, change)| sink(provider, change)).await
    }
}
