//! The specs in force, and all their versions.

use std::collections::BTreeMap;

use rusqlite::{Connection, Params, params};

use super::Transaction;
use super::query::{Columns, Query as _};
use super::{history, orphans};
use crate::model::{FreezeReason, Kind, MappingPhase};
use crate::store::audit::{AuditDraft, sha256};
use crate::store::versions::{ObjectId, action, actor, is_same, lists_others, significant, terminating, uid_of, verb};
use crate::store::{SpecVersion, StoreError, StoredSpec, VersionRef};

/// The words of a phase in `specs` and in `spec_versions`. The first is older.
fn words(phase: MappingPhase) -> [&'static str; 2] {
    match phase {
        MappingPhase::Live => ["active", "active"],
        MappingPhase::Missing(_) => ["vanished", "missing"],
        MappingPhase::Terminating(_)
        | MappingPhase::ApprovedForRemoval(_)
        | MappingPhase::RevocationDeferred(_)
        | MappingPhase::Orphaned => ["ending", "terminating"],
    }
}

/// The word of a version without a phase: the object was removed.
const REMOVED: &str = "removed";

/// The word of a phase in `spec_versions`.
fn word(phase: Option<MappingPhase>) -> &'static str {
    let Some(phase) = phase else { return REMOVED };
    let [_, word] = words(phase);
    word
}

/// The phase with this word, in which an object with this spec is restored.
fn restored(word: &str, json: &str) -> Option<MappingPhase> {
    let phases = [MappingPhase::Live, MappingPhase::Missing(FreezeReason::MappingMissing), terminating(json)];
    phases.into_iter().find(|phase| words(*phase).contains(&word))
}

