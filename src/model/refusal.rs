//! What Google refused to put into policies: remembered, so that it is not tried again with every write.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use super::{DocumentKey, GrantKey, MemberKey, ResourceKind, Role};

/// Where a refusal holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reach {
    /// In every policy: the account does not exist.
    Everywhere,
    /// In the policies of one project: an organization policy.
    Project(String),
    /// In the policies of one kind of resource of one project: a role.
    Kind(String, ResourceKind),
    /// In one policy: Google did not say why.
    Document(DocumentKey),
}

/// A text that names no reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the reach of a refusal")]
pub struct ReachError(String);

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

/// What is refused: a member, a role, or a member under a role; never neither.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefusalKey {
    /// Where.
    pub reach: Reach,
    /// Which member; none: every member.
    pub member: Option<MemberKey>,
    /// Under which role; none: every role.
    pub role: Option<Role>,
}

impl RefusalKey {
    /// True when it refuses this grant on this document.
    #[must_use]
    pub fn covers(&self, document: &DocumentKey, grant: &GrantKey) -> bool {
        let here = match &self.reach {
            Reach::Everywhere => true,
            Reach::Project(project) => project == document.project(),
            Reach::Kind(project, kind) => project == document.project() && *kind == document.kind(),
            Reach::Document(one) => one == document,
        };
        here && self.member.as_ref().is_none_or(|member| *member == grant.member)
            && self.role.as_ref().is_none_or(|role| *role == grant.role)
    }
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is refused, and where.
    pub key: RefusalKey,
    /// The stable reason word.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When it is tried again.
    pub probe_at: Timestamp,
    /// How often it was tried again.
    pub probes: u32,
}

impl Refusal {
    /// The time until the first probe. Accounts often appear at Google some minutes after the IdP pushed them here.
    pub const FIRST_PROBE: SignedDuration = SignedDuration::from_mins(5);
    /// Longest time between two probes.
    pub const LONGEST: SignedDuration = SignedDuration::from_hours(1);

    /// A refusal that was seen now.
    #[must_use]
    pub fn new(key: RefusalKey, reason: &str, now: Timestamp) -> Self {
        Self { key, reason: reason.to_owned(), since: now, probe_at: later(now, Self::FIRST_PROBE), probes: 0 }
    }

    /// It was probed and refused again: the next probe is twice as far away, up to an hour.
    pub fn postpone(&mut self, now: Timestamp) {
        self.probes = self.probes.saturating_add(1);
        let wait = (0..self.probes.min(10)).fold(Self::FIRST_PROBE, |wait, _| (wait * 2).min(Self::LONGEST));
        self.probe_at = later(now, wait);
    }
}

/// The writes that were spent on finding out which addition of a policy is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteBudget {
    /// When the first of them was sent.
    pub since: Timestamp,
    /// How many.
    pub writes: u32,
}

impl WriteBudget {
    /// How many writes a policy and hour may be spent.
    pub const WRITES: u32 = 12;
    /// After this time all of them may be spent again.
    pub const WINDOW: SignedDuration = SignedDuration::from_hours(1);

    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { since: now, writes: 0 }
    }

    /// When writes may be spent again; none: now.
    #[must_use]
    pub fn exhausted_until(&self, now: Timestamp) -> Option<Timestamp> {
        let end = later(self.since, Self::WINDOW);
        (self.writes >= Self::WRITES && now < end).then_some(end)
    }

    /// Spends one.
    pub fn spend(&mut self, now: Timestamp) {
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
            let key = RefusalKey { reach, member: Some(MemberKey::of("user:A@x.example")), role: None };
            let of = |document| key.covers(document, &grant("roles/run.invoker", "user:a@x.example"));
            assert_eq!([&here, &job, &elsewhere].map(of), expected, "{key:?}");
            assert!(!key.covers(&here, &grant("roles/run.invoker", "user:b@x.example")));
        }
        let role = RefusalKey { reach: Reach::Everywhere, member: None, role: Role::new("roles/run.viewer").ok() };
        assert!(role.covers(&here, &grant("roles/run.viewer", "user:b@x.example")));
        assert!(!role.covers(&here, &grant("roles/run.invoker", "user:b@x.example")));
    }

    #[test]
    fn refusal_is_probed_after_five_minutes_then_twice_as_late_up_to_an_hour() {
        let key = RefusalKey { reach: Reach::Everywhere, member: None, role: Role::new("roles/run.viewer").ok() };
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
