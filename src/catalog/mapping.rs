//! Mappings and targets in the index: parsed once, resolved again when something they name changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::glob::ResourcePattern;
use crate::api::{CloudRunTargetSpec, MappingMode, OnMissing, Permission, RoleMappingSpec};
use crate::model::{
    ClaimDisposal, DocumentKey, FreezeReason, GroupId, MappingKey, MappingPhase, ProviderName, Reason, ResourceKind,
    Role, TargetName,
};

use super::entitlement::{Entitlement, Terms};
use super::nesting::Nesting;
use super::tenant::Selector;
use super::{Inventory, InventoryItem};

/// Number of refused paths that are listed; the count is exact.
pub(crate) const REFUSED_LISTED: usize = 50;

/// A target, its delegation and its inventory.
pub(super) struct Target {
    pub(super) spec: CloudRunTargetSpec,
    pub(super) age: Timestamp,
    allow: Vec<Allow>,
    /// The last list, including resources in regions that belong to other targets.
    pub(super) inventory: Option<KnownResources>,
    pub(super) failed: bool,
}

/// The labels of a namespace.
pub(super) type Labels = BTreeMap<String, String>;

struct Allow {
    namespaces: BTreeSet<String>,
    /// Labels that a namespace must all have; none: namespaces are not selected by labels.
    labels: Labels,
    providers: BTreeSet<String>,
    resources: Vec<ResourcePattern>,
    roles: BTreeSet<String>,
    permit: BTreeSet<Permission>,
}

#[derive(PartialEq, Eq)]
pub(super) struct KnownResources {
    pub(super) items: BTreeMap<DocumentKey, InventoryItem>,
    pub(super) unlisted: BTreeSet<(String, ResourceKind)>,
}

impl KnownResources {
    /// Combines a new list with the former knowledge of what could not be listed now.
    pub(super) fn of(inventory: Inventory, before: Option<&Self>) -> Self {
        let Inventory { resources, unlisted } = inventory;
        let mut items: BTreeMap<_, _> = resources.into_iter().map(|item| (item.document.clone(), item)).collect();
        for (document, item) in before.into_iter().flat_map(|before| &before.items) {
            if unlisted.contains(&(document.location().to_owned(), document.kind())) {
                items.entry(document.clone()).or_insert_with(|| item.clone());
            }
        }
        Self { items, unlisted }
    }

    /// True when this kind was listed in all the regions.
    pub(super) fn lists(&self, kind: ResourceKind, region: impl Fn(&str) -> bool) -> bool {
        !self.unlisted.iter().any(|(location, unlisted)| *unlisted == kind && region(location))
    }
}

impl Allow {
    /// True when the mapping's namespace is named, or has all the labels.
    fn admits_namespace(&self, mapping: &MappingKey, labels: &Labels) -> bool {
        let labelled =
            || !self.labels.is_empty() && self.labels.iter().all(|(label, value)| labels.get(label) == Some(value));
        self.namespaces.contains(mapping.namespace()) || labelled()
    }
}

impl Target {
    pub(super) fn new(spec: CloudRunTargetSpec, age: Timestamp) -> Self {
        let allow = spec
            .allow
            .iter()
            .map(|allow| Allow {
                namespaces: allow.namespaces.names.iter().cloned().collect(),
                labels: allow.namespaces.match_labels.clone(),
                providers: allow.identity_providers.iter().cloned().collect(),
                resources: allow.resources.iter().filter_map(|text| ResourcePattern::parse(text).ok()).collect(),
                roles: allow.roles.iter().cloned().collect(),
                permit: allow.permit.iter().copied().collect(),
            })
            .collect();
        Self { spec, age, allow, inventory: None, failed: false }
    }

    /// True when the last list was complete.
    pub(super) fn is_listed(&self) -> bool {
        !self.failed && self.inventory.as_ref().is_some_and(|known| known.unlisted.is_empty())
    }

    /// True when the last list included this kind in all the regions.
    pub(super) fn lists(&self, kind: ResourceKind, region: impl Fn(&str) -> bool) -> bool {
        !self.failed && self.inventory.as_ref().is_some_and(|known| known.lists(kind, region))
    }

