//! An in-memory database whose statements run inline, in the caller's poll: without threads and tasks of its own, so
//! that a run on paused time is reproducible.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::{Connection, MAIN_DB};
use uuid::Uuid;

use super::connection::prepare;
use super::schema::migrate;
use crate::store::StoreError;

/// The name of the database in messages.
const NAME: &str = "memory";

/// An in-memory database. Clones share it, and it lives as long as one of them or a store on it. Dropping a store and
/// opening another one simulates a restart of the process.
#[derive(Clone)]
pub(crate) struct MemoryDatabase(Arc<Shared>);

struct Shared {
    db: Mutex<Connection>,
    seed: u64,
    /// Number of generated ids.
    made: AtomicU64,
}

/// The migrated schema of an empty database, created once per process.
fn template() -> Result<&'static [u8], StoreError> {
    static TEMPLATE: OnceLock<Result<Vec<u8>, StoreError>> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let mut db = Connection::open_in_memory()?;
        migrate(&db, NAME)?;
        Ok(db.serialize(MAIN_DB)?.to_vec())
    });
    made.as_deref().map_err(StoreError::clone)
}

impl MemoryDatabase {
    /// Creates an empty database. Its ids and keys are derived from the seed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], when memory cannot be allocated.
    pub(crate) fn new(seed: u64) -> Result<Self, StoreError> {
        let template = template()?;
        let mut db = Connection::open_in_memory()?;
        db.deserialize_read_exact(MAIN_DB, template, template.len(), false)?;
        prepare(&db)?;
        Ok(Self(Arc::new(Shared { db: Mutex::new(db), seed, made: AtomicU64::new(0) })))
    }

    /// The connection, without an open transaction.
    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next id.
    pub(super) fn new_id(&self) -> Uuid {
        let made = self.0.made.fetch_add(1, Ordering::Relaxed);
        uuid::Builder::from_random_bytes(((u128::from(self.0.seed) << 64) | u128::from(made)).to_be_bytes()).into_uuid()
    }
}
