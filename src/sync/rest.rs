//! Detection of an idle engine, for tests that wait until nothing is left to do.

use tokio::time::Instant;

use super::Engine;

impl Engine {
    /// True while a change of a document is in progress or waits for the window of additions; also before the first
    /// list.
    pub(crate) fn waits(&self) -> bool {
        let state = self.0.state();
        state.documents.values().any(|memory| memory.pending_since.is_some())
            || state.targets.values().any(|target| target.listing.is_none())
    }

    /// The work in progress or due; none when idle. Work that is due later, such as the next periodic read, does not
    /// count.
    pub(crate) fn busy(&self) -> Option<String> {
        let now = Instant::now();
        if let Some(document) = self.0.queue().busy(now) {
            return Some(format!("{document} is due or being worked on"));
        }
        if self.0.discovery().next_due().is_some_and(|due| due <= now) {
            return Some("a target is due for listing".to_owned());
        }
        let state = self.0.state();
        let broken = state.documents.iter().find(|(_, memory)| {
            memory.error.as_ref().is_some_and(|error| error.0 == crate::model::Reason::EngineFault)
        });
        broken.map(|(document, _)| format!("a pass over {document} broke off"))
    }

    /// True while a status will be folded soon.
    pub(crate) fn folds(&self) -> bool {
        let soon = self.0.clock.now() + jiff::SignedDuration::from_secs(2);
        let state = self.0.state();
        let revisits = state.revisits.next_due().is_some_and(|due| due <= soon);
        revisits || !state.changed_mappings.is_empty() || !state.changed_targets.is_empty()
    }

    /// True when a target covers the document with this name.
    pub(crate) fn is_covered(&self, document: &str) -> bool {
        document.parse().is_ok_and(|document| self.0.state().target_of(&document).is_some())
    }

    /// Statuses that are outdated although nobody noticed a change.
    pub(crate) fn outdated_statuses(&self) -> Vec<String> {
        super::report::unnoticed(&self.0)
    }
}
