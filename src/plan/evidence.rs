//! What a read says about the present. Google's reads are eventually consistent: they may show an older policy.

use crate::model::{LedgerRow, Revision};

/// How the etag of a read stands to those of our own writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAge {
    /// The etag that our last acknowledged write returned.
    Current,
    /// An etag that a write of ours superseded: the read shows the past. Nothing is concluded and nothing written.
    Stale,
    /// Any other etag: somebody else wrote, or the outcome of a write of ours is not known.
    Unproven,
}

/// What the read that a pass is planned from is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It shows the policy as it is.
    Current,
    /// It may show the past. A write with its etag that succeeds proves it, and then what follows from it is recorded.
    Unproven {
        /// May the policy be written as it is only to prove the read? Once for each etag.
        may_prove: bool,
    },
}

/// The age of a read with this etag. `superseded`: a write of ours replaced that version within the last hour. A call
/// whose outcome is not known was sent with an etag that was the newest known then: the last acknowledged version is not
/// known to be the current one any more.
#[must_use]
pub fn age(etag: &str, revision: Option<&Revision>, superseded: bool, rows: &[LedgerRow]) -> ReadAge {
    if superseded {
        return ReadAge::Stale;
    }
    let elsewhere = rows.iter().filter_map(|row| row.intent.as_ref()).any(|intent| intent.etag_before != etag);
    match revision {
        Some(revision) if revision.etag == etag && !elsewhere => ReadAge::Current,
        _ => ReadAge::Unproven,
    }
}
