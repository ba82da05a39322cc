//! Members named by `externalId`: who is meant, and whom the waiting ones belong to.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::Transaction;
use super::members;
use super::query::Query as _;
use crate::model::{GroupId, MemberChange, MemberChanges, ProviderName, Seq};
use crate::scim::member_id;
use crate::store::{StoreError, Usage};

/// Largest number of ids that wait in one group.
pub(crate) const MAX_PENDING: usize = 10_000;

/// Rows of a table whose `externalId` is an id in mixed case. `?2`: the id in lower case.
macro_rules! with_mixed_external_id {
    ($what:literal, $table:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM ",
            $table,
            " INDEXED BY ",
            $table,
            "_by_mixed_external_id WHERE provider = ?1 AND lower(external_id) = ?2 AND length(external_id) = 36 \
             AND external_id <> lower(external_id) AND external_id <> upper(external_id)"
        )
    };
}
pub(super) use with_mixed_external_id;

/// Two of the users and groups that have an `externalId`. The texts are the id in lower and upper case, and as given. An
/// `externalId` in the form of an id is compared without case, since a member that waits has the id only.
pub(super) const MEANT: &str = concat!(
    "SELECT id, TRUE FROM users WHERE provider = ?1 AND external_id IN (?2, ?3, ?4) \
     UNION ALL SELECT id, FALSE FROM groups WHERE provider = ?1 AND external_id IN (?2, ?3, ?4) UNION ALL ",
    with_mixed_external_id!("id, TRUE", "users"),
    " AND external_id <> ?4 UNION ALL ",
    with_mixed_external_id!("id, FALSE", "groups"),
    " AND external_id <> ?4 LIMIT 2"
);

/// True when an id waits in a group.
pub(super) const WAITS_IN: &str = "SELECT EXISTS (SELECT 1 FROM members \
    WHERE provider = ? AND group_id = ? AND member_id = ? AND kind = 'pending')";

/// Ends the wait of an id. Returns the groups in which it waited.
pub(super) const CEASE: &str = "DELETE FROM members INDEXED BY members_by_member \
    WHERE provider = ? AND member_id = ? AND kind = 'pending' RETURNING group_id";

/// Makes somebody a member.
const JOIN: &str =
    "INSERT INTO members (provider, group_id, member_id, kind) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";

/// The ids that wait in a group, up to a number.
const WAITING: &str = "SELECT member_id FROM members INDEXED BY members_pending \
    WHERE provider = ? AND group_id = ? AND kind = 'pending' LIMIT ?";

/// True when more ids wait in a group than a number.
const CROWDED: &str = "SELECT EXISTS (SELECT 1 FROM members INDEXED BY members_pending \
    WHERE provider = ? AND group_id = ? AND kind = 'pending' LIMIT 1 OFFSET ?)";

/// The resource that a member id names when no resource has this `id`.
pub(super) enum Meant {
    Nobody,
    /// The only one with this `externalId`; whether it is a user.
    One(Uuid, bool),
    Several,
}

/// The resource whose `externalId` is the given member id.
pub(super) fn meant(
    db: &Connection,
    p: &ProviderName,
    id: Uuid,
    texts: &BTreeMap<Uuid, String>,
) -> Result<Meant, StoreError> {
    let lower = id.to_string();
    let given = texts.get(&id).unwrap_or(&lower);
    let values = params![p.as_str(), lower, lower.to_uppercase(), given];
    let found = db.all("members", MEANT, values, |columns| Ok((columns.id()?, columns.flag()?)))?;
    Ok(match found.as_slice() {
        [] => Meant::Nobody,
        [(id, user)] => Meant::One(*id, *user),
        _ => Meant::Several,
    })
}

/// Those of the ids in changes that mean somebody else by the `externalId`, and who that is. `group`: the group that is
/// changed, whose members need no look-up.
///
/// # Errors
/// [`StoreError::TooManyPending`].
pub(crate) fn resolve(
    db: &Connection,
    p: &ProviderName,
    group: Option<GroupId>,
    changes: &MemberChanges,
) -> Result<BTreeMap<Uuid, Uuid>, StoreError> {
    /// Number of look-ups that cost about as much as reading a large group.
    const FEW: usize = 100;
    let lists = || {
        changes.list.iter().map(|change| match change {
            MemberChange::Add(ids) | MemberChange::Replace(ids) => (ids.as_slice(), true),
            MemberChange::Remove(ids) => (ids.as_slice(), false),
            MemberChange::Clear => (&[][..], false),
        })
    };
    let mut ids = BTreeMap::new();
    for (list, wanted) in lists() {
        for id in list {
            *ids.entry(*id).or_insert(false) |= wanted;
        }
    }
    let there = match group {
        Some(group) if ids.len() > FEW => members::everybody(db, p, group, usize::MAX)?,
        _ => BTreeSet::new(),
    };
    let exact = changes.list.iter().any(|change| matches!(change, MemberChange::Replace(_) | MemberChange::Clear));
    let waiting = group.map_or_else(|| Ok(BTreeSet::new()), |group| waiting(db, p, group))?;
    let stay = |id: &&Uuid| !exact || ids.get(*id).is_some_and(|wanted| *wanted);
    let mut pending = waiting.iter().filter(stay).count();
    let mut resolved = BTreeMap::new();
    for (id, wanted) in ids {
        let waits = waiting.contains(&id);
        // Where the list is not replaced, the writer ends the wait of a name whose owner is the only one by now.
        if (waits && !exact) || (!waits && (there.contains(&id) || members::is_known(db, p, id)?)) {
            continue;
        }
        match meant(db, p, id, &changes.texts)? {
            Meant::One(other, _) => {
                pending -= usize::from(waits && wanted);
                resolved.insert(id, other);
            }
            Meant::Nobody | Meant::Several => pending += usize::from(wanted && !waits),
        }
    }
    if pending > MAX_PENDING { Err(StoreError::TooManyPending { limit: MAX_PENDING }) } else { Ok(resolved) }
}

