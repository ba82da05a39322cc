//! Plans one reconcile grant by grant: resolves unknown outcomes, finds out who still wants the grant, and derives the
//! step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::{
    AuditEntry, AuditOutcome, Claim, Concerns, DesiredGrant, Enforcement, FreezeReason, GrantKey, GrantState,
    IntentAction, LedgerChange, LedgerRow, Live, MappingKey, Reason, Subject,
};

use super::counts::{CountedAs, CountedGrant};
use super::settle::{Conclusions, Context, NOT_COMMITTED, Unsettled, action_word};
use super::{Cause, Evidence, INTENT_FENCE, Inputs, LostGrant, Observed, Plan, Step, grounds, spelling};

mod claims;
mod finish;
mod moves;
mod respelling;
mod unwanted;

use claims::Claims;

/// Audit reason: the revision does not show the outcome of a call, and the member is as the call would have left it.
const AMBIGUOUS: &str = Reason::AttributionAmbiguous.word();

/// Audit reason: the resource is no longer listed and Google answers that it does not exist.
const RESOURCE_GONE: &str = "ResourceGone";

/// Audit reason: the resource was deleted and re-created, so the policy in which the grant was written is gone.
pub(crate) const RESOURCE_RECREATED: &str = "ResourceRecreated";

/// The state of a plan under construction.
pub(super) struct Planner<'a> {
    inputs: &'a Inputs,
    live: &'a Live,
    rows: BTreeMap<&'a GrantKey, &'a Arc<LedgerRow>>,
    context: Context,
    ledger: Vec<LedgerChange>,
    audit: Vec<AuditEntry>,
    add: Vec<Step>,
    candidates: Vec<Step>,
    lost: Vec<LostGrant>,
    unowned: Vec<GrantKey>,
    remains: Vec<(GrantKey, BTreeSet<MappingKey>)>,
    remained_for: BTreeMap<GrantKey, Subject>,
    left: BTreeMap<GrantKey, Concerns>,
    orphaned: Vec<GrantKey>,
    observed: Observed,
    owned: Vec<Arc<LedgerRow>>,
    forbidden: Vec<GrantKey>,
    /// Removals of members under a forbidden spelling. The guard does not apply to them, since no mapping ever wanted
    /// them.
    outside: Vec<Step>,
    /// Rows that stay, as they are after the reconcile.
    staying: Vec<Arc<LedgerRow>>,
    sweep: BTreeSet<GrantKey>,
    concluded: Conclusions,
    /// The uid of the resource, where it is known.
    uid: Option<String>,
    /// Spellings that Google gave to other grants of rolecall.
    respellings: BTreeSet<GrantKey>,
    /// Spellings that replaced the member of a grant without a write by anybody.
    replaced: BTreeMap<GrantKey, BTreeSet<String>>,
    lines: Vec<CountedGrant>,
    unsettled: Vec<Unsettled>,
    fence: bool,
    recheck_at: Option<Timestamp>,
    /// Number of grants of a former resource of the same name.
    recreated: usize,
}

impl<'a> Planner<'a> {
    pub(super) fn new(inputs: &'a Inputs) -> Self {
        let live: &Live = &inputs.live;
        let rows: BTreeMap<&GrantKey, &Arc<LedgerRow>> = inputs.ledger.iter().map(|row| (&row.grant, row)).collect();
        let uid = inputs.resource_uid.clone().or_else(|| inputs.desired.resource_uid.clone());
        let replaced = match &inputs.revision {
            Some(revision) if revision.id == live.revision => spelling::took_their_place(&rows, live, revision),
            _ => BTreeMap::new(),
        };
        let respelled = rows.values().filter(|row| row.state == GrantState::Owned && !row.stored_as.is_empty());
        let respellings = respelled.flat_map(|row| row.spellings()).filter(|spelling| live.has(spelling)).collect();
        Self {
            inputs,
            live,
            rows,
            respellings,
            replaced,
            forbidden: vec![],
            outside: vec![],
            staying: vec![],
            sweep: BTreeSet::new(),
            concluded: Conclusions::default(),
            uid: uid.clone(),
            context: Context {
                document: inputs.document.clone(),
                resource_uid: uid,
                generations: inputs.desired.generations.clone(),
            },
            ledger: vec![],
            audit: vec![],
            add: vec![],
            candidates: vec![],
            lost: vec![],
            unowned: vec![],
            remains: vec![],
            remained_for: BTreeMap::new(),
            left: BTreeMap::new(),
            orphaned: vec![],
            observed: Observed::default(),
            owned: vec![],
            lines: vec![],
            unsettled: vec![],
            fence: false,
            recheck_at: None,
            recreated: 0,
        }
    }

