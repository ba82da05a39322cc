//! The epoch of the database.

use rusqlite::{Connection, params};

use super::Transaction;
use super::query::Query as _;
use crate::store::{Epoch, Leader, StoreError};

/// Begins the next epoch.
pub(crate) fn begin(tx: &mut Transaction<'_>, holder: &str) -> Result<Epoch, StoreError> {
    tx.db.run(
        "INSERT INTO leadership (only, epoch, holder, since) VALUES (1, 1, ?, ?) ON CONFLICT DO UPDATE \
         SET epoch = epoch + 1, holder = excluded.holder, since = excluded.since",
        params![holder, tx.now_nanos()],
    )?;
    let epoch = tx.db.one("leadership", "SELECT epoch FROM leadership", [], |columns| columns.integer())?;
    let epoch = Epoch::of(epoch);
    tx.led_under(epoch);
    Ok(epoch)
}

/// The process that began the current epoch; none when no process ever did.
pub(crate) fn leader(db: &Connection) -> Result<Option<Leader>, StoreError> {
    db.first("leadership", "SELECT epoch, holder, since FROM leadership", [], |columns| {
        Ok(Leader { epoch: Epoch::of(columns.integer()?), holder: columns.text()?, since: columns.time()? })
    })
}
