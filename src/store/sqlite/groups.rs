//! Groups: rows without their members, their events and audit rows.

use rusqlite::{Connection, params};

use super::Transaction;
use super::meant;
use super::members;
use super::query::{Columns, Query as _, is_unique_violation};
use crate::model::{DirectoryChange, GroupFacts, GroupId, ProviderName};
use crate::store::audit::AuditDraft;
use crate::store::encoding::{fold_name, json, size};
use crate::store::groups::{Step, Stepped};
use crate::store::membership::Slice;
use crate::store::quota::Growth;
use crate::store::{DeleteOutcome, GroupChanged, GroupRecord, MemberDelta, NewGroup, Origin, Quota, StoreError, Usage};

/// The columns that [`group_row`] reads.
pub(super) const COLUMNS: &str =
    "id, display_name, external_id, resource, member_count, version, created_at, updated_at";

pub(super) const ONE: &str = "SELECT id, display_name, external_id, resource, member_count, version, created_at, updated_at \
    FROM groups WHERE provider = ? AND id = ?";

pub(super) const CREATE: &str = "INSERT INTO groups (provider, id, display_name, display_name_fold, external_id, resource, \
    member_count, version, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, 0, 1, ?7, ?7)";

pub(super) const SET_COUNT: &str = "UPDATE groups SET member_count = ? WHERE provider = ? AND id = ?";

// Without the names, so that a change of members touches no index but that of `updated_at`.
pub(super) const UPDATE_MEMBERS: &str = "UPDATE groups SET member_count = ?, version = ?, updated_at = ? \
    WHERE provider = ? AND id = ?";

// A name that stays keeps its fold, which is not the folded name where an older database had two that are equal now.
pub(super) const UPDATE: &str = "UPDATE groups SET display_name = ?1, \
    display_name_fold = CASE WHEN display_name = ?1 THEN display_name_fold ELSE ?2 END, external_id = ?3, resource = ?4, \
    member_count = ?5, version = ?6, updated_at = ?7 WHERE provider = ?8 AND id = ?9";

// The memberships of the group are deleted by the foreign key.
pub(super) const DELETE: &str = "DELETE FROM groups WHERE provider = ? AND id = ?";

pub(super) const BURY: &str = "INSERT INTO tombstones (provider, id, kind, deleted_at) VALUES (?, ?, 'group', ?) \
    ON CONFLICT DO NOTHING";

/// True when another group has the name. Parameters: provider, id (none for a new group), folded name.
pub(super) const TAKEN: &str =
    "SELECT EXISTS (SELECT 1 FROM groups WHERE provider = ?1 AND display_name_fold = ?3 AND id IS NOT ?2)";

/// True when another group has the `externalId`. Parameters: provider, id, external id.
pub(super) const SHARES: &str =
    "SELECT EXISTS (SELECT 1 FROM groups WHERE provider = ?1 AND external_id = ?3 AND id IS NOT ?2)";

/// Facts from the columns `id, display_name, external_id`.
pub(super) fn facts(columns: &mut Columns<'_>) -> Result<GroupFacts, StoreError> {
    Ok(GroupFacts { id: GroupId(columns.id()?), display_name: columns.text()?, external_id: columns.text_or_none()? })
}

pub(super) fn group_row(columns: &mut Columns<'_>) -> Result<GroupRecord, StoreError> {
    Ok(GroupRecord {
        facts: facts(columns)?,
        resource: columns.json()?,
        member_count: columns.count()?,
        version: columns.integer()?,
        created_at: columns.time()?,
        updated_at: columns.time()?,
        shares_external_id: false,
    })
}

fn stored_count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// One group, without its members.
pub(crate) fn find(db: &Connection, p: &ProviderName, id: GroupId) -> Result<Option<GroupRecord>, StoreError> {
    db.first("groups", ONE, params![p.as_str(), id.0], group_row)
}