    /// Plans every grant that is wanted, or in the ledger, or both.
    pub(super) fn run(mut self) -> Plan {
        let keys: BTreeSet<&GrantKey> = self.rows.keys().copied().chain(self.inputs.desired.grants.keys()).collect();
        let gone = self.inputs.desired.absent
            && self.live.is_absent()
            && !self.inputs.desired.enforcements.values().any(doubts_everything);
        for key in keys {
            if gone { self.forget(key) } else { self.grant(key) }
        }
        self.finish()
    }

    /// True when the read is current, or when nothing newer than it can exist.
    fn is_proven(&self) -> bool {
        self.inputs.evidence == Evidence::Current || self.live.is_absent()
    }

    /// True when this row was written in the policy of another resource than the one that was read.
    fn is_of_another_resource(&self, row: &LedgerRow) -> bool {
        let ours = self.inputs.revision.as_ref().is_some_and(|revision| revision.id == self.live.revision);
        let differs =
            matches!((row.resource_uid.as_deref(), self.inputs.resource_uid.as_deref()), (Some(a), Some(b)) if a != b);
        differs && !ours && !self.inputs.desired.enforcements.values().any(doubts_everything)
    }

    /// Drops a row whose policy is gone with its resource. A new resource of the same name starts afresh.
    fn forget(&mut self, key: &GrantKey) {
        let Some(row) = self.rows.get(key).copied() else { return };
        // A call that may still reach a re-created resource must remain attributable to rolecall.
        if let Some(at) = row.intent.as_ref().map(|intent| fence(intent.at))
            && at > self.inputs.now
        {
            self.recheck_at = Some(self.recheck_at.map_or(at, |earlier| earlier.min(at)));
            return;
        }
        self.note(row, "forget", AuditOutcome::Verified, Some(RESOURCE_GONE));
        self.ledger.push(LedgerChange::Remove(key.clone()));
    }

    fn grant(&mut self, key: &GrantKey) {
        let mut before = self.rows.get(key).copied();
        if let Some(row) = before.filter(|row| self.is_of_another_resource(row)) {
            self.note(row, "forget", AuditOutcome::Verified, Some(RESOURCE_RECREATED));
            self.recreated += 1;
            self.ledger.push(LedgerChange::Remove(key.clone()));
            self.rows.remove(key);
            before = None;
        }
        let want = self.inputs.desired.grants.get(key);
        let present = before.map_or_else(|| self.live.has(key), |row| self.is_present(row));
        let claims = self.claims(key, before.map(AsRef::as_ref), want, present);
        self.recheck_at = [self.recheck_at, claims.next_end].into_iter().flatten().min();
        let (base, row) = match (before, want) {
            (Some(before), _) => (before.clone(), self.resolve(before, present)),
            (None, Some(want)) if claims.write => {
                let row = Arc::new(fresh(key, want));
                (row.clone(), row)
            }
            (None, want) => return self.unrecorded(key, want, present),
        };
        if claims.kept.is_empty() {
            let theirs = present && row.state != GrantState::Owned;
            self.unwanted(base, row, claims, present);
            if let Some(want) = want {
                let counted_as = if theirs { CountedAs::Unowned } else { self.unwritten(key, Some(want)) };
                self.line(key, want.claims.keys(), counted_as, None);
            }
        } else {
            self.wanted(base, row, want, claims, present);
        }
    }

    fn is_present(&self, row: &LedgerRow) -> bool {
        self.replaced.contains_key(&row.grant) || spelling::is_present(row, self.live)
    }

    /// Adds a conclusion from the read. It is recorded immediately if the read is proven, and otherwise with the write
    /// that proves it. If that write is not permitted, it is not recorded.
    fn conclude(&mut self, change: LedgerChange, may_write: bool) {
        if self.is_proven() {
            self.ledger.push(change);
        } else {
            self.concluded.add(change, may_write);
        }
    }

    /// Adds the audit row of a conclusion.
    fn conclude_entry(&mut self, entry: AuditEntry) {
        if self.is_proven() { self.audit.push(entry) } else { self.concluded.note(entry) }
    }

