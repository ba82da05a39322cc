//! Ownership of the people and groups under a name by an `IdentityProvider`. One with the name of a former one must not
//! read or inherit them: they wait until a person accepts it, or purges them.

use std::collections::BTreeSet;

use futures::future::try_join_all;

use super::audit::{AuditDraft, COMMAND};
use super::lanes::{REQUEST, Ticket};
use super::sqlite::{owners, resources};
use super::{DeleteOutcome, Origin, Store, StoreError};
use crate::model::ProviderName;

/// Number of people or groups purged at once: they share commits, and let other requests in between.
const CHUNK: u32 = 100;

/// The result of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Purged {
    /// People who were deleted.
    pub(crate) users: u64,
    /// Groups that were deleted.
    pub(crate) groups: u64,
    /// Other resources that were deleted.
    pub(crate) resources: u64,
}

/// Whether a directory may be purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryUse {
    /// Its `IdentityProvider` is in force.
    InUse,
    /// Another `IdentityProvider` of its name waits to be accepted.
    Disputed,
    /// Its `IdentityProvider` was deleted, or no one has claimed it.
    Unclaimed,
}

impl Store {
    /// Whether the directory under this name belongs to the `IdentityProvider` with this uid. A directory without
    /// people and groups belongs to whichever provider claims it. If the answer is no, the claim waits to be accepted.
    pub(crate) async fn claim_directory(&self, provider: &ProviderName, uid: &str) -> Result<bool, StoreError> {
        let (name, claimant) = (provider.clone(), uid.to_owned());
        if self.read(move |db| owners::is_owner(db, &name, &claimant)).await? {
            return Ok(true);
        }
        let (provider, uid) = (provider.clone(), uid.to_owned());
        self.commit(Ticket::engine(REQUEST), move |tx| owners::claim(tx, &provider, &uid)).await
    }

    /// Records that the `IdentityProvider` of this name was deleted. Another one does not inherit the directory, even
    /// where objects have no uid.
    pub(crate) async fn leave_directory(&self, provider: &ProviderName) -> Result<(), StoreError> {
        let provider = provider.clone();
        self.commit(Ticket::engine(REQUEST), move |tx| owners::leave(tx, &provider)).await
    }

    /// The names under which groups were stored before nested groups were resolved. They stay so for good.
    pub(crate) async fn before_nesting(&self) -> Result<BTreeSet<ProviderName>, StoreError> {
        self.read(owners::before_nesting).await
    }

    /// Gives the directory to the `IdentityProvider` that waits for it. Returns whether there is one.
    pub(crate) async fn accept_directory(&self, provider: &ProviderName) -> Result<bool, StoreError> {
        let provider = provider.clone();
        self.commit(Ticket::engine(REQUEST), move |tx| owners::accept(tx, &provider)).await
    }

    /// The use of the directory of this name.
    pub(crate) async fn directory_use(&self, provider: &ProviderName) -> Result<DirectoryUse, StoreError> {
        let provider = provider.clone();
        self.read(move |db| owners::directory_use(db, &provider)).await
    }

    /// Deletes all people, groups and other resources under this name, with an event for each, as if its IdP had deleted them. Called
    /// again after an interruption, it continues.
    pub(crate) async fn purge_directory(&self, provider: &ProviderName, origin: &Origin) -> Result<Purged, StoreError> {
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
        loop {
            let name = provider.clone();
            let found = self.read(move |db| resources::first(db, &name, CHUNK.into())).await?;
            if found.is_empty() {
                break;
            }
            for (id, kind) in found {
                let (name, origin) = (provider.clone(), origin.clone());
                let ticket = Ticket::engine(REQUEST);
                self.commit(ticket, move |tx| resources::delete(tx, &kind, (&name, &origin), id, None)).await?;
                purged.resources += 1;
            }
        }
        Ok(purged)
    }
}
