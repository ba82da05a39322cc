//! Reasons: one list for conditions, Events, metrics, logs, the audit log and the runbook.

use std::cmp::Ordering;
use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($name:ident $(= $word:literal)?: $meaning:literal, $action:literal;)*) => {
        /// The reason for a state or an event. Its word is the `reason` of conditions and Events, a metric label, an audit
        /// word and a heading of the runbook.
        #[allow(clippy::doc_markdown, reason = "the meanings are shown to people, in messages that know no markup")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Reason {
            $(#[doc = $meaning] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the list.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// The stable word, in Pascal case.
            #[must_use]
            pub(crate) const fn word(self) -> &'static str {
                match self { $(Self::$name => reasons!(@word $name $($word)?),)* }
            }

            /// The meaning: a clause without a full stop.
            #[must_use]
            pub(crate) const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// What to do; empty when there is nothing to do.
            #[must_use]
            pub(crate) const fn action(self) -> &'static str {
                match self { $(Self::$name => $action,)* }
            }
        }
    };
    (@word $name:ident $word:literal) => { $word };
    (@word $name:ident) => { stringify!($name) };
}

// A word after `=` is older than its name: it stays, because people wrote alerts and queries on it.
reasons! {
    Converged: "all that is wanted is acknowledged by Google, and nothing waits to be removed", "";
    Accepted: "the object is valid, and all that it asks for is delegated to it", "";
    Progressing:
        "a change is being written to Google",
        "wait; if it lasts, the message names the resource and the last answer of Google";
    RevocationPending:
        "a grant that should be gone is still in the policy, according to Google's last answer",
        "see the message for Google's answer; `status.oldestRevokingSince` is the start of the wait";
    RevocationDeferred = "RevocationAbandoned":
        "a mapping was deleted and its finalizer removed before all of its grants could be revoked; revocation is still being retried",
        "fix what the message names; the grants are revoked as soon as Google permits it";
    BackingOff: "a call failed and is retried later", "wait; the message has the last error";
    PermissionDenied:
        "Google refused a call because rolecall lacks a permission",
        "grant the permission that the message names to the identity rolecall runs as";
    GoogleUnavailable: "Google did not answer, or answered with a server error", "wait";
    Throttled: "Google's quota is exceeded for now", "wait, or ask Google for more quota";
    MemberRefused:
        "Google refused a member, and with it the whole policy; the others were written without it",
        "check that the account exists; correct it at the IdP";
    DomainRestricted:
        "the organization's policy permits only members of certain organizations in policies",
        "allow the organization in `iam.allowedPolicyMemberDomains`, or map only its own people";
    ForeignMemberRejected:
        "Google refuses the policy of a resource because of a member that rolecall did not put into it, so nothing can be changed there",
        "take that member out of the policy by hand, or correct it";
    RoleNotSupported: "the role does not fit this kind of resource", "correct `spec.grants[].roles`";
    PrincipalTypeMismatch:
        "the address belongs to an account of another type at Google, such as a group; the others were written without it",
        "correct the address, or the attribute it is read from, at the IdP";
    DeniedByOrgPolicy:
        "an organization policy of Google denies the change; such a policy can deny removals too",
        "change the organization policy that the message names, or exempt the project from it";
    ConditionRefused:
        "Google refuses the condition of a grant, and with it the whole policy; the others were written without it, and grants that it was to replace stay",
        "correct `spec.grants[].condition.expression`; `gcloud alpha iam policies lint-condition` says what is wrong";
    ConditionInvalid:
        "a condition has more than 12 logical operators, which Google refuses, so its entry grants nothing",
        "write a shorter expression in `spec.grants[].condition`";
    ConditionNotSupported:
        "policies of this kind of resource take no conditions, so the entry of the mapping grants nothing there",
        "name services only in an entry with a condition, or leave the condition out";
    PolicyRefused: "Google refused the call for another reason, which the message has", "fix what the message names";
    EtagConflict:
        "somebody else keeps changing the policy, so it was read and planned again",
        "wait; if it lasts, find out who edits the policy so often";
    StaleRead:
        "Google still returns a version of the policy that a write of rolecall replaced; nothing is concluded from it",
        "wait; such reads end after seconds";
    EngineFault:
        "an attempt at a document failed because of a defect of this program; it is retried",
        "report the message as a defect";
    PrincipalRespelled:
        "Google stores the account under another address, outside `allowedDomains`; it was removed and is not sent again",
        "correct the address at the IdP, or add the domain to `allowedDomains`";
    ApiDisabled: "the Cloud Run Admin API is not enabled in the project", "enable run.googleapis.com";
    Unauthenticated:
        "Google did not accept the credentials, or none could be obtained",
        "give the process a service account key or Workload Identity; see `--google-credentials`";
    GoogleMalformed:
        "an answer of Google does not conform to its API; nothing was concluded from it",
        "check `--google-endpoint` and any proxy on the way";
    EtagMissing:
        "the policy came without an etag, so it cannot be written safely",
        "check `--google-endpoint` and any proxy on the way";
    PolicyUnknownVersion:
        "the policy has a version that this rolecall does not know; it was not changed",
        "update rolecall";
    ConditionsHidden:
        "the policy came without its conditions, so it cannot be written safely",
        "check `--google-endpoint` and any proxy on the way";
    StoreUnavailable:
        "the database cannot be read or written, so no policy is written either",
        "check the disk and the log";
    StoreDamaged:
        "a stored row cannot be read, so no policy that depends on it is written",
        "restore the database from a backup";
    StoreFault:
        "the store failed because of a defect of this program, so no policy is written that was not recorded first",
        "report the message as a defect; the work is retried";
    LeadershipLost:
        "another rolecall took over the database, so this one stopped writing and exited",
        "run one rolecall per database; if only one should be running, find and stop the other";
    PolicyFull:
        "the policy would exceed what Google permits in one policy: 1,500 principals, 250 groups and domains, or its size; what does not fit is left out",
        "map fewer people or roles onto the resource, or split the resource";
    PolicyNearlyFull:
        "little room is left in a policy; beyond Google's limits nothing more can be added, while removals always go",
        "map fewer people or roles onto the resource, or split the resource";
    OutcomeUnknown: "a call ended without an answer; the next read shows whether it took effect", "wait";
    AttributionAmbiguous:
        "a call ended without an answer and somebody else changed the policy meanwhile, so a grant is assumed to be rolecall's",
        "check Google's audit log if it matters who made the grant";
    ResourceNotFound:
        "a pattern of the mapping matches no resource",
        "check the spelling, or deploy the resource; its grants follow when it is found";
    NotDelegated:
        "the target does not delegate what the mapping asks for to its namespace; nothing is granted",
        "ask the owner of the CloudRunTarget for an entry in `spec.allow`, or ask for less";
    PartlyDelegated:
        "the target does not delegate a part of what the mapping asks for; the rest is granted",
        "see `status.refused`; ask the owner of the CloudRunTarget, or ask for less";
    OverlappingTarget:
        "an older CloudRunTarget covers the same project and region; this one does nothing there",
        "remove one of the two, or split the regions";
    InvalidManifest:
        "a manifest cannot be read; its last valid version stays in force",
        "fix the file at the line and field in the message; `rolecall lint` shows the same";
    FinalizerRefused:
        "the API server refuses the finalizer that keeps the mapping until its grants are revoked, so nothing is granted",
        "see the message for the cause: a webhook, or a permission of the chart that somebody removed";
    DuplicateObject: "two files define the same object; the first by path counts", "remove one of them";
    Suspended:
        "the mapping or its IdentityProvider is suspended: nothing is added or removed",
        "set `mode: Enforce` or `state: Active`";
    Observed:
        "observe mode: the plan is reported and nothing is written",
        "set `mode: Enforce` and start with `--mode enforce`";
    NotLoaded: "manifests, watches or directory are still being loaded, so nothing is written yet", "wait";
    MappingMissing = "MappingVanished":
        "the mapping is missing, but no deletion was observed; its grants stay",
        "apply it again, or end its grants with `rolecall release mapping NAMESPACE/NAME`";
    ManifestsMissing:
        "the manifest folder is missing or empty, or more than half of the mappings disappeared at once; all grants stay",
        "restore the manifests, or confirm with `rolecall release`";
    IdentityProviderNotFound:
        "a subject names an IdentityProvider that does not exist; its grants stay",
        "create the IdentityProvider, or remove the subject";
    IdentityProviderChanged:
        "the stored people and groups belong to a former IdentityProvider of this name; nothing is read, stored or granted",
        "hand them over with `rolecall store accept-provider NAME`, or delete them with `rolecall store purge-provider NAME`";
    TargetNotFound:
        "a grant names a CloudRunTarget that does not exist; its grants stay",
        "create the CloudRunTarget, or remove the grant";
    GroupNotFound:
        "the IdP never pushed a group of that name; existing grants stay",
        "assign the group to the SCIM application at the IdP, or correct the name";
    GroupDeleted: "the IdP deleted the group, so its grants were revoked", "name another group, or remove it";
    GroupAmbiguous:
        "several groups have that name; none of them gets new grants",
        "name the group by externalId, or rename one of them";
    NestingLimitExceeded:
        "more groups, levels or memberships are nested in a group of the mapping than are followed; existing grants stay, and members of the nested groups get no new ones",
        "nest fewer groups, or map the nested ones directly";
    NestingCycle:
        "a group contains itself through groups nested in it; each of them counts once",
        "remove one of the memberships at the IdP if it is not meant";
    NestingIgnored:
        "groups are members of groups, and the members of the nested ones get no access through them",
        "set `spec.nestedGroups: Resolve` on the IdentityProvider to give it to them, or `Ignore` to confirm";
    GroupIdentityChanged:
        "the name now means another group than before; existing grants stay and the new group gets nothing",
        "accept the new group with the annotation rolecall.dev/accept-group, or name the group by externalId";
    PrincipalInvalid:
        "a user has an address that is not admitted at the configured attribute, such as one outside `allowedDomains`; grants to a former address end",
        "correct the attribute at the IdP, or the mapping of attributes in the IdentityProvider";
    PrincipalMissing:
        "a user has no value at the configured attribute, so nothing new is granted and nothing is removed",
        "have the IdP send the attribute";
    PrincipalCollision:
        "two users have the same address; nothing new is granted to it",
        "correct the address of one of them at the IdP";
    InventoryIncomplete:
        "the list of resources failed or was incomplete, so nothing is concluded from absences in it",
        "wait, or see the target's conditions";
    StoreMismatch:
        "the database is empty or not the one used here before; nothing is written",
        "restore the database, or run `rolecall store accept`";
    StoreRewound:
        "the database is older than one that was used here before; nothing is written",
        "restore a newer database, or run `rolecall store accept`";
    StatusRefused:
        "the API server refuses the full status as malformed, so only this condition is shown; grants and revocations are not affected",
        "apply the CRDs of this version of rolecall; if the status is still refused, report the message as a defect";
    MassRemoval:
        "more people would lose access at once than the guard permits; their grants stay",
        "check the cause; release the plan by its hash with the annotation rolecall.dev/release";
    DriftReported:
        "somebody else removed a grant; `onMissing: Report` leaves it removed",
        "set `onMissing: Revert`, or remove the grant from the mapping";
    Contested:
        "a grant of rolecall was taken away and made again several times within minutes, so it is made again ever more rarely",
        "find out which other controller or script writes the policy, and let only one of the two manage the grant";
    Reverted: "somebody else removed a grant; it was granted again", "find out who edits the policy by hand";
    ForeignMembers: "the policy has members that rolecall neither granted nor wants; they are kept", "";
    GrantRemains:
        "a grant is no longer wanted but was not made by rolecall; it stays",
        "remove it by hand if it should be gone";
    LeaverHasForeignGrant:
        "somebody who left still has access through a grant that somebody else made; rolecall removes only its own",
        "remove it by hand, unless it is meant to stay; the message says where";
    Adopted: "a grant that somebody else made was taken over, as the mapping asks and the target permits", "";
    PublicPrincipal:
        "the policy grants a role to everybody (`allUsers` or `allAuthenticatedUsers`), whoever is in the mapped groups; rolecall keeps what it did not grant",
        "take that member out of the policy unless the resource is meant to be public";
    ConditionChanged:
        "somebody else put a grant of rolecall under another condition; that grant is kept, and counts as theirs",
        "take the conditional grant out of the policy, or remove the grant from the mapping";
    TargetRecreated:
        "the resource was deleted and created again, so its policy started empty; the grants are made again",
        "find out who deleted it if that was not meant";
    Tombstone:
        "the policy has grants of deleted accounts that rolecall did not make; they still count towards its limits",
        "take them out of the policy";
    NoDrift: "nobody else changed the policies", "";
    InvokerIamDisabled:
        "the service does not check roles/run.invoker at all, so the grant has no effect",
        "enable the invoker check of the service";
    TokensValid: "every token can be used", "";
    TokenSecretNotFound:
        "the Secret of a token does not exist in the operator's namespace",
        "create it, or correct `secretRef`";
    TokenSecretForbidden:
        "the API server does not permit rolecall to read the Secret of a token",
        "name the Secret in the chart's value `secrets`";
    TokenKeyNotFound:
        "the Secret has neither the key token nor tokenSHA256, or lacks clientId or clientSecret of an OAuth client",
        "add the key";
    TokenInvalid: "the Secret's value is empty, or tokenSHA256 is not 64 hexadecimal digits", "correct the value";
    TokenWeak:
        "the token or client secret has fewer than 32 characters",
        "make a new one with `rolecall token mint` and give it to the IdP";
    Capturing:
        "requests of the IdP are kept in memory for a while, without names and addresses of people",
        "print them with `rolecall doctor IDP --capture`, and try them with `rolecall replay`";
    CaptureWaiting:
        "the end of the capture is further ahead than `--max-capture` allows, so that it begins later",
        "set `spec.scim.captureUntil` to an earlier time";
    CaptureEnded:
        "requests of the IdP are not kept any more; what was kept is dropped a day after the end",
        "remove `spec.scim.captureUntil`, or set a later time";
    TokenExpiring:
        "every token can be used, and one of them expires within 14 days",
        "add a new token, enter it at the IdP, then remove the old one";
    TokenExpired: "the token's `notAfter` has passed; it is refused", "rotate it";
    TokenShared:
        "two IdentityProviders have the same token or client secret; it is refused for both",
        "give each its own";
    IssuerUnavailable:
        "the keys of the OpenID Connect issuer cannot be read, so its tokens are refused",
        "correct `spec.scim.oidc.issuer`, or let rolecall reach it; the log has the cause";
    Fresh: "the IdP made a request within `staleAfter`", "";
    Stale:
        "the IdP made no request for longer than `staleAfter`; nothing is removed for that",
        "check the provisioning log of the IdP";
    QuotaExceeded:
        "the IdP has reached its storage quota; further data is refused with 507, except deactivations and removals",
        "delete what is not needed at the IdP, or raise `--max-rows-per-provider` or `--max-bytes-per-provider`";
    WaitingForFirstRequest:
        "everything is in place here, and the IdP made no authenticated request yet",
        "enter `status.endpoint` and the token at the IdP; `rolecall doctor` says what arrives";
    NeverSeen: "the IdP never made an authenticated request", "enter `status.endpoint` and the token at the IdP";
    Reachable: "the resources of the project were listed completely", "";
    ProjectNotFound: "the project does not exist or is not visible", "correct `spec.project`";
    PermissionsValid: "no call was refused for lack of a permission", "";
}

