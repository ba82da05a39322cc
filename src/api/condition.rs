//! Condition types and reasons: the single list for status, events, metrics, audit and the runbook.

/// The condition types.
pub mod kind {
    /// Everything that is wanted is in effect and acknowledged by Google.
    pub const READY: &str = "Ready";
    /// The object is valid, and what it asks for is delegated to it.
    pub const ACCEPTED: &str = "Accepted";
    /// Work is in progress (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing will change without action by a person (kstatus).
    pub const STALLED: &str = "Stalled";
    /// The guard holds a change.
    pub const HELD: &str = "Held";
    /// Somebody else changed a policy.
    pub const DRIFTED: &str = "Drifted";
    /// Grants stay as they are because the ground of their claims is unknown.
    pub const FROZEN: &str = "Frozen";
    /// The IdP has reached its storage quota.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// The IdP made a request within `staleAfter`.
    pub const FRESH: &str = "Fresh";
    /// Every token can be used.
    pub const TOKENS_VALID: &str = "TokensValid";
    /// The resources of the project could be listed.
    pub const REACHABLE: &str = "Reachable";
    /// rolecall has the permissions it needs in the project.
    pub const PERMISSIONS_VALID: &str = "PermissionsValid";

    /// All condition types.
    pub const ALL: &[&str] = &[
        READY,
        ACCEPTED,
        RECONCILING,
        STALLED,
        HELD,
        DRIFTED,
        FROZEN,
        QUOTA_EXCEEDED,
        FRESH,
        TOKENS_VALID,
        REACHABLE,
        PERMISSIONS_VALID,
    ];
}

/// The meaning of a reason, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The stable word, which is also a heading of the runbook.
    pub word: &'static str,
    /// The meaning.
    pub meaning: &'static str,
    /// What to do; empty when there is nothing to do.
    pub action: &'static str,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $meaning:literal, $action:literal;)*) => {
        /// The reasons by name.
        pub mod reason {
            $(#[doc = concat!("`", $word, "`: ", $meaning)] pub const $name: &str = $word;)*
        }

        /// All reasons with their meaning, in the order of the runbook.
        pub const REASONS: &[Reason] = &[$(Reason { word: $word, meaning: $meaning, action: $action }),*];
    };
}

