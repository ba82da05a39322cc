//! The engine with an in-memory target that is scripted to be slow, wrong, or silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::model::{
    DocumentKey, EmailFact, GrantKey, GrantState, GroupFacts, GroupId, LedgerRow, MappingKey, ProviderName, Stored,
    UserFacts, UserId,
};
use crate::store::{MemberChange, MemoryDatabase, NewGroup, NewUser, Origin, UserUpdate};
use crate::target::scripted::{Fault, Scripted, error};
use crate::target::{ErrorKind, RefusalCause, Refused};
use crate::telemetry::Metrics;

/// Longest time that anything takes. The time is paused: it advances when every task waits, and costs nothing.
const PATIENCE: Duration = Duration::from_mins(1);

/// The wall clock: the paused time from a fixed origin.
#[derive(Debug)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> jiff::Timestamp {
        let origin: jiff::Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
        origin.saturating_add(self.0.elapsed()).unwrap()
    }
}

fn okta() -> ProviderName {
    ProviderName::new("okta").unwrap()
}

fn origin() -> Origin {
    Origin { token: "a".to_owned(), request_id: None }
}

fn document() -> DocumentKey {
    "run:projects/p/locations/l/services/a".parse().unwrap()
}

fn invoker(member: &str) -> GrantKey {
    let role = crate::model::Role::new("roles/run.invoker").unwrap();
    GrantKey { role, condition: crate::model::ConditionHash::default(), member: crate::model::MemberKey::of(member) }
}

fn person(n: u8) -> GrantKey {
    invoker(&format!("user:p{n}@corp.example"))
}

