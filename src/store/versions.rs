//! Every version of every custom resource, in the one sequence that the event log shares.
//!
//! A version is appended in the transaction that changes the spec, and only when something changed: a restart that
//! applies the same objects appends nothing. Secrets have no versions.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::query;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::audit::{AuditDraft, sha256};
use super::committer::Transaction;
use super::sql::Columns;
use super::{SpecPhase, SpecVersion, Store, StoreError, StoredSpec, VersionRef, history};

/// The columns of a version as [`version`] reads them.
pub(super) const COLUMNS: &str = "seq, at, kind, namespace, name, uid, generation, phase, written_by, source, json";

/// The kind whose objects have no versions: they hold tokens.
pub(super) const SECRET: &str = "Secret";

/// The kind that lists resources.
pub(super) const TARGET: &str = "CloudRunTarget";
/// What a target lists follows from these.
const LISTED_BY: [&str; 2] = ["/spec/project", "/spec/locations"];

/// What the API server changes by itself, and what rolecall writes.
const NOT_SPEC: [(&str, &str); 3] = [("", "status"), ("metadata", "managedFields"), ("metadata", "resourceVersion")];

/// The object without the fields that nobody writes by hand. Text that is no JSON stays as it is.
fn significant(json: &str) -> String {
    let Ok(mut object) = serde_json::from_str::<Value>(json) else { return json.to_owned() };
    for (parent, field) in NOT_SPEC {
        let parent = if parent.is_empty() { Some(&mut object) } else { object.get_mut(parent) };
        if let Some(fields) = parent.and_then(Value::as_object_mut) {
            fields.remove(field);
        }
    }
    object.to_string()
}

/// Actor of a changed spec in the audit: the field manager or file, or `cluster` where neither is known.
fn actor(written_by: Option<&str>, source: &str) -> String {
    match (written_by, source) {
        (Some(writer), source) if writer != source => format!("manager:{writer}"),
        (_, "" | "cluster" | "deleted") => "cluster".to_owned(),
        (_, file) => format!("file:{file}"),
    }
}

/// Name of an action on a spec in the audit.
fn action(kind: &str, verb: &str) -> String {
    let noun = match kind {
        "RoleMapping" => "mapping",
        TARGET => "target",
        "IdentityProvider" => "provider",
        other => other,
    };
    format!("{noun}.{verb}")
}

/// An object in the audit: `NAME`, or `NAMESPACE/NAME`.
fn subject(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Compares content, whatever the order of keys.
fn is_same(before: Option<&str>, after: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    before.is_some_and(|before| before == after || (parsed(before).is_some() && parsed(before) == parsed(after)))
}

/// Whether two versions of a target list other resources.
fn lists_others(before: Option<&str>, after: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (before, after) = (before.map(parsed).unwrap_or_default(), parsed(after));
    LISTED_BY.iter().any(|field| before.pointer(field) != after.pointer(field))
}

/// The uid that the API server gave the object.
fn uid_of(json: &str) -> Option<String> {
    let object: Value = serde_json::from_str(json).ok()?;
    object.get("metadata")?.get("uid")?.as_str().map(str::to_owned)
}

/// What brought a spec into a phase, in the audit.
fn verb(phase: SpecPhase) -> &'static str {
    match phase {
        SpecPhase::Active => "change",
        SpecPhase::Terminating => "delete",
        SpecPhase::Missing => "missing",
        SpecPhase::Removed => "remove",
    }
}

