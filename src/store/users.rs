//! Users: rows, their e-mail look-up, their events and audit rows.

use serde_json::Value;
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use super::audit::AuditDraft;
use super::committer::{Ticket, Transaction};
use super::lanes::cost;
use super::list;
use super::members;
use super::quota::Growth;
use super::sql::{Columns, fold, json, size};
use super::{
    ATTEMPTS, DeleteOutcome, ListQuery, NewUser, Origin, Page, Quota, Store, StoreError, UpdateOutcome, Usage,
    UserRecord, UserUpdate, changes_too_often,
};
use crate::model::{DirectoryChange, EmailFact, ProviderName, UserFacts, UserId};
use crate::scim::ResourceType;

/// What [`user_row`] reads.
pub(super) const COLUMNS: &str =
    "id, active, user_name, external_id, emails, resource, version, created_at, updated_at";

pub(super) const ONE: &str = "SELECT id, active, user_name, external_id, emails, resource, version, created_at, updated_at \
    FROM users WHERE provider = ? AND id = ?";

pub(super) const CREATE: &str = "\
    INSERT INTO users (provider, id, active, user_name, user_name_fold, external_id, emails, resource, version, \
        created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?); \
    INSERT INTO user_emails (user, value_fold, kind_fold, provider) \
        SELECT last_insert_rowid(), value ->> 0, value ->> 1, ? FROM json_each(?) WHERE true ON CONFLICT DO NOTHING; \
    UPDATE members INDEXED BY members_by_member SET kind = 'user' WHERE provider = ? AND member_id = ? AND kind = 'pending' RETURNING group_id";

pub(super) const UPDATE: &str = "UPDATE users SET active = ?, external_id = ?, emails = ?, resource = ?, version = ?, \
    updated_at = ? WHERE provider = ? AND id = ? AND version = ?";

pub(super) const RENAME: &str = "UPDATE users SET user_name = ?, user_name_fold = ? WHERE provider = ? AND id = ?";

pub(super) const REPLACE_EMAILS: &str = "\
    DELETE FROM user_emails WHERE user = (SELECT position FROM users WHERE provider = ? AND id = ?); \
    INSERT INTO user_emails (user, value_fold, kind_fold, provider) \
        SELECT u.position, e.value ->> 0, e.value ->> 1, u.provider \
        FROM users u CROSS JOIN json_each(?) e WHERE u.provider = ? AND u.id = ? ON CONFLICT DO NOTHING";

pub(super) const DELETE: &str = "\
    DELETE FROM users WHERE provider = ? AND id = ?; \
    INSERT INTO tombstones (provider, id, kind, deleted_at) VALUES (?, ?, 'user', ?) ON CONFLICT DO NOTHING";

/// Facts from the columns `id, active, user_name, external_id, emails`.
pub(super) fn facts(columns: &mut Columns) -> Result<UserFacts, StoreError> {
    Ok(UserFacts {
        id: UserId(columns.id()?),
        active: columns.integer()? != 0,
        user_name: columns.text()?,
        external_id: columns.text_or_none()?,
        emails: columns.json()?,
    })
}

fn user_row(row: &SqliteRow) -> Result<UserRecord, StoreError> {
    let mut columns = Columns::of(row, "users");
    Ok(UserRecord {
        facts: facts(&mut columns)?,
        resource: columns.json()?,
        version: columns.integer()?,
        created_at: columns.time()?,
        updated_at: columns.time()?,
    })
}

/// The look-up rows of e-mail addresses: folded value, folded kind.
fn email_keys(emails: &[EmailFact]) -> Result<String, StoreError> {
    let keys: Vec<_> =
        emails.iter().map(|email| (fold(&email.value), fold(email.kind.as_deref().unwrap_or_default()))).collect();
    json(&keys)
}

/// A user in the form in which it is written: made before the writer is asked.
struct Columned {
    resource: String,
    emails: String,
    email_keys: String,
    user_name_fold: String,
    /// How long the resource was that it replaces.
    was: i64,
}

impl Columned {
    fn new(resource: &Value, facts: &UserFacts) -> Result<Self, StoreError> {
        Ok(Self {
            resource: json(resource)?,
            emails: json(&facts.emails)?,
            email_keys: email_keys(&facts.emails)?,
            user_name_fold: fold(&facts.user_name),
            was: 0,
        })
    }

    /// The turn at the writer that this takes.
    fn ticket(&self, p: &ProviderName, facts: &UserFacts) -> Ticket {
        let bytes = self.resource.len() + self.emails.len() * 2 + self.email_keys.len();
        Ticket::provider(p, cost(facts.emails.len(), bytes))
    }
}

