//! Settings: limits, and behavior of Google that is not confirmed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The settings, as in `GET /__emulator/settings`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Largest number of appearances of principals in one policy, including audit exemptions.
    pub(crate) principals: usize,
    /// Largest number of groups and domains in one policy.
    pub(crate) groups: usize,
    /// Whether `groups` counts each appearance or each distinct group; domains always count for each appearance.
    pub(crate) group_counting: GroupCounting,
    /// Whether `principalSet://` members count towards `groups`.
    pub(crate) principal_set_is_group: bool,
    /// Largest number of bindings with one role and one principal that differ only in their condition.
    pub(crate) same_role_conditions: usize,
    /// Largest number of logical operators in one condition.
    pub(crate) condition_operators: usize,
    /// Largest number of bytes of roles, members and conditions in one policy; null for no limit.
    pub(crate) policy_bytes: Option<usize>,
    /// Treatment of a binding without members.
    pub(crate) empty_binding: Outcome,
    /// Treatment of a project's policy that is set to nothing.
    pub(crate) empty_project_policy: Outcome,
    /// Whether roles outside the table of `roles` are refused.
    pub(crate) strict_roles: bool,
    /// The kinds that accept conditions.
    pub(crate) conditions: Conditions,
    /// Default and largest number of items on a page of a list.
    pub(crate) page_size: usize,
    /// Whether the conflict text names the two etags.
    pub(crate) etags_in_conflict: bool,
    /// Largest number of calls in the journal.
    pub(crate) journal_entries: usize,
    /// Largest number of bytes of bodies and policies in the journal.
    pub(crate) journal_bytes: usize,
}

/// How the limit on groups is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum GroupCounting {
    Occurrences,
    Unique,
}

/// Accept and drop what is empty, or refuse the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    Accept,
    Refuse,
}

/// Whether a kind accepts conditional bindings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "one independent switch per kind, as the control API shows them")]
pub(crate) struct Conditions {
    pub(crate) services: bool,
    pub(crate) jobs: bool,
    pub(crate) worker_pools: bool,
    pub(crate) instances: bool,
    pub(crate) iap: bool,
    pub(crate) projects: bool,
    pub(crate) service_accounts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            principals: 1500,
            groups: 250,
            group_counting: GroupCounting::Occurrences,
            principal_set_is_group: false,
            same_role_conditions: 20,
            condition_operators: 12,
            policy_bytes: None,
            empty_binding: Outcome::Accept,
            empty_project_policy: Outcome::Accept,
            strict_roles: true,
            conditions: Conditions {
                services: true,
                jobs: false,
                worker_pools: false,
                instances: false,
                iap: true,
                projects: true,
                service_accounts: true,
            },
            page_size: 100,
            etags_in_conflict: true,
            journal_entries: 20_000,
            journal_bytes: 64 << 20,
        }
    }
}

impl Settings {
    /// These settings, updated with the fields of `change`.
    pub(crate) fn with(&self, change: &Value) -> Result<Self, String> {
        let mut merged = serde_json::to_value(self).map_err(|error| error.to_string())?;
        overlay(&mut merged, change);
        serde_json::from_value(merged).map_err(|error| format!("settings: {error}"))
    }
}

fn overlay(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                overlay(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}
