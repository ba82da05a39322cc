//! Comparison of statuses by their meaning to a person. Times and last-seen values are written only together with other
//! changes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{CloudRunTargetStatus, IdentityProviderStatus, RoleMappingStatus};

const EPOCH: Time = Time(Timestamp::UNIX_EPOCH);

fn timeless(conditions: &mut [Condition]) {
    for condition in conditions {
        condition.last_transition_time = EPOCH;
    }
}

/// True when both have the same meaning. The lag of the last change and times are ignored.
#[must_use]
pub(crate) fn same_mapping(one: &RoleMappingStatus, other: &RoleMappingStatus) -> bool {
    fn essence(status: &RoleMappingStatus) -> RoleMappingStatus {
        let mut status = status.clone();
        timeless(&mut status.conditions);
        status.lag = None;
        status.oldest_revoking_since = None;
        if let Some(held) = &mut status.held {
            held.since = None;
            for plan in &mut held.plans {
                plan.since = None;
            }
        }
        status
    }
    one == other || essence(one) == essence(other)
}

/// True when both have the same meaning. Times are ignored.
#[must_use]
pub(crate) fn same_target(one: &CloudRunTargetStatus, other: &CloudRunTargetStatus) -> bool {
    fn essence(status: &CloudRunTargetStatus) -> CloudRunTargetStatus {
        let mut status = status.clone();
        timeless(&mut status.conditions);
        status.last_discovery_time = None;
        for drift in &mut status.drift {
            drift.first_seen = None;
        }
        status
    }
    one == other || essence(one) == essence(other)
}

/// True when both have the same meaning. Times of requests, and the counts and times of findings, are ignored.
#[must_use]
pub(crate) fn same_provider(one: &IdentityProviderStatus, other: &IdentityProviderStatus) -> bool {
    fn essence(status: &IdentityProviderStatus) -> IdentityProviderStatus {
        let mut status = status.clone();
        timeless(&mut status.conditions);
        status.last_request_time = None;
        for token in &mut status.tokens {
            token.last_used = None;
        }
        for finding in &mut status.findings {
            finding.count = 0;
            finding.last_seen = None;
        }
        status
    }
    one == other || essence(one) == essence(other)
}
