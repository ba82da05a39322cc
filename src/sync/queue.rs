//! A queue of documents by due time, with one entry per document and single-flight.
//!
//! Pure: time is passed in. Due time = max(enqueued, not before). Only time ends a backoff, never a new request.
//! Requests for a running document are stored and become due when it completes.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// A queue of keys with due times. `T` is any clock reading.
#[derive(Debug)]
pub(crate) struct DueQueue<K, T> {
    entries: HashMap<K, Entry<T>>,
    /// Every key that is enqueued and not running, by effective due time. The first one is next.
    order: BTreeSet<(T, K)>,
}

#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    asked: Option<T>,
    not_before: Option<T>,
    running: bool,
}

impl<T: Ord + Copy> Entry<T> {
    fn due(&self) -> Option<T> {
        let asked = self.asked?;
        Some(self.not_before.map_or(asked, |bound| bound.max(asked)))
    }
}

impl<K: Clone + Ord + Hash, T: Ord + Copy> Default for DueQueue<K, T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Clone + Ord + Hash, T: Ord + Copy> DueQueue<K, T> {
    /// Enqueues a key at `at`; an earlier request that is already waiting keeps its time.
    pub(crate) fn enqueue(&mut self, key: &K, at: T) {
        let entry = self.entries.entry(key.clone()).or_insert(Entry { asked: None, not_before: None, running: false });
        let before = entry.due();
        entry.asked = Some(entry.asked.map_or(at, |asked| asked.min(at)));
        let after = entry.due();
        if entry.running || before == after {
            return;
        }
        if let Some(due) = before {
            self.order.remove(&(due, key.clone()));
        }
        if let Some(due) = after {
            self.order.insert((due, key.clone()));
        }
    }

    /// Takes the key that has been due longest, if one is due; it is running until [`DueQueue::complete`].
    pub(crate) fn pop(&mut self, now: T) -> Option<K> {
        let (due, _) = self.order.first()?;
        if *due > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.asked = None;
            entry.running = true;
        }
        Some(key)
    }

    /// Completes `key`. With `not_before`, it does not run again earlier than that, whoever enqueues it.
    pub(crate) fn complete(&mut self, key: &K, not_before: Option<T>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        entry.not_before = not_before;
        match entry.due() {
            Some(due) => {
                self.order.insert((due, key.clone()));
            }
            None if not_before.is_none() => {
                self.entries.remove(key);
            }
            None => {}
        }
    }

    /// When the next key becomes due; none when nothing waits.
    #[must_use]
    pub(crate) fn next_due(&self) -> Option<T> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Number of keys that are running or wanted by now, including those whose bound is not over.
    #[must_use]
    pub(crate) fn busy(&self, now: T) -> usize {
        let busy = |entry: &&Entry<T>| entry.running || entry.asked.is_some_and(|asked| asked <= now);
        self.entries.values().filter(busy).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_earlier_request_wins_and_a_later_one_does_not_postpone() {
        let mut queue = DueQueue::default();
        queue.enqueue(&"a", 10);
        queue.enqueue(&"a", 5);
        queue.enqueue(&"a", 50);
        assert_eq!(queue.next_due(), Some(5));
        assert_eq!(queue.pop(4), None);
        assert_eq!(queue.pop(5), Some("a"));
        assert_eq!(queue.pop(100), None, "one turn for all three requests");
    }

    #[test]
    fn a_request_during_the_turn_is_served_after_it() {
        let mut queue = DueQueue::default();
        queue.enqueue(&"a", 0);
        assert_eq!(queue.pop(0), Some("a"));
        queue.enqueue(&"a", 1);
        assert_eq!(queue.pop(9), None, "single flight");
        queue.complete(&"a", None);
        assert_eq!(queue.pop(9), Some("a"));
    }

    #[test]
    fn what_runs_or_is_wanted_by_now_is_busy_and_what_is_wanted_later_is_not() {
        let mut queue = DueQueue::default();
        queue.enqueue(&"a", 5);
        assert_eq!((queue.busy(4), queue.busy(5)), (0, 1));
        assert_eq!(queue.pop(5), Some("a"));
        assert_eq!(queue.busy(5), 1);
        queue.complete(&"a", Some(10));
        assert_eq!(queue.busy(20), 0);
        queue.enqueue(&"a", 6);
        assert_eq!((queue.busy(5), queue.busy(6)), (0, 1), "although it is not due before 10");
    }

    #[test]
    fn a_back_off_is_cleared_by_time_and_not_by_a_request() {
        let mut queue = DueQueue::default();
        queue.enqueue(&"a", 0);
        assert_eq!(queue.pop(0), Some("a"));
        queue.complete(&"a", Some(100));
        queue.enqueue(&"a", 1);
        assert_eq!(queue.pop(99), None);
        assert_eq!(queue.pop(100), Some("a"));
    }

    #[test]
    fn a_waiting_addition_ages_into_its_turn_before_later_revocations() {
        let mut queue = DueQueue::default();
        queue.enqueue(&"addition", 10);
        for now in 0..10 {
            queue.enqueue(&"revocation", now);
            assert_eq!(queue.pop(now), Some("revocation"));
            queue.complete(&"revocation", None);
        }
        queue.enqueue(&"revocation", 11);
        assert_eq!(queue.pop(11), Some("addition"));
    }

    proptest! {
        #[test]
        fn every_request_gets_a_turn_not_before_its_bound_and_never_two_at_once(
            steps in proptest::collection::vec((0_u8..4, 0_u64..20, any::<bool>()), 1..200)
        ) {
            let mut queue = DueQueue::default();
            let mut now = 0_u64;
            let mut bound = [0_u64; 4];
            let mut open = [false; 4];
            for (key, delay, fail) in steps {
                queue.enqueue(&key, now + delay);
                open[key as usize] = true;
                now += 1;
                if let Some(taken) = queue.pop(now) {
                    prop_assert!(now >= bound[taken as usize]);
                    open[taken as usize] = false;
                    let not_before = fail.then_some(now + 7);
                    bound[taken as usize] = not_before.unwrap_or(0);
                    queue.complete(&taken, not_before);
                }
            }
            now += 1000;
            while let Some(taken) = queue.pop(now) {
                open[taken as usize] = false;
                queue.complete(&taken, None);
            }
            prop_assert_eq!(open, [false; 4]);
        }
    }
}
