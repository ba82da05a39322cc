//! The differences between a document and what is wanted there, as one reconcile found them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Concerns, ConditionHash, Differences, DriftKey, DriftKind, GrantKey, MemberKey};

use super::Plan;

/// Members that stand for everybody.
const PUBLIC: [&str; 2] = ["allUsers", "allAuthenticatedUsers"];

impl Plan {
    /// The differences that remain after this reconcile: grants of rolecall that are missing and not made again, and
    /// members that rolecall neither put there nor wants there.
    #[must_use]
    pub(crate) fn differences(&self) -> Differences {
        let mut found = Differences::new();
        let missing: BTreeSet<&GrantKey> =
            self.lost.iter().filter(|lost| !lost.regranted).map(|lost| &lost.grant).collect();
        let mut changed: BTreeSet<&GrantKey> = BTreeSet::new();
        let ours = |grant: &GrantKey| self.ours.contains(grant) || self.goes(grant);
        let foreign = self.live.grants.keys().filter(|grant| !ours(grant));
        let grants = foreign.map(|grant| (grant.role.as_str(), &grant.condition, &grant.member));
        let beyond = self.live.beyond.iter().map(|(role, condition, member)| (role.as_str(), condition, member));
        let left: BTreeMap<(&str, &ConditionHash, &MemberKey), &Concerns> = self
            .left
            .iter()
            .map(|(grant, concerns)| ((grant.role.as_str(), &grant.condition, &grant.member), concerns))
            .collect();
        for (role, condition, member) in grants.chain(beyond) {
            let counterpart = missing.iter().find(|grant| grant.role.as_str() == role && grant.member == *member);
            if let Some(concerns) = left.get(&(role, condition, member)) {
                found.insert(key(DriftKind::LeaverHasForeignGrant, role, condition, member), (*concerns).clone());
                continue;
            }
            let kind = match counterpart {
                Some(grant) => {
                    changed.insert(grant);
                    DriftKind::ConditionChanged
                }
                None => unexpected(member),
            };
            let concerns = counterpart.map(|grant| self.concerned_by(grant)).unwrap_or_default();
            found.insert(key(kind, role, condition, member), concerns);
        }
        for grant in missing.difference(&changed) {
            let key = key(DriftKind::GrantMissing, grant.role.as_str(), &grant.condition, &grant.member);
            found.insert(key, self.concerned_by(grant));
        }
        found
    }

    /// True when this write takes the grant out.
    fn goes(&self, grant: &GrantKey) -> bool {
        self.sweep.contains(grant) || self.remove.iter().any(|step| step.out.contains(grant))
    }

    /// The mappings and the subject that claim a grant.
    fn concerned_by(&self, grant: &GrantKey) -> Concerns {
        let lines = self.lines.iter().filter(|line| line.grant == *grant);
        Concerns { mappings: lines.flat_map(|line| &line.mappings).cloned().collect(), subject: self.subject_of(grant) }
    }
}

fn unexpected(member: &MemberKey) -> DriftKind {
    if PUBLIC.contains(&member.as_str()) {
        DriftKind::PublicPrincipal
    } else if member.as_str().starts_with("deleted:") {
        DriftKind::Tombstone
    } else {
        DriftKind::GrantUnexpected
    }
}

fn key(kind: DriftKind, role: &str, condition: &ConditionHash, member: &MemberKey) -> DriftKey {
    DriftKey { kind, role: role.to_owned(), condition: condition.clone(), member: Some(member.clone()) }
}
