//! The event log, and the directory as a snapshot of it.

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::query::{Columns, Query as _};
use super::{Emit, groups, meta, users};
use crate::model::{DirectoryChange, DirectoryEvent, GroupId, ProviderName, Seq, UserId};
use crate::store::StoreError;

/// SQL for the last position of the sequence shared by directory events and history. It does not fall when the last
/// rows are pruned: the history then starts there.
macro_rules! highest_seq {
    () => {
        "max((SELECT coalesce(max(seq), 0) FROM events), (SELECT coalesce(max(seq), 0) FROM spec_versions), \
            (SELECT coalesce(max(seq), 0) FROM history), \
            coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'history_since'), 0))"
    };
}
pub(super) use highest_seq;

/// Largest number of members of one group in one change of a snapshot.
const CHUNK: usize = 1000;

/// Largest number of bytes of events that are read together. Events of the first version can be megabytes long.
const MAX_BATCH: u64 = 4 * 1024 * 1024;

/// The deleted users and groups that something still refers to. The others are irrelevant, and their number grows
/// forever.
const TOMBSTONES: &str = "SELECT t.provider, t.id, t.kind \
    FROM (SELECT subject_id AS id FROM claims UNION SELECT group_id FROM pins) referred \
    CROSS JOIN (SELECT provider FROM counters) p \
    CROSS JOIN tombstones t ON t.provider = p.provider AND t.id = referred.id";

/// Users, with only the facts that access may depend on. Rows of the first version may have longer texts than are
/// accepted today; they are cut to a length that no address has, so that no other principal results from it.
const USERS: &str = "SELECT provider, id, active, substr(user_name, 1, 1100), substr(external_id, 1, 1100), \
    CASE WHEN octet_length(emails) <= 4096 THEN emails ELSE ( \
        SELECT json_group_array(json_object( \
            'value', substr(e.value ->> 'value', 1, 1100), \
            'type', iif(lower(e.value ->> 'type') = 'work', 'work', NULL), \
            'primary', json(iif(e.value ->> 'primary', 'true', 'false')))) \
        FROM json_each(emails) e WHERE e.key IN ( \
            (SELECT min(key) FROM json_each(emails) WHERE value ->> 'primary'), \
            (SELECT min(key) FROM json_each(emails) WHERE lower(value ->> 'type') = 'work'))) END \
    FROM users ORDER BY position";

/// Groups. Names are cut to a length that no selector has.
const GROUPS: &str = "SELECT provider, id, substr(display_name, 1, 1100), substr(external_id, 1, 1100) \
    FROM groups ORDER BY position";

fn event(columns: &mut Columns<'_>) -> Result<DirectoryEvent, StoreError> {
    Ok(DirectoryEvent {
        seq: columns.integer()?,
        provider: columns.provider()?,
        at: columns.time()?,
        change: columns.json()?,
    })
}

/// Last position of the sequence shared by directory events and history.
pub(crate) fn highest(db: &Connection) -> Result<Seq, StoreError> {
    db.one("events", concat!("SELECT ", highest_seq!()), [], |columns| columns.integer())
}

/// Events after a position, in order: at most `limit`, and at most as many as are read together.
pub(crate) fn after(db: &Connection, after: Seq, limit: u32) -> Result<Vec<DirectoryEvent>, StoreError> {
    let Some(last) = last_within(db, after, limit)? else { return Ok(vec![]) };
    let sql = "SELECT seq, provider, at, change FROM events WHERE seq > ? AND seq <= ? ORDER BY seq";
    db.all("events", sql, params![after, last], event)
}

/// Like [`after`], for a follower; with the position that it has reached afterwards.
pub(crate) fn follow(db: &Connection, position: Seq, limit: u32) -> Result<(Vec<DirectoryEvent>, Seq), StoreError> {
    // `history_since` moves before anything is pruned, so a single state of the database shows whether the events are
    // complete.
    let oldest = meta::position(db, "history_since")?;
    if position < oldest {
        return Err(StoreError::HistoryNotKept { seq: position, oldest });
    }
    let events = after(db, position, limit)?;
    let reached = match events.last() {
        Some(last) => last.seq,
        None => position.max(highest(db)?),
    };
    Ok((events, reached))
}

/// The last event of the next batch after a position; none when there is no event.
fn last_within(db: &Connection, after: Seq, limit: u32) -> Result<Option<Seq>, StoreError> {
    let sql = "SELECT seq, octet_length(change) FROM events WHERE seq > ? ORDER BY seq LIMIT ?";
    let sizes = db.all("events", sql, params![after, limit], |columns| Ok((columns.integer()?, columns.count()?)))?;
    let mut last = None;
    let mut bytes = 0_u64;
    for (seq, size) in sizes {
        bytes = bytes.saturating_add(size);
        if last.is_some() && bytes > MAX_BATCH {
            break;
        }
        last = Some(seq);
    }
    Ok(last)
}

/// The whole directory as changes, in an order in which they can be applied; returns the position that it corresponds
/// to.
pub(crate) fn snapshot(db: &Connection, emit: Emit<'_, (ProviderName, DirectoryChange)>) -> Result<Seq, StoreError> {
    let seq = highest(db)?;
    db.each("directory", TOMBSTONES, [], |mut columns| {
        let provider = columns.provider()?;
        let id = columns.id()?;
        let deleted = columns.word(|word| match word {
            "user" => Some(DirectoryChange::UserDeleted { id: UserId(id) }),
            "group" => Some(DirectoryChange::GroupDeleted { id: GroupId(id) }),
            _ => None,
        })?;
        emit((provider, deleted))
    })?;
    db.each("directory", USERS, [], |mut columns| {
        emit((columns.provider()?, DirectoryChange::User(users::facts(&mut columns)?.for_access())))
    })?;
    db.each("directory", GROUPS, [], |mut columns| {
        emit((columns.provider()?, DirectoryChange::Group(groups::facts(&mut columns)?)))
    })?;
    members(db, "user", emit, |group, ids| {
        let added = ids.into_iter().map(UserId).collect();
        DirectoryChange::Members { group, added, removed: vec![] }
    })?;
    members(db, "group", emit, |group, ids| {
        let added = ids.into_iter().map(GroupId).collect();
        DirectoryChange::Nested { group, added, removed: vec![] }
    })?;
    Ok(seq)
}

/// Members of one kind of all groups, in changes of bounded size.
fn members(
    db: &Connection,
    kind: &str,
    emit: Emit<'_, (ProviderName, DirectoryChange)>,
    change: impl Fn(GroupId, Vec<Uuid>) -> DirectoryChange,
) -> Result<(), StoreError> {
    let mut current: Option<(ProviderName, GroupId)> = None;
    let mut added = Vec::new();
    let change = |of: Option<(ProviderName, GroupId)>, added: &mut Vec<Uuid>| {
        let (provider, group) = of?;
        Some((provider, change(group, std::mem::take(added))))
    };
    let sql = "SELECT provider, group_id, member_id FROM members WHERE kind = ? \
        ORDER BY provider, group_id, member_id";
    db.each("members", sql, [kind], |mut columns| {
        let next = (columns.provider()?, GroupId(columns.id()?));
        let member = columns.id()?;
        if current.as_ref() != Some(&next) || added.len() == CHUNK {
            change(current.replace(next), &mut added).map_or(Ok(()), &mut *emit)?;
        }
        added.push(member);
        Ok(())
    })?;
    change(current, &mut added).map_or(Ok(()), emit)
}
