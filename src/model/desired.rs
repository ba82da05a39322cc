//! The grants that a document should have and the reasons for them: the answer of the index and the input of the
//! planner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Claim, Condition, GrantKey, Ground, GroupId, MappingKey, MemberKey, Principal, Reason, Role, Subject, pairs,
};

/// The grants that one document should have, according to the mappings that can currently be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Desired {
    /// Wanted grants, each with all its claims.
    #[serde(with = "pairs")]
    pub(crate) grants: BTreeMap<GrantKey, DesiredGrant>,
    /// How to treat the claims in the ledger, by mapping. There is an entry for every claimant that was queried and for
    /// every mapping that wants a grant in this document. Claims of a mapping without an entry are frozen.
    #[serde(with = "pairs")]
    pub(crate) enforcements: BTreeMap<MappingKey, Enforcement>,
    /// The `metadata.generation` of each mapping that has a spec, for the audit.
    #[serde(with = "pairs")]
    pub(crate) generations: BTreeMap<MappingKey, i64>,
    /// The uid of the resource as last listed. A re-created resource starts with an empty policy.
    pub(crate) resource_uid: Option<String>,
    /// True when a complete list of its region does not contain the resource. The policy is known to be gone only if
    /// Google also answers that the resource does not exist; this flag alone proves nothing.
    pub(crate) absent: bool,
    /// Roles for which the target allows a mapping to keep the access of leavers while the mapping is suspended or
    /// observed.
    #[serde(with = "pairs")]
    pub(crate) may_suspend: BTreeMap<MappingKey, BTreeSet<Role>>,
    /// Roles for which the target allows a deleted mapping to leave its grants behind.
    #[serde(with = "pairs")]
    pub(crate) may_orphan: BTreeMap<MappingKey, BTreeSet<Role>>,
    /// The roles that each mapping grants on this document, to whomever.
    #[serde(default, with = "pairs")]
    pub(crate) reached: BTreeMap<MappingKey, BTreeSet<Role>>,
    /// Roles for which a mapping takes over grants that somebody else made.
    #[serde(default, with = "pairs")]
    pub(crate) may_adopt: BTreeMap<MappingKey, BTreeSet<Role>>,
    /// The time by which ends of grants are decided. It never goes back a little; see [`Ground::is_over`].
    #[serde(default)]
    pub(crate) as_of: Timestamp,
    /// Roles that a mapping gives on this document according to its spec, but only until a time that has passed.
    #[serde(default, with = "pairs")]
    pub(crate) ended: BTreeMap<MappingKey, BTreeSet<Role>>,
    /// True when rolecall is being uninstalled in the mode in which all grants stay.
    pub(crate) leave_all: bool,
    /// True when no target covers the document, so that no target defines what may be written to it.
    pub(crate) uncovered: bool,
}

impl Desired {
    /// True when a freeze for this reason also keeps the access of leavers.
    #[must_use]
    pub(crate) fn keeps_leavers(&self, mapping: &MappingKey, role: &Role, reason: FreezeReason) -> bool {
        let may_suspend = || self.may_suspend.get(mapping).is_some_and(|roles| roles.contains(role));
        match reason {
            FreezeReason::Suspended | FreezeReason::Observed => self.uncovered || may_suspend(),
            FreezeReason::TargetNotFound => self.uncovered,
            other => !other.lets_leavers_go(),
        }
    }

    /// True when a claim of this mapping under this role ended by itself, because its `notAfter` has passed.
    #[must_use]
    pub(crate) fn is_over(&self, claim: &Claim, role: &Role, ground: Option<&Ground>) -> bool {
        ground.is_some_and(|ground| ground.is_over(self.as_of))
            || self.ended.get(&claim.mapping).is_some_and(|roles| roles.contains(role))
    }

    /// True when the mapping may leave a grant of this role behind after it is deleted.
    #[must_use]
    pub(crate) fn may_orphan(&self, mapping: &MappingKey, role: &Role) -> bool {
        self.leave_all || self.may_orphan.get(mapping).is_some_and(|roles| roles.contains(role))
    }

    /// True when the mapping grants this role on the document.
    #[must_use]
    pub(crate) fn reaches(&self, mapping: &MappingKey, role: &Role) -> bool {
        self.reached.get(mapping).is_some_and(|roles| roles.contains(role))
    }

    /// True when the mapping takes over grants of this role that somebody else made.
    #[must_use]
    pub(crate) fn may_adopt(&self, mapping: &MappingKey, role: &Role) -> bool {
        self.may_adopt.get(mapping).is_some_and(|roles| roles.contains(role))
    }
}