    /// True when the last list was complete for the region and kind of this document and does not contain it.
    pub(super) fn lacks(&self, document: &DocumentKey) -> bool {
        self.lists(document.kind(), |location| location == document.location())
            && self.inventory.as_ref().is_some_and(|known| !known.items.contains_key(document))
    }

    /// The delegation entries that apply to a mapping, whatever the resource.
    fn entries<'a>(
        &'a self,
        (mapping, labels): Place<'a>,
        provider: &'a ProviderName,
        role: &'a str,
    ) -> impl Iterator<Item = &'a Allow> {
        self.allow.iter().filter(move |allow| {
            allow.admits_namespace(mapping, labels)
                && allow.providers.contains(provider.as_str())
                && allow.roles.contains(role)
        })
    }

    fn admits(&self, mapping: Place<'_>, provider: &ProviderName, role: &str, document: &DocumentKey) -> bool {
        self.entries(mapping, provider, role)
            .any(|allow| allow.resources.iter().any(|pattern| pattern.matches(document.kind(), document.name())))
    }

    /// The roles on a document for which a mapping has this permission, whichever of its providers the people come
    /// from.
    fn permitted(&self, place: Place<'_>, mapping: &Mapping, on: &DocumentKey, what: Permission) -> BTreeSet<Role> {
        let entries = || self.allow.iter().filter(|allow| allow.permit.contains(&what));
        let roles: BTreeSet<&String> = entries().flat_map(|allow| &allow.roles).collect();
        let admits = |role: &str, provider: &ProviderName| {
            self.entries(place, provider, role).any(|allow| {
                allow.permit.contains(&what)
                    && allow.resources.iter().any(|pattern| pattern.matches(on.kind(), on.name()))
            })
        };
        let providers = mapping.providers();
        let all = |role: &&&String| !providers.is_empty() && providers.iter().all(|provider| admits(role, provider));
        roles.iter().filter(all).filter_map(|role| Role::new(role).ok()).collect()
    }

    /// True when a resource matched by the pattern, now or later, could be admitted.
    fn may_admit(&self, mapping: Place<'_>, provider: &ProviderName, role: &str, pattern: &ResourcePattern) -> bool {
        self.entries(mapping, provider, role).any(|allow| match pattern.literal() {
            Some(name) => allow.resources.iter().any(|allowed| allowed.matches(pattern.kind(), name)),
            None => allow.resources.iter().any(|allowed| allowed.kind() == pattern.kind()),
        })
    }
}

/// A mapping and the labels of its namespace, to which delegation applies.
type Place<'a> = (&'a MappingKey, &'a Labels);

/// The targets that cover each region of each project. The first one, which is the oldest and then the first by name,
/// owns the region; it overlaps those after it. The only answer to which target a document belongs to.
#[derive(Default)]
pub(super) struct Regions(BTreeMap<String, BTreeMap<String, Vec<TargetName>>>);

impl Regions {
    pub(super) fn of(targets: &BTreeMap<TargetName, Target>) -> Self {
        let mut by_age: Vec<_> = targets.iter().map(|(name, target)| (target.age, name, target)).collect();
        by_age.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let mut regions = Self::default();
        for (_, name, target) in by_age {
            for location in &target.spec.locations {
                let project = regions.0.entry(target.spec.project.clone()).or_default();
                let covering = project.entry(location.clone()).or_default();
                if !covering.contains(name) {
                    covering.push(name.clone());
                }
            }
        }
        regions
    }

    pub(super) fn owner(&self, document: &DocumentKey) -> Option<&TargetName> {
        self.in_region(document.project(), document.location())
    }

    pub(super) fn in_region(&self, project: &str, location: &str) -> Option<&TargetName> {
        self.covering(project, location).first()
    }

    /// True when the target covers the document but an older one owns it.
    pub(super) fn is_overlapped(&self, target: &TargetName, document: &DocumentKey) -> bool {
        self.covering(document.project(), document.location()).iter().skip(1).any(|covering| covering == target)
    }

    fn covering(&self, project: &str, location: &str) -> &[TargetName] {
        self.0.get(project).and_then(|locations| locations.get(location)).map_or(&[], Vec::as_slice)
    }

