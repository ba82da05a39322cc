//! One reconcile of one document: read, plan, record the intent, write, settle.
//!
//! ```text
//! ledger ─┐
//! catalog ──┼─► plan ─► record intents ─► apply ─┬─ done ─────► settle: acknowledged
//! target ─┘                                    ├─ conflict ─► settle: not committed; read and plan again
//!                                              ├─ refused ──► settle: refused; the removals are written in the next attempt
//!                                              └─ unknown ──► intents stay; the next read decides
//! ```
//!
//! The process may end between any two steps. An intent that was recorded and not settled is resolved by the next
//! reconcile from the document's revision. If that has not changed, a no-op write changes the revision, so that the
//! late call fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::answer::{Answer, Follows, learn};
use super::choice;
use super::error::EngineError;
use super::lanes::{Lane, Purpose};
use super::pacer::Call;
use super::state::Trigger;
use super::{Inner, reads};
use crate::catalog::Ceiling;
use crate::model::{Changes, Claim, DocumentKey, LedgerRow, Live, MappingKey, MemberKey, Removal, Revision, Subject};
use crate::plan::{self, CallOutcome, Inputs, Plan, Settlement};
use crate::store::DocumentLedger;
use crate::target::{Backoff, ErrorClass, Snapshot, TargetError};

/// Number of times that one reconcile reads and plans again after a conflict, before the document is enqueued again.
const CONFLICTS: u32 = 6;

/// Between the reconciles of a document that somebody else keeps changing. Each of them writes once: it must not use up
/// the quota of its region.
const CONTENDED: Backoff = Backoff { cap: Duration::from_mins(1), ..Backoff::FAILURE };

/// The same while somebody should lose access there.
const CONTENDED_REMOVAL: Backoff =
    Backoff { floor: Duration::from_secs(2), base: Duration::from_secs(4), cap: Duration::from_secs(20) };

/// Outcome of a reconcile, for the queue and for the status.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one pass, each read once by its name")]
pub(super) struct ReconcileOutcome {
    /// The last plan; none when the policy could not be read or nothing concerns the document.
    pub(crate) plan: Option<Arc<Plan>>,
    /// The outcome of the last call of that plan; none when there was none.
    pub(crate) outcome: Option<CallOutcome>,
    /// True when a call was acknowledged.
    pub(crate) written: bool,
    /// The error, if any.
    pub(crate) error: Option<EngineError>,
    /// Earliest time of the next attempt, by lane; an attempt is made then.
    pub(crate) retry: [Option<Duration>; 2],
    /// Lanes to retry immediately, as far as the quota permits.
    pub(crate) again: Vec<Lane>,
    /// Time after which to reconcile again, because time will settle something.
    pub(crate) recheck: Option<Duration>,
    /// Members that Google stores under a spelling that is not permitted.
    pub(crate) forbidden: Vec<MemberKey>,
    /// True when somebody has to lose access here, or may have to.
    pub(crate) removals: bool,
    /// True when a part is left for another attempt.
    pub(crate) unfinished: bool,
    /// True when nothing concerns this document any more.
    pub(crate) idle: bool,
    /// The document then, if it was read because grants remain there.
    pub(crate) remaining: Option<Arc<Live>>,
    /// The trigger of the reconcile.
    pub(crate) trigger: Trigger,
}

impl ReconcileOutcome {
    pub(super) fn new(trigger: Trigger) -> Self {
        Self {
            plan: None,
            outcome: None,
            written: false,
            error: None,
            retry: [None; 2],
            again: Vec::new(),
            recheck: None,
            forbidden: Vec::new(),
            removals: false,
            unfinished: false,
            idle: false,
            remaining: None,
            trigger,
        }
    }
}

impl ReconcileOutcome {
    /// The outcome of a reconcile that failed because of a defect of this program.
    pub(super) fn broken(problem: &str) -> Self {
        tracing::error!(problem, "a reconcile failed because of a defect of this program");
        let delay = Backoff::FAILURE.cap;
        Self {
            error: Some(EngineError::Internal(problem.to_owned())),
            retry: [Some(delay); 2],
            ..Self::new(Trigger::none())
        }
    }
}

