//! What a read says about the present. A target's reads may be eventually consistent: they may show an older policy.

use serde::{Deserialize, Serialize};

use crate::model::{LedgerRow, Revision};

/// How the revision of a read stands to those of our own writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAge {
    /// The revision that our last acknowledged write returned.
    Current,
    /// A revision that a write of ours superseded: the read shows the past. Nothing is concluded and nothing written.
    Stale,
    /// Any other revision: somebody else wrote, or the outcome of a write of ours is not known.
    Unproven,
}

/// What the read that a pass is planned from is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Evidence {
    /// It shows the policy as it is.
    Current,
    /// It may show the past. A write upon its revision that succeeds proves it, and then what follows from it is recorded.
    Unproven {
        /// May the policy be written as it is only to prove the read? Once for each revision.
        may_prove: bool,
    },
}

/// The age of a read with this revision. `superseded`: a write of ours replaced that version within the last hour. A call
/// whose outcome is not known was made upon the newest revision known then: the last acknowledged version is not
/// known to be the current one any more.
#[must_use]
pub fn age(read: &str, last: Option<&Revision>, superseded: bool, rows: &[LedgerRow]) -> ReadAge {
    if superseded {
        return ReadAge::Stale;
    }
    let elsewhere = rows.iter().filter_map(|row| row.intent.as_ref()).any(|intent| intent.revision_before != read);
    match last {
        Some(last) if last.id == read && !elsewhere => ReadAge::Current,
        _ => ReadAge::Unproven,
    }
}
