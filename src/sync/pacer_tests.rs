//! Backlogs of removals and additions in one region, scheduled by [`Lanes`], against a token bucket as Google has it.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of calls and seconds of a model, all of them small"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::{DocumentKey, Randomness, Region};
use crate::sync::fair::Share;
use crate::sync::lanes::{Admission, After, Lanes, Purpose};

/// Google's quota.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: f64,
    tokens: f64,
    at: f64,
    /// Time from which it counts.
    from: f64,
}

impl Bucket {
    fn new(rate: f64, tokens: f64) -> Self {
        Self { rate, tokens, at: 0.0, from: 0.0 }
    }

    fn accepts(&mut self, at: f64) -> bool {
        if at < self.from {
            return true;
        }
        self.tokens = (self.tokens + (at - self.at.max(self.from)) * self.rate).min(self.rate * 60.0);
        self.at = at;
        let accepted = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(accepted));
        accepted
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Read,
    Write,
    Arrive,
    Answer { accepted: bool },
}

/// A backlog, and what becomes of it.
struct Backlog {
    random: Randomness,
    bucket: Bucket,
    retry_after: Option<Duration>,
    /// True when refusals say what the quota is.
    says: bool,
    /// Longest time of a call.
    latency: f64,
    lanes: Lanes,
    start: Instant,
    now: f64,
    /// Steps of attempts by time.
    steps: BTreeMap<(u64, usize), (DocumentKey, Step, f64)>,
    steps_made: usize,
    waiting: Vec<DocumentKey>,
    open: BTreeMap<DocumentKey, Lane>,
    calls: usize,
    reads: usize,
    done: BTreeMap<DocumentKey, f64>,
}

fn region() -> Region {
    Region::new("p", "l")
}

impl Backlog {
    fn new(seed: u64, bucket: Bucket, (retry_after, says): (Option<Duration>, bool), latency: f64) -> Self {
        Self {
            random: Randomness::new(Some(seed)),
            bucket,
            retry_after,
            says,
            latency,
            lanes: Lanes::default(),
            start: Instant::now(),
            now: 0.0,
            steps: BTreeMap::new(),
            steps_made: 0,
            waiting: Vec::new(),
            open: BTreeMap::new(),
            calls: 0,
            reads: 0,
            done: BTreeMap::new(),
        }
    }

    fn instant(&self, at: f64) -> Instant {
        self.start + Duration::from_secs_f64(at)
    }

    /// Enqueues as many documents of a namespace.
    fn enqueue(&mut self, namespace: &str, count: usize, lane: Lane) {
        let at = self.instant(self.now);
        for n in 0..count {
            let key: DocumentKey = format!("run:projects/p/locations/l/services/{namespace}-{n}").parse().unwrap();
            self.lanes.enqueue(&key, lane, Purpose::Write, at);
            self.lanes.share(&key, vec![Share::from(namespace)]);
            self.open.insert(key, lane);
        }
    }

    fn step(&mut self, key: DocumentKey, step: Step, begun: f64, after: f64) {
        self.steps_made += 1;
        // Microseconds are exact as a key.
        let at = ((self.now + after) * 1e6) as u64;
        self.steps.insert((at, self.steps_made), (key, step, begun));
    }

    fn some_time(&self) -> f64 {
        self.latency * (0.25 + 0.75 * self.random.fraction())
    }

    fn complete(&mut self, key: &DocumentKey, again: bool) {
        let now = self.instant(self.now);
        self.lanes.complete(key, false, [After::default(); 2], now);
        let lane = self.open[key];
        if again {
            self.lanes.enqueue(key, lane, Purpose::Write, now);
        } else {
            self.done.insert(key.clone(), self.now);
            self.open.remove(key);
        }
    }

    fn admit(&mut self, key: DocumentKey) {
        let now = self.instant(self.now);
        match self.lanes.admit_write(&key, self.open[&key], now) {
            Admission::Now => {
                self.lanes.begin_write(&key, now);
                self.calls += 1;
                let time = self.some_time() / 2.0;
                self.step(key, Step::Arrive, self.now, time);
            }
            Admission::Soon => self.waiting.push(key),
            Admission::Later => self.complete(&key, true),
        }
    }

    fn made(&mut self, key: DocumentKey, step: Step, begun: f64) {
        let (now, at) = (self.instant(self.now), self.instant(begun));
        match step {
            Step::Read => {
                self.reads += 1;
                self.lanes.end_call(&region(), Call::Read);
                self.lanes.answered(&region(), Call::Read, at, now);
                self.admit(key);
            }
            Step::Write => self.admit(key),
            Step::Arrive => {
                let accepted = self.bucket.accepts(self.now);
                self.step(key, Step::Answer { accepted }, begun, self.now - begun);
            }
            Step::Answer { accepted } => {
                if accepted {
                    self.lanes.answered(&region(), Call::Write, at, now);
                } else {
                    let per_minute = self.says.then(|| (self.bucket.rate * 60.0).round() as u32);
                    let answer = Throttled { begun: at, now, retry_after: self.retry_after, per_minute };
                    self.lanes.throttled(&region(), Call::Write, &answer);
                }
                self.lanes.end_call(&region(), Call::Write);
                self.complete(&key, !accepted);
                for key in std::mem::take(&mut self.waiting) {
                    self.step(key, Step::Write, self.now, 0.0);
                }
            }
        }
    }