impl ReconcileOutcome {
    /// Records what a new plan says before it is carried out.
    fn planned(&mut self, plan: &Plan, now: Timestamp) {
        (self.plan, self.outcome) = (None, None);
        self.forbidden = plan.forbidden.iter().map(|grant| grant.member.clone()).collect();
        self.removals = !plan.remove.is_empty();
        self.recheck = plan.recheck_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO));
    }

    /// The class of the target's last answer, if that is the error.
    pub(super) fn class(&self) -> Option<ErrorClass> {
        match &self.error {
            Some(EngineError::Target(error)) => Some(error.class()),
            _ => None,
        }
    }
}

/// After a refusal a person has to act, so frequent retries are useless.
const REFUSED: Backoff = Backoff { cap: Duration::from_mins(5), ..Backoff::FAILURE };

/// An outdated read is repeated until it is current, which takes seconds.
const STALE: Backoff = Backoff { cap: Duration::from_secs(5), ..Backoff::CONFLICT };
/// Somebody keeps access as long as a removal is not written, so it is retried more often than anything else.
const REMOVAL: Backoff = Backoff { cap: Duration::from_secs(10), ..Backoff::FAILURE };

/// The same after a refusal.
const REMOVAL_REFUSED: Backoff = Backoff { cap: Duration::from_secs(30), ..Backoff::FAILURE };

/// The result of one write.
enum Written {
    Acknowledged,
    Conflict(TargetError),
    Failed(EngineError),
    /// The guard holds these removals, so nothing was written.
    Held(BTreeSet<Removal>),
}

/// A plan, and what it was made from.
struct Prepared {
    inputs: Inputs,
    plan: Arc<Plan>,
    read: Snapshot,
    /// True while the guard has not decided about the plan's removals.
    undecided: bool,
}

impl Prepared {
    fn new(mut inputs: Inputs, read: Snapshot, guarded: bool, trigger: &Trigger) -> Self {
        let plan = planned(&mut inputs, trigger);
        // An uninstall applies to all grants, without the guard.
        let undecided = guarded && plan.guarded;
        Self { inputs, plan, read, undecided }
    }

    /// Plans again with the removals that the guard holds.
    fn decided(&mut self, held: BTreeSet<Removal>, trigger: &Trigger) {
        self.undecided = false;
        if !held.is_empty() {
            self.inputs.held = held;
            self.plan = planned(&mut self.inputs, trigger);
        }
    }
}

pub(super) async fn run(inner: &Inner, document: &DocumentKey, lane: Lane) -> ReconcileOutcome {
    let (trigger, failures) = {
        let mut state = inner.state();
        let memory = state.document(document);
        (memory.take_trigger(), memory.failures)
    };
    let mut reconciled = ReconcileOutcome::new(trigger);
    reconciled.removals = lane == Lane::Removal;
    // A document that conflicted last time has not become easier to write by waiting.
    let most = if failures == 0 { CONFLICTS } else { 1 };
    match attempt(inner, document, most, &mut reconciled).await {
        Ok(()) => {
            inner.metrics.syncs.inc([if reconciled.written { "Written" } else { "Unchanged" }]);
        }
        Err(error) => {
            back_off(&mut reconciled, &error, failures, inner.random.fraction());
            let delay = reconciled.retry.into_iter().flatten().min().unwrap_or_default();
            tracing::warn!(
                target.document = %document, reason = %error.reason(), attempt = failures,
                "cannot reconcile {document}: {error}; next attempt in {delay:.1?}"
            );
            inner.metrics.syncs.inc([error.reason().word()]);
            reconciled.error = Some(error);
        }
    }
    reconciled
}