reasons! {
    CONVERGED = "Converged", "all that is wanted is acknowledged by Google, and nothing waits to be removed", "";
    ACCEPTED = "Accepted", "the object is valid, and all that it asks for is delegated to it", "";
    PROGRESSING = "Progressing", "a change is being written to Google",
        "wait; if it lasts, the message names the resource and the last answer of Google";
    REVOCATION_PENDING = "RevocationPending", "a grant that should be gone is still in the policy, according to Google's last answer",
        "see the message for Google's answer; `status.oldestRevokingSince` is the start of the wait";
    REVOCATION_ABANDONED = "RevocationAbandoned",
        "a mapping was deleted and its finalizer removed before all of its grants could be revoked; revocation is still being retried",
        "fix what the message names; the grants are revoked as soon as Google permits it";
    BACKING_OFF = "BackingOff", "a call failed and is retried later", "wait; the message has the last error";
    PERMISSION_DENIED = "PermissionDenied", "Google refused a call because rolecall lacks a permission",
        "grant the permission that the message names to the identity rolecall runs as";
    GOOGLE_UNAVAILABLE = "GoogleUnavailable", "Google did not answer, or answered with a server error", "wait";
    THROTTLED = "Throttled", "Google's quota is exceeded for now", "wait, or ask Google for more quota";
    MEMBER_REFUSED = "MemberRefused", "Google refused a member, and with it the whole policy; the others were written without it",
        "check that the account exists; correct it at the IdP";
    DOMAIN_RESTRICTED = "DomainRestricted", "the organization's policy permits only members of certain organizations in policies",
        "allow the organization in `iam.allowedPolicyMemberDomains`, or map only its own people";
    FOREIGN_MEMBER_REJECTED = "ForeignMemberRejected",
        "Google refuses the policy of a resource because of a member that rolecall did not put into it, so nothing can be changed there",
        "correct or remove that member by hand; the message has Google's reason";
    ROLE_NOT_SUPPORTED = "RoleNotSupported", "the role does not fit this kind of resource", "correct `spec.grants[].roles`";
    POLICY_REFUSED = "PolicyRefused", "Google refused the call for another reason, which the message has",
        "fix what the message names";
    ETAG_CONFLICT = "EtagConflict", "somebody else keeps changing the policy, so it was read and planned again",
        "wait; if it lasts, find out who edits the policy so often";
    STALE_READ = "StaleRead", "Google still returns a version of the policy that a write of rolecall replaced; nothing is concluded from it",
        "wait; such reads end after seconds";
    PRINCIPAL_RESPELLED = "PrincipalRespelled",
        "Google stores the account under another address, outside `allowedDomains`; it was removed and is not sent again",
        "correct the address at the IdP, or add the domain to `allowedDomains`";
    API_DISABLED = "ApiDisabled", "the Cloud Run Admin API is not enabled in the project", "enable run.googleapis.com";
    UNAUTHENTICATED = "Unauthenticated", "Google did not accept the credentials, or none could be obtained",
        "give the process a service account key or Workload Identity; see `--google-credentials`";
    GOOGLE_MALFORMED = "GoogleMalformed", "an answer of Google does not conform to its API; nothing was concluded from it",
        "check `--google-endpoint` and any proxy on the way";
    ETAG_MISSING = "EtagMissing", "the policy came without an etag, so it cannot be written safely",
        "check `--google-endpoint` and any proxy on the way";
    POLICY_UNKNOWN_VERSION = "PolicyUnknownVersion", "the policy has a version that this rolecall does not know; it was not changed",
        "update rolecall";
    CONDITIONS_HIDDEN = "ConditionsHidden", "the policy came without its conditions, so it cannot be written safely",
        "check `--google-endpoint` and any proxy on the way";
    STORE_UNAVAILABLE = "StoreUnavailable", "the database cannot be read or written, so no policy is written either",
        "check the disk and the log";
    LEADERSHIP_LOST = "LeadershipLost", "another rolecall took over the database, so this one stopped writing and exited",
        "run one rolecall per database; if only one should be running, find and stop the other";
    POLICY_FULL = "PolicyFull", "the policy would exceed 1,500 principals, so nothing was added to it",
        "map fewer people onto the resource";
    OUTCOME_UNKNOWN = "OutcomeUnknown", "a call ended without an answer; the next read shows whether it took effect", "wait";
    ATTRIBUTION_AMBIGUOUS = "AttributionAmbiguous",
        "a call ended without an answer and somebody else changed the policy meanwhile, so a grant is assumed to be rolecall's",
        "check Google's audit log if it matters who made the grant";
    RESOURCE_NOT_FOUND = "ResourceNotFound", "a pattern of the mapping matches no resource",
        "check the spelling, or deploy the resource; its grants follow when it is found";
    NOT_DELEGATED = "NotDelegated", "the target does not delegate what the mapping asks for to its namespace; nothing is granted",
        "ask the owner of the CloudRunTarget for an entry in `spec.allow`, or ask for less";
    PARTLY_DELEGATED = "PartlyDelegated",
        "the target does not delegate a part of what the mapping asks for; the rest is granted",
        "see `status.refused`; ask the owner of the CloudRunTarget, or ask for less";
    OVERLAPPING_TARGET = "OverlappingTarget", "an older CloudRunTarget covers the same project and region; this one does nothing there",
        "remove one of the two, or split the regions";
    INVALID_MANIFEST = "InvalidManifest", "a manifest cannot be read; its last valid version stays in force",
        "fix the file at the line and field in the message; `rolecall lint` shows the same";
    FINALIZER_REFUSED = "FinalizerRefused", "the API server refuses the finalizer that keeps the mapping until its grants are revoked, so nothing is granted",
        "see the message for the cause: a webhook, or a permission of the chart that somebody removed";
    DUPLICATE_OBJECT = "DuplicateObject", "two files define the same object; the first by path counts", "remove one of them";
    SUSPENDED = "Suspended", "the mapping or its IdentityProvider is suspended: nothing is added or removed",
        "set `mode: Enforce` or `state: Active`";
    OBSERVED = "Observed", "observe mode: the plan is reported and nothing is written",
        "set `mode: Enforce` and start with `--mode enforce`";
    NOT_LOADED = "NotLoaded", "manifests, watches or directory are still being loaded, so nothing is written yet", "wait";
    MAPPING_VANISHED = "MappingVanished", "the mapping is missing, but no deletion was observed; its grants stay",
        "apply it again, or end its grants with `rolecall release mapping NAMESPACE/NAME`";
    MANIFESTS_MISSING = "ManifestsMissing",
        "the manifest folder is missing or empty, or more than half of the mappings disappeared at once; all grants stay",
        "restore the manifests, or confirm with `rolecall release`";
    IDENTITY_PROVIDER_NOT_FOUND = "IdentityProviderNotFound", "a subject names an IdentityProvider that does not exist; its grants stay",
        "create the IdentityProvider, or remove the subject";
    IDENTITY_PROVIDER_CHANGED = "IdentityProviderChanged",
        "the stored people and groups belong to a former IdentityProvider of this name; nothing is read, stored or granted",
        "hand them over with `rolecall store accept-provider NAME`, or delete them with `rolecall store purge-provider NAME`";
    TARGET_NOT_FOUND = "TargetNotFound", "a grant names a CloudRunTarget that does not exist; its grants stay",
        "create the CloudRunTarget, or remove the grant";
    GROUP_NOT_FOUND = "GroupNotFound", "the IdP never pushed a group of that name; existing grants stay",
        "assign the group to the SCIM application at the IdP, or correct the name";
    GROUP_DELETED = "GroupDeleted", "the IdP deleted the group, so its grants were revoked", "name another group, or remove it";
    GROUP_AMBIGUOUS = "GroupAmbiguous", "several groups have that name; none of them gets new grants",
        "name the group by externalId, or rename one of them";
    GROUP_IDENTITY_CHANGED = "GroupIdentityChanged",
        "the name now means another group than before; existing grants stay and the new group gets nothing",
        "accept the new group with the annotation rolecall.dev/accept-group, or name the group by externalId";
    PRINCIPAL_INVALID = "PrincipalInvalid", "a user has an address that is not admitted at the configured attribute, such as one outside `allowedDomains`; grants to a former address end",
        "correct the attribute at the IdP, or the mapping of attributes in the IdentityProvider";
    PRINCIPAL_MISSING = "PrincipalMissing", "a user has no value at the configured attribute, so nothing new is granted and nothing is removed",
        "have the IdP send the attribute";
    PRINCIPAL_COLLISION = "PrincipalCollision", "two users have the same address; nothing new is granted to it",
        "correct the address of one of them at the IdP";
    INVENTORY_INCOMPLETE = "InventoryIncomplete",
        "the list of resources failed or was incomplete, so nothing is concluded from absences in it", "wait, or see the target's conditions";
    STORE_MISMATCH = "StoreMismatch", "the database is empty or not the one used here before; nothing is written",
        "restore the database, or run `rolecall store accept`";
    STORE_REWOUND = "StoreRewound", "the database is older than one that was used here before; nothing is written",
        "restore a newer database, or run `rolecall store accept`";
    STATUS_REFUSED = "StatusRefused",
        "the API server refuses the full status as malformed, so only this condition is shown; grants and revocations are not affected",
        "apply the CRDs of this version of rolecall; if the status is still refused, report the message as a defect";
    MASS_REMOVAL = "MassRemoval", "more people would lose access at once than the guard permits; their grants stay",
        "check the cause; release the plan by its hash with the annotation rolecall.dev/release";
    DRIFT_REPORTED = "DriftReported", "somebody else removed a grant; `onMissing: Report` leaves it removed",
        "set `onMissing: Revert`, or remove the grant from the mapping";
    REVERTED = "Reverted", "somebody else removed a grant; it was granted again", "find out who edits the policy by hand";
    FOREIGN_MEMBERS = "ForeignMembers", "the policy has members that rolecall neither granted nor wants; they are kept", "";
    GRANT_REMAINS = "GrantRemains", "a grant is no longer wanted but was not made by rolecall; it stays",
        "remove it by hand if it should be gone";
    UNOWNED = "Unowned", "a wanted grant existed before rolecall could make it; it counts and is never removed", "";
    NO_DRIFT = "NoDrift", "nobody else changed the policies", "";
    INVOKER_IAM_DISABLED = "InvokerIamDisabled", "the service does not check roles/run.invoker at all, so the grant has no effect",
        "enable the invoker check of the service";
    TOKENS_VALID = "TokensValid", "every token can be used", "";
    TOKEN_SECRET_NOT_FOUND = "TokenSecretNotFound", "the Secret of a token does not exist in the operator's namespace",
        "create it, or correct `secretRef`";
    TOKEN_SECRET_FORBIDDEN = "TokenSecretForbidden", "the API server does not permit rolecall to read the Secret of a token",
        "name the Secret in the chart's value `secrets`";
    TOKEN_KEY_NOT_FOUND = "TokenKeyNotFound", "the Secret has neither the key token nor tokenSHA256", "add the key";
    TOKEN_INVALID = "TokenInvalid", "the Secret's value is empty, or tokenSHA256 is not 64 hexadecimal digits", "correct the value";
    TOKEN_TOO_SHORT = "TokenTooShort", "the token has fewer than 32 characters",
        "make a new one with `openssl rand -hex 32` and give it to the IdP";
    TOKEN_EXPIRED = "TokenExpired", "the token's `notAfter` has passed; it is refused", "rotate it";
    TOKEN_SHARED = "TokenShared", "two IdentityProviders have the same token; it is refused for both", "give each its own token";
    FRESH = "Fresh", "the IdP made a request within `staleAfter`", "";
    STALE = "Stale", "the IdP made no request for longer than `staleAfter`; nothing is removed for that",
        "check the provisioning log of the IdP";
    QUOTA_EXCEEDED = "QuotaExceeded",
        "the IdP has reached its storage quota; further data is refused with 507, except deactivations and removals",
        "delete what is not needed at the IdP, or raise `--max-rows-per-provider` or `--max-bytes-per-provider`";
    NEVER_SEEN = "NeverSeen", "the IdP never made an authenticated request",
        "enter `status.endpoint` and the token at the IdP";
    REACHABLE = "Reachable", "the resources of the project were listed completely", "";
    PROJECT_NOT_FOUND = "ProjectNotFound", "the project does not exist or is not visible", "correct `spec.project`";
    PERMISSIONS_VALID = "PermissionsValid", "no call was refused for lack of a permission", "";
}

