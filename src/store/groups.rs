//! Groups: rows without their members, their events and audit rows.

use sqlx::query;
use sqlx::sqlite::SqliteRow;

use super::audit::AuditDraft;
use super::committer::{Touched, Transaction};
use super::list::{self, Kind};
use super::members;
use super::quota::Growth;
use super::sql::{Columns, fold, json, size};
use super::{
    Counts, DeleteOutcome, GroupChanged, GroupRecord, GroupUpdate, ListPlan, ListQuery, MemberChange, NewGroup, Origin,
    Page, Quota, Store, StoreError, UpdateOutcome, Usage,
};
use crate::model::{DirectoryChange, GroupFacts, GroupId, ProviderName};

/// What [`group_row`] reads.
pub(super) const COLUMNS: &str =
    "id, display_name, external_id, resource, member_count, version, created_at, updated_at";

pub(super) const ONE: &str = "SELECT id, display_name, external_id, resource, member_count, version, created_at, updated_at \
    FROM groups WHERE provider = ? AND id = ?";

pub(super) const CREATE: &str = "\
    INSERT INTO groups (provider, id, display_name, display_name_fold, external_id, resource, member_count, version, \
        created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, 0, 1, ?, ?); \
    UPDATE members INDEXED BY members_by_member SET kind = 'group' WHERE provider = ? AND member_id = ? AND kind = 'pending' RETURNING group_id";

pub(super) const SET_COUNT: &str = "UPDATE groups SET member_count = ? WHERE provider = ? AND id = ?";

// Without the indexed columns, so that a change of members touches no index.
pub(super) const UPDATE_MEMBERS: &str = "UPDATE groups SET member_count = ?, version = ?, updated_at = ? \
    WHERE provider = ? AND id = ?";

pub(super) const UPDATE: &str = "UPDATE groups SET display_name = ?, display_name_fold = ?, external_id = ?, resource = ?, \
    member_count = ?, version = ?, updated_at = ? WHERE provider = ? AND id = ?";

// The memberships of the group go with it by the foreign key.
pub(super) const DELETE: &str = "\
    DELETE FROM groups WHERE provider = ? AND id = ?; \
    INSERT INTO tombstones (provider, id, kind, deleted_at) VALUES (?, ?, 'group', ?) ON CONFLICT DO NOTHING";

/// Facts from the columns `id, display_name, external_id`.
pub(super) fn facts(columns: &mut Columns) -> Result<GroupFacts, StoreError> {
    Ok(GroupFacts { id: GroupId(columns.id()?), display_name: columns.text()?, external_id: columns.text_or_none()? })
}

fn group_row(row: &SqliteRow) -> Result<GroupRecord, StoreError> {
    let mut columns = Columns::of(row, "groups");
    Ok(GroupRecord {
        facts: facts(&mut columns)?,
        resource: columns.json()?,
        member_count: columns.count()?,
        version: columns.integer()?,
        created_at: columns.time()?,
        updated_at: columns.time()?,
    })
}

fn stored_count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn create(
    tx: &mut Transaction,
    p: &ProviderName,
    o: &Origin,
    quota: &Quota,
    group: NewGroup,
) -> Result<GroupChanged, StoreError> {
    let NewGroup { resource, facts, members } = group;
    let text = json(&resource)?;
    tx.grow(p, quota, Usage { groups: 1, bytes: size(&text), ..Usage::default() }, Growth::Plain).await?;
    let id = facts.id;
    let bytes = id.0.as_bytes().as_slice();
    let now = tx.now_nanos();
    let promoted = query(CREATE)
        .bind(p.as_str())
        .bind(bytes)
        .bind(&facts.display_name)
        .bind(fold(&facts.display_name))
        .bind(&facts.external_id)
        .bind(text)
        .bind(now)
        .bind(now)
        .bind(p.as_str())
        .bind(bytes)
        .fetch_all(&mut tx.connection)
        .await?;
    if !promoted.is_empty() {
        members::promoted(tx, p, &promoted, None).await?;
    }
    let cause = tx.event(p, &DirectoryChange::Group(facts.clone()))?;
    tx.audit(
        AuditDraft::directory(tx.now, p, o, "group.create", id.to_string(), vec![cause]).named(&facts.display_name),
    );
    let mut delta = super::MemberDelta::default();
    if !members.is_empty() {
        let net = members::apply(tx, p, id, &[MemberChange::Add(members)]).await?;
        tx.grow(p, quota, net.usage(), Growth::Plain).await?;
        delta = net.delta(0);
        net.log(tx, p, o, id, delta)?;
        let count = stored_count(delta.after);
        query(SET_COUNT).bind(count).bind(p.as_str()).bind(bytes).execute(&mut tx.connection).await?;
    }
    let group =
        GroupRecord { resource, facts, member_count: delta.after, version: 1, created_at: tx.now, updated_at: tx.now };
    Ok(GroupChanged { group, members: delta })
}

