//! The engine's in-memory state, behind one lock. Nothing in it has to survive a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::additions::Additions;
use super::apply::ObjectProblem;
use super::contests::Contests;
use super::drift::Drift;
use super::error::EngineError;
use super::fair::Share;
use super::first_look::FirstLook;
use super::queue::DueQueue;
use super::reconcile::ReconcileOutcome;
use super::refusals::Refusals;
use super::removals::Removals;
use super::rules::TargetRules;
use crate::api::{CloudRunTargetSpec, IdentityProviderSpec, RoleMappingSpec};
use crate::catalog::{Catalog, Effects, Urgency};
use crate::model::{
    Capacity, Difference, DocumentKey, DriftChanges, DriftKey, DriftKind, FreezeReason, GroupId, Live, MappingKey,
    MappingPhase, MemberKey, ProviderName, Reason, ResourceKind, Seq, TargetName,
};
use crate::plan::{CallOutcome, ClaimCounts, Held, LimitExceeded, Plan};
use crate::status::Failure;
use crate::store::UninstallMode;
use crate::target::Preflight;

/// Largest number of event positions that a reconcile records as its causes.
const CAUSES: usize = 32;
/// Largest number of namespaces that one document counts for in the order of the documents.
const SHARES: usize = 16;
/// How long after the start a status stays unchanged, until its inputs are known again: lists, and the policies. A
/// restart alone must not change a status.
const SETTLING: Duration = Duration::from_secs(30);

/// The changes that made a document due: earliest time and event positions, until the reconcile that serves them.
#[derive(Debug, Clone, Default)]
pub(super) struct Trigger {
    /// Time at which the first of the changes was accepted.
    pub(crate) since: Option<Timestamp>,
    /// Positions of the first events, limited in number.
    pub(crate) seqs: Vec<Seq>,
}

impl Trigger {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn event(seq: Seq, at: Timestamp) -> Self {
        Self { since: Some(at), seqs: vec![seq] }
    }

    pub(crate) fn at(since: Timestamp) -> Self {
        Self { since: Some(since), seqs: Vec::new() }
    }

    /// True when there is any trigger.
    fn is_some(&self) -> bool {
        self.since.is_some() || !self.seqs.is_empty()
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.since = match (self.since, other.since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        for seq in &other.seqs {
            if self.seqs.len() < CAUSES && !self.seqs.contains(seq) {
                self.seqs.push(*seq);
            }
        }
    }
}

/// The results of a reconcile, without policies and plans: those may be large, and there are many documents.
#[derive(Debug, Clone, Default)]
pub(super) struct LastPlan {
    pub(crate) held: Held,
    pub(crate) limit: Option<LimitExceeded>,
    pub(crate) foreign: usize,
    pub(crate) lost: usize,
    pub(crate) unowned: usize,
    /// True when a complete list lacks the resource although its policy can be read.
    pub(crate) unlisted: bool,
    /// The size of the document.
    pub(crate) space: Option<Capacity>,
}

impl LastPlan {
    fn of(plan: &Plan, acknowledged: bool) -> Self {
        Self {
            space: plan.space(acknowledged),
            held: plan.held.clone(),
            limit: plan.limit.clone(),
            foreign: plan.foreign,
            lost: plan.lost.len(),
            unowned: plan.unowned.len(),
            unlisted: plan.unlisted,
        }
    }
}

/// State of one document.
#[derive(Debug, Default)]
pub(super) struct DocumentState {
    trigger: Trigger,
    /// The mappings in the plan of a running reconcile.
    pub(crate) planned: BTreeSet<MappingKey>,
    /// The last plan that Google refused, and the reason.
    pub(crate) refused: Option<(String, String)>,
    /// Revisions that are known to be outdated, in addition to those in the store.
    pub(crate) reads: super::reads::ReadState,
    /// Number of failed reconciles in a row.
    pub(crate) failures: u32,
    /// The results of the last reconcile that had a plan.
    pub(crate) found: Option<LastPlan>,
    /// The error of the last reconcile: reason and message.
    pub(crate) error: Option<(Reason, String)>,
    /// Since when reconciles have been failing.
    pub(crate) failing_since: Option<Timestamp>,
    /// State of the additions that Google accepts and refuses.
    pub(crate) additions: Additions,
    /// State of the removals that Google refuses.
    pub(crate) removals: Removals,
    /// Members that Google stores under a spelling that is not permitted.
    pub(crate) forbidden: Vec<MemberKey>,
    /// Since when there are such members.
    pub(crate) forbidden_since: Option<Timestamp>,
    /// The permission that is missing according to the last reconcile.
    pub(crate) missing_permission: Option<String>,
    /// The permission that was missing when the resource was last read.
    pub(crate) missing_for_resource: Option<String>,
    /// Time from directory event to acknowledgement of the last change of each mapping, and the time of the
    /// acknowledgement.
    pub(crate) lags: BTreeMap<MappingKey, (SignedDuration, Timestamp)>,
    /// Differences between the document and what is wanted.
    pub(crate) drift: Drift,
    /// Grants that somebody else keeps taking away.
    pub(crate) contests: Contests,
    /// The counts of the last reconcile.
    pub(crate) claim_counts: BTreeMap<MappingKey, ClaimCounts>,
    /// Since when the guard holds something.
    pub(crate) held_since: Option<Timestamp>,
    /// The mappings that had a part in the last plan.
    pub(crate) mappings: BTreeSet<MappingKey>,
    /// Since when work is in progress or waits.
    pub(crate) pending_since: Option<Timestamp>,
    /// Begin of the last completed reconcile.
    pub(crate) reconciled_from: Option<Instant>,
}

impl DocumentState {
    pub(crate) fn note(&mut self, trigger: &Trigger) {
        self.trigger.merge(trigger);
        if self.pending_since.is_none() {
            self.pending_since = trigger.since;
        }
    }

