//! Which `IdentityProvider` the people and groups under a name belong to. One that takes the name of another must not read
//! or inherit them: they wait until a person accepts it, or purges them.

use futures::future::try_join_all;
use sqlx::query;

use super::audit::{AuditDraft, COMMAND};
use super::committer::Transaction;
use super::sql::Columns;
use super::{DeleteOutcome, Origin, Store, StoreError, history};
use crate::model::{GroupId, ProviderName, UserId};

/// How many people or groups are purged at once: they share commits, and leave room for other requests.
const CHUNK: i64 = 100;

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
        let row = query("SELECT owner, waiting FROM directory_owners WHERE provider = ?")
            .bind(provider.as_str())
            .fetch_optional(self.readers())
            .await?;
        if let Some(row) = row {
            let mut columns = Columns::of(&row, "directory_owners");
            if (columns.text()?.as_str(), columns.text_or_none()?) == (uid, None) {
                return Ok(true);
            }
        }
        let (provider, uid) = (provider.clone(), uid.to_owned());
        self.committer().commit(move |tx| Box::pin(async move { claim(tx, &provider, &uid).await })).await
    }

    /// The `IdentityProvider` of this name was deleted: another one is not its successor, even where objects have no uid.
    pub async fn leave_directory(&self, provider: &ProviderName) -> Result<(), StoreError> {
        let provider = provider.clone();
        self.committer()
            .commit(move |tx| {
                Box::pin(async move {
                    query(
                        "INSERT INTO directory_owners (provider, owner, waiting) VALUES (?, '', NULL) \
                         ON CONFLICT DO UPDATE SET owner = '', waiting = NULL",
                    )
                    .bind(provider.as_str())
                    .execute(&mut tx.connection)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    /// Gives the directory to the `IdentityProvider` that waits for it. Answers whether one does.
    pub async fn accept_directory(&self, provider: &ProviderName) -> Result<bool, StoreError> {
        let provider = provider.clone();
        self.committer()
            .commit(move |tx| {
                Box::pin(async move {
                    let done = query(
                        "UPDATE directory_owners SET owner = waiting, waiting = NULL \
                         WHERE provider = ? AND waiting IS NOT NULL",
                    )
                    .bind(provider.as_str())
                    .execute(&mut tx.connection)
                    .await?;
                    let accepted = done.rows_affected() > 0;
                    if accepted {
                        let name = provider.as_str();
                        tx.audit(AuditDraft::configuration(tx.now, COMMAND, "provider.accept", name, None));
                        history::append_former(tx, provider.as_str(), false).await?;
                    }
                    Ok(accepted)
                })
            })
            .await
    }

    /// Whether the directory of this name is in use.
    pub async fn directory_use(&self, provider: &ProviderName) -> Result<DirectoryUse, StoreError> {
        let row = query(
            "SELECT EXISTS (SELECT 1 FROM directory_owners WHERE provider = ?1 AND waiting IS NOT NULL), \
                    EXISTS (SELECT 1 FROM specs WHERE kind = 'IdentityProvider' AND name = ?1)",
        )
        .bind(provider.as_str())
        .fetch_one(self.readers())
        .await?;
        let mut columns = Columns::of(&row, "directory_owners");
        Ok(match (columns.integer()?, columns.integer()?) {
            (0, 0) => DirectoryUse::Abandoned,
            (0, _) => DirectoryUse::InUse,
            _ => DirectoryUse::Disputed,
        })
    }

    /// Deletes all people and groups under this name, with an event for each, as if its IdP had deleted them. Done again
    /// after an interruption, it goes on.
    pub async fn purge_directory(&self, provider: &ProviderName, origin: &Origin) -> Result<Purged, StoreError> {
        let mut purged = Purged::default();
        let name = provider.clone();
        self.committer()
            .commit(move |tx| {
                Box::pin(async move {
                    tx.audit(AuditDraft::configuration(tx.now, COMMAND, "provider.purge", name.as_str(), None));
                    Ok(())
                })
            })
            .await?;
        loop {
            let ids =
                self.first_ids("SELECT id FROM users WHERE provider = ? ORDER BY position LIMIT ?", provider).await?;
            if ids.is_empty() {
                break;
            }
            let each = ids.into_iter().map(|id| self.delete_user(provider, origin, UserId(id), None));
            let done = try_join_all(each).await?;
            purged.users += done.iter().filter(|outcome| **outcome == DeleteOutcome::Deleted).count() as u64;
        }
        loop {
            let ids =
                self.first_ids("SELECT id FROM groups WHERE provider = ? ORDER BY position LIMIT ?", provider).await?;
            if ids.is_empty() {
                break;
            }
            let each = ids.into_iter().map(|id| self.delete_group(provider, origin, GroupId(id), None));
            let done = try_join_all(each).await?;
            purged.groups += done.iter().filter(|outcome| **outcome == DeleteOutcome::Deleted).count() as u64;
        }
        Ok(purged)
    }

    async fn first_ids(&self, sql: &'static str, provider: &ProviderName) -> Result<Vec<uuid::Uuid>, StoreError> {
        let rows = query(sql).bind(provider.as_str()).bind(CHUNK).fetch_all(self.readers()).await?;
        rows.iter().map(|row| Columns::of(row, "directory").id()).collect()
    }
}

async fn claim(tx: &mut Transaction, provider: &ProviderName, uid: &str) -> Result<bool, StoreError> {
    let row = query(
        "SELECT (SELECT owner FROM directory_owners WHERE provider = ?1), \
                EXISTS (SELECT 1 FROM users WHERE provider = ?1) OR EXISTS (SELECT 1 FROM groups WHERE provider = ?1), \
                (SELECT count(*) FROM specs WHERE kind = 'IdentityProvider' AND name = ?1 \
                    AND coalesce(json ->> '$.metadata.uid', ?2) = ?2)",
    )
    .bind(provider.as_str())
    .bind(uid)
    .fetch_one(&mut tx.connection)
    .await?;
    let mut columns = Columns::of(&row, "directory_owners");
    let (owner, populated, in_force) = (columns.text_or_none()?, columns.integer()? > 0, columns.integer()? > 0);
    let ours = match &owner {
        _ if !populated => true,
        Some(owner) => owner == uid,
        // A database of a version that did not write owners down: they are those of the object that was in force.
        None => in_force,
    };
    let (owner, waiting) = if ours { (uid, None) } else { (owner.as_deref().unwrap_or_default(), Some(uid)) };
    query(
        "INSERT INTO directory_owners (provider, owner, waiting) VALUES (?, ?, ?) \
         ON CONFLICT DO UPDATE SET owner = excluded.owner, waiting = excluded.waiting",
    )
    .bind(provider.as_str())
    .bind(owner)
    .bind(waiting)
    .execute(&mut tx.connection)
    .await?;
    history::append_former(tx, provider.as_str(), !ours).await?;
    Ok(ours)
}
