//! The status of a mapping.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{SAMPLES, SETTLES, later, metadata, shown_in};
use crate::api::condition::kind;
use crate::api::{DriftSample, RefusedPath, RoleMappingStatus};
use crate::catalog::{Acceptance, Ceiling, MappingView, Resolution, SubjectNesting, SubjectView};
use crate::model::{DocumentKey, FreezeReason, Keep, Kind, MappingKey, MappingPhase, Reason, TargetName};
use crate::plan;
use crate::status::{
    ClaimCounts, DocumentOutcome, Ends, HeldOutcome, Item, Lag, MappingInput, Status, SubjectOutcome, fold_mapping,
    same_mapping,
};
use crate::sync::Inner;
use crate::sync::state::{State, StatusOf};

/// Publishes the status of a mapping.
pub(super) fn publish(inner: &Inner, key: &MappingKey) {
    let now = inner.clock.now();
    let previous = inner.cache.mapping(key);
    let Some(item) = fold(inner, key, previous.as_ref(), now) else { return };
    inner.cache.publish(item);
    // In the form in which it is shown: without the names of people, and cut to the limits of the resource.
    let shown = inner.cache.mapping(key);
    if shown.as_ref().zip(previous.as_ref()).is_none_or(|(shown, before)| !same_mapping(shown, before)) {
        inner.state().revisits.enqueue(&StatusOf::Mapping(key.clone()), later(now, SETTLES));
    }
}

/// The new status; none when there is nothing to publish.
fn fold(inner: &Inner, key: &MappingKey, previous: Option<&RoleMappingStatus>, now: Timestamp) -> Option<Item> {
    let mut state = inner.state();
    let Some(memory) = state.mappings.get(key) else {
        state.lacking_since.remove(key);
        if state.note_frozen(key, BTreeSet::new()) {
            inner.changed.notify_one();
        }
        inner.cache.remove(Kind::RoleMapping, Some(key.namespace()), key.name());
        return None;
    };
    if state.phase(key) == Some(MappingPhase::Orphaned) {
        // The object is gone; its remaining grants are removed when their people leave.
        inner.cache.remove(Kind::RoleMapping, Some(key.namespace()), key.name());
        return None;
    }
    let view = state.catalog.mapping(key)?;
    let (loading, is_unlisted) = unlisted(&state, &view);
    if previous.is_some() && state.is_settling() && (loading.is_some() || is_unread(inner, &state, &view)) {
        state.revisits.enqueue(&StatusOf::Mapping(key.clone()), later(now, SETTLES));
        return None;
    }
    let mut documents = outcomes(inner, &state, &view, key);
    let lacking_since = note_lacking(&mut documents, state.lacking_since.get(key), now);
    let subjects: Vec<SubjectOutcome> = view.subjects.iter().map(subject).collect();
    let refused: Vec<RefusedPath> = view
        .refused
        .iter()
        .map(|path| RefusedPath {
            path: path.path.clone(),
            resource: path.resource.clone(),
            role: path.role.clone(),
            reason: (path.reason != Reason::NotDelegated).then(|| path.reason.word().to_owned()),
        })
        .collect();
    let frozen = freeze_reason(&state, &view, is_unlisted);
    let unmatched: Vec<String> =
        view.unmatched.iter().map(|(target, pattern)| format!("{target}: {pattern}")).collect();
    let folded = fold_mapping(
        &MappingInput {
            generation: memory.generation,
            mode: memory.spec.mode,
            ceiling_observes: inner.config.ceiling == Ceiling::Observe,
            phase: view.phase,
            problem: memory.problem.as_ref(),
            frozen,
            frozen_detail: &frozen_detail(frozen, &view),
            loading: loading.map(TargetName::as_str),
            admitted: u64::from(matches!(view.acceptance, Acceptance::Accepted | Acceptance::PartlyDelegated)),
            refused: &refused,
            unmatched: &unmatched,
            ends: Ends { ended: view.ends.ended as u64, next: view.ends.next },
            subjects: &subjects,
            documents: &documents,
            last_handled_reconcile_at: memory.reconcile_requested_at.as_deref(),
        },
        previous,
        now,
    );
    let id = (Some(key.namespace()), key.name());
    let metadata = metadata(id, memory.uid.as_ref(), memory.generation, memory.created);
    let spec = serde_json::to_value(&memory.spec).ok();
    if let Some(due) = folded.revisit {
        state.revisits.enqueue(&StatusOf::Mapping(key.clone()), due);
    }
    record(inner, &mut state, key, &folded.status, (documents, lacking_since));
    Some(Item::new(metadata, spec, Status::RoleMapping(Box::new(folded.status))))
}

/// A target of the mapping whose resources were never listed yet, and whether others could not be listed.
fn unlisted<'a>(state: &State, view: &'a MappingView) -> (Option<&'a TargetName>, bool) {
    let listed = |name: &TargetName| Some(state.targets.get(name)?.listing.is_some());
    let mut loading = None;
    let mut is_unlisted = false;
    for name in &view.unlisted_targets {
        match listed(name) {
            Some(true) => is_unlisted = true,
            Some(false) => loading = loading.or(Some(name)),
            None => {}
        }
    }
    (loading, is_unlisted)
}

