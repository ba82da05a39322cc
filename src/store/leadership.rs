//! Who may write what the engine remembers: an epoch that grows with each process that takes over.
//!
//! The directory is written by whoever serves SCIM. The ledger, pins, specs and the removal of decisions belong to one
//! process at a time. A process that was suspended, cut off or started twice still believes itself to be that one; its
//! writes carry an epoch, and the transaction that would make them finds another in the database.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::lanes::{REQUEST, Ticket};
use super::sqlite::{Transaction, leadership};
use super::{Store, StoreError};

/// One process's turn at the ledger. A later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(i64);

impl Epoch {
    /// The number, which is 0 in a database that nobody led yet.
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }

    pub(super) fn of(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Since it began, the greatest.
    pub epoch: Epoch,
    /// What the process called itself.
    pub holder: String,
    /// When it took over.
    pub since: Timestamp,
}

/// What one handle, with its clones, knows about its own turn.
#[derive(Default)]
pub(super) struct Turn {
    /// 0: none was begun.
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
    /// other process that could gets [`StoreError::StaleEpoch`]. `holder` is for people, to tell which process it was.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], when the database cannot be written; whoever led before still leads then.
    pub async fn begin_epoch(&self, holder: &str) -> Result<Epoch, StoreError> {
        let holder = holder.to_owned();
        let epoch = self.commit(Ticket::engine(REQUEST), move |tx| leadership::begin(tx, &holder)).await?;
        self.turn().epoch.fetch_max(epoch.0, Ordering::AcqRel);
        Ok(epoch)
    }

    /// Who took over the database last; none when nobody ever did.
    pub async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        self.read(leadership::leader).await
    }

    /// Looks whether this handle's epoch is still the one of the database, without writing.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when it is not, or when this handle never began one.
    pub async fn check_epoch(&self) -> Result<(), StoreError> {
        let ours = self.turn().epoch();
        let current = self.leader().await?.map_or(Epoch(0), |leader| leader.epoch);
        self.noted(require(ours, current))
    }

    /// Waits until it is found that another process took over from this handle. Nothing that it wrote since then was
    /// stored.
    pub async fn deposed(&self) {
        self.turn().over.cancelled().await;
    }

    /// Has it been found that another process took over from this handle?
    #[must_use]
    pub fn is_deposed(&self) -> bool {
        self.turn().over.is_cancelled()
    }

    /// As [`Store::commit`], for what only the leader may write.
    pub(super) async fn commit_leading<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.commit_leading_at(REQUEST, work).await
    }

    /// As [`Store::commit_leading`], for work that costs so much.
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

    /// Remembers that the turn is over when `result` says so.
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
