//! The event log, and the directory as a snapshot of it.

use futures::TryStreamExt as _;
use sqlx::{SqliteConnection, query};

use super::sql::Columns;
use super::{Store, StoreError, groups, users};
use crate::model::{DirectoryChange, DirectoryEvent, GroupId, ProviderName, Seq, UserId};

/// SQL for the last position of the one sequence: of directory events and of history. It does not fall when the last rows
/// are pruned: the history then begins there.
macro_rules! highest_seq {
    () => {
        "max((SELECT coalesce(max(seq), 0) FROM events), (SELECT coalesce(max(seq), 0) FROM spec_versions), \
            (SELECT coalesce(max(seq), 0) FROM history), \
            coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'history_since'), 0))"
    };
}
pub(super) use highest_seq;

/// How many members of one group a change of the snapshot holds at most.
const CHUNK: usize = 1000;

/// How many bytes of events are read together. Those of the first version can be megabytes long.
const MAX_BATCH: u64 = 4 * 1024 * 1024;

/// The deleted users and groups that something still refers to: what others were is of no interest, and their number
/// grows for ever.
const TOMBSTONES: &str = "SELECT t.provider, t.id, t.kind \
    FROM (SELECT subject_id AS id FROM claims UNION SELECT group_id FROM pins) referred \
    CROSS JOIN (SELECT provider FROM counters) p \
    CROSS JOIN tombstones t ON t.provider = p.provider AND t.id = referred.id";

/// Users, with what access may depend on and no more. Longer texts than are accepted can be there from the first version:
/// no address is as long as what is left of them here, so no other principal comes of it.
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

/// Groups. No selector is as long as what is left of a name here.
const GROUPS: &str = "SELECT provider, id, substr(display_name, 1, 1100), substr(external_id, 1, 1100) \
    FROM groups ORDER BY position";

/// Takes what a snapshot consists of.
pub(super) type Sink<'a> = &'a mut (dyn FnMut(ProviderName, DirectoryChange) + Send);

/// Events, each with the oldest position that is kept. Parameters: positions after which and up to which.
const FOLLOWED: &str = "SELECT coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'history_since'), 0), \
    seq, provider, at, change FROM events WHERE seq > ? AND seq <= ? ORDER BY seq";

/// The last position, the oldest that is kept, and whether there are events after a position.
const UP_TO_DATE: &str = concat!(
    "SELECT ",
    highest_seq!(),
    ", coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'history_since'), 0), \
     EXISTS (SELECT 1 FROM events WHERE seq > ?)"
);

fn event(columns: &mut Columns) -> Result<DirectoryEvent, StoreError> {
    Ok(DirectoryEvent {
        seq: columns.integer()?,
        provider: columns.provider()?,
        at: columns.time()?,
        change: columns.json()?,
    })
}

async fn stream(
    connection: &mut SqliteConnection,
    sql: &'static str,
    mut each: impl FnMut(Columns) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut rows = query(sql).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        each(Columns::of(&row, "directory"))?;
    }
    Ok(())
}

async fn members(connection: &mut SqliteConnection, sink: Sink<'_>) -> Result<(), StoreError> {
    let mut current: Option<(ProviderName, GroupId)> = None;
    let mut added = Vec::new();
    let mut rows = query(
        "SELECT provider, group_id, member_id FROM members WHERE kind = 'user' \
         ORDER BY provider, group_id, member_id",
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let mut columns = Columns::of(&row, "members");
        let next = (columns.provider()?, GroupId(columns.id()?));
        let member = UserId(columns.id()?);
        if current.as_ref() != Some(&next) || added.len() == CHUNK {
            flush(current.replace(next), &mut added, sink);
        }
        added.push(member);
    }
    flush(current, &mut added, sink);
    Ok(())
}

fn flush(of: Option<(ProviderName, GroupId)>, added: &mut Vec<UserId>, sink: Sink<'_>) {
    if let Some((provider, group)) = of {
        sink(provider, DirectoryChange::Members { group, added: std::mem::take(added), removed: vec![] });
    }
}

impl Store {
    /// The last position of the sequence that directory events and history share; 0 when both are empty.
    pub async fn highest_seq(&self) -> Result<Seq, StoreError> {
        highest(&mut *self.readers().acquire().await?).await
    }

