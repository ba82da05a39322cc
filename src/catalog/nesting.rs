//! Groups that are members of groups: what a group of a mapping means besides its direct members.
//!
//! A reading that exceeds a bound is incomplete, so nothing is concluded from it: nobody gets access through it, and
//! nobody loses access because somebody was not found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::model::{
    Claim, DirectoryChange, Ground, GroupId, MappingKey, MemberKey, ProviderName, Subject as ClaimSubject, UserId,
};

use super::mapping::{Mapping, Resolution, Subject};
use super::tenant::{Group, Tenant, User};
use super::view::SubjectNesting;
use super::{Catalog, Effects, Urgency};

/// The bounds within which groups in a group are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NestingBounds {
    /// Levels below the group that the mapping names.
    pub(crate) depth: usize,
    /// Nested groups.
    pub(crate) groups: usize,
    /// Memberships of groups in the group and the nested groups, which are what a search looks at.
    pub(crate) nestings: usize,
    /// Memberships of people in the nested groups. A person in two of them counts twice.
    pub(crate) memberships: usize,
}

impl Default for NestingBounds {
    fn default() -> Self {
        Self { depth: 10, groups: 1_000, nestings: 10_000, memberships: 100_000 }
    }
}

/// The groups nested in one group, directly or through others.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Nesting {
    /// The nested groups and their places in the tenant, without the group itself. Each is found once.
    pub(super) groups: BTreeMap<GroupId, u32>,
    /// True when there are further ones beyond the bounds.
    pub(super) truncated: bool,
    /// A group that contains itself through others, if any. Not known beyond a bound.
    pub(super) cycle: Option<GroupId>,
    /// The number of people, once it was counted.
    people: Counted,
}

/// A count that is kept until it may have changed. It says nothing that the groups do not say.
#[derive(Debug)]
struct Counted(AtomicUsize);

impl Counted {
    const UNKNOWN: usize = usize::MAX;

    fn get_or_count(&self, count: impl FnOnce() -> usize) -> usize {
        let known = self.0.load(Ordering::Relaxed);
        if known != Self::UNKNOWN {
            return known;
        }
        let counted = count();
        self.0.store(counted, Ordering::Relaxed);
        counted
    }
}

impl Default for Counted {
    fn default() -> Self {
        Self(AtomicUsize::new(Self::UNKNOWN))
    }
}

impl PartialEq for Counted {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Counted {}

impl Nesting {
    /// Makes the people be counted again.
    pub(super) fn people_changed(&self) {
        self.people.0.store(Counted::UNKNOWN, Ordering::Relaxed);
    }
}

/// What is nested in the groups that mappings name, found once for all mappings.
#[derive(Default)]
pub(super) struct Nestings {
    by_root: HashMap<(ProviderName, GroupId), Weak<Nesting>>,
    /// Number of memberships of groups that all searches looked at.
    pub(super) looked_at: usize,
}

impl Nestings {
    /// What is nested in a group, searched for only if no subject has the answer.
    pub(super) fn find(
        &mut self,
        provider: &ProviderName,
        tenant: &Tenant,
        root: GroupId,
        bounds: &NestingBounds,
    ) -> Arc<Nesting> {
        let key = (provider.clone(), root);
        if let Some(known) = self.by_root.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if self.by_root.len() == self.by_root.capacity() {
            self.by_root.retain(|_, known| known.strong_count() > 0);
        }
        let (nesting, looked_at) = tenant.nesting(root, bounds);
        self.looked_at = self.looked_at.saturating_add(looked_at);
        let nesting = Arc::new(nesting);
        self.by_root.insert(key, Arc::downgrade(&nesting));
        nesting
    }

    /// Forgets what is nested in the group of a subject, because it may have changed.
    pub(super) fn forget(&mut self, subject: &Subject) {
        if let Resolution::Resolved(root) = subject.resolution {
            self.by_root.remove(&(subject.provider.clone(), root));
        }
    }
}

/// A group that a mapping means, with those nested in it.
#[derive(Clone, Copy)]
pub(super) struct Meant<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) group: &'a Group,
    pub(super) nesting: &'a Nesting,
    /// True when the nested groups exceed a bound.
    pub(super) exceeds: bool,
}

