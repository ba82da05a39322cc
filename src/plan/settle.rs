//! Ledger changes before and after the call, and the audit rows of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::{
    AcknowledgedWrite, AuditClaim, AuditEntry, AuditOutcome, Changes, DocumentKey, GrantKey, GrantState, Intent,
    IntentAction, LedgerChange, LedgerRow, Live, MappingKey, Revision, Role, Subject,
};

use super::spelling::{self, Respelling, Sent};
use super::{Cause, PRINCIPAL_RESPELLED, Plan, Step};

/// Outcome of the call of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// The target applied the changes.
    Acknowledged {
        /// The revision of the document that is now in force.
        revision: String,
    },
    /// Google refused the call definitively; nothing was changed.
    Refused {
        /// The stable reason word.
        reason: String,
    },
    /// The policy had changed since it was read; nothing was written.
    Conflict,
    /// Unknown: a timeout, a reset, or a 5xx after the request was sent.
    Unknown,
}

/// Audit reason: the call did not take effect.
pub(super) const NOT_COMMITTED: &str = "NotCommitted";

pub(super) fn action_word(action: IntentAction) -> &'static str {
    match action {
        IntentAction::Grant => "grant",
        IntentAction::Revoke => "revoke",
    }
}

/// A row without a step in this plan, with an intent of an earlier call that may still take effect.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unsettled {
    row: LedgerRow,
    intent: Intent,
    /// True when the intent is the only reason to keep the row.
    forget: bool,
}

impl Unsettled {
    pub(super) fn of(row: &LedgerRow, forget: bool) -> Option<Self> {
        let intent = row.intent.clone()?;
        Some(Self { row: row.clone(), intent, forget })
    }

    /// The change of the row once the call can no longer take effect.
    fn settled(&self) -> LedgerChange {
        if self.forget {
            LedgerChange::Remove(self.row.grant.clone())
        } else {
            LedgerChange::Put(LedgerRow { intent: None, ..self.row.clone() })
        }
    }
}

/// Conclusions from a read that is not proven yet.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Conclusions {
    changes: Vec<LedgerChange>,
    audit: Vec<AuditEntry>,
    /// True when one of them justifies a write of its own.
    worth_a_write: bool,
}

impl Conclusions {
    pub(super) fn add(&mut self, change: LedgerChange, may_write: bool) {
        self.changes.push(change);
        self.worth_a_write |= may_write;
    }

    pub(super) fn note(&mut self, entry: AuditEntry) {
        self.audit.push(entry);
    }

    pub(super) fn need_proof(&self) -> bool {
        self.worth_a_write
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Ledger changes and audit rows to record in one transaction after a call.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Settlement {
    /// Changes of the ledger.
    pub(crate) changes: Vec<LedgerChange>,
    /// Audit rows.
    pub(crate) audit: Vec<AuditEntry>,
    /// The write, if it was acknowledged.
    pub(crate) write: Option<AcknowledgedWrite>,
}

/// Fields common to all audit rows of one reconcile.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Context {
    pub(super) document: DocumentKey,
    pub(super) resource_uid: Option<String>,
    pub(super) generations: BTreeMap<MappingKey, i64>,
}

impl Context {
    pub(super) fn entry(
        &self,
        at: Timestamp,
        row: &LedgerRow,
        action: &str,
        outcome: AuditOutcome,
        reason: Option<&str>,
    ) -> AuditEntry {
        let mapping = row.claims.first().map(|claim| &claim.mapping).filter(|_| action != "lost");
        let actor = match mapping.map(|mapping| (mapping, self.generations.get(mapping))) {
            Some((mapping, Some(generation))) => format!("mapping:{mapping}@{generation}"),
            Some((mapping, None)) => format!("mapping:{mapping}"),
            None => "drift".to_owned(),
        };
        let subject = row.claims.first().map(|claim| subject_id(claim.subject));
        let claims = row.claims.iter().map(|claim| {
            let ground = row.grounds.get(claim);
            AuditClaim {
                mapping: claim.mapping.clone(),
                uid: ground.and_then(|ground| ground.mapping_uid.as_deref()).map(str::to_owned),
                generation: ground.and_then(|ground| ground.generation),
                subject: subject_id(claim.subject),
            }
        });
        AuditEntry {
            at,
            actor,
            claims: claims.collect(),
            request_id: None,
            cause_seqs: vec![],
            document: Some(self.document.clone()),
            resource_uid: self.resource_uid.clone(),
            action: action.to_owned(),
            grant: Some(row.grant.clone()),
            subject,
            plan_hash: None,
            revision_before: None,
            revision_after: None,
            outcome,
            reason: reason.map(str::to_owned),
        }
    }
}

fn subject_id(subject: Subject) -> String {
    subject.id().to_string()
}

impl Plan {
    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.remove.iter().chain(&self.add)
    }

