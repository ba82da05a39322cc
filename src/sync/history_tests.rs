use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::history::catalog_at;
use crate::api::{CloudRunTargetSpec, IdentityProviderSpec, RoleMappingSpec};
use crate::catalog::{Catalog, Ceiling, Effects, Inventory, InventoryItem};
use crate::model::{
    ClaimDisposal, Clock as _, Desired, DocumentKey, EmailFact, FreezeReason, GroupFacts, GroupId, Kind, ManualClock,
    MappingKey, MappingPhase, PhaseEvent, ProviderName, ResourceKind, Seq, TargetName, UserFacts, UserId,
};
use crate::store::{
    ListingRecord, MemberChange, NewGroup, NewUser, Origin, ResourceRecord, Store, StoreError, StoredSpec, UserUpdate,
};

const SERVICES: [&str; 3] = ["a", "ab", "b"];
const NAMES: [&str; 3] = ["red", "blue", "green"];

/// Time between two steps.
const MINUTE: Duration = Duration::from_mins(1);

/// A random change: its kind, and two numbers that select its objects.
type Step = (u8, u8, u8);

fn okta() -> ProviderName {
    ProviderName::new("okta").unwrap()
}

fn target() -> TargetName {
    TargetName::new("t").unwrap()
}

fn document(service: &str) -> DocumentKey {
    format!("run:projects/p/locations/l/services/{service}").parse().unwrap()
}

fn key(n: u8) -> MappingKey {
    MappingKey::new("team", &format!("m{}", n % 3)).unwrap()
}

/// A store and a catalog side by side: the catalog receives a change once the store has it.
struct Fixture {
    store: Store,
    live: Catalog,
    cursor: Seq,
    users: Vec<UserId>,
    groups: Vec<GroupId>,
    generations: BTreeMap<MappingKey, i64>,
    seen: Vec<(Seq, Vec<Desired>)>,
    clock: Arc<ManualClock>,
}

fn desired(catalog: &Catalog) -> Vec<Desired> {
    let claimants: BTreeSet<MappingKey> = (0..3).map(key).collect();
    SERVICES.map(|service| catalog.desired(&document(service), &claimants)).to_vec()
}

fn facts(id: UserId, n: u8, active: bool) -> (Value, UserFacts) {
    let user_name = format!("p{n}@corp.example");
    let email = EmailFact { value: user_name.clone(), kind: Some("work".to_owned()), primary: true };
    let resource = json!({"userName": user_name, "active": active});
    (resource, UserFacts { id, active, user_name, external_id: None, emails: vec![email] })
}

impl Fixture {
    async fn new(folder: &std::path::Path) -> Self {
        let clock = Arc::new(ManualClock::new("2027-01-31T12:00:00Z".parse().unwrap()));
        let url = format!("sqlite:{}", folder.join("a.db").display());
        let store = Store::open(&url, clock.clone()).await.unwrap();
        store.begin_epoch("test").await.unwrap();
        let mut live = Catalog::new(Ceiling::Enforce);
        let _ = live.freeze_all(None);
        let (users, groups, generations, seen) = (vec![], vec![], BTreeMap::new(), vec![]);
        Self { store, live, cursor: 0, users, groups, generations, seen, clock }
    }

    async fn pin(&mut self, effects: Effects) {
        if !effects.pins.is_empty() {
            self.store.put_pins(effects.pins.clone()).await.unwrap();
            let more = self.live.pins_stored(&effects.pins);
            assert!(more.pins.is_empty());
        }
    }

    /// Processes the changes of the directory, and records what is wanted now.
    async fn settle(&mut self) {
        for event in self.store.events_after(self.cursor, 1000).await.unwrap() {
            self.cursor = event.seq;
            let effects = self.live.apply_directory(&event.provider, &event.change);
            self.pin(effects).await;
        }
        self.seen.push((self.store.highest_seq().await.unwrap(), desired(&self.live)));
    }

