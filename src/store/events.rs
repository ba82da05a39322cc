//! The event log, and the directory as a snapshot of it.

use futures::TryStreamExt as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::sql::Columns;
use super::{Store, StoreError, groups, users};
use crate::model::{DirectoryChange, DirectoryEvent, GroupId, ProviderName, Seq, UserId};

/// How many members of one group a change of the snapshot holds at most.
const CHUNK: usize = 1000;

/// Takes what a snapshot consists of.
type Sink<'a> = &'a mut (dyn FnMut(ProviderName, DirectoryChange) + Send);

fn event_row(row: &SqliteRow) -> Result<DirectoryEvent, StoreError> {
    let mut columns = Columns::of(row, "events");
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
    /// The last position of the event log; 0 when it is empty.
    pub async fn highest_seq(&self) -> Result<Seq, StoreError> {
        highest(&mut *self.readers().acquire().await?).await
    }

    /// Events after a position, in order, of all providers, at most `limit`.
    pub async fn events_after(&self, after: Seq, limit: u32) -> Result<Vec<DirectoryEvent>, StoreError> {
        let rows = query("SELECT seq, provider, at, change FROM events WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(after)
            .bind(limit)
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(event_row).collect()
    }

    /// The whole directory as changes: tombstones, users, groups, then members. Read in one transaction, row by row;
    /// answers the position of the event log that it stands for.
    pub async fn snapshot(&self, sink: Sink<'_>) -> Result<Seq, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let connection = &mut *transaction;
        let seq = highest(connection).await?;
        stream(connection, "SELECT provider, id, kind FROM tombstones", |mut columns| {
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
        stream(
            connection,
            "SELECT provider, id, active, user_name, external_id, emails FROM users ORDER BY position",
            |mut columns| {
                sink(columns.provider()?, DirectoryChange::User(users::facts(&mut columns)?));
                Ok(())
            },
        )
        .await?;
        stream(
            connection,
            "SELECT provider, id, display_name, external_id FROM groups ORDER BY position",
            |mut columns| {
                sink(columns.provider()?, DirectoryChange::Group(groups::facts(&mut columns)?));
                Ok(())
            },
        )
        .await?;
        members(connection, sink).await?;
        transaction.commit().await?;
        Ok(seq)
    }
}

/// Where the event log ends.
pub(super) async fn highest(connection: &mut SqliteConnection) -> Result<Seq, StoreError> {
    let row = query("SELECT coalesce(max(seq), 0) FROM events").fetch_one(connection).await?;
    Columns::of(&row, "events").integer()
}
