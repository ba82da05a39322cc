//! The index of mappings and directories: computes who should have which role on which document, and which documents a
//! change affects. Pure and synchronous; the state depends on the facts but not on the order in which they arrive.
//!
//! ```text
//! watches ──apply_mapping/target/provider──► Catalog ◄──apply_directory── event log
//!                                             │  every call answers with Effects: dirty documents, pins, views
//!                                             ▼
//!                                   desired(document, claimants) ──► plan
//! ```
//!
//! Absence is not deletion: when a fact is not available, the claims that depend on it are frozen. [`Catalog::desired`]
//! says so for every claimant of a document through its [`crate::model::Enforcement`].

mod desired;
mod entitlement;
mod expiry;
mod explain;
mod inventory;
mod mapping;
mod nesting;
mod resolve;
mod tenant;
mod view;

#[cfg(test)]
mod digest;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::api::{CloudRunTargetSpec, IdentityProviderSpec, MappingMode, RoleMappingSpec};
use crate::model::{
    ClaimDisposal, DirectoryChange, DocumentKey, FreezeReason, GroupId, MappingKey, MappingPhase, PhaseEffect,
    PhaseEvent, Pin, ProviderName, TargetName, Transition, UserId,
};

use mapping::{Labels, Mapping, Regions, Target};
use nesting::Nestings;
use resolve::groups_of;
use tenant::{Selector, Tenant};

pub(crate) use explain::{Explained, Explanation, Named, Standing};
pub(crate) use inventory::{Inventory, InventoryItem};
pub(crate) use mapping::Resolution;
pub(crate) use nesting::NestingBounds;
pub(crate) use view::{Acceptance, MappingView, SubjectNesting, SubjectView, TargetView};

/// Upper limit of what any mapping may do (`--mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ceiling {
    /// Plan and report, write nothing.
    Observe,
    /// Each mapping is carried out in its own mode.
    Enforce,
}

/// Urgency of planning a document again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Immediately, because somebody may have to lose access.
    Revocation,
    /// After a window in which a burst of changes becomes one write.
    Addition,
}

/// The effects of a change of the index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Effects {
    /// Documents to plan again. Documents that only the ledger knows must be found in the ledger.
    pub(crate) dirty: BTreeMap<DocumentKey, Urgency>,
    /// Names that were resolved for the first time, or accepted again. They must be stored and reported to
    /// [`Catalog::pins_stored`] before anything is wanted because of them.
    pub(crate) pins: Vec<Pin>,
    /// Mappings whose view may have changed.
    pub(crate) mappings: BTreeSet<MappingKey>,
    /// Targets whose view may have changed.
    pub(crate) targets: BTreeSet<TargetName>,
    /// Providers whose view may have changed.
    pub(crate) providers: BTreeSet<ProviderName>,
    /// People who may lose claims that only the ledger can find.
    pub(crate) people: BTreeSet<UserId>,
}

impl Effects {
    /// Adds the effects of another change.
    pub(crate) fn merge(&mut self, other: Self) {
        for (document, urgency) in &other.dirty {
            self.document(document, *urgency);
        }
        self.pins.extend(other.pins);
        self.mappings.extend(other.mappings);
        self.targets.extend(other.targets);
        self.providers.extend(other.providers);
        self.people.extend(other.people);
    }

    fn document(&mut self, document: &DocumentKey, urgency: Urgency) {
        let known = self.dirty.entry(document.clone()).or_insert(urgency);
        *known = (*known).min(urgency);
    }
}

/// The key of a pin: mapping, provider, selector.
type Slot = (MappingKey, ProviderName, String);

/// The index.
pub(crate) struct Catalog {
    ceiling: Ceiling,
    frozen: Option<FreezeReason>,
    /// True when rolecall is being uninstalled and all grants stay.
    leave_all: bool,
    tenants: BTreeMap<ProviderName, Tenant>,
    targets: BTreeMap<TargetName, Target>,
    regions: Regions,
    mappings: BTreeMap<MappingKey, Mapping>,
    /// The labels of namespaces that have any.
    namespaces: BTreeMap<String, Labels>,
    pins: BTreeMap<Slot, GroupId>,
    /// Pins that are not known to be stored, and how soon their documents are due once they are.
    unstored: BTreeMap<Slot, Urgency>,
    by_document: BTreeMap<DocumentKey, BTreeSet<MappingKey>>,
    /// Mappings affected by a group: because it is resolved, pinned, has the name of a pinned one, or is nested in a
    /// resolved one.
    by_group: HashMap<GroupId, BTreeSet<MappingKey>>,
    by_name: HashMap<(ProviderName, Selector), BTreeSet<MappingKey>>,
    bounds: NestingBounds,
    nestings: Nestings,
    /// The time by which ends of grants are decided.
    as_of: Timestamp,
    /// The mappings with grants that end at a time.
    ends: BTreeMap<Timestamp, BTreeSet<MappingKey>>,
    /// Mappings of which some nested groups are beyond the bounds, and so not in `by_group`.
    truncated: BTreeSet<MappingKey>,
}

