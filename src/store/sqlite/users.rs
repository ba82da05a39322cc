//! Users: rows, their e-mail look-up, their events and audit rows.

use rusqlite::{Connection, params};

use super::Transaction;
use super::meant;
use super::members;
use super::query::{Columns, Query as _, is_unique_violation};
use crate::model::{DirectoryChange, ProviderName, UserFacts, UserId};
use crate::store::audit::AuditDraft;
use crate::store::encoding::{json, size};
use crate::store::quota::Growth;
use crate::store::users::EncodedUser;
use crate::store::{DeleteOutcome, NewUser, Origin, Quota, StoreError, Usage, UserRecord, UserUpdate};

/// The columns that [`user_row`] reads.
pub(super) const COLUMNS: &str =
    "id, active, user_name, external_id, emails, resource, version, created_at, updated_at";

pub(super) const ONE: &str = "SELECT id, active, user_name, external_id, emails, resource, version, created_at, updated_at \
    FROM users WHERE provider = ? AND id = ?";

pub(super) const CREATE: &str = "INSERT INTO users (provider, id, active, user_name, user_name_fold, external_id, emails, \
    resource, version, created_at, updated_at, employee_number_fold) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?9, ?9, ?10)";

pub(super) const ADD_EMAIL: &str = "INSERT INTO user_emails (user, value_fold, kind_fold, provider) \
    VALUES ((SELECT position FROM users WHERE provider = ?1 AND id = ?2), ?3, ?4, ?1) ON CONFLICT DO NOTHING";

pub(super) const UPDATE: &str = "UPDATE users SET active = ?, external_id = ?, emails = ?, resource = ?, version = ?, \
    updated_at = ?, employee_number_fold = ? WHERE provider = ? AND id = ? AND version = ?";

pub(super) const RENAME: &str = "UPDATE users SET user_name = ?, user_name_fold = ? WHERE provider = ? AND id = ?";

pub(super) const REMOVE_EMAILS: &str =
    "DELETE FROM user_emails WHERE user = (SELECT position FROM users WHERE provider = ? AND id = ?)";

pub(super) const DELETE: &str = "DELETE FROM users WHERE provider = ? AND id = ?";

pub(super) const BURY: &str = "INSERT INTO tombstones (provider, id, kind, deleted_at) VALUES (?, ?, 'user', ?) \
    ON CONFLICT DO NOTHING";

/// True when another user has the name. Parameters: provider, id (none for a new user), folded name.
pub(super) const TAKEN: &str =
    "SELECT EXISTS (SELECT 1 FROM users WHERE provider = ?1 AND user_name_fold = ?3 AND id IS NOT ?2)";

/// True when another user has the `externalId`. Parameters: provider, id, external id.
pub(super) const SHARES: &str =
    "SELECT EXISTS (SELECT 1 FROM users WHERE provider = ?1 AND external_id = ?3 AND id IS NOT ?2)";

/// Facts from the columns `id, active, user_name, external_id, emails`.
pub(super) fn facts(columns: &mut Columns<'_>) -> Result<UserFacts, StoreError> {
    Ok(UserFacts {
        id: UserId(columns.id()?),
        active: columns.flag()?,
        user_name: columns.text()?,
        external_id: columns.text_or_none()?,
        emails: columns.json()?,
    })
}

pub(super) fn user_row(columns: &mut Columns<'_>) -> Result<UserRecord, StoreError> {
    Ok(UserRecord {
        facts: facts(columns)?,
        resource: columns.json()?,
        version: columns.integer()?,
        created_at: columns.time()?,
        updated_at: columns.time()?,
        shares_external_id: false,
    })
}

/// One user.
pub(crate) fn find(db: &Connection, p: &ProviderName, id: UserId) -> Result<Option<UserRecord>, StoreError> {
    db.first("users", ONE, params![p.as_str(), id.0], user_row)
}

/// Runs a statement that writes unique values; `own`: the user that already has values. When another user has one of
/// them, the error names the attribute.
fn write_unique(
    tx: &Transaction<'_>,
    p: &ProviderName,
    (facts, own): (&UserFacts, Option<UserId>),
    name_fold: &str,
    write: impl FnOnce() -> rusqlite::Result<usize>,
) -> Result<usize, StoreError> {
    let error = match write() {
        Err(error) if is_unique_violation(&error) => error,
        other => return Ok(other?),
    };
    let values = params![p.as_str(), own.map(|id| id.0), name_fold];
    Err(match tx.db.one("users", TAKEN, values, |columns| columns.flag())? {
        true => StoreError::Taken { attribute: "userName" },
        false if own.is_none() && find(tx.db, p, facts.id)?.is_some() => StoreError::Taken { attribute: "id" },
        false => error.into(),
    })
}

/// Whether another user has the `externalId` of this one.
fn shares_external_id(tx: &Transaction<'_>, p: &ProviderName, facts: &UserFacts) -> Result<bool, StoreError> {
    match &facts.external_id {
        Some(id) => tx.db.one("users", SHARES, params![p.as_str(), facts.id.0, id], |columns| columns.flag()),
        None => Ok(false),
    }
}

fn add_emails(tx: &Transaction<'_>, p: &ProviderName, id: UserId, user: &EncodedUser) -> Result<(), StoreError> {
    for (value, kind) in &user.email_keys {
        tx.db.run(ADD_EMAIL, params![p.as_str(), id.0, value, kind])?;
    }
    Ok(())
}

