//! What a document should hold, and why: the answer of the index and the input of the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Claim, Condition, GrantKey, Ground, GroupId, MappingKey, MemberKey, Principal, Role, Subject, pairs};

/// What should stand in one document, as far as the mappings that can be resolved now say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// Wanted grants with all their claims.
    #[serde(with = "pairs")]
    pub grants: BTreeMap<GrantKey, DesiredGrant>,
    /// How to treat the claims that the ledger holds for each mapping: an entry for every claimant that was asked
    /// about and for every mapping that wants something here. A claimant without an entry is frozen.
    #[serde(with = "pairs")]
    pub stances: BTreeMap<MappingKey, Enforcement>,
    /// The `metadata.generation` of each mapping that has a spec, for the audit.
    #[serde(with = "pairs")]
    pub generations: BTreeMap<MappingKey, i64>,
    /// The uid of the resource as last listed. A resource that was re-created starts with an empty policy.
    pub resource_uid: Option<String>,
    /// A complete list of its region lacks the resource. Together with Google's own word that it is not there, its policy
    /// went with it; alone it says nothing.
    pub absent: bool,
    /// The roles for which the owner of the document lets a mapping keep access of people who left while it is suspended or
    /// observed.
    #[serde(with = "pairs")]
    pub may_suspend: BTreeMap<MappingKey, BTreeSet<Role>>,
    /// The roles for which the owner of the document lets a mapping that is deleted leave its grants behind.
    #[serde(with = "pairs")]
    pub may_orphan: BTreeMap<MappingKey, BTreeSet<Role>>,
    /// rolecall itself goes, and whoever decided that said that all grants stay.
    pub leave_all: bool,
    /// No target covers the document, so that nobody says what may be written there.
    pub uncovered: bool,
}

impl Desired {
    /// True when a freeze for this reason keeps the access of people who left.
    #[must_use]
    pub fn keeps_leavers(&self, mapping: &MappingKey, role: &Role, reason: FreezeReason) -> bool {
        let may_suspend = || self.may_suspend.get(mapping).is_some_and(|roles| roles.contains(role));
        match reason {
            FreezeReason::Suspended | FreezeReason::Observed => self.uncovered || may_suspend(),
            FreezeReason::TargetNotFound => self.uncovered,
            other => !other.lets_leavers_go(),
        }
    }

    /// True when the mapping may leave a grant of this role behind when it is deleted.
    #[must_use]
    pub fn may_orphan(&self, mapping: &MappingKey, role: &Role) -> bool {
        self.leave_all || self.may_orphan.get(mapping).is_some_and(|roles| roles.contains(role))
    }
}

/// One wanted grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredGrant {
    /// The member to write.
    pub member: Principal,
    /// The condition to write, whose hash is in the key.
    pub condition: Option<Condition>,
    /// Who wants it, and on what terms. Never empty.
    #[serde(with = "pairs")]
    pub claims: BTreeMap<Claim, ClaimTerms>,
    /// Where each claim comes from.
    #[serde(with = "pairs")]
    pub grounds: BTreeMap<Claim, Ground>,
    /// The domains in which Google may keep the member: `allowedDomains` of the provider, lower case.
    pub allowed_domains: Arc<[String]>,
}

impl DesiredGrant {
    /// True when the grant may stand under this spelling, which is Google's.
    #[must_use]
    pub fn permits(&self, spelling: &str) -> bool {
        let domain = spelling.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
        domain.is_none_or(|domain| self.allowed_domains.contains(&domain))
    }
}

/// On what terms a claim is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimTerms {
    /// May a write be made on this ground? False under `Observe`.
    pub write: bool,
    /// Is a grant of ours that was taken away granted again (`onMissing: Revert`)?
    pub regrant: bool,
}

/// How the claims that the ledger holds for one mapping on one document are to be treated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Enforcement {
    /// The mapping is known and resolved: ledger claims that are not wanted now end, except those that are kept.
    Live {
        /// Which ledger claims stay although they are not wanted now.
        keep: Keep,
    },
    /// Nothing is removed and nothing new is granted on this ground.
    Frozen(FreezeReason),
    /// The mapping was deleted: its claims end.
    Ended {
        /// Its grants are to stay (`deletionPolicy: Orphan`): they are forgotten where [`Desired::may_orphan`] lets it, and
        /// elsewhere remembered until the person leaves.
        orphan: bool,
    },
}

