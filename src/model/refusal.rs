//! Refusals: additions to policies that Google refused, stored so that they are not retried with every write.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use super::{ConditionHash, DocumentKey, GrantKey, MemberKey, ResourceKind, Role};

/// Scope of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Every policy: the account does not exist.
    Everywhere,
    /// The policies of one project: refused by an organization policy.
    Project(String),
    /// The policies of one kind of resource in one project: refused because of the role.
    Kind(String, ResourceKind),
    /// One policy: Google did not say why.
    Document(DocumentKey),
}

/// Error for a text that is not the scope of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the reach of a refusal")]
pub(crate) struct ReachError(String);

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => f.write_str("everywhere"),
            Self::Project(project) => write!(f, "project:{project}"),
            Self::Kind(project, kind) => write!(f, "kind:{}:{project}", kind.collection()),
            Self::Document(document) => document.fmt(f),
        }
    }
}

impl FromStr for Reach {
    type Err = ReachError;

    fn from_str(text: &str) -> Result<Self, ReachError> {
        let wrong = || ReachError(text.chars().take(200).collect());
        if text == "everywhere" {
            return Ok(Self::Everywhere);
        }
        if let Some(project) = text.strip_prefix("project:") {
            return Ok(Self::Project(project.to_owned()));
        }
        if let Some((kind, project)) = text.strip_prefix("kind:").and_then(|rest| rest.split_once(':')) {
            let kind = ResourceKind::from_collection(kind).ok_or_else(wrong)?;
            return Ok(Self::Kind(project.to_owned(), kind));
        }
        text.parse().map(Self::Document).map_err(|_| wrong())
    }
}

impl TryFrom<String> for Reach {
    type Error = ReachError;

    fn try_from(text: String) -> Result<Self, ReachError> {
        text.parse()
    }
}

/// The refused member, role, condition, or several of them together. At least one of the three is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RefusalKey {
    /// The scope.
    pub(crate) reach: Reach,
    /// The refused member; none: every member.
    pub(crate) member: Option<MemberKey>,
    /// The refused role; none: every role.
    pub(crate) role: Option<Role>,
    /// The refused condition; none: every condition, and grants without any.
    pub(crate) condition: Option<ConditionHash>,
}

impl RefusalKey {
    /// True when the refusal applies to this grant on this document.
    #[must_use]
    pub(crate) fn covers(&self, document: &DocumentKey, grant: &GrantKey) -> bool {
        let here = match &self.reach {
            Reach::Everywhere => true,
            Reach::Project(project) => project == document.project(),
            Reach::Kind(project, kind) => project == document.project() && *kind == document.kind(),
            Reach::Document(one) => one == document,
        };
        here && self.member.as_ref().is_none_or(|member| *member == grant.member)
            && self.role.as_ref().is_none_or(|role| *role == grant.role)
            && self.condition.as_ref().is_none_or(|condition| *condition == grant.condition)
    }
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The refused member or role, and the scope.
    pub(crate) key: RefusalKey,
    /// The stable reason word.
    pub(crate) reason: String,
    /// Time of the first refusal.
    pub(crate) since: Timestamp,
    /// Time of the next probe.
    pub(crate) probe_at: Timestamp,
    /// Number of probes so far.
    pub(crate) probes: u32,
}

impl Refusal {
    /// Time until the first probe. Accounts often appear at Google some minutes after the IdP pushed them to rolecall.
    pub(crate) const FIRST_PROBE: SignedDuration = SignedDuration::from_mins(5);
    /// Longest time between two probes.
    pub(crate) const LONGEST: SignedDuration = SignedDuration::from_hours(1);

    /// Creates a refusal that was observed now.
    #[must_use]
    pub(crate) fn new(key: RefusalKey, reason: &str, now: Timestamp) -> Self {
        Self { key, reason: reason.to_owned(), since: now, probe_at: later(now, Self::FIRST_PROBE), probes: 0 }
    }

    /// Records a failed probe: the interval to the next one doubles, up to an hour.
    pub(crate) fn postpone(&mut self, now: Timestamp) {
        self.probes = self.probes.saturating_add(1);
        let wait = (0..self.probes.min(10)).fold(Self::FIRST_PROBE, |wait, _| (wait * 2).min(Self::LONGEST));
        self.probe_at = later(now, wait);
    }
}