impl Reason {
    /// The reason with this stored or shown word; none for a word that is not in the list.
    #[must_use]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.word() == word)
    }
}

/// Ordered by word, so that lists of reasons are in alphabetical order.
impl Ord for Reason {
    fn cmp(&self, other: &Self) -> Ordering {
        self.word().cmp(other.word())
    }
}

impl PartialOrd for Reason {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl PartialEq<Reason> for str {
    fn eq(&self, reason: &Reason) -> bool {
        self == reason.word()
    }
}

impl PartialEq<Reason> for String {
    fn eq(&self, reason: &Reason) -> bool {
        self == reason.word()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn every_reason_has_a_meaning_and_is_found_by_its_word() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.word()), Some(*reason));
            assert!(!reason.meaning().is_empty() && !reason.meaning().ends_with('.'), "{reason}");
            assert!(!reason.action().ends_with('.'), "{reason}");
        }
        assert_eq!(Reason::from_word("NoSuchReason"), None);
    }

    /// The list itself, and files in which a word that is also a reason means something else: the type of a condition,
    /// or a label value of a module that knows no other module.
    const NOT_SEARCHED: [&str; 3] = ["model/reason.rs", "api/condition.rs", "telemetry/metrics.rs"];

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.file_name().and_then(|name| name.to_str()).unwrap() {
                "tests" | "contract" | "simulation" => {}
                _ if path.is_dir() => files(&path, found),
                name if name.contains("tests") || name == "fixtures.rs" => {}
                _ => found.push(path),
            }
        }
    }

    #[test]
    fn no_reason_stands_as_a_literal_outside_the_list() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = Vec::new();
        files(&root, &mut sources);
        assert!(sources.len() > 100);
        for path in sources.iter().filter(|path| !NOT_SEARCHED.iter().any(|file| path.ends_with(file))) {
            let text = fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for reason in Reason::ALL {
                assert!(!code.contains(&format!("\"{reason}\"")), "{reason} stands in {}", path.display());
            }
        }
    }
}
