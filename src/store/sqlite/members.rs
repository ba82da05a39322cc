//! Memberships: rows, changed by deltas. No statement costs more for a larger group, unless all of the group is
//! requested or replaced. The planner does not know the sizes and would scan the tenant, so statements name the index
//! that finds a member.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::Transaction;
use super::meant::{Meant, bounded, meant, waiting_among, with_mixed_external_id};
use super::query::{Columns, Query as _};
use crate::model::{DirectoryChange, GroupId, ProviderName, Seq, UserId};
use crate::store::audit::AuditDraft;
use crate::store::encoding::json;
use crate::store::membership::Slice;
use crate::store::{MemberDelta, MemberKind, MemberRecord, Origin, StoreError, Usage, UserGroup};

/// Largest number of ids in one event.
const CHUNK: usize = 1000;

// The CASE determines the kind of an id at this provider; an id of another provider is unknown here.
pub(super) const ADD: &str = "INSERT INTO members (provider, group_id, member_id, kind) VALUES (?1, ?2, ?3, CASE \
        WHEN EXISTS (SELECT 1 FROM users u WHERE u.provider = ?1 AND u.id = ?3) THEN 'user' \
        WHEN EXISTS (SELECT 1 FROM groups g WHERE g.provider = ?1 AND g.id = ?3) THEN 'group' \
        ELSE 'pending' END) \
    ON CONFLICT DO NOTHING RETURNING kind";

pub(super) const REMOVE: &str =
    "DELETE FROM members WHERE provider = ? AND group_id = ? AND member_id = ? RETURNING kind";

/// Removes everybody but some. One statement, so that the group is scanned once; the ids are JSON since a statement has
/// a fixed number of parameters.
pub(super) const RETAIN: &str = "DELETE FROM members WHERE provider = ?1 AND group_id = ?2 \
    AND member_id NOT IN (SELECT unhex(value) FROM json_each(?3)) RETURNING member_id, kind";

/// True when an id is that of a user or group of this provider.
pub(super) const KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM users WHERE provider = ?1 AND id = ?2) \
    OR EXISTS (SELECT 1 FROM groups WHERE provider = ?1 AND id = ?2)";

/// True when a text that is not the id of anybody here is another name of somebody here. Given in lower case.
pub(super) const NAMES_SOMEBODY: &str = concat!(
    "SELECT EXISTS (SELECT 1 FROM users WHERE provider = ?1 AND external_id IN (?2, upper(?2))) \
     OR EXISTS (SELECT 1 FROM users WHERE provider = ?1 AND user_name_fold = ?2) \
     OR EXISTS (SELECT 1 FROM groups WHERE provider = ?1 AND external_id IN (?2, upper(?2))) \
     OR EXISTS (SELECT 1 FROM groups WHERE provider = ?1 AND display_name_fold = ?2) OR EXISTS (",
    with_mixed_external_id!("1", "users"),
    ") OR EXISTS (",
    with_mixed_external_id!("1", "groups"),
    ")"
);

/// Those of a list of ids, as JSON, that are groups.
pub(super) const GROUPS_AMONG: &str =
    "SELECT g.id FROM json_each(?2) j CROSS JOIN groups g ON g.provider = ?1 AND g.id = unhex(j.value)";

/// True when an id is in a group, even if only parked.
pub(super) const PRESENT: &str =
    "SELECT EXISTS (SELECT 1 FROM members WHERE provider = ? AND group_id = ? AND member_id = ?)";

/// Everybody in a group, including parked ids, up to a number.
pub(super) const EVERYBODY: &str = "SELECT member_id FROM members WHERE provider = ? AND group_id = ? LIMIT ?";

pub(super) const LEAVE: &str = "UPDATE groups SET member_count = member_count - 1, version = version + 1, updated_at = ?3 \
    WHERE provider = ?1 AND id IN (SELECT group_id FROM members INDEXED BY members_by_member \
        WHERE provider = ?1 AND member_id = ?2 AND kind <> 'pending')";

