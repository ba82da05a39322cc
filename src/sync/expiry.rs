//! Ends grants at their `notAfter`, by the wall clock.
//!
//! Which grants have ended is decided by a time that does not follow the clock back a little: what has ended does not come
//! back because a clock is corrected. A clock that goes back further was wrong before, and then the time follows it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lanes::{Lane, Purpose};
use super::state::{State, Trigger};
use super::{Inner, revocation_due_at};

/// How far a clock may go back without bringing anything back.
const CORRECTED: SignedDuration = SignedDuration::from_hours(1);
/// How long before everything else a grant is due that ended while no process ran.
const OVERDUE: Duration = Duration::from_mins(1);

pub(super) async fn follow(inner: Arc<Inner>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        inner.end_grants().await;
        let pause = {
            let state = inner.state();
            let next = state.catalog.next_end().map(|end| end.duration_since(inner.clock.now()));
            let until = next.map(|until| Duration::try_from(until).unwrap_or(Duration::ZERO));
            // A clock may be set meanwhile, forwards or back.
            state.catalog.has_ends().then(|| until.unwrap_or(Duration::MAX).min(inner.config.clock_check))
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = inner.ends.notified() => {}
            () = super::sleep_until(pause.map(|pause| Instant::now() + pause)) => {}
        }
    }
}

impl State {
    /// The time by which ends of grants are decided when the clock shows `now`.
    pub(super) fn as_of(&self, now: Timestamp) -> Timestamp {
        self.ended_at.filter(|ended| now < *ended && ended.duration_since(now) <= CORRECTED).unwrap_or(now)
    }

    /// Follows the clock as long as nothing ends by that, and nothing comes back.
    pub(super) fn follow_clock(&mut self, now: Timestamp) {
        let as_of = self.as_of(now);
        if as_of > self.catalog.as_of() && self.catalog.next_end().is_none_or(|end| end > as_of) {
            let _ = self.catalog.advance_to(as_of);
        }
    }
}

impl Inner {
    /// Ends what has ended by now, and makes it due.
    pub(super) async fn end_grants(&self) {
        let _at_work = self.at_work();
        let now = self.clock.now();
        let (as_of, ended) = {
            let state = self.state();
            let as_of = state.as_of(now);
            (as_of, state.catalog.last_end(as_of).filter(|end| state.ended_at.is_none_or(|known| known < *end)))
        };
        if let Some(ended) = ended {
            // A restart with a clock that was set back must not bring it back. Without the store nothing is removed either.
            if let Err(error) = self.store.set_ended_at(ended).await {
                tracing::warn!(%error, "cannot store the time at which grants ended");
            }
        }
        let effects = {
            let mut state = self.state();
            if ended.is_some() {
                state.ended_at = ended;
            } else if let Some(ended) = state.ended_at.take_if(|ended| now < *ended && as_of == now) {
                tracing::warn!(
                    "the clock went back by {}: grants that ended meanwhile are in force again",
                    ended.duration_since(now)
                );
            }
            state.catalog.advance_to(as_of)
        };
        if effects != crate::catalog::Effects::default() {
            self.apply_effects(effects, &Trigger::at(now)).await;
        }
    }

    /// Makes the documents due before all others on which grants have ended. For the start, when everything is due.
    pub(super) fn ask_ended(&self) {
        let ended: Vec<_> = self.state().catalog.ended_documents().into_iter().cloned().collect();
        if ended.is_empty() {
            return;
        }
        let due = revocation_due_at(Instant::now());
        let due = due.checked_sub(OVERDUE).unwrap_or(due);
        {
            let mut queue = self.queue();
            for document in &ended {
                queue.enqueue(document, Lane::Removal, Purpose::Write, due);
            }
        }
        self.due.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Ceiling};

    #[test]
    fn time_does_not_go_back_across_an_end_unless_by_more_than_an_hour() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut state = State::new(Catalog::new(Ceiling::Enforce));
        let noon = at("2027-03-31T12:00:00Z");
        assert_eq!(state.as_of(noon), noon);
        state.ended_at = Some(noon);
        for (clock, expected) in [
            ("2027-03-31T12:00:01Z", "2027-03-31T12:00:01Z"),
            ("2027-03-31T11:59:59Z", "2027-03-31T12:00:00Z"),
            ("2027-03-31T11:00:00Z", "2027-03-31T12:00:00Z"),
            ("2027-03-31T10:59:59Z", "2027-03-31T10:59:59Z"),
        ] {
            assert_eq!(state.as_of(at(clock)), at(expected), "{clock}");
        }
    }
}
