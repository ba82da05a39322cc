//! What a document should hold, and why: the answer of the index and the input of the plan.

use std::collections::{BTreeMap, BTreeSet};

use super::{Claim, Condition, GrantKey, MappingKey, Principal, Subject};

/// What should stand in one document, as far as the mappings that can be resolved now say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Wanted grants with all their claims.
    pub grants: BTreeMap<GrantKey, DesiredGrant>,
    /// How to treat the claims that the ledger holds for each mapping: an entry for every claimant that was asked
    /// about and for every mapping that wants something here. A claimant without an entry is frozen.
    pub stances: BTreeMap<MappingKey, Stance>,
    /// The `metadata.generation` of each mapping that has a spec, for the audit.
    pub generations: BTreeMap<MappingKey, i64>,
    /// The uid of the resource as last listed. A resource that was re-created starts with an empty policy.
    pub resource_uid: Option<String>,
    /// A complete list of its region lacks the resource. Together with Google's own word that it is not there, its policy
    /// went with it; alone it says nothing.
    pub absent: bool,
}

/// One wanted grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredGrant {
    /// The member to write.
    pub member: Principal,
    /// The condition to write, whose hash is in the key.
    pub condition: Option<Condition>,
    /// Who wants it, and on what terms. Never empty.
    pub claims: BTreeMap<Claim, ClaimTerms>,
}

/// On what terms a claim is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimTerms {
    /// May a write be made on this ground? False under `Observe`.
    pub write: bool,
    /// Is a grant of ours that was taken away granted again (`onMissing: Revert`)?
    pub regrant: bool,
}

/// How the claims that the ledger holds for one mapping on one document are to be treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stance {
    /// The mapping is known and resolved: ledger claims that are not wanted now end, except those that are kept.
    Live {
        /// Which ledger claims stay although they are not wanted now.
        keep: Keep,
    },
    /// Nothing is removed and nothing new is granted on this ground.
    Frozen(FreezeReason),
    /// The mapping was deleted: its claims end. `orphan`: the grants stay and are forgotten (`deletionPolicy: Orphan`).
    Ended {
        /// Leave the grants in the policy and forget them.
        orphan: bool,
    },
}

/// Which ledger claims of a live mapping stay although they are not wanted now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Keep {
    /// None.
    #[default]
    Nothing,
    /// Those of these subjects: an active user whose principal cannot be derived, or collides with another's.
    Subjects(BTreeSet<Subject>),
    /// All, because a group of the mapping cannot be resolved and the ledger does not say through which group a claim
    /// came.
    Everything(FreezeReason),
}

/// Why nothing is concluded from an absence. The words are condition reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FreezeReason {
    /// Manifests, watches or the directory are not loaded yet.
    NotLoaded,
    /// The mapping is gone, and nobody saw it being deleted.
    MappingVanished,
    /// The folder of manifests is missing or empty, or more than half of the mappings are gone at once.
    ManifestsMissing,
    /// The mapping names an `IdentityProvider` that does not exist.
    IdentityProviderNotFound,
    /// The people of a provider belong to a former `IdentityProvider` of that name.
    IdentityProviderChanged,
    /// The mapping names a `CloudRunTarget` that does not exist.
    TargetNotFound,
    /// `mode: Suspend`, or the provider is suspended.
    Suspended,
    /// `mode: Observe`, or `--mode observe`.
    Observed,
    /// An older target covers the same project and region.
    OverlappingTarget,
    /// Several groups have that name.
    GroupAmbiguous,
    /// No group of that name was ever seen.
    GroupNotFound,
    /// The name means another group than the one it was pinned to.
    GroupIdentityChanged,
    /// The list of resources failed or was partial.
    InventoryIncomplete,
    /// The database is not the one that was used here before, or it is empty.
    StoreMismatch,
    /// The database is older than what was seen here before.
    StoreRewound,
}