impl<'a> Meant<'a> {
    /// The nested groups that were found.
    pub(super) fn nested(self) -> impl Iterator<Item = &'a Group> {
        self.nesting.groups.values().map(move |at| self.tenant.group_at(*at))
    }

    /// The people who get access: all direct members, and those of nested groups with the group they are in, unless a
    /// bound is exceeded.
    pub(super) fn members(self) -> impl Iterator<Item = (Option<GroupId>, &'a User)> {
        let nested = self.nested().filter(move |_| !self.exceeds).map(|group| (Some(group.id), group));
        let groups = std::iter::once((None, self.group)).chain(nested);
        groups.flat_map(move |(through, group)| self.tenant.members(group).map(move |user| (through, user)))
    }

    /// The active members without a principal of their own, each of them once.
    pub(super) fn unclear(self) -> impl Iterator<Item = &'a User> {
        let groups = std::iter::once(self.group).chain(self.nested());
        let all = groups.flat_map(move |group| self.tenant.unclear(group));
        all.map(|user| (user.id, user)).collect::<BTreeMap<_, _>>().into_values()
    }

    /// What there is to say about the nested groups.
    pub(super) fn report(self) -> SubjectNesting {
        let ignores = self.tenant.ignores_by_age() && !self.group.nested.is_empty();
        match self.nesting.cycle.and_then(|id| self.tenant.group(id)) {
            _ if self.exceeds => SubjectNesting::Exceeds,
            _ if ignores => SubjectNesting::Ignored(self.group.nested.len()),
            Some(group) => SubjectNesting::Cycle(group.display_name.to_string()),
            None => SubjectNesting::Plain,
        }
    }

    /// The number of people who are members, active or not. Where groups are nested, the cost is proportional to it
    /// once, until a membership changes.
    pub(super) fn count(self) -> usize {
        if self.nesting.groups.is_empty() || self.exceeds {
            return self.group.members.len();
        }
        let groups = std::iter::once(self.group).chain(self.nested());
        self.nesting.people.get_or_count(|| Tenant::distinct_members(groups))
    }
}

/// State of the nested groups of one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NestingView {
    /// Number of memberships of groups in groups.
    pub(crate) nestings: usize,
    /// True when they are ignored because the `IdentityProvider` says nothing and its directory is older than their
    /// resolution.
    pub(crate) by_age: bool,
}

impl Tenant {
    /// The groups nested in this one, and how many memberships of groups the search looked at.
    pub(super) fn nesting(&self, root: GroupId, bounds: &NestingBounds) -> (Nesting, usize) {
        let mut looked_at = 0;
        let mut found = Nesting::default();
        let resolves = |group: &&Group| self.resolves_nesting() && !group.nested.is_empty();
        let Some(start) = self.group(root).filter(resolves) else { return (found, looked_at) };
        let mut level = vec![start];
        for depth in 1.. {
            let mut next = Vec::new();
            for (id, at) in level.iter().flat_map(|group| &group.nested) {
                if looked_at == bounds.nestings {
                    found.truncated = true;
                    break;
                }
                looked_at += 1;
                if *id == root || found.groups.contains_key(id) {
                    continue;
                }
                if depth > bounds.depth || found.groups.len() == bounds.groups {
                    found.truncated = true;
                    break;
                }
                found.groups.insert(*id, *at);
                next.push(self.group_at(*at));
            }
            if next.is_empty() || found.truncated {
                break;
            }
            level = next;
        }
        if !found.truncated {
            found.cycle = self.cycle(start, &found);
        }
        (found, looked_at)
    }