/// Stores a user.
pub(crate) fn create(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    o: &Origin,
    quota: &Quota,
    user: NewUser,
    encoded: &EncodedUser,
) -> Result<UserRecord, StoreError> {
    let NewUser { resource, facts } = user;
    let id = facts.id;
    tx.grow(p, quota, Usage { users: 1, bytes: size(&encoded.resource), ..Usage::default() }, Growth::Plain)?;
    write_unique(tx, p, (&facts, None), &encoded.user_name_fold, || {
        tx.db.prepare_cached(CREATE)?.execute(params![
            p.as_str(),
            id.0,
            facts.active,
            facts.user_name,
            encoded.user_name_fold,
            facts.external_id,
            encoded.emails,
            encoded.resource,
            tx.now_nanos(),
            encoded.employee_number_fold
        ])
    })?;
    add_emails(tx, p, id, encoded)?;
    let mut causes = vec![tx.event(p, &DirectoryChange::User(facts.for_access()))?];
    causes.extend(members::join_waiting(tx, p, id.0, Some(id))?);
    causes.extend(meant::renamed(tx, p, None, facts.external_id.as_deref())?);
    tx.audit(AuditDraft::directory(tx.now, p, o, "user.create", &id.to_string(), causes).named(&facts.user_name));
    let shares_external_id = shares_external_id(tx, p, &facts)?;
    Ok(UserRecord { resource, facts, version: 1, created_at: tx.now, updated_at: tx.now, shares_external_id })
}

/// Writes the new state of `before`, if that is still the stored state; none otherwise.
pub(crate) fn update(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    o: &Origin,
    quota: &Quota,
    before: &UserRecord,
    update: UserUpdate,
    encoded: &EncodedUser,
) -> Result<Option<UserRecord>, StoreError> {
    let UserUpdate { resource, facts } = update;
    let id = before.facts.id;
    let version = before.version + 1;
    let growth = if before.facts.active && !facts.active { Growth::Deactivates } else { Growth::Plain };
    let grown = size(&encoded.resource) - encoded.replaced_size;
    let written = write_unique(tx, p, (&facts, Some(id)), &encoded.user_name_fold, || {
        tx.db.prepare_cached(UPDATE)?.execute(params![
            facts.active,
            facts.external_id,
            encoded.emails,
            encoded.resource,
            version,
            tx.now_nanos(),
            encoded.employee_number_fold,
            p.as_str(),
            id.0,
            before.version
        ])
    })?;
    if written == 0 {
        return Ok(None);
    }
    tx.grow(p, quota, Usage { bytes: grown, ..Usage::default() }, growth)?;
    if facts.user_name != before.facts.user_name {
        write_unique(tx, p, (&facts, Some(id)), &encoded.user_name_fold, || {
            let values = params![facts.user_name, encoded.user_name_fold, p.as_str(), id.0];
            tx.db.prepare_cached(RENAME)?.execute(values)
        })?;
    }
    if facts.emails != before.facts.emails {
        tx.db.run(REMOVE_EMAILS, params![p.as_str(), id.0])?;
        add_emails(tx, p, id, encoded)?;
    }
    let mut causes = Vec::new();
    let access = facts.for_access();
    if access != before.facts.for_access() {
        causes.push(tx.event(p, &DirectoryChange::User(access))?);
    }
    if before.facts.active && !facts.active {
        // Before the change of the `externalId` is followed, so that nobody else gets what waited for the leaver.
        meant::forgotten(tx, p, before.facts.external_id.as_deref())?;
        meant::forgotten(tx, p, facts.external_id.as_deref())?;
    }
    causes.extend(meant::renamed(tx, p, before.facts.external_id.as_deref(), facts.external_id.as_deref())?);
    let action = match (before.facts.active, facts.active) {
        (true, false) => "user.deactivate",
        (false, true) => "user.activate",
        _ => "user.update",
    };
    tx.audit(AuditDraft::directory(tx.now, p, o, action, &id.to_string(), causes).named(&facts.user_name));
    let shares_external_id = facts.external_id != before.facts.external_id && shares_external_id(tx, p, &facts)?;
    let (created_at, updated_at) = (before.created_at, tx.now);
    Ok(Some(UserRecord { resource, facts, version, created_at, updated_at, shares_external_id }))
}

/// Deletes a user with all memberships.
pub(crate) fn delete(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    o: &Origin,
    id: UserId,
    if_version: Option<i64>,
) -> Result<DeleteOutcome, StoreError> {
    let Some(before) = find(tx.db, p, id)? else { return Ok(DeleteOutcome::NotFound) };
    if if_version.is_some_and(|version| version != before.version) {
        return Ok(DeleteOutcome::VersionDiffers);
    }
    meant::forgotten(tx, p, before.facts.external_id.as_deref())?;
    let members = members::leave_all(tx, p, id.0)?;
    let change = Usage { users: -1, members: -members, bytes: -size(&json(&before.resource)?), ..Usage::default() };
    tx.count(p, change);
    tx.db.run(DELETE, params![p.as_str(), id.0])?;
    tx.db.run(BURY, params![p.as_str(), id.0, tx.now_nanos()])?;
    let cause = tx.event(p, &DirectoryChange::UserDeleted { id })?;
    tx.audit(
        AuditDraft::directory(tx.now, p, o, "user.delete", &id.to_string(), vec![cause]).named(&before.facts.user_name),
    );
    Ok(DeleteOutcome::Deleted)
}
