//! Requests without an accepted token: counted, and said at most once a minute for each provider.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::model::ProviderName;
use crate::telemetry::{ScimMetrics, field};

/// How often one provider's failures are said.
const SAY: SignedDuration = SignedDuration::from_mins(1);

/// What stands in the metric for a name that is no provider's: a name that a stranger made up is no label.
const UNKNOWN: &str = "(unknown)";

/// The failures of all providers.
#[derive(Default)]
pub(super) struct FailedAuthentications {
    /// When it was last said of whom, and how many came since. None: a provider that does not exist.
    said: Mutex<HashMap<Option<ProviderName>, (Timestamp, u64)>>,
}

impl FailedAuthentications {
    /// Notes one failure at the endpoint of `provider`, which is none when there is no such provider.
    pub(super) fn note(
        &self,
        metrics: &ScimMetrics,
        provider: Option<&ProviderName>,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) {
        metrics.failed_authentications.inc(provider.map_or(UNKNOWN, ProviderName::as_str));
        let Some(failures) = self.due(provider.cloned(), now) else { return };
        tracing::warn!(
            { field::IDENTITY_PROVIDER } = provider.map_or(UNKNOWN, ProviderName::as_str),
            failures,
            peer = peer.map(tracing::field::display),
            "SCIM requests came without an accepted token: is the token that the identity provider sends the one in the Secret"
        );
    }

    /// Counts one more; how many there were since it was last said, when it is to be said again.
    fn due(&self, provider: Option<ProviderName>, now: Timestamp) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((last, since)) = said.get_mut(&provider) else {
            said.insert(provider, (now, 0));
            return Some(1);
        };
        *since += 1;
        if now.duration_since(*last) < SAY {
            return None;
        }
        *last = now;
        Some(std::mem::take(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_said_and_then_one_line_a_minute_with_their_number() {
        let failures = FailedAuthentications::default();
        let okta = ProviderName::new("okta").ok();
        let start: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        assert_eq!(failures.due(okta.clone(), start), Some(1));
        let later = |seconds| start + SignedDuration::from_secs(seconds);
        let said: Vec<u64> = (0..59).filter_map(|second| failures.due(okta.clone(), later(second))).collect();
        assert_eq!(said, Vec::<u64>::new());
        assert_eq!(failures.due(None, later(59)), Some(1), "another one's are said apart");
        assert_eq!(failures.due(okta.clone(), later(60)), Some(60));
        assert_eq!(failures.due(okta, later(61)), None);
    }
}
