//! Views of mappings, targets and providers, from which the status of each resource is folded.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    DocumentKey, FreezeReason, Keep, MappingKey, MappingPhase, MemberKey, ProviderName, ResourceKind, TargetName,
    UserId,
};

use super::expiry::EndsView;
use super::mapping::{Mapping, Refused, Resolution, Target};
use super::tenant::{Selector, Tenant, UserState};
use super::{Catalog, Effects, InventoryItem};

/// The role that a service checks on each call.
const INVOKER: &str = "roles/run.invoker";

/// Whether the targets delegate what the mapping asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// Everything is delegated.
    Accepted,
    /// A part is refused; the rest is granted.
    PartlyDelegated,
    /// Everything is refused.
    NotDelegated,
    /// The mapping names only targets whose regions belong to older ones.
    OverlappingTarget,
}

/// A resolved subject of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubjectView {
    /// The tenant.
    pub(crate) provider: ProviderName,
    /// `displayName`, if the mapping gives it.
    pub(crate) display_name: Option<String>,
    /// `externalId`, if the mapping gives it.
    pub(crate) external_id: Option<String>,
    /// The current meaning.
    pub(crate) resolution: Resolution,
    /// The current name of the group, which may differ after a rename.
    pub(crate) current_name: Option<String>,
    /// The current `externalId` of the group.
    pub(crate) current_external_id: Option<String>,
    /// User members, active or not, including those of nested groups.
    pub(crate) members: usize,
    /// What there is to say about groups nested in the group.
    pub(crate) nesting: SubjectNesting,
    /// Active members whose address is not admitted.
    pub(crate) invalid_principals: usize,
    /// Active members without an address; their claims stay.
    pub(crate) missing_principals: usize,
    /// Active members who share a principal with somebody else.
    pub(crate) collisions: usize,
}

/// What there is to say about the groups nested in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SubjectNesting {
    /// Nothing.
    Plain,
    /// There are so many members of nested groups, or so many levels, that nobody gets access through them.
    Exceeds,
    /// A group with this name contains itself. It counts once.
    Cycle(String),
    /// So many groups are direct members, and their members get nothing.
    Ignored(usize),
}

/// A resolved mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MappingView {
    /// `metadata.generation` of the spec.
    pub(crate) generation: i64,
    /// Its phase.
    pub(crate) phase: MappingPhase,
    /// The reason for which all its claims are frozen, including `Observed`.
    pub(crate) frozen: Option<FreezeReason>,
    /// The claims that stay although they are no longer wanted.
    pub(crate) keep: Keep,
    /// Its groups, in the order of the spec.
    pub(crate) subjects: Vec<SubjectView>,
    /// The documents that the mapping reaches.
    pub(crate) documents: BTreeSet<DocumentKey>,
    /// Whether delegation permits the mapping.
    pub(crate) acceptance: Acceptance,
    /// Refused parts: the first [`super::REFUSED_LISTED`].
    pub(crate) refused: Vec<Refused>,
    /// Number of refused parts.
    pub(crate) refused_count: usize,
    /// Patterns that match nothing in a completely listed target.
    pub(crate) unmatched: Vec<(TargetName, String)>,
    /// Targets that do not exist.
    pub(crate) missing_targets: BTreeSet<TargetName>,
    /// Targets that were never listed, or whose last list was incomplete for this mapping.
    pub(crate) unlisted_targets: BTreeSet<TargetName>,
    /// Targets that are overlapped by an older one.
    pub(crate) overlapped_targets: BTreeSet<TargetName>,
    /// Providers that do not exist.
    pub(crate) missing_providers: BTreeSet<ProviderName>,
    /// Providers whose stored people belong to a former provider.
    pub(crate) changed_providers: BTreeSet<ProviderName>,
    /// Providers that are suspended.
    pub(crate) suspended_providers: BTreeSet<ProviderName>,
    /// Active members without a usable principal.
    pub(crate) invalid_principals: usize,
    /// Active members who share a principal with somebody else.
    pub(crate) collisions: usize,
    /// Documents that do not check `roles/run.invoker`.
    pub(crate) invoker_iam_disabled: BTreeSet<DocumentKey>,
    /// Its grants that end at a time.
    pub(crate) ends: EndsView,
    /// Malformed parts of the spec, which were left out.
    pub(crate) invalid: Vec<String>,
}

/// State of a target in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetView {
    /// Regions that belong to an older target, each with that target.
    pub(crate) overlapped: BTreeMap<String, TargetName>,
    /// True when the target was listed at least once.
    pub(crate) listed: bool,
    /// True when the last list was complete.
    pub(crate) complete: bool,
    /// Number of resources of each kind, without those in regions that belong to an older target.
    pub(crate) resources: BTreeMap<ResourceKind, usize>,
    /// Documents in its regions that mappings reach.
    pub(crate) documents: BTreeSet<DocumentKey>,
    /// The kinds of resources that mappings name there.
    pub(crate) mapped: BTreeSet<ResourceKind>,
}