    /// Targets that gained or lost a region.
    pub(super) fn changed(&self, other: &Self) -> BTreeSet<TargetName> {
        let all = |of: &Self| -> BTreeSet<(String, String)> {
            let each = |(project, locations): (&String, &BTreeMap<String, Vec<TargetName>>)| {
                locations.keys().map(|location| (project.clone(), location.clone())).collect::<Vec<_>>()
            };
            of.0.iter().flat_map(each).collect()
        };
        let regions: BTreeSet<_> = all(self).into_iter().chain(all(other)).collect();
        let owners = regions.iter().map(|(project, at)| [self.in_region(project, at), other.in_region(project, at)]);
        owners.filter(|[now, before]| now != before).flatten().flatten().cloned().collect()
    }
}

/// The current meaning of a group selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// This group, and no other since it was pinned.
    Resolved(GroupId),
    /// No group of that name was ever pushed, or the pinned group does not exist.
    NotFound,
    /// Several groups have that name.
    Ambiguous,
    /// The pinned group lost the name to another group, which gets nothing until it is accepted.
    IdentityChanged {
        /// The group that the mapping meant.
        pinned: GroupId,
        /// The group that has the name now.
        now: GroupId,
    },
    /// The pinned group was deleted over SCIM: its grants are revoked.
    Deleted {
        /// The group that the mapping meant.
        pinned: GroupId,
        /// A later group of that name, which gets nothing until it is accepted.
        now: Option<GroupId>,
    },
}

impl Resolution {
    /// The reason for which claims that may have come through this selector stay, if any.
    #[must_use]
    pub(crate) fn freeze(&self) -> Option<FreezeReason> {
        match self {
            Self::NotFound => Some(FreezeReason::GroupNotFound),
            Self::Ambiguous => Some(FreezeReason::GroupAmbiguous),
            Self::IdentityChanged { .. } => Some(FreezeReason::GroupIdentityChanged),
            Self::Resolved(_) | Self::Deleted { .. } => None,
        }
    }

    /// The condition reason; none when the selector is resolved.
    #[must_use]
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Deleted { now: None, .. } => Some(Reason::GroupDeleted),
            Self::Deleted { now: Some(_), .. } => Some(FreezeReason::GroupIdentityChanged.reason()),
            other => other.freeze().map(FreezeReason::reason),
        }
    }
}

/// One way in which a mapping names a group.
pub(super) struct Subject {
    pub(super) provider: ProviderName,
    pub(super) selector: Selector,
    /// The group it referred to when it was first resolved, or that was accepted since.
    pub(super) pinned: Option<GroupId>,
    pub(super) resolution: Resolution,
    /// The groups nested in it, while it is resolved.
    pub(super) nesting: Arc<Nesting>,
    /// True while the selector is resolved but its pin is not known to be stored: until then nothing is wanted because
    /// of it.
    pub(super) pending: bool,
}

/// One entry of `spec.grants`.
pub(super) struct Grant {
    pub(super) target: TargetName,
    patterns: Vec<ResourcePattern>,
    roles: Vec<Role>,
    pub(super) terms: Terms,
}

impl Grant {
    /// The kinds of resources that the entry may match.
    pub(super) fn kinds(&self) -> BTreeSet<ResourceKind> {
        self.patterns.iter().map(ResourcePattern::kind).collect()
    }
}

/// A part of the mapping that gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Refused {
    /// Why it gives nothing.
    pub(crate) reason: Reason,
    /// The path of the entry in the spec: `spec.grants[0].roles[1]`.
    pub(crate) path: String,
    /// The resource, or the pattern when none of its matches is delegated.
    pub(crate) resource: String,
    /// The role.
    pub(crate) role: String,
    /// The provider of the groups that are refused.
    pub(crate) provider: ProviderName,
}

/// The grants of a mapping on one document: what it gives, each with the providers whose groups get it.
pub(super) type Roles = BTreeMap<Entitlement, BTreeSet<ProviderName>>;

