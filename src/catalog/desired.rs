//! The grants wanted in one document, and the treatment of each mapping's claims in it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::api::{MappingMode, Permission};
use crate::model::{
    Claim, ClaimDisposal, ClaimTerms, ConditionHash, Desired, DesiredGrant, DocumentKey, Enforcement, FreezeReason,
    GrantKey, Ground, GroupId, Keep, KeptGroups, KeptSubjects, MappingKey, MappingPhase, MemberKey, Principal,
    ProviderName, Role, Subject, UserId,
};

use super::entitlement::Entitlement;
use super::mapping::{Mapping, Resolution, Roles};
use super::nesting::Meant;
use super::tenant::{Group, Tenant};
use super::{Catalog, Ceiling};

/// What a mapping wants for one person, and through which group.
struct Wanted<'a> {
    given: &'a Entitlement,
    provider: &'a ProviderName,
    tenant: &'a Tenant,
    group: &'a Group,
    /// The nested group that the person is a direct member of; none for a direct member of `group`.
    through: Option<GroupId>,
    user: UserId,
    member: &'a Principal,
    member_key: &'a MemberKey,
}

impl Catalog {
    /// Computes the grants wanted in this document. `claimants`: the mappings that hold claims on it in the ledger. The
    /// cost is proportional to the members of the groups mapped onto the document.
    #[must_use]
    pub(crate) fn desired(&self, document: &DocumentKey, claimants: &BTreeSet<MappingKey>) -> Desired {
        let reaching = self.by_document.get(document);
        let keys: BTreeSet<&MappingKey> = reaching.into_iter().flatten().chain(claimants).collect();
        let mut desired = Desired {
            resource_uid: self.listed(document).map(|item| item.uid.clone()),
            absent: self.lacks(document),
            uncovered: self.owner(document).is_none(),
            as_of: self.as_of,
            leave_all: self.leave_all,
            ..Desired::default()
        };
        for key in keys {
            let enforcement = self.enforcement(key, document);
            if let Some(mapping) = self.mappings.get(key) {
                self.permit(key, mapping, document, &mut desired);
                if mapping.spec.is_some() {
                    desired.generations.insert(key.clone(), mapping.generation);
                }
                let roles = self.roles_of(key, mapping, document);
                let ended = roles.as_ref().map(|roles| self.ended_roles(roles));
                if let Some(ended) = ended.filter(|roles| !roles.is_empty()) {
                    desired.ended.insert(key.clone(), ended);
                }
                if let Some(roles) = roles.filter(|_| mapping.phase.disposal().is_none()) {
                    desired.reached.insert(key.clone(), roles.keys().map(|given| given.role.clone()).collect());
                }
                let write = match enforcement {
                    Enforcement::Live { .. } => Some(true),
                    Enforcement::Frozen(FreezeReason::Observed) => Some(false),
                    Enforcement::Frozen(_) | Enforcement::Ended { .. } => None,
                };
                if let Some(write) = write {
                    self.want(key, mapping, document, write, &mut desired);
                }
            }
            desired.enforcements.insert(key.clone(), enforcement);
        }
        desired
    }

    /// True when some grant is wanted in this document: when [`Catalog::desired`] has grants.
    #[must_use]
    pub(crate) fn wants(&self, document: &DocumentKey, claimants: &BTreeSet<MappingKey>) -> bool {
        let reaching = self.by_document.get(document);
        let mut keys = reaching.into_iter().flatten().chain(claimants);
        keys.any(|key| {
            let Some(mapping) = self.mappings.get(key) else { return false };
            let enforcement = self.enforcement(key, document);
            let wants = matches!(enforcement, Enforcement::Live { .. } | Enforcement::Frozen(FreezeReason::Observed));
            wants && self.each_wanted(key, mapping, document, &mut |_| ControlFlow::Break(())).is_break()
        })
    }

    /// True when the last complete list lacks the resource of this document.
    #[must_use]
    pub(crate) fn lacks(&self, document: &DocumentKey) -> bool {
        self.owner(document).is_some_and(|(_, target)| target.lacks(document))
    }

