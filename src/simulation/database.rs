//! The database of a simulated installation, which outlives its processes.

use std::sync::Arc;

use super::clock::SimulatedClock;
use crate::store::{MemoryDatabase, Store, StoreFaults};

pub(super) struct Database(MemoryDatabase);

impl Database {
    pub(super) fn new(seed: u64) -> Self {
        Self(MemoryDatabase::new(seed).expect("a database"))
    }

    #[expect(clippy::unused_async, reason = "as a store that waits")]
    pub(super) async fn open(&self, clock: SimulatedClock, faults: &StoreFaults) -> Store {
        Store::open_faulty(&self.0, Arc::new(clock), faults.clone()).expect("a store")
    }
}
