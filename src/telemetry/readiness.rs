//! Readiness: the parts of the process that must be up before it may receive requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The parts that readiness depends on. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness {
    parts: Arc<Mutex<Vec<Part>>>,
}

/// One part, not ready until [`Part::open`] is called. Clones share its state.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    name: &'static str,
    open: Arc<AtomicBool>,
}

impl Part {
    /// Marks the part as ready.
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Marks the part as not ready.
    #[cfg(test)]
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
}

impl Readiness {
    /// Adds a part. The name is shown to people (`store`, `directory`, `manifests`).
    #[must_use]
    pub(crate) fn part(&self, name: &'static str) -> Part {
        let part = Part { name, open: Arc::default() };
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(part.clone());
        part
    }

    /// The parts that are not ready, in the order in which they were added; empty means ready.
    #[must_use]
    pub(crate) fn waiting_for(&self) -> Vec<&'static str> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter(|part| !part.open.load(Ordering::Acquire)).map(|part| part.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_waits_for_every_part_and_again_when_one_closes() {
        let readiness = Readiness::default();
        let (store, directory) = (readiness.part("store"), readiness.part("directory"));
        assert_eq!(readiness.waiting_for(), ["store", "directory"]);
        directory.clone().open();
        assert_eq!(readiness.waiting_for(), ["store"]);
        store.open();
        assert!(readiness.clone().waiting_for().is_empty());
        store.close();
        assert_eq!(readiness.waiting_for(), ["store"]);
    }
}
