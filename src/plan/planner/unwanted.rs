//! The grants that no mapping wants any more: removed, left behind, or forgotten, each with its proof.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{
    AuditEntry, AuditOutcome, Claim, Enforcement, GrantState, IntentAction, LedgerChange, LedgerRow, MappingKey, Reason,
};
use crate::plan::counts::CountedAs;
use crate::plan::{Cause, Step, grounds};

use super::{Claims, Planner};

impl Planner<'_> {
    pub(super) fn unwanted(
        &mut self,
        mut base: Arc<LedgerRow>,
        mut row: Arc<LedgerRow>,
        claims: Claims,
        present: bool,
    ) {
        let Claims { ended, orphan, .. } = claims;
        for row in [&mut base, &mut row] {
            let row = Arc::make_mut(row);
            row.claims.clone_from(&ended);
            grounds::retain(row);
        }
        self.respell(&mut row);
        let tombstones = if row.state == GrantState::Owned { self.tombstones(&row) } else { BTreeSet::new() };
        match (row.state, present || !tombstones.is_empty()) {
            (GrantState::Owned, true) if orphan => {
                let entry = self.context.entry(self.inputs.now, &row, "forget", AuditOutcome::Verified, Some("Orphan"));
                self.orphaned.push(row.grant.clone());
                if base.state == GrantState::Owned {
                    self.audit.push(entry);
                    self.ledger.push(LedgerChange::Remove(row.grant.clone()));
                } else {
                    // Owned by what this read says of an earlier call: both are recorded with its proof, in this order.
                    self.gone(base, &row, LedgerChange::Remove(row.grant.clone()), Some(entry));
                }
            }
            (GrantState::Owned, true) => {
                self.owned.push(row.clone());
                let cause = self.cause(&row);
                let (row, restore) = (Arc::unwrap_or_clone(row), Arc::unwrap_or_clone(base));
                self.candidates.push(Step::new(IntentAction::Revoke, cause, row, restore, tombstones));
            }
            (_, true) => {
                let mappings: BTreeSet<MappingKey> = row.claims.iter().map(|claim| claim.mapping.clone()).collect();
                for spelling in row.spellings().filter(|spelling| self.live.has(spelling)) {
                    if let Some(claim) = row.claims.first() {
                        self.remained_for.insert(spelling.clone(), claim.subject);
                    }
                    self.remains.push((spelling, mappings.clone()));
                }
                if self.left(&row) {
                    self.leave(base, row);
                } else {
                    let entry = self.remains(&row, Reason::GrantRemains);
                    self.gone(base, &row, LedgerChange::Remove(row.grant.clone()), Some(entry));
                }
            }
            // A call that may still take effect: whatever it grants must remain attributable to rolecall.
            (_, false) if row.intent.is_some() => {
                self.unsettled(&row, row.state != GrantState::Owned, true);
                self.keep(base, row, true);
            }
            (_, false) => {
                let entry =
                    self.context.entry(self.inputs.now, &row, "forget", AuditOutcome::Verified, Some("AlreadyGone"));
                self.gone(base, &row, LedgerChange::Remove(row.grant.clone()), Some(entry));
            }
        }
    }

    /// True when everybody for whom the grant was wanted has left, and their mappings are still there to report it.
    fn left(&self, row: &LedgerRow) -> bool {
        let ended = |claim: &Claim| {
            matches!(self.inputs.desired.enforcements.get(&claim.mapping), Some(Enforcement::Ended { .. }))
        };
        let left = |claim: &Claim| self.inputs.leavers.contains(&claim.subject) && !ended(claim);
        !row.claims.is_empty() && row.claims.iter().all(left)
    }

    /// Keeps the row of a grant that somebody else made, so that the access of those who left is reported as long as it
    /// lasts.
    fn leave(&mut self, base: Arc<LedgerRow>, mut row: Arc<LedgerRow>) {
        let entry = row.left_at.is_none().then(|| self.remains(&row, Reason::LeaverHasForeignGrant));
        let left = Arc::make_mut(&mut row);
        left.state = GrantState::Unowned;
        left.intent = None;
        (left.acknowledged_at, left.verified_at, left.revoking_since) = (None, None, None);
        left.held = false;
        left.left_at.get_or_insert(self.inputs.now);
        self.left.insert(row.grant.clone());
        self.staying.push(row.clone());
        let change = LedgerChange::Put(LedgerRow::clone(&row));
        self.gone(base, &row, change, entry);
    }

    fn remains(&self, row: &LedgerRow, reason: Reason) -> AuditEntry {
        self.context.entry(self.inputs.now, row, "remains", AuditOutcome::Verified, Some(reason.word()))
    }

    /// Plans a grant that no mapping wants and of which, according to the read, nothing made by rolecall is left. The
    /// ownership or the intent recorded in the row is dropped only if the read is proven.
    fn gone(&mut self, base: Arc<LedgerRow>, row: &LedgerRow, change: LedgerChange, entry: Option<AuditEntry>) {
        let is_told =
            |entry: &AuditEntry| entry.action == "remains" || row.state == GrantState::Owned || base.left_at.is_some();
        let entry = entry.filter(is_told);
        if base.state != GrantState::Owned && base.intent.is_none() || self.is_proven() {
            self.audit.extend(entry);
            match change {
                LedgerChange::Put(row) => self.record(Arc::new(row)),
                LedgerChange::Remove(_) => self.ledger.push(change),
            }
            return;
        }
        if let Some(entry) = entry {
            self.conclude_entry(entry);
        }
        // This does not start a removal: should the member be in the policy after all, the guard and the mapping decide
        // first.
        let since = base.revoking_since.unwrap_or(self.inputs.now);
        self.line(&base.grant, base.claims.iter(), CountedAs::Revoking, Some(since));
        self.conclude(change, true);
        self.record(base);
    }

    fn cause(&self, row: &LedgerRow) -> Cause {
        let all = |is: &dyn Fn(&Claim) -> bool| !row.claims.is_empty() && row.claims.iter().all(is);
        let has_left = |claim: &Claim| self.inputs.leavers.contains(&claim.subject);
        let is_over = |claim: &Claim| self.inputs.desired.is_over(claim, &row.grant.role, row.grounds.get(claim));
        if all(&has_left) {
            Cause::Leaver
        } else if all(&|claim| has_left(claim) || is_over(claim)) {
            Cause::Expired
        } else if all(&|claim| {
            matches!(self.inputs.desired.enforcements.get(&claim.mapping), Some(Enforcement::Ended { .. }))
        }) {
            Cause::MappingDeleted
        } else {
            Cause::NotWanted
        }
    }
}
