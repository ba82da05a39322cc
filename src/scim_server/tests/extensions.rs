//! Extensions under URNs that no schema here describes are kept: stored, returned, replaced, patched, selected and
//! filtered.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Server;
use crate::model::ProviderName;
use crate::scim::FindingCode;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
const ACME: &str = "urn:example:params:scim:schemas:extension:acme:2.0:User";
const TEAM: &str = "urn:example:params:scim:schemas:extension:acme:2.0:Group";
const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// A value of every type.
fn acme() -> Value {
    json!({
        "badge": "A7", "level": 3, "rate": 1.5, "remote": true, "since": "2026-01-31T12:00:00Z",
        "place": {"floor": 2, "room": "North"},
        "tags": ["red", "blue"],
        "keys": [{"value": "k1", "type": "door"}, {"value": "k2", "type": "gate"}],
    })
}

async fn created(server: &Server, name: &str, extension: &Value) -> String {
    let body = json!({"schemas": [USER, ACME], "userName": name, ACME: extension});
    let reply = server.okta("POST", "/Users", Some(body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.json()["id"].as_str().unwrap().to_owned()
}

async fn extension(server: &Server, path: &str) -> Value {
    server.okta("GET", path, None).await.json()[ACME].clone()
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[tokio::test]
async fn an_unknown_extension_is_stored_and_returned_and_replaced_by_put() {
    let server = Server::start().await;
    for (endpoint, core, name, urn) in [("/Users", USER, "userName", ACME), ("/Groups", GROUP, "displayName", TEAM)] {
        for schemas in [json!([core, urn]), json!([core])] {
            let body = json!({"schemas": schemas, name: "one", urn: acme()});
            let posted = server.okta("POST", endpoint, Some(body)).await;
            assert_eq!(posted.status, 201, "{}", posted.text);
            let path = format!("{endpoint}/{}", posted.json()["id"].as_str().unwrap());
            for reply in [posted, server.okta("GET", &path, None).await] {
                assert_eq!(reply.json()[urn], acme(), "{}", reply.text);
                assert_eq!(reply.json()["schemas"], json!([core, urn]));
            }
            let listed = server.okta("GET", endpoint, None).await.json();
            assert_eq!(listed["Resources"][0][urn], acme());
            // What was read can be sent back.
            let read = server.okta("GET", &path, None).await.json();
            let same = server.okta("PUT", &path, Some(read.clone())).await;
            assert_eq!((same.status, same.json()), (200, read));
            let put = json!({"schemas": [core, urn], name: "one", urn: {"badge": "B", "note": null, "list": []}});
            let put = server.okta("PUT", &path, Some(put)).await;
            assert_eq!((put.status, &put.json()[urn]), (200, &json!({"badge": "B"})), "{}", put.text);
            let gone = server.okta("PUT", &path, Some(json!({"schemas": [core], name: "one"}))).await.json();
            assert_eq!((gone.get(urn), &gone["schemas"]), (None, &json!([core])));
            assert_eq!(server.okta("DELETE", &path, None).await.status, 204);
        }
    }
    assert!(server.found(FindingCode::ExtensionNotDescribed));
    assert!(!server.found(FindingCode::AttributeNotStored) && !server.found(FindingCode::SchemaUnknown));
}

#[tokio::test]
async fn an_extension_is_patched_by_every_kind_of_path() {
    let server = Server::start().await;
    let id = created(&server, "a", &acme()).await;
    let path = format!("/Users/{id}");
    let at = |names: &str| format!("{ACME}:{names}");
    for (operation, changed) in [
        (json!({"op": "replace", "path": at("badge"), "value": "B8"}), json!({"badge": "B8"})),
        (json!({"op": "add", "path": at("BADGE"), "value": "C9"}), json!({"badge": "C9"})),
        (json!({"op": "add", "path": format!("{ACME}.badge"), "value": "D1"}), json!({"badge": "D1"})),
        (json!({"op": "replace", "path": at("level"), "value": 4}), json!({"level": 4})),
        (
            json!({"op": "replace", "path": at("place.floor"), "value": 5}),
            json!({"place": {"floor": 5, "room": "North"}}),
        ),
        (json!({"op": "remove", "path": at("place.room")}), json!({"place": {"floor": 5}})),
        (json!({"op": "remove", "path": at("place.floor")}), json!({"place": null})),
        (json!({"op": "add", "path": at("place.floor"), "value": 6}), json!({"place": {"floor": 6}})),
        (
            json!({"op": "add", "path": at("place"), "value": {"room": "S"}}),
            json!({"place": {"floor": 6, "room": "S"}}),
        ),
        (
            json!({"op": "add", "path": at("tags"), "value": ["blue", "green"]}),
            json!({"tags": ["red", "blue", "green"]}),
        ),
        (json!({"op": "remove", "path": at("tags"), "value": ["red"]}), json!({"tags": ["blue", "green"]})),
        (json!({"op": "replace", "path": at("tags"), "value": ["x"]}), json!({"tags": ["x"]})),
        (
            json!({"op": "replace", "path": at("keys[type eq \"GATE\"].value"), "value": "k3"}),
            json!({"keys": [{"value": "k1", "type": "door"}, {"value": "k3", "type": "gate"}]}),
        ),
        (
            json!({"op": "remove", "path": at("keys[value eq \"k1\"]")}),
            json!({"keys": [{"value": "k3", "type": "gate"}]}),
        ),
        (json!({"op": "remove", "path": at("keys")}), json!({"keys": null})),
        (json!({"op": "remove", "path": at("nothing")}), json!({})),
        (
            json!({"op": "replace", "path": ACME, "value": {"badge": "E", "remote": null}}),
            json!({"badge": "E", "remote": null}),
        ),
        (
            json!({"op": "add", "path": ACME, "value": {"badge": "F", "new.part": 1}}),
            json!({"badge": "F", "new": {"part": 1}}),
        ),
        (json!({"op": "replace", "value": {ACME: {"badge": "G"}, "title": "T"}}), json!({"badge": "G"})),
        (
            json!({"op": "add", "value": {at("badge"): "H", at("new.part"): 2}}),
            json!({"badge": "H", "new": {"part": 2}}),
        ),
        (json!({"op": "replace", "value": {at("new"): null}}), json!({"new": null})),
    ] {
        let mut expected = extension(&server, &path).await;
        for (name, value) in changed.as_object().unwrap() {
            match value {
                Value::Null => drop(expected.as_object_mut().unwrap().remove(name)),
                value => expected[name] = value.clone(),
            }
        }
        let reply = server.patch(&path, json!([operation])).await;
        assert_eq!(reply.status, 200, "{operation}: {}", reply.text);
        assert_eq!(reply.json()[ACME], expected, "{operation}");
        assert_eq!(extension(&server, &path).await, expected, "{operation}");
    }
    for (remove, add) in [
        (json!({"op": "remove", "path": ACME}), json!({"op": "add", "path": ACME, "value": {"badge": "N"}})),
        (json!({"op": "replace", "value": {ACME: null}}), json!({"op": "add", "value": {ACME: {"badge": "N"}}})),
        (json!({"op": "remove", "path": at("badge")}), json!({"op": "replace", "path": at("badge"), "value": "N"})),
    ] {
        let gone = server.patch(&path, json!([remove])).await.json();
        assert_eq!((gone.get(ACME), &gone["schemas"]), (None, &json!([USER])), "{remove}");
        let back = server.patch(&path, json!([add])).await.json();
        assert_eq!((&back[ACME], &back["schemas"]), (&json!({"badge": "N"}), &json!([USER, ACME])), "{add}");
    }
}

#[tokio::test]
async fn an_extension_of_a_group_is_patched_and_its_members_stay() {
    let server = Server::start().await;
    let id = server.user("a").await;
    let group = server.group("team", &[&id]).await;
    let reply = server
        .patch(&format!("/Groups/{group}"), json!([{"op": "add", "path": format!("{TEAM}:cost"), "value": 7}]))
        .await;
    assert!(reply.status < 300, "{}", reply.text);
    let read = server.okta("GET", &format!("/Groups/{group}"), None).await.json();
    assert_eq!((&read[TEAM], &read["schemas"]), (&json!({"cost": 7}), &json!([GROUP, TEAM])));
    assert_eq!(server.members(&group).await.len(), 1);
}

#[tokio::test]
async fn what_a_patch_of_an_extension_cannot_do_is_refused_as_a_whole() {
    let server = Server::start().await;
    let path = format!("/Users/{}", created(&server, "a", &acme()).await);
    let before = server.okta("GET", &path, None).await.text;
    let at = |names: &str| format!("{ACME}:{names}");
    for (operation, scim_type) in [
        (json!({"op": "replace", "path": ACME, "value": "x"}), "invalidValue"),
        (json!({"op": "replace", "value": {ACME: ["x"]}}), "invalidValue"),
        (json!({"op": "remove", "path": ACME, "value": {"badge": "A7"}}), "invalidPath"),
        (json!({"op": "replace", "path": at("badge")}), "invalidValue"),
        (json!({"op": "replace", "path": at("badge.part"), "value": "x"}), "invalidPath"),
        (json!({"op": "replace", "path": at("keys[value eq \"none\"].type"), "value": "x"}), "noTarget"),
        (json!({"op": "replace", "path": at("place[floor eq 2].room"), "value": "x"}), "invalidPath"),
        (json!({"op": "replace", "value": {ACME: {"badge": "x"}, at("badge"): "y"}}), "invalidSyntax"),
        (json!({"op": "replace", "value": {ACME: {"place": {"floor": 1}, "place.floor": 2}}}), "invalidSyntax"),
        (json!({"op": "replace", "path": at("badge"), "value": "x".repeat(2000)}), "invalidValue"),
        (json!({"op": "add", "path": at("tags"), "value": (0..600).collect::<Vec<_>>()}), "invalidValue"),
        // These are misspelled and no extensions: what they mean to change would stay as it is.
        (json!({"op": "replace", "path": "urn:example:nothing:User", "value": {"active": false}}), "invalidPath"),
        (json!({"op": "replace", "value": {"urn:ietf:params:scim:schemas:User": {"active": false}}}), "invalidPath"),
        (json!({"op": "replace", "path": "urn:scim:schemas:core:1.0:active", "value": false}), "invalidPath"),
        (json!({"op": "replace", "path": format!("{ENTERPRISE}:nothing"), "value": "x"}), "invalidPath"),
    ] {
        let good = json!({"op": "replace", "path": at("badge"), "value": "Z"});
        server.patch(&path, json!([good, operation])).await.refused(400, Some(scim_type));
        assert_eq!(server.okta("GET", &path, None).await.text, before, "{operation}");
    }
    let beside = json!({"schemas": [PATCH], "Operations": [], ACME: {"badge": "x"}});
    server.okta("PATCH", &path, Some(beside)).await.refused(400, Some("invalidSyntax"));
    let same = json!([{"op": "replace", "value": {ACME: {"badge": "S"}, at("badge"): "S"}}]);
    assert_eq!(server.patch(&path, same).await.json()[ACME]["badge"], "S");
    assert!(server.found(FindingCode::AttributeRepeated));
}

#[tokio::test]
async fn an_extension_is_bounded_like_the_rest() {
    let server = Server::start().await;
    let nested = |levels: usize| (0..levels).fold(json!("x"), |inner, _| json!({"a": inner}));
    let many: serde_json::Map<String, Value> = (0..501).map(|n| (format!("n{n}"), json!(1))).collect();
    for (extension, status) in [
        (nested(31), 201),
        (json!({"a": "x".repeat(1025)}), 400),
        (json!({"x".repeat(257): 1}), 400),
        (json!({"a": [{"b": "x".repeat(1025)}]}), 400),
        (json!({"a": vec![1; 501]}), 400),
        (Value::Object(many), 400),
        (json!({"a": vec!["x".repeat(1000); 80]}), 400),
        (nested(32), 400),
    ] {
        let body = json!({"schemas": [USER, ACME], "userName": "a", ACME: extension});
        let reply = server.okta("POST", "/Users", Some(body)).await;
        assert_eq!(reply.status, status, "{}", reply.text);
    }
    // A dotted name stands for two levels.
    for (name, levels, status) in [("b", 29, 201), ("c", 30, 400)] {
        let body = json!({"schemas": [USER, ACME], "userName": name, format!("{ACME}:a.b"): nested(levels)});
        let reply = server.okta("POST", "/Users", Some(body)).await;
        assert_eq!(reply.status, status, "{}", reply.text);
    }
}

#[tokio::test]
async fn attributes_of_an_extension_are_chosen_and_left_out() {
    let server = Server::start().await;
    let path = format!("/Users/{}", created(&server, "a", &acme()).await);
    for (query, expected) in [
        (format!("attributes={ACME}"), acme()),
        (format!("attributes={}", ACME.to_lowercase()), acme()),
        (format!("attributes=userName,{ACME}:BADGE"), json!({"badge": "A7"})),
        (format!("attributes={ACME}:place.Room"), json!({"place": {"room": "North"}})),
        (format!("attributes={ACME}:keys.type"), json!({"keys": [{"type": "door"}, {"type": "gate"}]})),
        ("attributes=userName".to_owned(), Value::Null),
        (format!("excludedAttributes={ACME}"), Value::Null),
    ] {
        let read = server.okta("GET", &format!("{path}?{query}"), None).await.json();
        assert_eq!(read[ACME], expected, "{query}");
    }
    let without = server.okta("GET", &format!("{path}?excludedAttributes={ACME}:badge,{ACME}:place.floor"), None).await;
    let mut expected = acme();
    expected.as_object_mut().unwrap().remove("badge");
    expected["place"] = json!({"room": "North"});
    assert_eq!(without.json()[ACME], expected);
    let listed = server.okta("GET", &format!("/Users?attributes={ACME}:level"), None).await.json();
    assert_eq!(listed["Resources"][0][ACME], json!({"level": 3}));
}

#[tokio::test]
async fn an_extension_is_filtered_by_the_types_of_its_values() {
    let server = Server::start().await;
    created(&server, "a", &acme()).await;
    let other =
        json!({"badge": "b2", "level": 20, "remote": false, "since": "2026-01-31T13:00:00+01:00", "day": "2025-12-31"});
    created(&server, "b", &other).await;
    server.user("c").await;
    for (filter, expected) in [
        ("badge eq \"a7\"", "a"),
        ("BADGE sw \"B\"", "b"),
        ("badge co \"7\"", "a"),
        ("badge ne \"a7\"", "bc"),
        ("badge pr", "ab"),
        ("badge eq null", "c"),
        ("level gt 3", "b"),
        ("level ge 3", "ab"),
        ("level lt 20.0", "a"),
        ("level eq \"3\"", ""),
        ("rate eq 1.5", "a"),
        ("remote eq true", "a"),
        ("remote eq \"False\"", "b"),
        ("remote ne true", "bc"),
        ("since eq \"2026-01-31T12:00:00.000Z\"", "ab"),
        ("since ge \"2026-01-31T12:00:01Z\"", ""),
        ("day lt \"2026-01-01\"", "b"),
        ("place.room eq \"north\"", "a"),
        ("place.floor le 2", "a"),
        ("place pr", "a"),
        ("tags eq \"BLUE\"", "a"),
        ("keys eq \"k2\"", "a"),
        ("keys.type eq \"gate\"", "a"),
        ("keys[type eq \"gate\" and value eq \"k2\"]", "a"),
        ("keys[type eq \"door\" and value eq \"k2\"]", ""),
        ("keys[type eq \"door\"].value eq \"K1\"", "a"),
        ("nothing pr", ""),
    ] {
        for (text, expected) in [
            (format!("{ACME}:{filter}"), expected.to_owned()),
            (format!("{ACME}:{filter} or userName eq \"none\""), expected.to_owned()),
            (format!("userName eq \"a\" and {}:{filter}", ACME.to_lowercase()), expected.replace(['b', 'c'], "")),
        ] {
            let reply = server.okta("GET", &format!("/Users?filter={}", encoded(&text)), None).await;
            assert_eq!(reply.status, 200, "{text}: {}", reply.text);
            let body = reply.json();
            let names = body["Resources"].as_array().unwrap().iter().map(|user| user["userName"].as_str().unwrap());
            assert_eq!(names.collect::<String>(), expected, "{text}");
        }
    }
    let whole = server.okta("GET", &format!("/Users?filter={}", encoded(&format!("{ACME} pr"))), None).await.json();
    assert_eq!(whole["totalResults"], 2);
    let root = json!({"filter": format!("{ACME}:badge pr")});
    assert_eq!(server.okta("POST", "/.search", Some(root)).await.json()["totalResults"], 2);
    for refused in [
        format!("{ACME}:remote gt true"),
        format!("{ACME}:badge gt null"),
        "urn:example:nothing:userName eq \"a\"".to_owned(),
        "urn:ietf:params:scim:schemas:User:userName eq \"a\"".to_owned(),
        format!("{ENTERPRISE}:nothing pr"),
    ] {
        server
            .okta("GET", &format!("/Users?filter={}", encoded(&refused)), None)
            .await
            .refused(400, Some("invalidFilter"));
    }
}

#[tokio::test]
async fn a_version_of_three_numbers_in_a_urn_is_a_part_of_it() {
    for urn in [
        "urn:example:params:scim:schemas:ext:1.2.3:User",
        "urn:example:params:scim:schemas:ext:1.2.3",
        "urn:example:params:scim:schemas:ext:1.2",
    ] {
        let server = Server::start().await;
        let body = json!({"schemas": [USER, urn], "userName": "a", urn: {"badge": "b1", "place": {"floor": 3}}});
        let reply = server.okta("POST", "/Users", Some(body)).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        let path = format!("/Users/{}", reply.json()["id"].as_str().unwrap());
        for separator in [":", "."] {
            for (name, value) in [("badge", json!("b2")), ("place.floor", json!(4))] {
                let operation = json!([{"op": "replace", "path": format!("{urn}{separator}{name}"), "value": value}]);
                let reply = server.patch(&path, operation).await;
                assert_eq!(reply.status, 200, "{urn}{separator}{name}: {}", reply.text);
            }
            let read = server.okta("GET", &path, None).await.json();
            assert_eq!(read[urn], json!({"badge": "b2", "place": {"floor": 4}}), "{read}");
            let filter = format!("{urn}{separator}badge eq \"B2\" and {urn}{separator}place.floor eq 4 and {urn} pr");
            assert_eq!(server.selected("/Users", &filter).await.len(), 1, "{filter}");
        }
        assert_eq!(server.patch(&path, json!([{"op": "remove", "path": urn}])).await.status, 200);
        assert!(server.okta("GET", &path, None).await.json().get(urn).is_none());
        let operation = json!([{"op": "add", "path": urn, "value": {"badge": "b3"}}]);
        assert_eq!(server.patch(&path, operation).await.json()[urn], json!({"badge": "b3"}));
    }
}

#[tokio::test]
async fn lists_are_sorted_by_attributes_of_an_extension() {
    let server = Server::start().await;
    for (name, extension) in [
        ("a", json!({"badge": "b", "level": 10, "since": "2026-01-31T13:00:00+02:00", "codes": [{"value": "z"}]})),
        ("b", json!({"badge": "C", "level": 9.5, "since": "2026-01-31T12:00:00Z", "codes": [{"value": "y"}]})),
        ("c", json!({"badge": "A", "level": 90, "since": "2026-02-01"})),
    ] {
        created(&server, name, &extension).await;
    }
    server.created("/Users", json!({"userName": "d"})).await;
    for (by, expected) in [
        ("badge", ["c", "a", "b", "d"]),
        ("level", ["b", "a", "c", "d"]),
        ("since", ["a", "b", "c", "d"]),
        ("codes", ["b", "a", "c", "d"]),
        ("codes.value", ["b", "a", "c", "d"]),
        ("nothing", ["a", "b", "c", "d"]),
    ] {
        let query = format!("sortBy={ACME}:{by}");
        assert_eq!(server.names("/Users", &query).await, expected, "{by}");
        if by != "nothing" && by != "codes" && by != "codes.value" {
            let reversed: Vec<&str> = expected.into_iter().rev().collect();
            assert_eq!(server.names("/Users", &format!("{query}&sortOrder=descending")).await, reversed, "{by}");
        }
    }
    server.okta("GET", "/Users?sortBy=urn:example:nothing:badge", None).await.refused(400, Some("invalidValue"));
}

#[tokio::test]
async fn an_extension_has_no_effect_on_what_access_depends_on() {
    let server = Server::start().await;
    let facts = json!({"active": false, "userName": "z", "externalId": "z", "emails": [{"value": "z@z"}], "members": [{"value": "z"}]});
    let id = created(&server, "a", &facts).await;
    let user = server.store.user(&ProviderName::new("okta").unwrap(), crate::model::UserId(id.parse().unwrap())).await;
    let user = user.unwrap().unwrap().facts;
    assert!(user.active && user.user_name == "a" && user.external_id.is_none() && user.emails.is_empty());
    // Known URNs of earlier versions, and attributes that a known schema does not have, are treated as before.
    let legacy = json!({
        "userName": "b", "schemas": [USER], "nothing": "x", ENTERPRISE: {"department": "D", "nothing": "x"},
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0User": {"department": "E"},
    });
    let reply = server.okta("POST", "/Users", Some(legacy)).await.json();
    assert_eq!((&reply[ENTERPRISE], &reply["schemas"]), (&json!({"department": "D"}), &json!([USER, ENTERPRISE])));
    assert!(server.found(FindingCode::AttributeNotStored));
    let legacy =
        json!({"userName": "c", "schemas": [USER], "urn:scim:schemas:extension:enterprise:1.0": {"department": "D"}});
    assert_eq!(server.okta("POST", "/Users", Some(legacy)).await.json()[ENTERPRISE]["department"], "D");
}

#[tokio::test]
async fn a_strict_provider_has_to_list_the_urn() {
    let server = Server::start().await;
    server.tokens.set_strict(BTreeSet::from([ProviderName::new("okta").unwrap()]));
    let body = |schemas: Value| json!({"schemas": schemas, "userName": "a", ACME: {"badge": "A"}});
    let reply = server.okta("POST", "/Users", Some(body(json!([USER])))).await;
    let reply = reply.refused(400, Some("invalidValue"));
    assert!(reply.text.contains("acme:2.0:User") && reply.text.contains("strictness: Strict"), "{}", reply.text);
    assert!(!server.found(FindingCode::ExtensionNotDescribed));
    let listed = server.okta("POST", "/Users", Some(body(json!([USER, ACME])))).await;
    assert_eq!((listed.status, &listed.json()[ACME]), (201, &json!({"badge": "A"})), "{}", listed.text);
    assert!(server.found(FindingCode::ExtensionNotDescribed));
    let path = format!("/Users/{}", listed.json()["id"].as_str().unwrap());
    // The resource lists it.
    let change = |value: Value| json!([{"op": "replace", "path": format!("{ACME}:badge"), "value": value}]);
    assert_eq!(server.patch(&path, change(json!("B"))).await.json()[ACME]["badge"], "B");
    assert_eq!(server.patch(&path, json!([{"op": "remove", "path": ACME}])).await.json().get(ACME), None);
    server.patch(&path, change(json!("C"))).await.refused(400, Some("invalidPath"));
    server
        .patch(&path, json!([{"op": "add", "value": {ACME: {"badge": "C"}}}]))
        .await
        .refused(400, Some("invalidPath"));
    let body = json!({"schemas": [PATCH, ACME], "Operations": change(json!("D"))});
    assert_eq!(server.okta("PATCH", &path, Some(body)).await.json()[ACME]["badge"], "D");
    let put = json!({"schemas": [USER], "userName": "a", ACME: {"badge": "E"}});
    server.okta("PUT", &path, Some(put)).await.refused(400, Some("invalidValue"));
}