    fn step_entry(&self, step: &Step, at: Timestamp, outcome: AuditOutcome, reason: Option<&str>) -> AuditEntry {
        let mut entry = self.context.entry(at, &step.row, action_word(step.action), outcome, reason);
        match step.cause {
            Cause::Missing => "drift".clone_into(&mut entry.actor),
            Cause::Expired => "expiry".clone_into(&mut entry.actor),
            Cause::Wanted
            | Cause::Leaver
            | Cause::Moved
            | Cause::MappingDeleted
            | Cause::NotWanted
            | Cause::SpellingForbidden
            | Cause::Respelled => {}
        }
        entry.plan_hash = Some(self.hash.clone());
        entry.revision_before = Some(self.live.revision.clone());
        entry
    }

    /// True when the outcome of an earlier call is not known.
    #[must_use]
    pub(crate) fn follows_unknown(&self) -> bool {
        let open = |step: &Step| step.row.intent.is_some() || step.restore.intent.is_some();
        !self.unsettled.is_empty() || self.steps().any(open)
    }

    /// What to record in one transaction before the call: the ledger changes of the plan, and an intent for every step.
    #[must_use]
    pub(crate) fn intend(&self, now: Timestamp) -> (Vec<LedgerChange>, Vec<AuditEntry>) {
        let stepped: BTreeSet<&GrantKey> = self.steps().map(Step::grant).collect();
        let mut changes: Vec<LedgerChange> = self
            .ledger
            .iter()
            .filter(|change| !matches!(change, LedgerChange::Put(row) if stepped.contains(&row.grant)))
            .cloned()
            .collect();
        let mut audit = self.audit.clone();
        for step in self.steps() {
            let intent = Intent {
                action: step.action,
                revision_before: self.live.revision.clone(),
                present_before: step.action == IntentAction::Revoke,
                at: now,
                plan_hash: self.hash.clone(),
            };
            changes.push(LedgerChange::Put(LedgerRow { intent: Some(intent), ..step.row.clone() }));
            audit.push(self.step_entry(step, now, AuditOutcome::Intended, Some(step.cause.reason())));
        }
        (changes, audit)
    }

    /// What to record in one transaction after the call. An unknown outcome records nothing: the intents stay, and the
    /// next reconcile derives the outcome from the revision. A refusal or a conflict restores each row as it was before
    /// the call, including the intent of an earlier call whose outcome is still unknown: that call may be the very one
    /// that changed the policy.
    #[must_use]
    pub(crate) fn settle(&self, outcome: &CallOutcome, now: Timestamp) -> (Vec<LedgerChange>, Vec<AuditEntry>) {
        let mut changes = Vec::new();
        let mut audit = Vec::new();
        if matches!(outcome, CallOutcome::Acknowledged { .. }) {
            changes.clone_from(&self.concluded.changes);
            audit.clone_from(&self.concluded.audit);
        }
        for step in self.steps() {
            let restored = || LedgerChange::Put(step.restore.clone());
            match outcome {
                CallOutcome::Unknown => {}
                CallOutcome::Refused { reason } => {
                    changes.push(restored());
                    audit.push(self.step_entry(step, now, AuditOutcome::Refused, Some(reason)));
                }
                CallOutcome::Conflict => {
                    changes.push(restored());
                    audit.push(self.step_entry(step, now, AuditOutcome::Failed, Some("Conflict")));
                }
                CallOutcome::Acknowledged { revision } => {
                    audit.extend(step.row.intent.as_ref().map(|earlier| self.not_committed(&step.row, earlier, now)));
                    changes.push(match step.action {
                        IntentAction::Revoke if step.cause == Cause::SpellingForbidden => {
                            LedgerChange::Put(LedgerRow {
                                state: GrantState::Wanted,
                                intent: None,
                                acknowledged_at: None,
                                verified_at: None,
                                ..step.row.clone()
                            })
                        }
                        IntentAction::Revoke => LedgerChange::Remove(step.grant().clone()),
                        IntentAction::Grant => LedgerChange::Put(self.granted(step, now)),
                    });
                    let mut entry = self.step_entry(step, now, AuditOutcome::Acknowledged, Some(step.cause.reason()));
                    entry.revision_after = Some(revision.clone());
                    audit.push(entry);
                }
            }
        }
        if let CallOutcome::Acknowledged { revision } = outcome
            && *revision != self.live.revision
        {
            for unsettled in &self.unsettled {
                changes.push(unsettled.settled());
                let mut entry = self.not_committed(&unsettled.row, &unsettled.intent, now);
                entry.revision_after = Some(revision.clone());
                audit.push(entry);
            }
        }
        (changes, audit)
    }

    fn granted(&self, step: &Step, now: Timestamp) -> LedgerRow {
        LedgerRow {
            state: GrantState::Owned,
            intent: None,
            acknowledged_at: Some(now),
            verified_at: None,
            revoking_since: None,
            held: false,
            resource_uid: self.context.resource_uid.clone().or_else(|| step.row.resource_uid.clone()),
            stored_as: BTreeSet::new(),
            ..step.row.clone()
        }
    }