/// All rows, whose first column is a kind. A row of an unknown kind is skipped: nothing in force depends on it.
fn all_of_known_kinds<T>(
    db: &Connection,
    what: &'static str,
    sql: &str,
    params: impl Params,
    read: impl Fn(Kind, &mut Columns<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut rows = Vec::new();
    db.each(what, sql, params, |mut columns| {
        let word = columns.text()?;
        if let Some(kind) = Kind::from_word(&word) {
            rows.push(read(kind, &mut columns)?);
        } else {
            tracing::warn!("a row of `{what}` has the unknown kind `{word}` and is skipped");
        }
        Ok(())
    })?;
    Ok(rows)
}

fn spec(kind: Kind, columns: &mut Columns<'_>) -> Result<StoredSpec, StoreError> {
    let json = columns.text()?;
    Ok(StoredSpec {
        kind,
        namespace: Some(columns.text()?).filter(|namespace| !namespace.is_empty()),
        name: columns.text()?,
        generation: columns.integer()?,
        phase: columns.word(|word| restored(word, &json))?,
        source: columns.text()?,
        json,
    })
}

/// All last valid specs, by kind, namespace and name.
pub(crate) fn all(db: &Connection) -> Result<Vec<StoredSpec>, StoreError> {
    let sql = "SELECT kind, json, namespace, name, generation, state, source FROM specs ORDER BY kind, namespace, name";
    all_of_known_kinds(db, "specs", sql, [], spec)
}

/// One last valid spec.
pub(crate) fn find(db: &Connection, id: &ObjectId) -> Result<Option<StoredSpec>, StoreError> {
    let sql = "SELECT json, namespace, name, generation, state, source FROM specs \
        WHERE kind = ? AND namespace = ? AND name = ?";
    db.first("specs", sql, [id.kind.as_str(), &id.namespace, &id.name], |columns| spec(id.kind, columns))
}

/// Sets the phase of a spec; does nothing when there is none.
pub(crate) fn set_phase(tx: &mut Transaction<'_>, id: &ObjectId, phase: MappingPhase) -> Result<(), StoreError> {
    let sql = "UPDATE specs SET state = ? WHERE kind = ? AND namespace = ? AND name = ?";
    let [state, _] = words(phase);
    let updated = tx.db.run(sql, params![state, id.kind.as_str(), id.namespace, id.name])?;
    if updated > 0 {
        append_phase(tx, id, Some(phase))?;
    }
    Ok(())
}

/// Stores a spec and its version.
pub(crate) fn put(
    tx: &mut Transaction<'_>,
    spec: &StoredSpec,
    written_by: Option<&str>,
) -> Result<Option<VersionRef>, StoreError> {
    let id = ObjectId::new(spec.kind, spec.namespace.as_deref(), &spec.name);
    orphans::reclaim(tx, spec)?;
    let version = append(tx, &id, spec, written_by)?;
    if spec.kind == Kind::Secret {
        audit_secret(tx, &id, Some(spec), &spec.source)?;
    }
    let [state, _] = words(spec.phase);
    tx.db.run(
        "INSERT INTO specs (kind, namespace, name, generation, state, source, json) \
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET generation = excluded.generation, \
         state = excluded.state, source = excluded.source, json = excluded.json",
        params![id.kind.as_str(), id.namespace, id.name, spec.generation, state, spec.source, spec.json],
    )?;
    Ok(version)
}

/// Removes a spec.
pub(crate) fn remove(tx: &mut Transaction<'_>, id: &ObjectId) -> Result<(), StoreError> {
    if id.kind == Kind::Secret {
        audit_secret(tx, id, None, "")?;
    }
    let sql = "DELETE FROM specs WHERE kind = ? AND namespace = ? AND name = ?";
    tx.db.run(sql, [id.kind.as_str(), &id.namespace, &id.name])?;
    append_phase(tx, id, None)?;
    if id.kind == Kind::CloudRunTarget {
        history::append_no_inventory(tx, &id.name)?;
    }
    Ok(())
}

/// Appends an audit row about a Secret: its name, and nothing of its content. `after`: none when it is removed.
fn audit_secret(
    tx: &mut Transaction<'_>,
    id: &ObjectId,
    after: Option<&StoredSpec>,
    source: &str,
) -> Result<(), StoreError> {
    let before = find(tx.db, id)?;
    let (verb, source) = match (&before, after) {
        (None, Some(_)) => ("add", source),
        (Some(before), Some(after)) if before.json != after.json => ("change", source),
        (Some(before), None) => ("remove", before.source.as_str()),
        (Some(_), Some(_)) | (None, None) => return Ok(()),
    };
    let action = action(id.kind, verb);
    tx.audit(AuditDraft::configuration(tx.now, &actor(None, source), &action, &id.subject(), None));
    Ok(())
}

/// The newest version of an object.
struct Newest {
    seq: i64,
    uid: String,
    generation: i64,
    /// Word of its phase.
    phase: String,
    source: String,
    json: Option<String>,
}

fn newest(tx: &Transaction<'_>, id: &ObjectId) -> Result<Option<Newest>, StoreError> {
    let sql = "SELECT seq, uid, generation, phase, source, json FROM spec_versions \
        WHERE kind = ? AND namespace = ? AND name = ? ORDER BY seq DESC LIMIT 1";
    tx.db.first("spec_versions", sql, [id.kind.as_str(), &id.namespace, &id.name], |columns| {
        Ok(Newest {
            seq: columns.integer()?,
            uid: columns.text()?,
            generation: columns.integer()?,
            phase: columns.text()?,
            source: columns.text()?,
            json: columns.text_or_none()?,
        })
    })
}

/// Appends `spec` as a version, unless it is equal to the newest one. Returns the version in force; none for kinds
/// without versions.
fn append(
    tx: &mut Transaction<'_>,
    id: &ObjectId,
    spec: &StoredSpec,
    written_by: Option<&str>,
) -> Result<Option<VersionRef>, StoreError> {
    if id.kind == Kind::Secret {
        return Ok(None);
    }
    let before = newest(tx, id)?.filter(|before| before.phase != REMOVED);
    let json = significant(&spec.json);
    let phase = Some(spec.phase);
    let uid = match (uid_of(&json), &before) {
        (Some(uid), _) => uid,
        (None, Some(before)) => before.uid.clone(),
        (None, None) => tx.new_id().simple().to_string(),
    };
    if let Some(before) = &before
        && (before.phase.as_str(), before.generation, &before.uid) == (word(phase), spec.generation, &uid)
        && is_same(before.json.as_deref(), &json)
    {
        return Ok(Some(VersionRef { seq: before.seq, uid, is_new: false }));
    }
    if id.kind == Kind::CloudRunTarget
        && before.as_ref().is_some_and(|before| lists_others(before.json.as_deref(), &json))
    {
        history::append_no_inventory(tx, &id.name)?;
    }
    let seq = tx.next_seq();
    tx.db.run(
        "INSERT INTO spec_versions (seq, at, kind, namespace, name, uid, generation, phase, written_by, source, json) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            seq,
            tx.now_nanos(),
            id.kind.as_str(),
            id.namespace,
            id.name,
            uid,
            spec.generation,
            word(phase),
            written_by,
            spec.source,
            json
        ],
    )?;
    let verb = match (&before, phase) {
        (None, Some(MappingPhase::Live)) => "apply",
        (_, phase) => verb(phase),
    };
    let detail = serde_json::json!({"uid": uid, "generation": spec.generation, "specHash": sha256(&[&json])});
    let (who, action) = (actor(written_by, &spec.source), action(id.kind, verb));
    let draft = AuditDraft::configuration(tx.now, &who, &action, &id.subject(), Some(seq));
    tx.audit(draft.with_detail(detail.to_string()));
    Ok(Some(VersionRef { seq, uid, is_new: true }))
}