    /// Settles what the revision shows about a call with an unknown outcome. An unchanged revision shows nothing: the
    /// call may still arrive, however late, and take effect. Such an intent stays until a write has moved the revision.
    fn resolve(&mut self, before: &Arc<LedgerRow>, present: bool) -> Arc<LedgerRow> {
        let Some(intent) = before.intent.clone() else { return before.clone() };
        let mut row = LedgerRow::clone(before);
        let moved = intent.revision_before != self.live.revision;
        let (outcome, reason) = match (intent.action, present, moved) {
            (IntentAction::Grant, true, true) if !intent.present_before => {
                row.state = GrantState::Owned;
                row.acknowledged_at = Some(self.inputs.now);
                row.verified_at = Some(self.inputs.now);
                (AuditOutcome::Ambiguous, AMBIGUOUS)
            }
            (IntentAction::Revoke, false, _) => {
                row.state = GrantState::Wanted;
                row.acknowledged_at = None;
                row.verified_at = None;
                row.revoking_since = None;
                row.held = false;
                (AuditOutcome::Ambiguous, AMBIGUOUS)
            }
            (IntentAction::Grant, false, false) | (IntentAction::Revoke, true, false) => return before.clone(),
            _ => (AuditOutcome::Failed, NOT_COMMITTED),
        };
        row.intent = None;
        let mut entry = self.context.entry(self.inputs.now, before, action_word(intent.action), outcome, Some(reason));
        entry.plan_hash = Some(intent.plan_hash);
        entry.revision_before = Some(intent.revision_before);
        entry.revision_after = moved.then(|| self.live.revision.clone());
        self.conclude_entry(entry);
        Arc::new(row)
    }

    /// Reports a grant that may not be written and that the ledger does not know. Nothing is recorded.
    fn unrecorded(&mut self, key: &GrantKey, want: Option<&DesiredGrant>, present: bool) {
        let counted_as = if present {
            self.unowned.push(key.clone());
            CountedAs::Unowned
        } else {
            self.unwritten(key, want)
        };
        self.line(key, want.iter().flat_map(|want| want.claims.keys()), counted_as, None);
    }

    /// Reports a wanted grant that is missing and may not be written: because of observe mode, or because the resource
    /// is not listed.
    fn unwritten(&mut self, key: &GrantKey, want: Option<&DesiredGrant>) -> CountedAs {
        let enforcements = &self.inputs.desired.enforcements;
        let mut claims = want.iter().flat_map(|want| want.claims.keys());
        if claims.any(|claim| matches!(enforcements.get(&claim.mapping), Some(Enforcement::Live { .. }))) {
            return CountedAs::Unlisted;
        }
        self.observed.add.push(key.clone());
        CountedAs::Observed
    }

