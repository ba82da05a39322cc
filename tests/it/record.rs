//! Records: the event log against the snapshot, the audit log against the calls that Google received.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rolecall::catalog::{Catalog, Ceiling, Inventory, InventoryItem};
use rolecall::model::{
    AuditOutcome, DocumentKey, IntentAction, MappingKey, MemberKey, Pin, ProviderName, ResourceKind, SystemClock,
    TargetName,
};
use rolecall::store::{AuditRow, Store};
use serde_json::{Value, json};

use crate::scim_server::{ENTRA_TOKEN, OKTA_TOKEN, Server};
use crate::support::*;

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a spec")
}

fn provider_name(name: &str) -> ProviderName {
    ProviderName::new(name).expect("a name")
}

/// An index with two providers, a target of two services and mappings by name, by external id and of both providers.
fn catalog_of_fixed_events(pins: &BTreeSet<Pin>) -> Catalog {
    let mut index = Catalog::new(Ceiling::Enforce);
    for name in ["okta", "entra"] {
        let spec = typed(json!({
            "scim": {"tokens": [{"name": "a", "secretRef": {"name": "s"}}]},
            "principals": {"allowedDomains": ["example.com"], "users": {"googleAccount": {"attribute": "userName"}}},
        }));
        drop(index.apply_provider(provider_name(name), spec));
    }
    let target = TargetName::new("shop-dev").expect("a name");
    let allow = json!([{"namespaces": {"names": ["checkout"]}, "identityProviders": ["okta", "entra"],
        "resources": ["services/*"], "roles": [INVOKER, VIEWER]}]);
    let spec = typed(json!({"project": "shop-dev", "locations": ["europe-west1"], "allow": allow}));
    drop(index.apply_target(target.clone(), spec, jiff::Timestamp::UNIX_EPOCH));
    let resources = ["a", "b"]
        .map(|name| InventoryItem {
            document: DocumentKey::cloud_run("shop-dev", "europe-west1", ResourceKind::Service, name).expect("a key"),
            uid: format!("uid-{name}"),
            labels: BTreeMap::new(),
            invoker_iam_disabled: false,
        })
        .to_vec();
    drop(index.apply_inventory(&target, Inventory { resources, ..Inventory::default() }));
    for pin in pins {
        index.apply_pin(pin.clone());
    }
    let mappings = [
        ("names", "okta", json!([{"displayName": "g0"}, {"displayName": "g1"}]), INVOKER),
        ("ids", "okta", json!([{"externalId": "x2"}]), VIEWER),
        ("entra", "entra", json!([{"displayName": "g0"}, {"displayName": "g3"}]), INVOKER),
    ];
    for (name, provider, groups, role) in mappings {
        let spec = typed(json!({
            "subjects": [{"identityProvider": provider, "groups": groups}],
            "grants": [{"target": {"name": "shop-dev"}, "resources": ["services/*"], "roles": [role]}],
        }));
        drop(index.apply_mapping(MappingKey::new("checkout", name).expect("a key"), 1, spec, BTreeSet::new()));
    }
    index
}