/// The meaning of a reason word.
#[must_use]
pub fn lookup(word: &str) -> Option<&'static Reason> {
    REASONS.iter().find(|reason| reason.word == word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::FreezeReason;

    #[test]
    fn every_reason_is_one_pascal_case_word_with_a_meaning_and_stands_once() {
        let mut seen = BTreeSet::new();
        for reason in REASONS {
            assert!(seen.insert(reason.word), "{} stands twice", reason.word);
            assert!(reason.word.starts_with(|c: char| c.is_ascii_uppercase()), "{}", reason.word);
            assert!(reason.word.chars().all(|c| c.is_ascii_alphanumeric()), "{}", reason.word);
            assert!(!reason.meaning.is_empty() && !reason.meaning.ends_with('.'), "{}", reason.word);
            assert!(!reason.action.ends_with('.'), "{}", reason.word);
        }
    }

    #[test]
    fn every_reason_to_freeze_is_in_the_list() {
        use FreezeReason::{
            GroupIdentityChanged, GroupNotFound, IdentityProviderChanged, IdentityProviderNotFound,
            InventoryIncomplete, ManifestsMissing, MappingVanished, NotLoaded, Observed, StoreMismatch, StoreRewound,
            Suspended, TargetNotFound,
        };
        for freeze in [
            NotLoaded,
            MappingVanished,
            ManifestsMissing,
            IdentityProviderNotFound,
            IdentityProviderChanged,
            TargetNotFound,
            Suspended,
            Observed,
            GroupNotFound,
            GroupIdentityChanged,
            InventoryIncomplete,
            StoreMismatch,
            StoreRewound,
        ] {
            assert!(lookup(freeze.reason()).is_some(), "{}", freeze.reason());
        }
    }

    #[test]
    fn condition_types_stand_once() {
        let types: BTreeSet<_> = kind::ALL.iter().collect();
        assert_eq!(types.len(), kind::ALL.len());
        assert!(lookup("NoSuchReason").is_none());
    }
}
