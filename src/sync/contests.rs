//! Grants that rolecall makes and somebody else keeps taking away. Pure: time is passed in.
//!
//! ```text
//! granted again three times within ten minutes ─► contested: granted again after 1, 2, 4 … 30 minutes
//! stood for ten minutes, or twice the last delay ─► over
//! ```

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::model::{MappingKey, Role};
use crate::plan::{Cause, Plan, Step};

/// Number of times that a grant is made again within [`WINDOW`] before it counts as contested.
const OFTEN: usize = 3;
/// Time within which they count. A person who tries something out needs longer for that.
pub(super) const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Delay of the next attempt when a grant becomes contested; doubles each time.
const DELAY: SignedDuration = SignedDuration::from_mins(1);
const DELAY_MAX: SignedDuration = SignedDuration::from_mins(30);

/// A grant of one document, by role and the id of the first subject that it is claimed for. The audit trail knows no
/// more.
pub(super) type ContestKey = (Role, String);

#[derive(Debug, Default)]
struct Contest {
    /// Times at which the grant was made again, within the window.
    reverted: Vec<Timestamp>,
    /// Since when it is contested, and how often it was made again since.
    contested: Option<(Timestamp, u32)>,
    mappings: BTreeSet<MappingKey>,
}

impl Contest {
    fn delay(&self) -> Option<SignedDuration> {
        let (_, times) = self.contested?;
        Some(DELAY.saturating_mul(1 << times.min(8)).min(DELAY_MAX))
    }

    /// Time before which it is not granted again.
    fn until(&self) -> Option<Timestamp> {
        self.reverted.last()?.saturating_add(self.delay()?).ok()
    }

    fn revert(&mut self, at: Timestamp) {
        self.reverted.retain(|before| at.duration_since(*before) <= WINDOW);
        self.reverted.push(at);
        match &mut self.contested {
            Some((_, times)) => *times += 1,
            None if self.reverted.len() >= OFTEN => self.contested = Some((at, 0)),
            None => {}
        }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        let quiet = self.delay().map_or(WINDOW, |delay| delay.saturating_mul(2).max(WINDOW));
        self.reverted.last().is_none_or(|last| now.duration_since(*last) > quiet)
    }
}

/// The contested grants of one document, and those that may become so.
#[derive(Debug, Default)]
pub(super) struct Contests(BTreeMap<ContestKey, Contest>);

fn key(step: &Step) -> ContestKey {
    let subject = step.row.claims.first().map(|claim| claim.subject.id().to_string());
    (step.grant().role.clone(), subject.unwrap_or_default())
}

impl Contests {
    /// Records what an acknowledged write granted again.
    pub(crate) fn reverted(&mut self, plan: &Plan, now: Timestamp) {
        for step in plan.add.iter().filter(|step| step.cause == Cause::Missing) {
            let contest = self.0.entry(key(step)).or_default();
            contest.mappings = step.row.claims.iter().map(|claim| claim.mapping.clone()).collect();
            contest.revert(now);
        }
    }

    /// Records a grant that was found missing before the start, according to the audit trail.
    pub(crate) fn restore(&mut self, key: ContestKey, at: Timestamp) {
        self.0.entry(key).or_default().revert(at);
    }

    /// Forgets grants that stood for long. Returns whether one of them was contested.
    pub(crate) fn expire(&mut self, now: Timestamp) -> bool {
        let before = self.contested(None).count();
        self.0.retain(|_, contest| !contest.is_over(now));
        before != self.contested(None).count()
    }

    /// Forgets the grants of mappings that want nothing here any more.
    pub(crate) fn retain(&mut self, wants: impl Fn(&MappingKey) -> bool) {
        self.0.retain(|_, contest| contest.mappings.is_empty() || contest.mappings.iter().any(&wants));
    }

    /// Until when this addition is left out; none when it is not.
    pub(crate) fn held(&self, step: &Step, now: Timestamp) -> Option<Timestamp> {
        if step.cause != Cause::Missing {
            return None;
        }
        self.0.get(&key(step))?.until().filter(|until| *until > now)
    }

    /// Since when grants are contested, one entry for each: of one mapping, or of all.
    pub(crate) fn contested(&self, of: Option<&MappingKey>) -> impl Iterator<Item = Timestamp> {
        // Those of before the start have no mapping until they are granted again.
        let is_of = move |contest: &Contest| {
            of.is_none_or(|mapping| contest.mappings.is_empty() || contest.mappings.contains(mapping))
        };
        self.0.values().filter(move |contest| is_of(contest)).filter_map(|contest| Some(contest.contested?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn third_time_within_ten_minutes_makes_a_contest_and_each_further_one_doubles_the_delay() {
        let mut contest = Contest::default();
        contest.revert(at(0));
        contest.revert(at(11));
        contest.revert(at(12));
        assert_eq!(contest.until(), None, "the first one was long ago");
        contest.revert(at(13));
        assert_eq!(contest.until(), Some(at(14)));
        for (time, until) in [(14, 16), (16, 20), (20, 28), (28, 44), (44, 74), (74, 104)] {
            contest.revert(at(time));
            assert_eq!(contest.until(), Some(at(until)));
        }
    }

    #[test]
    fn contest_is_over_when_the_grant_stood_for_twice_the_delay() {
        let mut contest = Contest::default();
        for minute in 0..3 {
            contest.revert(at(minute));
        }
        assert!(!contest.is_over(at(12)) && contest.is_over(at(13)));
        for minute in [3, 5, 9, 17] {
            contest.revert(at(minute));
        }
        assert!(!contest.is_over(at(17 + 32)) && contest.is_over(at(17 + 33)));
    }
}
