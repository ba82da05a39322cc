//! Tests of the controller with scripted events, a store and a target in memory, and paused time.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::api::REVOKE_FINALIZER;
use crate::api::condition::kind;
use crate::api::manifest::{Object, ObjectRef, Problem};
use crate::catalog::Ceiling;
use crate::model::{
    ClaimDisposal, DocumentKey, EmailFact, GroupFacts, GroupId, Kind, ManualClock, MappingPhase, ProviderName, Reason,
    UserFacts, UserId,
};
use crate::source::{Absence, Observed};
use crate::store::{Decision, MemberChange, MemoryDatabase, NewGroup, NewUser, Origin};
use crate::sync::{EngineConfig, ProviderTraffic, Scripted};
use crate::telemetry::Metrics;

/// Longest time that anything takes. The time is paused: it advances when every task waits, and costs nothing.
const PATIENCE: Duration = Duration::from_mins(1);
/// Finalizer deadline in these tests.
const DEADLINE: Duration = Duration::from_mins(10);

/// Scripted finalizers, which record the changes: version and finalizers.
#[derive(Clone, Default)]
pub(crate) struct ScriptedFinalizers(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<Result<(), FinalizerError>>,
    calls: Vec<(String, Vec<String>)>,
    definition_is_deleted: bool,
}

impl ScriptedFinalizers {
    pub(super) fn set(&self, _: &MappingKey, metadata: &ObjectMeta, all: &[String]) -> Result<(), FinalizerError> {
        let mut script = self.0.lock().unwrap();
        script.calls.push((metadata.resource_version.clone().unwrap_or_default(), all.to_vec()));
        script.answers.pop_front().unwrap_or(Ok(()))
    }

    pub(super) fn definition_is_deleted(&self) -> bool {
        self.0.lock().unwrap().definition_is_deleted
    }

    fn answer(&self, answer: Result<(), FinalizerError>) {
        self.0.lock().unwrap().answers.push_back(answer);
    }

    /// The changed versions, each with `+` when the finalizer was added and `-` when it was removed.
    fn calls(&self) -> Vec<String> {
        let mark = |all: &[String]| if all.iter().any(|one| one == REVOKE_FINALIZER) { "+" } else { "-" };
        self.0.lock().unwrap().calls.iter().map(|(version, all)| format!("{}{version}", mark(all))).collect()
    }
}

fn key() -> MappingKey {
    MappingKey::new("team", "m").unwrap()
}

fn document() -> DocumentKey {
    "run:projects/p/locations/l/services/a".parse().unwrap()
}

fn reference(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef::new(kind, (kind == Kind::RoleMapping).then_some("team"), name)
}

/// A mapping as its source delivers it. `version`: its resource version; none in a folder.
fn mapping(version: Option<&str>, change: &dyn Fn(&mut Value)) -> (Box<Observed>, Box<Object>) {
    let mut metadata = json!({"name": "m", "namespace": "team"});
    if let Some(version) = version {
        metadata["uid"] = json!("uid-m");
        metadata["generation"] = json!(1);
        metadata["resourceVersion"] = json!(version);
        metadata["creationTimestamp"] = json!("2027-01-31T11:00:00Z");
    }
    let mut value = json!({
        "metadata": metadata,
        "spec": {
            "subjects": [{"identityProvider": "okta", "groups": [{"displayName": "team"}]}],
            "grants": [{"target": {"name": "t"}, "resources": ["services/a"], "roles": ["roles/run.invoker"]}],
        },
    });
    change(&mut value);
    observed(Kind::RoleMapping, value, version.is_some())
}

fn observed(kind: Kind, mut value: Value, in_cluster: bool) -> (Box<Observed>, Box<Object>) {
    value["apiVersion"] = json!("rolecall.dev/v1alpha1");
    value["kind"] = json!(kind);
    let metadata: ObjectMeta = serde_json::from_value(value["metadata"].clone()).unwrap();
    let parsed = match kind {
        Kind::IdentityProvider => Object::IdentityProvider(serde_json::from_value(value).unwrap()),
        Kind::CloudRunTarget => Object::CloudRunTarget(serde_json::from_value(value).unwrap()),
        _ => Object::RoleMapping(serde_json::from_value(value).unwrap()),
    };
    let object = reference(kind, metadata.name.as_deref().unwrap());
    let mut observed = Observed::in_file(object, "a.yaml");
    if in_cluster {
        (observed.metadata, observed.status) = (metadata, Some(Value::Null));
    }
    (Box::new(observed), Box::new(parsed))
}

