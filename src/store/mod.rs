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

mod abandoned;
mod audit;
mod committer;
mod compaction;
mod decisions;
mod erase;
mod error;
mod events;
mod file;
mod filter;
mod groups;
mod guard;
mod history;
mod lanes;
mod leadership;
mod ledger;
mod list;
mod members;
mod membership;
mod names;
mod open;
mod owners;
mod past;
pub(crate) mod private;
mod prune;
mod quota;
mod record;
mod refusals;
mod specs;
mod sql;
mod trust;
mod users;
mod versions;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::watch;
use uuid::Uuid;

use crate::model::{Pseudonyms, Seq};
use committer::Committer;
use leadership::Turn;

pub use audit::AuditChain;
pub use decisions::{Decision, Farewell as UninstallMode, PendingDecision};
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
pub use trust::Trust;

pub use crate::model::MemberChange;

/// The store. Cheap to clone; the database closes when the last clone goes.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    id: Uuid,
    pseudonyms: Pseudonyms,
    readers: SqlitePool,
    /// For connections of their own.
    options: SqliteConnectOptions,
    committer: Committer,
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
        self.0.committer.subscribe()
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

    fn readers(&self) -> &SqlitePool {
        &self.0.readers
    }

    fn committer(&self) -> &Committer {
        &self.0.committer
    }

    fn turn(&self) -> &Turn {
        &self.0.turn
    }
}
