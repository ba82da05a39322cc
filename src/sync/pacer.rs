//! Paces the calls of one kind (reads or writes) in one project and region, where Google counts them against a quota.
//!
//! ```text
//! no limit known ── refused ──► a bucket of tokens, of which only this is known: it was empty when a call was refused
//!        ▲                             │
//!        └──── ten minutes without ────┘  each refusal bounds the rate from above, by the calls accepted since the others
//! ```
//!
//! Calls are sent at the highest rate that the refusals do not contradict. It is never lower than the true one, so no
//! token is left behind; and each refusal about halves the error, so there are few. Where nothing is refused for much
//! longer than that predicts, the rate rises. Until a limit is known, few calls are under way at a time, because all of
//! them are refused when the quota ends. Pure: time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::lanes::Lane;

/// Longest accepted delay of a removal, whatever Google asks for.
const REMOVAL_MAX: Duration = Duration::from_mins(1);
/// A quota that refused nothing for this long is not known any more.
const FORGOTTEN: Duration = Duration::from_mins(10);
/// Refusals that are older say nothing about the current rate.
const CURRENT: Duration = Duration::from_mins(3);
/// Google counts quotas by the minute: an unused quota is full after this time.
const PERIOD: Duration = Duration::from_mins(1);
/// Level of the bucket after a refusal, in tokens: less than one, and how much less is hardly known.
const AFTER_REFUSAL: f64 = 0.25;
/// Accepted calls after which the rate rises, beyond those that a refusal was expected after.
const PATIENCE: u32 = 8;
/// The same while no refusal after the first ones bounds the rate: it is little more than a guess.
const PATIENCE_AT_FIRST: u32 = 4;
/// Factor to the rate that Google names, so that the part of a token that a refusal leaves open is not left behind.
const SLIGHTLY_MORE: f64 = 1.02;
/// The largest number of accepted calls after which a refusal is expected, so that a quota that grew is noticed.
const EXPECTED: u32 = 40;
/// The rise of the rate, with each accepted call at first, and each second one later.
const RISE: f64 = 1.25;
/// Lowest rate, in calls per second: a call now and then finds out when a long outage of the quota ends.
const LOWEST: f64 = 0.125;
/// Concurrent calls while no limit is known and few were accepted.
const FEW: usize = 4;
/// The part of the recently accepted calls that may be under way at a time, and so be refused together.
const PART: usize = 32;
/// Concurrent calls while no limit is known, at most.
const MANY: usize = 16;

/// The kinds of calls that Google counts separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
}

impl Call {
    /// The word in logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Write => "writes",
        }
    }

    /// The calls per second that are assumed after the first refusal: the usual quota of a project and region is 600
    /// reads and 60 writes a minute.
    fn usual(self) -> f64 {
        match self {
            Self::Read => 10.0,
            Self::Write => 1.0,
        }
    }
}

/// A refusal because of the quota.
#[derive(Debug, Clone, Copy)]
pub(super) struct Throttled {
    /// Time at which the call was sent.
    pub(crate) begun: Instant,
    /// Time of the refusal.
    pub(crate) now: Instant,
    /// The delay that Google asks for.
    pub(crate) retry_after: Option<Duration>,
    /// The calls per minute that Google permits to all clients together.
    pub(crate) per_minute: Option<u32>,
}

/// What is known about a limit.
#[derive(Debug)]
struct Limit {
    /// Calls per second.
    rate: f64,
    /// The most that Google permits according to its last refusal.
    most: Option<f64>,
    /// Tokens at a time.
    level: f64,
    at: Instant,
    /// Answer of the first refusal, and the calls accepted that were sent after it.
    from: Instant,
    accepted: u32,
    /// Others that were under way at the last refusal: they may have been accepted before it.
    beside: u32,
    /// The refusals that say something about the rate, with the number of calls accepted before each.
    refusals: VecDeque<(Instant, u32)>,
    /// Calls accepted since the last refusal, and the number after which that was expected.
    since: u32,
    expected: u32,
    /// Answer of the last refusal that counted.
    last: Instant,
    /// Tokens that were left at the last refusal, at least.
    left: f64,
}

impl Limit {
    fn level(&self, now: Instant) -> f64 {
        let most = (self.rate * PERIOD.as_secs_f64()).max(1.0);
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        (self.level + gained).min(most)
    }

    fn set(&mut self, now: Instant, level: f64) {
        (self.level, self.at) = (level, self.at.max(now));
    }

