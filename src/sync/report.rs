//! Turns outcomes into statuses: folds the engine's state and publishes the result in the status cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::state::{DocumentState, SAMPLES, State, StatusOf};
use crate::api::condition::kind;
use crate::api::{
    DriftKind, DriftSample, FindingStatus, PolicyCounts, RefusedPath, ResourceCounts, TargetDrift, duration,
};
use crate::catalog::{Acceptance, Ceiling, MappingView, Resolution, SubjectView};
use crate::model::{
    DocumentKey, FreezeReason, GrantKey, Keep, Kind, MappingKey, MappingPhase, MemberKey, ProviderName, Reason,
    ResourceKind, Subject, TargetName,
};
use crate::plan;
use crate::status::{
    ClaimCounts, DocumentOutcome, Failure, HeldOutcome, Item, Lag, ListingOutcome, MappingInput, Metadata,
    ProviderInput, QuotaOutcome, Status, SubjectOutcome, TargetInput, TokenOutcome, fold_mapping, fold_provider,
    fold_target, same_mapping, same_target,
};
use crate::store::{Counts, StoreError, Usage};

/// Outcomes within this time are folded together.
const COALESCE: Duration = Duration::from_millis(100);
/// Interval between reads of the SCIM endpoint's statistics, which send no notifications.
const REFRESH: Duration = Duration::from_secs(5);
/// Interval after which all statuses are folded in any case.
const RESYNC: Duration = Duration::from_mins(1);
/// A changed status is folded again after this, since the previous status is an input; so is one that would be
/// incomplete after a start.
const SETTLES: SignedDuration = SignedDuration::from_secs(1);
/// Largest number of differences in the status of a target.
const SHOWN: usize = 50;

/// Information of the SCIM endpoint about a provider, passed in because the engine does not depend on that module.
#[derive(Debug, Clone, Default)]
pub struct ProviderTraffic {
    /// The SCIM base URL.
    pub endpoint: String,
    /// The tokens, with their problems.
    pub tokens: Vec<TokenOutcome>,
    /// Time of the last authenticated request.
    pub last_request: Option<Timestamp>,
    /// The IdP that the requests look like.
    pub dialect: Option<String>,
    /// Deviations of the IdP from the RFCs.
    pub findings: Vec<FindingStatus>,
    /// The namespace rolecall runs in; none without a cluster.
    pub operator_namespace: Option<String>,
    /// Time of the last refusal because of the quota, unless something was created since.
    pub quota_refused_at: Option<Timestamp>,
    /// True when its requests are answered with 503, because the stored people belong to a former provider of its name.
    pub former: bool,
}

/// Returns the information of the SCIM endpoint.
pub type TrafficSource = Arc<dyn Fn(&ProviderName) -> ProviderTraffic + Send + Sync>;

pub(super) async fn follow(inner: Arc<Inner>, stop: CancellationToken) {
    let (mut refreshed, mut resynced) = (tokio::time::Instant::now(), tokio::time::Instant::now());
    loop {
        let due = inner
            .state()
            .revisits
            .next_due()
            .map_or(REFRESH, |due| Duration::try_from(due.duration_since(inner.clock.now())).unwrap_or_default());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = inner.changed.notified() => {}
            () = tokio::time::sleep(due) => {}
            () = tokio::time::sleep_until(refreshed + REFRESH) => {}
        }
        {
            let mut state = inner.state();
            if resynced.elapsed() >= RESYNC {
                resynced = tokio::time::Instant::now();
                state.everything_changed();
            }
            if refreshed.elapsed() >= REFRESH {
                refreshed = tokio::time::Instant::now();
                let providers: Vec<ProviderName> = state.providers.keys().cloned().collect();
                state.changed_providers.extend(providers);
            }
            state.take_revisits(inner.clock.now());
        }
        publish(&inner).await;
        tokio::time::sleep(COALESCE).await;
    }
}

