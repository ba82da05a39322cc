//! Lists that no index answers: resources are read and evaluated, within bounds.

use std::fmt::Write as _;

use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::list::{table, weight};
use super::members;
use super::query::{Columns, Query as _};
use crate::model::{ProviderName, UserId};
use crate::scim::{Evaluator, Home, Related, ResourceType, ScimError, ServerAttributes, Sort, SortKey, Work, complete};
use crate::store::{ListQuery, Match, PlannedRow, StoreError};

/// Largest number of resources that are read for one list.
pub(in crate::store) const MAX_ROWS: usize = 50_000;

/// Number of resources that are read at a time.
pub(in crate::store) const PART: usize = 200;

/// Bytes of resources after which a part ends.
const PART_BYTES: u64 = 512 * 1024;

/// Steps for a row that is read, and for each kilobyte of it.
const ROW_STEPS: usize = 4;

const MEMBER: &str =
    "SELECT member_id, kind FROM members WHERE provider = ? AND group_id = ? AND member_id = ? AND kind <> 'pending'";

const MEMBERS: &str = "SELECT member_id, kind FROM members WHERE provider = ? AND group_id = ? AND kind <> 'pending'";

/// A list under evaluation.
pub(in crate::store) struct Scan {
    of: ResourceType,
    provider: ProviderName,
    base: String,
    sql: String,
    evaluator: Option<Evaluator>,
    sort: Option<Sort>,
}

/// A row under evaluation.
struct Row {
    id: Uuid,
    /// Of a user.
    active: bool,
    stored: Value,
    version: i64,
    times: (jiff::Timestamp, jiff::Timestamp),
    planned: PlannedRow,
}

fn row(columns: &mut Columns<'_>) -> Result<Row, StoreError> {
    Ok(Row {
        id: columns.id()?,
        active: columns.flag()?,
        stored: columns.json()?,
        version: columns.integer()?,
        times: (columns.time()?, columns.time()?),
        planned: PlannedRow { position: columns.integer()?, bytes: columns.count()?, members: columns.count()? },
    })
}

fn refused(error: &ScimError) -> StoreError {
    match error {
        ScimError::TooMany(_) => StoreError::ListTooCostly { problem: error.to_string() },
        _ => StoreError::UnsupportedFilter { problem: error.to_string() },
    }
}

impl Scan {
    pub(in crate::store) fn new(of: ResourceType, p: &ProviderName, q: &ListQuery) -> Result<Self, StoreError> {
        let evaluator = q.filter.as_ref().map(|filter| Evaluator::new(of, filter)).transpose();
        let evaluator = evaluator.map_err(|error| refused(&error))?;
        let active = match of.home() {
            Home::Users => "active",
            Home::Groups | Home::Resources => "0",
        };
        let mut sql = String::new();
        // Writing into a String does not fail.
        let _ = write!(
            sql,
            "SELECT id, {active}, resource, version, created_at, updated_at, {} FROM {} WHERE position = ? AND +provider = ?",
            weight(of),
            table(of)
        );
        Ok(Self { of, provider: p.clone(), base: q.base.clone(), sql, evaluator, sort: q.sort.clone() })
    }

    /// Evaluates the resources at these positions, or the first of them. Returns the matches and how many were read.
    pub(in crate::store) fn part(
        &self,
        db: &Connection,
        positions: &[i64],
        work: &mut Work,
    ) -> Result<(Vec<Match>, usize), StoreError> {
        let mut matches = Vec::new();
        let (mut bytes, mut read) = (0, 0);
        for position in positions {
            read += 1;
            let Some(row) = db.first(table(self.of), &self.sql, params![position, self.provider.as_str()], row)? else {
                continue;
            };
            bytes += row.planned.bytes;
            let kilobytes = usize::try_from(row.planned.bytes / 1024).unwrap_or(usize::MAX);
            work.spend(ROW_STEPS.saturating_add(kilobytes)).map_err(|error| refused(&error))?;
            if let Some(found) = self.evaluate(db, &row, work)? {
                matches.push(found);
            }
            if bytes >= PART_BYTES {
                break;
            }
        }
        Ok((matches, read))
    }

    fn evaluate(&self, db: &Connection, row: &Row, work: &mut Work) -> Result<Option<Match>, StoreError> {
        let id = row.id.to_string();
        let server = ServerAttributes { id: &id, version: row.version, created: row.times.0, modified: row.times.1 };
        let mut resource = complete(&row.stored, self.of, &self.base, server);
        if self.of.home() == Home::Users {
            resource.entry("active").or_insert(Value::Bool(row.active));
        }
        if let Some(evaluator) = &self.evaluator {
            self.relate(db, row.id, evaluator.related(), &mut resource, work)?;
            if !evaluator.passes(&resource, work).map_err(|error| refused(&error))? {
                return Ok(None);
            }
        }
        let key = self.sort.as_ref().map_or(SortKey::Missing, |sort| sort.key(&resource));
        if let SortKey::Text(text) = &key {
            work.spend(1 + text.len() / 8).map_err(|error| refused(&error))?;
        }
        Ok(Some(Match { row: row.planned, key }))
    }

    /// Adds the memberships that the evaluation needs.
    fn relate(
        &self,
        db: &Connection,
        id: Uuid,
        related: &Related,
        resource: &mut Map<String, Value>,
        work: &mut Work,
    ) -> Result<(), StoreError> {
        if *related == Related::Nothing {
            return Ok(());
        }
        let p = self.provider.as_str();
        let (name, list) = match self.of.home() {
            Home::Users => {
                let groups = members::groups_of(db, &self.provider, UserId(id), None)?;
                ("groups", groups.iter().map(|group| group.rendered(&self.base)).collect())
            }
            Home::Resources => return Ok(()),
            Home::Groups => {
                let mut list = Vec::new();
                if let Related::These(ids) = related {
                    for member in ids {
                        list.extend(
                            db.first("members", MEMBER, params![p, id, member], |columns| self.member(columns))?,
                        );
                    }
                } else {
                    list = db.all("members", MEMBERS, params![p, id], |columns| self.member(columns))?;
                }
                ("members", list)
            }
        };
        work.spend(1 + list.len()).map_err(|error| refused(&error))?;
        resource.insert(name.to_owned(), Value::Array(list));
        Ok(())
    }

    fn member(&self, columns: &mut Columns<'_>) -> Result<Value, StoreError> {
        let id = columns.id()?.to_string();
        let of = if columns.text_ref()? == "group" { ResourceType::Group } else { ResourceType::User };
        let reference = format!("{}{}/{id}", self.base, of.endpoint());
        Ok(json!({"value": id, "$ref": reference, "type": of.name()}))
    }
}