    /// Like [`Plan::settle`] for a call that was acknowledged with this answer. Also records the spellings that Google
    /// gave to the members, and the versions that are now known to be older.
    #[must_use]
    pub(crate) fn settle_answer(&self, answer: &Live, now: Timestamp) -> Settlement {
        let outcome = CallOutcome::Acknowledged { revision: answer.revision.clone() };
        let (mut changes, mut audit) = self.settle(&outcome, now);
        let granted = self.add.iter().map(|step| (step.grant(), Arc::new(self.granted(step, now))));
        let mut rows: BTreeMap<&GrantKey, Arc<LedgerRow>> =
            self.staying.iter().map(|row| (&row.grant, row.clone())).chain(granted).collect();
        for step in self.remove.iter().filter(|step| step.cause == Cause::SpellingForbidden) {
            rows.remove(step.grant());
        }
        let sent_rows: Vec<Arc<LedgerRow>> = rows.values().cloned().collect();
        let sent_rows: Vec<&LedgerRow> = sent_rows.iter().map(AsRef::as_ref).collect();
        let partly = self.add.iter().filter(|step| step.cause == Cause::Missing && step.row.state == GrantState::Owned);
        let nothing = Changes::default();
        let changes_sent = self.changes.as_ref().unwrap_or(&nothing);
        let added = changes_sent.add.iter().map(|addition| &addition.grant).collect();
        let sent = Sent { read: &self.live, removed: &changes_sent.remove, added };
        let before = partly.map(|step| (step.grant(), &step.row)).collect();
        for Respelling { grant, stored_as, owned } in spelling::respelled(&sent, answer, &sent_rows, &before) {
            let Some(row) = rows.get_mut(&grant).map(Arc::make_mut) else { continue };
            row.stored_as = stored_as;
            let mut entry = self.context.entry(now, row, "grant", AuditOutcome::Verified, Some(PRINCIPAL_RESPELLED));
            if !owned {
                row.state = GrantState::Unowned;
                row.acknowledged_at = None;
                "forget".clone_into(&mut entry.action);
            }
            entry.revision_after = Some(answer.revision.clone());
            audit.push(entry);
            changes.push(LedgerChange::Put(row.clone()));
        }
        audit.extend(self.swept(answer, now));
        let beside = beside(answer, rows.values().map(AsRef::as_ref));
        Settlement { changes, audit, write: Some(self.acknowledged_write(answer, beside, now)) }
    }

    fn acknowledged_write(&self, answer: &Live, beside: BTreeSet<String>, now: Timestamp) -> AcknowledgedWrite {
        let intents = self.steps().flat_map(|step| [&step.row.intent, &step.restore.intent]).flatten();
        let unsettled = self.unsettled.iter().map(|unsettled| &unsettled.intent);
        let mut superseded: BTreeSet<String> =
            intents.chain(unsettled).map(|intent| intent.revision_before.clone()).collect();
        superseded.extend(self.superseded.clone());
        superseded.insert(self.live.revision.clone());
        superseded.remove(&answer.revision);
        let revision =
            Revision { id: answer.revision.clone(), beside, resource_uid: self.context.resource_uid.clone() };
        AcknowledgedWrite { revision, superseded, at: now }
    }

    /// Audit rows for the tombstones removed by this write.
    fn swept(&self, answer: &Live, now: Timestamp) -> Vec<AuditEntry> {
        self.sweep
            .iter()
            .map(|grant| AuditEntry {
                claims: vec![],
                at: now,
                actor: "drift".to_owned(),
                request_id: None,
                cause_seqs: vec![],
                document: Some(self.context.document.clone()),
                resource_uid: self.context.resource_uid.clone(),
                action: "revoke".to_owned(),
                grant: Some(grant.clone()),
                subject: None,
                plan_hash: Some(self.hash.clone()),
                revision_before: Some(self.live.revision.clone()),
                revision_after: Some(answer.revision.clone()),
                outcome: AuditOutcome::Acknowledged,
                reason: Some("AccountDeleted".to_owned()),
            })
            .collect()
    }

    /// Audit row for an earlier call on the same revision: this write was acknowledged, so that call did not and never
    /// will take effect.
    fn not_committed(&self, row: &LedgerRow, earlier: &Intent, now: Timestamp) -> AuditEntry {
        let action = action_word(earlier.action);
        let mut entry = self.context.entry(now, row, action, AuditOutcome::Failed, Some(NOT_COMMITTED));
        entry.plan_hash = Some(earlier.plan_hash.clone());
        entry.revision_before = Some(earlier.revision_before.clone());
        entry
    }
}

/// The members under managed roles that rolecall did not grant.
fn beside<'r>(answer: &Live, rows: impl Iterator<Item = &'r LedgerRow>) -> BTreeSet<String> {
    let ours: Vec<&LedgerRow> = rows.filter(|row| row.state == GrantState::Owned).collect();
    let spellings: BTreeSet<GrantKey> = ours.iter().flat_map(|row| row.spellings()).collect();
    let places: BTreeSet<(&Role, &crate::model::ConditionHash)> =
        ours.iter().map(|row| (&row.grant.role, &row.grant.condition)).collect();
    answer
        .grants()
        .filter(|(grant, _)| places.contains(&(&grant.role, &grant.condition)) && !spellings.contains(grant))
        .map(|(grant, _)| grant.digest())
        .collect()
}