/// Sets the next attempt of either lane after an error. A lane without removals does not wait for one.
fn back_off(reconciled: &mut ReconcileOutcome, error: &EngineError, failures: u32, random: f64) {
    let (removal, addition) = match error {
        // All documents of the region wait for the same quota.
        EngineError::Target(error) if error.class() == ErrorClass::Throttle => {
            if failures < 2 {
                reconciled.again.push(Lane::Addition);
                if reconciled.removals {
                    reconciled.again.push(Lane::Removal);
                }
                return;
            }
            // The pace of the region does not help this one: its calls are refused for a reason of their own.
            let (removal, addition) = (REMOVAL.delay(failures, random), Backoff::FAILURE.delay(failures, random));
            reconciled.retry = [reconciled.removals.then_some(removal), Some(addition)];
            return;
        }
        // The time to wait is known there.
        EngineError::ForeignMember { .. } => {
            reconciled.retry[Lane::Removal as usize] =
                reconciled.removals.then(|| REMOVAL_REFUSED.delay(failures, random));
            return;
        }
        EngineError::Target(error) if error.is_not_found() => (REFUSED, REFUSED),
        EngineError::Target(error) if error.class() == ErrorClass::Definitive => (REMOVAL_REFUSED, REFUSED),
        EngineError::Target(error) if error.is_conflict() => (CONTENDED_REMOVAL, CONTENDED),
        EngineError::StaleRead => (STALE, STALE),
        _ => (REMOVAL, Backoff::FAILURE),
    };
    reconciled.retry =
        [reconciled.removals.then(|| removal.delay(failures, random)), Some(addition.delay(failures, random))];
}