/// True when a document of the mapping was not read yet and is being read.
fn is_unread(inner: &Inner, state: &State, view: &MappingView) -> bool {
    view.documents.iter().any(|document| {
        let memory = state.documents.get(document);
        memory.is_none_or(|memory| memory.found.is_none() && memory.error.is_none()) && inner.queue().is_busy(document)
    })
}

/// The outcomes of a mapping on all documents that it reaches or has claims on.
fn outcomes(inner: &Inner, state: &State, view: &MappingView, key: &MappingKey) -> Vec<DocumentOutcome> {
    let mut documents: BTreeMap<&DocumentKey, DocumentOutcome> =
        view.documents.iter().map(|document| (document, outcome(inner, state, view, key, document))).collect();
    for document in state.by_mapping.get(key).into_iter().flatten() {
        documents.entry(document).or_insert_with(|| outcome(inner, state, view, key, document));
    }
    let mut documents: Vec<DocumentOutcome> = documents.into_values().collect();
    hold(state, key, &mut documents);
    documents
}

/// Why the mapping is frozen, or a part of it; reasons that concern the whole mapping come first.
fn freeze_reason(state: &State, view: &MappingView, is_unlisted: bool) -> Option<FreezeReason> {
    let part = |is_frozen: bool, why: FreezeReason| is_frozen.then_some(why);
    state
        .frozen
        .or(view.phase.missing())
        .or(view.frozen)
        .or(part(!view.missing_providers.is_empty(), FreezeReason::IdentityProviderNotFound))
        .or(part(!view.changed_providers.is_empty(), FreezeReason::IdentityProviderChanged))
        .or(part(!view.missing_targets.is_empty(), FreezeReason::TargetNotFound))
        .or(part(!view.suspended_providers.is_empty(), FreezeReason::Suspended))
        .or(part(!view.overlapped_targets.is_empty(), FreezeReason::OverlappingTarget))
        .or(part(is_unlisted, FreezeReason::InventoryIncomplete))
}

/// Records what the status of a mapping says about its documents, for later statuses.
fn record(
    inner: &Inner,
    state: &mut State,
    key: &MappingKey,
    status: &RoleMappingStatus,
    (documents, lacking_since): (Vec<DocumentOutcome>, BTreeMap<DocumentKey, Timestamp>),
) {
    state.lacking_since.remove(key);
    if !lacking_since.is_empty() {
        state.lacking_since.insert(key.clone(), lacking_since);
    }
    let is_frozen = status.conditions.iter().any(|condition| condition.type_ == kind::FROZEN);
    let frozen = documents.into_iter().map(|outcome| outcome.document).filter(|_| is_frozen).collect();
    if state.note_frozen(key, frozen) {
        inner.changed.notify_one();
    }
}

/// Records since when something that the mapping wants on a document is missing or unknown. A successful reconcile
/// leaves nothing pending, but what it did not write may still be missing.
fn note_lacking(
    documents: &mut [DocumentOutcome],
    known: Option<&BTreeMap<DocumentKey, Timestamp>>,
    now: Timestamp,
) -> BTreeMap<DocumentKey, Timestamp> {
    let mut lacking = BTreeMap::new();
    for outcome in documents {
        if outcome.claims.is_some_and(|claims| !claims.is_partial()) && !outcome.unlisted {
            continue;
        }
        let since = known.and_then(|known| known.get(&outcome.document)).copied().unwrap_or(now);
        outcome.pending_since = Some(outcome.pending_since.map_or(since, |pending| pending.min(since)));
        lacking.insert(outcome.document.clone(), since);
    }
    lacking
}

/// Describes the objects that caused the freeze.
fn frozen_detail(why: Option<FreezeReason>, view: &MappingView) -> String {
    fn listed<T: ToString>(kind: Kind, names: impl IntoIterator<Item = T>) -> String {
        let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
        format!("{kind} {}", names.join(", "))
    }
    match why {
        Some(FreezeReason::IdentityProviderNotFound) => listed(Kind::IdentityProvider, &view.missing_providers),
        Some(FreezeReason::IdentityProviderChanged) => listed(Kind::IdentityProvider, &view.changed_providers),
        Some(FreezeReason::TargetNotFound) => listed(Kind::CloudRunTarget, &view.missing_targets),
        Some(FreezeReason::InventoryIncomplete) => listed(Kind::CloudRunTarget, &view.unlisted_targets),
        Some(FreezeReason::OverlappingTarget) => listed(Kind::CloudRunTarget, &view.overlapped_targets),
        Some(FreezeReason::Suspended) if !view.suspended_providers.is_empty() => {
            listed(Kind::IdentityProvider, &view.suspended_providers)
        }
        _ => String::new(),
    }
}

