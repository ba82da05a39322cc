//! The single writer of statuses and Events in a cluster: sends changes of the cache to the API server.
//!
//! Statuses are written by server-side apply with one field manager, so that fields of other managers stay and
//! conditions that are no longer set are removed. An object is written at most once per [`PAUSE`]; changes made
//! meanwhile are part of the next write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Error};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache::{Item, ItemKey, Status, StatusCache};
use super::refused::refused;
use crate::api::condition::kind;
use crate::api::{CloudRunTarget, FIELD_MANAGER, IdentityProvider, RoleMapping};
use crate::model::{Clock, Reason, SystemClock};

/// Pause after a write of an object.
const PAUSE: Duration = Duration::from_millis(500);
/// First and longest delay before a failed write is retried.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Timeout of one call.
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest number of concurrent writes.
const PARALLEL: usize = 8;
/// Longest note of an Event that the API server accepts, in bytes.
const NOTE: usize = 1024;

/// Counts finished writes by outcome: `Written`, `Refused` or `Failed`.
pub(crate) type WriteCount = Arc<dyn Fn(&'static str) + Send + Sync>;

/// State of the writer.
#[derive(Clone)]
struct Writer {
    client: Client,
    recorder: Recorder,
    cache: StatusCache,
    count: WriteCount,
    permits: Arc<Semaphore>,
    /// What the cluster shows, as written or read here: Events describe changes from it.
    shown: Arc<Mutex<BTreeMap<ItemKey, Item>>>,
}

/// Writes changes of the cache until `stop` is canceled. The current content of the cache must be what the cluster
/// shows.
pub(crate) async fn write_statuses(
    client: Client,
    pod: String,
    cache: StatusCache,
    count: WriteCount,
    stop: CancellationToken,
) {
    let reporter = Reporter { controller: "rolecall.dev/rolecall".to_owned(), instance: Some(pod) };
    let shown = cache.list().items.into_iter().map(|item| (item.key(), item)).collect();
    let writer = Writer {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        cache,
        count,
        permits: Arc::new(Semaphore::new(PARALLEL)),
        shown: Arc::new(Mutex::new(shown)),
    };
    let mut busy: BTreeSet<ItemKey> = BTreeSet::new();
    let mut again: BTreeSet<ItemKey> = BTreeSet::new();
    let mut under_way: JoinSet<ItemKey> = JoinSet::new();
    loop {
        let keys = tokio::select! {
            news = writer.cache.news() => news,
            Some(done) = under_way.join_next() => match done {
                Ok(key) => {
                    busy.remove(&key);
                    if again.remove(&key) { BTreeSet::from([key]) } else { continue }
                }
                Err(error) => {
                    tracing::error!(%error, "a task that writes a status failed");
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        for key in keys {
            if busy.insert(key.clone()) {
                let writer = writer.clone();
                under_way.spawn(async move {
                    writer.bring(&key).await;
                    key
                });
            } else {
                again.insert(key);
            }
        }
    }
    // The next leader writes what was interrupted: it starts by reading what the cluster shows.
    under_way.shutdown().await;
}

impl Writer {
    /// Writes the status of one object, with retries until it is accepted or the object is gone. Then pauses for the
    /// object.
    async fn bring(&self, key: &ItemKey) {
        let (mut delay, longest) = AGAIN;
        // The status that was written in place of a refused one.
        let mut instead: Option<Status> = None;
        loop {
            // While many statuses wait to be written, each of them goes on changing: the newest content is written.
            let permit = self.permits.acquire().await;
            let Some(item) = self.cache.get(key) else {
                self.forget(key);
                return;
            };
            let written = self.write(&item).await;
            drop(permit);
            match written {
                Ok(()) => {
                    self.emit_event(key, item).await;
                    break;
                }
                Err(WriteError::Gone) => {
                    self.forget(key);
                    break;
                }
                Err(WriteError::Refused(refusal)) => {
                    tracing::error!(
                        object.kind = %item.kind, object.name = %item.metadata.name, problem = %refusal,
                        "the API server refused the status of {} {} as malformed; writing a minimal one instead", item.kind, item.metadata.name
                    );
                    self.say_refused(key, &item, &refusal, &mut instead).await;
                }
                Err(WriteError::Failed(problem)) => {
                    tracing::warn!(
                        object.kind = %item.kind, object.name = %item.metadata.name, %problem,
                        "cannot write the status of {} {}; retrying", item.kind, item.metadata.name
                    );
                }
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(longest);
        }
        tokio::time::sleep(PAUSE).await;
    }

    fn forget(&self, key: &ItemKey) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    async fn write(&self, item: &Item) -> Result<(), WriteError> {
        let result = match tokio::time::timeout(PATIENCE, self.apply(item)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(WriteError::of(&error)),
            Err(_) => Err(WriteError::Failed("the API server did not answer".to_owned())),
        };
        match &result {
            Ok(()) => (self.count)("Written"),
            Err(WriteError::Refused(_)) => (self.count)("Refused"),
            Err(WriteError::Failed(_)) => (self.count)("Failed"),
            // It was deleted; the watch reports that too.
            Err(WriteError::Gone) => {}
        }
        result
    }

    /// Replaces a refused status by one that any schema accepts, because an outdated status would be believed.
    async fn say_refused(&self, key: &ItemKey, item: &Item, refusal: &str, instead: &mut Option<Status>) {
        let minimal = refused(&item.status, &self.cache.shown(refusal), item.metadata.generation, SystemClock.now());
        if instead.as_ref().is_some_and(|shown| shown.is_equivalent(&minimal)) {
            return;
        }
        let item = Item { status: minimal.clone(), ..item.clone() };
        match self.write(&item).await {
            Ok(()) => {
                *instead = Some(minimal);
                self.emit_event(key, item).await;
            }
            Err(error) => tracing::error!(
                object.kind = %item.kind, object.name = %item.metadata.name, problem = %error,
                "cannot write a minimal status either; the status of {} {} is outdated", item.kind, item.metadata.name
            ),
        }
    }

    async fn apply(&self, item: &Item) -> Result<(), Error> {
        let api = api(&self.client, item);
        let body = json!({
            "apiVersion": item.api_version,
            "kind": item.kind,
            "metadata": {"name": item.metadata.name, "namespace": item.metadata.namespace},
            "status": item.status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch_status(&item.metadata.name, &params, &Patch::Apply(body)).await.map(|_| ())
    }

    /// Emits Events for the changes. Failures to write an Event are logged and otherwise ignored.
    async fn emit_event(&self, key: &ItemKey, item: Item) {
        let before = self.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), item.clone());
        let same = before.filter(|before| before.metadata.uid == item.metadata.uid);
        let regarding = ObjectReference {
            api_version: Some(item.api_version.clone()),
            kind: Some(item.kind.to_string()),
            name: Some(item.metadata.name.clone()),
            namespace: item.metadata.namespace.clone(),
            uid: item.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        for event in changes(same.as_ref().map(|item| &item.status), &item.status) {
            match tokio::time::timeout(PATIENCE, self.recorder.publish(&event, &regarding)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if is_forbidden(&error) => {
                    tracing::warn!(%error, event.reason, "the API server does not permit rolecall to write this Event");
                }
                Ok(Err(error)) => tracing::debug!(%error, event.reason, "an Event was not written"),
                Err(_) => tracing::debug!(event.reason, "an Event was not written in time"),
            }
        }
    }
}

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the object is gone")]
    Gone,
    /// The same write would be refused again.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Failed(String),
}

impl WriteError {
    fn of(error: &Error) -> Self {
        let Error::Api(status) = error else { return Self::Failed(error.to_string()) };
        match status.code {
            404 => Self::Gone,
            400 | 413 | 422 => Self::Refused(status.message.clone()),
            // etcd has its own limit.
            500 if status.message.contains("too large") => Self::Refused(status.message.clone()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// True when rolecall lacks the permission. Nobody may write into a namespace that is being deleted; that is expected.
fn is_forbidden(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && !causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

fn api(client: &Client, item: &Item) -> Api<DynamicObject> {
    let resource = match &item.status {
        Status::IdentityProvider(_) => ApiResource::erase::<IdentityProvider>(&()),
        Status::CloudRunTarget(_) => ApiResource::erase::<CloudRunTarget>(&()),
        Status::RoleMapping(_) => ApiResource::erase::<RoleMapping>(&()),
    };
    match &item.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// One Event for each condition whose reason changed. `Ready` covers the good state, and also `Stalled` and
/// `Reconciling`, which only repeat it. The others produce Events when they report a problem.
fn changes(before: Option<&Status>, now: &Status) -> Vec<Event> {
    let said = |condition: &&Condition| {
        let known = before.and_then(|before| before.condition(&condition.type_));
        known.is_none_or(|known| known.reason != condition.reason || known.status != condition.status)
    };
    let matters = |condition: &&Condition| match condition.type_.as_str() {
        kind::READY => true,
        kind::STALLED | kind::RECONCILING => false,
        kind::HELD | kind::DRIFTED | kind::FROZEN | kind::NEARLY_FULL => condition.status == "True",
        _ => {
            condition.status == "False"
                || [Reason::PartlyDelegated, Reason::TokenExpiring, Reason::NestingCycle]
                    .iter()
                    .any(|problem| condition.reason == *problem)
        }
    };
    let ready = now.condition(kind::READY).map(|ready| ready.reason.clone());
    now.conditions()
        .iter()
        .filter(said)
        .filter(matters)
        // A reason already reported by `Ready` is not repeated.
        .filter(|condition| condition.type_ == kind::READY || Some(&condition.reason) != ready.as_ref())
        .map(|condition| Event {
            type_: if is_good(condition) { EventType::Normal } else { EventType::Warning },
            reason: condition.reason.clone(),
            note: Some(bounded(&condition.message)),
            action: condition.type_.clone(),
            secondary: None,
        })
        .collect()
}

fn is_good(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        kind::READY => condition.status == "True" || condition.reason == Reason::Progressing,
        kind::DRIFTED => condition.reason == Reason::ForeignMembers,
        _ => false,
    }
}

fn bounded(message: &str) -> String {
    let mut end = message.len().min(NOTE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::RoleMappingStatus;

    fn status(conditions: &[(&str, &str, &str)]) -> Status {
        let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            reason: (*reason).to_owned(),
            message: "m".to_owned(),
            observed_generation: Some(1),
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        };
        let conditions = conditions.iter().map(condition).collect();
        Status::RoleMapping(Box::new(RoleMappingStatus { conditions, ..RoleMappingStatus::default() }))
    }

    fn said(before: Option<&Status>, now: &Status) -> Vec<(String, String)> {
        changes(before, now).into_iter().map(|event| (event.action, event.reason)).collect()
    }

    #[test]
    fn an_event_is_written_once_for_a_change_of_reason_and_not_again_while_it_stays() {
        let pending = status(&[("Accepted", "True", "Accepted"), ("Ready", "False", "Progressing")]);
        let ready = status(&[("Accepted", "True", "Accepted"), ("Ready", "True", "Converged")]);
        assert_eq!(said(None, &pending), [("Ready".to_owned(), "Progressing".to_owned())]);
        assert_eq!(said(Some(&pending), &ready), [("Ready".to_owned(), "Converged".to_owned())]);
        assert!(said(Some(&ready), &ready).is_empty());
    }

    #[test]
    fn a_token_that_expires_soon_has_an_event_of_its_own_although_its_condition_is_true() {
        let valid = status(&[("Ready", "True", "Accepted"), ("TokensValid", "True", "TokensValid")]);
        let expiring = status(&[("Ready", "True", "Accepted"), ("TokensValid", "True", "TokenExpiring")]);
        let expired = status(&[("Ready", "True", "Accepted"), ("TokensValid", "False", "TokenExpired")]);
        assert!(said(Some(&expiring), &valid).is_empty());
        assert_eq!(said(Some(&valid), &expiring), [("TokensValid".to_owned(), "TokenExpiring".to_owned())]);
        assert_eq!(said(Some(&expiring), &expired), [("TokensValid".to_owned(), "TokenExpired".to_owned())]);
        assert!(changes(Some(&valid), &expiring).iter().all(|event| matches!(event.type_, EventType::Warning)));
    }

    #[test]
    fn a_reason_reported_by_ready_is_not_repeated() {
        let ready = status(&[("Ready", "True", "Converged")]);
        let refused = status(&[("Accepted", "False", "NotDelegated"), ("Ready", "False", "NotDelegated")]);
        assert_eq!(said(Some(&ready), &refused), [("Ready".to_owned(), "NotDelegated".to_owned())]);
        let drifted = status(&[("Ready", "True", "Converged"), ("Drifted", "True", "ForeignMembers")]);
        assert_eq!(said(Some(&ready), &drifted), [("Drifted".to_owned(), "ForeignMembers".to_owned())]);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let long = "é".repeat(600);
        assert_eq!(bounded(&long).len(), 1024);
        assert_eq!(bounded(&format!("x{long}")).len(), 1023);
    }
}
