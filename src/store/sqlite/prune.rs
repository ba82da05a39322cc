//! Rows that are older than a point in time and no longer needed.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::Transaction;
use super::query::Query as _;
use super::{events, meta};
use crate::model::Seq;
use crate::store::StoreError;
use crate::store::encoding::nanos;

/// Everything before the first row that is not older than a point in time, over the three tables of the shared
/// sequence. If a clock was set back, some rows stay until a later run.
const CUT: &str = "SELECT min(coalesce((SELECT min(seq) FROM events WHERE at >= ?1), ?2), \
    coalesce((SELECT min(seq) FROM spec_versions WHERE at >= ?1), ?2), \
    coalesce((SELECT min(seq) FROM history WHERE at >= ?1), ?2))";

const AUDIT_CUT: &str = "SELECT seq, hash FROM audit WHERE seq < coalesce((SELECT min(seq) FROM audit WHERE at >= ?), \
    (SELECT max(seq) + 1 FROM audit)) ORDER BY seq DESC LIMIT 1";

/// Versions that a later one up to the position replaces, except those that a claim was made under.
const SPEC_VERSIONS: &str = "WITH claimed AS MATERIALIZED (SELECT DISTINCT mapping_uid AS uid, generation FROM claims) \
    SELECT seq FROM spec_versions v WHERE seq <= ?1 AND EXISTS (SELECT 1 FROM spec_versions l WHERE l.kind = v.kind \
        AND l.namespace = v.namespace AND l.name = v.name AND l.seq > v.seq AND l.seq <= ?1) \
    AND (v.uid, v.generation) NOT IN (SELECT uid, generation FROM claimed WHERE uid IS NOT NULL AND generation IS NOT NULL) \
    ORDER BY seq";

/// The last versions of removed objects, once no earlier version is left.
const REMOVED_SPECS: &str = "WITH claimed AS MATERIALIZED (SELECT DISTINCT mapping_uid AS uid, generation FROM claims) \
    SELECT seq FROM spec_versions v WHERE seq <= ?1 AND phase = 'removed' \
    AND NOT EXISTS (SELECT 1 FROM spec_versions l WHERE l.kind = v.kind AND l.namespace = v.namespace \
        AND l.name = v.name AND l.seq > v.seq AND l.seq <= ?1) \
    AND NOT EXISTS (SELECT 1 FROM spec_versions o WHERE o.kind = v.kind AND o.namespace = v.namespace \
        AND o.name = v.name AND o.seq < v.seq AND (o.uid, o.generation) IN \
            (SELECT uid, generation FROM claimed WHERE uid IS NOT NULL AND generation IS NOT NULL)) ORDER BY seq";

/// Values that a later one up to the position replaces.
const HISTORY: &str = "SELECT seq FROM history h WHERE seq <= ?1 AND EXISTS (SELECT 1 FROM history l \
    WHERE l.kind = h.kind AND l.scope = h.scope AND l.name = h.name AND l.seq > h.seq AND l.seq <= ?1) ORDER BY seq";

/// Ends of values without an earlier row.
const ENDED: &str = "SELECT seq FROM history h WHERE seq <= ?1 AND value IS NULL AND NOT EXISTS (SELECT 1 FROM history l \
    WHERE l.kind = h.kind AND l.scope = h.scope AND l.name = h.name AND l.seq > h.seq AND l.seq <= ?1) ORDER BY seq";

/// Names that no audit row after a position refers to.
const NAMES: &str = "SELECT id FROM people WHERE id NOT IN \
    (SELECT person FROM audit WHERE seq > ? AND person IS NOT NULL) ORDER BY id";

/// Deletes a name. Parameters: its id, and the last audit row at the time it was found.
const DELETE_NAME: &str = "DELETE FROM people WHERE id = ?1 \
    AND id NOT IN (SELECT person FROM audit WHERE seq > ?2 AND person IS NOT NULL)";

/// Refusals older than a point in time, of members who are not users. Nothing else would ever remove them.
const REFUSALS: &str = "SELECT reach, member_key, role FROM refusals r WHERE since < ? AND member_key LIKE 'user:%' \
    AND NOT EXISTS (SELECT 1 FROM counters c CROSS JOIN users u ON u.provider = c.provider \
        AND u.user_name_fold = substr(r.member_key, 6)) \
    AND NOT EXISTS (SELECT 1 FROM counters c CROSS JOIN users u ON u.provider = c.provider \
        AND u.external_id = substr(r.member_key, 6)) \
    AND NOT EXISTS (SELECT 1 FROM counters c CROSS JOIN user_emails e ON e.provider = c.provider \
        AND e.value_fold = substr(r.member_key, 6))";

