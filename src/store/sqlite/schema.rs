//! The schema and its steps. The applied steps are recorded in a table with the name and columns that earlier versions
//! used through sqlx, so that either version can open a database of the other.

use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha384};

use super::connection::cannot_open;
use super::query::Query as _;
use super::refold;
use crate::store::StoreError;

/// One step of the schema, never changed once released.
pub(super) struct Step {
    version: i64,
    description: &'static str,
    sql: &'static str,
}

impl Step {
    pub(super) fn checksum(&self) -> Vec<u8> {
        Sha384::digest(self.sql).to_vec()
    }
}

/// Every step of the schema, in order.
pub(super) const STEPS: [Step; 16] = [
    Step { version: 1, description: "first", sql: include_str!("migrations/0001_first.sql") },
    Step { version: 2, description: "revisions", sql: include_str!("migrations/0002_revisions.sql") },
    Step { version: 3, description: "refusals", sql: include_str!("migrations/0003_refusals.sql") },
    Step { version: 4, description: "guard", sql: include_str!("migrations/0004_guard.sql") },
    Step { version: 6, description: "usage", sql: include_str!("migrations/0006_usage.sql") },
    Step { version: 8, description: "directory owners", sql: include_str!("migrations/0008_directory_owners.sql") },
    Step { version: 9, description: "history", sql: include_str!("migrations/0009_history.sql") },
    Step { version: 10, description: "lists", sql: include_str!("migrations/0010_lists.sql") },
    Step { version: 11, description: "external ids", sql: include_str!("migrations/0011_external_ids.sql") },
    Step { version: 12, description: "pending members", sql: include_str!("migrations/0012_pending.sql") },
    Step { version: 13, description: "nested groups", sql: include_str!("migrations/0013_nested.sql") },
    Step { version: 14, description: "employee numbers", sql: include_str!("migrations/0014_employee_numbers.sql") },
    Step { version: 15, description: "resources", sql: include_str!("migrations/0015_resources.sql") },
    Step { version: 16, description: "left", sql: include_str!("migrations/0016_left.sql") },
    Step { version: 17, description: "drift", sql: include_str!("migrations/0017_drift.sql") },
    Step { version: 18, description: "conditions", sql: include_str!("migrations/0018_conditions.sql") },
];

/// The step with which the folded names are computed again.
const NAMES_REFOLDED: i64 = 10;

/// The step with which the employee numbers are added.
const EMPLOYEE_NUMBERS: i64 = 14;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);";

/// An applied step.
struct Applied {
    version: i64,
    checksum: Vec<u8>,
    /// False when it was interrupted half-way, which no version of rolecall leaves behind.
    whole: bool,
}

fn applied(db: &Connection) -> rusqlite::Result<Vec<Applied>> {
    if !db.table_exists(None, "_sqlx_migrations")? {
        return Ok(vec![]);
    }
    let mut statement = db.prepare("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")?;
    let rows = statement
        .query_map([], |row| Ok(Applied { version: row.get(0)?, checksum: row.get(1)?, whole: row.get(2)? }))?;
    rows.collect()
}

/// The steps that are not applied yet. Refuses a database with other steps than these.
fn pending<'s>(db: &Connection, path: &str, steps: &'s [Step]) -> Result<Vec<&'s Step>, StoreError> {
    let applied = applied(db).map_err(|error| cannot_open(path, &error))?;
    if let Some(half) = applied.iter().find(|step| !step.whole) {
        let problem = format!("schema step {} was interrupted", half.version);
        return Err(StoreError::CannotOpen { path: path.to_owned(), problem });
    }
    let known = STEPS.iter().map(|step| step.version).max().unwrap_or(0);
    if let Some(other) = applied.iter().find(|step| STEPS.iter().all(|known| known.version != step.version)) {
        return Err(StoreError::SchemaNewer { path: path.to_owned(), found: other.version, known });
    }
    let mut pending = Vec::new();
    for step in steps {
        match applied.iter().find(|applied| applied.version == step.version) {
            None => pending.push(step),
            Some(applied) if applied.checksum == step.checksum() => {}
            Some(_) => return Err(StoreError::SchemaDiffers { path: path.to_owned(), step: step.version }),
        }
    }
    Ok(pending)
}

/// Brings the schema up to date in one transaction, so that concurrent processes do it only once.
pub(super) fn migrate(db: &Connection, path: &str) -> Result<(), StoreError> {
    migrate_by(db, path, &STEPS)
}

/// Like [`migrate`], with these steps only.
pub(super) fn migrate_by(db: &Connection, path: &str, steps: &[Step]) -> Result<(), StoreError> {
    if pending(db, path, steps)?.is_empty() {
        return Ok(());
    }
    db.execute_batch("BEGIN IMMEDIATE").map_err(|error| cannot_open(path, &error))?;
    let done = apply(db, path, steps);
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = db.execute_batch(end).map_err(|error| cannot_open(path, &error));
    done.and(ended)
}

fn apply(db: &Connection, path: &str, steps: &[Step]) -> Result<(), StoreError> {
    db.execute_batch(TABLE).map_err(|error| cannot_open(path, &error))?;
    // Another process may have been faster.
    for step in pending(db, path, steps)? {
        db.execute_batch(step.sql).map_err(|error| cannot_open(path, &error))?;
        if step.version == NAMES_REFOLDED {
            refold::names(db).map_err(|error| cannot_open(path, &error))?;
        }
        if step.version == EMPLOYEE_NUMBERS {
            refold::employee_numbers(db).map_err(|error| cannot_open(path, &error))?;
        }
        db.run(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (?1, ?2, TRUE, ?3, -1)",
            params![step.version, step.description, step.checksum()],
        )?;
    }
    Ok(())
}
