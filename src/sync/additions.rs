//! The state of the additions of one document: what Google refused, what is being isolated, and what is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::bisect::Bisection;
use super::refusals::Refusals;
use crate::model::{GrantKey, MappingKey, MemberKey, Reason, RefusalKey, Subject, WriteBudget};
use crate::plan::Plan;
use crate::target::{RefusalCause, Refused};

/// Number of refused grants of one document that are kept for the statuses.
const REPORTED: usize = 200;
/// Time until an unchanged policy that is refused because of a foreign member is retried; doubles up to an hour.
const FOREIGN: Duration = Duration::from_mins(5);
const FOREIGN_MAX: Duration = Duration::from_hours(1);

/// A refusal of the policy even without the additions of rolecall.
#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) revision: String,
    pub(super) until: Instant,
    tries: u32,
    /// Time of the first such refusal.
    pub(crate) since: Timestamp,
    /// Google's reason word.
    pub(crate) reason: Reason,
    /// Google's message. It may name people.
    pub(crate) message: String,
    /// The members of the policy that Google named, in this refusal or in earlier ones, each with its roles.
    pub(crate) members: BTreeMap<MemberKey, BTreeSet<String>>,
}

/// A grant that is left out because Google refuses it.
#[derive(Debug, Clone)]
pub(super) struct RefusedGrant {
    pub(crate) mappings: BTreeSet<MappingKey>,
    pub(crate) subject: Option<Subject>,
    pub(crate) role: String,
    /// The title of the refused condition, when the refusal concerns one.
    pub(crate) condition: Option<String>,
    /// True when the refusal concerns the role, whoever the member is.
    pub(crate) of_role: bool,
    pub(crate) reason: Reason,
    /// Google's message, once it is known since the start. It may name people.
    pub(crate) message: Option<String>,
    pub(crate) since: Timestamp,
}

/// Additions of which one is refused, while the writes for finding out which are used up.
#[derive(Debug, Clone)]
pub(super) struct Unresolved {
    pub(crate) reason: Reason,
    /// Number of additions by mapping.
    pub(crate) mappings: BTreeMap<MappingKey, usize>,
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

/// State of the additions of one document.
#[derive(Debug, Default)]
pub(super) struct Additions {
    /// True when additions were refused, or throttled: removals are written alone.
    pub(super) apart: bool,
    /// Largest number of additions per write; none: all.
    pub(super) chunk: Option<usize>,
    pub(super) bisection: Option<Bisection>,
    pub(super) exhausted: bool,
    pub(super) probe_batch: Option<usize>,
    pub(super) probe_after: Option<Instant>,
    /// Members that share a spelling with a leaver and were refused in the call that removed the leaver. The next
    /// removal leaves them out.
    pub(super) left_behind: BTreeSet<GrantKey>,
    /// Google's last message for each reason of a refusal.
    pub(super) texts: BTreeMap<Reason, String>,
    pub(crate) foreign: Option<Foreign>,
    pub(crate) refused: Vec<RefusedGrant>,
    pub(crate) unresolved: Option<Unresolved>,
}

impl Additions {
    /// Records that everything that is not suspected has been written.
    pub(super) fn settled(&mut self) {
        self.apart = false;
        self.chunk = None;
        self.bisection = None;
        self.exhausted = false;
        self.unresolved = None;
    }

    pub(super) fn foreign(&mut self, carried_out: &Plan, what: &Refused, now: Instant, at: Timestamp) {
        let revision = carried_out.read().revision.clone();
        let before = self.foreign.take();
        // Refusals with another cause give no information.
        if let Some(bisection) = &mut self.bisection {
            bisection.start_over();
        }
        let tries = before.as_ref().filter(|before| before.revision == revision).map_or(0, |before| before.tries + 1);
        let until = now + FOREIGN.saturating_mul(1 << tries.min(10)).min(FOREIGN_MAX);
        let since = before.as_ref().map_or(at, |before| before.since);
        let live = carried_out.read();
        let mut members = before.map(|before| before.members).unwrap_or_default();
        members.extend(what.members().map(|member| (MemberKey::of(member), BTreeSet::new())));
        for (member, roles) in &mut members {
            *roles = live.roles_of(member);
        }
        // Those that somebody took out meanwhile are no cause any more.
        members.retain(|_, roles| !roles.is_empty());
        let (reason, message) = (what.cause.reason(), what.message.clone());
        self.foreign = Some(Foreign { revision, until, tries, since, reason, message, members });
    }

    /// Records the left-out grants for the statuses.
    pub(super) fn report(&mut self, refusals: &Refusals, plan: &Plan, withheld: &BTreeMap<GrantKey, RefusalKey>) {
        self.refused.clear();
        for step in &plan.add {
            if self.refused.len() == REPORTED {
                break;
            }
            let Some(key) = withheld.get(step.grant()) else { continue };
            let Some(refusal) = refusals.get(key) else { continue };
            let reason = match RefusalCause::known_reason(&refusal.reason) {
                Some(Reason::PolicyRefused) | None if key.condition.is_some() => Reason::ConditionRefused,
                known => known.unwrap_or(Reason::PolicyRefused),
            };
            self.refused.push(RefusedGrant {
                mappings: step.row.claims.iter().map(|claim| claim.mapping.clone()).collect(),
                subject: step.row.claims.first().map(|claim| claim.subject),
                role: step.grant().role.to_string(),
                condition: key
                    .condition
                    .as_ref()
                    .and(step.row.condition.as_ref())
                    .map(|condition| condition.title.clone()),
                of_role: key.member.is_none(),
                reason,
                message: self.texts.get(&reason).cloned(),
                since: refusal.since,
            });
        }
    }

    /// Makes the policy due for another try at once, because a person requested it or an input changed.
    pub(crate) fn retry(&mut self) {
        if let Some(foreign) = &mut self.foreign {
            foreign.until = Instant::now();
        }
    }

    pub(super) fn unresolved(&self, budget: WriteBudget, plan: &Plan) -> Option<Unresolved> {
        let bisection = self.bisection.as_ref()?;
        let open: BTreeSet<&GrantKey> = bisection.open().collect();
        let mut mappings: BTreeMap<MappingKey, usize> = BTreeMap::new();
        for step in plan.add.iter().filter(|step| open.contains(step.grant())) {
            let claimants: BTreeSet<&MappingKey> = step.row.claims.iter().map(|claim| &claim.mapping).collect();
            for mapping in claimants {
                *mappings.entry(mapping.clone()).or_default() += 1;
            }
        }
        let until = budget.since.saturating_add(WriteBudget::WINDOW).unwrap_or(Timestamp::MAX);
        Some(Unresolved { reason: bisection.cause.reason(), mappings, since: budget.since, until })
    }
}
