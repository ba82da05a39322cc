//! Lists: filters over every stored attribute, sorting and cursors.

use super::*;

const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Server {
    /// The names of the resources that a query selects, in order.
    pub(super) async fn names(&self, endpoint: &str, query: &str) -> Vec<String> {
        let reply = self.okta("GET", &format!("{endpoint}?{query}"), None).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text);
        let body = reply.json();
        let list = body["Resources"].as_array().unwrap();
        let name = |one: &Value| one.get("userName").or(one.get("displayName")).unwrap().as_str().unwrap().to_owned();
        list.iter().map(name).collect()
    }

    pub(super) async fn selected(&self, endpoint: &str, filter: &str) -> Vec<String> {
        let names = self.names(endpoint, &format!("filter={}", encoded(filter))).await;
        let counted = self.okta("GET", &format!("{endpoint}?count=0&filter={}", encoded(filter)), None).await;
        assert_eq!(counted.json()["totalResults"], json!(names.len()), "{filter}");
        names
    }

    pub(super) async fn created(&self, endpoint: &str, body: Value) -> String {
        let reply = self.okta("POST", endpoint, Some(body)).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json()["id"].as_str().unwrap().to_owned()
    }
}

async fn three() -> (Server, Vec<String>) {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for body in [
        json!({
            "userName": "ann@x.example", "title": "Chief", "externalId": "E1", "active": true,
            "name": {"familyName": "Zeta", "givenName": "Ann"},
            "emails": [{"value": "Ann@x.example", "type": "work", "primary": true}, {"value": "ann@home.example", "type": "home"}],
            ENTERPRISE: {"employeeNumber": "701984", "department": "Tools", "manager": {"value": "m1"}},
        }),
        json!({
            "userName": "bob@x.example", "active": false, "displayName": "Bob",
            "emails": [{"value": "bob@y.example", "type": "work"}],
            "name": {"familyName": "alpha"},
            "addresses": [{"locality": "Bonn", "type": "work"}],
        }),
        json!({"userName": "cid@y.example", "title": "intern", "profileUrl": "https://x.example/Cid"}),
    ] {
        ids.push(server.created("/Users", body).await);
    }
    (server, ids)
}

