//! Properties of the database, by key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::Transaction;
use super::query::Query as _;
use crate::model::{KEY_BYTES, Pseudonyms, Seq};
use crate::store::StoreError;

fn damaged(problem: &impl ToString) -> StoreError {
    StoreError::Damaged { what: "meta", problem: problem.to_string() }
}

/// The value of a key.
pub(crate) fn get(db: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    db.first("meta", "SELECT value FROM meta WHERE key = ?", [key], |columns| columns.text())
}

/// As [`get`], in a transaction.
pub(crate) fn get_in(tx: &Transaction<'_>, key: &str) -> Result<Option<String>, StoreError> {
    get(tx.db, key)
}

/// True when the database has no grants.
pub(crate) fn has_no_grants(db: &Connection) -> Result<bool, StoreError> {
    db.one("grants", "SELECT NOT EXISTS (SELECT 1 FROM grants)", [], |columns| columns.flag())
}

/// Sets the value of a key; none removes it.
pub(crate) fn set(tx: &mut Transaction<'_>, key: &str, value: Option<&str>) -> Result<(), StoreError> {
    let changed = match value {
        None => tx.db.run("DELETE FROM meta WHERE key = ?", [key]),
        Some(value) => tx.db.run(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            [key, value],
        ),
    };
    changed.map(drop)
}

/// Raises the position under a key, unless it is already as high.
pub(crate) fn raise(tx: &mut Transaction<'_>, key: &str, seq: Seq) -> Result<(), StoreError> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE \
        SET value = excluded.value WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)";
    tx.db.run(sql, params![key, seq.to_string()]).map(drop)
}

/// The value of a key, which is set when the database is first opened.
fn initial(db: &Connection, key: &str, fresh: &str) -> Result<String, StoreError> {
    if let Some(value) = get(db, key)? {
        return Ok(value);
    }
    db.run("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING", params![key, fresh])?;
    // Another process may have been faster.
    get(db, key)?.ok_or_else(|| damaged(&format!("`{key}` is missing")))
}

/// The id of the database.
pub(super) fn store_id(db: &Connection, fresh: Uuid) -> Result<Uuid, StoreError> {
    Uuid::try_parse(&initial(db, "store_id", &fresh.to_string())?).map_err(|error| damaged(&error))
}

/// The key of the pseudonyms.
pub(super) fn pseudonyms(db: &Connection, fresh: [u8; KEY_BYTES]) -> Result<Pseudonyms, StoreError> {
    let text = initial(db, "pseudonym_key", &STANDARD.encode(fresh))?;
    let key = STANDARD.decode(text).ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
    Ok(Pseudonyms::new(&key.ok_or_else(|| damaged(&"the key of the pseudonyms is none"))?))
}

/// The position under a key; 0 when there is none.
pub(crate) fn position(db: &Connection, key: &str) -> Result<Seq, StoreError> {
    let Some(text) = get(db, key)? else { return Ok(0) };
    text.parse().map_err(|_| damaged(&format!("`{text}` is no position of the history")))
}
