//! Lists: pages of users or groups, and how large their rows are.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqlitePool, query};

use super::sql::{Columns, json};
use super::{ListPlan, ListQuery, Page, PlannedRow, Store, StoreError, filter, groups, users};
use crate::model::ProviderName;
use crate::scim::{Filter, ResourceType};

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

/// Position, bytes and members of a row: what [`PlannedRow`] has. The length of a text is read without the text.
fn weight(of: ResourceType) -> &'static str {
    match of {
        ResourceType::User => "position, octet_length(resource) + octet_length(emails) + octet_length(user_name), 0",
        ResourceType::Group => "position, octet_length(resource) + octet_length(display_name), member_count",
    }
}

/// How many rows [`page`] reads at a time.
const CHUNK: usize = 100;

/// One page of the users or groups that match.
pub(super) async fn page<T>(
    readers: &SqlitePool,
    of: ResourceType,
    p: &ProviderName,
    q: &ListQuery,
    read: fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let plan = plan(readers, of, p, q).await?;
    let mut items = Vec::with_capacity(plan.rows.len());
    for rows in plan.rows.chunks(CHUNK) {
        let positions: Vec<i64> = rows.iter().map(|row| row.position).collect();
        items.extend(at(readers, of, p, &positions, read).await?);
    }
    Ok(Page { items, total: plan.total })
}

/// The rows at these positions that are still there, in order.
pub(super) async fn at<T>(
    readers: &SqlitePool,
    of: ResourceType,
    p: &ProviderName,
    positions: &[i64],
    read: fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut sql = QueryBuilder::new(format!("SELECT {} FROM {}", columns(of), table(of)));
    sql.push(" WHERE position IN (SELECT value FROM json_each(").push_bind(json(&positions)?);
    // The `+` keeps the planner at the positions.
    sql.push(")) AND +provider = ").push_bind(p.as_str()).push(" ORDER BY position");
    sql.build().fetch_all(readers).await?.iter().map(read).collect()
}

/// Which rows a page has and how large each of them is, read without the rows.
pub(super) async fn plan(
    readers: &SqlitePool,
    of: ResourceType,
    p: &ProviderName,
    q: &ListQuery,
) -> Result<ListPlan, StoreError> {
    let offset = q.start_index.saturating_sub(1);
    let mut items = Vec::new();
    if q.count > 0 {
        let rows = select(of, weight(of), p, q.filter.as_ref())?
            .push(" ORDER BY position LIMIT ")
            .push_bind(i64::try_from(q.count).unwrap_or(i64::MAX))
            .push(" OFFSET ")
            .push_bind(i64::try_from(offset).unwrap_or(i64::MAX))
            .build()
            .fetch_all(readers)
            .await?;
        items = rows.iter().map(planned).collect::<Result<Vec<_>, _>>()?;
    }
    let found = items.len() as u64;
    // A page that is not full ends the list, so its end is the total. That saves a look-up its count.
    let total = if found < q.count && (found > 0 || offset == 0) {
        offset + found
    } else {
        total(readers, of, p, q.filter.as_ref()).await?
    };
    Ok(ListPlan { rows: items, total })
}

fn planned(row: &SqliteRow) -> Result<PlannedRow, StoreError> {
    let mut columns = Columns::of(row, "list");
    Ok(PlannedRow { position: columns.integer()?, bytes: columns.count()?, members: columns.count()? })
}

async fn total(
    readers: &SqlitePool,
    of: ResourceType,
    p: &ProviderName,
    filter: Option<&Filter>,
) -> Result<u64, StoreError> {
    let row = match (filter, of) {
        (Some(_), _) => select(of, "count(*)", p, filter)?.build().fetch_one(readers).await?,
        (None, ResourceType::User) => {
            query("SELECT coalesce((SELECT users FROM counters WHERE provider = ?), 0)")
                .bind(p.as_str())
                .fetch_one(readers)
                .await?
        }
        (None, ResourceType::Group) => {
            query("SELECT coalesce((SELECT groups FROM counters WHERE provider = ?), 0)")
                .bind(p.as_str())
                .fetch_one(readers)
                .await?
        }
    };
    Columns::of(&row, "counters").count()
}

/// `SELECT what FROM table WHERE …`, open for more.
pub(super) fn select(
    of: ResourceType,
    what: &str,
    p: &ProviderName,
    filter: Option<&Filter>,
) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut sql = QueryBuilder::new(format!("SELECT {what} FROM {}", table(of)));
    match filter {
        None => {
            sql.push(" WHERE provider = ").push_bind(p.as_str());
        }
        Some(filter) => {
            // The `+` keeps the planner from walking the whole tenant in order of creation: each term brings the
            // provider to the index that answers it.
            sql.push(" WHERE +provider = ").push_bind(p.as_str());
            filter::push(&mut sql, of, p, filter)?;
        }
    }
    Ok(sql)
}

impl Store {
    /// Which users or groups a list has, and how large they are.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedFilter`] when no index answers the filter.
    pub async fn plan_list(&self, of: ResourceType, p: &ProviderName, q: &ListQuery) -> Result<ListPlan, StoreError> {
        plan(self.readers(), of, p, q).await
    }
}