fn with_finalizer(value: &mut Value) {
    value["metadata"]["finalizers"] = json!([REVOKE_FINALIZER]);
}

fn deleted(value: &mut Value) {
    with_finalizer(value);
    value["metadata"]["deletionTimestamp"] = json!("2027-01-31T12:00:00Z");
}

fn applied((observed, parsed): (Box<Observed>, Box<Object>)) -> ResourceEvent {
    ResourceEvent::Applied { observed, parsed }
}

fn deletion((observed, parsed): (Box<Observed>, Box<Object>)) -> ResourceEvent {
    ResourceEvent::DeletionRequested { observed, parsed: Some(parsed), problems: Vec::new() }
}

struct Fixture {
    controller: Controller,
    finalizers: ScriptedFinalizers,
    forgotten: mpsc::Receiver<FolderCommand>,
    engine: Engine,
    store: Store,
    target: Scripted,
    clock: Arc<ManualClock>,
    stop: CancellationToken,
    work: tokio::task::JoinHandle<()>,
}

impl Fixture {
    async fn cluster() -> Self {
        Self::new(true).await
    }

    async fn folder() -> Self {
        Self::new(false).await
    }

    /// A fixture with one person in the group of the mapping, one service, and a running engine.
    async fn new(cluster: bool) -> Self {
        let clock = Arc::new(ManualClock::new("2027-01-31T12:00:00Z".parse().unwrap()));
        let store = Store::open_inline(&MemoryDatabase::new(1).unwrap(), clock.clone()).unwrap();
        store.begin_epoch("test").await.unwrap();
        let target = Scripted::default();
        target.create(&document());
        let (cache, metrics) = (StatusCache::new(), Metrics::new());
        let config = EngineConfig {
            addition_window: Duration::from_millis(10),
            ..EngineConfig::new(Ceiling::Enforce, Duration::from_millis(300))
        };
        let engine = Engine::new(
            config,
            store.clone(),
            target.clone().into(),
            clock.clone(),
            metrics.engine.clone(),
            cache.clone(),
            Arc::new(|_| ProviderTraffic::default()),
        );
        let finalizers = ScriptedFinalizers::default();
        let (forget, forgotten) = mpsc::channel(4);
        let rules = FinalizerRules { deadline: DEADLINE, other: Arc::new(AtomicBool::new(false)), believed: true };
        let holds = if cluster {
            Holds::Finalizer(Finalizers::Scripted(finalizers.clone()), rules)
        } else {
            Holds::Nothing(forget)
        };
        let controller = Controller::new(Settings {
            engine: engine.clone(),
            store: store.clone(),
            cache,
            clock: clock.clone(),
            enforces: true,
            metrics: metrics.cluster.clone(),
            holds,
            absent: BTreeSet::new(),
            loaded: oneshot::channel().0,
        });
        let stop = CancellationToken::new();
        let work = tokio::spawn(async {});
        let mut fixture = Self { controller, finalizers, forgotten, engine, store, target, clock, stop, work };
        let spec = json!({
            "scim": {"tokens": [{"name": "a", "secretRef": {"name": "s"}}]},
            "principals": {"allowedDomains": ["corp.example"], "users": {"googleAccount": {"attribute": "userName"}}},
        });
        let metadata = |name: &str| json!({"name": name, "uid": name, "creationTimestamp": "2027-01-31T11:00:00Z"});
        let object = json!({"metadata": metadata("okta"), "spec": spec});
        fixture.on(applied(observed(Kind::IdentityProvider, object, cluster))).await;
        let allow = json!([{
            "namespaces": {"names": ["team"]}, "identityProviders": ["okta"], "resources": ["services/*"],
            "roles": ["roles/run.invoker"], "permit": ["Orphan"],
        }]);
        let spec = json!({"project": "p", "locations": ["l"], "allow": allow});
        let object = json!({"metadata": metadata("t"), "spec": spec});
        fixture.on(applied(observed(Kind::CloudRunTarget, object, cluster))).await;
        fixture.people().await;
        let seq = fixture.engine.load_directory().await.unwrap();
        fixture.engine.freeze(None).await.unwrap();
        fixture.on(ResourceEvent::Loaded).await;
        let (engine, stop) = (fixture.engine.clone(), fixture.stop.clone());
        fixture.work = tokio::spawn(async move { engine.run(seq, stop).await });
        fixture
    }