    pub(crate) fn take_trigger(&mut self) -> Trigger {
        std::mem::take(&mut self.trigger)
    }
}

/// A list of one kind of resources in one region that failed.
#[derive(Debug, Clone)]
pub(super) struct FailedList {
    pub(crate) location: String,
    pub(crate) kind: ResourceKind,
    pub(crate) failure: Failure,
    pub(crate) missing_permission: Option<String>,
    /// True when no kind could be listed in the region.
    pub(crate) whole_region: bool,
}

/// The result of the last list of a target.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    /// Regions that Google could not reach.
    pub(crate) unreachable: Vec<String>,
    /// The lists that failed.
    pub(crate) failed: Vec<FailedList>,
    pub(crate) complete_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct TargetState {
    /// The uid of the object; none without a cluster.
    pub(crate) uid: Option<String>,
    pub(crate) spec: CloudRunTargetSpec,
    pub(crate) generation: i64,
    pub(crate) created: Timestamp,
    pub(crate) discovery_interval: Duration,
    /// Interval between reads of its policies, if the spec has one.
    pub(crate) drift_interval: Option<Duration>,
    /// What holds for its policies.
    pub(crate) rules: TargetRules,
    pub(crate) failures: u32,
    pub(crate) listing: Option<Listing>,
    /// The last test of the permissions, by project; empty before the first one.
    pub(crate) preflights: Vec<Preflight>,
    /// Begin of the last completed list.
    pub(crate) listed_from: Option<Instant>,
    /// Hash of the last list whose changes are in the history.
    pub(crate) recorded: Option<u64>,
    pub(crate) reconcile_requested_at: Option<String>,
    pub(crate) problem: Option<ObjectProblem>,
}

#[derive(Debug)]
pub(super) struct ProviderState {
    /// The uid of the object; none without a cluster.
    pub(crate) uid: Option<String>,
    pub(crate) spec: IdentityProviderSpec,
    /// True when the people stored under its name belong to a former object.
    pub(crate) former: bool,
    pub(crate) generation: i64,
    pub(crate) created: Timestamp,
    pub(crate) reconcile_requested_at: Option<String>,
    pub(crate) problem: Option<ObjectProblem>,
}

#[derive(Debug)]
pub(super) struct MappingState {
    /// The uid of the object; none without a cluster.
    pub(crate) uid: Option<String>,
    pub(crate) generation: i64,
    pub(crate) created: Timestamp,
    pub(crate) spec: RoleMappingSpec,
    /// Groups in the annotation `rolecall.dev/accept-group`.
    pub(crate) accepted: BTreeSet<GroupId>,
    /// Hashes of held plans in the annotation `rolecall.dev/release`.
    pub(crate) released: BTreeSet<String>,
    /// True when the annotation `rolecall.dev/adopt` is `true`.
    pub(crate) adopts: bool,
    /// The annotation `rolecall.dev/reconcile-requested-at`.
    pub(crate) reconcile_requested_at: Option<String>,
    pub(crate) problem: Option<ObjectProblem>,
}

/// The whole state.
pub(super) struct State {
    pub(crate) catalog: Catalog,
    pub(crate) frozen: Option<FreezeReason>,
    /// The check of policies by a new database; none when it is not new.
    pub(crate) first_look: Option<FirstLook>,
    /// The mode of the uninstall, if one was requested: nothing is granted any more, and all grants end.
    pub(crate) uninstall: Option<UninstallMode>,
    /// Time at which writing was first permitted.
    pub(crate) unfrozen_at: Option<Instant>,
    pub(crate) directory_seq: Seq,
    /// The last end of grants that has passed.
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) documents: BTreeMap<DocumentKey, DocumentState>,
    /// Documents that mappings reach and on which the last reconcile found nothing to do: nothing is wanted or owned there.
    pub(crate) idle: BTreeSet<DocumentKey>,
    /// Refusals of Google over all documents.
    pub(crate) refusals: Refusals,
    /// The documents whose state refers to a mapping.
    pub(crate) by_mapping: BTreeMap<MappingKey, BTreeSet<DocumentKey>>,
    pub(crate) targets: BTreeMap<TargetName, TargetState>,
    pub(crate) providers: BTreeMap<ProviderName, ProviderState>,
    pub(crate) mappings: BTreeMap<MappingKey, MappingState>,
    /// Differences that a former process knew, of documents that this one has not planned yet.
    pub(crate) known_drift: BTreeMap<DocumentKey, BTreeMap<DriftKey, Difference>>,
    /// Changes of differences that are not stored.
    pub(crate) unstored_drift: BTreeMap<DocumentKey, DriftChanges>,
    /// Number of orphaned grants of each document.
    pub(crate) orphaned: BTreeMap<DocumentKey, u64>,
    /// Since when each mapping lacks something on a document, as of the last fold of its status.
    pub(crate) lacking_since: BTreeMap<MappingKey, BTreeMap<DocumentKey, Timestamp>>,
    /// The mappings whose status has the condition `Frozen`, with their documents.
    pub(crate) frozen_mappings: BTreeMap<MappingKey, BTreeSet<DocumentKey>>,
    pub(crate) changed_mappings: BTreeSet<MappingKey>,
    pub(crate) changed_targets: BTreeSet<TargetName>,
    pub(crate) changed_providers: BTreeSet<ProviderName>,
    /// Times at which the passing of time alone may change a status.
    pub(crate) revisits: DueQueue<StatusOf, Timestamp>,
}