    async fn put(&self, kind: Kind, namespace: Option<&str>, name: &str, generation: i64, spec: &Value) -> String {
        let object = json!({
            "apiVersion": "rolecall.dev/v1alpha1", "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2027-01-31T12:00:00Z"},
        });
        let spec = StoredSpec {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            generation,
            phase: MappingPhase::Live,
            source: "a.yaml".to_owned(),
            json: object.to_string(),
        };
        self.store.put_spec_version(spec, None).await.unwrap().unwrap().uid
    }

    async fn step(&mut self, (what, a, b): Step) {
        match what % 10 {
            0 => self.user(a, b).await,
            1 | 2 => self.group(a, b).await,
            3 | 4 => self.mapping(a, b).await,
            5 => self.mapping_goes(a, b).await,
            6 => self.target(a).await,
            7 => self.inventory(a, b).await,
            8 => self.namespace(a).await,
            _ => self.provider(a).await,
        }
        self.settle().await;
        self.clock.advance(MINUTE);
    }

    async fn user(&mut self, a: u8, b: u8) {
        let origin = Origin { token: "a".to_owned(), request_id: None };
        let n = a % 5;
        match (self.users.get(usize::from(n)).copied(), b % 4) {
            (None, _) => {
                let id = UserId(Uuid::new_v4());
                let (resource, facts) = facts(id, u8::try_from(self.users.len()).unwrap(), true);
                self.store.create_user(&okta(), &origin, NewUser { resource, facts }).await.unwrap();
                self.users.push(id);
            }
            (Some(id), 0) => drop(self.store.delete_user(&okta(), &origin, id, None).await.unwrap()),
            (Some(id), how) => {
                let (resource, facts) = facts(id, if how == 3 { n + 10 } else { n }, how != 1);
                let change = |_: &_| Ok(Some(UserUpdate { resource: resource.clone(), facts: facts.clone() }));
                self.store.update_user::<()>(&okta(), &origin, id, change).await.unwrap();
            }
        }
    }

    async fn group(&mut self, a: u8, b: u8) {
        let origin = Origin { token: "a".to_owned(), request_id: None };
        let member = |n: u8| self.users.get(usize::from(n % 5)).map(|id| id.0);
        match (self.groups.get(usize::from(a % 4)).copied(), b % 5) {
            (None, _) => {
                let facts = GroupFacts {
                    id: GroupId(Uuid::new_v4()),
                    display_name: NAMES[usize::from(b) % NAMES.len()].to_owned(),
                    external_id: None,
                };
                let id = facts.id;
                let members = vec![MemberChange::Add((0..5).filter_map(member).collect())].into();
                let resource = json!({"displayName": facts.display_name});
                // The name may be taken.
                if self.store.create_group(&okta(), &origin, NewGroup { resource, facts, members }).await.is_ok() {
                    self.groups.push(id);
                }
            }
            (Some(id), 0) => {
                self.store.delete_group(&okta(), &origin, id, None).await.unwrap();
                self.groups.retain(|group| *group != id);
            }
            (Some(id), how) => {
                // A person, or a group, which may be the same one.
                let nested = self.groups.get(usize::from(b / 8 % 4)).map(|id| id.0);
                let who: Vec<Uuid> = if a >= 128 { nested } else { member(b) }.into_iter().collect();
                let change = if how.is_multiple_of(2) { MemberChange::Add(who) } else { MemberChange::Remove(who) };
                // A member that is not in the group is refused.
                let _ = self.store.change_members::<()>(&okta(), &origin, id, vec![change]).await;
            }
        }
    }

    async fn mapping(&mut self, a: u8, b: u8) {
        let key = key(a);
        let group = NAMES[usize::from(b) % NAMES.len()];
        let resources = if b.is_multiple_of(2) { "services/a*" } else { "services/*" };
        let mode = if b.is_multiple_of(7) { "Observe" } else { "Enforce" };
        let spec = json!({
            "subjects": [{"identityProvider": "okta", "groups": [{"displayName": group}]}],
            "grants": [{"target": {"name": "t"}, "resources": [resources], "roles": ["roles/run.invoker"]}],
            "mode": mode,
        });
        let generation = self.generations.entry(key.clone()).or_default();
        *generation += 1;
        let generation = *generation;
        let uid = self.put(Kind::RoleMapping, Some(key.namespace()), key.name(), generation, &spec).await;
        let spec: RoleMappingSpec = serde_json::from_value(spec).unwrap();
        let effects = self.live.apply_mapping(key.clone(), generation, spec, BTreeSet::new());
        self.live.identify_mapping(&key, &uid);
        self.pin(effects).await;
    }

    async fn mapping_goes(&mut self, a: u8, b: u8) {
        let key = key(a);
        if self.live.phase(&key).is_none() {
            return;
        }
        let id = (Kind::RoleMapping, Some(key.namespace()), key.name());
        match b % 3 {
            0 => {
                self.store
                    .set_spec_phase(id.0, id.1, id.2, MappingPhase::Terminating(ClaimDisposal::Revoke))
                    .await
                    .unwrap();
                let _ = self.live.advance(&key, PhaseEvent::DeletionObserved(self.live.disposal(&key)));
            }
            1 if self.live.phase(&key) == Some(MappingPhase::Live) => {
                self.store
                    .set_spec_phase(id.0, id.1, id.2, MappingPhase::Missing(FreezeReason::MappingMissing))
                    .await
                    .unwrap();
                let _ = self.live.advance(&key, PhaseEvent::FoundMissing(FreezeReason::MappingMissing));
            }
            _ => {
                self.store.remove_pins(&key).await.unwrap();
                self.store.remove_spec(id.0, id.1, id.2).await.unwrap();
                let _ = self.live.forget_mapping(&key);
            }
        }
    }

    async fn target(&mut self, a: u8) {
        if a.is_multiple_of(5) {
            self.store.remove_spec(Kind::CloudRunTarget, None, "t").await.unwrap();
            let _ = self.live.remove_target(&target());
            return;
        }
        let namespaces =
            if a.is_multiple_of(2) { json!({"names": ["team"]}) } else { json!({"matchLabels": {"on": "yes"}}) };
        let resources = if a.is_multiple_of(3) { "services/a" } else { "services/*" };
        let allow = json!([{
            "namespaces": namespaces, "identityProviders": ["okta"], "resources": [resources],
            "roles": ["roles/run.invoker"],
        }]);
        let locations = if a.is_multiple_of(7) { json!(["l", "k"]) } else { json!(["l"]) };
        let spec = json!({"project": "p", "locations": locations, "allow": allow});
        self.put(Kind::CloudRunTarget, None, "t", 1, &spec).await;
        let spec: CloudRunTargetSpec = serde_json::from_value(spec).unwrap();
        let _ = self.live.apply_target(target(), spec, "2027-01-31T12:00:00Z".parse().unwrap());
    }

    async fn inventory(&mut self, a: u8, b: u8) {
        let unlisted: BTreeSet<_> =
            if b.is_multiple_of(4) { [("l".to_owned(), ResourceKind::Service)].into() } else { BTreeSet::new() };
        let services = SERVICES.iter().enumerate().filter(|(at, _)| a & (1 << at) != 0 && unlisted.is_empty());
        let items: Vec<InventoryItem> = services
            .map(|(_, service)| InventoryItem {
                document: document(service),
                uid: format!("{service}-{}", b % 2),
                labels: BTreeMap::new(),
                invoker_iam_disabled: false,
            })
            .collect();
        let failed = b.is_multiple_of(5);
        let resources = items.iter().map(|item| ResourceRecord {
            document: item.document.clone(),
            uid: item.uid.clone(),
            labels: item.labels.clone(),
            invoker_iam_disabled: item.invoker_iam_disabled,
        });
        let resources = (!failed).then(|| resources.collect());
        let known = self.store.specs().await.unwrap().iter().any(|spec| spec.kind == Kind::CloudRunTarget);
        if !known {
            return;
        }
        let listing = ListingRecord { resources, unlisted: unlisted.clone() };
        self.store.record_listing(&target(), &listing).await.unwrap();
        if failed {
            let _ = self.live.inventory_failed(&target());
        } else {
            let _ = self.live.apply_inventory(&target(), Inventory { resources: items, unlisted });
        }
    }

    async fn namespace(&mut self, a: u8) {
        let labels =
            if a.is_multiple_of(2) { BTreeMap::new() } else { BTreeMap::from([("on".to_owned(), "yes".to_owned())]) };
        self.store.record_namespace("team", &labels).await.unwrap();
        let _ = self.live.apply_namespace("team", labels);
    }

    async fn provider(&mut self, a: u8) {
        if a.is_multiple_of(6) {
            self.store.remove_spec(Kind::IdentityProvider, None, "okta").await.unwrap();
            let _ = self.live.remove_provider(&okta());
            return;
        }
        let former = !self.store.claim_directory(&okta(), ["one", "two"][usize::from(a / 8 % 2)]).await.unwrap();
        let attribute = if a.is_multiple_of(2) { "userName" } else { "emails[type eq \"work\"].value" };
        let spec = json!({
            "scim": {"tokens": [{"name": "a", "secretRef": {"name": "s"}}]},
            "principals": {"allowedDomains": ["corp.example"], "users": {"googleAccount": {"attribute": attribute}}},
        });
        self.put(Kind::IdentityProvider, None, "okta", 1, &spec).await;
        let spec: IdentityProviderSpec = serde_json::from_value(spec).unwrap();
        let _ = self.live.set_former(&okta(), former);
        let effects = self.live.apply_provider(okta(), spec);
        self.pin(effects).await;
    }
}

