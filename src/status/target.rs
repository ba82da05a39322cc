//! The status of a `CloudRunTarget`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::condition::kind;
use crate::api::{CloudRunTargetStatus, TargetDrift};
use crate::model::{FreezeReason, Reason};

use super::Folded;
use super::conditions::{Conditions, earliest, explain, plural, with_next_step};
use super::input::TargetInput;
use super::ready::unlisted;
use super::space::set_nearly_full;

/// Largest number of entries of `drift`; counts are exact.
const LISTED_DRIFT: usize = 50;
/// Largest number of listed regions, and of listed permissions.
const LISTED: usize = 32;

/// Folds the status of a target at `now`, given its previous status.
#[must_use]
pub(crate) fn fold_target(
    input: &TargetInput<'_>,
    previous: Option<&CloudRunTargetStatus>,
    now: Timestamp,
) -> Folded<CloudRunTargetStatus> {
    let accepted = accepted(input);
    let reachable = reachable(input);
    let permissions = permissions(input);
    let (drifted, drift_ends) = drifted(input, now);
    let ready = ready(input, [Some(&accepted), Some(&reachable), input.permissions_matter.then_some(&permissions)]);

    let mut conditions = Conditions::new(previous.map_or(&[], |status| &status.conditions), input.generation, now);
    for (type_, finding) in [
        (kind::ACCEPTED, &accepted),
        (kind::REACHABLE, &reachable),
        (kind::PERMISSIONS_VALID, &permissions),
        (kind::DRIFTED, &drifted),
    ] {
        conditions.set(type_, finding.status, finding.reason, &finding.message);
    }

    set_nearly_full(&mut conditions, input.nearly_full.iter().map(|(name, space)| (name.as_str(), *space)));
    let revisit = conditions.set_ready(ready.status, ready.reason, &ready.message);

    let status = CloudRunTargetStatus {
        observed_generation: Some(input.generation),
        project_number: input.project_number.map(str::to_owned),
        resources: input.listing.map(|listing| listing.resources),
        unreachable: listed(input.listing.map_or(&[], |listing| &listing.unreachable)),
        missing_permissions: listed(input.missing_permissions),
        policies: Some(input.policies),
        drift: drift(input.drift),
        drift_counts: Some(input.drift_tally.counts(Vec::new())),
        last_discovery_time: input.listing.and_then(|listing| listing.complete_at).map(Time),
        last_handled_reconcile_at: input.last_handled_reconcile_at.map(str::to_owned),
        conditions: conditions.finish(),
    };
    Folded { status, revisit: earliest(revisit, drift_ends) }
}

struct Finding {
    status: bool,
    reason: Reason,
    message: String,
}

impl Finding {
    fn new(status: bool, reason: Reason, message: String) -> Self {
        Self { status, reason, message }
    }

    fn plain(status: bool, reason: Reason) -> Self {
        Self::new(status, reason, explain(reason))
    }
}

fn accepted(input: &TargetInput<'_>) -> Finding {
    if let Some(problem) = input.problem {
        let message = format!("{}; its last valid version stays in force", problem.message);
        return Finding::new(false, problem.reason, with_next_step(&message, problem.reason));
    }
    match input.overlapped_by {
        Some(older) => {
            let message = format!("`{older}` is older and covers the same: {}", explain(Reason::OverlappingTarget));
            Finding::new(false, Reason::OverlappingTarget, message)
        }
        None => Finding::new(true, Reason::Accepted, "the target is valid".to_owned()),
    }
}

