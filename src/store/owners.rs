//! Which `IdentityProvider` the people and groups under a name belong to. One that takes the name of another must not read
//! or inherit them: they wait until a person accepts it, or purges them.

use futures::future::try_join_all;

use super::audit::{AuditDraft, COMMAND};
use super::lanes::{REQUEST, Ticket};
use super::sqlite::owners;
use super::{DeleteOutcome, Origin, Store, StoreError};
use crate::model::ProviderName;

/// How many people or groups are purged at once: they share commits, and leave room for other requests.
const CHUNK: u32 = 100;

/// What a purge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// People who were deleted.
    pub users: u64,
    /// Groups that were deleted.
    pub groups: u64,
}

/// Whether a directory may be purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryUse {
    /// Its `IdentityProvider` is in force.
    InUse,
    /// Another `IdentityProvider` of its name waits to be accepted.
    Disputed,
    /// Its `IdentityProvider` is gone, or nobody has claimed it.
    Abandoned,
}

impl Store {
    /// Whether what is stored under this name belongs to the `IdentityProvider` with this uid. A directory without people
    /// and groups belongs to whoever claims it. Where the answer is no, the claim waits to be accepted.
    pub async fn claim_directory(&self, provider: &ProviderName, uid: &str) -> Result<bool, StoreError> {
        let (name, claimant) = (provider.clone(), uid.to_owned());
        if self.read(move |db| owners::is_owner(db, &name, &claimant)).await? {
            return Ok(true);
        }
        let (provider, uid) = (provider.clone(), uid.to_owned());
        self.commit(Ticket::engine(REQUEST), move |tx| owners::claim(tx, &provider, &uid)).await
    }

    /// The `IdentityProvider` of this name was deleted: another one is not its successor, even where objects have no uid.
    pub async fn leave_directory(&self, provider: &ProviderName) -> Result<(), StoreError> {
        let provider = provider.clone();
        self.commit(Ticket::engine(REQUEST), move |tx| owners::leave(tx, &provider)).await
    }

    /// Gives the directory to the `IdentityProvider` that waits for it. Answers whether one does.
    pub async fn accept_directory(&self, provider: &ProviderName) -> Result<bool, StoreError> {
        let provider = provider.clone();
        self.commit(Ticket::engine(REQUEST), move |tx| owners::accept(tx, &provider)).await
    }

    /// Whether the directory of this name is in use.
    pub async fn directory_use(&self, provider: &ProviderName) -> Result<DirectoryUse, StoreError> {
        let provider = provider.clone();
        self.read(move |db| owners::directory_use(db, &provider)).await
    }

    /// Deletes all people and groups under this name, with an event for each, as if its IdP had deleted them. Done again
    /// after an interruption, it goes on.
    pub async fn purge_directory(&self, provider: &ProviderName, origin: &Origin) -> Result<Purged, StoreError> {
        let mut purged = Purged::default();
        let name = provider.clone();
        self.commit(Ticket::engine(REQUEST), move |tx| {
            tx.audit(AuditDraft::configuration(tx.now, COMMAND, "provider.purge", name.as_str(), None));
            Ok(())
        })
        .await?;
        loop {
            let name = provider.clone();
            let ids = self.read(move |db| owners::first_users(db, &name, CHUNK)).await?;
            if ids.is_empty() {
                break;
            }
            let each = ids.into_iter().map(|id| self.delete_user(provider, origin, id, None));
            let done = try_join_all(each).await?;
            purged.users += done.iter().filter(|outcome| **outcome == DeleteOutcome::Deleted).count() as u64;
        }
        loop {
            let name = provider.clone();
            let ids = self.read(move |db| owners::first_groups(db, &name, CHUNK)).await?;
            if ids.is_empty() {
                break;
            }
            let each = ids.into_iter().map(|id| self.delete_group(provider, origin, id, None));
            let done = try_join_all(each).await?;
            purged.groups += done.iter().filter(|outcome| **outcome == DeleteOutcome::Deleted).count() as u64;
        }
        Ok(purged)
    }
}
