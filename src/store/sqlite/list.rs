//! Lists: pages of users or groups, and the sizes of their rows.

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::filter::{self, Condition};
use super::query::{Columns, Query as _};
use super::scan::{MAX_ROWS, Scan};
use super::{groups, resources, users};
use crate::model::ProviderName;
use crate::scim::{Home, ResourceType};
use crate::store::{GroupRecord, ListPlan, ListQuery, PlannedRow, ScimResource, StoreError, UserRecord};

pub(super) fn table(of: ResourceType) -> &'static str {
    match of.home() {
        Home::Users => "users",
        Home::Groups => "groups",
        Home::Resources => "resources",
    }
}

fn columns(of: ResourceType) -> &'static str {
    match of.home() {
        Home::Users => users::COLUMNS,
        Home::Groups => groups::COLUMNS,
        Home::Resources => resources::COLUMNS,
    }
}

/// Position, bytes and members of a row, for [`PlannedRow`]. The length of a text is read without the text.
pub(super) fn weight(of: ResourceType) -> &'static str {
    match of.home() {
        Home::Users => "position, octet_length(resource) + octet_length(emails) + octet_length(user_name), 0",
        Home::Groups => "position, octet_length(resource) + octet_length(display_name), member_count",
        Home::Resources => "position, octet_length(resource), 0",
    }
}

/// A statement under construction, with its parameters.
#[derive(Debug, Default)]
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

    /// Appends SQL with its parameters.
    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.values.extend(other.values.iter().cloned());
        self.push(&other.sql)
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

/// The users at these positions that still exist, in order.
pub(crate) fn users_at(db: &Connection, p: &ProviderName, at: &[i64]) -> Result<Vec<UserRecord>, StoreError> {
    rows_at(db, ResourceType::User, p, at.iter().copied(), users::user_row)
}

/// The groups at these positions that still exist, in order.
pub(crate) fn groups_at(db: &Connection, p: &ProviderName, at: &[i64]) -> Result<Vec<GroupRecord>, StoreError> {
    rows_at(db, ResourceType::Group, p, at.iter().copied(), groups::group_row)
}

/// The resources of a type at these positions that still exist, in order.
pub(crate) fn resources_at(
    db: &Connection,
    of: ResourceType,
    p: &ProviderName,
    at: &[i64],
) -> Result<Vec<ScimResource>, StoreError> {
    rows_at(db, of, p, at.iter().copied(), resources::resource_row)
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

/// A list as far as indexes answer it.
pub(in crate::store) enum Narrowed {
    /// The whole list.
    Answered(ListPlan),
    /// The positions of all resources that may match, in order.
    Candidates(Vec<i64>),
}

/// Answers a list, or finds the resources to read for it, at most [`MAX_ROWS`].
pub(in crate::store) fn narrow(
    db: &Connection,
    of: ResourceType,
    p: &ProviderName,
    q: &ListQuery,
) -> Result<Narrowed, StoreError> {
    let condition = q.filter.as_ref().and_then(|filter| filter::condition(of, p, filter));
    let exact = q.filter.is_none() || condition.as_ref().is_some_and(|condition| condition.exact);
    if exact && q.sort.is_none() {
        return plan(db, of, p, q, condition.as_ref()).map(Narrowed::Answered);
    }
    // Refused before it is known that there is nothing to read.
    Scan::new(of, p, q)?;
    let limit = i64::try_from(MAX_ROWS).unwrap_or(i64::MAX);
    let mut statement = select(of, "position", p, condition.as_ref());
    statement.push(" ORDER BY position LIMIT ").bind(limit.saturating_add(1));
    let candidates = statement.all(db, "list", |columns| columns.integer())?;
    if candidates.len() > MAX_ROWS {
        return Err(StoreError::ListTooLarge { limit: MAX_ROWS });
    }
    Ok(Narrowed::Candidates(candidates))
}

/// The rows of a page and their sizes, read without the rows.
fn plan(
    db: &Connection,
    of: ResourceType,
    p: &ProviderName,
    q: &ListQuery,
    condition: Option<&Condition>,
) -> Result<ListPlan, StoreError> {
    let offset = q.start_index.saturating_sub(1);
    let mut items = Vec::new();
    if q.count > 0 {
        let mut statement = select(of, weight(of), p, condition);
        if let Some(after) = q.after {
            statement.push(if condition.is_some() { " AND +position > " } else { " AND position > " }).bind(after);
        }
        statement.push(" ORDER BY position LIMIT ").bind(i64::try_from(q.count).unwrap_or(i64::MAX));
        statement.push(" OFFSET ").bind(i64::try_from(offset).unwrap_or(i64::MAX));
        items = statement.all(db, "list", planned)?;
    }
    let found = items.len() as u64;
    // A page that is not full ends the list, so its end is the total. That saves look-ups a count.
    let total = if q.after.is_none() && found < q.count && (found > 0 || offset == 0) {
        offset + found
    } else {
        total(db, of, p, condition)?
    };
    Ok(ListPlan { rows: items, total })
}

fn planned(columns: &mut Columns<'_>) -> Result<PlannedRow, StoreError> {
    Ok(PlannedRow { position: columns.integer()?, bytes: columns.count()?, members: columns.count()? })
}

fn total(
    db: &Connection,
    of: ResourceType,
    p: &ProviderName,
    condition: Option<&Condition>,
) -> Result<u64, StoreError> {
    if condition.is_some() {
        let counted = select(of, "count(*)", p, condition).all(db, "list", |columns| columns.count())?;
        return Ok(counted.into_iter().sum());
    }
    let sql = match of.home() {
        Home::Users => "SELECT coalesce((SELECT users FROM counters WHERE provider = ?), 0)",
        Home::Groups => "SELECT coalesce((SELECT groups FROM counters WHERE provider = ?), 0)",
        Home::Resources => {
            let counted = select(of, "count(*)", p, None).all(db, "list", |columns| columns.count())?;
            return Ok(counted.into_iter().sum());
        }
    };
    db.one("counters", sql, [p.as_str()], |columns| columns.count())
}

/// `SELECT what FROM table WHERE …`, to be continued.
pub(super) fn select(of: ResourceType, what: &str, p: &ProviderName, condition: Option<&Condition>) -> Builder {
    let mut statement = Builder::default();
    statement.push("SELECT ").push(what).push(" FROM ").push(table(of));
    match condition {
        None => {
            statement.push(" WHERE provider = ").bind(p.as_str().to_owned());
            if of.home() == Home::Resources {
                statement.push(" AND kind = ").bind(of.name().to_owned());
            }
        }
        Some(condition) => {
            // The `+` keeps the planner from scanning the whole tenant in order of creation: each term adds the
            // provider to the index that answers it.
            statement.push(" WHERE +provider = ").bind(p.as_str().to_owned());
            if of.home() == Home::Resources {
                statement.push(" AND +kind = ").bind(of.name().to_owned());
            }
            statement.push(" AND ").append(&condition.sql);
        }
    }
    statement
}
