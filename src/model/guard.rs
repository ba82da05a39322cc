//! The limits of the guard: how many people may lose access within an hour before somebody has to look.

use std::fmt;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{Claim, GrantKey, MappingKey, ProviderName};

/// The time over which people are counted.
pub const GUARD_WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// The limits that hold when nobody says otherwise: people an hour of one mapping, and leavers an hour of one provider.
pub const DEFAULT_REMOVALS_PER_HOUR: u32 = 25;
/// As [`DEFAULT_REMOVALS_PER_HOUR`], for leavers.
pub const DEFAULT_LEAVERS_PER_HOUR: u32 = 100;

/// So few people always pass, whatever their share.
const FEW: u64 = 10;

/// People whose removals are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemovalScope {
    /// People whom one mapping does not grant something to any more.
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

/// One claim that ended on a grant of ours that stands in a policy: what the guard decides about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// The grant.
    pub grant: GrantKey,
    /// The claim that ended.
    pub claim: Claim,
    /// The subject is inactive or deleted at the IdP.
    pub leaver: bool,
}

/// How many people of one scope are concerned within the hour. Nobody is in two of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeCounts {
    /// People whose removal passed.
    pub passed: u64,
    /// People whose removal is held since then.
    pub held: u64,
    /// People who are asked about for the first time.
    pub new: u64,
}

/// What becomes of the people who are asked about for the first time. They pass or are held together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// They lose access.
    Pass,
    /// They keep it until somebody releases them.
    Hold,
    /// They are held unless more than this many other people of the scope have grants.
    HoldUnlessMore(u64),
}

/// The limit of one kind of scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalLimit {
    /// Up to this many people pass although they are half of the scope or more.
    few: u64,
    /// More people than this are held.
    most: u64,
    /// People who are held already do not keep a few others from passing.
    beside_held: bool,
}

impl RemovalLimit {
    /// Beyond the default, the number of people who may be half of the scope grows in proportion to the limit.
    fn new(most: u32, default: u32, beside_held: bool) -> Self {
        let most = u64::from(most);
        Self { few: FEW.max(most.saturating_mul(FEW) / u64::from(default)), most, beside_held }
    }

    /// The largest count that makes a difference.
    #[must_use]
    pub fn relevant(self) -> u64 {
        self.few.max(self.most).saturating_add(1)
    }

    /// Judges people who are asked about for the first time.
    #[must_use]
    pub fn judge(self, counts: ScopeCounts) -> Judgement {
        let all = counts.passed.saturating_add(counts.held).saturating_add(counts.new);
        let acting = if self.beside_held { all.saturating_sub(counts.held) } else { all };
        if acting <= self.few.min(self.most) {
            Judgement::Pass
        } else if all > self.most {
            Judgement::Hold
        } else {
            Judgement::HoldUnlessMore(all)
        }
    }
}

/// The limits of both kinds of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalLimits {
    /// Of a mapping.
    pub mapping: RemovalLimit,
    /// Of a provider.
    pub leavers: RemovalLimit,
}

impl RemovalLimits {
    /// Holds removals above so many people an hour of one mapping, and leavers above so many an hour of one provider;
    /// and above 10 people when they are at least half, which grows with a number above the default.
    #[must_use]
    pub fn new(removals_per_hour: u32, leavers_per_hour: u32) -> Self {
        Self {
            mapping: RemovalLimit::new(removals_per_hour, DEFAULT_REMOVALS_PER_HOUR, false),
            leavers: RemovalLimit::new(leavers_per_hour, DEFAULT_LEAVERS_PER_HOUR, true),
        }
    }

    /// The limit of this scope.
    #[must_use]
    pub fn of(&self, scope: &RemovalScope) -> RemovalLimit {
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
