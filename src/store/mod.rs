//! The durable state of rolecall: the directory with its event log, pins, the ledger, the audit log and the last valid
//! specs.
//!
//! Changes are computed before the writer is called; the writer checks that the reads behind the computation are still
//! valid. A single writer takes waiting requests in fair order and up to a bounded cost, gives each of them a savepoint
//! in one transaction, commits, and then answers. A request that was answered with success is on disk, and a request
//! that was not left nothing behind. Reads run concurrently on connections of their own. Each change of the directory
//! appends its events, its audit row and its counts in the same transaction.
//!
//! Any process may write the directory. The engine's state is written by the process that took over last, see
//! [`Store::begin_epoch`].

mod audit;
mod commands;
mod compaction;
#[cfg(test)]
mod contract;
mod drift;
mod encoding;
mod erase;
mod error;
mod events;
mod groups;
mod guard;
mod history;
mod lanes;
mod leadership;
mod ledger;
mod lists;
mod members;
mod membership;
mod names;
mod orphans;
mod owners;
mod past;
mod pins;
pub(crate) mod private;
mod prune;
mod quota;
mod record;
mod refusals;
mod resources;
mod specs;
#[expect(clippy::redundant_closure_for_method_calls, reason = "a path to a method of `Columns` has one lifetime only")]
mod sqlite;
mod trust;
mod users;
mod versions;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use uuid::Uuid;

use crate::model::{Clock, Pseudonyms, Seq};
use lanes::Ticket;
use leadership::Turn;
use sqlite::{Connection, Identity, Sqlite, Transaction};

pub(crate) use audit::AuditChain;
pub(crate) use commands::{Decision, PendingDecision, UninstallMode};
pub(crate) use erase::{Erased, Erasure, KnownPerson};
pub(crate) use error::StoreError;
pub(crate) use history::{ListingRecord, ResourceRecord};
pub(crate) use leadership::{Epoch, Leader};
pub(crate) use ledger::DocumentLedger;
pub(crate) use names::Names;
pub(crate) use owners::DirectoryUse;
pub(crate) use prune::Pruned;
pub(crate) use quota::{Quota, Usage};
pub(crate) use record::{
    AuditRow, Counts, DeleteOutcome, GroupChanged, GroupRecord, GroupUpdate, ListPlan, ListQuery, Match, MemberDelta,
    MemberKind, MemberRecord, NewGroup, NewResource, NewUser, Origin, PlannedRow, ScimResource, SpecVersion,
    StoredSpec, UpdateOutcome, UserGroup, UserRecord, UserUpdate, VersionRef,
};
#[cfg(test)]
pub(crate) use sqlite::{MemoryDatabase, StoreFaults};
pub(crate) use trust::Trust;

pub(crate) use crate::model::{MemberChange, MemberChanges};
#[cfg(test)]
pub(crate) use owners::Purged;
#[cfg(test)]
pub(crate) use record::Membership;

/// The store. Cheap to clone; the database closes when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    id: Uuid,
    pseudonyms: Pseudonyms,
    sqlite: Sqlite,
    turn: Turn,
    /// Number of changes that were computed again because of a concurrent change.
    retries: AtomicU64,
    quota: OnceLock<Quota>,
}

/// Number of times that a change is computed on the current state before it fails. Of concurrent changes of one
/// resource, one succeeds each time.
const ATTEMPTS: u32 = 256;

fn changes_too_often() -> StoreError {
    StoreError::Unavailable { problem: "others change the same resource all the time".to_owned() }
}

impl Store {
    /// Opens or creates the database at `url` (`sqlite:PATH`) and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedUrl`], [`StoreError::CannotOpen`], [`StoreError::NotADatabase`],
    /// [`StoreError::SchemaNewer`], [`StoreError::SchemaDiffers`].
    pub(crate) async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self::on(Sqlite::open(url, clock).await?))
    }

    /// Opens an in-memory database, for simulations and tests. Everything runs in the caller's poll, without a thread
    /// or task of its own; several stores may be open on one database.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], when the database was modified from outside.
    #[cfg(test)]
    pub(crate) fn open_inline(database: &MemoryDatabase, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_faulty(database, clock, StoreFaults::default())
    }

    /// Like [`Store::open_inline`], with faults.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], when the database was modified from outside.
    #[cfg(test)]
    pub(crate) fn open_faulty(
        database: &MemoryDatabase,
        clock: Arc<dyn Clock>,
        faults: StoreFaults,
    ) -> Result<Self, StoreError> {
        Ok(Self::on(Sqlite::open_inline(database, clock, faults)?))
    }

    fn on((sqlite, Identity { id, pseudonyms }): (Sqlite, Identity)) -> Self {
        let (turn, retries, quota) = (Turn::default(), AtomicU64::new(0), OnceLock::new());
        Self(Arc::new(Inner { id, pseudonyms, sqlite, turn, retries, quota }))
    }

    /// The id that this database was created with.
    #[must_use]
    pub(crate) fn id(&self) -> Uuid {
        self.0.id
    }

    /// The pseudonyms of people for texts that everybody may read; the key belongs to this database.
    #[must_use]
    pub(crate) fn pseudonyms(&self) -> &Pseudonyms {
        &self.0.pseudonyms
    }

    /// Returns a receiver of the last position after each commit that appended events or history. It is only a hint;
    /// the log is authoritative.
    #[must_use]
    pub(crate) fn subscribe(&self) -> watch::Receiver<Seq> {
        self.0.sqlite.subscribe()
    }

    /// Sets the storage quota of each provider, for as long as this handle and its clones live. Called once, before
    /// requests are served.
    pub(crate) fn set_quota(&self, quota: Quota) {
        // A second call has no effect.
        let _said = self.0.quota.set(quota);
    }

    /// The storage quota of each provider.
    #[must_use]
    pub(crate) fn quota(&self) -> Quota {
        self.0.quota.get().copied().unwrap_or_default()
    }

    fn note_retry(&self) {
        self.0.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Rewrites the database and empties its log, so that neither contains deleted bytes. Readers continue; writers
    /// wait about a second for each 100 MB.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], when there is no space for a copy, or when a reader prevents the log from being
    /// emptied for a minute.
    pub(crate) async fn rewrite_file(&self) -> Result<(), StoreError> {
        self.0.sqlite.rewrite_file().await
    }

    /// Runs a read, which sees one state of the database.
    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.0.sqlite.read(work).await
    }

    /// Runs `work` in the next transaction; returns when that is committed.
    async fn commit<T, W>(&self, ticket: Ticket, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.0.sqlite.write(ticket, work).await
    }

    fn turn(&self) -> &Turn {
        &self.0.turn
    }
}
