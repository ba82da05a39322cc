//! The condition `NearlyFull`: little room is left in a policy.

use super::conditions::{Conditions, with_next_step};
use crate::api::condition::kind;
use crate::model::{Capacity, Reason};

/// Number of policies that the message names.
const NAMED: usize = 3;

/// Sets the condition, if any of these policies is nearly full.
pub(super) fn set_nearly_full<'a>(
    conditions: &mut Conditions<'_>,
    policies: impl Iterator<Item = (&'a str, Capacity)>,
) {
    let mut full: Vec<(&str, Capacity)> = policies.filter(|(_, space)| space.is_nearly_full()).collect();
    full.sort_by_key(|(name, space)| (std::cmp::Reverse(space.percent()), *name));
    if full.is_empty() {
        return;
    }
    let told: Vec<String> = full
        .iter()
        .take(NAMED)
        .map(|(name, space)| {
            format!(
                "{name} has {} of {} principals, {} of {} groups and domains, and {} KiB",
                space.used,
                space.limit,
                space.groups,
                space.groups_limit,
                space.bytes.div_ceil(1024),
            )
        })
        .collect();
    let more = match full.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    let message = with_next_step(&format!("{}{more}", told.join("; ")), Reason::PolicyNearlyFull);
    conditions.set(kind::NEARLY_FULL, true, Reason::PolicyNearlyFull, &message);
}
