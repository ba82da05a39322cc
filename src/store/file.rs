//! The file itself: what was deleted stays in its free space and in the log beside it until both are rewritten.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, query};

use super::sql::Columns;
use super::{Store, StoreError};

/// How long a lock is waited for. Others hold it for milliseconds, but again and again.
const BUSY: Duration = Duration::from_mins(1);

impl Store {
    /// Rewrites the database and empties its log, so that nothing of what was deleted is left in either. Readers go on; whoever
    /// writes waits meanwhile, which is about a second for each 100 MB.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], when there is no room for a copy of what is stored, or when a reader keeps the log from
    /// being emptied for a minute.
    pub async fn rewrite_file(&self) -> Result<(), StoreError> {
        let mut connection = self.0.options.clone().busy_timeout(BUSY).connect().await?;
        let done = rewrite(&mut connection, self.0.options.get_filename()).await;
        // What could not be closed is closed when it is dropped.
        let _ = connection.close().await;
        done
    }
}

async fn rewrite(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    // The copy is made beside the database: elsewhere there may be no room, or nothing that can be written.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()).and_then(Path::to_str) {
        let sql = format!("PRAGMA temp_store_directory = '{}'", folder.replace('\'', "''"));
        query(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    let due = query("SELECT value FROM meta WHERE key = 'rewrite_due'").fetch_optional(&mut *connection).await?;
    query("VACUUM").execute(&mut *connection).await?;
    let row = query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await?;
    if Columns::of(&row, "database").integer()? != 0 {
        let problem = "a reader keeps the log of the database from being emptied; end it, or try again".to_owned();
        return Err(StoreError::Unavailable { problem });
    }
    if let Some(due) = due {
        // What another process erased meanwhile is still due.
        let sql = "DELETE FROM meta WHERE key = 'rewrite_due' AND value = ?";
        query(sql).bind(Columns::of(&due, "meta").text()?).execute(connection).await?;
    }
    Ok(())
}