async fn publish(inner: &Inner) {
    count_orphaned(inner).await;
    let (mappings, targets, providers) = {
        let mut state = inner.state();
        (
            std::mem::take(&mut state.changed_mappings),
            std::mem::take(&mut state.changed_targets),
            std::mem::take(&mut state.changed_providers),
        )
    };
    for key in mappings {
        mapping(inner, &key);
    }
    for name in targets {
        target(inner, &name);
    }
    for name in providers {
        let counted = async { Ok((inner.store.counts(&name).await?, inner.store.usage(&name).await?)) };
        let (counts, usage) = match counted.await {
            Ok(counted) => counted,
            Err::<_, StoreError>(error) => {
                tracing::warn!(%error, "cannot count the directory for the status");
                continue;
            }
        };
        provider(inner, &name, counts, usage);
    }
    gauges(inner);
}

/// Counts the orphaned grants in the ledger; usually there are none.
async fn count_orphaned(inner: &Inner) {
    let orphaned = match inner.store.orphaned().await {
        Ok(orphaned) => orphaned,
        Err(error) => {
            tracing::warn!(%error, "cannot count orphaned grants");
            return;
        }
    };
    inner.metrics.orphaned_members.set([], orphaned.values().sum::<u64>().try_into().unwrap_or(usize::MAX));
    let mut state = inner.state();
    if state.orphaned != orphaned {
        let touched: Vec<DocumentKey> = state.orphaned.keys().chain(orphaned.keys()).cloned().collect();
        for document in touched {
            let target = state.target_of(&document);
            state.changed_targets.extend(target);
        }
        state.orphaned = orphaned;
    }
}