/// One wanted grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DesiredGrant {
    /// The member to write.
    pub(crate) member: Principal,
    /// The condition to write; its hash is part of the key.
    pub(crate) condition: Option<Condition>,
    /// The claims for the grant and their terms. Never empty.
    #[serde(with = "pairs")]
    pub(crate) claims: BTreeMap<Claim, ClaimTerms>,
    /// Where each claim comes from.
    #[serde(with = "pairs")]
    pub(crate) grounds: BTreeMap<Claim, Ground>,
    /// The domains under which Google may store the member: `allowedDomains` of the provider, in lower case.
    pub(crate) allowed_domains: Arc<[String]>,
}

impl DesiredGrant {
    /// True when the grant may be stored under this spelling, which is Google's.
    #[must_use]
    pub(crate) fn permits(&self, spelling: &str) -> bool {
        let domain = spelling.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
        domain.is_none_or(|domain| self.allowed_domains.contains(&domain))
    }
}

/// Terms of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimTerms {
    /// Whether this claim justifies a write. False under `Observe`.
    pub(crate) write: bool,
    /// Whether a grant that rolecall made and that somebody else removed is granted again (`onMissing: Revert`).
    pub(crate) regrant: bool,
}

/// How to treat the claims of one mapping in the ledger of one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Enforcement {
    /// The mapping is known and resolved. Claims in the ledger that are no longer wanted end, except those that are
    /// kept.
    Live {
        /// Claims in the ledger that stay although they are no longer wanted.
        keep: Keep,
    },
    /// Claims of this mapping cause neither removals nor new grants.
    Frozen(FreezeReason),
    /// The mapping was deleted, so its claims end.
    Ended {
        /// The grants are to stay (`deletionPolicy: Orphan`). Where [`Desired::may_orphan`] permits it, the ledger
        /// forgets them; elsewhere the ledger keeps them until the person leaves.
        orphan: bool,
    },
}

/// The ledger claims of a live mapping that stay although they are no longer wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Keep {
    /// None.
    #[default]
    Nothing,
    /// Claims for these subjects.
    Subjects(#[serde(with = "pairs")] KeptSubjects),
    /// All claims, because a provider of the mapping is not in force.
    Everything(FreezeReason),
    /// Claims that may have come from a group that cannot currently be resolved.
    Groups(KeptGroups),
}

/// Active people whose claims stay. With no member given, all claims of the person stay, because the attribute that
/// principals are derived from no longer has a value. Otherwise only the claims of that member stay, because somebody
/// else has the same value.
pub(crate) type KeptSubjects = BTreeMap<Subject, Option<MemberKey>>;

/// The resolved and unresolved groups of a mapping of which at least one group cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeptGroups {
    /// Why the first unresolved group cannot be resolved.
    pub(crate) reason: FreezeReason,
    /// Groups that the mapping meant and that cannot currently be identified.
    pub(crate) unresolved: BTreeSet<GroupId>,
    /// Known groups, including deleted ones.
    pub(crate) known: BTreeSet<GroupId>,
    /// Members of resolved groups whose claims stay.
    #[serde(with = "pairs")]
    pub(crate) subjects: KeptSubjects,
}

/// What happens to a claim that is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The claim ends.
    No,
    /// The claim stays.
    Yes,
    /// The claim stays for this reason until the person leaves.
    Frozen(FreezeReason),
}

impl Keep {
    /// Decides whether a claim for `member` that came from `ground` stays.
    #[must_use]
    pub(crate) fn keeps(&self, subject: &Subject, member: &MemberKey, ground: Option<&Ground>) -> Kept {
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
    /// True when an unresolved group may have given a claim with this ground. A group that the mapping no longer names
    /// counts as renamed if no group of the mapping is known.
    fn gave(&self, ground: Option<&Ground>) -> bool {
        let Some(ground) = ground else { return true };
        let renamed = |group: &GroupId| self.known.is_empty() && !self.unresolved.contains(group);
        ground.groups.iter().any(|group| self.unresolved.contains(group) || renamed(group))
    }
}

/// Why an absence is not treated as a deletion. The words are condition reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum FreezeReason {
    /// Manifests, watches or the directory have not been loaded yet.
    NotLoaded,
    /// The mapping is missing, and no deletion was observed.
    MappingMissing,
    /// The manifest folder is missing or empty, or more than half of the mappings disappeared at once.
    ManifestsMissing,
    /// The mapping names an `IdentityProvider` that does not exist.
    IdentityProviderNotFound,
    /// The people of a provider belong to a former `IdentityProvider` of the same name.
    IdentityProviderChanged,
    /// The mapping names a `CloudRunTarget` that does not exist.
    TargetNotFound,
    /// The mapping or the provider is suspended (`mode: Suspend`).
    Suspended,
    /// Observe mode, of the mapping (`mode: Observe`) or of the process (`--mode observe`).
    Observed,
    /// An older target covers the same project and region.
    OverlappingTarget,
    /// Several groups have that name.
    GroupAmbiguous,
    /// No group of that name has ever been pushed.
    GroupNotFound,
    /// The name now refers to another group than the one it was pinned to.
    GroupIdentityChanged,
    /// The groups nested in a group of the mapping exceed a bound.
    NestingLimitExceeded,
    /// The list of resources failed or was partial.
    InventoryIncomplete,
    /// The database is empty, or not the one that was used here before.
    StoreMismatch,
    /// The database is older than the state observed here before.
    StoreRewound,
}

