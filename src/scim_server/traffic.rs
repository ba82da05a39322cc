//! Request statistics of each identity provider since the start, for its status. Bounded, in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::token::Caller;
use crate::model::ProviderName;
use crate::scim::{Dialect, Finding, FindingCode, Findings, Signs};

/// Most distinct findings of one provider that are kept; further ones are counted in
/// [`ProviderTraffic::findings_dropped`].
pub(crate) const MAX_FINDINGS: usize = 100;

/// Request statistics of one identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProviderTraffic {
    /// Time of the last authenticated request.
    pub(crate) last_request: Option<Timestamp>,
    /// Time of the last request by token.
    pub(crate) tokens_last_used: BTreeMap<String, Timestamp>,
    /// Signs of the IdP that sends the requests.
    pub(crate) signs: Signs,
    /// Accepted deviations and refusals.
    pub(crate) findings: BTreeMap<Finding, Seen>,
    /// Findings beyond [`MAX_FINDINGS`].
    pub(crate) findings_dropped: u64,
    /// Authenticated requests.
    pub(crate) requests: u64,
    /// Requests among them that were answered with 4xx.
    pub(crate) refused: u64,
    /// Requests among them that were answered with 5xx.
    pub(crate) failed: u64,
    /// Time of the last refusal because of the quota, unless something was created since.
    pub(crate) quota_refused_at: Option<Timestamp>,
}

/// Number of occurrences of a finding, and the time of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Occurrences since the start.
    pub(crate) count: u64,
    /// Time of the last one.
    pub(crate) last: Timestamp,
}

impl ProviderTraffic {
    /// Counts a finding. Returns true for the first of its kind.
    fn note(&mut self, finding: Finding, at: Timestamp) -> bool {
        let kept = self.findings.len();
        match self.findings.get_mut(&finding) {
            Some(seen) => {
                *seen = Seen { count: seen.count.saturating_add(1), last: at };
                return false;
            }
            None if kept < MAX_FINDINGS => drop(self.findings.insert(finding, Seen { count: 1, last: at })),
            None => self.findings_dropped = self.findings_dropped.saturating_add(1),
        }
        kept < MAX_FINDINGS
    }
}

#[derive(Default)]
struct Statistics {
    providers: HashMap<ProviderName, ProviderTraffic>,
    unauthorized: u64,
}

/// Request statistics of all identity providers. Cheap to clone; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Traffic(Arc<Mutex<Statistics>>);

impl Traffic {
    /// No requests yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn statistics(&self) -> MutexGuard<'_, Statistics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Statistics of one provider.
    #[must_use]
    pub(crate) fn of(&self, provider: &ProviderName) -> ProviderTraffic {
        self.statistics().providers.get(provider).cloned().unwrap_or_default()
    }

    /// Number of requests without an accepted token.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn unauthorized(&self) -> u64 {
        self.statistics().unauthorized
    }

    /// Counts a request without an accepted token, and notes its finding at the provider that it was meant for, if that is known.
    pub(super) fn record_unauthorized(&self, provider: Option<&ProviderName>, code: FindingCode, at: Timestamp) {
        let mut statistics = self.statistics();
        statistics.unauthorized = statistics.unauthorized.saturating_add(1);
        if let Some(provider) = provider {
            let traffic = statistics.providers.entry(provider.clone()).or_default();
            traffic.note(Finding { code, pointer: code.place().to_owned() }, at);
        }
    }

    /// Notes a finding about requests that are not of the SCIM endpoint.
    pub(super) fn note(&self, provider: &ProviderName, code: FindingCode, at: Timestamp) {
        let mut statistics = self.statistics();
        let traffic = statistics.providers.entry(provider.clone()).or_default();
        traffic.note(Finding { code, pointer: String::new() }, at);
    }

    /// The dialect of a provider, given the signs of a request that is not recorded yet.
    pub(super) fn dialect(&self, provider: &ProviderName, signs: &Signs) -> Dialect {
        let mut all = signs.clone();
        if let Some(traffic) = self.statistics().providers.get(provider) {
            all.extend(&traffic.signs);
        }
        all.dialect()
    }

    /// Counts an authenticated request. Returns those of its findings that are the first of their kind.
    pub(super) fn record(
        &self,
        caller: &Caller,
        at: Timestamp,
        status: u16,
        signs: &Signs,
        findings: Findings,
    ) -> Vec<Finding> {
        let mut statistics = self.statistics();
        if !statistics.providers.contains_key(&caller.provider) {
            statistics.providers.insert(caller.provider.clone(), ProviderTraffic::default());
        }
        let Some(traffic) = statistics.providers.get_mut(&caller.provider) else { return Vec::new() };
        traffic.last_request = Some(at);
        match traffic.tokens_last_used.get_mut(&caller.token) {
            Some(last) => *last = at,
            None => drop(traffic.tokens_last_used.insert(caller.token.clone(), at)),
        }
        traffic.signs.extend(signs);
        traffic.requests = traffic.requests.saturating_add(1);
        match status {
            201 => traffic.quota_refused_at = None,
            507 => traffic.quota_refused_at = Some(at),
            _ => {}
        }
        match status {
            400..=499 => traffic.refused = traffic.refused.saturating_add(1),
            500.. => traffic.failed = traffic.failed.saturating_add(1),
            _ => {}
        }
        findings.into_iter().filter(|finding| traffic.note(finding.clone(), at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_and_their_number_is_bounded() {
        let traffic = Traffic::new();
        let provider = ProviderName::new("okta").unwrap();
        let caller = Caller { provider: provider.clone(), token: "a".into() };
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        for index in 0..(MAX_FINDINGS + 5) {
            let mut findings = Findings::new();
            findings.note(FindingCode::AttributeNotStored, &format!("x{index}"));
            findings.note(FindingCode::BooleanAsString, "active");
            traffic.record(&caller, now, 200, &Signs::default(), findings);
        }
        let seen = traffic.of(&provider);
        assert_eq!(seen.findings.len(), MAX_FINDINGS);
        assert_eq!(seen.findings_dropped, 6);
        let active = Finding { code: FindingCode::BooleanAsString, pointer: "active".into() };
        assert_eq!(seen.findings[&active], Seen { count: (MAX_FINDINGS + 5) as u64, last: now });
        assert_eq!(seen.last_request, Some(now));
        assert_eq!(seen.tokens_last_used["a"], now);
    }
}
