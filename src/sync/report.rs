//! Turns outcomes into statuses: folds the engine's state and publishes the result in the status cache.

mod drift;
mod health;
mod mapping;
mod provider;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio_util::sync::CancellationToken;

pub(crate) use self::drift::{DriftEntry, DriftOutcome};
use self::health::DocumentHealth;
use super::Inner;
use super::state::State;
use crate::api::FindingStatus;
use crate::model::{Difference, DocumentKey, DriftKey, DriftKind, MemberKey, ProviderName, Subject};
use crate::status::{CaptureOutcome, DriftTally, Metadata, TokenOutcome};
use crate::store::StoreError;

/// Largest number of differences of one document in the status of a mapping.
const SAMPLES: usize = 10;
/// Interval between reads of the SCIM endpoint's statistics, which send no notifications.
const REFRESH: Duration = Duration::from_secs(5);
/// A changed status is folded again after this, since the previous status is an input; so is one that would be
/// incomplete after a start.
const SETTLES: SignedDuration = SignedDuration::from_secs(1);

/// Information of the SCIM endpoint about a provider, passed in because the engine does not depend on that module.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProviderTraffic {
    /// The SCIM base URL.
    pub(crate) endpoint: String,
    /// The URL of the token endpoint, when there are OAuth 2.0 clients.
    pub(crate) token_endpoint: Option<String>,
    /// The tokens and other credentials, with their problems.
    pub(crate) tokens: Vec<TokenOutcome>,
    /// Time of the last authenticated request.
    pub(crate) last_request: Option<Timestamp>,
    /// The IdP that the requests look like.
    pub(crate) dialect: Option<String>,
    /// Deviations of the IdP from the RFCs.
    pub(crate) findings: Vec<FindingStatus>,
    /// The namespace rolecall runs in; none without a cluster.
    pub(crate) operator_namespace: Option<String>,
    /// Time of the last refusal because of the quota, unless something was created since.
    pub(crate) quota_refused_at: Option<Timestamp>,
    /// Where the capture of its requests is; none: none is asked for.
    pub(crate) capture: Option<CaptureOutcome>,
    /// True when its requests are answered with 503, because the stored people belong to a former provider of its name.
    pub(crate) former: bool,
}

/// Returns the information of the SCIM endpoint.
pub(crate) type TrafficSource = Arc<dyn Fn(&ProviderName) -> ProviderTraffic + Send + Sync>;

pub(super) async fn follow(inner: Arc<Inner>, stop: CancellationToken) {
    let mut refreshed = tokio::time::Instant::now();
    loop {
        let due = inner
            .state()
            .revisits
            .next_due()
            .map_or(REFRESH, |due| Duration::try_from(due.duration_since(inner.clock.now())).unwrap_or_default());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = inner.changed.notified() => {}
            () = tokio::time::sleep(due) => {}
            () = tokio::time::sleep_until(refreshed + REFRESH) => {}
        }
        {
            let mut state = inner.state();
            if refreshed.elapsed() >= REFRESH {
                refreshed = tokio::time::Instant::now();
                let providers: Vec<ProviderName> = state.providers.keys().cloned().collect();
                state.changed_providers.extend(providers);
            }
            state.take_revisits(inner.clock.now());
        }
        publish(&inner).await;
        tokio::time::sleep(inner.config.status_window).await;
    }
}