fn mapping(inner: &Inner, key: &MappingKey) {
    let now = inner.clock.now();
    let previous = inner.cache.mapping(key);
    let item = {
        let mut state = inner.state();
        let Some(memory) = state.mappings.get(key) else {
            state.lacking_since.remove(key);
            if state.note_frozen(key, BTreeSet::new()) {
                inner.changed.notify_one();
            }
            inner.cache.remove(Kind::RoleMapping, Some(key.namespace()), key.name());
            return;
        };
        if state.phase(key) == Some(MappingPhase::Orphaned) {
            // The object is gone; its remaining grants are removed when their people leave.
            inner.cache.remove(Kind::RoleMapping, Some(key.namespace()), key.name());
            return;
        }
        let Some(view) = state.catalog.mapping(key) else { return };
        let unlisted = || {
            let targets = view.unlisted_targets.iter().filter_map(|name| Some((name, state.targets.get(name)?)));
            targets.map(|(name, target)| (name, target.listing.is_some()))
        };
        let loading = unlisted().find(|(_, tried)| !tried).map(|(name, _)| name);
        let unread = |document: &DocumentKey| {
            let memory = state.documents.get(document);
            memory.is_none_or(|memory| memory.found.is_none() && memory.error.is_none())
                && inner.queue().is_busy(document)
        };
        if previous.is_some() && state.is_settling() && (loading.is_some() || view.documents.iter().any(unread)) {
            state.revisits.enqueue(&StatusOf::Mapping(key.clone()), later(now, SETTLES));
            return;
        }
        let problem = memory.problem.clone();
        let mut documents: BTreeMap<&DocumentKey, DocumentOutcome> =
            view.documents.iter().map(|document| (document, outcome(inner, &state, &view, key, document))).collect();
        for document in state.by_mapping.get(key).into_iter().flatten() {
            documents.entry(document).or_insert_with(|| outcome(inner, &state, &view, key, document));
        }
        let mut documents: Vec<DocumentOutcome> = documents.into_values().collect();
        hold(&state, key, &mut documents);
        let lacking_since = note_lacking(&mut documents, state.lacking_since.get(key), now);
        let subjects: Vec<SubjectOutcome> = view.subjects.iter().map(subject).collect();
        let refused: Vec<RefusedPath> = view
            .refused
            .iter()
            .map(|path| RefusedPath {
                path: path.path.clone(),
                resource: path.resource.clone(),
                role: path.role.clone(),
            })
            .collect();
        // Freezes of a part of the mapping are reported too; reasons that concern the whole mapping come first.
        let part = |names: bool, why: FreezeReason| names.then_some(why);
        let frozen = state
            .frozen
            .or(view.phase.missing())
            .or(view.frozen)
            .or(part(!view.missing_providers.is_empty(), FreezeReason::IdentityProviderNotFound))
            .or(part(!view.changed_providers.is_empty(), FreezeReason::IdentityProviderChanged))
            .or(part(!view.missing_targets.is_empty(), FreezeReason::TargetNotFound))
            .or(part(!view.suspended_providers.is_empty(), FreezeReason::Suspended))
            .or(part(!view.overlapped_targets.is_empty(), FreezeReason::OverlappingTarget))
            .or(part(unlisted().any(|(_, tried)| tried), FreezeReason::InventoryIncomplete));
        let detail = frozen_detail(frozen, &view);
        let unmatched: Vec<String> =
            view.unmatched.iter().map(|(target, pattern)| format!("{target}: {pattern}")).collect();
        let folded = fold_mapping(
            &MappingInput {
                generation: memory.generation,
                mode: memory.spec.mode,
                ceiling_observes: inner.config.ceiling == Ceiling::Observe,
                phase: view.phase,
                problem: problem.as_ref(),
                frozen,
                frozen_detail: &detail,
                loading: loading.map(TargetName::as_str),
                admitted: u64::from(matches!(view.acceptance, Acceptance::Accepted | Acceptance::PartlyDelegated)),
                refused: &refused,
                unmatched: &unmatched,
                subjects: &subjects,
                documents: &documents,
                last_handled_reconcile_at: memory.reconcile_requested_at.as_deref(),
            },
            previous.as_ref(),
            now,
        );
        let metadata = Metadata {
            name: key.name().to_owned(),
            namespace: Some(key.namespace().to_owned()),
            generation: Some(memory.generation),
            creation_timestamp: Some(Time(memory.created)),
            uid: memory.uid.clone(),
        };
        let spec = serde_json::to_value(&memory.spec).ok();
        let is_frozen = folded.status.conditions.iter().any(|condition| condition.type_ == kind::FROZEN);
        state.lacking_since.remove(key);
        if !lacking_since.is_empty() {
            state.lacking_since.insert(key.clone(), lacking_since);
        }
        if let Some(due) = folded.revisit {
            state.revisits.enqueue(&StatusOf::Mapping(key.clone()), due);
        }
        let frozen = documents.into_iter().map(|outcome| outcome.document).filter(|_| is_frozen).collect();
        if state.note_frozen(key, frozen) {
            inner.changed.notify_one();
        }
        Item::new(metadata, spec, Status::RoleMapping(Box::new(folded.status)))
    };
    inner.cache.publish(item);
    // In the form in which it is shown: without the names of people, and cut to the limits of the resource.
    let shown = inner.cache.mapping(key);
    if shown.as_ref().zip(previous.as_ref()).is_none_or(|(shown, before)| !same_mapping(shown, before)) {
        inner.state().revisits.enqueue(&StatusOf::Mapping(key.clone()), later(now, SETTLES));
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
    fn listed<T: ToString>(kind: &str, names: impl IntoIterator<Item = T>) -> String {
        let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
        format!("{kind} {}", names.join(", "))
    }
    match why {
        Some(FreezeReason::IdentityProviderNotFound) => listed("IdentityProvider", &view.missing_providers),
        Some(FreezeReason::IdentityProviderChanged) => listed("IdentityProvider", &view.changed_providers),
        Some(FreezeReason::TargetNotFound) => listed("CloudRunTarget", &view.missing_targets),
        Some(FreezeReason::InventoryIncomplete) => listed("CloudRunTarget", &view.unlisted_targets),
        Some(FreezeReason::OverlappingTarget) => listed("CloudRunTarget", &view.overlapped_targets),
        Some(FreezeReason::Suspended) if !view.suspended_providers.is_empty() => {
            listed("IdentityProvider", &view.suspended_providers)
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
    SubjectOutcome {
        identity_provider: view.provider.to_string(),
        display_name: view.display_name.clone().or_else(|| view.current_name.clone()),
        external_id: view.external_id.clone().or_else(|| view.current_external_id.clone()),
        id,
        members: view.members as u64,
        problem: view.resolution.reason(),
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
    if let Some((count, at)) = memory.reverted.get(key) {
        (outcome.reverted, outcome.reverted_at) = (*count, Some(*at));
    }
    let remaining = || memory.remains.iter().filter(|(_, mappings)| mappings.contains(key));
    outcome.remaining = remaining().count() as u64;
    outcome.lag = memory.lag.map(|(took, at)| Lag { took, at });
    let concerns = |grant: &GrantKey| memory.remains.get(grant).is_none_or(|mappings| mappings.contains(key));
    outcome.samples = memory
        .differences()
        .filter(|(kind, grant, _)| *kind != DriftKind::Remains || concerns(grant))
        .take(SAMPLES)
        .map(|(kind, grant, subject)| DriftSample {
            kind,
            resource: document.resource(),
            role: grant.role.to_string(),
            principal: shown(inner, state, &grant.member, subject),
        })
        .collect();
    let Some(found) = &memory.found else {
        let waits = memory.pending_since.is_some() || memory.error.is_some();
        return DocumentOutcome { claims: idle.filter(|_| !waits), ..outcome };
    };
    let nothing = || is_pinned.then(ClaimCounts::default);
    outcome.claims = memory.claim_counts.get(key).map(counts).or_else(nothing);
    outcome.foreign = found.foreign as u64;
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

/// A member in the form that everybody may read: people by their id, or by domain and digest.
pub(super) fn shown(inner: &Inner, state: &State, member: &MemberKey, subject: Option<Subject>) -> String {
    let claimed = match subject {
        Some(Subject::User(id)) => Some(id),
        Some(Subject::Group(_)) | None => None,
    };
    inner.store.pseudonyms().member(member.as_str(), claimed.or_else(|| state.catalog.person_with(member)))
}

/// A foreign text, such as an error of Google, without the names of people.
pub(super) fn quoted(inner: &Inner, state: &State, text: &str) -> String {
    let known = |address: &str| state.catalog.person_with(&MemberKey::of(&format!("user:{address}")));
    inner.store.pseudonyms().text_with(text, known).into_owned()
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

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn target(inner: &Inner, name: &TargetName) {
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
        let mut policies = PolicyCounts::default();
        let mut drift: Vec<TargetDrift> = Vec::new();
        let mut missing_permissions: Vec<String> = Vec::new();
        let frozen = state.frozen_documents();
        let owned = |document: &DocumentKey| state.catalog.target_of(document) == Some(name);
        for (document, memory) in state.documents.iter().filter(|(document, _)| owned(document)) {
            missing_permissions.extend(memory.missing_permission.clone());
            match memory.health(frozen.contains(document)) {
                DocumentHealth::Failed => policies.failed += 1,
                DocumentHealth::Frozen => policies.frozen += 1,
                DocumentHealth::Held => policies.held += 1,
                DocumentHealth::Drifted => policies.drifted += 1,
                DocumentHealth::InSync => policies.in_sync += 1,
                DocumentHealth::Unread => {}
            }
            let room = SHOWN.saturating_sub(drift.len());
            drift.extend(memory.differences().take(room).map(|(kind, grant, subject)| TargetDrift {
                kind,
                resource: document.resource(),
                role: grant.role.to_string(),
                principal: shown(inner, &state, &grant.member, subject),
                first_seen: None,
            }));
        }
        missing_permissions.sort();
        missing_permissions.dedup();
        drift.sort_by(|a, b| (&a.resource, &a.role, &a.principal).cmp(&(&b.resource, &b.role, &b.principal)));
        let count = |kind| view.resources.get(&kind).copied().unwrap_or_default();
        let listing = memory.listing.as_ref().map(|listing| ListingOutcome {
            resources: ResourceCounts {
                services: i64::try_from(count(ResourceKind::Service)).unwrap_or(i64::MAX),
                jobs: i64::try_from(count(ResourceKind::Job)).unwrap_or(i64::MAX),
                worker_pools: i64::try_from(count(ResourceKind::WorkerPool)).unwrap_or(i64::MAX),
            },
            unreachable: listing.unreachable.clone(),
            failure: listing
                .failure
                .as_ref()
                .map(|failure| Failure { message: quoted(inner, &state, &failure.message), ..failure.clone() }),
            complete_at: listing.complete_at,
        });
        let overlapped_by = view.overlapped.values().next().map(TargetName::as_str);
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
                orphaned,
                policies,
                drift: &drift,
                last_handled_reconcile_at: memory.reconcile_requested_at.as_deref(),
            },
            previous.as_ref(),
            now,
        );
        let metadata = Metadata {
            name: name.to_string(),
            namespace: None,
            generation: Some(memory.generation),
            creation_timestamp: Some(Time(memory.created)),
            uid: memory.uid.clone(),
        };
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

fn quota(inner: &Inner, usage: Usage, refused_at: Option<Timestamp>) -> QuotaOutcome {
    let limits = inner.store.quota();
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    QuotaOutcome {
        rows: count(usage.rows()),
        max_rows: limits.rows,
        bytes: count(usage.bytes),
        max_bytes: limits.bytes,
        refused_at,
    }
}

fn provider(inner: &Inner, name: &ProviderName, counts: Counts, usage: Usage) {
    let now = inner.clock.now();
    let previous = inner.cache.provider(name);
    let mut traffic = (inner.traffic)(name);
    // Requests before the last start are recorded nowhere else.
    let seen_before = previous.as_ref().and_then(|status| Some(status.last_request_time.as_ref()?.0));
    for token in &mut traffic.tokens {
        let before = previous.iter().flat_map(|status| &status.tokens).find(|before| before.name == token.name);
        token.last_used = token.last_used.max(before.and_then(|before| Some(before.last_used.as_ref()?.0)));
    }
    let store_id = inner.store.id().to_string();
    let item = {
        let state = inner.state();
        let Some(memory) = state.providers.get(name) else {
            inner.cache.remove(Kind::IdentityProvider, None, name.as_str());
            return;
        };
        let problem = memory.problem.clone();
        // The endpoint determines the owner of the people itself: the status reports it as long as either of the two
        // does.
        let former = memory.former || traffic.former;
        let folded = fold_provider(
            &ProviderInput {
                generation: memory.generation,
                problem: problem.as_ref(),
                frozen: state.frozen.or(former.then_some(FreezeReason::IdentityProviderChanged)),
                state: memory.spec.state,
                endpoint: &traffic.endpoint,
                dialect: traffic.dialect.as_deref(),
                users: counts.users,
                groups: counts.groups,
                last_request: traffic.last_request.max(seen_before),
                stale_after: memory.spec.stale_after.as_deref().and_then(|text| duration::parse(text).ok()),
                tokens: &traffic.tokens,
                findings: &traffic.findings,
                quota: quota(inner, usage, traffic.quota_refused_at),
                store_id: &store_id,
                operator_namespace: traffic.operator_namespace.as_deref(),
                last_handled_reconcile_at: memory.reconcile_requested_at.as_deref(),
            },
            previous.as_ref(),
            now,
        );
        let metadata = Metadata {
            name: name.to_string(),
            namespace: None,
            generation: Some(memory.generation),
            creation_timestamp: Some(Time(memory.created)),
            uid: memory.uid.clone(),
        };
        Item::new(metadata, serde_json::to_value(&memory.spec).ok(), Status::IdentityProvider(Box::new(folded.status)))
    };
    inner.cache.publish(item);
}

/// State of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DocumentHealth {
    Unread,
    InSync,
    Drifted,
    Held,
    Frozen,
    Failed,
}

impl DocumentHealth {
    const ALL: [Self; 6] = [Self::Unread, Self::InSync, Self::Drifted, Self::Held, Self::Frozen, Self::Failed];

    /// The word used in the metric.
    fn word(self) -> &'static str {
        match self {
            Self::Unread => "Pending",
            Self::InSync => "InSync",
            Self::Drifted => "Drifted",
            Self::Held => "Held",
            Self::Frozen => "Frozen",
            Self::Failed => "Failed",
        }
    }
}

impl DocumentState {
    /// The state of the document. `frozen`: the status of a mapping with a part in it reports that.
    pub(super) fn health(&self, frozen: bool) -> DocumentHealth {
        // An outdated read is repeated within seconds.
        let failed = self.error.as_ref().is_some_and(|(word, _)| *word != Reason::StaleRead);
        if failed || self.additions.foreign.is_some() {
            return DocumentHealth::Failed;
        }
        match &self.found {
            _ if frozen => DocumentHealth::Frozen,
            None => DocumentHealth::Unread,
            Some(found) if !found.held.is_empty() => DocumentHealth::Held,
            Some(found) if found.missing > 0 => DocumentHealth::Drifted,
            Some(_) => DocumentHealth::InSync,
        }
    }

    /// The recorded differences from what is wanted.
    fn differences(&self) -> impl Iterator<Item = (DriftKind, &GrantKey, Option<Subject>)> {
        let samples = self.found.iter().flat_map(|found| &found.samples);
        let remains =
            self.remains.keys().map(|grant| (DriftKind::Remains, grant, self.remained_for.get(grant).copied()));
        samples.map(|sample| (sample.kind, &sample.grant, sample.subject)).chain(remains)
    }
}

fn gauges(inner: &Inner) {
    let (mut counts, mut lost, mut foreign, mut unowned, mut held) = (BTreeMap::new(), 0, 0, 0, [0, 0]);
    let frozen_mappings = {
        let state = inner.state();
        let frozen = state.frozen_documents();
        for (document, memory) in &state.documents {
            *counts.entry(memory.health(frozen.contains(document))).or_insert(0) += 1;
            if let Some(found) = &memory.found {
                lost += found.lost;
                foreign += found.foreign;
                unowned += found.unowned;
                held[0] += found.held.grants(false).len();
                held[1] += found.held.grants(true).len();
            }
        }
        // Documents that were not read, because nothing may be, count as frozen too.
        let unread = frozen.iter().filter(|document| !state.documents.contains_key(**document)).count();
        *counts.entry(DocumentHealth::Frozen).or_insert(0) += unread;
        inner.metrics.event_seq.set([], usize::try_from(state.directory_seq).unwrap_or(0));
        state.frozen_mappings.len()
    };
    for health in DocumentHealth::ALL {
        inner.metrics.documents.set([health.word()], counts.get(&health).copied().unwrap_or(0));
    }
    inner.metrics.frozen_mappings.set([], frozen_mappings);
    inner.metrics.drift_members.set(["lost"], lost);
    inner.metrics.drift_members.set(["foreign"], foreign);
    inner.metrics.drift_members.set(["unowned"], unowned);
    inner.metrics.held_members.set(["remove"], held[0]);
    inner.metrics.held_members.set(["leaver"], held[1]);
    inner.metrics.queue.set([], inner.queue().waiting());
}
