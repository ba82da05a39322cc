//! The limits of the guard: how many people may lose access within an hour before a person has to approve further
//! removals.

use std::fmt;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{Claim, GrantKey, MappingKey, ProviderName};

/// The period over which people are counted.
pub(crate) const GUARD_WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// Default limit of people per hour for one mapping. [`DEFAULT_LEAVERS_PER_HOUR`] is the limit for one provider.
pub(crate) const DEFAULT_REMOVALS_PER_HOUR: u32 = 25;
/// Default limit of leavers per hour for one provider.
pub(crate) const DEFAULT_LEAVERS_PER_HOUR: u32 = 100;

/// Number of people who always pass, whatever their share of the scope.
const FEW: u64 = 10;

/// People whose removals are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RemovalScope {
    /// People who lost their last claim of one mapping.
    Mapping(MappingKey),
    /// People of one provider who are inactive or deleted; none when the provider of a deleted person is not known.
    Leavers(Option<ProviderName>),
}

/// The stored word.
impl fmt::Display for RemovalScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mapping(mapping) => write!(f, "mapping:{mapping}"),
            Self::Leavers(Some(provider)) => write!(f, "leavers:{provider}"),
            Self::Leavers(None) => f.write_str("leavers:"),
        }
    }
}

/// One ended claim on a grant that rolecall made and that is still in a policy: the unit the guard decides about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Removal {
    /// The grant.
    pub(crate) grant: GrantKey,
    /// The claim that ended.
    pub(crate) claim: Claim,
    /// True when the subject is inactive or deleted at the IdP.
    pub(crate) leaver: bool,
}

/// Number of affected people of one scope within the hour. Nobody is in two of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScopeCounts {
    /// People whose removal passed.
    pub(crate) passed: u64,
    /// People whose removal is currently held.
    pub(crate) held: u64,
    /// People whose removal is proposed for the first time.
    pub(crate) new: u64,
}

/// The decision about people whose removal is proposed for the first time. They pass or are held together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuardDecision {
    /// They lose access.
    Pass,
    /// They keep access until a person releases the removals.
    Hold,
    /// They are held unless more than this many other people of the scope have grants.
    HoldUnlessMore(u64),
}

/// The limit of one kind of scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemovalLimit {
    /// Up to this many people pass even if they are half of the scope or more.
    few: u64,
    /// More people than this are held.
    most: u64,
    /// True when a few people may pass while others are already held.
    beside_held: bool,
}

impl RemovalLimit {
    /// Above the default, the number of people who may be half of the scope grows in proportion to the limit.
    fn new(most: u32, default: u32, beside_held: bool) -> Self {
        let most = u64::from(most);
        Self { few: FEW.max(most.saturating_mul(FEW) / u64::from(default)), most, beside_held }
    }

    /// The largest count that affects the decision.
    #[must_use]
    pub(crate) fn relevant(self) -> u64 {
        self.few.max(self.most).saturating_add(1)
    }

    /// Decides about people whose removal is proposed for the first time.
    #[must_use]
    pub(crate) fn decide(self, counts: ScopeCounts) -> GuardDecision {
        let all = counts.passed.saturating_add(counts.held).saturating_add(counts.new);
        let acting = if self.beside_held { all.saturating_sub(counts.held) } else { all };
        if acting <= self.few.min(self.most) {
            GuardDecision::Pass
        } else if all > self.most {
            GuardDecision::Hold
        } else {
            GuardDecision::HoldUnlessMore(all)
        }
    }
}

/// The limits of both kinds of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemovalLimits {
    /// Limit of a mapping.
    pub(crate) mapping: RemovalLimit,
    /// Limit of a provider's leavers.
    pub(crate) leavers: RemovalLimit,
}

impl RemovalLimits {
    /// Creates limits that hold removals above `removals_per_hour` people of one mapping and above `leavers_per_hour`
    /// leavers of one provider. Above 10 people, removals are also held when they are at least half of the scope; the
    /// 10 grows in proportion to a limit above the default.
    #[must_use]
    pub(crate) fn new(removals_per_hour: u32, leavers_per_hour: u32) -> Self {
        Self {
            mapping: RemovalLimit::new(removals_per_hour, DEFAULT_REMOVALS_PER_HOUR, false),
            leavers: RemovalLimit::new(leavers_per_hour, DEFAULT_LEAVERS_PER_HOUR, true),
        }
    }

    /// The limit of this scope.
    #[must_use]
    pub(crate) fn of(&self, scope: &RemovalScope) -> RemovalLimit {
        match scope {
            RemovalScope::Mapping(_) => self.mapping,
            RemovalScope::Leavers(_) => self.leavers,
        }
    }
}

impl Default for RemovalLimits {
    fn default() -> Self {
        Self::new(DEFAULT_REMOVALS_PER_HOUR, DEFAULT_LEAVERS_PER_HOUR)
    }
}