#[tokio::test]
async fn every_filter_of_the_rfc_is_answered_over_every_stored_attribute() {
    let (server, ids) = three().await;
    let (ann, bob, cid) = ("ann@x.example", "bob@x.example", "cid@y.example");
    for (filter, expected) in [
        ("userName co \"X.EXAMPLE\"", vec![ann, bob]),
        ("userName sw \"b\"", vec![bob]),
        ("userName ew \"@y.example\"", vec![cid]),
        ("userName ne \"bob@x.example\"", vec![ann, cid]),
        ("userName gt \"B\" and userName le \"bob@x.example\"", vec![bob]),
        ("userName ge \"bob@x.example\"", vec![bob, cid]),
        ("userName lt \"b\"", vec![ann]),
        ("title pr", vec![ann, cid]),
        ("not (title pr)", vec![bob]),
        ("title eq null", vec![bob]),
        ("title ne null", vec![ann, cid]),
        ("title eq \"CHIEF\" or title eq \"INTERN\"", vec![ann, cid]),
        ("userName eq \"ANN@x.example\" or emails.value eq \"bob@Y.example\"", vec![ann, bob]),
        ("name.familyName eq \"ALPHA\"", vec![bob]),
        ("name.familyName pr and (active eq true or displayName eq \"bob\")", vec![ann, bob]),
        ("active eq false", vec![bob]),
        ("active ne true", vec![bob]),
        ("active eq \"True\"", vec![ann, cid]),
        ("emails co \"home\"", vec![ann]),
        ("emails pr", vec![ann, bob]),
        ("emails[type eq \"work\" and value co \"@x\"]", vec![ann]),
        ("emails[type eq \"home\" and value co \"@x\"]", vec![]),
        ("emails[type eq \"home\"]", vec![ann]),
        ("not (emails[type eq \"home\"])", vec![bob, cid]),
        ("emails[type eq \"work\" and not (primary eq true)]", vec![bob]),
        ("emails[type eq \"work\"].value sw \"BOB\"", vec![bob]),
        ("emails.type eq \"home\"", vec![ann]),
        ("emails.primary eq true", vec![ann]),
        ("addresses.locality eq \"bonn\"", vec![bob]),
        ("addresses pr", vec![bob]),
        ("profileUrl eq \"https://x.example/Cid\"", vec![cid]),
        ("profileUrl eq \"https://x.example/cid\"", vec![]),
        ("externalId eq \"e1\"", vec![]),
        ("externalId sw \"E\"", vec![ann]),
        ("urn:ietf:params:scim:schemas:core:2.0:User:title co \"hie\"", vec![ann]),
        ("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:employeeNumber eq \"701984\"", vec![ann]),
        ("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department sw \"t\"", vec![ann]),
        ("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.value eq \"m1\"", vec![ann]),
        ("manager eq \"m1\"", vec![ann]),
        ("meta.resourceType eq \"User\"", vec![ann, bob, cid]),
        ("meta.resourceType eq \"Group\"", vec![]),
        ("meta.created ge \"2026-06-01T00:00:00Z\"", vec![ann, bob, cid]),
        ("meta.created gt \"2026-06-01T02:00:00+02:00\"", vec![]),
        ("meta.created eq \"2026-06-01T02:00:00+02:00\"", vec![ann, bob, cid]),
        ("meta.lastModified lt \"2026-06-01T00:00:00.001Z\"", vec![ann, bob, cid]),
        ("meta.lastModified gt \"2026-05-31T23:59:59\"", vec![ann, bob, cid]),
        ("meta.lastModified ne \"2026-06-01T00:00:00Z\"", vec![]),
        ("meta.version eq \"W/\\\"1\\\"\"", vec![ann, bob, cid]),
        ("meta.location co \"/Users/\"", vec![ann, bob, cid]),
        ("schemas eq \"urn:ietf:params:scim:schemas:core:2.0:User\"", vec![ann, bob, cid]),
        ("schemas co \"enterprise\"", vec![ann]),
        ("id pr", vec![ann, bob, cid]),
    ] {
        assert_eq!(server.selected("/Users", filter).await, expected, "{filter}");
    }
    assert_eq!(server.selected("/Users", &format!("id eq \"{}\" or id eq \"{}\"", ids[2], ids[0])).await, [ann, cid]);
    assert_eq!(server.selected("/Users", &format!("not (id eq \"{}\")", ids[1])).await, [ann, cid]);
    assert_eq!(server.selected("/Users", &format!("id co \"{}\"", &ids[1][..13])).await, [bob]);
    for refused in [
        "nothing pr",
        "active gt true",
        "active eq \"maybe\"",
        "name eq \"a\"",
        "meta.created gt \"yesterday\"",
        "title gt null",
        "emails[nothing pr]",
        "title[value pr]",
        "password eq \"x\"",
    ] {
        let path = format!("/Users?filter={}", encoded(refused));
        server.okta("GET", &path, None).await.refused(400, Some("invalidFilter"));
    }
}