/// The documents and roles of a mapping, resolved against targets and inventories.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Matches {
    pub(super) documents: BTreeMap<DocumentKey, Roles>,
    pub(super) refused: Vec<Refused>,
    pub(super) refused_count: usize,
    pub(super) unmatched: Vec<(TargetName, String)>,
}

/// A mapping with its parsed spec.
pub(super) struct Mapping {
    /// The uid of the mapping object, where known.
    pub(super) uid: Option<Arc<str>>,
    pub(super) generation: i64,
    pub(super) spec: Option<RoleMappingSpec>,
    pub(super) accepted: BTreeSet<GroupId>,
    /// True when it takes over grants that somebody else made, where the target permits that.
    pub(super) adopts: bool,
    pub(super) phase: MappingPhase,
    pub(super) subjects: Vec<Subject>,
    pub(super) grants: Vec<Grant>,
    /// Malformed parts of the spec, which validation should have rejected earlier.
    pub(super) invalid: Vec<String>,
    pub(super) reach: Matches,
    /// The labels of its namespace, where known.
    pub(super) labels: Labels,
}

impl Mapping {
    pub(super) fn new(generation: i64, spec: RoleMappingSpec, accepted: BTreeSet<GroupId>) -> Self {
        let mut subjects = Vec::new();
        let mut grants = Vec::new();
        let mut invalid = Vec::new();
        for (at, subject) in spec.subjects.iter().enumerate() {
            let Ok(provider) = ProviderName::new(&subject.identity_provider) else {
                invalid.push(format!("spec.subjects[{at}].identityProvider"));
                continue;
            };
            for (group, selector) in subject.groups.iter().enumerate() {
                match Selector::of(selector) {
                    Some(selector) => subjects.push(Subject {
                        provider: provider.clone(),
                        selector,
                        pinned: None,
                        resolution: Resolution::NotFound,
                        nesting: Arc::default(),
                        pending: false,
                    }),
                    None => invalid.push(format!("spec.subjects[{at}].groups[{group}]")),
                }
            }
        }
        for (at, grant) in spec.grants.iter().enumerate() {
            let Ok(target) = TargetName::new(&grant.target.name) else {
                invalid.push(format!("spec.grants[{at}].target.name"));
                continue;
            };
            let mut patterns = Vec::new();
            for (index, text) in grant.resources.iter().enumerate() {
                match ResourcePattern::parse(text) {
                    Ok(pattern) => patterns.push(pattern),
                    Err(_) => invalid.push(format!("spec.grants[{at}].resources[{index}]")),
                }
            }
            let mut roles = Vec::new();
            for (index, text) in grant.roles.iter().enumerate() {
                match Role::new(text) {
                    Ok(role) => roles.push(role),
                    Err(_) => invalid.push(format!("spec.grants[{at}].roles[{index}]")),
                }
            }
            grants.push(Grant { target, patterns, roles, terms: Terms::of(grant) });
        }
        Self {
            uid: None,
            generation,
            spec: Some(spec),
            accepted,
            adopts: false,
            phase: MappingPhase::Live,
            subjects,
            grants,
            invalid,
            reach: Matches::default(),
            labels: Labels::new(),
        }
    }

    /// A mapping that is known only by its claims.
    pub(super) fn unknown(phase: MappingPhase) -> Self {
        Self {
            uid: None,
            generation: 0,
            spec: None,
            accepted: BTreeSet::new(),
            adopts: false,
            phase,
            subjects: vec![],
            grants: vec![],
            invalid: vec![],
            reach: Matches::default(),
            labels: Labels::new(),
        }
    }

    pub(super) fn mode(&self) -> MappingMode {
        self.spec.as_ref().map_or(MappingMode::Suspend, |spec| spec.mode)
    }