/// The ids that wait in a group.
fn waiting(db: &Connection, p: &ProviderName, group: GroupId) -> Result<BTreeSet<Uuid>, StoreError> {
    let limit = i64::try_from(MAX_PENDING).unwrap_or(i64::MAX);
    let values = params![p.as_str(), group.0, limit];
    Ok(db.all("members", WAITING, values, |columns| columns.id())?.into_iter().collect())
}

/// Those of these ids that wait in a group.
pub(super) fn waiting_among(
    db: &Connection,
    p: &ProviderName,
    group: GroupId,
    ids: impl Iterator<Item = Uuid>,
) -> Result<Vec<Uuid>, StoreError> {
    let mut waiting = Vec::new();
    if !crowded(db, p, group, 0)? {
        return Ok(waiting);
    }
    for id in ids {
        if db.one("members", WAITS_IN, params![p.as_str(), group.0, id], |columns| columns.flag())? {
            waiting.push(id);
        }
    }
    Ok(waiting)
}

/// True when more ids than `limit` wait in a group.
fn crowded(db: &Connection, p: &ProviderName, group: GroupId, limit: usize) -> Result<bool, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    db.one("members", CROWDED, params![p.as_str(), group.0, limit], |columns| columns.flag())
}

/// Checks that no more ids wait in a group than are kept.
pub(super) fn bounded(db: &Connection, p: &ProviderName, group: GroupId) -> Result<(), StoreError> {
    if crowded(db, p, group, MAX_PENDING)? {
        return Err(StoreError::TooManyPending { limit: MAX_PENDING });
    }
    Ok(())
}

/// Ends the wait of a name; returns the groups in which it waited.
fn cease(tx: &mut Transaction<'_>, p: &ProviderName, name: Uuid) -> Result<Vec<Uuid>, StoreError> {
    let groups = tx.db.all("members", CEASE, params![p.as_str(), name], |columns| columns.id())?;
    let members = -i64::try_from(groups.len()).unwrap_or(i64::MAX);
    tx.count(p, Usage { members, ..Usage::default() });
    Ok(groups)
}

/// Follows a change of an `externalId`: the only one who has it now becomes a member of the groups in which it waits.
/// Returns the positions of the events.
pub(super) fn renamed(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<Vec<Seq>, StoreError> {
    let mut seqs = Vec::new();
    if before != after {
        for external_id in before.into_iter().chain(after) {
            seqs.extend(join_named(tx, p, external_id)?);
        }
    }
    Ok(seqs)
}

/// Ends the wait of an `externalId` whose owner leaves, so that it never becomes access of the next one who has it.
pub(super) fn forgotten(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    external_id: Option<&str>,
) -> Result<(), StoreError> {
    if let Some(external_id) = external_id {
        cease(tx, p, member_id(external_id))?;
    }
    Ok(())
}

/// Makes the only one who has an `externalId` a member of the groups in which it waits. Returns the positions of the
/// events.
fn join_named(tx: &mut Transaction<'_>, p: &ProviderName, external_id: &str) -> Result<Vec<Seq>, StoreError> {
    let name = member_id(external_id);
    let texts = BTreeMap::from([(name, external_id.to_owned())]);
    if !tx.db.one("members", members::WAITS, params![p.as_str(), name], |columns| columns.flag())? {
        return Ok(vec![]);
    }
    let Meant::One(id, user) = meant(tx.db, p, name, &texts)? else { return Ok(vec![]) };
    let mut groups = cease(tx, p, name)?;
    groups.sort_unstable();
    let kind = if user { "user" } else { "group" };
    let mut seqs = Vec::new();
    for group in groups {
        if tx.db.run(JOIN, params![p.as_str(), group, id, kind])? == 0 {
            continue;
        }
        tx.count(p, Usage { members: 1, ..Usage::default() });
        tx.db.run(members::JOINED, params![tx.now_nanos(), p.as_str(), group])?;
        seqs.push(tx.event(p, &members::joined(GroupId(group), id, user))?);
    }
    Ok(seqs)
}