pub(super) const REMOVE_EVERYWHERE: &str =
    "DELETE FROM members INDEXED BY members_by_member WHERE provider = ? AND member_id = ?";

/// Makes a parked id a member. Returns the groups that waited for it.
pub(super) const JOIN_WAITING: &str = "UPDATE members INDEXED BY members_by_member SET kind = ?3 \
    WHERE provider = ?1 AND member_id = ?2 AND kind = 'pending' RETURNING group_id";

/// True when an id waits in a group.
pub(super) const WAITS: &str = "SELECT EXISTS (SELECT 1 FROM members INDEXED BY members_by_member \
    WHERE provider = ? AND member_id = ? AND kind = 'pending')";

pub(super) const JOINED: &str = "UPDATE groups SET member_count = member_count + 1, version = version + 1, updated_at = ? \
    WHERE provider = ? AND id = ?";

/// Levels of groups in groups that are followed from a group, as for access.
const LEVELS: usize = 10;

/// The groups that a user is in, itself or through other groups, in the order of their creation. A group is found at
/// most once on each level, so that as many rows as `?3` are of at least `?3` / 11 groups.
pub(super) const GROUPS: &str = "WITH RECURSIVE around (id, level) AS ( \
        SELECT group_id, 0 FROM members INDEXED BY members_by_member \
            WHERE provider = ?1 AND member_id = ?2 AND kind <> 'pending' \
        UNION SELECT m.group_id, around.level + 1 FROM around CROSS JOIN members m INDEXED BY members_by_member \
            ON m.provider = ?1 AND m.member_id = around.id AND m.kind <> 'pending' WHERE around.level < 10 LIMIT ?3) \
    SELECT g.id, g.display_name, EXISTS (SELECT 1 FROM members \
        WHERE provider = ?1 AND group_id = g.id AND member_id = ?2 AND kind <> 'pending') \
    FROM (SELECT DISTINCT id FROM around) found CROSS JOIN groups g ON g.provider = ?1 AND g.id = found.id \
    ORDER BY g.position";

/// The number of those groups, of the user at a position.
pub(super) const COUNT_GROUPS: &str = "WITH RECURSIVE around (id, level) AS ( \
        SELECT m.group_id, 0 FROM users u CROSS JOIN members m INDEXED BY members_by_member \
            ON m.provider = ?1 AND m.member_id = u.id AND m.kind <> 'pending' WHERE u.position = ?2 AND +u.provider = ?1 \
        UNION SELECT m.group_id, around.level + 1 FROM around CROSS JOIN members m INDEXED BY members_by_member \
            ON m.provider = ?1 AND m.member_id = around.id AND m.kind <> 'pending' WHERE around.level < 10 LIMIT ?3) \
    SELECT count(DISTINCT id) FROM around";

/// The name of a user, as it is shown to others.
pub(super) const USER_DISPLAY: &str = "SELECT coalesce(resource ->> '$.displayName', resource ->> '$.name.formatted', user_name) \
    FROM users WHERE provider = ? AND id = ?";

pub(super) const GROUP_DISPLAY: &str = "SELECT display_name FROM groups WHERE provider = ? AND id = ?";

#[cfg(test)]
pub(super) const MEMBERSHIPS: &str = "SELECT g.id, g.display_name FROM members m INDEXED BY members_by_member \
    CROSS JOIN groups g ON g.provider = m.provider AND g.id = m.group_id \
    WHERE m.provider = ? AND m.member_id = ? AND m.kind <> 'pending' ORDER BY g.position";

/// The kind of object that a membership row refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowKind {
    User,
    Group,
    Pending,
}

impl RowKind {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "user" => Some(Self::User),
            "group" => Some(Self::Group),
            "pending" => Some(Self::Pending),
            _ => None,
        }
    }
}

