//! The compiled-in guard: a pass that would take access from many people at once waits for a person to look.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::model::{DocumentKey, GrantKey, LedgerRow, MemberKey, Subject};

use super::{Cause, GUARD_PEOPLE, Held, Step};

/// Part of every hash, so that a release given under other rules releases nothing.
const GENERATION: &str = "compiled-in/1";

/// 16 hex digits over the document, the guard's generation and the items in their order. Neither the etag nor the
/// time is in it, so it stays the same from pass to pass.
pub(super) fn digest<'a>(document: &DocumentKey, items: impl Iterator<Item = (&'a str, &'a GrantKey)>) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    part(GENERATION);
    part(&document.to_string());
    for (sign, grant) in items {
        part(sign);
        part(grant.role.as_str());
        part(grant.condition.as_str());
        part(grant.member.as_str());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    format!("{:016x}", u64::from_be_bytes(first))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Person {
    Known(Subject),
    /// A row that lost its claims; the member stands for whoever it is.
    Unknown(MemberKey),
}

fn people<'a>(steps: impl Iterator<Item = &'a Step>) -> usize {
    let mut people = BTreeSet::new();
    for step in steps {
        people.extend(step.row.claims.iter().map(|claim| Person::Known(claim.subject)));
        if step.row.claims.is_empty() {
            people.insert(Person::Unknown(step.row.grant.member.clone()));
        }
    }
    people.len()
}

/// Splits the removals into what passes and what is held. `owned` are all grants of ours that stand in the document.
///
/// Leavers pass when they are few: all of them together, or those that are new in this pass beside others that are
/// held already. Who passed once passes again, however the call ended. Of the rest, all or nothing is held. Grants acknowledged after the oldest of them was asked for do not
/// count as the document's, or else writing additions would release a plan that nobody looked at.
pub(super) fn split(
    document: &DocumentKey,
    candidates: Vec<Step>,
    owned: &[LedgerRow],
    released: &BTreeSet<String>,
) -> (Vec<Step>, Vec<Step>, Held) {
    let leaver = |step: &&Step| step.cause == Cause::Leaver;
    let passed = |step: &&Step| leaver(step) && step.row.revoking_since.is_some() && !step.row.held;
    let fresh = |step: &&Step| leaver(step) && step.row.revoking_since.is_none();
    let few_leavers = people(candidates.iter().filter(leaver)) <= GUARD_PEOPLE;
    let few_fresh = people(candidates.iter().filter(fresh)) <= GUARD_PEOPLE;
    let (pass, guarded): (Vec<Step>, Vec<Step>) = candidates
        .into_iter()
        .partition(|step| (few_leavers && leaver(&step)) || (few_fresh && fresh(&step)) || passed(&step));

    let since = guarded.iter().filter_map(|step| step.row.revoking_since).min();
    let base = base(owned, &guarded, since);
    let people = people(guarded.iter());
    let plan_hash = digest(document, guarded.iter().map(|step| ("-", step.grant())));
    if people <= GUARD_PEOPLE || guarded.len() * 2 <= base || released.contains(&plan_hash) {
        let mut pass: Vec<Step> = pass.into_iter().chain(guarded).collect();
        pass.sort_by(|a, b| a.grant().cmp(b.grant()));
        return (pass, vec![], Held::default());
    }
    let held = Held {
        people,
        grants: guarded.iter().map(|step| step.grant().clone()).collect(),
        plan_hash,
        mappings: guarded.iter().flat_map(|step| &step.row.claims).map(|claim| claim.mapping.clone()).collect(),
    };
    (pass, guarded, held)
}

fn base(owned: &[LedgerRow], guarded: &[Step], since: Option<Timestamp>) -> usize {
    let Some(since) = since else { return owned.len() };
    let going: BTreeSet<&GrantKey> = guarded.iter().map(Step::grant).collect();
    owned
        .iter()
        .filter(|row| going.contains(&row.grant) || row.acknowledged_at.is_none_or(|acknowledged| acknowledged < since))
        .count()
}
