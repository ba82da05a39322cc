//! Memberships: rows, changed by deltas in SQL. Nothing here costs more for a larger group, unless the whole of it
//! is asked for or replaced. The planner, which knows nothing of the sizes, is told which index finds a member: it would
//! rather walk the tenant.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::query;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uuid::Uuid;

use super::audit::AuditDraft;
use super::committer::Transaction;
use super::sql::{Columns, id_list, json};
use super::{MemberDelta, MemberKind, MemberRecord, Membership, Origin, Store, StoreError, Usage};
use crate::model::{DirectoryChange, GroupId, ProviderName, Seq, UserId};

/// How many ids one event holds at most.
const CHUNK: usize = 1000;

// The CASE decides what an id is with this provider; an id of another provider is unknown here.
pub(super) const ADD: &str = "INSERT INTO members (provider, group_id, member_id, kind) \
    SELECT ?1, ?2, given.id, CASE \
        WHEN EXISTS (SELECT 1 FROM users u WHERE u.provider = ?1 AND u.id = given.id) THEN 'user' \
        WHEN EXISTS (SELECT 1 FROM groups g WHERE g.provider = ?1 AND g.id = given.id) THEN 'group' \
        ELSE 'pending' END \
    FROM (SELECT unhex(value) AS id FROM json_each(?3)) given WHERE true \
    ON CONFLICT DO NOTHING RETURNING member_id, kind";

pub(super) const REMOVE: &str = "DELETE FROM members WHERE provider = ?1 AND group_id = ?2 \
    AND member_id IN (SELECT unhex(value) FROM json_each(?3)) RETURNING member_id, kind";

pub(super) const RETAIN: &str = "DELETE FROM members WHERE provider = ?1 AND group_id = ?2 \
    AND member_id NOT IN (SELECT unhex(value) FROM json_each(?3)) RETURNING member_id, kind";

pub(super) const ANY_KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM (SELECT unhex(value) AS id FROM json_each(?2)) given \
    WHERE EXISTS (SELECT 1 FROM users u WHERE u.provider = ?1 AND u.id = given.id) \
       OR EXISTS (SELECT 1 FROM groups g WHERE g.provider = ?1 AND g.id = given.id))";

// Whether one of these texts, none of which is the id of somebody here, names somebody here in another way. Given in lower case.
pub(super) const NAMES_SOMEBODY: &str = "SELECT EXISTS (SELECT 1 FROM json_each(?2) given \
    WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.provider = ?1 AND u.id = unhex(value, '-')) \
      AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.provider = ?1 AND g.id = unhex(value, '-')) \
      AND (EXISTS (SELECT 1 FROM users u WHERE u.provider = ?1 AND u.external_id IN (value, upper(value))) \
        OR EXISTS (SELECT 1 FROM users u WHERE u.provider = ?1 AND u.user_name_fold = value) \
        OR EXISTS (SELECT 1 FROM groups g WHERE g.provider = ?1 AND g.external_id IN (value, upper(value))) \
        OR EXISTS (SELECT 1 FROM groups g WHERE g.provider = ?1 AND g.display_name_fold = value)))";

pub(super) const KNOWN: &str = "SELECT given.id FROM (SELECT unhex(value) AS id FROM json_each(?2)) given \
    WHERE EXISTS (SELECT 1 FROM users u WHERE u.provider = ?1 AND u.id = given.id) \
       OR EXISTS (SELECT 1 FROM groups g WHERE g.provider = ?1 AND g.id = given.id)";

/// Those of some ids that are in a group, parked ones too.
pub(super) const PRESENT: &str = "SELECT member_id FROM members WHERE provider = ?1 AND group_id = ?2 \
    AND member_id IN (SELECT unhex(value) FROM json_each(?3))";

/// Everybody in a group, parked ids too, up to a number.
pub(super) const EVERYBODY: &str = "SELECT member_id FROM members WHERE provider = ? AND group_id = ? LIMIT ?";

pub(super) const LEAVE_ALL: &str = "\
    UPDATE groups SET member_count = member_count - 1, version = version + 1, updated_at = ? \
        WHERE provider = ? AND id IN \
            (SELECT group_id FROM members INDEXED BY members_by_member \
             WHERE provider = ? AND member_id = ? AND kind <> 'pending'); \
    DELETE FROM members INDEXED BY members_by_member WHERE provider = ? AND member_id = ?";

