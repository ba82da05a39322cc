//! Pins.

use rusqlite::{Connection, params};

use super::Transaction;
use super::history;
use super::query::Query as _;
use crate::model::{GroupId, Pin};
use crate::store::StoreError;

/// All pins.
pub(crate) fn all(db: &Connection) -> Result<Vec<Pin>, StoreError> {
    let sql = "SELECT mapping, provider, selector, group_id FROM pins ORDER BY mapping, provider, selector";
    db.all("pins", sql, [], |columns| {
        Ok(Pin {
            mapping: columns.parse()?,
            provider: columns.provider()?,
            selector: columns.text()?,
            group: GroupId(columns.id()?),
        })
    })
}

/// Stores pins.
pub(crate) fn put(tx: &mut Transaction<'_>, pins: &[Pin]) -> Result<(), StoreError> {
    for pin in pins {
        tx.db.run(
            "INSERT INTO pins (mapping, provider, selector, group_id) VALUES (?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET group_id = excluded.group_id",
            params![pin.mapping.to_string(), pin.provider.as_str(), pin.selector, pin.group.0],
        )?;
    }
    history::append_pins(tx, pins)
}

/// Removes all pins of a mapping.
pub(crate) fn remove(tx: &mut Transaction<'_>, mapping: &str) -> Result<(), StoreError> {
    history::append_no_pins(tx, mapping)?;
    tx.db.run("DELETE FROM pins WHERE mapping = ?", [mapping]).map(drop)
}
