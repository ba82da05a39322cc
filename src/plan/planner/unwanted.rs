//! The grants that no mapping wants any more: removed, left behind, or forgotten, each with its proof.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{
    AuditEntry, AuditOutcome, Claim, Concerns, Enforcement, GrantKey, GrantState, IntentAction, LedgerChange,
    LedgerRow, MappingKey, Reason,
};
use crate::plan::counts::CountedAs;
use crate::plan::{Cause, Step, grounds, spelling};

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
        // Of somebody else's grants under several spellings, each one that is left may be that of the person.
        let theirs = row.state != GrantState::Owned && row.intent.is_none();
        let present = present || theirs && (self.lingers(&row) || row.left_at.is_some() && self.may_return(&row));
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
                if self.left(&mut row) {
                    self.leave(base, row);
                } else {
                    let mappings: BTreeSet<MappingKey> = row.claims.iter().map(|claim| claim.mapping.clone()).collect();
                    for spelling in row.spellings().filter(|spelling| self.live.has(spelling)) {
                        if let Some(claim) = row.claims.first() {
                            self.remained_for.insert(spelling.clone(), claim.subject);
                        }
                        self.remains.push((spelling, mappings.clone()));
                    }
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

    /// True when a spelling of the grant is in the policy.
    fn lingers(&self, row: &LedgerRow) -> bool {
        row.spellings().any(|spelling| self.live.has(&spelling))
    }

    /// True when the account was deleted and its grant comes back with it, should it be restored.
    fn may_return(&self, row: &LedgerRow) -> bool {
        !spelling::tombstones(row, self.live, Some(&BTreeSet::new())).is_empty()
    }

    /// True when everybody for whom the grant was wanted has left. Claims of mappings that no longer reach the document
    /// with the role are dropped: nobody would see the report.
    fn left(&self, row: &mut Arc<LedgerRow>) -> bool {
        let reached = |claim: &Claim| self.inputs.desired.reaches(&claim.mapping, &row.grant.role);
        let claims: BTreeSet<Claim> = row.claims.iter().filter(|claim| reached(claim)).cloned().collect();
        let left = !claims.is_empty() && claims.iter().all(|claim| self.inputs.leavers.contains(&claim.subject));
        if left && claims.len() < row.claims.len() {
            let row = Arc::make_mut(row);
            row.claims = claims;
            grounds::retain(row);
        }
        left
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
        let concerns = Concerns {
            mappings: row.claims.iter().map(|claim| claim.mapping.clone()).collect(),
            subject: row.claims.first().map(|claim| claim.subject),
        };
        let standing = row.spellings().filter(|spelling| self.live.has(spelling));
        let there: Vec<GrantKey> =
            standing.chain(spelling::tombstones(&row, self.live, Some(&BTreeSet::new()))).collect();
        self.left.extend(there.into_iter().map(|grant| (grant, concerns.clone())));
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