/// One random change over SCIM. Some of them are refused.
async fn change(server: &Server, ids: &mut [BTreeMap<(u64, u64), String>; 2], random: &mut impl FnMut(u64) -> u64) {
    let tenant = usize::try_from(random(2)).expect("an index");
    let (provider, token) = [("okta", OKTA_TOKEN), ("entra", ENTRA_TOKEN)][tenant];
    let (user, group) = (random(8), random(4));
    let id = |kind, number| ids[tenant].get(&(kind, number)).cloned().unwrap_or_else(|| "unknown".to_owned());
    let (user_id, group_id) = (id(0, user), id(1, group));
    let patch = |operations: Value| json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations});
    let value: Vec<Value> = (0..random(4)).map(|_| json!({"value": id(0, random(8))})).collect();
    let (method, route, body) = match random(16) {
        0..=3 => ("POST", "/Users".to_owned(), Some(json!({"userName": format!("user{user}@example.com")}))),
        4 => {
            let active = json!({"active": random(2) == 0});
            ("PATCH", format!("/Users/{user_id}"), Some(patch(json!([{"op": "replace", "value": active}]))))
        }
        5 => {
            let name =
                ["user1@example.com", "nobody", "x@elsewhere.example"][usize::try_from(random(3)).expect("small")];
            let operations = json!([{"op": "replace", "path": "userName", "value": name}]);
            ("PATCH", format!("/Users/{user_id}"), Some(patch(operations)))
        }
        6 => ("DELETE", format!("/Users/{user_id}"), None),
        7..=8 => {
            let body = json!({"displayName": format!("g{group}"), "externalId": format!("x{group}"), "members": value});
            ("POST", "/Groups".to_owned(), Some(body))
        }
        9 => {
            let operations = json!([{"op": "replace", "path": "displayName", "value": format!("g{}", random(5))}]);
            ("PATCH", format!("/Groups/{group_id}"), Some(patch(operations)))
        }
        10 => ("DELETE", format!("/Groups/{group_id}"), None),
        11 => {
            let operations = json!([{"op": "replace", "path": "members", "value": value}]);
            ("PATCH", format!("/Groups/{group_id}"), Some(patch(operations)))
        }
        12..=13 => {
            let operations = json!([{"op": "remove", "path": format!("members[value eq \"{user_id}\"]")}]);
            ("PATCH", format!("/Groups/{group_id}"), Some(patch(operations)))
        }
        _ => {
            let operations = json!([{"op": "add", "path": "members", "value": value}]);
            ("PATCH", format!("/Groups/{group_id}"), Some(patch(operations)))
        }
    };
    let reply = server.of(provider, token, method, &route, body).await;
    assert!(reply.status < 500, "{method} {route}: {} {}", reply.status, reply.text);
    if reply.status == 201 {
        let key = if route == "/Users" { (0, user) } else { (1, group) };
        ids[tenant].insert(key, reply.json()["id"].as_str().expect("an id").to_owned());
    }
}

#[tokio::test]
async fn replaying_the_event_log_of_the_store_gives_the_same_index_as_loading_its_snapshot() {
    let server = Server::start().await;
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) % below
    };
    let mut ids = [BTreeMap::new(), BTreeMap::new()];
    let mut digests = BTreeSet::new();
    for _ in 0..6 {
        for _ in 0..60 {
            change(&server, &mut ids, &mut random).await;
        }
        // As at runtime: the log from the beginning, with the pins that resulted.
        let mut pins = BTreeSet::new();
        let mut replayed = catalog_of_fixed_events(&pins);
        let first = replayed.freeze_all(None).pins;
        drop(replayed.pins_stored(&first));
        pins.extend(first);
        let mut after = 0;
        loop {
            let events = server.store.events_after(after, 50).await.expect("events");
            let Some(last) = events.last() else { break };
            after = last.seq;
            for event in events {
                let new = replayed.apply_directory(&event.provider, &event.change).pins;
                drop(replayed.pins_stored(&new));
                for pin in new {
                    pins.retain(|old: &Pin| {
                        (&old.mapping, &old.provider, &old.selector) != (&pin.mapping, &pin.provider, &pin.selector)
                    });
                    pins.insert(pin);
                }
            }
        }
        // As after a restart: the snapshot, with the pins from the store.
        let mut loaded = catalog_of_fixed_events(&pins);
        server.store.begin_epoch("test").await.expect("an epoch");
        server.store.put_pins(pins.iter().cloned().collect()).await.expect("stored pins");
        let seq = server
            .store
            .snapshot(&mut |provider, change| drop(loaded.apply_directory(&provider, &change)))
            .await
            .expect("a snapshot");
        let late = loaded.freeze_all(None).pins;
        drop(loaded.pins_stored(&late));
        // Pins have positions of the same sequence, so the snapshot may be ahead of the last event.
        assert!(seq >= after, "the snapshot is as far as the log");
        assert_eq!(server.store.events_after(after, 1).await.expect("events"), []);
        assert_eq!(loaded.digest(), replayed.digest());
        digests.insert(loaded.digest());
    }
    assert!(digests.len() > 3, "the changes changed something: {}", digests.len());
}