    /// A group among these that contains itself: the least one on a cycle that depends on nothing but the memberships.
    fn cycle(&self, root: &Group, found: &Nesting) -> Option<GroupId> {
        let nodes = std::iter::once(root).chain(found.groups.values().map(|at| self.group_at(*at)));
        let inside = |id: &&GroupId| **id == root.id || found.groups.contains_key(*id);
        let mut inner: BTreeMap<GroupId, BTreeSet<GroupId>> =
            nodes.map(|group| (group.id, group.nested.keys().filter(inside).copied().collect())).collect();
        let mut outer: BTreeMap<GroupId, Vec<GroupId>> = BTreeMap::new();
        for (group, nested) in &inner {
            for id in nested {
                outer.entry(*id).or_default().push(*group);
            }
        }
        // What is left when groups without nested ones are taken away again and again leads to a cycle.
        let mut leaves: Vec<GroupId> =
            inner.iter().filter(|(_, nested)| nested.is_empty()).map(|(id, _)| *id).collect();
        while let Some(leaf) = leaves.pop() {
            inner.remove(&leaf);
            for group in outer.get(&leaf).into_iter().flatten() {
                if let Some(nested) = inner.get_mut(group)
                    && nested.remove(&leaf)
                    && nested.is_empty()
                {
                    leaves.push(*group);
                }
            }
        }
        let next = |id: &GroupId| inner.get(id).and_then(BTreeSet::first).copied();
        let mut at = *inner.keys().next()?;
        let mut seen = BTreeSet::new();
        while seen.insert(at) {
            at = next(&at)?;
        }
        let (mut least, start) = (at, at);
        loop {
            at = next(&at)?;
            least = least.min(at);
            if at == start {
                return Some(least);
            }
        }
    }

    /// True when a bound is exceeded.
    fn exceeds(&self, nesting: &Nesting, bounds: &NestingBounds) -> bool {
        let memberships = || nesting.groups.values().map(|at| self.group_at(*at).members.len()).sum::<usize>();
        nesting.truncated || memberships() > bounds.memberships
    }
}

impl Subject {
    /// The group that the selector means, or meant last.
    pub(super) fn group(&self) -> Option<GroupId> {
        match self.resolution {
            Resolution::Resolved(group) => Some(group),
            Resolution::NotFound
            | Resolution::Ambiguous
            | Resolution::IdentityChanged { .. }
            | Resolution::Deleted { .. } => self.pinned,
        }
    }

    /// True when the selector means this group, or one that contains it.
    pub(super) fn means(&self, group: GroupId) -> bool {
        matches!(self.resolution, Resolution::Resolved(id) if id == group) || self.nesting.groups.contains_key(&group)
    }
}

impl Catalog {
    /// Sets how far nested groups are followed. Before any of them are known.
    pub(crate) fn set_bounds(&mut self, bounds: NestingBounds) {
        self.bounds = bounds;
    }

    /// Records that the directory of a provider is older than the resolution of nested groups: they are ignored unless
    /// the `IdentityProvider` says otherwise.
    pub(crate) fn set_before_nesting(&mut self, name: &ProviderName) -> Effects {
        let mut effects = Effects::default();
        let tenant = self.tenants.entry(name.clone()).or_default();
        if !std::mem::replace(&mut tenant.before_nesting, true) {
            self.nesting_changed(name, &mut effects);
        }
        effects
    }

    /// Resolves the groups of every mapping of a provider again.
    pub(super) fn nesting_changed(&mut self, name: &ProviderName, effects: &mut Effects) {
        let mut keys = BTreeSet::new();
        for (key, mapping) in &self.mappings {
            for subject in mapping.subjects.iter().filter(|subject| subject.provider == *name) {
                self.nestings.forget(subject);
                keys.insert(key.clone());
            }
        }
        for key in keys {
            self.resolve_subjects(&key, effects);
            effects.mappings.insert(key);
        }
        effects.providers.insert(name.clone());
    }

