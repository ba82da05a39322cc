//! Resources of types from a file: rows, their unique values and audit rows. No event: access never depends on them.

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::query::{Columns, Query as _};
use super::{Transaction, meta};
use crate::model::ProviderName;
use crate::scim::{ResourceType, unique_form, unique_values};
use crate::store::audit::AuditDraft;
use crate::store::encoding::{json, size};
use crate::store::quota::Growth;
use crate::store::resources::EncodedResource;
use crate::store::{DeleteOutcome, NewResource, Origin, Quota, ScimResource, StoreError, Usage};

/// The columns that [`resource_row`] reads.
pub(super) const COLUMNS: &str = "id, resource, version, created_at, updated_at";

pub(super) const ONE: &str = "SELECT id, resource, version, created_at, updated_at FROM resources \
    WHERE provider = ? AND id = ? AND kind = ?";

pub(super) const CREATE: &str = "INSERT INTO resources (provider, kind, id, external_id, resource, version, created_at, \
    updated_at) VALUES (?, ?, ?, ?, ?, 1, ?6, ?6)";

pub(super) const UPDATE: &str = "UPDATE resources SET external_id = ?, resource = ?, version = version + 1, updated_at = ? \
    WHERE provider = ? AND id = ? AND version = ?";

pub(super) const DELETE: &str = "DELETE FROM resources WHERE provider = ? AND id = ?";

pub(super) const ADD_VALUE: &str = "INSERT INTO resource_values (provider, kind, attribute, value, id) \
    VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";

pub(super) const REMOVE_VALUES: &str = "DELETE FROM resource_values WHERE provider = ? AND id = ?";

const REMOVE_KIND: &str = "DELETE FROM resource_values WHERE kind = ?";

/// The resources of a type, of all providers.
const STORED: &str = "SELECT provider, id, resource FROM resources WHERE kind = ? ORDER BY position";

/// The resource that has a unique value.
const HOLDER: &str = "SELECT id FROM resource_values WHERE provider = ? AND kind = ? AND attribute = ? AND value = ?";

/// Resources of a provider, whatever their types.
const FIRST: &str = "SELECT id, kind FROM resources WHERE provider = ? ORDER BY provider, id LIMIT ?";

pub(super) fn resource_row(columns: &mut Columns<'_>) -> Result<ScimResource, StoreError> {
    Ok(ScimResource {
        id: columns.id()?,
        resource: columns.json()?,
        version: columns.integer()?,
        created_at: columns.time()?,
        updated_at: columns.time()?,
    })
}

/// One resource of a type.
pub(crate) fn find(
    db: &Connection,
    of: ResourceType,
    p: &ProviderName,
    id: Uuid,
) -> Result<Option<ScimResource>, StoreError> {
    db.first("resources", ONE, params![p.as_str(), id, of.name()], resource_row)
}

/// The first resources of a provider with their types.
pub(crate) fn first(db: &Connection, p: &ProviderName, limit: i64) -> Result<Vec<(Uuid, String)>, StoreError> {
    db.all("resources", FIRST, params![p.as_str(), limit], |columns| Ok((columns.id()?, columns.text()?)))
}

/// Builds the unique values of the resources of a type again, if they are others than before.
pub(crate) fn hold_unique(tx: &mut Transaction<'_>, of: ResourceType) -> Result<(), StoreError> {
    let (key, form) = (format!("unique:{}", of.name()), unique_form(of));
    if meta::get_in(tx, &key)?.unwrap_or_default() == form {
        return Ok(());
    }
    let db = &*tx.db;
    db.run(REMOVE_KIND, [of.name()])?;
    db.each("resources", STORED, [of.name()], |mut columns| {
        let (provider, id, resource) = (columns.text()?, columns.id()?, columns.json()?);
        for (attribute, value) in unique_values(of, &resource) {
            if db.run(ADD_VALUE, params![provider, of.name(), attribute, value, id])? == 0 {
                let held = params![provider, of.name(), attribute, value];
                let one = db.one("resource_values", HOLDER, held, |columns| columns.id())?;
                let kind = of.name().to_owned();
                return Err(StoreError::NotUnique { provider, kind, attribute, one, other: id });
            }
        }
        Ok(())
    })?;
    meta::set(tx, &key, Some(&form))
}

