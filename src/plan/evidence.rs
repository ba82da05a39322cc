//! What a read proves about the current policy. Reads may be eventually consistent and return an older policy.

use serde::{Deserialize, Serialize};

use crate::model::{LedgerRow, Revision};

/// Relation of a read's revision to the revisions of our own writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadAge {
    /// The revision that our last acknowledged write returned.
    Current,
    /// A revision that one of our writes superseded: the read is outdated. Nothing is concluded and nothing is written.
    Stale,
    /// Any other revision: somebody else wrote, or the outcome of one of our writes is not known.
    Unproven,
}

/// How far the read that a reconcile is planned from can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Evidence {
    /// The read shows the current policy.
    Current,
    /// The read may be outdated. A successful write conditional on its revision proves it; only then are conclusions
    /// from the read recorded.
    Unproven {
        /// Whether the policy may be written back unchanged only to prove the read. Once for each revision.
        may_prove: bool,
    },
}

/// Computes the age of a read with this revision. `superseded`: one of our writes replaced that version within the last
/// hour. A call with an unknown outcome was conditional on the newest revision known then, so while there is one, the
/// last acknowledged version may no longer be the current one.
#[must_use]
pub(crate) fn age(read: &str, last: Option<&Revision>, superseded: bool, rows: &[LedgerRow]) -> ReadAge {
    if superseded {
        return ReadAge::Stale;
    }
    let elsewhere = rows.iter().filter_map(|row| row.intent.as_ref()).any(|intent| intent.revision_before != read);
    match last {
        Some(last) if last.id == read && !elsewhere => ReadAge::Current,
        _ => ReadAge::Unproven,
    }
}