#[tokio::test]
async fn a_filter_on_members_is_right_in_every_boolean_position() {
    let (server, ids) = three().await;
    let member = |id: &String| json!({"value": id});
    let inner = json!({"displayName": "inner", "members": [member(&ids[0]), member(&ids[1])]});
    let inner = server.created("/Groups", inner).await;
    server.created("/Groups", json!({"displayName": "outer", "members": [{"value": inner}]})).await;
    server.created("/Groups", json!({"displayName": "empty"})).await;
    for (filter, expected) in [
        (format!("members eq \"{}\"", ids[0]), vec!["inner"]),
        (format!("members.value eq \"{}\" or displayName eq \"EMPTY\"", ids[0]), vec!["inner", "empty"]),
        (format!("not (members eq \"{}\")", ids[0]), vec!["outer", "empty"]),
        (format!("members eq \"{}\" and not (members eq \"{}\")", ids[0], ids[1]), vec![]),
        (format!("members eq \"{}\" and not (members eq \"{}\")", ids[0], ids[2]), vec!["inner"]),
        (format!("members[value eq \"{}\" and type eq \"User\"]", ids[0]), vec!["inner"]),
        (format!("members[value eq \"{inner}\" and type eq \"User\"]"), vec![]),
        (format!("members ne \"{}\"", ids[0]), vec!["inner", "outer", "empty"]),
        ("members pr".to_owned(), vec!["inner", "outer"]),
        ("not (members pr)".to_owned(), vec!["empty"]),
        ("members.type eq \"Group\"".to_owned(), vec!["outer"]),
        ("displayName sw \"IN\" or displayName ew \"R\"".to_owned(), vec!["inner", "outer"]),
        ("meta.resourceType eq \"Group\" and displayName pr".to_owned(), vec!["inner", "outer", "empty"]),
    ] {
        assert_eq!(server.selected("/Groups", &filter).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn results_that_are_read_are_paged_with_exact_totals() {
    let server = Server::start().await;
    for index in 0..25 {
        let title = if index % 2 == 0 { "even" } else { "odd" };
        server.created("/Users", json!({"userName": format!("u{index:02}"), "title": title})).await;
    }
    let reply = server.okta("GET", "/Users?filter=title%20eq%20%22odd%22&startIndex=3&count=4", None).await.json();
    assert_eq!(
        (&reply["totalResults"], &reply["startIndex"], &reply["itemsPerPage"]),
        (&json!(12), &json!(3), &json!(4))
    );
    let names: Vec<&Value> = reply["Resources"].as_array().unwrap().iter().map(|user| &user["userName"]).collect();
    assert_eq!(names, ["u05", "u07", "u09", "u11"]);
    let reply = server.okta("GET", "/Users?filter=title%20eq%20%22odd%22&startIndex=13", None).await.json();
    assert_eq!((&reply["totalResults"], &reply["Resources"]), (&json!(12), &json!([])));
}

// A client that reads an empty answer creates what exists already (scim.md §3.7).
#[tokio::test]
async fn a_value_in_other_quotation_marks_is_refused_and_not_looked_up() {
    let (server, _) = three().await;
    for value in ["'ann@x.example'", "‘ann@x.example’", "“ann@x.example”", "`ann@x.example`", "«ann@x.example»"]
    {
        let path = format!("/Users?filter={}", encoded(&format!("userName eq {value}")));
        let reply = server.okta("GET", &path, None).await;
        reply.refused(400, Some("invalidFilter"));
        assert!(reply.json()["detail"].as_str().unwrap().contains("double quotation marks"), "{}", reply.text);
    }
    assert_eq!(server.selected("/Users", "userName eq \"o'neil\"").await, Vec::<String>::new());
}

// okta-sdk-java #839.
#[tokio::test]
async fn a_raw_plus_in_a_quoted_value_is_looked_up_both_ways() {
    let server = Server::start().await;
    server.created("/Users", json!({"userName": "ann+test@x.example"})).await;
    server.created("/Users", json!({"userName": "bob two@x.example"})).await;
    for (query, expected) in [
        ("filter=userName%20eq%20%22ann+test@x.example%22", vec!["ann+test@x.example"]),
        ("filter=userName+eq+%22ann+test@x.example%22", vec!["ann+test@x.example"]),
        ("filter=userName+eq+%22ann%2Btest@x.example%22", vec!["ann+test@x.example"]),
        ("filter=userName+eq+%22bob+two@x.example%22", vec!["bob two@x.example"]),
        ("filter=userName+eq+%22nobody+two@x.example%22", vec![]),
    ] {
        assert_eq!(server.names("/Users", query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn lists_are_sorted_by_any_attribute_and_what_has_none_is_last() {
    let (server, _) = three().await;
    let (ann, bob, cid) = ("ann@x.example", "bob@x.example", "cid@y.example");
    for (query, expected) in [
        ("sortBy=userName&sortOrder=descending", vec![cid, bob, ann]),
        ("sortBy=USERNAME", vec![ann, bob, cid]),
        ("sortBy=name.familyName", vec![bob, ann, cid]),
        ("sortBy=title", vec![ann, cid, bob]),
        ("sortBy=title&sortOrder=descending", vec![bob, cid, ann]),
        ("sortBy=emails", vec![ann, bob, cid]),
        ("sortBy=active", vec![bob, ann, cid]),
        ("sortBy=meta.created&sortOrder=descending", vec![ann, bob, cid]),
        ("sortBy=urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:employeeNumber", vec![ann, bob, cid]),
        ("sortBy=userName&sortOrder=descending&startIndex=2&count=1", vec![bob]),
        ("sortBy=userName&sortOrder=descending&filter=title%20pr", vec![cid, ann]),
    ] {
        assert_eq!(server.names("/Users", query).await, expected, "{query}");
    }
    let body = json!({"sortBy": "userName", "sortOrder": "descending", "count": 1});
    let found = server.okta("POST", "/Users/.search", Some(body)).await.json();
    assert_eq!((&found["totalResults"], &found["Resources"][0]["userName"]), (&json!(3), &json!(cid)));
    for query in ["sortBy=nothing", "sortBy=name", "sortBy=userName&sortOrder=sideways"] {
        server.okta("GET", &format!("/Users?{query}"), None).await.refused(400, Some("invalidValue"));
    }
    let config = server.okta("GET", "/ServiceProviderConfig", None).await.json();
    assert_eq!((&config["sort"]["supported"], &config["pagination"]["cursor"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn a_list_is_read_to_its_end_by_cursors_in_any_order() {
    let server = Server::start().await;
    for index in 0..7 {
        server.created("/Users", json!({"userName": format!("u{index}"), "title": "t"})).await;
    }
    server.created("/Groups", json!({"displayName": "g"})).await;
    for base in ["", "&filter=title%20pr", "&sortBy=userName", "&filter=userName%20sw%20%22u%22&sortBy=title"] {
        let (mut cursor, mut names, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let path = format!("/Users?cursor={cursor}&count=3{base}");
            let page = server.okta("GET", &path, None).await;
            assert_eq!(page.status, 200, "{path}: {}", page.text);
            let page = page.json();
            assert_eq!(page["totalResults"], json!(7), "{base}");
            for user in page["Resources"].as_array().unwrap() {
                names.push(user["userName"].as_str().unwrap().to_owned());
            }
            pages += 1;
            let Some(next) = page.get("nextCursor") else { break };
            cursor = next.as_str().unwrap().to_owned();
        }
        assert_eq!((names.join(" ").as_str(), pages), ("u0 u1 u2 u3 u4 u5 u6", 3), "{base}");
    }
    let first = server.okta("GET", "/Users?cursor&count=3", None).await.json();
    let next = first["nextCursor"].as_str().unwrap();
    // Resources that are deleted meanwhile move nothing.
    let id = first["Resources"][0]["id"].as_str().unwrap();
    assert_eq!(server.okta("DELETE", &format!("/Users/{id}"), None).await.status, 204);
    assert_eq!(server.names("/Users", &format!("cursor={next}&count=3")).await, ["u3", "u4", "u5"]);
    let body = json!({"cursor": next, "count": 3});
    let found = server.okta("POST", "/Users/.search", Some(body)).await.json();
    assert_eq!(found["Resources"][0]["userName"], json!("u3"));
    server.okta("GET", &format!("/Groups?cursor={next}"), None).await.refused(400, Some("invalidCursor"));
    server
        .okta("GET", &format!("/Users?cursor={next}&filter=title%20pr"), None)
        .await
        .refused(400, Some("invalidCursor"));
    server.okta("GET", "/Users?cursor=x", None).await.refused(400, Some("invalidCursor"));
    for count in ["-1", "many"] {
        server.okta("GET", &format!("/Users?cursor&count={count}"), None).await.refused(400, Some("invalidCount"));
    }
    let (mut cursor, mut kinds) = (String::new(), Vec::new());
    loop {
        let body = json!({"cursor": cursor, "count": 4});
        let page = server.okta("POST", "/.search", Some(body)).await.json();
        assert_eq!(page["totalResults"], json!(7));
        kinds.extend(page["Resources"].as_array().unwrap().iter().map(|one| one["meta"]["resourceType"].clone()));
        let Some(next) = page.get("nextCursor") else { break };
        cursor = next.as_str().unwrap().to_owned();
    }
    assert_eq!(kinds, ["User", "User", "User", "User", "User", "User", "Group"]);
}

#[tokio::test]
async fn a_search_at_the_root_is_sorted_across_types() {
    let server = Server::start().await;
    for name in ["b", "d", "f"] {
        server.created("/Users", json!({"userName": name, "displayName": name})).await;
    }
    for name in ["A", "C", "E"] {
        server.created("/Groups", json!({"displayName": name})).await;
    }
    let found = async |body: Value| {
        let page = server.okta("POST", "/.search", Some(body)).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let page = page.json();
        let names = page["Resources"].as_array().unwrap().iter().map(|one| one["displayName"].as_str().unwrap());
        (names.collect::<String>(), page["totalResults"].as_u64().unwrap(), page.get("nextCursor").cloned())
    };
    for (body, expected) in [
        (json!({}), "bdfACE"),
        (json!({"sortBy": "displayName"}), "AbCdEf"),
        (json!({"sortBy": "displayName", "sortOrder": "descending"}), "fEdCbA"),
        (json!({"sortBy": "displayName", "startIndex": 3, "count": 2}), "Cd"),
        (json!({"sortBy": "displayName", "startIndex": 6}), "f"),
        (json!({"sortBy": "displayName", "count": 0}), ""),
        // Only users have the attribute: groups have no value.
        (json!({"sortBy": "userName"}), "bdfACE"),
        (json!({"sortBy": "userName", "sortOrder": "descending"}), "ACEfdb"),
        (json!({"sortBy": "meta.created", "sortOrder": "ascending"}), "bdfACE"),
    ] {
        assert_eq!(found(body.clone()).await.0, expected, "{body}");
        assert_eq!(found(body.clone()).await.1, 6, "{body}");
    }
    let filtered = json!({"sortBy": "displayName", "filter": "displayName ge \"b\" and displayName le \"d\""});
    assert_eq!(found(filtered).await, ("bCd".to_owned(), 3, None));
    let users = json!({"sortBy": "displayName", "sortOrder": "descending", "filter": "userName pr"});
    assert_eq!(found(users).await, ("fdb".to_owned(), 3, None));
    for base in [json!({"sortBy": "displayName", "count": 2}), json!({"count": 3}), json!({"count": 2})] {
        let (mut names, mut cursor) = (String::new(), json!(""));
        loop {
            let mut body = base.clone();
            body["cursor"] = cursor;
            let (more, total, next) = found(body).await;
            names.push_str(&more);
            assert_eq!(total, 6);
            let Some(next) = next else { break };
            cursor = next;
        }
        let expected = if base.get("sortBy").is_some() { "AbCdEf" } else { "bdfACE" };
        assert_eq!(names, expected, "{base}");
    }
    for body in [json!({"sortBy": "nothing"}), json!({"sortBy": "displayName", "sortOrder": "sideways"})] {
        server.okta("POST", "/.search", Some(body)).await.refused(400, Some("invalidValue"));
    }
    server
        .okta("POST", "/.search", Some(json!({"sortBy": "displayName", "filter": "nothing pr"})))
        .await
        .refused(400, Some("invalidFilter"));
}

// RFC 7644 §5 and §7.8.
#[tokio::test]
async fn names_are_compared_by_width_case_and_form_and_are_unique_likewise() {
    let server = Server::start().await;
    server.created("/Users", json!({"userName": "Amélie@x.example"})).await;
    server.created("/Groups", json!({"displayName": "Caf\u{e9}"})).await;
    for name in ["AME\u{301}LIE@x.example", "ａｍélie@x.example", "amélie＠x．example"] {
        assert_eq!(server.selected("/Users", &format!("userName eq \"{name}\"")).await.len(), 1, "{name}");
        assert_eq!(server.selected("/Users", &format!("userName sw \"{name}\"")).await.len(), 1, "{name}");
        server.okta("POST", "/Users", Some(json!({"userName": name}))).await.refused(409, Some("uniqueness"));
    }
    for name in ["CAFE\u{301}", "caf\u{e9}", "cafe\u{301}"] {
        assert_eq!(server.selected("/Groups", &format!("displayName eq \"{name}\"")).await.len(), 1, "{name}");
        server.okta("POST", "/Groups", Some(json!({"displayName": name}))).await.refused(409, Some("uniqueness"));
    }
}

#[tokio::test]
async fn a_user_name_without_a_visible_character_is_refused() {
    let server = Server::start().await;
    let id = server.created("/Users", json!({"userName": "a@x.example"})).await;
    for name in ["\n", "\t", " \u{a0}", "\u{200b}\u{feff}"] {
        server.okta("POST", "/Users", Some(json!({"userName": name}))).await.refused(400, Some("invalidValue"));
        let body = json!({"userName": name});
        server.okta("PUT", &format!("/Users/{id}"), Some(body)).await.refused(400, Some("invalidValue"));
        let patch = json!([{"op": "replace", "path": "userName", "value": name}]);
        server.patch(&format!("/Users/{id}"), patch).await.refused(400, Some("invalidValue"));
    }
}