pub(super) const JOINED: &str = "UPDATE groups SET member_count = member_count + 1, version = version + 1, updated_at = ? \
    WHERE provider = ? AND id IN (SELECT unhex(value) FROM json_each(?))";

pub(super) const MEMBERSHIPS: &str = "SELECT g.id, g.display_name FROM members m INDEXED BY members_by_member \
    CROSS JOIN groups g ON g.provider = m.provider AND g.id = m.group_id \
    WHERE m.provider = ? AND m.member_id = ? AND m.kind <> 'pending' ORDER BY g.position";

/// What a membership row refers to.
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

/// What several changes of one group's membership come to.
#[derive(Default)]
pub(super) struct Net {
    /// +1: became a row. -1: ceased to be one. 0: as before.
    rows: BTreeMap<Uuid, (RowKind, i32)>,
}

impl Net {
    fn note(&mut self, rows: &[SqliteRow], sign: i32) -> Result<(), StoreError> {
        for row in rows {
            let mut columns = Columns::of(row, "members");
            let id = columns.id()?;
            let kind = columns.word(RowKind::from_word)?;
            self.rows.entry(id).or_insert((kind, 0)).1 += sign;
        }
        Ok(())
    }

    fn of(&self, kind: RowKind, sign: i32) -> impl Iterator<Item = Uuid> {
        self.rows.iter().filter(move |(_, entry)| **entry == (kind, sign)).map(|(id, _)| *id)
    }

    /// Is everything as before?
    pub(super) fn is_nothing(&self) -> bool {
        self.rows.values().all(|(_, sum)| *sum == 0)
    }

    /// By how many rows the memberships grow.
    pub(super) fn usage(&self) -> Usage {
        Usage { members: self.rows.values().map(|(_, sum)| i64::from(*sum)).sum(), ..Usage::default() }
    }

    /// Whether somebody ceased to be a member.
    pub(super) fn takes_away(&self) -> bool {
        self.rows.values().any(|(_, sum)| *sum < 0)
    }

    /// The counts, given how many members there were.
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
        tx: &mut Transaction,
        p: &ProviderName,
        o: &Origin,
        group: GroupId,
        delta: MemberDelta,
    ) -> Result<(), StoreError> {
        let users = |sign| self.of(RowKind::User, sign).map(UserId).collect::<Vec<_>>();
        let (added, removed) = (users(1), users(-1));
        let removed_seqs;
        let added_seqs;
        if added.len() + removed.len() <= CHUNK && !added.is_empty() && !removed.is_empty() {
            let both = vec![tx.event(p, &DirectoryChange::Members { group, added, removed })?];
            removed_seqs = both.clone();
            added_seqs = both;
        } else {
            // Removals first: they are the urgent half.
            removed_seqs =
                events(tx, p, &removed, |removed| DirectoryChange::Members { group, added: vec![], removed })?;
            added_seqs = events(tx, p, &added, |added| DirectoryChange::Members { group, added, removed: vec![] })?;
        }
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

fn events(
    tx: &mut Transaction,
    p: &ProviderName,
    ids: &[UserId],
    change: impl Fn(Vec<UserId>) -> DirectoryChange,
) -> Result<Vec<Seq>, StoreError> {
    ids.chunks(CHUNK).map(|chunk| tx.event(p, &change(chunk.to_vec()))).collect()
}

/// What one turn at the writer does to the membership of a group.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// All but those that are added cease to be members.
    pub(super) only: bool,
    pub(super) remove: Vec<Uuid>,
    /// Of those that cease to be members: those that may be meant otherwise when they are none.
    pub(super) unsure: Vec<Uuid>,
    pub(super) add: Vec<Uuid>,
}

impl Slice {
    /// How many ids it has.
    pub(super) fn len(&self) -> usize {
        self.remove.len() + self.unsure.len() + self.add.len()
    }
}

