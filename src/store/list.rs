//! Lists: conditions become SQL over indexed columns, or are refused.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqlitePool, query};
use uuid::Uuid;

use super::sql::{Columns, fold, json};
use super::{Condition, ListPlan, ListQuery, Page, PlannedRow, StoreError, groups, users};
use crate::model::ProviderName;

/// Which table is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Users,
    Groups,
}

impl Kind {
    fn table(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Groups => "groups",
        }
    }

    fn columns(self) -> &'static str {
        match self {
            Self::Users => users::COLUMNS,
            Self::Groups => groups::COLUMNS,
        }
    }

    /// Position, bytes and members of a row: what [`PlannedRow`] has. The length of a text is read without the text.
    fn weight(self) -> &'static str {
        match self {
            Self::Users => "position, octet_length(resource) + octet_length(emails) + octet_length(user_name), 0",
            Self::Groups => "position, octet_length(resource) + octet_length(display_name), member_count",
        }
    }
}

/// How many rows [`page`] reads at a time.
const CHUNK: usize = 100;

/// One page of the users or groups that match.
pub(super) async fn page<T>(
    readers: &SqlitePool,
    kind: Kind,
    p: &ProviderName,
    q: &ListQuery,
    read: fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let plan = plan(readers, kind, p, q).await?;
    let mut items = Vec::with_capacity(plan.rows.len());
    for rows in plan.rows.chunks(CHUNK) {
        let positions: Vec<i64> = rows.iter().map(|row| row.position).collect();
        items.extend(at(readers, kind, p, &positions, read).await?);
    }
    Ok(Page { items, total: plan.total })
}

/// The rows at these positions that are still there, in order.
pub(super) async fn at<T>(
    readers: &SqlitePool,
    kind: Kind,
    p: &ProviderName,
    positions: &[i64],
    read: fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut sql = QueryBuilder::new(format!("SELECT {} FROM {}", kind.columns(), kind.table()));
    sql.push(" WHERE position IN (SELECT value FROM json_each(").push_bind(json(&positions)?);
    // The `+` keeps the planner at the positions.
    sql.push(")) AND +provider = ").push_bind(p.as_str()).push(" ORDER BY position");
    sql.build().fetch_all(readers).await?.iter().map(read).collect()
}

/// Which rows a page has and how large each of them is, read without the rows.
pub(super) async fn plan(
    readers: &SqlitePool,
    kind: Kind,
    p: &ProviderName,
    q: &ListQuery,
) -> Result<ListPlan, StoreError> {
    let offset = q.start_index.saturating_sub(1);
    let mut items = Vec::new();
    if q.count > 0 {
        let rows = select(kind, kind.weight(), p, q.condition.as_ref())?
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
        total(readers, kind, p, q.condition.as_ref()).await?
    };
    Ok(ListPlan { rows: items, total })
}

fn planned(row: &SqliteRow) -> Result<PlannedRow, StoreError> {
    let mut columns = Columns::of(row, "list");
    Ok(PlannedRow { position: columns.integer()?, bytes: columns.count()?, members: columns.count()? })
}

