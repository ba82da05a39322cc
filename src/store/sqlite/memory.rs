//! A database in memory whose statements run inline, in the poll of who asks: no thread and no task of its own, so that a
//! run on paused time is the same each time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::{Connection, MAIN_DB};
use uuid::Uuid;

use super::connection::prepare;
use super::schema::migrate;
use crate::store::StoreError;

/// The name of the database in messages.
const NAME: &str = "memory";

/// A database in memory. Clones are the same database, which lives as long as one of them or a store on it: a store that is
/// dropped and opened again is a process that ended and was started again.
#[derive(Clone)]
pub struct MemoryDatabase(Arc<Shared>);

struct Shared {
    db: Mutex<Connection>,
    seed: u64,
    /// How many ids were made.
    made: AtomicU64,
}

/// The migrated schema of an empty database, made once in a process.
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
    /// An empty database. Ids and keys that it makes follow from the seed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], when there is no memory.
    pub fn new(seed: u64) -> Result<Self, StoreError> {
        let template = template()?;
        let mut db = Connection::open_in_memory()?;
        db.deserialize_read_exact(MAIN_DB, template, template.len(), false)?;
        prepare(&db)?;
        Ok(Self(Arc::new(Shared { db: Mutex::new(db), seed, made: AtomicU64::new(0) })))
    }

    /// The connection, on which nothing is open.
    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next id.
    pub(super) fn new_id(&self) -> Uuid {
        let made = self.0.made.fetch_add(1, Ordering::Relaxed);
        uuid::Builder::from_random_bytes(((u128::from(self.0.seed) << 64) | u128::from(made)).to_be_bytes()).into_uuid()
    }
}
