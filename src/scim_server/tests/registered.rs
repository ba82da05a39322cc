//! Resource types and extensions from a file.

use serde_json::{Value, json};

use super::{ENTRA_TOKEN, OKTA_TOKEN, Server};
use crate::scim::ResourceTypes;
use crate::scim_server::Limits;

const DEVICE: &str = "urn:example:params:scim:schemas:core:1.2.3:Device";
const LEASE: &str = "urn:example:params:scim:schemas:extension:lease:1.0:Device";
const BADGE: &str = "urn:example:params:scim:schemas:extension:badge:1.0:User";

pub(super) fn types() -> ResourceTypes {
    let text = include_str!("../../../tests/fixtures/scim/schemas.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    ResourceTypes::registered(&documents).unwrap()
}

async fn serving() -> Server {
    Server::on(tempfile::tempdir().unwrap(), Limits::default(), types()).await
}

async fn device(server: &Server, body: Value) -> String {
    server.created("/Devices", body).await
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The serial numbers of the devices that a query selects.
async fn serials(server: &Server, query: &str) -> String {
    let reply = server.okta("GET", &format!("/Devices?{query}"), None).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.text);
    let list = reply.json();
    let names = list["Resources"].as_array().unwrap().iter().map(|one| one["serialNumber"].as_str().unwrap());
    names.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_registered_type_is_discovered_created_read_changed_and_deleted() {
    let server = serving().await;
    let list = server.okta("GET", "/ResourceTypes", None).await.json();
    let names: Vec<&str> =
        list["Resources"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["User", "Group", "Device", "Site"]);
    let own = server.okta("GET", "/ResourceTypes/Device", None).await.json();
    assert_eq!((&own["endpoint"], &own["schema"]), (&json!("/Devices"), &json!(DEVICE)));
    assert_eq!(own["schemaExtensions"], json!([{"schema": LEASE, "required": false}]));
    let schema = server.okta("GET", &format!("/Schemas/{DEVICE}"), None).await.json();
    let has = |name: &str| schema["attributes"].as_array().unwrap().iter().any(|one| one["name"] == name);
    assert!(["externalId", "serialNumber", "ports"].into_iter().all(has));
    assert_eq!(server.okta("GET", "/Schemas", None).await.json()["totalResults"], 7);

    let body = json!({
        "schemas": [DEVICE, LEASE], "serialNumber": "S1", "DisplayName": "Laptop", "model": "m1", "managed": "True",
        "memory": 16, "weight": 1.5, "bought": "2026-01-31T12:00:00Z", "tags": ["a", "b", "a"], "pin": "0000",
        "state": "new", "note": "n", "owner": {"value": "u1"}, "ports": [{"value": 1, "type": "usb"}],
        LEASE: {"contract": "c1"}, "unknown": 1,
    });
    let reply = server.okta("POST", "/Devices", Some(body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let created = reply.json();
    let id = created["id"].as_str().unwrap().to_owned();
    let path = format!("/Devices/{id}");
    assert_eq!(created["meta"]["resourceType"], "Device");
    assert_eq!(created["meta"]["location"], json!(format!("https://rolecall.example.com/idp/okta/scim/v2{path}")));
    let mut expected = json!({
        "schemas": [DEVICE, LEASE], "id": id, "serialNumber": "S1", "displayName": "Laptop", "model": "m1",
        "managed": true, "memory": 16, "weight": 1.5, "bought": "2026-01-31T12:00:00Z", "tags": ["a", "b"],
        "owner": {"value": "u1"}, "ports": [{"value": 1, "type": "usb"}], LEASE: {"contract": "c1"},
    });
    expected["meta"] = created["meta"].clone();
    let mut written = expected.clone();
    written["note"] = json!("n");
    assert_eq!(created, written, "what is returned on request is in the answer to a request that writes it");
    assert_eq!(server.okta("GET", &path, None).await.json(), expected);
    let chosen = server.okta("GET", &format!("{path}?attributes=note,{LEASE}:contract,pin"), None).await.json();
    assert_eq!(chosen, json!({"schemas": [DEVICE, LEASE], "id": id, "note": "n", LEASE: {"contract": "c1"}}));
    let left = server.okta("GET", &format!("{path}?excludedAttributes=ports,owner.value"), None).await.json();
    assert!(left.get("ports").is_none() && left["serialNumber"] == "S1");

    let operations = json!([
        {"op": "replace", "path": "memory", "value": 32},
        {"op": "remove", "path": "managed"},
        {"op": "add", "path": "tags", "value": ["c"]},
        {"op": "remove", "path": "tags", "value": ["a"]},
        {"op": "add", "path": "ports", "value": [{"value": 2, "type": "hdmi"}]},
        {"op": "remove", "path": "ports[type eq \"usb\"]"},
        {"op": "replace", "path": format!("{DEVICE}:displayName"), "value": "Desktop"},
        {"op": "replace", "path": format!("{LEASE}:contract"), "value": "c2"},
        {"op": "add", "path": format!("{LEASE}.ends"), "value": "2027-01-01T00:00:00Z"},
    ]);
    let changed = server.patch(&path, operations).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let changed = changed.json();
    assert_eq!((&changed["memory"], &changed["tags"]), (&json!(32), &json!(["b", "c"])));
    assert_eq!((&changed["ports"], changed.get("managed")), (&json!([{"value": 2, "type": "hdmi"}]), None));
    assert_eq!(changed[LEASE], json!({"contract": "c2", "ends": "2027-01-01T00:00:00Z"}));
    assert_eq!((&changed["displayName"], &changed["meta"]["version"]), (&json!("Desktop"), &json!("W/\"2\"")));

    // A PUT replaces what it may, and keeps what can be set only once.
    let put = server.okta("PUT", &path, Some(json!({"schemas": [DEVICE], "serialNumber": "S2"}))).await.json();
    assert_eq!((&put["model"], &put["serialNumber"], put.get("tags")), (&json!("m1"), &json!("S2"), None));
    assert_eq!(server.okta("DELETE", &path, None).await.status, 204);
    server.okta("GET", &path, None).await.refused(404, None);
    server.okta("DELETE", &path, None).await.refused(404, None);
    let audit = server.store.audit_after(0, 10).await.unwrap();
    let actions: Vec<&str> = audit.iter().map(|row| row.entry.action.as_str()).collect();
    assert_eq!(actions, ["resource.create", "resource.update", "resource.update", "resource.delete"]);
    assert_eq!(server.store.highest_seq().await.unwrap(), 0, "no event: access does not depend on it");
}

#[tokio::test]
async fn values_of_a_registered_type_are_checked_by_its_schema() {
    let server = serving().await;
    let id = device(&server, json!({"serialNumber": "S1", "model": "m1"})).await;
    for (body, kind) in [
        (json!({}), "invalidValue"),
        (json!({"serialNumber": ""}), "invalidValue"),
        (json!({"serialNumber": "S2", "memory": 1.5}), "invalidValue"),
        (json!({"serialNumber": "S2", "memory": "16"}), "invalidValue"),
        (json!({"serialNumber": "S2", "weight": "heavy"}), "invalidValue"),
        (json!({"serialNumber": "S2", "managed": "perhaps"}), "invalidValue"),
        (json!({"serialNumber": "S2", "bought": "yesterday"}), "invalidValue"),
        (json!({"serialNumber": "S2", "tags": [{"x": 1}]}), "invalidValue"),
        (json!({"serialNumber": "S2", "ports": [{"type": "usb"}]}), "invalidValue"),
        (json!({"serialNumber": "S2", "displayName": "x".repeat(2000)}), "invalidValue"),
        (json!({"serialNumber": "S2", LEASE: {"ends": 7}}), "invalidValue"),
    ] {
        server.okta("POST", "/Devices", Some(body)).await.refused(400, Some(kind));
    }
    server.okta("POST", "/Devices", Some(json!({"serialNumber": "S1"}))).await.refused(409, Some("uniqueness"));
    // Its case counts.
    let other = device(&server, json!({"serialNumber": "s1"})).await;
    let path = format!("/Devices/{other}");
    let replace = |path: &str, value: Value| json!([{"op": "replace", "path": path, "value": value}]);
    server.patch(&path, replace("serialNumber", json!("S1"))).await.refused(409, Some("uniqueness"));
    server.patch(&path, json!([{"op": "remove", "path": "serialNumber"}])).await.refused(400, Some("mutability"));
    server.patch(&path, replace("state", json!("x"))).await.refused(400, Some("mutability"));
    server.patch(&path, replace("nothing", json!("x"))).await.refused(400, Some("invalidPath"));
    assert_eq!(server.patch(&path, replace("model", json!("m2"))).await.status, 200, "set once");
    server.patch(&path, replace("model", json!("m3"))).await.refused(400, Some("mutability"));
    server.patch(&path, json!([{"op": "remove", "path": "model"}])).await.refused(400, Some("mutability"));
    let put = json!({"serialNumber": "s1", "model": "m3"});
    server.okta("PUT", &path, Some(put)).await.refused(400, Some("mutability"));
    // A value that is given up is free.
    assert_eq!(server.okta("DELETE", &format!("/Devices/{id}"), None).await.status, 204);
    assert_eq!(server.patch(&path, replace("serialNumber", json!("S1"))).await.status, 200);
    let read = server.okta("GET", &path, None).await;
    let stale = [("authorization", Some("Bearer okta-token-0123456789abcdef")), ("if-match", Some("W/\"1\""))];
    server.send("okta", "DELETE", &path, &stale, None).await.refused(412, None);
    let current = [stale[0], ("if-none-match", Some(read.header("etag")))];
    assert_eq!(server.send("okta", "GET", &path, &current, None).await.status, 304);
}

#[tokio::test]
async fn resources_of_a_registered_type_are_filtered_sorted_and_paged() {
    let server = serving().await;
    for (serial, memory, bought, tags) in [
        ("a", 8, "2026-01-31T13:00:00+02:00", json!(["x"])),
        ("b", 16, "2026-01-31T12:00:00Z", json!(["x", "y"])),
        ("c", 4, "2025-01-01T00:00:00Z", json!([])),
    ] {
        let body = json!({
            "serialNumber": serial, "displayName": serial.to_uppercase(), "memory": memory, "bought": bought,
            "tags": tags, "externalId": format!("e-{serial}"), "ports": [{"value": memory, "type": "usb"}],
            LEASE: {"contract": format!("C-{serial}")},
        });
        device(&server, body).await;
    }
    server.created("/Sites", json!({"displayName": "a"})).await;
    for (filter, expected) in [
        ("serialNumber eq \"a\"".to_owned(), "a"),
        ("serialNumber eq \"A\"".to_owned(), ""),
        ("displayName eq \"a\"".to_owned(), "a"),
        ("memory gt 4".to_owned(), "a b"),
        ("memory le 8 and not (memory eq 4.0)".to_owned(), "a"),
        ("bought lt \"2026-01-31T12:00:00Z\"".to_owned(), "a c"),
        ("tags eq \"Y\"".to_owned(), "b"),
        ("tags pr".to_owned(), "a b"),
        ("externalId eq \"e-b\"".to_owned(), "b"),
        ("ports[type eq \"usb\" and value ge 8]".to_owned(), "a b"),
        ("ports.value eq 16".to_owned(), "b"),
        (format!("{LEASE}:contract eq \"c-c\""), "c"),
        (format!("{DEVICE}:displayName sw \"b\" or serialNumber ew \"c\""), "b c"),
        ("meta.resourceType eq \"Device\"".to_owned(), "a b c"),
        ("meta.lastModified gt \"2020-01-01T00:00:00Z\"".to_owned(), "a b c"),
    ] {
        assert_eq!(serials(&server, &format!("filter={}", encoded(&filter))).await, expected, "{filter}");
    }
    for filter in ["memory eq \"8\"", "memory co 8", "nothing pr", "bought gt \"x\"", "pin pr", "owner eq 1"] {
        let reply = server.okta("GET", &format!("/Devices?filter={}", encoded(filter)), None).await;
        reply.refused(400, Some("invalidFilter"));
    }
    for (query, expected) in [
        ("", "a b c"),
        ("sortBy=memory", "c a b"),
        ("sortBy=bought&sortOrder=descending", "b a c"),
        ("startIndex=2&count=1", "b"),
        ("count=0", ""),
    ] {
        assert_eq!(serials(&server, query).await, expected, "{query}");
    }
    let page = server.okta("GET", "/Devices?cursor&count=2", None).await.json();
    let next = page["nextCursor"].as_str().unwrap();
    assert_eq!(
        (serials(&server, &format!("cursor={next}&count=2")).await.as_str(), &page["totalResults"]),
        ("c", &json!(3))
    );
    let search = json!({"filter": "memory ge 8", "sortBy": "memory", "sortOrder": "descending"});
    let found = server.okta("POST", "/Devices/.search", Some(search)).await.json();
    assert_eq!((&found["totalResults"], &found["Resources"][0]["serialNumber"]), (&json!(2), &json!("b")));

    server.user("u").await;
    let root =
        server.okta("POST", "/.search", Some(json!({"sortBy": "displayName", "filter": "displayName pr"}))).await;
    let kinds: Vec<Value> =
        root.json()["Resources"].as_array().unwrap().iter().map(|one| one["meta"]["resourceType"].clone()).collect();
    assert_eq!(kinds, ["Device", "Site", "Device", "Device"]);
    let all = server.okta("POST", "/.search", Some(json!({}))).await.json();
    assert_eq!(all["totalResults"], 5);
    let one = server.okta("POST", "/.search", Some(json!({"filter": "serialNumber eq \"b\""}))).await.json();
    assert_eq!((&one["totalResults"], &one["Resources"][0]["displayName"]), (&json!(1), &json!("B")));
}

#[tokio::test]
async fn a_registered_type_is_changed_in_bulk_and_stays_inside_its_tenant() {
    let server = serving().await;
    let operations = json!([
        {"method": "POST", "path": "/Devices", "bulkId": "d", "data": {"serialNumber": "S1", "owner": {"value": "bulkId:u"}}},
        {"method": "POST", "path": "/Users", "bulkId": "u", "data": {"userName": "alice"}},
        {"method": "PATCH", "path": "/Devices/bulkId:d", "data": {"Operations": [{"op": "add", "path": "memory", "value": 8}]}},
    ]);
    let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": operations});
    let done = server.okta("POST", "/Bulk", Some(body)).await.json();
    let status: Vec<&str> =
        done["Operations"].as_array().unwrap().iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert_eq!(status, ["201", "201", "200"], "{done}");
    let list = server.okta("GET", "/Devices", None).await.json();
    let id = list["Resources"][0]["id"].as_str().unwrap();
    assert_eq!(list["Resources"][0]["memory"], 8);
    let user = server.okta("GET", "/Users", None).await.json()["Resources"][0]["id"].clone();
    assert_eq!(list["Resources"][0]["owner"]["value"], user);

    // Another tenant sees nothing, and may use the same values. Another type does not have the id.
    let entra =
        async |method: &str, path: &str, body: Option<Value>| server.of("entra", ENTRA_TOKEN, method, path, body).await;
    assert_eq!(entra("GET", "/Devices", None).await.json()["totalResults"], 0);
    let serial = Some(json!({"serialNumber": "S1"}));
    for (method, body) in [("GET", None), ("PUT", serial.clone()), ("DELETE", None)] {
        entra(method, &format!("/Devices/{id}"), body.clone()).await.refused(404, None);
        server
            .okta(method, &format!("/Sites/{id}"), body.map(|_| json!({"displayName": "x"})))
            .await
            .refused(404, None);
    }
    assert_eq!(entra("POST", "/Devices", serial).await.status, 201);
    assert_eq!(entra("POST", "/.search", Some(json!({}))).await.json()["totalResults"], 1);
    assert_eq!(serials(&server, "").await, "S1");
    server.of("entra", OKTA_TOKEN, "GET", "/Devices", None).await.refused(401, None);
    let usage = server.store.usage(&"okta".parse().unwrap()).await.unwrap();
    assert_eq!((usage.users, usage.resources), (1, 1));
    assert_eq!(usage.rows(), 2);
}

#[tokio::test]
async fn a_registered_extension_of_users_is_typed() {
    let server = serving().await;
    let create = async |name: &str, badge: Value| {
        server.okta("POST", "/Users", Some(json!({"userName": name, BADGE: badge}))).await
    };
    for badge in [json!({"number": "x"}), json!({"code": "c"}), json!({"number": 1, "issued": "then"}), json!(7)] {
        create("a", badge).await.refused(400, Some("invalidValue"));
    }
    let issued = "2026-01-31T12:00:00Z";
    let reply = create("a", json!({"NUMBER": 10, "code": "Ab", "issued": issued, "other": 1})).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let user = reply.json();
    assert_eq!(user[BADGE], json!({"number": 10, "code": "Ab", "issued": issued}));
    assert_eq!(user["schemas"], json!(["urn:ietf:params:scim:schemas:core:2.0:User", BADGE]));
    assert_eq!(create("b", json!({"number": 9})).await.status, 201);
    assert_eq!(server.okta("POST", "/Users", Some(json!({"userName": "c"}))).await.status, 201);
    for (filter, expected) in [
        (format!("{BADGE}:code eq \"Ab\""), vec!["a"]),
        (format!("{BADGE}:code eq \"ab\""), vec![]),
        (format!("{BADGE}:number gt 9"), vec!["a"]),
        (format!("{BADGE}:number pr"), vec!["a", "b"]),
    ] {
        assert_eq!(server.selected("/Users", &filter).await, expected, "{filter}");
    }
    assert_eq!(server.names("/Users", &format!("sortBy={BADGE}:number")).await, ["b", "a", "c"]);
    let path = format!("/Users/{}", user["id"].as_str().unwrap());
    let change = async |operation: Value| server.patch(&path, json!([operation])).await;
    change(json!({"op": "replace", "path": format!("{BADGE}:issued"), "value": "2026-02-01T00:00:00Z"}))
        .await
        .refused(400, Some("mutability"));
    change(json!({"op": "remove", "path": format!("{BADGE}:number")})).await.refused(400, Some("invalidValue"));
    change(json!({"op": "add", "path": format!("{BADGE}:nothing"), "value": 1}))
        .await
        .refused(400, Some("invalidPath"));
    for query in [format!("filter={}", encoded(&format!("{BADGE}:nothing eq 1"))), format!("sortBy={BADGE}:nothing")] {
        assert_eq!(server.okta("GET", &format!("/Users?{query}"), None).await.status, 400, "{query}");
    }
    let changed = change(json!({"op": "add", "value": {format!("{BADGE}:number"): 11}})).await;
    assert_eq!(changed.json()[BADGE]["number"], 11);
    // The extension may go as a whole, by a PATCH or a PUT that does not have it.
    assert!(change(json!({"op": "remove", "path": BADGE})).await.json().get(BADGE).is_none());
    change(json!({"op": "add", "path": BADGE, "value": {"number": 1, "issued": issued}})).await;
    let put = server.okta("PUT", &path, Some(json!({"userName": "a"}))).await;
    assert_eq!((put.status, put.json().get(BADGE)), (200, None));
    // A plain name is not one of the extension, and the enterprise extension is there as before.
    change(json!({"op": "add", "path": "number", "value": 3})).await.refused(400, Some("invalidPath"));
    let changed = change(json!({"op": "add", "path": "department", "value": "D"})).await.json();
    assert_eq!(changed["urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"], json!({"department": "D"}));
    let listed = server.okta("GET", "/ResourceTypes/User", None).await.json();
    assert_eq!(listed["schemaExtensions"][1], json!({"schema": BADGE, "required": false}));
}

#[tokio::test]
async fn resources_survive_a_restart_and_the_removal_of_their_type_from_the_file() {
    let mut server = serving().await;
    device(&server, json!({"serialNumber": "S1"})).await;
    let badge = json!({"userName": "a", BADGE: {"number": 10}});
    assert_eq!(server.okta("POST", "/Users", Some(badge)).await.status, 201);
    for (types, there) in [(types(), true), (ResourceTypes::default(), false), (types(), true)] {
        let Server { folder, store, .. } = server;
        drop(store);
        server = Server::on(folder, Limits::default(), types).await;
        if there {
            assert_eq!(serials(&server, "").await, "S1");
            server.okta("POST", "/Devices", Some(json!({"serialNumber": "S1"}))).await.refused(409, Some("uniqueness"));
        } else {
            server.okta("GET", "/Devices", None).await.refused(404, None);
            assert_eq!(server.okta("POST", "/.search", Some(json!({}))).await.json()["totalResults"], 1);
            assert_eq!(server.okta("GET", "/ResourceTypes", None).await.json()["totalResults"], 2);
        }
        // What the extension holds stays, described or not.
        let user = server.okta("GET", "/Users", None).await.json()["Resources"][0].clone();
        assert_eq!(user[BADGE], json!({"number": 10}));
    }
    // What is stored of a type that is not served any more goes with the directory.
    let okta = "okta".parse().unwrap();
    let origin = crate::store::Origin { token: "t".to_owned(), request_id: None };
    let purged = server.store.purge_directory(&okta, &origin).await.unwrap();
    assert_eq!((purged.users, purged.resources), (1, 1));
    assert_eq!(server.store.usage(&okta).await.unwrap(), crate::store::Usage::default());
}

/// The types of the fixture, with more extensions and attributes.
fn stricter() -> ResourceTypes {
    let text = include_str!("../../../tests/fixtures/scim/schemas.yaml");
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let badge = documents.iter_mut().find(|one| one["id"] == BADGE).unwrap();
    badge["attributes"].as_array_mut().unwrap().extend([
        json!({"name": "pin", "returned": "never"}),
        json!({"name": "door", "type": "complex", "subAttributes": [
            {"name": "value", "mutability": "immutable"}, {"name": "floor", "type": "integer"},
        ]}),
    ]);
    documents.push(json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
        "name": "Group",
        "schemaExtensions": [{"schema": BADGE}],
    }));
    ResourceTypes::registered(&documents).unwrap()
}

async fn restarted(server: Server, types: ResourceTypes) -> Server {
    let Server { folder, store, .. } = server;
    drop(store);
    Server::on(folder, Limits::default(), types).await
}

#[tokio::test]
async fn a_schema_that_comes_later_never_keeps_a_leaver_in() {
    let server = Server::start().await;
    let user = async |name: &str, badge: Value| server.created("/Users", json!({"userName": name, BADGE: badge})).await;
    let users = [
        user("a", json!({"code": "c"})).await,
        user("b", json!({"NUMBER": 10})).await,
        user("c", json!({"number": "ten", "userName": "x"})).await,
        user("d", json!({"number": 10, "issued": "2026-01-31T12:00:00Z"})).await,
    ];
    let members = json!([{"value": users[0]}, {"value": users[1]}]);
    let group = json!({"displayName": "g", BADGE: {"code": "c"}, "members": members});
    let group = format!("/Groups/{}", server.created("/Groups", group).await);
    let server = restarted(server, stricter()).await;

    let off = json!([{"op": "replace", "path": "active", "value": false}]);
    let on = json!([{"op": "replace", "path": "active", "value": true}]);
    for (user, name, given, kept) in [
        (&users[0], "a", json!({"code": "c"}), json!({"code": "c"})),
        (&users[1], "b", json!({"NUMBER": 10}), json!({"number": 10})),
        (&users[1], "b", json!({"code": "c"}), json!({"number": 10})),
        (&users[2], "c", json!({"number": "ten", "userName": "x"}), json!({"number": "ten", "userName": "x"})),
        (
            &users[3],
            "d",
            json!({"number": 1, "issued": "2026-02-01T00:00:00Z"}),
            json!({"number": 10, "issued": "2026-01-31T12:00:00Z"}),
        ),
    ] {
        let path = format!("/Users/{user}");
        let patched = server.patch(&path, off.clone()).await;
        assert_eq!((patched.status, &patched.json()[BADGE]), (200, &kept), "{}", patched.text);
        assert_eq!(server.patch(&path, on.clone()).await.status, 200);
        let put = json!({"userName": name, "active": false, BADGE: given});
        let put = server.okta("PUT", &path, Some(put)).await;
        assert_eq!((put.status, &put.json()["active"]), (200, &json!(false)), "{}", put.text);
        assert_eq!(put.json()[BADGE], kept);
        assert_eq!(server.patch(&path, on.clone()).await.status, 200);
        // In one PATCH with what does not fit.
        let both = json!([off[0], {"op": "replace", "path": format!("{BADGE}:number"), "value": "x"}]);
        let both = server.patch(&path, both).await;
        assert_eq!((both.status, &both.json()[BADGE]), (200, &kept), "{}", both.text);
        assert_eq!(server.patch(&path, on.clone()).await.status, 200);
    }
    // A change that deactivates nobody is refused when it breaks the schema itself.
    let path = format!("/Users/{}", users[1]);
    for badge in [json!({"code": "c"}), json!({"number": "x"})] {
        let put = json!({"userName": "b", "active": true, BADGE: badge});
        server.okta("PUT", &path, Some(put)).await.refused(400, Some("invalidValue"));
    }
    let add = json!([{"op": "add", "path": format!("{BADGE}:code"), "value": "d"}]);
    assert_eq!(server.patch(&format!("/Users/{}", users[0]), add).await.status, 200, "it lacked the number before");

    let put = async |badge: Value, members: &[&str]| {
        let members: Vec<Value> = members.iter().map(|id| json!({"value": id})).collect();
        server.okta("PUT", &group, Some(json!({"displayName": "g", BADGE: badge, "members": members}))).await
    };
    for badge in [json!({"code": "c"}), json!({"code": "c", "number": "ten"})] {
        for members in [vec![users[0].as_str()], vec![]] {
            let reply = put(badge.clone(), &members).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            let left = reply.json().get("members").and_then(Value::as_array).map_or(0, Vec::len);
            assert_eq!((left, &reply.json()[BADGE]), (members.len(), &json!({"code": "c"})));
        }
    }
    let put = json!({"displayName": "g", BADGE: {"number": "ten"}});
    server.okta("PUT", &group, Some(put)).await.refused(400, Some("invalidValue"));
}

#[tokio::test]
async fn what_was_stored_before_its_schema_gets_the_spelling_of_the_schema() {
    let server = Server::start().await;
    let old = BADGE.to_uppercase().replace("URN", "urn");
    let badge = json!({"Number": 10, "PIN": "0000", "Door": {"VALUE": "d1"}, "other": 1});
    let id = server.created("/Users", json!({"schemas": [old], "userName": "a", old.as_str(): badge})).await;
    let server = restarted(server, stricter()).await;
    let path = format!("/Users/{id}");
    let seen = json!({"other": 1, "number": 10, "door": {"value": "d1"}});
    let same = |reply: &Value| {
        let schemas = json!(["urn:ietf:params:scim:schemas:core:2.0:User", BADGE]);
        assert_eq!((&reply[BADGE], &reply["schemas"], reply.get(&old)), (&seen, &schemas, None), "{reply}");
    };
    same(&server.okta("GET", &path, None).await.json());
    same(&server.okta("GET", "/Users", None).await.json()["Resources"][0]);
    for filter in [format!("{BADGE}:number eq 10"), format!("{BADGE}:door.value eq \"d1\"")] {
        assert_eq!(server.selected("/Users", &filter).await, ["a"], "{filter}");
    }
    let changed = server.patch(&path, json!([{"op": "replace", "path": format!("{BADGE}:number"), "value": 11}])).await;
    assert_eq!(changed.json()[BADGE], json!({"other": 1, "door": {"value": "d1"}, "number": 11}), "{}", changed.text);
}

#[tokio::test]
async fn a_put_keeps_what_can_be_set_only_once_in_extensions_and_parts() {
    let server = Server::on(tempfile::tempdir().unwrap(), Limits::default(), stricter()).await;
    let issued = "2026-01-31T12:00:00Z";
    let badge = json!({"number": 1, "issued": issued, "door": {"value": "d1", "floor": 1}});
    let path = format!("/Users/{}", server.created("/Users", json!({"userName": "a", BADGE: badge})).await);
    let put = async |badge: Value| server.okta("PUT", &path, Some(json!({"userName": "a", BADGE: badge}))).await;
    for (badge, kept) in [
        (json!({"number": 2}), json!({"issued": issued, "door": {"value": "d1"}, "number": 2})),
        (
            json!({"number": 2, "door": {"floor": 2}}),
            json!({"issued": issued, "door": {"value": "d1", "floor": 2}, "number": 2}),
        ),
    ] {
        let reply = put(badge).await;
        assert_eq!((reply.status, &reply.json()[BADGE]), (200, &kept), "{}", reply.text);
    }
    for badge in [
        json!({"number": 2, "issued": "2026-02-01T00:00:00Z"}),
        json!({"number": 2, "issued": null}),
        json!({"number": 2, "door": {"value": "d2"}}),
        json!({"number": 2, "door": null}),
    ] {
        put(badge).await.refused(400, Some("mutability"));
    }
}

#[tokio::test]
async fn an_attribute_that_becomes_unique_is_so_among_what_is_stored() {
    let unique = |names: &[&str]| {
        let text = include_str!("../../../tests/fixtures/scim/schemas.yaml");
        let mut documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        for attribute in documents[0]["attributes"].as_array_mut().unwrap() {
            if names.iter().any(|name| attribute["name"] == *name) {
                attribute["uniqueness"] = json!("server");
            }
        }
        ResourceTypes::registered(&documents).unwrap()
    };
    let server = serving().await;
    let first = json!({"serialNumber": "a", "displayName": "x", "weight": 4, "bought": "2026-01-31T13:00:00+01:00"});
    let first = device(&server, first).await;
    let second = device(&server, json!({"serialNumber": "b", "displayName": "X"})).await;
    let server = restarted(server, unique(&["weight", "bought"])).await;
    for (name, value) in [("weight", json!(4.0)), ("bought", json!("2026-01-31T12:00:00Z"))] {
        let body = json!({"serialNumber": "c", name: value});
        server.okta("POST", "/Devices", Some(body)).await.refused(409, Some("uniqueness"));
    }
    // The start is refused, and nothing is changed by it.
    let problem = server.store.hold_unique(&unique(&["displayName"])).await.unwrap_err().to_string();
    let expected = format!(
        "the resources {first} and {second} of `okta` have the same `displayName`, which the schema of `Device`"
    );
    assert!(problem.starts_with(&expected), "{problem}");
    server.okta("POST", "/Devices", Some(json!({"serialNumber": "a"}))).await.refused(409, Some("uniqueness"));
    let server = restarted(server, types()).await;
    assert_eq!(server.okta("POST", "/Devices", Some(json!({"serialNumber": "c", "weight": 4}))).await.status, 201);
}