/// Folds all statuses again. Returns the mappings and targets whose status changed by that, which nobody had noticed.
#[cfg(test)]
pub(super) fn unnoticed(inner: &Inner) -> Vec<String> {
    use crate::status::{same_mapping, same_target};
    let (mappings, targets): (Vec<_>, Vec<_>) = {
        let state = inner.state();
        (state.mappings.keys().cloned().collect(), state.targets.keys().cloned().collect())
    };
    let mut unnoticed = Vec::new();
    for key in mappings {
        let before = inner.cache.mapping(&key);
        mapping::publish(inner, &key);
        let now = inner.cache.mapping(&key);
        let is_same = match (&before, &now) {
            (Some(before), Some(now)) => same_mapping(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if !is_same {
            unnoticed.push(format!("{key}: {before:?} became {now:?}"));
        }
    }
    for name in targets {
        let before = inner.cache.target(&name);
        target::publish(inner, &name);
        let now = inner.cache.target(&name);
        let is_same = match (&before, &now) {
            (Some(before), Some(now)) => same_target(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if !is_same {
            unnoticed.push(format!("{name}: {before:?} became {now:?}"));
        }
    }
    unnoticed
}

async fn publish(inner: &Inner) {
    count_orphaned(inner).await;
    let _at_work = inner.at_work();
    let (mappings, targets, providers) = {
        let mut state = inner.state();
        (
            std::mem::take(&mut state.changed_mappings),
            std::mem::take(&mut state.changed_targets),
            std::mem::take(&mut state.changed_providers),
        )
    };
    for key in mappings {
        mapping::publish(inner, &key);
    }
    for name in targets {
        target::publish(inner, &name);
    }
    for name in providers {
        let counted = async { Ok((inner.store.counts(&name).await?, inner.store.usage(&name).await?)) };
        let (counts, usage) = match counted.await {
            Ok(counted) => counted,
            Err::<_, StoreError>(error) => {
                tracing::warn!(%error, "cannot count the directory for the status");
                continue;
            }
        };
        provider::publish(inner, &name, counts, usage);
    }
    gauges(inner);
}

/// Counts the orphaned grants in the ledger; usually there are none.
async fn count_orphaned(inner: &Inner) {
    let orphaned = match inner.store.orphaned().await {
        Ok(orphaned) => orphaned,
        Err(error) => {
            tracing::warn!(%error, "cannot count orphaned grants");
            return;
        }
    };
    inner.metrics.orphaned_members.set([], orphaned.values().sum::<u64>().try_into().unwrap_or(usize::MAX));
    let mut state = inner.state();
    if state.orphaned != orphaned {
        let touched: Vec<DocumentKey> = state.orphaned.keys().chain(orphaned.keys()).cloned().collect();
        for document in touched {
            let target = state.target_of(&document);
            state.changed_targets.extend(target);
        }
        state.orphaned = orphaned;
    }
}

/// The metadata of a status.
fn metadata(
    (namespace, name): (Option<&str>, &str),
    uid: Option<&String>,
    generation: i64,
    created: Timestamp,
) -> Metadata {
    Metadata {
        name: name.to_owned(),
        namespace: namespace.map(str::to_owned),
        generation: Some(generation),
        uid: uid.cloned(),
        creation_timestamp: Some(Time(created)),
    }
}

/// A member in the form that everybody may read: people by their id, or by domain and digest.
pub(super) fn shown(inner: &Inner, state: &State, member: &MemberKey, subject: Option<Subject>) -> String {
    let claimed = match subject {
        Some(Subject::User(id)) => Some(id),
        Some(Subject::Group(_)) | None => None,
    };
    inner.store.pseudonyms().member(member.as_str(), claimed.or_else(|| state.catalog.person_with(member)))
}

/// The member of a difference, in a form that does not change with the directory: people by the id of whom the grant is
/// claimed for, or by domain and digest. Empty for a difference of the whole resource.
fn shown_in(inner: &Inner, key: &DriftKey, difference: &Difference) -> String {
    let claimed = match difference.concerns.subject {
        Some(Subject::User(id)) => Some(id),
        Some(Subject::Group(_)) | None => None,
    };
    let member = key.member.as_ref();
    member.map(|member| inner.store.pseudonyms().member(member.as_str(), claimed)).unwrap_or_default()
}

/// A foreign text, such as an error of Google, without the names of people.
pub(super) fn quoted(inner: &Inner, state: &State, text: &str) -> String {
    let known = |address: &str| state.catalog.person_with(&MemberKey::of(&format!("user:{address}")));
    inner.store.pseudonyms().text_with(text, known).into_owned()
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn gauges(inner: &Inner) {
    let mut contested = 0;
    let (mut counts, mut lost, mut foreign, mut unowned, mut held) = (BTreeMap::new(), 0, 0, 0, [0, 0]);
    let frozen_mappings = {
        let state = inner.state();
        let frozen = state.frozen_documents();
        let mut drift = DriftTally::default();
        let (mut fullest, mut nearly_full) = (0, 0);
        for (document, memory) in &state.documents {
            contested += memory.contests.contested(None).count();
            let tally = memory.drift.tally(None, &state.reported(document), inner.clock.now());
            *counts.entry(memory.health(frozen.contains(document), !tally.kinds.is_empty())).or_insert(0) += 1;
            drift.add(&tally);
            let space = memory.found.as_ref().and_then(|found| found.space);
            fullest = fullest.max(space.map_or(0, |space| space.percent()));
            nearly_full += usize::from(space.is_some_and(|space| space.is_nearly_full()));
            if let Some(found) = &memory.found {
                lost += found.lost;
                foreign += found.foreign;
                unowned += found.unowned;
                held[0] += found.held.grants(false).len();
                held[1] += found.held.grants(true).len();
            }
        }
        // Documents that were not read, because nothing may be, count as frozen too.
        let unread = frozen.iter().filter(|document| !state.documents.contains_key(**document)).count();
        *counts.entry(DocumentHealth::Frozen).or_insert(0) += unread;
        inner.metrics.nearly_full.set([], nearly_full);
        inner.metrics.fullest.set([], fullest);
        for kind in DriftKind::ALL {
            inner.metrics.drift.set([kind.word()], usize::try_from(drift.of(kind)).unwrap_or(usize::MAX));
        }
        inner.metrics.event_seq.set([], usize::try_from(state.directory_seq).unwrap_or(0));
        state.frozen_mappings.len()
    };
    for health in DocumentHealth::ALL {
        inner.metrics.documents.set([health.word()], counts.get(&health).copied().unwrap_or(0));
    }
    inner.metrics.frozen_mappings.set([], frozen_mappings);
    inner.metrics.drift_members.set(["contested"], contested);
    inner.metrics.drift_members.set(["lost"], lost);
    inner.metrics.drift_members.set(["foreign"], foreign);
    inner.metrics.drift_members.set(["unowned"], unowned);
    inner.metrics.held_members.set(["remove"], held[0]);
    inner.metrics.held_members.set(["leaver"], held[1]);
    let (waiting, (paced, waits)) = {
        let queue = inner.queue();
        (queue.waiting(), queue.paced(tokio::time::Instant::now()))
    };
    inner.metrics.queue.set([], waiting);
    inner.metrics.paced_regions.set(["reads"], paced[0]);
    inner.metrics.paced_regions.set(["writes"], paced[1]);
    inner.metrics.paced_documents.set([], waits);
}
