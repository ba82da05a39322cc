//! What everybody may see: counts that add up, alerts that can fire, and no names of people.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use crate::common::alerts::{ASKED_FOR, Series, value_of};
use crate::support::*;

/// A proxy to Google on which lists of services can be made empty.
#[derive(Clone)]
struct Way {
    to: String,
    http: reqwest::Client,
    lists_nothing: Arc<AtomicBool>,
}

async fn forward(State(way): State<Way>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = |status: StatusCode, body: Body| {
        let response = Response::builder().status(status).header("content-type", "application/json").body(body);
        response.expect("a response")
    };
    let is_list = parts.method == Method::GET && parts.uri.path().ends_with("/services");
    if is_list && way.lists_nothing.load(Ordering::Relaxed) {
        return answer(StatusCode::OK, Body::from("{}"));
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let body = to_bytes(body, 1 << 20).await.expect("a body");
    let call = way.http.request(parts.method, format!("{}{path}", way.to)).headers(parts.headers).body(body);
    match call.send().await {
        Ok(got) => answer(got.status(), Body::from(got.bytes().await.unwrap_or_default())),
        Err(_) => answer(StatusCode::BAD_GATEWAY, Body::empty()),
    }
}

/// Puts the proxy between rolecall and the emulator. Returns the switch.
async fn put_between(fixture: &mut Fixture) -> Arc<AtomicBool> {
    let lists_nothing = Arc::new(AtomicBool::new(false));
    let way =
        Way { to: fixture.google.url.clone(), http: fixture.google.http.clone(), lists_nothing: lists_nothing.clone() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    fixture.google.url = format!("http://{}", listener.local_addr().expect("its address"));
    let router = axum::Router::new().fallback(forward).with_state(way);
    tokio::spawn(async move { axum::serve(listener, router).await });
    lists_nothing
}

fn count(status: &Value, field: &str) -> i64 {
    status["grants"][field].as_i64().unwrap_or(0)
}

fn adds_up(status: &Value) -> bool {
    let parts = ["acknowledged", "pending", "held", "failed"].map(|field| count(status, field));
    count(status, "desired") == parts.iter().sum::<i64>()
}

#[tokio::test]
async fn list_that_comes_back_empty_while_somebody_joins_is_no_result_that_is_ready() {
    let mut manifests = base();
    let team = |extra: &str| mapping("team", "team-checkout", &["services/checkout-*"], &[INVOKER], extra);
    manifests.push(("mapping.yaml", team("")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    let lists_nothing = put_between(&mut fixture).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = Vec::new();
    for n in 0..15 {
        ids.push(scim.create_user(&format!("p{n}@example.com")).await);
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let group = scim.create_group("team-checkout", &ids[..10]).await;
    fixture.mapping_status("checkout/team", "ten", |s| has(s, "Ready", "True", "") && count(s, "verified") == 10).await;

    lists_nothing.store(true, Ordering::Relaxed);
    fixture.status_of_target("nothing is listed", |s| s["resources"]["services"] == 0).await;
    scim.replace_members(&group, &ids).await;
    let status = fixture.mapping_status("checkout/team", "five wait", |s| count(s, "pending") == 5).await;
    assert!(adds_up(&status) && status["grants"]["summary"] == "10/15", "{status:#}");
    // A change of the spec is not churn: the mapping is not ready from the first moment.
    fixture.write("mapping.yaml", &team("  description: once more\n"));
    let status = fixture.mapping_status("checkout/team", "not ready", |s| has(s, "Ready", "False", "")).await;
    let status = if has(&status, "Frozen", "True", "") {
        status
    } else {
        fixture.mapping_status("checkout/team", "frozen", |s| has(s, "Frozen", "True", "InventoryIncomplete")).await
    };
    assert!(has(&status, "Ready", "False", "InventoryIncomplete") && adds_up(&status), "{status:#}");
    assert_eq!(
        fixture.policy("checkout-api").await[INVOKER].len(),
        10,
        "nothing is removed, and nothing granted on a name"
    );

    lists_nothing.store(false, Ordering::Relaxed);
    let status = fixture
        .mapping_status("checkout/team", "all", |s| has(s, "Ready", "True", "") && count(s, "verified") == 15)
        .await;
    assert!(adds_up(&status) && !has(&status, "Frozen", "True", ""), "{status:#}");
}

#[tokio::test]
async fn counts_add_up_whatever_the_policy_and_the_mode() {
    let mut manifests = base();
    let team = |extra: &str| mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], extra);
    manifests.push(("mapping.yaml", team("  onMissing: Report\n")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.stranger_adds("checkout-api", INVOKER, "user:p0@example.com").await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(scim.create_user(&format!("p{n}@example.com")).await);
    }
    let mut all: Vec<&str> = ids.iter().map(String::as_str).collect();
    let group = scim.create_group("team-checkout", &all).await;
    let status = fixture.mapping_status("checkout/team", "four", |s| count(s, "acknowledged") == 4).await;
    assert!(adds_up(&status) && count(&status, "unowned") == 1, "{status:#}");
    fixture.stranger_removes("checkout-api", INVOKER, "user:p1@example.com").await;
    let status = fixture.mapping_status("checkout/team", "one is missing", |s| s["drift"]["missing"] == 1).await;
    assert!(adds_up(&status) && count(&status, "held") == 1 && has(&status, "Ready", "True", ""), "{status:#}");

    let late = scim.create_user("late@example.com").await;
    fixture.write("mapping.yaml", &team("  mode: Observe\n"));
    fixture.mapping_status("checkout/team", "observed", |s| has(s, "Ready", "True", "Observed")).await;
    all.push(&late);
    scim.replace_members(&group, &all).await;
    let status = fixture.mapping_status("checkout/team", "would be added", |s| count(s, "held") == 2).await;
    assert!(adds_up(&status), "{status:#}");
    fixture.write("mapping.yaml", &team("  mode: Suspend\n"));
    let status = fixture.mapping_status("checkout/team", "suspended", |s| has(s, "Frozen", "True", "Suspended")).await;
    assert!(adds_up(&status), "{status:#}");
}

async fn metrics(fixture: &Fixture) -> String {
    let answer = fixture.http.get(format!("{}/metrics", fixture.admin_url)).send().await.expect("metrics");
    answer.text().await.expect("text")
}

/// Waits until the series that an alert queries fires.
async fn is_said(fixture: &Fixture, asked: Series) {
    eventually(&format!("{asked:?}"), async || match value_of(&metrics(fixture).await, asked) {
        Some(value) if value > 0.0 => Ok(()),
        other => Err(format!("{other:?}; log:\n{}", tail(&fixture.log()))),
    })
    .await;
}

#[tokio::test]
async fn each_series_that_an_alert_queries_is_exported_and_fires() {
    let mut manifests = base();
    for (file, name, group, service, extra) in [
        ("a.yaml", "crowd", "team-crowd", "crowded", ""),
        ("b.yaml", "suspended", "team-one", "checkout-api", ""),
        ("c.yaml", "denied", "team-one", "denied", ""),
        ("d.yaml", "reported", "team-one", "checkout-web", "  onMissing: Report\n"),
    ] {
        let resource = format!("services/{service}");
        manifests.push((file, mapping(name, group, &[resource.as_str()], &[INVOKER], extra)));
    }
    for (file, text) in &mut manifests {
        if *file == "provider.yaml" {
            *text = text
                .replace("name: okta-scim}", "name: okta-scim}, notAfter: \"2100-01-01T00:00:00Z\"")
                .replace("  principals:", "  staleAfter: 1s\n  principals:");
        }
    }
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["crowded", "checkout-api", "checkout-web", "denied"]).await;
    fixture.run().await;
    for series in ASKED_FOR {
        eventually(&format!("{series:?} is exported before it is the case"), async || {
            value_of(&metrics(&fixture).await, series).map(drop).ok_or_else(|| "it is not".to_owned())
        })
        .await;
    }
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(scim.create_user(&format!("p{n}@example.com")).await);
    }
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    let crowd = scim.create_group("team-crowd", &all).await;
    let one = scim.create_group("team-one", &all[..2]).await;
    for (name, people) in [("crowd", 20), ("suspended", 2), ("denied", 2), ("reported", 2)] {
        fixture.mapping_status(&format!("checkout/{name}"), "done", |s| count(s, "verified") == people).await;
    }

    fixture.stranger_removes("checkout-web", INVOKER, "user:p1@example.com").await;
    fixture
        .fault(json!({"match": {"path": "/services/denied:setIamPolicy"}, "action": {"type": "error", "status": 403}}))
        .await;
    scim.remove_member(&one, &ids[0]).await;
    scim.replace_members(&crowd, &all[..1]).await;
    let suspended = mapping("suspended", "team-one", &["services/checkout-api"], &[INVOKER], "  mode: Suspend\n");
    fixture.write("b.yaml", &suspended);
    // More than ten people of the provider, and more than half of them, within the hour.
    for id in &ids[5..] {
        scim.set_active(id, false).await;
    }
    for series in ASKED_FOR {
        // Statuses are only written in a cluster, and are not refused there: a test of the writer covers that.
        if series.0 != "rolecall_cluster_status_writes_total" {
            is_said(&fixture, series).await;
        }
    }
}

/// Words that look like addresses of people.
fn named(text: &str, people: &[String]) -> Vec<String> {
    let lower = text.to_lowercase();
    people.iter().filter(|person| lower.contains(&person.to_lowercase())).cloned().collect()
}

#[tokio::test]
async fn texts_that_everybody_may_read_name_nobody_and_the_store_has_the_names() {
    let mut manifests = base();
    let extra = "  description: ask grace.owner@example.com\n  onMissing: Report\n";
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-*"], &[INVOKER], extra)));
    manifests.push(("words.yaml", mapping("words", "team-words", &["services/words"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.more = vec![("--log-level", "debug".to_owned())];
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web", "words"]).await;
    let foreign = ["user:Mallory.Foreign@elsewhere.example", "serviceAccount:ci@shop-dev.iam.gserviceaccount.com"];
    for member in foreign {
        fixture.stranger_adds("checkout-api", INVOKER, member).await;
    }
    fixture.stranger_adds("checkout-api", INVOKER, "user:was.there@example.com").await;
    fixture.unknown_to_google("user:unknown.person@example.com");
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let mut people = vec!["mallory.foreign@elsewhere.example".to_owned(), "grace.owner@example.com".to_owned()];
    let mut ids = Vec::new();
    for name in ["was.there", "taken.away", "unknown.person", "leaver.late"] {
        people.push(format!("{name}@example.com"));
        ids.push(scim.create_user(&format!("{name}@example.com")).await);
    }
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    let group = scim.create_group("team-checkout", &all).await;
    scim.create_group("team-words", &all[3..]).await;
    fixture.mapping_status("checkout/words", "granted", |s| count(s, "verified") == 1).await;
    fixture.mapping_status("checkout/team", "somebody is refused", |s| count(s, "acknowledged") >= 6).await;
    fixture.stranger_removes("checkout-api", INVOKER, "user:taken.away@example.com").await;
    fixture.mapping_status("checkout/team", "missing", |s| s["drift"]["missing"] == 1).await;
    scim.remove_member(&group, &ids[0]).await;
    fixture.mapping_status("checkout/team", "remaining", |s| s["drift"]["remaining"] == 1).await;
    let samples = fixture.status("RoleMapping", "checkout/team").await["drift"]["samples"].to_string();
    assert!(samples.contains(&format!("user:{}", ids[1])), "by the SCIM id: {samples}");
    fixture
        .fault(json!({"match": {"path": "/services/words:setIamPolicy"}, "action": {"type": "error", "status": 400,
            "message": "Policy names user:leaver.late@example.com and eve.google@example.org, who may not"}}))
        .await;
    scim.set_active(&ids[3], false).await;
    people.push("eve.google@example.org".to_owned());
    let status = fixture
        .mapping_status("checkout/words", "Google's words", |s| {
            says(s, "Stalled", "True", "ForeignMemberRejected", "who may not")
        })
        .await;
    // A malformed user, and a request with a person's name in its path.
    scim.send(reqwest::Method::POST, "/Users", Some(json!({"userName": "Not.A.Person@example.com", "active": 7})))
        .await;
    scim.send(reqwest::Method::GET, "/Users?filter=userName%20eq%20%22not.a.person%40example.com%22", None).await;
    people.push("not.a.person@example.com".to_owned());

    let statuses = fixture.http.get(format!("{}/status", fixture.admin_url)).send().await.expect("status");
    let statuses = statuses.text().await.expect("text");
    assert_eq!(named(&statuses, &people), Vec::<String>::new(), "{statuses}");
    assert_eq!(named(&metrics(&fixture).await, &people), Vec::<String>::new());
    let message = condition(&status, "Ready")["message"].to_string();
    assert!(message.contains("example.org#") && message.contains("user:example.com#"), "{message}");

    // With access to the store, the names are shown.
    let database = format!("sqlite:{}", fixture.database.display());
    let admin = fixture.admin_url.clone();
    let mut arguments = vec!["status", "-o", "yaml", "--admin", admin.as_str()];
    let (exit, plain, _) = Fixture::rolecall(&arguments);
    assert_eq!((exit, named(&plain, &people)), (0, Vec::<String>::new()), "{plain}");
    arguments.extend(["--show-principals", "--database", database.as_str()]);
    let (exit, shown, said) = Fixture::rolecall(&arguments);
    assert_eq!(exit, 0, "{said}");
    assert!(shown.contains("user:taken.away@example.com") && shown.contains("leaver.late@example.com"), "{shown}");
    fixture.shutdown().await;
    let log = fixture.log();
    assert!(log.contains("DEBUG"), "at the level that says most");
    assert_eq!(named(&log, &people), Vec::<String>::new());
}