/// Appends to the audit what becomes of a Secret: its name, and nothing that it holds. `after`: none when it goes.
pub(super) async fn audit_secret(
    tx: &mut Transaction,
    (namespace, name): (&str, &str),
    after: Option<&StoredSpec>,
    source: &str,
) -> Result<(), StoreError> {
    let row = query("SELECT json, source FROM specs WHERE kind = ? AND namespace = ? AND name = ?")
        .bind(SECRET)
        .bind(namespace)
        .bind(name)
        .fetch_optional(&mut tx.connection)
        .await?;
    let before = row.map(|row| {
        let mut columns = Columns::of(&row, "specs");
        Ok::<_, StoreError>((columns.text()?, columns.text()?))
    });
    let before = before.transpose()?;
    let (verb, source) = match (&before, after) {
        (None, Some(_)) => ("add", source),
        (Some((json, _)), Some(after)) if *json != after.json => ("change", source),
        (Some((_, source)), None) => ("remove", source.as_str()),
        (Some(_), Some(_)) | (None, None) => return Ok(()),
    };
    let action = action("token", verb);
    tx.audit(AuditDraft::configuration(tx.now, &actor(None, source), &action, &subject(namespace, name), None));
    Ok(())
}

/// The newest version of an object.
struct Newest {
    seq: i64,
    uid: String,
    generation: i64,
    phase: SpecPhase,
    source: String,
    json: Option<String>,
}

async fn newest(tx: &mut Transaction, kind: &str, namespace: &str, name: &str) -> Result<Option<Newest>, StoreError> {
    let row = query(
        "SELECT seq, uid, generation, phase, source, json FROM spec_versions WHERE kind = ? AND namespace = ? AND name = ? \
         ORDER BY seq DESC LIMIT 1",
    )
    .bind(kind)
    .bind(namespace)
    .bind(name)
    .fetch_optional(&mut tx.connection)
    .await?;
    row.map(|row| {
        let mut columns = Columns::of(&row, "spec_versions");
        Ok(Newest {
            seq: columns.integer()?,
            uid: columns.text()?,
            generation: columns.integer()?,
            phase: columns.word(SpecPhase::from_word)?,
            source: columns.text()?,
            json: columns.text_or_none()?,
        })
    })
    .transpose()
}