/// Runs a statement that writes unique values; `own`: the group that already has values. When another group has one of
/// them, the error names the attribute.
fn write_unique(
    tx: &Transaction<'_>,
    p: &ProviderName,
    (facts, own): (&GroupFacts, Option<GroupId>),
    write: impl FnOnce() -> rusqlite::Result<usize>,
) -> Result<(), StoreError> {
    let error = match write() {
        Err(error) if is_unique_violation(&error) => error,
        other => return Ok(other.map(drop)?),
    };
    let values = params![p.as_str(), own.map(|id| id.0), fold_name(&facts.display_name)];
    Err(match tx.db.one("groups", TAKEN, values, |columns| columns.flag())? {
        true => StoreError::Taken { attribute: "displayName" },
        false if own.is_none() && find(tx.db, p, facts.id)?.is_some() => StoreError::Taken { attribute: "id" },
        false => error.into(),
    })
}

/// Whether another group has the `externalId` of this one.
fn shares_external_id(tx: &Transaction<'_>, p: &ProviderName, facts: &GroupFacts) -> Result<bool, StoreError> {
    match &facts.external_id {
        Some(id) => tx.db.one("groups", SHARES, params![p.as_str(), facts.id.0, id], |columns| columns.flag()),
        None => Ok(false),
    }
}

/// Stores a group with its first members.
pub(crate) fn create(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    o: &Origin,
    quota: &Quota,
    (group, members): (NewGroup, &Slice),
    text: &str,
) -> Result<GroupChanged, StoreError> {
    let NewGroup { resource, facts, .. } = group;
    tx.grow(p, quota, Usage { groups: 1, bytes: size(text), ..Usage::default() }, Growth::Plain)?;
    let id = facts.id;
    write_unique(tx, p, (&facts, None), || {
        tx.db.prepare_cached(CREATE)?.execute(params![
            p.as_str(),
            id.0,
            facts.display_name,
            fold_name(&facts.display_name),
            facts.external_id,
            text,
            tx.now_nanos()
        ])
    })?;
    let mut causes = vec![tx.event(p, &DirectoryChange::Group(facts.clone()))?];
    causes.extend(members::join_waiting(tx, p, id.0, None)?);
    causes.extend(meant::renamed(tx, p, None, facts.external_id.as_deref())?);
    tx.audit(AuditDraft::directory(tx.now, p, o, "group.create", &id.to_string(), causes).named(&facts.display_name));
    let mut delta = MemberDelta::default();
    if !members.add.is_empty() {
        let net = members::apply(tx, p, id, members)?;
        tx.grow(p, quota, net.usage(), Growth::Plain)?;
        delta = net.delta(0);
        net.log(tx, p, o, id, delta)?;
        tx.db.run(SET_COUNT, params![stored_count(delta.after), p.as_str(), id.0])?;
    }
    let group = GroupRecord {
        shares_external_id: shares_external_id(tx, p, &facts)?,
        resource,
        facts,
        member_count: delta.after,
        version: 1,
        created_at: tx.now,
        updated_at: tx.now,
    };
    Ok(GroupChanged { group, members: delta })
}

/// True when the reads that a step is based on are still valid.
fn is_current(tx: &Transaction<'_>, p: &ProviderName, before: &GroupRecord, step: &Step) -> Result<bool, StoreError> {
    let differs = |version: i64| version != before.version;
    if step.version.is_some_and(differs) || step.basis.as_ref().is_some_and(|basis| *basis != before.resource) {
        return Ok(false);
    }
    match step.witness {
        Some(witness) => members::is_known(tx.db, p, witness),
        None => Ok(true),
    }
}