/// Rows of the shared sequence, other than events, that are no longer needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    SpecVersions,
    RemovedSpecs,
    History,
    EndedHistory,
}

/// The position up to which a prune started to compact; 0 when none ever did.
pub(crate) fn pruned_to(tx: &Transaction<'_>) -> Result<Seq, StoreError> {
    meta::position(tx.db, "pruned_to")
}

/// The cut of a prune of rows older than a point in time: the last position of the sequence, and position and hash of
/// the last audit row; none when no row is that old.
pub(crate) fn cut(db: &Connection, before: Timestamp) -> Result<(Seq, Option<(i64, String)>), StoreError> {
    let next = events::highest(db)?.saturating_add(1);
    let first = db.one("events", CUT, params![nanos(before), next], |columns| columns.integer())?;
    let seq = meta::position(db, "pruned_to")?.max(first.saturating_sub(1));
    let audit = db.first("audit", AUDIT_CUT, [nanos(before)], |columns| Ok((columns.integer()?, columns.text()?)))?;
    Ok((seq, audit))
}

/// The positions of rows that later ones up to the cut replace, oldest first.
pub(crate) fn find(db: &Connection, rows: Rows, cut: Seq) -> Result<Vec<Seq>, StoreError> {
    let sql = match rows {
        Rows::SpecVersions => SPEC_VERSIONS,
        Rows::RemovedSpecs => REMOVED_SPECS,
        Rows::History => HISTORY,
        Rows::EndedHistory => ENDED,
    };
    db.all("rows", sql, [cut], |columns| columns.integer())
}

/// Deletes rows by their positions.
pub(crate) fn delete(tx: &mut Transaction<'_>, rows: Rows, seqs: &[Seq]) -> Result<(), StoreError> {
    let sql = match rows {
        Rows::SpecVersions | Rows::RemovedSpecs => "DELETE FROM spec_versions WHERE seq = ?",
        Rows::History | Rows::EndedHistory => "DELETE FROM history WHERE seq = ?",
    };
    for seq in seqs {
        tx.db.run(sql, [seq])?;
    }
    Ok(())
}

/// Removes events, and shortens others.
pub(crate) fn change_events(
    tx: &mut Transaction<'_>,
    removed: &[Seq],
    shortened: &[(Seq, String)],
) -> Result<(), StoreError> {
    for seq in removed {
        tx.db.run("DELETE FROM events WHERE seq = ?", [seq])?;
    }
    for (seq, change) in shortened {
        tx.db.run("UPDATE events SET change = ? WHERE seq = ?", params![change, seq])?;
    }
    Ok(())
}

/// Removes audit rows, and makes the last of them the anchor from which the rest verifies.
pub(crate) fn delete_audit(tx: &mut Transaction<'_>, upto: i64) -> Result<(), StoreError> {
    tx.db.run(
        "INSERT INTO meta (key, value) SELECT 'audit_anchor', json_array(seq, hash) FROM audit \
             WHERE seq = ?1 ON CONFLICT DO UPDATE SET value = excluded.value",
        [upto],
    )?;
    tx.db.run("DELETE FROM audit WHERE seq <= ?", [upto]).map(drop)
}

/// Names that no row of the audit after a position refers to.
pub(crate) fn names(db: &Connection, after: i64) -> Result<Vec<i64>, StoreError> {
    db.all("people", NAMES, [after], |columns| columns.integer())
}

/// Deletes names, unless a row of the audit after `seen` refers to them.
pub(crate) fn delete_names(tx: &mut Transaction<'_>, ids: &[i64], seen: i64) -> Result<(), StoreError> {
    for id in ids {
        tx.db.run(DELETE_NAME, [*id, seen])?;
    }
    Ok(())
}

/// The keys of refusals older than a point in time, of members who are not users.
pub(crate) fn refusals(db: &Connection, before: Timestamp) -> Result<Vec<[String; 3]>, StoreError> {
    db.all("refusals", REFUSALS, [nanos(before)], |columns| Ok([columns.text()?, columns.text()?, columns.text()?]))
}

/// Deletes refusals by their keys.
pub(crate) fn delete_refusals(tx: &mut Transaction<'_>, keys: &[[String; 3]]) -> Result<(), StoreError> {
    for [reach, member, role] in keys {
        let sql = "DELETE FROM refusals WHERE reach = ? AND member_key = ? AND role = ?";
        tx.db.run(sql, [reach, member, role])?;
    }
    Ok(())
}
