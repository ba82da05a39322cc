//! The catalog as of a past position, rebuilt from the store.

use jiff::Timestamp;

use super::apply::accepted_groups;
use super::provenance::created;
use crate::api::{CloudRunTarget, IdentityProvider, RoleMapping};
use crate::catalog::{Catalog, Ceiling, Inventory, InventoryItem};
use crate::model::{Kind, MappingKey, MappingPhase, ProviderName, Seq, TargetName};
use crate::store::{ListingRecord, SpecVersion, Store, StoreError};

/// Rebuilds the catalog as it was after everything up to a position was processed, including its pins. `ceiling`: the
/// mode at that time, which is in the audit. `as_of`: the time by which the ends of grants are decided.
///
/// # Errors
/// [`StoreError::HistoryNotKept`], when the position is older than the history; other [`StoreError`]s, when the store cannot
/// be read.
#[cfg_attr(not(test), expect(dead_code, reason = "read by tests only until a past position is shown to people"))]
pub(crate) async fn catalog_at(
    store: &Store,
    seq: Seq,
    ceiling: Ceiling,
    as_of: Timestamp,
) -> Result<Catalog, StoreError> {
    let mut catalog = Catalog::new(ceiling);
    let _ = catalog.advance_to(as_of);
    let past = store.catalog_at(seq, &mut |provider, change| drop(catalog.apply_directory(&provider, &change))).await?;
    for provider in &past.former {
        let _ = catalog.set_former(provider, true);
    }
    for provider in &past.before_nesting {
        let _ = catalog.set_before_nesting(provider);
    }
    for (namespace, labels) in past.namespaces {
        let _ = catalog.apply_namespace(&namespace, labels);
    }
    for pin in past.pins {
        catalog.apply_pin(pin);
    }
    for version in &past.specs {
        apply(&mut catalog, version)?;
    }
    for (target, (listing, failed)) in past.listings {
        if let Some(inventory) = inventory(listing) {
            let _ = catalog.apply_inventory(&target, inventory);
        }
        if failed {
            let _ = catalog.inventory_failed(&target);
        }
    }
    let _ = catalog.freeze_all(None);
    Ok(catalog)
}

fn inventory(listing: ListingRecord) -> Option<Inventory> {
    let item = |resource: crate::store::ResourceRecord| InventoryItem {
        document: resource.document,
        uid: resource.uid,
        labels: resource.labels,
        invoker_iam_disabled: resource.invoker_iam_disabled,
    };
    let resources = listing.resources?.into_iter().map(item).collect();
    Some(Inventory { resources, unlisted: listing.unlisted })
}

/// Puts one version in force. An unreadable version is skipped, as at the start.
fn apply(catalog: &mut Catalog, version: &SpecVersion) -> Result<(), StoreError> {
    let Some(json) = &version.json else { return Ok(()) };
    let damaged = |problem: String| StoreError::Damaged { what: "spec_versions", problem };
    let name = |error: crate::model::NameError| damaged(error.to_string());
    let unreadable = |error: serde_json::Error| damaged(format!("version {}: {error}", version.seq));
    match version.kind {
        Kind::IdentityProvider => {
            let object: IdentityProvider = serde_json::from_str(json).map_err(unreadable)?;
            let _ = catalog.apply_provider(ProviderName::new(&version.name).map_err(name)?, object.spec);
        }
        Kind::CloudRunTarget => {
            let object: CloudRunTarget = serde_json::from_str(json).map_err(unreadable)?;
            let age = created(&object.metadata, version.at);
            let _ = catalog.apply_target(TargetName::new(&version.name).map_err(name)?, object.spec, age);
        }
        Kind::RoleMapping => {
            let object: RoleMapping = serde_json::from_str(json).map_err(unreadable)?;
            let namespace = version.namespace.as_deref().unwrap_or(super::apply::DEFAULT_NAMESPACE);
            let key = MappingKey::new(namespace, &version.name).map_err(name)?;
            let accepted = accepted_groups(&object.metadata);
            let _ = catalog.apply_mapping(key.clone(), version.generation, object.spec, accepted);
            catalog.identify_mapping(&key, &version.uid);
            if let Some(phase) = version.phase.filter(|phase| *phase != MappingPhase::Live) {
                let _ = catalog.set_phase(&key, phase);
            }
        }
        Kind::Secret | Kind::Namespace => {}
    }
    Ok(())
}