    /// Whether a person is a member of any of these groups, or of one nested in them.
    pub(crate) fn membership<'a>(
        &'a self,
        provider: &ProviderName,
        groups: &[GroupId],
    ) -> impl Fn(UserId) -> bool + use<'a> {
        let tenant = self.tenants.get(provider).filter(|tenant| tenant.resolves_nesting());
        let nested = |group: &GroupId| tenant.map(|tenant| tenant.nesting(*group, &self.bounds).0.groups.into_keys());
        let mut all: BTreeSet<GroupId> = groups.iter().filter_map(nested).flatten().collect();
        all.extend(groups);
        move |person| tenant.is_some_and(|tenant| tenant.groups_of(person).any(|group| all.contains(&group)))
    }

    /// State of the nested groups of a provider.
    #[must_use]
    pub(crate) fn nesting(&self, name: &ProviderName) -> Option<NestingView> {
        let tenant = self.tenants.get(name)?;
        Some(NestingView { nestings: tenant.nestings(), by_age: tenant.ignores_by_age() })
    }

    /// What a subject means: its group and those nested in it.
    pub(super) fn meant<'a>(&self, tenant: &'a Tenant, group: &'a Group, nesting: &'a Nesting) -> Meant<'a> {
        Meant { tenant, group, nesting, exceeds: tenant.exceeds(nesting, &self.bounds) }
    }

    /// True when the groups nested in the subject's group exceed a bound.
    pub(super) fn exceeds(&self, subject: &Subject) -> bool {
        self.tenants.get(&subject.provider).is_some_and(|tenant| tenant.exceeds(&subject.nesting, &self.bounds))
    }

    /// Those of the claims for a member that end although their mapping knows only a part of its groups: the person is
    /// a direct member neither of a group that may have given the claim nor of any group that the mapping is known to
    /// mean, or has another principal.
    #[must_use]
    pub(crate) fn lapsed<'a>(
        &self,
        claims: impl Iterator<Item = (&'a MemberKey, &'a Claim, &'a Ground)>,
    ) -> BTreeSet<(MemberKey, Claim)> {
        let mut exceeding: BTreeMap<&MappingKey, Option<&Mapping>> = BTreeMap::new();
        let mut lapsed = BTreeSet::new();
        for (member, claim, ground) in claims {
            let mapping = exceeding.entry(&claim.mapping).or_insert_with(|| {
                let exceeds = |mapping: &&Mapping| mapping.subjects.iter().any(|subject| self.exceeds(subject));
                self.mappings.get(&claim.mapping).filter(exceeds)
            });
            if mapping.is_some_and(|mapping| self.has_lapsed(mapping, member, claim, ground)) {
                lapsed.insert((member.clone(), claim.clone()));
            }
        }
        lapsed
    }

    fn has_lapsed(&self, mapping: &Mapping, member: &MemberKey, claim: &Claim, ground: &Ground) -> bool {
        let ClaimSubject::User(id) = claim.subject else { return false };
        let Some(tenant) = self.tenants.get(&ground.provider).filter(|tenant| tenant.is_in_force()) else {
            return false;
        };
        let gave = |subject: &&Subject| subject.group().is_some_and(|group| ground.groups.contains(&group));
        let gave = || mapping.subjects.iter().filter(gave);
        if gave().any(|subject| subject.pending || subject.resolution.freeze().is_some()) {
            return false;
        }
        // While all nested groups are found, one that is not among them gives nothing any more.
        let unknown = gave().any(|subject| subject.nesting.truncated);
        let may_give = |group: GroupId| {
            unknown && ground.through.contains(&group) || mapping.subjects.iter().any(|subject| subject.means(group))
        };
        !tenant.groups_of(id).any(may_give) || tenant.has_moved(id, member)
    }

    /// Marks what mappings that know only a part of their groups may lose through a change of a group that they do not
    /// know: all their documents when a group ends to be a member, and the claims of people who left a group or have
    /// another principal. `moved`: a person lost a principal with this change.
    pub(super) fn look_beyond_bounds(
        &self,
        provider: &ProviderName,
        change: &DirectoryChange,
        moved: bool,
        effects: &mut Effects,
    ) {
        let of_provider = |mapping: &&Mapping| mapping.subjects.iter().any(|subject| subject.provider == *provider);
        let mut mappings =
            self.truncated.iter().filter_map(|key| self.mappings.get(key)).filter(of_provider).peekable();
        if mappings.peek().is_none() {
            return;
        }
        match change {
            DirectoryChange::Members { removed, .. } => effects.people.extend(removed),
            DirectoryChange::User(facts) if moved => drop(effects.people.insert(facts.id)),
            DirectoryChange::Nested { removed, .. } if removed.is_empty() => {}
            DirectoryChange::Nested { .. } | DirectoryChange::GroupDeleted { .. } => {
                for document in mappings.flat_map(|mapping| mapping.reach.documents.keys()) {
                    effects.document(document, Urgency::Revocation);
                }
            }
            DirectoryChange::User(_) | DirectoryChange::UserDeleted { .. } | DirectoryChange::Group(_) => {}
        }
    }
}
