//! The last steps of planning: the guard's decision on removals, the limit on additions, and assembling the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{
    AuditOutcome, Enforcement, FreezeReason, GrantKey, GrantState, LedgerChange, LedgerRow, MappingKey, is_group,
};
use crate::plan::counts::{CountedAs, CountedGrant};
use crate::plan::{Cause, Evidence, Held, LimitExceeded, Plan, Step, changes, guard, plan_hash};

use super::Planner;

impl Planner<'_> {
    /// Applies the guard to the removals and the limit to the additions, and assembles the plan.
    pub(super) fn finish(mut self) -> Plan {
        let now = self.inputs.now;
        let mut candidates = std::mem::take(&mut self.candidates);
        self.pair(&mut candidates);
        let asks = guard::asks(&candidates, &self.inputs.leavers, &self.inputs.desired);
        let guarded = !asks.is_empty() || self.inputs.ledger.iter().any(|row| row.held);
        let (mut remove, held_steps, held) = guard::split(candidates, &self.inputs.held);
        let held_new = self.hold(held_steps, &held);
        for step in &mut remove {
            self.going(step, CountedAs::Revoking);
        }
        self.leave_together(&mut remove);
        remove.append(&mut self.outside);
        remove.sort_by(|a, b| a.grant().cmp(b.grant()));

        let mut add = std::mem::take(&mut self.add);
        add.sort_by(|a, b| a.grant().cmp(b.grant()));
        let limit = self.fit(&mut add, &mut remove);
        let hash = plan_hash(&self.inputs.document, &add, &remove, &held);
        for row in held_new {
            let mut entry = self.context.entry(now, &row, "revoke", AuditOutcome::Held, Some(Held::REASON.word()));
            entry.plan_hash = Some(hash.clone());
            self.audit.push(entry);
        }
        let ours: BTreeSet<GrantKey> =
            self.owned.iter().flat_map(|row| row.spellings()).chain(self.unowned.iter().cloned()).collect();
        let may_prove = matches!(self.inputs.evidence, Evidence::Unproven { may_prove: true });
        let only_observed = |(_, enforcement): &(&MappingKey, &Enforcement)| {
            **enforcement == Enforcement::Frozen(FreezeReason::Observed)
        };
        let observers = self.inputs.desired.enforcements.iter().filter(only_observed);
        let fence = self.fence || (self.concluded.need_proof() && may_prove && !self.live.is_absent());
        Plan {
            hash,
            unlisted: self.inputs.desired.absent && !self.live.is_absent(),
            foreign: self.live.foreign(&ours),
            ours,
            recreated: self.recreated,
            changes: changes(&add, &remove, &self.sweep, fence),
            add,
            remove,
            held,
            asks,
            guarded,
            lost: self.lost,
            unowned: self.unowned,
            remains: self.remains,
            remained_for: self.remained_for,
            left: self.left,
            orphaned: self.orphaned,
            observed: self.observed,
            forbidden: self.forbidden,
            ledger: self.ledger,
            audit: self.audit,
            limit,
            recheck_at: self.recheck_at,
            context: self.context,
            live: self.inputs.live.clone(),
            superseded: self.inputs.revision.as_ref().map(|revision| revision.id.clone()),
            concluded: self.concluded,
            staying: self.staying.into_iter().filter(|row| row.state == GrantState::Owned).collect(),
            sweep: self.sweep,
            unsettled: self.unsettled,
            fence,
            lines: self.lines,
            observers: observers.map(|(mapping, _)| mapping.clone()).collect(),
        }
    }

    /// Keeps grants for the claims that the guard holds. Returns the rows that are held for the first time.
    pub(super) fn hold(&mut self, steps: Vec<Step>, held: &Held) -> Vec<LedgerRow> {
        let mut kinds: BTreeMap<&GrantKey, [BTreeSet<MappingKey>; 2]> = BTreeMap::new();
        for part in &held.parts {
            for removal in &part.removals {
                let [others, leavers] = kinds.entry(&removal.grant).or_default();
                let kind = if part.leavers { leavers } else { others };
                kind.insert(part.mapping.clone());
            }
        }
        let mut fresh = Vec::new();
        for Step { mut row, mut restore, .. } in steps {
            if !row.held {
                fresh.push(row.clone());
            }
            row.held = true;
            row.revoking_since.get_or_insert(self.inputs.now);
            (restore.held, restore.revoking_since) = (true, row.revoking_since);
            for (mappings, counted_as) in
                kinds.remove(&row.grant).unwrap_or_default().into_iter().zip([CountedAs::Held, CountedAs::HeldLeaver])
            {
                let subject = row.claims.first().map(|claim| claim.subject);
                let since = row.revoking_since;
                let line =
                    CountedGrant { grant: row.grant.clone(), mappings, subject, counted_as, revoking_since: since };
                self.lines.push(line);
            }
            self.unsettled(&row, false, true);
            self.keep(Arc::new(restore), Arc::new(row), true);
        }
        fresh
    }

    /// Removes those additions, starting with the last, that do not fit into the document.
    pub(super) fn fit(&mut self, add: &mut Vec<Step>, remove: &mut Vec<Step>) -> Option<LimitExceeded> {
        let (fits, of_groups, appearances, most) = loop {
            let gone = remove.iter().flat_map(|step| &step.out).chain(&self.sweep).collect::<BTreeSet<_>>();
            let room = self.live.room_without(gone.into_iter())?;
            let groups = add.iter().filter(|step| is_group(&step.row.member)).count();
            let of_groups = groups > room.groups_left;
            if add.len() <= room.left && !of_groups {
                return None;
            }
            // What takes the place of a removed grant comes first. A removal without it waits.
            let instead: BTreeSet<&GrantKey> = remove.iter().flat_map(|step| &step.replaced_by).collect();
            let (first, others): (Vec<&Step>, Vec<&Step>) = add.iter().partition(|step| instead.contains(step.grant()));
            let (mut left, mut groups_left) = (room.left, room.groups_left);
            let mut fits = BTreeSet::new();
            for step in first.into_iter().chain(others) {
                let group = usize::from(is_group(&step.row.member));
                if left > 0 && groups_left >= group {
                    (left, groups_left) = (left - 1, groups_left - group);
                    fits.insert(step.grant().clone());
                }
            }
            if let Some(waits) = remove.iter().position(|step| step.waits_for_others(&fits)) {
                let step = remove.remove(waits);
                self.waits(&step);
                continue;
            }
            let (appearances, most) = if of_groups {
                (room.kept_groups + groups, room.groups_limit)
            } else {
                (room.kept + add.len(), room.limit)
            };
            break (fits, of_groups, appearances, most);
        };
        let (fitting, excess): (Vec<Step>, Vec<Step>) =
            std::mem::take(add).into_iter().partition(|step| fits.contains(step.grant()));
        *add = fitting;
        let uncertain: Vec<LedgerRow> =
            excess.iter().filter(|step| step.row.intent.is_some()).map(|step| step.row.clone()).collect();
        let withheld = excess.into_iter().map(|step| step.row.grant).collect();
        let mut limit = LimitExceeded { of_groups, appearances, limit: most, withheld, withheld_of: BTreeMap::new() };
        let withheld: BTreeSet<&GrantKey> = limit.withheld.iter().collect();
        for row in uncertain.iter().filter(|row| withheld.contains(&row.grant)) {
            self.unsettled(row, false, true);
        }
        for line in self.lines.iter_mut().filter(|line| withheld.contains(&line.grant)) {
            line.counted_as = CountedAs::Withheld;
            for mapping in &line.mappings {
                *limit.withheld_of.entry(mapping.clone()).or_default() += 1;
            }
        }
        // A row that has never been in the ledger is not recorded before it fits.
        let rows = &self.rows;
        self.ledger.retain(|change| match change {
            LedgerChange::Put(row) => !withheld.contains(&row.grant) || rows.contains_key(&row.grant),
            LedgerChange::Remove(_) => true,
        });
        Some(limit)
    }

    /// Counts a grant that should be gone but is not yet.
    pub(super) fn going(&mut self, step: &mut Step, counted_as: CountedAs) {
        // Should the claims end before they are moved, the guard has to decide about them.
        if step.cause != Cause::Moved {
            step.row.revoking_since.get_or_insert(self.inputs.now);
            step.restore.revoking_since = step.row.revoking_since;
        }
        self.line(&step.row.grant, step.row.claims.iter(), counted_as, step.row.revoking_since);
        if self.is_proven() {
            step.restore = step.row.clone();
        }
        self.record(Arc::new(step.restore.clone()));
    }
}