/// All rows of the audit log.
async fn audit(store: &Store) -> Vec<AuditRow> {
    let mut rows = Vec::new();
    loop {
        let page = store.audit_after(rows.last().map_or(0, |row: &AuditRow| row.seq), 500).await.expect("audit rows");
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

/// `role member` of every binding.
fn members(policy: &Value) -> BTreeSet<(String, MemberKey)> {
    let bindings = policy["bindings"].as_array().cloned().unwrap_or_default();
    let names = bindings.iter().flat_map(|binding| {
        let role = binding["role"].as_str().unwrap_or_default();
        let members = binding["members"].as_array().into_iter().flatten().filter_map(Value::as_str);
        members.map(move |member| (role.to_owned(), MemberKey::of(member))).collect::<Vec<_>>()
    });
    names.collect()
}

#[tokio::test]
async fn each_write_that_google_committed_is_in_the_audit_with_its_etag_and_was_intended_before() {
    let mut manifests = base();
    manifests
        .push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-*"], &[INVOKER, VIEWER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    // A conflict, a refusal and a lost answer are among the calls. The lost answer is tested without foreign edits: a
    // call that meets a conflict has no answer to lose.
    let calls = [
        json!({"match": {"path": "checkout-web:setIamPolicy", "nth": 2}, "action": {"type": "error", "status": 409}}),
        json!({"match": {"path": "checkout-api:setIamPolicy", "nth": 3}, "action": {"type": "drop", "when": "after"}}),
        json!({"match": {"path": "checkout-web:setIamPolicy", "nth": 4}, "action": {"type": "error", "status": 403}}),
    ];
    for fault in calls {
        fixture.fault(fault).await;
    }
    let group = scim.create_group("team-checkout", &[]).await;
    let mut wanted = BTreeSet::new();
    for i in 0..6 {
        let user = scim.create_user(&format!("user{i}@example.com")).await;
        scim.add_members(&group, &[&user]).await;
        wanted.insert(format!("user:user{i}@example.com"));
        if i % 3 == 1 {
            scim.set_active(&user, false).await;
            wanted.remove(&format!("user:user{i}@example.com"));
        }
        // Each of them is written before the next arrives, however slow that is.
        let all: Vec<&str> = wanted.iter().map(String::as_str).collect();
        for (service, role) in [("checkout-api", INVOKER), ("checkout-web", VIEWER)] {
            fixture.members_become(service, role, &all).await;
        }
        // A foreign edit through the control API, which the journal of calls omits.
        let name = "policies/projects/shop-dev/locations/europe-west1/services/checkout-web";
        let add = json!({"add": {"role": INVOKER, "member": format!("user:stranger{i}@elsewhere.example")}});
        fixture.emulator.control("POST", name, &add).expect("a stranger's edit");
    }
    let all: Vec<&str> = wanted.iter().map(String::as_str).collect();
    for (service, role) in [("checkout-api", INVOKER), ("checkout-api", VIEWER), ("checkout-web", VIEWER)] {
        fixture.members_become(service, role, &all).await;
    }
    fixture
        .mapping_status("checkout/team", "at rest", |s| has(s, "Ready", "True", "") && s["grants"]["pending"] == 0)
        .await;
    fixture.shutdown().await;

    let url = format!("sqlite:{}", fixture.database.display());
    let store = Store::open(&url, Arc::new(SystemClock)).await.expect("the store");
    let rows = audit(&store).await;
    let of_calls =
        |row: &&AuditRow| matches!(row.entry.action.as_str(), "grant" | "revoke") && row.entry.grant.is_some();
    let (mut committed, mut proofs) = (BTreeSet::new(), 0);
    for call in fixture.emulator.journal().iter().filter(|call| call.committed && call.path.contains(":setIamPolicy")) {
        let service = call.resource.clone().expect("a resource");
        let document: DocumentKey = format!("run:{service}").parse().expect("a document");
        let (before, after) = (call.before().expect("before"), call.after().expect("after"));
        let (sent, etag) =
            (call.json().expect("a body")["policy"]["etag"].clone(), after["etag"].as_str().expect("an etag"));
        let sent = sent.as_str().expect("never without an etag");
        committed.insert((document.clone(), etag.to_owned()));
        let rows_of = |action: &str, fits: &dyn Fn(&AuditRow) -> bool| -> BTreeSet<(String, MemberKey)> {
            let rows = rows.iter().filter(of_calls).filter(|row| {
                row.entry.document.as_ref() == Some(&document)
                    && row.entry.action == action
                    && row.entry.revision_before.as_deref() == Some(sent)
                    && fits(row)
            });
            let grants = rows.filter_map(|row| row.entry.grant.clone());
            grants.map(|grant| (grant.role.to_string(), grant.member)).collect()
        };
        let (had, has) = (members(&before), members(&after));
        let (came, went) = (&has - &had, &had - &has);
        if came.is_empty() && went.is_empty() {
            proofs += 1;
        }
        for (action, changed) in [("grant", came), ("revoke", went)] {
            let intended =
                rows_of(action, &|row| row.entry.outcome == AuditOutcome::Intended && row.entry.at <= call.time);
            assert!(changed.is_subset(&intended), "{document}: {action} {changed:?} was not intended: {intended:?}");
            // The next read shows the outcome of a call whose answer was lost; somebody else may have written in
            // between.
            let settled = rows_of(action, &|row| match row.entry.outcome {
                AuditOutcome::Acknowledged => row.entry.revision_after.as_deref() == Some(etag),
                AuditOutcome::Ambiguous => call.fault.is_some(),
                _ => false,
            });
            assert_eq!(settled, changed, "{document}: {action} at {etag} (fault {:?})", call.fault);
        }
    }
    assert!(committed.len() >= 6, "{committed:?}");
    assert!(proofs <= 1, "only after the lost answer a write without a difference has to tell what was done: {proofs}");
    // Conversely, every write that the audit calls acknowledged was committed by Google.
    for row in rows.iter().filter(of_calls).filter(|row| row.entry.outcome == AuditOutcome::Acknowledged) {
        let key = (row.entry.document.clone().expect("a document"), row.entry.revision_after.clone().expect("an etag"));
        assert!(committed.contains(&key), "acknowledged and never committed: {:?}", row.entry);
    }
    let outcomes: BTreeSet<&str> = rows.iter().filter(of_calls).map(|row| row.entry.outcome.as_str()).collect();
    for outcome in ["intended", "acknowledged", "failed", "refused", "ambiguous"] {
        assert!(outcomes.contains(outcome), "{outcome} is not among {outcomes:?}");
    }
}

#[tokio::test]
async fn intent_is_on_the_disk_while_google_is_still_deciding() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    fixture
        .fault(
            json!({"match": {"path": ":setIamPolicy", "count": 1}, "action": {"type": "latency", "latencyMs": 3000}}),
        )
        .await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    let url = format!("sqlite:{}", fixture.database.display());
    let store = Store::open(&url, Arc::new(SystemClock)).await.expect("the store, beside the running process");
    let document =
        DocumentKey::cloud_run("shop-dev", "europe-west1", ResourceKind::Service, "checkout-api").expect("a key");
    let intent = eventually("an intent", async || {
        let rows = store.ledger(&document).await.expect("the ledger");
        rows.into_iter().find_map(|row| row.intent).ok_or_else(|| "none".to_owned())
    })
    .await;
    assert!(!fixture.policy("checkout-api").await.contains_key(INVOKER), "Google has not decided yet");
    assert_eq!(intent.action, IntentAction::Grant);
    assert!(!intent.present_before);
    let rows = audit(&store).await;
    let intended = rows.iter().find(|row| row.entry.outcome == AuditOutcome::Intended).expect("an audit row");
    assert_eq!(intended.entry.revision_before.as_deref(), Some(intent.revision_before.as_str()));
    drop(store);
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.agree().await;
}
