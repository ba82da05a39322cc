//! Grounds of the claims of a row.

use crate::model::{DesiredGrant, LedgerRow};

/// True when [`update`] would change nothing.
pub(super) fn are_current(row: &LedgerRow, want: Option<&DesiredGrant>) -> bool {
    let LedgerRow { claims, grounds, .. } = row;
    grounds.keys().all(|claim| claims.contains(claim))
        && want.iter().flat_map(|want| &want.grounds).all(|(claim, ground)| {
            !claims.contains(claim) || grounds.get(claim).is_some_and(|known| known.agrees(ground))
        })
}

/// Updates the grounds of a row from its claims and from the grants wanted now. A claim that is no longer wanted keeps
/// its last ground.
pub(super) fn update(row: &mut LedgerRow, want: Option<&DesiredGrant>) {
    let LedgerRow { claims, grounds, .. } = row;
    grounds.retain(|claim, _| claims.contains(claim));
    for (claim, ground) in want.iter().flat_map(|want| &want.grounds) {
        if claims.contains(claim) && !grounds.get(claim).is_some_and(|known| known.agrees(ground)) {
            grounds.insert(claim.clone(), ground.clone());
        }
    }
}