impl Catalog {
    /// Creates an empty index, frozen as [`FreezeReason::NotLoaded`].
    #[must_use]
    pub(crate) fn new(ceiling: Ceiling) -> Self {
        Self {
            ceiling,
            frozen: Some(FreezeReason::NotLoaded),
            leave_all: false,
            tenants: BTreeMap::new(),
            targets: BTreeMap::new(),
            regions: Regions::default(),
            mappings: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            pins: BTreeMap::new(),
            unstored: BTreeMap::new(),
            by_document: BTreeMap::new(),
            by_group: HashMap::new(),
            by_name: HashMap::new(),
            bounds: NestingBounds::default(),
            nestings: Nestings::default(),
            as_of: Timestamp::MIN,
            ends: BTreeMap::new(),
            truncated: BTreeSet::new(),
        }
    }

    /// Adds or replaces the spec of an `IdentityProvider`.
    pub(crate) fn apply_provider(&mut self, name: ProviderName, spec: IdentityProviderSpec) -> Effects {
        let mut effects = Effects::default();
        let tenant = self.tenants.entry(name.clone()).or_default();
        let is_new = tenant.spec.is_none();
        if tenant.spec.as_ref() == Some(&spec) {
            return effects;
        }
        let before = (tenant.resolves_nesting(), tenant.ignores_by_age());
        let changed = tenant.apply_spec(spec);
        if (tenant.resolves_nesting(), tenant.ignores_by_age()) != before {
            self.nesting_changed(&name, &mut effects);
        }
        if changed {
            let urgency = if is_new { Urgency::Addition } else { Urgency::Revocation };
            self.provider_changed(&name, urgency, &mut effects);
        }
        effects.providers.insert(name);
        effects
    }

    /// Removes an `IdentityProvider`: its claims freeze. Its directory stays.
    pub(crate) fn remove_provider(&mut self, name: &ProviderName) -> Effects {
        let mut effects = Effects::default();
        if self.tenants.get_mut(name).is_some_and(|tenant| tenant.spec.take().is_some()) {
            self.nesting_changed(name, &mut effects);
            self.provider_changed(name, Urgency::Addition, &mut effects);
            effects.providers.insert(name.clone());
        }
        effects
    }

    /// Sets whether the people and groups stored under this name belong to a former `IdentityProvider`. While they do,
    /// the claims that depend on them are frozen.
    pub(crate) fn set_former(&mut self, name: &ProviderName, former: bool) -> Effects {
        let mut effects = Effects::default();
        let tenant = self.tenants.entry(name.clone()).or_default();
        if std::mem::replace(&mut tenant.former, former) != former {
            self.provider_changed(name, Urgency::Revocation, &mut effects);
            effects.providers.insert(name.clone());
        }
        effects
    }

    fn provider_changed(&self, name: &ProviderName, urgency: Urgency, effects: &mut Effects) {
        for (key, mapping) in &self.mappings {
            if mapping.subjects.iter().any(|subject| subject.provider == *name) {
                effects.mappings.insert(key.clone());
                mapping.reach.documents.keys().for_each(|document| effects.document(document, urgency));
            }
        }
    }

    /// Adds or replaces the spec of a `CloudRunTarget`. `age` is its creation time: of two targets that cover one
    /// region, the older one owns it. Claims freeze until the resources are listed, and again when project or regions
    /// change.
    pub(crate) fn apply_target(&mut self, name: TargetName, spec: CloudRunTargetSpec, age: Timestamp) -> Effects {
        let mut effects = Effects::default();
        let old = self.targets.get(&name);
        if old.is_some_and(|old| old.spec == spec && old.age == age) {
            return effects;
        }
        let mut target = Target::new(spec, age);
        if let Some(old) = self.targets.remove(&name)
            && old.spec.project == target.spec.project
            && old.spec.locations == target.spec.locations
        {
            target.inventory = old.inventory;
            target.failed = old.failed;
        }
        self.targets.insert(name.clone(), target);
        self.targets_changed(name, &mut effects);
        effects
    }

