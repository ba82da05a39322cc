//! What the engine remembers in memory, behind one lock. Nothing in here must survive a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::apply::ObjectProblem;
use super::choice::Additions;
use super::error::EngineError;
use super::first_look::FirstLook;
use super::queue::DueQueue;
use super::reconcile::ReconcileOutcome;
use super::refusals::Refusals;
use crate::api::{CloudRunTargetSpec, DriftKind, IdentityProviderSpec, RoleMappingSpec};
use crate::catalog::{Catalog, Effects, Urgency};
use crate::model::{
    DocumentKey, FreezeReason, GrantKey, GroupId, MappingKey, MappingPhase, MemberKey, ProviderName, Reason, Seq,
    Subject, TargetName,
};
use crate::plan::{ClaimCounts, Held, LimitExceeded, Plan};
use crate::status::Failure;
use crate::store::UninstallMode;
use crate::target::{ErrorKind, TargetError};

/// How many event positions a pass names as its causes.
const CAUSES: usize = 32;
/// How many differences of one document are kept for the statuses.
pub(super) const SAMPLES: usize = 10;
/// How many remaining grants of one document are kept for the statuses.
const REMAINING: usize = 100;
/// How long after the start a status is kept as it was, until what it is folded from is known again: lists, and the
/// policies. A restart is no news.
const SETTLING: Duration = Duration::from_secs(30);

/// What made a document due: earliest time and event positions, until the pass that serves them.
#[derive(Debug, Clone, Default)]
pub(super) struct Trigger {
    /// When the first of the changes was accepted.
    pub since: Option<Timestamp>,
    /// Positions of the first events, bounded.
    pub seqs: Vec<Seq>,
}

impl Trigger {
    pub fn none() -> Self {
        Self::default()
    }

    pub fn event(seq: Seq, at: Timestamp) -> Self {
        Self { since: Some(at), seqs: vec![seq] }
    }

    pub fn at(since: Timestamp) -> Self {
        Self { since: Some(since), seqs: Vec::new() }
    }

    pub fn merge(&mut self, other: &Self) {
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

/// What a pass found, without policies and plans: those may be large, and there are many documents.
#[derive(Debug, Clone, Default)]
pub(super) struct LastPlan {
    pub held: Held,
    pub limit: Option<LimitExceeded>,
    pub foreign: usize,
    pub lost: usize,
    /// Grants of ours that are missing and not granted again.
    pub missing: usize,
    pub unowned: usize,
    /// A complete list lacks the resource although its policy answers.
    pub unlisted: bool,
    /// Some of the differences.
    pub samples: Vec<Sample>,
}

/// One grant that differs from what is wanted, and for whom it is claimed.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub kind: DriftKind,
    pub grant: GrantKey,
    pub subject: Option<Subject>,
}

impl LastPlan {
    fn of(plan: &Plan) -> Self {
        let missing = || plan.lost.iter().filter(|lost| !lost.regranted);
        let lost = missing().map(|lost| (DriftKind::Missing, &lost.grant));
        let unowned = plan.unowned.iter().map(|grant| (DriftKind::Unowned, grant));
        Self {
            held: plan.held.clone(),
            limit: plan.limit.clone(),
            foreign: plan.foreign,
            lost: plan.lost.len(),
            missing: missing().count(),
            unowned: plan.unowned.len(),
            unlisted: plan.unlisted,
            samples: lost
                .chain(unowned)
                .take(SAMPLES)
                .map(|(kind, grant)| Sample { kind, grant: grant.clone(), subject: plan.subject_of(grant) })
                .collect(),
        }
    }
}

/// What is remembered about one document.
#[derive(Debug, Default)]
pub(super) struct DocumentState {
    trigger: Trigger,
    /// The mappings that a pass under way has in its plan.
    pub planned: BTreeSet<MappingKey>,
    /// The plan that Google refused last, and why.
    pub refused: Option<(String, String)>,
    /// What reads of this document are known to be old, besides what the store remembers.
    pub reads: super::reads::ReadState,
    /// Failed passes in a row.
    pub failures: u32,
    /// What the last pass that had a plan found.
    pub found: Option<LastPlan>,
    /// What was wrong in the last pass: reason and message.
    pub error: Option<(Reason, String)>,
    /// Since when it is not in step.
    pub failing_since: Option<Timestamp>,
    /// What Google accepts and refuses of its additions.
    pub additions: Additions,
    /// Members that Google keeps under a spelling that is not permitted.
    pub forbidden: Vec<MemberKey>,
    /// Since when.
    pub forbidden_since: Option<Timestamp>,
    /// The permission that Google said is missing, in the last pass.
    pub missing_permission: Option<String>,
    /// Directory event → acknowledged, of the last change, and when that was.
    pub lag: Option<(SignedDuration, Timestamp)>,
    /// Grants of ours that were taken away and granted again, since the start, per mapping; and when the last of them was.
    pub reverted: BTreeMap<MappingKey, (u64, Timestamp)>,
    /// The counts of the last pass.
    pub claim_counts: BTreeMap<MappingKey, ClaimCounts>,
    /// Since when the guard holds something.
    pub held_since: Option<Timestamp>,
    /// The mappings that had a part in the last plan.
    pub mappings: BTreeSet<MappingKey>,
    /// Unowned grants whose last claim ended (`GrantRemains`), with the mappings that had wanted them; bounded.
    pub remains: BTreeMap<GrantKey, BTreeSet<MappingKey>>,
    /// For whom they were claimed.
    pub remained_for: BTreeMap<GrantKey, Subject>,
    /// Work is under way or waits: since when.
    pub pending_since: Option<Timestamp>,
}

impl DocumentState {
    pub fn note(&mut self, trigger: &Trigger) {
        self.trigger.merge(trigger);
        if self.pending_since.is_none() {
            self.pending_since = trigger.since;
        }
    }

