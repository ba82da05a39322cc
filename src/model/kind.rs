//! Kinds of the objects that rolecall reads.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Kind of an object. In the order in which objects are applied: those that others refer to come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A namespace, of which only the labels are read.
    Namespace,
    /// A Secret with tokens of an identity provider.
    Secret,
    /// An identity provider, which is one SCIM tenant.
    IdentityProvider,
    /// One project with its regions.
    CloudRunTarget,
    /// Roles of groups on resources.
    RoleMapping,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 5] =
        [Self::Namespace, Self::Secret, Self::IdentityProvider, Self::CloudRunTarget, Self::RoleMapping];

    /// The kinds of the custom resources, which have a status.
    pub(crate) const RESOURCES: [Self; 3] = [Self::IdentityProvider, Self::CloudRunTarget, Self::RoleMapping];

    /// The kinds of which a cluster is watched for all objects.
    pub(crate) const WATCHED: [Self; 4] =
        [Self::IdentityProvider, Self::CloudRunTarget, Self::RoleMapping, Self::Namespace];

    /// The kind as manifests spell it, and as it is stored.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Secret => "Secret",
            Self::IdentityProvider => "IdentityProvider",
            Self::CloudRunTarget => "CloudRunTarget",
            Self::RoleMapping => "RoleMapping",
        }
    }

    /// The kind as paths of the API spell it.
    #[must_use]
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Secret => "secrets",
            Self::IdentityProvider => "identityproviders",
            Self::CloudRunTarget => "cloudruntargets",
            Self::RoleMapping => "rolemappings",
        }
    }

    /// The kind that manifests spell like this; none for a word that is no kind.
    #[must_use]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_word_and_no_other_word_is_taken_for_one() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_word(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(kind.plural(), format!("{}s", kind.as_str().to_ascii_lowercase()));
        }
        for word in ["", "rolemapping", "RoleMappings", "RoleMaping", "Deployment"] {
            assert_eq!(Kind::from_word(word), None, "{word}");
        }
    }

    #[test]
    fn objects_come_after_those_they_refer_to() {
        assert!(Kind::ALL.is_sorted() && Kind::RESOURCES.is_sorted());
    }
}