    /// Runs until this time, or until nothing is left.
    fn run(&mut self, until: f64) {
        while !self.open.is_empty() && self.now < until {
            while let Some((key, _)) = self.lanes.pop(self.instant(self.now)) {
                self.lanes.begin_read(&key, self.instant(self.now));
                let time = self.some_time();
                self.step(key, Step::Read, self.now, time);
            }
            let step = self.steps.first_key_value().map(|((at, _), _)| *at as f64 / 1e6);
            let due = self.lanes.next_due(self.instant(self.now)).map(|due| (due - self.start).as_secs_f64() + 1e-6);
            let next = [step, due].into_iter().flatten().fold(f64::INFINITY, f64::min);
            assert!(next.is_finite(), "{} are left and nothing happens", self.open.len());
            self.now = next.max(self.now);
            while let Some(entry) = self.steps.first_entry().filter(|entry| entry.key().0 as f64 / 1e6 <= self.now) {
                let (key, step, begun) = entry.remove();
                self.made(key, step, begun);
            }
        }
    }

    /// The process is killed and started again: it knows nothing, and looks at everything that is left.
    fn restart(&mut self) {
        for (_, (key, step, _)) in std::mem::take(&mut self.steps) {
            let written = match step {
                Step::Arrive => self.bucket.accepts(self.now),
                Step::Answer { accepted } => accepted,
                Step::Read | Step::Write => false,
            };
            // The next read shows that the write was done.
            if written {
                self.open.remove(&key);
                self.done.insert(key, self.now);
            }
        }
        self.waiting.clear();
        self.lanes = Lanes::default();
        for (key, lane) in &self.open {
            self.lanes.enqueue(key, *lane, Purpose::Look, self.instant(self.now));
        }
    }

    fn last(&self, of: &str) -> f64 {
        let of_them = self.done.iter().filter(|(key, _)| key.name().starts_with(of));
        of_them.map(|(_, at)| *at).fold(0.0, f64::max)
    }

    /// Compares with what was necessary and possible, for `count` writes with `tokens` at the start.
    fn compare(&self, count: usize, tokens: f64, more: f64) -> Result<(), TestCaseError> {
        let bound = ((count as f64 - tokens) / self.bucket.rate).max(0.0) + self.bucket.from;
        // A second or a token, whichever is longer; the calls themselves; and what the case allows in addition.
        let slack = (1.0 / self.bucket.rate).max(1.0) + 0.5 + 4.0 * self.latency + more;
        let (calls, last) = (self.calls, self.last(""));
        prop_assert!(calls * 10 <= count * 11, "{calls} calls for {count}; the last at {last:.1} of {bound:.1}");
        prop_assert!(
            last <= bound.max(self.unpaced(count)) + slack,
            "the last at {last:.1} of {bound:.1}; {calls} calls"
        );
        Ok(())
    }

    /// The time that so many calls take without a quota.
    fn unpaced(&self, count: usize) -> f64 {
        count as f64 * self.latency * 2.0 / FEW as f64
    }
}

fn latency() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.005), Just(0.05), Just(0.2)]
}

/// What a refusal says: when to call again, and the quota.
fn said() -> impl Strategy<Value = (Option<Duration>, bool)> {
    (prop_oneof![Just(None), Just(Some(Duration::from_secs(1)))], any::<bool>())
}

