//! Leadership of the database: an epoch that grows with each process that takes over.
//!
//! Every process that serves SCIM may write the directory. The ledger, pins, specs and the removal of decisions belong
//! to one process at a time. A process that was suspended, cut off or started twice still considers itself to be that
//! one. Its writes carry an epoch, and fail in the transaction because the database has another one.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::lanes::{REQUEST, Ticket};
use super::sqlite::{Transaction, leadership};
use super::{Store, StoreError};

/// The epoch of one process's leadership. A later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Epoch(i64);

impl Epoch {
    pub(super) fn of(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The process that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its epoch, the greatest of the database.
    pub(crate) epoch: Epoch,
    /// The description that the process gave itself.
    pub(crate) holder: String,
    /// Time at which it took over.
    pub(crate) since: Timestamp,
}

/// What one handle, with its clones, knows about its own leadership.
#[derive(Default)]
pub(super) struct Turn {
    /// The epoch; 0: none was begun.
    epoch: AtomicI64,
    over: CancellationToken,
}

impl Turn {
    fn epoch(&self) -> Option<Epoch> {
        Some(self.epoch.load(Ordering::Acquire)).filter(|number| *number > 0).map(Epoch)
    }
}

impl Store {
    /// Takes over the database: from here on this handle and its clones may write the ledger, pins and specs, and every
    /// other process gets [`StoreError::StaleEpoch`]. `holder` describes the process to people.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], when the database cannot be written; the former leader then still leads.
    pub(crate) async fn begin_epoch(&self, holder: &str) -> Result<Epoch, StoreError> {
        let holder = holder.to_owned();
        let epoch = self.commit(Ticket::engine(REQUEST), move |tx| leadership::begin(tx, &holder)).await?;
        self.turn().epoch.fetch_max(epoch.0, Ordering::AcqRel);
        Ok(epoch)
    }

    /// The process that took over the database last; none when no process ever did.
    pub(crate) async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        self.read(leadership::leader).await
    }

    /// Checks, without writing, that this handle's epoch is still the one of the database.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when it is not, or when this handle never began one.
    pub(crate) async fn check_epoch(&self) -> Result<(), StoreError> {
        let ours = self.turn().epoch();
        let current = self.leader().await?.map_or(Epoch(0), |leader| leader.epoch);
        self.noted(require(ours, current))
    }

    /// Waits until this handle has found that another process took over. Nothing that it wrote since then was stored.
    pub(crate) async fn deposed(&self) {
        self.turn().over.cancelled().await;
    }

    /// True when this handle has found that another process took over.
    #[must_use]
    pub(crate) fn is_deposed(&self) -> bool {
        self.turn().over.is_cancelled()
    }

    /// Like [`Store::commit`], for writes of the leader only.
    pub(super) async fn commit_leading<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.commit_leading_at(REQUEST, work).await
    }

    /// Like [`Store::commit_leading`], for work with this cost.
    pub(super) async fn commit_leading_at<T, W>(&self, cost: u64, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let ours = self.turn().epoch();
        let result = self
            .commit(Ticket::engine(cost), move |tx| {
                require(ours, tx.epoch())?;
                work(tx)
            })
            .await;
        self.noted(result)
    }

    /// Records that the leadership is lost if `result` says so.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::StaleEpoch { ours: Some(_), .. }) = &result {
            self.turn().over.cancel();
        }
        result
    }
}

fn require(ours: Option<Epoch>, current: Epoch) -> Result<(), StoreError> {
    if ours == Some(current) { Ok(()) } else { Err(StoreError::StaleEpoch { ours, current }) }
}
