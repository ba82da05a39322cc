//! Grants whose claims go on in another form: under another condition, or with another principal of the same person.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Claim, GrantKey, Role};
use crate::plan::{Cause, Step};

use super::Planner;

impl Planner<'_> {
    /// Finds, for each removal, the grants by which its claims go on. A grant whose claims all go on under another
    /// condition is moved: nobody loses access, so the guard is not asked.
    pub(super) fn pair(&self, candidates: &mut [Step]) {
        let ended: BTreeSet<(Role, Claim)> = candidates
            .iter()
            .flat_map(|step| step.row.claims.iter().map(|claim| (step.grant().role.clone(), claim.clone())))
            .collect();
        if ended.is_empty() {
            return;
        }
        let added: BTreeSet<&GrantKey> = self.add.iter().map(Step::grant).collect();
        let stands = |grant: &GrantKey| match self.rows.get(grant) {
            Some(row) => self.is_present(row),
            None => self.live.has(grant),
        };
        let mut go_on: BTreeMap<(&Role, &Claim), Vec<&GrantKey>> = BTreeMap::new();
        for (grant, want) in &self.inputs.desired.grants {
            for (claim, terms) in &want.claims {
                let is_one = terms.write && ended.contains(&(grant.role.clone(), claim.clone()));
                if is_one && (added.contains(grant) || stands(grant)) {
                    go_on.entry((&grant.role, claim)).or_default().push(grant);
                }
            }
        }
        for step in candidates {
            let Step { row, replaced_by, continued, .. } = step;
            for claim in &row.claims {
                for grant in go_on.get(&(&row.grant.role, claim)).into_iter().flatten() {
                    if added.contains(grant) {
                        replaced_by.insert((*grant).clone());
                    }
                    if grant.member == row.grant.member {
                        continued.insert(claim.clone());
                    }
                }
            }
            if step.cause == Cause::NotWanted && !step.row.claims.is_empty() && step.continued == step.row.claims {
                step.cause = Cause::Moved;
            }
        }
    }

    /// Keeps a grant until there is room for what takes its place.
    pub(super) fn waits(&mut self, step: &Step) {
        self.unsettled(&step.row, false, true);
        self.staying.push(Arc::new(step.row.clone()));
        for line in self.lines.iter_mut().filter(|line| line.grant == *step.grant()) {
            line.wait();
        }
    }
}