    /// Removes a `CloudRunTarget`: claims on its documents freeze.
    pub(crate) fn remove_target(&mut self, name: &TargetName) -> Effects {
        let mut effects = Effects::default();
        if self.targets.remove(name).is_some() {
            self.targets_changed(name.clone(), &mut effects);
        }
        effects
    }

    fn targets_changed(&mut self, name: TargetName, effects: &mut Effects) {
        let regions = Regions::of(&self.targets);
        effects.targets.extend(regions.changed(&self.regions));
        effects.targets.insert(name);
        self.regions = regions;
        self.reach_again(&effects.targets.clone(), effects);
    }

    /// Resolves the grants of the mappings that name one of these targets again.
    fn reach_again(&mut self, targets: &BTreeSet<TargetName>, effects: &mut Effects) {
        let keys: Vec<MappingKey> = self
            .mappings
            .iter()
            .filter(|(_, mapping)| mapping.grants.iter().any(|grant| targets.contains(&grant.target)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.resolve_grants(&key, effects);
            effects.mappings.insert(key);
        }
    }

    /// Sets whether the mapping takes over grants that somebody else made.
    #[must_use]
    pub(crate) fn set_adopts(&mut self, key: &MappingKey, adopts: bool) -> Effects {
        let mut effects = Effects::default();
        if let Some(mapping) = self.mappings.get_mut(key).filter(|mapping| mapping.adopts != adopts) {
            mapping.adopts = adopts;
            for document in mapping.reach.documents.keys() {
                effects.document(document, Urgency::Addition);
            }
            effects.mappings.insert(key.clone());
        }
        effects
    }

    /// Adds or replaces the spec of a `RoleMapping`. `accepted`: the groups named by the annotation
    /// `rolecall.dev/accept-group`. Ends a freeze, a termination or the phase `Missing`.
    pub(crate) fn apply_mapping(
        &mut self,
        key: MappingKey,
        generation: i64,
        spec: RoleMappingSpec,
        accepted: BTreeSet<GroupId>,
    ) -> Effects {
        let mut effects = Effects::default();
        if let Some(known) = self.mappings.get_mut(&key)
            && known.spec.as_ref() == Some(&spec)
            && known.accepted == accepted
            && known.phase == MappingPhase::Live
        {
            if known.generation != generation {
                known.generation = generation;
                effects.mappings.insert(key);
            }
            return effects;
        }
        let old = self.unlink(&key);
        let urgency = if old.is_some() { Urgency::Revocation } else { Urgency::Addition };
        for document in old.iter().flat_map(|old| old.reach.documents.keys()) {
            effects.document(document, urgency);
        }
        let mut mapping = Mapping::new(generation, spec, accepted);
        for mapping in old.iter().chain([&mapping]) {
            self.named_targets(mapping, &mut effects);
        }
        let before = old.as_ref().map(|old| old.phase);
        if let Some(phase) = MappingPhase::after(before, PhaseEvent::Applied).next {
            mapping.phase = phase;
        }
        mapping.labels = self.namespaces.get(key.namespace()).cloned().unwrap_or_default();
        for subject in &mapping.subjects {
            let name = (subject.provider.clone(), subject.selector.clone());
            self.by_name.entry(name).or_default().insert(key.clone());
        }
        self.link_ends(&key, &mapping);
        self.mappings.insert(key.clone(), mapping);
        self.resolve_subjects(&key, &mut effects);
        self.resolve_grants(&key, &mut effects);
        let reached: Vec<DocumentKey> = self.mappings[&key].reach.documents.keys().cloned().collect();
        for document in &reached {
            effects.document(document, urgency);
        }
        effects.mappings.insert(key);
        effects
    }

    /// Sets the uid of a mapping object, which is recorded with its claims.
    pub(crate) fn identify_mapping(&mut self, key: &MappingKey, uid: &str) {
        if let Some(mapping) = self.mappings.get_mut(key)
            && mapping.uid.as_deref() != Some(uid)
        {
            mapping.uid = Some(uid.into());
        }
    }

    /// Sets the labels of a namespace, which may delegate something to its mappings or withdraw it.
    pub(crate) fn apply_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) -> Effects {
        let mut effects = Effects::default();
        if self.namespaces.get(name).map_or(labels.is_empty(), |known| *known == labels) {
            return effects;
        }
        let keys: Vec<MappingKey> = self.mappings.keys().filter(|key| key.namespace() == name).cloned().collect();
        for key in keys {
            if let Some(mapping) = self.mappings.get_mut(&key) {
                mapping.labels.clone_from(&labels);
            }
            self.resolve_grants(&key, &mut effects);
            effects.mappings.insert(key);
        }
        if labels.is_empty() {
            self.namespaces.remove(name);
        } else {
            self.namespaces.insert(name.to_owned(), labels);
        }
        effects
    }

