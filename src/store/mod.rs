//! What rolecall remembers: the directory with its event log, pins, the ledger, the audit log and the last good specs.

mod error;
mod record;

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::model::{
    AuditEntry, Clock, DirectoryChange, DirectoryEvent, DocumentKey, GroupId, LedgerChange, LedgerRow, MappingKey, Pin,
    ProviderName, Seq, UserId,
};

pub use error::StoreError;
pub use record::{
    AuditRow, Condition, Counts, DeleteOutcome, GroupChanged, GroupRecord, GroupUpdate, ListQuery, MemberChange,
    MemberDelta, MemberKind, MemberRecord, Membership, NewGroup, NewUser, Origin, Page, Release, SpecState, StoredSpec,
    UpdateOutcome, UserRecord, UserUpdate,
};

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<()>);

#[expect(unused_variables, clippy::todo, clippy::unused_async, reason = "bodies follow")]
impl Store {
    /// Opens or creates the database at `url` (`sqlite:PATH`) and brings its schema up to date.
    pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        todo!()
    }
    /// The id that this database was created with.
    pub fn id(&self) -> Uuid {
        todo!()
    }
    /// The last position of the event log; 0 when it is empty.
    pub async fn highest_seq(&self) -> Result<Seq, StoreError> {
        todo!()
    }
    /// A hint after each commit that appended events. The log is the truth.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<Seq> {
        todo!()
    }
    /// Events after a position, in order, of all providers.
    pub async fn events_after(&self, after: Seq, limit: u32) -> Result<Vec<DirectoryEvent>, StoreError> {
        todo!()
    }
    /// The whole directory as changes, read in one transaction; answers the position that it stands for.
    pub async fn snapshot(
        &self,
        sink: &mut (dyn FnMut(ProviderName, DirectoryChange) + Send),
    ) -> Result<Seq, StoreError> {
        todo!()
    }

    /// Stores a user.
    pub async fn create_user(&self, p: &ProviderName, o: &Origin, user: NewUser) -> Result<UserRecord, StoreError> {
        todo!()
    }
    /// One user.
    pub async fn user(&self, p: &ProviderName, id: UserId) -> Result<Option<UserRecord>, StoreError> {
        todo!()
    }
    /// Read, change, write, inside the committer's transaction. `change` answers none for "no change".
    pub async fn update_user<E: Send + 'static>(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: UserId,
        change: impl FnOnce(&UserRecord) -> Result<Option<UserUpdate>, E> + Send + 'static,
    ) -> Result<UpdateOutcome<UserRecord, E>, StoreError> {
        todo!()
    }
    /// Deletes a user; `if_version`: only in this version (`If-Match`).
    pub async fn delete_user(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: UserId,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        todo!()
    }
    /// Users that match.
    pub async fn users(&self, p: &ProviderName, q: &ListQuery) -> Result<Page<UserRecord>, StoreError> {
        todo!()
    }

    /// Stores a group.
    pub async fn create_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        group: NewGroup,
    ) -> Result<GroupChanged, StoreError> {
        todo!()
    }
    /// One group, without its members.
    pub async fn group(&self, p: &ProviderName, id: GroupId) -> Result<Option<GroupRecord>, StoreError> {
        todo!()
    }
    /// The members of a group.
    pub async fn members(&self, p: &ProviderName, id: GroupId) -> Result<Vec<MemberRecord>, StoreError> {
        todo!()
    }
    /// The groups that a user or group is a direct member of.
    pub async fn memberships(&self, p: &ProviderName, id: Uuid) -> Result<Vec<Membership>, StoreError> {
        todo!()
    }
    /// Read, change, write, inside the committer's transaction; never loads the members.
    pub async fn update_group<E: Send + 'static>(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        change: impl FnOnce(&GroupRecord) -> Result<GroupUpdate, E> + Send + 'static,
    ) -> Result<UpdateOutcome<GroupChanged, E>, StoreError> {
        todo!()
    }
    /// Deletes a group; `if_version`: only in this version (`If-Match`).
    pub async fn delete_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        todo!()
    }
    /// Groups that match, without their members.
    pub async fn groups(&self, p: &ProviderName, q: &ListQuery) -> Result<Page<GroupRecord>, StoreError> {
        todo!()
    }
    /// How large the directory is.
    pub async fn counts(&self, p: &ProviderName) -> Result<Counts, StoreError> {
        todo!()
    }

    /// All pins.
    pub async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        todo!()
    }
    /// Stores pins; one of the same mapping, provider and selector is replaced.
    pub async fn put_pins(&self, pins: Vec<Pin>) -> Result<(), StoreError> {
        todo!()
    }
    /// Forgets the pins of a mapping.
    pub async fn remove_pins(&self, mapping: &MappingKey) -> Result<(), StoreError> {
        todo!()
    }
    /// What is known about the grants of one document, in order.
    pub async fn ledger(&self, d: &DocumentKey) -> Result<Vec<LedgerRow>, StoreError> {
        todo!()
    }
    /// All documents that the ledger knows, each with the mappings that hold claims there.
    pub async fn ledger_documents(&self) -> Result<Vec<(DocumentKey, BTreeSet<MappingKey>)>, StoreError> {
        todo!()
    }
    /// Changes the ledger of one document and appends audit rows, in one transaction.
    pub async fn record(
        &self,
        d: &DocumentKey,
        changes: Vec<LedgerChange>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError> {
        todo!()
    }
    /// Audit rows after a position, in order.
    pub async fn audit_after(&self, after: i64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        todo!()
    }
    /// Recomputes the hash chain of the audit log; answers how many rows it has.
    pub async fn verify_audit_chain(&self) -> Result<u64, StoreError> {
        todo!()
    }
    /// All last good specs.
    pub async fn specs(&self) -> Result<Vec<StoredSpec>, StoreError> {
        todo!()
    }
    /// Stores a spec; one of the same kind, namespace and name is replaced.
    pub async fn put_spec(&self, spec: StoredSpec) -> Result<(), StoreError> {
        todo!()
    }
    /// Forgets a spec.
    pub async fn remove_spec(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<(), StoreError> {
        todo!()
    }
    /// All releases.
    pub async fn releases(&self) -> Result<Vec<Release>, StoreError> {
        todo!()
    }
    /// Stores a release; one that is there keeps its time.
    pub async fn put_release(&self, release: Release) -> Result<(), StoreError> {
        todo!()
    }
}