async fn create(
    tx: &mut Transaction,
    p: &ProviderName,
    o: &Origin,
    quota: &Quota,
    user: NewUser,
    columned: Columned,
) -> Result<UserRecord, StoreError> {
    let NewUser { resource, facts } = user;
    let id = facts.id;
    tx.grow(p, quota, Usage { users: 1, bytes: size(&columned.resource), ..Usage::default() }, Growth::Plain).await?;
    let now = tx.now_nanos();
    let promoted = query(CREATE)
        .bind(p.as_str())
        .bind(id.0.as_bytes().as_slice())
        .bind(facts.active)
        .bind(&facts.user_name)
        .bind(columned.user_name_fold)
        .bind(&facts.external_id)
        .bind(columned.emails)
        .bind(columned.resource)
        .bind(now)
        .bind(now)
        .bind(p.as_str())
        .bind(columned.email_keys)
        .bind(p.as_str())
        .bind(id.0.as_bytes().as_slice())
        .fetch_all(&mut tx.connection)
        .await?;
    let mut causes = vec![tx.event(p, &DirectoryChange::User(facts.for_access()))?];
    if !promoted.is_empty() {
        causes.extend(members::promoted(tx, p, &promoted, Some(id)).await?);
    }
    tx.audit(AuditDraft::directory(tx.now, p, o, "user.create", &id.to_string(), causes).named(&facts.user_name));
    Ok(UserRecord { resource, facts, version: 1, created_at: tx.now, updated_at: tx.now })
}

async fn read(tx: &mut Transaction, p: &ProviderName, id: UserId) -> Result<Option<UserRecord>, StoreError> {
    let row = query(ONE).bind(p.as_str()).bind(id.0.as_bytes().as_slice()).fetch_optional(&mut tx.connection).await?;
    row.as_ref().map(user_row).transpose()
}

/// Writes what `before` becomes, if it is still what is stored; none otherwise.
async fn update(
    tx: &mut Transaction,
    p: &ProviderName,
    o: &Origin,
    quota: &Quota,
    before: UserRecord,
    update: UserUpdate,
    columned: Columned,
) -> Result<Option<UserRecord>, StoreError> {
    let UserUpdate { resource, facts } = update;
    let id = before.facts.id;
    let bytes = id.0.as_bytes().as_slice();
    let version = before.version + 1;
    let growth = if before.facts.active && !facts.active { Growth::Deactivates } else { Growth::Plain };
    let grown = size(&columned.resource) - columned.was;
    let written = query(UPDATE)
        .bind(facts.active)
        .bind(&facts.external_id)
        .bind(columned.emails)
        .bind(columned.resource)
        .bind(version)
        .bind(tx.now_nanos())
        .bind(p.as_str())
        .bind(bytes)
        .bind(before.version)
        .execute(&mut tx.connection)
        .await?;
    if written.rows_affected() == 0 {
        return Ok(None);
    }
    tx.grow(p, quota, Usage { bytes: grown, ..Usage::default() }, growth).await?;
    if facts.user_name != before.facts.user_name {
        query(RENAME)
            .bind(&facts.user_name)
            .bind(columned.user_name_fold)
            .bind(p.as_str())
            .bind(bytes)
            .execute(&mut tx.connection)
            .await?;
    }
    if facts.emails != before.facts.emails {
        query(REPLACE_EMAILS)
            .bind(p.as_str())
            .bind(bytes)
            .bind(columned.email_keys)
            .bind(p.as_str())
            .bind(bytes)
            .execute(&mut tx.connection)
            .await?;
    }
    let mut causes = Vec::new();
    let access = facts.for_access();
    if access != before.facts.for_access() {
        causes.push(tx.event(p, &DirectoryChange::User(access))?);
    }
    let action = match (before.facts.active, facts.active) {
        (true, false) => "user.deactivate",
        (false, true) => "user.activate",
        _ => "user.update",
    };
    tx.audit(AuditDraft::directory(tx.now, p, o, action, &id.to_string(), causes).named(&facts.user_name));
    Ok(Some(UserRecord { resource, facts, version, updated_at: tx.now, ..before }))
}

