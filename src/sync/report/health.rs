//! The state of one policy, as counted in statuses and metrics.

use crate::model::Reason;
use crate::sync::state::DocumentState;

/// State of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DocumentHealth {
    Unread,
    InSync,
    Drifted,
    Held,
    Frozen,
    Failed,
}

impl DocumentHealth {
    pub(super) const ALL: [Self; 6] =
        [Self::Unread, Self::InSync, Self::Drifted, Self::Held, Self::Frozen, Self::Failed];

    /// The word used in the metric.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unread => "Pending",
            Self::InSync => "InSync",
            Self::Drifted => "Drifted",
            Self::Held => "Held",
            Self::Frozen => "Frozen",
            Self::Failed => "Failed",
        }
    }
}

impl DocumentState {
    /// The state of the document. `frozen`: the status of a mapping with a part in it reports that. `drifts`: there are
    /// differences that are reported.
    pub(super) fn health(&self, frozen: bool, drifts: bool) -> DocumentHealth {
        // An outdated read is repeated within seconds.
        let failed = self.error.as_ref().is_some_and(|(word, _)| *word != Reason::StaleRead);
        if failed || self.additions.foreign.is_some() || self.removals.refused.is_some() {
            return DocumentHealth::Failed;
        }
        match &self.found {
            _ if frozen => DocumentHealth::Frozen,
            None => DocumentHealth::Unread,
            Some(found) if !found.held.is_empty() => DocumentHealth::Held,
            Some(_) if drifts => DocumentHealth::Drifted,
            Some(_) => DocumentHealth::InSync,
        }
    }
}
