//! Random faults, drawn from a seeded generator.

use std::collections::VecDeque;
use std::time::Duration;

use super::{DocumentKey, ErrorKind, Fault, State, TargetError, denied, error};
use crate::model::{Randomness, Reason};

/// Frequency of each fault, per thousand calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Chances {
    /// A call takes up to half a minute.
    pub(crate) slow: u64,
    /// A read returns the version before the last one.
    pub(crate) stale: u64,
    /// The target cannot be reached.
    pub(crate) unavailable: u64,
    /// The call is throttled.
    pub(crate) throttled: u64,
    /// The answer of a write is lost. Of three such writes, one is done, one is not, and one arrives late.
    pub(crate) lost: u64,
    /// A list fails or is partial.
    pub(crate) list: u64,
}

/// The fault of one list.
#[derive(Debug, Default)]
pub(super) struct ListFault {
    pub(super) error: Option<TargetError>,
    pub(super) partial: bool,
    pub(super) time: Option<Duration>,
}

/// Usual one-way duration of a call.
const USUAL_MS: u64 = 60;
/// Longest duration of a slow call.
const SLOW_MS: u64 = 30_000;
/// Latest arrival of a late write.
const LATE_MS: u64 = 120_000;

fn below(random: &Randomness, most: u64) -> u64 {
    random.draw() % most.max(1)
}

fn happens(random: &Randomness, of_thousand: u64) -> bool {
    below(random, 1000) < of_thousand
}

fn some_time(random: &Randomness, most_ms: u64) -> Duration {
    Duration::from_millis(1 + below(random, most_ms))
}

/// Draws a fault common to reads and writes.
fn of_any(chances: &Chances, random: &Randomness) -> Option<Fault> {
    if happens(random, chances.unavailable) {
        return Some(Fault::Error(error(ErrorKind::Unavailable, Reason::GoogleUnavailable)));
    }
    if happens(random, chances.throttled) {
        let retry_after = (below(random, 2) == 0).then(|| some_time(random, 20_000));
        return Some(Fault::Error(error(
            ErrorKind::Throttled { retry_after, per_minute: None },
            Reason::QuotaExceeded,
        )));
    }
    None
}

impl State {
    fn told(queue: Option<&mut VecDeque<Fault>>) -> Option<Fault> {
        queue.and_then(VecDeque::pop_front)
    }

    /// Draws the fault and the duration of a read.
    pub(super) fn draw_read(&mut self, document: &DocumentKey) -> (Option<Fault>, Duration) {
        if let Some(fault) = Self::told(self.reads.get_mut(document)) {
            return (Some(fault), Duration::ZERO);
        }
        if self.denied.contains(document) {
            return (Some(Fault::Error(denied())), Duration::ZERO);
        }
        let Some((chances, random)) = &self.chances else { return (None, Duration::ZERO) };
        let time = some_time(random, if happens(random, chances.slow) { SLOW_MS } else { 2 * USUAL_MS });
        let fault = of_any(chances, random).or_else(|| happens(random, chances.stale).then_some(Fault::Stale));
        (fault, time)
    }

    /// Draws the fault of a write, and the durations of the write and of its answer.
    pub(super) fn draw_write(&mut self, document: &DocumentKey) -> (Option<Fault>, Duration, Duration) {
        if let Some(fault) = Self::told(self.writes.get_mut(document)) {
            return (Some(fault), Duration::ZERO, Duration::ZERO);
        }
        let Some((chances, random)) = &self.chances else { return (None, Duration::ZERO, Duration::ZERO) };
        let there = some_time(random, if happens(random, chances.slow) { SLOW_MS } else { USUAL_MS });
        let back = some_time(random, if happens(random, chances.slow) { SLOW_MS } else { USUAL_MS });
        let lost = || match below(random, 3) {
            0 => Fault::AnswerLost,
            1 => Fault::NeverArrived,
            _ => Fault::Late(some_time(random, LATE_MS)),
        };
        let fault = of_any(chances, random).or_else(|| happens(random, chances.lost).then(lost));
        (fault, there, back)
    }

    /// Draws the fault of a list.
    pub(super) fn draw_list(&mut self) -> ListFault {
        let Some((chances, random)) = &self.chances else { return ListFault::default() };
        let time = Some(some_time(random, if happens(random, chances.slow) { SLOW_MS } else { 2 * USUAL_MS }));
        match happens(random, chances.list).then(|| below(random, 3)) {
            None => ListFault { time, ..ListFault::default() },
            Some(0) => ListFault { time, partial: true, ..ListFault::default() },
            Some(1) => ListFault { time, error: Some(denied()), ..ListFault::default() },
            Some(_) => ListFault {
                time,
                error: Some(error(ErrorKind::Unavailable, Reason::GoogleUnavailable)),
                ..ListFault::default()
            },
        }
    }
}
