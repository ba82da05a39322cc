//! Watches of a cluster: observes our resources, the labels of namespaces and the token Secrets through the API server.
//!
//! `kube::runtime::watcher` resumes after dropped connections, restarts and expired versions. Changes during such a gap
//! arrive as [`ResourceEvent::Listed`]: known objects that are missing from that list disappeared during the gap.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::discovery::ApiResource;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::manifest::{Object, ObjectRef, Problem, SecretData, read_object};
use crate::api::{CloudRunTarget, FIELD_MANAGER, IdentityProvider, RoleMapping};
use crate::model::{Kind, Reason};
use crate::source::{Absence, Observed, ResourceEvent};

/// Duration of one watch call, in seconds: a connection that died silently is detected 5 s after that.
const WATCH_SECONDS: u32 = 30;
/// Delay before a refused watch is started again.
const AGAIN: Duration = Duration::from_secs(2);

/// How long a Secret stays in force that could be read before and is refused now. An API server that has just started
/// refuses requests until it has loaded its RBAC rules.
const REFUSED: Duration = Duration::from_mins(1);

/// The origin that is stored for resources of a cluster.
const ORIGIN: &str = "cluster";
/// Longest stored name of a field manager; the API server permits no longer one.
const MANAGER_LENGTH: usize = 128;

/// Why a Secret is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretAbsence {
    /// There is no Secret of that name.
    NotFound,
    /// The API server does not permit reading it.
    Forbidden,
}