impl Catalog {
    /// All documents that any mapping currently reaches.
    #[must_use]
    pub(crate) fn documents(&self) -> BTreeSet<DocumentKey> {
        self.by_document.keys().cloned().collect()
    }

    /// The mappings that reach this document.
    pub(crate) fn reaching(&self, document: &DocumentKey) -> impl Iterator<Item = &MappingKey> {
        self.by_document.get(document).into_iter().flatten()
    }

    /// True when this person is inactive or deleted according to a provider that is in force. A person without any
    /// record was deleted earlier: ids are never reused. `provider`: the person's provider, where it is recorded.
    #[must_use]
    pub(crate) fn has_left(&self, id: UserId, provider: Option<&ProviderName>) -> bool {
        let found = self.tenants.values().find_map(|tenant| Some((tenant, tenant.user(id)?.state)));
        match found {
            Some((_, UserState::Active)) => false,
            Some((tenant, UserState::Inactive | UserState::Deleted)) => tenant.is_in_force(),
            Some((_, UserState::Unseen)) | None => match provider {
                Some(provider) => self.tenants.get(provider).is_some_and(Tenant::is_in_force),
                None => self.tenants.values().all(Tenant::is_in_force),
            },
        }
    }

    /// An active person who has this principal.
    #[must_use]
    pub(crate) fn person_with(&self, member: &MemberKey) -> Option<UserId> {
        self.tenants.values().find_map(|tenant| tenant.owner(member))
    }

    /// The state of a mapping. The cost is proportional to the group members without a principal of their own, not to
    /// all members.
    #[must_use]
    pub(crate) fn mapping(&self, key: &MappingKey) -> Option<MappingView> {
        let mapping = self.mappings.get(key)?;
        let named: BTreeSet<&TargetName> = mapping.grants.iter().map(|grant| &grant.target).collect();
        let pick = |wanted: &dyn Fn(&TargetName, Option<&Target>) -> bool| -> BTreeSet<TargetName> {
            named.iter().filter(|name| wanted(name, self.targets.get(**name))).map(|name| (*name).clone()).collect()
        };
        let overlapped = |name: &TargetName, target: &Target| !self.overlaps(name, target).is_empty();
        let inert =
            |name: &TargetName, target: &Target| self.overlaps(name, target).len() == target.spec.locations.len();
        let mut people = BTreeSet::new();
        let mut invalid_principals = 0;
        let mut collisions = 0;
        for (_, meant) in self.groups(mapping) {
            for user in meant.unclear() {
                if people.insert(user.id) {
                    invalid_principals += usize::from(user.key.is_none());
                    collisions += usize::from(user.key.is_some());
                }
            }
        }
        let reach = &mapping.reach;
        let overlapped_targets = pick(&|name, target| target.is_some_and(|target| overlapped(name, target)));
        let all_inert = !named.is_empty()
            && named.iter().all(|name| self.targets.get(*name).is_some_and(|target| inert(name, target)));
        let acceptance = match (reach.refused_count, reach.documents.is_empty()) {
            _ if all_inert => Acceptance::OverlappingTarget,
            (0, _) => Acceptance::Accepted,
            (_, false) => Acceptance::PartlyDelegated,
            (_, true) => Acceptance::NotDelegated,
        };
        let providers = || mapping.subjects.iter().map(|subject| &subject.provider);
        let exists = |provider: &ProviderName| self.tenants.get(provider).is_some_and(|tenant| tenant.spec.is_some());
        Some(MappingView {
            generation: mapping.generation,
            phase: mapping.phase,
            frozen: self.freeze(Some(mapping)),
            keep: self.keep(mapping),
            subjects: self.subjects(mapping),
            documents: reach.documents.keys().cloned().collect(),
            acceptance,
            refused: reach.refused.clone(),
            refused_count: reach.refused_count,
            unmatched: reach.unmatched.clone(),
            missing_targets: pick(&|_, target| target.is_none()),
            unlisted_targets: mapping
                .grants
                .iter()
                .filter(|grant| self.targets.get(&grant.target).is_some_and(|target| !self.lists(grant, target)))
                .map(|grant| grant.target.clone())
                .collect(),
            overlapped_targets,
            missing_providers: providers().filter(|provider| !exists(provider)).cloned().collect(),
            changed_providers: providers()
                .filter(|provider| self.tenants.get(*provider).is_some_and(|tenant| tenant.former))
                .cloned()
                .collect(),
            suspended_providers: providers()
                .filter(|provider| self.tenants.get(*provider).is_some_and(super::Tenant::is_suspended))
                .cloned()
                .collect(),
            invalid_principals,
            collisions,
            ends: self.ends_view(mapping),
            invoker_iam_disabled: reach
                .documents
                .keys()
                .filter(|document| self.listed(document).is_some_and(|item| item.invoker_iam_disabled))
                .cloned()
                .collect(),
            invalid: mapping.invalid.clone(),
        })
    }