    /// Records what the target of the document permits the mapping beyond granting roles.
    fn permit(&self, key: &MappingKey, mapping: &Mapping, document: &DocumentKey, desired: &mut Desired) {
        if mapping.adopts
            && mapping.spec.is_some()
            && mapping.mode() == MappingMode::Enforce
            && let Some((_, target)) = self.owner(document)
        {
            desired.may_adopt.insert(key.clone(), mapping.permitted(key, target, document, Permission::Adopt));
        }
        let orphans = mapping.phase.disposal() == Some(ClaimDisposal::Orphan);
        let suspends = mapping.spec.is_some() && mapping.mode() != MappingMode::Enforce && !orphans;
        if !orphans && !suspends {
            return;
        }
        let what = if orphans { Permission::Orphan } else { Permission::Suspend };
        let Some((_, target)) = self.owner(document) else { return };
        let roles = mapping.permitted(key, target, document, what);
        let place = if orphans { &mut desired.may_orphan } else { &mut desired.may_suspend };
        place.insert(key.clone(), roles);
    }

    fn want(&self, key: &MappingKey, mapping: &Mapping, document: &DocumentKey, write: bool, desired: &mut Desired) {
        // A complete list lacks the resource. Until Google answers that it does not exist, existing grants stay wanted,
        // and nothing new is granted on a name alone.
        let write = write && mapping.reach.documents.contains_key(document);
        let terms = ClaimTerms { write, regrant: mapping.regrants() };
        let _ = self.each_wanted(key, mapping, document, &mut |found| {
            let Wanted { given, provider, tenant, group, through, user, member, member_key } = found;
            let grant =
                GrantKey { role: given.role.clone(), condition: given.hash.clone(), member: member_key.clone() };
            let claim = Claim { mapping: key.clone(), subject: Subject::User(user) };
            let wanted = desired.grants.entry(grant).or_insert_with(|| DesiredGrant {
                member: member.clone(),
                condition: given.condition.as_deref().cloned(),
                claims: BTreeMap::new(),
                grounds: BTreeMap::new(),
                allowed_domains: tenant.allowed_domains(),
            });
            let ground = wanted.grounds.entry(claim.clone());
            let from = || Ground {
                provider: provider.clone(),
                groups: BTreeSet::new(),
                through: BTreeSet::new(),
                mapping_uid: mapping.uid.clone(),
                generation: Some(mapping.generation),
                not_after: given.not_after,
            };
            let ground = ground.or_insert_with(from);
            // Given in several ways, the claim ends with the last of them.
            ground.not_after = ground.not_after.zip(given.not_after).map(|(one, other)| one.max(other));
            ground.groups.insert(group.id);
            ground.through.extend(through);
            wanted.claims.insert(claim, terms);
            ControlFlow::Continue(())
        });
    }