/// The sum of several changes of one group's membership.
#[derive(Default)]
pub(super) struct Net {
    /// +1: added. -1: removed. 0: unchanged in sum.
    rows: BTreeMap<Uuid, (RowKind, i32)>,
}

impl Net {
    fn note(&mut self, id: Uuid, kind: RowKind, sign: i32) {
        self.rows.entry(id).or_insert((kind, 0)).1 += sign;
    }

    /// Adds or removes ids one by one, and records those for which this made a difference.
    fn change(
        &mut self,
        db: &Connection,
        sql: &str,
        (p, group): (&ProviderName, GroupId),
        ids: &[Uuid],
        sign: i32,
    ) -> Result<(), StoreError> {
        for id in ids {
            let values = params![p.as_str(), group.0, id];
            for kind in db.all("members", sql, values, |columns| columns.word(RowKind::from_word))? {
                self.note(*id, kind, sign);
            }
        }
        Ok(())
    }

    fn of(&self, kind: RowKind, sign: i32) -> impl Iterator<Item = Uuid> {
        self.rows.iter().filter(move |(_, entry)| **entry == (kind, sign)).map(|(id, _)| *id)
    }

    /// True when nothing changed.
    pub(super) fn is_nothing(&self) -> bool {
        self.rows.values().all(|(_, sum)| *sum == 0)
    }

    /// The growth of the memberships, in rows.
    pub(super) fn usage(&self) -> Usage {
        Usage { members: self.rows.values().map(|(_, sum)| i64::from(*sum)).sum(), ..Usage::default() }
    }

    /// True when somebody was removed.
    pub(super) fn takes_away(&self) -> bool {
        self.rows.values().any(|(_, sum)| *sum < 0)
    }

    /// The counts, given the former number of members.
    pub(super) fn delta(&self, before: u64) -> MemberDelta {
        let count = |kind, sign| self.of(kind, sign).count() as u64;
        let nested = count(RowKind::Group, 1);
        let added = count(RowKind::User, 1) + nested;
        let removed = count(RowKind::User, -1) + count(RowKind::Group, -1);
        let after = (before + added).saturating_sub(removed);
        MemberDelta { before, after, added, removed, nested, parked: count(RowKind::Pending, 1) }
    }

    /// Appends the events and the audit rows.
    pub(super) fn log(
        &self,
        tx: &mut Transaction<'_>,
        p: &ProviderName,
        o: &Origin,
        group: GroupId,
        delta: MemberDelta,
    ) -> Result<(), StoreError> {
        let nested = |sign| self.of(RowKind::Group, sign).map(GroupId).collect::<Vec<_>>();
        let (nests, ceases) = (nested(1), nested(-1));
        let users = |sign| self.of(RowKind::User, sign).map(UserId).collect::<Vec<_>>();
        let (added, removed) = (users(1), users(-1));
        // Whoever moves between direct and nested membership is in the group after each event: what brings people through
        // other groups comes first, and what ends that comes last.
        let mut added_seqs = events(tx, p, &nests, |added| DirectoryChange::Nested { group, added, removed: vec![] })?;
        let mut removed_seqs = Vec::new();
        if added.len() + removed.len() <= CHUNK && !added.is_empty() && !removed.is_empty() {
            let both = vec![tx.event(p, &DirectoryChange::Members { group, added, removed })?];
            removed_seqs.extend(&both);
            added_seqs.extend(both);
        } else {
            // Removals first, because they are urgent.
            removed_seqs.extend(events(tx, p, &removed, |removed| DirectoryChange::Members {
                group,
                added: vec![],
                removed,
            })?);
            added_seqs.extend(events(tx, p, &added, |added| DirectoryChange::Members {
                group,
                added,
                removed: vec![],
            })?);
        }
        removed_seqs.extend(events(tx, p, &ceases, |removed| DirectoryChange::Nested {
            group,
            added: vec![],
            removed,
        })?);
        let mut audit = |action: &str, count: u64, only: Option<Uuid>, causes: Vec<Seq>| -> Result<(), StoreError> {
            if count > 0 {
                let mut detail = serde_json::json!({"count": count, "before": delta.before, "after": delta.after});
                if let Some(id) = only.filter(|_| count == 1) {
                    detail["member"] = id.to_string().into();
                }
                let draft = AuditDraft::directory(tx.now, p, o, action, &group.to_string(), causes);
                tx.audit(draft.with_detail(json(&detail)?));
            }
            Ok(())
        };
        let one = |sign| self.of(RowKind::User, sign).chain(self.of(RowKind::Group, sign)).next();
        audit("group.member.remove", delta.removed, one(-1), removed_seqs)?;
        audit("group.member.add", delta.added, one(1), added_seqs)?;
        audit("group.member.park", delta.parked, self.of(RowKind::Pending, 1).next(), vec![])
    }
}