fn add_values(
    tx: &Transaction<'_>,
    of: ResourceType,
    p: &ProviderName,
    id: Uuid,
    encoded: &EncodedResource,
) -> Result<(), StoreError> {
    for (attribute, value) in &encoded.unique {
        if tx.db.run(ADD_VALUE, params![p.as_str(), of.name(), attribute, value, id])? == 0 {
            return Err(StoreError::ValueTaken { attribute: attribute.clone() });
        }
    }
    Ok(())
}

fn audit(
    tx: &mut Transaction<'_>,
    kind: &str,
    (p, o): (&ProviderName, &Origin),
    action: &str,
    id: Uuid,
) -> Result<(), StoreError> {
    let detail = json(&serde_json::json!({ "type": kind }))?;
    tx.audit(AuditDraft::directory(tx.now, p, o, action, &id.to_string(), vec![]).with_detail(detail));
    Ok(())
}

/// Stores a resource.
pub(crate) fn create(
    tx: &mut Transaction<'_>,
    of: ResourceType,
    (p, o): (&ProviderName, &Origin),
    quota: &Quota,
    NewResource { id, resource }: NewResource,
    encoded: &EncodedResource,
) -> Result<ScimResource, StoreError> {
    tx.grow(p, quota, Usage { resources: 1, bytes: size(&encoded.text), ..Usage::default() }, Growth::Plain)?;
    let values = params![p.as_str(), of.name(), id, encoded.external_id, encoded.text, tx.now_nanos()];
    tx.db.run(CREATE, values)?;
    add_values(tx, of, p, id, encoded)?;
    audit(tx, of.name(), (p, o), "resource.create", id)?;
    Ok(ScimResource { id, resource, version: 1, created_at: tx.now, updated_at: tx.now })
}

/// Writes the new state of a resource, if it still is in the state that was read; none otherwise.
pub(crate) fn update(
    tx: &mut Transaction<'_>,
    of: ResourceType,
    (p, o): (&ProviderName, &Origin),
    quota: &Quota,
    (before, resource): (ScimResource, serde_json::Value),
    encoded: &EncodedResource,
) -> Result<Option<ScimResource>, StoreError> {
    let id = before.id;
    let values = params![encoded.external_id, encoded.text, tx.now_nanos(), p.as_str(), id, before.version];
    if tx.db.run(UPDATE, values)? == 0 {
        return Ok(None);
    }
    tx.grow(p, quota, Usage { bytes: size(&encoded.text) - encoded.replaced_size, ..Usage::default() }, Growth::Plain)?;
    tx.db.run(REMOVE_VALUES, params![p.as_str(), id])?;
    add_values(tx, of, p, id, encoded)?;
    audit(tx, of.name(), (p, o), "resource.update", id)?;
    Ok(Some(ScimResource { resource, version: before.version + 1, updated_at: tx.now, ..before }))
}

/// Deletes a resource.
pub(crate) fn delete(
    tx: &mut Transaction<'_>,
    kind: &str,
    (p, o): (&ProviderName, &Origin),
    id: Uuid,
    if_version: Option<i64>,
) -> Result<DeleteOutcome, StoreError> {
    let Some(before) = tx.db.first("resources", ONE, params![p.as_str(), id, kind], resource_row)? else {
        return Ok(DeleteOutcome::NotFound);
    };
    if if_version.is_some_and(|version| version != before.version) {
        return Ok(DeleteOutcome::VersionDiffers);
    }
    tx.count(p, Usage { resources: -1, bytes: -size(&json(&before.resource)?), ..Usage::default() });
    tx.db.run(REMOVE_VALUES, params![p.as_str(), id])?;
    tx.db.run(DELETE, params![p.as_str(), id])?;
    audit(tx, kind, (p, o), "resource.delete", id)?;
    Ok(DeleteOutcome::Deleted)
}
