//! Lists the resources of every target, at its own interval and whenever a mapping or target changed.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::pacer::Call;
use super::state::{FailedList, Listing, Trigger};
use super::{Inner, preflight, sleep_until};
use crate::catalog::{Inventory, InventoryItem};
use crate::model::{Reason, Region, ResourceKind, TargetName};
use crate::status::Failure;
use crate::store::{ListingRecord, ResourceRecord};
use crate::target::{Backoff, Discovery, ErrorClass, ErrorKind, TargetError};

/// Shortest time between two lists of a target when changes of manifests request them.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// Number of targets that are listed concurrently.
const PARALLEL: usize = 8;
/// Time after which a slow list no longer occupies one of the concurrent slots.
const PROMPT: Duration = Duration::from_secs(1);
/// Longest time between two lists of a target whose lists are refused, unless its own interval is longer.
const REFUSED_MAX: Duration = Duration::from_hours(1);
/// The kinds to list in each region.
const KINDS: [ResourceKind; 3] = [ResourceKind::Service, ResourceKind::Job, ResourceKind::WorkerPool];

pub(super) async fn follow(inner: Arc<Inner>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let mut lists = JoinSet::new();
    while !stop.is_cancelled() {
        while lists.try_join_next().is_some() {}
        let (taken, next) = {
            let mut queue = inner.discovery();
            (queue.pop(Instant::now()), queue.next_due())
        };
        let Some(target) = taken else {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = inner.list.notified() => {}
                () = sleep_until(next) => {}
            }
            continue;
        };
        let worker = inner.clone();
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        lists.spawn(async move {
            let mut listing = AbortOnDropHandle::new(tokio::spawn({
                let (worker, target) = (worker.clone(), target.clone());
                async move { list(&worker, &target).await }
            }));
            // A target whose lists hang gives up its slot; the number of targets is small.
            let prompt = tokio::time::timeout(PROMPT, &mut listing).await;
            drop(permit);
            let ended = match prompt {
                Ok(ended) => ended,
                Err(_) => listing.await,
            };
            let next = ended.unwrap_or(Some(Backoff::FAILURE.cap));
            let now = Instant::now();
            let _at_work = worker.at_work();
            let mut queue = worker.discovery();
            queue.complete(&target, Some(now + FRESH));
            if let Some(delay) = next {
                queue.enqueue(&target, now + delay);
            }
            drop(queue);
            worker.list.notify_one();
        });
    }
}

/// Lists the resources of one region, once its quota for reads permits it.
async fn list_region(inner: &Inner, project: &str, location: &str) -> Discovery {
    let region = Region::new(project, location);
    let opens = inner.queue().reads_open(&region, Instant::now());
    if let Some(opens) = opens {
        tokio::time::sleep_until(opens).await;
    }
    let begun = Instant::now();
    let found = inner.target.discover(project, location).await;
    match found.failed.iter().find(|(_, error)| error.class() == ErrorClass::Throttle) {
        Some((_, error)) => inner.note_quota(&region, Call::Read, begun, Some(error)),
        None if found.failed.is_empty() => inner.note_quota(&region, Call::Read, begun, None),
        None => {}
    }
    found
}

/// Appends the changes of a list to the history, unless the list is equal to the last appended one. Changes that cannot
/// be stored now are found again with the next list.
async fn record(
    inner: &Inner,
    name: &TargetName,
    items: Option<&[InventoryItem]>,
    unlisted: &BTreeSet<(String, ResourceKind)>,
) {
    let resource = |item: &InventoryItem| ResourceRecord {
        document: item.document.clone(),
        uid: item.uid.clone(),
        labels: item.labels.clone(),
        invoker_iam_disabled: item.invoker_iam_disabled,
    };
    let resources = items.map(|items| items.iter().map(resource).collect());
    let listing = ListingRecord { resources, unlisted: unlisted.clone() };
    let mut hasher = DefaultHasher::new();
    listing.hash(&mut hasher);
    let hash = hasher.finish();
    if inner.state().targets.get(name).is_none_or(|target| target.recorded == Some(hash)) {
        return;
    }
    match inner.store.record_listing(name, &listing).await {
        Ok(_) => {
            if let Some(target) = inner.state().targets.get_mut(name) {
                target.recorded = Some(hash);
            }
        }
        Err(error) => tracing::warn!(
            target.name = %name, reason = %error.reason(), %error,
            "cannot store the changes of the list of resources; retrying with the next list"
        ),
    }
}

/// A failed list, as the status shows it. Google's answer does not tell a missing permission from a project or region
/// that does not exist.
fn failed_list(
    location: &str,
    kind: ResourceKind,
    error: &TargetError,
    whole_region: bool,
    now: Timestamp,
) -> FailedList {
    // The list of a project that exists is empty, and never missing.
    let reason = if error.kind == ErrorKind::NotFound { Reason::ProjectNotFound } else { error.reason };
    let mut message = format!("cannot list {} in {location}: {error}", kind.collection());
    if whole_region && matches!(error.kind, ErrorKind::Denied { .. } | ErrorKind::NotFound) {
        message.push_str(
            "; either the permission is missing, or the project or the region does not exist: check `spec.project` and \
             `spec.locations` as well",
        );
    }
    FailedList {
        location: location.to_owned(),
        kind,
        failure: Failure { reason, message, since: now },
        missing_permission: error.missing_permission().map(str::to_owned),
        whole_region,
    }
}