impl FreezeReason {
    /// The condition reason.
    #[must_use]
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::NotLoaded => Reason::NotLoaded,
            Self::MappingMissing => Reason::MappingMissing,
            Self::ManifestsMissing => Reason::ManifestsMissing,
            Self::IdentityProviderNotFound => Reason::IdentityProviderNotFound,
            Self::IdentityProviderChanged => Reason::IdentityProviderChanged,
            Self::TargetNotFound => Reason::TargetNotFound,
            Self::Suspended => Reason::Suspended,
            Self::Observed => Reason::Observed,
            Self::OverlappingTarget => Reason::OverlappingTarget,
            Self::GroupAmbiguous => Reason::GroupAmbiguous,
            Self::GroupNotFound => Reason::GroupNotFound,
            Self::GroupIdentityChanged => Reason::GroupIdentityChanged,
            Self::NestingLimitExceeded => Reason::NestingLimitExceeded,
            Self::InventoryIncomplete => Reason::InventoryIncomplete,
            Self::StoreMismatch => Reason::StoreMismatch,
            Self::StoreRewound => Reason::StoreRewound,
        }
    }

    /// True when claims of people whom the IdP reports inactive or deleted end in spite of the freeze. That is so
    /// wherever the directory is known to be right and only the other ground of the claim is missing, unless the target
    /// says otherwise ([`Desired::keeps_leavers`]). Nobody counts as a leaver of a provider that is missing or
    /// suspended.
    #[must_use]
    pub(crate) fn lets_leavers_go(self) -> bool {
        match self {
            Self::MappingMissing
            | Self::ManifestsMissing
            | Self::GroupNotFound
            | Self::GroupAmbiguous
            | Self::GroupIdentityChanged
            | Self::NestingLimitExceeded
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
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::NotLoaded => "manifests and directory are still being loaded, so nothing is written yet",
            Self::MappingMissing => {
                "the mapping is missing, but no deletion was observed; its grants stay until it is back or `rolecall release mapping NAMESPACE/NAME` ends them"
            }
            Self::ManifestsMissing => {
                "the manifest folder is missing or empty, or more than half of the mappings disappeared at once; all grants stay until the manifests are back or `rolecall release` confirms the removal"
            }
            Self::IdentityProviderNotFound => {
                "the IdentityProvider does not exist, so its grants stay as they are; create it or remove the subject"
            }
            Self::IdentityProviderChanged => {
                "the stored people and groups belong to a former IdentityProvider of this name: SCIM requests are answered with 503, and existing grants stay, until `rolecall store accept-provider NAME` hands them over or `rolecall store purge-provider NAME` deletes them"
            }
            Self::TargetNotFound => {
                "the CloudRunTarget does not exist, so its grants stay as they are; create it or remove the grant"
            }
            Self::Suspended => {
                "the mapping or its IdentityProvider is suspended: nothing is added or removed, except for leavers, unless the target permits that too"
            }
            Self::Observed => {
                "observe mode: the plan is reported and nothing is written, except for leavers, unless the target permits that too or --mode is observe"
            }
            Self::OverlappingTarget => {
                "an older CloudRunTarget covers the same project and region, so the grants of this one stay as they are; remove one of the two or split the regions"
            }
            Self::GroupAmbiguous => {
                "several groups have the name that the mapping gives; existing grants stay; name the group by externalId or rename one of them"
            }
            Self::GroupNotFound => {
                "a group of the mapping was never pushed by the IdP; its grants stay, and so do all grants while no group of the mapping is known; push the group or correct the name"
            }
            Self::GroupIdentityChanged => {
                "a group name now means another group than before; existing grants stay and the new group gets nothing until the annotation rolecall.dev/accept-group names its id"
            }
            Self::NestingLimitExceeded => {
                "more groups, levels or memberships are nested in a group than are followed; existing grants stay, except of those who leave the groups that gave them, and only direct members get new ones; nest fewer groups or map them directly"
            }
            Self::InventoryIncomplete => {
                "the list of Cloud Run resources failed or was incomplete, so nothing is concluded from absences in it"
            }
            Self::StoreMismatch => {
                "the database is empty or not the one used here before; nothing is written until `rolecall store accept`"
            }
            Self::StoreRewound => {
                "the database is older than one that was used here before; nothing is written until `rolecall store accept`"
            }
        }
    }
}