/// A change observed by the watch of a Secret.
#[derive(Debug, Clone)]
pub(crate) enum SecretChange {
    /// It has this data.
    Data(SecretData),
    /// It is not available.
    Absent {
        /// The name.
        name: String,
        /// The reason.
        why: SecretAbsence,
    },
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Watches one of [`Kind::WATCHED`] until `stop` is canceled or the receiver is dropped.
pub(crate) async fn follow(client: Client, kind: Kind, changes: mpsc::Sender<ResourceEvent>, stop: CancellationToken) {
    let custom = |resource: ApiResource| {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        watcher::watcher(api, config()).default_backoff().boxed()
    };
    match kind {
        Kind::IdentityProvider => {
            let events = custom(ApiResource::erase::<IdentityProvider>(&()));
            objects(kind, events, changes, stop).await;
        }
        Kind::CloudRunTarget => {
            let events = custom(ApiResource::erase::<CloudRunTarget>(&()));
            objects(kind, events, changes, stop).await;
        }
        Kind::RoleMapping => {
            let events = custom(ApiResource::erase::<RoleMapping>(&()));
            objects(kind, events, changes, stop).await;
        }
        Kind::Namespace => {
            let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
            namespaces(watcher::watcher(api, config()).default_backoff().boxed(), changes, stop).await;
        }
        // Each Secret is watched by its name, see `follow_secrets`.
        Kind::Secret => {}
    }
}

async fn objects(
    kind: Kind,
    mut events: impl Stream<Item = Result<Event<DynamicObject>, watcher::Error>> + Unpin,
    changes: mpsc::Sender<ResourceEvent>,
    stop: CancellationToken,
) {
    let mut listed = BTreeSet::new();
    // Fingerprint of each object as of its last event. Cleared at the start of a list, which is processed as a whole.
    let mut fingerprints: BTreeMap<ObjectRef, [u8; 32]> = BTreeMap::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        let change = match event {
            None => return,
            Some(Err(error)) => ResourceEvent::Failing { kind, problem: explain(&error) },
            Some(Ok(Event::Init)) => {
                listed.clear();
                fingerprints.clear();
                continue;
            }
            Some(Ok(Event::InitApply(object))) => {
                fingerprints.insert(reference(kind, &object), fingerprint(&object));
                listed.insert(reference(kind, &object));
                event_of(kind, object)
            }
            Some(Ok(Event::InitDone)) => ResourceEvent::Listed { kind, objects: std::mem::take(&mut listed) },
            Some(Ok(Event::Apply(object))) => {
                let (name, now) = (reference(kind, &object), fingerprint(&object));
                if fingerprints.insert(name, now) == Some(now) {
                    ResourceEvent::Restated(Box::new(observe(kind, object).0))
                } else {
                    event_of(kind, object)
                }
            }
            Some(Ok(Event::Delete(object))) => {
                let object = reference(kind, &object);
                fingerprints.remove(&object);
                ResourceEvent::Absent { object, why: Absence::NotObserved }
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

async fn namespaces(
    mut events: impl Stream<Item = Result<Event<PartialObjectMeta<Namespace>>, watcher::Error>> + Unpin,
    changes: mpsc::Sender<ResourceEvent>,
    stop: CancellationToken,
) {
    let kind = Kind::Namespace;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        let change = match event {
            None => return,
            Some(Err(error)) => ResourceEvent::Failing { kind, problem: explain(&error) },
            // A namespace is deleted when it is empty: there is nothing left that its labels could delegate to.
            Some(Ok(Event::Init | Event::Delete(_))) => continue,
            Some(Ok(Event::InitApply(object) | Event::Apply(object))) => ResourceEvent::NamespaceLabels {
                name: object.name_any(),
                labels: object.metadata.labels.unwrap_or_default(),
            },
            Some(Ok(Event::InitDone)) => ResourceEvent::Listed { kind, objects: BTreeSet::new() },
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// Watches the Secrets whose names are `wanted`, each by its own name: no other Secret of the namespace is read.
pub(crate) async fn follow_secrets(
    client: Client,
    namespace: String,
    mut wanted: watch::Receiver<BTreeSet<String>>,
    changes: mpsc::Sender<SecretChange>,
    stop: CancellationToken,
) {
    let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let names = wanted.borrow_and_update().clone();
        running.retain(|name, stop| {
            let keep = names.contains(name);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for name in names {
            running.entry(name.clone()).or_insert_with(|| {
                let stop = stop.child_token();
                tasks.spawn(follow_secret(client.clone(), namespace.clone(), name, changes.clone(), stop.clone()));
                stop
            });
        }
        tokio::select! {
            renewed = wanted.changed() => if renewed.is_err() { return },
            Some(_) = tasks.join_next() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn follow_secret(
    client: Client,
    namespace: String,
    name: String,
    changes: mpsc::Sender<SecretChange>,
    stop: CancellationToken,
) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let config = config().fields(&format!("metadata.name={name}"));
    let open = || watcher::watcher(api.clone(), config.clone()).default_backoff();
    let mut events = pin!(open());
    let mut there = false;
    let (mut in_force, mut refused) = (false, None);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        let absent = |why| SecretChange::Absent { name: name.clone(), why };
        let change = match event {
            None => return,
            Some(Ok(Event::Init)) => {
                there = false;
                continue;
            }
            Some(Ok(Event::InitApply(secret) | Event::Apply(secret))) => {
                (there, in_force, refused) = (true, true, None);
                let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
                SecretChange::Data(SecretData { namespace: Some(namespace.clone()), name: name.clone(), data })
            }
            Some(Ok(Event::InitDone)) if there => continue,
            Some(Ok(Event::InitDone | Event::Delete(_))) => {
                (in_force, refused) = (false, None);
                absent(SecretAbsence::NotFound)
            }
            Some(Err(error)) if is_forbidden(&error) => {
                tracing::warn!(
                    secret.name = %name, secret.namespace = %namespace, reason = Reason::TokenSecretForbidden.word(),
                    "the API server does not let rolecall read the Secret {name}: name it in the chart's value `secrets`"
                );
                if !matches!(error, watcher::Error::InitialListFailed(_)) {
                    // A watch that continues would not deliver the Secret again; a new list does. It starts without the
                    // backoff that the old one had reached.
                    tokio::time::sleep(AGAIN).await;
                    events.set(open());
                }
                let since = *refused.get_or_insert_with(tokio::time::Instant::now);
                if in_force && since.elapsed() < REFUSED {
                    continue;
                }
                in_force = false;
                absent(SecretAbsence::Forbidden)
            }
            Some(Err(error)) => {
                tracing::warn!(
                    secret.name = %name, problem = %explain(&error),
                    "cannot watch the Secret {name}; its last content stays in force"
                );
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    let forbidden = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 403);
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => forbidden(error),
        watcher::Error::WatchError(status) => status.code == 403,
        watcher::Error::NoResourceVersion => false,
    }
}

/// The error with its causes, which its own message omits.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn reference(kind: Kind, object: &DynamicObject) -> ObjectRef {
    ObjectRef { kind, namespace: object.namespace(), name: object.name_any() }
}

/// SHA-256 over the content of an object: all of it except the status, the version and the managed fields.
fn fingerprint(object: &DynamicObject) -> [u8; 32] {
    let metadata = ObjectMeta { managed_fields: None, resource_version: None, ..object.metadata.clone() };
    let data = object.data.as_object();
    let data: Vec<_> = data.into_iter().flatten().filter(|(field, _)| field.as_str() != "status").collect();
    // Serialization cannot fail: values of these types are maps with text keys.
    Sha256::digest(serde_json::to_vec(&(&object.types, metadata, data)).unwrap_or_default()).into()
}

/// An object without its `managedFields`, and the rest of it.
fn observe(kind: Kind, mut object: DynamicObject) -> (Observed, DynamicObject) {
    let written_by = last_writer(object.metadata.managed_fields.take().unwrap_or_default());
    let status = object.data.get_mut("status").map(Value::take).unwrap_or_default();
    let observed = Observed {
        object: reference(kind, &object),
        metadata: object.metadata.clone(),
        status: Some(status),
        origin: ORIGIN.to_owned(),
        written_by,
    };
    (observed, object)
}

/// Reads an object by the same schema, defaults and rules as a manifest, so that objects admitted by an older CRD are
/// detected.
fn event_of(kind: Kind, object: DynamicObject) -> ResourceEvent {
    let (observed, object) = observe(kind, object);
    let parsed = read(&observed.object, &object);
    if let Err(problems) = &parsed {
        for problem in problems.iter().take(20) {
            tracing::warn!("{problem}");
        }
    }
    // A provider or target that is kept by somebody's finalizer is in force until it is gone.
    let is_deleted = kind == Kind::RoleMapping && observed.metadata.deletion_timestamp.is_some();
    let observed = Box::new(observed);
    match parsed {
        Ok(parsed) if is_deleted => {
            ResourceEvent::DeletionRequested { observed, parsed: Some(Box::new(parsed)), problems: Vec::new() }
        }
        Err(problems) if is_deleted => ResourceEvent::DeletionRequested { observed, parsed: None, problems },
        Ok(parsed) => ResourceEvent::Applied { observed, parsed: Box::new(parsed) },
        Err(problems) => ResourceEvent::Rejected { observed, problems },
    }
}

/// The field manager of the newest change that did not only concern subresources and was not made by rolecall.
fn last_writer(entries: Vec<ManagedFieldsEntry>) -> Option<String> {
    let candidates = entries.into_iter().filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
    let newest = candidates
        .filter(|entry| entry.manager.as_deref().is_some_and(|manager| !manager.is_empty() && manager != FIELD_MANAGER))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
    Some(newest.manager?.chars().take(MANAGER_LENGTH).collect())
}

fn read(identity: &ObjectRef, object: &DynamicObject) -> Result<Object, Vec<Problem>> {
    let name = identity.to_string();
    let wrong = |message: String| vec![Problem::of_file(&name, Reason::InvalidManifest.word(), message)];
    let mut value = serde_json::to_value(object).map_err(|error| wrong(error.to_string()))?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    let mut parsed = read_object(&name, &value)?;
    let metadata = object.metadata.clone();
    match &mut parsed {
        Object::IdentityProvider(parsed) => *parsed.meta_mut() = metadata,
        Object::CloudRunTarget(parsed) => *parsed.meta_mut() = metadata,
        Object::RoleMapping(parsed) => *parsed.meta_mut() = metadata,
        Object::Secret(_) => return Err(wrong("is not a custom resource".to_owned())),
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mapping(spec: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "rolecall.dev/v1alpha1",
            "kind": "RoleMapping",
            "metadata": {
                "name": "m", "namespace": "checkout", "uid": "1", "generation": 3, "resourceVersion": "7",
                "finalizers": ["rolecall.dev/revoke"],
                "managedFields": [{"manager": "kubectl", "operation": "Apply"}]
            },
            "spec": spec,
            "status": {"observedGeneration": 2}
        }))
        .unwrap()
    }

    #[test]
    fn object_of_the_api_server_is_read_as_a_manifest_with_its_metadata_and_status() {
        let spec = json!({
            "subjects": [{"identityProvider": "okta", "groups": [{"displayName": "team"}]}],
            "grants": [{"target": {"name": "shop"}, "resources": ["services/a"], "roles": ["roles/run.invoker"]}]
        });
        let ResourceEvent::Applied { observed, parsed } = event_of(Kind::RoleMapping, mapping(&spec)) else { panic!() };
        assert_eq!(observed.object.to_string(), "RoleMapping checkout/m");
        assert_eq!(observed.status, Some(json!({"observedGeneration": 2})));
        assert_eq!((observed.origin.as_str(), observed.written_by.as_deref()), ("cluster", Some("kubectl")));
        let Object::RoleMapping(parsed) = *parsed else { panic!("{parsed:?}") };
        assert_eq!(parsed.metadata.generation, Some(3));
        assert_eq!(parsed.metadata.uid.as_deref(), Some("1"));
        assert!(parsed.metadata.managed_fields.is_none());
    }

    #[tokio::test]
    async fn object_of_which_only_the_status_was_written_is_not_read_again() {
        let spec = json!({
            "subjects": [{"identityProvider": "okta", "groups": [{"displayName": "team"}]}],
            "grants": [{"target": {"name": "shop"}, "resources": ["services/a"], "roles": ["roles/run.invoker"]}]
        });
        let changed = |change: &dyn Fn(&mut DynamicObject)| {
            let mut object = mapping(&spec);
            change(&mut object);
            object
        };
        let status = changed(&|object| {
            object.metadata.resource_version = Some("8".to_owned());
            object.metadata.managed_fields = None;
            object.data["status"] = json!({"observedGeneration": 3});
        });
        let annotated = changed(&|object| {
            object.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
        });
        let renewed = changed(&|object| object.metadata.uid = Some("2".to_owned()));
        let bare = changed(&|object| object.metadata.finalizers = None);
        let deleted = changed(&|object| {
            object.metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-31T12:00:00Z")).unwrap();
        });
        let edited = changed(&|object| object.data["spec"]["mode"] = json!("Observe"));
        let events = [
            Event::Init,
            Event::InitApply(mapping(&spec)),
            Event::InitDone,
            Event::Apply(status.clone()),
            Event::Apply(annotated),
            Event::Apply(renewed),
            Event::Apply(edited.clone()),
            Event::Apply(edited.clone()),
            Event::Delete(edited.clone()),
            Event::Apply(edited.clone()),
            // Each version of a mapping without the finalizer is reported, since the finalizer is added to the newest
            // one.
            Event::Apply(bare.clone()),
            Event::Apply(bare),
            Event::Apply(deleted),
            Event::Init,
            Event::InitApply(edited),
            Event::InitDone,
        ];
        let (sender, mut told) = mpsc::channel(64);
        let events = futures::stream::iter(Vec::from(events).into_iter().map(Ok));
        objects(Kind::RoleMapping, events, sender, CancellationToken::new()).await;
        let mut words = Vec::new();
        while let Some(change) = told.recv().await {
            words.push(match change {
                ResourceEvent::Applied { .. } => "object",
                ResourceEvent::DeletionRequested { .. } => "deleted",
                ResourceEvent::Restated(restated) => {
                    assert!(restated.metadata.managed_fields.is_none() && restated.metadata.resource_version.is_some());
                    assert!(restated.status.unwrap()["observedGeneration"].is_i64());
                    "restated"
                }
                ResourceEvent::Absent { .. } => "gone",
                ResourceEvent::Listed { objects, .. } => {
                    assert_eq!(objects.len(), 1);
                    "listed"
                }
                other => panic!("{other:?}"),
            });
        }
        let expected =
            "object listed restated object object object restated gone object object restated deleted object listed";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn writer_of_an_object_is_who_changed_it_last_but_not_who_writes_its_status() {
        let entry = |manager: &str, time: &str, subresource: &str| json!({"manager": manager, "operation": "Apply", "time": time, "subresource": subresource});
        let writer = |entries: Value| last_writer(serde_json::from_value(entries).unwrap());
        let entries = json!([
            entry("argocd-controller", "2027-01-31T12:00:02Z", ""),
            entry("kubectl-edit", "2027-01-31T12:00:01Z", ""),
            entry("rolecall", "2027-01-31T12:00:03Z", ""),
            entry("somebody", "2027-01-31T12:00:04Z", "status"),
        ]);
        assert_eq!(writer(entries).as_deref(), Some("argocd-controller"));
        assert_eq!(writer(json!([entry("rolecall", "2027-01-31T12:00:03Z", "")])), None);
        let long = "m".repeat(5000);
        assert_eq!(writer(json!([entry(&long, "2027-01-31T12:00:03Z", "")])).map(|name| name.len()), Some(128));
    }

    #[test]
    fn object_admitted_by_an_older_schema_is_reported_with_its_problem_and_place() {
        let spec = json!({"subjects": [], "grants": []});
        let ResourceEvent::Rejected { problems, .. } = event_of(Kind::RoleMapping, mapping(&spec)) else { panic!() };
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(text.iter().any(|line| line.contains("spec.subjects")), "{text:?}");
    }
}