async fn read(tx: &mut Transaction, p: &ProviderName, id: GroupId) -> Result<Option<GroupRecord>, StoreError> {
    let row = tx.group(p, id).await?;
    row.as_ref().map(group_row).transpose()
}

async fn update<E>(
    tx: &mut Transaction,
    p: &ProviderName,
    o: &Origin,
    id: GroupId,
    quota: &Quota,
    change: impl FnOnce(&GroupRecord) -> Result<GroupUpdate, E> + Send,
) -> Result<UpdateOutcome<GroupChanged, E>, StoreError> {
    let Some(before) = read(tx, p, id).await? else { return Ok(UpdateOutcome::NotFound) };
    let GroupUpdate { resource, facts, members } = match change(&before) {
        Ok(update) => update,
        Err(refusal) => return Ok(UpdateOutcome::Refused(refusal)),
    };
    let resource = resource.filter(|resource| *resource != before.resource);
    let facts = facts.filter(|facts| *facts != before.facts);
    if facts.as_ref().is_some_and(|facts| facts.id != id) {
        return Err(StoreError::Internal { problem: "an update tried to change the id of a group".to_owned() });
    }
    let net = members::apply(tx, p, id, &members).await?;
    let delta = net.delta(before.member_count);
    let renamed = resource.is_some() || facts.is_some();
    if !renamed && net.is_nothing() {
        return Ok(UpdateOutcome::Unchanged(GroupChanged { group: before, members: delta }));
    }
    let bytes = match &resource {
        Some(resource) => size(&json(resource)?) - size(&json(&before.resource)?),
        None => 0,
    };
    let growth = if net.takes_away() { Growth::TakesAway } else { Growth::Plain };
    tx.grow(p, quota, Usage { bytes, ..net.usage() }, growth).await?;

    let group = GroupRecord {
        member_count: delta.after,
        version: before.version + 1,
        updated_at: tx.now,
        created_at: before.created_at,
        resource: resource.unwrap_or(before.resource),
        facts: facts.clone().unwrap_or(before.facts),
    };
    if renamed {
        query(UPDATE)
            .bind(&group.facts.display_name)
            .bind(fold(&group.facts.display_name))
            .bind(&group.facts.external_id)
            .bind(json(&group.resource)?)
            .bind(stored_count(group.member_count))
            .bind(group.version)
            .bind(tx.now_nanos())
            .bind(p.as_str())
            .bind(id.0.as_bytes().as_slice())
            .execute(&mut tx.connection)
            .await?;
        let causes = match facts {
            Some(facts) => vec![tx.event(p, &DirectoryChange::Group(facts))?],
            None => vec![],
        };
        let draft = AuditDraft::directory(tx.now, p, o, "group.update", id.to_string(), causes);
        tx.audit(draft.named(&group.facts.display_name));
    }
    net.log(tx, p, o, id, delta)?;
    if !renamed {
        let (member_count, version) = (stored_count(group.member_count), group.version);
        tx.touch(Touched { provider: p.clone(), group: id, member_count, version });
    }
    Ok(UpdateOutcome::Changed(GroupChanged { group, members: delta }))
}