    /// Plans a wanted grant. `base` is the row as stored; `row` is the same row with the outcome of an earlier call as
    /// shown by the read. Changes that do not depend on the read are made in both.
    #[expect(clippy::too_many_lines, reason = "one decision for each state of a row and its presence")]
    fn wanted(
        &mut self,
        mut base: Arc<LedgerRow>,
        mut row: Arc<LedgerRow>,
        want: Option<&DesiredGrant>,
        claims: Claims,
        present: bool,
    ) {
        let Claims { kept, wanted, write, regrant, observed, adopt, .. } = claims;
        let verified = (row.state == GrantState::Owned && present && row.acknowledged_at.is_some())
            .then(|| row.verified_at.unwrap_or(self.inputs.now));
        let newly = verified.is_some() && row.verified_at.is_none();
        let known_resource = self.is_proven() || self.inputs.resource_uid.is_some();
        for row in [&mut base, &mut row] {
            let verified_at = verified.or(row.verified_at);
            let identified = row.resource_uid.is_none() && row.state == GrantState::Owned && known_resource;
            let member = want.map_or(row.member.as_str(), |want| want.member.as_str());
            let is_same = row.claims == kept
                && grounds::are_current(row, want, &self.inputs.desired)
                && !(wanted && (row.revoking_since.is_some() || row.held))
                && row.member == member
                && row.left_at.is_none()
                && row.verified_at == verified_at
                && !(identified && self.uid.is_some());
            if is_same {
                continue;
            }
            let member = member.to_owned();
            let row = Arc::make_mut(row);
            row.claims.clone_from(&kept);
            grounds::update(row, want, &self.inputs.desired);
            if wanted {
                row.revoking_since = None;
                row.held = false;
            }
            row.member = member;
            row.left_at = None;
            row.verified_at = verified_at;
            if identified {
                row.resource_uid.clone_from(&self.uid);
            }
        }
        let may_write = self.may_write(&row) || write;
        if newly {
            self.note(&row, "grant", AuditOutcome::Verified, None);
        }
        self.respell(&mut row);
        let adopted = adopt && self.adopt(&mut row);
        let forbidden = want.is_some_and(|want| row.stored_as.iter().any(|member| !want.permits(member)));
        let mut cause = None;
        let mut swept = BTreeSet::new();
        let counted_as = match (row.state, present) {
            // Until the read is proven, the grant is somebody else's.
            (GrantState::Owned, true) if adopted && !self.is_proven() => {
                self.unowned.push(row.grant.clone());
                CountedAs::Unowned
            }
            (GrantState::Owned, true) => {
                if observed {
                    self.observed.remove.push(row.grant.clone());
                }
                self.owned.push(row.clone());
                if forbidden && may_write {
                    self.take_out(&row, &base);
                    CountedAs::Withheld
                } else if wanted && !spelling::is_whole(&row, self.live) {
                    // A foreign edit removed one of the jointly owned spellings, so one of their owners lacks access.
                    self.lost.push(LostGrant { grant: row.grant.clone(), first_seen: false, regranted: regrant });
                    cause = regrant.then_some(Cause::Missing);
                    if regrant { CountedAs::Pending } else { CountedAs::Missing }
                } else if row.verified_at.is_some() {
                    CountedAs::Verified
                } else {
                    CountedAs::Acknowledged
                }
            }
            (GrantState::Unowned | GrantState::Wanted | GrantState::Lost, true) => {
                if row.state != GrantState::Unowned {
                    Arc::make_mut(&mut row).state = GrantState::Unowned;
                }
                self.unowned.push(row.grant.clone());
                CountedAs::Unowned
            }
            (GrantState::Owned | GrantState::Lost, false) => {
                let first_seen = row.state == GrantState::Owned;
                let lost = Arc::make_mut(&mut row);
                lost.state = GrantState::Lost;
                lost.acknowledged_at = None;
                lost.verified_at = None;
                if first_seen {
                    if may_write {
                        swept = self.tombstones(&row);
                    }
                    let entry = self.context.entry(self.inputs.now, &row, "lost", AuditOutcome::Verified, None);
                    if swept.is_empty() { self.conclude_entry(entry) } else { self.concluded.note(entry) }
                }
                self.lost.push(LostGrant { grant: row.grant.clone(), first_seen, regranted: regrant });
                if regrant {
                    cause = Some(Cause::Missing);
                    CountedAs::Pending
                } else {
                    CountedAs::Missing
                }
            }
            (GrantState::Wanted | GrantState::Unowned, false) => {
                if row.state != GrantState::Wanted {
                    Arc::make_mut(&mut row).state = GrantState::Wanted;
                }
                if write && forbidden {
                    self.forbidden.push(row.grant.clone());
                    CountedAs::Withheld
                } else if write {
                    cause = Some(Cause::Wanted);
                    CountedAs::Pending
                } else if wanted {
                    self.unwritten(&row.grant, want)
                } else {
                    CountedAs::Frozen
                }
            }
        };
        if cause.is_none() {
            self.unsettled(&row, false, may_write);
        }
        let claimants = row.claims.iter().chain(want.iter().flat_map(|want| want.claims.keys()));
        self.line(&row.grant, claimants, counted_as, row.revoking_since);
        if let Some(cause) = cause {
            let (row, restore) = if self.is_proven() && swept.is_empty() {
                (LedgerRow::clone(&row), LedgerRow::clone(&row))
            } else {
                (LedgerRow { intent: row.intent.clone(), ..LedgerRow::clone(&base) }, LedgerRow::clone(&base))
            };
            self.add_step(cause, row, restore);
        }
        if swept.is_empty() {
            self.keep(base, row, may_write);
        } else {
            self.sweep_out(swept, base, row);
        }
    }

    /// Takes over a grant that somebody else made, if it stands under the very spelling that is wanted: other spellings
    /// may be the grants of other people. What is concluded from an unproven read waits for its proof, so this does too.
    /// Returns whether it was taken over.
    fn adopt(&mut self, row: &mut Arc<LedgerRow>) -> bool {
        if row.state == GrantState::Owned || row.intent.is_some() || !self.live.has(&row.grant) {
            return false;
        }
        let adopted = Arc::make_mut(row);
        adopted.state = GrantState::Owned;
        adopted.stored_as.clear();
        adopted.acknowledged_at = Some(self.inputs.now);
        adopted.verified_at = Some(self.inputs.now);
        adopted.resource_uid.clone_from(&self.uid);
        let reason = Some(Reason::Adopted.word());
        let entry = self.context.entry(self.inputs.now, row, "adopt", AuditOutcome::Verified, reason);
        self.conclude_entry(entry);
        true
    }

