//! Opening of a database: its URL, its settings, and threads for blocking work.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use tokio::sync::oneshot;

use super::query::{self, STATEMENTS};
use crate::store::StoreError;

/// Timeout of waiting for the lock of another process.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Use of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

/// The path in a URL `sqlite:PATH`.
pub(super) fn path_of(url: &str) -> Result<&str, StoreError> {
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        // SQLite would read `file:` as a URI, of which some keep nothing.
        Some(path)
            if !path.is_empty()
                && ![":memory:", "file:"].iter().any(|start| path.starts_with(start))
                && !path.contains('?') =>
        {
            Ok(path)
        }
        _ => {
            let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest).chars().take(200).collect();
            Err(StoreError::UnsupportedUrl { url: shown })
        }
    }
}

/// The error for a database that SQLite failed to open.
pub(super) fn cannot_open(path: &str, error: &rusqlite::Error) -> StoreError {
    if query::is_not_a_database(error) {
        return StoreError::NotADatabase { path: path.to_owned(), problem: error.to_string() };
    }
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    let problem = match folder {
        Some(folder) if !folder.is_dir() => format!("the folder `{}` does not exist", folder.display()),
        _ => error.to_string(),
    };
    StoreError::CannotOpen { path: path.to_owned(), problem }
}

/// Opens a connection to an existing file with the settings that durability depends on.
pub(super) fn connect(path: &str, role: Role, busy: Duration) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(busy)?;
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let why = format!(
            "the journal mode is `{mode}` and cannot be WAL: check the rights of file and folder, and the file system"
        );
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(why)));
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    // A long read prevents checkpoints of the log; afterwards its file shrinks to this size again.
    db.pragma_update_and_check(None, "journal_size_limit", 67_108_864, |_| Ok(()))?;
    // Look-ups by id and name are spread over their whole indexes. With the default of 2 MiB, writes to a directory of
    // 100,000 would go through the disk's cache instead of this one.
    let cache = if role == Role::Writer { -65_536 } else { -8_192 };
    db.pragma_update(None, "cache_size", cache)?;
    prepare(&db)?;
    if role == Role::Reader {
        db.pragma_update(None, "query_only", true)?;
    }
    Ok(db)
}

/// Settings that also apply to an in-memory database.
pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "foreign_keys", true)?;
    // Otherwise a statement whose plan depends on a parameter is planned again each time the parameter changes.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

/// Runs blocking work on a thread of its own.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    spawn("store", move || {
        // The caller may have gone away.
        let _gone = reply.send(work());
    })?;
    answer.await.map_err(|_| StoreError::Internal { problem: "a thread of the store panicked".to_owned() })?
}

/// Starts a named thread.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    let problem = |error: std::io::Error| format!("no thread can be started: {error}");
    spawned.map(drop).map_err(|error| StoreError::Unavailable { problem: problem(error) })
}
