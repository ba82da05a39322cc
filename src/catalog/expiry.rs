//! Grants that end at a time of their own (`notAfter`).

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::mapping::{Mapping, Roles};
use super::{Catalog, Effects, Urgency};
use crate::model::{ConditionHash, DocumentKey, MappingKey, MemberKey, ProviderName, Role};

/// The grants of a mapping that end at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct EndsView {
    /// Number of grants that would be wanted if they had not ended.
    pub(crate) ended: usize,
    /// The next time at which some end.
    pub(crate) next: Option<Timestamp>,
}

impl Catalog {
    /// Sets the time by which ends are decided. What ends by that is due at once; what is in force again, because the
    /// time went back, as an addition.
    pub(crate) fn advance_to(&mut self, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        let before = std::mem::replace(&mut self.as_of, now);
        let (from, to) = (before.min(now), before.max(now));
        if from == to {
            return effects;
        }
        let urgency = if before < now { Urgency::Revocation } else { Urgency::Addition };
        let passed = |end: Timestamp| from < end && end <= to;
        let keys: BTreeSet<&MappingKey> =
            self.ends.range(from..=to).filter(|(end, _)| passed(**end)).flat_map(|(_, keys)| keys).collect();
        for key in keys {
            let Some(mapping) = self.mappings.get(key) else { continue };
            effects.mappings.insert(key.clone());
            for (document, roles) in &mapping.reach.documents {
                if roles.keys().any(|given| given.not_after.is_some_and(passed)) {
                    effects.document(document, urgency);
                }
            }
        }
        effects
    }

    /// The time by which ends are decided.
    #[must_use]
    pub(crate) fn as_of(&self) -> Timestamp {
        self.as_of
    }

    /// True when any mapping has grants that end, or have ended.
    #[must_use]
    pub(crate) fn has_ends(&self) -> bool {
        !self.ends.is_empty()
    }

    /// The next time at which grants end.
    #[must_use]
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.ends.range(self.as_of..).map(|(end, _)| *end).find(|end| *end > self.as_of)
    }

    /// The last time, up to this one, at which grants ended.
    #[must_use]
    pub(crate) fn last_end(&self, until: Timestamp) -> Option<Timestamp> {
        self.ends.range(..=until).next_back().map(|(end, _)| *end)
    }

    /// The documents on which grants have ended.
    pub(crate) fn ended_documents(&self) -> BTreeSet<&DocumentKey> {
        let keys: BTreeSet<&MappingKey> = self.ends.range(..=self.as_of).flat_map(|(_, keys)| keys).collect();
        let mappings = keys.into_iter().filter_map(|key| self.mappings.get(key));
        let ended = mappings.flat_map(|mapping| &mapping.reach.documents);
        ended.filter(|(_, roles)| self.ended(roles).next().is_some()).map(|(document, _)| document).collect()
    }

    pub(super) fn link_ends(&mut self, key: &MappingKey, mapping: &Mapping) {
        for end in mapping.grants.iter().filter_map(|grant| grant.terms.not_after()) {
            self.ends.entry(end).or_default().insert(key.clone());
        }
    }

    pub(super) fn unlink_ends(&mut self, key: &MappingKey, mapping: &Mapping) {
        for end in mapping.grants.iter().filter_map(|grant| grant.terms.not_after()) {
            if let Some(keys) = self.ends.get_mut(&end) {
                keys.remove(key);
                if keys.is_empty() {
                    self.ends.remove(&end);
                }
            }
        }
    }

    /// Roles with a condition that have ended, with the providers whose people had them, unless they are given in another
    /// way that has not.
    fn ended<'a>(
        &self,
        roles: &'a Roles,
    ) -> impl Iterator<Item = (&'a Role, &'a ConditionHash, &'a BTreeSet<ProviderName>)> {
        let now = self.as_of;
        let lasts = move |role: &Role, hash: &ConditionHash| {
            roles.keys().any(|given| !given.is_over(now) && given.role == *role && given.hash == *hash)
        };
        let over = roles.iter().filter(move |(given, _)| given.is_over(now) && !lasts(&given.role, &given.hash));
        over.map(|(given, providers)| (&given.role, &given.hash, providers))
    }

    /// The roles that a mapping gave on a document and does not give in any way now, because of their ends.
    pub(super) fn ended_roles(&self, roles: &Roles) -> BTreeSet<Role> {
        let lasts = |role: &Role| roles.keys().any(|given| !given.is_over(self.as_of) && given.role == *role);
        self.ended(roles).map(|(role, ..)| role).filter(|role| !lasts(role)).cloned().collect()
    }

    /// The grants of a mapping that end at a time.
    pub(super) fn ends_view(&self, mapping: &Mapping) -> EndsView {
        let ends = mapping.grants.iter().filter_map(|grant| grant.terms.not_after());
        let next = ends.clone().filter(|end| *end > self.as_of).min();
        let mut ended = 0;
        if ends.clone().any(|end| end <= self.as_of) {
            let mut people: BTreeSet<(&ProviderName, &MemberKey)> = BTreeSet::new();
            for (provider, meant) in self.groups(mapping) {
                let members = meant.members().map(|(_, user)| user).filter(|user| !meant.tenant.collides(user));
                people.extend(members.filter_map(|user| Some((provider, user.key.as_ref()?))));
            }
            for roles in mapping.reach.documents.values() {
                let grants: BTreeSet<(&Role, &ConditionHash, &MemberKey)> = self
                    .ended(roles)
                    .flat_map(|(role, hash, providers)| {
                        let of = people.iter().filter(|(provider, _)| providers.contains(*provider));
                        of.map(move |(_, member)| (role, hash, *member))
                    })
                    .collect();
                ended += grants.len();
            }
        }
        EndsView { ended, next }
    }
}
