//! Opening a database: its URL, its settings, its schema.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqlSafeStr as _, query};
use uuid::Uuid;

use super::committer::Committer;
use super::leadership::Turn;
use super::sql::{self, Columns};
use super::{Inner, Store, StoreError, events, private};
use crate::model::{Clock, KEY_BYTES, Pseudonyms};

/// How many reads run at once. A read takes micro- to milliseconds; a snapshot holds one for its length.
const READERS: u32 = 4;

/// Rows that may wait between SQLite's thread and the reader. The ledger of a full policy, 1,500 grants, comes over without
/// either of them waiting for the other.
const ROWS: usize = 2048;

/// How long a lock of another process is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// Every step of the schema, never changed once released.
pub(super) fn steps() -> Vec<Migration> {
    [
        (1, "first", include_str!("migrations/0001_first.sql")),
        (2, "revisions", include_str!("migrations/0002_revisions.sql")),
        (3, "refusals", include_str!("migrations/0003_refusals.sql")),
        (4, "guard", include_str!("migrations/0004_guard.sql")),
        (6, "usage", include_str!("migrations/0006_usage.sql")),
        (8, "directory owners", include_str!("migrations/0008_directory_owners.sql")),
        (9, "history", include_str!("migrations/0009_history.sql")),
    ]
    .into_iter()
    .map(|(version, name, sql)| Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false))
    .collect()
}

fn options(path: &str) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // `open` creates it, so that nobody else can read it at any time.
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .row_buffer_size(ROWS)
        // A long read keeps the log from being taken over; afterwards its file shrinks to this again.
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging()
}

fn path_of(url: &str) -> Result<&str, StoreError> {
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        Some(path) if !path.is_empty() && !path.starts_with(":memory:") && !path.contains('?') => Ok(path),
        _ => {
            let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest).chars().take(200).collect();
            Err(StoreError::UnsupportedUrl { url: shown })
        }
    }
}

fn cannot_open(path: &str, error: &sqlx::Error) -> StoreError {
    if sql::is_not_a_database(error) {
        return StoreError::NotADatabase { path: path.to_owned(), problem: error.to_string() };
    }
    let folder = std::path::Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    let problem = match folder {
        Some(folder) if !folder.is_dir() => format!("the folder `{}` does not exist", folder.display()),
        _ => error.to_string(),
    };
    StoreError::CannotOpen { path: path.to_owned(), problem }
}

async fn migrate(connection: &mut SqliteConnection, path: &str) -> Result<(), StoreError> {
    let steps = steps();
    let known = steps.iter().map(|step| step.version).max().unwrap_or(0);
    match Migrator::with_migrations(steps).run_direct(None, &mut *connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) => {
            Err(StoreError::SchemaNewer { path: path.to_owned(), found, known })
        }
        Err(MigrateError::VersionMismatch(step)) => Err(StoreError::SchemaDiffers { path: path.to_owned(), step }),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => Err(cannot_open(path, &error)),
        Err(error) => Err(StoreError::CannotOpen { path: path.to_owned(), problem: error.to_string() }),
    }
}

/// The id of the database, which the first opening gives it.
async fn identify(connection: &mut SqliteConnection) -> Result<Uuid, StoreError> {
    query("INSERT INTO meta (key, value) VALUES ('store_id', ?) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().to_string())
        .execute(&mut *connection)
        .await?;
    let row = query("SELECT value FROM meta WHERE key = 'store_id'").fetch_one(connection).await?;
    let text = Columns::of(&row, "meta").text()?;
    Uuid::try_parse(&text).map_err(|error| StoreError::Damaged { what: "meta", problem: error.to_string() })
}

/// The key of the pseudonyms, which the first opening gives it.
async fn pseudonyms(connection: &mut SqliteConnection) -> Result<Pseudonyms, StoreError> {
    let fresh: [u8; KEY_BYTES] = rand::random();
    query("INSERT INTO meta (key, value) VALUES ('pseudonym_key', ?) ON CONFLICT DO NOTHING")
        .bind(STANDARD.encode(fresh))
        .execute(&mut *connection)
        .await?;
    let row = query("SELECT value FROM meta WHERE key = 'pseudonym_key'").fetch_one(connection).await?;
    let text = Columns::of(&row, "meta").text()?;
    let key = STANDARD.decode(text).ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
    let damaged = || StoreError::Damaged { what: "meta", problem: "the key of the pseudonyms is none".to_owned() };
    Ok(Pseudonyms::new(&key.ok_or_else(damaged)?))
}

impl Store {
    /// Opens or creates the database at `url` (`sqlite:PATH`) and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedUrl`], [`StoreError::CannotOpen`], [`StoreError::NotADatabase`],
    /// [`StoreError::SchemaNewer`], [`StoreError::SchemaDiffers`].
    pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let path = path_of(url)?;
        let options = options(path);
        // Look-ups by id and name land anywhere in their indexes: with the default of 2 MiB, a directory of 100,000 is
        // written from the disk's cache instead of from this one.
        let options = options.pragma("cache_size", "-65536");
        if let Err(error) = private::create(Path::new(path)) {
            tracing::debug!(%error, "the database file cannot be created, or not be written");
        }
        let mut connection = options.connect().await.map_err(|error| cannot_open(path, &error))?;
        migrate(&mut connection, path).await?;
        let id = identify(&mut connection).await?;
        // Only now it is known to be a database of rolecall.
        private::tighten_database(Path::new(path));
        let pseudonyms = pseudonyms(&mut connection).await?;
        let highest = events::highest(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .test_before_acquire(false)
            .connect_with(options.clone().pragma("cache_size", "-8192").pragma("query_only", "on"))
            .await
            .map_err(|error| cannot_open(path, &error))?;
        let committer = Committer::start(options.clone(), connection, clock, highest);
        Ok(Self(Arc::new(Inner {
            id,
            pseudonyms,
            readers,
            options,
            committer,
            turn: Turn::default(),
            retries: AtomicU64::new(0),
            quota: OnceLock::new(),
        })))
    }
}