fn reachable(input: &TargetInput<'_>) -> Finding {
    let Some(listing) = input.listing else {
        return Finding::new(false, Reason::Progressing, "the resources were not listed yet".to_owned());
    };
    if let Some(failure) = &listing.failure {
        let message = format!("{}; {}", failure.message, FreezeReason::InventoryIncomplete.message());
        return Finding::new(false, failure.reason, with_next_step(&message, failure.reason));
    }
    if !listing.lacking.is_empty() {
        let message = format!("{}: {}", listed(&listing.lacking).join(", "), explain(Reason::InventoryIncomplete));
        return Finding::new(false, Reason::InventoryIncomplete, message);
    }
    if let Some(first) = listing.unlisted.first() {
        let more = match listing.unlisted.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let message = format!("{first}{more}: {}", unlisted());
        return Finding::new(false, Reason::InventoryIncomplete, message);
    }
    if listing.unreachable.is_empty() {
        return Finding::plain(true, Reason::Reachable);
    }
    let message = format!(
        "all that mappings name was listed; {} could not be listed, which no mapping names",
        listed(&listing.unreachable).join(", ")
    );
    Finding::new(true, Reason::Reachable, message)
}

fn permissions(input: &TargetInput<'_>) -> Finding {
    if input.missing_permissions.is_empty() {
        return match input.untested_permissions {
            None => Finding::new(false, Reason::Progressing, "the permissions were not tested yet".to_owned()),
            Some([]) => Finding::plain(true, Reason::PermissionsValid),
            Some(untested) => {
                let names = listed(untested).join(", ");
                let message = format!("{}; not tested: {names}", explain(Reason::PermissionsValid));
                Finding::new(true, Reason::PermissionsValid, message)
            }
        };
    }
    let names = listed(input.missing_permissions).join(", ");
    let message = if input.permissions_matter {
        format!("{names}: {}", explain(Reason::PermissionDenied))
    } else {
        format!("{names}: {}; no mapping depends on it", explain(Reason::PermissionDenied))
    };
    Finding::new(false, Reason::PermissionDenied, message)
}

fn drifted(input: &TargetInput<'_>, now: Timestamp) -> (Finding, Option<Timestamp>) {
    let (found, ends) = input.drift_tally.condition(now);
    let finding = match found {
        Some((word, message)) => Finding::new(true, word, format!("{message}; see `status.drift`")),
        None => Finding::plain(false, Reason::NoDrift),
    };
    (finding, ends)
}

fn ready(input: &TargetInput<'_>, needed: [Option<&Finding>; 3]) -> Finding {
    if let Some(why) = input.frozen.filter(|why| *why != FreezeReason::Observed) {
        return Finding::new(false, why.reason(), why.message().to_owned());
    }
    if input.orphaned > 0 {
        let message =
            format!("{} of deleted mappings could not be revoked yet", plural(input.orphaned, "grant", "grants"));
        return Finding::new(false, Reason::RevocationDeferred, with_next_step(&message, Reason::RevocationDeferred));
    }
    if let Some(lacking) = needed.into_iter().flatten().find(|finding| !finding.status) {
        return Finding::new(false, lacking.reason, lacking.message.clone());
    }
    let failed = u64::try_from(input.policies.failed).unwrap_or(0);
    if failed > 0 {
        let message = format!(
            "{} could not be read or written; the mappings that touch them say why",
            plural(failed, "policy", "policies")
        );
        return Finding::new(false, Reason::BackingOff, message);
    }
    if input.frozen == Some(FreezeReason::Observed) {
        return Finding::plain(true, Reason::Observed);
    }
    let message =
        format!("{} in step", plural(u64::try_from(input.policies.in_sync).unwrap_or(0), "policy is", "policies are"));
    Finding::new(true, Reason::Converged, message)
}

fn listed(names: &[String]) -> Vec<String> {
    let sorted: BTreeSet<&String> = names.iter().collect();
    sorted.into_iter().take(LISTED).cloned().collect()
}

fn drift(all: &[TargetDrift]) -> Vec<TargetDrift> {
    let mut sorted: Vec<&TargetDrift> = all.iter().collect();
    sorted.sort_by(|one, other| {
        let key = |drift: &TargetDrift| {
            (
                drift.kind,
                drift.resource.clone(),
                drift.role.clone(),
                drift.principal.clone(),
                drift.first_seen.clone().map(|time| time.0),
            )
        };
        key(one).cmp(&key(other))
    });
    sorted.dedup();
    sorted.into_iter().take(LISTED_DRIFT).cloned().collect()
}