/// Count of the writes that were spent on finding out which addition of a policy is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteBudget {
    /// Time of the first write.
    pub(crate) since: Timestamp,
    /// Number of writes.
    pub(crate) writes: u32,
}

impl WriteBudget {
    /// Largest number of writes that may be spent on one policy within [`Self::WINDOW`].
    pub(crate) const WRITES: u32 = 12;
    /// Time after which all writes are available again.
    pub(crate) const WINDOW: SignedDuration = SignedDuration::from_hours(1);

    /// Creates an unspent budget.
    #[must_use]
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { since: now, writes: 0 }
    }

    /// Time at which writes are available again; none: they are available now.
    #[must_use]
    pub(crate) fn exhausted_until(&self, now: Timestamp) -> Option<Timestamp> {
        let end = later(self.since, Self::WINDOW);
        (self.writes >= Self::WRITES && now < end).then_some(end)
    }

    /// Spends one write.
    pub(crate) fn spend(&mut self, now: Timestamp) {
        if now >= later(self.since, Self::WINDOW) || self.writes == 0 {
            *self = Self::new(now);
        }
        self.writes = self.writes.saturating_add(1);
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ConditionHash;

    fn now() -> Timestamp {
        "2027-01-31T12:00:00Z".parse().unwrap()
    }

    fn grant(role: &str, member: &str) -> GrantKey {
        GrantKey { role: Role::new(role).unwrap(), condition: ConditionHash::default(), member: MemberKey::of(member) }
    }

    #[test]
    fn refusal_covers_what_its_reach_member_and_role_say() {
        let here: DocumentKey = "run:projects/p/locations/l/services/s".parse().unwrap();
        let job: DocumentKey = "run:projects/p/locations/l/jobs/s".parse().unwrap();
        let elsewhere: DocumentKey = "run:projects/q/locations/l/services/s".parse().unwrap();
        let reaches = [
            (Reach::Everywhere, [true, true, true]),
            (Reach::Project("p".to_owned()), [true, true, false]),
            (Reach::Kind("p".to_owned(), ResourceKind::Service), [true, false, false]),
            (Reach::Document(here.clone()), [true, false, false]),
        ];
        for (reach, expected) in reaches {
            assert_eq!(reach.to_string().parse::<Reach>().unwrap(), reach);
            let key =
                RefusalKey { reach, member: Some(MemberKey::of("user:A@x.example")), role: None, condition: None };
            let of = |document| key.covers(document, &grant("roles/run.invoker", "user:a@x.example"));
            assert_eq!([&here, &job, &elsewhere].map(of), expected, "{key:?}");
            assert!(!key.covers(&here, &grant("roles/run.invoker", "user:b@x.example")));
        }
        let role = RefusalKey {
            reach: Reach::Everywhere,
            member: None,
            role: Role::new("roles/run.viewer").ok(),
            condition: None,
        };
        assert!(role.covers(&here, &grant("roles/run.viewer", "user:b@x.example")));
        assert!(!role.covers(&here, &grant("roles/run.invoker", "user:b@x.example")));
    }

    #[test]
    fn refusal_is_probed_after_five_minutes_then_twice_as_late_up_to_an_hour() {
        let key = RefusalKey {
            reach: Reach::Everywhere,
            member: None,
            role: Role::new("roles/run.viewer").ok(),
            condition: None,
        };
        let mut refusal = Refusal::new(key, "MemberRefused", now());
        let mut minutes = vec![refusal.probe_at.duration_since(now()).as_mins()];
        for _ in 0..5 {
            refusal.postpone(now());
            minutes.push(refusal.probe_at.duration_since(now()).as_mins());
        }
        assert_eq!(minutes, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn twelve_writes_an_hour_are_spent_and_no_more() {
        let mut budget = WriteBudget::new(now());
        for _ in 0..WriteBudget::WRITES {
            assert_eq!(budget.exhausted_until(now()), None);
            budget.spend(now());
        }
        let end = now() + SignedDuration::from_hours(1);
        assert_eq!(budget.exhausted_until(now() + SignedDuration::from_mins(59)), Some(end));
        assert_eq!(budget.exhausted_until(end), None);
        budget.spend(end);
        assert_eq!(budget, WriteBudget { since: end, writes: 1 });
    }
}