    pub(super) fn regrants(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.on_missing == OnMissing::Revert)
    }

    /// The disposal of its claims according to its `deletionPolicy`.
    pub(super) fn disposal(&self) -> ClaimDisposal {
        self.spec.as_ref().map_or(ClaimDisposal::Revoke, |spec| spec.deletion_policy.into())
    }

    /// The roles on a document for which the target gives this mapping a permission.
    pub(super) fn permitted(
        &self,
        key: &MappingKey,
        target: &Target,
        document: &DocumentKey,
        what: Permission,
    ) -> BTreeSet<Role> {
        target.permitted((key, &self.labels), self, document, what)
    }

    pub(super) fn names(&self, target: &TargetName) -> bool {
        self.grants.iter().any(|grant| grant.target == *target)
    }

    pub(super) fn providers(&self) -> BTreeSet<&ProviderName> {
        self.subjects.iter().map(|subject| &subject.provider).collect()
    }

    /// The roles that its patterns give on a document by name alone, whether or not an inventory contains the document.
    pub(super) fn roles_on(&self, key: &MappingKey, name: &TargetName, target: &Target, on: &DocumentKey) -> Roles {
        let mut roles = Roles::new();
        for grant in self.grants.iter().filter(|grant| grant.target == *name) {
            let matches = grant.patterns.iter().any(|pattern| pattern.matches(on.kind(), on.name()));
            if !matches || grant.terms.refused_on(on.kind()).is_some() {
                continue;
            }
            for role in &grant.roles {
                for provider in self.providers() {
                    if target.admits((key, &self.labels), provider, role.as_str(), on) {
                        let given = grant.terms.entitlement(role, on.kind());
                        roles.entry(given).or_default().insert(provider.clone());
                    }
                }
            }
        }
        roles
    }

    /// Resolves `spec.grants` against targets and inventories.
    pub(super) fn reach(&self, key: &MappingKey, targets: &BTreeMap<TargetName, Target>, regions: &Regions) -> Matches {
        let mut documents: BTreeMap<DocumentKey, Roles> = BTreeMap::new();
        let mut refused = BTreeSet::<Refused>::new();
        let mut unmatched = BTreeSet::new();
        let providers = self.providers();
        for (at, grant) in self.grants.iter().enumerate() {
            let Some(target) = targets.get(&grant.target) else { continue };
            let items = target.inventory.iter().flat_map(|known| known.items.keys());
            let ours: Vec<_> = items.filter(|document| regions.owner(document) == Some(&grant.target)).collect();
            for pattern in &grant.patterns {
                let matched: Vec<_> =
                    ours.iter().filter(|document| pattern.matches(document.kind(), document.name())).collect();
                let owned = |location: &str| regions.in_region(&target.spec.project, location) == Some(&grant.target);
                let listed = |known: &KnownResources| known.lists(pattern.kind(), owned);
                if matched.is_empty() && target.inventory.as_ref().is_some_and(listed) {
                    unmatched.insert((grant.target.clone(), pattern.to_string()));
                }
                let terms = grant.terms.refused_on(pattern.kind());
                for (index, role) in grant.roles.iter().enumerate() {
                    let given = grant.terms.entitlement(role, pattern.kind());
                    for provider in &providers {
                        let refuse = |resource: String| Refused {
                            reason: Reason::NotDelegated,
                            path: format!("spec.grants[{at}].roles[{index}]"),
                            resource,
                            role: role.to_string(),
                            provider: (*provider).clone(),
                        };
                        let (yes, no): (Vec<&DocumentKey>, Vec<_>) =
                            matched.iter().map(|document| **document).partition(|document| {
                                target.admits((key, &self.labels), provider, role.as_str(), document)
                            });
                        if yes.is_empty()
                            && (!no.is_empty()
                                || !target.may_admit((key, &self.labels), provider, role.as_str(), pattern))
                        {
                            refused.insert(refuse(pattern.to_string()));
                        } else {
                            refused.extend(no.iter().map(|document| refuse(document.resource())));
                            if let Some(reason) = terms {
                                let path = format!("spec.grants[{at}].condition");
                                refused.insert(Refused { reason, path, ..refuse(pattern.to_string()) });
                            }
                        }
                        for document in yes.into_iter().filter(|_| terms.is_none()) {
                            let roles = documents.entry(document.clone()).or_default();
                            roles.entry(given.clone()).or_default().insert((*provider).clone());
                        }
                    }
                }
            }
        }
        let refused_count = refused.len();
        let refused = refused.into_iter().take(REFUSED_LISTED).collect();
        Matches { documents, refused, refused_count, unmatched: unmatched.into_iter().collect() }
    }
}