    /// Makes all grants stay, whatever the targets permit, because rolecall is being uninstalled.
    pub(crate) fn leave_all(&mut self) {
        self.leave_all = true;
    }

    /// Phase of a mapping; none when nothing is known of it.
    #[must_use]
    pub(crate) fn phase(&self, key: &MappingKey) -> Option<MappingPhase> {
        self.mappings.get(key).map(|mapping| mapping.phase)
    }

    /// The disposal of a terminating mapping's claims, according to its last `deletionPolicy`.
    #[must_use]
    pub(crate) fn disposal(&self, key: &MappingKey) -> ClaimDisposal {
        self.mappings.get(key).map_or(ClaimDisposal::Revoke, Mapping::disposal)
    }

    /// Applies an event that brings no spec: the phase changes as in [`MappingPhase::on`]. Documents that only the
    /// ledger knows are not among the effects. An existing object comes through [`Catalog::apply_mapping`].
    pub(crate) fn advance(&mut self, key: &MappingKey, event: PhaseEvent) -> Effects {
        let Transition { next, effects } = MappingPhase::after(self.phase(key), event);
        match next {
            Some(phase) if effects.contains(&PhaseEffect::Plan) => self.set_phase(key, phase),
            Some(phase) => {
                if let Some(mapping) = self.mappings.get_mut(key) {
                    mapping.phase = phase;
                }
                let mappings = (!effects.is_empty()).then(|| key.clone()).into_iter().collect();
                Effects { mappings, ..Effects::default() }
            }
            None => self.forget_mapping(key),
        }
    }

    /// Sets the stored phase of a mapping.
    pub(crate) fn set_phase(&mut self, key: &MappingKey, phase: MappingPhase) -> Effects {
        let mut effects = Effects::default();
        let mapping = self.mappings.entry(key.clone()).or_insert_with(|| Mapping::unknown(phase));
        mapping.phase = phase;
        mapping.reach.documents.keys().for_each(|document| effects.document(document, Urgency::Revocation));
        effects.mappings.insert(key.clone());
        effects
    }

    /// Forgets a mapping whose revocation is complete, including its pins.
    pub(crate) fn forget_mapping(&mut self, key: &MappingKey) -> Effects {
        let mut effects = Effects::default();
        if let Some(old) = self.unlink(key) {
            self.named_targets(&old, &mut effects);
            old.reach.documents.keys().for_each(|document| effects.document(document, Urgency::Addition));
            effects.mappings.insert(key.clone());
        }
        self.pins.retain(|(mapping, ..), _| mapping != key);
        self.unstored.retain(|(mapping, ..), _| mapping != key);
        effects
    }

    /// Freezes everything, or ends that freeze. Changes made meanwhile are due then.
    pub(crate) fn freeze_all(&mut self, why: Option<FreezeReason>) -> Effects {
        let mut effects = Effects::default();
        if self.frozen == why {
            return effects;
        }
        // Nested groups are not followed before all of them are loaded.
        let loaded = std::mem::replace(&mut self.frozen, why) == Some(FreezeReason::NotLoaded);
        effects.mappings = self.mappings.keys().cloned().collect();
        effects.targets = self.targets.keys().cloned().collect();
        if why.is_none() || loaded {
            for key in effects.mappings.clone() {
                self.resolve_subjects(&key, &mut effects);
            }
        }
        if why.is_none() {
            for document in self.by_document.keys() {
                effects.document(document, Urgency::Revocation);
            }
        }
        effects
    }

    /// Adds a pin from the store.
    pub(crate) fn apply_pin(&mut self, pin: Pin) {
        let Pin { mapping, provider, selector, group } = pin;
        let place = (mapping.clone(), provider, selector);
        self.unstored.remove(&place);
        self.pins.insert(place, group);
        self.resolve_subjects(&mapping, &mut Effects::default());
    }

