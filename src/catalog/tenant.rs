//! The directory of one identity provider, reduced to what access depends on. Ids are interned to 32 bits. The cost of
//! a change is proportional to the change, never to the size of a group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::api::{GroupSelector, IdentityProviderSpec, NestedGroups, ProviderState, UserAttribute};
use crate::model::{DirectoryChange, GroupFacts, GroupId, MemberKey, Principal, UserFacts, UserId};

use super::Urgency;

/// The attributes by which a mapping selects a group. Names match exactly.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Selector {
    DisplayName(Arc<str>),
    ExternalId(Arc<str>),
}

impl Selector {
    /// None for a selector without any name, which selects nothing.
    pub(super) fn of(selector: &GroupSelector) -> Option<Self> {
        match (&selector.display_name, &selector.external_id) {
            (Some(name), None) if !name.is_empty() => Some(Self::DisplayName(name.as_str().into())),
            (None, Some(id)) if !id.is_empty() => Some(Self::ExternalId(id.as_str().into())),
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DisplayName(name) => write!(f, "displayName:{name}"),
            Self::ExternalId(id) => write!(f, "externalId:{id}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserState {
    /// Known as a member of a group only; the user has not been pushed yet.
    Unseen,
    Active,
    Inactive,
    Deleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupState {
    Unseen,
    Present,
    Deleted,
}

#[expect(clippy::struct_field_names, reason = "`userName` is SCIM's own word")]
pub(super) struct User {
    pub(super) id: UserId,
    pub(super) state: UserState,
    user_name: Option<Arc<str>>,
    external_id: Option<Arc<str>>,
    primary_email: Option<Arc<str>>,
    work_email: Option<Arc<str>>,
    /// The folded principal of an active user with a valid one.
    pub(super) key: Option<MemberKey>,
    /// The principal to write, where there is a key.
    pub(super) member: Option<Principal>,
    /// Sorted.
    groups: Vec<u32>,
}

pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) state: GroupState,
    pub(super) display_name: Arc<str>,
    pub(super) external_id: Option<Arc<str>>,
    pub(super) members: BTreeSet<u32>,
    /// Active members without a principal of their own: without any, or with one that others have too.
    unclear: BTreeSet<u32>,
    /// Groups that are direct members, with their places.
    pub(super) nested: BTreeMap<GroupId, u32>,
    /// The groups of which it is a direct member.
    parents: BTreeSet<u32>,
}

/// Rules by which principals are derived from users of this provider.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    attribute: UserAttribute,
    allowed_domains: Arc<[String]>,
}

/// What a change of the directory affects.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Affected groups, with the urgency for people who get access through them; none: only counts changed.
    pub(super) groups: BTreeMap<GroupId, Option<Urgency>>,
    /// Selectors whose meaning may have changed.
    pub(super) names: BTreeSet<Selector>,
}

impl Touched {
    fn group(&mut self, id: GroupId, urgency: Option<Urgency>) {
        let known = self.groups.entry(id).or_insert(urgency);
        *known = [*known, urgency].into_iter().flatten().min();
    }
}

/// One identity provider: its directory, and its spec if it exists.
#[derive(Default)]
pub(super) struct Tenant {
    pub(super) spec: Option<IdentityProviderSpec>,
    /// True when its people and groups belong to a former provider of that name.
    pub(super) former: bool,
    /// True when its directory is older than the resolution of nested groups.
    pub(super) before_nesting: bool,
    /// Number of memberships of groups in groups.
    nestings: usize,
    /// Kept when the spec is removed, so that a provider that returns unchanged costs nothing.
    rule: Option<Rule>,
    users: Vec<User>,
    user_at: HashMap<UserId, u32>,
    groups: Vec<Group>,
    group_at: HashMap<GroupId, u32>,
    named: HashMap<Selector, BTreeSet<GroupId>>,
    /// Active users by principal. More than one is a collision.
    owners: HashMap<MemberKey, Vec<u32>>,
}

fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Tenant {
    /// Applies the spec; true if anything about claims changed.
    pub(super) fn apply_spec(&mut self, spec: IdentityProviderSpec) -> bool {
        let rule = Rule {
            attribute: spec.principals.users.google_account.attribute,
            allowed_domains: spec.principals.allowed_domains.clone().into(),
        };
        let state = spec.state;
        let before = self.spec.replace(spec).map(|spec| spec.state);
        let derive = self.rule.as_ref() != Some(&rule);
        if derive {
            self.rule = Some(rule);
            let mut unused = Touched::default();
            for at in 0..self.users.len() {
                self.derive(at, &mut unused);
                self.sort(at);
            }
        }
        derive || before != Some(state)
    }

    /// True when an `IdentityProvider` exists, owns the stored people, and is not suspended.
    pub(super) fn is_in_force(&self) -> bool {
        self.spec.is_some() && !self.former && !self.is_suspended()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.state == ProviderState::Suspended)
    }

    /// True when members of nested groups are members. Nobody says so while there is no `IdentityProvider`.
    pub(super) fn resolves_nesting(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| match spec.nested_groups {
            Some(mode) => mode == NestedGroups::Resolve,
            None => !self.before_nesting,
        })
    }

    /// True when nested groups are ignored because the `IdentityProvider` says nothing and its directory is older than
    /// their resolution.
    pub(super) fn ignores_by_age(&self) -> bool {
        self.before_nesting && self.spec.as_ref().is_none_or(|spec| spec.nested_groups.is_none())
    }

    /// Number of memberships of groups in groups.
    pub(super) fn nestings(&self) -> usize {
        self.nestings
    }

    pub(super) fn user(&self, id: UserId) -> Option<&User> {
        self.user_at.get(&id).map(|at| &self.users[*at as usize])
    }

    /// The groups that the group is a direct member of.
    pub(super) fn parents(&self, group: &Group) -> impl Iterator<Item = GroupId> {
        group.parents.iter().map(|at| self.groups[*at as usize].id)
    }

    pub(super) fn group(&self, id: GroupId) -> Option<&Group> {
        self.group_at.get(&id).map(|at| &self.groups[*at as usize])
    }

    pub(super) fn group_at(&self, at: u32) -> &Group {
        &self.groups[at as usize]
    }

    /// The groups that a user is a direct member of.
    pub(super) fn groups_of(&self, id: UserId) -> impl Iterator<Item = GroupId> {
        self.user(id).into_iter().flat_map(|user| &user.groups).map(|at| self.groups[*at as usize].id)
    }

    pub(super) fn named(&self, selector: &Selector) -> impl Iterator<Item = GroupId> {
        self.named.get(selector).into_iter().flatten().copied()
    }

    pub(super) fn members(&self, group: &Group) -> impl Iterator<Item = &User> {
        group.members.iter().map(|at| &self.users[*at as usize])
    }

    /// The number of people in these groups, each of them once.
    pub(super) fn distinct_members<'a>(groups: impl Iterator<Item = &'a Group>) -> usize {
        let mut members: Vec<u32> = groups.flat_map(|group| &group.members).copied().collect();
        members.sort_unstable();
        members.dedup();
        members.len()
    }

    /// The active members without a principal of their own.
    pub(super) fn unclear(&self, group: &Group) -> impl Iterator<Item = &User> {
        group.unclear.iter().map(|at| &self.users[*at as usize])
    }

    #[cfg(test)]
    pub(super) fn users(&self) -> &[User] {
        &self.users
    }

    #[cfg(test)]
    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// A user who has this principal.
    pub(super) fn owner(&self, key: &MemberKey) -> Option<UserId> {
        let first = self.owners.get(key)?.first()?;
        self.users.get(*first as usize).map(|user| user.id)
    }

    /// True when several active users have this user's principal.
    pub(super) fn collides(&self, user: &User) -> bool {
        user.key.as_ref().is_some_and(|key| self.owners.get(key).is_some_and(|owners| owners.len() > 1))
    }

    /// The domains under which Google may store the members of this provider.
    pub(super) fn allowed_domains(&self) -> Arc<[String]> {
        self.rule.as_ref().map(|rule| rule.allowed_domains.clone()).unwrap_or_default()
    }

    /// The principal to write for this user, whatever the user's state.
    pub(super) fn principal(&self, user: &User) -> Option<Principal> {
        let rule = self.rule.as_ref()?;
        Principal::google_account(Self::address(rule, user)?, &rule.allowed_domains).ok()
    }

    fn address<'u>(rule: &Rule, user: &'u User) -> Option<&'u str> {
        let address = match rule.attribute {
            UserAttribute::UserName => &user.user_name,
            UserAttribute::ExternalId => &user.external_id,
            UserAttribute::PrimaryEmail => &user.primary_email,
            UserAttribute::WorkEmail => &user.work_email,
        };
        address.as_deref().filter(|address| !address.trim().is_empty())
    }

    /// True when the user has no value at the attribute, so that the principal is unknown.
    pub(super) fn lacks_address(&self, user: &User) -> bool {
        self.rule.as_ref().is_none_or(|rule| Self::address(rule, user).is_none())
    }

    /// True when this member is no longer that of an active user, whether or not somebody else has the new one too. A
    /// user without any address has not moved.
    pub(super) fn has_moved(&self, id: UserId, member: &MemberKey) -> bool {
        self.user(id).filter(|user| user.state == UserState::Active).is_some_and(|user| match &user.key {
            Some(key) => key != member,
            None => !self.lacks_address(user),
        })
    }

    /// Updates the user's principal, and the state of users who share the former or the new one.
    fn derive(&mut self, at: usize, touched: &mut Touched) {
        let user = &self.users[at];
        let member = if user.state == UserState::Active { self.principal(user) } else { None };
        let new = member.as_ref().map(Principal::key);
        let is_same = new == user.key;
        self.users[at].member = member;
        if is_same {
            return;
        }
        let mut others = Vec::new();
        if let Some(old) = self.users[at].key.take()
            && let Some(owners) = self.owners.get_mut(&old)
        {
            owners.retain(|owner| *owner != place(at));
            match owners.as_slice() {
                [] => drop(self.owners.remove(&old)),
                [other] => others.push(*other),
                _ => {}
            }
        }
        if let Some(mut new) = new {
            // The map and its users share one allocation.
            if let Some((known, _)) = self.owners.get_key_value(&new) {
                new = known.clone();
            }
            let owners = self.owners.entry(new.clone()).or_default();
            if let [other] = owners.as_slice() {
                others.push(*other);
            }
            owners.push(place(at));
            self.users[at].key = Some(new);
        }
        for other in others {
            self.sort(other as usize);
            self.touch(other as usize, Urgency::Addition, touched);
        }
    }

    fn is_unclear(&self, at: usize) -> bool {
        let user = &self.users[at];
        user.state == UserState::Active && (user.key.is_none() || self.collides(user))
    }

    /// Updates, in the user's groups, whether the user's principal is clear.
    fn sort(&mut self, at: usize) {
        let unclear = self.is_unclear(at);
        let Self { users, groups, .. } = self;
        for group in &users[at].groups {
            let known = &mut groups[*group as usize].unclear;
            if unclear {
                known.insert(place(at));
            } else {
                known.remove(&place(at));
            }
        }
    }

    fn touch(&self, at: usize, urgency: Urgency, touched: &mut Touched) {
        for group in &self.users[at].groups {
            touched.group(self.groups[*group as usize].id, Some(urgency));
        }
    }

    fn intern_user(&mut self, id: UserId) -> usize {
        let Self { users, user_at, .. } = self;
        *user_at.entry(id).or_insert_with(|| {
            users.push(User {
                id,
                state: UserState::Unseen,
                user_name: None,
                external_id: None,
                primary_email: None,
                work_email: None,
                key: None,
                member: None,
                groups: Vec::new(),
            });
            place(users.len() - 1)
        }) as usize
    }

    fn intern_group(&mut self, id: GroupId) -> usize {
        let Self { groups, group_at, .. } = self;
        *group_at.entry(id).or_insert_with(|| {
            groups.push(Group {
                id,
                state: GroupState::Unseen,
                display_name: "".into(),
                external_id: None,
                members: BTreeSet::new(),
                unclear: BTreeSet::new(),
                nested: BTreeMap::new(),
                parents: BTreeSet::new(),
            });
            place(groups.len() - 1)
        }) as usize
    }

    /// Applies one change. Deleted ids stay deleted: they are never reused.
    pub(super) fn apply(&mut self, change: &DirectoryChange) -> Touched {
        let mut touched = Touched::default();
        match change {
            DirectoryChange::User(facts) => self.apply_user(facts, &mut touched),
            DirectoryChange::UserDeleted { id } => self.delete_user(*id, &mut touched),
            DirectoryChange::Group(facts) => self.apply_group(facts, &mut touched),
            DirectoryChange::GroupDeleted { id } => self.delete_group(*id, &mut touched),
            DirectoryChange::Members { group, added, removed } => {
                self.apply_members(*group, added, removed, &mut touched);
            }
            DirectoryChange::Nested { group, added, removed } => {
                self.apply_nested(*group, added, removed, &mut touched);
            }
        }
        touched
    }

    fn apply_user(&mut self, facts: &UserFacts, touched: &mut Touched) {
        let at = self.intern_user(facts.id);
        let user = &mut self.users[at];
        if user.state == UserState::Deleted {
            return;
        }
        let was_active = user.state == UserState::Active;
        let before = user.key.clone();
        let lacked = self.lacks_address(&self.users[at]);
        let user = &mut self.users[at];
        user.state = if facts.active { UserState::Active } else { UserState::Inactive };
        let user_name: Arc<str> = facts.user_name.as_str().into();
        // Most addresses equal the userName, and then share its text.
        let shared = |text: &str| if *text == *user_name { user_name.clone() } else { text.into() };
        let work = |kind: &Option<String>| kind.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("work"));
        user.external_id = facts.external_id.as_deref().map(shared);
        user.primary_email = facts.emails.iter().find(|email| email.primary).map(|email| shared(&email.value));
        user.work_email = facts.emails.iter().find(|email| work(&email.kind)).map(|email| shared(&email.value));
        user.user_name = Some(user_name);
        let active = facts.active;
        self.derive(at, touched);
        self.sort(at);
        // A claim kept for want of an address may end when the new address is not admitted.
        let moved = before != self.users[at].key || lacked != self.lacks_address(&self.users[at]);
        if was_active && (!active || moved) {
            self.touch(at, Urgency::Revocation, touched);
        } else if active && !was_active {
            self.touch(at, Urgency::Addition, touched);
        }
    }

    fn delete_user(&mut self, id: UserId, touched: &mut Touched) {
        let at = self.intern_user(id);
        let was_active = self.users[at].state == UserState::Active;
        self.users[at].state = UserState::Deleted;
        self.derive(at, touched);
        let user = &mut self.users[at];
        (user.user_name, user.external_id, user.primary_email, user.work_email) = (None, None, None, None);
        for group in std::mem::take(&mut user.groups) {
            let group = &mut self.groups[group as usize];
            group.members.remove(&place(at));
            group.unclear.remove(&place(at));
            touched.group(group.id, was_active.then_some(Urgency::Revocation));
        }
    }

    fn apply_group(&mut self, facts: &GroupFacts, touched: &mut Touched) {
        let at = self.intern_group(facts.id);
        if self.groups[at].state == GroupState::Deleted {
            return;
        }
        self.rename(at, GroupState::Present, &facts.display_name, facts.external_id.as_deref(), touched);
    }

    fn delete_group(&mut self, id: GroupId, touched: &mut Touched) {
        let at = self.intern_group(id);
        self.rename(at, GroupState::Deleted, "", None, touched);
        self.groups[at].unclear.clear();
        let (inner, outer) =
            (std::mem::take(&mut self.groups[at].nested), std::mem::take(&mut self.groups[at].parents));
        for nested in inner.into_values() {
            self.groups[nested as usize].parents.remove(&place(at));
            self.nestings -= 1;
        }
        for parent in outer {
            // One that contained itself is empty already.
            self.nestings -= usize::from(self.groups[parent as usize].nested.remove(&id).is_some());
            touched.group(self.groups[parent as usize].id, None);
        }
        for user in std::mem::take(&mut self.groups[at].members) {
            let groups = &mut self.users[user as usize].groups;
            if let Ok(found) = groups.binary_search(&place(at)) {
                groups.remove(found);
            }
        }
    }

    fn rename(&mut self, at: usize, state: GroupState, name: &str, external: Option<&str>, touched: &mut Touched) {
        let group = &mut self.groups[at];
        let names = |group: &Group| -> Vec<Selector> {
            let present = group.state == GroupState::Present;
            let external = group.external_id.clone().map(Selector::ExternalId);
            [Some(Selector::DisplayName(group.display_name.clone())), external]
                .into_iter()
                .flatten()
                .filter(|_| present)
                .collect()
        };
        let before = names(group);
        if group.state != state || *group.display_name != *name || group.external_id.as_deref() != external {
            touched.group(group.id, None);
        }
        group.state = state;
        group.display_name = name.into();
        group.external_id = external.map(Into::into);
        let (id, after) = (group.id, names(group));
        for selector in before.iter().filter(|selector| !after.contains(selector)) {
            if let Some(ids) = self.named.get_mut(selector) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.named.remove(selector);
                }
            }
            touched.names.insert(selector.clone());
        }
        for selector in after {
            if self.named.entry(selector.clone()).or_default().insert(id) {
                touched.names.insert(selector);
            }
        }
    }

    fn apply_nested(&mut self, group: GroupId, added: &[GroupId], removed: &[GroupId], touched: &mut Touched) {
        let parent = self.intern_group(group);
        if self.groups[parent].state == GroupState::Deleted {
            return;
        }
        for (ids, adding) in [(removed, false), (added, true)] {
            for id in ids {
                let at = self.intern_group(*id);
                if adding && self.groups[at].state != GroupState::Deleted {
                    self.nestings += usize::from(self.groups[parent].nested.insert(*id, place(at)).is_none());
                    self.groups[at].parents.insert(place(parent));
                } else {
                    self.nestings -= usize::from(self.groups[parent].nested.remove(id).is_some());
                    self.groups[at].parents.remove(&place(parent));
                }
            }
        }
        touched.group(group, None);
    }

    fn apply_members(&mut self, group: GroupId, added: &[UserId], removed: &[UserId], touched: &mut Touched) {
        let group = self.intern_group(group);
        if self.groups[group].state == GroupState::Deleted {
            return;
        }
        for (ids, adding) in [(removed, false), (added, true)] {
            for id in ids {
                let at = self.intern_user(*id);
                let unclear = self.is_unclear(at);
                let user = &mut self.users[at];
                let Group { members, unclear: known, .. } = &mut self.groups[group];
                let active = user.state == UserState::Active;
                let urgency = match (adding, user.groups.binary_search(&place(group))) {
                    (true, Err(gap)) if user.state != UserState::Deleted => {
                        user.groups.insert(gap, place(group));
                        members.insert(place(at));
                        if unclear {
                            known.insert(place(at));
                        }
                        Urgency::Addition
                    }
                    (false, Ok(found)) => {
                        user.groups.remove(found);
                        members.remove(&place(at));
                        known.remove(&place(at));
                        Urgency::Revocation
                    }
                    _ => continue,
                };
                touched.group(self.groups[group].id, active.then_some(urgency));
            }
        }
    }
}
