//! What rolecall remembers: the directory with its event log, pins, the ledger, the audit log and the last good specs.
//!
//! What a change comes to is worked out before the writer is asked; the writer checks that what the computation read is
//! still so. One task writes. It takes what is waiting, in turn of those who ask and no more than a bounded cost at once, gives each request a savepoint in one transaction, commits, and answers
//! then: a request that was answered with success is on the disk, and a request that was not left nothing behind.
//! Reads run beside it on connections of their own. Each change of the directory appends its events, its audit row and
//! its counts in the same transaction.
//!
//! Any process may write the directory. What the engine remembers is written by the process that took over last, see
//! [`Store::begin_epoch`].

mod audit;
mod commands;
mod compaction;
#[cfg(test)]
mod contract;
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
mod specs;
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

pub use audit::AuditChain;
pub use commands::{Decision, PendingDecision, UninstallMode};
pub use erase::{Erased, Erasure, KnownPerson};
pub use error::StoreError;
pub use history::{ListingRecord, ResourceRecord};
pub use leadership::{Epoch, Leader};
pub use ledger::DocumentLedger;
pub use names::Names;
pub use owners::{DirectoryUse, Purged};
pub use past::PastCatalog;
pub use prune::Pruned;
pub use quota::{Quota, Usage};
pub use record::{
    AuditRow, Counts, DeleteOutcome, GroupChanged, GroupRecord, GroupUpdate, ListPlan, ListQuery, MemberDelta,
    MemberKind, MemberRecord, Membership, NewGroup, NewUser, Origin, Page, PlannedRow, SpecPhase, SpecState,
    SpecVersion, StoredSpec, UpdateOutcome, UserRecord, UserUpdate, VersionRef,
};
pub use sqlite::MemoryDatabase;
pub use trust::Trust;

pub use crate::model::MemberChange;

/// The store. Cheap to clone; the database closes when the last clone goes.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    id: Uuid,
    pseudonyms: Pseudonyms,
    sqlite: Sqlite,
    turn: Turn,
    /// How many changes were worked out again because somebody else was faster.
    retries: AtomicU64,
    quota: OnceLock<Quota>,
}

/// How often a change is worked out on what is stored now before it is given up. Of those that change one resource at the
/// same moment, one succeeds each time.
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
    pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self::on(Sqlite::open(url, clock).await?))
    }

    /// Opens a database in memory, for simulations and tests. Everything happens in the poll of who asks, without a thread
    /// or task of its own; several stores may be open on one database.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], when the database was tampered with.
    pub fn open_inline(database: &MemoryDatabase, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self::on(Sqlite::open_inline(database, clock)?))
    }

    fn on((sqlite, Identity { id, pseudonyms }): (Sqlite, Identity)) -> Self {
        let (turn, retries, quota) = (Turn::default(), AtomicU64::new(0), OnceLock::new());
        Self(Arc::new(Inner { id, pseudonyms, sqlite, turn, retries, quota }))
    }

    /// The id that this database was created with.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.0.id
    }

    /// What stands for people where everybody may read; the key is this database's own.
    #[must_use]
    pub fn pseudonyms(&self) -> &Pseudonyms {
        &self.0.pseudonyms
    }

    /// A hint after each commit that appended events or history: the last position. The log is the truth.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Seq> {
        self.0.sqlite.subscribe()
    }

    /// What each provider may store from now on, as long as this handle and its clones live. Said once, before requests
    /// are served.
    pub fn set_quota(&self, quota: Quota) {
        // Nobody says it twice.
        let _said = self.0.quota.set(quota);
    }

    /// What each provider may store.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.0.quota.get().copied().unwrap_or_default()
    }

    fn note_retry(&self) {
        self.0.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Rewrites the database and empties its log, so that nothing of what was deleted is left in either. Readers go on; whoever
    /// writes waits meanwhile, which is about a second for each 100 MB.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], when there is no room for a copy of what is stored, or when a reader keeps the log from
    /// being emptied for a minute.
    pub async fn rewrite_file(&self) -> Result<(), StoreError> {
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

    /// Has `work` done in the next transaction; answers when that is committed.
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
