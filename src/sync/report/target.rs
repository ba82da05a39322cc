//! The status of a target.

use super::health::DocumentHealth;
use super::{SETTLES, later, metadata, quoted, shown};
use crate::api::{PolicyCounts, ResourceCounts, TargetDrift};
use crate::catalog::{Ceiling, TargetView};
use crate::model::{DocumentKey, Kind, ResourceKind, TargetName};
use crate::status::{Failure, Item, ListingOutcome, Status, TargetInput, fold_target, same_target};
use crate::sync::Inner;
use crate::sync::state::{Listing, State, StatusOf};
use crate::target::is_for_writing;

/// Largest number of differences in the status of a target.
const SHOWN: usize = 50;

/// Publishes the status of a target.
pub(super) fn publish(inner: &Inner, name: &TargetName) {
    let now = inner.clock.now();
    let previous = inner.cache.target(name);
    if previous.is_some() {
        let mut state = inner.state();
        let unlisted = state.targets.get(name).is_some_and(|memory| memory.listing.is_none());
        if unlisted && state.is_settling() {
            state.revisits.enqueue(&StatusOf::Target(name.clone()), later(now, SETTLES));
            return;
        }
    }
    let (item, due) = {
        let state = inner.state();
        let Some(memory) = state.targets.get(name) else {
            inner.cache.remove(Kind::CloudRunTarget, None, name.as_str());
            return;
        };
        let Some(view) = state.catalog.target(name) else { return };
        let problem = memory.problem.clone();
        let Policies { counts: policies, drift, missing_permissions } = policies(inner, &state, name);
        let listing = memory.listing.as_ref().map(|known| listing(inner, &state, known, &view));
        let overlapped_by = view.overlapped.values().next().map(TargetName::as_str);
        let owned = |document: &DocumentKey| state.catalog.target_of(document) == Some(name);
        let orphaned = state.orphaned.iter().filter(|(document, _)| owned(document)).map(|(_, grants)| grants).sum();
        let observed = inner.config.ceiling == Ceiling::Observe;
        let missing_for_writing_only = observed && missing_permissions.iter().all(|one| is_for_writing(one));
        let folded = fold_target(
            &TargetInput {
                generation: memory.generation,
                problem: problem.as_ref(),
                overlapped_by,
                frozen: state.frozen,
                project_number: None,
                listing: listing.as_ref(),
                missing_permissions: &missing_permissions,
                missing_for_writing_only,
                orphaned,
                policies,
                drift: &drift,
                last_handled_reconcile_at: memory.reconcile_requested_at.as_deref(),
            },
            previous.as_ref(),
            now,
        );
        let metadata = metadata((None, name.as_str()), memory.uid.as_ref(), memory.generation, memory.created);
        let spec = serde_json::to_value(&memory.spec).ok();
        (Item::new(metadata, spec, Status::CloudRunTarget(Box::new(folded.status))), folded.revisit)
    };
    inner.cache.publish(item);
    let shown = inner.cache.target(name);
    let changed = shown.as_ref().zip(previous.as_ref()).is_none_or(|(shown, before)| !same_target(shown, before));
    let again = changed.then(|| later(now, SETTLES));
    if let Some(due) = [again, due].into_iter().flatten().min() {
        inner.state().revisits.enqueue(&StatusOf::Target(name.clone()), due);
    }
}

/// The policies of a target.
struct Policies {
    counts: PolicyCounts,
    drift: Vec<TargetDrift>,
    missing_permissions: Vec<String>,
}

fn policies(inner: &Inner, state: &State, name: &TargetName) -> Policies {
    let mut counts = PolicyCounts::default();
    let mut drift: Vec<TargetDrift> = Vec::new();
    let mut missing_permissions: Vec<String> = Vec::new();
    let tested = state.targets.get(name).into_iter().flat_map(|target| &target.preflights);
    missing_permissions.extend(tested.flat_map(|project| project.missing.iter().cloned()));
    let frozen = state.frozen_documents();
    for (document, memory) in state.documents_of(name) {
        missing_permissions.extend(memory.missing_permission.clone());
        match memory.health(frozen.contains(document)) {
            DocumentHealth::Failed => counts.failed += 1,
            DocumentHealth::Frozen => counts.frozen += 1,
            DocumentHealth::Held => counts.held += 1,
            DocumentHealth::Drifted => counts.drifted += 1,
            DocumentHealth::InSync => counts.in_sync += 1,
            DocumentHealth::Unread => {}
        }
        let room = SHOWN.saturating_sub(drift.len());
        drift.extend(memory.differences().take(room).map(|(kind, grant, subject)| TargetDrift {
            kind,
            resource: document.resource(),
            role: grant.role.to_string(),
            principal: shown(inner, state, &grant.member, subject),
            first_seen: None,
        }));
    }
    // Documents that were not read, because nothing may be, are frozen too.
    let unread = |document: &&&DocumentKey| !state.documents.contains_key(**document);
    let of_target = |document: &&&DocumentKey| state.catalog.target_of(document) == Some(name);
    let unread = frozen.iter().filter(unread).filter(of_target).count();
    counts.frozen = counts.frozen.saturating_add(i64::try_from(unread).unwrap_or(i64::MAX));
    missing_permissions.sort();
    missing_permissions.dedup();
    drift.sort_by(|a, b| (&a.resource, &a.role, &a.principal).cmp(&(&b.resource, &b.role, &b.principal)));
    Policies { counts, drift, missing_permissions }
}

fn listing(inner: &Inner, state: &State, listing: &Listing, view: &TargetView) -> ListingOutcome {
    let count = |kind| i64::try_from(view.resources.get(&kind).copied().unwrap_or_default()).unwrap_or(i64::MAX);
    ListingOutcome {
        resources: ResourceCounts {
            services: count(ResourceKind::Service),
            jobs: count(ResourceKind::Job),
            worker_pools: count(ResourceKind::WorkerPool),
        },
        unreachable: listing.unreachable.clone(),
        failure: listing
            .failure
            .as_ref()
            .map(|failure| Failure { message: quoted(inner, state, &failure.message), ..failure.clone() }),
        complete_at: listing.complete_at,
    }
}
