//! The resources of targets, as last listed.

use std::collections::{BTreeMap, BTreeSet};

use super::mapping::KnownResources;
use super::{Catalog, Effects, Urgency};
use crate::model::{DocumentKey, ResourceKind, TargetName};

/// The current resources of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Inventory {
    /// All listed resources.
    pub(crate) resources: Vec<InventoryItem>,
    /// Regions and kinds that could not be listed: an absence there proves nothing.
    pub(crate) unlisted: BTreeSet<(String, ResourceKind)>,
}

/// A listed resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InventoryItem {
    /// Its policy document.
    pub(crate) document: DocumentKey,
    /// The uid at Google. A resource with another uid is another resource.
    pub(crate) uid: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// True when the resource does not check `roles/run.invoker` at all.
    pub(crate) invoker_iam_disabled: bool,
}

impl Catalog {
    /// Applies a list of a target's resources. The former list remains valid for what could not be listed.
    pub(crate) fn apply_inventory(&mut self, target: &TargetName, inventory: Inventory) -> Effects {
        let mut effects = Effects::default();
        let Some(known) = self.targets.get_mut(target) else { return effects };
        let resources = KnownResources::of(inventory, known.inventory.as_ref());
        let was_failed = std::mem::take(&mut known.failed);
        if !was_failed && known.inventory.as_ref().is_some_and(|old| *old == resources) {
            return effects;
        }
        let old = known.inventory.replace(resources);
        effects.targets.insert(target.clone());
        self.reach_again(&effects.targets.clone(), &mut effects);
        // A resource with another uid starts with an empty policy.
        if let (Some(old), Some(KnownResources { items, .. })) = (old, &self.targets[target].inventory) {
            for (document, item) in items {
                let replaced = old.items.get(document).is_some_and(|before| before.uid != item.uid);
                if replaced && self.by_document.contains_key(document) {
                    effects.document(document, Urgency::Addition);
                }
            }
        }
        effects
    }

    /// Records that listing a target's resources failed. The last list stays, and absences from it prove nothing.
    pub(crate) fn inventory_failed(&mut self, target: &TargetName) -> Effects {
        let mut effects = Effects::default();
        if let Some(known) = self.targets.get_mut(target)
            && !std::mem::replace(&mut known.failed, true)
        {
            effects.targets.insert(target.clone());
            let naming = self.mappings.iter().filter(|(_, mapping)| mapping.names(target));
            effects.mappings.extend(naming.map(|(key, _)| key.clone()));
        }
        effects
    }
}