    /// Directory events after a position, in order, of all providers: at most `limit`, and no more than fit into some
    /// megabytes, but one if there is one. Positions of the history between them are left out.
    pub async fn events_after(&self, after: Seq, limit: u32) -> Result<Vec<DirectoryEvent>, StoreError> {
        let Some(last) = self.last_within(after, limit).await? else { return Ok(vec![]) };
        let rows = query("SELECT seq, provider, at, change FROM events WHERE seq > ? AND seq <= ? ORDER BY seq")
            .bind(after)
            .bind(last)
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| event(&mut Columns::of(row, "events"))).collect()
    }

    /// As [`Store::events_after`], for a follower that has taken over everything up to a position. Answers the position up to
    /// which it then has; positions of the history are passed over.
    ///
    /// # Errors
    /// [`StoreError::HistoryNotKept`], when events that the follower has not seen were pruned: what they took away is not
    /// in the log any more. Others as for [`Store::events_after`].
    pub async fn follow_events(&self, after: Seq, limit: u32) -> Result<(Vec<DirectoryEvent>, Seq), StoreError> {
        // `history_since` moves before anything is pruned, so that one snapshot tells whether these are all.
        let told = |oldest: Seq| {
            if after < oldest { Err(StoreError::HistoryNotKept { seq: after, oldest }) } else { Ok(()) }
        };
        loop {
            if let Some(last) = self.last_within(after, limit).await? {
                let rows = query(FOLLOWED).bind(after).bind(last).fetch_all(self.readers()).await?;
                if let Some(row) = rows.first() {
                    told(Columns::of(row, "meta").integer()?)?;
                    let events = rows.iter().map(|row| event(&mut Columns::after(row, "events", 1)));
                    let events = events.collect::<Result<Vec<_>, _>>()?;
                    let position = events.last().map_or(after, |event| event.seq);
                    return Ok((events, position));
                }
            }
            let row = query(UP_TO_DATE).bind(after).fetch_one(self.readers()).await?;
            let mut columns = Columns::of(&row, "events");
            let (highest, oldest, more) = (columns.integer()?, columns.integer()?, columns.integer()? != 0);
            told(oldest)?;
            if !more {
                return Ok((vec![], after.max(highest)));
            }
        }
    }

    /// The last of the events after a position that are read together; none when there is no event.
    async fn last_within(&self, after: Seq, limit: u32) -> Result<Option<Seq>, StoreError> {
        let rows = query("SELECT seq, octet_length(change) FROM events WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(after)
            .bind(limit)
            .fetch_all(self.readers())
            .await?;
        let mut last = None;
        let mut bytes = 0_u64;
        for row in &rows {
            let mut columns = Columns::of(row, "events");
            let seq = columns.integer()?;
            bytes = bytes.saturating_add(columns.count()?);
            if last.is_some() && bytes > MAX_BATCH {
                break;
            }
            last = Some(seq);
        }
        Ok(last)
    }

    /// The whole directory as changes: tombstones that something refers to, users, groups, then members. Read in one transaction, row by row;
    /// answers the position of the event log that it stands for.
    pub async fn snapshot(&self, sink: Sink<'_>) -> Result<Seq, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let connection = &mut *transaction;
        let seq = highest(connection).await?;
        stream(connection, TOMBSTONES, |mut columns| {
            let provider = columns.provider()?;
            let id = columns.id()?;
            let deleted = columns.word(|word| match word {
                "user" => Some(DirectoryChange::UserDeleted { id: UserId(id) }),
                "group" => Some(DirectoryChange::GroupDeleted { id: GroupId(id) }),
                _ => None,
            })?;
            sink(provider, deleted);
            Ok(())
        })
        .await?;
        stream(connection, USERS, |mut columns| {
            sink(columns.provider()?, DirectoryChange::User(users::facts(&mut columns)?.for_access()));
            Ok(())
        })
        .await?;
        stream(connection, GROUPS, |mut columns| {
            sink(columns.provider()?, DirectoryChange::Group(groups::facts(&mut columns)?));
            Ok(())
        })
        .await?;
        members(connection, sink).await?;
        transaction.commit().await?;
        Ok(seq)
    }
}

/// Last position of the sequence that directory events and history share.
pub(super) async fn highest(connection: &mut SqliteConnection) -> Result<Seq, StoreError> {
    let row = query(concat!("SELECT ", highest_seq!())).fetch_one(connection).await?;
    Columns::of(&row, "events").integer()
}