async fn delete(
    tx: &mut Transaction,
    p: &ProviderName,
    o: &Origin,
    id: UserId,
    if_version: Option<i64>,
) -> Result<DeleteOutcome, StoreError> {
    let Some(before) = read(tx, p, id).await? else { return Ok(DeleteOutcome::NotFound) };
    if if_version.is_some_and(|version| version != before.version) {
        return Ok(DeleteOutcome::VersionDiffers);
    }
    let members = members::leave_all(tx, p, id.0).await?;
    let change = Usage { users: -1, members: -members, bytes: -size(&json(&before.resource)?), ..Usage::default() };
    tx.count(p, change);
    let bytes = id.0.as_bytes().as_slice();
    query(DELETE)
        .bind(p.as_str())
        .bind(bytes)
        .bind(p.as_str())
        .bind(bytes)
        .bind(tx.now_nanos())
        .execute(&mut tx.connection)
        .await?;
    let cause = tx.event(p, &DirectoryChange::UserDeleted { id })?;
    tx.audit(
        AuditDraft::directory(tx.now, p, o, "user.delete", &id.to_string(), vec![cause]).named(&before.facts.user_name),
    );
    Ok(DeleteOutcome::Deleted)
}

impl Store {
    /// Stores a user. `userName` (without regard to case), `externalId` and id must be free with this provider. Groups
    /// that were told of the id before have it as a member from now on.
    ///
    /// # Errors
    /// [`StoreError::Taken`], [`StoreError::QuotaExceeded`].
    pub async fn create_user(&self, p: &ProviderName, o: &Origin, user: NewUser) -> Result<UserRecord, StoreError> {
        let columned = Columned::new(&user.resource, &user.facts)?;
        let ticket = columned.ticket(p, &user.facts);
        let (p, o, quota) = (p.clone(), o.clone(), self.quota());
        self.committer()
            .commit_as(ticket, move |tx| Box::pin(async move { create(tx, &p, &o, &quota, user, columned).await }))
            .await
    }

    /// One user.
    pub async fn user(&self, p: &ProviderName, id: UserId) -> Result<Option<UserRecord>, StoreError> {
        let id = id.0.as_bytes().as_slice();
        let row = query(ONE).bind(p.as_str()).bind(id).fetch_optional(self.readers()).await?;
        row.as_ref().map(user_row).transpose()
    }

    /// Reads, changes and writes a user. `change` answers what the user becomes, or none for "no change"; it runs in the
    /// caller's task, so that it keeps nobody else waiting, and once more for each time that somebody else changed the user
    /// in between. The same resource and facts are no change either.
    ///
    /// # Errors
    /// [`StoreError::Taken`]; [`StoreError::Unavailable`], when the user never stays the same for long enough.
    pub async fn update_user<E: Send>(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: UserId,
        mut change: impl FnMut(&UserRecord) -> Result<Option<UserUpdate>, E> + Send,
    ) -> Result<UpdateOutcome<UserRecord, E>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(before) = self.user(p, id).await? else { return Ok(UpdateOutcome::NotFound) };
            let next = match change(&before) {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(UpdateOutcome::Unchanged(before)),
                Err(refusal) => return Ok(UpdateOutcome::Refused(refusal)),
            };
            if next.facts.id != id {
                return Err(StoreError::Internal { problem: "an update tried to change the id of a user".to_owned() });
            }
            if next.facts == before.facts && next.resource == before.resource {
                return Ok(UpdateOutcome::Unchanged(before));
            }
            let mut columned = Columned::new(&next.resource, &next.facts)?;
            columned.was = size(&json(&before.resource)?);
            let ticket = columned.ticket(p, &next.facts);
            let (p, o, quota) = (p.clone(), o.clone(), self.quota());
            let written = self
                .committer()
                .commit_as(ticket, move |tx| {
                    Box::pin(async move { update(tx, &p, &o, &quota, before, next, columned).await })
                })
                .await?;
            if let Some(user) = written {
                return Ok(UpdateOutcome::Changed(user));
            }
            self.note_retry();
        }
        Err(changes_too_often())
    }

    /// Deletes a user with all memberships; the id is never known again. `if_version`: only in this version
    /// (`If-Match`).
    pub async fn delete_user(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: UserId,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        let (p, o) = (p.clone(), o.clone());
        let ticket = Ticket::provider(&p, cost(0, 0));
        self.committer()
            .commit_as(ticket, move |tx| Box::pin(async move { delete(tx, &p, &o, id, if_version).await }))
            .await
    }

    /// Users that match, in the order of their creation.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedFilter`] when no index answers the filter.
    pub async fn users(&self, p: &ProviderName, q: &ListQuery) -> Result<Page<UserRecord>, StoreError> {
        list::page(self.readers(), ResourceType::User, p, q, user_row).await
    }

    /// The users at these positions that are still there.
    pub async fn users_at(&self, p: &ProviderName, positions: &[i64]) -> Result<Vec<UserRecord>, StoreError> {
        list::at(self.readers(), ResourceType::User, p, positions, user_row).await
    }
}