fn object<T: serde::de::DeserializeOwned>(kind: &str, metadata: Value, spec: &Value) -> T {
    let mut metadata = metadata;
    if metadata["creationTimestamp"].is_null() {
        metadata["creationTimestamp"] = json!("2027-01-31T12:00:00Z");
    }
    metadata["uid"] = json!("uid");
    let object = json!({"apiVersion": "rolecall.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

/// A running engine with one service that the group `team` may invoke.
struct Fixture {
    store: Store,
    target: Scripted,
    engine: Engine,
    team: GroupId,
    stop: CancellationToken,
    work: tokio::task::JoinHandle<()>,
}

impl Fixture {
    async fn new() -> Self {
        Self::with_drift_interval(Duration::from_millis(300)).await
    }

    async fn with_drift_interval(drift_interval: Duration) -> Self {
        Self::with(EngineConfig::new(Ceiling::Enforce, drift_interval)).await
    }

    async fn with(config: EngineConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(PausedClock(Instant::now()));
        let store = Store::open_inline(&MemoryDatabase::new(1).unwrap(), clock.clone()).unwrap();
        store.begin_epoch("test").await.unwrap();
        let target = Scripted::default();
        target.create(&document());
        let config = EngineConfig { addition_window: Duration::from_millis(10), ..config };
        let engine = Engine::new(
            config,
            store.clone(),
            Target::Scripted(target.clone()),
            clock,
            Metrics::new().engine,
            StatusCache::new(),
            Arc::new(|_| ProviderTraffic::default()),
        );
        let from = Provenance::file("a.yaml");
        let provider = json!({
            "scim": {"tokens": [{"name": "a", "secretRef": {"name": "s"}}]},
            "principals": {"allowedDomains": ["corp.example"], "users": {"googleAccount": {"attribute": "userName"}}},
        });
        engine.apply_provider(object("IdentityProvider", json!({"name": "okta"}), &provider), from).await.unwrap();
        let allow = json!([{
            "namespaces": {"names": ["team"]}, "identityProviders": ["okta"], "resources": ["services/*"],
            "roles": ["roles/run.invoker"],
        }]);
        let spec = json!({"project": "p", "locations": ["l"], "allow": allow});
        engine.apply_target(object("CloudRunTarget", json!({"name": "t"}), &spec), from).await.unwrap();
        let spec = json!({
            "subjects": [{"identityProvider": "okta", "groups": [{"displayName": "team"}]}],
            "grants": [{"target": {"name": "t"}, "resources": ["services/a"], "roles": ["roles/run.invoker"]}],
        });
        let metadata = json!({"name": "m", "namespace": "team"});
        engine.apply_mapping(object("RoleMapping", metadata, &spec), from).await.unwrap();
        let facts = GroupFacts { id: GroupId(Uuid::new_v4()), display_name: "team".to_owned(), external_id: None };
        let team = facts.id;
        let resource = json!({"displayName": "team"});
        store.create_group(&okta(), &origin(), NewGroup { resource, facts, members: vec![].into() }).await.unwrap();
        let seq = engine.load_directory().await.unwrap();
        engine.freeze(None).await.unwrap();
        let stop = CancellationToken::new();
        let work = tokio::spawn({
            let (engine, stop) = (engine.clone(), stop.clone());
            async move { engine.run(seq, stop).await }
        });
        Self { store, target, engine, team, stop, work }
    }

    async fn create(&self, n: u8) -> UserId {
        let id = UserId(Uuid::new_v4());
        let (resource, facts) = facts(id, n, true);
        self.store.create_user(&okta(), &origin(), NewUser { resource, facts }).await.unwrap();
        id
    }

    /// Creates a group with these members.
    async fn group(&self, name: &str, members: &[Uuid]) -> GroupId {
        let facts = GroupFacts { id: GroupId(Uuid::new_v4()), display_name: name.to_owned(), external_id: None };
        let (id, resource) = (facts.id, json!({"displayName": name}));
        let members = vec![MemberChange::Add(members.to_vec())].into();
        self.store.create_group(&okta(), &origin(), NewGroup { resource, facts, members }).await.unwrap();
        id
    }

    async fn change(&self, group: GroupId, change: MemberChange) {
        self.store.change_members::<()>(&okta(), &origin(), group, vec![change]).await.unwrap();
    }

    /// Creates these people, and adds them to the team in one request.
    async fn join(&self, people: &[u8]) -> Vec<UserId> {
        let mut ids = Vec::new();
        for n in people {
            ids.push(self.create(*n).await);
        }
        let change = MemberChange::Add(ids.iter().map(|id| id.0).collect());
        self.store.change_members::<()>(&okta(), &origin(), self.team, vec![change]).await.unwrap();
        ids
    }

    async fn leave(&self, id: UserId, n: u8) {
        let (resource, facts) = facts(id, n, false);
        let change = |_: &_| Ok(Some(UserUpdate { resource: resource.clone(), facts: facts.clone() }));
        self.store.update_user::<()>(&okta(), &origin(), id, change).await.unwrap();
    }

    /// Waits until the target has exactly these grants and the ledger has no call in progress.
    async fn settles(&self, expected: &[GrantKey]) -> Vec<LedgerRow> {
        let expected: BTreeSet<GrantKey> = expected.iter().cloned().collect();
        let begun = Instant::now();
        loop {
            let rows = self.store.document_ledger(&document()).await.unwrap().rows;
            let grants = self.target.grants(&document());
            let is_settled = rows.iter().all(|row| row.intent.is_none() && row.revoking_since.is_none());
            if grants == expected && is_settled {
                return rows;
            }
            assert!(begun.elapsed() < PATIENCE, "{grants:?} instead of {expected:?}; {rows:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.work.await.unwrap();
    }
}

fn facts(id: UserId, n: u8, active: bool) -> (Value, UserFacts) {
    let user_name = format!("p{n}@corp.example");
    let email = EmailFact { value: user_name.clone(), kind: Some("work".to_owned()), primary: true };
    let resource = json!({"userName": user_name, "active": active});
    (resource, UserFacts { id, active, user_name, external_id: None, emails: vec![email] })
}

fn stranger(target: &Scripted) {
    let stored = Stored { member: "user:s@elsewhere.example".to_owned(), times: 1 };
    target.edit(&document(), |grants| drop(grants.insert(invoker(&stored.member), stored.clone())));
}

fn theirs() -> GrantKey {
    invoker("user:s@elsewhere.example")
}

#[tokio::test(start_paused = true)]
async fn whoever_joins_is_granted_and_whoever_leaves_is_not_and_each_is_one_write() {
    let fixture = Fixture::new().await;
    let ids = fixture.join(&[1, 2]).await;
    let rows = fixture.settles(&[person(1), person(2)]).await;
    assert!(rows.iter().all(|row| row.state == GrantState::Owned));
    fixture.leave(ids[0], 1).await;
    fixture.settles(&[person(2)]).await;
    let journal = fixture.target.journal();
    let steps: Vec<_> = journal.iter().map(|write| (write.add.len(), write.remove.len())).collect();
    assert_eq!(steps, [(2, 0), (0, 1)], "{journal:?}");
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn progress_is_settled_only_when_every_change_is_written_and_every_call_has_ended() {
    let fixture = Fixture::new().await;
    let settled = async || {
        let progress = fixture.engine.progress();
        progress.settled && fixture.store.events_after(progress.sequence, 1).await.unwrap().is_empty()
    };
    let until_settled = async || {
        let begun = Instant::now();
        while !settled().await {
            assert!(begun.elapsed() < PATIENCE, "{:?}", fixture.engine.progress());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        begun.elapsed()
    };
    fixture.target.on_write(&document(), Fault::Slow(Duration::from_secs(3)));
    let ids = fixture.join(&[1]).await;
    assert!(until_settled().await >= Duration::from_secs(3), "the call takes so long");
    assert_eq!(fixture.target.grants(&document()), BTreeSet::from([person(1)]));
    // Fewer people than the guard holds.
    for _ in 0..8 {
        let more = fixture.join(&[2]).await;
        until_settled().await;
        assert_eq!(fixture.target.grants(&document()), BTreeSet::from([person(1), person(2)]));
        fixture.leave(more[0], 2).await;
        until_settled().await;
        assert_eq!(fixture.target.grants(&document()), BTreeSet::from([person(1)]));
        fixture.store.delete_user(&okta(), &origin(), more[0], None).await.unwrap();
    }
    fixture.leave(ids[0], 1).await;
    until_settled().await;
    assert!(fixture.target.grants(&document()).is_empty());
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn somebody_who_edits_between_read_and_write_loses_nothing() {
    let fixture = Fixture::new().await;
    let ids = fixture.join(&[1]).await;
    fixture.settles(&[person(1)]).await;
    fixture.target.on_write(&document(), Fault::Slow(Duration::from_millis(200)));
    fixture.leave(ids[0], 1).await;
    let begun = Instant::now();
    while !fixture.store.document_ledger(&document()).await.unwrap().rows.iter().any(|row| row.intent.is_some()) {
        assert!(begun.elapsed() < PATIENCE, "no write was begun");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stranger(&fixture.target);
    let rows = fixture.settles(&[theirs()]).await;
    assert!(rows.is_empty(), "{rows:?}");
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn write_whose_answer_is_lost_is_attributed_to_us_and_removed_with_the_person() {
    let fixture = Fixture::new().await;
    fixture.target.on_write(&document(), Fault::AnswerLost);
    let ids = fixture.join(&[1]).await;
    let rows = fixture.settles(&[person(1)]).await;
    assert_eq!(rows[0].state, GrantState::Owned);
    fixture.target.on_write(&document(), Fault::AnswerLost);
    fixture.leave(ids[0], 1).await;
    assert!(fixture.settles(&[]).await.is_empty());
    let added: usize = fixture.target.journal().iter().map(|write| write.add.len()).sum();
    assert_eq!(added, 1, "granted once");
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn reads_that_show_the_past_change_nothing_and_the_leaver_goes() {
    let fixture = Fixture::new().await;
    fixture.target.on_read(&document(), Fault::Stale);
    let ids = fixture.join(&[1, 2]).await;
    fixture.settles(&[person(1), person(2)]).await;
    for _ in 0..3 {
        fixture.target.on_read(&document(), Fault::Stale);
    }
    fixture.leave(ids[0], 1).await;
    let rows = fixture.settles(&[person(2)]).await;
    assert!(rows.iter().all(|row| row.state == GrantState::Owned), "{rows:?}");
    let removed: usize = fixture.target.journal().iter().map(|write| write.remove.len()).sum();
    assert_eq!(removed, 1);
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn member_that_the_target_refuses_is_left_out_and_keeps_nobody_from_leaving() {
    let fixture = Fixture::new().await;
    let ids = fixture.join(&[1]).await;
    fixture.settles(&[person(1)]).await;
    let named = Refused {
        cause: RefusalCause::PrincipalUnknown,
        others: vec![],
        member: Some("user:p2@corp.example".to_owned()),
        role: None,
        message: "no such account".to_owned(),
    };
    fixture
        .target
        .on_write(&document(), Fault::Error(error(ErrorKind::Refused(Box::new(named)), Reason::MemberRefused)));
    fixture.join(&[2, 3]).await;
    fixture.settles(&[person(1), person(3)]).await;
    fixture.leave(ids[0], 1).await;
    let rows = fixture.settles(&[person(3)]).await;
    assert!(rows.iter().all(|row| row.grant != person(2) || row.state == GrantState::Wanted), "{rows:?}");
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn call_of_unknown_outcome_is_fenced_off_also_when_what_it_added_is_refused_from_then_on() {
    let fixture = Fixture::new().await;
    let named = Refused {
        cause: RefusalCause::PrincipalUnknown,
        others: vec![],
        member: Some("user:p1@corp.example".to_owned()),
        role: None,
        message: "no such account".to_owned(),
    };
    fixture.target.on_write(&document(), Fault::NeverArrived);
    fixture
        .target
        .on_write(&document(), Fault::Error(error(ErrorKind::Refused(Box::new(named)), Reason::MemberRefused)));
    fixture.join(&[1]).await;
    tokio::time::sleep(PATIENCE).await;
    let rows = fixture.store.ledger(&document()).await.unwrap();
    assert!(rows.iter().all(|row| row.intent.is_none()), "{rows:?}");
    let journal = fixture.target.journal();
    assert!(journal.iter().all(|write| write.add.is_empty() && write.remove.is_empty()), "{journal:?}");
    assert_eq!(journal.len(), 1, "one write that changes nothing is enough");
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn document_at_rest_is_read_and_not_written() {
    let fixture = Fixture::new().await;
    fixture.join(&[1]).await;
    fixture.settles(&[person(1)]).await;
    let (writes, reads) = (fixture.target.journal().len(), fixture.target.reads());
    stranger(&fixture.target);
    let begun = Instant::now();
    while fixture.target.reads() < reads + 3 {
        assert!(begun.elapsed() < PATIENCE, "no drift pass");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fixture.target.journal().len(), writes, "what is foreign is left alone");
    fixture.target.delete(&document());
    fixture.target.create(&document());
    // The list is read every five minutes; the read of the new resource comes first.
    fixture.settles(&[person(1)]).await;
    assert!(fixture.engine.frozen().is_none());
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn mapping_is_not_ready_as_soon_as_a_new_document_of_it_cannot_be_read() {
    // No other reconcile updates the mapping.
    let fixture = Fixture::with_drift_interval(Duration::from_mins(5)).await;
    let inner = &fixture.engine.0;
    let key = crate::model::MappingKey::new("team", "m").unwrap();
    let ready = || {
        let status = inner.cache.mapping(&key)?;
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready")?;
        Some((ready.status.clone(), ready.reason.clone()))
    };
    let until = async |what: &str, is: &dyn Fn() -> bool, patience: Duration| {
        let begun = Instant::now();
        while !is() {
            assert!(begun.elapsed() < patience, "{what}: {:?}", ready());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let spec = json!({
        "subjects": [{"identityProvider": "okta", "groups": [{"displayName": "team"}]}],
        "grants": [{"target": {"name": "t"}, "resources": ["services/*"], "roles": ["roles/run.invoker"]}],
    });
    let metadata = json!({"name": "m", "namespace": "team", "generation": 2});
    fixture.engine.apply_mapping(object("RoleMapping", metadata, &spec), Provenance::file("a.yaml")).await.unwrap();
    fixture.join(&[1]).await;
    fixture.settles(&[person(1)]).await;
    until("ready", &|| ready().is_some_and(|(status, _)| status == "True"), PATIENCE).await;
    let second: DocumentKey = "run:projects/p/locations/l/services/b".parse().unwrap();
    for _ in 0..4 {
        fixture.target.on_read(&second, Fault::Error(error(ErrorKind::Unavailable, Reason::GoogleUnavailable)));
    }
    for _ in 0..200 {
        let denied = error(ErrorKind::Denied { permission: None }, Reason::PermissionDenied);
        fixture.target.on_read(&second, Fault::Error(denied));
    }
    fixture.target.create(&second);
    inner.list_again(&document());
    let reason = || inner.state().documents.get(&second).and_then(|memory| memory.error.as_ref().map(|error| error.0));
    until("denied", &|| reason() == Some(Reason::PermissionDenied), PATIENCE).await;
    // Long before the periodic fold of all statuses.
    let told = || ready().is_some_and(|(_, reason)| reason == "PermissionDenied");
    until("told", &told, Duration::from_secs(20)).await;
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn engine_that_is_dropped_makes_no_call_any_more() {
    let mut fixture = Fixture::new().await;
    fixture.target.on_write(&document(), Fault::Slow(Duration::from_millis(200)));
    let ids = fixture.join(&[1]).await;
    let begun = Instant::now();
    while !fixture.store.document_ledger(&document()).await.unwrap().rows.iter().any(|row| row.intent.is_some()) {
        assert!(begun.elapsed() < PATIENCE, "no write was begun");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The tasks of its reconciles and lists end with it, even while they wait for an answer.
    fixture.work.abort();
    assert!((&mut fixture.work).await.unwrap_err().is_cancelled());
    let reads = fixture.target.reads();
    fixture.leave(ids[0], 1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    // The write that was sent before arrives all the same, and nothing follows it.
    assert_eq!((fixture.target.journal().len(), fixture.target.reads()), (1, reads));
}

#[tokio::test(start_paused = true)]
async fn status_of_a_younger_target_counts_nothing_of_what_an_older_one_covers() {
    let fixture = Fixture::new().await;
    let allow = json!([{
        "namespaces": {"names": ["team"]}, "identityProviders": ["okta"], "resources": ["services/*"],
        "roles": ["roles/run.invoker"],
    }]);
    let spec = json!({"project": "p", "locations": ["l"], "allow": allow});
    let metadata = json!({"name": "b", "creationTimestamp": "2027-01-31T12:00:01Z"});
    // By name alone it would be the first.
    fixture.engine.apply_target(object("CloudRunTarget", metadata, &spec), Provenance::file("b.yaml")).await.unwrap();
    let granted_by_hand = Stored { member: "user:p9@corp.example".to_owned(), times: 1 };
    fixture.target.edit(&document(), |grants| drop(grants.insert(person(9), granted_by_hand.clone())));
    fixture.join(&[1]).await;
    let status = |name: &str| fixture.engine.0.cache.target(&TargetName::new(name).unwrap());
    let services = |name: &str| status(name).and_then(|status| status.resources).map(|counts| counts.services);
    let begun = Instant::now();
    while status("t").is_none_or(|status| status.drift.is_empty()) || services("b").is_none() {
        assert!(begun.elapsed() < PATIENCE, "{:?} {:?}", status("t"), status("b"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (older, younger) = (status("t").unwrap(), status("b").unwrap());
    assert_eq!(older.policies.map(|policies| policies.drifted), Some(1), "{older:?}");
    assert_eq!(services("t"), Some(1));
    assert_eq!(younger.policies, Some(crate::api::PolicyCounts::default()), "{younger:?}");
    assert!(younger.drift.is_empty(), "{younger:?}");
    assert_eq!(services("b"), Some(0), "{younger:?}");
    // Once the older one is gone, the younger one owns what it covered.
    fixture.engine.remove_target(&TargetName::new("t").unwrap()).await.unwrap();
    let begun = Instant::now();
    while services("b") != Some(1) || status("b").is_none_or(|status| status.drift.is_empty()) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", status("b"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn mapping_of_an_empty_group_is_ready_and_says_that_nobody_is_in_it() {
    let fixture = Fixture::new().await;
    let key = crate::model::MappingKey::new("team", "m").unwrap();
    let ready = || {
        let status = fixture.engine.0.cache.mapping(&key)?;
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready")?.clone();
        Some((ready.status, ready.reason, ready.message))
    };
    let until = async |wanted: (&str, &str), says: &str| {
        let begun = Instant::now();
        let is = |(status, reason, message): &(String, String, String)| {
            (status.as_str(), reason.as_str()) == wanted && message.contains(says)
        };
        while !ready().is_some_and(|ready| is(&ready)) {
            assert!(begun.elapsed() < PATIENCE, "{wanted:?} {says}: {:?}", ready());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(("True", "Converged"), "the groups have no active members").await;
    assert_eq!(fixture.target.reads(), 0, "nothing is to be known of a policy on which nothing is to be done");
    let ids = fixture.join(&[1]).await;
    fixture.settles(&[person(1)]).await;
    until(("True", "Converged"), "1 of 1 grant").await;
    fixture.leave(ids[0], 1).await;
    fixture.settles(&[]).await;
    until(("True", "Converged"), "the groups have no active members").await;
    // The policy is not counted as one that is in step: nobody has looked.
    let begun = Instant::now();
    let counts = || fixture.engine.0.cache.target(&TargetName::new("t").unwrap()).and_then(|status| status.policies);
    while counts() != Some(crate::api::PolicyCounts::default()) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", counts());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.end().await;
}

/// Waits until `Ready` of the mapping has this status and reason.
async fn becomes(fixture: &Fixture, status: &str, reason: &str) {
    let key = MappingKey::new("team", "m").unwrap();
    let begun = Instant::now();
    loop {
        let shown = fixture.engine.0.cache.mapping(&key).unwrap_or_default();
        let ready = shown.conditions.iter().find(|condition| condition.type_ == "Ready");
        if ready.is_some_and(|ready| ready.status == status && ready.reason == reason) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{:?}", shown.conditions);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nesting_beyond_a_bound_adds_and_removes_nobody_but_those_who_left_and_they_go_at_once() {
    let nesting = NestingBounds { depth: 1, ..NestingBounds::default() };
    // Nothing is found by reading all policies again.
    let config = EngineConfig { nesting, ..EngineConfig::new(Ceiling::Enforce, Duration::from_hours(24)) };
    let fixture = Fixture::with(config).await;
    fixture.join(&[1]).await;
    let mut ids = Vec::new();
    for n in 2..=6 {
        ids.push(fixture.create(n).await.0);
    }
    let [two, three, four, five, six] = ids[..] else { panic!() };
    let inner = fixture.group("inner", &[two]).await;
    let core = fixture.group("core", &[three, four]).await;
    fixture.change(fixture.team, MemberChange::Add(vec![inner.0, core.0])).await;
    fixture.settles(&[person(1), person(2), person(3), person(4)]).await;
    becomes(&fixture, "True", "Converged").await;

    // The core is two levels away from here on, and not found any more.
    fixture.change(inner, MemberChange::Add(vec![core.0])).await;
    fixture.change(fixture.team, MemberChange::Remove(vec![core.0])).await;
    becomes(&fixture, "False", "NestingLimitExceeded").await;
    fixture.change(inner, MemberChange::Add(vec![five])).await;
    fixture.change(fixture.team, MemberChange::Add(vec![six])).await;
    fixture.settles(&[person(1), person(2), person(3), person(4), person(6)]).await;

    fixture.change(core, MemberChange::Remove(vec![three])).await;
    fixture.settles(&[person(1), person(2), person(4), person(6)]).await;
    fixture.leave(UserId(four), 4).await;
    fixture.settles(&[person(1), person(2), person(6)]).await;
    fixture.change(inner, MemberChange::Remove(vec![two])).await;
    fixture.settles(&[person(1), person(6)]).await;

    // Whole again: the others follow, and nobody who left.
    fixture.change(inner, MemberChange::Remove(vec![core.0])).await;
    fixture.settles(&[person(1), person(5), person(6)]).await;
    becomes(&fixture, "True", "Converged").await;
    fixture.store.delete_group(&okta(), &origin(), inner, None).await.unwrap();
    fixture.settles(&[person(1), person(6)]).await;
    fixture.end().await;
}
