//! Ownership of the directory under a name by an `IdentityProvider`.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

use super::Transaction;
use super::history;
use super::query::Query as _;
use crate::model::{GroupId, ProviderName, UserId};
use crate::store::audit::{AuditDraft, COMMAND};
use crate::store::{DirectoryUse, StoreError};

/// True when the directory belongs to the object with this uid, and no other one waits for it.
pub(crate) fn is_owner(db: &Connection, provider: &ProviderName, uid: &str) -> Result<bool, StoreError> {
    let sql = "SELECT owner, waiting FROM directory_owners WHERE provider = ?";
    let owner = db.first("directory_owners", sql, [provider.as_str()], |columns| {
        Ok(columns.text()? == uid && columns.text_or_none()?.is_none())
    })?;
    Ok(owner.unwrap_or(false))
}

/// The names under which groups were stored before nested groups were resolved.
pub(crate) fn before_nesting(db: &Connection) -> Result<BTreeSet<ProviderName>, StoreError> {
    let sql = "SELECT provider FROM directories_before_nesting";
    Ok(db.all("directories_before_nesting", sql, [], |columns| columns.provider())?.into_iter().collect())
}

/// Gives the directory to the object with this uid, or makes the object wait.
pub(crate) fn claim(tx: &mut Transaction<'_>, provider: &ProviderName, uid: &str) -> Result<bool, StoreError> {
    let sql = "SELECT (SELECT owner FROM directory_owners WHERE provider = ?1), \
            EXISTS (SELECT 1 FROM users WHERE provider = ?1) OR EXISTS (SELECT 1 FROM groups WHERE provider = ?1) \
                OR EXISTS (SELECT 1 FROM resources WHERE provider = ?1), \
            (SELECT count(*) FROM specs WHERE kind = 'IdentityProvider' AND name = ?1 \
                AND coalesce(json ->> '$.metadata.uid', ?2) = ?2)";
    let (owner, populated, in_force) =
        tx.db.one("directory_owners", sql, params![provider.as_str(), uid], |columns| {
            Ok((columns.text_or_none()?, columns.flag()?, columns.flag()?))
        })?;
    let ours = match &owner {
        _ if !populated => true,
        Some(owner) => owner == uid,
        // A database of a version that did not record owners: the owner is the object that was in force.
        None => in_force,
    };
    let (owner, waiting) = if ours { (uid, None) } else { (owner.as_deref().unwrap_or_default(), Some(uid)) };
    tx.db.run(
        "INSERT INTO directory_owners (provider, owner, waiting) VALUES (?, ?, ?) \
         ON CONFLICT DO UPDATE SET owner = excluded.owner, waiting = excluded.waiting",
        params![provider.as_str(), owner, waiting],
    )?;
    history::append_former(tx, provider.as_str(), !ours)?;
    Ok(ours)
}

/// Leaves the directory without an owner.
pub(crate) fn leave(tx: &mut Transaction<'_>, provider: &ProviderName) -> Result<(), StoreError> {
    let sql = "INSERT INTO directory_owners (provider, owner, waiting) VALUES (?, '', NULL) \
        ON CONFLICT DO UPDATE SET owner = '', waiting = NULL";
    tx.db.run(sql, [provider.as_str()]).map(drop)
}

/// Gives the directory to the object that waits for it; returns whether there is one.
pub(crate) fn accept(tx: &mut Transaction<'_>, provider: &ProviderName) -> Result<bool, StoreError> {
    let sql = "UPDATE directory_owners SET owner = waiting, waiting = NULL WHERE provider = ? AND waiting IS NOT NULL";
    let accepted = tx.db.run(sql, [provider.as_str()])? > 0;
    if accepted {
        tx.audit(AuditDraft::configuration(tx.now, COMMAND, "provider.accept", provider.as_str(), None));
        history::append_former(tx, provider.as_str(), false)?;
    }
    Ok(accepted)
}

/// The use of the directory of this name.
pub(crate) fn directory_use(db: &Connection, provider: &ProviderName) -> Result<DirectoryUse, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM directory_owners WHERE provider = ?1 AND waiting IS NOT NULL), \
            EXISTS (SELECT 1 FROM specs WHERE kind = 'IdentityProvider' AND name = ?1)";
    db.one("directory_owners", sql, [provider.as_str()], |columns| {
        Ok(match (columns.flag()?, columns.flag()?) {
            (false, false) => DirectoryUse::Unclaimed,
            (false, true) => DirectoryUse::InUse,
            (true, _) => DirectoryUse::Disputed,
        })
    })
}

/// The oldest users under this name.
pub(crate) fn first_users(db: &Connection, p: &ProviderName, limit: u32) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT id FROM users WHERE provider = ? ORDER BY position LIMIT ?";
    db.all("users", sql, params![p.as_str(), limit], |columns| columns.id().map(UserId))
}

/// The oldest groups under this name.
pub(crate) fn first_groups(db: &Connection, p: &ProviderName, limit: u32) -> Result<Vec<GroupId>, StoreError> {
    let sql = "SELECT id FROM groups WHERE provider = ? ORDER BY position LIMIT ?";
    db.all("groups", sql, params![p.as_str(), limit], |columns| columns.id().map(GroupId))
}
