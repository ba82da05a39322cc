//! Lists: pages of users or groups, and the sizes of their rows.

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::query::{Columns, Query as _};
use super::{filter, groups, users};
use crate::model::ProviderName;
use crate::scim::{Filter, ResourceType};
use crate::store::{GroupRecord, ListPlan, ListQuery, PlannedRow, StoreError, UserRecord};

fn table(of: ResourceType) -> &'static str {
    match of {
        ResourceType::User => "users",
        ResourceType::Group => "groups",
    }
}

fn columns(of: ResourceType) -> &'static str {
    match of {
        ResourceType::User => users::COLUMNS,
        ResourceType::Group => groups::COLUMNS,
    }
}

/// Position, bytes and members of a row, for [`PlannedRow`]. The length of a text is read without the text.
fn weight(of: ResourceType) -> &'static str {
    match of {
        ResourceType::User => "position, octet_length(resource) + octet_length(emails) + octet_length(user_name), 0",
        ResourceType::Group => "position, octet_length(resource) + octet_length(display_name), member_count",
    }
}

/// A statement under construction, with its parameters.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Builder {
    /// Appends SQL.
    pub(super) fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Appends a parameter.
    pub(super) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.sql.push('?');
        self.values.push(value.into());
        self
    }

    fn all<T>(
        self,
        db: &Connection,
        what: &'static str,
        read: impl FnMut(&mut Columns<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        db.all(what, &self.sql, params_from_iter(self.values), read)
    }
}

/// One page of the users that match.
#[cfg(test)]
pub(crate) fn users(
    db: &Connection,
    p: &ProviderName,
    q: &ListQuery,
) -> Result<crate::store::record::Page<UserRecord>, StoreError> {
    page(db, ResourceType::User, p, q, users::user_row)
}

/// One page of the groups that match.
#[cfg(test)]
pub(crate) fn groups(
    db: &Connection,
    p: &ProviderName,
    q: &ListQuery,
) -> Result<crate::store::record::Page<GroupRecord>, StoreError> {
    page(db, ResourceType::Group, p, q, groups::group_row)
}

/// The users at these positions that still exist, in order.
pub(crate) fn users_at(db: &Connection, p: &ProviderName, at: &[i64]) -> Result<Vec<UserRecord>, StoreError> {
    rows_at(db, ResourceType::User, p, at.iter().copied(), users::user_row)
}

/// The groups at these positions that still exist, in order.
pub(crate) fn groups_at(db: &Connection, p: &ProviderName, at: &[i64]) -> Result<Vec<GroupRecord>, StoreError> {
    rows_at(db, ResourceType::Group, p, at.iter().copied(), groups::group_row)
}

#[cfg(test)]
fn page<T>(
    db: &Connection,
    of: ResourceType,
    p: &ProviderName,
    q: &ListQuery,
    read: fn(&mut Columns<'_>) -> Result<T, StoreError>,
) -> Result<crate::store::record::Page<T>, StoreError> {
    let plan = plan(db, of, p, q)?;
    let items = rows_at(db, of, p, plan.rows.iter().map(|row| row.position), read)?;
    Ok(crate::store::record::Page { items, total: plan.total })
}

fn rows_at<T>(
    db: &Connection,
    of: ResourceType,
    p: &ProviderName,
    positions: impl Iterator<Item = i64>,
    read: fn(&mut Columns<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    // The `+` makes the planner use the position.
    let sql = format!("SELECT {} FROM {} WHERE position = ? AND +provider = ?", columns(of), table(of));
    let mut rows = Vec::new();
    for position in positions {
        rows.extend(db.first(table(of), &sql, params![position, p.as_str()], read)?);
    }
    Ok(rows)
}

/// The rows of a page and their sizes, read without the rows.
pub(crate) fn plan(db: &Connection, of: ResourceType, p: &ProviderName, q: &ListQuery) -> Result<ListPlan, StoreError> {
    let offset = q.start_index.saturating_sub(1);
    let mut items = Vec::new();
    if q.count > 0 {
        let mut statement = select(of, weight(of), p, q.filter.as_ref())?;
        statement.push(" ORDER BY position LIMIT ").bind(i64::try_from(q.count).unwrap_or(i64::MAX));
        statement.push(" OFFSET ").bind(i64::try_from(offset).unwrap_or(i64::MAX));
        items = statement.all(db, "list", planned)?;
    }
    let found = items.len() as u64;
    // A page that is not full ends the list, so its end is the total. That saves look-ups a count.
    let total = if found < q.count && (found > 0 || offset == 0) {
        offset + found
    } else {
        total(db, of, p, q.filter.as_ref())?
    };
    Ok(ListPlan { rows: items, total })
}

fn planned(columns: &mut Columns<'_>) -> Result<PlannedRow, StoreError> {
    Ok(PlannedRow { position: columns.integer()?, bytes: columns.count()?, members: columns.count()? })
}

fn total(db: &Connection, of: ResourceType, p: &ProviderName, filter: Option<&Filter>) -> Result<u64, StoreError> {
    if filter.is_some() {
        let counted = select(of, "count(*)", p, filter)?.all(db, "list", |columns| columns.count())?;
        return Ok(counted.into_iter().sum());
    }
    let sql = match of {
        ResourceType::User => "SELECT coalesce((SELECT users FROM counters WHERE provider = ?), 0)",
        ResourceType::Group => "SELECT coalesce((SELECT groups FROM counters WHERE provider = ?), 0)",
    };
    db.one("counters", sql, [p.as_str()], |columns| columns.count())
}

/// `SELECT what FROM table WHERE …`, to be continued.
pub(super) fn select(
    of: ResourceType,
    what: &str,
    p: &ProviderName,
    filter: Option<&Filter>,
) -> Result<Builder, StoreError> {
    let mut statement = Builder::default();
    statement.push("SELECT ").push(what).push(" FROM ").push(table(of));
    match filter {
        None => {
            statement.push(" WHERE provider = ").bind(p.as_str().to_owned());
        }
        Some(filter) => {
            // The `+` keeps the planner from scanning the whole tenant in order of creation: each term adds the
            // provider to the index that answers it.
            statement.push(" WHERE +provider = ").bind(p.as_str().to_owned());
            filter::push(&mut statement, of, p, filter)?;
        }
    }
    Ok(statement)
}