async fn delete(
    tx: &mut Transaction,
    p: &ProviderName,
    o: &Origin,
    id: GroupId,
    if_version: Option<i64>,
) -> Result<DeleteOutcome, StoreError> {
    let Some(before) = read(tx, p, id).await? else { return Ok(DeleteOutcome::NotFound) };
    if if_version.is_some_and(|version| version != before.version) {
        return Ok(DeleteOutcome::VersionDiffers);
    }
    let members = members::leave_all(tx, p, id.0).await? + members::count(tx, p, id).await?;
    let change = Usage { groups: -1, members: -members, bytes: -size(&json(&before.resource)?), ..Usage::default() };
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
    let cause = tx.event(p, &DirectoryChange::GroupDeleted { id })?;
    let detail = json(&serde_json::json!({"count": before.member_count}))?;
    tx.audit(
        AuditDraft::directory(tx.now, p, o, "group.delete", id.to_string(), vec![cause])
            .named(&before.facts.display_name)
            .with_detail(detail),
    );
    Ok(DeleteOutcome::Deleted)
}

impl Store {
    /// Stores a group. `displayName` (without regard to case), `externalId` and id must be free with this provider.
    /// Unknown member ids are parked, and become members when they exist.
    ///
    /// # Errors
    /// [`StoreError::Taken`].
    pub async fn create_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        group: NewGroup,
    ) -> Result<GroupChanged, StoreError> {
        let (p, o, quota) = (p.clone(), o.clone(), self.quota());
        self.committer().commit(move |tx| Box::pin(async move { create(tx, &p, &o, &quota, group).await })).await
    }

    /// One group, without its members.
    pub async fn group(&self, p: &ProviderName, id: GroupId) -> Result<Option<GroupRecord>, StoreError> {
        let id = id.0.as_bytes().as_slice();
        let row = query(ONE).bind(p.as_str()).bind(id).fetch_optional(self.readers()).await?;
        row.as_ref().map(group_row).transpose()
    }

    /// Reads, changes and writes a group inside one transaction, all of the update or nothing. `change` runs in the
    /// writer's task, so it should be quick. The members are never loaded: adding one to a group of 100,000 costs what
    /// it costs for a group of 100.
    ///
    /// # Errors
    /// [`StoreError::Taken`]; [`StoreError::NoKnownMember`].
    pub async fn update_group<E: Send + 'static>(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        change: impl FnOnce(&GroupRecord) -> Result<GroupUpdate, E> + Send + 'static,
    ) -> Result<UpdateOutcome<GroupChanged, E>, StoreError> {
        let (p, o, quota) = (p.clone(), o.clone(), self.quota());
        let first = (p.clone(), id);
        self.committer()
            .commit_on(first, move |tx| Box::pin(async move { update(tx, &p, &o, id, &quota, change).await }))
            .await
    }

    /// Deletes a group with its memberships; the id is never known again. `if_version`: only in this version
    /// (`If-Match`).
    pub async fn delete_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        let (p, o) = (p.clone(), o.clone());
        self.committer().commit(move |tx| Box::pin(async move { delete(tx, &p, &o, id, if_version).await })).await
    }

    /// Groups that match, without their members, in the order of their creation.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedFilter`] when no index answers the condition.
    pub async fn groups(&self, p: &ProviderName, q: &ListQuery) -> Result<Page<GroupRecord>, StoreError> {
        list::page(self.readers(), Kind::Groups, p, q, group_row).await
    }

    /// Which groups [`Store::groups`] would answer, and how large they are.
    ///
    /// # Errors
    /// As [`Store::groups`].
    pub async fn plan_groups(&self, p: &ProviderName, q: &ListQuery) -> Result<ListPlan, StoreError> {
        list::plan(self.readers(), Kind::Groups, p, q).await
    }

    /// The groups at these positions that are still there, without their members.
    pub async fn groups_at(&self, p: &ProviderName, positions: &[i64]) -> Result<Vec<GroupRecord>, StoreError> {
        list::at(self.readers(), Kind::Groups, p, positions, group_row).await
    }

    /// How large the directory of one provider is.
    pub async fn counts(&self, p: &ProviderName) -> Result<Counts, StoreError> {
        let row = query(
            "SELECT coalesce((SELECT users FROM counters WHERE provider = ?1), 0), \
                    coalesce((SELECT groups FROM counters WHERE provider = ?1), 0), \
                    (SELECT count(*) FROM members WHERE provider = ?1 AND kind = 'pending')",
        )
        .bind(p.as_str())
        .fetch_one(self.readers())
        .await?;
        let mut columns = Columns::of(&row, "counters");
        Ok(Counts { users: columns.count()?, groups: columns.count()?, pending: columns.count()? })
    }
}
