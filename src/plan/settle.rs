//! What is recorded before and after the call, and the audit rows of both.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::model::{
    AuditEntry, AuditOutcome, DocumentKey, GrantKey, GrantState, Intent, IntentAction, LedgerChange, LedgerRow,
    MappingKey, Subject,
};

use super::{Cause, Plan, Step};

/// How the call of a plan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallOutcome {
    /// Google returned 2xx and this etag.
    Acknowledged {
        /// The etag of the policy that is in force now.
        etag: String,
    },
    /// Google refused it for good; nothing was changed.
    Refused {
        /// The stable reason word.
        reason: String,
    },
    /// The policy had changed since it was read; nothing was changed.
    Conflict,
    /// Nobody knows: a timeout, a reset, or a 5xx after the request was sent.
    Unknown,
}

/// The call did not take effect.
pub(super) const NOT_COMMITTED: &str = "NotCommitted";

pub(super) fn action_word(action: IntentAction) -> &'static str {
    match action {
        IntentAction::Grant => "grant",
        IntentAction::Revoke => "revoke",
    }
}

/// A row of which no step is taken, with an intent of an earlier call that may still land.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unsettled {
    row: LedgerRow,
    intent: Intent,
    /// The intent is all that the row is remembered for.
    forget: bool,
}

impl Unsettled {
    pub(super) fn of(row: &LedgerRow, forget: bool) -> Option<Self> {
        Some(Self { row: row.clone(), intent: row.intent.clone()?, forget })
    }

    /// What becomes of the row once the call cannot land any more.
    fn settled(&self) -> LedgerChange {
        if self.forget {
            LedgerChange::Remove(self.row.grant.clone())
        } else {
            LedgerChange::Put(LedgerRow { intent: None, ..self.row.clone() })
        }
    }
}

/// What all audit rows of one pass have in common.
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
        let subject = row.claims.first().map(|claim| match claim.subject {
            Subject::User(id) => id.to_string(),
            Subject::Group(id) => id.to_string(),
        });
        AuditEntry {
            at,
            actor,
            request_id: None,
            cause_seqs: vec![],
            document: Some(self.document.clone()),
            resource_uid: self.resource_uid.clone(),
            action: action.to_owned(),
            grant: Some(row.grant.clone()),
            subject,
            plan_hash: None,
            etag_before: None,
            etag_after: None,
            outcome,
            reason: reason.map(str::to_owned),
        }
    }
}

impl Plan {
    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.remove.iter().chain(&self.add)
    }

    fn step_entry(&self, step: &Step, at: Timestamp, outcome: AuditOutcome, reason: Option<&str>) -> AuditEntry {
        let mut entry = self.context.entry(at, &step.row, action_word(step.action), outcome, reason);
        if step.cause == Cause::Missing {
            "drift".clone_into(&mut entry.actor);
        }
        entry.plan_hash = Some(self.hash.clone());
        entry.etag_before = Some(self.live.etag.clone());
        entry
    }

    /// What to record in one transaction before the call: the bookkeeping of the pass, and an intent for every step.
    #[must_use]
    pub fn intend(&self, now: Timestamp) -> (Vec<LedgerChange>, Vec<AuditEntry>) {
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
                etag_before: self.live.etag.clone(),
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
    /// next pass tells from the etag what became of them. A refusal or a conflict puts each row back as it was before
    /// the call, with the intent of an earlier call whose outcome is still unknown, if there is one: that call may be
    /// the very one that changed the policy.
    #[must_use]
    pub fn settle(&self, outcome: &CallOutcome, now: Timestamp) -> (Vec<LedgerChange>, Vec<AuditEntry>) {
        let mut changes = Vec::new();
        let mut audit = Vec::new();
        for step in self.steps() {
            let restored = || LedgerChange::Put(step.row.clone());
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
                CallOutcome::Acknowledged { etag } => {
                    audit.extend(step.row.intent.as_ref().map(|earlier| self.not_committed(&step.row, earlier, now)));
                    changes.push(match step.action {
                        IntentAction::Revoke => LedgerChange::Remove(step.grant().clone()),
                        IntentAction::Grant => LedgerChange::Put(LedgerRow {
                            state: GrantState::Owned,
                            intent: None,
                            acknowledged_at: Some(now),
                            verified_at: None,
                            revoking_since: None,
                            held: false,
                            ..step.row.clone()
                        }),
                    });
                    let mut entry = self.step_entry(step, now, AuditOutcome::Acknowledged, Some(step.cause.reason()));
                    entry.etag_after = Some(etag.clone());
                    audit.push(entry);
                }
            }
        }
        if let CallOutcome::Acknowledged { etag } = outcome
            && *etag != self.live.etag
        {
            for unsettled in &self.unsettled {
                changes.push(unsettled.settled());
                let mut entry = self.not_committed(&unsettled.row, &unsettled.intent, now);
                entry.etag_after = Some(etag.clone());
                audit.push(entry);
            }
        }
        (changes, audit)
    }

    /// A write with the etag of an earlier call was acknowledged, so that one was not done and never will be.
    fn not_committed(&self, row: &LedgerRow, earlier: &Intent, now: Timestamp) -> AuditEntry {
        let action = action_word(earlier.action);
        let mut entry = self.context.entry(now, row, action, AuditOutcome::Failed, Some(NOT_COMMITTED));
        entry.plan_hash = Some(earlier.plan_hash.clone());
        entry.etag_before = Some(earlier.etag_before.clone());
        entry
    }
}