    /// Time of the next token.
    fn opens(&self, now: Instant) -> Instant {
        let missing = 1.0 - self.level(now);
        // A rounding error must not make a caller wait for no time.
        if missing <= 1e-6 {
            now
        } else {
            now + Duration::from_secs_f64(missing / self.rate) + Duration::from_micros(1)
        }
    }

    fn accept(&mut self, now: Instant) {
        self.accepted += 1;
        self.since += 1;
        let (patience, every) = match (self.most, self.expected) {
            // What Google said may be out of date.
            (Some(_), _) => (EXPECTED, 2),
            (None, 0) => (PATIENCE_AT_FIRST, 1),
            (None, _) => (PATIENCE, 2),
        };
        if self.since > self.expected + self.expected / 2 + patience && self.since.is_multiple_of(every) {
            let level = self.level(now);
            self.rate *= RISE;
            self.set(now, level);
        }
    }

    /// Upper bound of the rate, from the calls accepted since a refusal: the bucket held less than one token then, and
    /// holds less than one now. `part`: how much of that uncertainty counts.
    fn bound(&self, (at, accepted): (Instant, u32), now: Instant, part: f64) -> f64 {
        let time = now.saturating_duration_since(at).as_secs_f64().max(1e-3);
        (f64::from(self.accepted + self.beside - accepted) + part) / time
    }

    fn refuse(&mut self, answer: &Throttled, beside: u32) {
        self.beside = beside;
        let Throttled { begun, now, per_minute, .. } = *answer;
        if let Some(per_minute) = per_minute {
            self.most = Some(f64::from(per_minute) / PERIOD.as_secs_f64() * SLIGHTLY_MORE);
        }
        while self.refusals.front().is_some_and(|(at, _)| begun.saturating_duration_since(*at) > CURRENT) {
            self.refusals.pop_front();
        }
        if let Some(first) = self.refusals.front().copied() {
            // Over many calls the middle is near enough; over a few, a rate that is too low costs more than a refusal.
            // What Google named counts until it is contradicted.
            let part = if self.most.is_some() || self.accepted - first.1 < 4 { 1.0 } else { 0.5 };
            let of_first = self.bound(first, begun, part);
            let later = self.refusals.iter().skip(1).map(|refusal| self.bound(*refusal, begun, 1.0));
            let rate = later.fold(of_first, f64::min);
            // The quota changed, or others use it now: what is contradicted by the latest refusals counts no more.
            while self.refusals.len() > 1
                && self.refusals.front().is_some_and(|first| self.bound(*first, begun, 1.0) > rate * 2.0)
            {
                self.refusals.pop_front();
            }
            self.rate = rate.max(LOWEST);
        }
        if let Some(most) = self.most {
            self.rate = if self.refusals.is_empty() { most } else { self.rate.min(most) };
        }
        // Where the rate is known, so is what the bucket held at least. A contradiction means that others use it, too.
        let before = self.refusals.back().filter(|_| self.most.is_some_and(|most| self.rate >= most));
        let left = before.map_or(0.0, |(at, accepted)| {
            let gained = begun.saturating_duration_since(*at).as_secs_f64() * self.rate / SLIGHTLY_MORE;
            self.left + gained - f64::from(self.accepted + self.beside - accepted)
        });
        self.left = if (0.0..1.0).contains(&left) { left } else { 0.0 };
        self.expected = self.refusals.front().map_or(0, |(_, accepted)| self.accepted - accepted).min(EXPECTED);
        let again = self.refusals.back().is_some_and(|(_, accepted)| *accepted == self.accepted);
        if self.refusals.len() == 32 {
            self.refusals.remove(1);
        }
        self.refusals.push_back((begun, self.accepted));
        (self.since, self.last) = (0, now);
        // Tokens are counted from when the call was sent: the way there takes as long for the next one.
        let level = if again { self.left } else { self.left + AFTER_REFUSAL * (1.0 - self.left) };
        (self.level, self.at) = (level, begun);
    }
}

/// Calls accepted in about the last minute.
#[derive(Debug, Default)]
struct Recent {
    since: Option<Instant>,
    now: u32,
    before: u32,
}

impl Recent {
    fn turn(&mut self, now: Instant) {
        let Some(since) = self.since else {
            self.since = Some(now);
            return;
        };
        let passed = now.saturating_duration_since(since);
        if passed >= PERIOD {
            self.before = if passed < PERIOD * 2 { self.now } else { 0 };
            (self.now, self.since) = (0, Some(now));
        }
    }

    /// A lower bound of the rate, in calls per second: these calls came from the tokens of one period, at most, and
    /// those gained meanwhile.
    fn bound(&self, now: Instant) -> f64 {
        let passed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let time = PERIOD + passed + if self.before > 0 { PERIOD } else { Duration::ZERO };
        f64::from(self.now.saturating_add(self.before)) / time.as_secs_f64()
    }
}

