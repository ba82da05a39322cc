//! Resolution of what a mapping names: its groups, whose names are pinned, and its resources.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::mapping::{Mapping, Matches, Resolution};
use super::nesting::Nesting;
use super::tenant::{GroupState, Selector, Tenant};
use super::{Catalog, Effects, Urgency};
use crate::model::{DocumentKey, FreezeReason, GroupId, MappingKey, MappingPhase, Pin};

impl Catalog {
    /// Resolves `spec.subjects` of a mapping, and pins groups that are resolved for the first time.
    pub(super) fn resolve_subjects(&mut self, key: &MappingKey, effects: &mut Effects) {
        let Some(mut mapping) = self.mappings.remove(key) else { return };
        let before = groups_of(&mapping);
        let mut changed = None;
        for subject in &mut mapping.subjects {
            let place = (key.clone(), subject.provider.clone(), subject.selector.to_string());
            let pinned = self.pins.get(&place).copied();
            let tenant = self.tenants.get(&subject.provider);
            subject.pinned = pinned;
            let new = resolve(tenant, &subject.selector, pinned, &mapping.accepted);
            if let Resolution::Resolved(group) = new
                && pinned != Some(group)
                && self.frozen.is_none()
                && mapping.phase == MappingPhase::Live
            {
                let (mapping, provider, selector) = place.clone();
                effects.pins.push(Pin { mapping, provider, selector, group });
                // Grants that came through another group may have to be removed then.
                let due = if pinned.is_some() { Urgency::Revocation } else { Urgency::Addition };
                self.unstored.insert(place.clone(), due);
                self.pins.insert(place.clone(), group);
                subject.pinned = Some(group);
            }
            subject.pending = matches!(new, Resolution::Resolved(_)) && self.unstored.contains_key(&place);
            let nesting = match (new.clone(), tenant) {
                (Resolution::Resolved(group), Some(tenant)) if self.frozen != Some(FreezeReason::NotLoaded) => {
                    self.nestings.find(&subject.provider, tenant, group, &self.bounds)
                }
                _ => Arc::<Nesting>::default(),
            };
            if nesting != subject.nesting {
                let lost = subject.nesting.groups.keys().any(|group| !nesting.groups.contains_key(group));
                let urgency = if lost { Urgency::Revocation } else { Urgency::Addition };
                changed = changed.into_iter().chain([urgency]).min();
            }
            // One that is equal is the same for all mappings, too.
            subject.nesting = nesting;
            if new != subject.resolution {
                let lost = !matches!(subject.resolution, Resolution::NotFound | Resolution::Ambiguous);
                let urgency = if lost { Urgency::Revocation } else { Urgency::Addition };
                changed = changed.into_iter().chain([urgency]).min();
                subject.resolution = new;
            }
        }
        if mapping.subjects.iter().any(|subject| subject.nesting.truncated) {
            self.truncated.insert(key.clone());
        } else {
            self.truncated.remove(key);
        }
        self.link_groups(key, &before, &groups_of(&mapping));
        if let Some(urgency) = changed {
            effects.mappings.insert(key.clone());
            mapping.reach.documents.keys().for_each(|document| effects.document(document, urgency));
        }
        self.mappings.insert(key.clone(), mapping);
    }

    /// Updates the groups whose changes may change the meaning of a mapping.
    pub(super) fn link_groups(&mut self, key: &MappingKey, before: &BTreeSet<GroupId>, now: &BTreeSet<GroupId>) {
        for group in before.difference(now) {
            if let Some(keys) = self.by_group.get_mut(group) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_group.remove(group);
                }
            }
        }
        for group in now.difference(before) {
            self.by_group.entry(*group).or_default().insert(key.clone());
        }
    }

    /// Resolves `spec.grants` of a mapping and marks changed documents as dirty.
    pub(super) fn resolve_grants(&mut self, key: &MappingKey, effects: &mut Effects) {
        let Some(mapping) = self.mappings.get_mut(key) else { return };
        let reach = mapping.reach(key, &self.targets, &self.regions);
        let old: Matches = std::mem::replace(&mut mapping.reach, reach);
        let new: Vec<(DocumentKey, Option<Urgency>)> = mapping
            .reach
            .documents
            .iter()
            .map(|(document, roles)| match old.documents.get(document) {
                Some(before) if before == roles => (document.clone(), None),
                Some(_) => (document.clone(), Some(Urgency::Revocation)),
                None => (document.clone(), Some(Urgency::Addition)),
            })
            .collect();
        let gone: Vec<&DocumentKey> =
            old.documents.keys().filter(|document| !mapping.reach.documents.contains_key(*document)).collect();
        for document in gone {
            effects.document(document, Urgency::Revocation);
            self.unlink_document(key, document);
        }
        for (document, urgency) in new {
            if let Some(urgency) = urgency {
                effects.document(&document, urgency);
            }
            self.by_document.entry(document).or_default().insert(key.clone());
        }
    }
}

/// The groups whose changes may change the meaning of a mapping.
pub(super) fn groups_of(mapping: &Mapping) -> BTreeSet<GroupId> {
    let mut groups = BTreeSet::new();
    for subject in &mapping.subjects {
        groups.extend(match &subject.resolution {
            Resolution::Resolved(group) => Some(*group),
            Resolution::NotFound | Resolution::Ambiguous => None,
            Resolution::IdentityChanged { now, .. } => Some(*now),
            Resolution::Deleted { now, .. } => *now,
        });
        groups.extend(subject.pinned);
        groups.extend(subject.nesting.groups.keys());
    }
    groups
}

/// The meaning of a selector, given its pin and the groups accepted since.
fn resolve(
    tenant: Option<&Tenant>,
    selector: &Selector,
    pinned: Option<GroupId>,
    accepted: &BTreeSet<GroupId>,
) -> Resolution {
    let Some(tenant) = tenant else { return Resolution::NotFound };
    let mut named: Vec<GroupId> = tenant.named(selector).collect();
    let Some(pinned) = pinned else {
        return match named.as_slice() {
            [] => Resolution::NotFound,
            [group] => Resolution::Resolved(*group),
            _ => Resolution::Ambiguous,
        };
    };
    let present = tenant.group(pinned).map(|group| group.state);
    if present == Some(GroupState::Present) && (named.is_empty() || named.contains(&pinned)) {
        return Resolution::Resolved(pinned);
    }
    named.retain(|group| *group != pinned);
    if let Some(group) = named.iter().find(|group| accepted.contains(group)) {
        return Resolution::Resolved(*group);
    }
    match (present, named.first()) {
        (Some(GroupState::Deleted), now) => Resolution::Deleted { pinned, now: now.copied() },
        (_, Some(now)) => Resolution::IdentityChanged { pinned, now: *now },
        (_, None) => Resolution::NotFound,
    }
}
