//! The status of an `IdentityProvider`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::condition::kind;
use crate::api::{FindingStatus, IdentityProviderStatus, ProviderState, TokenStatus};
use crate::model::{FreezeReason, Reason};

use super::Folded;
use super::conditions::{Conditions, earliest, explain, int, later, plural, with_next_step};
use super::input::{CaptureOutcome, ProviderInput, QuotaOutcome, TokenOutcome};

/// Largest number of listed findings.
const LISTED: usize = 50;
/// Time before the end of a token from which on its expiry is reported. The chart's alert uses the same.
const EXPIRY_WARNING: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Folds the status of a provider at `now`, given its previous status.
#[must_use]
pub(crate) fn fold_provider(
    input: &ProviderInput<'_>,
    previous: Option<&IdentityProviderStatus>,
    now: Timestamp,
) -> Folded<IdentityProviderStatus> {
    let mut tokens: Vec<&TokenOutcome> = input.tokens.iter().collect();
    tokens.sort_by(|one, other| one.name.cmp(&other.name));
    let problems: Vec<(&str, Reason)> =
        tokens.iter().filter_map(|token| Some((token.name.as_str(), token_problem(token, now)?))).collect();

    let mut conditions = Conditions::new(previous.map_or(&[], |status| &status.conditions), input.generation, now);
    let (status, word, message) = ready(input, &problems, now);
    let arrives = conditions.set_ready(status, word, &message);
    if let Some(message) = quota_exceeded(&input.quota, now) {
        conditions.set(kind::QUOTA_EXCEEDED, true, Reason::QuotaExceeded, &message);
    }
    if input.ignored_nestings > 0 {
        let fact = format!(
            "{} of groups in groups, stored by a directory that is older than the resolution of nested groups",
            plural(input.ignored_nestings, "membership", "memberships"),
        );
        let message = format!("{fact}: {}", explain(Reason::NestingIgnored));
        conditions.set(kind::NESTED_GROUPS, false, Reason::NestingIgnored, &message);
    }
    let (status, word, message) = tokens_valid(&tokens, &problems, now);
    conditions.set(kind::TOKENS_VALID, status, word, &message);
    let (status, word, stale_at) = fresh(input, now);
    conditions.set(kind::FRESH, status, word, &explain(word));

    let capture_turns = capturing(input.capture, &mut conditions);

    // A store that is not trusted must not be recorded as the one that was used here: the next start would trust it.
    let believed = !matches!(input.frozen, Some(FreezeReason::StoreMismatch | FreezeReason::StoreRewound));
    let (store_id, operator_namespace) = match previous {
        _ if believed => (Some(input.store_id.to_owned()), input.operator_namespace.map(str::to_owned)),
        Some(status) => (status.store_id.clone(), status.operator_namespace.clone()),
        None => (None, None),
    };

    let ends = tokens.iter().filter_map(|token| token.not_after);
    let expires = ends.flat_map(|end| [warns_at(end), end]).filter(|at| now < *at).min();
    let mut findings: Vec<&FindingStatus> = input.findings.iter().collect();
    findings.sort_by(|one, other| (&one.code, &one.pointer).cmp(&(&other.code, &other.pointer)));
    let status = IdentityProviderStatus {
        observed_generation: Some(input.generation),
        endpoint: Some(input.endpoint.to_owned()),
        token_endpoint: input.token_endpoint.map(str::to_owned),
        dialect: input.dialect.map(str::to_owned),
        users: Some(int(input.users)),
        groups: Some(int(input.groups)),
        last_request_time: input.last_request.map(Time),
        tokens: tokens
            .iter()
            .map(|token| TokenStatus {
                name: token.name.clone(),
                not_after: token.not_after.map(Time),
                last_used: token.last_used.map(Time),
                reason: token_problem(token, now).map(|reason| reason.word().to_owned()),
            })
            .collect(),
        findings: findings.into_iter().take(LISTED).cloned().collect(),
        store_id,
        operator_namespace,
        last_handled_reconcile_at: input.last_handled_reconcile_at.map(str::to_owned),
        conditions: conditions.finish(),
    };
    Folded { status, revisit: earliest(earliest(earliest(stale_at, expires), arrives), capture_turns) }
}

/// Why a token is refused: its problem, or its expiry.
fn token_problem(token: &TokenOutcome, now: Timestamp) -> Option<Reason> {
    token.problem.or_else(|| token.not_after.is_some_and(|at| at <= now).then_some(Reason::TokenExpired))
}