fn subject(view: &SubjectView) -> SubjectOutcome {
    let id = match &view.resolution {
        Resolution::Resolved(id)
        | Resolution::IdentityChanged { pinned: id, .. }
        | Resolution::Deleted { pinned: id, .. } => Some(id.to_string()),
        Resolution::NotFound | Resolution::Ambiguous => None,
    };
    let nesting = match &view.nesting {
        SubjectNesting::Plain => None,
        SubjectNesting::Exceeds => Some((Reason::NestingLimitExceeded, String::new())),
        SubjectNesting::Cycle(name) => Some((Reason::NestingCycle, format!("`{name}` contains itself"))),
        SubjectNesting::Ignored(groups) => {
            Some((Reason::NestingIgnored, format!("{groups} of its direct members are groups")))
        }
    };
    let exceeds = nesting.as_ref().map(|(reason, _)| *reason).filter(|word| *word == Reason::NestingLimitExceeded);
    SubjectOutcome {
        identity_provider: view.provider.to_string(),
        display_name: view.display_name.clone().or_else(|| view.current_name.clone()),
        external_id: view.external_id.clone().or_else(|| view.current_external_id.clone()),
        id,
        members: view.members as u64,
        problem: view.resolution.reason().or(exceeds),
        nesting,
        left_out: BTreeMap::from([
            (Reason::PrincipalInvalid, view.invalid_principals as u64),
            (Reason::PrincipalMissing, view.missing_principals as u64),
            (Reason::PrincipalCollision, view.collisions as u64),
        ]),
    }
}

/// The outcome of one mapping on one document.
fn outcome(
    inner: &Inner,
    state: &State,
    view: &MappingView,
    key: &MappingKey,
    document: &DocumentKey,
) -> DocumentOutcome {
    let mut outcome = DocumentOutcome::unread(document.clone());
    outcome.invoker_iam_disabled = view.invoker_iam_disabled.contains(document);
    // Nothing is wanted or owned there, which is known without reading the policy.
    // Nothing is wanted because of a pin that is not stored yet; that does not mean that the group gives nothing.
    let is_pinned = view.keep != Keep::Everything(FreezeReason::NotLoaded);
    let idle = (is_pinned && state.is_idle(document)).then(ClaimCounts::default);
    let Some(memory) = state.documents.get(document) else { return DocumentOutcome { claims: idle, ..outcome } };
    outcome.pending_since = memory.pending_since;
    outcome.failures = memory.failures(inner, state, document, key);
    outcome.lag = memory.lags.get(key).map(|(took, at)| Lag { took: *took, at: *at });
    let reported = state.reported(document);
    outcome.drift = memory.drift.tally(Some(key), &reported, inner.clock.now());
    outcome.drift.contested = memory.contests.contested(Some(key)).count() as u64;
    outcome.samples = memory
        .drift
        .of(Some(key), &reported)
        .take(SAMPLES)
        .map(|(difference, known)| DriftSample {
            kind: difference.kind,
            resource: document.resource(),
            role: difference.role.clone(),
            principal: shown_in(inner, difference, known),
        })
        .collect();
    let Some(found) = &memory.found else {
        let waits = memory.pending_since.is_some() || memory.error.is_some();
        return DocumentOutcome { claims: idle.filter(|_| !waits), ..outcome };
    };
    outcome.space = found.space;
    let nothing = || is_pinned.then(ClaimCounts::default);
    outcome.claims = memory.claim_counts.get(key).map(counts).or_else(nothing);
    outcome.unlisted = found.unlisted && outcome.claims.is_some_and(|claims| claims.desired > 0);
    outcome
}

/// Adds the removals that the guard holds for a mapping, and the hashes that release them.
fn hold(state: &State, key: &MappingKey, documents: &mut [DocumentOutcome]) {
    for ((_, leavers), hash) in state.held_hashes(key) {
        for outcome in &mut *documents {
            let Some(memory) = state.documents.get(&outcome.document) else { continue };
            let parts = memory.found.iter().flat_map(|found| &found.held.parts);
            for part in parts.filter(|part| part.mapping == *key && part.leavers == leavers) {
                outcome.held.push(HeldOutcome {
                    leavers,
                    members: part.removals.iter().map(|removal| removal.grant.member.clone()).collect(),
                    plan_hash: hash.clone(),
                    since: memory.held_since.unwrap_or(Timestamp::UNIX_EPOCH),
                });
            }
        }
    }
}

fn counts(counts: &plan::ClaimCounts) -> ClaimCounts {
    ClaimCounts {
        desired: counts.desired as u64,
        acknowledged: counts.acknowledged as u64,
        verified: counts.verified as u64,
        pending: counts.pending as u64,
        failed: counts.failed as u64,
        unowned: counts.unowned as u64,
        missing: counts.missing as u64,
        observed: counts.observed as u64,
        frozen: counts.frozen as u64,
        revoking: counts.revoking as u64,
        held: counts.held as u64,
        held_leavers: counts.held_leavers as u64,
        oldest_revoking_since: counts.oldest_revoking_since,
    }
}