impl FreezeReason {
    /// The condition reason.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotLoaded => "NotLoaded",
            Self::MappingVanished => "MappingVanished",
            Self::ManifestsMissing => "ManifestsMissing",
            Self::IdentityProviderNotFound => "IdentityProviderNotFound",
            Self::IdentityProviderChanged => "IdentityProviderChanged",
            Self::TargetNotFound => "TargetNotFound",
            Self::Suspended => "Suspended",
            Self::Observed => "Observed",
            Self::OverlappingTarget => "OverlappingTarget",
            Self::GroupAmbiguous => "GroupAmbiguous",
            Self::GroupNotFound => "GroupNotFound",
            Self::GroupIdentityChanged => "GroupIdentityChanged",
            Self::InventoryIncomplete => "InventoryIncomplete",
            Self::StoreMismatch => "StoreMismatch",
            Self::StoreRewound => "StoreRewound",
        }
    }

    /// Do the claims of people whom the IdP reports inactive or deleted end in spite of the freeze? They do wherever the
    /// directory is known to be right and only the other ground of the claim is missing.
    #[must_use]
    pub fn lets_leavers_go(self) -> bool {
        match self {
            Self::MappingVanished
            | Self::ManifestsMissing
            | Self::GroupNotFound
            | Self::GroupAmbiguous
            | Self::GroupIdentityChanged
            | Self::InventoryIncomplete => true,
            Self::NotLoaded
            | Self::IdentityProviderNotFound
            | Self::IdentityProviderChanged
            | Self::TargetNotFound
            | Self::OverlappingTarget
            | Self::Suspended
            | Self::Observed
            | Self::StoreMismatch
            | Self::StoreRewound => false,
        }
    }

    /// Cause, effect and next step in one sentence.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::NotLoaded => "manifests and directory are still being loaded, so nothing is written yet",
            Self::MappingVanished => {
                "the mapping is gone but its deletion was not seen; its grants stay until it comes back or `rolecall release mapping NAMESPACE/NAME` ends them"
            }
            Self::ManifestsMissing => {
                "the manifest folder is missing or empty, or more than half of the mappings vanished at once; all grants stay until the manifests are back or `rolecall release` confirms the removal"
            }
            Self::IdentityProviderNotFound => {
                "the IdentityProvider does not exist, so its grants stay as they are; create it or remove the subject"
            }
            Self::IdentityProviderChanged => {
                "the people and groups that are stored belong to a former IdentityProvider of this name: SCIM requests are answered with 503, and what was granted stays, until `rolecall store accept-provider NAME` hands them over or `rolecall store purge-provider NAME` deletes them"
            }
            Self::TargetNotFound => {
                "the CloudRunTarget does not exist, so its grants stay as they are; create it or remove the grant"
            }
            Self::Suspended => "the mapping or its IdentityProvider is suspended: nothing is added or removed",
            Self::Observed => "observe mode: the plan is reported and nothing is written",
            Self::OverlappingTarget => {
                "an older CloudRunTarget covers the same project and region, so the grants of this one stay as they are; remove one of the two or split the regions"
            }
            Self::GroupAmbiguous => {
                "several groups have the name that the mapping gives; existing grants stay; name the group by externalId or rename one of them"
            }
            Self::GroupNotFound => {
                "a group that the mapping names was never pushed by the IdP; existing grants stay; push the group or correct the name"
            }
            Self::GroupIdentityChanged => {
                "a group name now means another group than before; existing grants stay and the new group gets nothing until the annotation rolecall.dev/accept-group names its id"
            }
            Self::InventoryIncomplete => {
                "the list of Cloud Run resources failed or was partial, so nothing is concluded from what it lacks"
            }
            Self::StoreMismatch => {
                "the database is empty or not the one used here before; nothing is written until `rolecall store accept`"
            }
            Self::StoreRewound => {
                "the database is older than what was seen here before; nothing is written until `rolecall store accept`"
            }
        }
    }
}
