//! The status of a target.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health::DocumentHealth;
use super::{SETTLES, later, metadata, quoted, shown_in};
use crate::api::{PolicyCounts, ResourceCounts, TargetDrift};
use crate::catalog::{Ceiling, TargetView};
use crate::model::{Capacity, Difference, DocumentKey, DriftKey, DriftKind, Kind, ResourceKind, TargetName};
use crate::status::{DriftTally, Failure, Item, ListingOutcome, Status, TargetInput, fold_target, same_target};
use crate::sync::Inner;
use crate::sync::state::{FailedList, Listing, State, StatusOf};
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
        let Policies { counts: policies, drift, drift_tally, mut missing_permissions, unlisted, nearly_full } =
            policies(inner, &state, name, now);
        let mut permissions_matter = !missing_permissions.is_empty();
        let untested: BTreeSet<String> =
            memory.preflights.iter().flat_map(|project| &project.untested).cloned().collect();
        let untested: Vec<String> = untested.into_iter().collect();
        for list in memory.listing.iter().flat_map(|listing| &listing.failed) {
            permissions_matter |= list.missing_permission.is_some() && matters(list, &view);
            missing_permissions.extend(list.missing_permission.clone());
        }
        for permission in memory.preflights.iter().flat_map(|project| &project.missing) {
            permissions_matter |= view.mapped.is_empty() || view.mapped.iter().any(|kind| is_of(permission, *kind));
            missing_permissions.push(permission.clone());
        }
        let observed = inner.config.ceiling == Ceiling::Observe;
        permissions_matter &= !(observed && missing_permissions.iter().all(|one| is_for_writing(one)));
        permissions_matter |= memory.preflights.is_empty();
        let listing =
            memory.listing.as_ref().map(|known| ListingOutcome { unlisted, ..listing(inner, &state, known, &view) });
        let overlapped_by = view.overlapped.values().next().map(TargetName::as_str);
        let owned = |document: &DocumentKey| state.catalog.target_of(document) == Some(name);
        let orphaned = state.orphaned.iter().filter(|(document, _)| owned(document)).map(|(_, grants)| grants).sum();
        let folded = fold_target(
            &TargetInput {
                generation: memory.generation,
                problem: problem.as_ref(),
                overlapped_by,
                frozen: state.frozen,
                project_number: None,
                listing: listing.as_ref(),
                missing_permissions: &missing_permissions,
                untested_permissions: (!memory.preflights.is_empty()).then_some(untested.as_slice()),
                permissions_matter,
                orphaned,
                policies,
                drift: &drift,
                drift_tally: &drift_tally,
                nearly_full: &nearly_full,
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
    drift_tally: DriftTally,
    missing_permissions: Vec<String>,
    /// Resources that the list lacks although their policies can be read.
    unlisted: Vec<String>,
    nearly_full: Vec<(String, Capacity)>,
}

fn policies(inner: &Inner, state: &State, name: &TargetName, now: Timestamp) -> Policies {
    let mut counts = PolicyCounts::default();
    let mut drift: BTreeMap<(DriftKind, &DocumentKey, &DriftKey), &Difference> = BTreeMap::new();
    let mut drift_tally = DriftTally::default();
    let mut missing_permissions: Vec<String> = Vec::new();
    let (mut unlisted, mut nearly_full) = (Vec::new(), Vec::new());
    let frozen = state.frozen_documents();
    for (document, memory) in state.documents_of(name) {
        missing_permissions.extend(memory.missing_permission.clone());
        missing_permissions.extend(memory.missing_for_resource.clone());
        if memory.found.as_ref().is_some_and(|found| found.unlisted) {
            unlisted.push(document.short());
        }
        let space = memory.found.as_ref().and_then(|found| found.space);
        nearly_full.extend(space.filter(Capacity::is_nearly_full).map(|space| (document.short(), space)));
        let reported = state.reported(document);
        let tally = memory.drift.tally(None, &reported, now);
        match memory.health(frozen.contains(document), !tally.kinds.is_empty()) {
            DocumentHealth::Failed => counts.failed += 1,
            DocumentHealth::Frozen => counts.frozen += 1,
            DocumentHealth::Held => counts.held += 1,
            DocumentHealth::Drifted => counts.drifted += 1,
            DocumentHealth::InSync => counts.in_sync += 1,
            DocumentHealth::Unread => {}
        }
        drift_tally.add(&tally);
        drift_tally.contested += memory.contests.contested(None).count() as u64;
        for (key, difference) in memory.drift.of(None, &reported).take(SHOWN) {
            drift.insert((key.kind, document, key), difference);
            if drift.len() > SHOWN {
                drift.pop_last();
            }
        }
    }
    let drift = drift
        .into_iter()
        .map(|((kind, document, key), known)| TargetDrift {
            kind,
            resource: document.resource(),
            role: key.role.clone(),
            principal: shown_in(inner, key, known),
            first_seen: Some(Time(known.first_seen)),
        })
        .collect();
    // Documents that were not read, because nothing may be, are frozen too.
    let unread = |document: &&&DocumentKey| !state.documents.contains_key(**document);
    let of_target = |document: &&&DocumentKey| state.catalog.target_of(document) == Some(name);
    let unread = frozen.iter().filter(unread).filter(of_target).count();
    counts.frozen = counts.frozen.saturating_add(i64::try_from(unread).unwrap_or(i64::MAX));
    Policies { counts, drift, drift_tally, missing_permissions, unlisted, nearly_full }
}

/// True when this is a permission on resources of this kind.
fn is_of(permission: &str, kind: ResourceKind) -> bool {
    permission.split('.').nth(1).is_some_and(|noun| noun.eq_ignore_ascii_case(kind.collection()))
}

/// True when a failed list keeps the target from being ready: a mapping names that kind, or nothing at all could be
/// listed in the region.
fn matters(list: &FailedList, view: &TargetView) -> bool {
    list.whole_region || view.mapped.contains(&list.kind)
}

fn listing(inner: &Inner, state: &State, listing: &Listing, view: &TargetView) -> ListingOutcome {
    let count = |kind| i64::try_from(view.resources.get(&kind).copied().unwrap_or_default()).unwrap_or(i64::MAX);
    let failed = || listing.failed.iter().filter(|list| matters(list, view));
    let named = |list: &FailedList| format!("{}/{}", list.location, list.kind.collection());
    ListingOutcome {
        resources: ResourceCounts {
            services: count(ResourceKind::Service),
            jobs: count(ResourceKind::Job),
            worker_pools: count(ResourceKind::WorkerPool),
        },
        unreachable: listing.unreachable.iter().cloned().chain(listing.failed.iter().map(named)).collect(),
        lacking: listing.unreachable.iter().cloned().chain(failed().map(named)).collect(),
        failure: failed()
            .next()
            .map(|list| Failure { message: quoted(inner, state, &list.failure.message), ..list.failure.clone() }),
        unlisted: Vec::new(),
        complete_at: listing.complete_at,
    }
}
