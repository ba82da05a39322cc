//! Grounds of the claims of a row.

use std::borrow::Cow;

use crate::model::{Claim, Desired, DesiredGrant, Enforcement, Ground, GroupId, Keep, LedgerRow};

/// True when [`update`] would change nothing.
pub(super) fn are_current(row: &LedgerRow, want: Option<&DesiredGrant>, desired: &Desired) -> bool {
    let LedgerRow { claims, grounds, .. } = row;
    grounds.keys().all(|claim| claims.contains(claim))
        && want.iter().flat_map(|want| &want.grounds).all(|(claim, ground)| {
            let known = || grounds.get(claim);
            !claims.contains(claim) || known().is_some_and(|known| known.agrees(&merged(claim, known, ground, desired)))
        })
}

/// Updates the grounds of a row from its claims and from the grants wanted now. A claim that is no longer wanted keeps
/// its last ground.
pub(super) fn update(row: &mut LedgerRow, want: Option<&DesiredGrant>, desired: &Desired) {
    retain(row);
    let LedgerRow { claims, grounds, .. } = row;
    for (claim, ground) in want.iter().flat_map(|want| &want.grounds).filter(|(claim, _)| claims.contains(claim)) {
        let Some(known) = grounds.get_mut(claim) else {
            grounds.insert(claim.clone(), ground.clone());
            continue;
        };
        let new = merged(claim, known, ground, desired);
        if !known.agrees(&new) {
            *known = new.into_owned();
        }
    }
}

/// Drops the grounds of claims that the row no longer has.
pub(super) fn retain(row: &mut LedgerRow) {
    let LedgerRow { claims, grounds, .. } = row;
    grounds.retain(|claim, _| claims.contains(claim));
}

/// The ground of a claim that is wanted, with what is known of it from earlier times. While some groups of the mapping
/// are not known, the present ground is not the whole one: the groups in doubt may still give the claim.
fn merged<'a>(claim: &Claim, known: &Ground, wanted: &'a Ground, desired: &Desired) -> Cow<'a, Ground> {
    let in_doubt = |group: &GroupId| match desired.enforcements.get(&claim.mapping) {
        Some(Enforcement::Live { keep: Keep::Nothing | Keep::Subjects(_) }) => false,
        Some(Enforcement::Live { keep: Keep::Groups(groups) }) => groups.unresolved.contains(group),
        Some(Enforcement::Live { keep: Keep::Everything(_) } | Enforcement::Frozen(_) | Enforcement::Ended { .. })
        | None => true,
    };
    let mut before = known.groups.iter().filter(|group| in_doubt(group)).peekable();
    if before.peek().is_none() {
        return Cow::Borrowed(wanted);
    }
    let mut ground = wanted.clone();
    ground.groups.extend(before);
    ground.through.extend(&known.through);
    Cow::Owned(ground)
}
