//! The event log of the directory against its snapshot: both give the same catalog.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::catalog::{Catalog, Ceiling, Inventory, InventoryItem};
use crate::model::{DocumentKey, MappingKey, Pin, ProviderName, ResourceKind, TargetName};
use crate::scim_server::tests::{ENTRA_TOKEN, OKTA_TOKEN, Server};

const INVOKER: &str = "roles/run.invoker";
const VIEWER: &str = "roles/run.viewer";

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