/// Applies what one turn does.
pub(super) async fn apply(
    tx: &mut Transaction,
    p: &ProviderName,
    group: GroupId,
    slice: &Slice,
) -> Result<Net, StoreError> {
    let mut net = Net::default();
    if slice.only {
        net.note(&run(tx, RETAIN, p, group, &slice.add).await?, -1)?;
    }
    if !slice.remove.is_empty() {
        net.note(&run(tx, REMOVE, p, group, &slice.remove).await?, -1)?;
    }
    let absent: Vec<Uuid> = slice.unsure.iter().copied().filter(|id| !net.rows.contains_key(id)).collect();
    if !absent.is_empty() {
        nobody_else_is_meant(&mut tx.connection, p, &absent).await?;
    }
    if !slice.add.is_empty() {
        net.note(&run(tx, ADD, p, group, &slice.add).await?, 1)?;
    }
    Ok(net)
}

async fn run(
    tx: &mut Transaction,
    sql: &'static str,
    p: &ProviderName,
    group: GroupId,
    ids: &[Uuid],
) -> Result<Vec<SqliteRow>, StoreError> {
    let group = group.0.as_bytes().as_slice();
    Ok(query(sql).bind(p.as_str()).bind(group).bind(id_list(ids)).fetch_all(&mut tx.connection).await?)
}

/// Whether a user or group of this id is there.
pub(super) async fn is_known(tx: &mut Transaction, p: &ProviderName, id: Uuid) -> Result<bool, StoreError> {
    let row = query(ANY_KNOWN).bind(p.as_str()).bind(id_list(&[id])).fetch_one(&mut tx.connection).await?;
    Ok(Columns::of(&row, "members").integer()? != 0)
}

/// Refuses to pass over members to remove which the group does not have when they are no ids of this server: a member may
/// be meant by its name, and would stay.
pub(super) async fn nobody_else_is_meant(
    connection: &mut SqliteConnection,
    p: &ProviderName,
    absent: &[Uuid],
) -> Result<(), StoreError> {
    // Version 8 stands for a text that is no id at all.
    let mut elsewhere = absent.iter().any(|id| id.get_version_num() == 8);
    if !elsewhere && !absent.is_empty() {
        let texts: Vec<String> = absent.iter().map(Uuid::to_string).collect();
        let row = query(NAMES_SOMEBODY).bind(p.as_str()).bind(json(&texts)?).fetch_one(connection).await?;
        elsewhere = Columns::of(&row, "members").integer()? != 0;
    }
    if elsewhere { Err(StoreError::NotAMember) } else { Ok(()) }
}

/// Groups that were waiting for an id that now exists: `rows` holds their ids. Answers the positions of the events,
/// which there are for users only.
pub(super) async fn promoted(
    tx: &mut Transaction,
    p: &ProviderName,
    rows: &[SqliteRow],
    user: Option<UserId>,
) -> Result<Vec<Seq>, StoreError> {
    let mut groups = rows.iter().map(|row| Columns::of(row, "members").id()).collect::<Result<Vec<_>, _>>()?;
    groups.sort_unstable();
    let now = tx.now_nanos();
    query(JOINED).bind(now).bind(p.as_str()).bind(id_list(&groups)).execute(&mut tx.connection).await?;
    let Some(user) = user else { return Ok(vec![]) };
    groups
        .into_iter()
        .map(|group| {
            let change = DirectoryChange::Members { group: GroupId(group), added: vec![user], removed: vec![] };
            tx.event(p, &change)
        })
        .collect()
}

/// How many memberships a group has, those of ids that are not known included.
pub(super) async fn count(tx: &mut Transaction, p: &ProviderName, group: GroupId) -> Result<i64, StoreError> {
    let statement = query("SELECT count(*) FROM members WHERE provider = ? AND group_id = ?");
    let row = statement.bind(p.as_str()).bind(group.0.as_bytes().as_slice()).fetch_one(&mut tx.connection).await?;
    Columns::of(&row, "members").integer()
}

/// Ends all memberships of an id that is about to be deleted; answers how many there were.
pub(super) async fn leave_all(tx: &mut Transaction, p: &ProviderName, id: Uuid) -> Result<i64, StoreError> {
    let id = id.as_bytes().as_slice();
    let statement =
        query("SELECT count(*) FROM members INDEXED BY members_by_member WHERE provider = ? AND member_id = ?");
    let row = statement.bind(p.as_str()).bind(id).fetch_one(&mut tx.connection).await?;
    let members = Columns::of(&row, "members").integer()?;
    query(LEAVE_ALL)
        .bind(tx.now_nanos())
        .bind(p.as_str())
        .bind(p.as_str())
        .bind(id)
        .bind(p.as_str())
        .bind(id)
        .execute(&mut tx.connection)
        .await?;
    Ok(members)
}