    fn subjects(&self, mapping: &Mapping) -> Vec<SubjectView> {
        let view = |subject: &super::mapping::Subject| {
            let (display_name, external_id) = match &subject.selector {
                Selector::DisplayName(name) => (Some(name.to_string()), None),
                Selector::ExternalId(id) => (None, Some(id.to_string())),
            };
            let group = match &subject.resolution {
                Resolution::Resolved(id) | Resolution::IdentityChanged { pinned: id, .. } => Some(*id),
                Resolution::NotFound | Resolution::Ambiguous | Resolution::Deleted { .. } => None,
            };
            let tenant = self.tenants.get(&subject.provider);
            let group = group.and_then(|id| tenant?.group(id));
            let meant = tenant.zip(group).map(|(tenant, group)| self.meant(tenant, group, &subject.nesting));
            let unclear = || meant.into_iter().flat_map(super::nesting::Meant::unclear);
            let lacks = |user: &&super::tenant::User| {
                user.key.is_none() && tenant.is_some_and(|tenant| tenant.lacks_address(user))
            };
            let missing = unclear().filter(lacks).count();
            SubjectView {
                provider: subject.provider.clone(),
                display_name,
                external_id,
                resolution: subject.resolution.clone(),
                current_name: group.map(|group| group.display_name.to_string()),
                current_external_id: group.and_then(|group| group.external_id.as_deref()).map(str::to_owned),
                members: meant.map_or(0, super::nesting::Meant::count),
                nesting: meant.map_or(SubjectNesting::Plain, super::nesting::Meant::report),
                invalid_principals: unclear().filter(|user| user.key.is_none()).count() - missing,
                missing_principals: missing,
                collisions: unclear().filter(|user| user.key.is_some()).count(),
            }
        };
        mapping.subjects.iter().map(view).collect()
    }

    /// The targets that a mapping names: their views say which kinds of resources are mapped.
    pub(super) fn named_targets(&self, mapping: &Mapping, effects: &mut Effects) {
        let named = mapping.grants.iter().map(|grant| &grant.target);
        effects.targets.extend(named.filter(|name| self.targets.contains_key(*name)).cloned());
    }

    /// True when everything that this entry may match was listed.
    fn lists(&self, grant: &super::mapping::Grant, target: &Target) -> bool {
        let owned = |location: &str| self.regions.in_region(&target.spec.project, location) == Some(&grant.target);
        grant.kinds().into_iter().all(|kind| target.lists(kind, owned))
    }

    /// The regions of a target that belong to an older one.
    fn overlaps(&self, name: &TargetName, target: &Target) -> BTreeMap<String, TargetName> {
        let of = |location: &String| {
            Some((location.clone(), self.regions.in_region(&target.spec.project, location)?.clone()))
        };
        target.spec.locations.iter().filter_map(of).filter(|(_, owner)| owner != name).collect()
    }

    /// The target that a document belongs to: the oldest of those that cover it. None when no target covers it.
    #[must_use]
    pub(crate) fn target_of(&self, document: &DocumentKey) -> Option<&TargetName> {
        self.regions.owner(document)
    }

    pub(super) fn owner(&self, document: &DocumentKey) -> Option<(&TargetName, &Target)> {
        let name = self.regions.owner(document)?;
        self.targets.get(name).map(|target| (name, target))
    }

    pub(super) fn listed(&self, document: &DocumentKey) -> Option<&InventoryItem> {
        self.owner(document)?.1.inventory.as_ref()?.items.get(document)
    }

    /// True when mappings grant roles/run.invoker on a service that does not check it.
    #[must_use]
    pub(crate) fn checks_no_invoker(&self, document: &DocumentKey) -> bool {
        self.listed(document).is_some_and(|item| item.invoker_iam_disabled)
            && self.grantable(document).keys().any(|(role, _)| role.as_str() == INVOKER)
    }

    /// The state of a target.
    #[must_use]
    pub(crate) fn target(&self, name: &TargetName) -> Option<TargetView> {
        let target = self.targets.get(name)?;
        let mut resources = BTreeMap::new();
        let listed = target.inventory.iter().flat_map(|stock| stock.items.keys());
        for document in listed.filter(|document| self.regions.owner(document) == Some(name)) {
            *resources.entry(document.kind()).or_default() += 1;
        }
        Some(TargetView {
            overlapped: self.overlaps(name, target),
            listed: target.inventory.is_some(),
            complete: target.is_listed(),
            resources,
            documents: self.by_document.keys().filter(|on| self.regions.owner(on) == Some(name)).cloned().collect(),
            mapped: self
                .mappings
                .values()
                .flat_map(|mapping| &mapping.grants)
                .filter(|grant| grant.target == *name)
                .flat_map(super::mapping::Grant::kinds)
                .collect(),
        })
    }
}
