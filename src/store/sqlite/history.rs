//! Changes of pins, inventory, labels of namespaces and directories, in the shared sequence.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::Transaction;
use super::query::Query as _;
use crate::model::{Kind, Pin, Seq};
use crate::store::StoreError;
use crate::store::audit::AuditDraft;
use crate::store::encoding::json;
use crate::store::history::{HistoryDraft, HistoryKind, changed_labels};

const LAST: &str = "SELECT value FROM history WHERE kind = ? AND scope = ? AND name = ? ORDER BY seq DESC LIMIT 1";

/// The values of a kind and scope as of a position, by name.
const VALUES: &str = "SELECT h.name, h.value FROM history h WHERE h.kind = ?1 AND h.scope = ?2 AND h.seq <= ?3 \
    AND h.value IS NOT NULL AND h.seq = (SELECT max(l.seq) FROM history l WHERE l.kind = h.kind \
        AND l.scope = h.scope AND l.name = h.name AND l.seq <= ?3) ORDER BY h.name";

/// The scopes of a kind that have a value as of a position.
const SCOPES: &str = "SELECT DISTINCT h.scope FROM history h WHERE h.kind = ?1 AND h.seq <= ?2 AND h.value IS NOT NULL \
    AND h.seq = (SELECT max(l.seq) FROM history l WHERE l.kind = h.kind AND l.scope = h.scope AND l.name = h.name \
        AND l.seq <= ?2) ORDER BY h.scope";

/// Appends values that differ from the last one of the same kind, scope and name; returns the number of rows. The names
/// must be distinct.
pub(crate) fn append(tx: &mut Transaction<'_>, drafts: &[HistoryDraft]) -> Result<u64, StoreError> {
    let mut appended = 0;
    for HistoryDraft { kind, scope, name, value } in drafts {
        let kind = kind.as_str();
        let last =
            tx.db.first("history", LAST, params![kind, scope, name], |columns| columns.text_or_none())?.flatten();
        if last == *value {
            continue;
        }
        let seq = tx.next_seq();
        tx.db.run(
            "INSERT INTO history (seq, at, kind, scope, name, value) VALUES (?, ?, ?, ?, ?, ?)",
            params![seq, tx.now_nanos(), kind, scope, name, value],
        )?;
        appended += 1;
    }
    Ok(appended)
}

/// Appends the current pins; of several for the same selector the last one counts.
pub(super) fn append_pins(tx: &mut Transaction<'_>, pins: &[Pin]) -> Result<(), StoreError> {
    let mut places = BTreeMap::new();
    for pin in pins {
        let mapping = pin.mapping.to_string();
        let draft = HistoryDraft::pin(&mapping, pin.provider.as_str(), &pin.selector, Some(pin.group))?;
        places.insert((mapping, draft.name.clone()), draft);
    }
    let drafts: Vec<_> = places.into_values().collect();
    append(tx, &drafts).map(drop)
}

/// Appends that a mapping no longer has any pins.
pub(super) fn append_no_pins(tx: &mut Transaction<'_>, mapping: &str) -> Result<(), StoreError> {
    let sql = "SELECT provider, selector FROM pins WHERE mapping = ?";
    let drafts = tx
        .db
        .all("pins", sql, [mapping], |columns| HistoryDraft::pin(mapping, &columns.text()?, &columns.text()?, None))?;
    append(tx, &drafts).map(drop)
}

/// Appends whether the directory under this name belongs to a former provider.
pub(super) fn append_former(tx: &mut Transaction<'_>, provider: &str, former: bool) -> Result<(), StoreError> {
    let value = former.then(|| json(&true)).transpose()?;
    let draft = HistoryDraft { kind: HistoryKind::Directory, scope: provider.to_owned(), name: String::new(), value };
    append(tx, &[draft]).map(drop)
}

/// Appends that the inventory of a target is unknown, because the target was replaced or deleted.
pub(super) fn append_no_inventory(tx: &mut Transaction<'_>, target: &str) -> Result<(), StoreError> {
    let mut drafts = Vec::new();
    for kind in [HistoryKind::Resource, HistoryKind::Listing] {
        for name in values(tx.db, kind, target, Seq::MAX)?.into_keys() {
            drafts.push(HistoryDraft { kind, scope: target.to_owned(), name, value: None });
        }
    }
    append(tx, &drafts).map(drop)
}

/// Appends the labels of a namespace, and audit rows for the changed labels that a target delegates by.
pub(crate) fn append_namespace(
    tx: &mut Transaction<'_>,
    draft: HistoryDraft,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<(), StoreError> {
    let drafts = [draft];
    append(tx, &drafts)?;
    let sql = "SELECT DISTINCT label.key FROM specs, json_each(specs.json, '$.spec.allow') allow, \
        json_each(allow.value, '$.namespaces.matchLabels') label WHERE specs.kind = ? ORDER BY label.key";
    let labels = tx.db.all("specs", sql, [Kind::CloudRunTarget.as_str()], |columns| columns.text())?;
    let changed = changed_labels(&labels, before, after);
    if !changed.is_empty() {
        let detail = serde_json::json!({"labels": changed}).to_string();
        let [HistoryDraft { scope, .. }] = &drafts;
        let draft = AuditDraft::configuration(tx.now, "cluster", "delegation.change", scope, Some(tx.seq()));
        tx.audit(draft.with_detail(detail));
    }
    Ok(())
}

/// The values of a kind and scope as of a position, by name.
pub(crate) fn values(
    db: &Connection,
    kind: HistoryKind,
    scope: &str,
    seq: Seq,
) -> Result<BTreeMap<String, String>, StoreError> {
    let values = db
        .all("history", VALUES, params![kind.as_str(), scope, seq], |columns| Ok((columns.text()?, columns.text()?)))?;
    Ok(values.into_iter().collect())
}

/// The scopes of a kind that have a value as of a position.
pub(crate) fn scopes(db: &Connection, kind: HistoryKind, seq: Seq) -> Result<Vec<String>, StoreError> {
    db.all("history", SCOPES, params![kind.as_str(), seq], |columns| columns.text())
}