fn events<Id: Copy>(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    ids: &[Id],
    change: impl Fn(Vec<Id>) -> DirectoryChange,
) -> Result<Vec<Seq>, StoreError> {
    ids.chunks(CHUNK).map(|chunk| tx.event(p, &change(chunk.to_vec()))).collect()
}

/// Applies the changes of one request.
pub(super) fn apply(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    group: GroupId,
    slice: &Slice,
) -> Result<Net, StoreError> {
    let mut net = Net::default();
    if slice.only {
        let values = params![p.as_str(), group.0, id_list(&slice.add)];
        let removed =
            tx.db.all("members", RETAIN, values, |columns| Ok((columns.id()?, columns.word(RowKind::from_word)?)))?;
        for (id, kind) in removed {
            net.note(id, kind, -1);
        }
    }
    net.change(tx.db, REMOVE, (p, group), &slice.remove, -1)?;
    let mut absent: Vec<Uuid> = slice.unsure.iter().copied().filter(|id| !net.rows.contains_key(id)).collect();
    // One that is removed and added again is there.
    let there = present(tx.db, p, group, &absent)?;
    absent.retain(|id| !there.contains(id));
    for id in absent {
        match stranger(tx.db, p, id, &slice.texts)? {
            Some(other) => net.change(tx.db, REMOVE, (p, group), &[other], -1)?,
            None => nobody_else_is_meant(tx.db, p, &[id])?,
        }
    }
    // A name that waited is meant as the only one who has it by now.
    let unparked: Vec<Uuid> = net.of(RowKind::Pending, -1).filter(|id| slice.remove.contains(id)).collect();
    for id in unparked {
        if let Meant::One(other, _) = meant(tx.db, p, id, &slice.texts)? {
            net.change(tx.db, REMOVE, (p, group), &[other], -1)?;
        }
    }
    net.change(tx.db, ADD, (p, group), &slice.add, 1)?;
    let parked: Vec<Uuid> = net.of(RowKind::Pending, 1).collect();
    let there = slice.add.iter().copied().filter(|id| !net.rows.contains_key(id));
    let waiting = waiting_among(tx.db, p, group, there)?;
    for id in parked.iter().chain(&waiting) {
        if let Meant::One(other, _) = meant(tx.db, p, *id, &slice.texts)? {
            net.change(tx.db, REMOVE, (p, group), &[*id], -1)?;
            net.change(tx.db, ADD, (p, group), &[other], 1)?;
        }
    }
    if !parked.is_empty() {
        bounded(tx.db, p, group)?;
    }
    Ok(net)
}

/// The only one whose `externalId` is an id that is not the id of anybody.
fn stranger(
    db: &Connection,
    p: &ProviderName,
    id: Uuid,
    texts: &BTreeMap<Uuid, String>,
) -> Result<Option<Uuid>, StoreError> {
    if is_known(db, p, id)? {
        return Ok(None);
    }
    Ok(match meant(db, p, id, texts)? {
        Meant::One(other, _) => Some(other),
        Meant::Nobody | Meant::Several => None,
    })
}

