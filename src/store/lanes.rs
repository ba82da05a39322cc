//! Fair scheduling of the single writer. Each identity provider has its own lane, and so has the engine. A batch takes
//! requests from the lanes in rotation and is bounded by their cost, so that neither many requests of one tenant nor
//! large ones delay the others by more than a batch.

use std::collections::{HashMap, VecDeque};

use crate::model::ProviderName;

/// Cost of the cheapest request: the statements that every request runs. One unit is about the cost of one row, some
/// microseconds.
pub(super) const REQUEST: u64 = 25;

/// Largest total cost of the requests of one batch. A request with a higher cost is a batch of its own.
pub(super) const BATCH: u64 = 8_000;

/// Largest number of requests in one commit.
const REQUESTS: usize = 256;

/// Credit of a lane per round; unused credit is kept while requests wait in the lane.
const QUANTUM: u64 = 4 * REQUEST;

/// Factor between the engine's quantum and that of a tenant: a revocation needs several of the engine's writes.
const ENGINE_SHARE: u64 = 4;

/// Number of bytes of text with the cost of a row.
const ROW_BYTES: usize = 256;

/// Cost of a request that writes this many rows and this much text.
pub(super) fn cost(rows: usize, bytes: usize) -> u64 {
    REQUEST + rows as u64 + (bytes / ROW_BYTES) as u64
}

/// A lane of the writer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Writes of rolecall itself: ledger, specs, leadership.
    Engine,
    /// The directory of one identity provider.
    Provider(ProviderName),
}

impl Lane {
    fn quantum(&self) -> u64 {
        match self {
            Self::Engine => QUANTUM * ENGINE_SHARE,
            Self::Provider(_) => QUANTUM,
        }
    }
}

/// The lane and the cost of a request.
pub(super) struct Ticket {
    pub(super) lane: Lane,
    /// The cost according to [`cost`].
    pub(super) cost: u64,
}

impl Ticket {
    /// A request of rolecall itself.
    pub(super) fn engine(cost: u64) -> Self {
        Self { lane: Lane::Engine, cost }
    }

    /// A request of an identity provider.
    pub(super) fn provider(provider: &ProviderName, cost: u64) -> Self {
        Self { lane: Lane::Provider(provider.clone()), cost }
    }
}

struct Queue<T> {
    waiting: VecDeque<(u64, T)>,
    credit: u64,
}

/// The waiting requests.
pub(super) struct Lanes<T> {
    queues: HashMap<Lane, Queue<T>>,
    /// The lanes with waiting requests, the next one first.
    turns: VecDeque<Lane>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { queues: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<T> Lanes<T> {
    /// Adds a request at the end of its lane.
    pub(super) fn push(&mut self, lane: Lane, cost: u64, request: T) {
        let queue = self.queues.entry(lane.clone()).or_insert_with(|| {
            self.turns.push_back(lane);
            Queue { waiting: VecDeque::new(), credit: 0 }
        });
        queue.waiting.push_back((cost, request));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Number of waiting requests.
    pub(super) fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.waiting.len()).sum()
    }

    /// The next batch: at least one request if any waits, with each lane in order.
    pub(super) fn batch(&mut self) -> Vec<T> {
        let mut batch = Vec::new();
        let mut left = BATCH;
        while let Some(lane) = self.turns.pop_front() {
            let Some(queue) = self.queues.get_mut(&lane) else { continue };
            queue.credit = queue.credit.saturating_add(lane.quantum());
            let mut full = false;
            while let Some((cost, _)) = queue.waiting.front()
                && *cost <= queue.credit
            {
                full = !batch.is_empty() && (*cost > left || batch.len() == REQUESTS);
                if full {
                    break;
                }
                if let Some((cost, request)) = queue.waiting.pop_front() {
                    queue.credit -= cost;
                    left = left.saturating_sub(cost);
                    batch.push(request);
                }
            }
            if queue.waiting.is_empty() {
                self.queues.remove(&lane);
            } else if full {
                // The lane has paid for the request that did not fit, so it starts the next batch.
                self.turns.push_front(lane);
            } else {
                self.turns.push_back(lane);
            }
            if full || batch.len() == REQUESTS || left == 0 {
                break;
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Lane {
        Lane::Provider(ProviderName::new(name).unwrap())
    }

    /// Takes batches until nothing waits.
    fn batches<T>(lanes: &mut Lanes<T>) -> Vec<Vec<T>> {
        let mut batches = Vec::new();
        while !lanes.is_empty() {
            batches.push(lanes.batch());
        }
        batches
    }

    #[test]
    fn one_request_of_a_tenant_is_in_the_next_batch_however_many_of_another_wait() {
        let mut lanes = Lanes::default();
        for number in 0..1000 {
            lanes.push(tenant("flood"), REQUEST, number);
        }
        let first = lanes.batch();
        assert!(first.len() <= REQUESTS);
        lanes.push(tenant("other"), REQUEST, 1_000_000);
        lanes.push(Lane::Engine, REQUEST, 2_000_000);
        let second = lanes.batch();
        assert!(second.contains(&1_000_000) && second.contains(&2_000_000));
        let rest: usize = batches(&mut lanes).iter().map(Vec::len).sum();
        assert_eq!(first.len() + second.len() + rest, 1002);
    }

    #[test]
    fn a_lane_keeps_its_order_and_none_is_lost() {
        let mut lanes = Lanes::default();
        for number in 0..300_u64 {
            lanes.push(tenant(["a", "b", "c"][(number % 3) as usize]), REQUEST + number * 7 % 900, number);
        }
        let all: Vec<u64> = batches(&mut lanes).concat();
        for rest in 0..3 {
            let own: Vec<u64> = all.iter().copied().filter(|number| number % 3 == rest).collect();
            assert_eq!(own, (0..100).map(|index| index * 3 + rest).collect::<Vec<_>>());
        }
    }

    #[test]
    fn small_requests_go_before_the_large_ones_of_another_tenant() {
        let mut lanes = Lanes::default();
        for _ in 0..20 {
            lanes.push(tenant("large"), 2_000, "large");
        }
        for _ in 0..20 {
            lanes.push(tenant("small"), REQUEST, "small");
        }
        let first = lanes.batch();
        assert_eq!(first.iter().filter(|what| **what == "small").count(), 20);
        assert!(first.iter().filter(|what| **what == "large").count() <= 4);
    }

    #[test]
    fn a_batch_costs_no_more_than_its_bound_unless_one_request_does() {
        let mut lanes = Lanes::default();
        let costs = [30, 7_000, 900, 25, 20_000, 25, 8_000, 1, 4_000, 4_000, 4_000];
        for (index, cost) in costs.into_iter().enumerate() {
            lanes.push(tenant(["a", "b"][index % 2]), cost, cost);
        }
        let batches = batches(&mut lanes);
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), costs.len());
        for batch in batches {
            assert!(batch.iter().sum::<u64>() <= BATCH || batch.len() == 1, "{batch:?}");
        }
    }

    #[test]
    fn the_engine_has_its_share_among_many_tenants_that_flood() {
        let mut lanes = Lanes::default();
        for name in 0..40 {
            for number in 0..300 {
                lanes.push(tenant(&format!("t{name}")), REQUEST, number);
            }
        }
        for _ in 0..64 {
            lanes.push(Lane::Engine, REQUEST, 1_000_000);
        }
        let batches = batches(&mut lanes);
        let last = batches.iter().rposition(|batch| batch.contains(&1_000_000)).unwrap();
        assert!(last <= 4, "{last} of {}", batches.len());
    }
}