fn member_row(row: &SqliteRow) -> Result<MemberRecord, StoreError> {
    let mut columns = Columns::of(row, "members");
    let id = columns.id()?;
    let kind = columns.word(|word| match word {
        "user" => Some(MemberKind::User),
        "group" => Some(MemberKind::Group),
        _ => None,
    })?;
    Ok(MemberRecord { id, kind })
}

impl Store {
    /// One of each list that is known with this provider, to be found still there by the writer.
    ///
    /// # Errors
    /// [`StoreError::NoKnownMember`], when none of a list is.
    pub(super) async fn witnesses(&self, p: &ProviderName, lists: &[Vec<Uuid>]) -> Result<Vec<Uuid>, StoreError> {
        if lists.is_empty() {
            return Ok(vec![]);
        }
        let all: Vec<Uuid> = lists.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let rows = query(KNOWN).bind(p.as_str()).bind(id_list(&all)).fetch_all(self.readers()).await?;
        let known =
            rows.iter().map(|row| Columns::of(row, "members").id()).collect::<Result<HashSet<Uuid>, StoreError>>()?;
        lists
            .iter()
            .map(|list| list.iter().copied().find(|id| known.contains(id)))
            .zip(lists)
            .map(|(witness, list)| witness.ok_or(StoreError::NoKnownMember { given: list.len() }))
            .collect()
    }

    /// Those of `ids` that are in a group, parked ones too.
    pub(super) async fn present(
        &self,
        p: &ProviderName,
        id: GroupId,
        ids: &[Uuid],
    ) -> Result<HashSet<Uuid>, StoreError> {
        let id = id.0.as_bytes().as_slice();
        let rows = query(PRESENT).bind(p.as_str()).bind(id).bind(id_list(ids)).fetch_all(self.readers()).await?;
        rows.iter().map(|row| Columns::of(row, "members").id()).collect()
    }

    /// The ids of everybody in a group, parked ones too; at most `limit`.
    pub(super) async fn everybody(
        &self,
        p: &ProviderName,
        id: GroupId,
        limit: usize,
    ) -> Result<HashSet<Uuid>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = query(EVERYBODY)
            .bind(p.as_str())
            .bind(id.0.as_bytes().as_slice())
            .bind(limit)
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| Columns::of(row, "members").id()).collect()
    }

    /// The members of a group: users and groups, without ids that are not known. Empty when there is no such group. The
    /// group's version is to be read before, so that it is never newer than the members.
    pub async fn members(&self, p: &ProviderName, id: GroupId) -> Result<Vec<MemberRecord>, StoreError> {
        let rows = query(
            "SELECT member_id, kind FROM members WHERE provider = ? AND group_id = ? AND kind <> 'pending' \
             ORDER BY member_id",
        )
        .bind(p.as_str())
        .bind(id.0.as_bytes().as_slice())
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(member_row).collect()
    }

    /// As [`Store::members`], at most `limit` of them, in the order of their ids behind `after`.
    pub async fn members_after(
        &self,
        p: &ProviderName,
        id: GroupId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<MemberRecord>, StoreError> {
        let after = after.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
        let rows = query(
            "SELECT member_id, kind FROM members WHERE provider = ? AND group_id = ? AND member_id > ? \
             AND kind <> 'pending' ORDER BY member_id LIMIT ?",
        )
        .bind(p.as_str())
        .bind(id.0.as_bytes().as_slice())
        .bind(after)
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(member_row).collect()
    }

    /// The groups that a user or group is a direct member of, in the order of their creation.
    pub async fn memberships(&self, p: &ProviderName, id: Uuid) -> Result<Vec<Membership>, StoreError> {
        let rows = query(MEMBERSHIPS).bind(p.as_str()).bind(id.as_bytes().as_slice()).fetch_all(self.readers()).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row, "groups");
                Ok(Membership { group: GroupId(columns.id()?), display_name: columns.text()? })
            })
            .collect()
    }
}