/// Writes one step of a group's change.
pub(crate) fn step(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    o: &Origin,
    id: GroupId,
    quota: &Quota,
    step: Step,
) -> Result<Stepped, StoreError> {
    let Some(before) = find(tx.db, p, id)? else { return Ok(Stepped::NotFound) };
    if !is_current(tx, p, &before, &step)? {
        return Ok(Stepped::Moved);
    }
    let Step { resource, facts, members, .. } = step;
    let net = members::apply(tx, p, id, &members)?;
    let delta = net.delta(before.member_count);
    let renamed = resource.is_some() || facts.is_some();
    if !renamed && net.is_nothing() {
        return Ok(Stepped::Done { changed: false, group: GroupChanged { group: before, members: delta } });
    }
    let bytes = match &resource {
        Some((_, text)) => size(text) - size(&json(&before.resource)?),
        None => 0,
    };
    let growth = if net.takes_away() { Growth::TakesAway } else { Growth::Plain };
    tx.grow(p, quota, Usage { bytes, ..net.usage() }, growth)?;

    let (resource, text) = match resource {
        Some((resource, text)) => (resource, Some(text)),
        None => (before.resource, None),
    };
    let shares_external_id = match &facts {
        Some(facts) => facts.external_id != before.facts.external_id && shares_external_id(tx, p, facts)?,
        None => false,
    };
    let former_external_id = before.facts.external_id.clone();
    let mut group = GroupRecord {
        shares_external_id,
        member_count: delta.after,
        version: before.version + 1,
        updated_at: tx.now,
        created_at: before.created_at,
        resource,
        facts: facts.clone().unwrap_or(before.facts),
    };
    if renamed {
        let text = text.map_or_else(|| json(&group.resource), Ok)?;
        write(tx, p, &group, &text)?;
        let mut causes = match facts {
            Some(facts) => vec![tx.event(p, &DirectoryChange::Group(facts))?],
            None => vec![],
        };
        let (former, now) = (former_external_id.as_deref(), group.facts.external_id.as_deref());
        causes.extend(meant::renamed(tx, p, former, now)?);
        let draft = AuditDraft::directory(tx.now, p, o, "group.update", &id.to_string(), causes);
        tx.audit(draft.named(&group.facts.display_name));
        if former != now
            && let Some(GroupRecord { member_count, version, .. }) = find(tx.db, p, id)?
        {
            // The group may have waited for itself.
            (group.member_count, group.version) = (member_count, version);
        }
    } else {
        let values = params![stored_count(group.member_count), group.version, tx.now_nanos(), p.as_str(), id.0];
        tx.db.run(UPDATE_MEMBERS, values)?;
    }
    net.log(tx, p, o, id, delta)?;
    Ok(Stepped::Done { changed: true, group: GroupChanged { group, members: delta } })
}

fn write(tx: &Transaction<'_>, p: &ProviderName, group: &GroupRecord, text: &str) -> Result<(), StoreError> {
    let facts = &group.facts;
    write_unique(tx, p, (facts, Some(facts.id)), || {
        tx.db.prepare_cached(UPDATE)?.execute(params![
            facts.display_name,
            fold_name(&facts.display_name),
            facts.external_id,
            text,
            stored_count(group.member_count),
            group.version,
            tx.now_nanos(),
            p.as_str(),
            facts.id.0
        ])
    })
}

/// Deletes a group with its memberships.
pub(crate) fn delete(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    o: &Origin,
    id: GroupId,
    if_version: Option<i64>,
) -> Result<DeleteOutcome, StoreError> {
    let Some(before) = find(tx.db, p, id)? else { return Ok(DeleteOutcome::NotFound) };
    if if_version.is_some_and(|version| version != before.version) {
        return Ok(DeleteOutcome::VersionDiffers);
    }
    meant::forgotten(tx, p, before.facts.external_id.as_deref())?;
    let members = members::leave_all(tx, p, id.0)? + members::count(tx.db, p, id)?;
    let change = Usage { groups: -1, members: -members, bytes: -size(&json(&before.resource)?), ..Usage::default() };
    tx.count(p, change);
    tx.db.run(DELETE, params![p.as_str(), id.0])?;
    tx.db.run(BURY, params![p.as_str(), id.0, tx.now_nanos()])?;
    let cause = tx.event(p, &DirectoryChange::GroupDeleted { id })?;
    let detail = json(&serde_json::json!({"count": before.member_count}))?;
    tx.audit(
        AuditDraft::directory(tx.now, p, o, "group.delete", &id.to_string(), vec![cause])
            .named(&before.facts.display_name)
            .with_detail(detail),
    );
    Ok(DeleteOutcome::Deleted)
}
