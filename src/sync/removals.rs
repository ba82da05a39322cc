//! Removals that the target refuses although nothing is added with them, as an organization policy may. They are
//! narrowed down to single grants, so that the others are written, and tried again ever more rarely.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::model::{GrantKey, Reason};
use crate::plan::{Plan, Step};
use crate::target::Backoff;

/// Time until refused removals are tried again. Somebody keeps access meanwhile.
const AGAIN: Backoff = Backoff { cap: Duration::from_mins(2), ..Backoff::FAILURE };

/// Number of refused writes in a row after which removals that were refused together are no longer narrowed down.
const NARROWING: u32 = 12;

/// A removal that waits for its next try.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    until: Instant,
    tries: u32,
}

/// The last refusal.
#[derive(Debug, Clone)]
pub(super) struct RefusedRemovals {
    pub(crate) reason: Reason,
    /// The target's message. It may name people.
    pub(crate) message: String,
    /// Time of the first refusal.
    pub(crate) since: Timestamp,
}

/// The removals to write now.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) grants: BTreeSet<GrantKey>,
    /// Time until one of the others is due.
    pub(super) wait: Option<Duration>,
}

/// State of the removals of one document.
#[derive(Debug, Default)]
pub(super) struct Removals {
    waiting: BTreeMap<GrantKey, Waiting>,
    /// Largest number of removals per write; none: all.
    most: Option<usize>,
    refused_in_a_row: u32,
    pub(crate) refused: Option<RefusedRemovals>,
}

impl Removals {
    /// The removals of this plan to write now.
    pub(super) fn due(&mut self, plan: &Plan, now: Instant) -> Due {
        let planned: BTreeSet<&GrantKey> = plan.remove.iter().map(Step::grant).collect();
        self.waiting.retain(|grant, _| planned.contains(grant));
        if planned.is_empty() {
            *self = Self::default();
            return Due::default();
        }
        let waits = |grant: &&&GrantKey| self.waiting.get(**grant).is_none_or(|waiting| waiting.until <= now);
        let grants = planned.iter().filter(waits).take(self.most.unwrap_or(usize::MAX)).copied().cloned().collect();
        let next = self.waiting.values().map(|waiting| waiting.until).filter(|until| *until > now).min();
        Due { grants, wait: next.map(|next| next - now) }
    }

    /// Records that a write of these removals was refused.
    pub(super) fn refuse(
        &mut self,
        grants: &BTreeSet<GrantKey>,
        (reason, message): (Reason, &str),
        (now, at, random): (Instant, Timestamp, f64),
    ) {
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        let since = self.refused.as_ref().map_or(at, |refused| refused.since);
        self.refused = Some(RefusedRemovals { reason, message: message.to_owned(), since });
        if grants.len() > 1 && self.refused_in_a_row < NARROWING {
            self.most = Some(grants.len() / 2);
            return;
        }
        for grant in grants {
            let tries = self.waiting.get(grant).map_or(0, |waiting| waiting.tries.saturating_add(1));
            self.waiting.insert(grant.clone(), Waiting { until: now + AGAIN.delay(tries, random), tries });
        }
    }

    /// Records that a write of these removals was accepted.
    pub(super) fn accept(&mut self, grants: &BTreeSet<GrantKey>) {
        self.waiting.retain(|grant, _| !grants.contains(grant));
        self.refused_in_a_row = 0;
        self.most = self.most.map(|most| most.saturating_mul(2)).filter(|most| *most < 1024);
        if self.waiting.is_empty() && self.most.is_none() {
            self.refused = None;
        }
    }

    /// Makes all of them due, because a person requested it or an input changed.
    pub(crate) fn retry(&mut self) {
        let now = Instant::now();
        self.waiting.values_mut().for_each(|waiting| waiting.until = now);
        self.refused_in_a_row = 0;
    }
}