    pub fn take_trigger(&mut self) -> Trigger {
        std::mem::take(&mut self.trigger)
    }
}

/// What the last list of a target said.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub unreachable: Vec<String>,
    pub trouble: Option<Failure>,
    pub complete_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct TargetState {
    /// Which object of that name; none without a cluster.
    pub uid: Option<String>,
    pub spec: CloudRunTargetSpec,
    pub generation: i64,
    pub created: Timestamp,
    pub discovery_interval: Duration,
    pub failures: u32,
    pub listing: Option<Listing>,
    /// Hash of the last list whose changes are in the history.
    pub recorded: Option<u64>,
    pub reconcile_requested_at: Option<String>,
    pub problem: Option<ObjectProblem>,
}

#[derive(Debug)]
pub(super) struct ProviderState {
    /// Which object of that name; none without a cluster.
    pub uid: Option<String>,
    pub spec: IdentityProviderSpec,
    /// The people stored under its name are those of a former object.
    pub former: bool,
    pub generation: i64,
    pub created: Timestamp,
    pub reconcile_requested_at: Option<String>,
    pub problem: Option<ObjectProblem>,
}

#[derive(Debug)]
pub(super) struct MappingState {
    /// Which object of that name; none without a cluster.
    pub uid: Option<String>,
    pub generation: i64,
    pub created: Timestamp,
    pub spec: RoleMappingSpec,
    /// Groups that the annotation `rolecall.dev/accept-group` names.
    pub accepted: BTreeSet<GroupId>,
    /// Hashes of held plans that the annotation `rolecall.dev/release` lets go.
    pub released: BTreeSet<String>,
    /// The annotation `rolecall.dev/reconcile-requested-at`.
    pub reconcile_requested_at: Option<String>,
    pub problem: Option<ObjectProblem>,
}

/// All of it.
pub(super) struct State {
    pub catalog: Catalog,
    pub frozen: Option<FreezeReason>,
    /// What a new database has seen of policies; none when it is not new.
    pub first_look: Option<FirstLook>,
    /// rolecall is to go: nothing is granted any more, and all that was granted ends.
    pub uninstall: Option<UninstallMode>,
    /// When writing was first allowed.
    pub unfrozen_at: Option<Instant>,
    pub directory_seq: Seq,
    pub documents: BTreeMap<DocumentKey, DocumentState>,
    /// What Google refused, over all documents.
    pub refusals: Refusals,
    /// The documents whose memory names a mapping.
    pub by_mapping: BTreeMap<MappingKey, BTreeSet<DocumentKey>>,
    pub targets: BTreeMap<TargetName, TargetState>,
    pub providers: BTreeMap<ProviderName, ProviderState>,
    pub mappings: BTreeMap<MappingKey, MappingState>,
    /// Grants of each document that were let go before they could be revoked.
    pub abandoned: BTreeMap<DocumentKey, u64>,
    /// Since when each mapping lacks something on a document, as far as its status was folded.
    pub lacking_since: BTreeMap<MappingKey, BTreeMap<DocumentKey, Timestamp>>,
    /// The mappings whose status says `Frozen`, with their documents.
    pub frozen_mappings: BTreeMap<MappingKey, BTreeSet<DocumentKey>>,
    pub changed_mappings: BTreeSet<MappingKey>,
    pub changed_targets: BTreeSet<TargetName>,
    pub changed_providers: BTreeSet<ProviderName>,
    /// When time alone may change a status.
    pub revisits: DueQueue<StatusOf, Timestamp>,
}

/// Whose status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum StatusOf {
    Mapping(MappingKey),
    Target(TargetName),
}

