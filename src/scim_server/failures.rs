//! Requests without an accepted token: counted, and logged at most once a minute for each provider.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::token::Denied;
use crate::model::ProviderName;
use crate::telemetry::{ScimMetrics, field};

/// Interval between log lines about one provider.
const LOG_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// Label of names that belong to no provider. The name itself is never a label, since anybody can invent any number.
const UNKNOWN: &str = "(unknown)";

/// Failed authentications of all providers.
#[derive(Default)]
pub(super) struct FailedAuthentications {
    /// Time of the last log line and failures since then. The key is none for providers that do not exist.
    logged: Mutex<HashMap<Option<ProviderName>, (Timestamp, u64)>>,
}

impl FailedAuthentications {
    /// Counts one failure at the endpoint of `provider`, which is none when there is no such provider, and logs it when due.
    pub(super) fn record(
        &self,
        metrics: &ScimMetrics,
        provider: Option<&ProviderName>,
        denied: Denied,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) {
        metrics.failed_authentications.inc(provider.map_or(UNKNOWN, ProviderName::as_str));
        let Some(failures) = self.due(provider.cloned(), now) else { return };
        tracing::warn!(
            { field::IDENTITY_PROVIDER } = provider.map_or(UNKNOWN, ProviderName::as_str),
            failures,
            last = denied.finding().as_str(),
            peer = peer.map(tracing::field::display),
            "SCIM requests without an accepted token were refused: the last one was {}",
            denied.finding().hint()
        );
    }

    /// Counts one failure. Returns the number since the last log line when the next one is due.
    fn due(&self, provider: Option<ProviderName>, now: Timestamp) -> Option<u64> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((last, since)) = logged.get_mut(&provider) else {
            logged.insert(provider, (now, 0));
            return Some(1);
        };
        *since += 1;
        if now.duration_since(*last) < LOG_INTERVAL {
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
    fn the_first_failure_is_logged_and_then_one_line_a_minute_with_their_number() {
        let failures = FailedAuthentications::default();
        let okta = ProviderName::new("okta").ok();
        let start: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        assert_eq!(failures.due(okta.clone(), start), Some(1));
        let later = |seconds| start + SignedDuration::from_secs(seconds);
        let logged: Vec<u64> = (0..59).filter_map(|second| failures.due(okta.clone(), later(second))).collect();
        assert_eq!(logged, Vec::<u64>::new());
        assert_eq!(failures.due(None, later(59)), Some(1), "those of another provider are counted apart");
        assert_eq!(failures.due(okta.clone(), later(60)), Some(60));
        assert_eq!(failures.due(okta, later(61)), None);
    }
}
