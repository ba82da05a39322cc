//! The status of a provider.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::metadata;
use crate::api::duration;
use crate::model::{FreezeReason, Kind, ProviderName};
use crate::status::{Item, ProviderInput, QuotaOutcome, Status, TokenOutcome, fold_provider};
use crate::store::{Counts, Usage};
use crate::sync::Inner;
use crate::sync::state::State;

fn quota(inner: &Inner, usage: Usage, refused_at: Option<Timestamp>) -> QuotaOutcome {
    let limits = inner.store.quota();
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    QuotaOutcome {
        rows: count(usage.rows()),
        max_rows: limits.rows,
        bytes: count(usage.bytes),
        max_bytes: limits.bytes,
        refused_at,
    }
}

/// Sets the metrics of a provider: the ends of its tokens, and its silence since a time, with `staleAfter`. None: it is gone.
fn measure(
    inner: &Inner,
    name: &ProviderName,
    tokens: &[TokenOutcome],
    silence: Option<(Timestamp, Option<Duration>)>,
) {
    let now = inner.clock.now();
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs();
    let one = |value: i64| BTreeMap::from([(String::new(), value)]);
    let ends = tokens.iter().filter_map(|token| Some((token.name.clone(), seconds(now, token.not_after?))));
    let silent = silence.map(|(last, _)| one(seconds(last, now)));
    let stale = silence.and_then(|(last, stale_after)| {
        let limit = SignedDuration::try_from(stale_after?).unwrap_or(SignedDuration::MAX);
        Some(one(i64::from(now.duration_since(last) >= limit)))
    });
    let metrics = &inner.metrics.providers;
    metrics.token_expiry_seconds.replace(name.as_str(), &ends.collect());
    metrics.silence_seconds.replace(name.as_str(), &silent.unwrap_or_default());
    metrics.stale.replace(name.as_str(), &stale.unwrap_or_default());
}

/// Number of memberships of groups in groups that are ignored although the spec does not say so.
fn ignored_nestings(state: &State, name: &ProviderName) -> u64 {
    let view = state.catalog.nesting(name).filter(|view| view.by_age);
    view.map_or(0, |view| view.nestings as u64)
}

/// Publishes the status of a provider.
pub(super) fn publish(inner: &Inner, name: &ProviderName, counts: Counts, usage: Usage) {
    let now = inner.clock.now();
    let previous = inner.cache.provider(name);
    let mut traffic = (inner.traffic)(name);
    // Requests before the last start are recorded nowhere else.
    let seen_before = previous.as_ref().and_then(|status| Some(status.last_request_time.as_ref()?.0));
    for token in &mut traffic.tokens {
        let before = previous.iter().flat_map(|status| &status.tokens).find(|before| before.name == token.name);
        token.last_used = token.last_used.max(before.and_then(|before| Some(before.last_used.as_ref()?.0)));
    }
    let store_id = inner.store.id().to_string();
    let item = {
        let state = inner.state();
        let Some(memory) = state.providers.get(name) else {
            inner.cache.remove(Kind::IdentityProvider, None, name.as_str());
            measure(inner, name, &[], None);
            return;
        };
        let problem = memory.problem.clone();
        // The endpoint determines the owner of the people itself: the status reports it as long as either of the two
        // does.
        let former = memory.former || traffic.former;
        let folded = fold_provider(
            &ProviderInput {
                generation: memory.generation,
                problem: problem.as_ref(),
                frozen: state.frozen.or(former.then_some(FreezeReason::IdentityProviderChanged)),
                state: memory.spec.state,
                endpoint: &traffic.endpoint,
                token_endpoint: traffic.token_endpoint.as_deref(),
                dialect: traffic.dialect.as_deref().or_else(|| previous.as_ref()?.dialect.as_deref()),
                users: counts.users,
                groups: counts.groups,
                ignored_nestings: ignored_nestings(&state, name),
                last_request: traffic.last_request.max(seen_before),
                stale_after: memory.spec.stale_after.as_deref().and_then(|text| duration::parse(text).ok()),
                tokens: &traffic.tokens,
                capture: traffic.capture,
                findings: &traffic.findings,
                quota: quota(inner, usage, traffic.quota_refused_at),
                store_id: &store_id,
                operator_namespace: traffic.operator_namespace.as_deref(),
                last_handled_reconcile_at: memory.reconcile_requested_at.as_deref(),
            },
            previous.as_ref(),
            now,
        );
        let last = traffic.last_request.max(seen_before).unwrap_or(memory.created);
        let stale_after = memory.spec.stale_after.as_deref().and_then(|text| duration::parse(text).ok());
        measure(inner, name, &traffic.tokens, Some((last, stale_after)));
        let metadata = metadata((None, name.as_str()), memory.uid.as_ref(), memory.generation, memory.created);
        Item::new(metadata, serde_json::to_value(&memory.spec).ok(), Status::IdentityProvider(Box::new(folded.status)))
    };
    inner.cache.publish(item);
}