/// Appends what `spec` says now, unless that is its newest version. Answers the version that is in force; none for kinds
/// without versions.
pub(super) async fn append(
    tx: &mut Transaction,
    spec: &StoredSpec,
    written_by: Option<&str>,
) -> Result<Option<VersionRef>, StoreError> {
    if spec.kind == SECRET {
        return Ok(None);
    }
    let namespace = spec.namespace.as_deref().unwrap_or_default();
    let before = newest(tx, &spec.kind, namespace, &spec.name).await?;
    let before = before.filter(|before| before.phase != SpecPhase::Removed);
    let json = significant(&spec.json);
    let phase = SpecPhase::from(spec.state);
    let uid = match (uid_of(&json), &before) {
        (Some(uid), _) => uid,
        (None, Some(before)) => before.uid.clone(),
        (None, None) => Uuid::new_v4().simple().to_string(),
    };
    if let Some(before) = &before
        && (before.phase, before.generation, &before.uid) == (phase, spec.generation, &uid)
        && is_same(before.json.as_deref(), &json)
    {
        return Ok(Some(VersionRef { seq: before.seq, uid, is_new: false }));
    }
    if spec.kind == TARGET && before.as_ref().is_some_and(|before| lists_others(before.json.as_deref(), &json)) {
        history::append_no_inventory(tx, &spec.name).await?;
    }
    let seq = tx.next_seq();
    query(
        "INSERT INTO spec_versions (seq, at, kind, namespace, name, uid, generation, phase, written_by, source, json) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(seq)
    .bind(tx.now_nanos())
    .bind(&spec.kind)
    .bind(namespace)
    .bind(&spec.name)
    .bind(&uid)
    .bind(spec.generation)
    .bind(phase.as_str())
    .bind(written_by)
    .bind(&spec.source)
    .bind(&json)
    .execute(&mut tx.connection)
    .await?;
    let verb = match (&before, phase) {
        (None, SpecPhase::Active) => "apply",
        (_, SpecPhase::Active) => "change",
        (_, phase) => verb(phase),
    };
    let detail = serde_json::json!({"uid": uid, "generation": spec.generation, "specHash": sha256(&[&json])});
    let (who, action) = (actor(written_by, &spec.source), action(&spec.kind, verb));
    let draft = AuditDraft::configuration(tx.now, &who, &action, &subject(namespace, &spec.name), Some(seq));
    tx.audit(draft.with_detail(detail.to_string()));
    Ok(Some(VersionRef { seq, uid, is_new: true }))
}

/// Appends that an object is in another phase, unless it is in that phase already or has no version. Answers the new
/// version.
pub(super) async fn append_phase(
    tx: &mut Transaction,
    kind: &str,
    namespace: &str,
    name: &str,
    phase: SpecPhase,
) -> Result<Option<VersionRef>, StoreError> {
    let Some(before) = newest(tx, kind, namespace, name).await? else { return Ok(None) };
    if before.phase == phase || before.phase == SpecPhase::Removed {
        return Ok(None);
    }
    let seq = tx.next_seq();
    query(
        "INSERT INTO spec_versions (seq, at, kind, namespace, name, uid, generation, phase, written_by, source, json) \
         SELECT ?1, ?2, kind, namespace, name, uid, generation, ?3, NULL, source, iif(?3 = 'removed', NULL, json) \
         FROM spec_versions WHERE seq = ?4",
    )
    .bind(seq)
    .bind(tx.now_nanos())
    .bind(phase.as_str())
    .bind(before.seq)
    .execute(&mut tx.connection)
    .await?;
    let detail = serde_json::json!({"uid": before.uid, "generation": before.generation});
    let (who, action) = (actor(None, &before.source), action(kind, verb(phase)));
    let draft = AuditDraft::configuration(tx.now, &who, &action, &subject(namespace, name), Some(seq));
    tx.audit(draft.with_detail(detail.to_string()));
    Ok(Some(VersionRef { seq, uid: before.uid, is_new: true }))
}

pub(super) fn version(row: &SqliteRow) -> Result<SpecVersion, StoreError> {
    let mut columns = Columns::of(row, "spec_versions");
    Ok(SpecVersion {
        seq: columns.integer()?,
        at: columns.time()?,
        kind: columns.text()?,
        namespace: Some(columns.text()?).filter(|namespace| !namespace.is_empty()),
        name: columns.text()?,
        uid: columns.text()?,
        generation: columns.integer()?,
        phase: columns.word(SpecPhase::from_word)?,
        written_by: columns.text_or_none()?,
        source: columns.text()?,
        json: columns.text_or_none()?,
    })
}

impl Store {
    /// The uids of the objects of a kind that are there, by namespace and name: those of the API server, or those that
    /// the history gave to objects of a folder.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub async fn spec_uids(&self, kind: &str) -> Result<BTreeMap<(Option<String>, String), String>, StoreError> {
        let rows = query(
            "SELECT s.namespace, s.name, (SELECT v.uid FROM spec_versions v WHERE v.kind = s.kind \
             AND v.namespace = s.namespace AND v.name = s.name ORDER BY v.seq DESC LIMIT 1) FROM specs s WHERE s.kind = ?",
        )
        .bind(kind)
        .fetch_all(self.readers())
        .await?;
        let mut uids = BTreeMap::new();
        for row in &rows {
            let mut columns = Columns::of(row, "spec_versions");
            let namespace = Some(columns.text()?).filter(|namespace| !namespace.is_empty());
            let name = columns.text()?;
            if let Some(uid) = columns.text_or_none()? {
                uids.insert((namespace, name), uid);
            }
        }
        Ok(uids)
    }

    /// All versions of one custom resource, oldest first; those of former objects of the same name included.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub async fn spec_versions(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Vec<SpecVersion>, StoreError> {
        let rows = query(
            "SELECT seq, at, kind, namespace, name, uid, generation, phase, written_by, source, json FROM spec_versions \
             WHERE kind = ? AND namespace = ? AND name = ? ORDER BY seq",
        )
        .bind(kind)
        .bind(namespace.unwrap_or_default())
        .bind(name)
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(version).collect()
    }
}