    /// Calls `each` for every role and person that the mapping wants on the document, until it breaks.
    fn each_wanted(
        &self,
        key: &MappingKey,
        mapping: &Mapping,
        document: &DocumentKey,
        each: &mut dyn FnMut(Wanted<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(roles) = self.roles_of(key, mapping, document) else { return ControlFlow::Continue(()) };
        for (given, providers) in roles.iter().filter(|(given, _)| !given.is_over(self.as_of)) {
            for (provider, meant) in self.groups(mapping).filter(|(provider, _)| providers.contains(*provider)) {
                let Meant { tenant, group, .. } = meant;
                for (through, user) in meant.members().filter(|(_, user)| !tenant.collides(user)) {
                    if let (Some(member), Some(member_key)) = (&user.member, &user.key) {
                        each(Wanted { given, provider, tenant, group, through, user: user.id, member, member_key })?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// What a mapping gives on a document: as resolved, or else by name alone.
    fn roles_of<'a>(&self, key: &MappingKey, mapping: &'a Mapping, document: &DocumentKey) -> Option<Cow<'a, Roles>> {
        if let Some(roles) = mapping.reach.documents.get(document) {
            return Some(Cow::Borrowed(roles));
        }
        let (name, target) = self.owner(document)?;
        Some(Cow::Owned(mapping.roles_on(key, name, target, document)))
    }

    /// The roles that mappings grant on this document, with their conditions, each with the domains of its people.
    #[must_use]
    pub(crate) fn grantable(&self, document: &DocumentKey) -> BTreeMap<(&Role, &ConditionHash), BTreeSet<&str>> {
        let mut roles: BTreeMap<(&Role, &ConditionHash), BTreeSet<&str>> = BTreeMap::new();
        let mappings = self.by_document.get(document).into_iter().flatten().filter_map(|key| self.mappings.get(key));
        for (given, providers) in mappings.filter_map(|mapping| mapping.reach.documents.get(document)).flatten() {
            let specs = providers.iter().filter_map(|provider| self.tenants.get(provider)?.spec.as_ref());
            let domains = specs.flat_map(|spec| &spec.principals.allowed_domains).map(String::as_str);
            roles.entry((&given.role, &given.hash)).or_default().extend(domains);
        }
        roles
    }

    /// The resolved groups of a mapping whose pins are stored, of providers that exist and are not suspended.
    pub(super) fn groups<'a>(&'a self, mapping: &'a Mapping) -> impl Iterator<Item = (&'a ProviderName, Meant<'a>)> {
        mapping.subjects.iter().filter_map(|subject| {
            let Resolution::Resolved(id) = subject.resolution else { return None };
            if subject.pending {
                return None;
            }
            let tenant = self.tenants.get(&subject.provider)?;
            let usable = tenant.spec.is_some() && !tenant.former && !tenant.is_suspended();
            let group = tenant.group(id).filter(|_| usable)?;
            Some((&subject.provider, self.meant(tenant, group, &subject.nesting)))
        })
    }

    fn provider_freeze(&self, provider: &crate::model::ProviderName) -> Option<FreezeReason> {
        match self.tenants.get(provider) {
            Some(tenant) if tenant.spec.is_some() && tenant.former => Some(FreezeReason::IdentityProviderChanged),
            Some(tenant) if tenant.spec.is_some() => tenant.is_suspended().then_some(FreezeReason::Suspended),
            _ => Some(FreezeReason::IdentityProviderNotFound),
        }
    }

    /// The reason for which every claim of this mapping is frozen, if any.
    pub(super) fn freeze(&self, mapping: Option<&Mapping>) -> Option<FreezeReason> {
        if let Some(reason) = self.frozen {
            return Some(reason);
        }
        // Forgetting an orphaned grant is not a write to Google.
        let observed =
            |phase: MappingPhase| phase.missing().is_none() && phase.disposal() != Some(ClaimDisposal::Orphan);
        if self.ceiling == Ceiling::Observe && mapping.is_some_and(|mapping| observed(mapping.phase)) {
            return Some(FreezeReason::Observed);
        }
        let Some(mapping) = mapping else { return Some(FreezeReason::MappingMissing) };
        match mapping.phase {
            MappingPhase::Terminating(_)
            | MappingPhase::ApprovedForRemoval(_)
            | MappingPhase::RevocationDeferred(_)
            | MappingPhase::Orphaned => return None,
            // The claims are treated alike, whatever the reason for which the mapping is missing.
            MappingPhase::Missing(_) => return Some(FreezeReason::MappingMissing),
            MappingPhase::Live => {}
        }
        let providers: Vec<Option<FreezeReason>> =
            mapping.providers().into_iter().map(|provider| self.provider_freeze(provider)).collect();
        let no_provider =
            if providers.iter().all(Option::is_some) { providers.into_iter().flatten().next() } else { None };
        match mapping.mode() {
            MappingMode::Suspend => Some(FreezeReason::Suspended),
            MappingMode::Observe => Some(FreezeReason::Observed),
            MappingMode::Enforce => no_provider,
        }
    }

    /// The claims that stay although they are no longer wanted.
    pub(super) fn keep(&self, mapping: &Mapping) -> Keep {
        let providers = mapping.subjects.iter().find_map(|subject| self.provider_freeze(&subject.provider));
        let pending = || mapping.subjects.iter().any(|subject| subject.pending).then_some(FreezeReason::NotLoaded);
        if let Some(reason) = providers.or_else(pending) {
            return Keep::Everything(reason);
        }
        let mut subjects = KeptSubjects::new();
        for (_, meant) in self.groups(mapping) {
            let tenant = meant.tenant;
            for user in meant.unclear() {
                match &user.key {
                    // Another person has the same address: existing grants to it stay.
                    Some(key) => drop(subjects.insert(Subject::User(user.id), Some(key.clone()))),
                    None if tenant.lacks_address(user) => drop(subjects.insert(Subject::User(user.id), None)),
                    // An address that is not admitted is information about the former one: it is no longer the user's.
                    None => {}
                }
            }
        }
        if let Some(reason) = mapping.subjects.iter().find_map(|subject| self.subject_freeze(subject)) {
            let (mut unresolved, mut known) = (BTreeSet::<GroupId>::new(), BTreeSet::<GroupId>::new());
            for subject in &mapping.subjects {
                if self.exceeds(subject) {
                    unresolved.extend(subject.group());
                }
                match &subject.resolution {
                    Resolution::Resolved(group) | Resolution::Deleted { pinned: group, .. } => known.insert(*group),
                    Resolution::IdentityChanged { pinned, .. } => unresolved.insert(*pinned),
                    Resolution::NotFound | Resolution::Ambiguous => {
                        subject.pinned.is_some_and(|group| unresolved.insert(group))
                    }
                };
            }
            return Keep::Groups(KeptGroups { reason, unresolved, known, subjects });
        }
        if subjects.is_empty() { Keep::Nothing } else { Keep::Subjects(subjects) }
    }

    /// The reason for which claims that may have come through this selector stay, if any.
    pub(super) fn subject_freeze(&self, subject: &super::mapping::Subject) -> Option<FreezeReason> {
        let exceeds = || self.exceeds(subject).then_some(FreezeReason::NestingLimitExceeded);
        subject.resolution.freeze().or_else(exceeds)
    }

    fn enforcement(&self, key: &MappingKey, document: &DocumentKey) -> Enforcement {
        let mapping = self.mappings.get(key);
        if let Some(reason) = self.freeze(mapping) {
            // A missing mapping still loses its leavers, unless its own mode was that nothing is written for it.
            let suspended =
                mapping.is_some_and(|mapping| mapping.spec.is_some() && mapping.mode() != MappingMode::Enforce);
            return Enforcement::Frozen(match reason {
                FreezeReason::MappingMissing if suspended => FreezeReason::Suspended,
                reason => reason,
            });
        }
        let Some(mapping) = mapping else { return Enforcement::Frozen(FreezeReason::MappingMissing) };
        if let Some(disposal) = mapping.phase.disposal() {
            return Enforcement::Ended { orphan: disposal == ClaimDisposal::Orphan };
        }
        match self.place_freeze(mapping, document) {
            Some(reason) => Enforcement::Frozen(reason),
            None => Enforcement::Live { keep: self.keep(mapping) },
        }
    }

    /// The reason for which the claims of the mapping on this document are frozen, if any. A document in a region of a
    /// target that the mapping does not name (any more) does not concern the mapping: those claims end.
    fn place_freeze(&self, mapping: &Mapping, document: &DocumentKey) -> Option<FreezeReason> {
        if let Some((name, target)) = self.owner(document)
            && mapping.names(name)
        {
            let listed = target.inventory.as_ref().is_some_and(|stock| stock.items.contains_key(document));
            return (!listed && !target.lacks(document)).then_some(FreezeReason::InventoryIncomplete);
        }
        let named = || mapping.grants.iter().map(|grant| &grant.target);
        if named().any(|target| !self.targets.contains_key(target)) {
            Some(FreezeReason::TargetNotFound)
        } else if named().any(|target| self.regions.is_overlapped(target, document)) {
            Some(FreezeReason::OverlappingTarget)
        } else {
            None
        }
    }
}
