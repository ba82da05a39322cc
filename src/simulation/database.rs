//! The database of a simulated installation, which outlives its processes.

use std::sync::Arc;
use std::time::Duration;

use super::clock::SimulatedClock;
use crate::store::{MemoryDatabase, Store};

pub(super) struct Database(MemoryDatabase);

impl Database {
    pub(super) fn new(seed: u64) -> Self {
        Self(MemoryDatabase::new(seed).expect("a database"))
    }

    #[expect(clippy::unused_async, reason = "as a store that waits")]
    pub(super) async fn open(&self, clock: SimulatedClock) -> Store {
        Store::open_inline(&self.0, Arc::new(clock)).expect("a store")
    }
}

/// Advances the time.
pub(super) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