    async fn people(&self) {
        let (okta, origin) = (ProviderName::new("okta").unwrap(), Origin { token: "a".to_owned(), request_id: None });
        let id = UserId(Uuid::new_v4());
        let user_name = "p1@corp.example".to_owned();
        let email = EmailFact { value: user_name.clone(), kind: Some("work".to_owned()), primary: true };
        let resource = json!({"userName": user_name, "active": true});
        let facts = UserFacts { id, active: true, user_name, external_id: None, emails: vec![email] };
        self.store.create_user(&okta, &origin, NewUser { resource, facts }).await.unwrap();
        let facts = GroupFacts { id: GroupId(Uuid::new_v4()), display_name: "team".to_owned(), external_id: None };
        let group = facts.id;
        let new = NewGroup { resource: json!({"displayName": "team"}), facts, members: vec![].into() };
        self.store.create_group(&okta, &origin, new).await.unwrap();
        let change = MemberChange::Add(vec![id.0]);
        self.store.change_members::<()>(&okta, &origin, group, vec![change]).await.unwrap();
    }

    async fn on(&mut self, event: ResourceEvent) {
        assert!(self.controller.handle(&event, &self.stop.clone()).await, "{event:?}");
    }

    fn phase(&self) -> Option<MappingPhase> {
        self.engine.mapping_phase(&key())
    }

    /// Waits for the calls that add finalizers.
    async fn added(&mut self) {
        while let Some(added) = self.controller.adding.join_next().await {
            if let Ok((key, metadata, Err(error))) = added {
                self.controller.not_added(&key, &metadata, &error);
            }
        }
    }

    /// Advances past all retry delays.
    async fn pass(&mut self) {
        self.controller.end_pauses();
        self.controller.tick().await;
    }