/// The object that a status belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum StatusOf {
    Mapping(MappingKey),
    Target(TargetName),
}

impl State {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            frozen: Some(FreezeReason::NotLoaded),
            first_look: None,
            uninstall: None,
            unfrozen_at: None,
            directory_seq: 0,
            ended_at: None,
            documents: BTreeMap::new(),
            idle: BTreeSet::new(),
            refusals: Refusals::default(),
            by_mapping: BTreeMap::new(),
            targets: BTreeMap::new(),
            providers: BTreeMap::new(),
            mappings: BTreeMap::new(),
            known_drift: BTreeMap::new(),
            unstored_drift: BTreeMap::new(),
            orphaned: BTreeMap::new(),
            lacking_since: BTreeMap::new(),
            frozen_mappings: BTreeMap::new(),
            changed_mappings: BTreeSet::new(),
            changed_targets: BTreeSet::new(),
            changed_providers: BTreeSet::new(),
            revisits: DueQueue::default(),
        }
    }

    pub(crate) fn document(&mut self, key: &DocumentKey) -> &mut DocumentState {
        if !self.documents.contains_key(key) {
            self.documents.insert(key.clone(), DocumentState::default());
        }
        self.documents.entry(key.clone()).or_default()
    }

    /// Records the trigger of dirty documents, under the lock under which they became dirty, so that a reconcile that
    /// sees the change knows its cause.
    pub(crate) fn note(&mut self, effects: &Effects, trigger: &Trigger) {
        for document in effects.dirty.keys() {
            self.idle.remove(document);
            self.document(document).note(trigger);
        }
    }

    /// The documents in which grants remain that nobody wants any more.
    pub(crate) fn with_remains(&self) -> Vec<DocumentKey> {
        let remains = self.documents.iter().filter(|(_, memory)| memory.drift.has_remains());
        remains.map(|(document, _)| document.clone()).collect()
    }

    /// The documents that a target counts in its status.
    pub(crate) fn documents_of<'a>(
        &'a self,
        name: &'a TargetName,
    ) -> impl Iterator<Item = (&'a DocumentKey, &'a DocumentState)> {
        let spec = self.targets.get(name).map(|target| &target.spec);
        let places: BTreeSet<(&str, &str)> = spec
            .into_iter()
            .flat_map(|spec| spec.locations.iter().map(|location| (spec.project.as_str(), location.as_str())))
            .collect();
        let within = move |(project, location)| {
            let is_there =
                move |document: &DocumentKey| document.project() == project && document.location() == location;
            let from = self.documents.range(DocumentKey::least_in(project, location)..);
            from.take_while(move |(document, _)| is_there(document))
        };
        places.into_iter().flat_map(within).filter(move |(document, _)| self.catalog.target_of(document) == Some(name))
    }

    /// The namespaces whose mappings want something of this document; many of them count as few.
    pub(crate) fn shares(&self, document: &DocumentKey) -> Vec<Share> {
        let known = self.documents.get(document).map(|memory| &memory.mappings);
        let mappings = self.catalog.reaching(document).chain(known.into_iter().flatten());
        let namespaces: BTreeSet<&str> = mappings.map(MappingKey::namespace).collect();
        namespaces.into_iter().take(SHARES).map(Share::from).collect()
    }

    /// The target that counts this document in its status, if any.
    pub(crate) fn target_of(&self, document: &DocumentKey) -> Option<TargetName> {
        self.catalog.target_of(document).cloned()
    }

    /// Phase of a mapping that is in force, or terminating.
    pub(crate) fn phase(&self, key: &MappingKey) -> Option<MappingPhase> {
        self.mappings.contains_key(key).then(|| self.catalog.phase(key)).flatten()
    }

    /// Puts the differences that a former process knew in force, as far as no reconcile may find them again.
    pub(crate) fn restore_drift(&mut self, known: BTreeMap<DocumentKey, BTreeMap<DriftKey, Difference>>) {
        for (document, known) in &known {
            if known.keys().any(|key| key.kind == DriftKind::GrantRemains) {
                self.document(document).drift.restore(known);
                let mappings = known.values().flat_map(|known| &known.concerns.mappings).cloned().collect();
                self.link(document, &mappings, true);
            }
        }
        self.known_drift = known;
    }

    /// Takes what a former process knew of a document, once this one has a plan of it.
    fn take_known_drift(&mut self, key: &DocumentKey, outcome: &ReconcileOutcome) -> BTreeMap<DriftKey, Difference> {
        let known = outcome.plan.as_ref().and_then(|_| self.known_drift.remove(key));
        known.unwrap_or_default()
    }

    fn store_drift(&mut self, document: &DocumentKey, changes: DriftChanges) {
        if changes != DriftChanges::default() {
            let earlier = self.unstored_drift.remove(document).unwrap_or_default();
            self.unstored_drift.insert(document.clone(), earlier.followed_by(changes));
        }
    }

    fn link(&mut self, document: &DocumentKey, mappings: &BTreeSet<MappingKey>, there: bool) {
        for mapping in mappings {
            if there {
                self.by_mapping.entry(mapping.clone()).or_default().insert(document.clone());
            } else if let Some(documents) = self.by_mapping.get_mut(mapping) {
                documents.remove(document);
                if documents.is_empty() {
                    self.by_mapping.remove(mapping);
                }
            }
        }
    }

    /// True while the inputs of the statuses are still being determined after a start.
    pub(crate) fn is_settling(&self) -> bool {
        self.frozen.is_none() && self.unfrozen_at.is_some_and(|at| at.elapsed() < SETTLING)
    }

    /// Marks the statuses that time alone may have changed for folding.
    pub(crate) fn take_revisits(&mut self, now: Timestamp) {
        while let Some(of) = self.revisits.pop(now) {
            self.revisits.complete(&of, None);
            match of {
                // A deleted object may have a successor of the same name, whose status others write.
                StatusOf::Mapping(key) if self.mappings.contains_key(&key) => {
                    self.changed_mappings.insert(key);
                }
                StatusOf::Target(name) if self.targets.contains_key(&name) => {
                    self.changed_targets.insert(name);
                }
                StatusOf::Mapping(_) | StatusOf::Target(_) => {}
            }
        }
    }

    /// Records the documents on which the status of a mapping has the condition `Frozen`, because their targets count
    /// them. Returns whether that changed.
    pub(crate) fn note_frozen(&mut self, key: &MappingKey, documents: BTreeSet<DocumentKey>) -> bool {
        let before = self.frozen_mappings.remove(key).unwrap_or_default();
        let changed = before != documents;
        if changed {
            for document in before.symmetric_difference(&documents) {
                let target = self.target_of(document);
                self.changed_targets.extend(target);
            }
        }
        if !documents.is_empty() {
            self.frozen_mappings.insert(key.clone(), documents);
        }
        changed
    }

    /// The documents on which the status of at least one mapping has the condition `Frozen`.
    pub(crate) fn frozen_documents(&self) -> BTreeSet<&DocumentKey> {
        self.frozen_mappings.values().flatten().collect()
    }

    /// True when the mapping is terminating.
    pub(crate) fn is_terminating(&self, key: &MappingKey) -> bool {
        self.phase(key).is_some_and(MappingPhase::is_terminating)
    }

    /// True when a running reconcile has this mapping in its plan.
    pub(crate) fn is_planned(&self, key: &MappingKey) -> bool {
        self.documents.values().any(|memory| memory.planned.contains(key))
    }

    /// Retries refused additions of these mappings, because one of them changed or a person requested it.
    pub(crate) fn retry_additions(&mut self, mappings: &BTreeSet<MappingKey>) {
        self.refusals.mappings_changed(mappings);
        for document in mappings.iter().filter_map(|key| self.by_mapping.get(key)).flatten() {
            if let Some(memory) = self.documents.get_mut(document) {
                memory.additions.retry();
                memory.removals.retry();
            }
        }
    }

    /// Ends the refusals of people in these groups, directly or through others, because the groups became members of a
    /// group.
    pub(crate) fn groups_added(&mut self, provider: &ProviderName, groups: &[GroupId]) {
        if !self.refusals.is_empty() && !groups.is_empty() {
            self.refusals.people_added(self.catalog.membership(provider, groups));
        }
    }

    /// Makes every document in which this mapping had a part due now.
    pub(crate) fn look_again(&self, key: &MappingKey) -> Effects {
        let documents = self.by_mapping.get(key).into_iter().flatten();
        Effects {
            dirty: documents.map(|document| (document.clone(), Urgency::Revocation)).collect(),
            ..Effects::default()
        }
    }

    /// True when the last reconcile found nothing to do on the document, and nothing is wanted there since. The catalog is
    /// consulted, because it changes before its dirty documents are recorded.
    pub(crate) fn is_idle(&self, key: &DocumentKey) -> bool {
        self.idle.contains(key) && !self.catalog.wants(key, &BTreeSet::new())
    }

    /// Whether a difference on the document is reported.
    pub(crate) fn reported(&self, document: &DocumentKey) -> impl Fn(&DriftKey) -> bool + use<> {
        let target = self.catalog.target_of(document).and_then(|name| self.targets.get(name));
        let (is_covered, rules) = (target.is_some(), target.and_then(|target| target.rules.find(document)));
        move |difference| is_covered && rules.as_ref().is_none_or(|rules| rules.reports(difference))
    }

    /// The interval between reads of a document, if its target has one.
    pub(crate) fn drift_interval(&self, document: &DocumentKey) -> Option<Duration> {
        self.targets.get(self.catalog.target_of(document)?)?.drift_interval
    }

    /// Changes with what the statuses of all mappings that reach the document say about it.
    pub(crate) fn shared(&self, key: &DocumentKey) -> u64 {
        self.documents.get(key).map_or(0, |memory| memory.drift.version)
    }

    /// True when the statuses of mappings without a part in the document's plan may be wrong about it: it could not be read,
    /// or a change waits.
    pub(crate) fn is_unclear(&self, key: &DocumentKey) -> bool {
        let unread = |memory: Option<&DocumentState>| {
            memory.is_none_or(|memory| memory.found.is_none()) && !self.idle.contains(key)
        };
        let memory = self.documents.get(key);
        unread(memory) || memory.is_some_and(|memory| memory.error.is_some() || memory.pending_since.is_some())
    }

    /// Applies the result of a reconcile that found nothing wanted and nothing owned.
    fn settle_idle(
        &mut self,
        key: &DocumentKey,
        mut touched: BTreeSet<MappingKey>,
        remaining: Option<&Live>,
    ) -> BTreeSet<MappingKey> {
        let memory = self.document(key);
        touched.extend(memory.drift.remained_of().cloned());
        memory.drift.idle(remaining);
        let changes = memory.drift.take_unstored();
        // Changes that arrived during the reconcile wait for the next one.
        let waits = memory.take_trigger();
        if memory.drift.has_remains() {
            memory.found = None;
            memory.error = None;
            memory.pending_since = None;
            memory.mappings.clear();
        } else {
            self.documents.remove(key);
        }
        if waits.is_some() {
            self.document(key).note(&waits);
        }
        self.store_drift(key, changes);
        self.link(key, &touched, false);
        if self.catalog.reaching(key).next().is_some() {
            self.idle.insert(key.clone());
        } else {
            self.idle.remove(key);
        }
        touched
    }

    /// Applies the results of a reconcile. Returns the mappings whose status may have changed.
    pub(crate) fn settle_document(
        &mut self,
        key: &DocumentKey,
        outcome: ReconcileOutcome,
        now: Timestamp,
    ) -> BTreeSet<MappingKey> {
        let unchecked_invoker = self.catalog.checks_no_invoker(key);
        let known = self.take_known_drift(key, &outcome);
        let memory = self.document(key);
        // A reconcile that failed before it had a plan leaves the mappings of the last plan in force. A mapping whose
        // last claim ended without a call (the service is gone) has no part in the plan any more.
        let mut touched = memory.mappings.clone();
        touched.append(&mut memory.planned);
        if outcome.idle {
            return self.settle_idle(key, touched, outcome.remaining.as_deref());
        }
        if let Some(error) = &outcome.error {
            memory.failures = memory.failures.saturating_add(1);
            memory.error = Some((error.reason(), error.to_string()));
            memory.failing_since.get_or_insert(now);
            memory.note(&outcome.trigger);
        } else {
            memory.failures = 0;
            memory.error = None;
            memory.failing_since = None;
            if outcome.unfinished {
                memory.note(&outcome.trigger);
            } else {
                // Changes that arrived while the reconcile wrote wait for the next one.
                memory.pending_since = memory.trigger.since;
            }
        }
        if let (true, None, Some(since), Some(plan)) =
            (outcome.written, &outcome.error, outcome.trigger.since, &outcome.plan)
        {
            let changed = plan.add.iter().chain(&plan.remove).flat_map(|step| &step.row.claims);
            memory.lags.extend(changed.map(|claim| (claim.mapping.clone(), (now.duration_since(since), now))));
        }
        memory.missing_permission = match &outcome.error {
            Some(EngineError::Target(error)) => error.missing_permission().map(str::to_owned),
            _ => None,
        };
        memory.forbidden_since = if outcome.forbidden.is_empty() { None } else { memory.forbidden_since.or(Some(now)) };
        memory.forbidden = outcome.forbidden;
        memory.drift.version += u64::from(memory.contests.expire(now));
        if let Some(plan) = outcome.plan {
            if matches!(outcome.outcome, Some(CallOutcome::Acknowledged { .. })) {
                memory.contests.reverted(&plan, now);
            }
            memory.held_since = if plan.held.is_empty() { None } else { memory.held_since.or(Some(now)) };
            memory.claim_counts = plan.counts(outcome.outcome.as_ref());
            let acknowledged = matches!(&outcome.outcome, Some(CallOutcome::Acknowledged { .. }));
            let counts = &memory.claim_counts;
            memory.contests.retain(|mapping| counts.get(mapping).is_some_and(|counts| counts.desired > 0));
            for (grant, _) in plan.reverted(outcome.outcome.as_ref()) {
                tracing::warn!(
                    target.document = %key, role = %grant.role,
                    "somebody else removed a grant of rolecall on {key}; it was granted again"
                );
            }
            memory.drift.update(&plan, outcome.outcome.as_ref(), unchecked_invoker, &known, now);
            memory.mappings = memory.claim_counts.keys().cloned().collect();
            memory.found = Some(LastPlan::of(&plan, acknowledged));
        }
        let changes = memory.drift.take_unstored();
        let now_there: BTreeSet<MappingKey> =
            memory.mappings.iter().chain(memory.drift.remained_of()).cloned().collect();
        self.idle.remove(key);
        self.link(key, &touched, false);
        self.link(key, &now_there, true);
        touched.extend(now_there);
        self.store_drift(key, changes);
        touched
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
