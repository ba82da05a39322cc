//! Rows of the audit log, and the names of people in a separate table.

use rusqlite::{Connection, params};

use super::meta;
use super::query::{Columns, Query as _};
use crate::store::StoreError;
use crate::store::audit::{Chained, ChainedRow, TEXTS};

pub(super) const NAME: &str = "INSERT INTO people (subject, name) VALUES (?, ?) ON CONFLICT DO NOTHING";

pub(super) const APPEND: &str = "INSERT INTO audit (seq, at, actor, request_id, cause_seqs, document, resource_uid, action, \
        role, condition_hash, subject, plan_hash, etag_before, etag_after, outcome, reason, detail, hash, person) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, \
        (SELECT id FROM people WHERE subject = coalesce(?11, '') AND name = ?19))";

/// Selects the columns that the chain covers, then the hash, then the name.
const AFTER: &str = "SELECT a.seq, a.at, a.actor, a.request_id, a.cause_seqs, a.document, a.resource_uid, a.action, \
        a.role, a.condition_hash, a.subject, a.plan_hash, a.etag_before, a.etag_after, a.outcome, a.reason, \
        a.detail, a.hash, p.name \
    FROM audit a LEFT JOIN people p ON p.id = a.person WHERE a.seq > ? ORDER BY a.seq LIMIT ?";

/// Appends a row.
pub(super) fn append(db: &Connection, row: &ChainedRow) -> Result<(), StoreError> {
    let ChainedRow { chained, hash, name } = row;
    if let Some(name) = name {
        db.run(NAME, params![chained.subject(), name])?;
    }
    let Chained(seq, at, texts) = chained;
    let [
        actor,
        request_id,
        cause_seqs,
        document,
        resource_uid,
        action,
        role,
        condition,
        subject,
        plan_hash,
        revision_before,
        revision_after,
        outcome,
        reason,
        detail,
    ] = texts;
    db.run(
        APPEND,
        params![
            seq,
            at,
            actor,
            request_id,
            cause_seqs,
            document,
            resource_uid,
            action,
            role,
            condition,
            subject,
            plan_hash,
            revision_before,
            revision_after,
            outcome,
            reason,
            detail,
            hash,
            name
        ],
    )?;
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