    /// Plans the removal of tombstones with the next write. Until that write is acknowledged, the grant stays owned: if
    /// the ledger forgot it earlier, the person would regain access when the account is restored.
    fn sweep_out(&mut self, tombstones: BTreeSet<GrantKey>, base: Arc<LedgerRow>, row: Arc<LedgerRow>) {
        self.sweep.extend(tombstones);
        self.staying.push(row.clone());
        self.record(base);
        self.concluded.add(LedgerChange::Put(Arc::unwrap_or_clone(row)), true);
    }

    /// True when one of these claims justifies a write, at least to prove the read.
    fn may_write(&self, row: &LedgerRow) -> bool {
        row.claims.iter().any(|claim| {
            let enforcement = self.inputs.desired.enforcements.get(&claim.mapping);
            matches!(enforcement, Some(Enforcement::Live { .. } | Enforcement::Ended { .. }))
        })
    }

    fn add_step(&mut self, cause: Cause, row: LedgerRow, restore: LedgerRow) {
        self.add.push(Step::new(IntentAction::Grant, cause, row, restore, BTreeSet::new()));
    }

    fn line<'c>(
        &mut self,
        grant: &GrantKey,
        claims: impl Iterator<Item = &'c Claim>,
        counted_as: CountedAs,
        revoking_since: Option<Timestamp>,
    ) {
        let mut subject = None;
        let mappings: BTreeSet<MappingKey> = claims
            .map(|claim| {
                subject.get_or_insert(claim.subject);
                claim.mapping.clone()
            })
            .collect();
        self.lines.push(CountedGrant { grant: grant.clone(), mappings, subject, counted_as, revoking_since });
    }

    /// Notes that an earlier call for this row may still take effect. This plan has no step for the row.
    fn unsettled(&mut self, row: &LedgerRow, forget: bool, may_write: bool) {
        if let Some(unsettled) = Unsettled::of(row, forget) {
            self.unsettled.push(unsettled);
            self.fence |= may_write && !self.live.is_absent();
        }
    }

    /// Records the row if it changed.
    fn record(&mut self, row: Arc<LedgerRow>) {
        let is_stored = |stored: &&Arc<LedgerRow>| Arc::ptr_eq(stored, &row) || **stored == row;
        if !self.rows.get(&row.grant).is_some_and(is_stored) {
            self.ledger.push(LedgerChange::Put(Arc::unwrap_or_clone(row)));
        }
    }

    /// Records a row that stays, and the conclusions from the read.
    fn keep(&mut self, base: Arc<LedgerRow>, row: Arc<LedgerRow>, may_write: bool) {
        self.staying.push(row.clone());
        if self.is_proven() {
            return self.record(row);
        }
        // A grant that is foreign either way does not justify a write: neither row would ever permit its removal.
        let theirs = |row: &LedgerRow| row.state != GrantState::Owned;
        let matters = !theirs(&base) || !theirs(&row) || base.intent != row.intent;
        let concluded = (row != base).then(|| LedgerChange::Put(Arc::unwrap_or_clone(row)));
        self.record(base);
        if let Some(change) = concluded {
            self.conclude(change, may_write && matters);
        }
    }

    fn note(&mut self, row: &LedgerRow, action: &str, outcome: AuditOutcome, reason: Option<&str>) {
        self.audit.push(self.context.entry(self.inputs.now, row, action, outcome, reason));
    }
}

/// True for freezes under which not even the ledger is cleaned up.
fn doubts_everything(enforcement: &Enforcement) -> bool {
    let doubt = [FreezeReason::NotLoaded, FreezeReason::StoreMismatch, FreezeReason::StoreRewound];
    matches!(enforcement, Enforcement::Frozen(reason) if doubt.contains(reason))
}

/// A new row for a grant that is wanted for the first time.
fn fresh(key: &GrantKey, want: &DesiredGrant) -> LedgerRow {
    LedgerRow {
        grant: key.clone(),
        member: want.member.as_str().to_owned(),
        condition: want.condition.clone(),
        state: GrantState::Wanted,
        intent: None,
        claims: BTreeSet::new(),
        grounds: BTreeMap::new(),
        acknowledged_at: None,
        verified_at: None,
        revoking_since: None,
        held: false,
        resource_uid: None,
        stored_as: BTreeSet::new(),
        left_at: None,
    }
}

/// Time after which a call made at `at` can no longer take effect.
fn fence(at: Timestamp) -> Timestamp {
    at.saturating_add(INTENT_FENCE).unwrap_or(Timestamp::MAX)
}