/// A store and catalog after these steps.
async fn after(folder: &std::path::Path, steps: &[Step]) -> Fixture {
    let mut fixture = Fixture::new(folder).await;
    // Initial objects, so that most steps have an effect.
    for step in [(9, 2, 0), (6, 2, 0), (7, 7, 1), (0, 0, 1), (0, 1, 1), (1, 0, 0), (3, 0, 3)] {
        fixture.step(step).await;
    }
    for step in steps {
        fixture.step(*step).await;
    }
    fixture
}

impl Fixture {
    /// Rebuilds the catalog for each position from one on and compares it with its state at that time.
    async fn check(&self, since: Seq) -> Result<(), TestCaseError> {
        for (at, (seq, expected)) in self.seen.iter().enumerate() {
            // Of several steps without a row of their own the last one counts.
            if self.seen.get(at + 1).is_some_and(|(next, _)| next == seq) {
                continue;
            }
            match catalog_at(&self.store, *seq, Ceiling::Enforce, jiff::Timestamp::MIN).await {
                Ok(rebuilt) => {
                    prop_assert!(*seq >= since);
                    prop_assert_eq!(&desired(&rebuilt), expected, "at {} after step {}", seq, at);
                }
                Err(StoreError::HistoryNotKept { oldest, .. }) => {
                    prop_assert!(*seq < since && oldest == since, "{seq} {since}");
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
        Ok(())
    }
}

/// Runs the steps; returns the number of distinct states.
async fn run(steps: &[Step]) -> Result<usize, TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let fixture = after(folder.path(), steps).await;
    let states: Vec<&Vec<Desired>> = fixture.seen.iter().map(|(_, desired)| desired).collect();
    let mut different = 1;
    for pair in states.windows(2) {
        different += usize::from(pair[0] != pair[1]);
    }
    fixture.check(0).await?;
    Ok(different)
}

/// Runs the steps, and twice prunes what is older than one of them.
async fn run_pruned(steps: &[Step], ages: [u8; 2]) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let fixture = after(folder.path(), steps).await;
    let total = fixture.seen.len();
    let highest = fixture.store.highest_seq().await.unwrap();
    let mut since = 0;
    for age in ages {
        let before = fixture.clock.now() - MINUTE * u32::try_from(usize::from(age) % (total + 1)).unwrap();
        let dry = fixture.store.prune(before, true).await.unwrap();
        let pruned = fixture.store.prune(before, false).await.unwrap();
        prop_assert_eq!(pruned, dry);
        prop_assert!(pruned.history_since >= since);
        since = pruned.history_since;
        fixture.check(since).await?;
        prop_assert_eq!(fixture.store.highest_seq().await.unwrap(), highest);
        fixture.store.verify_audit().await.unwrap();
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::model::cases::cases(32))]

    #[test]
    fn catalog_rebuilt_for_a_past_position_wants_what_was_wanted_then(
        steps in prop::collection::vec(any::<Step>(), 5..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&steps))?;
    }

    #[test]
    fn catalog_of_each_position_that_a_prune_left_is_what_it_was_and_older_ones_are_refused(
        steps in prop::collection::vec(any::<Step>(), 5..30),
        ages in any::<[u8; 2]>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run_pruned(&steps, ages))?;
    }
}

#[tokio::test]
async fn states_that_are_rebuilt_differ_from_each_other() {
    let steps: Vec<Step> = (0..30_u8).map(|n| (n, n.wrapping_mul(7), n.wrapping_mul(13))).collect();
    assert!(run(&steps).await.unwrap() > 10);
}