/// Ids as a text for `json_each` and `unhex`.
fn id_list(ids: &[Uuid]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{}\"", id.simple())).collect();
    format!("[{}]", ids.join(","))
}

/// True when a user or group with this id exists.
pub(super) fn is_known(db: &Connection, p: &ProviderName, id: Uuid) -> Result<bool, StoreError> {
    db.one("members", KNOWN, params![p.as_str(), id], |columns| columns.flag())
}

/// Refuses to ignore ids to remove that are not in the group and were not issued by this server: a member may be meant
/// by its name, and would stay.
pub(crate) fn nobody_else_is_meant(db: &Connection, p: &ProviderName, absent: &[Uuid]) -> Result<(), StoreError> {
    for id in absent {
        // Version 8 represents a text that is not an id at all.
        let elsewhere = id.get_version_num() == 8
            || !is_known(db, p, *id)?
                && db.one("members", NAMES_SOMEBODY, params![p.as_str(), id.to_string()], |columns| columns.flag())?;
        if elsewhere {
            return Err(StoreError::NotAMember);
        }
    }
    Ok(())
}

/// The event of a user, or else a group, that became a member of a group.
pub(super) fn joined(group: GroupId, member: Uuid, is_user: bool) -> DirectoryChange {
    if is_user {
        DirectoryChange::Members { group, added: vec![UserId(member)], removed: vec![] }
    } else {
        DirectoryChange::Nested { group, added: vec![GroupId(member)], removed: vec![] }
    }
}

/// Makes an id that now exists a member of the groups that waited for it; `user`: the id is that of this user. Returns
/// the positions of the events.
pub(super) fn join_waiting(
    tx: &mut Transaction<'_>,
    p: &ProviderName,
    id: Uuid,
    user: Option<UserId>,
) -> Result<Vec<Seq>, StoreError> {
    let kind = if user.is_some() { "user" } else { "group" };
    let mut groups = tx.db.all("members", JOIN_WAITING, params![p.as_str(), id, kind], |columns| columns.id())?;
    groups.sort_unstable();
    let now = tx.now_nanos();
    let mut seqs = Vec::new();
    for group in groups {
        tx.db.run(JOINED, params![now, p.as_str(), group])?;
        seqs.push(tx.event(p, &joined(GroupId(group), id, user.is_some()))?);
    }
    Ok(seqs)
}

/// Number of memberships of a group, including those of unknown ids.
pub(super) fn count(db: &Connection, p: &ProviderName, group: GroupId) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM members WHERE provider = ? AND group_id = ?";
    db.one("members", sql, params![p.as_str(), group.0], |columns| columns.integer())
}

/// Ends all memberships of an id that is about to be deleted; returns their number.
pub(super) fn leave_all(tx: &mut Transaction<'_>, p: &ProviderName, id: Uuid) -> Result<i64, StoreError> {
    tx.db.run(LEAVE, params![p.as_str(), id, tx.now_nanos()])?;
    let removed = tx.db.run(REMOVE_EVERYWHERE, params![p.as_str(), id])?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}

fn member_row(columns: &mut Columns<'_>) -> Result<MemberRecord, StoreError> {
    let id = columns.id()?;
    let kind = columns.word(|word| match word {
        "user" => Some(MemberKind::User),
        "group" => Some(MemberKind::Group),
        _ => None,
    })?;
    Ok(MemberRecord { id, kind })
}

/// The first id of each list that is known at this provider; none where there is none.
pub(crate) fn witnesses(
    db: &Connection,
    p: &ProviderName,
    lists: &[Vec<Uuid>],
) -> Result<Vec<Option<Uuid>>, StoreError> {
    let witness = |list: &Vec<Uuid>| {
        for id in list {
            if is_known(db, p, *id)? {
                return Ok(Some(*id));
            }
        }
        Ok(None)
    };
    lists.iter().map(witness).collect()
}

