//! Condition types. Their reasons are [`crate::model::Reason`].

/// The condition types.
pub(crate) mod kind {
    /// Everything that is wanted is in effect and acknowledged by Google.
    pub(crate) const READY: &str = "Ready";
    /// The object is valid, and what it asks for is delegated to it.
    pub(crate) const ACCEPTED: &str = "Accepted";
    /// Work is in progress (kstatus).
    pub(crate) const RECONCILING: &str = "Reconciling";
    /// Nothing will change without action by a person (kstatus).
    pub(crate) const STALLED: &str = "Stalled";
    /// The guard holds a change.
    pub(crate) const HELD: &str = "Held";
    /// Somebody else changed a policy.
    pub(crate) const DRIFTED: &str = "Drifted";
    /// Grants stay as they are because the ground of their claims is unknown.
    pub(crate) const FROZEN: &str = "Frozen";
    /// Little room is left in a policy. Only there when that is so.
    pub(crate) const NEARLY_FULL: &str = "NearlyFull";
    /// Members of nested groups have what members of the outer group have. Only there when there is something to report.
    pub(crate) const NESTED_GROUPS: &str = "NestedGroups";
    /// The IdP has reached its storage quota.
    pub(crate) const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// The IdP made a request within `staleAfter`.
    pub(crate) const FRESH: &str = "Fresh";
    /// Every token can be used.
    pub(crate) const TOKENS_VALID: &str = "TokensValid";
    /// Requests of the IdP are captured, redacted.
    pub(crate) const CAPTURING: &str = "Capturing";
    /// The resources of the project could be listed.
    pub(crate) const REACHABLE: &str = "Reachable";
    /// rolecall has the permissions it needs in the project.
    pub(crate) const PERMISSIONS_VALID: &str = "PermissionsValid";

    /// All condition types.
    pub(crate) const ALL: &[&str] = &[
        READY,
        ACCEPTED,
        RECONCILING,
        STALLED,
        HELD,
        DRIFTED,
        FROZEN,
        NEARLY_FULL,
        NESTED_GROUPS,
        QUOTA_EXCEEDED,
        FRESH,
        TOKENS_VALID,
        CAPTURING,
        REACHABLE,
        PERMISSIONS_VALID,
    ];
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn condition_types_stand_once() {
        let types: BTreeSet<_> = kind::ALL.iter().collect();
        assert_eq!(types.len(), kind::ALL.len());
    }
}