async fn total(
    readers: &SqlitePool,
    kind: Kind,
    p: &ProviderName,
    condition: Option<&Condition>,
) -> Result<u64, StoreError> {
    let row = match (condition, kind) {
        (Some(_), _) => select(kind, "count(*)", p, condition)?.build().fetch_one(readers).await?,
        (None, Kind::Users) => {
            query("SELECT coalesce((SELECT users FROM counters WHERE provider = ?), 0)")
                .bind(p.as_str())
                .fetch_one(readers)
                .await?
        }
        (None, Kind::Groups) => {
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
    kind: Kind,
    what: &str,
    p: &ProviderName,
    condition: Option<&Condition>,
) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut sql = QueryBuilder::new(format!("SELECT {what} FROM {}", kind.table()));
    match condition {
        None => {
            sql.push(" WHERE provider = ").push_bind(p.as_str());
        }
        Some(condition) => {
            // The `+` keeps the planner from walking the whole tenant in order of creation: each term brings the
            // provider to the index that answers it.
            sql.push(" WHERE +provider = ").push_bind(p.as_str());
            if !push(&mut sql, kind, p, condition)? {
                return Err(StoreError::UnsupportedFilter { attribute: lonely(condition) });
            }
        }
    }
    Ok(sql)
}

/// The attribute that an index does not answer.
fn lonely(condition: &Condition) -> &'static str {
    match condition {
        Condition::And(terms) => terms.first().map_or("and", lonely),
        Condition::ManagerEq(_) => "manager",
        Condition::IdEq(_) => "id",
        Condition::UserNameEq(_) => "userName",
        Condition::ExternalIdEq(_) => "externalId",
        Condition::DisplayNameEq(_) => "displayName",
        Condition::EmailEq { .. } => "emails",
        Condition::MemberEq(_) => "members",
    }
}

/// Appends ` AND …`; says whether an index answers it.
fn push(
    sql: &mut QueryBuilder<Sqlite>,
    kind: Kind,
    p: &ProviderName,
    condition: &Condition,
) -> Result<bool, StoreError> {
    match (condition, kind) {
        (Condition::And(terms), _) => {
            let mut indexed = false;
            for term in terms {
                indexed |= push(sql, kind, p, term)?;
            }
            return Ok(indexed);
        }
        (Condition::IdEq(id), _) => match Uuid::try_parse(id) {
            Ok(id) => equal(sql, p, "id", id.as_bytes().as_slice()),
            Err(_) => nothing(sql),
        },
        (Condition::ExternalIdEq(value), _) => equal(sql, p, "external_id", value.as_str()),
        (Condition::UserNameEq(value), Kind::Users) => equal(sql, p, "user_name_fold", fold(value)),
        (Condition::DisplayNameEq(value), Kind::Groups) => equal(sql, p, "display_name_fold", fold(value)),
        (Condition::EmailEq { kind, value }, Kind::Users) => {
            sql.push(" AND position IN (SELECT user FROM user_emails WHERE provider = ").push_bind(p.as_str());
            sql.push(" AND value_fold = ").push_bind(fold(value));
            if let Some(kind) = kind {
                sql.push(" AND kind_fold = ").push_bind(fold(kind));
            }
            sql.push(")");
        }
        (Condition::MemberEq(member), Kind::Groups) => match Uuid::try_parse(member) {
            Ok(member) => {
                sql.push(
                    " AND position IN (SELECT g.position FROM members m INDEXED BY members_by_member \
                     CROSS JOIN groups g ON g.provider = m.provider AND g.id = m.group_id \
                     WHERE m.kind <> 'pending' AND m.provider = ",
                )
                .push_bind(p.as_str());
                sql.push(" AND m.member_id = ").push_bind(member.as_bytes().as_slice()).push(")");
            }
            Err(_) => nothing(sql),
        },
        (Condition::ManagerEq(manager), Kind::Users) => {
            sql.push(
                " AND resource ->> '$.\"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User\".manager.value' = ",
            )
            .push_bind(manager.as_str());
            return Ok(false);
        }
        _ => return Err(StoreError::UnsupportedFilter { attribute: lonely(condition) }),
    }
    Ok(true)
}

fn equal<'t, T>(sql: &mut QueryBuilder<Sqlite>, p: &ProviderName, column: &'static str, value: T)
where
    T: sqlx::Encode<'t, Sqlite> + sqlx::Type<Sqlite>,
{
    sql.push(" AND provider = ").push_bind(p.as_str());
    sql.push(format_args!(" AND {column} = ")).push_bind(value);
}

/// What is asked for cannot exist, such as a text that is no id.
fn nothing(sql: &mut QueryBuilder<Sqlite>) {
    sql.push(" AND false");
}
