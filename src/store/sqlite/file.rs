//! The file: deleted bytes remain in its free space and in the log next to it until both are rewritten.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::connection::{Role, connect};
use super::meta;
use super::query::Query as _;
use crate::store::StoreError;

/// Timeout of waiting for a lock. Others hold it for milliseconds, but repeatedly.
const BUSY: Duration = Duration::from_mins(1);

/// Rewrites the database and empties its log, on a separate connection.
pub(super) fn rewrite(path: &str) -> Result<(), StoreError> {
    let db = connect(path, Role::Writer, BUSY)?;
    // The copy is created next to the database: elsewhere there may be no space, or no writable folder.
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.and_then(Path::to_str) {
        db.pragma_update(None, "temp_store_directory", folder)?;
    }
    let due = meta::get(&db, "rewrite_due")?;
    db.execute_batch("VACUUM")?;
    let busy = db.one("database", "PRAGMA wal_checkpoint(TRUNCATE)", [], |columns| columns.flag())?;
    if busy {
        let problem = "a reader prevents the log of the database from being emptied; end it, or try again".to_owned();
        return Err(StoreError::Unavailable { problem });
    }
    settle(&db, due)
}

/// Like [`rewrite`], for an in-memory database.
#[cfg(test)]
pub(super) fn rewrite_in_memory(db: &Connection) -> Result<(), StoreError> {
    let due = meta::get(db, "rewrite_due")?;
    db.execute_batch("VACUUM")?;
    settle(db, due)
}

/// Marks the rewrite as done, unless another process erased something meanwhile.
fn settle(db: &Connection, due: Option<String>) -> Result<(), StoreError> {
    let Some(due) = due else { return Ok(()) };
    db.run("DELETE FROM meta WHERE key = 'rewrite_due' AND value = ?", [due]).map(drop)
}
