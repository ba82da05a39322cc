//! The condition `Drifted` and the counts behind it, for mappings and targets alike.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::conditions::{int, later, plural, with_next_step};
use crate::api::{DriftCounts, DriftSample};
use crate::model::{DriftKind, Reason};

/// How long `Drifted` shows what is over: grants that were made again, and resources that were created again.
pub(crate) const SHOWN: SignedDuration = SignedDuration::from_hours(1);

/// Grants that somebody else removed and that were granted again, within [`SHOWN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reversions {
    /// Number of grants.
    pub(crate) grants: u64,
    /// How often they were granted again.
    pub(crate) times: u64,
    /// Time of the last one.
    pub(crate) last: Option<Timestamp>,
}

/// Differences of one or several documents, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DriftTally {
    /// Number of differences by kind.
    pub(crate) kinds: BTreeMap<DriftKind, u64>,
    /// Number of grants that somebody else keeps taking away.
    pub(crate) contested: u64,
    /// Number of grants that were granted again since the start.
    pub(crate) reverted: u64,
    /// Those of the last hour.
    pub(crate) recently: Reversions,
    /// Time at which the last resource was created again.
    pub(crate) recreated_at: Option<Timestamp>,
}

impl DriftTally {
    /// Adds the differences of another document.
    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, n) in &other.kinds {
            let count = self.kinds.entry(*kind).or_default();
            *count = count.saturating_add(*n);
        }
        self.contested = self.contested.saturating_add(other.contested);
        self.reverted = self.reverted.saturating_add(other.reverted);
        self.recently.grants = self.recently.grants.saturating_add(other.recently.grants);
        self.recently.times = self.recently.times.saturating_add(other.recently.times);
        self.recently.last = self.recently.last.max(other.recently.last);
        self.recreated_at = self.recreated_at.max(other.recreated_at);
    }

    /// The number of differences of a kind.
    #[must_use]
    pub(crate) fn of(&self, kind: DriftKind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or_default()
    }

    /// The counts as the status shows them.
    pub(super) fn counts(&self, samples: Vec<DriftSample>) -> DriftCounts {
        let of = |kind| int(self.of(kind));
        DriftCounts {
            missing: of(DriftKind::GrantMissing),
            reverted: int(self.reverted),
            foreign: of(DriftKind::GrantUnexpected),
            remaining: of(DriftKind::GrantRemains),
            leavers: of(DriftKind::LeaverHasForeignGrant),
            public: of(DriftKind::PublicPrincipal),
            condition_changed: of(DriftKind::ConditionChanged),
            tombstones: of(DriftKind::Tombstone),
            recreated: of(DriftKind::TargetRecreated),
            invoker_check_disabled: of(DriftKind::InvokerCheckDisabled),
            samples,
        }
    }

    /// The condition `Drifted`, and the time at which it may change by time alone.
    pub(super) fn condition(&self, now: Timestamp) -> (Option<(Reason, String)>, Option<Timestamp>) {
        let shown = |at: Option<Timestamp>| at.map(|at| later(at, SHOWN)).filter(|until| now < *until);
        let reverted_until = shown(self.recently.last);
        let recreated_until = shown(self.recreated_at);
        let mut parts: Vec<(Reason, String)> = Vec::new();
        if self.contested > 0 {
            let fact = plural(self.contested, "grant keeps", "grants keep");
            parts.push((Reason::Contested, format!("{fact} being taken away by somebody else")));
        }
        for kind in DriftKind::ALL {
            let n = self.of(kind);
            if n > 0 && (kind != DriftKind::TargetRecreated || recreated_until.is_some()) {
                parts.push((kind.reason(), told(kind, n)));
            }
            if kind == DriftKind::GrantMissing && reverted_until.is_some() {
                let Reversions { grants, times, .. } = self.recently;
                let often = if times > grants { format!(", {times} times") } else { String::new() };
                let fact = plural(grants, "grant was", "grants were");
                parts.push((Reason::Reverted, format!("{fact} removed by somebody else and granted again{often}")));
            }
        }
        let ends = [reverted_until, recreated_until].into_iter().flatten().min();
        let Some((word, _)) = parts.first() else { return (None, ends) };
        let facts: Vec<&str> = parts.iter().map(|(_, fact)| fact.as_str()).collect();
        (Some((*word, with_next_step(&facts.join("; "), *word))), ends)
    }
}

/// One sentence about the differences of a kind.
fn told(kind: DriftKind, n: u64) -> String {
    match kind {
        DriftKind::PublicPrincipal => format!(
            "{} to everybody (allUsers or allAuthenticatedUsers) in the same policies",
            plural(n, "grant stands open", "grants stand open")
        ),
        DriftKind::LeaverHasForeignGrant => format!(
            "{} of people who left, made by somebody else",
            plural(n, "grant is still there", "grants are still there")
        ),
        DriftKind::GrantMissing => {
            format!("{} removed by somebody else", plural(n, "grant was", "grants were"))
        }
        DriftKind::ConditionChanged => {
            format!("{} put under another condition by somebody else", plural(n, "grant was", "grants were"))
        }
        DriftKind::TargetRecreated => {
            format!("{} deleted and created again", plural(n, "resource was", "resources were"))
        }
        DriftKind::GrantRemains => format!(
            "{} no longer wanted but stay, since rolecall did not make them",
            plural(n, "grant is", "grants are"),
        ),
        DriftKind::GrantUnexpected => format!(
            "{} in the same policies are kept: rolecall neither granted nor wants them",
            plural(n, "member", "members"),
        ),
        DriftKind::Tombstone => {
            format!("{} of deleted accounts in the same policies", plural(n, "grant", "grants"))
        }
        DriftKind::InvokerCheckDisabled => {
            format!("{} not check roles/run.invoker at all", plural(n, "service does", "services do"))
        }
    }
}