/// Which ledger claims of a live mapping stay although they are not wanted now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Keep {
    /// None.
    #[default]
    Nothing,
    /// Those of these subjects.
    Subjects(#[serde(with = "pairs")] KeptSubjects),
    /// All, because a provider of the mapping is not in force.
    Everything(FreezeReason),
    /// Those that a group which cannot be resolved now could have given.
    Groups(KeptGroups),
}

/// Active people who keep what they had: all of it, when they have no value any more at the attribute that principals are
/// derived from; or that of this member, when somebody else has the same.
pub type KeptSubjects = BTreeMap<Subject, Option<MemberKey>>;

/// What is known of the groups of a mapping of which some cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptGroups {
    /// Why the first of them cannot.
    pub reason: FreezeReason,
    /// Groups that were meant and cannot be told now.
    pub unresolved: BTreeSet<GroupId>,
    /// Groups that are known, deleted ones included.
    pub known: BTreeSet<GroupId>,
    /// Members of those that are resolved who keep what they had.
    #[serde(with = "pairs")]
    pub subjects: KeptSubjects,
}

/// What becomes of a claim that is not wanted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It ends.
    No,
    /// It stays.
    Yes,
    /// It stays for this reason, as long as nobody left.
    Frozen(FreezeReason),
}

impl Keep {
    /// True when a claim for `member` that came from `ground` stays.
    #[must_use]
    pub fn keeps(&self, subject: &Subject, member: &MemberKey, ground: Option<&Ground>) -> Kept {
        let of = |subjects: &KeptSubjects| {
            let kept = subjects.get(subject).is_some_and(|only| only.as_ref().is_none_or(|only| only == member));
            if kept { Kept::Yes } else { Kept::No }
        };
        match self {
            Self::Nothing => Kept::No,
            Self::Subjects(subjects) => of(subjects),
            Self::Everything(reason) => Kept::Frozen(*reason),
            Self::Groups(groups) if groups.gave(ground) => Kept::Frozen(groups.reason),
            Self::Groups(groups) => of(&groups.subjects),
        }
    }
}

impl KeptGroups {
    /// Could a group that cannot be resolved have given a claim from there? What came through a group that the mapping does
    /// not name any more counts as renamed where no group of the mapping is known.
    fn gave(&self, ground: Option<&Ground>) -> bool {
        let Some(ground) = ground else { return true };
        let renamed = |group: &GroupId| self.known.is_empty() && !self.unresolved.contains(group);
        ground.groups.iter().any(|group| self.unresolved.contains(group) || renamed(group))
    }
}

/// Why nothing is concluded from an absence. The words are condition reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// directory is known to be right and only the other ground of the claim is missing, unless the owner of the document
    /// says otherwise ([`Desired::keeps_leavers`]). Of a provider that is missing or suspended nobody has left.
    #[must_use]
    pub fn lets_leavers_go(self) -> bool {
        match self {
            Self::MappingVanished
            | Self::ManifestsMissing
            | Self::GroupNotFound
            | Self::GroupAmbiguous
            | Self::GroupIdentityChanged
            | Self::InventoryIncomplete
            | Self::IdentityProviderNotFound
            | Self::IdentityProviderChanged
            | Self::TargetNotFound
            | Self::OverlappingTarget
            | Self::Suspended
            | Self::Observed => true,
            Self::NotLoaded | Self::StoreMismatch | Self::StoreRewound => false,
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
            Self::Suspended => {
                "the mapping or its IdentityProvider is suspended: nothing is added or removed, but for people who leave, unless the target permits that too"
            }
            Self::Observed => {
                "observe mode: the plan is reported and nothing is written, but for people who leave, unless the target permits that too or --mode is observe"
            }
            Self::OverlappingTarget => {
                "an older CloudRunTarget covers the same project and region, so the grants of this one stay as they are; remove one of the two or split the regions"
            }
            Self::GroupAmbiguous => {
                "several groups have the name that the mapping gives; existing grants stay; name the group by externalId or rename one of them"
            }
            Self::GroupNotFound => {
                "a group that the mapping names was never pushed by the IdP; what it gave stays, and so does everything while no group of the mapping is known; push the group or correct the name"
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