/// The pace of one kind of calls.
#[derive(Debug)]
pub(super) struct Pacer {
    call: Call,
    limit: Option<Limit>,
    /// Time until which Google asked to wait, by lane.
    asked: [Option<Instant>; 2],
    /// Calls that are sent or about to be sent.
    under_way: usize,
    recent: Recent,
}

impl Pacer {
    pub(crate) fn new(call: Call) -> Self {
        Self { call, limit: None, asked: [None; 2], under_way: 0, recent: Recent::default() }
    }

    fn limit(&self, now: Instant) -> Option<&Limit> {
        self.limit.as_ref().filter(|limit| now.saturating_duration_since(limit.last) < FORGOTTEN)
    }

    /// True when a limit is known, so that calls wait for their turn.
    pub(crate) fn is_limited(&self, now: Instant) -> bool {
        self.limit(now).is_some()
    }

    /// Calls per minute that are sent at most; none: no limit is known.
    pub(crate) fn per_minute(&self, now: Instant) -> Option<f64> {
        self.limit(now).map(|limit| limit.rate * PERIOD.as_secs_f64())
    }

    /// Time at which the next call of this lane may be sent; none: now.
    pub(crate) fn opens(&self, lane: Lane, now: Instant) -> Option<Instant> {
        let token = self.limit(now).map(|limit| limit.opens(now));
        token.max(self.asked[lane as usize]).filter(|opens| *opens > now)
    }

    /// True when another call may be under way.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        let most = match (self.limit(now), self.call) {
            // Where calls follow each other fast, more of them are under way.
            (Some(limit), _) => {
                if limit.rate < 2.0 {
                    2
                } else {
                    8
                }
            }
            (None, Call::Read) => usize::MAX,
            (None, Call::Write) => {
                let accepted = self.recent.now.saturating_add(self.recent.before) as usize;
                (1 + accepted / FEW).min(FEW).max((accepted / PART).min(MANY))
            }
        };
        self.under_way < most
    }

    /// Records that a call is about to be sent.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.limit(now).is_none() {
            self.limit = None;
        }
        if let Some(limit) = &mut self.limit {
            let level = limit.level(now) - 1.0;
            limit.set(now, level);
        }
        self.under_way += 1;
    }

    /// Records that a call is not under way any more, or takes so long that others go on without it.
    pub(crate) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Records that a call was not sent after all.
    pub(crate) fn give_back(&mut self, now: Instant) {
        if let Some(limit) = &mut self.limit {
            let level = limit.level(now) + 1.0;
            limit.set(now, level);
        }
        self.end();
    }

    /// Records that Google accepted a call that was sent at `begun`, or refused it for another reason.
    pub(crate) fn answered(&mut self, begun: Instant, now: Instant) {
        self.recent.turn(now);
        self.recent.now += 1;
        // A call that was under way at the first refusal may have come before it. One that was at a later refusal
        // counts: it can only make the bound of the rate higher.
        if let Some(limit) = self.limit.as_mut().filter(|limit| begun >= limit.from) {
            limit.accept(now);
        }
    }

    /// Records a refused call.
    pub(crate) fn throttled(&mut self, answer: &Throttled) {
        let Throttled { begun, now, retry_after, .. } = *answer;
        if let Some(asked) = retry_after {
            for (lane, delay) in [(Lane::Removal, asked.min(REMOVAL_MAX)), (Lane::Addition, asked)] {
                let until = &mut self.asked[lane as usize];
                *until = (*until).max(Some(now + delay));
            }
        }
        // Calls that were already under way when another one was refused say nothing new.
        if self.limit.as_ref().is_some_and(|limit| begun <= limit.last) {
            return;
        }
        let usual = self.call.usual();
        // Calls that were accepted before there was a quota say nothing about it; very many of them do.
        let rate = Some(self.recent.bound(now)).filter(|bound| *bound > 4.0 * usual).unwrap_or(usual);
        let beside = u32::try_from(self.under_way.saturating_sub(1)).unwrap_or(u32::MAX);
        let limit = self.limit.get_or_insert_with(|| Limit {
            rate,
            most: None,
            level: 0.0,
            at: begun,
            from: now,
            accepted: 0,
            beside: 0,
            refusals: VecDeque::new(),
            since: 0,
            expected: 0,
            last: begun,
            left: 0.0,
        });
        limit.refuse(answer, beside);
        self.recent = Recent::default();
    }
}

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;