    /// Marks these pins as durable; what depends on them is wanted from then on.
    pub(crate) fn pins_stored(&mut self, pins: &[Pin]) -> Effects {
        let mut effects = Effects::default();
        for pin in pins {
            let place = (pin.mapping.clone(), pin.provider.clone(), pin.selector.clone());
            if self.pins.get(&place) != Some(&pin.group) {
                continue;
            }
            let Some(urgency) = self.unstored.remove(&place) else { continue };
            let Some(mapping) = self.mappings.get_mut(&pin.mapping) else { continue };
            for subject in &mut mapping.subjects {
                if subject.provider == pin.provider && subject.selector.to_string() == pin.selector {
                    subject.pending = false;
                }
            }
            effects.mappings.insert(pin.mapping.clone());
            mapping.reach.documents.keys().for_each(|document| effects.document(document, urgency));
        }
        effects
    }

    /// Applies one change of a directory. The cost is proportional to what the change touches: people, and the
    /// documents of mappings whose groups they are in.
    pub(crate) fn apply_directory(&mut self, provider: &ProviderName, change: &DirectoryChange) -> Effects {
        let mut effects = Effects::default();
        let is_new = !self.tenants.contains_key(provider);
        let tenant = self.tenants.entry(provider.clone()).or_default();
        let touched = tenant.apply(change);
        if is_new || !touched.names.is_empty() {
            effects.providers.insert(provider.clone());
        }
        let of_nesting = matches!(change, DirectoryChange::Nested { .. } | DirectoryChange::GroupDeleted { .. });
        if of_nesting {
            effects.providers.insert(provider.clone());
        }
        let of_group = of_nesting || matches!(change, DirectoryChange::Group(_));
        let of_members = matches!(change, DirectoryChange::Members { .. } | DirectoryChange::UserDeleted { .. });
        let of_person = matches!(change, DirectoryChange::User(_) | DirectoryChange::UserDeleted { .. });
        let mut resolve = BTreeSet::new();
        for (group, urgency) in &touched.groups {
            for key in self.by_group.get(group).into_iter().flatten() {
                let Some(mapping) = self.mappings.get(key) else { continue };
                effects.mappings.insert(key.clone());
                if of_group {
                    resolve.insert(key.clone());
                }
                let resolved = |subject: &&mapping::Subject| subject.means(*group);
                let acts = mapping.phase == MappingPhase::Live && mapping.mode() != MappingMode::Suspend;
                let through = acts && mapping.subjects.iter().any(|subject| resolved(&subject));
                // A leaver also loses what is frozen.
                let leaver = of_person && *urgency == Some(Urgency::Revocation);
                // The number of memberships in nested groups is bounded, whoever they are.
                let nested = |subject: &&mapping::Subject| subject.nesting.groups.contains_key(group);
                let counted = !of_group && mapping.subjects.iter().any(|subject| nested(&subject));
                for subject in mapping.subjects.iter().filter(resolved) {
                    if of_members {
                        subject.nesting.people_changed();
                    } else if of_nesting {
                        self.nestings.forget(subject);
                    }
                }
                let urgency = urgency.or(counted.then_some(Urgency::Addition));
                if let (Some(urgency), true) = (urgency, through || leaver) {
                    for (document, roles) in &mapping.reach.documents {
                        if roles.values().any(|providers| providers.contains(provider)) {
                            effects.document(document, urgency);
                        }
                    }
                }
            }
        }
        for selector in &touched.names {
            resolve.extend(self.by_name.get(&(provider.clone(), selector.clone())).into_iter().flatten().cloned());
        }
        for key in resolve {
            self.resolve_subjects(&key, &mut effects);
        }
        let moved = of_person && touched.groups.values().any(|urgency| *urgency == Some(Urgency::Revocation));
        self.look_beyond_bounds(provider, change, moved, &mut effects);
        effects
    }

    /// Removes a mapping from all indexes that refer to it.
    fn unlink(&mut self, key: &MappingKey) -> Option<Mapping> {
        let old = self.mappings.remove(key)?;
        for subject in &old.subjects {
            let name = (subject.provider.clone(), subject.selector.clone());
            if let Some(keys) = self.by_name.get_mut(&name) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
        self.link_groups(key, &groups_of(&old), &BTreeSet::new());
        self.unlink_ends(key, &old);
        self.truncated.remove(key);
        for document in old.reach.documents.keys() {
            self.unlink_document(key, document);
        }
        Some(old)
    }

    fn unlink_document(&mut self, key: &MappingKey, document: &DocumentKey) {
        if let Some(keys) = self.by_document.get_mut(document) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_document.remove(document);
            }
        }
    }
}