/// Lists one target and updates the catalog. Returns when to list it again; none when the target no longer exists.
async fn list(inner: &Arc<Inner>, name: &TargetName) -> Option<Duration> {
    let begun = Instant::now();
    let (spec, interval) = {
        let state = inner.state();
        let target = state.targets.get(name)?;
        (target.spec.clone(), target.discovery_interval)
    };
    let (project, locations) = (&spec.project, &spec.locations);
    let mut items = Vec::new();
    let mut unreachable = Vec::new();
    let mut unlisted = BTreeSet::new();
    let mut failed: Vec<FailedList> = Vec::new();
    let mut lasting = false;
    let now = inner.clock.now();
    // Regions are listed concurrently: one that does not answer must not delay the results of the others.
    let asked = locations.iter().map(|location| list_region(inner, project, location));
    let answers = futures::future::join_all(asked).await;
    for (location, found) in locations.iter().zip(answers) {
        for resource in found.items {
            items.push(InventoryItem {
                document: resource.document,
                uid: resource.uid,
                labels: resource.labels,
                invoker_iam_disabled: resource.invoker_iam_disabled,
            });
        }
        if !found.unreachable.is_empty() {
            unlisted.extend(KINDS.map(|kind| (location.clone(), kind)));
        }
        unreachable.extend(found.unreachable);
        let whole_region = found.failed.len() == KINDS.len();
        for (kind, error) in found.failed {
            lasting |= error.class() == ErrorClass::Definitive;
            unlisted.insert((location.clone(), kind));
            failed.push(failed_list(location, kind, &error, whole_region, now));
        }
    }
    let complete = unreachable.is_empty() && failed.is_empty();
    let listed = unlisted.len() < locations.len() * KINDS.len();
    record(inner, name, listed.then_some(items.as_slice()), &unlisted).await;
    let problem = failed.first().map(|list| list.failure.clone());
    let reachable = preflight::reachable(&spec, items.iter().map(|item| &item.document));
    let missed: BTreeSet<ResourceKind> = unlisted.iter().map(|(_, kind)| *kind).collect();
    let effects = {
        let mut state = inner.state();
        let target = state.targets.get_mut(name)?;
        target.failures = if complete { 0 } else { target.failures.saturating_add(1) };
        let before = target.listing.take();
        for list in &mut failed {
            let known = before.iter().flat_map(|listing| &listing.failed).find(|known| {
                (&known.location, known.kind, known.failure.reason) == (&list.location, list.kind, list.failure.reason)
            });
            list.failure.since = known.map_or(now, |known| known.failure.since);
        }
        let complete_at = if complete { Some(now) } else { before.and_then(|listing| listing.complete_at) };
        target.listing = Some(Listing { unreachable, failed, complete_at });
        target.listed_from = Some(begun);
        state.changed_targets.insert(name.clone());
        if listed {
            state.catalog.apply_inventory(name, Inventory { resources: items, unlisted })
        } else {
            state.catalog.inventory_failed(name)
        }
    };
    if let Some(Failure { reason, message, .. }) = problem {
        tracing::warn!(target.name = %name, %reason, "{message}");
    }
    // A list is not part of a burst: it has all changes at once.
    inner.apply_effects_after(Duration::ZERO, effects, &Trigger::at(now)).await;
    preflight::test(inner, name, &spec, reachable, &missed).await;
    let failures = inner.state().targets.get(name)?.failures;
    let jitter = inner.random.jitter();
    Some(if failures == 0 {
        interval.mul_f64(jitter)
    } else if lasting && listed {
        // Other kinds or regions were listed, and new resources there must not wait for longer.
        interval.mul_f64(jitter)
    } else if lasting {
        refused_again(interval, failures).mul_f64(jitter)
    } else {
        Backoff::FAILURE.delay(failures, inner.random.fraction()).min(interval)
    })
}

/// The time until the next list after `failures` refusals in a row, such as for a missing permission. Only a person can
/// fix that, so the time starts at the usual interval and doubles. A fix is noticed after at most as long as the
/// problem lasted, and at once with the annotation for a reconcile.
fn refused_again(interval: Duration, failures: u32) -> Duration {
    let doubled = 1_u32 << failures.saturating_sub(1).min(31);
    interval.saturating_mul(doubled).min(REFUSED_MAX.max(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_whose_list_is_refused_is_listed_after_its_interval_then_ever_more_rarely_up_to_an_hour() {
        let minutes = |n: u64| Duration::from_mins(n);
        let delays: Vec<Duration> = (1..=6).map(|failures| refused_again(minutes(5), failures)).collect();
        assert_eq!(delays, [5, 10, 20, 40, 60, 60].map(minutes));
        assert_eq!(refused_again(minutes(90), 1), minutes(90), "an interval beyond an hour stays");
        assert_eq!(refused_again(minutes(90), u32::MAX), minutes(90));
    }
}
