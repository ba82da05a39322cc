//! Rows of the audit log, and the names of people in a separate table.

use rusqlite::{Connection, ToSql, params};

use super::meta;
use super::query::{Columns, Query as _};
use crate::store::StoreError;
use crate::store::audit::{Chained, ChainedRow, TEXTS};

pub(super) const NAME: &str = "INSERT INTO people (subject, name) VALUES (?, ?) ON CONFLICT DO NOTHING";

/// The columns that the chain covers, in its order, then the hash.
macro_rules! columns {
    () => {
        "seq, at, actor, request_id, cause_seqs, document, resource_uid, action, role, condition_hash, subject, \
         plan_hash, etag_before, etag_after, outcome, reason, detail, hash"
    };
}

/// The name comes last; parameter 11 is the subject.
pub(super) const APPEND: &str = concat!(
    "INSERT INTO audit (",
    columns!(),
    ", person) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, \
     (SELECT id FROM people WHERE subject = coalesce(?11, '') AND name = ?19))"
);

/// The columns, then the name.
const AFTER: &str = concat!(
    "SELECT ",
    columns!(),
    ", (SELECT name FROM people WHERE id = person) FROM audit WHERE seq > ? ORDER BY seq LIMIT ?"
);

/// Appends a row.
pub(super) fn append(db: &Connection, row: &ChainedRow) -> Result<(), StoreError> {
    let ChainedRow { chained, hash, name } = row;
    if let Some(name) = name {
        db.run(NAME, params![chained.subject(), name])?;
    }
    let Chained(seq, at, texts) = chained;
    let mut values: Vec<&dyn ToSql> = vec![seq, at];
    values.extend(texts.iter().map(|text| text as &dyn ToSql));
    values.extend([hash as &dyn ToSql, name]);
    db.run(APPEND, values.as_slice())?;
    Ok(())
}

fn row(columns: &mut Columns<'_>) -> Result<ChainedRow, StoreError> {
    let (seq, at) = (columns.integer()?, columns.integer()?);
    let mut texts: [Option<String>; TEXTS] = Default::default();
    for text in &mut texts {
        *text = columns.text_or_none()?;
    }
    Ok(ChainedRow { chained: Chained(seq, at, texts), hash: columns.text()?, name: columns.text_or_none()? })
}

/// Rows after a position, in order, at most `limit`.
pub(crate) fn after(db: &Connection, after: i64, limit: u32) -> Result<Vec<ChainedRow>, StoreError> {
    db.all("audit", AFTER, params![after, limit], row)
}

/// The position of the last row; 0 when there is none.
pub(crate) fn highest(db: &Connection) -> Result<i64, StoreError> {
    db.one("audit", "SELECT coalesce(max(seq), 0) FROM audit", [], |columns| columns.integer())
}

/// Position and hash of the last row that was pruned, as JSON.
pub(crate) fn anchor(db: &Connection) -> Result<Option<String>, StoreError> {
    meta::get(db, "audit_anchor")
}