/// Appends a change of the phase of an object, none when it is removed, unless it is already in that phase or has no version.
fn append_phase(tx: &mut Transaction<'_>, id: &ObjectId, phase: Option<MappingPhase>) -> Result<(), StoreError> {
    let Some(before) = newest(tx, id)? else { return Ok(()) };
    if before.phase == word(phase) || before.phase == REMOVED {
        return Ok(());
    }
    let seq = tx.next_seq();
    tx.db.run(
        "INSERT INTO spec_versions (seq, at, kind, namespace, name, uid, generation, phase, written_by, source, json) \
         SELECT ?1, ?2, kind, namespace, name, uid, generation, ?3, NULL, source, iif(?3 = 'removed', NULL, json) \
         FROM spec_versions WHERE seq = ?4",
        params![seq, tx.now_nanos(), word(phase), before.seq],
    )?;
    let detail = serde_json::json!({"uid": before.uid, "generation": before.generation});
    let (who, action) = (actor(None, &before.source), action(id.kind, verb(phase)));
    let draft = AuditDraft::configuration(tx.now, &who, &action, &id.subject(), Some(seq));
    tx.audit(draft.with_detail(detail.to_string()));
    Ok(())
}

fn version(kind: Kind, columns: &mut Columns<'_>) -> Result<SpecVersion, StoreError> {
    let json = columns.text_or_none()?;
    let phase = |word: &str| match word {
        REMOVED => Some(None),
        word => restored(word, json.as_deref().unwrap_or_default()).map(Some),
    };
    Ok(SpecVersion {
        seq: columns.integer()?,
        at: columns.time()?,
        kind,
        namespace: Some(columns.text()?).filter(|namespace| !namespace.is_empty()),
        name: columns.text()?,
        uid: columns.text()?,
        generation: columns.integer()?,
        phase: columns.word(phase)?,
        written_by: columns.text_or_none()?,
        source: columns.text()?,
        json,
    })
}

/// The uids of the existing objects of a kind, by namespace and name.
pub(crate) fn uids(db: &Connection, kind: Kind) -> Result<BTreeMap<(Option<String>, String), String>, StoreError> {
    let sql = "SELECT s.namespace, s.name, (SELECT v.uid FROM spec_versions v WHERE v.kind = s.kind \
        AND v.namespace = s.namespace AND v.name = s.name ORDER BY v.seq DESC LIMIT 1) FROM specs s WHERE s.kind = ?";
    let mut uids = BTreeMap::new();
    db.each("spec_versions", sql, [kind.as_str()], |mut columns| {
        let namespace = Some(columns.text()?).filter(|namespace| !namespace.is_empty());
        let name = columns.text()?;
        if let Some(uid) = columns.text_or_none()? {
            uids.insert((namespace, name), uid);
        }
        Ok(())
    })?;
    Ok(uids)
}

/// All versions of one custom resource, oldest first.
pub(crate) fn versions(db: &Connection, id: &ObjectId) -> Result<Vec<SpecVersion>, StoreError> {
    let sql = "SELECT json, seq, at, namespace, name, uid, generation, phase, written_by, source \
        FROM spec_versions WHERE kind = ? AND namespace = ? AND name = ? ORDER BY seq";
    db.all("spec_versions", sql, [id.kind.as_str(), &id.namespace, &id.name], |columns| version(id.kind, columns))
}

/// The versions in force as of a position, by kind, namespace and name, without removed ones.
pub(crate) fn in_force_at(db: &Connection, seq: i64) -> Result<Vec<SpecVersion>, StoreError> {
    let sql = "SELECT kind, json, seq, at, namespace, name, uid, generation, phase, written_by, source \
        FROM spec_versions v WHERE seq <= ?1 AND phase <> 'removed' AND seq = (SELECT max(l.seq) \
        FROM spec_versions l WHERE l.kind = v.kind AND l.namespace = v.namespace AND l.name = v.name \
        AND l.seq <= ?1) ORDER BY kind, namespace, name";
    all_of_known_kinds(db, "spec_versions", sql, [seq], version)
}