proptest! {
    #[test]
    fn backlog_takes_few_more_calls_than_it_has_documents_and_no_longer_than_the_quota_allows(
        seed: u64, per_minute in 30_u32..90, full in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0],
        latency in latency(), said in said(), additions in 0_usize..60, removals in 100_usize..200,
    ) {
        let rate = f64::from(per_minute) / 60.0;
        let tokens = rate * 60.0 * full;
        let mut backlog = Backlog::new(seed, Bucket::new(rate, tokens), said, latency);
        backlog.enqueue("many", removals, Lane::Removal);
        backlog.enqueue("other", additions, Lane::Addition);
        backlog.run(f64::INFINITY);
        backlog.compare(removals + additions, tokens, 0.0)?;
        let bound = ((removals as f64 - tokens) / rate).max(0.0);
        // At low rates additions that have waited long have a turn now and then.
        let turns = bound / 60.0 / rate;
        let (last, slack) = (backlog.last("many"), (1.0 / rate).max(1.0) + 0.5 + 4.0 * latency + turns);
        prop_assert!(last <= bound.max(backlog.unpaced(removals + 8)) + slack, "the last removal at {last:.1} of {bound:.1}");
    }

    #[test]
    fn restart_in_the_middle_of_a_backlog_costs_few_calls_and_no_time(
        seed: u64, full in 0.0..1.0, latency in latency(), said in said(), at in 1.0..100.0,
    ) {
        let tokens = 60.0 * full;
        let mut backlog = Backlog::new(seed, Bucket::new(1.0, tokens), said, latency);
        backlog.enqueue("many", 120, Lane::Removal);
        backlog.run(at);
        backlog.restart();
        backlog.run(f64::INFINITY);
        // A limit that is not named is learned twice: two calls and a second more.
        let twice = if said.1 { 0 } else { 2 };
        backlog.compare(120 + twice, tokens + twice as f64, 0.5 + twice as f64 / 2.0)?;
    }

    #[test]
    fn quota_that_begins_later_costs_few_calls(seed: u64, latency in latency(), from in 0.0..4.0, said in said()) {
        let bucket = Bucket { from, ..Bucket::new(1.0, 60.0) };
        let mut backlog = Backlog::new(seed, bucket, said, latency);
        backlog.enqueue("many", 400, Lane::Removal);
        backlog.run(f64::INFINITY);
        let before = backlog.calls - 60;
        prop_assert!(backlog.calls <= 440, "{} calls, {before}", backlog.calls);
    }

    #[test]
    fn namespace_with_few_documents_does_not_wait_for_the_many_of_another(seed: u64, latency in latency()) {
        let mut backlog = Backlog::new(seed, Bucket::new(1.0, 0.0), (None, false), latency);
        backlog.enqueue("many", 300, Lane::Addition);
        backlog.run(30.0);
        let begun = backlog.now;
        backlog.enqueue("few", 2, Lane::Addition);
        backlog.run(60.0);
        let after = backlog.last("few") - begun;
        prop_assert!(backlog.done.keys().filter(|key| key.name().starts_with("few")).count() == 2);
        prop_assert!(after <= 6.0, "after {after:.1} s");
    }

    #[test]
    fn refusals_follow_each_other_ever_more_slowly_while_nothing_is_accepted(seed: u64, latency in latency()) {
        let mut backlog = Backlog::new(seed, Bucket::new(1e-9, 0.0), (None, false), latency);
        backlog.enqueue("many", 50, Lane::Removal);
        backlog.run(600.0);
        prop_assert!(backlog.calls <= 90, "{} calls in ten minutes", backlog.calls);
    }
}

#[test]
fn quota_that_becomes_larger_is_used_and_one_that_becomes_smaller_is_noticed() {
    let mut backlog = Backlog::new(1, Bucket::new(1.0, 60.0), (None, false), 0.05);
    backlog.enqueue("many", 1000, Lane::Removal);
    backlog.run(60.0);
    backlog.bucket.rate = 10.0;
    backlog.run(180.0);
    let done = backlog.done.len();
    assert!(done >= 600, "{done} after two minutes at ten a second");
    let (calls, begun) = (backlog.calls, backlog.done.len());
    backlog.bucket = Bucket { at: backlog.now, ..Bucket::new(0.5, 0.0) };
    backlog.run(300.0);
    let (calls, done) = (backlog.calls - calls, backlog.done.len() - begun);
    assert!(calls <= done + 25, "{calls} calls for {done}");
}

#[test]
fn backlog_reads_each_document_once_and_again_only_where_a_write_was_refused() {
    let mut backlog = Backlog::new(1, Bucket::new(1.0, 60.0), (None, false), 0.05);
    backlog.enqueue("many", 200, Lane::Addition);
    backlog.run(f64::INFINITY);
    let keys: BTreeSet<&DocumentKey> = backlog.done.keys().collect();
    assert_eq!(keys.len(), 200);
    assert!(backlog.reads <= 200 + 8 + PER_REGION_READS, "{} reads", backlog.reads);
}

/// Attempts that had read their document when the first write was refused.
const PER_REGION_READS: usize = 32;

#[test]
fn google_is_not_asked_before_the_time_it_named_and_removals_wait_a_minute_at_most() {
    let (mut pacer, now) = (Pacer::new(Call::Write), Instant::now());
    pacer.throttled(&Throttled { begun: now, now, retry_after: Some(Duration::from_secs(30)), per_minute: None });
    assert_eq!(pacer.opens(Lane::Removal, now), Some(now + Duration::from_secs(30)));
    pacer.throttled(&Throttled { begun: now, now, retry_after: Some(Duration::from_mins(10)), per_minute: None });
    assert_eq!(pacer.opens(Lane::Removal, now), Some(now + Duration::from_mins(1)));
    assert_eq!(pacer.opens(Lane::Addition, now), Some(now + Duration::from_mins(10)));
}

#[test]
fn limit_is_forgotten_after_ten_minutes_without_a_refusal() {
    let (mut pacer, now) = (Pacer::new(Call::Write), Instant::now());
    assert!(!pacer.is_limited(now));
    pacer.throttled(&Throttled { begun: now, now, retry_after: None, per_minute: None });
    assert!(pacer.is_limited(now + Duration::from_mins(9)) && pacer.per_minute(now).is_some());
    assert!(!pacer.is_limited(now + Duration::from_mins(10)));
}