    async fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        let begun = tokio::time::Instant::now();
        while !is(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}: {:?} {:?}", self.phase(), self.finalizers.calls());
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.controller.tick().await;
        }
    }

    async fn granted(&mut self, grants: usize) {
        let what = format!("{grants} grants");
        self.until(&what, |fixture| fixture.target.grants(&document()).len() == grants).await;
        let begun = tokio::time::Instant::now();
        while self.engine.has_claims(&key()).await.unwrap() != (grants > 0) {
            assert!(begun.elapsed() < PATIENCE, "{what} in the ledger");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn ready(&self) -> Option<String> {
        let status = self.controller.cache.mapping(&key())?;
        Some(status.conditions.iter().find(|condition| condition.type_ == kind::READY)?.reason.clone())
    }

    async fn end(self) {
        self.stop.cancel();
        self.work.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn finalizer_is_added_before_anything_is_granted_and_again_after_it_was_refused() {
    let mut fixture = Fixture::cluster().await;
    let refused = || Err(FinalizerError::Failed("forbidden".to_owned()));
    fixture.finalizers.answer(refused());
    fixture.on(applied(mapping(Some("1"), &|_| {}))).await;
    fixture.added().await;
    assert_eq!((fixture.phase(), fixture.finalizers.calls()), (None, vec!["+1".to_owned()]));
    assert_eq!(fixture.ready().as_deref(), Some(Reason::FinalizerRefused.word()));
    fixture.controller.tick().await;
    assert_eq!(fixture.finalizers.calls().len(), 1, "not before its time");
    for _ in 0..2 {
        fixture.finalizers.answer(refused());
        fixture.pass().await;
        fixture.added().await;
    }
    assert_eq!(fixture.finalizers.calls(), ["+1", "+1", "+1"]);
    fixture.on(applied(mapping(Some("2"), &with_finalizer))).await;
    assert_eq!(fixture.phase(), Some(MappingPhase::Live));
    fixture.pass().await;
    fixture.added().await;
    assert_eq!(fixture.finalizers.calls().len(), 3, "it is there");
    fixture.granted(1).await;
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn finalizer_is_added_to_the_newest_version_although_only_the_status_changed() {
    let mut fixture = Fixture::cluster().await;
    fixture.finalizers.answer(Err(FinalizerError::Conflict));
    fixture.on(applied(mapping(Some("1"), &|_| {}))).await;
    fixture.added().await;
    fixture.pass().await;
    assert_eq!(fixture.finalizers.calls(), ["+1"], "an older version is not tried again");
    fixture.on(ResourceEvent::Restated(mapping(Some("2"), &|_| {}).0)).await;
    fixture.added().await;
    assert_eq!(fixture.finalizers.calls(), ["+1", "+2"]);
    // An unreadable object does not get it.
    let problems = vec![Problem::of_file("m", "InvalidManifest", "no".to_owned())];
    fixture.on(ResourceEvent::Rejected { observed: mapping(Some("3"), &|_| {}).0, problems }).await;
    fixture.on(ResourceEvent::Restated(mapping(Some("4"), &|_| {}).0)).await;
    fixture.added().await;
    assert_eq!(fixture.finalizers.calls(), ["+1", "+2"]);
    // Nor does one that is being deleted.
    fixture.on(applied(mapping(Some("5"), &|_| {}))).await;
    let kept = |value: &mut Value| {
        deleted(value);
        value["metadata"]["finalizers"] = json!(["example.dev/other"]);
    };
    fixture.on(deletion(mapping(Some("6"), &kept))).await;
    fixture.on(ResourceEvent::Restated(mapping(Some("7"), &kept).0)).await;
    fixture.added().await;
    fixture.pass().await;
    assert_eq!(fixture.finalizers.calls(), ["+1", "+2", "+5"]);
    assert_eq!(fixture.phase(), None);
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn observed_deletion_revokes_and_only_then_removes_the_finalizer() {
    let mut fixture = Fixture::cluster().await;
    fixture.on(applied(mapping(Some("1"), &with_finalizer))).await;
    fixture.granted(1).await;
    fixture.finalizers.answer(Err(FinalizerError::Failed("down".to_owned())));
    fixture.finalizers.answer(Err(FinalizerError::Conflict));
    fixture.on(deletion(mapping(Some("2"), &deleted))).await;
    assert_eq!(fixture.phase(), Some(MappingPhase::Terminating(ClaimDisposal::Revoke)));
    assert!(fixture.finalizers.calls().is_empty(), "its claims have not ended");
    fixture.until("tried", |fixture| !fixture.finalizers.calls().is_empty()).await;
    assert_eq!((fixture.phase(), fixture.target.grants(&document()).len()), (None, 0));
    fixture.controller.tick().await;
    assert_eq!(fixture.finalizers.calls(), ["-2"], "not before its time");
    fixture.pass().await;
    assert_eq!(fixture.finalizers.calls(), ["-2", "-2"]);
    // The newer version is tried at once.
    fixture.on(ResourceEvent::Restated(mapping(Some("3"), &deleted).0)).await;
    fixture.controller.tick().await;
    assert_eq!(fixture.finalizers.calls(), ["-2", "-2", "-3"]);
    fixture.pass().await;
    assert_eq!(fixture.finalizers.calls().len(), 3, "it is gone");
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn mapping_that_is_missing_without_an_observed_deletion_freezes_where_it_has_claims() {
    let missing = Some(MappingPhase::Missing(FreezeReason::MappingMissing));
    let gone = || ResourceEvent::Absent { object: reference(Kind::RoleMapping, "m"), why: Absence::NotObserved };
    let unlisted = || ResourceEvent::Listed { kind: Kind::RoleMapping, objects: BTreeSet::new() };
    // Our finalizer was removed by hand, and somebody else's keeps the object.
    let stripped = || {
        deletion(mapping(Some("2"), &|value| {
            deleted(value);
            value["metadata"]["finalizers"] = json!(["example.dev/other"]);
        }))
    };
    let cases: [(&str, &dyn Fn() -> ResourceEvent, bool); 4] = [
        ("gone", &gone, false),
        ("not in the list", &unlisted, false),
        ("stripped", &stripped, false),
        ("its definition is deleted", &|| deletion(mapping(Some("2"), &deleted)), true),
    ];
    for (what, event, definition_is_deleted) in cases {
        let mut fixture = Fixture::cluster().await;
        fixture.finalizers.0.lock().unwrap().definition_is_deleted = definition_is_deleted;
        fixture.on(applied(mapping(Some("1"), &with_finalizer))).await;
        fixture.granted(1).await;
        fixture.on(event()).await;
        assert_eq!(fixture.phase(), missing, "{what}");
        assert_eq!(fixture.finalizers.calls().len(), usize::from(definition_is_deleted), "{what}");
        // It is released: the missing mapping ends.
        fixture.store.put_decision(Decision::ReleaseMapping(key()), fixture.clock.now()).await.unwrap();
        fixture.controller.tick().await;
        assert!(fixture.store.decisions().await.unwrap().is_empty(), "{what}");
        fixture.granted(0).await;
        fixture.until("forgotten", |fixture| fixture.phase().is_none()).await;
        fixture.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn mapping_without_claims_is_forgotten_when_it_is_gone() {
    let mut fixture = Fixture::cluster().await;
    let elsewhere = |value: &mut Value| {
        with_finalizer(value);
        value["spec"]["grants"][0]["resources"] = json!(["services/none"]);
    };
    fixture.on(applied(mapping(Some("1"), &elsewhere))).await;
    assert_eq!(fixture.phase(), Some(MappingPhase::Live));
    let object = reference(Kind::RoleMapping, "m");
    fixture.on(ResourceEvent::Absent { object, why: Absence::NotObserved }).await;
    assert_eq!(fixture.phase(), None);
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn deleted_mapping_whose_claims_cannot_end_loses_its_finalizer_after_the_deadline_and_is_still_revoked() {
    let mut fixture = Fixture::cluster().await;
    fixture.on(applied(mapping(Some("1"), &with_finalizer))).await;
    fixture.granted(1).await;
    fixture.engine.freeze(Some(FreezeReason::StoreMismatch)).await.unwrap();
    fixture.on(deletion(mapping(Some("2"), &deleted))).await;
    assert_eq!(fixture.phase(), Some(MappingPhase::Live), "while all is frozen nobody knows what it has");
    fixture.clock.advance(DEADLINE);
    fixture.controller.tick().await;
    assert_eq!(fixture.phase(), Some(MappingPhase::RevocationDeferred(ClaimDisposal::Revoke)));
    assert_eq!(fixture.finalizers.calls(), ["-2"]);
    assert_eq!(fixture.store.orphaned().await.unwrap().values().sum::<u64>(), 1);
    let object = reference(Kind::RoleMapping, "m");
    fixture.on(ResourceEvent::Absent { object, why: Absence::NotObserved }).await;
    assert_eq!(fixture.target.grants(&document()).len(), 1);
    fixture.engine.freeze(None).await.unwrap();
    fixture.granted(0).await;
    fixture.until("forgotten", |fixture| fixture.phase().is_none()).await;
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_deletion_policy_counts() {
    let mut fixture = Fixture::cluster().await;
    fixture.on(applied(mapping(Some("1"), &with_finalizer))).await;
    fixture.granted(1).await;
    fixture.engine.freeze(Some(FreezeReason::StoreMismatch)).await.unwrap();
    fixture.on(deletion(mapping(Some("2"), &deleted))).await;
    let orphan = |value: &mut Value| {
        deleted(value);
        value["spec"]["deletionPolicy"] = json!("Orphan");
    };
    fixture.on(deletion(mapping(Some("3"), &orphan))).await;
    fixture.engine.freeze(None).await.unwrap();
    fixture.controller.tick().await;
    fixture.until("removed", |fixture| !fixture.finalizers.calls().is_empty()).await;
    assert_eq!((fixture.finalizers.calls(), fixture.target.grants(&document()).len()), (vec!["-3".to_owned()], 1));
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn file_that_is_removed_revokes_and_one_that_a_doubtful_folder_lacks_freezes_until_it_is_back_or_released() {
    let mut fixture = Fixture::folder().await;
    fixture.on(applied(mapping(None, &|_| {}))).await;
    fixture.granted(1).await;
    let suspicious = [
        ResourceEvent::Suspicious(Some(Suspicion::FolderEmpty)),
        ResourceEvent::Absent { object: reference(Kind::RoleMapping, "m"), why: Absence::Doubted },
        ResourceEvent::Absent { object: reference(Kind::IdentityProvider, "okta"), why: Absence::Doubted },
    ];
    for event in suspicious.clone() {
        fixture.on(event).await;
    }
    assert_eq!(fixture.phase(), Some(MappingPhase::Missing(FreezeReason::ManifestsMissing)));
    assert_eq!(fixture.engine.providers().len(), 1);
    fixture.on(ResourceEvent::Suspicious(None)).await;
    fixture.on(ResourceEvent::Recovered(reference(Kind::RoleMapping, "m"))).await;
    assert_eq!(fixture.phase(), Some(MappingPhase::Live));
    // Released while it exists: nothing happens to it.
    let release = || fixture.store.put_decision(Decision::ReleaseManifests, fixture.clock.now());
    release().await.unwrap();
    fixture.controller.tick().await;
    assert_eq!(fixture.phase(), Some(MappingPhase::Live));
    for event in suspicious {
        fixture.on(event).await;
    }
    // A folder that cannot be read confirms nothing.
    fixture.on(ResourceEvent::Suspicious(Some(Suspicion::FolderMissing))).await;
    fixture.store.put_decision(Decision::ReleaseManifests, fixture.clock.now()).await.unwrap();
    fixture.controller.tick().await;
    assert!(fixture.store.decisions().await.unwrap().is_empty());
    assert_eq!(fixture.phase(), Some(MappingPhase::Missing(FreezeReason::ManifestsMissing)));
    fixture.on(ResourceEvent::Suspicious(Some(Suspicion::FolderEmpty))).await;
    fixture.store.put_decision(Decision::ReleaseManifests, fixture.clock.now()).await.unwrap();
    fixture.controller.tick().await;
    let expected = FolderCommand::Forget([reference(Kind::RoleMapping, "m")].into());
    assert_eq!(fixture.forgotten.try_recv().unwrap(), expected);
    fixture.granted(0).await;

    fixture.on(ResourceEvent::Suspicious(None)).await;
    fixture.on(applied(mapping(None, &|_| {}))).await;
    fixture.granted(1).await;
    let observed = Box::new(Observed::in_file(reference(Kind::RoleMapping, "m"), "a.yaml"));
    fixture.on(ResourceEvent::DeletionRequested { observed, parsed: None, problems: Vec::new() }).await;
    assert_eq!(fixture.phase(), Some(MappingPhase::Terminating(ClaimDisposal::Revoke)));
    fixture.granted(0).await;
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn uninstall_is_done_when_every_claim_and_every_finalizer_is_gone_and_says_nothing_of_a_frozen_store() {
    let mut fixture = Fixture::cluster().await;
    fixture.on(applied(mapping(Some("1"), &with_finalizer))).await;
    fixture.granted(1).await;
    fixture.engine.freeze(Some(FreezeReason::StoreMismatch)).await.unwrap();
    fixture.store.put_decision(Decision::Uninstall(UninstallMode::Revoke), fixture.clock.now()).await.unwrap();
    fixture.controller.tick().await;
    assert_eq!(fixture.phase(), Some(MappingPhase::Live));
    fixture.engine.freeze(None).await.unwrap();
    fixture.controller.tick().await;
    fixture.granted(0).await;
    fixture.until("removed", |fixture| !fixture.finalizers.calls().is_empty()).await;
    let done = async |fixture: &Fixture| {
        let decisions = fixture.store.decisions().await.unwrap();
        decisions.iter().any(|pending| pending.decision == Decision::Uninstalled)
    };
    fixture.controller.tick().await;
    assert!(done(&fixture).await);
    assert_eq!(fixture.finalizers.calls(), ["-1"]);
    // A mapping applied meanwhile does not take effect.
    fixture.on(applied(mapping(Some("9"), &|_| {}))).await;
    assert_eq!(fixture.phase(), None);
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_gets_a_finalizer_during_an_uninstall_and_what_waits_for_one_gets_it_after_its_cancellation() {
    let mut fixture = Fixture::cluster().await;
    fixture.finalizers.answer(Err(FinalizerError::Failed("forbidden".to_owned())));
    fixture.on(applied(mapping(Some("1"), &|_| {}))).await;
    fixture.added().await;
    fixture.store.put_decision(Decision::Uninstall(UninstallMode::Revoke), fixture.clock.now()).await.unwrap();
    fixture.controller.tick().await;
    let decisions = fixture.store.decisions().await.unwrap();
    assert!(decisions.iter().any(|pending| pending.decision == Decision::Uninstalled), "{decisions:?}");
    fixture.on(ResourceEvent::Restated(mapping(Some("2"), &|_| {}).0)).await;
    fixture.pass().await;
    fixture.added().await;
    assert_eq!(fixture.finalizers.calls(), ["+1"]);
    fixture.store.cancel_uninstall().await.unwrap();
    fixture.controller.tick().await;
    fixture.pass().await;
    fixture.added().await;
    assert_eq!(fixture.finalizers.calls(), ["+1", "+2"]);
    fixture.end().await;
}