impl State {
    pub fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            frozen: Some(FreezeReason::NotLoaded),
            first_look: None,
            uninstall: None,
            unfrozen_at: None,
            directory_seq: 0,
            documents: BTreeMap::new(),
            refusals: Refusals::default(),
            by_mapping: BTreeMap::new(),
            targets: BTreeMap::new(),
            providers: BTreeMap::new(),
            mappings: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            lacking_since: BTreeMap::new(),
            frozen_mappings: BTreeMap::new(),
            changed_mappings: BTreeSet::new(),
            changed_targets: BTreeSet::new(),
            changed_providers: BTreeSet::new(),
            revisits: DueQueue::default(),
        }
    }

    pub fn document(&mut self, key: &DocumentKey) -> &mut DocumentState {
        if !self.documents.contains_key(key) {
            self.documents.insert(key.clone(), DocumentState::default());
        }
        self.documents.entry(key.clone()).or_default()
    }

    /// Notes what made documents dirty, under the lock under which they became so: a pass that sees the change knows why.
    pub fn note(&mut self, effects: &Effects, trigger: &Trigger) {
        for document in effects.dirty.keys() {
            self.document(document).note(trigger);
        }
    }

    /// The target that counts this document in its status, if any.
    pub fn target_of(&self, document: &DocumentKey) -> Option<TargetName> {
        self.catalog.target_of(document).cloned()
    }

    /// Phase of a mapping that is in force, or ends.
    pub fn phase(&self, key: &MappingKey) -> Option<MappingPhase> {
        self.mappings.contains_key(key).then(|| self.catalog.phase(key)).flatten()
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

    /// Is what the statuses are folded from still being found out after a start?
    pub fn is_settling(&self) -> bool {
        self.frozen.is_none() && self.unfrozen_at.is_some_and(|at| at.elapsed() < SETTLING)
    }

    /// The statuses that time alone may have changed are to be folded again.
    pub fn take_revisits(&mut self, now: Timestamp) {
        while let Some(of) = self.revisits.pop(now) {
            self.revisits.complete(&of, None);
            match of {
                // Of what is gone there may be a namesake, whose status others write.
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

    /// Notes on which documents the status of a mapping says `Frozen`: their targets count them. Answers whether that
    /// changed.
    pub fn note_frozen(&mut self, key: &MappingKey, documents: BTreeSet<DocumentKey>) -> bool {
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

    /// Every status is to be folded again.
    pub fn everything_changed(&mut self) {
        self.changed_mappings.extend(self.mappings.keys().cloned());
        self.changed_targets.extend(self.targets.keys().cloned());
        self.changed_providers.extend(self.providers.keys().cloned());
    }

    /// The documents on which the status of at least one mapping says `Frozen`.
    pub fn frozen_documents(&self) -> BTreeSet<&DocumentKey> {
        self.frozen_mappings.values().flatten().collect()
    }

    /// True when the claims of the mapping end.
    pub fn is_terminating(&self, key: &MappingKey) -> bool {
        self.phase(key).is_some_and(MappingPhase::is_terminating)
    }

    /// Does a pass that is under way have this mapping in its plan?
    pub fn is_planned(&self, key: &MappingKey) -> bool {
        self.documents.values().any(|memory| memory.planned.contains(key))
    }

    /// One of these mappings says something new, or somebody asks: what Google refused of them is tried again.
    pub fn retry_additions(&mut self, mappings: &BTreeSet<MappingKey>) {
        self.refusals.mappings_changed(mappings);
        for document in mappings.iter().filter_map(|key| self.by_mapping.get(key)).flatten() {
            if let Some(memory) = self.documents.get_mut(document) {
                memory.additions.retry();
            }
        }
    }

    /// Every document that this mapping had a part in, as due now.
    pub fn look_again(&self, key: &MappingKey) -> Effects {
        let documents = self.by_mapping.get(key).into_iter().flatten();
        Effects {
            dirty: documents.map(|document| (document.clone(), Urgency::Revocation)).collect(),
            ..Effects::default()
        }
    }

    /// Takes in what a pass found. Answers the mappings whose status may have changed.
    pub fn settle_document(
        &mut self,
        key: &DocumentKey,
        outcome: ReconcileOutcome,
        now: Timestamp,
    ) -> BTreeSet<MappingKey> {
        let memory = self.document(key);
        // A pass that failed before it had a plan leaves the mappings of the last plan in force; and a mapping whose last
        // claim went without a call (the service is gone) has no part in the plan any more.
        let mut touched = memory.mappings.clone();
        touched.append(&mut memory.planned);
        if outcome.idle {
            touched.extend(memory.remains.values().flatten().cloned());
            if memory.remains.is_empty() {
                self.documents.remove(key);
            } else {
                memory.found = None;
                memory.error = None;
                memory.pending_since = None;
                memory.mappings.clear();
            }
            self.link(key, &touched, false);
            return touched;
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
                // What came while the pass wrote waits for the next one.
                memory.pending_since = memory.trigger.since;
            }
        }
        if let (true, None, Some(since)) = (outcome.written, &outcome.error, outcome.trigger.since) {
            memory.lag = Some((now.duration_since(since), now));
        }
        memory.missing_permission = match &outcome.error {
            Some(EngineError::Target(TargetError { kind: ErrorKind::Denied { permission }, .. })) => permission.clone(),
            _ => None,
        };
        memory.forbidden_since = if outcome.forbidden.is_empty() { None } else { memory.forbidden_since.or(Some(now)) };
        memory.forbidden = outcome.forbidden;
        if let Some(plan) = outcome.plan {
            memory.held_since = if plan.held.is_empty() { None } else { memory.held_since.or(Some(now)) };
            for (grant, mappings) in &plan.remains {
                if memory.remains.len() < REMAINING {
                    memory.remains.entry(grant.clone()).or_default().extend(mappings.iter().cloned());
                    memory.remained_for.extend(plan.subject_of(grant).map(|subject| (grant.clone(), subject)));
                }
            }
            memory.claim_counts = plan.counts(outcome.outcome.as_ref());
            for (grant, mappings) in plan.reverted(outcome.outcome.as_ref()) {
                tracing::warn!(
                    target.document = %key, role = %grant.role,
                    "somebody took a grant of ours away on {key}; it was granted again"
                );
                for mapping in mappings {
                    let (count, at) = memory.reverted.entry(mapping).or_insert((0, now));
                    (*count, *at) = (count.saturating_add(1), now);
                }
            }
            memory.mappings = memory.claim_counts.keys().cloned().collect();
            memory.found = Some(LastPlan::of(&plan));
        }
        let now_there: BTreeSet<MappingKey> =
            memory.mappings.iter().chain(memory.remains.values().flatten()).cloned().collect();
        self.link(key, &touched, false);
        self.link(key, &now_there, true);
        touched.extend(now_there);
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Ceiling;

    #[test]
    fn a_change_that_comes_while_a_pass_writes_is_pending_until_the_pass_that_serves_it() {
        let mut state = State::new(Catalog::new(Ceiling::Enforce));
        let document: DocumentKey = "run:projects/p/locations/l/services/s".parse().unwrap();
        let first: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
        let later = first + SignedDuration::from_secs(1);
        state.document(&document).note(&Trigger::event(1, first));
        let served = state.document(&document).take_trigger();
        state.document(&document).note(&Trigger::event(2, later));
        state.settle_document(&document, ReconcileOutcome::new(served), later);
        assert_eq!(state.document(&document).pending_since, Some(later));
        let served = state.document(&document).take_trigger();
        state.settle_document(&document, ReconcileOutcome::new(served), later);
        assert_eq!(state.document(&document).pending_since, None);
    }
}