async fn attempt(
    inner: &Inner,
    document: &DocumentKey,
    most: u32,
    reconciled: &mut ReconcileOutcome,
) -> Result<(), EngineError> {
    let mut attempt = 0;
    loop {
        let Some(mut prepared) = prepare(inner, document, reconciled).await? else { return Ok(()) };
        let written = loop {
            reconciled.planned(&prepared.plan, inner.clock.now());
            match execute(inner, document, &prepared, reconciled).await? {
                Written::Held(held) => prepared.decided(held, &reconciled.trigger),
                written => break written,
            }
        };
        match written {
            Written::Acknowledged | Written::Held(_) => return Ok(()),
            Written::Conflict(error) if attempt + 1 == most => return Err(error.into()),
            Written::Conflict(_) => {}
            Written::Failed(error) => return Err(error),
        }
        let pause = Backoff::CONFLICT.delay(attempt, inner.random.fraction());
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

fn planned(inputs: &mut Inputs, trigger: &Trigger) -> Arc<Plan> {
    let mut plan = plan::plan(inputs);
    for entry in &mut plan.audit {
        entry.cause_seqs.extend_from_slice(&trigger.seqs);
    }
    Arc::new(plan)
}

/// Time after which a policy that could not be read for a first look is read again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Reads the inputs and plans; none: nothing concerns this document.
async fn prepare(
    inner: &Inner,
    document: &DocumentKey,
    reconciled: &mut ReconcileOutcome,
) -> Result<Option<Prepared>, EngineError> {
    // A document that was planned before probably has to be planned again, so it is requested while the ledger is read.
    let (known, remains, first_look) = {
        let state = inner.state();
        let memory = state.documents.get(document);
        let known = memory.is_some_and(|memory| memory.found.is_some());
        (known, memory.is_some_and(|memory| memory.drift.has_remains()), state.is_first_look(document))
    };
    let (ledger, early) = if known {
        let (ledger, answer) = tokio::join!(inner.store.document_ledger(document), inner.snapshot(document));
        (ledger?, Some(answer))
    } else {
        (inner.store.document_ledger(document).await?, None)
    };
    let claimants: BTreeSet<MappingKey> =
        ledger.rows.iter().flat_map(|row| &row.claims).map(|claim| claim.mapping.clone()).collect();
    let first_look = first_look && ledger.rows.is_empty();
    let is_idle = || ledger.rows.is_empty() && !inner.state().catalog.wants(document, &claimants);
    if early.is_none() && !first_look && !remains && is_idle() {
        reconciled.idle = true;
        return Ok(None);
    }
    let answer = match early {
        Some(answer) => answer,
        None => inner.snapshot(document).await,
    };
    if first_look && look_first(inner, document, &claimants, &answer, reconciled) {
        inner.doubt(document).await?;
        reconciled.again.push(Lane::Removal);
        return Ok(None);
    }
    if is_idle() {
        reconciled.idle = true;
        reconciled.remaining = match answer {
            Ok(snapshot) => Some(snapshot.live),
            Err(error) => error.is_not_found().then(Arc::default),
        };
        return Ok(None);
    }
    let (snapshot, read) = match answer {
        Ok(snapshot) => {
            let read = reads::evaluate(inner, document, &ledger, &snapshot.live).await?;
            (snapshot, read)
        }
        Err(error) if error.is_not_found() => {
            if !inner.state().catalog.lacks(document) {
                inner.list_again(document);
                return Err(error.into());
            }
            // The complete list lacks the resource and Google answers that it does not exist: its policy is gone too.
            (Snapshot::absent(), reads::Read::GONE)
        }
        Err(error) => return Err(error.into()),
    };
    prepared(inner, document, ledger, &claimants, (snapshot, read), reconciled).await.map(Some)
}

/// Looks for grants of a lost database in a document. Returns whether the database is in doubt.
fn look_first(
    inner: &Inner,
    document: &DocumentKey,
    claimants: &BTreeSet<MappingKey>,
    answer: &Result<Snapshot, TargetError>,
    reconciled: &mut ReconcileOutcome,
) -> bool {
    let Ok(read) = answer else {
        // Where nothing is wanted, nothing else enqueues it again.
        reconciled.recheck = Some(LOOK_AGAIN);
        return false;
    };
    let mut state = inner.state();
    state.follow_clock(inner.clock.now());
    let mut desired = state.catalog.desired(document, claimants);
    if inner.config.ceiling == Ceiling::Observe {
        // Nothing is written, not even the end of a grant.
        desired.as_of = Timestamp::MIN;
        desired.ended.clear();
    }
    state.look(document, &read.live, &desired)
}

/// Plans, after reading which resource the document belongs to where the plan depends on that.
async fn prepared(
    inner: &Inner,
    document: &DocumentKey,
    ledger: DocumentLedger,
    claimants: &BTreeSet<MappingKey>,
    (snapshot, mut read): (Snapshot, reads::Read),
    reconciled: &mut ReconcileOutcome,
) -> Result<Prepared, EngineError> {
    let live = snapshot.live.clone();
    let ledger = (ledger.rows.into_iter().map(Arc::new).collect(), ledger.revision);
    let (inputs, guarded) = look_up(inner, document, ledger, claimants, (&live, &read), reconciled);
    let prepared = Prepared::new(inputs, snapshot, guarded, &reconciled.trigger);
    let Prepared { inputs, plan, .. } = &prepared;
    if !read.depends_on_the_resource(plan, inputs.revision.as_ref(), &inputs.ledger) {
        return Ok(prepared);
    }
    let uid = reads::uid(inner, document).await?;
    let Prepared { inputs, read: snapshot, .. } = prepared;
    read.identified(uid, inputs.revision.as_ref(), &inputs.ledger);
    let ledger = (inputs.ledger, inputs.revision);
    let (inputs, guarded) = look_up(inner, document, ledger, claimants, (&live, &read), reconciled);
    Ok(Prepared::new(inputs, snapshot, guarded, &reconciled.trigger))
}

/// Looks up what is wanted, after the document was read and however long that took, so that people who left meanwhile
/// get no new grants. Returns the inputs of the planner, and whether the guard applies.
fn look_up(
    inner: &Inner,
    document: &DocumentKey,
    (rows, revision): (Vec<Arc<LedgerRow>>, Option<Revision>),
    claimants: &BTreeSet<MappingKey>,
    (live, read): (&Arc<Live>, &reads::Read),
    reconciled: &mut ReconcileOutcome,
) -> (Inputs, bool) {
    let mut state = inner.state();
    let desired = state.catalog.desired(document, claimants);
    // A mapping that is deleted from here on is not forgotten before this reconcile has ended.
    let planned = desired.enforcements.keys().cloned().collect();
    let memory = state.document(document);
    memory.planned = planned;
    // Triggers recorded since the start of the reconcile are served by it, too.
    reconciled.trigger.merge(&memory.take_trigger());
    // Observe mode writes nothing, not even for leavers.
    let has_left = |row: &LedgerRow, claim: &Claim| match claim.subject {
        Subject::User(id) => {
            let provider = row.grounds.get(claim).map(|ground| &ground.provider);
            inner.config.ceiling == Ceiling::Enforce && state.catalog.has_left(id, provider)
        }
        Subject::Group(_) => false,
    };
    let claims = rows.iter().flat_map(|row| row.claims.iter().map(move |claim| (row, claim)));
    let leavers = claims.clone().filter(|(row, claim)| has_left(row, claim)).map(|(_, claim)| claim.subject).collect();
    let grounds = claims.filter_map(|(row, claim)| Some((&row.grant.member, claim, row.grounds.get(claim)?)));
    let lapsed = state.catalog.lapsed(grounds);
    let guarded = state.uninstall.is_none();
    let inputs = Inputs {
        document: document.clone(),
        desired,
        ledger: rows,
        live: live.clone(),
        evidence: read.evidence,
        revision,
        resource_uid: read.resource_uid.clone(),
        now: inner.clock.now(),
        held: BTreeSet::new(),
        leavers,
        lapsed,
    };
    (inputs, guarded)
}

/// Writes the chosen part of the plan, and records what the target's answer shows about the additions.
async fn execute(
    inner: &Inner,
    document: &DocumentKey,
    prepared: &Prepared,
    reconciled: &mut ReconcileOutcome,
) -> Result<Written, EngineError> {
    let plan = &prepared.plan;
    if prepared.undecided && plan.changes.is_none() {
        return Ok(Written::Held(inner.held(document, plan).await?));
    }
    let lane = if plan.remove.is_empty() { Lane::Addition } else { Lane::Removal };
    let writes = plan.changes.is_some() && inner.config.ceiling == Ceiling::Enforce;
    // Before anything is chosen or recorded: the choice assumes that it is carried out.
    let admitted = !writes || inner.admit_write(document, lane).await;
    let choice = choice::choose(inner, document, plan, admitted);
    if prepared.undecided && !choice.is_whole() {
        return Ok(Written::Held(inner.held(document, plan).await?));
    }
    if let Some(wait) = choice.removals_wait {
        inner.queue().enqueue(document, Lane::Removal, Purpose::Write, Instant::now() + wait);
    }
    let carried_out = choice.carried_out(plan);
    reconciled.again.extend(choice.again);
    reconciled.recheck = [reconciled.recheck, choice.wait].into_iter().flatten().min();
    reconciled.unfinished = choice.waits || choice.again.is_some();
    // Only the whole plan records its other changes together with its intents.
    if (carried_out.is_none() || !choice.is_whole()) && !(plan.ledger.is_empty() && plan.audit.is_empty()) {
        inner.store.record(document, plan.ledger.clone(), plan.audit.clone()).await?;
    }
    if let Some(spent) = choice.spent {
        inner.store.put_write_budget(document, spent).await?;
    }
    let Some(carried_out) = carried_out else {
        reconciled.plan = Some(choice.reported(plan));
        return Ok(Written::Acknowledged);
    };
    let asks = prepared.undecided.then_some(plan.asks.as_slice());
    let written = write(inner, document, &carried_out, (&prepared.read, asks), reconciled).await?;
    let answer = match &written {
        Written::Acknowledged => Answer::Acknowledged,
        Written::Failed(EngineError::Target(error)) => Answer::Failed(error),
        Written::Conflict(_) | Written::Failed(_) | Written::Held(_) => return Ok(written),
    };
    Ok(match learn(inner, document, &choice, &carried_out, &answer) {
        Follows::Done => written,
        Follows::Again(lane) => {
            reconciled.again.push(lane);
            reconciled.unfinished = true;
            if !reconciled.written {
                // The refused additions are handled in the next attempts: nothing has failed yet.
                reconciled.outcome = None;
            }
            Written::Acknowledged
        }
        Follows::Foreign(reason) => Written::Failed(EngineError::ForeignMember { reason }),
    })
}

/// Records the intents, calls, and settles. `asks`: the removals that the guard has to decide about, in the transaction
/// of the intents.
async fn write(
    inner: &Inner,
    document: &DocumentKey,
    plan: &Arc<Plan>,
    (read, asks): (&Snapshot, Option<&[Removal]>),
    reconciled: &mut ReconcileOutcome,
) -> Result<Written, EngineError> {
    let Some(changes) = &plan.changes else { return Ok(Written::Acknowledged) };
    let (intents, mut audit) = plan.intend(inner.clock.now());
    for entry in &mut audit {
        entry.cause_seqs.clone_from(&reconciled.trigger.seqs);
    }
    // The same plan that Google refused last time: its rows are written only if the result differs. Otherwise every
    // attempt would add the same rows to the audit.
    let repeated = inner.state().document(document).refused.as_ref().is_some_and(|(hash, _)| *hash == plan.hash);
    let withheld = if repeated { std::mem::take(&mut audit) } else { Vec::new() };
    let asks = asks.map(|asks| (asks.to_vec(), inner.config.limits));
    let held = inner.store.record_intents(document, intents, audit, asks).await?;
    if !held.is_empty() {
        return Ok(Written::Held(held));
    }
    let answer = inner.apply(document, read, changes).await;
    let (outcome, written) = match &answer {
        Ok(after) => (CallOutcome::Acknowledged { revision: after.live.revision.clone() }, Written::Acknowledged),
        Err(error) => {
            let error = error.clone();
            let outcome = match error.class() {
                ErrorClass::Conflict | ErrorClass::Retry | ErrorClass::Throttle => CallOutcome::Conflict,
                ErrorClass::Definitive => CallOutcome::Refused { reason: error.reason.word().to_owned() },
                ErrorClass::Unknown => CallOutcome::Unknown,
            };
            let written = if error.is_conflict() { Written::Conflict(error) } else { Written::Failed(error.into()) };
            (outcome, written)
        }
    };
    if matches!(written, Written::Acknowledged) {
        reconciled.written = true;
        inner.metrics.members.add(["add"], plan.add.len() as u64);
        inner.metrics.members.add(["remove"], plan.remove.len() as u64);
        let has_steps = !plan.add.is_empty() || !plan.remove.is_empty();
        if let Some(since) = reconciled.trigger.since.filter(|_| has_steps) {
            let change = if plan.remove.is_empty() { "addition" } else { "revocation" };
            let lag = Duration::try_from(inner.clock.now().duration_since(since)).unwrap_or_default();
            inner.metrics.propagation_seconds.observe([change], lag);
        }
    }
    if matches!(written, Written::Conflict(_)) {
        let only_proof = plan.add.is_empty() && plan.remove.is_empty();
        inner.state().document(document).reads.conflict(
            &plan.read().revision,
            plan.follows_unknown(),
            only_proof,
            inner.clock.now(),
        );
    }
    reconciled.outcome = Some(outcome.clone());
    reconciled.plan = Some(plan.clone());
    let Settlement { changes, mut audit, write } = if let Ok(after) = &answer {
        plan.settle_answer(&after.live, inner.clock.now())
    } else {
        let (changes, audit) = plan.settle(&outcome, inner.clock.now());
        Settlement { changes, audit, write: None }
    };
    for entry in &mut audit {
        entry.cause_seqs.clone_from(&reconciled.trigger.seqs);
    }
    let refused = match &outcome {
        CallOutcome::Refused { reason } => Some((plan.hash.clone(), reason.clone())),
        CallOutcome::Acknowledged { .. } | CallOutcome::Conflict | CallOutcome::Unknown => None,
    };
    let before = std::mem::replace(&mut inner.state().document(document).refused, refused.clone());
    let same = refused.is_some() && before == refused;
    let audit = if same { Vec::new() } else { withheld.into_iter().chain(audit).collect() };
    // If this fails the intents stay, and the next reconcile resolves them from the revision.
    inner.store.record_write(document, changes, audit, write).await?;
    if matches!(written, Written::Acknowledged) {
        tracing::info!(
            target.document = %document, plan.add = plan.add.len(), plan.remove = plan.remove.len(), plan.hash = %plan.hash,
            "{document} written: {} in, {} out", plan.add.len(), plan.remove.len()
        );
    }
    Ok(written)
}

impl Inner {
    async fn snapshot(&self, document: &DocumentKey) -> Result<Snapshot, TargetError> {
        self.call(document, Call::Read, self.target.read(document)).await
    }

    async fn apply(&self, document: &DocumentKey, read: &Snapshot, changes: &Changes) -> Result<Snapshot, TargetError> {
        self.call(document, Call::Write, self.target.apply(document, read, changes)).await
    }
}
