//! Where the claims of a row come from.

use crate::model::{DesiredGrant, LedgerRow};

/// Brings the grounds of a row up to date with its claims and with what is wanted now. What is not wanted now keeps the
/// ground that it had.
pub(super) fn update(row: &mut LedgerRow, want: Option<&DesiredGrant>) {
    let LedgerRow { claims, grounds, .. } = row;
    grounds.retain(|claim, _| claims.contains(claim));
    for (claim, ground) in want.iter().flat_map(|want| &want.grounds) {
        if claims.contains(claim) && !grounds.get(claim).is_some_and(|known| known.agrees(ground)) {
            grounds.insert(claim.clone(), ground.clone());
        }
    }
}