fn ready(input: &ProviderInput<'_>, problems: &[(&str, Reason)], now: Timestamp) -> (bool, Reason, String) {
    if let Some(problem) = input.problem {
        let message = format!("{}; its last valid version stays in force", problem.message);
        return (false, problem.reason, with_next_step(&message, problem.reason));
    }
    if let Some(why) = input.frozen.filter(|why| *why != FreezeReason::Observed) {
        return (false, why.reason(), why.message().to_owned());
    }
    if input.state == ProviderState::Suspended {
        let message = "SCIM requests are answered with 503, and what was granted stays; set `state: Active` to go on";
        return (false, Reason::Suspended, message.to_owned());
    }
    if let (true, Some((_, word))) = (problems.len() == input.tokens.len(), problems.first()) {
        return (false, *word, format!("no token can be used, so every request is refused: {}", listed(problems)));
    }
    if let Some(message) = quota_exceeded(&input.quota, now) {
        return (false, Reason::QuotaExceeded, message);
    }
    if input.last_request.is_none() {
        return (true, Reason::WaitingForFirstRequest, explain(Reason::WaitingForFirstRequest));
    }
    let message = format!(
        "{} and {} pushed by the IdP",
        plural(input.users, "user", "users"),
        plural(input.groups, "group", "groups")
    );
    (true, Reason::Accepted, message)
}

/// How long a refusal is shown when nothing was created after it. An IdP retries a refused request.
const REFUSED: SignedDuration = SignedDuration::from_hours(24);

/// Describes that the quota is used up, or that something was refused because of it.
fn quota_exceeded(quota: &QuotaOutcome, now: Timestamp) -> Option<String> {
    let refused = quota.refused_at.is_some_and(|at| now.duration_since(at) < REFUSED);
    let full = |used: u64, limit: u64| limit > 0 && used >= limit;
    (refused || full(quota.rows, quota.max_rows) || full(quota.bytes, quota.max_bytes)).then(|| {
        let stored = format!(
            "{} of {} rows and {} of {} bytes are stored",
            quota.rows, quota.max_rows, quota.bytes, quota.max_bytes
        );
        with_next_step(&stored, Reason::QuotaExceeded)
    })
}

fn tokens_valid(tokens: &[&TokenOutcome], problems: &[(&str, Reason)], now: Timestamp) -> (bool, Reason, String) {
    if let Some((_, word)) = problems.first() {
        return (false, *word, listed(problems));
    }
    let expiring: Vec<String> = tokens
        .iter()
        .filter_map(|token| Some((token, token.not_after.filter(|end| warns_at(*end) <= now)?)))
        .map(|(token, end)| format!("token `{}` expires at {end}", token.name))
        .collect();
    if expiring.is_empty() {
        return (true, Reason::TokensValid, explain(Reason::TokensValid));
    }
    (true, Reason::TokenExpiring, with_next_step(&expiring.join("; "), Reason::TokenExpiring))
}

/// When the expiry at `end` is reported for the first time.
fn warns_at(end: Timestamp) -> Timestamp {
    end.checked_sub(EXPIRY_WARNING).unwrap_or(Timestamp::MIN)
}

fn listed(problems: &[(&str, Reason)]) -> String {
    let each: Vec<String> = problems.iter().map(|(name, word)| format!("token `{name}`: {}", explain(*word))).collect();
    each.join("; ")
}

/// Says where the capture of requests is. Returns when that changes.
fn capturing(capture: Option<CaptureOutcome>, conditions: &mut Conditions<'_>) -> Option<Timestamp> {
    let (running, word, state, turns) = match capture? {
        CaptureOutcome::Waiting { from, until } => {
            let state = format!("requests are captured from {from} on, until {until}");
            (false, Reason::CaptureWaiting, state, Some(from))
        }
        CaptureOutcome::Running { until } => {
            (true, Reason::Capturing, format!("requests are captured, redacted, until {until}"), Some(until))
        }
        CaptureOutcome::Ended { until } => (false, Reason::CaptureEnded, format!("the capture ended at {until}"), None),
    };
    conditions.set(kind::CAPTURING, running, word, &with_next_step(&state, word));
    turns
}

fn fresh(input: &ProviderInput<'_>, now: Timestamp) -> (bool, Reason, Option<Timestamp>) {
    let Some(last) = input.last_request else {
        return (false, Reason::NeverSeen, None);
    };
    let Some(limit) = input.stale_after else {
        return (true, Reason::Fresh, None);
    };
    let stale_at = later(last, SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX));
    if stale_at <= now { (false, Reason::Stale, None) } else { (true, Reason::Fresh, Some(stale_at)) }
}
