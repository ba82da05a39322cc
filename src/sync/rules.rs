//! What a target says about whole policies: which differences are reported.

use std::sync::Arc;

use crate::api::glob::{ResourcePatterns, glob};
use crate::api::{CloudRunTargetSpec, DocumentsSpec, Unexpected};
use crate::model::{DocumentKey, DriftKey, DriftKind, MemberKey};

/// What holds for the policies of some resources.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DocumentRules {
    resources: ResourcePatterns,
    unexpected: Unexpected,
    /// Folded like the keys of members.
    ignore: Vec<MemberKey>,
}

impl DocumentRules {
    fn of(spec: &DocumentsSpec) -> Self {
        Self {
            resources: ResourcePatterns::parse(&spec.resources),
            unexpected: spec.unexpected,
            ignore: spec.ignore.iter().map(|member| MemberKey::of(member)).collect(),
        }
    }

    /// True when this difference is reported.
    pub(super) fn reports(&self, difference: &DriftKey) -> bool {
        let ignored = || {
            let member = difference.member.as_ref();
            member.is_some_and(|member| self.ignore.iter().any(|pattern| glob(pattern.as_str(), member.as_str())))
        };
        match difference.kind {
            DriftKind::PublicPrincipal => !ignored(),
            DriftKind::GrantUnexpected | DriftKind::Tombstone => self.unexpected == Unexpected::Report && !ignored(),
            DriftKind::LeaverHasForeignGrant
            | DriftKind::GrantMissing
            | DriftKind::ConditionChanged
            | DriftKind::TargetRecreated
            | DriftKind::GrantRemains
            | DriftKind::InvokerCheckDisabled => true,
        }
    }
}

/// The rules of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TargetRules(Arc<[Arc<DocumentRules>]>);

impl TargetRules {
    pub(super) fn of(spec: &CloudRunTargetSpec) -> Self {
        Self(spec.documents.iter().map(DocumentRules::of).map(Arc::new).collect())
    }

    /// The rules of a document: the first that match it.
    pub(super) fn find(&self, document: &DocumentKey) -> Option<Arc<DocumentRules>> {
        self.0.iter().find(|rules| rules.resources.matches(document.kind(), document.name())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use DriftKind::{GrantMissing, GrantUnexpected, PublicPrincipal, Tombstone};

    use super::*;
    use crate::model::ConditionHash;

    #[test]
    fn the_first_entry_counts_and_ignores_what_it_names_but_nothing_of_rolecall() {
        let entry = |resources: &str, unexpected, ignore: &[&str]| DocumentsSpec {
            resources: vec![resources.to_owned()],
            unexpected,
            ignore: ignore.iter().map(|&member| member.to_owned()).collect(),
        };
        let documents = [
            entry("services/a", Unexpected::Ignore, &[]),
            entry("services/*", Unexpected::Report, &["serviceAccount:*", "user:Bob@*", "allUsers"]),
        ];
        let rules = TargetRules(documents.iter().map(DocumentRules::of).map(Arc::new).collect());
        let document = |text: &str| format!("run:projects/p/locations/l/{text}").parse::<DocumentKey>().unwrap();
        let reports = |on: &str, kind, member: &str| {
            let member = Some(MemberKey::of(member));
            let key = DriftKey { kind, role: "roles/x".to_owned(), condition: ConditionHash::default(), member };
            rules.find(&document(on)).is_none_or(|rules| rules.reports(&key))
        };
        for (on, kind, member, reported) in [
            ("services/a", GrantUnexpected, "user:eve@x.example", false),
            ("services/a", Tombstone, "deleted:user:eve@x.example?uid=1", false),
            ("services/a", PublicPrincipal, "allUsers", true),
            ("services/a", GrantMissing, "user:eve@x.example", true),
            ("services/b", GrantUnexpected, "user:eve@x.example", true),
            ("services/b", GrantUnexpected, "serviceAccount:ci@p.iam.gserviceaccount.com", false),
            ("services/b", GrantUnexpected, "user:bob@x.example", false),
            ("services/b", PublicPrincipal, "allUsers", false),
            ("services/b", PublicPrincipal, "allAuthenticatedUsers", true),
            ("services/b", GrantMissing, "user:bob@x.example", true),
            ("jobs/a", GrantUnexpected, "user:eve@x.example", true),
        ] {
            assert_eq!(reports(on, kind, member), reported, "{on} {kind:?} {member}");
        }
    }
}