/// Those of `ids` that are groups.
pub(crate) fn groups_among(db: &Connection, p: &ProviderName, ids: &[Uuid]) -> Result<BTreeSet<Uuid>, StoreError> {
    let all = db.all("groups", GROUPS_AMONG, params![p.as_str(), id_list(ids)], |columns| columns.id())?;
    Ok(all.into_iter().collect())
}

/// Those of `ids` that are in a group, including parked ones.
pub(crate) fn present(
    db: &Connection,
    p: &ProviderName,
    group: GroupId,
    ids: &[Uuid],
) -> Result<BTreeSet<Uuid>, StoreError> {
    let mut present = BTreeSet::new();
    for id in ids {
        if db.one("members", PRESENT, params![p.as_str(), group.0, id], |columns| columns.flag())? {
            present.insert(*id);
        }
    }
    Ok(present)
}

/// The ids of everybody in a group, including parked ones; at most `limit`.
pub(crate) fn everybody(
    db: &Connection,
    p: &ProviderName,
    group: GroupId,
    limit: usize,
) -> Result<BTreeSet<Uuid>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let ids = db.all("members", EVERYBODY, params![p.as_str(), group.0, limit], |columns| columns.id())?;
    Ok(ids.into_iter().collect())
}

/// The members of a group, without unknown ids, in the order of their ids after `after`; at most `limit`.
pub(crate) fn members_after(
    db: &Connection,
    p: &ProviderName,
    group: GroupId,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<MemberRecord>, StoreError> {
    let after = after.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
    let sql = "SELECT member_id, kind FROM members WHERE provider = ? AND group_id = ? AND member_id > ? \
        AND kind <> 'pending' ORDER BY member_id LIMIT ?";
    db.all("members", sql, params![p.as_str(), group.0, after, limit], member_row)
}

/// The number of rows in which there are at least this many groups.
fn rows_of(groups: usize) -> i64 {
    i64::try_from(groups.saturating_mul(LEVELS + 1)).unwrap_or(i64::MAX)
}

/// The groups that a user is in; none for no limit.
pub(crate) fn groups_of(
    db: &Connection,
    p: &ProviderName,
    id: UserId,
    limit: Option<usize>,
) -> Result<Vec<UserGroup>, StoreError> {
    let limit = limit.map_or(-1, rows_of);
    db.all("members", GROUPS, params![p.as_str(), id.0, limit], |columns| {
        Ok(UserGroup { id: GroupId(columns.id()?), display_name: columns.text()?, direct: columns.flag()? })
    })
}

/// The number of groups of each of the users at these positions, up to `limit`.
pub(crate) fn count_groups(
    db: &Connection,
    p: &ProviderName,
    positions: &[i64],
    limit: usize,
) -> Result<Vec<u64>, StoreError> {
    let limit = rows_of(limit);
    let count = |position| {
        db.one("members", COUNT_GROUPS, params![p.as_str(), position, limit], |columns: &mut Columns<'_>| {
            columns.count()
        })
    };
    positions.iter().map(count).collect()
}

/// The names of those of these users and groups that exist.
pub(crate) fn display_names(
    db: &Connection,
    p: &ProviderName,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, String>, StoreError> {
    let mut names = HashMap::new();
    for id in ids {
        for sql in [USER_DISPLAY, GROUP_DISPLAY] {
            if let Some(name) = db.first("users", sql, params![p.as_str(), id], |columns| columns.text())? {
                names.insert(*id, name);
                break;
            }
        }
    }
    Ok(names)
}

/// The groups that a user or group is a direct member of, in the order of their creation.
#[cfg(test)]
pub(crate) fn memberships(
    db: &Connection,
    p: &ProviderName,
    id: Uuid,
) -> Result<Vec<crate::store::record::Membership>, StoreError> {
    db.all("groups", MEMBERSHIPS, params![p.as_str(), id], |columns| {
        Ok(crate::store::record::Membership { group: GroupId(columns.id()?), display_name: columns.text()? })
    })
}
