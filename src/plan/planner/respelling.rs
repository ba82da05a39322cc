//! Tracks an account through its spellings.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{AuditOutcome, GrantKey, GrantState, IntentAction, LedgerRow};
use crate::plan::{Cause, PRINCIPAL_RESPELLED, Step, spelling};

use super::Planner;

impl Planner<'_> {
    /// Records the spelling that Google gave to the member, as far as the read shows it.
    pub(super) fn respell(&mut self, row: &mut Arc<LedgerRow>) {
        if self.inputs.resource_uid.is_some() && row.resource_uid != self.uid {
            Arc::make_mut(row).resource_uid.clone_from(&self.uid);
        }
        if let Some(spellings) = self.replaced.get(&row.grant) {
            Arc::make_mut(row).stored_as.clone_from(spellings);
            let mut entry = self.context.entry(self.inputs.now, row, "grant", AuditOutcome::Verified, None);
            entry.reason = Some(PRINCIPAL_RESPELLED.to_owned());
            self.conclude_entry(entry);
        } else if !row.stored_as.is_empty()
            && self.live.has(&row.grant)
            && !row.spellings().any(|spelling| self.live.has(&spelling))
        {
            Arc::make_mut(row).stored_as.clear();
        }
        // The member is there because another row of rolecall put it there under another name.
        if row.state != GrantState::Owned && row.intent.is_none() && self.respellings.contains(&row.grant) {
            let ours = Arc::make_mut(row);
            ours.state = GrantState::Owned;
            ours.acknowledged_at = Some(self.inputs.now);
            let mut entry = self.context.entry(self.inputs.now, row, "grant", AuditOutcome::Acknowledged, None);
            entry.reason = Some(PRINCIPAL_RESPELLED.to_owned());
            self.conclude_entry(entry);
        }
    }

    pub(super) fn tombstones(&self, row: &LedgerRow) -> BTreeSet<GrantKey> {
        spelling::tombstones(row, self.live, self.inputs.revision.as_ref().map(|revision| &revision.beside))
    }

    /// Removes a forbidden spelling with the next write.
    pub(super) fn take_out(&mut self, row: &LedgerRow, base: &LedgerRow) {
        let out = row.spellings().filter(|spelling| self.live.has(spelling)).collect();
        self.forbidden.push(row.grant.clone());
        let restore = if self.is_proven() { row.clone() } else { base.clone() };
        self.outside.push(Step::new(IntentAction::Revoke, Cause::SpellingForbidden, row.clone(), restore, out));
    }

    /// Completes the members of each removal. Where Google stores several grants under spellings that cannot be told
    /// apart, all of them are removed, and those that stay are written again in the same call.
    pub(super) fn leave_together(&mut self, remove: &mut [Step]) {
        let shared = |row: &LedgerRow| !row.stored_as.is_empty();
        let simple = !self.staying.iter().any(|row| shared(row)) && !remove.iter().any(|step| shared(&step.row));
        for step in remove.iter_mut() {
            if simple {
                if self.live.has(step.grant()) {
                    step.out.insert(step.grant().clone());
                }
                continue;
            }
            let stay: Vec<&LedgerRow> = self.staying.iter().map(AsRef::as_ref).collect();
            let (out, again) = spelling::leave_together(&step.row, &stay, self.live);
            step.out.extend(out);
            for grant in again {
                let Some(row) = self.staying.iter().find(|row| row.grant == grant).cloned() else { continue };
                if self.add.iter().any(|step| *step.grant() == grant) {
                    continue;
                }
                let base = match self.rows.get(&grant) {
                    Some(base) if !self.is_proven() => LedgerRow::clone(base),
                    _ => LedgerRow::clone(&row),
                };
                self.add_step(Cause::Respelled, Arc::unwrap_or_clone(row), base);
            }
        }
    }
}
